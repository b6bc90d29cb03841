//! What `fetch` and `demo` show: bars while it goes on, a table when it is over.
//!
//! Whoever reports progress only changes numbers in a [`Board`]; one thread looks at them ten times a
//! second and draws. A terminal that is stopped (Ctrl-S) stops the drawing and nothing else.

mod board;
mod table;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use connectord::look::{Look, Size, is_dumb, size};
use connectord_engine::{Observer, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::board::Board;
pub(crate) use self::table::closing_table;

/// Between two looks at the numbers.
const FRAME: Duration = Duration::from_millis(100);

/// How long the end waits for a terminal that does not take what is drawn.
const FAREWELL: Duration = Duration::from_secs(1);

/// Shows how runs go, on standard error: a bar for each running account on a terminal, else a line for each change.
pub(crate) struct Bars {
    shared: Arc<Shared>,
    painter: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Bars {
    /// For so many accounts. Without a thread to draw nothing is shown.
    pub(crate) fn new(accounts: usize, look: Look) -> Self {
        let redraws = io::stderr().is_terminal() && !is_dumb();
        let lines = redraws.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let out = io::stderr().as_fd().try_clone_to_owned();
        let out: Box<dyn Write + Send> = match out {
            // Not by `std`, whose lock would block everybody who prints while this blocks.
            Ok(own) => Box::new(std::fs::File::from(own)),
            Err(_) => Box::new(io::sink()),
        };
        Self::on(accounts, look, lines, out)
    }

    fn on(accounts: usize, look: Look, lines: Option<MultiProgress>, out: Box<dyn Write + Send>) -> Self {
        let board = Board::new(accounts, lines.is_none());
        let shared = Arc::new(Shared { board: Mutex::new(board), changed: Condvar::new(), lines, look });
        let painter = {
            let shared = Arc::clone(&shared);
            let paint = move || {
                match &shared.lines {
                    Some(lines) => redraw(&shared, lines),
                    None => print(&shared, out),
                }
                shared.board().painted = true;
                shared.changed.notify_all();
            };
            thread::Builder::new().name("progress".into()).spawn(paint).ok()
        };
        Self { shared, painter: Mutex::new(painter) }
    }

    /// It is known now for how many accounts.
    pub(crate) fn expect(&self, accounts: usize) {
        self.shared.board().expected = accounts;
    }

    /// For the log, whose lines appear above the bars.
    pub(crate) fn above(&self) -> Above {
        Above { shared: Arc::clone(&self.shared), line: Vec::new() }
    }

    /// Takes the bars away, so that a table can be printed. Reports that come later are not shown.
    pub(crate) fn finish(&self) {
        self.shared.board().over = true;
        self.shared.changed.notify_all();
        let painter = self.painter.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(painter) = painter else { return };
        let board = self.shared.board();
        let waited = self.shared.changed.wait_timeout_while(board, FAREWELL, |board| !board.painted);
        let painted = waited.unwrap_or_else(PoisonError::into_inner).0.painted;
        if painted {
            let _ = painter.join();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Observer for Bars {
    fn progress(&self, account: &str, progress: Progress<'_>) {
        let mut board = self.shared.board();
        let said = board.note(account, progress, Instant::now());
        drop(board);
        if said {
            self.shared.changed.notify_all();
        }
    }
}

struct Shared {
    board: Mutex<Board>,
    changed: Condvar,
    /// On a terminal.
    lines: Option<MultiProgress>,
    look: Look,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Redraws until it is over.
fn redraw(shared: &Shared, lines: &MultiProgress) {
    let plain = ProgressStyle::with_template("{msg}").expect("a template of one key");
    // One bar of many lines, so that they change together and are drawn once.
    let bar = lines.add(ProgressBar::no_length().with_style(plain));
    loop {
        let room = size(&io::stderr()).unwrap_or(Size { columns: 80, lines: 24 });
        let mut board = shared.board();
        if !board.over {
            let waited = shared.changed.wait_timeout(board, FRAME);
            board = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if board.over {
            break;
        }
        let texts = board.paint(Instant::now(), room, shared.look);
        drop(board);
        bar.set_message(texts.join("\n"));
    }
    bar.finish_and_clear();
    let _ = lines.clear();
}

/// Prints each change until it is over.
fn print(shared: &Shared, mut out: Box<dyn Write + Send>) {
    loop {
        let board = shared.board();
        let waited = shared.changed.wait_while(board, |board| !board.over && board.said.is_empty());
        let mut board = waited.unwrap_or_else(PoisonError::into_inner);
        let over = board.over;
        let said = std::mem::take(&mut board.said);
        drop(board);
        for line in said {
            let _ = out.write_all(format!("{line}\n").as_bytes());
        }
        let _ = out.flush();
        if over {
            break;
        }
    }
}

/// Writes whole lines above the bars, or to standard error when there are none.
pub(crate) struct Above {
    shared: Arc<Shared>,
    line: Vec<u8>,
}

impl Above {
    fn put(&self, line: &str) -> io::Result<()> {
        match &self.shared.lines {
            Some(lines) if !self.shared.board().over => lines.println(line),
            _ => writeln!(io::stderr(), "{line}"),
        }
    }
}

impl Write for Above {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(octets);
        while let Some(end) = self.line.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            // Taken whether or not it can be shown: half a line must not be shown twice.
            let _ = self.put(&String::from_utf8_lossy(&line[..end]));
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use connectord_engine::Report;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn without_a_terminal_each_change_is_a_line() {
        let kept = Kept::default();
        let bars = Bars::on(1, Look::default(), None, Box::new(kept.clone()));
        let account = "old@isp.test";
        bars.progress(account, Progress::Connecting { server: "pop.isp.test:995" });
        bars.progress(account, Progress::LoggedIn { tls: Some("TLSv1.3") });
        bars.progress(account, Progress::Listed { mailbox: "", messages: 18_204, new: 1240, removals: 0 });
        for _ in 0..1240 {
            bars.progress(account, Progress::Octets(1000));
            bars.progress(account, Progress::Retrieved);
        }
        let report = Report {
            listed: 18_204,
            new: 1240,
            retrieved: 1240,
            delivered: 1238,
            parked: 2,
            octets: 1_240_000,
            duration: Duration::from_secs(126),
            ..Report::default()
        };
        bars.progress(account, Progress::Finished(&report));
        bars.finish();
        bars.progress(account, Progress::Connecting { server: "late" });
        drop(bars);
        assert_eq!(
            String::from_utf8(kept.0.lock().unwrap().clone()).unwrap(),
            "old@isp.test  pop.isp.test:995 connected, TLS 1.3\n\
             old@isp.test  18,204 messages, 1,240 new\n\
             old@isp.test  done: 1,240 retrieved, 1,238 delivered, 2 parked; 1.24 MB, 2 min\n"
        );
    }

    #[test]
    fn an_output_that_blocks_holds_nobody_up() {
        let (_reader, blocked) = io::pipe().unwrap();
        let bars = Bars::on(1, Look::default(), None, Box::new(blocked));
        let began = Instant::now();
        for _ in 0..20_000 {
            bars.progress("a@example.org", Progress::LoggedIn { tls: None });
        }
        drop(bars);
        assert!(began.elapsed() < FAREWELL + Duration::from_secs(3));
    }
}
