//! Where messages will be in a mailbox, putting them there, and finding them again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use connectord_delivery::{Failure, FailureKind, Note, Outcome, Parcel, Recalled};
use connectord_wire::Escaped;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::lock::Locked;
use super::quote::{Quoter, from_line};
use crate::local::{self, Broken, Buffers};
use crate::maildir::{Disk, RealDisk, hex};
use crate::trouble;

/// Octets at the beginning of a message that are noted, so that a message cut short by a crash is known as ours.
const BEGINNING: usize = 96;

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
    let mut offset = locked.file.metadata().map_err(fail)?.len();
    let mut gap = gap(&locked.file, offset).map_err(fail)?;
    let now = RealDisk.now();
    let mut buffers = Buffers::default();
    let (mut planned, mut failed) = (Vec::new(), Vec::new());
    for (place, parcel) in parcels {
        let mut head = gap.to_vec();
        head.extend(from_line(&parcel.reverse_path, parcel.arrived_at.unwrap_or(now)).bytes());
        let (mut digest, mut length, mut beginning) = (Sha256::new(), 0u64, Vec::new());
        let measured = message(&parcel, &head, &mut buffers, &mut |piece| {
            digest.update(piece);
            length += piece.len() as u64;
            let room = BEGINNING - beginning.len();
            beginning.extend_from_slice(&piece[..piece.len().min(room)]);
            Ok(())
        });
        match measured {
            Ok(()) => {
                let row = Row {
                    path: locked.path.clone(),
                    place: locked.place,
                    offset,
                    length,
                    digest: hex(&digest.finalize()),
                    beginning: hex(&beginning),
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
fn gap(file: &File, size: u64) -> io::Result<&'static [u8]> {
    let mut end = [b'\n'; 2];
    let from = size.saturating_sub(2);
    let count = usize::try_from(size - from).unwrap_or(2);
    file.read_exact_at(&mut end[2 - count..], from)?;
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
pub(super) fn append(locked: Locked, planned: Vec<(usize, Planned)>) -> Vec<(usize, Outcome)> {
    let Some(start) = planned.first().map(|(_, planned)| planned.row.offset) else { return Vec::new() };
    let (mut at, mut buffers) = (start, Buffers::default());
    let mut full: Option<Failure> = None;
    let mut appended: Vec<_> = planned
        .into_iter()
        .map(|(place, planned)| {
            if let Some(failure) = &full {
                return (place, Err(failure.clone()));
            }
            let mut end = at;
            let written = message(&planned.parcel, &planned.head, &mut buffers, &mut |piece| {
                locked.file.write_all_at(piece, end)?;
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
    let whole = if appended.iter().any(|(_, result)| result.is_err()) { locked.file.set_len(at) } else { Ok(()) };
    let synced = whole.and_then(|()| locked.file.sync_all()).and_then(|()| sync_directory(&locked));
    if let Err(error) = synced {
        let failure = trouble::failure("syncing the mailbox", &locked.path, &error);
        let cut = locked.file.set_len(start).and_then(|()| locked.file.sync_all()).is_ok();
        return appended
            .drain(..)
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

fn sync_directory(locked: &Locked) -> io::Result<()> {
    if locked.made { File::open(crate::maildir::parent(Path::new(&locked.path)))?.sync_all() } else { Ok(()) }
}

/// Looks whether a message is where it was to be; the beginning of one that was cut short by a crash is cut off.
pub(super) fn recall(locked: &Locked, row: &Row) -> Result<Recalled, Failure> {
    let fail = |during, error| trouble::failure(during, &row.path, &error);
    if locked.place != row.place {
        return Ok(Recalled::Unknown);
    }
    let size = locked.file.metadata().map_err(|error| fail("reading the mailbox", error))?.len();
    if size <= row.offset {
        // Never written, or a reader took it.
        return Ok(Recalled::Unknown);
    }
    let end = row.offset.saturating_add(row.length);
    let there = read(&locked.file, row.offset, end.min(size)).map_err(|error| fail("reading the mailbox", error))?;
    if size >= end && there.digest == row.digest {
        locked.file.sync_all().map_err(|error| fail("syncing the mailbox", error))?;
        return Ok(Recalled::Delivered { detail: format!("{} at {}", Escaped::text(&row.path), row.offset) });
    }
    // Shorter than the message, and begins like it: nobody else has written since.
    if size < end && row.beginning.starts_with(&there.beginning) {
        let cut = locked.file.set_len(row.offset).and_then(|()| locked.file.sync_all());
        return cut.map(|()| Recalled::Absent).map_err(|error| fail("cutting the mailbox back", error));
    }
    Ok(Recalled::Unknown)
}

struct Read {
    digest: String,
    beginning: String,
}

fn read(file: &File, from: u64, to: u64) -> io::Result<Read> {
    let (mut digest, mut at, mut block, mut beginning) = (Sha256::new(), from, vec![0; local::BLOCK], String::new());
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(block.len());
        file.read_exact_at(&mut block[..wanted], at)?;
        if at == from {
            beginning = hex(&block[..wanted.min(BEGINNING)]);
        }
        digest.update(&block[..wanted]);
        at += wanted as u64;
    }
    Ok(Read { digest: hex(&digest.finalize()), beginning })
}
