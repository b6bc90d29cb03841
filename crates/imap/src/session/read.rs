//! Received octets to responses: line by line, literal by literal, nothing kept of a body.

use bytes::Bytes;
use connectord_wire::Machine;

use super::{Session, State, excerpt};
use crate::encode::Command;
use crate::parse::fetch::{Fetch, Found, Misplaced};
use crate::parse::lex::{Brackets, Lexeme, Token, lexeme};
use crate::parse::response::{Start, capabilities, start};
use crate::parse::search::{Kind as SearchKind, Progress, Search, kind};
use crate::{Body, Error, Event, Section};

/// Where in a response we are.
#[derive(Debug)]
pub(super) enum Reading {
    /// Between responses, or in the first line of one.
    Start,
    /// In a SEARCH or ESEARCH answer; whether somebody wants it.
    Search(Search, bool),
    /// Behind a literal, in the next line of the same response.
    Line(Gather),
    /// In a literal that is kept.
    Literal(Gather, usize),
    /// In a literal nobody needs.
    Skip(Gather, u64),
    /// In a body.
    Body(Gather, u64),
}

/// A response of which some has come.
#[derive(Debug)]
pub(super) struct Gather {
    pub(super) kind: Kind,
    pub(super) tokens: Vec<Token>,
    pub(super) fetch: Fetch,
    pub(super) body: Body,
    depth: u32,
    /// Octets of its lines, and of its literals where they are no part of a message.
    octets: usize,
}

/// Responses with arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fetch,
    List,
    Status,
    Namespace,
    Id,
    Vanished,
    /// Unknown, or of no use: passed over by its structure.
    Skip,
}

impl Session {
    pub(super) fn is_reading_body(&self) -> bool {
        matches!(self.reading, Reading::Body(..))
    }

    pub(super) fn is_between_responses(&self) -> bool {
        matches!(self.reading, Reading::Start) && self.inbox.is_empty()
    }

    /// Takes one step; false when more octets are needed.
    pub(super) fn read(&mut self) -> Result<bool, Error> {
        match std::mem::replace(&mut self.reading, Reading::Start) {
            Reading::Start => self.read_start(),
            Reading::Search(search, wanted) => self.read_search(search, wanted),
            Reading::Line(gather) => match self.line()? {
                Some(line) => self.gather(gather, line).map(|()| true),
                None => self.wait(Reading::Line(gather)),
            },
            Reading::Literal(gather, octets) if self.inbox.len() < octets => {
                self.wait(Reading::Literal(gather, octets))
            }
            Reading::Literal(mut gather, octets) => {
                gather.tokens.push(Token::String(self.inbox.take(octets)));
                self.reading = Reading::Line(gather);
                Ok(true)
            }
            Reading::Skip(gather, left) => {
                let skipped = u64::try_from(self.inbox.len()).unwrap_or(u64::MAX).min(left);
                if left > 0 && skipped == 0 {
                    return self.wait(Reading::Skip(gather, left));
                }
                drop(self.inbox.take_up_to(skipped));
                let left = left - skipped;
                self.reading = if left == 0 { Reading::Line(gather) } else { Reading::Skip(gather, left) };
                Ok(true)
            }
            Reading::Body(gather, left) => self.read_body(gather, left),
        }
    }

    fn wait(&mut self, reading: Reading) -> Result<bool, Error> {
        self.reading = reading;
        Ok(false)
    }

    fn line(&mut self) -> Result<Option<Bytes>, Error> {
        let during = self.phase();
        self.inbox.line(self.options.max_line).map_err(|error| Error::LineTooLong { limit: error.limit, during })
    }

    fn read_start(&mut self) -> Result<bool, Error> {
        if self.state != State::ExpectGreeting {
            let (used, is_extended) = match kind(self.inbox.peek()) {
                None => return Ok(false),
                Some(SearchKind::Search(used)) => (used, false),
                Some(SearchKind::Extended(used)) => (used, true),
                Some(SearchKind::Other) => (0, false),
            };
            // Both, whichever was asked for: Cyrus 2.4 answers the extended search with a plain SEARCH (2015).
            if used > 0 {
                self.inbox.skip(used);
                let wanted = self.is_in_flight(|command| matches!(command, Command::UidSearch { .. }));
                self.reading = Reading::Search(Search::new(is_extended), wanted);
                return Ok(true);
            }
        }
        let Some(line) = self.line()? else { return Ok(false) };
        self.response(line).map(|()| true)
    }

    fn response(&mut self, line: Bytes) -> Result<(), Error> {
        let response = start(&line);
        if self.state == State::ExpectGreeting {
            return match response {
                Some(Start::Status(status)) => self.greeted(status),
                _ => Err(self.syntax("a greeting", &line)),
            };
        }
        match response {
            None => Err(self.syntax("a response", &line)),
            Some(Start::Nothing) => self.count_unasked(),
            Some(Start::Continuation(text)) => self.continuation(text),
            Some(Start::Tagged(tag, status)) => self.tagged(tag, status),
            Some(Start::Status(status)) => self.untagged_status(status),
            Some(Start::Data(number, keyword, arguments)) => {
                let is_logged_in = self.state == State::LoggedIn;
                let kind = match (keyword.as_str(), number) {
                    ("CAPABILITY", None) => {
                        self.learn(capabilities(arguments));
                        return self.count_unasked();
                    }
                    ("ENABLED", None) => {
                        self.enabled(&capabilities(arguments));
                        return self.count_unasked();
                    }
                    ("EXISTS", Some(count)) if is_logged_in => return self.exists(count),
                    ("EXPUNGE", Some(_)) if is_logged_in => return self.expunged(),
                    ("FETCH", Some(_)) if is_logged_in => Kind::Fetch,
                    ("LIST", None) if is_logged_in => Kind::List,
                    ("STATUS", None) if is_logged_in => Kind::Status,
                    ("NAMESPACE", None) if is_logged_in => Kind::Namespace,
                    ("ID", None) if is_logged_in => Kind::Id,
                    ("VANISHED", None) if is_logged_in => Kind::Vanished,
                    _ => Kind::Skip,
                };
                self.gather(Gather::new(kind), line.slice_ref(arguments))
            }
        }
    }

    pub(super) fn syntax(&self, expected: &'static str, found: &[u8]) -> Error {
        Error::Syntax { expected, during: self.phase(), found: excerpt(found) }
    }

    /// Takes one line of a response, up to its end or a literal.
    fn gather(&mut self, mut gather: Gather, line: Bytes) -> Result<(), Error> {
        let brackets = if gather.kind == Kind::Fetch { Brackets::Join } else { Brackets::Plain };
        self.keep(&mut gather, line.len())?;
        let mut rest: &[u8] = &line;
        loop {
            let Some((behind, lexeme)) = lexeme(rest, brackets) else {
                return match gather.kind {
                    Kind::Fetch => Err(self.syntax("a string with an end", rest)),
                    _ => self.unparsed(gather.kind, &line),
                };
            };
            rest = behind;
            let token = match lexeme {
                Lexeme::End => return self.gathered(gather, &line),
                Lexeme::Literal(octets) => return self.literal(gather, octets, &line),
                Lexeme::Open => {
                    gather.depth += 1;
                    if gather.depth > self.options.max_nesting {
                        return Err(Error::NestedTooDeep { limit: self.options.max_nesting, during: self.phase() });
                    }
                    Token::Open
                }
                Lexeme::Close => {
                    gather.depth = gather.depth.saturating_sub(1);
                    Token::Close
                }
                Lexeme::Atom(atom) => Token::Atom(line.slice_ref(atom)),
                Lexeme::Quoted(std::borrow::Cow::Borrowed(text)) => Token::String(line.slice_ref(text)),
                Lexeme::Quoted(std::borrow::Cow::Owned(text)) => Token::String(text.into()),
            };
            match gather.kind {
                Kind::Skip => {}
                Kind::Fetch => match gather.fetch.token(token) {
                    Ok(Found::Nothing) => {}
                    Ok(Found::NoBody(section)) => {
                        if gather.body == Body::Absent && self.wants_body(&gather, section) {
                            gather.body = Body::Nil;
                        }
                    }
                    Ok(Found::Body(section, octets)) => self.short_body(&mut gather, section, octets),
                    Err(Misplaced) => return Err(self.syntax("a FETCH response", &line)),
                },
                _ => gather.tokens.push(token),
            }
        }
    }

    /// Counts what a response makes us keep, or read for nothing: its lines, and literals that are no part of a message.
    fn keep(&self, gather: &mut Gather, octets: usize) -> Result<(), Error> {
        let limit = self.options.max_line.saturating_add(self.options.max_literal);
        gather.octets = gather.octets.saturating_add(octets);
        if gather.octets <= limit {
            return Ok(());
        }
        let octets = u64::try_from(gather.octets).unwrap_or(u64::MAX);
        Err(Error::LiteralTooLong { octets, limit, during: self.phase() })
    }

    fn literal(&mut self, mut gather: Gather, octets: u64, line: &[u8]) -> Result<(), Error> {
        self.reading = match gather.kind {
            Kind::Skip => {
                self.keep(&mut gather, usize::try_from(octets).unwrap_or(usize::MAX))?;
                Reading::Skip(gather, octets)
            }
            Kind::Fetch => match gather.fetch.literal() {
                Ok(Some(section)) => return self.begin_body(gather, section, octets),
                Ok(None) => Reading::Skip(gather, octets),
                Err(Misplaced) => return Err(self.syntax("a FETCH response", line)),
            },
            _ => {
                let limit = self.options.max_literal;
                let count = usize::try_from(octets).ok().filter(|count| *count <= limit);
                let Some(count) = count else {
                    return Err(Error::LiteralTooLong { octets, limit, during: self.phase() });
                };
                self.keep(&mut gather, count)?;
                Reading::Literal(gather, count)
            }
        };
        Ok(())
    }

    /// Whether a fetch in flight asked for this part of this message, as far as the message is known yet.
    fn wants_body(&self, gather: &Gather, section: Section) -> bool {
        let uid = gather.fetch.attributes.uid;
        self.is_in_flight(|command| {
            matches!(command, Command::UidFetch { uids, items }
                if items.body == Some(section) && uid.is_none_or(|uid| uids.contains(uid)))
        })
    }

    /// Whether the octets of a body are handed out; if not, why is noted.
    fn admits(&self, gather: &mut Gather, section: Section, octets: u64) -> bool {
        if gather.body != Body::Absent || !self.wants_body(gather, section) {
            return false;
        }
        let is_too_long = self.options.max_message_octets.is_some_and(|limit| octets > limit);
        gather.body = if is_too_long { Body::TooLong(octets) } else { Body::Octets(octets) };
        !is_too_long
    }

    fn begin_body(&mut self, mut gather: Gather, section: Section, octets: u64) -> Result<(), Error> {
        self.reading = if self.admits(&mut gather, section, octets) {
            self.events.push_back(Event::BodyStart { uid: gather.fetch.attributes.uid, section, octets });
            Reading::Body(gather, octets)
        } else {
            Reading::Skip(gather, octets)
        };
        Ok(())
    }

    fn read_body(&mut self, gather: Gather, left: u64) -> Result<bool, Error> {
        let octets = self.inbox.take_up_to(left);
        if left > 0 && octets.is_empty() {
            return self.wait(Reading::Body(gather, left));
        }
        let left = left - u64::try_from(octets.len()).unwrap_or(left);
        if !octets.is_empty() {
            self.events.push_back(Event::Body(octets));
        }
        self.reading = if left == 0 {
            self.events.push_back(Event::BodyEnd);
            Reading::Line(gather)
        } else {
            Reading::Body(gather, left)
        };
        Ok(true)
    }

    /// A body in quotes: so do some servers with empty messages.
    fn short_body(&mut self, gather: &mut Gather, section: Section, octets: Bytes) {
        let length = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        if self.admits(gather, section, length) {
            self.events.push_back(Event::BodyStart { uid: gather.fetch.attributes.uid, section, octets: length });
            if !octets.is_empty() {
                self.events.push_back(Event::Body(octets));
            }
            self.events.push_back(Event::BodyEnd);
        }
    }

    fn read_search(&mut self, mut search: Search, wanted: bool) -> Result<bool, Error> {
        let (used, progress) = search.next(self.inbox.peek());
        self.inbox.skip(used);
        match progress {
            Progress::NeedInput => return self.wait(Reading::Search(search, wanted)),
            Progress::Malformed(word) => return Err(self.syntax("UIDs found by a search", &word)),
            // A search is answered once; who answers it for ever with nothing is stopped too.
            Progress::End => self.count_unasked()?,
            Progress::Found(uids) => {
                let words = search.words();
                self.reading = Reading::Search(search, wanted);
                if wanted {
                    self.found_uids(uids, words)?;
                }
            }
        }
        Ok(true)
    }
}

impl Gather {
    fn new(kind: Kind) -> Self {
        Self { kind, tokens: Vec::new(), fetch: Fetch::new(), body: Body::Absent, depth: 0, octets: 0 }
    }
}
