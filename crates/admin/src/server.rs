//! Listens, and speaks HTTP/1.1 on each connection.
//!
//! hyper is driven from here and not by `axum::serve`, so that connections have a bound, a head that does not come has a deadline, and
//! the process at the other end of a Unix socket is known.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::app::App;
use crate::backend::Backend;
use crate::gate::Keep;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    /// With the user id of the process that connected, where the system tells it.
    Unix(Option<u32>),
}

/// Where the page listens.
#[derive(Debug)]
pub enum Listener {
    /// On a TCP port; of loopback, unless [`Options::behind_proxy`] says that a proxy is in front.
    Tcp(TcpListener),
    /// On a Unix socket.
    Unix(UnixListener),
}

/// How the page is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where people reach the page, such as `https://mail.example.org`; no path. Needed for anything but loopback.
    pub public_url: Option<String>,
    /// Where the page is reached on this machine, such as `http://127.0.0.1:8025`: what a one-time link begins with while there is no
    /// [`public_url`](Self::public_url). Default nothing: links are then paths.
    pub here: Option<String>,
    /// A reverse proxy is in front: `X-Forwarded-For` is believed, and addresses other than loopback may be listened on. Default no.
    pub behind_proxy: bool,
    /// User ids that are administrators on the Unix socket; default root and our own.
    pub socket_admins: Vec<u32>,
    /// Whether administrators can invite people to see and manage only their own accounts; default no.
    pub own_accounts: bool,
    /// Connections at once; more wait to be accepted. Default 512.
    pub connections: usize,
    /// How long a request's head may take to come; default 10 s.
    pub head: Duration,
    /// How long open requests may take to end once shutdown is asked for; default 5 s.
    pub farewell: Duration,
    /// Cost of hashing a person's password; default 19 MiB, twice, as OWASP has it.
    pub argon2: argon2::Params,
    /// The zone that moments are shown in; default the machine's.
    pub zone: jiff::tz::TimeZone,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            public_url: None,
            here: None,
            behind_proxy: false,
            socket_admins: vec![0],
            own_accounts: false,
            connections: 512,
            head: Duration::from_secs(10),
            farewell: Duration::from_secs(5),
            argon2: argon2::Params::default(),
            zone: jiff::tz::TimeZone::system(),
        }
    }
}

impl Options {
    /// What links to the page begin with.
    pub(crate) fn base(&self) -> &str {
        let base = self.public_url.as_deref().or(self.here.as_deref());
        base.unwrap_or_default().trim_end_matches('/')
    }
}

/// Why the page is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Everybody on the network would reach it, and passwords would travel readable.
    #[error(
        "{0} is not a loopback address\nhint: listen on 127.0.0.1 or a Unix socket, with a reverse proxy in front that has TLS; \
         docs/admin.md shows one"
    )]
    Exposed(SocketAddr),
    /// `public_url` cannot be one.
    #[error("{0:?} is not an address of the page: expected https://NAME, without a path")]
    PublicUrl(String),
    /// The socket cannot be asked.
    #[error("cannot listen: {0}")]
    Io(#[from] std::io::Error),
    /// No randomness, or a hash that cannot be made.
    #[error("cannot keep passwords: {0}")]
    Passwords(String),
}

/// Serves the page and the API until `shutdown` is done; then waits for open requests, [`Options::farewell`] at most.
///
/// # Errors
/// Before anything is served: see [`ServeError`]. A connection that fails ends itself and nothing else.
pub async fn serve(
    listener: Listener,
    backend: Arc<dyn Backend>,
    keep: Arc<dyn Keep>,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let exposed = match &listener {
        Listener::Tcp(listener) => Some(listener.local_addr()?).filter(|address| !address.ip().is_loopback()),
        Listener::Unix(_) => None,
    };
    let proxied = options.behind_proxy && options.public_url.is_some();
    if let Some(address) = exposed.filter(|_| !proxied) {
        return Err(ServeError::Exposed(address));
    }
    let (stopping, stopped) = watch::channel(false);
    let (connections, head, farewell) = (options.connections, options.head, options.farewell);
    let app = Arc::new(App::new(backend, keep, options, stopped.clone())?);
    let router = crate::app::router(&app);
    let places = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        while open.try_join_next().is_some() {}
        let accepted = async {
            // Never closed: this function holds it.
            let place = places.clone().acquire_owned().await.expect("the semaphore is not closed");
            (place, accept(&listener).await)
        };
        let (place, (stream, peer)) = tokio::select! {
            accepted = accepted => match accepted {
                (place, Ok(accepted)) => (place, accepted),
                (_, Err(error)) => {
                    // Too many open files, as a rule: without a pause this would turn as fast as it can.
                    tracing::warn!(%error, during = "accept", "admin connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let (router, mut stopped) = (router.clone(), stopped.clone());
        open.spawn(async move {
            let _place = place;
            let service = service_fn(|request: Request<Incoming>| {
                let mut router = router.clone();
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer.clone());
                async move { Ok::<_, Infallible>(tower(&mut router, request).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(64 * 1024);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                ended = connection.as_mut() => drop(ended),
                () = crate::app::until_stopped(&mut stopped) => {
                    connection.as_mut().graceful_shutdown();
                    drop(connection.await);
                }
            }
        });
    }
    drop(listener);
    // Streams of events hear it too, and end.
    let _ = stopping.send(true);
    let ended = tokio::time::timeout(farewell, async { while open.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        open.shutdown().await;
    }
    Ok(())
}

async fn tower(router: &mut axum::Router, request: Request<Body>) -> axum::response::Response {
    use tower_service::Service;
    // A router is always ready, and has no error.
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

async fn accept(listener: &Listener) -> std::io::Result<(Box<dyn Stream>, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            // Events are small and are looked at as they come.
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream), Peer::Tcp(address)))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
            Ok((Box::new(stream), Peer::Unix(uid)))
        }
    }
}
