//! What the accounts of one host tell about the host.
//!
//! Five accounts that are refused within an hour, while nobody gets in, are the host's trouble: their login holds follow
//! the host then. One account after another tries, the one that was refused the longest ago first, an hour apart, so that
//! each is tried no more often than by its own holds; and all try as soon as one of them gets in. Accounts that waited
//! because the host did not answer are likewise checked as soon as one of them gets through.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connectord_mail::UnixTime;
use tokio::sync::watch;
use tracing::{info, warn};

/// Accounts refused within [`WINDOW`] that make it the host's trouble.
const MANY: usize = 5;

const WINDOW: Duration = Duration::from_secs(3600);

/// Between two tries while the host refuses all.
const BETWEEN_TRIES: Duration = Duration::from_secs(3600);

/// How long the account that was refused the longest ago may let the others wait for its try.
const FIRST_COMES: Duration = Duration::from_secs(600);

/// How a check ended, as far as the host is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// It let us in.
    LetIn,
    /// It refused the login.
    Refused,
    /// It did not answer, or could not be trusted.
    Down,
    /// Nothing can be said.
    Unknown,
}

/// When an account that was refused may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    /// When its own hold ends.
    Own,
    /// Now: it tries for all.
    Now,
    /// Not before so long.
    Wait(Duration),
}

/// One host, shared by the tasks of its accounts.
#[derive(Debug)]
pub(crate) struct Ledger {
    name: String,
    state: Mutex<State>,
    /// Counts how often all who waited were released.
    released: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Accounts whose login is held: when each was refused last, and in that order.
    refused: HashMap<Arc<str>, UnixTime>,
    in_order: BTreeSet<(UnixTime, Arc<str>)>,
    /// Accounts that wait because the host did not answer.
    down: HashSet<String>,
    let_in: Option<UnixTime>,
    /// While all are refused: when the next one may try.
    next_try: Option<UnixTime>,
}

impl Ledger {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), state: Mutex::default(), released: watch::Sender::new(0) }
    }

    /// Changes when all who wait may try at once.
    pub(crate) fn releases(&self) -> watch::Receiver<u64> {
        self.released.subscribe()
    }

    /// An account met the host.
    pub(crate) fn met(&self, account: &str, met: Met, now: UnixTime) {
        let mut state = self.state();
        match met {
            Met::LetIn => {
                let waited = state.no_longer_refused(account) && state.next_try.is_some();
                let waited = state.down.remove(account) || waited;
                state.let_in = Some(now);
                let closed = state.next_try.take().is_some();
                drop(state);
                if closed {
                    info!(host = self.name, account, "the host lets accounts in again");
                }
                if waited {
                    // Who was never in trouble says nothing about those who are.
                    self.released.send_modify(|count| *count += 1);
                }
            }
            Met::Refused => {
                state.down.remove(account);
                state.refuse(account, now);
                state.judge(&self.name, account);
            }
            Met::Down => {
                state.down.insert(account.to_owned());
            }
            // It does not wait for its login any more, and must not be waited for.
            Met::Unknown => state.forget(account),
        }
    }

    /// An account is not checked here any more.
    pub(crate) fn forget(&self, account: &str) {
        self.state().forget(account);
    }

    /// Whether it is the host's trouble that accounts are refused.
    pub(crate) fn refuses_all(&self) -> bool {
        self.state().next_try.is_some()
    }

    /// When an account whose login is held may try. The answer [`Try::Now`] is given to one account, once.
    pub(crate) fn may_try(&self, account: &str, now: UnixTime) -> Try {
        let mut state = self.state();
        let Some(next) = state.next_try else { return Try::Own };
        let wait = next.since(now);
        // A clock that was ahead is no reason to wait for years.
        if !wait.is_zero() && wait <= BETWEEN_TRIES {
            return Try::Wait(wait);
        }
        // Whoever is first and does not come is not waited for.
        if state.in_order.first().is_some_and(|(_, first)| **first != *account) && now.since(next) < FIRST_COMES {
            return Try::Wait(Duration::from_secs(60));
        }
        state.next_try = Some(now.plus(BETWEEN_TRIES));
        Try::Now
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, account: &str) {
        self.no_longer_refused(account);
        self.down.remove(account);
        if self.refused.is_empty() {
            self.next_try = None;
        }
    }

    fn refuse(&mut self, account: &str, now: UnixTime) {
        self.no_longer_refused(account);
        let account: Arc<str> = account.into();
        self.in_order.insert((now, Arc::clone(&account)));
        self.refused.insert(account, now);
    }

    fn no_longer_refused(&mut self, account: &str) -> bool {
        let Some((account, at)) = self.refused.remove_entry(account) else { return false };
        self.in_order.remove(&(at, account))
    }

    /// Whether the refusals are the host's trouble, of which this account's is the newest to be known.
    fn judge(&mut self, host: &str, account: &str) {
        if self.next_try.is_some() {
            return;
        }
        let Some((account, at)) = self.refused.get_key_value(account) else { return };
        let new = (*at, Arc::clone(account));
        // Those that stand closest to it, in both directions: no other five can have come together by it.
        let mut times: Vec<i64> = self.in_order.range(..&new).rev().take(MANY - 1).map(|(at, _)| at.0).collect();
        times.reverse();
        times.extend(self.in_order.range(&new..).take(MANY).map(|(at, _)| at.0));
        let let_in = self.let_in.map_or(i64::MIN, |at| at.0);
        let window = WINDOW.as_secs() as i64;
        if times.windows(MANY).any(|five| five[MANY - 1] - five[0] <= window && five[0] > let_in) {
            let last = self.in_order.last().map_or(0, |(at, _)| at.0);
            self.next_try = Some(UnixTime(last).plus(BETWEEN_TRIES));
            warn!(
                host,
                accounts = self.refused.len(),
                "the host refuses all logins; its accounts try one after another"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn refused(accounts: &[&str], at: i64) -> Ledger {
        let host = Ledger::new("imap.example.org");
        for (n, account) in accounts.iter().enumerate() {
            host.met(account, Met::Refused, UnixTime(at + n as i64));
        }
        host
    }

    #[test]
    fn five_accounts_refused_within_an_hour_try_one_after_another() {
        let accounts = ["a", "b", "c", "d", "e"];
        let host = refused(&accounts[..4], 0);
        assert_eq!(host.may_try("a", UnixTime(HOUR)), Try::Own);
        host.met("e", Met::Refused, UnixTime(4));
        assert_eq!(host.may_try("a", UnixTime(4)), Try::Wait(Duration::from_secs(3600)));
        let mut tried = Vec::new();
        for minute in 0..=24 * 60 {
            let now = UnixTime(4 + minute * 60);
            for account in accounts {
                if host.may_try(account, now) == Try::Now {
                    tried.push((account, minute));
                    host.met(account, Met::Refused, now);
                }
            }
        }
        let by = |account: &str| tried.iter().filter(|(tried, _)| **tried == *account).count();
        assert_eq!(tried.len(), 24, "one an hour");
        assert!(accounts.iter().all(|account| (4..=5).contains(&by(account))), "each in turn: {tried:?}");
    }

    #[test]
    fn all_try_at_once_when_one_of_them_gets_in() {
        let host = refused(&["a", "b", "c", "d", "e"], 0);
        let releases = host.releases();
        host.met("b", Met::LetIn, UnixTime(HOUR));
        assert!(releases.has_changed().unwrap());
        assert_eq!(host.may_try("a", UnixTime(HOUR)), Try::Own);
        // Those that are refused again have wrong passwords of their own: somebody has got in.
        for account in ["a", "c", "d", "e", "f"] {
            host.met(account, Met::Refused, UnixTime(HOUR));
        }
        assert_eq!(host.may_try("a", UnixTime(HOUR)), Try::Own);
    }

    #[test]
    fn who_was_never_refused_releases_nobody_and_shows_that_it_is_not_the_host() {
        let host = refused(&["a", "b", "c", "d", "e"], 0);
        let releases = host.releases();
        host.met("good", Met::LetIn, UnixTime(10));
        assert!(!releases.has_changed().unwrap());
        assert_eq!(host.may_try("a", UnixTime(10)), Try::Own);
        let slow = Ledger::new("h");
        for n in 0..5 {
            slow.met(&n.to_string(), Met::Refused, UnixTime(n * 1000));
        }
        assert_eq!(slow.may_try("0", UnixTime(5000)), Try::Own, "refused over more than an hour");
    }

    #[test]
    fn accounts_of_a_dead_host_are_checked_when_one_of_them_gets_through() {
        let host = Ledger::new("h");
        host.met("a", Met::Down, UnixTime(0));
        host.met("b", Met::Down, UnixTime(0));
        let releases = host.releases();
        host.met("good", Met::LetIn, UnixTime(1));
        assert!(!releases.has_changed().unwrap());
        host.met("a", Met::LetIn, UnixTime(2));
        assert!(releases.has_changed().unwrap());
    }

    #[test]
    fn a_host_without_its_accounts_is_well() {
        let host = refused(&["a", "b", "c", "d", "e"], 0);
        for account in ["a", "b", "c", "d"] {
            host.forget(account);
        }
        assert_eq!(host.may_try("e", UnixTime(2 * HOUR)), Try::Now);
        host.forget("e");
        assert_eq!(host.may_try("e", UnixTime(9 * HOUR)), Try::Own);
    }

    /// After a start the store's refusals become known in any order.
    #[test]
    fn five_refusals_within_an_hour_are_found_in_whatever_order_they_become_known() {
        let mut random = 1u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut judged = 0;
        for _ in 0..500 {
            let host = Ledger::new("h");
            let mut times: Vec<i64> = Vec::new();
            for account in 0..8 {
                let at = next(5 * HOUR as u64) as i64;
                host.met(&account.to_string(), Met::Refused, UnixTime(at));
                times.push(at);
                times.sort_unstable();
                assert_eq!(host.refuses_all(), times.windows(5).any(|five| five[4] - five[0] <= HOUR), "{times:?}");
                if host.refuses_all() {
                    judged += 1;
                    break;
                }
            }
        }
        assert!((50..450).contains(&judged), "{judged}");
    }
}
