//! From a collected body to a settled delivery, a batch at a time: prepare, commit, complete, commit.
//!
//! It runs beside the retrieval, joined to it by a bounded channel. A batch is what came while the last one was on its
//! way, and where more is on the line, what comes in the next moment; the last message, and a lone one, wait for nobody.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectord_account::Key;
use connectord_delivery::{BatchLimits, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Recipient};
use connectord_mail::{Body, DeliveryId, Envelope, Fingerprint, Head, Identity, Trace, UnixTime, head};
use connectord_store::{Begin, DeliveryRow, MailboxRow, Mark, MessageName, MessageRef, Settle, Settled, Step};
use connectord_wire::Escaped;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::warn;

use crate::log::MessageLine;
use crate::mailbox::Wanted;
use crate::run::{Run, stopped};
use crate::spool::Collected;
use crate::trouble::{MAX_ATTEMPTS, RunError, after_delivery, after_doubt, stops_the_run};
use crate::{Progress, site};

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

/// A message that was retrieved whole.
pub(crate) struct Incoming {
    pub(crate) message: MessageRef,
    pub(crate) mailbox: String,
    pub(crate) attempt: u32,
    /// A person wants it delivered whatever speaks against it.
    pub(crate) anyway: bool,
    /// What is known of the message that its header says it is, since the server gave it another name.
    pub(crate) adopted: Option<Fingerprint>,
    /// Nothing is known of the mailbox: the state may have been lost, so the destination looks before it writes.
    pub(crate) look_first: bool,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) arrived_at: Option<UnixTime>,
    pub(crate) reverse_path: Option<String>,
    pub(crate) name: MessageName,
    pub(crate) loops: usize,
    pub(crate) id: DeliveryId,
    /// Until the parcels have it.
    body: Option<Arc<dyn Body>>,
    pub(crate) size_octets: u64,
    pub(crate) began: Instant,
    /// Another one was asked for on the same connection.
    pub(crate) more: bool,
    room: Option<OwnedSemaphorePermit>,
}

impl Incoming {
    /// Reads what is needed from the header.
    #[allow(clippy::too_many_arguments, reason = "called by the two protocols only")]
    pub(crate) fn new(
        run: &Run<'_>,
        mailbox: &MailboxRow,
        key: Key,
        wanted: Wanted,
        on_server: String,
        arrived_at: Option<UnixTime>,
        collected: Collected,
    ) -> Self {
        let header = Head::of(&collected.head);
        let envelope = Envelope::recover(header);
        let Wanted { generation, attempt, anyway, adopted, .. } = wanted;
        let identity = Identity {
            account: run.job.address(),
            mailbox: &mailbox.name,
            uid_validity: mailbox.uid_validity,
            key: &key.octets(),
            generation,
        };
        Self {
            message: MessageRef { mailbox: mailbox.id, key, generation },
            mailbox: mailbox.name.clone(),
            attempt,
            anyway,
            adopted,
            look_first: mailbox.first_listed.is_none(),
            fingerprint: collected.seen.fingerprint,
            arrived_at: arrived_at.or(envelope.received_at),
            reverse_path: envelope.reverse_path,
            name: name_of(header, on_server),
            loops: connectord_mail::loops(header, run.job.address()),
            id: DeliveryId::new(identity),
            size_octets: collected.size_octets,
            body: Some(collected.body),
            began: Instant::now(),
            more: false,
            room: None,
        }
    }
}

/// What people recognise a message by.
pub(crate) fn name_of(header: Head<'_>, on_server: String) -> MessageName {
    let shown = |field: &str| {
        let field = header.fields().find(|f: &head::Field<'_>| f.is(field));
        let value = field.map(|field| field.unfolded()).unwrap_or_default();
        Escaped(&value[..value.len().min(200)]).to_string()
    };
    MessageName { on_server, message_id: shown("Message-ID"), from: shown("From"), subject: shown("Subject") }
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
                delivered = self.deliver(queue) => delivered,
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
            let Batch { messages, left, flush } = gathered;
            next = left;
            if *self.run.stop.borrow() && stopping.get_or_insert_with(Instant::now).elapsed() > LAST_BATCH {
                return Err(RunError::Stopped);
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
        self.tell_apart(&batch).await?;
        if batch.iter().any(|message| message.look_first) {
            self.look().await;
        }
        let mut looping = Vec::new();
        let mut sending = Vec::with_capacity(batch.len());
        for message in batch {
            if message.loops >= MAX_LOOPS && !message.anyway { looping.push(message) } else { sending.push(message) }
        }
        for message in looping {
            let reason = format!("mail loop: this account has delivered it {} times", message.loops);
            let (print, size) = (Some(message.fingerprint), message.size_octets);
            run.site.store.park(run.lease, message.message, &message.name, print, size, &reason, now).await?;
            run.tally.parked(run, &reason);
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
                let attempt = match self.earlier(&known, recipient) {
                    Earlier::Settled => continue,
                    Earlier::Uncertain(attempts) => attempts + 1,
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
        message.look_first && before.get(&recipient.user).and_then(Option::as_ref).is_none_or(is_there)
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
        let mut uncertain = 0;
        for row in known.iter().filter(|row| row.recipient.user == recipient.user) {
            let here = row.destination == self.run.job.destination;
            match row.step {
                Step::Delivered => return Earlier::Settled,
                Step::Parked if here => return Earlier::Settled,
                _ if here => uncertain = row.uncertain_attempts,
                _ => {}
            }
        }
        Earlier::Uncertain(uncertain)
    }

    fn parcel(
        &self,
        message: &Incoming,
        body: &Arc<dyn Body>,
        recipient: &Recipient,
        attempt: u32,
        now: UnixTime,
    ) -> Parcel {
        let run = self.run;
        let id = message.id.for_recipient(&run.job.destination, &recipient.user);
        let account = &run.job.account;
        let trace = Trace {
            account: &account.address,
            server: account.endpoint.host(),
            hostname: &run.site.hostname,
            protocol: account.protocol.name(account.security),
            id: message.id,
            retrieved_at: now,
            attempt,
        };
        Parcel {
            id,
            message: message.id,
            recipient: recipient.clone(),
            reverse_path: message.reverse_path.clone().unwrap_or_default(),
            trace: Bytes::from(trace.fields()),
            body: Arc::clone(body),
            arrived_at: message.arrived_at,
            folder: None,
            // A retrieval that was cut short before any delivery leaves no copy anywhere; any other may.
            attempt: attempt.max(message.attempt).max(if self.may_be_there(message, id, recipient) { 2 } else { 1 }),
        }
    }

    /// What each outcome means, and the failure that ends the run, if one does.
    fn judge(&self, sending: &[Incoming], owners: &[Owner], outcomes: &[Outcome]) -> (Vec<Settle>, Option<Failure>) {
        let (now, ambiguous) = (self.run.site.clock.now(), self.run.job.ambiguous);
        // Where one message arrives, the destination is well and another's failure is its own.
        let works = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Delivered { .. }));
        let mut stop = None;
        let mut settled = Vec::with_capacity(owners.len());
        for (at, owner) in owners.iter().enumerate() {
            let message = &sending[owner.index];
            // A person's word: it is never too often.
            let attempt = if message.anyway { message.attempt.min(MAX_ATTEMPTS - 1) } else { message.attempt };
            let result = match outcomes.get(at) {
                Some(Outcome::Delivered { .. }) => Settled::Delivered,
                Some(Outcome::Failed(failure)) => {
                    if stops_the_run(failure, works) {
                        stop.get_or_insert_with(|| failure.clone());
                    }
                    after_delivery(failure, attempt, works, now, site::random())
                }
                Some(Outcome::Unknown(failure)) => {
                    if stops_the_run(failure, works) {
                        stop.get_or_insert_with(|| failure.clone());
                    }
                    after_doubt(ambiguous, &failure.text, message.attempt, now, site::random())
                }
                _ => {
                    let reason = "the destination did not say what became of it";
                    after_doubt(ambiguous, reason, message.attempt, now, site::random())
                }
            };
            settled.push(Settle {
                message: message.message,
                destination: self.run.job.destination.clone(),
                user: owner.recipient.user.clone(),
                settled: result,
            });
        }
        (settled, stop)
    }

    /// Notes which messages all their recipients have.
    fn finished(&self, sending: &[Incoming], before: &[Vec<DeliveryRow>], owners: &[Owner], settled: &[Settle]) {
        let destination = &self.run.job.destination;
        let mut open: HashSet<usize> = HashSet::new();
        for (index, known) in before.iter().enumerate() {
            let is_parked = |row: &DeliveryRow| row.step == Step::Parked && row.destination == *destination;
            if known.iter().any(|row| is_parked(row) && self.is_recipient(&row.recipient)) {
                open.insert(index);
            }
        }
        for (owner, settle) in owners.iter().zip(settled) {
            if settle.settled != Settled::Delivered {
                open.insert(owner.index);
            }
        }
        let finished = sending.iter().enumerate().filter(|(index, _)| !open.contains(index));
        let finished = finished.map(|(_, message)| message.message);
        self.done.lock().unwrap_or_else(PoisonError::into_inner).extend(finished);
    }

    fn is_recipient(&self, recipient: &Recipient) -> bool {
        self.run.job.recipients.iter().any(|known| known.user == recipient.user)
    }

    /// What is committed between the two steps: every recipient of every message, and how far each has come.
    fn begins(
        &self,
        sending: &[Incoming],
        before: &[Vec<DeliveryRow>],
        owners: &[Owner],
        notes: &[Result<Option<Note>, Failure>],
    ) -> Vec<Begin> {
        let destination = &self.run.job.destination;
        let mut begins: Vec<Begin> = sending
            .iter()
            .zip(before)
            .map(|(message, known)| Begin {
                message: message.message,
                fingerprint: message.fingerprint,
                arrived_at: message.arrived_at.unwrap_or_default(),
                name: message.name.clone(),
                // Who is not named is forgotten: those that were parked here stay.
                deliveries: known
                    .iter()
                    .filter(|row| self.is_recipient(&row.recipient))
                    .filter(|row| {
                        row.step == Step::Delivered || row.step == Step::Parked && row.destination == *destination
                    })
                    .map(|row| (row.destination.clone(), row.recipient.clone(), row.step.clone()))
                    .collect(),
            })
            .collect();
        for (owner, note) in owners.iter().zip(notes) {
            let step = match note {
                Ok(Some(note)) => Step::Staged(note.clone()),
                Ok(None) => Step::Delivering { attempt: owner.attempt },
                Err(_) => Step::Waiting,
            };
            begins[owner.index].deliveries.push((destination.clone(), owner.recipient.clone(), step));
        }
        begins
    }

    fn report(&self, message: &Incoming, owner: &Owner, outcome: &Outcome, settled: &Settled) {
        let run = self.run;
        let Owner { recipient, attempt, .. } = owner;
        if *attempt > 1 && !matches!(outcome, Outcome::Failed(_)) {
            run.tally.repeated();
        }
        let (status, detail, dsn) = match (outcome, settled) {
            (Outcome::Delivered { detail }, _) => {
                run.tally.delivered(run);
                ("delivered", detail.as_str(), "2.0.0".to_owned())
            }
            (
                Outcome::Failed(failure) | Outcome::Unknown(failure),
                Settled::Parked { reason } | Settled::Doubtful { reason },
            ) => {
                run.tally.parked(run, reason);
                ("failed", reason.as_str(), dsn(failure, "5.0.0"))
            }
            (Outcome::Failed(failure) | Outcome::Unknown(failure), _) => {
                run.tally.deferred(run);
                ("deferred", failure.text.as_str(), dsn(failure, "4.0.0"))
            }
            _ => {
                run.tally.deferred(run);
                ("deferred", "", "4.0.0".to_owned())
            }
        };
        MessageLine {
            account: run.job.address(),
            server: &run.server,
            mailbox: &message.mailbox,
            on_server: &message.name.on_server,
            message_id: &message.name.message_id,
            size: message.size_octets,
            from: message.reverse_path.as_deref().unwrap_or_default(),
            to: recipient,
            relay: &run.job.delivery.describe(),
            id: message.id.to_string(),
            dsn,
            status,
            attempt: *attempt,
            delay_ms: u64::try_from(message.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            detail,
        }
        .write();
        if status == "delivered" {
            run.site.observer.progress(run.job.address(), Progress::Delivered);
        }
    }
}

fn dsn(failure: &Failure, otherwise: &str) -> String {
    failure.status.map_or_else(
        || if failure.kind == FailureKind::Permanent { "5.0.0".to_owned() } else { otherwise.to_owned() },
        |status| status.to_string(),
    )
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

/// Whose parcel it is.
struct Owner {
    /// Of the message in its batch.
    index: usize,
    recipient: Recipient,
    /// 1 for the first that may have arrived.
    attempt: u32,
}

/// What is known of earlier attempts for one recipient.
enum Earlier {
    /// Delivered, or waiting for a person.
    Settled,
    /// To be tried, after so many attempts that may have arrived.
    Uncertain(u32),
}
