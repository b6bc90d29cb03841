//! The log: standard error, syslog or the journal, and never in the way of mail.
//!
//! Whoever logs only formats the values and puts the line into a bounded [`Queue`]; one thread writes. A log that is
//! full, slow or absent costs lines, which are counted and told (`dropped n log lines`), and nothing else.
//!
//! | target | what a line looks like |
//! |---|---|
//! | stderr | `2026-11-22T19:31:00Z INFO delivery account=a@example.org …` |
//! | stderr that is the journal's (`JOURNAL_STREAM`) | `<6>delivery account=a@example.org …` |
//! | syslog | `<22>Nov 22 20:31:00 connectord[123]: delivery account=a@example.org …`, facility mail |
//! | journald | the same text as `MESSAGE`, and each value as a field of its own |

mod journald;
mod layer;
mod queue;
mod record;
mod ring;
mod stream;
mod syslog;
mod text;
mod writer;

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub(crate) use connectord::look::Colour;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use self::layer::{Filter, ToQueue};
use self::queue::Queue;
use self::writer::{PATIENCE, Sink};

pub(crate) use self::ring::Ring;
pub(crate) use self::text::Inert;

/// How long the end of the program waits for the last lines.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard error.
    #[default]
    Stderr,
    /// The system's syslog, facility mail.
    Syslog,
    /// The systemd journal, with fields.
    Journald,
}

/// What is logged, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where to; default standard error.
    pub(crate) target: Target,
    /// The least important level that is logged; default `INFO`. Code that is not ours is logged from `WARN` up at
    /// most: nobody has looked whether its traces contain passwords.
    pub(crate) level: LevelFilter,
    /// Also what goes over the wire (passwords hidden), whatever the level; default no.
    pub(crate) wire: bool,
    /// Default automatic.
    pub(crate) colour: Colour,
}

impl Default for Settings {
    fn default() -> Self {
        Self { target: Target::default(), level: LevelFilter::INFO, wire: false, colour: Colour::default() }
    }
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// There is no thread for it.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// It runs already.
    #[error("the log was started twice")]
    Twice,
}

/// Keeps the log going. Dropping it writes what is queued, for at most 2 s.
#[must_use = "the log ends with its guard"]
pub(crate) struct Guard {
    queue: Arc<Queue>,
    writer: Option<thread::JoinHandle<()>>,
}

/// Starts the log of this process. A target that is absent or full is no error: it is tried again and again.
///
/// Panics are logged too, as errors: printing them could block on a standard error that nobody reads.
///
/// # Errors
/// There is no thread for it, or the log was started before.
pub(crate) fn start(settings: &Settings) -> Result<Guard, Error> {
    start_with(settings, None)
}

/// As [`start`], with the last lines kept for the page too.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_with(settings: &Settings, ring: Option<Arc<Ring>>) -> Result<Guard, Error> {
    let sink: Box<dyn Sink> = match settings.target {
        Target::Stderr => Box::new(stream::Stream::stderr(settings.colour)),
        Target::Syslog => Box::new(syslog::Syslog::new(syslog::SOCKET)),
        Target::Journald => Box::new(journald::Journald::new(journald::SOCKET)),
    };
    install(settings, sink, ring)
}

/// As [`start`], with standard error replaced by `lines`: for a terminal that also shows progress.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_above(settings: &Settings, lines: Box<dyn Write + Send>) -> Result<Guard, Error> {
    if settings.target != Target::Stderr {
        return start(settings);
    }
    let colour = settings.colour.on(&io::stderr());
    install(settings, Box::new(stream::Stream::new(lines, stream::Style::Human { colour })), None)
}

fn install(settings: &Settings, sink: Box<dyn Sink>, ring: Option<Arc<Ring>>) -> Result<Guard, Error> {
    let (subscriber, guard) = build(settings, sink, Arc::new(Queue::default()), ring, PATIENCE)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Twice)?;
    log_panics(settings.target);
    Ok(guard)
}

fn build(
    settings: &Settings,
    sink: Box<dyn Sink>,
    queue: Arc<Queue>,
    ring: Option<Arc<Ring>>,
    patience: Duration,
) -> Result<(impl Subscriber + Send + Sync + use<>, Guard), Error> {
    let writer = {
        let queue = Arc::clone(&queue);
        let run = move || writer::run(&queue, sink, patience);
        thread::Builder::new().name("log".into()).spawn(run).map_err(Error::Thread)?
    };
    let guard = Guard { queue: Arc::clone(&queue), writer: Some(writer) };
    let filter = Filter { level: settings.level, wire: settings.wire };
    Ok((registry().with(ToQueue::new(filter, queue, ring)), guard))
}

/// Where standard error is not the log, panics are printed there as well: nothing else fills it.
fn log_panics(target: Target) {
    let printed = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let reason = panic.payload_as_str().unwrap_or("no reason given");
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(target: "connectord", %at, reason, "panic");
        if target != Target::Stderr {
            printed(panic);
        }
    }));
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.queue.close(FAREWELL);
        let done = self.queue.wait_until_written(FAREWELL);
        let writer = self.writer.take().filter(|_| done);
        // A thread that is stuck in a write is left behind: the process ends, and it with it.
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests;
