//! An installation with a clock of its own, and a web server that answers as it is told to.

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connectord_account::{Account, Key, Protocol};
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{Delivery, Recipient};
use connectord_engine::{Cause, Clock, Job, Observer, Progress, Quiet, Report, RunError};
use connectord_mail::UnixTime;
use connectord_net::Route;
use connectord_notices::{Desk, Inbox, Policy, Reader, Setup, Ways};
use connectord_sasl::{Credential, CredentialError, StaticCredentials};
use connectord_store::memory::MemoryStore;
use connectord_store::{MessageName, MessageRef, Store};
use connectord_wire::{Endpoint, Security};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) struct Installation {
    directory: TempDir,
    store: Arc<MemoryStore>,
    inbox: Arc<Inbox>,
    clock: Clock,
    ahead: Arc<AtomicI64>,
    scripts: Cell<u32>,
}

impl Installation {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("mail")).unwrap();
        let ahead = Arc::new(AtomicI64::new(1_700_000_000));
        let now = Arc::clone(&ahead);
        let clock = Clock::from_fn(move || UnixTime(now.load(Ordering::SeqCst)));
        let inbox = Arc::new(Inbox::new(Arc::new(Quiet), clock.clone()));
        Self { directory, store: Arc::default(), inbox, clock, ahead, scripts: Cell::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A shell script that can be started.
    pub(crate) fn script(&self, text: &str) -> PathBuf {
        let number = self.scripts.replace(self.scripts.get() + 1);
        let path = self.path(&format!("script{number}"));
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    fn maildir(&self) -> Arc<dyn Delivery> {
        let path = self.path("mail/{user}").display().to_string().parse().unwrap();
        Arc::new(Maildir::new(Options::new(path, "notices")))
    }

    pub(crate) fn reader(&self, user: &str) -> Reader {
        Reader { recipient: Recipient { user: user.into(), address: user.into() }, delivery: self.maildir() }
    }

    /// Accounts `a0@example.org` of `user0` and so on, all at one host.
    pub(crate) fn setup(&self, accounts: usize, change: impl FnOnce(&mut Ways)) -> Setup {
        let delivery = self.maildir();
        let jobs: Vec<Job> = (0..accounts)
            .map(|n| {
                let endpoint = Endpoint::new("imap.example.org", 993).unwrap();
                let account = Account::new(&format!("a{n}@example.org"), Protocol::Imap, endpoint.clone(), "ann");
                let user = format!("user{n}");
                Job {
                    account: Arc::new(account),
                    credentials: Arc::new(StaticCredentials::new(Credential::password("ann", "secret"))),
                    route: Route::new(endpoint, Security::Tls),
                    destination: "default".into(),
                    delivery: Arc::clone(&delivery),
                    recipients: vec![Recipient { address: user.clone(), user }],
                    ambiguous: Default::default(),
                    policy: Default::default(),
                    relays: Default::default(),
                }
            })
            .collect();
        let mut ways = Ways::none();
        change(&mut ways);
        Setup::new(Policy::default(), ways, "mail.example.org", &jobs)
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn fails(&self, account: usize, cause: Cause) {
        let error = match cause {
            Cause::LoginRefused => {
                RunError::NoMechanism { server: "imap.example.org:993".into(), offered: "nothing".into() }
            }
            Cause::NoAnswer => RunError::Imap(connectord_net::Error::TimedOut {
                peer: "imap.example.org:993".into(),
                during: "receiving the greeting",
                after: Duration::from_secs(60),
                wait: connectord_net::Wait::Silence,
            }),
            Cause::NoCredential => {
                RunError::Credential(CredentialError::Unavailable { text: "no such file".into(), temporary: false })
            }
            Cause::DiskFull => RunError::Spool(std::io::Error::other("no room")),
            other => panic!("no error for {other:?}"),
        };
        assert_eq!(error.trouble().cause, cause);
        self.ends(account, Report { error: Some(error), ..Report::default() });
    }

    pub(crate) fn is_well(&self, account: usize) {
        self.ends(account, Report::default());
    }

    pub(crate) fn ends(&self, account: usize, report: Report) {
        let report = Report { next_check: Some(Duration::from_secs(900)), ..report };
        self.inbox.progress(&format!("a{account}@example.org"), Progress::Finished(&report));
    }

    pub(crate) async fn parked(&self, account: usize) {
        self.parked_as(account, "<1@example.org>").await;
    }

    /// A message with this Message-ID is parked.
    pub(crate) async fn parked_as(&self, account: usize, message_id: &str) {
        let row = self.store.open_account(&format!("a{account}@example.org")).await.unwrap();
        let lease = self.store.lease(row.id).await.unwrap();
        let mailbox = self.store.open_mailbox(&lease, "INBOX", 1).await.unwrap();
        let message = MessageRef { mailbox: mailbox.id, key: Key::Uid(1), generation: 0 };
        let name = MessageName {
            on_server: "1".into(),
            message_id: message_id.into(),
            from: "ann@example.org".into(),
            subject: "hello".into(),
        };
        self.store.park(&lease, message, &name, None, 100, "refused here", self.now()).await.unwrap();
        drop(lease);
        self.ends(account, Report { parked: 1, ..Report::default() });
    }

    /// As a command that checks once does, in a process of its own.
    pub(crate) async fn once(&self, setup: &Setup) {
        self.once_within(setup, Duration::from_secs(60)).await;
    }

    pub(crate) async fn once_within(&self, setup: &Setup, most: Duration) {
        self.desk().await.once(setup, most).await;
    }

    async fn desk(&self) -> Desk {
        Desk::open(Arc::clone(&self.inbox), self.store.clone(), self.clock.clone()).await
    }

    /// As the daemon does.
    pub(crate) fn run(&self, setup: Setup, gather: Duration) -> Running {
        let (stop, stopping) = watch::channel(false);
        let (keep, setup) = watch::channel(Arc::new(setup));
        let (inbox, store, clock) = (Arc::clone(&self.inbox), self.store.clone(), self.clock.clone());
        let task = tokio::spawn(async move {
            let desk = Desk::open(inbox, store, clock).await.with_rhythm(gather, Duration::from_millis(100));
            desk.run(setup, stopping).await;
        });
        Running { stop, task, _keep: keep }
    }

    /// Rows that are remembered.
    pub(crate) async fn remembered(&self) -> usize {
        self.store.notices().await.unwrap().len()
    }

    pub(crate) fn mail(&self, user: &str) -> Vec<String> {
        let Ok(found) = std::fs::read_dir(self.path("mail").join(user).join("new")) else { return Vec::new() };
        found.map(|file| decoded(&std::fs::read_to_string(file.unwrap().path()).unwrap())).collect()
    }
}

/// Waits until it is so; panics after half a minute.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within half a minute: {what}");
}

/// A mail without quoted-printable's line breaks and escapes, as far as these tests look.
fn decoded(mail: &str) -> String {
    mail.replace("=\n", "").replace("=20\n", " \n").replace("=3D", "=")
}

pub(crate) struct Running {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    _keep: watch::Sender<Arc<Setup>>,
}

impl Running {
    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

/// What a web server does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Status(u16),
    /// It takes the connection and says nothing.
    Nothing,
}

/// A web server for HTTP/1.1, one request per connection.
pub(crate) struct Hook {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Hook {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Answer::Status(status) = answer else {
                    held.push(stream);
                    continue;
                };
                let request = request(&mut stream).await;
                seen.lock().unwrap().push(request);
                let text =
                    format!("HTTP/1.1 {status} X\r\nLocation: /else\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        Self { address, requests, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Head and body of one request.
async fn request(stream: &mut tokio::net::TcpStream) -> String {
    let mut octets = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&octets).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return text;
            }
        }
        if stream.read_buf(&mut octets).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}
