//! `connectord fetch`: check accounts once, now.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use connectord::look::{Look, width};
use connectord_config::Config;
use connectord_config::build::{limits, state_directory};
use connectord_engine::{Exit, Job, Mode, Observer, Quiet, Report, RunError, Site, run};
use connectord_notices::Desk;
use connectord_store::StoreError;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::error;
use tracing::level_filters::LevelFilter;

use crate::cli::Fetch;
use crate::error::Error;
use crate::logging::{Colour, Guard, Target};
use crate::progress::{self, Bars};
use crate::{control, logging, one, process, say, serve, setup};

/// Longest that notices may keep the command from ending.
const NOTICES: Duration = Duration::from_secs(20);

pub(crate) async fn fetch(config: Option<PathBuf>, options: Fetch, colour: Colour) -> Result<Exit, Error> {
    if let [url] = &options.accounts[..]
        && url.contains("://")
    {
        return one::fetch_url(url, &options, colour).await;
    }
    if options.accounts.iter().any(|account| account.contains("://")) {
        return Err(Error::Usage("a URL stands alone: one mailbox at a time".into()));
    }
    if options.url.to.is_some() {
        return Err(Error::Usage(
            "--to goes with a URL; accounts of the configuration have their own destinations".into(),
        ));
    }
    let config = setup::read_config(config)?;
    process::become_user(&config.process)?;
    let observer = observer(&options, 0, colour);
    let _log = observer.start_log(&config, colour)?;
    let (parts, inbox, told) =
        match setup::build_with_notices(&config, setup::Keys::AsThereAre, observer.clone().into_observer()).await {
            Err(Error::Build(connectord_config::build::BuildError::State(StoreError::Locked { .. }))) => {
                return control::fetch(&state_directory(&config)?, &options.accounts, &options).await;
            }
            other => other?,
        };
    let jobs = chosen(parts.jobs(), &options.accounts).map_err(Error::Usage)?;
    observer.expect(jobs.len());
    let mode = Mode { by_hand: true, dry_run: options.dry_run };
    let reports = run_all(Arc::clone(&parts.site), jobs, &config, mode).await;
    observer.finish();
    let exit = show(&options, &reports, colour);
    let cut_short = reports.iter().any(|(_, report)| matches!(report.error, Some(RunError::Stopped)));
    if !options.dry_run && !cut_short {
        let desk = Desk::open(inbox, parts.store.clone(), parts.site.clock.clone()).await;
        tokio::select! {
            () = desk.once(&told, NOTICES) => {}
            () = serve::told_to_stop() => {}
        }
    }
    parts.close().await;
    Ok(exit)
}

/// The accounts to check: those named, or all that are switched on.
pub(crate) fn chosen(jobs: &[Job], named: &[String]) -> Result<Vec<Job>, String> {
    if named.is_empty() {
        return Ok(jobs.iter().filter(|job| job.account.enabled).cloned().collect());
    }
    let find = |name: &String| match jobs.iter().find(|job| job.address().eq_ignore_ascii_case(name)) {
        Some(job) => Ok(job.clone()),
        None => {
            let known: Vec<&str> = jobs.iter().take(20).map(Job::address).collect();
            Err(format!("there is no account {name}; known: {}", known.join(", ")))
        }
    };
    named.iter().map(find).collect()
}

/// Bars, lines or nothing.
#[derive(Clone)]
pub(crate) enum Shown {
    Bars(Arc<Bars>),
    Quiet,
}

impl Shown {
    pub(crate) fn into_observer(self) -> Arc<dyn Observer> {
        match self {
            Self::Bars(bars) => bars,
            Self::Quiet => Arc::new(Quiet),
        }
    }

    /// Starts the log; on a terminal its lines appear above the bars, and only those that someone should read.
    pub(crate) fn start_log(&self, config: &Config, colour: Colour) -> Result<Guard, Error> {
        let mut settings = setup::log_settings(config, colour);
        match self {
            Self::Bars(bars) if settings.target == Target::Stderr && std::io::stderr().is_terminal() => {
                settings.level = settings.level.min(LevelFilter::WARN);
                Ok(logging::start_above(&settings, Box::new(bars.above()))?)
            }
            _ => setup::start_log(&settings),
        }
    }

    /// For so many accounts.
    fn expect(&self, accounts: usize) {
        if let Self::Bars(bars) = self {
            bars.expect(accounts);
        }
    }

    pub(crate) fn finish(&self) {
        if let Self::Bars(bars) = self {
            bars.finish();
        }
    }
}

pub(crate) fn observer(options: &Fetch, accounts: usize, colour: Colour) -> Shown {
    if options.quiet {
        return Shown::Quiet;
    }
    Shown::Bars(Arc::new(Bars::new(accounts, Look::of(&std::io::stderr(), colour))))
}

/// Checks many accounts at once, within the configured limits, in their order.
pub(crate) async fn run_all(site: Arc<Site>, jobs: Vec<Job>, config: &Config, mode: Mode) -> Vec<(String, Report)> {
    let (switch, stop) = watch::channel(false);
    let limits = limits(config);
    let places = Arc::new(Semaphore::new(limits.concurrency.max(1)));
    let mut hosts = std::collections::HashMap::new();
    let mut tasks = JoinSet::new();
    for (index, job) in jobs.into_iter().enumerate() {
        let host = hosts.entry(job.account.endpoint.host().to_owned());
        let host = Arc::clone(host.or_insert_with(|| Arc::new(Semaphore::new(limits.per_host.max(1)))));
        let (site, places, stop) = (Arc::clone(&site), Arc::clone(&places), stop.clone());
        tasks.spawn(async move {
            // First a place at the host: a host that hangs keeps only its own accounts waiting.
            let _host = host.acquire_owned().await;
            let _place = places.acquire_owned().await;
            let report = run(&site, &job, mode, stop).await;
            (index, job.address().to_owned(), report)
        });
    }
    let mut reports = Vec::new();
    let signal = serve::told_to_stop();
    tokio::pin!(signal);
    let mut told = false;
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Ok(report)) => reports.push(report),
                Some(Err(panicked)) => error!(%panicked, "a check ended in a panic"),
                None => break,
            },
            () = &mut signal, if !told => {
                told = true;
                switch.send_replace(true);
            }
        }
    }
    reports.sort_by_key(|(index, ..)| *index);
    reports.into_iter().map(|(_, address, report)| (address, report)).collect()
}

/// The table or the JSON lines, and what to exit with.
pub(crate) fn show(options: &Fetch, reports: &[(String, Report)], colour: Colour) -> Exit {
    if options.json {
        for (address, report) in reports {
            say::out(control::report_json(address, report));
        }
    } else if !options.quiet {
        let out = std::io::stdout();
        let look = Look::of(&out, colour);
        say::out_as_is(&progress::closing_table(reports, width(&out).unwrap_or(usize::MAX), look));
    }
    reports.iter().fold(Exit::Ok, |exit, (_, report)| exit.worst(report.exit()))
}
