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
/// Memory: at most 80 octets an entry.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: Vec<Entry>,
    seen: Vec<bool>,
}

impl Ledger {
    /// Sorts what the store remembers. Of several generations of a key only the newest counts.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by_key(|entry| (entry.key, std::cmp::Reverse(entry.generation)));
        entries.dedup_by_key(|entry| entry.key);
        Self { seen: vec![false; entries.len()], entries }
    }

    /// Number of messages known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known: a new account, or a renumbered mailbox.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of one message.
    pub fn get(&self, key: Key) -> Option<&Entry> {
        self.position(key).map(|at| &self.entries[at])
    }

    /// All entries in the order of their keys.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Marks a key as listed; `None` when it is unknown, else the entry and whether it had been listed before.
    pub(crate) fn mark(&mut self, key: Key) -> Option<(Entry, bool)> {
        let at = self.position(key)?;
        Some((self.entries[at], std::mem::replace(&mut self.seen[at], true)))
    }

    /// Entries the current listing has not named.
    pub(crate) fn unseen(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().zip(&self.seen).filter(|(_, seen)| !**seen).map(|(entry, _)| entry)
    }

    fn position(&self, key: Key) -> Option<usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key).ok()
    }
}
