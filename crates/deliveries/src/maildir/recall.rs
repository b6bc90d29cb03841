//! After a crash: what became of files in `tmp/`.

use std::io;
use std::time::Duration;

use connectord_delivery::{Outcome, Recalled};

use super::disk::Disk;
use super::note::{Batch, Row, StagedRow};
use super::publish::{self, Moved};
use super::shelf::{Part, Shelf};
use super::stage::unlink;
use crate::trouble;

/// A row older than this proves nothing: Dovecot and others clean `tmp/` after 36 hours.
pub(super) const PROOF: Duration = Duration::from_secs(24 * 3600);

/// Finds out, and publishes what is whole in `tmp/`. All rows are of this Maildir.
pub(super) fn recall(disk: &dyn Disk, shelf: &Shelf, rows: &[Row]) -> Vec<Recalled> {
    let delivered = match shelf.delivered(&rows.iter().filter_map(Row::id).collect()) {
        Ok(delivered) => delivered,
        Err(error) => {
            let failure = trouble::failure("searching new/ and cur/", &shelf.path, &error);
            return rows.iter().map(|_| Recalled::Wait(failure.clone())).collect();
        }
    };
    let found: Vec<_> = rows.iter().map(|row| find(disk, shelf, row, |id| delivered.get(&id).cloned())).collect();
    let synced = |part| shelf.part(part).sync().map_err(|e| trouble::failure("syncing new/ or cur/", &shelf.path, &e));
    let in_new = found.iter().any(|found| matches!(found, Found::Published | Found::In(Part::New, _)));
    let in_cur = found.iter().any(|found| matches!(found, Found::In(Part::Cur, _)));
    let new_synced = if in_new { shelf.new.sync() } else { Ok(()) };
    let cur_synced = if in_cur { synced(Part::Cur) } else { Ok(()) };
    rows.iter()
        .zip(found)
        .map(|(row, found)| match found {
            Found::Settled(recalled) => recalled,
            Found::In(Part::Cur, name) => match &cur_synced {
                Ok(()) => Recalled::Delivered { detail: name },
                Err(failure) => Recalled::Wait(failure.clone()),
            },
            Found::In(Part::New, _) | Found::Published => match &new_synced {
                Ok(()) => Recalled::Delivered { detail: row.target.clone() },
                Err(error) => {
                    let unmarked = row.staged.as_ref().is_some_and(|s| unlink(shelf, &batch(s).marker()).is_ok());
                    match publish::withdraw(shelf, &row.target, error, unmarked) {
                        Outcome::Failed(_) => Recalled::Absent,
                        _ => Recalled::Unknown,
                    }
                }
            },
        })
        .collect()
}

enum Found {
    /// Delivered under this name; to be synced.
    In(Part, String),
    /// Moved to `new/` just now; to be synced.
    Published,
    Settled(Recalled),
}

fn batch(staged: &StagedRow) -> Batch {
    Batch { instance: staged.instance.clone(), number: staged.batch.clone() }
}

fn find(
    disk: &dyn Disk,
    shelf: &Shelf,
    row: &Row,
    delivered: impl Fn(connectord_mail::DeliveryId) -> Option<(Part, String)>,
) -> Found {
    let Some(id) = row.id() else { return Found::Settled(Recalled::Unknown) };
    let Some(staged) = &row.staged else {
        // It was found in new/ or cur/, synced, before the row was written.
        return Found::Settled(Recalled::Delivered { detail: row.target.clone() });
    };
    let name = batch(staged).file(id);
    if let Some((part, found)) = delivered(id) {
        // After a power failure the old name may have come back beside the new one.
        let _ = unlink(shelf, &name);
        return match part {
            Part::Cur => Found::In(part, found),
            Part::New => name_anew(shelf, id, &found, &name),
        };
    }
    match staged.is(&*shelf.tmp, &name) {
        Ok(true) => match publish::rename(shelf, &name, row) {
            Ok(Moved::Now | Moved::Before) => Found::Published,
            Err(failure) => Found::Settled(Recalled::Wait(failure)),
        },
        // It is there, so it was not moved. It is left to the sweep: gone, it would look as if it had been moved.
        Ok(false) => Found::Settled(Recalled::Absent),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Found::Settled(match was_published(disk, shelf, staged) {
                Ok(true) => Recalled::Delivered { detail: format!("{}, taken by a reader", row.target) },
                Ok(false) => Recalled::Unknown,
                Err(error) => {
                    Recalled::Wait(trouble::failure("looking for a batch's marker in tmp", &shelf.path, &error))
                }
            })
        }
        Err(error) => Found::Settled(Recalled::Wait(trouble::failure("reading tmp", &shelf.path, &error))),
    }
}

/// What was found in `new/`. Whoever put it there may have died of a sync that failed: then another one that succeeds says
/// nothing, and the name is made once more to be synced.
fn name_anew(shelf: &Shelf, id: connectord_mail::DeliveryId, found: &str, name: &str) -> Found {
    let failed =
        |error| Found::Settled(Recalled::Wait(trouble::failure("naming a message in new/", &shelf.path, &error)));
    match shelf.name_anew(found, name) {
        Ok(()) => Found::In(Part::New, found.to_owned()),
        // A reader was there meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match shelf.delivered(&[id].into()).map(|mut there| there.remove(&id)) {
                Ok(Some((part, found))) => Found::In(part, found),
                Ok(None) => {
                    Found::Settled(Recalled::Delivered { detail: format!("{found}, taken by a reader just now") })
                }
                Err(error) => failed(error),
            }
        }
        Err(error) => failed(error),
    }
}

/// Whether a file's absence everywhere proves that it was moved to `new/` and taken from there by a reader.
///
/// We take a file away only after its batch's marker, and the marker goes as soon as a sync of the batch fails.
///
/// # Errors
/// When the marker cannot be looked at: that says nothing about it, and waiting costs nothing.
fn was_published(disk: &dyn Disk, shelf: &Shelf, staged: &StagedRow) -> io::Result<bool> {
    let boot = disk.boot_id();
    let age = disk.now().0.checked_sub(staged.written_at.0).and_then(|seconds| u64::try_from(seconds).ok());
    let may_prove = !boot.is_empty()
        && boot == staged.boot
        && shelf.place == staged.tmp
        && age.is_some_and(|seconds| Duration::from_secs(seconds) < PROOF);
    if !may_prove {
        return Ok(false);
    }
    match shelf.tmp.open_file(&batch(staged).marker()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
