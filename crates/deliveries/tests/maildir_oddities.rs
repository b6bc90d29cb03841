//! Maildirs that others clean, empty, share and move, and syncs that failed before a death: nothing is taken for delivered
//! that is not, and nobody else's files are touched.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use connectord_deliveries::DiskPool;
use connectord_deliveries::maildir::simdisk::{Call, Fault, SimDisk};
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{Delivery, Note, Outcome, Parcel, RecallRow, Recalled, Recipient};
use connectord_mail::{DeliveryId, Identity};

const EIO: i32 = 5;
const MAILDIR: &str = "/mail/ann/Maildir";
const TMP: &str = "/mail/ann/Maildir/tmp";
const NEW: &str = "/mail/ann/Maildir/new";

fn recipient() -> Recipient {
    Recipient { user: "ann".into(), address: "ann@example.org".into() }
}

fn parcel(number: u8, attempt: u32) -> Parcel {
    let id = DeliveryId::new(Identity { account: "a@b", mailbox: "", uid_validity: 0, key: &[number], generation: 0 });
    Parcel {
        id,
        message: id,
        recipient: recipient(),
        reverse_path: "s@x".into(),
        trace: Bytes::new(),
        body: Arc::new(Bytes::from(format!("Subject: {number}\r\n\r\n"))),
        arrived_at: None,
        folder: None,
        attempt,
    }
}

fn disk() -> SimDisk {
    let disk = SimDisk::default();
    for part in ["cur", "new", "tmp"] {
        disk.make_dirs(&format!("{MAILDIR}/{part}"));
    }
    disk
}

fn maildir(disk: &SimDisk, path: &str, instance: &str) -> Maildir {
    let mut options = Options::new(path.parse().unwrap(), instance);
    options.disk = Arc::new(disk.clone());
    // In order, so that a call has the same number each time.
    options.pool = DiskPool::new(1);
    Maildir::new(options)
}

fn ours(disk: &SimDisk) -> Maildir {
    maildir(disk, "/mail/{user}/Maildir", "inst")
}

fn rows(notes: &[Note]) -> Vec<RecallRow> {
    notes.iter().map(|note| RecallRow { recipient: recipient(), note: Some(note.clone()) }).collect()
}

fn notes(prepared: &dyn connectord_delivery::Prepared) -> Vec<Note> {
    prepared.notes().iter().filter_map(|note| note.clone().ok().flatten()).collect()
}

/// How often each message is in `new/` or `cur/`.
fn copies(disk: &SimDisk, messages: u8) -> Vec<usize> {
    let files: Vec<_> =
        ["new", "cur"].iter().flat_map(|part| disk.files(&format!("{MAILDIR}/{part}")).into_values()).collect();
    let is = |file: &[u8], number: u8| file.ends_with(format!("Subject: {number}\n\n").as_bytes());
    (0..messages).map(|number| files.iter().filter(|file| is(file, number)).count()).collect()
}

/// What the store knows: a note while it is staged, true when delivered.
type Known = BTreeMap<u8, (Option<Note>, bool)>;

/// One process: recalls and delivers what is left. Returns how often it was said that a message may come twice.
async fn process(disk: &SimDisk, known: &mut Known, rounds: usize) -> usize {
    let (maildir, mut unknown) = (ours(disk), 0);
    let staged: Vec<u8> = known.iter().filter(|(_, (note, _))| note.is_some()).map(|(number, _)| *number).collect();
    let asked: Vec<Note> = staged.iter().map(|number| known[number].0.clone().unwrap()).collect();
    for (number, answer) in staged.into_iter().zip(maildir.recall(rows(&asked)).await) {
        if disk.crashed() {
            return unknown;
        }
        let known = known.get_mut(&number).unwrap();
        match answer {
            Recalled::Delivered { .. } => *known = (None, true),
            Recalled::Absent => *known = (None, false),
            Recalled::Unknown => {
                unknown += 1;
                *known = (None, false);
            }
            _ => {}
        }
    }
    for round in 0..rounds {
        let due: Vec<u8> =
            known.iter().filter(|(_, (note, done))| note.is_none() && !done).map(|(number, _)| *number).collect();
        if due.is_empty() || disk.crashed() {
            break;
        }
        let attempt = u32::try_from(round).unwrap() + 1 + u32::try_from(unknown).unwrap();
        let prepared = maildir.prepare(due.iter().map(|number| parcel(*number, attempt)).collect()).await;
        if disk.crashed() {
            break;
        }
        for (number, note) in due.iter().zip(prepared.notes()) {
            known.get_mut(number).unwrap().0 = note.clone().ok().flatten();
        }
        let outcomes = prepared.complete().await;
        if disk.crashed() {
            break;
        }
        for (number, outcome) in due.iter().zip(outcomes) {
            let done = matches!(outcome, Outcome::Delivered { .. });
            unknown += usize::from(matches!(outcome, Outcome::Unknown(_)));
            *known.get_mut(number).unwrap() = (None, done);
        }
    }
    unknown
}

fn new(messages: u8) -> Known {
    (0..messages).map(|number| (number, (None, false))).collect()
}

fn done(known: &Known) -> bool {
    known.values().all(|(note, done)| note.is_none() && *done)
}

async fn calls(messages: u8) -> Vec<Call> {
    let disk = disk();
    process(&disk, &mut new(messages), 1).await;
    disk.calls()
}

#[tokio::test]
async fn whenever_another_program_empties_tmp_nothing_is_lost_and_nothing_taken_for_delivered() {
    for number in 0..=calls(3).await.len() {
        for killed_at in [None, Some(number + 1), Some(number + 4)] {
            let (disk, mut known) = (disk(), new(3));
            disk.empty_at(number, TMP);
            killed_at.iter().for_each(|at| disk.kill_at(*at));
            let mut unknown = process(&disk, &mut known, 1).await;
            let claimed = known.values().filter(|(_, done)| *done).count();
            assert!(copies(&disk, 3).iter().sum::<usize>() >= claimed, "{number} {killed_at:?}: {known:?}");
            for _ in 0..3 {
                disk.kill();
                disk.restart();
                unknown += process(&disk, &mut known, 3).await;
            }
            assert!(done(&known), "{number} {killed_at:?}: stuck: {known:?}");
            let copies = copies(&disk, 3);
            assert!(copies.iter().all(|count| *count >= 1), "{number} {killed_at:?}: lost: {copies:?}");
            let doubled: usize = copies.iter().map(|count| count - 1).sum();
            assert!(doubled <= unknown, "{number} {killed_at:?}: {copies:?}, {unknown} told");
        }
    }
}

#[tokio::test]
async fn a_sync_of_a_directory_that_fails_a_death_at_any_call_behind_it_and_a_power_failure_lose_nothing() {
    let calls = calls(3).await;
    let syncs: Vec<usize> = (0..calls.len()).filter(|number| calls[*number] == Call::SyncDir).collect();
    let mut visited = 0;
    for sync in syncs {
        // At 1 between the sync of new/ and the unlinking of the marker, then between that and each message's.
        for later in 1..10 {
            for seed in 0..8 {
                let (disk, mut known) = (disk(), new(3));
                disk.fail_at(sync, Fault::Error(EIO));
                disk.kill_at(sync + later);
                process(&disk, &mut known, 1).await;
                disk.kill();
                disk.restart();
                for _ in 0..3 {
                    process(&disk, &mut known, 2).await;
                    disk.kill();
                    disk.restart();
                }
                assert!(done(&known), "{sync} {later}: stuck: {known:?}");
                disk.power_failure(seed);
                // Called delivered, so it is on the disk.
                assert_eq!(copies(&disk, 3), [1, 1, 1], "{sync} {later} {seed}");
                visited += 1;
            }
        }
    }
    assert!(visited > 0);
}

#[tokio::test]
async fn what_could_not_be_taken_back_after_a_failed_sync_is_not_believed_by_the_next_attempt() {
    let calls = calls(1).await;
    let sync = (0..calls.len()).rfind(|number| calls[*number] == Call::SyncDir).unwrap();
    // The sync of new/ fails, and then each of the calls that would take the message back.
    for later in 1..4 {
        let (disk, mut known) = (disk(), new(1));
        disk.fail_at(sync, Fault::Error(EIO));
        disk.also_fail_at(sync + later, EIO);
        process(&disk, &mut known, 3).await;
        assert!(done(&known), "{later}: {known:?}");
        disk.kill();
        disk.power_failure(3);
        assert_eq!(copies(&disk, 1), [1], "{later}");
    }
}

#[tokio::test]
async fn another_states_sweep_takes_nothing_from_a_batch_that_is_open() {
    let disk = disk();
    let (first, second) = (ours(&disk), maildir(&disk, "/mail/{user}/Maildir", "other"));
    let open = first.prepare(vec![parcel(0, 1), parcel(1, 1)]).await;
    let before = disk.files(TMP);
    assert_eq!(before.len(), 3, "two messages and their marker");
    assert_eq!(second.sweep(&[recipient()], &[]).await, 0);
    assert_eq!(disk.files(TMP), before);
    // Nor does it take the other's messages for its own.
    let delivered = second.prepare(vec![parcel(2, 1)]).await.complete().await;
    assert!(matches!(delivered[..], [Outcome::Delivered { .. }]), "{delivered:?}");
    let outcomes = open.complete().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })), "{outcomes:?}");
    assert_eq!(copies(&disk, 3), [1, 1, 1]);
}

#[tokio::test]
async fn a_copy_of_the_same_state_that_sweeps_beside_a_running_one_makes_nothing_look_delivered() {
    // Two processes must never share a state; a copied one that is started by mistake has the same mark.
    let disk = disk();
    let (first, copy) = (ours(&disk), ours(&disk));
    let open = first.prepare(vec![parcel(0, 1)]).await;
    let notes = notes(&*open);
    assert_eq!(copy.sweep(&[recipient()], &[]).await, 2);
    let outcomes = open.complete().await;
    assert!(matches!(outcomes[..], [Outcome::Failed(_)]), "{outcomes:?}");
    assert_eq!(copy.recall(rows(&notes)).await, [Recalled::Unknown]);
    let again = first.prepare(vec![parcel(0, 2)]).await.complete().await;
    assert!(matches!(again[..], [Outcome::Delivered { .. }]), "{again:?}");
    assert_eq!(copies(&disk, 1), [1]);
}

/// A message that was staged by a killed process below `/mail`, and then all mail was moved to `/srv`.
async fn moved(publish: bool, with_mail: bool) -> (SimDisk, Vec<RecallRow>) {
    let disk = disk();
    let maildir = ours(&disk);
    let prepared = maildir.prepare(vec![parcel(0, 1)]).await;
    let rows = rows(&notes(&*prepared));
    if publish {
        prepared.complete().await;
        disk.kill();
    } else {
        disk.kill();
        drop(prepared);
    }
    drop(maildir);
    disk.restart();
    disk.make_dirs("/srv/ann");
    if with_mail {
        for part in ["cur", "new", "tmp"] {
            disk.make_dirs(&format!("/srv/ann/Maildir/{part}"));
            for (name, octets) in disk.files(&format!("{MAILDIR}/{part}")) {
                disk.put(&format!("/srv/ann/Maildir/{part}/{name}"), &octets);
            }
        }
    }
    disk.remove("/mail");
    (disk, rows)
}

#[tokio::test]
async fn after_a_move_to_other_paths_what_was_under_way_is_looked_for_in_todays_maildir() {
    let at = |disk: &SimDisk| maildir(disk, "/srv/{user}/Maildir", "inst");
    for publish in [false, true] {
        let (disk, rows) = moved(publish, true).await;
        let recalled = at(&disk).recall(rows).await;
        assert!(matches!(recalled[..], [Recalled::Delivered { .. }]), "{publish}: {recalled:?}");
        assert_eq!(disk.files("/srv/ann/Maildir/new").len(), 1, "{publish}");
        // Without the mail nobody knows; it comes again.
        let (disk, rows) = moved(publish, false).await;
        assert_eq!(at(&disk).recall(rows).await, [Recalled::Unknown], "{publish}");
    }
    // A volume that is not mounted is no move: the path is today's.
    let (disk, rows) = moved(false, true).await;
    assert!(matches!(ours(&disk).recall(rows.clone()).await[..], [Recalled::Wait(_)]));
    // And where today's is not there either, nothing is concluded.
    disk.remove("/srv/ann");
    assert!(matches!(at(&disk).recall(rows).await[..], [Recalled::Wait(_)]));
}

#[tokio::test]
async fn a_reader_that_looks_while_a_message_is_recalled_does_not_disturb_it() {
    let disk = disk();
    let maildir = ours(&disk);
    let prepared = maildir.prepare(vec![parcel(0, 1)]).await;
    let rows = rows(&notes(&*prepared));
    prepared.complete().await;
    disk.kill();
    drop(maildir);
    disk.restart();
    disk.calls();
    let undisturbed = ours(&disk).recall(rows.clone()).await;
    assert!(matches!(undisturbed[..], [Recalled::Delivered { .. }]), "{undisturbed:?}");
    let calls = disk.calls().len();
    for number in 0..calls {
        // It is taken from new/ just before this call; the user has it.
        let name = disk.files(NEW).into_iter().next();
        disk.fail_at(usize::MAX, Fault::Crash);
        disk.empty_at(number, NEW);
        let recalled = ours(&disk).recall(rows.clone()).await;
        assert!(matches!(recalled[..], [Recalled::Delivered { .. } | Recalled::Unknown]), "{number}: {recalled:?}");
        if let Some((name, octets)) = name {
            disk.remove(&format!("{NEW}/{name}"));
            disk.put(&format!("{NEW}/{name}"), &octets);
        }
    }
}
