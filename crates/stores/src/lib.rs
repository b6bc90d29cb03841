//! Durable state: the SQLite store with its single writer and group commit, and the lock on the state directory.
