//! The two locks of a mailbox.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connectord_delivery::{Failure, FailureKind};
use connectord_wire::Escaped;
use rustix::io::Errno;

use crate::maildir::{Disk, DiskDir, DiskFile};
use crate::pool::{Place, Writer};
use crate::{DiskPool, trouble};

/// A mailbox that is ours until this is dropped.
pub(super) struct Locked {
    held: Option<Held>,
    /// Device and inode.
    pub(super) place: Place,
    /// Whether the file was made just now.
    pub(super) made: bool,
    pub(super) path: String,
    /// Its directory.
    pub(super) above: Arc<dyn DiskDir>,
    pub(super) means: Means,
}

/// What every mailbox needs.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pool: DiskPool,
    /// Mailboxes whose directories this process has synced.
    pub(super) synced: Arc<Mutex<HashSet<Place>>>,
}

/// Given back in this order. The fcntl lock goes with the file, and goes when any descriptor of the file is closed: so
/// before the next one of us may open it.
struct Held {
    file: Box<dyn DiskFile>,
    _dotlock: DotLock,
    _writer: Option<Writer>,
}

impl Locked {
    pub(super) fn file(&self) -> &dyn DiskFile {
        &*self.held.as_ref().expect("held until it is dropped").file
    }

    pub(super) fn file_mut(&mut self) -> &mut dyn DiskFile {
        &mut *self.held.as_mut().expect("held until it is dropped").file
    }

    /// The file's name in its directory.
    pub(super) fn name(&self) -> &str {
        name_of(&self.path)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Off the async threads, which may be where this happens.
        let held = self.held.take();
        self.means.pool.submit(&self.path, move || drop(held));
    }
}

struct DotLock {
    above: Arc<dyn DiskDir>,
    name: String,
    place: Place,
}

impl Drop for DotLock {
    fn drop(&mut self) {
        // If somebody thought it stale, another one is in its place by now. If it stays, it is found stale later.
        if self.above.stat_of(&self.name).is_ok_and(|now| now.place == self.place) {
            let _ = self.above.unlink(&self.name);
        }
    }
}

pub(super) fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The directory of a mailbox, for what is in it.
pub(super) fn above(disk: &dyn Disk, path: &str) -> io::Result<Arc<dyn DiskDir>> {
    disk.pass_dir(crate::maildir::parent(Path::new(path)))
}

/// Tries both locks once; `None` when somebody else has one of them. The writer goes into what is locked.
pub(super) fn try_lock(
    path: &str,
    stale: Duration,
    writer: &Mutex<Option<Writer>>,
    means: Means,
) -> Result<Option<Locked>, Failure> {
    let fail = |during| move |error: io::Error| trouble::failure(during, path, &error);
    let above = above(&*means.disk, path).map_err(fail("opening the mailbox's directory"))?;
    let lock_name = format!("{}.lock", name_of(path));
    let dotlock = try_dotlock(&*means.disk, &above, &lock_name, stale).map_err(fail("making the lock file"))?;
    let Some(dotlock) = dotlock else { return Ok(None) };
    let (file, made) = open(&*above, name_of(path)).map_err(fail("opening the mailbox"))?;
    let stat = file.stat().map_err(fail("looking at the mailbox"))?;
    if !stat.is_file {
        let text = format!("{} is not a file", Escaped::text(path));
        return Err(Failure::new(FailureKind::Misconfigured, text));
    }
    if !file.try_lock().map_err(fail("locking the mailbox"))? {
        return Ok(None);
    }
    // A reader may have put another file in its place meanwhile.
    if !above.stat_of(name_of(path)).is_ok_and(|now| now.place == stat.place) {
        return Ok(None);
    }
    let writer = writer.lock().unwrap_or_else(PoisonError::into_inner).take();
    let held = Some(Held { file, _dotlock: dotlock, _writer: writer });
    Ok(Some(Locked { held, place: stat.place, made, path: path.to_owned(), above, means }))
}

/// Opens a mailbox for reading and writing, or makes it.
fn open(above: &dyn DiskDir, name: &str) -> io::Result<(Box<dyn DiskFile>, bool)> {
    match above.open_update(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match above.create_new(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((above.open_update(name)?, false)),
            other => Ok((other?, true)),
        },
        other => Ok((other?, false)),
    }
}

/// The failure when the locks were not to be had.
pub(super) fn busy(path: &str, waited: Duration) -> Failure {
    let path = Escaped::text(path);
    let text = format!("the mailbox {path} was locked by another program for {} s", waited.as_secs());
    Failure::new(FailureKind::Transient, text)
}

fn try_dotlock(disk: &dyn Disk, above: &Arc<dyn DiskDir>, name: &str, stale: Duration) -> io::Result<Option<DotLock>> {
    match above.stat_of(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if is_stale(disk, &**above, name, found.modified.0, stale) => above.unlink(name)?,
        Ok(_) => return Ok(None),
    }
    // It gets its name when it says whose it is: a process that is killed leaves none that nobody can tell.
    let owner = disk.owner();
    let mut hasher = DefaultHasher::new();
    owner.hash(&mut hasher);
    let unnamed = format!(".{name}.{:016x}", hasher.finish());
    let mut file = match above.create_new(&unnamed) {
        // Nobody else has this name: an earlier attempt of ours left it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            above.unlink(&unnamed)?;
            above.create_new(&unnamed)?
        }
        other => other?,
    };
    let locked = write_all(&mut *file, owner.as_bytes())
        // Others may see whose it is.
        .and_then(|()| file.set_group_and_mode(None, 0o444))
        .and_then(|()| Ok(file.stat()?.place))
        .and_then(|place| above.rename_into(&unnamed, &**above, name).map(|()| place));
    match locked {
        Ok(place) => Ok(Some(DotLock { above: Arc::clone(above), name: name.to_owned(), place })),
        Err(error) => {
            // If it stays, the next attempt removes it.
            let _ = above.unlink(&unnamed);
            if error.kind() == io::ErrorKind::AlreadyExists { Ok(None) } else { Err(error) }
        }
    }
}

fn write_all(file: &mut dyn DiskFile, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        match file.write(octets) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => octets = &octets[count..],
            Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a lock file was left behind: it is old, or it is ours and its process is no more.
fn is_stale(disk: &dyn Disk, above: &dyn DiskDir, name: &str, modified: i64, stale: Duration) -> bool {
    let age = disk.now().0.checked_sub(modified).and_then(|age| u64::try_from(age).ok());
    if age.is_some_and(|age| age >= stale.as_secs().max(1)) {
        return true;
    }
    let mut text = [0; 256];
    let read = above.open_file(name).and_then(|mut file| file.read(&mut text));
    let text = read.ok().and_then(|count| std::str::from_utf8(&text[..count]).ok());
    text.is_some_and(|text| disk.is_gone(text))
}
