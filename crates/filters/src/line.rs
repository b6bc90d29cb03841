//! Connections of the filters that speak protocols of their own: one per message.

use std::time::Duration;

use connectord_filter::{Unchecked, Why};
use connectord_net::{Connector, Error, Route, Stream, Timeouts, TlsProblem, TlsSettings};
use connectord_wire::{Address, Security};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pieces::Pieces;
use crate::text::chain;
use crate::until::Until;

/// A server and how it is reached.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) connect: Duration,
    pub(crate) connector: Connector,
}

impl Server {
    pub(crate) async fn connect(&self, until: Until) -> Result<Stream, Unchecked> {
        let timeouts = Timeouts { connect: self.connect.min(until.left()), ..Timeouts::default() };
        let connected = match &self.address {
            Address::Unix(path) => self.connector.connect_unix(path, &timeouts).await,
            Address::Tcp(endpoint) => {
                let security = if self.tls.is_some() { Security::Tls } else { Security::None };
                let mut route = Route::new(endpoint.clone(), security);
                route.timeouts = timeouts;
                route.tls = self.tls.clone().unwrap_or_default();
                self.connector.connect(&route).await
            }
        };
        connected.map_err(|error| Unchecked::new(why(&error), chain(&error)))
    }
}

/// Whether a person must act for a connection to come about.
fn why(error: &Error) -> Why {
    match error {
        Error::Tls { problem: TlsProblem::Closed | TlsProblem::Broken { .. }, .. } => Why::Unavailable,
        Error::Tls { .. } => Why::Misconfigured,
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Why::Misconfigured,
        _ => Why::Unavailable,
    }
}

impl Server {
    /// Sends a question over a connection of its own and reads what comes until the server closes it.
    ///
    /// The answer is read while the question is still being sent: a server that has seen enough says so and closes, and
    /// what it said would be lost with the connection. At most `max_answer` octets are read.
    pub(crate) async fn ask(&self, question: Question, until: Until, max_answer: usize) -> Result<Vec<u8>, Unchecked> {
        let peer = self.address.to_string();
        let stream = self.connect(until).await?;
        until.within(&peer, "asking it", talk(stream, &peer, question, max_answer)).await?
    }
}

/// What is sent on one connection: octets, a message, octets.
pub(crate) struct Question {
    pub(crate) front: Vec<u8>,
    pub(crate) message: Option<Pieces>,
    /// Whether each piece is preceded by its length in four octets, and a length of 0 ends them.
    pub(crate) chunked: bool,
    /// Whether our end is closed behind it. spamd reads by lines, and waits for the end of a last line without LF.
    pub(crate) half_close: bool,
}

impl Question {
    /// A question without a message.
    pub(crate) fn plain(front: &[u8]) -> Self {
        Self { front: front.to_vec(), message: None, chunked: false, half_close: false }
    }
}

async fn talk(stream: Stream, peer: &str, question: Question, max_answer: usize) -> Result<Vec<u8>, Unchecked> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let read = async {
        loop {
            // Half-read answers that end in a reset are as good as those that end in a close: the parser judges.
            match from.read_buf(&mut answer).await {
                Ok(0) => return Ok(()),
                Ok(_) if answer.len() > max_answer => {
                    let text = format!("{peer} answered more than {max_answer} octets");
                    return Err(Unchecked::new(Why::Rubbish, text));
                }
                Ok(_) => {}
                Err(error) => return Err(cut(peer, "reading its answer", &error)),
            }
        }
    };
    let write = send(&mut to, peer, question);
    tokio::pin!(read, write);
    let mut sending = true;
    let mut unsent = None;
    let read = loop {
        tokio::select! {
            read = &mut read => break read,
            sent = &mut write, if sending => {
                sending = false;
                match sent {
                    Ok(()) => {}
                    Err(Unsent::Message(trouble)) => return Err(trouble),
                    // It may have said why it closed.
                    Err(Unsent::Connection(trouble)) => unsent = Some(trouble),
                }
            }
        }
    };
    match read {
        Err(trouble) if trouble.why == Why::Rubbish || answer.is_empty() => Err(trouble),
        _ if !answer.is_empty() => Ok(answer),
        _ => Err(unsent.unwrap_or_else(|| {
            Unchecked::new(Why::Unavailable, format!("{peer} closed the connection without an answer"))
        })),
    }
}

/// Why a question was not sent whole.
enum Unsent {
    Message(Unchecked),
    Connection(Unchecked),
}

/// The connection broke: whatever it was, the server is to be asked again.
fn cut(peer: &str, during: &str, error: &std::io::Error) -> Unchecked {
    Unchecked::new(Why::Unavailable, format!("connection to {peer} failed while {during}: {}", chain(error)))
}

async fn send(to: &mut (impl AsyncWriteExt + Unpin), peer: &str, question: Question) -> Result<(), Unsent> {
    let lost = |error: std::io::Error| Unsent::Connection(cut(peer, "sending the message", &error));
    to.write_all(&question.front).await.map_err(lost)?;
    if let Some(mut message) = question.message {
        while let Some(piece) = message.next().await.map_err(Unsent::Message)? {
            if question.chunked {
                let length = u32::try_from(piece.len()).expect("a piece has 64 KiB at most");
                to.write_all(&length.to_be_bytes()).await.map_err(lost)?;
            }
            to.write_all(&piece).await.map_err(lost)?;
        }
        if question.chunked {
            to.write_all(&0u32.to_be_bytes()).await.map_err(lost)?;
        }
    }
    to.flush().await.map_err(lost)?;
    if question.half_close {
        to.shutdown().await.map_err(lost)?;
    }
    Ok(())
}
