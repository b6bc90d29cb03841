use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedMutexGuard, Semaphore, oneshot};

/// Jobs that may wait for a thread before those who ask wait themselves.
const MAX_WAITING: usize = 1024;
/// A thread with nothing to do ends after this long.
const IDLE: Duration = Duration::from_secs(10);

/// Threads for file work, apart from tokio's, so that a slow disk holds up nothing but the mail that goes there.
///
/// Threads start when there is work and end when there is none. Clones share them. The pool also knows who is writing
/// where, so that one file or Maildir has one writer at a time.
#[derive(Clone)]
pub struct DiskPool(Arc<Inner>);

struct Inner {
    threads: usize,
    admission: Arc<Semaphore>,
    queue: Mutex<Queue>,
    work: Condvar,
    writers: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    running: usize,
    idle: usize,
}

type Job = Box<dyn FnOnce() + Send>;

/// Device and inode of a directory or file.
pub(crate) type Place = (u64, u64);

/// The job panicked; the panic's text is on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

impl DiskPool {
    /// A pool of at most `threads` threads, at least 1.
    pub fn new(threads: usize) -> Self {
        Self(Arc::new(Inner {
            threads: threads.max(1),
            admission: Arc::new(Semaphore::new(MAX_WAITING)),
            queue: Mutex::default(),
            work: Condvar::new(),
            writers: Mutex::default(),
        }))
    }

    /// The process's pool, of 32 threads.
    pub fn shared() -> Self {
        static SHARED: OnceLock<DiskPool> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(32)).clone()
    }

    /// Most threads.
    pub fn threads(&self) -> usize {
        self.0.threads
    }

    /// Runs a job and waits for its result. Dropping the future does not end the job.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        self.start(job).await.await.map_err(|_| Panicked)
    }

    /// Starts a job; its result comes by the channel, which is cut when the job panics.
    pub(crate) async fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let admitted = self.0.admission.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (answer, result) = oneshot::channel();
        self.submit(move || {
            let done = job();
            drop(admitted);
            // Nobody waits any more when the future was dropped; the result undoes itself.
            let _ = answer.send(done);
        });
        result
    }

    /// Runs a job that nobody waits for: the undoing of something that was dropped.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.lock();
        queue.jobs.push_back(Box::new(job));
        if queue.idle < queue.jobs.len() && queue.running < self.0.threads {
            let inner = self.0.clone();
            let started = thread::Builder::new().name("disk".into()).spawn(move || inner.work());
            match started {
                Ok(_) => queue.running += 1,
                // Without a single thread the job would never run; with one it only waits.
                Err(_) if queue.running > 0 => {}
                Err(error) => {
                    tracing::error!(%error, during = "starting a thread for file work", "no thread");
                    let job = queue.jobs.pop_back();
                    drop(queue);
                    drop(job);
                    return;
                }
            }
        }
        drop(queue);
        self.0.work.notify_one();
    }

    /// Waits until nobody else writes in this place.
    pub(crate) async fn writer(&self, place: Place) -> Writer {
        let lock = {
            let mut writers = self.0.writers.lock().unwrap_or_else(PoisonError::into_inner);
            if writers.len() > 64 {
                writers.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            writers.entry(place).or_default().clone()
        };
        Writer { _held: lock.lock_owned().await }
    }
}

/// The right to write in one place; others wait until it is dropped.
pub(crate) struct Writer {
    _held: OwnedMutexGuard<()>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                // Whoever waits for the result sees that its sender is gone.
                let _ = catch_unwind(AssertUnwindSafe(job));
                queue = self.lock();
                continue;
            }
            queue.idle += 1;
            let since = Instant::now();
            while queue.jobs.is_empty() && since.elapsed() < IDLE {
                queue = self.work.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner).0;
            }
            queue.idle -= 1;
            if queue.jobs.is_empty() {
                queue.running -= 1;
                return;
            }
        }
    }
}

impl fmt::Debug for DiskPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskPool").field("threads", &self.0.threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_job_harms_nobody_else() {
        let pool = DiskPool::new(1);
        assert_eq!(pool.run(|| -> u8 { panic!("as the test wants") }).await, Err(Panicked));
        assert_eq!(pool.run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn one_place_has_one_writer() {
        let pool = DiskPool::new(1);
        let first = pool.writer((1, 1)).await;
        let _other = pool.writer((1, 2)).await;
        let second = tokio::time::timeout(Duration::from_millis(20), pool.writer((1, 1)));
        assert!(second.await.is_err());
        drop(first);
        pool.writer((1, 1)).await;
    }
}
