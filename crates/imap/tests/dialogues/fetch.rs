//! FETCH: bodies streamed, attributes in any order, responses nobody asked for.

use connectord_imap::{
    Body, Completion, Error, Event, FetchItems, Fetched, Flag, Flags, InternalDate, Section, Session, Uid, UidSet,
};

use super::script::{Script, Seen, plain, sent};

fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}

fn set(text: &str) -> UidSet {
    UidSet::parse(text.as_bytes(), 1000).unwrap()
}

fn whole() -> FetchItems {
    FetchItems { body: Some(Section::Whole), ..FetchItems::default() }
}

fn script(uids: &'static str, items: FetchItems) -> Script {
    Script::logged_in("IMAP4rev1").call(move |session| session.uid_fetch(&set(uids), items))
}

fn bare(number: u32) -> Fetched {
    Fetched { uid: Some(uid(number)), asked: true, size: None, internal_date: None, flags: None, body: Body::Absent }
}

fn start(number: Option<u32>, octets: u64) -> Seen {
    Seen::Event(Event::BodyStart { uid: number.map(uid), section: Section::Whole, octets })
}

fn body(octets: &'static [u8]) -> [Seen; 2] {
    [Seen::Event(Event::Body(octets.into())), Seen::Event(Event::BodyEnd)]
}

/// What came after the command was sent, without the identity of the command.
fn answers(script: Script) -> Vec<Seen> {
    let mut seen = script.run_logged_in();
    assert!(matches!(seen.remove(0), Seen::Sent(_)));
    seen
}

fn is_done(seen: &Seen) -> bool {
    matches!(seen, Seen::Event(Event::Done { result: Ok(_), .. }))
}

#[test]
fn everything_that_can_be_asked_for_is_asked_for_without_setting_seen() {
    let items = FetchItems { size: true, internal_date: true, flags: true, body: Some(Section::Header) };
    let seen = script("1:3,9", items).run_logged_in();
    assert_eq!(seen, [sent("C2 UID FETCH 1:3,9 (UID RFC822.SIZE INTERNALDATE FLAGS BODY.PEEK[HEADER])\r\n")]);
    let seen = script("7", FetchItems::default()).run_logged_in();
    assert_eq!(seen, [sent("C2 UID FETCH 7 (UID)\r\n")]);
}

#[test]
fn the_body_may_come_before_the_uid() {
    let seen = answers(script("7", whole()).server(
        "* 1 FETCH (BODY[] {5}\r\nab\r\n) FLAGS (\\Seen $x) UID 7 RFC822.SIZE 5 INTERNALDATE \" 1-Jan-1970 00:00:01 +0000\")\r\nC2 OK done\r\n",
    ));
    let fetched = Fetched {
        size: Some(5),
        internal_date: Some(InternalDate { unix_seconds: 1, raw: " 1-Jan-1970 00:00:01 +0000".into() }),
        flags: Some(Flags::from([Flag::Seen, Flag::Keyword("$x".into())])),
        body: Body::Octets(5),
        ..bare(7)
    };
    let [piece, end] = body(b"ab\r\n)");
    assert_eq!(seen[..4], [start(None, 5), piece, end, Seen::Event(Event::Fetched(fetched))]);
    assert!(is_done(&seen[4]) && seen.len() == 5);
}

#[test]
fn a_body_that_looks_like_responses_is_octets() {
    const EVIL: &[u8] = b"C2 OK done\r\n* BYE gone\r\n)\r\n* 1 FETCH (UID 8 BODY[] {3}\r\n\0\xff";
    let text = [&format!("* 1 fetch (uid 7 body[] {{{}}}\r\n", EVIL.len()).into_bytes()[..], EVIL, b")\r\nC2 OK x\r\n"];
    let seen = answers(script("7", whole()).server(text.concat()));
    let octets = EVIL.len() as u64;
    let [piece, end] = body(EVIL);
    let fetched = Fetched { body: Body::Octets(octets), ..bare(7) };
    assert_eq!(seen[..4], [start(Some(7), octets), piece, end, Seen::Event(Event::Fetched(fetched))]);
    assert!(is_done(&seen[4]) && seen.len() == 5);
}

#[test]
fn a_body_may_be_empty_nil_quoted_or_a_literal8() {
    let text = "* 1 FETCH (UID 1 BODY[] {0}\r\n)\r\n* 2 FETCH (UID 2 BODY[] NIL)\r\n* 3 FETCH (BODY[] \"a\\\"b\" UID 3)\r\n\
                * 4 FETCH (UID 4 BODY[] ~{1}\r\n\0)\r\n* 5 FETCH (UID 5 RFC822 {1+}\r\nx)\n* 6 FETCH (UID 6 BODY[] \"\")\r\n";
    let seen = answers(script("1:6", whole()).server(text));
    let done = |number, octets| Seen::Event(Event::Fetched(Fetched { body: Body::Octets(octets), ..bare(number) }));
    let end = Seen::Event(Event::BodyEnd);
    let octets = |octets: &'static [u8]| Seen::Event(Event::Body(octets.into()));
    assert_eq!(
        seen,
        [
            start(Some(1), 0),
            end.clone(),
            done(1, 0),
            Seen::Event(Event::Fetched(Fetched { body: Body::Nil, ..bare(2) })),
            start(None, 3),
            octets(b"a\"b"),
            end.clone(),
            done(3, 3),
            start(Some(4), 1),
            octets(b"\0"),
            end.clone(),
            done(4, 1),
            start(Some(5), 1),
            octets(b"x"),
            end.clone(),
            done(5, 1),
            start(Some(6), 0),
            end,
            done(6, 0),
        ]
    );
}

#[test]
fn what_was_not_asked_for_is_passed_over_or_marked() {
    let text = "* 1 FETCH (FLAGS (\\Seen))\r\n\
                * 2 FETCH (UID 9 BODY[] {3}\r\nabc)\r\n\
                * 3 FETCH (UID 7 BODY[HEADER] {2}\r\n\r\n BODY[]<0> {1}\r\nx X-GM-LABELS (\"a(\" {2}\r\n)) (b)) ENVELOPE (NIL (())))\r\n\
                * 4 FETCH (BODY[] {1}\r\nx RFC822.SIZE -1)\r\n\
                * 5 FETCH (UID 8)\r\n\
                * 6 FETCH (UID 8 FLAGS ())\r\n\
                * 7 FETCH (UID 6 RFC822.SIZE 3)\r\n";
    let seen = answers(script("7:8", whole()).server(text));
    let fetched = |uid, asked, size, body| {
        Seen::Event(Event::Fetched(Fetched { uid, asked, size, internal_date: None, flags: None, body }))
    };
    let [piece, end] = body(b"x");
    assert_eq!(
        seen,
        [
            Seen::Event(Event::FlagsChanged { uid: None, flags: Flags::from([Flag::Seen]) }),
            start(None, 1),
            piece,
            end,
            fetched(None, false, None, Body::Octets(1)),
            Seen::Event(Event::FlagsChanged { uid: Some(uid(8)), flags: Flags::new() }),
            fetched(Some(uid(6)), false, Some(3), Body::Absent),
        ]
    );
}

#[test]
fn a_bracket_in_a_flag_or_a_value_is_an_octet_like_others() {
    let text = "* 1 FETCH (FLAGS (a[b \\Seen] [c) X-LABELS d[ BODY[HEADER.FIELDS (\"X [\" y)] {1}\r\nx UID 7 body[]<0> NIL \
                BODY[] {1}\r\nz)\r\n";
    let seen = answers(script("7", whole()).server(text));
    let keywords = ["a[b", "\\Seen]", "[c"].map(|name| Flag::Keyword(name.into()));
    let fetched = Fetched { flags: Some(keywords.into_iter().collect()), body: Body::Octets(1), ..bare(7) };
    let [piece, end] = body(b"z");
    assert_eq!(seen, [start(Some(7), 1), piece, end, Seen::Event(Event::Fetched(fetched))]);
}

#[test]
fn a_second_body_in_one_answer_is_passed_over() {
    let seen =
        answers(script("7", whole()).server("* 1 FETCH (UID 7 BODY[] {1}\r\nx BODY[] {1}\r\ny RFC822 \"z\")\r\n"));
    let [piece, end] = body(b"x");
    let fetched = Fetched { body: Body::Octets(1), ..bare(7) };
    assert_eq!(seen, [start(Some(7), 1), piece, end, Seen::Event(Event::Fetched(fetched))]);
}

#[test]
fn a_server_that_answers_for_ever_is_stopped() {
    let mut options = plain();
    options.max_messages = 2;
    let seen = Script::logged_in_with(options, "IMAP4rev1")
        .call(|session| session.uid_fetch(&set("7"), FetchItems { size: true, ..FetchItems::default() }))
        .server("* 1 FETCH (UID 7 RFC822.SIZE 1)\r\n".repeat(3))
        .run_logged_in();
    assert_eq!(seen.last(), Some(&Seen::Failed(Error::TooManyMessages { limit: 2 })));
    assert_eq!(seen.len(), 5);
}

#[test]
fn a_message_that_is_too_long_is_passed_over_and_the_next_comes() {
    let mut options = plain();
    options.max_message_octets = Some(3);
    let seen = Script::logged_in_with(options, "IMAP4rev1")
        .call(|session| session.uid_fetch(&set("1:2"), whole()))
        .server("* 1 FETCH (UID 1 BODY[] {4}\r\nlong)\r\n* 2 FETCH (UID 2 BODY[] {3}\r\nabc)\r\nC2 OK x\r\n")
        .run_logged_in();
    let [piece, end] = body(b"abc");
    assert_eq!(
        seen[1..6],
        [
            Seen::Event(Event::Fetched(Fetched { body: Body::TooLong(4), ..bare(1) })),
            start(Some(2), 3),
            piece,
            end,
            Seen::Event(Event::Fetched(Fetched { body: Body::Octets(3), ..bare(2) })),
        ]
    );
}

#[test]
fn a_connection_that_ends_in_a_body_is_an_error_and_no_end_of_it() {
    let seen = answers(script("7", whole()).server("* 1 FETCH (UID 7 BODY[] {5}\r\nab").close());
    assert_eq!(
        seen,
        [
            start(Some(7), 5),
            Seen::Event(Event::Body("ab".into())),
            Seen::Failed(Error::Closed { during: "receiving a message" }),
        ]
    );
}

#[test]
fn lying_numbers_and_broken_lists_end_the_session() {
    let limit =
        |octets| Error::Syntax { expected: "a string with an end", during: "waiting for messages", found: octets };
    for (line, error) in [
        ("* 1 FETCH (UID 7 BODY[] {99999999999999999999}\r\n", limit(b" {99999999999999999999}".to_vec())),
        ("* 1 FETCH (UID 7 BODY[] {18446744073709551615}\r\n", limit(b" {18446744073709551615}".to_vec())),
    ] {
        assert_eq!(answers(script("7", whole()).server(line)), [Seen::Failed(error)]);
    }
    for line in [
        "* 1 FETCH (UID 0)",
        "* 1 FETCH (UID 4294967296)",
        "* 1 FETCH (UID -1)",
        "* 1 FETCH (UID 7 UID 8)",
        "* 1 FETCH (UID 7",
        "* 1 FETCH UID 7",
        "* 1 FETCH (FLAGS (a (b)))",
        "* 1 FETCH ({3}",
        "what a server sends after a literal of a wrong length)",
    ] {
        let seen = answers(script("7", whole()).server(format!("{line}\r\n")));
        assert!(matches!(seen[..], [Seen::Failed(Error::Syntax { .. })]), "{line}: {seen:?}");
    }
    let deep = format!("* 1 FETCH (X {}\r\n", "(".repeat(40));
    let error = Error::NestedTooDeep { limit: 32, during: "waiting for messages" };
    assert_eq!(answers(script("7", whole()).server(deep)), [Seen::Failed(error)]);
}

#[test]
fn a_long_set_is_sent_as_several_commands_in_flight_and_is_done_once() {
    let odd = || (0..900).map(|n| uid(10_000 + 2 * n)).collect::<UidSet>();
    let seen = Script::logged_in("IMAP4rev1")
        .call(move |session| session.uid_fetch(&odd(), FetchItems::default()))
        .server("C2 OK a\r\nC3 NO [EXPUNGEISSUED] some are gone\r\nC4 OK b\r\nC5 OK c\r\nC6 OK d\r\nC7 OK e\r\n")
        .call(Session::noop)
        .run_logged_in();
    let Seen::Sent(first) = &seen[0] else { panic!() };
    assert_eq!(first.lines().count(), 6);
    assert!(first.lines().all(|line| line.len() < 1030));
    let uids =
        first.lines().filter_map(|line| line.split(' ').nth(3)).flat_map(|part| set(part).iter().collect::<Vec<_>>());
    assert_eq!(uids.collect::<UidSet>(), odd());
    let Seen::Event(Event::Done { result: Err(refusal), .. }) = &seen[1] else { panic!("{seen:?}") };
    assert_eq!(refusal.to_string(), "UID FETCH refused: \"NO [EXPUNGEISSUED] some are gone\"");
    assert_eq!(seen[2..], [sent("C8 NOOP\r\n")]);
}

#[test]
fn a_fetch_of_nothing_is_done_in_its_turn() {
    let seen = Script::logged_in("IMAP4rev1")
        .call(Session::noop)
        .call(|session| session.uid_fetch(&UidSet::new(), whole()))
        .server("C2 OK x\r\n")
        .run_logged_in();
    let results: Vec<_> = seen
        .into_iter()
        .filter_map(|seen| if let Seen::Event(Event::Done { result, .. }) = seen { Some(result) } else { None })
        .collect();
    assert_eq!(results, [Ok(Completion { codes: vec![], text: "x".into() }), Ok(Completion::default())]);
}

#[test]
fn no_more_is_in_flight_than_the_window_allows() {
    for (commands, octets, expected) in [(1, 99_999, 1), (3, 99_999, 3), (99, 1, 1), (99, 30, 2)] {
        let mut options = plain();
        (options.window_commands, options.window_octets, options.max_set_octets) = (commands, octets, 1);
        let seen = Script::logged_in_with(options, "IMAP4rev1")
            .call(|session| session.uid_fetch(&set("1,3,5,7"), FetchItems::default()))
            .run_logged_in();
        let Seen::Sent(text) = &seen[0] else { panic!() };
        assert_eq!(text.lines().count(), expected, "{text}");
    }
}
