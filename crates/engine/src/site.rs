use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use connectord_delivery::{Failure, Presence};
use connectord_mail::UnixTime;
use connectord_net::Connector;
use connectord_store::{Recorder, Store};

use crate::{Board, Filters, Logins, Observer, Progress, Spool};

/// What all accounts share.
pub struct Site {
    /// What is remembered.
    pub store: Arc<dyn Store>,
    /// How servers are reached.
    pub connector: Connector,
    /// Where bodies wait.
    pub spool: Spool,
    /// This machine's name, for Received fields.
    pub hostname: String,
    /// What time it is.
    pub clock: Clock,
    /// What earlier logins told; nothing yet by default.
    pub logins: Logins,
    /// Who exists here.
    pub users: Arc<dyn Users>,
    /// Who is told how it goes.
    pub observer: Arc<dyn Observer>,
    /// Who looks at messages before they are delivered.
    pub filters: Filters,
    /// What each account does now; nothing yet by default.
    pub board: Board,
    /// Who takes down what happens to messages; `NoTrail` for nobody.
    pub trail: Arc<dyn Recorder>,
}

impl Site {
    /// Tells how an account's check goes.
    pub(crate) fn tell(&self, address: &str, progress: Progress<'_>) {
        self.board.progress(address, progress);
        self.observer.progress(address, progress);
    }
}

/// Who exists here.
#[async_trait]
pub trait Users: Send + Sync {
    /// Whether a local user exists; `None` leaves the answer to the destination.
    ///
    /// # Errors
    /// A [`Failure`] when it cannot be told now.
    async fn presence(&self, user: &str) -> Result<Option<Presence>, Failure>;
}

/// The wall clock; another one in tests.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixTime + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::from_fn(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
        })
    }

    /// A clock that says what `now` says.
    pub fn from_fn(now: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> UnixTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// A number that nobody can predict, for jitter and nonces; constant if the system has no randomness to give.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0x9e37_79b9_7f4a_7c15)
}

/// A part of a whole that nobody can predict: from 0 to less than 1.
pub(crate) fn random_share() -> f64 {
    (random() >> 11) as f64 / (1u64 << 53) as f64
}
