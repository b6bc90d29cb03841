//! The end-of-data convention of POP3 (RFC 1939 §3), SMTP (RFC 5321 §4.5.2) and LMTP: a line with a lone dot ends the
//! data, and a line of the data that starts with a dot gets another in front.

use bytes::Bytes;

use crate::Inbox;

/// One piece of dot-stuffed data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Octets of the message, as they are on the server.
    Octets(Bytes),
    /// The lone dot came; what follows it in the inbox is the next reply.
    End,
    /// More octets must arrive first.
    NeedInput,
}

/// Takes the stuffing out again, by blocks, without copying: the pieces are slices of what was received.
///
/// A line is what ends with LF: servers exist that send bare LF in a message. A lone dot is accepted with LF or CRLF
/// behind it. The final CRLF before the lone dot belongs to the message.
///
/// ```
/// use bytes::Bytes;
/// use connectord_wire::{Inbox, dot::{Piece, Unstuffer}};
///
/// let (mut inbox, mut unstuffer) = (Inbox::new(), Unstuffer::new());
/// inbox.extend(b"Hi\r\n..dots\r\n.\r\n+OK");
/// let mut message = Vec::new();
/// while let Piece::Octets(octets) = unstuffer.next(&mut inbox) { message.extend_from_slice(&octets) }
/// assert_eq!(message, b"Hi\r\n.dots\r\n");
/// assert_eq!(inbox.peek(), b"+OK");
/// ```
#[derive(Debug)]
pub struct Unstuffer {
    at_line_start: bool,
}

impl Default for Unstuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Unstuffer {
    /// Starts at the first line of the data.
    pub fn new() -> Self {
        Self { at_line_start: true }
    }

    /// Takes the next piece off the front of `inbox`; after [`Piece::End`] the unstuffer is ready for the next data.
    ///
    /// What cannot be decided yet (a dot at the start of a line with nothing behind it) stays in the inbox: at most two
    /// octets.
    pub fn next(&mut self, inbox: &mut Inbox) -> Piece {
        if self.at_line_start {
            match inbox.peek() {
                [] | [b'.'] | [b'.', b'\r'] => return Piece::NeedInput,
                [b'.', b'\n', ..] => {
                    inbox.skip(2);
                    return Piece::End;
                }
                [b'.', b'\r', b'\n', ..] => {
                    inbox.skip(3);
                    return Piece::End;
                }
                [b'.', ..] => inbox.skip(1),
                _ => {}
            }
            self.at_line_start = false;
        }
        let octets = inbox.peek();
        if octets.is_empty() {
            return Piece::NeedInput;
        }
        // Up to and including the LF before the next line that starts with a dot, or all there is.
        let end = memchr::memmem::find(octets, b"\n.").map_or(octets.len(), |at| at + 1);
        self.at_line_start = octets[end - 1] == b'\n';
        Piece::Octets(inbox.take(end))
    }
}

/// Appends `octets` to `out`, dot-stuffed and with every line end as CRLF; a piece of a message may end anywhere.
///
/// Bare CR and bare LF become CRLF: left as they are, they would let a message smuggle an end of data past a server
/// that reads them as line ends (CVE-2023-51764).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuffer {
    at_line_start: bool,
    after_cr: bool,
}

/// A [`Stuffer`] at the start of a message.
pub fn stuff() -> Stuffer {
    Stuffer { at_line_start: true, after_cr: false }
}

impl Stuffer {
    /// Adds one piece of the message.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let mut rest = octets;
        while !rest.is_empty() {
            if self.after_cr {
                self.after_cr = false;
                if rest[0] == b'\n' {
                    rest = &rest[1..];
                    continue;
                }
            }
            if self.at_line_start && rest[0] == b'.' {
                out.push(b'.');
            }
            let end = memchr::memchr2(b'\r', b'\n', rest);
            out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            self.at_line_start = end.is_some();
            let Some(end) = end else { return };
            out.extend_from_slice(b"\r\n");
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
        }
    }

    /// Ends the data: the last line gets its CRLF if it has none, then comes the lone dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unstuff(pieces: &[&[u8]]) -> (Vec<u8>, bool, Vec<u8>) {
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

    #[test]
    fn every_split_gives_the_same_message() {
        let data = b"..\r\n.\rx\r\n..x\n..\n\r\nlast.\r\n.\r\n-ERR";
        let whole = unstuff(&[data]);
        assert_eq!(whole, (b".\r\n\rx\r\n.x\n.\n\r\nlast.\r\n".to_vec(), true, b"-ERR".to_vec()));
        for i in 1..data.len() {
            for j in i..data.len() {
                if i == j {
                    assert_eq!(unstuff(&[&data[..i], &data[i..]]), whole);
                } else {
                    assert_eq!(unstuff(&[&data[..i], &data[i..j], &data[j..]]), whole);
                }
            }
        }
    }

    #[test]
    fn bare_line_ends_cannot_smuggle_an_end_of_data() {
        let mut out = Vec::new();
        let mut stuffer = stuff();
        for octet in b"a\n.\nb\r.\rc" {
            stuffer.push(&[*octet], &mut out);
        }
        stuffer.finish(&mut out);
        assert_eq!(out, b"a\r\n..\r\nb\r\n..\r\nc\r\n.\r\n");
    }

    #[test]
    fn an_empty_message_is_a_lone_dot() {
        let mut out = Vec::new();
        stuff().finish(&mut out);
        assert_eq!(out, b".\r\n");
    }

    proptest! {
        #[test]
        fn what_was_stuffed_comes_out_again(message in "([a.\r\n]|\r\n|\\.\r\n){0,40}", cut in 0usize..60) {
            let mut out = Vec::new();
            let mut stuffer = stuff();
            stuffer.push(message.as_bytes(), &mut out);
            stuffer.finish(&mut out);
            let cut = cut.min(out.len());
            let (back, ended, rest) = unstuff(&[&out[..cut], &out[cut..]]);
            prop_assert!(ended);
            prop_assert!(rest.is_empty());
            let mut expected = message.replace("\r\n", "\n").replace(['\r', '\n'], "\r\n").into_bytes();
            if !expected.is_empty() && !expected.ends_with(b"\n") { expected.extend_from_slice(b"\r\n") }
            prop_assert_eq!(back, expected);
        }
    }
}
