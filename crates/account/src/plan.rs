use std::time::Duration;

use connectord_mail::UnixTime;

use crate::{Entry, Key, Ledger, Oversize, Retention, State};

/// What decides about the messages of one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What happens to remote copies.
    pub retention: Retention,
    /// Messages larger than this many octets are not retrieved.
    pub max_message_octets: Option<u64>,
    /// What becomes of them.
    pub oversize: Oversize,
    /// Whether waits after failures are passed over: a check by hand.
    pub ignore_waits: bool,
    /// Whether the server uses keys again: a removal in a later session than the retrieval compares the message first.
    pub keys_recur: bool,
    /// Whether the clock is trusted: after a jump forward nothing is due until it has been confirmed.
    pub removals_allowed: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            retention: Retention::Never,
            max_message_octets: None,
            oversize: Oversize::Park,
            ignore_waits: false,
            keys_recur: false,
            removals_allowed: true,
        }
    }
}

/// One message as the server lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub key: Key,
    /// Its announced size, when it was asked for.
    pub size_octets: Option<u64>,
}

impl Listed {
    /// A message of which only the name is known.
    pub fn new(key: Key) -> Self {
        Self { key, size_octets: None }
    }
}

/// What to do with one listed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Retrieve it; `attempt` counts from 1.
    Retrieve {
        /// The how manieth attempt this is.
        attempt: u32,
        /// The generation of its key.
        generation: u16,
    },
    /// Remove it, once it is certain enough that its key still means it.
    Remove {
        /// The generation of its key.
        generation: u16,
        /// What must be compared with the entry first.
        verify: Verify,
    },
    /// It was gone and is listed again: compare its header; if it differs, it is a new message of the next generation.
    Compare {
        /// The generation known so far.
        generation: u16,
    },
    /// It is too large: park or skip it.
    TooLarge {
        /// Its announced size.
        size_octets: u64,
        /// Park it, or skip it.
        oversize: Oversize,
    },
    /// Named twice in one listing: this name says nothing.
    Ambiguous,
    /// Nothing now.
    Leave,
}

/// What must be compared with what is known of a message before it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verify {
    /// Nothing: its key means it and no other.
    Nothing,
    /// Its header: the key may mean another message by now.
    Header,
    /// All of it: only its header ever said that it is this message.
    Content,
}

/// How much of the mailbox a listing covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it, its terminator read and its count agreeing: evidence of absence.
    Complete,
    /// Only a part, such as UIDs above a mark, or one that ended early: no evidence.
    Partial,
}

/// What the end of a listing says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing may be concluded.
    Nothing,
    /// These are gone from the server: [`State::Done`] now.
    Gone(Vec<(Key, u16)>),
    /// More than half, and at least 20, of the known messages are missing. Believed only the third time, a day later.
    MassAbsence {
        /// Those that would be gone.
        gone: Vec<(Key, u16)>,
        /// How many messages the listing should have had.
        known: usize,
    },
}

/// Says of each listed message what to do with it, entry by entry.
#[derive(Clone, Debug)]
pub struct Planner {
    ledger: Ledger,
    rules: Rules,
    now: UnixTime,
}

/// Fewer missing messages than this are never a mass absence.
const MASS: usize = 20;

impl Planner {
    /// Starts a listing at `now`.
    pub fn new(ledger: Ledger, rules: Rules, now: UnixTime) -> Self {
        Self { ledger, rules, now }
    }

    /// What is known.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Known messages that the listing has not named so far, those that are gone for good left out.
    pub fn missing(&self) -> impl Iterator<Item = Entry> + '_ {
        self.ledger.unseen().filter(|entry| entry.state != State::Done)
    }

    /// Decides about one listed message.
    pub fn see(&mut self, listed: Listed) -> Decision {
        match self.ledger.mark(listed.key) {
            None => self.new_message(listed),
            Some((_, true)) => Decision::Ambiguous,
            Some((entry, false)) => self.decide(&entry),
        }
    }

    /// What is known, to be named by a listing first and decided about later.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Decides about a known message that is listed.
    pub fn decide(&self, entry: &Entry) -> Decision {
        let Entry { generation, state, key, .. } = *entry;
        let remove = |doubtful: bool| {
            let verify = match (entry.adopted, doubtful) {
                (true, _) => Verify::Content,
                (false, true) => Verify::Header,
                (false, false) => Verify::Nothing,
            };
            Decision::Remove { generation, verify }
        };
        match state {
            State::Pending if self.now >= entry.retry_at || self.rules.ignore_waits || self.clock_ran_back(entry) => {
                // The size limit let it pass once, or a person wants it whatever its size.
                Decision::Retrieve { attempt: u32::from(entry.attempts) + 1, generation }
            }
            State::Delivered if self.is_due(entry) => remove(self.rules.keys_recur),
            // Asked for and unanswered, or refused: the message may be gone and its number another's by now.
            State::Removing if self.rules.removals_allowed && self.now >= entry.retry_at => {
                remove(matches!(key, Key::Digest(_)))
            }
            // A person's word is due at once, whatever the clock says; it may have been asked for before.
            State::Discarding
                if self.now >= entry.retry_at || self.rules.ignore_waits || self.clock_ran_back(entry) =>
            {
                remove(matches!(key, Key::Digest(_)))
            }
            State::Done => match key {
                // RFC 9051 §2.3.1.1: a UID is never used again; an earlier listing was wrong.
                Key::Uid(_) if self.is_due(entry) => remove(false),
                Key::Uid(_) => Decision::Leave,
                Key::Digest(_) => Decision::Compare { generation },
            },
            State::Pending
            | State::Delivered
            | State::Removing
            | State::Skipped
            | State::Parked
            | State::Discarding => Decision::Leave,
        }
    }

    /// When a known message that is listed, and about which nothing is to be done, may be due by these rules; `None`:
    /// never, unless somebody decides about it.
    ///
    /// Before then [`Planner::decide`] says [`Decision::Leave`] at any time, whatever the clock did meanwhile, unless a
    /// person asks for waits to be passed over.
    pub fn due_at(&self, entry: &Entry) -> Option<UnixTime> {
        let after = |since: UnixTime, span: Duration| (since.0 > 0).then(|| since.plus(span).max(entry.retry_at));
        match entry.state {
            State::Skipped | State::Parked => None,
            State::Delivered => match self.rules.retention {
                Retention::Never => None,
                Retention::Immediately => Some(entry.delivered_at.max(entry.retry_at)),
                Retention::AfterDelivery(span) => after(entry.delivered_at, span),
                Retention::ByAge(span) => after(entry.arrived_at, span).map(|due| due.max(entry.delivered_at)),
            },
            // They wait for something else as well: at any time.
            State::Pending | State::Removing | State::Discarding | State::Done => Some(UnixTime(i64::MIN)),
        }
    }

    /// Ends the listing.
    pub fn finish(&self, scope: Scope) -> Finding {
        if scope == Scope::Partial {
            return Finding::Nothing;
        }
        let known = self.ledger.active();
        let gone: Vec<_> = self
            .ledger
            .unseen()
            .filter(|entry| entry.state != State::Done)
            .map(|entry| (entry.key, entry.generation))
            .collect();
        // Removals that we asked for are no surprise.
        let surprising = self.ledger.unseen().filter(|entry| !is_ours_to_miss(entry.state)).count();
        if surprising >= MASS && surprising * 2 > known {
            return Finding::MassAbsence { gone, known };
        }
        Finding::Gone(gone)
    }

    fn new_message(&self, listed: Listed) -> Decision {
        match (listed.size_octets, self.rules.max_message_octets) {
            (Some(size_octets), Some(limit)) if size_octets > limit => {
                Decision::TooLarge { size_octets, oversize: self.rules.oversize }
            }
            _ => Decision::Retrieve { attempt: 1, generation: 0 },
        }
    }

    fn is_due(&self, entry: &Entry) -> bool {
        let waited = |since: UnixTime, span: Duration| since.0 > 0 && self.now >= since.plus(span);
        self.rules.removals_allowed
            && self.now >= entry.retry_at
            && match self.rules.retention {
                Retention::Never => false,
                // A delivery in the future: the clock ran backwards, and nothing is due by it.
                Retention::Immediately => self.now >= entry.delivered_at,
                Retention::AfterDelivery(span) => waited(entry.delivered_at, span),
                Retention::ByAge(span) => waited(entry.arrived_at, span) && self.now >= entry.delivered_at,
            }
    }

    /// A wait of more than two days was never set by us: the clock was ahead when it was, and is right now.
    fn clock_ran_back(&self, entry: &Entry) -> bool {
        entry.retry_at > self.now.plus(Duration::from_secs(2 * 86_400))
    }
}

/// Whether it is gone already, or may be because its removal was asked for.
fn is_ours_to_miss(state: State) -> bool {
    matches!(state, State::Done | State::Removing | State::Discarding)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;

    fn entry(key: u32, state: State) -> Entry {
        Entry { delivered_at: UnixTime(10 * DAY), arrived_at: UnixTime(9 * DAY), ..Entry::new(Key::Uid(key), state) }
    }

    fn digest(n: u8) -> Key {
        Key::Digest([n; 16])
    }

    fn decide(entry: Entry, rules: Rules, now: i64) -> Decision {
        let key = entry.key;
        Planner::new(Ledger::new(vec![entry]), rules, UnixTime(now)).see(Listed::new(key))
    }

    fn keep(retention: Retention) -> Rules {
        Rules { retention, ..Rules::default() }
    }

    #[test]
    fn a_removal_is_due_to_the_second() {
        let week = keep(Retention::AfterDelivery(Duration::from_secs(7 * 86_400)));
        let remove = Decision::Remove { generation: 0, verify: Verify::Nothing };
        assert_eq!(decide(entry(1, State::Delivered), week, 17 * DAY - 1), Decision::Leave);
        assert_eq!(decide(entry(1, State::Delivered), week, 17 * DAY), remove);
        let age = keep(Retention::ByAge(Duration::from_secs(7 * 86_400)));
        assert_eq!(decide(entry(1, State::Delivered), age, 16 * DAY), remove);
        assert_eq!(decide(entry(1, State::Delivered), keep(Retention::Never), i64::MAX), Decision::Leave);
    }

    #[test]
    fn a_clock_that_ran_backwards_makes_nothing_due() {
        for retention in
            [Retention::Immediately, Retention::AfterDelivery(Duration::ZERO), Retention::ByAge(Duration::ZERO)]
        {
            assert_eq!(decide(entry(1, State::Delivered), keep(retention), 9 * DAY), Decision::Leave);
        }
    }

    #[test]
    fn an_unconfirmed_clock_removes_nothing() {
        let rules = Rules { removals_allowed: false, ..keep(Retention::Immediately) };
        for state in [State::Delivered, State::Removing, State::Done] {
            assert_eq!(decide(entry(1, state), rules, 20 * DAY), Decision::Leave);
        }
    }

    #[test]
    fn nothing_but_new_and_pending_messages_is_retrieved() {
        let states = [State::Delivered, State::Removing, State::Done, State::Skipped, State::Parked, State::Discarding];
        for state in states {
            let decision = decide(entry(1, state), keep(Retention::Immediately), 20 * DAY);
            assert!(!matches!(decision, Decision::Retrieve { .. }), "{state:?}");
        }
    }

    #[test]
    fn a_pending_message_waits_for_its_time_except_by_hand() {
        let pending = Entry { retry_at: UnixTime(11 * DAY), attempts: 2, ..entry(1, State::Pending) };
        let again = Decision::Retrieve { attempt: 3, generation: 0 };
        assert_eq!(decide(pending, Rules::default(), 11 * DAY - 1), Decision::Leave);
        assert_eq!(decide(pending, Rules::default(), 11 * DAY), again);
        assert_eq!(decide(pending, Rules { ignore_waits: true, ..Rules::default() }, 1), again);
    }

    #[test]
    fn a_unique_id_that_comes_back_is_compared_and_a_uid_is_not() {
        let done = Entry { key: digest(1), generation: 4, ..entry(0, State::Done) };
        assert_eq!(decide(done, Rules::default(), 20 * DAY), Decision::Compare { generation: 4 });
        assert_eq!(decide(entry(1, State::Done), Rules::default(), 20 * DAY), Decision::Leave);
    }

    #[test]
    fn an_unanswered_removal_of_a_unique_id_compares_first() {
        let removing = Entry { key: digest(1), ..entry(0, State::Removing) };
        let verify = Decision::Remove { generation: 0, verify: Verify::Header };
        assert_eq!(decide(removing, keep(Retention::Never), 20 * DAY), verify);
    }

    #[test]
    fn what_only_its_header_named_is_not_removed_before_all_of_it_is_compared() {
        let content = Decision::Remove { generation: 0, verify: Verify::Content };
        for state in [State::Delivered, State::Removing, State::Done, State::Discarding] {
            let adopted = Entry { adopted: true, ..entry(1, state) };
            assert_eq!(decide(adopted, keep(Retention::Immediately), 20 * DAY), content, "{state:?}");
        }
    }

    #[test]
    fn what_a_person_discards_is_removed_at_once_and_waits_only_after_a_refusal() {
        let remove = |verify| Decision::Remove { generation: 0, verify };
        let discarding = entry(1, State::Discarding);
        assert_eq!(decide(discarding, keep(Retention::Never), 20 * DAY), remove(Verify::Nothing));
        let jumped = Rules { removals_allowed: false, ..keep(Retention::Never) };
        assert_eq!(decide(discarding, jumped, 20 * DAY), remove(Verify::Nothing));
        let by_unique_id = Entry { key: digest(1), ..discarding };
        assert_eq!(decide(by_unique_id, keep(Retention::Never), 20 * DAY), remove(Verify::Header));
        let refused = Entry { retry_at: UnixTime(20 * DAY + 1), ..discarding };
        assert_eq!(decide(refused, keep(Retention::Never), 20 * DAY), Decision::Leave);
    }

    #[test]
    fn a_key_named_twice_says_nothing() {
        let mut planner = Planner::new(Ledger::new(vec![entry(1, State::Delivered)]), Rules::default(), UnixTime(0));
        planner.see(Listed::new(Key::Uid(1)));
        assert_eq!(planner.see(Listed::new(Key::Uid(1))), Decision::Ambiguous);
    }

    #[test]
    fn too_large_a_message_is_not_retrieved_and_one_without_size_is() {
        let rules = Rules { max_message_octets: Some(10), ..Rules::default() };
        let mut planner = Planner::new(Ledger::default(), rules, UnixTime(0));
        let see = |planner: &mut Planner, size_octets| planner.see(Listed { key: Key::Uid(1), size_octets });
        assert_eq!(see(&mut planner, Some(11)), Decision::TooLarge { size_octets: 11, oversize: Oversize::Park });
        assert_eq!(see(&mut planner, Some(10)), Decision::Retrieve { attempt: 1, generation: 0 });
        assert_eq!(see(&mut planner, None), Decision::Retrieve { attempt: 1, generation: 0 });
    }

    #[test]
    fn too_large_a_message_is_retrieved_when_a_person_says_so() {
        let rules = Rules { max_message_octets: Some(10), ..Rules::default() };
        let mut planner = Planner::new(Ledger::new(vec![entry(1, State::Pending)]), rules, UnixTime(0));
        let listed = Listed { key: Key::Uid(1), size_octets: Some(11) };
        assert_eq!(planner.see(listed), Decision::Retrieve { attempt: 1, generation: 0 });
    }

    #[test]
    fn only_a_complete_listing_is_evidence_of_absence() {
        let planner = Planner::new(Ledger::new(vec![entry(1, State::Delivered)]), Rules::default(), UnixTime(0));
        assert_eq!(planner.finish(Scope::Partial), Finding::Nothing);
        assert_eq!(planner.finish(Scope::Complete), Finding::Gone(vec![(Key::Uid(1), 0)]));
    }

    #[test]
    fn a_mass_absence_is_not_believed_at_once_but_our_own_removals_are() {
        let delivered: Vec<_> = (1..=30).map(|uid| entry(uid, State::Delivered)).collect();
        let planner = Planner::new(Ledger::new(delivered), Rules::default(), UnixTime(0));
        assert!(matches!(planner.finish(Scope::Complete), Finding::MassAbsence { known: 30, .. }));
        let removing: Vec<_> = (1..=30).map(|uid| entry(uid, State::Removing)).collect();
        let planner = Planner::new(Ledger::new(removing), Rules::default(), UnixTime(0));
        assert!(matches!(planner.finish(Scope::Complete), Finding::Gone(gone) if gone.len() == 30));
    }

    fn any_retention() -> impl Strategy<Value = Retention> {
        let span = (0u64..20 * 86_400).prop_map(Duration::from_secs);
        prop_oneof![
            Just(Retention::Never),
            Just(Retention::Immediately),
            span.clone().prop_map(Retention::AfterDelivery),
            span.prop_map(Retention::ByAge),
        ]
    }

    fn any_state() -> impl Strategy<Value = State> {
        prop_oneof![
            Just(State::Pending),
            Just(State::Delivered),
            Just(State::Removing),
            Just(State::Done),
            Just(State::Skipped),
            Just(State::Parked),
            Just(State::Discarding)
        ]
    }

    proptest! {
        #[test]
        fn what_was_not_delivered_is_never_removed_and_what_was_is_never_retrieved(
            state in any_state(), now in 0i64..40 * DAY, delivered in 0i64..40 * DAY, immediately: bool,
        ) {
            let retention = if immediately { Retention::Immediately } else { Retention::AfterDelivery(Duration::from_secs(86_400)) };
            let known = Entry { delivered_at: UnixTime(delivered), ..entry(1, state) };
            match decide(known, keep(retention), now) {
                Decision::Remove { .. } => prop_assert!(matches!(
                    state,
                    State::Delivered | State::Removing | State::Done | State::Discarding
                )),
                Decision::Retrieve { .. } => prop_assert_eq!(state, State::Pending),
                _ => {}
            }
        }

        #[test]
        fn nothing_is_due_before_the_time_that_was_told(
            state in any_state(), now in 0i64..40 * DAY, retention in any_retention(), removals_allowed: bool,
            delivered in 0i64..40 * DAY, arrived in 0i64..40 * DAY, retry in 0i64..40 * DAY, ignore_waits: bool,
        ) {
            let known = Entry {
                delivered_at: UnixTime(delivered), arrived_at: UnixTime(arrived), retry_at: UnixTime(retry),
                ..Entry { key: digest(1), ..entry(1, state) }
            };
            let rules = Rules { removals_allowed, ignore_waits, ..keep(retention) };
            let planner = Planner::new(Ledger::default(), rules, UnixTime(now));
            let due = planner.due_at(&known);
            if due.is_none_or(|due| UnixTime(now) < due) {
                prop_assert_eq!(planner.decide(&known), Decision::Leave);
            } else if removals_allowed && state == State::Delivered {
                prop_assert_ne!(planner.decide(&known), Decision::Leave, "it is told no sooner than it is due");
            }
        }

        #[test]
        fn a_listing_finds_gone_exactly_what_it_did_not_name(listed in proptest::collection::btree_set(0u32..40, 0..40)) {
            let entries: Vec<_> = (0..40).map(|uid| entry(uid, State::Removing)).collect();
            let mut planner = Planner::new(Ledger::new(entries), Rules::default(), UnixTime(0));
            for uid in &listed { let _ = planner.see(Listed::new(Key::Uid(*uid))); }
            let gone: Vec<_> = (0..40).filter(|uid| !listed.contains(uid)).map(|uid| (Key::Uid(uid), 0)).collect();
            prop_assert_eq!(planner.finish(Scope::Complete), Finding::Gone(gone));
        }
    }
}
