use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use connectord_wire::{Endpoint, Security};
use tokio::io::DuplexStream;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::stream::{Socket, Transport};
use crate::tls::{Configs, Upgrade};
use crate::{
    Attempt, Error, ResolveProblem, Resolver, Route, Stream, Timeouts, TlsProblem, TlsSettings, Wait, eyeballs, proxy,
};

/// Makes connections; one for the whole process, cheap to clone.
///
/// It keeps the system's authorities, TLS configurations and resumption tickets: make a new one to read the authorities
/// again.
#[derive(Clone)]
pub struct Connector(Arc<Shared>);

struct Shared {
    resolver: Resolver,
    configs: Configs,
    /// In place of sockets.
    dial: Option<Box<Dial>>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// The name of the server, or of its proxy, has so many addresses that are to be tried.
    Resolved {
        /// How many.
        addresses: usize,
    },
    /// One of them has answered.
    Connected {
        /// Which; `None` when the system does not say.
        address: Option<SocketAddr>,
    },
    /// TLS is on, from the start. It is not told of STARTTLS.
    Secured {
        /// `TLSv1.3` or `TLSv1.2`.
        version: &'static str,
    },
}

type Dial = dyn Fn(&Endpoint) -> io::Result<DuplexStream> + Send + Sync;

impl Default for Connector {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.0.resolver).finish()
    }
}

impl Connector {
    /// With the system's resolver.
    pub fn new() -> Self {
        Self::with_resolver(Resolver::system())
    }

    /// With a resolver of the caller's.
    pub fn with_resolver(resolver: Resolver) -> Self {
        Self(Arc::new(Shared { resolver, configs: Configs::new(), dial: None }))
    }

    /// Without sockets: `dial` gives the near end of each connection, and must return at once. For servers within this
    /// process, which can live in virtual time; proxies and local addresses mean nothing then.
    pub fn with_dialer(dial: impl Fn(&Endpoint) -> io::Result<DuplexStream> + Send + Sync + 'static) -> Self {
        let resolver = Resolver::system();
        Self(Arc::new(Shared { resolver, configs: Configs::new(), dial: Some(Box::new(dial)) }))
    }

    /// Connects as the route says, proxy and TLS included, within [`Timeouts::connect`]; with [`Security::StartTls`] the
    /// stream is still plaintext and knows how to start TLS.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use connectord_net::{Connector, Route};
    /// use connectord_wire::Security;
    /// let route = Route::new("imap.example.org:993".parse()?, Security::Tls);
    /// let stream = Connector::new().connect(&route).await?;
    /// println!("{:?}", stream.tls());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Every variant but [`Error::Session`].
    pub async fn connect(&self, route: &Route) -> Result<Stream, Error> {
        self.connect_watched(route, &|_| {}).await
    }

    /// As [`Connector::connect`], and tells `watch` how far it has come; it must return at once.
    ///
    /// # Errors
    /// Every variant but [`Error::Session`].
    pub async fn connect_watched(&self, route: &Route, watch: &(dyn Fn(Milestone) + Sync)) -> Result<Stream, Error> {
        let peer = route.endpoint.to_string();
        let deadline = Deadline::new(&peer, &route.timeouts);
        // First, so that a mistake in the settings costs no connection.
        let upgrade = match route.security {
            Security::None => None,
            Security::Tls | Security::StartTls => {
                let config = self.config(&route.tls).await.map_err(|problem| tls(&peer, problem))?;
                let name = route.tls.server_name.as_deref().unwrap_or_else(|| route.endpoint.host());
                Some(Upgrade::new(config, name).map_err(|problem| tls(&peer, problem))?)
            }
        };
        let stream = match &self.0.dial {
            None => self.reach(route, &peer, &deadline, watch).await?,
            Some(dial) => {
                let stream = dial(&route.endpoint).map_err(|error| {
                    let address = SocketAddr::from(([0, 0, 0, 0], route.endpoint.port()));
                    Error::Connect { peer: peer.clone(), attempts: vec![Attempt { address, error }] }
                })?;
                Stream::from_io(stream, peer.clone())
            }
        };
        match upgrade {
            None => Ok(stream),
            Some(upgrade) if route.security == Security::StartTls => Ok(stream.prepared(upgrade)),
            Some(upgrade) => {
                let during = "starting TLS";
                let stream = deadline.within(during, stream.prepared(upgrade).start_tls(&route.timeouts)).await??;
                if let Some(tls) = stream.tls() {
                    watch(Milestone::Secured { version: tls.version });
                }
                Ok(stream)
            }
        }
    }

    /// Connects to a Unix socket, within [`Timeouts::connect`].
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::TimedOut`].
    pub async fn connect_unix(&self, path: &Path, timeouts: &Timeouts) -> Result<Stream, Error> {
        let peer = format!("unix:{}", path.display());
        let deadline = Deadline::new(&peer, timeouts);
        let during = "connecting";
        let socket = deadline.within(during, UnixStream::connect(path)).await?.map_err(|source| Error::Io {
            peer: peer.clone(),
            during,
            source,
        })?;
        Ok(Stream::plain(Transport::new(Socket::Unix(socket), Bytes::new()), peer, None))
    }

    /// Up to the server or through its proxy, without TLS.
    async fn reach(
        &self,
        route: &Route,
        peer: &str,
        deadline: &Deadline<'_>,
        watch: &(dyn Fn(Milestone) + Sync),
    ) -> Result<Stream, Error> {
        let first_hop = route.proxy.as_ref().map_or(&route.endpoint, |proxy| proxy.endpoint());
        let socket = self.dial(first_hop, route, deadline, watch).await?;
        let address = socket.peer_addr().ok();
        watch(Milestone::Connected { address });
        let (socket, greeting) = match &route.proxy {
            None => (socket, Bytes::new()),
            Some(proxy) => deadline
                .within("asking the proxy", proxy::pass(proxy, socket, &route.endpoint))
                .await?
                .map_err(|problem| Error::Proxy { proxy: proxy.endpoint().clone(), peer: peer.to_owned(), problem })?,
        };
        Ok(Stream::plain(Transport::new(Socket::Tcp(socket), greeting), peer.to_owned(), address))
    }

    async fn dial(
        &self,
        hop: &Endpoint,
        route: &Route,
        deadline: &Deadline<'_>,
        watch: &(dyn Fn(Milestone) + Sync),
    ) -> Result<TcpStream, Error> {
        let resolve = |problem| Error::Resolve { host: hop.host().to_owned(), problem };
        let addresses =
            deadline.within("resolving the host name", self.0.resolver.resolve(hop.host())).await?.map_err(resolve)?;
        // The address counts, not the name, and it is not looked up again.
        let (addresses, refused): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| route.reach.allows(*address));
        if let ([], Some(address)) = (addresses.as_slice(), refused.first()) {
            return Err(resolve(ResolveProblem::OutOfReach { address: *address }));
        }
        let addresses: Vec<_> = addresses
            .into_iter()
            .filter(|address| route.local_address.is_none_or(|local| local.is_ipv4() == address.is_ipv4()))
            .map(|address| SocketAddr::new(address, hop.port()))
            .collect();
        if addresses.is_empty() {
            return Err(resolve(ResolveProblem::OtherFamily));
        }
        watch(Milestone::Resolved { addresses: addresses.len() });
        let mut attempts = Vec::new();
        let dialled = eyeballs::dial(addresses, route.local_address, &mut attempts);
        let dialled = deadline.within("connecting", dialled).await?;
        dialled.ok_or_else(|| Error::Connect { peer: hop.to_string(), attempts })
    }

    async fn config(&self, settings: &TlsSettings) -> Result<Arc<rustls::ClientConfig>, TlsProblem> {
        if let Some(config) = self.0.configs.ready(settings) {
            return Ok(config);
        }
        let (shared, settings) = (self.0.clone(), settings.clone());
        tokio::task::spawn_blocking(move || shared.configs.make(&settings))
            .await
            .unwrap_or_else(|error| Err(TlsProblem::Other { text: error.to_string() }))
    }
}

fn tls(peer: &str, problem: TlsProblem) -> Error {
    Error::Tls { peer: peer.to_owned(), problem }
}

/// One deadline for all steps to a usable connection.
struct Deadline<'a> {
    peer: &'a str,
    at: Instant,
    timeouts: &'a Timeouts,
}

impl<'a> Deadline<'a> {
    fn new(peer: &'a str, timeouts: &'a Timeouts) -> Self {
        Self { peer, at: Instant::now() + timeouts.connect, timeouts }
    }

    async fn within<T>(&self, during: &'static str, step: impl Future<Output = T>) -> Result<T, Error> {
        timeout_at(self.at, step).await.map_err(|_| Error::TimedOut {
            peer: self.peer.to_owned(),
            during,
            after: self.timeouts.connect,
            wait: Wait::Connect,
        })
    }
}
