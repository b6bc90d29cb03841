use std::fmt;

use sha2::{Digest, Sha256};

/// What makes one message on one server unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The account's address; case aside.
    pub account: &'a str,
    /// Mailbox name; empty for POP3.
    pub mailbox: &'a str,
    /// UIDVALIDITY; 0 for POP3.
    pub uid_validity: u32,
    /// UID in four octets, unique-id, or digest of the content.
    pub key: &'a [u8],
    /// Counts up when a unique-id comes back for a different message.
    pub generation: u16,
}

/// The identity of one message for one recipient, the same on every attempt of any node.
///
/// ```
/// use connectord_mail::{DeliveryId, Identity};
/// let id = DeliveryId::new(Identity {
///     account: "Info@Example.org", mailbox: "INBOX", uid_validity: 7, key: &[0, 0, 0, 1], generation: 0,
/// });
/// assert_eq!(id.to_string().len(), 26);
/// assert_eq!(id.for_recipient("default", "alice"), id.for_recipient("default", "alice"));
/// assert_ne!(id.for_recipient("default", "alice"), id.for_recipient("default", "bob"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId([u8; 17]);

impl DeliveryId {
    /// Digests the identity; every part is preceded by its length, so that no two identities write the same octets.
    pub fn new(identity: Identity<'_>) -> Self {
        let mut digest = Sha256::new();
        let account = identity.account.to_lowercase();
        for part in
            [account.as_bytes(), identity.mailbox.as_bytes(), &identity.uid_validity.to_be_bytes(), identity.key]
        {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(identity.generation.to_be_bytes());
        Self::first(&digest.finalize())
    }

    /// The identity of the copy for one recipient at one destination.
    #[must_use]
    pub fn for_recipient(self, destination: &str, recipient: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(self.0);
        digest.update((destination.len() as u64).to_be_bytes());
        digest.update(destination);
        digest.update(recipient);
        Self::first(&digest.finalize())
    }

    /// Its octets, which [`DeliveryId::from_octets`] reads.
    pub fn octets(&self) -> &[u8; 17] {
        &self.0
    }

    /// The identity with these octets; the last six bits are none of it.
    pub fn from_octets(octets: [u8; 17]) -> Self {
        Self::first(&octets)
    }

    fn first(digest: &[u8]) -> Self {
        let mut octets = [0; 17];
        octets.copy_from_slice(&digest[..17]);
        // 26 letters of base32 are 130 bits; the other 6 are cleared so that equal texts are equal values.
        octets[16] &= 0xC0;
        Self(octets)
    }

    /// Reads what `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 26 {
            return None;
        }
        let mut octets = [0u8; 17];
        for (i, c) in text.bytes().enumerate() {
            let value = LETTERS.iter().position(|letter| *letter == c)? as u8;
            for bit in 0..5 {
                let at = i * 5 + bit;
                octets[at / 8] |= ((value >> (4 - bit)) & 1) << (7 - at % 8);
            }
        }
        Some(Self(octets))
    }
}

const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Twenty-six letters and digits (RFC 4648 §6, lower case): safe in a file name and in a header.
impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for i in 0..26 {
            let value = (0..5).fold(0, |value, bit| {
                let at = i * 5 + bit;
                value << 1 | (self.0[at / 8] >> (7 - at % 8)) & 1
            });
            f.write_char(char::from(LETTERS[usize::from(value)]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_cannot_run_into_each_other() {
        let id = |account, mailbox| {
            DeliveryId::new(Identity { account, mailbox, uid_validity: 1, key: b"k", generation: 0 })
        };
        assert_ne!(id("a@b", "c"), id("a@", "bc"));
        assert_eq!(id("A@b", "c"), id("a@B", "c"));
    }

    proptest! {
        #[test]
        fn the_text_reads_back(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            let id = DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: &key, generation: 3 });
            prop_assert_eq!(DeliveryId::parse(&id.to_string()), Some(id));
        }
    }
}
