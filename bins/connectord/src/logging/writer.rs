//! The one thread that writes. It may wait; nobody waits for it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tracing::Level;

use super::queue::{Next, Queue};
use super::record::Record;

/// How long the first line of an outage is tried again before lines are dropped: time for rsyslog to restart.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The same when the program ends.
const LAST_PATIENCE: Duration = Duration::from_millis(300);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How often it is tried to tell of dropped lines when nothing else is logged.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Where lines go.
pub(crate) trait Sink: Send {
    /// The octets of one record, no longer than the sink takes at once.
    fn encode(&self, record: &Record) -> Vec<u8>;

    /// Sends the octets, or the first part of them, and says how many went.
    fn send(&mut self, octets: &[u8]) -> Result<usize, Refused>;
}

/// Why a sink did not take octets.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Not now: full, absent, or anything else that may pass.
    Later,
    /// Too long at once; from now on [`Sink::encode`] makes less of it.
    TooLong,
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        // There is nobody to tell but the log. Full disk, closed pipe, no socket: all of them may pass.
        Self::Later
    }
}

/// Writes until the queue is closed.
pub(crate) fn run(queue: &Queue, sink: Box<dyn Sink>, patience: Duration) {
    let mut writer = Writer { queue, sink, patience, outage: None, torn: false };
    let mut lost = 0_u64;
    loop {
        let wait = (lost > 0).then_some(TELL_AGAIN);
        let (next, dropped) = queue.next(wait);
        lost = lost.saturating_add(dropped);
        let ended = next == Next::End;
        if let Next::Record(record) = next
            && !writer.write(&record)
        {
            lost = lost.saturating_add(1);
            continue;
        }
        if lost > 0 && writer.write(&notice(lost)) {
            lost = 0;
        }
        if ended {
            break;
        }
    }
    queue.written();
}

fn notice(lost: u64) -> Record {
    let lines = if lost == 1 { "line" } else { "lines" };
    Record { message: format!("dropped {lost} log {lines}"), ..Record::new(Level::WARN, "connectord") }
}

struct Writer<'a> {
    queue: &'a Queue,
    sink: Box<dyn Sink>,
    patience: Duration,
    /// Since when nothing could be written.
    outage: Option<Instant>,
    /// The last line was written in part.
    torn: bool,
}

impl Writer<'_> {
    /// Writes one record; false if it could not be written.
    fn write(&mut self, record: &Record) -> bool {
        let mut pause = Duration::from_millis(1);
        let mut line = self.line(record);
        let mut sent = 0;
        while sent < line.len() {
            match self.sink.send(&line[sent..]) {
                Ok(count) if count > 0 => {
                    sent += count;
                    self.outage = None;
                }
                Err(Refused::TooLong) if sent == 0 => line = self.line(record),
                Ok(_) | Err(_) => {
                    if self.gives_up() {
                        self.torn |= sent > 0;
                        return false;
                    }
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        self.torn = false;
        true
    }

    fn line(&self, record: &Record) -> Vec<u8> {
        let mut line = self.sink.encode(record);
        if self.torn {
            line.insert(0, b'\n');
        }
        line
    }

    fn gives_up(&mut self) -> bool {
        let since = *self.outage.get_or_insert_with(Instant::now);
        let patience = if self.queue.is_closed() { self.patience.min(LAST_PATIENCE) } else { self.patience };
        since.elapsed() >= patience
    }
}
