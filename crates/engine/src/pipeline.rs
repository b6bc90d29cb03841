//! From a collected body to a settled delivery, a batch at a time: prepare, commit, complete, commit.
//!
//! It runs beside the retrieval, joined to it by a bounded channel. A batch is what came while the last one was on its
//! way; a lone message waits for nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use connectord_account::Key;
use connectord_delivery::{BatchLimits, Failure, FailureKind, Note, Outcome, Parcel, Recipient};
use connectord_mail::{DeliveryId, Envelope, Fingerprint, Head, Identity, Trace, UnixTime, head};
use connectord_store::{Begin, MailboxRow, MessageName, MessageRef, Settle, Settled, Step};
use connectord_wire::Escaped;
use tokio::sync::{mpsc, oneshot};

use crate::log::MessageLine;
use crate::run::Run;
use crate::spool::Collected;
use crate::trouble::{RunError, after_delivery, stops_the_run};
use crate::{Progress, site};

/// Messages that may wait between retrieval and delivery.
pub(crate) const QUEUE: usize = 256;

/// A message that carries this many of our own marks for the same account is in a loop.
const MAX_LOOPS: usize = 3;

pub(crate) enum Item {
    Message(Box<Incoming>),
    /// Answered when everything before it is settled.
    Flush(oneshot::Sender<()>),
}

/// A message that was retrieved whole.
pub(crate) struct Incoming {
    pub(crate) message: MessageRef,
    pub(crate) mailbox: String,
    pub(crate) attempt: u32,
    /// Nothing is known of the mailbox: the state may have been lost, so the destination looks before it writes.
    pub(crate) look_first: bool,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) arrived_at: Option<UnixTime>,
    pub(crate) reverse_path: Option<String>,
    pub(crate) name: MessageName,
    pub(crate) loops: usize,
    pub(crate) id: DeliveryId,
    pub(crate) collected: Collected,
    pub(crate) began: Instant,
}

impl Incoming {
    /// Reads what is needed from the header.
    #[allow(clippy::too_many_arguments, reason = "called by the two protocols only")]
    pub(crate) fn new(
        run: &Run<'_>,
        mailbox: &MailboxRow,
        key: Key,
        generation: u16,
        attempt: u32,
        on_server: String,
        arrived_at: Option<UnixTime>,
        collected: Collected,
    ) -> Self {
        let header = Head::of(&collected.head);
        let envelope = Envelope::recover(header);
        let size_octets = collected.body.size_octets();
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
            look_first: mailbox.first_listed.is_none(),
            fingerprint: Fingerprint::new(header, size_octets),
            arrived_at: arrived_at.or(envelope.received_at),
            reverse_path: envelope.reverse_path,
            name: name_of(header, on_server),
            loops: connectord_mail::loops(header, run.job.address()),
            id: DeliveryId::new(identity),
            collected,
            began: Instant::now(),
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
    /// Messages that all their recipients have now.
    done: Mutex<Vec<MessageRef>>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(run: &'a Run<'a>) -> Self {
        Self { run, limits: run.job.delivery.limits(), done: Mutex::new(Vec::new()) }
    }

    /// Takes the messages that have been delivered to everybody since the last call.
    pub(crate) fn take_done(&self) -> Vec<MessageRef> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Delivers batch after batch.
    pub(crate) async fn deliver(&self, mut queue: mpsc::Receiver<Item>) -> Result<(), RunError> {
        let mut next = queue.recv().await;
        while let Some(item) = next {
            let mut batch = Vec::new();
            let mut octets = 0;
            let mut item = Some(item);
            let mut flush = None;
            loop {
                match item {
                    Some(Item::Flush(answer)) => {
                        flush = Some(answer);
                        next = None;
                        break;
                    }
                    Some(Item::Message(message)) => {
                        let size = message.collected.body.size_octets();
                        let parcels = (batch.len() + 1) * self.run.job.recipients.len();
                        let full = parcels > self.limits.parcels || octets + size > self.limits.octets;
                        if full && !batch.is_empty() {
                            next = Some(Item::Message(message));
                            break;
                        }
                        octets += size;
                        batch.push(*message);
                    }
                    None => {
                        next = None;
                        break;
                    }
                }
                item = queue.try_recv().ok();
            }
            if !batch.is_empty() {
                self.batch(batch).await?;
            }
            if let Some(answer) = flush {
                // Whoever asked may have been stopped meanwhile.
                let _ = answer.send(());
            }
            if next.is_none() {
                next = queue.recv().await;
            }
        }
        Ok(())
    }

    async fn batch(&self, batch: Vec<Incoming>) -> Result<(), RunError> {
        let run = self.run;
        let now = run.site.clock.now();
        let mut looping = Vec::new();
        let mut sending = Vec::with_capacity(batch.len());
        for message in batch {
            if message.loops >= MAX_LOOPS { looping.push(message) } else { sending.push(message) }
        }
        for message in looping {
            let size = message.collected.body.size_octets();
            let reason = format!("mail loop: this account has delivered it {} times", message.loops);
            run.site.store.park(run.lease, message.message, &message.name, size, &reason, now).await?;
            run.tally.parked(run, &reason);
        }
        if sending.is_empty() {
            return Ok(());
        }

        let mut parcels = Vec::new();
        let mut owners = Vec::new();
        for (index, message) in sending.iter().enumerate() {
            for recipient in &run.job.recipients {
                let known = run.known_delivery(message.message, recipient);
                if known.is_some_and(|row| row.step == Step::Delivered) {
                    continue;
                }
                let uncertain = known.map_or(0, |row| row.uncertain_attempts);
                parcels.push(self.parcel(message, recipient, uncertain + 1, now));
                owners.push((index, recipient.clone(), uncertain + 1));
            }
        }
        let prepared = run.job.delivery.prepare(parcels).await;
        let notes: Vec<Result<Option<Note>, Failure>> = prepared.notes().to_vec();
        let begins = begins(&sending, &owners, &notes, run);
        run.site.store.begin(run.lease, &begins, now).await?;
        let outcomes = prepared.complete().await;
        let settled = self.settle(&sending, &owners, outcomes).await;
        if !matches!(settled, Err(RunError::Store(_))) {
            let notes: Vec<Note> = notes.into_iter().filter_map(|note| note.ok().flatten()).collect();
            run.job.delivery.settled(&notes).await;
        }
        settled
    }

    fn parcel(&self, message: &Incoming, recipient: &Recipient, attempt: u32, now: UnixTime) -> Parcel {
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
            body: Arc::clone(&message.collected.body),
            arrived_at: message.arrived_at,
            folder: None,
            // A retrieval that was cut short before any delivery leaves no copy anywhere; any other may.
            attempt: attempt.max(message.attempt).max(if message.look_first { 2 } else { 1 }),
        }
    }

    async fn settle(
        &self,
        sending: &[Incoming],
        owners: &[(usize, Recipient, u32)],
        outcomes: Vec<Outcome>,
    ) -> Result<(), RunError> {
        let run = self.run;
        let now = run.site.clock.now();
        let mut settled = Vec::with_capacity(owners.len());
        let mut open: HashMap<usize, bool> = HashMap::new();
        let mut stop = None;
        for ((index, recipient, _), outcome) in owners.iter().zip(&outcomes) {
            let message = &sending[*index];
            let result = match outcome {
                Outcome::Delivered { .. } => Settled::Delivered,
                Outcome::Failed(failure) => {
                    if stops_the_run(failure) {
                        stop.get_or_insert_with(|| failure.clone());
                    }
                    after_delivery(failure, message.attempt, now, site::random())
                }
                Outcome::Unknown(failure) => Settled::Uncertain { retry_at: now, reason: failure.text.clone() },
                _ => Settled::Uncertain { retry_at: now, reason: "the destination's answer is not understood".into() },
            };
            if result != Settled::Delivered {
                open.insert(*index, true);
            }
            settled.push(Settle {
                message: message.message,
                destination: run.job.destination.clone(),
                user: recipient.user.clone(),
                settled: result,
            });
        }
        run.site.store.settle(run.lease, &settled, now).await?;
        for (((index, recipient, _), outcome), settle) in owners.iter().zip(&outcomes).zip(&settled) {
            self.report(&sending[*index], recipient, outcome, &settle.settled);
        }
        let finished = sending.iter().enumerate().filter(|(index, _)| !open.contains_key(index));
        let finished = finished.map(|(_, message)| message.message);
        self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(finished);
        match stop {
            Some(failure) => Err(RunError::Destination { destination: run.job.delivery.describe(), failure }),
            None => Ok(()),
        }
    }

    fn report(&self, message: &Incoming, recipient: &Recipient, outcome: &Outcome, settled: &Settled) {
        let run = self.run;
        let (status, detail, dsn) = match (outcome, settled) {
            (Outcome::Delivered { detail }, _) => {
                run.tally.delivered(run);
                ("delivered", detail.as_str(), "2.0.0".to_owned())
            }
            (Outcome::Failed(failure) | Outcome::Unknown(failure), Settled::Parked { reason }) => {
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
            size: message.collected.body.size_octets(),
            from: message.reverse_path.as_deref().unwrap_or_default(),
            to: recipient,
            relay: &run.job.delivery.describe(),
            id: message.id.to_string(),
            dsn,
            status,
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

/// What is committed between the two steps: every recipient of every message, and how far each has come.
fn begins(
    sending: &[Incoming],
    owners: &[(usize, Recipient, u32)],
    notes: &[Result<Option<Note>, Failure>],
    run: &Run<'_>,
) -> Vec<Begin> {
    let mut begins: Vec<Begin> = sending
        .iter()
        .map(|message| Begin {
            message: message.message,
            fingerprint: message.fingerprint,
            arrived_at: message.arrived_at.unwrap_or_default(),
            name: message.name.clone(),
            deliveries: Vec::new(),
        })
        .collect();
    for ((index, recipient, attempt), note) in owners.iter().zip(notes) {
        let step = match note {
            Ok(Some(note)) => Step::Staged(note.clone()),
            Ok(None) => Step::Delivering { attempt: *attempt },
            Err(_) => Step::Waiting,
        };
        begins[*index].deliveries.push((run.job.destination.clone(), recipient.clone(), step));
    }
    for (index, message) in sending.iter().enumerate() {
        for recipient in &run.job.recipients {
            let delivered = run.known_delivery(message.message, recipient).filter(|row| row.step == Step::Delivered);
            if delivered.is_some() {
                begins[index].deliveries.push((run.job.destination.clone(), recipient.clone(), Step::Delivered));
            }
        }
    }
    begins
}
