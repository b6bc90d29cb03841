//! Child processes that cannot outlive their test, ports nobody else has, and waiting with a deadline.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Service;

/// A program in a process group of its own, killed as a whole when this is dropped, and also when the test process
/// itself is killed: a shell waits on a pipe that closes with us, because a parent-death signal would need unsafe code.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Child,
    guard: Child,
    dead: bool,
}

impl Group {
    /// Starts `command` as the leader of a new process group. If the test process is killed, `directory` goes, too.
    pub(crate) fn spawn(command: &mut Command, directory: &Path) -> Self {
        let leader = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()));
        let guard = Command::new("/bin/sh")
            .args(["-c", "read -r _; kill -KILL \"-$1\"; sleep 1; rm -rf \"$2\"", "guard", &leader.id().to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start /bin/sh: {e}"));
        Self { leader, guard, dead: false }
    }

    /// Sends `signal` to every process of the group; no error when there is none left.
    pub(crate) fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.leader.id()).expect("process ids fit in pid_t");
        let _ = killpg(Pid::from_raw(group), signal);
    }

    /// Whether the leader has ended, and how.
    pub(crate) fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.leader.try_wait().unwrap_or_else(|e| panic!("cannot wait for process {}: {e}", self.leader.id()))
    }

    /// SIGTERM, then up to `patience` for the leader to end; then SIGKILL for all that is left.
    pub(crate) fn stop(&mut self, patience: Duration) {
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + patience;
        while self.exited().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// SIGKILL for the whole group, and waits until nobody lives in it: its ports are closed then. Once is enough.
    pub(crate) fn kill(&mut self) {
        if std::mem::replace(&mut self.dead, true) {
            return;
        }
        self.signal(Signal::SIGKILL);
        // Before the leader is waited for, because from then on its number may become another's.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.leader.wait();
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_group_alive(self.leader.id()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether a process of this group still runs. Asking kill(2) would count the dead that nobody waited for: in a container
/// the first process may never do so.
fn is_group_alive(group: u32) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok()).any(|stat| {
        // "pid (name) state parent group …"; the name may hold anything but ends at the last parenthesis.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        !matches!(fields.next(), Some("Z" | "X")) && fields.nth(1) == Some(group.to_string().as_str())
    })
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A new directory that any user may enter, as servers drop their privileges.
pub(crate) fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("connectord-test-")
        .tempdir()
        .unwrap_or_else(|e| panic!("cannot make a temporary directory: {e}"));
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|e| panic!("cannot open {} to other users: {e}", directory.path().display()));
    directory
}

/// Ports of 127.0.0.1 that were free a moment ago, all different.
///
/// Another process may take one before it is used: whoever starts a server on them tries again with others.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap_or_else(|e| panic!("no free port on 127.0.0.1: {e}"))
    });
    listeners.map(|l| l.local_addr().expect("a bound socket has an address").port())
}

/// Where a server of POP3 and IMAP listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MailPorts {
    pub(crate) pop3: u16,
    pub(crate) pop3s: u16,
    pub(crate) imap: u16,
    pub(crate) imaps: u16,
}

impl MailPorts {
    /// Those that were free a moment ago, as [`free_ports`].
    pub(crate) fn free() -> Self {
        let [pop3, pop3s, imap, imaps] = free_ports();
        Self { pop3, pop3s, imap, imaps }
    }

    pub(crate) fn all(self) -> [u16; 4] {
        let Self { pop3, pop3s, imap, imaps } = self;
        [pop3, pop3s, imap, imaps]
    }

    /// # Panics
    /// For [`Service::Lmtp`], which none of them serves.
    pub(crate) fn of(self, service: Service) -> u16 {
        match service {
            Service::Pop3 => self.pop3,
            Service::Pop3s => self.pop3s,
            Service::Imap => self.imap,
            Service::Imaps => self.imaps,
            Service::Lmtp => panic!("this server is started without LMTP"),
        }
    }
}

/// `127.0.0.1:port`.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Whether somebody accepts connections on `127.0.0.1:port`.
pub(crate) fn answers(port: u16) -> bool {
    TcpStream::connect_timeout(&loopback(port), Duration::from_secs(1)).is_ok()
}

/// Panics with the name of the Debian package when `program` is not there: a skipped test is not a passed one.
pub(crate) fn require(program: &str, package: &str) {
    assert!(
        Path::new(program).exists(),
        "{program} is missing; install it with: apt-get install -y --no-install-recommends {package}"
    );
}

/// Panics unless this process may start servers that change their user.
pub(crate) fn require_root(server: &str) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "{server} must be started as root (it changes to other users by itself); run these tests as root"
    );
}
