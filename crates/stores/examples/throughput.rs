//! How fast the store is on this disk: `throughput DIRECTORY [ROWS]`. The directory must not exist.

use std::sync::Arc;
use std::time::Instant;

use connectord_account::Key;
use connectord_delivery::Recipient;
use connectord_mail::{Fingerprint, UnixTime};
use connectord_store::{Begin, Mark, MessageName, MessageRef, Settle, Settled, Step, Store, StoreError};
use connectord_stores::sqlite::{Options, SqliteStore};

const BATCH: u64 = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: throughput DIRECTORY [ROWS]")?;
    let rows: u64 = arguments.next().as_deref().unwrap_or("100000").parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    runtime.block_on(measure(&directory, rows))?;
    let opening = Instant::now();
    let store = SqliteStore::open(&directory, Options::default())?;
    println!("opened again in {:?}", opening.elapsed());
    drop(store);
    Ok(())
}

async fn measure(directory: &str, rows: u64) -> Result<(), StoreError> {
    let store = Arc::new(SqliteStore::open(directory, Options::default())?);
    let account = store.open_account("ann@example.org").await?;
    let lease = Arc::new(store.lease(account.id).await?);
    let mailbox = store.open_mailbox(&lease, "", 0).await?.id;
    let now = UnixTime(1_800_000_000);
    let per_second = |count: u64, since: Instant| count as f64 / since.elapsed().as_secs_f64();

    let began = Instant::now();
    for first in (0..rows).step_by(BATCH as usize) {
        let batch = first..(first + BATCH).min(rows);
        let begin: Vec<_> =
            batch.clone().map(|n| begin(MessageRef { mailbox, key: key(n), generation: 0 }, n)).collect();
        store.begin(&lease, &begin, now).await?;
        let settled = |n| Settle {
            message: MessageRef { mailbox, key: key(n), generation: 0 },
            destination: "local".to_owned(),
            user: "ann".to_owned(),
            settled: Settled::Delivered,
        };
        let settle: Vec<_> = batch.map(settled).collect();
        store.settle(&lease, &settle, now).await?;
    }
    println!("begin and settle, batches of {BATCH}: {:.0} messages/s", per_second(rows, began));

    let singles = 2_000;
    let began = Instant::now();
    for n in 0..singles {
        store.mark(&lease, mailbox, &[(key(n), 0)], Mark::Removing).await?;
    }
    println!("one change at a time: {:.0} commits/s", per_second(singles, began));

    let (tasks, each) = (512, 100);
    let before = store.work();
    let began = Instant::now();
    let mut running = Vec::new();
    for task in 0..tasks {
        let (store, lease) = (Arc::clone(&store), Arc::clone(&lease));
        running.push(tokio::spawn(async move {
            for n in 0..each {
                store.mark(&lease, mailbox, &[(key(1_000_000_000 + task * each + n), 0)], Mark::Skipped).await?;
            }
            Ok::<(), StoreError>(())
        }));
    }
    for task in running {
        task.await.expect("no task panics")?;
    }
    let after = store.work();
    println!(
        "one change at a time by {tasks} tasks: {:.0} changes/s in groups of {:.0}",
        per_second(tasks * each, began),
        (after.changes - before.changes) as f64 / (after.commits - before.commits) as f64,
    );

    let began = Instant::now();
    let known = store.ledger(mailbox).await?.len();
    println!("ledger of {known} messages read in {:?}", began.elapsed());
    drop(lease);
    store.close().await;
    let length = std::fs::metadata(format!("{directory}/state.db")).map_or(0, |file| file.len());
    println!("{:.1} octets a message on disk", length as f64 / known as f64);
    Ok(())
}

fn begin(message: MessageRef, n: u64) -> Begin {
    Begin {
        message,
        fingerprint: Fingerprint { head: mixed(n), body: mixed(!n), size: 3_000 + (n % 100_000) as u32 },
        arrived_at: UnixTime(1_800_000_000 - (n % 10_000_000) as i64),
        name: MessageName { on_server: n.to_string(), subject: "a subject".to_owned(), ..MessageName::default() },
        deliveries: vec![(
            "local".to_owned(),
            Recipient { user: "ann".to_owned(), address: "ann".to_owned() },
            Step::Waiting,
        )],
    }
}

/// As good as a digest for the order of rows.
fn key(n: u64) -> Key {
    Key::Digest(((u128::from(mixed(n)) << 64) | u128::from(n)).to_be_bytes())
}

/// SplitMix64.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}
