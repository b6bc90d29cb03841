//! What earlier logins told about later ones.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use connectord_mail::UnixTime;
use connectord_sasl::Mechanism;

/// How long another way comes first: then the strongest one is tried again, for servers are mended.
const FOR: i64 = 24 * 3600;

/// Accounts that are remembered, some 100 octets each; beyond, nothing new is.
const MOST: usize = 262_144;

/// What the logins of this process, and of the ones before it, told about each account's server: which way led in where a
/// stronger one was refused, and how strong its offer was.
///
/// A server that refuses what it offers does so each time, some after seconds (Cyrus 3.6, 2022), some with a line in a
/// log that locks out who has too many of them. So the way that led in comes first for a day, also in the next process:
/// [`Health::login`](connectord_store::Health::login) keeps it.
///
/// That weakens no login. A way comes first only under TLS, at the same server, while it offers us exactly what it offered
/// then, and nothing weaker than it is tried in that login. Who stands between us and the server gets no more by that than
/// by refusing the stronger ways at once.
#[derive(Debug, Default)]
pub struct Logins(Mutex<HashMap<String, Known>>);

#[derive(Debug)]
struct Known {
    server: String,
    /// The way that led in although it was not the strongest.
    first: Option<First>,
    strongest: Strength,
}

/// A way that comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct First {
    way: Way,
    since: UnixTime,
    /// The ways there were to choose from, the strongest first: with others it is to be found out anew.
    among: Vec<Way>,
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

    /// As it is kept.
    fn word(self) -> &'static str {
        match self {
            Self::Sasl(mechanism) => mechanism.name(),
            Self::Plain => "-",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        if word == "-" { Some(Self::Plain) } else { Mechanism::parse(word).map(Self::Sasl) }
    }

    pub(crate) fn strength(self) -> Strength {
        match self {
            Self::Sasl(mechanism) if mechanism.binds_channel() => Strength::Binds,
            Self::Sasl(mechanism) if !mechanism.reveals_secret() => Strength::Proves,
            Self::Sasl(_) | Self::Plain => Strength::Reveals,
        }
    }
}

impl First {
    fn is_fresh(&self, now: UnixTime) -> bool {
        (self.since.0..self.since.0.saturating_add(FOR)).contains(&now.0)
    }

    /// `<seconds> <way> <ways, with a comma between> <server>`.
    fn to_text(&self, server: &str) -> String {
        let among: Vec<_> = self.among.iter().map(|way| way.word()).collect();
        format!("{} {} {} {server}", self.since.0, self.way.word(), among.join(","))
    }

    fn of_text(text: &str) -> Option<(Self, &str)> {
        let mut words = text.splitn(4, ' ');
        let since = UnixTime(words.next()?.parse().ok()?);
        let way = Way::of_word(words.next()?)?;
        let among: Option<Vec<Way>> = words.next()?.split(',').map(Way::of_word).collect();
        let among = among.filter(|among| among.contains(&way))?;
        Some((Self { way, since, among }, words.next()?))
    }
}

impl Logins {
    /// What an earlier process learnt about an account's server, unless this one knows better; what is not in our words is
    /// nothing.
    pub(crate) fn recall(&self, account: &str, learnt: &str) {
        let Some((first, server)) = First::of_text(learnt) else { return };
        let mut all = self.lock();
        if all.len() < MOST && !all.contains_key(account) {
            let strongest = first.among[0].strength();
            all.insert(account.to_owned(), Known { server: server.to_owned(), first: Some(first), strongest });
        }
    }

    /// What the next process should know about an account's server.
    pub(crate) fn learnt(&self, account: &str, now: UnixTime) -> Option<String> {
        let all = self.lock();
        let known = all.get(account)?;
        let first = known.first.as_ref().filter(|first| first.is_fresh(now))?;
        Some(first.to_text(&known.server))
    }

    /// Puts the way that led in before the others, and takes weaker ones out; true when the strongest of all is weaker than
    /// what was offered before, which is said once.
    pub(crate) fn order(
        &self,
        account: &str,
        server: &str,
        encrypted: bool,
        now: UnixTime,
        ways: &mut Vec<Way>,
    ) -> bool {
        let Some(strongest) = ways.first().map(|way| way.strength()) else { return false };
        let mut all = self.lock();
        let Some(known) = all.get_mut(account).filter(|known| known.server == server) else {
            if all.len() < MOST || all.contains_key(account) {
                all.insert(account.to_owned(), Known { server: server.to_owned(), first: None, strongest });
            }
            return false;
        };
        known.first = known.first.take().filter(|first| first.among == *ways);
        if let Some(first) = known.first.as_ref().filter(|first| encrypted && first.is_fresh(now))
            && let Some(at) = ways.iter().position(|way| *way == first.way)
        {
            ways[..=at].rotate_right(1);
            ways.retain(|way| way.strength() >= first.way.strength());
        }
        std::mem::replace(&mut known.strongest, strongest) > strongest
    }

    /// A way led in after a stronger one of these was refused.
    pub(crate) fn led_in(&self, account: &str, way: Way, among: &[Way], now: UnixTime) {
        if let Some(known) = self.lock().get_mut(account) {
            known.first = Some(First { way, since: now, among: among.to_vec() });
        }
    }

    /// The way that came first was refused.
    pub(crate) fn refused(&self, account: &str, way: Way) {
        if let Some(known) = self.lock().get_mut(account) {
            known.first = known.first.take().filter(|first| first.way != way);
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
    const ALL: [Way; 3] = [PLUS, SCRAM, PLAIN];

    fn ordered(logins: &Logins, server: &str, now: i64) -> Vec<Way> {
        let mut ways = ALL.to_vec();
        assert!(!logins.order("ann", server, true, UnixTime(now), &mut ways));
        ways
    }

    #[test]
    fn what_led_in_comes_first_for_a_day_at_this_server_and_until_it_is_refused() {
        let logins = Logins::default();
        assert_eq!(ordered(&logins, "a:993", 0), ALL);
        logins.led_in("ann", PLAIN, &ALL, UnixTime(5));
        assert_eq!(ordered(&logins, "a:993", 5), [PLAIN, PLUS, SCRAM]);
        assert_eq!(ordered(&logins, "a:993", 4 + FOR), [PLAIN, PLUS, SCRAM]);
        assert_eq!(ordered(&logins, "a:993", 5 + FOR), ALL);
        assert_eq!(ordered(&logins, "a:993", 4), ALL, "the clock ran backwards");
        logins.refused("ann", SCRAM);
        assert_eq!(ordered(&logins, "a:993", 6), [PLAIN, PLUS, SCRAM]);
        logins.refused("ann", PLAIN);
        assert_eq!(ordered(&logins, "a:993", 6), ALL);
        logins.led_in("ann", SCRAM, &ALL, UnixTime(7));
        assert_eq!(ordered(&logins, "b:993", 7), ALL);
    }

    #[test]
    fn what_led_in_comes_first_only_while_the_offer_is_the_same_and_encrypted() {
        let logins = Logins::default();
        ordered(&logins, "a:993", 0);
        logins.led_in("ann", SCRAM, &ALL, UnixTime(0));
        let mut in_clear = ALL.to_vec();
        assert!(!logins.order("ann", "a:993", false, UnixTime(1), &mut in_clear));
        assert_eq!(in_clear, ALL);
        assert_eq!(ordered(&logins, "a:993", 1), [SCRAM, PLUS], "nothing weaker follows");
        let mut less = vec![SCRAM, PLAIN];
        assert!(logins.order("ann", "a:993", true, UnixTime(1), &mut less));
        assert_eq!(less, [SCRAM, PLAIN]);
        assert_eq!(ordered(&logins, "a:993", 1), ALL, "it was forgotten");
    }

    #[test]
    fn the_next_process_knows_what_led_in_and_nothing_that_is_not_in_our_words() {
        let logins = Logins::default();
        ordered(&logins, "a:993", 0);
        assert_eq!(logins.learnt("ann", UnixTime(0)), None);
        logins.led_in("ann", SCRAM, &[PLUS, SCRAM, Way::Plain], UnixTime(5));
        let learnt = logins.learnt("ann", UnixTime(6)).expect("something is remembered");
        assert_eq!(learnt, "5 SCRAM-SHA-256 SCRAM-SHA-256-PLUS,SCRAM-SHA-256,- a:993");
        assert_eq!(logins.learnt("ann", UnixTime(5 + FOR)), None);

        let next = Logins::default();
        next.recall("ann", &learnt);
        let mut ways = vec![PLUS, SCRAM, Way::Plain];
        assert!(!next.order("ann", "a:993", true, UnixTime(7), &mut ways));
        assert_eq!((ways, next.learnt("ann", UnixTime(7))), (vec![SCRAM, PLUS], Some(learnt)));

        for text in
            ["", "5", "5 PLAIN PLAIN", "x - - a:993", "5 NTLM NTLM a:993", "5 PLAIN LOGIN a:993", "5 - -,X a:993"]
        {
            let next = Logins::default();
            next.recall("ann", text);
            assert_eq!(ordered(&next, "a:993", 5), ALL, "{text:?}");
        }
    }

    #[test]
    fn a_weaker_offer_than_before_is_said_once() {
        let logins = Logins::default();
        let offer = |way: Way| logins.order("ann", "a:993", true, UnixTime(0), &mut vec![way]);
        assert_eq!(
            [SCRAM, PLUS, SCRAM, SCRAM, PLAIN, PLAIN, SCRAM].map(offer),
            [false, false, true, false, true, false, false]
        );
    }
}
