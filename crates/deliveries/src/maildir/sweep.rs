//! What is taken away from `tmp/` later: markers of completed batches, and what a killed process left.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskDir};
use super::note::{self, Batch, Leftover, Row};
use super::shelf::Where;
use super::stage::Held;
use crate::pool;

/// How long a marker outlives its batch when nobody says that the outcomes are committed: as long as it can prove that a
/// reader took a message which was published. The end of the process takes none away: the state may have failed before.
const KEEP: Duration = super::recall::PROOF;
/// Markers kept at most; beyond that the oldest go early.
const MAX_KEPT: usize = 4096;

/// A marker that is to be unlinked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Marker {
    pub(super) at: Where,
    name: String,
}

impl Marker {
    pub(super) fn new(at: Where, batch: &Batch) -> Self {
        Self { at, name: batch.marker() }
    }

    /// What stays goes later, or is swept at the next start.
    pub(super) fn unlink(&self, disk: &dyn Disk) {
        pool::beat();
        let _ = disk.open_dir(&Path::new(&self.at.path()).join("tmp")).and_then(|tmp| tmp.unlink(&self.name));
    }
}

/// Markers of completed batches that are to be unlinked.
#[derive(Default)]
pub(super) struct Settled(Mutex<VecDeque<(Instant, Marker)>>);

impl Settled {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, Marker)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a published batch's marker, which otherwise would go with the batch.
    pub(super) fn take_over(&self, held: &Held) {
        // With files left something failed, and the batch's end takes the marker away before them.
        if held.made(|made| made.files.is_empty() && std::mem::take(&mut made.marker)) {
            self.lock().push_back((Instant::now(), Marker::new(held.at.clone(), &held.batch)));
        }
    }

    /// Takes out those that have been kept long enough, and the oldest when there are too many.
    pub(super) fn expired(&self) -> Vec<Marker> {
        let mut kept = self.lock();
        let old = kept.iter().take_while(|(since, _)| since.elapsed() >= KEEP).count();
        let count = old.max(kept.len().saturating_sub(MAX_KEPT));
        kept.drain(..count).map(|(_, marker)| marker).collect()
    }

    /// Takes out all.
    pub(super) fn all(&self) -> Vec<Marker> {
        self.lock().drain(..).map(|(_, marker)| marker).collect()
    }

    /// Takes out these.
    pub(super) fn these(&self, markers: &HashSet<Marker>) -> Vec<Marker> {
        let mut kept = self.lock();
        let (going, staying): (VecDeque<_>, _) =
            std::mem::take(&mut *kept).into_iter().partition(|(_, marker)| markers.contains(marker));
        *kept = staying;
        going.into_iter().map(|(_, marker)| marker).collect()
    }
}

/// The batch that a row was in, and its Maildir.
pub(super) fn batch(row: Row) -> Option<(Where, Batch)> {
    let Row { at, staged, .. } = row;
    staged.map(|staged| (at, Batch { instance: staged.instance, number: staged.batch }))
}

/// The names in `tmp/` that a row speaks of.
pub(super) fn names(row: Row) -> Vec<String> {
    let (id, staged) = (row.id(), row.staged);
    let batch = |staged: note::StagedRow| Batch { instance: staged.instance, number: staged.batch };
    staged
        .map(batch)
        .map_or(Vec::new(), |batch| id.map(|id| batch.file(id)).into_iter().chain([batch.marker()]).collect())
}

/// Unlinks what earlier processes of `instance` left in a mailbox's `tmp/` and its folders', except names to keep.
pub(super) fn sweep(disk: &dyn Disk, mailbox: &str, instance: &str, nonce: &str, keep: &HashSet<String>) -> usize {
    let Ok(root) = disk.open_dir(Path::new(mailbox)) else { return 0 };
    let mut folders = Vec::new();
    let listed = root.each_name(&mut |name| {
        if name.starts_with(b".") {
            folders.extend(String::from_utf8(name.to_vec()));
        }
    });
    let folders = if listed.is_ok() { folders } else { Vec::new() };
    let in_folders: usize = folders
        .into_iter()
        .filter_map(|folder| root.open_dir(&folder).ok())
        .inspect(|_| pool::beat())
        .map(|folder| sweep_one(&*folder, instance, nonce, keep))
        .sum();
    in_folders + sweep_one(&*root, instance, nonce, keep)
}

fn sweep_one(maildir: &dyn DiskDir, instance: &str, nonce: &str, keep: &HashSet<String>) -> usize {
    let Ok(tmp) = maildir.open_dir("tmp") else { return 0 };
    let (mut markers, mut files) = (Vec::new(), Vec::new());
    let listed = tmp.each_name(&mut |name| {
        pool::beat();
        let Ok(text) = std::str::from_utf8(name) else { return };
        match Leftover::of(name, instance) {
            Some(Leftover::Marker { batch }) if !note::is_of_process(batch, nonce) => markers.push(text.to_owned()),
            Some(Leftover::File { batch, .. }) if !note::is_of_process(batch, nonce) => files.push(text.to_owned()),
            _ => {}
        }
    });
    if listed.is_err() {
        return 0;
    }
    // Markers first, as everywhere: while one is there, a file that is gone was published.
    markers
        .into_iter()
        .chain(files)
        .filter(|name| !keep.contains(name) && tmp.unlink(name).is_ok())
        .inspect(|_| pool::beat())
        .count()
}
