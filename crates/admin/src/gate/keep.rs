//! Where people, sessions and tokens are kept: a small map that the state implements.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

/// The map cannot be read or written now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("people and sessions cannot be read: {0}")]
pub struct KeepError(pub String);

/// A map from keys such as `person/anna` to small values, at most 4 KiB each.
///
/// Keys hold digests of sessions and tokens, never these themselves. Several nodes share one map, so that a person signed in at one is
/// signed in at all.
#[async_trait]
pub trait Keep: Send + Sync {
    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeepError>;
    /// Sets a value.
    async fn put(&self, key: &str, value: Vec<u8>) -> Result<(), KeepError>;
    /// Sets a value where there is none; answers whether it did. Of two at once one does.
    async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool, KeepError>;
    /// Removes a key; answers whether it was there. Of two at once one is told so.
    async fn delete(&self, key: &str) -> Result<bool, KeepError>;
    /// Keys that begin with `prefix`, and their values, by key; at most `limit`.
    async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, KeepError>;
}

/// A map in memory, for tests and demonstrations.
#[derive(Debug, Default)]
pub struct MemoryKeep(Mutex<BTreeMap<String, Vec<u8>>>);

impl MemoryKeep {
    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // A panic while it was held left it whole: each method does one thing to it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Keep for MemoryKeep {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeepError> {
        Ok(self.map().get(key).cloned())
    }

    async fn put(&self, key: &str, value: Vec<u8>) -> Result<(), KeepError> {
        self.map().insert(key.to_owned(), value);
        Ok(())
    }

    async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool, KeepError> {
        let mut map = self.map();
        let free = !map.contains_key(key);
        if free {
            map.insert(key.to_owned(), value);
        }
        Ok(free)
    }

    async fn delete(&self, key: &str) -> Result<bool, KeepError> {
        Ok(self.map().remove(key).is_some())
    }

    async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, KeepError> {
        let map = self.map();
        let from = map.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
