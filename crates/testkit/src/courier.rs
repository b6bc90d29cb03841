use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{self, Group, MailPorts};
use crate::talk::{self, Talk};
use crate::{Certificates, Message, Service, maildir, unpacked};

/// What needs libraries; the rest of what is unpacked is not run.
const PROGRAMS: &[&str] = &[
    "usr/bin/imapd",
    "usr/bin/couriertls",
    "usr/sbin/couriertcpd",
    "usr/lib/courier/courier/imaplogin",
    "usr/lib/courier/courier/courierpop3login",
    "usr/lib/courier/courier/courierpop3d",
    "usr/lib/courier/courier-authlib/authdaemond",
    "usr/lib/courier/courier-authlib/makedatprog",
    "usr/lib/courier-authlib/libauthuserdb.so.0",
];

/// Courier's `imapd` and `pop3d`, private to one test.
///
/// Needs root, and the packages that `./test` unpacks and installs; without them it panics and says so. Its programs have
/// the paths of their sockets and files built in, so they run in a root directory of their own (chroot(8)), with copies of
/// the libraries. Users are in a userdb. Serves POP3, POP3S, IMAP, IMAPS and STLS or STARTTLS; no LMTP. Mail is in
/// Maildirs; all other mailboxes are below INBOX, with `.` as the separator.
///
/// There is no file alteration monitor, which it complains about with an ALERT at each login, as many a real Courier does;
/// IDLE looks for new mail each second instead. What else is peculiar to it is in `docs/quirks.md`.
#[derive(Debug)]
pub struct Courier {
    directory: TempDir,
    ports: MailPorts,
    certificates: Certificates,
    users: Vec<(String, String)>,
    groups: Vec<Group>,
}

impl Courier {
    /// Starts it with these users and passwords and waits until every port answers.
    pub fn start(users: &[(&str, &str)]) -> Self {
        let unpacked = unpacked::root("courier");
        process::require("/usr/sbin/chroot", "coreutils");
        process::require("/usr/bin/openssl", "openssl");
        process::require_root("Courier");
        let mut courier = Self {
            directory: process::directory(),
            ports: MailPorts::free(),
            certificates: Certificates::new(),
            users: users.iter().map(|(user, password)| ((*user).to_owned(), (*password).to_owned())).collect(),
            groups: Vec::new(),
        };
        courier.furnish(&unpacked);
        courier.write_users();
        for _ in 0..5 {
            if courier.launch() {
                return courier;
            }
            courier.ports = MailPorts::free();
        }
        panic!("courier does not answer in five attempts; its log:\n{}", courier.log());
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

    /// The user's Maildir.
    pub fn maildir(&self, user: &str) -> PathBuf {
        self.path("home").join(user).join("Maildir")
    }

    /// Adds messages behind those that are there, by writing Maildir files; `Work` is the mailbox `INBOX.Work`.
    pub fn seed(&self, user: &str, mailbox: &str, messages: &[Message]) {
        let folder = maildir::path(&self.maildir(user), mailbox);
        if folder != self.maildir(user) && !folder.exists() {
            maildir::create(&folder);
            let marker = folder.join("maildirfolder");
            fs::write(&marker, "").unwrap_or_else(|e| panic!("cannot write {}: {e}", marker.display()));
        }
        maildir::seed(&folder, messages);
    }

    /// The octets of all files in the mailbox, oldest first, as they are on disk.
    pub fn messages(&self, user: &str, mailbox: &str) -> Vec<Vec<u8>> {
        maildir::read(&maildir::path(&self.maildir(user), mailbox))
    }

    /// Gives the mailbox a new UIDVALIDITY and its messages new UIDs from 1, as after a restored backup.
    pub fn change_uid_validity(&self, user: &str, mailbox: &str) {
        let list = maildir::path(&self.maildir(user), mailbox).join("courierimapuiddb");
        fs::remove_file(&list).unwrap_or_else(|e| panic!("cannot remove {}: {e}", list.display()));
        // The new one is the time in seconds, and must not be the old one again.
        std::thread::sleep(Duration::from_millis(1100));
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

    /// What all its programs have logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    fn talk(&self, user: &str) -> Talk {
        let mut talk = Talk::connect(self.port(Service::Imaps), Service::Imaps, &self.certificates)
            .unwrap_or_else(|e| panic!("no connection to courier: {e}"));
        let known = self.users.iter().find(|(name, _)| name == user);
        talk.login(user, &known.unwrap_or_else(|| panic!("{user} is no user")).1);
        talk
    }

    /// In its root directory.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a root directory with its programs, their libraries, and what they look for.
    fn furnish(&self, unpacked: &Path) {
        for name in PROGRAMS {
            self.copy(&unpacked.join(name), name);
        }
        self.copy(Path::new("/bin/sh"), "bin/sh");
        let output = Command::new("/usr/bin/ldd")
            .env("LD_LIBRARY_PATH", unpacked::libraries(unpacked))
            .arg("/bin/sh")
            .args(PROGRAMS.iter().map(|name| unpacked.join(name)))
            .output()
            .unwrap_or_else(|e| panic!("cannot start ldd: {e}"));
        let libraries = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!libraries.contains("not found"), "courier lacks libraries; run ./test once as root\n{libraries}");
        for path in libraries.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')) {
            let path = Path::new(path);
            // Where it is looked for without a cache: of the unpacked ones and of this machine's alike.
            let place = path.strip_prefix(unpacked).or_else(|_| path.strip_prefix("/")).expect("it is absolute");
            self.copy(path, &place.display().to_string());
        }
        for name in ["dev", "etc/courier", "run/courier/authdaemon", "tmp", "home"] {
            make(&self.path(name));
        }
        for (user, _) in &self.users {
            maildir::create(&self.maildir(user));
        }
        // Any file does where random octets are read: nothing here is secret.
        let keys = [self.certificates.server_cert(), self.certificates.server_key()]
            .map(|file| fs::read(file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display())));
        let random = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let files = [
            ("dev/null", Vec::new()),
            ("dev/urandom", random),
            ("etc/passwd", b"root:x:0:0::/:/bin/sh\ncourier:x:0:0::/:/bin/sh\n".to_vec()),
            ("etc/group", b"root:x:0:\ncourier:x:0:\n".to_vec()),
            ("etc/nsswitch.conf", b"passwd: files\ngroup: files\n".to_vec()),
            ("etc/courier/server.pem", keys.concat()),
            ("etc/courier/authdaemonrc", AUTHDAEMON.as_bytes().to_vec()),
        ];
        for (name, octets) in files {
            let path = self.path(name);
            fs::write(&path, octets).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        }
        let open = fs::Permissions::from_mode(0o666);
        fs::set_permissions(self.path("dev/null"), open).unwrap_or_else(|e| panic!("cannot open dev/null: {e}"));
    }

    fn copy(&self, from: &Path, to: &str) {
        let to = self.path(to);
        make(to.parent().expect("it is below our directory"));
        fs::copy(from, &to).unwrap_or_else(|e| panic!("cannot copy {} to {}: {e}", from.display(), to.display()));
    }

    /// The two databases that `makeuserdb`, which is a Perl program, would make.
    fn write_users(&self) {
        let owner = nix::unistd::User::from_name("mail").ok().flatten().expect("every Debian system has the user mail");
        let mut open = String::new();
        let mut shadow = String::new();
        for (user, password) in &self.users {
            open += &format!("{user}\thome=/home/{user}|uid={}|gid={}\n", owner.uid, owner.gid);
            shadow += &format!("{user}\tsystempw={}\n", crate::mailutils::hash(password));
        }
        for (name, records) in [("userdb", open), ("userdbshadow", shadow)] {
            let script = format!(
                "printf '%s.\\n' \"$1\" | /usr/lib/courier/courier-authlib/makedatprog - \
                 /etc/courier/{name}.tmp /etc/courier/{name}.dat"
            );
            let output = self.shell(&script).arg("users").arg(&records).output();
            let output = output.unwrap_or_else(|e| panic!("cannot start chroot: {e}"));
            assert!(output.status.success() && output.stderr.is_empty(), "makedatprog: {output:?}");
        }
    }

    /// A script in its root directory.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        command.env_clear().arg(self.directory.path()).args(["/bin/sh", "-c", script]).stdin(Stdio::null());
        command
    }

    /// Starts the programs and waits until all answer; false if a port was taken.
    fn launch(&mut self) -> bool {
        self.groups.clear();
        let log = fs::File::create(self.path("log")).unwrap_or_else(|e| panic!("cannot write the log: {e}"));
        let log = || log.try_clone().unwrap_or_else(|e| panic!("cannot write the log: {e}"));
        // Each couriertcpd makes a process group of its own, so each is started as one that we can end.
        for script in scripts(self.ports) {
            let mut command = self.shell(&script);
            self.groups.push(Group::spawn(command.stdout(log()).stderr(log()), self.directory.path()));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        // A port that another process took is just not served; its owner cannot show our certificate.
        for service in [Service::Pop3, Service::Pop3s, Service::Imap, Service::Imaps] {
            while !talk::answers(self.port(service), service, &self.certificates) {
                if self.groups.iter_mut().any(|group| group.exited().is_some()) || Instant::now() > deadline {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        while !self.path("run/courier/authdaemon/socket").exists() {
            assert!(Instant::now() < deadline, "authdaemond does not start; the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.groups.clear();
        if std::thread::panicking() {
            eprintln!("the log of courier:\n{}", self.log());
        }
    }
}

const AUTHDAEMON: &str = "authmodulelist=\"authuserdb\"
daemons=3
authdaemonvar=/run/courier/authdaemon
DEBUG_LOGIN=0
";

/// What Debian's start scripts do, without their log daemon: a script for each program.
fn scripts(MailPorts { pop3, pop3s, imap, imaps }: MailPorts) -> [String; 5] {
    const TCPD: &str =
        "exec /usr/sbin/couriertcpd -address=127.0.0.1 -maxprocs=200 -maxperip=200 -nodnslookup -noidentlookup";
    const IMAP: &str = "/usr/lib/courier/courier/imaplogin /usr/bin/imapd Maildir";
    const POP3: &str = "/usr/lib/courier/courier/courierpop3login /usr/lib/courier/courier/courierpop3d Maildir";
    const TLS: &str = "/usr/bin/couriertls -server -tcpd";
    [
        "exec /usr/lib/courier/courier-authlib/authdaemond".to_owned(),
        format!("IMAP_STARTTLS=YES\n{TCPD} {imap} {IMAP}"),
        format!("IMAP_TLS=1\n{TCPD} {imaps} {TLS} {IMAP}"),
        format!("POP3_STARTTLS=YES\n{TCPD} {pop3} {POP3}"),
        format!("POP3_TLS=1\n{TCPD} {pop3s} {TLS} {POP3}"),
    ]
    .map(|program| format!("{SETTINGS}{program}\n"))
}

const SETTINGS: &str = "set -a
MAILDIRPATH=Maildir LC_ALL=C
COURIERTLS=/usr/bin/couriertls TLS_CERTFILE=/etc/courier/server.pem TLS_VERIFYPEER=NONE
IMAP_CAPABILITY='IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE'
IMAP_CAPABILITY_TLS=\"$IMAP_CAPABILITY AUTH=PLAIN\"
IMAP_KEYWORDS=1 IMAP_ACL=1 IMAP_UMASK=022 IMAP_USELOCKS=0 IMAP_ENHANCEDIDLE=0 IMAP_IDLE_TIMEOUT=1
IMAP_MAILBOX_SANITY_CHECK=1 IMAP_TRASHFOLDERNAME=Trash IMAP_EMPTYTRASH=Trash:7 IMAP_TLS_REQUIRED=0
POP3AUTH='' POP3AUTH_TLS='LOGIN PLAIN' POP3_TLS_REQUIRED=0
. /etc/courier/authdaemonrc
";

/// Makes a directory that everybody may enter.
fn make(path: &Path) {
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
}
