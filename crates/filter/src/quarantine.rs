use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use connectord_mail::{Body, DeliveryId, UnixTime};

use crate::{Answer, Edits, Unchecked};

/// Where messages are kept back until a person says what becomes of them.
///
/// What it holds counts as delivered for the remote copy, so it must be as durable as a delivery.
#[async_trait]
pub trait Quarantine: Send + Sync {
    /// Keeps a message back; durable when it returns. One that is held already under this id, from an attempt of which
    /// nobody knew how it ended, is replaced: a message is held once.
    ///
    /// # Errors
    /// [`QuarantineError`] with nothing kept: the message stays on the server.
    async fn keep(&self, held: Held) -> Result<(), QuarantineError>;

    /// Whether a message is held, durably; asked after a crash between [`Quarantine::keep`] and the commit of its outcome.
    ///
    /// # Errors
    /// [`QuarantineError`] when that cannot be told now: nothing is concluded.
    async fn holds(&self, id: DeliveryId) -> Result<bool, QuarantineError>;
}

/// A message that is kept back, with all that is needed to judge it and to deliver it later.
#[derive(Clone)]
pub struct Held {
    /// Identity of the message, the same on every attempt; by which people name it.
    pub id: DeliveryId,
    /// The account's address.
    pub account: String,
    /// The mailbox it came from; empty for POP3.
    pub mailbox: String,
    /// Name of the destination it would have gone to.
    pub destination: String,
    /// Who would have got it.
    pub recipients: Vec<HeldFor>,
    /// The recovered reverse-path; `None` when the provider wrote none.
    pub reverse_path: Option<String>,
    /// When it arrived at the provider.
    pub arrived_at: Option<UnixTime>,
    /// When it was kept back.
    pub held_at: UnixTime,
    /// Why, as [`crate::Decision::reason`] says it; escaped when it is shown.
    pub reason: String,
    /// Whether it counts as spam.
    pub spam: bool,
    /// The viruses found.
    pub viruses: Vec<String>,
    /// What each filter said.
    pub answers: Vec<Answer>,
    /// How its header is changed if it is released.
    pub edits: Edits,
    /// The trace fields that a delivery would have put in front, with CRLF.
    pub trace: Bytes,
    /// The message as it is on the server.
    pub body: Arc<dyn Body>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("id", &self.id)
            .field("account", &self.account)
            .field("reason", &self.reason)
            .field("answers", &self.answers)
            .field("edits", &self.edits)
            .field("size_octets", &self.body.size_octets())
            .finish_non_exhaustive()
    }
}

/// Somebody who would have got a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFor {
    /// The local user.
    pub user: String,
    /// The envelope recipient.
    pub address: String,
}

/// Why a message cannot be kept back now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuarantineError {
    /// No room: the disk is full, or the quarantine holds as much as it may.
    #[error("quarantine: {0}")]
    Full(String),
    /// Anything else.
    #[error("quarantine: {0}")]
    Failed(String),
}

/// Something that learns from what people say about messages.
#[async_trait]
pub trait Teacher: Send + Sync {
    /// Tells it what a message is; `body` is the whole message, header included. Every wait inside ends at the deadline.
    ///
    /// # Errors
    /// What went wrong, with whether time mends it. One that knows the message already has learnt it.
    async fn learn(&self, body: Arc<dyn Body>, class: Class, deadline: Instant) -> Result<(), Unchecked>;
}

/// What a person says a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Wanted.
    Ham,
    /// Not wanted.
    Spam,
}
