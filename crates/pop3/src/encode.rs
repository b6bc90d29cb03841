//! The wire format, written: a client's commands, and a server's answers for scripted servers and proxies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use connectord_wire::Secret;

use crate::parse::{Command, Reply, Status};
use crate::{Capabilities, MessageNumber, Uidl};

/// Appends a command with its CRLF.
///
/// What a [`Command::User`], [`Command::Pass`] or [`Command::Auth`] holds goes out as it is: whoever makes one out of
/// foreign text checks for CR and LF first, as [`crate::Session`] does.
///
/// ```
/// use connectord_pop3::{encode, parse};
/// let mut out = Vec::new();
/// encode::command(&parse::command(b"top 1 10").expect("a command"), &mut out);
/// assert_eq!(out, b"TOP 1 10\r\n");
/// ```
pub fn command(command: &Command, out: &mut Vec<u8>) {
    out.extend_from_slice(command.name().as_bytes());
    match command {
        Command::User(name) => argument(name, out),
        Command::Pass(password) => argument(password.expose(), out),
        Command::Auth(auth) => {
            argument(auth.mechanism.as_bytes(), out);
            match &auth.initial {
                None => {}
                // RFC 5034 §4: a response of zero octets is written as "=".
                Some(initial) if initial.is_empty() => argument(b"=", out),
                Some(initial) => {
                    out.push(b' ');
                    base64(initial.expose(), out);
                }
            }
        }
        Command::List(Some(number)) | Command::Uidl(Some(number)) | Command::Retr(number) | Command::Dele(number) => {
            decimal(number.get(), out);
        }
        Command::Top(number, lines) => {
            decimal(number.get(), out);
            decimal(*lines, out);
        }
        Command::Capa
        | Command::Stls
        | Command::Utf8
        | Command::Stat
        | Command::List(None)
        | Command::Uidl(None)
        | Command::Noop
        | Command::Rset
        | Command::Quit => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// A command with its CRLF in memory that is wiped when the last clone is dropped.
pub(crate) fn secret_line(from: &Command) -> Bytes {
    let bound = match from {
        Command::User(name) => name.len(),
        Command::Pass(password) => password.expose().len(),
        Command::Auth(auth) => {
            auth.mechanism.len() + auth.initial.as_ref().map_or(0, |initial| base64_length(initial.expose()))
        }
        _ => 0,
    };
    // Enough at once: growing would leave a copy behind that nobody wipes.
    let mut line = Vec::with_capacity(bound + 32);
    command(from, &mut line);
    wiped(line)
}

/// A SASL response of the client, base64 encoded and with its CRLF, in memory that is wiped when it is dropped.
pub fn response(response: &Secret) -> Bytes {
    let mut line = Vec::with_capacity(base64_length(response.expose()) + 2);
    base64(response.expose(), &mut line);
    line.extend_from_slice(b"\r\n");
    wiped(line)
}

/// Appends the first line of an answer, or a challenge as it is. CR and LF in the text become spaces.
///
/// ```
/// use connectord_pop3::{encode, parse};
/// let mut out = Vec::new();
/// encode::reply(&parse::reply(b"-err [auth]  no").expect("a reply"), &mut out);
/// assert_eq!(out, b"-ERR [AUTH] no\r\n");
/// ```
pub fn reply(reply: &Reply, out: &mut Vec<u8>) {
    out.extend_from_slice(match reply.status {
        Status::Ok => b"+OK",
        Status::Err => b"-ERR",
        Status::Continue => b"+ ",
    });
    if let Some(code) = &reply.code {
        out.extend_from_slice(b" [");
        out.extend(code.to_string().bytes().map(|octet| if matches!(octet, b'\r' | b'\n') { b' ' } else { octet }));
        out.push(b']');
    }
    if !reply.text.is_empty() && reply.status != Status::Continue {
        out.push(b' ');
    }
    out.extend(reply.text.iter().map(|octet| if matches!(octet, b'\r' | b'\n') { b' ' } else { *octet }));
    out.extend_from_slice(b"\r\n");
}

/// Appends a SASL challenge of the server, base64 encoded.
pub fn challenge(octets: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"+ ");
    base64(octets, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer to CAPA, or `-ERR` for [`Capabilities::unknown`].
pub fn capabilities(capabilities: &Capabilities, out: &mut Vec<u8>) {
    if !capabilities.is_known() {
        out.extend_from_slice(b"-ERR unknown command\r\n");
        return;
    }
    out.extend_from_slice(b"+OK\r\n");
    for line in capabilities.iter() {
        stuffed(line.name.as_bytes(), out);
        for word in &line.arguments {
            argument(word.as_bytes(), out);
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
}

/// Appends the answer to UIDL.
pub fn unique_ids<'a>(ids: impl IntoIterator<Item = (MessageNumber, &'a Uidl)>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
    for (number, uidl) in ids {
        out.extend_from_slice(number.to_string().as_bytes());
        argument(uidl.octets(), out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
}

/// Appends the answer to LIST.
pub fn sizes(sizes: impl IntoIterator<Item = (MessageNumber, u64)>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
    for (number, octets) in sizes {
        out.extend_from_slice(format!("{number} {octets}\r\n").as_bytes());
    }
    out.extend_from_slice(b".\r\n");
}

/// Appends the answer to RETR or TOP: the size, and the message dot-stuffed.
pub fn message(octets: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("+OK {} octets\r\n", octets.len()).as_bytes());
    let mut stuffer = connectord_wire::dot::stuff();
    stuffer.push(octets, out);
    stuffer.finish(out);
}

fn argument(octets: &[u8], out: &mut Vec<u8>) {
    out.push(b' ');
    out.extend_from_slice(octets);
}

fn decimal(number: u32, out: &mut Vec<u8>) {
    argument(number.to_string().as_bytes(), out);
}

fn stuffed(line: &[u8], out: &mut Vec<u8>) {
    if line.starts_with(b".") {
        out.push(b'.');
    }
    out.extend_from_slice(line);
}

pub(crate) fn base64_length(octets: &[u8]) -> usize {
    octets.len().div_ceil(3) * 4
}

fn base64(octets: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + base64_length(octets), 0);
    let written = STANDARD.encode_slice(octets, &mut out[start..]).expect("the slice has the encoded length");
    debug_assert_eq!(written, out.len() - start);
}

struct Wiped(Secret);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

fn wiped(line: Vec<u8>) -> Bytes {
    Bytes::from_owner(Wiped(Secret::new(line)))
}
