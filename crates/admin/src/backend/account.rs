//! Accounts: settings, state, queries, tests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::at::At;
use crate::cause::Cause;

/// Defines an enum of plain words: its JSON, its text, its list, one table.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in addresses and JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($word => Ok(Self::$variant),)+ _ => Err(UnknownWord) }
            }
        }
    };
}
pub(crate) use words;

/// A word that is not one of those allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("none of the words allowed here")]
pub struct UnknownWord;

words! {
    /// Whether an account is well; what it does now is its [`Activity`].
    Health {
        /// A person must act.
        Action = "action",
        /// Something is wrong that heals by itself.
        Delayed = "delayed",
        /// Well.
        Ok = "ok",
        /// Never checked.
        New = "new",
        /// Switched off.
        Off = "off",
    }
}

words! {
    /// What an account does now.
    Activity {
        /// Nothing.
        Idle = "idle",
        /// Waits for its turn.
        Queued = "queued",
        /// Is being checked.
        Checking = "checking",
        /// Is told by the server.
        Listening = "listening",
    }
}

words! {
    /// The protocol.
    Protocol {
        /// IMAP.
        Imap = "imap",
        /// POP3.
        Pop3 = "pop3",
    }
}

words! {
    /// How the connection is made private.
    Security {
        /// TLS from the first octet.
        Tls = "tls",
        /// TLS after STARTTLS, which is required.
        Starttls = "starttls",
        /// Not at all: password and mail travel readable.
        None = "none",
    }
}

impl Protocol {
    /// The usual port.
    pub const fn port(self, security: Security) -> u16 {
        match (self, security) {
            (Self::Pop3, Security::Tls) => 995,
            (Self::Pop3, _) => 110,
            (Self::Imap, Security::Tls) => 993,
            (Self::Imap, _) => 143,
        }
    }
}

words! {
    /// What happens there to a delivered message.
    DeleteBy {
        /// It is removed.
        Expunge = "expunge",
        /// It goes to the folder for deleted mail.
        Trash = "trash",
        /// It is marked as seen and stays.
        Seen = "seen",
    }
}

words! {
    /// What is done while a filter does not answer.
    OnFilterFailure {
        /// Mail waits there.
        Wait = "wait",
        /// It is delivered, marked unchecked.
        Deliver = "deliver",
    }
}

words! {
    /// What is done with a message that is too large.
    Oversize {
        /// Parked, for a person to decide.
        Park = "park",
        /// Left there for good.
        Skip = "skip",
    }
}

words! {
    /// Where an account is managed.
    Source {
        /// On the page, by the API or `connectorctl`.
        Page = "page",
        /// In the configuration file: read only here.
        File = "file",
    }
}

words! {
    /// Order of the list of accounts.
    Sort {
        /// What needs a person first.
        Worst = "worst",
        /// By address.
        Address = "address",
        /// By local user.
        User = "user",
        /// By server.
        Host = "host",
        /// The longest without a good check first.
        LastOk = "last_ok",
    }
}

words! {
    /// Whether the list is folded.
    Group {
        /// By local user.
        User = "user",
        /// Not.
        None = "none",
    }
}

words! {
    /// How a step of a test stands.
    StepState {
        /// Not yet begun.
        Waits = "waits",
        /// Under way.
        Runs = "runs",
        /// Well.
        Ok = "ok",
        /// Works, but.
        Note = "note",
        /// Does not work; the last one that was tried.
        Failed = "failed",
        /// Came after the one that failed.
        NotReached = "not_reached",
    }
}

/// A text that is shown and read back: `never`, `push`, or minutes such as `15m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every so many minutes, 1 to 1440.
    Every(u16),
    /// The server says when mail has come (IMAP).
    Push,
    /// Only by hand.
    Never,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(minutes) => write!(f, "{minutes}m"),
            Self::Push => f.write_str("push"),
            Self::Never => f.write_str("never"),
        }
    }
}

impl FromStr for Check {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "push" => Ok(Self::Push),
            "never" => Ok(Self::Never),
            _ => match text.strip_suffix('m').and_then(|n| n.parse().ok()) {
                Some(minutes @ 1..=1440) => Ok(Self::Every(minutes)),
                _ => Err(UnknownWord),
            },
        }
    }
}

/// When a delivered message is removed there: `never`, `immediately`, or days after delivery such as `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delete {
    /// It stays.
    Never,
    /// As soon as it is delivered and that is recorded.
    Immediately,
    /// That many days after delivery, 1 to 9999.
    After(u16),
}

impl fmt::Display for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::Immediately => f.write_str("immediately"),
            Self::After(days) => write!(f, "{days}d"),
        }
    }
}

impl FromStr for Delete {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "never" => Ok(Self::Never),
            "immediately" => Ok(Self::Immediately),
            _ => match text.strip_suffix('d').and_then(|n| n.parse().ok()) {
                Some(days @ 1..=9999) => Ok(Self::After(days)),
                _ => Err(UnknownWord),
            },
        }
    }
}

/// Which messages that lie there already are retrieved: `everything`, `from_now_on`, or those since a day such as `2026-03-01`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// All.
    Everything,
    /// None of them.
    FromNowOn,
    /// Those that came on this day or later.
    Since(jiff::civil::Date),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::FromNowOn => f.write_str("from_now_on"),
            Self::Since(day) => day.fmt(f),
        }
    }
}

impl FromStr for Start {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "everything" => Ok(Self::Everything),
            "from_now_on" => Ok(Self::FromNowOn),
            day => day.parse().map(Self::Since).map_err(|_| UnknownWord),
        }
    }
}

/// Serializes by `Display` and `FromStr`.
macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

as_text!(Check, Delete, Start);

/// What a person can set of an account, but for the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The account's unique name, an address as a rule.
    pub address: String,
    /// The protocol; default IMAP.
    pub protocol: Protocol,
    /// Default TLS.
    pub security: Security,
    /// Name or address of the server.
    pub host: String,
    /// Default by protocol and security.
    pub port: Option<u16>,
    /// Default: the address.
    pub username: String,
    /// Local users; at least one.
    pub deliver_to: Vec<String>,
    /// Default every 15 minutes.
    pub check: Check,
    /// Default everything.
    pub start: Start,
    /// Default never.
    pub delete: Delete,
    /// Default expunge.
    pub delete_by: DeleteBy,
    /// IMAP folders: names, patterns, roles; default INBOX.
    pub folders: Vec<String>,
    /// Whether the antispam filter looks at its mail; default yes.
    pub antispam: bool,
    /// Whether the antivirus filter looks at its mail; default yes.
    pub antivirus: bool,
    /// Default wait.
    pub on_filter_failure: OnFilterFailure,
    /// Largest message, in megabytes; default the installation's.
    pub max_megabytes: Option<u32>,
    /// Default park.
    pub oversize: Oversize,
    /// Whether retrieved messages are marked as seen there; default no.
    pub mark_seen: bool,
    /// Name of the destination; empty for the default one.
    pub delivery: String,
    /// The recipient at the destination, with `{user}`; empty for the default.
    pub recipient: String,
    /// `sha256:` fingerprints that the certificate or its key must have, instead of a known issuer.
    pub pins: Vec<String>,
    /// Domains of the hosts whose Received fields are believed.
    pub trusted_relays: Vec<String>,
    /// Whatever the administrator wants to remember.
    pub note: String,
    /// Whether it is checked at all; default yes.
    pub enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: String::new(),
            protocol: Protocol::Imap,
            security: Security::Tls,
            host: String::new(),
            port: None,
            username: String::new(),
            deliver_to: Vec::new(),
            check: Check::Every(15),
            start: Start::Everything,
            delete: Delete::Never,
            delete_by: DeleteBy::Expunge,
            folders: vec!["INBOX".to_owned()],
            antispam: true,
            antivirus: true,
            on_filter_failure: OnFilterFailure::Wait,
            max_megabytes: None,
            oversize: Oversize::Park,
            mark_seen: false,
            delivery: String::new(),
            recipient: String::new(),
            pins: Vec::new(),
            trusted_relays: Vec::new(),
            note: String::new(),
            enabled: true,
        }
    }
}

impl Settings {
    /// The port that is used.
    pub fn effective_port(&self) -> u16 {
        self.port.unwrap_or_else(|| self.protocol.port(self.security))
    }

    /// The user name that is used.
    pub fn effective_username(&self) -> &str {
        if self.username.is_empty() { &self.address } else { &self.username }
    }

    /// Whether a secret stored for `other` may be sent where these settings say.
    ///
    /// Whoever may edit an account could otherwise have its secret sent to a server of their own.
    pub fn same_recipient_of_secret(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host)
            && self.effective_port() == other.effective_port()
            && self.security == other.security
            && self.pins == other.pins
            && self.effective_username() == other.effective_username()
    }

    /// All fields by name, as texts, in the order of the form.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let list = |list: &[String]| list.join(", ");
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        vec![
            ("address", self.address.clone()),
            ("protocol", self.protocol.word().to_owned()),
            ("security", self.security.word().to_owned()),
            ("host", self.host.clone()),
            ("port", self.port.map(|port| port.to_string()).unwrap_or_default()),
            ("username", self.username.clone()),
            ("deliver_to", list(&self.deliver_to)),
            ("start", self.start.to_string()),
            ("delete", self.delete.to_string()),
            ("delete_by", self.delete_by.word().to_owned()),
            ("check", self.check.to_string()),
            ("folders", self.folders.join("\n")),
            ("antispam", yes(self.antispam)),
            ("antivirus", yes(self.antivirus)),
            ("on_filter_failure", self.on_filter_failure.word().to_owned()),
            ("max_megabytes", self.max_megabytes.map(|megabytes| megabytes.to_string()).unwrap_or_default()),
            ("oversize", self.oversize.word().to_owned()),
            ("mark_seen", yes(self.mark_seen)),
            ("delivery", self.delivery.clone()),
            ("recipient", self.recipient.clone()),
            ("pins", list(&self.pins)),
            ("trusted_relays", list(&self.trusted_relays)),
            ("note", self.note.clone()),
            ("enabled", yes(self.enabled)),
        ]
    }
}

/// A secret on its way to the store: no `Serialize`, `***` in `Debug`, overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(zeroize::Zeroizing<String>);

impl Secret {
    /// Takes a secret; `None` when it is empty.
    pub fn entered(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self(zeroize::Zeroizing::new(text)))
    }

    /// The secret itself, for the one who stores it or logs in.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Settings as somebody entered them.
#[derive(Clone, Debug)]
pub struct Entered {
    /// The settings, without field problems that this crate could find.
    pub settings: Settings,
    /// A new secret; absent: unchanged.
    pub secret: Option<Secret>,
}

/// What is known of a secret without showing it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SecretState {
    /// Whether there is one.
    pub set: bool,
    /// Since when.
    pub at: Option<At>,
    /// Who set it.
    pub by: String,
}

/// One line of the list of accounts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Names it in addresses; never shown.
    pub id: String,
    /// Its unique name.
    pub address: String,
    /// Local users.
    pub deliver_to: Vec<String>,
    /// The protocol.
    pub protocol: Protocol,
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is made private.
    pub security: Security,
    /// Whether it is well.
    pub health: Health,
    /// What it does.
    pub activity: Activity,
    /// Why it is not well.
    #[serde(skip)]
    pub cause: Option<Cause>,
    /// The last check that ended well.
    pub last_ok: Option<At>,
    /// The next check.
    pub next: Option<At>,
    /// Messages delivered today; absent when not measured.
    pub today: Option<u64>,
    /// Messages that are parked.
    pub parked: u64,
    /// Where it is managed.
    pub source: Source,
    /// How far a check is.
    pub progress: Option<Progress>,
    /// Its version, for `If-Match`.
    pub etag: String,
}

/// How far a check that runs is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Steps so far, from connected to retrieving.
    pub steps: Vec<Step>,
    /// Messages retrieved.
    pub done: u64,
    /// Messages to retrieve, when known.
    pub total: Option<u64>,
    /// Octets retrieved.
    pub octets: u64,
    /// Octets a second, over the last five.
    pub rate_octets_s: Option<u64>,
    /// Seconds that it will still take, about.
    pub eta_s: Option<u64>,
    /// Counts of this check, in order.
    pub tally: Vec<Tick>,
}

/// One count of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tick {
    /// What is counted.
    pub state: super::MessageState,
    /// How many.
    pub count: u64,
}

/// One account with everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Its line in the list.
    #[serde(flatten)]
    pub row: Row,
    /// Its settings.
    pub settings: Settings,
    /// Whether its secret is set.
    pub secret: SecretState,
    /// When it was last edited.
    pub edited_at: Option<At>,
    /// By whom.
    pub edited_by: String,
    /// For an account of the file: where it is, such as `config.toml, line 41`.
    pub place: Option<String>,
    /// The last checks, oldest first, at most 48: 0 well, 1 delayed, 2 failed.
    pub checks: Vec<u8>,
    /// Messages of the last days, oldest first, at most 14.
    pub days: Vec<u64>,
    /// Octets of these days.
    pub days_octets: u64,
    /// Folders there, when they are known.
    pub folders_there: Vec<String>,
}

/// One check that ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Counts up within the account.
    pub number: u64,
    /// When it began.
    pub at: At,
    /// How long it took.
    pub duration_ms: u64,
    /// Messages listed.
    pub listed: u64,
    /// Retrieved.
    pub retrieved: u64,
    /// Delivered.
    pub delivered: u64,
    /// Removed there.
    pub removed: u64,
    /// Octets retrieved.
    pub octets: u64,
    /// Why it did not end well.
    #[serde(skip)]
    pub cause: Option<Cause>,
}

/// One step of a test or a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// `name`, `connection`, `encryption`, `greeting`, `login`, `mailbox`, `delivery`; a check also has `listed`, `retrieving`.
    pub name: &'static str,
    /// How it stands.
    pub state: StepState,
    /// What came of it, in few words; may hold words of the server.
    pub result: String,
    /// How long it took.
    pub ms: Option<u64>,
    /// Why it failed.
    #[serde(skip)]
    pub cause: Option<Cause>,
}

impl Step {
    /// The steps of a test, in order.
    pub const NAMES: [&'static str; 7] =
        ["name", "connection", "encryption", "greeting", "login", "mailbox", "delivery"];
}

/// How a test of a connection ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Test {
    /// Whether every step was well.
    pub ok: bool,
    /// Seven of them.
    pub steps: Vec<Step>,
    /// Messages that lie there, when the mailbox was reached.
    pub messages: Option<u64>,
    /// Folders there.
    pub folders: Vec<String>,
}

/// Which accounts, in which order.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountQuery {
    /// Only these; empty for all.
    pub ids: Vec<String>,
    /// Words that must occur in address, server, user or note, case aside.
    pub text: String,
    /// Only this health.
    pub health: Option<Health>,
    /// Only those with this activity.
    pub activity: Option<Activity>,
    /// Only accounts for this local user.
    pub user: Option<String>,
    /// With `user`: not those that are for others too. Whoever may see only their own accounts asks so.
    pub alone: bool,
    /// Only at servers whose name holds this.
    pub host: Option<String>,
    /// Only with this cause, by its code.
    pub cause: Option<String>,
    /// Only from there.
    pub source: Option<Source>,
    /// In this order.
    pub sort: Sort,
    /// Grouped: then all accounts of one user stay together, worst groups first.
    pub group: Group,
    /// Where the last page ended.
    pub after: Option<String>,
    /// How many at most; 1 to 200.
    pub limit: usize,
}

impl Default for AccountQuery {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            text: String::new(),
            health: None,
            activity: None,
            user: None,
            alone: false,
            host: None,
            cause: None,
            source: None,
            sort: Sort::Worst,
            group: Group::None,
            after: None,
            limit: 50,
        }
    }
}

/// How many accounts there are of each sort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All.
    pub total: u64,
    /// By health.
    pub ok: u64,
    /// Heal by themselves.
    pub delayed: u64,
    /// Need a person.
    pub action: u64,
    /// Never checked.
    pub new: u64,
    /// Switched off.
    pub off: u64,
    /// Managed in the file.
    pub file: u64,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, health: Health, source: Source) {
        self.total += 1;
        self.file += u64::from(source == Source::File);
        *match health {
            Health::Ok => &mut self.ok,
            Health::Delayed => &mut self.delayed,
            Health::Action => &mut self.action,
            Health::New => &mut self.new,
            Health::Off => &mut self.off,
        } += 1;
    }

    /// How many of this health.
    pub fn of(&self, health: &Health) -> u64 {
        match health {
            Health::Ok => self.ok,
            Health::Delayed => self.delayed,
            Health::Action => self.action,
            Health::New => self.new,
            Health::Off => self.off,
        }
    }
}
