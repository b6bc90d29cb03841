use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_delivery::{Failure, FailureKind, Outcome};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::transaction::{Envelope, Transaction};

/// A connection to an LMTP or SMTP server, ready for transactions, one after the other.
#[async_trait]
pub(crate) trait Link: Sized + Send + 'static {
    /// What it takes to open one.
    type Settings: Send + Sync + 'static;

    /// Connects, greets and logs in.
    async fn open(settings: &Self::Settings) -> Result<Self, Failure>;

    /// MAIL FROM and RCPT TO. An error says that the connection is of no use; nothing was delivered.
    async fn begin(&mut self, envelope: &Envelope) -> Result<Begun, Failure>;

    /// DATA, the message and its answers: one outcome per accepted recipient.
    async fn send(&mut self, transaction: &Transaction, accepted: &[usize]) -> Vec<(usize, Outcome)>;

    /// Gives up the transaction. An error says that the connection is of no use.
    async fn reset(&mut self) -> Result<(), Failure>;

    /// Whether the message was answered and another transaction may follow.
    fn is_reusable(&mut self) -> bool;

    /// Says goodbye and closes, soon.
    async fn close(self);
}

/// What the server made of an envelope.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The sender is refused, hence everybody.
    SenderRefused(Failure),
    /// Per recipient, in order.
    Answered(Vec<Result<(), Failure>>),
}

/// How many connections, and how long they wait.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// For messages to people: `LMTP server unix:/run/dovecot/lmtp`.
    pub(crate) server: String,
    pub(crate) connections: usize,
    /// For a connection that others use.
    pub(crate) wait: Duration,
    /// How long an unused connection is kept.
    pub(crate) idle: Duration,
}

/// The connections to one server: a bound on those in use, and those that wait for use.
pub(crate) struct Pool<L: Link> {
    pub(crate) settings: L::Settings,
    pub(crate) bounds: Bounds,
    slots: Arc<Semaphore>,
    idle: Mutex<Idle<L>>,
}

struct Idle<L> {
    links: Vec<(Instant, L)>,
    /// Whether a task waits to close them.
    watched: bool,
}

impl<L: Link> Pool<L> {
    pub(crate) fn new(settings: L::Settings, bounds: Bounds) -> Self {
        let slots = Arc::new(Semaphore::new(bounds.connections.max(1)));
        Self { settings, bounds, slots, idle: Mutex::new(Idle { links: Vec::new(), watched: false }) }
    }

    /// Waits for the right to use `count` connections, all at once: two batches that took them one by one could wait for
    /// each other.
    pub(crate) async fn permits(&self, count: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        match tokio::time::timeout(self.bounds.wait, self.slots.clone().acquire_many_owned(wanted)).await {
            Ok(permits) => Ok(permits.expect("the semaphore is never closed")),
            Err(_) => {
                let Bounds { server, connections, wait, .. } = &self.bounds;
                let text = format!("all {connections} connections to {server} were busy for {} s", wait.as_secs());
                Err(Failure::new(FailureKind::Unavailable, text))
            }
        }
    }

    /// Sends the envelope over a connection that waits for use, or a new one if there is none or it has gone stale.
    pub(crate) async fn begin(&self, envelope: &Envelope) -> Result<(L, Begun), Failure> {
        if let Some(mut link) = self.take() {
            // It may be sent again: an envelope delivers nothing.
            match link.begin(envelope).await {
                Ok(begun) => return Ok((link, begun)),
                Err(failure) => tracing::debug!(error = %failure, "a kept connection was of no use"),
            }
        }
        let mut link = L::open(&self.settings).await?;
        let begun = link.begin(envelope).await?;
        Ok((link, begun))
    }

    fn lock(&self) -> MutexGuard<'_, Idle<L>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one used last: the others age and are closed.
    fn take(&self) -> Option<L> {
        let (since, link) = self.lock().links.pop()?;
        (since.elapsed() < self.bounds.idle).then_some(link)
    }

    /// Gives up a transaction, and keeps the connection.
    pub(crate) async fn reset(self: &Arc<Self>, mut link: L) {
        if link.reset().await.is_ok() {
            self.give_back(link);
        }
    }

    /// Keeps a connection on which no transaction is open.
    pub(crate) fn give_back(self: &Arc<Self>, link: L) {
        let mut idle = self.lock();
        idle.links.push((Instant::now(), link));
        if !std::mem::replace(&mut idle.watched, true) {
            // Nobody awaits it: it ends when nothing is left to close, or when the pool is gone.
            tokio::spawn(close_when_old(Arc::downgrade(self), self.bounds.idle));
        }
    }

    fn take_old(&self) -> Option<Vec<L>> {
        let mut idle = self.lock();
        let (old, young): (Vec<_>, Vec<_>) =
            idle.links.drain(..).partition(|(since, _)| since.elapsed() >= self.bounds.idle);
        idle.links = young;
        idle.watched = !(old.is_empty() && idle.links.is_empty());
        idle.watched.then(|| old.into_iter().map(|(_, link)| link).collect())
    }
}

async fn close_when_old<L: Link>(pool: Weak<Pool<L>>, idle: Duration) {
    loop {
        tokio::time::sleep(idle).await;
        let Some(old) = pool.upgrade().and_then(|pool| pool.take_old()) else { return };
        for link in old {
            link.close().await;
        }
    }
}
