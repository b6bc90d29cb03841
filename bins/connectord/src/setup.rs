//! From a configuration file to a site and its jobs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use connectord_config::build::{
    Builder, filters, key_ring, open_state, quarantine, quarantine_directory, quarantine_options, site,
    state_directory, trail,
};
use connectord_config::{Config, KeyRing, LogLevel, LogTarget};
use connectord_engine::{Clock, Job, Observer, Site};
use connectord_filter::Chain;
use connectord_net::Connector;
use connectord_notices::{Inbox, Setup};
use connectord_quarantine::DirectoryQuarantine;
use connectord_store::SavedAccounts;
use connectord_stores::sqlite::SqliteStore;
use connectord_stores::trail::SqliteTrail;
use tracing::level_filters::LevelFilter;
use tracing::warn;

use crate::accounts::{Known, look_after_keys, merge};
use crate::error::Error;
use crate::logging::{self, Colour, Guard, Ring, Settings, Target};
use crate::quarantine::destination;

/// Where the configuration is when nothing else is said.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/connectord/connectord.toml";

/// Reads the configuration.
pub(crate) fn load_config(path: Option<PathBuf>) -> Result<Config, Error> {
    let path = path.unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG));
    Ok(Config::read(&path)?)
}

/// Reads the configuration and prints its warnings.
pub(crate) fn read_config(path: Option<PathBuf>) -> Result<Config, Error> {
    let config = load_config(path)?;
    for warning in &config.warnings {
        crate::say::err(format_args!("warning: {warning}"));
    }
    Ok(config)
}

/// What the file says about the log.
pub(crate) fn log_settings(config: &Config, colour: Colour) -> Settings {
    let target = match config.log.to {
        LogTarget::Stderr => Target::Stderr,
        LogTarget::Syslog => Target::Syslog,
        LogTarget::Journald => Target::Journald,
    };
    let level = match config.log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Settings { target, level, wire: level == LevelFilter::TRACE, colour }
}

/// Starts the log.
pub(crate) fn start_log(settings: &Settings) -> Result<Guard, Error> {
    logging::start(settings).map_err(Error::from)
}

/// As [`start_log`], with the last lines kept for the page.
pub(crate) fn start_log_with(settings: &Settings, ring: Arc<Ring>) -> Result<Guard, Error> {
    logging::start_with(settings, Some(ring)).map_err(Error::from)
}

/// Whether a key for stored passwords is made when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// It is, as long as nothing is sealed.
    Make,
    /// It is not: nothing will be stored.
    AsThereAre,
}

/// The live parts.
pub(crate) struct Parts {
    pub(crate) store: Arc<SqliteStore>,
    /// What became of each message; nothing where that is switched off.
    pub(crate) trail: Option<Arc<SqliteTrail>>,
    pub(crate) site: Arc<Site>,
    pub(crate) builder: Builder,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) known: Arc<Known>,
    /// Where messages are kept back; nothing where there is no such place.
    pub(crate) quarantine: Option<DirectoryQuarantine>,
}

/// The same, with somebody who is told about these accounts: the inbox stands before `observer`.
pub(crate) async fn build_with_notices(
    config: &Config,
    keys: Keys,
    observer: Arc<dyn Observer>,
) -> Result<(Parts, Arc<Inbox>, Setup), Error> {
    let inbox = Arc::new(Inbox::new(observer, Clock::system()));
    let mut parts = build_in(config, &state_directory(config)?, keys, inbox.clone()).await?;
    let setup = parts.builder.notices(config, &parts.known.jobs).await?;
    Ok((parts, inbox, setup))
}

/// Opens the state and builds everything.
pub(crate) async fn build(config: &Config, observer: Arc<dyn Observer>) -> Result<Parts, Error> {
    build_in(config, &state_directory(config)?, Keys::AsThereAre, observer).await
}

/// The same with the state in another directory than the configuration says.
pub(crate) async fn build_in(
    config: &Config,
    state: &Path,
    keys: Keys,
    observer: Arc<dyn Observer>,
) -> Result<Parts, Error> {
    let store = Arc::new(open_state(state)?);
    let connector = Connector::new();
    // A new key opens nothing: none is made in the place of one that is lost.
    let any_sealed = store.saved_accounts().await?.iter().any(|saved| saved.secret.is_some());
    let keys = Arc::new(key_ring(config, state, keys == Keys::Make && !any_sealed));
    look_after_keys(&*store, &keys).await?;
    let mut builder = Builder::new(connector.clone(), store.instance()).with_keys(Arc::clone(&keys));
    let known = Arc::new(merge(config, &*store, &mut builder).await?);
    let chain = builder.chain(config).await?;
    let quarantine = match chain.filters.is_empty() {
        true => open_quarantine(config, store.path())?,
        false => Some(quarantine(config, store.path())?),
    };
    let filters = filters(config, chain, quarantine.as_ref());
    let mut site = site(config, Arc::clone(&store), connector, observer, filters)?;
    let trail = match trail(config, store.path()) {
        Ok(trail) => trail.map(Arc::new),
        Err(error) => {
            warn!(%error, "what becomes of messages is not remembered");
            None
        }
    };
    if let Some(trail) = &trail {
        site.trail = trail.clone();
    }
    let site = Arc::new(site);
    if let Some(quarantine) = &quarantine {
        let now = site.clock.now();
        // The sweep takes away what tells how a release ended that was cut short.
        quarantine.recover(|name| destination(&known.jobs, name), now).await;
        if let Err(error) = quarantine.tidy(now).await {
            warn!(%error, "what is due in the quarantine cannot be removed");
        }
    }
    connectord_engine::sweep(&site, &known.jobs).await?;
    Ok(Parts { store, trail, site, builder, keys, known, quarantine })
}

impl Parts {
    /// Does what is queued and closes the state.
    pub(crate) async fn close(&self) {
        if let Some(trail) = &self.trail {
            trail.close().await;
        }
        self.store.close().await;
    }

    /// All accounts that can be run, those of the file first.
    pub(crate) fn jobs(&self) -> &[Job] {
        &self.known.jobs
    }

    /// Opens the quarantine of a daemon whose configuration may name filters later.
    pub(crate) fn open_quarantine(&mut self, config: &Config) -> Result<(), Error> {
        if self.quarantine.is_none() {
            self.quarantine = Some(quarantine(config, self.store.path())?);
        }
        Ok(())
    }

    /// Has the filters of another configuration look at messages from now on, and the quarantine keep what it says there.
    pub(crate) fn replace_filters(&self, config: &Config, chain: Chain) {
        if let Some(quarantine) = &self.quarantine {
            quarantine.set_options(quarantine_options(config));
            let (now, wanted) = (quarantine.path(), quarantine_directory(config, self.store.path()));
            if now != wanted {
                let (now, wanted) = (now.display(), wanted.display());
                warn!(%now, %wanted, "the quarantine moves at the next start, and what is held does not move with it");
            }
        }
        self.site.filters.replace(&filters(config, chain, self.quarantine.as_ref()));
    }
}

/// Opens the quarantine, if there is one.
pub(crate) fn open_quarantine(config: &Config, state: &Path) -> Result<Option<DirectoryQuarantine>, Error> {
    match quarantine_directory(config, state).symlink_metadata() {
        Ok(_) => Ok(Some(quarantine(config, state)?)),
        Err(_) => Ok(None),
    }
}
