//! What one connection retrieves: the next command is on the wire before the answer to the last one has been read.

use std::collections::{BTreeSet, VecDeque};

use connectord_account::Key;
use connectord_imap::{Body, CommandId, Event, FetchItems, Fetched, MailboxName, Section, Uid};
use connectord_mail::UnixTime;
use connectord_store::MailboxRow;

use super::line::{Connection, pause_wanted, renumbered};
use super::listing::Work;
use super::supply::{Order, Supply, Who};
use super::{Opened, name, reference};
use crate::mailbox::{Failed, too_large};
use crate::pipeline::{Incoming, Queue};
use crate::run::Run;
use crate::spool::Collector;
use crate::trouble::RunError;

/// Most messages asked for in one command.
const AT_ONCE: usize = 250;

/// Most messages asked for and not received.
const WINDOW_MESSAGES: u64 = 1000;

/// Most octets asked for and not received, reckoned from what came so far. It costs no memory, as TCP holds the server back
/// while we do not read; it is more than a line of 1 Gbit/s holds in 200 ms, so the server never waits for us.
const WINDOW_OCTETS: u64 = 32 * 1024 * 1024;

/// The same where several connections share the work: less, so that none has much left when the others are done.
const WINDOW_OCTETS_SHARED: u64 = 8 * 1024 * 1024;

/// Fewest messages in one command while there are more: commands cost something too.
const FEWEST: usize = 16;

/// A message's size before any has come.
const USUAL_OCTETS: u64 = 32 * 1024;

/// One mailbox being retrieved from.
pub(super) struct Retrieval<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) queue: &'a Queue,
    pub(super) name: &'a MailboxName,
    pub(super) mailbox: &'a MailboxRow,
    pub(super) work: &'a Work,
    pub(super) supply: &'a Supply,
    /// How many share the work, at most.
    pub(super) connections: usize,
}

/// One connection's share.
pub(super) struct Puller<'a> {
    retrieval: &'a Retrieval<'a>,
    who: Who,
    asked: VecDeque<Asked>,
    collector: Option<Collector>,
    /// Whose body is coming; servers answer in ascending order, mostly.
    coming: Option<Uid>,
    /// Messages and octets received.
    received: (u64, u64),
}

/// A command in flight.
struct Asked {
    command: CommandId,
    missing: BTreeSet<Uid>,
    alone: bool,
}

impl<'a> Puller<'a> {
    pub(super) fn new(retrieval: &'a Retrieval<'a>, who: Who) -> Self {
        Self { retrieval, who, asked: VecDeque::new(), collector: None, coming: None, received: (0, 0) }
    }

    /// Retrieves until nothing is left to ask for and everything asked for was answered; `open` notices what else happens
    /// to the mailbox.
    pub(super) async fn pull(
        &mut self,
        driver: &mut Connection,
        mut open: Option<&mut Opened>,
    ) -> Result<(), RunError> {
        let run = self.retrieval.run;
        loop {
            self.ask(driver);
            if self.asked.is_empty() {
                return Ok(());
            }
            match run.or_stop(driver.next()).await? {
                Event::BodyStart { section: Section::Whole, uid, octets } => {
                    self.coming = uid;
                    self.collector = Some(run.site.spool.collect(Some(octets), false));
                }
                Event::Body(octets) => {
                    let limit = self.limit();
                    let Some(collecting) = &mut self.collector else { continue };
                    run.tally.octets(run, octets.len() as u64);
                    self.received.1 += octets.len() as u64;
                    if collecting.size_octets() + octets.len() as u64 > limit {
                        // Larger than announced; the rest is read and dropped.
                        self.collector = None;
                    } else if let Err(error) = collecting.push(octets).await {
                        if let Some(failed) = self.culprit().and_then(|uid| self.failed(uid, error.to_string())) {
                            failed.make_way(run).await;
                        }
                        return Err(RunError::Spool(error));
                    }
                }
                Event::Fetched(fetched) => self.fetched(fetched).await?,
                Event::Done { command, result } => {
                    let Some(at) = self.asked.iter().position(|asked| asked.command == command) else { continue };
                    let refusal = match pause_wanted(run, result) {
                        Ok(result) => result.err().map(|refusal| refusal.to_string()),
                        Err(error) => return Err(error),
                    };
                    let Some(asked) = self.asked.remove(at) else { continue };
                    self.answered(asked, refusal).await?;
                }
                Event::UidValidityChanged(_) => return Err(renumbered(run)),
                event => {
                    if let Some(open) = &mut open {
                        open.notice(&event);
                    }
                }
            }
        }
    }

    /// Asks for more while the window has room.
    fn ask(&mut self, driver: &mut Connection) {
        let Retrieval { supply, connections, .. } = self.retrieval;
        let shared = *connections > 1;
        let (messages, octets) = self.received;
        // A few messages say little about the others.
        let size = ((octets + 8 * USUAL_OCTETS) / (messages + 8)).max(1);
        let octets = if shared { WINDOW_OCTETS_SHARED } else { WINDOW_OCTETS };
        let window = usize::try_from((octets / size).clamp(8, WINDOW_MESSAGES)).unwrap_or(usize::MAX);
        let mut in_flight: usize = self.asked.iter().map(|asked| asked.missing.len()).sum();
        loop {
            let mut most = (window / 4).clamp(2, AT_ONCE);
            if shared {
                most = most.min((supply.left() / (4 * connections)).max(FEWEST));
            }
            if in_flight > 0 && in_flight + most > window {
                return;
            }
            let Some(Order { uids, alone }) = supply.take(self.who, most) else { return };
            let items = FetchItems { internal_date: true, body: Some(Section::Whole), ..FetchItems::default() };
            let command = driver.machine().uid_fetch(&uids, items);
            let missing: BTreeSet<Uid> = uids.iter().collect();
            in_flight += missing.len();
            self.asked.push_back(Asked { command, missing, alone });
        }
    }

    /// The largest message that is taken now; which one is coming is known for certain only at its end.
    fn limit(&self) -> u64 {
        let Retrieval { run, work, .. } = self.retrieval;
        let Some(limit) = run.job.account.max_message_octets else { return u64::MAX };
        let known = |uid: &Uid| work.wanted.get(*uid).is_some_and(|wanted| wanted.known);
        let any_known = match &self.coming {
            Some(uid) => known(uid),
            None => self.asked.iter().flat_map(|asked| &asked.missing).any(known),
        };
        if any_known { u64::MAX } else { limit }
    }

    /// A whole answer about one message.
    async fn fetched(&mut self, fetched: Fetched) -> Result<(), RunError> {
        let Retrieval { run, mailbox, work, queue, .. } = *self.retrieval;
        let limit = self.limit();
        self.coming = None;
        let (Some(uid), collected) = (fetched.uid, self.collector.take()) else { return Ok(()) };
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.missing.contains(&uid)) else { return Ok(()) };
        let Some(wanted) = work.wanted.get(uid) else { return Ok(()) };
        let collector = match (fetched.body, collected) {
            (Body::Octets(octets), Some(collector)) if octets == collector.size_octets() => collector,
            (Body::Octets(octets), None) if octets > limit => {
                asked.missing.remove(&uid);
                let message = reference(mailbox, uid, wanted.generation);
                return too_large(run, message, &name(uid), None, octets).await;
            }
            _ => return Ok(()),
        };
        asked.missing.remove(&uid);
        self.received.0 += 1;
        run.tally.retrieved(run);
        let collected = collector.finish().await.map_err(RunError::Spool)?;
        let arrived = fetched.internal_date.map(|date| UnixTime(date.unix_seconds));
        let (key, on_server) = (Key::Uid(uid.number()), uid.number().to_string());
        let mut incoming = Incoming::new(run, mailbox, key, wanted, on_server, arrived, collected);
        incoming.more = self.asked.iter().any(|asked| !asked.missing.is_empty());
        queue.send(incoming).await
    }

    /// A command is finished; what did not come is asked for by itself, or put off.
    async fn answered(&self, asked: Asked, refusal: Option<String>) -> Result<(), RunError> {
        let Asked { missing, alone, .. } = asked;
        // One that cannot be had must not hide the others of its command: Yahoo refuses all of it (2017).
        if refusal.is_some() && !alone && missing.len() > 1 {
            self.retrieval.supply.close(&missing);
            return Ok(());
        }
        // Exchange (2016) and others answer OK and send nothing for a message they cannot read.
        let reason = refusal.unwrap_or_else(|| "the server answered without sending the message".into());
        for uid in missing {
            if let Some(failed) = self.failed(uid, reason.clone()) {
                failed.put_off(self.retrieval.run).await?;
            }
        }
        self.retrieval.supply.close(&BTreeSet::new());
        Ok(())
    }

    /// After the connection was lost: the message that was coming is put off when it does that again and again.
    pub(super) async fn blame(&self, error: &RunError) {
        if !matches!(error, RunError::Imap(_)) {
            return;
        }
        if let Some(failed) = self.culprit().and_then(|uid| self.failed(uid, error.to_string())) {
            failed.blame(self.retrieval.run).await;
        }
    }

    /// After a further connection was lost: others take over what it had.
    pub(super) fn give_back(self) {
        let culprit = self.culprit();
        for asked in self.asked.iter().rev() {
            self.retrieval.supply.give_back(&asked.missing, culprit);
        }
    }

    fn culprit(&self) -> Option<Uid> {
        self.coming.or_else(|| self.asked.front().and_then(|asked| asked.missing.first().copied()))
    }

    fn failed(&self, uid: Uid, reason: String) -> Option<Failed> {
        let wanted = self.retrieval.work.wanted.get(uid)?;
        let message = reference(self.retrieval.mailbox, uid, wanted.generation);
        let (attempt, anyway) = (wanted.attempt, wanted.anyway);
        Some(Failed { message, name: name(uid), attempt, anyway, size_octets: None, reason })
    }
}
