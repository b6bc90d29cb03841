//! One check of one account, from the lease to the log line.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use connectord_account::{Check, Protocol, Rules, State};
use connectord_delivery::{Failure, FailureKind, Presence};
use connectord_filter::{History, OnFailure};
use connectord_mail::UnixTime;
use connectord_net::Route;
use connectord_store::{
    AccountRow, DeliveryRow, Health, Lease, MailboxId, MailboxRow, MessageRef, ParkedRow, RunRow, Step, StoreError,
};
use tokio::sync::watch;
use tracing::error;

use crate::imap::Kept;
use crate::recover::recover;
use crate::schedule::{Another, Turn};
use crate::tally::Tally;
use crate::trail::Place;
use crate::trouble::{Exit, RunError, Wait, after_failure, patience};
use crate::{Change, Job, Progress, Site, imap, log, pop3, site};

/// How soon an account is checked again whose state cannot be written: its failures cannot be counted.
const WITHOUT_STATE: Duration = Duration::from_secs(300);

/// How long a step of a delivery takes before the check is not counted among those that retrieve.
const SLOW_DELIVERY: Duration = Duration::from_secs(5);

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
    /// Deliveries made again though an earlier attempt may have arrived: possible duplicates.
    pub repeated: u64,
    /// Messages kept back in the quarantine.
    pub quarantined: u64,
    /// Messages discarded because the configuration says so.
    pub discarded: u64,
    /// Messages that are delivered though a filter did not look at them.
    pub unchecked: u64,
    /// Messages found to be spam, whatever became of them.
    pub spam: u64,
    /// Mailboxes of which very many messages changed at once.
    pub changes: Vec<Change>,
    /// How long it took.
    pub duration: Duration,
    /// What ended it, when it did not end well.
    pub error: Option<RunError>,
    /// When the account is to be checked again; `None` when somebody else is checking it now.
    pub next_check: Option<Duration>,
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

/// What every part of a check needs.
pub(crate) struct Run<'a> {
    pub(crate) site: &'a Site,
    pub(crate) job: &'a Job,
    pub(crate) lease: &'a Lease,
    pub(crate) mode: Mode,
    pub(crate) account: &'a AccountRow,
    pub(crate) server: String,
    /// When the check began. What is due is decided by this time, which was compared with the last check's: a clock that
    /// jumps in the middle changes nothing.
    pub(crate) now: UnixTime,
    pub(crate) removals_allowed: bool,
    pub(crate) tally: &'a Tally,
    pub(crate) stop: watch::Receiver<bool>,
    unfinished: Mutex<HashMap<MessageRef, Vec<DeliveryRow>>>,
    /// Messages that a person wants removed though not everybody has them.
    discards: Mutex<HashMap<MessageRef, ParkedRow>>,
    /// How often filters put messages off, or failed at them.
    histories: Mutex<HashMap<MessageRef, History>>,
    /// Recipients whose mailbox is full, while others of the account have room.
    full: Mutex<HashSet<String>>,
    /// What was listed last, as far as it may be remembered with the end of the check.
    listings: Mutex<Vec<MailboxRow>>,
    /// Mailboxes whose messages are taken down.
    pub(crate) places: Mutex<HashMap<MailboxId, Place>>,
    turn: Turn,
}

impl Run<'_> {
    pub(crate) fn tell(&self, progress: Progress<'_>) {
        self.site.tell(self.job.address(), progress);
    }

    /// Reads again what is known of unfinished deliveries: before each session, as the last one has changed it.
    pub(crate) async fn read_unfinished(&self) -> Result<(), RunError> {
        let mut unfinished: HashMap<_, Vec<DeliveryRow>> = HashMap::new();
        for row in self.site.store.unfinished(self.account.id).await? {
            unfinished.entry(row.message).or_default().push(row);
        }
        *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner) = unfinished;
        Ok(())
    }

    /// Has how far a mailbox was listed remembered when the check has ended well: nothing else depends on it.
    pub(crate) fn remember_listing(&self, mailbox: &MailboxRow) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.retain(|known| known.id != mailbox.id);
        listings.push(mailbox.clone());
    }

    /// What is known of the deliveries of an unfinished message.
    pub(crate) fn known_deliveries(&self, message: MessageRef) -> Vec<DeliveryRow> {
        let unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        unfinished.get(&message).cloned().unwrap_or_default()
    }

    /// What is known of the deliveries of a message was another's.
    pub(crate) fn forget_deliveries(&self, message: MessageRef) {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).remove(&message);
    }

    /// Reads which messages a person wants removed, and what filters did to those that wait: before each session.
    pub(crate) async fn read_troubled(&self) -> Result<(), RunError> {
        let rows = self.site.store.troubled(Some(self.account.id), true).await?;
        let histories = rows
            .iter()
            .map(|row| (row.message, History { postponed: row.postponed.into(), failed: row.filter_failures.into() }));
        let histories = histories.filter(|(_, history)| *history != History::default()).collect();
        *self.histories.lock().unwrap_or_else(PoisonError::into_inner) = histories;
        let rows = rows.into_iter().filter(|row| row.state == State::Discarding).map(|row| (row.message, row));
        *self.discards.lock().unwrap_or_else(PoisonError::into_inner) = rows.collect();
        Ok(())
    }

    /// What is known of a message that a person wants removed.
    pub(crate) fn discard(&self, message: MessageRef) -> Option<ParkedRow> {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner).get(&message).cloned()
    }

    /// What filters did to a message before.
    pub(crate) fn history(&self, message: MessageRef) -> History {
        let histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        histories.get(&message).copied().unwrap_or_default()
    }

    /// Whether all who have not got this message have no room for it: retrieving it again is of no use.
    pub(crate) fn waits_for_room(&self, message: MessageRef) -> bool {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        if full.is_empty() {
            return false;
        }
        let known = self.known_deliveries(message);
        let settled = |user: &str| {
            known.iter().any(|row| row.recipient.user == user && matches!(row.step, Step::Delivered | Step::Parked))
        };
        self.job.recipients.iter().all(|recipient| full.contains(&recipient.user) || settled(&recipient.user))
    }

    /// Retrieval pauses before the mail server on the same disk suffers, and while nobody has room.
    pub(crate) async fn has_room(&self) -> Result<(), RunError> {
        let full = full_recipients(self.job).await?;
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = full;
        Ok(())
    }

    /// Waits for a place among the checks that retrieve, once it is known that the server answers.
    pub(crate) async fn take_place(&self) -> Result<(), RunError> {
        self.or_stop(async {
            self.turn.take_place().await;
            Ok::<_, RunError>(())
        })
        .await
    }

    /// A place at the host for a further connection, if there is one to spare.
    pub(crate) fn another_place(&self) -> Option<Another> {
        self.turn.another()
    }

    /// Waits for the destination. When that takes long, the place among the checks that retrieve goes to another: a disk
    /// or a server that hangs keeps only its own accounts waiting.
    pub(crate) async fn delivering<T>(&self, delivery: impl Future<Output = T>) -> T {
        tokio::pin!(delivery);
        tokio::select! {
            biased;
            done = &mut delivery => return done,
            () = tokio::time::sleep(SLOW_DELIVERY) => self.turn.give_back(),
        }
        delivery.await
    }

    /// How the server is reached, with more patience after it was silent.
    pub(crate) fn route(&self) -> Route {
        let mut route = self.job.route.clone();
        route.timeouts = patience(&route.timeouts, self.account.health.silences);
        route
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

/// How long a check by hand waits for one that is under way.
const BUSY: Duration = Duration::from_secs(10);

/// Checks one account once.
///
/// Never fails: what went wrong is in the report, remembered in the store and logged. When `stop` turns true the
/// retrieval ends, deliveries that have begun are finished within ten seconds and settled, and the report says
/// [`RunError::Stopped`].
pub async fn run(site: &Site, job: &Job, mode: Mode, stop: watch::Receiver<bool>) -> Report {
    run_keeping(site, job, mode, stop, Turn::default(), None).await
}

/// As [`run`], over the connection in `kept` if there is one, and leaving it there for an account that listens.
pub(crate) async fn run_keeping(
    site: &Site,
    job: &Job,
    mode: Mode,
    stop: watch::Receiver<bool>,
    turn: Turn,
    kept: Option<&mut Option<Kept>>,
) -> Report {
    let began = Instant::now();
    let tally = Tally::default();
    let now = site.clock.now();
    let before = site.board.begins(job.address(), now);
    let report = match leased(site, job, mode, &stop).await {
        Ok((lease, account)) => {
            if let Some(learnt) = &account.health.login {
                site.logins.recall(job.address(), learnt);
            }
            let mut run = Run {
                site,
                job,
                lease: &lease,
                mode,
                account: &account,
                server: job.server(),
                now,
                removals_allowed: clock_is_believed(&account.health, now),
                tally: &tally,
                stop,
                unfinished: Mutex::default(),
                discards: Mutex::default(),
                histories: Mutex::default(),
                full: Mutex::default(),
                listings: Mutex::default(),
                places: Mutex::default(),
                turn,
            };
            let result = run.check(kept).await;
            // Another account may retrieve while this one is written down.
            run.turn = Turn::default();
            let listings = std::mem::take(run.listings.get_mut().unwrap_or_else(PoisonError::into_inner));
            let listings = if result.is_ok() { listings } else { Vec::new() };
            drop(run);
            let mut report = tally.report(began.elapsed(), result.err());
            if !mode.dry_run {
                report.next_check = Some(remember(site, job, &lease, &account.health, &report, now, &listings).await);
            }
            report
        }
        Err(StoreError::Busy) => tally.report(began.elapsed(), Some(StoreError::Busy.into())),
        Err(error) => {
            let mut report = tally.report(began.elapsed(), Some(error.into()));
            report.next_check = Some(WITHOUT_STATE);
            report
        }
    };
    log::run(job.address(), &job.server(), &report);
    site.board.ends(job.address(), before);
    site.tell(job.address(), Progress::Finished(&report));
    report
}

/// Whoever asks by hand waits for a check that is under way, so that theirs sees what came meanwhile.
async fn leased(
    site: &Site,
    job: &Job,
    mode: Mode,
    stop: &watch::Receiver<bool>,
) -> Result<(Lease, AccountRow), StoreError> {
    let asked = Instant::now();
    let account = site.store.open_account(job.address()).await?;
    loop {
        match site.store.lease(account.id).await {
            Err(StoreError::Busy) if mode.by_hand && asked.elapsed() < BUSY && !*stop.borrow() => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // What the check before has changed is read after it has ended.
            lease => return Ok((lease?, site.store.open_account(job.address()).await?)),
        }
    }
}

impl Run<'_> {
    async fn check(&self, kept: Option<&mut Option<Kept>>) -> Result<(), RunError> {
        let job = self.job;
        // A destination may take its time to answer; it is asked nothing that a stop could spoil.
        self.or_stop(async {
            users_exist(self.site, job).await?;
            self.has_room().await?;
            let rows = self.site.store.unfinished(self.account.id).await?;
            if !self.mode.dry_run {
                recover(self, &rows).await?;
            }
            // What was settled is read again, and nothing has nothing to be read again.
            if rows.is_empty() { Ok(()) } else { self.read_unfinished().await }
        })
        .await?;
        self.read_troubled().await?;
        self.filters_are_there().await?;
        match job.account.protocol {
            Protocol::Pop3 => pop3::check(self).await,
            Protocol::Imap => imap::check(self, kept).await,
        }
    }

    /// Nothing is retrieved that could not be looked at: a filter that is down costs no downloads.
    async fn filters_are_there(&self) -> Result<(), RunError> {
        if self.job.policy.on_failure == OnFailure::Deliver {
            return Ok(());
        }
        for gate in self.site.filters.wanted(&self.job.policy) {
            let asked = async {
                gate.ping().await.map_err(|trouble| RunError::Filter {
                    filter: gate.describe(),
                    trouble,
                    is_there: false,
                })
            };
            self.or_stop(asked).await?;
        }
        Ok(())
    }
}

/// The recipients whose mailbox is full; an error when all of them are, or the destination has no room for anybody.
async fn full_recipients(job: &Job) -> Result<HashSet<String>, RunError> {
    let failed = |failure| RunError::Destination { destination: job.delivery.describe(), failure };
    let mut full = HashSet::new();
    let mut last: Option<Failure> = None;
    for recipient in &job.recipients {
        match job.delivery.room(recipient).await {
            Ok(()) => {}
            Err(failure) if failure.kind == FailureKind::OverQuota => {
                full.insert(recipient.user.clone());
                last = Some(failure);
            }
            Err(failure) => return Err(failed(failure)),
        }
    }
    match last {
        Some(failure) if full.len() == job.recipients.len() => Err(failed(failure)),
        _ => Ok(full),
    }
}

/// Every local user of the account must exist: else it is held, nothing is fetched or removed, nobody else gets its mail.
pub(crate) async fn users_exist(site: &Site, job: &Job) -> Result<(), RunError> {
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

/// How long a check is from the next one, when all is well.
pub(crate) fn regular(check: Check) -> Duration {
    match check {
        Check::Every(span) => span,
        Check::Idle | Check::Never => Duration::from_secs(30 * 60),
    }
}

/// Writes down how it went, and says how long to wait. A failure to do so is logged: the check itself is over.
async fn remember(
    site: &Site,
    job: &Job,
    lease: &Lease,
    before: &Health,
    report: &Report,
    started: UnixTime,
    listings: &[MailboxRow],
) -> Duration {
    let now = site.clock.now();
    let regular = regular(job.account.check);
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
            if error.trouble().wait != Wait::None {
                let reason = error.reason(job);
                let lasts = before.reason.as_ref().is_some_and(|known| known.code == reason.code);
                (health.since, health.reason) = (before.since.filter(|_| lasts).or(Some(now)), Some(reason));
            }
            if error.trouble().wait == Wait::Login {
                health.refused_credential = job.credentials.version().await;
            }
            health
        }
    };
    let health = Health { clock_jump, login: site.logins.learnt(job.address(), now), ..health };
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
        repeated: report.repeated,
        quarantined: report.quarantined,
        discarded: report.discarded,
        unchecked: report.unchecked,
        spam: report.spam,
        error: report.error.as_ref().map(ToString::to_string),
        reason: report.error.as_ref().map(|error| error.reason(job)),
    };
    let wait = health.next_check.map_or(regular, |next| next.since(now));
    match site.store.record_check(lease, &health, &row, listings).await {
        Ok(()) => wait,
        Err(problem) => {
            error!(account = job.address(), %problem, "cannot remember how the check went");
            wait.max(WITHOUT_STATE)
        }
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
