//! The counts of one check.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use crate::run::Run;
use crate::trouble::RunError;
use crate::{Change, Progress, Report};

/// Mass changes of one check that are told, one for each mailbox mostly.
const MAX_CHANGES: usize = 100;

/// Counts what happens; shared by retrieval and delivery.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    listed: AtomicU64,
    new: AtomicU64,
    due: AtomicU64,
    retrieved: AtomicU64,
    octets: AtomicU64,
    delivered: AtomicU64,
    deferred: AtomicU64,
    parked: AtomicU64,
    removed: AtomicU64,
    repeated: AtomicU64,
    quarantined: AtomicU64,
    discarded: AtomicU64,
    unchecked: AtomicU64,
    spam: AtomicU64,
    changes: Mutex<Vec<Change>>,
}

impl Tally {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn listed(&self, run: &Run<'_>, mailbox: &str, messages: u64, new: u64, removals: u64) {
        Self::add(&self.listed, messages);
        Self::add(&self.new, new);
        Self::add(&self.due, removals);
        run.tell(Progress::Listed { mailbox, messages, new, removals });
    }

    pub(crate) fn octets(&self, run: &Run<'_>, octets: u64) {
        Self::add(&self.octets, octets);
        run.tell(Progress::Octets(octets));
    }

    pub(crate) fn retrieved(&self, run: &Run<'_>) {
        Self::add(&self.retrieved, 1);
        run.tell(Progress::Retrieved);
    }

    pub(crate) fn delivered(&self, _run: &Run<'_>) {
        Self::add(&self.delivered, 1);
    }

    pub(crate) fn deferred(&self, run: &Run<'_>) {
        Self::add(&self.deferred, 1);
        run.tell(Progress::Deferred);
    }

    pub(crate) fn parked(&self, run: &Run<'_>, reason: &str) {
        Self::add(&self.parked, 1);
        warn!(account = run.job.address(), server = run.server, reason, "message parked; the remote copy stays");
        run.tell(Progress::Parked);
    }

    pub(crate) fn removed(&self, run: &Run<'_>, count: u64) {
        Self::add(&self.removed, count);
        run.tell(Progress::Removed(count));
    }

    /// A delivery was made again though an earlier attempt may have arrived.
    pub(crate) fn repeated(&self) {
        Self::add(&self.repeated, 1);
    }

    /// A message was kept back.
    pub(crate) fn quarantined(&self, run: &Run<'_>) {
        Self::add(&self.quarantined, 1);
        run.tell(Progress::Quarantined);
    }

    /// A message was discarded, as the configuration says.
    pub(crate) fn discarded(&self, run: &Run<'_>) {
        Self::add(&self.discarded, 1);
        run.tell(Progress::Discarded);
    }

    /// A message goes on though a filter did not look at it.
    pub(crate) fn unchecked(&self) {
        Self::add(&self.unchecked, 1);
    }

    /// Filters have looked at a message, and may have found it to be spam.
    pub(crate) fn filtered(&self, run: &Run<'_>, spam: bool) {
        Self::add(&self.spam, u64::from(spam));
        run.tell(Progress::Filtered { spam });
    }

    /// Very many messages changed at once.
    pub(crate) fn change(&self, run: &Run<'_>, change: Change) {
        warn!(
            account = run.job.address(), server = run.server, mailbox = change.mailbox, change = change.kind.code(),
            known = change.known, missing = change.missing, recognised = change.recognised, new = change.new,
            detail = %change, "very many messages changed at once"
        );
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.len() < MAX_CHANGES {
            changes.push(change);
        }
    }

    pub(crate) fn report(self, duration: Duration, error: Option<RunError>) -> Report {
        Report {
            listed: self.listed.into_inner(),
            new: self.new.into_inner(),
            due: self.due.into_inner(),
            retrieved: self.retrieved.into_inner(),
            octets: self.octets.into_inner(),
            delivered: self.delivered.into_inner(),
            deferred: self.deferred.into_inner(),
            parked: self.parked.into_inner(),
            removed: self.removed.into_inner(),
            repeated: self.repeated.into_inner(),
            quarantined: self.quarantined.into_inner(),
            discarded: self.discarded.into_inner(),
            unchecked: self.unchecked.into_inner(),
            spam: self.spam.into_inner(),
            changes: self.changes.into_inner().unwrap_or_else(PoisonError::into_inner),
            duration,
            error,
            next_check: None,
        }
    }
}
