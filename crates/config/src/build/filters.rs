//! Filters, the quarantine, and who learns from a release.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_engine::Filters;
use connectord_filter::{Chain, Class, Filter, Quarantine, Teacher, Unchecked, Why};
use connectord_filters::rspamd::{Controller, ControllerOptions, Learn, Learned};
use connectord_filters::{OptionsError, clamav, command, rspamd, rules, spamassassin};
use connectord_mail::Body;
use connectord_net::{Connector, TlsSettings};
use connectord_quarantine::{DirectoryQuarantine, OpenError};
use connectord_wire::{Address, Secret};

use super::{BuildError, Builder, certificates, host_name};
use crate::{Config, FilterEntry, FilterKind, FilterUrl, HttpSettings, Listen, PasswordSource, credentials};

/// A filter, and what it was made from.
pub(super) struct Built {
    entry: FilterEntry,
    timeout: Duration,
    /// What the source of its password gave.
    password: Option<Secret>,
    filter: Arc<dyn Filter>,
}

impl Builder {
    /// The filters of the configuration. Those whose settings did not change stay the same over a reload, with their
    /// connections.
    ///
    /// # Errors
    /// [`BuildError`] for the first thing that cannot be built.
    pub async fn chain(&mut self, config: &Config) -> Result<Chain, BuildError> {
        let mut built = Vec::with_capacity(config.filters.chain.len());
        for entry in &config.filters.chain {
            built.push(self.filter(config, entry).await?);
        }
        let filters = built.iter().map(|built| Arc::clone(&built.filter)).collect();
        self.filters = built;
        Ok(Chain { filters })
    }

    async fn filter(&mut self, config: &Config, entry: &FilterEntry) -> Result<Built, BuildError> {
        let timeout = config.filters.timeout;
        let password = match &entry.filter {
            FilterKind::Rspamd(settings) => password(&entry.name, settings.worker.password.as_ref()).await?,
            _ => None,
        };
        let same = |built: &&Built| built.entry == *entry && built.timeout == timeout && built.password == password;
        let filter = match self.filters.iter().find(same) {
            Some(built) => Arc::clone(&built.filter),
            None => make(config, entry, password.clone(), &self.connector)?,
        };
        Ok(Built { entry: entry.clone(), timeout, password, filter })
    }
}

fn make(
    config: &Config,
    entry: &FilterEntry,
    password: Option<Secret>,
    connector: &Connector,
) -> Result<Arc<dyn Filter>, BuildError> {
    let failed = |error: OptionsError| BuildError::Filter { filter: entry.name.clone(), reason: error.to_string() };
    let (name, timeout) = (entry.name.clone(), config.filters.timeout);
    Ok(match &entry.filter {
        FilterKind::Rspamd(settings) => {
            let (address, tls) = http(config, &settings.worker)?;
            let mut options = rspamd::Options::new(address);
            options.tls = tls;
            options.password = password;
            options.settings_id.clone_from(&settings.settings_id);
            options.host_name = Some(host_name());
            options.timeout = timeout;
            options.at_once = entry.at_once;
            options.max_octets = entry.max_octets;
            options.connector = connector.clone();
            Arc::new(rspamd::Rspamd::new(name, options).map_err(failed)?)
        }
        FilterKind::Clamav(settings) => {
            let mut options = clamav::Options::new(address(&settings.address));
            options.timeout = timeout;
            options.at_once = entry.at_once;
            options.max_octets = entry.max_octets;
            options.connector = connector.clone();
            Arc::new(clamav::Clamav::new(name, options).map_err(failed)?)
        }
        FilterKind::SpamAssassin(settings) => {
            let mut options = spamassassin::Options::new(address(&settings.address));
            options.user = settings.user.clone();
            options.timeout = timeout;
            options.at_once = entry.at_once;
            options.max_octets = entry.max_octets;
            options.connector = connector.clone();
            Arc::new(spamassassin::SpamAssassin::new(name, options).map_err(failed)?)
        }
        FilterKind::Command(settings) => {
            let mut options = command::Options::new(&settings.program, settings.arguments.clone());
            options.kind = settings.kind;
            options.meanings.clone_from(&settings.meanings);
            options.output = settings.output;
            options.run_as.clone_from(&settings.run_as);
            options.search_path.clone_from(&settings.search_path);
            options.timeout = timeout;
            options.at_once = entry.at_once;
            options.max_octets = entry.max_octets;
            Arc::new(command::Command::new(name, options).map_err(failed)?)
        }
        FilterKind::Rules(settings) => {
            let mut options = rules::Options::new(settings.rules.clone());
            options.limits = settings.limits;
            options.timeout = timeout;
            options.at_once = entry.at_once;
            Arc::new(rules::RulesFilter::new(name, options).map_err(failed)?)
        }
    })
}

/// An address as those who connect know it.
pub(super) fn address(listen: &Listen) -> Address {
    match listen {
        Listen::Unix(path) => Address::Unix(path.clone()),
        Listen::Tcp(endpoint) => Address::Tcp(endpoint.clone()),
    }
}

fn http(config: &Config, settings: &HttpSettings) -> Result<(Address, Option<TlsSettings>), BuildError> {
    let (endpoint, tls) = match &settings.url {
        FilterUrl::Unix(path) => return Ok((Address::Unix(path.clone()), None)),
        FilterUrl::Tcp { endpoint, tls } => (endpoint.clone(), *tls),
    };
    let mut roots = Vec::new();
    for path in [&config.tls.ca_file, &settings.ca_file].into_iter().flatten().filter(|_| tls) {
        roots.extend(certificates(path)?);
    }
    let tls = tls.then(|| TlsSettings { minimum_version: config.tls.minimum, roots, ..TlsSettings::default() });
    Ok((Address::Tcp(endpoint), tls))
}

async fn password(filter: &str, source: Option<&PasswordSource>) -> Result<Option<Secret>, BuildError> {
    let Some(source) = source else { return Ok(None) };
    let password = credentials::password(source).await;
    password.map(Some).map_err(|error| BuildError::FilterPassword { filter: filter.to_owned(), error })
}

/// Where the quarantine of a state is.
pub fn quarantine_directory(config: &Config, state: &Path) -> PathBuf {
    config.quarantine.path.clone().unwrap_or_else(|| state.join("quarantine"))
}

/// Opens the quarantine, and makes its directory if only that is missing. Blocks while it reads what is there.
///
/// # Errors
/// [`OpenError`], above all when another process has it.
pub fn quarantine(config: &Config, state: &Path) -> Result<DirectoryQuarantine, OpenError> {
    DirectoryQuarantine::open(&quarantine_directory(config, state), quarantine_options(config))
}

/// How much the quarantine keeps, and for how long.
pub fn quarantine_options(config: &Config) -> connectord_quarantine::Options {
    let settings = &config.quarantine;
    connectord_quarantine::Options {
        keep_for: settings.keep_for,
        max_octets: settings.max_octets,
        max_messages: settings.max_messages,
        disk_timeout: settings.disk_timeout,
        ..connectord_quarantine::Options::default()
    }
}

/// The filters as the engine has them, with where they keep messages back.
pub fn filters(config: &Config, chain: Chain, quarantine: Option<&DirectoryQuarantine>) -> Filters {
    let quarantine = quarantine.map(|quarantine| Arc::new(quarantine.clone()) as Arc<dyn Quarantine>);
    Filters::new(chain, quarantine).within(config.filters.timeout)
}

/// Who learns from a release, if `[filter.rspamd.controller]` is there.
pub fn teacher(config: &Config) -> Option<Arc<dyn Teacher>> {
    let controller = config.filters.chain.iter().find_map(|entry| match &entry.filter {
        FilterKind::Rspamd(settings) => settings.controller.clone(),
        _ => None,
    })?;
    Some(Arc::new(RspamdTeacher { config: config.clone(), controller }))
}

/// Rspamd's controller; connected, and its password obtained, at each lesson.
struct RspamdTeacher {
    config: Config,
    controller: HttpSettings,
}

#[async_trait]
impl Teacher for RspamdTeacher {
    async fn learn(&self, body: Arc<dyn Body>, class: Class, deadline: Instant) -> Result<(), Unchecked> {
        let wrong = |text: String| Unchecked::new(Why::Misconfigured, text);
        let (address, tls) = http(&self.config, &self.controller).map_err(|error| wrong(error.to_string()))?;
        let mut options = ControllerOptions::new(address);
        options.tls = tls;
        options.password = password("rspamd.controller", self.controller.password.as_ref())
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let controller = Controller::new(options).map_err(|error| wrong(error.to_string()))?;
        let what = match class {
            Class::Ham => Learn::Ham,
            Class::Spam => Learn::Spam,
        };
        match controller.learn(what, body, deadline).await? {
            Learned::Now | Learned::Before => Ok(()),
            Learned::Not(text) => Err(Unchecked::new(Why::Refused, text)),
        }
    }
}
