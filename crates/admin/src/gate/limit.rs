//! How often somebody may try: token buckets, bounded in number.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets at most; beyond it those that are full again are forgotten, then all.
const BUCKETS: usize = 10_000;

/// A bucket of tries: this many at once, then one in each interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) interval: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<HashMap<String, Instant>>);

impl Limits {
    /// Takes one try out of a bucket; when it is empty, says after how long there is one.
    ///
    /// A bucket is kept as the moment at which it is full again (the generic cell rate algorithm).
    pub(crate) fn take(&self, key: &str, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS {
            buckets.retain(|_, full| *full > now);
            if buckets.len() >= BUCKETS {
                buckets.clear();
            }
        }
        let full = buckets.get(key).copied().unwrap_or(now).max(now) + rate.interval;
        let ahead = full.duration_since(now);
        let capacity = rate.interval * rate.burst;
        if ahead > capacity {
            return Err(ahead.saturating_sub(capacity));
        }
        buckets.insert(key.to_owned(), full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BUCKETS, Limits, Rate};

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_in_each_interval() {
        let (limits, now) = (Limits::default(), Instant::now());
        let rate = Rate { burst: 3, interval: Duration::from_secs(10) };
        assert!((0..3).all(|_| limits.take("a", rate, now).is_ok()));
        assert_eq!(limits.take("a", rate, now), Err(Duration::from_secs(10)));
        assert!(limits.take("b", rate, now).is_ok());
        assert!(limits.take("a", rate, now + Duration::from_secs(10)).is_ok());
        assert!(limits.take("a", rate, now + Duration::from_secs(11)).is_err());
    }

    #[test]
    fn a_million_names_take_bounded_room() {
        let (limits, now) = (Limits::default(), Instant::now());
        let rate = Rate { burst: 3, interval: Duration::from_secs(10) };
        for n in 0..2 * BUCKETS {
            let _ = limits.take(&n.to_string(), rate, now);
        }
        assert!(limits.0.lock().expect("not poisoned").len() <= BUCKETS);
    }
}
