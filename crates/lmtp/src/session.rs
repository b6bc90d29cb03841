use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use connectord_wire::dot::{Stuffer, stuff};
use connectord_wire::{Inbox, Machine, Step};

use crate::parse::{Limits, ParseError, Replies};
use crate::{Address, Capabilities, Error, Event, Options, Pipelining, Reply, Severity, encode};

/// One LMTP connection, from the greeting to QUIT, for any number of transactions one after the other.
///
/// Commands are queued in any state and sent when their time comes. Memory is bounded by [`Options`], by the window of
/// commands, and by what the caller pushes before it is asked for more.
#[derive(Debug)]
pub struct Session {
    options: Options,
    capabilities: Capabilities,
    inbox: Inbox,
    replies: Replies,
    out: Vec<u8>,
    queue: VecDeque<Command>,
    expected: VecDeque<Expected>,
    events: VecDeque<Event>,
    transaction: Transaction,
    message: Option<Message>,
    end: End,
}

/// What MAIL FROM says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mail {
    /// The sender; [`Address::null`] for none.
    pub reverse_path: Address,
    /// The message's size in octets as it travels, as far as it is known; sent when SIZE is offered.
    pub size_octets: Option<u64>,
    /// Whether the sender, a recipient or a header field needs SMTPUTF8; sent when it is offered.
    pub smtp_utf8: bool,
}

/// Of unknown size, and with SMTPUTF8 only if the sender needs it.
impl From<Address> for Mail {
    fn from(reverse_path: Address) -> Self {
        Self { smtp_utf8: !reverse_path.is_ascii(), reverse_path, size_octets: None }
    }
}

#[derive(Debug)]
enum Command {
    Mail(Mail),
    Rcpt(Address),
    Data,
    Rset,
    Quit,
}

/// A reply that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Greeting,
    Lhlo,
    Mail,
    Recipient(usize),
    Data,
    Delivery(usize),
    Rset,
    Quit,
}

#[derive(Debug, Default)]
struct Transaction {
    sender: Sender,
    /// RCPT commands sent.
    recipients: usize,
    accepted: Vec<usize>,
    /// Whether the octets behind the last one pushed are the final dot, and where it is.
    dot: Dot,
}

#[derive(Debug, Default)]
enum Sender {
    #[default]
    Good,
    /// The caller is told when the answers to what was pipelined behind have come.
    Refused(Reply),
    RefusedAndTold,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Dot {
    #[default]
    NotYet,
    Queued,
    Sent,
}

#[derive(Debug)]
struct Message {
    stuffer: Stuffer,
    wanted: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Open,
    /// A message without recipients had to be ended: nobody knows how many answers come to that.
    Spent,
    Goodbye,
    Failed(Error),
}

impl Session {
    /// Starts with a connection on which nothing was said; the greeting comes first.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            capabilities: Capabilities::default(),
            inbox: Inbox::new(),
            replies: Replies::default(),
            out: Vec::new(),
            queue: VecDeque::new(),
            expected: VecDeque::from([Expected::Greeting]),
            events: VecDeque::new(),
            transaction: Transaction::default(),
            message: None,
            end: End::Open,
        }
    }

    /// What the server offers; nothing before [`Event::Ready`].
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Begins a transaction. The one before must be over, or given up by [`Session::rset`].
    pub fn mail(&mut self, mail: Mail) {
        self.queue.push_back(Command::Mail(mail));
    }

    /// Adds a recipient to the transaction.
    pub fn rcpt(&mut self, recipient: Address) {
        self.queue.push_back(Command::Rcpt(recipient));
    }

    /// Asks to send the message. Queued before the recipients are answered it travels with them; then a server that takes
    /// it though it refused everybody gets an empty message, as RFC 2920 §3.1 wants, and the session takes only QUIT.
    pub fn data(&mut self) {
        self.queue.push_back(Command::Data);
    }

    /// Sends a piece of the message, dot-stuffed and with every line end as CRLF; it may end anywhere.
    ///
    /// All of it is kept until it was transmitted: push some 64 KiB and wait for [`Event::WantData`].
    ///
    /// # Errors
    /// [`Error::Misuse`] between [`Session::finish`] and the next [`Event::ReadyForData`].
    pub fn push(&mut self, octets: &[u8]) -> Result<(), Error> {
        let message = self.message.as_mut().ok_or(Error::Misuse("push without ReadyForData"))?;
        message.stuffer.push(octets, &mut self.out);
        message.wanted = false;
        Ok(())
    }

    /// Ends the message: from now on, who accepted it may have it.
    ///
    /// A message that cannot be ended must not be: drop the session and close the connection, and no server takes it.
    ///
    /// # Errors
    /// [`Error::Misuse`] as for [`Session::push`].
    pub fn finish(&mut self) -> Result<(), Error> {
        let message = self.message.take().ok_or(Error::Misuse("finish without ReadyForData"))?;
        message.stuffer.finish(&mut self.out);
        self.transaction.dot = Dot::Queued;
        self.expected.extend(self.transaction.accepted.iter().map(|index| Expected::Delivery(*index)));
        Ok(())
    }

    /// Whether the final dot of this transaction was handed over by [`Machine::poll`]. As long as it was not, no server has
    /// the message; afterwards a recipient without an answer may have it (RFC 1047).
    pub fn is_message_sent(&self) -> bool {
        self.transaction.dot == Dot::Sent
    }

    /// Gives up the transaction; answered by [`Event::Reset`].
    pub fn rset(&mut self) {
        self.queue.push_back(Command::Rset);
    }

    /// Ends the session, after what is queued; answered by [`Event::Goodbye`].
    pub fn quit(&mut self) {
        self.queue.push_back(Command::Quit);
    }

    /// Whether another transaction may follow on this connection.
    pub fn is_reusable(&self) -> bool {
        self.end == End::Open && self.message.is_none() && self.expected.is_empty() && !self.inbox.is_closed()
    }

    fn limits(&self) -> Limits {
        Limits { line_octets: self.options.max_line, lines: self.options.max_lines.max(1) }
    }

    /// Encodes queued commands as far as they may be sent now.
    fn send(&mut self) -> Result<(), Error> {
        while self.message.is_none() {
            let Some(next) = self.queue.front() else { break };
            if self.end == End::Spent && !matches!(next, Command::Quit) {
                return Err(Error::Misuse("only quit may follow a message without recipients"));
            }
            let of_a_refused_sender = !matches!(self.transaction.sender, Sender::Good);
            if of_a_refused_sender && matches!(next, Command::Rcpt(_) | Command::Data) {
                self.queue.pop_front();
                continue;
            }
            if !self.may_send(next) {
                break;
            }
            match self.queue.pop_front().expect("its front was looked at above") {
                Command::Mail(mail) => {
                    self.transaction = Transaction::default();
                    self.say(encode_mail(&mail, &self.capabilities), Expected::Mail);
                }
                Command::Rcpt(recipient) => {
                    let index = self.transaction.recipients;
                    self.transaction.recipients += 1;
                    self.say(encode::rcpt(&recipient), Expected::Recipient(index));
                }
                // Nobody is left to deliver to and nothing is in flight that could change that.
                Command::Data if self.expected.is_empty() && self.transaction.accepted.is_empty() => {
                    self.events.push_back(Event::NoRecipients);
                }
                Command::Data => self.say(b"DATA\r\n".to_vec(), Expected::Data),
                Command::Rset => self.say(b"RSET\r\n".to_vec(), Expected::Rset),
                Command::Quit => self.say(b"QUIT\r\n".to_vec(), Expected::Quit),
            }
        }
        Ok(())
    }

    fn say(&mut self, line: Vec<u8>, expected: Expected) {
        self.out.extend_from_slice(&line);
        self.expected.push_back(expected);
    }

    /// RFC 2920 §3.1: MAIL, RCPT and RSET may be followed by anything without waiting, DATA and QUIT by nothing.
    fn may_send(&self, next: &Command) -> bool {
        let Some(last) = self.expected.back() else { return true };
        let pipelining = self.capabilities.pipelining && self.options.pipelining == Pipelining::AsOffered;
        let room = self.expected.len() < self.options.window_commands.max(1);
        let open_ended = matches!(last, Expected::Mail | Expected::Recipient(_) | Expected::Rset);
        // The answers of one transaction come before the next one begins to be counted.
        let of_another = matches!(next, Command::Mail(_)) && self.expected.iter().any(|e| *e != Expected::Rset);
        pipelining && room && open_ended && !of_another
    }

    /// Takes the next reply that has arrived whole.
    fn next_reply(&mut self) -> Result<Option<Reply>, Error> {
        let during = self.phase();
        let expected = self.expected.front().map_or("silence", |e| e.wanted());
        let limits = self.limits();
        self.replies.next(&mut self.inbox, limits).map_err(|e| match e {
            ParseError::LineTooLong { limit } => Error::LineTooLong { limit, during },
            ParseError::TooManyLines { limit } => Error::TooManyLines { limit, during },
            ParseError::Code { found } | ParseError::CodesDiffer { found, .. } => {
                Error::Unreadable { expected, found: cut(found), during }
            }
            ParseError::Incomplete => Error::Closed { during },
        })
    }

    fn take(&mut self, reply: Reply) -> Result<(), Error> {
        let during = self.phase();
        let Some(expected) = self.expected.pop_front() else {
            return Err(match reply.code {
                421 => Error::ServiceClosing { reply, during },
                _ => Error::Unsolicited { found: reply, during },
            });
        };
        match expected {
            // A server says 421 for one recipient and leaves; what became of the others is not in it.
            Expected::Greeting | Expected::Lhlo | Expected::Delivery(_) | Expected::Quit => {}
            _ if reply.code == 421 => return Err(Error::ServiceClosing { reply, during }),
            _ => {}
        }
        self.take_expected(expected, reply)
            .map_err(|found| Error::UnexpectedReply { expected: expected.wanted(), found, during })
            .and_then(|ended| ended.map_or(Ok(()), Err))?;
        self.tell_of_refused_sender();
        Ok(())
    }

    /// `Err` gives back a reply of a sort that may not come here.
    fn take_expected(&mut self, expected: Expected, reply: Reply) -> Result<Option<Error>, Reply> {
        match (expected, reply.severity()) {
            (Expected::Greeting, Severity::Success) => {
                self.say(encode::lhlo(&self.options.host_name), Expected::Lhlo);
            }
            (Expected::Greeting, Severity::Transient | Severity::Permanent) => {
                return Ok(Some(Error::GreetingRefused(reply)));
            }
            (Expected::Lhlo, Severity::Success) => {
                self.capabilities = Capabilities::from_lhlo(&reply);
                self.events.push_back(Event::Ready { capabilities: self.capabilities.clone() });
            }
            (Expected::Lhlo, Severity::Transient | Severity::Permanent) => return Ok(Some(Error::LhloRefused(reply))),
            (Expected::Mail, Severity::Success) => {}
            (Expected::Mail, Severity::Transient | Severity::Permanent) => {
                self.transaction.sender = Sender::Refused(reply);
            }
            (
                Expected::Recipient(_) | Expected::Data,
                Severity::Success | Severity::Transient | Severity::Permanent,
            ) if !self.sender_is_good() => {}
            (Expected::Recipient(index), Severity::Success) => {
                self.transaction.accepted.push(index);
                self.events.push_back(Event::Recipient { index, result: Ok(reply) });
            }
            (Expected::Recipient(index), Severity::Transient | Severity::Permanent) => {
                self.events.push_back(Event::Recipient { index, result: Err(reply) });
            }
            (Expected::Data, Severity::Intermediate) if self.transaction.accepted.is_empty() => {
                self.out.extend_from_slice(b".\r\n");
                self.end = End::Spent;
                if self.sender_is_good() {
                    self.events.push_back(Event::NoRecipients);
                }
            }
            (Expected::Data, Severity::Intermediate) => {
                self.message = Some(Message { stuffer: stuff(), wanted: true });
                self.events.push_back(Event::ReadyForData);
            }
            (Expected::Data, Severity::Transient | Severity::Permanent) => {
                let nobody = self.transaction.accepted.is_empty();
                self.events.push_back(if nobody { Event::NoRecipients } else { Event::DataRefused(reply) });
            }
            (Expected::Delivery(index), Severity::Success) => {
                self.events.push_back(Event::Delivered { index, result: Ok(reply) });
            }
            (Expected::Delivery(index), Severity::Transient | Severity::Permanent) => {
                self.events.push_back(Event::Delivered { index, result: Err(reply) });
            }
            (Expected::Rset, Severity::Success) => self.events.push_back(Event::Reset),
            (Expected::Quit, _) => self.say_goodbye(),
            (
                Expected::Greeting | Expected::Lhlo | Expected::Mail | Expected::Recipient(_) | Expected::Delivery(_),
                Severity::Intermediate,
            )
            | (Expected::Data, Severity::Success)
            | (Expected::Rset, _) => return Err(reply),
        }
        Ok(None)
    }

    fn sender_is_good(&self) -> bool {
        matches!(self.transaction.sender, Sender::Good)
    }

    /// Once nothing of its transaction is in flight any more.
    fn tell_of_refused_sender(&mut self) {
        if self.expected.iter().any(|e| matches!(e, Expected::Recipient(_) | Expected::Data)) {
            return;
        }
        if let Sender::Refused(_) = self.transaction.sender
            && let Sender::Refused(reply) = std::mem::replace(&mut self.transaction.sender, Sender::RefusedAndTold)
        {
            self.events.push_back(Event::SenderRefused(reply));
        }
    }

    fn say_goodbye(&mut self) {
        self.end = End::Goodbye;
        self.expected.clear();
        self.queue.clear();
        self.events.push_back(Event::Goodbye);
    }

    fn step(&mut self) -> Result<Step<Event>, Error> {
        loop {
            if !self.out.is_empty() {
                if self.transaction.dot == Dot::Queued {
                    self.transaction.dot = Dot::Sent;
                }
                return Ok(Step::Transmit(Bytes::from(std::mem::take(&mut self.out))));
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(Step::Event(event));
            }
            if self.end == End::Goodbye {
                return Ok(Step::NeedInput);
            }
            self.send()?;
            if !self.out.is_empty() || !self.events.is_empty() {
                continue;
            }
            if self.message.is_some() {
                return self.wait_for_message();
            }
            if self.end == End::Spent && self.expected.is_empty() {
                return Ok(Step::NeedInput);
            }
            if let Some(reply) = self.next_reply()? {
                self.take(reply)?;
            } else if !self.inbox.is_closed() {
                return Ok(Step::NeedInput);
            } else if self.expected.front() == Some(&Expected::Quit) {
                self.say_goodbye();
            } else {
                return Err(Error::Closed { during: self.phase() });
            }
        }
    }

    /// The caller owes us the rest of the message. What the server says meanwhile is its answer to the dot, and looked at
    /// when the dot is sent; unless the server closes, then it is why.
    fn wait_for_message(&mut self) -> Result<Step<Event>, Error> {
        let during = self.phase();
        let Limits { line_octets, lines } = self.limits();
        let message = self.message.as_mut().ok_or(Error::Misuse("no message is being sent"))?;
        if !message.wanted {
            message.wanted = true;
            return Ok(Step::Event(Event::WantData));
        }
        if self.inbox.is_closed() {
            return Err(match self.next_reply()? {
                Some(reply) if reply.code == 421 => Error::ServiceClosing { reply, during },
                Some(reply) if reply.is_refusal() => Error::MessageRefused(reply),
                _ => Error::Closed { during },
            });
        }
        let limit = line_octets.saturating_mul(lines);
        if self.inbox.len() > limit { Err(Error::LineTooLong { limit, during }) } else { Ok(Step::NeedInput) }
    }
}

impl Machine for Session {
    type Event = Event;
    type Error = Error;

    fn receive(&mut self, octets: &[u8]) {
        self.inbox.extend(octets);
    }

    fn poll(&mut self, _now: Instant) -> Result<Step<Event>, Error> {
        if let End::Failed(error) = &self.end {
            return Err(error.clone());
        }
        self.step().inspect_err(|error| self.end = End::Failed(error.clone()))
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn awaiting(&self) -> bool {
        !self.expected.is_empty()
    }

    fn phase(&self) -> &'static str {
        match self.expected.front() {
            _ if self.message.is_some() => "sending the message",
            Some(Expected::Greeting) => "receiving the greeting",
            Some(Expected::Lhlo) => "waiting for the answer to LHLO",
            Some(Expected::Mail) => "waiting for the answer to MAIL FROM",
            Some(Expected::Recipient(_)) => "waiting for the answer to RCPT TO",
            Some(Expected::Data) => "waiting for the answer to DATA",
            Some(Expected::Delivery(_)) => "waiting for the answer to the message",
            Some(Expected::Rset) => "waiting for the answer to RSET",
            Some(Expected::Quit) => "waiting for the answer to QUIT",
            None => "nothing was asked",
        }
    }
}

impl Expected {
    fn wanted(self) -> &'static str {
        match self {
            Self::Greeting => "220 or a refusal",
            Self::Data => "354 or a refusal",
            Self::Rset => "250",
            Self::Quit => "221",
            Self::Lhlo | Self::Mail | Self::Recipient(_) | Self::Delivery(_) => "250 or a refusal",
        }
    }
}

fn encode_mail(mail: &Mail, offered: &Capabilities) -> Vec<u8> {
    encode::mail(&mail.reverse_path, mail.size_octets, mail.smtp_utf8, offered)
}

/// An error keeps no whole buffer alive.
fn cut(line: Bytes) -> Bytes {
    Bytes::copy_from_slice(&line[..line.len().min(1024)])
}
