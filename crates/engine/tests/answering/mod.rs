//! A server that answers each line as a test says, and remembers what it heard.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a server does at one line.
pub(crate) enum Answer {
    Say(Vec<u8>),
    /// Say it and end the connection.
    Close(Vec<u8>),
    /// Say it again and again until the client has gone.
    Flood(Vec<u8>),
}

pub(crate) fn say(text: impl AsRef<[u8]>) -> Answer {
    Answer::Say(text.as_ref().to_vec())
}

type Answers = dyn Fn(&str) -> Answer + Send + Sync;

/// Listens on a free port of 127.0.0.1 until it is dropped.
pub(crate) struct Answering {
    pub(crate) port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Answering {
    /// `answers` is asked with `""` for the greeting, then with each line.
    pub(crate) async fn start(answers: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (answers, lines): (Arc<Answers>, _) = (Arc::new(answers), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&answers), Arc::clone(&lines)));
            }
        });
        Self { port, heard, task }
    }

    /// All lines of all connections.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers>, heard: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        match answers(String::from_utf8_lossy(&line).trim_end()) {
            Answer::Say(octets) => write.write_all(&octets).await?,
            Answer::Close(octets) => return write.write_all(&octets).await,
            Answer::Flood(octets) => loop {
                write.write_all(&octets).await?;
            },
        }
        line.clear();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        heard.lock().unwrap().push(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

/// An IMAP server with these messages by UID, in plaintext; `odd` may answer a command, given without its tag, in its way:
/// `{tag}` in its answer is the tag.
pub(crate) async fn imap(
    messages: Vec<(u32, Vec<u8>)>,
    odd: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
) -> Answering {
    Answering::start(move |line| {
        if line.is_empty() {
            return odd("").unwrap_or_else(|| say("* OK [CAPABILITY IMAP4rev1] ready\r\n"));
        }
        let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
        let tagged = |octets: Vec<u8>| replace(&octets, b"{tag}", tag.as_bytes());
        match odd(command) {
            Some(Answer::Say(octets)) => Answer::Say(tagged(octets)),
            Some(Answer::Close(octets)) => Answer::Close(tagged(octets)),
            Some(Answer::Flood(octets)) => Answer::Flood(octets),
            None => say([&usual(command, &messages)[..], tag.as_bytes(), b" OK done\r\n"].concat()),
        }
    })
    .await
}

fn usual(command: &str, messages: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let word = |n| command.split(' ').nth(n).unwrap_or_default();
    match (word(0), word(1)) {
        ("CAPABILITY", _) => b"* CAPABILITY IMAP4rev1\r\n".to_vec(),
        ("SELECT" | "EXAMINE", _) => {
            let next = messages.iter().map(|(uid, _)| uid.saturating_add(1)).max().unwrap_or(1);
            format!("* {} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT {next}] x\r\n", messages.len()).into()
        }
        ("UID", "SEARCH") => {
            let uids: Vec<_> = messages.iter().map(|(uid, _)| uid.to_string()).collect();
            format!("* SEARCH {}\r\n", uids.join(" ")).into()
        }
        ("UID", "FETCH") => {
            let asked = asked(command);
            messages.iter().filter(|(uid, _)| asked(*uid)).flat_map(|(uid, body)| fetched(*uid, body)).collect()
        }
        ("LOGOUT", _) => b"* BYE x\r\n".to_vec(),
        _ => Vec::new(),
    }
}

/// Whether a `UID FETCH` names a UID.
pub(crate) fn asked(command: &str) -> impl Fn(u32) -> bool + use<> {
    let set = command.split(' ').nth(2).unwrap_or_default().to_owned();
    move |uid| {
        set.split(',').any(|part| {
            let (first, last) = part.split_once(':').unwrap_or((part, part));
            (first.parse().unwrap_or(u32::MAX)..=last.parse().unwrap_or(u32::MAX)).contains(&uid)
        })
    }
}

/// The usual answer with a body.
pub(crate) fn fetched(uid: u32, body: &[u8]) -> Vec<u8> {
    [format!("* 1 FETCH (UID {uid} BODY[] {{{}}}\r\n", body.len()).as_bytes(), body, b")\r\n"].concat()
}

fn replace(octets: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(octets.len()), octets);
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(by);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A POP3 server with these messages and unique-ids, in plaintext, without CAPA; `odd` may answer a line in its way.
pub(crate) async fn pop3(
    messages: Vec<(Vec<u8>, Vec<u8>)>,
    odd: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
) -> Answering {
    Answering::start(move |line| {
        if let Some(answer) = odd(line) {
            return answer;
        }
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        let numbered = messages.iter().enumerate().map(|(at, message)| (at + 1, message));
        say(match command {
            "" => b"+OK ready\r\n".to_vec(),
            "CAPA" => b"-ERR what?\r\n".to_vec(),
            "STAT" => {
                let octets: usize = messages.iter().map(|(_, body)| body.len()).sum();
                format!("+OK {} {octets}\r\n", messages.len()).into()
            }
            "UIDL" => {
                let lines = numbered.flat_map(|(n, (uidl, _))| [format!("{n} ").as_bytes(), uidl, b"\r\n"].concat());
                [b"+OK\r\n".to_vec(), lines.collect(), b".\r\n".to_vec()].concat()
            }
            "LIST" if !argument.is_empty() => {
                let (_, body) = &messages[argument.parse::<usize>().unwrap() - 1];
                format!("+OK {argument} {}\r\n", body.len()).into()
            }
            "LIST" => {
                let lines = numbered.map(|(n, (_, body))| format!("{n} {}\r\n", body.len()));
                format!("+OK\r\n{}.\r\n", lines.collect::<String>()).into()
            }
            "RETR" => {
                let (_, body) = &messages[argument.parse::<usize>().unwrap() - 1];
                let stuffed = replace(&[b"\n", &body[..]].concat(), b"\n.", b"\n..");
                let end: &[u8] = if body.ends_with(b"\n") || body.is_empty() { b".\r\n" } else { b"\r\n.\r\n" };
                [b"+OK\r\n", &stuffed[1..], end].concat()
            }
            "TOP" => b"-ERR what?\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        })
    })
    .await
}
