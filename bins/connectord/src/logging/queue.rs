//! What waits to be written: bounded, and never waited for by those who log.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::record::Record;

/// Most records that wait.
const MAX_RECORDS: usize = 8192;

/// Most octets that wait: 4 MiB.
const MAX_OCTETS: usize = 4 << 20;

/// Records on their way to the thread that writes.
#[derive(Debug)]
pub(crate) struct Queue {
    max_records: usize,
    max_octets: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: VecDeque<Record>,
    octets: usize,
    dropped: u64,
    /// Set once: nothing more is written after it.
    deadline: Option<Instant>,
    written: bool,
}

/// What the writer is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Write this.
    Record(Record),
    /// Nothing came for as long as it wished to wait.
    Nothing,
    /// End.
    End,
}

impl Default for Queue {
    fn default() -> Self {
        Self::bounded(MAX_RECORDS, MAX_OCTETS)
    }
}

impl Queue {
    pub(crate) fn bounded(max_records: usize, max_octets: usize) -> Self {
        Self { max_records, max_octets, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Puts a record at the end, or counts it as dropped when there is no room.
    pub(crate) fn push(&self, record: Record) {
        let octets = record.octets();
        let mut state = self.state();
        let full = state.records.len() >= self.max_records || state.octets + octets > self.max_octets;
        if full || state.deadline.is_some() {
            state.dropped = state.dropped.saturating_add(1);
            return;
        }
        state.octets += octets;
        state.records.push_back(record);
        drop(state);
        self.changed.notify_all();
    }

    /// The oldest record, waited for at most `patience` (`None`: until one comes), and how many were dropped since the
    /// last call.
    pub(crate) fn next(&self, patience: Option<Duration>) -> (Next, u64) {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut state = self.state();
        loop {
            let over = state.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !over && let Some(record) = state.records.pop_front() {
                state.octets -= record.octets();
                return (Next::Record(record), std::mem::take(&mut state.dropped));
            }
            if state.deadline.is_some() {
                return (Next::End, std::mem::take(&mut state.dropped));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return (Next::Nothing, std::mem::take(&mut state.dropped)),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// No more records are taken; those that wait are written for this long.
    pub(crate) fn close(&self, farewell: Duration) {
        self.state().deadline.get_or_insert_with(|| Instant::now() + farewell);
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().deadline.is_some()
    }

    /// The writer has ended.
    pub(crate) fn written(&self) {
        self.state().written = true;
        self.changed.notify_all();
    }

    /// Waits until the writer has ended; false if it did not in time.
    pub(crate) fn wait_until_written(&self, patience: Duration) -> bool {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, patience, |state| !state.written);
        waited.unwrap_or_else(PoisonError::into_inner).0.written
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic; a log must not be what panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn record(message: &str) -> Record {
        Record { message: message.into(), ..Record::new(Level::INFO, "connectord") }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_older_records_stay() {
        let queue = Queue::bounded(2, usize::MAX);
        let [one, two] = [record("one"), record("two")];
        for record in [one.clone(), two.clone(), record("three"), record("four")] {
            queue.push(record);
        }
        assert_eq!(queue.next(None), (Next::Record(one), 2));
        assert_eq!(queue.next(None), (Next::Record(two), 0));
        assert_eq!(queue.next(Some(Duration::ZERO)), (Next::Nothing, 0));
    }

    #[test]
    fn octets_are_bounded_and_given_back() {
        let long = record(&"x".repeat(1000));
        let queue = Queue::bounded(100, 1500);
        queue.push(long.clone());
        queue.push(long.clone());
        assert_eq!(queue.next(None), (Next::Record(long.clone()), 1));
        queue.push(long.clone());
        assert_eq!(queue.next(None), (Next::Record(long), 0));
    }

    #[test]
    fn a_closed_queue_is_emptied_but_not_after_its_time() {
        let queue = Queue::default();
        let one = record("one");
        queue.push(one.clone());
        queue.close(Duration::from_secs(60));
        queue.push(record("late"));
        assert_eq!(queue.next(None), (Next::Record(one), 1));
        assert_eq!(queue.next(None), (Next::End, 0));
        let queue = Queue::default();
        queue.push(record("one"));
        queue.close(Duration::ZERO);
        assert_eq!(queue.next(None), (Next::End, 0));
    }
}
