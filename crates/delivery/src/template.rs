use std::fmt;

use crate::Recipient;

/// A text with places for parts of a recipient, such as `/var/vmail/{user}/Maildir` or `{user}@example.org`.
///
/// | place | what comes there |
/// |---|---|
/// | `{user}` | the local user |
/// | `{address}` | the recipient's address |
/// | `{local}` | what stands before the last `@` of the address; all of it when there is none |
/// | `{domain}` | what stands behind it; empty when there is none |
///
/// ```
/// use connectord_delivery::{Recipient, Template};
/// let path: Template = "/var/vmail/{domain}/{local}/Maildir".parse()?;
/// let recipient = Recipient { user: "alice".into(), address: "alice@example.org".into() };
/// assert_eq!(path.expand_path(&recipient)?, "/var/vmail/example.org/alice/Maildir");
/// # Ok::<(), connectord_delivery::TemplateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    User,
    Address,
    Local,
    Domain,
}

const PLACES: [(&str, Place); 4] =
    [("user", Place::User), ("address", Place::Address), ("local", Place::Local), ("domain", Place::Domain)];

/// Why a text is no template, or cannot be expanded for a recipient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A place that does not exist.
    #[error("unknown place {{{found}}}; known places: {{user}}, {{address}}, {{local}}, {{domain}}")]
    UnknownPlace {
        /// What stood between the braces.
        found: String,
    },
    /// A brace without its partner.
    #[error("a brace at position {at} has no partner")]
    Brace {
        /// Octets from the start.
        at: usize,
    },
    /// A part of the recipient that cannot be one component of a path.
    #[error("{value:?} cannot be part of a path")]
    Unsafe {
        /// The part.
        value: String,
    },
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let at = text.len() - rest.len() + open;
            let close = rest[open..].find('}').filter(|close| *close > 0).ok_or(TemplateError::Brace { at })?;
            let name = &rest[open + 1..open + close];
            let (_, place) = PLACES
                .iter()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| TemplateError::UnknownPlace { found: name.to_owned() })?;
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            parts.push(Part::Place(*place));
            rest = &rest[open + close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }
}

impl Template {
    /// Whether two different users can never share the result.
    pub fn names_the_user(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Place(Place::User | Place::Address | Place::Local)))
    }

    /// Fills the places, as they are.
    pub fn expand(&self, recipient: &Recipient) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Place(place) => place.of(recipient),
            })
            .collect()
    }

    /// Fills the places of a path; each value must be able to be (part of) one component.
    ///
    /// # Errors
    /// [`TemplateError::Unsafe`] for a value that is empty or starts with a dot, or has a slash, a control character or
    /// NUL in it.
    pub fn expand_path(&self, recipient: &Recipient) -> Result<String, TemplateError> {
        for part in &self.parts {
            let Part::Place(place) = part else { continue };
            let value = place.of(recipient);
            if value.is_empty() || value.starts_with('.') || value.chars().any(|c| c == '/' || c.is_control()) {
                return Err(TemplateError::Unsafe { value: value.to_owned() });
            }
        }
        Ok(self.expand(recipient))
    }
}

impl Place {
    fn of(self, recipient: &Recipient) -> &str {
        let address = &recipient.address;
        match self {
            Self::User => &recipient.user,
            Self::Address => address,
            Self::Local => address.rsplit_once('@').map_or(address.as_str(), |(local, _)| local),
            Self::Domain => address.rsplit_once('@').map_or("", |(_, domain)| domain),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Place(place) => {
                let (name, _) = PLACES.iter().find(|(_, known)| known == place).expect("every place has a name");
                write!(f, "{{{name}}}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(user: &str) -> Recipient {
        Recipient { user: user.into(), address: user.into() }
    }

    #[test]
    fn no_user_name_leaves_its_directory() {
        let path: Template = "/mail/{user}/Maildir".parse().unwrap();
        for user in ["..", ".", "", "a/b", "a\0b", ".hidden", "a\nb"] {
            assert_eq!(path.expand_path(&recipient(user)), Err(TemplateError::Unsafe { value: user.into() }));
        }
        assert_eq!(path.expand_path(&recipient("ann@x.org")).unwrap(), "/mail/ann@x.org/Maildir");
    }

    #[test]
    fn mistakes_are_named() {
        let parse = |text: &str| text.parse::<Template>().unwrap_err();
        assert_eq!(parse("a{usr}"), TemplateError::UnknownPlace { found: "usr".into() });
        assert_eq!(parse("a{user"), TemplateError::Brace { at: 1 });
        assert_eq!(parse("ab}"), TemplateError::Brace { at: 2 });
        assert_eq!("{domain}x{user}".parse::<Template>().unwrap().to_string(), "{domain}x{user}");
    }
}
