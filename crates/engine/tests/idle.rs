//! Accounts that listen, over hours of virtual time: IDLE is renewed, dead connections are found, and what a server
//! forgets to tell is asked for.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod light;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::wrappers::{Scripted, delivered};
use connectord_account::{Check, Protocol};
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Parcel, Prepared, Presence, RecallRow, Recalled, Recipient,
};
use connectord_engine::{Job, Limits, Quiet, Scheduler};
use connectord_net::Connector;
use light::Light;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// What a small IMAP server saw, and what it is to do.
struct Server {
    started: Instant,
    commands: Mutex<Vec<(Duration, String)>>,
    uids: AtomicU32,
    changed: Notify,
    connections: AtomicU32,
    /// On so many of the first connections nothing is answered any more, and they stay open: as after a router forgot them.
    dead: AtomicU32,
}

impl Server {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            commands: Mutex::default(),
            uids: AtomicU32::new(0),
            changed: Notify::new(),
            connections: AtomicU32::new(0),
            dead: AtomicU32::new(0),
        })
    }

    /// When each command of this name came.
    fn when(&self, name: &str) -> Vec<Duration> {
        let commands = self.commands.lock().unwrap();
        commands.iter().filter(|(_, command)| command.starts_with(name)).map(|(at, _)| *at).collect()
    }

    /// Mail comes; told to whom listens, if `told`.
    fn add(&self, told: bool) {
        self.uids.fetch_add(1, Ordering::SeqCst);
        if told {
            self.changed.notify_waiters();
        }
    }

    fn connector(self: &Arc<Self>) -> Connector {
        let server = Arc::clone(self);
        Connector::with_dialer(move |_| {
            let (near, far) = tokio::io::duplex(4096);
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.serve(far).await });
            Ok(near)
        })
    }

    async fn serve(&self, stream: DuplexStream) -> io::Result<()> {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let (read, mut write) = tokio::io::split(stream);
        let mut lines = BufReader::new(read).lines();
        let capabilities = "CAPABILITY IMAP4rev1 IDLE UIDPLUS COMPRESS=DEFLATE";
        write.write_all(format!("* OK [{capabilities}] ready\r\n").as_bytes()).await?;
        let mut idling = None;
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line?,
                () = self.changed.notified(), if idling.is_some() => {
                    let uids = self.uids.load(Ordering::SeqCst);
                    write.write_all(format!("* {uids} EXISTS\r\n").as_bytes()).await?;
                    continue;
                }
            };
            let Some(line) = line else { return Ok(()) };
            if number < self.dead.load(Ordering::SeqCst) {
                continue;
            }
            let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
            let command = if line == "DONE" { "DONE" } else { command };
            self.commands.lock().unwrap().push((self.started.elapsed(), command.to_owned()));
            let uids = self.uids.load(Ordering::SeqCst);
            let answer = match command.split(' ').next().unwrap_or_default() {
                "IDLE" => {
                    idling = Some(tag.to_owned());
                    "+ idling\r\n".to_owned()
                }
                "DONE" => format!("{} OK done\r\n", idling.take().unwrap_or_default()),
                "SELECT" | "EXAMINE" => {
                    let next = uids + 1;
                    format!("* {uids} EXISTS\r\n* OK [UIDVALIDITY 7] a\r\n* OK [UIDNEXT {next}] b\r\n{tag} OK c\r\n")
                }
                _ if command.starts_with("UID SEARCH") => {
                    let all: Vec<String> = (1..=uids).map(|uid| uid.to_string()).collect();
                    format!("* SEARCH {}\r\n{tag} OK d\r\n", all.join(" "))
                }
                _ if command.starts_with("UID FETCH") => {
                    let mut answer = String::new();
                    for uid in 1..=uids {
                        let text = format!("Message-ID: <{uid}@a>\r\n\r\ntoken-{uid} \r\n");
                        answer += &format!(
                            "* {uid} FETCH (UID {uid} RFC822.SIZE {0} INTERNALDATE \"22-Nov-2026 19:31:00 +0000\" BODY[] {{{0}}}\r\n{text})\r\n",
                            text.len()
                        );
                    }
                    format!("{answer}{tag} OK e\r\n")
                }
                _ => format!("{tag} OK f\r\n"),
            };
            write.write_all(answer.as_bytes()).await?;
        }
    }
}

/// One account that listens, in a scheduler that runs.
struct Listening {
    server: Arc<Server>,
    delivery: Arc<Scripted>,
    _here: Light,
    _jobs: watch::Sender<Vec<Job>>,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
}

impl Listening {
    async fn start(change: impl FnOnce(&mut Job)) -> Self {
        let server = Server::new();
        let here = Light::with(server.connector(), Arc::new(Quiet));
        let delivery = Scripted::new(8, |_| delivered());
        let mut job = here.job(Protocol::Imap, 143, |account| account.check = Check::Idle);
        job.delivery = Arc::clone(&delivery) as Arc<dyn Delivery>;
        change(&mut job);
        let scheduler = Scheduler::new(here.site.clone(), Limits::default());
        let (jobs, watched) = watch::channel(vec![job]);
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(async move { scheduler.run(watched, stopped).await });
        Self { server, delivery, _here: here, _jobs: jobs, stop, running }
    }

    fn delivered(&self) -> usize {
        self.delivery.taken_by("ann").len()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.running.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn idle_is_renewed_before_it_is_forgotten_and_the_account_is_checked_now_and_then_anyway() {
    let listening = Listening::start(|_| {}).await;
    let server = Arc::clone(&listening.server);
    tokio::time::sleep(240 * MINUTE).await;
    assert_eq!(server.when("LOGIN").len(), 1, "one connection for all of it");
    let idle = server.when("IDLE");
    let between: Vec<Duration> = idle.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(between.iter().all(|time| *time <= 9 * MINUTE + Duration::from_secs(5)), "{between:?}");
    assert!(idle.len() < 90, "{} times", idle.len());
    let checks = [server.when("SELECT"), server.when("EXAMINE")].concat();
    // All of them by the same command.
    assert!(checks.windows(2).all(|two| two[1] - two[0] <= 31 * MINUTE), "{checks:?}");
    assert!((8..60).contains(&checks.len()), "{checks:?}");
    // Its tables would be the largest part of a connection that waits.
    assert!(server.when("COMPRESS").is_empty());
    listening.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_server_forgets_to_tell_is_found_and_what_it_tells_comes_at_once() {
    let listening = Listening::start(|_| {}).await;
    tokio::time::sleep(MINUTE).await;
    listening.server.add(true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(listening.delivered(), 1);
    listening.server.add(false);
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(listening.delivered(), 1);
    tokio::time::sleep(30 * MINUTE).await;
    assert_eq!((listening.delivered(), listening.server.when("LOGIN").len()), (2, 1));
    listening.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_unnoticed_is_found_within_minutes_and_replaced() {
    let listening = Listening::start(|_| {}).await;
    tokio::time::sleep(MINUTE).await;
    listening.server.dead.store(1, Ordering::SeqCst);
    listening.server.add(false);
    tokio::time::sleep(11 * MINUTE).await;
    assert_eq!((listening.delivered(), listening.server.when("LOGIN").len()), (1, 2));
    listening.end().await;
}

/// A destination that has no room for a while.
struct Full {
    full: AtomicBool,
    inner: Arc<Scripted>,
}

#[async_trait]
impl Delivery for Full {
    fn describe(&self) -> String {
        "full".into()
    }
    fn limits(&self) -> BatchLimits {
        self.inner.limits()
    }
    async fn presence(&self, _: &Recipient) -> Result<Presence, Failure> {
        Ok(Presence::Here)
    }
    async fn room(&self, _: &Recipient) -> Result<(), Failure> {
        let full = || Failure::new(FailureKind::DiskFull, "no room");
        if self.full.load(Ordering::SeqCst) { Err(full()) } else { Ok(()) }
    }
    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        self.inner.prepare(batch).await
    }
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        self.inner.recall(rows).await
    }
}

#[tokio::test(start_paused = true)]
async fn mail_that_was_told_of_while_the_disk_was_full_does_not_wait_for_the_next_message() {
    let full = Arc::new(Mutex::new(None));
    let set = Arc::clone(&full);
    let listening = Listening::start(move |job| {
        let inner = Scripted::new(8, |_| delivered());
        let destination = Arc::new(Full { full: AtomicBool::new(false), inner });
        job.delivery = Arc::clone(&destination) as Arc<dyn Delivery>;
        *set.lock().unwrap() = Some(destination);
    })
    .await;
    let full = full.lock().unwrap().take().unwrap();
    tokio::time::sleep(MINUTE).await;
    full.full.store(true, Ordering::SeqCst);
    listening.server.add(true);
    tokio::time::sleep(MINUTE).await;
    full.full.store(false, Ordering::SeqCst);
    tokio::time::sleep(15 * MINUTE).await;
    assert_eq!(full.inner.taken_by("ann").len(), 1, "{:?}", listening.server.commands.lock().unwrap());
    listening.end().await;
}
