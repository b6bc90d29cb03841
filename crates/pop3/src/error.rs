use bytes::Bytes;
use connectord_wire::{Blame, Escaped};

use crate::{MessageNumber, Refusal};

/// Why a session ended; `during` completes "timed out while …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server turned us away before anything was said.
    #[error("server refused the connection: {0}")]
    GreetingRefused(Refusal),
    /// TLS is required and the server lists its capabilities without STLS.
    #[error("server does not offer STLS, which is required")]
    StlsNotOffered,
    /// TLS is required and the server refused STLS.
    #[error("STLS, which is required, was refused: {0}")]
    StlsRefused(Refusal),
    /// Octets came in plaintext behind the answer to STLS: an attack that injects answers, or a server that invites it
    /// (CVE-2011-0411 and its kin).
    #[error("plaintext after the answer to STLS, expected nothing before the TLS handshake")]
    PlaintextAfterStartTls,
    /// A reply or listing line passed `max_line`.
    #[error("line exceeds the limit of {limit} octets (while {during})")]
    LineTooLong {
        /// The limit, in octets.
        limit: usize,
        /// What was going on.
        during: &'static str,
    },
    /// The answer to CAPA passed `max_capabilities`.
    #[error("more than the limit of {limit} capabilities (during CAPA)")]
    TooManyCapabilities {
        /// The limit, in lines.
        limit: usize,
    },
    /// STAT told of more messages than `max_messages`, or a listing had more lines.
    #[error("more than the limit of {limit} messages (during {command})")]
    TooManyMessages {
        /// The command: STAT, UIDL or LIST.
        command: &'static str,
        /// The limit.
        limit: u32,
    },
    /// A message passed `max_message_octets`.
    #[error("message {number} exceeds the limit of {limit} octets")]
    MessageTooLong {
        /// The message.
        number: MessageNumber,
        /// The limit, in octets.
        limit: u64,
    },
    /// The server answered something else than it may.
    #[error("unexpected reply {:?}, expected {expected} (while {during})", Escaped(.found))]
    UnexpectedReply {
        /// What may come.
        expected: &'static str,
        /// The line that came, cut after 1,024 octets.
        found: Bytes,
        /// What was going on.
        during: &'static str,
    },
    /// The server said something when nothing was asked.
    #[error("unsolicited line {:?}, expected silence (while {during})", Escaped(.found))]
    Unsolicited {
        /// The line that came, cut after 1,024 octets.
        found: Bytes,
        /// What was going on.
        during: &'static str,
    },
    /// A SASL challenge is not base64.
    #[error("challenge {:?} is not base64 (during AUTH)", Escaped(.found))]
    Challenge {
        /// The line that came, cut after 1,024 octets.
        found: Bytes,
    },
    /// The server closed the connection.
    #[error("server closed the connection (while {during})")]
    Closed {
        /// What was going on.
        during: &'static str,
    },
    /// The server closed the connection after QUIT was sent and before its answer came: whether the marked messages are
    /// removed is unknown, and the next listing decides.
    #[error("server closed the connection before it answered QUIT")]
    QuitUnanswered,
    /// The calling code used the session wrongly.
    #[error("session misused: {0}")]
    Misuse(&'static str),
}

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::GreetingRefused(refusal) => refusal.blame(),
            Self::StlsNotOffered | Self::StlsRefused(_) => Blame::Incompatible,
            Self::LineTooLong { .. }
            | Self::TooManyCapabilities { .. }
            | Self::TooManyMessages { .. }
            | Self::MessageTooLong { .. } => Blame::Limit,
            Self::PlaintextAfterStartTls
            | Self::UnexpectedReply { .. }
            | Self::Unsolicited { .. }
            | Self::Challenge { .. }
            | Self::Closed { .. }
            | Self::QuitUnanswered => Blame::Server,
            Self::Misuse(_) => Blame::Caller,
        }
    }
}
