//! Every call of the store and every step of the delivery fails in turn, and the stop comes at every event: afterwards a
//! clean check ends with each message exactly once.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use common::wrappers::{Countdown, FailingDelivery, FailingStore, StopAfter};
use common::{Any, BOTH, Installation, once, token_mail};
use connectord_account::{Protocol, Retention};
use connectord_delivery::FailureKind;
use connectord_engine::{Job, Mode, Quiet, run, sweep};

const MESSAGES: usize = 7;

fn job(here: &Installation, protocol: Protocol, server: &Any) -> Job {
    here.job(protocol, server.port(), |account| {
        account.retention = Retention::Immediately;
        account.removals_per_session = 4;
    })
}

/// Checks until nothing is left to do, and then: each message once, none on the server.
async fn ends_well(here: &Installation, job: Job, server: &Any, what: &str) {
    let on_server = server.inbox().len();
    let missing = MESSAGES - here.tokens("ann").len();
    assert!(on_server >= missing, "{what}: lost");
    for _ in 0..4 {
        // Waits after failures, and not long enough to make the clock unbelievable.
        here.pass(4 * 3600);
        here.run(&job).await;
    }
    assert_eq!(here.tokens("ann"), once(MESSAGES), "{what}");
    assert_eq!(server.inbox().len(), 0, "{what}");
    // A marker whose batch's outcomes were committed, but not to anybody's knowledge, goes at the next start.
    let next = here.job(job.account.protocol, server.port(), |_| {});
    drop(job);
    sweep(&here.site, &[next]).await.unwrap();
    assert_eq!(here.leftovers("ann"), 0, "{what}");
}

#[tokio::test]
async fn whichever_call_of_the_store_fails_each_message_comes_once_and_none_is_lost() {
    for protocol in BOTH {
        for after in [false, true] {
            for n in 1.. {
                let server = Any::with(protocol, token_mail(MESSAGES));
                let here = Installation::new();
                let store = FailingStore::new(here.store.clone(), after);
                let site = here.site_with(store.clone(), Arc::new(Quiet));
                let job = job(&here, protocol, &server);
                store.countdown.arm(n);
                run(&site, &job, Mode::default(), here.stop.subscribe()).await;
                let done = store.countdown.calls() < n;
                ends_well(&here, job, &server, &format!("{protocol:?}, call {n}, after: {after}")).await;
                if done {
                    assert!(n > 10, "{n}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn whichever_step_of_the_delivery_fails_each_message_comes_once_and_none_is_lost() {
    for protocol in BOTH {
        for kind in [FailureKind::Transient, FailureKind::Unavailable, FailureKind::DiskFull, FailureKind::OverQuota] {
            for n in 1.. {
                let server = Any::with(protocol, token_mail(MESSAGES));
                let here = Installation::new();
                let countdown = Arc::new(Countdown::default());
                let well = job(&here, protocol, &server);
                let inner = Arc::clone(&well.delivery);
                let failing = FailingDelivery { inner, countdown: Arc::clone(&countdown), kind };
                let failing = Job { delivery: Arc::new(failing), ..well.clone() };
                countdown.arm(n);
                here.run(&failing).await;
                let done = countdown.calls() < n;
                drop(failing);
                ends_well(&here, well, &server, &format!("{protocol:?}, step {n}, {kind:?}")).await;
                if done {
                    assert!(n > 5, "{n}");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_stop_at_any_event_ends_the_check_at_once_and_the_next_one_finishes() {
    for protocol in BOTH {
        for after in 1.. {
            let server = Any::with(protocol, token_mail(MESSAGES));
            let here = Installation::new();
            let observer = StopAfter { events: AtomicUsize::new(0), after, stop: here.stop.clone() };
            let observer = Arc::new(observer);
            let site = here.site_with(here.store.clone(), observer.clone());
            let job = job(&here, protocol, &server);
            let began = Instant::now();
            run(&site, &job, Mode::default(), here.stop.subscribe()).await;
            assert!(began.elapsed() < Duration::from_secs(30), "{protocol:?}, event {after}");
            let done = !*here.stop.borrow();
            here.stop.send_replace(false);
            ends_well(&here, job, &server, &format!("{protocol:?}, event {after}")).await;
            if done {
                break;
            }
        }
    }
}
