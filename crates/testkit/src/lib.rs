//! For tests only: real servers started privately, scripted servers, fault proxies, sample mail, and the house test.
//!
//! Nothing here belongs in a program that runs: everything panics with a reason instead of returning an error, and no
//! other crate may depend on this one but as a dev-dependency. Everything is blocking to call and needs no runtime of
//! the caller's: it works the same from `#[test]` and from `#[tokio::test]`. Everything stops when it is dropped.
//!
//! | what | where |
//! |---|---|
//! | a private CA, server certificates, rustls configurations (from `connectord-sample`) | [`Certificates`] |
//! | Dovecot 2.3: POP3, IMAP, LMTP with Sieve | [`Dovecot`], [`DovecotOptions`], [`Service`] |
//! | more POP3 and IMAP servers | [`Mailutils`], [`Cyrus`], [`Courier`] |
//! | an IMAP server from PyPI | [`Pymap`] |
//! | Rspamd, clamd, spamd, and DNS zones | [`Rspamd`], [`Clamd`], [`Spamd`], [`Dns`] |
//! | a dialogue played line by line | [`Script`], [`ScriptServer`] |
//! | small whole servers with counters and misbehaviour | [`servers::Pop3Server`], [`servers::ImapServer`] |
//! | cuts, stalls, delays, drips in front of any server | [`FaultProxy`], [`Faults`], [`Fault`], [`Cut`] |
//! | deterministic sample mail | [`corpus::messages`], [`Message`] |
//! | kills and failures at each system call of the real program | `walk` (Linux on x86_64) |
//! | every file of a fuzzing corpus as a regression test | [`replay!`] |
//! | levels, arrows and purity of the workspace | [`house`] |
//!
//! ```no_run
//! use connectord_testkit::{Dovecot, DovecotOptions, FaultProxy, Service, corpus};
//!
//! let dovecot = Dovecot::start(DovecotOptions::new().user("ann", "secret"));
//! dovecot.seed("ann", "INBOX", &corpus::messages(100, 1));
//! let proxy = FaultProxy::start(dovecot.address(Service::Imaps));
//! // … let a client fetch from `proxy.port()`, trusting `dovecot.certificates().ca_file()` …
//! assert_eq!(dovecot.messages("ann", "INBOX").len(), 100);
//! ```

pub mod house;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod walk;

mod courier;
mod cyrus;
mod dovecot;
mod maildir;
mod mailutils;
mod private;
mod process;
mod proxy;
mod pypi;
mod replay;
mod scanners;
mod script;
mod talk;
mod unpacked;

pub use connectord_sample::{Certificates, Message, corpus, servers};
pub use courier::Courier;
pub use cyrus::Cyrus;
pub use dovecot::{Dovecot, DovecotOptions, Service};
pub use mailutils::Mailutils;
pub use proxy::{Cut, Direction, Fault, FaultProxy, Faults};
pub use pypi::Pymap;
pub use replay::replay_corpus;
pub use scanners::{Clamd, Dns, Rspamd, Spamd};
pub use script::{Script, ScriptServer};
