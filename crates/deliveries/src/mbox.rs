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

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient, Template,
};
use connectord_wire::Escaped;

use crate::maildir::{RealDisk, Reserve};
use crate::pool::Place;
use crate::{DiskPool, trouble};
use append::{Planned, Row};
use lock::Locked;

pub(crate) use quote::from_line;

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
        }
    }
}

/// Mbox files, one per recipient.
pub struct Mbox(Options);

impl Mbox {
    /// Makes the destination; touches no file.
    pub fn new(options: Options) -> Self {
        Self(options)
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
        if Path::new(&path).exists() {
            self.lock(&path).await?;
            return Ok(format!("{path} can be locked and written"));
        }
        Ok(format!("{path} is made with the first message"))
    }

    fn path(&self, recipient: &Recipient) -> Result<String, Failure> {
        self.0.path.expand_path(recipient).map_err(|error| {
            let user = Escaped::text(&recipient.user);
            Failure::new(FailureKind::Misconfigured, format!("{error} (during making the path for user {user})"))
        })
    }

    /// Both locks, and nobody else of ours in the file.
    async fn lock(&self, path: &str) -> Result<Locked, Failure> {
        let since = Instant::now();
        let busy = || lock::busy(path, self.0.lock_timeout);
        // Before the file is opened: closing a second descriptor of it would give back the first one's fcntl lock.
        let waiting = self.0.pool.writer(place_of(path));
        let writer = tokio::time::timeout(self.0.lock_timeout, waiting).await.map_err(|_| busy())?;
        let writer = Arc::new(Mutex::new(Some(writer)));
        loop {
            let (whose, stale, pool, writer) =
                (path.to_owned(), self.0.stale_lock, self.0.pool.clone(), writer.clone());
            let attempt = move || lock::try_lock(&whose, stale, &writer, pool);
            if let Some(locked) = on_pool(&self.0.pool, "locking the mailbox", attempt).await? {
                return Ok(locked);
            }
            if since.elapsed() >= self.0.lock_timeout {
                return Err(busy());
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
    }
}

/// What stands for a mailbox among our own writers; no device has this number.
fn place_of(path: &str) -> Place {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    (u64::MAX, hasher.finish())
}

async fn on_pool<T: Send + 'static>(
    pool: &DiskPool,
    during: &str,
    job: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    pool.run(job).await.unwrap_or_else(|_| Err(trouble::panicked(during)))
}

#[async_trait]
impl Delivery for Mbox {
    fn describe(&self) -> String {
        format!("mbox:{}", self.0.path)
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits { parcels: MAX_BATCH, ..BatchLimits::default() }
    }

    async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure> {
        let path = match self.path(recipient) {
            Ok(path) => path,
            Err(failure) => return Ok(Presence::Absent(failure.text)),
        };
        on_pool(&self.0.pool, "looking for the mailbox", move || {
            let above = crate::maildir::parent(Path::new(&path));
            match above.metadata() {
                Ok(found) if found.is_dir() => Ok(Presence::Here),
                Ok(_) => Ok(Presence::Absent(format!("{} is no directory", above.display()))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Ok(Presence::Absent(format!("there is no directory {}", above.display())))
                }
                Err(error) => Err(trouble::failure("looking for the mailbox", &path, &error)),
            }
        })
        .await
    }

    async fn room(&self, recipient: &Recipient) -> Result<(), Failure> {
        let (path, reserve) = (self.path(recipient)?, self.0.reserve);
        let job = move || crate::maildir::room(&RealDisk, &path, reserve);
        on_pool(&self.0.pool, "asking for free space", job).await
    }

    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        let mut all = MboxBatch { pool: self.0.pool.clone(), notes: Vec::new(), parts: Vec::new() };
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
                    on_pool(&self.0.pool, "measuring the messages", move || append::plan(locked, parcels)).await
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
        let mut answers = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(row) = row.note.as_ref().and_then(Row::parse) else {
                answers.push(Recalled::Unknown);
                continue;
            };
            if !Path::new(&row.path).exists() {
                // The volume may not be mounted; or a reader removed the emptied file.
                let there = crate::maildir::parent(Path::new(&row.path)).is_dir();
                let text = format!("there is no directory for {}", Escaped::text(&row.path));
                let wait = || Recalled::Wait(Failure::new(FailureKind::Unavailable, text));
                answers.push(if there { Recalled::Unknown } else { wait() });
                continue;
            }
            let answer = match self.lock(&row.path).await {
                Ok(locked) => on_pool(&self.0.pool, "reading the mailbox", move || append::recall(&locked, &row)).await,
                Err(failure) => Err(failure),
            };
            answers.push(answer.unwrap_or_else(Recalled::Wait));
        }
        answers
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
            appending.push(pool.start(move || append::append(locked, planned)).await);
        }
        for appended in appending {
            for (place, outcome) in appended.await.unwrap_or_default() {
                outcomes[place] = outcome;
            }
        }
        outcomes
    }
}
