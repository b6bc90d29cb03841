//! Accounts that are checked for good: when, how often, and what a reload or a server that ends each connection does.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::wrappers::{FailingStore, Scripted, delivered};
use common::{Installation, token_mail};
use connectord_account::{Check, Protocol};
use connectord_engine::{Job, Limits, Observer, Progress, Quiet, Scheduler, Site};
use connectord_store::Store;
use connectord_testkit::servers::{ImapServer, Misbehaviour, Pop3Server, ServerOptions};
use tokio::sync::watch;

fn options() -> ServerOptions {
    ServerOptions::new().user("ann", "secret")
}

/// Counts the checks that are over.
#[derive(Default)]
struct Checks(AtomicUsize);

impl Observer for Checks {
    fn progress(&self, _: &str, progress: Progress<'_>) {
        if matches!(progress, Progress::Finished(_)) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Checks {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
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
