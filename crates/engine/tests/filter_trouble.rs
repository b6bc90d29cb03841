//! Whose trouble it is when filters fail: the filter's, the message's, or that of whoever keeps messages back.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod light;
mod sieve;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::wrappers::{Scripted, delivered, failed};
use common::{Any, BOTH, token_mail};
use connectord_account::Protocol;
use connectord_delivery::{FailureKind, Recipient};
use connectord_engine::{Job, Report, RunError};
use connectord_filter::{Exhausted, Kind, OnVirus, Policy, Why};
use connectord_store::{ParkedRow, Store};
use light::Light;
use sieve::{Judge, Shelf, clean, infected, reject, removing, soft_reject, trouble, with_filters};

const HOUR: i64 = 3600;

fn job(here: &Light, protocol: Protocol, server: &Any, policy: Policy) -> Job {
    Job { policy, ..here.job(protocol, server.port(), removing) }
}

fn three_attempts() -> Policy {
    Policy { attempts: 3, ..Policy::default() }
}

async fn pending(here: &Light) -> Vec<ParkedRow> {
    here.store.troubled(None, true).await.unwrap()
}

/// Ends because a filter is down that answers pings: it is tried again at the regular check and not before.
#[track_caller]
fn assert_down_and_there(report: &Report) {
    assert!(matches!(report.error, Some(RunError::Filter { is_there: true, .. })), "{:?}", report.error);
    assert!(report.next_check.is_some_and(|wait| wait > Duration::from_secs(60)), "{:?}", report.next_check);
    assert_eq!(report.parked, 0);
}

/// A filter that is silent about whatever it is shown, until a test wants otherwise.
fn silent() -> (Arc<Judge>, Arc<Mutex<bool>>) {
    let works = Arc::new(Mutex::new(false));
    let judge = Judge::new(Kind::Antivirus, {
        let works = works.clone();
        move |_| if *works.lock().unwrap() { clean() } else { trouble(Why::TimedOut, "no answer in time") }
    });
    (judge, works)
}

#[tokio::test]
async fn a_filter_that_hangs_on_its_own_sample_too_is_down_and_not_one_message_is_counted() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(1));
        let (judge, works) = silent();
        *judge.sample.lock().unwrap() = Err(Why::TimedOut);
        let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
        let job = job(&here, protocol, &server, three_attempts());
        for _ in 0..5 {
            assert_down_and_there(&here.run(&job).await);
            assert_eq!(pending(&here).await, [], "nobody's fault");
            here.pass(12 * HOUR);
        }
        *works.lock().unwrap() = true;
        assert_eq!((here.run(&job).await.delivered, server.inbox().len()), (1, 0));
    }
}

#[tokio::test]
async fn messages_that_a_filter_hangs_on_while_it_finds_its_sample_are_at_fault_themselves() {
    let server = Any::with(Protocol::Imap, token_mail(2));
    let (judge, _) = silent();
    *judge.sample.lock().unwrap() = Ok(Some(true));
    let here = with_filters(Light::new(), vec![judge], Arc::new(Shelf::default()));
    let job = job(&here, Protocol::Imap, &server, three_attempts());
    for attempt in 1..=3 {
        let report = here.run(&job).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!(report.parked, if attempt == 3 { 2 } else { 0 });
        here.pass(12 * HOUR);
    }
}

#[tokio::test]
async fn a_filter_without_a_sample_is_down_from_the_second_message_on_that_it_is_silent_about() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(2));
        let (judge, works) = silent();
        let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
        let job = job(&here, protocol, &server, three_attempts());
        for _ in 0..6 {
            assert_down_and_there(&here.run(&job).await);
            here.pass(12 * HOUR);
        }
        let counted = pending(&here).await;
        assert!(counted.len() <= 1 && counted.iter().all(|row| row.filter_failures == 1), "{counted:?}");
        *works.lock().unwrap() = true;
        assert_eq!((here.run(&job).await.delivered, server.inbox().len()), (2, 0));
    }
}

#[tokio::test]
async fn a_message_that_breaks_one_filter_is_not_parked_for_that_while_another_one_is_down() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(1));
        let antispam = Judge::new(Kind::Antispam, |_| trouble(Why::Refused, "not this one"));
        let is_wrong = Arc::new(Mutex::new(true));
        let antivirus = Judge::new(Kind::Antivirus, {
            let is_wrong = is_wrong.clone();
            move |_| if *is_wrong.lock().unwrap() { trouble(Why::Misconfigured, "wrong password") } else { clean() }
        });
        let here = with_filters(Light::new(), vec![antispam, antivirus], Arc::new(Shelf::default()));
        let job = job(&here, protocol, &server, Policy { attempts: 1, ..Policy::default() });
        assert_down_and_there(&here.run(&job).await);
        assert_eq!(pending(&here).await, []);
        *is_wrong.lock().unwrap() = false;
        here.pass(12 * HOUR);
        assert_eq!((here.run(&job).await.parked, server.inbox().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_quarantine_whose_disk_does_not_answer_is_waited_for_once_in_a_batch() {
    const MESSAGES: usize = 30;
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(MESSAGES));
        let judge = Judge::new(Kind::Antispam, |_| reject());
        let shelf = Arc::new(Shelf::default());
        let here = with_filters(Light::new(), vec![judge.clone()], shelf.clone());
        let job = job(&here, protocol, &server, Policy::default());
        // Its first answer comes when the others wait behind it.
        *shelf.fails_when.lock().unwrap() = Some(Box::new(move || judge.found() == MESSAGES));
        let report = here.run(&job).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!((report.deferred, report.quarantined, server.inbox().len()), (MESSAGES as u64, 0, MESSAGES));
        let tried = shelf.tried.load(Ordering::SeqCst);
        assert!(tried <= MESSAGES / 3, "{tried} of {MESSAGES} waited for the disk");
        *shelf.fails_when.lock().unwrap() = None;
        here.pass(HOUR + 1);
        assert_eq!((here.run(&job).await.quarantined, server.inbox().len()), (MESSAGES as u64, 0));
    }
}

#[tokio::test]
async fn what_is_kept_again_for_another_stays_held_for_those_it_was_held_for() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(1));
        let judge = Judge::new(Kind::Antivirus, |_| infected());
        let shelf = Arc::new(Shelf::default());
        let here = with_filters(Light::new(), vec![judge], shelf.clone());
        let has_room = Arc::new(Mutex::new(false));
        let delivery = Scripted::new(8, {
            let has_room = has_room.clone();
            move |_| if *has_room.lock().unwrap() { delivered() } else { failed(FailureKind::Transient) }
        });
        let recipient = |user: &str| Recipient { user: user.into(), address: format!("{user}@here.test") };
        let policy = Policy { on_virus: OnVirus::Notice, ..Policy::default() };
        let for_ann = Job { delivery, recipients: vec![recipient("ann")], ..job(&here, protocol, &server, policy) };
        assert_eq!(here.run(&for_ann).await.quarantined, 1);
        let users = || shelf.held("0").recipients.iter().map(|held| held.user.clone()).collect::<Vec<_>>();
        assert_eq!(users(), ["ann"]);
        // Her notice is missing still when somebody else is to have her mail too.
        *has_room.lock().unwrap() = true;
        here.pass(12 * HOUR);
        let for_both = Job { recipients: vec![recipient("ann"), recipient("bob")], ..for_ann };
        let report = here.run(&for_both).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!((users(), server.inbox().len()), (vec!["ann".to_owned(), "bob".to_owned()], 0));
    }
}

/// The same header each time, and the same size.
fn twin(token: usize) -> Vec<u8> {
    format!("Message-ID: <twin@example.org>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nSubject: twin\r\n\r\ntoken-{token} \r\n")
        .into_bytes()
}

#[tokio::test]
async fn a_persons_word_for_a_message_is_none_for_another_with_the_same_header() {
    for protocol in BOTH {
        for after in [0, 1] {
            let server = Any::with(protocol, [twin(0)]);
            let judge = Judge::new(Kind::Antispam, |_| soft_reject());
            let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
            let policy = Policy { postponements: 0, exhausted: Exhausted::Park, ..Policy::default() };
            let job = job(&here, protocol, &server, policy);
            assert_eq!(here.run(&job).await.parked, 1);
            let row = here.store.troubled(None, false).await.unwrap().remove(0);
            assert!(here.store.deliver(row.message).await.unwrap());
            // The server names all anew before that is done, and has this or another one.
            let inbox = server.inbox();
            inbox.clear();
            inbox.add(twin(after));
            inbox.set_uid_validity(77);
            let asked = judge.asked.load(Ordering::SeqCst);
            for _ in 0..3 {
                here.run(&job).await;
                here.pass(12 * HOUR);
            }
            let was_asked = judge.asked.load(Ordering::SeqCst) > asked;
            let is_delivered = !here.tokens("ann").is_empty();
            let expected = if after == 0 { (false, true) } else { (true, false) };
            assert_eq!((was_asked, is_delivered), expected, "{protocol:?}, token {after}");
        }
    }
}
