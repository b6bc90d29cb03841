use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connectord_delivery::{Failure, FailureKind, Outcome};
use connectord_lmtp::{Address, Capabilities, Reply, encode};
use connectord_mail::Status;
use connectord_net::{Connector, Route};
use connectord_wire::{Escaped, Security};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::{ClientId, Extension};
use lettre::transport::smtp::response::Response;

use super::crlf::Crlf;
use super::wire::{Control, Wire};
use super::{Login, Options, starttls};
use crate::lmtp::connection::unreadable;
use crate::lmtp::link::{Begun, Link};
use crate::lmtp::refusal::{Stage, is_about_the_senders_address, refusal, with_causes};
use crate::lmtp::transaction::{Envelope, Pieces, Transaction};

/// How long a farewell may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// What it takes to open a connection.
pub(super) struct Settings {
    pub(super) options: Options,
    pub(super) connector: Connector,
}

/// One connection, past EHLO and AUTH.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
    control: Arc<Control>,
    /// For messages to people: `SMTP server 127.0.0.1:25`.
    server: String,
    reply: Duration,
    final_reply: Duration,
    answered: bool,
}

#[async_trait]
impl Link for Connection {
    type Settings = Settings;

    async fn open(Settings { options, connector }: &Settings) -> Result<Self, Failure> {
        let server = format!("SMTP server {}", options.endpoint);
        let mut route = Route::new(options.endpoint.clone(), options.security);
        route.tls = options.tls.clone();
        route.proxy = options.proxy.clone();
        route.timeouts.connect = options.connect;
        let mut stream = connector.connect(&route).await.map_err(|error| unconnected(&server, &error))?;
        let host_name = host_name(&options.host_name);
        let mut greeting: &[u8] = b"";
        if options.security == Security::StartTls {
            stream = starttls::ask(stream, &server, &host_name, options.reply).await?;
            stream = stream.start_tls(&route.timeouts).await.map_err(|error| unconnected(&server, &error))?;
            // lettre waits for a greeting, and after STARTTLS there is none (RFC 3207 §4.2).
            greeting = b"220 TLS\r\n";
        }
        let encrypted = stream.tls().is_some();
        let control = Control::new(options.reply);
        let wire = Box::new(Wire::new(stream, greeting, control.clone()));
        let smtp = AsyncSmtpConnection::connect_with_transport(wire, &ClientId::Domain(host_name))
            .await
            .map_err(|error| refused_entry(&server, "EHLO", &error))?;
        let (reply, final_reply) = (options.reply, options.final_reply);
        let mut connection = Self { smtp, control, server, reply, final_reply, answered: false };
        if let Some(login) = &options.login {
            if !encrypted && options.security != Security::None {
                let text = format!("{}: no password is sent without TLS", connection.server);
                return Err(Failure::new(FailureKind::Misconfigured, text));
            }
            connection.log_in(login).await?;
        }
        Ok(connection)
    }

    async fn begin(&mut self, envelope: &Envelope) -> Result<Begun, Failure> {
        self.answered = false;
        self.control.begin();
        self.control.limit(self.reply);
        let utf8 = self.smtp.server_info().supports_feature(Extension::SmtpUtfEight);
        let needs_utf8 = envelope.recipients.iter().any(|recipient| !recipient.is_ascii());
        if needs_utf8 && !utf8 {
            let text = format!("{} does not offer SMTPUTF8, which the recipient's address needs", self.server);
            let failure = Failure::new(FailureKind::Misconfigured, text);
            return Ok(Begun::Answered(envelope.recipients.iter().map(|_| Err(failure.clone())).collect()));
        }
        let mut sender = envelope.reverse_path.clone();
        if !utf8 && !sender.is_ascii() {
            sender = Address::null();
        }
        loop {
            let utf8 = needs_utf8 || !sender.is_ascii();
            let mail = encode::mail(&sender, envelope.size_octets, utf8, &self.offered());
            match self.say(mail, "MAIL FROM").await? {
                Ok(_) => break,
                Err(reply) if !sender.is_null() && is_about_the_senders_address(&reply) => sender = Address::null(),
                Err(reply) => return Ok(Begun::SenderRefused(refusal(Stage::Sender, &self.server, &reply))),
            }
        }
        let mut results = Vec::with_capacity(envelope.recipients.len());
        for recipient in &envelope.recipients {
            let answer = self.say(encode::rcpt(recipient), "RCPT TO").await?;
            results.push(answer.map(drop).map_err(|reply| refusal(Stage::Recipient, &self.server, &reply)));
        }
        Ok(Begun::Answered(results))
    }

    async fn send(&mut self, transaction: &Transaction, accepted: &[usize]) -> Vec<(usize, Outcome)> {
        let outcome = self.send_message(transaction.pieces()).await;
        accepted.iter().map(|index| (*index, outcome.clone())).collect()
    }

    async fn reset(&mut self) -> Result<(), Failure> {
        match self.say(b"RSET\r\n".to_vec(), "RSET").await? {
            Ok(_) => Ok(()),
            Err(reply) => Err(refusal(Stage::Data, &self.server, &reply)),
        }
    }

    fn is_reusable(&mut self) -> bool {
        self.answered && !self.smtp.has_broken()
    }

    async fn close(mut self) {
        self.control.limit(GOODBYE);
        // The server's farewell changes nothing. `abort` would say QUIT once more.
        let _ = self.smtp.quit().await;
    }
}

impl Connection {
    async fn log_in(&mut self, login: &Login) -> Result<(), Failure> {
        let Ok(password) = std::str::from_utf8(login.password.expose()) else {
            return Err(Failure::new(FailureKind::Misconfigured, format!("password for {} is not UTF-8", self.server)));
        };
        let credentials = Credentials::new(login.username.clone(), password.to_owned());
        match self.smtp.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_client() => {
                let text = format!("{} offers neither AUTH PLAIN nor AUTH LOGIN", self.server);
                Err(Failure::new(FailureKind::Misconfigured, text))
            }
            Err(error) => Err(refused_entry(&self.server, "AUTH", &error)),
        }
    }

    /// What the server offers, as far as lettre tells.
    fn offered(&self) -> Capabilities {
        let info = self.smtp.server_info();
        let mut offered = Capabilities::default();
        offered.eight_bit_mime = info.supports_feature(Extension::EightBitMime);
        offered.smtp_utf8 = info.supports_feature(Extension::SmtpUtfEight);
        offered
    }

    /// Sends a command line. The outer error says that the connection is of no use.
    async fn say(&mut self, line: Vec<u8>, command: &str) -> Result<Result<Reply, Reply>, Failure> {
        let line = String::from_utf8(line).unwrap_or_default();
        match self.smtp.command(line).await {
            Ok(response) => Ok(Ok(said(&response))),
            Err(error) => match refused(&error) {
                Some(reply) if reply.code == 421 => {
                    let text = format!("{} answered \"{reply}\" (during {command})", self.server);
                    Err(Failure::new(FailureKind::Unavailable, text).with_status(reply.status))
                }
                Some(reply) => Ok(Err(reply)),
                None => Err(broken(FailureKind::Unavailable, &self.server, command, &error)),
            },
        }
    }

    async fn send_message(&mut self, pieces: Pieces) -> Outcome {
        match self.say(b"DATA\r\n".to_vec(), "DATA").await {
            Ok(Ok(reply)) if reply.code == 354 => {}
            Ok(Ok(reply)) => {
                let text = format!("{} answered \"{reply}\", expected 354 (during DATA)", self.server);
                return Outcome::Failed(Failure::new(FailureKind::Transient, text));
            }
            Ok(Err(reply)) => return Outcome::Failed(refusal(Stage::Data, &self.server, &reply)),
            Err(failure) => return Outcome::Failed(failure),
        }
        let mut message = Message {
            pieces,
            crlf: Crlf::default(),
            control: self.control.clone(),
            final_reply: self.final_reply,
            failure: None,
        };
        let answer = self.smtp.message_iter(&mut message).await;
        match answer {
            Ok(response) => {
                self.answered = true;
                Outcome::Delivered { detail: said(&response).to_string() }
            }
            Err(error) => match (refused(&error), message.failure) {
                (_, Some(failure)) => Outcome::Failed(failure),
                (Some(reply), None) => {
                    self.answered = reply.code != 421;
                    Outcome::Failed(refusal(Stage::Message, &self.server, &reply))
                }
                (None, None) => {
                    // It may be the message's own fault, and concerns nobody else.
                    let failure = broken(FailureKind::Transient, &self.server, "the message", &error);
                    // The server may have the message from the moment its final dot may have left us.
                    if self.control.dot_may_have_left() { Outcome::Unknown(failure) } else { Outcome::Failed(failure) }
                }
            },
        }
    }
}

/// Hands the message to lettre. Reads on lettre's thread, 64 KiB at a time: lettre takes no stream.
struct Message {
    pieces: Pieces,
    crlf: Crlf,
    control: Arc<Control>,
    final_reply: Duration,
    failure: Option<Failure>,
}

impl Iterator for Message {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        match self.pieces.next_blocking() {
            Ok(piece) if piece.is_empty() => {
                // lettre writes the final dot now, and waits for the answer.
                self.control.end();
                self.control.limit(self.final_reply);
                None
            }
            Ok(piece) => Some(self.crlf.push(&piece)),
            Err(error) => {
                self.control.cut();
                self.failure = Some(unreadable(&error));
                None
            }
        }
    }
}

fn said(response: &Response) -> Reply {
    reply(u16::from(response.code()), response.message())
}

/// The refusal in lettre's error, if it is one.
fn refused(error: &Error) -> Option<Reply> {
    let code = u16::from(error.status()?);
    let text = error.source().map(ToString::to_string).unwrap_or_default();
    Some(reply(code, std::iter::once(text.as_str())))
}

fn reply<'a>(code: u16, lines: impl Iterator<Item = &'a str>) -> Reply {
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    let own_class = |status: &Status| u16::from(status.class) == code / 100;
    let status = lines.first().and_then(|line| Status::split_from(line.as_bytes()).0).filter(own_class);
    if status.is_some() {
        for line in &mut lines {
            let (found, text) = Status::split_from(line.as_bytes());
            if found == status {
                *line = String::from_utf8_lossy(text).into_owned();
            }
        }
    }
    Reply::new(code, status, lines)
}

/// The failure of a greeting, EHLO or AUTH.
fn refused_entry(server: &str, command: &str, error: &Error) -> Failure {
    let Some(reply) = refused(error) else { return broken(FailureKind::Unavailable, server, command, error) };
    let kind = if reply.code < 500 { FailureKind::Unavailable } else { FailureKind::Misconfigured };
    Failure::new(kind, format!("{server} answered \"{reply}\" (during {command})")).with_status(reply.status)
}

fn broken(kind: FailureKind, server: &str, command: &str, error: &Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let cause = cause.to_string();
    Failure::new(kind, format!("{server}: {} (during {command})", Escaped::text(&cause)))
}

fn unconnected(server: &str, error: &connectord_net::Error) -> Failure {
    let text = with_causes(server, error);
    match error {
        // What has a hint is for a person to mend.
        connectord_net::Error::Tls { problem, .. } if problem.hint().is_some() => {
            let hint = problem.hint().unwrap_or_default();
            Failure::new(FailureKind::Misconfigured, format!("{text}\nhint: {hint}"))
        }
        _ => Failure::new(FailureKind::Unavailable, text),
    }
}

/// What may stand behind EHLO; other characters become `-`.
fn host_name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let name: String = name.chars().take(255).map(|c| if allowed(c) { c } else { '-' }).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
