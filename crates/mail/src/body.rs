use std::io;

use bytes::Bytes;

/// The octets of one message, wherever they are kept: as they are on the server, or with every CRLF as LF.
///
/// Read by position and never as one slice: a message may be larger than memory. Implementations that read files live
/// above this level.
pub trait Body: Send + Sync {
    /// Length in octets.
    fn size_octets(&self) -> u64;

    /// Fills `buffer` from `offset` on and returns how many octets were read; 0 only at or beyond the end.
    ///
    /// # Errors
    /// What the storage says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The whole body when it is in memory anyway, so that nobody copies it without need.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }

    /// How many LF it has, where every CRLF that came has become one; `None` where the line ends are as they came.
    ///
    /// What is left as CRLF then was CR CR LF, and stays.
    fn line_feeds(&self) -> Option<u64> {
        None
    }

    /// Length in octets with every LF as CRLF; without [`Body::line_feeds`] as it came.
    fn crlf_octets(&self) -> u64 {
        self.size_octets().saturating_add(self.line_feeds().unwrap_or(0))
    }

    /// What was digested of it on its way, so that nobody who needs a digest does so again.
    fn digested(&self) -> Option<Digested> {
        None
    }
}

/// The digest of a message's octets from somewhere on to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digested {
    /// Where it begins, in octets of the message: behind the header.
    pub from: u64,
    /// SHA-256 with every CRLF as LF, as [`crate::LineEnds`] makes them; of nothing when nothing is there.
    pub sha256: [u8; 32],
}

impl Body for Bytes {
    fn size_octets(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn as_slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}
