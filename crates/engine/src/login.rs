//! Logging in, the same way over both protocols: ask for the credential, choose the mechanism, answer the challenges.

mod machine;
mod refusal;

use connectord_mail::UnixTime;
use connectord_net as net;
use connectord_sasl::{ChannelBinding, Credential, Exchange, ExchangeOptions, Mechanism, Policy, Protection, choose};
use connectord_wire::{Escaped, Security};
use tracing::{info, warn};

use crate::logins::{Strength, Way};
use crate::trouble::RunError;
use crate::{Job, Logins};
use machine::LoginStep;

pub(crate) use machine::{LoginMachine, Offer};
pub use refusal::LoginRefusal;

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
/// [`Logins`](crate::Logins) knows then what to begin with the next time, and nothing weaker is tried then.
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
    let (offered, strongest) = (ways.clone(), ways[0].name());
    if logins.order(account, &server, offer.encrypted, now, &mut ways) {
        warn!(account, server, strongest, "the server offers weaker logins than before");
    }
    let mut first_refusal: Option<LoginRefusal> = None;
    let mut stronger: Option<Way> = None;
    loop {
        let way = ways.remove(0);
        let Some(Refused { refusal, proved }) = attempt(driver, way, &credential, job, &offer).await? else {
            if let Some(refused) = stronger.filter(|refused| *refused != way) {
                logins.led_in(account, way, &offered, now);
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
