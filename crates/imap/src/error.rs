use std::fmt;

use connectord_wire::{Blame, Escaped};

use crate::ResponseCode;

/// How a command was turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// NO: understood, not done.
    No,
    /// BAD: not understood.
    Bad,
    /// Not sent at all: the server does not offer the extension that the command needs.
    NotOffered,
    /// OK, but without what the answer must have (a SELECT without UIDVALIDITY).
    Incomplete,
}

/// A command the server refused; the session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The command's name, such as `UID FETCH`.
    pub command: &'static str,
    /// How it was refused.
    pub status: Status,
    /// The machine-readable reason, if the server gave one.
    pub code: Option<ResponseCode>,
    /// The server's words (empty when nothing was sent); at most a line.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.as_ref().map(|code| format!("[{}] ", code.name())).unwrap_or_default();
        let text = Escaped::text(&self.text);
        match self.status {
            Status::No => write!(f, "{} refused: \"NO {code}{text}\"", self.command),
            Status::Bad => write!(f, "{} not understood: \"BAD {code}{text}\"", self.command),
            Status::NotOffered => write!(f, "{} is not offered by the server", self.command),
            Status::Incomplete => {
                write!(f, "{} answered \"OK {text}\" without {}", self.command, missing(self.command))
            }
        }
    }
}

fn missing(command: &str) -> &'static str {
    if matches!(command, "SELECT" | "EXAMINE") { "UIDVALIDITY" } else { "its data" }
}

impl std::error::Error for Refusal {}

/// Why a session ended. The connection must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server closed the connection without a BYE.
    #[error("connection closed by the server while {during}")]
    Closed {
        /// What the session was waiting for.
        during: &'static str,
    },
    /// The server said BYE: as its greeting, or at any time after (RFC 9051 §7.1.5). Hints to other servers are not
    /// followed.
    #[error("server said goodbye while {during}: \"BYE {}\"", Escaped::text(.text))]
    Bye {
        /// The machine-readable reason, if there was one.
        code: Option<ResponseCode>,
        /// The server's words.
        text: String,
        /// What the session was waiting for.
        during: &'static str,
    },
    /// Octets that are no IMAP response at this place.
    #[error("expected {expected} while {during}, got \"{}\"", Escaped(.found))]
    Syntax {
        /// What would have been right.
        expected: &'static str,
        /// What the session was waiting for.
        during: &'static str,
        /// The first octets of what came, at most 200.
        found: Vec<u8>,
    },
    /// A tagged response whose tag belongs to no command in flight.
    #[error("answer to a command that was not sent (tag \"{}\") while {during}", Escaped(.tag))]
    UnknownTag {
        /// The tag.
        tag: Vec<u8>,
        /// What the session was waiting for.
        during: &'static str,
    },
    /// A line passed [`Options::max_line`](crate::Options::max_line).
    #[error("line of more than {limit} octets while {during}")]
    LineTooLong {
        /// The limit, in octets.
        limit: usize,
        /// What the session was waiting for.
        during: &'static str,
    },
    /// A literal that is no message passed [`Options::max_literal`](crate::Options::max_literal), or the literals of
    /// one response did together.
    #[error("literal of {octets} octets exceeds the limit of {limit} while {during}")]
    LiteralTooLong {
        /// Octets announced.
        octets: u64,
        /// The limit, in octets.
        limit: usize,
        /// What the session was waiting for.
        during: &'static str,
    },
    /// Parentheses passed [`Options::max_nesting`](crate::Options::max_nesting).
    #[error("parentheses nested deeper than {limit} while {during}")]
    NestedTooDeep {
        /// The limit, in levels.
        limit: u32,
        /// What the session was waiting for.
        during: &'static str,
    },
    /// More mailboxes than [`Options::max_mailboxes`](crate::Options::max_mailboxes).
    #[error("more than {limit} mailboxes listed")]
    TooManyMailboxes {
        /// The limit.
        limit: u32,
    },
    /// A search named, or a fetch was answered with, more messages than [`Options::max_messages`](crate::Options::max_messages).
    #[error("more than {limit} messages in one answer")]
    TooManyMessages {
        /// The limit.
        limit: u32,
    },
    /// More responses that nobody asked for than [`Options::max_untagged`](crate::Options::max_untagged).
    #[error("more than {limit} unasked responses in a row while {during}")]
    TooManyUntagged {
        /// The limit.
        limit: u32,
        /// What the session was waiting for.
        during: &'static str,
    },
    /// PREAUTH in plaintext where STARTTLS is required: it would make TLS impossible (CVE-2020-14093).
    #[error("greeting was PREAUTH, which forbids the STARTTLS that is required")]
    PreauthBeforeTls,
    /// PREAUTH although a login was to take place; see [`Options::allow_preauth`](crate::Options::allow_preauth).
    #[error("greeting was PREAUTH: the server thinks we are somebody already")]
    Preauth,
    /// The server lacks something that was required.
    #[error("{what} is required but the server does not offer it")]
    NotOffered {
        /// What is missing.
        what: &'static str,
    },
    /// STARTTLS was offered and then refused.
    #[error("{0}")]
    StartTlsRefused(Refusal),
    /// Octets came in plaintext behind the answer to STARTTLS: somebody wants them read as if they came through TLS
    /// (CVE-2020-14954).
    #[error("{octets} octets came in plaintext after the answer to STARTTLS")]
    PlaintextAfterStartTls {
        /// How many.
        octets: usize,
    },
    /// The caller called a method at a time or with a value for which it does not exist.
    #[error("the session was misused: {what}")]
    Misuse {
        /// Which rule was broken.
        what: &'static str,
    },
}

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Closed { .. }
            | Self::Bye { .. }
            | Self::Syntax { .. }
            | Self::UnknownTag { .. }
            | Self::PreauthBeforeTls
            | Self::Preauth
            | Self::PlaintextAfterStartTls { .. } => Blame::Server,
            Self::LineTooLong { .. }
            | Self::LiteralTooLong { .. }
            | Self::NestedTooDeep { .. }
            | Self::TooManyMailboxes { .. }
            | Self::TooManyMessages { .. }
            | Self::TooManyUntagged { .. } => Blame::Limit,
            Self::NotOffered { .. } | Self::StartTlsRefused(_) => Blame::Incompatible,
            Self::Misuse { .. } => Blame::Caller,
        }
    }
}
