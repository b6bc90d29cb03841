use bytes::Bytes;

use crate::{Capabilities, Flags, InternalDate, MailboxName, Refusal, ResponseCode, Uid, UidSet, UidValidity};

/// Names a command that was queued; later ones compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub(crate) u64);

/// What a [`Session`](crate::Session) tells its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The connection is as secure as required and the server wants to know who we are: call
    /// [`login`](crate::Session::login) or [`authenticate`](crate::Session::authenticate).
    LoginOffered(LoginOffer),
    /// A SASL challenge, decoded: answer with [`respond`](crate::Session::respond) or
    /// [`cancel_sasl`](crate::Session::cancel_sasl).
    Challenge(Vec<u8>),
    /// The login was refused; another may be tried on the same connection.
    LoginRefused(Refusal),
    /// Logged in; commands may be queued.
    LoggedIn {
        /// What the server can do now.
        capabilities: Capabilities,
    },
    /// The server wants this text shown to the user (RFC 9051 §7.1, ALERT). It is the server's, so show it escaped.
    Alert(String),
    /// What the server says it is (RFC 2971): names in lower case, and values. For logs only.
    ServerId(Vec<(String, String)>),

    /// A mailbox, from `list`.
    Listed(Listed),
    /// The namespaces, from `namespace`.
    Namespaces(Namespaces),
    /// A mailbox's numbers, from `status`.
    MailboxStatus(MailboxStatus),
    /// A mailbox is open, from `select` or `examine`; comes before its [`Event::Done`].
    Selected(Selected),
    /// Some UIDs that a search found: at most 1,000 ranges at a time, in the server's order.
    Found(UidSet),

    /// A body begins. Pieces follow as [`Event::Body`], then [`Event::BodyEnd`], then [`Event::Fetched`].
    BodyStart {
        /// Whose body it is, if the server has said so already; else [`Fetched::uid`] says it.
        uid: Option<Uid>,
        /// Which part.
        section: Section,
        /// How long it will be.
        octets: u64,
    },
    /// Octets of the body, exactly as the server has them, not copied.
    Body(Bytes),
    /// The body came whole.
    BodyEnd,
    /// One FETCH response is complete. A server may answer for one message in several.
    Fetched(Fetched),

    /// How many messages the selected mailbox has now.
    Exists(u32),
    /// A message was removed from the selected mailbox. Which one is not said: list the UIDs again.
    Expunged,
    /// These messages were removed from the selected mailbox (RFC 7162 §3.2.10).
    Vanished(UidSet),
    /// Flags changed, or a `uid_store_add_flags` was answered with what they are now.
    FlagsChanged {
        /// Whose; some servers do not say.
        uid: Option<Uid>,
        /// All flags the message has now.
        flags: Flags,
    },
    /// The selected mailbox's UIDVALIDITY changed while it was open: its UIDs are void, select it again.
    UidValidityChanged(UidValidity),
    /// IDLE is on: changes come as they happen. Renew it before 29 minutes (RFC 2177) with
    /// [`idle_done`](crate::Session::idle_done).
    Idling,

    /// A known response that could not be read; it was skipped. For logs.
    Unparsed(String),
    /// A command is finished.
    Done {
        /// Which.
        command: CommandId,
        /// How it went.
        result: Result<Completion, Refusal>,
    },
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginOffer {
    /// SASL mechanisms in upper case, as offered on this (encrypted) connection.
    pub mechanisms: Vec<String>,
    /// Whether the LOGIN command is allowed (no LOGINDISABLED).
    pub login: bool,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Whether `AUTHENTICATE` takes an initial response (RFC 4959).
    pub sasl_ir: bool,
    /// Everything the server can do.
    pub capabilities: Capabilities,
}

/// A command the server did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Response codes of the tagged answer, and COPYUID codes that came before it (RFC 6851 §4.3). Several when the
    /// set of UIDs was sent in several commands.
    pub codes: Vec<ResponseCode>,
    /// The server's words.
    pub text: String,
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// Everything: `BODY.PEEK[]`.
    Whole,
    /// The header with its empty line: `BODY.PEEK[HEADER]`.
    Header,
}

/// What to fetch of each message. `\Seen` is never set.
///
/// ```
/// use connectord_imap::{FetchItems, Section};
/// let items = FetchItems { size: true, internal_date: true, body: Some(Section::Whole), ..FetchItems::default() };
/// # let _ = items;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchItems {
    /// RFC822.SIZE.
    pub size: bool,
    /// INTERNALDATE.
    pub internal_date: bool,
    /// FLAGS.
    pub flags: bool,
    /// The message or its header.
    pub body: Option<Section>,
}

/// What became of the body in a FETCH response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// The response had none.
    Absent,
    /// NIL: the server has no octets for it (often a message removed meanwhile).
    Nil,
    /// This many octets were handed out.
    Octets(u64),
    /// It was longer than [`Options::max_message_octets`](crate::Options::max_message_octets) and dropped; its length.
    TooLong(u64),
}

/// A FETCH response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The message; `None` when the server did not say: nothing may be concluded then.
    pub uid: Option<Uid>,
    /// Whether `uid` is in the set of a `uid_fetch` in flight; a server may send more.
    pub asked: bool,
    /// RFC822.SIZE in octets. Servers are known to be wrong by a few (Exchange, every year).
    pub size: Option<u64>,
    /// When the server received it.
    pub internal_date: Option<InternalDate>,
    /// Its flags.
    pub flags: Option<Flags>,
    /// What became of the body.
    pub body: Body,
}

/// A mailbox in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: MailboxName,
    /// What separates levels of its name; `None`: it has no levels.
    pub delimiter: Option<char>,
    /// Attributes in lower case with their backslash: `\noselect`, `\hasnochildren`.
    pub attributes: Vec<String>,
}

impl Listed {
    /// Whether it can be selected (no `\Noselect`, no `\NonExistent`).
    pub fn is_selectable(&self) -> bool {
        !self.attributes.iter().any(|attribute| matches!(attribute.as_str(), "\\noselect" | "\\nonexistent"))
    }

    /// Its special uses.
    pub fn roles(&self) -> impl Iterator<Item = Role> + '_ {
        self.attributes.iter().filter_map(|attribute| Role::parse(attribute))
    }
}

/// A special use of a mailbox (RFC 6154 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// `\All`: all messages.
    All,
    /// `\Archive`.
    Archive,
    /// `\Drafts`.
    Drafts,
    /// `\Flagged`: all flagged messages.
    Flagged,
    /// `\Important` (RFC 8457).
    Important,
    /// `\Junk`, also `\Spam` as Gmail's XLIST had it.
    Junk,
    /// `\Sent`.
    Sent,
    /// `\Trash`.
    Trash,
}

impl Role {
    /// Reads `\Junk` in any case, with or without the backslash.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.trim_start_matches('\\').to_ascii_lowercase().as_str() {
            "all" | "allmail" => Self::All,
            "archive" => Self::Archive,
            "drafts" => Self::Drafts,
            "flagged" | "starred" => Self::Flagged,
            "important" => Self::Important,
            "junk" | "spam" => Self::Junk,
            "sent" => Self::Sent,
            "trash" => Self::Trash,
            _ => return None,
        })
    }
}

/// One namespace: a prefix of mailbox names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The prefix, often empty, often `INBOX.`.
    pub prefix: MailboxName,
    /// What separates levels.
    pub delimiter: Option<char>,
}

/// The answer to NAMESPACE (RFC 2342 §5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The user's own.
    pub personal: Vec<Namespace>,
    /// Other users'.
    pub other: Vec<Namespace>,
    /// Shared.
    pub shared: Vec<Namespace>,
}

/// A STATUS item to ask for (RFC 9051 §6.3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatusItem {
    /// How many messages.
    Messages,
    /// The next UID.
    UidNext,
    /// UIDVALIDITY.
    UidValidity,
    /// How many without `\Seen`.
    Unseen,
    /// How many with `\Deleted` (IMAP4rev2, or RFC 9208).
    Deleted,
    /// All sizes together, in octets (IMAP4rev2, or RFC 8438).
    Size,
    /// The highest modification sequence (RFC 7162).
    HighestModSeq,
}

/// The answer to STATUS: what was asked for and the server knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxStatus {
    /// Which mailbox.
    pub mailbox: MailboxName,
    /// How many messages.
    pub messages: Option<u32>,
    /// The UID the next message will have or pass.
    pub uid_next: Option<Uid>,
    /// UIDVALIDITY.
    pub uid_validity: Option<UidValidity>,
    /// How many without `\Seen`.
    pub unseen: Option<u32>,
    /// How many with `\Deleted`.
    pub deleted: Option<u32>,
    /// All sizes together, in octets.
    pub size: Option<u64>,
    /// The highest modification sequence.
    pub highest_modseq: Option<u64>,
}

/// A mailbox that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// The UID the next message will have or pass; some servers do not say.
    pub uid_next: Option<Uid>,
    /// How many messages it has.
    pub exists: u32,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Flags that can be changed for good; `None`: not said, then all of them (RFC 9051 §7.1).
    pub permanent_flags: Option<Flags>,
    /// Whether its UIDs change with every session: nothing can be remembered by them.
    pub no_uid_sticky: bool,
    /// The highest modification sequence, where CONDSTORE is spoken.
    pub highest_modseq: Option<u64>,
}

/// What to search for; everything together must be true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UidSearch {
    /// Only this UID and higher ones. (`7:*` also names the last message when its UID is lower; it is taken out.)
    pub from: Option<Uid>,
    /// Only messages with all of these flags.
    pub with: Flags,
    /// Only messages with none of these flags.
    pub without: Flags,
}

impl UidSearch {
    /// Every message.
    pub fn all() -> Self {
        Self::default()
    }

    /// Messages with this UID or a higher one.
    pub fn since(uid: Uid) -> Self {
        Self { from: Some(uid), ..Self::default() }
    }
}
