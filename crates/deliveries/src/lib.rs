//! Destinations of mail: Maildir, LMTP, SMTP, mbox and a delivery command.
//!
//! Each module has `Options`, `new`, the [`connectord_delivery::Delivery`] trait and `probe`.

#[doc(hidden)]
pub mod battery;
pub mod command;
#[doc(hidden)]
pub mod fuzzing;
pub mod lmtp;
mod local;
pub mod maildir;
pub mod mbox;
mod pool;
pub mod smtp;
mod trouble;

pub use pool::{DiskPool, PoolLimits};
