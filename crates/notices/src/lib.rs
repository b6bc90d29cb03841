//! Somebody is told: when an account has been failing for long, a login is refused, a message is parked, a local user is
//! missing, a mailbox changed as a whole, the disk is full; and when it is well again.
//!
//! Never a flood. What is told is a *subject*: five hundred accounts at one dead server are one subject, the server. Each
//! is told once, then in reminders that become rarer (a day, two, four, then weekly), then once when it is well. What
//! comes within a minute is told in one notice, which lists at most fifty; so many notices an hour at most. All of this
//! is remembered in the store and survives restarts.
//!
//! | step | module |
//! |---|---|
//! | hears how checks end | [`Inbox`], an observer |
//! | what is worth telling, and when; pure | [`Watch`] |
//! | the words | [`Notice`], [`Bundle`] |
//! | mail, a program, a web address | [`Ways`] |
//! | puts it together | [`Desk`] |
//!
//! Nothing here is in the way of a check: the inbox keeps one finding for each account, and the desk is one task that
//! takes them when it can. A way that does not work is tried four times and then logged.
//!
//! ```
//! use std::collections::BTreeMap;
//! use connectord_engine::Cause;
//! use connectord_mail::UnixTime;
//! use connectord_notices::{Fault, Finding, Place, Policy, Watch};
//!
//! let mut watch = Watch::default();
//! let place = |_| Place { host: "imap.example.org".into(), destination: "default".into(), users: vec!["ann".into()] };
//! let places: BTreeMap<_, _> = (0..500).map(|n| (format!("u{n}@example.org"), place(n))).collect();
//! watch.configure(Policy::default(), places.clone());
//! let fault = Fault { cause: Cause::NoAnswer, user: None, error: "silence".into(), hint: None, next: None };
//! for address in places.keys() {
//!     watch.observe(address, &Finding { fault: Some(fault.clone()), ..Finding::default() }, UnixTime(0));
//! }
//! assert!(watch.due(UnixTime(86_399)).is_empty());
//! assert_eq!(watch.due(UnixTime(86_400)).len(), 1);
//! ```

mod bundle;
mod command;
mod desk;
mod inbox;
mod mail;
mod matter;
mod watch;
mod ways;
mod webhook;
mod words;

pub use bundle::Bundle;
pub use command::Program;
pub use desk::{Desk, Setup};
pub use inbox::Inbox;
pub use mail::{Reader, message};
pub use matter::{Event, Kind, Matter, ParkedMessage, Subject, Trouble};
pub use watch::{Fault, Finding, Place, Policy, Watch};
pub use ways::Ways;
pub use webhook::Webhook;
pub use words::Notice;
