//! What both protocols conclude about messages that are missing, cannot be had, or are too large.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use connectord_account::{Entry, Key, Oversize, Retention};
use connectord_mail::{Fingerprint, Head, UnixTime};
use connectord_store::{Absence, MailboxRow, Mark, MessageName, MessageRef};
use connectord_wire::Escaped;
use tracing::warn;

use crate::run::Run;
use crate::trouble::{MAX_ATTEMPTS, RunError};

/// A mass absence is believed the third time, a day later.
pub(crate) fn believe_absence(
    run: &Run<'_>,
    mailbox: &mut MailboxRow,
    gone: Vec<(Key, u16)>,
    known: usize,
) -> Vec<(Key, u16)> {
    let absence = mailbox.absence.map_or(Absence { times: 1, since: run.now }, |seen| Absence {
        times: seen.times.saturating_add(1),
        since: seen.since,
    });
    if absence.times >= 3 && run.now.since(absence.since) >= Duration::from_secs(86_400) {
        mailbox.absence = None;
        return gone;
    }
    warn!(
        account = run.job.address(),
        mailbox = %Escaped::text(&mailbox.name), missing = gone.len(), known,
        "most known messages are missing from the listing; nothing is concluded until it has been so for a day"
    );
    mailbox.absence = Some(absence);
    Vec::new()
}

/// In what order messages are retrieved: new ones first, then those that failed before, the longest ago first. So one
/// that ends every check is not in the way of the others.
pub(crate) fn turn(known: Option<&Entry>) -> (bool, UnixTime) {
    known.map_or((false, UnixTime(0)), |entry| (true, entry.retry_at))
}

/// A message that cannot be retrieved.
pub(crate) struct Failed {
    pub(crate) message: MessageRef,
    pub(crate) name: MessageName,
    /// Counts from 1.
    pub(crate) attempt: u32,
    /// As announced.
    pub(crate) size_octets: Option<u64>,
    pub(crate) reason: String,
}

impl Failed {
    /// The server refused it: later again with back-off, parked after too many attempts.
    pub(crate) async fn put_off(&self, run: &Run<'_>) -> Result<(), RunError> {
        let wait = connectord_account::backoff(self.attempt, crate::site::random());
        self.defer_or_park(run, wait).await
    }

    /// The connection ended while it was retrieved. Once that may happen to any message, so it is tried at once; a
    /// message that does it again and again is put off and parked like one that is refused.
    pub(crate) async fn blame(&self, run: &Run<'_>) {
        let wait = match self.attempt {
            0 | 1 => Duration::ZERO,
            attempt => connectord_account::backoff(attempt - 1, crate::site::random()),
        };
        if let Err(error) = self.defer_or_park(run, wait).await {
            warn!(account = run.job.address(), %error, "cannot remember which message ended the check");
        }
    }

    /// We have no room for it: nothing is wrong with it, but others go first.
    pub(crate) async fn make_way(&self, run: &Run<'_>) {
        let (store, now) = (&run.site.store, run.site.clock.now());
        if let Err(error) = store.defer(run.lease, self.message, &self.name, now, &self.reason, now).await {
            warn!(account = run.job.address(), %error, "cannot remember which message ended the check");
        }
    }

    async fn defer_or_park(&self, run: &Run<'_>, wait: Duration) -> Result<(), RunError> {
        let Self { message, name, attempt, reason, .. } = self;
        let (store, now) = (&run.site.store, run.site.clock.now());
        if *attempt >= MAX_ATTEMPTS {
            let reason = format!("{reason} (attempt {attempt})");
            store.park(run.lease, *message, name, self.size_octets.unwrap_or(0), &reason, now).await?;
            run.tally.parked(run, &reason);
            return Ok(());
        }
        store.defer(run.lease, *message, name, now.plus(wait), reason, now).await?;
        run.tally.deferred(run);
        warn!(account = run.job.address(), uid = name.on_server, reason, attempt, "a message cannot be retrieved yet");
        Ok(())
    }
}

/// Parks or skips a message over the limit.
pub(crate) async fn too_large(
    run: &Run<'_>,
    message: MessageRef,
    name: &MessageName,
    size_octets: u64,
) -> Result<(), RunError> {
    let (store, now) = (&run.site.store, run.site.clock.now());
    match run.job.account.oversize {
        Oversize::Skip => {
            store.mark(run.lease, message.mailbox, &[(message.key, message.generation)], Mark::Skipped).await?;
        }
        Oversize::Park => {
            let limit = run.job.account.max_message_octets.unwrap_or(u64::MAX);
            let reason = format!("message of {size_octets} octets exceeds the limit of {limit}");
            store.park(run.lease, message, name, size_octets, &reason, now).await?;
            run.tally.parked(run, &reason);
        }
    }
    Ok(())
}

/// Whether messages are removed right after their delivery.
pub(crate) fn removes_at_once(run: &Run<'_>) -> bool {
    run.removals_allowed
        && match run.job.account.retention {
            Retention::Immediately => true,
            Retention::AfterDelivery(span) => span.is_zero(),
            Retention::Never | Retention::ByAge(_) => false,
        }
}

/// Whether a header names its message. Without Message-ID and Date the headers of different messages may be the same,
/// and only the size says more.
pub(crate) fn is_told_apart(fingerprint: &Fingerprint) -> bool {
    fingerprint.ident != Fingerprint::new(Head::of(b""), 0).ident
}

/// Known messages by their headers; each is found once.
pub(crate) struct Prints<T>(HashMap<(u64, u64), Vec<(u32, T)>>);

impl<T> Prints<T> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(crate) fn insert(&mut self, fingerprint: &Fingerprint, value: T) {
        self.0.entry((fingerprint.head, fingerprint.ident)).or_default().push((fingerprint.size, value));
    }

    /// Takes out a message with this header; `size_octets` decides between several, and about headers that say nothing.
    pub(crate) fn take(&mut self, fingerprint: &Fingerprint, size_octets: Option<u64>) -> Option<T> {
        let found = self.0.get_mut(&(fingerprint.head, fingerprint.ident))?;
        let size = size_octets.map(|octets| u32::try_from(octets).unwrap_or(u32::MAX));
        let of_that_size = found.iter().position(|(known, _)| Some(*known) == size);
        let any = (!found.is_empty() && is_told_apart(fingerprint)).then_some(0);
        of_that_size.or(any).map(|at| found.swap_remove(at).1)
    }
}

/// Sorts what is known newest first, so that the newest is inserted, and found, first.
pub(crate) fn newest_first(entries: &mut [Entry]) {
    entries.sort_by_key(|entry| Reverse(entry.delivered_at));
}
