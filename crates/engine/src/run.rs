//! One check of one account, from the lease to the log line.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use connectord_account::{Check, Protocol, Rules};
use connectord_delivery::{Presence, Recipient};
use connectord_mail::UnixTime;
use connectord_store::{AccountRow, DeliveryRow, Health, Lease, MessageRef, RunRow};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::imap::Kept;
use crate::recover::recover;
use crate::trouble::{Exit, RunError, after_failure};
use crate::{Job, Progress, Site, imap, log, pop3, site};

/// How a check is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// By hand: holds, back-off and waits are passed over.
    pub by_hand: bool,
    /// Say what would be retrieved and removed, and change nothing.
    pub dry_run: bool,
}

/// How a check went.
#[derive(Debug, Default)]
pub struct Report {
    /// Messages listed.
    pub listed: u64,
    /// Messages that were to be retrieved.
    pub new: u64,
    /// Messages that were to be removed.
    pub due: u64,
    /// Messages retrieved whole.
    pub retrieved: u64,
    /// Octets of bodies retrieved.
    pub octets: u64,
    /// Deliveries that succeeded, one for each recipient.
    pub delivered: u64,
    /// Deliveries and retrievals put off.
    pub deferred: u64,
    /// Messages parked.
    pub parked: u64,
    /// Remote copies removed, by the server's word.
    pub removed: u64,
    /// How long it took.
    pub duration: Duration,
    /// What ended it, when it did not end well.
    pub error: Option<RunError>,
}

impl Report {
    /// What a one-shot command ends with.
    pub fn exit(&self) -> Exit {
        let parked = if self.parked > 0 { Exit::Data } else { Exit::Ok };
        let deferred = if self.deferred > 0 { Exit::TempFail } else { Exit::Ok };
        let ended = self.error.as_ref().map_or(Exit::Ok, |error| error.trouble().exit);
        parked.worst(deferred).worst(ended)
    }
}

/// Counts what happens; shared by retrieval and delivery.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    listed: AtomicU64,
    new: AtomicU64,
    due: AtomicU64,
    retrieved: AtomicU64,
    octets: AtomicU64,
    delivered: AtomicU64,
    deferred: AtomicU64,
    parked: AtomicU64,
    removed: AtomicU64,
}

impl Tally {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn listed(&self, run: &Run<'_>, mailbox: &str, messages: u64, new: u64, removals: u64) {
        Self::add(&self.listed, messages);
        Self::add(&self.new, new);
        Self::add(&self.due, removals);
        run.tell(Progress::Listed { mailbox, messages, new, removals });
    }

    pub(crate) fn octets(&self, run: &Run<'_>, octets: u64) {
        Self::add(&self.octets, octets);
        run.tell(Progress::Octets(octets));
    }

    pub(crate) fn retrieved(&self, run: &Run<'_>) {
        Self::add(&self.retrieved, 1);
        run.tell(Progress::Retrieved);
    }

    pub(crate) fn delivered(&self, _run: &Run<'_>) {
        Self::add(&self.delivered, 1);
    }

    pub(crate) fn deferred(&self, run: &Run<'_>) {
        Self::add(&self.deferred, 1);
        run.tell(Progress::Deferred);
    }

    pub(crate) fn parked(&self, run: &Run<'_>, reason: &str) {
        Self::add(&self.parked, 1);
        warn!(account = run.job.address(), server = run.server, reason, "message parked; the remote copy stays");
        run.tell(Progress::Parked);
    }

    pub(crate) fn removed(&self, run: &Run<'_>, count: u64) {
        Self::add(&self.removed, count);
        run.tell(Progress::Removed(count));
    }

    fn report(self, duration: Duration, error: Option<RunError>) -> Report {
        Report {
            listed: self.listed.into_inner(),
            new: self.new.into_inner(),
            due: self.due.into_inner(),
            retrieved: self.retrieved.into_inner(),
            octets: self.octets.into_inner(),
            delivered: self.delivered.into_inner(),
            deferred: self.deferred.into_inner(),
            parked: self.parked.into_inner(),
            removed: self.removed.into_inner(),
            duration,
            error,
        }
    }
}

/// What every part of a check needs.
pub(crate) struct Run<'a> {
    pub(crate) site: &'a Site,
    pub(crate) job: &'a Job,
    pub(crate) lease: &'a Lease,
    pub(crate) mode: Mode,
    pub(crate) account: &'a AccountRow,
    pub(crate) server: String,
    pub(crate) removals_allowed: bool,
    pub(crate) tally: &'a Tally,
    pub(crate) stop: watch::Receiver<bool>,
    unfinished: HashMap<MessageRef, Vec<DeliveryRow>>,
}

impl Run<'_> {
    pub(crate) fn tell(&self, progress: Progress<'_>) {
        self.site.observer.progress(self.job.address(), progress);
    }

    /// What is known of an unfinished delivery.
    pub(crate) fn known_delivery(&self, message: MessageRef, recipient: &Recipient) -> Option<&DeliveryRow> {
        let rows = self.unfinished.get(&message)?;
        rows.iter().find(|row| row.recipient.user == recipient.user && row.destination == self.job.destination)
    }

    /// What decides about the messages of this account.
    pub(crate) fn rules(&self) -> Rules {
        let account = &self.job.account;
        Rules {
            retention: account.retention,
            max_message_octets: account.max_message_octets,
            oversize: account.oversize,
            ignore_waits: self.mode.by_hand,
            keys_recur: false,
            removals_allowed: self.removals_allowed,
        }
    }

    /// Waits for `future`, unless we are told to stop.
    pub(crate) async fn or_stop<T, E>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, RunError>
    where
        RunError: From<E>,
    {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => Err(RunError::Stopped),
            result = future => Ok(result?),
        }
    }
}

/// Resolves when the switch is on, and never when nobody holds the switch any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Checks one account once.
///
/// Never fails: what went wrong is in the report, remembered in the store and logged. When `stop` turns true the
/// retrieval ends, what was retrieved whole is delivered and settled, and the report says [`RunError::Stopped`].
pub async fn run(site: &Site, job: &Job, mode: Mode, stop: watch::Receiver<bool>) -> Report {
    run_keeping(site, job, mode, stop, &mut None).await
}

/// As [`run`], over the connection in `kept` if there is one, and leaving it there for an account that listens.
pub(crate) async fn run_keeping(
    site: &Site,
    job: &Job,
    mode: Mode,
    stop: watch::Receiver<bool>,
    kept: &mut Option<Kept>,
) -> Report {
    let began = Instant::now();
    let tally = Tally::default();
    let started = site.clock.now();
    let result = leased(site, job, mode, stop, &tally, kept, started).await;
    let report = match result {
        Ok((lease, account, result)) => {
            let report = tally.report(began.elapsed(), result.err());
            if !mode.dry_run {
                remember(site, job, &lease, &account.health, &report, started).await;
            }
            report
        }
        Err(error) => tally.report(began.elapsed(), Some(error)),
    };
    log::run(job.address(), &job.server(), &report);
    site.observer.progress(job.address(), Progress::Finished(&report));
    report
}

async fn leased(
    site: &Site,
    job: &Job,
    mode: Mode,
    stop: watch::Receiver<bool>,
    tally: &Tally,
    kept: &mut Option<Kept>,
    now: UnixTime,
) -> Result<(Lease, AccountRow, Result<(), RunError>), RunError> {
    let account = site.store.open_account(job.address()).await?;
    let lease = site.store.lease(account.id).await?;
    let result = checked(site, job, mode, stop, tally, kept, now, &lease, &account).await;
    Ok((lease, account, result))
}

#[allow(clippy::too_many_arguments, reason = "one caller, above")]
async fn checked(
    site: &Site,
    job: &Job,
    mode: Mode,
    stop: watch::Receiver<bool>,
    tally: &Tally,
    kept: &mut Option<Kept>,
    now: UnixTime,
    lease: &Lease,
    account: &AccountRow,
) -> Result<(), RunError> {
    users_exist(site, job).await?;
    for recipient in &job.recipients {
        let room = job.delivery.room(recipient).await;
        room.map_err(|failure| RunError::Destination { destination: job.delivery.describe(), failure })?;
    }
    let mut run = Run {
        site,
        job,
        lease,
        mode,
        account,
        server: job.server(),
        removals_allowed: clock_is_believed(&account.health, now),
        tally,
        stop,
        unfinished: HashMap::new(),
    };
    let mut rows = site.store.unfinished(account.id).await?;
    if !mode.dry_run && recover(&run, &rows).await? {
        rows = site.store.unfinished(account.id).await?;
    }
    for row in rows {
        run.unfinished.entry(row.message).or_default().push(row);
    }
    match job.account.protocol {
        Protocol::Pop3 => pop3::check(&run).await,
        Protocol::Imap => imap::check(&run, kept).await,
    }
}

/// Every local user of the account must exist: else it is held, nothing is fetched or removed, nobody else gets its mail.
async fn users_exist(site: &Site, job: &Job) -> Result<(), RunError> {
    for recipient in &job.recipients {
        let destination = || job.delivery.describe();
        let failed = |failure| RunError::Destination { destination: destination(), failure };
        let presence = match site.users.presence(&recipient.user).await.map_err(failed)? {
            Some(presence) => presence,
            None => job.delivery.presence(recipient).await.map_err(failed)?,
        };
        if let Presence::Absent(reason) = presence {
            return Err(RunError::UserGone { user: recipient.user.clone(), reason });
        }
    }
    Ok(())
}

/// After a jump of more than a day since the last check, removals wait for a second check that confirms the clock.
fn clock_is_believed(health: &Health, now: UnixTime) -> bool {
    match health.last_check {
        Some(last) if now < last => false,
        Some(last) if now.since(last) > Duration::from_secs(86_400) => {
            health.clock_jump.is_some_and(|seen| now >= seen)
        }
        _ => true,
    }
}

/// Writes down how it went. A failure to do so is logged: the check itself is over.
async fn remember(site: &Site, job: &Job, lease: &Lease, before: &Health, report: &Report, started: UnixTime) {
    let now = site.clock.now();
    let regular = match job.account.check {
        Check::Every(span) => span,
        Check::Idle | Check::Never => Duration::from_secs(30 * 60),
    };
    let jumped = before.last_check.is_some_and(|last| started.since(last) > Duration::from_secs(86_400));
    let clock_jump = (jumped && before.clock_jump.is_none()).then_some(started);
    let health = match &report.error {
        None => Health {
            last_ok: Some(now),
            last_check: Some(now),
            next_check: Some(now.plus(regular)),
            ..Health::default()
        },
        Some(error) => {
            let mut health = after_failure(before, error, now, regular, site::random());
            if matches!(error, RunError::Login { .. } | RunError::NoMechanism { .. }) {
                health.refused_credential = job.credentials.version().await;
            }
            health
        }
    };
    let health = Health { clock_jump, ..health };
    let row = RunRow {
        started,
        duration_ms: u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
        listed: report.listed,
        retrieved: report.retrieved,
        octets: report.octets,
        delivered: report.delivered,
        deferred: report.deferred,
        parked: report.parked,
        removed: report.removed,
        error: report.error.as_ref().map(ToString::to_string),
    };
    let written = async {
        site.store.record_health(lease, &health).await?;
        site.store.record_run(lease, &row).await
    };
    if let Err(problem) = written.await {
        error!(account = job.address(), %problem, "cannot remember how the check went");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_clock_is_believed_the_second_time() {
        let day = 86_400;
        let at = |last, jump| Health { last_check: Some(UnixTime(last)), clock_jump: jump, ..Health::default() };
        assert!(clock_is_believed(&Health::default(), UnixTime(0)));
        assert!(clock_is_believed(&at(0, None), UnixTime(day)));
        assert!(!clock_is_believed(&at(0, None), UnixTime(day + 1)));
        assert!(clock_is_believed(&at(0, Some(UnixTime(day))), UnixTime(2 * day)));
        assert!(!clock_is_believed(&at(day, None), UnixTime(day - 1)));
    }
}
