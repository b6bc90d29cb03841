use std::fmt;

use connectord_wire::Escaped;

/// A unique-id: what names a message across sessions (RFC 1939 §7).
///
/// The standard allows 1 to 70 octets from 0x21 to 0x7E. Accepted are 1 to [`Uidl::MAX_OCTETS`] octets without white space
/// and control characters, also from 0x80 to 0xFF: as long as it is kept octet by octet, an id that breaks the rule still
/// names the message. Whether it is unique is for the caller to see.
///
/// ```
/// use connectord_pop3::{Uidl, UidlError};
/// let uidl = Uidl::new(b"whqtswO00WBw418f9t5JxYwZ")?;
/// assert_eq!(uidl.octets(), b"whqtswO00WBw418f9t5JxYwZ");
/// assert_eq!(Uidl::new(b"a b"), Err(UidlError::Octet { octet: b' ', at: 1 }));
/// # Ok::<(), UidlError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uidl(Box<[u8]>);

impl Uidl {
    /// Longest accepted unique-id, in octets; the standard's own limit is 70.
    pub const MAX_OCTETS: usize = 1024;

    /// Checks the octets and keeps them as they are.
    ///
    /// # Errors
    /// [`UidlError`] when there is none, more than [`Uidl::MAX_OCTETS`], or one that is white space or a control character.
    pub fn new(octets: &[u8]) -> Result<Self, UidlError> {
        if octets.is_empty() || octets.len() > Self::MAX_OCTETS {
            return Err(UidlError::Length { length: octets.len() });
        }
        match octets.iter().position(|octet| *octet <= b' ' || *octet == 0x7f) {
            Some(at) => Err(UidlError::Octet { octet: octets[at], at }),
            None => Ok(Self(octets.into())),
        }
    }

    /// The octets as the server sent them.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Whether it keeps to the standard: at most 70 octets, all from 0x21 to 0x7E.
    pub fn is_standard(&self) -> bool {
        self.0.len() <= 70 && self.0.iter().all(u8::is_ascii_graphic)
    }
}

impl AsRef<[u8]> for Uidl {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// For people and logs: octets that are not text come out escaped.
impl fmt::Display for Uidl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for Uidl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Escaped(&self.0), f)
    }
}

/// Why octets are no unique-id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UidlError {
    /// Nothing, or more than [`Uidl::MAX_OCTETS`].
    #[error("unique-id of {length} octets, expected 1 to {}", Uidl::MAX_OCTETS)]
    Length {
        /// How many octets there were.
        length: usize,
    },
    /// White space or a control character.
    #[error("octet 0x{octet:02x} at {at} in a unique-id, expected no white space and no control character")]
    Octet {
        /// The octet.
        octet: u8,
        /// Its offset.
        at: usize,
    },
}
