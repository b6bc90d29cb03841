mod filters;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use connectord_account::Account;
use connectord_delivery::Template;
use connectord_engine::Ambiguous;
use connectord_filter as filter;
use connectord_net::{Network, Timeouts, TlsVersion};
use connectord_notices::Policy;
use connectord_wire::{Endpoint, Secret, Security};

pub use filters::*;

use crate::Problem;

/// A configuration file, read and checked: what it says, with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[state]`: where it is remembered what was fetched.
    pub state: StateSettings,
    /// `[trail]`: whether and how long it is remembered what became of each message.
    pub trail: TrailSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// `[admin]`: where the page and the API listen; `None`: on the socket beside the state alone.
    pub admin: Option<AdminSettings>,
    /// `[delivery]`: the destination of accounts that name none.
    pub default_delivery: Option<DeliverySettings>,
    /// `[delivery.NAME]`, by name.
    pub deliveries: BTreeMap<String, DeliverySettings>,
    /// `[filter]`.
    pub filters: FilterSettings,
    /// `[quarantine]`.
    pub quarantine: QuarantineSettings,
    /// What follows from what filters find, by the address of each account of the file.
    pub policies: BTreeMap<String, filter::Policy>,
    /// `[saved]`: what accounts that are kept in the state may do.
    pub saved: SavedSettings,
    /// `[users]`.
    pub users: UserSettings,
    /// `[schedule]`.
    pub schedule: ScheduleSettings,
    /// `[timeouts]`.
    pub timeouts: Timeouts,
    /// `[tls]`.
    pub tls: TlsSettings,
    /// `[notices]`.
    pub notices: NoticeSettings,
    /// `[process]`.
    pub process: ProcessSettings,
    /// `[[account]]`, in the file's order, groups in `deliver_to` expanded.
    pub accounts: Vec<Account>,
    /// What is allowed but most likely not meant.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// The destination that an account's `delivery` names; [`Config::read`] saw to it that there is one for each account.
    pub fn delivery(&self, name: Option<&str>) -> Option<&DeliverySettings> {
        match name {
            Some(name) => self.deliveries.get(name),
            None => self.default_delivery.as_ref(),
        }
    }

    /// What follows from what filters find, for an account: the site's policy if the file does not know it.
    pub fn policy(&self, account: &Account) -> &filter::Policy {
        self.policies.get(&account.address).unwrap_or(&self.filters.policy)
    }

    /// The account with this address, case aside.
    pub fn account(&self, address: &str) -> Option<&Account> {
        let address = address.to_lowercase();
        self.accounts.iter().find(|account| account.address == address)
    }
}

/// Where it is remembered what was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateSettings {
    /// The SQLite database; `None`: `state.db` in [`default_state_directory`](crate::default_state_directory).
    pub database: Option<PathBuf>,
    /// The key that seals stored credentials; `None`: `key` beside the database.
    pub key_file: Option<PathBuf>,
}

/// Who is told when something is not well; nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoticeSettings {
    /// Who gets every notice by mail: addresses or local users.
    pub mail_to: Vec<String>,
    /// Name of the destination of that mail; `None`: `[delivery]`.
    pub delivery: Option<String>,
    /// The sender; `None`: `connectord` at this machine.
    pub mail_from: Option<String>,
    /// Whether an account's local users get the notices about it; default false.
    pub to_users: bool,
    /// A program and its arguments; empty: none.
    pub command: Vec<String>,
    /// A web address.
    pub webhook: Option<String>,
    /// File of the token for it.
    pub webhook_token_file: Option<PathBuf>,
    /// What is told, how soon and how often.
    pub policy: Policy,
}

/// What is logged, and where to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Where to; default standard error.
    pub to: LogTarget,
    /// How much; default `info`.
    pub level: LogLevel,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    #[default]
    Stderr,
    /// The system's syslog, facility mail.
    Syslog,
    /// The systemd journal, with fields.
    Journald,
}

/// The least important line that is still logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// We stopped doing something.
    Error,
    /// Someone should look.
    Warn,
    /// One line a message and a run.
    #[default]
    Info,
    /// For developers.
    Debug,
    /// Every octet of the dialogues, passwords hidden.
    Trace,
}

/// The web page and the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where they listen: loopback or a Unix socket, unless a reverse proxy is in front.
    pub listen: Listen,
    /// Where people reach them, such as `https://mail.example.org`; no path.
    pub public_url: Option<String>,
    /// Whether a reverse proxy is in front; default no.
    pub behind_proxy: bool,
    /// Whether people may be invited to manage only their own accounts; default no.
    pub own_accounts: bool,
}

/// An address to listen on or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// Host and port.
    Tcp(Endpoint),
    /// A Unix socket, `unix:/path`.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(endpoint) => write!(f, "{endpoint}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A destination of mail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliverySettings {
    /// `type = "maildir"`.
    Maildir(MaildirSettings),
    /// `type = "lmtp"`.
    Lmtp(LmtpSettings),
    /// `type = "smtp"`.
    Smtp(SmtpSettings),
    /// `type = "mbox"`.
    Mbox(MboxSettings),
    /// `type = "command"`.
    Command(CommandSettings),
}

impl DeliverySettings {
    /// What becomes of a message that may have arrived where the destination cannot be asked; a Maildir and an mbox file
    /// can, so there it is delivered again.
    pub fn ambiguous(&self) -> Ambiguous {
        match self {
            Self::Maildir(_) | Self::Mbox(_) => Ambiguous::Redeliver,
            Self::Lmtp(settings) => settings.ambiguous,
            Self::Smtp(settings) => settings.ambiguous,
            Self::Command(settings) => settings.ambiguous,
        }
    }
}

impl DeliverySettings {
    /// The word of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Maildir(_) => "maildir",
            Self::Lmtp(_) => "lmtp",
            Self::Smtp(_) => "smtp",
            Self::Mbox(_) => "mbox",
            Self::Command(_) => "command",
        }
    }
}

/// A Maildir per recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaildirSettings {
    /// The directory that holds `cur`, `new` and `tmp`; absolute.
    pub path: Template,
    /// Whether a Maildir that is not there is made when its parent directory is; default true.
    pub create: bool,
    /// Free space that mail never takes.
    pub reserve: Reserve,
    /// Whether limits in a Maildir++ `maildirsize` file are kept; default true.
    pub quota: bool,
    /// Name of this host in file names; `None`: the system's.
    pub hostname: Option<String>,
    /// Whether every message is searched for before it is written, not only repeated attempts; default false.
    pub check_existing_always: bool,
    /// Longest wait for the disk; default 5 min.
    pub disk_timeout: Duration,
}

/// Free space that mail never takes: the smaller of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// In octets; default 1 GiB; `u64::MAX` when only a percentage is written.
    pub octets: u64,
    /// In per cent of the file system, 0 to 100; default 5; 100 when only a size is written.
    pub percent: u8,
}

impl Default for Reserve {
    fn default() -> Self {
        Self { octets: 1 << 30, percent: 5 }
    }
}

/// An LMTP server (RFC 2033).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LmtpSettings {
    /// Where it listens.
    pub address: Listen,
    /// Most connections at once; default 8, at least 1.
    pub connections: u32,
    /// Longest wait for an answer but that to a message; default 60 s.
    pub timeout: Duration,
    /// The name in LHLO; `None`: the system's.
    pub hello: Option<String>,
    /// What becomes of a message that may have arrived; default redelivered.
    pub ambiguous: Ambiguous,
}

/// An SMTP server or relay (RFC 5321).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpSettings {
    /// Server and port; the port's default is 465 with `tls`, 587 with `starttls`, 25 with `none`.
    pub endpoint: Endpoint,
    /// What must be encrypted; default TLS.
    pub security: Security,
    /// User name and where the password comes from, when the server wants them.
    pub login: Option<SmtpLogin>,
    /// PEM file of further trusted certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Most connections at once; default 8, at least 1.
    pub connections: u32,
    /// Longest wait for an answer but that to a message; default 60 s.
    pub timeout: Duration,
    /// The name in EHLO; `None`: the system's.
    pub hello: Option<String>,
    /// What becomes of a message that may have arrived; default redelivered.
    pub ambiguous: Ambiguous,
}

/// How to log in to an SMTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpLogin {
    /// The user name.
    pub username: String,
    /// Where the password comes from.
    pub password: PasswordSource,
}

/// Where a password comes from that is not an account's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// Written into the configuration.
    Inline(Secret),
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a program prints, run without a shell.
    Command(Vec<String>),
    /// An environment variable.
    Environment(String),
}

/// An mbox file per recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MboxSettings {
    /// The file; absolute.
    pub path: Template,
    /// Longest wait for the locks; default 30 s.
    pub lock_timeout: Duration,
    /// Age from which another program's lock file counts as left behind; default 5 min.
    pub stale_lock: Duration,
    /// Free space that mail never takes.
    pub reserve: Reserve,
}

/// A program that gets each message on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments, each filled for the recipient.
    pub arguments: Vec<Template>,
    /// Local user it runs as; `None`: ours.
    pub run_as: Option<String>,
    /// Longest run; default 5 min.
    pub timeout: Duration,
    /// Programs running at once; default 8, at least 1.
    pub concurrency: u32,
    /// Whether a `From ` line comes first; default false.
    pub from_line: bool,
    /// `PATH` of the program; default `/usr/local/bin:/usr/bin:/bin`.
    pub search_path: String,
    /// What becomes of a message that may have arrived; default redelivered.
    pub ambiguous: Ambiguous,
}

/// `[trail]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailSettings {
    /// How long it is remembered what became of a message; default 90 days. `None`: not at all.
    pub keep_for: Option<Duration>,
}

impl Default for TrailSettings {
    fn default() -> Self {
        Self { keep_for: Some(Duration::from_secs(90 * 86_400)) }
    }
}

/// What accounts that are kept in the state may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedSettings {
    /// Networks that they may connect to beside the public internet.
    pub networks: Vec<Network>,
    /// Ports that they may connect to beside those of POP3 and IMAP.
    pub ports: Vec<RangeInclusive<u16>>,
}

impl SavedSettings {
    /// Whether they may connect to a port.
    pub fn allows_port(&self, port: u16) -> bool {
        [110, 143, 993, 995].contains(&port) || self.ports.iter().any(|ports| ports.contains(&port))
    }
}

/// Who is a local user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSettings {
    /// Who is asked.
    pub source: UserSource,
    /// `[users.groups]`: what `@NAME` in `deliver_to` stands for; in lower case.
    pub groups: BTreeMap<String, Vec<String>>,
}

/// Who is asked whether a local user exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UserSource {
    /// The destination: LMTP is asked, a Maildir's parent directory must be there. The default.
    #[default]
    Delivery,
    /// The system's user database.
    System,
    /// These and no others.
    List(Vec<String>),
    /// Nobody: every name is a user.
    Any,
}

/// When and how many accounts are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleSettings {
    /// Accounts checked at once; default 20, 1 to 10,000.
    pub concurrency: u32,
    /// Of those, on one host; default 4, 1 to 1,000.
    pub per_host: u32,
    /// Idle connections kept to one host; default 10, 0 to 10,000.
    pub idle_per_host: u32,
    /// By which part of its length an interval may be longer or shorter; default 0.1, 0 to 0.5.
    pub jitter: f64,
    /// When nothing is checked regularly.
    pub quiet: Option<QuietHours>,
}

impl Default for ScheduleSettings {
    fn default() -> Self {
        Self { concurrency: 20, per_host: 8, idle_per_host: 10, jitter: 0.1, quiet: None }
    }
}

/// A part of the day, in local time; it may go over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// Where it begins, in minutes after midnight, 0 to 1439.
    pub from_minute: u16,
    /// Where it ends, not part of it; differs from `from_minute`.
    pub to_minute: u16,
}

impl QuietHours {
    /// Whether a minute after midnight is in it.
    ///
    /// ```
    /// let night = connectord_config::QuietHours { from_minute: 22 * 60, to_minute: 6 * 60 };
    /// assert!(night.contains(23 * 60) && night.contains(0) && !night.contains(6 * 60));
    /// ```
    pub fn contains(self, minute: u16) -> bool {
        if self.from_minute < self.to_minute {
            (self.from_minute..self.to_minute).contains(&minute)
        } else {
            minute >= self.from_minute || minute < self.to_minute
        }
    }
}

/// What counts for all TLS connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of certificate authorities trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Oldest version accepted; default TLS 1.2.
    pub minimum: TlsVersion,
}

/// What the process becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The user to become when started as root; `None`: stay.
    pub user: Option<String>,
}
