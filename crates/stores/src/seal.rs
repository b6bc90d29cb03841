//! Sealing of secrets that are kept in the state: XChaCha20-Poly1305 under a key that is kept elsewhere.
//!
//! | record | octets |
//! |---|---|
//! | version: 1 | 1 |
//! | the key's id: the first octets of SHA-256 over a label and the key | 8 |
//! | nonce, by chance | 24 |
//! | ciphertext, and the tag | as the secret, and 16 |
//!
//! What is authenticated beside it is the version, the key's id and the [`Place`]: a record opens nowhere but in the
//! column of the row it was sealed for. Who has the state without the key has nothing; who has an older key too can be
//! given a new one ([`Keys`]).

mod keys;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use connectord_wire::Secret;
use sha2::{Digest, Sha256};

pub use self::keys::{KeyFileError, Keys};

const VERSION: u8 = 1;
const ID: usize = 8;
const NONCE: usize = 24;

/// Where a sealed secret is kept; it opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The row: the account's number.
    pub account: i64,
    /// The column.
    pub column: &'a str,
}

/// Why a sealed secret cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// It was sealed by a newer version of this program, or is none of ours.
    #[error("it is in a form that this version does not know")]
    Form,
    /// The key it was sealed under is not there.
    #[error("it was sealed under the key {wanted}, and the key file has {known}")]
    OtherKey {
        /// The key's id, in hexadecimal.
        wanted: String,
        /// The ids that are there.
        known: String,
    },
    /// It was changed since, or comes from another row.
    #[error("it is not what was sealed here: somebody or something has changed the state")]
    Tampered,
    /// The system has no randomness to give.
    #[error("the system gives no random octets")]
    NoRandomness,
}

/// One key.
struct Key {
    id: [u8; ID],
    cipher: XChaCha20Poly1305,
}

impl Key {
    fn new(octets: &[u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(b"connectord sealing key").chain_update(octets).finalize();
        let mut id = [0; ID];
        id.copy_from_slice(&digest[..ID]);
        Self { id, cipher: XChaCha20Poly1305::new(octets.into()) }
    }

    /// All that a record is bound to. The texts are ours and hold no NUL.
    fn bound(&self, place: Place<'_>) -> Vec<u8> {
        let mut bound = vec![VERSION];
        bound.extend_from_slice(&self.id);
        bound.extend_from_slice(&place.account.to_be_bytes());
        for text in [place.table, place.column] {
            bound.extend_from_slice(text.as_bytes());
            bound.push(0);
        }
        bound
    }

    fn seal(&self, place: Place<'_>, secret: &Secret) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let payload = Payload { msg: secret.expose(), aad: &self.bound(place) };
        // Only a message of many gigabytes is refused.
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Form)?;
        Ok([&[VERSION][..], &self.id, &nonce, &sealed].concat())
    }

    fn open(&self, place: Place<'_>, nonce: [u8; NONCE], sealed: &[u8]) -> Result<Secret, SealError> {
        let payload = Payload { msg: sealed, aad: &self.bound(place) };
        self.cipher.decrypt(&XNonce::from(nonce), payload).map(Secret::new).map_err(|_| SealError::Tampered)
    }
}

/// A record, taken apart.
struct Record<'a> {
    key: [u8; ID],
    nonce: [u8; NONCE],
    sealed: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(record: &'a [u8]) -> Result<Self, SealError> {
        let rest = record.strip_prefix(&[VERSION]).ok_or(SealError::Form)?;
        let (key, rest) = rest.split_first_chunk().ok_or(SealError::Form)?;
        let (nonce, sealed) = rest.split_first_chunk().ok_or(SealError::Form)?;
        Ok(Self { key: *key, nonce: *nonce, sealed })
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { table: "saved", account: 7, column: "secret" };

    fn keys(first: u8) -> Keys {
        Keys::from_text(&hexadecimal(&[first; 32])).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_where_it_was_sealed_and_nowhere_else() {
        let keys = keys(1);
        let secret = Secret::from("correct horse");
        let record = keys.seal(PLACE, &secret).unwrap();
        assert_eq!(keys.open(PLACE, &record), Ok(secret.clone()));
        // Rows, columns and tables cannot be swapped.
        for other in [
            Place { account: 8, ..PLACE },
            Place { column: "token", ..PLACE },
            Place { table: "other", ..PLACE },
            Place { table: "savedsecret", column: "", ..PLACE },
        ] {
            assert_eq!(keys.open(other, &record), Err(SealError::Tampered), "{other:?}");
        }
        // The same secret never looks the same, and is not to be seen.
        assert_ne!(keys.seal(PLACE, &secret).unwrap(), record);
        assert!(!record.windows(7).any(|octets| octets == b"correct"));
    }

    #[test]
    fn a_record_that_was_changed_anywhere_does_not_open() {
        let keys = keys(1);
        let record = keys.seal(PLACE, &Secret::from("correct horse")).unwrap();
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            assert!(keys.open(PLACE, &changed).is_err(), "octet {at}");
        }
        for length in 0..record.len() {
            assert!(keys.open(PLACE, &record[..length]).is_err(), "the first {length} octets");
        }
        assert!(keys.open(PLACE, &[record.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn another_key_is_named_and_an_old_one_still_opens() {
        let (old, new) = (keys(1), keys(2));
        let record = old.seal(PLACE, &Secret::from("secret")).unwrap();
        let Err(SealError::OtherKey { wanted, known }) = new.open(PLACE, &record) else { panic!("it must not open") };
        assert_eq!((wanted, known), (old.names(), new.names()));
        // A new key above the old one: what is sealed from now on is under the new one.
        let both = Keys::from_text(&format!("# since March\n{}\n\n{}\n", hexadecimal(&[2; 32]), hexadecimal(&[1; 32])))
            .unwrap();
        assert_eq!(both.open(PLACE, &record), Ok(Secret::from("secret")));
        assert!(both.is_outdated(&record));
        let renewed = both.seal(PLACE, &Secret::from("secret")).unwrap();
        assert!(!both.is_outdated(&renewed));
        assert_eq!(new.open(PLACE, &renewed), Ok(Secret::from("secret")));
    }

    #[test]
    fn the_record_is_what_the_table_above_says() {
        let keys = keys(1);
        let record = keys.seal(PLACE, &Secret::from("secret")).unwrap();
        assert_eq!(record.len(), 1 + 8 + 24 + 6 + 16);
        assert_eq!(hexadecimal(&record[1..9]), keys.names());
        // Made by an implementation of the draft (XChaCha, draft-irtf-cfrg-xchacha-03) that shares no code with ours.
        let id = [0x8f, 0x2c, 0xc8, 0x85, 0xeb, 0xcc, 0x2e, 0x3f];
        let sealed = [
            0x80, 0x88, 0xdc, 0xe4, 0x3b, 0xb2, 0x8c, 0x25, 0xe0, 0x37, 0xf7, 0x78, 0xfb, 0xf2, 0xcb, 0x23, 0xfa, 0x05,
            0x86, 0xeb, 0x61, 0xe0,
        ];
        let kept = [&[1][..], &id, &[9; 24], &sealed].concat();
        assert_eq!(keys.open(PLACE, &kept), Ok(Secret::from("secret")));
    }
}
