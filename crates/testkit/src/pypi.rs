use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{self, Group};
use crate::talk::{self, Talk};
use crate::{Certificates, Message, Service, house, maildir};

/// pip's list of what to install, with versions and checksums: nothing else gets in.
const REQUIREMENTS: &str = include_str!("pypi-requirements.txt");

/// pymap 0.36, an IMAP server in Python from PyPI, private to one test.
///
/// Its virtual environment is made once, below `target/`, and needs the Debian package python3-venv and a registry that pip
/// can reach; without them it panics and says so. Serves IMAP with STARTTLS only. Mail is in Maildirs, with `/` as the
/// separator.
///
/// What is peculiar to it is in `docs/quirks.md`.
#[derive(Debug)]
pub struct Pymap {
    environment: PathBuf,
    directory: TempDir,
    ports: [u16; 1],
    certificates: Certificates,
    users: Vec<(String, String)>,
    group: Option<Group>,
}

impl Pymap {
    /// Starts it with these users and passwords and waits until it answers.
    pub fn start(users: &[(&str, &str)]) -> Self {
        let mut pymap = Self {
            environment: environment(),
            directory: process::directory(),
            ports: process::free_ports(),
            certificates: Certificates::new(),
            users: users.iter().map(|(user, password)| ((*user).to_owned(), (*password).to_owned())).collect(),
            group: None,
        };
        pymap.write_users();
        for _ in 0..5 {
            if pymap.launch() {
                return pymap;
            }
            pymap.ports = process::free_ports();
        }
        panic!("pymap does not answer in five attempts; its log:\n{}", pymap.log());
    }

    /// TCP port on 127.0.0.1.
    ///
    /// # Panics
    /// For all but [`Service::Imap`].
    pub fn port(&self, service: Service) -> u16 {
        assert_eq!(service, Service::Imap, "pymap serves IMAP with STARTTLS only");
        self.ports[0]
    }

    /// 127.0.0.1 and the port.
    pub fn address(&self, service: Service) -> SocketAddr {
        process::loopback(self.port(service))
    }

    /// The certificate it shows and the authority to trust.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The user's Maildir, which the server makes at the first login.
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.directory.path().join("mail").join(user)
    }

    /// Adds messages to a mailbox that exists, by writing Maildir files.
    pub fn seed(&self, user: &str, mailbox: &str, messages: &[Message]) {
        maildir::seed(&maildir::path(&self.maildir(user), mailbox), messages);
    }

    /// The octets of all files in the mailbox, oldest first, as they are on disk.
    pub fn messages(&self, user: &str, mailbox: &str) -> Vec<Vec<u8>> {
        maildir::read(&maildir::path(&self.maildir(user), mailbox))
    }

    /// Gives IMAP commands after a login of this user, and returns the untagged responses to all of them.
    ///
    /// # Panics
    /// When one is not answered with OK.
    pub fn say(&self, user: &str, commands: &[&str]) -> Vec<String> {
        let mut talk = self.talk(user);
        let say = |command: &&str| talk.command(command).unwrap_or_else(|refusal| panic!("{command}: {refusal}"));
        commands.iter().flat_map(say).collect()
    }

    /// Appends messages as a client does, with CRLF line ends; the mailbox is named as between quotation marks on the wire.
    /// Of each that is refused, the server's words are returned.
    pub fn append(&self, user: &str, mailbox: &str, messages: &[Message]) -> Vec<Result<(), String>> {
        let mut talk = self.talk(user);
        messages.iter().map(|message| talk.append(mailbox, message)).collect()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.path().join("log")).unwrap_or_default()).into_owned()
    }

    fn talk(&self, user: &str) -> Talk {
        let mut talk = Talk::connect(self.ports[0], Service::Imap, &self.certificates)
            .unwrap_or_else(|e| panic!("no connection to pymap: {e}"));
        let known = self.users.iter().find(|(name, _)| name == user);
        talk.login(user, &known.unwrap_or_else(|| panic!("{user} is no user")).1);
        talk
    }

    fn write_users(&self) {
        let mail = self.directory.path().join("mail");
        fs::create_dir(&mail).unwrap_or_else(|e| panic!("cannot make {}: {e}", mail.display()));
        let (mut open, mut shadow) = (String::new(), String::new());
        for (user, password) in &self.users {
            // The usual number of rounds takes a second on a slow machine.
            let script = "from pysasl.hashing import BuiltinHash; print(BuiltinHash(rounds=1000).hash(input()))";
            let mut python = Command::new(self.environment.join("bin/python"));
            let hash = piped(python.args(["-c", script]), format!("{password}\n").as_bytes());
            open += &format!("{user}:x:1000:::{user}:\n");
            shadow += &format!("{user}:{}:::::::\n", hash.trim());
        }
        for (name, text) in [("pymap-etc-passwd", open), ("pymap-etc-shadow", shadow)] {
            fs::write(mail.join(name), text).unwrap_or_else(|e| panic!("cannot write {name}: {e}"));
        }
    }

    /// Starts it and waits until it answers; false if the port was taken.
    fn launch(&mut self) -> bool {
        self.group = None;
        let log = self.directory.path().join("log");
        let log = File::create(&log).unwrap_or_else(|e| panic!("cannot write {}: {e}", log.display()));
        let mut group = Group::spawn(
            Command::new(self.environment.join("bin/pymap"))
                // Where its lock goes.
                .env("TMPDIR", self.directory.path())
                .args(["--host", "127.0.0.1", "--port", &self.ports[0].to_string(), "--cert"])
                .arg(self.certificates.server_cert())
                .arg("--key")
                .arg(self.certificates.server_key())
                .arg("maildir")
                .arg(self.directory.path().join("mail"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log),
            self.directory.path(),
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        while !talk::answers(self.ports[0], Service::Imap, &self.certificates) {
            if group.exited().is_some() || Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.group = Some(group);
        true
    }
}

impl Drop for Pymap {
    fn drop(&mut self) {
        self.group = None;
        if std::thread::panicking() {
            eprintln!("the log of pymap:\n{}", self.log());
        }
    }
}

/// The virtual environment, made if it is not there as required now.
fn environment() -> PathBuf {
    process::require("/usr/bin/python3", "python3");
    let target = house::workspace().join("target");
    fs::create_dir_all(&target).unwrap_or_else(|e| panic!("cannot make {}: {e}", target.display()));
    let place = target.join("test-pymap");
    let (lock, made) = (target.join("test-pymap.lock"), place.join("requirements.txt"));
    // Tests run side by side, also in several processes.
    let held = File::create(&lock).unwrap_or_else(|e| panic!("cannot write {}: {e}", lock.display()));
    held.lock().unwrap_or_else(|e| panic!("cannot lock {}: {e}", lock.display()));
    if fs::read_to_string(&made).is_ok_and(|text| text == REQUIREMENTS) {
        return place;
    }
    let _ = fs::remove_dir_all(&place);
    run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&place), "install python3-venv");
    let unfinished = place.join("requirements.new");
    fs::write(&unfinished, REQUIREMENTS).unwrap_or_else(|e| panic!("cannot write {}: {e}", unfinished.display()));
    let mut pip = Command::new(place.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r"]);
    run(pip.arg(&unfinished), "pip must reach a registry of Python packages");
    fs::rename(&unfinished, &made).unwrap_or_else(|e| panic!("cannot rename {}: {e}", unfinished.display()));
    place
}

fn run(command: &mut Command, hint: &str) {
    let during = format!("{:?}", command.get_args().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" "));
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot start python3 {during}: {e}"));
    assert!(
        output.status.success(),
        "no environment for pymap: python3 {during} ended with {}:\n{}{}\nhint: {hint}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a program prints that gets these octets.
fn piped(command: &mut Command, octets: &[u8]) -> String {
    let mut run = || -> std::io::Result<_> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().expect("it is piped").write_all(octets)?;
        child.wait_with_output()
    };
    let output = run().unwrap_or_else(|e| panic!("cannot run python: {e}"));
    assert!(output.status.success(), "python ended with {}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
