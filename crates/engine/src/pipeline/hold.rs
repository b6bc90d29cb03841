//! What is done with messages that are not delivered as they came: kept back, discarded, put off, parked.

use connectord_account::backoff;
use connectord_delivery::Recipient;
use connectord_filter::{Held, HeldFor, Quarantine, QuarantineError};
use connectord_mail::UnixTime;

use connectord_store::{DeliveryRow, PutOff, PutOffBy, Settle, Settled, Step, What};

use super::fate::{DISCARD, Fate, QUARANTINE};
use super::incoming::Incoming;
use super::outcome::Owner;
use super::{Earlier, Pipeline};
use crate::site;
use crate::trouble::{RunError, after_quarantine};

impl Pipeline<'_> {
    /// Carries out what was decided about messages; those that are left are to be delivered, notices among them.
    pub(super) async fn carry_out(&self, batch: Vec<Incoming>) -> Result<Vec<Incoming>, RunError> {
        let mut sending = Vec::with_capacity(batch.len());
        let (mut held, mut discarded, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for message in batch {
            match message.fate {
                Fate::Deliver | Fate::Tell(_) => sending.push(message),
                Fate::Quarantine(_) => held.push(message),
                Fate::Discard => discarded.push(message),
                Fate::Later { .. } => later.push(message),
                Fate::Park => self.park(&message, &message.verdict).await?,
            }
        }
        self.put_off(&later).await?;
        self.discard(&discarded).await?;
        sending.extend(self.hold_back(held).await?);
        Ok(sending)
    }

    /// It waits for a person.
    pub(super) async fn park(&self, message: &Incoming, reason: &str) -> Result<(), RunError> {
        let run = self.run;
        let (print, size, now) = (Some(message.fingerprint), message.size_octets, run.site.clock.now());
        run.site.store.park(run.lease, message.message, &message.name, print, size, reason, now).await?;
        run.tally.parked(run, reason);
        run.take_down(message.message, &[(What::Parked, "", reason)]);
        Ok(())
    }

    /// They stay on the server, and it is counted how often.
    async fn put_off(&self, later: &[Incoming]) -> Result<(), RunError> {
        if later.is_empty() {
            return Ok(());
        }
        let run = self.run;
        let now = run.site.clock.now();
        let put_off = |message: &Incoming| {
            let (wait, postponed) = match message.fate {
                Fate::Later { wait, postponed } => (wait, postponed),
                _ => (None, false),
            };
            let failed = run.history(message.message).failed.saturating_add(1);
            PutOff {
                message: message.message,
                fingerprint: message.fingerprint,
                arrived_at: message.arrived_at.unwrap_or_default(),
                name: message.name.clone(),
                by: if postponed { PutOffBy::Postponement } else { PutOffBy::Failure },
                retry_at: now.plus(wait.unwrap_or_else(|| backoff(failed, site::random()))),
                reason: message.verdict.clone(),
            }
        };
        let rows: Vec<PutOff> = later.iter().map(put_off).collect();
        run.site.store.put_off(run.lease, &rows, now).await?;
        for message in later {
            run.tally.deferred(run);
            let to = self.open(&run.known_deliveries(message.message));
            self.say(message, &to, ("deferred", "4.7.1"), "filters");
            run.take_down(message.message, &[(What::Deferred, "", &message.verdict)]);
        }
        Ok(())
    }

    /// They count as delivered to whoever had not got them, in one commit.
    async fn discard(&self, discarded: &[Incoming]) -> Result<(), RunError> {
        if discarded.is_empty() {
            return Ok(());
        }
        let run = self.run;
        let known: Vec<_> = discarded.iter().map(|message| run.known_deliveries(message.message)).collect();
        let mut begins = self.begins(discarded, &known, &[], &[]);
        let mut told = Vec::with_capacity(discarded.len());
        for (begin, known) in begins.iter_mut().zip(&known) {
            let open = self.open(known);
            begin.deliveries.extend(open.iter().map(|to| (DISCARD.to_owned(), to.clone(), Step::Delivered)));
            told.push(open);
        }
        run.site.store.begin(run.lease, &begins, run.site.clock.now()).await?;
        for (message, told) in discarded.iter().zip(&told) {
            run.tally.discarded(run);
            self.say(message, told, ("discarded", "2.0.0"), "discard");
            run.take_down(message.message, &[(What::Discarded, "", &message.verdict)]);
        }
        self.finished(discarded, &known, &[], &[]);
        Ok(())
    }

    /// Who has not got a message, and waits for no person.
    fn open(&self, known: &[DeliveryRow]) -> Vec<Recipient> {
        let open = |to: &&Recipient| !matches!(self.earlier(known, to), Earlier::Settled);
        self.run.job.recipients.iter().filter(open).cloned().collect()
    }

    /// They are kept back; what is left are the notices in their place.
    ///
    /// As with a destination that can be asked: what begins is committed, then the quarantine keeps the message, then that is
    /// committed. A notice has its rows from the first commit on, so that the message is not finished before it.
    async fn hold_back(&self, mut held: Vec<Incoming>) -> Result<Vec<Incoming>, RunError> {
        let run = self.run;
        if held.is_empty() {
            return Ok(held);
        }
        let Some(quarantine) = run.site.filters.quarantine() else {
            for message in held {
                self.park(&message, &format!("{} (there is no quarantine to keep it back in)", message.verdict))
                    .await?;
            }
            return Ok(Vec::new());
        };
        let now = run.site.clock.now();
        let known: Vec<_> = held.iter().map(|message| run.known_deliveries(message.message)).collect();
        let mut begins = self.begins(&held, &known, &[], &[]);
        let mut owners = Vec::new();
        for (index, message) in held.iter().enumerate() {
            for recipient in &run.job.recipients {
                let earlier = self.earlier(&known[index], recipient);
                let deliveries = &mut begins[index].deliveries;
                if let Earlier::Uncertain(_) = earlier {
                    deliveries.push((QUARANTINE.to_owned(), recipient.clone(), Step::Delivering { attempt: 1 }));
                    owners.push(Owner { index, recipient: recipient.clone(), attempt: 1 });
                }
                if message.fate.is_followed_by_a_notice() && !matches!(earlier, Earlier::Settled) {
                    deliveries.push((run.job.destination.clone(), recipient.clone(), Step::Waiting));
                }
            }
        }
        run.site.store.begin(run.lease, &begins, now).await?;
        let mut settled = Vec::with_capacity(owners.len());
        let mut failed = vec![false; held.len()];
        // A disk that does not do its work is not waited for again with each message, while others wait behind them.
        let mut broken: Option<QuarantineError> = None;
        for (index, message) in held.iter().enumerate() {
            let for_whom: Vec<&Owner> = owners.iter().filter(|owner| owner.index == index).collect();
            if for_whom.is_empty() {
                continue;
            }
            let kept = match &broken {
                Some(error) => Err(error.clone()),
                None => {
                    run.delivering(self.keep(&*quarantine, message, &self.held_for(&known[index], &for_whom), now))
                        .await
                }
            };
            failed[index] = kept.is_err();
            broken = broken.or_else(|| kept.clone().err().filter(|error| !matches!(error, QuarantineError::Full(_))));
            for owner in for_whom {
                settled.push(Settle {
                    message: message.message,
                    destination: QUARANTINE.to_owned(),
                    user: owner.recipient.user.clone(),
                    settled: match &kept {
                        Ok(()) => Settled::Delivered,
                        Err(error) => after_quarantine(error, run.site.clock.now()),
                    },
                });
            }
        }
        run.site.store.settle(run.lease, &settled, run.site.clock.now()).await?;
        self.report_held(&held, &owners, &settled, &failed);
        self.finished(&held, &known, &owners, &settled);
        let mut at = 0;
        held.retain(|message| {
            at += 1;
            !failed[at - 1] && message.fate.is_followed_by_a_notice()
        });
        for message in &mut held {
            if let Fate::Quarantine(findings) = std::mem::replace(&mut message.fate, Fate::Deliver)
                && let Some(instead) = findings.instead
            {
                message.fate = Fate::Tell(instead);
            }
        }
        Ok(held)
    }

    async fn keep(
        &self,
        quarantine: &dyn Quarantine,
        message: &Incoming,
        recipients: &[HeldFor],
        now: UnixTime,
    ) -> Result<(), QuarantineError> {
        let (Fate::Quarantine(findings), Some(body)) = (&message.fate, &message.body) else { return Ok(()) };
        let decision = &findings.decision;
        let held = Held {
            id: message.id,
            account: self.run.job.address().to_owned(),
            mailbox: message.mailbox.clone(),
            destination: self.run.job.destination.clone(),
            recipients: recipients.to_vec(),
            reverse_path: message.reverse_path.clone(),
            arrived_at: message.arrived_at,
            held_at: now,
            reason: decision.reason.clone(),
            spam: decision.spam,
            viruses: decision.viruses.clone(),
            answers: findings.answers.clone(),
            edits: decision.edits.clone(),
            trace: self.trace(message.id, 1, now).into(),
            body: body.clone(),
        };
        quarantine.keep(held).await
    }

    /// Whom a message is held for: those for whom it is now, and those of today's recipients for whom it was before, as what
    /// is kept again replaces what was kept.
    fn held_for(&self, known: &[DeliveryRow], for_whom: &[&Owner]) -> Vec<HeldFor> {
        let before = |to: &Recipient| {
            known.iter().any(|row| {
                row.recipient.user == to.user && row.destination == QUARANTINE && row.step == Step::Delivered
            })
        };
        let wanted = |to: &&Recipient| before(to) || for_whom.iter().any(|owner| owner.recipient.user == to.user);
        let held_for = |to: &Recipient| HeldFor { user: to.user.clone(), address: to.address.clone() };
        self.run.job.recipients.iter().filter(wanted).map(held_for).collect()
    }

    fn report_held(&self, held: &[Incoming], owners: &[Owner], settled: &[Settle], failed: &[bool]) {
        let run = self.run;
        for (index, message) in held.iter().enumerate() {
            let mut told = false;
            let mut steps = Vec::new();
            for (owner, settle) in owners.iter().zip(settled).filter(|(owner, _)| owner.index == index) {
                told = true;
                let (outcome, detail, what) = match &settle.settled {
                    Settled::Deferred { reason, .. } => (("deferred", "4.3.0"), reason.as_str(), What::Deferred),
                    _ => (("quarantined", "2.0.0"), message.verdict.as_str(), What::Quarantined),
                };
                steps.push((what, owner.recipient.user.as_str(), detail));
                let outcome = (outcome.0, outcome.1.to_owned());
                self.write_line(message, &owner.recipient, "quarantine", outcome, 1, detail);
            }
            if told {
                run.take_down(message.message, &steps);
            }
            match (told, failed[index]) {
                (true, false) => run.tally.quarantined(run),
                (true, true) => run.tally.deferred(run),
                (false, _) => {}
            }
        }
    }

    fn say(&self, message: &Incoming, to: &[Recipient], outcome: (&'static str, &str), relay: &str) {
        for to in to {
            let outcome = (outcome.0, outcome.1.to_owned());
            self.write_line(message, to, relay, outcome, message.attempt, &message.verdict);
        }
    }
}
