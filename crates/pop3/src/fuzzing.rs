//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use std::collections::VecDeque;

use connectord_wire::{Machine, Secret, Security, Step};

use crate::{Error, Event, MessageNumber, Options, Pipelining, Session, encode, parse};

/// Every parser is total, gives no more than it was given, and reads back what [`encode`] writes of its value.
pub fn reply(data: &[u8]) {
    for line in data.split(|octet| *octet == b'\n') {
        let _ = parse::base64(line);
        let _ = parse::stat(line);
        let _ = parse::announced_octets(line);
        reply_line(line);
        capability_line(line);
        listing_line(line);
        command_line(line);
    }
}

fn reply_line(line: &[u8]) {
    let Some(reply) = parse::reply(line) else { return };
    assert!(reply.text.len() < line.len());
    let mut out = Vec::new();
    encode::reply(&reply, &mut out);
    if !line.contains(&b'\r') {
        assert_eq!(parse::reply(one_line(&out)), Some(reply));
    }
}

fn capability_line(line: &[u8]) {
    let Some(capability) = parse::capability(line) else { return };
    let mut list = crate::Capabilities::none();
    list.push(capability.clone());
    let _ = (list.sasl(), list.expire(), list.login_delay(), list.implementation());
    let mut out = Vec::new();
    encode::capabilities(&list, &mut out);
    let inner = out.strip_prefix(b"+OK\r\n").and_then(|out| out.strip_suffix(b"\r\n.\r\n")).expect("one line");
    let inner = inner.strip_prefix(b".").unwrap_or(inner);
    if inner.len() <= 1024 {
        assert_eq!(parse::capability(inner), Some(capability));
    }
}

fn listing_line(line: &[u8]) {
    if let Ok((number, uidl)) = parse::unique_id(line) {
        let mut out = Vec::new();
        encode::unique_ids([(number, &uidl)], &mut out);
        let inner = out.strip_prefix(b"+OK\r\n").and_then(|out| out.strip_suffix(b"\r\n.\r\n")).expect("one line");
        assert_eq!(parse::unique_id(inner), Ok((number, uidl)));
    }
    if let Ok((number, octets)) = parse::size(line) {
        let mut out = Vec::new();
        encode::sizes([(number, octets)], &mut out);
        let inner = out.strip_prefix(b"+OK\r\n").and_then(|out| out.strip_suffix(b"\r\n.\r\n")).expect("one line");
        assert_eq!(parse::size(inner), Ok((number, octets)));
    }
}

fn command_line(line: &[u8]) {
    let Ok(command) = parse::command(line) else { return };
    let mut out = Vec::new();
    encode::command(&command, &mut out);
    assert_eq!(parse::command(one_line(&out)), Ok(command));
}

fn one_line(out: &[u8]) -> &[u8] {
    let line = out.strip_suffix(b"\r\n").expect("it ends in CRLF");
    assert!(!line.contains(&b'\n'));
    line
}

/// Whatever a server sends: the session gives the same events at every split, keeps little, ends, and stays ended.
///
/// Three octets choose the options, the caller's behaviour and the splits; the rest is what the server sends. Two octets
/// 0xFF in a row part what it sends before the TLS handshake from what it sends behind it.
pub fn session(data: &[u8]) {
    let [choices, behaviour, seed, octets @ ..] = data else { return };
    let (before, behind) = match memchr::memmem::find(octets, b"\xff\xff") {
        Some(at) => (&octets[..at], &octets[at + 2..]),
        None => (octets, &[][..]),
    };
    let whole = run(*choices, *behaviour, before, behind, &mut || usize::MAX);
    let single = run(*choices, *behaviour, before, behind, &mut || 1);
    assert_eq!(single, whole);
    let mut state = u32::from(*seed) | 1;
    let random = run(*choices, *behaviour, before, behind, &mut || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 24) as usize % 23
    });
    assert_eq!(random, whole);
}

/// What a run came to: events with their bodies joined, octets sent, and how it ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    bodies: Vec<Vec<u8>>,
    sent: Vec<u8>,
    error: Option<Error>,
}

fn options(choices: u8) -> Options {
    Options {
        security: match choices & 3 {
            0 | 1 => Security::Tls,
            2 => Security::StartTls,
            _ => Security::None,
        },
        max_line: if choices & 4 == 0 { 65_536 } else { 64 },
        max_messages: if choices & 8 == 0 { 10_000_000 } else { 3 },
        max_message_octets: (choices & 16 != 0).then_some(20),
        pipelining: if choices & 32 == 0 { Pipelining::AsOffered } else { Pipelining::Never },
        window_commands: if choices & 64 == 0 { 64 } else { 2 },
        window_octets: if choices & 128 == 0 { 1000 } else { 20 },
        max_capabilities: 16,
        ..Options::default()
    }
}

fn run(choices: u8, behaviour: u8, before: &[u8], behind: &[u8], piece: &mut dyn FnMut() -> usize) -> Outcome {
    let options = options(choices);
    let max_line = options.max_line;
    let mut session = Session::new(options);
    let mut caller = Caller { behaviour, attempts: 0, listed: 0 };
    let mut outcome = Outcome { events: Vec::new(), bodies: Vec::new(), sent: Vec::new(), error: None };
    let mut parts = VecDeque::from([before, behind]);
    let mut polls = 0;
    let limit = 64 + 8 * (before.len() + behind.len());
    let mut closed = false;
    loop {
        polls += 1;
        assert!(polls <= limit, "{polls} polls for {} octets", before.len() + behind.len());
        match session.step() {
            Ok(Step::Transmit(octets)) => outcome.sent.extend_from_slice(&octets),
            Ok(Step::StartTls) => {
                if parts.front().is_some_and(|rest| !rest.is_empty()) {
                    // Arrived in time, it would have been refused.
                    outcome.error = Some(Error::PlaintextAfterStartTls);
                    return outcome;
                }
                parts.pop_front();
            }
            Ok(Step::Event(Event::Body(octets))) => {
                assert!(!octets.is_empty());
                outcome.bodies.last_mut().expect("a body has started").extend_from_slice(&octets);
            }
            Ok(Step::Event(event)) => {
                if matches!(event, Event::BodyStart { .. }) {
                    outcome.bodies.push(Vec::new());
                }
                caller.react(&mut session, &event);
                outcome.events.push(event);
            }
            Ok(Step::NeedInput) => {
                assert!(session.unread() <= max_line, "{} octets are kept", session.unread());
                let _ = (session.phase(), session.awaiting(), session.confidential());
                if closed {
                    return outcome;
                }
                // Without TLS in between, the parts are one stream.
                if parts.front().is_some_and(|part| part.is_empty()) && session.phase() != "starting TLS" {
                    parts.pop_front();
                }
                match parts.front_mut() {
                    Some(rest) if !rest.is_empty() => {
                        let (now, later) = rest.split_at(piece().min(rest.len()));
                        session.receive(now);
                        *rest = later;
                    }
                    Some(_) => {}
                    None => {
                        closed = true;
                        session.receive(&[]);
                    }
                }
            }
            Err(error) => {
                assert_eq!(session.step(), Err(error.clone()), "an error is final");
                outcome.error = Some(error);
                return outcome;
            }
        }
    }
}

/// A caller that does something at every event that wants something done.
struct Caller {
    behaviour: u8,
    attempts: u32,
    listed: u32,
}

impl Caller {
    fn react(&mut self, session: &mut Session, event: &Event) {
        let wants = |bit: u8| self.behaviour & bit != 0;
        let done = match event {
            Event::LoginOffered(_) | Event::LoginRefused(_) => {
                self.attempts += 1;
                if self.attempts > 2 {
                    session.quit();
                    return;
                }
                match wants(1) {
                    true => session.authenticate("PLAIN", wants(2).then(|| Secret::from("\0ann\0tulip"))),
                    false => session.user_pass("ann", &Secret::from("tulip")),
                }
            }
            Event::Challenge(octets) if octets.len() % 4 == 3 => session.cancel_sasl(),
            Event::Challenge(octets) => session.respond(Secret::new(octets.clone())),
            Event::LoggedIn => {
                session.stat();
                session.uidl();
                session.list();
                if wants(4) {
                    session.noop();
                    session.rset();
                }
                if wants(8) {
                    session.quit();
                }
                Ok(())
            }
            Event::UniqueId { number, .. } if self.listed < 40 && !wants(8) => {
                self.listed += 1;
                session.top(*number, 10);
                session.retr(*number);
                session.dele(*number);
                Ok(())
            }
            Event::SizesEnd { .. } if !wants(8) && wants(16) => {
                let one = MessageNumber::new(1).expect("not zero");
                session.uidl_one(one);
                session.list_one(one);
                Ok(())
            }
            Event::Reset | Event::DeleteRefused { .. } if wants(32) && !wants(8) => {
                self.behaviour |= 8;
                session.quit();
                Ok(())
            }
            _ => Ok(()),
        };
        assert_eq!(done, Ok(()), "the caller keeps to the order");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines that lead deep into a session more often than chance does.
    fn server_line() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => Just(b"+OK\r\n".to_vec()),
            1 => Just(b"-ERR [IN-USE] no\r\n".to_vec()),
            2 => Just(b".\r\n".to_vec()),
            1 => Just(b"+ \r\n".to_vec()),
            1 => Just(b"+ AAEC\r\n".to_vec()),
            1 => Just(b"+OK 2 320\r\n".to_vec()),
            1 => Just(b"+OK\r\nUSER\r\nSTLS\r\nUTF8\r\nPIPELINING\r\nSASL PLAIN\r\n.\r\n".to_vec()),
            1 => Just(b"+OK 12 octets\r\nA: b\r\n\r\n..\r\n.\r\n".to_vec()),
            2 => (0..4u32, "[a-c .]{0,3}").prop_map(|(number, id)| format!("{number} {id}\r\n").into_bytes()),
            1 => Just(b"\xff\xff".to_vec()),
            1 => Just(b"\r\n".to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..20),
        ]
    }

    proptest! {
        #[test]
        fn sessions_hold_their_properties(head in any::<[u8; 3]>(), lines in proptest::collection::vec(server_line(), 0..30)) {
            session(&[head.as_slice(), &lines.concat()].concat());
        }

        #[test]
        fn parsers_hold_their_properties(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            reply(&data);
        }

        #[test]
        fn lines_like_replies_hold_their_properties(
            line in r"(\+OK|-ERR|\+|[0-9]{1,3}|USER|PASS|AUTH|TOP|RETR)[ \t\[\]/=.A-Za-z0-9äß\r]{0,30}"
        ) {
            reply(line.as_bytes());
        }
    }
}
