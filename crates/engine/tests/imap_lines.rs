//! Commands that are on the wire together, and several connections for one mailbox: whatever a server makes of them, each
//! message comes once.

#![allow(clippy::unwrap_used, reason = "a test")]

mod answering;
mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use answering::{asked, fetched};
use common::Installation;
use connectord_account::{Account, Protocol};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a connection says to a line: octets, and whether it ends then. `{tag}` is the line's tag.
type Say = (String, bool);

/// How a server differs from a usual one: its connection's number from 1, and the command without its tag.
type Odd = dyn Fn(usize, &str, &str) -> Option<Say> + Send + Sync;

/// An IMAP server with so many messages, that knows its connections.
struct Server {
    port: u16,
    heard: Arc<Mutex<Vec<(usize, String)>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn body(uid: u32) -> Vec<u8> {
    format!("Message-ID: <{uid}@example.org>\r\nSubject: token-{uid} x\r\n\r\nmessage {uid}\r\n").into_bytes()
}

fn usual(command: &str, messages: u32) -> String {
    match command.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["SELECT" | "EXAMINE", _] => {
            format!(
                "* {messages} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT {}] x\r\n{{tag}} OK x\r\n",
                messages + 1
            )
        }
        ["UID", "SEARCH"] => {
            let from = command.split("UID ").nth(2).and_then(|set| set.split(':').next()?.parse().ok()).unwrap_or(1);
            let uids: Vec<String> = (from..=messages).map(|uid| uid.to_string()).collect();
            format!("* SEARCH {}\r\n{{tag}} OK x\r\n", uids.join(" "))
        }
        ["UID", "FETCH"] => {
            let asked = asked(command);
            let found = (1..=messages).filter(|uid| asked(*uid)).flat_map(|uid| fetched(uid, &body(uid)));
            String::from_utf8(found.collect()).unwrap() + "{tag} OK x\r\n"
        }
        _ => "{tag} OK x\r\n".into(),
    }
}

impl Server {
    async fn start(messages: u32, odd: impl Fn(usize, &str, &str) -> Option<Say> + Send + Sync + 'static) -> Self {
        Self::start_patient(messages, 0, odd).await
    }

    /// One that answers SELECT when so many connections have logged in.
    async fn start_patient(
        messages: u32,
        awaited: usize,
        odd: impl Fn(usize, &str, &str) -> Option<Say> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (odd, lines): (Arc<Odd>, _) = (Arc::new(odd), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let logins = Arc::new(AtomicUsize::new(0));
            while let Ok((stream, _)) = listener.accept().await {
                let (odd, lines, logins) = (Arc::clone(&odd), Arc::clone(&lines), Arc::clone(&logins));
                connections.spawn(serve(stream, (logins, awaited), messages, odd, lines));
            }
        });
        Self { port, heard, task }
    }

    /// All commands of all connections.
    fn heard(&self) -> Vec<(usize, String)> {
        self.heard.lock().unwrap().clone()
    }

    fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// By which connections each message was asked for, as far as it was not asked for alone.
    fn asked(&self, messages: u32) -> BTreeMap<u32, Vec<usize>> {
        let heard = self.heard();
        let fetches = || heard.iter().filter(|(_, command)| command.starts_with("UID FETCH"));
        let by = |uid| fetches().filter(|(_, command)| asked(command)(uid)).map(|(number, _)| *number).collect();
        (1..=messages).map(|uid| (uid, by(uid))).collect()
    }
}

/// Connections are numbered as they log in; before that each is 0.
async fn serve(
    stream: TcpStream,
    (logins, awaited): (Arc<AtomicUsize>, usize),
    messages: u32,
    odd: Arc<Odd>,
    heard: Arc<Mutex<Vec<(usize, String)>>>,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut number = 0;
    write.write_all(b"* OK [CAPABILITY IMAP4rev1] ready\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
        if command.starts_with("LOGIN") {
            number = logins.fetch_add(1, Ordering::Relaxed) + 1;
        }
        heard.lock().unwrap().push((number, command.to_owned()));
        while command.starts_with("SELECT") && logins.load(Ordering::Relaxed) < awaited {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let (say, ends) = odd(number, tag, command).unwrap_or_else(|| (usual(command, messages), false));
        write.write_all(say.replace("{tag}", tag).as_bytes()).await?;
        if ends {
            break;
        }
    }
    Ok(())
}

/// How many messages `ann` has, none of them twice.
fn once(here: &Installation) -> usize {
    let tokens = here.tokens("ann");
    assert!(tokens.values().all(|times| *times == 1), "{tokens:?}");
    tokens.len()
}

fn say(text: impl Into<String>) -> Option<Say> {
    Some((text.into(), false))
}

fn with(connections: u16) -> impl FnOnce(&mut Account) {
    move |account| account.connections = Some(connections)
}

#[tokio::test]
async fn the_next_command_is_on_the_wire_before_the_last_answer() {
    // Each waits for the next one of its sort, and answers may come in any order.
    for newest_first in [false, true] {
        let waiting: Mutex<Vec<(String, String)>> = Mutex::default();
        let server = Server::start(500, move |_, tag, command| {
            let mut waiting = waiting.lock().unwrap();
            let pairs = ["SELECT", "UID SEARCH", "UID FETCH"];
            if !pairs.iter().any(|pair| command.starts_with(pair)) {
                return None;
            }
            waiting.push((tag.to_owned(), command.to_owned()));
            if waiting.len() < 2 {
                return say("");
            }
            let mut answers: Vec<_> = std::mem::take(&mut *waiting);
            if newest_first && command.starts_with("UID FETCH") {
                answers.reverse();
            }
            say(answers.iter().map(|(tag, command)| usual(command, 500).replace("{tag}", tag)).collect::<String>())
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port, |_| {});
        assert_eq!(here.run_well(&job).await.delivered, 500, "newest first: {newest_first}");
        assert_eq!(once(&here), 500);
        assert!(server.asked(500).values().all(|by| by.len() == 1), "each is asked for once");
    }
}

#[tokio::test]
async fn one_refused_command_among_several_hides_no_message() {
    for refusal in ["{tag} NO [UNAVAILABLE] not now\r\n", "{tag} BAD what?\r\n"] {
        let server = Server::start(700, move |_, _, command| {
            // All that name it, with others or alone.
            (command.starts_with("UID FETCH") && asked(command)(300)).then(|| (refusal.into(), false))
        })
        .await;
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port, |_| {});
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.deferred), (699, 1), "{refusal}");
        assert_eq!(once(&here), 699);
    }
}

#[tokio::test]
async fn a_bye_in_the_middle_of_several_commands_loses_nothing_and_doubles_nothing() {
    let fetches = AtomicUsize::new(0);
    let server = Server::start(900, move |number, _, command| {
        let is_fetch = number == 1 && command.starts_with("UID FETCH");
        if !is_fetch || fetches.fetch_add(1, Ordering::Relaxed) < 1 {
            return None;
        }
        let answer = usual(command, 900);
        Some((format!("{}* BYE [UNAVAILABLE] going down\r\n", &answer[..answer.len() * 2 / 3 / 90 * 90]), true))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    let report = here.run(&job).await;
    assert!(report.error.is_some() && report.delivered > 0 && report.delivered < 900, "{report:?}");
    let mut delivered = report.delivered;
    for _ in 0..3 {
        delivered += here.run_well(&job).await.delivered;
        here.pass(4000);
    }
    assert_eq!((delivered, once(&here)), (900, 900));
}

#[tokio::test]
async fn several_connections_share_the_work_and_no_message_is_asked_for_twice() {
    let server = Server::start(2000, |_, _, _| None).await;
    // One that is quick enough may have done everything before another has logged in.
    let mut shared = None;
    for _ in 0..30 {
        server.forget();
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port, with(4));
        assert_eq!(here.run_well(&job).await.delivered, 2000);
        assert_eq!(once(&here), 2000);
        let asked = server.asked(2000);
        assert!(asked.values().all(|by| by.len() == 1));
        let connections: std::collections::BTreeSet<usize> = asked.values().flatten().copied().collect();
        if connections.len() > 1 {
            shared = Some((here, job, connections));
            break;
        }
    }
    let (here, job, connections) = shared.expect("several connections take part");
    let heard = server.heard();
    let selects = heard.iter().filter(|(_, command)| command.starts_with("SELECT")).count();
    assert_eq!(selects, 1, "only the first of {connections:?} may change anything");
    // Little is worth no further login.
    server.forget();
    assert_eq!(here.run_well(&job).await.delivered, 0);
    assert_eq!(server.heard().iter().filter(|(_, command)| command.starts_with("LOGIN")).count(), 1);
}

#[tokio::test]
async fn the_first_check_opens_further_connections_beside_the_first_and_later_ones_when_there_is_enough() {
    // Far fewer messages than a further connection is worth: nothing else opens one.
    let server = Server::start_patient(30, 3, |_, _, _| None).await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, with(3));
    assert_eq!(here.run_well(&job).await.delivered, 30);
    let heard = server.heard();
    let logins = |heard: &[(usize, String)]| heard.iter().filter(|(_, command)| command.starts_with("LOGIN")).count();
    assert_eq!(logins(&heard), 3, "{heard:?}");
    // Nobody needed them: they open nothing, and leave.
    let opens = |command: &str| ["EXAMINE", "SELECT", "UID"].iter().any(|verb| command.starts_with(verb));
    assert!(!heard.iter().any(|(number, command)| *number > 1 && opens(command)), "{heard:?}");
    server.forget();
    assert_eq!(here.run_well(&job).await.delivered, 0);
    assert_eq!(logins(&server.heard()), 1);
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_however_many_connections_there_may_be() {
    let server = Server::start(30, |_, _, command| {
        let refused = "{tag} NO [AUTHENTICATIONFAILED] wrong password\r\n";
        if command.starts_with("LOGIN") { say(refused) } else { None }
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, with(4));
    assert!(here.run(&job).await.error.is_some());
    let heard = server.heard();
    assert_eq!(heard.iter().filter(|(_, command)| command.starts_with("LOGIN")).count(), 1, "{heard:?}");
}

#[tokio::test]
async fn a_further_connection_that_is_refused_or_sees_another_mailbox_is_no_error_and_not_asked_again() {
    type Kind = fn(&str) -> Option<&'static str>;
    let kinds: [Kind; 4] = [
        |command| command.starts_with("LOGIN").then_some("{tag} NO [LIMIT] too many connections\r\n"),
        |command| command.starts_with("LOGIN").then_some("{tag} NO [AUTHENTICATIONFAILED] Too many simultaneous\r\n"),
        |command| command.starts_with("EXAMINE").then_some("* BYE too many connections\r\n"),
        |command| {
            let other = "* 2 EXISTS\r\n* OK [UIDVALIDITY 8] x\r\n* OK [UIDNEXT 3] x\r\n{tag} OK x\r\n";
            command.starts_with("EXAMINE").then_some(other)
        },
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        // The first connection may be done before another has logged in, or has read its refusal.
        let (mut tried, mut alone) = (false, 0);
        for _ in 0..60 {
            let server = Server::start(600, move |number, _, command| {
                let answer = if number > 1 { kind(command) } else { None };
                answer.map(|answer| (answer.to_owned(), answer.contains("BYE")))
            })
            .await;
            let here = Installation::new();
            let job = here.job(Protocol::Imap, server.port, |account| {
                account.address = format!("refused{n}@example.org");
                account.connections = Some(4);
            });
            assert_eq!(here.run_well(&job).await.delivered, 600, "{n}");
            assert_eq!(once(&here), 600, "{n}");
            assert!(server.asked(600).values().all(|by| by.len() == 1), "{n}");
            let logins = server.heard().iter().filter(|(_, command)| command.starts_with("LOGIN")).count();
            tried |= logins > 1;
            alone = if tried && logins == 1 { alone + 1 } else { 0 };
            if alone == 2 {
                break;
            }
        }
        assert!(tried && alone == 2, "{n}: tried {tried}, and {alone} times in a row not again");
    }
}

#[tokio::test]
async fn what_a_further_connection_had_when_it_broke_is_taken_over() {
    let cut = AtomicUsize::new(0);
    let server = Server::start(2000, move |number, _, command| {
        if number == 1 || !command.starts_with("UID FETCH") || cut.fetch_add(1, Ordering::Relaxed) > 2 {
            return None;
        }
        // In the middle of a message.
        let answer = usual(command, 2000);
        Some((answer[..answer.len() / 2].to_owned(), true))
    })
    .await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |account| {
        account.address = "broken@example.org".into();
        account.connections = Some(4);
    });
    let report = here.run_well(&job).await;
    assert_eq!((report.delivered, report.deferred), (2000, 0));
    assert_eq!(once(&here), 2000);
}

#[tokio::test]
async fn with_nothing_new_a_mailbox_is_opened_and_nothing_more() {
    let server = Server::start(30, |_, _, _| None).await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    assert_eq!(here.run_well(&job).await.delivered, 30);
    for hour in 1..=30 {
        here.pass(3600);
        server.forget();
        assert_eq!(here.run_well(&job).await.delivered, 0);
        let searches = server.heard().iter().filter(|(_, command)| command.starts_with("UID")).count();
        assert_eq!(searches, usize::from(hour == 24), "a whole listing once a day, in hour {hour}");
    }
    assert_eq!(once(&here), 30);
}

/// A server whose UIDNEXT is what a test says, and whose messages are those below it and `early` more.
async fn moving(next: &Arc<AtomicU32>, early: u32) -> Server {
    let next = Arc::clone(next);
    Server::start(0, move |_, _, command| {
        let next = next.load(Ordering::Relaxed);
        if command.starts_with("SELECT") {
            return say(usual(command, next - 1));
        }
        command.starts_with("UID").then(|| (usual(command, next - 1 + early), false))
    })
    .await
}

#[tokio::test]
async fn what_comes_while_the_mailbox_is_listed_is_not_delivered_again() {
    let next = Arc::new(AtomicU32::new(11));
    // The search already finds one that was not there yet when the mailbox was opened.
    let server = moving(&next, 1).await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    for (uid_next, delivered) in [(11, 11), (11, 0), (12, 1), (12, 0), (12, 0), (15, 3), (15, 0)] {
        next.store(uid_next, Ordering::Relaxed);
        here.pass(600);
        assert_eq!(here.run_well(&job).await.delivered, delivered, "at {uid_next}");
    }
    assert_eq!(once(&here), 15);
}

#[tokio::test]
async fn a_uidnext_that_goes_back_and_forth_brings_nothing_twice() {
    let next = Arc::new(AtomicU32::new(101));
    let server = moving(&next, 0).await;
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port, |_| {});
    for (uid_next, delivered) in
        [(101, 100), (91, 0), (91, 0), (96, 0), (96, 0), (101, 0), (101, 0), (103, 2), (103, 0)]
    {
        next.store(uid_next, Ordering::Relaxed);
        here.pass(600);
        assert_eq!(here.run_well(&job).await.delivered, delivered, "at {uid_next}");
    }
    assert_eq!(once(&here), 102);
}
