//! HTTP/1.1 over our own connections, which are kept for the next message where the server allows it.
//!
//! hyper speaks the protocol; a connection is driven by whoever asks over it, so that no task outlives a message.

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use connectord_filter::{Unchecked, Why};
use connectord_net::Stream;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;

use crate::line::Server;
use crate::pieces::Pieces;
use crate::text::{chain, shown};
use crate::until::Until;

/// Longest head of an answer, in octets.
const MAX_HEAD: usize = 64 * 1024;

/// A server that is asked over HTTP, and its connections that nobody uses now.
pub(crate) struct Client {
    server: Server,
    idle: Mutex<Vec<Link>>,
    most_idle: usize,
    max_answer: usize,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The words behind the status, escaped.
    pub(crate) reason: String,
    /// What it calls itself, escaped; may be empty.
    pub(crate) server: String,
    pub(crate) octets: Vec<u8>,
}

impl Client {
    /// At most `most_idle` connections are kept; an answer has at most `max_answer` octets.
    pub(crate) fn new(server: Server, most_idle: usize, max_answer: usize) -> Self {
        Self { server, idle: Mutex::default(), most_idle, max_answer }
    }

    /// `http://127.0.0.1:11333`, `unix:/run/rspamd/worker.sock`.
    pub(crate) fn name(&self) -> String {
        match (&self.server.address, &self.server.tls) {
            (connectord_wire::Address::Unix(_), _) => self.server.address.to_string(),
            (address, None) => format!("http://{address}"),
            (address, Some(_)) => format!("https://{address}"),
        }
    }

    /// Host and port for the request's Host field.
    pub(crate) fn host(&self) -> String {
        match &self.server.address {
            connectord_wire::Address::Tcp(endpoint) => endpoint.to_string(),
            connectord_wire::Address::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Sends the request that `make` makes and reads the answer.
    ///
    /// A connection that was kept may have been closed by the server meanwhile; then the question, which changes nothing
    /// there, is asked again over a new one.
    pub(crate) async fn ask(&self, make: impl Fn() -> Request<Outgoing>, until: Until) -> Result<Answer, Unchecked> {
        let name = self.name();
        if let Some(link) = self.kept() {
            match until.within(&name, "asking it", self.over(link, make())).await? {
                Err(Lost { before_answer: true, trouble }) if trouble.why == Why::Unavailable => {}
                answered => return answered.map_err(|lost| lost.trouble),
            }
        }
        let stream = self.server.connect(until).await?;
        let answered = async { self.over(Link::open(stream, &name).await?, make()).await };
        until.within(&name, "asking it", answered).await?.map_err(|lost| lost.trouble)
    }

    async fn over(&self, mut link: Link, request: Request<Outgoing>) -> Result<Answer, Lost> {
        let name = self.name();
        let before = |error: hyper::Error| Lost { before_answer: true, trouble: trouble(&name, &error) };
        let after = |error: hyper::Error| Lost { before_answer: false, trouble: trouble(&name, &error) };
        let sent = link.send.send_request(request);
        let response = drive(&mut link.connection, sent).await.map_err(before)?;
        let status = response.status();
        let reason = response.extensions().get::<hyper::ext::ReasonPhrase>();
        let reason = reason.map(|reason| shown(reason.as_bytes())).unwrap_or_default();
        let server = response.headers().get(hyper::header::SERVER);
        let server = server.map(|server| shown(server.as_bytes())).unwrap_or_default();
        let mut body = response.into_body();
        let mut octets = Vec::new();
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
            let Some(frame) = drive(&mut link.connection, frame).await else { break };
            if let Ok(data) = frame.map_err(after)?.into_data() {
                if octets.len() + data.len() > self.max_answer {
                    let text = format!("{name} answered more than {} octets", self.max_answer);
                    return Err(Lost { before_answer: false, trouble: Unchecked::new(Why::Rubbish, text) });
                }
                octets.extend_from_slice(&data);
            }
        }
        self.keep(link);
        Ok(Answer { status, reason, server, octets })
    }

    /// The connection used last that the server has not closed.
    fn kept(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut link) = idle.pop() {
            if link.is_open() {
                return Some(link);
            }
        }
        None
    }

    fn keep(&self, mut link: Link) {
        if link.is_open() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < self.most_idle {
                idle.push(link);
            }
        }
    }
}

/// Why there is no answer, and whether any of it had come.
struct Lost {
    before_answer: bool,
    trouble: Unchecked,
}

/// One connection.
struct Link {
    send: SendRequest<Outgoing>,
    connection: Pin<Box<Connection<TokioIo<Stream>, Outgoing>>>,
}

impl Link {
    async fn open(stream: Stream, name: &str) -> Result<Self, Lost> {
        let mut builder = Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let opened = builder.handshake(TokioIo::new(stream)).await;
        let (send, connection) =
            opened.map_err(|error| Lost { before_answer: true, trouble: trouble(name, &error) })?;
        Ok(Self { send, connection: Box::pin(connection) })
    }

    /// Whether another request can be sent now. Looks without waiting.
    fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.connection.as_mut().poll(&mut cx).is_pending()
            && matches!(self.send.poll_ready(&mut cx), Poll::Ready(Ok(())))
    }
}

/// Moves the connection while something on it is waited for.
async fn drive<T>(
    connection: &mut Pin<Box<Connection<TokioIo<Stream>, Outgoing>>>,
    step: impl Future<Output = T>,
) -> T {
    tokio::pin!(step);
    let mut over = false;
    poll_fn(|cx| {
        // A connection that is over has told its end to whoever waits on it, so that its own result adds nothing.
        if !over && connection.as_mut().poll(cx).is_ready() {
            over = true;
        }
        step.as_mut().poll(cx)
    })
    .await
}

/// What went wrong, by hyper's sorts.
fn trouble(name: &str, error: &hyper::Error) -> Unchecked {
    if let Some(unread) = error.source().and_then(|source| source.downcast_ref::<Unchecked>()) {
        return unread.clone();
    }
    if error.is_parse() {
        return Unchecked::new(Why::Rubbish, format!("{name} does not answer in HTTP: {}", chain(error)));
    }
    if error.is_incomplete_message() {
        let text = format!("{name} closed the connection before its answer was complete");
        return Unchecked::new(Why::Unavailable, text);
    }
    Unchecked::new(Why::Unavailable, format!("connection to {name} failed: {}", chain(error)))
}

/// What is sent with a request: nothing, or a message, piece by piece.
pub(crate) struct Outgoing(Option<Pieces>);

impl Outgoing {
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    pub(crate) fn message(message: Pieces) -> Self {
        Self(Some(message))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Unchecked;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unchecked>>> {
        let Some(message) = &mut self.0 else { return Poll::Ready(None) };
        Poll::Ready(match ready!(message.poll_next(cx)) {
            Ok(Some(piece)) => Some(Ok(Frame::data(piece))),
            Ok(None) => None,
            Err(trouble) => Some(Err(trouble)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|message| message.left() == 0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Pieces::left))
    }
}
