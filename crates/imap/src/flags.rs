//! Flags of messages (RFC 9051 §2.3.2).

use std::fmt;

/// One flag of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Flag {
    /// `\Seen`: read.
    Seen,
    /// `\Answered`.
    Answered,
    /// `\Flagged`: urgent or starred.
    Flagged,
    /// `\Deleted`: the next EXPUNGE removes the message.
    Deleted,
    /// `\Draft`.
    Draft,
    /// `\Recent`: of IMAP4rev1; clients cannot set it.
    Recent,
    /// `\*` in PERMANENTFLAGS: the client may make new keywords.
    Any,
    /// A keyword, or a system flag this crate does not know (with its backslash).
    Keyword(String),
}

impl Flag {
    /// Reads a flag as it stands on the wire; system flags in any case; `None` when it is not one atom.
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let name = octets.strip_prefix(b"\\").unwrap_or(octets);
        let is_atom = |octet: &u8| octet.is_ascii_graphic() && !b"(){%\"\\".contains(octet);
        if name.is_empty() || name.len() > 1024 || !name.iter().all(is_atom) {
            return None;
        }
        let text = String::from_utf8(octets.to_vec()).ok()?;
        Some(match text.to_ascii_lowercase().as_str() {
            "\\seen" => Self::Seen,
            "\\answered" => Self::Answered,
            "\\flagged" => Self::Flagged,
            "\\deleted" => Self::Deleted,
            "\\draft" => Self::Draft,
            "\\recent" => Self::Recent,
            "\\*" => Self::Any,
            _ if text.contains('*') => return None,
            _ => Self::Keyword(text),
        })
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seen => "\\Seen",
            Self::Answered => "\\Answered",
            Self::Flagged => "\\Flagged",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
            Self::Recent => "\\Recent",
            Self::Any => "\\*",
            Self::Keyword(name) => name,
        })
    }
}

/// A message's flags, sorted, each once.
///
/// ```
/// use connectord_imap::{Flag, Flags};
/// let flags = Flags::from([Flag::Deleted, Flag::Seen]);
/// assert!(flags.contains(&Flag::Seen));
/// assert_eq!(flags.to_string(), "(\\Seen \\Deleted)");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(Vec<Flag>);

impl Flags {
    /// No flags.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the flag is there.
    pub fn contains(&self, flag: &Flag) -> bool {
        self.0.binary_search(flag).is_ok()
    }

    /// The flags, sorted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Flag> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Flag> for Flags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        let mut flags: Vec<_> = flags.into_iter().collect();
        flags.sort_unstable();
        flags.dedup();
        Self(flags)
    }
}

impl<const N: usize> From<[Flag; N]> for Flags {
    fn from(flags: [Flag; N]) -> Self {
        flags.into_iter().collect()
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (at, flag) in self.0.iter().enumerate() {
            write!(f, "{}{flag}", if at > 0 { " " } else { "" })?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_flags_are_known_in_any_case_and_keywords_keep_theirs() {
        assert_eq!(Flag::parse(b"\\SEEN"), Some(Flag::Seen));
        assert_eq!(Flag::parse(b"$Junk"), Some(Flag::Keyword("$Junk".into())));
        assert_eq!(Flag::parse(b"\\XYZ"), Some(Flag::Keyword("\\XYZ".into())));
        for bad in [&b""[..], b"\\", b"a b", b"a\r\nb", b"a*", b"caf\xe9", b"a)"] {
            assert_eq!(Flag::parse(bad), None, "{bad:?}");
        }
    }
}
