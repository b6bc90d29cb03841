//! What was found out about names: whether the resolver answered about them in time, and their last addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Names remembered; the one that was heard of longest ago goes.
const MAX_NAMES: usize = 4096;
/// Addresses of one name kept; no host has more that are worth trying.
const MAX_ADDRESSES: usize = 32;

/// How a name stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The resolver answered about it in time, last time.
    Answered,
    /// Never asked for, or long ago.
    Unknown,
    /// The last look-up took too long, or has not ended.
    Suspect,
}

#[derive(Debug, Default)]
pub(super) struct History(HashMap<String, Known>);

#[derive(Debug)]
struct Known {
    heard_of: Instant,
    hung: bool,
    addresses: Vec<IpAddr>,
    /// When these addresses were the resolver's answer.
    since: Instant,
    /// Whether it was said that they are used without its answer.
    told: bool,
}

/// Addresses from before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) age: Duration,
    /// They are used for the first time since the resolver's answer.
    pub(super) first: bool,
}

impl History {
    pub(super) fn standing(&self, host: &str) -> Standing {
        match self.0.get(host) {
            None => Standing::Unknown,
            Some(known) if known.hung => Standing::Suspect,
            Some(_) => Standing::Answered,
        }
    }

    /// A look-up is taking too long.
    pub(super) fn hangs(&mut self, host: &str, now: Instant) {
        self.known(host, now).hung = true;
    }

    /// The resolver gave addresses, `in_time` or late.
    pub(super) fn found(&mut self, host: &str, addresses: &[IpAddr], in_time: bool, now: Instant) {
        let known = self.known(host, now);
        (known.hung, known.since, known.told) = (!in_time, now, false);
        known.addresses = addresses.iter().take(MAX_ADDRESSES).copied().collect();
    }

    /// The resolver said that there is none: the old ones are not used any more.
    pub(super) fn gone(&mut self, host: &str, in_time: bool, now: Instant) {
        let known = self.known(host, now);
        (known.hung, known.addresses) = (!in_time, Vec::new());
    }

    /// The resolver had no answer.
    pub(super) fn unanswered(&mut self, host: &str, in_time: bool, now: Instant) {
        self.known(host, now).hung = !in_time;
    }

    /// The last addresses, unless they are older than `most`.
    pub(super) fn stale(&mut self, host: &str, most: Duration, now: Instant) -> Option<Stale> {
        let known = self.0.get_mut(host).filter(|known| !known.addresses.is_empty())?;
        let age = now.saturating_duration_since(known.since);
        let first = !std::mem::replace(&mut known.told, true);
        (age <= most).then(|| Stale { addresses: known.addresses.clone(), age, first })
    }

    fn known(&mut self, host: &str, now: Instant) -> &mut Known {
        if self.0.len() >= MAX_NAMES && !self.0.contains_key(host) {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.heard_of).map(|(name, _)| name.clone());
            oldest.map(|name| self.0.remove(&name));
        }
        let none = Known { heard_of: now, hung: false, addresses: Vec::new(), since: now, told: false };
        let known = self.0.entry(host.to_owned()).or_insert(none);
        known.heard_of = now;
        known
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn old_addresses_serve_for_a_time_and_not_when_the_resolver_says_that_there_are_none() {
        let (mut history, now) = (History::default(), Instant::now());
        assert_eq!(history.stale("a", DAY, now), None);
        history.found("a", &[HERE], true, now);
        let stale = |age, first| Some(Stale { addresses: vec![HERE], age, first });
        assert_eq!(history.stale("a", DAY, now + DAY), stale(DAY, true));
        assert_eq!(history.stale("a", DAY, now + DAY), stale(DAY, false));
        assert_eq!(history.stale("a", DAY, now + DAY * 2), None);
        history.unanswered("a", true, now);
        assert!(history.stale("a", DAY, now).is_some());
        history.gone("a", true, now);
        assert_eq!(history.stale("a", DAY, now), None);
    }

    #[test]
    fn a_name_is_suspect_until_it_is_answered_in_time() {
        let (mut history, now) = (History::default(), Instant::now());
        assert_eq!(history.standing("a"), Standing::Unknown);
        history.hangs("a", now);
        assert_eq!(history.standing("a"), Standing::Suspect);
        history.found("a", &[HERE], false, now);
        assert_eq!(history.standing("a"), Standing::Suspect);
        history.found("a", &[HERE], true, now);
        assert_eq!(history.standing("a"), Standing::Answered);
    }

    #[test]
    fn the_number_of_names_is_bounded_and_the_oldest_goes() {
        let (mut history, now) = (History::default(), Instant::now());
        for number in 0..=MAX_NAMES {
            history.hangs(&number.to_string(), now + Duration::from_millis(number as u64));
        }
        assert_eq!(history.0.len(), MAX_NAMES);
        assert_eq!(history.standing("0"), Standing::Unknown);
        assert_eq!(history.standing("1"), Standing::Suspect);
    }
}
