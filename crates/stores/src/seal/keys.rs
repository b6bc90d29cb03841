use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use connectord_wire::Secret;
use zeroize::Zeroizing;

use super::{Key, Place, Record, SealError, hexadecimal};

/// Longest key file, in octets.
const MAX_FILE: u64 = 64 * 1024;

/// Most keys in it.
const MAX_KEYS: usize = 64;

/// The keys of a key file: the first one seals, all of them open.
///
/// The file is text: a key a line, as 64 hexadecimal digits (`openssl rand -hex 32`); empty lines and those that start
/// with `#` do not count. A new key goes above the others; an old line may go when nothing is sealed under it any more
/// ([`Keys::is_outdated`]).
pub struct Keys(Vec<Key>);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// There is no such file.
    #[error("the key file {path} is missing")]
    Missing {
        /// Which.
        path: String,
    },
    /// It cannot be read or made.
    #[error("the key file {path} cannot be {what}: {error}")]
    Io {
        /// Which.
        path: String,
        /// `read` or `made`.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// Others can read it.
    #[error("others can read the key file {path} (mode {mode:04o}); chmod 600 {path}")]
    TooOpen {
        /// Which.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// It is no key file.
    #[error("the key file {path} must have a key on each line, as 64 hexadecimal digits; line {line} has none")]
    Form {
        /// Which.
        path: String,
        /// The first line that is wrong, counted from 1; 0 when there is no key at all.
        line: usize,
    },
}

impl Keys {
    /// Reads a key file, which nobody but its owner may read; of root's the group may, as systemd hands out credentials.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let shown = || path.display().to_string();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => KeyFileError::Missing { path: shown() },
            _ => KeyFileError::Io { path: shown(), what: "read", error },
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let allowed = if metadata.uid() == 0 { 0o040 } else { 0 };
        if metadata.is_file() && metadata.mode() & 0o077 & !allowed != 0 {
            return Err(KeyFileError::TooOpen { path: shown(), mode: metadata.mode() & 0o7777 });
        }
        // With its room from the start: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
        file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
        Self::from_text(&text).map_err(|line| KeyFileError::Form { path: shown(), line })
    }

    /// Makes a key file with one new key, for its owner only, and durable; it must not exist.
    ///
    /// # Errors
    /// [`KeyFileError::Io`].
    pub fn make(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |error: io::Error| KeyFileError::Io { path: path.display().to_string(), what: "made", error };
        let mut octets = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *octets).map_err(|error| failed(io::Error::other(error.to_string())))?;
        let text = Zeroizing::new(format!("{}\n", hexadecimal(&*octets)));
        // Under another name first: a file that is there is whole, whatever happened meanwhile.
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        match std::fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        // Unlike a renaming it takes the place of nothing.
        let linked = std::fs::hard_link(&part, path);
        std::fs::remove_file(&part).and(linked).map_err(failed)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or_else(|| Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(Self(vec![Key::new(&octets)]))
    }

    /// Reads keys from a text.
    ///
    /// # Errors
    /// The first line that is wrong, counted from 1; 0 when there is no key at all.
    pub fn from_text(text: &str) -> Result<Self, usize> {
        let mut keys = Vec::new();
        for (line, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let octets = octets(text).filter(|_| keys.len() < MAX_KEYS).ok_or(line + 1)?;
            keys.push(Key::new(&octets));
        }
        if keys.is_empty() { Err(0) } else { Ok(Self(keys)) }
    }

    /// Seals a secret for a place, under the first key.
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn seal(&self, place: Place<'_>, secret: &Secret) -> Result<Vec<u8>, SealError> {
        self.0[0].seal(place, secret)
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`SealError`]: the key is not there, or it is not what was sealed for this place.
    pub fn open(&self, place: Place<'_>, record: &[u8]) -> Result<Secret, SealError> {
        let record = Record::read(record)?;
        let key = self
            .0
            .iter()
            .find(|key| key.id == record.key)
            .ok_or_else(|| SealError::OtherKey { wanted: hexadecimal(&record.key), known: self.names() })?;
        key.open(place, record.nonce, record.sealed)
    }

    /// Whether a record was sealed under another key than the first one: it is to be sealed anew.
    pub fn is_outdated(&self, record: &[u8]) -> bool {
        Record::read(record).is_ok_and(|record| record.key != self.0[0].id)
    }

    /// The ids of the keys, in hexadecimal; they say nothing about the keys.
    pub fn names(&self) -> String {
        self.0.iter().map(|key| hexadecimal(&key.id)).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.names())
    }
}

fn octets(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    if text.len() != 64 || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return None;
    }
    let mut octets = Zeroizing::new([0; 32]);
    for (octet, at) in octets.iter_mut().zip((0..64).step_by(2)) {
        *octet = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(matches!(Keys::read(&path), Err(KeyFileError::Missing { .. })));
        let made = Keys::make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(Keys::read(&path).unwrap().names(), made.names());
        // What is there is never replaced.
        std::fs::write(directory.path().join("key.part"), "left by a crash").unwrap();
        assert!(matches!(Keys::make(&path), Err(KeyFileError::Io { what: "made", .. })));
        assert_eq!(Keys::read(&path).unwrap().names(), made.names());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        Keys::make(&path).unwrap();
        for mode in [0o644, 0o604, 0o606, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Keys::read(&path), Err(KeyFileError::TooOpen { .. })), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Keys::read(&path).is_ok());
    }

    #[test]
    fn what_is_no_key_is_said_by_its_line() {
        let key = "ab".repeat(32);
        assert_eq!(Keys::from_text("").err(), Some(0));
        assert_eq!(Keys::from_text("# nothing\n\n").err(), Some(0));
        assert_eq!(Keys::from_text(&format!("{key}\nsecret\n")).err(), Some(2));
        assert_eq!(Keys::from_text(&key[..62]).err(), Some(1));
        assert_eq!(Keys::from_text(&"ä".repeat(32)).err(), Some(1));
        let read = Keys::from_text(&format!("  {key}  \r\n")).unwrap();
        assert!(!format!("{read:?}").contains("abab"), "a key is not shown");
    }
}
