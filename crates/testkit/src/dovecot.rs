mod conf;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{self, Group};
use crate::{Certificates, Message, maildir};

/// What a private [`Dovecot`] is to have; everything has a default.
#[derive(Clone, Debug, Default)]
pub struct DovecotOptions {
    users: Vec<(String, String)>,
    sieve: Vec<(String, String)>,
    extra: String,
    certificates: Option<Certificates>,
}

impl DovecotOptions {
    /// No user, a certificate of its own for `localhost`, nothing extra.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more user; the password may be any text without NUL, the name any without colon and white space.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// `count` more users, `user0`, `user1` and so on, all with the password `secret`.
    pub fn users(mut self, count: usize) -> Self {
        self.users.extend((0..count).map(|n| (format!("user{n}"), "secret".to_owned())));
        self
    }

    /// The Sieve script that LMTP runs for this user.
    pub fn sieve(mut self, user: &str, script: &str) -> Self {
        self.sieve.push((user.to_owned(), script.to_owned()));
        self
    }

    /// Lines put at the end of `dovecot.conf`, where they win over what is above.
    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    /// The certificate to show, instead of a new one for `localhost`.
    pub fn certificates(mut self, certificates: &Certificates) -> Self {
        self.certificates = Some(certificates.clone());
        self
    }
}

/// A port that [`Dovecot`] listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// POP3 in plaintext, with STLS.
    Pop3,
    /// POP3 over TLS.
    Pop3s,
    /// IMAP in plaintext, with STARTTLS.
    Imap,
    /// IMAP over TLS.
    Imaps,
    /// LMTP over TCP; also on a Unix socket, [`Dovecot::lmtp_socket`].
    Lmtp,
}

/// A real Dovecot 2.3, private to one test: everything in a temporary directory, ports of 127.0.0.1 that nobody else
/// has, users as given. It takes some 0.3 s to start, is killed when dropped, and also when the test process dies.
///
/// Needs root, and the Debian packages dovecot-imapd, dovecot-pop3d, dovecot-lmtpd and dovecot-sieve; without them it
/// panics and names the package. Mail is in Maildirs (`mail_fsync = never`: this is a source, not a destination whose
/// durability is tested). Plaintext logins are allowed; the mechanisms are PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-1 and
/// SCRAM-SHA-256. LMTP takes a bare user name as recipient and runs the user's Sieve script. The hierarchy separator is
/// `/`, and the mailboxes Trash, Junk, Sent and Drafts exist with their special uses. A failed login is answered at once.
///
/// A panic while this is alive prints the end of Dovecot's log.
#[derive(Debug)]
pub struct Dovecot {
    directory: TempDir,
    ports: [u16; 5],
    certificates: Certificates,
    users: Vec<(String, String)>,
    extra: String,
    group: Option<Group>,
}

impl Dovecot {
    /// Starts it and waits until every port answers, at most 20 seconds.
    pub fn start(options: DovecotOptions) -> Self {
        process::require("/usr/sbin/dovecot", "dovecot-core");
        process::require("/usr/lib/dovecot/imap", "dovecot-imapd");
        process::require("/usr/lib/dovecot/pop3", "dovecot-pop3d");
        process::require("/usr/lib/dovecot/lmtp", "dovecot-lmtpd");
        process::require("/usr/lib/dovecot/modules/lib90_sieve_plugin.so", "dovecot-sieve");
        process::require_root("Dovecot");
        let mut dovecot = Self {
            directory: process::directory(),
            ports: process::free_ports(),
            certificates: options.certificates.unwrap_or_default(),
            users: options.users,
            extra: options.extra,
            group: None,
        };
        for (user, script) in &options.sieve {
            dovecot.write_as_mail(&dovecot.home(user).join(".dovecot.sieve"), script.as_bytes());
        }
        conf::write_users(&dovecot);
        for _ in 0..5 {
            conf::write(&dovecot);
            if dovecot.launch() {
                return dovecot;
            }
            // Somebody took a port between our choice and Dovecot's bind.
            dovecot.ports = process::free_ports();
        }
        panic!("dovecot found no free port in five attempts; its log:\n{}", dovecot.log());
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self, service: Service) -> u16 {
        self.ports[service as usize]
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self, service: Service) -> SocketAddr {
        process::loopback(self.port(service))
    }

    /// The Unix socket where LMTP is spoken.
    pub fn lmtp_socket(&self) -> PathBuf {
        self.directory.path().join("lmtp")
    }

    /// The certificate it shows and the authority to trust.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Path of the configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("dovecot.conf")
    }

    /// Adds a user, or changes the password of one; it holds from the next login on. Takes two seconds.
    pub fn add_user(&mut self, name: &str, password: &str) {
        self.users.retain(|(user, _)| user != name);
        self.users.push((name.to_owned(), password.to_owned()));
        self.users_changed();
    }

    /// Takes a user away; the mail stays on disk. LMTP refuses the recipient and logins fail from then on. Takes two
    /// seconds.
    pub fn remove_user(&mut self, name: &str) {
        self.users.retain(|(user, _)| user != name);
        self.users_changed();
    }

    fn users_changed(&self) {
        // Dovecot looks at the file's time and size at most once in a second of its clock, and compares whole seconds.
        std::thread::sleep(Duration::from_millis(1100));
        conf::write_users(self);
        std::thread::sleep(Duration::from_millis(1100));
    }

    /// Runs `doveadm` against this server and returns what it printed; panics when it fails.
    pub fn doveadm(&self, arguments: &[&str]) -> String {
        let output = Command::new("/usr/bin/doveadm")
            .arg("-c")
            .arg(self.configuration())
            .args(arguments)
            .output()
            .unwrap_or_else(|e| panic!("cannot start doveadm: {e}"));
        assert!(
            output.status.success(),
            "doveadm {arguments:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Delivers one message by LMTP over TCP, through the user's Sieve script; panics unless it is accepted.
    pub fn deliver(&self, user: &str, octets: &[u8]) {
        let during =
            |what: &str, error: std::io::Error| -> ! { panic!("LMTP to dovecot failed during {what}: {error}") };
        let stream = TcpStream::connect(self.address(Service::Lmtp)).unwrap_or_else(|e| during("connect", e));
        let mut replies = BufReader::new(stream.try_clone().unwrap_or_else(|e| during("connect", e)));
        let mut say = |octets: &[u8], expected: &str| {
            let mut stream = &stream;
            stream.write_all(octets).unwrap_or_else(|e| during("sending", e));
            loop {
                let mut line = String::new();
                replies.read_line(&mut line).unwrap_or_else(|e| during("a reply", e));
                assert!(line.starts_with(expected), "LMTP expected {expected} and dovecot sent {line:?}");
                if line.as_bytes().get(3) != Some(&b'-') {
                    return;
                }
            }
        };
        say(b"", "220");
        say(b"LHLO localhost\r\n", "250");
        say(b"MAIL FROM:<sender@example.org>\r\n", "250");
        say(format!("RCPT TO:<{user}>\r\n").as_bytes(), "250");
        say(b"DATA\r\n", "354");
        let mut data = Vec::with_capacity(octets.len() + 1024);
        let mut stuffer = connectord_wire::dot::stuff();
        stuffer.push(octets, &mut data);
        stuffer.finish(&mut data);
        say(&data, "250");
        say(b"QUIT\r\n", "221");
    }

    /// The mailbox's path on disk, made if missing; `INBOX` is [`maildir`](Self::maildir).
    pub fn folder(&self, user: &str, mailbox: &str) -> PathBuf {
        let path = maildir::path(&self.maildir(user), mailbox);
        maildir::create(&self.maildir(user));
        maildir::create(&path);
        path
    }

    /// The user's Maildir.
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.home(user).join("Maildir")
    }

    /// Adds messages behind those that are there, by writing Maildir files; far faster than delivering.
    ///
    /// Line ends are written as given: Dovecot sends every LF as CRLF. Messages without flags go to `new/`, the others to
    /// `cur/`; the file's time, which is the INTERNALDATE, is [`Message::received`].
    pub fn seed(&self, user: &str, mailbox: &str, messages: &[Message]) {
        maildir::seed(&self.folder(user, mailbox), messages);
    }

    /// The octets of all files in the mailbox, oldest first, as they are on disk.
    pub fn messages(&self, user: &str, mailbox: &str) -> Vec<Vec<u8>> {
        maildir::read(&self.folder(user, mailbox))
    }

    /// What Dovecot sends of a message that is on disk so: every LF is a CRLF. IMAP without BINARY cannot carry NUL, which
    /// becomes 0x80 there (2.3.19, 2026); POP3 sends it.
    pub fn as_sent(&self, service: Service, octets: &[u8]) -> Vec<u8> {
        let mut octets = crate::servers::crlf(octets);
        if matches!(service, Service::Imap | Service::Imaps) {
            octets.iter_mut().filter(|octet| **octet == 0).for_each(|octet| *octet = 0x80);
        }
        octets
    }

    /// Removes the oldest `count` messages, as another client would.
    pub fn expunge(&self, user: &str, mailbox: &str, count: usize) {
        maildir::remove_oldest(&self.folder(user, mailbox), count);
    }

    /// Gives the mailbox a new UIDVALIDITY and its messages new UIDs from 1, as after a restored backup.
    pub fn change_uid_validity(&self, user: &str, mailbox: &str) {
        let uid_validity = |dovecot: &Self| {
            let status = dovecot.doveadm(&["-f", "flow", "mailbox", "status", "-u", user, "uidvalidity", mailbox]);
            status.trim().rsplit('=').next().unwrap_or_default().to_owned()
        };
        let before = uid_validity(self);
        maildir::change_uid_validity(&self.folder(user, mailbox), &before);
        let after = uid_validity(self);
        assert_ne!(before, after, "dovecot kept the UIDVALIDITY of {mailbox}");
    }

    /// What Dovecot has logged so far.
    pub fn log(&self) -> String {
        ["stderr", "log"]
            .into_iter()
            .filter_map(|name| std::fs::read(self.directory.path().join(name)).ok())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .collect()
    }

    /// Stops all its processes where they are (SIGSTOP): connections stay open and silent.
    pub fn suspend(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets suspended processes go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        self.group.as_ref().expect("dovecot was killed and not restarted").signal(signal);
    }

    /// Kills all its processes at once (SIGKILL); ports refuse connections until [`restart`](Self::restart).
    pub fn kill(&mut self) {
        self.group = None;
    }

    /// Stops it in order if it runs, and starts it again on the same ports with the same mail.
    pub fn restart(&mut self) {
        if let Some(mut group) = self.group.take() {
            group.stop(Duration::from_secs(5));
        }
        assert!(self.launch(), "dovecot lost its ports while it was down; its log:\n{}", self.log());
    }

    /// Starts the processes; false if a port was taken.
    fn launch(&mut self) -> bool {
        // What a killed one leaves behind; it would wait 10 s for the lock of its list of instances.
        for left in ["run/master.pid", "state/instances.lock"] {
            let _ = std::fs::remove_file(self.directory.path().join(left));
        }
        let stderr = self.directory.path().join("stderr");
        let stderr = File::create(&stderr).unwrap_or_else(|e| panic!("cannot write {}: {e}", stderr.display()));
        let mut group = Group::spawn(
            Command::new("/usr/sbin/dovecot")
                .arg("-F")
                .arg("-c")
                .arg(self.configuration())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(stderr),
            self.directory.path(),
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        // Who answers at a port may be another test's server, if we lost it; the file is written when all are bound.
        let bound = self.directory.path().join("run/master.pid");
        while !(self.ports.iter().all(|port| process::answers(*port)) && self.lmtp_socket().exists() && bound.exists())
        {
            if let Some(status) = group.exited() {
                let log = self.log();
                if log.contains("Address already in use") {
                    return false;
                }
                panic!("dovecot ended at its start with {status}:\n{log}");
            }
            assert!(Instant::now() < deadline, "dovecot does not answer after 20 s; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.group = Some(group);
        true
    }

    fn home(&self, user: &str) -> PathBuf {
        self.directory.path().join("mail").join(user)
    }

    fn write_as_mail(&self, path: &Path, octets: &[u8]) {
        let parent = path.parent().expect("a path below our directory");
        maildir::make_directory(parent);
        std::fs::write(path, octets).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        maildir::own(path);
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.group = None;
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the end of dovecot's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
