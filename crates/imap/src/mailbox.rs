//! Mailbox names: UTF-8 for the caller, modified UTF-7 or UTF-8 on the wire (RFC 3501 §5.1.3, RFC 9051 §5.1).

use std::fmt;

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::general_purpose::NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose};
use connectord_wire::Escaped;

/// How names are written on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameEncoding {
    /// Modified UTF-7: IMAP4rev1.
    #[default]
    Utf7,
    /// UTF-8: after ENABLE of UTF8=ACCEPT or IMAP4rev2, and where only IMAP4rev2 is spoken.
    Utf8,
}

/// A mailbox's name.
///
/// `INBOX` is the same in any case; all others differ by case. A name from a server that does not decode, or that would
/// not come back as the same octets, is kept as it is and can still be used.
///
/// ```
/// use connectord_imap::{MailboxName, NameEncoding};
/// let name = MailboxName::new("Entwürfe")?;
/// assert_eq!(name.to_wire(NameEncoding::Utf7), b"Entw&APw-rfe");
/// assert_eq!(MailboxName::from_wire(b"Entw&APw-rfe", NameEncoding::Utf7), name);
/// assert_eq!(MailboxName::new("inbox")?, MailboxName::inbox());
/// # Ok::<(), connectord_imap::MailboxNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxName(Name);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Name {
    Text(String),
    Raw(Vec<u8>),
}

/// Why a text is no mailbox name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MailboxNameError {
    /// Nothing, or more than a command should carry.
    #[error("a mailbox name has 1 to {MAX_LENGTH} octets, this has {length}")]
    Length {
        /// Length found, in octets.
        length: usize,
    },
    /// A control character.
    #[error("{found:?} at position {at} is not allowed in a mailbox name")]
    Character {
        /// The character.
        found: char,
        /// Where it stands, in octets from the start.
        at: usize,
    },
}

/// Longest name a caller can make, in octets of UTF-8.
const MAX_LENGTH: usize = 1024;

impl MailboxName {
    /// The mailbox every user has.
    pub fn inbox() -> Self {
        Self(Name::Text("INBOX".into()))
    }

    /// Checks a name that a person or a configuration gave.
    ///
    /// # Errors
    /// [`MailboxNameError`] when it is empty, too long, or has control characters (RFC 9051 §5.1).
    pub fn new(text: &str) -> Result<Self, MailboxNameError> {
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(MailboxNameError::Length { length: text.len() });
        }
        match text.char_indices().find(|(_, c)| is_forbidden(*c)) {
            Some((at, found)) => Err(MailboxNameError::Character { found, at }),
            None => Ok(Self::from_text(text.into())),
        }
    }

    fn from_text(text: String) -> Self {
        if text.eq_ignore_ascii_case("INBOX") { Self::inbox() } else { Self(Name::Text(text)) }
    }

    /// Takes a name from a server, whatever it is.
    pub fn from_wire(octets: &[u8], encoding: NameEncoding) -> Self {
        let text = match encoding {
            NameEncoding::Utf7 => decode_utf7(octets),
            NameEncoding::Utf8 => String::from_utf8(octets.to_vec()).ok(),
        };
        match text {
            Some(text) if !text.chars().any(is_forbidden) => Self::from_text(text),
            _ => Self(Name::Raw(octets.to_vec())),
        }
    }

    /// The octets to send.
    pub fn to_wire(&self, encoding: NameEncoding) -> Vec<u8> {
        match (&self.0, encoding) {
            (Name::Text(text), NameEncoding::Utf7) => encode_utf7(text).into_bytes(),
            (Name::Text(text), NameEncoding::Utf8) => text.clone().into_bytes(),
            (Name::Raw(octets), _) => octets.clone(),
        }
    }

    /// The name as text; `None` when it did not decode.
    pub fn as_text(&self) -> Option<&str> {
        match &self.0 {
            Name::Text(text) => Some(text),
            Name::Raw(_) => None,
        }
    }

    /// Whether it is the same on the wire in every encoding.
    pub(crate) fn is_plain(&self) -> bool {
        self.as_text().is_none_or(|text| text.bytes().all(|octet| octet.is_ascii() && octet != b'&'))
    }
}

impl fmt::Display for MailboxName {
    /// As text, escaped where it would do harm.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::Text(text) => Escaped::text(text).fmt(f),
            Name::Raw(octets) => Escaped(octets).fmt(f),
        }
    }
}

/// RFC 9051 §5.1: no control characters, no line and paragraph separators.
fn is_forbidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&IMAP_MUTF7, NO_PAD.with_decode_padding_mode(DecodePaddingMode::RequireNone));

/// Writes text in modified UTF-7 (RFC 3501 §5.1.3).
pub(crate) fn encode_utf7(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(c) = rest.chars().next() {
        let run = match c {
            '&' => {
                out.push_str("&-");
                1
            }
            ' '..='~' => {
                out.push(c);
                1
            }
            _ => {
                let run = rest.find(|c| matches!(c, ' '..='~')).unwrap_or(rest.len());
                let utf16: Vec<u8> = rest[..run].encode_utf16().flat_map(u16::to_be_bytes).collect();
                out.push('&');
                BASE64.encode_string(utf16, &mut out);
                out.push('-');
                run
            }
        };
        rest = &rest[run..];
    }
    out
}

/// Reads modified UTF-7; `None` for anything that would not be written the same again.
pub(crate) fn decode_utf7(octets: &[u8]) -> Option<String> {
    let (mut out, mut rest) = (String::with_capacity(octets.len()), octets);
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        match octet {
            b'&' => {
                let end = memchr::memchr(b'-', rest)?;
                if end == 0 {
                    out.push('&');
                } else {
                    let utf16 = BASE64.decode(&rest[..end]).ok()?;
                    let (units, []) = utf16.as_chunks::<2>() else { return None };
                    let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
                    out.extend(char::decode_utf16(units).collect::<Result<Vec<_>, _>>().ok()?);
                }
                rest = &rest[end + 1..];
            }
            b' '..=b'~' => out.push(char::from(octet)),
            _ => return None,
        }
    }
    (encode_utf7(&out).as_bytes() == octets).then_some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rfc_examples_decode() {
        // RFC 3501 §5.1.3.
        assert_eq!(decode_utf7(b"~peter/mail/&U,BTFw-/&ZeVnLIqe-").unwrap(), "~peter/mail/台北/日本語");
        assert_eq!(decode_utf7(b"&Jjo-!").unwrap(), "☺!");
        assert_eq!(decode_utf7(b"a&-b").unwrap(), "a&b");
        assert_eq!(decode_utf7("&2D3eCA-".as_bytes()).unwrap(), "😈");
    }

    #[test]
    fn what_does_not_decode_is_kept_and_usable() {
        // The last two decode, but not to something that is written like this (RFC 3501: superfluous shifts).
        for raw in [&b"caf\xe9"[..], b"&", b"&abc", b"&YQ-", b"&2D0-", b"a\r\nb", b"&AGE-", b"&U,BTFw-&ZeVnLIqe-"] {
            let name = MailboxName::from_wire(raw, NameEncoding::Utf7);
            assert_eq!(name.as_text(), None, "{raw:?}");
            assert_eq!(name.to_wire(NameEncoding::Utf7), raw);
        }
    }

    #[test]
    fn a_server_cannot_make_text_that_breaks_a_line() {
        assert_eq!(MailboxName::from_wire(b"a\r\nb", NameEncoding::Utf8).as_text(), None);
        assert_eq!(MailboxName::from_wire(b"&AA0-", NameEncoding::Utf7).as_text(), None);
    }

    #[test]
    fn only_inbox_is_the_same_in_any_case() {
        assert_eq!(MailboxName::from_wire(b"iNbOx", NameEncoding::Utf7), MailboxName::inbox());
        assert_ne!(MailboxName::new("sent"), MailboxName::new("Sent"));
    }

    #[test]
    fn a_caller_cannot_make_a_name_that_breaks_a_line() {
        assert_eq!(MailboxName::new("a\r\nb"), Err(MailboxNameError::Character { found: '\r', at: 1 }));
        assert_eq!(MailboxName::new(""), Err(MailboxNameError::Length { length: 0 }));
    }

    proptest! {
        #[test]
        fn every_text_survives_both_encodings(text in "\\PC{1,20}|[a&é☺ -]{1,10}") {
            let Ok(name) = MailboxName::new(&text) else { return Ok(()) };
            for encoding in [NameEncoding::Utf7, NameEncoding::Utf8] {
                prop_assert_eq!(&MailboxName::from_wire(&name.to_wire(encoding), encoding), &name);
            }
        }

        #[test]
        fn every_octet_string_survives(octets in prop::collection::vec(any::<u8>(), 0..30)) {
            for encoding in [NameEncoding::Utf7, NameEncoding::Utf8] {
                let back = MailboxName::from_wire(&octets, encoding).to_wire(encoding);
                prop_assert!(back == octets || back == b"INBOX");
            }
        }
    }
}
