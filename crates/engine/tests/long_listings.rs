//! POP3 listings that are too long to be kept beside what is known: more than 4 MiB of unique-ids.

#![allow(clippy::unwrap_used, reason = "a test")]

mod light;

use std::sync::{Arc, Mutex};

use connectord_account::{Protocol, Start};
use connectord_engine::Job;
use light::Light;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Unique-ids as long as they may be: 5,000 of them are more than is kept.
const OCTETS: usize = 1000;

/// A maildrop, and how often it was listed.
#[derive(Default)]
struct Maildrop {
    names: Vec<u32>,
    listed: usize,
}

struct Server {
    port: u16,
    maildrop: Arc<Mutex<Maildrop>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(names: impl Iterator<Item = u32>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let maildrop = Arc::new(Mutex::new(Maildrop { names: names.collect(), listed: 0 }));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&maildrop);
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sessions.spawn(session(stream, Arc::clone(&shared)));
            }
        });
        Self { port, maildrop, _tasks: tasks }
    }

    /// How often it was listed since the last call.
    fn listed(&self) -> usize {
        std::mem::take(&mut self.maildrop.lock().unwrap().listed)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u32>)) {
        change(&mut self.maildrop.lock().unwrap().names);
    }
}

async fn session(stream: TcpStream, maildrop: Arc<Mutex<Maildrop>>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let _ = write.write_all(b"+OK ready\r\n").await;
    while let Ok(Some(line)) = lines.next_line().await {
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let message = |maildrop: &Maildrop| {
            let at = argument.parse::<usize>().unwrap_or(0).wrapping_sub(1);
            maildrop.names.get(at).copied()
        };
        let answer = {
            let mut maildrop = maildrop.lock().unwrap();
            match command.to_ascii_uppercase().as_str() {
                "CAPA" => "+OK\r\nUSER\r\nUIDL\r\nTOP\r\nPIPELINING\r\n.\r\n".to_owned(),
                "STAT" => format!("+OK {} 1\r\n", maildrop.names.len()),
                "UIDL" => {
                    maildrop.listed += 1;
                    let line = |(at, name): (usize, &u32)| format!("{} {name:0>OCTETS$}\r\n", at + 1);
                    format!("+OK\r\n{}.\r\n", maildrop.names.iter().enumerate().map(line).collect::<String>())
                }
                "RETR" | "TOP" => match message(&maildrop) {
                    Some(name) => format!("+OK\r\nMessage-ID: <{name}@x>\r\n\r\ntoken-{name} \r\n.\r\n"),
                    None => "-ERR no such message\r\n".to_owned(),
                },
                _ => "+OK\r\n".to_owned(),
            }
        };
        if write.write_all(answer.as_bytes()).await.is_err() || command == "QUIT" {
            return;
        }
    }
}

/// A check that must go well: what it delivered.
async fn delivered(here: &Light, job: &Job) -> u64 {
    let report = here.run(job).await;
    assert!(report.error.is_none(), "{:?}", report.error);
    report.delivered
}

/// Everything that came did so once, and it is these.
fn must_have(here: &Light, names: impl Iterator<Item = u32>) {
    let found = here.tokens("ann");
    let wanted: Vec<String> = names.map(|name| name.to_string()).collect();
    assert!(found.values().all(|times| *times == 1));
    assert_eq!(found.len(), wanted.len());
    assert!(wanted.iter().all(|name| found.contains_key(name)));
}

#[tokio::test]
async fn a_long_listing_is_asked_for_again_only_when_it_is_another_and_brings_what_is_new_once() {
    let server = Server::start(0..6_000).await;
    let here = Light::new();
    let job = here.job(Protocol::Pop3, server.port, |account| account.start = Start::FromNowOn);
    // What is there counts as known; the first check after that sees that nothing is to be done.
    assert_eq!(delivered(&here, &job).await, 0);
    assert_eq!(delivered(&here, &job).await, 0);
    server.listed();
    assert_eq!((delivered(&here, &job).await, server.listed()), (0, 1));

    server.change(|names| names.extend(10_000..10_003));
    assert_eq!((delivered(&here, &job).await, server.listed()), (3, 1));

    // One is gone from the middle: the listing is another, which is known only at its end.
    server.change(|names| {
        names.remove(2_000);
        names.extend(10_003..10_005);
    });
    assert_eq!((delivered(&here, &job).await, server.listed()), (2, 2));
    must_have(&here, 10_000..10_005);
    assert_eq!(delivered(&here, &job).await, 0);
    server.listed();
    assert_eq!((delivered(&here, &job).await, server.listed()), (0, 1));
}

#[tokio::test]
async fn very_many_new_messages_behind_a_quiet_listing_come_once_and_what_was_known_stays_known() {
    let server = Server::start(0..20).await;
    let here = Light::new();
    let job = here.job(Protocol::Pop3, server.port, |_| {});
    assert_eq!(delivered(&here, &job).await, 20);
    assert_eq!(delivered(&here, &job).await, 0);
    assert_eq!(delivered(&here, &job).await, 0);
    server.listed();
    server.change(|names| names.extend(100..5_100));
    assert_eq!((delivered(&here, &job).await, server.listed()), (5_000, 2));
    must_have(&here, (0..20).chain(100..5_100));
    assert_eq!(delivered(&here, &job).await, 0);
    // Those that were known before it were not taken for gone meanwhile: nothing comes again with them.
    server.change(|names| names.push(6_000));
    assert_eq!(delivered(&here, &job).await, 1);
    must_have(&here, (0..20).chain(100..5_100).chain([6_000]));
}
