use std::sync::{Mutex, PoisonError};

use connectord_filter::{Finding, Health, Unchecked, Verdict};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::until::Until;

/// Lets so many messages to a filter at a time, and counts how it does.
pub(crate) struct Gauge {
    places: Semaphore,
    health: Mutex<Health>,
}

impl Gauge {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { places: Semaphore::new(at_once.clamp(1, 1024)), health: Mutex::default() }
    }

    /// Waits for a place and looks. A look that is dropped half-way counts as failed.
    pub(crate) async fn check(
        &self,
        until: Until,
        peer: &str,
        look: impl Future<Output = Result<Finding, Unchecked>>,
    ) -> Verdict {
        let counted = Counted::new(self);
        let place = until.within(peer, "waiting for its other messages", self.places.acquire()).await;
        let found = match place {
            Ok(place) => {
                let _place = place.expect("the semaphore is never closed");
                let running = Running::new(self);
                let found = look.await;
                drop(running);
                found
            }
            Err(late) => Err(late),
        };
        counted.done(&found);
        match found {
            Ok(finding) => Verdict::Found(finding),
            Err(trouble) => Verdict::Unchecked(trouble),
        }
    }

    pub(crate) fn health(&self) -> Health {
        self.change(|health| health.clone())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One message, from its wait for a place to its verdict.
struct Counted<'a> {
    gauge: &'a Gauge,
    since: Instant,
    done: bool,
}

impl<'a> Counted<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.change(|health| health.waiting += 1);
        Self { gauge, since: Instant::now(), done: false }
    }

    fn done(mut self, found: &Result<Finding, Unchecked>) {
        self.done = true;
        let now = Instant::now();
        let took = now - self.since;
        self.gauge.change(|health| match found {
            Ok(_) => {
                health.checked += 1;
                health.last_answer = Some(now.into_std());
                health.last_took = Some(took);
            }
            Err(trouble) => {
                health.failed += 1;
                // What a filter refuses or is not given is no trouble of the filter's.
                if trouble.why.is_temporary() {
                    health.last_trouble = Some((now.into_std(), trouble.clone()));
                }
            }
        });
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.gauge.change(|health| {
            health.waiting -= 1;
            health.failed += u64::from(!self.done);
        });
    }
}

/// One message that the filter looks at; it does not wait meanwhile.
struct Running<'a>(&'a Gauge);

impl<'a> Running<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.change(|health| {
            health.waiting -= 1;
            health.running += 1;
        });
        Self(gauge)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.change(|health| {
            health.waiting += 1;
            health.running -= 1;
        });
    }
}
