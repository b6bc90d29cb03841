//! The trail: what became of each message, for people to look up, and how many came, by the hour.
//!
//! It is no part of what the engine decides by: it may be lost, cut or switched off, and no message is lost, doubled or kept
//! waiting by that. Therefore it is written down apart from [`Store`](crate::Store), by a [`Recorder`] that never waits.

mod query;
mod row;
mod step;

use async_trait::async_trait;
use connectord_mail::UnixTime;

use crate::StoreError;

pub use query::{HourRow, Of, TallyBy, TrailPage, TrailQuery};
pub use row::{Counted, TrailId, TrailRow, TrailState};
pub use step::{About, MAX_STEPS, TrailEntry, TrailKey, TrailName, TrailStep, What};

/// Who takes down what happens to messages.
///
/// Called on each message's way, by many at once: returns at once, whatever the disk does. What cannot be taken down is
/// dropped and counted.
pub trait Recorder: Send + Sync {
    /// Takes something down.
    fn record(&self, entry: TrailEntry);

    /// Whether anything is taken down at all; else nobody needs to put an entry together.
    fn is_on(&self) -> bool {
        true
    }
}

/// Takes nothing down.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrail;

impl Recorder for NoTrail {
    fn record(&self, _entry: TrailEntry) {}

    fn is_on(&self) -> bool {
        false
    }
}

/// Where the trail is looked up. What was recorded in the last second may be missing.
#[async_trait]
pub trait Trail: Send + Sync {
    /// Messages that match, newest first: by when they were first recorded, so that a page stays what it was when
    /// something happens to an old message.
    async fn messages(&self, query: &TrailQuery) -> Result<TrailPage, StoreError>;

    /// One message and what happened to it, in order; `None` when nothing is known of it (any more).
    async fn message(&self, id: TrailId) -> Result<Option<(TrailRow, Vec<TrailStep>)>, StoreError>;

    /// What came in each hour from the one of `from` to the one of `until`, both included, oldest first, empty hours too; at
    /// most the last [`HourRow::MOST`] of them. An hour begins at a whole hour of UTC.
    async fn hours(&self, of: Of<'_>, from: UnixTime, until: UnixTime) -> Result<Vec<HourRow>, StoreError>;

    /// How many messages were delivered since the hour of `since` to each local user, or for each account; by name, only
    /// those with any.
    async fn delivered(&self, by: TallyBy, since: UnixTime) -> Result<Vec<(String, u64)>, StoreError>;

    /// How many entries were dropped since the start, as more came than could be written.
    fn dropped(&self) -> u64 {
        0
    }
}
