//! The log as a whole: events in, octets out, with the other end well, gone, back and stuck.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use jiff::Timestamp;
use tracing::{debug, error, info, trace, warn};

use super::writer::Refused;
use super::*;

const BRIEF: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

/// Logs what `events` does; returns when all that can be written is written.
fn logged(settings: &Settings, sink: impl Sink + 'static, patience: Duration, events: impl FnOnce()) {
    let (subscriber, guard) = build(settings, Box::new(sink), Arc::new(Queue::default()), None, patience).unwrap();
    tracing::subscriber::with_default(subscriber, events);
    drop(guard);
}

/// What was written.
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

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Lines without their times.
    fn lines(&self) -> Vec<String> {
        self.text().lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

fn human(out: impl Write + Send + 'static) -> stream::Stream {
    stream::Stream::new(Box::new(out), stream::Style::Human { colour: false })
}

fn server(path: &Path) -> UnixDatagram {
    let server = UnixDatagram::bind(path).unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    server
}

fn received(server: &UnixDatagram) -> String {
    let mut octets = vec![0; 256 * 1024];
    let length = server.recv(&mut octets).unwrap();
    octets.truncate(length);
    String::from_utf8(octets).unwrap()
}

/// The part behind `connectord[123]: `.
fn said(server: &UnixDatagram) -> String {
    received(server).split_once("]: ").unwrap().1.to_owned()
}

#[test]
fn an_event_is_a_line_with_its_values_in_the_order_they_were_recorded() {
    let kept = Kept::default();
    logged(&Settings::default(), human(kept.clone()), BRIEF, || {
        let zulu = Some(7);
        info!(target: "connectord::mail", zulu, account = "a@example.org", size = 12_u64, from = %"", to = %"a b", "delivery");
        warn!(target: "connectord", dry = true, r#type = ?Some("x"), "two words");
    });
    assert_eq!(
        kept.lines(),
        [
            "INFO delivery zulu=7 account=a@example.org size=12 from=<> to=\"<a b>\"",
            r#"WARN two words dry=true type="Some(\"x\")""#
        ]
    );
    let at = kept.text();
    let at = at.split_once(' ').unwrap().0;
    assert!(at.parse::<Timestamp>().is_ok() && at.len() == "2026-11-22T19:31:00Z".len(), "{at}");
}

#[test]
fn only_what_the_level_lets_pass_is_logged() {
    let all = || {
        error!(target: "connectord", "error");
        warn!(target: "connectord", "warn");
        info!(target: "connectord", "info");
        debug!(target: "connectord", "debug");
        trace!(target: "connectord", "trace");
        trace!(target: "connectord::wire", "wire");
        info!(target: "elsewhere", "foreign");
    };
    let with = |level, wire| {
        let kept = Kept::default();
        logged(&Settings { level, wire, ..Settings::default() }, human(kept.clone()), BRIEF, all);
        kept.lines().iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(with(LevelFilter::OFF, false), [""; 0]);
    assert_eq!(with(LevelFilter::WARN, false), ["error", "warn"]);
    assert_eq!(with(LevelFilter::INFO, true), ["error", "warn", "info", "wire"]);
    assert_eq!(with(LevelFilter::TRACE, false), ["error", "warn", "info", "debug", "trace"]);
}

#[test]
fn hostile_values_stay_within_their_line_and_their_quotes() {
    let kept = Kept::default();
    let hostile = "x\nNov 22 10:00:00 connectord[1]: forged\r\u{2028}\u{202e}\x1b[2J\0\u{9b}31m\" status=delivered \\";
    logged(&Settings::default(), human(kept.clone()), BRIEF, || {
        info!(target: "connectord", account = hostile, to = %hostile, error = ?hostile, "hostile");
    });
    let text = kept.text();
    assert_eq!(text.matches('\n').count(), 1);
    let inert =
        r#""x\nNov 22 10:00:00 connectord[1]: forged\r\u{2028}\u{202e}\x1b[2J\x00\u{9b}31m\" status=delivered \\""#;
    let plain = &kept.lines()[0];
    assert!(plain.starts_with(&format!("INFO hostile account={inert} to={inert} error=")), "{plain}");
    assert!(!text.contains(|c: char| c != '\n' && (c.is_control() || matches!(c, '\u{2028}' | '\u{202e}'))));
}

#[test]
fn a_value_without_end_is_cut() {
    struct Endless;
    impl std::fmt::Display for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            loop {
                f.write_str("forever")?;
            }
        }
    }
    let kept = Kept::default();
    logged(&Settings::default(), human(kept.clone()), BRIEF, || {
        info!(target: "connectord", detail = %Endless, status = "done", "endless");
    });
    let line = &kept.lines()[0];
    assert!(line.len() < 4200 && line.ends_with("… status=done"), "{line}");
}

#[test]
fn causes_of_an_error_are_told() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);
    let kept = Kept::default();
    let outer = Outer(io::Error::other("inner"));
    logged(&Settings::default(), human(kept.clone()), BRIEF, || {
        error!(target: "connectord", error = &outer as &dyn std::error::Error, "failed");
    });
    assert_eq!(kept.lines(), [r#"ERROR failed error="outer: inner""#]);
}

#[test]
fn syslog_gets_facility_mail_with_our_name_and_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let server = server(&path);
    logged(&Settings::default(), syslog::Syslog::new(&path), BRIEF, || {
        info!(target: "connectord::mail", account = "a@example.org", to = "anna", status = "delivered", "delivery");
        error!(target: "connectord", "disk");
    });
    let line = received(&server);
    let (head, tail) = line.split_once(" connectord[").unwrap();
    assert!(head.starts_with("<22>") && head.len() == "<22>Nov 22 20:31:00".len(), "{head}");
    let pid = std::process::id();
    assert_eq!(tail, format!("{pid}]: delivery account=a@example.org to=<anna> status=delivered"));
    let line = received(&server);
    assert!(line.starts_with("<19>") && line.ends_with("]: error: disk"), "{line}");
}

#[test]
fn lines_wait_while_syslog_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let first = server(&path);
    let (subscriber, guard) =
        build(&Settings::default(), Box::new(syslog::Syslog::new(&path)), Arc::new(Queue::default()), None, LONG)
            .unwrap();
    tracing::subscriber::with_default(subscriber, || {
        info!(target: "connectord", "before");
        assert_eq!(said(&first), "before");
        drop(first);
        std::fs::remove_file(&path).unwrap();
        info!(target: "connectord", "while it is away");
        thread::sleep(BRIEF);
        let second = server(&path);
        info!(target: "connectord", "after");
        assert_eq!(said(&second), "while it is away");
        assert_eq!(said(&second), "after");
    });
    drop(guard);
}

#[test]
fn lines_for_an_absent_syslog_are_counted_and_told_when_it_comes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (subscriber, guard) =
        build(&Settings::default(), Box::new(syslog::Syslog::new(&path)), Arc::new(Queue::default()), None, BRIEF)
            .unwrap();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..100 {
            info!(target: "connectord", number, "lost");
        }
        thread::sleep(10 * BRIEF);
        let server = server(&path);
        // Nothing more is logged: the count comes by itself.
        assert_eq!(said(&server), "warning: dropped 100 log lines");
        info!(target: "connectord", "heard");
        assert_eq!(said(&server), "heard");
    });
    drop(guard);
}

#[test]
fn a_syslog_that_does_not_read_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let server = server(&path);
    let queue = Arc::new(Queue::bounded(50, usize::MAX));
    let (subscriber, guard) =
        build(&Settings::default(), Box::new(syslog::Syslog::new(&path)), queue, None, BRIEF).unwrap();
    let sent = 10_000;
    let began = Instant::now();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..sent {
            info!(target: "connectord", number, "line");
        }
    });
    assert!(began.elapsed() < Duration::from_secs(5));
    let reader = thread::spawn(move || {
        let mut told = 0;
        let mut read = 0;
        while told + read < sent {
            let line = said(&server);
            match line.strip_prefix("warning: dropped ").and_then(|rest| rest.split_once(" log ")) {
                Some((count, _)) => told += count.parse::<u64>().unwrap(),
                None => read += 1,
            }
        }
        (read, told)
    });
    // Every line was read or is accounted for.
    let (read, told) = reader.join().unwrap();
    assert_eq!(read + told, sent);
    assert!(told > 0);
    drop(guard);
}

#[test]
fn a_pipe_that_nobody_reads_holds_nobody_up() {
    let (mut reader, blocked) = io::pipe().unwrap();
    let queue = Arc::new(Queue::bounded(100, usize::MAX));
    let (subscriber, guard) = build(&Settings::default(), Box::new(human(blocked)), queue, None, BRIEF).unwrap();
    let began = Instant::now();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..5000 {
            info!(target: "connectord", number, filler = "x".repeat(100), "line");
        }
    });
    assert!(began.elapsed() < Duration::from_secs(5));
    let began = Instant::now();
    drop(guard);
    let waited = began.elapsed();
    assert!(waited >= FAREWELL && waited < FAREWELL + Duration::from_secs(3), "{waited:?}");
    let mut start = [0; 20];
    reader.read_exact(&mut start).unwrap();
}

#[test]
fn a_closed_pipe_costs_lines_only() {
    let (reader, closed) = io::pipe().unwrap();
    drop(reader);
    let began = Instant::now();
    logged(&Settings::default(), human(closed), BRIEF, || info!(target: "connectord", "nobody hears"));
    assert!(began.elapsed() < FAREWELL);
}

/// Takes few octets at once, and nothing while the disk is full.
struct Disk {
    kept: Kept,
    writes: u32,
    full: std::ops::Range<u32>,
}

impl Write for Disk {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if self.full.contains(&self.writes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let few = octets.len().min(25);
        self.kept.write(&octets[..few])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_was_torn_by_a_full_disk_does_not_swallow_the_next() {
    let kept = Kept::default();
    let disk = Disk { kept: kept.clone(), writes: 0, full: 2..4 };
    logged(&Settings::default(), human(disk), Duration::ZERO, || {
        for number in [1, 2, 3] {
            info!(target: "connectord", number, "line");
        }
    });
    let text = kept.text();
    let ends: Vec<_> = text.lines().map(|line| line.get(21..).unwrap()).collect();
    assert_eq!(ends, ["INFO", "INFO line number=3", "WARN dropped 2 log lines"]);
}

#[test]
fn a_short_pause_of_the_disk_neither_tears_nor_repeats_a_line() {
    let kept = Kept::default();
    let disk = Disk { kept: kept.clone(), writes: 0, full: 2..6 };
    logged(&Settings::default(), human(disk), LONG, || info!(target: "connectord", number = 1, "line"));
    assert_eq!(kept.lines(), ["INFO line number=1"]);
}

#[test]
fn the_journal_gets_fields() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = server(&path);
    logged(&Settings::default(), journald::Journald::new(&path), BRIEF, || {
        warn!(target: "connectord", account = "a\nPRIORITY=0", delay_ms = 84, "parked");
    });
    let entry = received(&server);
    let fields: Vec<_> = entry.lines().filter(|line| !line.starts_with("SYSLOG_")).collect();
    assert_eq!(
        fields,
        [
            "PRIORITY=4",
            r"MESSAGE=warning: parked account=a\nPRIORITY=0 delay_ms=84",
            "TARGET=connectord",
            r"ACCOUNT=a\nPRIORITY=0",
            "DELAY_MS=84"
        ]
    );
    assert!(entry.contains("\nSYSLOG_FACILITY=2\n") && entry.contains("\nSYSLOG_IDENTIFIER=connectord\n"));
}

#[test]
fn an_entry_too_long_for_a_datagram_is_cut_to_what_the_socket_takes() {
    // Twice 128 KiB of message and fields; the socket's buffer takes some 208 KiB at most, this one less.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = server(&path);
    let mut socket = syslog::Datagrams::new(&path);
    let mut max = 64 << 20;
    let mut length = max;
    let mut shrunk = 0;
    while let Err(refused) = socket.send(&vec![b'x'; length], &mut max) {
        assert!(matches!(refused, Refused::TooLong));
        length = max;
        shrunk += 1;
    }
    assert!(shrunk > 0);
    assert_eq!(received_length(&server), length);
}

fn received_length(server: &UnixDatagram) -> usize {
    server.recv(&mut vec![0; 1 << 20]).unwrap()
}

#[test]
fn starting_twice_is_an_error_and_panics_are_logged() {
    let kept = Kept::default();
    let settings = Settings { level: LevelFilter::ERROR, ..Settings::default() };
    let guard = start_above(&settings, Box::new(kept.clone())).unwrap();
    assert!(matches!(start(&settings), Err(Error::Twice)));
    let panicked = thread::spawn(|| panic!("on\npurpose")).join();
    assert!(panicked.is_err());
    drop(guard);
    let lines = kept.lines();
    let line = lines.iter().find(|line| line.contains(r"on\npurpose")).unwrap();
    assert!(line.contains("panic at=") && line.contains(r"reason=on\npurpose"), "{line}");
}
