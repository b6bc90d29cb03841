//! Where bodies wait between retrieval and delivery: in memory within one global budget, else in a file without a name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connectord_mail::{Body, Digested};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::skim::{Seen, Skim, Whole};

/// A message of up to this many octets waits in memory, if the budget has room.
const MAX_IN_MEMORY: usize = 1024 * 1024;

/// How many octets a spool file is given at a time.
const WRITE: usize = 256 * 1024;

/// How long a write may take; a disk that takes longer hangs.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

/// Where bodies wait between retrieval and delivery.
///
/// A body needs no durability here: the remote copy is the spool. Up to 1 MiB it waits in memory, all bodies together
/// within a budget; what is larger, or finds no room, goes to a file that has no name and vanishes with the process.
/// Its line ends become LF on the way in, once for all who need them so; a destination that wants CRLF writes it anyway.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    budget: Arc<Semaphore>,
}

/// One unit of the budget.
const UNIT: usize = 1024;

impl Spool {
    /// Keeps files in `directory` (which must exist) and at most `budget_octets` in memory; default 64 MiB.
    pub fn new(directory: PathBuf, budget_octets: usize) -> Self {
        Self { directory, budget: Arc::new(Semaphore::new((budget_octets / UNIT).max(1))) }
    }

    /// Starts to collect a body that is expected to have so many octets; `digest` it as it comes, too.
    pub(crate) fn collect(&self, expected_octets: Option<u64>, digest: bool) -> Collector {
        let expected = expected_octets.and_then(|octets| usize::try_from(octets).ok()).unwrap_or(0);
        Collector {
            spool: self.clone(),
            memory: Vec::with_capacity(expected.min(MAX_IN_MEMORY)),
            permit: None,
            file: None,
            skim: Skim::default(),
            digest: digest.then(Sha256::new),
        }
    }

    fn create(&self) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags};
        // O_TMPFILE: no name, so nothing is left behind by a crash.
        match rustix::fs::open(&self.directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from(0o600)) {
            Ok(file) => Ok(file.into()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => {
                self.create_named()
            }
            Err(error) => Err(error.into()),
        }
    }

    fn create_named(&self) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.directory.join(format!("spool-{:016x}", crate::site::random()));
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }
}

/// A body that is still coming.
pub(crate) struct Collector {
    spool: Spool,
    /// All of it, or what the file has not got yet.
    memory: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
    file: Option<File>,
    skim: Skim,
    digest: Option<Sha256>,
}

/// A body that came whole.
pub(crate) struct Collected {
    pub(crate) body: Arc<dyn Body>,
    /// The header, at most [`connectord_mail::head::MAX_HEAD`] octets.
    pub(crate) head: Vec<u8>,
    /// What tells it from others.
    pub(crate) seen: Seen,
    /// Its length as it came.
    pub(crate) size_octets: u64,
    /// SHA-256 of the whole body, where it was asked for.
    pub(crate) digest: Option<[u8; 32]>,
}

impl Collector {
    /// Adds octets.
    pub(crate) async fn push(&mut self, octets: Bytes) -> io::Result<()> {
        if let Some(digest) = &mut self.digest {
            digest.update(&octets);
        }
        self.skim.push(&octets, &mut self.memory);
        let full = match &self.file {
            None => self.memory.len() > MAX_IN_MEMORY || !self.reserve(),
            Some(_) => self.memory.len() >= WRITE,
        };
        if full { self.spill().await } else { Ok(()) }
    }

    /// Ends the body.
    pub(crate) async fn finish(mut self) -> io::Result<Collected> {
        self.skim.end(&mut self.memory);
        if self.file.is_some() && !self.memory.is_empty() {
            self.spill().await?;
        }
        let digest = self.digest.map(|digest| digest.finalize().into());
        let Whole { seen, head, digested, size_octets, passed_octets, line_feeds } = self.skim.whole();
        let kept = match self.file {
            Some(file) => Kept::File(file),
            None => Kept::Memory { octets: self.memory, _permit: self.permit },
        };
        let body = Arc::new(KeptBody { kept, size_octets: passed_octets, line_feeds, digested });
        Ok(Collected { body, head, seen, size_octets, digest })
    }

    pub(crate) fn size_octets(&self) -> u64 {
        self.skim.size_octets()
    }

    /// Takes more of the budget, without waiting: accounts that wait for each other's memory would wait for ever.
    fn reserve(&mut self) -> bool {
        let needed = self.memory.len().div_ceil(UNIT);
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if needed <= held {
            return true;
        }
        let more = u32::try_from(needed - held).expect("at most MAX_IN_MEMORY / UNIT");
        match self.spool.budget.clone().try_acquire_many_owned(more) {
            Ok(permit) => {
                match &mut self.permit {
                    Some(held) => held.merge(permit),
                    None => self.permit = Some(permit),
                }
                true
            }
            Err(_) => false,
        }
    }

    async fn spill(&mut self) -> io::Result<()> {
        let (spool, file) = (self.spool.clone(), self.file.take());
        let octets = std::mem::take(&mut self.memory);
        self.permit = None;
        let written = tokio::task::spawn_blocking(move || {
            use std::io::Write;
            let mut file = match file {
                Some(file) => file,
                None => spool.create()?,
            };
            file.write_all(&octets)?;
            Ok::<_, io::Error>(file)
        });
        let written = tokio::time::timeout(WRITE_WITHIN, written).await.map_err(|_| io::ErrorKind::TimedOut)?;
        self.file = Some(written.map_err(io::Error::other)??);
        Ok(())
    }
}

/// A body with LF, in memory or in a file.
struct KeptBody {
    kept: Kept,
    size_octets: u64,
    line_feeds: u64,
    digested: Digested,
}

enum Kept {
    Memory { octets: Vec<u8>, _permit: Option<OwnedSemaphorePermit> },
    File(File),
}

impl Body for KeptBody {
    fn size_octets(&self) -> u64 {
        self.size_octets
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.kept {
            Kept::File(file) => file.read_at(buffer, offset),
            Kept::Memory { octets, .. } => {
                let rest = usize::try_from(offset).ok().and_then(|at| octets.get(at..)).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
        }
    }

    fn as_slice(&self) -> Option<&[u8]> {
        match &self.kept {
            Kept::Memory { octets, .. } => Some(octets),
            Kept::File(_) => None,
        }
    }

    fn line_feeds(&self) -> Option<u64> {
        Some(self.line_feeds)
    }

    fn digested(&self) -> Option<Digested> {
        Some(self.digested)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collected(spool: &Spool, pieces: &[&[u8]]) -> Collected {
        let mut collector = spool.collect(None, true);
        for piece in pieces {
            collector.push(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        collector.finish().await.unwrap()
    }

    fn octets(body: &dyn Body) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(body.size_octets()).unwrap()];
        let mut at = 0;
        while at < out.len() {
            at += body.read_at(at as u64, &mut out[at..]).unwrap();
        }
        out
    }

    #[tokio::test]
    async fn small_bodies_stay_in_memory_and_give_their_room_back() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().into(), 8 * 1024);
        let one = collected(&spool, &[b"A: 1\r\n\r", b"\nbody"]).await;
        assert_eq!(one.body.as_slice(), Some(&b"A: 1\n\nbody"[..]));
        assert_eq!((one.body.line_feeds(), one.size_octets), (Some(2), 12));
        assert_eq!(one.head, b"A: 1\r\n\r\n");
        assert_eq!(spool.budget.available_permits(), 7);
        drop(one);
        assert_eq!(spool.budget.available_permits(), 8);
    }

    #[tokio::test]
    async fn what_finds_no_room_goes_to_a_file_without_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().into(), 2 * 1024);
        let piece = vec![b'x'; 1500];
        let body = collected(&spool, &[&piece, &piece, b"end"]).await;
        assert_eq!(body.body.as_slice(), None);
        assert_eq!(octets(&*body.body), [&piece[..], &piece, b"end"].concat());
        assert_eq!(body.digest, Some(Sha256::digest(octets(&*body.body)).into()));
        assert_eq!(spool.budget.available_permits(), 2);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
