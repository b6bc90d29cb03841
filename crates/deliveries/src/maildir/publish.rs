//! Second step: from `tmp/` to `new/`.

use std::io;
use std::sync::Arc;

use connectord_delivery::{Failure, FailureKind, Outcome};

use super::note::Row;
use super::quota;
use super::shelf::Shelf;
use super::stage::{Held, Ready, unlink};
use crate::{pool, trouble};

/// Publishes a batch's files in one Maildir, in order, and answers for each.
pub(super) fn publish(held: &Arc<Held>, ready: Vec<(usize, Ready)>) -> Vec<(usize, Outcome)> {
    let shelf = &held.shelf;
    let _changing = held.names.lock();
    let moved: Vec<_> = ready
        .into_iter()
        .map(|(place, ready)| {
            let moved = match &ready {
                Ready::There { .. } => Ok(Moved::Before),
                Ready::Written { name, row } => rename(shelf, name, row).inspect(|_| {
                    held.made(|made| made.files.remove(name));
                }),
            };
            pool::beat();
            (place, ready, moved)
        })
        .collect();
    let moved_now = moved.iter().any(|(_, _, moved)| matches!(moved, Ok(Moved::Now)));
    let synced = if moved_now { shelf.new.sync() } else { Ok(()) };

    // What failed goes away, the marker first: see `stage::undo`. Without a marker a later look at a row of this
    // batch concludes less than it might, which at worst is a duplicate.
    let any_failed = synced.is_err() || moved.iter().any(|(_, _, moved)| moved.is_err());
    let unmarked = any_failed && unlink(shelf, &held.batch.marker()).is_ok();
    if unmarked {
        held.made(|made| made.marker = false);
    }
    let mut delivered = Vec::new();
    let outcomes = moved
        .into_iter()
        .map(|(place, ready, moved)| {
            let row = ready.row();
            let outcome = match (moved, &synced) {
                (Err(failure), _) => Outcome::Failed(failure),
                (Ok(Moved::Before), _) => Outcome::Delivered { detail: row.target.clone() },
                (Ok(Moved::Now), Ok(())) => {
                    delivered.extend(row.staged.as_ref().map(|staged| staged.size_octets));
                    Outcome::Delivered { detail: row.target.clone() }
                }
                (Ok(Moved::Now), Err(error)) => withdraw(shelf, &row.target, error, unmarked),
            };
            (place, outcome)
        })
        .collect();
    count_in(held, &delivered);
    outcomes
}

/// How a message came to be in `new/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// By us, now; to be synced.
    Now,
    /// Before, durably.
    Before,
}

/// Renames `tmp/<name>` to its target, never over another file.
pub(super) fn rename(shelf: &Shelf, name: &str, row: &Row) -> Result<Moved, Failure> {
    let fail = |error| trouble::failure("moving the message to new/", &format!("{}/tmp/{name}", shelf.path), &error);
    match shelf.tmp.rename_into(name, &*shelf.new, &row.target) {
        Ok(()) => Ok(Moved::Now),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let ours =
                row.staged.as_ref().map(|staged| staged.is(&*shelf.new, &row.target)).transpose().map_err(fail)?;
            if ours != Some(true) {
                let text = format!("another file has the name new/{} (in {})", row.target, shelf.path);
                return Err(Failure::new(FailureKind::Transient, text));
            }
            // An earlier attempt came this far: the copy in tmp/ goes, the sync of new/ is still due.
            unlink(shelf, name).map_err(fail)?;
            Ok(Moved::Now)
        }
        // Not success: somebody cleaned tmp/. But NFS says so also when its answer to the first try got lost.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let found = shelf.delivered(&row.id().into_iter().collect()).map_err(fail)?;
            if !found.is_empty() {
                shelf.cur.sync().map_err(fail)?;
                return Ok(Moved::Now);
            }
            let text = format!("somebody removed tmp/{name} before it was moved (in {})", shelf.path);
            Err(Failure::new(FailureKind::Transient, text))
        }
        Err(error) => Err(fail(error)),
    }
}

/// Takes a message back whose sync failed: a sync is not repeated and believed.
pub(super) fn withdraw(shelf: &Shelf, target: &str, error: &io::Error, unmarked: bool) -> Outcome {
    let failure = trouble::failure("syncing new/", &shelf.path, error);
    // With the marker still there a message that is gone would count as published.
    if unmarked && shelf.new.unlink(target).is_ok() { Outcome::Failed(failure) } else { Outcome::Unknown(failure) }
}

fn count_in(held: &Held, sizes: &[u64]) {
    if sizes.is_empty() {
        return;
    }
    match quota::append(&*held.shelf.root, sizes) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // The mail is there all the same; readers count anew now and then.
            tracing::debug!(%error, path = held.at.mailbox, during = "adding to maildirsize", "maildirsize not updated");
        }
        _ => {}
    }
}
