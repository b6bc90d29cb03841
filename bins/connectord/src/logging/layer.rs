//! From a tracing event to a record in the queue.

use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::queue::Queue;
use super::record::Record;
use super::ring::Ring;

/// Which events are logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    pub(crate) level: LevelFilter,
    pub(crate) wire: bool,
}

impl Filter {
    fn passes(self, target: &str, level: Level) -> bool {
        if is_of(target, "connectord::wire") {
            return self.wire;
        }
        let ours = target.starts_with("connectord");
        let least = if ours { self.level } else { self.level.min(LevelFilter::WARN) };
        level <= least
    }

    fn most_verbose(self) -> LevelFilter {
        if self.wire { LevelFilter::TRACE } else { self.level }
    }
}

/// Whether `target` is `parent` or below it.
fn is_of(target: &str, parent: &str) -> bool {
    target.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Puts what passes the filter into the queue.
#[derive(Debug)]
pub(crate) struct ToQueue {
    filter: Filter,
    queue: Arc<Queue>,
    /// Where the page reads.
    ring: Option<Arc<Ring>>,
}

impl ToQueue {
    pub(crate) fn new(filter: Filter, queue: Arc<Queue>, ring: Option<Arc<Ring>>) -> Self {
        Self { filter, queue, ring }
    }
}

impl<S: Subscriber> Layer<S> for ToQueue {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let passes = self.filter.passes(metadata.target(), *metadata.level());
        if passes { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.filter.passes(metadata.target(), *metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter.most_verbose())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut record = Record::new(*metadata.level(), metadata.target());
        event.record(&mut record);
        if let Some(ring) = &self.ring {
            ring.push(&record);
        }
        self.queue.push(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_is_logged_when_asked_for_and_never_else() {
        let with = Filter { level: LevelFilter::OFF, wire: true };
        let without = Filter { level: LevelFilter::TRACE, wire: false };
        for target in ["connectord::wire", "connectord::wire::auth", "connectord::wire::data"] {
            assert!(with.passes(target, Level::TRACE), "{target}");
            assert!(!without.passes(target, Level::TRACE), "{target}");
        }
        assert!(without.passes("connectord::wired", Level::TRACE));
        assert!(!with.passes("connectord::mail", Level::ERROR));
    }

    #[test]
    fn foreign_code_is_logged_from_warn_up_at_most() {
        let passes = |level, target, of| Filter { level, wire: false }.passes(target, of);
        assert!(passes(LevelFilter::TRACE, "connectord_engine::run", Level::TRACE));
        assert!(!passes(LevelFilter::TRACE, "lettre::transport", Level::INFO));
        assert!(passes(LevelFilter::TRACE, "lettre::transport", Level::WARN));
        assert!(!passes(LevelFilter::ERROR, "lettre::transport", Level::WARN));
        assert!(!passes(LevelFilter::INFO, "connectord_engine::run", Level::DEBUG));
        assert!(!passes(LevelFilter::OFF, "connectord_engine::run", Level::ERROR));
    }
}
