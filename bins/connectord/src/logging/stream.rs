//! Lines on standard error.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use jiff::Timestamp;
use tracing::Level;

use super::Colour;
use super::record::Record;
use super::text::{body, severity};
use super::writer::{Refused, Sink};

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// With time and level.
    Human {
        /// Both in colour.
        colour: bool,
    },
    /// With `<6>`, for the journal that reads standard error and knows the time (sd-daemon(3)).
    Journal,
}

/// Lines to something that takes octets one after the other.
pub(crate) struct Stream {
    out: Box<dyn Write + Send>,
    style: Style,
}

impl Stream {
    pub(crate) fn new(out: Box<dyn Write + Send>, style: Style) -> Self {
        Self { out, style }
    }

    /// Standard error, through a descriptor of its own: `std`'s would stay locked while a write blocks, and block
    /// everybody who prints.
    pub(crate) fn stderr(colour: Colour) -> Self {
        let stderr = io::stderr();
        let style = if is_the_journal(&stderr) { Style::Journal } else { Style::Human { colour: colour.on(&stderr) } };
        match stderr.as_fd().try_clone_to_owned() {
            Ok(own) => Self::new(Box::new(File::from(own)), style),
            Err(_) => Self::new(Box::new(io::sink()), style),
        }
    }
}

/// systemd names the journal's socket by device and inode.
fn is_the_journal(stderr: &impl AsFd) -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let stat = rustix::fs::fstat(stderr).ok();
    named.zip(stat).is_some_and(|(named, stat)| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

impl Sink for Stream {
    fn encode(&self, record: &Record) -> Vec<u8> {
        let body = body(record);
        let line = match self.style {
            Style::Journal => format!("<{}>{body}\n", severity(record.level)),
            Style::Human { colour } => {
                let at = Timestamp::try_from(record.at).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ");
                let level = record.level;
                match (colour, paint(level)) {
                    (false, _) => format!("{at} {level} {body}\n"),
                    (true, paint) => format!("\x1b[2m{at}\x1b[0m {paint}{level}\x1b[0m {body}\n"),
                }
            }
        };
        line.into_bytes()
    }

    fn send(&mut self, octets: &[u8]) -> Result<usize, Refused> {
        let written = self.out.write(octets)?;
        self.out.flush()?;
        Ok(written)
    }
}

fn paint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[1;31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[2m",
    }
}
