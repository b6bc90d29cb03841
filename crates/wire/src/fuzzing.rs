//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use crate::dot::{Piece, Unstuffer, stuff};
use crate::{Escaped, Inbox};

/// Unstuffing gives the same at any split, never more octets than came in, and what was stuffed, in pieces, comes back with
/// its line ends made CRLF; escaped text is inert.
///
/// The first octet says where to split.
pub fn dot_stuffing(data: &[u8]) {
    let Some((&split, data)) = data.split_first() else { return };
    let whole = run(&[data]);
    let cut = usize::from(split) * data.len() / 256;
    assert_eq!(run(&[&data[..cut], &data[cut..]]), whole);
    assert!(whole.0.len() + whole.2.len() <= data.len());

    let mut wire = Vec::new();
    let mut stuffer = stuff();
    stuffer.push(&data[..cut], &mut wire);
    stuffer.push(&data[cut..], &mut wire);
    stuffer.finish(&mut wire);
    let (back, ended, rest) = run(&[&wire]);
    assert!(ended && rest.is_empty());
    assert_eq!(back, with_crlf(data));

    let shown = Escaped(data).to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}

/// With every line end as CRLF, and one behind the last line.
fn with_crlf(data: &[u8]) -> Vec<u8> {
    let (mut out, mut octets) = (Vec::with_capacity(data.len() + 2), data.iter().peekable());
    while let Some(octet) = octets.next() {
        match octet {
            b'\r' => drop(octets.next_if_eq(&&b'\n')),
            b'\n' => {}
            octet => {
                out.push(*octet);
                continue;
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn run(pieces: &[&[u8]]) -> (Vec<u8>, bool, Vec<u8>) {
    let (mut inbox, mut unstuffer) = (Inbox::new(), Unstuffer::new());
    let (mut message, mut ended) = (Vec::new(), false);
    for piece in pieces {
        inbox.extend(piece);
        while !ended {
            match unstuffer.next(&mut inbox) {
                Piece::Octets(octets) => message.extend_from_slice(&octets),
                Piece::End => ended = true,
                Piece::NeedInput => break,
            }
        }
    }
    (message, ended, inbox.peek().to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stuffing_holds_its_properties(split: u8, data in "[.a\r\n]{0,30}") {
            super::dot_stuffing(&[&[split], data.as_bytes()].concat());
        }
    }
}
