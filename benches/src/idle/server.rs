//! A scripted IMAP server for very many connections that listen: it knows as much IMAP as connectord speaks.
//!
//! A process of its own, told by lines on its standard input: `arrive N PER_SECOND` adds messages, one mailbox after the
//! other, and each is announced in IDLE; the line `at TOKEN MICROSECONDS` says when. `count` says what was seen so far.

use std::io::BufRead as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use connectord_sample::Certificates;
use rustls::HandshakeKind;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// Octets of one message: about what mail has in the median.
const MESSAGE: usize = 10_000;

/// What a mailbox holds: UIDs 1 to `uids`.
#[derive(Default)]
struct Mailbox {
    uids: AtomicU32,
    changed: Notify,
    tokens: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Seen {
    logins: AtomicU64,
    resumed: AtomicU64,
    listening: AtomicU64,
    renewals: AtomicU64,
    commands: AtomicU64,
}

struct Server {
    mailboxes: Vec<Mailbox>,
    seen: Seen,
}

/// Serves until its standard input ends.
pub(crate) fn serve(accounts: usize, hosts: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime starts").block_on(run(accounts, hosts));
}

async fn run(accounts: usize, hosts: usize) {
    let names: Vec<String> = (1..=hosts).map(super::host).collect();
    let certificates = Certificates::with_names(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let acceptor = TlsAcceptor::from(certificates.server_config());
    let server =
        Arc::new(Server { mailboxes: (0..accounts).map(|_| Mailbox::default()).collect(), seen: Seen::default() });
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    println!("ready {port} {}", certificates.ca_file().display());
    let accepting = Arc::clone(&server);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (server, acceptor) = (Arc::clone(&accepting), acceptor.clone());
            // A connection that breaks is the client's affair.
            tokio::spawn(async move { server.connection(socket, acceptor).await.ok() });
        }
    });
    let (lines, mut told) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    while let Some(line) = told.recv().await {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["arrive", count, rate] => {
                let (count, rate) = (count.parse().unwrap_or(0), rate.parse().unwrap_or(1.0));
                server.arrivals(count, rate).await;
            }
            _ => server.seen.tell(),
        }
    }
}

impl Seen {
    fn tell(&self) {
        let [logins, resumed, listening, renewals, commands] =
            [&self.logins, &self.resumed, &self.listening, &self.renewals, &self.commands]
                .map(|count| count.load(Ordering::SeqCst));
        println!("count {logins} {resumed} {listening} {renewals} {commands}");
    }
}

impl Server {
    async fn arrivals(&self, count: usize, rate: f64) {
        let mut due = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        for number in 0..count {
            due.tick().await;
            let place = number * 7919 % self.mailboxes.len();
            let mailbox = &self.mailboxes[place];
            let mut tokens = mailbox.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            let uid = mailbox.uids.load(Ordering::SeqCst) + 1;
            tokens.push(format!("t{place}x{uid}"));
            mailbox.uids.store(uid, Ordering::SeqCst);
            drop(tokens);
            mailbox.changed.notify_one();
        }
    }

    async fn connection(&self, socket: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        let stream = acceptor.accept(socket).await?;
        if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.seen.resumed.fetch_add(1, Ordering::SeqCst);
        }
        let (read, write) = tokio::io::split(stream);
        let lines = BufReader::with_capacity(512, read).lines();
        Session { server: self, mailbox: None, lines, write, out: Vec::new() }.run().await
    }
}

struct Session<'a, S> {
    server: &'a Server,
    mailbox: Option<&'a Mailbox>,
    lines: tokio::io::Lines<BufReader<tokio::io::ReadHalf<S>>>,
    write: tokio::io::WriteHalf<S>,
    out: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite> Session<'_, S> {
    async fn run(mut self) -> std::io::Result<()> {
        self.say("* OK [CAPABILITY IMAP4rev1 IDLE UIDPLUS ENABLE ESEARCH CONDSTORE MOVE ID SASL-IR] ready");
        self.send().await?;
        while let Some(line) = self.lines.next_line().await? {
            self.server.seen.commands.fetch_add(1, Ordering::SeqCst);
            let Some((tag, command)) = line.split_once(' ') else { continue };
            if command.eq_ignore_ascii_case("IDLE") {
                self.idle().await?;
            } else {
                self.answer(command);
            }
            self.say(&format!("{tag} OK done"));
            self.send().await?;
        }
        Ok(())
    }

    fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    async fn send(&mut self) -> std::io::Result<()> {
        self.write.write_all(&self.out).await?;
        self.out = Vec::new();
        self.write.flush().await
    }

    /// What a command is answered, but for its last line.
    fn answer(&mut self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        let uids = self.mailbox.map_or(0, |mailbox| mailbox.uids.load(Ordering::SeqCst));
        let upper: Vec<String> = words.iter().take(2).map(|word| word.to_ascii_uppercase()).collect();
        match upper.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["LOGIN", _] => {
                let number = words[1].trim_matches('"').trim_start_matches('u').parse::<usize>().unwrap_or(0);
                self.mailbox = self.server.mailboxes.get(number);
                self.server.seen.logins.fetch_add(1, Ordering::SeqCst);
            }
            ["SELECT" | "EXAMINE", _] => {
                self.say("* FLAGS (\\Seen \\Deleted)");
                self.say(&format!("* {uids} EXISTS"));
                self.say("* OK [UIDVALIDITY 7] ids");
                self.say(&format!("* OK [UIDNEXT {}] next", uids + 1));
                self.say(&format!("* OK [HIGHESTMODSEQ {}] changes", uids + 1));
            }
            ["UID", "SEARCH"] => {
                let from = words.iter().find_map(|word| word.split_once(':')?.0.parse().ok()).unwrap_or(1);
                let found: Vec<String> = (from..=uids).map(|uid| uid.to_string()).collect();
                if command.contains("RETURN") {
                    let all = if from <= uids { format!(" ALL {from}:{uids}") } else { String::new() };
                    self.say(&format!("* ESEARCH (TAG \"x\") UID{all}"));
                } else {
                    self.say(&format!("* SEARCH {}", found.join(" ")));
                }
            }
            ["UID", "FETCH"] => self.fetch(words.get(2).copied().unwrap_or_default(), command, uids),
            ["STATUS", _] => self.say(&format!("* STATUS INBOX (MESSAGES {uids} UIDNEXT {})", uids + 1)),
            ["CAPABILITY"] => self.say("* CAPABILITY IMAP4rev1 IDLE UIDPLUS ENABLE ESEARCH CONDSTORE MOVE ID SASL-IR"),
            _ => {}
        }
    }

    fn fetch(&mut self, set: &str, items: &str, uids: u32) {
        let tokens = self.mailbox.map(|mailbox| mailbox.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone());
        for range in set.split(',') {
            let (first, last) = range.split_once(':').unwrap_or((range, range));
            let number = |text: &str| text.parse().unwrap_or(uids);
            for uid in number(first)..=number(last).min(uids) {
                let token = tokens.as_ref().and_then(|tokens| tokens.get(uid as usize - 1));
                let text = message(token.map_or("none", String::as_str));
                let mut line = format!(
                    "* {uid} FETCH (UID {uid} FLAGS () MODSEQ ({uid}) RFC822.SIZE {MESSAGE} INTERNALDATE \"22-Nov-2026 19:31:00 +0000\""
                );
                let body = match items {
                    items if items.contains("HEADER") => {
                        Some((text.split_once("\r\n\r\n").map_or(0, |(head, _)| head.len() + 4), "HEADER"))
                    }
                    items if items.contains("BODY") => Some((text.len(), "")),
                    _ => None,
                };
                if let Some((length, section)) = body {
                    line.push_str(&format!(" BODY[{section}] {{{length}}}\r\n"));
                    line.push_str(&text[..length]);
                }
                line.push(')');
                self.say(&line);
            }
        }
    }

    async fn idle(&mut self) -> std::io::Result<()> {
        self.say("+ idling");
        self.send().await?;
        let seen = &self.server.seen;
        seen.listening.fetch_add(1, Ordering::SeqCst);
        let Some(mailbox) = self.mailbox else { return Ok(()) };
        let told = loop {
            tokio::select! {
                line = self.lines.next_line() => break line,
                () = mailbox.changed.notified() => {
                    let uids = mailbox.uids.load(Ordering::SeqCst);
                    let token = {
                        let tokens = mailbox.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                        tokens.last().cloned().unwrap_or_default()
                    };
                    println!("at {token} {}", now().as_micros());
                    self.say(&format!("* {uids} EXISTS"));
                    self.send().await?;
                }
            }
        };
        seen.listening.fetch_sub(1, Ordering::SeqCst);
        seen.renewals.fetch_add(1, Ordering::SeqCst);
        told.map(|_| ())
    }
}

fn message(token: &str) -> String {
    let mut text = format!(
        "Message-ID: <{token}@example.org>\r\nDate: Sun, 22 Nov 2026 19:31:00 +0000\r\nX-Token: {token}\r\nSubject: news\r\n\r\n"
    );
    while text.len() + 78 <= MESSAGE {
        text.push_str(&"x".repeat(76));
        text.push_str("\r\n");
    }
    text
}

/// The wall clock, which all processes of one machine share.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
