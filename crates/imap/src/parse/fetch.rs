//! A FETCH response, token by token: attributes come in any order, and a body may come before the UID.

use bytes::Bytes;

use super::lex::Token;
use crate::{Flag, Flags, InternalDate, Section, Uid};

/// Collects one FETCH response; bodies pass by without being kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    expect: Expect,
    flags: Vec<Flag>,
    pub(crate) attributes: Attributes,
}

/// What a FETCH response said besides bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) uid: Option<Uid>,
    pub(crate) size: Option<u64>,
    pub(crate) internal_date: Option<InternalDate>,
    pub(crate) flags: Option<Flags>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Open,
    Name,
    Value(Name),
    Flags,
    /// The end of the value of an unknown attribute, this many parentheses deep.
    Skipped(u32),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Uid,
    Size,
    Date,
    Flags,
    Body(Section),
    Other,
}

/// What a token meant to somebody outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// A body in quotes.
    Body(Section, Bytes),
    /// NIL for a body.
    NoBody(Section),
}

/// The token does not belong here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misplaced;

impl Fetch {
    pub(crate) fn new() -> Self {
        Self { expect: Expect::Open, flags: Vec::new(), attributes: Attributes::default() }
    }

    /// Whether the closing parenthesis came.
    pub(crate) fn is_complete(&self) -> bool {
        self.expect == Expect::End
    }

    /// Takes the next token, which is no literal.
    pub(crate) fn token(&mut self, token: Token) -> Result<Found, Misplaced> {
        let (expect, found) = match (self.expect, token) {
            (Expect::Open, Token::Open) => (Expect::Name, Found::Nothing),
            (Expect::Name, Token::Close) => (Expect::End, Found::Nothing),
            (Expect::Name, Token::Atom(name)) => (Expect::Value(attribute(&name)), Found::Nothing),
            (Expect::Value(Name::Flags), Token::Open) => (Expect::Flags, Found::Nothing),
            (Expect::Value(_), Token::Open) => (Expect::Skipped(1), Found::Nothing),
            (Expect::Value(name), Token::Atom(value) | Token::String(value)) => {
                (Expect::Name, self.value(name, value)?)
            }
            (Expect::Flags, Token::Atom(flag)) => {
                self.flags.extend(Flag::parse(&flag));
                (Expect::Flags, Found::Nothing)
            }
            (Expect::Flags, Token::Close) => {
                self.attributes.flags = Some(std::mem::take(&mut self.flags).into_iter().collect());
                (Expect::Name, Found::Nothing)
            }
            (Expect::Skipped(1), Token::Close) => (Expect::Name, Found::Nothing),
            (Expect::Skipped(depth), Token::Close) => (Expect::Skipped(depth - 1), Found::Nothing),
            // The reader bounds the depth.
            (Expect::Skipped(depth), Token::Open) => (Expect::Skipped(depth.saturating_add(1)), Found::Nothing),
            (Expect::Skipped(depth), _) => (Expect::Skipped(depth), Found::Nothing),
            // Some servers put octets behind the list; they mean nothing.
            (Expect::End, Token::Atom(_)) => (Expect::End, Found::Nothing),
            _ => return Err(Misplaced),
        };
        self.expect = expect;
        Ok(found)
    }

    /// Takes a literal, whose octets the caller moves or drops; says if they are a body.
    pub(crate) fn literal(&mut self) -> Result<Option<Section>, Misplaced> {
        let section = match self.expect {
            Expect::Value(Name::Body(section)) => Some(section),
            Expect::Value(_) => None,
            Expect::Skipped(_) => return Ok(None),
            _ => return Err(Misplaced),
        };
        self.expect = Expect::Name;
        Ok(section)
    }

    fn value(&mut self, name: Name, value: Bytes) -> Result<Found, Misplaced> {
        match name {
            Name::Uid => {
                let uid = super::number(&value).and_then(|number| u32::try_from(number).ok()).and_then(Uid::new);
                let uid = uid.ok_or(Misplaced)?;
                if self.attributes.uid.is_some_and(|before| before != uid) {
                    return Err(Misplaced);
                }
                self.attributes.uid = Some(uid);
            }
            // A size that is no number (Exchange has sent negative ones) is as good as none.
            Name::Size => self.attributes.size = super::number(&value),
            Name::Date => self.attributes.internal_date = InternalDate::parse(&value),
            Name::Body(section) if value.eq_ignore_ascii_case(b"NIL") => return Ok(Found::NoBody(section)),
            Name::Body(section) => return Ok(Found::Body(section, value)),
            Name::Flags | Name::Other => {}
        }
        Ok(Found::Nothing)
    }
}

fn attribute(name: &[u8]) -> Name {
    match name.to_ascii_uppercase().as_slice() {
        b"UID" => Name::Uid,
        b"RFC822.SIZE" => Name::Size,
        b"INTERNALDATE" => Name::Date,
        b"FLAGS" => Name::Flags,
        b"BODY[]" | b"RFC822" => Name::Body(Section::Whole),
        b"BODY[HEADER]" | b"RFC822.HEADER" => Name::Body(Section::Header),
        _ => Name::Other,
    }
}
