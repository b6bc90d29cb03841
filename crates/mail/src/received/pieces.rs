//! Cutting a field into words and comments.

use nom::branch::alt;
use nom::bytes::complete::{take, take_while1};
use nom::combinator::{map, value};
use nom::{IResult, Parser};

/// Most pieces that are looked at; a real field has some twenty.
const MAX_PIECES: usize = 256;

/// A piece of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Octets without white space and parentheses, and without semicolons and commas outside of angle brackets.
    Word(&'a [u8]),
    /// What stands between parentheses, inner ones included; one that is never closed goes to the end.
    Comment(&'a [u8]),
    /// A semicolon outside of comments, and how many octets stand behind it.
    Semicolon(usize),
}

/// All pieces of a field, in order.
pub(super) fn pieces(mut input: &[u8]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while pieces.len() < MAX_PIECES {
        input = skip(input);
        let Ok((rest, piece)) = piece(input) else { break };
        pieces.push(match piece {
            Piece::Semicolon(_) => Piece::Semicolon(rest.len()),
            piece => piece,
        });
        input = rest;
    }
    pieces
}

fn skip(input: &[u8]) -> &[u8] {
    let at = input.iter().position(|o| !(o.is_ascii_whitespace() || matches!(o, b',' | b')'))).unwrap_or(input.len());
    &input[at..]
}

fn piece(input: &[u8]) -> IResult<&[u8], Piece<'_>> {
    alt((
        map(comment, Piece::Comment),
        value(Piece::Semicolon(0), nom::bytes::complete::tag(&b";"[..])),
        map(word, Piece::Word),
        // An octet that starts nothing is passed over as a word of its own, so that no input stops the cutting.
        map(take(1usize), Piece::Word),
    ))
    .parse(input)
}

/// From a parenthesis to the one that closes it; counted, not recursive, so that depth costs nothing.
fn comment(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let (inside, _) = nom::bytes::complete::tag(&b"("[..]).parse(input)?;
    let (mut depth, mut escaped) = (1usize, false);
    for (at, octet) in inside.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' if depth == 1 => return Ok((&inside[at + 1..], &inside[..at])),
            b')' => depth -= 1,
            _ => {}
        }
    }
    Ok((&[], inside))
}

/// A word. What is in angle brackets belongs to it with its commas and semicolons, but never with white space or
/// parentheses: a client that calls itself `<` or `"` must not swallow what the server wrote behind it.
fn word(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let ends = |o: &u8| o.is_ascii_whitespace() || matches!(o, b'(' | b')');
    let mut at = 0;
    while let Some(octet) = input.get(at) {
        if *octet == b'<'
            && let Some(length) = input[at + 1..].iter().position(|o| *o == b'>' || ends(o))
            && input[at + 1 + length] == b'>'
        {
            at += length + 2;
        } else if ends(octet) || matches!(octet, b';' | b',') {
            break;
        } else {
            at += 1;
        }
    }
    take_while1(|_| true).parse(&input[..at]).map(|(_, word)| (&input[at..], word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(input: &str) -> Vec<String> {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let show = |piece: &Piece<'_>| match piece {
            Piece::Word(word) => text(word),
            Piece::Comment(comment) => format!("({})", text(comment)),
            Piece::Semicolon(left) => format!(";{left}"),
        };
        pieces(input.as_bytes()).iter().map(show).collect()
    }

    #[test]
    fn a_field_falls_into_words_and_whole_comments() {
        assert_eq!(
            shown("from a(b [1](c))by d, id <x,y;>; Z"),
            ["from", "a", "(b [1](c))", "by", "d", "id", "<x,y;>", ";2", "Z"]
        );
    }

    #[test]
    fn what_is_not_closed_ends_nothing_early() {
        assert_eq!(shown("a (b (c) d; e"), ["a", "(b (c) d; e)"]);
        assert_eq!(shown("a <b; c"), ["a", "<b", ";2", "c"]);
        assert_eq!(shown(") a \" b\""), ["a", "\"", "b\""]);
        assert_eq!(shown("< (a) b>"), ["<", "(a)", "b>"]);
    }
}
