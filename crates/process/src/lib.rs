//! Programs that are given a message: no shell, a clean environment, and a process group that does not outlive its run.
//!
//! This crate knows no mail and judges no exit status. What a program gets on its standard input stands whole in a file
//! before it starts ([`unnamed_file`]), so that it never sees the end of something that was cut.
//!
//! ```no_run
//! use std::io::{Seek, Write};
//! use std::time::Duration;
//! use connectord_process::{Program, unnamed_file};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut message = unnamed_file()?;
//! message.write_all(b"Subject: hi\r\n\r\n")?;
//! message.rewind()?;
//! let ended = Program::new("/usr/bin/wc").argument("-c").run(message, Duration::from_secs(10)).await?;
//! assert!(ended.status.success());
//! # Ok(())
//! # }
//! ```

mod group;
mod user;

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use connectord_wire::Escaped;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use tokio::io::{AsyncRead, AsyncReadExt};

use group::{GUARD, Group};
pub use user::{User, UserError};

/// What is kept of each of the program's outputs by default.
const MAX_OUTPUT: usize = 64 * 1024;
/// How long output may still come from a program's children after its end.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// A program, its arguments and its whole environment.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    user: Option<User>,
    max_output: usize,
}

/// How a program ended, and the beginning of what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, or the signal that ended it.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: Vec<u8>,
}

/// Why a program did not come to an end by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was not started.
    #[error("{error} (during starting {what})")]
    Start {
        /// The program, or the shell that ends it when we are killed.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// It was started, and how it ended is not known.
    #[error("{error} (during waiting for {what})")]
    Wait {
        /// The program.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// It ran too long and was killed with all that it had started.
    #[error("{what} did not end within {} s and was killed{said}", .after.as_secs())]
    TimedOut {
        /// The program.
        what: String,
        /// How long it was given.
        after: Duration,
        /// What it wrote until then, as [`said`] shows it.
        said: String,
    },
}

impl Program {
    /// The program at this absolute path, without arguments and with an empty environment; run as us, in `/`.
    ///
    /// Of each output its first 64 KiB are kept.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), environment: Vec::new(), user: None, max_output: MAX_OUTPUT }
    }

    /// One more argument; must not hold a NUL.
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more variable of its environment. A NUL in the value is left out: an environment cannot hold one.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.replace('\0', "")));
        self
    }

    /// `HOME`: the user's, and `/` without one.
    pub fn home(self, user: Option<&User>) -> Self {
        let home = user.map_or_else(|| "/".into(), |user| user.home().display().to_string());
        self.variable("HOME", &home)
    }

    /// Runs it as this user, with that user's own group only.
    pub fn user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// Keeps so many octets of each output; the rest is read and forgotten.
    pub fn max_output(mut self, octets: usize) -> Self {
        self.max_output = octets;
        self
    }

    /// Runs it with this standard input, for at most `timeout`, and keeps the beginning of what it writes.
    ///
    /// Its process group is killed when the time is over, when the future is dropped and when we are killed. What it
    /// left in the background by itself may go on, with a second to finish what it writes.
    ///
    /// # Errors
    /// [`RunError`]; an exit status is none.
    pub async fn run(&self, stdin: File, timeout: Duration) -> Result<Ended, RunError> {
        let name = self.path.display().to_string();
        let mut group = Group::start().map_err(|error| RunError::Start {
            what: format!("{GUARD}, which ends {name} when we are killed"),
            error,
        })?;
        let mut program = tokio::process::Command::new(&self.path);
        program
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(group.id());
        if let Some(user) = &self.user {
            user.become_it(&mut program);
        }
        let mut child = program.spawn().map_err(|error| RunError::Start { what: name.clone(), error })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let most = self.max_output;
        let ended = tokio::time::timeout(timeout, async {
            let output = async { tokio::join!(keep(stdout, &mut out, most), keep(stderr, &mut err, most)) };
            tokio::pin!(output);
            tokio::select! {
                status = child.wait() => {
                    // What it started in the background may keep the outputs open for ever.
                    let _ = tokio::time::timeout(OUTPUT_GRACE, output).await;
                    status
                }
                _ = &mut output => child.wait().await,
            }
        })
        .await;
        match ended {
            Ok(Ok(status)) => {
                group.release().await;
                Ok(Ended { status, out, err })
            }
            Ok(Err(error)) => {
                drop(group);
                Err(RunError::Wait { what: name, error })
            }
            Err(_) => {
                drop(group);
                // The program is dead by now or about to be; it is waited for so that no zombie stays.
                let _ = tokio::time::timeout(OUTPUT_GRACE, child.wait()).await;
                Err(RunError::TimedOut { what: name, after: timeout, said: said(&out, &err) })
            }
        }
    }
}

/// Whether there is an executable file.
///
/// # Errors
/// What is wrong, in words.
pub fn look(program: &Path) -> Result<(), String> {
    let name = program.display();
    let metadata = program.metadata().map_err(|error| format!("{error} (during looking for the command {name})"))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("{name} is not an executable file"));
    }
    Ok(())
}

/// What a program said, standard error before standard output, for the end of a sentence: `: "…"`, or nothing.
pub fn said(out: &[u8], err: &[u8]) -> String {
    let text = if err.trim_ascii().is_empty() { out } else { err }.trim_ascii();
    if text.is_empty() { String::new() } else { format!(": \"{}\"", Escaped(text)) }
}

/// A file without a name, empty, to be written and then given to a program; in memory where no directory takes it.
///
/// # Errors
/// What the system says.
pub fn unnamed_file() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match open(std::env::temp_dir(), flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => Ok(file.into()),
        // No such files there, or no directory at all: then in memory.
        Err(_) => Ok(memfd_create("message", MemfdFlags::CLOEXEC)?.into()),
    }
}

/// Reads to the end and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, most: usize) {
    let Some(mut from) = from else { return };
    let mut block = vec![0; 4096];
    while let Ok(count @ 1..) = from.read(&mut block).await {
        let room = most.saturating_sub(kept.len());
        kept.extend_from_slice(&block[..count.min(room)]);
    }
}
