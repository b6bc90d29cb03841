//! Recognising messages by their headers and contents, where their names say nothing.

use std::collections::{HashMap, HashSet};

use connectord_account::{Decision, Entry, Key, Ledger, Listed, Planner, Rules, State, Verify};
use connectord_mail::{Fingerprint, UnixTime};
use connectord_pop3::{Event, MessageNumber, Retrieval};
use connectord_store::{MailboxRow, Mark, MessageName, MessageRef};

use super::listing::Listing;
use super::{Candidate, Connection, Due, FEW, Pop3Run, key_of, other_ids};
use crate::mailbox::{Compared, Prints, Wanted, ask_again, newest_first};
use crate::pipeline::name_of;
use crate::skim::{Glance, Seen};
use crate::trouble::RunError;

impl Pop3Run<'_> {
    /// Reads what is known of the messages that may be compared with others, fingerprints and all: those that are to be
    /// removed or retrieved again, those that are missing, and where messages have no name, all.
    pub(super) async fn known(
        &self,
        mailbox: &MailboxRow,
        planner: &Planner,
        rules: Rules,
        listing: &mut Listing,
    ) -> Result<Known, RunError> {
        let store = &self.run.site.store;
        let compares = !listing.candidates.is_empty() || listing.due.iter().any(|due| due.verify != Verify::Nothing);
        let missing: HashSet<Key> = match compares {
            true => planner.missing().map(|entry| entry.key).collect(),
            false => HashSet::new(),
        };
        let entries = if listing.candidates.iter().any(|candidate| candidate.key.is_none()) {
            store.packed_ledger(mailbox.id, true).await?
        } else {
            let ledger = planner.ledger();
            let candidates = listing.candidates.iter().filter_map(|candidate| candidate.key);
            let candidates = candidates.filter(|key| ledger.get(*key).is_some());
            let due = listing.due.iter().filter(|due| due.verify != Verify::Nothing).map(|due| due.key);
            let keys: Vec<Key> = candidates.chain(due).chain(missing.iter().copied()).collect();
            if keys.is_empty() { Ledger::default() } else { Ledger::new(store.entries(mailbox.id, &keys).await?) }
        };
        let adopted = listing.candidates.iter_mut().filter(|candidate| candidate.wanted.adopted.is_some());
        for candidate in adopted {
            let known = candidate.key.and_then(|key| entries.get(key));
            candidate.wanted.adopted = known.map(|entry| entry.fingerprint);
        }
        Ok(Known::new(&entries, |entry| missing.contains(&entry.key), rules, self.run.now))
    }

    /// Compares the headers of messages whose names say nothing with those of known ones, before anything is retrieved.
    /// Says how many were recognised.
    pub(super) async fn recognise(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        planner: &Planner,
        known: &mut Known,
        listing: &mut Listing,
    ) -> Result<usize, RunError> {
        // Messages that vanished without our doing, and others that came: perhaps the same under new names.
        let vanished = planner.missing().filter(|entry| entry.state != State::Removing).count();
        let active = planner.ledger().active();
        let renumbered = vanished > 0 && (vanished * 2 > active || listing.candidates.len() <= FEW);
        let doubtful = |candidate: &&Candidate| renumbered || candidate.key.is_none() || candidate.compare;
        let numbers: Vec<MessageNumber> =
            listing.candidates.iter().filter(doubtful).map(|candidate| candidate.number).collect();
        let heads = self.heads(driver, &numbers, Otherwise::Nothing).await?;
        let says_nothing = |candidate: &&mut Candidate| {
            candidate.size_octets.is_none() && heads.get(&candidate.number).is_some_and(|seen| !seen.named)
        };
        for candidate in listing.candidates.iter_mut().filter(says_nothing) {
            candidate.size_octets = self.size(driver, candidate.number).await?;
        }
        let mut adopted = Vec::new();
        for mut candidate in std::mem::take(&mut listing.candidates) {
            let Some(seen) = heads.get(&candidate.number) else {
                listing.candidates.push(candidate);
                continue;
            };
            if let (true, Some(key)) = (candidate.compare, candidate.key) {
                if !seen.named {
                    listing.candidates.push(candidate);
                    continue;
                }
                if known.is(key, seen) {
                    listing.returned.push((key, candidate.wanted.generation));
                    continue;
                }
                candidate.compare = false;
                candidate.wanted.generation = candidate.wanted.generation.saturating_add(1);
                listing.candidates.push(candidate);
                continue;
            }
            let Some(entry) = known.take_matching(seen, candidate.size_octets) else {
                listing.candidates.push(candidate);
                continue;
            };
            if let Some(to) = candidate.message(mailbox) {
                let from = MessageRef { mailbox: mailbox.id, key: entry.key, generation: entry.generation };
                adopted.push((from, to, entry.fingerprint));
                continue;
            }
            match known.decide(entry) {
                Decision::Retrieve { attempt, generation } => {
                    // Its header alone says that it is this one: what comes is compared.
                    let wanted = Wanted::of(Some(Entry { adopted: true, ..entry }), generation, attempt);
                    listing.candidates.push(Candidate { key: Some(entry.key), wanted, ..candidate });
                }
                // A header alone justifies no removal: the whole message is compared.
                Decision::Remove { .. } => {
                    known.give_back(entry);
                    listing.candidates.push(candidate);
                }
                _ => {}
            }
        }
        if !adopted.is_empty() {
            other_ids(self.run, active, vanished, adopted.len(), listing.candidates.len());
        }
        self.adopt(&adopted).await?;
        Ok(adopted.len())
    }

    async fn adopt(&self, adopted: &[(MessageRef, MessageRef, Fingerprint)]) -> Result<(), RunError> {
        let run = self.run;
        if adopted.is_empty() || run.mode.dry_run {
            return Ok(());
        }
        Ok(run.site.store.adopt(run.lease, adopted).await?)
    }

    /// Compares messages before removals whose names may mean others by now: their headers, or all of them where only a
    /// header ever said which they are.
    pub(super) async fn verify(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        known: &mut Known,
        listing: &mut Listing,
    ) -> Result<(), RunError> {
        if self.run.mode.dry_run {
            return Ok(());
        }
        let (mut by_header, mut by_content) = (Vec::new(), Vec::new());
        for due in std::mem::take(&mut listing.due) {
            match due.verify {
                Verify::Nothing => listing.due.push(due),
                Verify::Header => by_header.push(due),
                Verify::Content => by_content.push(due),
            }
        }
        let most = self.run.job.account.removals_per_session.max(1) as usize;
        if by_content.len() > most {
            by_content.truncate(most);
            listing.put_off = true;
        }
        self.verify_headers(driver, mailbox, known, listing, by_header).await?;
        self.verify_contents(driver, mailbox, known, listing, by_content).await
    }

    async fn verify_headers(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        known: &mut Known,
        listing: &mut Listing,
        doubtful: Vec<Due>,
    ) -> Result<(), RunError> {
        let run = self.run;
        let (certain, doubtful): (Vec<Due>, Vec<Due>) =
            doubtful.into_iter().partition(|due| !mailbox.keys_recur && !due.short && known.is_unseen(due.key));
        // Nothing was ever seen of it, and nothing speaks against its unique-id.
        listing.due.extend(certain);
        let numbers: Vec<MessageNumber> = doubtful.iter().map(|due| due.number).collect();
        // Where there is no TOP the whole message is looked at: nothing is removed on a guess, and nothing stays for ever.
        let heads = self.heads(driver, &numbers, Otherwise::Retrieve).await?;
        let (mut adopted, mut gone) = (Vec::new(), Vec::new());
        for due in doubtful {
            let Some(found) = heads.get(&due.number) else { continue };
            if known.is(due.key, found) {
                listing.due.push(due);
                continue;
            }
            if known.is_nameless(due.key) {
                let message = MessageRef { mailbox: mailbox.id, key: due.key, generation: due.generation };
                ask_again(run, message, Some(found.fingerprint)).await?;
                continue;
            }
            if known.all.get(&due.key).is_some_and(|entry| entry.state == State::Discarding) {
                // What a person wanted removed is not there any more.
                gone.push((due.key, due.generation));
            }
            // Another message under a name that was used before: it is new, unless it had another name before.
            let wanted = Wanted::new(due.generation.saturating_add(1));
            let new = Candidate { key: Some(due.key), wanted, ..Candidate::unnamed(due.number) };
            match (known.take_matching(found, None), new.message(mailbox)) {
                (Some(entry), Some(to)) => {
                    let from = MessageRef { mailbox: mailbox.id, key: entry.key, generation: entry.generation };
                    adopted.push((from, to, entry.fingerprint));
                }
                _ => listing.candidates.push(new),
            }
        }
        if !gone.is_empty() {
            run.site.store.mark(run.lease, mailbox.id, &gone, Mark::Done).await?;
        }
        self.adopt(&adopted).await
    }

    async fn verify_contents(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        known: &Known,
        listing: &mut Listing,
        doubtful: Vec<Due>,
    ) -> Result<(), RunError> {
        let numbers: Vec<MessageNumber> = doubtful.iter().map(|due| due.number).collect();
        let found = self.wholes(driver, &numbers).await?;
        let entries = doubtful.iter().filter_map(|due| known.all.get(&due.key));
        let mut compared = Compared::new(entries.map(|entry| entry.fingerprint));
        for due in doubtful {
            // What cannot be had stays as it is.
            let Some(seen) = found.get(&due.number) else { continue };
            let (key, generation) = (due.key, due.generation);
            if known.is_nameless(key) {
                let message = MessageRef { mailbox: mailbox.id, key, generation };
                ask_again(self.run, message, Some(seen.fingerprint)).await?;
            } else if compared.compare((key, generation), &seen.fingerprint) {
                listing.due.push(due);
            } else {
                let wanted = Wanted { known: true, ..Wanted::new(generation) };
                listing.candidates.push(Candidate { key: Some(key), wanted, ..Candidate::unnamed(due.number) });
            }
        }
        compared.record(self.run, mailbox).await
    }

    /// The size of one message, by the server's word.
    async fn size(&self, driver: &mut Connection, number: MessageNumber) -> Result<Option<u64>, RunError> {
        driver.machine().list_one(number);
        loop {
            match self.run.or_stop(driver.next()).await? {
                Event::Size { octets, .. } => return Ok(Some(octets)),
                Event::SizeRefused { .. } | Event::SizeUnreadable { .. } => return Ok(None),
                _ => {}
            }
        }
    }

    /// Messages by TOP; those that cannot be had are missing.
    async fn heads(
        &self,
        driver: &mut Connection,
        numbers: &[MessageNumber],
        otherwise: Otherwise,
    ) -> Result<HashMap<MessageNumber, Seen>, RunError> {
        for number in numbers {
            driver.machine().top(*number, 0);
        }
        self.look_at(driver, numbers.len(), otherwise).await
    }

    /// Messages by RETR; those that cannot be had are missing.
    async fn wholes(
        &self,
        driver: &mut Connection,
        numbers: &[MessageNumber],
    ) -> Result<HashMap<MessageNumber, Seen>, RunError> {
        for number in numbers {
            driver.machine().retr(*number);
        }
        self.look_at(driver, numbers.len(), Otherwise::Nothing).await
    }

    async fn look_at(
        &self,
        driver: &mut Connection,
        mut left: usize,
        otherwise: Otherwise,
    ) -> Result<HashMap<MessageNumber, Seen>, RunError> {
        let run = self.run;
        let mut found = HashMap::new();
        let mut glance = Glance::default();
        let mut whole = false;
        while left > 0 {
            match run.or_stop(driver.next()).await? {
                Event::BodyStart { kind, .. } => (glance, whole) = (Glance::default(), kind == Retrieval::Whole),
                Event::Body(octets) => {
                    if whole {
                        run.tally.octets(run, octets.len() as u64);
                    }
                    glance.push(&octets);
                }
                Event::BodyEnd { number, kind: Retrieval::Top, .. } => {
                    let seen = glance.header_only(None);
                    if otherwise == Otherwise::Retrieve && !seen.named {
                        driver.machine().retr(number);
                        continue;
                    }
                    found.insert(number, seen);
                    left -= 1;
                }
                Event::BodyEnd { number, kind: Retrieval::Whole, .. } => {
                    found.insert(number, std::mem::take(&mut glance).whole());
                    left -= 1;
                }
                Event::RetrieveRefused { number, kind: Retrieval::Top, .. } if otherwise == Otherwise::Retrieve => {
                    driver.machine().retr(number);
                }
                Event::RetrieveRefused { .. } => left -= 1,
                _ => {}
            }
        }
        Ok(found)
    }

    /// What people recognise a message by, and its fingerprint, by TOP; as far as it can be had.
    pub(super) async fn recognisable(
        &self,
        driver: &mut Connection,
        candidate: &Candidate,
    ) -> Result<(MessageName, Option<Fingerprint>), RunError> {
        driver.machine().top(candidate.number, 0);
        let mut glance = Glance::default();
        loop {
            match self.run.or_stop(driver.next()).await? {
                Event::BodyStart { .. } => glance = Glance::default(),
                Event::Body(octets) => glance.push(&octets),
                Event::BodyEnd { .. } => {
                    let name = name_of(glance.head(), candidate.name().on_server);
                    return Ok((name, Some(glance.header_only(candidate.size_octets).fingerprint)));
                }
                Event::RetrieveRefused { .. } => return Ok((candidate.name(), None)),
                _ => {}
            }
        }
    }
}

/// What is done about a header that TOP does not give, or that says nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    Nothing,
    Retrieve,
}

/// What is known of the messages of the maildrop.
pub(super) struct Known {
    /// Messages that the listing does not name: each is used once.
    unlisted: Prints<Entry>,
    all: HashMap<Key, Entry>,
    used: HashSet<Key>,
    rules: Rules,
    now: UnixTime,
}

fn is_seen(entry: &Entry) -> bool {
    entry.fingerprint.head != 0
}

pub(super) fn is_same(entry: &Entry, seen: &Seen) -> bool {
    let known = &entry.fingerprint;
    if known.is_whole() && seen.fingerprint.is_whole() {
        return known.same_content(&seen.fingerprint);
    }
    known.same_header(&seen.fingerprint) && (seen.named || known.size == seen.fingerprint.size)
}

/// How a message is named by its content.
pub(super) enum Content {
    /// It is new.
    New(Key),
    /// It is this one.
    Known(Entry),
}

impl Known {
    /// Of `entries`, those that `missing` says are recognised wherever they are found.
    fn new(entries: &Ledger, missing: impl Fn(&Entry) -> bool, rules: Rules, now: UnixTime) -> Self {
        let mut unlisted_entries: Vec<Entry> = entries.entries().filter(missing).collect();
        newest_first(&mut unlisted_entries);
        let mut unlisted = Prints::new();
        unlisted_entries.iter().for_each(|entry| unlisted.insert(&entry.fingerprint, *entry));
        let all = entries.entries().map(|entry| (entry.key, entry)).collect();
        Self { unlisted, all, used: HashSet::new(), rules, now }
    }

    /// What is due for a known message.
    pub(super) fn decide(&self, entry: Entry) -> Decision {
        Planner::new(Ledger::new(vec![entry]), self.rules, self.now).see(Listed::new(entry.key))
    }

    /// Takes a known message with this header out.
    pub(super) fn take_matching(&mut self, seen: &Seen, size_octets: Option<u64>) -> Option<Entry> {
        while let Some(entry) = self.unlisted.take(seen, size_octets) {
            if self.used.insert(entry.key) {
                return Some(entry);
            }
        }
        None
    }

    pub(super) fn give_back(&mut self, entry: Entry) {
        self.used.remove(&entry.key);
        self.unlisted.insert(&entry.fingerprint, entry);
    }

    pub(super) fn is_used(&self, key: Key) -> bool {
        self.used.contains(&key)
    }

    /// Whether the message known as `key` is this one: by all of it where both are known whole, else by its header; with
    /// a header that names nobody the size must agree.
    pub(super) fn is(&self, key: Key, seen: &Seen) -> bool {
        self.all.get(&key).is_some_and(|entry| is_same(entry, seen))
    }

    /// Whether nothing of the message was ever seen: neither its header nor its size.
    fn is_unseen(&self, key: Key) -> bool {
        self.all
            .get(&key)
            .is_some_and(|entry| entry.state == State::Discarding && entry.attempts == 0 && !is_seen(entry))
    }

    /// Whether a person wants the message removed, and there is too little to compare it with.
    fn is_nameless(&self, key: Key) -> bool {
        self.all.get(&key).is_some_and(|entry| {
            entry.state == State::Discarding
                && if entry.adopted { !entry.fingerprint.is_whole() } else { !is_seen(entry) }
        })
    }

    /// Names a message by its content; two identical messages are two messages.
    pub(super) fn name_content(&mut self, digest: &[u8; 32]) -> Content {
        for occurrence in 0u32.. {
            let mut named = digest.to_vec();
            named.extend_from_slice(&occurrence.to_be_bytes());
            let key = key_of(&named);
            if self.used.insert(key) {
                return self.all.get(&key).map_or(Content::New(key), |entry| Content::Known(*entry));
            }
        }
        unreachable!("no maildrop has four thousand million messages")
    }
}
