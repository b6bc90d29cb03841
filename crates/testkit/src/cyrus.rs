use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{self, Group, MailPorts};
use crate::talk::{self, Talk};
use crate::{Certificates, Message, Service, maildir, unpacked};

/// Cyrus IMAP 3.6, private to one test: `imapd` and `pop3d` under their `master`, with a mail store of its own.
///
/// Needs root, and the packages that `./test` unpacks and installs; without them it panics and says so. Users are in a
/// sasldb, so that CRAM-MD5 and SCRAM-SHA-256 work besides PLAIN and LOGIN. Serves POP3, POP3S, IMAP, IMAPS and STLS or
/// STARTTLS, IDLE by its `idled`; no LMTP. The hierarchy separator is `/`, other mailboxes are beside INBOX.
///
/// What is peculiar to it is in `docs/quirks.md`.
#[derive(Debug)]
pub struct Cyrus {
    root: PathBuf,
    directory: TempDir,
    ports: MailPorts,
    certificates: Certificates,
    users: BTreeMap<String, String>,
    group: Option<Group>,
}

impl Cyrus {
    /// Starts it with these users and passwords, makes their INBOXes, and waits until every port answers.
    pub fn start(users: &[(&str, &str)]) -> Self {
        let root = unpacked::root("cyrus");
        process::require_root("Cyrus");
        let mut cyrus = Self {
            root,
            directory: process::directory(),
            ports: MailPorts::free(),
            certificates: Certificates::new(),
            users: users.iter().map(|(user, password)| ((*user).to_owned(), (*password).to_owned())).collect(),
            group: None,
        };
        // idled and who waits for it meet in `lib/socket`, which nobody makes.
        for name in ["lib/socket", "spool", "run"] {
            maildir::make_directory(&cyrus.path(name));
        }
        // Its group may read it, and services run as mail.
        fs::copy(cyrus.certificates.server_key(), cyrus.path("key")).unwrap_or_else(|e| panic!("no key: {e}"));
        maildir::own(&cyrus.path("key"));
        for (user, password) in &cyrus.users {
            cyrus.add_user(user, password);
        }
        for _ in 0..5 {
            if cyrus.launch() {
                for user in cyrus.users.keys() {
                    cyrus.say(user, &["CREATE INBOX"]);
                }
                return cyrus;
            }
            cyrus.ports = MailPorts::free();
        }
        panic!("cyrus does not answer in five attempts: {}", cyrus.log());
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

    /// The certificate it shows and the authority to trust.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
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

    /// Puts messages into the store behind the server's back, which refuses odd ones by APPEND: line ends become CRLF,
    /// every other octet stays. The mailbox must exist, and have a name of ASCII without `/`.
    pub fn place(&self, user: &str, mailbox: &str, messages: &[Message]) {
        let name = match mailbox {
            "INBOX" => format!("user/{user}"),
            other => format!("user/{user}/{other}"),
        };
        let folder = PathBuf::from(self.run("mbpath", &[&name]).trim());
        let last = numbers(&folder).last().copied().unwrap_or(0);
        for (number, message) in (last + 1..).zip(messages) {
            let path = folder.join(format!("{number}."));
            fs::write(&path, crate::servers::crlf(&message.octets))
                .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
            maildir::own(&path);
        }
        self.run("reconstruct", &[&name]);
    }

    /// What its tools and its master have said; the servers themselves speak to syslog only.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn talk(&self, user: &str) -> Talk {
        let mut talk = Talk::connect(self.port(Service::Imaps), Service::Imaps, &self.certificates)
            .unwrap_or_else(|e| panic!("no connection to cyrus: {e}"));
        talk.login(user, self.users.get(user).unwrap_or_else(|| panic!("{user} is no user")));
        talk
    }

    fn add_user(&self, user: &str, password: &str) {
        let database = self.path("sasldb");
        let mut child = Command::new(self.root.join("usr/sbin/saslpasswd2"))
            .args(["-p", "-c", "-u", "localhost", "-f"])
            .arg(&database)
            .arg(user)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start saslpasswd2: {e}"));
        let said = child.stdin.take().expect("it is piped").write_all(password.as_bytes());
        let status = child.wait().unwrap_or_else(|e| panic!("cannot wait for saslpasswd2: {e}"));
        assert!(said.is_ok() && status.success(), "saslpasswd2 ended with {status}");
        maildir::own(&database);
    }

    fn program_path(&self, name: &str) -> PathBuf {
        self.root.join("usr/lib/cyrus/bin").join(name)
    }

    /// One of its programs, with its own libraries.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.program_path(name));
        command.env("LD_LIBRARY_PATH", unpacked::libraries(&self.root));
        command
    }

    /// Runs one of its tools and returns what it printed.
    fn run(&self, tool: &str, arguments: &[&str]) -> String {
        let output = self
            .program(tool)
            .arg("-C")
            .arg(self.path("imapd.conf"))
            .args(arguments)
            .output()
            .unwrap_or_else(|e| panic!("cannot start {tool}: {e}"));
        assert!(output.status.success(), "{tool} {arguments:?} ended with {}: {output:?}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts master and waits until all answer; false if a port was taken.
    fn launch(&mut self) -> bool {
        self.group = None;
        for (name, text) in [("imapd.conf", self.settings()), ("cyrus.conf", self.services())] {
            fs::write(self.path(name), text).unwrap_or_else(|e| panic!("cannot write {name}: {e}"));
        }
        let log = fs::File::create(self.path("log")).unwrap_or_else(|e| panic!("cannot write the log: {e}"));
        let errors = log.try_clone().unwrap_or_else(|e| panic!("cannot write the log: {e}"));
        let mut group = Group::spawn(
            self.program("master")
                .arg("-C")
                .arg(self.path("imapd.conf"))
                .arg("-M")
                .arg(self.path("cyrus.conf"))
                .arg("-p")
                .arg(self.path("run/master.pid"))
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors),
            self.directory.path(),
        );
        let deadline = Instant::now() + Duration::from_secs(60);
        // A port that another process took is just not served; its owner cannot show our certificate.
        for service in [Service::Pop3, Service::Pop3s, Service::Imap, Service::Imaps] {
            while !talk::answers(self.port(service), service, &self.certificates) {
                if group.exited().is_some() || Instant::now() > deadline {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.group = Some(group);
        true
    }

    fn settings(&self) -> String {
        let directory = self.directory.path().display();
        let (certificate, key) = (self.certificates.server_cert().display(), self.path("key"));
        format!(
            "configdirectory: {directory}/lib
defaultpartition: default
partition-default: {directory}/spool
cyrus_user: mail
admins: cyrus
servername: localhost
unixhierarchysep: yes
altnamespace: yes
allowplaintext: yes
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {directory}/sasldb
sasl_mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256
tls_server_cert: {certificate}
tls_server_key: {}
proc_path: {directory}/run/proc
mboxname_lockpath: {directory}/run/lock
idlesocket: {directory}/run/idle
notifysocket: {directory}/run/notify
popminpoll: 0
",
            key.display()
        )
    }

    fn services(&self) -> String {
        let MailPorts { pop3, pop3s, imap, imaps } = self.ports;
        let command =
            |name: &str| format!("{} -C {}", self.program_path(name).display(), self.path("imapd.conf").display());
        let service = |name: &str, program: &str, port: u16| {
            format!("  {name} cmd=\"{}\" listen=\"127.0.0.1:{port}\" prefork=0 maxforkrate=1000\n", command(program))
        };
        let services = [
            service("imap", "imapd", imap),
            service("imaps", "imapd", imaps).replace(" -C", " -s -C"),
            service("pop3", "pop3d", pop3),
            service("pop3s", "pop3d", pop3s).replace(" -C", " -s -C"),
        ];
        format!(
            "START {{\n  recover cmd=\"{} -r\"\n}}\nSERVICES {{\n{}}}\nEVENTS {{\n}}\nDAEMON {{\n  idled cmd=\"{}\"\n}}\n",
            command("ctl_cyrusdb"),
            services.concat(),
            command("idled")
        )
    }
}

impl Drop for Cyrus {
    fn drop(&mut self) {
        self.group = None;
        if std::thread::panicking() {
            eprintln!("the log of cyrus:\n{}", self.log());
        }
    }
}

/// The numbers of the messages that lie there, ascending: their files are called `1.`, `2.` and so on.
fn numbers(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()));
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_suffix('.')?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}
