use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{self, Group, MailPorts};
use crate::{Certificates, Message, Service, maildir};

/// GNU Mailutils' `imap4d` and `pop3d`, private to one test: a second pair of servers, with habits of their own.
///
/// Needs root, and the Debian packages mailutils-imap4d, mailutils-pop3d and openssl; without them it panics and names the
/// package. Users have names with a domain (`ann@example.org`), as they are virtual: a password file for each domain, no
/// PAM, no system user. Each has one mailbox, INBOX, a Maildir. Serves POP3, POP3S, IMAP, IMAPS and STLS or STARTTLS; no LMTP.
///
/// What 3.15 does differently from Dovecot (seen in 2026): message octets are sent as they are on disk but for the line ends,
/// POP3 adds an `X-UIDL` field to what it retrieves and does not count it in STAT and LIST, one POP3 session at a time has the
/// mailbox, IMAP has no UIDPLUS and no MOVE, a LIST's delimiter is NIL, and the SASL mechanisms announced need not work.
#[derive(Debug)]
pub struct Mailutils {
    directory: TempDir,
    ports: MailPorts,
    certificates: Certificates,
    groups: Vec<Group>,
}

impl Mailutils {
    /// Starts both programs with these users and passwords and waits until every port answers, at most 20 seconds.
    pub fn start(users: &[(&str, &str)]) -> Self {
        process::require("/usr/sbin/imap4d", "mailutils-imap4d");
        process::require("/usr/sbin/pop3d", "mailutils-pop3d");
        process::require("/usr/bin/openssl", "openssl");
        process::require_root("mailutils");
        let mut mailutils = Self {
            directory: process::directory(),
            ports: MailPorts::free(),
            certificates: Certificates::new(),
            groups: Vec::new(),
        };
        for name in ["mail", "locks"] {
            maildir::make_directory(&mailutils.directory.path().join(name));
        }
        for (user, password) in users {
            mailutils.add_user(user, password);
        }
        for _ in 0..5 {
            if mailutils.launch() {
                return mailutils;
            }
            mailutils.ports = MailPorts::free();
        }
        panic!("mailutils found no free port in five attempts; the log:\n{}", mailutils.log());
    }

    /// TCP port on 127.0.0.1.
    ///
    /// # Panics
    /// For [`Service::Lmtp`], which is not served.
    pub fn port(&self, service: Service) -> u16 {
        self.ports.of(service)
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self, service: Service) -> SocketAddr {
        process::loopback(self.port(service))
    }

    /// The certificate both show and the authority to trust.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The user's INBOX.
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.home(user).join("INBOX")
    }

    /// Adds messages behind those that are there, by writing Maildir files.
    pub fn seed(&self, user: &str, messages: &[Message]) {
        maildir::seed(&self.maildir(user), messages);
    }

    /// The octets of all files in the INBOX, oldest first, as they are on disk.
    pub fn messages(&self, user: &str) -> Vec<Vec<u8>> {
        maildir::read(&self.maildir(user))
    }

    /// What both have logged so far.
    pub fn log(&self) -> String {
        std::fs::read(self.directory.path().join("log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    fn home(&self, user: &str) -> PathBuf {
        self.directory.path().join("mail").join(user)
    }

    fn add_user(&self, user: &str, password: &str) {
        let (local, domain) = user.split_once('@').unwrap_or_else(|| panic!("{user:?} must be a name with a domain"));
        maildir::create(&self.maildir(user));
        let owner = nix::unistd::User::from_name("mail").ok().flatten().expect("every Debian system has the user mail");
        let (uid, gid, hash) = (owner.uid, owner.gid, hash(password));
        let line = format!("{local}:{hash}:{uid}:{gid}:{local}:{}:/bin/false\n", self.home(user).display());
        let passwords = self.directory.path().join("passwd");
        maildir::make_directory(&passwords);
        let path = passwords.join(domain);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }

    /// Starts the programs; false if a port was taken.
    fn launch(&mut self) -> bool {
        self.groups.clear();
        let log = self.directory.path().join("log");
        let MailPorts { pop3, pop3s, imap, imaps } = self.ports;
        for (program, plain, tls) in [("imap4d", imap, imaps), ("pop3d", pop3, pop3s)] {
            let path = self.directory.path().join(program);
            std::fs::write(&path, self.configuration(program, plain, tls))
                .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
            let log = File::options().create(true).append(true).open(&log);
            let log = log.unwrap_or_else(|e| panic!("cannot write the log: {e}"));
            self.groups.push(Group::spawn(
                Command::new(format!("/usr/sbin/{program}"))
                    .arg("--config-file")
                    .arg(&path)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(log),
                self.directory.path(),
            ));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.ports.all().into_iter().all(process::answers) {
            let ended = self.groups.iter_mut().any(|group| group.exited().is_some());
            if ended || Instant::now() > deadline {
                let log = self.log();
                assert!(log.contains("Address already in use"), "mailutils does not answer; the log:\n{log}");
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    fn configuration(&self, program: &str, plain: u16, tls: u16) -> String {
        let directory = self.directory.path().display();
        let (cert, key) = (self.certificates.server_cert().display(), self.certificates.server_key().display());
        let files = format!("tls {{ ssl-certificate-file \"{cert}\"; ssl-key-file \"{key}\"; }};");
        // pop3d alone locks, below /var/lock unless told otherwise.
        let locks = format!("mandatory-locking {{ enable yes; lock-directory \"{directory}/locks\"; }};");
        let locks = if program == "pop3d" { locks } else { String::new() };
        format!(
            r#"logging {{ syslog no; }};
auth {{
  authentication "generic:virtdomain";
  authorization "virtdomain";
}};
virtdomain {{ passwd-dir "{directory}/passwd"; }};
mailbox {{ mailbox-type maildir; }};
{locks}
tls-file-checks {{ key-file none; cert-file none; ca-file none; }};
mode daemon;
foreground yes;
max-children 500;
pidfile "{directory}/{program}.pid";
server 127.0.0.1:{plain} {{ tls-mode ondemand; {files} }};
server 127.0.0.1:{tls} {{ tls-mode connection; {files} }};
"#
        )
    }
}

impl Drop for Mailutils {
    fn drop(&mut self) {
        self.groups.clear();
        if std::thread::panicking() {
            eprintln!("the log of mailutils:\n{}", self.log());
        }
    }
}

/// crypt(3)'s SHA-512 of the password, which goes to openssl by its standard input.
pub(crate) fn hash(password: &str) -> String {
    let run = || -> std::io::Result<String> {
        let mut child = Command::new("/usr/bin/openssl")
            .args(["passwd", "-6", "-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        child.stdin.take().expect("it is piped").write_all(format!("{password}\n").as_bytes())?;
        Ok(String::from_utf8_lossy(&child.wait_with_output()?.stdout).trim().to_owned())
    };
    let hash = run().unwrap_or_else(|e| panic!("cannot run openssl passwd: {e}"));
    assert!(hash.starts_with("$6$"), "openssl passwd printed {hash:?}");
    hash
}
