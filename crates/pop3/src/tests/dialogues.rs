//! Dialogues from the RFCs and from real servers, from the login to QUIT.

use bytes::Bytes;

use super::harness::{Script, number, unique_id};
use crate::{Event, Expire, LoginDelay, Options, Pipelining, Refusal, ResponseCode, Retrieval, Session};
use connectord_wire::{Secret, Security};

pub(super) fn log_in(session: &mut Session) {
    session.user_pass("ann", &Secret::from("tulip")).expect("a login is due");
}

/// Logs in and queues commands at once.
fn with(commands: impl Fn(&mut Session)) -> impl Fn(&mut Session, &Event) {
    move |session, event| match event {
        Event::LoginOffered(_) => log_in(session),
        Event::LoggedIn => commands(session),
        _ => {}
    }
}

/// The events behind the login.
fn later(events: &[Event]) -> &[Event] {
    let at = events.iter().position(|event| *event == Event::LoggedIn).expect("a login");
    &events[at + 1..]
}

#[test]
fn the_example_session_of_rfc_1939() {
    // RFC 1939 §10, with USER and PASS in the place of APOP.
    let script = Script::new(Options::default())
        .server(&["+OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>"])
        .client(&["CAPA"])
        .server(&["-ERR"])
        .client(&["USER mrose"])
        .server(&["+OK mrose is a real hoopy frood"])
        .client(&["PASS secret"])
        .server(&["+OK mrose's maildrop has 2 messages (320 octets)"])
        .client(&["STAT"])
        .server(&["+OK 2 320"])
        .client(&["LIST"])
        .server(&["+OK 2 messages (320 octets)", "1 120", "2 200", "."])
        .client(&["RETR 1"])
        .server(&["+OK 120 octets", "From: a", "", "..", "<the POP3 server sends message 1>", "."])
        .client(&["DELE 1"])
        .server(&["+OK message 1 deleted"])
        .client(&["RETR 2"])
        .server(&["+OK 200 octets", "<the POP3 server sends message 2>", "."])
        .client(&["DELE 2"])
        .server(&["+OK message 2 deleted"])
        .client(&["QUIT"])
        .server(&["+OK dewey POP3 server signing off (maildrop empty)"]);
    let told = script.told(|session, event| match event {
        Event::LoginOffered(offer) => {
            assert!(offer.user && offer.encrypted && !offer.capabilities.is_known());
            session.user_pass("mrose", &Secret::from("secret")).expect("a login is due");
        }
        Event::LoggedIn => {
            session.stat();
            session.list();
            for message in [1, 2] {
                session.retr(number(message));
                session.dele(number(message));
            }
            session.quit();
        }
        _ => {}
    });
    let start = |message, octets| Event::BodyStart { number: number(message), kind: Retrieval::Whole, octets };
    let end = |message, octets| Event::BodyEnd { number: number(message), kind: Retrieval::Whole, octets };
    assert_eq!(
        later(&told.events),
        [
            Event::Stat { messages: 2, octets: 320 },
            Event::Size { number: number(1), octets: 120 },
            Event::Size { number: number(2), octets: 200 },
            Event::SizesEnd { count: 2 },
            start(1, Some(120)),
            end(1, 49),
            Event::Deleted { number: number(1) },
            start(2, Some(200)),
            end(2, 35),
            Event::Deleted { number: number(2) },
            Event::Goodbye { refusal: None },
        ]
    );
    assert_eq!(
        told.bodies,
        [
            b"From: a\r\n\r\n.\r\n<the POP3 server sends message 1>\r\n".to_vec(),
            b"<the POP3 server sends message 2>\r\n".to_vec()
        ]
    );
    assert_eq!(told.error, None);
}

#[test]
fn the_capabilities_of_rfc_2449() {
    let told = Script::new(Options::default())
        .server(&["+OK"])
        .client(&["CAPA"])
        .server(&[
            "+OK Capability list follows",
            "TOP",
            "USER",
            "SASL CRAM-MD5 KERBEROS_V4",
            "RESP-CODES",
            "LOGIN-DELAY 900",
            "PIPELINING",
            "EXPIRE 60",
            "UIDL",
            "IMPLEMENTATION Shlemazle-Plotz-v302",
            ".",
        ])
        .told(|session, _| assert!(session.pipelining()));
    let [Event::LoginOffered(offer)] = &told.events[..] else { panic!("{told:?}") };
    assert_eq!(offer.mechanisms, ["CRAM-MD5", "KERBEROS_V4"]);
    assert!(offer.user);
    let capabilities = &offer.capabilities;
    assert!(capabilities.has("top") && capabilities.has("RESP-CODES") && !capabilities.has("STLS"));
    assert_eq!(capabilities.login_delay(), Some(LoginDelay { seconds: 900, differs_by_user: false }));
    assert_eq!(capabilities.expire(), Some(Expire { days: Some(60), differs_by_user: false }));
    assert_eq!(capabilities.implementation().as_deref(), Some("Shlemazle-Plotz-v302"));
}

#[test]
fn the_capabilities_of_gnu_mailutils() {
    let listed =
        ["+OK Capability list follows", "TOP", "UIDL", "RESP-CODES", "PIPELINING", "AUTH-RESP-CODE", "EXPIRENEVER"];
    let told = Script::new(Options::default())
        .server(&["+OK POP3 Ready <5394.1795377871@vm>"])
        .client(&["CAPA"])
        .server(&listed)
        .server(&["USER", "."])
        .told(|_, _| {});
    let [Event::LoginOffered(offer)] = &told.events[..] else { panic!("{told:?}") };
    assert!(offer.user && offer.mechanisms.is_empty());
    assert_eq!(offer.capabilities.expire(), Some(Expire { days: None, differs_by_user: false }));
}

#[test]
fn stls_of_rfc_2595_forgets_what_plaintext_told() {
    let options = Options { security: Security::StartTls, ..Options::default() };
    let told = Script::new(options)
        .server(&["+OK"])
        .client(&["CAPA"])
        .server(&["+OK", "STLS", "SASL PLAIN", "PIPELINING", "."])
        .client(&["STLS"])
        .server(&["+OK Begin TLS negotiation"])
        .starts_tls()
        .client(&["CAPA"])
        .server(&["+OK", "SASL SCRAM-SHA-256", "."])
        .told(|session, _| assert!(!session.pipelining()));
    let [Event::LoginOffered(offer)] = &told.events[..] else { panic!("{told:?}") };
    assert!(offer.encrypted && !offer.user);
    assert_eq!(offer.mechanisms, ["SCRAM-SHA-256"]);
}

#[test]
fn stls_is_tried_at_a_server_without_capa() {
    let options = Options { security: Security::StartTls, ..Options::default() };
    let told = Script::new(options)
        .server(&["+OK"])
        .client(&["CAPA"])
        .server(&["-ERR what?"])
        .client(&["STLS"])
        .server(&["+OK"])
        .starts_tls()
        .client(&["CAPA"])
        .server(&["-ERR what?"])
        .told(|_, _| {});
    let [Event::LoginOffered(offer)] = &told.events[..] else { panic!("{told:?}") };
    assert!(offer.encrypted && offer.user && offer.mechanisms.is_empty());
}

#[test]
fn utf8_mode_is_asked_for_when_offered_and_may_be_refused() {
    for answer in ["+OK UTF8 enabled", "-ERR no"] {
        let told = Script::new(Options::default())
            .server(&["+OK"])
            .client(&["CAPA"])
            .server(&["+OK", "USER", "UTF8 USER", "."])
            .client(&["UTF8"])
            .server(&[answer])
            .told(|_, _| {});
        assert!(matches!(&told.events[..], [Event::LoginOffered(_)]), "{told:?}");
    }
}

#[test]
fn pipelined_commands_leave_together_and_are_answered_in_order() {
    // Dovecot 2.3's words.
    let told = Script::new(Options::default())
        .logged_in(&["CAPA", "TOP", "UIDL", "RESP-CODES", "PIPELINING", "AUTH-RESP-CODE", "USER", "SASL PLAIN"])
        .client(&["STAT", "UIDL", "LIST", "UIDL 2", "LIST 2", "TOP 1 0", "RETR 2", "DELE 2", "NOOP", "RSET", "QUIT"])
        .server(&[
            "+OK 2 15",
            "+OK",
            "1 0000000163a1b2c3",
            "2 0000000263a1b2c3",
            ".",
            "+OK 2 messages:",
            "1 5",
            "2 10",
            ".",
            "+OK 2 0000000263a1b2c3",
            "+OK 2 10",
            "+OK",
            "A: b",
            "",
            ".",
            "-ERR [SYS/TEMP] Internal error",
            "+OK Marked to be deleted.",
            "+OK",
            "+OK",
            "+OK Logging out, messages deleted.",
        ])
        .closes()
        .told(with(|session| {
            session.stat();
            session.uidl();
            session.list();
            session.uidl_one(number(2));
            session.list_one(number(2));
            session.top(number(1), 0);
            session.retr(number(2));
            session.dele(number(2));
            session.noop();
            session.rset();
            session.quit();
        }));
    let (code, text) = (Some(ResponseCode::SysTemp), Bytes::from_static(b"Internal error"));
    assert_eq!(
        later(&told.events),
        [
            Event::Stat { messages: 2, octets: 15 },
            unique_id(1, "0000000163a1b2c3"),
            unique_id(2, "0000000263a1b2c3"),
            Event::UniqueIdsEnd { count: 2 },
            Event::Size { number: number(1), octets: 5 },
            Event::Size { number: number(2), octets: 10 },
            Event::SizesEnd { count: 2 },
            unique_id(2, "0000000263a1b2c3"),
            Event::Size { number: number(2), octets: 10 },
            Event::BodyStart { number: number(1), kind: Retrieval::Top, octets: None },
            Event::BodyEnd { number: number(1), kind: Retrieval::Top, octets: 8 },
            Event::RetrieveRefused {
                number: number(2),
                kind: Retrieval::Whole,
                refusal: Refusal { command: "RETR", code, text }
            },
            Event::Deleted { number: number(2) },
            Event::Noop,
            Event::Reset,
            Event::Goodbye { refusal: None },
        ]
    );
    assert_eq!(told.error, None, "a close after the goodbye is no error");
}

#[test]
fn the_policy_against_pipelining_sends_one_command_at_a_time() {
    let options = Options { pipelining: Pipelining::Never, ..Options::default() };
    let told = Script::new(options)
        .logged_in(&["PIPELINING", "USER"])
        .client(&["NOOP"])
        .server(&["+OK"])
        .client(&["NOOP"])
        .server(&["+OK"])
        .client(&["NOOP"])
        .server(&["+OK"])
        .told(with(|session| (0..3).for_each(|_| session.noop())));
    assert_eq!(later(&told.events), [Event::Noop, Event::Noop, Event::Noop]);
}

#[test]
fn pipelining_listed_only_after_the_login_is_found_when_it_pays() {
    let script = |commands: &[&str]| Script::new(Options::default()).logged_in(&["USER"]).client(commands);
    // Two commands: not worth a round trip.
    script(&["UIDL"]).server(&["+OK", "."]).client(&["QUIT"]).server(&["+OK"]).told(with(|session| {
        session.uidl();
        session.quit();
    }));
    // Three: asked once, and the rest goes together.
    let three = with(|session: &mut Session| (1..=3).for_each(|message| session.dele(number(message))));
    let answers = ["+OK", "+OK", "-ERR no such message"];
    let told = script(&["CAPA"])
        .server(&["+OK", "USER", "PIPELINING", "."])
        .client(&["DELE 1", "DELE 2", "DELE 3"])
        .server(&answers)
        .told(&three);
    assert_eq!(later(&told.events).len(), 3);
    // Or one by one after all.
    let mut refused = script(&["CAPA"]).server(&["-ERR"]);
    for (at, answer) in answers.iter().enumerate() {
        refused = refused.client(&[&format!("DELE {}", at + 1)]).server(&[answer]);
    }
    assert_eq!(refused.told(&three).events, told.events);
}

#[test]
fn the_window_is_refilled_by_halves() {
    let options = Options { window_commands: 4, ..Options::default() };
    Script::new(options)
        .logged_in(&["PIPELINING", "USER"])
        .client(&["NOOP", "NOOP", "NOOP", "NOOP"])
        .server(&["+OK"])
        .client(&[])
        .server(&["+OK"])
        .client(&["NOOP", "NOOP"])
        .server(&["+OK", "+OK", "+OK", "+OK"])
        .told(with(|session| (0..6).for_each(|_| session.noop())));
}

#[test]
fn the_window_in_octets_always_lets_one_command_through() {
    let options = Options { window_octets: 1, ..Options::default() };
    Script::new(options)
        .logged_in(&["PIPELINING", "USER"])
        .client(&["NOOP"])
        .server(&["+OK"])
        .client(&["RSET"])
        .server(&["+OK"])
        .told(with(|session| {
            session.noop();
            session.rset();
        }));
}

#[test]
fn every_refusal_names_what_it_refuses() {
    let told = Script::new(Options::default())
        .logged_in(&["PIPELINING", "USER"])
        .client(&["STAT", "UIDL", "UIDL 7", "LIST", "LIST 7", "TOP 7 1", "RETR 7", "DELE 7", "NOOP", "RSET", "QUIT"])
        .server(&["-ERR a"; 11])
        .told(with(|session| {
            session.stat();
            session.uidl();
            session.uidl_one(number(7));
            session.list();
            session.list_one(number(7));
            session.top(number(7), 1);
            session.retr(number(7));
            session.dele(number(7));
            session.noop();
            session.rset();
            session.quit();
        }));
    let refusal = |command| Refusal { command, code: None, text: Bytes::from_static(b"a") };
    let number = number(7);
    assert_eq!(
        later(&told.events),
        [
            Event::StatRefused(refusal("STAT")),
            Event::UniqueIdsRefused(refusal("UIDL")),
            Event::UniqueIdRefused { number, refusal: refusal("UIDL") },
            Event::SizesRefused(refusal("LIST")),
            Event::SizeRefused { number, refusal: refusal("LIST") },
            Event::RetrieveRefused { number, kind: Retrieval::Top, refusal: refusal("TOP") },
            Event::RetrieveRefused { number, kind: Retrieval::Whole, refusal: refusal("RETR") },
            Event::DeleteRefused { number, refusal: refusal("DELE") },
            Event::NoopRefused(refusal("NOOP")),
            Event::ResetRefused(refusal("RSET")),
            Event::Goodbye { refusal: Some(refusal("QUIT")) },
        ]
    );
}

#[test]
fn double_and_unreadable_unique_ids_are_passed_on() {
    let told = Script::new(Options::default())
        .logged_in(&["USER"])
        .client(&["UIDL"])
        .server_octets(b"+ok\n1 a\r\n1 b\r\n2 a \r\n\r\n..3 x\r\n4\r\n5 a b\r\njunk\r\n  6\tb\xe4r\n.\n".to_vec())
        .told(with(Session::uidl));
    let unreadable = |message, line: &'static [u8]| Event::UniqueIdUnreadable {
        number: crate::MessageNumber::new(message),
        line: Bytes::from_static(line),
    };
    assert_eq!(
        later(&told.events),
        [
            unique_id(1, "a"),
            unique_id(1, "b"),
            unique_id(2, "a"),
            unreadable(0, b"..3 x"),
            unreadable(4, b"4"),
            unreadable(5, b"5 a b"),
            unreadable(0, b"junk"),
            Event::UniqueId { number: number(6), uidl: crate::Uidl::new(b"b\xe4r").expect("a unique-id") },
            Event::UniqueIdsEnd { count: 4 },
        ]
    );
}

#[test]
fn a_single_answer_that_is_unreadable_is_told_of_the_message_asked_for() {
    let told = Script::new(Options::default())
        .logged_in(&["PIPELINING", "USER"])
        .client(&["UIDL 3", "UIDL 3", "LIST 3"])
        .server(&["+OK", "+OK 3", "+OK 3 big"])
        .told(with(|session| {
            session.uidl_one(number(3));
            session.uidl_one(number(3));
            session.list_one(number(3));
        }));
    let (number, line) = (Some(number(3)), Bytes::from_static);
    assert_eq!(
        later(&told.events),
        [
            Event::UniqueIdUnreadable { number, line: line(b"+OK") },
            Event::UniqueIdUnreadable { number, line: line(b"+OK 3") },
            Event::SizeUnreadable { number, line: line(b"+OK 3 big") },
        ]
    );
}

#[test]
fn a_message_keeps_every_octet() {
    let message: Vec<u8> = (0..=255u8).chain(*b"\r\n.\r\n..\r\n.x\nbare\n\nlast\r\n").collect();
    let mut wire = b"+OK\r\n".to_vec();
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    let told = Script::new(Options::default())
        .logged_in(&["USER"])
        .client(&["RETR 1"])
        .server_octets(wire)
        .told(with(|session| session.retr(number(1))));
    assert_eq!(told.bodies, [message]);
}

#[test]
fn an_empty_message_is_a_start_and_an_end() {
    let told = Script::new(Options::default())
        .logged_in(&["USER"])
        .client(&["RETR 1"])
        .server(&["+OK 0 octets", "."])
        .told(with(|session| session.retr(number(1))));
    let (number, kind) = (number(1), Retrieval::Whole);
    let start = Event::BodyStart { number, kind, octets: Some(0) };
    assert_eq!(later(&told.events), [start, Event::BodyEnd { number, kind, octets: 0 }]);
}

#[test]
fn ten_thousand_pipelined_commands_are_answered_within_the_window() {
    use connectord_wire::{Machine, Step};
    let mut session = Session::new(Options::default());
    session.receive(b"+OK\r\n+OK\r\nPIPELINING\r\nUSER\r\n.\r\n+OK\r\n+OK\r\n");
    let (mut asked, mut deleted, mut writes) = (0, 0, 0);
    while deleted < 10_000 {
        match session.step().expect("no error") {
            Step::Event(Event::LoginOffered(_)) => log_in(&mut session),
            Step::Event(Event::LoggedIn) => (1..=10_000).for_each(|message| session.dele(number(message))),
            Step::Event(Event::Deleted { number }) => {
                deleted += 1;
                assert_eq!(number.get(), deleted);
            }
            Step::Transmit(octets) if octets.starts_with(b"DELE") => {
                writes += 1;
                let commands = memchr::memchr_iter(b'\n', &octets).count();
                asked += commands as u32;
                assert!(asked - deleted <= 512 && octets.len() <= 6000);
                session.receive(&b"+OK\r\n".repeat(commands));
            }
            Step::Transmit(_) => {}
            step => panic!("{step:?}"),
        }
    }
    assert!(writes < 60, "{writes} writes");
    assert_eq!(asked, 10_000);
}
