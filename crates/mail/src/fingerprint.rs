use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Head;

/// Recognises a message whose server has given it another identity: a changed UIDVALIDITY, renumbered unique-ids.
///
/// Twenty octets, kept for every message that was delivered. It is consulted only after such a change or where a server
/// has no unique-ids, and never justifies a removal alone (two messages may be the same).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Digest of the header, line ends aside, without the fields that servers write into it by themselves.
    pub head: u64,
    /// Digest of Message-ID and Date.
    pub ident: u64,
    /// Octets of the whole message, as they came; at most `u32::MAX`.
    pub size: u32,
}

/// Fields that some POP3 and IMAP servers add or change while a message lies there (mbox-based ones: UW imapd,
/// Qpopper, Dovecot's mbox).
const CHANGED_BY_SERVERS: [&str; 7] = ["Status", "X-Status", "X-UID", "X-UIDL", "X-Keywords", "X-IMAP", "X-IMAPbase"];

impl Fingerprint {
    /// Takes the fingerprint of a message with this header and this size in octets.
    pub fn new(head: Head<'_>, size_octets: u64) -> Self {
        let mut whole = Sha256::new();
        let (mut message_id, mut date) = (None, None);
        for field in head.fields().filter(|field| !CHANGED_BY_SERVERS.iter().any(|name| field.is(name))) {
            for line in field.octets.split(|o| *o == b'\n') {
                whole.update(line.strip_suffix(b"\r").unwrap_or(line));
                whole.update(b"\n");
            }
            if message_id.is_none() && field.is("Message-ID") {
                message_id = Some(field.value);
            }
            if date.is_none() && field.is("Date") {
                date = Some(field.value);
            }
        }
        let mut ident = Sha256::new();
        ident.update(message_id.unwrap_or_default());
        ident.update(b"\0");
        ident.update(date.unwrap_or_default());
        Self {
            head: first_eight(&whole.finalize()),
            ident: first_eight(&ident.finalize()),
            size: u32::try_from(size_octets).unwrap_or(u32::MAX),
        }
    }

    /// Whether these are the same message: the same header. The size is left out, as servers announce sizes that are
    /// not those of the octets they send.
    pub fn same_message(&self, other: &Self) -> bool {
        self.head == other.head && self.ident == other.ident
    }
}

fn first_eight(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, octet| number << 8 | u64::from(*octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_writes_into_the_header_does_not_change_it() {
        let before = Head::of(b"Message-ID: <1@x>\r\nSubject: a\r\n b\r\n\r\n");
        let after = Head::of(b"Message-ID: <1@x>\nSubject: a\n b\nStatus: RO\nX-UID: 7\n\n");
        assert!(Fingerprint::new(before, 5).same_message(&Fingerprint::new(after, 9)));
    }

    #[test]
    fn another_field_makes_another_message() {
        let one = Fingerprint::new(Head::of(b"Message-ID: <1@x>\r\nReceived: a\r\n\r\n"), 5);
        assert!(!one.same_message(&Fingerprint::new(Head::of(b"Message-ID: <1@x>\r\nReceived: b\r\n\r\n"), 5)));
        assert!(!one.same_message(&Fingerprint::new(Head::of(b"Message-ID: <2@x>\r\nReceived: a\r\n\r\n"), 5)));
    }
}
