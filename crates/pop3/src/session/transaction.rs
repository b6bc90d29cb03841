//! Commands after the login: the window of those in flight, and their answers.

use bytes::Bytes;
use connectord_wire::dot::Piece;

use super::opening::add_capability;
use super::{Answer, NEED_INPUT, Progress, Reading, Session, State, cut, event, refusal};
use crate::encode;
use crate::parse::{self, Command, Status, Unreadable};
use crate::{Capabilities, Error, Event, MessageNumber, Pipelining, Refusal, Retrieval, Uidl};

/// From how many queued commands on a second CAPA costs less than it may save.
const WORTH_ASKING: usize = 3;

impl Session {
    /// Sends what the window allows of the queue.
    pub(super) fn fill(&mut self) {
        match self.state {
            State::Offering if self.quitting => {
                self.queue.clear();
                self.queue.push_back(Command::Quit);
                self.state = State::Transaction;
            }
            State::Transaction if !self.queue.is_empty() => {}
            _ => return,
        }
        if self.queue.len() >= WORTH_ASKING && self.may_learn_pipelining() {
            self.asked_again = true;
            self.queue.push_front(Command::Capa);
        }
        let (commands, octets) = match self.pipelining() {
            true => (self.options.window_commands.max(1), self.options.window_octets),
            false => (1, 0),
        };
        // By halves, so that a write carries many commands and not one for each answer.
        if !self.in_flight.is_empty() && (self.in_flight.len() > commands / 2 || self.octets_in_flight > octets / 2) {
            return;
        }
        let mut out = Vec::new();
        while let Some(command) = self.queue.front() {
            let start = out.len();
            encode::command(command, &mut out);
            let length = out.len() - start;
            let full = self.in_flight.len() >= commands || self.octets_in_flight + length > octets;
            if full && !self.in_flight.is_empty() {
                out.truncate(start);
                break;
            }
            let command = self.queue.pop_front().expect("it has a front");
            self.octets_in_flight += length;
            self.in_flight.push_back((command, length));
        }
        if !out.is_empty() {
            self.outbox.0 = Some(Bytes::from(out));
        }
    }

    /// RFC 2449 §5: the list after the login may differ.
    fn may_learn_pipelining(&self) -> bool {
        self.options.pipelining == Pipelining::AsOffered
            && self.capabilities.is_known()
            && !self.capabilities.has("PIPELINING")
            && !self.asked_again
            && self.in_flight.is_empty()
    }

    /// Reads on in the answer to the first command in flight.
    pub(super) fn answer(&mut self) -> Result<Progress, Error> {
        match self.reading {
            Reading::Status => self.status_line(),
            Reading::Capabilities(_) => self.capability_line(),
            Reading::Listing { .. } => self.listing_line(),
            Reading::Body { octets } => self.body(octets),
        }
    }

    fn status_line(&mut self) -> Result<Progress, Error> {
        let Some(answer) = self.reply()? else { return Ok(NEED_INPUT) };
        let Some((command, _)) = self.in_flight.front() else { return Ok(Progress::Again) };
        let command = command.clone();
        match answer.status {
            Status::Continue => Err(self.unexpected(&answer.line, "+OK or -ERR")),
            Status::Err => {
                self.answered();
                if command == Command::Quit {
                    self.state = State::Ended;
                }
                let refused = refused(&command, refusal(command.name(), answer.code, &answer.text));
                Ok(refused.map_or(Progress::Again, event))
            }
            Status::Ok => self.accepted(&command, &answer),
        }
    }

    fn accepted(&mut self, command: &Command, answer: &Answer) -> Result<Progress, Error> {
        let done = match *command {
            Command::Uidl(None) | Command::List(None) => {
                self.reading = Reading::Listing { lines: 0, count: 0 };
                return Ok(Progress::Again);
            }
            Command::Retr(number) | Command::Top(number, _) => {
                self.reading = Reading::Body { octets: 0 };
                let octets = parse::announced_octets(&answer.text);
                return Ok(event(Event::BodyStart { number, kind: kind(command), octets }));
            }
            Command::Stat => self.stat_answer(answer)?,
            Command::Uidl(Some(number)) => match self.unique_id(&answer.text) {
                Ok((found, uidl)) if found == number => Event::UniqueId { number, uidl },
                Err(Unreadable { number: found }) if found.is_none_or(|found| found == number) => {
                    Event::UniqueIdUnreadable { number: Some(number), line: cut(&answer.line) }
                }
                _ => return Err(self.unexpected(&answer.line, "+OK with the message that was asked for")),
            },
            Command::List(Some(number)) => match parse::size(&answer.text) {
                Ok((found, octets)) if found == number => Event::Size { number, octets },
                Err(Unreadable { number: found }) if found.is_none_or(|found| found == number) => {
                    Event::SizeUnreadable { number: Some(number), line: cut(&answer.line) }
                }
                _ => return Err(self.unexpected(&answer.line, "+OK with the message that was asked for")),
            },
            Command::Dele(number) => Event::Deleted { number },
            Command::Rset => Event::Reset,
            Command::Noop => Event::Noop,
            Command::Quit => {
                self.state = State::Ended;
                Event::Goodbye { refusal: None }
            }
            Command::Capa => {
                self.reading = Reading::Capabilities(Capabilities::none());
                return Ok(Progress::Again);
            }
            // Never in the queue.
            Command::Stls | Command::Utf8 | Command::User(_) | Command::Pass(_) | Command::Auth(_) => {
                return Err(self.unexpected(&answer.line, "nothing"));
            }
        };
        self.answered();
        Ok(event(done))
    }

    fn stat_answer(&self, answer: &Answer) -> Result<Event, Error> {
        let Some((messages, octets)) = parse::stat(&answer.text) else {
            return Err(self.unexpected(&answer.line, "+OK with the number of messages and of their octets"));
        };
        let limit = self.options.max_messages;
        if messages > limit {
            return Err(Error::TooManyMessages { command: "STAT", limit });
        }
        Ok(Event::Stat { messages, octets })
    }

    fn unique_id(&self, line: &[u8]) -> Result<(MessageNumber, Uidl), Unreadable> {
        match parse::unique_id(line) {
            Ok((number, uidl)) if uidl.octets().len() > self.options.max_uidl => {
                Err(Unreadable { number: Some(number) })
            }
            other => other,
        }
    }

    fn capability_line(&mut self) -> Result<Progress, Error> {
        let Some(line) = self.line()? else { return Ok(NEED_INPUT) };
        let limit = self.options.max_capabilities;
        let Reading::Capabilities(list) = &mut self.reading else { return Ok(Progress::Again) };
        if &line[..] == b"." {
            self.capabilities = std::mem::take(list);
            self.answered();
        } else {
            add_capability(list, &line, limit)?;
        }
        Ok(Progress::Again)
    }

    fn listing_line(&mut self) -> Result<Progress, Error> {
        let Some(line) = self.line()? else { return Ok(NEED_INPUT) };
        let is_uidl = matches!(self.in_flight.front(), Some((Command::Uidl(_), _)));
        let Reading::Listing { lines, count } = &mut self.reading else { return Ok(Progress::Again) };
        if &line[..] == b"." {
            let count = *count;
            self.answered();
            return Ok(event(if is_uidl { Event::UniqueIdsEnd { count } } else { Event::SizesEnd { count } }));
        }
        let limit = self.options.max_messages;
        if *lines >= limit {
            return Err(Error::TooManyMessages { command: if is_uidl { "UIDL" } else { "LIST" }, limit });
        }
        *lines += 1;
        if line.trim_ascii().is_empty() {
            return Ok(Progress::Again);
        }
        *count += 1;
        let entry = line.strip_prefix(b".").unwrap_or(&line);
        let read = match is_uidl {
            true => self.unique_id(entry).map(|(number, uidl)| Event::UniqueId { number, uidl }),
            false => parse::size(entry).map(|(number, octets)| Event::Size { number, octets }),
        };
        Ok(event(read.unwrap_or_else(|Unreadable { number }| {
            if let Reading::Listing { count, .. } = &mut self.reading {
                *count -= 1;
            }
            match is_uidl {
                true => Event::UniqueIdUnreadable { number, line: cut(&line) },
                false => Event::SizeUnreadable { number, line: cut(&line) },
            }
        })))
    }

    fn body(&mut self, before: u64) -> Result<Progress, Error> {
        let Some((command, _)) = self.in_flight.front() else { return Ok(Progress::Again) };
        let (Command::Retr(number) | Command::Top(number, _)) = *command else { return Ok(Progress::Again) };
        let kind = kind(command);
        match self.unstuffer.next(&mut self.inbox) {
            Piece::NeedInput if self.inbox.is_closed() => Err(self.closed()),
            Piece::NeedInput => Ok(NEED_INPUT),
            Piece::End => {
                self.answered();
                Ok(event(Event::BodyEnd { number, kind, octets: before }))
            }
            Piece::Octets(mut octets) => {
                let limit = self.options.max_message_octets.unwrap_or(u64::MAX);
                let room = limit.saturating_sub(before);
                if octets.len() as u64 > room {
                    let error = Error::MessageTooLong { number, limit };
                    octets.truncate(usize::try_from(room).unwrap_or(usize::MAX));
                    if octets.is_empty() {
                        return Err(error);
                    }
                    // What still fits comes first, so that the caller sees the same however the octets arrived.
                    self.failed = Some(error);
                }
                self.reading = Reading::Body { octets: before.saturating_add(octets.len() as u64) };
                Ok(event(Event::Body(octets)))
            }
        }
    }

    fn answered(&mut self) {
        if let Some((_, length)) = self.in_flight.pop_front() {
            self.octets_in_flight -= length;
        }
        self.reading = Reading::Status;
    }
}

fn kind(command: &Command) -> Retrieval {
    match command {
        Command::Top(..) => Retrieval::Top,
        _ => Retrieval::Whole,
    }
}

/// The event for a refused command; none for the session's own.
fn refused(command: &Command, refusal: Refusal) -> Option<Event> {
    Some(match *command {
        Command::Stat => Event::StatRefused(refusal),
        Command::Uidl(None) => Event::UniqueIdsRefused(refusal),
        Command::Uidl(Some(number)) => Event::UniqueIdRefused { number, refusal },
        Command::List(None) => Event::SizesRefused(refusal),
        Command::List(Some(number)) => Event::SizeRefused { number, refusal },
        Command::Retr(number) | Command::Top(number, _) => {
            Event::RetrieveRefused { number, kind: kind(command), refusal }
        }
        Command::Dele(number) => Event::DeleteRefused { number, refusal },
        Command::Rset => Event::ResetRefused(refusal),
        Command::Noop => Event::NoopRefused(refusal),
        Command::Quit => Event::Goodbye { refusal: Some(refusal) },
        Command::Capa | Command::Stls | Command::Utf8 | Command::User(_) | Command::Pass(_) | Command::Auth(_) => {
            return None;
        }
    })
}
