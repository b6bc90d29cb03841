use std::path::PathBuf;
use std::time::Duration;

use connectord_wire::{Endpoint, Secret, Security};
use serde::{Deserialize, Serialize};

/// The protocol an account is retrieved by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 1939.
    Pop3,
    /// RFC 9051 and RFC 3501.
    Imap,
}

impl Protocol {
    /// The registered port: 995 and 110, 993 and 143.
    pub fn default_port(self, security: Security) -> u16 {
        match (self, security) {
            (Self::Pop3, Security::Tls) => 995,
            (Self::Pop3, _) => 110,
            (Self::Imap, Security::Tls) => 993,
            (Self::Imap, _) => 143,
        }
    }

    /// As in a Received field and in logs.
    pub fn name(self, security: Security) -> &'static str {
        match (self, security) {
            (Self::Pop3, Security::None) => "POP3",
            (Self::Pop3, _) => "POP3S",
            (Self::Imap, Security::None) => "IMAP",
            (Self::Imap, _) => "IMAPS",
        }
    }
}

/// Everything that is configured for one external account.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Its unique name, in lower case.
    pub address: String,
    /// How it is retrieved.
    pub protocol: Protocol,
    /// What must be encrypted.
    pub security: Security,
    /// Server and port.
    pub endpoint: Endpoint,
    /// The name to log in with; default: the address.
    pub username: String,
    /// Where the password comes from.
    pub credential: CredentialSource,
    /// SASL mechanisms that may be used; empty: whatever is safe, the strongest first.
    pub mechanisms: Vec<String>,
    /// Local users who get the mail; at least one, groups expanded.
    pub deliver_to: Vec<String>,
    /// Template of the envelope recipient; default `{user}`.
    pub recipient: String,
    /// Name of the destination; `None` is the default one.
    pub delivery: Option<String>,
    /// When it is checked.
    pub check: Check,
    /// What happens to remote copies.
    pub retention: Retention,
    /// How a remote copy is removed.
    pub removal: Removal,
    /// IMAP mailboxes; default: the INBOX.
    pub folders: Vec<Folder>,
    /// Whether it is checked at all.
    pub enabled: bool,
    /// Which messages count when it is checked for the first time.
    pub start: Start,
    /// Messages larger than this many octets are not retrieved; `None`: no limit.
    pub max_message_octets: Option<u64>,
    /// What becomes of them.
    pub oversize: Oversize,
    /// Whether retrieved messages are marked \Seen; default no.
    pub mark_seen: bool,
    /// Whether antispam filters run; `None`: as the site has it.
    pub antispam: Option<bool>,
    /// Whether antivirus filters run; `None`: as the site has it.
    pub antivirus: Option<bool>,
    /// PEM file of further trusted certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Fingerprints of the server's certificate or key, `sha256:…`; with one, no authority is asked.
    pub pins: Vec<String>,
    /// The way to the server, when it is not direct.
    pub proxy: Option<ProxySettings>,
    /// Whose Received fields are believed: names of known providers, domains, addresses and ranges of addresses; `None`:
    /// what is known of the provider of the server, if anything.
    pub trusted_relays: Option<Vec<String>>,
    /// POP3: after how many removals a session ends and a new one begins, so that a cut line loses few of them;
    /// IMAP: after how many an EXPUNGE is sent. Default 500, at least 1.
    pub removals_per_session: u32,
    /// IMAP: how many connections retrieve at once, at least 1; default: 1, or what the provider is known to allow.
    pub connections: Option<u16>,
    /// POP3: the initial response goes into the AUTH line; off for servers that refuse it (Microsoft 365).
    pub initial_response: bool,
}

impl Account {
    /// An account with every default; what is required is an argument.
    pub fn new(address: &str, protocol: Protocol, endpoint: Endpoint, deliver_to: &str) -> Self {
        Self {
            address: address.to_lowercase(),
            protocol,
            security: Security::Tls,
            endpoint,
            username: address.to_owned(),
            credential: CredentialSource::Missing,
            mechanisms: Vec::new(),
            deliver_to: vec![deliver_to.to_owned()],
            recipient: "{user}".to_owned(),
            delivery: None,
            check: Check::Every(Duration::from_secs(15 * 60)),
            retention: Retention::Never,
            removal: Removal::Expunge,
            folders: vec![Folder::Name("INBOX".to_owned())],
            enabled: true,
            start: Start::Everything,
            max_message_octets: None,
            oversize: Oversize::Park,
            mark_seen: false,
            antispam: None,
            antivirus: None,
            ca_file: None,
            pins: Vec::new(),
            proxy: None,
            trusted_relays: None,
            removals_per_session: 500,
            connections: None,
            initial_response: true,
        }
    }
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// None is configured: the certificate says who we are, or a prompt will.
    Missing,
    /// Written into the configuration.
    Password(Secret),
    /// The first line of a file, read at each login.
    File(PathBuf),
    /// The first line that a program prints, run at each login without a shell.
    Command(Vec<String>),
    /// An environment variable.
    Environment(String),
    /// A client certificate through SASL EXTERNAL.
    External,
    /// Kept in the state, sealed, and opened at each login.
    Sealed {
        /// The number of the account that it was sealed for.
        account: i64,
        /// The record.
        record: Vec<u8>,
    },
}

/// When an account is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// This long after the last check; default 15 minutes, at least 10 seconds.
    Every(Duration),
    /// When the server says so (IMAP IDLE), and every half hour anyway.
    Idle,
    /// Only by hand.
    Never,
}

/// What happens to remote copies of delivered messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retention {
    /// They stay; the default.
    #[default]
    Never,
    /// They go as soon as the delivery is durable and recorded.
    Immediately,
    /// They go this long after the delivery, also those delivered in earlier runs.
    AfterDelivery(Duration),
    /// They go once the message itself is this old, by its arrival at the provider.
    ByAge(Duration),
}

/// How a remote copy is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Removal {
    /// POP3 DELE; IMAP \Deleted and UID EXPUNGE. The default.
    #[default]
    Expunge,
    /// IMAP: moved to this mailbox.
    MoveTo(String),
    /// IMAP: moved to the mailbox with the role \Trash. Gmail only archives on EXPUNGE.
    Trash,
    /// IMAP: marked \Seen and left.
    MarkSeen,
}

/// Which mailboxes of an IMAP account are retrieved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Folder {
    /// One mailbox.
    Name(String),
    /// A LIST pattern with `*` or `%`.
    Pattern(String),
    /// Every mailbox with this attribute (RFC 6154), such as `\Junk`.
    Role(String),
}

/// Which messages count when an account is checked for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// All that are there; the default.
    #[default]
    Everything,
    /// Only what comes from now on.
    FromNowOn,
}

/// What becomes of a message over the size limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Oversize {
    /// Parked: shown, and retrieved when a person says so. The default.
    #[default]
    Park,
    /// Left on the server without a word.
    Skip,
}

/// The way to a server through a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// SOCKS5 (RFC 1928) if true, else HTTP CONNECT (RFC 9110 §9.3.6).
    pub socks5: bool,
    /// Where the proxy listens.
    pub endpoint: Endpoint,
    /// User name and password, when it wants them.
    pub login: Option<(String, Secret)>,
}
