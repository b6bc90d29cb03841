//! The pieces a response line is made of, without recursion: parentheses are tokens like others.

use std::borrow::Cow;

use bytes::Bytes;
use nom::branch::alt;
use nom::bytes::complete::{escaped_transform, is_not, tag, take, take_while, take_while1};
use nom::character::complete::{char, digit1};
use nom::combinator::{eof, map, map_opt, opt, recognize, value, verify};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

/// A piece of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Open,
    Close,
    /// Anything that is no string: a number, a name, NIL, a flag.
    Atom(Bytes),
    /// A quoted string without its quotes, or a literal's octets.
    String(Bytes),
}

/// What stands next in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lexeme<'a> {
    Open,
    Close,
    Atom(&'a [u8]),
    Quoted(Cow<'a, [u8]>),
    /// This many octets follow the line: `{7}`, also `{7+}` and the literal8 `~{7}` (RFC 3516).
    Literal(u64),
    /// Nothing more.
    End,
}

/// Whether `BODY[` to `]` is one atom with whatever is between: so are sections in FETCH answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brackets {
    Join,
    Plain,
}

/// Splits the next piece off the front of a line (without its line end); `None` for a quoted string without an end, or
/// a literal that passes 64 bits.
pub(crate) fn lexeme(input: &[u8], brackets: Brackets) -> Option<(&[u8], Lexeme<'_>)> {
    let atom = move |input| match brackets {
        Brackets::Join => section_name(input),
        Brackets::Plain => take_while1(is_atom)(input),
    };
    // Spaces where none may be: Tencent before a closing parenthesis (2016), Exchange behind STATUS (2023).
    preceded(
        take_while(|octet| matches!(octet, b' ' | b'\t' | b'\r')),
        alt((
            value(Lexeme::End, eof),
            value(Lexeme::Open, char('(')),
            value(Lexeme::Close, char(')')),
            map(quoted, Lexeme::Quoted),
            map(terminated(literal, eof), Lexeme::Literal),
            map(atom, Lexeme::Atom),
        )),
    )
    .parse(input)
    .ok()
    .filter(|(_, lexeme)| *lexeme != Lexeme::Literal(u64::MAX))
}

fn is_atom(octet: u8) -> bool {
    !matches!(octet, b' ' | b'\t' | b'\r' | b'(' | b')' | b'"')
}

/// `BODY[HEADER.FIELDS (DATE "From")]<0>`: a name that has sections, with what is in its brackets. Elsewhere a bracket is
/// an octet like others: flags may have one.
fn section_name(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let name = verify(take_while1(|octet| is_atom(octet) && octet != b'['), |name: &[u8]| {
        [&b"BODY"[..], b"BINARY"]
            .iter()
            .any(|known| name.get(..known.len()).is_some_and(|n| n.eq_ignore_ascii_case(known)))
    });
    let section = delimited(char('['), opt(is_not("]")), char(']'));
    alt((recognize((name, section, take_while(is_atom))), take_while1(is_atom))).parse(input)
}

/// A quoted string; a backslash in front of any octet makes it plain (RFC 9051 §9 allows only `"` and `\`).
pub(crate) fn quoted(input: &[u8]) -> IResult<&[u8], Cow<'_, [u8]>> {
    let plain = terminated(recognize(opt(is_not("\"\\"))), char('"'));
    // An octet, not a character: nom takes an octet above 0x7F for a character of two.
    let escaped = terminated(map(escaped_transform(is_not("\"\\"), '\\', take(1usize)), Cow::Owned), char('"'));
    preceded(char('"'), alt((map(plain, Cow::Borrowed), escaped))).parse(input)
}

/// `{7}`, `{7+}`, `~{7}`; past 64 bits it is `u64::MAX`, which no caller accepts.
fn literal(input: &[u8]) -> IResult<&[u8], u64> {
    let count = map(digit1, |digits| super::number(digits).unwrap_or(u64::MAX));
    delimited((opt(char('~')), char('{')), terminated(count, opt(char('+'))), tag("}")).parse(input)
}

/// Upper-case keyword at the front, and what follows it.
pub(crate) fn keyword(input: &[u8]) -> Option<(String, &[u8])> {
    let word = map_opt(take_while1(|octet: u8| octet.is_ascii_graphic()), |word: &[u8]| std::str::from_utf8(word).ok());
    let spaces = take_while::<_, _, nom::error::Error<&[u8]>>(|octet| octet == b' ');
    let (rest, word) = terminated(word, spaces).parse(input).ok()?;
    Some((word.to_ascii_uppercase(), rest))
}
