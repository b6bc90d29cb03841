//! What each account does now, for whoever shows it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use connectord_mail::UnixTime;

use crate::Progress;

/// For so many seconds back it is told how fast octets come.
const RATE_SECONDS: u64 = 5;

/// What each account does now. Cheap to ask, also for all of very many.
#[derive(Debug, Default)]
pub struct Board {
    accounts: RwLock<HashMap<String, Arc<Mutex<Live>>>>,
}

/// What an account does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Nothing, until its next check.
    #[default]
    Idle,
    /// Is due, and waits for its turn.
    Queued,
    /// Is being checked.
    Checking,
    /// Is told by the server when mail has come.
    Listening,
}

/// An account at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountNow {
    /// What it does.
    pub activity: Activity,
    /// Since when.
    pub since: UnixTime,
    /// When it is checked next, unless something happens before; `None` when only by hand, or while it is not known: it is
    /// queued, or being checked.
    pub next_check: Option<UnixTime>,
    /// How far the check is that runs.
    pub check: Option<CheckNow>,
}

/// How far a check is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckNow {
    /// When it began.
    pub began: UnixTime,
    /// `host:port`, once it is connected to.
    pub server: Option<String>,
    /// Milliseconds from there to the login, once logged in.
    pub logged_in_ms: Option<u64>,
    /// TLS version; `None` without TLS, and before the login.
    pub tls: Option<String>,
    /// Messages there, once listed.
    pub listed: Option<u64>,
    /// Messages to retrieve.
    pub new: u64,
    /// Messages to remove.
    pub due: u64,
    /// Messages retrieved whole.
    pub retrieved: u64,
    /// Octets of bodies retrieved.
    pub octets: u64,
    /// Octets a second over the last five, once one is over.
    pub octets_per_second: Option<u64>,
    /// Messages that filters have looked at.
    pub filtered: u64,
    /// Messages that they took for spam.
    pub spam: u64,
    /// Deliveries, one for each recipient.
    pub delivered: u64,
    /// Deliveries and retrievals put off.
    pub deferred: u64,
    /// Messages parked.
    pub parked: u64,
    /// Messages kept back.
    pub quarantined: u64,
    /// Messages discarded.
    pub discarded: u64,
    /// Remote copies removed.
    pub removed: u64,
}

#[derive(Debug, Default)]
struct Live {
    now: AccountNow,
    connecting: Option<Instant>,
    /// Octets by second since the first ones came, the newest last.
    rate: VecDeque<(u64, u64)>,
    first_octets: Option<Instant>,
}

impl Board {
    /// What an account does, by its address, case aside; `None` when it was never heard of.
    pub fn state_of(&self, address: &str) -> Option<AccountNow> {
        let live = self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(&address.to_lowercase()).cloned();
        live.map(|live| locked(&live).shown())
    }

    /// What each account does, by address.
    pub fn snapshot(&self) -> HashMap<String, AccountNow> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.iter().map(|(address, live)| (address.clone(), locked(live).shown())).collect()
    }

    /// A check begins; what the account did before, for [`Board::ends`].
    pub(crate) fn begins(&self, address: &str, now: UnixTime) -> AccountNow {
        let before = locked(&self.live(address)).now.clone();
        self.does(address, Activity::Checking, now, None);
        before
    }

    /// The check is over. One that was asked for beside the schedule leaves the account as it was.
    pub(crate) fn ends(&self, address: &str, before: AccountNow) {
        let activity = if before.activity == Activity::Listening { Activity::Listening } else { Activity::Idle };
        let now = AccountNow { activity, check: None, ..before };
        *locked(&self.live(address)) = Live { now, ..Live::default() };
    }

    /// An account does something else; `next_check` is when it is checked next, if that is known.
    pub(crate) fn does(&self, address: &str, activity: Activity, now: UnixTime, next_check: Option<UnixTime>) {
        let live = self.live(address);
        let mut live = locked(&live);
        let since = if live.now.activity == activity { live.now.since } else { now };
        let check = (activity == Activity::Checking).then(|| CheckNow { began: now, ..CheckNow::default() });
        *live = Live { now: AccountNow { activity, since, next_check, check }, ..Live::default() };
    }

    /// An account is configured no more.
    pub(crate) fn forget(&self, address: &str) {
        self.accounts.write().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    /// Notes how a check goes.
    pub(crate) fn progress(&self, address: &str, progress: Progress<'_>) {
        locked(&self.live(address)).follow(progress);
    }

    fn live(&self, address: &str) -> Arc<Mutex<Live>> {
        if let Some(known) = self.accounts.read().unwrap_or_else(PoisonError::into_inner).get(address) {
            return Arc::clone(known);
        }
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(accounts.entry(address.to_owned()).or_default())
    }
}

impl Live {
    fn follow(&mut self, progress: Progress<'_>) {
        let Some(check) = &mut self.now.check else { return };
        match progress {
            Progress::Connecting { server } => {
                check.server = Some(server.to_owned());
                self.connecting = Some(Instant::now());
            }
            Progress::LoggedIn { tls } => {
                check.tls = tls.map(str::to_owned);
                let took = self.connecting.map(|began| began.elapsed().as_millis());
                check.logged_in_ms = took.map(|took| u64::try_from(took).unwrap_or(u64::MAX));
            }
            Progress::Listed { messages, new, removals, .. } => {
                *check.listed.get_or_insert(0) += messages;
                check.new += new;
                check.due += removals;
            }
            Progress::Octets(octets) => {
                check.octets += octets;
                let second = self.first_octets.get_or_insert_with(Instant::now).elapsed().as_secs();
                match self.rate.back_mut() {
                    Some((last, sum)) if *last == second => *sum += octets,
                    _ => self.rate.push_back((second, octets)),
                }
                while self.rate.front().is_some_and(|(at, _)| at + RATE_SECONDS < second) {
                    self.rate.pop_front();
                }
            }
            Progress::Retrieved => check.retrieved += 1,
            Progress::Filtered { spam } => {
                check.filtered += 1;
                check.spam += u64::from(spam);
            }
            Progress::Delivered => check.delivered += 1,
            Progress::Deferred => check.deferred += 1,
            Progress::Parked => check.parked += 1,
            Progress::Quarantined => check.quarantined += 1,
            Progress::Discarded => check.discarded += 1,
            Progress::Removed(count) => check.removed += count,
            Progress::Listening | Progress::Finished(_) => {}
        }
    }

    fn shown(&self) -> AccountNow {
        let mut now = self.now.clone();
        let (Some(check), Some(first)) = (&mut now.check, self.first_octets) else { return now };
        // The second that has just begun is not over.
        let second = first.elapsed().as_secs();
        let over = second.min(RATE_SECONDS);
        let sum = |from: u64| self.rate.iter().filter(|(at, _)| (from..second).contains(at)).map(|(_, sum)| sum).sum();
        check.octets_per_second = (over > 0).then(|| sum(second - over)).map(|octets: u64| octets / over);
        now
    }
}

fn locked(live: &Mutex<Live>) -> MutexGuard<'_, Live> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_counted_from_its_beginning_and_forgotten_when_it_is_over() {
        let board = Board::default();
        board.progress("ann@x", Progress::Retrieved);
        board.does("ann@x", Activity::Queued, UnixTime(1), None);
        board.does("ann@x", Activity::Queued, UnixTime(2), None);
        assert_eq!(board.state_of("ann@x").map(|now| (now.activity, now.since)), Some((Activity::Queued, UnixTime(1))));
        let before = board.begins("ann@x", UnixTime(3));
        for progress in [
            Progress::Connecting { server: "imap.x:993" },
            Progress::LoggedIn { tls: Some("TLS 1.3") },
            Progress::Listed { mailbox: "a", messages: 5, new: 2, removals: 1 },
            Progress::Listed { mailbox: "b", messages: 7, new: 1, removals: 0 },
            Progress::Octets(30),
            Progress::Octets(12),
            Progress::Retrieved,
            Progress::Filtered { spam: true },
            Progress::Delivered,
            Progress::Removed(4),
        ] {
            board.progress("ann@x", progress);
        }
        let check = board.snapshot().remove("ann@x").and_then(|now| now.check).unwrap();
        let counted = (check.listed, check.new, check.due, check.retrieved, check.octets, check.removed);
        assert_eq!(counted, (Some(12), 3, 1, 1, 42, 4));
        assert_eq!((check.filtered, check.spam, check.delivered, check.began), (1, 1, 1, UnixTime(3)));
        assert_eq!((check.server.as_deref(), check.tls.as_deref()), (Some("imap.x:993"), Some("TLS 1.3")));
        board.ends("ann@x", before);
        assert_eq!(board.state_of("ann@x").map(|now| (now.activity, now.check)), Some((Activity::Idle, None)));
        board.does("ann@x", Activity::Queued, UnixTime(4), None);
        board.does("ann@x", Activity::Idle, UnixTime(4), Some(UnixTime(900)));
        let idle = AccountNow { since: UnixTime(4), next_check: Some(UnixTime(900)), ..AccountNow::default() };
        assert_eq!(board.state_of("ann@x"), Some(idle));
        board.forget("ann@x");
        assert_eq!(board.state_of("ann@x"), None);
    }
}
