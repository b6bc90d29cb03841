//! From a configuration file to a site and its jobs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use connectord_config::build::{Builder, open_state, site, state_directory};
use connectord_config::{Config, LogLevel, LogTarget};
use connectord_engine::{Clock, Job, Observer, Site};
use connectord_net::Connector;
use connectord_notices::{Inbox, Setup};
use connectord_stores::sqlite::SqliteStore;
use tracing::level_filters::LevelFilter;

use crate::error::Error;
use crate::logging::{self, Colour, Guard, Settings, Target};

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

/// The live parts.
pub(crate) struct Parts {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) site: Arc<Site>,
    pub(crate) builder: Builder,
    pub(crate) jobs: Vec<Job>,
}

/// The same, with somebody who is told about these accounts: the inbox stands before `observer`.
pub(crate) async fn build_with_notices(
    config: &Config,
    observer: Arc<dyn Observer>,
) -> Result<(Parts, Arc<Inbox>, Setup), Error> {
    let inbox = Arc::new(Inbox::new(observer, Clock::system()));
    let mut parts = build(config, inbox.clone()).await?;
    let setup = parts.builder.notices(config, &parts.jobs).await?;
    Ok((parts, inbox, setup))
}

/// Opens the state and builds everything.
pub(crate) async fn build(config: &Config, observer: Arc<dyn Observer>) -> Result<Parts, Error> {
    build_in(config, &state_directory(config)?, observer).await
}

/// The same with the state in another directory than the configuration says.
pub(crate) async fn build_in(config: &Config, state: &Path, observer: Arc<dyn Observer>) -> Result<Parts, Error> {
    let store = Arc::new(open_state(state)?);
    let connector = Connector::new();
    let mut builder = Builder::new(connector.clone(), store.instance());
    let jobs = builder.jobs(config).await?;
    let site = Arc::new(site(config, Arc::clone(&store), connector, observer)?);
    connectord_engine::sweep(&site, &jobs).await?;
    Ok(Parts { store, site, builder, jobs })
}
