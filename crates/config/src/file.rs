//! The file itself: read at most so far, and only if its permissions suit what it holds.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use connectord_wire::Escaped;

use crate::model::Config;
use crate::problem::{Problem, Problems};
use crate::read;

/// Longest file, in octets.
const MAX_FILE: u64 = 16 * 1024 * 1024;

pub(crate) fn read(path: &Path) -> Result<Config, Problems> {
    let name = path.to_string_lossy().into_owned();
    let of_file = |message: String| Problems { problems: vec![Problem::of_file(&name, message)] };
    let (octets, metadata) = contents(path).map_err(|error| of_file(format!("cannot be read: {error}")))?;
    if octets.len() as u64 > MAX_FILE {
        return Err(of_file(format!("is longer than {MAX_FILE} octets")));
    }
    let text = String::from_utf8(octets).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|octet| **octet == b'\n').count() + 1;
        of_file(format!("is not UTF-8 in line {line}"))
    })?;
    // A relative name without a folder has the empty path as its parent.
    let base_dir =
        std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let outcome = read::parse(&text, &name, &base_dir, true);
    let (mode, uid, is_file) = (metadata.mode(), metadata.uid(), metadata.is_file());
    let shown = Escaped::text(&name).to_string();
    let too_open = too_open(mode, uid, is_file).filter(|_| outcome.inline_secret);
    let problem = if let Some(mend) = too_open {
        let message = format!("this is secret, and others can read the file (mode {:04o})", mode & 0o7777);
        let hint = Some(format!("chmod {mend} {shown}"));
        Some(Problem { message, hint, ..outcome.at_secret.unwrap_or_else(|| Problem::of_file(&name, "")) })
    } else if is_file && mode & 0o002 != 0 {
        // Whoever can write it can have programs run, and mail delivered elsewhere.
        let message = format!("everybody can write this file (mode {:04o})", mode & 0o7777);
        Some(Problem { hint: Some(format!("chmod o-w {shown}")), ..Problem::of_file(&name, message) })
    } else {
        None
    };
    match (outcome.result, problem) {
        (Ok(config), None) => Ok(config),
        (Ok(_), Some(problem)) => Err(Problems { problems: vec![problem] }),
        (Err(Problems { mut problems }), problem) => {
            problems.extend(problem);
            problems.sort_by_key(|problem| problem.place);
            Err(Problems { problems })
        }
    }
}

fn contents(path: &Path) -> std::io::Result<(Vec<u8>, Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut octets = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut octets)?;
    Ok((octets, metadata))
}

/// The mode that a file with a secret should have, when others can read it now.
///
/// The group may read a file of root's, because that is how a service without rights of its own gets one (0640,
/// root:connectord); a person's own group may be everybody.
pub(crate) fn too_open(mode: u32, uid: u32, is_file: bool) -> Option<&'static str> {
    let allowed = if uid == 0 { 0o040 } else { 0 };
    let readable = mode & 0o044 & !allowed;
    (is_file && readable != 0).then_some(if uid == 0 && mode & 0o040 != 0 { "640" } else { "600" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_for_its_owner_and_for_a_group_only_if_root_said_so() {
        for (mode, uid, expected) in [
            (0o600, 1000, None),
            (0o640, 1000, Some("600")),
            (0o644, 1000, Some("600")),
            (0o604, 1000, Some("600")),
            (0o600, 0, None),
            (0o640, 0, None),
            (0o644, 0, Some("640")),
            (0o604, 0, Some("600")),
        ] {
            assert_eq!(too_open(0o100_000 | mode, uid, true), expected, "{mode:o} {uid}");
        }
        assert_eq!(too_open(0o644, 1000, false), None);
    }
}
