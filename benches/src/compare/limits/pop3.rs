use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use rustls::ClientConfig;

use super::tls::{Connection, config};
use crate::Done;
use crate::options::Words;

/// Commands on the way at once; more would fill the server's buffer while ours fills with its answers.
const WINDOW: usize = 2_000;

/// `limit pop3 --port P --ca FILE --users a,b --messages N [--uidl] --parallel P`: for each user, logs in, reads the
/// unique-ids if asked to, retrieves the last `N` messages, and throws them away.
pub(super) fn main(words: &mut Words) -> Done<()> {
    let port = u16::try_from(words.number("--port")?.ok_or("no --port")?)?;
    let ca = words.value("--ca")?.ok_or("no --ca")?;
    let users = words.value("--users")?.ok_or("no --users")?;
    let messages = words.number("--messages")?.unwrap_or(0);
    let parallel = words.number("--parallel")?.unwrap_or(1).max(1);
    let uidl = words.flag("--uidl");
    words.end()?;
    let config = config(&ca)?;
    let users = Mutex::new(users.split(',').map(str::to_owned).collect::<Vec<_>>());
    let work = || -> Result<(), String> {
        loop {
            let Some(user) = users.lock().map_err(|_| "another thread panicked")?.pop() else { return Ok(()) };
            session(port, &config, &user, messages, uidl).map_err(|error| format!("{user}: {error}"))?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..parallel).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| Ok(thread.join().map_err(|_| "a connection's thread panicked")??))
    })
}

fn session(port: u16, config: &Arc<ClientConfig>, user: &str, messages: usize, uidl: bool) -> Done<()> {
    let mut connection = Connection::open(port, config)?;
    let mut line = Vec::new();
    // A server that knows PIPELINING takes all of this at once.
    let list = if uidl { "UIDL\r\n" } else { "STAT\r\n" };
    connection.send(format!("USER {user}\r\nPASS secret\r\n{list}").as_bytes())?;
    for _ in 0..3 {
        good(&mut connection, &mut line)?;
    }
    let there = good(&mut connection, &mut line)?;
    let there = if uidl {
        let mut count = 0;
        loop {
            connection.line(&mut line)?;
            if line == b".\r\n" {
                break count;
            }
            count += 1;
        }
    } else {
        there.ok_or("no number of messages")?
    };
    let first = there.saturating_sub(messages) + 1;
    let (mut asked, mut read) = (first, first);
    while read <= there {
        if asked <= there && asked - read <= WINDOW / 2 {
            let to = (read + WINDOW).min(there + 1);
            let commands: String = (asked..to).map(|n| format!("RETR {n}\r\n")).collect();
            connection.send(commands.as_bytes())?;
            asked = to;
        }
        good(&mut connection, &mut line)?;
        to_dot(&mut connection)?;
        read += 1;
    }
    connection.send(b"QUIT\r\n")
}

/// Reads one answer, which must be good; its number, if it has one.
fn good(connection: &mut Connection, line: &mut Vec<u8>) -> Done<Option<usize>> {
    connection.line(line)?;
    let text = std::str::from_utf8(line)?.trim_end();
    let rest = text.strip_prefix("+OK").ok_or_else(|| format!("the server said {text:?}"))?;
    Ok(rest.split_whitespace().next().and_then(|word| word.parse().ok()))
}

/// Throws a message away, up to the line with only a dot.
fn to_dot(connection: &mut Connection) -> Done<()> {
    const END: &[u8] = b"\r\n.\r\n";
    // How much of the end has been seen when a read ends within it; the answer's line ended with CRLF.
    let mut seen = 2;
    loop {
        let there = connection.peek()?;
        let mut at = 0;
        while seen > 0 && at < there.len() && seen < END.len() {
            if there[at] == END[seen] {
                (at, seen) = (at + 1, seen + 1);
            } else {
                seen = 0;
            }
        }
        if seen == END.len() {
            connection.used(at);
            return Ok(());
        }
        if seen == 0 {
            if let Some(end) = memchr::memmem::find(&there[at..], END) {
                connection.used(at + end + END.len());
                return Ok(());
            }
            seen = (1..END.len()).rev().find(|n| there[at..].ends_with(&END[..*n])).unwrap_or(0);
        }
        let all = there.len();
        connection.used(all);
    }
}
