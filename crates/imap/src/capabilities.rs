use std::collections::BTreeSet;

/// What the server said it can do (RFC 9051 §7.2.2), names in upper case.
///
/// ```
/// let capabilities = connectord_imap::Capabilities::from_iter(["IMAP4rev1", "IDLE", "AUTH=PLAIN"]);
/// assert!(capabilities.has("idle") && capabilities.has_rev1());
/// assert_eq!(capabilities.mechanisms().collect::<Vec<_>>(), ["PLAIN"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(BTreeSet<String>);

impl Capabilities {
    /// Whether a capability is offered, in any case.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(&name.to_ascii_uppercase())
    }

    /// Whether IMAP4rev1 is spoken (RFC 3501).
    pub fn has_rev1(&self) -> bool {
        self.0.contains("IMAP4REV1")
    }

    /// Whether IMAP4rev2 is spoken (RFC 9051); it has to be enabled where IMAP4rev1 is spoken too.
    pub fn has_rev2(&self) -> bool {
        self.0.contains("IMAP4REV2")
    }

    /// SASL mechanisms, in upper case.
    pub fn mechanisms(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|name| name.strip_prefix("AUTH="))
    }

    /// Every capability, in upper case, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: AsRef<str>> FromIterator<T> for Capabilities {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        Self(names.into_iter().map(|name| name.as_ref().to_ascii_uppercase()).collect())
    }
}
