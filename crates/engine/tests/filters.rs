//! Filters between the retrieval and the delivery: where each message goes, and what becomes of it when they fail.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
mod light;
mod sieve;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::wrappers::{Scripted, delivered, failed};
use common::{Any, BOTH, token_mail};
use connectord_account::Protocol;
use connectord_delivery::{FailureKind, Recipient};
use connectord_engine::{Cause, Filters, Job, Mode, Observer, Progress, RunError, run};
use connectord_filter::{Chain, Exhausted, Kind, OnFailure, OnSpam, OnVirus, Policy, Ruling, Why};
use connectord_mail::Relays;
use connectord_mail::relay::{Client, Unknown};
use connectord_store::{Hold, Store};
use light::{Light, until};
use sieve::{Judge, Shelf, clean, infected, reject, removing, ruled, soft_reject, spam, trouble, with_filters};
use tokio::time::timeout;

const HOUR: i64 = 3600;

fn job(here: &Light, protocol: Protocol, server: &Any, policy: Policy) -> Job {
    Job { policy, ..here.job(protocol, server.port(), removing) }
}

fn texts(here: &Light, folder: &str) -> Vec<String> {
    let files = here.disk.files(&format!("/mail/ann/{folder}new"));
    files.values().map(|octets| String::from_utf8_lossy(octets).into_owned()).collect()
}

async fn asked(here: &Light, pending: bool) -> Vec<connectord_store::ParkedRow> {
    here.store.troubled(None, pending).await.unwrap()
}

#[tokio::test]
async fn each_message_goes_where_the_policy_wants_it_and_its_remote_copy_goes() {
    for protocol in BOTH {
        let forged = "X-Connectord-Filter: antispam; checked\r\nX-Spam: No\r\nX-Connectord-Unchecked: all\r\n";
        let mail = token_mail(5).into_iter().map(|message| [forged.as_bytes(), &message].concat());
        let server = Any::with(protocol, mail);
        let antispam = Judge::new(Kind::Antispam, |token| match token {
            "1" => spam(),
            "2" => reject(),
            _ => clean(),
        });
        let antivirus = Judge::new(Kind::Antivirus, |token| if token == "3" { infected() } else { clean() });
        let rules = Judge::new(Kind::Rules, |token| match token {
            "4" => ruled(Ruling::Discard("as the site wants".into())),
            _ => clean(),
        });
        let shelf = Arc::new(Shelf::default());
        let here = with_filters(Light::new(), vec![antispam, antivirus, rules], shelf.clone());
        let policy = Policy {
            on_spam: OnSpam::Folder("Junk".into()),
            on_virus: OnVirus::Notice,
            subject_prefix: Some("[SPAM]".into()),
            ..Policy::default()
        };
        let job = job(&here, protocol, &server, policy);
        let report = here.run(&job).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!((report.delivered, report.quarantined, report.discarded, report.parked), (3, 2, 1, 0));
        assert_eq!((report.spam, report.unchecked, report.deferred), (2, 0, 0));

        let inbox = texts(&here, "");
        let clean = inbox.iter().find(|text| text.contains("token-0")).unwrap();
        let notice = inbox.iter().find(|text| text.contains("[VIRUS] 3")).unwrap();
        assert_eq!(inbox.len(), 2);
        for filter in ["antispam", "antivirus", "rules"] {
            let trace = format!("X-Connectord-Filter: {filter}; checked; action=\"no action\"\n");
            assert_eq!(clean.matches(&trace).count(), 1, "{clean}");
        }
        assert!(!clean.contains("X-Spam: No") && !clean.contains("X-Connectord-Unchecked"), "{clean}");
        assert!(clean.find("X-Connectord-Account").unwrap() < clean.find("X-Connectord-Filter").unwrap());
        assert!(notice.contains("virus found: Eicar") && !notice.contains("token-3"), "{notice}");
        assert!(notice.starts_with("Return-Path: <>\n") && !notice.contains('\r'), "{notice}");

        let junk = texts(&here, ".Junk/");
        assert_eq!(junk.len(), 1);
        assert!(junk[0].contains("X-Spam: Yes\n") && junk[0].contains("Subject: [SPAM] 1\n"), "{}", junk[0]);

        assert_eq!(shelf.tokens(), ["2", "3"]);
        let held = shelf.held("2");
        assert_eq!((held.recipients[0].user.as_str(), held.destination.as_str()), ("ann", "default"));
        assert!(held.spam && held.reason.starts_with("refused by antispam"), "{}", held.reason);
        assert!(held.text.contains("X-Spam: No"), "as it is on the server");
        // Its notice is no file of that name.
        let id = shelf.held("3").id.for_recipient("default", "ann").to_string();
        assert!(here.disk.files("/mail/ann/new").keys().all(|name| !name.contains(&id)));

        assert!(server.inbox().is_empty(), "{protocol:?}");
        let runs = here.store.runs(here.store.accounts().await.unwrap()[0].id, 1).await.unwrap();
        assert_eq!((runs[0].quarantined, runs[0].discarded, runs[0].spam), (2, 1, 2));
        let again = here.run(&job).await;
        assert_eq!((again.retrieved, again.quarantined, shelf.kept()), (0, 0, 2));
    }
}

#[tokio::test]
async fn filters_get_the_envelope_as_it_was_recovered_and_nothing_in_its_place() {
    for protocol in BOTH {
        let message = "Return-Path: <news@shop.test>\r\nReceived: from out.shop.test (out.shop.test [192.0.2.7])\r\n\tby \
                       mx.provider.test (Postfix) with ESMTPS id 1; Thu, 1 Jan 2026 00:00:00 +0000\r\nSubject: x\r\n\r\n\
                       token-0 \r\n";
        let server = Any::with(protocol, [message.as_bytes().to_vec()]);
        let judge = Judge::new(Kind::Antispam, |_| clean());
        let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
        let keeping = here.job(protocol, server.port(), |_| {});
        assert_eq!(here.run(&Job { relays: Relays::parse(["provider.test"]).unwrap(), ..keeping }).await.delivered, 1);
        let nobody = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
        assert_eq!(nobody.run(&nobody.job(protocol, server.port(), |_| {})).await.delivered, 1);
        let seen = judge.seen.lock().unwrap();
        let Client::Known(handoff) = &seen[0].envelope.client else { panic!("{:?}", seen[0].envelope) };
        assert_eq!(handoff.address.to_string(), "192.0.2.7");
        assert_eq!(seen[0].envelope.reverse_path.as_deref(), Some("news@shop.test"));
        assert_eq!((seen[0].account.as_str(), &seen[0].recipients), ("ann@example.org", &vec!["ann".to_owned()]));
        assert!(matches!(seen[1].envelope.client, Client::Unknown(Unknown::NobodyTrusted)));
    }
}

#[tokio::test]
async fn a_message_that_a_filter_hangs_on_delays_itself_alone_and_is_parked_in_the_end() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(100));
        let judge = Judge::new(Kind::Antispam, |token| {
            if token == "50" { trouble(Why::TimedOut, "no answer in time") } else { clean() }
        });
        let here = Arc::new(with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default())));
        let job = job(&here, protocol, &server, Policy { attempts: 3, ..Policy::default() });
        judge.hangs_on("50");
        let checking = tokio::spawn({
            let (here, job) = (here.clone(), job.clone());
            async move { here.run(&job).await }
        });
        until("the other 99 are there", || here.tokens("ann").len() == 99).await;
        assert!(!checking.is_finished() && !here.tokens("ann").contains_key("50"));
        judge.goes_on();
        let report = checking.await.unwrap();
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!((report.delivered, report.deferred), (99, 1));
        let rows = asked(&here, true).await;
        assert_eq!((rows.len(), rows[0].filter_failures, rows[0].attempts), (1, 1, 0));
        assert_eq!(here.run(&job).await.retrieved, 0, "it waits");
        for attempt in 2..=3 {
            here.pass(12 * HOUR);
            let report = here.run(&job).await;
            assert_eq!((report.retrieved, report.parked), (1, u64::from(attempt == 3)), "attempt {attempt}");
        }
        let rows = asked(&here, false).await;
        assert_eq!(rows[0].reason, "not checked by antispam: no answer in time");
        assert_eq!((server.inbox().len(), here.tokens("ann").len()), (1, 99));
    }
}

#[tokio::test]
async fn a_filter_that_dies_in_the_middle_holds_everything_back_counts_nothing_and_is_found_when_it_is_back() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(20));
        let judge = Judge::new(Kind::Antivirus, |_| clean());
        let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
        let job = job(&here, protocol, &server, Policy::default());
        judge.dies_after(7);
        let report = here.run(&job).await;
        assert!(matches!(report.error, Some(RunError::Filter { .. })), "{:?}", report.error);
        assert_eq!(report.error.as_ref().unwrap().trouble().cause, Cause::FilterDown);
        let checked = judge.found();
        assert!(here.tokens("ann").len() <= checked && checked == 7, "{checked}");
        assert!(here.tokens("ann").values().all(|count| *count == 1));
        assert_eq!(asked(&here, true).await, [], "nobody's fault");

        let before = server.counters();
        let report = here.run(&job).await;
        assert!(matches!(report.error, Some(RunError::Filter { .. })), "{:?}", report.error);
        let counts = |counters: connectord_testkit::servers::Counters| (counters.connections, counters.retrieved);
        assert_eq!(counts(server.counters()), counts(before), "the server is not even connected to");
        assert!(report.next_check.is_some_and(|wait| wait <= Duration::from_secs(60)), "{:?}", report.next_check);
        let row = here.store.open_account("ann@example.org").await.unwrap();
        assert_eq!(row.health.hold, Some(Hold::Filter));

        judge.lives();
        let report = here.run(&job).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!(here.tokens("ann"), common::once(20));
        assert!(server.inbox().is_empty() && report.unchecked == 0);
    }
}

#[tokio::test]
async fn where_that_is_wanted_mail_is_delivered_unchecked_and_marked_while_a_filter_is_down() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(12));
        let judge = Judge::new(Kind::Antivirus, |_| clean());
        let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
        judge.dies_after(0);
        let job = job(&here, protocol, &server, Policy { on_failure: OnFailure::Deliver, ..Policy::default() });
        let report = here.run(&job).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!((report.delivered, report.unchecked), (12, 12));
        let marked = |text: &String| text.contains("X-Connectord-Unchecked: antivirus: ");
        assert!(texts(&here, "").iter().all(marked));
        assert!(server.inbox().is_empty());
    }
}

#[tokio::test]
async fn a_filter_that_was_restarted_while_it_looked_is_asked_again_at_once() {
    let server = Any::with(Protocol::Pop3, token_mail(3));
    let judge = Judge::new(Kind::Antivirus, |_| clean());
    let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
    judge.fails_once.store(true, Ordering::SeqCst);
    let report = here.run(&job(&here, Protocol::Pop3, &server, Policy::default())).await;
    assert_eq!((report.delivered, report.deferred, report.error.is_none()), (3, 0, true));
}

#[tokio::test]
async fn a_soft_reject_puts_a_message_off_a_few_times_and_never_before_its_time() {
    for (protocol, exhausted) in BOTH.into_iter().zip([Exhausted::Deliver, Exhausted::Park]) {
        let server = Any::with(protocol, token_mail(2));
        let judge = Judge::new(Kind::Antispam, |token| if token == "1" { soft_reject() } else { clean() });
        let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
        let policy = Policy { postponements: 2, exhausted, ..Policy::default() };
        let job = job(&here, protocol, &server, policy);
        let report = here.run(&job).await;
        assert_eq!((report.delivered, report.deferred), (1, 1));
        let retrieved = server.counters().retrieved;
        here.pass(300);
        here.run(&job).await;
        assert_eq!(server.counters().retrieved, retrieved, "ten minutes are not over");
        // A person who asks before its time does not use it up.
        run(&here.site, &job, Mode { by_hand: true, dry_run: false }, here.stop.subscribe()).await;
        assert_eq!(asked(&here, true).await[0].postponed, 1);
        here.pass(301);
        assert_eq!(here.run(&job).await.deferred, 1);
        assert_eq!(asked(&here, true).await[0].postponed, 2);
        here.pass(601);
        let report = here.run(&job).await;
        match exhausted {
            Exhausted::Deliver => {
                assert_eq!((report.delivered, report.spam, server.inbox().len()), (1, 1, 0));
                let marked = |text: &&String| text.contains("X-Spam: Yes") && text.contains("token-1");
                assert_eq!(texts(&here, "").iter().filter(marked).count(), 1);
            }
            Exhausted::Park => {
                assert_eq!((report.parked, server.inbox().len()), (1, 1));
                // A person's word counts more, and nobody is asked.
                let asked_before = judge.asked.load(Ordering::SeqCst);
                let row = asked(&here, false).await.remove(0);
                assert!(here.store.deliver(row.message).await.unwrap());
                assert_eq!(here.run(&job).await.delivered, 1);
                assert_eq!((judge.asked.load(Ordering::SeqCst), server.inbox().len()), (asked_before, 0));
            }
        }
    }
}

#[tokio::test]
async fn a_quarantine_that_is_full_keeps_the_remote_copy_and_no_other_message_waiting() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(3));
        let judge = Judge::new(Kind::Antispam, |token| if token == "1" { reject() } else { clean() });
        let shelf = Arc::new(Shelf::default());
        let here = with_filters(Light::new(), vec![judge.clone()], shelf.clone());
        let job = job(&here, protocol, &server, Policy::default());
        shelf.full.store(true, Ordering::SeqCst);
        let report = here.run(&job).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!((report.delivered, report.deferred, report.quarantined), (2, 1, 0));
        assert_eq!((server.inbox().len(), shelf.tokens().len()), (1, 0));
        let rows = asked(&here, true).await;
        assert_eq!((rows[0].reason.as_str(), rows[0].attempts), ("quarantine: no room", 0));
        assert_eq!(here.run(&job).await.retrieved, 0, "it is not retrieved at every check");
        shelf.full.store(false, Ordering::SeqCst);
        here.pass(HOUR + 1);
        assert_eq!(here.run(&job).await.quarantined, 1);
        assert_eq!((server.inbox().len(), shelf.tokens()), (0, vec!["1".to_owned()]));
    }
}

#[tokio::test]
async fn without_a_quarantine_what_would_go_there_waits_for_a_person() {
    let server = Any::with(Protocol::Imap, token_mail(1));
    let mut here = Light::new();
    let chain = Chain { filters: vec![Judge::new(Kind::Antispam, |_| reject())] };
    Arc::get_mut(&mut here.site).unwrap().filters = Filters::new(chain, None);
    let report = here.run(&job(&here, Protocol::Imap, &server, Policy::default())).await;
    assert_eq!((report.parked, server.inbox().len()), (1, 1));
    assert!(asked(&here, false).await[0].reason.contains("no quarantine"));
}

#[tokio::test]
async fn who_has_a_message_already_is_not_kept_from_it_when_it_is_kept_back_for_another() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(1));
        let bad = Arc::new(AtomicBool::new(false));
        let judge = Judge::new(Kind::Antispam, {
            let bad = bad.clone();
            move |_| if bad.load(Ordering::SeqCst) { reject() } else { clean() }
        });
        let shelf = Arc::new(Shelf::default());
        let here = with_filters(Light::new(), vec![judge], shelf.clone());
        let delivery = Scripted::new(8, |parcel| match parcel.recipient.user.as_str() {
            "bob" => failed(FailureKind::Transient),
            _ => delivered(),
        });
        let recipient = |user: &str| Recipient { user: user.into(), address: format!("{user}@here.test") };
        let recipients = vec![recipient("ann"), recipient("bob")];
        let job = Job { delivery: delivery.clone(), recipients, ..job(&here, protocol, &server, Policy::default()) };
        let report = here.run(&job).await;
        assert_eq!((report.delivered, report.deferred, server.inbox().len()), (1, 1, 1));
        bad.store(true, Ordering::SeqCst);
        here.pass(12 * HOUR);
        assert_eq!(here.run(&job).await.quarantined, 1);
        let held = shelf.held("0");
        let users: Vec<_> = held.recipients.iter().map(|held| (held.user.as_str(), held.address.as_str())).collect();
        assert_eq!(users, [("bob", "bob@here.test")]);
        assert_eq!((delivery.taken_by("ann").len(), server.inbox().len()), (1, 0));
    }
}

#[tokio::test]
async fn a_notice_comes_to_every_recipient_and_is_made_up_for_when_one_could_not_get_it() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(1));
        let judge = Judge::new(Kind::Antivirus, |_| infected());
        let shelf = Arc::new(Shelf::default());
        let here = with_filters(Light::new(), vec![judge], shelf.clone());
        let bob_has_room = Arc::new(AtomicBool::new(false));
        let has_room = bob_has_room.clone();
        let delivery = Scripted::new(8, move |parcel| {
            let to_bob = parcel.recipient.user == "bob";
            if to_bob && !has_room.load(Ordering::SeqCst) { failed(FailureKind::Transient) } else { delivered() }
        });
        let recipient = |user: &str| Recipient { user: user.into(), address: format!("{user}@here.test") };
        let recipients = vec![recipient("ann"), recipient("bob")];
        let policy = Policy { on_virus: OnVirus::Notice, ..Policy::default() };
        let job = Job { delivery: delivery.clone(), recipients, ..job(&here, protocol, &server, policy) };
        let report = here.run(&job).await;
        assert_eq!((report.delivered, report.deferred, report.quarantined, server.inbox().len()), (1, 1, 1, 1));
        bob_has_room.store(true, Ordering::SeqCst);
        here.pass(12 * HOUR);
        let report = here.run(&job).await;
        assert_eq!((report.delivered, report.quarantined, server.inbox().len()), (1, 0, 0));
        assert_eq!((delivery.taken_by("ann").len(), delivery.taken_by("bob").len(), shelf.kept()), (1, 1, 1));
    }
}

#[tokio::test]
async fn a_filter_is_asked_by_all_accounts_together_no_more_than_it_bears() {
    let judge = Judge::new(Kind::Antispam, |_| clean());
    judge.slow.store(true, Ordering::SeqCst);
    let here = with_filters(Light::new(), vec![judge.clone()], Arc::new(Shelf::default()));
    let servers: Vec<Any> = (0..4).map(|n| Any::with(BOTH[n % 2], token_mail(10))).collect();
    let jobs: Vec<Job> = servers
        .iter()
        .enumerate()
        .map(|(n, server)| {
            here.job(BOTH[n % 2], server.port(), |account| account.address = format!("a{n}@example.org"))
        })
        .collect();
    let (a, b, c, d) = tokio::join!(here.run(&jobs[0]), here.run(&jobs[1]), here.run(&jobs[2]), here.run(&jobs[3]));
    assert_eq!([a, b, c, d].map(|report| report.delivered), [10; 4]);
    assert_eq!(judge.most_at_once.load(Ordering::SeqCst), sieve::AT_ONCE);
}

#[tokio::test]
async fn a_filter_that_panics_holds_back_the_one_message() {
    let server = Any::with(Protocol::Pop3, token_mail(4));
    let judge = Judge::new(Kind::Antispam, |token| if token == "2" { panic!("as the test wants") } else { clean() });
    let here = with_filters(Light::new(), vec![judge], Arc::new(Shelf::default()));
    let report = here.run(&job(&here, Protocol::Pop3, &server, Policy::default())).await;
    assert_eq!((report.delivered, report.deferred, report.error.is_none()), (3, 1, true));
    assert_eq!(asked(&here, true).await[0].filter_failures, 1);
}

#[tokio::test]
async fn a_lost_state_puts_nothing_twice_into_a_folder_or_the_quarantine_and_tells_nothing_twice() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(4));
        let shelf = Arc::new(Shelf::default());
        let judge = Judge::new(Kind::Antispam, |token| match token {
            "1" => spam(),
            "2" => reject(),
            "3" => infected(),
            _ => clean(),
        });
        let mut here = with_filters(Light::new(), vec![judge], shelf.clone());
        let policy = Policy { on_spam: OnSpam::Folder("Junk".into()), on_virus: OnVirus::Notice, ..Policy::default() };
        let job = Job { policy, ..here.job(protocol, server.port(), |_| {}) };
        assert_eq!(here.run(&job).await.delivered, 3);
        // Somebody reads what is in the folder.
        let (name, octets) = here.disk.files("/mail/ann/.Junk/new").pop_first().unwrap();
        here.disk.remove(&format!("/mail/ann/.Junk/new/{name}"));
        here.disk.put(&format!("/mail/ann/.Junk/cur/{name}:2,S"), &octets);
        let state = Arc::new(connectord_store::memory::MemoryStore::new());
        here.site = here.site_with(state);
        let report = here.run(&job).await;
        assert_eq!((report.retrieved, report.error.is_none()), (4, true), "{protocol:?}");
        assert_eq!((texts(&here, "").len(), texts(&here, ".Junk/").len()), (2, 0), "{protocol:?}");
        assert_eq!(shelf.tokens(), ["2", "3"]);
    }
}

/// Counts the messages that were retrieved whole.
#[derive(Default)]
struct Retrieved(AtomicUsize);

impl Observer for Retrieved {
    fn progress(&self, _: &str, progress: Progress<'_>) {
        if let Progress::Retrieved = progress {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn what_waits_for_filters_holds_its_room() {
    // Messages of a little more than 16 MiB: room for three, and the fourth waits for it.
    let big = |n: usize| {
        let mut message = format!("Subject: {n}\r\n\r\ntoken-{n} \r\n").into_bytes();
        message.extend(format!("{}\r\n", "x".repeat(70)).into_bytes().iter().cycle().take(16 << 20));
        message
    };
    let server = Any::with(Protocol::Pop3, (0..7).map(big));
    let judge = Judge::new(Kind::Antispam, |_| clean());
    let here = common::Installation::new();
    let retrieved = Arc::new(Retrieved::default());
    let mut site = here.site_with(here.store.clone(), retrieved.clone());
    let chain = Chain { filters: vec![judge.clone()] };
    Arc::get_mut(&mut site).unwrap().filters = Filters::new(chain, None);
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    let nowhere = Scripted::new(8, |_| delivered());
    let job_of_another = here.job_to(nowhere, Protocol::Pop3, server.port(), |account| {
        account.address = "bob@example.org".into();
    });
    judge.hangs_on("");
    let checking = tokio::spawn({
        let stop = here.stop.subscribe();
        async move { run(&site, &job, Mode::default(), stop).await }
    });
    let count = || retrieved.0.load(Ordering::SeqCst);
    until("all that has room has come", || count() >= 4).await;
    // So long as another account takes for all of it.
    let unfiltered = Job { policy: Policy { antispam: false, ..Policy::default() }, ..job_of_another };
    let patience = Duration::from_secs(120);
    let report = timeout(patience, here.run(&unfiltered)).await.expect("the room of what is delivered is given back");
    assert_eq!(report.retrieved, 7);
    assert_eq!(count(), 4);
    judge.goes_on();
    let report = timeout(patience, checking).await.expect("the room of what was looked at is given back").unwrap();
    assert_eq!((report.delivered, report.error.is_none()), (7, true));
}
