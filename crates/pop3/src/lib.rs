//! POP3 client session for retrieval, sans I/O (RFC 1939, 2449, 2595, 3206, 5034, 6856).
//!
//! This crate opens no socket, does no TLS, reads no clock, computes no SASL response and keeps no message: octets go in,
//! octets and events come out. It does not send mail, and it does not decide what to retrieve or to delete.
//!
//! | item | what it is for |
//! |---|---|
//! | [`Session`] | the session: a [`connectord_wire::Machine`] with methods that queue commands |
//! | [`Options`] | limits and policies, each with its default |
//! | [`Event`] | what the session tells: the login offer, listings, bodies, answers |
//! | [`Refusal`], [`ResponseCode`] | an `-ERR` answer and what its code says |
//! | [`Error`] | why the session ended |
//! | [`Uidl`], [`MessageNumber`], [`Capabilities`] | the protocol's values, checked |
//! | [`parse`], [`encode`] | both directions of the wire format: commands and answers |
//!
//! # The order of things
//!
//! 1. The session reads the greeting, asks for the capabilities, turns to TLS if [`Options::security`] says so, and tells
//!    [`Event::LoginOffered`].
//! 2. The caller logs in with [`Session::user_pass`] or [`Session::authenticate`]; [`Event::LoggedIn`] or
//!    [`Event::LoginRefused`] follows, and after a refusal another attempt may be made on the same connection.
//! 3. The caller queues commands; they are sent together where the server offers PIPELINING, and their answers come as
//!    events in the order of the commands.
//! 4. [`Session::quit`] ends the session. A server removes what [`Session::dele`] marked only when it takes the QUIT
//!    (RFC 1939 §6): until [`Event::Goodbye`] has come without a refusal, nothing is known to be removed.
//!
//! ```
//! use std::time::Instant;
//! use connectord_pop3::{Event, Options, Session};
//! use connectord_wire::{Machine, Secret, Step};
//!
//! let mut session = Session::new(Options::default());
//! let mut server = ["+OK ready\r\n", "+OK\r\nUSER\r\nUIDL\r\n.\r\n", "+OK\r\n", "+OK in\r\n", "+OK\r\n1 a7\r\n.\r\n"].iter();
//! let mut seen = Vec::new();
//! loop {
//!     match session.poll(Instant::now())? {
//!         Step::Transmit(octets) => assert!(octets.ends_with(b"\r\n")), // write them to the socket
//!         Step::StartTls => unreachable!("the default is TLS from the first octet"),
//!         Step::NeedInput => match server.next() {                      // read from the socket
//!             Some(octets) => session.receive(octets.as_bytes()),
//!             None => break,
//!         },
//!         Step::Event(Event::LoginOffered(offer)) => {
//!             assert!(offer.user);
//!             session.user_pass("ann", &Secret::from("tulip"))?;
//!         }
//!         Step::Event(Event::LoggedIn) => session.uidl(),
//!         Step::Event(Event::UniqueId { number, uidl }) => seen.push((number.get(), uidl.to_string())),
//!         Step::Event(event) => assert_eq!(event, Event::UniqueIdsEnd { count: 1 }),
//!     }
//! }
//! assert_eq!(seen, [(1, "a7".to_string())]);
//! # Ok::<(), connectord_pop3::Error>(())
//! ```
//!
//! # Over a socket
//!
//! The caller moves the octets. With a `TcpStream` of std, to a server on this machine:
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::time::Instant;
//! use connectord_pop3::{Event, Options, Session};
//! use connectord_wire::{Machine, Secret, Security, Step};
//!
//! let mut options = Options::default();
//! options.security = Security::None; // with Security::Tls (the default), `stream` is a TLS stream
//! let mut session = Session::new(options);
//! let mut stream = std::net::TcpStream::connect("127.0.0.1:110")?;
//! stream.set_read_timeout(Some(std::time::Duration::from_secs(60)))?;
//! let mut buffer = vec![0; 16 * 1024];
//! loop {
//!     match session.poll(Instant::now())? {
//!         Step::Transmit(octets) => stream.write_all(&octets)?,
//!         Step::NeedInput => {
//!             let count = stream.read(&mut buffer)?;
//!             session.receive(&buffer[..count]); // nothing: the end, which the session judges
//!         }
//!         Step::Event(Event::LoginOffered(_)) => session.user_pass("ann", &Secret::from("tulip"))?,
//!         Step::Event(Event::LoginRefused(refusal)) => return Err(refusal.into()),
//!         Step::Event(Event::LoggedIn) => {
//!             session.uidl();
//!             session.quit();
//!         }
//!         Step::Event(Event::UniqueId { number, uidl }) => println!("{number} {uidl}"),
//!         Step::Event(Event::Goodbye { .. }) => break,
//!         Step::Event(_) => {}
//!         Step::StartTls => unreachable!("only with Security::StartTls: shake hands now, then go on"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With tokio the same loop awaits:
//!
//! ```no_run
//! # async fn example(mut session: connectord_pop3::Session) -> Result<(), Box<dyn std::error::Error>> {
//! use connectord_wire::{Machine, Step};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! let mut stream = tokio::net::TcpStream::connect("127.0.0.1:110").await?;
//! let mut buffer = vec![0; 16 * 1024];
//! loop {
//!     match session.poll(std::time::Instant::now())? {
//!         Step::Transmit(octets) => stream.write_all(&octets).await?,
//!         Step::NeedInput => {
//!             let read = stream.read(&mut buffer);
//!             let count = tokio::time::timeout(std::time::Duration::from_secs(60), read).await??;
//!             session.receive(&buffer[..count]);
//!         }
//!         Step::Event(event) => println!("{event:?}"), // and do the next thing, as above
//!         Step::StartTls => break,
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `connectord-net` has all of it: TLS, proxies, deadlines, and reading while it writes.
//!
//! # Only parsing
//!
//! ```
//! use connectord_pop3::{ResponseCode, parse};
//! let reply = parse::reply(b"-ERR [IN-USE] mailbox locked").expect("a reply");
//! assert_eq!((reply.code, reply.text), (Some(ResponseCode::InUse), &b"mailbox locked"[..]));
//! let (number, uidl) = parse::unique_id(b"2 QhdPYR:00WBw1Ph7x7").expect("a line of a listing");
//! assert_eq!((number.get(), uidl.to_string().as_str()), (2, "QhdPYR:00WBw1Ph7x7"));
//! assert_eq!(parse::stat(b"2 320"), Some((2, 320)));
//! ```

mod capabilities;
pub mod encode;
mod error;
mod event;
#[doc(hidden)]
pub mod fuzzing;
mod number;
mod options;
pub mod parse;
mod refusal;
mod session;
#[cfg(test)]
mod tests;
mod uidl;

pub use capabilities::{Capabilities, Capability, Expire, LoginDelay};
pub use error::Error;
pub use event::{Event, LoginOffer, Retrieval};
pub use number::MessageNumber;
pub use options::{InitialResponse, Options, Pipelining, Utf8};
pub use refusal::{Refusal, ResponseCode};
pub use session::Session;
pub use uidl::{Uidl, UidlError};
