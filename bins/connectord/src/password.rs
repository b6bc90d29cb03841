//! A password that is no argument: from a file, a program, standard input, the environment, or a prompt that shows nothing.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use connectord_wire::Secret;

/// Longest password, in octets.
const MAX: u64 = 4096;

/// The environment variable that is looked at.
pub const VARIABLE: &str = "CONNECTORD_PASSWORD";

/// Where a password comes from; the first that is there counts, then [`VARIABLE`], then a prompt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// The first line of this file.
    pub file: Option<&'a Path>,
    /// The first line of standard input.
    pub stdin: bool,
    /// The first line that this program prints, with its arguments, divided at white space; no shell.
    pub program: Option<&'a str>,
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was not given, or what was given is none.
    #[error("{0}")]
    None(String),
    /// Something cannot be read.
    #[error("{text}")]
    Io {
        /// What.
        text: String,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    fn io(text: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let text = text.into();
        |source| Self::Io { text, source }
    }
}

/// Gets the password for `whom`.
///
/// # Errors
/// [`Error`] when there is none.
pub fn password(source: Source<'_>, whom: &str) -> Result<Secret, Error> {
    if let Some(path) = source.file {
        let file = std::fs::File::open(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        return first_line(file, &path.display().to_string());
    }
    if let Some(program) = source.program {
        return printed(program);
    }
    if source.stdin {
        return first_line(io::stdin().lock(), "standard input");
    }
    if let Ok(password) = std::env::var(VARIABLE) {
        return Ok(Secret::from(password));
    }
    prompt(whom)
}

/// What a program prints; it may ask a person on the terminal.
fn printed(words: &str) -> Result<Secret, Error> {
    let mut words = words.split_whitespace();
    let program = words.next().ok_or_else(|| Error::None("the password program has no name".into()))?;
    let run = Command::new(program).args(words).stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
    let output = run.map_err(Error::io(format!("cannot run {program}")))?;
    if !output.status.success() {
        return Err(Error::None(format!("{program} ended with {}", output.status)));
    }
    first_line(Secret::new(output.stdout).expose(), program)
}

fn first_line(from: impl Read, name: &str) -> Result<Secret, Error> {
    let mut line = Vec::new();
    let mut from = io::BufReader::new(from.take(MAX + 1));
    from.read_until(b'\n', &mut line).map_err(Error::io(format!("cannot read the password from {name}")))?;
    while line.last().is_some_and(|octet| matches!(octet, b'\n' | b'\r')) {
        line.pop();
    }
    if line.is_empty() || line.len() as u64 > MAX {
        return Err(Error::None(format!("the first line of {name} is no password (1 to {MAX} octets)")));
    }
    Ok(Secret::new(line))
}

fn prompt(whom: &str) -> Result<Secret, Error> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::None(format!(
            "no password: give --password-file, --password-stdin or {VARIABLE}, or run it on a terminal"
        )));
    }
    let shown = tcgetattr(&stdin).map_err(|error| Error::None(format!("cannot use the terminal: {error}")))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    eprint!("Password of {whom}: ");
    // The prompt is a courtesy.
    let _ = io::stderr().flush();
    tcsetattr(&stdin, OptionalActions::Now, &hidden)
        .map_err(|error| Error::None(format!("cannot hide the password: {error}")))?;
    let line = first_line(stdin.lock(), "the terminal");
    let _ = tcsetattr(&stdin, OptionalActions::Now, &shown);
    eprintln!();
    line
}
