//! A site with a real SQLite state and a real Maildir, for accounts at small servers in this process.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod wrappers;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connectord_account::{Account, Protocol};
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{Delivery, Failure, Presence, Recipient};
use connectord_engine::{Board, Clock, Filters, Job, Logins, Mode, Observer, Quiet, Report, Site, Spool, Users, run};
use connectord_filter::Policy;
use connectord_mail::{Relays, UnixTime};
use connectord_net::{Connector, Route};
use connectord_sasl::{Credential, StaticCredentials};
use connectord_store::Store;
use connectord_stores::sqlite::{self, SqliteStore};
use connectord_testkit::servers::{ImapServer, Mailbox, Pop3Server, Server, ServerOptions};
use connectord_wire::{Endpoint, Security};
use tempfile::TempDir;
use tokio::sync::watch;

pub(crate) const BOTH: [Protocol; 2] = [Protocol::Pop3, Protocol::Imap];

/// A small server that speaks either protocol.
pub(crate) enum Any {
    Pop3(Pop3Server),
    Imap(ImapServer),
}

impl Any {
    /// For `ann`, whose password is `secret`.
    pub(crate) fn start(protocol: Protocol) -> Self {
        let options = ServerOptions::new().user("ann", "secret");
        match protocol {
            Protocol::Pop3 => Self::Pop3(Pop3Server::start(options)),
            Protocol::Imap => Self::Imap(ImapServer::start(options)),
        }
    }

    pub(crate) fn with(protocol: Protocol, mail: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let server = Self::start(protocol);
        for message in mail {
            server.inbox().add(message);
        }
        server
    }

    pub(crate) fn inbox(&self) -> Mailbox {
        self.mailbox("ann")
    }
}

impl Deref for Any {
    type Target = Server;

    fn deref(&self) -> &Server {
        match self {
            Self::Pop3(server) => server,
            Self::Imap(server) => server,
        }
    }
}

/// Everything one installation has, below one directory.
pub(crate) struct Installation {
    pub(crate) directory: TempDir,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) site: Arc<Site>,
    /// Seconds that the clock is ahead of the system's.
    pub(crate) ahead: Arc<AtomicI64>,
    pub(crate) stop: watch::Sender<bool>,
}

pub(crate) struct Everybody;

#[async_trait]
impl Users for Everybody {
    async fn presence(&self, _user: &str) -> Result<Option<Presence>, Failure> {
        Ok(None)
    }
}

impl Installation {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("mail")).unwrap();
        Self::in_directory(directory)
    }

    /// The same installation after a restart of the program.
    pub(crate) async fn restarted(self) -> Self {
        self.store.close().await;
        let Self { directory, store, site, .. } = self;
        drop((store, site));
        Self::in_directory(directory)
    }

    fn in_directory(directory: TempDir) -> Self {
        let store = Arc::new(SqliteStore::open(directory.path().join("state"), sqlite::Options::default()).unwrap());
        let ahead = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&ahead);
        let site = Site {
            store: store.clone(),
            connector: Connector::new(),
            spool: Spool::new(directory.path().into(), 64 << 20),
            hostname: "test".into(),
            clock: Clock::from_fn(move || UnixTime(Clock::system().now().0 + clock.load(Ordering::Relaxed))),
            logins: Logins::default(),
            users: Arc::new(Everybody),
            observer: Arc::new(Quiet),
            filters: Filters::none(),
            board: Board::default(),
            trail: Arc::new(connectord_store::NoTrail),
        };
        Self { directory, store, site: Arc::new(site), ahead, stop: watch::channel(false).0 }
    }

    /// The same site over another store or with another observer.
    pub(crate) fn site_with(&self, store: Arc<dyn Store>, observer: Arc<dyn Observer>) -> Arc<Site> {
        Arc::new(Site {
            store,
            connector: Connector::new(),
            spool: Spool::new(self.directory.path().into(), 64 << 20),
            hostname: "test".into(),
            clock: self.site.clock.clone(),
            logins: Logins::default(),
            users: Arc::new(Everybody),
            observer,
            filters: Filters::none(),
            board: Board::default(),
            trail: Arc::new(connectord_store::NoTrail),
        })
    }

    /// Every message of `ann` by the token in it, and how often it is there.
    pub(crate) fn tokens(&self, user: &str) -> BTreeMap<String, usize> {
        let mut tokens = BTreeMap::new();
        for file in self.files(user) {
            let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
            let token = text.split("token-").nth(1).map(|rest| rest.split_whitespace().next().unwrap_or_default());
            *tokens.entry(token.unwrap_or_default().to_owned()).or_default() += 1;
        }
        tokens
    }

    pub(crate) fn maildir(&self) -> Arc<dyn Delivery> {
        let path = self.directory.path().join("mail/{user}").display().to_string().parse().unwrap();
        Arc::new(Maildir::new(Options::new(path, self.store.instance())))
    }

    /// An account of user `ann` with the password `secret`, in clear, into the Maildir of `ann`.
    pub(crate) fn job(&self, protocol: Protocol, port: u16, change: impl FnOnce(&mut Account)) -> Job {
        self.job_to(self.maildir(), protocol, port, change)
    }

    pub(crate) fn job_to(
        &self,
        delivery: Arc<dyn Delivery>,
        protocol: Protocol,
        port: u16,
        change: impl FnOnce(&mut Account),
    ) -> Job {
        let endpoint = Endpoint::new("127.0.0.1", port).unwrap();
        let mut account = Account::new("ann@example.org", protocol, endpoint.clone(), "ann");
        account.security = Security::None;
        change(&mut account);
        let mut route = Route::new(endpoint, account.security);
        route.timeouts.silence = Duration::from_secs(60);
        Job {
            route,
            credentials: Arc::new(StaticCredentials::new(Credential::password("ann", "secret"))),
            destination: "default".into(),
            delivery,
            recipients: account
                .deliver_to
                .iter()
                .map(|user| Recipient { user: user.clone(), address: user.clone() })
                .collect(),
            account: Arc::new(account),
            ambiguous: connectord_engine::Ambiguous::default(),
            policy: Policy::default(),
            relays: Relays::default(),
        }
    }

    pub(crate) async fn run(&self, job: &Job) -> Report {
        run(&self.site, job, Mode::default(), self.stop.subscribe()).await
    }

    /// A check that must go well.
    pub(crate) async fn run_well(&self, job: &Job) -> Report {
        let report = self.run(job).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        report
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The messages in `new/` and `cur/` of a user, without the fields that were put in front, sorted.
    pub(crate) fn mail(&self, user: &str) -> Vec<Vec<u8>> {
        let mut mail: Vec<_> =
            self.files(user).iter().map(|file| without_ours(&std::fs::read(file).unwrap())).collect();
        mail.sort();
        mail
    }

    pub(crate) fn files(&self, user: &str) -> Vec<PathBuf> {
        let maildir = self.directory.path().join("mail").join(user);
        let files = |sub: &str| -> Vec<PathBuf> {
            let Ok(found) = std::fs::read_dir(maildir.join(sub)) else { return Vec::new() };
            found.map(|entry| entry.unwrap().path()).collect()
        };
        [files("new"), files("cur")].concat()
    }

    pub(crate) fn leftovers(&self, user: &str) -> usize {
        std::fs::read_dir(self.directory.path().join("mail").join(user).join("tmp")).map_or(0, Iterator::count)
    }
}

/// What the server had: everything behind our own last field.
fn without_ours(message: &[u8]) -> Vec<u8> {
    let mut rest = message;
    loop {
        let end = rest.iter().position(|octet| *octet == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        let ours = [&b"Return-Path: "[..], b"Delivered-To: ", b"Received: from 127.0.0.1", b"\t", b"X-Connectord-"];
        if line.is_empty() || !ours.iter().any(|field| line.starts_with(field)) {
            return rest.to_vec();
        }
        rest = after;
        if line.starts_with(b"X-Connectord-Account") {
            let attempt = rest.starts_with(b"X-Connectord-Attempt");
            let end = rest.iter().position(|octet| *octet == b'\n').map_or(rest.len(), |at| at + 1);
            return rest[if attempt { end } else { 0 }..].to_vec();
        }
    }
}

/// Line ends as a Maildir has them.
pub(crate) fn with_lf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    for (at, octet) in octets.iter().enumerate() {
        if !(*octet == b'\r' && octets.get(at + 1) == Some(&b'\n')) {
            out.push(*octet);
        }
    }
    out
}

pub(crate) fn sorted(mut mail: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    mail.sort();
    mail
}

pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}

/// Messages with a token each, `token-0` and so on.
pub(crate) fn token_mail(count: usize) -> Vec<Vec<u8>> {
    let message = |n: usize| {
        format!(
            "Message-ID: <{n}@example.org>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nSubject: {n}\r\n\r\ntoken-{n} \r\n"
        )
    };
    (0..count).map(|n| message(n).into_bytes()).collect()
}

/// Each token once.
pub(crate) fn once(count: usize) -> BTreeMap<String, usize> {
    (0..count).map(|n| (n.to_string(), 1)).collect()
}
