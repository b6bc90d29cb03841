//! Delivery by LMTP (RFC 2033), to Dovecot, Cyrus and whoever else speaks it, over a Unix socket or TCP.
//!
//! The server writes Return-Path and Delivered-To; of ours only the parcel's trace fields go in front. A message travels with
//! its line ends as CRLF, every other octet as it is, read in pieces of 64 KiB: its size does not matter to memory.
//!
//! # The two steps
//!
//! [`Delivery::prepare`] sends MAIL FROM and RCPT TO, so that a refused recipient is known before anything is committed,
//! and [`connectord_delivery::Prepared::complete`] sends DATA. In between each transaction of the batch needs a connection
//! of its own; they are kept for the next batch. (The alternative, one connection with its transactions one after the
//! other, would have to ask for the recipients in the second step.) Parcels with the same message, the same fields in
//! front and the same sender share a transaction.
//!
//! Before the final dot nothing can have been delivered. After it, a recipient whose answer fails to come is
//! [`connectord_delivery::Outcome::Unknown`], and so is everything that [`Delivery::recall`] is asked for: an LMTP server cannot be asked.

pub(crate) mod connection;
pub(crate) mod link;
pub(crate) mod refusal;
pub(crate) mod server;
pub(crate) mod transaction;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use connectord_delivery::{BatchLimits, Delivery, Failure, Parcel, Prepared, Presence, RecallRow, Recalled, Recipient};
use connectord_net::Connector;

use connection::{Connection, Settings};
pub use connectord_wire::{Address as LmtpAddress, AddressError as LmtpAddressError};
use link::Bounds;
use server::{MAX_PARCELS, Server};

/// Where the server is and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Where it listens.
    pub address: LmtpAddress,
    /// The name said in LHLO; default `localhost`.
    pub host_name: String,
    /// For a connection; default 20 s.
    pub connect: Duration,
    /// For each answer but those to a message, and for each 64 KiB of a message to be taken; default 60 s.
    pub reply: Duration,
    /// For each answer to a message; default 10 min (RFC 5321 §4.5.3.2.6): whoever gives up earlier delivers twice.
    pub final_reply: Duration,
    /// Most connections at once; default 8, at least 1. Whoever needs one more waits, at most `final_reply`.
    pub connections: usize,
    /// How long an unused connection is kept; default 10 s.
    pub idle: Duration,
    /// How long an answer of [`Delivery::presence`] is remembered; default 60 s.
    pub presence: Duration,
}

impl Options {
    /// Defaults for the server at `address`.
    pub fn new(address: LmtpAddress) -> Self {
        Self {
            address,
            host_name: "localhost".to_owned(),
            connect: Duration::from_secs(20),
            reply: Duration::from_secs(60),
            final_reply: Duration::from_secs(600),
            connections: MAX_PARCELS,
            idle: Duration::from_secs(10),
            presence: Duration::from_secs(60),
        }
    }
}

/// An LMTP server as a destination; clones share its connections.
///
/// ```
/// use connectord_deliveries::lmtp::{Lmtp, Options};
/// use connectord_delivery::Delivery;
/// use connectord_net::Connector;
///
/// let dovecot = Lmtp::new(Options::new("unix:/run/dovecot/lmtp".parse()?), Connector::new());
/// assert_eq!(dovecot.describe(), "lmtp:unix:/run/dovecot/lmtp");
/// # Ok::<(), connectord_deliveries::lmtp::LmtpAddressError>(())
/// ```
#[derive(Clone)]
pub struct Lmtp(Server<Connection>);

impl Lmtp {
    /// A destination; nothing is connected yet.
    pub fn new(options: Options, connector: Connector) -> Self {
        let bounds = Bounds {
            server: format!("LMTP server {}", options.address),
            connections: options.connections,
            wait: options.final_reply,
            idle: options.idle,
        };
        let remember = options.presence;
        Self(Server::new(Settings { options, connector }, bounds, remember))
    }

    /// Whether an LMTP server answers there.
    ///
    /// # Errors
    /// What [`Delivery::prepare`] would say for every parcel.
    pub async fn probe(&self) -> Result<(), Failure> {
        self.0.probe().await
    }
}

#[async_trait]
impl Delivery for Lmtp {
    fn describe(&self) -> String {
        format!("lmtp:{}", self.0.settings().options.address)
    }

    /// At most 8 parcels, and no more than there are connections.
    fn limits(&self) -> BatchLimits {
        self.0.limits()
    }

    /// Asks by `MAIL FROM:<>` and `RCPT TO`; the answer is remembered for a minute.
    async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure> {
        self.0.presence(recipient).await
    }

    /// A recipient whose mailbox was full is asked for again, by RCPT TO, before anything is retrieved.
    async fn room(&self, recipient: &Recipient) -> Result<(), Failure> {
        self.0.room(recipient).await
    }

    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        self.0.prepare(batch).await
    }

    /// [`Recalled::Unknown`] for each: an LMTP server cannot be asked.
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        Server::<Connection>::recall(&rows)
    }
}

impl fmt::Debug for Lmtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lmtp").field("options", &self.0.settings().options).finish_non_exhaustive()
    }
}
