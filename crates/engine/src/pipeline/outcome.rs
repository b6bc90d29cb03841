//! What is committed of a batch, what its outcomes mean, and what is said of them.

use std::collections::HashSet;
use std::sync::PoisonError;

use connectord_delivery::{Failure, FailureKind, Note, Outcome, Recipient};
use connectord_store::{Begin, DeliveryRow, Settle, Settled, Step, What};

use super::Pipeline;
use super::fate::Fate;
use super::incoming::Incoming;
use crate::log::MessageLine;
use crate::trouble::{MAX_ATTEMPTS, after_delivery, after_doubt, stops_the_run};
use crate::{Progress, site};

/// Whose parcel it is.
pub(super) struct Owner {
    /// Of the message in its batch.
    pub(super) index: usize,
    pub(super) recipient: Recipient,
    /// 1 for the first that may have arrived.
    pub(super) attempt: u32,
}

impl Pipeline<'_> {
    /// What each outcome means, and the failure that ends the run, if one does.
    pub(super) fn judge(
        &self,
        sending: &[Incoming],
        owners: &[Owner],
        outcomes: &[Outcome],
    ) -> (Vec<Settle>, Option<Failure>) {
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
    pub(super) fn finished(
        &self,
        sending: &[Incoming],
        before: &[Vec<DeliveryRow>],
        owners: &[Owner],
        settled: &[Settle],
    ) {
        let destination = &self.run.job.destination;
        let mut open: HashSet<usize> = HashSet::new();
        for (index, known) in before.iter().enumerate() {
            let is_parked = |row: &DeliveryRow| row.step == Step::Parked && row.destination == *destination;
            let parked = known.iter().any(|row| is_parked(row) && self.is_recipient(&row.recipient));
            if parked || sending[index].fate.is_followed_by_a_notice() {
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
    pub(super) fn begins(
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

    pub(super) fn report(&self, message: &Incoming, owner: &Owner, outcome: &Outcome, settled: &Settled) {
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
        self.write_line(message, recipient, &run.job.delivery.describe(), (status, dsn), *attempt, detail);
        if status == "delivered" {
            run.tell(Progress::Delivered);
        }
    }

    /// What became of each message for all its recipients.
    pub(super) fn take_down(&self, sending: &[Incoming], owners: &[Owner], outcomes: &[Outcome], settled: &[Settle]) {
        let run = self.run;
        for (index, message) in sending.iter().enumerate() {
            let mut steps = Vec::with_capacity(run.job.recipients.len());
            let told = owners.iter().zip(outcomes).zip(settled).filter(|((owner, _), _)| owner.index == index);
            for ((owner, outcome), settle) in told {
                let user = owner.recipient.user.as_str();
                if owner.attempt > 1 && !matches!(outcome, Outcome::Failed(_)) {
                    steps.push((What::Repeated, user, ""));
                }
                let is_notice = matches!(message.fate, Fate::Tell(_));
                steps.push(match (outcome, &settle.settled) {
                    (Outcome::Delivered { detail }, _) if is_notice => (What::Notice, user, detail.as_str()),
                    (Outcome::Delivered { detail }, _) => (What::Delivered, user, detail.as_str()),
                    (_, Settled::Parked { reason } | Settled::Doubtful { reason }) => (What::Parked, user, reason),
                    (Outcome::Failed(failure) | Outcome::Unknown(failure), _) => (What::Deferred, user, &failure.text),
                    _ => (What::Deferred, user, ""),
                });
            }
            if !steps.is_empty() {
                run.take_down(message.message, &steps);
            }
        }
    }

    /// The log line about a message and a recipient; `outcome` is the status and its code.
    pub(super) fn write_line(
        &self,
        message: &Incoming,
        to: &Recipient,
        relay: &str,
        outcome: (&'static str, String),
        attempt: u32,
        detail: &str,
    ) {
        let run = self.run;
        let (status, dsn) = outcome;
        MessageLine {
            account: run.job.address(),
            server: &run.server,
            mailbox: &message.mailbox,
            on_server: &message.name.on_server,
            message_id: &message.name.message_id,
            size: message.size_octets,
            from: message.reverse_path.as_deref().unwrap_or_default(),
            to,
            relay,
            id: message.id.to_string(),
            dsn,
            status,
            attempt,
            delay_ms: u64::try_from(message.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            detail,
            verdict: &message.verdict,
        }
        .write();
    }
}

fn dsn(failure: &Failure, otherwise: &str) -> String {
    failure.status.map_or_else(
        || if failure.kind == FailureKind::Permanent { "5.0.0".to_owned() } else { otherwise.to_owned() },
        |status| status.to_string(),
    )
}
