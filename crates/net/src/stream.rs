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
    ahead: Ahead,
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
        Self { prefix, socket, ahead: Ahead::default() }
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
        let Self { socket, ahead, .. } = &mut *self;
        ahead.poll_read(cx, socket, buf)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Other(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

/// What was read ahead of a reader who takes little at a time: rustls takes 4 KiB.
///
/// Nothing is held while the socket has nothing, so that a connection at rest owns no buffer.
#[derive(Default)]
struct Ahead {
    octets: Vec<u8>,
    /// Taken of them.
    taken: usize,
    /// The end of what there is to read.
    end: usize,
    /// The last read filled all the room it was given, so there is more, mostly.
    more: bool,
}

/// Octets read ahead at most.
const AHEAD: usize = 64 * 1024;

impl Ahead {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncRead + Unpin),
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.taken == self.end {
            if !self.more || buf.remaining() >= AHEAD {
                let before = buf.filled().len();
                let read = Pin::new(socket).poll_read(cx, buf);
                self.more = buf.remaining() == 0 && buf.filled().len() > before;
                return read;
            }
            self.octets.resize(AHEAD, 0);
            let mut room = ReadBuf::new(&mut self.octets);
            let read = Pin::new(socket).poll_read(cx, &mut room);
            (self.taken, self.end) = (0, room.filled().len());
            if self.end == 0 {
                *self = Self::default();
                return read;
            }
        }
        let count = buf.remaining().min(self.end - self.taken);
        buf.put_slice(&self.octets[self.taken..self.taken + count]);
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} octets ahead", self.end - self.taken)
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Gives all it has at once, and then has nothing for the moment.
    struct Full {
        octets: Vec<u8>,
        reads: usize,
    }

    impl AsyncRead for Full {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.reads += 1;
            if self.octets.is_empty() {
                return Poll::Pending;
            }
            let count = self.octets.len().min(buf.remaining());
            buf.put_slice(&self.octets[..count]);
            self.octets.drain(..count);
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_reader_of_little_pieces_costs_few_reads_and_a_socket_at_rest_owns_no_buffer() {
        for length in [0, 1, 4095, 4096, 4097, 3 * AHEAD, 1_000_000] {
            let octets: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut socket = Full { octets: octets.clone(), reads: 0 };
            let (mut ahead, mut found) = (Ahead::default(), Vec::new());
            let mut cx = Context::from_waker(Waker::noop());
            loop {
                let mut piece = [0; 4096];
                let mut buf = ReadBuf::new(&mut piece);
                if ahead.poll_read(&mut cx, &mut socket, &mut buf).is_pending() {
                    break;
                }
                assert!(!buf.filled().is_empty(), "that would be the end of the stream");
                found.extend_from_slice(buf.filled());
            }
            assert!(found == octets, "{length}");
            assert!(socket.reads <= 3 + length / AHEAD, "{length}: {}", socket.reads);
            assert_eq!((ahead.octets.capacity(), ahead.more), (0, false), "{length}");
        }
    }
}
