use std::fmt;
use std::ops::Range;

use connectord_wire::Escaped;

/// Most problems shown; what is beyond is counted.
const MAX_SHOWN: usize = 100;

/// Longest part of a source line that is shown, in characters.
const MAX_LINE: usize = 160;

/// All that is wrong with a configuration, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().take(MAX_SHOWN).enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        match self.problems.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// One thing that is wrong or unlikely, and where.
///
/// ```text
/// connectord.toml:14:1: unknown key "delet"; did you mean "delete"?
///    14 | delet = "7d"
///       | ^^^^^
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as it was given.
    pub file: String,
    /// Where; `None` when the file could not be read.
    pub place: Option<Place>,
    /// What is wrong, what was expected and what came; holds no secret.
    pub message: String,
    /// What mends it.
    pub hint: Option<String>,
    /// The lines it is about, made harmless for terminals, secrets hidden.
    pub excerpts: Vec<Excerpt>,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
}

/// A line of the file as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Counted from 1.
    pub line: usize,
    /// Its text, secrets and control characters replaced, cut after 160 characters.
    pub text: String,
    /// Which characters of `text` are marked.
    pub mark: Range<usize>,
}

impl Problem {
    /// Something about the file as a whole.
    pub(crate) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, message: message.into(), hint: None, excerpts: Vec::new() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped::text(&self.file))?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        for Excerpt { line, text, mark } in &self.excerpts {
            let marks = "^".repeat(mark.len().max(1));
            write!(f, "\n{line:>5} | {text}\n      | {:indent$}{marks}", "", indent = mark.start)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n      hint: {hint}")?;
        }
        Ok(())
    }
}

/// A text whose lines can be shown.
pub(crate) struct Source<'t> {
    text: &'t str,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n').map(|(at, _)| at + 1);
        Self { text, lines: std::iter::once(0).chain(starts).collect() }
    }

    pub(crate) fn place(&self, at: usize) -> Place {
        let at = self.boundary(at);
        let line = self.line_of(at);
        Place { line: line + 1, column: self.text[self.lines[line]..at].chars().count() + 1 }
    }

    /// The line in which `span` starts, as it is shown, with what `secrets` cover replaced by `***`.
    ///
    /// `secrets` are sorted by their starts and do not overlap.
    pub(crate) fn excerpt(&self, span: &Range<usize>, secrets: &[Range<usize>]) -> Excerpt {
        let start = self.boundary(span.start);
        let line = self.line_of(start);
        let line_start = self.lines[line];
        let content = &self.text[line_start..self.line_end(line)];
        let mut text = String::new();
        let (mut shown, mut hidden_before) = (0, false);
        let mut mark: Option<Range<usize>> = None;
        for (offset, c) in content.char_indices() {
            if shown == MAX_LINE {
                text.push('…');
                break;
            }
            let at = line_start + offset;
            let hidden = is_covered(secrets, at);
            let from = shown;
            if !hidden {
                text.push(harmless(c));
                shown += 1;
            } else if !hidden_before {
                text.push_str("***");
                shown += 3;
            }
            hidden_before = hidden;
            if at == start || (at > start && at < span.end) {
                // A hidden part that began before the mark stands for all of it.
                let first = if hidden && from == shown { from.saturating_sub(3) } else { from };
                let begin = mark.map_or(first, |mark| mark.start);
                mark = Some(begin..shown);
            }
        }
        Excerpt { line: line + 1, mark: mark.unwrap_or(shown..shown + 1), text }
    }

    /// The line that holds `at`, counted from 0, and where its text is.
    pub(crate) fn line(&self, line: usize) -> Option<Range<usize>> {
        Some(*self.lines.get(line)?..self.line_end(line))
    }

    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at) - 1
    }

    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    fn line_end(&self, line: usize) -> usize {
        let end = self.lines.get(line + 1).map_or(self.text.len(), |next| next - 1);
        if end > self.lines[line] && self.text.as_bytes()[end - 1] == b'\r' { end - 1 } else { end }
    }

    /// The nearest place at or before `at` that does not split a character.
    fn boundary(&self, at: usize) -> usize {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

fn is_covered(sorted: &[Range<usize>], at: usize) -> bool {
    let after = sorted.partition_point(|range| range.start <= at);
    after > 0 && sorted[after - 1].contains(&at)
}

/// One character for one, so that the marks stand where they should.
fn harmless(c: char) -> char {
    if c == '\t' {
        return ' ';
    }
    let mut buffer = [0; 4];
    let text: &str = c.encode_utf8(&mut buffer);
    if c != '\\' && Escaped::text(text).to_string() != text { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_under_its_text_whatever_is_hidden_before_it() {
        let source = Source::new("a\np = { password = \"geheim\", x = 1 }\r\n\tü\u{202e} bad");
        let secret = source.text().find("\"geheim\"").unwrap();
        let x = source.text().find("x =").unwrap();
        let span = secret..secret + 8;
        let hidden = std::slice::from_ref(&span);
        assert_eq!(
            source.excerpt(&(x..x + 1), hidden),
            Excerpt { line: 2, text: "p = { password = ***, x = 1 }".into(), mark: 22..23 }
        );
        assert_eq!(
            source.excerpt(&span, hidden),
            Excerpt { line: 2, text: "p = { password = ***, x = 1 }".into(), mark: 17..20 }
        );
        let bad = source.text().find("bad").unwrap();
        assert_eq!(
            source.excerpt(&(bad..bad + 3), &[]),
            Excerpt { line: 3, text: " ü\u{fffd} bad".into(), mark: 4..7 }
        );
        assert_eq!(source.place(bad), Place { line: 3, column: 5 });
    }

    #[test]
    fn the_end_of_a_text_has_a_place() {
        let source = Source::new("ab\n");
        assert_eq!(source.place(usize::MAX), Place { line: 2, column: 1 });
        assert_eq!(source.excerpt(&(9..9), &[]), Excerpt { line: 2, text: String::new(), mark: 0..1 });
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = "x".repeat(1000);
        let excerpt = Source::new(&text).excerpt(&(500..600), &[]);
        assert_eq!((excerpt.text.chars().count(), excerpt.mark), (161, 160..161));
    }

    #[test]
    fn the_rest_of_many_problems_is_counted() {
        let problems = Problems { problems: vec![Problem::of_file("c", "bad"); 103] };
        let shown = problems.to_string();
        assert_eq!((shown.lines().count(), shown.lines().last()), (101, Some("and 3 more")));
    }
}
