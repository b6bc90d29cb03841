//! The model of an external mail account and the pure decisions about it: what to retrieve, remove, retry and when.
