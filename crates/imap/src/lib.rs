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
//! #     /// What the server says to each command.
//! #     pub(crate) fn server() -> impl FnMut(&[u8]) -> Vec<u8> {
//! #         |command| {
//! #             let text = String::from_utf8_lossy(command).into_owned();
//! #             let tag = text.split(' ').next().unwrap();
//! #             let data = match text[tag.len()..].trim().split_whitespace().take(2).collect::<Vec<_>>().join(" ") {
//! #                 t if t.starts_with("LOGIN") => return format!("{tag} OK [CAPABILITY IMAP4rev1] in\r\n").into(),
//! #                 t if t.starts_with("EXAMINE") => "* 1 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n",
//! #                 t if t == "UID SEARCH" => "* SEARCH 7\r\n",
//! #                 t if t == "UID FETCH" => "* 1 FETCH (UID 7 BODY[] {4}\r\nHi\r\n)\r\n",
//! #                 _ => "",
//! #             };
//! #             format!("{data}{tag} OK done\r\n").into()
//! #         }
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
