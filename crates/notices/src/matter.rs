use std::fmt;

use connectord_engine::Cause;
use connectord_mail::UnixTime;

/// What something worth telling is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subject {
    /// One account, by its address.
    Account(String),
    /// A server, by its name: all accounts there.
    Host(String),
    /// A destination, by its name in the configuration.
    Destination(String),
    /// A local user.
    User(String),
    /// The filters of the site, and its quarantine.
    Filters,
    /// Our disk.
    Disk,
    /// Our state.
    State,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(address) => write!(f, "account:{address}"),
            Self::Host(name) => write!(f, "host:{name}"),
            Self::Destination(name) => write!(f, "destination:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Filters => f.write_str("filters"),
            Self::Disk => f.write_str("disk"),
            Self::State => f.write_str("state"),
        }
    }
}

impl Subject {
    /// The inverse of its text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let name = name.to_owned();
        match kind {
            "account" => Some(Self::Account(name)),
            "host" => Some(Self::Host(name)),
            "destination" => Some(Self::Destination(name)),
            "user" => Some(Self::User(name)),
            "filters" => Some(Self::Filters),
            "disk" => Some(Self::Disk),
            "state" => Some(Self::State),
            _ => None,
        }
    }
}

/// The sorts of notices, as `leave_out` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Mail cannot be retrieved: a server, its login, a mailbox there.
    Failing,
    /// Mail cannot be delivered: a destination, a local user, a full mailbox, a filter.
    Delivery,
    /// Our own disk or state.
    Disk,
    /// A message was parked.
    Parked,
    /// A mailbox changed as a whole, or its removals are held.
    Changed,
    /// What was told about is well again.
    Well,
    /// What was told about is not well yet.
    Reminder,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Failing, Self::Delivery, Self::Disk, Self::Parked, Self::Changed, Self::Well, Self::Reminder];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Delivery => "delivery",
            Self::Disk => "disk",
            Self::Parked => "parked",
            Self::Changed => "changed",
            Self::Well => "well",
            Self::Reminder => "reminder",
        }
    }

    pub(crate) fn of(cause: Cause) -> Self {
        match cause {
            Cause::UserGone
            | Cause::MailboxFull
            | Cause::DestinationDown
            | Cause::FilterDown
            | Cause::QuarantineDown
            | Cause::Configuration => Self::Delivery,
            Cause::DiskFull | Cause::State => Self::Disk,
            _ => Self::Failing,
        }
    }
}

/// Something that somebody should hear of now.
#[derive(Clone, Debug, PartialEq)]
pub struct Matter {
    /// What about it.
    pub event: Event,
    /// What it is about.
    pub subject: Subject,
    /// The accounts concerned.
    pub accounts: Vec<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It is not well.
    Trouble(Trouble),
    /// It is still not well.
    Reminder(Trouble),
    /// It is well again, after having been in trouble since then.
    Well {
        /// Why it was not well.
        cause: Cause,
        /// Since when.
        since: UnixTime,
    },
    /// Messages were parked.
    Parked {
        /// What people recognise them by, and why; at most ten.
        messages: Vec<ParkedMessage>,
        /// All that are parked now.
        count: usize,
    },
    /// A mailbox changed as a whole, in sentences.
    Changed(Vec<String>),
    /// Somebody wants to see whether notices arrive.
    Test,
}

impl Event {
    /// The word for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Trouble(_) => "trouble",
            Self::Reminder(_) => "reminder",
            Self::Well { .. } => "well",
            Self::Parked { .. } => "parked",
            Self::Changed(_) => "changed",
            Self::Test => "test",
        }
    }
}

/// Why something is not well.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since: UnixTime,
    /// The error of the last check, escaped.
    pub error: String,
    /// What a person can do, if the error knows.
    pub hint: Option<String>,
    /// When it is tried again, if it is.
    pub next: Option<UnixTime>,
}

/// A parked message, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedMessage {
    /// The From field, escaped.
    pub from: String,
    /// The Subject field, escaped.
    pub subject: String,
    /// Why, escaped.
    pub reason: String,
}
