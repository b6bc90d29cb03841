//! Measures what retrieval does to every octet and every message, beside the limit: one pass over the same memory.
//!
//!     cargo run --release -p connectord-benches               # a few seconds
//!     cargo run --release -p connectord-benches -- filtered   # with filters, beside the filters alone: a minute
//!     cargo run --release -p connectord-benches -- smoke      # only that all of it runs
//!
//! Each line is the best of several rounds, in octets or entries a second, and its share of a plain copy measured in the
//! same run: on a busy machine only the shares can be compared.

mod durable;
mod filtered;
mod parsers;

use std::hint::black_box;
use std::time::{Duration, Instant};

use connectord_account::{Entry, Key, Ledger, Listed, Planner, Rules, State};
use connectord_mail::{Fingerprint, Head, LineEnds, UnixTime};
use connectord_wire::dot::{Piece, Unstuffer, stuff};
use connectord_wire::{Inbox, Machine, Security, Step};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "filtered") {
        return filtered::main(&arguments[1..]);
    }
    let smoke = arguments.iter().any(|argument| argument == "smoke");
    let (octets, rounds) = if smoke { (1 << 20, 1) } else { (64 << 20, 5) };
    let message = message(octets);
    let mut out = Vec::with_capacity(message.len());
    let copy = rate(rounds, octets, || {
        out.clear();
        out.extend_from_slice(black_box(&message));
        black_box(&out);
    });
    println!("{:<38} {:>10} {:>8}", "what", "MB/s", "of copy");
    line("copy (the limit)", copy, copy);

    let mut wire = Vec::new();
    let mut stuffer = stuff();
    stuffer.push(&message, &mut wire);
    stuffer.finish(&mut wire);
    line("dot-unstuffing, 64 KiB reads", rate(rounds, octets, || unstuff(&wire)), copy);
    line("CRLF to LF, 128 KiB blocks", rate(rounds, octets, || line_ends(&message)), copy);
    wire.splice(..0, *b"+OK\r\n");
    line("POP3 RETR of one message, session", rate(rounds, octets, || pop3_retrieve(&wire)), copy);
    let fetch = imap_fetch(&message[..10_000], octets / 10_000);
    line("IMAP FETCH of 10 kB messages, session", rate(rounds, octets, || imap_session(&fetch)), copy);

    let uids: u32 = if smoke { 10_000 } else { 1_000_000 };
    let listing = uidl_listing(uids);
    // Beside a copy only: what IMAP parsers make of its like, a line of UIDs, stands among the responses below.
    line("POP3 UIDL listing, session", rate(rounds, listing.len(), || pop3_uidl(&listing)), copy);
    println!("{:<38} {:>10}", "what", "a second");
    count("POP3 UIDL lines, session", rate(rounds, uids as usize, || pop3_uidl(&listing)));
    count("planned entries, all known", rate(rounds, uids as usize, || plan(uids)));
    let head = &message[..Head::of(&message).octets().len()];
    count(
        "fingerprints of a small header",
        rate(rounds, 1000, || {
            (0..1000).map(|size| Fingerprint::new(Head::of(head), size).head).fold(0, u64::wrapping_add)
        }),
    );
    parsers::measure(smoke, rounds, copy);
    durable::measure(smoke);
    if smoke {
        filtered::smoke();
    }
}

fn line(name: &str, rate: f64, copy: f64) {
    println!("{name:<38} {:>10.0} {:>7.0}%", rate / 1e6, 100.0 * rate / copy);
}

fn count(name: &str, rate: f64) {
    println!("{name:<38} {rate:>10.0}");
}

/// The best of several rounds, in units a second.
fn rate<T>(rounds: usize, units: usize, mut work: impl FnMut() -> T) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let began = Instant::now();
        black_box(work());
        best = best.min(began.elapsed());
    }
    units as f64 / best.as_secs_f64()
}

/// A message of about this many octets: a header, then base64-like lines of 76 octets.
fn message(octets: usize) -> Vec<u8> {
    let mut message =
        b"Message-ID: <1@example.org>\r\nDate: Sun, 22 Nov 2026 19:31:00 +0000\r\nSubject: sample\r\n\r\n".to_vec();
    while message.len() < octets {
        message.extend_from_slice(&[b'x'; 76]);
        message.extend_from_slice(b"\r\n");
    }
    message
}

fn unstuff(wire: &[u8]) {
    let (mut inbox, mut unstuffer) = (Inbox::new(), Unstuffer::new());
    for read in wire.chunks(64 * 1024) {
        inbox.extend(read);
        while let Piece::Octets(octets) = unstuffer.next(&mut inbox) {
            black_box(octets);
        }
    }
}

fn line_ends(message: &[u8]) {
    let (mut out, mut line_ends) = (Vec::with_capacity(256 * 1024), LineEnds::default());
    for block in message.chunks(128 * 1024) {
        out.clear();
        line_ends.push(block, &mut out);
        black_box(&out);
    }
}

/// Feeds a machine in reads of 64 KiB, and shows it its events.
fn feed<M: Machine>(machine: &mut M, octets: &[u8], mut see: impl FnMut(&mut M, M::Event)) {
    let now = Instant::now();
    for read in octets.chunks(64 * 1024) {
        machine.receive(read);
        loop {
            match machine.poll(now) {
                Ok(Step::Event(event)) => see(machine, event),
                Ok(Step::NeedInput) | Err(_) => break,
                Ok(step) => drop(black_box(step)),
            }
        }
    }
}

fn pop3(script: &[u8], then: impl Fn(&mut connectord_pop3::Session)) {
    use connectord_pop3::{Event, Options, Session};
    let mut options = Options::default();
    options.security = Security::None;
    let mut session = Session::new(options);
    feed(&mut session, b"+OK ready\r\n", |_, _| {});
    feed(&mut session, b"-ERR no CAPA\r\n", |session, event| {
        if matches!(event, Event::LoginOffered(_)) {
            session.user_pass("ann", &"secret".into()).expect("a login is due");
        }
    });
    feed(&mut session, b"+OK\r\n", |_, _| {});
    feed(&mut session, b"+OK\r\n", |session, _| then(session));
    feed(&mut session, script, |_, event| drop(black_box(event)));
}

fn pop3_retrieve(wire: &[u8]) {
    let number = connectord_pop3::MessageNumber::new(1).expect("one is a number");
    pop3(wire, |session| session.retr(number));
}

fn uidl_listing(uids: u32) -> Vec<u8> {
    let mut listing = b"+OK\r\n".to_vec();
    for uid in 1..=uids {
        listing.extend_from_slice(format!("{uid} 00000{uid:08x}5c2b9f3d\r\n").as_bytes());
    }
    listing.extend_from_slice(b".\r\n");
    listing
}

fn pop3_uidl(listing: &[u8]) {
    pop3(listing, |session| session.uidl());
}

fn imap_fetch(message: &[u8], count: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for uid in 1..=count {
        stream.extend_from_slice(
            format!(
                "* {uid} FETCH (UID {uid} INTERNALDATE \"22-Nov-2026 19:31:00 +0000\" BODY[] {{{}}}\r\n",
                message.len()
            )
            .as_bytes(),
        );
        stream.extend_from_slice(message);
        stream.extend_from_slice(b")\r\n");
    }
    stream
}

fn imap_session(fetch: &[u8]) {
    use connectord_imap::{Event, FetchItems, Options, Section, Session, Uid, UidSet};
    let mut options = Options::default();
    options.security = Security::None;
    options.allow_preauth = true;
    let mut session = Session::new(options);
    feed(&mut session, b"* PREAUTH [CAPABILITY IMAP4rev1] ready\r\n", |session, event| {
        if matches!(event, Event::LoggedIn { .. }) {
            let (first, last) = (Uid::new(1).expect("not zero"), Uid::new(u32::MAX).expect("not zero"));
            let items = FetchItems { internal_date: true, body: Some(Section::Whole), ..FetchItems::default() };
            session.uid_fetch(&UidSet::range(first, last), items);
        }
    });
    feed(&mut session, fetch, |_, event| drop(black_box(event)));
}

fn plan(uids: u32) {
    let entries = (1..=uids).map(|uid| Entry::new(Key::Uid(uid), State::Delivered)).collect();
    let mut planner = Planner::new(Ledger::new(entries), Rules::default(), UnixTime(0));
    for uid in 1..=uids {
        black_box(planner.see(Listed::new(Key::Uid(uid))));
    }
}
