//! A private Dovecot whose mailboxes are hard links to the corpus.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use connectord_testkit::{Dovecot, DovecotOptions};

use crate::Done;
use crate::corpus::mail_user;

/// It forgets no index and writes no flag for POP3: the server is not what is measured. It offers PLAIN and LOGIN as large
/// providers do, so that all log in alike: with SCRAM its one process for authentication would digest the password anew
/// for each session, 4 ms of CPU, and of the programs only those that ask for it would wait.
const EXTRA: &str = "auth_mechanisms = plain login\npop3_no_flag_updates = yes\nmaildir_very_dirty_syncs = yes\nmail_log_prefix =\n\
    service pop3 {\n process_min_avail = 4\n}\nservice imap {\n process_min_avail = 4\n}\n";

/// Starts one with these users, whose passwords are `secret`.
pub(crate) fn start(users: &[String]) -> Dovecot {
    let options = users.iter().fold(DovecotOptions::new().extra(EXTRA), |options, user| options.user(user, "secret"));
    Dovecot::start(options)
}

/// Adds messages to a user's INBOX, behind those that are there if their names sort so.
pub(crate) fn seed(dovecot: &Dovecot, user: &str, messages: &[PathBuf]) -> Done<()> {
    let inbox = dovecot.folder(user, "INBOX");
    for message in messages {
        let name = message.file_name().ok_or("a message without a name")?;
        link(message, &inbox.join("new").join(name))?;
    }
    Ok(())
}

/// A hard link, or a copy where there can be none; the copy belongs to whom the original belongs.
pub(crate) fn link(from: &Path, to: &Path) -> Done<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))?;
        own_as(from, to)?;
    }
    Ok(())
}

fn own_as(from: &Path, to: &Path) -> Done<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(from)?;
    Ok(chown(to, Some(metadata.uid()), Some(metadata.gid()))?)
}

/// Copies a directory with all below it: messages (what is in `cur` and `new`) as links, all else, which is written
/// to in place, as copies.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Done<()> {
    fs::create_dir_all(to)?;
    own_as(from, to)?;
    let messages = from.file_name().is_some_and(|name| name == "cur" || name == "new");
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_file() {
            if messages && !entry.file_name().as_encoded_bytes().starts_with(b".") {
                link(&source, &target)?;
            } else {
                fs::copy(&source, &target)?;
                own_as(&source, &target)?;
            }
        }
    }
    Ok(())
}

/// Gives what is below a directory to the user `mail`.
pub(crate) fn own_all(directory: &Path) -> Done<()> {
    let (user, group) = mail_user()?;
    chown(directory, Some(user), Some(group))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            own_all(&entry.path())?;
        } else {
            chown(entry.path(), Some(user), Some(group))?;
        }
    }
    Ok(())
}
