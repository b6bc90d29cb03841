//! What came of a walk.

use std::fmt;
use std::time::Duration;

use super::{Mode, Protocol, Round};

/// The figures of one walk; one line of a table.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What happened at the points.
    pub mode: Mode,
    /// How mail was retrieved.
    pub protocol: Protocol,
    /// Fewest calls of a plain run.
    pub least: u64,
    /// Most calls of a plain run.
    pub most: u64,
    /// Points at which it happened.
    pub points: u64,
    /// Rounds, also those in which the program ended before its point.
    pub rounds: u64,
    /// Messages that never come, one for each recipient.
    pub lost: u64,
    /// Messages that came again.
    pub duplicated: u64,
    /// Messages that came with other octets.
    pub corrupted: u64,
    /// Messages that wait for ever, and programs that do.
    pub stuck: u64,
    /// Files left in `tmp/`, panics, wrong exit statuses, late ends.
    pub other: u64,
    /// How long the walk took.
    pub duration: Duration,
    /// The points at which something was wrong.
    pub wrong: Vec<String>,
}

impl Figures {
    /// The heads of the columns.
    pub const HEAD: &str = "protocol mode       calls of a plain run   points   rounds  lost  duplicated  corrupted  stuck  other  seconds";

    pub(super) fn new(mode: Mode, protocol: Protocol) -> Self {
        Self {
            mode,
            protocol,
            least: 0,
            most: 0,
            points: 0,
            rounds: 0,
            lost: 0,
            duplicated: 0,
            corrupted: 0,
            stuck: 0,
            other: 0,
            duration: Duration::ZERO,
            wrong: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, rounds: u64, round: &Round) {
        self.rounds += rounds;
        self.points += u64::from(round.point.is_some());
        self.lost += round.verdict.lost;
        self.duplicated += round.verdict.duplicated;
        self.corrupted += round.verdict.corrupted;
        self.stuck += round.verdict.stuck;
        self.other += round.other;
        let heading = |report: &String| report.lines().take(3).collect::<Vec<_>>().join("; ");
        self.wrong.extend(round.report.as_ref().map(heading));
    }

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        [self.lost, self.duplicated, self.corrupted, self.stuck, self.other] == [0; 5]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == Protocol::Pop3 { "pop3" } else { "imap" };
        let calls = format!("{} to {}", self.least, self.most);
        write!(
            f,
            "{protocol:<8} {:<10} {calls:>20} {:>8} {:>8} {:>5} {:>11} {:>10} {:>6} {:>6} {:>8.0}",
            self.mode,
            self.points,
            self.rounds,
            self.lost,
            self.duplicated,
            self.corrupted,
            self.stuck,
            self.other,
            self.duration.as_secs_f64()
        )
    }
}
