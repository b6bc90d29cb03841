use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// The server's end of a connection: lines in, octets out, TLS from the start or on the way.
pub struct Connection {
    stream: Stream,
    received: Vec<u8>,
    /// Octets that may still be sent before the connection is cut.
    credit: Option<u64>,
}

/// Longest line a client may send, in octets; longer ones end the connection.
const MAX_LINE: usize = 1 << 20;

impl Connection {
    /// A plaintext connection.
    pub fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream: Stream::Plain(stream), received: Vec::new(), credit: None }
    }

    /// From now on: after so many octets the connection is cut, in the middle of what is being sent.
    pub fn cut_after(&mut self, octets: Option<u64>) {
        self.credit = octets;
    }

    /// Whether TLS is spoken.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Whether octets have come that were not taken yet.
    pub fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    /// Speaks TLS from here on.
    pub async fn encrypt(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        if self.has_received() {
            return Err(io::Error::other("the client sent octets in plaintext behind its request for TLS"));
        }
        let Stream::Plain(plain) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(io::Error::other("TLS was asked for inside TLS"));
        };
        let tls = TlsAcceptor::from(config).accept(plain).await?;
        self.stream = Stream::Tls(Box::new(tls));
        Ok(())
    }

    /// The next line, without its CRLF or LF; nothing at the end of the connection, where a line without end is dropped.
    ///
    /// Cancel safe: what has come is kept.
    pub async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut looked_at = 0;
        loop {
            if let Some(at) = self.received[looked_at..].iter().position(|o| *o == b'\n') {
                let mut line: Vec<u8> = self.received.drain(..=looked_at + at).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
            looked_at = self.received.len();
            if looked_at > MAX_LINE {
                return Err(io::Error::other("a line is longer than 1 MiB"));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next `count` octets.
    pub async fn octets(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < count {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.received.drain(..count).collect())
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let count = self.stream.read(&mut buffer).await?;
        self.received.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Sends; an error when the connection is to be cut within these octets.
    pub async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        let allowed =
            self.credit.map_or(octets.len(), |credit| octets.len().min(usize::try_from(credit).unwrap_or(usize::MAX)));
        self.stream.write_all(&octets[..allowed]).await?;
        self.stream.flush().await?;
        if let Some(credit) = &mut self.credit {
            *credit -= allowed as u64;
        }
        if allowed < octets.len() {
            self.close().await;
            return Err(io::Error::other("the connection was cut on purpose"));
        }
        Ok(())
    }

    /// Ends our side in order; with TLS by its close_notify.
    pub async fn close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection by a reset when it is dropped.
    pub fn reset(&self) {
        let _ = match &self.stream {
            Stream::Plain(stream) => stream.set_zero_linger(),
            Stream::Tls(stream) => stream.get_ref().0.set_zero_linger(),
            Stream::Gone => Ok(()),
        };
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake failed.
    Gone,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}
