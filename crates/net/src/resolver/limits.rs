use std::time::Duration;

/// Bounds of a [`Resolver`](crate::Resolver).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverLimits {
    /// Look-ups at once that are not slow; default 64, at least 1.
    pub threads: usize,
    /// Threads that may be away with slow look-ups; default 1,024, for the system's resolver at most a quarter of the files
    /// that the process may open.
    pub slow_threads: usize,
    /// Names that may wait for a thread; default 1,024.
    pub queue: usize,
    /// When a look-up counts as slow; default 250 ms.
    pub slow_after: Duration,
    /// When addresses from before are used instead of waiting on; default 2 s.
    pub stale_after: Duration,
    /// Up to which age they are used; default 7 days.
    pub stale_for: Duration,
    /// A look-up that has taken this long is not waited for by anybody new; default 10 s.
    pub silent_after: Duration,
}

impl Default for ResolverLimits {
    fn default() -> Self {
        Self {
            threads: 64,
            slow_threads: 1024,
            queue: 1024,
            slow_after: Duration::from_millis(250),
            stale_after: Duration::from_secs(2),
            stale_for: Duration::from_secs(7 * 86_400),
            silent_after: Duration::from_secs(10),
        }
    }
}
