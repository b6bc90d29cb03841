//! What two batches of one account may do at the same time, and what never.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::{Installation, token_mail};
use connectord_account::Protocol;
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient,
};
use connectord_testkit::servers::{Pop3Server, ServerOptions};

/// Batches of one message each; keeps count of who is in which step.
struct Steps {
    at_once: usize,
    /// Each second step, but the last, waits for the next batch's first one.
    waits_for_next: bool,
    /// The second step of this batch fails, for good.
    fails: Option<usize>,
    batches: usize,
    began: AtomicUsize,
    completing: AtomicUsize,
    most_completing: AtomicUsize,
    completed: AtomicUsize,
    /// Batches prepared before the one before them was completed.
    prepared_meanwhile: AtomicUsize,
    undone: AtomicUsize,
}

impl Steps {
    fn new(at_once: usize, batches: usize) -> Self {
        let count = AtomicUsize::default;
        Self {
            at_once,
            waits_for_next: false,
            fails: None,
            batches,
            began: count(),
            completing: count(),
            most_completing: count(),
            completed: count(),
            prepared_meanwhile: count(),
            undone: count(),
        }
    }
}

#[derive(Clone)]
struct Counted(Arc<Steps>);

struct Batch {
    of: Arc<Steps>,
    number: usize,
    notes: Vec<Result<Option<Note>, Failure>>,
    completed: bool,
}

#[async_trait]
impl Delivery for Counted {
    fn describe(&self) -> String {
        "counted".into()
    }
    fn limits(&self) -> BatchLimits {
        BatchLimits { parcels: 1, at_once: self.0.at_once, ..BatchLimits::default() }
    }
    async fn presence(&self, _: &Recipient) -> Result<Presence, Failure> {
        Ok(Presence::Here)
    }
    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        let of = self.0.clone();
        let number = of.began.fetch_add(1, Ordering::SeqCst);
        let is_early = of.completed.load(Ordering::SeqCst) < number;
        of.prepared_meanwhile.fetch_add(usize::from(is_early), Ordering::SeqCst);
        let notes = batch.iter().map(|_| Ok(Some(Note(vec![1])))).collect();
        Box::new(Batch { of, number, notes, completed: false })
    }
    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        rows.iter().map(|_| Recalled::Absent).collect()
    }
}

#[async_trait]
impl Prepared for Batch {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.notes
    }
    async fn complete(mut self: Box<Self>) -> Vec<Outcome> {
        self.completed = true;
        let of = self.of.clone();
        let at_once = of.completing.fetch_add(1, Ordering::SeqCst) + 1;
        of.most_completing.fetch_max(at_once, Ordering::SeqCst);
        let next = self.number + 2;
        for _ in 0..3000 {
            if !of.waits_for_next || next > of.batches || of.began.load(Ordering::SeqCst) >= next {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::task::yield_now().await;
        of.completing.fetch_sub(1, Ordering::SeqCst);
        of.completed.fetch_add(1, Ordering::SeqCst);
        let outcome = if of.fails == Some(self.number) {
            Outcome::Failed(Failure::new(FailureKind::DiskFull, "as the test wants"))
        } else {
            Outcome::Delivered { detail: String::new() }
        };
        self.notes.iter().map(|_| outcome.clone()).collect()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.completed {
            self.of.undone.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn server(messages: usize) -> Pop3Server {
    let server = Pop3Server::start(ServerOptions::new().user("ann", "secret"));
    for message in token_mail(messages) {
        server.mailbox("ann").add(message);
    }
    server
}

#[tokio::test]
async fn a_batch_is_prepared_while_the_one_before_it_is_completed_and_never_are_two_completed_at_once() {
    let (here, server) = (Installation::new(), server(6));
    let steps = Arc::new(Steps { waits_for_next: true, ..Steps::new(2, 6) });
    let job = here.job_to(Arc::new(Counted(steps.clone())), Protocol::Pop3, server.port(), |_| {});
    assert_eq!(here.run_well(&job).await.delivered, 6);
    assert_eq!(steps.most_completing.load(Ordering::SeqCst), 1);
    assert_eq!(steps.prepared_meanwhile.load(Ordering::SeqCst), 5, "each but the first");
}

#[tokio::test]
async fn where_a_destination_takes_one_batch_at_once_none_is_prepared_before_the_last_one_is_settled() {
    let (here, server) = (Installation::new(), server(6));
    let steps = Arc::new(Steps::new(1, 6));
    let job = here.job_to(Arc::new(Counted(steps.clone())), Protocol::Pop3, server.port(), |_| {});
    assert_eq!(here.run_well(&job).await.delivered, 6);
    assert_eq!(steps.prepared_meanwhile.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn when_a_batch_fails_the_one_prepared_meanwhile_is_undone_and_comes_with_the_next_check() {
    let (here, server) = (Installation::new(), server(4));
    let steps = Arc::new(Steps { waits_for_next: true, fails: Some(1), ..Steps::new(2, 4) });
    let job = here.job_to(Arc::new(Counted(steps.clone())), Protocol::Pop3, server.port(), |_| {});
    let report = here.run(&job).await;
    assert!(report.error.is_some());
    assert_eq!(report.delivered, 1);
    assert_eq!(steps.undone.load(Ordering::SeqCst), 1);
    let steps = Arc::new(Steps::new(2, 3));
    let job = here.job_to(Arc::new(Counted(steps)), Protocol::Pop3, server.port(), |_| {});
    // What failed waits a while; by hand it does not.
    let mode = connectord_engine::Mode { by_hand: true, ..Default::default() };
    let report = connectord_engine::run(&here.site, &job, mode, here.stop.subscribe()).await;
    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(report.delivered, 3);
}
