//! Who is told what happens to accounts, and remembers of which the page must be told.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use connectord_engine::{Observer, Progress};
use tokio::sync::Notify;

/// Stands before another observer. What happens to an account is noted by its address, however often: no more than that waits.
pub(crate) struct Witness {
    next: Arc<dyn Observer>,
    seen: Mutex<Happened>,
    wake: Notify,
}

/// What happened since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// Accounts that moved.
    pub(super) moved: HashSet<String>,
    /// Accounts whose check ended: how they are doing must be read.
    pub(super) finished: HashSet<String>,
    /// How many messages are parked may have changed.
    pub(super) parked: bool,
    /// A destination or a filter was in the way.
    pub(super) parts: bool,
}

impl Witness {
    pub(crate) fn new(next: Arc<dyn Observer>) -> Self {
        Self { next, seen: Mutex::default(), wake: Notify::new() }
    }

    /// Notes something, and wakes who waits.
    pub(super) fn note(&self, note: impl FnOnce(&mut Happened)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    /// Waits until something happened.
    pub(super) async fn happens(&self) {
        self.wake.notified().await;
    }

    /// Takes what happened.
    pub(super) fn take(&self) -> Happened {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Witness {
    fn progress(&self, account: &str, progress: Progress<'_>) {
        self.next.progress(account, progress);
        self.note(|seen| {
            seen.moved.insert(account.to_owned());
            match progress {
                Progress::Finished(report) => {
                    seen.finished.insert(account.to_owned());
                    // A retry may have unparked one.
                    seen.parked |= report.parked > 0 || report.delivered > 0;
                    seen.parts |= report.error.as_ref().is_some_and(|error| {
                        use connectord_engine::Cause::{DestinationDown, DiskFull, FilterDown, QuarantineDown};
                        matches!(error.trouble().cause, DestinationDown | FilterDown | QuarantineDown | DiskFull)
                    });
                }
                Progress::Parked => seen.parked = true,
                _ => {}
            }
        });
    }
}
