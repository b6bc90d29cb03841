//! What the output can show: colour, marks, and how much room there is.

use std::io::IsTerminal;
use std::os::fd::AsFd;

/// Of what is well.
pub const GREEN: &str = "32";
/// Of what a person must look at.
pub const RED: &str = "1;31";
/// Of what heals by itself.
pub const YELLOW: &str = "33";
/// Of heads of tables.
pub const DIM: &str = "2";

/// Whether to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

impl Colour {
    /// Whether to colour what goes to `out`.
    pub fn on(self, out: &impl IsTerminal) -> bool {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match self {
            Self::Auto => out.is_terminal() && !unwanted && !is_dumb(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Whether `TERM` says that lines cannot be drawn again.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// How text may look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// With colour.
    pub colour: bool,
    /// With marks outside of ASCII.
    pub utf8: bool,
}

impl Look {
    /// What `out` can show: colour as asked for, marks by the locale (`LC_ALL`, `LC_CTYPE`, `LANG`).
    pub fn of(out: &impl IsTerminal, colour: Colour) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
        let utf8 = locale.into_iter().find(|value| !value.is_empty()).is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        });
        Self { colour: colour.on(out), utf8 }
    }

    /// `text` in the colour of this code; as it is when there is no colour, or no code.
    pub fn paint(self, code: &str, text: &str) -> String {
        match self.colour && !text.is_empty() && !code.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// The sign that something was left out.
    pub fn ellipsis(self) -> &'static str {
        if self.utf8 { "…" } else { "..." }
    }
}

/// Room on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub lines: usize,
}

/// The room on `out`; `None` if it is no terminal.
pub fn size(out: &(impl IsTerminal + AsFd)) -> Option<Size> {
    if !out.is_terminal() {
        return None;
    }
    // Serial lines say 0 by 0.
    let or = |count: u16, usual: usize| if count == 0 { usual } else { usize::from(count) };
    let size = rustix::termios::tcgetwinsize(out).ok();
    Some(size.map_or(Size { columns: 80, lines: 24 }, |size| Size {
        columns: or(size.ws_col, 80),
        lines: or(size.ws_row, 24),
    }))
}

/// Columns of a terminal; `None` if it is none.
pub fn width(out: &(impl IsTerminal + AsFd)) -> Option<usize> {
    size(out).map(|size| size.columns)
}

/// Columns that `text` takes, at most: what stands alone for nothing counts as one.
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Columns that a character takes.
pub fn columns_of(c: char) -> usize {
    let wide = matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}');
    if wide { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(columns("añ日本…"), 7);
    }
}
