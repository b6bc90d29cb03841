//! What is known of all messages without opening a file.

use std::collections::{BTreeMap, BTreeSet};

use connectord_filter::attachment::decode_words;
use connectord_mail::{DeliveryId, UnixTime};

use crate::record::{Header, cut};

/// Longest reason that is kept in memory, in octets.
const MAX_REASON: usize = 500;

/// Most messages of one page.
const MAX_PAGE: usize = 1000;

/// One message that is held, as a list shows it. Texts come from strangers: they are escaped where they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity, by which people name it.
    pub id: DeliveryId,
    /// Counts up with each message; the newest has the highest.
    pub serial: u64,
    /// The account's address.
    pub account: String,
    /// Name of the destination it would have gone to.
    pub destination: String,
    /// Who would have got it: local users and their addresses.
    pub recipients: Vec<(String, String)>,
    /// Its From, decoded; at most 1,000 octets.
    pub from: String,
    /// Its subject, decoded; at most 1,000 octets.
    pub subject: String,
    /// Why it is held; at most 500 octets.
    pub reason: String,
    /// Size of the message.
    pub size_octets: u64,
    /// Since when it is held.
    pub held_at: UnixTime,
    /// When it arrived at the provider.
    pub arrived_at: Option<UnixTime>,
    /// Whether it counts as spam.
    pub spam: bool,
    /// Whether a virus was found.
    pub infected: bool,
    /// A release of it was begun and did not come to its end.
    pub releasing: bool,
}

/// What is held, by sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// With a virus.
    Virus,
    /// Spam without a virus.
    Spam,
    /// Held for another reason: too large for a filter, a blocked attachment.
    Other,
}

impl Entry {
    pub(crate) fn new(id: DeliveryId, header: &Header, size_octets: u64) -> Self {
        Self {
            id,
            serial: header.serial,
            account: header.account.clone(),
            destination: header.destination.clone(),
            recipients: header.recipients.clone(),
            from: decode_words(&header.from),
            subject: decode_words(&header.subject),
            reason: cut(&header.reason, MAX_REASON),
            size_octets,
            held_at: header.held_at,
            arrived_at: header.arrived_at,
            spam: header.spam,
            infected: !header.viruses.is_empty(),
            releasing: false,
        }
    }

    /// What it is held as.
    pub fn sort(&self) -> Sort {
        match (self.infected, self.spam) {
            (true, _) => Sort::Virus,
            (false, true) => Sort::Spam,
            (false, false) => Sort::Other,
        }
    }

    /// From when on it counts how long it is kept. Nothing is held before it arrived: then our clock was wrong.
    pub(crate) fn kept_since(&self, now: UnixTime) -> UnixTime {
        self.arrived_at.filter(|at| *at <= now).map_or(self.held_at, |at| at.max(self.held_at))
    }

    /// Whether this user would have got it.
    pub fn is_for(&self, user: &str) -> bool {
        self.recipients.iter().any(|(known, _)| known == user)
    }
}

/// Which messages are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of this account; case aside.
    pub account: Option<String>,
    /// For this local user.
    pub user: Option<String>,
    /// With this text in sender, subject, reason, account or identity; case aside.
    pub text: Option<String>,
    /// Of this sort.
    pub sort: Option<Sort>,
    /// How many of the newest are left out.
    pub offset: usize,
    /// Most that are wanted; default and at most 1,000.
    pub limit: Option<usize>,
}

/// Some of the messages that were asked for, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages.
    pub entries: Vec<Entry>,
    /// How many there are that were asked for, also before and behind these.
    pub total: usize,
}

/// All that is held.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<DeliveryId, Known>,
    by_serial: BTreeSet<(u64, DeliveryId)>,
    /// Octets of all files.
    pub(crate) octets: u64,
    /// Messages that are being kept, and their octets: they count as held.
    pub(crate) coming: (usize, u64),
    pub(crate) next_serial: u64,
    /// Messages that were released or discarded lately, and when.
    pub(crate) gone: BTreeMap<DeliveryId, UnixTime>,
    /// Messages that somebody is working on.
    pub(crate) busy: BTreeSet<DeliveryId>,
}

#[derive(Debug)]
struct Known {
    entry: Entry,
    file_octets: u64,
    /// This process saw its name become durable.
    confirmed: bool,
}

impl Index {
    pub(crate) fn insert(&mut self, entry: Entry, file_octets: u64, confirmed: bool) {
        let id = entry.id;
        self.remove(id);
        self.octets += file_octets;
        self.next_serial = self.next_serial.max(entry.serial.saturating_add(1));
        self.by_serial.insert((entry.serial, id));
        self.entries.insert(id, Known { entry, file_octets, confirmed });
    }

    pub(crate) fn remove(&mut self, id: DeliveryId) -> Option<Entry> {
        let known = self.entries.remove(&id)?;
        self.by_serial.remove(&(known.entry.serial, id));
        self.octets = self.octets.saturating_sub(known.file_octets);
        Some(known.entry)
    }

    pub(crate) fn entry(&self, id: DeliveryId) -> Option<&Entry> {
        self.entries.get(&id).map(|known| &known.entry)
    }

    pub(crate) fn entry_mut(&mut self, id: DeliveryId) -> Option<&mut Entry> {
        self.entries.get_mut(&id).map(|known| &mut known.entry)
    }

    pub(crate) fn file_octets(&self, id: DeliveryId) -> u64 {
        self.entries.get(&id).map_or(0, |known| known.file_octets)
    }

    /// Whether its name is known to be durable; nothing when it is not held.
    pub(crate) fn confirmed(&self, id: DeliveryId) -> Option<bool> {
        self.entries.get(&id).map(|known| known.confirmed)
    }

    pub(crate) fn confirm(&mut self, id: DeliveryId) {
        if let Some(known) = self.entries.get_mut(&id) {
            known.confirmed = true;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.by_serial.iter().rev().filter_map(|(_, id)| self.entry(*id))
    }

    pub(crate) fn page(&self, query: &Query) -> Page {
        let text = query.text.as_ref().map(|text| text.to_lowercase());
        let mut page = Page::default();
        let limit = query.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        for entry in self.all().filter(|entry| query.wants(entry, text.as_deref())) {
            if page.total >= query.offset && page.entries.len() < limit {
                page.entries.push(entry.clone());
            }
            page.total += 1;
        }
        page
    }

    /// Those whose identity begins with this.
    pub(crate) fn starting_with(&self, start: &str, most: usize) -> Vec<DeliveryId> {
        self.entries.keys().filter(|id| id.to_string().starts_with(start)).take(most).copied().collect()
    }
}

impl Query {
    fn wants(&self, entry: &Entry, text: Option<&str>) -> bool {
        let has = |value: &str, text: &str| value.to_lowercase().contains(text);
        self.account.as_ref().is_none_or(|account| account.eq_ignore_ascii_case(&entry.account))
            && self.user.as_ref().is_none_or(|user| entry.is_for(user))
            && self.sort.is_none_or(|sort| sort == entry.sort())
            && text.is_none_or(|text| {
                [&entry.from, &entry.subject, &entry.reason, &entry.account].iter().any(|value| has(value, text))
                    || entry.id.to_string().starts_with(text)
            })
    }
}
