//! The keys that open the passwords that are kept in the state, and what it means that they are not there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use connectord_stores::seal::{KeyFileError, Keys, Place, SealError};
use connectord_stores::sqlite::SECRET;
use connectord_wire::Secret;

/// Name of the key among systemd's credentials.
const CREDENTIAL: &str = "connectord.key";

/// The keys of the key file, or why there are none: accounts whose passwords are sealed cannot log in then, and all others
/// go on.
#[derive(Debug)]
pub struct KeyRing {
    path: PathBuf,
    keys: Result<Keys, KeyFileError>,
}

/// Why a password that is kept in the state cannot be had, or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There are no keys.
    #[error("stored passwords cannot be opened: {0}")]
    NoKeys(String),
    /// This one cannot be opened.
    #[error("the stored password cannot be opened: {error} (key file {path})")]
    Sealed {
        /// The key file.
        path: String,
        /// Why not.
        error: SealError,
    },
}

impl KeyRing {
    /// Reads the key file; makes it when there is none and `make` says so: a new key opens nothing that was sealed before.
    pub fn open(path: &Path, make: bool) -> Self {
        let keys = match Keys::read(path) {
            Err(KeyFileError::Missing { .. }) if make => Keys::make(path),
            other => other,
        };
        Self { path: path.to_owned(), keys }
    }

    /// Why there are no keys.
    pub fn problem(&self) -> Option<String> {
        self.keys.as_ref().err().map(ToString::to_string)
    }

    /// Opens the password of an account.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open_password(&self, account: i64, record: &[u8]) -> Result<Secret, KeyError> {
        self.keys()?.open(place(account), record).map_err(|error| self.sealed(error))
    }

    /// Seals the password of an account.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn seal(&self, account: i64, password: &Secret) -> Result<Vec<u8>, KeyError> {
        self.keys()?.seal(place(account), password).map_err(|error| self.sealed(error))
    }

    /// The same password under the newest key, when it is under an older one.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn renewed(&self, account: i64, record: &[u8]) -> Result<Option<Vec<u8>>, KeyError> {
        if !self.keys()?.is_outdated(record) {
            return Ok(None);
        }
        self.seal(account, &self.open_password(account, record)?).map(Some)
    }

    fn keys(&self) -> Result<&Keys, KeyError> {
        self.keys.as_ref().map_err(|error| KeyError::NoKeys(error.to_string()))
    }

    fn sealed(&self, error: SealError) -> KeyError {
        KeyError::Sealed { path: self.path.display().to_string(), error }
    }
}

fn place(account: i64) -> Place<'static> {
    let (table, column) = SECRET;
    Place { table, account, column }
}

/// Where the key is: as `[state] key_file` says, else among systemd's credentials (`connectord.key`) if it is there, else
/// `key` beside the state. `variable` is asked for environment variables.
pub fn key_file(configured: Option<&Path>, state: &Path, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let credential = || {
        let path = PathBuf::from(variable("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL);
        path.is_file().then_some(path)
    };
    configured.map(Path::to_owned).or_else(credential).unwrap_or_else(|| state.join("key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_comes_first_then_the_credential_then_the_state() {
        let directory = tempfile::tempdir().unwrap();
        let variable = |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.path().as_os_str().to_owned());
        let state = Path::new("/var/lib/connectord");
        assert_eq!(key_file(None, state, variable), state.join("key"));
        Keys::make(&directory.path().join(CREDENTIAL)).unwrap();
        assert_eq!(key_file(None, state, variable), directory.path().join(CREDENTIAL));
        assert_eq!(key_file(Some(Path::new("/etc/key")), state, variable), Path::new("/etc/key"));
        assert!(KeyRing::open(&key_file(None, state, variable), false).problem().is_none());
    }

    #[test]
    fn without_the_key_a_password_is_named_as_closed_and_a_new_key_is_only_made_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let ring = KeyRing::open(&path, true);
        let record = ring.seal(7, &Secret::from("secret")).unwrap();
        assert_eq!(ring.open_password(7, &record).unwrap(), Secret::from("secret"));
        std::fs::rename(&path, directory.path().join("kept")).unwrap();
        let lost = KeyRing::open(&path, false);
        let error = lost.open_password(7, &record).unwrap_err().to_string();
        let shown = path.display();
        assert_eq!(error, format!("stored passwords cannot be opened: the key file {shown} is missing"));
        assert!(!path.exists());
        let other = KeyRing::open(&path, true);
        let error = other.open_password(7, &record).unwrap_err().to_string();
        assert!(error.starts_with("the stored password cannot be opened: it was sealed under the key "), "{error}");
        // A new key above the old one.
        let both = [&path, &directory.path().join("kept")].map(|path| std::fs::read_to_string(path).unwrap()).concat();
        std::fs::write(&path, both).unwrap();
        let both = KeyRing::open(&path, false);
        let renewed = both.renewed(7, &record).unwrap().unwrap();
        assert_eq!(both.renewed(7, &renewed).unwrap(), None);
        assert_eq!(other.open_password(7, &renewed).unwrap(), Secret::from("secret"));
    }
}
