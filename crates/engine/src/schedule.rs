//! Checks accounts for good: one task per account, which sleeps until it is due and then waits for its turn.
//!
//! An account waits first for a place at its host, then connects, and then waits for one of all places, so that a host
//! that hangs keeps only its own accounts waiting.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use connectord_account::Check;
use connectord_mail::UnixTime;
use connectord_store::{Health, Hold};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::host::{Ledger, Met, Try};
use crate::imap::{Kept, Wake};
use crate::run::{Mode, run_keeping, stopped};
use crate::{Cause, Job, Report, Scope, Site, site};

/// While a login is held, how often it is looked whether the credential has changed.
const WATCH_CREDENTIAL: Duration = Duration::from_secs(60);

/// Accounts that connect and log in at once, besides those that retrieve.
const CONNECTING: usize = 256;

/// An account that has not been let in for so long gives its place among those that connect to the next.
const SLOW: Duration = Duration::from_secs(1);

/// Accounts that connect for longer than that, besides: most of them wait for name servers, or for hosts that are silent.
const CONNECTING_SLOWLY: usize = 1024;

/// No account is checked again sooner, except when asked or woken.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// The longest hold that is ever set: a day, and the jitter.
const LONGEST_HOLD: Duration = Duration::from_secs(2 * 86_400);

/// When somebody else is checking the account: it is due again soon after.
const WHILE_BUSY: Duration = Duration::from_secs(10);

/// After a listening connection was lost.
const AFTER_LOSS: Duration = Duration::from_secs(15);

/// How often an account that is held looks whether its host's other accounts are refused too.
const LOOK_AT_HOST: Duration = Duration::from_secs(60);

/// After a check panicked.
const AFTER_PANIC: Duration = Duration::from_secs(300);

const DAY_MINUTES: u16 = 1440;

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
    quiet: Option<Quiet>,
    places: Arc<Semaphore>,
    /// Connections being made, those places aside: far below what a process may have open.
    connecting: Arc<Semaphore>,
    /// Those of them that take long.
    slow: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    asked: Mutex<HashMap<String, Arc<Notify>>>,
}

struct Host {
    checks: Arc<Semaphore>,
    listening: Arc<Semaphore>,
    /// What its accounts tell about it.
    ledger: Ledger,
}

impl Scheduler {
    /// With nothing to do yet.
    pub fn new(site: Arc<Site>, limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.concurrency.max(1)));
        let connecting = Arc::new(Semaphore::new(CONNECTING));
        let slow = Arc::new(Semaphore::new(CONNECTING_SLOWLY));
        Self { site, limits, quiet: None, places, connecting, slow, hosts: Mutex::default(), asked: Mutex::default() }
    }

    /// Nothing is checked regularly from one minute of the day to another (0 to 1439, the second not part of it; it may
    /// be over midnight). Whoever asks is served, and open connections listen. `minute_of_day` says what minute it is
    /// here; it must return at once.
    #[must_use]
    pub fn with_quiet_hours(
        mut self,
        from_minute: u16,
        to_minute: u16,
        minute_of_day: impl Fn(UnixTime) -> u16 + Send + Sync + 'static,
    ) -> Self {
        self.quiet = Some(Quiet { from_minute, to_minute, minute_of_day: Arc::new(minute_of_day) });
        self
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

    fn adjust(&self, running: &mut HashMap<String, Running>, tasks: &mut JoinSet<()>, wanted: &[Job]) {
        let wanted: HashMap<&str, &Job> =
            wanted.iter().filter(|job| job.account.enabled).map(|job| (job.address(), job)).collect();
        let mut ended: HashMap<String, Running> = HashMap::new();
        for address in running.keys().cloned().collect::<Vec<_>>() {
            if wanted.get(address.as_str()).is_some_and(|job| same(job, &running[&address].job)) {
                continue;
            }
            if let Some(account) = running.remove(&address) {
                account.stop.send_replace(true);
                ended.insert(address, account);
            }
        }
        let mut asked_of = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked_of.retain(|address, _| running.contains_key(address));
        for (address, job) in wanted {
            if running.contains_key(address) {
                continue;
            }
            let (stop, stopping) = watch::channel(false);
            let (alive, over) = oneshot::channel();
            let asked = Arc::new(Notify::new());
            asked_of.insert(address.to_owned(), Arc::clone(&asked));
            running.insert(address.to_owned(), Running { job: job.clone(), stop, over });
            let before = ended.remove(address);
            let task = Task {
                site: Arc::clone(&self.site),
                job: job.clone(),
                host: self.host(job.account.endpoint.host()),
                places: Arc::clone(&self.places),
                connecting: Arc::clone(&self.connecting),
                slow: Arc::clone(&self.slow),
                quiet: self.quiet.clone(),
                jitter: self.limits.jitter,
                // Holds are for what has not changed.
                heeds_holds: before.as_ref().is_none_or(|before| before.job.account == job.account),
                asked,
                stop: stopping,
            };
            tasks.spawn(async move {
                let _alive = alive;
                if let Some(before) = before {
                    // The same account under its old configuration ends first; the error is its end.
                    let _ = before.over.await;
                }
                task.run().await;
            });
        }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Host {
                checks: Arc::new(Semaphore::new(self.limits.per_host.max(1))),
                listening: Arc::new(Semaphore::new(self.limits.idle_per_host)),
                ledger: Ledger::new(name),
            })
        });
        Arc::clone(host)
    }
}

/// Whether a job is the one that runs. Its credential's source is part of the account.
fn same(new: &Job, old: &Job) -> bool {
    let Job { account, credentials: _, route, destination, delivery, recipients, ambiguous } = new;
    *account == old.account
        && *route == old.route
        && *destination == old.destination
        && Arc::ptr_eq(delivery, &old.delivery)
        && *recipients == old.recipients
        && *ambiguous == old.ambiguous
}

struct Running {
    job: Job,
    stop: watch::Sender<bool>,
    /// Cut off when the task has ended.
    over: oneshot::Receiver<()>,
}

/// A part of the day in which nothing is checked regularly.
#[derive(Clone)]
struct Quiet {
    from_minute: u16,
    to_minute: u16,
    minute_of_day: Arc<dyn Fn(UnixTime) -> u16 + Send + Sync>,
}

impl Quiet {
    /// How long it is quiet yet; zero when it is not.
    fn left(&self, now: UnixTime) -> Duration {
        let minute = (self.minute_of_day)(now) % DAY_MINUTES;
        let since_begin = (minute + DAY_MINUTES - self.from_minute % DAY_MINUTES) % DAY_MINUTES;
        let length = (self.to_minute % DAY_MINUTES + DAY_MINUTES - self.from_minute % DAY_MINUTES) % DAY_MINUTES;
        Duration::from_secs(60 * u64::from(length.saturating_sub(since_begin)))
    }
}

/// The places that one check takes: one at its host from the beginning, and one among all that retrieve as soon as the
/// server has let it in. Until then it has one among those that connect, so that servers that do not answer keep
/// nobody else from retrieving.
#[derive(Default)]
pub(crate) struct Turn {
    places: Option<Arc<Semaphore>>,
    _host: Option<OwnedSemaphorePermit>,
    place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Turn {
    pub(crate) async fn take_place(&self) {
        let held = || self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(places) = &self.places else { return };
        if self.retrieves() {
            return;
        }
        let place = Arc::clone(places).acquire_owned().await;
        *held() = Some(place.expect("the semaphore is never closed"));
    }

    /// Lets another account have the place among those that retrieve; the one at the host stays.
    pub(crate) fn give_back(&self) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the place that is held is one of those that retrieve.
    fn retrieves(&self) -> bool {
        let held = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*held, &self.places) {
            (Some(held), Some(places)) => Arc::ptr_eq(held.semaphore(), places),
            _ => false,
        }
    }
}

/// One account, for good.
struct Task {
    site: Arc<Site>,
    job: Job,
    host: Arc<Host>,
    places: Arc<Semaphore>,
    connecting: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    quiet: Option<Quiet>,
    jitter: f64,
    heeds_holds: bool,
    asked: Arc<Notify>,
    stop: watch::Receiver<bool>,
}

impl Task {
    /// Runs; a panic in a check is not the end of the account.
    async fn run(self) {
        let task = Arc::new(self);
        let mut stop = task.stop.clone();
        while let Err(panicked) = tokio::spawn(Self::checks(Arc::clone(&task))).await {
            error!(account = task.job.address(), %panicked, "a check ended in a panic");
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = tokio::time::sleep(AFTER_PANIC) => {}
            }
        }
        task.host.ledger.forget(task.job.address());
    }

    /// A stop cuts waits short; a check in progress hears of it itself and ends in order.
    async fn checks(self: Arc<Self>) {
        let mut kept: Option<Kept> = None;
        let mut listening: Option<OwnedSemaphorePermit> = None;
        // Left-over holds from before the start are kept; everything else is due at once.
        let mut releases = self.host.ledger.releases();
        let (mut wait, mut met) = self.wait_after_start().await;
        loop {
            let by_hand = match self.wait_for_turn(wait, met, &mut releases, &mut kept).await {
                Wanted::Due => false,
                Wanted::Asked => true,
                Wanted::Stopped => return,
            };
            let quiet = self.quiet.as_ref().map_or(Duration::ZERO, |quiet| quiet.left(self.site.clock.now()));
            if !by_hand && kept.is_none() && !quiet.is_zero() {
                wait = quiet;
                continue;
            }
            let Some(turn) = self.turn().await else { return };
            // Somebody who gets in while this check fails releases this account too.
            releases.mark_unchanged();
            let mode = Mode { by_hand, dry_run: false };
            let aside = self.step_aside(Arc::downgrade(&turn.place));
            let check = run_keeping(&self.site, &self.job, mode, self.stop.clone(), turn, Some(&mut kept));
            let report = tokio::select! {
                report = check => report,
                never = aside => match never {},
            };
            if *self.stop.borrow() {
                return;
            }
            met = met_host(&report);
            self.host.ledger.met(self.job.address(), met, self.site.clock.now());
            if kept.is_some() && listening.is_none() {
                listening = Arc::clone(&self.host.listening).try_acquire_owned().ok();
                if listening.is_none() {
                    info!(
                        account = self.job.address(),
                        "enough accounts listen at this host; this one is checked regularly"
                    );
                    kept = None;
                }
            }
            if kept.is_none() {
                listening = None;
            }
            wait = self.wait_after(&report);
        }
    }

    /// Waits for a place at the host and one among those that connect; nothing when it is to stop.
    async fn turn(&self) -> Option<Turn> {
        let mut stop = self.stop.clone();
        let turn = async {
            let host = Arc::clone(&self.host.checks).acquire_owned().await.ok();
            let place = Arc::clone(&self.connecting).acquire_owned().await.ok();
            Turn { places: Some(Arc::clone(&self.places)), _host: host, place: Arc::new(Mutex::new(place)) }
        };
        tokio::select! {
            biased;
            () = stopped(&mut stop) => None,
            turn = turn => Some(turn),
        }
    }

    /// After a while without being let in, the place among those that connect goes to the next account: many hosts that
    /// are silent, or names that hang in the resolver, would have all of them for the whole time to connect.
    async fn step_aside(&self, place: Weak<Mutex<Option<OwnedSemaphorePermit>>>) -> Infallible {
        tokio::time::sleep(SLOW).await;
        let slow = Arc::clone(&self.slow).acquire_owned().await;
        if let (Ok(slow), Some(place)) = (slow, place.upgrade()) {
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            if place.as_ref().is_some_and(|held| Arc::ptr_eq(held.semaphore(), &self.connecting)) {
                *place = Some(slow);
            }
        }
        std::future::pending().await
    }

    async fn health(&self) -> Health {
        match self.site.store.open_account(self.job.address()).await {
            Ok(row) => row.health,
            Err(error) => {
                error!(account = self.job.address(), %error, "cannot read how the account is doing");
                Health::default()
            }
        }
    }

    async fn wait_after_start(&self) -> (Duration, Met) {
        if self.job.account.check == Check::Never {
            return (Duration::MAX, Met::Unknown);
        }
        if !self.heeds_holds {
            return (Duration::ZERO, Met::Unknown);
        }
        let health = self.health().await;
        let mut met = Met::Unknown;
        if let (Some(Hold::Login), Some(last)) = (health.hold, health.last_check) {
            met = Met::Refused;
            self.host.ledger.met(self.job.address(), met, last);
        }
        let wait = match (health.hold, health.next_check) {
            (Some(Hold::Login | Hold::Throttled | Hold::Backoff), Some(next)) => {
                let wait = next.since(self.site.clock.now());
                // No hold is longer: the clock was wrong when it was noted, or is now.
                if wait > LONGEST_HOLD { Duration::ZERO } else { wait }
            }
            _ => Duration::ZERO,
        };
        (wait, met)
    }

    /// By a clock that does not jump.
    fn wait_after(&self, report: &Report) -> Duration {
        if self.job.account.check == Check::Never {
            return Duration::MAX;
        }
        let wait = report.next_check.unwrap_or(WHILE_BUSY).max(SHORTEST_WAIT);
        let share = (site::random() >> 11) as f64 / (1u64 << 53) as f64;
        wait.saturating_add(wait.min(LONGEST_HOLD).mul_f64(self.jitter.clamp(0.0, 1.0) * share))
    }

    async fn wait_for_turn(
        &self,
        wait: Duration,
        met: Met,
        releases: &mut watch::Receiver<u64>,
        kept: &mut Option<Kept>,
    ) -> Wanted {
        let mut wait = wait;
        if let Some(connection) = kept {
            match connection.wait(&self.site, &self.job, &self.asked, &self.stop).await {
                Wake::Changed | Wake::Poll => return Wanted::Due,
                Wake::Asked => return Wanted::Asked,
                Wake::Stopped => return Wanted::Stopped,
                Wake::Lost => {
                    // A server that ends each connection at once is not to be connected to again and again.
                    *kept = None;
                    wait = AFTER_LOSS.mul_f64(1.0 + self.jitter.clamp(0.0, 1.0));
                }
            }
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => Wanted::Stopped,
            () = self.asked.notified() => Wanted::Asked,
            () = self.due(wait, met, releases) => Wanted::Due,
            () = self.credential_changes() => Wanted::Due,
        }
    }

    /// Resolves when an account may be checked that last met its host so: after `wait`, or as the host's other accounts
    /// find out.
    async fn due(&self, wait: Duration, met: Met, releases: &mut watch::Receiver<u64>) {
        if self.job.account.check == Check::Never || !matches!(met, Met::Refused | Met::Down) {
            return sleep(wait).await;
        }
        let ledger = &self.host.ledger;
        let own = tokio::time::Instant::now() + wait.min(LONGEST_HOLD);
        loop {
            let look = tokio::time::Instant::now() + LOOK_AT_HOST;
            let until = match met {
                Met::Refused => match ledger.may_try(self.job.address(), self.site.clock.now()) {
                    Try::Now => return,
                    Try::Wait(wait) => look.min(tokio::time::Instant::now() + wait.max(SHORTEST_WAIT)),
                    Try::Own => look.min(own),
                },
                _ => own,
            };
            tokio::select! {
                _ = releases.changed() => return,
                () = tokio::time::sleep_until(until) => {}
            }
            let follows = met == Met::Refused && ledger.refuses_all();
            if !follows && tokio::time::Instant::now() >= own {
                return;
            }
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

/// What a check tells about the host.
fn met_host(report: &Report) -> Met {
    let Some(error) = &report.error else { return Met::LetIn };
    let trouble = error.trouble();
    match trouble.cause {
        Cause::LoginRefused => Met::Refused,
        _ if trouble.scope == Scope::Host => Met::Down,
        _ => Met::Unknown,
    }
}

async fn sleep(wait: Duration) {
    // Longer sleeps than the timer takes are for ever.
    if wait > Duration::from_secs(365 * 86_400) {
        return std::future::pending().await;
    }
    tokio::time::sleep(wait).await;
}

enum Wanted {
    Due,
    Asked,
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(from_minute: u16, to_minute: u16, minute: u16) -> u64 {
        let quiet = Quiet { from_minute, to_minute, minute_of_day: Arc::new(move |_| minute) };
        quiet.left(UnixTime(0)).as_secs() / 60
    }

    #[test]
    fn quiet_hours_may_go_over_midnight() {
        assert_eq!([1319, 1320, 1439, 0, 359, 360].map(|minute| left(1320, 360, minute)), [0, 480, 361, 360, 1, 0]);
        assert_eq!([59, 60, 119, 120].map(|minute| left(60, 120, minute)), [0, 60, 1, 0]);
    }
}
