//! What becomes of a message, as filters and the account's policy decided.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connectord_delivery::Recipient;
use connectord_filter::{Answer, Decision, Notice};
use connectord_mail::{Body, DeliveryId, Head, LineEnds, UnixTime};

use super::incoming::Incoming;
use crate::run::Run;

/// The destination of what is kept back, in the rows of the store. No configured one has such a name.
pub(crate) const QUARANTINE: &str = "@quarantine";

/// The destination of what is discarded.
pub(crate) const DISCARD: &str = "@discard";

/// What becomes of a message.
pub(crate) enum Fate {
    /// It is delivered; also where nobody was asked.
    Deliver,
    /// A notice is delivered in its place: itself it is in the quarantine.
    Tell(Box<Instead>),
    /// It is kept back.
    Quarantine(Box<Findings>),
    /// It is settled as if it were delivered.
    Discard,
    /// It stays on the server until later; for so long if that is said.
    Later {
        /// For how long.
        wait: Option<Duration>,
        /// A filter wants to see it again; else one failed at it.
        postponed: bool,
    },
    /// It waits for a person.
    Park,
}

/// All that was found, for whoever judges a message that is kept back.
pub(crate) struct Findings {
    pub(super) decision: Decision,
    pub(super) answers: Vec<Answer>,
    /// What is told in its place, if anything is.
    pub(super) instead: Option<Box<Instead>>,
}

/// What is told in place of a message.
pub(crate) struct Instead {
    /// The header of the message.
    pub(super) head: Bytes,
    pub(super) reason: String,
}

impl Fate {
    /// Whether something else than a delivery comes first.
    pub(super) fn is_not_delivery(&self) -> bool {
        !matches!(self, Self::Deliver | Self::Tell(_))
    }

    /// Whether the message is not finished when it is kept back.
    pub(super) fn is_followed_by_a_notice(&self) -> bool {
        matches!(self, Self::Quarantine(findings) if findings.instead.is_some())
    }
}

impl Instead {
    /// The notice for one recipient, with LF.
    pub(super) fn notice(
        &self,
        run: &Run<'_>,
        message: &Incoming,
        recipient: &Recipient,
        now: UnixTime,
    ) -> Arc<dyn Body> {
        let notice = Notice {
            recipient: &recipient.address,
            account: run.job.address(),
            hostname: &run.site.hostname,
            id: message.id,
            reason: &self.reason,
            now,
        };
        let text = notice.message(Head::of(&self.head));
        let (mut out, mut line_ends) = (Vec::with_capacity(text.len()), LineEnds::default());
        line_ends.push(&text, &mut out);
        line_ends.finish(&mut out);
        Arc::new(Bytes::from(out))
    }
}

/// The identity of the notice in place of a message.
pub(super) fn notice_id(message: DeliveryId) -> DeliveryId {
    message.for_recipient("@notice", "")
}
