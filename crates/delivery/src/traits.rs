use async_trait::async_trait;
use connectord_mail::DeliveryId;
use serde::{Deserialize, Serialize};

use crate::{Failure, Parcel, Recipient};

/// A place that mail is delivered to.
///
/// Methods are called concurrently by many accounts; an implementation orders what must not happen at once (two
/// publishers in one Maildir). Every wait inside has a deadline.
#[async_trait]
pub trait Delivery: Send + Sync {
    /// What the destination is, for `relay=` in the log: `maildir:/var/vmail`, `lmtp:unix:/run/dovecot/lmtp`.
    fn describe(&self) -> String;

    /// How much goes into one batch.
    fn limits(&self) -> BatchLimits;

    /// Whether the recipient exists, before anything is retrieved for them.
    ///
    /// # Errors
    /// A [`Failure`] when the destination cannot tell now; the account waits.
    async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure>;

    /// Whether there is room for mail; retrieval pauses while this fails.
    ///
    /// # Errors
    /// [`crate::FailureKind::DiskFull`] when less than the configured reserve is free.
    async fn room(&self, recipient: &Recipient) -> Result<(), Failure> {
        let _ = recipient;
        Ok(())
    }

    /// The messages of ours that lie at this recipient's, if looking once can tell; ascending.
    ///
    /// Asked at most once in a check, and only when what was known of a mailbox may have been lost: then parcels whose id is
    /// not among these come as first attempts. `None`, the default, tells nothing: then all come as repeated ones.
    ///
    /// # Errors
    /// A [`Failure`] when the destination cannot tell now; it is then asked for nothing more than with `None`.
    async fn delivered_before(&self, recipient: &Recipient) -> Result<Option<Vec<DeliveryId>>, Failure> {
        let _ = recipient;
        Ok(None)
    }

    /// First step: makes a batch ready, undoably. Never fails as a whole: each parcel has its note or its failure.
    ///
    /// The batch is within [`Delivery::limits`], except that a single larger parcel comes alone.
    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared>;

    /// The outcomes of these parcels are committed: what was kept only to recall them may go. Of parcels that were
    /// recalled, only when no other parcel of the account waits to be recalled again.
    async fn settled(&self, notes: &[Note]) {
        let _ = notes;
    }

    /// Takes away what earlier processes of this installation left half done for these recipients, and says how much it
    /// was. Called before anything is recalled or prepared, with the notes of all parcels still open.
    async fn sweep(&self, recipients: &[Recipient], open: &[Note]) -> usize {
        let _ = (recipients, open);
        0
    }

    /// After a crash: what became of parcels whose first step was committed and whose outcome was not.
    ///
    /// A destination that can, finishes them (a Maildir publishes what is complete in `tmp/`). One answer per row.
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled>;
}

/// A batch after its first step. Dropping it undoes it.
#[async_trait]
pub trait Prepared: Send {
    /// Per parcel, in the batch's order: what to remember, or why it will not be delivered now.
    ///
    /// `Ok(None)` is a destination that cannot be asked afterwards.
    fn notes(&self) -> &[Result<Option<Note>, Failure>];

    /// Second step: makes the batch visible. One outcome per parcel, in the batch's order; parcels whose note is a
    /// failure answer with the same failure.
    ///
    /// Not cancel safe: dropping the future leaves parcels of which only [`Delivery::recall`] knows what became.
    async fn complete(self: Box<Self>) -> Vec<Outcome>;
}

/// How much goes into one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most parcels; default 256.
    pub parcels: usize,
    /// Most octets; default 16 MiB.
    pub octets: u64,
    /// Batches of one account at once; default 1. With more, the first step of a batch is taken while the one before it is
    /// in its second; never two second steps.
    pub at_once: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { parcels: 256, octets: 16 * 1024 * 1024, at_once: 1 }
    }
}

/// What a destination wants to be told again in [`Delivery::recall`]; opaque to everybody else, at most 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note(pub Vec<u8>);

/// Whether a recipient exists at the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Exists, or the destination takes everybody.
    Here,
    /// Does not exist; the text says how that is known.
    Absent(String),
}

/// What became of one parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The destination has it, durably; `detail` is its answer or the place.
    Delivered {
        /// For the log: `250 2.0.0 Saved`, or the file's name.
        detail: String,
    },
    /// The destination does not have it.
    Failed(Failure),
    /// The destination may have it: the message was sent whole and the answer did not come.
    Unknown(Failure),
}

/// A parcel whose first step was committed and whose outcome was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallRow {
    /// Who was to get it.
    pub recipient: Recipient,
    /// What the destination noted.
    pub note: Option<Note>,
}

/// What became of a recalled parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recalled {
    /// It is delivered: it was, or it was completed now.
    Delivered {
        /// As in [`Outcome::Delivered`].
        detail: String,
    },
    /// It is certainly not there: retrieve it again.
    Absent,
    /// It is not to be found, which proves nothing: retrieve it again, and count a possible duplicate.
    Unknown,
    /// The destination cannot be asked now; conclude nothing, the account waits.
    Wait(Failure),
}
