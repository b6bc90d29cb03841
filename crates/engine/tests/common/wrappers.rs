//! A store and a delivery that fail when told to, and an observer that counts.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use async_trait::async_trait;
use connectord_account::{Entry, Key, Ledger};
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient,
};
use connectord_engine::{Observer, Progress};
use connectord_mail::{Fingerprint, UnixTime};
use connectord_store::{
    AccountId, AccountRow, Begin, DeliveryRow, Health, Lease, MailboxId, MailboxRow, Mark, MessageName, MessageRef,
    ParkedRow, PutOff, RunId, RunRow, Settle, Store, StoreError,
};
use tokio::sync::{Notify, watch};

/// Counts down to the call that fails.
#[derive(Default)]
pub(crate) struct Countdown {
    left: AtomicI64,
    calls: AtomicUsize,
}

impl Countdown {
    /// The `n`th call fails, from 1; none with 0.
    pub(crate) fn arm(&self, n: usize) {
        self.calls.store(0, Ordering::SeqCst);
        self.left.store(n as i64, Ordering::SeqCst);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn hits(&self) -> bool {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.left.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

/// A store of which one call fails: before anything is changed, or after, so that only the answer is lost.
pub(crate) struct FailingStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) countdown: Countdown,
    pub(crate) after: bool,
    /// How a check went can never be written down.
    pub(crate) forgets: AtomicBool,
    /// How often all that is known of a mailbox was read.
    pub(crate) ledgers: AtomicUsize,
    /// The call does not fail: whoever made it is killed there.
    pub(crate) kills: AtomicBool,
    pub(crate) died: Notify,
}

impl FailingStore {
    pub(crate) fn new(inner: Arc<dyn Store>, after: bool) -> Arc<Self> {
        Arc::new(Self {
            inner,
            countdown: Countdown::default(),
            after,
            forgets: AtomicBool::new(false),
            ledgers: AtomicUsize::new(0),
            kills: AtomicBool::new(false),
            died: Notify::new(),
        })
    }

    async fn fail(&self) -> StoreError {
        if self.kills.load(Ordering::SeqCst) {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        StoreError::Failed { during: "a test", text: "as the test wants".into() }
    }
}

macro_rules! call {
    ($self:ident, $call:expr) => {{
        let hit = $self.countdown.hits();
        if hit && !$self.after {
            return Err($self.fail().await);
        }
        let result = $call.await;
        if hit { Err($self.fail().await) } else { result }
    }};
}

#[async_trait]
impl Store for FailingStore {
    async fn open_account(&self, address: &str) -> Result<AccountRow, StoreError> {
        call!(self, self.inner.open_account(address))
    }
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        call!(self, self.inner.accounts())
    }
    async fn retire_account(&self, address: &str, now: UnixTime) -> Result<(), StoreError> {
        call!(self, self.inner.retire_account(address, now))
    }
    async fn lease(&self, account: AccountId) -> Result<Lease, StoreError> {
        call!(self, self.inner.lease(account))
    }
    async fn record_health(&self, lease: &Lease, health: &Health) -> Result<(), StoreError> {
        if self.forgets.load(Ordering::SeqCst) {
            return Err(StoreError::Full { during: "a test" });
        }
        call!(self, self.inner.record_health(lease, health))
    }
    async fn open_mailbox(&self, lease: &Lease, name: &str, validity: u32) -> Result<MailboxRow, StoreError> {
        call!(self, self.inner.open_mailbox(lease, name, validity))
    }
    async fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxRow>, StoreError> {
        call!(self, self.inner.mailboxes(account))
    }
    async fn record_listing(
        &self,
        lease: &Lease,
        mailbox: &MailboxRow,
        messages: &[(Key, u16)],
        mark: Mark,
    ) -> Result<(), StoreError> {
        call!(self, self.inner.record_listing(lease, mailbox, messages, mark))
    }
    async fn ledger(&self, mailbox: MailboxId) -> Result<Vec<Entry>, StoreError> {
        self.ledgers.fetch_add(1, Ordering::SeqCst);
        call!(self, self.inner.ledger(mailbox))
    }
    async fn packed_ledger(&self, mailbox: MailboxId, fingerprints: bool) -> Result<Ledger, StoreError> {
        self.ledgers.fetch_add(1, Ordering::SeqCst);
        call!(self, self.inner.packed_ledger(mailbox, fingerprints))
    }
    async fn entries(&self, mailbox: MailboxId, keys: &[Key]) -> Result<Vec<Entry>, StoreError> {
        call!(self, self.inner.entries(mailbox, keys))
    }
    async fn record_check(
        &self,
        lease: &Lease,
        health: &Health,
        run: &RunRow,
        listings: &[MailboxRow],
    ) -> Result<(), StoreError> {
        if self.forgets.load(Ordering::SeqCst) {
            return Err(StoreError::Full { during: "a test" });
        }
        call!(self, self.inner.record_check(lease, health, run, listings))
    }
    async fn unfinished(&self, account: AccountId) -> Result<Vec<DeliveryRow>, StoreError> {
        call!(self, self.inner.unfinished(account))
    }
    async fn begin(&self, lease: &Lease, messages: &[Begin], now: UnixTime) -> Result<(), StoreError> {
        call!(self, self.inner.begin(lease, messages, now))
    }
    async fn settle(&self, lease: &Lease, settled: &[Settle], now: UnixTime) -> Result<(), StoreError> {
        call!(self, self.inner.settle(lease, settled, now))
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
        call!(self, self.inner.defer(lease, message, name, retry_at, reason, now))
    }
    async fn put_off(&self, lease: &Lease, messages: &[PutOff], now: UnixTime) -> Result<(), StoreError> {
        call!(self, self.inner.put_off(lease, messages, now))
    }
    async fn park(
        &self,
        lease: &Lease,
        message: MessageRef,
        name: &MessageName,
        print: Option<Fingerprint>,
        size: u64,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        call!(self, self.inner.park(lease, message, name, print, size, reason, now))
    }
    async fn mark(
        &self,
        lease: &Lease,
        mailbox: MailboxId,
        messages: &[(Key, u16)],
        mark: Mark,
    ) -> Result<(), StoreError> {
        call!(self, self.inner.mark(lease, mailbox, messages, mark))
    }
    async fn adopt(&self, lease: &Lease, adopted: &[(MessageRef, MessageRef, Fingerprint)]) -> Result<(), StoreError> {
        call!(self, self.inner.adopt(lease, adopted))
    }
    async fn troubled(&self, account: Option<AccountId>, pending: bool) -> Result<Vec<ParkedRow>, StoreError> {
        call!(self, self.inner.troubled(account, pending))
    }
    async fn retry(&self, message: MessageRef) -> Result<bool, StoreError> {
        call!(self, self.inner.retry(message))
    }
    async fn skip(&self, message: MessageRef) -> Result<bool, StoreError> {
        call!(self, self.inner.skip(message))
    }
    async fn deliver(&self, message: MessageRef) -> Result<bool, StoreError> {
        call!(self, self.inner.deliver(message))
    }
    async fn delete(&self, message: MessageRef) -> Result<bool, StoreError> {
        call!(self, self.inner.delete(message))
    }
    async fn record_run(&self, lease: &Lease, run: &RunRow) -> Result<(), StoreError> {
        call!(self, self.inner.record_run(lease, run))
    }
    async fn runs_before(
        &self,
        account: AccountId,
        before: Option<RunId>,
        most: usize,
    ) -> Result<Vec<(RunId, RunRow)>, StoreError> {
        call!(self, self.inner.runs_before(account, before, most))
    }
    async fn tick(&self, now: UnixTime) -> Result<Option<UnixTime>, StoreError> {
        call!(self, self.inner.tick(now))
    }
    async fn notices(&self) -> Result<Vec<(String, String)>, StoreError> {
        call!(self, self.inner.notices())
    }
    async fn record_notices(&self, changes: &[(String, Option<String>)]) -> Result<(), StoreError> {
        call!(self, self.inner.record_notices(changes))
    }
    async fn tidy(&self, now: UnixTime) -> Result<(), StoreError> {
        call!(self, self.inner.tidy(now))
    }
}

/// A destination of which one step fails, in one of several ways.
pub(crate) struct FailingDelivery {
    pub(crate) inner: Arc<dyn Delivery>,
    pub(crate) countdown: Arc<Countdown>,
    pub(crate) kind: FailureKind,
}

fn wanted(kind: FailureKind) -> Failure {
    Failure::new(kind, "as the test wants")
}

#[async_trait]
impl Delivery for FailingDelivery {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn limits(&self) -> BatchLimits {
        BatchLimits { parcels: 3, ..self.inner.limits() }
    }
    async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure> {
        if self.countdown.hits() { Err(wanted(self.kind)) } else { self.inner.presence(recipient).await }
    }
    async fn room(&self, recipient: &Recipient) -> Result<(), Failure> {
        if self.countdown.hits() { Err(wanted(self.kind)) } else { self.inner.room(recipient).await }
    }
    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        if self.countdown.hits() {
            return Box::new(Refused(batch.iter().map(|_| Err(wanted(self.kind))).collect()));
        }
        let inner = self.inner.prepare(batch).await;
        Box::new(Wrapped { inner, countdown: Arc::clone(&self.countdown), kind: self.kind })
    }
    async fn settled(&self, notes: &[Note]) {
        self.inner.settled(notes).await;
    }
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        if self.countdown.hits() {
            return rows.iter().map(|_| Recalled::Wait(wanted(self.kind))).collect();
        }
        self.inner.recall(rows).await
    }
}

struct Refused(Vec<Result<Option<Note>, Failure>>);

#[async_trait]
impl Prepared for Refused {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.0
    }
    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        self.0.into_iter().map(|note| Outcome::Failed(note.expect_err("all failed"))).collect()
    }
}

struct Wrapped {
    inner: Box<dyn Prepared>,
    countdown: Arc<Countdown>,
    kind: FailureKind,
}

#[async_trait]
impl Prepared for Wrapped {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        self.inner.notes()
    }
    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        let hit = self.countdown.hits();
        let lost = self.countdown.hits();
        let count = self.inner.notes().len();
        if hit {
            // Given up before anything became visible.
            return (0..count).map(|_| Outcome::Failed(wanted(self.kind))).collect();
        }
        let outcomes = self.inner.complete().await;
        if lost { (0..count).map(|_| Outcome::Unknown(wanted(self.kind))).collect() } else { outcomes }
    }
}

/// What a scripted destination says about one parcel.
pub(crate) type Script = dyn Fn(&Parcel) -> Outcome + Send + Sync;

/// A destination without a disk: keeps what it took, and answers as a script says.
pub(crate) struct Scripted {
    pub(crate) script: Box<Script>,
    /// User and text of what was delivered.
    pub(crate) taken: Arc<Mutex<Vec<(String, String)>>>,
    pub(crate) parcels: usize,
    /// Whose deliveries were asked about.
    pub(crate) recalled: Mutex<Vec<String>>,
}

impl Scripted {
    pub(crate) fn new(parcels: usize, script: impl Fn(&Parcel) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { script: Box::new(script), taken: Arc::default(), parcels, recalled: Mutex::default() })
    }

    pub(crate) fn taken_by(&self, user: &str) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(to, _)| to == user).map(|(_, text)| text.clone()).collect()
    }
}

pub(crate) fn delivered() -> Outcome {
    Outcome::Delivered { detail: "250".into() }
}

pub(crate) fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed(wanted(kind))
}

/// The token in a parcel's body.
pub(crate) fn token(parcel: &Parcel) -> String {
    let mut octets = vec![0; usize::try_from(parcel.body.size_octets()).unwrap()];
    let mut at = 0;
    while at < octets.len() {
        at += parcel.body.read_at(at as u64, &mut octets[at..]).unwrap();
    }
    let text = String::from_utf8_lossy(&octets).into_owned();
    text.split("token-").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default().to_owned()
}

#[async_trait]
impl Delivery for Scripted {
    fn describe(&self) -> String {
        "scripted".into()
    }
    fn limits(&self) -> BatchLimits {
        BatchLimits { parcels: self.parcels, ..BatchLimits::default() }
    }
    async fn presence(&self, _: &Recipient) -> Result<Presence, Failure> {
        Ok(Presence::Here)
    }
    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        let outcomes: Vec<_> = batch.iter().map(|parcel| (self.script)(parcel)).collect();
        let texts = batch.iter().map(|parcel| (parcel.recipient.user.clone(), token(parcel))).collect();
        let notes = batch.iter().map(|_| Ok(None)).collect();
        Box::new(ScriptedBatch { outcomes, texts, notes, taken: Arc::clone(&self.taken) })
    }
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        let users: Vec<String> = rows.iter().map(|row| row.recipient.user.clone()).collect();
        let wait = |user: &String| {
            if user == "bob" { Recalled::Wait(wanted(FailureKind::Unavailable)) } else { Recalled::Unknown }
        };
        let answers = users.iter().map(wait).collect();
        self.recalled.lock().unwrap().extend(users);
        answers
    }
}

struct ScriptedBatch {
    outcomes: Vec<Outcome>,
    texts: Vec<(String, String)>,
    notes: Vec<Result<Option<Note>, Failure>>,
    taken: Arc<Mutex<Vec<(String, String)>>>,
}

#[async_trait]
impl Prepared for ScriptedBatch {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.notes
    }
    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        for (outcome, text) in self.outcomes.iter().zip(self.texts) {
            if !matches!(outcome, Outcome::Failed(_)) {
                self.taken.lock().unwrap().push(text);
            }
        }
        self.outcomes
    }
}

/// Turns a switch on after so many events.
pub(crate) struct StopAfter {
    pub(crate) events: AtomicUsize,
    pub(crate) after: usize,
    pub(crate) stop: watch::Sender<bool>,
}

impl Observer for StopAfter {
    fn progress(&self, _account: &str, _progress: Progress<'_>) {
        if self.events.fetch_add(1, Ordering::SeqCst) + 1 == self.after {
            self.stop.send_replace(true);
        }
    }
}
