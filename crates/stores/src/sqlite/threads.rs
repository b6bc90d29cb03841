use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connectord_store::StoreError;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{mpsc, oneshot};

use super::fault::{self, Fault};
use super::leases::InFlight;
use super::schema;

/// Most jobs that are answered by one commit.
const GROUP: usize = 1024;

/// What is sent to a thread.
pub(super) enum Request {
    /// Something to do.
    Work(Box<dyn Work>),
    /// Nothing more is taken; what is queued is done, then the thread ends.
    Close,
}

/// Whether a change must be on the disk when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// It must.
    Now,
    /// A power failure may undo it, with all that follows it.
    Later,
}

/// A job, with the answer it owes.
pub(super) trait Work: Send {
    /// Does it. An error undoes it, and nothing else of its group.
    fn run(&mut self, connection: &Connection) -> Result<(), Fault>;
    /// Answers, once it is known whether the group's commit succeeded.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
    /// What it does, for errors.
    fn during(&self) -> &'static str;
    /// When it must be on the disk.
    fn durability(&self) -> Durability;
}

/// A job made of a closure.
pub(super) struct Job<T, F> {
    during: &'static str,
    durability: Durability,
    act: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    in_flight: Option<InFlight>,
}

impl<T, F> Job<T, F>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
{
    pub(super) fn request(
        during: &'static str,
        durability: Durability,
        in_flight: Option<InFlight>,
        act: F,
    ) -> (Request, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Request::Work(Box::new(Self { during, durability, act: Some(act), result: None, reply, in_flight })), answer)
    }
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T, Fault> + Send> Work for Job<T, F> {
    fn run(&mut self, connection: &Connection) -> Result<(), Fault> {
        if let Some(act) = self.act.take() {
            self.result = Some(act(connection)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { during, result, reply, in_flight, .. } = *self;
        // Before the answer, so that whoever gives the lease back after it has given it back.
        drop(in_flight);
        let lost = || StoreError::Failed { during, text: "it was not done".to_owned() };
        // Nobody waits when the caller was cancelled.
        let _ = reply.send(committed.and_then(|()| result.ok_or_else(lost)));
    }

    fn during(&self) -> &'static str {
        self.during
    }

    fn durability(&self) -> Durability {
        self.durability
    }
}

/// Where a thread's connection leads to, and how to make it again.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) busy_timeout: Duration,
    pub(super) read_only: bool,
}

impl Source {
    pub(super) fn connect(&self) -> Result<Connection, rusqlite::Error> {
        let connection = schema::connect(&self.path, self.busy_timeout)?;
        if self.read_only {
            connection.execute_batch("PRAGMA query_only = ON")?;
        }
        Ok(connection)
    }
}

/// A connection that is made anew after the operating system has failed below it.
pub(super) struct Link {
    source: Source,
    connection: Option<Connection>,
}

impl Link {
    pub(super) fn new(source: Source) -> Result<Self, rusqlite::Error> {
        let connection = Some(source.connect()?);
        Ok(Self { source, connection })
    }

    /// Connects at first use.
    pub(super) fn unconnected(source: Source) -> Self {
        Self { source, connection: None }
    }

    pub(super) fn connection(&mut self) -> Result<&mut Connection, Fault> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(self.source.connect()?)),
        }
    }

    /// After a failed fsync nobody knows what is on the disk: nothing the connection remembers is believed.
    fn distrust(&mut self, fault: &Fault) {
        if fault.distrusts_connection() {
            tracing::error!(error = ?fault, "state: the disk failed, opening the database anew");
            self.connection = None;
        }
    }
}

/// How much the writer has done.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) changes: AtomicU64,
}

/// The only thread that writes: all that is queued goes into one commit, and is answered after it.
pub(super) fn write(mut link: Link, mut queue: mpsc::Receiver<Request>, counters: &Counters) {
    let mut requests = Vec::with_capacity(GROUP);
    let mut to_keep = false;
    while queue.blocking_recv_many(&mut requests, GROUP) > 0 {
        let mut group = Vec::with_capacity(requests.len());
        for request in requests.drain(..) {
            match request {
                Request::Work(work) => group.push(work),
                Request::Close => queue.close(),
            }
        }
        if !group.is_empty() {
            to_keep |= group.iter().any(|work| work.durability() == Durability::Now);
            commit(&mut link, group, counters);
        }
    }
    let Ok(connection) = link.connection() else { return };
    if !to_keep {
        // Nothing that must last: three fsyncs less, and the next start goes on with this WAL.
        let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        if let Err(error) = kept {
            tracing::debug!(%error, "state: a checkpoint that could have been saved");
        }
    } else {
        // The last to close: the WAL goes into the database and away.
        let done = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        if let Err(error) = done {
            tracing::warn!(%error, "state: the last checkpoint failed; the next start makes up for it");
        }
    }
}

fn commit(link: &mut Link, group: Vec<Box<dyn Work>>, counters: &Counters) {
    let (done, result) = run_group(link, group);
    if result.is_ok() {
        counters.commits.fetch_add(1, Ordering::Relaxed);
    }
    let result = result.inspect_err(|fault| link.distrust(fault));
    let failed = result.err().map(|fault| fault.during("committing"));
    for (work, own) in done {
        counters.changes.fetch_add(1, Ordering::Relaxed);
        let during = work.during();
        work.answer(match (own, &failed) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(error)) => Err(fault::shared(error, during)),
            (Ok(()), None) => Ok(()),
        });
    }
}

/// Before a transaction: whether its commit waits for the disk. What follows one that did not takes it along.
fn synchronize(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.execute_batch(match durability {
        Durability::Now => "PRAGMA synchronous = FULL",
        Durability::Later => "PRAGMA synchronous = NORMAL",
    })
}

type Done = Vec<(Box<dyn Work>, Result<(), StoreError>)>;

/// Runs each job in a savepoint of one transaction; one that fails is undone alone.
fn run_group(link: &mut Link, group: Vec<Box<dyn Work>>) -> (Done, Result<(), Fault>) {
    let mut done: Done = Vec::with_capacity(group.len());
    let mut group = group.into_iter();
    let result = (|| {
        let connection = link.connection()?;
        let durability = if group.as_slice().iter().all(|work| work.durability() == Durability::Later) {
            Durability::Later
        } else {
            Durability::Now
        };
        synchronize(connection, durability)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for mut work in group.by_ref() {
            connection.prepare_cached("SAVEPOINT one")?.execute([])?;
            match work.run(connection) {
                Ok(()) => {
                    done.push((work, Ok(())));
                    connection.prepare_cached("RELEASE one")?.execute([])?;
                }
                Err(fault) => {
                    let lost = connection.is_autocommit();
                    let distrust = fault.distrusts_connection();
                    let during = work.during();
                    if lost || distrust {
                        // SQLite has undone the whole transaction, or is not believed any more: all others fail alike.
                        done.push((work, Ok(())));
                        return Err(fault);
                    }
                    done.push((work, Err(fault.during(during))));
                    connection.execute_batch("ROLLBACK TO one; RELEASE one")?;
                }
            }
        }
        connection.execute_batch("COMMIT")?;
        Ok(())
    })();
    done.extend(group.map(|work| (work, Ok(()))));
    // One that is not believed is closed, which undoes as well.
    let undo = matches!(&result, Err(fault) if !fault.distrusts_connection());
    if undo
        && let Ok(connection) = link.connection()
        && !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        link.distrust(&Fault::Sql(error));
    }
    (done, result)
}

/// A thread that reads: each job sees one moment of the database.
pub(super) fn read(mut link: Link, queue: &Mutex<mpsc::Receiver<Request>>) {
    loop {
        // Held while waiting: the other readers wait for the lock instead of the queue, which is the same.
        let request = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match request {
            None => return,
            Some(Request::Close) => queue.lock().unwrap_or_else(PoisonError::into_inner).close(),
            Some(Request::Work(mut work)) => {
                let during = work.during();
                let result = link.connection().and_then(|connection| {
                    connection.execute_batch("BEGIN")?;
                    let result = work.run(connection);
                    let ended = connection.execute_batch("ROLLBACK");
                    result.and_then(|()| ended.map_err(Fault::from))
                });
                if let Err(fault) = &result {
                    link.distrust(fault);
                }
                work.answer(result.map_err(|fault| fault.during(during)));
            }
        }
    }
}

/// The senders and the threads behind them. Dropping it ends the threads after what is queued.
pub(super) struct Threads {
    pub(super) write: mpsc::Sender<Request>,
    pub(super) read: mpsc::Sender<Request>,
    pub(super) writer: std::thread::JoinHandle<()>,
    pub(super) readers: Vec<std::thread::JoinHandle<()>>,
    pub(super) check: Option<(rusqlite::InterruptHandle, std::thread::JoinHandle<()>)>,
}

impl Threads {
    /// Ends all threads, the writer last. Blocks; with `close` also senders that others still hold are cut off, which
    /// must not be asked for on a thread of an async runtime.
    pub(super) fn end(self, close: bool) {
        let Self { write, read, writer, readers, check } = self;
        if let Some((interrupt, thread)) = check {
            interrupt.interrupt();
            join(thread);
        }
        let shut = |sender: mpsc::Sender<Request>| {
            if close {
                // An error means that the thread has ended already.
                let _ = sender.blocking_send(Request::Close);
            }
        };
        shut(read);
        readers.into_iter().for_each(join);
        shut(write);
        join(writer);
    }
}

fn join(thread: std::thread::JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("state: a thread of the database panicked");
    }
}

/// Starts the threads. The lock on the directory lives as long as any of them.
pub(super) fn start(
    writer: Link,
    readers: Vec<Link>,
    queue: usize,
    counters: &Arc<Counters>,
    lock: &Arc<std::fs::File>,
) -> std::io::Result<Threads> {
    let (write_sender, write_queue) = mpsc::channel(queue);
    let (read_sender, read_queue) = mpsc::channel(queue);
    let read_queue = Arc::new(Mutex::new(read_queue));
    let (counters, held) = (Arc::clone(counters), Arc::clone(lock));
    let writer = std::thread::Builder::new().name("state-writer".to_owned()).spawn(move || {
        write(writer, write_queue, &counters);
        super::directory::ended(&held);
        drop(held);
    })?;
    let readers = readers
        .into_iter()
        .map(|link| {
            let (queue, held) = (Arc::clone(&read_queue), Arc::clone(lock));
            std::thread::Builder::new().name("state-reader".to_owned()).spawn(move || {
                read(link, &queue);
                drop(held);
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Threads { write: write_sender, read: read_sender, writer, readers, check: None })
}
