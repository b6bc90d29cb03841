//! Where messages will be in a mailbox, putting them there, and finding them again.

use std::io;
use std::path::Path;
use std::sync::PoisonError;

use connectord_delivery::{Failure, FailureKind, Note, Outcome, Parcel, Recalled};
use connectord_wire::Escaped;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::lock::Locked;
use super::quote::{Quoter, from_line};
use crate::local::{self, Broken, Buffers};
use crate::maildir::{DiskFile, hex};
use crate::{pool, trouble};

/// Octets at the beginning of a message that are noted, so that a message cut short by a crash is known as ours.
const BEGINNING: usize = 96;
/// Octets from the beginning in which the message's id must be: those of the fields in front.
const FRONT: usize = 4096;
/// Mailboxes remembered as synced; beyond that they are synced again.
const MAX_SYNCED: usize = 100_000;

/// What is remembered of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(rename = "p")]
    pub(super) path: String,
    /// Device and inode of the file.
    #[serde(rename = "i")]
    place: (u64, u64),
    #[serde(rename = "o")]
    offset: u64,
    #[serde(rename = "l")]
    length: u64,
    #[serde(rename = "h")]
    digest: String,
    /// The first octets, in hexadecimal.
    #[serde(rename = "b")]
    beginning: String,
    /// The id in the fields in front, and where it is; it tells this message from others of the same sender. Empty where
    /// it is not there.
    #[serde(rename = "m", default)]
    id: String,
    #[serde(rename = "a", default)]
    id_at: u64,
}

impl Row {
    pub(super) fn to_note(&self) -> Note {
        Note(serde_json::to_vec(self).expect("strings and numbers are always JSON"))
    }

    pub(super) fn parse(note: &Note) -> Option<Self> {
        serde_json::from_slice(&note.0).ok()
    }
}

/// A parcel and where it will be.
pub(super) struct Planned {
    parcel: Parcel,
    /// What stands before the message's own octets: an empty line where the mailbox lacks one, and the From line.
    head: Vec<u8>,
    pub(super) row: Row,
}

/// The mailbox, the parcels that can be appended, and those that cannot.
pub(super) type Plan = (Locked, Vec<(usize, Planned)>, Vec<(usize, Failure)>);

/// Measures the messages.
pub(super) fn plan(locked: Locked, parcels: Vec<(usize, Parcel)>) -> Result<Plan, Failure> {
    let fail = |error| trouble::failure("reading the mailbox", &locked.path, &error);
    if locked.path.len() > 400 {
        let text = format!("the path is too long to be remembered: {}", Escaped::text(&locked.path));
        return Err(Failure::new(FailureKind::Misconfigured, text));
    }
    let mut offset = locked.file().stat().map_err(fail)?.size_octets;
    let mut gap = gap(locked.file(), offset).map_err(fail)?;
    let now = locked.means.disk.now();
    let mut buffers = Buffers::default();
    let (mut planned, mut failed) = (Vec::new(), Vec::new());
    for (place, parcel) in parcels {
        let mut head = gap.to_vec();
        head.extend(from_line(&parcel.reverse_path, parcel.arrived_at.unwrap_or(now)).bytes());
        let (mut digest, mut length, mut front) = (Sha256::new(), 0u64, Vec::new());
        let measured = message(&parcel, &head, &mut buffers, &mut |piece| {
            digest.update(piece);
            length += piece.len() as u64;
            front.extend_from_slice(&piece[..piece.len().min(FRONT - front.len())]);
            Ok(())
        });
        match measured {
            Ok(()) => {
                let id = parcel.message.to_string();
                let id_at = memchr::memmem::find(&front, id.as_bytes());
                let row = Row {
                    path: locked.path.clone(),
                    place: locked.place,
                    offset,
                    length,
                    digest: hex(&digest.finalize()),
                    beginning: hex(&front[..front.len().min(BEGINNING)]),
                    id: id_at.map(|_| id).unwrap_or_default(),
                    id_at: id_at.unwrap_or(0) as u64,
                };
                planned.push((place, Planned { parcel, head, row }));
                (offset, gap) = (offset + length, b"");
            }
            Err(broken) => failed.push((place, broken.failure(&locked.path))),
        }
    }
    Ok((locked, planned, failed))
}

/// What is missing to an empty line at the end of the mailbox.
fn gap(file: &dyn DiskFile, size: u64) -> io::Result<&'static [u8]> {
    let mut end = [b'\n'; 2];
    let from = size.saturating_sub(2);
    let count = usize::try_from(size - from).unwrap_or(2);
    read_exact_at(file, &mut end[2 - count..], from)?;
    Ok(match end {
        [b'\n', b'\n'] => b"",
        [_, b'\n'] => b"\n",
        _ => b"\n\n",
    })
}

/// Hands a message with its From line to `put`, quoted.
fn message(
    parcel: &Parcel,
    head: &[u8],
    buffers: &mut Buffers,
    put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Broken> {
    let (mut quoter, mut out) = (Quoter::default(), head.to_vec());
    local::copy(parcel, buffers, &mut |piece| {
        quoter.push(piece, &mut out);
        put(&out)?;
        out.clear();
        Ok(())
    })?;
    quoter.finish(&mut out);
    put(&out).map_err(Broken::File)
}

/// Appends the messages and syncs them together. What cannot be written whole is cut off again.
pub(super) fn append(mut locked: Locked, planned: Vec<(usize, Planned)>) -> Vec<(usize, Outcome)> {
    let Some(start) = planned.first().map(|(_, planned)| planned.row.offset) else { return Vec::new() };
    let (mut at, mut buffers) = (start, Buffers::default());
    let mut full: Option<Failure> = None;
    let appended: Vec<_> = planned
        .into_iter()
        .map(|(place, planned)| {
            if let Some(failure) = &full {
                return (place, Err(failure.clone()));
            }
            let (mut end, file) = (at, locked.file_mut());
            let written = message(&planned.parcel, &planned.head, &mut buffers, &mut |piece| {
                write_all_at(file, piece, end)?;
                end += piece.len() as u64;
                Ok(())
            });
            match written {
                Ok(()) => {
                    at = end;
                    (place, Ok(planned.row))
                }
                Err(broken) => {
                    let failure = broken.failure(&locked.path);
                    if matches!(broken, Broken::File(_)) {
                        full = Some(failure.clone());
                    }
                    (place, Err(failure))
                }
            }
        })
        .collect();
    // A failed message may have left some octets behind those that are whole.
    let failed = appended.iter().any(|(_, result)| result.is_err());
    let whole = if failed { locked.file_mut().truncate(at) } else { Ok(()) };
    let synced = whole.and_then(|()| locked.file_mut().sync()).and_then(|()| sync_directory(&locked));
    if let Err(error) = synced {
        let failure = trouble::failure("syncing the mailbox", &locked.path, &error);
        let cut = take_back(&mut locked, start).is_ok();
        return appended
            .into_iter()
            .map(|(place, result)| match result {
                Ok(_) if cut => (place, Outcome::Failed(failure.clone())),
                Ok(_) => (place, Outcome::Unknown(failure.clone())),
                Err(failure) => (place, Outcome::Failed(failure)),
            })
            .collect();
    }
    let detail = |row: Row| format!("{} at {}", Escaped::text(&row.path), row.offset);
    let outcome =
        |result: Result<Row, _>| result.map_or_else(Outcome::Failed, |row| Outcome::Delivered { detail: detail(row) });
    appended.into_iter().map(|(place, result)| (place, outcome(result))).collect()
}

/// A sync that failed is not repeated and believed: what it covered goes, and a mailbox that was made just now, whose
/// name it may have been about, is made anew by the next attempt.
fn take_back(locked: &mut Locked, start: u64) -> io::Result<()> {
    locked.file_mut().truncate(start)?;
    locked.file_mut().sync()?;
    if locked.made && start == 0 { locked.above.unlink(locked.name()) } else { Ok(()) }
}

/// Makes the mailbox's name durable: once per process, whoever made it, as an earlier process of ours may have been killed
/// before.
fn sync_directory(locked: &Locked) -> io::Result<()> {
    let synced = || locked.means.synced.lock().unwrap_or_else(PoisonError::into_inner);
    if !locked.made && synced().contains(&locked.place) {
        return Ok(());
    }
    match locked.means.disk.open_dir(crate::maildir::parent(Path::new(&locked.path))) {
        Ok(directory) => directory.sync()?,
        // One that we may write to and not read. Who made the mailbox there is not known.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !locked.made => {}
        Err(error) => return Err(error),
    }
    let mut synced = synced();
    if synced.len() >= MAX_SYNCED {
        synced.clear();
    }
    synced.insert(locked.place);
    Ok(())
}

/// Looks whether messages are where they were to be. What a crash has left of them at the end is cut off.
pub(super) fn recall(locked: &mut Locked, rows: &[Row]) -> Result<Vec<Recalled>, Failure> {
    let path = locked.path.clone();
    let fail = |during| move |error: io::Error| trouble::failure(during, &path, &error);
    let reading = fail.clone()("reading the mailbox");
    let size = locked.file().stat().map_err(&reading)?.size_octets;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| rows[*at].offset);
    let mut recalled = vec![Recalled::Unknown; rows.len()];
    let (mut found, mut damaged) = (Vec::new(), None);
    for at in order.iter().copied() {
        let row = &rows[at];
        // A reader may have put another file in its place. And at the end of the file, or beyond it, there is nothing:
        // it was never written, or a reader took it.
        if locked.place != row.place || size <= row.offset {
            continue;
        }
        if size >= row.end() && digest(locked.file(), row.offset, row.end()).map_err(&reading)? == row.digest {
            recalled[at] = Recalled::Delivered { detail: format!("{} at {}", Escaped::text(&row.path), row.offset) };
            found.push((row.offset, row.end()));
        } else if damaged.is_none() {
            damaged = Some(at);
        }
    }
    if let Some(first) = damaged
        && is_ours(locked.file(), rows, &order, first, size).map_err(&reading)?
    {
        let offset = rows[first].offset;
        let cut = locked.file_mut().truncate(offset).and_then(|()| locked.file_mut().sync());
        cut.map_err(fail.clone()("cutting the mailbox back"))?;
        for at in order.into_iter().filter(|at| rows[*at].offset >= offset && rows[*at].place == locked.place) {
            recalled[at] = Recalled::Absent;
        }
        found.retain(|(_, end)| *end <= offset);
    }
    if !found.is_empty() {
        // Whoever wrote it may have died of a sync that failed: then another one that succeeds says nothing. Written once
        // more, it is synced.
        for (from, to) in found {
            rewrite(locked.file_mut(), from, to).map_err(fail.clone()("writing to the mailbox"))?;
        }
        locked.file_mut().sync().map_err(fail.clone()("syncing the mailbox"))?;
        sync_directory(locked).map_err(fail("syncing the mailbox's directory"))?;
    }
    Ok(recalled)
}

/// Whether everything from a damaged message to the end of the file is what a crash left of these messages, and nobody
/// else has written since: nothing is behind where they would end, and it begins like the damaged one, as far as it is not
/// zeros, which a file system may put where octets did not reach the disk.
fn is_ours(file: &dyn DiskFile, rows: &[Row], order: &[usize], first: usize, size: u64) -> io::Result<bool> {
    let row = &rows[first];
    let mut end = row.end();
    for next in order.iter().map(|at| &rows[*at]).filter(|next| next.place == row.place && next.offset > row.offset) {
        if next.offset != end {
            break;
        }
        end = next.end();
    }
    if size > end {
        return Ok(false);
    }
    let there = usize::try_from(size.min(row.end()) - row.offset).unwrap_or(FRONT).min(FRONT);
    let mut front = vec![0; there];
    read_exact_at(file, &mut front, row.offset)?;
    // Up to here there is something.
    let something = front.iter().rposition(|octet| *octet != 0).map_or(0, |at| at + 1);
    let begins = hex(&front[..something.min(BEGINNING)]);
    let id = row.id.as_bytes();
    let id_at = usize::try_from(row.id_at).unwrap_or(FRONT);
    let has_id = front.get(id_at..something).is_none_or(|rest| {
        let seen = rest.len().min(id.len());
        rest[..seen] == id[..seen]
    });
    Ok(row.beginning.starts_with(&begins) && has_id)
}

impl Row {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Writes what is there.
fn rewrite(file: &mut dyn DiskFile, mut at: u64, to: u64) -> io::Result<()> {
    let mut block = vec![0; local::BLOCK];
    while at < to {
        pool::beat();
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(block.len());
        read_exact_at(file, &mut block[..wanted], at)?;
        write_all_at(file, &block[..wanted], at)?;
        at += wanted as u64;
    }
    Ok(())
}

fn digest(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<String> {
    let (mut digest, mut at, mut block) = (Sha256::new(), from, vec![0; local::BLOCK]);
    while at < to {
        pool::beat();
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(block.len());
        read_exact_at(file, &mut block[..wanted], at)?;
        digest.update(&block[..wanted]);
        at += wanted as u64;
    }
    Ok(hex(&digest.finalize()))
}

fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_all_at(file: &mut dyn DiskFile, mut octets: &[u8], mut offset: u64) -> io::Result<()> {
    while !octets.is_empty() {
        match file.write_at(octets, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                octets = &octets[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
