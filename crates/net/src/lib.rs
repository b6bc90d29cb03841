//! Sockets for sans-I/O sessions: connecting, TLS policy, proxies, deadlines, the driver, wire traces.
//!
//! This crate knows no mail protocol: it moves octets between a server and a [`Machine`](connectord_wire::Machine). It
//! decides nothing about failures either; it says precisely what went wrong, during what and for how long.
//!
//! | item | what it is for |
//! |---|---|
//! | [`Route`] | where to connect, what must be encrypted, whom to trust, through which proxy, how long to wait |
//! | [`Connector`] | resolves, dials (RFC 8305), passes proxies, speaks TLS; shared by all accounts |
//! | [`Driver`] | runs a machine over a [`Stream`]: reads and writes at once, keeps the deadlines, starts TLS |
//! | [`Error`], [`TlsProblem`] | what went wrong, and what a person can do about it |
//! | [`Resolver`] | names to addresses on threads of its own, so that a dead resolver holds up only who asks |
//!
//! Trace output goes to the targets `connectord::wire` (protocol lines), `connectord::wire::auth` (logins, hidden) and
//! `connectord::wire::data` (long transfers), all at level trace.

mod connector;
mod driver;
mod error;
mod eyeballs;
#[doc(hidden)]
pub mod fuzzing;
mod proxy;
mod reach;
mod resolver;
mod route;
mod stream;
mod tls;
mod trace;

pub use connector::{Connector, Milestone};
pub use driver::Driver;
pub use error::{Attempt, Error, ProxyProblem, ResolveProblem, Wait};
pub use reach::{Network, NetworkError, Reach};
pub use resolver::{Lookup, Resolver, ResolverLimits};
pub use route::{Pin, PinError, Proxy, ProxyAuth, Route, Timeouts, TlsSettings, TlsVersion};
pub use rustls::pki_types::CertificateDer;
pub use stream::{Stream, TlsInfo};
pub use tls::{Fingerprints, PemError, TlsProblem, certificates_from_pem};
