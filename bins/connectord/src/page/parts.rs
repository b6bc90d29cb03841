//! How the parts of the installation are: filters, destinations, the state, the disk.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use connectord_admin::{Part, PartState};
use connectord_delivery::Recipient;
use connectord_store::Values;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Page;
use crate::filters;

/// How long a part has to answer somebody who waits.
const WITHIN: Duration = Duration::from_secs(20);

/// Octets that should be free where the state is.
const FREE: u64 = 1 << 30;

impl Page {
    /// Asks every part whether it is there, the cheapest way there is; answers whether all are.
    pub(super) async fn look_at_parts(&self) -> bool {
        let parts = self.asked_parts(false).await;
        let well = parts.iter().all(|part| part.state != PartState::Down);
        self.take_parts(parts);
        well
    }

    /// Tries every part: filters are shown what they must find.
    pub(super) async fn try_parts(&self) -> Vec<Part> {
        let parts = self.asked_parts(true).await;
        self.take_parts(parts.clone());
        parts
    }

    fn take_parts(&self, parts: Vec<Part>) {
        *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = parts;
        let _ = self.events.send(connectord_admin::Event::Overview);
    }

    async fn asked_parts(&self, whole: bool) -> Vec<Part> {
        let known = Arc::clone(&self.accounts.known.borrow());
        let mut asking = JoinSet::new();
        for (place, filter) in self.accounts.site.filters.chain().filters.into_iter().enumerate() {
            asking.spawn(async move {
                let began = Instant::now();
                let asked = async {
                    match whole {
                        true => filters::probed(&*filter, began + WITHIN).await,
                        false => filter.ping(began + WITHIN).await.map(|()| None).map_err(|error| error.to_string()),
                    }
                };
                let outcome = timeout(WITHIN, asked).await.unwrap_or_else(|_| Err("it does not answer".to_owned()));
                (place, part(filter.name(), &filter.describe(), began, outcome))
            });
        }
        let first = asking.len();
        let names = known
            .config
            .default_delivery
            .iter()
            .map(|_| "default")
            .chain(known.config.deliveries.keys().map(String::as_str));
        for (place, name) in names.enumerate() {
            let Some(job) = known.jobs.iter().find(|job| job.destination == name) else { continue };
            let (delivery, recipient) = (Arc::clone(&job.delivery), job.recipients.first().cloned());
            let nobody = || Recipient { user: "postmaster".into(), address: "postmaster".into() };
            let (recipient, name) = (recipient.unwrap_or_else(nobody), name.to_owned());
            asking.spawn(async move {
                let began = Instant::now();
                let asked = async {
                    delivery.presence(&recipient).await.map_err(|failure| failure.to_string())?;
                    delivery.room(&recipient).await.map(|()| None).map_err(|failure| failure.to_string())
                };
                let outcome = timeout(WITHIN, asked).await.unwrap_or_else(|_| Err("it does not answer".to_owned()));
                (first + place, part(&name, &delivery.describe(), began, outcome))
            });
        }
        let mut parts: Vec<_> = asking.join_all().await;
        parts.sort_by_key(|(place, _)| *place);
        let mut parts: Vec<Part> = parts.into_iter().map(|(_, part)| part).collect();
        parts.push(self.state().await);
        parts.push(self.disk());
        parts
    }

    async fn state(&self) -> Part {
        let began = Instant::now();
        let path = self.accounts.store.path().display().to_string();
        let read = self.accounts.store.value("state").await;
        part("state", &path, began, read.map(|_| None).map_err(|error| error.to_string()))
    }

    fn disk(&self) -> Part {
        let path = self.accounts.store.path();
        let (state, detail) = match rustix::fs::statvfs(path) {
            Ok(disk) => {
                let free = disk.f_bavail.saturating_mul(disk.f_frsize);
                let state = if free < FREE { PartState::Note } else { PartState::Ok };
                (state, format!("{}: {} free", path.display(), connectord::figures::octets(free)))
            }
            Err(error) => (PartState::Down, format!("{}: {error}", path.display())),
        };
        Part { name: "disk".to_owned(), state, latency_ms: None, detail }
    }
}

/// A part as it answered: well, with a remark, or not at all.
fn part(name: &str, place: &str, began: Instant, outcome: Result<Option<String>, String>) -> Part {
    let latency_ms = outcome.is_ok().then(|| u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    let (state, detail) = match outcome {
        Ok(None) => (PartState::Ok, place.to_owned()),
        Ok(Some(said)) => (PartState::Note, format!("{place}: {said}")),
        Err(error) => (PartState::Down, format!("{place}: {error}")),
    };
    Part { name: name.to_owned(), state, latency_ms, detail }
}
