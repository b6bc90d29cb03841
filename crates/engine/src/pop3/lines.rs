//! The lines of a listing as they come, and what they name of what is known.

use std::collections::{HashMap, HashSet};

use connectord_account::{Key, Ledger, Named, State};
use connectord_pop3::{MessageNumber, Uidl};
use connectord_store::Quiet;
use sha2::{Digest, Sha256};

use super::key_of;

/// Octets of unique-ids that are kept before what is known of them is read, some 150,000 messages: a mailbox with more
/// is not kept beside its ledger, and not at all while it may be the one that was quiet.
const KEPT: usize = 4 * 1024 * 1024;

/// Lines that are kept so, however short they are.
const KEPT_LINES: usize = 250_000;

/// Messages of which nothing is known that one session deals with, some 250 octets each; what more there are is left to
/// the next session. A server that names millions, or one of them millions of times, takes no more memory.
pub(super) const MOST_NEW: usize = 200_000;

/// The same where they are only to be passed over.
pub(super) const MOST_PASSED_OVER: usize = 1_000_000;

/// The lines of a listing that have not been sorted yet, and what they all say together.
pub(super) struct Lines {
    octets: Vec<u8>,
    /// The number of each line, and where its unique-id ends; one that cannot be read has no octets.
    ends: Vec<(MessageNumber, u32)>,
    count: u32,
    /// Each line had a unique-id that could be read, and they were numbered from 1 on without a gap.
    regular: bool,
    digest: Sha256,
    /// The listing that this one may repeat.
    quiet: Option<Quiet>,
    repeats: bool,
    /// Lines were forgotten that nobody has sorted.
    forgot: bool,
}

impl Lines {
    pub(super) fn new(quiet: Option<Quiet>) -> Self {
        let (octets, ends, digest) = (Vec::new(), Vec::new(), Sha256::new());
        let mut lines = Self { octets, ends, count: 0, regular: true, digest, quiet, repeats: false, forgot: false };
        lines.compare();
        lines
    }

    pub(super) fn push(&mut self, number: MessageNumber, uidl: Option<&Uidl>) {
        self.count = self.count.saturating_add(1);
        self.regular &= number.get() == self.count && uidl.is_some();
        if let Some(uidl) = uidl {
            let length = uidl.octets().len() as u32;
            self.digest.update(number.get().to_be_bytes());
            self.digest.update(length.to_be_bytes());
            self.digest.update(uidl.octets());
            self.octets.extend_from_slice(uidl.octets());
        }
        let end = u32::try_from(self.octets.len()).expect("it is sorted or forgotten long before");
        self.ends.push((number, end));
        self.compare();
    }

    /// Lines of which not even the number could be read.
    pub(super) fn unreadable(&mut self) {
        self.regular = false;
    }

    /// Forgets the lines as soon as they are all of a quiet listing, from its first to its last.
    fn compare(&mut self) {
        let Some(quiet) = self.quiet.filter(|quiet| quiet.messages == self.count) else { return };
        if self.regular && self.so_far() == quiet.digest {
            self.repeats = true;
            self.forget();
        }
    }

    /// Forgets the lines that have come; unless the listing repeats a quiet one, it must be asked for again.
    pub(super) fn forget(&mut self) {
        self.forgot = true;
        self.octets.clear();
        self.ends.clear();
    }

    /// Whether a listing that is not quiet after all must be asked for again, as lines of it were forgotten.
    pub(super) fn forgot(&self) -> bool {
        self.forgot
    }

    /// Whether it may still turn out to begin with all of a quiet listing.
    pub(super) fn may_repeat(&self) -> bool {
        self.regular && self.quiet.is_some_and(|quiet| self.count < quiet.messages)
    }

    fn so_far(&self) -> [u8; 16] {
        let digest = self.digest.clone().finalize();
        std::array::from_fn(|at| digest[at])
    }

    /// Whether the listing begins with all of a quiet one; what is left are the lines after it.
    pub(super) fn repeats(&self) -> bool {
        self.repeats
    }

    /// Names all lines, when nothing is odd about them.
    pub(super) fn digest(&self) -> Option<([u8; 16], u32)> {
        self.regular.then(|| (self.so_far(), self.count))
    }

    /// Whether there is more than is kept unsorted.
    pub(super) fn are_many(&self) -> bool {
        self.octets.len() > KEPT || self.ends.len() > KEPT_LINES
    }

    /// The keys of the lines that have not been sorted.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.unsorted().filter(|(_, octets)| !octets.is_empty()).map(|(_, octets)| key_of(octets)).collect()
    }

    fn unsorted(&self) -> impl Iterator<Item = (MessageNumber, &[u8])> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end as usize));
        self.ends.iter().zip(begins).map(|((number, end), begin)| (*number, &self.octets[begin..*end as usize]))
    }

    /// Sorts the lines that have come by what is known, and forgets them.
    pub(super) fn sort(&mut self, ledger: &mut Ledger, sorted: &mut Sorted) {
        // What follows is compared with what is known.
        self.quiet = None;
        // Looked up in the order of the ledger: in any other each look is at another page of memory.
        let mut keys: Vec<(Key, u32)> = Vec::with_capacity(self.ends.len());
        for (at, (number, octets)) in (0u32..).zip(self.unsorted()) {
            if sorted.is_named(number, octets) {
                keys.push((key_of(octets), at));
            }
        }
        keys.sort_unstable();
        for (key, at) in keys {
            let at = at as usize;
            let begin = at.checked_sub(1).map_or(0, |before| self.ends[before].1 as usize);
            let (number, end) = self.ends[at];
            sorted.push(ledger, number, key, &self.octets[begin..end as usize]);
        }
        self.octets.clear();
        self.ends.clear();
    }
}

/// The shorter an id, the sooner a server uses it again.
fn is_short(uidl: &Uidl) -> bool {
    uidl.octets().len() < 10 && uidl.octets().iter().all(u8::is_ascii_digit)
}

/// A message of which nothing is known.
pub(super) struct New {
    pub(super) number: MessageNumber,
    pub(super) key: Key,
    pub(super) uidl: Uidl,
}

/// The lines of a listing by what is known of them; those that name a known message once are marked in the ledger.
pub(super) struct Sorted {
    /// How many of each kind are kept.
    most: usize,
    /// There were more that are new or have no name: they are left for later.
    pub(super) left: bool,
    pub(super) new: Vec<New>,
    /// Messages without a name: unreadable, or a number or a name that is listed more than once.
    pub(super) unnamed: Vec<MessageNumber>,
    /// A unique-id was named more than once.
    pub(super) doubles: bool,
    /// A number was named more than once.
    pub(super) ambiguous: bool,
    /// Unique-ids of known messages that may be retrieved.
    pub(super) uidls: HashMap<MessageNumber, Uidl>,
    /// Known messages whose unique-id is short, in the order of their numbers.
    short: Vec<MessageNumber>,
    /// Known messages that were named again, and how they had been called before.
    again: Vec<(usize, u32)>,
    last: u32,
    /// Numbers did not rise from line to line, so that one may be there twice.
    disordered: bool,
}

impl Sorted {
    /// Keeps at most so many messages that are new, and so many without a name.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            left: false,
            new: Vec::new(),
            unnamed: Vec::new(),
            doubles: false,
            ambiguous: false,
            uidls: HashMap::new(),
            short: Vec::new(),
            again: Vec::new(),
            last: 0,
            disordered: false,
        }
    }

    fn push_unnamed(&mut self, number: MessageNumber) {
        if self.unnamed.len() < self.most {
            self.unnamed.push(number);
        } else {
            self.left = true;
        }
    }

    /// Notices the next line; whether it has a name, which is looked up later.
    fn is_named(&mut self, number: MessageNumber, octets: &[u8]) -> bool {
        self.disordered |= number.get() <= self.last;
        self.last = number.get();
        if octets.is_empty() {
            self.push_unnamed(number);
        }
        !octets.is_empty()
    }

    fn push(&mut self, ledger: &mut Ledger, number: MessageNumber, key: Key, octets: &[u8]) {
        let Ok(uidl) = Uidl::new(octets) else {
            self.push_unnamed(number);
            return;
        };
        match ledger.name(key, number.get()) {
            Named::Unknown if self.new.len() >= self.most => self.left = true,
            Named::Unknown => self.new.push(New { number, key, uidl }),
            Named::First(place) => {
                if is_short(&uidl) {
                    self.short.push(number);
                }
                if matches!(ledger.at(place).state, State::Pending | State::Done) {
                    self.uidls.insert(number, uidl);
                }
            }
            // Nothing can be made of a listing that repeats itself like that.
            Named::Again(..) if self.again.len() >= self.most => (self.ambiguous, self.left) = (true, true),
            Named::Again(place, before) => self.again.push((place, before)),
        }
    }

    /// Whether the unique-id of a known message is one that servers use again.
    pub(super) fn is_short(&self, number: MessageNumber) -> bool {
        self.short.binary_search(&number).is_ok()
    }

    /// The listing has ended: takes the name from whatever was named twice.
    pub(super) fn end(&mut self, ledger: &mut Ledger) {
        let again = std::mem::take(&mut self.again);
        self.doubles |= !again.is_empty();
        let places: HashSet<usize> = again.iter().map(|(place, _)| *place).collect();
        let mut numbers: Vec<u32> = again.iter().map(|(_, before)| *before).collect();
        for place in places {
            // Twice in one listing: none of them is named by it, the known one neither.
            numbers.push(ledger.number_of(place));
            ledger.unname(place);
        }
        self.new.sort_unstable_by_key(|new| new.key);
        let twice: HashSet<Key> =
            self.new.windows(2).filter(|pair| pair[0].key == pair[1].key).map(|pair| pair[0].key).collect();
        self.doubles |= !twice.is_empty();
        for new in self.new.extract_if(.., |new| twice.contains(&new.key)) {
            numbers.push(new.number.get());
        }
        self.unnamed.extend(numbers.into_iter().filter_map(MessageNumber::new));
        if self.disordered {
            self.end_disordered(ledger);
        }
        self.new.sort_unstable_by_key(|new| new.number);
        self.unnamed.sort_unstable();
        self.short.sort_unstable();
    }

    /// Named twice by number: neither line says what it is called.
    fn end_disordered(&mut self, ledger: &mut Ledger) {
        let mut times: HashMap<u32, u32> = HashMap::new();
        let known = (0..ledger.len()).map(|place| ledger.number_of(place)).filter(|number| *number != 0);
        let others = self.new.iter().map(|new| new.number).chain(self.unnamed.iter().copied());
        known.chain(others.map(MessageNumber::get)).for_each(|number| *times.entry(number).or_default() += 1);
        times.retain(|_, times| *times > 1);
        if times.is_empty() {
            return;
        }
        self.ambiguous = true;
        for place in 0..ledger.len() {
            if times.contains_key(&ledger.number_of(place)) {
                ledger.unname(place);
            }
        }
        self.new.retain(|new| !times.contains_key(&new.number.get()));
        self.unnamed.retain(|number| !times.contains_key(&number.get()));
        self.unnamed.extend(times.into_keys().filter_map(MessageNumber::new));
    }
}

#[cfg(test)]
mod tests {
    use connectord_account::Entry;

    use super::*;

    fn uidl(name: u32) -> Uidl {
        Uidl::new(format!("uid-{name}").as_bytes()).unwrap()
    }

    fn number(number: u32) -> MessageNumber {
        MessageNumber::new(number).unwrap()
    }

    fn listed(names: &[u32], quiet: Option<Quiet>) -> Lines {
        let mut lines = Lines::new(quiet);
        for (at, name) in names.iter().enumerate() {
            lines.push(number(at as u32 + 1), Some(&uidl(*name)));
        }
        lines
    }

    fn quiet(names: &[u32]) -> Option<Quiet> {
        let (digest, messages) = listed(names, None).digest()?;
        Some(Quiet { messages, digest, until: None, rules: 0 })
    }

    #[test]
    fn only_a_listing_that_begins_with_all_of_a_quiet_one_repeats_it() {
        assert!(listed(&[1, 2, 3], quiet(&[1, 2, 3])).repeats());
        let more = listed(&[1, 2, 3, 4, 5], quiet(&[1, 2, 3]));
        assert!(more.repeats());
        assert_eq!(more.keys(), [key_of(b"uid-4"), key_of(b"uid-5")]);
        assert!(listed(&[], quiet(&[])).repeats() && listed(&[9], quiet(&[])).repeats());
        for other in [&[1, 2][..], &[2, 1, 3], &[1, 3, 2, 3], &[1, 2, 4], &[0, 1, 2, 3], &[]] {
            assert!(!listed(other, quiet(&[1, 2, 3])).repeats(), "{other:?}");
        }
        // The same octets, cut otherwise.
        let mut cut = Lines::new(quiet(&[1, 2]));
        for (at, octets) in [&b"uid-1u"[..], b"id-2"].iter().enumerate() {
            cut.push(number(at as u32 + 1), Some(&Uidl::new(octets).unwrap()));
        }
        assert!(!cut.repeats());
    }

    #[test]
    fn what_was_forgotten_before_its_end_still_repeats_or_is_asked_for_again() {
        for (names, repeats) in [(&[1, 2, 3][..], true), (&[1, 2, 3, 4], true), (&[1, 2, 4], false), (&[1, 2], false)] {
            let mut lines = Lines::new(quiet(&[1, 2, 3]));
            for (at, name) in names.iter().enumerate() {
                lines.push(number(at as u32 + 1), Some(&uidl(*name)));
                if lines.may_repeat() {
                    lines.forget();
                }
            }
            assert_eq!((lines.repeats(), lines.forgot()), (repeats, true), "{names:?}");
            assert!(!repeats || lines.keys().len() == names.len() - 3);
        }
        let lines = listed(&[1, 2, 4], quiet(&[1, 2, 3]));
        assert!(!lines.forgot() && !lines.may_repeat());
    }

    #[test]
    fn a_listing_with_a_gap_or_an_unreadable_line_names_nothing_and_repeats_nothing() {
        let mut gap = Lines::new(quiet(&[1, 2]));
        gap.push(number(1), Some(&uidl(1)));
        gap.push(number(3), Some(&uidl(2)));
        assert!(!gap.repeats() && gap.digest().is_none());
        let mut unreadable = Lines::new(quiet(&[1]));
        unreadable.unreadable();
        unreadable.push(number(1), Some(&uidl(1)));
        assert!(!unreadable.repeats() && unreadable.digest().is_none());
        let mut nameless = Lines::new(None);
        nameless.push(number(1), None);
        assert!(nameless.digest().is_none());
    }

    #[test]
    fn of_more_than_one_session_deals_with_the_rest_is_left_and_nothing_is_concluded_from_it() {
        let mut ledger = Ledger::new(vec![Entry::new(key_of(uidl(1).octets()), State::Delivered)]);
        let (mut lines, mut sorted) = (listed(&[1, 2, 3, 4, 5, 1, 1, 1], None), Sorted::new(2));
        lines.push(number(9), None);
        lines.sort(&mut ledger, &mut sorted);
        assert_eq!((sorted.new.len(), sorted.unnamed.len(), sorted.left, sorted.ambiguous), (2, 1, true, true));
        let mut sorted = Sorted::new(2);
        listed(&[2, 3], None).sort(&mut ledger, &mut sorted);
        assert_eq!((sorted.new.len(), sorted.left), (2, false));
    }

    #[test]
    fn each_line_names_one_message_or_none_whatever_is_listed_twice() {
        let mut state = 7u64;
        let mut any = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below) as u32
        };
        for _ in 0..3_000 {
            let known: HashSet<u32> = (0..any(8)).map(|_| any(12)).collect();
            let listing: Vec<(u32, Option<u32>)> =
                (0..any(14)).map(|_| (1 + any(11), (any(10) > 0).then(|| any(12)))).collect();
            each_line_names_one_message_or_none(&known, &listing, 1 + any(4));
        }
    }

    fn each_line_names_one_message_or_none(known: &HashSet<u32>, listing: &[(u32, Option<u32>)], pieces: u32) {
        let key = |name: u32| key_of(uidl(name).octets());
        let mut ledger = Ledger::new(known.iter().map(|name| Entry::new(key(*name), State::Delivered)).collect());
        let (mut lines, mut sorted) = (Lines::new(None), Sorted::new(MOST_NEW));
        for (at, (line, name)) in listing.iter().enumerate() {
            lines.push(number(*line), name.map(uidl).as_ref());
            if at % pieces as usize == 0 {
                lines.sort(&mut ledger, &mut sorted);
            }
        }
        lines.sort(&mut ledger, &mut sorted);
        sorted.end(&mut ledger);
        let numbered = |number: u32| listing.iter().filter(|(other, _)| *other == number).count();
        let named = |name: u32| listing.iter().filter(|(_, other)| *other == Some(name)).count();
        let says = |(line, name): (u32, Option<u32>)| name.filter(|name| numbered(line) == 1 && named(*name) == 1);
        let lines = || listing.iter().copied();
        let mut new: Vec<u32> = lines()
            .filter(|line| says(*line).is_some_and(|name| !known.contains(&name)))
            .map(|(line, _)| line)
            .collect();
        new.sort_unstable();
        assert_eq!(sorted.new.iter().map(|new| new.number.get()).collect::<Vec<_>>(), new, "{known:?} {listing:?}");
        let mut unnamed: Vec<u32> = lines().filter(|line| says(*line).is_none()).map(|(line, _)| line).collect();
        unnamed.sort_unstable();
        unnamed.dedup();
        let found: Vec<u32> = sorted.unnamed.iter().map(|number| number.get()).collect();
        assert_eq!(found, unnamed, "{known:?} {listing:?}");
        let mut found: Vec<(u32, Key)> = ledger.named().map(|(line, entry)| (line, entry.key)).collect();
        let of_known =
            |line: (u32, Option<u32>)| says(line).filter(|name| known.contains(name)).map(|name| (line.0, key(name)));
        let mut wanted: Vec<(u32, Key)> = lines().filter_map(of_known).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{known:?} {listing:?}");
    }
}
