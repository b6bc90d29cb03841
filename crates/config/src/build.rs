//! The live parts that a configuration describes: destinations, filters, jobs, and the site they run on.

mod filters;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use connectord_account::{Account, ProxySettings};
use connectord_deliveries::{command, lmtp, maildir, mbox, smtp};
use connectord_delivery::{Delivery, Failure, FailureKind, Presence, Recipient, Template};
use connectord_engine::{Ambiguous, Board, Clock, Filters, Job, Limits, Logins, Observer, Site, Spool, Users};
use connectord_net::{CertificateDer, Connector, Proxy, ProxyAuth, Reach, Route, TlsSettings, certificates_from_pem};
use connectord_notices as notices;
use connectord_sasl::{CredentialError, Credentials};
use connectord_store::{NoTrail, StoreError};
use connectord_stores::sqlite::{self, SqliteStore};
use connectord_stores::trail::{self, SqliteTrail};
use connectord_wire::Escaped;

pub use filters::{filters, quarantine, quarantine_directory, quarantine_options, teacher};

use crate::saved::ReadAccount;
use crate::{Config, DeliverySettings, KeyRing, UserSource, credentials, default_state_directory, key_file, relays};

/// Why a checked configuration cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no place for the state.
    #[error("no place for the state is known; set [state] url, STATE_DIRECTORY or HOME")]
    NoStateDirectory,
    /// The database has a name of its own.
    #[error("the database in {path} must be called state.db; write [state] url = \"sqlite:///…/state.db\"")]
    DatabaseName {
        /// What is configured.
        path: String,
    },
    /// A directory cannot be made or used.
    #[error("cannot use the directory {path}")]
    Directory {
        /// Which.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The state cannot be opened.
    #[error(transparent)]
    State(#[from] StoreError),
    /// A file with certificates cannot be read.
    #[error("certificates in {path}: {reason}")]
    Certificates {
        /// Which file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A password of a destination cannot be had.
    #[error("password of the destination {destination}: {error}")]
    Password {
        /// Its name.
        destination: String,
        /// Why not.
        error: CredentialError,
    },
    /// A password of a filter cannot be had.
    #[error("password of the filter {filter}: {error}")]
    FilterPassword {
        /// Its name.
        filter: String,
        /// Why not.
        error: CredentialError,
    },
    /// A filter cannot be made.
    #[error("filter {filter}: {reason}")]
    Filter {
        /// Its name.
        filter: String,
        /// Why not.
        reason: String,
    },
    /// A way of notices cannot be had.
    #[error("[notices]: {reason}")]
    Notices {
        /// Why not.
        reason: String,
    },
    /// Something the reader should have refused.
    #[error("account {account}: {reason}")]
    Account {
        /// Its address.
        account: String,
        /// What is wrong.
        reason: String,
    },
}

/// Where the state is: what is configured, else the default place.
///
/// # Errors
/// [`BuildError::NoStateDirectory`] and [`BuildError::DatabaseName`].
pub fn state_directory(config: &Config) -> Result<PathBuf, BuildError> {
    match &config.state.database {
        None => default_state_directory(|name| std::env::var_os(name)).ok_or(BuildError::NoStateDirectory),
        Some(path) => match (path.parent(), path.file_name()) {
            (Some(directory), Some(name)) if name == "state.db" => Ok(directory.to_owned()),
            _ => Err(BuildError::DatabaseName { path: path.display().to_string() }),
        },
    }
}

/// The keys of the stored passwords: as `[state] key_file` says, or where they are by default. `make` has a key file made
/// that is not there.
pub fn key_ring(config: &Config, state: &Path, make: bool) -> KeyRing {
    let path = key_file(config.state.key_file.as_deref(), state, |name| std::env::var_os(name));
    KeyRing::open(&path, make)
}

/// Opens the state, and makes its directory if only that is missing.
///
/// # Errors
/// [`BuildError::State`], above all when another process has it open.
pub fn open_state(directory: &Path) -> Result<SqliteStore, BuildError> {
    Ok(SqliteStore::open(directory, sqlite::Options::default())?)
}

/// The site that all accounts share, with these filters.
///
/// # Errors
/// [`BuildError::Directory`] when the spool cannot be made beside the state.
pub fn site(
    config: &Config,
    store: Arc<SqliteStore>,
    connector: Connector,
    observer: Arc<dyn Observer>,
    filters: Filters,
) -> Result<Site, BuildError> {
    let spool = store.path().join("spool");
    match std::fs::create_dir(&spool) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(BuildError::Directory { path: spool.display().to_string(), source });
        }
        _ => {}
    }
    Ok(Site {
        store,
        connector,
        spool: Spool::new(spool, 64 * 1024 * 1024),
        hostname: host_name(),
        clock: Clock::system(),
        logins: Logins::default(),
        users: Arc::new(KnownUsers(config.users.source.clone())),
        observer,
        filters,
        board: Board::default(),
        trail: Arc::new(NoTrail),
    })
}

/// Opens the trail beside the state; nothing where it is switched off.
///
/// # Errors
/// [`StoreError`] when its file cannot be opened or made. Mail can go on without it.
pub fn trail(config: &Config, state: &Path) -> Result<Option<SqliteTrail>, StoreError> {
    let Some(keep) = config.trail.keep_for else { return Ok(None) };
    SqliteTrail::open(state, trail::Options { keep, ..trail::Options::default() }).map(Some)
}

/// How many checks may run at once.
pub fn limits(config: &Config) -> Limits {
    let schedule = &config.schedule;
    Limits {
        concurrency: schedule.concurrency as usize,
        per_host: schedule.per_host as usize,
        idle_per_host: schedule.idle_per_host as usize,
        jitter: schedule.jitter,
    }
}

/// Builds jobs and filters; destinations and filters whose settings did not change stay the same over a reload, with their connections.
pub struct Builder {
    connector: Connector,
    instance: String,
    keys: Option<Arc<KeyRing>>,
    built: HashMap<String, (DeliverySettings, Arc<dyn Delivery>)>,
    filters: Vec<filters::Built>,
}

impl Builder {
    /// `instance` names our files in a Maildir; it stays the same as long as the state does.
    pub fn new(connector: Connector, instance: &str) -> Self {
        Self { connector, instance: instance.to_owned(), keys: None, built: HashMap::new(), filters: Vec::new() }
    }

    /// The same, which opens passwords that are kept in the state with these keys.
    #[must_use]
    pub fn with_keys(self, keys: Arc<KeyRing>) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// A job for each account of the configuration, in its order, switched-off ones too.
    ///
    /// # Errors
    /// [`BuildError`] for the first thing that cannot be built.
    pub async fn jobs(&mut self, config: &Config) -> Result<Vec<Job>, BuildError> {
        let roots = roots(config)?;
        let mut jobs = Vec::with_capacity(config.accounts.len());
        for account in &config.accounts {
            jobs.push(self.job(config, account, &roots).await?);
        }
        Ok(jobs)
    }

    /// A job for each of these accounts, which are in no file. One that cannot be built is in the way of no other. They
    /// connect to the public internet and to `[saved] networks` only.
    ///
    /// # Errors
    /// [`BuildError::Certificates`] when the authorities that all accounts trust cannot be read.
    pub async fn jobs_of(
        &mut self,
        config: &Config,
        accounts: &[ReadAccount],
    ) -> Result<Vec<Result<Job, BuildError>>, BuildError> {
        let roots = roots(config)?;
        let mut jobs = Vec::with_capacity(accounts.len());
        for ReadAccount { account, policy, .. } in accounts {
            let reach = Reach::Public { also: config.saved.networks.clone() };
            let job = self.job(config, account, &roots).await;
            jobs.push(job.map(|job| Job { route: Route { reach, ..job.route }, policy: policy.clone(), ..job }));
        }
        Ok(jobs)
    }

    /// Who is told what about these jobs, which are all of the configuration.
    ///
    /// # Errors
    /// [`BuildError`] for the first thing that cannot be built.
    pub async fn notices(&mut self, config: &Config, jobs: &[Job]) -> Result<notices::Setup, BuildError> {
        let settings = &config.notices;
        let wrong = |reason: String| BuildError::Notices { reason };
        let mut ways = notices::Ways::none();
        if let Some(from) = &settings.mail_from {
            ways.mail_from.clone_from(from);
        }
        if !settings.mail_to.is_empty() {
            let name = settings.delivery.as_deref();
            let built = config.delivery(name).ok_or_else(|| wrong("there is no such [delivery]".into()))?;
            let delivery = self.delivery(name.unwrap_or("default"), built).await?;
            ways.mail_to = settings
                .mail_to
                .iter()
                .map(|to| {
                    let recipient = Recipient { user: to.clone(), address: to.clone() };
                    notices::Reader { recipient, delivery: Arc::clone(&delivery) }
                })
                .collect();
        }
        ways.to_users = settings.to_users;
        if let Some((program, arguments)) = settings.command.split_first() {
            ways.program = Some(notices::Program::new(program, arguments.to_vec()));
        }
        if let Some(url) = &settings.webhook {
            let roots = match &config.tls.ca_file {
                Some(path) => Some(std::fs::read(path).map_err(|error| BuildError::Certificates {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                })?),
                None => None,
            };
            let webhook = notices::Webhook::new(url, settings.webhook_token_file.clone(), roots.as_deref());
            ways.webhook = Some(webhook.map_err(wrong)?);
        }
        Ok(notices::Setup::new(settings.policy.clone(), ways, host_name(), jobs))
    }

    async fn job(
        &mut self,
        config: &Config,
        account: &Account,
        roots: &[CertificateDer<'static>],
    ) -> Result<Job, BuildError> {
        let wrong = |reason: &str| BuildError::Account { account: account.address.clone(), reason: reason.to_owned() };
        let name = account.delivery.clone().unwrap_or_else(|| "default".to_owned());
        let settings =
            config.delivery(account.delivery.as_deref()).ok_or_else(|| wrong("there is no such [delivery]"))?;
        let delivery = self.delivery(&name, settings).await?;
        let credentials = match &self.keys {
            Some(keys) => credentials::with_keys(account, keys),
            None => credentials::of(account),
        };
        let credentials = credentials.ok_or_else(|| wrong("there is no password"))?;
        let ambiguous = settings.ambiguous();
        Ok(Job { ambiguous, ..job(config, account.clone(), credentials, name, delivery, roots)? })
    }

    async fn delivery(&mut self, name: &str, settings: &DeliverySettings) -> Result<Arc<dyn Delivery>, BuildError> {
        if let Some((built, delivery)) = self.built.get(name)
            && built == settings
        {
            return Ok(Arc::clone(delivery));
        }
        let delivery = self.build_delivery(name, settings).await?;
        self.built.insert(name.to_owned(), (settings.clone(), Arc::clone(&delivery)));
        Ok(delivery)
    }

    async fn build_delivery(&self, name: &str, settings: &DeliverySettings) -> Result<Arc<dyn Delivery>, BuildError> {
        Ok(match settings {
            DeliverySettings::Maildir(settings) => {
                let mut options = maildir::Options::new(settings.path.clone(), &self.instance);
                options.create = if settings.create { maildir::Create::InParent } else { maildir::Create::Never };
                options.reserve = reserve(settings.reserve);
                options.quota = settings.quota;
                options.disk_timeout = settings.disk_timeout;
                if let Some(hostname) = &settings.hostname {
                    options.hostname.clone_from(hostname);
                }
                if settings.check_existing_always {
                    options.check_existing = maildir::CheckExisting::Always;
                }
                Arc::new(maildir::Maildir::new(options))
            }
            DeliverySettings::Lmtp(settings) => {
                let mut options = lmtp::Options::new(filters::address(&settings.address));
                options.host_name = settings.hello.clone().unwrap_or_else(host_name);
                options.connections = settings.connections as usize;
                options.reply = settings.timeout;
                Arc::new(lmtp::Lmtp::new(options, self.connector.clone()))
            }
            DeliverySettings::Smtp(settings) => {
                let mut options = smtp::Options::new(settings.endpoint.clone(), settings.security);
                options.host_name = settings.hello.clone().unwrap_or_else(host_name);
                options.connections = settings.connections as usize;
                options.reply = settings.timeout;
                if let Some(path) = &settings.ca_file {
                    options.tls.roots = certificates(path)?;
                }
                if let Some(login) = &settings.login {
                    let password = credentials::password(&login.password)
                        .await
                        .map_err(|error| BuildError::Password { destination: name.to_owned(), error })?;
                    options.login = Some(smtp::Login { username: login.username.clone(), password });
                }
                Arc::new(smtp::Smtp::new(options, self.connector.clone()))
            }
            DeliverySettings::Mbox(settings) => {
                let mut options = mbox::Options::new(settings.path.clone());
                options.lock_timeout = settings.lock_timeout;
                options.stale_lock = settings.stale_lock;
                options.reserve = reserve(settings.reserve);
                Arc::new(mbox::Mbox::new(options))
            }
            DeliverySettings::Command(settings) => {
                let mut options = command::Options::new(&settings.program, settings.arguments.clone());
                options.run_as.clone_from(&settings.run_as);
                options.timeout = settings.timeout;
                options.concurrency = settings.concurrency as usize;
                options.from_line = settings.from_line;
                options.search_path.clone_from(&settings.search_path);
                Arc::new(command::Command::new(options))
            }
        })
    }
}

/// A job from its parts, for an account that is in no file.
///
/// # Errors
/// [`BuildError`] when a certificate file, a fingerprint or the recipient's template is of no use.
pub fn job(
    config: &Config,
    account: Account,
    credentials: Arc<dyn Credentials>,
    destination: String,
    delivery: Arc<dyn Delivery>,
    roots: &[CertificateDer<'static>],
) -> Result<Job, BuildError> {
    let wrong = |reason: String| BuildError::Account { account: account.address.clone(), reason };
    let mut tls = TlsSettings { minimum_version: config.tls.minimum, roots: roots.to_vec(), ..TlsSettings::default() };
    if let Some(path) = &account.ca_file {
        tls.roots.extend(certificates(path)?);
    }
    for pin in &account.pins {
        tls.pins.push(pin.parse().map_err(|error| wrong(format!("pin {pin:?}: {error}")))?);
    }
    let mut route = Route::new(account.endpoint.clone(), account.security);
    route.tls = tls;
    route.timeouts = config.timeouts.clone();
    route.proxy = account.proxy.as_ref().map(proxy);
    let template: Template = account.recipient.parse().map_err(|error| wrong(format!("recipient: {error}")))?;
    let recipients = account.deliver_to.iter().map(|user| {
        let user = Recipient { user: user.clone(), address: user.clone() };
        let address = template.expand(&user);
        Recipient { address, ..user }
    });
    let recipients = recipients.collect();
    let ambiguous = Ambiguous::default();
    let (policy, relays) = (config.policy(&account).clone(), relays(&account));
    Ok(Job {
        account: Arc::new(account),
        credentials,
        route,
        destination,
        delivery,
        recipients,
        ambiguous,
        policy,
        relays,
    })
}

fn proxy(settings: &ProxySettings) -> Proxy {
    let auth = settings
        .login
        .as_ref()
        .map(|(username, password)| ProxyAuth { username: username.clone(), password: password.clone() });
    let endpoint = settings.endpoint.clone();
    if settings.socks5 { Proxy::Socks5 { endpoint, auth } } else { Proxy::Http { endpoint, auth } }
}

fn reserve(reserve: crate::Reserve) -> maildir::Reserve {
    maildir::Reserve { octets: reserve.octets, percent: reserve.percent }
}

/// The authorities that all accounts trust beside the system's.
fn roots(config: &Config) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    config.tls.ca_file.as_deref().map_or_else(|| Ok(Vec::new()), certificates)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let failed = |reason: String| BuildError::Certificates { path: path.display().to_string(), reason };
    let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    certificates_from_pem(&pem).map_err(|error| failed(error.to_string()))
}

/// This machine's name.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}

/// Who is a local user, as `[users]` says.
struct KnownUsers(UserSource);

#[async_trait]
impl Users for KnownUsers {
    async fn presence(&self, user: &str) -> Result<Option<Presence>, Failure> {
        match &self.0 {
            UserSource::Delivery => Ok(None),
            UserSource::Any => Ok(Some(Presence::Here)),
            UserSource::List(users) => Ok(Some(if users.iter().any(|known| known == user) {
                Presence::Here
            } else {
                Presence::Absent("[users] list does not name it".into())
            })),
            UserSource::System => in_system(user.to_owned()).await.map(Some),
        }
    }
}

/// The user database may be a directory server that hangs, so it is asked on a thread that may wait, for a while.
async fn in_system(user: String) -> Result<Presence, Failure> {
    let shown = Escaped::text(&user).to_string();
    let asked = tokio::task::spawn_blocking(move || nix::unistd::User::from_name(&user));
    let failed = |text: String| Failure::new(FailureKind::Unavailable, format!("looking up the user {shown}: {text}"));
    match tokio::time::timeout(std::time::Duration::from_secs(20), asked).await {
        Ok(Ok(Ok(Some(_)))) => Ok(Presence::Here),
        Ok(Ok(Ok(None))) => Ok(Presence::Absent("the system's user database does not have it".into())),
        Ok(Ok(Err(error))) => Err(failed(error.to_string())),
        Ok(Err(panicked)) => Err(failed(panicked.to_string())),
        Err(_) => Err(failed("no answer for 20 s".into())),
    }
}
