//! Scripted filters and a quarantine in memory, for sites that cost next to nothing.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_account::{Account, Retention};
use connectord_engine::Filters;
use connectord_filter::{
    Action, Chain, Filter, Finding, Held, HeldFor, Kind, Limits, Message, Probe, Quarantine, QuarantineError, Ruling,
    Unchecked, Verdict, Why,
};
use connectord_mail::{Body, DeliveryId};
use tokio::sync::{Notify, watch};

use crate::light::Light;

/// How many messages a [`Judge`] bears at once.
pub(crate) const AT_ONCE: usize = 3;

pub(crate) fn removing(account: &mut Account) {
    account.retention = Retention::Immediately;
}

/// An installation with these filters and this quarantine.
pub(crate) fn with_filters(mut here: Light, judges: Vec<Arc<Judge>>, shelf: Arc<Shelf>) -> Light {
    let filters = judges.into_iter().map(|judge| judge as Arc<dyn Filter>).collect();
    let site = Arc::get_mut(&mut here.site).unwrap();
    site.filters = Filters::new(Chain { filters }, Some(shelf));
    here
}

pub(crate) fn clean() -> Verdict {
    Verdict::Found(Finding::default())
}

pub(crate) fn infected() -> Verdict {
    Verdict::Found(Finding { viruses: vec!["Eicar".into()], ..Finding::default() })
}

pub(crate) fn ruled(ruling: Ruling) -> Verdict {
    Verdict::Found(Finding { ruling: Some(ruling), ..Finding::default() })
}

fn recommends(action: Action) -> Verdict {
    Verdict::Found(Finding { action, milli_score: Some(7_000), ..Finding::default() })
}

pub(crate) fn spam() -> Verdict {
    recommends(Action::AddHeader)
}

pub(crate) fn reject() -> Verdict {
    recommends(Action::Reject)
}

pub(crate) fn soft_reject() -> Verdict {
    recommends(Action::SoftReject)
}

pub(crate) fn trouble(why: Why, text: &str) -> Verdict {
    Verdict::Unchecked(Unchecked::new(why, text))
}

/// What a filter says of a message with this token.
pub(crate) type Verdicts = Box<dyn Fn(&str) -> Verdict + Send + Sync>;

/// A filter that says what a test wants, and dies, hangs and comes back when it wants so.
pub(crate) struct Judge {
    kind: Kind,
    verdicts: Verdicts,
    /// Messages that it looks at before it dies; less than none: it is dead.
    left: AtomicI64,
    /// Tokens that it hangs on, `""` for all; and until when.
    hangs: Mutex<BTreeSet<String>>,
    goes_on: watch::Sender<bool>,
    pub(crate) fails_once: AtomicBool,
    pub(crate) slow: AtomicBool,
    /// What it says of its own sample.
    pub(crate) sample: Mutex<Result<Option<bool>, Why>>,
    pub(crate) asked: AtomicUsize,
    found: AtomicUsize,
    at_once: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
    pub(crate) seen: Mutex<Vec<Message>>,
    /// Tokens of messages that it was given.
    pub(crate) met: Mutex<BTreeSet<String>>,
}

impl Judge {
    pub(crate) fn new(kind: Kind, verdicts: impl Fn(&str) -> Verdict + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            kind,
            verdicts: Box::new(verdicts),
            left: AtomicI64::new(i64::MAX),
            hangs: Mutex::default(),
            goes_on: watch::channel(true).0,
            fails_once: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            sample: Mutex::new(Ok(None)),
            asked: AtomicUsize::new(0),
            found: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            seen: Mutex::default(),
            met: Mutex::default(),
        })
    }

    pub(crate) fn dies_after(&self, messages: i64) {
        self.left.store(messages, Ordering::SeqCst);
    }

    pub(crate) fn lives(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }

    pub(crate) fn hangs_on(&self, token: &str) {
        self.goes_on.send_replace(false);
        self.hangs.lock().unwrap().insert(token.to_owned());
    }

    pub(crate) fn goes_on(&self) {
        self.hangs.lock().unwrap().clear();
        self.goes_on.send_replace(true);
    }

    /// Messages that it looked at.
    pub(crate) fn found(&self) -> usize {
        self.found.load(Ordering::SeqCst)
    }
}

fn gone() -> Unchecked {
    Unchecked::new(Why::Unavailable, "connection refused")
}

#[async_trait]
impl Filter for Judge {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Antispam => "antispam",
            Kind::Antivirus => "antivirus",
            Kind::Both => "both",
            Kind::Rules => "rules",
        }
    }

    fn describe(&self) -> String {
        format!("test:{}", self.name())
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn limits(&self) -> Limits {
        Limits { at_once: AT_ONCE, ..Limits::default() }
    }

    async fn check(&self, message: &Message) -> Verdict {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        let token = token(&text(&*message.body));
        self.met.lock().unwrap().insert(token.clone());
        self.seen.lock().unwrap().push(Message { body: Arc::new(bytes::Bytes::new()), ..message.clone() });
        let hangs = {
            let hangs = self.hangs.lock().unwrap();
            hangs.contains(&token) || hangs.contains("")
        };
        if hangs {
            self.goes_on.subscribe().wait_for(|goes_on| *goes_on).await.unwrap();
        }
        if self.slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        if self.fails_once.swap(false, Ordering::SeqCst) {
            return trouble(Why::Failed, "the connection was closed");
        }
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Verdict::Unchecked(gone());
        }
        self.found.fetch_add(1, Ordering::SeqCst);
        (self.verdicts)(&token)
    }

    async fn probe(&self, _: Instant) -> Result<Probe, Unchecked> {
        let found = *self.sample.lock().unwrap();
        let trouble = |why| Unchecked::new(why, "no answer in time");
        found.map(|found| Probe { version: "test".into(), found_test_sample: found }).map_err(trouble)
    }

    async fn ping(&self, _: Instant) -> Result<(), Unchecked> {
        if self.left.load(Ordering::SeqCst) <= 0 { Err(gone()) } else { Ok(()) }
    }
}

pub(crate) fn text(body: &dyn Body) -> String {
    let mut octets = vec![0; usize::try_from(body.size_octets()).unwrap().min(100_000)];
    let mut at = 0;
    while at < octets.len() {
        at += body.read_at(at as u64, &mut octets[at..]).unwrap();
    }
    String::from_utf8_lossy(&octets).into_owned()
}

pub(crate) fn token(text: &str) -> String {
    text.split("token-").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default().to_owned()
}

/// A message on the shelf.
#[derive(Clone, Debug)]
pub(crate) struct Shelved {
    pub(crate) id: DeliveryId,
    pub(crate) recipients: Vec<HeldFor>,
    pub(crate) destination: String,
    pub(crate) reason: String,
    pub(crate) spam: bool,
    pub(crate) text: String,
}

/// A quarantine in memory.
#[derive(Default)]
pub(crate) struct Shelf {
    held: Mutex<BTreeMap<DeliveryId, Shelved>>,
    kept: AtomicUsize,
    pub(crate) full: AtomicBool,
    pub(crate) silent: AtomicBool,
    /// It fails, once that is so.
    pub(crate) fails_when: Mutex<Option<Box<dyn Fn() -> bool + Send + Sync>>>,
    /// How often somebody tried to keep something.
    pub(crate) tried: AtomicUsize,
    /// Whoever keeps the next message is killed there: before it is on the shelf, or when it is.
    pub(crate) kills: Mutex<Option<Kill>>,
    pub(crate) died: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    Before,
    After,
}

impl Shelf {
    async fn die(&self) {
        self.died.notify_one();
        std::future::pending::<()>().await;
    }

    /// The tokens of what is held, sorted.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> = self.held.lock().unwrap().values().map(|held| token(&held.text)).collect();
        tokens.sort();
        tokens
    }

    pub(crate) fn held(&self, wanted: &str) -> Shelved {
        self.held.lock().unwrap().values().find(|held| token(&held.text) == wanted).unwrap().clone()
    }

    /// How often something was kept.
    pub(crate) fn kept(&self) -> usize {
        self.kept.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Quarantine for Shelf {
    async fn keep(&self, held: Held) -> Result<(), QuarantineError> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        let fails = || self.fails_when.lock().unwrap().as_ref().map(|is_so| is_so());
        while let Some(is_so) = fails() {
            if is_so {
                return Err(QuarantineError::Failed("no answer from the disk".into()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(QuarantineError::Full("no room".into()));
        }
        let kill = self.kills.lock().unwrap().take();
        if kill == Some(Kill::Before) {
            self.die().await;
        }
        self.kept.fetch_add(1, Ordering::SeqCst);
        let Held { id, recipients, destination, reason, spam, .. } = held;
        let shelved = Shelved { id, recipients, destination, reason, spam, text: text(&*held.body) };
        self.held.lock().unwrap().insert(id, shelved);
        if kill == Some(Kill::After) {
            self.die().await;
        }
        Ok(())
    }

    async fn holds(&self, id: DeliveryId) -> Result<bool, QuarantineError> {
        if self.silent.load(Ordering::SeqCst) {
            return Err(QuarantineError::Failed("the disk does not answer".into()));
        }
        Ok(self.held.lock().unwrap().contains_key(&id))
    }
}
