//! Before any connection: what became of deliveries that a crash cut short between their two commits.

use std::collections::HashMap;

use connectord_delivery::{RecallRow, Recalled};
use connectord_mail::{DeliveryId, Identity};
use connectord_store::{DeliveryRow, MessageRef, Settle, Settled, Step, StoreError, What};
use tracing::warn;

use crate::pipeline::fate::QUARANTINE;
use crate::run::Run;
use crate::trouble::{MAX_ATTEMPTS, RunError, after_doubt};
use crate::{Ambiguous, Job, Site, site};

/// Settles every delivery that was staged or begun and not settled.
///
/// Only what today's configuration would deliver there too is asked for: recalling may complete a delivery, and nobody
/// gets mail who is no recipient any more. The rest is made anew, as its copy may or may not have arrived.
///
/// # Errors
/// [`RunError::Destination`] when the destination cannot be asked now: nothing is concluded, the account waits.
pub(crate) async fn recover(run: &Run<'_>, rows: &[DeliveryRow]) -> Result<(), RunError> {
    let open = rows.iter().filter(|row| matches!(row.step, Step::Staged(_) | Step::Delivering { .. }));
    let (held, open): (Vec<_>, Vec<_>) = open.partition(|row| row.destination == QUARANTINE);
    let (ours, others): (Vec<_>, Vec<_>) = open.into_iter().partition(|row| is_ours(run, row));
    let of_others = |row: &&DeliveryRow| if is_recipient(run, row) { run.job.ambiguous } else { Ambiguous::Redeliver };
    let mut settled: Vec<Settle> = others.into_iter().map(|row| uncertain(run, row, of_others(&row))).collect();
    let mut notes = Vec::new();
    let mut wait = None;
    let unasked = kept_back(run, &held, &mut settled).await?;
    if !ours.is_empty() {
        let asked = ours.iter().map(|row| recall_row(row)).collect();
        let recalled = run.job.delivery.recall(asked).await;
        for (at, row) in ours.into_iter().enumerate() {
            if let (Step::Staged(note), false) = (&row.step, matches!(recalled.get(at), Some(Recalled::Wait(_)))) {
                notes.push(note.clone());
            }
            match recalled.get(at) {
                Some(Recalled::Delivered { .. }) => settled.push(settle(row, Settled::Delivered)),
                Some(Recalled::Absent) => {
                    settled.push(settle(row, absent(run)));
                }
                Some(Recalled::Wait(failure)) => wait = Some(failure.clone()),
                _ => settled.push(uncertain(run, row, run.job.ambiguous)),
            }
        }
    }
    if !settled.is_empty() {
        run.site.store.settle(run.lease, &settled, run.now).await?;
        for settle in &settled {
            if let Settled::Parked { reason } | Settled::Doubtful { reason } = &settle.settled {
                run.tally.parked(run, reason);
            }
        }
        take_down(run, &settled).await?;
        // A row that waits may need what its whole batch was kept for.
        if wait.is_none() {
            run.job.delivery.settled(&notes).await;
        }
    }
    match (wait, unasked) {
        (Some(failure), _) => Err(RunError::Destination { destination: run.job.delivery.describe(), failure }),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(()),
    }
}

/// What was found out about messages, for the trail.
async fn take_down(run: &Run<'_>, settled: &[Settle]) -> Result<(), RunError> {
    if !run.site.trail.is_on() {
        return Ok(());
    }
    for mailbox in run.site.store.mailboxes(run.account.id).await? {
        run.opened(&mailbox);
    }
    for Settle { message, destination, user, settled } in settled {
        let (what, detail) = match settled {
            Settled::Delivered if destination == QUARANTINE => {
                (What::Quarantined, "found there after it was cut short")
            }
            Settled::Delivered => (What::Delivered, "found there after it was cut short"),
            Settled::Deferred { reason, .. } | Settled::Uncertain { reason, .. } => (What::Deferred, reason.as_str()),
            Settled::Parked { reason } | Settled::Doubtful { reason } => (What::Parked, reason.as_str()),
        };
        run.take_down(*message, &[(what, user, detail)]);
    }
    Ok(())
}

/// What became of messages that were being kept back; what the quarantine said when it cannot be asked now.
async fn kept_back(
    run: &Run<'_>,
    rows: &[&DeliveryRow],
    settled: &mut Vec<Settle>,
) -> Result<Option<RunError>, RunError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let Some(quarantine) = run.site.filters.quarantine() else {
        // Nobody can be asked any more.
        settled.extend(rows.iter().map(|row| uncertain(run, row, Ambiguous::Redeliver)));
        return Ok(None);
    };
    let mailboxes = run.site.store.mailboxes(run.account.id).await?;
    let mut asked: HashMap<MessageRef, bool> = HashMap::new();
    for row in rows {
        let held = match (asked.get(&row.message), mailboxes.iter().find(|mailbox| mailbox.id == row.message.mailbox)) {
            (Some(held), _) => *held,
            (None, None) => false,
            (None, Some(mailbox)) => {
                let MessageRef { key, generation, .. } = row.message;
                let id = DeliveryId::new(Identity {
                    account: run.job.address(),
                    mailbox: &mailbox.name,
                    uid_validity: mailbox.uid_validity,
                    key: &key.octets(),
                    generation,
                });
                match run.delivering(quarantine.holds(id)).await {
                    Ok(held) => held,
                    Err(error) => return Ok(Some(RunError::Quarantine(error))),
                }
            }
        };
        asked.insert(row.message, held);
        settled.push(settle(row, if held { Settled::Delivered } else { absent(run) }));
    }
    Ok(None)
}

/// It is certainly not there: retrieved again.
fn absent(run: &Run<'_>) -> Settled {
    let reason = "cut short before it was delivered".to_owned();
    Settled::Deferred { retry_at: run.now, reason, counts: false }
}

fn is_ours(run: &Run<'_>, row: &DeliveryRow) -> bool {
    is_recipient(run, row) && row.destination == run.job.destination
}

fn is_recipient(run: &Run<'_>, row: &DeliveryRow) -> bool {
    run.job.recipients.iter().any(|recipient| recipient.user == row.recipient.user)
}

fn recall_row(row: &DeliveryRow) -> RecallRow {
    let note = match &row.step {
        Step::Staged(note) => Some(note.clone()),
        _ => None,
    };
    RecallRow { recipient: row.recipient.clone(), note }
}

fn settle(row: &DeliveryRow, settled: Settled) -> Settle {
    Settle { message: row.message, destination: row.destination.clone(), user: row.recipient.user.clone(), settled }
}

/// It may have arrived: again, the first time at once; or a person is to look.
fn uncertain(run: &Run<'_>, row: &DeliveryRow, ambiguous: Ambiguous) -> Settle {
    let reason = "cut short while it was delivered";
    if ambiguous == Ambiguous::Park {
        return settle(row, after_doubt(ambiguous, reason, 1, run.now, site::random()));
    }
    warn!(
        account = run.job.address(),
        to = %connectord_wire::Escaped::text(&row.recipient.user),
        "a delivery that was cut short may have arrived; it is made again and may come twice"
    );
    let attempts = row.uncertain_attempts;
    settle(
        row,
        match attempts {
            0 | 1 => Settled::Uncertain { retry_at: run.now, reason: reason.into() },
            // A message that ends us each time must not do so for ever.
            attempts => after_doubt(ambiguous, reason, attempts.min(MAX_ATTEMPTS), run.now, site::random()),
        },
    )
}

/// Lets the destinations take away what killed processes left there half done.
///
/// To be called once, before anything runs: what an unfinished delivery of any account still needs is kept.
///
/// # Errors
/// The store's, with nothing taken away.
pub async fn sweep(site: &Site, jobs: &[Job]) -> Result<usize, StoreError> {
    let open = site.store.staged().await?;
    let mut swept = 0;
    for job in jobs {
        swept += job.delivery.sweep(&job.recipients, &open).await;
    }
    Ok(swept)
}
