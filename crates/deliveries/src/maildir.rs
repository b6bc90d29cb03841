//! Delivery into Maildirs, durable and exactly once.
//!
//! A batch is written and synced in `tmp/`, noted by the engine, moved to `new/` and synced there. After a crash
//! [`Delivery::recall`] tells for each note whether its message is there, was taken by a reader meanwhile, or has to be
//! written anew. What that rests on:
//!
//! - a file's name carries the message's id, so that every attempt meets the first;
//! - before its files a batch makes a marker in `tmp/`. While that is there (and nothing else has changed: the boot, the
//!   directory, a day), a file that is neither in `tmp/` nor delivered was published, and a reader has taken it;
//! - a sync that failed is not repeated and believed: what it covered is taken back and written anew;
//! - one batch at a time is written per Maildir, and one published; of two batches never both change names in `new/`
//!   or sync a directory at the same time.
//!
//! The work is done on threads of a [`crate::DiskPool`], not on those of tokio, and on a [`Disk`], which tests simulate.
//!
//! This module converts CRLF to LF and puts fields in front; it keeps every other octet. It makes nothing above a
//! Maildir, and removes nothing in `tmp/` that does not carry this installation's mark.
//!
//! ```
//! use connectord_deliveries::maildir::{Maildir, Options};
//! use connectord_delivery::Delivery;
//!
//! let options = Options::new("/var/vmail/{user}/Maildir".parse()?, "f3a9c2");
//! let maildir = Maildir::new(options);
//! assert_eq!(maildir.describe(), "maildir:/var/vmail/{user}/Maildir");
//! # Ok::<(), connectord_delivery::TemplateError>(())
//! ```

mod disk;
pub(crate) mod fuzzing;
mod names;
mod note;
mod options;
mod publish;
mod quota;
mod recall;
mod shelf;
#[doc(hidden)]
pub mod simdisk;
mod stage;
mod sweep;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient, Template,
};
use connectord_mail::DeliveryId;
use tokio::sync::oneshot;

pub use disk::{Disk, DiskDir, DiskFile, RealDisk, Space, Stat};
pub use options::{CheckExisting, Create, Options, Reserve};

use crate::pool::Writer;
use crate::trouble;
pub(crate) use shelf::{parent, room};
pub(crate) use write::hex;

use note::{Batch, Row};
use shelf::{Shelf, Where};
use stage::{Held, Means, Ready};
use sweep::{Marker, Settled};

/// Maildirs, one per recipient.
pub struct Maildir(Arc<Inner>);

struct Inner {
    options: Options,
    host: String,
    instance: String,
    /// Begins the numbers of this process's batches.
    nonce: String,
    batches: AtomicU64,
    /// Maildirs whose own directories this process has synced.
    synced: Mutex<HashSet<(u64, u64)>>,
    settled: Settled,
    /// Where Maildirs are that notes name by an earlier path.
    moved: Mutex<HashMap<Where, Where>>,
}

/// Maildirs remembered as synced, and as moved; beyond that they are synced and looked for again.
const MAX_SYNCED: usize = 100_000;

impl Maildir {
    /// Makes the destination; touches no file.
    pub fn new(options: Options) -> Self {
        let mut octets = [0; 8];
        // Without randomness the time does: what counts is that a later process begins its numbers differently.
        if getrandom::fill(&mut octets).is_err() {
            octets =
                (options.disk.now().0 as u64).rotate_left(16).wrapping_add(u64::from(std::process::id())).to_le_bytes();
        }
        Self(Arc::new(Inner {
            host: names::host(&options.hostname),
            instance: names::instance(&options.instance),
            nonce: hex(&octets),
            batches: AtomicU64::new(0),
            synced: Mutex::default(),
            settled: Settled::default(),
            moved: Mutex::default(),
            options,
        }))
    }

    /// Shows whether mail for this recipient could be delivered, by making and removing a marker; makes no Maildir.
    ///
    /// # Errors
    /// What a delivery would fail with, or that there is no Maildir and none would be made.
    pub async fn probe(&self, recipient: &Recipient) -> Result<String, Failure> {
        let at = self.0.mailbox(recipient)?;
        let inner = self.0.clone();
        let (share, path) = (at.mailbox.clone(), at.path());
        self.0.on_disk("probing the Maildir", &share, &path, move || inner.probe(&at)).await
    }

    /// Takes away the markers of batches whose outcomes are committed by now: all that were completed before the call.
    ///
    /// For those who use it without an engine, which calls [`Delivery::settled`].
    pub async fn tidy(&self) {
        self.0.unlink(self.0.settled.all()).await;
    }
}

#[async_trait]
impl Delivery for Maildir {
    fn describe(&self) -> String {
        format!("maildir:{}", self.0.options.path)
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits { at_once: 2, ..BatchLimits::default() }
    }

    /// The markers of the batches that these parcels were in go. Without the call they stay for a day, or until the sweep
    /// of the next start.
    async fn settled(&self, notes: &[Note]) {
        let mut of_others = HashSet::new();
        let mut markers = HashSet::new();
        for (at, batch) in notes.iter().filter_map(Row::parse).filter_map(sweep::batch) {
            let is_of_other = batch.instance == self.0.instance && !note::is_of_process(&batch.number, &self.0.nonce);
            let set = if is_of_other { &mut of_others } else { &mut markers };
            set.insert(Marker::new(self.0.place_now(at), &batch));
        }
        self.0.unlink(self.0.settled.these(&markers).into_iter().chain(of_others).collect()).await;
    }

    /// Files in `tmp/` of these recipients' Maildirs and their folders.
    async fn sweep(&self, recipients: &[Recipient], open: &[Note]) -> usize {
        let keep: Arc<HashSet<String>> = Arc::new(open.iter().filter_map(Row::parse).flat_map(sweep::names).collect());
        let mut swept = 0;
        for recipient in recipients {
            let Ok(at) = self.0.mailbox(recipient) else { continue };
            let (inner, keep, share) = (self.0.clone(), keep.clone(), at.mailbox.clone());
            let job = move || Ok(sweep::sweep(&*inner.options.disk, &at.mailbox, &inner.instance, &inner.nonce, &keep));
            swept += self.0.on_disk("sweeping tmp", &share, &share, job).await.unwrap_or(0);
        }
        swept
    }

    async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure> {
        self.0.tidy_expired();
        let at = match self.0.mailbox(recipient) {
            Ok(at) => at,
            Err(failure) => return Ok(Presence::Absent(failure.text)),
        };
        let inner = self.0.clone();
        let (share, path) = (at.mailbox.clone(), at.path());
        self.0.on_disk("looking for the Maildir", &share, &path, move || inner.presence(&at)).await
    }

    async fn room(&self, recipient: &Recipient) -> Result<(), Failure> {
        let at = self.0.mailbox(recipient)?;
        let (inner, share) = (self.0.clone(), at.mailbox.clone());
        let job = move || room(&*inner.options.disk, &at.mailbox, inner.options.reserve);
        self.0.on_disk("asking for free space", &share, &share, job).await
    }

    /// By the names in `new/` and `cur/`.
    async fn delivered_before(&self, recipient: &Recipient) -> Result<Option<Vec<DeliveryId>>, Failure> {
        let at = self.0.mailbox(recipient)?;
        let (inner, share, path) = (self.0.clone(), at.mailbox.clone(), at.path());
        let job = move || Shelf::open(&*inner.options.disk, &at, Create::Never)?.all_delivered();
        self.0.on_disk("looking for earlier messages", &share, &path, job).await.map(Some)
    }

    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        self.0.tidy_expired();
        Box::new(self.0.clone().prepare(batch).await)
    }

    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        let mut answers = vec![Recalled::Unknown; rows.len()];
        let mut groups: BTreeMap<Where, Vec<(usize, Row)>> = BTreeMap::new();
        for (place, row) in rows.iter().enumerate() {
            // What cannot be read as a note is nothing we can look for.
            if let Some(row) = row.note.as_ref().and_then(Row::parse) {
                groups.entry(row.at.clone()).or_default().push((place, row));
            }
        }
        let mut moved: BTreeMap<Where, Vec<(usize, Row)>> = BTreeMap::new();
        for (at, group) in groups {
            let (places, group): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            match self.0.clone().recall(at.clone(), group.clone()).await {
                Ok(recalled) => places.into_iter().zip(recalled).for_each(|(place, answer)| answers[place] = answer),
                Err(failure) => {
                    for (place, row) in places.into_iter().zip(group) {
                        match self.0.moved(&at, &rows[place].recipient, &failure) {
                            Some(now) => moved.entry(now).or_default().push((place, row)),
                            None => answers[place] = Recalled::Wait(failure.clone()),
                        }
                    }
                }
            }
        }
        for (at, group) in moved {
            let (places, group): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            self.0.has_moved(group.iter().map(|row| &row.at), &at);
            let recalled = self.0.clone().recall(at.clone(), group).await;
            // Where there is no Maildir yet, and one would be made, nothing can be found: it may have arrived.
            let unknown = matches!(&recalled, Err(failure) if failure.kind == FailureKind::Unavailable)
                && matches!(self.presence(&rows[places[0]].recipient).await, Ok(Presence::Here));
            for (nth, place) in places.into_iter().enumerate() {
                answers[place] = match &recalled {
                    Ok(recalled) => recalled[nth].clone(),
                    Err(_) if unknown => Recalled::Unknown,
                    Err(failure) => Recalled::Wait(failure.clone()),
                };
            }
        }
        answers
    }
}

impl Inner {
    fn mailbox(&self, recipient: &Recipient) -> Result<Where, Failure> {
        expand(&self.options.path, recipient).map(|mailbox| Where { mailbox, folder: None })
    }

    fn next_batch(&self) -> Batch {
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        Batch { instance: self.instance.clone(), number: format!("{}-{number}", self.nonce) }
    }

    /// Runs a job on the pool, within the deadline, on the account of the mailbox `share`.
    async fn on_disk<T: Send + 'static>(
        &self,
        during: &str,
        share: &str,
        path: &str,
        job: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = self.options.pool.run(share, self.options.disk_timeout, job).await;
        done.unwrap_or_else(|lost| Err(trouble::lost(during, path, lost)))
    }

    /// Unlinks markers, and waits for it where the disk does not hang. What stays is swept at the next start.
    async fn unlink(&self, markers: Vec<Marker>) {
        let (waited, mut unlinking) = (self.options.disk_timeout, Vec::new());
        for (share, markers) in by_mailbox(markers) {
            let disk = self.options.disk.clone();
            let job = move || markers.iter().for_each(|marker| marker.unlink(&*disk));
            unlinking.extend(self.options.pool.start(&share, waited, job).await);
        }
        for unlinked in unlinking {
            let _ = unlinked.end(waited).await;
        }
    }

    fn tidy_expired(self: &Arc<Self>) {
        for (share, markers) in by_mailbox(self.settled.expired()) {
            let disk = self.options.disk.clone();
            self.options.pool.submit(&share, move || markers.iter().for_each(|marker| marker.unlink(&*disk)));
        }
    }

    fn presence(&self, at: &Where) -> Result<Presence, Failure> {
        let path = std::path::Path::new(&at.mailbox);
        let wanted = match self.options.create {
            Create::Never => path,
            Create::InParent => parent(path),
        };
        match self.options.disk.open_dir(wanted) {
            Ok(_) => Ok(Presence::Here),
            // It may be passed through though not read, as homes of mode 0711.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                match self.options.disk.open_dir(path) {
                    Ok(_) => Ok(Presence::Here),
                    Err(_) => Err(trouble::failure("looking for the Maildir", &wanted.to_string_lossy(), &error)),
                }
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                let wanted = wanted.to_string_lossy();
                Ok(Presence::Absent(format!("there is no directory {}", connectord_wire::Escaped::text(&wanted))))
            }
            Err(error) => Err(trouble::failure("looking for the Maildir", &at.mailbox, &error)),
        }
    }

    fn probe(&self, at: &Where) -> Result<String, Failure> {
        let shelf = match Shelf::open(&*self.options.disk, at, Create::Never) {
            Ok(shelf) => shelf,
            Err(failure) if failure.kind == FailureKind::Unavailable && self.options.create == Create::InParent => {
                return match self.presence(at)? {
                    Presence::Here => Ok(format!("{} is made with the first message", at.mailbox)),
                    Presence::Absent(text) => Err(Failure::new(FailureKind::NoUser, text)),
                };
            }
            Err(failure) => return Err(failure),
        };
        let fail = |error| trouble::failure("writing a file into tmp", &at.mailbox, &error);
        let name = self.next_batch().marker().replacen("batch", "probe", 1);
        let made = shelf.tmp.create_new(&name).and_then(|mut file| file.sync());
        let gone = stage::unlink(&shelf, &name);
        made.and(gone).map_err(fail)?;
        Ok(format!("{} can be written", at.mailbox))
    }

    fn open(&self, at: &Where) -> Result<Shelf, Failure> {
        let shelf = Shelf::open(&*self.options.disk, at, self.options.create)?;
        let known = |synced: &HashSet<_>| synced.contains(&shelf.place);
        if !known(&self.synced.lock().unwrap_or_else(PoisonError::into_inner)) {
            if let Err(failure) = Shelf::sync_directories(&*self.options.disk, at) {
                if self.options.create == Create::InParent {
                    shelf.take_back(&*self.options.disk, at);
                }
                return Err(failure);
            }
            let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
            if synced.len() >= MAX_SYNCED {
                synced.clear();
            }
            synced.insert(shelf.place);
        }
        Ok(shelf)
    }

    async fn prepare(self: Arc<Self>, batch: Vec<Parcel>) -> MaildirBatch {
        let mut all = MaildirBatch::new(self.clone(), batch.len());
        let waited = self.options.disk_timeout;

        // The writers are taken in the order of their places, so that two batches cannot wait for each other.
        let mut shelves: BTreeMap<(u64, u64), Part<Shelf, Parcel>> = BTreeMap::new();
        let mut opening = Vec::new();
        for (at, parcels) in self.by_maildir(batch, &mut all) {
            let (inner, whose) = (self.clone(), at.clone());
            match self.options.pool.start(&at.mailbox, waited, move || inner.open(&whose)).await {
                Ok(opened) => opening.push((at, parcels, opened)),
                Err(lost) => {
                    let failure = trouble::lost("opening the Maildir", &at.path(), lost);
                    all.fail(parcels.iter().map(|(place, _)| *place), &failure);
                }
            }
        }
        for (at, parcels, opened) in opening {
            let opened = opened.end(waited).await;
            match opened.unwrap_or_else(|lost| Err(trouble::lost("opening the Maildir", &at.path(), lost))) {
                Ok(shelf) => match shelves.entry(shelf.place) {
                    std::collections::btree_map::Entry::Vacant(free) => {
                        free.insert((at, shelf, parcels));
                    }
                    // Two paths, one Maildir.
                    std::collections::btree_map::Entry::Occupied(taken) => taken.into_mut().2.extend(parcels),
                },
                Err(failure) => all.fail(parcels.iter().map(|(place, _)| *place), &failure),
            }
        }

        let mut staging = Vec::new();
        for (place, (at, shelf, mut parcels)) in shelves {
            let writer = match self.writer(&at, place).await {
                Ok(writer) => writer,
                Err(failure) => {
                    all.fail(parcels.iter().map(|(place, _)| *place), &failure);
                    continue;
                }
            };
            parcels.sort_by_key(|(place, _)| *place);
            let places: Vec<_> = parcels.iter().map(|(place, _)| *place).collect();
            let held = Held::new(at.clone(), shelf, self.next_batch(), self.options.pool.clone(), writer);
            let (sender, staged) = oneshot::channel();
            stage::stage(held, parcels, self.means(), sender);
            staging.push((at, places, staged));
        }
        for (at, places, staged) in staging {
            match self.options.pool.started(&at.mailbox, staged).end(waited).await {
                Ok((held, results)) => all.add(held, results),
                Err(lost) => {
                    let failure = trouble::lost("writing the messages", &at.path(), lost);
                    all.fail(places.into_iter(), &failure);
                }
            }
        }
        all
    }

    /// Where a recipient's Maildir is today, if what a note names is not there and the configuration names another: then
    /// everything was moved, to another machine perhaps.
    fn moved(&self, at: &Where, recipient: &Recipient, failure: &Failure) -> Option<Where> {
        let now = self.mailbox(recipient).ok().filter(|now| now.mailbox != at.mailbox)?;
        (failure.kind == FailureKind::Unavailable).then(|| Where { folder: at.folder.clone(), ..now })
    }

    fn has_moved<'a>(&self, from: impl Iterator<Item = &'a Where>, to: &Where) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.len() >= MAX_SYNCED {
            moved.clear();
        }
        moved.extend(from.map(|from| (from.clone(), to.clone())));
    }

    /// Where the files are that a note places here.
    fn place_now(&self, noted: Where) -> Where {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.get(&noted).cloned().unwrap_or(noted)
    }

    /// Waits until no other batch writes there.
    async fn writer(&self, at: &Where, place: (u64, u64)) -> Result<Writer, Failure> {
        let writer = self.options.pool.writer(&at.mailbox, place, self.options.disk_timeout).await;
        writer.map_err(|lost| trouble::lost("waiting for another batch", &at.path(), lost))
    }

    fn means(&self) -> Means {
        Means {
            disk: self.options.disk.clone(),
            host: self.host.clone(),
            quota: self.options.quota,
            search_all: self.options.check_existing == CheckExisting::Always,
        }
    }

    fn by_maildir(&self, batch: Vec<Parcel>, all: &mut MaildirBatch) -> BTreeMap<Where, Vec<(usize, Parcel)>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (place, parcel) in batch.into_iter().enumerate() {
            match self.mailbox(&parcel.recipient) {
                Ok(at) => {
                    let at = Where { folder: parcel.folder.as_deref().and_then(names::folder), ..at };
                    groups.entry(at).or_default().push((place, parcel));
                }
                Err(failure) => all.fail([place].into_iter(), &failure),
            }
        }
        groups
    }

    async fn recall(self: Arc<Self>, at: Where, rows: Vec<Row>) -> Result<Vec<Recalled>, Failure> {
        let (inner, whose) = (self.clone(), at.clone());
        let opening = move || Shelf::open(&*inner.options.disk, &whose, Create::Never);
        let shelf = self.on_disk("opening the Maildir", &at.mailbox, &at.path(), opening).await?;
        let writer = self.writer(&at, shelf.place).await?;
        let inner = self.clone();
        let job = move || {
            let names = writer.names();
            let changing = names.lock();
            let recalled = recall::recall(&*inner.options.disk, &shelf, &rows);
            drop(changing);
            drop(writer);
            Ok(recalled)
        };
        self.on_disk("looking for earlier messages", &at.mailbox, &at.path(), job).await
    }
}

fn by_mailbox(markers: Vec<Marker>) -> BTreeMap<String, Vec<Marker>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for marker in markers {
        groups.entry(marker.at.mailbox.clone()).or_default().push(marker);
    }
    groups
}

fn expand(path: &Template, recipient: &Recipient) -> Result<String, Failure> {
    path.expand_path(recipient).map_err(|error| {
        let user = connectord_wire::Escaped::text(&recipient.user);
        Failure::new(FailureKind::Misconfigured, format!("{error} (during making the path for user {user})"))
    })
}

/// What goes into one Maildir, each with its place in the whole batch.
type Part<M, P> = (Where, M, Vec<(usize, P)>);

/// A batch in `tmp/` of one or more Maildirs.
struct MaildirBatch {
    inner: Arc<Inner>,
    notes: Vec<Result<Option<Note>, Failure>>,
    parts: Vec<Part<Arc<Held>, Ready>>,
}

impl MaildirBatch {
    fn new(inner: Arc<Inner>, parcels: usize) -> Self {
        let none = Err(Failure::new(FailureKind::Transient, "the message was not looked at"));
        Self { inner, notes: vec![none; parcels], parts: Vec::new() }
    }

    fn fail(&mut self, places: impl Iterator<Item = usize>, failure: &Failure) {
        places.for_each(|place| self.notes[place] = Err(failure.clone()));
    }

    fn add(&mut self, held: Arc<Held>, results: Vec<(usize, Result<Ready, Failure>)>) {
        let mut part = Vec::new();
        for (place, result) in results {
            self.notes[place] = result.and_then(|ready| {
                let note = ready.row().to_note().ok_or_else(|| {
                    let text = format!("the path is too long to be remembered: {}", held.at.path());
                    Failure::new(FailureKind::Misconfigured, text)
                })?;
                part.push((place, ready));
                Ok(Some(note))
            });
        }
        self.parts.push((held.at.clone(), held, part));
    }
}

#[async_trait]
impl Prepared for MaildirBatch {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.notes
    }

    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        let Self { inner, notes, parts } = *self;
        let waited = inner.options.disk_timeout;
        let unknown = |failure: &Failure| Outcome::Unknown(failure.clone());
        let mut outcomes: Vec<_> = notes
            .into_iter()
            .map(|note| note.map_or_else(Outcome::Failed, |_| unknown(&trouble::panicked("publishing the messages"))))
            .collect();
        let mut publishing = Vec::new();
        for (at, held, ready) in parts {
            let places: Vec<_> = ready.iter().map(|(place, _)| *place).collect();
            let by = inner.clone();
            let job = move || {
                let outcomes = publish::publish(&held, ready);
                by.settled.take_over(&held);
                outcomes
            };
            match inner.options.pool.start(&at.mailbox, waited, job).await {
                Ok(published) => publishing.push((at, places, published)),
                // Nothing was moved.
                Err(lost) => {
                    let failure = trouble::lost("publishing the messages", &at.path(), lost);
                    places.into_iter().for_each(|place| outcomes[place] = Outcome::Failed(failure.clone()));
                }
            }
        }
        for (at, places, published) in publishing {
            // What is asked about in vain may come twice: this is waited for to the end.
            match published.end_patiently(waited).await {
                Ok(published) => published.into_iter().for_each(|(place, outcome)| outcomes[place] = outcome),
                Err(lost) => {
                    let failure = trouble::lost("publishing the messages", &at.path(), lost);
                    places.into_iter().for_each(|place| outcomes[place] = unknown(&failure));
                }
            }
        }
        outcomes
    }
}
