//! Servers and configurations that are not as one would wish: what is retrieved, delivered and removed all the same.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::wrappers::{Scripted, delivered, failed, token};
use common::{Installation, once, token_mail};
use connectord_account::{Account, Folder, Protocol, Removal, Retention};
use connectord_delivery::{FailureKind, Outcome};
use connectord_engine::{Job, RunError};
use connectord_store::{Hold, Step, Store};
use connectord_testkit::servers::{ImapServer, Misbehaviour, Pop3Server, ServerOptions};
use connectord_testkit::{Fault, FaultProxy, Faults};

const BOTH: [Protocol; 2] = [Protocol::Pop3, Protocol::Imap];

fn options() -> ServerOptions {
    ServerOptions::new().user("ann", "secret")
}

fn pop3(without: &[&str]) -> Pop3Server {
    let server = Pop3Server::start(options());
    let without = without.iter().map(|name| (*name).to_owned()).collect();
    server.misbehave(Misbehaviour { without, ..Misbehaviour::default() });
    server
}

fn removing(account: &mut Account) {
    account.retention = Retention::Immediately;
}

/// Ann and bob.
fn two(account: &mut Account) {
    account.deliver_to = vec!["ann".into(), "bob".into()];
}

fn sorted(mut tokens: Vec<String>) -> Vec<String> {
    tokens.sort();
    tokens
}

#[tokio::test]
async fn a_second_identical_message_is_a_second_message_also_when_it_comes_later() {
    for without in [&["UIDL"][..], &["UIDL", "TOP"]] {
        let server = pop3(without);
        let mailbox = server.mailbox("ann");
        mailbox.add(token_mail(1).remove(0));
        let here = Installation::new();
        let job = here.job(Protocol::Pop3, server.port(), |_| {});
        assert_eq!(here.run_well(&job).await.delivered, 1);
        mailbox.add(token_mail(1).remove(0));
        assert_eq!(here.run_well(&job).await.delivered, 1, "{without:?}");
        assert_eq!(here.run_well(&job).await.delivered, 0, "{without:?}");
        assert_eq!(here.files("ann").len(), 2);
    }
}

#[tokio::test]
async fn a_message_with_the_header_of_one_that_vanished_is_neither_missed_nor_removed() {
    for without in [&["UIDL"][..], &["UIDL", "TOP"]] {
        let server = pop3(without);
        let mailbox = server.mailbox("ann");
        let old = mailbox.add("\r\nfirst without a header, token-0 \r\n");
        let here = Installation::new();
        let hour = Duration::from_secs(3600);
        let job = here.job(Protocol::Pop3, server.port(), |account| account.retention = Retention::AfterDelivery(hour));
        assert_eq!(here.run_well(&job).await.delivered, 1);
        mailbox.remove(old);
        mailbox.add("\r\nsecond without one, token-1 \r\n");
        here.pass(2 * 3600);
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.removed, mailbox.len()), (1, 0, 1), "{without:?}");
        assert_eq!(here.tokens("ann"), once(2));
    }
}

#[tokio::test]
async fn messages_known_by_content_are_removed_when_they_are_due() {
    for without in [&["UIDL"][..], &["UIDL", "TOP"]] {
        let server = pop3(without);
        for message in token_mail(4) {
            server.mailbox("ann").add(message);
        }
        let here = Installation::new();
        let hour = Duration::from_secs(3600);
        let job = here.job(Protocol::Pop3, server.port(), |account| account.retention = Retention::AfterDelivery(hour));
        here.run_well(&job).await;
        assert_eq!(here.run_well(&job).await.removed, 0);
        here.pass(2 * 3600);
        assert_eq!(here.run_well(&job).await.removed, 4, "{without:?}");
        assert_eq!((server.mailbox("ann").len(), here.tokens("ann")), (0, once(4)));
    }
}

#[tokio::test]
async fn when_unique_ids_turn_all_the_same_known_messages_are_not_delivered_again() {
    for without in [&[][..], &["TOP"]] {
        let server = pop3(without);
        for message in token_mail(5) {
            server.mailbox("ann").add(message);
        }
        let here = Installation::new();
        let job = here.job(Protocol::Pop3, server.port(), |_| {});
        here.run_well(&job).await;
        server.misbehave(Misbehaviour {
            same_uidls: true,
            without: without.iter().map(|name| (*name).to_owned()).collect(),
            ..Misbehaviour::default()
        });
        assert_eq!(here.run_well(&job).await.delivered, 0, "{without:?}");
        assert_eq!(here.tokens("ann"), once(5));
    }
}

#[tokio::test]
async fn a_day_without_uidl_delivers_nothing_again_when_it_is_back() {
    let server = pop3(&[]);
    let mail = token_mail(12);
    mail[..10].iter().for_each(|message| {
        server.mailbox("ann").add(message.clone());
    });
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    here.run_well(&job).await;
    server.misbehave(Misbehaviour { without: ["UIDL".to_owned()].into(), ..Misbehaviour::default() });
    mail[10..].iter().for_each(|message| {
        server.mailbox("ann").add(message.clone());
    });
    assert_eq!(here.run_well(&job).await.delivered, 2);
    server.misbehave(Misbehaviour::default());
    assert_eq!(here.run_well(&job).await.delivered, 0);
    assert_eq!(here.tokens("ann"), once(12));
}

#[tokio::test]
async fn a_removal_that_has_to_be_verified_happens_without_top_too() {
    let server = pop3(&["TOP"]);
    server.mailbox("ann").add(token_mail(1).remove(0));
    server.misbehave(Misbehaviour {
        without: ["TOP".to_owned()].into(),
        quit: connectord_testkit::servers::QuitFault::CloseAndKeep,
        ..Misbehaviour::default()
    });
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port(), removing);
    here.run(&job).await;
    server.misbehave(Misbehaviour { without: ["TOP".to_owned()].into(), ..Misbehaviour::default() });
    here.run_well(&job).await;
    assert_eq!((server.mailbox("ann").len(), here.tokens("ann")), (0, once(1)));
}

#[tokio::test]
async fn a_message_that_ends_the_connection_each_time_does_not_hold_up_the_others() {
    for protocol in BOTH {
        let (pop, imap) = (Pop3Server::start(options()), ImapServer::start(options()));
        let server = if protocol == Protocol::Pop3 { &*pop } else { &*imap };
        let mail = token_mail(4);
        // The first is so large that the connection ends in it, always.
        let mut large = mail[0].clone();
        large.extend_from_slice(&b"0123456789012345678901234567890123456789\r\n".repeat(2000));
        server.mailbox("ann").add(large);
        mail[1..].iter().for_each(|message| {
            server.mailbox("ann").add(message.clone());
        });
        server.misbehave(Misbehaviour { close_after_octets: Some(20_000), ..Misbehaviour::default() });
        let here = Installation::new();
        let job = here.job(protocol, server.port(), removing);
        for _ in 0..3 {
            here.run(&job).await;
        }
        assert_eq!(server.mailbox("ann").len(), 1, "{protocol:?}");
        assert_eq!(here.files("ann").len(), 3, "{protocol:?}");
        // In the end it is shown to a person, and stays.
        for _ in 0..12 {
            here.pass(5 * 3600);
            here.run(&job).await;
        }
        let troubled = here.store.troubled(None, false).await.unwrap();
        assert_eq!((troubled.len(), server.mailbox("ann").len()), (1, 1), "{protocol:?}");
        assert!(here.run(&job).await.error.is_none());
    }
}

#[tokio::test]
async fn a_delivery_that_fails_ends_the_check_though_the_server_is_silent() {
    for protocol in BOTH {
        let (pop, imap) = (Pop3Server::start(options()), ImapServer::start(options()));
        let server = if protocol == Protocol::Pop3 { &*pop } else { &*imap };
        for message in token_mail(40) {
            let padding = b"0123456789012345678901234567890123456789\r\n".repeat(100);
            server.mailbox("ann").add([message, padding].concat());
        }
        let proxy = FaultProxy::start(server.address());
        proxy.set(Faults::to_client(Fault::none().stall_after(60_000)));
        let here = Installation::new();
        let down = Scripted::new(8, |_| failed(FailureKind::Unavailable));
        let job = here.job_to(down, protocol, proxy.port(), |_| {});
        let began = Instant::now();
        let report = here.run(&job).await;
        assert!(matches!(report.error, Some(RunError::Destination { .. })), "{:?}", report.error);
        assert!(began.elapsed() < Duration::from_secs(30), "{protocol:?} {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_delivery_that_hangs_is_given_ten_seconds_at_a_stop_and_is_known_to_be_uncertain() {
    let server = pop3(&[]);
    server.mailbox("ann").add(token_mail(1).remove(0));
    let here = Installation::new();
    let hangs = Arc::new(Hanging);
    let job = here.job_to(hangs, Protocol::Pop3, server.port(), removing);
    let (report, began) = tokio::join!(here.run(&job), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        here.stop.send_replace(true);
        Instant::now()
    });
    assert!(matches!(report.error, Some(RunError::Stopped)), "{:?}", report.error);
    assert!(began.elapsed() < Duration::from_secs(12));
    let account = here.store.open_account("ann@example.org").await.unwrap();
    let rows = here.store.unfinished(account.id).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.step.clone()).collect::<Vec<_>>(), [Step::Delivering { attempt: 1 }]);
    assert_eq!((account.health.failures, server.mailbox("ann").len()), (0, 1));
}

/// Takes messages and never answers.
struct Hanging;

#[async_trait::async_trait]
impl connectord_delivery::Delivery for Hanging {
    fn describe(&self) -> String {
        "hanging".into()
    }
    fn limits(&self) -> connectord_delivery::BatchLimits {
        connectord_delivery::BatchLimits::default()
    }
    async fn presence(
        &self,
        _: &connectord_delivery::Recipient,
    ) -> Result<connectord_delivery::Presence, connectord_delivery::Failure> {
        Ok(connectord_delivery::Presence::Here)
    }
    async fn prepare(&self, batch: Vec<connectord_delivery::Parcel>) -> Box<dyn connectord_delivery::Prepared> {
        Box::new(HangingBatch(batch.iter().map(|_| Ok(None)).collect()))
    }
    async fn recall(&self, rows: Vec<connectord_delivery::RecallRow>) -> Vec<connectord_delivery::Recalled> {
        rows.iter().map(|_| connectord_delivery::Recalled::Unknown).collect()
    }
}

struct HangingBatch(Vec<Result<Option<connectord_delivery::Note>, connectord_delivery::Failure>>);

#[async_trait::async_trait]
impl connectord_delivery::Prepared for HangingBatch {
    fn notes(&self) -> &[Result<Option<connectord_delivery::Note>, connectord_delivery::Failure>] {
        &self.0
    }
    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_unanswered_delivery_waits_longer_each_time_and_is_parked_in_the_end() {
    let server = pop3(&[]);
    server.mailbox("ann").add(token_mail(1).remove(0));
    let here = Installation::new();
    let dies = Scripted::new(8, |_| {
        Outcome::Unknown(connectord_delivery::Failure::new(FailureKind::Transient, "closed before the answer"))
    });
    let job = here.job_to(dies.clone(), Protocol::Pop3, server.port(), removing);
    here.run(&job).await;
    here.run(&job).await;
    assert_eq!(dies.taken_by("ann").len(), 1);
    for _ in 0..20 {
        here.pass(5 * 3600);
        here.run(&job).await;
    }
    assert_eq!((dies.taken_by("ann").len(), server.mailbox("ann").len()), (10, 1));
    assert_eq!(here.store.troubled(None, false).await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_has_a_message_does_not_get_it_again_when_another_recipient_waits() {
    for protocol in BOTH {
        let (pop, imap) = (Pop3Server::start(options()), ImapServer::start(options()));
        let server = if protocol == Protocol::Pop3 { &*pop } else { &*imap };
        for message in token_mail(3) {
            server.mailbox("ann").add(message);
        }
        let here = Installation::new();
        let full = Arc::new(AtomicBool::new(true));
        let is_full = Arc::clone(&full);
        let to_two = Scripted::new(2, move |parcel| match parcel.recipient.user.as_str() {
            "bob" if is_full.load(Ordering::SeqCst) => failed(FailureKind::OverQuota),
            _ => delivered(),
        });
        let job = here.job_to(to_two.clone(), protocol, server.port(), |account| {
            two(account);
            removing(account);
        });
        here.run(&job).await;
        // Bob's full mailbox keeps nothing from ann, and nothing is removed.
        assert_eq!(sorted(to_two.taken_by("ann")), ["0", "1", "2"], "{protocol:?}");
        assert_eq!((to_two.taken_by("bob").len(), server.mailbox("ann").len()), (0, 3));
        full.store(false, Ordering::SeqCst);
        here.pass(2 * 3600);
        here.run_well(&job).await;
        assert_eq!(sorted(to_two.taken_by("ann")), ["0", "1", "2"], "{protocol:?}");
        assert_eq!(
            (sorted(to_two.taken_by("bob")), server.mailbox("ann").len()),
            (vec!["0".into(), "1".into(), "2".into()], 0)
        );
    }
}

#[tokio::test]
async fn what_was_refused_for_one_recipient_waits_for_a_person_and_is_not_removed() {
    for protocol in BOTH {
        let (pop, imap) = (Pop3Server::start(options()), ImapServer::start(options()));
        let server = if protocol == Protocol::Pop3 { &*pop } else { &*imap };
        server.mailbox("ann").add(token_mail(1).remove(0));
        let here = Installation::new();
        let tries = Arc::new(AtomicBool::new(true));
        let first = Arc::clone(&tries);
        // Bob is refused for good; ann has it in the second attempt.
        let script = move |parcel: &connectord_delivery::Parcel| match parcel.recipient.user.as_str() {
            "bob" => failed(FailureKind::Permanent),
            _ if first.swap(false, Ordering::SeqCst) => failed(FailureKind::Transient),
            _ => delivered(),
        };
        let asked = Arc::new(std::sync::Mutex::new(0));
        let of_bob = Arc::clone(&asked);
        let to_two = Scripted::new(8, move |parcel| {
            *of_bob.lock().unwrap() += usize::from(parcel.recipient.user == "bob");
            script(parcel)
        });
        let job = here.job_to(to_two.clone(), protocol, server.port(), |account| {
            two(account);
            removing(account);
        });
        here.run(&job).await;
        here.pass(3600);
        here.run(&job).await;
        here.pass(3600);
        here.run(&job).await;
        assert_eq!((to_two.taken_by("ann").len(), *asked.lock().unwrap()), (1, 1), "{protocol:?}");
        assert_eq!((server.mailbox("ann").len(), here.store.troubled(None, false).await.unwrap().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_recipient_who_is_configured_no_more_holds_nothing_up() {
    for protocol in BOTH {
        let (pop, imap) = (Pop3Server::start(options()), ImapServer::start(options()));
        let server = if protocol == Protocol::Pop3 { &*pop } else { &*imap };
        server.mailbox("ann").add(token_mail(1).remove(0));
        let here = Installation::new();
        let to_two = Scripted::new(8, |parcel| match parcel.recipient.user.as_str() {
            "bob" => failed(FailureKind::Transient),
            _ => delivered(),
        });
        let both = here.job_to(to_two.clone(), protocol, server.port(), |account| {
            two(account);
            removing(account);
        });
        here.run(&both).await;
        let alone = here.job_to(to_two.clone(), protocol, server.port(), removing);
        here.pass(3600);
        here.run_well(&alone).await;
        assert_eq!((to_two.taken_by("ann").len(), server.mailbox("ann").len()), (1, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn only_todays_destination_and_recipients_are_asked_what_became_of_a_delivery() {
    let server = pop3(&[]);
    server.mailbox("ann").add(token_mail(1).remove(0));
    let here = Installation::new();
    // Cut short while two recipients' deliveries were under way.
    let crashed = here.job_to(Arc::new(Hanging), Protocol::Pop3, server.port(), two);
    let (_, ()) = tokio::join!(here.run(&crashed), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        here.stop.send_replace(true);
    });
    here.stop.send_replace(false);
    // Bob is no recipient any more, and today's destination would wait for him for ever.
    let without_bob = Scripted::new(8, |_| delivered());
    let job = here.job_to(without_bob.clone(), Protocol::Pop3, server.port(), |_| {});
    here.run_well(&job).await;
    assert_eq!(*without_bob.recalled.lock().unwrap(), ["ann"]);
    assert_eq!((without_bob.taken_by("ann").len(), without_bob.taken_by("bob").len()), (1, 0));

    server.mailbox("ann").add(token_mail(2).remove(1));
    here.stop.send_replace(false);
    let crashed = here.job_to(Arc::new(Hanging), Protocol::Pop3, server.port(), |_| {});
    let (_, ()) = tokio::join!(here.run(&crashed), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        here.stop.send_replace(true);
    });
    here.stop.send_replace(false);
    let elsewhere = Scripted::new(8, |_| delivered());
    let job = Job {
        destination: "elsewhere".into(),
        ..here.job_to(elsewhere.clone(), Protocol::Pop3, server.port(), |_| {})
    };
    here.run_well(&job).await;
    assert_eq!((elsewhere.recalled.lock().unwrap().len(), elsewhere.taken_by("ann")), (0, vec!["1".to_owned()]));
}

#[tokio::test]
async fn messages_are_not_retrieved_from_where_removed_ones_are_moved_to() {
    let server = ImapServer::start(options());
    let trash = server.mailbox_named("ann", "Done");
    for message in token_mail(3) {
        server.mailbox("ann").add(message);
    }
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| {
        removing(account);
        account.removal = Removal::MoveTo("Done".into());
        account.folders = vec![Folder::Pattern("*".into())];
    });
    here.run_well(&job).await;
    here.run_well(&job).await;
    assert_eq!((here.tokens("ann"), trash.len(), server.mailbox("ann").len()), (once(3), 3, 0));
}

#[tokio::test]
async fn a_move_by_copy_that_was_cut_short_copies_nothing_twice() {
    let server = ImapServer::start(options());
    let without = || ["MOVE".to_owned(), "UIDPLUS".to_owned(), "IMAP4REV2".to_owned()].into();
    let trash = server.mailbox_named("ann", "Done");
    for message in token_mail(3) {
        server.mailbox("ann").add(message);
    }
    server.misbehave(Misbehaviour { without: without(), close_at: Some("EXPUNGE".into()), ..Misbehaviour::default() });
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| {
        removing(account);
        account.removal = Removal::MoveTo("Done".into());
    });
    here.run(&job).await;
    assert_eq!((trash.len(), server.mailbox("ann").len()), (3, 3));
    server.misbehave(Misbehaviour { without: without(), ..Misbehaviour::default() });
    here.run_well(&job).await;
    assert_eq!((trash.len(), server.mailbox("ann").len()), (3, 0));
}

#[tokio::test]
async fn without_uidplus_messages_that_are_only_marked_are_not_called_removed() {
    let server = ImapServer::start(options());
    let without = ["UIDPLUS".to_owned(), "MOVE".to_owned(), "IMAP4REV2".to_owned()].into();
    server.misbehave(Misbehaviour { without, ..Misbehaviour::default() });
    let here = Installation::new();
    let hour = Duration::from_secs(3600);
    let job = here.job(Protocol::Imap, server.port(), |account| account.retention = Retention::AfterDelivery(hour));
    let mail = token_mail(2);
    server.mailbox("ann").add(mail[0].clone());
    here.run_well(&job).await;
    here.pass(7200);
    // Somebody else's, marked, and not due yet.
    let foreign = connectord_testkit::Message { flags: vec!["\\Deleted".into()], ..mail[1].clone().into() };
    server.mailbox("ann").add(foreign);
    let report = here.run_well(&job).await;
    assert_eq!((report.removed, server.mailbox("ann").len()), (0, 2));
    let report = here.run_well(&job).await;
    assert_eq!((report.due, server.mailbox("ann").len()), (0, 2));
}

#[tokio::test]
async fn what_was_marked_seen_instead_of_removed_is_remembered_as_long_as_it_is_there() {
    let server = ImapServer::start(options());
    server.mailbox("ann").add(token_mail(1).remove(0));
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| {
        removing(account);
        account.removal = Removal::MarkSeen;
    });
    here.run_well(&job).await;
    for _ in 0..3 {
        here.pass(400 * 86_400);
        here.store.tidy(here.site.clock.now()).await.unwrap();
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.due), (0, 0));
    }
    assert_eq!(here.tokens("ann"), once(1));
}

#[tokio::test]
async fn a_mailbox_that_goes_back_to_an_older_uidvalidity_delivers_nothing_again() {
    let server = ImapServer::start(options());
    for message in token_mail(4) {
        server.mailbox("ann").add(message);
    }
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |_| {});
    let first = server.mailbox("ann").uid_validity();
    here.run_well(&job).await;
    for validity in [77, first, 77, first] {
        here.pass(2 * 86_400);
        server.mailbox("ann").set_uid_validity(validity);
        assert_eq!(here.run_well(&job).await.delivered, 0, "{validity}");
    }
    assert_eq!(here.tokens("ann"), once(4));
}

#[tokio::test]
async fn a_mailbox_that_is_missing_does_not_slow_the_others_down() {
    let server = ImapServer::start(options());
    let here = Installation::new();
    let job = here.job(Protocol::Imap, server.port(), |account| {
        account.folders = vec![Folder::Name("Nowhere".into()), Folder::Name("INBOX".into())];
    });
    for _ in 0..8 {
        here.run(&job).await;
    }
    let health = here.store.open_account("ann@example.org").await.unwrap().health;
    let wait = health.next_check.unwrap().since(here.site.clock.now());
    assert!(wait <= Duration::from_secs(15 * 60), "{wait:?}");
    assert_eq!(health.hold, Some(Hold::Backoff));
}

#[tokio::test]
async fn a_message_larger_than_announced_is_parked_while_it_comes() {
    for protocol in BOTH {
        let (pop, imap) = (Pop3Server::start(options()), ImapServer::start(options()));
        let server = if protocol == Protocol::Pop3 { &*pop } else { &*imap };
        let mail = token_mail(2);
        let padding = b"0123456789012345678901234567890123456789\r\n".repeat(1000);
        server.mailbox("ann").add([mail[0].clone(), padding].concat());
        server.mailbox("ann").add(mail[1].clone());
        server.misbehave(Misbehaviour { size_error: -40_000, ..Misbehaviour::default() });
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| account.max_message_octets = Some(20_000));
        let report = here.run_well(&job).await;
        assert_eq!((report.parked, report.delivered), (1, 1), "{protocol:?}");
        let report = here.run_well(&job).await;
        assert_eq!((report.parked, report.new), (0, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_lost_state_and_an_interrupted_check_deliver_nothing_twice_into_a_maildir() {
    for (protocol, cut) in
        BOTH.into_iter().flat_map(|protocol| (500..1700).step_by(200).map(move |cut| (protocol, cut)))
    {
        let (pop, imap) = (Pop3Server::start(options()), ImapServer::start(options()));
        let server = if protocol == Protocol::Pop3 { &*pop } else { &*imap };
        for message in token_mail(8) {
            server.mailbox("ann").add(message);
        }
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |_| {});
        here.run_well(&job).await;
        // A reader has looked at them.
        for file in here.files("ann") {
            let seen = format!("{}:2,S", file.file_name().unwrap().to_str().unwrap());
            std::fs::rename(&file, file.parent().unwrap().with_file_name("cur").join(seen)).unwrap();
        }
        here.store.close().await;
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            let _ = std::fs::remove_file(here.directory.path().join("state").join(name));
        }
        let here = here.restarted().await;
        let job = here.job(protocol, server.port(), |_| {});
        server.misbehave(Misbehaviour { close_after_octets: Some(cut), ..Misbehaviour::default() });
        here.run(&job).await;
        server.misbehave(Misbehaviour::default());
        here.run_well(&job).await;
        assert_eq!(here.tokens("ann"), once(8), "{protocol:?}, {cut}");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_in_the_middle_of_a_check_removes_nothing() {
    for protocol in BOTH {
        let (pop, imap) = (Pop3Server::start(options()), ImapServer::start(options()));
        let server = if protocol == Protocol::Pop3 { &*pop } else { &*imap };
        for message in token_mail(3) {
            server.mailbox("ann").add(message);
        }
        let here = Installation::new();
        let week = Duration::from_secs(7 * 86_400);
        let job = here.job(protocol, server.port(), |account| account.retention = Retention::AfterDelivery(week));
        here.run_well(&job).await;
        let site = here.site_with(here.store.clone(), Arc::new(JumpAtLogin(Arc::clone(&here.ahead))));
        let report = connectord_engine::run(&site, &job, Default::default(), here.stop.subscribe()).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        assert_eq!((report.removed, server.mailbox("ann").len()), (0, 3), "{protocol:?}");
    }
}

struct JumpAtLogin(Arc<std::sync::atomic::AtomicI64>);

impl connectord_engine::Observer for JumpAtLogin {
    fn progress(&self, _: &str, progress: connectord_engine::Progress<'_>) {
        if matches!(progress, connectord_engine::Progress::LoggedIn { .. }) {
            self.0.store(10 * 365 * 86_400, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn token_of_a_parcel_is_read() {
    // The helper that the tests above rest on.
    let server = pop3(&[]);
    server.mailbox("ann").add(token_mail(1).remove(0));
    let here = Installation::new();
    let seen = Scripted::new(8, |parcel| {
        assert_eq!(token(parcel), "0");
        delivered()
    });
    let job = here.job_to(seen.clone(), Protocol::Pop3, server.port(), |_| {});
    here.run_well(&job).await;
    assert_eq!(seen.taken_by("ann"), ["0"]);
}
