//! A check that quarantines, tells, discards and puts off is killed at every call of the store and in the quarantine:
//! afterwards each message is once in its place.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod light;
mod sieve;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::wrappers::FailingStore;
use common::{Any, BOTH, token_mail};
use connectord_account::Protocol;
use connectord_engine::{Cause, Job, Mode, RunError, run, sweep};
use connectord_filter::{Kind, OnVirus, Policy, Ruling};
use light::Light;
use sieve::{Judge, Kill, Shelf, clean, infected, reject, removing, ruled, soft_reject, with_filters};

const MESSAGES: usize = 6;

/// 0 and 3 are clean, 1 is infected, 2 is refused, 4 is discarded, 5 is put off once.
fn installation(shelf: &Arc<Shelf>) -> Light {
    let antispam = Judge::new(Kind::Antispam, |token| match token {
        "2" => reject(),
        "5" => soft_reject(),
        _ => clean(),
    });
    let antivirus = Judge::new(Kind::Antivirus, |token| if token == "1" { infected() } else { clean() });
    let rules = Judge::new(Kind::Rules, |token| match token {
        "4" => ruled(Ruling::Discard("as the site wants".into())),
        _ => clean(),
    });
    with_filters(Light::new(), vec![antispam, antivirus, rules], shelf.clone())
}

fn job(here: &Light, protocol: Protocol, server: &Any) -> Job {
    let policy = Policy { on_virus: OnVirus::Notice, postponements: 1, ..Policy::default() };
    Job { policy, ..here.job(protocol, server.port(), removing) }
}

async fn ends_well(here: &Light, job: Job, server: &Any, shelf: &Shelf, what: &str) {
    for _ in 0..5 {
        here.pass(4 * 3600);
        here.run(&job).await;
    }
    let once = |token: &str| (token.to_owned(), 1);
    // A notice has no token.
    let wanted: BTreeMap<String, usize> = [once("0"), once("3"), once("5"), once("")].into();
    assert_eq!(here.tokens("ann"), wanted, "{what}");
    assert_eq!(shelf.tokens(), ["1", "2"], "{what}");
    assert_eq!(server.inbox().len(), 0, "{what}");
    // A marker whose batch's outcomes were committed, but not to anybody's knowledge, goes at the next start.
    let next = here.job(job.account.protocol, server.port(), |_| {});
    drop(job);
    sweep(&here.site, &[next]).await.unwrap();
    assert_eq!(here.leftovers("ann"), 0, "{what}");
}

#[tokio::test]
async fn killed_at_or_failed_by_any_call_of_the_store_each_message_is_once_in_its_place() {
    for protocol in BOTH {
        for (kills, after) in [(true, false), (true, true), (false, false), (false, true)] {
            for n in 1.. {
                let server = Any::with(protocol, token_mail(MESSAGES));
                let shelf = Arc::new(Shelf::default());
                let here = installation(&shelf);
                let store = FailingStore::new(here.store.clone(), after);
                store.kills.store(kills, Ordering::SeqCst);
                let (site, job) = (here.site_with(store.clone()), job(&here, protocol, &server));
                store.countdown.arm(n);
                tokio::select! {
                    _ = run(&site, &job, Mode::default(), here.stop.subscribe()) => {}
                    () = store.died.notified() => {}
                }
                let done = store.countdown.calls() < n;
                // And once more, somewhere in the check that finds out.
                here.pass(4 * 3600);
                store.countdown.arm(1 + n * 7 % 23);
                tokio::select! {
                    _ = run(&site, &job, Mode::default(), here.stop.subscribe()) => {}
                    () = store.died.notified() => {}
                }
                let what = format!("{protocol:?}, call {n}, after: {after}, killed: {kills}");
                ends_well(&here, job, &server, &shelf, &what).await;
                if done {
                    assert!(n > 15, "{n}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_quarantine_is_asked_what_it_got_before_the_check_was_killed_and_nothing_is_concluded_while_it_is_silent() {
    for protocol in BOTH {
        for (kill, again) in [(Kill::Before, 1), (Kill::After, 0)] {
            let server = Any::with(protocol, token_mail(1));
            let shelf = Arc::new(Shelf::default());
            let judge = Judge::new(Kind::Antispam, |_| reject());
            let here = with_filters(Light::new(), vec![judge], shelf.clone());
            let job = job(&here, protocol, &server);
            *shelf.kills.lock().unwrap() = Some(kill);
            tokio::select! {
                _ = here.run(&job) => panic!("it was to be killed"),
                () = shelf.died.notified() => {}
            }
            assert_eq!(server.inbox().len(), 1);
            shelf.silent.store(true, Ordering::SeqCst);
            let connections = server.counters().connections;
            let report = here.run(&job).await;
            assert!(matches!(report.error, Some(RunError::Quarantine(_))), "{:?}", report.error);
            assert_eq!(report.error.unwrap().trouble().cause, Cause::QuarantineDown);
            assert_eq!((server.counters().connections, server.inbox().len()), (connections, 1));
            shelf.silent.store(false, Ordering::SeqCst);
            let report = here.run(&job).await;
            assert!(report.error.is_none(), "{:?}", report.error);
            assert_eq!((report.retrieved, shelf.kept(), shelf.tokens()), (again, 1, vec!["0".to_owned()]));
            here.pass(60);
            here.run(&job).await;
            assert_eq!(server.inbox().len(), 0, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_stop_while_a_filter_looks_ends_the_check_and_the_next_one_finishes() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(5));
        let judge = Judge::new(Kind::Antispam, |_| clean());
        let here = Arc::new(with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default())));
        let job = job(&here, protocol, &server);
        judge.hangs_on("3");
        let checking = tokio::spawn({
            let (here, job) = (here.clone(), job.clone());
            async move { here.run(&job).await }
        });
        light::until("the others are there", || here.tokens("ann").len() == 4).await;
        here.stop.send_replace(true);
        let report = checking.await.unwrap();
        assert!(matches!(report.error, Some(RunError::Stopped)), "{:?}", report.error);
        here.stop.send_replace(false);
        judge.goes_on();
        here.run(&job).await;
        assert_eq!((here.tokens("ann"), server.inbox().len()), (common::once(5), 0));
    }
}
