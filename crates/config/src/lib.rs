//! The TOML configuration: read strictly, checked and explained.
//!
//! This crate connects to nothing: it turns a file into a [`Config`] of plain values, or into
//! [`Problems`] that show all mistakes at once, each with its line, what was expected and what came. Secrets in shown lines
//! are hidden.
//!
//! | item | what it is for |
//! |---|---|
//! | [`Config::read`], [`Config::parse`] | a file, or its text, to values |
//! | [`Problems`], [`Problem`] | what is wrong, and where |
//! | [`DeliverySettings`] and the other settings | what each table says, defaults filled in |
//! | [`saved`] | accounts that are kept in the state instead, read by the same code |
//! | [`KeyRing`] | the keys that open their passwords |
//! | [`credentials`] | the passwords of accounts, obtained anew at each login |
//! | [`build`] | the live parts that a configuration describes |
//! | [`url`] | accounts and proxies written as URLs |
//! | [`relays()`] | whose Received fields are believed of an account |
//! | [`reference()`] | the reference page of all keys, from the tables that the reader checks by |
//!
//! ```
//! use std::path::Path;
//! use connectord_config::Config;
//!
//! let text = r#"
//!     [delivery]
//!     type = "maildir"
//!     path = "/var/vmail/{user}/Maildir"
//!
//!     [[account]]
//!     address = "info@example.org"
//!     protocol = "imap"
//!     host = "imap.example.org"
//!     password_file = "info.password"
//!     deliver_to = "alice"
//! "#;
//! let config = Config::parse(text, "connectord.toml", Path::new("/etc/connectord"))?;
//! assert_eq!(config.accounts[0].endpoint.to_string(), "imap.example.org:993");
//! # Ok::<(), connectord_config::Problems>(())
//! ```

pub mod build;
pub mod credentials;
mod entries;
mod file;
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod model;
mod nearest;
mod problem;
mod read;
mod reference;
mod relays;
pub mod saved;
mod schema;
mod section;
mod state;
pub mod url;
mod values;

use std::path::Path;

pub use entries::{Entry, account_lines, entries};
pub use keys::{KeyError, KeyRing, key_file};
pub use model::*;
pub use problem::{Excerpt, Place, Problem, Problems};
pub use reference::reference;
pub use relays::relays;
pub use state::default_state_directory;

impl Config {
    /// Reads and checks a file, and looks at the files that it names: those that cannot be read now are warnings.
    ///
    /// At most 16 MiB. A file that holds a password itself must not be readable by others.
    ///
    /// # Errors
    /// [`Problems`], all of them, when the file cannot be read, is not TOML, or says something that cannot be.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Problems> {
        file::read(path.as_ref())
    }

    /// Checks the text of a file called `file_name`; relative paths in it start at `base_dir`. Looks at no file.
    ///
    /// # Errors
    /// [`Problems`], all of them, each with its place.
    pub fn parse(text: &str, file_name: &str, base_dir: &Path) -> Result<Self, Problems> {
        read::parse(text, file_name, base_dir, false).result
    }
}

/// The known name that was most likely meant, if any is near: for messages that say so.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    nearest::nearest(name, known)
}

/// Reads what happens to remote copies, as the key `delete` has it: `never`, `immediately`, `7d`, `age:30d`.
///
/// ```
/// use connectord_account::Retention;
/// assert_eq!(connectord_config::retention("immediately"), Some(Retention::Immediately));
/// assert_eq!(connectord_config::retention("soon"), None);
/// ```
pub fn retention(text: &str) -> Option<connectord_account::Retention> {
    read::accounts::retention_of(text)
}
