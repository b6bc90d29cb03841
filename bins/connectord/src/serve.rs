//! `connectord serve`: the daemon.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use connectord_account::Check;
use connectord_config::Config;
use connectord_config::build::{BuildError, limits};
use connectord_engine::{Exit, Job, Scheduler};
use connectord_mail::UnixTime;
use connectord_notices::{Desk, Setup};
use connectord_store::Store;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::control::{self, Control};
use crate::error::Error;
use crate::logging::Colour;
use crate::{process, setup};

pub(crate) async fn serve(path: Option<PathBuf>, colour: Colour) -> Result<Exit, Error> {
    let config = setup::load_config(path.clone())?;
    process::become_user(&config.process)?;
    let _log = setup::start_log(&setup::log_settings(&config, colour))?;
    log_warnings(&config);
    if process::is_root() {
        warn!("running as root; set [process] user, or start it as a user of its own");
    }
    let feed = Arc::new(control::Feed::default());
    let (mut parts, inbox, told) = setup::build_with_notices(&config, feed.clone()).await?;
    let (told, about_whom) = watch::channel(Arc::new(told));
    let (jobs, watched) = watch::channel(parts.jobs.clone());
    let (switch, stop) = watch::channel(false);
    let mut scheduler = Scheduler::new(Arc::clone(&parts.site), limits(&config));
    if let Some(quiet) = config.schedule.quiet {
        scheduler = scheduler.with_quiet_hours(quiet.from_minute, quiet.to_minute, minute_of_day);
    }
    let scheduler = Arc::new(scheduler);
    warn_of_few_files(&config);
    forget_removed(&parts, &config).await;

    let control = Control {
        site: Arc::clone(&parts.site),
        state: Arc::clone(&parts.store),
        scheduler: Arc::clone(&scheduler),
        jobs: watched.clone(),
        feed,
        stop: stop.clone(),
        config: config.clone(),
    };
    let listening = control.listen(parts.store.path())?;
    let control = tokio::spawn(listening);
    let running = tokio::spawn({
        let (scheduler, stop) = (Arc::clone(&scheduler), stop.clone());
        async move { scheduler.run(watched, stop).await }
    });
    let desk = Desk::open(inbox, parts.store.clone(), parts.site.clock.clone()).await;
    let notices = tokio::spawn(desk.run(about_whom, stop.clone()));
    notify(&[NotifyState::Ready]);
    info!(accounts = jobs.borrow().len(), state = %parts.store.path().display(), "connectord is running");

    let mut hangup = signal(SignalKind::hangup()).map_err(Error::io("cannot listen for SIGHUP"))?;
    let mut tidy = tokio::time::interval(std::time::Duration::from_secs(6 * 3600));
    let ending = told_to_stop();
    tokio::pin!(ending);
    loop {
        tokio::select! {
            () = &mut ending => break,
            _ = hangup.recv() => {
                notify(&[NotifyState::Reloading]);
                reload(path.clone(), &mut parts, &jobs, &told, &scheduler).await;
                notify(&[NotifyState::Ready]);
            }
            _ = tidy.tick() => {
                tidy_up(&parts, parts.site.clock.now()).await;
            }
        }
    }
    info!("stopping");
    notify(&[NotifyState::Stopping]);
    switch.send_replace(true);
    // What is being delivered is finished; whoever takes longer is recovered at the next start.
    for (name, task) in [("scheduler", running), ("control socket", control), ("notices", notices)] {
        match tokio::time::timeout(std::time::Duration::from_secs(12), task).await {
            Ok(Ok(())) => {}
            Ok(Err(panicked)) => error!(%panicked, name, "ended in a panic"),
            Err(_) => warn!(name, "did not end in time"),
        }
    }
    parts.store.close().await;
    info!("stopped");
    Ok(Exit::Ok)
}

fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        let line = warning.place.map(|place| place.line);
        warn!(file = warning.file, line, warning = warning.message, "the configuration is not as it should be");
    }
}

/// Each connection that listens is an open file. The limit has been raised as far as this process may.
fn warn_of_few_files(config: &Config) {
    let mut at_host: HashMap<&str, u64> = HashMap::new();
    for account in config.accounts.iter().filter(|account| account.enabled && account.check == Check::Idle) {
        *at_host.entry(account.endpoint.host()).or_default() += 1;
    }
    let schedule = &config.schedule;
    let listening: u64 = at_host.values().map(|count| (*count).min(u64::from(schedule.idle_per_host))).sum();
    // Connections being made, the state, files of mail on its way.
    let wanted = listening + 2 * u64::from(schedule.concurrency) + 512;
    if let Some(limit) = process::open_files().filter(|limit| *limit < wanted) {
        warn!(
            limit,
            wanted,
            listening,
            "this process may open fewer files than these accounts need: raise LimitNOFILE= of its systemd unit, or \
             `ulimit -Hn` where it is started, or lower [schedule] idle_per_host"
        );
    }
}

/// Reads the configuration again. A mistake in it changes nothing.
async fn reload(
    path: Option<PathBuf>,
    parts: &mut setup::Parts,
    jobs: &watch::Sender<Vec<Job>>,
    told: &watch::Sender<Arc<Setup>>,
    scheduler: &Scheduler,
) {
    let config = match setup::load_config(path) {
        Ok(config) => config,
        Err(problem) => {
            error!(%problem, "the configuration has mistakes; the old one stays in force");
            return;
        }
    };
    log_warnings(&config);
    let new = async {
        let new = parts.builder.jobs(&config).await?;
        let notices = parts.builder.notices(&config, &new).await?;
        Ok::<_, BuildError>((new, notices))
    };
    match new.await {
        Ok((new, notices)) => {
            told.send_replace(Arc::new(notices));
            scheduler.set_limits(limits(&config));
            let quiet = config.schedule.quiet.map(|quiet| (quiet.from_minute, quiet.to_minute));
            scheduler.set_quiet_hours(quiet, minute_of_day);
            warn_of_few_files(&config);
            info!(accounts = new.len(), "the configuration was read again");
            parts.jobs = new.clone();
            jobs.send_replace(new);
            forget_removed(parts, &config).await;
        }
        Err(problem) => error!(%problem, "the configuration cannot be used; the old one stays in force"),
    }
}

/// Accounts that are configured no more keep their memory for 90 days.
async fn forget_removed(parts: &setup::Parts, config: &Config) {
    let known = match parts.store.accounts().await {
        Ok(known) => known,
        Err(error) => {
            warn!(%error, "accounts cannot be read from the state");
            return;
        }
    };
    let now = parts.site.clock.now();
    for row in known.iter().filter(|row| row.retired_at.is_none() && config.account(&row.address).is_none()) {
        info!(account = row.address, "the account is configured no more; what was fetched is remembered for 90 days");
        if let Err(error) = parts.store.retire_account(&row.address, now).await {
            warn!(account = row.address, %error, "cannot be noted");
        }
    }
}

/// Forgets what has lost its purpose, and notes the time.
async fn tidy_up(parts: &setup::Parts, now: UnixTime) {
    let noted = async {
        if let Some(before) = parts.store.tick(now).await?.filter(|before| now < *before) {
            warn!(now = %now, before = %before, "the clock went backwards; nothing is due for removal before it catches up");
        }
        parts.store.tidy(now).await
    };
    if let Err(error) = noted.await {
        warn!(%error, "old state cannot be tidied up");
    }
}

/// In local time, whose rules are asked for each time: a machine may move.
fn minute_of_day(now: UnixTime) -> u16 {
    let here = Timestamp::from_second(now.0).unwrap_or_default().to_zoned(TimeZone::system());
    u16::try_from(i32::from(here.hour()) * 60 + i32::from(here.minute())).unwrap_or_default()
}

fn notify(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}

/// Resolves at the first SIGTERM or SIGINT.
pub(crate) async fn told_to_stop() {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
