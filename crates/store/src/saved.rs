//! Accounts that are kept in the store beside those of the file, and who changed what about them.

use async_trait::async_trait;
use connectord_mail::UnixTime;
use serde::{Deserialize, Serialize};

use crate::{AccountId, StoreError};

/// What keeps accounts that no file has. A back end has it beside [`Store`](crate::Store).
///
/// Each change is durable when its method returns, and stands in the record of changes, in the same commit.
#[async_trait]
pub trait SavedAccounts: Send + Sync {
    /// All saved accounts, by address.
    async fn saved_accounts(&self) -> Result<Vec<SavedAccount>, StoreError>;

    /// One of them.
    async fn saved_account(&self, account: AccountId) -> Result<Option<SavedAccount>, StoreError>;

    /// Saves an account, new or changed, and returns it as it is now.
    ///
    /// # Errors
    /// [`StoreError::Exists`] and [`StoreError::Changed`] when it is not what [`Save::expected`] says; nothing was changed.
    async fn save_account(&self, save: &Save) -> Result<SavedAccount, StoreError>;

    /// Forgets a saved account and its secret; what was fetched for it is remembered, as
    /// [`Store::retire_account`](crate::Store::retire_account) says.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when it has another version; nothing was changed then.
    async fn delete_account(
        &self,
        account: AccountId,
        version: u64,
        who: &str,
        now: UnixTime,
    ) -> Result<(), StoreError>;

    /// Seals anew: replaces an account's secret by the same one under another key. Nothing else changes, its version
    /// neither. False when it is not `old` any more.
    async fn reseal(&self, account: AccountId, old: &[u8], new: &[u8]) -> Result<bool, StoreError>;

    /// Adds to the record of changes something that is none of an account in the store.
    async fn record_change(&self, change: &Changed) -> Result<(), StoreError>;

    /// The record of changes, newest first: at most `most`, those before `before` if it says so, of one subject if it says
    /// so. Nothing in it is ever changed.
    async fn changes(
        &self,
        about: Option<&str>,
        before: Option<ChangeId>,
        most: usize,
    ) -> Result<Vec<ChangeRow>, StoreError>;
}

/// An account that is kept in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedAccount {
    /// Its number; the same as of its [`AccountRow`](crate::AccountRow).
    pub id: AccountId,
    /// Its address, in lower case.
    pub address: String,
    /// What is configured for it, as a text that means nothing to the store; holds no secret.
    pub settings: String,
    /// Its password, sealed.
    pub secret: Option<Sealed>,
    /// Whether it is checked.
    pub enabled: bool,
    /// Counts up with each change; 1 when new.
    pub version: u64,
    /// When it was added, and by whom.
    pub created: Stamp,
    /// When it was changed last, and by whom.
    pub changed: Stamp,
}

/// A secret that only the key opens, which is not in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The record.
    pub record: Vec<u8>,
    /// When it was set, and by whom.
    pub set: Stamp,
}

/// When, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// When.
    pub at: UnixTime,
    /// Who, as it is shown.
    pub by: String,
}

/// A wish to save an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// Which, from [`Store::open_account`](crate::Store::open_account).
    pub account: AccountId,
    /// What it must be like now.
    pub expected: Expected,
    /// What is configured for it.
    pub settings: String,
    /// Whether it is checked.
    pub enabled: bool,
    /// What becomes of its secret.
    pub secret: SecretChange,
    /// Who wishes it.
    pub who: String,
    /// When.
    pub now: UnixTime,
}

/// What a saved account must be like for a change to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    New,
    /// It has this version.
    Version(u64),
}

/// What becomes of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretChange {
    /// It stays as it is.
    Keep,
    /// It is this one from now on, sealed.
    Set(Vec<u8>),
    /// There is none any more.
    Clear,
}

/// A place in the record of changes; rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangeId(pub i64);

/// What somebody changed. Holds no secret: the texts are written into the state as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// When, and who.
    pub stamp: Stamp,
    /// What was done, as a word: `added`, `edited`, `enabled`, `disabled`, `deleted`.
    pub what: String,
    /// To what: an account's address.
    pub about: String,
    /// What it was before.
    pub before: Option<String>,
    /// What it was after.
    pub after: Option<String>,
}

/// One line of the record of changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// Where it stands.
    pub id: ChangeId,
    /// What was changed.
    pub change: Changed,
}

impl Save {
    /// What an account is after this change, and the line about it: the rules of every back end.
    ///
    /// # Errors
    /// [`StoreError::Exists`] and [`StoreError::Changed`].
    pub fn apply(&self, address: &str, before: Option<&SavedAccount>) -> Result<(SavedAccount, Changed), StoreError> {
        let expected = match self.expected {
            Expected::New => None,
            Expected::Version(version) => Some(version),
        };
        expect(expected, before)?;
        let stamp = Stamp { at: self.now, by: self.who.clone() };
        let secret = match &self.secret {
            SecretChange::Keep => before.and_then(|before| before.secret.clone()),
            SecretChange::Set(record) => Some(Sealed { record: record.clone(), set: stamp.clone() }),
            SecretChange::Clear => None,
        };
        let after = SavedAccount {
            id: self.account,
            address: address.to_owned(),
            settings: self.settings.clone(),
            secret,
            enabled: self.enabled,
            version: before.map_or(1, |before| before.version.saturating_add(1)),
            created: before.map_or_else(|| stamp.clone(), |before| before.created.clone()),
            changed: stamp.clone(),
        };
        let only_switched = before.is_some_and(|before| {
            before.settings == after.settings && before.secret == after.secret && before.enabled != after.enabled
        });
        let what = match (before, only_switched) {
            (None, _) => "added",
            (Some(_), true) if after.enabled => "enabled",
            (Some(_), true) => "disabled",
            (Some(_), false) => "edited",
        };
        let line = Changed {
            stamp,
            what: what.to_owned(),
            about: address.to_owned(),
            before: before.map(SavedAccount::masked),
            after: Some(after.masked()),
        };
        Ok((after, line))
    }
}

impl SavedAccount {
    /// The line about its end.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when it has another version.
    pub fn end(&self, version: u64, who: &str, now: UnixTime) -> Result<Changed, StoreError> {
        expect(Some(version), Some(self))?;
        Ok(Changed {
            stamp: Stamp { at: now, by: who.to_owned() },
            what: "deleted".to_owned(),
            about: self.address.clone(),
            before: Some(self.masked()),
            after: None,
        })
    }

    /// All of it as text, but the secret: only that there is one, and since when.
    fn masked(&self) -> String {
        let secret = match &self.secret {
            Some(secret) => format!("set {} by {}", secret.set.at, secret.set.by),
            None => "none".to_owned(),
        };
        let (settings, enabled) = (self.settings.trim_end(), self.enabled);
        format!("{settings}\n# enabled: {enabled}\n# password: {secret}\n").trim_start().to_owned()
    }
}

fn expect(expected: Option<u64>, before: Option<&SavedAccount>) -> Result<(), StoreError> {
    match (expected, before) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(StoreError::Exists),
        (Some(version), Some(before)) if before.version == version => Ok(()),
        (Some(_), before) => Err(StoreError::Changed { last: before.map(|before| before.changed.clone()) }),
    }
}
