use std::error::Error;

use connectord_wire::Escaped;

/// Longest text of a server that is shown, in characters.
const MAX_SHOWN: usize = 300;

/// A server's text as it may stand in a log line, a verdict or on a terminal.
pub(crate) fn shown(octets: &[u8]) -> String {
    let text = Escaped(octets.trim_ascii()).to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    Escaped::text(&text).to_string()
}

/// Points as thousandths; `None` for what is no number.
pub(crate) fn milli(points: f64) -> Option<i32> {
    // The cast saturates, which is what is wanted of a score beyond two million.
    points.is_finite().then_some((points * 1000.0).round() as i32)
}
