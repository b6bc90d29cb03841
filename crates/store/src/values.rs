//! Small values by key, for what is neither mail nor an account: who may sign in, what was asked for already.

use async_trait::async_trait;

use crate::StoreError;

/// A map from keys such as `person/anna` to small values. A back end has it beside [`Store`](crate::Store).
///
/// Each change is durable when its method returns. The keys and values mean nothing to the store; what must not be read by
/// whoever has a copy of it is a digest before it comes here.
#[async_trait]
pub trait Values: Send + Sync {
    /// The value of a key.
    async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Sets a value, whatever was there.
    async fn set_value(&self, key: &str, value: &[u8]) -> Result<(), StoreError>;

    /// Sets a value where there is none; whether it did. Of two at once one does.
    async fn create_value(&self, key: &str, value: &[u8]) -> Result<bool, StoreError>;

    /// Removes a key; whether it was there. Of two at once one is told so.
    async fn remove_value(&self, key: &str) -> Result<bool, StoreError>;

    /// The keys that begin with `prefix`, and their values, in the order of the keys' octets; at most `most`.
    async fn values(&self, prefix: &str, most: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
}
