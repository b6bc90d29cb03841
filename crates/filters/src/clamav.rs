//! Viruses, by clamd's own protocol (`INSTREAM`), over TCP or a Unix socket.
//!
//! It takes no connection into a session (`IDSESSION`): each message has one of its own, so that a message that makes
//! clamd stumble stumbles alone. It does not unpack, does not fetch signatures, and sends clamd no path: clamd may be on
//! another machine and under another user.
//!
//! | clamd says | it means |
//! |---|---|
//! | `stream: OK` | nothing found |
//! | `stream: … FOUND` | infected, one name per line |
//! | `stream: Heuristics.Limits.Exceeded… FOUND` alone | [`Why::TooLarge`]: it did not look to the end (`AlertExceedsMax`) |
//! | `INSTREAM size limit exceeded. ERROR` | [`Why::TooLarge`] (`StreamMaxLength`) |
//! | `… ERROR` about memory, files or its start | [`Why::Unavailable`] |
//! | `… ERROR` otherwise | [`Why::Failed`] |

mod reply;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connectord_filter::{Action, Filter, Finding, Health, Kind, Limits, Message, Probe, Unchecked, Verdict, Why};
use connectord_net::Connector;
use connectord_wire::Address;

use crate::OptionsError;
use crate::gauge::Gauge;
use crate::line::{Question, Server};
use crate::options::named;
use crate::pieces::Pieces;
use crate::text::shown;
use crate::until::Until;

pub(crate) use reply::{MAX_REPLY, Reply};

/// Where clamd is and how long to wait for it. [`Options::new`] has the defaults; every field may be changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where it listens (`LocalSocket`, `TCPSocket`).
    pub address: Address,
    /// For a connection; default 10 s.
    pub connect: Duration,
    /// For a message from the first octet to the answer; default 120 s, which is clamd's own `MaxScanTime`. Never beyond
    /// the message's own deadline.
    pub timeout: Duration,
    /// Most messages at a time; default 8, at least 1. clamd's `MaxThreads` is 10.
    pub at_once: usize,
    /// Largest message it is given, in octets; default 25 MiB, the smallest `StreamMaxLength` that any clamd has by
    /// default. A larger one is not looked at.
    pub max_octets: Option<u64>,
    /// How connections are made.
    pub connector: Connector,
}

impl Options {
    /// Defaults for the clamd at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            connect: Duration::from_secs(10),
            timeout: Duration::from_secs(120),
            at_once: 8,
            max_octets: Some(25 << 20),
            connector: Connector::new(),
        }
    }
}

/// The file that every scanner finds (<https://www.eicar.org>), in two halves so that none finds this program.
const EICAR: [&str; 2] = [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-", r"ANTIVIRUS-TEST-FILE!$H+H*"];

/// A clamd.
///
/// ```
/// use connectord_filter::Filter;
/// use connectord_filters::clamav::{Clamav, Options};
/// let clamav = Clamav::new("clamav".into(), Options::new("unix:/run/clamav/clamd.ctl".parse()?))?;
/// assert_eq!(clamav.describe(), "clamav:unix:/run/clamav/clamd.ctl");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Clamav {
    name: String,
    server: Server,
    timeout: Duration,
    limits: Limits,
    gauge: Gauge,
}

impl Clamav {
    /// A filter of this name; nothing is connected yet.
    ///
    /// # Errors
    /// When the name is none.
    pub fn new(name: String, options: Options) -> Result<Self, OptionsError> {
        let Options { address, connect, timeout, at_once, max_octets, connector } = options;
        Ok(Self {
            name: named(name)?,
            server: Server { address, tls: None, connect, connector },
            timeout,
            limits: Limits { at_once: at_once.max(1), max_octets },
            gauge: Gauge::new(at_once),
        })
    }

    async fn scan(&self, message: Pieces, until: Until) -> Result<Finding, Unchecked> {
        let question =
            Question { front: b"zINSTREAM\0".to_vec(), message: Some(message), chunked: true, half_close: false };
        let answer = self.server.ask(question, until, MAX_REPLY).await?;
        let peer = &self.server.address;
        match Reply::parse(&answer).map_err(|what| what.of(peer, &answer))? {
            Reply::Clean => Ok(Finding::default()),
            Reply::Infected(viruses) => Ok(Finding { action: Action::Reject, viruses, ..Finding::default() }),
            Reply::Failed { why, text } => Err(Unchecked::new(why, format!("{peer} answered \"{text}\""))),
        }
    }

    async fn say(&self, command: &str, until: Until) -> Result<String, Unchecked> {
        let answer = self.server.ask(Question::plain(format!("z{command}\0").as_bytes()), until, MAX_REPLY).await?;
        Ok(shown(answer.strip_suffix(b"\0").unwrap_or(&answer)))
    }
}

#[async_trait]
impl Filter for Clamav {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        format!("clamav:{}", self.server.address)
    }

    fn kind(&self) -> Kind {
        Kind::Antivirus
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn check(&self, message: &Message) -> Verdict {
        let until = Until::new(message.deadline, self.timeout);
        let peer = self.server.address.to_string();
        self.gauge.check(until, &peer, self.scan(Pieces::new(message.body.clone()), until)).await
    }

    /// Asks for its version and has it look at EICAR.
    async fn probe(&self, deadline: Instant) -> Result<Probe, Unchecked> {
        let until = Until::new(deadline, self.timeout);
        let version = self.say("VERSION", until).await?;
        let sample = Bytes::from(EICAR.concat());
        let found = self.scan(Pieces::new(std::sync::Arc::new(sample)), until).await?;
        Ok(Probe { version, found_test_sample: Some(!found.viruses.is_empty()) })
    }

    async fn ping(&self, deadline: Instant) -> Result<(), Unchecked> {
        let answer = self.say("PING", Until::new(deadline, self.timeout)).await?;
        if answer == "PONG" {
            return Ok(());
        }
        let text = format!("{} answered PING with \"{answer}\", not with PONG", self.server.address);
        Err(Unchecked::new(Why::Rubbish, text))
    }

    fn health(&self) -> Health {
        self.gauge.health()
    }
}
