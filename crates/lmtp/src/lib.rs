//! An LMTP client session (RFC 2033), sans I/O.
//!
//! This crate opens no socket, reads no clock and speaks no SMTP: LHLO is its first word, and after the message comes
//! one answer per recipient. It knows pipelining (RFC 2920), enhanced status codes (RFC 2034), SIZE (RFC 1870),
//! 8BITMIME (RFC 6152) and SMTPUTF8 (RFC 6531). It does not speak TLS: LMTP is for a Unix socket or a host of one's own.
//!
//! # The dialogue
//!
//! 1. [`Session::new`] waits for the greeting, sends LHLO and answers with [`Event::Ready`].
//! 2. The caller queues [`Session::mail`] and [`Session::rcpt`]; with PIPELINING they travel in one write. Each recipient
//!    is answered by [`Event::Recipient`], a refused sender by [`Event::SenderRefused`] and nothing else.
//! 3. [`Session::data`] is answered by [`Event::ReadyForData`], [`Event::DataRefused`] or [`Event::NoRecipients`].
//! 4. The caller hands the message over in pieces with [`Session::push`], the next one when [`Event::WantData`] asks for
//!    it, and ends it with [`Session::finish`]. [`Event::Delivered`] comes once per accepted recipient.
//! 5. [`Session::rset`] gives a transaction up before its DATA; [`Session::quit`] ends the session.
//!
//! ```
//! use std::time::Instant;
//! use connectord_lmtp::{Address, Event, Mail, Options, Session};
//! use connectord_wire::{Machine, Step};
//!
//! let mut session = Session::new(Options::default());
//! let mut server = ["220 ready\r\n", "250-host\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n", "354 go\r\n", "250 2.0.0 Saved\r\n"]
//!     .iter();
//! let (mut sent, mut answer) = (Vec::new(), None);
//! while answer.is_none() {
//!     match session.poll(Instant::now())? {
//!         Step::Transmit(octets) => sent.extend_from_slice(&octets), // write them to the socket
//!         Step::NeedInput => session.receive(server.next().unwrap().as_bytes()), // read from the socket
//!         Step::StartTls => unreachable!("LMTP here is without TLS"),
//!         Step::Event(Event::Ready { .. }) => {
//!             session.mail(Mail::from(Address::parse("ann@example.org")?));
//!             session.rcpt(Address::parse("bob")?);
//!         }
//!         Step::Event(Event::Recipient { .. }) => session.data(),
//!         Step::Event(Event::ReadyForData) => {
//!             session.push(b"Subject: hi\n\n.\n")?;
//!             session.finish()?;
//!         }
//!         Step::Event(Event::Delivered { index: 0, result }) => answer = Some(result),
//!         Step::Event(_) => {}
//!     }
//! }
//! assert_eq!(answer.unwrap().unwrap().to_string(), "250 2.0.0 Saved");
//! assert!(sent.ends_with(b"DATA\r\nSubject: hi\r\n\r\n..\r\n.\r\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod capabilities;
pub mod encode;
mod error;
mod event;
#[doc(hidden)]
pub mod fuzzing;
mod options;
pub mod parse;
mod reply;
mod session;

pub use address::{Address, AddressError};
pub use capabilities::Capabilities;
pub use error::Error;
pub use event::Event;
pub use options::{Options, Pipelining};
pub use reply::{Reply, Severity};
pub use session::{Mail, Session};
