//! The quarantine as a directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connectord_filter::{Held, Quarantine, QuarantineError};
use connectord_mail::{Body, DeliveryId, Head, UnixTime, head};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::dir::{self, Dir, Faults};
use crate::file::{self, BLOCK, FileBody, HeldBody, Opened, Unreadable};
use crate::index::{Entry, Index, Page, Query};
use crate::note::Note;
use crate::record::Header;

/// Jobs on the disk at once; one that hangs keeps its place.
const JOBS: usize = 8;

/// How much is kept, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long a message is kept; default 30 days. Zero is for ever.
    pub keep_for: Duration,
    /// Most octets of all files; default 1 GiB. Beyond that messages stay on their servers.
    pub max_octets: u64,
    /// Most messages; default 100,000.
    pub max_messages: usize,
    /// Longest wait for the disk; default 2 minutes.
    pub disk_timeout: Duration,
    /// For tests.
    #[doc(hidden)]
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_for: Duration::from_secs(30 * 24 * 3600),
            max_octets: 1 << 30,
            max_messages: 100_000,
            disk_timeout: Duration::from_secs(120),
            faults: Faults::default(),
        }
    }
}

/// Why a quarantine cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("the quarantine in {path} is in use by another process")]
    Locked {
        /// Where it is.
        path: String,
    },
    /// The directory cannot be made or used.
    #[error("the quarantine in {path} cannot be opened: {source}{hint}")]
    Directory {
        /// Where it is.
        path: String,
        /// What the system says.
        source: io::Error,
        /// What can be done.
        hint: &'static str,
    },
}

/// A file in the directory that is no message that can be used. It is left where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub why: Unreadable,
}

/// A directory of messages that are kept back. Cheap to clone; all clones are the same one.
#[derive(Clone)]
pub struct DirectoryQuarantine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) dir: Dir,
    pub(crate) path: PathBuf,
    options: Mutex<Options>,
    index: Mutex<Index>,
    pub(crate) problems: Mutex<Vec<Problem>>,
    jobs: Arc<Semaphore>,
    parts: AtomicU64,
    /// One round of reports at a time.
    pub(crate) reports: tokio::sync::Mutex<()>,
}

impl DirectoryQuarantine {
    /// Opens the directory, which is made when only it is missing, and reads what is in it. Blocks.
    ///
    /// What is no message of ours is told by [`DirectoryQuarantine::problems`] and left where it is. What an earlier
    /// process was writing when it ended is removed: no one was told that it is held.
    ///
    /// # Errors
    /// [`OpenError`] when another process has it, or it cannot be made, sealed or read.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let shown = path.display().to_string();
        let failed = |source: io::Error| {
            let hint = match source.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOTDIR | Errno::LOOP) => "\nhint: it must be a directory itself, no symbolic link to one",
                Some(Errno::ACCESS | Errno::PERM) => "\nhint: it must belong to the user that connectord runs as",
                Some(Errno::NOENT) => "\nhint: the directory above it must be there",
                _ => "",
            };
            OpenError::Directory { path: path.display().to_string(), source, hint }
        };
        let dir = Dir::open(path, options.faults.clone()).map_err(failed)?;
        let dir = dir.ok_or(OpenError::Locked { path: shown })?;
        let inner = Inner {
            dir,
            path: path.to_owned(),
            options: Mutex::new(options),
            index: Mutex::default(),
            problems: Mutex::default(),
            jobs: Arc::new(Semaphore::new(JOBS)),
            parts: AtomicU64::new(0),
            reports: tokio::sync::Mutex::default(),
        };
        inner.read_all().map_err(failed)?;
        Ok(Self(Arc::new(inner)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Has other limits from now on. What is held stays, though it may be more than would be taken now; what has been held
    /// for too long goes at the next [`DirectoryQuarantine::tidy`].
    pub fn set_options(&self, options: Options) {
        *self.0.options.lock().unwrap_or_else(PoisonError::into_inner) = options;
    }

    /// What could not be read when it was opened, or was found damaged since.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Some of the messages that are held, the newest first.
    pub fn list(&self, query: &Query) -> Page {
        self.0.index().page(query)
    }

    /// One message; nothing when it is not held.
    pub fn entry(&self, id: DeliveryId) -> Option<Entry> {
        self.0.index().entry(id).cloned()
    }

    /// The messages whose identity begins with this text, two at most.
    pub fn starting_with(&self, start: &str) -> Vec<DeliveryId> {
        self.0.index().starting_with(start, 2)
    }

    /// How many messages are held, and octets of their files.
    pub fn size(&self) -> (usize, u64) {
        let index = self.0.index();
        (index.len(), index.octets)
    }

    /// Removes a message for good, durably; false when it is not held.
    ///
    /// # Errors
    /// [`QuarantineError`]: it may still be there.
    pub async fn discard(&self, id: DeliveryId, now: UnixTime) -> Result<bool, QuarantineError> {
        let Some(claim) = self.0.claim(id)? else { return Ok(false) };
        let job = move |inner: &Inner| {
            let _claim = claim;
            inner.let_go(id, now).map(|()| true)
        };
        self.0.on_disk("discarding a message", job).await
    }
}

#[async_trait]
impl Quarantine for DirectoryQuarantine {
    async fn keep(&self, held: Held) -> Result<(), QuarantineError> {
        let waits = Waits(Arc::new(AtomicBool::new(true)));
        let is_awaited = Arc::clone(&waits.0);
        self.0.on_disk("keeping a message", move |inner| inner.keep(&held, &is_awaited)).await
    }

    /// A message that was released or discarded in the last days counts as held: somebody has decided about it.
    async fn holds(&self, id: DeliveryId) -> Result<bool, QuarantineError> {
        let (confirmed, gone) = {
            let index = self.0.index();
            (index.confirmed(id), index.gone.contains_key(&id))
        };
        match confirmed {
            Some(true) => Ok(true),
            Some(false) => self.0.on_disk("looking for a message", move |inner| inner.confirm(id)).await,
            None => Ok(gone),
        }
    }
}

impl Inner {
    pub(crate) fn options(&self) -> Options {
        self.options.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a job that blocks on a thread for such, within the deadline. A job whose time is over goes on and keeps one of
    /// the few places there are, so that a disk that hangs does not take all threads.
    pub(crate) async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        during: &'static str,
        job: impl FnOnce(&Self) -> Result<T, QuarantineError> + Send + 'static,
    ) -> Result<T, QuarantineError> {
        let (inner, patience) = (Arc::clone(self), self.options().disk_timeout);
        let done = async move {
            let place = Arc::clone(&inner.jobs).acquire_owned().await;
            let job = tokio::task::spawn_blocking(move || {
                let _place = place;
                job(&inner)
            });
            job.await
        };
        match tokio::time::timeout(patience, done).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(QuarantineError::Failed(format!("our own fault: a panic (during {during})"))),
            Err(_) => Err(QuarantineError::Failed(format!(
                "no answer from the disk within {} s (during {during} in {})",
                patience.as_secs(),
                self.path.display()
            ))),
        }
    }

    pub(crate) fn trouble(&self, during: &str, error: &io::Error) -> QuarantineError {
        let text = format!("{error} (during {during} in {})", self.path.display());
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => QuarantineError::Full(text),
            _ => QuarantineError::Failed(text),
        }
    }

    /// A name for a file in `tmp/` that no other has.
    pub(crate) fn part(&self, of: &str) -> String {
        format!("{of}.{}", self.parts.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens the file of a message and reads its header.
    pub(crate) fn open_message(&self, id: DeliveryId) -> Result<(Arc<FileBody>, Opened), Unreadable> {
        let failed = |error: io::Error| Unreadable::Io(error.to_string());
        let file = self.dir.open_file(&held_name(id)).and_then(FileBody::new).map_err(failed)?;
        open_as(file, id)
    }

    /// The same, with all its octets compared with their digest.
    pub(crate) fn open_whole(&self, id: DeliveryId) -> Result<(Arc<FileBody>, Opened), Unreadable> {
        let whole = self.open_message(id).and_then(|(file, opened)| {
            file::verify(&*file, &opened, |_| Ok(()))?;
            Ok((file, opened))
        });
        if let Err(why) = &whole {
            self.report_problem(&held_name(id), why.clone());
        }
        whole
    }

    fn keep(&self, held: &Held, is_awaited: &AtomicBool) -> Result<(), QuarantineError> {
        let during = "keeping a message";
        // Who is being released to some would be gone for the others who are to have it now.
        let _claim = self.claim_here(held.id)?;
        let (serial, _room) = self.take_room(held)?;
        let front = self.front(held, serial).map_err(|error| self.trouble(during, &error))?;
        let (part, name) = (self.part(&held.id.to_string()), held_name(held.id));
        // It went once, and is here again. How far a release has come that is under way stays true.
        let was_gone = self.index().gone.contains_key(&held.id);
        if was_gone {
            self.dir.remove(&note_name(held.id)).map_err(|error| self.trouble(during, &error))?;
        }
        let size = held.body.size_octets();
        let written = self.write(&part, &front.octets, &mut |offset, buffer| held.body.read_at(offset, buffer), size);
        // Whoever gave this up said that it is not held: it may be kept again, and be released, before the disk goes on.
        let awaited = || match is_awaited.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err(io::Error::other("given up before it was done")),
        };
        if let Err(error) = written.and_then(|()| awaited()).and_then(|()| self.dir.publish(&part, &name)) {
            // What stays is removed at the next start.
            let _ = self.dir.remove_new(&part);
            return Err(self.trouble(during, &error));
        }
        if let Err(error) = self.dir.sync() {
            // Nobody knows what a second sync would be worth: the message stays on the server, and no copy of it here.
            self.index().remove(held.id);
            let _ = self.dir.remove(&name);
            return Err(self.trouble(during, &error));
        }
        let entry = Entry::new(held.id, &front.header, size);
        let mut index = self.index();
        index.gone.remove(&held.id);
        index.insert(entry, file::size_octets(front.octets.len() as u64, size), true);
        Ok(())
    }

    /// What is written before the message.
    fn front(&self, held: &Held, serial: u64) -> io::Result<Front> {
        let octets = read_head(&*held.body)?;
        let header = Header::of(held, serial, Head::of(&octets));
        let size = held.body.size_octets();
        if let Some(octets) = file::front(&header, size) {
            return Ok(Front { header, octets });
        }
        let header = header.shortened();
        match file::front(&header, size) {
            Some(octets) => Ok(Front { header, octets }),
            None => Err(io::Error::other(format!("what is known of the message exceeds {} octets", file::MAX_HEADER))),
        }
    }

    /// Writes a file into `tmp/` and makes it durable.
    fn write(
        &self,
        part: &str,
        front: &[u8],
        read_at: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<usize>,
        size: u64,
    ) -> io::Result<()> {
        let mut file = self.dir.create(part)?;
        file.write_all(front)?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; BLOCK];
        let mut done = 0;
        while done < size {
            let wanted = usize::try_from(size - done).unwrap_or(BLOCK).min(BLOCK);
            let count = read_at(done, &mut buffer[..wanted])?;
            if count == 0 {
                return Err(io::Error::other(format!("the message ends after {done} of {size} octets")));
            }
            digest.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
            done += count as u64;
        }
        file.write_all(file::trailer(digest).as_bytes())?;
        file.sync()
    }

    /// Takes room for a message, and its serial number: the one it has when it is held already.
    fn take_room(&self, held: &Held) -> Result<(u64, Room<'_>), QuarantineError> {
        let octets = held.body.size_octets();
        let Options { max_octets, max_messages, .. } = self.options();
        let mut index = self.index();
        let earlier = index.entry(held.id).map(|entry| entry.serial);
        let messages = index.len() + index.coming.0 + usize::from(earlier.is_none());
        let all = (index.octets + index.coming.1).saturating_sub(index.file_octets(held.id)).saturating_add(octets);
        if messages > max_messages || all > max_octets {
            let text = format!(
                "it holds {} messages of {} octets; a message of {octets} octets would exceed the limit of {max_messages} \
                 messages or {max_octets} octets\nhint: release or discard some, or raise the limit",
                index.len(),
                index.octets
            );
            return Err(QuarantineError::Full(text));
        }
        index.coming = (index.coming.0 + 1, index.coming.1 + octets);
        let serial = earlier.unwrap_or(index.next_serial);
        index.next_serial = index.next_serial.max(serial.saturating_add(1));
        Ok((serial, Room { inner: self, octets }))
    }

    /// A file that was there at the start may have a name that a failed sync left behind, of which a second sync says
    /// nothing: it is written anew. A damaged one is not held.
    fn confirm(&self, id: DeliveryId) -> Result<bool, QuarantineError> {
        let during = "looking for a message";
        let Ok((file, opened)) = self.open_whole(id) else { return Ok(false) };
        let (part, name) = (self.part(&id.to_string()), held_name(id));
        let whole = |offset: u64, buffer: &mut [u8]| file.read_at(offset, buffer);
        let copied = self.copy(&part, &whole, file.size_octets()).and_then(|()| self.dir.publish(&part, &name));
        if let Err(error) = copied {
            let _ = self.dir.remove_new(&part);
            return Err(self.trouble(during, &error));
        }
        self.dir.sync().map_err(|error| self.trouble(during, &error))?;
        drop(opened);
        self.index().confirm(id);
        Ok(true)
    }

    fn copy(&self, part: &str, read_at: &dyn Fn(u64, &mut [u8]) -> io::Result<usize>, size: u64) -> io::Result<()> {
        let mut file = self.dir.create(part)?;
        let mut buffer = vec![0; BLOCK];
        let mut done = 0;
        while done < size {
            let count = read_at(done, &mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(&buffer[..count])?;
            done += count as u64;
        }
        file.sync()
    }

    /// Notes durably that a message is released or discarded, then removes it: whatever ends us in between, it is not
    /// released again. Once that is noted it is not held any more, and a file that cannot be removed goes at the next start.
    pub(crate) fn let_go(&self, id: DeliveryId, now: UnixTime) -> Result<(), QuarantineError> {
        let failed = |error: io::Error| self.trouble("removing a message", &error);
        self.write_note(id, &Note::gone(now)).map_err(failed)?;
        {
            let mut index = self.index();
            index.gone.insert(id, now);
            index.remove(id);
        }
        self.remove_file(id).map_err(failed)
    }

    pub(crate) fn write_note(&self, id: DeliveryId, note: &Note) -> io::Result<()> {
        self.dir.replace(&note_name(id), &self.part(&format!("{id}{NOTE}")), &note.octets())
    }

    /// The note of a message; nothing when there is none.
    pub(crate) fn read_note(&self, id: DeliveryId) -> Result<Option<Note>, String> {
        match self.dir.open_file(&note_name(id)) {
            Ok(file) => Note::read(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn remove_file(&self, id: DeliveryId) -> io::Result<()> {
        self.dir.remove(&held_name(id))?;
        self.dir.sync()
    }

    /// The right to work on a message; nothing when it is not held.
    pub(crate) fn claim(self: &Arc<Self>, id: DeliveryId) -> Result<Option<Claim>, QuarantineError> {
        Ok(self.take(id)?.then(|| Claim { inner: Arc::clone(self), id }))
    }

    pub(crate) fn claim_here(&self, id: DeliveryId) -> Result<Option<ClaimHere<'_>>, QuarantineError> {
        Ok(self.take(id)?.then_some(ClaimHere { inner: self, id }))
    }

    fn take(&self, id: DeliveryId) -> Result<bool, QuarantineError> {
        let mut index = self.index();
        if index.entry(id).is_none() {
            return Ok(false);
        }
        if !index.busy.insert(id) {
            return Err(QuarantineError::Failed(format!(
                "{id} is being released or discarded already; try again later"
            )));
        }
        Ok(true)
    }
}

/// Says that somebody waits for a job, until it is dropped.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The right to work on a message, until it is dropped.
pub(crate) struct Claim {
    inner: Arc<Inner>,
    id: DeliveryId,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.index().busy.remove(&self.id);
    }
}

/// The same where it is borrowed.
pub(crate) struct ClaimHere<'a> {
    inner: &'a Inner,
    id: DeliveryId,
}

impl Drop for ClaimHere<'_> {
    fn drop(&mut self) {
        self.inner.index().busy.remove(&self.id);
    }
}

struct Front {
    header: Header,
    octets: Vec<u8>,
}

/// Room for a message that is being kept, until it is dropped.
struct Room<'a> {
    inner: &'a Inner,
    octets: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut index = self.inner.index();
        index.coming = (index.coming.0.saturating_sub(1), index.coming.1.saturating_sub(self.octets));
    }
}

/// How a message's file is named, behind its identity.
pub(crate) const HELD: &str = ".held";

/// How a message's note is named, behind its identity.
pub(crate) const NOTE: &str = ".note";

pub(crate) fn held_name(id: DeliveryId) -> String {
    format!("{id}{HELD}")
}

pub(crate) fn note_name(id: DeliveryId) -> String {
    format!("{id}{NOTE}")
}

fn open_as(file: FileBody, id: DeliveryId) -> Result<(Arc<FileBody>, Opened), Unreadable> {
    let file = Arc::new(file);
    let opened = file::open(&*file)?;
    match opened.header.id() {
        Some(is) if is == id => Ok((file, opened)),
        Some(other) => Err(Unreadable::Name(other)),
        None => Err(Unreadable::Header),
    }
}

/// The octets of the header, and at most as much as is ever looked at.
pub(crate) fn read_head(body: &dyn Body) -> io::Result<Vec<u8>> {
    let most = usize::try_from(body.size_octets()).unwrap_or(head::MAX_HEAD).min(head::MAX_HEAD);
    let mut octets = Vec::new();
    while octets.len() < most {
        let at = octets.len();
        octets.resize(most.min(at + BLOCK), 0);
        let count = body.read_at(at as u64, &mut octets[at..])?;
        octets.truncate(at + count);
        if count == 0 || head::end(&octets).is_some() {
            break;
        }
    }
    octets.truncate(Head::of(&octets).octets().len());
    Ok(octets)
}

/// The message of a quarantine that another process may hold, compared with its digest to the end. Blocks.
///
/// # Errors
/// [`Unreadable`] when it is not there or not whole.
pub fn read_message(path: &Path, id: DeliveryId) -> Result<Arc<dyn Body>, Unreadable> {
    let failed = |error: io::Error| Unreadable::Io(error.to_string());
    let file = dir::open_from_outside(path, &held_name(id)).and_then(FileBody::new).map_err(failed)?;
    let (file, opened) = open_as(file, id)?;
    file::verify(&*file, &opened, |_| Ok(()))?;
    Ok(Arc::new(HeldBody::new(file, &opened)))
}
