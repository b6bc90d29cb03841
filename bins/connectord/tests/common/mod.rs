//! An installation of the real program in a directory of its own, and what a person at its side sees.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod arrived;
mod light;
mod program;
mod socks5;
mod web;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use connectord_testkit::{Certificates, Dovecot, Service, servers};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use arrived::{Trace, arrived, without_trace};
#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use light::light;
#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use program::{Daemon, Outcome, command, control_command};
#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use socks5::Socks5;
#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use web::{Answer, Web, free_port};

/// The installation of one test: configuration, state, and the homes of `ann` and `bob`.
pub(crate) struct Installation {
    directory: TempDir,
    tls: String,
}

impl Installation {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Servers that run as another user deliver below it.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let here = Self { directory, tls: String::new() };
        here.add_home("ann");
        here.add_home("bob");
        here
    }

    /// All accounts trust this authority.
    pub(crate) fn trusting(certificates: &Certificates) -> Self {
        let tls = format!("[tls]\nca_file = \"{}\"\n", certificates.ca_file().display());
        Self { tls, ..Self::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn configuration(&self) -> PathBuf {
        self.path("connectord.toml")
    }

    /// A local user is there when the home is.
    pub(crate) fn home(&self, user: &str) -> PathBuf {
        self.path("mail").join(user)
    }

    pub(crate) fn add_home(&self, user: &str) {
        std::fs::create_dir_all(self.home(user)).unwrap();
    }

    pub(crate) fn maildir(&self, user: &str) -> PathBuf {
        self.home(user).join("Maildir")
    }

    /// Writes the configuration, with the users' Maildirs as destination.
    pub(crate) fn configure(&self, accounts: &str) {
        let path = self.path("mail/{user}/Maildir");
        self.configure_with(&format!("[delivery]\ntype = \"maildir\"\npath = \"{}\"\n", path.display()), accounts);
    }

    /// Writes the configuration with these tables before those of the accounts.
    pub(crate) fn configure_with(&self, tables: &str, accounts: &str) {
        let state = self.path("state/state.db");
        let text = format!("[state]\nurl = \"sqlite:{}\"\n{}{tables}{accounts}", state.display(), self.tls);
        self.write_configuration(&text);
    }

    pub(crate) fn write_configuration(&self, text: &str) {
        std::fs::write(self.configuration(), text).unwrap();
        // It holds passwords.
        std::fs::set_permissions(self.configuration(), PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// Runs the program with this installation's configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        let mut all = vec!["--config".to_owned(), self.configuration().display().to_string()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Outcome::of(command(self.directory.path()).args(all), b"")
    }

    /// Asks the daemon, with this password in the environment.
    pub(crate) fn ask(&self, arguments: &[&str], password: &str) -> Outcome {
        let mut command = control_command(self.directory.path());
        command.arg("--config").arg(self.configuration()).args(arguments).env("CONNECTORD_PASSWORD", password);
        Outcome::of(&mut command, b"")
    }

    /// Runs the program without a configuration, with these variables and this on standard input.
    pub(crate) fn run_bare(&self, arguments: &[&str], variables: &[(&str, &str)], input: &[u8]) -> Outcome {
        let mut command = command(self.directory.path());
        Outcome::of(command.args(arguments).envs(variables.iter().copied()), input)
    }

    pub(crate) fn fetch(&self) -> Outcome {
        self.run(&["fetch", "--json"])
    }

    /// A check of all accounts that must go well.
    pub(crate) fn fetch_well(&self) -> Outcome {
        let outcome = self.fetch();
        assert_eq!(outcome.code, Some(0), "{outcome}");
        outcome
    }

    /// Starts a check and leaves it running.
    pub(crate) fn start_fetch(&self) -> Daemon {
        self.start(&["fetch", "--json"])
    }

    pub(crate) fn serve(&self) -> Daemon {
        let daemon = self.start(&["serve"]);
        daemon.wait_for_line("connectord is running");
        daemon
    }

    fn start(&self, arguments: &[&str]) -> Daemon {
        let mut command = command(self.directory.path());
        Daemon::start(command.arg("--config").arg(self.configuration()).args(arguments))
    }

    /// The files of a user's messages.
    pub(crate) fn files(&self, user: &str) -> Vec<PathBuf> {
        files(&self.maildir(user))
    }

    /// The user's messages as they were at the server, and no other file left behind.
    pub(crate) fn mail(&self, user: &str) -> Sums {
        // A daemon that runs takes away the marker of a batch a moment after its messages can be seen.
        let leftovers = || names_in(&self.maildir(user).join("tmp"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !leftovers().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(leftovers(), [""; 0], "files in tmp/ of {user}");
        Sums::of(self.files(user).iter().map(|file| without_trace(&std::fs::read(file).unwrap())))
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// The messages in `new/` and `cur/`; none if there is no Maildir.
pub(crate) fn files(maildir: &Path) -> Vec<PathBuf> {
    let files = |sub: &str| -> Vec<PathBuf> {
        let Ok(found) = std::fs::read_dir(maildir.join(sub)) else { return Vec::new() };
        found.map(|entry| entry.unwrap().path()).collect()
    };
    [files("new"), files("cur")].concat()
}

/// An account of the user `ann` with the password `secret` at 127.0.0.1; further keys can be put behind it.
pub(crate) fn account(protocol: &str, security: &str, port: u16) -> String {
    account_of("ann", protocol, security, port)
}

/// An account named after its user, whose mail goes to the local user of that name.
pub(crate) fn account_of(user: &str, protocol: &str, security: &str, port: u16) -> String {
    format!(
        "[[account]]\naddress = \"{user}@example.org\"\nprotocol = \"{protocol}\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         security = \"{security}\"\nusername = \"{user}\"\npassword = \"secret\"\ndeliver_to = \"{user}\"\n"
    )
}

/// An account at a Dovecot, as [`account`].
pub(crate) fn dovecot_account(dovecot: &Dovecot, service: Service) -> String {
    let protocol = if matches!(service, Service::Pop3 | Service::Pop3s) { "pop3" } else { "imap" };
    let security = if matches!(service, Service::Pop3s | Service::Imaps) { "tls" } else { "starttls" };
    account(protocol, security, dovecot.port(service))
}

/// What a Maildir has after Dovecot sent all that is in the mailbox.
pub(crate) fn at_dovecot(dovecot: &Dovecot, service: Service, user: &str, mailbox: &str) -> Sums {
    Sums::of(dovecot.messages(user, mailbox).iter().map(|octets| arrived(dovecot, service, octets)))
}

/// Messages by the SHA-256 of their octets, and how often each is there.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Sums(BTreeMap<[u8; 32], (usize, String)>);

impl Sums {
    pub(crate) fn of(messages: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut sums = Self::default();
        messages.for_each(|message| sums.add(&message));
        sums
    }

    pub(crate) fn add(&mut self, message: &[u8]) {
        let shown = || {
            let (head, tail) = (&message[..message.len().min(300)], &message[message.len().saturating_sub(100)..]);
            format!("{} octets, \"{}\" … \"{}\"", message.len(), head.escape_ascii(), tail.escape_ascii())
        };
        self.0.entry(Sha256::digest(message).into()).or_insert_with(|| (0, shown())).0 += 1;
    }

    pub(crate) fn extend(&mut self, others: Self) {
        for (sum, (count, shown)) in others.0 {
            self.0.entry(sum).or_insert((0, shown)).0 += count;
        }
    }

    /// How many, repeated ones too.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// Panics with some examples where two differ.
    #[track_caller]
    pub(crate) fn must_equal(&self, expected: &Self, what: &str) {
        let lacking = |one: &Self, other: &Self| -> Vec<String> {
            let count = |sum| other.0.get(sum).map_or(0, |(count, _)| *count);
            let lacking = one.0.iter().filter(|(sum, (n, _))| count(*sum) < *n);
            lacking.map(|(sum, (n, shown))| format!("{n} instead of {}: {shown}", count(sum))).collect()
        };
        let (missing, surplus) = (lacking(expected, self), lacking(self, expected));
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "{what}: {} messages missing, {} too many\nmissing: {:#?}\ntoo many: {:#?}",
            missing.len(),
            surplus.len(),
            &missing[..missing.len().min(3)],
            &surplus[..surplus.len().min(3)]
        );
    }
}

/// Waits up to two minutes for something to be true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !met() {
        assert!(Instant::now() < deadline, "waited 120 s in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Octets with every line end as LF.
pub(crate) fn with_lf(octets: &[u8]) -> Vec<u8> {
    let sent = servers::crlf(octets);
    let mut out = Vec::with_capacity(octets.len());
    for (at, octet) in sent.iter().enumerate() {
        if !(*octet == b'\r' && sent.get(at + 1) == Some(&b'\n')) {
            out.push(*octet);
        }
    }
    out
}
