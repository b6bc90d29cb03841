//! A POP3 maildrop that is as it was: what is known is not read again, and nothing that is due is overlooked.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::wrappers::FailingStore;
use common::{Installation, token_mail};
use connectord_account::{Account, Oversize, Protocol, Retention, State};
use connectord_engine::{Job, Mode, Quiet, Report, Site, run};
use connectord_store::{MessageRef, Store};
use connectord_testkit::servers::{Misbehaviour, Pop3Server, QuitFault, ServerOptions};

const DAY: i64 = 86_400;

/// An installation that counts how often it reads what is known, and a server with six messages for it.
struct Here {
    here: Installation,
    store: Arc<FailingStore>,
    site: Arc<Site>,
    server: Pop3Server,
    job: Job,
}

impl Here {
    fn new(change: impl FnOnce(&mut Account)) -> Self {
        let server = Pop3Server::start(ServerOptions::new().user("ann", "secret"));
        for message in token_mail(6) {
            server.mailbox("ann").add(message);
        }
        let here = Installation::new();
        let store = FailingStore::new(here.store.clone(), false);
        let site = here.site_with(store.clone(), Arc::new(Quiet));
        let job = here.job(Protocol::Pop3, server.port(), change);
        Self { here, store, site, server, job }
    }

    async fn check(&self, job: &Job, by_hand: bool) -> Report {
        let report = run(&self.site, job, Mode { by_hand, dry_run: false }, self.here.stop.subscribe()).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        report
    }

    /// A check, and how often it read what is known.
    async fn reads(&self) -> (Report, usize) {
        let before = self.store.ledgers.load(Ordering::SeqCst);
        let report = self.check(&self.job, false).await;
        (report, self.store.ledgers.load(Ordering::SeqCst) - before)
    }

    /// Checks until nothing is new and what is known is not read any more.
    async fn settle(&self) {
        for _ in 0..3 {
            self.check(&self.job, false).await;
        }
        assert_eq!(self.quiet().await, Some(6));
        assert_eq!(self.reads().await.1, 0);
    }

    /// How many messages the listing has that is known to be quiet.
    async fn quiet(&self) -> Option<u32> {
        let account = self.here.store.open_account("ann@example.org").await.unwrap();
        let mailboxes = self.here.store.mailboxes(account.id).await.unwrap();
        mailboxes[0].quiet.map(|quiet| quiet.messages)
    }

    async fn a_message(&self) -> MessageRef {
        let account = self.here.store.open_account("ann@example.org").await.unwrap();
        let mailbox = self.here.store.mailboxes(account.id).await.unwrap()[0].id;
        let entry = self.here.store.ledger(mailbox).await.unwrap()[0];
        MessageRef { mailbox, key: entry.key, generation: entry.generation }
    }

    fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.server.misbehave(misbehaviour);
    }

    /// Closes the connection at these commands, so that whoever gives them fails.
    fn forbid(&self, command: &str) {
        self.misbehave(Misbehaviour { close_at: Some(command.to_owned()), ..Misbehaviour::default() });
    }
}

#[tokio::test]
async fn a_maildrop_as_it_was_is_listed_and_nothing_else_is_asked_or_read() {
    for (retention, limit) in
        [(Retention::Never, None), (Retention::AfterDelivery(Duration::from_secs(9 * 86_400)), Some(9_000))]
    {
        let all = Here::new(|account| (account.retention, account.max_message_octets) = (retention, limit));
        all.settle().await;
        for command in ["STAT", "LIST", "TOP", "RETR"] {
            all.forbid(command);
            let commits = all.here.store.work().commits;
            let (report, reads) = all.reads().await;
            assert_eq!((report.listed, report.new, reads, all.quiet().await), (6, 0, 0, Some(6)), "{command}");
            assert_eq!(all.here.store.work().commits - commits, 1, "one for how it went");
        }
    }
}

#[tokio::test]
async fn it_is_remembered_over_a_restart() {
    let Here { here, server, .. } = {
        let all = Here::new(|_| {});
        all.settle().await;
        all
    };
    let here = here.restarted().await;
    let store = FailingStore::new(here.store.clone(), false);
    let site = here.site_with(store.clone(), Arc::new(Quiet));
    let job = here.job(Protocol::Pop3, server.port(), |_| {});
    let all = Here { here, store, site, server, job };
    let (report, reads) = all.reads().await;
    assert_eq!((report.listed, report.new, reads), (6, 0, 0));
}

#[tokio::test]
async fn what_comes_new_is_retrieved_without_reading_what_is_known_and_the_listing_is_quiet_again() {
    let all = Here::new(|_| {});
    all.settle().await;
    for n in 6..9 {
        all.server.mailbox("ann").add(token_mail(9).remove(n));
        let (report, reads) = all.reads().await;
        assert_eq!((report.listed, report.new, report.delivered, reads), (n as u64 + 1, 1, 1, 0));
        assert_eq!(all.quiet().await, Some(n as u32 + 1));
    }
    assert!(all.here.tokens("ann").values().all(|count| *count == 1) && all.here.tokens("ann").len() == 9);
}

#[tokio::test]
async fn the_age_and_the_days_after_delivery_are_counted_all_the_same() {
    let week = Duration::from_secs(7 * 86_400);
    for retention in [Retention::AfterDelivery(week), Retention::ByAge(week)] {
        let all = Here::new(|account| account.retention = retention);
        all.settle().await;
        for _ in 0..13 {
            all.here.pass(DAY / 2);
            let report = all.check(&all.job, false).await;
            if retention == Retention::AfterDelivery(week) {
                assert_eq!((report.removed, report.new), (0, 0));
            }
        }
        // Checked twice a day, so that no jump of the clock is seen; these messages do not tell how old they are.
        all.here.pass(DAY / 2 + 60);
        let report = all.check(&all.job, false).await;
        if retention == Retention::AfterDelivery(week) {
            assert_eq!((report.removed, all.server.mailbox("ann").len()), (6, 0));
        }
    }
}

#[tokio::test]
async fn another_retention_counts_at_once() {
    let all = Here::new(|_| {});
    all.settle().await;
    let removing =
        all.here.job(Protocol::Pop3, all.server.port(), |account| account.retention = Retention::Immediately);
    assert_eq!(all.check(&removing, false).await.removed, 6);
    assert_eq!(all.server.mailbox("ann").len(), 0);
}

#[tokio::test]
async fn a_person_s_word_counts_at_once() {
    for word in ["retry", "deliver", "delete", "skip"] {
        let all = Here::new(|account| (account.max_message_octets, account.oversize) = (Some(10), Oversize::Park));
        all.settle().await;
        let message = all.a_message().await;
        let store = &all.here.store;
        assert!(
            match word {
                "retry" => store.retry(message).await,
                "deliver" => store.deliver(message).await,
                "delete" => store.delete(message).await,
                _ => store.skip(message).await,
            }
            .unwrap()
        );
        let report = all.check(&all.job, false).await;
        let wanted = match word {
            "retry" | "deliver" => (1, 0),
            "delete" => (0, 1),
            _ => (0, 0),
        };
        assert_eq!((report.delivered, report.removed), wanted, "{word}");
    }
}

#[tokio::test]
async fn a_message_that_waits_for_another_attempt_is_tried_in_time_and_by_hand_at_once() {
    for by_hand in [false, true] {
        let all = Here::new(|_| {});
        all.misbehave(Misbehaviour {
            refuse_retrieve: [all.server.mailbox("ann").uids()[2]].into(),
            ..Misbehaviour::default()
        });
        for _ in 0..3 {
            all.check(&all.job, false).await;
        }
        assert_eq!((all.quiet().await, all.here.files("ann").len()), (None, 5));
        all.misbehave(Misbehaviour::default());
        if !by_hand {
            assert_eq!(all.check(&all.job, false).await.retrieved, 0);
            all.here.pass(5 * 3600);
        }
        assert_eq!(all.check(&all.job, by_hand).await.delivered, 1);
        assert_eq!((all.quiet().await, all.here.files("ann").len()), (Some(6), 6));
    }
}

#[tokio::test]
async fn what_is_gone_is_noticed_and_a_unique_id_that_comes_back_is_compared() {
    let all = Here::new(|_| {});
    all.settle().await;
    let gone = all.server.mailbox("ann").uids()[3];
    all.misbehave(Misbehaviour { hidden: [gone].into(), ..Misbehaviour::default() });
    assert_eq!(all.check(&all.job, false).await.listed, 5);
    let states = async || -> Vec<State> {
        let mailbox = all.a_message().await.mailbox;
        all.here.store.ledger(mailbox).await.unwrap().iter().map(|entry| entry.state).collect()
    };
    assert_eq!(states().await.iter().filter(|state| **state == State::Done).count(), 1);
    all.check(&all.job, false).await;
    assert_eq!(all.quiet().await, Some(5));
    all.misbehave(Misbehaviour::default());
    assert_eq!(all.check(&all.job, false).await.delivered, 0, "it is the same, by its header");
    assert_eq!(states().await.iter().filter(|state| **state == State::Delivered).count(), 6);
}

#[tokio::test]
async fn a_removal_that_was_refused_or_lost_is_tried_again_in_time() {
    type Fault = fn(&Here) -> Misbehaviour;
    let refused: Fault = |all| Misbehaviour {
        refuse_remove: all.server.mailbox("ann").uids().into_iter().collect(),
        ..Misbehaviour::default()
    };
    let lost: Fault = |_| Misbehaviour { quit: QuitFault::RefuseAndKeep, ..Misbehaviour::default() };
    for (fault, what) in [(refused, "refused"), (lost, "lost")] {
        let all = Here::new(|account| account.retention = Retention::Immediately);
        all.misbehave(fault(&all));
        for _ in 0..3 {
            all.check(&all.job, false).await;
        }
        assert_eq!((all.server.mailbox("ann").len(), all.here.files("ann").len()), (6, 6), "{what}");
        all.misbehave(Misbehaviour::default());
        all.here.pass(2 * 3600);
        all.check(&all.job, false).await;
        assert_eq!((all.server.mailbox("ann").len(), all.here.files("ann").len()), (0, 6), "{what}");
    }
}

#[tokio::test]
async fn a_truncated_listing_proves_nothing() {
    let all = Here::new(|_| {});
    all.settle().await;
    // UIDL leaves messages out, STAT counts them.
    let left_out: Vec<u32> = all.server.mailbox("ann").uids().split_off(3);
    all.misbehave(Misbehaviour { unlisted: left_out.into_iter().collect(), ..Misbehaviour::default() });
    for _ in 0..3 {
        assert_eq!(all.check(&all.job, false).await.listed, 3);
    }
    let mailbox = all.a_message().await.mailbox;
    assert!(all.here.store.ledger(mailbox).await.unwrap().iter().all(|entry| entry.state == State::Delivered));
    all.misbehave(Misbehaviour::default());
    assert_eq!(all.check(&all.job, false).await.delivered, 0);
}
