//! Both sides of the codec against each other: what the session sends is parsed, what it receives is encoded.

use connectord_wire::{Machine, Secret, Step};
use proptest::collection::vec;
use proptest::prelude::*;

use super::dialogues::log_in;
use super::harness::number;
use crate::parse::{self, Auth, Command, Reply, Status};
use crate::{Capabilities, Event, Options, Pipelining, Session, Uidl, encode};

fn command() -> impl Strategy<Value = Command> {
    let message = || (1..=u32::MAX).prop_map(number);
    let octets = || vec(prop_oneof![0..=9u8, 14..=255u8], 0..40);
    let initial = proptest::option::of(vec(any::<u8>(), 0..300).prop_map(Secret::new));
    prop_oneof![
        Just(Command::Capa),
        Just(Command::Stls),
        Just(Command::Utf8),
        octets().prop_map(|name| Command::User(name.into())),
        octets().prop_map(|password| Command::Pass(Secret::new(password))),
        ("[A-Z0-9_-]{1,20}", initial)
            .prop_map(|(mechanism, initial)| Command::Auth(Box::new(Auth { mechanism, initial }))),
        Just(Command::Stat),
        proptest::option::of(message()).prop_map(Command::List),
        proptest::option::of(message()).prop_map(Command::Uidl),
        message().prop_map(Command::Retr),
        (message(), any::<u32>()).prop_map(|(number, lines)| Command::Top(number, lines)),
        message().prop_map(Command::Dele),
        Just(Command::Noop),
        Just(Command::Rset),
        Just(Command::Quit),
    ]
}

proptest! {
    #[test]
    fn a_command_is_read_as_it_was_written(command in command()) {
        let mut out = Vec::new();
        encode::command(&command, &mut out);
        prop_assert_eq!(parse::command(out.strip_suffix(b"\r\n").expect("CRLF")), Ok(command));
    }

    #[test]
    fn a_maildrop_arrives_as_it_is(
        // Line ends are CRLF and there is a last one: other ones the encoder changes, as a server must.
        messages in vec(vec("[a. ]{0,5}", 0..6).prop_map(|lines| lines.iter().map(|line| format!("{line}\r\n")).collect::<String>()), 0..20),
        uidls in vec(vec(prop_oneof![0x21..=0x7eu8, 0x80..=0xffu8], 1..30), 20),
        pipelining in any::<bool>(),
        (commands, octets) in (1..8usize, 1..200usize),
        pieces in vec(1..50usize, 1..20),
    ) {
        let mut options = Options { window_commands: commands, window_octets: octets, ..Options::default() };
        if !pipelining {
            options.pipelining = Pipelining::Never;
        }
        let mut session = Session::new(options);
        let mut server = Server { messages: &messages, uidls: &uidls, unread: Vec::new(), said: b"+OK\r\n".to_vec(), left: false };
        let mut pieces = pieces.iter().cycle();
        let (mut got_uidls, mut got_sizes, mut got_messages, mut deleted) = (vec![], vec![], vec![], vec![]);
        loop {
            match session.step().expect("the server keeps to the rules") {
                Step::Transmit(octets) => server.hears(&octets),
                Step::StartTls => unreachable!("TLS was from the start"),
                Step::NeedInput if server.said.is_empty() => break,
                Step::NeedInput => {
                    let length = *pieces.next().expect("it cycles");
                    let now: Vec<u8> = server.said.drain(..length.min(server.said.len())).collect();
                    session.receive(&now);
                }
                Step::Event(Event::LoginOffered(_)) => log_in(&mut session),
                Step::Event(Event::LoggedIn) => {
                    session.stat();
                    session.list();
                    session.uidl();
                }
                Step::Event(Event::Stat { messages: count, .. }) => assert_eq!(count as usize, messages.len()),
                Step::Event(Event::Size { octets, .. }) => got_sizes.push(octets),
                Step::Event(Event::UniqueId { number, uidl }) => {
                    got_uidls.push(uidl.octets().to_vec());
                    session.retr(number);
                    session.dele(number);
                }
                Step::Event(Event::SizesEnd { count }) => assert_eq!(count as usize, messages.len()),
                Step::Event(Event::UniqueIdsEnd { count }) => {
                    assert_eq!(count as usize, messages.len());
                    session.quit();
                }
                Step::Event(Event::BodyStart { .. }) => got_messages.push(String::new()),
                Step::Event(Event::Body(octets)) => {
                    got_messages.last_mut().expect("started").push_str(std::str::from_utf8(&octets).expect("ASCII"));
                }
                Step::Event(Event::BodyEnd { octets, number, .. }) => {
                    assert_eq!(octets as usize, messages[number.get() as usize - 1].len());
                }
                Step::Event(Event::Deleted { number }) => deleted.push(number.get() as usize),
                Step::Event(event) => assert_eq!(event, Event::Goodbye { refusal: None }),
            }
        }
        prop_assert!(server.left && !session.awaiting());
        prop_assert_eq!(got_uidls, &uidls[..messages.len()]);
        prop_assert_eq!(got_sizes, messages.iter().map(|message| message.len() as u64).collect::<Vec<_>>());
        prop_assert_eq!(got_messages, &messages[..]);
        prop_assert_eq!(deleted, (1..=messages.len()).collect::<Vec<_>>());
    }
}

/// A server made of this crate's own parser and encoder.
struct Server<'a> {
    messages: &'a [String],
    uidls: &'a [Vec<u8>],
    unread: Vec<u8>,
    said: Vec<u8>,
    left: bool,
}

impl Server<'_> {
    fn hears(&mut self, octets: &[u8]) {
        self.unread.extend_from_slice(octets);
        while let Some(end) = memchr::memmem::find(&self.unread, b"\r\n") {
            let line: Vec<u8> = self.unread.drain(..end + 2).collect();
            assert!(!self.left, "said after QUIT");
            self.answers(parse::command(&line[..end]).expect("a command"));
        }
    }

    fn answers(&mut self, command: Command) {
        let out = &mut self.said;
        let numbered = (1..).map(number).zip(self.messages);
        match command {
            Command::Capa => {
                let mut capabilities = Capabilities::none();
                capabilities.push(parse::capability(b"USER").expect("a name"));
                capabilities.push(parse::capability(b"PIPELINING").expect("a name"));
                encode::capabilities(&capabilities, out);
            }
            Command::Stat => {
                let text = format!("{} {}", self.messages.len(), self.messages.concat().len());
                encode::reply(&Reply { status: Status::Ok, code: None, text: text.as_bytes() }, out);
            }
            Command::List(None) => encode::sizes(numbered.map(|(number, message)| (number, message.len() as u64)), out),
            Command::Uidl(None) => {
                let uidls: Vec<_> = self.uidls.iter().map(|octets| Uidl::new(octets).expect("a unique-id")).collect();
                encode::unique_ids(numbered.zip(&uidls).map(|((number, _), uidl)| (number, uidl)), out);
            }
            Command::Retr(number) => encode::message(self.messages[number.get() as usize - 1].as_bytes(), out),
            command => {
                self.left = command == Command::Quit;
                encode::reply(&Reply { status: Status::Ok, code: None, text: b"" }, out);
            }
        }
    }
}
