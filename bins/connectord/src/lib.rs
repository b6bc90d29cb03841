//! What `connectord` and `connectorctl` share: what they say, and what they ask, on a terminal.
//!
//! No library for others: what connectord does is in the crates beside it.

pub mod figures;
pub mod look;
pub mod manual;
pub mod password;
pub mod say;
pub mod table;
