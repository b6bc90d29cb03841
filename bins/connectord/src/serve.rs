//! `connectord serve`: the daemon.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use connectord_account::Check;
use connectord_config::Config;
use connectord_config::build::limits;
use connectord_engine::{Exit, Job, Scheduler};
use connectord_mail::UnixTime;
use connectord_notices::{Desk, Setup};
use connectord_store::{SavedAccounts, Store, StoreError, Trail};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::accounts::{Accounts, Known, Refresh, merge};
use crate::control::{self, Control};
use crate::error::Error;
use crate::logging::{Colour, Ring};
use crate::page::{Doors, Made, Page, Witness};
use crate::{process, quarantine, setup};

/// Changes of saved accounts that may wait to be taken over; further ones wait for room.
const REFRESHES: usize = 64;

pub(crate) async fn serve(path: Option<PathBuf>, colour: Colour) -> Result<Exit, Error> {
    let config = setup::load_config(path.clone())?;
    process::become_user(&config.process)?;
    let ring = Arc::new(Ring::default());
    let _log = setup::start_log_with(&setup::log_settings(&config, colour), Arc::clone(&ring))?;
    log_warnings(&config);
    if process::is_root() {
        warn!("running as root; set [process] user, or start it as a user of its own");
    }
    let feed = Arc::new(control::Feed::default());
    let witness = Arc::new(Witness::new(feed.clone()));
    let (mut parts, inbox, told) = setup::build_with_notices(&config, setup::Keys::Make, witness.clone()).await?;
    parts.open_quarantine(&config)?;
    let (told, about_whom) = watch::channel(Arc::new(told));
    let (jobs, watched) = watch::channel(parts.jobs().to_vec());
    let (known, known_now) = watch::channel(Arc::clone(&parts.known));
    let in_force = InForce { known, jobs, told };
    let (refresh, mut refreshes) = mpsc::channel(REFRESHES);
    let (switch, stop) = watch::channel(false);
    let mut scheduler = Scheduler::new(Arc::clone(&parts.site), limits(&config));
    if let Some(quiet) = config.schedule.quiet {
        scheduler = scheduler.with_quiet_hours(quiet.from_minute, quiet.to_minute, minute_of_day);
    }
    let scheduler = Arc::new(scheduler);
    warn_of_few_files(&parts.known);
    forget_removed(&parts).await;

    let accounts = Arc::new(Accounts {
        store: Arc::clone(&parts.store),
        site: Arc::clone(&parts.site),
        keys: Arc::clone(&parts.keys),
        connector: parts.site.connector.clone(),
        scheduler: Arc::clone(&scheduler),
        known: known_now.clone(),
        refresh,
    });
    let made = Made {
        accounts: Arc::clone(&accounts),
        quarantine: parts.quarantine.clone(),
        trail: parts.trail.clone().map(|trail| trail as Arc<dyn Trail>),
        witness,
        ring,
        file: path.clone().unwrap_or_else(|| PathBuf::from(setup::DEFAULT_CONFIG)),
    };
    let page = Page::open(made).await?;
    let doors = Doors::open(Arc::clone(&page), config.admin.as_ref()).await?;
    let control = Control {
        site: Arc::clone(&parts.site),
        state: Arc::clone(&parts.store),
        scheduler: Arc::clone(&scheduler),
        jobs: watched.clone(),
        feed,
        stop: stop.clone(),
        config: config.clone(),
        accounts: Some(accounts),
        quarantine: parts.quarantine.clone(),
    };
    let listening = control.listen(parts.store.path())?;
    let control = tokio::spawn(listening);
    let running = tokio::spawn({
        let (scheduler, stop) = (Arc::clone(&scheduler), stop.clone());
        let watched = watched.clone();
        async move { scheduler.run(watched, stop).await }
    });
    let desk = Desk::open(inbox, parts.store.clone(), parts.site.clock.clone()).await;
    let notices = tokio::spawn(desk.run(about_whom, stop.clone()));
    let kept = tokio::spawn(quarantine::watch_over(
        parts.quarantine.clone(),
        known_now,
        parts.site.clock.clone(),
        stop.clone(),
    ));
    let watching = tokio::spawn(Arc::clone(&page).watch(stop.clone()));
    let served = tokio::spawn(doors.serve(stop.clone()));
    notify(&[NotifyState::Ready]);
    info!(accounts = parts.jobs().len(), state = %parts.store.path().display(), "connectord is running");

    let mut hangup = signal(SignalKind::hangup()).map_err(Error::io("cannot listen for SIGHUP"))?;
    let mut tidy = tokio::time::interval(std::time::Duration::from_secs(6 * 3600));
    let ending = told_to_stop();
    tokio::pin!(ending);
    loop {
        tokio::select! {
            () = &mut ending => break,
            _ = hangup.recv() => {
                notify(&[NotifyState::Reloading]);
                reload(path.clone(), &mut parts, &in_force, &scheduler).await;
                notify(&[NotifyState::Ready]);
            }
            Some(first) = refreshes.recv() => take_over(&mut parts, &in_force, first, &mut refreshes).await,
            _ = tidy.tick() => {
                tidy_up(&parts, parts.site.clock.now()).await;
                page.tidy().await;
            }
        }
    }
    info!("stopping");
    notify(&[NotifyState::Stopping]);
    switch.send_replace(true);
    // What is being delivered is finished; whoever takes longer is recovered at the next start.
    let tasks = [
        ("scheduler", running),
        ("control socket", control),
        ("page", served),
        ("what the page shows", watching),
        ("notices", notices),
        ("quarantine", kept),
    ];
    for (name, task) in tasks {
        match tokio::time::timeout(std::time::Duration::from_secs(12), task).await {
            Ok(Ok(())) => {}
            Ok(Err(panicked)) => error!(%panicked, name, "ended in a panic"),
            Err(_) => warn!(name, "did not end in time"),
        }
    }
    parts.close().await;
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
fn warn_of_few_files(known: &Known) {
    let mut at_host: HashMap<&str, u64> = HashMap::new();
    let accounts = known.jobs.iter().map(|job| &job.account);
    for account in accounts.filter(|account| account.enabled && account.check == Check::Idle) {
        *at_host.entry(account.endpoint.host()).or_default() += 1;
    }
    let schedule = &known.config.schedule;
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

/// Who is told what is configured now.
struct InForce {
    known: watch::Sender<Arc<Known>>,
    jobs: watch::Sender<Vec<Job>>,
    told: watch::Sender<Arc<Setup>>,
}

impl InForce {
    fn put(&self, parts: &mut setup::Parts, next: Next) {
        let Next { known, notices } = next;
        parts.known = Arc::clone(&known);
        self.told.send_replace(Arc::new(notices));
        self.jobs.send_replace(known.jobs.clone());
        self.known.send_replace(known);
    }
}

/// The accounts of a configuration with those of the state, built and not yet in force.
struct Next {
    known: Arc<Known>,
    notices: Setup,
}

impl Next {
    async fn build(config: &Config, parts: &mut setup::Parts) -> Result<Self, Error> {
        let known = merge(config, &*parts.store, &mut parts.builder).await?;
        let notices = parts.builder.notices(config, &known.jobs).await?;
        Ok(Self { known: Arc::new(known), notices })
    }
}

/// Reads the configuration again. A mistake in it changes nothing.
async fn reload(path: Option<PathBuf>, parts: &mut setup::Parts, in_force: &InForce, scheduler: &Scheduler) {
    let config = match setup::load_config(path) {
        Ok(config) => config,
        Err(problem) => {
            error!(%problem, "the configuration has mistakes; the old one stays in force");
            return;
        }
    };
    log_warnings(&config);
    let before = parts.known.config.clone();
    let next = async {
        let next = Next::build(&config, parts).await?;
        let chain = parts.builder.chain(&config).await?;
        Ok::<_, Error>((next, chain))
    };
    match next.await {
        Ok((next, chain)) => {
            // First the filters: what a job wants of them must be there.
            parts.replace_filters(&config, chain);
            in_force.put(parts, next);
            scheduler.set_limits(limits(&config));
            if let (Some(trail), Some(keep)) = (&parts.trail, config.trail.keep_for) {
                trail.set_keep(keep);
            }
            let quiet = config.schedule.quiet.map(|quiet| (quiet.from_minute, quiet.to_minute));
            scheduler.set_quiet_hours(quiet, minute_of_day);
            warn_of_few_files(&parts.known);
            info!(accounts = parts.jobs().len(), "the configuration was read again");
            forget_removed(parts).await;
            if config.admin != before.admin {
                warn!("[admin] is another one in the file: where the page listens changes with a restart");
            }
        }
        Err(problem) => error!(%problem, "the configuration cannot be used; the old one stays in force"),
    }
}

/// Takes over what was saved: for all who wait for it at once.
async fn take_over(
    parts: &mut setup::Parts,
    in_force: &InForce,
    first: Refresh,
    further: &mut mpsc::Receiver<Refresh>,
) {
    let mut waiting = vec![first];
    while let Ok(next) = further.try_recv() {
        waiting.push(next);
    }
    let config = parts.known.config.clone();
    // The filters stay: the file names them, and it has not changed.
    let outcome = Next::build(&config, parts).await.map(|next| in_force.put(parts, next));
    let outcome = outcome.map_err(|error| error.to_string());
    match &outcome {
        // A check that began meanwhile may have brought back what was removed.
        Ok(()) => forget_removed(parts).await,
        Err(problem) => error!(problem, "what was saved cannot be taken over"),
    }
    for waiting in waiting {
        // Whoever asked may have gone away.
        let _ = waiting.send(outcome.clone());
    }
}

/// Accounts that are configured no more keep their memory for 90 days.
async fn forget_removed(parts: &setup::Parts) {
    let read = async { Ok::<_, StoreError>((parts.store.accounts().await?, parts.store.saved_accounts().await?)) };
    let (known, saved) = match read.await {
        Ok(read) => read,
        Err(error) => {
            warn!(%error, "accounts cannot be read from the state");
            return;
        }
    };
    let now = parts.site.clock.now();
    let of_file = parts.known.config.accounts.iter().map(|account| account.address.as_str());
    let configured: HashSet<&str> = of_file.chain(saved.iter().map(|saved| saved.address.as_str())).collect();
    for row in known.iter().filter(|row| row.retired_at.is_none() && !configured.contains(row.address.as_str())) {
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
