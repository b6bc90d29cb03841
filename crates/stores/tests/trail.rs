//! The trail in its file: the battery, and what happens to the file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connectord_account::Key;
use connectord_mail::{DeliveryId, UnixTime};
use connectord_store::{
    About, HourRow, Of, Recorder, StoreError, Trail, TrailEntry, TrailKey, TrailName, TrailQuery, TrailStep, What,
    battery,
};
use connectord_stores::trail::{FILE, Options, SqliteTrail};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn open(directory: &Path) -> SqliteTrail {
    // Far longer than any time of a test is ago.
    let keep = Duration::from_secs(86_400 * 100_000);
    SqliteTrail::open(directory, Options { keep, ..Options::default() }).unwrap()
}

fn entry(uid: u32, at: UnixTime, what: What) -> TrailEntry {
    TrailEntry {
        name: TrailName::Key(TrailKey {
            account: "ann@example.org".into(),
            mailbox: "INBOX".into(),
            uid_validity: 1,
            key: Key::Uid(uid),
            generation: 0,
        }),
        at,
        about: Some(Box::new(About {
            delivery: DeliveryId::from_octets([uid as u8; 17]),
            on_server: uid.to_string(),
            subject: format!("Invoice number {uid}"),
            from: "Bob <bob@shop.test>".to_owned(),
            message_id: format!("<{uid}@shop.test>"),
            users: Arc::new(["ann".to_owned()]),
            octets: 1000,
            seen_at: at,
        })),
        steps: vec![TrailStep::new(at, what, "ann", "250 2.0.0 Saved")],
    }
}

async fn total(trail: &SqliteTrail, text: &str) -> u64 {
    let query = TrailQuery { text: text.to_owned(), limit: 1, ..TrailQuery::default() };
    trail.messages(&query).await.unwrap().total
}

#[tokio::test]
async fn it_passes_the_battery() {
    let directory = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    let fresh = async || {
        number.set(number.get() + 1);
        let path = directory.path().join(number.get().to_string());
        std::fs::create_dir(&path).unwrap();
        open(&path)
    };
    battery::trail(fresh, async |trail: &SqliteTrail| trail.flush().await).await;
}

#[tokio::test]
async fn what_was_written_is_there_after_it_was_closed_and_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let trail = open(directory.path());
    (0..600).for_each(|uid| trail.record(entry(uid, NOW, What::Delivered)));
    trail.close().await;
    assert_eq!(trail.messages(&TrailQuery::default()).await, Err(StoreError::Closed));
    trail.record(entry(601, NOW, What::Delivered));
    drop(trail);
    let trail = open(directory.path());
    assert_eq!((total(&trail, "").await, total(&trail, "number 7").await, trail.dropped()), (600, 11, 0));
    trail.record(entry(599, NOW, What::Removed));
    trail.record(entry(602, NOW, What::Delivered));
    trail.flush().await;
    assert_eq!((total(&trail, "").await, total(&trail, "number 602").await), (601, 1));
}

#[tokio::test]
async fn a_file_that_is_damaged_is_set_aside_and_another_one_begun() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    for content in [&[b'x'; 8192][..], b"", b"SQLite format 3\0 and no more"] {
        std::fs::write(&path, content).unwrap();
        let trail = open(directory.path());
        trail.record(entry(1, NOW, What::Delivered));
        trail.flush().await;
        assert_eq!((total(&trail, "").await, trail.dropped()), (1, 0));
        drop(trail);
        std::fs::remove_file(&path).unwrap();
    }
    assert!(directory.path().join(format!("{FILE}.damaged")).exists());
}

#[tokio::test]
async fn a_file_of_another_version_or_program_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    for change in ["PRAGMA user_version = 99", "PRAGMA application_id = 7"] {
        let trail = open(directory.path());
        trail.record(entry(1, NOW, What::Delivered));
        trail.close().await;
        rusqlite::Connection::open(directory.path().join(FILE)).unwrap().execute_batch(change).unwrap();
        let trail = open(directory.path());
        assert_eq!(total(&trail, "").await, 0, "{change}");
    }
}

/// Overwrites the middle of the file while it is open.
fn damage(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    for at in (4096..length).step_by(4096) {
        file.write_all_at(&[0xA5; 4096], at).unwrap();
    }
}

#[tokio::test]
async fn damage_that_shows_while_it_is_used_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let trail = open(directory.path());
    (0..2000).for_each(|uid| trail.record(entry(uid, NOW, What::Delivered)));
    trail.close().await;
    let trail = open(directory.path());
    damage(&path);
    // What is looked up may fail, and what is recorded goes into the file that follows.
    let _ = trail.messages(&TrailQuery { text: "invoice".to_owned(), ..TrailQuery::default() }).await;
    for uid in 5_000..5_020 {
        trail.record(entry(uid, NOW, What::Delivered));
        trail.flush().await;
    }
    assert_eq!(total(&trail, "number 5019").await, 1);
    assert!(path.with_extension("db.damaged").exists());
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_waits_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { queue: 4, ..Options::default() };
    let trail = SqliteTrail::open(directory.path(), options).unwrap();
    // Another program holds the file: nothing can be written.
    let other = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    (0..1000).for_each(|uid| trail.record(entry(uid, NOW, What::Delivered)));
    assert!(trail.dropped() >= 900, "{}", trail.dropped());
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    trail.flush().await;
    trail.record(entry(1001, NOW, What::Delivered));
    trail.flush().await;
    assert_eq!(total(&trail, "number 1001").await, 1);
}

#[tokio::test]
async fn what_is_older_than_it_is_kept_is_forgotten_with_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let trail = open(directory.path());
    let now = UnixTime(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64);
    let ago = |days: i64| UnixTime(now.0 - days * 86_400);
    for uid in 0..3_000 {
        trail.record(entry(uid, if uid < 2_500 { ago(40) } else { ago(1) }, What::Delivered));
        if uid % 1000 == 0 {
            trail.flush().await;
        }
    }
    trail.close().await;
    let keep = Duration::from_secs(30 * 86_400);
    let trail = SqliteTrail::open(directory.path(), Options { keep, ..Options::default() }).unwrap();
    // Some at a time, so that nothing waits long for it.
    for _ in 0..3 {
        trail.flush().await;
    }
    assert_eq!((total(&trail, "").await, total(&trail, "invoice").await), (500, 500));
    assert_eq!((total(&trail, "number 2499").await, total(&trail, "number 2500").await), (0, 1));
    let hours = trail.hours(Of::All, ago(40), ago(40)).await.unwrap();
    assert_eq!(hours[0], HourRow { at: HourRow::of(ago(40)), ..HourRow::default() });
    // Numbers go on behind those that were forgotten.
    trail.record(entry(9_000, now, What::Delivered));
    trail.flush().await;
    assert_eq!(total(&trail, "number 9000").await, 1);
}

/// Not a test when it is run as one: see the next.
#[tokio::test]
async fn child_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var("TRAIL_DIRECTORY") else { return };
    let trail = open(Path::new(&directory));
    for uid in 0.. {
        trail.record(entry(uid, NOW, What::Delivered));
        if uid % 50 == 0 {
            trail.flush().await;
            println!("written {uid}");
        }
    }
}

#[tokio::test]
async fn what_was_written_survives_kill_9_and_is_found_by_its_words() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes_until_it_is_killed", "--nocapture"])
        .env("TRAIL_DIRECTORY", directory.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let written = lines.map_while(Result::ok).filter_map(|line| line.rsplit_once("written ")?.1.parse::<u32>().ok());
    let last = written.take_while(|uid| *uid <= 1_500).last().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let trail = open(directory.path());
    for uid in [0, last / 2, last] {
        assert_eq!(total(&trail, &format!("<{uid}@shop.test>")).await, 1, "{uid}");
    }
    assert!(!directory.path().join(format!("{FILE}.damaged")).exists());
}
