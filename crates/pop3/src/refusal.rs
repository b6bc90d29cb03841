use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use connectord_wire::{Blame, Escaped};

/// An `-ERR` answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The command it answers, such as `PASS`, or `greeting`.
    pub command: &'static str,
    /// The extended response code, if there is one.
    pub code: Option<ResponseCode>,
    /// What follows the code, or the status when there is no code; octets as they came, bounded by `max_line`.
    pub text: Bytes,
}

impl Refusal {
    /// The text for people; octets that are not UTF-8 are replaced. Escape it before it is shown.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }

    /// Whose fault it is: of a refused login the credentials', unless the code says that the server has a problem, or, when
    /// there is no code, the text tells of a maildrop that is locked.
    pub fn blame(&self) -> Blame {
        match (&self.code, self.command) {
            (Some(ResponseCode::Auth), _) => Blame::Credentials,
            (None, "PASS" | "AUTH") if self.tells_of_a_lock() => Blame::Server,
            (Some(ResponseCode::Other(_)) | None, "USER" | "PASS" | "AUTH") => Blame::Credentials,
            (_, "STLS") => Blame::Incompatible,
            _ => Blame::Server,
        }
    }

    /// RFC 1939 §7 lists `-ERR unable to lock maildrop` beside `-ERR invalid password`: servers without response codes tell
    /// the two apart by words only, and a locked maildrop must not look like a wrong password.
    fn tells_of_a_lock(&self) -> bool {
        let text = self.text().to_ascii_lowercase();
        ["maildrop", "mailbox"].iter().any(|what| text.contains(what))
            && [" lock", "in use", "busy"].iter().any(|how| text.contains(how))
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"-ERR")?;
        if let Some(code) = &self.code {
            write!(f, " [{}]", Escaped::text(&code.to_string()))?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", Escaped(&self.text))?;
        }
        write!(f, "\" (during {})", self.command)
    }
}

/// What an extended response code says (RFC 2449 §8, RFC 3206, RFC 6856 §5); deeper levels that are not known count as
/// the level above.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseCode {
    /// `IN-USE`: another session has the maildrop; the credentials were right.
    InUse,
    /// `LOGIN-DELAY`: the last login was too recent; with the seconds to wait if the server tells.
    LoginDelay(Option<u32>),
    /// `AUTH`: the credentials are wrong (RFC 3206 §4).
    Auth,
    /// `SYS/TEMP`: the server has a problem that will pass (RFC 3206 §4).
    SysTemp,
    /// `SYS/PERM`: the server has a problem that a person must solve (RFC 3206 §4).
    SysPerm,
    /// `UTF8`: the message or the credentials need UTF-8 mode (RFC 6856 §5).
    Utf8,
    /// Another code, as it came, without the brackets.
    Other(String),
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "IN-USE",
            Self::LoginDelay(Some(seconds)) => return write!(f, "LOGIN-DELAY {seconds}"),
            Self::LoginDelay(None) => "LOGIN-DELAY",
            Self::Auth => "AUTH",
            Self::SysTemp => "SYS/TEMP",
            Self::SysPerm => "SYS/PERM",
            Self::Utf8 => "UTF8",
            Self::Other(code) => code,
        })
    }
}
