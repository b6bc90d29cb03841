//! One file in `tmp/`: octets, mode, time, sync.

use std::io;

use connectord_delivery::{Failure, Parcel};
use sha2::{Digest, Sha256};

use super::disk::{DiskDir, DiskFile};
use super::shelf::Shelf;
use crate::local::{self, Buffers};
use crate::{pool, trouble};

/// What is known of a file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) size_octets: u64,
    /// The size with every line end as CRLF, as Dovecot counts it.
    pub(super) crlf_octets: u64,
    pub(super) digest: Digest256,
}

/// SHA-256 of a file: of all of it, or of its beginning and the digest of the rest, which was known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest256 {
    /// In hexadecimal.
    pub(super) hex: String,
    /// Where the rest begins, if it was digested apart.
    pub(super) rest_from: Option<u64>,
}

/// Writes and syncs `tmp/<name>`. On failure the file may be there, whole or not.
pub(super) fn write(shelf: &Shelf, name: &str, parcel: &Parcel, buffers: &mut Buffers) -> Result<Written, Failure> {
    let path = || format!("{}/tmp/{name}", shelf.path);
    let fail = |during, error: io::Error| trouble::failure(during, &path(), &error);
    let mut file = match shelf.tmp.create_new(name) {
        // Nobody else gives this name: it is ours, from an attempt that was cut short.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            shelf.tmp.unlink(name).and_then(|()| shelf.tmp.create_new(name))
        }
        other => other,
    }
    .map_err(|error| fail("making the file", error))?;

    let mut sink = Sink::new(&mut *file);
    let known = local::copy_digested(parcel, buffers, &mut |piece, own| sink.put(piece, own));
    let written = sink.finish(known.map_err(|broken| broken.failure(&path()))?);

    pool::beat();
    set_owner(shelf, &mut *file).map_err(|error| fail("setting the mode of the file", error))?;
    if let Some(time) = parcel.arrived_at {
        file.set_modified(time).map_err(|error| fail("setting the time of the file", error))?;
    }
    pool::beat();
    file.sync().map_err(|error| fail("syncing the file", error))?;
    pool::beat();
    Ok(written)
}

/// Whether a file that is there has this size and digest.
pub(super) fn is(dir: &dyn DiskDir, name: &str, size_octets: u64, wanted: &Digest256) -> io::Result<bool> {
    let mut file = dir.open_file(name)?;
    let (mut digest, mut rest) = (Sha256::new(), wanted.rest_from.map(|_| Sha256::new()));
    let (mut size, mut block) = (0u64, vec![0; local::BLOCK]);
    loop {
        match file.read(&mut block) {
            Ok(0) => {
                if let Some(rest) = rest {
                    digest.update(rest.finalize());
                }
                return Ok(size == size_octets && hex(&digest.finalize()) == wanted.hex);
            }
            Ok(count) => {
                pool::beat();
                let left = wanted.rest_from.map_or(u64::MAX, |from| from.saturating_sub(size));
                let own = usize::try_from(left).unwrap_or(usize::MAX).min(count);
                digest.update(&block[..own]);
                if let Some(rest) = &mut rest {
                    rest.update(&block[own..count]);
                }
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn set_owner(shelf: &Shelf, file: &mut dyn DiskFile) -> io::Result<()> {
    let stat = file.stat()?;
    let group = (stat.group != shelf.group).then_some(shelf.group);
    if group.is_none() && stat.mode == shelf.file_mode {
        return Ok(());
    }
    match file.set_group_and_mode(group, shelf.file_mode) {
        // Not a member of the directory's group: then the group's permissions would be for a group that is not meant.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => file.set_group_and_mode(None, 0o600),
        other => other,
    }
}

/// Writes, counts and digests.
struct Sink<'a> {
    file: &'a mut dyn DiskFile,
    digest: Sha256,
    size_octets: u64,
    bare_lf: u64,
    after_cr: bool,
}

impl<'a> Sink<'a> {
    fn new(file: &'a mut dyn DiskFile) -> Self {
        Self { file, digest: Sha256::new(), size_octets: 0, bare_lf: 0, after_cr: false }
    }

    /// Of the piece `own` octets are to be digested.
    fn put(&mut self, piece: &[u8], own: usize) -> io::Result<()> {
        let mut rest = piece;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.digest.update(&piece[..own]);
        self.size_octets += piece.len() as u64;
        let crlf = memchr::memchr_iter(b'\r', piece).filter(|at| piece.get(at + 1) == Some(&b'\n')).count();
        let crlf = crlf + usize::from(self.after_cr && piece.first() == Some(&b'\n'));
        self.bare_lf += (memchr::memchr_iter(b'\n', piece).count() - crlf) as u64;
        self.after_cr = piece.last().map_or(self.after_cr, |last| *last == b'\r');
        Ok(())
    }

    /// `known` is where the octets begin that were not to be digested, and their digest.
    fn finish(mut self, known: Option<(u64, [u8; 32])>) -> Written {
        if let Some((_, rest)) = known {
            self.digest.update(rest);
        }
        Written {
            size_octets: self.size_octets,
            crlf_octets: self.size_octets + self.bare_lf,
            digest: Digest256 { hex: hex(&self.digest.finalize()), rest_from: known.map(|(from, _)| from) },
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    octets.iter().flat_map(|o| [DIGITS[usize::from(o >> 4)], DIGITS[usize::from(o & 15)]]).map(char::from).collect()
}
