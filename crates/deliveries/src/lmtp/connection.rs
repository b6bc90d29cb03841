use std::io;
use std::time::Duration;

use async_trait::async_trait;
use connectord_delivery::{Failure, FailureKind, Outcome};
use connectord_lmtp::{Address, Error, Event, Mail, Reply, Session, Severity};
use connectord_net::{Connector, Driver, Error as NetError, Route, Timeouts};
use connectord_wire::{Machine, Security};

use super::link::{Begun, Link};
use super::refusal::{Stage, is_about_the_senders_address, refusal, with_causes};
use super::transaction::{Envelope, Transaction};
use super::{LmtpAddress, Options};

/// How long a farewell may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// One connection, past its LHLO.
pub(super) struct Connection {
    driver: Driver<Session>,
    /// For messages to people: `LMTP server unix:/run/dovecot/lmtp`.
    server: String,
    reply: Duration,
    final_reply: Duration,
    dot_may_have_left: bool,
}

/// What it takes to open a connection.
pub(super) struct Settings {
    pub(super) options: Options,
    pub(super) connector: Connector,
}

#[async_trait]
impl Link for Connection {
    type Settings = Settings;

    async fn open(Settings { options, connector }: &Settings) -> Result<Self, Failure> {
        let server = format!("LMTP server {}", options.address);
        // The waits below are kept here; the driver's silence would cut the wait for the answer to the message.
        let timeouts = Timeouts {
            connect: options.connect,
            silence: options.final_reply.max(options.reply).saturating_mul(2),
            minimum_rate: 0,
            ..Timeouts::default()
        };
        let connected = match &options.address {
            LmtpAddress::Unix(path) => connector.connect_unix(path, &timeouts).await,
            LmtpAddress::Tcp(endpoint) => {
                let mut route = Route::new(endpoint.clone(), Security::None);
                route.timeouts = timeouts.clone();
                connector.connect(&route).await
            }
        };
        let stream = connected.map_err(|error| unusable(&server, error.widen()))?;
        let mut session = connectord_lmtp::Options::default();
        session.host_name.clone_from(&options.host_name);
        let driver = Driver::new(stream, Session::new(session), timeouts);
        let mut connection =
            Self { driver, server, reply: options.reply, final_reply: options.final_reply, dot_may_have_left: false };
        match connection.next(connection.reply).await? {
            Event::Ready { .. } => Ok(connection),
            event => Err(connection.unexpected(&event)),
        }
    }

    /// In one write where the server pipelines.
    async fn begin(&mut self, envelope: &Envelope) -> Result<Begun, Failure> {
        self.dot_may_have_left = false;
        let utf8 = self.driver.machine().capabilities().smtp_utf8;
        if !utf8 && envelope.recipients.iter().any(|recipient| !recipient.is_ascii()) {
            let text = format!("{} does not offer SMTPUTF8, which the recipient's address needs", self.server);
            let failure = Failure::new(FailureKind::Misconfigured, text);
            return Ok(Begun::Answered(envelope.recipients.iter().map(|_| Err(failure.clone())).collect()));
        }
        let mut sender = envelope.reverse_path.clone();
        if !utf8 && !sender.is_ascii() {
            sender = Address::null();
        }
        loop {
            let retry = !sender.is_null();
            match self.send_envelope(sender, envelope).await? {
                Ok(results) => return Ok(Begun::Answered(results)),
                Err(reply) if retry && is_about_the_senders_address(&reply) => sender = Address::null(),
                Err(reply) => return Ok(Begun::SenderRefused(refusal(Stage::Sender, &self.server, &reply))),
            }
        }
    }

    async fn reset(&mut self) -> Result<(), Failure> {
        self.driver.machine().rset();
        match self.next(self.reply).await? {
            Event::Reset => Ok(()),
            event => Err(self.unexpected(&event)),
        }
    }

    async fn send(&mut self, transaction: &Transaction, accepted: &[usize]) -> Vec<(usize, Outcome)> {
        let mut answers = Vec::with_capacity(accepted.len());
        let Err(failure) = self.send_message(transaction, accepted.len(), &mut answers).await else { return answers };
        let sent = self.dot_may_have_left;
        let unanswered = accepted.iter().filter(|index| answers.iter().all(|(answered, _)| answered != *index));
        let rest: Vec<_> = unanswered
            .map(|index| {
                let outcome = if sent { Outcome::Unknown(failure.clone()) } else { Outcome::Failed(failure.clone()) };
                (*index, outcome)
            })
            .collect();
        answers.extend(rest);
        answers
    }

    fn is_reusable(&mut self) -> bool {
        self.driver.machine().is_reusable() && self.driver.machine().is_message_sent()
    }

    async fn close(mut self) {
        self.driver.machine().quit();
        // The server's farewell changes nothing.
        let _ = tokio::time::timeout(GOODBYE, self.driver.next()).await;
        self.driver.shutdown().await;
    }
}

impl Connection {
    async fn send_envelope(
        &mut self,
        sender: Address,
        envelope: &Envelope,
    ) -> Result<Result<Vec<Result<(), Failure>>, Reply>, Failure> {
        let session = self.driver.machine();
        let mut mail = Mail::from(sender);
        mail.size_octets = envelope.size_octets;
        mail.smtp_utf8 |= envelope.recipients.iter().any(|recipient| !recipient.is_ascii());
        session.mail(mail);
        for recipient in &envelope.recipients {
            session.rcpt(recipient.clone());
        }
        let mut results = Vec::with_capacity(envelope.recipients.len());
        while results.len() < envelope.recipients.len() {
            match self.next(self.reply).await? {
                Event::Recipient { result, .. } => {
                    results.push(result.map(drop).map_err(|reply| refusal(Stage::Recipient, &self.server, &reply)));
                }
                Event::SenderRefused(reply) => return Ok(Err(reply)),
                event => return Err(self.unexpected(&event)),
            }
        }
        Ok(Ok(results))
    }

    async fn send_message(
        &mut self,
        transaction: &Transaction,
        accepted: usize,
        answers: &mut Vec<(usize, Outcome)>,
    ) -> Result<(), Failure> {
        self.driver.machine().data();
        match self.next(self.reply).await? {
            Event::ReadyForData => {}
            Event::DataRefused(reply) => return Err(refusal(Stage::Data, &self.server, &reply)),
            event => return Err(self.unexpected(&event)),
        }
        let mut pieces = transaction.pieces();
        loop {
            let piece = pieces.next().await.map_err(|error| unreadable(&error))?;
            if piece.is_empty() {
                break;
            }
            self.driver.machine().push(&piece).map_err(|error| self.misused(&error))?;
            // Not always as much as the piece: the LF of a CRLF that was cut in two is sent with the CR.
            if self.flush().await.map_err(own)? + 1 < piece.len() {
                return Err(own(self.last_words().await));
            }
        }
        self.driver.machine().finish().map_err(|error| self.misused(&error))?;
        let before = self.driver.octets_sent();
        // The server may have the message from the moment its final dot may have left us, and not if not one octet went.
        self.dot_may_have_left = true;
        let flushed = self.flush().await;
        self.dot_may_have_left = self.driver.octets_sent() > before;
        flushed.map_err(own)?;
        while answers.len() < accepted {
            match self.next(self.final_reply).await {
                Ok(Event::WantData) => {}
                Ok(Event::Delivered { index, result }) => answers.push((index, self.outcome(result))),
                Ok(event) => return Err(own(self.unexpected(&event))),
                Err(failure) => return Err(own(failure)),
            }
        }
        Ok(())
    }

    fn outcome(&self, result: Result<Reply, Reply>) -> Outcome {
        match result {
            Ok(reply) => Outcome::Delivered { detail: reply.to_string() },
            Err(reply) => Outcome::Failed(refusal(Stage::Message, &self.server, &reply)),
        }
    }

    async fn next(&mut self, limit: Duration) -> Result<Event, Failure> {
        match tokio::time::timeout(limit, self.driver.next()).await {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(error)) => Err(unusable(&self.server, error)),
            Err(_) => Err(self.silent(limit)),
        }
    }

    /// Sends what was pushed; returns how many octets went.
    async fn flush(&mut self) -> Result<usize, Failure> {
        let before = self.driver.octets_sent();
        match tokio::time::timeout(self.reply, self.driver.flush()).await {
            Ok(Ok(())) => Ok(usize::try_from(self.driver.octets_sent() - before).unwrap_or(usize::MAX)),
            Ok(Err(error)) => Err(unusable(&self.server, error)),
            Err(_) => Err(self.silent(self.reply)),
        }
    }

    /// Why the server takes no more of the message.
    async fn last_words(&mut self) -> Failure {
        loop {
            match self.next(self.reply).await {
                Ok(Event::WantData) => {}
                Ok(event) => return self.unexpected(&event),
                Err(failure) => return failure,
            }
        }
    }

    fn silent(&mut self, limit: Duration) -> Failure {
        let during = self.driver.machine().phase();
        let text = format!("no answer from {} for {:.3} s while {during}", self.server, limit.as_secs_f64());
        Failure::new(FailureKind::Unavailable, text)
    }

    fn unexpected(&self, event: &Event) -> Failure {
        Failure::new(FailureKind::Unavailable, format!("{} is out of step: {event:?}", self.server))
    }

    fn misused(&self, error: &Error) -> Failure {
        Failure::new(FailureKind::Transient, format!("{}: {error}", self.server))
    }
}

/// From DATA on a failure may be the message's own fault, and concerns nobody else.
fn own(failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::Unavailable => Failure { kind: FailureKind::Transient, ..failure },
        _ => failure,
    }
}

/// The failure for a connection that is of no use: no message has to do with it.
fn unusable(server: &str, error: NetError<Error>) -> Failure {
    if let NetError::Session(Error::MessageRefused(reply)) = &error {
        return refusal(Stage::Message, server, reply);
    }
    let kind = match &error {
        NetError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => FailureKind::Misconfigured,
        NetError::Session(Error::GreetingRefused(reply) | Error::LhloRefused(reply))
            if reply.severity() == Severity::Permanent =>
        {
            FailureKind::Misconfigured
        }
        _ => FailureKind::Unavailable,
    };
    let status = match &error {
        NetError::Session(error) => error.reply().and_then(|reply| reply.status),
        _ => None,
    };
    Failure::new(kind, with_causes(server, &error)).with_status(status)
}

/// The failure for a message that cannot be read back.
pub(crate) fn unreadable(error: &io::Error) -> Failure {
    Failure::new(FailureKind::Transient, format!("{error} (while reading the message to send it)"))
}
