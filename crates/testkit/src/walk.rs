//! A walk over the system calls of the real program: at each of them it is killed, or the call fails, or it is told to stop,
//! and in the end every message must have come, and come once.
//!
//! One round for one *point*, which is the number of a call, counted over all threads of the program from its `execve` to
//! its end: `connectord fetch` runs against a private Dovecot, and at the point happens what the [`Mode`] says. Then it
//! runs again, undisturbed, until nothing is left to do. Fourteen messages, of which two are twins and one is in both
//! accounts, come from two accounts; both go to `ann`, one also to `bob`: twenty deliveries into two Maildirs.
//!
//! | what is counted | when |
//! |---|---|
//! | lost | neither in the Maildir nor at the server; or gone from the server though it was to stay |
//! | duplicated | there more than once for one recipient |
//! | corrupted | other octets than the server sent, or a file that is no message |
//! | stuck | at the server, and the program ends without fetching or removing it; or it hangs, or does not end well |
//! | other | files left in `tmp/`, a panic, exit status 0 though not all was done, no end within 15 s of SIGTERM |
//!
//! # How points are counted
//!
//! Threads meet in another order each time, so two runs do not make the same calls: waits (`futex`, `epoll_wait`) and reads
//! that found nothing yet come more or less often. The point of a number is therefore not the same call in each run, and
//! what was struck is printed. [`Walk::run`] counts the calls of several plain runs first, and goes on from point to point
//! until no run gets as far: three rounds in a row beyond the most that a plain run has made.
//!
//! # All of it
//!
//! ```text
//! cargo run --release -p connectord-testkit --example walk -- --protocol imap --mode kill
//! ```
//!
//! Without `--protocol` and `--mode` it visits all. A sample runs with the other tests (`bins/connectord/tests/walk.rs`).
//! It needs root for Dovecot, Linux on x86_64, and the right to trace its own children. The working directory is in
//! `TMPDIR`. Nothing stays behind, also when it is interrupted.

mod calls;
mod figures;
mod order;
mod scene;
mod tracer;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use figures::Figures;
pub use order::Order;

use calls::{Call, Kind};
use scene::{Scene, Verdict};
use tracer::Plan;

/// Longest run of the program; it needs a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest time from SIGTERM to the end.
const GRACE: Duration = Duration::from_secs(15);

/// Most runs after the one that was struck.
const RUNS: usize = 6;

/// Plain runs before a walk.
const PLAIN: usize = 3;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// SIGKILL for the whole program before the call is made. Every call is a point.
    Kill,
    /// SIGKILL when the call has been made and the program does not know yet. Every call is a point.
    KillAfter,
    /// The call is not made and fails with EIO. Every call on a file is a point.
    Eio,
    /// The call is not made and fails with ENOSPC. Every call on a file that may need room, or syncs, is a point.
    Enospc,
    /// From this call on, every call that needs room fails with ENOSPC, to the end of the run.
    Full,
    /// Half of the octets are written. Every write of at least two octets to a file is a point.
    Short,
    /// SIGTERM; the program must end within 15 s. Every call is a point.
    Term,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Kill, Self::KillAfter, Self::Eio, Self::Enospc, Self::Full, Self::Short, Self::Term];

    /// Its name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillAfter => "kill-after",
            Self::Eio => "eio",
            Self::Enospc => "enospc",
            Self::Full => "full",
            Self::Short => "short",
            Self::Term => "term",
        }
    }

    /// The mode of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    fn needs_kind(self) -> bool {
        !matches!(self, Self::Kill | Self::KillAfter | Self::Term)
    }

    fn is_about(self, call: &Call, kind: Kind) -> bool {
        match self {
            Self::Kill | Self::KillAfter | Self::Term => true,
            Self::Eio => kind.file,
            Self::Enospc => kind.allocates,
            Self::Full => kind.allocates && call.needs_blocks(),
            Self::Short => kind.writes,
        }
    }

    /// The program goes on after it, and says at its end whether all was done.
    fn is_survived(self) -> bool {
        matches!(self, Self::Eio | Self::Enospc | Self::Full | Self::Short)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How mail is retrieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// POP3.
    Pop3,
    /// IMAP.
    Imap,
}

/// What is walked over.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program, `connectord`.
    pub binary: PathBuf,
    /// How it retrieves.
    pub protocol: Protocol,
    /// `delete` of both accounts: `immediately` empties the mailboxes, with anything else all must stay.
    pub delete: String,
    /// Whether a mail reader takes all new mail away after each run.
    pub reader: bool,
    /// Whether the run after the one that was struck is killed, too, at some call.
    pub twice: bool,
    /// Whether connections are encrypted: more calls, none of them on files.
    pub tls: bool,
    /// How many rounds go on at once.
    pub jobs: usize,
    /// Whether progress is said on stderr.
    pub progress: bool,
}

impl Options {
    /// Removal at once, no reader, struck once, no TLS, two rounds at once, in silence.
    pub fn new(binary: impl Into<PathBuf>, protocol: Protocol) -> Self {
        let (binary, delete) = (binary.into(), "immediately".to_owned());
        Self { binary, protocol, delete, reader: false, twice: false, tls: false, jobs: 2, progress: false }
    }
}

/// Which points are visited.
#[derive(Clone, Copy, Debug)]
pub enum Points {
    /// Every `step`th, beginning with `from`, which is at least 1.
    From {
        /// The first.
        from: u64,
        /// How far it is to the next.
        step: u64,
    },
    /// About so many, spread evenly; others for each mode and protocol, the same every time.
    About(u64),
    /// One, so many times: to look for what was seen once.
    Again {
        /// Which.
        point: u64,
        /// How often.
        times: u64,
    },
}

/// A Dovecot and what the program is to fetch from it, for any number of walks.
pub struct Walk {
    scene: Scene,
    options: Options,
    /// What plain runs counted.
    plain: OnceLock<Vec<HashMap<Mode, u64>>>,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk").field("options", &self.options).finish_non_exhaustive()
    }
}

/// How one run of a program ended at whose call something happened.
#[derive(Debug)]
pub struct Struck {
    /// The call; nothing when the program ended before.
    pub point: Option<String>,
    /// Its exit status; nothing when a signal ended it.
    pub code: Option<i32>,
    /// It did not end within two minutes, or within 15 s of SIGTERM.
    pub hung: bool,
}

/// Runs any program, of which this happens at the call of this number, from 1. What it says is in the files `stdout` and
/// `stderr` of its directory.
///
/// # Panics
/// When the program cannot be started or traced.
pub fn strike(command: &Command, mode: Mode, at: u64) -> Struck {
    let tracer::Run { point, code, hung, .. } = traced(command, Plan::At(mode, at));
    Struck { point, code, hung }
}

/// How many calls of a program, which is left alone, a mode is about.
///
/// # Panics
/// As [`strike`], and when it does not end with exit status 0.
pub fn count(command: &Command, mode: Mode) -> u64 {
    let run = traced(command, Plan::Count);
    assert_eq!(run.code, Some(0), "an undisturbed run failed");
    run.counts.get(&mode).copied().unwrap_or(0)
}

/// Traces one run on a thread that has no other children.
fn traced(command: &Command, plan: Plan) -> tracer::Run {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| tracer::run(command, plan, PATIENCE, GRACE)).join();
        run.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What came of one round.
struct Round {
    /// What was struck; nothing when the program ended before.
    point: Option<String>,
    verdict: Verdict,
    other: u64,
    /// Everything that is known, where something is wrong.
    report: Option<String>,
}

impl Walk {
    /// Starts Dovecot.
    ///
    /// # Panics
    /// As [`Dovecot::start`](crate::Dovecot::start).
    pub fn start(options: Options) -> Self {
        assert!(options.binary.exists(), "{} is not there: build it", options.binary.display());
        Self { scene: Scene::start(options.clone()), options, plain: OnceLock::new() }
    }

    /// Visits the points of one mode.
    ///
    /// # Panics
    /// When an undisturbed run does not do what it should, or ptrace is not allowed.
    pub fn run(&self, mode: Mode, points: Points) -> Figures {
        let began = Instant::now();
        let plain = self.plain.get_or_init(|| self.plain_runs());
        let counts = || plain.iter().map(|counts| counts.get(&mode).copied().unwrap_or(0));
        let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
        let figures = Figures { least, most, ..Figures::new(mode, self.options.protocol) };
        let (from, step, last) = match points {
            Points::From { from, step } => (from.max(1), step.max(1), u64::MAX),
            Points::About(count) => {
                let step = (least / count.max(1)).max(1);
                let salt = 3 + 7 * mode as u64 + 31 * self.options.protocol as u64;
                (1 + salt % step, step, least)
            }
            Points::Again { times, .. } => (1, 1, times),
        };
        let course = Course { from, step, last, most, next: AtomicU64::new(0), beyond: AtomicU64::new(0) };
        let figures = Mutex::new(figures);
        std::thread::scope(|scope| {
            for _ in 0..self.options.jobs.max(1) {
                scope.spawn(|| {
                    while let Some(at) = course.next() {
                        let point = if let Points::Again { point, .. } = points { point } else { at };
                        let mut round = self.round(mode, point);
                        let mut rounds = 1;
                        // Another run may well get as far.
                        while round.point.is_none() && at <= most && rounds < 3 && round.report.is_none() {
                            round = self.round(mode, point);
                            rounds += 1;
                        }
                        course.went(at, round.point.is_some());
                        let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
                        figures.add(rounds, &round);
                        if let Some(report) = &round.report {
                            eprintln!("{report}");
                        }
                        if self.options.progress && figures.rounds.is_multiple_of(50) {
                            eprintln!("{at} of some {most}: {figures}");
                        }
                    }
                });
            }
        });
        let mut figures = figures.into_inner().unwrap_or_else(PoisonError::into_inner);
        figures.duration = began.elapsed();
        figures
    }

    /// Follows an undisturbed check of one account, without TLS, and looks whether each message was durable before the
    /// server was asked to remove it: file synced, `tmp/` synced, moved, `new/` synced, state synced.
    ///
    /// # Panics
    /// When the run does not do what it should.
    pub fn order(&self) -> Order {
        let place = self.scene.place();
        let mut command = place.fetch();
        command.arg("one@example.org");
        let run = traced(&command, Plan::Watch);
        assert_eq!(run.code, Some(0), "an undisturbed run failed: {}", place.stderr());
        Order::of(&run.deeds)
    }

    /// Counts the calls of undisturbed runs, which must do their work.
    fn plain_runs(&self) -> Vec<HashMap<Mode, u64>> {
        let count = |_| {
            let place = self.scene.place();
            let run = traced(&place.fetch(), Plan::Count);
            let verdict = place.verdict();
            assert!(
                run.code == Some(0) && verdict == Verdict::default(),
                "an undisturbed run ended with {:?} and {verdict:?}:\n{}",
                run.code,
                place.stderr()
            );
            run.counts
        };
        (0..PLAIN).map(count).collect()
    }

    fn round(&self, mode: Mode, at: u64) -> Round {
        let place = self.scene.place();
        let struck = traced(&place.fetch(), Plan::At(mode, at));
        let mut told = vec![format!("struck: exit {:?}\n{}", struck.code, place.stderr())];
        let mut wrong = Vec::new();
        if struck.hung {
            wrong.push(match struck.stopped_after {
                Some(after) => format!("no end within {after:?} of SIGTERM"),
                None => format!("no end within {PATIENCE:?}"),
            });
        }
        if place.stderr().contains("panicked") {
            wrong.push("a panic".to_owned());
        }
        if mode.is_survived() && struck.code == Some(0) && !place.is_done() {
            wrong.push(format!("exit status 0 though not all was done: {:?}", place.verdict().details));
        }
        let mut quiet = false;
        for again in 0..RUNS {
            if self.options.reader {
                place.read_mail();
            }
            // Any other call: the numbers of one round have nothing to do with those of the next.
            let plan =
                if self.options.twice && again == 0 { Plan::At(Mode::Kill, 1 + at * 7919 % 2000) } else { Plan::Leave };
            let run = traced(&place.fetch(), plan);
            told.push(format!("again: exit {:?}, hung {}\n{}", run.code, run.hung, place.stderr()));
            if place.stderr().contains("panicked") {
                wrong.push("a panic when it ran again".to_owned());
            }
            quiet = run.code == Some(0) && place.retrieved() == 0;
            // An empty mailbox has nothing more to give.
            if quiet || (run.code == Some(0) && self.options.delete == "immediately" && place.is_done()) {
                quiet = true;
                break;
            }
        }
        let mut verdict = place.verdict();
        if !quiet {
            verdict.stuck = verdict.stuck.max(1);
            verdict.details.push(format!("not quiet after {RUNS} more runs"));
        }
        let other = wrong.len() as u64 + verdict.left;
        let is_wrong = other > 0 || verdict != Verdict::default();
        let report = is_wrong.then(|| {
            let sections = [
                format!(
                    "== {mode} at point {at}, {:?}: {}",
                    self.options.protocol,
                    struck.point.as_deref().unwrap_or("not reached")
                ),
                format!("wrong: {}", [wrong, verdict.details.clone()].concat().join("\n  ")),
                format!(
                    "again: cargo run --release -p connectord-testkit --example walk -- {}",
                    self.options.again(mode, at)
                ),
                format!("calls before it:\n  {}", struck.before.join("\n  ")),
                told.join("\n"),
                place.listing(),
            ];
            sections.join("\n")
        });
        Round { point: struck.point, verdict, other, report }
    }
}

impl Options {
    /// The arguments that strike at one point again and again. Threads may meet in another order each time.
    fn again(&self, mode: Mode, at: u64) -> String {
        let protocol = if self.protocol == Protocol::Pop3 { "pop3" } else { "imap" };
        let mut text = format!("--protocol {protocol} --mode {mode} --delete {} --point {at} --times 20", self.delete);
        for (name, is_set) in [("reader", self.reader), ("twice", self.twice), ("tls", self.tls)] {
            if is_set {
                text += &format!(" --{name}");
            }
        }
        text
    }
}

/// Which point comes next, for several threads.
struct Course {
    from: u64,
    step: u64,
    last: u64,
    most: u64,
    next: AtomicU64,
    /// Rounds in a row that ended before their point, beyond the most that plain runs made.
    beyond: AtomicU64,
}

impl Course {
    fn next(&self) -> Option<u64> {
        if self.beyond.load(Ordering::Relaxed) >= 3 {
            return None;
        }
        let at = self.from + self.step * self.next.fetch_add(1, Ordering::Relaxed);
        (at <= self.last).then_some(at)
    }

    fn went(&self, at: u64, reached: bool) {
        if reached {
            self.beyond.store(0, Ordering::Relaxed);
        } else if at > self.most {
            self.beyond.fetch_add(1, Ordering::Relaxed);
        }
    }
}
