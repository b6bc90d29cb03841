use std::thread;

use super::tls::{Connection, config};
use crate::Done;
use crate::options::Words;

/// `limit imap --port P --ca FILE --users a,b --messages N --connections C --first UID --parallel P`: logs in, examines INBOX, fetches
/// the last `N` messages by C connections at once, and throws them away.
pub(super) fn main(words: &mut Words) -> Done<()> {
    let port = words.number("--port")?.ok_or("no --port")?;
    let ca = words.value("--ca")?.ok_or("no --ca")?;
    let user = words.value("--users")?.ok_or("no --users")?;
    let messages = words.number("--messages")?.unwrap_or(0);
    let connections = words.number("--connections")?.unwrap_or(1).max(1);
    words.end()?;
    let config = config(&ca)?;
    let run = |part: usize| -> Done<()> {
        let mut connection = Connection::open(u16::try_from(port)?, &config)?;
        let mut line = Vec::new();
        connection.send(format!("a LOGIN {user} secret\r\n").as_bytes())?;
        tagged(&mut connection, b"a ", &mut line)?;
        connection.send(b"b EXAMINE INBOX\r\n")?;
        let there = tagged(&mut connection, b"b ", &mut line)?;
        if messages > 0 {
            let first = there.saturating_sub(messages) + 1;
            let from = first + messages * part / connections;
            let to = first + messages * (part + 1) / connections - 1;
            connection.send(format!("c FETCH {from}:{to} (UID INTERNALDATE BODY.PEEK[])\r\n").as_bytes())?;
            tagged(&mut connection, b"c ", &mut line)?;
        }
        connection.send(b"d LOGOUT\r\n")
    };
    if connections == 1 {
        return run(0);
    }
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..connections).map(|part| scope.spawn(move || run(part).map_err(|e| e.to_string()))).collect();
        threads.into_iter().try_for_each(|thread| Ok(thread.join().map_err(|_| "a connection's thread panicked")??))
    })
}

/// Reads up to the answer with this tag; returns the last `EXISTS`.
fn tagged(connection: &mut Connection, tag: &[u8], line: &mut Vec<u8>) -> Done<usize> {
    let mut exists = 0;
    loop {
        connection.line(line)?;
        if let Some(literal) = literal(line) {
            connection.skip(literal)?;
        } else if line.starts_with(tag) {
            if !line[tag.len()..].starts_with(b"OK") {
                return Err(String::from_utf8_lossy(line).into_owned().into());
            }
            return Ok(exists);
        } else if line.ends_with(b" EXISTS\r\n") {
            exists = std::str::from_utf8(&line[2..line.len() - 9])?.parse()?;
        }
    }
}

/// Octets of the literal that a line ends with.
fn literal(line: &[u8]) -> Option<usize> {
    let text = line.strip_suffix(b"}\r\n")?;
    let open = memchr::memrchr(b'{', text)?;
    std::str::from_utf8(&text[open + 1..]).ok()?.parse().ok()
}
