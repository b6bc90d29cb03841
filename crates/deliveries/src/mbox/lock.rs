//! The two locks of a mailbox.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use connectord_delivery::{Failure, FailureKind};
use connectord_wire::Escaped;
use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock, open as open_file};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::pool::{Place, Writer};
use crate::{DiskPool, trouble};

/// An open mailbox.
struct Opened {
    file: File,
    place: Place,
    made: bool,
}

/// A mailbox that is ours until this is dropped.
pub(super) struct Locked {
    pub(super) file: File,
    pub(super) place: Place,
    /// Whether the file was made just now: then its directory is synced as well.
    pub(super) made: bool,
    pub(super) path: String,
    // Given back in this order: the file above, with it the fcntl lock; the lock file; our own.
    dotlock: Option<DotLock>,
    writer: Option<Writer>,
    pool: DiskPool,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Off the async threads, which may be where this happens.
        let (dotlock, writer) = (self.dotlock.take(), self.writer.take());
        self.pool.submit(move || {
            drop(dotlock);
            drop(writer);
        });
    }
}

struct DotLock(String);

impl Drop for DotLock {
    fn drop(&mut self) {
        // If it stays, it is found stale later.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Tries both locks once; `None` when somebody else has one of them. The writer goes into what is locked.
pub(super) fn try_lock(
    path: &str,
    stale: Duration,
    writer: &Mutex<Option<Writer>>,
    pool: DiskPool,
) -> Result<Option<Locked>, Failure> {
    let fail = |during, error: io::Error| trouble::failure(during, path, &error);
    let lock_path = format!("{path}.lock");
    let Some(dotlock) = try_dotlock(&lock_path, stale).map_err(|error| fail("making the lock file", error))? else {
        return Ok(None);
    };
    let Opened { file, place, made } = open(path)?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::ACCESS | Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(fail("locking the mailbox", error.into())),
    }
    // A reader may have put another file in its place meanwhile.
    let same = std::fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == place);
    if !same {
        return Ok(None);
    }
    let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(Some(Locked { file, place, made, path: path.to_owned(), dotlock: Some(dotlock), writer, pool }))
}

/// Opens a mailbox for reading and writing, or makes it.
fn open(path: &str) -> Result<Opened, Failure> {
    let fail = |error: io::Error| trouble::failure("opening the mailbox", path, &error);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let (file, made) = match open_file(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            let new = flags | OFlags::CREATE | OFlags::EXCL;
            match open_file(path, new, Mode::from_raw_mode(0o600)) {
                Err(Errno::EXIST) => (open_file(path, flags, Mode::empty()), false),
                other => (other, true),
            }
        }
        other => (other, false),
    };
    let file = File::from(file.map_err(|error| fail(error.into()))?);
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() {
        let text = format!("{} is not a file", Escaped::text(path));
        return Err(Failure::new(FailureKind::Misconfigured, text));
    }
    Ok(Opened { place: (metadata.dev(), metadata.ino()), file, made })
}

/// The failure when the locks were not to be had.
pub(super) fn busy(path: &str, waited: Duration) -> Failure {
    let path = Escaped::text(path);
    let text = format!("the mailbox {path} was locked by another program for {} s", waited.as_secs());
    Failure::new(FailureKind::Transient, text)
}

fn try_dotlock(path: &str, stale: Duration) -> io::Result<Option<DotLock>> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match open_file(path, flags, Mode::from_raw_mode(0o444)) {
        Ok(file) => {
            let lock = DotLock(path.to_owned());
            File::from(file).write_all(format!("{}\n{}\n", std::process::id(), own_mark()).as_bytes())?;
            Ok(Some(lock))
        }
        Err(Errno::EXIST) => {
            if is_stale(Path::new(path), stale) {
                std::fs::remove_file(path)?;
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Which boot of which machine a process number in a lock file of ours belongs to.
fn own_mark() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("connectord {}", boot.trim())
}

/// Whether a lock file was left behind: it is old, or it is ours and its process is no more.
fn is_stale(path: &Path, stale: Duration) -> bool {
    let age = std::fs::symlink_metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok());
    if age.is_some_and(|age| age >= stale) {
        return true;
    }
    let mut text = String::new();
    if File::open(path).and_then(|file| file.take(256).read_to_string(&mut text)).is_err() {
        return false;
    }
    let mut lines = text.lines();
    let (pid, mark) = (lines.next().and_then(|line| line.parse().ok()).and_then(Pid::from_raw), lines.next());
    let dead = |pid| test_kill_process(pid) == Err(Errno::SRCH);
    mark == Some(&own_mark()) && pid.is_some_and(dead)
}
