//! A parcel as local files and programs get it: our fields, then the body, with LF.

use std::io;

use connectord_delivery::{Failure, FailureKind, Parcel};
use connectord_mail::{Digested, LineEnds};
use connectord_wire::Escaped;

use crate::{pool, trouble};

/// Octets read from a body, and written, at once.
pub(crate) const BLOCK: usize = 128 * 1024;

/// A body of up to so many octets is copied behind its trace, so that both are one write.
const SMALL: usize = 16 * 1024;

/// Buffers of one thread, used again for each message.
pub(crate) struct Buffers {
    block: Vec<u8>,
    out: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { block: Vec::new(), out: Vec::with_capacity(2 * BLOCK) }
    }
}

/// Why a message could not be written.
pub(crate) enum Broken {
    /// The body could not be read.
    Body(io::Error),
    /// The body is not as long as it says.
    Length { found: u64, wanted: u64 },
    /// The file could not be written.
    File(io::Error),
}

impl Broken {
    /// The failure, when the message was to go to `path`.
    pub(crate) fn failure(&self, path: &str) -> Failure {
        let shown = Escaped::text(path);
        let text = match self {
            Self::File(error) => return trouble::failure("writing the message", path, error),
            Self::Body(error) => format!("{error} (during reading the message for {shown})"),
            Self::Length { found, wanted } => {
                format!("the message has {found} octets where {wanted} were announced (during writing it to {shown})")
            }
        };
        Failure::new(FailureKind::Transient, text)
    }
}

/// Hands a message to `put` piece by piece: `Return-Path`, `Delivered-To`, the trace, the body.
///
/// Of the body CRLF becomes LF; every other octet stays. A small message is one piece.
pub(crate) fn copy(
    parcel: &Parcel,
    buffers: &mut Buffers,
    put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Broken> {
    copy_digested(parcel, buffers, &mut |piece, _| put(piece)).map(drop)
}

/// The same; with each piece comes how many of its octets lie before what the body says it was digested from, and in
/// the end where that begins. Nothing begins where the body says nothing.
pub(crate) fn copy_digested(
    parcel: &Parcel,
    buffers: &mut Buffers,
    put: &mut dyn FnMut(&[u8], usize) -> io::Result<()>,
) -> Result<Option<(u64, [u8; 32])>, Broken> {
    let Buffers { block, out } = buffers;
    out.clear();
    head(parcel, out);
    let digested = parcel.body.digested();
    let (wanted, is_plain) = (parcel.body.size_octets(), parcel.body.line_feeds().is_some());
    if let (true, Some(whole)) = (is_plain, parcel.body.as_slice()) {
        let found = whole.len() as u64;
        if found != wanted {
            return Err(Broken::Length { found, wanted });
        }
        return copy_plain(whole, digested, out, put).map_err(Broken::File);
    }
    let mut copying = Copying { put, is_plain, line_ends: LineEnds::default(), done: 0, begins: None };
    let mut from = digested.map(|digested| digested.from);
    let mut found = 0u64;
    loop {
        // Up to where the digest begins, and then the rest: the two have an edge in the file.
        if from == Some(found) {
            copying.mark(out);
            from = None;
        }
        let most = from.and_then(|from| usize::try_from(from - found).ok()).map_or(BLOCK, |left| left.min(BLOCK));
        let count = if let Some(whole) = parcel.body.as_slice() {
            let rest = usize::try_from(found).ok().and_then(|at| whole.get(at..)).unwrap_or_default();
            let piece = &rest[..rest.len().min(most)];
            copying.take(piece, out)?;
            piece.len()
        } else {
            block.resize(BLOCK, 0);
            match parcel.body.read_at(found, &mut block[..most]) {
                Ok(count) => {
                    copying.take(&block[..count], out)?;
                    count
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::Body(error)),
            }
        };
        if count == 0 {
            break;
        }
        found += count as u64;
    }
    if found != wanted {
        return Err(Broken::Length { found, wanted });
    }
    copying.line_ends.finish(out);
    pool::beat();
    copying.put(out).map_err(Broken::File)?;
    Ok(copying.begins.zip(digested.map(|digested| digested.sha256)))
}

/// A body that is in memory and has LF already needs no copying, unless it is so small that a write costs more.
fn copy_plain(
    whole: &[u8],
    digested: Option<Digested>,
    out: &mut Vec<u8>,
    put: &mut dyn FnMut(&[u8], usize) -> io::Result<()>,
) -> io::Result<Option<(u64, [u8; 32])>> {
    let from = digested.map_or(whole.len(), |digested| usize::try_from(digested.from).unwrap_or(usize::MAX));
    let from = from.min(whole.len());
    let begins = out.len() + from;
    pool::beat();
    if whole.len() <= SMALL {
        out.extend_from_slice(whole);
        put(out, begins)?;
    } else {
        put(out, out.len())?;
        for (nth, piece) in whole.chunks(BLOCK).enumerate() {
            pool::beat();
            put(piece, from.saturating_sub(nth * BLOCK).min(piece.len()))?;
        }
    }
    Ok(digested.map(|digested| (begins as u64, digested.sha256)))
}

/// A message on its way to `put`.
struct Copying<'a> {
    put: &'a mut dyn FnMut(&[u8], usize) -> io::Result<()>,
    /// The line ends are LF already.
    is_plain: bool,
    line_ends: LineEnds,
    /// Octets that were put.
    done: u64,
    /// Octets in front of what was digested.
    begins: Option<u64>,
}

impl Copying<'_> {
    fn take(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        pool::beat();
        if self.is_plain {
            out.extend_from_slice(piece);
        } else {
            self.line_ends.push(piece, out);
        }
        if out.len() >= BLOCK {
            self.put(out).map_err(Broken::File)?;
            out.clear();
        }
        Ok(())
    }

    fn put(&mut self, out: &[u8]) -> io::Result<()> {
        let own = self.begins.map_or(u64::MAX, |begins| begins.saturating_sub(self.done));
        let own = usize::try_from(own).unwrap_or(usize::MAX).min(out.len());
        (self.put)(out, own)?;
        self.done += out.len() as u64;
        Ok(())
    }

    /// What was digested begins here. Where a CR is held back it is not known yet to which side that belongs.
    fn mark(&mut self, out: &[u8]) {
        if !self.line_ends.holds_cr() {
            self.begins = Some(self.done + out.len() as u64);
        }
    }
}

/// The fields that are the destination's, then the trace; with LF.
fn head(parcel: &Parcel, out: &mut Vec<u8>) {
    // No control character of a recovered sender may end the field.
    let printable = |text: &str, out: &mut Vec<u8>| out.extend(text.bytes().filter(|o| !o.is_ascii_control()));
    out.extend_from_slice(b"Return-Path: <");
    printable(&parcel.reverse_path, out);
    out.extend_from_slice(b">\nDelivered-To: ");
    printable(&parcel.recipient.address, out);
    out.push(b'\n');
    let mut line_ends = LineEnds::default();
    line_ends.push(&parcel.trace, out);
    line_ends.finish(out);
}
