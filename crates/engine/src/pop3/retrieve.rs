//! RETR: from the server to the delivery.

use std::collections::{HashMap, VecDeque};

use connectord_account::{Decision, Entry, Key, Oversize, Verify};
use connectord_pop3::{Event, MessageNumber, Retrieval};
use connectord_store::{MailboxRow, MessageRef};
use tracing::warn;

use super::known::{Content, Known, is_same};
use super::{Candidate, Connection, Due, Pop3Run};
use crate::mailbox::{Failed, SKIPPED_AT_ONCE, Wanted, skip, too_large};
use crate::pipeline::Incoming;
use crate::spool::{Collected, Collector};
use crate::trouble::RunError;

/// What a session has retrieved.
#[derive(Default)]
pub(super) struct Retrieved {
    /// Which number each message has that was handed over.
    pub(super) numbers: HashMap<(Key, u16), MessageNumber>,
    /// Known messages, recognised by their whole content, that are to be removed.
    pub(super) due: Vec<Due>,
    /// No message was refused.
    pub(super) all_came: bool,
}

impl Pop3Run<'_> {
    /// Retrieves messages and hands them to the delivery.
    pub(super) async fn retrieve(
        &self,
        driver: &mut Connection,
        mailbox: &MailboxRow,
        known: &mut Known,
        candidates: &[Candidate],
    ) -> Result<Retrieved, RunError> {
        let run = self.run;
        let limit = run.job.account.max_message_octets.unwrap_or(u64::MAX);
        let mut waiting: VecDeque<&Candidate> = VecDeque::new();
        let mut skipped: Vec<(MessageRef, &Candidate, u64)> = Vec::new();
        for candidate in candidates {
            match (candidate.message(mailbox), candidate.size_octets) {
                (Some(message), Some(size)) if size > limit && !candidate.wanted.known => {
                    match run.job.account.oversize {
                        Oversize::Park => {
                            // A person who decides about it sees from whom it is.
                            let (name, print) = self.recognisable(driver, candidate).await?;
                            too_large(run, message, &name, print, size).await?;
                        }
                        Oversize::Skip => skipped.push((message, candidate, size)),
                    }
                }
                _ => waiting.push_back(candidate),
            }
        }
        for some in skipped.chunks(SKIPPED_AT_ONCE) {
            let some: Vec<_> =
                some.iter().map(|(message, candidate, size)| (*message, candidate.name(), *size)).collect();
            skip(run, mailbox.id, &some).await?;
        }
        waiting.iter().for_each(|candidate| driver.machine().retr(candidate.number));
        let mut retrieved = Retrieved { all_came: true, ..Retrieved::default() };
        let mut collector: Option<Collector> = None;
        // Answers come in the order of the commands.
        while let Some(candidate) = waiting.front().copied() {
            let event = match run.or_stop(driver.next()).await {
                Ok(event) => event,
                Err(error) => {
                    if let (Some(failed), false) =
                        (candidate.failed(mailbox, error.to_string()), matches!(error, RunError::Stopped))
                    {
                        failed.blame(run).await;
                    }
                    return Err(error);
                }
            };
            match event {
                Event::BodyStart { kind: Retrieval::Whole, octets, .. } => {
                    collector = Some(run.site.spool.collect(octets, candidate.key.is_none()));
                }
                Event::Body(octets) => {
                    let Some(collecting) = &mut collector else { continue };
                    run.tally.octets(run, octets.len() as u64);
                    if collecting.size_octets() + octets.len() as u64 > limit && !candidate.wanted.known {
                        // Larger than announced; the rest is read and dropped.
                        collector = None;
                    } else if let Err(error) = collecting.push(octets).await {
                        if let Some(failed) = candidate.failed(mailbox, error.to_string()) {
                            failed.make_way(run).await;
                        }
                        return Err(RunError::Spool(error));
                    }
                }
                Event::BodyEnd { number, kind: Retrieval::Whole, octets } => {
                    waiting.pop_front();
                    run.tally.retrieved(run);
                    match (collector.take(), candidate.message(mailbox)) {
                        (Some(collector), _) if number == candidate.number => {
                            let collected = collector.finish().await.map_err(RunError::Spool)?;
                            let more = !waiting.is_empty();
                            self.hand_over(mailbox, known, candidate, collected, more, &mut retrieved).await?;
                        }
                        (None, Some(message)) => {
                            too_large(run, message, &candidate.name(), None, octets).await?;
                        }
                        _ => {
                            retrieved.all_came = false;
                            warn!(
                                account = run.job.address(),
                                octets, "a message without a name is too large; it stays"
                            );
                        }
                    }
                }
                Event::RetrieveRefused { kind: Retrieval::Whole, refusal, .. } => {
                    waiting.pop_front();
                    retrieved.all_came = false;
                    match candidate.failed(mailbox, refusal.to_string()) {
                        Some(failed) => failed.put_off(run).await?,
                        None => {
                            run.tally.deferred(run);
                            warn!(account = run.job.address(), %refusal, "a message cannot be retrieved");
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(retrieved)
    }

    /// Gives a whole message to the delivery, unless its content shows that it is known; `more` are on the line.
    async fn hand_over(
        &self,
        mailbox: &MailboxRow,
        known: &mut Known,
        candidate: &Candidate,
        collected: Collected,
        more: bool,
        retrieved: &mut Retrieved,
    ) -> Result<(), RunError> {
        let seen = collected.seen;
        let mut wanted = candidate.wanted;
        // Both are known whole, mostly: a header alone makes no two messages one.
        let again = |entry: Entry, generation, attempt| Wanted::of(Some(entry), generation, attempt);
        let key = match (candidate.key, collected.digest) {
            (Some(key), _) => key,
            (None, digest) => match known.name_content(&digest.unwrap_or_default()) {
                Content::New(key) => match known.take_matching(&seen, Some(collected.size_octets)) {
                    Some(entry) if is_same(&entry, &seen) => match known.decide(entry) {
                        Decision::Retrieve { attempt, generation } => {
                            wanted = again(entry, generation, attempt);
                            entry.key
                        }
                        _ => return Ok(()),
                    },
                    Some(entry) => {
                        known.give_back(entry);
                        key
                    }
                    None => key,
                },
                Content::Known(entry) => match known.decide(entry) {
                    Decision::Retrieve { attempt, generation } => {
                        wanted = again(entry, generation, attempt);
                        entry.key
                    }
                    Decision::Remove { generation, .. } => {
                        let (number, key) = (candidate.number, entry.key);
                        retrieved.due.push(Due { number, key, generation, verify: Verify::Nothing, short: false });
                        return Ok(());
                    }
                    _ => return Ok(()),
                },
            },
        };
        if candidate.compare {
            // TOP was refused, so only now it can be told.
            if known.is(key, &seen) {
                return Ok(());
            }
            wanted.generation = wanted.generation.saturating_add(1);
        }
        let on_server = candidate.name().on_server;
        let mut incoming = Incoming::new(self.run, mailbox, key, wanted, on_server, None, collected);
        incoming.more = more;
        self.queue.send(incoming).await?;
        retrieved.numbers.insert((key, wanted.generation), candidate.number);
        Ok(())
    }
}

impl Candidate {
    /// What is remembered when it cannot be had; nothing when only its content could name it.
    fn failed(&self, mailbox: &MailboxRow, reason: String) -> Option<Failed> {
        let message = self.message(mailbox)?;
        let Wanted { attempt, anyway, .. } = self.wanted;
        Some(Failed { message, name: self.name(), attempt, anyway, size_octets: self.size_octets, reason })
    }
}
