//! Texts from outside are made harmless in one place: whatever a template or an answer writes passes through here.

use std::fmt::{self, Write};

/// Writes text as HTML: markup becomes character references, what would move or hide text becomes visible.
///
/// Templates name it as their escaper (`askama.toml`), so no value can be written without it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Html;

impl askama::filters::Escaper for Html {
    fn write_escaped_str<W: Write>(&self, mut dest: W, string: &str) -> fmt::Result {
        string.chars().try_for_each(|c| self.write_escaped_char(&mut dest, c))
    }

    fn write_escaped_char<W: Write>(&self, mut dest: W, c: char) -> fmt::Result {
        match c {
            '<' => dest.write_str("&#60;"),
            '>' => dest.write_str("&#62;"),
            '&' => dest.write_str("&#38;"),
            '"' => dest.write_str("&#34;"),
            '\'' => dest.write_str("&#39;"),
            c if moves_text(c) && c != '\n' => write!(dest, "\u{27e8}{:04X}\u{27e9}", u32::from(c)),
            c => dest.write_char(c),
        }
    }
}

/// Whether a character does something to the text around it: controls of terminals, of writing direction, and invisible ones.
pub(crate) fn moves_text(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One value as HTML.
pub(crate) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    // Writing to a String never fails.
    let _ = askama::filters::Escaper::write_escaped_str(&Html, &mut escaped, text);
    escaped
}

/// JSON whose strings hold nothing that moves text, nor `<`, `>` and `&`, so that it is harmless on a terminal and inside a page.
pub(crate) fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        // Outside of strings JSON has none of these but line ends, and we write it on one line.
        if moves_text(c) || matches!(c, '<' | '>' | '&') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// One value as a field of CSV (RFC 4180), quoted; one that a spreadsheet would calculate begins with an apostrophe.
pub(crate) fn csv(text: &str) -> String {
    let quiet = if is_formula(text) { "'" } else { "" };
    format!("\"{quiet}{}\"", text.replace('"', "\"\""))
}

/// Whether a spreadsheet would calculate a text, or would without the apostrophes before it: those are not ours.
pub(crate) fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
}

/// HTML made by this crate from escaped parts; templates write it as it is.
pub type Markup = askama::filters::Safe<String>;

/// For callers in this crate that escaped every part.
pub(crate) fn trusted(html: String) -> Markup {
    askama::filters::Safe(html)
}

#[cfg(test)]
mod tests {
    use super::{csv, html, json};

    #[test]
    fn what_moves_text_becomes_visible() {
        assert_eq!(html("a<b>&\"'"), "a&#60;b&#62;&#38;&#34;&#39;");
        assert_eq!(html("\u{1b}[2J\u{202e}x\u{0}\u{feff}"), "⟨001B⟩[2J⟨202E⟩x⟨0000⟩⟨FEFF⟩");
        assert_eq!(html("Füße 日本\n"), "Füße 日本\n");
    }

    #[test]
    fn json_keeps_its_value_and_shows_nothing_raw() {
        let value = serde_json::json!({"subject": "<script>\u{1b}[2J\u{202e}\u{e0041} é"});
        let text = json(&value.to_string());
        assert!(text.is_char_boundary(0) && !text.contains(['<', '\u{1b}', '\u{202e}', '\u{e0041}']), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("still JSON"), value);
    }

    #[test]
    fn a_spreadsheet_calculates_nothing() {
        assert_eq!(csv("=1+1"), "\"'=1+1\"");
        assert_eq!(csv("a\"b,c"), "\"a\"\"b,c\"");
    }
}
