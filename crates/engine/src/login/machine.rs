use std::fmt;

use connectord_net as net;
use connectord_wire::{Machine, Secret};

use super::LoginRefusal;
use crate::trouble::RunError;

/// What a session says until it is logged in.
pub(crate) enum LoginStep {
    Offered(Offer),
    Challenge(Vec<u8>),
    Refused(LoginRefusal),
    LoggedIn,
    Other,
}

/// What a server lets us log in by.
pub(crate) struct Offer {
    pub(super) mechanisms: Vec<String>,
    /// USER and PASS, or LOGIN.
    pub(super) plain: bool,
    pub(super) encrypted: bool,
}

/// What both sessions can do towards a login.
pub(crate) trait LoginMachine: Machine<Error: fmt::Debug> + Sized
where
    RunError: From<net::Error<Self::Error>>,
{
    fn step(event: Self::Event) -> LoginStep;
    fn plain(&mut self, user: &str, password: &Secret) -> Result<(), Self::Error>;
    fn start(&mut self, mechanism: &str, initial: Option<Secret>) -> Result<(), Self::Error>;
    fn answer(&mut self, response: Secret) -> Result<(), Self::Error>;
    fn cancel(&mut self) -> Result<(), Self::Error>;
}

impl LoginMachine for connectord_pop3::Session {
    fn step(event: Self::Event) -> LoginStep {
        use connectord_pop3::Event;
        match event {
            Event::LoginOffered(offer) => LoginStep::Offered(Offer {
                mechanisms: offer.mechanisms,
                plain: offer.user,
                encrypted: offer.encrypted,
            }),
            Event::Challenge(challenge) => LoginStep::Challenge(challenge),
            Event::LoginRefused(refusal) => LoginStep::Refused(LoginRefusal::of_pop3(&refusal)),
            Event::LoggedIn => LoginStep::LoggedIn,
            _ => LoginStep::Other,
        }
    }

    fn plain(&mut self, user: &str, password: &Secret) -> Result<(), Self::Error> {
        self.user_pass(user, password)
    }

    fn start(&mut self, mechanism: &str, initial: Option<Secret>) -> Result<(), Self::Error> {
        self.authenticate(mechanism, initial)
    }

    fn answer(&mut self, response: Secret) -> Result<(), Self::Error> {
        self.respond(response)
    }

    fn cancel(&mut self) -> Result<(), Self::Error> {
        self.cancel_sasl()
    }
}

impl LoginMachine for connectord_imap::Session {
    fn step(event: Self::Event) -> LoginStep {
        use connectord_imap::Event;
        match event {
            Event::LoginOffered(offer) => LoginStep::Offered(Offer {
                mechanisms: offer.mechanisms,
                plain: offer.login,
                encrypted: offer.encrypted,
            }),
            Event::Challenge(challenge) => LoginStep::Challenge(challenge),
            Event::LoginRefused(refusal) => LoginStep::Refused(LoginRefusal::of_imap(&refusal)),
            Event::LoggedIn { .. } => LoginStep::LoggedIn,
            _ => LoginStep::Other,
        }
    }

    fn plain(&mut self, user: &str, password: &Secret) -> Result<(), Self::Error> {
        self.login(user, password);
        Ok(())
    }

    fn start(&mut self, mechanism: &str, initial: Option<Secret>) -> Result<(), Self::Error> {
        self.authenticate(mechanism, initial);
        Ok(())
    }

    fn answer(&mut self, response: Secret) -> Result<(), Self::Error> {
        self.respond(response);
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), Self::Error> {
        self.cancel_sasl();
        Ok(())
    }
}
