use std::time::{Duration, Instant as StdInstant};

use connectord_filter::{Unchecked, Why};
use tokio::time::{Instant, timeout_at};

/// When all waits for one message end: at its deadline, or when the filter's own patience is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    start: Instant,
    at: Instant,
}

impl Until {
    pub(crate) fn new(deadline: StdInstant, patience: Duration) -> Self {
        let start = Instant::now();
        Self { start, at: Instant::from_std(deadline).min(start + patience) }
    }

    /// What is left.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// For threads, which cannot be called off: they look themselves.
    pub(crate) fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// `peer` is who is waited for, `during` what is going on: `while reading its answer`.
    pub(crate) async fn within<T>(
        self,
        peer: &str,
        during: &str,
        step: impl Future<Output = T>,
    ) -> Result<T, Unchecked> {
        timeout_at(self.at, step).await.map_err(|_| self.timed_out(peer, during))
    }

    pub(crate) fn timed_out(self, peer: &str, during: &str) -> Unchecked {
        let waited = self.at.saturating_duration_since(self.start).as_secs_f64();
        Unchecked::new(Why::TimedOut, format!("{peer} has not answered within {waited:.1} s (while {during})"))
    }
}
