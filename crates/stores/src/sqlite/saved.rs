//! Accounts that are kept in the state, and the record of who changed what.

use async_trait::async_trait;
use connectord_mail::UnixTime;
use connectord_store::{
    AccountId, ChangeId, ChangeRow, Changed, Save, SavedAccount, SavedAccounts, Sealed, Stamp, StoreError,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Fault;
use super::{SqliteStore, accounts};

/// The table and the column of an account's secret, to which it is sealed.
pub const SECRET: (&str, &str) = ("saved", "secret");

/// Saved accounts have the number of their row in `account`, where their address is. The record of changes only grows:
/// not even we can change a line of it.
pub(super) const SCHEMA: &str = "
    CREATE TABLE saved (
        account INTEGER PRIMARY KEY REFERENCES account, settings TEXT NOT NULL, enabled INTEGER NOT NULL,
        version INTEGER NOT NULL, secret BLOB, secret_at INTEGER, secret_by TEXT, created_at INTEGER NOT NULL,
        created_by TEXT NOT NULL, changed_at INTEGER NOT NULL, changed_by TEXT NOT NULL);

    CREATE TABLE change (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
        about TEXT NOT NULL, before TEXT, after TEXT);
    CREATE INDEX change_about ON change (about, id);
    CREATE TRIGGER change_stays BEFORE UPDATE ON change
        BEGIN SELECT RAISE(ABORT, 'the record of changes only grows'); END;
    CREATE TRIGGER change_is_kept BEFORE DELETE ON change
        BEGIN SELECT RAISE(ABORT, 'the record of changes only grows'); END;
";

const SAVED: &str = "SELECT saved.account, account.address, settings, enabled, version, secret, secret_at, secret_by,
    created_at, created_by, changed_at, changed_by FROM saved JOIN account ON account.id = saved.account";

#[async_trait]
impl SavedAccounts for SqliteStore {
    async fn saved_accounts(&self) -> Result<Vec<SavedAccount>, StoreError> {
        self.read("listing saved accounts", |connection| {
            let mut statement = connection.prepare_cached(&format!("{SAVED} ORDER BY account.address"))?;
            Ok(statement.query_map([], saved)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn saved_account(&self, account: AccountId) -> Result<Option<SavedAccount>, StoreError> {
        self.read("reading a saved account", move |connection| find(connection, account)).await
    }

    async fn save_account(&self, save: &Save) -> Result<SavedAccount, StoreError> {
        let save = save.clone();
        self.write("saving an account", None, move |connection| {
            let address = address(connection, save.account)?;
            let (after, line) = save.apply(&address, find(connection, save.account)?.as_ref())?;
            put(connection, &after)?;
            note(connection, &line)?;
            Ok(after)
        })
        .await
    }

    async fn delete_account(
        &self,
        account: AccountId,
        version: u64,
        who: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let who = who.to_owned();
        self.write("deleting an account", None, move |connection| {
            let known = find(connection, account)?.ok_or(StoreError::Changed { last: None })?;
            note(connection, &known.end(version, &who, now)?)?;
            connection.execute("DELETE FROM saved WHERE account = ?1", [account.0])?;
            accounts::retire(connection, &known.address, now)
        })
        .await
    }

    async fn reseal(&self, account: AccountId, old: &[u8], new: &[u8]) -> Result<bool, StoreError> {
        let (old, new) = (old.to_vec(), new.to_vec());
        self.write("sealing a secret anew", None, move |connection| {
            let sql = "UPDATE saved SET secret = ?3 WHERE account = ?1 AND secret = ?2";
            Ok(connection.execute(sql, params![account.0, old, new])? == 1)
        })
        .await
    }

    async fn record_change(&self, change: &Changed) -> Result<(), StoreError> {
        let change = change.clone();
        self.write("recording a change", None, move |connection| note(connection, &change)).await
    }

    async fn changes(
        &self,
        about: Option<&str>,
        before: Option<ChangeId>,
        most: usize,
    ) -> Result<Vec<ChangeRow>, StoreError> {
        let about = about.map(str::to_owned);
        let before = before.map_or(i64::MAX, |before| before.0);
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.read("reading the record of changes", move |connection| {
            let of_subject = if about.is_some() { "about = ?3" } else { "?3 IS NULL" };
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, at, who, what, about, before, after FROM change WHERE id < ?1 AND {of_subject}
                 ORDER BY id DESC LIMIT ?2"
            ))?;
            Ok(statement.query_map(params![before, most, about], change)?.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// The address of an account that is not being forgotten.
fn address(connection: &Connection, account: AccountId) -> Result<String, Fault> {
    let sql = "SELECT address FROM account WHERE id = ?1 AND address IS NOT NULL";
    let found: Option<String> = connection.query_row(sql, [account.0], |row| row.get(0)).optional()?;
    Ok(found.ok_or_else(|| StoreError::Failed {
        during: "saving an account",
        text: format!("there is no account {}", account.0),
    })?)
}

fn find(connection: &Connection, account: AccountId) -> Result<Option<SavedAccount>, Fault> {
    let mut statement = connection.prepare_cached(&format!("{SAVED} WHERE saved.account = ?1"))?;
    Ok(statement.query_row([account.0], saved).optional()?)
}

fn put(connection: &Connection, account: &SavedAccount) -> Result<(), Fault> {
    let SavedAccount { id, address: _, settings, secret, enabled, version, created, changed } = account;
    connection.execute(
        "INSERT OR REPLACE INTO saved (account, settings, enabled, version, secret, secret_at, secret_by, created_at,
         created_by, changed_at, changed_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            id.0,
            settings,
            enabled,
            i64::try_from(*version).unwrap_or(i64::MAX),
            secret.as_ref().map(|secret| &secret.record),
            secret.as_ref().map(|secret| secret.set.at.0),
            secret.as_ref().map(|secret| &secret.set.by),
            created.at.0,
            created.by,
            changed.at.0,
            changed.by,
        ],
    )?;
    // A retired one is in use again.
    connection.execute("UPDATE account SET retired_at = NULL WHERE id = ?1 AND retired_at IS NOT NULL", [id.0])?;
    Ok(())
}

fn note(connection: &Connection, change: &Changed) -> Result<(), Fault> {
    let Changed { stamp, what, about, before, after } = change;
    connection.execute(
        "INSERT INTO change (at, who, what, about, before, after) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![stamp.at.0, stamp.by, what, about, before, after],
    )?;
    Ok(())
}

fn saved(row: &Row<'_>) -> rusqlite::Result<SavedAccount> {
    let stamp = |at: usize| Ok::<_, rusqlite::Error>(Stamp { at: UnixTime(row.get(at)?), by: row.get(at + 1)? });
    let secret = match row.get::<_, Option<Vec<u8>>>(5)? {
        Some(record) => Some(Sealed { record, set: stamp(6)? }),
        None => None,
    };
    Ok(SavedAccount {
        id: AccountId(row.get(0)?),
        address: row.get(1)?,
        settings: row.get(2)?,
        enabled: row.get(3)?,
        version: u64::try_from(row.get::<_, i64>(4)?).unwrap_or_default(),
        secret,
        created: stamp(8)?,
        changed: stamp(10)?,
    })
}

fn change(row: &Row<'_>) -> rusqlite::Result<ChangeRow> {
    Ok(ChangeRow {
        id: ChangeId(row.get(0)?),
        change: Changed {
            stamp: Stamp { at: UnixTime(row.get(1)?), by: row.get(2)? },
            what: row.get(3)?,
            about: row.get(4)?,
            before: row.get(5)?,
            after: row.get(6)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    #[tokio::test]
    async fn no_line_of_the_record_of_changes_can_be_changed_or_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path().join("state"), Options::default()).unwrap();
        let line = Changed {
            stamp: Stamp { at: UnixTime(5), by: "anna".to_owned() },
            what: "edited".to_owned(),
            about: "ann@x".to_owned(),
            before: None,
            after: None,
        };
        store.record_change(&line).await.unwrap();
        for sql in ["UPDATE change SET who = 'nobody'", "DELETE FROM change", "DELETE FROM change WHERE id = 1"] {
            let tamper = move |connection: &Connection| Ok(connection.execute(sql, [])?);
            assert!(matches!(store.write("testing", None, tamper).await, Err(StoreError::Failed { .. })), "{sql}");
        }
        let lines = store.changes(None, None, 10).await.unwrap();
        assert_eq!(lines.into_iter().map(|line| line.change).collect::<Vec<_>>(), [line]);
    }
}
