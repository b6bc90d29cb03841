//! Numbers of all runs, and the lines that show them.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use connectord::figures::{about, count, counted, duration, octets, rate};
use connectord::look::{Look, Size, columns};
use connectord_engine::{Progress, Report};

use crate::logging::Inert;

/// A rate is that of the last five seconds.
const WINDOW: Duration = Duration::from_secs(5);

/// Before this nobody knows how long it will take.
const GUESS_AFTER: Duration = Duration::from_secs(5);

/// Most lines that wait for an output that does not take them.
const MAX_SAID: usize = 1000;

/// Characters of a full bar.
const BAR: u64 = 20;

/// What is known of all accounts.
#[derive(Debug)]
pub(crate) struct Board {
    /// How many there are.
    pub(crate) expected: usize,
    accounts: HashMap<String, Account>,
    begun: u64,
    all: Tally,
    /// Whether changes are said in lines.
    says: bool,
    /// Lines to print.
    pub(crate) said: Vec<String>,
    unsaid: u64,
    /// Nothing is shown any more.
    pub(crate) over: bool,
    /// The thread that draws has ended.
    pub(crate) painted: bool,
}

#[derive(Debug, Default)]
struct Account {
    /// Running accounts are shown in the order in which they began.
    order: u64,
    phase: Phase,
    server: String,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Connecting,
    Listing,
    Retrieving,
    Listening,
    Done,
}

#[derive(Debug, Default)]
struct Tally {
    listed: u64,
    new: u64,
    /// Messages retrieved whole.
    retrieved: u64,
    octets: u64,
    /// When the first octets came.
    since: Option<Instant>,
    samples: VecDeque<(Instant, u64)>,
}

impl Board {
    pub(crate) fn new(expected: usize, says: bool) -> Self {
        Self {
            expected,
            accounts: HashMap::new(),
            begun: 0,
            all: Tally::default(),
            says,
            said: Vec::new(),
            unsaid: 0,
            over: false,
            painted: false,
        }
    }

    /// Takes note; true if there is a line to print.
    pub(crate) fn note(&mut self, address: &str, progress: Progress<'_>, now: Instant) -> bool {
        if self.over {
            return false;
        }
        if !self.accounts.contains_key(address) {
            self.begun += 1;
            self.accounts.insert(address.to_owned(), Account { order: self.begun, ..Account::default() });
        }
        let Some(account) = self.accounts.get_mut(address) else { return false };
        let pauses = matches!(progress, Progress::Finished(_) | Progress::Listening);
        if !pauses && matches!(account.phase, Phase::Done | Phase::Listening) {
            // The next check of the same account.
            self.begun += 1;
            let server = std::mem::take(&mut account.server);
            *account = Account { order: self.begun, phase: Phase::Listing, server, ..Account::default() };
        }
        let line = account.note(&mut self.all, progress, now);
        match line {
            Some(line) if self.says => self.say(format!("{}  {line}", Inert::text(address))),
            _ => return false,
        }
        true
    }

    fn say(&mut self, line: String) {
        if self.said.len() >= MAX_SAID {
            self.unsaid += 1;
            return;
        }
        match std::mem::take(&mut self.unsaid) {
            0 => {}
            lines => self.said.push(format!("({} not shown)", counted(lines, "line", "lines"))),
        }
        self.said.push(line);
    }

    /// The lines of a terminal of this size: running accounts, what did not find room, and the sum.
    pub(crate) fn paint(&mut self, now: Instant, size: Size, look: Look) -> Vec<String> {
        // One column is left free: terminals differ in what they do after the last.
        let width = size.columns.saturating_sub(1).max(10);
        let done = self.accounts.values().filter(|account| account.phase == Phase::Done).count();
        let mut running: Vec<_> =
            self.accounts.iter_mut().filter(|(_, account)| account.phase != Phase::Done).collect();
        running.sort_by_key(|(_, account)| (account.phase == Phase::Listening, account.order));
        // The sum, the rest and the cursor need a line each.
        let room = size.lines.saturating_sub(3).max(1);
        let rest = running.split_off(running.len().min(room));
        let shown: Vec<_> =
            running.into_iter().map(|(address, account)| (Inert::text(address), account.cells(now))).collect();
        let widest = shown.iter().map(|(address, _)| columns(address)).max().unwrap_or_default();
        let mut lines = Vec::with_capacity(shown.len() + 2);
        for (address, cells) in shown {
            let pad = " ".repeat(widest - columns(&address));
            lines.push(fitted(address + &pad, cells, width, look));
        }
        if !rest.is_empty() {
            let phases = [Phase::Connecting, Phase::Listing, Phase::Retrieving, Phase::Listening];
            let parts = phases.map(|phase| (phase, rest.iter().filter(|(_, account)| account.phase == phase).count()));
            let cells = parts.into_iter().filter(|(_, number)| *number > 0);
            let cells = cells.map(|(phase, number)| format!("{} {}", count(number as u64), phase.word())).collect();
            lines.push(fitted(format!("and {} more:", count(rest.len() as u64)), cells, width, look));
        }
        if self.expected > 1 {
            let head = format!(
                "{} of {} done",
                count(done as u64),
                counted(self.expected.max(self.accounts.len()) as u64, "account", "accounts")
            );
            let mut cells = Vec::new();
            if self.all.new > 0 {
                cells.push(format!(
                    "{} of {}",
                    count(self.all.retrieved),
                    counted(self.all.new, "message", "messages")
                ));
                cells.push(octets(self.all.octets));
                cells.extend(self.all.rate(now).map(rate));
            }
            lines.push(fitted(head, cells, width, look));
        }
        lines
    }
}

impl Account {
    /// Takes note; what to say of it where there are no bars.
    fn note(&mut self, all: &mut Tally, progress: Progress<'_>, now: Instant) -> Option<String> {
        match progress {
            Progress::Connecting { server } => {
                self.phase = Phase::Connecting;
                self.server = Inert::text(server);
                None
            }
            Progress::LoggedIn { tls } => {
                self.phase = Phase::Listing;
                let tls =
                    tls.map_or_else(|| "not encrypted".into(), |tls| Inert::text(tls).replacen("TLSv", "TLS ", 1));
                Some(format!("{} connected, {tls}", self.server))
            }
            Progress::Listed { mailbox, messages, new, removals } => {
                self.phase = if new > 0 { Phase::Retrieving } else { self.phase };
                self.tally.listed += messages;
                self.tally.new += new;
                all.new += new;
                let mailbox = if mailbox.is_empty() { String::new() } else { format!("{}: ", Inert::text(mailbox)) };
                let removals = if removals == 0 { String::new() } else { format!(", {} to remove", count(removals)) };
                Some(format!("{mailbox}{}, {} new{removals}", counted(messages, "message", "messages"), count(new)))
            }
            Progress::Octets(octets) => {
                for tally in [&mut self.tally, all] {
                    tally.since.get_or_insert(now);
                    tally.octets = tally.octets.saturating_add(octets);
                }
                None
            }
            Progress::Retrieved => {
                for tally in [&mut self.tally, all] {
                    tally.retrieved = (tally.retrieved + 1).min(tally.new);
                }
                None
            }
            Progress::Listening => {
                let before = std::mem::replace(&mut self.phase, Phase::Listening);
                (before != Phase::Listening).then(|| "listening for new mail".into())
            }
            Progress::Finished(report) => {
                self.phase = Phase::Done;
                Some(closing(report))
            }
            _ => None,
        }
    }

    /// What is going on, in cells that may be left out from the right.
    fn cells(&mut self, now: Instant) -> Vec<String> {
        let Tally { listed, new, retrieved, since, .. } = self.tally;
        let rate_now = self.tally.rate(now);
        let mut cells = match self.phase {
            Phase::Connecting if !self.server.is_empty() => vec![format!("connecting to {}", self.server)],
            phase => vec![format!("{:<10}", phase.word())],
        };
        if self.phase == Phase::Listing && listed > 0 {
            cells.push(format!("{}, {} new", counted(listed, "message", "messages"), count(new)));
        }
        if self.phase == Phase::Retrieving && new > 0 {
            let full = u64::try_from(u128::from(retrieved) * u128::from(BAR) / u128::from(new)).unwrap_or(BAR).min(BAR);
            let (full, empty) = (full as usize, (BAR - full) as usize);
            cells.push(format!("[{}{}]", "#".repeat(full), ".".repeat(empty)));
            cells.push(format!("{} of {}", count(retrieved), count(new)));
            cells.extend(rate_now.map(rate));
            let took = since.map(|since| now.saturating_duration_since(since));
            if let Some(took) = took.filter(|took| *took >= GUESS_AFTER && retrieved > 0 && retrieved < new) {
                let left = took.as_millis() * u128::from(new - retrieved) / u128::from(retrieved);
                cells.push(about(Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX))));
            }
        }
        cells
    }
}

impl Phase {
    fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Listing => "listing",
            Self::Retrieving => "retrieving",
            Self::Listening => "listening",
            Self::Done => "done",
        }
    }
}

impl Tally {
    /// Octets a second over the last five; nothing while that is only guessed.
    fn rate(&mut self, now: Instant) -> Option<u64> {
        self.samples.push_back((now, self.octets));
        while self.samples.len() > 1 && now.saturating_duration_since(self.samples[0].0) > WINDOW {
            self.samples.pop_front();
        }
        let (began, before) = *self.samples.front()?;
        let span = now.saturating_duration_since(began).as_millis();
        let enough = span >= 1000 && self.since.is_some();
        enough.then(|| u64::try_from(u128::from(self.octets - before) * 1000 / span).unwrap_or(u64::MAX))
    }
}

/// How a run ended, in a line.
fn closing(report: &Report) -> String {
    let mut parts =
        vec![format!("{} retrieved", count(report.retrieved)), format!("{} delivered", count(report.delivered))];
    let others = [
        (report.quarantined, "kept back"),
        (report.discarded, "discarded"),
        (report.deferred, "put off"),
        (report.parked, "parked"),
        (report.removed, "removed"),
    ];
    for (number, word) in others {
        if number > 0 {
            parts.push(format!("{} {word}", count(number)));
        }
    }
    let sum = format!("{}; {}, {}", parts.join(", "), octets(report.octets), duration(report.duration));
    match &report.error {
        None => format!("done: {sum}"),
        Some(error) => format!("! {}; {sum}", Inert::text(&error.to_string())),
    }
}

/// As many cells as fit; what cannot be left out is cut.
fn fitted(head: String, cells: Vec<String>, width: usize, look: Look) -> String {
    if columns(&head) > width {
        let mark = look.ellipsis();
        let mut line = String::new();
        for c in head.chars() {
            if columns(&line) + 2 + columns(mark) > width {
                break;
            }
            line.push(c);
        }
        return line + mark;
    }
    let mut line = head;
    for cell in cells {
        if columns(&line) + 2 + columns(cell.trim_end()) > width {
            break;
        }
        line.push_str("  ");
        line.push_str(&cell);
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Size = Size { columns: 120, lines: 24 };

    fn painted(board: &mut Board, now: Instant, size: Size) -> Vec<String> {
        board.paint(now, size, Look::default())
    }

    #[test]
    fn a_line_shows_what_is_going_on() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut board = Board::new(2, false);
        let note = |board: &mut Board, progress, seconds| board.note("old@isp.test", progress, after(seconds));
        note(&mut board, Progress::Connecting { server: "pop.isp.test:995" }, 0);
        assert_eq!(
            painted(&mut board, start, WIDE),
            ["old@isp.test  connecting to pop.isp.test:995", "0 of 2 accounts done"]
        );
        note(&mut board, Progress::LoggedIn { tls: None }, 0);
        assert_eq!(painted(&mut board, start, WIDE)[0], "old@isp.test  listing");
        note(&mut board, Progress::Listed { mailbox: "", messages: 18_204, new: 1240, removals: 0 }, 0);
        for second in 1..=10 {
            note(&mut board, Progress::Octets(1_800_000), second);
            for _ in 0..56 {
                note(&mut board, Progress::Retrieved, second);
            }
            painted(&mut board, after(second), WIDE);
        }
        assert_eq!(
            painted(&mut board, after(10), WIDE),
            [
                "old@isp.test  retrieving  [#########...........]  560 of 1,240  1.8 MB/s  about 10 s",
                "0 of 2 accounts done  560 of 1,240 messages  18.0 MB  1.8 MB/s"
            ]
        );
        let narrow = Size { columns: 64, lines: 24 };
        assert_eq!(
            painted(&mut board, after(10), narrow)[0],
            "old@isp.test  retrieving  [#########...........]  560 of 1,240"
        );
        let tiny = Size { columns: 11, lines: 1 };
        assert_eq!(painted(&mut board, after(10), tiny), ["old@is...", "0 of 2..."]);
        note(&mut board, Progress::Finished(&Report::default()), 10);
        assert_eq!(
            painted(&mut board, after(10), narrow),
            ["1 of 2 accounts done  560 of 1,240 messages  18.0 MB  1.8 MB/s"]
        );
    }

    #[test]
    fn what_finds_no_line_is_counted() {
        let now = Instant::now();
        let mut board = Board::new(40, false);
        for number in 0..30 {
            let address = format!("{number:02}@b.test");
            let progress = Progress::Connecting { server: "b.test:995" };
            board.note(&address, progress, now);
            if number % 3 == 0 {
                board.note(&address, Progress::LoggedIn { tls: None }, now);
            }
            if number == 1 {
                board.note(&address, Progress::Listening, now);
            }
        }
        let lines = painted(&mut board, now, Size { columns: 80, lines: 5 });
        assert_eq!(
            lines,
            [
                "00@b.test  listing",
                "02@b.test  connecting to b.test:995",
                "and 28 more:  18 connecting  9 listing  1 listening",
                "0 of 40 accounts done"
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_none_acts() {
        let now = Instant::now();
        for columns_there in 0..120 {
            let mut board = Board::new(2, false);
            board.note("日本\x1b[2J@example.org", Progress::Connecting { server: "a\nb" }, now);
            for line in painted(&mut board, now, Size { columns: columns_there, lines: 0 }) {
                assert!(columns(&line) <= columns_there.saturating_sub(1).max(10), "{line}");
                assert!(!line.contains(char::is_control));
            }
        }
    }

    #[test]
    fn the_next_check_of_an_account_starts_anew() {
        let now = Instant::now();
        let mut board = Board::new(1, false);
        let listed = |new| Progress::Listed { mailbox: "INBOX", messages: 9, new, removals: 0 };
        for progress in [listed(2), Progress::Retrieved, Progress::Retrieved, Progress::Listening, listed(3)] {
            board.note("a@b.test", progress, now);
        }
        assert_eq!(painted(&mut board, now, WIDE), ["a@b.test  retrieving  [....................]  0 of 3"]);
    }

    #[test]
    fn lines_that_nobody_takes_are_counted() {
        let now = Instant::now();
        let mut board = Board::new(1, true);
        for _ in 0..MAX_SAID + 5 {
            board.note("a@b.test", Progress::LoggedIn { tls: None }, now);
        }
        assert_eq!(board.said.len(), MAX_SAID);
        board.said.clear();
        board.note("a@b.test", Progress::Listening, now);
        assert_eq!(board.said, ["(5 lines not shown)", "a@b.test  listening for new mail"]);
    }
}
