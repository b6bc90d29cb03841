//! People, sessions and tokens, kept in the state.

use std::sync::Arc;

use async_trait::async_trait;
use connectord_admin::{Keep, KeepError};
use connectord_store::{StoreError, Values};

/// The part of the state's values that is the gate's.
pub(super) struct StateKeep(pub(super) Arc<dyn Values>);

fn failed(error: StoreError) -> KeepError {
    KeepError(error.to_string())
}

#[async_trait]
impl Keep for StateKeep {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeepError> {
        self.0.value(key).await.map_err(failed)
    }

    async fn put(&self, key: &str, value: Vec<u8>) -> Result<(), KeepError> {
        self.0.set_value(key, &value).await.map_err(failed)
    }

    async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool, KeepError> {
        self.0.create_value(key, &value).await.map_err(failed)
    }

    async fn delete(&self, key: &str) -> Result<bool, KeepError> {
        self.0.remove_value(key).await.map_err(failed)
    }

    async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, KeepError> {
        self.0.values(prefix, limit).await.map_err(failed)
    }
}
