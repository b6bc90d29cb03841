//! Dialogues with servers: each is fed at every split, and gives the same events and the same commands.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::disallowed_methods, reason = "a time is needed and none is looked at")]

use std::time::Instant;

use connectord_lmtp::{Address, Error, Event, Mail, Options, Pipelining, Reply, Session, fuzzing, parse};
use connectord_mail::Status;
use connectord_wire::{Blame, Machine, Step};
use proptest::prelude::*;

fn options(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

/// A caller: what it sends, and when.
#[derive(Clone)]
struct Caller {
    options: Options,
    sender: &'static str,
    recipients: &'static [&'static str],
    data_with_recipients: bool,
    message: &'static str,
    transactions: usize,
}

impl Caller {
    fn new(sender: &'static str, recipients: &'static [&'static str], message: &'static str) -> Self {
        Self {
            options: options(|o| o.host_name = "foo.edu".into()),
            sender,
            recipients,
            data_with_recipients: false,
            message,
            transactions: 1,
        }
    }

    fn start(&self, session: &mut Session) {
        session.mail(Mail::from(Address::parse(self.sender).unwrap()));
        for recipient in self.recipients {
            session.rcpt(Address::parse(recipient).unwrap());
        }
        if self.data_with_recipients {
            session.data();
        }
    }

    fn play(&self, pieces: &[&[u8]]) -> Played {
        let mut session = Session::new(self.options.clone());
        let mut played = Played { events: Vec::new(), error: None, sent: Vec::new(), dot: false };
        let (mut due, mut transactions) = (0, self.transactions);
        for piece in pieces {
            session.receive(piece);
            loop {
                let event = match session.poll(Instant::now()) {
                    Ok(Step::Transmit(octets)) => {
                        played.sent.extend_from_slice(&octets);
                        continue;
                    }
                    Ok(Step::NeedInput) => break,
                    Ok(Step::StartTls) => panic!("no TLS here"),
                    Ok(Step::Event(event)) => event,
                    Err(error) => {
                        assert_eq!(session.poll(Instant::now()), Err(error.clone()), "dead and stays dead");
                        played.error = Some(error);
                        break;
                    }
                };
                let over = match &event {
                    Event::Ready { .. } => {
                        self.start(&mut session);
                        false
                    }
                    Event::Recipient { index, result } => {
                        due += usize::from(result.is_ok());
                        if index + 1 == self.recipients.len() && !self.data_with_recipients {
                            session.data();
                        }
                        false
                    }
                    Event::ReadyForData => {
                        session.push(self.message.as_bytes()).unwrap();
                        false
                    }
                    Event::WantData => {
                        session.finish().unwrap();
                        assert!(!session.is_message_sent());
                        false
                    }
                    Event::Delivered { .. } => {
                        due -= 1;
                        due == 0
                    }
                    Event::SenderRefused(_) | Event::NoRecipients | Event::DataRefused(_) => true,
                    _ => false,
                };
                played.events.push(event);
                if over {
                    due = 0;
                    transactions -= 1;
                    if transactions == 0 {
                        session.quit();
                    } else {
                        session.rset();
                        self.start(&mut session);
                    }
                }
            }
        }
        played.dot = session.is_message_sent();
        played
    }

    /// Whole, in two and in three pieces: always the same.
    fn play_at_every_split(&self, server: &str) -> Played {
        let octets = server.as_bytes();
        let whole = self.play(&[octets]);
        for i in 1..octets.len() {
            assert_eq!(self.play(&[&octets[..i], &octets[i..]]), whole, "split at {i}");
            let j = i + (octets.len() - i) / 2;
            if j > i && j < octets.len() {
                assert_eq!(self.play(&[&octets[..i], &octets[i..j], &octets[j..]]), whole, "split at {i} and {j}");
            }
        }
        whole
    }
}

#[derive(Debug, PartialEq)]
struct Played {
    events: Vec<Event>,
    error: Option<Error>,
    sent: Vec<u8>,
    dot: bool,
}

impl Played {
    fn sent(&self) -> &str {
        std::str::from_utf8(&self.sent).unwrap()
    }

    /// The events but the first, which is `Ready`.
    fn answers(&self) -> &[Event] {
        assert!(matches!(self.events[0], Event::Ready { .. }), "{:?}", self.events);
        &self.events[1..]
    }
}

fn reply(line: &str) -> Reply {
    parse::reply(format!("{line}\r\n").as_bytes(), parse::Limits { line_octets: 999, lines: 9 }).unwrap().0
}

fn accepted(index: usize, line: &str) -> Event {
    Event::Recipient { index, result: Ok(reply(line)) }
}

fn refused(index: usize, line: &str) -> Event {
    Event::Recipient { index, result: Err(reply(line)) }
}

fn delivered(index: usize, line: &str) -> Event {
    Event::Delivered { index, result: Ok(reply(line)) }
}

fn undelivered(index: usize, line: &str) -> Event {
    Event::Delivered { index, result: Err(reply(line)) }
}

const RECIPIENTS: &[&str] = &["pat@foo.edu", "jones@foo.edu", "green@foo.edu"];

#[test]
fn the_dialogue_of_rfc_2033_goes_as_printed() {
    // RFC 2033 §4.2, its first example; the LHLO answer from its §5.
    let server = "220 foo.edu LMTP server ready\r\n250-foo.edu\r\n250-PIPELINING\r\n250 SIZE\r\n250 OK\r\n250 OK\r\n\
        550 No such user here\r\n250 OK\r\n354 Start mail input; end with <CRLF>.<CRLF>\r\n250 OK\r\n\
        452 <green@foo.edu> is temporarily over quota\r\n221 foo.edu closing connection\r\n";
    let caller = Caller::new("chris@bar.com", RECIPIENTS, "Blah blah blah...\r\n...etc. etc. etc.\r\n");
    let played = caller.play_at_every_split(server);
    assert_eq!(
        played.answers(),
        [
            accepted(0, "250 OK"),
            refused(1, "550 No such user here"),
            accepted(2, "250 OK"),
            Event::ReadyForData,
            Event::WantData,
            delivered(0, "250 OK"),
            undelivered(2, "452 <green@foo.edu> is temporarily over quota"),
            Event::Goodbye,
        ]
    );
    assert_eq!(
        played.sent(),
        "LHLO foo.edu\r\nMAIL FROM:<chris@bar.com>\r\nRCPT TO:<pat@foo.edu>\r\nRCPT TO:<jones@foo.edu>\r\n\
         RCPT TO:<green@foo.edu>\r\nDATA\r\nBlah blah blah...\r\n....etc. etc. etc.\r\n.\r\nQUIT\r\n"
    );
    assert_eq!(played.error, None);
}

#[test]
fn the_refusals_of_rfc_2034_keep_their_status_codes() {
    // RFC 2034 §6, as an LMTP dialogue.
    let server = "220 dbc.mtview.ca.us SMTP service ready\r\n250-dbc.mtview.ca.us says hello\r\n250 ENHANCEDSTATUSCODES\r\n\
        250 2.1.0 Originator <ned@ymir.claremont.edu> ok\r\n250 2.1.5 Recipient <mrose@dbc.mtview.ca.us> ok\r\n\
        550 5.1.1 Mailbox \"nosuchuser\" does not exist\r\n551-5.7.1 Forwarding to remote hosts disabled\r\n\
        551 5.7.1 Select another host to act as your forwarder\r\n354 Send message, ending in CRLF.CRLF.\r\n\
        250 2.6.0 Message received\r\n221 2.0.0 Goodbye\r\n";
    let recipients = &["mrose@dbc.mtview.ca.us", "nosuchuser@dbc.mtview.ca.us", "remote-user@isi.edu"];
    let played = Caller::new("ned@ymir.claremont.edu", recipients, "x").play_at_every_split(server);
    let status = |event: &Event| match event {
        Event::Recipient { result, .. } | Event::Delivered { result, .. } => {
            result.as_ref().map_or_else(|r| r.status, |r| r.status)
        }
        _ => None,
    };
    let found: Vec<Option<Status>> = played.answers().iter().map(status).collect();
    let code = |text: &str| Status::parse(text.as_bytes());
    assert_eq!(found, [code("2.1.5"), code("5.1.1"), code("5.7.1"), None, None, code("2.6.0"), None]);
    let Event::Recipient { result: Err(forward), .. } = &played.answers()[2] else { panic!("{played:?}") };
    assert_eq!(
        forward.to_string(),
        "551 5.7.1 Forwarding to remote hosts disabled / Select another host to act as your forwarder"
    );
}

#[test]
fn without_pipelining_every_command_waits_for_its_answer() {
    let mut session = Session::new(options(|o| o.host_name = "h".into()));
    let mut say = |answer: &str| {
        session.receive(answer.as_bytes());
        let mut sent = Vec::new();
        loop {
            match session.poll(Instant::now()).unwrap() {
                Step::Transmit(octets) => sent.push(String::from_utf8(octets.to_vec()).unwrap()),
                Step::Event(Event::Ready { .. }) => {
                    session.mail(Mail::from(Address::null()));
                    session.rcpt(Address::parse("a").unwrap());
                    session.rcpt(Address::parse("b").unwrap());
                    session.data();
                }
                Step::Event(_) => {}
                _ => return sent.join("|"),
            }
        }
    };
    assert_eq!(say("220 x\r\n"), "LHLO h\r\n");
    assert_eq!(say("250 x\r\n"), "MAIL FROM:<>\r\n");
    assert_eq!(say("250 x\r\n"), "RCPT TO:<a>\r\n");
    assert_eq!(say("250 x\r\n"), "RCPT TO:<b>\r\n");
    assert_eq!(say("250 x\r\n"), "DATA\r\n");
}

#[test]
fn with_pipelining_the_commands_travel_in_one_write_up_to_the_window() {
    let sent_after_lhlo = |options: Options| {
        let mut session = Session::new(options);
        session.mail(Mail::from(Address::null()));
        session.rcpt(Address::parse("a").unwrap());
        session.rcpt(Address::parse("b").unwrap());
        session.data();
        session.receive(b"220 x\r\n250-x\r\n250 PIPELINING\r\n");
        let mut last = Vec::new();
        loop {
            match session.poll(Instant::now()).unwrap() {
                Step::Transmit(octets) => last = octets.to_vec(),
                Step::Event(_) => {}
                _ => return String::from_utf8(last).unwrap(),
            }
        }
    };
    assert_eq!(sent_after_lhlo(Options::default()), "MAIL FROM:<>\r\nRCPT TO:<a>\r\nRCPT TO:<b>\r\nDATA\r\n");
    let window = options(|o| o.window_commands = 2);
    assert_eq!(sent_after_lhlo(window), "MAIL FROM:<>\r\nRCPT TO:<a>\r\n");
    let never = options(|o| o.pipelining = Pipelining::Never);
    assert_eq!(sent_after_lhlo(never), "MAIL FROM:<>\r\n");
}

#[test]
fn a_refused_sender_is_told_once_and_takes_its_recipients_along() {
    for offer in ["250 x", "250-x\r\n250 PIPELINING"] {
        let rest = if offer.len() > 5 { "503 a\r\n503 b\r\n503 c\r\n" } else { "" };
        let server = format!("220 x\r\n{offer}\r\n550 5.7.1 not you\r\n{rest}221 bye\r\n");
        let played = Caller::new("a@b", RECIPIENTS, "x").play_at_every_split(&server);
        assert_eq!(played.answers(), [Event::SenderRefused(reply("550 5.7.1 not you")), Event::Goodbye]);
        assert!(!played.sent().contains("DATA"), "{}", played.sent());
    }
}

#[test]
fn no_data_is_sent_when_every_recipient_is_refused() {
    for offer in ["250 x", "250-x\r\n250 PIPELINING"] {
        let server = format!("220 x\r\n{offer}\r\n250 x\r\n550 a\r\n450 b\r\n550 c\r\n221 bye\r\n");
        let played = Caller::new("a@b", RECIPIENTS, "x").play_at_every_split(&server);
        assert_eq!(
            played.answers(),
            [refused(0, "550 a"), refused(1, "450 b"), refused(2, "550 c"), Event::NoRecipients, Event::Goodbye]
        );
        assert!(!played.sent().contains("DATA"), "{}", played.sent());
    }
}

#[test]
fn data_pipelined_behind_refused_recipients_is_met_by_an_empty_message_if_the_server_takes_it() {
    let caller = Caller { data_with_recipients: true, ..Caller::new("a@b", RECIPIENTS, "x") };
    let common = "220 x\r\n250-x\r\n250 PIPELINING\r\n250 x\r\n550 a\r\n550 b\r\n550 c\r\n";
    let none = [refused(0, "550 a"), refused(1, "550 b"), refused(2, "550 c"), Event::NoRecipients, Event::Goodbye];
    let played = caller.play_at_every_split(&format!("{common}503 nobody\r\n221 bye\r\n"));
    assert_eq!(played.answers(), none);
    assert!(played.sent().ends_with("DATA\r\nQUIT\r\n"));
    let played = caller.play_at_every_split(&format!("{common}354 go\r\n503 nobody\r\n221 bye\r\n"));
    assert_eq!(played.answers(), none);
    assert!(played.sent().ends_with("DATA\r\n.\r\nQUIT\r\n"));
    assert!(!played.dot);
}

#[test]
fn a_refused_data_leaves_the_connection_usable() {
    let server = "220 x\r\n250 x\r\n250 x\r\n250 a\r\n451 later\r\n250 reset\r\n250 x\r\n250 a\r\n354 go\r\n250 2.0.0 yes\r\n221 bye\r\n";
    let caller = Caller { transactions: 2, ..Caller::new("a@b", &["a"], ".") };
    let played = caller.play_at_every_split(server);
    assert_eq!(
        played.answers(),
        [
            accepted(0, "250 a"),
            Event::DataRefused(reply("451 later")),
            Event::Reset,
            accepted(0, "250 a"),
            Event::ReadyForData,
            Event::WantData,
            delivered(0, "250 2.0.0 yes"),
            Event::Goodbye
        ]
    );
    assert!(played.sent().ends_with("DATA\r\n..\r\n.\r\nQUIT\r\n"));
}

#[test]
fn a_421_ends_the_session_wherever_it_comes_before_the_message() {
    let script = ["250 x\r\n", "250 x\r\n", "250 a\r\n", "250 b\r\n", "250 c\r\n"];
    let phases = ["MAIL FROM", "RCPT TO", "RCPT TO", "RCPT TO", "DATA"];
    for at in 1..=script.len() {
        let server = format!("220 x\r\n{}421 4.3.2 shutting down\r\n", script[..at].concat());
        let played = Caller::new("a@b", RECIPIENTS, "x").play_at_every_split(&server);
        let Some(Error::ServiceClosing { reply: found, during }) = played.error else { panic!("{played:?}") };
        assert_eq!(found, reply("421 4.3.2 shutting down"));
        assert_eq!(during, format!("waiting for the answer to {}", phases[at - 1]));
        assert!(!played.dot);
    }
    let greeting = Caller::new("a", &["b"], "").play_at_every_split("421 busy\r\n");
    assert_eq!(greeting.error, Some(Error::GreetingRefused(reply("421 busy"))));
    let hello = Caller::new("a", &["b"], "").play_at_every_split("220 x\r\n500 what\r\n");
    assert_eq!(hello.error, Some(Error::LhloRefused(reply("500 what"))));
    assert_eq!(hello.error.map(|e| e.blame()), Some(Blame::Incompatible));
}

#[test]
fn a_421_after_the_message_answers_one_recipient_and_says_nothing_about_the_others() {
    let server =
        "220 x\r\n250 x\r\n250 x\r\n250 a\r\n250 b\r\n250 c\r\n354 go\r\n250 saved\r\n421 4.3.2 shutting down\r\n";
    let caller = Caller::new("a@b", RECIPIENTS, "x");
    let played = caller.play(&[server.as_bytes(), b""]);
    assert_eq!(
        played.events[played.events.len() - 2..],
        [delivered(0, "250 saved"), undelivered(1, "421 4.3.2 shutting down")]
    );
    assert_eq!(played.error, Some(Error::Closed { during: "waiting for the answer to the message" }));
    assert!(played.dot);
}

#[test]
fn a_connection_closed_at_any_octet_is_an_error_that_says_whether_the_message_was_sent() {
    let server = "220 x\r\n250 x\r\n250 x\r\n250 a\r\n354 go\r\n250 saved\r\n";
    let caller = Caller::new("a@b", &["a"], "x");
    let dot_from = server.find("250 saved").unwrap();
    for at in 1..server.len() {
        let played = caller.play(&[&server.as_bytes()[..at], b""]);
        let Some(Error::Closed { during }) = played.error else { panic!("{at}: {played:?}") };
        assert_eq!(played.dot, at >= dot_from, "{at}");
        assert_eq!(during == "waiting for the answer to the message", at >= dot_from);
    }
}

#[test]
fn what_a_server_must_not_say_is_told_with_what_was_expected() {
    let error = |server: &str| {
        let played = Caller::new("a@b", &["a"], "x").play_at_every_split(server);
        played.error.unwrap().to_string()
    };
    assert_eq!(
        error("354 x\r\n"),
        "unexpected reply \"354 x\", expected 220 or a refusal (while receiving the greeting)"
    );
    assert_eq!(
        error("220 x\r\n250 x\r\n250 x\r\n250 a\r\n250 x\r\n"),
        "unexpected reply \"250 x\", expected 354 or a refusal (while waiting for the answer to DATA)"
    );
    assert_eq!(
        error("+OK \x1b[2J\r\n"),
        r#"unreadable reply line "+OK \x1b[2J", expected 220 or a refusal (while receiving the greeting)"#
    );
    assert_eq!(
        error(&format!("220 x\r\n{}", "250-y\r\n".repeat(101))),
        "reply exceeds the limit of 100 lines (while waiting for the answer to LHLO)"
    );
    assert_eq!(error(&"2".repeat(4096)), "reply line exceeds the limit of 4096 octets (while receiving the greeting)");
}

#[test]
fn an_idle_connection_that_speaks_is_not_used_again() {
    let mut session = Session::new(Options::default());
    session.receive(b"220 x\r\n250 x\r\n");
    let settle = |session: &mut Session| {
        loop {
            match session.poll(Instant::now()) {
                Ok(Step::NeedInput) => return Ok(()),
                Ok(_) => {}
                Err(e) => return Err(e),
            }
        }
    };
    settle(&mut session).unwrap();
    assert!(session.is_reusable() && !session.awaiting());
    session.receive(b"421 idle too long\r\n");
    let error = settle(&mut session).unwrap_err();
    assert_eq!(error, Error::ServiceClosing { reply: reply("421 idle too long"), during: "nothing was asked" });
    assert!(!session.is_reusable());
}

#[test]
fn a_push_that_was_not_asked_for_is_the_callers_error() {
    let mut session = Session::new(Options::default());
    assert_eq!(session.push(b"x").map_err(|e| e.blame()), Err(Blame::Caller));
    assert_eq!(session.finish().map_err(|e| e.blame()), Err(Blame::Caller));
}

#[test]
fn each_piece_is_handed_out_before_the_next_is_wanted() {
    let mut session = Session::new(Options::default());
    session.receive(b"220 x\r\n250 x\r\n250 x\r\n250 a\r\n354 go\r\n");
    session.mail(Mail::from(Address::null()));
    session.rcpt(Address::parse("a").unwrap());
    session.data();
    while session.poll(Instant::now()).unwrap() != Step::Event(Event::ReadyForData) {}
    assert_eq!(session.poll(Instant::now()), Ok(Step::NeedInput), "nothing is wanted twice");
    for _ in 0..3 {
        session.push(&[b'x'; 65_536]).unwrap();
        let Step::Transmit(octets) = session.poll(Instant::now()).unwrap() else { panic!("not handed out") };
        assert_eq!(octets.len(), 65_536);
        assert_eq!(session.poll(Instant::now()), Ok(Step::Event(Event::WantData)));
        assert_eq!(session.poll(Instant::now()), Ok(Step::NeedInput));
    }
    session.finish().unwrap();
    assert!(!session.is_message_sent());
    assert_eq!(session.poll(Instant::now()), Ok(Step::Transmit(b"\r\n.\r\n"[..].into())));
    assert!(session.is_message_sent());
}

#[test]
fn a_server_that_closes_within_the_message_is_heard_out() {
    for (last_words, expected) in [
        ("552 5.3.4 too large\r\n", Error::MessageRefused(reply("552 5.3.4 too large"))),
        ("421 bye\r\n", Error::ServiceClosing { reply: reply("421 bye"), during: "sending the message" }),
        ("250 what\r\n", Error::Closed { during: "sending the message" }),
        ("55", Error::Closed { during: "sending the message" }),
    ] {
        let mut session = Session::new(Options::default());
        session.receive(b"220 x\r\n250 x\r\n250 x\r\n250 a\r\n354 go\r\n");
        session.mail(Mail::from(Address::null()));
        session.rcpt(Address::parse("a").unwrap());
        session.data();
        while session.poll(Instant::now()).unwrap() != Step::Event(Event::ReadyForData) {}
        session.receive(last_words.as_bytes());
        assert_eq!(session.poll(Instant::now()), Ok(Step::NeedInput));
        session.receive(b"");
        assert_eq!(session.poll(Instant::now()), Err(expected));
        assert!(!session.is_message_sent());
    }
}

/// What servers say, and what they should not.
fn server_line() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("250 ok\r\n".to_owned()),
        1 => Just("250-x\r\n250 PIPELINING\r\n".to_owned()),
        1 => Just("220 x\r\n".to_owned()),
        2 => Just("354 go\n".to_owned()),
        1 => Just("550 5.1.1 no\r\n".to_owned()),
        1 => Just("421 bye\r\n".to_owned()),
        1 => "[2-5][0-9]{2}[ -]?[a-z0-9.\r\n]{0,12}",
    ]
}

proptest! {
    #[test]
    fn the_properties_hold_for_plausible_servers(
        choice: u8, split: u8, lines in proptest::collection::vec(server_line(), 0..14),
    ) {
        let mut data = vec![choice, split];
        data.extend_from_slice(b"220 hi\r\n");
        data.extend_from_slice(lines.concat().as_bytes());
        fuzzing::session(&data);
        fuzzing::reply(&data[2..]);
    }

    #[test]
    fn the_properties_hold_for_any_octets(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::session(&data);
        fuzzing::reply(&data);
    }
}

/// What was found once is tried for ever.
#[test]
fn the_properties_hold_for_the_corpora() {
    for (corpus, property) in
        [("smtp_reply", fuzzing::reply as fn(&[u8])), ("lmtp_session", fuzzing::session as fn(&[u8]))]
    {
        let folder = format!("{}/../../fuzz/corpus/{corpus}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            property(&std::fs::read(&file).unwrap());
        }
    }
}
