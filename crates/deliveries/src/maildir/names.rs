use std::fmt::Write;

use connectord_mail::{DeliveryId, UnixTime};
use sha2::{Digest, Sha256};

/// Longest directory name of a folder; what is longer is cut and told apart by a digest.
const MAX_FOLDER: usize = 200;
/// Longest part of a file name that names this host.
const MAX_HOST: usize = 100;

/// The name of a message in `new/`: `<seconds>.<id>.<host>,S=<octets>,W=<octets with CRLF>`.
///
/// Dovecot reads the sizes from the name instead of the file.
pub(super) fn target(time: UnixTime, id: DeliveryId, host: &str, size_octets: u64, crlf_octets: u64) -> String {
    format!("{}.{id}.{host},S={size_octets},W={crlf_octets}", time.0.max(0))
}

/// The id in a name in `new/` or `cur/` that we gave, whatever flags a reader has added.
pub(super) fn id_of(name: &[u8]) -> Option<DeliveryId> {
    let mut parts = name.splitn(3, |o| *o == b'.');
    let (seconds, id) = (parts.next()?, parts.next()?);
    parts.next()?;
    if seconds.is_empty() || !seconds.iter().all(u8::is_ascii_digit) {
        return None;
    }
    DeliveryId::parse(std::str::from_utf8(id).ok()?)
}

/// Size in octets as a name tells it (`,S=`).
pub(super) fn size_of(name: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(name, b",S=")? + 3;
    let digits = name[at..].iter().take_while(|o| o.is_ascii_digit()).count();
    std::str::from_utf8(&name[at..at + digits]).ok()?.parse().ok()
}

/// A host's name as part of a file name: what is odd, `/`, `:` and `,` above all, becomes `\ooo`, as the Maildir
/// specification has it.
pub(super) fn host(name: &str) -> String {
    let mut out = String::new();
    for octet in name.bytes() {
        if out.len() >= MAX_HOST {
            break;
        }
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => out.push(char::from(octet)),
            odd => write!(out, "\\{odd:03o}").expect("a String takes everything"),
        }
    }
    if out.is_empty() { "localhost".into() } else { out }
}

/// An installation's mark as part of a file name: letters, digits, `-` and `_`; the rest is dropped.
pub(super) fn instance(mark: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mark: String = mark.chars().filter(kept).take(40).collect();
    if mark.is_empty() { "connectord".into() } else { mark }
}

/// The Maildir++ directory of a folder, `.Junk` or `.Work.2026`; `None` is the inbox.
///
/// `/` parts levels. What is not a plain letter, digit or one of `-_+=@` and space is written `%XX`, so that no server's
/// string decides a path.
pub(super) fn folder(name: &str) -> Option<String> {
    let mut out = String::new();
    for level in name.split('/').filter(|level| !level.is_empty()) {
        out.push('.');
        for octet in level.bytes() {
            match octet {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'+' | b'=' | b'@' | b' ' => {
                    out.push(char::from(octet));
                }
                odd => write!(out, "%{odd:02X}").expect("a String takes everything"),
            }
        }
    }
    if out.is_empty() || out.eq_ignore_ascii_case(".inbox") {
        return None;
    }
    if out.len() > MAX_FOLDER {
        let digest = Sha256::digest(&out);
        out.truncate(MAX_FOLDER - 17);
        out.push('_');
        for octet in &digest[..8] {
            write!(out, "{octet:02x}").expect("a String takes everything");
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use connectord_mail::Identity;
    use proptest::prelude::*;

    use super::*;

    fn id() -> DeliveryId {
        DeliveryId::new(Identity { account: "a@b", mailbox: "", uid_validity: 0, key: b"1", generation: 0 })
    }

    #[test]
    fn a_name_tells_its_id_with_and_without_flags() {
        let name = target(UnixTime(1_795_000_000), id(), "mail.example.org", 12, 14);
        assert_eq!(name, format!("1795000000.{}.mail.example.org,S=12,W=14", id()));
        assert_eq!(id_of(name.as_bytes()), Some(id()));
        assert_eq!(id_of(format!("{name}:2,FS").as_bytes()), Some(id()));
        assert_eq!(size_of(format!("{name}:2,FS").as_bytes()), Some(12));
        assert_eq!(id_of(b"1795000000.M1P2.host"), None);
        assert_eq!(id_of(b""), None);
    }

    #[test]
    fn odd_folders_stay_one_component_below_the_maildir() {
        assert_eq!(folder("Junk").as_deref(), Some(".Junk"));
        assert_eq!(folder("Work/2026").as_deref(), Some(".Work.2026"));
        assert_eq!(folder("../../etc").as_deref(), Some(".%2E%2E.%2E%2E.etc"));
        assert_eq!(folder("Entwürfe&\0").as_deref(), Some(".Entw%C3%BCrfe%26%00"));
        assert_eq!((folder(""), folder("/"), folder("INBOX")), (None, None, None));
        assert_eq!(host("a/b:c,d"), "a\\057b\\072c\\054d");
    }

    proptest! {
        #[test]
        fn no_folder_leaves_the_maildir(name in any::<String>(), other in any::<String>()) {
            if let Some(name) = folder(&name) {
                prop_assert!(name.len() <= MAX_FOLDER && name.starts_with('.') && !name.contains('/'));
                prop_assert!(name != "." && name != "..");
            }
            let same = |a: &str, b: &str| a.split('/').filter(|l| !l.is_empty()).eq(b.split('/').filter(|l| !l.is_empty()));
            if folder(&name).is_some() && folder(&name) == folder(&other) {
                prop_assert!(same(&name, &other));
            }
        }

        #[test]
        fn any_name_is_read_without_harm(name in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (id_of(&name), size_of(&name));
        }
    }
}
