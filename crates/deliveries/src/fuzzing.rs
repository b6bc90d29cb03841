//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

pub use crate::maildir::fuzzing::maildir_names;

use crate::mbox::Quoter;
use crate::smtp::Crlf;

/// A message is written into an mbox file as one message that can be had back, and handed to lettre without a bare CR or LF,
/// each the same however it is cut.
///
/// The first octet says how long the pieces are.
pub fn written_messages(data: &[u8]) {
    let Some((length, message)) = data.split_first() else { return };
    let length = usize::from(*length) + 1;

    let quoted = quote(message.chunks(length));
    assert_eq!(quoted, quote(std::iter::once(message)));
    let text = quoted.strip_suffix(b"\n").expect("an empty line ends it");
    let lines: Vec<&[u8]> = text.split_inclusive(|octet| *octet == b'\n').collect();
    assert!(lines.iter().all(|line| !line.starts_with(b"From ")), "another message begins");
    let unquoted: Vec<u8> = lines.iter().flat_map(|line| unquote(line)).copied().collect();
    let ended = message.is_empty() || message.ends_with(b"\n");
    assert_eq!(unquoted.strip_prefix(message), Some(if ended { &b""[..] } else { b"\n" }));

    let whole = crlf(message.chunks(length));
    assert_eq!(whole, crlf(std::iter::once(message)));
    let bare = whole.split(|octet| *octet == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r"));
    assert!(!bare && whole.windows(2).all(|pair| pair[0] != b'\r' || pair[1] == b'\n'));
    let text =
        |octets: &[u8]| octets.iter().filter(|octet| !matches!(octet, b'\r' | b'\n')).copied().collect::<Vec<_>>();
    assert_eq!(text(&whole), text(message));
}

fn quote<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut quoter, mut out) = (Quoter::default(), Vec::new());
    pieces.for_each(|piece| quoter.push(piece, &mut out));
    quoter.finish(&mut out);
    out
}

fn unquote(line: &[u8]) -> &[u8] {
    let quotes = line.iter().take_while(|octet| **octet == b'>').count();
    if quotes > 0 && line[quotes..].starts_with(b"From ") { &line[1..] } else { line }
}

fn crlf<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut crlf = Crlf::default();
    pieces.flat_map(|piece| crlf.push(piece)).collect()
}
