//! What comes with a program: the script by which a shell completes its command line, and its manual pages.
//!
//! Both are made from the definition of the command line itself, when they are asked for: none can be stale.

use std::io;
use std::path::Path;

use clap_complete::Shell;
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};

/// The environment variable by which a script asks.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks what could follow, and ends the process; else does nothing.
pub fn complete(command: fn() -> clap::Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// The script by which `shell` asks the program `name`.
///
/// # Errors
/// For a shell that cannot ask.
pub fn completion(shell: Shell, name: &str) -> io::Result<String> {
    let asks: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        other => return Err(io::Error::other(format!("{other} is not known here; bash, zsh and fish are"))),
    };
    let mut script = Vec::new();
    asks.write_registration(VARIABLE, name, name, name, &mut script)?;
    String::from_utf8(script).map_err(io::Error::other)
}

/// Writes a manual page for each command, `NAME.1` and `NAME-COMMAND.1`, into a directory, which is made if it is missing.
///
/// # Errors
/// When it cannot be written to.
pub fn pages(command: clap::Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), directory)
}
