use std::fmt;

use serde::{Deserialize, Serialize};

/// An enhanced status code, `class.subject.detail` (RFC 3463 §2).
///
/// ```
/// use connectord_mail::Status;
/// assert_eq!(Status::parse(b"5.7.1"), Some(Status { class: 5, subject: 7, detail: 1 }));
/// assert_eq!(Status::parse(b"3.0.0"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Status {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// What it is about: address, mailbox, mail system, network, protocol, content, policy; at most 999.
    pub subject: u16,
    /// The exact condition; at most 999.
    pub detail: u16,
}

impl Status {
    /// Delivered.
    pub const SUCCESS: Self = Self { class: 2, subject: 0, detail: 0 };

    /// Reads a code that stands alone.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.split(|o| *o == b'.');
        let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
        let class = match class {
            b"2" => 2,
            b"4" => 4,
            b"5" => 5,
            _ => return None,
        };
        if parts.next().is_some() {
            return None;
        }
        Some(Self { class, subject: number(subject)?, detail: number(detail)? })
    }

    /// Takes a code off the front of a reply's text, with the space behind it.
    pub fn split_from(text: &[u8]) -> (Option<Self>, &[u8]) {
        let end = text.iter().position(|o| *o == b' ').unwrap_or(text.len());
        match Self::parse(&text[..end]) {
            Some(status) => (Some(status), text[end..].trim_ascii_start()),
            None => (None, text),
        }
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    digits.iter().try_fold(0u16, |n, o| o.is_ascii_digit().then(|| n * 10 + u16::from(o - b'0')))
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}
