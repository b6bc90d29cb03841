//! Scripts of what server and client say, and runs of them at every split of what the server says.

use connectord_wire::{Machine, Step};

use crate::{Error, Event, MessageNumber, Options, Session, Uidl};

/// A dialogue: blocks of what one side says before the other goes on.
#[derive(Clone, Default)]
pub(super) struct Script {
    turns: Vec<Turn>,
    options: Options,
}

#[derive(Clone)]
enum Turn {
    Server(Vec<u8>),
    Client(Vec<u8>),
    StartTls,
    Close,
}

/// What the session told, bodies joined, and how it ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) events: Vec<Event>,
    pub(super) bodies: Vec<Vec<u8>>,
    pub(super) error: Option<Error>,
}

impl Script {
    pub(super) fn new(options: Options) -> Self {
        Self { turns: Vec::new(), options }
    }

    /// Lines of the server, without their line ends.
    pub(super) fn server(self, lines: &[&str]) -> Self {
        self.server_octets(lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect())
    }

    pub(super) fn server_octets(mut self, octets: Vec<u8>) -> Self {
        self.turns.push(Turn::Server(octets));
        self
    }

    /// Lines that the client must have sent by now, since its last turn.
    pub(super) fn client(mut self, lines: &[&str]) -> Self {
        self.turns.push(Turn::Client(lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect()));
        self
    }

    pub(super) fn starts_tls(mut self) -> Self {
        self.turns.push(Turn::StartTls);
        self
    }

    pub(super) fn closes(mut self) -> Self {
        self.turns.push(Turn::Close);
        self
    }

    /// Greeting, capabilities and a login of ann with tulip.
    pub(super) fn logged_in(self, capabilities: &[&str]) -> Self {
        let listed = [&["+OK"], capabilities, &["."]].concat();
        self.server(&["+OK ready"])
            .client(&["CAPA"])
            .server(&listed)
            .client(&["USER ann"])
            .server(&["+OK"])
            .client(&["PASS tulip"])
            .server(&["+OK"])
    }

    /// Runs the dialogue whole, cut once at every position, and octet by octet; it must tell the same each time.
    pub(super) fn told(&self, react: impl Fn(&mut Session, &Event)) -> Told {
        let whole = self.run(&react, |_| false);
        let total: usize =
            self.turns.iter().map(|turn| if let Turn::Server(octets) = turn { octets.len() } else { 0 }).sum();
        for cut in 1..total {
            assert_eq!(self.run(&react, |at| at == cut), whole, "cut at {cut}");
        }
        assert_eq!(self.run(&react, |_| true), whole, "octet by octet");
        whole
    }

    fn run(&self, react: &dyn Fn(&mut Session, &Event), cuts: impl Fn(usize) -> bool) -> Told {
        let mut runner = Runner {
            session: Session::new(self.options.clone()),
            react,
            told: Told::default(),
            sent: Vec::new(),
            starts_tls: false,
        };
        runner.poll();
        let mut at = 0;
        for turn in &self.turns {
            if runner.told.error.is_some() {
                break;
            }
            match turn {
                Turn::Client(expected) => {
                    let sent = std::mem::take(&mut runner.sent);
                    assert_eq!(sent.escape_ascii().to_string(), expected.escape_ascii().to_string());
                }
                Turn::StartTls => {
                    assert!(std::mem::take(&mut runner.starts_tls), "TLS was not started");
                    runner.poll();
                }
                Turn::Close => runner.receive(&[]),
                Turn::Server(octets) => {
                    let mut piece = Vec::new();
                    for octet in octets {
                        piece.push(*octet);
                        at += 1;
                        if cuts(at) {
                            runner.receive(&std::mem::take(&mut piece));
                        }
                    }
                    if !piece.is_empty() {
                        runner.receive(&piece);
                    }
                }
            }
        }
        assert_eq!(runner.sent.escape_ascii().to_string(), "", "sent and not in the script");
        runner.told
    }
}

struct Runner<'a> {
    session: Session,
    react: &'a dyn Fn(&mut Session, &Event),
    told: Told,
    sent: Vec<u8>,
    starts_tls: bool,
}

impl Runner<'_> {
    fn receive(&mut self, octets: &[u8]) {
        self.session.receive(octets);
        self.poll();
    }

    fn poll(&mut self) {
        while self.told.error.is_none() {
            match self.session.step() {
                Ok(Step::NeedInput) => return,
                Ok(Step::Transmit(octets)) => self.sent.extend_from_slice(&octets),
                Ok(Step::StartTls) => {
                    self.starts_tls = true;
                    return;
                }
                Ok(Step::Event(Event::Body(octets))) => {
                    self.told.bodies.last_mut().expect("a body has started").extend_from_slice(&octets);
                }
                Ok(Step::Event(event)) => {
                    if let Event::BodyStart { .. } = event {
                        self.told.bodies.push(Vec::new());
                    }
                    (self.react)(&mut self.session, &event);
                    self.told.events.push(event);
                }
                Err(error) => self.told.error = Some(error),
            }
        }
    }
}

pub(super) fn number(number: u32) -> MessageNumber {
    MessageNumber::new(number).expect("not zero")
}

pub(super) fn unique_id(message: u32, uidl: &str) -> Event {
    Event::UniqueId { number: number(message), uidl: Uidl::new(uidl.as_bytes()).expect("a unique-id") }
}
