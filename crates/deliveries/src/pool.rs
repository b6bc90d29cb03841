//! Threads for file work, apart from tokio's. A disk that hangs costs only the mail that goes there.
//!
//! A call into a file system cannot be called off: on a dead NFS server it may never return. What keeps one place (a
//! Maildir, a mailbox, by its path as configured, before anything is opened there) from all others:
//!
//! - 32 threads work. A place's second to sixteenth begin only while a quarter of these is free.
//! - Places take turns.
//! - A thread whose call has not returned for a second does not count among the 32 any more, and another takes its place,
//!   until 256 are away so. Its place gets no further thread before it has returned. So a place that hangs costs one
//!   thread, or as many as worked there in that second.
//! - With all 256 away, half of the 32 are for places where a job has ended in time before.
//! - When a place's call has not returned for 30 s, whoever wants something there, or waits already, is told so at once.
//!   Only jobs that nobody waits for (the undoing of something) are still taken. When it has returned all is as before.
//! - 64 jobs of a place may wait; who has one more waits for room.
//!
//! A call is what lies between two [`beat`]s: a job of many calls that all return is at no time slow.

mod queue;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedMutexGuard, oneshot};

use queue::{Job, Pulse, Queue, Watcher};

/// A thread with nothing to do ends after this long.
const IDLE: Duration = Duration::from_secs(10);
/// Longest wait for the disk where nothing else is configured.
pub(crate) const DISK_TIMEOUT: Duration = Duration::from_secs(300);
/// The place of bodies on their way, which are ours.
pub(crate) const SPOOL: &str = "the spool";
/// How often those who wait look whether the place hangs, at most.
const LOOK: Duration = Duration::from_secs(1);

thread_local! {
    /// The pulse of the job that this thread does.
    static PULSE: RefCell<Option<Pulse>> = const { RefCell::new(None) };
}

/// A call has returned: said between two calls of a long job, so that it does not count as one that hangs.
pub(crate) fn beat() {
    PULSE.with_borrow(|pulse| {
        if let Some(pulse) = pulse {
            pulse.beat();
        }
    });
}

/// Threads for file work, apart from tokio's, so that a disk that is slow or hangs holds up nothing but the mail that
/// goes there.
///
/// Threads start when there is work and end when there is none. Clones share them. The pool also knows who is writing
/// where, so that one file or Maildir has one writer at a time.
#[derive(Clone)]
pub struct DiskPool(Arc<Inner>);

/// Bounds of a [`DiskPool`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Threads that work; default 32, at least 1.
    pub threads: usize,
    /// Threads of one place at once; default 16, at least 1.
    pub threads_per_place: usize,
    /// Threads that may be away with calls that do not return; default 256.
    pub slow_threads: usize,
    /// Jobs of one place that wait for a thread; default 64, at least 1.
    pub waiting_per_place: usize,
    /// When a call that has not returned counts as slow; default 1 s.
    pub slow_after: Duration,
    /// When its place counts as hung; default 30 s.
    pub hung_after: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            threads: 32,
            threads_per_place: 16,
            slow_threads: 256,
            waiting_per_place: 64,
            slow_after: Duration::from_secs(1),
            hung_after: Duration::from_secs(30),
        }
    }
}

struct Inner {
    limits: PoolLimits,
    queue: Mutex<Queue>,
    work: Condvar,
    watch: Condvar,
    writers: Mutex<HashMap<Place, Turns>>,
}

/// Device and inode of a directory or file.
pub(crate) type Place = (u64, u64);

/// Who may write in one place.
#[derive(Clone, Default)]
struct Turns {
    writer: Arc<tokio::sync::Mutex<()>>,
    names: Arc<Mutex<()>>,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The job panicked; the panic's text is on standard error.
    Panicked,
    /// It had not ended after this long.
    Late(Duration),
    /// An earlier call in this place has not returned for this long.
    Hung(Duration),
    /// So many threads hang elsewhere that this place, of which nothing is known, gets none.
    Crowded(usize),
}

/// A job that was handed over.
pub(crate) struct Started<T> {
    pool: DiskPool,
    place: Arc<str>,
    result: oneshot::Receiver<T>,
}

impl<T> Started<T> {
    /// Its result; given up after `within`, or when its place hangs. The job itself goes on.
    pub(crate) async fn end(self, within: Duration) -> Result<T, Lost> {
        let hung = || self.pool.hung(&self.place);
        wait(self.result, within, hung).await?.map_err(|_| Lost::Panicked)
    }

    /// Its result; given up after `within`. For what had better be waited for, though the disk hangs.
    pub(crate) async fn end_patiently(self, within: Duration) -> Result<T, Lost> {
        wait(self.result, within, || None).await?.map_err(|_| Lost::Panicked)
    }
}

/// Waits for `future`; looks now and then whether that is in vain.
async fn wait<T>(
    future: impl Future<Output = T>,
    within: Duration,
    in_vain: impl Fn() -> Option<Lost>,
) -> Result<T, Lost> {
    let began = tokio::time::Instant::now();
    tokio::pin!(future);
    loop {
        let left = within.saturating_sub(began.elapsed());
        if let Ok(done) = tokio::time::timeout(left.min(LOOK), &mut future).await {
            return Ok(done);
        }
        if let Some(lost) = in_vain() {
            return Err(lost);
        }
        if began.elapsed() >= within {
            return Err(Lost::Late(within));
        }
    }
}

impl DiskPool {
    /// A pool of at most `threads` threads, at least 1, those aside that hang.
    pub fn new(threads: usize) -> Self {
        Self::with_limits(PoolLimits { threads, ..PoolLimits::default() })
    }

    /// A pool with these bounds.
    pub fn with_limits(limits: PoolLimits) -> Self {
        let limits = PoolLimits {
            threads: limits.threads.max(1),
            threads_per_place: limits.threads_per_place.max(1),
            waiting_per_place: limits.waiting_per_place.max(1),
            ..limits
        };
        Self(Arc::new(Inner {
            limits,
            queue: Mutex::default(),
            work: Condvar::new(),
            watch: Condvar::new(),
            writers: Mutex::default(),
        }))
    }

    /// The process's pool, with the default bounds.
    pub fn shared() -> Self {
        static SHARED: OnceLock<DiskPool> = OnceLock::new();
        SHARED.get_or_init(|| Self::with_limits(PoolLimits::default())).clone()
    }

    /// Most threads, those aside that hang.
    pub fn threads(&self) -> usize {
        self.0.limits.threads
    }

    /// Threads that are away with calls that have not returned for [`PoolLimits::slow_after`].
    pub fn slow(&self) -> usize {
        self.0.lock().slow()
    }

    /// Runs a job in a place and waits for its result. Dropping the future does not end the job.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        place: &str,
        within: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let began = tokio::time::Instant::now();
        let started = self.start(place, within, job).await?;
        started.end(within.saturating_sub(began.elapsed())).await
    }

    /// Starts a job in a place, as soon as there is room in the queue.
    pub(crate) async fn start<T: Send + 'static>(
        &self,
        place: &str,
        within: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Started<T>, Lost> {
        if let Some(lost) = self.hung(place) {
            return Err(lost);
        }
        let (place, room) = self.0.lock().room(place, &self.0.limits);
        let room = wait(room.acquire_owned(), within, || self.hung(&place)).await?;
        let room = room.expect("the semaphore is never closed");
        let (answer, result) = oneshot::channel();
        self.submit(&place, move || {
            drop(room);
            // Nobody waits any more when the future was dropped; the result undoes itself.
            let _ = answer.send(job());
        });
        Ok(Started { pool: self.clone(), place, result })
    }

    /// Runs a job that nobody waits for: a part of another, or the undoing of something that was dropped.
    pub(crate) fn submit(&self, place: &str, job: impl FnOnce() + Send + 'static) {
        self.submit_all(place, [Box::new(job) as Job]);
    }

    /// Runs several such jobs; their threads are woken at once.
    pub(crate) fn submit_all(&self, place: &str, jobs: impl IntoIterator<Item = Job>) {
        let mut queue = self.0.lock();
        jobs.into_iter().for_each(|job| queue.push(place, job, &self.0.limits));
        let unwanted = self.0.staff(&mut queue);
        drop(queue);
        drop(unwanted);
    }

    /// Why a job in this place would be in vain.
    pub(crate) fn hung(&self, place: &str) -> Option<Lost> {
        self.0.lock().hung(place, &self.0.limits, Instant::now())
    }

    /// A job of several parts, submitted one by one, the last of which answers.
    pub(crate) fn started<T>(&self, place: &str, result: oneshot::Receiver<T>) -> Started<T> {
        Started { pool: self.clone(), place: place.into(), result }
    }

    /// Waits until nobody else writes in this file or directory, whose jobs are those of `place`.
    pub(crate) async fn writer(&self, place: &str, whose: Place, within: Duration) -> Result<Writer, Lost> {
        let Turns { writer, names } = {
            let mut writers = self.0.writers.lock().unwrap_or_else(PoisonError::into_inner);
            if writers.len() > 64 {
                writers.retain(|_, of| Arc::strong_count(&of.writer) > 1 || Arc::strong_count(&of.names) > 1);
            }
            writers.entry(whose).or_default().clone()
        };
        let held = wait(writer.lock_owned(), within, || self.hung(place)).await?;
        Ok(Writer { names: Names(names), _held: held })
    }
}

/// The right to write in one place; others wait until it is dropped.
pub(crate) struct Writer {
    names: Names,
    _held: OwnedMutexGuard<()>,
}

impl Writer {
    /// The place's lock for what must not happen at once even where writers overlap; it stays with whoever took it
    /// along, also when the writer is dropped.
    pub(crate) fn names(&self) -> Names {
        self.names.clone()
    }
}

/// The lock of the names in one place: held by threads of the pool, and only while they make calls there.
#[derive(Clone)]
pub(crate) struct Names(Arc<Mutex<()>>);

impl Names {
    /// Waits until nobody else changes names there that somebody is about to sync.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts threads for what can begin. Gives back jobs that never will, as there is no thread at all: to be dropped
    /// without the lock.
    fn staff(self: &Arc<Self>, queue: &mut Queue) -> Vec<Job> {
        let startable = queue.startable(&self.limits);
        for _ in queue.idle..startable.min(self.limits.threads - (queue.threads - queue.idle)) {
            let inner = self.clone();
            match thread::Builder::new().name("disk".into()).spawn(move || inner.work()) {
                Ok(_) => (queue.threads, queue.idle) = (queue.threads + 1, queue.idle + 1),
                // With one it only waits.
                Err(_) if queue.threads > 0 => break,
                Err(error) => {
                    tracing::error!(%error, during = "starting a thread for file work", "no thread");
                    return queue.clear();
                }
            }
        }
        // No more than have something to do: the others would only look and sleep again.
        match startable {
            0 => {}
            1..=8 => (0..startable).for_each(|_| self.work.notify_one()),
            _ => self.work.notify_all(),
        }
        Vec::new()
    }

    /// Sees to it that somebody looks whether the calls of a job that begins return.
    fn keep_watch(self: &Arc<Self>, queue: &mut Queue) {
        match queue.watcher {
            Watcher::Looks => {}
            Watcher::Rests => self.watch.notify_one(),
            Watcher::None => {
                let inner = self.clone();
                if thread::Builder::new().name("disk-watch".into()).spawn(move || inner.watch()).is_err() {
                    return;
                }
            }
        }
        queue.watcher = Watcher::Looks;
    }

    /// One thread's life.
    fn work(self: &Arc<Self>) {
        let mut queue = self.lock();
        loop {
            let Some((number, pulse, job)) = queue.next(&self.limits, Instant::now()) else {
                let (woken, wait) = self.work.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
                queue = woken;
                if wait.timed_out() && queue.startable(&self.limits) == 0 {
                    (queue.threads, queue.idle) = (queue.threads - 1, queue.idle - 1);
                    return;
                }
                continue;
            };
            queue.idle -= 1;
            self.keep_watch(&mut queue);
            drop(queue);
            PULSE.set(Some(pulse));
            // Whoever waits for the result sees that its sender is gone.
            let _ = catch_unwind(AssertUnwindSafe(job));
            PULSE.set(None);
            queue = self.lock();
            let was_slow = queue.done(number);
            if was_slow {
                // What waited for its return can begin.
                self.work.notify_all();
                if queue.threads >= self.limits.threads {
                    return;
                }
                queue.threads += 1;
            }
            queue.idle += 1;
        }
    }

    /// The life of the thread that replaces those whose calls do not return.
    fn watch(self: Arc<Self>) {
        let mut queue = self.lock();
        loop {
            let slow = queue.write_off(&self.limits, Instant::now());
            queue.threads -= slow;
            let unwanted = if slow > 0 { self.staff(&mut queue) } else { Vec::new() };
            if !unwanted.is_empty() {
                drop(queue);
                drop(unwanted);
                queue = self.lock();
            }
            if queue.busy() > 0 {
                drop(queue);
                thread::sleep((self.limits.slow_after / 2).max(Duration::from_millis(1)));
                queue = self.lock();
                continue;
            }
            queue.watcher = Watcher::Rests;
            queue = self.watch.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner).0;
            if queue.watcher == Watcher::Rests {
                queue.watcher = Watcher::None;
                return;
            }
        }
    }
}

impl fmt::Debug for DiskPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskPool").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn quick(threads: usize) -> PoolLimits {
        let (slow_after, hung_after) = (Duration::from_millis(50), Duration::from_millis(200));
        PoolLimits { threads, slow_after, hung_after, ..PoolLimits::default() }
    }

    /// Jobs that hang until this is dropped.
    fn gate() -> (mpsc::Sender<()>, impl Fn() + Clone + Send + 'static) {
        let (gate, shut) = mpsc::channel::<()>();
        let shut = Arc::new(Mutex::new(shut));
        (gate, move || {
            let _ = shut.lock().unwrap_or_else(PoisonError::into_inner).recv();
        })
    }

    #[tokio::test]
    async fn a_panicking_job_harms_nobody_else() {
        let pool = DiskPool::new(1);
        assert_eq!(pool.run("a", LONG, || -> u8 { panic!("as the test wants") }).await, Err(Lost::Panicked));
        assert_eq!(pool.run("a", LONG, || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn one_place_has_one_writer() {
        let pool = DiskPool::new(1);
        let first = pool.writer("a", (1, 1), LONG).await.ok().unwrap();
        let _other = pool.writer("a", (1, 2), LONG).await.ok().unwrap();
        let second = pool.writer("b", (1, 1), Duration::from_millis(20)).await;
        assert_eq!(second.err(), Some(Lost::Late(Duration::from_millis(20))));
        drop(first);
        assert!(pool.writer("a", (1, 1), LONG).await.is_ok());
    }

    #[tokio::test]
    async fn many_more_places_that_hang_than_threads_leave_the_others_theirs() {
        let pool = DiskPool::with_limits(quick(4));
        let (gate, hang) = gate();
        let mut hung = Vec::new();
        for place in 0..50 {
            for _ in 0..3 {
                hung.push(pool.start(&format!("hung{place}"), LONG, hang.clone()).await.ok().unwrap());
            }
        }
        for place in 0..50 {
            assert_eq!(pool.run(&format!("well{place}"), LONG, move || place).await, Ok(place));
        }
        while pool.slow() < 50 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Of each place one, and those that began in the same moment.
        assert!(pool.slow() <= 75, "{}", pool.slow());
        drop(gate);
        for started in hung {
            assert_eq!(started.end_patiently(LONG).await, Ok(()));
        }
        assert_eq!(pool.slow(), 0);
    }

    #[tokio::test]
    async fn with_all_threads_away_places_that_were_well_are_still_served_and_unknown_ones_are_told() {
        let pool = DiskPool::with_limits(PoolLimits { slow_threads: 2, ..quick(4) });
        assert_eq!(pool.run("well", LONG, || 1).await, Ok(1));
        let (gate, hang) = gate();
        for place in 0..20 {
            // Beyond the first few these are refused.
            let _ = pool.start(&format!("hung{place}"), LONG, hang.clone()).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(pool.run("well", LONG, || 2).await, Ok(2));
        let unknown = pool.run("unknown", LONG, || 3).await;
        assert!(matches!(unknown, Err(Lost::Crowded(_))), "{unknown:?}");
        drop(gate);
        while pool.run("unknown", LONG, || 3).await != Ok(3) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_place_that_hangs_says_so_at_once_until_it_is_back() {
        let pool = DiskPool::with_limits(quick(4));
        let (gate, hang) = gate();
        let waiting = pool.start("a", LONG, hang).await.ok().unwrap();
        // Who waits already is told as well.
        let told = waiting.end(LONG).await;
        assert!(matches!(told, Err(Lost::Hung(since)) if since >= quick(4).hung_after), "{told:?}");
        assert!(matches!(pool.run("a", LONG, || 1).await, Err(Lost::Hung(_))));
        let (undone, undoing) = oneshot::channel();
        pool.submit("a", move || {
            let _ = undone.send(());
        });
        assert_eq!(pool.run("b", LONG, || 1).await, Ok(1));
        drop(gate);
        undoing.await.unwrap();
        assert_eq!(pool.run("a", LONG, || 2).await, Ok(2));
    }

    #[tokio::test]
    async fn a_long_job_whose_calls_return_is_neither_slow_nor_hung() {
        let pool = DiskPool::with_limits(PoolLimits { slow_after: LONG, ..quick(2) });
        let job = || {
            for _ in 0..100 {
                thread::sleep(Duration::from_millis(5));
                beat();
            }
        };
        assert_eq!(pool.run("a", LONG, job).await, Ok(()));
    }

    #[tokio::test]
    async fn a_full_queue_makes_its_own_place_wait_and_no_other() {
        let pool = DiskPool::with_limits(PoolLimits { waiting_per_place: 2, hung_after: LONG, ..quick(2) });
        let (gate, hang) = gate();
        let mut started = Vec::new();
        started.push(pool.start("a", LONG, hang).await.ok().unwrap());
        while pool.slow() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..2 {
            started.push(pool.start("a", LONG, || {}).await.ok().unwrap());
        }
        let one_more = pool.start("a", Duration::from_millis(20), || {}).await;
        assert_eq!(one_more.err(), Some(Lost::Late(Duration::from_millis(20))));
        assert_eq!(pool.run("b", LONG, || 1).await, Ok(1));
        drop(gate);
        for started in started {
            assert_eq!(started.end(LONG).await, Ok(()));
        }
    }
}
