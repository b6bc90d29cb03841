//! Dialogues as scripts: what the server says, what the client must say, what the caller does.

use std::time::Instant;

use connectord_imap::{Error, Event, Options, Session};
use connectord_wire::{Machine, Security, Step};

/// One thing that came out of a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Sent(String),
    Event(Event),
    StartTls,
    Failed(Error),
}

enum Turn {
    Server(Vec<u8>),
    Call(Box<dyn Fn(&mut Session)>),
    Close,
}

pub(crate) struct Script {
    options: Options,
    turns: Vec<Turn>,
}

pub(crate) fn plain() -> Options {
    let mut options = Options::default();
    options.security = Security::None;
    options
}

impl Script {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, turns: Vec::new() }
    }

    /// Already logged in, to a server with these capabilities; the first tag of the test is `C2`.
    pub(crate) fn logged_in(capabilities: &str) -> Self {
        Self::logged_in_with(plain(), capabilities)
    }

    pub(crate) fn logged_in_with(options: Options, capabilities: &str) -> Self {
        Self::new(options)
            .server("* OK [CAPABILITY IMAP4rev1] hi\r\n")
            .call(|session| session.login("u", &"p".into()))
            .server(format!("C1 OK [CAPABILITY {capabilities}] in\r\n"))
    }

    pub(crate) fn server(mut self, octets: impl AsRef<[u8]>) -> Self {
        self.turns.push(Turn::Server(octets.as_ref().to_vec()));
        self
    }

    pub(crate) fn call<T>(mut self, call: impl Fn(&mut Session) -> T + 'static) -> Self {
        self.turns.push(Turn::Call(Box::new(move |session| drop(call(session)))));
        self
    }

    pub(crate) fn close(mut self) -> Self {
        self.turns.push(Turn::Close);
        self
    }

    /// Everything that came out; the same however the server's octets are cut.
    pub(crate) fn run(&self) -> Vec<Seen> {
        let whole = self.run_cut(usize::MAX, usize::MAX);
        for size in [1, 2, 3, 7] {
            assert_eq!(self.run_cut(size, usize::MAX), whole, "in pieces of {size}");
        }
        let octets: usize =
            self.turns.iter().map(|turn| if let Turn::Server(octets) = turn { octets.len() } else { 0 }).sum();
        if octets < 20_000 {
            for cut in 0..octets {
                assert_eq!(self.run_cut(usize::MAX, cut), whole, "cut at {cut}");
            }
        }
        whole
    }

    /// Without what came out before the test's own part.
    pub(crate) fn run_logged_in(&self) -> Vec<Seen> {
        let seen = self.run();
        let at = seen.iter().position(|seen| matches!(seen, Seen::Event(Event::LoggedIn { .. })));
        seen[at.expect("the script logs in") + 1..].to_vec()
    }

    fn run_cut(&self, size: usize, mut cut: usize) -> Vec<Seen> {
        let mut session = Session::new(self.options.clone());
        let mut seen = Vec::new();
        step(&mut session, &mut seen);
        for turn in &self.turns {
            match turn {
                Turn::Call(call) => call(&mut session),
                Turn::Close => session.receive(b""),
                Turn::Server(octets) if cut < octets.len() => {
                    if cut > 0 {
                        session.receive(&octets[..cut]);
                        step(&mut session, &mut seen);
                    }
                    session.receive(&octets[cut..]);
                    cut = usize::MAX;
                }
                Turn::Server(octets) => {
                    cut = cut.saturating_sub(octets.len());
                    for piece in octets.chunks(size.min(octets.len()).max(1)) {
                        session.receive(piece);
                        step(&mut session, &mut seen);
                    }
                }
            }
            step(&mut session, &mut seen);
        }
        seen
    }
}

fn step(session: &mut Session, seen: &mut Vec<Seen>) {
    if matches!(seen.last(), Some(Seen::Failed(_))) {
        return;
    }
    loop {
        match session.poll(Instant::now()) {
            Ok(Step::NeedInput) => return,
            Ok(Step::StartTls) => seen.push(Seen::StartTls),
            Ok(Step::Transmit(octets)) => match seen.last_mut() {
                Some(Seen::Sent(before)) => before.push_str(&String::from_utf8_lossy(&octets)),
                _ => seen.push(Seen::Sent(String::from_utf8_lossy(&octets).into_owned())),
            },
            Ok(Step::Event(Event::Body(octets))) => match seen.last_mut() {
                Some(Seen::Event(Event::Body(before))) => *before = [&before[..], &octets[..]].concat().into(),
                _ => seen.push(Seen::Event(Event::Body(octets))),
            },
            Ok(Step::Event(event)) => seen.push(Seen::Event(event)),
            Err(error) => return seen.push(Seen::Failed(error)),
        }
    }
}

pub(crate) fn sent(text: &str) -> Seen {
    Seen::Sent(text.into())
}
