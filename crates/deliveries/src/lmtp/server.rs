use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_delivery::{
    BatchLimits, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled, Recipient,
};
use connectord_lmtp::Address;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::link::{Begun, Bounds, Link, Pool};
use super::transaction::{self, Envelope, Transaction, group};

/// Most parcels in one batch: what may be ambiguous after a crash.
pub(crate) const MAX_PARCELS: usize = 8;
/// Most recipients whose presence is remembered.
const MAX_PRESENCE: usize = 1000;

/// A server that takes mail by transactions: what LMTP and SMTP have in common as destinations.
pub(crate) struct Server<L: Link> {
    pool: Arc<Pool<L>>,
    remember: Duration,
    known: Arc<Mutex<HashMap<String, (Instant, Presence)>>>,
    /// Recipients whose mailbox was full when they were last asked for.
    full: Arc<Mutex<HashSet<String>>>,
}

impl<L: Link> Clone for Server<L> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), remember: self.remember, known: self.known.clone(), full: self.full.clone() }
    }
}

impl<L: Link> Server<L> {
    pub(crate) fn new(settings: L::Settings, bounds: Bounds, remember: Duration) -> Self {
        Self { pool: Arc::new(Pool::new(settings, bounds)), remember, known: Arc::default(), full: Arc::default() }
    }

    pub(crate) fn settings(&self) -> &L::Settings {
        &self.pool.settings
    }

    pub(crate) fn limits(&self) -> BatchLimits {
        BatchLimits { parcels: self.pool.bounds.connections.clamp(1, MAX_PARCELS), ..BatchLimits::default() }
    }

    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        let _permit = self.pool.permits(1).await?;
        L::open(&self.pool.settings).await?.close().await;
        Ok(())
    }

    pub(crate) async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure> {
        if let Some(presence) = self.remembered(&recipient.address) {
            return Ok(presence);
        }
        let presence = match self.ask(transaction::recipient(&recipient.address)?).await {
            Ok(()) => Presence::Here,
            Err(failure) if failure.kind == FailureKind::NoUser => Presence::Absent(failure.text),
            Err(failure) if failure.kind == FailureKind::OverQuota => {
                // A full mailbox is somebody's.
                self.is_full(&recipient.address);
                Presence::Here
            }
            Err(failure) => return Err(failure),
        };
        self.remember(&recipient.address, &presence);
        Ok(presence)
    }

    /// Whether a recipient whose mailbox was full has room again. Nobody else is asked for.
    pub(crate) async fn room(&self, recipient: &Recipient) -> Result<(), Failure> {
        if !self.full().contains(&recipient.address) {
            return Ok(());
        }
        match self.ask(transaction::recipient(&recipient.address)?).await {
            Err(failure) if failure.kind == FailureKind::OverQuota => Err(failure),
            // Whatever else is wrong shows when mail is delivered.
            _ => {
                self.full().remove(&recipient.address);
                Ok(())
            }
        }
    }

    fn is_full(&self, address: &str) {
        let mut full = self.full();
        if full.len() < MAX_PRESENCE {
            full.insert(address.to_owned());
        }
    }

    fn full(&self) -> MutexGuard<'_, HashSet<String>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for one recipient, in a transaction that ends there.
    async fn ask(&self, recipient: Address) -> Result<(), Failure> {
        let _permit = self.pool.permits(1).await?;
        let envelope = Envelope { reverse_path: Address::null(), recipients: vec![recipient], size_octets: None };
        let (link, begun) = self.pool.begin(&envelope).await?;
        self.pool.reset(link).await;
        match begun {
            Begun::SenderRefused(failure) => Err(failure),
            Begun::Answered(mut results) => results.pop().unwrap_or(Ok(())),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, Presence)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, address: &str) -> Option<Presence> {
        let known = self.known();
        let (since, presence) = known.get(address)?;
        (since.elapsed() < self.remember).then(|| presence.clone())
    }

    fn remember(&self, address: &str, presence: &Presence) {
        let mut known = self.known();
        if known.len() >= MAX_PRESENCE {
            known.retain(|_, (since, _)| since.elapsed() < self.remember);
        }
        if known.len() >= MAX_PRESENCE {
            known.clear();
        }
        known.insert(address.to_owned(), (Instant::now(), presence.clone()));
    }

    /// First step: MAIL FROM and RCPT TO for each transaction, all at once, each on a connection of its own.
    pub(crate) async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        let mut notes: Vec<Option<Result<Option<Note>, Failure>>> = batch.iter().map(|_| None).collect();
        let (mut transactions, unsendable) = group(&batch);
        for (parcel, failure) in unsendable {
            notes[parcel] = Some(Err(failure));
        }
        let limit = self.limits().parcels;
        for transaction in transactions.drain(limit.min(transactions.len())..) {
            let text = format!("more than {limit} messages in one batch");
            transaction.fail(&Failure::new(FailureKind::Transient, text), &mut notes);
        }
        let mut ready = Vec::new();
        match self.pool.permits(transactions.len()).await {
            Err(failure) => transactions.iter().for_each(|transaction| transaction.fail(&failure, &mut notes)),
            Ok(permits) => ready = self.begin(transactions, permits, &mut notes).await,
        }
        let notes: Vec<_> = notes
            .into_iter()
            .map(|note| note.unwrap_or_else(|| Err(crate::trouble::panicked("sending an envelope"))))
            .collect();
        for (parcel, note) in batch.iter().zip(&notes) {
            match note.as_ref().err().map(|failure| failure.kind) {
                Some(FailureKind::NoUser) => drop(self.known().remove(&parcel.recipient.address)),
                Some(FailureKind::OverQuota) => self.is_full(&parcel.recipient.address),
                _ => {}
            }
        }
        Box::new(Batch { pool: self.pool.clone(), notes, ready })
    }

    async fn begin(
        &self,
        transactions: Vec<Transaction>,
        mut permits: OwnedSemaphorePermit,
        notes: &mut [Option<Result<Option<Note>, Failure>>],
    ) -> Vec<Ready<L>> {
        let (mut begins, mut ready) = (JoinSet::new(), Vec::new());
        for transaction in transactions {
            let (pool, permit) = (self.pool.clone(), permits.split(1));
            begins.spawn(async move {
                let begun = pool.begin(&transaction.envelope).await;
                (transaction, begun, permit)
            });
        }
        while let Some(joined) = begins.join_next().await {
            // A panic: its parcels stay without a note.
            let Ok((transaction, begun, permit)) = joined else { continue };
            match begun {
                Err(failure) => transaction.fail(&failure, notes),
                Ok((link, begun)) => match transaction.note(begun, notes) {
                    Some(accepted) => ready.push(Ready { transaction, accepted, link, permit }),
                    None => self.pool.reset(link).await,
                },
            }
        }
        ready
    }

    pub(crate) fn recall(rows: &[RecallRow]) -> Vec<Recalled> {
        rows.iter().map(|_| Recalled::Unknown).collect()
    }
}

/// A transaction whose recipients are answered, on its connection.
struct Ready<L> {
    transaction: Transaction,
    accepted: Vec<usize>,
    link: L,
    permit: Option<OwnedSemaphorePermit>,
}

/// Dropping it closes the connections, which gives their transactions up.
struct Batch<L: Link> {
    pool: Arc<Pool<L>>,
    notes: Vec<Result<Option<Note>, Failure>>,
    ready: Vec<Ready<L>>,
}

#[async_trait]
impl<L: Link> Prepared for Batch<L> {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.notes
    }

    /// Second step: DATA and the message, all transactions at once.
    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        let Self { pool, notes, ready } = *self;
        let panicked = || Outcome::Unknown(crate::trouble::panicked("sending a message"));
        let mut outcomes: Vec<Outcome> =
            notes.into_iter().map(|note| note.map_or_else(Outcome::Failed, |_| panicked())).collect();
        let mut sends = JoinSet::new();
        for Ready { transaction, accepted, mut link, permit } in ready {
            let pool = pool.clone();
            sends.spawn(async move {
                let results = link.send(&transaction, &accepted).await;
                if link.is_reusable() {
                    pool.give_back(link);
                }
                drop(permit);
                results.into_iter().map(|(index, outcome)| (transaction.parcels[index], outcome)).collect::<Vec<_>>()
            });
        }
        while let Some(joined) = sends.join_next().await {
            for (parcel, outcome) in joined.unwrap_or_default() {
                outcomes[parcel] = outcome;
            }
        }
        outcomes
    }
}
