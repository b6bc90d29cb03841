//! Installations that cost next to nothing: the state in memory, Maildirs by the real code on a simulated disk.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connectord_account::{Account, Protocol};
use connectord_deliveries::maildir::simdisk::SimDisk;
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{Delivery, Failure, Presence, Recipient};
use connectord_engine::{Board, Clock, Filters, Job, Logins, Mode, Observer, Quiet, Report, Site, Spool, Users, run};
use connectord_filter::Policy;
use connectord_mail::{Relays, UnixTime};
use connectord_net::{Connector, Route};
use connectord_sasl::{Credential, StaticCredentials};
use connectord_store::Store;
use connectord_store::memory::MemoryStore;
use connectord_wire::{Endpoint, Security};
use tokio::sync::watch;

/// A state, a disk with `/mail`, and a clock.
pub(crate) struct Light {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) disk: SimDisk,
    pub(crate) site: Arc<Site>,
    /// Seconds that the clock is ahead of the system's.
    ahead: Arc<AtomicI64>,
    pub(crate) stop: watch::Sender<bool>,
}

struct Everybody;

#[async_trait]
impl Users for Everybody {
    async fn presence(&self, _user: &str) -> Result<Option<Presence>, Failure> {
        Ok(None)
    }
}

impl Light {
    pub(crate) fn new() -> Self {
        Self::with(Connector::new(), Arc::new(Quiet))
    }

    pub(crate) fn with(connector: Connector, observer: Arc<dyn Observer>) -> Self {
        let (store, disk) = (Arc::new(MemoryStore::new()), SimDisk::default());
        disk.make_dirs("/mail");
        let ahead = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&ahead);
        let site = Site {
            store: store.clone(),
            connector,
            // No message of these tests is large enough to go there.
            spool: Spool::new("/nonexistent".into(), 64 << 20),
            hostname: "test".into(),
            clock: Clock::from_fn(move || UnixTime(Clock::system().now().0 + clock.load(Ordering::Relaxed))),
            logins: Logins::default(),
            users: Arc::new(Everybody),
            observer,
            filters: Filters::none(),
            board: Board::default(),
            trail: Arc::new(connectord_store::NoTrail),
        };
        Self { store, disk, site: Arc::new(site), ahead, stop: watch::channel(false).0 }
    }

    /// The same site over another store.
    pub(crate) fn site_with(&self, store: Arc<dyn Store>) -> Arc<Site> {
        Arc::new(Site {
            store,
            connector: Connector::new(),
            spool: Spool::new("/nonexistent".into(), 64 << 20),
            hostname: "test".into(),
            clock: self.site.clock.clone(),
            logins: Logins::default(),
            users: Arc::new(Everybody),
            observer: Arc::new(Quiet),
            filters: self.site.filters.clone(),
            board: Board::default(),
            trail: Arc::new(connectord_store::NoTrail),
        })
    }

    pub(crate) fn maildir(&self) -> Arc<dyn Delivery> {
        let mut options = Options::new("/mail/{user}".parse().unwrap(), "light");
        options.disk = Arc::new(self.disk.clone());
        Arc::new(Maildir::new(options))
    }

    /// An account of the user `ann` with the password `secret`, in clear, into the Maildir of `ann`.
    pub(crate) fn job(&self, protocol: Protocol, port: u16, change: impl FnOnce(&mut Account)) -> Job {
        let endpoint = Endpoint::new("127.0.0.1", port).unwrap();
        let mut account = Account::new("ann@example.org", protocol, endpoint, "ann");
        (account.security, account.username) = (Security::None, "ann".into());
        change(&mut account);
        let mut route = Route::new(account.endpoint.clone(), account.security);
        route.timeouts.silence = Duration::from_secs(20);
        let recipient = |user: &String| Recipient { user: user.clone(), address: user.clone() };
        Job {
            route,
            credentials: Arc::new(StaticCredentials::new(Credential::password(&account.username, "secret"))),
            destination: "default".into(),
            delivery: self.maildir(),
            recipients: account.deliver_to.iter().map(recipient).collect(),
            ambiguous: connectord_engine::Ambiguous::default(),
            policy: Policy::default(),
            relays: Relays::default(),
            account: Arc::new(account),
        }
    }

    pub(crate) async fn run(&self, job: &Job) -> Report {
        run(&self.site, job, Mode::default(), self.stop.subscribe()).await
    }

    /// As [`Self::run`], by a process that knows only what is in the state.
    pub(crate) async fn another_process(&self, job: &Job) -> Report {
        run(&self.site_with(self.store.clone()), job, Mode::default(), self.stop.subscribe()).await
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }

    /// How often each token is in `new/` of a user; the readers of these tests never look.
    pub(crate) fn tokens(&self, user: &str) -> BTreeMap<String, usize> {
        let mut tokens = BTreeMap::new();
        for octets in self.disk.files(&format!("/mail/{user}/new")).values() {
            let text = String::from_utf8_lossy(octets);
            let token = text.split("token-").nth(1).and_then(|rest| rest.split_whitespace().next());
            *tokens.entry(token.unwrap_or_default().to_owned()).or_default() += 1;
        }
        tokens
    }

    pub(crate) fn leftovers(&self, user: &str) -> usize {
        self.disk.files(&format!("/mail/{user}/tmp")).len()
    }
}

/// Waits until it is so.
///
/// # Panics
/// When it is not so within a minute, which is long on any machine.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within a minute: {what}");
}
