//! A test of the way to an account, step by step: nothing is retrieved, marked or remembered.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use connectord_account::{Folder, Protocol};
use connectord_imap as imap;
use connectord_net::{self as net, Driver, Milestone, Route};
use connectord_pop3 as pop3;
use connectord_store::{AccountId, Lease, Reason, StoreError};
use connectord_wire::Security;
use tokio::time::timeout;

use crate::login::{LoginMachine, enter, offer};
use crate::run::users_exist;
use crate::trouble::{Cause, RunError};
use crate::{Job, Logins, Site, chain};

/// Longest test in all; what is still awaited then has failed.
const WHOLE: Duration = Duration::from_secs(60);

/// Longest wait for a check of the same account that is under way: POP3 lets only one in.
const BUSY: Duration = Duration::from_secs(20);

/// Most mailboxes that are looked into.
const MAILBOXES: usize = 20;

/// Most mailboxes that are told of.
const FOLDERS: usize = 500;

/// One step on the way, in the order of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrialStep {
    /// The server's name, or its proxy's, has addresses.
    Name,
    /// One of them takes connections.
    Connection,
    /// The certificate is trusted, and the line encrypted.
    Encryption,
    /// The server speaks the protocol, and offers a way to log in.
    Greeting,
    /// It takes the user name and the password.
    Login,
    /// What is to be retrieved from is there.
    Mailbox,
    /// The local users exist, and the destination answers.
    Delivery,
}

impl TrialStep {
    /// All of them, in their order.
    pub const ALL: [Self; 7] =
        [Self::Name, Self::Connection, Self::Encryption, Self::Greeting, Self::Login, Self::Mailbox, Self::Delivery];

    /// As it is called for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Connection => "connection",
            Self::Encryption => "encryption",
            Self::Greeting => "greeting",
            Self::Login => "login",
            Self::Mailbox => "mailbox",
            Self::Delivery => "delivery",
        }
    }
}

impl fmt::Display for TrialStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialOutcome {
    /// Well; what was found, in few words. Nothing in it is a server's own text.
    Ok(String),
    /// There was nothing to do, and why.
    Note(String),
    /// Not well, and the test ended here.
    Failed {
        /// Why, as a code.
        cause: Cause,
        /// The same as values, whose code says more.
        reason: Reason,
        /// Why, in words; a status reply of the server is quoted, escaped.
        text: String,
        /// What a person can do.
        hint: Option<String>,
    },
    /// A step before it had failed.
    NotReached,
}

/// What a test has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Each of [`TrialStep::ALL`], how it went and how long it took.
    pub steps: Vec<(TrialStep, TrialOutcome, Duration)>,
    /// Messages that lie where mail is retrieved from, when that was reached.
    pub messages: Option<u64>,
    /// IMAP: the mailboxes that the server lists, escaped; at most 500.
    pub folders: Vec<String>,
}

/// Is told each step of a test as it ends; must return at once.
pub type SeeStep<'a> = &'a (dyn Fn(TrialStep, &TrialOutcome, Duration) + Send + Sync);

impl Trial {
    /// The step that failed, if one did.
    pub fn failure(&self) -> Option<(TrialStep, &TrialOutcome)> {
        let failed = |outcome: &TrialOutcome| matches!(outcome, TrialOutcome::Failed { .. });
        self.steps.iter().find(|(_, outcome, _)| failed(outcome)).map(|(step, outcome, _)| (*step, outcome))
    }

    /// Whether the login succeeded: what comes after it does not say anything about the credentials.
    pub fn is_logged_in(&self) -> bool {
        self.steps.iter().any(|(step, outcome, _)| *step == TrialStep::Login && matches!(outcome, TrialOutcome::Ok(_)))
    }
}

/// Tests the way to an account and from it to its users; bounded in time, whatever the server does.
///
/// `account` is the same account's number in the store, if it is there already: POP3 lets only one in, so a check of it that
/// is under way is waited for, up to 20 s.
pub async fn trial(site: &Site, job: &Job, account: Option<AccountId>) -> Trial {
    trial_watched(site, job, account, &|_, _, _| {}).await
}

/// As [`trial`], for somebody who watches.
pub async fn trial_watched(site: &Site, job: &Job, account: Option<AccountId>, see: SeeStep<'_>) -> Trial {
    let found = Found::new(job, see);
    let lease = match account.filter(|_| job.account.protocol == Protocol::Pop3) {
        Some(account) => leased(site, account).await,
        None => None,
    };
    found.begin();
    let way = async {
        match job.account.protocol {
            Protocol::Pop3 => by_pop3(site, job, &found).await?,
            Protocol::Imap => by_imap(site, job, &found).await?,
        }
        users_exist(site, job).await?;
        let users = job.recipients.len();
        found.ok(TrialStep::Delivery, if users == 1 { "1 user".to_owned() } else { format!("{users} users") });
        Ok::<(), RunError>(())
    };
    match timeout(WHOLE, way).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => found.failed(&error),
        Err(_) => found.timed_out(),
    }
    drop(lease);
    found.trial()
}

/// Without it the test is made all the same.
async fn leased(site: &Site, account: AccountId) -> Option<Lease> {
    let asked = Instant::now();
    loop {
        match site.store.lease(account).await {
            Ok(lease) => return Some(lease),
            Err(StoreError::Busy) if asked.elapsed() < BUSY => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(_) => return None,
        }
    }
}

async fn by_pop3(site: &Site, job: &Job, found: &Found<'_>) -> Result<(), RunError> {
    let mut options = pop3::Options::default();
    options.security = job.account.security;
    if !job.account.initial_response {
        options.initial_response = pop3::InitialResponse::Separately;
    }
    let mut driver = enter_with(site, job, pop3::Session::new(options), found).await?;
    driver.machine().stat();
    loop {
        match driver.next().await? {
            pop3::Event::Stat { messages, octets } => {
                found.ok(TrialStep::Mailbox, format!("{messages} messages, {octets} octets"));
                found.inner().messages = Some(u64::from(messages));
                break;
            }
            pop3::Event::StatRefused(refusal) => {
                let (server, refusal) = (job.server(), refusal.to_string());
                return Err(RunError::Mailbox { server, mailbox: String::new(), refusal, temporary: false });
            }
            _ => {}
        }
    }
    driver.machine().quit();
    end(driver).await;
    Ok(())
}

async fn by_imap(site: &Site, job: &Job, found: &Found<'_>) -> Result<(), RunError> {
    let mut options = imap::Options::default();
    options.security = job.account.security;
    options.id = vec![
        ("name".to_owned(), "connectord".to_owned()),
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let mut driver = enter_with(site, job, imap::Session::new(options), found).await?;
    let names = mailboxes(job, &mut driver).await?;
    let mut messages = 0;
    for name in names.iter().take(MAILBOXES) {
        messages += u64::from(look_into(job, &mut driver, name).await?);
    }
    let text = match names.len() {
        1 => format!("{messages} messages"),
        count if count > MAILBOXES => format!("{count} mailboxes, {messages} messages in {MAILBOXES} of them"),
        count => format!("{count} mailboxes, {messages} messages"),
    };
    found.ok(TrialStep::Mailbox, text);
    found.inner().messages = Some(messages);
    let folders = listed(&mut driver).await?;
    found.inner().folders = folders;
    driver.machine().logout();
    end(driver).await;
    Ok(())
}

/// All mailboxes that can be looked into; none when the server does not list them.
async fn listed(driver: &mut Driver<imap::Session>) -> Result<Vec<String>, RunError> {
    let command = driver.machine().list_special_use("", "*");
    let mut names = Vec::new();
    let result = finish(driver, command, |event| {
        if let imap::Event::Listed(listed) = event
            && listed.is_selectable()
            && names.len() < FOLDERS
        {
            names.push(listed.name.to_string());
        }
    });
    let listed = result.await?.is_ok();
    names.sort_by_key(|name: &String| (!name.eq_ignore_ascii_case("INBOX"), name.to_lowercase()));
    Ok(if listed { names } else { Vec::new() })
}

/// The mailboxes that the account's folders stand for.
async fn mailboxes(job: &Job, driver: &mut Driver<imap::Session>) -> Result<Vec<imap::MailboxName>, RunError> {
    let mut names: Vec<imap::MailboxName> = Vec::new();
    for folder in &job.account.folders {
        let (pattern, role) = match folder {
            Folder::Name(name) => {
                names.push(imap::MailboxName::new(name).map_err(|error| refused(job, name, error.to_string()))?);
                continue;
            }
            Folder::Pattern(pattern) => (pattern.as_str(), None),
            Folder::Role(role) => ("*", imap::Role::parse(role)),
        };
        let command = driver.machine().list_special_use("", pattern);
        let before = names.len();
        let result = finish(driver, command, |event| {
            if let imap::Event::Listed(listed) = event
                && listed.is_selectable()
                && role.is_none_or(|role| listed.roles().any(|has| has == role))
                && !names.contains(&listed.name)
            {
                names.push(listed.name);
            }
        })
        .await?;
        result.map_err(|refusal| refused(job, pattern, refusal.to_string()))?;
        if names.len() == before {
            let shown = match folder {
                Folder::Role(role) => role.as_str(),
                _ => pattern,
            };
            return Err(refused(job, shown, "the server lists no such mailbox".to_owned()));
        }
    }
    Ok(names)
}

/// How many messages it has. EXAMINE, which changes nothing.
async fn look_into(job: &Job, driver: &mut Driver<imap::Session>, name: &imap::MailboxName) -> Result<u32, RunError> {
    let command = driver.machine().examine(name);
    let mut messages = 0;
    let result = finish(driver, command, |event| {
        if let imap::Event::Selected(selected) = event {
            messages = selected.exists;
        }
    })
    .await?;
    result.map(|_| messages).map_err(|refusal| refused(job, &name.to_string(), refusal.to_string()))
}

async fn finish(
    driver: &mut Driver<imap::Session>,
    command: imap::CommandId,
    mut see: impl FnMut(imap::Event),
) -> Result<Result<imap::Completion, imap::Refusal>, RunError> {
    loop {
        match driver.next().await? {
            imap::Event::Done { command: done, result } if done == command => return Ok(result),
            event => see(event),
        }
    }
}

fn refused(job: &Job, mailbox: &str, refusal: String) -> RunError {
    RunError::Mailbox { server: job.server(), mailbox: mailbox.to_owned(), refusal, temporary: false }
}

/// Connects and logs in, and notes each step.
async fn enter_with<M>(site: &Site, job: &Job, machine: M, found: &Found<'_>) -> Result<Driver<M>, RunError>
where
    M: LoginMachine,
    RunError: From<net::Error<M::Error>>,
{
    let route = route(job);
    let stream = site.connector.connect_watched(&route, &|milestone| found.passed(milestone)).await;
    let stream = stream.map_err(|error| RunError::from(error.widen::<M::Error>()))?;
    let mut driver = Driver::new(stream, machine, route.timeouts.clone());
    let offer = offer(&mut driver).await?;
    found.encrypted(driver.tls());
    let protocol = job.account.protocol.name(job.account.security);
    let Some(offer) = offer else {
        found.ok(TrialStep::Greeting, format!("{protocol}, logged in without asking"));
        found.ok(TrialStep::Login, "not asked for".to_owned());
        return Ok(driver);
    };
    found.ok(TrialStep::Greeting, protocol.to_owned());
    // What is known of its logins is left alone: a wrong password of a draft says nothing about the account.
    enter(&mut driver, &Logins::default(), site.clock.now(), job, offer).await?;
    found.ok(TrialStep::Login, "accepted".to_owned());
    Ok(driver)
}

/// A person waits: what does not come soon does not come.
fn route(job: &Job) -> Route {
    let mut route = job.route.clone();
    route.timeouts.connect = route.timeouts.connect.min(Duration::from_secs(20));
    route.timeouts.silence = route.timeouts.silence.min(Duration::from_secs(20));
    route
}

/// A courtesy; nothing depends on it.
async fn end<M: connectord_wire::Machine>(mut driver: Driver<M>) {
    let _ = timeout(Duration::from_secs(2), driver.flush()).await;
    driver.shutdown().await;
}

/// What has been found so far.
struct Found<'a> {
    job: &'a Job,
    see: SeeStep<'a>,
    inner: Mutex<Inner>,
}

struct Inner {
    done: Vec<(TrialStep, TrialOutcome, Duration)>,
    since: Instant,
    messages: Option<u64>,
    folders: Vec<String>,
}

impl<'a> Found<'a> {
    fn new(job: &'a Job, see: SeeStep<'a>) -> Self {
        let inner = Inner { done: Vec::new(), since: Instant::now(), messages: None, folders: Vec::new() };
        Self { job, see, inner: Mutex::new(inner) }
    }

    /// The time of the first step counts from now.
    fn begin(&self) {
        self.inner().since = Instant::now();
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ok(&self, step: TrialStep, text: String) {
        self.note(step, TrialOutcome::Ok(text));
    }

    fn note(&self, step: TrialStep, outcome: TrialOutcome) {
        let mut inner = self.inner();
        let took = inner.since.elapsed();
        inner.since = Instant::now();
        inner.done.push((step, outcome.clone(), took));
        drop(inner);
        (self.see)(step, &outcome, took);
    }

    fn passed(&self, milestone: Milestone) {
        match milestone {
            Milestone::Resolved { addresses: 1 } => self.ok(TrialStep::Name, "1 address".to_owned()),
            Milestone::Resolved { addresses } => self.ok(TrialStep::Name, format!("{addresses} addresses")),
            Milestone::Connected { address } => {
                self.ok(TrialStep::Connection, address.map_or_else(|| "connected".to_owned(), |it| it.to_string()));
            }
            Milestone::Secured { version } => self.ok(TrialStep::Encryption, version.replace("TLSv", "TLS ")),
        }
    }

    /// With STARTTLS it began after the greeting; without any, that is said.
    fn encrypted(&self, tls: Option<&net::TlsInfo>) {
        let mut inner = self.inner();
        if inner.done.iter().any(|(step, ..)| *step == TrialStep::Encryption) {
            return;
        }
        let outcome = match tls {
            Some(tls) => TrialOutcome::Ok(tls.version.replace("TLSv", "TLS ")),
            None => TrialOutcome::Note("none: the password and the mail travel readable for others".to_owned()),
        };
        inner.done.push((TrialStep::Encryption, outcome.clone(), Duration::ZERO));
        drop(inner);
        (self.see)(TrialStep::Encryption, &outcome, Duration::ZERO);
    }

    fn failed(&self, error: &RunError) {
        let step = self.at(Some(error));
        let (cause, reason) = (error.trouble().cause, error.reason(self.job));
        self.note(step, TrialOutcome::Failed { cause, reason, text: chain(error), hint: error.hint() });
    }

    fn timed_out(&self) {
        let text = format!("nothing more came within {} s", WHOLE.as_secs());
        let (cause, endpoint) = (Cause::NoAnswer, &self.job.account.endpoint);
        let reason = Reason::new(cause.code()).with("host", endpoint.host()).with("port", endpoint.port());
        self.note(self.at(None), TrialOutcome::Failed { cause, reason: reason.said(text.clone()), text, hint: None });
    }

    /// The step that an error belongs to: the first that is not done, but for TLS that was to start after the greeting.
    fn at(&self, error: Option<&RunError>) -> TrialStep {
        let inner = self.inner();
        let is_tls = |error: &RunError| matches!(error.trouble().cause, Cause::Tls | Cause::TlsNotOffered);
        let open = |step: &TrialStep| inner.done.iter().all(|(done, ..)| done != step);
        let first = TrialStep::ALL.into_iter().find(open).unwrap_or(TrialStep::Delivery);
        match first {
            // Nothing was encrypted yet: but for TLS from the first octet that comes after the greeting, or not at all.
            TrialStep::Encryption if self.job.account.security != Security::Tls && !error.is_some_and(is_tls) => {
                TrialStep::Greeting
            }
            first => first,
        }
    }

    fn trial(self) -> Trial {
        let Inner { done, messages, folders, .. } = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        let steps = TrialStep::ALL.into_iter().map(|step| {
            let found = done.iter().find(|(known, ..)| *known == step).cloned();
            found.unwrap_or((step, TrialOutcome::NotReached, Duration::ZERO))
        });
        Trial { steps: steps.collect(), messages, folders }
    }
}
