//! What an mbox delivery does and does not do.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connectord_deliveries::mbox::{Mbox, Options};
use connectord_delivery::{Delivery, FailureKind, Outcome, Parcel, Presence, RecallRow, Recalled, Recipient};
use connectord_mail::{DeliveryId, Identity, UnixTime};

fn recipient() -> Recipient {
    Recipient { user: "ann".into(), address: "ann@example.org".into() }
}

fn parcel(key: &str, body: &str) -> Parcel {
    let id =
        DeliveryId::new(Identity { account: "a@b", mailbox: "", uid_validity: 0, key: key.as_bytes(), generation: 0 });
    Parcel {
        id,
        message: id,
        recipient: recipient(),
        reverse_path: "s@x".into(),
        trace: Bytes::new(),
        body: Arc::new(Bytes::from(body.to_owned())),
        arrived_at: Some(UnixTime(1_795_375_860)),
        folder: None,
        attempt: 1,
    }
}

const HEAD: &str = "From s@x Sun Nov 22 19:31:00 2026\nReturn-Path: <s@x>\nDelivered-To: ann@example.org\n";

struct Spool {
    dir: tempfile::TempDir,
}

impl Spool {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ann")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.path().join("ann.lock")
    }

    fn mbox(&self, change: impl FnOnce(&mut Options)) -> Mbox {
        let mut options = Options::new(format!("{}/{{user}}", self.dir.path().display()).parse().unwrap());
        change(&mut options);
        Mbox::new(options)
    }
}

fn whole(body: &str) -> String {
    format!("{HEAD}{body}\n")
}

#[tokio::test]
async fn messages_follow_each_other_with_an_empty_line_between() {
    let spool = Spool::new();
    let mbox = spool.mbox(|_| {});
    let parcels = vec![parcel("1", "A: b\r\n\r\nFrom me\r\n"), parcel("2", "A: b\r\n\r\nno end")];
    let outcomes = mbox.prepare(parcels).await.complete().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })), "{outcomes:?}");
    assert_eq!(spool.text(), whole("A: b\n\n>From me\n") + &whole("A: b\n\nno end\n"));
    assert_eq!(spool.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(mbox.presence(&recipient()).await, Ok(Presence::Here)));
}

#[tokio::test]
async fn a_mailbox_without_a_last_line_end_gets_one_first() {
    for (before, gap) in [("x", "\n\n"), ("x\n", "\n"), ("x\n\n", ""), ("\n", ""), ("", "")] {
        let spool = Spool::new();
        fs::write(spool.path(), before).unwrap();
        spool.mbox(|_| {}).prepare(vec![parcel("1", "A: b\r\n\r\nx\r\n")]).await.complete().await;
        assert_eq!(spool.text(), format!("{before}{gap}{}", whole("A: b\n\nx\n")), "{before:?}");
    }
}

#[tokio::test]
async fn another_programs_lock_is_waited_for_and_an_old_one_is_removed() {
    let spool = Spool::new();
    fs::write(spool.lock_path(), "1\n").unwrap();
    let mbox = spool.mbox(|options| options.lock_timeout = Duration::from_millis(200));
    let prepared = mbox.prepare(vec![parcel("1", "x")]).await;
    assert_eq!(prepared.notes()[0].as_ref().unwrap_err().kind, FailureKind::Transient);
    assert!(matches!(prepared.complete().await[..], [Outcome::Failed(_)]));
    assert!(spool.lock_path().exists());

    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(spool.lock_path()).unwrap().set_modified(hour_ago).unwrap();
    let outcomes = spool.mbox(|_| {}).prepare(vec![parcel("1", "A: b\r\n\r\n")]).await.complete().await;
    assert!(matches!(outcomes[..], [Outcome::Delivered { .. }]), "{outcomes:?}");
}

#[tokio::test]
async fn a_lock_that_a_killed_process_of_ours_left_is_removed_at_once() {
    let spool = Spool::new();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let mark = format!("{}\nconnectord {} {}\n", child.id(), boot.trim(), namespace.display());
    fs::write(spool.lock_path(), mark).unwrap();
    let outcomes = spool.mbox(|_| {}).prepare(vec![parcel("1", "A: b\r\n\r\n")]).await.complete().await;
    assert!(matches!(outcomes[..], [Outcome::Delivered { .. }]), "{outcomes:?}");
}

#[tokio::test]
async fn an_fcntl_lock_of_another_process_is_respected() {
    let spool = Spool::new();
    fs::write(spool.path(), "").unwrap();
    // A process of its own, as these locks are per process: this test program again, in the test below.
    let mut holder = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_process", "--nocapture"])
        .env("LOCK_THIS_FILE", spool.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let locked = BufReader::new(holder.stdout.take().unwrap()).lines().any(|line| line.unwrap().contains("locked"));
    assert!(locked);
    let mbox = spool.mbox(|options| options.lock_timeout = Duration::from_millis(300));
    let refused = mbox.prepare(vec![parcel("1", "A: b\r\n\r\n")]).await.complete().await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(matches!(refused[..], [Outcome::Failed(_)]), "{refused:?}");
    let outcomes = mbox.prepare(vec![parcel("1", "A: b\r\n\r\n")]).await.complete().await;
    assert!(matches!(outcomes[..], [Outcome::Delivered { .. }]), "{outcomes:?}");
}

#[test]
fn the_other_process() {
    let Some(path) = std::env::var_os("LOCK_THIS_FILE") else { return };
    let file = fs::File::options().write(true).open(path).unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    println!("\nlocked");
    std::thread::sleep(Duration::from_secs(60));
}

#[tokio::test]
async fn a_message_that_breaks_while_it_is_appended_is_cut_off_and_the_others_stay() {
    let spool = Spool::new();
    fs::write(spool.path(), "From x\n\nold\n\n").unwrap();
    struct Breaking;
    impl connectord_mail::Body for Breaking {
        fn size_octets(&self) -> u64 {
            400_000
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            static READS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
            // Whole when it is measured, cut when it is appended.
            if READS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 6 {
                return Err(std::io::Error::other("gone"));
            }
            let count = buffer.len().min(usize::try_from(400_000 - offset).unwrap());
            buffer[..count].fill(b'x');
            Ok(count)
        }
    }
    let mbox = spool.mbox(|_| {});
    let broken = Parcel { body: Arc::new(Breaking), ..parcel("2", "") };
    let parcels = vec![parcel("1", "A: b\r\n\r\n1"), broken, parcel("3", "A: b\r\n\r\n3")];
    let outcomes = mbox.prepare(parcels).await.complete().await;
    assert!(
        matches!(outcomes[..], [Outcome::Delivered { .. }, Outcome::Failed(_), Outcome::Delivered { .. }]),
        "{outcomes:?}"
    );
    assert_eq!(spool.text(), "From x\n\nold\n\n".to_owned() + &whole("A: b\n\n1\n") + &whole("A: b\n\n3\n"));
}

#[tokio::test]
async fn recall_finds_what_is_there_and_cuts_off_what_is_half_there() {
    let spool = Spool::new();
    fs::write(spool.path(), "From x\n\nold\n\n").unwrap();
    let mbox = spool.mbox(|_| {});
    let prepared = mbox.prepare(vec![parcel("1", "A: b\r\n\r\n1"), parcel("2", "A: b\r\n\r\n2")]).await;
    let rows: Vec<_> =
        prepared.notes().iter().map(|note| RecallRow { recipient: recipient(), note: note.clone().unwrap() }).collect();
    assert!(rows.iter().all(|row| row.note.as_ref().unwrap().0.len() <= 1024));
    prepared.complete().await;
    let delivered = mbox.recall(rows.clone()).await;
    assert!(delivered.iter().all(|recalled| matches!(recalled, Recalled::Delivered { .. })), "{delivered:?}");

    // Killed in the middle of the second.
    let cut = |octets: u64| {
        let file = fs::File::options().write(true).open(spool.path()).unwrap();
        file.set_len(file.metadata().unwrap().len() - octets).unwrap();
    };
    cut(30);
    let recalled = mbox.recall(rows.clone()).await;
    assert!(matches!(recalled[..], [Recalled::Delivered { .. }, Recalled::Absent]), "{recalled:?}");
    let first = "From x\n\nold\n\n".to_owned() + &whole("A: b\n\n1\n");
    assert_eq!(spool.text(), first);

    // Another program's message in that place.
    fs::File::options().append(true).open(spool.path()).unwrap().write_all(b"From y\n\nother\n\n").unwrap();
    assert_eq!(mbox.recall(rows.clone()).await[1], Recalled::Unknown);
    assert_eq!(spool.text(), first + "From y\n\nother\n\n");

    // Rewritten by a reader.
    fs::rename(spool.path(), spool.dir.path().join("kept")).unwrap();
    fs::write(spool.path(), "").unwrap();
    assert_eq!(mbox.recall(rows).await, [Recalled::Unknown, Recalled::Unknown]);
}

#[tokio::test]
async fn a_symbolic_link_is_not_followed_and_a_missing_directory_not_made() {
    let spool = Spool::new();
    fs::write(spool.dir.path().join("secret"), "keep").unwrap();
    std::os::unix::fs::symlink(spool.dir.path().join("secret"), spool.path()).unwrap();
    let outcomes = spool.mbox(|_| {}).prepare(vec![parcel("1", "x")]).await.complete().await;
    assert!(
        matches!(&outcomes[..], [Outcome::Failed(failure)] if failure.kind == FailureKind::Misconfigured),
        "{outcomes:?}"
    );
    let below =
        spool.mbox(|options| options.path = format!("{}/no/{{user}}", spool.dir.path().display()).parse().unwrap());
    let outcomes = below.prepare(vec![parcel("1", "x")]).await.complete().await;
    assert!(
        matches!(&outcomes[..], [Outcome::Failed(failure)] if failure.kind == FailureKind::Unavailable),
        "{outcomes:?}"
    );
    assert!(matches!(below.presence(&recipient()).await, Ok(Presence::Absent(_))));
    assert_eq!(fs::read_to_string(spool.dir.path().join("secret")).unwrap(), "keep");
}
