//! One event, made inert and bounded when it is recorded.

use std::error::Error;
use std::fmt::{self, Write};
use std::time::SystemTime;

use tracing::Level;
use tracing::field::{Field, Visit};

use super::text::Inert;

/// Longest value, in octets as written; what is beyond is cut and marked with `…`. A piece of 1,024 octets of a wire
/// trace has room, each octet written as `\xNN`.
const MAX_VALUE: usize = 4096;

/// Octets of bookkeeping that a value is counted with.
const OVERHEAD: usize = 48;

/// An event as it waits to be written. Nothing in it can end a line, turn text around or command a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) at: SystemTime,
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    pub(crate) message: String,
    /// In the order they were recorded.
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Record {
    pub(crate) fn new(level: Level, target: &'static str) -> Self {
        Self { at: SystemTime::now(), level, target, message: String::new(), fields: Vec::new() }
    }

    /// What it takes in the queue, about.
    pub(crate) fn octets(&self) -> usize {
        let fields = self.fields.iter().map(|(_, value)| value.len() + OVERHEAD);
        self.message.len() + 2 * OVERHEAD + fields.sum::<usize>()
    }

    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let mut inert = Inert::new(MAX_VALUE);
        // It fails when it is full, which spares the rest of a long value; it has marked the cut.
        let _ = inert.write_fmt(value);
        let value = inert.finish();
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name.trim_start_matches("r#"), value)),
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, format_args!("{}", Chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

/// An error with what caused it.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&connectord_engine::chain(self.0))
    }
}
