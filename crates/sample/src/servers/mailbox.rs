use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::Message;

/// A mailbox of a server, to look at and to change while clients are connected. Clones are the same mailbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Counts up with every change; clients in IDLE wait for it.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) uid_validity: u32,
    pub(super) uid_next: u32,
    pub(super) entries: BTreeMap<u32, Entry>,
}

/// A message and what the mailbox says about it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) octets: Arc<[u8]>,
    /// As they are sent: line ends are CRLF, also where there was a bare LF; bare CRs stay.
    pub(super) wire: Arc<[u8]>,
    pub(super) flags: BTreeSet<String>,
    pub(super) received: SystemTime,
}

impl Mailbox {
    pub(super) fn new(uid_validity: u32) -> Self {
        let state = State { uid_validity, uid_next: 1, entries: BTreeMap::new() };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), version: watch::Sender::new(0) }) }
    }

    /// Adds a message and returns its UID; clients in IDLE hear of it.
    pub fn add(&self, message: impl Into<Message>) -> u32 {
        let message = message.into();
        let entry = Entry {
            wire: crlf(&message.octets).into(),
            octets: message.octets.into(),
            flags: message.flags.into_iter().collect(),
            received: message.received,
        };
        self.change(|state| state.push(entry))
    }

    /// Removes a message, as another client would; false if it is not there.
    pub fn remove(&self, uid: u32) -> bool {
        self.change(|state| state.entries.remove(&uid).is_some())
    }

    /// Removes all messages.
    pub fn clear(&self) {
        self.change(|state| state.entries.clear());
    }

    /// Gives the mailbox another UIDVALIDITY, and the messages new UIDs from 1 and so new UIDLs. Clients that have it open
    /// are disconnected.
    pub fn set_uid_validity(&self, uid_validity: u32) {
        self.change(|state| {
            state.uid_validity = uid_validity;
            state.uid_next = 1;
            for entry in std::mem::take(&mut state.entries).into_values() {
                state.push(entry);
            }
        });
    }

    /// The UIDVALIDITY, from 1.
    pub fn uid_validity(&self) -> u32 {
        self.lock().uid_validity
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All UIDs, ascending.
    pub fn uids(&self) -> Vec<u32> {
        self.lock().entries.keys().copied().collect()
    }

    /// All messages, oldest first, with their octets as they were given and their flags as they are now.
    pub fn messages(&self) -> Vec<Message> {
        let state = self.lock();
        let message = |entry: &Entry| Message {
            octets: entry.octets.to_vec(),
            flags: entry.flags.iter().cloned().collect(),
            received: entry.received,
        };
        state.entries.values().map(message).collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.inner.version.send_modify(|version| *version += 1);
        result
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }
}

impl State {
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        let uid = self.uid_next;
        self.uid_next += 1;
        self.entries.insert(uid, entry);
        uid
    }

    /// The unique-id of POP3: the message's for ever, and none other's.
    pub(super) fn uidl(&self, uid: u32) -> String {
        format!("{:08x}{uid:08x}", self.uid_validity)
    }
}

impl Entry {
    /// The octets to send.
    pub(super) fn sent(&self, bare_lf: bool) -> &Arc<[u8]> {
        if bare_lf { &self.octets } else { &self.wire }
    }
}

/// Every LF without a CR before it gets one.
pub fn crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    let mut before = 0;
    for octet in octets {
        if *octet == b'\n' && before != b'\r' {
            out.push(b'\r');
        }
        out.push(*octet);
        before = *octet;
    }
    out
}
