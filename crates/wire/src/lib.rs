//! What sans-I/O mail protocol clients share.
//!
//! This crate opens no socket, reads no clock and knows no protocol. It holds what the POP3, IMAP and LMTP sessions
//! have in common:
//!
//! | item | what it is for |
//! |---|---|
//! | [`Machine`], [`Step`] | the contract between a session and whoever moves its octets |
//! | [`Inbox`] | received octets with bounded line and literal framing |
//! | [`dot::Unstuffer`], [`dot::stuff`] | the end-of-data convention of POP3, SMTP and LMTP, by blocks |
//! | [`Security`], [`Endpoint`], [`Address`] | where to connect and what must be encrypted |
//! | [`Secret`] | octets that no `Debug`, log line or error can show |
//! | [`Escaped`] | a peer's octets made inert for logs and terminals |
//! | [`Blame`] | whose fault an error is |
//!
//! # Driving a machine
//!
//! 1. Call [`Machine::poll`] and do what the [`Step`] says until it is [`Step::NeedInput`].
//! 2. Then read from the peer and call [`Machine::receive`], or call `poll` again once [`Machine::deadline`] has passed.
//! 3. After an `Err` the session is dead: close the connection.
//!
//! ```
//! use std::time::Instant;
//! use bytes::Bytes;
//! use connectord_wire::{Inbox, Machine, Step};
//!
//! /// Waits for one line and is done.
//! struct Hello { inbox: Inbox, done: bool }
//!
//! impl Machine for Hello {
//!     type Event = Bytes;
//!     type Error = connectord_wire::LineTooLong;
//!     fn receive(&mut self, octets: &[u8]) { self.inbox.extend(octets) }
//!     fn poll(&mut self, _now: Instant) -> Result<Step<Bytes>, Self::Error> {
//!         Ok(match self.inbox.line(512)? {
//!             Some(line) => Step::Event(line),
//!             None => Step::NeedInput,
//!         })
//!     }
//!     fn deadline(&self) -> Option<Instant> { None }
//! }
//!
//! let mut hello = Hello { inbox: Inbox::new(), done: false };
//! let now = Instant::now();
//! hello.receive(b"+OK re");
//! assert_eq!(hello.poll(now), Ok(Step::NeedInput));
//! hello.receive(b"ady\r\n");
//! assert_eq!(hello.poll(now), Ok(Step::Event(Bytes::from_static(b"+OK ready"))));
//! ```

mod address;
mod blame;
pub mod dot;
mod endpoint;
mod escape;
#[doc(hidden)]
pub mod fuzzing;
mod inbox;
mod machine;
mod secret;

pub use address::{Address, AddressError};
pub use blame::Blame;
pub use endpoint::{Endpoint, EndpointError, Security};
pub use escape::{Escaped, is_deceptive};
pub use inbox::{Inbox, LineTooLong};
pub use machine::{Machine, Step};
pub use secret::Secret;
