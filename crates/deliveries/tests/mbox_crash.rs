//! Kill, power failure and errors at every call that an mbox delivery makes of its disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use connectord_deliveries::DiskPool;
use connectord_deliveries::maildir::simdisk::{Call, Fault, SimDisk};
use connectord_deliveries::mbox::{Mbox, Options};
use connectord_delivery::{Delivery, Note, Outcome, Parcel, RecallRow, Recalled, Recipient};
use connectord_mail::{DeliveryId, Identity, UnixTime};
use proptest::prelude::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const MESSAGES: u8 = 3;
const OLD: &str = "From old Sun Nov 22 19:31:00 2026\n\nold\n\n";

fn recipient() -> Recipient {
    Recipient { user: "ann".into(), address: "ann@example.org".into() }
}

fn id(number: u8) -> DeliveryId {
    DeliveryId::new(Identity { account: "a@b", mailbox: "", uid_validity: 0, key: &[number], generation: 0 })
}

/// All begin alike, as those of a mailing list do, and one has zeros in it.
fn body(number: u8) -> String {
    format!("Subject: x\r\n\r\n{}line {number}\r\nend\r\n", if number == 1 { "\0\0" } else { "" })
}

fn trace(number: u8) -> String {
    format!("Received: here\r\nX-Connectord-Id: {}\r\n", id(number))
}

/// A message as it is in the file.
fn whole(number: u8) -> String {
    let head = "From s@x Thu Nov 19 00:53:20 2026\nReturn-Path: <s@x>\nDelivered-To: ann@example.org\n";
    format!("{head}{}{}\n", trace(number), body(number)).replace('\r', "")
}

fn parcel(number: u8, attempt: u32) -> Parcel {
    Parcel {
        id: id(number),
        message: id(number),
        recipient: recipient(),
        reverse_path: "s@x".into(),
        trace: Bytes::from(trace(number)),
        body: Arc::new(Bytes::from(body(number))),
        arrived_at: Some(UnixTime(1_795_049_600)),
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
    store: BTreeMap<u8, State>,
    old: &'static str,
    /// What a reader has taken away.
    taken: String,
    /// How often it was said that a message may come twice.
    unknown: usize,
}

impl Engine {
    fn new(pool: &DiskPool, old: &'static str) -> Self {
        let disk = SimDisk::default();
        disk.make_dirs("/mail");
        if !old.is_empty() {
            disk.put("/mail/ann", old.as_bytes());
        }
        let store = (0..MESSAGES).map(|number| (number, State::New)).collect();
        Self { disk, pool: pool.clone(), store, old, taken: String::new(), unknown: 0 }
    }

    fn mbox(&self) -> Mbox {
        let mut options = Options::new("/mail/{user}".parse().unwrap());
        options.disk = Arc::new(self.disk.clone());
        options.pool = self.pool.clone();
        // A lock that cannot be had is the test's own fault.
        options.lock_timeout = std::time::Duration::from_millis(200);
        Mbox::new(options)
    }

    fn done(&self) -> bool {
        self.store.values().all(|state| *state == State::Delivered)
    }

    fn set(&mut self, number: u8, state: State) {
        self.store.insert(number, state);
    }

    fn with(&self, wanted: impl Fn(&State) -> bool) -> Vec<u8> {
        self.store.iter().filter(|(_, state)| wanted(state)).map(|(number, _)| *number).collect()
    }

    /// One process: recalls, then delivers what is left, in at most `rounds` rounds.
    async fn process(&mut self, rounds: usize, dies_before_the_commit: bool) {
        let mbox = self.mbox();
        self.recall(&mbox).await;
        for _ in 0..rounds {
            if self.done() || self.disk.crashed() {
                break;
            }
            self.round(&mbox, dies_before_the_commit).await;
            if dies_before_the_commit {
                self.disk.kill();
            }
        }
        drop(mbox);
        // What gives the locks back runs on the pool.
        self.pool_is_idle().await;
    }

    async fn pool_is_idle(&self) {
        // One thread: what was submitted before is done when this one is.
        let other = SimDisk::default();
        other.make_dirs("/mail");
        let mut options = Options::new("/mail/{user}".parse().unwrap());
        options.disk = Arc::new(other);
        options.pool = self.pool.clone();
        Mbox::new(options).room(&recipient()).await.unwrap();
    }

    async fn recall(&mut self, mbox: &Mbox) {
        let staged = self.with(|state| matches!(state, State::Staged(_)));
        let rows = staged.iter().map(|number| {
            let State::Staged(note) = &self.store[number] else { unreachable!() };
            RecallRow { recipient: recipient(), note: Some(note.clone()) }
        });
        let answers = mbox.recall(rows.collect()).await;
        if self.disk.crashed() {
            return;
        }
        for (number, answer) in staged.into_iter().zip(answers) {
            match answer {
                Recalled::Delivered { .. } => self.set(number, State::Delivered),
                Recalled::Absent => self.set(number, State::New),
                Recalled::Unknown => {
                    self.unknown += 1;
                    self.set(number, State::New);
                }
                Recalled::Wait(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn round(&mut self, mbox: &Mbox, dies_before_the_commit: bool) {
        let due = self.with(|state| *state == State::New);
        let prepared = mbox.prepare(due.iter().map(|number| parcel(*number, 1)).collect()).await;
        if self.disk.crashed() {
            return;
        }
        for (number, note) in due.iter().zip(prepared.notes().to_vec()) {
            if let Ok(note) = note {
                self.set(*number, State::Staged(note.unwrap()));
            }
        }
        let outcomes = prepared.complete().await;
        if self.disk.crashed() || dies_before_the_commit {
            return;
        }
        for (number, outcome) in due.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Delivered { .. } => self.set(number, State::Delivered),
                Outcome::Failed(_) => self.set(number, State::New),
                Outcome::Unknown(_) => {
                    self.unknown += 1;
                    self.set(number, State::New);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn text(&self) -> String {
        let file = self.disk.files("/mail").remove("ann").unwrap_or_default();
        String::from_utf8(file).unwrap()
    }

    /// A reader takes what is whole and empties the file.
    fn read_everything(&mut self) {
        let text = self.text();
        self.taken += text.strip_prefix(self.old).unwrap_or(&text);
        self.old = "";
        self.disk.remove("/mail/ann");
    }

    /// How many copies of each message the user has got; there is nothing else.
    fn copies(&self, context: &str) -> Vec<usize> {
        let text = self.text();
        let mut rest =
            text.strip_prefix(self.old).unwrap_or_else(|| panic!("{context}: the old mail is gone: {text:?}"));
        let mut copies = vec![0; MESSAGES.into()];
        while !rest.is_empty() {
            let found = (0..MESSAGES).find_map(|number| Some((number, rest.strip_prefix(&whole(number)[..])?)));
            let (number, behind) = found.unwrap_or_else(|| panic!("{context}: no whole message: {rest:?} in {text:?}"));
            copies[usize::from(number)] += 1;
            rest = behind;
        }
        for number in 0..MESSAGES {
            copies[usize::from(number)] += self.taken.matches(&whole(number)).count();
        }
        copies
    }

    /// Runs good processes until everything is delivered.
    async fn settle(&mut self, context: &str) {
        for _ in 0..4 {
            self.process(4, false).await;
            self.disk.kill();
            self.disk.restart();
        }
        assert!(self.done(), "{context}: something is stuck: {:?}", self.store);
        // One that could not be removed is found stale by the next process.
        self.mbox().probe(&recipient()).await.unwrap_or_else(|failure| panic!("{context}: {failure}"));
        self.pool_is_idle().await;
        assert!(!self.disk.files("/mail").contains_key("ann.lock"), "{context}: the lock is left");
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
        engine.process(1, false).await;
        assert_eq!(engine.copies("undisturbed"), [1; MESSAGES as usize]);
        engine.disk.calls()
    })
}

#[test]
fn killed_at_any_call_each_message_is_there_once() {
    let pool = DiskPool::new(1);
    for old in ["", OLD] {
        for number in 0..=calls(|| Engine::new(&pool, old)).len() {
            for dies_before_the_commit in [false, true] {
                block_on(async {
                    let context = format!("{old:?} {number} {dies_before_the_commit}");
                    let mut engine = Engine::new(&pool, old);
                    engine.disk.fail_at(number, Fault::Crash);
                    engine.process(1, dies_before_the_commit).await;
                    engine.disk.kill();
                    engine.disk.restart();
                    engine.settle(&context).await;
                    assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}");
                    // The name as well, whichever process made the file.
                    engine.disk.power_failure(number as u64);
                    assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}, power failure");
                });
            }
        }
    }
}

#[test]
fn killed_at_any_call_and_emptied_by_a_reader_nothing_is_lost_and_what_doubles_was_said() {
    let pool = DiskPool::new(1);
    for number in 0..=calls(|| Engine::new(&pool, OLD)).len() {
        block_on(async {
            let context = format!("{number}");
            let mut engine = Engine::new(&pool, OLD);
            engine.disk.fail_at(number, Fault::Crash);
            engine.process(1, true).await;
            engine.disk.kill();
            engine.disk.restart();
            engine.read_everything();
            engine.settle(&context).await;
            let copies = engine.copies(&context);
            assert!(copies.iter().all(|count| *count >= 1), "{context}: {copies:?}");
            let doubled: usize = copies.iter().map(|count| count - 1).sum();
            assert!(doubled <= engine.unknown, "{context}: {copies:?}, {} told", engine.unknown);
        });
    }
}

#[test]
fn killed_again_at_any_call_of_the_recall_each_message_is_there_once() {
    let pool = DiskPool::new(1);
    for first in 0..calls(|| Engine::new(&pool, OLD)).len() {
        for second in (first % 2..30).step_by(2) {
            block_on(async {
                let context = format!("{first} {second}");
                let mut engine = Engine::new(&pool, OLD);
                engine.disk.fail_at(first, Fault::Crash);
                engine.process(1, false).await;
                engine.disk.restart();
                engine.disk.fail_at(second, Fault::Crash);
                engine.process(1, true).await;
                engine.disk.kill();
                engine.disk.restart();
                engine.settle(&context).await;
                assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}");
            });
        }
    }
}

#[test]
fn an_error_at_any_call_of_the_recall_doubles_nothing() {
    let pool = DiskPool::new(1);
    for first in 0..calls(|| Engine::new(&pool, OLD)).len() {
        for second in 0..30 {
            block_on(async {
                let context = format!("{first} {second}");
                let mut engine = Engine::new(&pool, OLD);
                engine.disk.fail_at(first, Fault::Crash);
                engine.process(1, true).await;
                engine.disk.restart();
                engine.disk.fail_at(second, Fault::Error(if second % 2 == 0 { EIO } else { ENOSPC }));
                engine.process(1, first % 2 == 0).await;
                engine.disk.kill();
                engine.disk.restart();
                engine.settle(&context).await;
                assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}");
            });
        }
    }
}

#[test]
fn a_power_failure_at_any_call_loses_doubles_and_damages_nothing() {
    let pool = DiskPool::new(1);
    for old in ["", OLD] {
        for number in 0..=calls(|| Engine::new(&pool, old)).len() {
            for seed in 0..24 {
                block_on(async {
                    let context = format!("{old:?} {number} {seed}");
                    let mut engine = Engine::new(&pool, old);
                    engine.disk.fail_at(number, Fault::Crash);
                    engine.process(1, seed % 2 == 0).await;
                    engine.disk.kill();
                    engine.disk.power_failure(seed);
                    // Whose process is no more and whose boot is another one's: an old lock is waited out.
                    engine.disk.remove("/mail/ann.lock");
                    if engine.done() {
                        assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}");
                    }
                    engine.settle(&context).await;
                    assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}");
                    engine.disk.power_failure(seed);
                    assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}, second failure");
                });
            }
        }
    }
}

#[test]
fn an_error_at_any_call_loses_doubles_and_damages_nothing() {
    let pool = DiskPool::new(1);
    for old in ["", OLD] {
        for (number, call) in calls(|| Engine::new(&pool, old)).into_iter().enumerate() {
            for fault in [Fault::Error(EIO), Fault::Error(ENOSPC), Fault::ShortWrite] {
                for dies_before_the_commit in [false, true] {
                    block_on(async {
                        let context = format!("{old:?} {number} {call:?} {fault:?} {dies_before_the_commit}");
                        let mut engine = Engine::new(&pool, old);
                        engine.disk.fail_at(number, fault);
                        engine.process(3, dies_before_the_commit).await;
                        engine.disk.kill();
                        engine.disk.restart();
                        engine.settle(&context).await;
                        assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}");
                        // Whatever was called delivered is on the disk, although a sync had failed before.
                        engine.disk.power_failure(number as u64);
                        assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}, power failure");
                    });
                }
            }
        }
    }
}

#[test]
fn a_sync_that_fails_a_kill_and_then_a_power_failure_lose_nothing() {
    let pool = DiskPool::new(1);
    let calls = calls(|| Engine::new(&pool, OLD));
    let syncs = calls.iter().enumerate().filter(|(_, call)| **call == Call::SyncFile).map(|(number, _)| number);
    for number in syncs {
        for later in 1..4 {
            for seed in 0..8 {
                block_on(async {
                    let context = format!("{number} {later} {seed}");
                    let mut engine = Engine::new(&pool, OLD);
                    engine.disk.fail_at(number, Fault::Error(EIO));
                    // Before what could not be synced was taken back, or after.
                    engine.disk.kill_at(number + later);
                    engine.process(1, false).await;
                    engine.disk.kill();
                    engine.disk.restart();
                    engine.settle(&context).await;
                    engine.disk.power_failure(seed);
                    assert_eq!(engine.copies(&context), [1; MESSAGES as usize], "{context}");
                });
            }
        }
    }
}

#[tokio::test]
async fn what_another_program_wrote_behind_a_torn_message_is_never_cut_off() {
    let pool = DiskPool::new(1);
    let mut engine = Engine::new(&pool, OLD);
    let prepared = engine.mbox().prepare((0..MESSAGES).map(|number| parcel(number, 1)).collect()).await;
    let notes: Vec<Note> = prepared.notes().iter().map(|note| note.clone().unwrap().unwrap()).collect();
    drop(prepared);
    engine.pool_is_idle().await;
    // Ours was torn, or a reader took it; then comes one of the same sender, beginning just the same.
    for torn in [0, 40, 100] {
        let ours = &whole(0)[..torn];
        let others = whole(2).replace(&id(2).to_string(), &id(9).to_string());
        engine.disk.put("/mail/ann", format!("{OLD}{ours}{others}").as_bytes());
        notes.iter().enumerate().for_each(|(n, note)| engine.set(n as u8, State::Staged(note.clone())));
        let mbox = engine.mbox();
        engine.recall(&mbox).await;
        assert!(engine.text().ends_with(&others), "torn at {torn}: {:?}", engine.text());
        drop(mbox);
        engine.pool_is_idle().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_series_of_kills_errors_and_power_failures(
        steps in proptest::collection::vec((0usize..60, 0u8..4, any::<u64>()), 1..6),
    ) {
        let pool = DiskPool::new(1);
        block_on(async {
            let mut engine = Engine::new(&pool, OLD);
            for (number, kind, seed) in &steps {
                engine.disk.fail_at(*number, match kind {
                    0 => Fault::Error(EIO),
                    1 => Fault::Error(ENOSPC),
                    _ => Fault::Crash,
                });
                engine.process(2, seed % 3 == 0).await;
                engine.disk.kill();
                if *kind == 3 {
                    engine.disk.power_failure(*seed);
                    engine.disk.remove("/mail/ann.lock");
                } else {
                    engine.disk.restart();
                }
            }
            let context = format!("{steps:?}");
            engine.settle(&context).await;
            prop_assert_eq!(engine.copies(&context), [1; MESSAGES as usize]);
            Ok(())
        })?;
    }
}
