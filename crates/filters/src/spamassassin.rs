//! Spam, by SpamAssassin's spamd and its own protocol, over TCP or a Unix socket.
//!
//! It asks by `SYMBOLS`: the score, the threshold and the names of the rules, in a few hundred octets. `HEADERS` would
//! send the whole header back, changed as spamd's own configuration says; but what marks a message as spam here is the
//! account's policy, the same for every filter, and fields of that name which came with the message are taken out by it.
//! So what `add_header` and `rewrite_header` say in SpamAssassin's configuration has no effect, and a rule's part of the score is
//! not known: [`Symbol::milli_score`] is 0. It teaches nothing (`TELL`), and compresses nothing.
//!
//! # The envelope
//!
//! spamd knows of an envelope only what Received fields say, so the copy that it sees, and only that, begins with one for
//! the host that handed the message to the provider, with HELO, name, address and reverse-path. It is the first one from
//! outside for SpamAssassin, whose SPF and block-list rules are about that one; whatever is below was written by others.
//! It must not be in spamd's `trusted_networks`, which are for the site's own relays. When the client is not known no
//! field is made up.
//!
//! Above that field stand the provider's own findings, one Authentication-Results field for each: there SpamAssassin takes
//! them for an inner host's, and its SPF plugin (4.0) believes them, as does its plugin AuthRes where that is loaded. All
//! others, and Received-SPF, are not in the copy: SpamAssassin may be told to believe them wherever they stand.

mod question;
mod reply;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connectord_filter::{
    Action, Filter, Finding, Health, Kind, Limits, Message, Probe, Symbol, Unchecked, Verdict, Why,
};
use connectord_net::Connector;
use connectord_wire::Address;

use crate::OptionsError;
use crate::gauge::Gauge;
use crate::line::{Question, Server};
use crate::options::{named, sendable};
use crate::pieces::Pieces;
use crate::text::shown;
use crate::until::Until;

pub(crate) use reply::{MAX_REPLY, Reply};

/// Where spamd is, whose rules apply, and how long to wait. [`Options::new`] has the defaults; every field may be changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where it listens (`--listen`, `--socketpath`).
    pub address: Address,
    /// Whose preferences and Bayes database apply; default [`User::Unsaid`].
    pub user: User,
    /// For a connection; default 10 s.
    pub connect: Duration,
    /// For a message from the first octet to the answer; default 120 s. spamd's own `--timeout-child` is 300 s. Never
    /// beyond the message's own deadline.
    pub timeout: Duration,
    /// Most messages at a time; default 4, at least 1. spamd's `--max-children` is 5.
    pub at_once: usize,
    /// Largest message it is given, in octets; default 500 KiB as spamc's own, since a large one costs spamd minutes.
    pub max_octets: Option<u64>,
    /// How connections are made.
    pub connector: Connector,
}

impl Options {
    /// Defaults for the spamd at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            user: User::Unsaid,
            connect: Duration::from_secs(10),
            timeout: Duration::from_secs(120),
            at_once: 4,
            max_octets: Some(500 * 1024),
            connector: Connector::new(),
        }
    }
}

/// Whose preferences spamd is asked to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum User {
    /// It is not told: those of the user it runs as.
    #[default]
    Unsaid,
    /// This user's, for all messages.
    Fixed(String),
    /// The first recipient's, as the destination is told them.
    Recipient,
}

/// The line that every SpamAssassin finds, in two halves so that none finds this program.
const GTUBE: [&str; 2] = ["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"];

/// A spamd.
///
/// ```
/// use connectord_filter::Filter;
/// use connectord_filters::spamassassin::{Options, SpamAssassin};
/// let spamd = SpamAssassin::new("spamassassin".into(), Options::new("127.0.0.1:783".parse()?))?;
/// assert_eq!(spamd.describe(), "spamassassin:127.0.0.1:783");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SpamAssassin {
    name: String,
    server: Server,
    user: User,
    timeout: Duration,
    limits: Limits,
    gauge: Gauge,
}

impl SpamAssassin {
    /// A filter of this name; nothing is connected yet.
    ///
    /// # Errors
    /// When the name or the user is none.
    pub fn new(name: String, options: Options) -> Result<Self, OptionsError> {
        let Options { address, user, connect, timeout, at_once, max_octets, connector } = options;
        if let User::Fixed(user) = &user {
            sendable("the user for spamd", user)?;
        }
        Ok(Self {
            name: named(name)?,
            server: Server { address, tls: None, connect, connector },
            user,
            timeout,
            limits: Limits { at_once: at_once.max(1), max_octets },
            gauge: Gauge::new(at_once),
        })
    }

    async fn judge(
        &self,
        user: Option<&str>,
        front: &[u8],
        message: Pieces,
        until: Until,
    ) -> Result<Finding, Unchecked> {
        let question = Question {
            front: question::symbols(user, front, message.left()),
            message: Some(message),
            chunked: false,
            half_close: true,
        };
        let answer = self.server.ask(question, until, MAX_REPLY).await?;
        let reply = Reply::parse(&answer).map_err(|what| what.of(&self.server.address, &answer))?;
        let Reply::Judged { is_spam, milli_score, milli_required, rules } = reply else {
            let text = format!("{} answered \"{}\"; expected a score", self.server.address, shown(&answer));
            return Err(Unchecked::new(Why::Rubbish, text));
        };
        Ok(Finding {
            action: if is_spam { Action::AddHeader } else { Action::NoAction },
            milli_score: Some(milli_score),
            milli_required: Some(milli_required),
            symbols: rules.into_iter().map(|name| Symbol { name, milli_score: 0 }).collect(),
            ..Finding::default()
        })
    }
}

#[async_trait]
impl Filter for SpamAssassin {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        format!("spamassassin:{}", self.server.address)
    }

    fn kind(&self) -> Kind {
        Kind::Antispam
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn check(&self, message: &Message) -> Verdict {
        let until = Until::new(message.deadline, self.timeout);
        let user = match &self.user {
            User::Unsaid => None,
            User::Fixed(user) => Some(user.as_str()),
            User::Recipient => message.recipients.first().map(String::as_str),
        };
        let user = user.filter(|user| sendable("", user).is_ok());
        let front = question::front(message);
        let peer = self.server.address.to_string();
        self.gauge.check(until, &peer, self.judge(user, &front, Pieces::new(message.as_believed()), until)).await
    }

    /// Asks whether it is there and has it look at GTUBE.
    async fn probe(&self, deadline: Instant) -> Result<Probe, Unchecked> {
        self.ping(deadline).await?;
        let sample = Bytes::from(format!("Subject: GTUBE\r\n\r\n{}\r\n", GTUBE.concat()));
        let until = Until::new(deadline, self.timeout);
        let found = self.judge(None, b"", Pieces::new(Arc::new(sample)), until).await?;
        // It does not tell its version.
        Ok(Probe { version: "spamd".into(), found_test_sample: Some(found.action == Action::AddHeader) })
    }

    async fn ping(&self, deadline: Instant) -> Result<(), Unchecked> {
        let until = Until::new(deadline, self.timeout);
        let answer = self.server.ask(Question::plain(b"PING SPAMC/1.5\r\n\r\n"), until, MAX_REPLY).await?;
        match Reply::parse(&answer).map_err(|what| what.of(&self.server.address, &answer))? {
            Reply::Pong => Ok(()),
            Reply::Judged { .. } => {
                let text = format!("{} answered PING with \"{}\"", self.server.address, shown(&answer));
                Err(Unchecked::new(Why::Rubbish, text))
            }
        }
    }

    fn health(&self) -> Health {
        self.gauge.health()
    }
}
