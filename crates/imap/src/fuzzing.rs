//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use std::num::NonZeroU32;
use std::time::Instant;

use connectord_wire::{Machine, Security, Step};

use crate::mailbox::{decode_utf7, encode_utf7};
use crate::{
    Error, Event, FetchItems, Flag, Flags, MailboxName, NameEncoding, Options, Section, Session, StatusItem, Uid,
    UidSearch, UidSet,
};

/// Any octets as responses to a session with everything in flight: the same at any split, bounded, and over.
///
/// The first octet says where to split.
pub fn response(data: &[u8]) {
    let Some((&split, data)) = data.split_first() else { return };
    let start = || {
        let mut session = logged_in();
        let uids = UidSet::parse(b"1:1000", 1).unwrap_or_default();
        session.list("", "*");
        session.uid_search(UidSearch::all());
        session
            .uid_fetch(&uids, FetchItems { size: true, internal_date: true, flags: true, body: Some(Section::Whole) });
        session.uid_copy(&uids, &MailboxName::inbox());
        run(&mut session, &[]);
        session
    };
    same_at_any_split(start, data, split);
}

/// Any octets as everything a server says, from the greeting on; a caller that does the next thing at each event.
///
/// The first octet says where to split, the second which security there is.
pub fn session(data: &[u8]) {
    let [split, security, data @ ..] = data else { return };
    let security = match security % 3 {
        0 => Security::Tls,
        1 => Security::StartTls,
        _ => Security::None,
    };
    same_at_any_split(|| Session::new(options(security)), data, *split);
}

/// What decodes is written the same again, what does not is kept, and every text survives.
pub fn utf7(data: &[u8]) {
    if let Some(text) = decode_utf7(data) {
        assert_eq!(encode_utf7(&text).as_bytes(), data);
    }
    for encoding in [NameEncoding::Utf7, NameEncoding::Utf8] {
        let back = MailboxName::from_wire(data, encoding).to_wire(encoding);
        assert!(back == data || back == b"INBOX");
    }
    let text = String::from_utf8_lossy(data);
    assert_eq!(decode_utf7(encode_utf7(&text).as_bytes()).as_deref(), Some(&*text));
}

fn options(security: Security) -> Options {
    Options {
        security,
        max_line: 512,
        max_literal: 256,
        max_nesting: 8,
        max_mailboxes: 100,
        max_messages: 100_000,
        max_message_octets: Some(1 << 20),
        max_untagged: 200,
        id: vec![("name".into(), "fuzz".into())],
        ..Options::default()
    }
}

/// Nobody acts on this login: what [`act`] queues would stand in front of what is to be in flight.
fn logged_in() -> Session {
    let mut session = Session::new(Options { allow_preauth: true, ..options(Security::None) });
    session.receive(b"* PREAUTH [CAPABILITY IMAP4rev1 ESEARCH LITERAL+] x\r\n");
    let event = session.poll(any_instant());
    assert!(matches!(event, Ok(Step::Event(Event::LoggedIn { .. }))));
    session
}

/// What came out, with the pieces of a body joined.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<Event>,
    sent: Vec<u8>,
    starts_of_tls: usize,
    failed: Option<Error>,
}

fn same_at_any_split(start: impl Fn() -> Session, data: &[u8], split: u8) {
    let cut = usize::from(split) * data.len() / 256;
    let whole = run(&mut start(), &[data, b""]);
    let octets: usize =
        whole.events.iter().map(|event| if let Event::Body(body) = event { body.len() } else { 0 }).sum();
    assert!(octets <= data.len());
    // Where TLS begins, what was cut off before is plaintext and what came after is not: the split matters then.
    if whole.starts_of_tls > 0 || matches!(whole.failed, Some(Error::PlaintextAfterStartTls { .. })) {
        return;
    }
    assert_eq!(run(&mut start(), &[&data[..cut], &data[cut..], b""]), whole);
    let octet_by_octet: Vec<_> = data.chunks(1).chain([&b""[..]]).collect();
    assert_eq!(run(&mut start(), &octet_by_octet), whole);
}

/// Feeds pieces (an empty one closes) and acts on events like a caller.
fn run(session: &mut Session, pieces: &[&[u8]]) -> Seen {
    let mut seen = Seen::default();
    poll_all(session, &mut seen);
    for (at, piece) in pieces.iter().enumerate() {
        // Only the last empty piece means the end of the stream.
        if piece.is_empty() && at + 1 < pieces.len() {
            continue;
        }
        session.receive(piece);
        poll_all(session, &mut seen);
    }
    let is_over = seen.failed.is_some() || !session.awaiting() || pieces.is_empty();
    assert!(is_over, "still waiting after the end of the stream");
    seen
}

fn poll_all(session: &mut Session, seen: &mut Seen) {
    let now = any_instant();
    while seen.failed.is_none() {
        match session.poll(now) {
            Ok(Step::NeedInput) => return,
            Ok(Step::StartTls) => seen.starts_of_tls += 1,
            Ok(Step::Transmit(octets)) => seen.sent.extend_from_slice(&octets),
            Ok(Step::Event(event)) => {
                act(session, &event);
                match (seen.events.last_mut(), event) {
                    (Some(Event::Body(before)), Event::Body(more)) => {
                        *before = [&before[..], &more[..]].concat().into()
                    }
                    (_, event) => seen.events.push(event),
                }
            }
            Err(error) => seen.failed = Some(error),
        }
    }
}

/// Does the next thing, so that every part of the session is reached.
fn act(session: &mut Session, event: &Event) {
    let uids = UidSet::parse(b"1:9", 1).unwrap_or_default();
    match event {
        Event::LoginOffered(offer) if offer.mechanisms.is_empty() && offer.login => {
            session.login("u", &"p\u{e4}".into())
        }
        Event::LoginOffered(_) => session.authenticate("PLAIN", Some("initial".into())),
        Event::Challenge(challenge) if challenge.is_empty() => session.cancel_sasl(),
        Event::Challenge(_) => session.respond("response".into()),
        Event::LoginRefused(_) => {
            session.logout();
        }
        Event::LoggedIn { .. } => {
            session.list_special_use("", "\u{e4}*");
            session.namespace();
            session.status(&MailboxName::inbox(), &[StatusItem::Messages]);
            session.select(&MailboxName::inbox());
        }
        Event::Selected(_) => {
            session.uid_search(UidSearch::since(Uid(NonZeroU32::MIN)));
            session.uid_fetch(&uids, FetchItems { body: Some(Section::Header), flags: true, ..FetchItems::default() });
            session.uid_store_add_flags(&uids, &Flags::from([Flag::Seen]));
            session.uid_move(&uids, &MailboxName::inbox());
            session.uid_expunge(&uids);
            session.idle();
            session.logout();
        }
        Event::Idling => session.idle_done(),
        _ => {}
    }
}

#[expect(clippy::disallowed_methods, reason = "poll wants an instant, and this session never looks at it")]
fn any_instant() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of what servers say, so that random dialogues get somewhere.
    const WORDS: [&str; 48] = [
        "* ",
        "+ ",
        "C1 ",
        "C2 ",
        "C3 ",
        "C4 ",
        "C5 ",
        "C6 ",
        "C7 ",
        "OK ",
        "NO ",
        "BAD ",
        "BYE ",
        "PREAUTH ",
        "[CAPABILITY IMAP4rev1 SASL-IR ENABLE UTF8=ACCEPT IDLE ID UIDPLUS MOVE LITERAL+] ",
        "[UIDVALIDITY 7] ",
        "[ALERT] ",
        "[STARTTLS] ",
        "CAPABILITY IMAP4rev1 STARTTLS",
        "LIST ",
        "SEARCH ",
        "ESEARCH (TAG \"C3\") UID ALL ",
        "1 FETCH (",
        "FETCH ",
        "BODY[] ",
        "BODY[HEADER] ",
        "UID 7 ",
        "UID ",
        "FLAGS (\\Seen) ",
        "{3}\r\nabc",
        "{2}\r\n",
        "{0}\r\n",
        "~{1}\r\nx",
        "1:9,",
        "5 EXISTS",
        "3 EXPUNGE",
        "NIL ",
        "\"a\\\"b\" ",
        "(",
        ")",
        "\r\n",
        "\r\n",
        "\r\n",
        "\r\n* OK [CAPABILITY IMAP4rev1] x\r\n",
        "\"",
        "{",
        "99999999999999999999",
        " ",
    ];

    fn dialogue() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            9 => prop::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..4),
        ];
        prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
    }

    #[test]
    fn a_body_is_streamed_in_the_session_that_responses_are_fed_to() {
        let mut session = logged_in();
        let uids = UidSet::parse(b"7", 1).unwrap();
        session.uid_fetch(&uids, FetchItems { body: Some(Section::Whole), ..FetchItems::default() });
        let seen = run(&mut session, &[b"* 1 FETCH (UID 7 BODY[] {1}\r\nx)\r\n", b""]);
        assert!(seen.events.contains(&Event::Body("x".into())), "{seen:?}");
        response(b"\x10* 1 FETCH (UID 7 BODY[] {1}\r\nx)\r\n");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn responses_are_the_same_at_any_split(split: u8, dialogue in dialogue()) {
            response(&[&[split][..], &dialogue].concat());
        }

        #[test]
        fn sessions_are_the_same_at_any_split(split: u8, security in 0u8..3, dialogue in dialogue()) {
            let greeting: &[u8] = if split % 4 == 0 { b"" } else { b"* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] x\r\n" };
            session(&[&[split, security], greeting, &dialogue].concat());
        }

        #[test]
        fn names_survive(octets in prop_oneof![prop::collection::vec(any::<u8>(), 0..20), "[&A-Za-z0-9+,-]{0,20}".prop_map(String::into_bytes)]) {
            utf7(&octets);
        }
    }
}
