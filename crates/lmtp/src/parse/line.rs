use nom::branch::alt;
use nom::bytes::complete::take_while_m_n;
use nom::combinator::{eof, map, map_opt, rest, value};
use nom::sequence::{pair, preceded};
use nom::{IResult, Parser};

/// One line of a reply, without its line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The three digits, 200 to 599.
    pub code: u16,
    /// Whether another line follows: a hyphen stands behind the code.
    pub more: bool,
    /// What stands behind the hyphen or space.
    pub text: &'a [u8],
}

/// Reads one line of a reply (RFC 5321 §4.2); `None` if it is none.
///
/// The space may be missing with the text: Exchange and others send a bare `250`.
///
/// ```
/// use connectord_lmtp::parse::{Line, line};
/// assert_eq!(line(b"250-SIZE 10"), Some(Line { code: 250, more: true, text: b"SIZE 10" }));
/// assert_eq!(line(b"250"), Some(Line { code: 250, more: false, text: b"" }));
/// assert_eq!(line(b"250OK"), None);
/// ```
pub fn line(octets: &[u8]) -> Option<Line<'_>> {
    pair(code, behind_code).parse(octets).ok().map(|(_, (code, (more, text)))| Line { code, more, text })
}

fn code(input: &[u8]) -> IResult<&[u8], u16> {
    map_opt(take_while_m_n(3, 3, |octet: u8| octet.is_ascii_digit()), |digits: &[u8]| {
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        (200..600).contains(&code).then_some(code)
    })
    .parse(input)
}

fn behind_code(input: &[u8]) -> IResult<&[u8], (bool, &[u8])> {
    alt((
        map(preceded(nom::character::complete::char('-'), rest), |text| (true, text)),
        map(preceded(nom::character::complete::char(' '), rest), |text| (false, text)),
        value((false, &b""[..]), eof),
    ))
    .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_reply_line_is_refused() {
        for octets in ["", "2", "25", "25x ok", "199 x", "600 x", "2500 x", "250\tx", " 250 x", "250_x", "+OK"] {
            assert_eq!(line(octets.as_bytes()), None, "{octets:?}");
        }
    }
}
