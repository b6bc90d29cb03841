//! The directory and its files: each call blocks, and each may be made to fail by a test.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir as Entries, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, fsync, mkdirat, open,
    openat, renameat, unlinkat,
};
use rustix::io::Errno;

/// What is about to be asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file is made in `tmp/`.
    Create,
    /// Octets are written into it.
    Write,
    /// They are made durable.
    SyncFile,
    /// The file is renamed to where it belongs.
    Publish,
    /// The names of the directory are made durable.
    SyncDirectory,
    /// A name is removed.
    Remove,
}

/// Lets a test decide that a step fails, or that the process is as good as dead from there on.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>>);

impl Faults {
    /// Asked before each step; what it answers with is the step's error.
    pub fn new(ask: impl Fn(Step) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }

    fn before(&self, step: Step) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |ask| ask(step))
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faults({})", if self.0.is_some() { "some" } else { "none" })
    }
}

/// The open directory, locked: nobody else writes in it.
pub(crate) struct Dir {
    here: OwnedFd,
    tmp: OwnedFd,
    _lock: OwnedFd,
    faults: Faults,
}

/// Name of the file that is locked.
pub(crate) const LOCK: &str = "lock";

/// Name of the directory for what is being written.
pub(crate) const TMP: &str = "tmp";

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

impl Dir {
    /// Opens the directory, makes it when only it is missing, seals it from others, and takes its lock.
    ///
    /// `Ok(None)` when another process has the lock.
    pub(crate) fn open(path: &Path, faults: Faults) -> io::Result<Option<Self>> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) => sync_above(path)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let here = open(path, DIRECTORY, Mode::empty())?;
        seal(&here, path)?;
        let lock = openat(&here, LOCK, FILE.union(OFlags::CREATE).union(OFlags::RDWR), Mode::RUSR.union(Mode::WUSR))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        match mkdirat(&here, TMP, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let tmp = openat(&here, TMP, DIRECTORY, Mode::empty())?;
        Ok(Some(Self { here, tmp, _lock: lock, faults }))
    }

    /// The names in the directory.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        names(&self.here)
    }

    /// The names of what was being written when an earlier process ended.
    pub(crate) fn leftovers(&self) -> io::Result<Vec<String>> {
        names(&self.tmp)
    }

    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        open_file(&self.here, name)
    }

    /// Makes a file in `tmp/` that only we can read.
    pub(crate) fn create(&self, name: &str) -> io::Result<NewFile<'_>> {
        self.faults.before(Step::Create)?;
        let flags = FILE.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::WRONLY);
        let file = openat(&self.tmp, name, flags, Mode::RUSR.union(Mode::WUSR))?.into();
        Ok(NewFile { file, faults: &self.faults })
    }

    /// Moves a file from `tmp/` to its place, over one that is there.
    pub(crate) fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults.before(Step::Publish)?;
        Ok(renameat(&self.tmp, from, &self.here, to)?)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.faults.before(Step::SyncDirectory)?;
        Ok(fsync(&self.here)?)
    }

    /// Removes a file; one that is not there is removed.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.before(Step::Remove)?;
        unlink(&self.here, name)
    }

    pub(crate) fn remove_new(&self, name: &str) -> io::Result<()> {
        self.faults.before(Step::Remove)?;
        unlink(&self.tmp, name)
    }

    /// Writes a small file in place of the one of this name; durable when it returns.
    pub(crate) fn replace(&self, name: &str, part: &str, octets: &[u8]) -> io::Result<()> {
        let written = (|| {
            let mut file = self.create(part)?;
            file.write_all(octets)?;
            file.sync()?;
            self.publish(part, name)
        })();
        if let Err(error) = written {
            // It has no meaning there; what stays goes at the next start.
            let _ = self.remove_new(part);
            return Err(error);
        }
        self.sync()
    }
}

/// A file that is being written.
pub(crate) struct NewFile<'a> {
    file: File,
    faults: &'a Faults,
}

impl NewFile<'_> {
    pub(crate) fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        self.faults.before(Step::Write)?;
        self.file.write_all(octets)
    }

    /// Makes its octets durable. When this fails it is never asked again: a second sync that succeeds says nothing.
    pub(crate) fn sync(self) -> io::Result<()> {
        self.faults.before(Step::SyncFile)?;
        self.file.sync_all()
    }
}

/// Opens a file of a quarantine that another process may hold, for reading.
pub(crate) fn open_from_outside(path: &Path, name: &str) -> io::Result<File> {
    open_file(&open(path, DIRECTORY, Mode::empty())?, name)
}

fn open_file(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let file: File = openat(directory, name, FILE.union(OFlags::RDONLY), Mode::empty())?.into();
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(file)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Entries::read_from(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn unlink(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes the directory's own name durable.
fn sync_above(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    Ok(fsync(open(above, OFlags::DIRECTORY.union(OFlags::CLOEXEC), Mode::empty())?)?)
}

/// Mail that was kept back is nobody else's to read.
fn seal(here: &OwnedFd, path: &Path) -> io::Result<()> {
    let stat = fstat(here)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    if stat.st_mode & 0o077 != 0 {
        fchmod(here, Mode::RWXU)?;
        tracing::warn!(path = %path.display(), mode = format!("{:o}", stat.st_mode & 0o7777), "others could look into the \
            quarantine; it is sealed again");
    }
    Ok(())
}
