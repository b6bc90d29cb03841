use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use connectord_sasl::ChannelBinding;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::tls::Upgrade;
use crate::{Error, Timeouts, TlsProblem, Wait};

/// A connection: TCP, TLS over it, or a Unix socket.
///
/// The end of a TLS stream without `close_notify` reads as end: mail servers close that way, and both protocols say
/// themselves whether an answer is complete.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    peer: String,
    peer_address: Option<SocketAddr>,
    tls: Option<TlsInfo>,
    upgrade: Option<Upgrade>,
}

#[derive(Debug)]
enum Io {
    Plain(Transport),
    Tls(Box<TlsStream<Transport>>),
}

/// What is known about the TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite's registered name.
    pub cipher: String,
    /// Fingerprint of the server's certificate.
    pub certificate: Option<crate::Pin>,
    /// Fingerprint of the server's public key.
    pub key: Option<crate::Pin>,
    /// `tls-exporter` (RFC 9266): 32 octets; TLS 1.3 only.
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` (RFC 5929 §4).
    pub server_end_point: Option<Vec<u8>>,
    /// Whether an earlier session was resumed; the certificate is then the one verified in that session.
    pub resumed: bool,
}

impl TlsInfo {
    /// The best channel binding there is for SCRAM: the exporter, else the certificate's hash.
    pub fn channel_binding(&self) -> ChannelBinding {
        match (&self.exporter, &self.server_end_point) {
            (Some(exporter), _) => ChannelBinding::Exporter(exporter.clone()),
            (None, Some(hash)) => ChannelBinding::ServerEndPoint(hash.clone()),
            (None, None) => ChannelBinding::None,
        }
    }
}

impl Stream {
    /// A connection that somebody else made; `peer` names it in errors.
    pub fn from_io<S>(io: S, peer: impl Into<String>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::plain(Transport::new(Socket::Other(Box::new(io)), Bytes::new()), peer.into(), None)
    }

    pub(crate) fn plain(transport: Transport, peer: String, peer_address: Option<SocketAddr>) -> Self {
        Self { io: Io::Plain(transport), peer, peer_address, tls: None, upgrade: None }
    }

    /// Remembers how to start TLS later.
    pub(crate) fn prepared(mut self, upgrade: Upgrade) -> Self {
        self.upgrade = Some(upgrade);
        self
    }

    /// The server as configured, `host:port` or `unix:path`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The address that answered: the server's, or the proxy's when there is one.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// The TLS connection; `None` while the stream is plaintext.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// Starts TLS as the route said that made this stream, within [`Timeouts::connect`].
    ///
    /// # Errors
    /// [`Error::Tls`] and [`Error::TimedOut`].
    pub async fn start_tls(self, timeouts: &Timeouts) -> Result<Self, Error> {
        let during = "starting TLS";
        let (Io::Plain(transport), Some(upgrade)) = (self.io, self.upgrade) else {
            return Err(Error::Tls { peer: self.peer, problem: TlsProblem::NotPrepared });
        };
        match tokio::time::timeout(timeouts.connect, upgrade.handshake(transport)).await {
            Ok(Ok((stream, tls))) => {
                let io = Io::Tls(Box::new(stream));
                Ok(Self { io, peer: self.peer, peer_address: self.peer_address, tls: Some(tls), upgrade: None })
            }
            Ok(Err(problem)) => Err(Error::Tls { peer: self.peer, problem }),
            Err(_) => Err(Error::TimedOut { peer: self.peer, during, after: timeouts.connect, wait: Wait::Connect }),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(transport) => Pin::new(transport).poll_read(cx, buf),
            Io::Tls(stream) => match Pin::new(stream).poll_read(cx, buf) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                other => other,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(transport) => Pin::new(transport).poll_write(cx, octets),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(transport) => Pin::new(transport).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(transport) => Pin::new(transport).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What is under TLS: a socket, and octets that a proxy sent along with its own reply.
#[derive(Debug)]
pub(crate) struct Transport {
    prefix: Bytes,
    socket: Socket,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Other(Box<dyn Duplex>),
}

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl std::fmt::Debug for dyn Duplex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Duplex")
    }
}

impl Transport {
    pub(crate) fn new(socket: Socket, prefix: Bytes) -> Self {
        Self { prefix, socket }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let count = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..count]);
            self.prefix.advance(count);
            return Poll::Ready(Ok(()));
        }
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Other(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, octets),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, octets),
            Socket::Other(socket) => Pin::new(socket).poll_write(cx, octets),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Other(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Other(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
