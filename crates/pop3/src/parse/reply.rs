use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take_while1};
use nom::combinator::{map_opt, opt, rest, value};
use nom::sequence::delimited;
use nom::{IResult, Parser};

use crate::ResponseCode;

/// The first line of an answer (RFC 1939 §3, RFC 2449 §8), or a SASL challenge (RFC 5034 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// What it begins with.
    pub status: Status,
    /// The extended response code; never with [`Status::Continue`].
    pub code: Option<ResponseCode>,
    /// The rest, without white space around it.
    pub text: &'a [u8],
}

/// What an answer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// `+OK`
    Ok,
    /// `-ERR`
    Err,
    /// `+`: the server waits for a SASL response.
    Continue,
}

/// Reads the first line of an answer; `None` when it is none.
///
/// Taken as well: lower case, a status glued to its text, several spaces, a challenge without the space after `+`. A
/// challenge that is glued and begins with `OK` cannot be told from a status and is one.
///
/// ```
/// use connectord_pop3::{ResponseCode, parse::{self, Reply, Status}};
/// let line = b"-ERR [in-use] Do you have another POP session running?";
/// let (code, text) = (Some(ResponseCode::InUse), b"Do you have another POP session running?".as_slice());
/// assert_eq!(parse::reply(line), Some(Reply { status: Status::Err, code, text }));
/// ```
pub fn reply(line: &[u8]) -> Option<Reply<'_>> {
    let (text, status) = status(line).ok()?;
    let (text, code) = match status {
        Status::Continue => (text, None),
        // White space is what goes around the text too: a code behind a form feed is a code.
        Status::Ok | Status::Err => opt(code).parse(text.trim_ascii()).ok()?,
    };
    Some(Reply { status, code, text: text.trim_ascii() })
}

fn status(input: &[u8]) -> IResult<&[u8], Status> {
    alt((
        value(Status::Ok, tag_no_case("+OK")),
        value(Status::Err, tag_no_case("-ERR")),
        value(Status::Continue, tag("+")),
    ))
    .parse(input)
}

fn code(input: &[u8]) -> IResult<&[u8], ResponseCode> {
    let octets = take_while1(|octet| matches!(octet, b' '..=b'~') && octet != b'[' && octet != b']');
    map_opt(delimited(tag("["), octets, tag("]")), known_code).parse(input)
}

fn known_code(octets: &[u8]) -> Option<ResponseCode> {
    let text = std::str::from_utf8(octets.trim_ascii()).ok().filter(|text| !text.is_empty())?;
    let (level, deeper) = text.split_once(['/', ' ']).unwrap_or((text, ""));
    let second = deeper.split(['/', ' ']).next().unwrap_or_default();
    let is = |found: &str, name| found.eq_ignore_ascii_case(name);
    Some(match () {
        () if is(level, "IN-USE") => ResponseCode::InUse,
        () if is(level, "LOGIN-DELAY") => ResponseCode::LoginDelay(number(second)),
        () if is(level, "AUTH") => ResponseCode::Auth,
        () if is(level, "UTF8") => ResponseCode::Utf8,
        () if is(level, "SYS") && is(second, "TEMP") => ResponseCode::SysTemp,
        () if is(level, "SYS") && is(second, "PERM") => ResponseCode::SysPerm,
        () => ResponseCode::Other(text.to_string()),
    })
}

fn number(text: &str) -> Option<u32> {
    let parsed: IResult<&str, (u32, &str)> = (nom::character::complete::u32, rest).parse(text);
    parsed.ok().filter(|(_, (_, behind))| behind.is_empty()).map(|(_, (number, _))| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sloppy_status_lines_are_understood() {
        let cases: [(&[u8], Status, &[u8]); 12] = [
            (b"+OK", Status::Ok, b""),
            (b"+ok  hello ", Status::Ok, b"hello"),
            (b"+OKready", Status::Ok, b"ready"),
            (b"-err\tno", Status::Err, b"no"),
            (b"-ERR", Status::Err, b""),
            (b"-ERR: no", Status::Err, b": no"),
            (b"+", Status::Continue, b""),
            (b"+ ", Status::Continue, b""),
            (b"+ OKAY", Status::Continue, b"OKAY"),
            (b"+PDE+", Status::Continue, b"PDE+"),
            (b"+ [AUTH] x", Status::Continue, b"[AUTH] x"),
            (b"+OK []", Status::Ok, b"[]"),
        ];
        for (line, status, text) in cases {
            assert_eq!(reply(line), Some(Reply { status, code: None, text }), "{}", line.escape_ascii());
        }
        for line in [b"".as_slice(), b"OK", b" +OK", b"* OK", b"-ER", b"250 ok", b"\xff+OK"] {
            assert_eq!(reply(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_code_counts_only_in_brackets_right_after_the_status() {
        let other = |code: &str| Some(ResponseCode::Other(code.to_string()));
        let cases: [(&[u8], Option<ResponseCode>); 16] = [
            (b"-ERR [AUTH] no", Some(ResponseCode::Auth)),
            (b"-ERR \x0c[IN-USE]\xff", Some(ResponseCode::InUse)),
            (b"-ERR [auth]no", Some(ResponseCode::Auth)),
            (b"-ERR[IN-USE]", Some(ResponseCode::InUse)),
            (b"-ERR [SYS/TEMP] x", Some(ResponseCode::SysTemp)),
            (b"-ERR [Sys/Perm/Disk] x", Some(ResponseCode::SysPerm)),
            (b"-ERR [SYS] x", other("SYS")),
            (b"-ERR [SYS/NEW] x", other("SYS/NEW")),
            (b"-ERR [LOGIN-DELAY] x", Some(ResponseCode::LoginDelay(None))),
            (b"-ERR [LOGIN-DELAY 300] x", Some(ResponseCode::LoginDelay(Some(300)))),
            (b"-ERR [LOGIN-DELAY 5m] x", Some(ResponseCode::LoginDelay(None))),
            (b"-ERR [UTF8] x", Some(ResponseCode::Utf8)),
            (b"+OK [XCLIENT] x", other("XCLIENT")),
            (b"-ERR no [AUTH]", None),
            (b"-ERR [AUTH no", None),
            (b"-ERR [A\x01] no", None),
        ];
        for (line, code) in cases {
            assert_eq!(reply(line).expect("a reply").code, code, "{}", line.escape_ascii());
        }
    }
}
