//! What every mail destination is to the engine.
//!
//! This crate delivers nothing: it declares [`Delivery`] and the values that pass through it. The destinations are in
//! `connectord-deliveries`, and a stranger's is as good as those.
//!
//! # The two steps
//!
//! The engine commits to its store between the steps, so that a crash at any moment leaves a state from which it is
//! known, or can be asked, whether a message arrived.
//!
//! 1. [`Delivery::prepare`] makes a batch of [`Parcel`]s ready in a way that can still be undone. A Maildir writes and
//!    syncs files in `tmp/`; LMTP connects and has the recipients accepted. What a later [`Delivery::recall`] needs to
//!    find the parcel again is in its [`Note`].
//! 2. The engine commits the notes (or, without notes, that an attempt begins).
//! 3. [`Prepared::complete`] makes the batch visible and answers for each parcel with an [`Outcome`].
//! 4. The engine commits the outcomes.
//!
//! Dropping a [`Prepared`] batch undoes it.
//!
//! ```
//! use async_trait::async_trait;
//! use connectord_delivery::{BatchLimits, Delivery, Failure, Note, Outcome, Parcel, Prepared, Presence, Recalled, RecallRow, Recipient};
//!
//! /// Takes every message and forgets it.
//! struct Null;
//!
//! #[async_trait]
//! impl Delivery for Null {
//!     fn describe(&self) -> String { "null".into() }
//!     fn limits(&self) -> BatchLimits { BatchLimits::default() }
//!     async fn presence(&self, _: &Recipient) -> Result<Presence, Failure> { Ok(Presence::Here) }
//!     async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
//!         Box::new(NullBatch(batch.iter().map(|_| Ok(None)).collect()))
//!     }
//!     async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> { rows.iter().map(|_| Recalled::Unknown).collect() }
//! }
//!
//! struct NullBatch(Vec<Result<Option<Note>, Failure>>);
//!
//! #[async_trait]
//! impl Prepared for NullBatch {
//!     fn notes(&self) -> &[Result<Option<Note>, Failure>] { &self.0 }
//!     async fn complete(self: Box<Self>) -> Vec<Outcome> {
//!         self.0.iter().map(|_| Outcome::Delivered { detail: "forgotten".into() }).collect()
//!     }
//! }
//! ```

mod failure;
mod parcel;
mod template;
mod traits;

pub use failure::{Failure, FailureKind};
pub use parcel::{Parcel, Recipient};
pub use template::{Template, TemplateError};
pub use traits::{BatchLimits, Delivery, Note, Outcome, Prepared, Presence, RecallRow, Recalled};
