//! From the greeting to the login: capabilities, STARTTLS, SASL, and what is enabled afterwards.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use connectord_wire::{Machine, Secret, Security};

use super::send::refusal;
use super::{Session, State, excerpt};
use crate::encode::Command;
use crate::parse::response::{Condition, StatusLine};
use crate::{Capabilities, Error, Event, LoginOffer, ResponseCode};

/// Some servers forget the padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl Session {
    /// The first response of all.
    pub(super) fn greeted(&mut self, status: StatusLine) -> Result<(), Error> {
        if let Some(ResponseCode::Capability(capabilities)) = &status.code {
            self.learn(capabilities.clone());
        }
        let is_preauth = match status.condition {
            Condition::Ok => false,
            Condition::PreAuth if self.options.security == Security::StartTls => return Err(Error::PreauthBeforeTls),
            Condition::PreAuth if !self.options.allow_preauth => return Err(Error::Preauth),
            Condition::PreAuth => true,
            _ => {
                let during = self.phase();
                return Err(Error::Bye { code: status.code, text: status.text, during });
            }
        };
        self.state = match self.options.security {
            _ if is_preauth => State::ExpectCapabilitiesAfterLogin,
            Security::StartTls => State::ExpectStartTls,
            Security::Tls | Security::None => State::ExpectCapabilities,
        };
        if status.code == Some(ResponseCode::Alert) {
            self.alert(&status.text);
        }
        self.know_capabilities()
    }

    pub(super) fn learn(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
        self.capabilities_fresh = true;
    }

    /// Goes on if the server has told what it can do, else asks.
    fn know_capabilities(&mut self) -> Result<(), Error> {
        if !self.capabilities_fresh {
            self.send(None, Command::Capability);
            return Ok(());
        }
        match self.state {
            State::ExpectStartTls if self.capabilities.has("STARTTLS") => self.send(None, Command::StartTls),
            State::ExpectStartTls => return Err(Error::NotOffered { what: "STARTTLS" }),
            State::ExpectCapabilitiesAfterLogin => self.logged_in(),
            _ => self.offer_login(),
        }
        Ok(())
    }

    /// The handshake is about to happen: what was learnt in plaintext is void (RFC 9051 §6.2.1).
    pub(super) fn secured(&mut self) {
        self.capabilities = Capabilities::default();
        self.enabled = Capabilities::default();
        self.state = State::ExpectCapabilities;
        self.send(None, Command::Capability);
    }

    fn offer_login(&mut self) {
        self.state = State::ExpectLogin;
        self.events.push_back(Event::LoginOffered(LoginOffer {
            mechanisms: self.capabilities.mechanisms().map(Into::into).collect(),
            login: !self.capabilities.has("LOGINDISABLED"),
            encrypted: self.is_encrypted(),
            sasl_ir: self.offers("SASL-IR"),
            capabilities: self.capabilities.clone(),
        }));
    }

    pub(super) fn begin_login(&mut self, mut command: Command) {
        if self.state != State::ExpectLogin || !self.in_flight.is_empty() {
            return self.misuse("a login that was not offered");
        }
        self.initial = None;
        let sasl_ir = self.offers("SASL-IR");
        if let Command::Authenticate { initial, .. } = &mut command
            && !sasl_ir
        {
            self.initial = initial.take();
        }
        self.state = State::ExpectLoginAnswer;
        self.capabilities_fresh = false;
        self.send(None, command);
    }

    /// A continuation during AUTHENTICATE.
    pub(super) fn challenged(&mut self, text: &[u8]) -> Result<(), Error> {
        // Without SASL-IR the first challenge is empty, or words that mean nothing (Exchange).
        if let Some(initial) = self.initial.take() {
            self.send_sasl(&initial);
            return Ok(());
        }
        let text = text.trim_ascii();
        let challenge = LENIENT.decode(text).map_err(|_| Error::Syntax {
            expected: "a challenge in base64",
            during: self.phase(),
            found: excerpt(text),
        })?;
        self.events.push_back(Event::Challenge(challenge));
        Ok(())
    }

    pub(super) fn send_sasl(&mut self, response: &Secret) {
        self.send_sasl_line(&Secret::from(STANDARD.encode(response.expose())));
    }

    pub(super) fn send_sasl_cancel(&mut self) {
        self.send_sasl_line(&Secret::from("*"));
    }

    fn send_sasl_line(&mut self, line: &Secret) {
        if !self.is_in_flight(|command| matches!(command, Command::Authenticate { .. })) {
            return self.misuse("a SASL response without a challenge");
        }
        self.out.extend_from_slice(line.expose());
        self.out.extend_from_slice(b"\r\n");
    }

    /// The answer to a command of the session's own.
    pub(super) fn own_answer(&mut self, command: Command, status: StatusLine) -> Result<(), Error> {
        let is_ok = status.condition == Condition::Ok;
        match command {
            // A server that cannot say what it can do can do nothing but the basics.
            Command::Capability => {
                self.capabilities_fresh = true;
                self.know_capabilities()
            }
            Command::StartTls if is_ok => {
                self.state = State::ExpectHandshake;
                self.capabilities_fresh = false;
                Ok(())
            }
            Command::StartTls => Err(Error::StartTlsRefused(refusal("STARTTLS", status))),
            Command::Login { .. } | Command::Authenticate { .. } if is_ok => {
                self.initial = None;
                self.state = State::ExpectCapabilitiesAfterLogin;
                self.know_capabilities()
            }
            Command::Login { .. } | Command::Authenticate { .. } => {
                self.initial = None;
                self.state = State::ExpectLogin;
                self.events.push_back(Event::LoginRefused(refusal(command.name(), status)));
                Ok(())
            }
            // ENABLE and ID: whatever they did not do is not needed. mail.de offers ID and answers BAD (2024).
            _ => Ok(()),
        }
    }

    fn logged_in(&mut self) {
        self.state = State::LoggedIn;
        self.events.push_back(Event::LoggedIn { capabilities: self.capabilities.clone() });
        let offers = |name| self.capabilities.has(name);
        let mut names = Vec::new();
        if self.options.enable_rev2 && self.capabilities.has_rev1() && self.capabilities.has_rev2() {
            names.push("IMAP4rev2".to_owned());
        }
        if self.options.enable_utf8 && (offers("UTF8=ACCEPT") || offers("UTF8=ONLY")) {
            names.push("UTF8=ACCEPT".to_owned());
        }
        let (enables, has_id) = (offers("ENABLE") && !names.is_empty(), offers("ID"));
        if enables {
            self.send(None, Command::Enable(names));
        }
        // RFC 2971 §3.3: at most 30 fields, names of 30 and values of 1,024 octets.
        let fits = |(name, value): &&(String, String)| name.len() <= 30 && value.len() <= 1024 && !value.contains('\0');
        let fields: Vec<_> = self.options.id.iter().filter(fits).take(30).cloned().collect();
        if has_id && !fields.is_empty() && self.sending.is_none() {
            self.send(None, Command::Id(fields));
        }
    }

    /// Text that must reach the user; not from before TLS, when anybody could have written it.
    pub(super) fn alert(&mut self, text: &str) {
        let is_authentic =
            !matches!(self.state, State::ExpectStartTls | State::ExpectHandshake | State::ExpectGreeting)
                || self.options.security != Security::StartTls;
        if is_authentic {
            self.events.push_back(Event::Alert(text.to_owned()));
        }
    }
}
