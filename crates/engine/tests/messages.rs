//! The life of messages that are in trouble or in doubt: parked, delivered anyway, deleted; recognised under other names
//! and compared before they are removed; delivered again though they may have arrived.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::wrappers::{Scripted, delivered, failed};
use common::{Any, BOTH, Installation, once, token_mail};
use connectord_account::{Account, Protocol, Removal, Retention, State};
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient,
};
use connectord_engine::{Ambiguous, ChangeKind, Job, Report};
use connectord_store::{ParkedRow, Store};
use connectord_testkit::servers::{ImapServer, Misbehaviour, QuitFault, ServerOptions};

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

fn removing(account: &mut Account) {
    account.retention = Retention::Immediately;
}

/// Removed an hour after its delivery.
fn within_the_hour(account: &mut Account) {
    account.retention = Retention::AfterDelivery(Duration::from_secs(3600));
}

fn two(account: &mut Account) {
    account.deliver_to = vec!["ann".into(), "bob".into()];
}

/// The same header each time, and with tokens of one digit the same size.
fn twin(token: usize) -> Vec<u8> {
    format!(
        "Message-ID: <twin@example.org>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nSubject: twin\r\n\r\ntoken-{token} \r\n"
    )
    .into_bytes()
}

fn large(token: usize) -> Vec<u8> {
    let message = token_mail(token + 1).remove(token);
    [message, b"0123456789012345678901234567890123456789\r\n".repeat(1000)].concat()
}

async fn troubled(here: &Installation) -> Vec<ParkedRow> {
    here.store.troubled(None, true).await.unwrap()
}

async fn states(here: &Installation) -> Vec<State> {
    let account = here.store.open_account("ann@example.org").await.unwrap();
    let mut states = Vec::new();
    for mailbox in here.store.mailboxes(account.id).await.unwrap() {
        states.extend(here.store.ledger(mailbox.id).await.unwrap().iter().map(|entry| entry.state));
    }
    states
}

fn kinds(report: &Report) -> Vec<ChangeKind> {
    report.changes.iter().map(|change| change.kind).collect()
}

fn tokens(numbers: &[usize]) -> BTreeMap<String, usize> {
    numbers.iter().map(|n| (n.to_string(), 1)).collect()
}

// A person's word.

#[tokio::test]
async fn a_mail_loop_ends_and_a_person_may_have_it_delivered_anyway() {
    for protocol in BOTH {
        let marks = b"X-Connectord-Account: ann@example.org\r\n".repeat(3);
        let server = Any::with(protocol, [[marks, token_mail(1).remove(0)].concat(), token_mail(2).remove(1)]);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), removing);
        let report = here.run_well(&job).await;
        assert_eq!((report.parked, report.delivered, server.inbox().len()), (1, 1, 1), "{protocol:?}");
        let row = troubled(&here).await.remove(0);
        assert!(row.reason.contains("mail loop") && row.name.subject == "0", "{row:?}");
        // Tried again it is the same loop.
        assert!(here.store.retry(row.message).await.unwrap());
        assert_eq!(here.run_well(&job).await.parked, 1);
        assert!(here.store.deliver(row.message).await.unwrap());
        let report = here.run_well(&job).await;
        assert_eq!((report.parked, report.delivered, server.inbox().len()), (0, 1, 0), "{protocol:?}");
        assert_eq!((here.tokens("ann"), troubled(&here).await.len()), (once(2), 0));
    }
}

#[tokio::test]
async fn too_large_a_message_says_from_whom_it_is_and_comes_when_a_person_wants_it() {
    for protocol in BOTH {
        let server = Any::with(protocol, [large(0), token_mail(2).remove(1)]);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| account.max_message_octets = Some(20_000));
        here.run_well(&job).await;
        let row = troubled(&here).await.remove(0);
        assert_eq!((row.name.subject.as_str(), row.name.message_id.as_str()), ("0", "<0@example.org>"), "{protocol:?}");
        assert!(row.size_octets > 20_000 && row.reason.contains("exceeds the limit"), "{row:?}");
        assert!(here.store.deliver(row.message).await.unwrap());
        assert_eq!(here.run_well(&job).await.delivered, 1);
        assert_eq!(here.tokens("ann"), once(2), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_message_that_failed_too_often_is_tried_as_long_as_it_takes_when_a_person_wants_it() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(1));
        let here = Installation::new();
        let tries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tries);
        let fails = Scripted::new(8, move |_| match count.fetch_add(1, Ordering::SeqCst) {
            25.. => delivered(),
            _ => failed(FailureKind::Transient),
        });
        let job = here.job_to(fails.clone(), protocol, server.port(), |_| {});
        for _ in 0..12 {
            here.run(&job).await;
            here.pass(5 * HOUR);
        }
        let row = troubled(&here).await.remove(0);
        assert_eq!((row.state, tries.load(Ordering::SeqCst)), (State::Parked, 10), "{protocol:?}");
        assert!(here.store.deliver(row.message).await.unwrap());
        for _ in 0..16 {
            here.run(&job).await;
            here.pass(5 * HOUR);
        }
        assert_eq!((fails.taken_by("ann").len(), troubled(&here).await.len()), (1, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_message_that_a_person_deletes_is_gone_and_no_other_is() {
    let removals = [
        (Protocol::Pop3, Removal::Expunge),
        (Protocol::Imap, Removal::Expunge),
        (Protocol::Imap, Removal::MoveTo("Done".into())),
        (Protocol::Imap, Removal::Trash),
        (Protocol::Imap, Removal::MarkSeen),
    ];
    for (protocol, removal) in removals {
        for refused in [false, true] {
            let server = Any::with(protocol, [token_mail(1).remove(0), large(1), token_mail(3).remove(2)]);
            server.mailbox_named("ann", "Done");
            let poison = server.inbox().uids()[1];
            if refused {
                server.misbehave(Misbehaviour { refuse_retrieve: [poison].into(), ..Misbehaviour::default() });
            }
            let here = Installation::new();
            // Nothing else is ever removed.
            let job = here.job(protocol, server.port(), |account| {
                account.max_message_octets = (!refused).then_some(20_000);
                account.removal = removal.clone();
            });
            here.run(&job).await;
            let row = troubled(&here).await.remove(0);
            assert!(here.store.delete(row.message).await.unwrap());
            assert_eq!(troubled(&here).await[0].state, State::Discarding);
            let report = here.run_well(&job).await;
            let what = format!("{protocol:?} {removal:?} {refused}");
            assert_eq!((report.removed, report.delivered, server.inbox().len()), (1, 0, 2), "{what}");
            assert!(!server.inbox().uids().contains(&poison), "{what}");
            let moved = match removal {
                Removal::MoveTo(_) => server.mailbox_named("ann", "Done").len(),
                Removal::Trash => server.mailbox_named("ann", "Trash").len(),
                _ => 1,
            };
            assert_eq!(moved, 1, "{what}");
            server.misbehave(Misbehaviour::default());
            here.run_well(&job).await;
            here.pass(DAY);
            here.run_well(&job).await;
            assert_eq!((here.tokens("ann"), troubled(&here).await.len()), (tokens(&[0, 2]), 0), "{what}");
            assert!(states(&here).await.contains(&State::Done), "{what}");
        }
    }
}

#[tokio::test]
async fn a_deletion_that_is_refused_or_unanswered_happens_later() {
    let faults = [
        (Protocol::Pop3, Misbehaviour { quit: QuitFault::RefuseAndKeep, ..Misbehaviour::default() }),
        (Protocol::Pop3, Misbehaviour { quit: QuitFault::RefuseButRemove, ..Misbehaviour::default() }),
        (Protocol::Pop3, Misbehaviour { quit: QuitFault::CloseAndKeep, ..Misbehaviour::default() }),
        (Protocol::Pop3, Misbehaviour { quit: QuitFault::CloseButRemove, ..Misbehaviour::default() }),
        (Protocol::Imap, Misbehaviour { close_at: Some("UID EXPUNGE".into()), ..Misbehaviour::default() }),
        (Protocol::Imap, Misbehaviour { close_after: Some("UID EXPUNGE".into()), ..Misbehaviour::default() }),
        (Protocol::Imap, Misbehaviour { close_at: Some("UID STORE".into()), ..Misbehaviour::default() }),
        (Protocol::Imap, Misbehaviour { refuse_remove: [1, 2].into(), ..Misbehaviour::default() }),
        (Protocol::Pop3, Misbehaviour { refuse_remove: [1, 2].into(), ..Misbehaviour::default() }),
    ];
    for (protocol, fault) in faults {
        let server = Any::with(protocol, [large(0), token_mail(2).remove(1)]);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| account.max_message_octets = Some(20_000));
        here.run_well(&job).await;
        let row = troubled(&here).await.remove(0);
        assert!(here.store.delete(row.message).await.unwrap());
        server.misbehave(fault.clone());
        here.run(&job).await;
        server.misbehave(Misbehaviour::default());
        for _ in 0..3 {
            here.pass(2 * HOUR);
            here.run_well(&job).await;
        }
        assert_eq!((server.inbox().len(), here.tokens("ann")), (1, tokens(&[1])), "{protocol:?} {fault:?}");
        assert_eq!(troubled(&here).await, [], "{protocol:?} {fault:?}");
    }
}

#[tokio::test]
async fn a_deletion_never_takes_a_message_that_came_under_its_unique_id() {
    for lost in [false, true] {
        let server = Any::with(Protocol::Pop3, [large(0), token_mail(2).remove(1)]);
        let here = Installation::new();
        let job = here.job(Protocol::Pop3, server.port(), |account| account.max_message_octets = Some(20_000));
        here.run_well(&job).await;
        let row = troubled(&here).await.remove(0);
        if lost {
            // From now on its unique-ids are doubted.
            server.misbehave(Misbehaviour { quit: QuitFault::CloseAndKeep, ..Misbehaviour::default() });
            assert!(here.store.delete(row.message).await.unwrap());
            here.run(&job).await;
            server.misbehave(Misbehaviour::default());
            here.pass(2 * HOUR);
        } else {
            assert!(here.store.delete(row.message).await.unwrap());
        }
        // Another client removes it, and the server begins to count again: its unique-id is another's.
        let inbox = server.inbox();
        inbox.clear();
        inbox.add(token_mail(3).remove(2));
        inbox.set_uid_validity(inbox.uid_validity());
        here.run_well(&job).await;
        here.pass(2 * HOUR);
        here.run_well(&job).await;
        assert_eq!((inbox.len(), here.tokens("ann")), (1, tokens(&[1, 2])), "{lost}");
        assert_eq!(troubled(&here).await, [], "{lost}");
    }
}

#[tokio::test]
async fn what_a_person_wants_deleted_is_not_delivered_meanwhile_and_may_be_wanted_back() {
    for protocol in BOTH {
        let server = Any::with(protocol, [large(0)]);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| account.max_message_octets = Some(20_000));
        here.run_well(&job).await;
        let row = troubled(&here).await.remove(0);
        assert!(here.store.delete(row.message).await.unwrap());
        server.misbehave(Misbehaviour { refuse_remove: [1].into(), ..Misbehaviour::default() });
        for _ in 0..3 {
            here.pass(2 * HOUR);
            here.run(&job).await;
        }
        assert_eq!((server.inbox().len(), here.files("ann").len()), (1, 0), "{protocol:?}");
        assert!(here.store.deliver(row.message).await.unwrap());
        assert_eq!(here.run_well(&job).await.delivered, 1, "{protocol:?}");
        assert_eq!((server.inbox().len(), here.tokens("ann")), (1, once(1)));
    }
}

// Adopted by their headers.

#[tokio::test]
async fn a_twin_that_came_while_the_mailbox_was_renumbered_is_not_removed_undelivered() {
    for protocol in BOTH {
        let mut mail = token_mail(4);
        mail[3] = twin(3);
        let server = Any::with(protocol, mail.clone());
        let here = Installation::new();
        let job = here.job(protocol, server.port(), within_the_hour);
        assert_eq!(here.run_well(&job).await.delivered, 4);
        let inbox = server.inbox();
        inbox.remove(*inbox.uids().last().unwrap());
        inbox.add(twin(4));
        inbox.set_uid_validity(77);
        let report = here.run_well(&job).await;
        // Same header, same size: it is taken for the known one.
        assert_eq!((report.delivered, inbox.len()), (0, 4), "{protocol:?}");
        here.pass(2 * HOUR);
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.removed, inbox.len()), (1, 3, 1), "{protocol:?}");
        assert_eq!(here.tokens("ann"), once(5), "{protocol:?}");
        here.pass(2 * HOUR);
        assert_eq!(here.run_well(&job).await.removed, 1, "{protocol:?}");
        assert_eq!((inbox.len(), here.tokens("ann")), (0, once(5)));
    }
}

#[tokio::test]
async fn what_was_recognised_is_retrieved_once_compared_and_removed() {
    for protocol in BOTH {
        for validity in [77, 78] {
            let server = Any::with(protocol, token_mail(6));
            let here = Installation::new();
            let job = here.job(protocol, server.port(), |account| {
                within_the_hour(account);
                account.removals_per_session = if validity == 77 { 500 } else { 2 };
            });
            here.run_well(&job).await;
            server.inbox().set_uid_validity(validity);
            assert_eq!(here.run_well(&job).await.delivered, 0);
            assert_eq!(server.counters().retrieved, 6, "{protocol:?}");
            here.pass(2 * HOUR);
            let report = here.run_well(&job).await;
            assert_eq!((report.delivered, report.removed, server.inbox().len()), (0, 6, 0), "{protocol:?}");
            assert_eq!((server.counters().retrieved, here.tokens("ann")), (12, once(6)), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_comparison_is_remembered_when_the_removal_fails() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(3));
        let here = Installation::new();
        let job = here.job(protocol, server.port(), within_the_hour);
        here.run_well(&job).await;
        server.inbox().set_uid_validity(77);
        here.run_well(&job).await;
        here.pass(2 * HOUR);
        server.misbehave(Misbehaviour {
            refuse_remove: server.inbox().uids().into_iter().collect(),
            ..Misbehaviour::default()
        });
        here.run_well(&job).await;
        assert_eq!((server.counters().retrieved, server.inbox().len()), (6, 3), "{protocol:?}");
        server.misbehave(Misbehaviour::default());
        here.pass(2 * HOUR);
        assert_eq!(here.run_well(&job).await.removed, 3, "{protocol:?}");
        assert_eq!((server.counters().retrieved, here.tokens("ann")), (6, once(3)), "{protocol:?}");
    }
}

#[tokio::test]
async fn twins_that_were_both_delivered_are_both_removed_though_they_may_have_changed_places() {
    for protocol in BOTH {
        let server = Any::with(protocol, [twin(0), twin(1)]);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), within_the_hour);
        assert_eq!(here.run_well(&job).await.delivered, 2);
        let inbox = server.inbox();
        inbox.clear();
        inbox.add(twin(1));
        inbox.add(twin(0));
        inbox.set_uid_validity(77);
        here.run_well(&job).await;
        here.pass(2 * HOUR);
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.removed, inbox.len()), (0, 2, 0), "{protocol:?}");
        assert_eq!(here.tokens("ann"), once(2), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_twin_of_a_message_that_only_one_of_two_users_has_goes_to_both() {
    for protocol in BOTH {
        let server = Any::with(protocol, [twin(0)]);
        let here = Installation::new();
        let busy = Arc::new(AtomicBool::new(true));
        let is_busy = Arc::clone(&busy);
        let to_two = Scripted::new(2, move |parcel| match parcel.recipient.user.as_str() {
            "bob" if is_busy.load(Ordering::SeqCst) => failed(FailureKind::Transient),
            _ => delivered(),
        });
        let job = here.job_to(to_two.clone(), protocol, server.port(), two);
        here.run(&job).await;
        assert_eq!((to_two.taken_by("ann").len(), to_two.taken_by("bob").len()), (1, 0));
        let inbox = server.inbox();
        inbox.clear();
        inbox.add(twin(1));
        inbox.set_uid_validity(77);
        busy.store(false, Ordering::SeqCst);
        here.pass(5 * HOUR);
        here.run(&job).await;
        here.run_well(&job).await;
        assert_eq!(to_two.taken_by("ann"), ["0", "1"], "{protocol:?}");
        assert_eq!(to_two.taken_by("bob"), ["1"], "{protocol:?}");
    }
}

// Deliveries that may have arrived.

fn unanswered() -> Outcome {
    Outcome::Unknown(Failure::new(FailureKind::Transient, "closed before the answer"))
}

#[tokio::test]
async fn a_delivery_made_again_is_counted_where_a_person_looks() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(2));
        let here = Installation::new();
        let first = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&first);
        let dies_once = Scripted::new(8, move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => unanswered(),
            _ => delivered(),
        });
        let job = here.job_to(dies_once.clone(), protocol, server.port(), removing);
        let report = here.run(&job).await;
        assert_eq!((report.deferred, report.repeated), (1, 0), "{protocol:?}");
        here.pass(2 * HOUR);
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.repeated), (1, 1), "{protocol:?}");
        assert_eq!(dies_once.taken_by("ann").len(), 3);
        let account = here.store.open_account("ann@example.org").await.unwrap();
        let repeated: Vec<u64> = here.store.runs(account.id, 9).await.unwrap().iter().map(|run| run.repeated).collect();
        assert_eq!(repeated, [1, 0]);
    }
}

#[tokio::test]
async fn where_it_is_wanted_so_what_may_have_arrived_waits_for_a_person() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(1));
        let here = Installation::new();
        let dies = Scripted::new(8, |_| unanswered());
        let job = here.job_to(dies.clone(), protocol, server.port(), removing);
        let job = Job { ambiguous: Ambiguous::Park, ..job };
        assert_eq!(here.run(&job).await.parked, 1);
        for _ in 0..3 {
            here.pass(5 * HOUR);
            here.run(&job).await;
        }
        let row = troubled(&here).await.remove(0);
        assert!(row.reason.contains("may have been delivered"), "{row:?}");
        assert_eq!((row.state, row.deliveries[0].uncertain_attempts), (State::Parked, 1), "{protocol:?}");
        assert_eq!((dies.taken_by("ann").len(), server.inbox().len()), (1, 1));
        // A person has looked, and wants it again: it is one more that may have arrived.
        assert!(here.store.retry(row.message).await.unwrap());
        let well = Scripted::new(8, |_| delivered());
        let job = here.job_to(well.clone(), protocol, server.port(), removing);
        let report = here.run_well(&job).await;
        assert_eq!((report.delivered, report.repeated, server.inbox().len()), (1, 1, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn what_a_crash_cut_short_is_parked_or_made_again_as_it_is_wanted() {
    for ambiguous in [Ambiguous::Park, Ambiguous::Redeliver] {
        let server = Any::with(Protocol::Pop3, token_mail(1));
        let here = Installation::new();
        let hangs = here.job_to(Arc::new(Hanging), Protocol::Pop3, server.port(), removing);
        let hangs = Job { ambiguous, ..hangs };
        let (_, ()) = tokio::join!(here.run(&hangs), async {
            until(async || here.store.unfinished(account(&here).await).await.unwrap().len() == 1).await;
            here.stop.send_replace(true);
        });
        here.stop.send_replace(false);
        let well = Scripted::new(8, |_| delivered());
        let job = Job { ambiguous, ..here.job_to(well.clone(), Protocol::Pop3, server.port(), removing) };
        let report = here.run(&job).await;
        let (parked, repeated, left) = match ambiguous {
            Ambiguous::Park => (1, 0, 1),
            Ambiguous::Redeliver => (0, 1, 0),
        };
        assert_eq!((report.parked, report.repeated, server.inbox().len()), (parked, repeated, left), "{ambiguous:?}");
        if ambiguous == Ambiguous::Park {
            let row = troubled(&here).await.remove(0);
            assert!(row.reason.contains("may have been delivered"), "{row:?}");
            assert!(here.store.deliver(row.message).await.unwrap());
            let report = here.run_well(&job).await;
            assert_eq!((report.delivered, report.repeated, server.inbox().len()), (1, 1, 0));
        }
        assert_eq!(well.taken_by("ann").len(), 1);
    }
}

#[tokio::test]
async fn what_a_maildir_cannot_tell_is_retrieved_again_and_counted() {
    let server = Any::with(Protocol::Pop3, token_mail(1));
    let here = Installation::new();
    // Its row says that an attempt began, and nothing of where to look.
    let hangs = here.job_to(Arc::new(Hanging), Protocol::Pop3, server.port(), |_| {});
    let (_, ()) = tokio::join!(here.run(&hangs), async {
        until(async || here.store.unfinished(account(&here).await).await.unwrap().len() == 1).await;
        here.stop.send_replace(true);
    });
    here.stop.send_replace(false);
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    let report = here.run_well(&job).await;
    assert_eq!((report.delivered, report.repeated), (1, 1));
    assert_eq!(here.tokens("ann"), once(1));
}

async fn account(here: &Installation) -> connectord_store::AccountId {
    here.store.open_account("ann@example.org").await.unwrap().id
}

async fn until(holds: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to that");
}

/// Takes messages and never answers.
struct Hanging;

#[async_trait]
impl Delivery for Hanging {
    fn describe(&self) -> String {
        "hanging".into()
    }
    fn limits(&self) -> BatchLimits {
        BatchLimits::default()
    }
    async fn presence(&self, _: &Recipient) -> Result<Presence, Failure> {
        Ok(Presence::Here)
    }
    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        Box::new(HangingBatch(batch.iter().map(|_| Ok(None)).collect()))
    }
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        rows.iter().map(|_| Recalled::Unknown).collect()
    }
}

struct HangingBatch(Vec<Result<Option<Note>, Failure>>);

#[async_trait]
impl Prepared for HangingBatch {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.0
    }
    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        std::future::pending().await
    }
}

// IMAP: moves that are cut short.

#[tokio::test]
async fn a_move_that_is_cut_short_anywhere_delivers_nothing_again_and_ends_well() {
    let close_at = |command: &str| Misbehaviour { close_at: Some(command.into()), ..Misbehaviour::default() };
    let close_after = |command: &str| Misbehaviour { close_after: Some(command.into()), ..Misbehaviour::default() };
    let cuts = [
        // With MOVE, before it and between it and its answer.
        (true, true, close_at("UID MOVE"), 3),
        (true, true, close_after("UID MOVE"), 3),
        // Without it. An unanswered COPY may or may not have happened: nobody can know, and the second one is made.
        (false, true, close_at("UID COPY"), 3),
        (false, true, close_after("UID COPY"), 6),
        (false, true, close_at("UID STORE"), 6),
        // What is marked was copied.
        (false, true, close_after("UID STORE"), 3),
        (false, true, close_at("UID EXPUNGE"), 3),
        (false, true, close_after("UID EXPUNGE"), 3),
        (false, false, close_at("EXPUNGE"), 3),
        (false, false, close_after("EXPUNGE"), 3),
    ];
    for (moves, uidplus, cut, copies) in cuts {
        let server = ImapServer::start(ServerOptions::new().user("ann", "secret"));
        let done = server.mailbox_named("ann", "Done");
        for message in token_mail(3) {
            server.mailbox("ann").add(message);
        }
        let mut without = Vec::new();
        if !moves {
            without.extend(["MOVE", "IMAP4REV2"]);
        }
        if !uidplus {
            without.push("UIDPLUS");
        }
        let without = || without.iter().map(|name| (*name).to_owned()).collect();
        server.misbehave(Misbehaviour { without: without(), ..cut.clone() });
        let here = Installation::new();
        let job = here.job(Protocol::Imap, server.port(), |account| {
            removing(account);
            account.removal = Removal::MoveTo("Done".into());
        });
        assert!(here.run(&job).await.error.is_some(), "{cut:?}");
        server.misbehave(Misbehaviour { without: without(), ..Misbehaviour::default() });
        here.run_well(&job).await;
        here.run_well(&job).await;
        assert_eq!((server.mailbox("ann").len(), done.len()), (0, copies), "{cut:?}");
        assert_eq!(here.tokens("ann"), once(3), "{cut:?}");
        assert!(states(&here).await.iter().all(|state| *state == State::Done), "{cut:?}");
    }
}

// Recipients without room.

#[tokio::test]
async fn a_message_that_finds_no_room_is_not_retrieved_again_at_every_check() {
    for (protocol, kind) in BOTH.into_iter().flat_map(|p| [(p, FailureKind::OverQuota), (p, FailureKind::NoUser)]) {
        for users in [1, 2] {
            let server = Any::with(protocol, token_mail(3));
            let here = Installation::new();
            let full = Arc::new(AtomicBool::new(true));
            let is_full = Arc::clone(&full);
            let last = if users == 2 { "bob" } else { "ann" };
            let to = Scripted::new(users * 3, move |parcel| match parcel.recipient.user.as_str() {
                user if user == last && is_full.load(Ordering::SeqCst) => failed(kind),
                _ => delivered(),
            });
            let job = here.job_to(to.clone(), protocol, server.port(), |account| {
                if users == 2 {
                    two(account);
                }
                removing(account);
            });
            let what = format!("{protocol:?} {kind:?} {users}");
            // A check ends at the first of them.
            for _ in 0..4 {
                here.run(&job).await;
            }
            let before = server.counters().retrieved;
            for _ in 0..3 {
                here.pass(10 * 60);
                here.run(&job).await;
            }
            assert_eq!((server.counters().retrieved, server.inbox().len()), (before, 3), "{what}");
            full.store(false, Ordering::SeqCst);
            here.pass(HOUR);
            here.run_well(&job).await;
            assert_eq!((to.taken_by(last).len(), server.inbox().len()), (3, 0), "{what}");
        }
    }
}

/// Says who has no room, before anything is retrieved.
struct Rooms {
    inner: Arc<Scripted>,
    full: Arc<AtomicBool>,
}

#[async_trait]
impl Delivery for Rooms {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn limits(&self) -> BatchLimits {
        self.inner.limits()
    }
    async fn presence(&self, recipient: &Recipient) -> Result<Presence, Failure> {
        self.inner.presence(recipient).await
    }
    async fn room(&self, recipient: &Recipient) -> Result<(), Failure> {
        match recipient.user.as_str() {
            "bob" if self.full.load(Ordering::SeqCst) => Err(Failure::new(FailureKind::OverQuota, "bob has no room")),
            _ => Ok(()),
        }
    }
    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        self.inner.prepare(batch).await
    }
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        self.inner.recall(rows).await
    }
}

#[tokio::test]
async fn who_is_known_to_have_no_room_keeps_mail_from_nobody_else_and_costs_no_retrieval() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(3));
        let here = Installation::new();
        let full = Arc::new(AtomicBool::new(true));
        let is_full = Arc::clone(&full);
        let inner = Scripted::new(6, move |parcel| match parcel.recipient.user.as_str() {
            "bob" if is_full.load(Ordering::SeqCst) => failed(FailureKind::OverQuota),
            _ => delivered(),
        });
        let rooms = Arc::new(Rooms { inner: inner.clone(), full: Arc::clone(&full) });
        let job = here.job_to(rooms.clone(), protocol, server.port(), two);
        here.run_well(&job).await;
        assert_eq!((inner.taken_by("ann").len(), inner.taken_by("bob").len()), (3, 0), "{protocol:?}");
        for _ in 0..5 {
            here.pass(2 * HOUR);
            here.run_well(&job).await;
        }
        assert_eq!(server.counters().retrieved, 3, "{protocol:?}");
        full.store(false, Ordering::SeqCst);
        here.run_well(&job).await;
        assert_eq!((inner.taken_by("ann").len(), inner.taken_by("bob").len()), (3, 3), "{protocol:?}");
        // Where nobody has room, nothing is retrieved at all.
        full.store(true, Ordering::SeqCst);
        server.inbox().add(token_mail(4).remove(3));
        let to_bob = here.job_to(rooms, protocol, server.port(), |account| account.deliver_to = vec!["bob".into()]);
        let before = server.counters().logins;
        assert!(here.run(&to_bob).await.error.is_some());
        assert_eq!(server.counters().logins, before, "{protocol:?}");
    }
}

// Very many messages that change at once.

#[tokio::test]
async fn a_change_of_very_many_messages_is_reported_in_words() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(30));
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |_| {});
        assert_eq!(kinds(&here.run_well(&job).await), []);
        server.inbox().set_uid_validity(77);
        server.inbox().add(token_mail(31).remove(30));
        let report = here.run_well(&job).await;
        let kind = if protocol == Protocol::Pop3 { ChangeKind::OtherIds } else { ChangeKind::Renumbered };
        assert_eq!(kinds(&report), [kind]);
        let change = &report.changes[0];
        assert_eq!((change.known, change.recognised, change.missing, change.new), (30, 30, 0, 1), "{change}");
        assert!(change.to_string().contains("30"), "{change}");
        assert_eq!(kinds(&here.run_well(&job).await), []);
        assert_eq!(here.tokens("ann"), once(31));
    }
}

#[tokio::test]
async fn a_mass_absence_is_believed_the_third_time_a_day_later_and_not_before() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(30));
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |_| {});
        here.run_well(&job).await;
        server.inbox().clear();
        let gone = async || states(&here).await.iter().filter(|state| **state == State::Done).count();
        // All is listed once a day; from then on often within a day, and once more after it.
        for (hours, kind, done) in [
            (25, ChangeKind::Absence, 0),
            (8, ChangeKind::Absence, 0),
            (8, ChangeKind::Absence, 0),
            (7, ChangeKind::Absence, 0),
            (2, ChangeKind::AbsenceBelieved, 30),
        ] {
            here.pass(hours * HOUR);
            let report = here.run_well(&job).await;
            assert_eq!((kinds(&report), gone().await), (vec![kind], done), "{protocol:?}");
        }
        assert_eq!(kinds(&here.run_well(&job).await), []);
    }
}

#[tokio::test]
async fn a_day_after_is_not_enough_when_it_was_seen_only_twice() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(30));
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |_| {});
        here.run_well(&job).await;
        server.inbox().clear();
        here.pass(25 * HOUR);
        assert_eq!(kinds(&here.run_well(&job).await), [ChangeKind::Absence], "{protocol:?}");
        here.pass(3 * DAY);
        assert_eq!(kinds(&here.run_well(&job).await), [ChangeKind::Absence], "{protocol:?}");
        assert_eq!(kinds(&here.run_well(&job).await), [ChangeKind::AbsenceBelieved], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_listing_that_was_wrongly_empty_or_incomplete_delivers_and_removes_nothing_twice() {
    for protocol in BOTH {
        for wrong in ["empty", "half", "unlisted"] {
            let server = Any::with(protocol, token_mail(30));
            let here = Installation::new();
            let job = here.job(protocol, server.port(), |account| {
                account.retention = Retention::AfterDelivery(Duration::from_secs(5 * 86_400));
            });
            here.run_well(&job).await;
            let uids = server.inbox().uids();
            let away = uids[if wrong == "empty" { 0 } else { 10 }..].iter().copied().collect();
            server.misbehave(match wrong {
                "unlisted" => Misbehaviour { unlisted: away, ..Misbehaviour::default() },
                _ => Misbehaviour { hidden: away, ..Misbehaviour::default() },
            });
            for hours in [25, 8] {
                here.pass(hours * HOUR);
                here.run_well(&job).await;
            }
            let what = format!("{protocol:?} {wrong}");
            assert!(!states(&here).await.contains(&State::Done), "{what}");
            server.misbehave(Misbehaviour::default());
            here.pass(8 * HOUR);
            let report = here.run_well(&job).await;
            assert_eq!((report.delivered, kinds(&report)), (0, vec![]), "{what}");
            // It is forgotten as soon as they are back.
            server.inbox().clear();
            here.pass(25 * HOUR);
            assert_eq!(kinds(&here.run_well(&job).await), [ChangeKind::Absence], "{what}");
            assert_eq!(here.tokens("ann"), once(30), "{what}");
        }
    }
}

#[tokio::test]
async fn few_messages_that_were_missing_and_are_back_are_not_delivered_again_and_removed_when_due() {
    for protocol in BOTH {
        let server = Any::with(protocol, token_mail(5));
        let here = Installation::new();
        let job = here.job(protocol, server.port(), |account| {
            account.retention = Retention::AfterDelivery(Duration::from_secs(3 * 86_400));
        });
        here.run_well(&job).await;
        // Fewer than a mass: they are taken for gone at once.
        server
            .misbehave(Misbehaviour { hidden: server.inbox().uids().into_iter().collect(), ..Misbehaviour::default() });
        for _ in 0..2 {
            here.pass(13 * HOUR);
            here.run_well(&job).await;
        }
        assert!(states(&here).await.iter().all(|state| *state == State::Done), "{protocol:?}");
        server.misbehave(Misbehaviour::default());
        for _ in 0..4 {
            here.pass(20 * HOUR);
            assert_eq!(here.run_well(&job).await.delivered, 0, "{protocol:?}");
        }
        assert_eq!((server.inbox().len(), here.tokens("ann")), (0, once(5)), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_unique_id_that_is_used_again_for_another_message_loses_neither() {
    // The answer to a removal was lost, so the ids are doubted.
    let server = Any::with(Protocol::Pop3, token_mail(3));
    let here = Installation::new();
    let job = here.job(Protocol::Pop3, server.port(), within_the_hour);
    here.run_well(&job).await;
    here.pass(2 * HOUR);
    server.misbehave(Misbehaviour { quit: QuitFault::CloseButRemove, ..Misbehaviour::default() });
    here.run(&job).await;
    server.misbehave(Misbehaviour::default());
    let inbox = server.inbox();
    assert_eq!(inbox.len(), 0);
    // The server begins to count again before anybody looks: the ids of the removed ones name others.
    for message in &token_mail(6)[3..] {
        inbox.add(message.clone());
    }
    inbox.set_uid_validity(inbox.uid_validity());
    here.pass(2 * HOUR);
    here.run_well(&job).await;
    assert_eq!(here.tokens("ann"), once(6));
    here.pass(2 * HOUR);
    here.run_well(&job).await;
    assert_eq!((inbox.len(), here.tokens("ann")), (0, once(6)));
}

#[tokio::test]
async fn identical_messages_are_as_many_as_they_are_also_after_a_renumbering() {
    for protocol in BOTH {
        let server = Any::with(protocol, [twin(0), twin(0), twin(0)]);
        let here = Installation::new();
        let job = here.job(protocol, server.port(), within_the_hour);
        assert_eq!(here.run_well(&job).await.delivered, 3, "{protocol:?}");
        server.inbox().add(twin(0));
        server.inbox().set_uid_validity(77);
        // Three are known, and each is known once.
        assert_eq!(here.run_well(&job).await.delivered, 1, "{protocol:?}");
        here.pass(2 * HOUR);
        assert_eq!(here.run_well(&job).await.removed, 4, "{protocol:?}");
        assert_eq!((server.inbox().len(), here.files("ann").len()), (0, 4), "{protocol:?}");
    }
}
