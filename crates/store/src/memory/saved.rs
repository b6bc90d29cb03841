use std::collections::BTreeMap;

use async_trait::async_trait;
use connectord_mail::UnixTime;

use super::{MemoryStore, locked};
use crate::{AccountId, ChangeId, ChangeRow, Changed, Save, SavedAccount, SavedAccounts, StoreError};

/// Saved accounts, and what was done to them.
#[derive(Debug, Default)]
pub(super) struct Saved {
    accounts: BTreeMap<AccountId, SavedAccount>,
    changes: Vec<ChangeRow>,
}

impl Saved {
    fn note(&mut self, change: Changed) {
        let id = ChangeId(self.changes.last().map_or(1, |last| last.id.0 + 1));
        self.changes.push(ChangeRow { id, change });
    }
}

#[async_trait]
impl SavedAccounts for MemoryStore {
    async fn saved_accounts(&self) -> Result<Vec<SavedAccount>, StoreError> {
        let mut accounts: Vec<_> = locked(&self.inner).saved.accounts.values().cloned().collect();
        accounts.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(accounts)
    }

    async fn saved_account(&self, account: AccountId) -> Result<Option<SavedAccount>, StoreError> {
        Ok(locked(&self.inner).saved.accounts.get(&account).cloned())
    }

    async fn save_account(&self, save: &Save) -> Result<SavedAccount, StoreError> {
        let mut inner = locked(&self.inner);
        let row = inner.accounts.iter().find(|row| row.id == save.account);
        let address = row.map(|row| row.address.clone()).ok_or_else(|| StoreError::Failed {
            during: "saving an account",
            text: format!("there is no account {}", save.account.0),
        })?;
        let (after, line) = save.apply(&address, inner.saved.accounts.get(&save.account))?;
        inner.saved.accounts.insert(save.account, after.clone());
        inner.saved.note(line);
        Ok(after)
    }

    async fn delete_account(
        &self,
        account: AccountId,
        version: u64,
        who: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let mut inner = locked(&self.inner);
        let known = inner.saved.accounts.get(&account).ok_or(StoreError::Changed { last: None })?;
        let line = known.end(version, who, now)?;
        inner.saved.accounts.remove(&account);
        inner.saved.note(line);
        if let Some(row) = inner.accounts.iter_mut().find(|row| row.id == account) {
            row.retired_at.get_or_insert(now);
        }
        Ok(())
    }

    async fn reseal(&self, account: AccountId, old: &[u8], new: &[u8]) -> Result<bool, StoreError> {
        let mut inner = locked(&self.inner);
        let secret = inner.saved.accounts.get_mut(&account).and_then(|account| account.secret.as_mut());
        let Some(secret) = secret.filter(|secret| secret.record == old) else { return Ok(false) };
        secret.record = new.to_vec();
        Ok(true)
    }

    async fn record_change(&self, change: &Changed) -> Result<(), StoreError> {
        locked(&self.inner).saved.note(change.clone());
        Ok(())
    }

    async fn changes(
        &self,
        about: Option<&str>,
        before: Option<ChangeId>,
        most: usize,
    ) -> Result<Vec<ChangeRow>, StoreError> {
        let inner = locked(&self.inner);
        let wanted = |row: &&ChangeRow| {
            before.is_none_or(|before| row.id < before) && about.is_none_or(|about| row.change.about == about)
        };
        Ok(inner.saved.changes.iter().rev().filter(wanted).take(most).cloned().collect())
    }
}
