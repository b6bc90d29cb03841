//! The store in one SQLite file.
//!
//! One thread writes. What is queued while it commits goes into its next commit, so a commit's fsync is shared by all who
//! wait and nobody waits for a timer. Two threads read. The database is in WAL mode with `synchronous=FULL`: a change is
//! on the disk when its method returns, but for the end of a check in which nothing happened
//! ([`Store::record_check`]), which costs no fsync.
//!
//! | file in the directory | what it is |
//! |---|---|
//! | `state.db`, `state.db-wal`, `state.db-shm` | the database |
//! | `lock` | held by the process that has it open, whose id is in it; empty after an end in order |

mod accounts;
mod directory;
pub(crate) mod fault;
mod leases;
pub(crate) mod messages;
mod notices;
mod saved;
pub(crate) mod schema;
mod threads;
mod values;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connectord_account::{Entry, Key, Ledger, State};
use connectord_delivery::Note;
use connectord_mail::{Fingerprint, UnixTime};
use connectord_store::memory::Message;
use connectord_store::{
    AccountId, AccountRow, Begin, DeliveryRow, Health, Lease, MailboxId, MailboxRow, Mark, MessageName, MessageRef,
    ParkedRow, PutOff, RunId, RunRow, Settle, Store, StoreError,
};
use rusqlite::Connection;
use tokio::sync::oneshot;

pub use self::saved::SECRET;

use self::fault::Fault;
use self::leases::Leases;
use self::threads::{Counters, Durability, Job, Link, Source, Threads};

/// How long a retired account is remembered.
const RETIRED: i64 = 90 * 86_400;

/// Checks remembered of each account.
const RUNS: i64 = 100;

/// Messages that are forgotten in one change, so that tidying makes nobody wait.
const TIDIED: usize = 2_000;

/// How a [`SqliteStore`] is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a lock that another program has on the database is waited for; default 5 s.
    pub busy_timeout: Duration,
    /// Threads that read, each with a connection; default 2, at least 1.
    pub readers: usize,
    /// Requests that may wait for a thread before the next one waits for room; default 1024, at least 1.
    pub queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), readers: 2, queue: 1024 }
    }
}

/// A [`Store`] in an SQLite file, for one process.
///
/// Dropping it waits for what is queued and closes the database; [`SqliteStore::close`] does so without blocking.
/// Cancel safety: a change whose future is dropped may still happen; the account stays leased until it has.
pub struct SqliteStore {
    directory: PathBuf,
    instance: String,
    options: Options,
    leases: Arc<Leases>,
    /// The last time anybody said; `i64::MIN` when nobody has.
    clock: AtomicI64,
    counters: Arc<Counters>,
    threads: Mutex<Option<Threads>>,
}

/// How much a [`SqliteStore`] has done since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Commits.
    pub commits: u64,
    /// Changes that were asked for; with many at once, several share a commit.
    pub changes: u64,
}

impl SqliteStore {
    /// Opens the state in a directory, which is made (0700) when only its last part is missing.
    ///
    /// Blocks for some milliseconds. After an unclean end the database is checked in the background, and the result is
    /// logged.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it open, [`StoreError::NewerSchema`] when a newer version wrote
    /// it, [`StoreError::Corrupt`] when it is none of ours, [`StoreError::Failed`] when the directory is on a network file
    /// system or cannot be used.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let during = "opening the state";
        let directory = directory.as_ref().to_owned();
        let lock = directory::take(&directory)?;
        let path = directory.join("state.db");
        schema::make_file(&path)?;
        // Whoever ends in order takes its mark out of the lock, and leaves a WAL only when nothing in it matters much.
        let unclean = lock.was_held && std::fs::metadata(directory.join("state.db-wal")).is_ok_and(|wal| wal.len() > 0);
        let lock = Arc::new(lock.file);
        let source = Source { path, busy_timeout: options.busy_timeout, read_only: false };
        let link = || -> Result<_, Fault> {
            let mut writer = Link::new(source.clone())?;
            schema::migrate(writer.connection()?)?;
            let connection = writer.connection()?;
            let sql = "SELECT value FROM meta WHERE name = 'instance'";
            let instance = connection.query_row(sql, [], |row| row.get(0))?;
            let clock = accounts::last_tick(connection)?.map_or(i64::MIN, |tick| tick.0);
            let reader = |_| Link::unconnected(Source { read_only: true, ..source.clone() });
            let readers = (0..options.readers.max(1)).map(reader).collect();
            let checker = if unclean { Some(source.connect()?) } else { None };
            Ok((writer, readers, checker, instance, clock))
        };
        let (writer, readers, checker, instance, clock) = link().map_err(|fault| fault.during(during))?;
        let counters = Arc::new(Counters::default());
        let failed = |error: std::io::Error| StoreError::Failed { during, text: format!("no thread: {error}") };
        let mut threads = threads::start(writer, readers, options.queue.max(1), &counters, &lock).map_err(failed)?;
        if let Some(connection) = checker {
            threads.check = Some(check(connection, directory.clone(), lock).map_err(failed)?);
        }
        Ok(Self {
            directory,
            instance,
            options,
            leases: Arc::default(),
            clock: AtomicI64::new(clock),
            counters,
            threads: Mutex::new(Some(threads)),
        })
    }

    /// The state directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Sixteen hexadecimal digits made by chance at the first start: names what belongs to this state.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// How much has been done since it was opened.
    pub fn work(&self) -> Work {
        Work {
            commits: self.counters.commits.load(Ordering::Relaxed),
            changes: self.counters.changes.load(Ordering::Relaxed),
        }
    }

    /// Writes a copy of the whole state, as of one moment, into a file that must not exist. Others go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Full`] or [`StoreError::Failed`]; the file is incomplete then.
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<(), StoreError> {
        let during = "writing a backup";
        self.running()?;
        let to = to.as_ref().to_owned();
        let (path, busy_timeout) = (self.directory.join("state.db"), self.options.busy_timeout);
        let copy = move || -> Result<(), StoreError> {
            let failed =
                |error: std::io::Error| StoreError::Failed { during, text: format!("{}: {error}", to.display()) };
            if to.exists() {
                return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
            }
            schema::make_file(&to)?;
            let vacuum = || -> Result<(), Fault> {
                let connection = schema::connect(&path, busy_timeout)?;
                connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
                Ok(())
            };
            vacuum().map_err(|fault| fault.during(during))?;
            File::open(&to).and_then(|file| file.sync_all()).map_err(failed)
        };
        let (reply, answer) = oneshot::channel();
        let thread = std::thread::Builder::new().name("state-backup".to_owned());
        thread
            .spawn(move || {
                let _ = reply.send(copy());
            })
            .map_err(|error| StoreError::Failed { during, text: format!("no thread: {error}") })?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Does what is queued and closes the database. Later calls answer [`StoreError::Closed`].
    pub async fn close(&self) {
        let Some(threads) = self.threads().take() else { return };
        let (reply, answer) = oneshot::channel();
        let ending = std::thread::Builder::new().name("state-close".to_owned()).spawn(move || {
            threads.end(true);
            let _ = reply.send(());
        });
        match ending {
            // An error means that the thread has ended.
            Ok(_) => answer.await.unwrap_or(()),
            Err(error) => tracing::error!(%error, "state: no thread to close it with"),
        }
    }

    fn threads(&self) -> MutexGuard<'_, Option<Threads>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Result<(), StoreError> {
        if self.threads().is_some() { Ok(()) } else { Err(StoreError::Closed) }
    }

    /// Remembers the time for what is not told it.
    fn told(&self, now: UnixTime) {
        self.clock.store(now.0, Ordering::Relaxed);
    }

    fn clock(&self) -> Option<UnixTime> {
        Some(UnixTime(self.clock.load(Ordering::Relaxed))).filter(|now| now.0 != i64::MIN)
    }

    /// Has the writer do something, under a lease when it is of an account.
    async fn write<T: Send + 'static>(
        &self,
        during: &'static str,
        lease: Option<&Lease>,
        act: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_with(Durability::Now, during, lease, act).await
    }

    async fn write_with<T: Send + 'static>(
        &self,
        durability: Durability,
        during: &'static str,
        lease: Option<&Lease>,
        act: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let sender = self.threads().as_ref().map(|threads| threads.write.clone()).ok_or(StoreError::Closed)?;
        let in_flight = lease.map(|lease| self.leases.enter(lease)).transpose()?;
        let (request, answer) = Job::request(during, durability, in_flight, act);
        sender.send(request).await.map_err(|_| StoreError::Closed)?;
        // The thread died with the answer: nobody knows.
        let lost = |_| Err(StoreError::Failed { during, text: "the writer ended".to_owned() });
        answer.await.unwrap_or_else(lost)
    }

    /// Has a reader look something up.
    async fn read<T: Send + 'static>(
        &self,
        during: &'static str,
        act: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let sender = self.threads().as_ref().map(|threads| threads.read.clone()).ok_or(StoreError::Closed)?;
        let (request, answer) = Job::request(during, Durability::Later, None, act);
        sender.send(request).await.map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if let Some(threads) = self.threads().take() {
            // Nobody else has a sender: every future that would borrows the store.
            threads.end(false);
        }
    }
}

/// Looks for damage after an unclean end, on a thread of its own.
fn check(
    connection: Connection,
    directory: PathBuf,
    lock: Arc<File>,
) -> std::io::Result<(rusqlite::InterruptHandle, std::thread::JoinHandle<()>)> {
    let interrupt = connection.get_interrupt_handle();
    let thread = std::thread::Builder::new().name("state-check".to_owned()).spawn(move || {
        let path = directory.display();
        match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
            Ok(found) if found == "ok" => tracing::warn!(%path, "state: not closed cleanly last time, and not damaged"),
            Ok(found) => tracing::error!(%path, found, "state: damaged; restore a backup"),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
                tracing::warn!(%path, "state: not closed cleanly last time, the check was cut short");
            }
            Err(error) => tracing::error!(%path, %error, "state: cannot be checked"),
        }
        drop(connection);
        drop(lock);
    })?;
    Ok((interrupt, thread))
}

/// Loads a message, has it changed, and saves it; one that is unknown begins as pending.
fn change<T>(
    connection: &Connection,
    name: MessageRef,
    act: impl FnOnce(&mut Message) -> Result<T, StoreError>,
) -> Result<T, Fault> {
    let before = messages::load(connection, name)?;
    let mut after = before.clone().unwrap_or_else(|| Message::new(name, State::Pending));
    let result = act(&mut after)?;
    messages::save(connection, before.as_ref(), &after)?;
    Ok(result)
}

/// What a person decides about a message; nothing when it is unknown.
fn decide(connection: &Connection, message: MessageRef, decision: fn(&mut Message) -> bool) -> Result<bool, Fault> {
    accounts::disturb(connection, message.mailbox)?;
    match messages::load(connection, message)? {
        Some(_) => change(connection, message, |message| Ok(decision(message))),
        None => Ok(false),
    }
}

fn mark(
    connection: &Connection,
    mailbox: MailboxId,
    marked: &[(Key, u16)],
    mark: Mark,
    now: Option<UnixTime>,
) -> Result<(), Fault> {
    for (key, generation) in marked {
        let name = MessageRef { mailbox, key: *key, generation: *generation };
        let before = messages::load(connection, name)?;
        let after = Message::mark(before.clone(), name, mark, now)?;
        messages::save(connection, before.as_ref(), &after)?;
    }
    Ok(())
}

#[async_trait]
impl Store for SqliteStore {
    async fn open_account(&self, address: &str) -> Result<AccountRow, StoreError> {
        let during = "opening an account";
        let address: Arc<str> = address.to_lowercase().into();
        let known = Arc::clone(&address);
        if let Some(known) = self.read(during, move |connection| accounts::find_account(connection, &known)).await? {
            return Ok(known);
        }
        self.write(during, None, move |connection| accounts::open_account(connection, &address)).await
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        self.read("listing accounts", accounts::accounts).await
    }

    async fn retire_account(&self, address: &str, now: UnixTime) -> Result<(), StoreError> {
        let address = address.to_lowercase();
        self.write("retiring an account", None, move |connection| accounts::retire(connection, &address, now)).await
    }

    async fn lease(&self, account: AccountId) -> Result<Lease, StoreError> {
        let during = "taking a lease";
        let exists = move |connection: &Connection| accounts::exists(connection, account);
        // Taken first and looked up then, so that no account is forgotten between.
        let lease = self.leases.take(account)?;
        if !self.read(during, exists).await? {
            return Err(StoreError::Failed { during, text: format!("there is no account {}", account.0) });
        }
        Ok(lease)
    }

    async fn record_health(&self, lease: &Lease, health: &Health) -> Result<(), StoreError> {
        let (account, health) = (lease.account, health.clone());
        let act = move |connection: &Connection| accounts::record_health(connection, account, &health);
        self.write("recording an account's health", Some(lease), act).await
    }

    async fn open_mailbox(&self, lease: &Lease, name: &str, uid_validity: u32) -> Result<MailboxRow, StoreError> {
        let during = "opening a mailbox";
        let (account, name): (_, Arc<str>) = (lease.account, name.into());
        // Nothing changes under a lost lease, and nothing is told either.
        drop(self.leases.enter(lease)?);
        let known = Arc::clone(&name);
        let find = move |connection: &Connection| accounts::find_mailbox(connection, account, &known, uid_validity);
        if let Some(known) = self.read(during, find).await? {
            return Ok(known);
        }
        let act = move |connection: &Connection| accounts::open_mailbox(connection, account, &name, uid_validity);
        self.write(during, Some(lease), act).await
    }

    async fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxRow>, StoreError> {
        self.read("listing mailboxes", move |connection| accounts::mailboxes(connection, account)).await
    }

    async fn record_listing(
        &self,
        lease: &Lease,
        mailbox: &MailboxRow,
        messages: &[(Key, u16)],
        how: Mark,
    ) -> Result<(), StoreError> {
        if let Some(now) = mailbox.last_listed {
            self.told(now);
        }
        let (account, mailbox, marked, now) = (lease.account, mailbox.clone(), messages.to_vec(), self.clock());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, [mailbox.id])?;
            accounts::record_mailbox(connection, &mailbox)?;
            mark(connection, mailbox.id, &marked, how, now)
        };
        self.write("recording a listing", Some(lease), act).await
    }

    async fn ledger(&self, mailbox: MailboxId) -> Result<Vec<Entry>, StoreError> {
        let act = move |connection: &Connection| Ok(messages::ledger(connection, mailbox)?);
        self.read("reading the ledger", act).await
    }

    async fn packed_ledger(&self, mailbox: MailboxId, fingerprints: bool) -> Result<Ledger, StoreError> {
        let act = move |connection: &Connection| Ok(messages::packed_ledger(connection, mailbox, fingerprints)?);
        self.read("reading the ledger", act).await
    }

    async fn entries(&self, mailbox: MailboxId, keys: &[Key]) -> Result<Vec<Entry>, StoreError> {
        let keys = keys.to_vec();
        let act = move |connection: &Connection| Ok(messages::entries(connection, mailbox, &keys)?);
        self.read("looking messages up", act).await
    }

    async fn unfinished(&self, account: AccountId) -> Result<Vec<DeliveryRow>, StoreError> {
        let act = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "SELECT mailbox, key, generation, destination, user, address, step, attempt, note, uncertain
                 FROM delivery WHERE mailbox IN (SELECT id FROM mailbox WHERE account = ?1)
                 ORDER BY mailbox, key, generation, destination, user",
            )?;
            let rows = statement.query_map([account.0], |row| {
                let delivery = messages::delivery_from(row, 3)?;
                Ok(DeliveryRow {
                    message: messages::name_from(row)?,
                    uncertain_attempts: delivery.uncertain_attempts(),
                    destination: delivery.destination,
                    recipient: delivery.recipient,
                    step: delivery.step,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.read("reading unfinished deliveries", act).await
    }

    async fn staged(&self) -> Result<Vec<Note>, StoreError> {
        self.read("reading unfinished deliveries", |connection| Ok(messages::staged(connection)?)).await
    }

    async fn begin(&self, lease: &Lease, messages: &[Begin], now: UnixTime) -> Result<(), StoreError> {
        self.told(now);
        let (account, messages) = (lease.account, messages.to_vec());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, messages.iter().map(|begin| begin.message.mailbox))?;
            for begin in &messages {
                change(connection, begin.message, |message| {
                    message.begin(begin, now);
                    Ok(())
                })?;
            }
            Ok(())
        };
        self.write("beginning deliveries", Some(lease), act).await
    }

    async fn settle(&self, lease: &Lease, settled: &[Settle], now: UnixTime) -> Result<(), StoreError> {
        self.told(now);
        let (account, settled) = (lease.account, settled.to_vec());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, settled.iter().map(|settle| settle.message.mailbox))?;
            for settle in &settled {
                change(connection, settle.message, |message| message.settle(settle, now))?;
            }
            Ok(())
        };
        self.write("settling deliveries", Some(lease), act).await
    }

    async fn defer(
        &self,
        lease: &Lease,
        message: MessageRef,
        name: &MessageName,
        retry_at: UnixTime,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.told(now);
        let (account, name, reason) = (lease.account, name.clone(), reason.to_owned());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, [message.mailbox])?;
            change(connection, message, |message| {
                message.defer(&name, retry_at, &reason, now);
                Ok(())
            })
        };
        self.write("deferring a message", Some(lease), act).await
    }

    async fn put_off(&self, lease: &Lease, messages: &[PutOff], now: UnixTime) -> Result<(), StoreError> {
        self.told(now);
        let (account, messages) = (lease.account, messages.to_vec());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, messages.iter().map(|put_off| put_off.message.mailbox))?;
            for put_off in &messages {
                change(connection, put_off.message, |message| {
                    message.put_off(put_off, now);
                    Ok(())
                })?;
            }
            Ok(())
        };
        self.write("putting messages off", Some(lease), act).await
    }

    async fn park(
        &self,
        lease: &Lease,
        message: MessageRef,
        name: &MessageName,
        fingerprint: Option<Fingerprint>,
        size_octets: u64,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.told(now);
        let (account, name, reason) = (lease.account, name.clone(), reason.to_owned());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, [message.mailbox])?;
            change(connection, message, |message| {
                message.park(&name, fingerprint, size_octets, &reason, now);
                Ok(())
            })
        };
        self.write("parking a message", Some(lease), act).await
    }

    async fn mark(
        &self,
        lease: &Lease,
        mailbox: MailboxId,
        messages: &[(Key, u16)],
        how: Mark,
    ) -> Result<(), StoreError> {
        let (account, marked, now) = (lease.account, messages.to_vec(), self.clock());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, [mailbox])?;
            mark(connection, mailbox, &marked, how, now)
        };
        self.write("marking messages", Some(lease), act).await
    }

    async fn adopt(&self, lease: &Lease, adopted: &[(MessageRef, MessageRef, Fingerprint)]) -> Result<(), StoreError> {
        let (account, adopted) = (lease.account, adopted.to_vec());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, adopted.iter().flat_map(|(from, to, _)| [from.mailbox, to.mailbox]))?;
            for (from, to, fingerprint) in &adopted {
                let known = messages::load(connection, *to)?;
                if from == to || known.as_ref().is_some_and(|known| !known.may_be_replaced()) {
                    continue;
                }
                if let Some(old) = messages::load(connection, *from)? {
                    messages::remove(connection, *from)?;
                    messages::remove(connection, *to)?;
                    messages::save(connection, None, &old.adopted_as(*to, *fingerprint))?;
                }
            }
            Ok(())
        };
        self.write("adopting messages", Some(lease), act).await
    }

    async fn troubled(&self, account: Option<AccountId>, pending: bool) -> Result<Vec<ParkedRow>, StoreError> {
        self.read("listing messages in trouble", move |connection| accounts::troubled(connection, account, pending))
            .await
    }

    async fn retry(&self, message: MessageRef) -> Result<bool, StoreError> {
        self.write("retrying a message", None, move |connection| decide(connection, message, Message::retry)).await
    }

    async fn deliver(&self, message: MessageRef) -> Result<bool, StoreError> {
        let act = move |connection: &Connection| decide(connection, message, Message::deliver_anyway);
        self.write("having a message delivered anyway", None, act).await
    }

    async fn skip(&self, message: MessageRef) -> Result<bool, StoreError> {
        self.write("skipping a message", None, move |connection| decide(connection, message, Message::skip)).await
    }

    async fn delete(&self, message: MessageRef) -> Result<bool, StoreError> {
        self.write("discarding a message", None, move |connection| decide(connection, message, Message::delete)).await
    }

    async fn record_run(&self, lease: &Lease, run: &RunRow) -> Result<(), StoreError> {
        let (account, run) = (lease.account, run.clone());
        let act = move |connection: &Connection| accounts::record_run(connection, account, &run, RUNS);
        self.write("recording a check", Some(lease), act).await
    }

    async fn record_check(
        &self,
        lease: &Lease,
        health: &Health,
        run: &RunRow,
        listings: &[MailboxRow],
    ) -> Result<(), StoreError> {
        if let Some(now) = listings.iter().filter_map(|mailbox| mailbox.last_listed).max() {
            self.told(now);
        }
        let durability = if run.is_uneventful() { Durability::Later } else { Durability::Now };
        let (account, health, run, listings) = (lease.account, health.clone(), run.clone(), listings.to_vec());
        let act = move |connection: &Connection| {
            accounts::owned(connection, account, listings.iter().map(|mailbox| mailbox.id))?;
            for mailbox in &listings {
                accounts::record_mailbox(connection, mailbox)?;
            }
            accounts::record_health(connection, account, &health)?;
            accounts::record_run(connection, account, &run, RUNS)
        };
        self.write_with(durability, "recording a check", Some(lease), act).await
    }

    async fn runs_before(
        &self,
        account: AccountId,
        before: Option<RunId>,
        most: usize,
    ) -> Result<Vec<(RunId, RunRow)>, StoreError> {
        self.read("listing checks", move |connection| accounts::runs(connection, account, before, most)).await
    }

    async fn tick(&self, now: UnixTime) -> Result<Option<UnixTime>, StoreError> {
        self.told(now);
        self.write("remembering the time", None, move |connection| accounts::tick(connection, now)).await
    }

    async fn notices(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.read("reading what was told", notices::all).await
    }

    async fn record_notices(&self, changes: &[(String, Option<String>)]) -> Result<(), StoreError> {
        let changes = changes.to_vec();
        self.write("remembering what was told", None, move |connection| notices::record(connection, &changes)).await
    }

    async fn tidy(&self, now: UnixTime) -> Result<(), StoreError> {
        let during = "forgetting what is old";
        let limit = UnixTime(now.0.saturating_sub(RETIRED));
        for account in self.read(during, move |connection| accounts::forgettable(connection, limit)).await? {
            // Somebody works on it: another day.
            let Ok(lease) = self.leases.take(account) else { continue };
            let part = move |connection: &Connection| accounts::forget(connection, account, limit, TIDIED);
            while self.write(during, Some(&lease), part).await? {}
        }
        let all = |connection: &Connection| -> Result<Vec<MailboxId>, Fault> {
            let mut statement = connection.prepare("SELECT id FROM mailbox")?;
            Ok(statement.query_map([], |row| row.get(0).map(MailboxId))?.collect::<Result<_, _>>()?)
        };
        for mailbox in self.read(during, all).await? {
            let mut after = None;
            loop {
                let gone = move |connection: &Connection| accounts::gone(connection, mailbox, after, TIDIED);
                let gone = self.read(during, gone).await?;
                let Some(last) = gone.last() else { break };
                after = Some((last.entry.key, last.entry.generation));
                let old: Vec<_> =
                    gone.into_iter().filter(|gone| gone.gone_at.is_none() || gone.is_forgettable(now)).collect();
                if old.is_empty() {
                    continue;
                }
                let forget = move |connection: &Connection| {
                    for old in &old {
                        // It may have come back since it was read.
                        let current = messages::load(connection, old.name())?;
                        if current.as_ref() != Some(old) {
                            continue;
                        }
                        if old.is_forgettable(now) {
                            messages::remove(connection, old.name())?;
                        } else {
                            let dated = Message { gone_at: Some(now), ..old.clone() };
                            messages::save(connection, Some(old), &dated)?;
                        }
                    }
                    Ok(())
                };
                self.write(during, None, forget).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn state() -> (tempfile::TempDir, SqliteStore, Lease, MailboxId) {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("state"), Options::default()).unwrap();
        let account = store.open_account("ann@example.org").await.unwrap();
        let lease = store.lease(account.id).await.unwrap();
        let mailbox = store.open_mailbox(&lease, "INBOX", 1).await.unwrap().id;
        (directory, store, lease, mailbox)
    }

    async fn pragma(store: &SqliteStore, sql: &'static str) -> i64 {
        store
            .write("testing", None, move |connection| Ok(connection.query_row(sql, [], |row| row.get(0))?))
            .await
            .unwrap()
    }

    fn keys(count: u32) -> Vec<(Key, u16)> {
        (0..count).map(|uid| (Key::Uid(uid), 0)).collect()
    }

    #[tokio::test]
    async fn a_full_database_takes_nothing_until_there_is_room() {
        let (_directory, store, lease, mailbox) = state().await;
        let pages = pragma(&store, "PRAGMA page_count").await;
        assert!(pragma(&store, "PRAGMA max_page_count = 20").await >= pages);
        let result = store.mark(&lease, mailbox, &keys(10_000), Mark::Skipped).await;
        assert_eq!(result, Err(StoreError::Full { during: "marking messages" }));
        assert_eq!(store.ledger(mailbox).await.unwrap(), []);
        // A small change still fits.
        store.mark(&lease, mailbox, &keys(10), Mark::Skipped).await.unwrap();
        pragma(&store, "PRAGMA max_page_count = 1000000").await;
        store.mark(&lease, mailbox, &keys(10_000), Mark::Skipped).await.unwrap();
        assert_eq!(store.ledger(mailbox).await.unwrap().len(), 10_000);
    }

    #[tokio::test]
    async fn a_connection_is_not_believed_after_a_failed_fsync() {
        let (_directory, store, lease, mailbox) = state().await;
        store.mark(&lease, mailbox, &keys(3), Mark::Skipped).await.unwrap();
        let act = |connection: &Connection| Ok(connection.execute_batch("PRAGMA cache_size = 4321")?);
        store.write("testing", None, act).await.unwrap();
        assert_eq!(pragma(&store, "PRAGMA cache_size").await, 4321);
        let act = move |connection: &Connection| -> Result<(), Fault> {
            mark(connection, mailbox, &keys(9), Mark::Skipped, None)?;
            let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
            Err(Fault::Sql(rusqlite::Error::SqliteFailure(failure, None)))
        };
        let result = store.write("testing", Some(&lease), act).await;
        assert!(matches!(result, Err(StoreError::Failed { .. })));
        assert_ne!(pragma(&store, "PRAGMA cache_size").await, 4321);
        assert_eq!(store.ledger(mailbox).await.unwrap().len(), 3);
        store.mark(&lease, mailbox, &keys(5), Mark::Skipped).await.unwrap();
        assert_eq!(store.ledger(mailbox).await.unwrap().len(), 5);
    }

    #[tokio::test]
    async fn the_connections_are_as_durable_as_said() {
        let (_directory, store, ..) = state().await;
        let text = |sql: &'static str| {
            store.write("testing", None, move |connection| {
                Ok(connection.query_row(sql, [], |row| row.get::<_, String>(0))?)
            })
        };
        assert_eq!(text("PRAGMA journal_mode").await.unwrap(), "wal");
        // FULL
        assert_eq!(pragma(&store, "PRAGMA synchronous").await, 2);
        assert_eq!(pragma(&store, "PRAGMA foreign_keys").await, 1);
        assert_eq!(pragma(&store, "PRAGMA auto_vacuum").await, 0);
        assert_eq!(pragma(&store, "PRAGMA wal_autocheckpoint").await, 1000);
        assert_eq!(pragma(&store, "PRAGMA application_id").await, 0x434E_4452);
        let write = |connection: &Connection| Ok(connection.execute("DELETE FROM meta", [])?);
        assert!(matches!(store.read("testing", write).await, Err(StoreError::Failed { .. })));
    }

    #[tokio::test]
    async fn a_half_forgotten_account_is_never_found_again() {
        let (_directory, store, lease, mailbox) = state().await;
        store.mark(&lease, mailbox, &keys(10), Mark::Skipped).await.unwrap();
        let account = lease.account;
        drop(lease);
        store.retire_account("ann@example.org", UnixTime(5)).await.unwrap();
        let part = move |connection: &Connection| accounts::forget(connection, account, UnixTime(5), 4);
        assert!(store.write("testing", None, part).await.unwrap());
        assert_eq!(store.accounts().await.unwrap(), []);
        assert!(store.lease(account).await.is_err());
        assert_ne!(store.open_account("ann@example.org").await.unwrap().id, account);
        store.tidy(UnixTime(5)).await.unwrap();
        assert_eq!(store.ledger(mailbox).await.unwrap(), []);
    }
}
