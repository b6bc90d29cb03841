use std::collections::BTreeSet;

use async_trait::async_trait;
use connectord_account::{Entry, Key, Ledger};
use connectord_delivery::Note;
use connectord_mail::{Fingerprint, UnixTime};

use crate::{
    AccountId, AccountRow, Begin, DeliveryRow, Health, Lease, MailboxId, MailboxRow, Mark, MessageName, MessageRef,
    ParkedRow, PutOff, RunId, RunRow, Settle, Step, StoreError,
};

/// What the engine remembers.
///
/// Each method that changes something returns when the change is durable. Errors change nothing, except
/// [`StoreError::Failed`], after which the caller reads back what it needs to know.
#[async_trait]
pub trait Store: Send + Sync {
    /// Finds an account by its address, case aside, or makes it; a retired one comes back with all it knew.
    async fn open_account(&self, address: &str) -> Result<AccountRow, StoreError>;

    /// All accounts, retired ones too, by address.
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// An account is configured no more: it and its ledger are forgotten 90 days later. Delivered mail stays.
    async fn retire_account(&self, address: &str, now: UnixTime) -> Result<(), StoreError>;

    /// Takes the right to work on an account.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while somebody else has it.
    async fn lease(&self, account: AccountId) -> Result<Lease, StoreError>;

    /// Remembers how an account is doing.
    async fn record_health(&self, lease: &Lease, health: &Health) -> Result<(), StoreError>;

    /// Finds a mailbox by name and UIDVALIDITY, or makes it. A new one under a name that was known with another
    /// UIDVALIDITY continues the newest of those.
    async fn open_mailbox(&self, lease: &Lease, name: &str, uid_validity: u32) -> Result<MailboxRow, StoreError>;

    /// The mailboxes of an account, the newest first.
    async fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxRow>, StoreError>;

    /// Remembers how far a mailbox has been listed (all fields but id, account, name and UIDVALIDITY) and marks messages
    /// as [`Store::mark`] does, in one commit: either all of it is remembered or nothing. [`MailboxRow::quiet`] is
    /// remembered only if no message of the mailbox is pending, discarded, or waits for its removal to be tried again.
    async fn record_listing(
        &self,
        lease: &Lease,
        mailbox: &MailboxRow,
        messages: &[(Key, u16)],
        mark: Mark,
    ) -> Result<(), StoreError>;

    /// What is known about the messages of a mailbox.
    async fn ledger(&self, mailbox: MailboxId) -> Result<Vec<Entry>, StoreError>;

    /// The same, packed, and without the fingerprints if they are not asked for.
    async fn packed_ledger(&self, mailbox: MailboxId, fingerprints: bool) -> Result<Ledger, StoreError> {
        let mut ledger = if fingerprints { Ledger::default() } else { Ledger::without_fingerprints() };
        let mut entries = self.ledger(mailbox).await?;
        entries.sort_unstable_by_key(|entry| (entry.key, entry.generation));
        entries.into_iter().for_each(|entry| ledger.push(entry));
        Ok(ledger)
    }

    /// What is known about some messages of a mailbox, all generations, in the order of their keys.
    async fn entries(&self, mailbox: MailboxId, keys: &[Key]) -> Result<Vec<Entry>, StoreError> {
        let wanted: BTreeSet<Key> = keys.iter().copied().collect();
        let mut entries = self.ledger(mailbox).await?;
        entries.retain(|entry| wanted.contains(&entry.key));
        Ok(entries)
    }

    /// The deliveries of an account's unfinished messages, those recipients that have theirs included.
    async fn unfinished(&self, account: AccountId) -> Result<Vec<DeliveryRow>, StoreError>;

    /// What was noted of all deliveries that are staged and not settled, of all accounts.
    async fn staged(&self) -> Result<Vec<Note>, StoreError> {
        let mut staged = Vec::new();
        for account in self.accounts().await? {
            staged.extend(self.unfinished(account.id).await?.into_iter().filter_map(|row| match row.step {
                Step::Staged(note) => Some(note),
                _ => None,
            }));
        }
        Ok(staged)
    }

    /// Deliveries begin: messages become pending, and each recipient's step is remembered (one that is delivered or
    /// parked already stays so). Rows of recipients that are not named here and not delivered are dropped: the account
    /// delivers to others now. A message of which every named recipient is delivered already becomes delivered.
    async fn begin(&self, lease: &Lease, messages: &[Begin], now: UnixTime) -> Result<(), StoreError>;

    /// Deliveries ended. A message whose deliveries are all delivered becomes delivered at `now`; one that has a parked
    /// one and nothing left to try is parked.
    async fn settle(&self, lease: &Lease, settled: &[Settle], now: UnixTime) -> Result<(), StoreError>;

    /// A message could not be retrieved, before any delivery: it becomes pending until `retry_at`.
    #[allow(clippy::too_many_arguments, reason = "one row, said once")]
    async fn defer(
        &self,
        lease: &Lease,
        message: MessageRef,
        name: &MessageName,
        retry_at: UnixTime,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError>;

    /// Filters put messages off before any delivery: they become pending until [`PutOff::retry_at`], and it is counted how
    /// often. One that waits already, and was looked at before its time, is not counted again.
    async fn put_off(&self, lease: &Lease, messages: &[PutOff], now: UnixTime) -> Result<(), StoreError>;

    /// A message will not be tried again, nor removed, until a person says so. `fingerprint` is what is known of it,
    /// as far as anything was seen of it.
    #[allow(clippy::too_many_arguments, reason = "one row, said once")]
    async fn park(
        &self,
        lease: &Lease,
        message: MessageRef,
        name: &MessageName,
        fingerprint: Option<Fingerprint>,
        size_octets: u64,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError>;

    /// Marks messages; unknown ones are added.
    async fn mark(
        &self,
        lease: &Lease,
        mailbox: MailboxId,
        messages: &[(Key, u16)],
        mark: Mark,
    ) -> Result<(), StoreError>;

    /// After an identity change: what was known under `from` is known under `to` now, as adopted; each old row is used up.
    async fn adopt(&self, lease: &Lease, adopted: &[(MessageRef, MessageRef, Fingerprint)]) -> Result<(), StoreError>;

    /// Messages in trouble: parked ones, with `pending` also those that wait for another attempt or for their removal. Of
    /// one account or all.
    async fn troubled(&self, account: Option<AccountId>, pending: bool) -> Result<Vec<ParkedRow>, StoreError>;

    /// A person wants a message in trouble tried again now: it becomes pending and due, its attempts are forgotten, and
    /// so is a wish to have it removed. False when there is no such message in trouble.
    async fn retry(&self, message: MessageRef) -> Result<bool, StoreError>;

    /// As [`Store::retry`], and the message is to be delivered whatever parked it, until it is delivered
    /// ([`Entry::anyway`]). False when there is none.
    async fn deliver(&self, message: MessageRef) -> Result<bool, StoreError>;

    /// A person wants a message in trouble left alone: it becomes skipped. False when there is none.
    async fn skip(&self, message: MessageRef) -> Result<bool, StoreError>;

    /// A person wants the remote copy of a message in trouble removed though not everybody has it: it is discarded at
    /// the next check. False when there is none.
    async fn delete(&self, message: MessageRef) -> Result<bool, StoreError>;

    /// Remembers a check; the newest 100 of each account are kept.
    async fn record_run(&self, lease: &Lease, run: &RunRow) -> Result<(), StoreError>;

    /// A check has ended: [`Store::record_health`], [`Store::record_run`] and, for what it listed last,
    /// [`Store::record_listing`] without messages, at once.
    ///
    /// Where nothing went wrong and nothing happened (no error, nothing retrieved, delivered, deferred, parked or removed),
    /// a power failure may undo it: the account is checked again then, as if that check had not been.
    async fn record_check(
        &self,
        lease: &Lease,
        health: &Health,
        run: &RunRow,
        listings: &[MailboxRow],
    ) -> Result<(), StoreError> {
        for mailbox in listings {
            self.record_listing(lease, mailbox, &[], Mark::Done).await?;
        }
        self.record_health(lease, health).await?;
        self.record_run(lease, run).await
    }

    /// The newest checks of an account, newest first.
    async fn runs(&self, account: AccountId, most: usize) -> Result<Vec<RunRow>, StoreError> {
        let runs = self.runs_before(account, None, most).await?;
        Ok(runs.into_iter().map(|(_, run)| run).collect())
    }

    /// The newest checks of an account before one of them, newest first, each with its name.
    async fn runs_before(
        &self,
        account: AccountId,
        before: Option<RunId>,
        most: usize,
    ) -> Result<Vec<(RunId, RunRow)>, StoreError>;

    /// Remembers the time, and returns the one remembered before: how a jump of the clock is noticed across restarts.
    async fn tick(&self, now: UnixTime) -> Result<Option<UnixTime>, StoreError>;

    /// What [`Store::record_notices`] has left, by subject: how it is known after a restart whom somebody was told about.
    async fn notices(&self) -> Result<Vec<(String, String)>, StoreError>;

    /// Remembers a text for each subject, or forgets it, all in one commit. The texts mean nothing to the store.
    async fn record_notices(&self, changes: &[(String, Option<String>)]) -> Result<(), StoreError>;

    /// Forgets what has lost its purpose: accounts retired for 90 days, messages gone from the server for a year.
    async fn tidy(&self, now: UnixTime) -> Result<(), StoreError>;
}
