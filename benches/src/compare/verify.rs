//! Whether a program really brought each message, once, octet for octet but for line ends and fields put in front.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Done;
use crate::corpus::ID;

/// Fails unless the Maildir holds exactly these messages.
pub(crate) fn maildir(maildir: &Path, expected: &[PathBuf]) -> Done<()> {
    exactly(maildir, files(maildir)?, expected)
}

fn exactly(maildir: &Path, found: Vec<PathBuf>, expected: &[PathBuf]) -> Done<()> {
    let mut wanted: HashMap<Vec<u8>, &PathBuf> = HashMap::new();
    for path in expected {
        let octets = fs::read(path)?;
        let id = id(&octets).ok_or("a message of the corpus without its field")?;
        wanted.insert(id.to_vec(), path);
    }
    let total = wanted.len();
    for path in found {
        let octets = fs::read(&path)?;
        let shown = path.display();
        let id = id(&octets).ok_or_else(|| format!("{shown} has no X-Bench-Id"))?.to_vec();
        let original = wanted.remove(&id).ok_or_else(|| format!("{shown} came twice, or was not asked for"))?;
        if !same(&octets, &fs::read(original)?) {
            return Err(format!("{shown} differs from {}", original.display()).into());
        }
    }
    match wanted.len() {
        0 => Ok(()),
        missing => Err(format!("{missing} of {total} messages are missing in {}", maildir.display()).into()),
    }
}

/// Names of the messages in a Maildir, without the flags.
pub(crate) fn names(maildir: &Path) -> Done<HashSet<Vec<u8>>> {
    Ok(files(maildir)?.iter().filter_map(|path| name(path)).collect())
}

fn name(path: &Path) -> Option<Vec<u8>> {
    let name = path.file_name()?.as_encoded_bytes();
    Some(name[..memchr::memchr(b':', name).unwrap_or(name.len())].to_vec())
}

/// Fails unless exactly these messages came to those that were there before.
pub(crate) fn added(maildir: &Path, before: &HashSet<Vec<u8>>, expected: &[PathBuf]) -> Done<()> {
    let files = files(maildir)?;
    let there = files.len();
    let new: Vec<PathBuf> =
        files.into_iter().filter(|path| name(path).is_none_or(|name| !before.contains(&name))).collect();
    if there != before.len() + expected.len() {
        return Err(format!("{there} messages instead of {} and {} new ones", before.len(), expected.len()).into());
    }
    exactly(maildir, new, expected)
}

fn files(maildir: &Path) -> Done<Vec<PathBuf>> {
    let mut files = Vec::new();
    for name in ["new", "cur"] {
        let directory = maildir.join(name);
        let entries = fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            // mbsync keeps its list of UIDs there.
            if !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// Value of the field that starts the message proper.
fn id(octets: &[u8]) -> Option<&[u8]> {
    let start = start(octets)? + ID.len();
    let length = memchr::memchr2(b'\r', b'\n', &octets[start..])?;
    Some(&octets[start..start + length])
}

fn start(octets: &[u8]) -> Option<usize> {
    if octets.starts_with(ID) {
        return Some(0);
    }
    let mut field = vec![b'\n'];
    field.extend_from_slice(ID);
    memchr::memmem::find(octets, &field).map(|at| at + 1)
}

fn same(found: &[u8], original: &[u8]) -> bool {
    let Some(start) = start(found) else { return false };
    let mut found: Vec<u8> = without_cr(&found[start..]);
    if found == original {
        return true;
    }
    // mbsync marks what it stores by a field of its own; some programs end a message with an empty line.
    let tuid = b"X-TUID: ";
    if let Some(at) = memchr::memmem::find(&found, tuid)
        && let Some(length) = memchr::memchr(b'\n', &found[at..])
    {
        found.drain(at..=at + length);
    }
    found.strip_suffix(b"\n") == Some(original) || found == original
}

fn without_cr(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    let mut rest = octets;
    while let Some(at) = memchr::memchr(b'\r', rest) {
        out.extend_from_slice(&rest[..at]);
        if rest.get(at + 1) != Some(&b'\n') {
            out.push(b'\r');
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out
}
