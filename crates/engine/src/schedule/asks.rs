use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// What is asked of one account's task.
#[derive(Debug, Default)]
pub(super) struct Asks {
    pub(super) check: Notify,
    /// How long the check that was asked for has to wait, in milliseconds.
    later_ms: AtomicU64,
    cut: Notify,
    is_cut: AtomicBool,
}

impl Asks {
    /// Wants a check, after so long.
    pub(super) fn check(&self, later: Duration) {
        self.later_ms.store(u64::try_from(later.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.check.notify_one();
    }

    /// How long the check that was asked for last has to wait; told once.
    pub(super) fn later(&self) -> Duration {
        Duration::from_millis(self.later_ms.swap(0, Ordering::Relaxed))
    }

    /// Wants what runs or waits to end.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.cut.notify_one();
    }

    /// What was to end before is over.
    pub(super) fn begin(&self) {
        self.is_cut.store(false, Ordering::Release);
    }

    /// Whether what runs or waits is to end.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Resolves when what runs or waits is to end.
    pub(super) async fn cut_off(&self) {
        // A call may be left over from what ended by itself.
        while !self.is_cut() {
            self.cut.notified().await;
        }
    }
}
