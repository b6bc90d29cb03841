//! The SQLite store as its callers see it, on a real disk.
#![allow(clippy::unwrap_used, reason = "in a test's helpers a panic is the failure")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use connectord_account::{Entry, Key, State};
use connectord_delivery::Recipient;
use connectord_mail::{Fingerprint, UnixTime};
use connectord_store::{
    AccountId, Begin, Expected, Lease, MailboxId, Mark, MessageName, MessageRef, Save, SavedAccount, SavedAccounts,
    SecretChange, Settle, Settled, Step, Store, StoreError, battery,
};
use connectord_stores::seal::{Keys, Place, SealError};
use connectord_stores::sqlite::{Options, SECRET, SqliteStore};
use connectord_wire::Secret;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn open(directory: impl AsRef<Path>) -> SqliteStore {
    SqliteStore::open(directory, Options::default()).unwrap()
}

/// The account, lease and mailbox that the tests work on.
async fn account(store: &SqliteStore) -> (Lease, MailboxId) {
    let account = store.open_account("ann@example.org").await.unwrap();
    let lease = store.lease(account.id).await.unwrap();
    let mailbox = store.open_mailbox(&lease, "INBOX", 1).await.unwrap();
    (lease, mailbox.id)
}

fn begin(message: MessageRef) -> Begin {
    let Key::Digest(digest) = digest(match message.key {
        Key::Uid(uid) => uid.into(),
        Key::Digest(digest) => u64::from_be_bytes(*digest.last_chunk().unwrap()),
    }) else {
        unreachable!("a digest was asked for")
    };
    let (head, body) =
        (u64::from_be_bytes(*digest.first_chunk().unwrap()), u64::from_le_bytes(*digest.first_chunk().unwrap()));
    Begin {
        message,
        fingerprint: Fingerprint { head, body, size: 3_000 + (head % 100_000) as u32 },
        arrived_at: UnixTime(NOW.0 - (head % 10_000_000) as i64),
        name: MessageName { subject: "a subject".to_owned(), ..MessageName::default() },
        deliveries: vec![(
            "local".to_owned(),
            Recipient { user: "ann".to_owned(), address: "ann".to_owned() },
            Step::Waiting,
        )],
    }
}

fn settle(message: MessageRef) -> Settle {
    let (destination, user) = ("local".to_owned(), "ann".to_owned());
    Settle { message, destination, user, settled: Settled::Delivered }
}

async fn deliver(store: &SqliteStore, lease: &Lease, messages: &[MessageRef]) -> Result<(), StoreError> {
    store.begin(lease, &messages.iter().map(|message| begin(*message)).collect::<Vec<_>>(), NOW).await?;
    store.settle(lease, &messages.iter().map(|message| settle(*message)).collect::<Vec<_>>(), NOW).await
}

/// A key at a random place among the others.
fn digest(n: u64) -> Key {
    let mixed = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    Key::Digest(((u128::from(mixed ^ (mixed >> 31)) << 64) | u128::from(n)).to_be_bytes())
}

fn delivered(ledger: &[Entry]) -> Vec<u32> {
    let uid = |entry: &Entry| match entry.key {
        Key::Uid(uid) if entry.state == State::Delivered => Some(uid),
        _ => None,
    };
    ledger.iter().filter_map(uid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_battery() {
    let directory = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    let fresh = async || open(directory.path().join(count.fetch_add(1, Ordering::Relaxed).to_string()));
    battery::battery(&fresh).await;
    battery::saved_accounts(&fresh).await;
    battery::values(&fresh().await).await;
}

#[tokio::test]
async fn what_it_knows_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    battery::survives_reopening(async || open(directory.path().join("state"))).await;
    battery::saved_accounts_survive(async || open(directory.path().join("saved"))).await;
    battery::values_survive(async || open(directory.path().join("values"))).await;
}

#[tokio::test]
async fn one_process_has_it_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = open(&path);
    let locked = StoreError::Locked { path: path.display().to_string(), pid: Some(std::process::id()) };
    assert_eq!(SqliteStore::open(&path, Options::default()).err(), Some(locked));
    store.close().await;
    open(&path);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("state"));
    store.close().await;
    store.close().await;
    assert_eq!(store.accounts().await, Err(StoreError::Closed));
    assert_eq!(store.tick(NOW).await, Err(StoreError::Closed));
    assert_eq!(store.backup(directory.path().join("copy")).await, Err(StoreError::Closed));
}

#[tokio::test]
async fn closing_leaves_one_file_and_nobody_else_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = open(&path);
    store.tick(NOW).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o700);
    for name in ["state.db", "state.db-wal", "state.db-shm", "lock"] {
        assert_eq!((name, mode(&path.join(name))), (name, 0o600));
    }
    store.close().await;
    assert!(!path.join("state.db-wal").exists());
}

#[tokio::test]
async fn what_an_uneventful_check_left_is_there_after_an_end_in_order_and_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = open(&path);
    let account = store.open_account("ann@example.org").await.unwrap().id;
    store.close().await;
    for checks in 1..=3 {
        let store = open(&path);
        let lease = store.lease(account).await.unwrap();
        let run = connectord_store::RunRow { started: NOW, listed: checks, ..Default::default() };
        store.record_check(&lease, &connectord_store::Health::default(), &run, &[]).await.unwrap();
        assert_eq!(store.runs(account, 9).await.unwrap().len() as u64, checks);
        // As a kill leaves it.
        let killed = directory.path().join(format!("killed-{checks}"));
        std::fs::create_dir(&killed).unwrap();
        for name in ["state.db", "state.db-wal", "lock"] {
            std::fs::copy(path.join(name), killed.join(name)).unwrap();
        }
        assert_eq!(open(&killed).runs(account, 9).await.unwrap().len() as u64, checks);
        drop(lease);
        store.close().await;
        assert_eq!(std::fs::metadata(path.join("lock")).unwrap().len(), 0, "it says that it ended in order");
    }
    // What must last takes the rest along.
    let store = open(&path);
    store.tick(NOW).await.unwrap();
    store.close().await;
    assert!(!path.join("state.db-wal").exists());
    assert_eq!(open(&path).runs(account, 9).await.unwrap().len(), 3);
}

#[tokio::test]
async fn its_instance_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("a"));
    let instance = store.instance().to_owned();
    assert!(instance.len() == 16 && instance.bytes().all(|digit| digit.is_ascii_hexdigit()));
    drop(store);
    assert_eq!(open(directory.path().join("a")).instance(), instance);
    assert_ne!(open(directory.path().join("b")).instance(), instance);
}

#[test]
fn only_the_last_part_of_the_path_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let result = SqliteStore::open(directory.path().join("a/b"), Options::default());
    assert!(matches!(result.err(), Some(StoreError::Failed { during: "opening the state", .. })));
    assert!(!directory.path().join("a").exists());
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let state = || rusqlite::Connection::open(directory.path().join("state.db")).unwrap();
    let change = |sql: &str| state().execute_batch(sql).unwrap();
    let known = state().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    change("PRAGMA user_version = 99");
    let newer = StoreError::NewerSchema { found: 99, known };
    assert_eq!(SqliteStore::open(directory.path(), Options::default()).err(), Some(newer));
    change(&format!("PRAGMA user_version = {known}"));
    open(directory.path());
}

#[tokio::test]
async fn a_state_of_the_first_schema_learns_to_remember_what_was_told() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let state = rusqlite::Connection::open(directory.path().join("state.db")).unwrap();
    state
        .execute_batch(
            "DROP TABLE notice; ALTER TABLE trouble DROP COLUMN anyway; ALTER TABLE run DROP COLUMN repeated;
             ALTER TABLE mailbox DROP COLUMN quiet; ALTER TABLE trouble DROP COLUMN postponed;
             ALTER TABLE trouble DROP COLUMN filter_failures; ALTER TABLE run DROP COLUMN quarantined;
             ALTER TABLE run DROP COLUMN discarded; ALTER TABLE run DROP COLUMN unchecked;
             ALTER TABLE run DROP COLUMN spam; DROP TABLE saved; DROP TABLE change;
             ALTER TABLE account DROP COLUMN reason; ALTER TABLE account DROP COLUMN since;
             ALTER TABLE run DROP COLUMN reason; DROP TABLE kept;
             ALTER TABLE account DROP COLUMN login; PRAGMA user_version = 1",
        )
        .unwrap();
    drop(state);
    let store = open(directory.path());
    assert_eq!(store.notices().await.unwrap(), []);
}

#[test]
fn the_files_of_others_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch("PRAGMA application_id = 1; CREATE TABLE a (b)").unwrap();
    assert!(matches!(SqliteStore::open(directory.path(), Options::default()).err(), Some(StoreError::Corrupt { .. })));
    std::fs::write(&file, [b'x'; 8192]).unwrap();
    assert!(matches!(SqliteStore::open(directory.path(), Options::default()).err(), Some(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn a_backup_is_a_whole_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("state"));
    let (lease, mailbox) = account(&store).await;
    let messages: Vec<_> = (1..=100).map(|uid| MessageRef { mailbox, key: Key::Uid(uid), generation: 0 }).collect();
    deliver(&store, &lease, &messages).await.unwrap();
    let copy = directory.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    store.backup(copy.join("state.db")).await.unwrap();
    assert!(matches!(store.backup(copy.join("state.db")).await, Err(StoreError::Failed { .. })));
    let restored = open(&copy);
    assert_eq!(restored.ledger(mailbox).await, store.ledger(mailbox).await);
    assert_eq!(restored.instance(), store.instance());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_together_share_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path().join("state")));
    let (lease, mailbox) = account(&store).await;
    let lease = Arc::new(lease);
    let before = store.work();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (store, lease) = (Arc::clone(&store), Arc::clone(&lease));
            tokio::spawn(async move {
                for n in 0..20 {
                    store.mark(&lease, mailbox, &[(Key::Uid(task * 20 + n), 0)], Mark::Skipped).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let after = store.work();
    assert_eq!(store.ledger(mailbox).await.unwrap().len(), 64 * 20);
    assert_eq!(after.changes - before.changes, 64 * 20);
    assert!((after.commits - before.commits) * 4 < 64 * 20, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_fails_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path().join("state")));
    let (lease, mailbox) = account(&store).await;
    store.mark(&lease, mailbox, &[(Key::Uid(0), 0)], Mark::Skipped).await.unwrap();
    let lease = Arc::new(lease);
    let tasks: Vec<_> = (0..400)
        .map(|n| {
            let (store, lease) = (Arc::clone(&store), Arc::clone(&lease));
            tokio::spawn(async move {
                // Every other one also wants to remove what nobody has.
                let keys = [(Key::Uid(n + 1), 0), (Key::Uid(if n % 2 == 0 { 0 } else { n + 1 }), 0)];
                store.mark(&lease, mailbox, &keys, Mark::Removing).await.is_ok()
            })
        })
        .collect();
    let mut succeeded = vec![];
    for (n, task) in tasks.into_iter().enumerate() {
        if task.await.unwrap() {
            succeeded.push(n as u32 + 1);
        }
    }
    let odd: Vec<u32> = (0..400).filter(|n| n % 2 == 1).map(|n| n + 1).collect();
    assert_eq!(succeeded, odd);
    let ledger = store.ledger(mailbox).await.unwrap();
    let removing = ledger.iter().filter(|entry| entry.state == State::Removing).map(|entry| entry.key);
    assert_eq!(removing.collect::<Vec<_>>(), odd.into_iter().map(Key::Uid).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_change_ends_before_the_account_is_leased_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("state"));
    for uid in 0..50 {
        let (lease, mailbox) = loop {
            let id = store.open_account("ann@example.org").await.unwrap().id;
            match store.lease(id).await {
                Ok(lease) => {
                    let mailbox = store.open_mailbox(&lease, "INBOX", 1).await.unwrap().id;
                    break (lease, mailbox);
                }
                Err(error) => assert_eq!(error, StoreError::Busy),
            }
        };
        // Whatever was begun under an earlier lease is visible now, and nothing comes later.
        let before = store.ledger(mailbox).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(store.ledger(mailbox).await.unwrap(), before);
        let keys = [(Key::Uid(uid), 0)];
        let change = store.mark(&lease, mailbox, &keys, Mark::Skipped);
        let _ = tokio::time::timeout(std::time::Duration::ZERO, change).await;
        drop(lease);
    }
}

/// Octets on disk for each of 50,000 delivered messages, the database closed.
async fn octets_each(key: impl Fn(u64) -> Key) -> f64 {
    const MESSAGES: u64 = 50_000;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("state"));
    let (lease, mailbox) = account(&store).await;
    let messages: Vec<_> = (0..MESSAGES).map(|n| MessageRef { mailbox, key: key(n), generation: 0 }).collect();
    for batch in messages.chunks(1024) {
        deliver(&store, &lease, batch).await.unwrap();
    }
    // Half of them are gone from the server.
    let gone: Vec<_> = messages.iter().step_by(2).map(|message| (message.key, 0)).collect();
    store.mark(&lease, mailbox, &gone, Mark::Done).await.unwrap();
    store.close().await;
    let length = directory.path().join("state/state.db").metadata().unwrap().len();
    length as f64 / MESSAGES as f64
}

#[tokio::test]
async fn a_finished_message_takes_at_most_64_octets() {
    let (digests, uids) = (octets_each(digest).await, octets_each(|n| Key::Uid(n as u32 + 1)).await);
    println!("{digests:.1} octets by digest, {uids:.1} by UID");
    assert!(digests <= 64.0, "{digests} octets");
    assert!(uids <= 64.0, "{uids} octets");
}

const CHILD: &str = "CONNECTORD_TEST_CHILD";

/// Runs a test of this file in a process of its own, in which [`CHILD`] is set.
fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, directory);
    command
}

/// Not a test when it is run as one: see the next.
#[test]
fn child_delivers_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&directory));
        let (lease, mailbox) = account(&store).await;
        let first = store.ledger(mailbox).await.unwrap().len() as u32;
        for uid in first.. {
            deliver(&store, &lease, &[MessageRef { mailbox, key: Key::Uid(uid), generation: 0 }]).await.unwrap();
            println!("\ndelivered {uid}");
        }
    });
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    for lines in [1, 7, 40, 150, 400] {
        let mut process = child("child_delivers_until_it_is_killed", &path).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let acknowledged: Vec<u32> = output
            .filter_map(|line| line.unwrap().strip_prefix("delivered ").map(|uid| uid.parse().unwrap()))
            .take(lines)
            .collect();
        process.kill().unwrap();
        process.wait().unwrap();
        let store = open(&path);
        let (_lease, mailbox) = account(&store).await;
        let kept = delivered(&store.ledger(mailbox).await.unwrap());
        assert_eq!(acknowledged.len(), lines);
        assert!(acknowledged.iter().all(|uid| kept.contains(uid)));
        store.close().await;
        let connection = rusqlite::Connection::open(path.join("state.db")).unwrap();
        let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok");
    }
}

#[tokio::test]
async fn a_torn_wal_opens_with_what_was_before_the_tear() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = open(&path);
    let (lease, mailbox) = account(&store).await;
    for uid in 0..60 {
        store.mark(&lease, mailbox, &[(Key::Uid(uid), 0)], Mark::Skipped).await.unwrap();
    }
    let (database, wal) =
        (std::fs::read(path.join("state.db")).unwrap(), std::fs::read(path.join("state.db-wal")).unwrap());
    assert!(wal.len() > 60 * 4096);
    let mut last = 0;
    for tear in 0..40 {
        let torn = directory.path().join(format!("torn{tear}"));
        std::fs::create_dir(&torn).unwrap();
        std::fs::write(torn.join("state.db"), &database).unwrap();
        // Cut somewhere, and half of the time noise instead of what was behind the cut.
        let cut = wal.len() * (tear + 1) / 40 - 17 * usize::from(tear < 39);
        let mut part = wal[..cut].to_vec();
        if tear % 2 == 0 {
            part.extend([0xA5; 5000]);
        }
        std::fs::write(torn.join("state.db-wal"), part).unwrap();
        let store = open(&torn);
        let keys: Vec<_> = store.ledger(mailbox).await.unwrap().iter().map(|entry| entry.key).collect();
        // A prefix of what was committed, and no shorter one than with less of the file.
        assert_eq!(keys, (0..keys.len() as u32).map(Key::Uid).collect::<Vec<_>>());
        assert!(keys.len() >= last);
        last = keys.len();
        let (lease, _) = account(&store).await;
        store.mark(&lease, mailbox, &[(Key::Uid(1000), 0)], Mark::Skipped).await.unwrap();
    }
    assert_eq!(last, 60);
}

/// Not a test when it is run as one: see the next.
#[test]
fn child_fills_its_disk() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let directory = Path::new(&directory);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = open(directory.join("state"));
        let (lease, mailbox) = account(&store).await;
        let batch = |n: u64| (n * 500..(n + 1) * 500).map(|n| (digest(n), 0)).collect::<Vec<_>>();
        let mut full = None;
        for n in 0..1000 {
            if let Err(error) = store.mark(&lease, mailbox, &batch(n), Mark::Skipped).await {
                full = Some((n, error));
                break;
            }
        }
        let (n, error) = full.unwrap();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        assert_eq!(store.ledger(mailbox).await.unwrap().len() as u64, n * 500);
        std::fs::remove_file(directory.join("ballast")).unwrap();
        store.mark(&lease, mailbox, &batch(n), Mark::Skipped).await.unwrap();
        assert_eq!(store.ledger(mailbox).await.unwrap().len() as u64, (n + 1) * 500);
        store.close().await;
        let store = open(directory.join("state"));
        assert_eq!(store.ledger(mailbox).await.unwrap().len() as u64, (n + 1) * 500);
    });
    println!("\nfilled and went on");
}

/// On a disk of three megabytes, where a user may mount one; `sqlite::tests` fills a database anywhere.
#[test]
fn a_full_disk_is_said_so_and_survived() {
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=3m none \"$0\" && head -c 1000000 /dev/zero > \"$0/ballast\" && echo mounted && exec \"$@\"";
    let test = child("child_fills_its_disk", directory.path());
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(directory.path())
        .arg(test.get_program())
        .args(test.get_args())
        .env(CHILD, directory.path())
        .output();
    let Ok(output) = output else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("mounted") {
        assert!(text.contains("filled and went on"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What is in the files of the state, and in a backup of it, opens nothing without the key.
#[tokio::test]
async fn neither_the_state_nor_a_backup_of_it_shows_a_password() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = open(&path);
    let keys = Keys::make(&directory.path().join("key")).unwrap();
    let ids = [store.open_account("ann@x").await.unwrap().id, store.open_account("bob@x").await.unwrap().id];
    let (table, column) = SECRET;
    let place = |account: AccountId| Place { table, account: account.0, column };
    for (id, password) in ids.into_iter().zip(["correct horse", "battery staple"]) {
        let record = keys.seal(place(id), &Secret::from(password)).unwrap();
        let save = Save {
            account: id,
            expected: Expected::New,
            settings: String::new(),
            enabled: true,
            secret: SecretChange::Set(record),
            who: "anna".to_owned(),
            now: NOW,
        };
        store.save_account(&save).await.unwrap();
    }
    let backup = directory.path().join("backup");
    store.backup(&backup).await.unwrap();
    let mut files = vec![backup];
    files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        let octets = std::fs::read(&file).unwrap();
        for password in ["correct horse", "battery staple"] {
            let is_there = octets.windows(password.len()).any(|part| part == password.as_bytes());
            assert!(!is_there, "{password} in {}", file.display());
        }
    }
    // Swapped rows do not open.
    let [ann, bob] = [ids[0], ids[1]];
    store.close().await;
    let state = rusqlite::Connection::open(path.join("state.db")).unwrap();
    let swap =
        "UPDATE saved SET secret = (SELECT secret FROM saved AS other WHERE other.account = ?2) WHERE account = ?1";
    state.execute(swap, [ann.0, bob.0]).unwrap();
    drop(state);
    let store = open(&path);
    let record = |saved: Option<SavedAccount>| saved.unwrap().secret.unwrap().record;
    let swapped = record(store.saved_account(ann).await.unwrap());
    assert_eq!(keys.open(place(ann), &swapped), Err(SealError::Tampered));
    let own = record(store.saved_account(bob).await.unwrap());
    assert_eq!(keys.open(place(bob), &own), Ok(Secret::from("battery staple")));
    let other = Keys::make(&directory.path().join("other")).unwrap();
    assert!(matches!(other.open(place(bob), &own), Err(SealError::OtherKey { .. })));
}
