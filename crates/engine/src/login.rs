//! Logging in, the same way over both protocols: ask for the credential, choose the mechanism, answer the challenges.

use std::fmt;
use std::time::Duration;

use connectord_mail::UnixTime;
use connectord_net as net;
use connectord_sasl::{ChannelBinding, Credential, Exchange, ExchangeOptions, Mechanism, Policy, Protection, choose};
use connectord_store::Hold;
use connectord_wire::{Blame, Escaped, Machine, Secret, Security};
use tracing::{info, warn};

use crate::logins::{Strength, Way};
use crate::reason::APP_PASSWORD;
use crate::trouble::{Cause, Exit, RunError, Scope, Trouble, Wait, suggested_pause};
use crate::{Job, Logins};

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

    fn in_use(text: String) -> Self {
        Self { text, kind: Kind::InUse }
    }

    fn delayed(text: String, seconds: Option<u32>) -> Self {
        Self { text, kind: Kind::Delayed(seconds.map(|seconds| Duration::from_secs(u64::from(seconds).min(86_400)))) }
    }

    fn temporary(text: String) -> Self {
        Self { text, kind: Kind::Temporary }
    }

    /// What a POP3 refusal says about the server rather than the credentials, at the greeting or at the login.
    pub(crate) fn of_pop3_server(refusal: &connectord_pop3::Refusal) -> Option<Self> {
        use connectord_pop3::ResponseCode;
        let text = refusal.to_string();
        if let Some(wait) = suggested_pause(&text) {
            return Some(Self { text, kind: Kind::Delayed(Some(wait)) });
        }
        Some(match &refusal.code {
            Some(ResponseCode::InUse) => Self::in_use(text),
            Some(ResponseCode::LoginDelay(seconds)) => Self::delayed(text, *seconds),
            Some(ResponseCode::SysTemp | ResponseCode::SysPerm) => Self::temporary(text),
            // Without a code words alone tell a locked maildrop from a wrong password.
            None if refusal.command != "greeting" && refusal.blame() == Blame::Server => Self::in_use(text),
            _ => return None,
        })
    }

    fn of_pop3(refusal: &connectord_pop3::Refusal) -> Self {
        Self::of_pop3_server(refusal).unwrap_or_else(|| Self::credentials(refusal.to_string()))
    }

    /// What an IMAP response code or text says about the server rather than the credentials, at the greeting, at the login
    /// or in a BYE; `shown` is what is shown of it.
    pub(crate) fn of_imap_server(
        code: Option<&connectord_imap::ResponseCode>,
        text: &str,
        shown: String,
    ) -> Option<Self> {
        use connectord_imap::ResponseCode;
        if let Some(wait) = suggested_pause(text) {
            return Some(Self { text: shown, kind: Kind::Delayed(Some(wait)) });
        }
        Some(match code? {
            ResponseCode::Unavailable | ResponseCode::ServerBug => Self::temporary(shown),
            ResponseCode::InUse => Self::in_use(shown),
            ResponseCode::Limit | ResponseCode::OverQuota | ResponseCode::Throttled => Self::delayed(shown, None),
            _ => return None,
        })
    }

    fn of_imap(refusal: &connectord_imap::Refusal) -> Self {
        let shown = refusal.to_string();
        Self::of_imap_server(refusal.code.as_ref(), &refusal.text, shown)
            .unwrap_or_else(|| Self::credentials(refusal.to_string()))
    }

    /// With what the server said inside the exchange: OAuth's error.
    fn with_reason(mut self, reason: &str) -> Self {
        self.text.push_str(&format!(", after it said \"{reason}\""));
        self
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
        match self.kind {
            Kind::Credentials if APP_PASSWORD.iter().any(|words| lower.contains(words)) => {
                Some("the provider wants an app password here, not the password of the mailbox".into())
            }
            // GMX and web.de refuse the right password until POP3 and IMAP are switched on, and again after long disuse (2017).
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

/// A way that did not lead in.
struct Refused {
    refusal: LoginRefusal,
    /// Whether the server had seen a proof, or the secret itself: else it cannot have found it wrong.
    proved: bool,
}

/// Logs in over a connection that has just been made: waits for the [`offer`], and [`enter`]s by it.
pub(crate) async fn log_in<M>(
    driver: &mut net::Driver<M>,
    logins: &Logins,
    now: UnixTime,
    job: &Job,
) -> Result<(), RunError>
where
    M: LoginMachine,
    RunError: From<net::Error<M::Error>>,
{
    match offer(driver).await? {
        Some(offer) => enter(driver, logins, now, job, offer).await,
        None => Ok(()),
    }
}

/// Waits until the server wants to know who we are; `None` when it does not.
pub(crate) async fn offer<M>(driver: &mut net::Driver<M>) -> Result<Option<Offer>, RunError>
where
    M: LoginMachine,
    RunError: From<net::Error<M::Error>>,
{
    loop {
        match M::step(driver.next().await?) {
            LoginStep::Offered(offer) => return Ok(Some(offer)),
            LoginStep::LoggedIn => return Ok(None),
            _ => {}
        }
    }
}

/// Logs in by what the server offers.
///
/// At most two proofs are shown: a second one with a new credential if the source has one after the refusal, else by the
/// next way. More would lock the mailbox.
///
/// - After a `-PLUS` comes the same without it: what binds the login to the connection may be all that was wrong (Cyrus
///   3.6, 2022, refuses the proof with `tls-exporter`), and the password stays hidden.
/// - After any other comes what shows the password to the server, under TLS: some servers offer SCRAM to users for whom
///   they store no SCRAM secret (Dovecot with hashed passwords), and refuse before there is a proof.
///
/// [`Logins`](crate::Logins) knows then what to begin with the next time.
pub(crate) async fn enter<M>(
    driver: &mut net::Driver<M>,
    logins: &Logins,
    now: UnixTime,
    job: &Job,
    offer: Offer,
) -> Result<(), RunError>
where
    M: LoginMachine,
    RunError: From<net::Error<M::Error>>,
{
    let (account, server) = (job.address(), job.server());
    let mut credential = job.credentials.credential(None).await?;
    let mut ways = ways(&offer, &credential, driver.tls(), job)?;
    let strongest = ways[0].name();
    if logins.order(account, &server, now, &mut ways) {
        warn!(account, server, strongest, "the server offers weaker logins than before");
    }
    let mut first_refusal: Option<LoginRefusal> = None;
    let mut stronger: Option<Way> = None;
    loop {
        let way = ways.remove(0);
        let Some(Refused { refusal, proved }) = attempt(driver, way, &credential, job, &offer).await? else {
            if let Some(refused) = stronger.filter(|refused| *refused != way) {
                logins.led_in(account, way, now);
                info!(
                    account,
                    server,
                    refused = refused.name(),
                    mechanism = way.name(),
                    "a stronger login was refused"
                );
            }
            return Ok(());
        };
        logins.refused(account, way);
        if !refusal.is_credentials() || (proved && first_refusal.is_some()) {
            return Err(RunError::Login { server, refusal: first_refusal.unwrap_or(refusal) });
        }
        stronger = stronger.or(Some(way));
        let binds = way.strength() == Strength::Binds;
        if first_refusal.is_none() && (proved || !binds) {
            let fresh = job.credentials.credential(Some(&refusal.text)).await?;
            first_refusal = Some(refusal.clone());
            if fresh != credential {
                credential = fresh;
                ways.insert(0, way);
                continue;
            }
        }
        ways.retain(|next| match next {
            next if binds => next.strength() != Strength::Binds,
            Way::Plain | Way::Sasl(Mechanism::Plain | Mechanism::Login) => offer.encrypted,
            Way::Sasl(_) => false,
        });
        if ways.is_empty() || way.strength() == Strength::Reveals {
            return Err(RunError::Login { server, refusal: first_refusal.unwrap_or(refusal) });
        }
    }
}

/// The ways to try, the strongest first; never empty.
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
    way: Way,
    credential: &Credential,
    job: &Job,
    offer: &Offer,
) -> Result<Option<Refused>, RunError>
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
            let mut exchange = start_exchange(mechanism, credential, driver.tls(), job, offer)?;
            let initial = exchange.initial_response();
            driver.machine().start(mechanism.name(), initial).map_err(misuse)?;
            Some(exchange)
        }
        (Way::Plain, None) => unreachable!("a plain login is chosen for passwords only"),
    };
    let mut proved = exchange.as_ref().is_none_or(|exchange| exchange.mechanism().reveals_secret());
    loop {
        match M::step(driver.next().await?) {
            LoginStep::LoggedIn => {
                if let Some(exchange) = &exchange {
                    exchange.finish().map_err(|error| RunError::Sasl { server: job.server(), error })?;
                }
                return Ok(None);
            }
            LoginStep::Refused(refusal) => {
                let refusal = match exchange.as_ref().and_then(Exchange::refusal) {
                    Some(reason) => refusal.with_reason(reason),
                    None => refusal,
                };
                return Ok(Some(Refused { refusal, proved }));
            }
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
                proved = true;
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

#[cfg(test)]
mod tests {
    use connectord_imap as imap;
    use connectord_pop3 as pop3;

    use super::*;

    const REFUSED: (Cause, Wait) = (Cause::LoginRefused, Wait::Login);
    const SERVER: (Cause, Wait) = (Cause::NoAnswer, Wait::Backoff);
    const BROKEN: (Cause, Wait) = (Cause::Protocol, Wait::Backoff);
    const PAUSE: (Cause, Wait) = (Cause::Throttled, Wait::Backoff);
    const IN_USE: (Cause, Wait) = (Cause::InUse, Wait::Exactly(Hold::Backoff, Duration::from_secs(120)));

    const fn delay(millis: u64) -> (Cause, Wait) {
        (Cause::Throttled, Wait::Exactly(Hold::Throttled, Duration::from_millis(millis)))
    }

    fn meaning(trouble: Trouble) -> (Cause, Wait) {
        (trouble.cause, trouble.wait)
    }

    #[test]
    fn each_response_code_of_pop3_is_obeyed_at_the_greeting_and_at_the_login() {
        use pop3::ResponseCode::{Auth, InUse, LoginDelay, Other, SysPerm, SysTemp};
        let table = [
            (Some(Auth), "no", BROKEN, REFUSED),
            (Some(SysTemp), "database down", SERVER, SERVER),
            (Some(SysPerm), "mailbox broken", SERVER, SERVER),
            (Some(InUse), "another session", IN_USE, IN_USE),
            (Some(LoginDelay(Some(90))), "minimum time", delay(90_000), delay(90_000)),
            (Some(LoginDelay(Some(999_999_999))), "minimum time", delay(86_400_000), delay(86_400_000)),
            (Some(LoginDelay(None)), "minimum time", PAUSE, PAUSE),
            (Some(Other("X".into())), "no", BROKEN, REFUSED),
            (None, "authentication failed", BROKEN, REFUSED),
            (None, "unable to lock maildrop", BROKEN, IN_USE),
            (None, "throttled. Suggested Backoff Time: 299961 milliseconds", delay(299_961), delay(299_961)),
        ];
        for (code, text, at_greeting, at_login) in table {
            let refusal =
                |command| pop3::Refusal { command, code: code.clone(), text: text.as_bytes().to_vec().into() };
            let greeting = net::Error::Session(pop3::Error::GreetingRefused(refusal("greeting")));
            assert_eq!(meaning(RunError::Pop3(greeting).trouble()), at_greeting, "greeting {code:?} {text}");
            for command in ["PASS", "AUTH"] {
                let login = LoginRefusal::of_pop3(&refusal(command));
                assert_eq!(meaning(login.trouble()), at_login, "{command} {code:?} {text}");
            }
        }
    }

    #[test]
    fn each_response_code_of_imap_is_obeyed_in_a_bye_and_at_the_login() {
        use imap::ResponseCode::{
            AuthenticationFailed, AuthorizationFailed, Expired, InUse, Limit, OverQuota, ServerBug, Throttled,
            Unavailable,
        };
        let table = [
            (Some(AuthenticationFailed), "no", BROKEN, REFUSED),
            (Some(AuthorizationFailed), "no", BROKEN, REFUSED),
            (Some(Expired), "no", BROKEN, REFUSED),
            (Some(Unavailable), "user database down", SERVER, SERVER),
            (Some(ServerBug), "oops", SERVER, SERVER),
            (Some(InUse), "locked", IN_USE, IN_USE),
            (Some(Limit), "too many connections", PAUSE, PAUSE),
            (Some(OverQuota), "bandwidth", PAUSE, PAUSE),
            (Some(Throttled), "slow down", PAUSE, PAUSE),
            (None, "no", BROKEN, REFUSED),
            (None, "Request is throttled. Suggested Backoff Time: 1000 milliseconds", delay(1000), delay(1000)),
            (Some(Unavailable), "Suggested Backoff Time: 2000 milliseconds", delay(2000), delay(2000)),
        ];
        for (code, text, in_bye, at_login) in table {
            for during in ["the greeting", "SELECT", "UID FETCH"] {
                let bye = imap::Error::Bye { code: code.clone(), text: text.into(), during };
                let met = RunError::Imap(net::Error::Session(bye)).trouble();
                assert_eq!(meaning(met), in_bye, "BYE {code:?} {text}");
            }
            let refusal =
                imap::Refusal { command: "LOGIN", status: imap::Status::No, code: code.clone(), text: text.into() };
            assert_eq!(meaning(LoginRefusal::of_imap(&refusal).trouble()), at_login, "LOGIN {code:?} {text}");
        }
    }

    #[test]
    fn a_refused_login_hints_at_what_providers_switch_off() {
        // GMX (2017): the same words as for a wrong password.
        for (text, hint) in [
            ("NO [AUTHENTICATIONFAILED] authentication failed", "switched on"),
            ("NO Application-specific password required", "app password"),
        ] {
            let refusal = LoginRefusal::credentials(text.into());
            assert!(refusal.hint().is_some_and(|said| said.contains(hint)), "{text}: {:?}", refusal.hint());
        }
        assert_eq!(LoginRefusal::in_use("IN USE".into()).hint(), None);
    }

    #[test]
    fn what_oauth_says_is_said() {
        let refusal = LoginRefusal::credentials("\"NO no\"".into()).with_reason("{\"status\":\"401\"}");
        assert_eq!(refusal.to_string(), "\"NO no\", after it said \"{\"status\":\"401\"}\"");
    }
}
