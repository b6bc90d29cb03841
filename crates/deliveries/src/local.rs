//! A parcel as local files and programs get it: our fields, then the body, with LF.

use std::io;

use connectord_delivery::{Failure, FailureKind, Parcel};
use connectord_mail::LineEnds;
use connectord_wire::Escaped;

use crate::{pool, trouble};

/// Octets read from a body, and written, at once.
pub(crate) const BLOCK: usize = 128 * 1024;

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
    let Buffers { block, out } = buffers;
    out.clear();
    head(parcel, out);
    let mut line_ends = LineEnds::default();
    let mut take = |piece: &[u8], out: &mut Vec<u8>| {
        pool::beat();
        line_ends.push(piece, out);
        if out.len() >= BLOCK {
            put(out).map_err(Broken::File)?;
            out.clear();
        }
        Ok(())
    };
    let mut found = 0u64;
    if let Some(whole) = parcel.body.as_slice() {
        for piece in whole.chunks(BLOCK) {
            take(piece, out)?;
        }
        found = whole.len() as u64;
    } else {
        block.resize(BLOCK, 0);
        loop {
            match parcel.body.read_at(found, block) {
                Ok(0) => break,
                Ok(count) => {
                    take(&block[..count], out)?;
                    found += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Body(error)),
            }
        }
    }
    let wanted = parcel.body.size_octets();
    if found != wanted {
        return Err(Broken::Length { found, wanted });
    }
    line_ends.finish(out);
    pool::beat();
    put(out).map_err(Broken::File)
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
