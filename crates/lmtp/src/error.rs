use bytes::Bytes;
use connectord_wire::{Blame, Escaped};

use crate::Reply;

/// Why a session ended; `during` completes "timed out while …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server turned us away before anything was said.
    #[error("server refused the connection: \"{0}\"")]
    GreetingRefused(Reply),
    /// The server does not take LHLO: it may speak SMTP.
    #[error("server refused LHLO: \"{0}\"")]
    LhloRefused(Reply),
    /// The server closes its service: 421 came (RFC 5321 §3.8).
    #[error("server is closing: \"{reply}\" (while {during})")]
    ServiceClosing {
        /// The 421 reply.
        reply: Reply,
        /// What was going on.
        during: &'static str,
    },
    /// The server refused the message before its end, and closed the connection: nobody has it.
    #[error("server refused the message before its end: \"{0}\"")]
    MessageRefused(Reply),
    /// A reply line passed `max_line`.
    #[error("reply line exceeds the limit of {limit} octets (while {during})")]
    LineTooLong {
        /// The limit, in octets.
        limit: usize,
        /// What was going on.
        during: &'static str,
    },
    /// A reply passed `max_lines`.
    #[error("reply exceeds the limit of {limit} lines (while {during})")]
    TooManyLines {
        /// The limit, in lines.
        limit: usize,
        /// What was going on.
        during: &'static str,
    },
    /// A line that is no reply, or whose code differs from the lines before it.
    #[error("unreadable reply line {:?}, expected {expected} (while {during})", Escaped(.found))]
    Unreadable {
        /// What may come.
        expected: &'static str,
        /// The line that came.
        found: Bytes,
        /// What was going on.
        during: &'static str,
    },
    /// The server answered something else than it may.
    #[error("unexpected reply \"{found}\", expected {expected} (while {during})")]
    UnexpectedReply {
        /// What may come.
        expected: &'static str,
        /// The reply that came.
        found: Reply,
        /// What was going on.
        during: &'static str,
    },
    /// The server said something when nothing was asked.
    #[error("unsolicited reply \"{found}\", expected silence (while {during})")]
    Unsolicited {
        /// The reply that came.
        found: Reply,
        /// What was going on.
        during: &'static str,
    },
    /// The server closed the connection. If that was after the final dot, recipients without an answer may have the message.
    #[error("server closed the connection (while {during})")]
    Closed {
        /// What was going on.
        during: &'static str,
    },
    /// The calling code used the session wrongly.
    #[error("session misused: {0}")]
    Misuse(&'static str),
}

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::LhloRefused(_) => Blame::Incompatible,
            Self::LineTooLong { .. } | Self::TooManyLines { .. } => Blame::Limit,
            Self::GreetingRefused(_)
            | Self::ServiceClosing { .. }
            | Self::MessageRefused(_)
            | Self::Unreadable { .. }
            | Self::UnexpectedReply { .. }
            | Self::Unsolicited { .. }
            | Self::Closed { .. } => Blame::Server,
            Self::Misuse(_) => Blame::Caller,
        }
    }

    /// The reply that ended the session, if it was one.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::GreetingRefused(reply)
            | Self::LhloRefused(reply)
            | Self::MessageRefused(reply)
            | Self::ServiceClosing { reply, .. } => Some(reply),
            Self::UnexpectedReply { found, .. } | Self::Unsolicited { found, .. } => Some(found),
            _ => None,
        }
    }
}
