//! Servers that break the rules, run past the limits, or are not the server at all.

use bytes::Bytes;
use connectord_wire::{Blame, Secret, Security};

use super::dialogues::log_in;
use super::harness::{Script, number, unique_id};
use crate::{Error, Event, Options, Refusal, ResponseCode, Retrieval, Session};

fn start_tls() -> Options {
    Options { security: Security::StartTls, ..Options::default() }
}

fn does(commands: impl Fn(&mut Session)) -> impl Fn(&mut Session, &Event) {
    move |session, event| match event {
        Event::LoginOffered(_) => log_in(session),
        Event::LoggedIn => commands(session),
        _ => {}
    }
}

fn unexpected(expected: &'static str, found: &'static str, during: &'static str) -> Option<Error> {
    Some(Error::UnexpectedReply { expected, found: Bytes::from(found), during })
}

#[test]
fn a_refusing_greeting_tells_its_code() {
    let told =
        Script::new(Options::default()).server(&["-ERR [SYS/TEMP] too many connections"]).closes().told(|_, _| {});
    let (code, text) = (Some(ResponseCode::SysTemp), Bytes::from_static(b"too many connections"));
    let error = Error::GreetingRefused(Refusal { command: "greeting", code, text });
    assert_eq!(
        error.to_string(),
        r#"server refused the connection: "-ERR [SYS/TEMP] too many connections" (during greeting)"#
    );
    assert_eq!((told.events, told.error), (vec![], Some(error)));
}

#[test]
fn another_protocol_is_recognized_and_quoted() {
    for line in ["* OK [CAPABILITY IMAP4rev1] ready", "220 mx.example.net ESMTP", "+ hello"] {
        let told = Script::new(Options::default()).server(&[line]).told(|_, _| {});
        let expected = if line.starts_with('+') { "a greeting" } else { "+OK or -ERR" };
        assert_eq!(told.error, unexpected(expected, line, "receiving the greeting"));
    }
}

#[test]
fn tls_that_is_required_is_not_done_without() {
    let capabilities = Script::new(start_tls()).server(&["+OK"]).client(&["CAPA"]);
    let told = capabilities.clone().server(&["+OK", "USER", "."]).told(|_, _| {});
    assert_eq!((told.events, told.error), (vec![], Some(Error::StlsNotOffered)));

    let told = capabilities.server(&["+OK", "STLS", "."]).client(&["STLS"]).server(&["-ERR not now"]).told(|_, _| {});
    let refusal = Refusal { command: "STLS", code: None, text: Bytes::from_static(b"not now") };
    assert_eq!(refusal.blame(), Blame::Incompatible);
    assert_eq!((told.events, told.error), (vec![], Some(Error::StlsRefused(refusal))));
}

#[test]
fn plaintext_behind_the_answer_to_stls_ends_the_session() {
    use connectord_wire::{Machine, Step};
    // Whoever sits in between adds an answer to the command that will come under TLS.
    for injected in ["+OK\r\n", "\r\n", "+"] {
        let mut session = Session::new(start_tls());
        session.receive(format!("+OK\r\n+OK\r\nSTLS\r\n.\r\n+OK go\r\n{injected}").as_bytes());
        assert!(matches!(session.step(), Ok(Step::Transmit(_))));
        assert!(matches!(session.step(), Ok(Step::Transmit(_))));
        assert_eq!(session.step(), Err(Error::PlaintextAfterStartTls));
        assert_eq!(session.step(), Err(Error::PlaintextAfterStartTls), "and stays ended");
    }
}

#[test]
fn a_line_that_nobody_asked_for_ends_the_session() {
    let told = Script::new(Options::default())
        .logged_in(&["USER"])
        .server(&["-ERR [SYS/TEMP] idle too long"])
        .closes()
        .told(does(|_| {}));
    let (found, during) = (Bytes::from_static(b"-ERR [SYS/TEMP] idle too long"), "idle after the login");
    let error = Error::Unsolicited { found, during };
    assert_eq!(
        error.to_string(),
        r#"unsolicited line "-ERR [SYS/TEMP] idle too long", expected silence (while idle after the login)"#
    );
    assert_eq!(told.error, Some(error));
}

#[test]
fn an_answer_too_many_ends_the_session() {
    let told = Script::new(Options::default())
        .logged_in(&["USER"])
        .client(&["NOOP"])
        .server(&["+OK", "+OK for free"])
        .told(does(Session::noop));
    assert_eq!(told.events.last(), Some(&Event::Noop));
    let (found, during) = (Bytes::from_static(b"+OK for free"), "idle after the login");
    assert_eq!(told.error, Some(Error::Unsolicited { found, during }));
}

#[test]
fn half_a_line_that_nobody_asked_for_does_not_become_an_answer() {
    use connectord_wire::{Machine, Step};
    let mut session = Session::new(Options::default());
    session.receive(b"+OK\r\n-ERR\r\n");
    while !matches!(session.step(), Ok(Step::Event(Event::LoginOffered(_)))) {}
    session.receive(b"+O");
    assert_eq!(session.step(), Ok(Step::NeedInput));
    session.user_pass("ann", &Secret::from("tulip")).expect("a login is due");
    assert_eq!(session.step(), Ok(Step::NeedInput), "the name is not sent");
    session.receive(b"K\r\n");
    assert!(matches!(session.step(), Err(Error::Unsolicited { found, .. }) if &found[..] == b"+OK"));
}

#[test]
fn empty_lines_between_answers_do_no_harm() {
    let told = Script::new(Options::default())
        .server(&["", "+OK"])
        .client(&["CAPA"])
        .server(&["+OK", "", "USER", ".", "", ""])
        .client(&["USER ann"])
        .server(&["", "+OK"])
        .client(&["PASS tulip"])
        .server(&["+OK", ""])
        .client(&["RETR 1"])
        .server(&["+OK", "", "x", ".", ""])
        .told(does(|session| session.retr(number(1))));
    assert_eq!((told.bodies, told.error), (vec![b"\r\nx\r\n".to_vec()], None));
}

#[test]
fn empty_lines_for_ever_end_the_session() {
    let script = Script::new(Options::default()).logged_in(&["USER"]).client(&["NOOP"]);
    let told = script.clone().server(&[""; 1000]).server(&["+OK"]).told(does(Session::noop));
    assert_eq!((told.events.last(), told.error), (Some(&Event::Noop), None));
    let told = script.server(&[""; 1001]).told(does(Session::noop));
    let expected = "an answer within a thousand empty lines";
    assert_eq!(told.error, unexpected(expected, "", "waiting for the answer to NOOP"));
}

#[test]
fn a_closed_connection_says_what_was_going_on() {
    let closed = |during| Some(Error::Closed { during });
    let told = Script::new(Options::default()).closes().told(|_, _| {});
    assert_eq!(told.error, closed("receiving the greeting"));
    let logged_in = Script::new(Options::default()).logged_in(&["USER"]);
    assert_eq!(logged_in.clone().closes().told(does(|_| {})).error, closed("idle after the login"));
    let retrieving = logged_in.client(&["RETR 1"]);
    let retr = does(|session: &mut Session| session.retr(number(1)));
    assert_eq!(retrieving.clone().closes().told(&retr).error, closed("waiting for the answer to RETR"));
    // Cut in the end of data: the message is not complete.
    let told = retrieving.server_octets(b"+OK\r\nA: b\r\n.\r".to_vec()).closes().told(&retr);
    assert_eq!(told.error, closed("retrieving a message"));
    let start = Event::BodyStart { number: number(1), kind: Retrieval::Whole, octets: None };
    assert_eq!(told.events.last(), Some(&start));
}

#[test]
fn a_lost_answer_to_quit_is_told_apart() {
    let script = Script::new(Options::default()).logged_in(&["PIPELINING", "USER"]).client(&["DELE 1", "QUIT"]);
    let react = does(|session: &mut Session| {
        session.dele(number(1));
        session.quit();
    });
    for before in [&[][..], &["+OK"]] {
        let told = script.clone().server(before).closes().told(&react);
        assert_eq!(told.error, Some(Error::QuitUnanswered));
    }
    // Half an answer is none.
    let told = script.server_octets(b"+OK\r\n+OK".to_vec()).closes().told(&react);
    assert_eq!(told.error, Some(Error::QuitUnanswered));
}

#[test]
fn quit_is_unanswered_from_its_sending_to_its_answer() {
    use connectord_wire::{Machine, Step};
    let mut session = Session::new(Options::default());
    session.receive(b"+OK\r\n-ERR\r\n");
    while !matches!(session.step(), Ok(Step::Event(_))) {}
    session.quit();
    assert!(!session.quit_unanswered());
    assert!(matches!(session.step(), Ok(Step::Transmit(octets)) if &octets[..] == b"QUIT\r\n"));
    assert!(session.quit_unanswered() && session.awaiting());
    session.receive(b"+OK\r\n");
    assert_eq!(session.step(), Ok(Step::Event(Event::Goodbye { refusal: None })));
    assert!(!session.quit_unanswered() && !session.awaiting());
    session.receive(b"more\r\n");
    session.receive(b"");
    assert_eq!(session.step(), Ok(Step::NeedInput));
}

#[test]
fn commands_after_quit_are_the_callers_fault() {
    use connectord_wire::{Machine, Step};
    let mut session = Session::new(Options::default());
    session.receive(b"+OK\r\n-ERR\r\n");
    session.quit();
    session.quit();
    while !matches!(session.step(), Ok(Step::Event(_))) {}
    assert_eq!(session.step(), Ok(Step::Transmit(Bytes::from_static(b"QUIT\r\n"))));
    assert_eq!(session.step(), Ok(Step::NeedInput), "the second QUIT changes nothing");
    session.noop();
    assert_eq!(session.step(), Err(Error::Misuse("a command was queued after QUIT")));
}

#[test]
fn answers_to_another_question_end_the_session() {
    let logged_in = Script::new(Options::default()).logged_in(&["USER"]);
    let told =
        logged_in.clone().client(&["UIDL 1"]).server(&["+OK 2 abc"]).told(does(|session| session.uidl_one(number(1))));
    let expected = "+OK with the message that was asked for";
    assert_eq!(told.error, unexpected(expected, "+OK 2 abc", "waiting for the answer to UIDL"));
    let told =
        logged_in.clone().client(&["LIST 1"]).server(&["+OK 2 abc"]).told(does(|session| session.list_one(number(1))));
    assert_eq!(told.error, unexpected(expected, "+OK 2 abc", "waiting for the answer to LIST"));
    let told = logged_in.clone().client(&["STAT"]).server(&["+OK fine"]).told(does(Session::stat));
    let expected = "+OK with the number of messages and of their octets";
    assert_eq!(told.error, unexpected(expected, "+OK fine", "waiting for the answer to STAT"));
    let told = logged_in.client(&["NOOP"]).server(&["+ go on"]).told(does(Session::noop));
    assert_eq!(told.error, unexpected("+OK or -ERR", "+ go on", "waiting for the answer to NOOP"));
}

#[test]
fn limits_hold() {
    let mut options = Options::default();
    (options.max_line, options.max_messages, options.max_uidl) = (16, 2, 4);
    (options.max_message_octets, options.max_capabilities) = (Some(10), 2);
    let server = |lines: &[&str]| Script::new(options.clone()).server(&["+OK"]).client(&["CAPA"]).server(lines);
    let told = server(&["+OK", "A", "B", "C", "."]).told(|_, _| {});
    assert_eq!(told.error, Some(Error::TooManyCapabilities { limit: 2 }));
    let told = server(&["+OK and so on and on"]).told(|_, _| {});
    let during = "receiving the capabilities";
    assert_eq!(told.error, Some(Error::LineTooLong { limit: 16, during }));

    let logged_in = Script::new(options.clone()).logged_in(&["USER"]);
    let told = logged_in.clone().client(&["STAT"]).server(&["+OK 3 1"]).told(does(Session::stat));
    assert_eq!(told.error, Some(Error::TooManyMessages { command: "STAT", limit: 2 }));
    let told = logged_in
        .clone()
        .client(&["UIDL"])
        .server(&["+OK", "1 abcd", "2 abcde", "1 abcd", "."])
        .told(does(Session::uidl));
    let line = Bytes::from_static(b"2 abcde");
    assert_eq!(told.events[2..], [unique_id(1, "abcd"), Event::UniqueIdUnreadable { number: Some(number(2)), line }]);
    assert_eq!(told.error, Some(Error::TooManyMessages { command: "UIDL", limit: 2 }));
    // Lines of nothing are counted too.
    let told = logged_in.clone().client(&["LIST"]).server(&["+OK", "", "", "", "."]).told(does(Session::list));
    assert_eq!(told.error, Some(Error::TooManyMessages { command: "LIST", limit: 2 }));

    let retrieving = logged_in.client(&["RETR 1"]);
    let retr = does(|session: &mut Session| session.retr(number(1)));
    let told = retrieving.clone().server(&["+OK", "12345678", "."]).told(&retr);
    assert_eq!((told.bodies, told.error), (vec![b"12345678\r\n".to_vec()], None));
    let told = retrieving.server(&["+OK", "123456789", "."]).told(&retr);
    let error = Error::MessageTooLong { number: number(1), limit: 10 };
    assert_eq!(error.blame(), Blame::Limit);
    assert_eq!((told.bodies, told.error), (vec![b"123456789\r".to_vec()], Some(error)));
}

#[test]
fn what_a_server_says_cannot_forge_a_log_line() {
    let told =
        Script::new(Options::default()).server_octets(b"-ERR \x1b[2J\xffno\rlogin ok\r\n".to_vec()).told(|_, _| {});
    let text = told.error.expect("a refusal").to_string();
    assert_eq!(text, r#"server refused the connection: "-ERR \x1b[2J\xffno\rlogin ok" (during greeting)"#);
}
