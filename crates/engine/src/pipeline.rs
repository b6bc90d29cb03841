//! From a collected body to a settled delivery, a batch at a time: prepare, commit, complete, commit.
//!
//! It runs beside the retrieval, joined to it by a bounded channel. A batch is what came while the last one was on its
//! way, and where more is on the line, what comes in the next moment; the last message, and a lone one, wait for nobody.
//!
//! Where an account's policy asks filters, they look at messages between the two (`filter`), and those that are not to be
//! delivered as they came are kept back, discarded or put off first (`hold`).

pub(crate) mod fate;
mod filter;
mod hold;
mod incoming;
mod outcome;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use connectord_delivery::{BatchLimits, Failure, Note, Parcel, Prepared, Recipient};
use connectord_mail::{Body, DeliveryId, Fingerprint, Trace, UnixTime};
use connectord_store::{DeliveryRow, Mark, MessageRef, Step};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::warn;

use self::fate::{Fate, QUARANTINE};
use self::filter::Stage;
pub(crate) use self::incoming::{Incoming, name_of};
use self::outcome::Owner;
use crate::run::{Run, stopped};
use crate::trouble::RunError;

/// Messages that may wait between retrieval and delivery.
const QUEUE: usize = 256;

/// Octets that may wait there, in KiB; a larger message waits alone.
const QUEUE_KIB: u32 = 64 * 1024;

/// For so long after a stop batches are still begun.
const LAST_BATCH: Duration = Duration::from_secs(3);

/// For so long after a stop a batch that has begun is waited for. What is cut short then is recovered by the next check.
const GRACE: Duration = Duration::from_secs(10);

/// For so long a batch waits for messages that have been asked for: each batch costs two commits and two syncs of
/// directories, and with none of this wait they would be a third of the work of a fast line.
const LINGER: Duration = Duration::from_millis(50);

/// A message that carries this many of our own marks for the same account is in a loop.
const MAX_LOOPS: usize = 3;

enum Item {
    Message(Box<Incoming>),
    /// Answered when everything before it is settled.
    Flush(oneshot::Sender<()>),
}

/// Where the retrieval puts what it has; dropping it ends the delivery.
pub(crate) struct Queue {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
}

impl Queue {
    /// Hands a message over; waits while too much waits there already.
    pub(crate) async fn send(&self, mut message: Incoming) -> Result<(), RunError> {
        let kib = message.size_octets.div_ceil(1024);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX).clamp(1, QUEUE_KIB);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.expect("the semaphore is never closed");
        message.room = Some(room);
        // A closed queue means that the delivery has ended, and why is told there.
        self.items.send(Item::Message(Box::new(message))).await.map_err(|_| RunError::Stopped)
    }

    /// Waits until everything handed over is settled.
    pub(crate) async fn flush(&self, run: &Run<'_>) -> Result<(), RunError> {
        let (answer, settled) = oneshot::channel();
        self.items.send(Item::Flush(answer)).await.map_err(|_| RunError::Stopped)?;
        run.or_stop(async { settled.await.map_err(|_| RunError::Stopped) }).await
    }
}

/// Delivers what the retrieval sends, until the channel is closed.
pub(crate) struct Pipeline<'a> {
    run: &'a Run<'a>,
    limits: BatchLimits,
    /// What lay at each recipient's when the first message came of a mailbox of which nothing is known, as far as the
    /// destination tells such things.
    before: Mutex<HashMap<String, Option<Vec<DeliveryId>>>>,
    /// Messages that all their recipients have now.
    done: Mutex<Vec<MessageRef>>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(run: &'a Run<'a>) -> Self {
        Self { run, limits: run.job.delivery.limits(), before: Mutex::default(), done: Mutex::new(Vec::new()) }
    }

    /// Takes the messages that have been delivered to everybody since the last call.
    pub(crate) fn take_done(&self) -> Vec<MessageRef> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs a retrieval beside the delivery of what it brings.
    ///
    /// A delivery that fails ends the retrieval, whatever that waits for; what was retrieved whole before the retrieval
    /// failed is delivered.
    pub(crate) async fn beside<T, F>(&self, retrieval: impl FnOnce(Queue) -> F) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, RunError>>,
    {
        let (items, queue) = mpsc::channel(QUEUE);
        let retrieval = retrieval(Queue { items, room: Arc::new(Semaphore::new(QUEUE_KIB as usize)) });
        let mut stop = self.run.stop.clone();
        let delivery = async {
            tokio::select! {
                biased;
                delivered = self.filter_and_deliver(queue) => delivered,
                () = async { stopped(&mut stop).await; tokio::time::sleep(GRACE).await } => Err(RunError::Stopped),
            }
        };
        tokio::pin!(retrieval, delivery);
        let retrieved = tokio::select! {
            biased;
            delivered = &mut delivery => return Err(delivered.err().unwrap_or(RunError::Stopped)),
            retrieved = &mut retrieval => retrieved,
        };
        delivery.await?;
        retrieved
    }

    /// Delivers what filters let pass; what has passed is delivered though a filter fails at another message.
    async fn filter_and_deliver(&self, queue: mpsc::Receiver<Item>) -> Result<(), RunError> {
        let Some(stage) = Stage::wanted(self.run) else { return self.deliver(queue).await };
        let (decided, passed) = mpsc::channel(QUEUE);
        let (filtering, delivering) = (stage.run(queue, decided), self.deliver(passed));
        tokio::pin!(filtering, delivering);
        let filtered = tokio::select! {
            biased;
            delivered = &mut delivering => return delivered,
            filtered = &mut filtering => filtered,
        };
        delivering.await?;
        filtered
    }

    /// Delivers batch after batch, until the queue is dropped. Where the destination can have two at once, the next one is
    /// prepared while one is committed and completed.
    async fn deliver(&self, mut queue: mpsc::Receiver<Item>) -> Result<(), RunError> {
        let mut next = None;
        let mut stopping: Option<Instant> = None;
        // The batch before, from its first commit on.
        let mut before = Before(None);
        loop {
            let first = match next.take() {
                Some(item) => Some(item),
                None => before.beside(async { Ok(queue.recv().await) }).await?,
            };
            let Some(first) = first else { break };
            let gathered = before.beside(async { Ok(self.gather(first, &mut queue).await) }).await?;
            let Batch { mut messages, left, flush } = gathered;
            next = left;
            if *self.run.stop.borrow() && stopping.get_or_insert_with(Instant::now).elapsed() > LAST_BATCH {
                return Err(RunError::Stopped);
            }
            before.beside(self.tell_apart(&messages)).await?;
            if messages.iter().any(|message| message.fate.is_not_delivery()) {
                before.end().await?;
                messages = self.carry_out(messages).await?;
            }
            if !messages.is_empty() {
                if self.limits.at_once < 2 {
                    before.end().await?;
                }
                let prepared = before.beside(self.prepare(messages)).await?;
                // Never two at once from here on: what may be uncertain after a crash is one batch.
                before.end().await?;
                before.0 = prepared.map(|prepared| Box::pin(self.complete(prepared)) as Completing<'_>);
            }
            if let Some(answer) = flush {
                before.end().await?;
                // Whoever asked may have been stopped meanwhile.
                let _ = answer.send(());
            }
        }
        before.end().await
    }

    /// What is there now, and what comes while more is on the line, as much as goes into one batch.
    async fn gather(&self, first: Item, queue: &mut mpsc::Receiver<Item>) -> Batch {
        let until = tokio::time::Instant::now() + LINGER;
        let mut batch = Batch { messages: Vec::new(), left: None, flush: None };
        let mut octets = 0;
        let mut item = Some(first);
        while let Some(next) = item {
            match next {
                Item::Flush(answer) => {
                    batch.flush = Some(answer);
                    break;
                }
                Item::Message(message) => {
                    let size = message.size_octets;
                    let parcels = (batch.messages.len() + 1) * self.run.job.recipients.len();
                    let full = parcels > self.limits.parcels || octets + size > self.limits.octets;
                    if full && !batch.messages.is_empty() {
                        batch.left = Some(Item::Message(message));
                        break;
                    }
                    octets += size;
                    batch.messages.push(*message);
                }
            }
            item = match queue.try_recv() {
                Err(TryRecvError::Empty) if batch.messages.last().is_some_and(|last| last.more) => {
                    tokio::time::timeout_at(until, queue.recv()).await.ok().flatten()
                }
                other => other.ok(),
            };
        }
        batch
    }

    /// First step: everything that can still be undone. Nothing where nobody is left to get anything.
    async fn prepare(&self, batch: Vec<Incoming>) -> Result<Option<Underway>, RunError> {
        let run = self.run;
        let now = run.site.clock.now();
        // A long retrieval must not fill the disk that had room when it began.
        run.has_room().await?;
        if batch.iter().any(|message| message.look_first) {
            self.look().await;
        }
        let mut looping = Vec::new();
        let mut sending = Vec::with_capacity(batch.len());
        for message in batch {
            let told = matches!(message.fate, Fate::Tell(_));
            if message.loops >= MAX_LOOPS && !message.anyway && !told {
                looping.push(message)
            } else {
                sending.push(message)
            }
        }
        for message in looping {
            let reason = format!("mail loop: this account has delivered it {} times", message.loops);
            self.park(&message, &reason).await?;
        }
        if sending.is_empty() {
            return Ok(None);
        }

        let mut owners = Vec::new();
        let mut parcels = Vec::new();
        let mut before = Vec::with_capacity(sending.len());
        for (index, message) in sending.iter_mut().enumerate() {
            // The parcels have it; with the last of them its memory goes.
            let body = message.body.take().expect("a message is prepared once");
            let known = run.known_deliveries(message.message);
            for recipient in &run.job.recipients {
                let attempt = match (self.earlier(&known, recipient), &message.fate) {
                    (Earlier::Uncertain(attempts), _) | (Earlier::NoticeDue(attempts), Fate::Tell(_)) => attempts + 1,
                    (Earlier::Settled | Earlier::NoticeDue(_), _) => continue,
                };
                parcels.push(self.parcel(message, &body, recipient, attempt, now));
                owners.push(Owner { index, recipient: recipient.clone(), attempt });
            }
            before.push(known);
        }
        if owners.is_empty() {
            // Whoever had not got it is no recipient any more.
            run.site.store.begin(run.lease, &self.begins(&sending, &before, &[], &[]), now).await?;
            self.finished(&sending, &before, &[], &[]);
            return Ok(None);
        }
        let prepared = run.delivering(run.job.delivery.prepare(parcels)).await;
        Ok(Some(Underway { sending, before, owners, prepared }))
    }

    /// From the first commit to the second.
    async fn complete(&self, underway: Underway) -> Result<(), RunError> {
        let Underway { mut sending, before, owners, prepared } = underway;
        let run = self.run;
        let notes: Vec<Result<Option<Note>, Failure>> = prepared.notes().to_vec();
        let begins = self.begins(&sending, &before, &owners, &notes);
        run.site.store.begin(run.lease, &begins, run.site.clock.now()).await?;
        let outcomes = run.delivering(prepared.complete()).await;
        sending.iter_mut().for_each(|message| drop(message.room.take()));
        let (settled, stop) = self.judge(&sending, &owners, &outcomes);
        run.site.store.settle(run.lease, &settled, run.site.clock.now()).await?;
        for ((owner, outcome), settle) in owners.iter().zip(&outcomes).zip(&settled) {
            self.report(&sending[owner.index], owner, outcome, &settle.settled);
        }
        self.take_down(&sending, &owners, &outcomes, &settled);
        self.finished(&sending, &before, &owners, &settled);
        let notes: Vec<Note> = notes.into_iter().filter_map(|note| note.ok().flatten()).collect();
        run.job.delivery.settled(&notes).await;
        match stop {
            Some(failure) => Err(RunError::Destination { destination: run.job.delivery.describe(), failure }),
            None => Ok(()),
        }
    }

    /// Looks once at what lies at each recipient's. Where that cannot be seen now, as there is no mailbox yet, the destination
    /// looks for each message, and this is tried again.
    async fn look(&self) {
        for recipient in &self.run.job.recipients {
            let known = |before: &HashMap<String, _>| before.contains_key(&recipient.user);
            if known(&self.before.lock().unwrap_or_else(PoisonError::into_inner)) {
                continue;
            }
            let found = self.run.delivering(self.run.job.delivery.delivered_before(recipient)).await;
            if let Ok(found) = found {
                self.before.lock().unwrap_or_else(PoisonError::into_inner).insert(recipient.user.clone(), found);
            }
        }
    }

    /// Whether an earlier copy of this message may be there, of which nothing is known.
    fn may_be_there(&self, message: &Incoming, id: DeliveryId, recipient: &Recipient) -> bool {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |before: &Vec<DeliveryId>| before.binary_search(&id).is_ok();
        // Folders are not looked through beforehand.
        let is_seen = message.folder.is_none();
        message.look_first && (!is_seen || before.get(&recipient.user).and_then(Option::as_ref).is_none_or(is_there))
    }

    /// A message that its header took for a known one may be another: then those who have that one have not got this.
    async fn tell_apart(&self, batch: &[Incoming]) -> Result<(), RunError> {
        let run = self.run;
        for message in batch {
            let Some(known) = message.adopted.filter(Fingerprint::is_whole) else { continue };
            if known.same_content(&message.fingerprint) {
                continue;
            }
            warn!(
                account = run.job.address(),
                uid = message.name.on_server,
                "a message has the header of a known one and is another; it counts as new"
            );
            let MessageRef { mailbox, key, generation } = message.message;
            run.site.store.mark(run.lease, mailbox, &[(key, generation)], Mark::Another).await?;
            run.forget_deliveries(message.message);
        }
        Ok(())
    }

    /// What earlier attempts mean for this recipient. Who has it, wherever it was delivered, does not get it again; what
    /// was parked for somebody waits for a person.
    fn earlier(&self, known: &[DeliveryRow], recipient: &Recipient) -> Earlier {
        let (mut uncertain, mut is_held, mut is_open) = (0, false, false);
        for row in known.iter().filter(|row| row.recipient.user == recipient.user) {
            let here = row.destination == self.run.job.destination;
            match row.step {
                Step::Delivered if row.destination == QUARANTINE => is_held = true,
                Step::Delivered => return Earlier::Settled,
                Step::Parked if here => return Earlier::Settled,
                _ if here => (uncertain, is_open) = (row.uncertain_attempts, true),
                _ => is_open |= row.destination != QUARANTINE,
            }
        }
        match (is_held, is_open) {
            (true, true) => Earlier::NoticeDue(uncertain),
            (true, false) => Earlier::Settled,
            (false, _) => Earlier::Uncertain(uncertain),
        }
    }

    fn parcel(
        &self,
        message: &Incoming,
        body: &Arc<dyn Body>,
        recipient: &Recipient,
        attempt: u32,
        now: UnixTime,
    ) -> Parcel {
        let notice = match &message.fate {
            Fate::Tell(instead) => Some(instead.notice(self.run, message, recipient, now)),
            _ => None,
        };
        // A notice has an identity of its own: a later release of the original must not be taken for it.
        let whole = if notice.is_some() { fate::notice_id(message.id) } else { message.id };
        let id = whole.for_recipient(&self.run.job.destination, &recipient.user);
        let mut trace = self.trace(whole, attempt, now);
        trace.extend_from_slice(&message.front);
        let reverse_path = if notice.is_some() { None } else { message.reverse_path.clone() };
        Parcel {
            id,
            message: whole,
            recipient: recipient.clone(),
            reverse_path: reverse_path.unwrap_or_default(),
            trace: trace.into(),
            body: notice.unwrap_or_else(|| Arc::clone(body)),
            arrived_at: message.arrived_at,
            folder: message.folder.clone(),
            // A retrieval that was cut short before any delivery leaves no copy anywhere; any other may.
            attempt: attempt.max(message.attempt).max(if self.may_be_there(message, id, recipient) { 2 } else { 1 }),
        }
    }

    /// The fields that we put in front of a message.
    fn trace(&self, id: DeliveryId, attempt: u32, now: UnixTime) -> Vec<u8> {
        let account = &self.run.job.account;
        let trace = Trace {
            account: &account.address,
            server: account.endpoint.host(),
            hostname: &self.run.site.hostname,
            protocol: account.protocol.name(account.security),
            id,
            retrieved_at: now,
            attempt,
        };
        trace.fields()
    }
}

/// What goes into one batch.
struct Batch {
    messages: Vec<Incoming>,
    /// What came behind it and found no room in it.
    left: Option<Item>,
    /// Who wants to know when it is settled.
    flush: Option<oneshot::Sender<()>>,
}

/// A batch after its first step.
struct Underway {
    sending: Vec<Incoming>,
    before: Vec<Vec<DeliveryRow>>,
    owners: Vec<Owner>,
    prepared: Box<dyn Prepared>,
}

/// A batch from its first commit to its second.
type Completing<'a> = Pin<Box<dyn Future<Output = Result<(), RunError>> + Send + 'a>>;

/// The batch before, if it is not settled yet.
struct Before<'a>(Option<Completing<'a>>);

impl Before<'_> {
    /// Waits for `other`, and goes on with the batch meanwhile. When that fails, `other` is dropped.
    async fn beside<T>(&mut self, other: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
        tokio::pin!(other);
        if let Some(completing) = &mut self.0 {
            tokio::select! {
                biased;
                settled = completing => {
                    self.0 = None;
                    settled?;
                }
                done = &mut other => return done,
            }
        }
        other.await
    }

    /// Waits until it is settled.
    async fn end(&mut self) -> Result<(), RunError> {
        match self.0.take() {
            Some(completing) => completing.await,
            None => Ok(()),
        }
    }
}

/// What is known of earlier attempts for one recipient.
enum Earlier {
    /// Delivered, or waiting for a person.
    Settled,
    /// To be tried, after so many attempts that may have arrived.
    Uncertain(u32),
    /// The message is in the quarantine, and a notice in its place is to be tried, after so many such attempts.
    NoticeDue(u32),
}
