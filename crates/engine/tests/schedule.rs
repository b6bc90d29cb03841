//! Accounts that are checked for good: when, how often, and what a reload or a server that ends each connection does.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::wrappers::{FailingStore, Scripted, delivered};
use common::{Installation, token_mail};
use connectord_account::{Check, Protocol};
use connectord_engine::{Activity, BETWEEN_STARTS, Job, Limits, Observer, Progress, Quiet, Scheduler, Site};
use connectord_store::Store;
use connectord_testkit::servers::{ImapServer, Misbehaviour, Pop3Server, ServerOptions};
use tokio::sync::watch;

fn options() -> ServerOptions {
    ServerOptions::new().user("ann", "secret")
}

/// Counts the checks that are over.
#[derive(Default)]
struct Checks {
    over: AtomicUsize,
    /// When each began.
    begun: Mutex<Vec<Instant>>,
}

impl Observer for Checks {
    fn progress(&self, _: &str, progress: Progress<'_>) {
        match progress {
            Progress::Connecting { .. } => self.begun.lock().unwrap().push(Instant::now()),
            Progress::Finished(_) => {
                self.over.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

impl Checks {
    fn count(&self) -> usize {
        self.over.load(Ordering::SeqCst)
    }
}

struct Running {
    scheduler: Arc<Scheduler>,
    jobs: watch::Sender<Vec<Job>>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn start(site: Arc<Site>, jobs: Vec<Job>, change: impl FnOnce(Scheduler) -> Scheduler) -> Running {
    let scheduler = Arc::new(change(Scheduler::new(site, Limits { jitter: 0.0, ..Limits::default() })));
    let (jobs, watched) = watch::channel(jobs);
    let (stop, stopped) = watch::channel(false);
    let running = Arc::clone(&scheduler);
    let task = tokio::spawn(async move { running.run(watched, stopped).await });
    Running { scheduler, jobs, stop, task }
}

impl Running {
    async fn end(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("ends within seconds").unwrap();
    }
}

/// Waits until it is so; panics after ten seconds.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within ten seconds: {what}");
}

#[tokio::test]
async fn an_account_somebody_else_is_checking_is_not_asked_for_again_and_again() {
    let server = Pop3Server::start(options());
    let here = Installation::new();
    let checks = Arc::new(Checks::default());
    let site = here.site_with(here.store.clone(), checks.clone());
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    let account = here.store.open_account("ann@example.org").await.unwrap();
    let lease = here.store.lease(account.id).await.unwrap();
    let running = start(site, vec![job], |scheduler| scheduler);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(checks.count(), 1);
    drop(lease);
    // And is checked soon after.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((checks.count(), server.counters().logins), (2, 1));
    running.end().await;
}

#[tokio::test]
async fn a_state_that_cannot_be_written_is_no_reason_to_log_in_again_and_again() {
    let server = Pop3Server::start(options());
    let here = Installation::new();
    let store = FailingStore::new(here.store.clone(), false);
    store.forgets.store(true, Ordering::SeqCst);
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    here.run_well(&job).await;
    here.pass(3600);
    let site = here.site_with(store, Arc::new(Quiet));
    let running = start(site, vec![job], |scheduler| scheduler);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(server.counters().logins, 2);
    running.end().await;
}

#[tokio::test]
async fn in_quiet_hours_only_who_asks_is_served() {
    let server = Pop3Server::start(options());
    let here = Installation::new();
    let checks = Arc::new(Checks::default());
    let site = here.site_with(here.store.clone(), checks.clone());
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    let running = start(site, vec![job], |scheduler| scheduler.with_quiet_hours(22 * 60, 6 * 60, |_| 23 * 60));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(checks.count(), 0);
    assert!(running.scheduler.check_now("ann@example.org"));
    until("a check by hand", || checks.count() == 1).await;
    running.end().await;
}

#[tokio::test]
async fn a_reload_restarts_what_changed_and_nothing_else() {
    let server = Pop3Server::start(options());
    let here = Installation::new();
    let checks = Arc::new(Checks::default());
    let site = here.site_with(here.store.clone(), checks.clone());
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    let running = start(site, vec![job.clone()], |scheduler| scheduler);
    until("the first check", || checks.count() == 1).await;
    running.jobs.send_replace(vec![job.clone()]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(checks.count(), 1);
    // The account is the same, its destination and its timeouts are not.
    let elsewhere = Scripted::new(8, |_| delivered());
    let mut changed = Job { delivery: elsewhere.clone(), ..job };
    server.mailbox("ann").add(token_mail(1).remove(0));
    running.jobs.send_replace(vec![changed.clone()]);
    until("a check with the new destination", || elsewhere.taken_by("ann").len() == 1).await;
    changed.route.timeouts.silence = Duration::from_secs(7);
    let before = checks.count();
    running.jobs.send_replace(vec![changed]);
    until("a check with the new timeouts", || checks.count() > before).await;
    running.end().await;
}

#[tokio::test]
async fn a_changed_account_begins_when_the_old_one_has_ended() {
    let server = Pop3Server::start(options());
    for message in token_mail(3) {
        server.mailbox("ann").add(message);
    }
    server.misbehave(Misbehaviour { hang_at: Some("RETR".into()), ..Misbehaviour::default() });
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    let running = start(here.site.clone(), vec![job], |scheduler| scheduler);
    until("a check in progress", || server.counters().listings == 1).await;
    server.misbehave(Misbehaviour::default());
    running.jobs.send_replace(vec![here.job(Protocol::Pop3, server.port(), |account| account.mark_seen = true)]);
    until("all of it", || here.tokens("ann").len() == 3).await;
    running.end().await;
}

#[tokio::test]
async fn new_mail_is_heard_of_at_once_also_in_the_first_of_several_mailboxes() {
    let server = ImapServer::start(options());
    server.mailbox_named("ann", "Other").add(token_mail(1).remove(0));
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| {
        account.check = Check::Idle;
        account.folders =
            vec![connectord_account::Folder::Name("INBOX".into()), connectord_account::Folder::Name("Other".into())];
    });
    let running = start(here.site.clone(), vec![job], |scheduler| scheduler);
    until("the first check", || here.tokens("ann").len() == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.mailbox("ann").add(token_mail(2).remove(1));
    until("the new message", || here.tokens("ann").len() == 2).await;
    assert_eq!(server.counters().logins, 1);
    running.end().await;
}

#[tokio::test]
async fn a_server_that_ends_each_listening_connection_is_not_hammered() {
    let server = ImapServer::start(options());
    server.misbehave(Misbehaviour { close_at: Some("IDLE".into()), ..Misbehaviour::default() });
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| account.check = Check::Idle);
    let running = start(here.site.clone(), vec![job], |scheduler| scheduler);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.counters().logins, 1);
    running.end().await;
}

#[tokio::test]
async fn servers_that_do_not_answer_keep_no_other_account_waiting() {
    let silent = Pop3Server::start(options());
    silent.misbehave(Misbehaviour { hang_at: Some("CAPA".into()), ..Misbehaviour::default() });
    let good = Pop3Server::start(options());
    good.mailbox("ann").add(token_mail(1).remove(0));
    let here = Installation::new();
    let mut jobs: Vec<Job> = (0..30)
        .map(|n| {
            here.job(Protocol::Pop3, silent.port(), |account| {
                account.address = format!("bad{n}@example.org");
                // Hosts of their own.
                account.endpoint = format!("127.0.1.{n}:{}", silent.port()).parse().unwrap();
            })
        })
        .collect();
    jobs.push(here.job(Protocol::Pop3, good.port(), |_| {}));
    let limits = Limits { concurrency: 2, ..Limits::default() };
    let scheduler = Scheduler::new(here.site.clone(), limits);
    let (_jobs, watched) = watch::channel(jobs);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move { scheduler.run(watched, stopped).await });
    until("the good account's mail", || here.tokens("ann").len() == 1).await;
    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(30), task).await.expect("ends within seconds").unwrap();
}

/// Two accounts at a server with one place, which hangs at RETR: one is checked, the other waits.
#[tokio::test]
async fn a_person_stops_what_runs_and_makes_what_waits_be_forgotten() {
    let server = Pop3Server::start(options().user("bob", "secret"));
    server.mailbox("ann").add(token_mail(1).remove(0));
    server.misbehave(Misbehaviour { hang_at: Some("RETR".into()), ..Misbehaviour::default() });
    let here = Installation::new();
    let checks = Arc::new(Checks::default());
    let site = here.site_with(here.store.clone(), checks.clone());
    let ann = here.job(Protocol::Pop3, server.port(), |_| {});
    let running = start(site, vec![ann.clone()], |scheduler| {
        scheduler.set_limits(Limits { per_host: 1, jitter: 0.0, ..Limits::default() });
        scheduler
    });
    let does = |address: &str| running.scheduler.state_of(address).map(|now| now.activity);
    let retrieves = || {
        let check = running.scheduler.state_of("ann@example.org").and_then(|now| now.check);
        check.is_some_and(|check| check.new == 1 && check.logged_in_ms.is_some())
    };
    until("ann's check", retrieves).await;
    let bob = here.job(Protocol::Pop3, server.port(), |account| account.address = "bob@example.org".into());
    running.jobs.send_replace(vec![ann, bob]);
    until("bob waits", || does("bob@example.org") == Some(Activity::Queued)).await;
    assert_eq!((does("ann@example.org"), checks.count()), (Some(Activity::Checking), 0));
    assert_eq!(running.scheduler.snapshot().len(), 2);

    assert!(running.scheduler.stop("Bob@example.org"));
    until("bob is idle", || does("bob@example.org") == Some(Activity::Idle)).await;
    // He was never checked, and is again a quarter of an hour from now.
    let bobs = running.scheduler.state_of("bob@example.org").unwrap();
    assert!(bobs.next_check.is_some_and(|next| next.since(bobs.since) >= Duration::from_secs(890)), "{bobs:?}");
    assert_eq!(checks.count(), 0);
    assert!(!running.scheduler.stop("bob@example.org"), "there is nothing to stop");
    assert!(!running.scheduler.stop("nobody@example.org"));

    assert_eq!(running.scheduler.stop_all(), 1);
    until("ann is idle", || does("ann@example.org") == Some(Activity::Idle)).await;
    assert_eq!(checks.count(), 1);
    let health = here.store.accounts().await.unwrap()[0].health.clone();
    assert_eq!((health.failures, health.error), (0, None), "that is no failure of hers");

    server.misbehave(Misbehaviour::default());
    assert_eq!(running.scheduler.check_all(["ann@example.org", "bob@example.org", "nobody@example.org"]), 2);
    until("both are checked", || checks.count() == 3).await;
    // Both are accounts of the one mailbox.
    assert_eq!(server.counters().retrieved, 2);
    running.end().await;
}

#[tokio::test]
async fn accounts_of_one_host_that_are_checked_by_one_word_begin_one_after_the_other() {
    let server = Pop3Server::start(options());
    let here = Installation::new();
    let checks = Arc::new(Checks::default());
    let site = here.site_with(here.store.clone(), checks.clone());
    let jobs: Vec<Job> = (0..4)
        .map(|number| here.job(Protocol::Pop3, server.port(), |account| account.address = format!("a{number}@x")))
        .collect();
    let running = start(site, jobs, |scheduler| scheduler);
    until("the first checks", || checks.count() == 4).await;
    let all = ["a0@x", "a1@x", "a2@x", "a3@x"];
    until("all are idle", || all.iter().all(|one| running.scheduler.state_of(one).unwrap().activity == Activity::Idle))
        .await;
    assert_eq!(running.scheduler.check_all(all), 4);
    until("the last one waits", || running.scheduler.state_of("a3@x").unwrap().activity == Activity::Queued).await;
    until("all are checked", || checks.count() == 8).await;
    let begun: Vec<_> = checks.begun.lock().unwrap().iter().skip(4).copied().collect();
    assert!(begun.is_sorted() && begun[3] - begun[0] >= 2 * BETWEEN_STARTS, "{begun:?}");
    running.end().await;
}

#[tokio::test]
async fn why_an_account_is_not_well_is_remembered_as_values_and_since_when() {
    let server = Pop3Server::start(options());
    let here = Installation::new();
    let wrong = here.job(Protocol::Pop3, server.port(), |_| {});
    let credential = connectord_sasl::Credential::password("ann", "wrong");
    let wrong = Job { credentials: Arc::new(connectord_sasl::StaticCredentials::new(credential)), ..wrong };
    here.run(&wrong).await;
    let health = async || here.store.accounts().await.unwrap()[0].health.clone();
    let first = health().await;
    let reason = first.reason.clone().unwrap();
    assert_eq!((reason.code.as_str(), reason.words["host"].as_str()), ("login_refused", "127.0.0.1"));
    assert_eq!(reason.words["port"], server.port().to_string());
    assert!(reason.said.as_ref().is_some_and(|said| said.contains("-ERR")), "{reason:?}");
    here.pass(100_000);
    here.run(&wrong).await;
    assert_eq!((health().await.since, health().await.failures), (first.since, 2));
    let account = here.store.accounts().await.unwrap()[0].id;
    assert_eq!(here.store.runs(account, 1).await.unwrap()[0].reason.as_ref().unwrap().code, "login_refused");
    // Another trouble began later.
    server.misbehave(Misbehaviour { close_at: Some("CAPA".into()), ..Misbehaviour::default() });
    here.pass(200_000);
    here.run(&wrong).await;
    let after = health().await;
    assert_eq!(after.reason.as_ref().map(|reason| reason.code.as_str()), Some("no_answer"));
    assert!(after.since > first.since);
    server.misbehave(Misbehaviour::default());
    here.pass(200_000);
    here.run_well(&here.job(Protocol::Pop3, server.port(), |_| {})).await;
    assert_eq!((health().await.reason, health().await.since), (None, None));
}
