//! A password that is no argument: from a file, standard input, the environment, or a prompt that shows nothing.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use connectord_wire::Secret;

use crate::cli::UrlOptions;
use crate::error::Error;

/// Longest password, in octets.
const MAX: u64 = 4096;

/// The environment variable that is looked at.
const VARIABLE: &str = "CONNECTORD_PASSWORD";

/// Gets the password for `whom`.
pub(crate) fn password(options: &UrlOptions, whom: &str) -> Result<Secret, Error> {
    if let Some(path) = &options.password_file {
        let file = std::fs::File::open(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        return first_line(file, &path.display().to_string());
    }
    if options.password_stdin {
        return first_line(io::stdin().lock(), "standard input");
    }
    if let Ok(password) = std::env::var(VARIABLE) {
        return Ok(Secret::from(password));
    }
    prompt(whom)
}

fn first_line(from: impl Read, name: &str) -> Result<Secret, Error> {
    let mut line = Vec::new();
    let mut from = io::BufReader::new(from.take(MAX + 1));
    from.read_until(b'\n', &mut line).map_err(Error::io(format!("cannot read the password from {name}")))?;
    while line.last().is_some_and(|octet| matches!(octet, b'\n' | b'\r')) {
        line.pop();
    }
    if line.is_empty() || line.len() as u64 > MAX {
        return Err(Error::Usage(format!("the first line of {name} is no password (1 to {MAX} octets)")));
    }
    Ok(Secret::new(line))
}

fn prompt(whom: &str) -> Result<Secret, Error> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::Usage(format!(
            "no password: give --password-file, --password-stdin or {VARIABLE}, or run it on a terminal"
        )));
    }
    let shown = tcgetattr(&stdin).map_err(|error| Error::Usage(format!("cannot use the terminal: {error}")))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    eprint!("Password of {whom}: ");
    // The prompt is a courtesy.
    let _ = io::stderr().flush();
    tcsetattr(&stdin, OptionalActions::Now, &hidden)
        .map_err(|error| Error::Usage(format!("cannot hide the password: {error}")))?;
    let line = first_line(stdin.lock(), "the terminal");
    let _ = tcsetattr(&stdin, OptionalActions::Now, &shown);
    eprintln!();
    line
}
