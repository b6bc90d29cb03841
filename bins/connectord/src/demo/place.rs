//! The directory of a demonstration, and the files in it that a person can read.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::provider::{ACCOUNTS, Provider};
use crate::error::Error;

/// Everything that a demonstration makes is below one directory.
pub(super) struct Place {
    path: PathBuf,
    /// Whether an earlier demonstration made it.
    pub(super) is_from_earlier: bool,
    /// Held as long as this lives: two demonstrations must not share their servers' mail.
    _lock: File,
}

impl Place {
    /// The directory that was asked for, made if only it is missing, or a new one.
    ///
    /// One with other things in it is refused: nobody should find a Maildir among the holiday pictures.
    pub(super) fn open(wanted: Option<&Path>) -> Result<Self, Error> {
        let path = match wanted {
            Some(path) => {
                let failed = Error::io(format!("cannot make the directory {}", path.display()));
                match DirBuilder::new().mode(0o700).create(path) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
                    _ => path.to_owned(),
                }
            }
            None => new_directory()?,
        };
        let path = path.canonicalize().map_err(Error::io(format!("cannot find {}", path.display())))?;
        // The configuration has the path in templates, and is UTF-8.
        if path.to_str().is_none_or(|path| path.contains(['{', '}'])) {
            let text = "the directory's name has to be UTF-8 without braces";
            return Err(Error::Usage(format!("{}: {text}", path.display())));
        }
        let lock = path.join("provider/lock");
        let is_from_earlier = lock.exists();
        let mut entries = path.read_dir().map_err(Error::io(format!("cannot read {}", path.display())))?;
        if !is_from_earlier && entries.next().is_some() {
            let text = "is not empty, and not from an earlier demonstration; name a new directory";
            return Err(Error::Usage(format!("{} {text}", path.display())));
        }
        for name in ["mail", "state", "passwords", "provider"] {
            make(&path.join(name))?;
        }
        let failed = || Error::io(format!("cannot lock {}", lock.display()));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&lock).map_err(failed())?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, is_from_earlier, _lock: file }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Unavailable(format!("another demonstration is running in {}", path.display())))
            }
            Err(TryLockError::Error(error)) => Err(failed()(error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path.join("connectord.toml")
    }

    pub(super) fn mail(&self) -> PathBuf {
        self.path.join("mail")
    }

    /// Where the provider keeps the mail of one mailbox.
    pub(super) fn remote(&self, address: &str) -> Result<PathBuf, Error> {
        let path = self.path.join("provider").join(address);
        make(&path)?;
        Ok(path)
    }

    /// Writes what connectord is told about the provider: certificate, passwords, configuration.
    pub(super) fn describe(&self, provider: &Provider) -> Result<(), Error> {
        put(&self.path.join("ca.pem"), provider.ca_pem().as_bytes())?;
        for account in ACCOUNTS {
            put(&self.path.join("passwords").join(account.address), format!("{}\n", account.password).as_bytes())?;
        }
        put(&self.config(), configuration(provider).as_bytes())
    }
}

fn new_directory() -> Result<PathBuf, Error> {
    let base = std::env::temp_dir();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = since.as_nanos() ^ u128::from(std::process::id()) << 32;
    // Others may write there too: only a directory that was not there before is ours.
    for number in first..first + 100 {
        let path = base.join(format!("connectord-demo-{:08x}", number & 0xffff_ffff));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(format!("cannot make the directory {}", path.display()))(error)),
        }
    }
    Err(Error::Usage(format!("no name is free in {}; name a directory with --dir", base.display())))
}

fn make(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Error::io(format!("cannot make the directory {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Writes a file for its owner alone; whoever reads it meanwhile sees the old or the new one.
pub(super) fn put(path: &Path, octets: &[u8]) -> Result<(), Error> {
    let new = path.with_added_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(octets)?;
        std::fs::rename(&new, path)
    };
    write().map_err(Error::io(format!("cannot write {}", path.display())))
}

fn configuration(provider: &Provider) -> String {
    let mut text = "\
# Written by `connectord demo`. Relative paths start at this file's directory.
# While the demonstration runs, its servers answer:
#     connectord --config THIS-FILE fetch
#     connectord --config THIS-FILE check --online

[state]
url = \"sqlite:state/state.db\"

[log]
level = \"warn\"

[delivery]
type = \"maildir\"
path = \"mail/{user}\"

[users]
source = \"list\"
list = [\"anna\", \"bob\"]

[schedule]
jitter = 0
"
    .to_owned();
    for account in ACCOUNTS {
        let users = account.users.iter().map(|user| format!("\"{user}\"")).collect::<Vec<_>>().join(", ");
        let check = if account.listens { "idle = true".to_owned() } else { "check_every = \"10s\"".to_owned() };
        text += &format!(
            "\n[[account]]\naddress = \"{address}\"\nprotocol = \"{protocol}\"\nhost = \"localhost\"\nport = {port}\n\
             ca_file = \"ca.pem\"\npassword_file = \"passwords/{address}\"\ndeliver_to = [{users}]\n{check}\n\
             delete = \"never\"\n",
            address = account.address,
            protocol = if account.pop3 { "pop3" } else { "imap" },
            port = provider.port(account),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_other_things_in_it_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("holiday.jpg"), "x").unwrap();
        let error = Place::open(Some(directory.path())).err().unwrap().to_string();
        assert!(
            error.ends_with("is not empty, and not from an earlier demonstration; name a new directory"),
            "{error}"
        );
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_second_demonstration_in_the_same_directory_has_to_wait() {
        let directory = tempfile::tempdir().unwrap();
        let first = Place::open(Some(directory.path())).unwrap();
        assert!(!first.is_from_earlier);
        assert!(matches!(Place::open(Some(directory.path())), Err(Error::Unavailable(_))));
        drop(first);
        assert!(Place::open(Some(directory.path())).unwrap().is_from_earlier);
    }
}
