use bytes::Bytes;
use connectord_mail::Status;
use connectord_wire::Inbox;

use super::line;
use crate::Reply;

/// How much a reply may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest line, in octets with its line end.
    pub line_octets: usize,
    /// Most lines.
    pub lines: usize,
}

/// Why octets are no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The last line of the reply has not come yet.
    #[error("reply is incomplete")]
    Incomplete,
    /// A line is longer than the limit.
    #[error("reply line exceeds the limit of {limit} octets")]
    LineTooLong {
        /// The limit, in octets.
        limit: usize,
    },
    /// There are more lines than the limit.
    #[error("reply exceeds the limit of {limit} lines")]
    TooManyLines {
        /// The limit, in lines.
        limit: usize,
    },
    /// A line does not start with a code from 200 to 599 and a space, a hyphen or nothing behind it.
    #[error("reply line does not start with a code")]
    Code {
        /// The line.
        found: Bytes,
    },
    /// The lines of one reply have different codes (RFC 5321 §4.2.1): what it means is anybody's guess.
    #[error("reply line has another code than the lines before it, {code}")]
    CodesDiffer {
        /// The code of the lines before.
        code: u16,
        /// The line.
        found: Bytes,
    },
}

/// Splits one reply off the front of `input`; returns it and the octets it took, the last line end included.
///
/// # Errors
/// [`ParseError::Incomplete`] when its last line has not come yet; the others say what is wrong.
pub fn reply(input: &[u8], limits: Limits) -> Result<(Reply, usize), ParseError> {
    let mut inbox = Inbox::new();
    inbox.extend(input);
    let reply = Replies::default().next(&mut inbox, limits)?.ok_or(ParseError::Incomplete)?;
    Ok((reply, input.len() - inbox.len()))
}

/// Collects the lines of one reply after the other.
#[derive(Debug, Default)]
pub struct Replies {
    code: u16,
    lines: Vec<Bytes>,
}

impl Replies {
    /// Takes the next reply off the front of `inbox`, or as much of it as is there.
    ///
    /// # Errors
    /// [`ParseError`], after which the octets behind mean nothing; never [`ParseError::Incomplete`].
    pub fn next(&mut self, inbox: &mut Inbox, limits: Limits) -> Result<Option<Reply>, ParseError> {
        loop {
            let read = inbox.line(limits.line_octets).map_err(|e| ParseError::LineTooLong { limit: e.limit })?;
            let Some(octets) = read else { return Ok(None) };
            let Some(line) = line(&octets) else { return Err(ParseError::Code { found: octets }) };
            if self.lines.is_empty() {
                self.code = line.code;
            } else if self.code != line.code {
                return Err(ParseError::CodesDiffer { code: self.code, found: octets });
            }
            if self.lines.len() >= limits.lines {
                return Err(ParseError::TooManyLines { limit: limits.lines });
            }
            self.lines.push(octets.slice_ref(line.text));
            if !line.more {
                return Ok(Some(with_status(self.code, std::mem::take(&mut self.lines))));
            }
        }
    }

    /// Whether a reply has begun and is not complete.
    pub fn is_within(&self) -> bool {
        !self.lines.is_empty()
    }
}

/// Takes the enhanced status code off the lines: the first line's, and the same from the others (RFC 2034 §3: every line
/// has it).
fn with_status(code: u16, mut lines: Vec<Bytes>) -> Reply {
    let own_class = |status: &Status| u16::from(status.class) == code / 100;
    let status = lines.first().and_then(|line| Status::split_from(line).0).filter(own_class);
    if status.is_some() {
        for line in &mut lines {
            let (found, text) = Status::split_from(line);
            let text = if found == status { text } else { &line[..] }.trim_ascii_start();
            *line = line.slice_ref(text);
        }
    }
    Reply { code, status, lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { line_octets: 4096, lines: 100 };

    fn text(code: u16, status: Option<&str>, lines: &[&str]) -> Reply {
        Reply::new(code, status.map(|s| Status::parse(s.as_bytes()).unwrap()), lines.iter().copied())
    }

    #[test]
    fn the_replies_of_rfc_2034_read_as_it_says() {
        // RFC 2034 §6.
        for (octets, expected) in [
            ("220 dbc.mtview.ca.us SMTP service ready\r\n", text(220, None, &["dbc.mtview.ca.us SMTP service ready"])),
            (
                "250-dbc.mtview.ca.us says hello\r\n250 ENHANCEDSTATUSCODES\r\n",
                text(250, None, &["dbc.mtview.ca.us says hello", "ENHANCEDSTATUSCODES"]),
            ),
            (
                "250 2.1.0 Originator <ned@ymir.claremont.edu> ok\r\n",
                text(250, Some("2.1.0"), &["Originator <ned@ymir.claremont.edu> ok"]),
            ),
            (
                "550 5.1.1 Mailbox \"nosuchuser\" does not exist\r\n",
                text(550, Some("5.1.1"), &["Mailbox \"nosuchuser\" does not exist"]),
            ),
            (
                "551-5.7.1 Forwarding to remote hosts disabled\r\n551 5.7.1 Select another host to act as your forwarder\r\n",
                text(
                    551,
                    Some("5.7.1"),
                    &["Forwarding to remote hosts disabled", "Select another host to act as your forwarder"],
                ),
            ),
            ("354 Send message, ending in CRLF.CRLF.\r\n", text(354, None, &["Send message, ending in CRLF.CRLF."])),
            ("250 2.6.0 Message received\r\n", text(250, Some("2.6.0"), &["Message received"])),
            ("221 2.0.0 Goodbye\r\n", text(221, Some("2.0.0"), &["Goodbye"])),
        ] {
            assert_eq!(reply(octets.as_bytes(), LIMITS), Ok((expected.clone(), octets.len())));
            assert_eq!(String::from_utf8(crate::encode::reply(&expected)).unwrap(), octets);
        }
    }

    #[test]
    fn text_spaces_and_carriage_returns_may_be_missing() {
        for octets in ["250\r\n", "250\n", "250 \r\n", "250 \n"] {
            assert_eq!(reply(octets.as_bytes(), LIMITS), Ok((text(250, None, &[""]), octets.len())), "{octets:?}");
        }
        assert_eq!(reply(b"250-a\n250\n250", LIMITS), Ok((text(250, None, &["a", ""]), 10)));
    }

    #[test]
    fn a_status_of_another_class_is_text() {
        assert_eq!(reply(b"250 5.1.1 x\r\n", LIMITS), Ok((text(250, None, &["5.1.1 x"]), 13)));
        assert_eq!(reply(b"250 2.1.1000 x\r\n", LIMITS), Ok((text(250, None, &["2.1.1000 x"]), 16)));
    }

    #[test]
    fn what_passes_a_limit_or_contradicts_itself_is_refused() {
        let limits = Limits { line_octets: 10, lines: 2 };
        assert_eq!(reply(b"250 123456789\r\n", limits), Err(ParseError::LineTooLong { limit: 10 }));
        assert_eq!(reply(b"250-a\r\n250-b\r\n250 c\r\n", limits), Err(ParseError::TooManyLines { limit: 2 }));
        assert_eq!(
            reply(b"250-a\r\n550 b\r\n", limits),
            Err(ParseError::CodesDiffer { code: 250, found: "550 b".into() })
        );
        assert_eq!(reply(b"hello\r\n", limits), Err(ParseError::Code { found: "hello".into() }));
        assert_eq!(reply(b"250-a\r\n250", limits), Err(ParseError::Incomplete));
    }
}
