//! A state that remembers accounts and mailboxes, and never a message: what is looked up costs the same however many
//! accounts there are, so that it is the scheduler that is measured.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use connectord_account::{Entry, Key};
use connectord_mail::{Fingerprint, UnixTime};
use connectord_store::{
    AccountId, AccountRow, Begin, DeliveryRow, Health, Lease, MailboxId, MailboxRow, Mark, MessageName, MessageRef,
    ParkedRow, PutOff, RunId, RunRow, Settle, Store, StoreError,
};

#[derive(Default)]
pub(crate) struct Accounts(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    ids: HashMap<String, AccountId>,
    rows: HashMap<AccountId, AccountRow>,
    mailboxes: HashMap<AccountId, MailboxRow>,
    leased: HashMap<AccountId, u64>,
}

/// Gives a lease back.
struct Guard(AccountId, Arc<Mutex<Inner>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).leased.remove(&self.0);
    }
}

impl Accounts {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row<T>(found: Option<T>) -> Result<T, StoreError> {
    found.ok_or(StoreError::LeaseLost)
}

#[async_trait]
impl Store for Accounts {
    async fn open_account(&self, address: &str) -> Result<AccountRow, StoreError> {
        let mut inner = self.inner();
        let next = AccountId(inner.rows.len() as i64 + 1);
        let id = *inner.ids.entry(address.to_lowercase()).or_insert(next);
        let new = AccountRow { id, address: address.to_lowercase(), health: Health::default(), retired_at: None };
        Ok(inner.rows.entry(id).or_insert(new).clone())
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        let mut rows: Vec<AccountRow> = self.inner().rows.values().cloned().collect();
        rows.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(rows)
    }

    async fn retire_account(&self, address: &str, now: UnixTime) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let id = inner.ids.get(address).copied();
        if let Some(row) = id.and_then(|id| inner.rows.get_mut(&id)) {
            row.retired_at = Some(now);
        }
        Ok(())
    }

    async fn lease(&self, account: AccountId) -> Result<Lease, StoreError> {
        match self.inner().leased.entry(account) {
            Slot::Occupied(_) => Err(StoreError::Busy),
            Slot::Vacant(free) => {
                free.insert(1);
                Ok(Lease::new(account, 1, Box::new(Guard(account, Arc::clone(&self.0)))))
            }
        }
    }

    async fn record_health(&self, lease: &Lease, health: &Health) -> Result<(), StoreError> {
        row(self.inner().rows.get_mut(&lease.account))?.health = health.clone();
        Ok(())
    }

    async fn open_mailbox(&self, lease: &Lease, name: &str, uid_validity: u32) -> Result<MailboxRow, StoreError> {
        let new = MailboxRow {
            id: MailboxId(lease.account.0),
            account: lease.account,
            name: name.to_owned(),
            uid_validity,
            uid_next: 0,
            first_listed: None,
            last_listed: None,
            absence: None,
            continues: None,
            keys_recur: false,
            quiet: None,
        };
        Ok(self.inner().mailboxes.entry(lease.account).or_insert(new).clone())
    }

    async fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxRow>, StoreError> {
        Ok(self.inner().mailboxes.get(&account).cloned().into_iter().collect())
    }

    async fn record_listing(
        &self,
        lease: &Lease,
        mailbox: &MailboxRow,
        _: &[(Key, u16)],
        _: Mark,
    ) -> Result<(), StoreError> {
        *row(self.inner().mailboxes.get_mut(&lease.account))? = mailbox.clone();
        Ok(())
    }

    async fn ledger(&self, _: MailboxId) -> Result<Vec<Entry>, StoreError> {
        Ok(Vec::new())
    }

    async fn unfinished(&self, _: AccountId) -> Result<Vec<DeliveryRow>, StoreError> {
        Ok(Vec::new())
    }

    async fn begin(&self, _: &Lease, _: &[Begin], _: UnixTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn settle(&self, _: &Lease, _: &[Settle], _: UnixTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn defer(
        &self,
        _: &Lease,
        _: MessageRef,
        _: &MessageName,
        _: UnixTime,
        _: &str,
        _: UnixTime,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn put_off(&self, _: &Lease, _: &[PutOff], _: UnixTime) -> Result<(), StoreError> {
        Ok(())
    }

    async fn park(
        &self,
        _: &Lease,
        _: MessageRef,
        _: &MessageName,
        _: Option<Fingerprint>,
        _: u64,
        _: &str,
        _: UnixTime,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn mark(&self, _: &Lease, _: MailboxId, _: &[(Key, u16)], _: Mark) -> Result<(), StoreError> {
        Ok(())
    }

    async fn adopt(&self, _: &Lease, _: &[(MessageRef, MessageRef, Fingerprint)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn troubled(&self, _: Option<AccountId>, _: bool) -> Result<Vec<ParkedRow>, StoreError> {
        Ok(Vec::new())
    }

    async fn retry(&self, _: MessageRef) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn deliver(&self, _: MessageRef) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn skip(&self, _: MessageRef) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn delete(&self, _: MessageRef) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn record_run(&self, _: &Lease, _: &RunRow) -> Result<(), StoreError> {
        Ok(())
    }

    async fn runs_before(&self, _: AccountId, _: Option<RunId>, _: usize) -> Result<Vec<(RunId, RunRow)>, StoreError> {
        Ok(Vec::new())
    }

    async fn tick(&self, _: UnixTime) -> Result<Option<UnixTime>, StoreError> {
        Ok(None)
    }

    async fn notices(&self) -> Result<Vec<(String, String)>, StoreError> {
        Ok(Vec::new())
    }

    async fn record_notices(&self, _: &[(String, Option<String>)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn tidy(&self, _: UnixTime) -> Result<(), StoreError> {
        Ok(())
    }
}
