//! The session: what is in flight, what the server said, what comes next.

mod login;
mod read;
mod send;
mod untagged;

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use bytes::BytesMut;
use connectord_wire::{Inbox, Machine, Secret, Security, Step};

use crate::encode::Command;
use crate::{
    Capabilities, CommandId, Error, Event, FetchItems, Flag, Flags, MailboxName, NameEncoding, Options, StatusItem,
    UidSearch, UidSet, UidValidity,
};
use read::Reading;
use send::{InFlight, Partial, Queued, Sending};
use untagged::Selecting;

/// An IMAP client session (RFC 9051, RFC 3501) for retrieval.
///
/// It greets, asks for capabilities and starts TLS by itself, offers the login, then does what is queued. Methods that
/// return a [`CommandId`] queue a command and return at once; call [`poll`](Machine::poll) after them. Commands are sent
/// in the order of the calls, several at a time where that is safe, and each ends with one [`Event::Done`]. Commands
/// queued before the login wait for it.
///
/// ```
/// use std::time::Instant;
/// use connectord_imap::{Event, Options, Session};
/// use connectord_wire::{Machine, Security, Step};
///
/// let mut options = Options::default();
/// options.security = Security::None;
/// let mut session = Session::new(options);
/// let now = Instant::now();
///
/// session.receive(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n");
/// let Ok(Step::Event(Event::LoginOffered(offer))) = session.poll(now) else { panic!() };
/// assert!(offer.login && !offer.encrypted);
///
/// session.login("ann", &"secret".into());
/// let Ok(Step::Transmit(octets)) = session.poll(now) else { panic!() };
/// assert_eq!(&octets[..], b"C1 LOGIN \"ann\" \"secret\"\r\n");
///
/// session.receive(b"C1 OK [CAPABILITY IMAP4rev1 IDLE] welcome\r\n");
/// let Ok(Step::Event(Event::LoggedIn { capabilities })) = session.poll(now) else { panic!() };
/// assert!(capabilities.has("IDLE"));
/// ```
pub struct Session {
    options: Options,
    inbox: Inbox,
    out: BytesMut,
    events: VecDeque<Event>,
    state: State,
    reading: Reading,
    failed: Option<Error>,

    queue: VecDeque<Queued>,
    sending: Option<Sending>,
    in_flight: VecDeque<InFlight>,
    next_tag: u64,
    next_id: u64,

    capabilities: Capabilities,
    /// Whether the server has told its capabilities since the state last changed.
    capabilities_fresh: bool,
    enabled: Capabilities,
    /// A SASL initial response that waits for the first, empty challenge.
    initial: Option<Secret>,
    /// What the SELECT in flight has told so far.
    selecting: Selecting,
    uid_validity: Option<UidValidity>,
    idle: Idle,
    /// Of commands that were sent in several parts; as many as are in flight.
    partials: Vec<Partial>,
    listed: u32,
    found: u64,
    fetched: u32,
    unasked: u32,
}

/// Named for what must come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ExpectGreeting,
    /// Plaintext; only STARTTLS may follow.
    ExpectStartTls,
    /// The driver shakes hands.
    ExpectHandshake,
    /// Finding out what the server can do before the login.
    ExpectCapabilities,
    /// The caller's turn.
    ExpectLogin,
    ExpectLoginAnswer,
    /// Logged in; finding out what the server can do now.
    ExpectCapabilitiesAfterLogin,
    LoggedIn,
    LoggedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    Off,
    /// Sent, not agreed to.
    Asked,
    /// Sent, not agreed to, and to be ended.
    AskedAndDone,
    On,
    /// DONE was sent.
    Ending,
}

impl Session {
    /// Starts by waiting for the greeting.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            inbox: Inbox::new(),
            out: BytesMut::new(),
            events: VecDeque::new(),
            state: State::ExpectGreeting,
            reading: Reading::Start,
            failed: None,
            queue: VecDeque::new(),
            sending: None,
            in_flight: VecDeque::new(),
            next_tag: 0,
            next_id: 0,
            capabilities: Capabilities::default(),
            capabilities_fresh: false,
            enabled: Capabilities::default(),
            initial: None,
            selecting: Selecting::default(),
            uid_validity: None,
            idle: Idle::Off,
            partials: Vec::new(),
            listed: 0,
            found: 0,
            fetched: 0,
            unasked: 0,
        }
    }

    /// What the server can do, as far as it has said; empty before the greeting.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether an extension can be used now: offered, or a part of the IMAP4rev2 in use (RFC 9051 appendix E).
    pub fn offers(&self, extension: &str) -> bool {
        const IN_REV2: [&str; 15] = [
            "NAMESPACE",
            "UNSELECT",
            "UIDPLUS",
            "ESEARCH",
            "SEARCHRES",
            "ENABLE",
            "IDLE",
            "SASL-IR",
            "LIST-EXTENDED",
            "LIST-STATUS",
            "MOVE",
            "LITERAL-",
            "SPECIAL-USE",
            "STATUS=SIZE",
            "STATUS=DELETED",
        ];
        let is_rev2 = self.capabilities.has_rev2() && (!self.capabilities.has_rev1() || self.enabled.has_rev2());
        self.capabilities.has(extension) || (is_rev2 && IN_REV2.iter().any(|name| extension.eq_ignore_ascii_case(name)))
    }

    /// Logs in with LOGIN (RFC 9051 §6.2.3) after [`Event::LoginOffered`] or [`Event::LoginRefused`]. Any UTF-8 is sent,
    /// quoted or as a literal; a NUL octet, and a server with LOGINDISABLED, are [`Error::Misuse`].
    pub fn login(&mut self, user: &str, password: &Secret) {
        if user.contains('\0') || password.expose().contains(&0) {
            return self.misuse("LOGIN with a NUL octet in the user name or password");
        }
        if self.capabilities.has("LOGINDISABLED") {
            return self.misuse("LOGIN although the server disabled it");
        }
        self.begin_login(Command::Login { user: user.into(), password: password.clone() });
    }

    /// Logs in with a SASL mechanism (RFC 9051 §6.2.2). With an `initial` response and no SASL-IR, it is sent as the
    /// answer to the first challenge, which is not shown then.
    pub fn authenticate(&mut self, mechanism: &str, initial: Option<Secret>) {
        let is_name = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        if mechanism.is_empty() || mechanism.len() > 20 || !mechanism.bytes().all(is_name) {
            return self.misuse("AUTHENTICATE with a mechanism that is no SASL name");
        }
        self.begin_login(Command::Authenticate { mechanism: mechanism.to_ascii_uppercase(), initial });
    }

    /// Answers an [`Event::Challenge`]; encoded here.
    pub fn respond(&mut self, response: Secret) {
        self.send_sasl(&response);
    }

    /// Gives the SASL exchange up (RFC 9051 §6.2.2); the server answers with a refusal.
    pub fn cancel_sasl(&mut self) {
        self.send_sasl_cancel();
    }

    /// Lists mailboxes whose names match `pattern` (`*`: any characters, `%`: within one level) below `reference`.
    /// Each is an [`Event::Listed`].
    pub fn list(&mut self, reference: &str, pattern: &str) -> CommandId {
        self.queue_list(reference, pattern, false)
    }

    /// Like [`Session::list`], and asks for special uses where the server has to be asked (RFC 6154 §5). Servers with
    /// SPECIAL-USE but without LIST-EXTENDED (Gmail, 2024) tell them in a plain LIST.
    pub fn list_special_use(&mut self, reference: &str, pattern: &str) -> CommandId {
        self.queue_list(reference, pattern, true)
    }

    /// Asks for the namespaces: [`Event::Namespaces`].
    pub fn namespace(&mut self) -> CommandId {
        self.queue(Command::Namespace)
    }

    /// Asks for numbers of a mailbox without opening it: [`Event::MailboxStatus`]. Not for the selected one. Items the
    /// server does not know are not asked for.
    pub fn status(&mut self, mailbox: &MailboxName, items: &[StatusItem]) -> CommandId {
        if items.is_empty() {
            self.misuse("STATUS without items");
        }
        self.queue(Command::Status { mailbox: mailbox.clone(), items: items.into() })
    }

    /// Opens a mailbox read-only: [`Event::Selected`].
    pub fn examine(&mut self, mailbox: &MailboxName) -> CommandId {
        self.queue(Command::Select { mailbox: mailbox.clone(), read_only: true })
    }

    /// Opens a mailbox: [`Event::Selected`]. A refusal leaves no mailbox open.
    pub fn select(&mut self, mailbox: &MailboxName) -> CommandId {
        self.queue(Command::Select { mailbox: mailbox.clone(), read_only: false })
    }

    /// Closes the mailbox. After [`Session::select`] this **removes every message with `\Deleted`**, whoever set it
    /// (RFC 9051 §6.4.1); [`Session::unselect`] does not.
    pub fn close(&mut self) -> CommandId {
        self.queue(Command::Close)
    }

    /// Closes the mailbox and removes nothing (RFC 3691).
    pub fn unselect(&mut self) -> CommandId {
        self.queue(Command::Unselect)
    }

    /// Searches the open mailbox: [`Event::Found`], any number of times. Queued right behind [`Session::select`] or
    /// [`Session::examine`] it is sent together with it, which saves a round trip; it is refused when that is.
    pub fn uid_search(&mut self, search: UidSearch) -> CommandId {
        self.check_flags(&search.with);
        self.check_flags(&search.without);
        self.queue(Command::UidSearch { search, extended: false })
    }

    /// Fetches from the open mailbox without setting `\Seen`: [`Event::Fetched`] for each message that is still there,
    /// bodies streamed before it. A long set is sent as several commands; one refusal refuses the whole, though some
    /// messages may have come.
    pub fn uid_fetch(&mut self, uids: &UidSet, items: FetchItems) -> CommandId {
        self.queue_set(uids, |uids| Command::UidFetch { uids, items })
    }

    /// Adds flags to messages, silently. A refusal may come after some of the messages have them.
    pub fn uid_store_add_flags(&mut self, uids: &UidSet, flags: &Flags) -> CommandId {
        self.check_flags(flags);
        self.queue_set(uids, |uids| Command::UidStore { uids, flags: flags.clone() })
    }

    /// Removes those of these messages that have `\Deleted` (RFC 4315); refused as not offered without UIDPLUS.
    pub fn uid_expunge(&mut self, uids: &UidSet) -> CommandId {
        self.queue_set(uids, Command::UidExpunge)
    }

    /// Removes **every message with `\Deleted`**, also those that another client marked: prefer
    /// [`Session::uid_expunge`].
    pub fn expunge(&mut self) -> CommandId {
        self.queue(Command::Expunge)
    }

    /// Moves messages (RFC 6851); refused as not offered without MOVE: then copy, store `\Deleted`, expunge.
    pub fn uid_move(&mut self, uids: &UidSet, mailbox: &MailboxName) -> CommandId {
        self.queue_set(uids, |uids| Command::UidMove { uids, mailbox: mailbox.clone() })
    }

    /// Copies messages; each command copies all or none of its part of the set (RFC 9051 §6.4.7).
    pub fn uid_copy(&mut self, uids: &UidSet, mailbox: &MailboxName) -> CommandId {
        self.queue_set(uids, |uids| Command::UidCopy { uids, mailbox: mailbox.clone() })
    }

    /// Does nothing, but lets the server tell what changed, and shows that it is alive.
    pub fn noop(&mut self) -> CommandId {
        self.queue(Command::Noop)
    }

    /// Waits for changes (RFC 2177): [`Event::Idling`], then [`Event::Exists`] and the like as they happen, until
    /// [`Session::idle_done`]. Other commands wait meanwhile. When to end it is the caller's: servers close after 30
    /// minutes, and address translators forget a silent connection much earlier.
    pub fn idle(&mut self) -> CommandId {
        self.queue(Command::Idle)
    }

    /// Ends IDLE, now or as soon as it begins; does nothing when none was queued.
    pub fn idle_done(&mut self) {
        self.end_idle();
    }

    /// Says goodbye; when it is done the connection can be closed. A server that closes at once is fine too.
    pub fn logout(&mut self) -> CommandId {
        self.queue(Command::Logout)
    }

    fn misuse(&mut self, what: &'static str) {
        self.failed.get_or_insert(Error::Misuse { what });
    }

    fn check_flags(&mut self, flags: &Flags) {
        let is_settable =
            |flag: &Flag| *flag != Flag::Any && Flag::parse(flag.to_string().as_bytes()).as_ref() == Some(flag);
        if !flags.iter().all(is_settable) {
            self.misuse("a flag that is no flag");
        }
    }

    /// How mailbox names are written now.
    fn names(&self) -> NameEncoding {
        let is_utf8 = self.enabled.has("UTF8=ACCEPT")
            || self.enabled.has_rev2()
            || (self.capabilities.has_rev2() && !self.capabilities.has_rev1());
        if is_utf8 { NameEncoding::Utf8 } else { NameEncoding::Utf7 }
    }

    fn is_encrypted(&self) -> bool {
        self.options.security != Security::None && !matches!(self.state, State::ExpectStartTls | State::ExpectHandshake)
    }
}

impl Machine for Session {
    type Event = Event;
    type Error = Error;

    fn receive(&mut self, octets: &[u8]) {
        self.inbox.extend(octets);
    }

    fn poll(&mut self, _now: Instant) -> Result<Step<Event>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Step::Event(event));
            }
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            if self.state == State::ExpectHandshake {
                return self.start_tls().map_err(|error| self.fail(error));
            }
            self.pump();
            if !self.out.is_empty() {
                return Ok(Step::Transmit(self.out.split().freeze()));
            }
            if !self.events.is_empty() || self.failed.is_some() {
                continue;
            }
            match self.read() {
                Ok(true) => {}
                Ok(false) if self.inbox.is_closed() && self.state != State::LoggedOut => self.closed(),
                Ok(false) => return Ok(Step::NeedInput),
                Err(error) => {
                    self.fail(error);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// False while the caller has nothing in flight, and during IDLE; true in the middle of a response.
    fn awaiting(&self) -> bool {
        match self.state {
            State::LoggedOut | State::ExpectHandshake => false,
            _ if !self.is_between_responses() => true,
            _ if self.idle == Idle::On => false,
            State::ExpectLogin | State::LoggedIn => !self.in_flight.is_empty(),
            _ => true,
        }
    }

    fn phase(&self) -> &'static str {
        match self.state {
            _ if self.is_reading_body() => "receiving a message",
            State::ExpectGreeting => "receiving the greeting",
            State::ExpectStartTls => "starting TLS",
            State::ExpectHandshake => "shaking hands for TLS",
            State::ExpectCapabilities => "asking for capabilities",
            State::ExpectLogin => "waiting for the caller to log in",
            State::ExpectLoginAnswer => "logging in",
            State::ExpectCapabilitiesAfterLogin => "asking for capabilities after the login",
            State::LoggedOut => "logged out",
            State::LoggedIn => match self.in_flight.front() {
                Some(command) => command.phase(),
                None => "waiting for the caller's commands",
            },
        }
    }

    fn confidential(&self) -> bool {
        self.state == State::ExpectLoginAnswer
    }
}

impl Session {
    fn fail(&mut self, error: Error) -> Error {
        // What was understood before the error still comes out first.
        self.failed.get_or_insert(error).clone()
    }

    /// Nothing more will come.
    fn closed(&mut self) {
        if self.is_between_responses() && self.finish_logout() {
            return;
        }
        let during = self.phase();
        self.fail(Error::Closed { during });
    }

    /// The octets behind STARTTLS's answer are the server's TLS, or an attack (CVE-2020-14954).
    fn start_tls(&mut self) -> Result<Step<Event>, Error> {
        if !self.inbox.is_empty() {
            return Err(Error::PlaintextAfterStartTls { octets: self.inbox.len() });
        }
        if self.inbox.is_closed() {
            return Err(Error::Closed { during: self.phase() });
        }
        self.secured();
        Ok(Step::StartTls)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is to be sent may be a password.
        f.debug_struct("Session")
            .field("state", &self.state)
            .field("phase", &self.phase())
            .field("in_flight", &self.in_flight.len())
            .field("queued", &self.queue.len())
            .finish_non_exhaustive()
    }
}

/// Octets for an error: enough to recognise, no more.
fn excerpt(octets: &[u8]) -> Vec<u8> {
    octets[..octets.len().min(200)].to_vec()
}
