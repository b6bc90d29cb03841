//! Text that is no TOML: shown where it is, with everything hidden that may be a password.

use toml::de::Error;

use crate::section::{Context, Span};

/// What the line of a secret may contain.
const SUSPICIOUS: [&str; 8] = ["pass", "pasw", "pwd", "secret", "token", "proxy", "url", "://"];

/// Most syntax errors reported; later ones tend to follow from earlier ones.
const MAX_REPORTED: usize = 20;

pub(super) fn report(context: &Context<'_>, errors: &[Error]) {
    for error in errors.iter().take(MAX_REPORTED) {
        let span = error.span().unwrap_or(0..0);
        hide_suspicious(context, &span);
        match bare_word(context, &span) {
            Some(value) => context.problem(&value, "not TOML: text must be in quotes"),
            None => context.problem(&span, format!("not TOML: {}", error.message())),
        }
    }
}

/// The value of the line, when it is a word without quotes: the parser then speaks of numbers, as `info` begins like `inf`.
fn bare_word(context: &Context<'_>, span: &Span) -> Option<Span> {
    let text = context.source.text();
    let line = context.source.line(context.source.line_of(span.start.min(text.len())))?;
    let (_, value) = text[line.clone()].split_once('=')?;
    let value = value.trim();
    let is_bare = value.starts_with(|c: char| c.is_alphabetic() || matches!(c, '/' | '~' | '$' | '@' | '*'));
    let start = line.end - text[line.clone()].split_once('=')?.1.trim_start().len();
    let words = ["true", "false", "inf", "nan"];
    (is_bare && !words.contains(&value) && span.start >= start).then(|| start..start + value.len())
}

/// Hides what may be a secret in the line of an error. The tree of a broken text says nothing reliable, so looks decide.
fn hide_suspicious(context: &Context<'_>, span: &Span) {
    let text = context.source.text();
    let number = context.source.line_of(span.start.min(text.len()));
    let Some(line) = context.source.line(number) else { return };
    let suspicious = |range: &Span| {
        let line = text[range.clone()].to_lowercase();
        SUSPICIOUS.iter().any(|word| line.contains(word))
    };
    let before = (0..number)
        .rev()
        .take(16)
        .filter_map(|n| context.source.line(n))
        .find(|range| !text[range.clone()].trim().is_empty());
    // A text of several lines may hold anything, and its quotes may not be closed.
    let head = &text[..line.end];
    if head.contains("\"\"\"") || head.contains("'''") || before.as_ref().is_some_and(suspicious) {
        context.hide(&line);
    } else if suspicious(&line) {
        let value = text[line.clone()].find('=').map_or(line.start, |at| line.start + at + 1);
        let spaces = text[value..line.end].len() - text[value..line.end].trim_start().len();
        context.hide(&(value + spaces..line.end));
    }
}
