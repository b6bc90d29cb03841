//! From the greeting to the login offer.

use connectord_wire::{Security, Step};

use super::{NEED_INPUT, Progress, Session, State, event, refusal};
use crate::parse::{self, Command, Status};
use crate::{Capabilities, Error, Event, LoginOffer, Utf8};

impl Session {
    pub(super) fn greeting(&mut self) -> Result<Progress, Error> {
        let Some(reply) = self.reply()? else { return Ok(NEED_INPUT) };
        match reply.status {
            Status::Ok => Ok(self.ask_capabilities()),
            Status::Err => Err(Error::GreetingRefused(refusal("greeting", reply.code, &reply.text))),
            Status::Continue => Err(self.unexpected(&reply.line, "a greeting")),
        }
    }

    fn ask_capabilities(&mut self) -> Progress {
        self.send(&Command::Capa);
        self.state = State::ExpectCapabilities(None);
        Progress::Again
    }

    pub(super) fn capability_reply(&mut self) -> Result<Progress, Error> {
        if matches!(self.state, State::ExpectCapabilities(None)) {
            let Some(reply) = self.reply()? else { return Ok(NEED_INPUT) };
            match reply.status {
                Status::Ok => self.state = State::ExpectCapabilities(Some(Capabilities::none())),
                // RFC 2449 §5: a server that does not know CAPA refuses it like any unknown command.
                Status::Err => return self.take_capabilities(Capabilities::unknown()),
                Status::Continue => return Err(self.unexpected(&reply.line, "+OK or -ERR")),
            }
        }
        let Some(line) = self.line()? else { return Ok(NEED_INPUT) };
        let limit = self.options.max_capabilities;
        let State::ExpectCapabilities(Some(list)) = &mut self.state else { return Ok(Progress::Again) };
        if &line[..] == b"." {
            let list = std::mem::take(list);
            return self.take_capabilities(list);
        }
        add_capability(list, &line, limit)?;
        Ok(Progress::Again)
    }

    fn take_capabilities(&mut self, capabilities: Capabilities) -> Result<Progress, Error> {
        self.capabilities = capabilities;
        if self.options.security == Security::StartTls && !self.encrypted {
            // A server that does not know CAPA may know STLS: only its answer tells.
            if self.capabilities.is_known() && !self.capabilities.has("STLS") {
                return Err(Error::StlsNotOffered);
            }
            self.send(&Command::Stls);
            self.state = State::ExpectStls;
        } else if self.options.utf8 == Utf8::AsOffered && self.capabilities.has("UTF8") {
            self.send(&Command::Utf8);
            self.state = State::ExpectUtf8;
        } else {
            return Ok(self.offer_login());
        }
        Ok(Progress::Again)
    }

    pub(super) fn stls_reply(&mut self) -> Result<Progress, Error> {
        let Some(reply) = self.reply()? else { return Ok(NEED_INPUT) };
        match reply.status {
            Status::Ok => {}
            Status::Err => return Err(Error::StlsRefused(refusal("STLS", reply.code, &reply.text))),
            Status::Continue => return Err(self.unexpected(&reply.line, "+OK or -ERR")),
        }
        if !self.inbox.is_empty() {
            return Err(Error::PlaintextAfterStartTls);
        }
        // RFC 2595 §4: what was learned before TLS may have been told by anyone.
        self.capabilities = Capabilities::unknown();
        self.state = State::Handshaking;
        Ok(Progress::Step(Step::StartTls))
    }

    pub(super) fn after_handshake(&mut self) -> Progress {
        self.encrypted = true;
        self.ask_capabilities()
    }

    pub(super) fn utf8_reply(&mut self) -> Result<Progress, Error> {
        let Some(reply) = self.reply()? else { return Ok(NEED_INPUT) };
        match reply.status {
            // Refused: the server goes on as it would for any client of RFC 1939.
            Status::Ok | Status::Err => Ok(self.offer_login()),
            Status::Continue => Err(self.unexpected(&reply.line, "+OK or -ERR")),
        }
    }

    fn offer_login(&mut self) -> Progress {
        self.state = State::Offering;
        event(Event::LoginOffered(LoginOffer {
            mechanisms: self.capabilities.sasl(),
            user: !self.capabilities.is_known() || self.capabilities.has("USER"),
            encrypted: self.encrypted,
            capabilities: self.capabilities.clone(),
        }))
    }
}

/// Adds one line of the answer to CAPA; empty ones are dropped.
pub(super) fn add_capability(list: &mut Capabilities, line: &[u8], limit: usize) -> Result<(), Error> {
    let line = line.strip_prefix(b".").unwrap_or(line);
    if let Some(capability) = parse::capability(line) {
        if list.iter().count() >= limit {
            return Err(Error::TooManyCapabilities { limit });
        }
        list.push(capability);
    }
    Ok(())
}
