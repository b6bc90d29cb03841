use nom::branch::alt;
use nom::bytes::complete::tag_no_case;
use nom::character::complete::{space0, space1, u32, u64};
use nom::combinator::{eof, map_opt, peek, rest};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

use crate::{MessageNumber, Uidl};

/// A line of a listing that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The message, if at least its number could be read.
    pub number: Option<MessageNumber>,
}

/// Reads a line of a unique-id listing, or the text of the answer to UIDL with a number (RFC 1939 §7).
///
/// White space around and between is not counted; the unique-id is kept octet by octet.
///
/// # Errors
/// [`Unreadable`] when the number is not 1 to 4,294,967,295 or what follows is no [`Uidl`].
///
/// ```
/// use connectord_pop3::parse;
/// let (number, uidl) = parse::unique_id(b"2 QhdPYR:00WBw1Ph7x7").expect("a line of RFC 1939");
/// assert_eq!((number.get(), uidl.octets()), (2, b"QhdPYR:00WBw1Ph7x7".as_slice()));
/// ```
pub fn unique_id(line: &[u8]) -> Result<(MessageNumber, Uidl), Unreadable> {
    let (behind, number) = number(line).map_err(|_| Unreadable { number: None })?;
    match Uidl::new(behind.trim_ascii()) {
        Ok(uidl) => Ok((number, uidl)),
        Err(_) => Err(Unreadable { number: Some(number) }),
    }
}

/// Reads a line of a scan listing, or the text of the answer to LIST with a number; what follows the size is ignored
/// (RFC 1939 §5).
///
/// # Errors
/// [`Unreadable`] when the number is not 1 to 4,294,967,295 or what follows is no size of at most 64 bits.
///
/// ```
/// use connectord_pop3::parse;
/// let (number, octets) = parse::size(b"1 120").expect("a line of RFC 1939");
/// assert_eq!((number.get(), octets), (1, 120));
/// ```
pub fn size(line: &[u8]) -> Result<(MessageNumber, u64), Unreadable> {
    let (behind, number) = number(line).map_err(|_| Unreadable { number: None })?;
    match preceded(space0, whole_u64).parse(behind) {
        Ok((_, octets)) => Ok((number, octets)),
        Err(_) => Err(Unreadable { number: Some(number) }),
    }
}

/// Reads the text of the answer to STAT: messages and octets; what follows is ignored (RFC 1939 §5).
///
/// ```
/// assert_eq!(connectord_pop3::parse::stat(b"2 320"), Some((2, 320)));
/// ```
pub fn stat(text: &[u8]) -> Option<(u32, u64)> {
    let parsed: IResult<&[u8], _> = (preceded(space0, u32), preceded(space1, whole_u64)).parse(text);
    parsed.ok().map(|(_, counts)| counts)
}

/// Reads the size that many servers tell in answer to RETR, such as `120 octets`.
///
/// The standard does not say what the text means, so that a number counts only before `octet…` or `byte…`.
///
/// ```
/// use connectord_pop3::parse::announced_octets;
/// assert_eq!(announced_octets(b"120 octets"), Some(120));
/// assert_eq!(announced_octets(b"message 120 follows"), None);
/// ```
pub fn announced_octets(text: &[u8]) -> Option<u64> {
    let unit = alt((tag_no_case("octet"), tag_no_case("byte")));
    let parsed: IResult<&[u8], _> = terminated(preceded(space0, u64), (space0, unit)).parse(text);
    parsed.ok().map(|(_, octets)| octets)
}

/// A message number with white space or the end behind it.
fn number(input: &[u8]) -> IResult<&[u8], MessageNumber> {
    let end = peek(alt((space1, eof)));
    delimited(space0, map_opt(u32, MessageNumber::new), end).parse(input)
}

/// A number with something behind it that is not a letter or a sign of a larger whole.
fn whole_u64(input: &[u8]) -> IResult<&[u8], u64> {
    let apart = |behind: &[u8]| {
        behind.first().is_none_or(|octet| !octet.is_ascii_alphanumeric() && *octet != b'.').then_some(())
    };
    terminated(u64, peek(map_opt(rest, apart))).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u32) -> MessageNumber {
        MessageNumber::new(number).expect("not zero")
    }

    #[test]
    fn sloppy_lines_are_understood_and_others_named_as_far_as_possible() {
        let id = |number, octets: &[u8]| Ok((message(number), Uidl::new(octets).expect("a unique-id")));
        let unreadable = |number| Err(Unreadable { number: MessageNumber::new(number) });
        let cases: [(&[u8], Result<_, _>); 16] = [
            (b"1 abc", id(1, b"abc")),
            (b" 1\t abc  ", id(1, b"abc")),
            (b"4294967295 x", id(u32::MAX, b"x")),
            (b"007 b\xe4r", id(7, b"b\xe4r")),
            (b"2 -ERR", id(2, b"-ERR")),
            (b"3", unreadable(3)),
            (b"3 ", unreadable(3)),
            (b"3 a b", unreadable(3)),
            (b"3 a\0b", unreadable(3)),
            (b"0 abc", unreadable(0)),
            (b"4294967296 x", unreadable(0)),
            (b"3abc", unreadable(0)),
            (b"-1 x", unreadable(0)),
            (b"+1 x", unreadable(0)),
            (b"x", unreadable(0)),
            (b"", unreadable(0)),
        ];
        for (line, expected) in cases {
            assert_eq!(unique_id(line), expected, "{}", line.escape_ascii());
        }
        let long = [b"9 ".as_slice(), &[b'u'; Uidl::MAX_OCTETS + 1]].concat();
        assert_eq!(unique_id(&long), unreadable(9));
        assert_eq!(unique_id(&long[..long.len() - 1]), id(9, &[b'u'; Uidl::MAX_OCTETS]));
    }

    #[test]
    fn sizes_end_where_their_digits_end() {
        let unreadable = |number| Err(Unreadable { number: MessageNumber::new(number) });
        let cases: [(&[u8], Result<_, _>); 8] = [
            (b"1 120", Ok((message(1), 120))),
            (b"1  120 unread", Ok((message(1), 120))),
            (b"1 18446744073709551615", Ok((message(1), u64::MAX))),
            (b"1 18446744073709551616", unreadable(1)),
            (b"1 -1", unreadable(1)),
            (b"1 1.5", unreadable(1)),
            (b"1 12k", unreadable(1)),
            (b"1", unreadable(1)),
        ];
        for (line, expected) in cases {
            assert_eq!(size(line), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn stat_needs_both_numbers() {
        assert_eq!(stat(b"0 0"), Some((0, 0)));
        assert_eq!(stat(b" 2  320 and more"), Some((2, 320)));
        for text in [b"".as_slice(), b"2", b"2 ", b"two 320", b"-2 320", b"4294967296 1"] {
            assert_eq!(stat(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn an_announced_size_needs_its_unit() {
        let cases: [(&[u8], Option<u64>); 7] = [
            (b"120 octets", Some(120)),
            (b"120 Octets follow.", Some(120)),
            (b"120 bytes", Some(120)),
            (b"120", None),
            (b"120 lines", None),
            (b"", None),
            (b"99999999999999999999 octets", None),
        ];
        for (text, expected) in cases {
            assert_eq!(announced_octets(text), expected, "{}", text.escape_ascii());
        }
    }
}
