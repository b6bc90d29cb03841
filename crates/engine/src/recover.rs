//! Before any connection: what became of deliveries that a crash cut short between their two commits.

use connectord_delivery::{RecallRow, Recalled};
use connectord_store::{DeliveryRow, Settle, Settled, Step, StoreError};
use tracing::warn;

use crate::run::Run;
use crate::trouble::RunError;
use crate::{Job, Site};

/// Settles every delivery that was staged or begun and not settled.
///
/// # Errors
/// [`RunError::Destination`] when the destination cannot be asked now: nothing is concluded, the account waits.
pub(crate) async fn recover(run: &Run<'_>, rows: &[DeliveryRow]) -> Result<bool, RunError> {
    let now = run.site.clock.now();
    let open: Vec<&DeliveryRow> =
        rows.iter().filter(|row| matches!(row.step, Step::Staged(_) | Step::Delivering { .. })).collect();
    if open.is_empty() {
        return Ok(false);
    }
    let asked = open
        .iter()
        .map(|row| RecallRow {
            recipient: row.recipient.clone(),
            note: match &row.step {
                Step::Staged(note) => Some(note.clone()),
                _ => None,
            },
        })
        .collect();
    // A row for another destination than today's cannot be asked there: its copy may have arrived.
    let recalled = run.job.delivery.recall(asked).await;
    let mut settled = Vec::with_capacity(open.len());
    let mut wait = None;
    for (row, recalled) in open.iter().zip(recalled) {
        let elsewhere = row.destination != run.job.destination;
        let result = match recalled {
            Recalled::Delivered { .. } if !elsewhere => Settled::Delivered,
            Recalled::Absent if !elsewhere => Settled::Deferred {
                retry_at: now,
                reason: "cut short before it was delivered".into(),
                counts: false,
            },
            Recalled::Wait(failure) if !elsewhere => {
                wait = Some(failure);
                continue;
            }
            _ => {
                warn!(
                    account = run.job.address(),
                    to = %connectord_wire::Escaped::text(&row.recipient.user),
                    "a delivery that was cut short may have arrived; it is made again and may come twice"
                );
                Settled::Uncertain { retry_at: now, reason: "cut short while it was delivered".into() }
            }
        };
        settled.push(Settle {
            message: row.message,
            destination: row.destination.clone(),
            user: row.recipient.user.clone(),
            settled: result,
        });
    }
    if !settled.is_empty() {
        run.site.store.settle(run.lease, &settled, now).await?;
    }
    match wait {
        Some(failure) => Err(RunError::Destination { destination: run.job.delivery.describe(), failure }),
        None => Ok(true),
    }
}

/// Lets the destinations take away what killed processes left there half done.
///
/// To be called once, before anything runs: what an unfinished delivery of any account still needs is kept.
///
/// # Errors
/// The store's, with nothing taken away.
pub async fn sweep(site: &Site, jobs: &[Job]) -> Result<usize, StoreError> {
    let mut open = Vec::new();
    for account in site.store.accounts().await? {
        for row in site.store.unfinished(account.id).await? {
            if let Step::Staged(note) = row.step {
                open.push(note);
            }
        }
    }
    let mut swept = 0;
    for job in jobs {
        swept += job.delivery.sweep(&job.recipients, &open).await;
    }
    Ok(swept)
}
