//! The trail in a file of its own beside the state, so that it costs no message a wait.
//!
//! Whoever records something puts it into a queue and goes on; where the queue is full it is dropped and counted. One thread
//! writes what came in a fifth of a second in one transaction, and no commit waits for the disk: a power failure takes the
//! last ones with it, and leaves the file whole. One thread looks things up. A file that is damaged is set aside as
//! `trail.db.damaged` and another one begun: nothing else depends on it.

mod file;
mod pack;
mod read;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use connectord_mail::UnixTime;
use connectord_store::{
    HourRow, Of, Recorder, StoreError, TallyBy, Trail, TrailEntry, TrailId, TrailPage, TrailQuery, TrailRow, TrailStep,
};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use self::writer::Memory;
use crate::sqlite::fault::Fault;

/// Name of the file in the state directory.
pub const FILE: &str = "trail.db";

/// What comes within so long is written together.
const GATHER: Duration = Duration::from_millis(200);

/// How often it is looked whether something is to be forgotten, and the hour is marked as one in which we ran.
const LOOK: Duration = Duration::from_secs(60);

/// How often something is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// How soon a file that cannot be opened is tried again, and at most how often one is set aside.
const AGAIN: Duration = Duration::from_secs(60);

/// The longest that one look-up takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Steps of SQLite's machine between two looks at the clock.
const STEPS: std::ffi::c_int = 10_000;

/// Look-ups that wait at most.
const LOOKUPS: usize = 64;

/// How a [`SqliteTrail`] is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a message is remembered; default 90 days.
    pub keep: Duration,
    /// Entries that may wait to be written; default 8192, at least 1. One is below 1 KiB as a rule.
    pub queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep: Duration::from_secs(90 * 86_400), queue: 8192 }
    }
}

/// A [`Trail`] and its [`Recorder`] in an SQLite file, for one process: whoever has the state open.
///
/// Dropping it writes what is queued and closes the file; [`SqliteTrail::close`] does so without blocking.
pub struct SqliteTrail {
    shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
    write: SyncSender<Request>,
}

/// What the threads share with those who ask them.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    keep_seconds: AtomicI64,
    dropped: AtomicU64,
    /// The queue was full when somebody last put something in.
    is_full: AtomicBool,
    /// Counts up with each file: whoever reads opens the new one.
    files: AtomicU64,
    /// A reader found damage.
    is_damaged: AtomicBool,
}

struct Threads {
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    look_up: mpsc::Sender<LookUp>,
}

enum Request {
    Entry(Box<TrailEntry>),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
    Close,
}

/// Something to be looked up; answers itself.
type LookUp = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Option<Fault> + Send>;

impl SqliteTrail {
    /// Opens the trail in a state directory, which must be there; the file is made when it is missing.
    ///
    /// # Errors
    /// [`StoreError::Failed`] or [`StoreError::Full`] when that cannot be done; a damaged file is no error.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let during = "opening the trail";
        let path = directory.as_ref().join(FILE);
        let connection = file::open(&path).map_err(|fault| fault.during(during))?;
        let shared = Arc::new(Shared {
            path,
            keep_seconds: AtomicI64::new(seconds(options.keep)),
            dropped: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            files: AtomicU64::new(0),
            is_damaged: AtomicBool::new(false),
        });
        let failed = |error: std::io::Error| StoreError::Failed { during, text: format!("no thread: {error}") };
        let (write, queue) = sync_channel(options.queue.max(1));
        let (look_up, look_ups) = mpsc::channel(LOOKUPS);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let writer = {
            let writer = Writer::new(Arc::clone(&shared), connection);
            thread("trail-writer").spawn(move || writer.run(&queue)).map_err(failed)?
        };
        let reader = {
            let shared = Arc::clone(&shared);
            thread("trail-reader").spawn(move || read(&shared, look_ups)).map_err(failed)?
        };
        Ok(Self { shared, threads: Mutex::new(Some(Threads { writer, reader, look_up })), write })
    }

    /// From now on messages are remembered for so long.
    pub fn set_keep(&self, keep: Duration) {
        self.shared.keep_seconds.store(seconds(keep), Ordering::Relaxed);
    }

    /// Waits until what was recorded before is written.
    pub async fn flush(&self) {
        let (answer, written) = oneshot::channel();
        let mut request = Request::Flush(answer);
        // Whoever wants to know can wait for room.
        while let Err(TrySendError::Full(back)) = self.write.try_send(request) {
            request = back;
            tokio::task::yield_now().await;
        }
        self.wake();
        // An error means that the writer has ended.
        let _ = written.await;
    }

    /// Writes what is queued and closes the file. Later look-ups answer [`StoreError::Closed`].
    pub async fn close(&self) {
        let Some(threads) = self.threads().take() else { return };
        let (reply, answer) = oneshot::channel();
        let write = self.write.clone();
        let ending = std::thread::Builder::new().name("trail-close".to_owned()).spawn(move || {
            threads.end(&write);
            let _ = reply.send(());
        });
        match ending {
            // An error means that the thread has ended.
            Ok(_) => answer.await.unwrap_or(()),
            Err(error) => tracing::error!(%error, "trail: no thread to close it with"),
        }
    }

    fn wake(&self) {
        if let Some(threads) = self.threads().as_ref() {
            threads.writer.thread().unpark();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Option<Threads>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read<T: Send + 'static>(
        &self,
        during: &'static str,
        act: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let look_up = self.threads().as_ref().map(|threads| threads.look_up.clone()).ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let request: LookUp = Box::new(move |connection| {
            let began = Instant::now();
            let (result, damage) = match connection.map(act) {
                Ok(Ok(found)) => (Ok(found), None),
                Ok(Err(Fault::Sql(error)))
                    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
                {
                    let text = format!("it took longer than {} s", began.elapsed().as_secs());
                    (Err(StoreError::Failed { during, text }), None)
                }
                Ok(Err(fault)) if file::is_damage(&fault) => {
                    let text = format!("{fault:?}");
                    (Err(StoreError::Failed { during, text }), Some(fault))
                }
                Ok(Err(fault)) => (Err(fault.during(during)), None),
                Err(error) => (Err(error), None),
            };
            // Nobody waits when the caller was cancelled.
            let _ = reply.send(result);
            damage
        });
        look_up.send(request).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Threads {
    /// What is queued is done first. Blocks.
    fn end(self, write: &SyncSender<Request>) {
        let Self { writer, reader, look_up } = self;
        drop(look_up);
        // It takes what is queued, so that there is room.
        let mut request = Request::Close;
        while let Err(TrySendError::Full(back)) = write.try_send(request) {
            request = back;
            writer.thread().unpark();
            std::thread::sleep(Duration::from_millis(1));
        }
        writer.thread().unpark();
        for thread in [writer, reader] {
            if thread.join().is_err() {
                tracing::error!("trail: a thread ended in a panic");
            }
        }
    }
}

impl Drop for SqliteTrail {
    fn drop(&mut self) {
        if let Some(threads) = self.threads().take() {
            threads.end(&self.write);
        }
    }
}

impl Recorder for SqliteTrail {
    fn record(&self, entry: TrailEntry) {
        let shared = &self.shared;
        match self.write.try_send(Request::Entry(Box::new(entry))) {
            Ok(()) => {}
            // It was closed: what is done after that is not remembered.
            Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                if !shared.is_full.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "trail: more comes than can be written; mail goes on, some of it is not in the trail"
                    );
                }
            }
        }
    }
}

#[async_trait]
impl Trail for SqliteTrail {
    async fn messages(&self, query: &TrailQuery) -> Result<TrailPage, StoreError> {
        let query = query.clone();
        self.read("searching the trail", move |connection| read::messages(connection, &query)).await
    }

    async fn message(&self, id: TrailId) -> Result<Option<(TrailRow, Vec<TrailStep>)>, StoreError> {
        self.read("looking up a message", move |connection| read::message(connection, id)).await
    }

    async fn hours(&self, of: Of<'_>, from: UnixTime, until: UnixTime) -> Result<Vec<HourRow>, StoreError> {
        let whose = read::Whose::from(of);
        self.read("looking up figures", move |connection| read::hours(connection, &whose, from, until)).await
    }

    async fn delivered(&self, by: TallyBy, since: UnixTime) -> Result<Vec<(String, u64)>, StoreError> {
        self.read("looking up figures", move |connection| read::delivered(connection, by, since)).await
    }

    fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    /// Nothing while the file cannot be opened.
    connection: Option<Connection>,
    memory: Memory,
    forgot: Option<Instant>,
    /// When a file was last opened in place of another one.
    renewed: Option<Instant>,
    /// Entries that could not be written since that was last said.
    lost: u64,
}

impl Writer {
    fn new(shared: Arc<Shared>, connection: Connection) -> Self {
        let memory = Memory::default();
        Self { shared, connection: Some(connection), memory, forgot: None, renewed: None, lost: 0 }
    }

    fn run(mut self, queue: &Receiver<Request>) {
        let (mut batch, mut answers) = (Vec::new(), Vec::new());
        loop {
            // What is to be forgotten goes part by part, so that what comes meanwhile is written.
            let first = queue.recv_timeout(if self.look_after() { GATHER } else { LOOK });
            let mut next = match first {
                Ok(request) => Some(request),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => continue,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            };
            // Not waited for at the queue: each entry would wake this thread.
            if matches!(next, Some(Request::Entry(_))) {
                std::thread::park_timeout(GATHER);
            }
            let mut is_over = false;
            while let Some(request) = next.take() {
                match request {
                    Request::Entry(entry) => batch.push(*entry),
                    Request::Flush(answer) => answers.push(answer),
                    Request::Close => is_over = true,
                }
                next = match queue.try_recv() {
                    Ok(request) if !is_over && batch.len() < BATCH => Some(request),
                    Ok(Request::Entry(entry)) => {
                        batch.push(*entry);
                        None
                    }
                    Ok(Request::Flush(answer)) => {
                        answers.push(answer);
                        None
                    }
                    Ok(Request::Close) => {
                        is_over = true;
                        None
                    }
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
                };
            }
            self.write(&batch);
            batch.clear();
            for answer in answers.drain(..) {
                // Whoever asked may have gone.
                let _ = answer.send(());
            }
            if is_over {
                return;
            }
        }
    }

    fn write(&mut self, batch: &[TrailEntry]) {
        if self.shared.is_damaged.swap(false, Ordering::Relaxed) {
            let text = "a look-up found damage".to_owned();
            self.renew(&StoreError::Corrupt { during: "reading the trail", text }.into());
        }
        // A batch that found the damage goes into the file that follows.
        for _ in 0..2 {
            if !self.is_open() {
                break;
            }
            let Self { connection: Some(connection), memory, .. } = &mut *self else { break };
            match writer::write(connection, memory, batch) {
                Ok(()) => {
                    if self.shared.is_full.swap(false, Ordering::Relaxed) || self.lost > 0 {
                        let dropped = self.shared.dropped.load(Ordering::Relaxed);
                        tracing::warn!(dropped, "trail: written again; so many entries are missing since the start");
                        self.lost = 0;
                    }
                    return;
                }
                Err(fault) => {
                    self.memory = Memory::default();
                    if !file::is_damage(&fault) || !self.renew(&fault) {
                        self.lose(batch.len(), &fault);
                        return;
                    }
                }
            }
        }
        let text = "the file cannot be opened".to_owned();
        self.lose(batch.len(), &StoreError::Failed { during: "opening the trail", text }.into());
    }

    /// Says once that something is lost, until something is written again.
    fn lose(&mut self, entries: usize, fault: &Fault) {
        let entries = entries as u64;
        self.shared.dropped.fetch_add(entries, Ordering::Relaxed);
        if self.lost == 0 && entries > 0 {
            tracing::warn!(problem = ?fault, "trail: cannot be written; mail goes on, what comes is not in the trail");
        }
        self.lost += entries;
    }

    /// Whether the file is open, which is tried from time to time.
    fn is_open(&mut self) -> bool {
        if self.connection.is_none() && self.renewed.is_none_or(|at| at.elapsed() >= AGAIN) {
            self.renewed = Some(Instant::now());
            match file::open(&self.shared.path) {
                Ok(connection) => {
                    self.memory = Memory::default();
                    self.shared.files.fetch_add(1, Ordering::Release);
                    self.connection = Some(connection);
                }
                Err(fault) => tracing::warn!(problem = ?fault, "trail: cannot be opened"),
            }
        }
        self.connection.is_some()
    }

    /// Sets a damaged file aside and begins another one, but not again and again.
    fn renew(&mut self, fault: &Fault) -> bool {
        if self.renewed.is_some_and(|at| at.elapsed() < AGAIN) {
            return false;
        }
        self.connection = None;
        if let Err(fault) = file::set_aside(&self.shared.path, fault) {
            tracing::warn!(problem = ?fault, "trail: the damaged file cannot be set aside");
            self.renewed = Some(Instant::now());
            return false;
        }
        self.is_open()
    }

    /// Marks the hour, and forgets some of what is due; whether there is more.
    fn look_after(&mut self) -> bool {
        let now = now();
        let is_due = self.forgot.is_none_or(|at| at.elapsed() >= FORGET);
        let kept = UnixTime(now.0.saturating_sub(self.shared.keep_seconds.load(Ordering::Relaxed)));
        let Self { connection: Some(connection), memory, .. } = self else { return false };
        let marked = writer::mark(connection, memory, now);
        let more = marked.and_then(|()| if is_due { writer::forget(connection, now, kept) } else { Ok(false) });
        if is_due && !matches!(more, Ok(true)) {
            self.forgot = Some(Instant::now());
        }
        match more {
            Ok(more) => more,
            Err(fault) => {
                self.memory = Memory::default();
                if file::is_damage(&fault) {
                    self.renew(&fault);
                } else {
                    tracing::warn!(problem = ?fault, "trail: cannot be looked after");
                }
                false
            }
        }
    }
}

/// Most entries in one transaction.
const BATCH: usize = 4096;

/// The thread that looks things up.
fn read(shared: &Shared, mut look_ups: mpsc::Receiver<LookUp>) {
    let mut open: Option<(u64, Connection)> = None;
    while let Some(look_up) = look_ups.blocking_recv() {
        let file = shared.files.load(Ordering::Acquire);
        if open.as_ref().is_none_or(|(of, _)| *of != file) {
            open = match file::open_to_read(&shared.path) {
                Ok(connection) => Some((file, connection)),
                Err(fault) => {
                    look_up(Err(fault.during("opening the trail")));
                    open = None;
                    continue;
                }
            };
        }
        let Some((_, connection)) = &mut open else { continue };
        let until = Instant::now() + PATIENCE;
        let watched = connection.progress_handler(STEPS, Some(move || Instant::now() >= until));
        let found = match watched.and_then(|()| connection.execute_batch("BEGIN")) {
            Ok(()) => look_up(Ok(connection)),
            Err(error) => {
                let fault = Fault::Sql(error);
                let is_damage = file::is_damage(&fault);
                look_up(Err(fault.during("reading the trail")));
                is_damage.then(|| StoreError::Closed.into())
            }
        };
        // Nothing was changed; where it was cut off there is nothing to end.
        let _ = connection.execute_batch("ROLLBACK");
        if found.is_some() {
            shared.is_damaged.store(true, Ordering::Relaxed);
            open = None;
        }
    }
}

fn seconds(keep: Duration) -> i64 {
    i64::try_from(keep.as_secs()).unwrap_or(i64::MAX)
}

/// The system's clock, for what is forgotten and for whether we ran.
fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
