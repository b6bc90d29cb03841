//! Kill, power failure and errors at every call that a Maildir delivery makes of its disk.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use connectord_deliveries::DiskPool;
use connectord_deliveries::maildir::simdisk::{Call, Fault, SimDisk};
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{Delivery, Note, Outcome, Parcel, Prepared, RecallRow, Recalled, Recipient};
use connectord_mail::{DeliveryId, Identity, UnixTime};
use proptest::prelude::*;

const MAILDIR: &str = "/mail/ann/Maildir";
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn recipient() -> Recipient {
    Recipient { user: "ann".into(), address: "ann@example.org".into() }
}

fn id(number: u8) -> DeliveryId {
    DeliveryId::new(Identity { account: "a@b", mailbox: "", uid_validity: 0, key: &[number], generation: 0 })
}

fn body(number: u8) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\nline\0{number}\r\nend").into_bytes()
}

fn file(number: u8) -> Vec<u8> {
    format!(
        "Return-Path: <s@x>\nDelivered-To: ann@example.org\nReceived: here\nSubject: {number}\n\nline\0{number}\nend"
    )
    .into_bytes()
}

fn parcel(number: u8, attempt: u32) -> Parcel {
    Parcel {
        id: id(number),
        message: id(number),
        recipient: recipient(),
        reverse_path: "s@x".into(),
        trace: Bytes::from_static(b"Received: here\r\n"),
        body: Arc::new(Bytes::from(body(number))),
        arrived_at: number.is_multiple_of(2).then_some(UnixTime(1_600_000_000)),
        folder: None,
        attempt,
    }
}

/// What the engine's store knows of a message; survives every crash.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    New,
    Staged(Note),
    Delivered,
}

/// An engine with a store and a disk.
struct Engine {
    disk: SimDisk,
    pool: DiskPool,
    store: BTreeMap<u8, (State, u32)>,
    /// What a reader has taken away.
    taken: Vec<Vec<u8>>,
    /// How often it was said that a message may come twice.
    unknown: usize,
    /// Batches of two, each prepared while the one before it is completed.
    overlapping: bool,
}

/// Where a process may die beside at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Never,
    BeforeOutcomesAreCommitted,
}

impl Engine {
    fn new(pool: &DiskPool, messages: u8) -> Self {
        let disk = SimDisk::default();
        disk.make_dirs("/mail/ann");
        let store = (0..messages).map(|number| (number, (State::New, 0))).collect();
        Self { disk, pool: pool.clone(), store, taken: Vec::new(), unknown: 0, overlapping: false }
    }

    fn overlapping(self) -> Self {
        Self { overlapping: true, ..self }
    }

    fn with_maildir(self) -> Self {
        for part in ["cur", "new", "tmp"] {
            self.disk.make_dirs(&format!("{MAILDIR}/{part}"));
        }
        self
    }

    fn maildir(&self) -> Maildir {
        let mut options = Options::new("/mail/{user}/Maildir".parse().unwrap(), "inst");
        options.disk = Arc::new(self.disk.clone());
        options.pool = self.pool.clone();
        options.hostname = "host".into();
        Maildir::new(options)
    }

    fn done(&self) -> bool {
        self.store.values().all(|(state, _)| *state == State::Delivered)
    }

    /// One process: recalls, then delivers what is left, in at most `rounds` rounds.
    async fn process(&mut self, rounds: usize, death: Death) {
        let maildir = self.maildir();
        self.recall(&maildir).await;
        for _ in 0..rounds {
            if self.done() || self.disk.crashed() {
                break;
            }
            if self.overlapping {
                self.overlap(&maildir, death).await
            } else {
                self.round(&maildir, death).await
            }
            if death == Death::BeforeOutcomesAreCommitted {
                self.disk.kill();
            }
        }
    }

    async fn recall(&mut self, maildir: &Maildir) {
        let staged: Vec<_> = self
            .store
            .iter()
            .filter_map(|(number, (state, _))| match state {
                State::Staged(note) => Some((*number, note.clone())),
                _ => None,
            })
            .collect();
        let rows = staged.iter().map(|(_, note)| RecallRow { recipient: recipient(), note: Some(note.clone()) });
        let answers = maildir.recall(rows.collect()).await;
        if self.disk.crashed() {
            return;
        }
        for ((number, _), answer) in staged.into_iter().zip(answers) {
            let entry = self.store.get_mut(&number).unwrap();
            match answer {
                Recalled::Delivered { .. } => entry.0 = State::Delivered,
                Recalled::Absent => entry.0 = State::New,
                Recalled::Unknown => {
                    self.unknown += 1;
                    entry.0 = State::New;
                }
                Recalled::Wait(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn round(&mut self, maildir: &Maildir, death: Death) {
        let due = self.due();
        let parcels = self.parcels(&due);
        let prepared = maildir.prepare(parcels).await;
        if self.disk.crashed() {
            return;
        }
        self.begin(&due, &*prepared);
        let outcomes = prepared.complete().await;
        if self.disk.crashed() || death == Death::BeforeOutcomesAreCommitted {
            return;
        }
        self.end(&due, outcomes);
    }

    /// As the engine does it: never two second steps at once, and a commit only when the batch before is committed.
    async fn overlap(&mut self, maildir: &Maildir, death: Death) {
        let due = self.due();
        let mut before: Option<(Vec<u8>, Box<dyn Prepared>)> = None;
        for batch in due.chunks(2).map(<[u8]>::to_vec).chain([Vec::new()]) {
            let parcels = self.parcels(&batch);
            let completing = before.take().map(|(batch, prepared)| {
                self.begin(&batch, &*prepared);
                (batch, prepared)
            });
            let complete = async {
                match completing {
                    Some((batch, prepared)) => Some((batch, prepared.complete().await)),
                    None => None,
                }
            };
            let (completed, prepared) = tokio::join!(complete, maildir.prepare(parcels));
            if self.disk.crashed() || (death == Death::BeforeOutcomesAreCommitted && completed.is_some()) {
                return;
            }
            if let Some((batch, outcomes)) = completed {
                self.end(&batch, outcomes);
            }
            before = Some((batch, prepared));
        }
    }

    fn due(&self) -> Vec<u8> {
        self.store.iter().filter(|(_, (state, _))| *state == State::New).map(|(number, _)| *number).collect()
    }

    fn parcels(&mut self, due: &[u8]) -> Vec<Parcel> {
        let parcel = |number: &u8| {
            let attempt = self.store[number].1 + 1;
            self.store.get_mut(number).unwrap().1 = attempt;
            parcel(*number, attempt)
        };
        due.iter().map(parcel).collect()
    }

    fn begin(&mut self, due: &[u8], prepared: &dyn Prepared) {
        for (number, note) in due.iter().zip(prepared.notes()) {
            if let Ok(note) = note {
                self.store.get_mut(number).unwrap().0 = State::Staged(note.clone().unwrap());
            }
        }
    }

    fn end(&mut self, due: &[u8], outcomes: Vec<Outcome>) {
        for (number, outcome) in due.iter().zip(outcomes) {
            let entry = self.store.get_mut(number).unwrap();
            match outcome {
                Outcome::Delivered { .. } => entry.0 = State::Delivered,
                Outcome::Failed(_) => entry.0 = State::New,
                Outcome::Unknown(_) => {
                    self.unknown += 1;
                    entry.0 = State::New;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn read_everything(&mut self) {
        for part in ["new", "cur"] {
            for (name, octets) in self.disk.files(&format!("{MAILDIR}/{part}")) {
                self.disk.remove(&format!("{MAILDIR}/{part}/{name}"));
                self.taken.push(octets);
            }
        }
    }

    /// How many copies of each message the user has got; every one must be whole.
    fn copies(&self) -> Vec<usize> {
        let there = ["new", "cur"].iter().flat_map(|part| self.disk.files(&format!("{MAILDIR}/{part}")).into_values());
        let all: Vec<_> = there.chain(self.taken.iter().cloned()).collect();
        let wanted: Vec<_> = self.store.keys().map(|number| file(*number)).collect();
        assert!(all.iter().all(|octets| wanted.contains(octets)), "a damaged copy");
        wanted.iter().map(|wanted| all.iter().filter(|octets| *octets == wanted).count()).collect()
    }

    /// Runs good processes until everything is delivered.
    async fn settle(&mut self) {
        for _ in 0..4 {
            self.process(4, Death::Never).await;
            self.disk.kill();
            self.disk.restart();
        }
        assert!(self.done(), "something is stuck: {:?}", self.store);
    }

    /// After a sweep nothing of ours is left in tmp/.
    async fn sweep(&self) {
        self.maildir().sweep(&[recipient()], &[]).await;
        assert_eq!(self.disk.files(&format!("{MAILDIR}/tmp")), BTreeMap::new());
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// The calls of an undisturbed delivery.
fn calls(start: impl Fn() -> Engine) -> Vec<Call> {
    block_on(async {
        let mut engine = start();
        engine.disk.calls();
        engine.process(1, Death::Never).await;
        let calls = engine.disk.calls();
        assert_eq!(engine.copies(), vec![1; engine.store.len()]);
        calls
    })
}

const MESSAGES: u8 = 3;

/// Killed at a call, or after all of them, and run again until quiet; a reader may come in between.
async fn killed_and_settled(mut engine: Engine, number: usize, reader: bool, death: Death) -> Engine {
    engine.disk.fail_at(number, Fault::Crash);
    engine.process(1, death).await;
    engine.disk.kill();
    engine.disk.restart();
    if reader {
        engine.read_everything();
    }
    engine.settle().await;
    engine
}

#[test]
fn killed_at_any_call_each_message_arrives_exactly_once_though_a_reader_empties_new() {
    let pool = DiskPool::new(1);
    for made in [true, false] {
        let start = || if made { Engine::new(&pool, MESSAGES).with_maildir() } else { Engine::new(&pool, MESSAGES) };
        let calls = calls(start);
        for number in 0..=calls.len() {
            for (reader, death) in [
                (false, Death::Never),
                (true, Death::Never),
                (false, Death::BeforeOutcomesAreCommitted),
                (true, Death::BeforeOutcomesAreCommitted),
            ] {
                block_on(async {
                    let engine = killed_and_settled(start(), number, reader, death).await;
                    let context = (number, calls.get(number), reader, death);
                    assert_eq!((engine.copies(), engine.unknown), (vec![1; MESSAGES.into()], 0), "{context:?}");
                    engine.sweep().await;
                });
            }
        }
    }
}

/// Batches overlap, and the threads take turns as they like: at each number of calls another one may be the last.
#[test]
fn killed_at_any_call_while_one_batch_is_published_and_the_next_one_written_each_arrives_once() {
    let pool = DiskPool::new(4);
    let start = || Engine::new(&pool, 6).with_maildir().overlapping();
    let calls = calls(start).len();
    for number in 0..=calls {
        for (reader, death) in [(false, Death::Never), (true, Death::Never), (true, Death::BeforeOutcomesAreCommitted)]
        {
            block_on(async {
                let engine = killed_and_settled(start(), number, reader, death).await;
                assert_eq!((engine.copies(), engine.unknown), (vec![1; 6], 0), "{number} {reader} {death:?}");
                engine.sweep().await;
            });
        }
    }
}

#[test]
fn a_power_failure_or_an_error_while_batches_overlap_loses_and_damages_nothing() {
    let pool = DiskPool::new(4);
    let start = || Engine::new(&pool, 6).overlapping();
    let calls = calls(start).len();
    for number in 0..=calls {
        for seed in 0..6 {
            block_on(async {
                let mut engine = start();
                let fault = [Fault::Crash, Fault::Error(EIO), Fault::Error(ENOSPC)][seed as usize % 3];
                engine.disk.fail_at(number, fault);
                engine.process(1, Death::Never).await;
                engine.disk.kill();
                engine.disk.power_failure(seed);
                engine.settle().await;
                let copies = engine.copies();
                let doubled: usize = copies.iter().map(|count| count.saturating_sub(1)).sum();
                assert!(copies.iter().all(|count| *count >= 1), "{number} {seed}: {copies:?}");
                assert!(doubled <= engine.unknown, "{number} {seed}: {copies:?}, {} told", engine.unknown);
                engine.sweep().await;
            });
        }
    }
}

#[test]
fn killed_again_at_any_call_of_the_recall() {
    let pool = DiskPool::new(1);
    let start = || Engine::new(&pool, MESSAGES).with_maildir();
    let calls = calls(start);
    for first in 0..calls.len() {
        for second in 0..24 {
            for reader in [false, true] {
                block_on(async {
                    let mut engine = start();
                    engine.disk.fail_at(first, Fault::Crash);
                    engine.process(1, Death::Never).await;
                    engine.disk.restart();
                    engine.disk.fail_at(second, Fault::Crash);
                    engine.process(1, Death::Never).await;
                    engine.disk.kill();
                    engine.disk.restart();
                    if reader {
                        engine.read_everything();
                    }
                    engine.settle().await;
                    let context = (first, second, reader);
                    assert_eq!((engine.copies(), engine.unknown), (vec![1; MESSAGES.into()], 0), "{context:?}");
                });
            }
        }
    }
}

#[test]
fn a_power_failure_at_any_call_loses_and_damages_nothing() {
    let pool = DiskPool::new(1);
    let start = || Engine::new(&pool, MESSAGES);
    let calls = calls(start);
    for number in 0..=calls.len() {
        for seed in 0..24 {
            block_on(async {
                let mut engine = start();
                engine.disk.fail_at(number, Fault::Crash);
                engine.process(1, Death::Never).await;
                engine.disk.kill();
                engine.disk.power_failure(seed);
                if engine.done() {
                    assert_eq!(engine.copies(), vec![1; MESSAGES.into()], "{number} {seed}");
                }
                engine.settle().await;
                assert_eq!(engine.copies(), vec![1; MESSAGES.into()], "{number} {seed}");
                engine.disk.power_failure(seed);
                assert_eq!(engine.copies(), vec![1; MESSAGES.into()], "{number} {seed}, second failure");
                engine.sweep().await;
            });
        }
    }
}

#[test]
fn an_error_at_any_call_loses_nothing_and_doubles_nothing() {
    let pool = DiskPool::new(1);
    let start = || Engine::new(&pool, MESSAGES);
    for (number, call) in calls(start).into_iter().enumerate() {
        for fault in [Fault::Error(EIO), Fault::Error(ENOSPC), Fault::ShortWrite] {
            for death in [Death::Never, Death::BeforeOutcomesAreCommitted] {
                block_on(async {
                    let context = (number, call, fault, death);
                    let mut engine = start();
                    engine.disk.fail_at(number, fault);
                    engine.process(3, death).await;
                    engine.disk.kill();
                    engine.disk.restart();
                    engine.settle().await;
                    assert_eq!(engine.copies(), vec![1; MESSAGES.into()], "{context:?}");
                    // Whatever was called delivered is on the disk, although a sync had failed before.
                    engine.disk.power_failure(number as u64);
                    assert_eq!(engine.copies(), vec![1; MESSAGES.into()], "{context:?}, power failure");
                    engine.sweep().await;
                });
            }
        }
    }
}

#[test]
fn an_error_a_death_and_a_reader_lose_nothing_and_what_may_double_is_said() {
    let pool = DiskPool::new(1);
    let start = || Engine::new(&pool, MESSAGES);
    let calls = calls(start);
    for (number, call) in calls.iter().enumerate() {
        for crash in number + 1..calls.len() + 8 {
            block_on(async {
                let context = (number, call, crash);
                let mut engine = start();
                // The error first; the process lives on until a later call.
                engine.disk.fail_at(number, Fault::Error(EIO));
                engine.disk.kill_at(crash);
                engine.process(2, Death::Never).await;
                engine.disk.kill();
                engine.disk.restart();
                engine.read_everything();
                engine.settle().await;
                let copies = engine.copies();
                assert!(copies.iter().all(|count| *count >= 1), "{context:?}: {copies:?}");
                let doubled: usize = copies.iter().map(|count| count - 1).sum();
                assert!(doubled <= engine.unknown, "{context:?}: {copies:?}, {} told", engine.unknown);
            });
        }
    }
}

#[test]
fn killed_and_then_a_failing_call_and_then_a_power_failure_lose_nothing() {
    let pool = DiskPool::new(1);
    let start = || Engine::new(&pool, 1);
    for first in 0..calls(start).len() {
        for second in 0..30 {
            block_on(async {
                let mut engine = start();
                engine.disk.fail_at(first, Fault::Crash);
                engine.process(1, Death::Never).await;
                engine.disk.restart();
                engine.disk.fail_at(second, Fault::Error(EIO));
                engine.process(2, Death::Never).await;
                engine.disk.kill();
                engine.disk.power_failure(second as u64);
                engine.settle().await;
                assert_eq!(engine.copies(), [1], "{first} {second}");
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_series_of_kills_power_failures_and_readers(
        steps in proptest::collection::vec((0usize..60, 0u8..4, any::<bool>(), any::<u64>()), 1..6),
        messages in 1u8..6,
        threads in 1usize..4,
        overlapping in any::<bool>(),
    ) {
        // Several threads: the calls of a batch come in any order.
        let pool = DiskPool::new(threads);
        block_on(async {
            let mut engine = Engine { overlapping, ..Engine::new(&pool, messages) };
            let mut power = false;
            for (number, kind, reader, seed) in steps {
                engine.disk.fail_at(number, match kind {
                    0 => Fault::Error(EIO),
                    1 => Fault::Error(ENOSPC),
                    _ => Fault::Crash,
                });
                engine.process(2, Death::Never).await;
                engine.disk.kill();
                if kind == 3 {
                    engine.disk.power_failure(seed);
                    power = true;
                } else {
                    engine.disk.restart();
                }
                if reader {
                    engine.read_everything();
                }
            }
            engine.settle().await;
            let copies = engine.copies();
            prop_assert!(copies.iter().all(|count| *count >= 1), "lost: {copies:?}");
            let doubled: usize = copies.iter().map(|count| count - 1).sum();
            prop_assert!(doubled <= engine.unknown || power, "doubled: {copies:?}, {} told", engine.unknown);
            Ok(())
        })?;
    }
}
