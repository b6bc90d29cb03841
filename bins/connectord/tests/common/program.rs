//! The program as a process.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::wait_until;

/// Longest run of a command.
const PATIENCE: Duration = Duration::from_secs(240);

/// The program with an environment of its own.
pub(crate) fn command(home: &Path) -> Command {
    command_of(env!("CARGO_BIN_EXE_connectord"), home)
}

/// The program that asks the daemon.
pub(crate) fn control_command(home: &Path) -> Command {
    command_of(env!("CARGO_BIN_EXE_connectorctl"), home)
}

fn command_of(program: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).current_dir(home);
    command
}

/// How a run of the program ended.
pub(crate) struct Outcome {
    /// `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) duration: Duration,
    /// Most memory it had, as its last moments show.
    pub(crate) peak_kib: u64,
}

impl Outcome {
    pub(crate) fn of(command: &mut Command, input: &[u8]) -> Self {
        let mut child = Daemon::start(command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() }));
        if let Some(mut stdin) = child.child.stdin.take() {
            stdin.write_all(input).unwrap();
        }
        child.wait(PATIENCE)
    }

    /// The JSON objects on standard output, one for each line.
    pub(crate) fn reports(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is no JSON: {e}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The only report.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        let mut reports = self.reports();
        assert_eq!(reports.len(), 1, "one report was expected: {self}");
        reports.remove(0)
    }

    /// A number of the only report.
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.report()[name].as_u64().unwrap_or_else(|| panic!("no number {name}: {self}"))
    }

    /// Messages retrieved, delivered and removed, of the only report.
    #[track_caller]
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        (self.number("retrieved"), self.number("delivered"), self.number("removed"))
    }

    /// The error of the only report.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let report = self.report();
        report["error"].as_str().unwrap_or_else(|| panic!("no error: {self}")).to_owned()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr, duration, .. } = self;
        let stderr = &stderr[stderr.floor_char_boundary(stderr.len().saturating_sub(4000))..];
        write!(f, "exit {code:?} after {duration:?}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}

/// The program while it runs; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
    began: Instant,
    peak_kib: u64,
}

impl Daemon {
    pub(crate) fn start(command: &mut Command) -> Self {
        // Files never fill up, unlike pipes that nobody reads.
        let file = || NamedTempFile::new().unwrap();
        let (stdout, stderr) = (file(), file());
        let to = |file: &NamedTempFile| -> File { file.reopen().unwrap() };
        let child = command.stdout(to(&stdout)).stderr(to(&stderr)).spawn().unwrap();
        Self { child, stdout, stderr, began: Instant::now(), peak_kib: 0 }
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.stdout.path()).unwrap()).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.stderr.path()).unwrap()).into_owned()
    }

    /// Waits up to 20 seconds for a log line that has all these parts.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, parts: &[&str]) {
        self.wait_for_times(1, parts);
    }

    /// Waits until there are as many log lines with all these parts.
    #[track_caller]
    pub(crate) fn wait_for_times(&mut self, times: usize, parts: &[&str]) {
        wait_until(&format!("{times} log lines with {parts:?}"), || {
            let ended = self.child.try_wait().unwrap();
            let found = self.lines(parts);
            assert!(ended.is_none() || found >= times, "{parts:?} was expected, and it ended: {ended:?}");
            found >= times
        });
    }

    #[track_caller]
    pub(crate) fn wait_for_line(&self, part: &str) {
        wait_until(&format!("a log line with {part:?}"), || self.lines(&[part]) > 0);
    }

    /// How many log lines have all these parts.
    pub(crate) fn lines(&self, parts: &[&str]) -> usize {
        self.stderr().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Memory resident now, and most it ever was, in KiB.
    pub(crate) fn memory_kib(&self) -> Option<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let number = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        };
        Some((number("VmRSS:")?, number("VmHWM:")?))
    }

    /// Asks it to stop, as an administrator would.
    #[track_caller]
    pub(crate) fn stop(self) -> Outcome {
        self.signal(Signal::SIGTERM);
        self.wait(Duration::from_secs(30))
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self, patience: Duration) -> Outcome {
        let deadline = Instant::now() + patience;
        let status: ExitStatus = loop {
            if let Some((_, peak)) = self.memory_kib() {
                self.peak_kib = peak;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "waited {patience:?} for its end");
            std::thread::sleep(Duration::from_millis(10));
        };
        Outcome {
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            duration: self.began.elapsed(),
            peak_kib: self.peak_kib,
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already in most cases.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let stderr = self.stderr();
            eprintln!(
                "the end of its log:\n{}",
                &stderr[stderr.floor_char_boundary(stderr.len().saturating_sub(6000))..]
            );
        }
    }
}
