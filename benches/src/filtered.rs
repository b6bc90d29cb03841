//! What filters leave of the throughput: retrieval with a real Rspamd and a real clamd at work, beside the filters alone.
//!
//!     cargo run --release -p connectord-benches -- filtered [--messages N] [--rounds N]
//!
//! The limit is a client that does nothing but ask: the same messages, to the same two filters, as many at a time. Only
//! the share can be compared: the filters, the mail server and this program share the machine, and whatever else it does.
//! A run that does not deliver every message, once, looked at by both, has no figure. It needs the Debian packages
//! rspamd, clamav-daemon and dnsmasq-base; Rspamd alone takes some 10 s to start.

mod limit;
mod retrieval;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectord_account::Protocol;
use connectord_filter::Filter;
use connectord_filters::clamav::{self, Clamav};
use connectord_filters::rspamd::{self, Rspamd};
use connectord_mail::LineEnds;
use connectord_testkit::{self as testkit, Clamd, Dns, corpus, servers};
use connectord_wire::Address;
use retrieval::Retrieval;

/// For Rspamd to compile its expressions, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// clamd remembers what it found clean and would not look again.
const CLAMD: &str = "DisableCache yes";

/// Something that is measured: its name, and the rate of each round in messages a second.
struct Line {
    name: &'static str,
    what: What,
    rates: Vec<f64>,
}

enum What {
    /// These filters, and nobody else.
    Alone(Vec<Arc<dyn Filter>>),
    /// A mailbox, through these filters.
    Retrieved(Protocol, Vec<Arc<dyn Filter>>),
}

pub(crate) fn main(options: &[String]) {
    let (mut messages, mut rounds) = (300, 3);
    for option in options.chunks(2) {
        let number = option.get(1).and_then(|value| value.parse().ok()).filter(|number| *number > 0);
        match (option[0].as_str(), number) {
            ("--messages", Some(number)) => messages = number,
            ("--rounds", Some(number)) => rounds = number,
            _ => panic!("expected --messages N or --rounds N: {}", option.join(" ")),
        }
    }
    run(messages, rounds, true);
}

/// Few messages, and nobody waits until Rspamd is at its best: that it runs, and that every message arrives.
pub(crate) fn smoke() {
    run(20, 1, false);
}

fn run(messages: usize, rounds: usize, warm: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(measure(messages, rounds, warm));
}

async fn measure(messages: usize, rounds: usize, warm: bool) {
    let load = load();
    // Nobody knows any name: Rspamd asks as it would, and waits for nobody.
    let dns = Dns::start(&[]);
    let (scanner, antivirus) = (testkit::Rspamd::start(Some(&dns), &[]), Clamd::start(CLAMD));
    let rspamd = Rspamd::new("rspamd".into(), rspamd::Options::new(address(scanner.address())));
    let clamav = Clamav::new("clamav".into(), clamav::Options::new(address(antivirus.address())));
    let rspamd: Arc<dyn Filter> = Arc::new(rspamd.expect("the name is one"));
    let clamav: Arc<dyn Filter> = Arc::new(clamav.expect("the name is one"));
    let both = || vec![Arc::clone(&rspamd), Arc::clone(&clamav)];

    let mail = corpus::messages(messages, 1);
    // As the engine hands them on: what the server sends, with LF.
    let bodies: Vec<Vec<u8>> = mail.iter().map(|message| with_lf(&servers::crlf(&message.octets))).collect();
    println!(
        "{messages} messages, {:.1} MB; Rspamd looks at {} at a time, clamd at {}; medians of {rounds}; load before: {load}",
        bodies.iter().map(Vec::len).sum::<usize>() as f64 / 1e6,
        rspamd.limits().at_once,
        clamav.limits().at_once,
    );
    let line = |name, what| Line { name, what, rates: Vec::new() };
    let mut lines = [
        line("both filters alone (the limit)", What::Alone(both())),
        line("IMAPS into a Maildir, both filters", What::Retrieved(Protocol::Imap, both())),
        line("POP3S into a Maildir, both filters", What::Retrieved(Protocol::Pop3, both())),
        line("IMAPS into a Maildir, no filter", What::Retrieved(Protocol::Imap, Vec::new())),
        line("POP3S into a Maildir, no filter", What::Retrieved(Protocol::Pop3, Vec::new())),
        line("Rspamd alone", What::Alone(vec![Arc::clone(&rspamd)])),
        line("clamd alone", What::Alone(vec![Arc::clone(&clamav)])),
    ];
    let retrieval = Retrieval::start(&mail);
    if warm {
        has_compiled(&scanner).await;
        limit::ask(&both(), &bodies).await;
    }
    let count = lines.len();
    for round in 0..rounds {
        // Each round begins with another.
        let (late, early) = lines.split_at_mut(round % count);
        for Line { what, rates, .. } in early.iter_mut().chain(late) {
            let took = match what {
                What::Alone(filters) => limit::ask(filters, &bodies).await,
                What::Retrieved(protocol, filters) => retrieval.run(*protocol, filters, &bodies).await,
            };
            rates.push(messages as f64 / took.as_secs_f64());
        }
    }
    show(&lines);
}

/// The first line is the limit.
fn show(lines: &[Line]) {
    println!("{:<38} {:>10} {:>20} {:>13}", "what", "messages/s", "min to max", "of the limit");
    for Line { name, rates, .. } in lines {
        let (slowest, rate, fastest) = spread(rates.iter().copied());
        // The share within each round: what else the machine does slows both.
        let (_, share, _) = spread(rates.iter().zip(&lines[0].rates).map(|(rate, limit)| 100.0 * rate / limit));
        println!("{name:<38} {rate:>10.1} {:>20} {share:>11.0} %", format!("{slowest:.1} to {fastest:.1}"));
    }
}

fn address(address: SocketAddr) -> Address {
    address.to_string().parse().expect("it is an address")
}

/// Waits until Rspamd's worker has its regular expressions compiled: for some seconds after its start it does without,
/// and another of its processes takes a core.
async fn has_compiled(scanner: &testkit::Rspamd) {
    let began = Instant::now();
    while !scanner.log().lines().any(|line| line.contains("(normal)") && line.contains("hyperscan database of")) {
        assert!(began.elapsed() < PATIENCE, "Rspamd has not compiled its expressions within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Processes that ran or waited for the disk in the last minute and five minutes, on average.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(2).collect::<Vec<_>>().join(" and ")
}

/// Least, median and most.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

fn with_lf(octets: &[u8]) -> Vec<u8> {
    let (mut out, mut line_ends) = (Vec::with_capacity(octets.len()), LineEnds::default());
    line_ends.push(octets, &mut out);
    line_ends.finish(&mut out);
    out
}
