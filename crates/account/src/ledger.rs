use std::collections::BTreeMap;

use connectord_mail::{Fingerprint, UnixTime};
use serde::{Deserialize, Serialize};

/// What names a message in its mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// IMAP: the UID under the mailbox's UIDVALIDITY.
    Uid(u32),
    /// POP3: the first 16 octets of the SHA-256 of the unique-id, or of the message where the server has no usable
    /// unique-ids.
    Digest([u8; 16]),
}

impl Key {
    /// The octets that go into a [`connectord_mail::Identity`].
    pub fn octets(&self) -> Vec<u8> {
        match self {
            Self::Uid(uid) => uid.to_be_bytes().to_vec(),
            Self::Digest(digest) => digest.to_vec(),
        }
    }
}

/// What is known about one message; the state is derived from those of its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the mailbox.
    pub key: Key,
    /// Counts up when a unique-id came back for a different message.
    pub generation: u16,
    /// Where it stands.
    pub state: State,
    /// When its last delivery was committed; 0 before that.
    pub delivered_at: UnixTime,
    /// When it arrived at the provider, as far as known; 0 when not.
    pub arrived_at: UnixTime,
    /// Recognises it under another identity.
    pub fingerprint: Fingerprint,
    /// For [`State::Pending`]: not before then; also of a refused removal.
    pub retry_at: UnixTime,
    /// Attempts so far that failed.
    pub attempts: u16,
    /// It has its name by its header only, since the server gave it another: nothing is removed on that evidence. Once
    /// its whole content has been compared with the fingerprint, or it was delivered under this name, it is not any more.
    pub adopted: bool,
    /// A person wants it delivered whatever speaks against it.
    pub anyway: bool,
}

impl Entry {
    /// An entry about which nothing else is known.
    pub fn new(key: Key, state: State) -> Self {
        Self {
            key,
            generation: 0,
            state,
            delivered_at: UnixTime(0),
            arrived_at: UnixTime(0),
            fingerprint: Fingerprint::default(),
            retry_at: UnixTime(0),
            attempts: 0,
            adopted: false,
            anyway: false,
        }
    }
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Seen, and not delivered to all its recipients; the remote copy is the spool.
    Pending,
    /// Delivered to all its recipients; the remote copy is there by policy, or its removal is due.
    Delivered,
    /// Delivered, and its removal may have been asked for.
    Removing,
    /// Delivered, and gone from the server, seen absent in a complete listing.
    Done,
    /// Left alone: it was there before the account was set up, or it is larger than the limit that skips.
    Skipped,
    /// Refused for good, or failed too often: waits for a person.
    Parked,
    /// Not delivered to everybody, and a person wants its remote copy removed all the same; that may have been asked for.
    Discarding,
}

/// What is known about the messages of one mailbox, sorted by key, and which of them the current listing has named.
///
/// Memory for each message: 16 octets and its key (4 for a UID, 16 for a digest), 20 more with fingerprints; those of
/// which more is known than this takes have their [`Entry`] beside.
///
/// ```
/// use connectord_account::{Entry, Key, Ledger, State};
/// let mut ledger = Ledger::without_fingerprints();
/// for uid in 1..=3 {
///     ledger.push(Entry::new(Key::Uid(uid), State::Delivered));
/// }
/// assert_eq!((ledger.len(), ledger.get(Key::Uid(2)).map(|entry| entry.state)), (3, Some(State::Delivered)));
/// ```
#[derive(Clone, Debug)]
pub struct Ledger {
    uids: Vec<u32>,
    /// Sorts behind the UIDs, as [`Key`] does; a mailbox has one sort or the other.
    digests: Vec<[u8; 16]>,
    rows: Vec<Row>,
    /// Empty without fingerprints.
    prints: Vec<Print>,
    with_prints: bool,
    /// Entries that do not fit into a row, by their place.
    beside: BTreeMap<u32, Entry>,
}

/// What is known of most messages.
#[derive(Clone, Copy, Debug)]
struct Row {
    delivered_at: u32,
    arrived_at: u32,
    /// What the listing calls it; 0 when it has not named it.
    named: u32,
    generation: u16,
    state: State,
    adopted: bool,
}

// What [`Ledger`]'s documentation promises.
const _: () = assert!(size_of::<Row>() == 16 && size_of::<Print>() == 20);

/// A fingerprint without the octets that its alignment takes.
#[derive(Clone, Copy, Debug)]
struct Print([u32; 5]);

impl Print {
    fn pack(print: &Fingerprint) -> Self {
        let halves = |whole: u64| [(whole >> 32) as u32, whole as u32];
        let ([a, b], [c, d]) = (halves(print.head), halves(print.body));
        Self([a, b, c, d, print.size])
    }

    fn unpack(self) -> Fingerprint {
        let Self([a, b, c, d, size]) = self;
        let whole = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        Fingerprint { head: whole(a, b), body: whole(c, d), size }
    }
}

/// Whether the current listing has named a message before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Nothing is known of it.
    Unknown,
    /// For the first time; the message has this place in the ledger.
    First(usize),
    /// Again: the message at this place had been named before, as this.
    Again(usize, u32),
}

impl Default for Ledger {
    fn default() -> Self {
        Self::empty(true)
    }
}

impl Ledger {
    /// Sorts what the store remembers. Of several generations of a key only the newest counts.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by_key(|entry| (entry.key, entry.generation));
        let mut ledger = Self::default();
        entries.into_iter().for_each(|entry| ledger.push(entry));
        ledger
    }

    /// An empty one that keeps no fingerprints: those of its entries say nothing.
    pub fn without_fingerprints() -> Self {
        Self::empty(false)
    }

    fn empty(with_prints: bool) -> Self {
        let (uids, digests, rows, prints) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { uids, digests, rows, prints, with_prints, beside: BTreeMap::new() }
    }

    /// Adds what is known of one more message: by ascending key, and generation of the same key, of which the last counts.
    ///
    /// # Panics
    /// When the key is less than the last one.
    pub fn push(&mut self, entry: Entry) {
        let last = self.rows.len().checked_sub(1).map(|last| self.key_at(last));
        assert!(last.is_none_or(|last| last <= entry.key), "entries come in the order of their keys");
        if last == Some(entry.key) {
            self.beside.remove(&(self.rows.len() as u32 - 1));
            self.rows.pop();
            self.prints.pop();
        } else {
            match entry.key {
                Key::Uid(uid) => self.uids.push(uid),
                Key::Digest(digest) => self.digests.push(digest),
            }
        }
        if self.with_prints {
            self.prints.push(Print::pack(&entry.fingerprint));
        }
        let Entry { generation, state, adopted, .. } = entry;
        let time = |time: UnixTime| u32::try_from(time.0).unwrap_or(0);
        let (delivered_at, arrived_at) = (time(entry.delivered_at), time(entry.arrived_at));
        self.rows.push(Row { delivered_at, arrived_at, named: 0, generation, state, adopted });
        let place = self.rows.len() - 1;
        let fingerprint = if self.with_prints { entry.fingerprint } else { Fingerprint::default() };
        let entry = Entry { fingerprint, ..entry };
        if self.at(place) != entry {
            self.beside.insert(place as u32, entry);
        }
    }

    /// Number of messages known.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is known: a new account, or a renumbered mailbox.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is known of one message.
    pub fn get(&self, key: Key) -> Option<Entry> {
        self.position(key).map(|at| self.at(at))
    }

    /// What is known of the message at a place, of [`Ledger::len`].
    ///
    /// # Panics
    /// When there is no such place.
    pub fn at(&self, place: usize) -> Entry {
        if let Some(entry) = self.beside.get(&(place as u32)) {
            return *entry;
        }
        let Row { delivered_at, arrived_at, generation, state, adopted, .. } = self.rows[place];
        Entry {
            generation,
            delivered_at: UnixTime(delivered_at.into()),
            arrived_at: UnixTime(arrived_at.into()),
            fingerprint: self.prints.get(place).map_or_else(Fingerprint::default, |print| print.unpack()),
            adopted,
            ..Entry::new(self.key_at(place), state)
        }
    }

    /// All entries in the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.len()).map(|place| self.at(place))
    }

    /// The current listing names a message, as `number`, which is not 0.
    pub fn name(&mut self, key: Key, number: u32) -> Named {
        let Some(place) = self.position(key) else { return Named::Unknown };
        match std::mem::replace(&mut self.rows[place].named, number) {
            0 => Named::First(place),
            before => Named::Again(place, before),
        }
    }

    /// What the current listing called a message says nothing: it is as if it had not named it.
    pub fn unname(&mut self, place: usize) {
        self.rows[place].named = 0;
    }

    /// How the current listing called the message at a place; 0 when it has not named it.
    pub fn number_of(&self, place: usize) -> u32 {
        self.rows[place].named
    }

    /// Entries the current listing has named, and how it called them.
    pub fn named(&self) -> impl Iterator<Item = (u32, Entry)> + '_ {
        let places = self.rows.iter().enumerate().filter(|(_, row)| row.named != 0);
        places.map(|(place, row)| (row.named, self.at(place)))
    }

    /// Marks a key as listed; `None` when it is unknown, else the entry and whether it had been listed before.
    pub(crate) fn mark(&mut self, key: Key) -> Option<(Entry, bool)> {
        match self.name(key, 1) {
            Named::Unknown => None,
            Named::First(place) => Some((self.at(place), false)),
            Named::Again(place, _) => Some((self.at(place), true)),
        }
    }

    /// Entries the current listing has not named.
    pub(crate) fn unseen(&self) -> impl Iterator<Item = Entry> + '_ {
        let places = self.rows.iter().enumerate().filter(|(_, row)| row.named == 0);
        places.map(|(place, _)| self.at(place))
    }

    /// How many are not gone from the server.
    pub fn active(&self) -> usize {
        self.rows.iter().filter(|row| row.state != State::Done).count()
    }

    fn key_at(&self, place: usize) -> Key {
        match self.uids.get(place) {
            Some(uid) => Key::Uid(*uid),
            None => Key::Digest(self.digests[place - self.uids.len()]),
        }
    }

    fn position(&self, key: Key) -> Option<usize> {
        match key {
            Key::Uid(uid) => self.uids.binary_search(&uid).ok(),
            Key::Digest(digest) => self.digests.binary_search(&digest).ok().map(|at| at + self.uids.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let key = prop_oneof![(0u32..50).prop_map(Key::Uid), (0u8..50).prop_map(|octet| Key::Digest([octet; 16])),];
        let state = prop_oneof![Just(State::Pending), Just(State::Delivered), Just(State::Done), Just(State::Parked)];
        let time = prop_oneof![Just(0), Just(-1), Just(i64::MAX), Just(i64::from(u32::MAX)), 0i64..4_000_000_000];
        let rare = (prop_oneof![9 => Just(0), 1 => 0i64..9], prop_oneof![9 => Just(0u16), 1 => 0u16..9], any::<bool>());
        let print = any::<(u64, u64, u32)>();
        (key, 0u16..3, state, time.clone(), time, print, rare, any::<bool>()).prop_map(
            |(key, generation, state, delivered, arrived, (head, body, size), (retry, attempts, adopted), anyway)| {
                Entry {
                    generation,
                    delivered_at: UnixTime(delivered),
                    arrived_at: UnixTime(arrived),
                    fingerprint: Fingerprint { head, body, size },
                    retry_at: UnixTime(retry),
                    attempts,
                    adopted,
                    anyway,
                    ..Entry::new(key, state)
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_the_same_and_of_each_key_the_newest_generation_counts(
            entries in proptest::collection::vec(any_entry(), 0..60),
        ) {
            let mut wanted: BTreeMap<Key, Entry> = BTreeMap::new();
            let mut sorted = entries.clone();
            sorted.sort_unstable_by_key(|entry| (entry.key, entry.generation));
            for entry in &sorted {
                wanted.insert(entry.key, *entry);
            }
            let mut bare = Ledger::without_fingerprints();
            sorted.iter().for_each(|entry| bare.push(*entry));
            let ledger = Ledger::new(sorted);
            prop_assert_eq!(ledger.entries().collect::<Vec<_>>(), wanted.values().copied().collect::<Vec<_>>());
            let unprinted = |entry: &Entry| Entry { fingerprint: Fingerprint::default(), ..*entry };
            prop_assert_eq!(bare.entries().collect::<Vec<_>>(), wanted.values().map(unprinted).collect::<Vec<_>>());
            for key in (0..50).map(Key::Uid).chain((0..50).map(|octet| Key::Digest([octet; 16]))) {
                prop_assert_eq!(ledger.get(key), wanted.get(&key).copied());
            }
        }
    }

    #[test]
    fn a_listing_that_names_a_message_twice_is_told_how_it_called_it_first() {
        let mut ledger = Ledger::new((1..=3).map(|uid| Entry::new(Key::Uid(uid), State::Delivered)).collect());
        assert_eq!(ledger.name(Key::Uid(2), 7), Named::First(1));
        assert_eq!(ledger.name(Key::Uid(2), 9), Named::Again(1, 7));
        assert_eq!(ledger.name(Key::Uid(4), 8), Named::Unknown);
        assert_eq!(ledger.named().map(|(number, entry)| (number, entry.key)).collect::<Vec<_>>(), [(9, Key::Uid(2))]);
        assert_eq!(ledger.unseen().count(), 2);
    }
}
