//! What the engine remembers, as a trait named by intent.
//!
//! This crate keeps nothing durably: [`Store`] is the contract, [`memory::MemoryStore`] keeps it in memory for tests, and
//! [`battery`] is what every back end passes. The durable ones are in `connectord-stores`.
//!
//! # What is durable when
//!
//! A method that changes something returns when the change is durable, not before. Changes to messages take the
//! account's [`Lease`]; without it they fail with [`StoreError::LeaseLost`] and change nothing.
//!
//! | state of a message | set by |
//! |---|---|
//! | `Pending` | [`Store::begin`], [`Store::defer`]; by a person [`Store::retry`], [`Store::deliver`] |
//! | `Delivered` | [`Store::settle`], once all its deliveries are |
//! | `Removing`, `Done`, `Skipped` | [`Store::mark`]; by a person [`Store::skip`] |
//! | `Parked` | [`Store::settle`], [`Store::park`] |
//! | `Discarding` | by a person [`Store::delete`] |

pub mod battery;
mod error;
pub mod memory;
mod reason;
mod rows;
mod saved;
mod trail;
mod traits;
mod values;

pub use error::StoreError;
pub use reason::Reason;
pub use rows::{
    Absence, AccountId, AccountRow, Begin, DeliveryRow, Health, Hold, Lease, MailboxId, MailboxRow, Mark, MessageName,
    MessageRef, ParkedDelivery, ParkedRow, PutOff, PutOffBy, Quiet, RunId, RunRow, Settle, Settled, Step,
};
pub use saved::{
    ChangeId, ChangeRow, Changed, Expected, Save, SavedAccount, SavedAccounts, Sealed, SecretChange, Stamp,
};
pub use trail::{
    About, Counted, HourRow, MAX_STEPS, NoTrail, Of, Recorder, TallyBy, Trail, TrailEntry, TrailId, TrailKey,
    TrailName, TrailPage, TrailQuery, TrailRow, TrailState, TrailStep, What,
};
pub use traits::Store;
pub use values::Values;
