use std::time::Duration;

use connectord_net::{Connector, TlsSettings};
use connectord_wire::{Address, Secret};

/// Where Rspamd is, what it must know of us, and how long to wait for it. [`Options::new`] has the defaults; every field
/// may be changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where its normal worker (port 11333) or its proxy in self-scan mode (11332) listens.
    pub address: Address,
    /// TLS, and whom to trust; default none: plain HTTP. Only over TCP, for a server behind an HTTPS proxy.
    pub tls: Option<TlsSettings>,
    /// The worker's password; default none. Rspamd asks for none on loopback and in its `secure_ip`.
    pub password: Option<Secret>,
    /// Which of Rspamd's settings apply (its `settings` module), by their id; default none.
    pub settings_id: Option<String>,
    /// The host name we are known by, sent as `MTA-Name` and used in Rspamd's Authentication-Results; default none.
    pub host_name: Option<String>,
    /// For a connection; default 10 s.
    pub connect: Duration,
    /// For a message from the first octet to the answer; default 60 s. Never beyond the message's own deadline.
    pub timeout: Duration,
    /// Most messages at a time, and most connections; default 8, at least 1.
    pub at_once: usize,
    /// Largest message it is given, in octets; default 50 MiB, which is Rspamd's own `max_message`.
    pub max_octets: Option<u64>,
    /// Longest answer, in octets; default 1 MiB.
    pub max_answer: usize,
    /// How connections are made.
    pub connector: Connector,
}

impl Options {
    /// Defaults for the worker at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls: None,
            password: None,
            settings_id: None,
            host_name: None,
            connect: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            at_once: 8,
            max_octets: Some(50 << 20),
            max_answer: 1 << 20,
            connector: Connector::new(),
        }
    }
}

/// Where Rspamd's controller is, which learns. [`ControllerOptions::new`] has the defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ControllerOptions {
    /// Where its controller (port 11334) listens.
    pub address: Address,
    /// TLS, and whom to trust; default none: plain HTTP. Only over TCP.
    pub tls: Option<TlsSettings>,
    /// The controller's `enable_password` (or `password`); default none. It asks for none on loopback and in its
    /// `secure_ip`.
    pub password: Option<Secret>,
    /// For a connection; default 10 s.
    pub connect: Duration,
    /// For a message from the first octet to the answer; default 60 s.
    pub timeout: Duration,
    /// How connections are made.
    pub connector: Connector,
}

impl ControllerOptions {
    /// Defaults for the controller at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls: None,
            password: None,
            connect: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            connector: Connector::new(),
        }
    }
}
