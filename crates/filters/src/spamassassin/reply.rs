use connectord_filter::{Unchecked, Why};
use connectord_wire::Address;

use crate::text::shown;

/// Longest answer that is read, in octets.
pub(crate) const MAX_REPLY: usize = 64 * 1024;

/// Most names of rules that are taken.
const MAX_RULES: usize = 200;

/// What spamd answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// To `PING`.
    Pong,
    /// To `SYMBOLS`.
    Judged {
        is_spam: bool,
        milli_score: i32,
        milli_required: i32,
        /// Names, escaped.
        rules: Vec<String>,
    },
}

/// What is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// It ends too early.
    Cut,
    /// It is none of the known forms.
    Unknown,
    /// It says that it failed.
    Failed(Why),
}

impl NoReply {
    pub(crate) fn of(self, peer: &Address, answer: &[u8]) -> Unchecked {
        let line = answer.split(|octet| *octet == b'\n').next().unwrap_or_default();
        let answer = shown(line);
        let (why, text) = match self {
            Self::Cut => {
                (Why::Unavailable, format!("{peer} closed the connection in the middle of its answer \"{answer}\""))
            }
            Self::Unknown => {
                (Why::Rubbish, format!("{peer} answered \"{answer}\"; expected SPAMD/1.1 0 and a Spam line"))
            }
            Self::Failed(why) => (why, format!("{peer} answered \"{answer}\"")),
        };
        Unchecked::new(why, text)
    }
}

impl Reply {
    /// Reads an answer to `SYMBOLS` or `PING` (spamd/PROTOCOL in SpamAssassin's source).
    pub(crate) fn parse(answer: &[u8]) -> Result<Self, NoReply> {
        let cut_or_unknown = |rest: &[u8]| if rest.contains(&b'\n') { NoReply::Unknown } else { NoReply::Cut };
        let (line, mut rest) = line(answer).ok_or_else(|| {
            let starts = answer.starts_with(b"SPAMD/") || b"SPAMD/".starts_with(answer);
            if starts { NoReply::Cut } else { cut_or_unknown(b"\n") }
        })?;
        let line = line.strip_prefix(b"SPAMD/").ok_or(NoReply::Unknown)?;
        let mut words = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty()).skip(1);
        let code: u8 = words.next().and_then(number).ok_or(NoReply::Unknown)?;
        if code != 0 {
            return Err(NoReply::Failed(why(code)));
        }
        if words.next() == Some(b"PONG") {
            return Ok(Self::Pong);
        }
        let (mut length, mut verdict) = (None::<usize>, None);
        loop {
            let (field, after) = self::line(rest).ok_or(NoReply::Cut)?;
            rest = after;
            if field.is_empty() {
                break;
            }
            let colon = memchr::memchr(b':', field).ok_or(NoReply::Unknown)?;
            let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"Content-length") {
                length = Some(number(value).ok_or(NoReply::Unknown)?);
            } else if name.eq_ignore_ascii_case(b"Spam") {
                verdict = Some(self::verdict(value).ok_or(NoReply::Unknown)?);
            }
        }
        let (is_spam, milli_score, milli_required) = verdict.ok_or(NoReply::Unknown)?;
        let names = match length {
            Some(length) => rest.get(..length).ok_or(NoReply::Cut)?,
            None => rest,
        };
        let names = names.split(|octet| matches!(octet, b',' | b'\r' | b'\n' | b' '));
        let rules = names.filter(|name| !name.is_empty()).take(MAX_RULES).map(shown).collect();
        Ok(Self::Judged { is_spam, milli_score, milli_required, rules })
    }
}

/// The next line without its CRLF, and what is behind it.
fn line(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', octets)?;
    let line = &octets[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &octets[end + 1..]))
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `True ; 1000.0 / 5.0`.
fn verdict(value: &[u8]) -> Option<(bool, i32, i32)> {
    let value = std::str::from_utf8(value).ok()?;
    let (is_spam, scores) = value.split_once(';')?;
    let is_spam = match is_spam.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" => true,
        "false" | "no" => false,
        _ => return None,
    };
    let (score, required) = scores.split_once('/')?;
    Some((is_spam, milli(score)?, milli(required)?))
}

fn milli(points: &str) -> Option<i32> {
    let points: f64 = points.trim().parse().ok()?;
    crate::text::milli(points)
}

/// What a code says, as in sysexits.
fn why(code: u8) -> Why {
    match code {
        // EX_UNAVAILABLE, EX_OSERR, EX_OSFILE, EX_CANTCREAT, EX_IOERR, EX_TEMPFAIL.
        69 | 71..=75 => Why::Unavailable,
        // EX_USAGE, EX_NOUSER, EX_NOPERM, EX_CONFIG.
        64 | 67 | 77 | 78 => Why::Misconfigured,
        // EX_DATAERR, EX_SOFTWARE, EX_PROTOCOL, EX_TIMEOUT and unknown ones.
        _ => Why::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_of_spamd_is_understood() {
        let judged = |is_spam, milli_score, rules: &[&str]| {
            let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
            Ok(Reply::Judged { is_spam, milli_score, milli_required: 5000, rules })
        };
        let whole =
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: 20\r\nSpam: True ; 1000.0 / 5.0\r\n\r\nGTUBE,NO_RECEIVED\r\n\r\n";
        assert_eq!(Reply::parse(whole), judged(true, 1_000_000, &["GTUBE", "NO_RECEIVED"]));
        for cut in 0..whole.len() - 1 {
            assert_eq!(Reply::parse(&whole[..cut]), Err(NoReply::Cut), "{cut}");
        }
        for (answer, expected) in [
            (&b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -1.9 / 5.0\r\n\r\n"[..], judged(false, -1900, &[])),
            (b"SPAMD/1.5 0 PONG\r\n", Ok(Reply::Pong)),
            (b"SPAMD/1.0 76 Bad header line: (EOF during headers)\r\n", Err(NoReply::Failed(Why::Failed))),
            (b"SPAMD/1.0 79 Timeout: (300 second timeout)\r\n", Err(NoReply::Failed(Why::Failed))),
            (b"SPAMD/1.0 69 Service Unavailable: x\r\n", Err(NoReply::Failed(Why::Unavailable))),
            (b"SPAMD/1.1 0 EX_OK\r\nContent-length: 2\r\n\r\nA\r\n", Err(NoReply::Unknown)),
            (b"SPAMD/1.1 0 EX_OK\r\nSpam: maybe ; 1 / 2\r\n\r\n", Err(NoReply::Unknown)),
            (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 2\r\n\r\n", Err(NoReply::Unknown)),
            (b"220 mail ESMTP\r\n", Err(NoReply::Unknown)),
            (b"rubbish", Err(NoReply::Unknown)),
        ] {
            assert_eq!(Reply::parse(answer), expected, "{}", shown(answer));
        }
    }
}
