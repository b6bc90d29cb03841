use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use connectord_wire::Endpoint;

use crate::TlsProblem;

/// Why there is no connection, or none any more. `E` is the session's own error.
///
/// `peer` is the server as configured, `host:port` or `unix:path`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E = Infallible> {
    /// The name could not be turned into addresses.
    #[error("cannot resolve {host}: {problem}")]
    Resolve {
        /// The name.
        host: String,
        /// What went wrong.
        problem: ResolveProblem,
    },
    /// No address of the server accepted a connection.
    #[error("cannot connect to {peer}: {}", attempts_text(.attempts))]
    Connect {
        /// The server or proxy.
        peer: String,
        /// What happened at each address, in the order in which they failed; not empty.
        attempts: Vec<Attempt>,
    },
    /// The proxy did not connect us.
    #[error("proxy {proxy} did not connect to {peer}: {problem}")]
    Proxy {
        /// The proxy.
        proxy: Endpoint,
        /// The server behind it.
        peer: String,
        /// What it said.
        problem: ProxyProblem,
    },
    /// No trustworthy encryption.
    #[error("no secure connection to {peer}: {problem}")]
    Tls {
        /// The server.
        peer: String,
        /// What is wrong; [`TlsProblem::hint`] says what to do.
        problem: TlsProblem,
    },
    /// A deadline passed.
    #[error("{}", timed_out_text(.peer, .during, *.after, .wait))]
    TimedOut {
        /// The server.
        peer: String,
        /// What was going on, in words: `connecting`, `receiving the greeting`.
        during: &'static str,
        /// How long was waited.
        after: Duration,
        /// Which deadline it was.
        wait: Wait,
    },
    /// The connection broke, or that to a Unix socket was not made.
    #[error("connection to {peer} failed while {during}")]
    Io {
        /// The server.
        peer: String,
        /// What was going on, in words.
        during: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The session found something wrong.
    #[error(transparent)]
    Session(E),
}

impl Error<Infallible> {
    /// The same error beside a session's own.
    pub fn widen<E>(self) -> Error<E> {
        match self {
            Self::Resolve { host, problem } => Error::Resolve { host, problem },
            Self::Connect { peer, attempts } => Error::Connect { peer, attempts },
            Self::Proxy { proxy, peer, problem } => Error::Proxy { proxy, peer, problem },
            Self::Tls { peer, problem } => Error::Tls { peer, problem },
            Self::TimedOut { peer, during, after, wait } => Error::TimedOut { peer, during, after, wait },
            Self::Io { peer, during, source } => Error::Io { peer, during, source },
            Self::Session(never) => match never {},
        }
    }
}

/// Which deadline passed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// That for a usable connection ([`Timeouts::connect`](crate::Timeouts::connect)).
    Connect,
    /// Nothing came ([`Timeouts::silence`](crate::Timeouts::silence)).
    Silence,
    /// Too little came ([`Timeouts::minimum_rate`](crate::Timeouts::minimum_rate)).
    Rate {
        /// How many octets.
        octets: u64,
    },
    /// Octets came, and for ten times [`Timeouts::silence`](crate::Timeouts::silence) nothing that was of use.
    Chatter {
        /// How many octets.
        octets: u64,
    },
    /// The connection's whole life ([`Timeouts::session`](crate::Timeouts::session)).
    Session,
}

/// One address that did not accept a connection.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {error}")]
pub struct Attempt {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub error: io::Error,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveProblem {
    /// The resolver says that there is no such name, or that it has no address.
    #[error("no such host ({text})")]
    NoSuchHost {
        /// The resolver's words.
        text: String,
    },
    /// The resolver could not answer now.
    #[error("the resolver has no answer now ({text})")]
    Unanswered {
        /// The resolver's words.
        text: String,
    },
    /// It was asked before and is still silent; nobody else waits for it.
    #[error("the resolver has been silent about it for {} s", .after.as_secs())]
    Silent {
        /// How long the look-up has been under way.
        after: Duration,
    },
    /// Too many look-ups are waiting already.
    #[error("{waiting} look-ups are waiting already; the resolver does not answer")]
    Overloaded {
        /// How many.
        waiting: usize,
    },
    /// It may not be connected to ([`Route::reach`](crate::Route::reach)).
    #[error("it is {address}, and accounts like this one do not connect there")]
    OutOfReach {
        /// One of its addresses.
        address: std::net::IpAddr,
    },
    /// There are addresses, but none of the family of our configured local address.
    #[error("no address of the local address' family")]
    OtherFamily,
}

/// Why a proxy did not connect us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyProblem {
    /// It wants a name and password, or others than these.
    #[error("it refused our name and password")]
    Authentication,
    /// It could or would not reach the server.
    #[error("\"{text}\"")]
    Refused {
        /// Its words, escaped.
        text: String,
    },
    /// It does not speak the protocol.
    #[error("expected {expected}, got \"{found}\"")]
    Protocol {
        /// What should have come.
        expected: &'static str,
        /// What came, escaped.
        found: String,
    },
    /// The connection to it broke.
    #[error("the connection to it broke: {text}")]
    Broken {
        /// The system's words.
        text: String,
    },
}

fn attempts_text(attempts: &[Attempt]) -> String {
    attempts.iter().map(Attempt::to_string).collect::<Vec<_>>().join(", ")
}

fn timed_out_text(peer: &str, during: &str, after: Duration, wait: &Wait) -> String {
    let after = seconds(after);
    match wait {
        Wait::Connect => format!("no connection to {peer} within {after} (while {during})"),
        Wait::Silence => format!("no answer from {peer} for {after} while {during}"),
        Wait::Rate { octets } => format!("only {octets} octets from {peer} in {after} while {during}"),
        Wait::Chatter { octets } => {
            format!("nothing of use from {peer} for {after}, in {octets} octets, while {during}")
        }
        Wait::Session => format!("session with {peer} not over after {after} (while {during})"),
    }
}

/// `60 s`, `0.25 s`.
fn seconds(duration: Duration) -> String {
    let text = format!("{:.3}", duration.as_secs_f64());
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_says_who_was_silent_how_long_and_during_what() {
        let error = Error::<Infallible>::TimedOut {
            peer: "imap.example.org:993".into(),
            during: "retrieving a message",
            after: Duration::from_secs(60),
            wait: Wait::Silence,
        };
        assert_eq!(error.to_string(), "no answer from imap.example.org:993 for 60 s while retrieving a message");
    }
}
