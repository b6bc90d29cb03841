//! Our IMAP session beside imap-codec and imap-proto, on the same octets.
//!
//! Theirs parse a buffer that has the whole response; ours is fed with reads of 64 KiB, keeps track of the session and
//! hands bodies on without keeping them. It is the work a caller gets done, not the same work.

use std::hint::black_box;

use connectord_imap::{Event, FetchItems, Options, Section, Session, Uid, UidSearch, UidSet};
use connectord_wire::Security;
use imap_codec::ResponseCodec;
use imap_codec::decode::Decoder;

use crate::{feed, imap_fetch, line, message, rate};

pub(crate) fn measure(smoke: bool, rounds: usize, copy: f64) {
    let octets = if smoke { 1 << 20 } else { 16 << 20 };
    println!("{:<38} {:>10} {:>8}", "IMAP responses", "MB/s", "of copy");
    for (name, size) in [("10 kB messages", 10_000), ("500 B messages", 500)] {
        let stream = imap_fetch(&message(size)[..size], octets / size);
        beside(&format!("FETCH of {name}"), &stream, rounds, copy);
    }
    let flags: Vec<u8> = (1..=octets / 60)
        .flat_map(|uid| format!("* {uid} FETCH (UID {uid} FLAGS (\\Seen) RFC822.SIZE {})\r\n", uid * 7).into_bytes())
        .collect();
    beside("FETCH of sizes and flags", &flags, rounds, copy);
    let uids: Vec<String> = (1..=octets / 80).map(|uid| (uid * 2).to_string()).collect();
    beside("SEARCH, one line", format!("* SEARCH {}\r\n", uids.join(" ")).as_bytes(), rounds, copy);
}

fn beside(name: &str, stream: &[u8], rounds: usize, copy: f64) {
    line(&format!("{name}: connectord"), rate(rounds, stream.len(), || ours(stream)), copy);
    line(&format!("{name}: imap-codec"), rate(rounds, stream.len(), || codec(stream)), copy);
    line(&format!("{name}: imap-proto"), rate(rounds, stream.len(), || proto(stream)), copy);
}

fn ours(stream: &[u8]) {
    let mut options = Options::default();
    options.security = Security::None;
    options.allow_preauth = true;
    let mut session = Session::new(options);
    feed(&mut session, b"* PREAUTH [CAPABILITY IMAP4rev1] ready\r\n", |session, event| {
        if matches!(event, Event::LoggedIn { .. }) {
            let (first, last) = (Uid::new(1).expect("not zero"), Uid::new(u32::MAX).expect("not zero"));
            session.uid_search(UidSearch::all());
            let items = FetchItems { size: true, flags: true, body: Some(Section::Whole), ..FetchItems::default() };
            session.uid_fetch(&UidSet::range(first, last), items);
        }
    });
    let mut events = 0u64;
    feed(&mut session, stream, |_, event| {
        events += 1;
        drop(black_box(event));
    });
    assert!(events > 0, "nothing was read");
}

fn codec(mut stream: &[u8]) {
    let codec = ResponseCodec::default();
    while !stream.is_empty() {
        let (rest, response) = codec.decode(stream).expect("imap-codec reads it");
        drop(black_box(response));
        stream = rest;
    }
}

fn proto(mut stream: &[u8]) {
    while !stream.is_empty() {
        let (rest, response) = imap_proto::Response::parse(stream).expect("imap-proto reads it");
        drop(black_box(response));
        stream = rest;
    }
}
