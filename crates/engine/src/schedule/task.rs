//! One account, for good. Very many of these wait at the same time: what one keeps while it waits is small, and the
//! check itself, which is not, is made anew each time.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use connectord_account::Check;
use connectord_store::{Health, Hold};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tracing::{error, info};

use super::asks::Asks;
use super::places::Turn;
use super::{Common, Host};
use crate::host::{Met, Try};
use crate::imap::{Kept, Wake};
use crate::run::{Mode, regular, run_keeping, stopped};
use crate::{Activity, Cause, Job, Report, Scope, site};

/// While a login is held, how often it is looked whether the credential has changed.
const WATCH_CREDENTIAL: Duration = Duration::from_secs(60);

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

/// How often it is looked whether quiet hours are what they were.
const LOOK_AT_QUIET: Duration = Duration::from_secs(300);

/// After a check that ended before it used the connection that listens: there is no room, or a user is missing.
const WHILE_LISTENING: Duration = Duration::from_secs(300);

/// Among so much time for each account the second checks after a start are spread, but at most among their interval.
const SPREAD: Duration = Duration::from_millis(10);

/// Longer waits are for ever.
const LONGEST_SLEEP: Duration = Duration::from_secs(365 * 86_400);

/// After a check panicked.
const AFTER_PANIC: Duration = Duration::from_secs(300);

/// One account.
pub(super) struct Task {
    pub(super) common: Arc<Common>,
    pub(super) job: Arc<Job>,
    pub(super) host: Arc<Host>,
    pub(super) asks: Arc<Asks>,
    pub(super) stop: watch::Receiver<bool>,
}

/// When the first check is due.
pub(super) enum Start {
    AtOnce,
    /// As long ago noted in the store: to be read when the account begins.
    AsRemembered,
    /// As this says, read from the store.
    As(Box<Health>),
}

impl Task {
    /// Runs; a panic in a check is not the end of the account. `before` is cut off when the same account under its old
    /// configuration has ended, `_alive` when this one has.
    pub(super) async fn run(self, before: Option<oneshot::Receiver<()>>, start: Start, _alive: oneshot::Sender<()>) {
        if let Some(before) = before {
            // The error is its end.
            let _ = before.await;
        }
        let mut start = Some(start);
        let mut stop = self.stop.clone();
        while let Err(panic) = caught(Box::pin(self.checks(start.take().unwrap_or(Start::AsRemembered)))).await {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let panicked = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            error!(account = self.job.address(), panicked, "a check ended in a panic");
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = tokio::time::sleep(AFTER_PANIC) => {}
            }
        }
        self.host.ledger.forget(self.job.address());
        self.common.site.board.forget(self.job.address());
    }

    /// A stop cuts waits short; a check in progress hears of it itself and ends in order.
    async fn checks(&self, start: Start) {
        let Common { site, .. } = &*self.common;
        let mut kept: Option<Kept> = None;
        let mut listening: Option<OwnedSemaphorePermit> = None;
        // Left-over holds from before the start are kept; everything else is due at once.
        let mut releases = self.host.ledger.releases();
        let (mut wait, mut met) = self.wait_after_start(start).await;
        let mut first = true;
        loop {
            self.rests(kept.is_some(), wait);
            let by_hand = match self.wait_for_turn(wait, met, &mut releases, &mut kept).await {
                Wanted::Due => false,
                Wanted::Asked => true,
                Wanted::Stopped => return,
            };
            let quiet = self.common.settings().quiet.clone();
            let quiet = quiet.map_or(Duration::ZERO, |quiet| quiet.left(site.clock.now()));
            if !by_hand && kept.is_none() && !quiet.is_zero() {
                wait = quiet.min(LOOK_AT_QUIET);
                continue;
            }
            let turn = match self.queue(kept.is_some()).await {
                Queued::Turn(turn) => turn,
                Queued::Cut => {
                    wait = self.wait_after_cut();
                    continue;
                }
                Queued::Stopped => return,
            };
            // Somebody who gets in while this check fails releases this account too.
            releases.mark_unchanged();
            let report = self.check(by_hand, turn, &mut kept).await;
            if *self.stop.borrow() {
                return;
            }
            met = met_host(&report);
            self.host.ledger.met(self.job.address(), met, site.clock.now());
            self.keep_listening(&mut kept, &mut listening);
            wait = if self.asks.is_cut() { self.wait_after_cut() } else { self.wait_after(&report) };
            if std::mem::take(&mut first) && wait < LONGEST_HOLD {
                // All begin at once; from their second check on they are spread.
                let many = SPREAD.saturating_mul(self.common.accounts.load(Ordering::Relaxed));
                wait += wait.min(many).mul_f64(site::random_share());
            }
            if report.error.is_some() && kept.is_some() {
                wait = wait.min(WHILE_LISTENING);
            }
        }
    }

    /// On the heap, and gone afterwards: a check needs some 20 KiB, and an account waits nearly all the time.
    async fn check(&self, by_hand: bool, turn: Turn, kept: &mut Option<Kept>) -> Report {
        let mode = Mode { by_hand, dry_run: false };
        let (cut, told) = watch::channel(false);
        let never = Box::pin(self.common.connecting.step_aside(turn.place()));
        let mut check = Box::pin(run_keeping(&self.common.site, &self.job, mode, told, turn, Some(kept)));
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => {}
            () = self.asks.cut_off() => {}
            report = &mut check => return report,
            never = never => match never {},
        }
        // It ends in order.
        cut.send_replace(true);
        check.await
    }

    /// Shows that the account waits, for so long at most.
    fn rests(&self, listens: bool, wait: Duration) {
        let now = self.common.site.clock.now();
        let activity = if listens { Activity::Listening } else { Activity::Idle };
        let next = (wait <= LONGEST_SLEEP).then(|| now.plus(wait));
        self.common.site.board.does(self.job.address(), activity, now, next);
    }

    /// Waits for its turn. Who was asked together with many others, and has to connect, waits for them first.
    async fn queue(&self, connected: bool) -> Queued {
        self.asks.begin();
        let Common { site, .. } = &*self.common;
        site.board.does(self.job.address(), Activity::Queued, site.clock.now(), None);
        let later = if connected { Duration::ZERO } else { self.asks.later() };
        let mut stop = self.stop.clone();
        let turn = async {
            if !later.is_zero() {
                tokio::select! {
                    () = stopped(&mut stop) => return None,
                    () = tokio::time::sleep(later) => {}
                }
            }
            self.turn(connected).await
        };
        tokio::select! {
            biased;
            () = self.asks.cut_off() => Queued::Cut,
            turn = turn => turn.map_or(Queued::Stopped, Queued::Turn),
        }
    }

    /// A person did not want the check: it is not made up for.
    fn wait_after_cut(&self) -> Duration {
        let wait = match self.job.account.check {
            Check::Never => return Duration::MAX,
            check => regular(check),
        };
        wait.saturating_add(wait.mul_f64(self.jitter() * site::random_share()))
    }

    /// A connection may listen only as long as it has one of its host's places for that.
    fn keep_listening(&self, kept: &mut Option<Kept>, listening: &mut Option<OwnedSemaphorePermit>) {
        if let Some(place) = listening.take_if(|_| kept.is_some() && self.host.listening.is_excess()) {
            place.forget();
        }
        if kept.is_some() && listening.is_none() {
            *listening = self.host.listening.try_take();
            if listening.is_none() {
                info!(
                    account = self.job.address(),
                    "enough accounts listen at this host; this one is checked regularly"
                );
                *kept = None;
            }
        }
        if kept.is_none() {
            *listening = None;
        }
    }

    /// Waits for the places that a check begins with; nothing when it is to stop. A connection that listened counts as
    /// one already, so it waits for no place at its host.
    async fn turn(&self, connected: bool) -> Option<Turn> {
        let Common { places, connecting, .. } = &*self.common;
        if connected {
            return (!*self.stop.borrow()).then(|| Turn::connected(places));
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => None,
            turn = Turn::connecting(places, &self.host.checks, connecting) => Some(turn),
        }
    }

    async fn health(&self) -> Health {
        match self.common.site.store.open_account(self.job.address()).await {
            Ok(row) => row.health,
            Err(error) => {
                error!(account = self.job.address(), %error, "cannot read how the account is doing");
                Health::default()
            }
        }
    }

    async fn wait_after_start(&self, start: Start) -> (Duration, Met) {
        if self.job.account.check == Check::Never {
            return (Duration::MAX, Met::Unknown);
        }
        let health = match start {
            Start::AtOnce => return (Duration::ZERO, Met::Unknown),
            Start::AsRemembered => self.health().await,
            Start::As(health) => *health,
        };
        let mut met = Met::Unknown;
        if let (Some(Hold::Login), Some(last)) = (health.hold, health.last_check) {
            met = Met::Refused;
            self.host.ledger.met(self.job.address(), met, last);
        }
        let wait = match (health.hold, health.next_check) {
            (Some(Hold::Login | Hold::Throttled | Hold::Backoff), Some(next)) => {
                let wait = next.since(self.common.site.clock.now());
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
        wait.saturating_add(wait.min(LONGEST_HOLD).mul_f64(self.jitter() * site::random_share()))
    }

    fn jitter(&self) -> f64 {
        self.common.settings().limits.jitter.clamp(0.0, 1.0)
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
            match connection.wait(&self.common.site, &self.job, &self.asks.check, &self.stop, wait).await {
                Wake::Changed | Wake::Poll => return Wanted::Due,
                Wake::Asked => return Wanted::Asked,
                Wake::Stopped => return Wanted::Stopped,
                Wake::Lost => {
                    // A server that ends each connection at once is not to be connected to again and again.
                    *kept = None;
                    wait = AFTER_LOSS.mul_f64(1.0 + self.jitter());
                }
            }
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => Wanted::Stopped,
            () = self.asks.check.notified() => Wanted::Asked,
            () = self.due(wait, met, releases) => Wanted::Due,
        }
    }

    /// Resolves when an account may be checked that last met its host so.
    async fn due(&self, wait: Duration, met: Met, releases: &mut watch::Receiver<u64>) {
        if !matches!(met, Met::Refused | Met::Down) {
            return sleep(wait).await;
        }
        // On the heap: few accounts wait for that.
        Box::pin(async {
            tokio::select! {
                () = self.host_mends(wait, met, releases) => {}
                () = self.credential_changes(met) => {}
            }
        })
        .await;
    }

    /// After `wait`, or as the host's other accounts find out.
    async fn host_mends(&self, wait: Duration, met: Met, releases: &mut watch::Receiver<u64>) {
        if self.job.account.check == Check::Never {
            return std::future::pending().await;
        }
        let ledger = &self.host.ledger;
        let own = tokio::time::Instant::now() + wait.min(LONGEST_HOLD);
        loop {
            let look = tokio::time::Instant::now() + LOOK_AT_HOST;
            let until = match met {
                Met::Refused => match ledger.may_try(self.job.address(), self.common.site.clock.now()) {
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
    async fn credential_changes(&self, met: Met) {
        if met != Met::Refused {
            return std::future::pending().await;
        }
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

/// What a future gives, or what it panicked with.
async fn caught<T>(mut future: Pin<Box<dyn Future<Output = T> + Send + '_>>) -> Result<T, Box<dyn Any + Send>> {
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
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
    if wait > LONGEST_SLEEP {
        return std::future::pending().await;
    }
    tokio::time::sleep(wait).await;
}

/// How the wait for a turn ends.
enum Queued {
    Turn(Turn),
    Cut,
    Stopped,
}

enum Wanted {
    Due,
    Asked,
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<'a, F: Future>(_: impl Fn(&'a Task, Start) -> F) -> usize {
        size_of::<F>()
    }

    /// Very many accounts wait at the same time, and each has this.
    #[test]
    fn an_account_that_waits_has_no_room_for_a_check() {
        assert!(size(Task::checks) < 3072, "{}", size(Task::checks));
        assert!(size_of::<Option<Kept>>() <= 32 && size_of::<Task>() <= 64);
    }
}
