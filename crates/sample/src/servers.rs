//! Small but whole POP3 and IMAP servers in this process, plain or with TLS, for demonstrations and for faults and
//! scales that a real server does not offer.
//!
//! They keep mail in memory, serve several users and connections at once, take pipelined commands, and can be changed
//! and told to misbehave while clients are connected. Not a mail store: nothing is kept when they are dropped.
//!
//! ```
//! use std::io::{BufRead, BufReader};
//! use connectord_sample::servers::{Pop3Server, ServerOptions};
//!
//! let server = Pop3Server::start(ServerOptions::new().user("ann", "secret"));
//! server.mailbox("ann").add("Subject: hello\n\nHow are you?\n");
//! let mut greeting = String::new();
//! BufReader::new(std::net::TcpStream::connect(server.address())?).read_line(&mut greeting)?;
//! assert_eq!(greeting, "+OK ready\r\n");
//! # Ok::<(), std::io::Error>(())
//! ```

mod imap;
mod mailbox;
mod message;
mod options;
mod pop3;
mod server;

pub use mailbox::{Mailbox, crlf};
pub use message::Message;
pub use options::{Counters, Misbehaviour, QuitFault, ServerOptions};
pub use server::{ImapServer, Pop3Server, Server};
