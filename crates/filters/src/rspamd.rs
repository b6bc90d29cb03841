//! Spam and all else that Rspamd's modules find, over its HTTP API (`/checkv2`): TCP, TLS or a Unix socket.
//!
//! It does not sign, does not speak Rspamd's own encryption (HTTPCrypt) and does not send what it was not told: a client
//! that is not known is not sent as 127.0.0.1, which Rspamd trusts, but not at all; and where nobody looked up the client's
//! name Rspamd is asked not to hold it against the message that there is none. Nothing is learned by a check; [`Controller`] teaches when a person says so.
//!
//! | of the envelope | request header |
//! |---|---|
//! | client's address, HELO, confirmed name | `IP`, `Helo`, `Hostname` |
//! | TLS version and cipher of the hand-off | `TLS-Version`, `TLS-Cipher` |
//! | reverse-path, recipients, the account | `From`, `Rcpt` (each), `Deliver-To` |
//! | our identity of the message, our host name | `Queue-Id`, `MTA-Name` |
//!
//! Of the message's Authentication-Results only the provider's own are sent, so that a rule of the site may believe what it
//! sees; Rspamd itself (3.4) makes words for its Bayes classifier of them, and nothing else. Received-SPF is not sent.
//!
//! `User` is left out: Rspamd takes a message with one for an authenticated user's own.
//!
//! Of the answer are taken the action, score and threshold, at most 200 symbols, the new subject, the text for the
//! sender, and header fields to add and to take out (`milter`). An action that the site defined itself counts by its
//! score; `discard` and `quarantine` count as `reject`, as the account's policy decides what that leads to.

mod answer;
mod controller;
mod options;
mod request;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use connectord_filter::{Action, Filter, Finding, Health, Kind, Limits, Message, Probe, Unchecked, Verdict, Why};

use crate::OptionsError;
use crate::gauge::Gauge;
use crate::http::{Answer, Client, Outgoing};
use crate::line::Server;
use crate::options::named;
use crate::pieces::Pieces;
use crate::text::shown;
use crate::until::Until;

pub(crate) use answer::parse;
pub use controller::{Controller, Learn, Learned};
pub use options::{ControllerOptions, Options};
use request::Sender;

/// The line that every antispam filter finds, in two halves so that none finds this program.
const GTUBE: [&str; 2] = ["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"];

/// An Rspamd.
///
/// ```
/// use connectord_filter::Filter;
/// use connectord_filters::rspamd::{Options, Rspamd};
/// let rspamd = Rspamd::new("rspamd".into(), Options::new("unix:/run/rspamd/worker.sock".parse()?))?;
/// assert_eq!(rspamd.describe(), "rspamd:unix:/run/rspamd/worker.sock");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rspamd {
    name: String,
    client: Client,
    sender: Sender,
    timeout: Duration,
    limits: Limits,
    gauge: Gauge,
}

impl Rspamd {
    /// A filter of this name; nothing is connected yet.
    ///
    /// # Errors
    /// When the name is none, a text cannot be sent, or TLS is wanted over a Unix socket.
    pub fn new(name: String, options: Options) -> Result<Self, OptionsError> {
        let name = named(name)?;
        let sender = Sender::new(options.password, options.settings_id, options.host_name)?;
        let server = server(options.address, options.tls, options.connect, options.connector)?;
        let at_once = options.at_once.clamp(1, 1024);
        Ok(Self {
            name,
            client: Client::new(server, at_once, options.max_answer),
            sender,
            timeout: options.timeout,
            limits: Limits { at_once, max_octets: options.max_octets },
            gauge: Gauge::new(at_once),
        })
    }

    async fn ask(&self, message: &Message, until: Until) -> Result<Finding, Unchecked> {
        let make = || self.sender.check(&self.client.host(), message);
        self.found(self.client.ask(make, until).await?)
    }

    fn found(&self, answer: Answer) -> Result<Finding, Unchecked> {
        let name = self.client.name();
        if !answer.status.is_success() {
            return Err(refused(&name, "port 11333 is its normal worker's", &answer));
        }
        parse(&answer.octets).map_err(|what| {
            let text = format!("{name} answered \"{}\": {what}", shown(&answer.octets));
            Unchecked::new(Why::Rubbish, text)
        })
    }
}

/// How a worker or controller is reached.
fn server(
    address: connectord_wire::Address,
    tls: Option<connectord_net::TlsSettings>,
    connect: Duration,
    connector: connectord_net::Connector,
) -> Result<Server, OptionsError> {
    if tls.is_some() && !matches!(address, connectord_wire::Address::Tcp(_)) {
        return Err(OptionsError(format!("no TLS over {address}: expected host:port")));
    }
    Ok(Server { address, tls, connect, connector })
}

/// What an answer that is no success means; `port` says where the right one would be.
fn refused(name: &str, port: &str, answer: &Answer) -> Unchecked {
    let said = answer::error(&answer.octets).unwrap_or_else(|| answer.reason.clone());
    let status = answer.status.as_u16();
    let text = format!("{name} answered {status} \"{said}\"");
    match status {
        401 | 403 => Unchecked::new(Why::Misconfigured, format!("{text}; its password is another one")),
        404 | 405 => Unchecked::new(Why::Misconfigured, format!("{text}; {port}")),
        413 => Unchecked::new(Why::TooLarge, text),
        429 | 502..=504 => Unchecked::new(Why::Unavailable, text),
        400.. => Unchecked::new(Why::Failed, text),
        _ => Unchecked::new(Why::Rubbish, text),
    }
}

#[async_trait]
impl Filter for Rspamd {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        format!("rspamd:{}", self.client.name())
    }

    /// Rspamd may ask an antivirus, too, but what it finds there is a symbol with a score.
    fn kind(&self) -> Kind {
        Kind::Antispam
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn check(&self, message: &Message) -> Verdict {
        let until = Until::new(message.deadline, self.timeout);
        self.gauge.check(until, &self.client.name(), self.ask(message, until)).await
    }

    /// Has it look at GTUBE.
    async fn probe(&self, deadline: Instant) -> Result<Probe, Unchecked> {
        let until = Until::new(deadline, self.timeout);
        let sample = Bytes::from(format!("Subject: GTUBE\r\n\r\n{}\r\n", GTUBE.concat()));
        let make = || {
            let body = Outgoing::message(Pieces::new(Arc::new(sample.clone())));
            self.sender.post("/checkv2", &self.client.host(), body)
        };
        let answer = self.client.ask(make, until).await?;
        let version = answer.server.clone();
        let found = self.found(answer)?;
        Ok(Probe { version, found_test_sample: Some(found.action == Action::Reject) })
    }

    async fn ping(&self, deadline: Instant) -> Result<(), Unchecked> {
        let until = Until::new(deadline, self.timeout);
        let answer = self.client.ask(|| self.sender.get("/ping", &self.client.host()), until).await?;
        if answer.status.is_success() && answer.octets.trim_ascii() == b"pong" {
            return Ok(());
        }
        let (name, status) = (self.client.name(), answer.status.as_u16());
        let text = format!("{name} answered /ping with {status} \"{}\", not with pong", shown(&answer.octets));
        Err(Unchecked::new(Why::Rubbish, text))
    }

    fn health(&self) -> Health {
        self.gauge.health()
    }
}
