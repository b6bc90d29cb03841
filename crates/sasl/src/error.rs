use connectord_wire::Blame;

use crate::Mechanism;

/// Why an exchange ended without a login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The credential cannot be used with this mechanism.
    #[error("{mechanism} cannot be used with this credential")]
    Unsuitable {
        /// The mechanism asked for.
        mechanism: Mechanism,
    },
    /// A `-PLUS` mechanism without a channel binding.
    #[error("{mechanism} needs a channel binding and the connection has none")]
    NoChannelBinding {
        /// The mechanism asked for.
        mechanism: Mechanism,
    },
    /// A user name, password, token or identity holds an octet that the mechanism cannot carry.
    #[error("the {field} holds {found}, which {mechanism} cannot carry")]
    Unsendable {
        /// The mechanism asked for.
        mechanism: Mechanism,
        /// Which part of the credential.
        field: &'static str,
        /// Name of the octet, never the text around it.
        found: &'static str,
    },
    /// A challenge that is not what the mechanism prescribes.
    #[error("{mechanism}: expected {expected}, the server sent \"{found}\"")]
    Challenge {
        /// The mechanism in progress.
        mechanism: Mechanism,
        /// What should have come.
        expected: &'static str,
        /// What came, escaped.
        found: String,
    },
    /// A challenge longer than any server needs.
    #[error("{mechanism}: challenge of {length} octets exceeds the limit of {limit}")]
    ChallengeTooLong {
        /// The mechanism in progress.
        mechanism: Mechanism,
        /// Its length, in octets.
        length: usize,
        /// The limit, in octets.
        limit: usize,
    },
    /// The server's nonce does not begin with ours: the answer is to somebody else's login (RFC 5802 §5.1).
    #[error("{mechanism}: the server's nonce does not continue ours; this answer belongs to another login")]
    NonceReplaced {
        /// The mechanism in progress.
        mechanism: Mechanism,
    },
    /// An iteration count outside our bounds: below, the password could be guessed; above, it is an attack on our CPU.
    #[error("{mechanism}: iteration count {found} is outside {min} to {max}")]
    Iterations {
        /// The mechanism in progress.
        mechanism: Mechanism,
        /// What the server asked for.
        found: u64,
        /// Least accepted.
        min: u32,
        /// Most accepted.
        max: u32,
    },
    /// The server's signature is wrong: it does not know the password (RFC 5802 §3).
    #[error("{mechanism}: the server's signature is wrong: it does not know the password")]
    ServerSignature {
        /// The mechanism in progress.
        mechanism: Mechanism,
    },
    /// The server reported success without proving that it knows the password.
    #[error("{mechanism}: the server reported success without proving that it knows the password")]
    ServerUnverified {
        /// The mechanism in progress.
        mechanism: Mechanism,
    },
    /// The server refused within the exchange.
    #[error("{mechanism}: login refused: \"{text}\"")]
    Refused {
        /// The mechanism in progress.
        mechanism: Mechanism,
        /// What the server said, escaped.
        text: String,
    },
}

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Unsuitable { .. } | Self::NoChannelBinding { .. } => Blame::Caller,
            Self::Unsendable { .. } | Self::Refused { .. } => Blame::Credentials,
            Self::Iterations { .. } | Self::ChallengeTooLong { .. } => Blame::Limit,
            Self::Challenge { .. }
            | Self::NonceReplaced { .. }
            | Self::ServerSignature { .. }
            | Self::ServerUnverified { .. } => Blame::Server,
        }
    }
}
