//! Recognising messages by their headers and contents, where their names say nothing.

use std::collections::{HashMap, HashSet};

use connectord_account::{Decision, Entry, Key, Ledger, Listed, Planner, Rules, State};
use connectord_mail::{Fingerprint, Head, UnixTime};
use connectord_pop3::{Event, MessageNumber, Retrieval};
use connectord_store::{MailboxRow, MessageRef};
use tracing::warn;

use super::listing::Listing;
use super::{Candidate, Connection, FEW, Pop3Run, key_of};
use crate::mailbox::{Prints, is_told_apart, newest_first};
use crate::trouble::RunError;

impl Pop3Run<'_> {
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
        let active = planner.ledger().entries().iter().filter(|entry| entry.state != State::Done).count();
        let renumbered = vanished > 0 && (vanished * 2 > active || listing.candidates.len() <= FEW);
        let doubtful = |candidate: &&Candidate| renumbered || candidate.key.is_none() || candidate.compare;
        let numbers: Vec<MessageNumber> =
            listing.candidates.iter().filter(doubtful).map(|candidate| candidate.number).collect();
        let heads = self.heads(driver, &numbers, Otherwise::Nothing).await?;
        let says_nothing = |candidate: &&mut Candidate| {
            candidate.size_octets.is_none()
                && heads.get(&candidate.number).is_some_and(|fingerprint| !is_told_apart(fingerprint))
        };
        for candidate in listing.candidates.iter_mut().filter(says_nothing) {
            candidate.size_octets = self.size(driver, candidate.number).await?;
        }
        let mut adopted = Vec::new();
        for mut candidate in std::mem::take(&mut listing.candidates) {
            let Some(fingerprint) = heads.get(&candidate.number) else {
                listing.candidates.push(candidate);
                continue;
            };
            if let (true, Some(key)) = (candidate.compare, candidate.key) {
                if !is_told_apart(fingerprint) {
                    listing.candidates.push(candidate);
                    continue;
                }
                if known.is(key, fingerprint) {
                    listing.returned.push((key, candidate.generation));
                    continue;
                }
                candidate.compare = false;
                candidate.generation = candidate.generation.saturating_add(1);
                listing.candidates.push(candidate);
                continue;
            }
            let Some(entry) = known.take_matching(fingerprint, candidate.size_octets) else {
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
                    listing.candidates.push(Candidate {
                        key: Some(entry.key),
                        attempt,
                        generation,
                        known: true,
                        ..candidate
                    });
                }
                // A header alone justifies no removal: the whole message is compared.
                Decision::Remove { .. } => {
                    known.give_back(entry);
                    listing.candidates.push(candidate);
                }
                _ => {}
            }
        }
        self.adopt(&adopted).await?;
        Ok(adopted.len())
    }

    async fn adopt(&self, adopted: &[(MessageRef, MessageRef, Fingerprint)]) -> Result<(), RunError> {
        let run = self.run;
        if adopted.is_empty() || run.mode.dry_run {
            return Ok(());
        }
        warn!(
            account = run.job.address(),
            recognised = adopted.len(),
            "the server gives other unique-ids to messages that are known; they were recognised by their headers"
        );
        Ok(run.site.store.adopt(run.lease, adopted).await?)
    }

    /// Compares headers before removals whose names may mean other messages by now.
    pub(super) async fn verify(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        known: &mut Known,
        listing: &mut Listing,
    ) -> Result<(), RunError> {
        let doubtful: Vec<MessageNumber> = listing.due.iter().filter(|due| due.verify).map(|due| due.number).collect();
        // Where there is no TOP the whole message is looked at: nothing is removed on a guess, and nothing stays for ever.
        let heads = self.heads(driver, &doubtful, Otherwise::Retrieve).await?;
        let mut adopted = Vec::new();
        for due in std::mem::take(&mut listing.due) {
            if !due.verify {
                listing.due.push(due);
                continue;
            }
            let Some(found) = heads.get(&due.number) else { continue };
            if known.is(due.key, found) {
                listing.due.push(due);
                continue;
            }
            // Another message under a name that was used before: it is new, unless it had another name before.
            let generation = due.generation.saturating_add(1);
            let new = Candidate { key: Some(due.key), generation, ..Candidate::unnamed(due.number) };
            match (known.take_matching(found, None), new.message(mailbox)) {
                (Some(entry), Some(to)) => {
                    let from = MessageRef { mailbox: mailbox.id, key: entry.key, generation: entry.generation };
                    adopted.push((from, to, entry.fingerprint));
                }
                _ => listing.candidates.push(new),
            }
        }
        self.adopt(&adopted).await
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

    /// The fingerprints of messages by TOP; those that cannot be had are missing.
    async fn heads(
        &self,
        driver: &mut Connection,
        numbers: &[MessageNumber],
        otherwise: Otherwise,
    ) -> Result<HashMap<MessageNumber, Fingerprint>, RunError> {
        let run = self.run;
        for number in numbers {
            driver.machine().top(*number, 0);
        }
        let mut heads = HashMap::new();
        let mut left = numbers.len();
        let mut head = Vec::new();
        while left > 0 {
            match run.or_stop(driver.next()).await? {
                Event::BodyStart { .. } => head.clear(),
                Event::Body(octets) => {
                    let room = connectord_mail::head::MAX_HEAD.saturating_sub(head.len());
                    head.extend_from_slice(&octets[..octets.len().min(room)]);
                }
                Event::BodyEnd { number, kind, octets } => {
                    let size_octets = if kind == Retrieval::Whole { octets } else { 0 };
                    let fingerprint = Fingerprint::new(Head::of(&head), size_octets);
                    if kind == Retrieval::Top && otherwise == Otherwise::Retrieve && !is_told_apart(&fingerprint) {
                        driver.machine().retr(number);
                        continue;
                    }
                    heads.insert(number, fingerprint);
                    left -= 1;
                }
                Event::RetrieveRefused { number, kind: Retrieval::Top, .. } if otherwise == Otherwise::Retrieve => {
                    driver.machine().retr(number);
                }
                Event::RetrieveRefused { .. } => left -= 1,
                _ => {}
            }
        }
        Ok(heads)
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

/// How a message is named by its content.
pub(super) enum Content {
    /// It is new.
    New(Key),
    /// It is this one.
    Known(Entry),
}

impl Known {
    pub(super) fn new(planner: &Planner, rules: Rules, now: UnixTime) -> Self {
        let mut missing: Vec<Entry> = planner.missing().copied().collect();
        newest_first(&mut missing);
        let mut unlisted = Prints::new();
        missing.iter().for_each(|entry| unlisted.insert(&entry.fingerprint, *entry));
        let all = planner.ledger().entries().iter().map(|entry| (entry.key, *entry)).collect();
        Self { unlisted, all, used: HashSet::new(), rules, now }
    }

    /// What is due for a known message.
    pub(super) fn decide(&self, entry: Entry) -> Decision {
        Planner::new(Ledger::new(vec![entry]), self.rules, self.now).see(Listed::new(entry.key))
    }

    /// Takes a known message with this header out.
    pub(super) fn take_matching(&mut self, fingerprint: &Fingerprint, size_octets: Option<u64>) -> Option<Entry> {
        while let Some(entry) = self.unlisted.take(fingerprint, size_octets) {
            if self.used.insert(entry.key) {
                return Some(entry);
            }
        }
        None
    }

    fn give_back(&mut self, entry: Entry) {
        self.used.remove(&entry.key);
        self.unlisted.insert(&entry.fingerprint, entry);
    }

    pub(super) fn is_used(&self, key: Key) -> bool {
        self.used.contains(&key)
    }

    /// Whether the message known as `key` has this fingerprint; with a header that says nothing the size must agree.
    pub(super) fn is(&self, key: Key, fingerprint: &Fingerprint) -> bool {
        self.all.get(&key).is_some_and(|entry| {
            let known = &entry.fingerprint;
            known.same_message(fingerprint) && (is_told_apart(fingerprint) || known.size == fingerprint.size)
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
