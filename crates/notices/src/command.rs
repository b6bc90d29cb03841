//! Notices by a program: no shell, the notice as JSON on its standard input.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use connectord_wire::Escaped;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Most that is kept of what the program complains.
const MAX_OUTPUT: u64 = 4096;

/// A program that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program, an absolute path; no search.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Longest run; then its process group is killed. Default 30 s.
    pub deadline: Duration,
}

impl Program {
    /// A program with its arguments and 30 s.
    pub fn new(program: impl Into<PathBuf>, arguments: Vec<String>) -> Self {
        Self { program: program.into(), arguments, deadline: Duration::from_secs(30) }
    }

    pub(crate) async fn give(&self, json: &str, title: &str) -> Result<(), String> {
        let name = Escaped(self.program.as_os_str().as_encoded_bytes()).to_string();
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", "/")
            .env("LANG", "C.UTF-8")
            .env("CONNECTORD_TITLE", title.replace('\0', ""))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let mut group = Group::of(&child);
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let mut complaint = Vec::new();
        let run = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A program that does not want to read it ends as it likes.
                    let _ = stdin.write_all(json.as_bytes()).await;
                }
            };
            let read = async {
                if let Some(mut stderr) = stderr {
                    // The rest is read and forgotten, so that it does not wait for us.
                    let _ = (&mut stderr).take(MAX_OUTPUT).read_to_end(&mut complaint).await;
                    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
                }
            };
            let talk = async { tokio::join!(write, read) };
            tokio::pin!(talk);
            tokio::select! {
                // What it left in the background may hold its outputs open for ever.
                status = child.wait() => {
                    let _ = tokio::time::timeout(Duration::from_secs(1), talk).await;
                    status
                }
                _ = &mut talk => child.wait().await,
            }
        };
        match tokio::time::timeout(self.deadline, run).await {
            Ok(Ok(status)) if status.success() => {
                group.is_over();
                Ok(())
            }
            Ok(Ok(status)) => {
                group.is_over();
                let line = complaint.split(|octet| *octet == b'\n').find(|line| !line.is_empty());
                let said = line.map(|line| format!(": \"{}\"", Escaped(line))).unwrap_or_default();
                Err(format!("{name}: {status}{said}"))
            }
            Ok(Err(error)) => Err(format!("{name} cannot be waited for: {error}")),
            Err(_) => Err(format!("{name} did not end within {:?} and was killed", self.deadline)),
        }
    }
}

/// Kills a process group when it is dropped before the program was over: also when we are told to stop.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
