//! Places that are limited, in number and in time, and what one check takes of them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Accounts that connect and log in at once, besides those that retrieve.
const CONNECTING: usize = 256;

/// An account that has not been let in for so long gives its place among those that connect to the next.
const SLOW: Duration = Duration::from_secs(1);

/// Accounts that connect for longer than that, besides: most of them wait for name servers, or for hosts that are silent.
const CONNECTING_SLOWLY: usize = 1024;

/// A number of places that may change while they are taken. Who waits longest gets the next.
pub(super) struct Places {
    semaphore: Arc<Semaphore>,
    count: Mutex<Count>,
}

struct Count {
    wanted: usize,
    /// Places to be taken away when they are given back.
    excess: usize,
}

impl Places {
    pub(super) fn new(wanted: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(wanted)), count: Mutex::new(Count { wanted, excess: 0 }) }
    }

    /// Waits for a place.
    pub(super) async fn take(&self) -> OwnedSemaphorePermit {
        loop {
            let place = Arc::clone(&self.semaphore).acquire_owned().await.expect("the semaphore is never closed");
            if !self.is_excess() {
                return place;
            }
            place.forget();
        }
    }

    /// A place, if one is free now.
    pub(super) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_owned().ok()
    }

    /// Whether a place that somebody has must go, which must then be forgotten.
    pub(super) fn is_excess(&self) -> bool {
        let mut count = self.count();
        let is_excess = count.excess > 0;
        count.excess -= usize::from(is_excess);
        is_excess
    }

    /// From now on so many. Nobody loses a place; those who have one too many do not pass it on.
    pub(super) fn resize(&self, wanted: usize) {
        let mut count = self.count();
        if wanted >= count.wanted {
            let more = wanted - count.wanted;
            let kept = more.min(count.excess);
            count.excess -= kept;
            self.semaphore.add_permits(more - kept);
        } else {
            let fewer = count.wanted - wanted;
            count.excess += fewer - self.semaphore.forget_permits(fewer);
        }
        count.wanted = wanted;
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections being made, besides the places of those that retrieve: far below what a process may have open.
pub(super) struct Connecting {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl Connecting {
    pub(super) fn new() -> Self {
        Self { quick: Arc::new(Semaphore::new(CONNECTING)), slow: Arc::new(Semaphore::new(CONNECTING_SLOWLY)) }
    }

    /// After a while without being let in, the place among those that connect goes to the next account: many hosts that
    /// are silent, or names that hang in the resolver, would have all of them for the whole time to connect.
    pub(super) async fn step_aside(&self, place: Weak<Held>) -> Infallible {
        tokio::time::sleep(SLOW).await;
        if place.upgrade().is_some_and(|place| place.is_of(&self.quick)) {
            let slow = Arc::clone(&self.slow).acquire_owned().await;
            if let (Ok(slow), Some(place)) = (slow, place.upgrade()) {
                let mut place = place.lock();
                if place.as_ref().is_some_and(|held| Arc::ptr_eq(held.semaphore(), &self.quick)) {
                    *place = Some(slow);
                }
            }
        }
        std::future::pending().await
    }
}

/// The place that one check has at the moment.
#[derive(Default)]
pub(super) struct Held(Mutex<Option<OwnedSemaphorePermit>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_of(&self, semaphore: &Arc<Semaphore>) -> bool {
        self.lock().as_ref().is_some_and(|held| Arc::ptr_eq(held.semaphore(), semaphore))
    }
}

/// The places that one check takes: one at its host from the beginning, and one among all that retrieve as soon as the
/// server has let it in. Until then it has one among those that connect, so that servers that do not answer keep
/// nobody else from retrieving. Who is connected already takes only the one among those that retrieve.
#[derive(Default)]
pub(crate) struct Turn {
    places: Option<Arc<Places>>,
    _host: Option<OwnedSemaphorePermit>,
    place: Arc<Held>,
}

/// A further place at a host, until it is dropped.
pub(crate) struct Another {
    _host: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// For a check that has its connection.
    pub(super) fn connected(places: &Arc<Places>) -> Self {
        Self { places: Some(Arc::clone(places)), ..Self::default() }
    }

    /// For a check that has to connect: waits for a place at its host, and for one among those that connect.
    pub(super) async fn connecting(places: &Arc<Places>, host: &Places, connecting: &Connecting) -> Self {
        let host = host.take().await;
        let place = Arc::clone(&connecting.quick).acquire_owned().await.ok();
        Self { places: Some(Arc::clone(places)), _host: Some(host), place: Arc::new(Held(Mutex::new(place))) }
    }

    pub(super) fn place(&self) -> Weak<Held> {
        Arc::downgrade(&self.place)
    }

    pub(crate) async fn take_place(&self) {
        let Some(places) = &self.places else { return };
        if self.place.is_of(&places.semaphore) {
            return;
        }
        let place = places.take().await;
        *self.place.lock() = Some(place);
    }

    /// A further place at the host, for a further connection of the same account; never the last one, which is for
    /// other accounts. What is not scheduled takes what it wants; who listened has the one connection it has.
    pub(crate) fn another(&self) -> Option<Another> {
        let Some(held) = &self._host else { return self.places.is_none().then_some(Another { _host: None }) };
        let host = held.semaphore();
        let place = (host.available_permits() > 1).then(|| Arc::clone(host).try_acquire_owned().ok()).flatten()?;
        Some(Another { _host: Some(place) })
    }

    /// Lets another account have the place among those that retrieve; the one at the host stays.
    pub(crate) fn give_back(&self) {
        *self.place.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(places: &Places) -> usize {
        let taken: Vec<_> = std::iter::from_fn(|| places.try_take()).collect();
        taken.len()
    }

    #[tokio::test]
    async fn fewer_places_are_reached_as_they_are_given_back_and_more_at_once() {
        let places = Places::new(4);
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(places.take().await);
        }
        places.resize(2);
        assert_eq!(free(&places), 0);
        drop(taken);
        // Two that came back are too many: whoever takes them finds out.
        let held = (places.take().await, places.take().await);
        assert_eq!(free(&places), 0);
        places.resize(5);
        assert_eq!(free(&places), 3);
        drop(held);
        assert_eq!(free(&places), 5);
        places.resize(1);
        assert_eq!((free(&places), places.is_excess()), (1, false));
    }

    #[tokio::test]
    async fn places_that_were_to_go_are_kept_when_there_are_to_be_more_again() {
        let places = Places::new(3);
        let taken = (places.take().await, places.take().await, places.take().await);
        places.resize(1);
        places.resize(3);
        drop(taken);
        assert_eq!((free(&places), places.is_excess()), (3, false));
    }
}
