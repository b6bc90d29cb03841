//! What a Maildir delivery does and does not do, on the real disk and on a simulated one.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connectord_deliveries::maildir::simdisk::{Fault, SimDisk};
use connectord_deliveries::maildir::{CheckExisting, Create, Maildir, Options};
use connectord_delivery::{
    Delivery, Failure, FailureKind, Note, Outcome, Parcel, Presence, RecallRow, Recalled, Recipient,
};
use connectord_mail::{Body, BodyDigest, DeliveryId, Digested, Identity, UnixTime};

fn recipient(user: &str) -> Recipient {
    Recipient { user: user.into(), address: format!("{user}@example.org") }
}

fn id(key: &str) -> DeliveryId {
    DeliveryId::new(Identity { account: "a@b", mailbox: "", uid_validity: 0, key: key.as_bytes(), generation: 0 })
}

fn parcel(key: &str) -> Parcel {
    Parcel {
        id: id(key),
        message: id(key),
        recipient: recipient("ann"),
        reverse_path: String::new(),
        trace: Bytes::from_static(b"Received: by us;\r\n\tnow\r\n"),
        body: Arc::new(Bytes::from_static(b"Subject: hi\r\n\r\nbody\r\n")),
        arrived_at: Some(UnixTime(1_600_000_000)),
        folder: None,
        attempt: 1,
    }
}

const FILE: &[u8] = b"Return-Path: <>\nDelivered-To: ann@example.org\nReceived: by us;\n\tnow\nSubject: hi\n\nbody\n";

/// A directory with a home for ann.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("ann")).unwrap();
        Self { dir }
    }

    fn options(&self) -> Options {
        let path = format!("{}/{{user}}/Maildir", self.dir.path().display());
        let mut options = Options::new(path.parse().unwrap(), "inst");
        options.hostname = "mx:1".into();
        options
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("ann/Maildir").join(below)
    }

    fn names(&self, below: &str) -> Vec<String> {
        names(&self.path(below))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn deliver(maildir: &Maildir, parcels: Vec<Parcel>) -> Vec<Outcome> {
    maildir.prepare(parcels).await.complete().await
}

fn failure(outcome: &Outcome) -> &Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_has_its_octets_its_name_its_time_and_its_mode() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    let outcomes = deliver(&maildir, vec![parcel("1")]).await;
    maildir.tidy().await;
    let name = format!("1600000000.{}.mx\\0721,S={},W={}", id("1"), FILE.len(), FILE.len() + 7);
    assert_eq!(outcomes, [Outcome::Delivered { detail: name.clone() }]);
    assert_eq!((home.names("new"), home.names("cur"), home.names("tmp")), (vec![name.clone()], vec![], vec![]));
    let file = home.path("new").join(name);
    assert_eq!(fs::read(&file).unwrap(), FILE);
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.mtime(), metadata.mode() & 0o7777), (1_600_000_000, 0o600));
}

#[tokio::test]
async fn a_maildir_is_made_in_its_parent_and_nothing_above() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    let bob = Parcel { recipient: recipient("bob"), ..parcel("2") };
    let outcomes = deliver(&maildir, vec![bob, parcel("1")]).await;
    assert_eq!(failure(&outcomes[0]).kind, FailureKind::Unavailable);
    assert!(matches!(outcomes[1], Outcome::Delivered { .. }));
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode(&home.path("")), mode(&home.path("tmp"))), (0o700, 0o700));
    assert_eq!(names(home.dir.path()), ["ann"]);
    assert_eq!(maildir.presence(&recipient("ann")).await, Ok(Presence::Here));
    assert!(matches!(maildir.presence(&recipient("bob")).await, Ok(Presence::Absent(_))));
    assert!(matches!(maildir.presence(&recipient("../ann")).await, Ok(Presence::Absent(_))));

    let mut never = home.options();
    (never.create, never.path) =
        (Create::Never, format!("{}/{{user}}/Mail", home.dir.path().display()).parse().unwrap());
    let never = Maildir::new(never);
    assert_eq!(failure(&deliver(&never, vec![parcel("1")]).await[0]).kind, FailureKind::Unavailable);
    assert!(matches!(never.presence(&recipient("ann")).await, Ok(Presence::Absent(_))));
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_no_maildir() {
    let home = Home::new();
    fs::create_dir(home.path("")).unwrap();
    fs::write(home.path("thesis.txt"), "x").unwrap();
    let outcomes = deliver(&Maildir::new(home.options()), vec![parcel("1")]).await;
    assert_eq!(failure(&outcomes[0]).kind, FailureKind::Misconfigured);
    assert_eq!(home.names(""), ["thesis.txt"]);
}

#[tokio::test]
async fn a_tmp_that_is_a_symbolic_link_is_not_followed() {
    let home = Home::new();
    for part in ["", "cur", "new", "../elsewhere"] {
        fs::create_dir(home.path(part)).unwrap();
    }
    symlink(home.path("../elsewhere"), home.path("tmp")).unwrap();
    let outcomes = deliver(&Maildir::new(home.options()), vec![parcel("1")]).await;
    assert!(matches!(outcomes[0], Outcome::Failed(_)));
    assert_eq!(names(&home.path("../elsewhere")), Vec::<String>::new());
}

#[tokio::test]
async fn files_follow_the_directorys_group_permissions() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    deliver(&maildir, vec![parcel("1")]).await;
    fs::set_permissions(home.path(""), PermissionsExt::from_mode(0o770)).unwrap();
    deliver(&maildir, vec![parcel("2")]).await;
    let mode = |key| {
        let name = home.names("new").into_iter().find(|name| name.contains(&id(key).to_string())).unwrap();
        home.path("new").join(name).metadata().unwrap().mode() & 0o777
    };
    assert_eq!((mode("1"), mode("2")), (0o600, 0o660));
}

#[tokio::test]
async fn a_home_that_its_group_may_write_in_gives_its_group_the_mail() {
    let home = Home::new();
    fs::set_permissions(home.dir.path().join("ann"), PermissionsExt::from_mode(0o2775)).unwrap();
    deliver(&Maildir::new(home.options()), vec![parcel("1")]).await;
    let mode = |path: &str| home.path(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode(""), mode("new")), (0o2770, 0o2770));
    assert_eq!(mode(&format!("new/{}", home.names("new")[0])), 0o660);
}

#[tokio::test]
async fn folders_are_made_as_maildir_plus_plus_has_them() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    let into = |key, folder: &str| Parcel { folder: Some(folder.into()), ..parcel(key) };
    let outcomes = deliver(&maildir, vec![into("1", "Junk"), into("2", "../a b/x.y"), into("3", "INBOX")]).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })), "{outcomes:?}");
    assert_eq!(home.names(""), [".%2E%2E.a b.x%2Ey", ".Junk", "cur", "new", "tmp"]);
    assert_eq!(home.names(".Junk"), ["cur", "maildirfolder", "new", "tmp"]);
    assert_eq!(home.names(".Junk/new").len(), 1);
    assert_eq!(home.names("new").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_a_maildir_that_is_made_meanwhile_do_not_take_it_for_something_else() {
    for _ in 0..50 {
        let home = Home::new();
        let maildir = Maildir::new(home.options());
        let into = |key: usize| Parcel {
            folder: (!key.is_multiple_of(3)).then(|| format!("Folder {key}")),
            ..parcel(&key.to_string())
        };
        let outcomes = deliver(&maildir, (0..9).map(into).collect()).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })), "{outcomes:?}");
    }
}

#[tokio::test]
async fn a_repeated_attempt_meets_the_first_in_new_and_in_cur_with_flags() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    deliver(&maildir, vec![parcel("1"), parcel("2")]).await;
    let read = home.names("new").into_iter().find(|name| name.contains(&id("2").to_string())).unwrap();
    let in_cur = format!("{read}:2,FS");
    fs::rename(home.path("new").join(&read), home.path("cur").join(&in_cur)).unwrap();
    // Another time, so that the name would be another one.
    let again = |key| Parcel { attempt: 2, arrived_at: Some(UnixTime(1_600_000_777)), ..parcel(key) };
    let prepared = maildir.prepare(vec![again("1"), again("2")]).await;
    let rows =
        prepared.notes().iter().map(|note| RecallRow { recipient: recipient("ann"), note: note.clone().unwrap() });
    let rows: Vec<_> = rows.collect();
    let outcomes = prepared.complete().await;
    assert_eq!(outcomes[1], Outcome::Delivered { detail: in_cur });
    assert_eq!((home.names("new").len(), home.names("cur").len()), (1, 1));
    assert!(maildir.recall(rows).await.iter().all(|recalled| matches!(recalled, Recalled::Delivered { .. })));

    let mut always = home.options();
    always.check_existing = CheckExisting::Always;
    deliver(&Maildir::new(always), vec![Parcel { attempt: 1, ..again("1") }]).await;
    assert_eq!(home.names("new").len(), 1);
}

#[tokio::test]
async fn a_message_that_is_in_a_batch_twice_is_delivered_once() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    let outcomes = deliver(&maildir, vec![parcel("1"), parcel("1")]).await;
    assert!(matches!(outcomes[0], Outcome::Delivered { .. }));
    assert_eq!(failure(&outcomes[1]).kind, FailureKind::Transient);
    assert_eq!(home.names("new").len(), 1);
}

#[tokio::test]
async fn quota_is_kept_counted_and_counted_anew() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    deliver(&maildir, vec![parcel("1")]).await;
    let size = FILE.len();
    fs::write(home.path("maildirsize"), format!("{}S,3C\n{size} 1\n", 10 * size)).unwrap();
    let outcomes = deliver(&maildir, vec![parcel("2"), parcel("3"), parcel("4")]).await;
    let kinds: Vec<_> = outcomes.iter().map(|o| matches!(o, Outcome::Delivered { .. })).collect();
    assert_eq!(kinds, [true, true, false]);
    assert_eq!(failure(&outcomes[2]).kind, FailureKind::OverQuota);
    let text = fs::read_to_string(home.path("maildirsize")).unwrap();
    assert_eq!(text, format!("{}S,3C\n{size} 1\n{size} 1\n{size} 1\n", 10 * size));
    // The user has removed two, and nobody has corrected the file yet.
    for name in home.names("new").iter().take(2) {
        fs::remove_file(home.path("new").join(name)).unwrap();
    }
    assert!(matches!(deliver(&maildir, vec![parcel("5")]).await[0], Outcome::Delivered { .. }));
}

#[tokio::test]
async fn a_sweep_takes_only_what_earlier_processes_of_ours_left() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    deliver(&maildir, vec![parcel("1")]).await;
    let (file, kept) = (format!("{}.inst.old-1", id("x")), format!("{}.inst.old-2", id("y")));
    let foreign = ["1600.M1P2.host".to_owned(), format!("{}.other.old-1", id("z")), "batch.other.old-1".into()];
    for name in foreign.iter().chain([&file, &kept, &"batch.inst.old-1".into(), &"batch.inst.old-2".into()]) {
        fs::write(home.path("tmp").join(name), "x").unwrap();
    }
    let note = format!(
        r#"{{"m":{{"p":"{}"}},"n":"1.{}.h","f":{{"i":"inst","b":"old-2","s":1,"h":"","o":"","t":[0,0],"w":0}}}}"#,
        home.path("").display(),
        id("y")
    );
    let prepared = maildir.prepare(vec![parcel("2")]).await;
    let before = home.names("tmp").len();
    assert_eq!(maildir.sweep(&[recipient("ann"), recipient("bob")], &[Note(note.into_bytes())]).await, 2);
    let left = home.names("tmp");
    assert_eq!(left.len(), before - 2);
    assert!(foreign.iter().chain([&kept, &"batch.inst.old-2".into()]).all(|name| left.contains(name)), "{left:?}");
    assert!(matches!(prepared.complete().await[0], Outcome::Delivered { .. }));
    maildir.tidy().await;
    assert_eq!(home.names("tmp").len(), 5);
}

#[tokio::test]
async fn a_batch_is_written_while_the_one_before_it_waits_to_be_published_unless_a_quota_counts() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    let first = maildir.prepare(vec![parcel("1")]).await;
    let second = maildir.prepare(vec![parcel("2")]).await;
    assert!(matches!(first.complete().await[0], Outcome::Delivered { .. }));
    assert!(matches!(second.complete().await[0], Outcome::Delivered { .. }));
    // What is published counts against the quota of the next batch, so that one waits.
    fs::write(home.path("maildirsize"), "1000000S\n").unwrap();
    let third = maildir.prepare(vec![parcel("3")]).await;
    let mut options = home.options();
    options.disk_timeout = Duration::from_secs(1);
    let fourth = Maildir::new(options).prepare(vec![parcel("4")]).await;
    assert_eq!(fourth.notes()[0].as_ref().unwrap_err().kind, FailureKind::Unavailable);
    drop(fourth);
    assert!(matches!(third.complete().await[0], Outcome::Delivered { .. }));
    assert!(matches!(deliver(&maildir, vec![parcel("4")]).await[0], Outcome::Delivered { .. }));
}

#[tokio::test]
async fn two_paths_to_one_maildir_in_a_batch_do_not_wait_for_each_other() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    deliver(&maildir, vec![parcel("1")]).await;
    symlink(home.dir.path().join("ann"), home.dir.path().join("alias")).unwrap();
    let other = Parcel { recipient: recipient("alias"), ..parcel("2") };
    let outcomes = deliver(&maildir, vec![other, parcel("3")]).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })), "{outcomes:?}");
    assert_eq!(home.names("new").len(), 3);
}

#[tokio::test]
async fn a_batch_of_256_is_delivered_whole_and_leaves_nothing_in_tmp() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    let outcomes = deliver(&maildir, (0..256).map(|n| parcel(&n.to_string())).collect()).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })));
    maildir.tidy().await;
    assert_eq!((home.names("new").len(), home.names("tmp").len()), (256, 0));
}

#[tokio::test]
async fn a_probe_writes_where_there_is_a_maildir_and_makes_none() {
    let home = Home::new();
    let maildir = Maildir::new(home.options());
    assert!(maildir.probe(&recipient("ann")).await.unwrap().ends_with("is made with the first message"));
    assert_eq!(names(&home.dir.path().join("ann")), Vec::<String>::new());
    deliver(&maildir, vec![parcel("1")]).await;
    assert!(maildir.probe(&recipient("ann")).await.unwrap().ends_with("can be written"));
    assert_eq!(maildir.probe(&recipient("bob")).await.unwrap_err().kind, FailureKind::NoUser);
    maildir.tidy().await;
    assert_eq!(home.names("tmp"), Vec::<String>::new());
}

// On the simulated disk.

const TMP: &str = "/mail/ann/Maildir/tmp";
const NEW: &str = "/mail/ann/Maildir/new";

fn simulated() -> (SimDisk, Maildir) {
    let disk = SimDisk::default();
    disk.make_dirs("/mail/ann");
    let maildir = on(&disk);
    (disk, maildir)
}

fn on(disk: &SimDisk) -> Maildir {
    let mut options = Options::new("/mail/{user}/Maildir".parse().unwrap(), "inst");
    options.disk = Arc::new(disk.clone());
    Maildir::new(options)
}

/// A message that a process has staged, and maybe published, before it was killed.
async fn killed(publish: bool) -> (SimDisk, RecallRow) {
    let (disk, maildir) = simulated();
    let prepared = maildir.prepare(vec![parcel("1")]).await;
    let row = RecallRow { recipient: recipient("ann"), note: prepared.notes()[0].clone().unwrap() };
    if publish {
        prepared.complete().await;
        disk.kill();
    } else {
        disk.kill();
        drop(prepared);
    }
    drop(maildir);
    disk.restart();
    (disk, row)
}

async fn recall(disk: &SimDisk, row: &RecallRow) -> Recalled {
    on(disk).recall(vec![row.clone()]).await.remove(0)
}

fn empty(disk: &SimDisk, dir: &str, what: impl Fn(&str) -> bool) {
    disk.files(dir).into_keys().filter(|name| what(name)).for_each(|name| disk.remove(&format!("{dir}/{name}")));
}

#[tokio::test]
async fn what_is_whole_in_tmp_is_published() {
    let (disk, row) = killed(false).await;
    assert!(matches!(recall(&disk, &row).await, Recalled::Delivered { .. }));
    assert_eq!(disk.files(NEW).into_values().collect::<Vec<_>>(), [FILE]);
    assert!(matches!(recall(&disk, &row).await, Recalled::Delivered { .. }), "asked twice");
    assert_eq!(disk.files(NEW).len(), 1);
}

#[tokio::test]
async fn the_marker_of_a_killed_process_goes_when_its_batch_is_recalled_and_committed() {
    for published in [false, true] {
        let (disk, row) = killed(published).await;
        let again = on(&disk);
        assert!(matches!(again.recall(vec![row.clone()]).await[..], [Recalled::Delivered { .. }]));
        assert_eq!(disk.files(TMP).len(), 1, "until it is committed");
        again.settled(&[row.note.unwrap()]).await;
        assert_eq!(disk.files(TMP).len(), 0);
        assert_eq!(disk.files(NEW).len(), 1);
    }
}

#[tokio::test]
async fn what_a_reader_took_is_known_as_delivered_though_the_process_ended_in_order_before_it_could_commit() {
    let (disk, maildir) = simulated();
    let prepared = maildir.prepare(vec![parcel("1")]).await;
    let row = RecallRow { recipient: recipient("ann"), note: prepared.notes()[0].clone().unwrap() };
    prepared.complete().await;
    // The state could not be written, so nobody calls `settled`; the program ends and is started again.
    drop(maildir);
    on(&disk).sweep(&[recipient("ann")], &[row.note.clone().unwrap()]).await;
    empty(&disk, NEW, |_| true);
    assert!(matches!(recall(&disk, &row).await, Recalled::Delivered { .. }));
}

#[tokio::test]
async fn what_is_staged_survives_a_power_failure() {
    for seed in 0..32 {
        let (disk, row) = killed(false).await;
        disk.power_failure(seed);
        assert!(matches!(recall(&disk, &row).await, Recalled::Delivered { .. }), "{seed}");
        assert_eq!(disk.files(NEW).into_values().collect::<Vec<_>>(), [FILE]);
    }
}

#[tokio::test]
async fn what_was_given_up_after_its_note_was_committed_is_never_taken_for_delivered() {
    for calls in 0..6 {
        for fault in [Fault::Crash, Fault::Error(5)] {
            let (disk, maildir) = simulated();
            let prepared = maildir.prepare(vec![parcel("1")]).await;
            let row = RecallRow { recipient: recipient("ann"), note: prepared.notes()[0].clone().unwrap() };
            disk.fail_at(calls, fault);
            drop(prepared);
            // The undoing holds the Maildir's writer until it is done.
            drop(maildir.prepare(vec![Parcel { body: Arc::new(Bytes::new()), ..parcel("2") }]).await);
            disk.kill();
            disk.restart();
            let recalled = recall(&disk, &row).await;
            let there = disk.files(NEW).len();
            assert_eq!(matches!(recalled, Recalled::Delivered { .. }), there == 1, "{calls} {fault:?}: {recalled:?}");
        }
    }
}

#[tokio::test]
async fn what_could_not_be_moved_is_never_taken_for_delivered() {
    for calls in 0..8 {
        let (disk, maildir) = simulated();
        let prepared = maildir.prepare(vec![parcel("1")]).await;
        let row = RecallRow { recipient: recipient("ann"), note: prepared.notes()[0].clone().unwrap() };
        disk.fail_at(0, Fault::Error(5));
        disk.kill_at(calls);
        prepared.complete().await;
        drop(maildir.prepare(vec![parcel("2")]).await);
        disk.kill();
        disk.restart();
        let recalled = recall(&disk, &row).await;
        let there = disk.files(NEW).len();
        assert_eq!(matches!(recalled, Recalled::Delivered { .. }), there == 1, "{calls}: {recalled:?}");
    }
}

#[tokio::test]
async fn what_a_reader_took_is_delivered() {
    let (disk, row) = killed(true).await;
    empty(&disk, NEW, |_| true);
    assert!(matches!(recall(&disk, &row).await, Recalled::Delivered { .. }));
}

#[tokio::test]
async fn without_a_maildir_nothing_is_concluded_and_nothing_made() {
    for gone in ["/mail/ann", "/mail/ann/Maildir", TMP, NEW] {
        let (disk, row) = killed(false).await;
        disk.remove(gone);
        let recalled = recall(&disk, &row).await;
        assert!(
            matches!(&recalled, Recalled::Wait(failure) if failure.kind == FailureKind::Unavailable),
            "{recalled:?}"
        );
        assert_eq!(disk.files(gone).len(), 0);
    }
}

#[tokio::test]
async fn a_missing_file_proves_nothing_when_anything_else_has_changed() {
    let absent = |disk: &SimDisk| empty(disk, NEW, |_| true);
    type Change = fn(&SimDisk);
    let changes: [(&str, Change); 6] = [
        ("tmp/ was emptied", |disk| empty(disk, TMP, |_| true)),
        ("the marker is gone", |disk| empty(disk, TMP, |name| name.starts_with("batch."))),
        ("another boot", |disk| disk.power_failure(1)),
        ("another volume", SimDisk::remount),
        ("a day later", |disk| disk.set_now(UnixTime(1_795_000_000 + 86_400))),
        ("the clock ran backwards", |disk| disk.set_now(UnixTime(1_795_000_000 - 1))),
    ];
    for (name, change) in changes {
        let (disk, row) = killed(true).await;
        change(&disk);
        absent(&disk);
        empty(&disk, TMP, |name| !name.starts_with("batch."));
        assert_eq!(recall(&disk, &row).await, Recalled::Unknown, "{name}");
    }
}

#[tokio::test]
async fn a_damaged_file_in_tmp_is_never_published() {
    let (disk, row) = killed(false).await;
    let name = disk.files(TMP).into_keys().find(|name| !name.starts_with("batch.")).unwrap();
    disk.remove(&format!("{TMP}/{name}"));
    disk.put(&format!("{TMP}/{name}"), &FILE[..20]);
    assert_eq!(recall(&disk, &row).await, Recalled::Absent);
    assert_eq!(disk.files(NEW).len(), 0);
    // Asked again, in case the answer was not committed: still the same.
    assert_eq!(recall(&disk, &row).await, Recalled::Absent);
}

/// A body whose octets behind the header were digested on their way.
struct Known(Vec<u8>, Digested);

impl Body for Known {
    fn size_octets(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.0[usize::try_from(offset).unwrap().min(self.0.len())..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn digested(&self) -> Option<Digested> {
        Some(self.1)
    }
}

#[tokio::test]
async fn what_was_digested_on_its_way_is_recognised_in_tmp_and_what_was_damaged_since_is_not() {
    let long = [&b"A: 1\r\n\r\n"[..], &b"line\r\n".repeat(100_000)].concat();
    for (message, from) in [
        (&b"A: 1\r\n\r\nbody\r\nend\r"[..], 8),
        (b"A: 1\r\n\r\n", 8),
        (b"", 0),
        // The end of the header is cut through, which is where it is undecided whose the CR is.
        (b"A: 1\r\n\r\nbody", 7),
        (b"A: 1\rbody", 5),
        (&long, 8),
    ] {
        let mut digest = BodyDigest::default();
        digest.update(&message[from..]);
        let body = Known(message.to_vec(), Digested { from: from as u64, sha256: digest.sha256() });
        for damaged in [None, Some(0), Some(1)] {
            let (disk, maildir) = simulated();
            let parcel = Parcel { body: Arc::new(Known(body.0.clone(), body.1)), ..parcel("0") };
            let prepared = maildir.prepare(vec![parcel]).await;
            let note = prepared.notes()[0].clone().unwrap();
            disk.kill();
            drop((prepared, maildir));
            disk.restart();
            let name = disk.files(TMP).into_keys().find(|name| !name.starts_with("batch.")).unwrap();
            let mut octets = disk.files(TMP)[&name].clone();
            if let Some(end) = damaged {
                // In our own fields, and in the last octet of all.
                let at = if end == 0 { 20 } else { octets.len() - 1 };
                octets[at] ^= 1;
                disk.remove(&format!("{TMP}/{name}"));
                disk.put(&format!("{TMP}/{name}"), &octets);
            }
            let recalled = recall(&disk, &RecallRow { recipient: recipient("ann"), note }).await;
            let published = matches!(recalled, Recalled::Delivered { .. });
            assert_eq!(published, damaged.is_none(), "{from} {damaged:?}: {recalled:?}");
        }
    }
}

#[tokio::test]
async fn a_note_that_is_not_ours_is_unknown() {
    let (_, maildir) = simulated();
    for note in [None, Some(Note(Vec::new())), Some(Note(b"{}".to_vec()))] {
        let row = RecallRow { recipient: recipient("ann"), note };
        assert_eq!(maildir.recall(vec![row]).await, [Recalled::Unknown]);
    }
}

#[tokio::test]
async fn errors_of_the_disk_are_told_apart() {
    for (errno, kind) in [
        (28, FailureKind::DiskFull),
        (122, FailureKind::OverQuota),
        (13, FailureKind::Misconfigured),
        (30, FailureKind::Misconfigured),
        (5, FailureKind::Transient),
    ] {
        let (disk, maildir) = simulated();
        deliver(&maildir, vec![parcel("0")]).await;
        let calls = {
            disk.calls();
            deliver(&maildir, vec![parcel("1")]).await;
            disk.calls()
        };
        let write = calls.iter().position(|call| format!("{call:?}") == "Write").unwrap();
        disk.fail_at(write, Fault::Error(errno));
        let outcomes = deliver(&maildir, vec![parcel("2")]).await;
        assert_eq!(failure(&outcomes[0]).kind, kind, "{outcomes:?}");
        maildir.tidy().await;
        drop(maildir);
        disk.kill();
        disk.restart();
        on(&disk).sweep(&[recipient("ann")], &[]).await;
        assert_eq!(disk.files(TMP).len(), 0);
    }
}

#[tokio::test]
async fn there_is_no_room_below_the_smaller_reserve() {
    let (disk, maildir) = simulated();
    // 1 TiB: 5 % are more than 1 GiB.
    disk.set_free(1 << 30);
    assert_eq!(maildir.room(&recipient("ann")).await, Ok(()));
    disk.set_free((1 << 30) - 1);
    assert_eq!(maildir.room(&recipient("ann")).await.unwrap_err().kind, FailureKind::DiskFull);
}

#[tokio::test]
async fn a_call_that_fails_while_it_is_asked_whether_a_reader_took_a_message_concludes_nothing() {
    for number in 0.. {
        let (disk, row) = killed(true).await;
        empty(&disk, NEW, |_| true);
        disk.fail_at(number, Fault::Error(5));
        let recalled = recall(&disk, &row).await;
        if disk.calls().len() <= number {
            assert!(number > 3, "the marker is looked for");
            return;
        }
        assert!(matches!(recalled, Recalled::Wait(_) | Recalled::Delivered { .. }), "{number}: {recalled:?}");
        disk.restart();
        let recalled = recall(&disk, &row).await;
        assert!(matches!(recalled, Recalled::Delivered { .. }), "{number}: {recalled:?}");
    }
}
