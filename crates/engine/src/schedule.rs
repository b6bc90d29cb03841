//! Checks accounts for good: one task per account, which sleeps until it is due and then waits for its turn.
//!
//! An account waits first for a place at its host, then connects, and then waits for one of all places, so that a host
//! that hangs keeps only its own accounts waiting. Whoever waits longest gets the next place, at its host and among all.

mod asks;
mod places;
mod quiet;
mod task;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connectord_mail::UnixTime;
use connectord_store::{Health, Hold};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::error;

use crate::host::Ledger;
use crate::run::stopped;
use crate::{AccountNow, Activity, Job, Site};
use asks::Asks;
use places::{Connecting, Places};
use quiet::Quiet;
use task::{Start, Task};

pub(crate) use places::{Another, Turn};

/// How far apart accounts of one host begin that are checked by one word ([`Scheduler::check_all`]).
pub const BETWEEN_STARTS: Duration = Duration::from_millis(250);

/// How many checks run at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// In all; default 20, at least 1.
    pub concurrency: usize,
    /// At one host; default 8, at least 1. With those that listen it stays below 20, which maintained mail servers accept
    /// from one address or more (Oracle's proxy 20, Exchange 2,000; Dovecot and Gmail count by user); Courier as Plesk
    /// sets it up (2006) accepts 4.
    pub per_host: usize,
    /// Accounts of one host that listen (IDLE) at once; further ones are checked regularly instead. Default 10.
    pub idle_per_host: usize,
    /// Share of the interval by which a check comes later at random, so that accounts do not come in step; default 0.1.
    pub jitter: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 20, per_host: 8, idle_per_host: 10, jitter: 0.1 }
    }
}

/// Checks accounts regularly, and at once after the start, a change of their configuration, or when asked.
pub struct Scheduler {
    common: Arc<Common>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    asked: Mutex<HashMap<String, Asked>>,
}

/// Of whom an account's check is asked.
struct Asked {
    asks: Arc<Asks>,
    host: Arc<Host>,
}

/// What all accounts share.
struct Common {
    site: Arc<Site>,
    places: Arc<Places>,
    connecting: Connecting,
    settings: Mutex<Settings>,
    /// How many there are.
    accounts: AtomicU32,
}

struct Settings {
    limits: Limits,
    quiet: Option<Quiet>,
}

impl Common {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Host {
    checks: Places,
    listening: Places,
    /// What its accounts tell about it.
    ledger: Ledger,
}

impl Scheduler {
    /// With nothing to do yet.
    pub fn new(site: Arc<Site>, limits: Limits) -> Self {
        let places = Arc::new(Places::new(limits.concurrency.max(1)));
        let settings = Mutex::new(Settings { limits, quiet: None });
        let common = Common { site, places, connecting: Connecting::new(), settings, accounts: AtomicU32::new(0) };
        Self { common: Arc::new(common), hosts: Mutex::default(), asked: Mutex::default() }
    }

    /// Nothing is checked regularly from one minute of the day to another (0 to 1439, the second not part of it; it may
    /// be over midnight). Whoever asks is served, and open connections listen. `minute_of_day` says what minute it is
    /// here; it must return at once.
    #[must_use]
    pub fn with_quiet_hours(
        self,
        from_minute: u16,
        to_minute: u16,
        minute_of_day: impl Fn(UnixTime) -> u16 + Send + Sync + 'static,
    ) -> Self {
        self.set_quiet_hours(Some((from_minute, to_minute)), minute_of_day);
        self
    }

    /// Other quiet hours than before, as in [`Scheduler::with_quiet_hours`], or none.
    pub fn set_quiet_hours(
        &self,
        minutes: Option<(u16, u16)>,
        minute_of_day: impl Fn(UnixTime) -> u16 + Send + Sync + 'static,
    ) {
        let minute_of_day = Arc::new(minute_of_day);
        let quiet = minutes.map(|(from_minute, to_minute)| Quiet { from_minute, to_minute, minute_of_day });
        self.common.settings().quiet = quiet;
    }

    /// Other limits than before. Checks that run are finished; connections that listen beyond the new limit end when
    /// their account is checked next, within half an hour.
    pub fn set_limits(&self, limits: Limits) {
        self.common.places.resize(limits.concurrency.max(1));
        for host in self.hosts().values() {
            host.checks.resize(limits.per_host.max(1));
            host.listening.resize(limits.idle_per_host);
        }
        self.common.settings().limits = limits;
    }

    /// Wants an account checked now. False when it is not scheduled.
    pub fn check_now(&self, address: &str) -> bool {
        self.asked().get(&address.to_lowercase()).inspect(|asked| asked.asks.check(Duration::ZERO)).is_some()
    }

    /// Wants many accounts checked, those of one host one after the other, [`BETWEEN_STARTS`] apart: no provider sees all of
    /// them log in at once. Returns how many of them are scheduled. Until its turn comes an account is
    /// [`Activity::Queued`].
    pub fn check_all<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) -> usize {
        let asked = self.asked();
        let mut starts: HashMap<*const Host, u32> = HashMap::new();
        let known = addresses.into_iter().filter_map(|address| asked.get(&address.to_lowercase()));
        known
            .map(|account| {
                let before = starts.entry(Arc::as_ptr(&account.host)).or_default();
                account.asks.check(BETWEEN_STARTS.saturating_mul(*before));
                *before = before.saturating_add(1);
            })
            .count()
    }

    /// Stops an account's check that runs, in order, or makes it forget that it waits for one; its next one is a regular
    /// interval away. False when there is nothing to stop: it listens, or does nothing.
    pub fn stop(&self, address: &str) -> bool {
        let address = address.to_lowercase();
        let busy = self.state_of(&address).map(|now| now.activity);
        let is_busy = matches!(busy, Some(Activity::Queued | Activity::Checking));
        is_busy && self.asked().get(&address).inspect(|asked| asked.asks.cut()).is_some()
    }

    /// Stops every account, as [`Scheduler::stop`] does; returns how many had something to stop.
    pub fn stop_all(&self) -> usize {
        let busy = self.snapshot().into_iter().filter(|(_, now)| now.activity != Activity::Idle);
        busy.filter(|(address, _)| self.stop(address)).count()
    }

    /// What an account does; `None` when it is not scheduled.
    pub fn state_of(&self, address: &str) -> Option<AccountNow> {
        self.common.site.board.state_of(address)
    }

    /// What each account does, by address. Some milliseconds for thousands of them.
    pub fn snapshot(&self) -> HashMap<String, AccountNow> {
        self.common.site.board.snapshot()
    }

    /// Runs until `stop` turns true, and takes over each new list of jobs as it comes: unchanged accounts go on as they
    /// are, changed and new ones are checked at once, missing ones end after what they are doing.
    pub async fn run(&self, mut jobs: watch::Receiver<Vec<Job>>, mut stop: watch::Receiver<bool>) {
        let mut running: HashMap<String, Running> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let has_new = jobs.borrow().iter().any(|job| !running.contains_key(job.address()));
            let held = if has_new { self.held().await } else { HashMap::new() };
            self.adjust(&mut running, &mut tasks, &jobs.borrow_and_update(), &held);
            drop(held);
            loop {
                tokio::select! {
                    () = stopped(&mut stop) => {
                        for account in running.values() {
                            account.stop.send_replace(true);
                        }
                        while let Some(ended) = tasks.join_next().await {
                            if let Err(panicked) = ended {
                                error!(%panicked, "an account's task ended in a panic");
                            }
                        }
                        return;
                    }
                    changed = jobs.changed() => {
                        if changed.is_ok() {
                            break;
                        }
                        // Nobody can change the jobs any more.
                        stopped(&mut stop).await;
                    }
                    Some(ended) = tasks.join_next() => {
                        if let Err(panicked) = ended {
                            error!(%panicked, "an account's task ended in a panic");
                        }
                    }
                }
            }
        }
    }

    /// The accounts that are held, read at once for all that begin: one question each would keep the store busy.
    async fn held(&self) -> HashMap<String, Health> {
        match self.common.site.store.accounts().await {
            Ok(rows) => rows
                .into_iter()
                .filter(|row| matches!(row.health.hold, Some(Hold::Login | Hold::Throttled | Hold::Backoff)))
                .map(|row| (row.address, row.health))
                .collect(),
            Err(error) => {
                error!(%error, "cannot read how the accounts are doing");
                HashMap::new()
            }
        }
    }

    fn adjust(
        &self,
        running: &mut HashMap<String, Running>,
        tasks: &mut JoinSet<()>,
        wanted: &[Job],
        held: &HashMap<String, Health>,
    ) {
        let wanted: HashMap<&str, &Job> =
            wanted.iter().filter(|job| job.account.enabled).map(|job| (job.address(), job)).collect();
        self.common.accounts.store(u32::try_from(wanted.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        let goes_on = |address: &str, running: &Running| wanted.get(address).is_some_and(|job| same(job, &running.job));
        let mut ended: HashMap<String, Running> =
            running.extract_if(|address, running| !goes_on(address, running)).collect();
        for account in ended.values() {
            account.stop.send_replace(true);
        }
        let mut asked_of = self.asked();
        asked_of.retain(|address, _| running.contains_key(address));
        for (address, job) in wanted {
            if running.contains_key(address) {
                continue;
            }
            let (stop, stopping) = watch::channel(false);
            let (alive, over) = oneshot::channel();
            let (asks, job) = (Arc::new(Asks::default()), Arc::new(job.clone()));
            let host = self.host(job.account.endpoint.host());
            asked_of.insert(address.to_owned(), Asked { asks: Arc::clone(&asks), host: Arc::clone(&host) });
            running.insert(address.to_owned(), Running { job: Arc::clone(&job), stop, over });
            let before = ended.remove(address);
            let start = match &before {
                // Holds are for what has not changed.
                Some(before) if before.job.account != job.account => Start::AtOnce,
                Some(_) => Start::AsRemembered,
                None => held
                    .get(&address.to_lowercase())
                    .map_or(Start::AtOnce, |health| Start::As(Box::new(health.clone()))),
            };
            let task = Task { common: Arc::clone(&self.common), job, host, asks, stop: stopping };
            tasks.spawn(task.run(before.map(|before| before.over), start, alive));
        }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts();
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        let settings = self.common.settings();
        let host = Arc::new(Host {
            checks: Places::new(settings.limits.per_host.max(1)),
            listening: Places::new(settings.limits.idle_per_host),
            ledger: Ledger::new(name),
        });
        hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Arc<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<String, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a job is the one that runs. Its credential's source is part of the account.
fn same(new: &Job, old: &Job) -> bool {
    let Job { account, credentials: _, route, destination, delivery, recipients, ambiguous, policy, relays } = new;
    *account == old.account
        && *route == old.route
        && *destination == old.destination
        && Arc::ptr_eq(delivery, &old.delivery)
        && *recipients == old.recipients
        && *ambiguous == old.ambiguous
        && *policy == old.policy
        && *relays == old.relays
}

struct Running {
    job: Arc<Job>,
    stop: watch::Sender<bool>,
    /// Cut off when the task has ended.
    over: oneshot::Receiver<()>,
}
