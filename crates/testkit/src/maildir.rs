//! Maildir++ as Dovecot keeps it, and the plain Maildir of others, from the side of another client of the same files.

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::Message;

/// User and group `mail`, which every Debian system has, and which owns all mail here.
static MAIL: LazyLock<(u32, u32)> = LazyLock::new(|| {
    let user = nix::unistd::User::from_name("mail").ok().flatten().expect("every Debian system has the user mail");
    (user.uid.as_raw(), user.gid.as_raw())
});

/// Orders the files of one process: a later one sorts behind an earlier one.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Where a mailbox of the Maildir `root` is: `Work/2024` is `.Work.2024`, in modified UTF-7.
pub(crate) fn path(root: &Path, mailbox: &str) -> PathBuf {
    if mailbox.eq_ignore_ascii_case("INBOX") {
        return root.to_path_buf();
    }
    root.join(format!(".{}", utf7(mailbox).replace('/', ".")))
}

/// Makes the three directories and all above them.
pub(crate) fn create(path: &Path) {
    for name in ["cur", "new", "tmp"] {
        make_directory(&path.join(name));
    }
}

/// Makes a directory, and those above it that are missing, as the user `mail`.
pub(crate) fn make_directory(path: &Path) {
    if path.is_dir() {
        return;
    }
    if let Some(parent) = path.parent() {
        make_directory(parent);
    }
    fs::create_dir(path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
    own(path);
}

/// Gives a file or directory to the user `mail`.
pub(crate) fn own(path: &Path) {
    let (user, group) = *MAIL;
    chown(path, Some(user), Some(group)).unwrap_or_else(|e| panic!("cannot give {} to mail: {e}", path.display()));
}

/// Writes messages behind those that are there.
pub(crate) fn seed(folder: &Path, messages: &[Message]) {
    for message in messages {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        // Dovecot numbers new files in the order of their names: time first, then ours.
        let received = message.received.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let size = message.octets.len();
        let base = format!("{now}.M{n:09}P{}.testkit,S={size}", std::process::id());
        let letters = letters(&message.flags);
        let target = match letters.as_str() {
            "" => folder.join("new").join(base),
            letters => folder.join("cur").join(format!("{base}:2,{letters}")),
        };
        let temporary = folder.join("tmp").join(format!("{n}"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&message.octets)?;
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(received);
            file.set_times(FileTimes::new().set_modified(time).set_accessed(time))?;
            own(&temporary);
            fs::rename(&temporary, &target)
        };
        write().unwrap_or_else(|e| panic!("cannot write {}: {e}", target.display()));
    }
}

/// The octets of all messages, oldest first.
pub(crate) fn read(folder: &Path) -> Vec<Vec<u8>> {
    files(folder)
        .iter()
        .map(|path| fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display())))
        .collect()
}

/// Unlinks the oldest `count` messages.
pub(crate) fn remove_oldest(folder: &Path, count: usize) {
    let files = files(folder);
    assert!(count <= files.len(), "{} has {} messages, fewer than {count}", folder.display(), files.len());
    for path in &files[..count] {
        fs::remove_file(path).unwrap_or_else(|e| panic!("cannot remove {}: {e}", path.display()));
    }
}

/// Writes a UID list with the next UIDVALIDITY and no message.
///
/// The indexes stay: Dovecot sees the difference and resets them in all its processes. Removed, they would leave every
/// process that has them open with the old value.
pub(crate) fn change_uid_validity(folder: &Path, before: &str) {
    let before: u32 = before.parse().unwrap_or_else(|_| panic!("dovecot's UIDVALIDITY {before:?} is no number"));
    let (list, next) = (folder.join("dovecot-uidlist"), folder.join("dovecot-uidlist.next"));
    let guid = format!("{:032x}", u128::from(before) << 64 | u128::from(COUNTER.fetch_add(1, Ordering::Relaxed)));
    fs::write(&next, format!("3 V{} N1 G{guid}\n", before.wrapping_add(1)))
        .unwrap_or_else(|e| panic!("cannot write {}: {e}", next.display()));
    own(&next);
    fs::rename(&next, &list).unwrap_or_else(|e| panic!("cannot replace {}: {e}", list.display()));
    // A changed directory is what makes Dovecot look at the list again.
    for name in ["cur", "new"] {
        let touched = folder.join(name).join("touched");
        File::create(&touched)
            .and_then(|_| fs::remove_file(&touched))
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", touched.display()));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in ["new", "cur"] {
        let directory = folder.join(name);
        let entries = fs::read_dir(&directory).unwrap_or_else(|e| panic!("cannot read {}: {e}", directory.display()));
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    files
}

/// Maildir's letters for IMAP's flags, in ASCII order as the format asks.
fn letters(flags: &[String]) -> String {
    let mut letters: Vec<char> = flags
        .iter()
        .map(|flag| match flag.to_ascii_lowercase().as_str() {
            "\\draft" => 'D',
            "\\flagged" => 'F',
            "\\answered" => 'R',
            "\\seen" => 'S',
            "\\deleted" => 'T',
            other => {
                panic!("{other:?} has no letter in a Maildir; use \\Seen, \\Answered, \\Flagged, \\Deleted, \\Draft")
            }
        })
        .collect();
    letters.sort_unstable();
    letters.dedup();
    letters.into_iter().collect()
}

/// Modified UTF-7 (RFC 3501 §5.1.3).
fn utf7(name: &str) -> String {
    let (mut out, mut shifted) = (String::new(), Vec::new());
    let flush = |shifted: &mut Vec<u16>, out: &mut String| {
        if !shifted.is_empty() {
            let octets: Vec<u8> = shifted.drain(..).flat_map(u16::to_be_bytes).collect();
            *out += &format!("&{}-", STANDARD_NO_PAD.encode(octets).replace('/', ","));
        }
    };
    for c in name.chars() {
        match c {
            '&' => {
                flush(&mut shifted, &mut out);
                out += "&-";
            }
            ' '..='~' => {
                flush(&mut shifted, &mut out);
                out.push(c);
            }
            _ => shifted.extend(c.encode_utf16(&mut [0; 2]).iter()),
        }
    }
    flush(&mut shifted, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_rfc_3501_shows() {
        assert_eq!(utf7("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(utf7("Tom & Jerry"), "Tom &- Jerry");
        assert_eq!(path(Path::new("/m"), "Work/2024"), Path::new("/m/.Work.2024"));
        assert_eq!(path(Path::new("/m"), "inbox"), Path::new("/m"));
    }

    #[test]
    fn flags_become_sorted_letters() {
        assert_eq!(letters(&["\\Seen".to_owned(), "\\Answered".to_owned(), "\\Draft".to_owned()]), "DRS");
    }
}
