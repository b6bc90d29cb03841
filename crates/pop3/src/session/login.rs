//! USER and PASS, and SASL.

use connectord_wire::Secret;

use super::{NEED_INPUT, Progress, Session, State, cut, event, refusal};
use crate::encode;
use crate::parse::{self, Auth, Command, Status};
use crate::{Error, Event, InitialResponse};

/// Longest AUTH line with an initial response, in octets with its CRLF (RFC 5034 §4).
const MAX_AUTH_LINE: usize = 255;

const NO_LOGIN_DUE: Error = Error::Misuse("a login that is not due");
const NO_CHALLENGE: Error = Error::Misuse("a SASL response without a challenge");

impl Session {
    pub(super) fn start_user_pass(&mut self, user: &str, password: &Secret) -> Result<(), Error> {
        if !matches!(self.state, State::Offering) {
            return Err(NO_LOGIN_DUE);
        }
        if user.is_empty() || password.is_empty() {
            return Err(Error::Misuse("an empty user name or password"));
        }
        // A line end would smuggle a command in.
        let breaks_line = |octets: &[u8]| octets.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0));
        if breaks_line(user.as_bytes()) || breaks_line(password.expose()) {
            return Err(Error::Misuse("CR, LF or NUL in a user name or password"));
        }
        self.send(&Command::User(user.as_bytes().into()));
        self.state = State::ExpectUser(password.clone());
        Ok(())
    }

    pub(super) fn start_authenticate(&mut self, mechanism: &str, initial: Option<Secret>) -> Result<(), Error> {
        if !matches!(self.state, State::Offering) {
            return Err(NO_LOGIN_DUE);
        }
        if !(1..=20).contains(&mechanism.len()) || !mechanism.bytes().all(parse::is_mechanism) {
            return Err(Error::Misuse("a SASL mechanism name that is none"));
        }
        let encoded = initial.as_ref().map_or(0, |initial| encode::base64_length(initial.expose()).max(1));
        let fits = "AUTH  \r\n".len() + mechanism.len() + encoded <= MAX_AUTH_LINE;
        let (with_command, later) = match self.options.initial_response {
            InitialResponse::InCommand if fits => (initial, None),
            _ => (None, initial),
        };
        self.send(&Command::Auth(Box::new(Auth { mechanism: mechanism.to_ascii_uppercase(), initial: with_command })));
        self.state = State::ExpectAuth { initial: later };
        Ok(())
    }

    pub(super) fn send_response(&mut self, response: &Secret) -> Result<(), Error> {
        if !matches!(self.state, State::Challenged) {
            return Err(NO_CHALLENGE);
        }
        self.outbox.0 = Some(encode::response(response));
        self.state = State::ExpectAuth { initial: None };
        Ok(())
    }

    pub(super) fn send_cancel(&mut self) -> Result<(), Error> {
        if !matches!(self.state, State::Challenged) {
            return Err(NO_CHALLENGE);
        }
        self.outbox.0 = Some(bytes::Bytes::from_static(b"*\r\n"));
        self.state = State::ExpectCancelled;
        Ok(())
    }

    pub(super) fn login_reply(&mut self) -> Result<Progress, Error> {
        let Some(reply) = self.reply()? else { return Ok(NEED_INPUT) };
        let during = match self.state {
            State::ExpectUser(_) => "USER",
            State::ExpectPass => "PASS",
            _ => "AUTH",
        };
        match (&mut self.state, reply.status) {
            (_, Status::Err) => {
                self.state = State::Offering;
                Ok(event(Event::LoginRefused(refusal(during, reply.code, &reply.text))))
            }
            (State::ExpectUser(password), Status::Ok) => {
                let password = std::mem::take(password);
                self.send(&Command::Pass(password));
                self.state = State::ExpectPass;
                Ok(Progress::Again)
            }
            (State::ExpectPass | State::ExpectAuth { .. }, Status::Ok) => {
                self.state = State::Transaction;
                Ok(event(Event::LoggedIn))
            }
            (State::ExpectAuth { initial }, Status::Continue) => {
                // The server's first turn in a mechanism that the client begins: what it says there does not matter, and
                // some say text that is not base64.
                if let Some(initial) = initial.take() {
                    self.outbox.0 = Some(encode::response(&initial));
                    return Ok(Progress::Again);
                }
                match parse::base64(&reply.text) {
                    Some(challenge) => {
                        self.state = State::Challenged;
                        Ok(event(Event::Challenge(challenge)))
                    }
                    None => Err(Error::Challenge { found: cut(&reply.line) }),
                }
            }
            (State::ExpectCancelled, _) => Err(self.unexpected(&reply.line, "-ERR, as the mechanism was given up")),
            (_, Status::Ok | Status::Continue) => Err(self.unexpected(&reply.line, "+OK or -ERR")),
        }
    }
}
