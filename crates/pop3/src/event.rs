use bytes::Bytes;

use crate::{Capabilities, MessageNumber, Refusal, Uidl};

/// What a [`crate::Session`] tells its caller; answers come in the order of the commands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server is ready for a login; the session waits for [`crate::Session::user_pass`],
    /// [`crate::Session::authenticate`] or [`crate::Session::quit`]. Comes once.
    LoginOffered(LoginOffer),
    /// A SASL challenge, base64 decoded; the session waits for [`crate::Session::respond`] or
    /// [`crate::Session::cancel_sasl`].
    Challenge(Vec<u8>),
    /// The login was refused; another one may be tried on this connection.
    LoginRefused(Refusal),
    /// The login was accepted; commands are sent from now on.
    LoggedIn,

    /// The answer to STAT.
    Stat {
        /// Messages in the maildrop.
        messages: u32,
        /// Their size together, in octets.
        octets: u64,
    },
    /// STAT was refused.
    StatRefused(Refusal),

    /// One line of the answer to UIDL, or the answer to UIDL with a number. Repeated numbers and unique-ids are passed on.
    UniqueId {
        /// The message.
        number: MessageNumber,
        /// Its unique-id.
        uidl: Uidl,
    },
    /// A line of the answer to UIDL that has no number or no acceptable unique-id; the listing goes on.
    UniqueIdUnreadable {
        /// The message, if at least its number could be read.
        number: Option<MessageNumber>,
        /// The line, cut after 1,024 octets.
        line: Bytes,
    },
    /// The listing of unique-ids is complete. Does not come after UIDL with a number.
    UniqueIdsEnd {
        /// How many [`Event::UniqueId`] it had.
        count: u32,
    },
    /// UIDL without a number was refused.
    UniqueIdsRefused(Refusal),
    /// UIDL with a number was refused.
    UniqueIdRefused {
        /// The message asked for.
        number: MessageNumber,
        /// The answer.
        refusal: Refusal,
    },

    /// One line of the answer to LIST, or the answer to LIST with a number.
    Size {
        /// The message.
        number: MessageNumber,
        /// Its size by the server's word, in octets; servers exist that count line ends as one octet.
        octets: u64,
    },
    /// A line of the answer to LIST that has no number or no size; the listing goes on.
    SizeUnreadable {
        /// The message, if at least its number could be read.
        number: Option<MessageNumber>,
        /// The line, cut after 1,024 octets.
        line: Bytes,
    },
    /// The listing of sizes is complete. Does not come after LIST with a number.
    SizesEnd {
        /// How many [`Event::Size`] it had.
        count: u32,
    },
    /// LIST without a number was refused.
    SizesRefused(Refusal),
    /// LIST with a number was refused.
    SizeRefused {
        /// The message asked for.
        number: MessageNumber,
        /// The answer.
        refusal: Refusal,
    },

    /// A message, or its top, begins.
    BodyStart {
        /// The message.
        number: MessageNumber,
        /// What was asked for.
        kind: Retrieval,
        /// The size that the reply line announced, in octets: a hint, and of the whole message even for a top.
        octets: Option<u64>,
    },
    /// Octets of the message, unstuffed, as they are on the server; a slice of what was received.
    Body(Bytes),
    /// The message, or its top, is complete.
    BodyEnd {
        /// The message.
        number: MessageNumber,
        /// What was asked for.
        kind: Retrieval,
        /// How many octets [`Event::Body`] brought; the last line end belongs to them.
        octets: u64,
    },
    /// RETR or TOP was refused.
    RetrieveRefused {
        /// The message asked for.
        number: MessageNumber,
        /// What was asked for.
        kind: Retrieval,
        /// The answer.
        refusal: Refusal,
    },

    /// The message is marked; the server removes it when it takes the QUIT.
    Deleted {
        /// The message.
        number: MessageNumber,
    },
    /// DELE was refused.
    DeleteRefused {
        /// The message.
        number: MessageNumber,
        /// The answer.
        refusal: Refusal,
    },
    /// NOOP was answered.
    Noop,
    /// NOOP was refused.
    NoopRefused(Refusal),
    /// RSET was answered: no message is marked any more.
    Reset,
    /// RSET was refused.
    ResetRefused(Refusal),
    /// QUIT was answered; the session is over and the connection may be closed.
    Goodbye {
        /// `None` for `+OK`: what was marked is removed. `Some` for `-ERR`: some of it may not be (RFC 1939 §6).
        refusal: Option<Refusal>,
    },
}

/// What there is to log in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginOffer {
    /// SASL mechanisms in upper case, in the server's order, each once (RFC 5034 §3).
    pub mechanisms: Vec<String>,
    /// Whether USER and PASS may be tried: listed, or the server answers no CAPA.
    pub user: bool,
    /// Whether what is sent now is encrypted.
    pub encrypted: bool,
    /// What the server listed, under TLS if [`LoginOffer::encrypted`].
    pub capabilities: Capabilities,
}

/// What is retrieved of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retrieval {
    /// All of it (RETR).
    Whole,
    /// Its header and some lines (TOP).
    Top,
}
