//! Small values by key.

use async_trait::async_trait;
use connectord_store::{StoreError, Values};
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::fault::Fault;

pub(super) const SCHEMA: &str = "
    CREATE TABLE kept (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
";

#[async_trait]
impl Values for SqliteStore {
    async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_owned();
        let act = move |connection: &Connection| -> Result<_, Fault> {
            let mut statement = connection.prepare_cached("SELECT value FROM kept WHERE key = ?1")?;
            Ok(statement.query_row([key], |row| row.get(0)).optional()?)
        };
        self.read("reading a value", act).await
    }

    async fn set_value(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        let act = move |connection: &Connection| -> Result<_, Fault> {
            connection.prepare_cached("INSERT OR REPLACE INTO kept VALUES (?1, ?2)")?.execute(params![key, value])?;
            Ok(())
        };
        self.write("setting a value", None, act).await
    }

    async fn create_value(&self, key: &str, value: &[u8]) -> Result<bool, StoreError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        let act = move |connection: &Connection| -> Result<_, Fault> {
            let sql = "INSERT OR IGNORE INTO kept VALUES (?1, ?2)";
            Ok(connection.prepare_cached(sql)?.execute(params![key, value])? == 1)
        };
        self.write("making a value", None, act).await
    }

    async fn remove_value(&self, key: &str) -> Result<bool, StoreError> {
        let key = key.to_owned();
        let act = move |connection: &Connection| -> Result<_, Fault> {
            Ok(connection.prepare_cached("DELETE FROM kept WHERE key = ?1")?.execute([key])? == 1)
        };
        self.write("removing a value", None, act).await
    }

    async fn values(&self, prefix: &str, most: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let prefix = prefix.to_owned();
        self.read("listing values", move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT key, value FROM kept WHERE key >= ?1 ORDER BY key")?;
            let mut rows = statement.query([&prefix])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let key: String = row.get(0)?;
                if found.len() == most || !key.starts_with(&prefix) {
                    break;
                }
                found.push((key, row.get(1)?));
            }
            Ok(found)
        })
        .await
    }
}
