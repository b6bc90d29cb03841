//! USER and PASS, SASL with all its turns, refusals, and what the session says of itself meanwhile.

use bytes::Bytes;
use connectord_wire::{Blame, Machine, Secret, Step};

use super::dialogues::log_in;
use super::harness::Script;
use crate::{Error, Event, InitialResponse, Options, Refusal, ResponseCode, Session};

fn offered(mechanisms: &str) -> Script {
    Script::new(Options::default()).server(&["+OK"]).client(&["CAPA"]).server(&["+OK", "USER", mechanisms, "."])
}

#[test]
fn auth_plain_of_rfc_5034_goes_with_its_initial_response() {
    let told = offered("SASL PLAIN")
        .client(&["AUTH PLAIN dGVzdAB0ZXN0AHRlc3Q="])
        .server(&["+OK Maildrop locked and ready"])
        .told(|session, event| {
            if let Event::LoginOffered(_) = event {
                session.authenticate("plain", Some(Secret::from("test\0test\0test"))).expect("a login is due");
            }
        });
    assert_eq!(told.events[1..], [Event::LoggedIn]);
}

#[test]
fn auth_without_initial_response_is_asked_for_it() {
    // RFC 5034 §6, the second example; also with servers that forget the space or say something for people.
    for challenge in ["+ ", "+", "+ Go ahead!"] {
        let options = Options { initial_response: InitialResponse::Separately, ..Options::default() };
        let told = Script::new(options)
            .server(&["+OK"])
            .client(&["CAPA"])
            .server(&["+OK", "SASL PLAIN", "."])
            .client(&["AUTH PLAIN"])
            .server(&[challenge])
            .client(&["dGVzdAB0ZXN0AHRlc3Q="])
            .server(&["+OK Maildrop locked and ready"])
            .told(|session, event| {
                if let Event::LoginOffered(_) = event {
                    session.authenticate("PLAIN", Some(Secret::from("test\0test\0test"))).expect("a login is due");
                }
            });
        assert_eq!(told.events[1..], [Event::LoggedIn]);
    }
}

#[test]
fn an_initial_response_goes_into_the_line_up_to_255_octets() {
    // "AUTH X " and CRLF leave 246 octets, which 184 octets take 248 of and 183 exactly 244.
    for (length, in_line) in [(0, true), (183, true), (184, false), (5000, false)] {
        let mut session = Session::new(Options::default());
        session.receive(b"+OK\r\n-ERR\r\n");
        let mut lines = Vec::new();
        loop {
            match session.step().expect("no error") {
                Step::Transmit(octets) => lines.push(octets),
                Step::Event(Event::LoginOffered(_)) => {
                    session.authenticate("X", Some(Secret::new(vec![b'a'; length]))).expect("a login is due");
                }
                Step::NeedInput => break,
                step => panic!("{step:?}"),
            }
        }
        let line = lines.last().expect("AUTH was sent");
        assert_eq!(&line[..] != b"AUTH X\r\n", in_line, "{length}");
        assert!(line.len() <= 255);
        if length == 0 {
            assert_eq!(&line[..], b"AUTH X =\r\n");
        }
    }
}

#[test]
fn challenges_are_decoded_and_answered() {
    // RFC 2195's example, in the turns of RFC 5034.
    let told = offered("SASL CRAM-MD5")
        .client(&["AUTH CRAM-MD5"])
        .server(&["+ PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"])
        .client(&["dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"])
        .server(&["+"])
        .client(&[""])
        .server(&["+OK CRAM authentication successful"])
        .told(|session, event| match event {
            Event::LoginOffered(_) => session.authenticate("CRAM-MD5", None).expect("a login is due"),
            Event::Challenge(octets) if octets.is_empty() => session.respond(Secret::default()).expect("a challenge"),
            Event::Challenge(octets) => {
                assert_eq!(octets, b"<1896.697170952@postoffice.reston.mci.net>");
                session.respond(Secret::from("tim b913a602c7eda7a495b4e6e7334d3890")).expect("a challenge");
            }
            _ => {}
        });
    assert_eq!(told.events.last(), Some(&Event::LoggedIn));
}

#[test]
fn a_mechanism_that_is_given_up_is_refused_and_another_may_follow() {
    let told = offered("SASL SCRAM-SHA-1")
        .client(&["AUTH SCRAM-SHA-1 bg=="])
        .server(&["+ dj1sZWdlbmQ"])
        .client(&["*"])
        .server(&["-ERR [AUTH] cancelled"])
        .client(&["USER ann"])
        .server(&["+OK"])
        .client(&["PASS tulip"])
        .server(&["+OK"])
        .told(|session, event| match event {
            Event::LoginOffered(_) => session.authenticate("SCRAM-SHA-1", Some(Secret::from("n"))).expect("due"),
            Event::Challenge(octets) => {
                assert_eq!(octets, b"v=legend", "padding left out is no harm");
                session.cancel_sasl().expect("a challenge");
            }
            Event::LoginRefused(_) => log_in(session),
            _ => {}
        });
    let refusal = Refusal { command: "AUTH", code: Some(ResponseCode::Auth), text: Bytes::from_static(b"cancelled") };
    assert_eq!(
        told.events[1..],
        [Event::Challenge(b"v=legend".to_vec()), Event::LoginRefused(refusal), Event::LoggedIn]
    );
}

#[test]
fn a_login_that_succeeds_after_it_was_given_up_is_an_error() {
    let told = offered("SASL SCRAM-SHA-1")
        .client(&["AUTH SCRAM-SHA-1"])
        .server(&["+ eA=="])
        .client(&["*"])
        .server(&["+OK"])
        .told(|session, event| match event {
            Event::LoginOffered(_) => session.authenticate("SCRAM-SHA-1", None).expect("a login is due"),
            Event::Challenge(_) => session.cancel_sasl().expect("a challenge"),
            _ => {}
        });
    let (expected, during) = ("-ERR, as the mechanism was given up", "waiting for the end of AUTH");
    assert_eq!(told.error, Some(Error::UnexpectedReply { expected, found: Bytes::from_static(b"+OK"), during }));
}

#[test]
fn a_challenge_that_is_not_base64_is_an_error() {
    let told = offered("SASL X").client(&["AUTH X"]).server(&["+ what?"]).told(|session, event| {
        if let Event::LoginOffered(_) = event {
            session.authenticate("X", None).expect("a login is due");
        }
    });
    assert_eq!(told.error, Some(Error::Challenge { found: Bytes::from_static(b"+ what?") }));
}

#[test]
fn refusals_tell_whose_fault_it_is() {
    let cases = [
        ("-ERR [AUTH] bad password", Some(ResponseCode::Auth), "bad password", Blame::Credentials),
        ("-ERR [IN-USE] busy", Some(ResponseCode::InUse), "busy", Blame::Server),
        ("-ERR [LOGIN-DELAY] slow down", Some(ResponseCode::LoginDelay(None)), "slow down", Blame::Server),
        ("-ERR [SYS/TEMP] later", Some(ResponseCode::SysTemp), "later", Blame::Server),
        ("-err wrong", None, "wrong", Blame::Credentials),
        ("-ERR account locked", None, "account locked", Blame::Credentials),
        ("-ERR unable to lock maildrop", None, "unable to lock maildrop", Blame::Server),
    ];
    for (line, code, text, blame) in cases {
        let told = offered("EXPIRE NEVER")
            .client(&["USER ann"])
            .server(&["+OK"])
            .client(&["PASS tulip"])
            .server(&[line])
            .client(&["QUIT"])
            .server(&["+OK"])
            .told(|session, event| match event {
                Event::LoginOffered(_) => {
                    session.stat();
                    log_in(session);
                }
                Event::LoginRefused(_) => session.quit(),
                _ => {}
            });
        let refusal = Refusal { command: "PASS", code, text: Bytes::from(text) };
        assert_eq!(refusal.blame(), blame);
        assert_eq!(told.events[1..], [Event::LoginRefused(refusal), Event::Goodbye { refusal: None }]);
    }
}

#[test]
fn a_refused_user_name_is_a_refused_login() {
    let told = offered("EXPIRE NEVER").client(&["USER ann"]).server(&["-ERR sorry, no mailbox for ann here"]).told(
        |session, event| {
            if let Event::LoginOffered(_) = event {
                log_in(session);
            }
        },
    );
    let text = Bytes::from_static(b"sorry, no mailbox for ann here");
    let refusal = Refusal { command: "USER", code: None, text };
    assert_eq!(refusal.to_string(), r#""-ERR sorry, no mailbox for ann here" (during USER)"#);
    assert_eq!(told.events[1..], [Event::LoginRefused(refusal)]);
}

#[test]
fn nothing_is_sent_when_the_caller_is_wrong() {
    let mut session = Session::new(Options::default());
    let not_due = Err(Error::Misuse("a login that is not due"));
    let no_challenge = Err(Error::Misuse("a SASL response without a challenge"));
    assert_eq!(session.user_pass("ann", &Secret::from("tulip")), not_due);
    assert_eq!(session.authenticate("PLAIN", None), not_due);
    assert_eq!(session.respond(Secret::default()), no_challenge);
    assert_eq!(session.cancel_sasl(), no_challenge);

    session.receive(b"+OK\r\n-ERR\r\n");
    while !matches!(session.step(), Ok(Step::Event(Event::LoginOffered(_)))) {}
    for (user, password) in [
        ("ann\r\nDELE 1", "tulip"),
        ("ann", "tulip\n"),
        ("ann", "tu\0lip"),
        ("a\rnn", "tulip"),
        ("", "tulip"),
        ("ann", ""),
    ] {
        let error = session.user_pass(user, &Secret::from(password)).expect_err("it would break the line");
        assert_eq!(error.blame(), Blame::Caller);
    }
    for mechanism in ["", "PLAIN X", "PLAIN\r\n", "ABCDEFGHIJKLMNOPQRSTU"] {
        assert!(session.authenticate(mechanism, None).is_err());
    }
    assert_eq!(session.step(), Ok(Step::NeedInput));
    assert!(!session.confidential());
}

#[test]
fn a_login_is_confidential_from_its_first_to_its_last_octet() {
    let mut session = Session::new(Options::default());
    session.receive(b"+OK\r\n");
    let mut said = Vec::new();
    let mut answers = ["+OK\r\nUSER\r\n.\r\n", "+OK\r\n", "+OK\r\n", "+OK 0 0\r\n"].iter();
    loop {
        match session.step().expect("no error") {
            Step::Transmit(octets) => {
                let word = String::from_utf8_lossy(&octets[..4]).into_owned();
                said.push((word, session.confidential(), session.awaiting(), session.phase()));
                session.receive(answers.next().expect("an answer").as_bytes());
            }
            Step::Event(Event::LoginOffered(_)) => {
                assert!(!session.awaiting() && !session.confidential());
                log_in(&mut session);
                assert!(session.awaiting() && session.confidential());
                assert!(!format!("{session:?}").contains("USER ann"), "what is to be sent is not shown");
            }
            Step::Event(Event::LoggedIn) => {
                assert!(!session.awaiting() && !session.confidential());
                session.stat();
                assert!(session.awaiting());
            }
            Step::Event(_) => {}
            Step::NeedInput => break,
            step => panic!("{step:?}"),
        }
    }
    let said: Vec<_> =
        said.iter().map(|(word, hidden, awaiting, phase)| (&word[..], *hidden, *awaiting, *phase)).collect();
    assert_eq!(
        said,
        [
            ("CAPA", false, true, "receiving the capabilities"),
            ("USER", true, true, "waiting for the answer to USER"),
            ("PASS", true, true, "waiting for the answer to PASS"),
            ("STAT", false, true, "waiting for the answer to STAT"),
        ]
    );
    assert!(!session.awaiting());
    assert!(!format!("{session:?}").contains("tulip"));
}
