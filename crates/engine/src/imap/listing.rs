//! UID SEARCH and headers: what is there, what is known of it, and what to do with it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use connectord_account::{Decision, Entry, Key, Ledger, Listed, Oversize, Planner, Start, State, Verify};
use connectord_imap::{Body, CommandId, Event, FetchItems, Refusal, Section, Selected, Uid, UidSearch, UidSet};
use connectord_mail::UnixTime;
use connectord_store::{MailboxRow, Mark, MessageName, MessageRef};
use tracing::warn;

use super::calm::MANY_NEW;
use super::wants::Wants;
use super::{ImapRun, chunks, name, reference};
use crate::mailbox::{Prints, SKIPPED_AT_ONCE, Wanted, newest_first, skip, too_large};
use crate::pipeline::name_of;
use crate::run::Run;
use crate::skim::{Glance, Seen};
use crate::trouble::RunError;
use crate::{Change, ChangeKind};

/// All UIDs are compared at least this often, not only those above the mark.
const FULL_LISTING_EVERY: Duration = Duration::from_secs(86_400);

/// Headers asked for at a time.
const HEADERS_AT_ONCE: usize = 500;

/// Sizes asked for at a time.
const SIZES_AT_ONCE: usize = 5000;

/// What is to be done in one mailbox.
#[derive(Default)]
pub(super) struct Work {
    pub(super) messages: u64,
    pub(super) wanted: Wants,
    pub(super) due: Vec<Uid>,
    /// Due, and only their headers ever said which messages they are: they are compared whole first.
    pub(super) doubtful: Vec<(Uid, Entry)>,
    /// Evidence of absence: all of the mailbox, its count agreeing.
    pub(super) complete: bool,
    /// No message that was there can have been overlooked.
    pub(super) covers_all: bool,
    /// Known messages that had been missing from an earlier listing.
    pub(super) returned: Vec<(Key, u16)>,
    /// Something was due, doubtful, returned or recognised: this was no quiet listing.
    pub(super) busy: bool,
}

/// The header of a message.
struct Found {
    seen: Seen,
    name: MessageName,
    size_octets: Option<u64>,
    arrived: Option<UnixTime>,
}

impl ImapRun<'_> {
    /// The same mailbox under other UIDVALIDITYs that was listed after this one last was, with what is known of its
    /// messages. Usually none; a server that changes between two copies of a mailbox comes back to an older one.
    pub(super) async fn predecessors(
        &mut self,
        mailbox: &MailboxRow,
    ) -> Result<Vec<(MailboxRow, Vec<Entry>)>, RunError> {
        let mut found = Vec::new();
        for row in &self.known {
            let same = row.name == mailbox.name && row.id != mailbox.id;
            if same && (mailbox.first_listed.is_none() || row.last_listed > mailbox.last_listed) {
                let entries = self.run.site.store.ledger(row.id).await?;
                if row.first_listed.is_some() || !entries.is_empty() {
                    found.push((row.clone(), entries));
                }
            }
        }
        Ok(found)
    }

    /// What is there, and what to do with it. With nothing new no listing is asked for. `searching` is the search of the
    /// whole mailbox that was sent along when it was opened; without a `ledger` nothing is to be done about what was listed
    /// before, and only what is known of the new messages is looked up.
    pub(super) async fn list(
        &mut self,
        mailbox: &MailboxRow,
        selected: &Selected,
        searching: Option<CommandId>,
        full: bool,
        ledger: Option<Ledger>,
    ) -> Result<(Planner, Work), RunError> {
        let run = self.run;
        let is_unsettled =
            |entry: Entry| entry.state == State::Removing || entry.state == State::Discarding && entry.attempts > 0;
        let full = full || ledger.as_ref().is_some_and(|ledger| ledger.entries().any(is_unsettled));
        let search = match (full, selected.uid_next) {
            (true, _) | (_, None) => Some(UidSearch::all()),
            (false, Some(next)) if next.number() == mailbox.uid_next => None,
            (false, Some(_)) => Uid::new(mailbox.uid_next).map(UidSearch::since),
        };
        let whole = search.as_ref().is_some_and(|search| search.from.is_none());
        let mut work = Work { messages: u64::from(selected.exists), ..Work::default() };
        let mut found: Vec<UidSet> = Vec::new();
        let mut changed = false;
        if let Some(search) = search {
            let command = searching.unwrap_or_else(|| self.driver.machine().uid_search(search));
            let result = self
                .finish(command, |event| match event {
                    Event::Found(uids) => found.push(uids),
                    Event::Exists(_) | Event::Expunged | Event::Vanished(_) => changed = true,
                    _ => {}
                })
                .await?;
            result.map_err(|refusal| self.refused(&mailbox.name, refusal.to_string(), true))?;
        }
        let counted: u64 = found.iter().map(UidSet::len).sum();
        let ledger = match ledger {
            Some(ledger) => ledger,
            None => self.known_of(mailbox, &found, counted).await?,
        };
        let mut planner = Planner::new(ledger, run.rules(), run.now);
        for uid in found.iter().flat_map(UidSet::iter) {
            work.see(run, mailbox, &mut planner, uid);
        }
        drop(found);
        // Only a whole listing whose count agrees, with nothing moving meanwhile, is evidence of absence.
        work.complete = whole && !changed && counted == u64::from(selected.exists);
        work.covers_all = !whole || counted >= u64::from(selected.exists);
        if !whole {
            // What was not listed is as it was: pending messages and due removals are found by their rows.
            let entries = planner.ledger().entries().filter(|entry| {
                matches!(entry.state, State::Pending | State::Delivered | State::Removing | State::Discarding)
            });
            let uids: Vec<Uid> = entries
                .filter_map(|entry| match entry.key {
                    Key::Uid(uid) if uid < mailbox.uid_next => Uid::new(uid),
                    _ => None,
                })
                .collect();
            uids.into_iter().for_each(|uid| work.see(run, mailbox, &mut planner, uid));
        }
        work.busy = !(work.due.is_empty() && work.doubtful.is_empty() && work.returned.is_empty());
        self.fingerprints(mailbox, &mut work).await?;
        Ok((planner, work))
    }

    /// What is known of messages above the mark: usually nothing.
    async fn known_of(&mut self, mailbox: &MailboxRow, found: &[UidSet], count: u64) -> Result<Ledger, RunError> {
        let store = &self.run.site.store;
        if count > MANY_NEW {
            return Ok(store.packed_ledger(mailbox.id, false).await?);
        }
        let keys: Vec<Key> = found.iter().flat_map(UidSet::iter).map(|uid| Key::Uid(uid.number())).collect();
        Ok(Ledger::new(store.entries(mailbox.id, &keys).await?))
    }

    /// Reads what messages look like whose identity is to be shown: of few, so the ledger of all has no fingerprints.
    async fn fingerprints(&mut self, mailbox: &MailboxRow, work: &mut Work) -> Result<(), RunError> {
        let adopted = work.wanted.known_ones().filter(|(_, wanted)| wanted.adopted.is_some()).map(|(uid, _)| uid);
        let uids = adopted.chain(work.doubtful.iter().map(|(uid, _)| *uid));
        let keys: Vec<Key> = uids.map(|uid| Key::Uid(uid.number())).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let entries = Ledger::new(self.run.site.store.entries(mailbox.id, &keys).await?);
        let entry = |uid: Uid| entries.get(Key::Uid(uid.number()));
        for (uid, known) in &mut work.doubtful {
            *known = entry(*uid).unwrap_or(*known);
        }
        for (uid, wanted) in work.wanted.known_ones().filter(|(_, wanted)| wanted.adopted.is_some()) {
            wanted.adopted = entry(uid).map(|entry| entry.fingerprint);
        }
        Ok(())
    }

    /// "Only what comes from now on": one complete listing, one commit.
    pub(super) async fn baseline(
        &mut self,
        mailbox: &mut MailboxRow,
        selected: &Selected,
        work: Work,
    ) -> Result<(), RunError> {
        let run = self.run;
        run.tally.listed(run, &mailbox.name, work.messages, 0, 0);
        if !work.complete {
            return Err(self.refused(&mailbox.name, "its listing is not complete".into(), true));
        }
        if run.mode.dry_run {
            return Ok(());
        }
        let keys: Vec<(Key, u16)> = work.wanted.uids().map(|uid| (Key::Uid(uid.number()), 0)).collect();
        mailbox.first_listed = Some(run.now);
        mailbox.last_listed = Some(run.now);
        mailbox.uid_next = selected.uid_next.map_or(0, Uid::number);
        Ok(run.site.store.record_listing(run.lease, mailbox, &keys, Mark::Skipped).await?)
    }

    /// The mailbox was renumbered: messages that were delivered under their old UIDs are recognised by their headers,
    /// before anything is retrieved again.
    pub(super) async fn recognise(
        &mut self,
        mailbox: &MailboxRow,
        predecessors: &[(MailboxRow, Vec<Entry>)],
        work: &mut Work,
    ) -> Result<(), RunError> {
        let run = self.run;
        // What is recognised has its row under its new name only now, and may be due soon.
        work.busy = true;
        let mut heads = self.heads(work.wanted.uids().collect(), false).await?;
        heads.sort_by_key(|(uid, _)| *uid);
        let mut known = Prints::new();
        for (row, entries) in predecessors {
            let mut entries: Vec<Entry> = entries.iter().filter(|entry| entry.state != State::Done).copied().collect();
            newest_first(&mut entries);
            for entry in entries {
                let message = MessageRef { mailbox: row.id, key: entry.key, generation: entry.generation };
                known.insert(&entry.fingerprint, (message, entry.fingerprint));
            }
        }
        let before = predecessors.iter().filter_map(|(row, _)| row.last_listed).max();
        let mut adopted = Vec::new();
        let mut skipped = Vec::new();
        for (uid, Found { seen, size_octets, arrived, .. }) in heads {
            let key = Key::Uid(uid.number());
            // Each row is used once: two identical messages are two messages.
            if let Some((from, old)) = known.take(&seen, size_octets) {
                adopted.push((from, MessageRef { mailbox: mailbox.id, key, generation: 0 }, old));
                work.wanted.remove(uid);
            } else if run.job.account.start == Start::FromNowOn && arrived.is_some() && arrived <= before {
                skipped.push((key, 0));
                work.wanted.remove(uid);
            }
        }
        renumbered(run, mailbox, predecessors, adopted.len(), work.wanted.len() as usize);
        if !run.mode.dry_run {
            run.site.store.adopt(run.lease, &adopted).await?;
            run.site.store.mark(run.lease, mailbox.id, &skipped, Mark::Skipped).await?;
        }
        Ok(())
    }

    /// Fingerprint, size and arrival of messages, by their headers only, and with `named` what people recognise them by;
    /// those that cannot be had are missing.
    async fn heads(&mut self, uids: UidSet, named: bool) -> Result<Vec<(Uid, Found)>, RunError> {
        let mut found = Vec::new();
        let uids: Vec<Uid> = uids.iter().collect();
        for chunk in chunks(&uids, HEADERS_AT_ONCE) {
            let before = found.len();
            if let Some(refusal) = self.fetch_heads(&chunk, named, &mut found).await? {
                warn!(account = self.run.job.address(), %refusal, "headers cannot be compared");
                // One that cannot be had must not hide the others of its command.
                let had: HashSet<Uid> = found[before..].iter().map(|(uid, _)| *uid).collect();
                for uid in chunk.iter().filter(|uid| !had.contains(uid)) {
                    self.fetch_heads(&UidSet::range(uid, uid), named, &mut found).await?;
                }
            }
        }
        Ok(found)
    }

    async fn fetch_heads(
        &mut self,
        uids: &UidSet,
        named: bool,
        found: &mut Vec<(Uid, Found)>,
    ) -> Result<Option<Refusal>, RunError> {
        let items =
            FetchItems { size: true, internal_date: true, body: Some(Section::Header), ..FetchItems::default() };
        let command = self.driver.machine().uid_fetch(uids, items);
        let mut glance = Glance::default();
        let result = self
            .finish(command, |event| match event {
                Event::BodyStart { .. } => glance = Glance::default(),
                Event::Body(octets) => glance.push(&octets),
                Event::Fetched(fetched) => {
                    if let (Some(uid), true, Body::Octets(_)) = (fetched.uid, fetched.asked, fetched.body) {
                        let arrived = fetched.internal_date.map(|date| UnixTime(date.unix_seconds));
                        let (seen, size_octets) = (glance.header_only(fetched.size), fetched.size);
                        let name = if named {
                            name_of(glance.head(), uid.number().to_string())
                        } else {
                            MessageName::default()
                        };
                        found.push((uid, Found { seen, name, size_octets, arrived }));
                    }
                }
                _ => {}
            })
            .await?;
        Ok(result.err())
    }

    /// Parks or skips messages over the limit, by the sizes the server tells.
    pub(super) async fn announced_sizes(&mut self, mailbox: &MailboxRow, work: &mut Work) -> Result<(), RunError> {
        let run = self.run;
        let Some(limit) = run.job.account.max_message_octets else { return Ok(()) };
        let uids: Vec<Uid> =
            work.wanted.uids().filter(|uid| work.wanted.get(*uid).is_some_and(|wanted| !wanted.known)).collect();
        let mut large = Vec::new();
        for chunk in chunks(&uids, SIZES_AT_ONCE) {
            let command = self.driver.machine().uid_fetch(&chunk, FetchItems { size: true, ..FetchItems::default() });
            let result = self
                .finish(command, |event| {
                    if let Event::Fetched(fetched) = event
                        && let (Some(uid), Some(size)) = (fetched.uid, fetched.size)
                        && size > limit
                    {
                        large.push((uid, size));
                    }
                })
                .await?;
            result.map_err(|refusal| self.refused(&mailbox.name, refusal.to_string(), true))?;
        }
        if run.mode.dry_run {
            for (uid, _) in &large {
                work.wanted.remove(*uid);
            }
            return Ok(());
        }
        if run.job.account.oversize == Oversize::Skip {
            for some in large.chunks(SKIPPED_AT_ONCE) {
                let mut skipped = Vec::with_capacity(some.len());
                for (uid, size) in some {
                    if let Some(wanted) = work.wanted.remove(*uid) {
                        skipped.push((reference(mailbox, *uid, wanted.generation), name(*uid), *size));
                    }
                }
                skip(run, mailbox.id, &skipped).await?;
            }
            return Ok(());
        }
        // A person who decides about them sees from whom they are.
        let uids: UidSet = large.iter().map(|(uid, _)| *uid).collect();
        let heads: HashMap<Uid, Found> = self.heads(uids, true).await?.into_iter().collect();
        for (uid, size) in large {
            let Some(wanted) = work.wanted.remove(uid) else { continue };
            let message = reference(mailbox, uid, wanted.generation);
            let head = heads.get(&uid);
            let name = head.map_or_else(|| name(uid), |head| head.name.clone());
            too_large(run, message, &name, head.map(|head| head.seen.fingerprint), size).await?;
        }
        Ok(())
    }
}

/// Whether all UIDs are to be listed, whatever the server says of the mailbox.
pub(super) fn listing_is_due(run: &Run<'_>, mailbox: &MailboxRow) -> bool {
    let stale = |last: UnixTime| run.now < last || run.now.since(last) >= FULL_LISTING_EVERY;
    mailbox.uid_next == 0
        || mailbox.first_listed.is_none()
        || mailbox.last_listed.is_none_or(stale)
        || mailbox.absence.is_some()
        || run.account.health.failures > 0
}

/// Says that the mailbox has another UIDVALIDITY.
pub(super) fn renumbered(
    run: &Run<'_>,
    mailbox: &MailboxRow,
    predecessors: &[(MailboxRow, Vec<Entry>)],
    recognised: usize,
    new: usize,
) {
    let entries = predecessors.iter().flat_map(|(_, entries)| entries);
    let known = entries.filter(|entry| entry.state != State::Done).count();
    run.tally.change(
        run,
        Change {
            kind: ChangeKind::Renumbered,
            mailbox: connectord_wire::Escaped::text(&mailbox.name).to_string(),
            known: known as u64,
            missing: known.saturating_sub(recognised) as u64,
            recognised: recognised as u64,
            new: new as u64,
        },
    );
}

impl Work {
    fn see(&mut self, run: &Run<'_>, mailbox: &MailboxRow, planner: &mut Planner, uid: Uid) {
        let key = Key::Uid(uid.number());
        let decision = planner.see(Listed::new(key));
        let known = planner.ledger().get(key);
        match decision {
            Decision::Retrieve { attempt, generation } => {
                if known.is_none() || !run.waits_for_room(reference(mailbox, uid, generation)) {
                    self.wanted.insert(uid, Wanted::of(known, generation, attempt));
                }
            }
            Decision::Remove { verify: Verify::Content, .. } => {
                self.doubtful.extend(known.map(|entry| (uid, entry)));
            }
            Decision::Remove { verify: Verify::Nothing | Verify::Header, .. } => self.due.push(uid),
            Decision::Leave => {
                let known = known.filter(|entry| entry.state == State::Done);
                self.returned.extend(known.map(|entry| (entry.key, entry.generation)));
            }
            Decision::Compare { .. } | Decision::TooLarge { .. } | Decision::Ambiguous => {}
        }
    }
}
