use async_trait::async_trait;

use super::{MemoryStore, locked};
use crate::{StoreError, Values};

#[async_trait]
impl Values for MemoryStore {
    async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(locked(&self.inner).values.get(key).cloned())
    }

    async fn set_value(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        locked(&self.inner).values.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    async fn create_value(&self, key: &str, value: &[u8]) -> Result<bool, StoreError> {
        let mut inner = locked(&self.inner);
        let free = !inner.values.contains_key(key);
        if free {
            inner.values.insert(key.to_owned(), value.to_owned());
        }
        Ok(free)
    }

    async fn remove_value(&self, key: &str) -> Result<bool, StoreError> {
        Ok(locked(&self.inner).values.remove(key).is_some())
    }

    async fn values(&self, prefix: &str, most: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let inner = locked(&self.inner);
        let from = inner.values.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.take(most).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
