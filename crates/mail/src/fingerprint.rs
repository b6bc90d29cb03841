use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Head, LineEnds};

/// Recognises a message whose server has given it another identity: a changed UIDVALIDITY, renumbered unique-ids.
///
/// Twenty octets, kept for every message that was delivered. The header alone recognises a message after such a change;
/// header and body together tell it from every other one, which only a message that came whole can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Digest of the header, line ends aside, without the fields that servers write into it by themselves.
    pub head: u64,
    /// Digest of all that is behind the header, CRLF and LF being the same; 0 when it never came.
    pub body: u64,
    /// Octets of the whole message, as they came; at most `u32::MAX`.
    pub size: u32,
}

/// Fields that some POP3 and IMAP servers add or change while a message lies there (mbox-based ones: UW imapd,
/// Qpopper, Dovecot's mbox).
const CHANGED_BY_SERVERS: [&str; 7] = ["Status", "X-Status", "X-UID", "X-UIDL", "X-Keywords", "X-IMAP", "X-IMAPbase"];

impl Fingerprint {
    /// Takes the fingerprint of a message with this header and this size in octets; of its body nothing is known.
    pub fn new(head: Head<'_>, size_octets: u64) -> Self {
        let mut whole = Sha256::new();
        for field in head.fields().filter(|field| !CHANGED_BY_SERVERS.iter().any(|name| field.is(name))) {
            for line in field.octets.split(|o| *o == b'\n') {
                whole.update(line.strip_suffix(b"\r").unwrap_or(line));
                whole.update(b"\n");
            }
        }
        Self { head: first_eight(&whole.finalize()), body: 0, size: u32::try_from(size_octets).unwrap_or(u32::MAX) }
    }

    /// The same with the body, when all of it came.
    #[must_use]
    pub fn with_body(self, body: BodyDigest) -> Self {
        self.with_body_sha256(&body.sha256())
    }

    /// The same with the body's digest, of [`BodyDigest::sha256`].
    #[must_use]
    pub fn with_body_sha256(self, digest: &[u8; 32]) -> Self {
        Self { body: short(digest), ..self }
    }

    /// Whether these have the same header. The size is left out, as servers announce sizes that are not those of the
    /// octets they send.
    pub fn same_header(&self, other: &Self) -> bool {
        self.head == other.head
    }

    /// Whether these are the same message, header and body; no when either's body is unknown.
    pub fn same_content(&self, other: &Self) -> bool {
        self.same_header(other) && self.is_whole() && self.body == other.body
    }

    /// Whether the body is known too.
    pub fn is_whole(&self) -> bool {
        self.body != 0
    }
}

/// Whether a header names its message. Without Message-ID and Date the headers of different messages may be the same,
/// and only the size says more.
pub fn names_its_message(head: Head<'_>) -> bool {
    head.fields().any(|field| (field.is("Message-ID") || field.is("Date")) && !field.value.is_empty())
}

/// Digest of what is behind a header, made as the octets come.
///
/// ```
/// use connectord_mail::BodyDigest;
///
/// let (mut one, mut other) = (BodyDigest::default(), BodyDigest::default());
/// one.update(b"Hello\r\nworld\r\n");
/// other.update(b"Hello\nwor");
/// other.update(b"ld\n");
/// assert_eq!(one.finish(), other.finish());
/// ```
#[derive(Clone, Debug, Default)]
pub struct BodyDigest {
    digest: Sha256,
    line_ends: LineEnds,
    /// Digested at once, not line by line; used again for each block.
    block: Vec<u8>,
}

/// Octets digested at once.
const BLOCK: usize = 8 * 1024;

impl BodyDigest {
    /// Adds octets.
    pub fn update(&mut self, octets: &[u8]) {
        for piece in octets.chunks(BLOCK) {
            self.block.clear();
            self.line_ends.push(piece, &mut self.block);
            self.digest.update(&self.block);
        }
    }

    /// Adds octets whose line ends are LF already, as [`LineEnds`] makes them; not to be mixed with the other.
    pub fn update_plain(&mut self, octets: &[u8]) {
        self.digest.update(octets);
    }

    /// The digest; never 0.
    pub fn finish(self) -> u64 {
        short(&self.sha256())
    }

    /// All 32 octets of the digest.
    pub fn sha256(mut self) -> [u8; 32] {
        self.block.clear();
        self.line_ends.finish(&mut self.block);
        self.digest.update(&self.block);
        self.digest.finalize().into()
    }
}

fn short(digest: &[u8; 32]) -> u64 {
    first_eight(digest).max(1)
}

fn first_eight(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, octet| number << 8 | u64::from(*octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(message: &[u8]) -> Fingerprint {
        let head = Head::of(message);
        let mut body = BodyDigest::default();
        body.update(&message[head.octets().len()..]);
        Fingerprint::new(head, message.len() as u64).with_body(body)
    }

    #[test]
    fn what_a_server_writes_into_the_header_does_not_change_it() {
        let before = of(b"Message-ID: <1@x>\r\nSubject: a\r\n b\r\n\r\nbody\r\n");
        let after = of(b"Message-ID: <1@x>\nSubject: a\n b\nStatus: RO\nX-UID: 7\n\nbody\n");
        assert!(before.same_header(&after) && before.same_content(&after));
    }

    #[test]
    fn another_field_makes_another_message() {
        let one = of(b"Message-ID: <1@x>\r\nReceived: a\r\n\r\n");
        assert!(!one.same_header(&of(b"Message-ID: <1@x>\r\nReceived: b\r\n\r\n")));
        assert!(!one.same_header(&of(b"Message-ID: <2@x>\r\nReceived: a\r\n\r\n")));
    }

    #[test]
    fn another_body_is_another_content_and_an_unknown_one_is_nobodys() {
        let one = of(b"Message-ID: <1@x>\r\n\r\none");
        let twin = of(b"Message-ID: <1@x>\r\n\r\ntwo");
        assert!(one.same_header(&twin) && !one.same_content(&twin));
        let header = Fingerprint::new(Head::of(b"Message-ID: <1@x>\r\n\r\none"), 24);
        assert!(!header.same_content(&header) && !header.same_content(&one) && !one.same_content(&header));
    }

    #[test]
    fn a_body_has_one_digest_however_it_comes_and_bare_carriage_returns_count() {
        let body = b"a\r\nb\rc\r\r\n\n\r";
        let whole = |pieces: &[&[u8]]| {
            let mut digest = BodyDigest::default();
            pieces.iter().for_each(|piece| digest.update(piece));
            digest.finish()
        };
        let wanted = whole(&[body]);
        for at in 0..body.len() {
            for to in at..body.len() {
                assert_eq!(whole(&[&body[..at], &body[at..to], &body[to..]]), wanted, "{at} {to}");
            }
        }
        assert_eq!(whole(&[b"a\nb\rc\r\r\n\n\r"]), wanted);
        assert_ne!(whole(&[b"a\nbc\r\n\n\r"]), wanted);
        assert_ne!(whole(&[b"a\nb\rc\r\n\n"]), wanted);
    }

    #[test]
    fn the_digest_of_a_body_is_that_of_its_octets_with_plain_line_ends() {
        for body in [&b""[..], b"a\r\nb\rc\r", &b"line\r\n\r\r\n\n".repeat(2000)] {
            let (mut digest, mut plain, mut line_ends) = (BodyDigest::default(), Vec::new(), LineEnds::default());
            body.chunks(4097).for_each(|piece| digest.update(piece));
            line_ends.push(body, &mut plain);
            line_ends.finish(&mut plain);
            assert_eq!(digest.clone().sha256(), <[u8; 32]>::from(Sha256::digest(&plain)));
            assert_eq!(digest.clone().finish(), first_eight(&Sha256::digest(&plain)));
        }
    }

    #[test]
    fn a_header_without_message_id_and_date_names_nobody() {
        for (head, names) in [
            (&b"Subject: a\n\n"[..], false),
            (b"\n", false),
            (b"Message-ID:\n\n", false),
            (b"Date: today\n\n", true),
            (b"message-id: <1@x>\n\n", true),
        ] {
            assert_eq!(names_its_message(Head::of(head)), names);
        }
    }
}
