//! What every mail filter is to the engine.
//!
//! This crate connects to nothing, opens no file and reads no clock: it declares [`Filter`], says what a filter is given
//! ([`Message`]) and may answer ([`Verdict`]), and decides what follows ([`Policy::decide`]). Those for Rspamd,
//! ClamAV, SpamAssassin and commands come in a crate of their own, and a stranger's filter is as good as those.
//!
//! # From a message to what becomes of it
//!
//! 1. The engine recovers the envelope (`connectord_mail::Envelope::recover_trusting`) and makes a [`Message`].
//! 2. It asks each filter of the [`Chain`] that the account's policy wants, side by side, within the message's deadline.
//! 3. [`Policy::decide`] makes one [`Decision`] of all [`Answer`]s: deliver (into a folder, marked), quarantine, discard,
//!    come back later, or park. It is a function of values: the same answers decide the same.
//! 4. [`Edits::apply`] makes the message that is delivered: fields in front, forged ones gone, a subject prefix.
//!
//! No filter loses mail: a filter finds, the policy decides, and only what is written in the configuration discards.
//!
//! | item | what it is for |
//! |---|---|
//! | [`Filter`], [`Message`], [`Limits`], [`Health`] | what a filter is, is given, bears, and how it does |
//! | [`Verdict`], [`Finding`], [`Action`], [`Unchecked`] | what it answers |
//! | [`Chain`], [`Answer`] | which filters there are, and what each said |
//! | [`Policy`], [`Decision`], [`Disposition`] | what follows |
//! | [`Edits`], [`Edited`] | header changes, and a body that reads as changed |
//! | [`Quarantine`], [`Held`] | where messages are kept back, and with what |
//! | [`Teacher`] | what learns from a release |
//! | [`Notice`] | the message in place of an infected one |
//! | [`Rules`] | allow and block lists, thresholds, conditions, blocked attachments |
//! | [`attachment`] | what is attached, by name and by content |
//! | [`battery`] | what every filter must pass |
//!
//! ```
//! use async_trait::async_trait;
//! use connectord_filter::{Action, Filter, Finding, Kind, Message, Probe, Unchecked, Verdict};
//!
//! /// Takes for spam what shouts in its subject.
//! struct Shouting;
//!
//! #[async_trait]
//! impl Filter for Shouting {
//!     fn name(&self) -> &str { "shouting" }
//!     fn describe(&self) -> String { "shouting".into() }
//!     fn kind(&self) -> Kind { Kind::Antispam }
//!
//!     async fn check(&self, message: &Message) -> Verdict {
//!         let subject = message.head().field("Subject").unwrap_or_default();
//!         let shouts = subject.len() > 5 && !subject.iter().any(u8::is_ascii_lowercase);
//!         let action = if shouts { Action::AddHeader } else { Action::NoAction };
//!         Verdict::Found(Finding { action, milli_score: Some(if shouts { 6_000 } else { 0 }), ..Finding::default() })
//!     }
//!
//!     async fn probe(&self, _: std::time::Instant) -> Result<Probe, Unchecked> {
//!         Ok(Probe { version: "1".into(), found_test_sample: None })
//!     }
//! }
//! ```

pub mod attachment;
pub mod battery;
mod chain;
mod edit;
#[doc(hidden)]
pub mod fuzzing;
mod notice;
mod policy;
mod quarantine;
mod rules;
mod traits;
mod verdict;

pub use chain::{Answer, Chain};
pub use edit::{Edited, Edits, OUR_FIELDS};
pub use notice::Notice;
pub use policy::{
    Decision, Disposition, Exhausted, History, OnFailure, OnSpam, OnTooLarge, OnVirus, Policy, Thresholds,
};
pub use quarantine::{Class, Held, HeldFor, Quarantine, QuarantineError, Teacher};
pub use rules::{Condition, Pattern, PatternError, Rule, Rules};
pub use traits::{Filter, Health, Kind, Limits, Message, Probe};
pub use verdict::{Action, Finding, HeaderChange, Ruling, Symbol, Unchecked, Verdict, Why};
