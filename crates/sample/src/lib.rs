//! Small POP3 and IMAP servers in this process, certificates for them, and sample mail: for demonstrations and tests.
//!
//! It is not a mail server: mail is kept in memory, nobody is kept out but by a password, and the ports are those of
//! 127.0.0.1. Everything is blocking to call, needs no runtime of the caller's, works the same inside of one, and stops
//! when it is dropped.
//!
//! | what | where |
//! |---|---|
//! | whole servers with counters, and with misbehaviour on demand | [`servers::Pop3Server`], [`servers::ImapServer`] |
//! | a private CA, a server certificate, rustls configurations | [`Certificates`] |
//! | mail in all sizes and with all that goes wrong with it, the same for the same seed | [`corpus::messages`] |
//! | a few letters that are pleasant to read | [`letters::letter`] |
//! | what other servers can be built from | [`Connection`], [`runtime`] |
//!
//! What can fail for a reason outside of this process has two forms: `try_start` and the like return the error, `start`
//! and the like panic with it, which suits tests.
//!
//! ```
//! use connectord_sample::servers::{ImapServer, ServerOptions};
//! use connectord_sample::{Certificates, corpus};
//!
//! let certificates = Certificates::try_new()?;
//! let options = ServerOptions::new().user("ann", "secret").tls(certificates.server_config());
//! let server = ImapServer::try_start(options)?;
//! for message in corpus::messages(100, 1) {
//!     server.mailbox("ann").add(message);
//! }
//! // … let a client fetch from `server.port()`, trusting `certificates.ca_file()` …
//! assert_eq!(server.counters().retrieved, 0);
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod corpus;
pub mod letters;
pub mod runtime;
pub mod servers;

mod certificates;
mod connection;
mod date;

pub use certificates::Certificates;
pub use connection::Connection;
pub use servers::Message;
