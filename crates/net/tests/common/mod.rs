//! Certificates, servers on loopback and a small machine for the tests of this crate.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its part; a test may stop where its premise fails"
)]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectord_net::{CertificateDer, Connector, Resolver, Route, Timeouts};
use connectord_wire::{Endpoint, Inbox, Machine, Security, Step};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The name every test server has.
pub const HOST: &str = "mail.example.org";

/// Lines in, lines out.
#[derive(Debug)]
pub struct Lines {
    inbox: Inbox,
    queue: VecDeque<Bytes>,
    pub awaiting: bool,
    pub confidential: bool,
    pub deadline: Option<Instant>,
    pub woken: usize,
    starting_tls: bool,
    longest: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinesError {
    #[error("closed")]
    Closed,
    #[error("plaintext before TLS")]
    Injected,
    #[error(transparent)]
    TooLong(#[from] connectord_wire::LineTooLong),
}

impl Lines {
    pub fn new() -> Self {
        Self {
            inbox: Inbox::new(),
            queue: VecDeque::new(),
            awaiting: true,
            confidential: false,
            deadline: None,
            woken: 0,
            starting_tls: false,
            longest: 1 << 30,
        }
    }

    pub fn say(&mut self, octets: impl Into<Bytes>) {
        self.queue.push_back(octets.into());
    }

    /// Sends STLS and starts TLS after the answer.
    pub fn start_tls(&mut self) {
        self.say("STLS\r\n");
        self.starting_tls = true;
    }
}

impl Machine for Lines {
    type Event = Bytes;
    type Error = LinesError;

    fn receive(&mut self, octets: &[u8]) {
        self.inbox.extend(octets);
    }

    fn poll(&mut self, now: Instant) -> Result<Step<Bytes>, LinesError> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.woken += 1;
            return Ok(Step::Event(Bytes::from_static(b"deadline")));
        }
        if let Some(octets) = self.queue.pop_front() {
            return Ok(Step::Transmit(octets));
        }
        match self.inbox.line(self.longest)? {
            Some(line) if self.starting_tls && line.starts_with(b"+OK") => {
                self.starting_tls = false;
                if self.inbox.is_empty() { Ok(Step::StartTls) } else { Err(LinesError::Injected) }
            }
            Some(line) => Ok(Step::Event(line)),
            None if self.inbox.is_closed() => Err(LinesError::Closed),
            None => Ok(Step::NeedInput),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn awaiting(&self) -> bool {
        self.awaiting
    }

    fn phase(&self) -> &'static str {
        "receiving the greeting"
    }

    fn confidential(&self) -> bool {
        self.confidential
    }
}

/// A certificate authority and the certificates it signs.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let name = format!("Test authority {:02x?}", &key.public_key_raw()[1..5]);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::new(certificate.der().clone(), &key)
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

/// A server's certificate and key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    fn new(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        Self { certificate, key: key.serialize_der() }
    }

    pub fn self_signed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name);
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Self::new(certificate.der().clone(), &key)
    }

    pub fn acceptor(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A server on loopback that does `serve` with each connection.
pub async fn serve<F, S>(serve: S) -> SocketAddr
where
    F: Future<Output = ()> + Send,
    S: Fn(TcpStream) -> F + Send + Sync + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let serve = serve.clone();
            tokio::spawn(async move { serve(stream).await });
        }
    });
    address
}

/// Every name is on loopback.
pub fn connector() -> Connector {
    Connector::with_resolver(Resolver::new(|_: &str| Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]), 2, 16))
}

/// To the server of [`serve`], by [`HOST`].
pub fn route(address: SocketAddr, security: Security) -> Route {
    let mut route = Route::new(Endpoint::new(HOST, address.port()).unwrap(), security);
    route.timeouts = quick();
    route
}

/// Times for tests that wait for no deadline.
pub fn quick() -> Timeouts {
    Timeouts { connect: Duration::from_secs(10), silence: Duration::from_secs(10), ..Timeouts::default() }
}
