use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{self, Group};

/// How long a server may take to come up, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// One program with a directory, ports of 127.0.0.1 and a log, killed as a whole when this is dropped.
pub(crate) struct Private<const PORTS: usize> {
    name: &'static str,
    directory: TempDir,
    ports: [u16; PORTS],
    make: Box<Make<PORTS>>,
    group: Option<Group>,
}

/// Writes the configuration for a directory and ports, and says what to run.
type Make<const PORTS: usize> = dyn Fn(&Path, [u16; PORTS]) -> Command + Send + Sync;

impl<const PORTS: usize> Private<PORTS> {
    /// Starts what `make` says and waits until all ports answer.
    pub(crate) fn start(
        name: &'static str,
        make: impl Fn(&Path, [u16; PORTS]) -> Command + Send + Sync + 'static,
    ) -> Self {
        let mut private = Self {
            name,
            directory: process::directory(),
            ports: process::free_ports(),
            make: Box::new(make),
            group: None,
        };
        for _ in 0..5 {
            if private.launch() {
                return private;
            }
            // Somebody took a port between our choice and the program's bind.
            private.ports = process::free_ports();
        }
        panic!("{name} found no free port in five attempts; its log:\n{}", private.log());
    }

    pub(crate) fn ports(&self) -> [u16; PORTS] {
        self.ports
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.directory.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(crate) fn suspend(&self) {
        self.group().signal(Signal::SIGSTOP);
    }

    pub(crate) fn resume(&self) {
        self.group().signal(Signal::SIGCONT);
    }

    pub(crate) fn kill(&mut self) {
        self.group = None;
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "{} lost its ports while it was down; its log:\n{}", self.name, self.log());
    }

    fn group(&self) -> &Group {
        self.group.as_ref().unwrap_or_else(|| panic!("{} was killed and not restarted", self.name))
    }

    /// Starts it; false if a port was taken.
    fn launch(&mut self) -> bool {
        let output = File::options().create(true).append(true).open(self.directory.path().join("output"));
        let output = output.unwrap_or_else(|e| panic!("cannot write the log of {}: {e}", self.name));
        let seen = self.log().len();
        let stderr = output.try_clone().unwrap_or_else(|e| panic!("cannot write the log of {}: {e}", self.name));
        let mut command = (self.make)(self.directory.path(), self.ports);
        command.stdin(Stdio::null()).stdout(output).stderr(stderr);
        let mut group = Group::spawn(&mut command, self.directory.path());
        let deadline = Instant::now() + PATIENCE;
        while !self.ports.iter().all(|port| process::answers(*port)) {
            let log = self.log();
            let taken = log.get(seen..).is_some_and(|log| log.to_lowercase().contains("in use"));
            if let Some(status) = group.exited() {
                assert!(taken, "{} ended at its start with {status}:\n{log}", self.name);
                return false;
            }
            if taken {
                return false;
            }
            assert!(Instant::now() < deadline, "{} does not answer after {PATIENCE:?}; its log:\n{log}", self.name);
            std::thread::sleep(Duration::from_millis(10));
        }
        self.group = Some(group);
        true
    }
}

impl<const PORTS: usize> std::fmt::Debug for Private<PORTS> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {:?} in {}", self.name, self.ports, self.directory.path().display())
    }
}

impl<const PORTS: usize> Drop for Private<PORTS> {
    fn drop(&mut self) {
        self.group = None;
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the end of the log of {}:\n{}", self.name, lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// Writes a file of a configuration, with the directories above it.
pub(crate) fn write(path: &Path, text: &str) {
    let parent = path.parent().expect("a path below our directory");
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}
