//! Checks accounts for good: one task per account, which sleeps until it is due and then waits for its turn.
//!
//! An account waits first for a place at its host and then for one of all places, so that a host that hangs keeps only
//! its own accounts waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connectord_account::{Account, Check};
use connectord_store::{Health, Hold};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::imap::{Kept, Wake};
use crate::run::{Mode, run_keeping, stopped};
use crate::{Job, Site, site};

/// While a login is held, how often it is looked whether the credential has changed.
const WATCH_CREDENTIAL: Duration = Duration::from_secs(60);

/// How many checks run at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// In all; default 20, at least 1.
    pub concurrency: usize,
    /// At one host; default 4, at least 1.
    pub per_host: usize,
    /// Accounts of one host that listen (IDLE) at once; further ones are checked regularly instead. Default 10.
    pub idle_per_host: usize,
    /// Share of the interval by which a check comes later at random, so that accounts do not come in step; default 0.1.
    pub jitter: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 20, per_host: 4, idle_per_host: 10, jitter: 0.1 }
    }
}

/// Checks accounts regularly, and at once after the start, a change of their configuration, or when asked.
pub struct Scheduler {
    site: Arc<Site>,
    limits: Limits,
    places: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    asked: Mutex<HashMap<String, Arc<Notify>>>,
}

struct Host {
    checks: Arc<Semaphore>,
    listening: Arc<Semaphore>,
}

impl Scheduler {
    /// With nothing to do yet.
    pub fn new(site: Arc<Site>, limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.concurrency.max(1)));
        Self { site, limits, places, hosts: Mutex::default(), asked: Mutex::default() }
    }

    /// Wants an account checked now. False when it is not scheduled.
    pub fn check_now(&self, address: &str) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&address.to_lowercase()).inspect(|asked| asked.notify_one()).is_some()
    }

    /// Runs until `stop` turns true, and takes over each new list of jobs as it comes: unchanged accounts go on as they
    /// are, changed and new ones are checked at once, missing ones end after what they are doing.
    pub async fn run(&self, mut jobs: watch::Receiver<Vec<Job>>, mut stop: watch::Receiver<bool>) {
        let mut running: HashMap<String, Running> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let wanted = jobs.borrow_and_update().clone();
            self.adjust(&mut running, &mut tasks, &wanted);
            loop {
                tokio::select! {
                    () = stopped(&mut stop) => {
                        for account in running.values() {
                            account.stop.send_replace(true);
                        }
                        while let Some(ended) = tasks.join_next().await {
                            if let Err(panicked) = ended {
                                error!(%panicked, "a check ended in a panic");
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
                            error!(%panicked, "a check ended in a panic");
                        }
                    }
                }
            }
        }
    }

    fn adjust(&self, running: &mut HashMap<String, Running>, tasks: &mut JoinSet<()>, wanted: &[Job]) {
        let wanted: HashMap<&str, &Job> = wanted.iter().filter(|job| job.account.enabled).map(|job| (job.address(), job)).collect();
        running.retain(|address, account| {
            let stays = wanted.get(address.as_str()).is_some_and(|job| *job.account == *account.account);
            if !stays {
                account.stop.send_replace(true);
            }
            stays
        });
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| running.contains_key(address));
        for (address, job) in wanted {
            if running.contains_key(address) {
                continue;
            }
            let (stop, stopping) = watch::channel(false);
            let asked = Arc::new(Notify::new());
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(address.to_owned(), Arc::clone(&asked));
            running.insert(address.to_owned(), Running { account: Arc::clone(&job.account), stop });
            let host = self.host(job.account.endpoint.host());
            let task = Task {
                site: Arc::clone(&self.site),
                job: job.clone(),
                host,
                places: Arc::clone(&self.places),
                jitter: self.limits.jitter,
                asked,
                stop: stopping,
            };
            tasks.spawn(task.run());
        }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Host {
                checks: Arc::new(Semaphore::new(self.limits.per_host.max(1))),
                listening: Arc::new(Semaphore::new(self.limits.idle_per_host)),
            })
        });
        Arc::clone(host)
    }
}

struct Running {
    account: Arc<Account>,
    stop: watch::Sender<bool>,
}

/// One account, for good.
struct Task {
    site: Arc<Site>,
    job: Job,
    host: Arc<Host>,
    places: Arc<Semaphore>,
    jitter: f64,
    asked: Arc<Notify>,
    stop: watch::Receiver<bool>,
}

impl Task {
    /// A stop cuts waits short; a check in progress hears of it itself and ends in order.
    async fn run(self) {
        let mut kept: Option<Kept> = None;
        let mut listening: Option<OwnedSemaphorePermit> = None;
        // Left-over holds from before the start are kept; everything else is due at once.
        let mut wait = self.wait_after_start().await;
        loop {
            let by_hand = match self.wait_for_turn(wait, &mut kept).await {
                Turn::Due => false,
                Turn::Asked => true,
                Turn::Stopped => return,
            };
            let places = async {
                let host = Arc::clone(&self.host.checks).acquire_owned().await;
                let place = Arc::clone(&self.places).acquire_owned().await;
                (host, place)
            };
            let mut stop = self.stop.clone();
            let places = tokio::select! {
                places = places => places,
                () = stopped(&mut stop) => return,
            };
            let mode = Mode { by_hand, dry_run: false };
            // By hand over a kept connection would close it: a listening account is checked as if it were due.
            let mode = if self.job.account.check == Check::Idle { Mode::default() } else { mode };
            run_keeping(&self.site, &self.job, mode, self.stop.clone(), &mut kept).await;
            drop(places);
            if *self.stop.borrow() {
                return;
            }
            if kept.is_some() && listening.is_none() {
                listening = Arc::clone(&self.host.listening).try_acquire_owned().ok();
                if listening.is_none() {
                    info!(account = self.job.address(), "enough accounts listen at this host; this one is checked regularly");
                    kept = None;
                }
            }
            if kept.is_none() {
                listening = None;
            }
            wait = self.wait_after_check().await;
        }
    }

    async fn health(&self) -> Health {
        match self.site.store.open_account(self.job.address()).await {
            Ok(row) => row.health,
            Err(error) => {
                error!(account = self.job.address(), %error, "cannot read how the account is doing");
                Health { next_check: Some(self.site.clock.now().plus(Duration::from_secs(60))), ..Health::default() }
            }
        }
    }

    async fn wait_after_start(&self) -> Duration {
        if self.job.account.check == Check::Never {
            return Duration::MAX;
        }
        let health = self.health().await;
        match (health.hold, health.next_check) {
            (Some(Hold::Login | Hold::Throttled | Hold::Backoff), Some(next)) => next.since(self.site.clock.now()),
            _ => Duration::ZERO,
        }
    }

    async fn wait_after_check(&self) -> Duration {
        if self.job.account.check == Check::Never {
            return Duration::MAX;
        }
        let now = self.site.clock.now();
        let wait = self.health().await.next_check.map_or(Duration::from_secs(60), |next| next.since(now));
        let share = (site::random() >> 11) as f64 / (1u64 << 53) as f64;
        wait + wait.mul_f64(self.jitter.clamp(0.0, 1.0) * share)
    }

    async fn wait_for_turn(&self, wait: Duration, kept: &mut Option<Kept>) -> Turn {
        if let Some(connection) = kept {
            let wake = connection.wait(&self.site, &self.job, &self.asked, &self.stop).await;
            if wake == Wake::Lost {
                *kept = None;
            }
            return if wake == Wake::Stopped { Turn::Stopped } else { Turn::Due };
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            () = stopped(&mut stop) => Turn::Stopped,
            () = self.asked.notified() => Turn::Asked,
            () = self.credential_changes() => Turn::Due,
            () = sleep(wait) => Turn::Due,
        }
    }

    /// While logins are held: resolves when there is another credential than the one that was refused.
    async fn credential_changes(&self) {
        let health = self.health().await;
        let (Some(Hold::Login), Some(refused)) = (health.hold, health.refused_credential) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(WATCH_CREDENTIAL).await;
            if self.job.credentials.version().await.is_some_and(|version| version != refused) {
                info!(account = self.job.address(), "the credential has changed; the login is tried again");
                return;
            }
        }
    }
}

async fn sleep(wait: Duration) {
    // Longer sleeps than the timer takes are for ever.
    if wait > Duration::from_secs(365 * 86_400) {
        return std::future::pending().await;
    }
    tokio::time::sleep(wait).await;
}

enum Turn {
    Due,
    Asked,
    Stopped,
}
