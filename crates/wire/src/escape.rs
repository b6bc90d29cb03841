use std::fmt;

/// Longest output of [`Escaped`], in octets of the input that are looked at; what is beyond is cut and marked with `…`.
const MAX_SHOWN: usize = 1024;

/// Shows octets from a peer so that they can do nothing: to a log line, a terminal, a table or a reader's eye.
///
/// Control characters, line and paragraph separators, and characters that change the direction of text are written as
/// escapes; octets that are not UTF-8 as `\xNN`; a backslash doubled. At most 1,024 octets are shown.
///
/// ```
/// use connectord_wire::Escaped;
/// assert_eq!(Escaped(b"-ERR no\x1b[2J\r\n").to_string(), r"-ERR no\x1b[2J\r\n");
/// assert_eq!(Escaped("Grüße".as_bytes()).to_string(), "Grüße");
/// assert_eq!(Escaped(b"caf\xe9").to_string(), r"caf\xe9");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a [u8]);

impl<'a> Escaped<'a> {
    /// Escapes a text.
    pub fn text(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let shown = &self.0[..cut(self.0)];
        for chunk in shown.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '\r' => f.write_str("\\r")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    c if (c as u32) < 0x20 || c == '\x7f' => write!(f, "\\x{:02x}", c as u32)?,
                    c if is_deceptive(c) => write!(f, "\\u{{{:x}}}", c as u32)?,
                    c => f.write_char(c)?,
                }
            }
            for octet in chunk.invalid() {
                write!(f, "\\x{octet:02x}")?;
            }
        }
        if shown.len() < self.0.len() {
            f.write_char('…')?;
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Where to cut so that no character is split.
fn cut(octets: &[u8]) -> usize {
    if octets.len() <= MAX_SHOWN {
        return octets.len();
    }
    let mut end = MAX_SHOWN;
    while end > MAX_SHOWN - 3 && octets[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    end
}

/// Whether a character beyond ASCII deceives: C1 controls, separators that some log readers take for line ends, and characters
/// that cannot be seen or turn text around.
pub fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_turns_around_is_shown_as_escapes() {
        assert_eq!(Escaped("a\u{202e}b\u{2028}c\u{85}".as_bytes()).to_string(), r"a\u{202e}b\u{2028}c\u{85}");
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_marked() {
        let text = "ü".repeat(2000);
        let shown = Escaped::text(&text).to_string();
        assert_eq!(shown.chars().filter(|c| *c == 'ü').count(), 512);
        assert!(shown.ends_with('…'));
    }
}
