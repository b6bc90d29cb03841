//! Durable state: the SQLite store with its single writer and group commit, the lock on the state directory, and the
//! sealing of secrets that are kept in it.
//!
//! This crate decides nothing: what becomes of a message is said by the rules in [`connectord_store::memory`]; here is how
//! it is kept. A change is durable when its method returns.
//!
//! ```
//! use connectord_stores::sqlite::{Options, SqliteStore};
//! use connectord_store::Store;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("state");
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! let store = SqliteStore::open(&path, Options::default())?;
//! let account = store.open_account("ann@example.org").await?;
//! let lease = store.lease(account.id).await?;
//! let inbox = store.open_mailbox(&lease, "INBOX", 1).await?;
//! assert_eq!(store.ledger(inbox.id).await?, []);
//! drop(lease);
//! store.close().await;
//! # Ok::<(), connectord_store::StoreError>(())
//! # }).unwrap();
//! ```

pub mod seal;
pub mod sqlite;
pub mod trail;
