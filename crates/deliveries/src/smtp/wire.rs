use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use connectord_net::Stream;
use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Longest reply line handed to lettre, in octets; lettre itself reads without bound until a line ends.
const MAX_LINE: usize = 16 * 1024;

/// What the owner of a connection tells its wire, whose owner is lettre.
#[derive(Debug)]
pub(super) struct Control {
    limit_ms: AtomicU64,
    cut: AtomicBool,
    ended: AtomicBool,
    dot: AtomicBool,
}

impl Control {
    pub(super) fn new(limit: Duration) -> Arc<Self> {
        let control = Self {
            limit_ms: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            dot: AtomicBool::new(false),
        };
        control.limit(limit);
        Arc::new(control)
    }

    /// How long from now on the server may be silent, or take nothing.
    pub(super) fn limit(&self, limit: Duration) {
        self.limit_ms.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Nothing is written from now on: a message that cannot be read to its end must not get its final dot.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    /// The message is whole; what is written next is the final dot.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// A new transaction.
    pub(super) fn begin(&self) {
        self.ended.store(false, Ordering::Release);
        self.dot.store(false, Ordering::Release);
    }

    /// Whether the server may have the message: not, if nothing of the final dot was written.
    pub(super) fn dot_may_have_left(&self) -> bool {
        self.dot.load(Ordering::Acquire)
    }
}

/// Our stream as lettre wants it: every wait has a deadline, lines are bounded, octets that are not ASCII are shown as `?`
/// (lettre fails on a reply in Latin-1).
pub(super) struct Wire {
    // Never locked: lettre wants the stream to be `Sync`, and only ever uses it exclusively.
    inner: Mutex<Inner>,
    peer: Option<SocketAddr>,
    control: Arc<Control>,
}

struct Inner {
    stream: Stream,
    /// Read before anything of the stream.
    prefix: &'static [u8],
    line: usize,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// `prefix` is what lettre reads first.
    pub(super) fn new(stream: Stream, prefix: &'static [u8], control: Arc<Control>) -> Self {
        let peer = stream.peer_address();
        Self { inner: Mutex::new(Inner { stream, prefix, line: 0, sleep: None }), peer, control }
    }
}

impl Inner {
    /// Waits for `poll`, but only so long.
    fn within<T>(
        &mut self,
        control: &Control,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = poll(Pin::new(&mut self.stream), cx) {
            self.sleep = None;
            return Poll::Ready(result);
        }
        let limit = Duration::from_millis(control.limit_ms.load(Ordering::Acquire));
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(sleep.as_mut().poll(cx));
        let text = format!("no answer for {:.3} s", limit.as_secs_f64());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, control, .. } = &mut *self;
        let inner = inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !inner.prefix.is_empty() {
            let (now, later) = inner.prefix.split_at(inner.prefix.len().min(buf.remaining()));
            buf.put_slice(now);
            inner.prefix = later;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(inner.within(control, cx, |stream, cx| stream.poll_read(cx, buf)))?;
        for octet in &mut buf.filled_mut()[before..] {
            inner.line = if *octet == b'\n' { 0 } else { inner.line + 1 };
            if inner.line > MAX_LINE {
                let text = format!("reply line exceeds the limit of {MAX_LINE} octets");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
            if !octet.is_ascii() {
                *octet = b'?';
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let Self { inner, control, .. } = &mut *self;
        if control.cut.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::Error::other("the message cannot be read to its end")));
        }
        let inner = inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let written = ready!(inner.within(control, cx, |stream, cx| stream.poll_write(cx, octets)))?;
        if control.ended.load(Ordering::Acquire) {
            control.dot.store(true, Ordering::Release);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, control, .. } = &mut *self;
        inner.get_mut().unwrap_or_else(PoisonError::into_inner).within(control, cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, control, .. } = &mut *self;
        inner
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .within(control, cx, |stream, cx| stream.poll_shutdown(cx))
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into()))
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("peer", &self.peer).finish_non_exhaustive()
    }
}
