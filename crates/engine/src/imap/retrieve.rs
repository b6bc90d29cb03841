//! UID FETCH: from the server to the delivery.

use std::collections::BTreeSet;

use connectord_account::{Key, Ledger};
use connectord_imap::{Body, Event, FetchItems, Refusal, Section, Uid, UidSet};
use connectord_mail::UnixTime;
use connectord_store::MailboxRow;

use super::listing::Work;
use super::{ImapRun, chunks, name, reference};
use crate::mailbox::{Failed, too_large, turn};
use crate::pipeline::Incoming;
use crate::spool::Collector;
use crate::trouble::RunError;

/// New messages asked for at a time.
const FETCH_AT_ONCE: usize = 500;

/// Messages asked for at a time that failed before: few, so that one that fails again is not before others.
const RETRY_AT_ONCE: usize = 4;

impl ImapRun<'_> {
    /// Retrieves what is wanted, new messages first; what the server did not give is put off.
    pub(super) async fn retrieve(
        &mut self,
        mailbox: &MailboxRow,
        ledger: &Ledger,
        work: &Work,
    ) -> Result<(), RunError> {
        let mut order: Vec<_> =
            work.wanted.keys().map(|uid| (turn(ledger.get(Key::Uid(uid.number()))), *uid)).collect();
        order.sort_unstable();
        let new = order.partition_point(|((tried, _), _)| !tried);
        let uids: Vec<Uid> = order.into_iter().map(|(_, uid)| uid).collect();
        let (new, tried) = uids.split_at(new);
        for chunk in chunks(new, FETCH_AT_ONCE).into_iter().chain(chunks(tried, RETRY_AT_ONCE)) {
            let mut missing: BTreeSet<Uid> = chunk.iter().collect();
            let refusal = self.fetch(mailbox, &chunk, work, &mut missing).await?;
            let one_by_one = refusal.is_some() && missing.len() > 1;
            for uid in missing {
                let mut left = BTreeSet::from([uid]);
                let mut reason = refusal.as_ref().map(ToString::to_string);
                if one_by_one {
                    // One that cannot be had must not hide the others of its command.
                    let alone = UidSet::range(uid, uid);
                    reason = self.fetch(mailbox, &alone, work, &mut left).await?.map(|refusal| refusal.to_string());
                }
                if !left.is_empty() {
                    // Exchange and others answer OK and send nothing for a message they cannot read.
                    let reason = reason.unwrap_or_else(|| "the server answered without sending the message".into());
                    if let Some(failed) = failed(mailbox, work, uid, reason) {
                        failed.put_off(self.run).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One UID FETCH; takes what was dealt with out of `missing`.
    async fn fetch(
        &mut self,
        mailbox: &MailboxRow,
        uids: &UidSet,
        work: &Work,
        missing: &mut BTreeSet<Uid>,
    ) -> Result<Option<Refusal>, RunError> {
        let run = self.run;
        let items = FetchItems { internal_date: true, body: Some(Section::Whole), ..FetchItems::default() };
        let command = self.driver.machine().uid_fetch(uids, items);
        // Which message a body is of is known for certain only at its end.
        let known = uids.iter().any(|uid| work.wanted.get(&uid).is_some_and(|wanted| wanted.known));
        let limit = run.job.account.max_message_octets.filter(|_| !known).unwrap_or(u64::MAX);
        let mut collector: Option<Collector> = None;
        // Whose body is coming; servers answer in ascending order, mostly.
        let mut coming: Option<Uid> = None;
        loop {
            let event = match run.or_stop(self.driver.next()).await {
                Ok(event) => event,
                Err(error) => {
                    let culprit = coming.or_else(|| missing.first().copied());
                    if let (Some(uid), false) = (culprit, matches!(error, RunError::Stopped))
                        && let Some(failed) = failed(mailbox, work, uid, error.to_string())
                    {
                        failed.blame(run).await;
                    }
                    return Err(error);
                }
            };
            match event {
                Event::BodyStart { section: Section::Whole, uid, .. } => {
                    coming = uid;
                    collector = Some(run.site.spool.collect(false));
                }
                Event::Body(octets) => {
                    let Some(collecting) = &mut collector else { continue };
                    run.tally.octets(run, octets.len() as u64);
                    if collecting.size_octets() + octets.len() as u64 > limit {
                        // Larger than announced; the rest is read and dropped.
                        collector = None;
                    } else if let Err(error) = collecting.push(octets).await {
                        let culprit = coming.or_else(|| missing.first().copied());
                        if let Some(failed) = culprit.and_then(|uid| failed(mailbox, work, uid, error.to_string())) {
                            failed.make_way(run).await;
                        }
                        return Err(RunError::Spool(error));
                    }
                }
                Event::Fetched(fetched) => {
                    coming = None;
                    let (Some(uid), collected) = (fetched.uid, collector.take()) else { continue };
                    let Some(wanted) = work.wanted.get(&uid).filter(|_| missing.contains(&uid)) else { continue };
                    let collector = match (fetched.body, collected) {
                        (Body::Octets(octets), Some(collector)) if octets == collector.size_octets() => collector,
                        (Body::Octets(octets), None) if octets > limit => {
                            missing.remove(&uid);
                            let message = reference(mailbox, uid, wanted.generation);
                            too_large(run, message, &name(uid), None, octets).await?;
                            continue;
                        }
                        _ => continue,
                    };
                    missing.remove(&uid);
                    run.tally.retrieved(run);
                    let collected = collector.finish().await.map_err(RunError::Spool)?;
                    let arrived = fetched.internal_date.map(|date| UnixTime(date.unix_seconds));
                    let (key, on_server) = (Key::Uid(uid.number()), uid.number().to_string());
                    let incoming = Incoming::new(run, mailbox, key, *wanted, on_server, arrived, collected);
                    self.queue.send(incoming).await?;
                }
                Event::Done { command: done, result } if done == command => {
                    return Ok(self.pause_wanted(result)?.err());
                }
                Event::UidValidityChanged(_) => return Err(self.renumbered()),
                _ => {}
            }
        }
    }
}

fn failed(mailbox: &MailboxRow, work: &Work, uid: Uid, reason: String) -> Option<Failed> {
    let wanted = work.wanted.get(&uid)?;
    let message = reference(mailbox, uid, wanted.generation);
    let (attempt, anyway) = (wanted.attempt, wanted.anyway);
    Some(Failed { message, name: name(uid), attempt, anyway, size_octets: None, reason })
}
