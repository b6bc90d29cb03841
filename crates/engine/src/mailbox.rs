//! What both protocols conclude about messages that are missing, cannot be had, or are too large.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use connectord_account::{Entry, Key, Oversize, Retention};
use connectord_mail::{Fingerprint, UnixTime};
use connectord_store::{Absence, MailboxId, MailboxRow, Mark, MessageName, MessageRef, What};
use connectord_wire::Escaped;
use tracing::warn;

use crate::run::Run;
use crate::skim::Seen;
use crate::trouble::{MAX_ATTEMPTS, RunError};
use crate::{Change, ChangeKind};

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
    let believed = absence.times >= 3 && run.now.since(absence.since) >= Duration::from_secs(86_400);
    let change = Change {
        kind: if believed { ChangeKind::AbsenceBelieved } else { ChangeKind::Absence },
        mailbox: Escaped::text(&mailbox.name).to_string(),
        known: known as u64,
        missing: gone.len() as u64,
        recognised: 0,
        new: 0,
    };
    run.tally.change(run, change);
    if believed {
        mailbox.absence = None;
        return gone;
    }
    mailbox.absence = Some(absence);
    Vec::new()
}

/// In what order messages are retrieved: new ones first, then those that failed before, the longest ago first. So one
/// that ends every check is not in the way of the others.
pub(crate) fn turn(known: Option<Entry>) -> (bool, UnixTime) {
    known.map_or((false, UnixTime(0)), |entry| (true, entry.retry_at))
}

/// What is known of a message that is to be retrieved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) generation: u16,
    /// Counts from 1.
    pub(crate) attempt: u32,
    /// It was wanted before: the size limit let it pass, or a person wants it whatever its size.
    pub(crate) known: bool,
    /// A person wants it delivered whatever speaks against it.
    pub(crate) anyway: bool,
    /// What is known of the message that its header says it is.
    pub(crate) adopted: Option<Fingerprint>,
}

impl Wanted {
    /// A message of which nothing is known.
    pub(crate) fn new(generation: u16) -> Self {
        Self { generation, attempt: 1, ..Self::default() }
    }

    /// Whether nothing is known of it.
    pub(crate) fn is_new(&self) -> bool {
        let Self { generation, attempt, known, anyway, adopted } = self;
        (*generation, *attempt, *known, *anyway) == (0, 1, false, false) && adopted.is_none()
    }

    /// As the planner decided about a message of which this is known.
    pub(crate) fn of(known: Option<Entry>, generation: u16, attempt: u32) -> Self {
        Self {
            generation,
            attempt,
            known: known.is_some(),
            anyway: known.is_some_and(|entry| entry.anyway),
            adopted: known.filter(|entry| entry.adopted).map(|entry| entry.fingerprint),
        }
    }
}

/// What came of comparing messages whole that only their headers named, before they are removed.
#[derive(Default)]
pub(crate) struct Compared {
    /// What was delivered: each is good for one message.
    known: Vec<Fingerprint>,
    /// Known by their content now.
    pub(crate) confirmed: Vec<(Key, u16)>,
    /// Others, that nobody has.
    pub(crate) others: Vec<(Key, u16)>,
}

impl Compared {
    pub(crate) fn new(known: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self { known: known.into_iter().collect(), ..Self::default() }
    }

    /// One has been retrieved whole; whether it is one that was delivered. Which of several with the same header is of
    /// no account, as long as each was delivered.
    pub(crate) fn compare(&mut self, name: (Key, u16), found: &Fingerprint) -> bool {
        let place = self.known.iter().position(|known| known.same_content(found));
        match place {
            Some(at) => {
                self.known.swap_remove(at);
                self.confirmed.push(name);
            }
            None => self.others.push(name),
        }
        place.is_some()
    }

    /// Commits what was found: only now anything may be removed.
    pub(crate) async fn record(&self, run: &Run<'_>, mailbox: &MailboxRow) -> Result<(), RunError> {
        let store = &run.site.store;
        if !self.confirmed.is_empty() {
            store.mark(run.lease, mailbox.id, &self.confirmed, Mark::Confirmed).await?;
        }
        if !self.others.is_empty() {
            warn!(
                account = run.job.address(), mailbox = %Escaped::text(&mailbox.name), messages = self.others.len(),
                "messages have the headers of known ones and are others; they are not removed, but count as new"
            );
            store.mark(run.lease, mailbox.id, &self.others, Mark::Another).await?;
        }
        Ok(())
    }
}

/// A person wants a message removed, and nothing shows that it is still the same: the person is asked again. What is
/// there now is remembered, so that next time it can be compared.
pub(crate) async fn ask_again(run: &Run<'_>, message: MessageRef, found: Option<Fingerprint>) -> Result<(), RunError> {
    let name = run.discard(message).map(|row| row.name).unwrap_or_default();
    let reason = "it was to be removed, but the server may have given its number to another message meanwhile, and \
                  nothing of it is known to compare; look at it, and say so again";
    run.site.store.park(run.lease, message, &name, found, 0, reason, run.site.clock.now()).await?;
    run.tally.parked(run, reason);
    Ok(())
}

/// What a person wanted removed is gone, by the server's word.
pub(crate) fn discarded(run: &Run<'_>, mailbox: &MailboxRow, names: &[(Key, u16)]) {
    for (key, generation) in names {
        let message = MessageRef { mailbox: mailbox.id, key: *key, generation: *generation };
        if let Some(row) = run.discard(message) {
            run.take_down(message, &[(What::Discarded, "", &row.reason)]);
            crate::log::discarded(run.job.address(), &run.server, &row);
        }
    }
}

/// A message that cannot be retrieved.
pub(crate) struct Failed {
    pub(crate) message: MessageRef,
    pub(crate) name: MessageName,
    /// Counts from 1.
    pub(crate) attempt: u32,
    /// A person wants it: it is tried as long as it takes.
    pub(crate) anyway: bool,
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
        if *attempt >= MAX_ATTEMPTS && !self.anyway {
            let reason = format!("{reason} (attempt {attempt})");
            store.park(run.lease, *message, name, None, self.size_octets.unwrap_or(0), &reason, now).await?;
            run.tally.parked(run, &reason);
            run.take_down_unread(*message, Some((name, self.size_octets.unwrap_or(0))), &[(What::Parked, "", &reason)]);
            return Ok(());
        }
        store.defer(run.lease, *message, name, now.plus(wait), reason, now).await?;
        run.tally.deferred(run);
        run.take_down_unread(*message, Some((name, self.size_octets.unwrap_or(0))), &[(What::Deferred, "", reason)]);
        warn!(account = run.job.address(), uid = name.on_server, reason, attempt, "a message cannot be retrieved yet");
        Ok(())
    }
}

/// Parks or skips a message over the limit; `print` is what was seen of it.
pub(crate) async fn too_large(
    run: &Run<'_>,
    message: MessageRef,
    name: &MessageName,
    print: Option<Fingerprint>,
    size_octets: u64,
) -> Result<(), RunError> {
    let (store, now) = (&run.site.store, run.site.clock.now());
    match run.job.account.oversize {
        Oversize::Skip => skip(run, message.mailbox, &[(message, name.clone(), size_octets)]).await?,
        Oversize::Park => {
            let reason = over_the_limit(run, size_octets);
            store.park(run.lease, message, name, print, size_octets, &reason, now).await?;
            run.tally.parked(run, &reason);
            run.take_down_unread(message, Some((name, size_octets)), &[(What::Parked, "", &reason)]);
        }
    }
    Ok(())
}

/// Messages that are skipped with one commit: a mailbox may have a hundred thousand, and other accounts' commits wait.
pub(crate) const SKIPPED_AT_ONCE: usize = 10_000;

/// Leaves messages over the limit alone for good, with one commit.
pub(crate) async fn skip(
    run: &Run<'_>,
    mailbox: MailboxId,
    messages: &[(MessageRef, MessageName, u64)],
) -> Result<(), RunError> {
    let keys: Vec<_> = messages.iter().map(|(message, ..)| (message.key, message.generation)).collect();
    run.site.store.mark(run.lease, mailbox, &keys, Mark::Skipped).await?;
    for (message, name, size_octets) in messages {
        let reason = over_the_limit(run, *size_octets);
        run.take_down_unread(*message, Some((name, *size_octets)), &[(What::Skipped, "", &reason)]);
    }
    Ok(())
}

fn over_the_limit(run: &Run<'_>, size_octets: u64) -> String {
    let limit = run.job.account.max_message_octets.unwrap_or(u64::MAX);
    format!("message of {size_octets} octets exceeds the limit of {limit}")
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

/// Known messages by their headers; each is found once.
pub(crate) struct Prints<T>(HashMap<u64, Vec<(u32, T)>>);

impl<T> Prints<T> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(crate) fn insert(&mut self, fingerprint: &Fingerprint, value: T) {
        self.0.entry(fingerprint.head).or_default().push((fingerprint.size, value));
    }

    /// Takes out a message with this header; `size_octets` decides between several, and about headers that say nothing.
    pub(crate) fn take(&mut self, seen: &Seen, size_octets: Option<u64>) -> Option<T> {
        let found = self.0.get_mut(&seen.fingerprint.head)?;
        let size = size_octets.map(|octets| u32::try_from(octets).unwrap_or(u32::MAX));
        let of_that_size = found.iter().position(|(known, _)| Some(*known) == size);
        let any = (!found.is_empty() && seen.named).then_some(0);
        of_that_size.or(any).map(|at| found.swap_remove(at).1)
    }
}

/// Sorts what is known newest first, so that the newest is inserted, and found, first.
pub(crate) fn newest_first(entries: &mut [Entry]) {
    entries.sort_by_key(|entry| Reverse(entry.delivered_at));
}
