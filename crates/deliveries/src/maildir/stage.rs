//! First step: a batch's files in one Maildir's `tmp/`, and their undoing.

use std::collections::{HashMap, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use connectord_delivery::{Failure, FailureKind, Parcel};
use connectord_mail::{DeliveryId, UnixTime};
use tokio::sync::oneshot;

use super::disk::Disk;
use super::names;
use super::note::{Batch, Row, StagedRow};
use super::quota::Quota;
use super::shelf::{Part, Shelf, Where};
use super::write;
use crate::local::Buffers;
use crate::pool::{Names, Writer};
use crate::{DiskPool, trouble};

/// Threads that write one batch; more syncs at once bring disks little. Fewer than a place may have, so that the batch
/// before is published meanwhile.
const LANES: usize = 12;

/// One Maildir while a batch is under way in it. Dropping it takes away what was not published.
pub(super) struct Held {
    pub(super) at: Where,
    pub(super) shelf: Shelf,
    pub(super) batch: Batch,
    /// What is in `tmp/`.
    pub(super) made: Mutex<Made>,
    /// Held for whatever changes names in `new/` or syncs a directory: a sync that fails, or that comes between a rename
    /// and its own, must not be another batch's.
    pub(super) names: Names,
    pool: DiskPool,
    /// Given back when all is in `tmp/`, so that the next batch is written while this one is published; kept to the end
    /// where a quota counts what was published.
    writer: Mutex<Option<Writer>>,
}

#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) marker: bool,
    pub(super) files: HashSet<String>,
}

impl Held {
    pub(super) fn new(at: Where, shelf: Shelf, batch: Batch, pool: DiskPool, writer: Writer) -> Self {
        let names = writer.names();
        Self { at, shelf, batch, made: Mutex::default(), names, pool, writer: Mutex::new(Some(writer)) }
    }

    pub(super) fn made<T>(&self, change: impl FnOnce(&mut Made) -> T) -> T {
        change(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets the next batch begin.
    fn give_turn(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(writer);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let made = std::mem::take(self.made.get_mut().unwrap_or_else(PoisonError::into_inner));
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if !made.marker && made.files.is_empty() {
            return;
        }
        let (shelf, batch, names) = (self.shelf.clone(), self.batch.clone(), self.names.clone());
        self.pool.submit(&self.at.mailbox, move || {
            let changing = names.lock();
            undo(&shelf, &batch, made);
            drop(changing);
            drop(writer);
        });
    }
}

/// Takes away a batch's marker, and only then its files.
///
/// The order is what recovery rests on: while the marker is there, a file that is gone was published.
pub(super) fn undo(shelf: &Shelf, batch: &Batch, made: Made) {
    if made.marker && unlink(shelf, &batch.marker()).is_err() {
        return;
    }
    for name in &made.files {
        // What stays is swept at the next start.
        let _ = unlink(shelf, name);
    }
}

/// Unlinks a file in `tmp/`; that it is not there is well.
pub(super) fn unlink(shelf: &Shelf, name: &str) -> io::Result<()> {
    match shelf.tmp.unlink(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A parcel after the first step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// In `tmp/` under the first name; in `new/` it gets the second.
    Written { name: String, row: Row },
    /// An earlier attempt has delivered it.
    There { row: Row },
}

impl Ready {
    pub(super) fn row(&self) -> &Row {
        match self {
            Self::Written { row, .. } | Self::There { row } => row,
        }
    }
}

/// What staging needs beside the Maildir and the parcels.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) host: String,
    pub(super) quota: bool,
    /// Search for earlier copies of all parcels, not only of repeated ones.
    pub(super) search_all: bool,
}

/// What became of each parcel in the first step, with its place in the whole batch.
pub(super) type Staged = (Arc<Held>, Vec<(usize, Result<Ready, Failure>)>);

/// Stages a batch's parcels of one Maildir, on several threads; the answer comes when the last one is done.
pub(super) fn stage(held: Held, parcels: Vec<(usize, Parcel)>, means: Means, answer: oneshot::Sender<Staged>) {
    let (pool, share) = (held.pool.clone(), held.at.mailbox.clone());
    let lanes = parcels.len().clamp(1, LANES.min(pool.threads()));
    pool.clone().submit(&share.clone(), move || {
        let (boot, now) = (means.disk.boot_id(), means.disk.now());
        let (results, counted) = begin(&held, &parcels, &means);
        let work = Arc::new(Work {
            held: Arc::new(held),
            parcels,
            host: means.host,
            boot,
            now,
            results,
            counted,
            next: AtomicUsize::new(0),
            lanes_left: AtomicUsize::new(lanes),
            answer: Mutex::new(Some(answer)),
        });
        pool.submit_all(
            &share,
            (1..lanes).map(|_| {
                let work = work.clone();
                Box::new(move || work.lane()) as Box<dyn FnOnce() + Send>
            }),
        );
        work.lane();
    });
}

struct Work {
    held: Arc<Held>,
    parcels: Vec<(usize, Parcel)>,
    host: String,
    boot: String,
    now: UnixTime,
    results: Vec<OnceLock<Result<Ready, Failure>>>,
    /// There is a quota.
    counted: bool,
    next: AtomicUsize,
    lanes_left: AtomicUsize,
    answer: Mutex<Option<oneshot::Sender<Staged>>>,
}

/// Before the files: what needs none, and the marker. Says whether there is a quota as well.
fn begin(held: &Held, parcels: &[(usize, Parcel)], means: &Means) -> (Vec<OnceLock<Result<Ready, Failure>>>, bool) {
    let _changing = held.names.lock();
    let results: Vec<_> = parcels.iter().map(|_| OnceLock::new()).collect();
    let settle = |at: usize, result| {
        let _ = results[at].set(result);
    };
    let mut ids = HashSet::new();
    for (at, (_, parcel)) in parcels.iter().enumerate() {
        if !ids.insert(parcel.id) {
            let text = format!("the message {} is in this batch twice", parcel.id);
            settle(at, Err(Failure::new(FailureKind::Transient, text)));
        }
    }
    if means.search_all || parcels.iter().any(|(_, parcel)| parcel.attempt > 1) {
        match earlier(&held.shelf, &ids) {
            Ok(earlier) => {
                let mut synced = HashMap::new();
                for (at, (_, parcel)) in parcels.iter().enumerate() {
                    let Some((part, name)) = earlier.get(&parcel.id) else { continue };
                    // An earlier attempt may have failed at the sync of new/: then another sync says nothing of this name.
                    // What a reader took meanwhile is delivered.
                    let named = match part {
                        Part::New => held.shelf.name_anew(name, &held.batch.file(parcel.id)),
                        Part::Cur => Ok(()),
                    };
                    if let Err(error) = named
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        settle(at, Err(trouble::failure("naming a message in new/", &held.shelf.path, &error)));
                        continue;
                    }
                    let durable = synced.entry(*part).or_insert_with(|| sync_part(&held.shelf, *part));
                    let row = Row { at: held.at.clone(), target: name.clone(), staged: None };
                    settle(at, durable.clone().map(|()| Ready::There { row }));
                }
            }
            Err(failure) => (0..parcels.len()).for_each(|at| settle(at, Err(failure.clone()))),
        }
    }
    let quota = if means.quota { Quota::read(&*held.shelf.root) } else { None };
    if let Some(quota) = quota {
        for at in over_quota(quota, held, parcels, &results) {
            let text = format!("the mailbox is over its quota (maildirsize of {})", held.at.mailbox);
            settle(at, Err(Failure::new(FailureKind::OverQuota, text)));
        }
    }
    if results.iter().any(|result| result.get().is_none())
        && let Err(failure) = mark(held, parcels)
    {
        (0..parcels.len()).for_each(|at| settle(at, Err(failure.clone())));
    }
    (results, quota.is_some())
}

fn earlier(shelf: &Shelf, ids: &HashSet<DeliveryId>) -> Result<HashMap<DeliveryId, (Part, String)>, Failure> {
    shelf.delivered(ids).map_err(|error| trouble::failure("searching new/ and cur/", &shelf.path, &error))
}

/// A name is believed only when it is durable.
fn sync_part(shelf: &Shelf, part: Part) -> Result<(), Failure> {
    shelf.part(part).sync().map_err(|error| trouble::failure("syncing new/ or cur/", &shelf.path, &error))
}

/// Which of the parcels that are still to be written do not fit.
fn over_quota(
    quota: Quota,
    held: &Held,
    parcels: &[(usize, Parcel)],
    results: &[OnceLock<Result<Ready, Failure>>],
) -> Vec<usize> {
    let refused = |mut quota: Quota| -> Vec<usize> {
        let open = parcels.iter().enumerate().filter(|(at, _)| results[*at].get().is_none());
        open.filter(|(_, (_, parcel))| !quota.take(parcel.trace.len() as u64 + parcel.body.size_octets()))
            .map(|(at, _)| at)
            .collect()
    };
    let first = refused(quota);
    if first.is_empty() {
        return first;
    }
    quota.recounted(&*held.shelf.root).map_or(first, refused)
}

/// Makes the batch's marker.
///
/// Its time is that of the oldest message: a program that takes old files away from `tmp/` takes the marker not later
/// than a message, and then nothing is concluded from the message's absence.
fn mark(held: &Held, parcels: &[(usize, Parcel)]) -> Result<(), Failure> {
    let fail = |error| trouble::failure("making the batch's marker in tmp", &held.shelf.path, &error);
    held.made(|made| made.marker = true);
    let mut marker = held.shelf.tmp.create_new(&held.batch.marker()).map_err(fail)?;
    match parcels.iter().filter_map(|(_, parcel)| parcel.arrived_at).min() {
        Some(oldest) => marker.set_modified(oldest).map_err(fail),
        None => Ok(()),
    }
}

impl Work {
    /// Writes files until there are none; the last lane to end syncs `tmp/` and answers.
    fn lane(&self) {
        let mut buffers = None;
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let (Some((_, parcel)), Some(result)) = (self.parcels.get(at), self.results.get(at)) else { break };
            if result.get().is_some() {
                continue;
            }
            let buffers = buffers.get_or_insert_with(Buffers::default);
            let written = catch_unwind(AssertUnwindSafe(|| self.write(parcel, buffers)));
            let _ = result.set(written.unwrap_or_else(|_| Err(trouble::panicked("writing a message"))));
        }
        if self.lanes_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end();
        }
    }

    fn write(&self, parcel: &Parcel, buffers: &mut Buffers) -> Result<Ready, Failure> {
        let held = &*self.held;
        let name = held.batch.file(parcel.id);
        held.made(|made| made.files.insert(name.clone()));
        let written = match write::write(&held.shelf, &name, parcel, buffers) {
            Ok(written) => written,
            Err(failure) => {
                // No row speaks of this file yet, so it may go while the marker stays. What cannot be unlinked now is
                // tried again when the batch ends.
                if unlink(&held.shelf, &name).is_ok() {
                    held.made(|made| made.files.remove(&name));
                }
                return Err(failure);
            }
        };
        let time = parcel.arrived_at.unwrap_or(self.now);
        let target = names::target(time, parcel.id, &self.host, written.size_octets, written.crlf_octets);
        let staged = StagedRow {
            instance: held.batch.instance.clone(),
            batch: held.batch.number.clone(),
            size_octets: written.size_octets,
            digest: written.digest.hex,
            rest_from: written.digest.rest_from,
            boot: self.boot.clone(),
            tmp: held.shelf.place,
            written_at: self.now,
        };
        Ok(Ready::Written { name, row: Row { at: held.at.clone(), target, staged: Some(staged) } })
    }

    fn end(&self) {
        let synced = if self.held.made(|made| made.files.is_empty()) {
            Ok(())
        } else {
            let _syncing = self.held.names.lock();
            self.held.shelf.tmp.sync().map_err(|error| trouble::failure("syncing tmp", &self.held.shelf.path, &error))
        };
        if !self.counted {
            self.held.give_turn();
        }
        let results = self.parcels.iter().zip(&self.results).map(|((place, _), result)| {
            let result = result.get().cloned().unwrap_or_else(|| Err(trouble::panicked("writing a message")));
            let result = match result {
                Ok(Ready::Written { .. }) => synced.clone().and(result),
                other => other,
            };
            (*place, result)
        });
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answer) = answer {
            // Nobody waits any more when the future was dropped; then the files go with the last owner of `held`.
            let _ = answer.send((self.held.clone(), results.collect()));
        }
    }
}
