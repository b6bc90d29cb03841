//! What is in the Maildirs, read from their files and from nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::provider::{ACCOUNTS, message_id};
use crate::error::Error;

/// Octets of a file that are looked at for its Message-ID.
const HEAD: u64 = 128 * 1024;

/// The Maildirs of all users.
pub(super) struct Shelf {
    mail: PathBuf,
    /// Files that were seen: user, and name without flags.
    seen: HashSet<(&'static str, String)>,
}

/// One file.
pub(super) struct Found {
    pub(super) user: &'static str,
    pub(super) message_id: String,
}

/// How the Maildirs compare with the servers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// Files in each user's Maildir.
    pub(super) here: BTreeMap<&'static str, u64>,
    /// Message-IDs of what is at the servers and not here, once for each user.
    pub(super) missing: Vec<String>,
    /// Files too many: what came more often than it is at the servers, or is not there at all.
    pub(super) extra: u64,
}

impl Shelf {
    pub(super) fn new(mail: PathBuf) -> Self {
        Self { mail, seen: HashSet::new() }
    }

    pub(super) fn users() -> Vec<&'static str> {
        let mut users: Vec<_> = ACCOUNTS.iter().flat_map(|account| account.users).copied().collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    pub(super) fn maildir(&self, user: &str) -> PathBuf {
        self.mail.join(user)
    }

    /// What has come since the last call; at the first call, everything.
    pub(super) fn news(&mut self) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for user in Self::users() {
            for path in files(&self.maildir(user))? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let name = name.split(':').next().unwrap_or_default().to_owned();
                if self.seen.contains(&(user, name.clone())) {
                    continue;
                }
                // A reader may have moved it since it was listed; it is seen at the next call then.
                if let Some(message_id) = read_message_id(&path)? {
                    self.seen.insert((user, name));
                    found.push(Found { user, message_id });
                }
            }
        }
        Ok(found)
    }

    /// Counts anew, each file.
    pub(super) fn balance(&self, mut due: HashMap<(&'static str, String), u64>) -> Result<Balance, Error> {
        let mut balance = Balance::default();
        for Found { user, message_id } in Self::new(self.mail.clone()).news()? {
            *balance.here.entry(user).or_default() += 1;
            match due.get_mut(&(user, message_id)) {
                Some(left @ 1..) => *left -= 1,
                _ => balance.extra += 1,
            }
        }
        for ((_, message_id), left) in due {
            balance.missing.extend((0..left).map(|_| message_id.clone()));
        }
        Ok(balance)
    }
}

fn files(maildir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for folder in ["new", "cur"] {
        let folder = maildir.join(folder);
        let failed = || Error::io(format!("cannot read {}", folder.display()));
        let entries = match folder.read_dir() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.map_err(failed())?,
        };
        for entry in entries {
            files.push(entry.map_err(failed())?.path());
        }
    }
    Ok(files)
}

fn read_message_id(path: &Path) -> Result<Option<String>, Error> {
    let mut head = Vec::new();
    match File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head)) {
        Ok(_) => Ok(Some(message_id(&head))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_too_much_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        for (file, id) in [("anna/new/1", "a"), ("anna/cur/2:2,S", "a"), ("bob/new/1", "a"), ("bob/cur/3:2,", "x")] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("Message-ID: <{id}>\n\n")).unwrap();
        }
        let mut shelf = Shelf::new(directory.path().to_owned());
        let due = [("anna", "<a>"), ("bob", "<a>"), ("bob", "<b>")].map(|(user, id)| ((user, id.to_owned()), 1));
        let expected =
            Balance { here: BTreeMap::from([("anna", 2), ("bob", 2)]), missing: vec!["<b>".into()], extra: 2 };
        assert_eq!(shelf.balance(HashMap::from(due)).unwrap(), expected);
        assert_eq!(shelf.news().unwrap().len(), 4);
        std::fs::rename(directory.path().join("bob/new/1"), directory.path().join("bob/cur/1:2,S")).unwrap();
        assert_eq!(shelf.news().unwrap().len(), 0);
    }
}
