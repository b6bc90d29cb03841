//! Hosts in trouble: when accounts that were refused, or got no answer, are checked again.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::Installation;
use connectord_account::Protocol;
use connectord_engine::{Cause, Job, Limits, Observer, Progress, Scheduler};
use connectord_store::{Hold, Store};
use connectord_testkit::servers::{ImapServer, Misbehaviour, Pop3Server, ServerOptions};
use tokio::sync::watch;

/// Counts how checks ended.
#[derive(Default)]
struct Ends {
    well: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
}

impl Observer for Ends {
    fn progress(&self, _: &str, progress: Progress<'_>) {
        let Progress::Finished(report) = progress else { return };
        let counter = match report.error.as_ref().map(|error| error.trouble().cause) {
            None => &self.well,
            Some(Cause::LoginRefused) => &self.refused,
            Some(_) => &self.unanswered,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

impl Ends {
    fn counts(&self) -> [usize; 3] {
        [&self.well, &self.refused, &self.unanswered].map(|counter| counter.load(Ordering::SeqCst))
    }
}

struct Running {
    scheduler: Arc<Scheduler>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    _jobs: watch::Sender<Vec<Job>>,
}

impl Running {
    fn start(here: &Installation, ends: &Arc<Ends>, jobs: Vec<Job>) -> Self {
        let site = here.site_with(here.store.clone(), ends.clone());
        let scheduler = Arc::new(Scheduler::new(site, Limits { jitter: 0.0, ..Limits::default() }));
        let (jobs, watched) = watch::channel(jobs);
        let (stop, stopped) = watch::channel(false);
        let running = Arc::clone(&scheduler);
        let task = tokio::spawn(async move { running.run(watched, stopped).await });
        Self { scheduler, stop, task, _jobs: jobs }
    }

    async fn end(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(15), self.task).await.expect("ends within seconds").unwrap();
    }
}

/// Waits until it is so; panics after half a minute.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within half a minute: {what}");
}

fn jobs(here: &Installation, protocol: Protocol, port: u16, count: usize) -> Vec<Job> {
    (0..count).map(|n| here.job(protocol, port, |account| account.address = format!("a{n}@example.org"))).collect()
}

fn refusing() -> Misbehaviour {
    Misbehaviour { refuse_login: Some("[AUTH] no".into()), ..Misbehaviour::default() }
}

#[tokio::test]
async fn when_one_account_gets_in_all_that_the_host_refused_are_checked_at_once() {
    let server = Pop3Server::start(ServerOptions::new().user("ann", "secret"));
    server.misbehave(refusing());
    let here = Installation::new();
    let ends = Arc::new(Ends::default());
    let running = Running::start(&here, &ends, jobs(&here, Protocol::Pop3, server.port(), 6));
    until("six refusals", || ends.counts() == [0, 6, 0]).await;
    server.misbehave(Misbehaviour::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ends.counts(), [0, 6, 0], "their logins are held");
    assert!(running.scheduler.check_now("a3@example.org"));
    until("all of them", || ends.counts() == [6, 6, 0]).await;
    let rows = here.store.accounts().await.unwrap();
    assert!(rows.iter().all(|row| row.health.hold.is_none()));
    running.end().await;
}

#[tokio::test]
async fn four_refused_accounts_are_four_wrong_passwords() {
    let server = ImapServer::start(ServerOptions::new().user("ann", "secret"));
    server.misbehave(refusing());
    let here = Installation::new();
    let ends = Arc::new(Ends::default());
    let running = Running::start(&here, &ends, jobs(&here, Protocol::Imap, server.port(), 4));
    until("four refusals", || ends.counts() == [0, 4, 0]).await;
    server.misbehave(Misbehaviour::default());
    assert!(running.scheduler.check_now("a3@example.org"));
    until("the one that was asked for", || ends.counts() == [1, 4, 0]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ends.counts(), [1, 4, 0]);
    running.end().await;
}

#[tokio::test]
async fn a_restart_forgets_no_host_that_refuses_all() {
    let server = Pop3Server::start(ServerOptions::new().user("ann", "secret"));
    server.misbehave(refusing());
    let here = Installation::new();
    let ends = Arc::new(Ends::default());
    let running = Running::start(&here, &ends, jobs(&here, Protocol::Pop3, server.port(), 5));
    until("five refusals", || ends.counts() == [0, 5, 0]).await;
    running.end().await;
    let here = here.restarted().await;
    let rows = here.store.accounts().await.unwrap();
    assert!(rows.iter().all(|row| row.health.hold == Some(Hold::Login)));
    server.misbehave(Misbehaviour::default());
    let ends = Arc::new(Ends::default());
    let running = Running::start(&here, &ends, jobs(&here, Protocol::Pop3, server.port(), 5));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ends.counts(), [0, 0, 0], "their logins are held");
    assert!(running.scheduler.check_now("a0@example.org"));
    until("all of them", || ends.counts() == [5, 0, 0]).await;
    running.end().await;
}

#[tokio::test]
async fn when_one_account_gets_through_all_that_had_no_answer_are_checked_at_once() {
    let server = Pop3Server::start(ServerOptions::new().user("ann", "secret"));
    server.misbehave(Misbehaviour { hang_at: Some("CAPA".into()), ..Misbehaviour::default() });
    let here = Installation::new();
    let ends = Arc::new(Ends::default());
    let mut jobs = jobs(&here, Protocol::Pop3, server.port(), 3);
    jobs.iter_mut().for_each(|job| job.route.timeouts.silence = Duration::from_secs(1));
    let running = Running::start(&here, &ends, jobs);
    until("three silences", || ends.counts() == [0, 0, 3]).await;
    server.misbehave(Misbehaviour::default());
    assert!(running.scheduler.check_now("a1@example.org"));
    until("all of them", || ends.counts() == [3, 0, 3]).await;
    running.end().await;
}
