//! Properties of this crate, as plain functions: the fuzz targets call them, and so does the replay of the corpora.

use std::time::Instant;

use connectord_wire::{Machine, Step};

use crate::parse::{self, Limits};
use crate::{Address, Error, Event, Mail, Options, Pipelining, Session, encode};

const LIMITS: Limits = Limits { line_octets: 128, lines: 6 };

/// A reply takes no more than there is, stays within its limits, and comes back when it is encoded again.
pub fn reply(data: &[u8]) {
    let mut rest = data;
    while let Ok((reply, taken)) = parse::reply(rest, LIMITS) {
        assert!(taken > 0 && taken <= rest.len());
        assert!((200..600).contains(&reply.code) && (1..=LIMITS.lines).contains(&reply.lines.len()));
        assert!(reply.lines.iter().all(|line| line.len() < LIMITS.line_octets && !line.contains(&b'\n')));
        assert!(!reply.to_string().chars().any(char::is_control));
        let octets = encode::reply(&reply);
        let wide = Limits { line_octets: 1024, ..LIMITS };
        assert_eq!(parse::reply(&octets, wide), Ok((reply, octets.len())));
        rest = &rest[taken..];
    }
}

/// Whatever a server says: the same events and the same octets at any split, no line end of the message survives
/// unnormalised, and every accepted recipient is answered at most once.
///
/// The first octet chooses pipelining, the second says where to split.
pub fn session(data: &[u8]) {
    let &[choice, split, ref data @ ..] = data else { return };
    let whole = play(choice, &[data]);
    let cut = usize::from(split) * data.len() / 256;
    assert_eq!(play(choice, &[&data[..cut], &data[cut..]]), whole);

    let (events, _, sent) = whole;
    let line_ends = memchr::memmem::find_iter(&sent, b"\r\n").count();
    assert_eq!(memchr::memchr_iter(b'\r', &sent).count(), line_ends);
    assert_eq!(memchr::memchr_iter(b'\n', &sent).count(), line_ends);
    for index in 0..3 {
        let of = |event: &&Event| matches!(event, Event::Delivered { index: i, .. } if *i == index);
        assert!(events.iter().filter(of).count() <= 1);
    }
    let said_yes = |event: &&Event| matches!(event, Event::Recipient { result: Ok(_), .. });
    let answers = events.iter().filter(|event| matches!(event, Event::Delivered { .. })).count();
    assert!(answers <= events.iter().filter(said_yes).count());
}

/// Plays a caller that sends one message to three recipients and leaves.
fn play(choice: u8, pieces: &[&[u8]]) -> (Vec<Event>, Option<Error>, Vec<u8>) {
    let mut session = Session::new(Options {
        max_line: 128,
        max_lines: 6,
        pipelining: if choice & 1 == 0 { Pipelining::AsOffered } else { Pipelining::Never },
        window_commands: usize::from(choice >> 4),
        ..Options::default()
    });
    let data_with_recipients = choice & 2 == 0;
    let (mut events, mut sent, mut left) = (Vec::new(), Vec::new(), 0);
    #[expect(clippy::disallowed_methods, reason = "a time is needed and none is looked at")]
    let now = Instant::now();
    let pieces = pieces.iter().copied().filter(|piece| !piece.is_empty()).chain([&b""[..]]);
    for piece in pieces {
        session.receive(piece);
        loop {
            let event = match session.poll(now) {
                Ok(Step::Transmit(octets)) => {
                    sent.extend_from_slice(&octets);
                    continue;
                }
                Ok(Step::Event(event)) => event,
                Ok(Step::NeedInput) => break,
                Ok(Step::StartTls) => unreachable!("there is no STARTTLS in this session"),
                Err(error) => return (events, Some(error), sent),
            };
            match &event {
                Event::Ready { .. } => {
                    session.mail(Mail::from(Address::null()));
                    for name in ["a", "b", "c"] {
                        session.rcpt(Address::parse(name).expect("a letter is an address"));
                    }
                    if data_with_recipients {
                        session.data();
                    }
                }
                Event::Recipient { index, result } => {
                    left += usize::from(result.is_ok());
                    if *index == 2 && !data_with_recipients {
                        session.data();
                    }
                }
                Event::ReadyForData => session.push(b"a\n.\rb").expect("the session asked for it"),
                Event::WantData => session.finish().expect("the session asked for it"),
                Event::Delivered { .. } => {
                    left -= 1;
                    if left == 0 {
                        session.rset();
                    }
                }
                Event::SenderRefused(_) | Event::NoRecipients | Event::DataRefused(_) | Event::Reset => session.quit(),
                Event::Goodbye => {}
            }
            events.push(event);
        }
    }
    (events, None, sent)
}
