//! The start of a response, and status responses whole (RFC 9051 §7).

use nom::branch::alt;
use nom::bytes::complete::{tag_no_case, take_while, take_while1};
use nom::character::complete::{char, digit1};
use nom::combinator::{eof, map, map_opt, opt, peek, rest, value, verify};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use super::lex::{Brackets, Lexeme, Token, keyword, lexeme};
use crate::code::PLAIN;
use crate::{Capabilities, ResponseCode, Uid, UidSet, UidValidity};

/// The kinds of status responses (RFC 9051 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Done, or for information.
    Ok,
    /// Not done, or a warning.
    No,
    /// Not understood.
    Bad,
    /// The connection ends.
    Bye,
    /// A greeting that makes a login needless.
    PreAuth,
}

impl Condition {
    /// Its word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::No => "NO",
            Self::Bad => "BAD",
            Self::Bye => "BYE",
            Self::PreAuth => "PREAUTH",
        }
    }
}

/// A status response without its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusLine {
    pub(crate) condition: Condition,
    pub(crate) code: Option<ResponseCode>,
    pub(crate) text: String,
}

/// How a response line begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start<'a> {
    /// `+`, and its text.
    Continuation(&'a [u8]),
    /// The answer to the command with this tag.
    Tagged(&'a [u8], StatusLine),
    /// `* OK`, `* BYE` and the like.
    Status(StatusLine),
    /// `* 7 EXISTS`, `* LIST …`: number, keyword in upper case, arguments.
    Data(Option<u32>, String, &'a [u8]),
    /// An empty line, a star and nothing readable behind it: harmless.
    Nothing,
}

/// Reads the start of a line (without its line end); `None` when it is no response at all.
pub(crate) fn start(line: &[u8]) -> Option<Start<'_>> {
    // Several: DavMail keeps a connection alive with them while it loads a folder (2020).
    let spaces = || take_while1(|octet| octet == b' ');
    let tag = take_while1(|octet: u8| octet.is_ascii_graphic() && !b"(){%*\"\\+".contains(&octet));
    alt((
        value(Start::Nothing, (take_while(|octet| octet == b' '), eof)),
        map(preceded((char('+'), opt(char(' '))), rest), Start::Continuation),
        preceded((char('*'), spaces()), alt((map(status, Start::Status), data))),
        map(preceded(char('*'), rest), |_| Start::Nothing),
        map(
            verify((terminated(tag, spaces()), status), |(_, status)| {
                matches!(status.condition, Condition::Ok | Condition::No | Condition::Bad)
            }),
            |(tag, status)| Start::Tagged(tag, status),
        ),
    ))
    .parse(line)
    .ok()
    .map(|(_, start)| start)
}

fn data(input: &[u8]) -> IResult<&[u8], Start<'_>> {
    let digits = terminated(digit1, take_while1(|octet| octet == b' '));
    let number = map_opt(digits, |digits| super::number(digits).and_then(|number| u32::try_from(number).ok()));
    let (input, number) = opt(number).parse(input)?;
    let Some((keyword, arguments)) = keyword(input) else { return Ok((&[], Start::Nothing)) };
    Ok((&[], Start::Data(number, keyword, arguments)))
}

fn status(input: &[u8]) -> IResult<&[u8], StatusLine> {
    let condition = alt((
        value(Condition::Ok, tag_no_case("OK")),
        value(Condition::No, tag_no_case("NO")),
        value(Condition::Bad, tag_no_case("BAD")),
        value(Condition::Bye, tag_no_case("BYE")),
        value(Condition::PreAuth, tag_no_case("PREAUTH")),
    ));
    // Text is a must, and Gmail leaves it out behind a code (2023), others altogether.
    let word_end = peek(alt((value((), char(' ')), value((), eof))));
    let (input, condition) = terminated(condition, word_end).parse(input)?;
    let input = input.trim_ascii();
    let (text, code) = match bracketed(input) {
        Some((inside, text)) => (text, code(inside)),
        None => (input, None),
    };
    Ok((&[], StatusLine { condition, code, text: String::from_utf8_lossy(text.trim_ascii()).into_owned() }))
}

/// Splits `[…]` off the front; a bracket within quotes or parentheses does not end it.
fn bracketed(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = input.strip_prefix(b"[")?;
    let (mut quoted, mut escaped, mut depth) = (false, false, 0u32);
    for (at, octet) in inside.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b']' if depth == 0 => return Some((&inside[..at], &inside[at + 1..])),
            _ => {}
        }
    }
    // A quote or parenthesis without an end: then the first bracket decides.
    let end = memchr::memchr(b']', inside)?;
    Some((&inside[..end], &inside[end + 1..]))
}

fn code(inside: &[u8]) -> Option<ResponseCode> {
    let (name, arguments) = keyword(inside)?;
    if let Some((_, code)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
        return Some(code.clone());
    }
    let known = match name.as_str() {
        "CAPABILITY" => Some(ResponseCode::Capability(capabilities(arguments))),
        "UIDVALIDITY" => super::uid_validity(arguments).map(ResponseCode::UidValidity),
        "UIDNEXT" => number32(arguments).and_then(Uid::new).map(ResponseCode::UidNext),
        "HIGHESTMODSEQ" => super::number(arguments.trim_ascii()).map(ResponseCode::HighestModSeq),
        "PERMANENTFLAGS" => {
            tokens(arguments).and_then(|tokens| super::data::flags(&tokens)).map(ResponseCode::PermanentFlags)
        }
        "APPENDUID" => copied(arguments)
            .and_then(|(uid_validity, mut sets)| Some(ResponseCode::AppendUid { uid_validity, uids: sets.pop()? })),
        "COPYUID" => copied(arguments).and_then(|(uid_validity, mut sets)| {
            let to = sets.pop()?;
            Some(ResponseCode::CopyUid { uid_validity, from: sets.pop()?, to })
        }),
        _ => None,
    };
    Some(known.unwrap_or_else(|| ResponseCode::Other(name.chars().take(64).collect())))
}

/// The names in a CAPABILITY or ENABLED answer.
pub(crate) fn capabilities(arguments: &[u8]) -> Capabilities {
    let names = arguments.split(|octet| octet.is_ascii_whitespace()).filter(|name| !name.is_empty());
    names.filter_map(|name| std::str::from_utf8(name).ok()).collect()
}

fn number32(octets: &[u8]) -> Option<u32> {
    super::number(octets.trim_ascii()).and_then(|number| u32::try_from(number).ok())
}

/// `38505 304,319:320 3956:3958`: the sets behind the UIDVALIDITY, at most two.
fn copied(arguments: &[u8]) -> Option<(UidValidity, Vec<UidSet>)> {
    let mut words = arguments.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    let uid_validity = super::uid_validity(words.next()?)?;
    // A line bounds the number of ranges.
    let sets: Option<Vec<_>> = words.take(3).map(|word| UidSet::parse(word, usize::MAX).ok()).collect();
    sets.filter(|sets| sets.len() <= 2).map(|sets| (uid_validity, sets))
}

/// A line without literals as tokens.
fn tokens(mut input: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    loop {
        let (behind, lexeme) = lexeme(input, Brackets::Plain)?;
        input = behind;
        tokens.push(match lexeme {
            Lexeme::Open => Token::Open,
            Lexeme::Close => Token::Close,
            Lexeme::Atom(atom) => Token::Atom(bytes::Bytes::copy_from_slice(atom)),
            Lexeme::Quoted(octets) => Token::String(octets.into_owned().into()),
            Lexeme::Literal(_) => return None,
            Lexeme::End => return Some(tokens),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flag, Flags};

    fn status_code(line: &str) -> Option<ResponseCode> {
        match start(line.as_bytes()).unwrap() {
            Start::Status(status) | Start::Tagged(_, status) => status.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn codes_are_read_in_any_case_and_without_their_text() {
        assert_eq!(
            status_code("* OK [UIDVALIDITY 3857529045] UIDs valid"),
            UidValidity::new(3857529045).map(ResponseCode::UidValidity)
        );
        assert_eq!(status_code("* ok [uidnext 4392]"), Uid::new(4392).map(ResponseCode::UidNext));
        assert_eq!(status_code("a NO [authenticationfailed] no"), Some(ResponseCode::AuthenticationFailed));
        assert_eq!(
            status_code("* OK [PERMANENTFLAGS (\\Deleted a]b \\*)] Limited"),
            Some(ResponseCode::PermanentFlags(Flags::from([Flag::Deleted, Flag::Any, Flag::Keyword("a]b".into())])))
        );
        let generation = |number| UidValidity::new(number).map(ResponseCode::UidValidity);
        assert_eq!(status_code("* OK [UIDVALIDITY 4294967298] x"), generation(3));
        assert_eq!(status_code("* OK [UIDVALIDITY 0] x"), generation(u32::MAX));
        assert_eq!(status_code("* OK [UIDVALIDITY -1] x"), Some(ResponseCode::Other("UIDVALIDITY".into())));
        assert_eq!(status_code("* OK [UIDNEXT -1] x"), Some(ResponseCode::Other("UIDNEXT".into())));
        assert_eq!(status_code("* NO [REFERRAL imap://a/b]c] x"), Some(ResponseCode::Other("REFERRAL".into())));
        assert_eq!(status_code("* OK no code [ALERT]"), None);
        // RFC 4315 §4.
        assert_eq!(
            status_code("A004 OK [COPYUID 38505 304,319:320 3956:3958] Done"),
            Some(ResponseCode::CopyUid {
                uid_validity: UidValidity::new(38505).unwrap(),
                from: UidSet::parse(b"304,319:320", 9).unwrap(),
                to: UidSet::parse(b"3956:3958", 9).unwrap(),
            })
        );
        assert_eq!(
            status_code("A003 OK [APPENDUID 38505 3955] APPEND completed"),
            Some(ResponseCode::AppendUid {
                uid_validity: UidValidity::new(38505).unwrap(),
                uids: UidSet::parse(b"3955", 9).unwrap(),
            })
        );
    }

    #[test]
    fn starts_of_all_kinds_are_told_apart() {
        assert_eq!(start(b"+"), Some(Start::Continuation(b"")));
        assert_eq!(start(b"+ idling"), Some(Start::Continuation(b"idling")));
        assert_eq!(start(b"* 23 EXISTS"), Some(Start::Data(Some(23), "EXISTS".into(), b"")));
        assert_eq!(start(b"*  list () x"), Some(Start::Data(None, "LIST".into(), b"() x")));
        assert_eq!(start(b"* OKAY x"), Some(Start::Data(None, "OKAY".into(), b"x")));
        assert_eq!(start(b"* 4294967296 EXISTS"), Some(Start::Data(None, "4294967296".into(), b"EXISTS")));
        assert_eq!(start(b""), Some(Start::Nothing));
        assert_eq!(start(b"*"), Some(Start::Nothing));
        for no_response in [&b"hello"[..], b"a b c", b"a BYE x", b"-ERR x", b"\0"] {
            assert_eq!(start(no_response), None, "{no_response:?}");
        }
    }
}
