//! Delivery by SMTP (RFC 5321), to a mail server of one's own or to a provider's submission service; the protocol is
//! lettre's, the connection with its TLS, proxy and waits is ours.
//!
//! The message travels with its line ends as CRLF, every other octet as it is, read in pieces of 64 KiB: its size does not
//! matter to memory. An 8-bit message goes also to a server without 8BITMIME: no server of this century minds, and
//! rewriting would break signatures.
//!
//! The two steps are as for LMTP (see [`crate::lmtp`]): MAIL FROM and RCPT TO in the first, DATA in the second, a
//! connection per message of the batch; one answer after the message counts for all accepted recipients.
//!
//! A password is sent only over TLS, unless the options say [`Security::None`].

mod connection;
mod crlf;
mod starttls;
mod wire;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use connectord_delivery::{BatchLimits, Delivery, Failure, Parcel, Prepared, Presence, RecallRow, Recalled, Recipient};
use connectord_net::{Connector, Proxy, TlsSettings};
use connectord_wire::{Endpoint, Secret, Security};

use crate::lmtp::link::Bounds;
use crate::lmtp::server::{MAX_PARCELS, Server};
use connection::{Connection, Settings};

pub(crate) use crlf::Crlf;

/// Where the server is, how it is encrypted, who we are, how long to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The server; its name is what the certificate must be for.
    pub endpoint: Endpoint,
    /// What must be encrypted.
    pub security: Security,
    /// Whom to trust.
    pub tls: TlsSettings,
    /// Through which proxy; default none.
    pub proxy: Option<Proxy>,
    /// Name and password for AUTH PLAIN or LOGIN; default none.
    pub login: Option<Login>,
    /// The name said in EHLO; default `localhost`.
    pub host_name: String,
    /// For a connection, TLS included; default 20 s.
    pub connect: Duration,
    /// For each answer but that to a message, and for each piece of a message to be taken; default 60 s.
    pub reply: Duration,
    /// For the answer to a message; default 10 min (RFC 5321 §4.5.3.2.6): whoever gives up earlier delivers twice.
    pub final_reply: Duration,
    /// Most connections at once; default 8, at least 1. Whoever needs one more waits, at most `final_reply`.
    pub connections: usize,
    /// How long an unused connection is kept; default 10 s.
    pub idle: Duration,
    /// How long an answer of [`Delivery::presence`] is remembered; default 60 s.
    pub presence: Duration,
}

/// Who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password, in UTF-8.
    pub password: Secret,
}

impl Options {
    /// Defaults for the server at `endpoint`.
    pub fn new(endpoint: Endpoint, security: Security) -> Self {
        Self {
            endpoint,
            security,
            tls: TlsSettings::default(),
            proxy: None,
            login: None,
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

/// An SMTP server as a destination; clones share its connections.
///
/// ```
/// use connectord_deliveries::smtp::{Options, Smtp};
/// use connectord_delivery::Delivery;
/// use connectord_net::Connector;
/// use connectord_wire::Security;
///
/// let postfix = Smtp::new(Options::new("127.0.0.1:25".parse()?, Security::None), Connector::new());
/// assert_eq!(postfix.describe(), "smtp:127.0.0.1:25");
/// # Ok::<(), connectord_wire::EndpointError>(())
/// ```
#[derive(Clone)]
pub struct Smtp(Server<Connection>);

impl Smtp {
    /// A destination; nothing is connected yet.
    pub fn new(options: Options, connector: Connector) -> Self {
        let bounds = Bounds {
            server: format!("SMTP server {}", options.endpoint),
            connections: options.connections,
            wait: options.final_reply,
            idle: options.idle,
        };
        let remember = options.presence;
        Self(Server::new(Settings { options, connector }, bounds, remember))
    }

    /// Whether the server answers, encrypts as asked and accepts the login.
    ///
    /// # Errors
    /// What [`Delivery::prepare`] would say for every parcel.
    pub async fn probe(&self) -> Result<(), Failure> {
        self.0.probe().await
    }
}

#[async_trait]
impl Delivery for Smtp {
    fn describe(&self) -> String {
        format!("smtp:{}", self.0.settings().options.endpoint)
    }

    /// At most 8 parcels, and no more than there are connections.
    fn limits(&self) -> BatchLimits {
        self.0.limits()
    }

    /// Asks by `MAIL FROM:<>` and `RCPT TO`; the answer is remembered for a minute. A relay takes everybody.
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

    /// [`Recalled::Unknown`] for each: an SMTP server cannot be asked.
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        Server::<Connection>::recall(&rows)
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("options", &self.0.settings().options).finish_non_exhaustive()
    }
}
