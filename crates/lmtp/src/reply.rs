use std::fmt;

use bytes::Bytes;
use connectord_mail::Status;
use connectord_wire::Escaped;

/// A server's answer, all its lines together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// The three digits, 200 to 599.
    pub code: u16,
    /// The enhanced status code at the start of the text (RFC 2034 §4), when its class is the code's first digit.
    pub status: Option<Status>,
    /// The text of each line, without the codes; octets as they came; at least one line, which may be empty.
    pub lines: Vec<Bytes>,
}

/// What the first digit of a reply code says (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// 2yz: done.
    Success,
    /// 3yz: go on.
    Intermediate,
    /// 4yz: not now.
    Transient,
    /// 5yz: not at all.
    Permanent,
}

impl Reply {
    /// A reply with these lines of text; no line at all is one empty line.
    pub fn new<T: Into<String>>(code: u16, status: Option<Status>, lines: impl IntoIterator<Item = T>) -> Self {
        let mut lines: Vec<Bytes> = lines.into_iter().map(|line| Bytes::from(line.into())).collect();
        if lines.is_empty() {
            lines.push(Bytes::new());
        }
        Self { code, status, lines }
    }

    /// What the first digit says.
    pub fn severity(&self) -> Severity {
        match self.code / 100 {
            2 => Severity::Success,
            3 => Severity::Intermediate,
            4 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }

    /// Whether it is a 2yz reply.
    pub fn is_success(&self) -> bool {
        self.severity() == Severity::Success
    }

    /// Whether it is a 4yz or 5yz reply.
    pub fn is_refusal(&self) -> bool {
        matches!(self.severity(), Severity::Transient | Severity::Permanent)
    }
}

/// On one line, safe to show: `550 5.1.1 no such user`; lines are joined by ` / `.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        let mut between = " ";
        for line in self.lines.iter().filter(|line| !line.is_empty()).take(8) {
            write!(f, "{between}{}", Escaped(line))?;
            between = " / ";
        }
        Ok(())
    }
}
