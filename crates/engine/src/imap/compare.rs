//! Messages that only their headers named, retrieved whole before they are removed.

use connectord_account::{Entry, State};
use connectord_imap::{Body, Event, FetchItems, Section, Uid, UidSet};
use connectord_store::MailboxRow;
use tracing::warn;

use super::listing::Work;
use super::{ImapRun, reference};
use crate::mailbox::{Compared, Wanted, ask_again};
use crate::skim::{Glance, Seen};
use crate::trouble::RunError;

/// Messages compared before what was found is committed.
const COMPARED_AT_ONCE: usize = 100;

impl ImapRun<'_> {
    /// Retrieves what is due and doubtful, once. What agrees with what was delivered is due; what does not is a new
    /// message and is wanted; what cannot be had stays as it is.
    pub(super) async fn compare(&mut self, mailbox: &MailboxRow, work: &mut Work) -> Result<(), RunError> {
        let run = self.run;
        for chunk in std::mem::take(&mut work.doubtful).chunks(COMPARED_AT_ONCE) {
            let found = self.whole(chunk.iter().map(|(uid, _)| *uid).collect()).await?;
            let entry_of = |uid: Uid| chunk.iter().find(|(known, _)| *known == uid).map(|(_, entry)| entry);
            let mut compared = Compared::new(chunk.iter().map(|(_, entry)| entry.fingerprint));
            for (uid, seen) in found {
                let Some(Entry { key, generation, state, fingerprint, .. }) = entry_of(uid) else { continue };
                if *state == State::Discarding && !fingerprint.is_whole() {
                    ask_again(run, reference(mailbox, uid, *generation), Some(seen.fingerprint)).await?;
                } else if compared.compare((*key, *generation), &seen.fingerprint) {
                    work.due.push(uid);
                } else {
                    work.wanted.insert(uid, Wanted { known: true, ..Wanted::new(*generation) });
                }
            }
            compared.record(run, mailbox).await?;
        }
        Ok(())
    }

    /// Digests of whole messages; those that cannot be had are missing.
    async fn whole(&mut self, uids: Vec<Uid>) -> Result<Vec<(Uid, Seen)>, RunError> {
        let mut found = Vec::new();
        let all: UidSet = uids.iter().copied().collect();
        if self.fetch_whole(&all, &mut found).await? {
            // One that cannot be had must not hide the others of its command.
            for uid in uids {
                if !found.iter().any(|(had, _)| *had == uid) {
                    self.fetch_whole(&UidSet::range(uid, uid), &mut found).await?;
                }
            }
        }
        Ok(found)
    }

    /// Whether it was refused.
    async fn fetch_whole(&mut self, uids: &UidSet, found: &mut Vec<(Uid, Seen)>) -> Result<bool, RunError> {
        let run = self.run;
        let items = FetchItems { body: Some(Section::Whole), ..FetchItems::default() };
        let command = self.driver.machine().uid_fetch(uids, items);
        let mut glance: Option<Glance> = None;
        let result = self
            .finish(command, |event| match event {
                Event::BodyStart { section: Section::Whole, .. } => glance = Some(Glance::default()),
                Event::Body(octets) => {
                    run.tally.octets(run, octets.len() as u64);
                    if let Some(glance) = &mut glance {
                        glance.push(&octets);
                    }
                }
                Event::Fetched(fetched) => {
                    if let (Some(uid), Body::Octets(octets), Some(glance)) = (fetched.uid, fetched.body, glance.take())
                        && octets == glance.size_octets()
                    {
                        found.push((uid, glance.whole()));
                    }
                }
                _ => {}
            })
            .await?;
        if let Err(refusal) = &result {
            warn!(account = run.job.address(), %refusal, "messages cannot be compared before they are removed");
        }
        Ok(result.is_err())
    }
}
