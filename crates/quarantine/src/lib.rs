//! Messages that are kept back until a person says what becomes of them: in a directory, one file each.
//!
//! This crate filters nothing and decides nothing: it keeps what the engine hands it
//! ([`connectord_filter::Quarantine`]), as durably as a delivery, and gives it out again. It speaks to no server; a release
//! goes through the [`connectord_delivery::Delivery`] it is given.
//!
//! # What is where
//!
//! | name in the directory (0700) | what it is |
//! |---|---|
//! | `<id>.held` | one message with all that is known of it and its digests; readable without anything else |
//! | `<id>.note` | how far its release has come, for whom; or that it is gone |
//! | `tmp/` | what is being written; emptied at the start |
//! | `lock` | locked by the only process that may write |
//! | `reports`, `clock` | what users were told about; when it was last looked what is due |
//!
//! A file is written in `tmp/` with O_EXCL and mode 0600, synced, renamed, and the directory synced; then [`keep`] returns. A
//! sync that failed is never repeated and believed. Files that are torn, damaged or not ours are told of
//! ([`DirectoryQuarantine::problems`]) and left alone.
//!
//! | item | what it is for |
//! |---|---|
//! | [`DirectoryQuarantine`], [`Options`] | keeping, listing, discarding, retention |
//! | [`Query`], [`Page`], [`Entry`], [`Details`] | what is held |
//! | [`Release`], [`Released`] | delivering it after all |
//! | [`Reporter`], [`Report`] | telling users by mail what is held for them |
//! | [`read_message`] | the octets, also while another process has the quarantine |
//!
//! ```
//! use connectord_quarantine::{DirectoryQuarantine, Options, Query};
//!
//! # fn example(state: &std::path::Path) -> Result<(), connectord_quarantine::OpenError> {
//! let quarantine = DirectoryQuarantine::open(&state.join("quarantine"), Options::default())?;
//! for entry in quarantine.list(&Query { user: Some("ann".into()), ..Query::default() }).entries {
//!     println!("{} {}", entry.id, connectord_wire::Escaped::text(&entry.subject));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`keep`]: connectord_filter::Quarantine::keep

mod dir;
mod directory;
mod file;
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod note;
mod record;
mod release;
mod report;
mod retention;
mod show;
mod start;

#[doc(hidden)]
pub use dir::{Faults, Step};
pub use directory::{DirectoryQuarantine, OpenError, Options, Problem, read_message};
pub use file::Unreadable;
pub use index::{Entry, Page, Query, Sort};
pub use release::{Copy, Release, ReleaseError, Released};
pub use report::{Report, Reporter};
pub use show::Details;
