//! The last lines of the log, for the page: whatever the target is, and as inert as there.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use connectord_admin::{At, Event, LogLine, LogQuery};
use tokio::sync::broadcast;
use tracing::Level;

use super::record::Record;
use super::text::body;

/// Lines that are kept, and octets of all of them.
const LINES: usize = 5_000;
const OCTETS: usize = 2 << 20;

/// Events that wait for whoever looks slowly; then the oldest are lost.
const EVENTS: usize = 1024;

/// Takes each line, and returns at once.
pub(crate) struct Ring {
    lines: Mutex<Lines>,
    events: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<LogLine>,
    octets: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { lines: Mutex::default(), events: broadcast::channel(EVENTS).0 }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    /// Where lines are told, and everything else that whoever looks at the page must hear of.
    pub(crate) fn events(&self) -> broadcast::Sender<Event> {
        self.events.clone()
    }

    /// The last lines that match, oldest first.
    pub(crate) fn last(&self, query: &LogQuery) -> Vec<LogLine> {
        let lines = self.lines();
        let mut found: Vec<LogLine> =
            lines.kept.iter().rev().filter(|line| query.wants(line)).take(query.limit).cloned().collect();
        found.reverse();
        found
    }

    /// Dialogues with servers are too many, and nobody's business but a developer's.
    pub(super) fn push(&self, record: &Record) {
        let level = match record.level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => return,
        };
        let at = record.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let account = record.fields.iter().find(|(name, _)| *name == "account").map(|(_, value)| value.clone());
        let line = LogLine {
            at: At(i64::try_from(at).unwrap_or_default()),
            level,
            account: account.unwrap_or_default(),
            text: body(record),
        };
        self.keep(line.clone());
        if self.events.receiver_count() > 0 {
            let _ = self.events.send(Event::Log(Box::new(line)));
        }
    }

    fn keep(&self, line: LogLine) {
        let mut lines = self.lines();
        lines.octets += line.text.len();
        lines.kept.push_back(line);
        while lines.kept.len() > LINES || lines.octets > OCTETS {
            let Some(oldest) = lines.kept.pop_front() else { break };
            lines.octets -= oldest.text.len();
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(level: Level, text: &str) -> Record {
        let mut record = Record::new(level, "connectord");
        record.message = text.to_owned();
        record.fields.push(("account", "ann@x".to_owned()));
        record
    }

    #[test]
    fn the_last_lines_are_kept_and_no_more_than_fit() {
        let ring = Ring::default();
        for number in 0..LINES + 10 {
            ring.push(&record(Level::INFO, &format!("line {number}")));
        }
        ring.push(&record(Level::TRACE, "wire"));
        let all = ring.last(&LogQuery { limit: usize::MAX, ..LogQuery::default() });
        assert_eq!((all.len(), all[0].text.as_str()), (LINES, "line 10 account=ann@x"));
        assert_eq!(all[0].account, "ann@x");
        let last = ring.last(&LogQuery { limit: 2, ..LogQuery::default() });
        assert_eq!(last[1].text, format!("line {} account=ann@x", LINES + 9));
        for _ in 0..3 {
            ring.push(&record(Level::WARN, &"x".repeat(OCTETS / 2)));
        }
        assert!(ring.last(&LogQuery { limit: usize::MAX, ..LogQuery::default() }).len() < 3);
    }
}
