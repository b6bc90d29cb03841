//! Text that can do nothing, and the `key=value` form of a record.

use std::fmt::{self, Write};

use connectord_wire::is_deceptive;
use tracing::Level;

use super::record::Record;

/// Target of the lines that administrators' tools read; addresses in it have angle brackets, as mail logs have them.
const MAIL: &str = "connectord::mail";

/// Collects text, with everything that could act written as an escape.
///
/// Unlike `connectord_wire::Escaped` it leaves backslashes alone: most values have been escaped once.
#[derive(Debug)]
pub(crate) struct Inert {
    text: String,
    max: usize,
    full: bool,
}

impl Inert {
    /// At most `max` octets, then a `…`.
    pub(crate) fn new(max: usize) -> Self {
        Self { text: String::new(), max, full: false }
    }

    /// All of `text`.
    pub(crate) fn text(text: &str) -> String {
        let mut inert = Self::new(usize::MAX);
        let _ = inert.write_str(text);
        inert.finish()
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn push(&mut self, piece: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        if piece.len() > self.max - self.text.len() {
            self.full = true;
            self.text.push('…');
            return Err(fmt::Error);
        }
        self.text.push_str(piece);
        Ok(())
    }
}

impl Write for Inert {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\r' => self.push("\\r")?,
                '\n' => self.push("\\n")?,
                '\t' => self.push("\\t")?,
                c if (c as u32) < 0x20 || c == '\x7f' => self.push(&format!("\\x{:02x}", c as u32))?,
                c if is_deceptive(c) => self.push(&format!("\\u{{{:x}}}", c as u32))?,
                c => self.push(c.encode_utf8(&mut [0; 4]))?,
            }
        }
        Ok(())
    }
}

/// `message key=value key="a value"`, in the order of the record.
pub(crate) fn body(record: &Record) -> String {
    let mut line = String::with_capacity(record.octets());
    line.push_str(&record.message);
    for (name, value) in &record.fields {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(name);
        line.push('=');
        let bracketed = record.target == MAIL && matches!(*name, "from" | "to" | "message_id");
        if bracketed && !(value.starts_with('<') && value.ends_with('>')) {
            quote_into(&mut line, &format!("<{value}>"));
        } else {
            quote_into(&mut line, value);
        }
    }
    line
}

/// As [`body`], with what an administrator greps for where the level is not shown (as Postfix has it).
pub(crate) fn body_with_severity(record: &Record) -> String {
    match record.level {
        Level::ERROR => format!("error: {}", body(record)),
        Level::WARN => format!("warning: {}", body(record)),
        _ => body(record),
    }
}

/// Quotes a value that could be taken for more than one, or for none.
fn quote_into(line: &mut String, value: &str) {
    if !value.is_empty() && !value.contains(|c: char| c == '"' || c.is_whitespace()) {
        line.push_str(value);
        return;
    }
    line.push('"');
    let mut backslashes = 0_usize;
    // A value may end its own quotes neither by a quote nor by a backslash in front of ours; a backslash that starts an
    // escape stays single.
    let pair_up = |line: &mut String, backslashes: usize| {
        if !backslashes.is_multiple_of(2) {
            line.push('\\');
        }
    };
    for c in value.chars() {
        if c == '"' {
            pair_up(line, backslashes);
            line.push('\\');
        }
        line.push(c);
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
    }
    pair_up(line, backslashes);
    line.push('"');
}

/// The front of `text` of at most `max` octets, with a mark if it was cut.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
        text.truncate(end);
        text.push('…');
    }
    text
}

/// RFC 5424 §6.2.1; also what journald calls priority.
pub(crate) fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(value: &str) -> String {
        let mut line = String::new();
        quote_into(&mut line, value);
        line
    }

    #[test]
    fn only_values_that_could_be_misread_are_quoted() {
        assert_eq!(quoted("a=b"), "a=b");
        assert_eq!(quoted(r"+OK\r\n"), r"+OK\r\n");
        assert_eq!(quoted(""), r#""""#);
        assert_eq!(quoted("a b"), r#""a b""#);
        assert_eq!(quoted(r#"a"b"#), r#""a\"b""#);
        assert_eq!(quoted("a\u{3000}b"), "\"a\u{3000}b\"");
    }

    #[test]
    fn no_value_ends_its_own_quotes() {
        for value in [r"a b\", r"a b\\", r#"a b\" status=delivered"#, r#"a b\\" status=delivered"#, r#"" \""#] {
            let text = quoted(value);
            let inner = text.strip_prefix('"').unwrap();
            let mut escaped = false;
            let closing = inner.char_indices().find(|&(_, c)| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            assert_eq!(closing.map(|(at, _)| at), Some(inner.len() - 1), "{text}");
        }
    }

    #[test]
    fn what_acts_is_shown_as_an_escape_and_backslashes_stay() {
        let hostile = "a\r\n\t\0\x1b[2J\x7f\u{85}\u{202e}\u{2028}\u{feff}\\x1b é";
        assert_eq!(Inert::text(hostile), r"a\r\n\t\x00\x1b[2J\x7f\u{85}\u{202e}\u{2028}\u{feff}\x1b é");
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_marked() {
        let mut inert = Inert::new(5);
        assert!(inert.write_str("üüüü").is_err());
        assert_eq!(inert.finish(), "üü…");
        assert_eq!(cut("üüüü".into(), 7), "üü…");
        assert_eq!(cut("üüüü".into(), 8), "üüüü");
    }
}
