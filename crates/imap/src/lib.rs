//! IMAP client session for retrieval, sans I/O: octets go in, octets and events come out.
//!
//! This crate opens no socket, makes no TLS handshake, reads no clock, keeps no message in memory and knows no sequence
//! numbers: messages are addressed by UID only. It does not search text, does not write mail (no APPEND), does not
//! create mailboxes, and sets `\Seen` only when told to.
//!
//! | item | what it is for |
//! |---|---|
//! | [`Session`] | the client: methods queue commands, events come back in order |
//! | [`Options`] | every limit and policy, with its default |
//! | [`Event`] | what the session tells: logins, mailboxes, bodies by pieces, changes |
//! | [`Error`], [`Refusal`] | why a session ended; why a command was not done |
//! | [`UidSet`], [`MailboxName`], [`Flags`], [`InternalDate`] | values, checked when they are made |
//! | [`encode`], [`parse_command`] | the other direction: for scripted servers |
//!
//! | RFC | what of it |
//! |---|---|
//! | 9051, 3501 (IMAP4rev2, rev1) | greeting, CAPABILITY, STARTTLS, LOGIN, AUTHENTICATE, ENABLE, LIST, STATUS, SELECT, EXAMINE, CLOSE, UNSELECT, UID SEARCH, FETCH, STORE, COPY, MOVE, EXPUNGE, NOOP, LOGOUT |
//! | 2177 IDLE, 2342 NAMESPACE, 2971 ID, 3691 UNSELECT | all |
//! | 3516 BINARY | literal8 is read |
//! | 4315 UIDPLUS, 6851 MOVE | UID EXPUNGE, UID MOVE, COPYUID, APPENDUID, UIDNOTSTICKY |
//! | 4731 ESEARCH | `RETURN (ALL)` |
//! | 4959 SASL-IR, 7888 LITERAL+ and LITERAL- | all |
//! | 5161 ENABLE, 6855 UTF8=ACCEPT | IMAP4rev2 and UTF8=ACCEPT |
//! | 5258, 6154, 8457 | `RETURN (SPECIAL-USE)` |
//! | 5530 response codes | all |
//! | 7162 CONDSTORE, QRESYNC | HIGHESTMODSEQ and VANISHED are read, never asked for |
//!
//! # A mailbox, fetched
//!
//! ```
//! use std::time::Instant;
//! use connectord_imap::{Event, FetchItems, MailboxName, Options, Section, Session, UidSearch};
//! use connectord_wire::{Machine, Step};
//!
//! # let mut server = connectord_imap_doc::server();
//! # mod connectord_imap_doc {
//! #     /// What the server says to commands.
//! #     pub(crate) fn server() -> impl FnMut(&[u8]) -> Vec<u8> {
//! #         |commands| String::from_utf8_lossy(commands).lines().map(answer).collect::<String>().into_bytes()
//! #     }
//! #     fn answer(text: &str) -> String {
//! #         let tag = text.split(' ').next().unwrap();
//! #         let data = match text[tag.len()..].trim().split_whitespace().take(2).collect::<Vec<_>>().join(" ") {
//! #             t if t.starts_with("LOGIN") => return format!("{tag} OK [CAPABILITY IMAP4rev1] in\r\n"),
//! #             t if t.starts_with("EXAMINE") => "* 1 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n",
//! #             t if t == "UID SEARCH" => "* SEARCH 7\r\n",
//! #             t if t == "UID FETCH" => "* 1 FETCH (UID 7 BODY[] {4}\r\nHi\r\n)\r\n",
//! #             _ => "",
//! #         };
//! #         format!("{data}{tag} OK done\r\n")
//! #     }
//! # }
//! let mut session = Session::new(Options::default());
//! session.receive(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n");
//!
//! let mut message = Vec::new();
//! loop {
//!     match session.poll(Instant::now())? {
//!         Step::Transmit(octets) => session.receive(&server(&octets)),
//!         Step::Event(Event::LoginOffered(_)) => session.login("ann", &"secret".into()),
//!         Step::Event(Event::LoggedIn { .. }) => {
//!             session.examine(&MailboxName::inbox());
//!             session.uid_search(UidSearch::all());
//!         }
//!         Step::Event(Event::Found(uids)) => {
//!             let items = FetchItems { size: true, body: Some(Section::Whole), ..FetchItems::default() };
//!             session.uid_fetch(&uids, items);
//!         }
//!         Step::Event(Event::Body(octets)) => message.extend_from_slice(&octets),
//!         Step::Event(Event::Fetched(fetched)) if fetched.asked => break,
//!         Step::Event(_) => {}
//!         Step::StartTls | Step::NeedInput => unreachable!("this server answers at once, over TLS"),
//!     }
//! }
//! assert_eq!(message, b"Hi\r\n");
//! # Ok::<(), connectord_imap::Error>(())
//! ```
//!
//! # Over a socket
//!
//! The caller moves the octets. With a `TcpStream` of std, to a server on this machine:
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use std::time::Instant;
//! use connectord_imap::{Event, Options, Session};
//! use connectord_wire::{Machine, Security, Step};
//!
//! let mut options = Options::default();
//! options.security = Security::None; // with Security::Tls (the default), `stream` is a TLS stream
//! let mut session = Session::new(options);
//! let mut stream = std::net::TcpStream::connect("127.0.0.1:143")?;
//! stream.set_read_timeout(Some(std::time::Duration::from_secs(60)))?;
//! let (mut buffer, mut logout) = (vec![0; 16 * 1024], None);
//! loop {
//!     match session.poll(Instant::now())? {
//!         Step::Transmit(octets) => stream.write_all(&octets)?,
//!         Step::NeedInput => {
//!             let count = stream.read(&mut buffer)?;
//!             session.receive(&buffer[..count]); // nothing: the end, which the session judges
//!         }
//!         Step::Event(Event::LoginOffered(_)) => session.login("ann", &"secret".into()),
//!         Step::Event(Event::LoginRefused(refusal)) => return Err(refusal.into()),
//!         Step::Event(Event::LoggedIn { .. }) => {
//!             session.list("", "*");
//!             logout = Some(session.logout());
//!         }
//!         Step::Event(Event::Listed(listed)) => println!("{}", listed.name),
//!         Step::Event(Event::Done { command, .. }) if Some(command) == logout => break,
//!         Step::Event(_) => {}
//!         Step::StartTls => unreachable!("only with Security::StartTls: shake hands now, then go on"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With tokio the same loop awaits: `Step::Transmit(octets) => stream.write_all(&octets).await?`, and
//!
//! ```no_run
//! # async fn example(mut session: connectord_imap::Session) -> Result<(), Box<dyn std::error::Error>> {
//! use connectord_wire::{Machine, Step};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! let mut stream = tokio::net::TcpStream::connect("127.0.0.1:143").await?;
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
//! Values are read and written without a session, and so are a client's commands:
//!
//! ```
//! use connectord_imap::encode::Command;
//! use connectord_imap::{InternalDate, MailboxName, NameEncoding, UidSet, parse_command};
//!
//! assert_eq!(UidSet::parse(b"7,1:3,4", 100)?.to_string(), "1:4,7");
//! assert_eq!(MailboxName::from_wire(b"Entw&APw-rfe", NameEncoding::Utf7).as_text(), Some("Entw\u{fc}rfe"));
//! assert_eq!(InternalDate::parse(b"17-Jul-1996 02:44:25 -0700").map(|date| date.unix_seconds), Some(837_596_665));
//! let (tag, command, used) = parse_command(b"a1 UID EXPUNGE 1:3\r\n", NameEncoding::Utf7)?;
//! assert_eq!((tag.as_str(), command), ("a1", Command::UidExpunge(UidSet::parse(b"1:3", 100)?)));
//! assert_eq!(used, 20);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Server responses are read by a [`Session`]: what they mean depends on what was asked.

mod capabilities;
mod code;
mod date;
pub mod encode;
mod error;
mod event;
mod flags;
#[doc(hidden)]
pub mod fuzzing;
mod mailbox;
mod options;
mod parse;
mod session;
mod uid;

pub use capabilities::Capabilities;
pub use code::ResponseCode;
pub use date::InternalDate;
pub use error::{Error, Refusal, Status};
pub use event::{
    Body, CommandId, Completion, Event, FetchItems, Fetched, Listed, LoginOffer, MailboxStatus, Namespace, Namespaces,
    Role, Section, Selected, StatusItem, UidSearch,
};
pub use flags::{Flag, Flags};
pub use mailbox::{MailboxName, MailboxNameError, NameEncoding};
pub use options::Options;
pub use parse::command::{CommandError, parse_command};
pub use session::Session;
pub use uid::{Uid, UidSet, UidSetError, UidValidity};
