//! Runs a machine over a stream.

mod outbox;
mod patience;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use connectord_wire::{Machine, Step};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, timeout};

use crate::trace::{self, Way};
use crate::{Connector, Error, Route, Stream, Timeouts, TlsInfo, Wait};
use outbox::Outbox;
use patience::Patience;

/// Octets read at once. The buffer is on the stack while reading, so that a connection at rest owns none.
const READ: usize = 64 * 1024;
/// Octets taken in at most while events wait for the caller and [`Driver::flush`] for the peer.
const MAX_UNREAD: u64 = 1024 * 1024;
/// How long [`Driver::shutdown`] tries to close in order.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Runs a [`Machine`] over a [`Stream`].
///
/// It reads and writes at the same time, so that a peer that sends before it reads stops nobody; starts TLS when the
/// machine says so; calls the machine at its deadline; and counts silence while the machine awaits something or octets
/// wait to be sent. The time between two calls, in which the caller does something else, counts as no silence.
///
/// A peer that sends less than [`Timeouts::minimum_rate`] over [`Timeouts::rate_window`] counts as silent too: at once when
/// it still drips, after a second such window when it paused within an answer. A command sent begins a new window. So does
/// one that keeps sending, for ten times the silence, nothing that the machine has an event for.
pub struct Driver<M: Machine> {
    machine: M,
    link: Link,
    peer: String,
    peer_address: Option<SocketAddr>,
    tls: Option<TlsInfo>,
    timeouts: Timeouts,
    outbox: Outbox,
    patience: Patience,
    alarm: Pin<Box<Sleep>>,
    octets_received: u64,
    octets_sent: u64,
    /// Octets received since no event was held.
    unread: u64,
    /// Events that came while the caller waited only for octets to go out.
    held: VecDeque<M::Event>,
    /// The machine's error behind the held events.
    failure: Option<M::Error>,
    /// Octets wait for the peer to read; under TLS some of them are past the outbox.
    unsent: bool,
    tls_due: bool,
    /// The peer will send nothing more.
    ended: bool,
    write_error: Option<io::Error>,
    /// A deadline of the machine's at which it had nothing to do.
    spent_deadline: Option<std::time::Instant>,
}

enum Link {
    Open(Box<Stream>),
    StartingTls(Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>),
    Closed,
}

/// What a call waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Event,
    Sent,
}

impl<M: Machine> Driver<M> {
    /// Runs `machine` over a stream that is there.
    pub fn new(stream: Stream, machine: M, timeouts: Timeouts) -> Self {
        let now = Instant::now();
        Self {
            machine,
            peer: stream.peer().to_owned(),
            peer_address: stream.peer_address(),
            tls: stream.tls().cloned(),
            link: Link::Open(Box::new(stream)),
            patience: Patience::new(&timeouts, now),
            timeouts,
            outbox: Outbox::default(),
            alarm: Box::pin(tokio::time::sleep_until(now)),
            octets_received: 0,
            octets_sent: 0,
            unread: 0,
            held: VecDeque::new(),
            failure: None,
            unsent: false,
            tls_due: false,
            ended: false,
            write_error: None,
            spent_deadline: None,
        }
    }

    /// Connects as the route says and runs `machine`.
    ///
    /// ```no_run
    /// # async fn example<M: connectord_wire::Machine>(machine: M) -> Result<(), connectord_net::Error<M::Error>> {
    /// use connectord_net::{Connector, Driver, Route};
    /// use connectord_wire::Security;
    /// let route = Route::new("pop.example.org:995".parse().expect("an endpoint"), Security::Tls);
    /// let mut driver = Driver::connect(&Connector::new(), &route, machine).await?;
    /// let event = driver.next().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Every variant but [`Error::Session`].
    pub async fn connect(connector: &Connector, route: &Route, machine: M) -> Result<Self, Error<M::Error>> {
        let stream = connector.connect(route).await.map_err(Error::widen)?;
        Ok(Self::new(stream, machine, route.timeouts.clone()))
    }

    /// The machine's next event. Waits as long as the machine neither has one nor awaits anything.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The connection is of no use after an error; [`Error::Session`] is the machine's own.
    pub async fn next(&mut self) -> Result<M::Event, Error<M::Error>> {
        let turn = Turn::begin(self);
        loop {
            poll_fn(|cx| turn.0.poll_until(cx, Until::Event)).await?;
            if let Some(event) = turn.0.held.pop_front() {
                return Ok(event);
            }
        }
    }

    /// Sends what the machine wants sent.
    ///
    /// For long uploads: queue a piece, flush, queue the next. Events that come meanwhile stay for [`Driver::next`],
    /// and until they are taken at most 1 MiB is read behind them. Cancel-safe.
    ///
    /// # Errors
    /// As [`Driver::next`].
    pub async fn flush(&mut self) -> Result<(), Error<M::Error>> {
        let turn = Turn::begin(self);
        poll_fn(|cx| turn.0.poll_until(cx, Until::Sent)).await
    }

    /// The machine: queue commands there, then call [`Driver::next`].
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The server, as in errors: `host:port` or `unix:path`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The address that answered: the server's, or the proxy's when there is one.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// The TLS connection; `None` while the connection is plaintext.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// Octets of the protocol received so far, after decryption.
    pub fn octets_received(&self) -> u64 {
        self.octets_received
    }

    /// Octets of the protocol sent so far, before encryption.
    pub fn octets_sent(&self) -> u64 {
        self.octets_sent
    }

    /// Octets that the machine wants sent and the connection has not taken yet.
    pub fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// Sends what is left and closes in order, within two seconds. Whether that worked is of no interest.
    pub async fn shutdown(self) {
        let Link::Open(mut stream) = self.link else { return };
        let mut outbox = self.outbox;
        let close = async {
            while let Some(front) = outbox.front() {
                let count = stream.write(front).await?;
                outbox.advance(count);
            }
            stream.shutdown().await
        };
        let _ = timeout(SHUTDOWN, close).await;
    }

    /// Ready when there is an event, or when everything is sent if only that was asked for.
    fn poll_until(&mut self, cx: &mut Context<'_>, until: Until) -> Poll<Result<(), Error<M::Error>>> {
        if until == Until::Event && !self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(Error::Session(error)));
        }
        loop {
            ready!(self.poll_handshake(cx))?;
            if !self.tls_due && (until == Until::Sent || self.held.is_empty()) {
                let now = Instant::now().into_std();
                let step = match self.machine.poll(now) {
                    Ok(step) => step,
                    Err(error) if self.held.is_empty() => return Poll::Ready(Err(Error::Session(error))),
                    Err(error) => {
                        self.failure = Some(error);
                        return Poll::Ready(Ok(()));
                    }
                };
                match step {
                    Step::Event(event) => {
                        self.patience.used(Instant::now());
                        self.held.push_back(event);
                        if until == Until::Sent {
                            continue;
                        }
                    }
                    Step::Transmit(octets) => {
                        trace::octets(Way::Sent, &self.peer, &octets, self.machine.confidential());
                        self.outbox.push(octets);
                        self.patience.asked(Instant::now());
                        continue;
                    }
                    Step::StartTls => self.tls_due = true,
                    Step::NeedInput => {
                        if self.held.is_empty() {
                            self.unread = 0;
                        }
                        self.spent_deadline = self.machine.deadline().filter(|deadline| *deadline <= now);
                    }
                }
            }
            let sent = self.poll_send(cx);
            self.unsent = sent.is_pending();
            if sent.is_ready() && self.tls_due {
                self.start_tls();
                continue;
            }
            let over = match until {
                Until::Event => !self.held.is_empty(),
                // After a failed write only the peer's last words count.
                Until::Sent => sent.is_ready() && (self.write_error.is_none() || !self.held.is_empty()),
            };
            if over || (self.ended && !self.held.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Err(self.broken()));
            }
            if !self.tls_due && self.unread < MAX_UNREAD {
                match self.poll_receive(cx) {
                    // Who never pauses keeps the deadlines below from being looked at.
                    Poll::Ready(Ok(())) => match self.patience.session_over(Instant::now()) {
                        Some(after) => return Poll::Ready(Err(self.timed_out(Wait::Session, after))),
                        None => continue,
                    },
                    Poll::Ready(Err(source)) => {
                        self.write_error.get_or_insert(source);
                        self.ended = true;
                        return Poll::Ready(Err(self.broken()));
                    }
                    Poll::Pending => {}
                }
            }
            ready!(self.poll_deadlines(cx))?;
        }
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error<M::Error>>> {
        let Link::StartingTls(handshake) = &mut self.link else { return Poll::Ready(Ok(())) };
        match ready!(handshake.as_mut().poll(cx)) {
            Ok(stream) => {
                self.tls = stream.tls().cloned();
                self.link = Link::Open(Box::new(stream));
                self.patience.asked(Instant::now());
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                (self.link, self.ended) = (Link::Closed, true);
                Poll::Ready(Err(error.widen()))
            }
        }
    }

    fn start_tls(&mut self) {
        self.tls_due = false;
        if let Link::Open(stream) = std::mem::replace(&mut self.link, Link::Closed) {
            let timeouts = self.timeouts.clone();
            self.link = Link::StartingTls(Box::pin(async move { stream.start_tls(&timeouts).await }));
        }
    }

    /// Ready when nothing is left to send. An error waits: what the peer said before it closed is worth more.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Link::Open(stream) = &mut self.link else { return Poll::Ready(()) };
        if self.write_error.is_some() {
            self.outbox.clear();
            return Poll::Ready(());
        }
        while let Some(front) = self.outbox.front() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, front)) {
                Ok(count) if count > 0 => {
                    self.outbox.advance(count);
                    self.octets_sent += u64::try_from(count).unwrap_or(u64::MAX);
                    self.patience.sent(Instant::now());
                }
                failed => {
                    self.write_error = Some(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                    self.outbox.clear();
                    return Poll::Ready(());
                }
            }
        }
        // For TLS: what was written may still be in the session's own buffer.
        if let Err(error) = ready!(Pin::new(stream).poll_flush(cx)) {
            self.write_error.get_or_insert(error);
        }
        Poll::Ready(())
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Link::Open(stream) = &mut self.link else { return Poll::Pending };
        let mut space = [const { MaybeUninit::<u8>::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let octets = buffer.filled();
        if octets.is_empty() {
            self.ended = true;
        } else {
            trace::octets(Way::Received, &self.peer, octets, self.machine.confidential());
            let count = u64::try_from(octets.len()).unwrap_or(u64::MAX);
            self.octets_received += count;
            self.unread += count;
            self.patience.received(count, Instant::now());
        }
        self.machine.receive(octets);
        Poll::Ready(Ok(()))
    }

    /// Ready without an error when the machine has to be called.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error<M::Error>>> {
        loop {
            let now = Instant::now();
            let waiting = self.machine.awaiting() || self.unsent || self.write_error.is_some();
            self.patience.set_waiting(waiting, now);
            if let Some((wait, after)) = self.patience.lost(now) {
                return Poll::Ready(Err(self.timed_out(wait, after)));
            }
            let of_machine = self
                .machine
                .deadline()
                .filter(|deadline| Some(*deadline) != self.spent_deadline && !self.tls_due)
                .map(Instant::from_std);
            if of_machine.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Ok(()));
            }
            let Some(next) = [of_machine, self.patience.next()].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            // One that rings early costs less than setting it anew with every octet.
            if next < self.alarm.deadline() || self.alarm.is_elapsed() {
                self.alarm.as_mut().reset(next);
            }
            ready!(self.alarm.as_mut().poll(cx));
        }
    }

    fn timed_out(&self, wait: Wait, after: Duration) -> Error<M::Error> {
        Error::TimedOut { peer: self.peer.clone(), during: self.machine.phase(), after, wait }
    }

    /// The connection is over and the machine has nothing to say about it.
    fn broken(&mut self) -> Error<M::Error> {
        let source = self.write_error.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
        Error::Io { peer: self.peer.clone(), during: self.machine.phase(), source }
    }
}

impl<M: Machine + fmt::Debug> fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("peer", &self.peer)
            .field("machine", &self.machine)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// One call of the caller's, so that the time between calls counts as nobody's silence.
struct Turn<'a, M: Machine>(&'a mut Driver<M>);

impl<'a, M: Machine> Turn<'a, M> {
    fn begin(driver: &'a mut Driver<M>) -> Self {
        driver.patience.resume(Instant::now());
        Self(driver)
    }
}

impl<M: Machine> Drop for Turn<'_, M> {
    fn drop(&mut self) {
        self.0.patience.pause(Instant::now());
    }
}
