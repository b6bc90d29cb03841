//! What is queued, what is in flight, and when the next command may go.

use std::collections::VecDeque;

use connectord_wire::Machine;

use super::untagged::Selecting;
use super::{Idle, Session, State};
use crate::encode::{Command, Dialect, Literals, encode};
use crate::parse::response::{Condition, StatusLine};
use crate::{
    CommandId, Completion, Event, MailboxName, NameEncoding, Refusal, ResponseCode, Status, StatusItem, UidSet,
};

/// A command that waits for its turn.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    id: CommandId,
    /// `None`: nothing to send, only to be reported in its turn.
    command: Option<Command>,
}

/// What came of the parts of a command so far.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    id: CommandId,
    codes: Vec<ResponseCode>,
    refusal: Option<Refusal>,
}

/// A command that was sent and not answered.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    tag: u64,
    /// `None`: the session's own.
    id: Option<CommandId>,
    /// Without secrets.
    pub(super) command: Command,
    octets: usize,
}

/// The rest of a command whose literal the server has to agree to.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    tag: u64,
    pieces: VecDeque<Vec<u8>>,
}

impl InFlight {
    pub(super) fn phase(&self) -> &'static str {
        match self.command.name() {
            "LIST" => "listing mailboxes",
            "STATUS" => "asking for the state of a mailbox",
            "SELECT" | "EXAMINE" => "opening a mailbox",
            "UID SEARCH" => "searching a mailbox",
            "UID FETCH" => "waiting for messages",
            "UID STORE" => "setting flags",
            "EXPUNGE" | "UID EXPUNGE" => "removing messages",
            "UID MOVE" => "moving messages",
            "UID COPY" => "copying messages",
            "IDLE" => "waiting for the end of IDLE",
            "LOGOUT" => "logging out",
            "CLOSE" | "UNSELECT" => "closing a mailbox",
            "NOOP" => "waiting for the answer to NOOP",
            "ENABLE" | "ID" | "CAPABILITY" => "negotiating extensions",
            _ => "waiting for an answer",
        }
    }
}

impl Session {
    fn new_id(&mut self) -> CommandId {
        self.next_id += 1;
        CommandId(self.next_id)
    }

    pub(super) fn queue(&mut self, command: Command) -> CommandId {
        let id = self.new_id();
        self.queue.push_back(Queued { id, command: Some(command) });
        id
    }

    pub(super) fn queue_list(&mut self, reference: &str, pattern: &str, special_use: bool) -> CommandId {
        let name = |text: &str| {
            MailboxName::new(text)
                .ok()
                .or_else(|| text.is_empty().then(|| MailboxName::from_wire(b"", NameEncoding::Utf7)))
        };
        match (name(reference), name(pattern)) {
            (Some(reference), Some(pattern)) => self.queue(Command::List { reference, pattern, special_use }),
            _ => {
                self.misuse("LIST with a reference or pattern that no mailbox name can match");
                self.new_id()
            }
        }
    }

    /// Queues one command for each part of the set.
    pub(super) fn queue_set(&mut self, uids: &UidSet, command: impl Fn(UidSet) -> Command) -> CommandId {
        let id = self.new_id();
        if uids.is_empty() {
            self.queue.push_back(Queued { id, command: None });
        }
        let parts = uids.chunks(self.options.max_set_octets).into_iter();
        self.queue.extend(parts.map(|part| Queued { id, command: Some(command(part)) }));
        id
    }

    /// Sends what may be sent now.
    pub(super) fn pump(&mut self) {
        while self.sending.is_none() {
            // Who is not logged in can only leave: LOGOUT passes what waits for the login.
            let is_logout = |queued: &Queued| matches!(queued.command, Some(Command::Logout));
            let at = if self.state == State::ExpectLogin { self.queue.iter().position(is_logout) } else { Some(0) };
            let Some(at) = at.filter(|at| self.queue.get(*at).is_some_and(|next| self.may_go(next))) else { return };
            let Some(Queued { id, command }) = self.queue.remove(at) else { return };
            match command {
                None => self.events.push_back(Event::Done { command: id, result: Ok(Completion::default()) }),
                Some(command) => match self.needs(&command) {
                    Some(extension) if !self.offers(extension) => self.not_offered(id, &command),
                    _ => self.send(Some(id), command),
                },
            }
        }
    }

    fn may_go(&self, next: &Queued) -> bool {
        match self.state {
            State::LoggedIn => {}
            State::ExpectLogin => return true,
            _ => return false,
        }
        let asked = || self.in_flight.iter().filter(|sent| sent.id.is_some());
        let Some(command) = &next.command else { return asked().next().is_none() };
        // Refusals of our own come in their turn too.
        if self.needs(command).is_some_and(|extension| !self.offers(extension)) {
            return asked().next().is_none();
        }
        let enables = self.in_flight.iter().any(|sent| matches!(sent.command, Command::Enable(_)));
        if enables && !is_plain(command) {
            return false;
        }
        if is_alone(command) {
            return asked().next().is_none();
        }
        let is_select = |command: &Command| matches!(command, Command::Select { .. });
        if asked().any(|sent| is_select(&sent.command)) {
            // A search may be on the wire behind the SELECT of its mailbox: it changes what the search means, so the server
            // does one after the other (RFC 9051 §5.5). Where the mailbox cannot be opened the search is refused.
            return matches!(command, Command::UidSearch { .. }) && asked().count() == 1 && self.sending.is_none();
        }
        let octets: usize = self.in_flight.iter().map(|sent| sent.octets).sum();
        let is_search = |command: &Command| matches!(command, Command::UidSearch { .. });
        let goes_with = |sent: &Command| !is_alone(sent) && (!is_search(sent) || !is_search(command));
        asked().all(|sent| goes_with(&sent.command))
            && asked().count() < self.options.window_commands.max(1)
            && (asked().next().is_none() || octets < self.options.window_octets)
    }

    /// The extension without which a command is not sent.
    fn needs(&self, command: &Command) -> Option<&'static str> {
        match command {
            Command::Namespace => Some("NAMESPACE"),
            Command::Unselect => Some("UNSELECT"),
            Command::UidExpunge(_) => Some("UIDPLUS"),
            Command::UidMove { .. } => Some("MOVE"),
            Command::Idle => Some("IDLE"),
            _ => None,
        }
    }

    /// One unknown item makes the whole STATUS a BAD.
    fn knows_item(&self, item: StatusItem) -> bool {
        match item {
            StatusItem::HighestModSeq => self.capabilities.has("CONDSTORE") || self.capabilities.has("QRESYNC"),
            StatusItem::Size => self.offers("STATUS=SIZE"),
            StatusItem::Deleted => self.offers("STATUS=DELETED"),
            _ => true,
        }
    }

    fn not_offered(&mut self, id: CommandId, command: &Command) {
        if matches!(command, Command::Idle) {
            self.idle = Idle::Off;
        }
        let refusal = Refusal { command: command.name(), status: Status::NotOffered, code: None, text: String::new() };
        self.part_done(id, None, Err(refusal), String::new());
    }

    /// Sends a command of the session's own or of the caller's.
    pub(super) fn send(&mut self, id: Option<CommandId>, mut command: Command) {
        self.next_tag += 1;
        match &mut command {
            Command::List { special_use, .. } => {
                *special_use &= self.offers("SPECIAL-USE") && self.offers("LIST-EXTENDED");
                self.listed = 0;
            }
            Command::Status { items, .. } => {
                items.retain(|item| self.knows_item(*item));
                if items.is_empty() {
                    items.push(StatusItem::Messages);
                }
            }
            Command::UidSearch { extended, .. } => {
                *extended = self.offers("ESEARCH");
                self.found = 0;
            }
            Command::Select { read_only, .. } => {
                self.selecting = Selecting::new(*read_only);
            }
            Command::Idle if self.idle != Idle::AskedAndDone => self.idle = Idle::Asked,
            _ => {}
        }
        let literals = match () {
            () if self.capabilities.has("LITERAL+") => Literals::Plus,
            () if self.offers("LITERAL-") => Literals::Minus,
            () => Literals::Synchronizing,
        };
        let dialect = Dialect { names: self.names(), literals };
        let mut pieces: VecDeque<_> = encode(&format!("C{}", self.next_tag), &command, dialect).into();
        let octets = pieces.iter().map(Vec::len).sum();
        self.out.extend_from_slice(&pieces.pop_front().unwrap_or_default());
        if !pieces.is_empty() {
            self.sending = Some(Sending { tag: self.next_tag, pieces });
        }
        let command = match command {
            Command::Login { user, .. } => Command::Login { user, password: Default::default() },
            Command::Authenticate { mechanism, .. } => Command::Authenticate { mechanism, initial: None },
            other => other,
        };
        self.in_flight.push_back(InFlight { tag: self.next_tag, id, command, octets });
    }

    /// The server agrees to a literal, to IDLE, or challenges.
    pub(super) fn continuation(&mut self, text: &[u8]) -> Result<(), crate::Error> {
        if let Some(sending) = &mut self.sending {
            self.out.extend_from_slice(&sending.pieces.pop_front().unwrap_or_default());
            if sending.pieces.is_empty() {
                self.sending = None;
            }
            return Ok(());
        }
        if self.is_in_flight(|command| matches!(command, Command::Authenticate { .. })) {
            return self.challenged(text);
        }
        match self.idle {
            // Zoho tells of the mailbox before it agrees (2020); that was read as what it is.
            Idle::Asked => {
                self.idle = Idle::On;
                self.events.push_back(Event::Idling);
            }
            Idle::AskedAndDone if self.is_in_flight(|command| matches!(command, Command::Idle)) => {
                self.idle = Idle::On;
                self.end_idle();
            }
            // Nobody waits for it; nothing depends on it.
            _ => {}
        }
        self.count_unasked()
    }

    pub(super) fn end_idle(&mut self) {
        match self.idle {
            Idle::On => {
                self.idle = Idle::Ending;
                self.out.extend_from_slice(b"DONE\r\n");
            }
            Idle::Asked => self.idle = Idle::AskedAndDone,
            Idle::Off if self.queue.iter().any(|queued| matches!(queued.command, Some(Command::Idle))) => {
                self.idle = Idle::AskedAndDone;
            }
            Idle::Off | Idle::AskedAndDone | Idle::Ending => {}
        }
    }

    /// A tagged answer.
    pub(super) fn tagged(&mut self, tag: &[u8], status: StatusLine) -> Result<(), crate::Error> {
        let number = tag.strip_prefix(b"C").and_then(crate::parse::number);
        let Some(at) = self.in_flight.iter().position(|sent| Some(sent.tag) == number) else {
            return Err(crate::Error::UnknownTag { tag: super::excerpt(tag), during: self.phase() });
        };
        (self.unasked, self.fetched) = (0, 0);
        let Some(sent) = self.in_flight.remove(at) else { return Ok(()) };
        if self.sending.as_ref().is_some_and(|sending| sending.tag == sent.tag) {
            self.sending = None;
        }
        if let Some(ResponseCode::Capability(capabilities)) = &status.code {
            self.learn(capabilities.clone());
        }
        if status.code == Some(ResponseCode::Alert) {
            self.alert(&status.text);
        }
        match (sent.id, sent.command) {
            (None, command) => self.own_answer(command, status),
            (Some(id), command) => {
                self.answer(id, &command, status);
                Ok(())
            }
        }
    }

    fn answer(&mut self, id: CommandId, command: &Command, status: StatusLine) {
        let mut result = match status.condition {
            Condition::Ok => Ok(()),
            _ => Err(refusal(command.name(), status.clone())),
        };
        match command {
            Command::Idle => self.idle = Idle::Off,
            Command::Select { .. } => {
                self.uid_validity = None;
                if result.is_ok() {
                    result = self.selected(&status).map_err(|()| Refusal {
                        command: command.name(),
                        status: Status::Incomplete,
                        code: status.code.clone(),
                        text: status.text.clone(),
                    });
                }
            }
            Command::Close | Command::Unselect if result.is_ok() => self.uid_validity = None,
            Command::Logout => self.state = State::LoggedOut,
            _ => {}
        }
        self.part_done(id, status.code, result, status.text);
    }

    /// Notes the result of one command; with the last of its parts the whole is done.
    fn part_done(&mut self, id: CommandId, code: Option<ResponseCode>, result: Result<(), Refusal>, text: String) {
        let partial = self.partial(id);
        partial.codes.extend(code);
        if let Err(refusal) = result {
            partial.refusal.get_or_insert(refusal);
        }
        // Parts are queued one behind the other.
        let has_more = self.in_flight.iter().any(|sent| sent.id == Some(id))
            || self.queue.front().is_some_and(|queued| queued.id == id);
        if has_more {
            return;
        }
        let Some(at) = self.partials.iter().position(|partial| partial.id == id) else { return };
        let partial = self.partials.swap_remove(at);
        let result = match partial.refusal {
            Some(refusal) => Err(refusal),
            None => Ok(Completion { codes: partial.codes, text }),
        };
        self.events.push_back(Event::Done { command: id, result });
    }

    fn partial(&mut self, id: CommandId) -> &mut Partial {
        let at = self.partials.iter().position(|partial| partial.id == id).unwrap_or_else(|| {
            self.partials.push(Partial { id, codes: Vec::new(), refusal: None });
            self.partials.len() - 1
        });
        &mut self.partials[at]
    }

    /// COPYUID comes before the tagged answer when messages are moved (RFC 6851 §4.3).
    pub(super) fn code_of_a_copy(&mut self, code: ResponseCode) {
        let is_copy = |sent: &&InFlight| matches!(sent.command, Command::UidMove { .. } | Command::UidCopy { .. });
        if let Some(id) = self.in_flight.iter().find(is_copy).and_then(|sent| sent.id) {
            self.partial(id).codes.push(code);
        }
    }

    /// Whether a command with this name is in flight.
    pub(super) fn is_in_flight(&self, is: impl Fn(&Command) -> bool) -> bool {
        self.in_flight.iter().any(|sent| is(&sent.command))
    }

    /// A connection that ends after LOGOUT has done what LOGOUT is for.
    pub(super) fn finish_logout(&mut self) -> bool {
        let Some(at) = self.in_flight.iter().position(|sent| matches!(sent.command, Command::Logout)) else {
            return false;
        };
        if let Some(id) = self.in_flight.remove(at).and_then(|sent| sent.id) {
            self.events.push_back(Event::Done { command: id, result: Ok(Completion::default()) });
        }
        self.state = State::LoggedOut;
        true
    }
}

pub(super) fn refusal(command: &'static str, status: StatusLine) -> Refusal {
    let how = if status.condition == Condition::No { Status::No } else { Status::Bad };
    Refusal { command, status: how, code: status.code, text: status.text }
}

/// Whether nothing else may be in flight with it: it changes what other answers would mean, or how the line is used. (A
/// search behind a SELECT is the one exception.)
/// Commands by UID are safe together, also with EXPUNGE (RFC 9051 §5.5 is about sequence numbers).
fn is_alone(command: &Command) -> bool {
    !matches!(
        command,
        Command::List { .. }
            | Command::Namespace
            | Command::Status { .. }
            | Command::UidSearch { .. }
            | Command::UidFetch { .. }
            | Command::UidStore { .. }
            | Command::UidCopy { .. }
            | Command::UidMove { .. }
            | Command::UidExpunge(_)
            | Command::Noop
    )
}

/// Whether it is written the same before and after ENABLE.
fn is_plain(command: &Command) -> bool {
    match command {
        Command::List { reference, pattern, .. } => reference.is_plain() && pattern.is_plain(),
        Command::Status { mailbox, .. }
        | Command::Select { mailbox, .. }
        | Command::UidCopy { mailbox, .. }
        | Command::UidMove { mailbox, .. } => mailbox.is_plain(),
        _ => true,
    }
}
