//! Delivery into mbox files: two locks, mboxrd quoting, synced, cut back on any error.
//!
//! The first step takes the locks (`<path>.lock` and `fcntl`, as Debian wants both) and says where the messages will
//! be; the second appends and syncs them. A [`Delivery::recall`] looks whether the octets noted are there. A reader who
//! took the message away in between cannot be told from a message that never was there: then it may come twice.
//! For exactly once use a Maildir.
//!
//! ```
//! use connectord_deliveries::mbox::{Mbox, Options};
//! use connectord_delivery::Delivery;
//!
//! let mbox = Mbox::new(Options::new("/var/mail/{user}".parse()?));
//! assert_eq!(mbox.describe(), "mbox:/var/mail/{user}");
//! # Ok::<(), connectord_delivery::TemplateError>(())
//! ```

mod append;
mod lock;
mod quote;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient, Template,
};
use connectord_wire::Escaped;

use crate::maildir::{Disk, RealDisk, Reserve};
use crate::pool::{DISK_TIMEOUT, Lost, Place};
use crate::{DiskPool, trouble};
use append::{Planned, Row};
use lock::{Locked, Means};

pub(crate) use quote::{Quoter, from_line};

/// Messages per batch: the file stays locked meanwhile.
const MAX_BATCH: usize = 64;
/// How often a lock that somebody else holds is tried.
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// How mail is appended to mbox files. [`Options::new`] has the defaults; every field may be changed.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// A recipient's file; made with mode 0600 when its parent directory is there.
    pub path: Template,
    /// Longest wait for the two locks; default 30 s.
    pub lock_timeout: Duration,
    /// Age from which another program's lock file `<path>.lock` counts as left behind; default 5 min.
    pub stale_lock: Duration,
    /// Free space that mail never takes; default 1 GiB or 5 %, the smaller.
    pub reserve: Reserve,
    /// The threads that do the work; default those of the process, [`DiskPool::shared`].
    pub pool: DiskPool,
    /// Where the files are; default the machine's disk. Tests put another one here.
    pub disk: Arc<dyn Disk>,
}

impl Options {
    /// The defaults, for files at `path`.
    pub fn new(path: Template) -> Self {
        Self {
            path,
            lock_timeout: Duration::from_secs(30),
            stale_lock: Duration::from_secs(300),
            reserve: Reserve::default(),
            pool: DiskPool::shared(),
            disk: Arc::new(RealDisk),
        }
    }
}

impl Options {
    /// Runs a job on the pool, within the deadline, on the account of the mailbox.
    async fn on_disk<T: Send + 'static>(
        &self,
        during: &str,
        path: &str,
        job: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = self.pool.run(path, DISK_TIMEOUT, job).await;
        done.unwrap_or_else(|lost| Err(trouble::lost(during, path, lost)))
    }
}

/// Mbox files, one per recipient.
pub struct Mbox {
    options: Options,
    /// Mailboxes whose directories this process has synced.
    synced: Arc<Mutex<HashSet<Place>>>,
}

impl Mbox {
    /// Makes the destination; touches no file.
    pub fn new(options: Options) -> Self {
        Self { options, synced: Arc::default() }
    }

    /// Shows whether mail for this recipient could be delivered: takes both locks and gives them back.
    ///
    /// # Errors
    /// What a delivery would fail with.
    pub async fn probe(&self, recipient: &Recipient) -> Result<String, Failure> {
        let path = self.path(recipient)?;
        if let Presence::Absent(text) = self.presence(recipient).await? {
            return Err(Failure::new(FailureKind::NoUser, text));
        }
        let (whose, disk) = (path.clone(), self.options.disk.clone());
        match self.options.on_disk("looking for the mailbox", &path, move || look(&*disk, &whose)).await? {
            Found::Here => {
                self.lock(&path).await?;
                Ok(format!("{path} can be locked and written"))
            }
            _ => Ok(format!("{path} is made with the first message")),
        }
    }

    fn path(&self, recipient: &Recipient) -> Result<String, Failure> {
        self.options.path.expand_path(recipient).map_err(|error| {
            let user = Escaped::text(&recipient.user);
            Failure::new(FailureKind::Misconfigured, format!("{error} (during making the path for user {user})"))
        })
    }

    /// Both locks, and nobody else of ours in the file.
    async fn lock(&self, path: &str) -> Result<Locked, Failure> {
        let since = Instant::now();
        let busy = || lock::busy(path, self.options.lock_timeout);
        // Before the file is opened: closing a second descriptor of it would give back the first one's fcntl lock.
        let writer = self.options.pool.writer(path, place_of(path), self.options.lock_timeout).await.map_err(
            |lost| match lost {
                Lost::Late(_) => busy(),
                lost => trouble::lost("waiting for another batch", path, lost),
            },
        )?;
        let writer = Arc::new(Mutex::new(Some(writer)));
        loop {
            let (whose, stale, means, writer) =
                (path.to_owned(), self.options.stale_lock, self.means(), writer.clone());
            let attempt = move || lock::try_lock(&whose, stale, &writer, means);
            if let Some(locked) = self.options.on_disk("locking the mailbox", path, attempt).await? {
                return Ok(locked);
            }
            if since.elapsed() >= self.options.lock_timeout {
                return Err(busy());
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
    }
}

/// What is at a mailbox's path.
enum Found {
    Here,
    /// A reader may have removed it when it was empty.
    Missing,
    /// Not even its directory; its volume may not be mounted.
    NoDirectory,
}

/// An error other than "there is none" says nothing about the file: to take it for gone would bring its mail twice.
fn look(disk: &dyn Disk, path: &str) -> Result<Found, Failure> {
    let absent = |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let fail = |error| trouble::failure("looking for the mailbox", path, &error);
    let above = match lock::above(disk, path) {
        Ok(above) => above,
        Err(error) if absent(&error) => return Ok(Found::NoDirectory),
        Err(error) => return Err(fail(error)),
    };
    match above.stat_of(lock::name_of(path)) {
        Ok(_) => Ok(Found::Here),
        Err(error) if absent(&error) => Ok(Found::Missing),
        Err(error) => Err(fail(error)),
    }
}

/// What stands for a mailbox among our own writers; no device has this number.
fn place_of(path: &str) -> Place {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    (u64::MAX, hasher.finish())
}

#[async_trait]
impl Delivery for Mbox {
    fn describe(&self) -> String {
        format!("mbox:{}", self.options.path)
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits { parcels: MAX_BATCH, ..BatchLimits::default() }
    }

    async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure> {
        let path = match self.path(recipient) {
            Ok(path) => path,
            Err(failure) => return Ok(Presence::Absent(failure.text)),
        };
        let (share, disk) = (path.clone(), self.options.disk.clone());
        let look = move || {
            let above = crate::maildir::parent(Path::new(&path)).display();
            match lock::above(&*disk, &path) {
                Ok(_) => Ok(Presence::Here),
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    Ok(Presence::Absent(format!("{above} is no directory")))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Ok(Presence::Absent(format!("there is no directory {above}")))
                }
                Err(error) => Err(trouble::failure("looking for the mailbox", &path, &error)),
            }
        };
        self.options.on_disk("looking for the mailbox", &share, look).await
    }

    async fn room(&self, recipient: &Recipient) -> Result<(), Failure> {
        let (path, reserve, disk) = (self.path(recipient)?, self.options.reserve, self.options.disk.clone());
        let share = path.clone();
        let job = move || crate::maildir::room(&*disk, &path, reserve);
        self.options.on_disk("asking for free space", &share, job).await
    }

    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        let mut all = MboxBatch { pool: self.options.pool.clone(), notes: Vec::new(), parts: Vec::new() };
        // In the order of the paths, so that two batches cannot wait for each other.
        let mut files: BTreeMap<String, Vec<(usize, Parcel)>> = BTreeMap::new();
        for (place, parcel) in batch.into_iter().enumerate() {
            let path = self.path(&parcel.recipient);
            all.notes.push(path.as_ref().map(|_| None).map_err(Failure::clone));
            if let Ok(path) = path {
                files.entry(path).or_default().push((place, parcel));
            }
        }
        for (path, parcels) in files {
            let places: Vec<_> = parcels.iter().map(|(place, _)| *place).collect();
            let planned = match self.lock(&path).await {
                Ok(locked) => {
                    self.options.on_disk("measuring the messages", &path, move || append::plan(locked, parcels)).await
                }
                Err(failure) => Err(failure),
            };
            match planned {
                Ok((locked, planned, failed)) => {
                    planned.iter().for_each(|(place, planned)| all.notes[*place] = Ok(Some(planned.row.to_note())));
                    failed.into_iter().for_each(|(place, failure)| all.notes[place] = Err(failure));
                    all.parts.push((locked, planned));
                }
                Err(failure) => places.into_iter().for_each(|place| all.notes[place] = Err(failure.clone())),
            }
        }
        Box::new(all)
    }

    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        let mut answers = vec![Recalled::Unknown; rows.len()];
        let mut files: BTreeMap<String, Vec<(usize, Row)>> = BTreeMap::new();
        for (place, row) in rows.iter().enumerate() {
            if let Some(row) = row.note.as_ref().and_then(Row::parse) {
                files.entry(row.path.clone()).or_default().push((place, row));
            }
        }
        for (path, rows) in files {
            let (places, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let recalled = self.recall_in(&path, rows).await;
            for (at, place) in places.into_iter().enumerate() {
                answers[place] = match &recalled {
                    Ok(Some(recalled)) => recalled[at].clone(),
                    Ok(None) => Recalled::Unknown,
                    Err(failure) => Recalled::Wait(failure.clone()),
                };
            }
        }
        answers
    }
}

impl Mbox {
    fn means(&self) -> Means {
        let Options { disk, pool, .. } = &self.options;
        Means { disk: disk.clone(), pool: pool.clone(), synced: self.synced.clone() }
    }

    /// What became of messages in one mailbox; `None` when the mailbox is no more.
    async fn recall_in(&self, path: &str, rows: Vec<Row>) -> Result<Option<Vec<Recalled>>, Failure> {
        let (whose, disk) = (path.to_owned(), self.options.disk.clone());
        match self.options.on_disk("looking for the mailbox", path, move || look(&*disk, &whose)).await? {
            Found::Here => {}
            Found::Missing => return Ok(None),
            Found::NoDirectory => {
                let text = format!("there is no directory for {}", Escaped::text(path));
                return Err(Failure::new(FailureKind::Unavailable, text));
            }
        }
        let mut locked = self.lock(path).await?;
        self.options.on_disk("reading the mailbox", path, move || append::recall(&mut locked, &rows).map(Some)).await
    }
}

/// A batch whose mailboxes are locked. Dropping it gives the locks back.
struct MboxBatch {
    pool: DiskPool,
    notes: Vec<Result<Option<Note>, Failure>>,
    parts: Vec<(Locked, Vec<(usize, Planned)>)>,
}

#[async_trait]
impl Prepared for MboxBatch {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.notes
    }

    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        let Self { pool, notes, parts } = *self;
        let lost = || Outcome::Unknown(trouble::panicked("appending to the mailbox"));
        let mut outcomes: Vec<_> =
            notes.into_iter().map(|note| note.map_or_else(Outcome::Failed, |_| lost())).collect();
        let mut appending = Vec::new();
        for (locked, planned) in parts {
            let (path, places) = (locked.path.clone(), planned.iter().map(|(place, _)| *place).collect::<Vec<_>>());
            match pool.start(&path, DISK_TIMEOUT, move || append::append(locked, planned)).await {
                Ok(appended) => appending.push((path, places, appended)),
                // Nothing was appended.
                Err(lost) => {
                    let failure = trouble::lost("appending to the mailbox", &path, lost);
                    places.into_iter().for_each(|place| outcomes[place] = Outcome::Failed(failure.clone()));
                }
            }
        }
        for (path, places, appended) in appending {
            // What is asked about in vain may come twice: this is waited for to the end.
            match appended.end_patiently(DISK_TIMEOUT).await {
                Ok(appended) => appended.into_iter().for_each(|(place, outcome)| outcomes[place] = outcome),
                Err(lost) => {
                    let failure = trouble::lost("appending to the mailbox", &path, lost);
                    places.into_iter().for_each(|place| outcomes[place] = Outcome::Unknown(failure.clone()));
                }
            }
        }
        outcomes
    }
}
