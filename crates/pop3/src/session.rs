//! The session: a state named for what must come next, a queue of commands, and the commands in flight.

mod login;
mod opening;
mod transaction;

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use connectord_wire::dot::Unstuffer;
use connectord_wire::{Inbox, Machine, Secret, Step};

use crate::parse::{self, Command, Status};
use crate::{Capabilities, Error, Event, MessageNumber, Options, Pipelining, Refusal, ResponseCode};

/// A POP3 client session (RFC 1939) without I/O; the crate's page shows how to drive it.
///
/// # Methods
/// - **Login**: [`user_pass`](Self::user_pass), [`authenticate`](Self::authenticate), [`respond`](Self::respond),
///   [`cancel_sasl`](Self::cancel_sasl), each in its turn only.
/// - **Commands** are queued, may be queued before the login, and are sent after it in their order. They cannot fail here;
///   what the server says comes as an event.
/// - **What is known**: [`capabilities`](Self::capabilities), [`pipelining`](Self::pipelining),
///   [`outstanding`](Self::outstanding), [`quit_unanswered`](Self::quit_unanswered).
///
/// # Memory
/// One line of at most `max_line` octets, what was received since the last [`Step::NeedInput`], and the queued commands
/// (32 octets each).
///
/// # Round trips
/// Greeting, CAPA, (STLS, CAPA,) (UTF8,) USER, PASS; then one per window of commands. CAPA is asked again after login only
/// when three or more commands are queued and the server answered it without PIPELINING: some list it only then.
#[derive(Debug)]
pub struct Session {
    options: Options,
    inbox: Inbox,
    outbox: Outbox,
    state: State,
    capabilities: Capabilities,
    encrypted: bool,
    asked_again: bool,
    /// Commands not sent yet.
    queue: VecDeque<Command>,
    /// Commands sent, and the octets each took; the first is being answered.
    in_flight: VecDeque<(Command, usize)>,
    octets_in_flight: usize,
    reading: Reading,
    unstuffer: Unstuffer,
    quitting: bool,
    /// Octets came when nothing was asked; only the rest of their line is waited for.
    unsolicited: bool,
    /// Empty lines in a row before an answer.
    blank_lines: u32,
    failed: Option<Error>,
}

/// What is to be sent next; it may hold a password, so that `Debug` shows only how much it is.
struct Outbox(Option<Bytes>);

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets", self.0.as_ref().map_or(0, Bytes::len))
    }
}

/// What must come next.
#[derive(Debug)]
enum State {
    ExpectGreeting,
    ExpectCapabilities(Option<Capabilities>),
    ExpectStls,
    /// [`Step::StartTls`] was returned.
    Handshaking,
    ExpectUtf8,
    /// The caller's turn: a login.
    Offering,
    ExpectUser(Secret),
    ExpectPass,
    ExpectAuth {
        initial: Option<Secret>,
    },
    /// The caller's turn: a SASL response.
    Challenged,
    ExpectCancelled,
    /// Logged in.
    Transaction,
    Ended,
}

/// How much of the answer to the first command in flight has been read.
#[derive(Debug)]
enum Reading {
    Status,
    Capabilities(Capabilities),
    /// UIDL or LIST: lines read, and how many of them could be understood.
    Listing {
        lines: u32,
        count: u32,
    },
    Body {
        octets: u64,
    },
}

/// The first line of an answer, in its parts and as a whole.
struct Answer {
    status: Status,
    code: Option<ResponseCode>,
    text: Bytes,
    line: Bytes,
}

/// What one look at the inbox brought.
enum Progress {
    Step(Step<Event>),
    Again,
}

/// Most empty lines in a row that are passed over; real servers send one. Without a limit they could come for ever.
const MAX_BLANK_LINES: u32 = 1000;

// What [`Session`]'s documentation promises of a queued command.
const _: () = assert!(size_of::<Command>() <= 32);

const NEED_INPUT: Progress = Progress::Step(Step::NeedInput);

fn event(event: Event) -> Progress {
    Progress::Step(Step::Event(event))
}

impl Session {
    /// Starts before the greeting; with [`connectord_wire::Security::Tls`] the handshake has been done by then.
    pub fn new(options: Options) -> Self {
        Self {
            encrypted: options.security == connectord_wire::Security::Tls,
            options,
            inbox: Inbox::new(),
            outbox: Outbox(None),
            state: State::ExpectGreeting,
            capabilities: Capabilities::unknown(),
            asked_again: false,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            octets_in_flight: 0,
            reading: Reading::Status,
            unstuffer: Unstuffer::new(),
            quitting: false,
            unsolicited: false,
            blank_lines: 0,
            failed: None,
        }
    }

    /// What the server listed last; under TLS only what it listed under TLS.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether commands are sent before the answers to earlier ones have come.
    pub fn pipelining(&self) -> bool {
        self.options.pipelining == Pipelining::AsOffered && self.capabilities.has("PIPELINING")
    }

    /// Whether QUIT was sent and not answered: if the session ends now, by whatever cause, it is unknown whether the marked
    /// messages are removed.
    pub fn quit_unanswered(&self) -> bool {
        self.in_flight.iter().any(|(command, _)| *command == Command::Quit)
    }

    /// Commands queued or sent whose answers are not complete; a caller that feeds the queue bit by bit tops it up by this.
    pub fn outstanding(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// Logs in with USER and PASS (RFC 1939 §7).
    ///
    /// # Errors
    /// [`Error::Misuse`] when no login is due, or when one of the two is empty or has CR, LF or NUL in it; nothing was sent.
    pub fn user_pass(&mut self, user: &str, password: &Secret) -> Result<(), Error> {
        self.start_user_pass(user, password)
    }

    /// Logs in with a SASL mechanism (RFC 5034). [`Event::Challenge`] follows until [`Event::LoggedIn`] or
    /// [`Event::LoginRefused`] comes.
    ///
    /// An `initial_response` is sent where [`Options::initial_response`] says; if that is after an empty challenge, the
    /// session sends it by itself.
    ///
    /// # Errors
    /// [`Error::Misuse`] when no login is due, or `mechanism` is not 1 to 20 letters, digits, `-` and `_`.
    pub fn authenticate(&mut self, mechanism: &str, initial_response: Option<Secret>) -> Result<(), Error> {
        self.start_authenticate(mechanism, initial_response)
    }

    /// Answers an [`Event::Challenge`]; the response is sent base64 encoded.
    ///
    /// # Errors
    /// [`Error::Misuse`] when no challenge waits for an answer.
    pub fn respond(&mut self, response: Secret) -> Result<(), Error> {
        self.send_response(&response)
    }

    /// Gives the mechanism up, as the answer to an [`Event::Challenge`]; [`Event::LoginRefused`] follows.
    ///
    /// # Errors
    /// [`Error::Misuse`] when no challenge waits for an answer.
    pub fn cancel_sasl(&mut self) -> Result<(), Error> {
        self.send_cancel()
    }

    /// Queues STAT: [`Event::Stat`] or [`Event::StatRefused`].
    pub fn stat(&mut self) {
        self.push(Command::Stat);
    }

    /// Queues UIDL: [`Event::UniqueId`] for each message and [`Event::UniqueIdsEnd`], or [`Event::UniqueIdsRefused`].
    pub fn uidl(&mut self) {
        self.push(Command::Uidl(None));
    }

    /// Queues UIDL for one message: [`Event::UniqueId`], [`Event::UniqueIdUnreadable`] or [`Event::UniqueIdRefused`].
    pub fn uidl_one(&mut self, number: MessageNumber) {
        self.push(Command::Uidl(Some(number)));
    }

    /// Queues LIST: [`Event::Size`] for each message and [`Event::SizesEnd`], or [`Event::SizesRefused`].
    pub fn list(&mut self) {
        self.push(Command::List(None));
    }

    /// Queues LIST for one message: [`Event::Size`], [`Event::SizeUnreadable`] or [`Event::SizeRefused`].
    pub fn list_one(&mut self, number: MessageNumber) {
        self.push(Command::List(Some(number)));
    }

    /// Queues TOP: the header and `lines` lines of the body, as [`Event::BodyStart`], [`Event::Body`] and
    /// [`Event::BodyEnd`], or [`Event::RetrieveRefused`].
    pub fn top(&mut self, number: MessageNumber, lines: u32) {
        self.push(Command::Top(number, lines));
    }

    /// Queues RETR: [`Event::BodyStart`], [`Event::Body`] and [`Event::BodyEnd`], or [`Event::RetrieveRefused`].
    pub fn retr(&mut self, number: MessageNumber) {
        self.push(Command::Retr(number));
    }

    /// Queues DELE: [`Event::Deleted`] or [`Event::DeleteRefused`].
    pub fn dele(&mut self, number: MessageNumber) {
        self.push(Command::Dele(number));
    }

    /// Queues RSET: [`Event::Reset`] or [`Event::ResetRefused`].
    pub fn rset(&mut self) {
        self.push(Command::Rset);
    }

    /// Queues NOOP: [`Event::Noop`] or [`Event::NoopRefused`].
    pub fn noop(&mut self) {
        self.push(Command::Noop);
    }

    /// Queues QUIT, the last command: [`Event::Goodbye`]. Before a login it is sent at once instead of one.
    ///
    /// When the server closes instead of answering, [`Error::QuitUnanswered`] comes. Another QUIT changes nothing; any other
    /// command queued after it ends the session with [`Error::Misuse`].
    pub fn quit(&mut self) {
        if !self.quitting {
            self.push(Command::Quit);
            self.quitting = true;
        }
    }

    fn push(&mut self, command: Command) {
        if self.quitting {
            self.failed.get_or_insert(Error::Misuse("a command was queued after QUIT"));
            return;
        }
        self.queue.push_back(command);
    }

    /// [`Machine::poll`] without the time, which no state depends on.
    pub(crate) fn step(&mut self) -> Result<Step<Event>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let step = self.advance();
        if let Err(error) = &step {
            self.failed = Some(error.clone());
        }
        step
    }

    /// Octets received and not read, for the properties in `fuzzing`.
    pub(crate) fn unread(&self) -> usize {
        self.inbox.len()
    }

    fn advance(&mut self) -> Result<Step<Event>, Error> {
        if self.unsolicited {
            return match self.idle()? {
                Progress::Step(step) => Ok(step),
                Progress::Again => Ok(Step::NeedInput),
            };
        }
        loop {
            self.fill();
            if let Some(octets) = self.outbox.0.take() {
                return Ok(Step::Transmit(octets));
            }
            if let Progress::Step(step) = self.look()? {
                return Ok(step);
            }
        }
    }

    fn look(&mut self) -> Result<Progress, Error> {
        match &self.state {
            State::ExpectGreeting => self.greeting(),
            State::ExpectCapabilities(_) => self.capability_reply(),
            State::ExpectStls => self.stls_reply(),
            State::Handshaking => Ok(self.after_handshake()),
            State::ExpectUtf8 => self.utf8_reply(),
            State::Offering | State::Challenged => self.idle(),
            State::ExpectUser(_) | State::ExpectPass | State::ExpectAuth { .. } | State::ExpectCancelled => {
                self.login_reply()
            }
            State::Transaction if self.in_flight.is_empty() => self.idle(),
            State::Transaction => self.answer(),
            State::Ended => {
                let all = self.inbox.len();
                self.inbox.skip(all);
                Ok(NEED_INPUT)
            }
        }
    }

    /// Nothing is asked: the server has to be silent, but for empty lines.
    fn idle(&mut self) -> Result<Progress, Error> {
        match self.nonblank_line()? {
            Some(found) => Err(Error::Unsolicited { found: cut(&found), during: self.phase() }),
            None => {
                // A command that is queued now must not take the rest of that line for its answer.
                self.unsolicited = !matches!(self.inbox.peek(), [] | [b'\r']);
                Ok(NEED_INPUT)
            }
        }
    }

    /// One line, its end taken off.
    fn line(&mut self) -> Result<Option<Bytes>, Error> {
        let limit = self.options.max_line;
        match self.inbox.line(limit) {
            Ok(None) if self.inbox.is_closed() => Err(self.closed()),
            Ok(line) => Ok(line),
            Err(_) => Err(Error::LineTooLong { limit, during: self.phase() }),
        }
    }

    fn closed(&self) -> Error {
        match self.quit_unanswered() {
            true => Error::QuitUnanswered,
            false => Error::Closed { during: self.phase() },
        }
    }

    /// One line, with empty ones before it dropped: some servers put one behind an answer.
    fn nonblank_line(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.line()? {
                Some(line) if line.trim_ascii().is_empty() => {
                    self.blank_lines += 1;
                    if self.blank_lines > MAX_BLANK_LINES {
                        return Err(self.unexpected(&line, "an answer within a thousand empty lines"));
                    }
                }
                Some(line) => {
                    self.blank_lines = 0;
                    return Ok(Some(line));
                }
                None => return Ok(None),
            }
        }
    }

    fn reply(&mut self) -> Result<Option<Answer>, Error> {
        let Some(line) = self.nonblank_line()? else { return Ok(None) };
        match parse::reply(&line) {
            Some(reply) => {
                let (status, text) = (reply.status, line.slice_ref(reply.text));
                Ok(Some(Answer { status, code: reply.code, text, line }))
            }
            None => Err(self.unexpected(&line, "+OK or -ERR")),
        }
    }

    fn unexpected(&self, found: &Bytes, expected: &'static str) -> Error {
        Error::UnexpectedReply { expected, found: cut(found), during: self.phase() }
    }

    fn send(&mut self, command: &Command) {
        self.outbox.0 = Some(crate::encode::secret_line(command));
    }
}

impl Machine for Session {
    type Event = Event;
    type Error = Error;

    fn receive(&mut self, octets: &[u8]) {
        self.inbox.extend(octets);
    }

    fn poll(&mut self, _now: Instant) -> Result<Step<Event>, Error> {
        self.step()
    }

    /// Always `None`: the session only waits for the server or the caller.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn awaiting(&self) -> bool {
        match self.state {
            State::Offering | State::Challenged | State::Handshaking | State::Ended => self.outbox.0.is_some(),
            State::Transaction => !self.in_flight.is_empty() || !self.queue.is_empty(),
            _ => true,
        }
    }

    fn phase(&self) -> &'static str {
        match &self.state {
            State::ExpectGreeting => "receiving the greeting",
            State::ExpectCapabilities(_) => "receiving the capabilities",
            State::ExpectStls => "waiting for the answer to STLS",
            State::Handshaking => "starting TLS",
            State::ExpectUtf8 => "waiting for the answer to UTF8",
            State::Offering => "idle before the login",
            State::ExpectUser(_) => "waiting for the answer to USER",
            State::ExpectPass => "waiting for the answer to PASS",
            State::ExpectAuth { .. } => "waiting for the answer to AUTH",
            State::Challenged => "idle before a SASL response",
            State::ExpectCancelled => "waiting for the end of AUTH",
            State::Ended => "idle after QUIT",
            State::Transaction => match (self.in_flight.front(), &self.reading) {
                (None, _) => "idle after the login",
                (Some((Command::Retr(_), _)), Reading::Body { .. }) => "retrieving a message",
                (Some((Command::Top(..), _)), Reading::Body { .. }) => "retrieving the top of a message",
                (Some((Command::Uidl(_), _)), Reading::Listing { .. }) => "receiving the unique-ids",
                (Some((Command::List(_), _)), Reading::Listing { .. }) => "receiving the sizes",
                (_, Reading::Capabilities(_)) => "receiving the capabilities",
                (Some((command, _)), _) => command.waiting(),
            },
        }
    }

    /// From the call of a login method until the server has accepted or refused it.
    fn confidential(&self) -> bool {
        matches!(
            self.state,
            State::ExpectUser(_)
                | State::ExpectPass
                | State::ExpectAuth { .. }
                | State::Challenged
                | State::ExpectCancelled
        )
    }
}

/// What of a line is kept in errors and events.
fn cut(line: &[u8]) -> Bytes {
    // Copied, so that it does not hold the whole read buffer.
    Bytes::copy_from_slice(&line[..line.len().min(1024)])
}

fn refusal(command: &'static str, code: Option<ResponseCode>, text: &[u8]) -> Refusal {
    Refusal { command, code, text: Bytes::copy_from_slice(text) }
}
