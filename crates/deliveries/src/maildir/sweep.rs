//! What is taken away from `tmp/` later: markers of completed batches, and what a killed process left.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskDir};
use super::note::{self, Batch, Leftover, Row};
use super::stage::Held;

/// How long a marker outlives its batch. The engine has long committed the outcomes by then; until it has, the marker
/// is what tells a message that a reader took from one that was never published.
const KEEP: Duration = Duration::from_secs(600);
/// Markers kept at most; beyond that the oldest go early.
const MAX_KEPT: usize = 4096;

/// Markers of completed batches that are to be unlinked.
#[derive(Default)]
pub(super) struct Settled(Mutex<VecDeque<(Instant, String, String)>>);

impl Settled {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Takes over a published batch's marker, which otherwise would go with the batch.
    pub(super) fn take_over(&self, held: &Held) {
        // With files left something failed, and the batch's end takes the marker away before them.
        if held.made(|made| made.files.is_empty() && std::mem::take(&mut made.marker)) {
            self.lock().push_back((Instant::now(), held.at.path(), held.batch.marker()));
        }
    }

    pub(super) fn has_expired(&self) -> bool {
        let settled = self.lock();
        settled.len() > MAX_KEPT || settled.front().is_some_and(|(since, ..)| since.elapsed() >= KEEP)
    }

    pub(super) fn unlink_expired(&self, disk: &dyn Disk) {
        while self.has_expired() {
            self.unlink_first(disk);
        }
    }

    pub(super) fn unlink_all(&self, disk: &dyn Disk) {
        while self.unlink_first(disk) {}
    }

    /// Unlinks these of them.
    pub(super) fn unlink(&self, disk: &dyn Disk, markers: &HashSet<String>) {
        let mut kept = self.lock();
        let (going, staying) =
            std::mem::take(&mut *kept).into_iter().partition(|(_, _, marker)| markers.contains(marker));
        *kept = staying;
        drop(kept);
        let going: VecDeque<(Instant, String, String)> = going;
        for (_, path, marker) in going {
            // What stays is swept at the next start.
            let _ = disk.open_dir(&Path::new(&path).join("tmp")).and_then(|tmp| tmp.unlink(&marker));
        }
    }

    fn unlink_first(&self, disk: &dyn Disk) -> bool {
        let first = self.lock().pop_front();
        let Some((_, path, marker)) = first else { return false };
        // What stays is swept at the next start.
        let _ = disk.open_dir(&Path::new(&path).join("tmp")).and_then(|tmp| tmp.unlink(&marker));
        true
    }
}

/// The batch that a row was in, and the path of its Maildir.
pub(super) fn batch(row: Row) -> Option<(String, Batch)> {
    let path = row.at.path();
    row.staged.map(|staged| (path, Batch { instance: staged.instance, number: staged.batch }))
}

/// Unlinks the markers of batches of an earlier process, all of whose rows have been recalled and committed.
pub(super) fn unlink_recalled(disk: &dyn Disk, markers: &HashSet<(String, String)>) {
    for (path, marker) in markers {
        // What stays is swept at the next start.
        let _ = disk.open_dir(&Path::new(path).join("tmp")).and_then(|tmp| tmp.unlink(marker));
    }
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
        .map(|folder| sweep_one(&*folder, instance, nonce, keep))
        .sum();
    in_folders + sweep_one(&*root, instance, nonce, keep)
}

fn sweep_one(maildir: &dyn DiskDir, instance: &str, nonce: &str, keep: &HashSet<String>) -> usize {
    let Ok(tmp) = maildir.open_dir("tmp") else { return 0 };
    let (mut markers, mut files) = (Vec::new(), Vec::new());
    let listed = tmp.each_name(&mut |name| {
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
    markers.into_iter().chain(files).filter(|name| !keep.contains(name) && tmp.unlink(name).is_ok()).count()
}
