//! Logging in, the same way over both protocols: ask for the credential, choose the mechanism, answer the challenges.

use std::fmt;
use std::time::Duration;

use connectord_net as net;
use connectord_sasl::{ChannelBinding, Credential, Exchange, ExchangeOptions, Mechanism, Policy, Protection, choose};
use connectord_store::Hold;
use connectord_wire::{Escaped, Machine, Secret, Security};

use crate::Job;
use crate::trouble::{Cause, Exit, RunError, Scope, Trouble, Wait, suggested_pause};

/// Why a server did not let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRefusal {
    text: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Credentials,
    InUse,
    Delayed(Option<Duration>),
    Temporary,
}

impl LoginRefusal {
    pub(crate) fn credentials(text: String) -> Self {
        Self { text, kind: Kind::Credentials }
    }

    pub(crate) fn in_use(text: String) -> Self {
        Self { text, kind: Kind::InUse }
    }

    pub(crate) fn delayed(text: String, seconds: Option<u32>) -> Self {
        Self { text, kind: Kind::Delayed(seconds.map(|seconds| Duration::from_secs(u64::from(seconds).min(86_400)))) }
    }

    fn temporary(text: String) -> Self {
        Self { text, kind: Kind::Temporary }
    }

    fn of_pop3(refusal: &connectord_pop3::Refusal) -> Self {
        use connectord_pop3::ResponseCode;
        let text = refusal.to_string();
        match &refusal.code {
            Some(ResponseCode::InUse) => Self::in_use(text),
            Some(ResponseCode::LoginDelay(seconds)) => Self::delayed(text, *seconds),
            Some(ResponseCode::SysTemp | ResponseCode::SysPerm) => Self::temporary(text),
            _ => Self::by_words(text),
        }
    }

    fn of_imap(refusal: &connectord_imap::Refusal) -> Self {
        use connectord_imap::ResponseCode;
        let text = refusal.to_string();
        match &refusal.code {
            Some(ResponseCode::Unavailable | ResponseCode::ServerBug) => Self::temporary(text),
            Some(ResponseCode::InUse) => Self::in_use(text),
            Some(ResponseCode::Limit | ResponseCode::OverQuota) => Self::delayed(text, None),
            _ => Self::by_words(text),
        }
    }

    /// Servers without response codes: only words that can mean nothing else.
    fn by_words(text: String) -> Self {
        if let Some(wait) = suggested_pause(&text) {
            return Self { text, kind: Kind::Delayed(Some(wait)) };
        }
        Self::credentials(text)
    }

    pub(crate) fn is_credentials(&self) -> bool {
        self.kind == Kind::Credentials
    }

    pub(crate) fn trouble(&self) -> Trouble {
        let trouble = |cause, exit, wait| Trouble { cause, scope: Scope::Account, exit, wait };
        match self.kind {
            Kind::Credentials => trouble(Cause::LoginRefused, Exit::NoPermission, Wait::Login),
            Kind::InUse => {
                trouble(Cause::InUse, Exit::TempFail, Wait::Exactly(Hold::Backoff, Duration::from_secs(120)))
            }
            Kind::Delayed(Some(wait)) => {
                trouble(Cause::Throttled, Exit::TempFail, Wait::Exactly(Hold::Throttled, wait))
            }
            Kind::Delayed(None) => trouble(Cause::Throttled, Exit::TempFail, Wait::Backoff),
            Kind::Temporary => trouble(Cause::NoAnswer, Exit::TempFail, Wait::Backoff),
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let lower = self.text.to_ascii_lowercase();
        let app_password = ["app password", "application-specific", "app-specific", "invalidsecondfactor"];
        match self.kind {
            Kind::Credentials if app_password.iter().any(|words| lower.contains(words)) => {
                Some("the provider wants an app password here, not the password of the mailbox".into())
            }
            Kind::Credentials => {
                Some("check user name and password; some providers need an app password or IMAP/POP switched on".into())
            }
            Kind::InUse | Kind::Delayed(_) | Kind::Temporary => None,
        }
    }
}

impl fmt::Display for LoginRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a session says until it is logged in.
pub(crate) enum LoginStep {
    Offered(Offer),
    Challenge(Vec<u8>),
    Refused(LoginRefusal),
    LoggedIn,
    Other,
}

pub(crate) struct Offer {
    mechanisms: Vec<String>,
    /// USER and PASS, or LOGIN.
    plain: bool,
    encrypted: bool,
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

/// One way to try.
enum Way {
    Sasl(Mechanism),
    Plain,
}

/// Logs in over a connection that has just been made.
///
/// At most two logins are tried: a second one with a new credential if the source has one after the refusal, else with
/// the next mechanism that shows the password to the server (some servers offer SCRAM to users for whom they store no
/// SCRAM secret: Dovecot with hashed passwords). More would lock the mailbox.
pub(crate) async fn log_in<M>(driver: &mut net::Driver<M>, job: &Job) -> Result<(), RunError>
where
    M: LoginMachine,
    RunError: From<net::Error<M::Error>>,
{
    let offer = loop {
        match M::step(driver.next().await?) {
            LoginStep::Offered(offer) => break offer,
            LoginStep::LoggedIn => return Ok(()),
            _ => {}
        }
    };
    let mut credential = job.credentials.credential(None).await?;
    let mut ways = ways(&offer, &credential, driver.tls(), job)?;
    let mut first_refusal: Option<LoginRefusal> = None;
    loop {
        let way = ways.remove(0);
        let Some(refusal) = attempt(driver, &way, &credential, job, &offer).await? else { return Ok(()) };
        let server = job.server();
        if !refusal.is_credentials() || first_refusal.is_some() {
            return Err(RunError::Login { server, refusal: first_refusal.unwrap_or(refusal) });
        }
        let fresh = job.credentials.credential(Some(&refusal.text)).await?;
        if fresh == credential {
            ways.retain(|way| {
                offer.encrypted && matches!(way, Way::Plain | Way::Sasl(Mechanism::Plain | Mechanism::Login))
            });
            if ways.is_empty() || !matches!(way, Way::Sasl(mechanism) if !mechanism.reveals_secret()) {
                return Err(RunError::Login { server, refusal });
            }
        } else {
            credential = fresh;
            ways.insert(0, way);
        }
        first_refusal = Some(refusal);
    }
}

/// The ways to try, the best first; never empty.
fn ways(offer: &Offer, credential: &Credential, tls: Option<&net::TlsInfo>, job: &Job) -> Result<Vec<Way>, RunError> {
    let protection = match (offer.encrypted, job.account.security) {
        (true, _) => Protection::Tls,
        (false, Security::None) => Protection::NoneAccepted,
        (false, _) => Protection::None,
    };
    let allowed: Vec<Mechanism> = job.account.mechanisms.iter().filter_map(|name| Mechanism::parse(name)).collect();
    let policy = Policy { allowed: (!job.account.mechanisms.is_empty()).then_some(allowed), protection };
    let binding = tls.map(net::TlsInfo::channel_binding).unwrap_or_default();
    let mut ways: Vec<Way> =
        choose(&offer.mechanisms, credential, &policy, &binding).into_iter().map(Way::Sasl).collect();
    let plain_allowed = job.account.mechanisms.is_empty()
        || job
            .account
            .mechanisms
            .iter()
            .any(|name| ["PLAIN", "LOGIN", "USER"].iter().any(|known| name.eq_ignore_ascii_case(known)));
    let usable = credential.as_password().is_some() && credential.authorization_identity.is_none();
    if offer.plain && plain_allowed && usable && protection != Protection::None {
        ways.push(Way::Plain);
    }
    if ways.is_empty() {
        let mut offered = offer.mechanisms.clone();
        if offer.plain {
            offered.push("a plain login".into());
        }
        let offered = if offered.is_empty() { "nothing".into() } else { offered.join(", ") };
        return Err(RunError::NoMechanism { server: job.server(), offered: Escaped::text(&offered).to_string() });
    }
    Ok(ways)
}

/// Tries one way; `None` when it led in.
async fn attempt<M>(
    driver: &mut net::Driver<M>,
    way: &Way,
    credential: &Credential,
    job: &Job,
    offer: &Offer,
) -> Result<Option<LoginRefusal>, RunError>
where
    M: LoginMachine,
    RunError: From<net::Error<M::Error>>,
{
    let misuse = |error| RunError::from(net::Error::Session(error));
    let mut exchange = match (way, credential.as_password()) {
        (Way::Plain, Some((user, password))) => {
            driver.machine().plain(user, password).map_err(misuse)?;
            None
        }
        (Way::Sasl(mechanism), _) => {
            let mut exchange = start_exchange(*mechanism, credential, driver.tls(), job, offer)?;
            let initial = exchange.initial_response();
            driver.machine().start(mechanism.name(), initial).map_err(misuse)?;
            Some(exchange)
        }
        (Way::Plain, None) => unreachable!("a plain login is chosen for passwords only"),
    };
    loop {
        match M::step(driver.next().await?) {
            LoginStep::LoggedIn => {
                if let Some(exchange) = &exchange {
                    exchange.finish().map_err(|error| RunError::Sasl { server: job.server(), error })?;
                }
                return Ok(None);
            }
            LoginStep::Refused(refusal) => return Ok(Some(refusal)),
            LoginStep::Challenge(challenge) => {
                let Some(mut running) = exchange.take() else {
                    driver.machine().cancel().map_err(misuse)?;
                    continue;
                };
                // SCRAM computes for a good part of a second: not on a thread that serves others.
                let (running, response) = tokio::task::spawn_blocking(move || {
                    let response = running.respond(&challenge);
                    (running, response)
                })
                .await
                .map_err(|panicked| RunError::Spool(std::io::Error::other(panicked)))?;
                let response = response.map_err(|error| RunError::Sasl { server: job.server(), error })?;
                exchange = Some(running);
                driver.machine().answer(response).map_err(misuse)?;
            }
            LoginStep::Offered(_) | LoginStep::Other => {}
        }
    }
}

fn start_exchange(
    mechanism: Mechanism,
    credential: &Credential,
    tls: Option<&net::TlsInfo>,
    job: &Job,
    offer: &Offer,
) -> Result<Exchange, RunError> {
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).map_err(|error| RunError::Spool(std::io::Error::other(error.to_string())))?;
    let endpoint = &job.account.endpoint;
    let mut options = ExchangeOptions::new(endpoint.host(), endpoint.port());
    options.plus_offered = offer.mechanisms.iter().any(|name| name.to_ascii_uppercase().ends_with("-PLUS"));
    let binding = tls.map(net::TlsInfo::channel_binding).unwrap_or(ChannelBinding::None);
    Exchange::start(mechanism, credential, binding, nonce, &options)
        .map_err(|error| RunError::Sasl { server: job.server(), error })
}
