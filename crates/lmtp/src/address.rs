use std::fmt;

/// What stands between the angle brackets of MAIL FROM and RCPT TO: an address that cannot leave them.
///
/// The domain may be missing: an LMTP server knows its users by name. The empty address is the null reverse-path.
///
/// ```
/// use connectord_lmtp::{Address, AddressError};
/// assert_eq!(Address::parse("ann@example.org")?.to_string(), "ann@example.org");
/// assert_eq!(Address::parse("a>\r\nDATA"), Err(AddressError::Character { found: '>', at: 1 }));
/// # Ok::<(), AddressError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(String);

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is longer than any server takes.
    #[error("address of {length} octets exceeds the limit of {limit}", limit = Address::MAX_OCTETS)]
    Length {
        /// Its length, in octets.
        length: usize,
    },
    /// A control character, an angle bracket, or a space outside a quoted local part.
    #[error("{found:?} at position {at} is not allowed in an address")]
    Character {
        /// The character.
        found: char,
        /// Where it stands, in octets from the start.
        at: usize,
    },
}

impl Address {
    /// Longest address, in octets. RFC 5321 §4.5.3.1.3 says 254 without the brackets; forwarding services rewrite
    /// senders (SRS, BATV) beyond that, and a command line has room for 512 (§4.5.3.1.4) and usually for much more.
    pub const MAX_OCTETS: usize = 900;

    /// The null reverse-path, `<>`.
    pub fn null() -> Self {
        Self::default()
    }

    /// Checks an address without its angle brackets; the empty text is [`Address::null`].
    ///
    /// # Errors
    /// [`AddressError`] for what could end the command or add to it. No more is checked: what an address may be is the
    /// server's to say.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > Self::MAX_OCTETS {
            return Err(AddressError::Length { length: text.len() });
        }
        let mut quoted = false;
        let mut escaped = false;
        for (at, found) in text.char_indices() {
            if found.is_control() || matches!(found, '<' | '>') || (found == ' ' && !quoted) {
                return Err(AddressError::Character { found, at });
            }
            match found {
                _ if escaped => escaped = false,
                '\\' => escaped = quoted,
                '"' => quoted = !quoted,
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The address without angle brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the null reverse-path.
    pub fn is_null(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it can travel without SMTPUTF8 (RFC 6531 §3.3).
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_ends_or_extends_a_command_is_an_address() {
        for (text, found, at) in [
            ("a\r\nRSET", '\r', 1),
            ("a\nb", '\n', 1),
            ("a\0", '\0', 1),
            ("<a@b>", '<', 0),
            ("a@b> SIZE=1", '>', 3),
            ("a b@c", ' ', 1),
            ("\"a\\\" b\"@c d", ' ', 9),
            ("a@b\u{85}", '\u{85}', 3),
        ] {
            assert_eq!(Address::parse(text), Err(AddressError::Character { found, at }), "{text:?}");
        }
        assert_eq!(Address::parse(&"a".repeat(901)), Err(AddressError::Length { length: 901 }));
    }

    #[test]
    fn what_servers_know_as_addresses_is_taken() {
        for text in [
            "",
            "user",
            "ann@example.org",
            "\"a \\\" b\"@c",
            "ü@exämple.org",
            "SRS0=x=y=a.b=c@d",
            "user+box@[192.0.2.1]",
        ] {
            assert_eq!(Address::parse(text).unwrap().as_str(), text);
        }
    }
}
