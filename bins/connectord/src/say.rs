//! What a command says. Whoever does not listen any more, or has no room for it, is no reason to stop working.

use std::fmt::Display;
use std::io::{self, Write};

/// A line on standard output.
pub fn out(line: impl Display) {
    out_as_is(&format!("{line}\n"));
}

/// A text on standard output, as it is.
pub fn out_as_is(text: &str) {
    let mut out = io::stdout().lock();
    // Unlike `print!`, which panics.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A line on standard error.
pub fn err(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
