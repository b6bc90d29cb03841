//! What earlier logins told about later ones.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use connectord_mail::UnixTime;
use connectord_sasl::Mechanism;

/// How long another way comes first: then the strongest one is tried again, for servers are mended.
const FOR: i64 = 24 * 3600;

/// Accounts that are remembered, some 100 octets each; beyond, nothing new is.
const MOST: usize = 262_144;

/// What the logins of this process told about each account's server: which way led in where a stronger one was refused,
/// and how strong its offer was.
///
/// A server that refuses what it offers does so each time, some after seconds (Cyrus 3.6, 2022), some with a line in a
/// log that locks out who has too many of them. So the way that led in comes first for a day.
#[derive(Debug, Default)]
pub struct Logins(Mutex<HashMap<String, Known>>);

#[derive(Debug)]
struct Known {
    server: String,
    /// The way that led in although it was not the strongest, and since when it comes first.
    first: Option<(Way, UnixTime)>,
    strongest: Strength,
}

/// One way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Sasl(Mechanism),
    /// USER and PASS, or LOGIN.
    Plain,
}

/// What a way keeps from whom it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strength {
    /// The secret is shown.
    Reveals,
    /// The secret is proved.
    Proves,
    /// The secret is proved to who holds the other end of this connection, and to nobody else.
    Binds,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sasl(mechanism) => mechanism.name(),
            Self::Plain => "a plain login",
        }
    }

    pub(crate) fn strength(self) -> Strength {
        match self {
            Self::Sasl(mechanism) if mechanism.binds_channel() => Strength::Binds,
            Self::Sasl(mechanism) if !mechanism.reveals_secret() => Strength::Proves,
            Self::Sasl(_) | Self::Plain => Strength::Reveals,
        }
    }
}

impl Logins {
    /// Puts the way that led in before the others; true when the strongest of them is weaker than what was offered
    /// before, which is said once.
    pub(crate) fn order(&self, account: &str, server: &str, now: UnixTime, ways: &mut [Way]) -> bool {
        let Some(strongest) = ways.first().map(|way| way.strength()) else { return false };
        let mut all = self.lock();
        let Some(known) = all.get_mut(account).filter(|known| known.server == server) else {
            if all.len() < MOST || all.contains_key(account) {
                all.insert(account.to_owned(), Known { server: server.to_owned(), first: None, strongest });
            }
            return false;
        };
        if let Some((first, since)) = known.first
            && (since.0..since.0.saturating_add(FOR)).contains(&now.0)
            && let Some(at) = ways.iter().position(|way| *way == first)
        {
            ways[..=at].rotate_right(1);
        }
        std::mem::replace(&mut known.strongest, strongest) > strongest
    }

    /// A way led in after a stronger one was refused.
    pub(crate) fn led_in(&self, account: &str, way: Way, now: UnixTime) {
        if let Some(known) = self.lock().get_mut(account) {
            known.first = Some((way, now));
        }
    }

    /// The way that came first was refused.
    pub(crate) fn refused(&self, account: &str, way: Way) {
        if let Some(known) = self.lock().get_mut(account) {
            known.first = known.first.filter(|(first, _)| *first != way);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // What a panicking thread leaves behind lacks an entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUS: Way = Way::Sasl(Mechanism::ScramSha256Plus);
    const SCRAM: Way = Way::Sasl(Mechanism::ScramSha256);
    const PLAIN: Way = Way::Sasl(Mechanism::Plain);

    fn ordered(logins: &Logins, server: &str, now: i64) -> [Way; 3] {
        let mut ways = [PLUS, SCRAM, PLAIN];
        assert!(!logins.order("ann", server, UnixTime(now), &mut ways));
        ways
    }

    #[test]
    fn what_led_in_comes_first_for_a_day_at_this_server_and_until_it_is_refused() {
        let logins = Logins::default();
        assert_eq!(ordered(&logins, "a:993", 0), [PLUS, SCRAM, PLAIN]);
        logins.led_in("ann", PLAIN, UnixTime(5));
        assert_eq!(ordered(&logins, "a:993", 5), [PLAIN, PLUS, SCRAM]);
        assert_eq!(ordered(&logins, "a:993", 4 + FOR), [PLAIN, PLUS, SCRAM]);
        assert_eq!(ordered(&logins, "a:993", 5 + FOR), [PLUS, SCRAM, PLAIN]);
        assert_eq!(ordered(&logins, "a:993", 4), [PLUS, SCRAM, PLAIN], "the clock ran backwards");
        logins.refused("ann", SCRAM);
        assert_eq!(ordered(&logins, "a:993", 6), [PLAIN, PLUS, SCRAM]);
        logins.refused("ann", PLAIN);
        assert_eq!(ordered(&logins, "a:993", 6), [PLUS, SCRAM, PLAIN]);
        logins.led_in("ann", SCRAM, UnixTime(7));
        assert_eq!(ordered(&logins, "b:993", 7), [PLUS, SCRAM, PLAIN]);
    }

    #[test]
    fn a_weaker_offer_than_before_is_said_once() {
        let logins = Logins::default();
        let offer = |way: Way| logins.order("ann", "a:993", UnixTime(0), &mut [way]);
        assert_eq!(
            [SCRAM, PLUS, SCRAM, SCRAM, PLAIN, PLAIN, SCRAM].map(offer),
            [false, false, true, false, true, false, false]
        );
    }
}
