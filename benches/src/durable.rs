//! What is durable: a batch staged in a Maildir and published, a batch begun and settled in the state, a ledger loaded.
//!
//! In a directory of its own in `TMPDIR`; beside it, in the same directory, the least that a disk can be asked for.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectord_account::Key;
use connectord_deliveries::maildir::{Maildir, Options};
use connectord_delivery::{Delivery as _, Note, Outcome, Parcel, Recipient};
use connectord_mail::{DeliveryId, Fingerprint, Identity, UnixTime};
use connectord_store::{Begin, MessageName, MessageRef, Settle, Settled, Step, Store as _};
use connectord_stores::sqlite::{self, SqliteStore};

const NOW: UnixTime = UnixTime(1_795_000_000);

/// Octets of each message.
const OCTETS: usize = 10_000;

pub(crate) fn measure(smoke: bool) {
    let (batch, rounds, known) = if smoke { (20, 1, 1_000) } else { (200, 10, 100_000) };
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    println!("{:<46} {:>10}", "durable, medians of some rounds", "ms");
    line(&format!("one file of {OCTETS} octets and its fsync"), rounds, || file(directory.path()));
    runtime.block_on(async {
        staging(directory.path(), batch, rounds).await;
        store(directory.path(), batch, rounds, known).await;
    });
}

/// Measures something that is called anew each time.
fn line(name: &str, rounds: usize, mut work: impl FnMut()) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    say(name, &mut times);
}

fn say(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    println!("{name:<46} {:>10.2}", times[times.len() / 2].as_secs_f64() * 1e3);
}

fn file(directory: &Path) {
    let path = directory.join("file");
    let mut file = File::create(&path).expect("a file can be made in our directory");
    file.write_all(&[b'x'; OCTETS]).expect("the file system has room");
    file.sync_all().expect("the file can be synced");
    std::fs::remove_file(&path).expect("our file can be removed");
}

async fn staging(directory: &Path, batch: usize, rounds: usize) {
    let path = format!("{}/{{user}}", directory.display());
    let mut options = Options::new(path.parse().expect("a path with one place"), "bench");
    // Whatever disk this is: nothing here is kept.
    options.reserve.octets = 0;
    options.reserve.percent = 0;
    let maildir = Maildir::new(options);
    let (mut prepare, mut complete) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let parcels = (0..batch).map(|n| parcel(round * batch + n)).collect();
        let began = Instant::now();
        let prepared = maildir.prepare(parcels).await;
        prepare.push(began.elapsed());
        let notes: Vec<Note> = prepared.notes().iter().filter_map(|note| note.clone().ok().flatten()).collect();
        let began = Instant::now();
        let outcomes = prepared.complete().await;
        complete.push(began.elapsed());
        assert!(outcomes.len() == batch && outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered { .. })));
        maildir.settled(&notes).await;
    }
    say(&format!("Maildir: {batch} messages made ready"), &mut prepare);
    say(&format!("Maildir: {batch} messages published"), &mut complete);
}

fn parcel(n: usize) -> Parcel {
    let key = u32::try_from(n).expect("a few thousand").to_be_bytes();
    let message = DeliveryId::new(Identity {
        account: "ann@example.org",
        mailbox: "INBOX",
        uid_validity: 7,
        key: &key,
        generation: 0,
    });
    let mut body = format!("Message-ID: <{n}@example.org>\r\nSubject: sample\r\n\r\n").into_bytes();
    while body.len() < OCTETS {
        body.extend_from_slice(&[b'x'; 76]);
        body.extend_from_slice(b"\r\n");
    }
    Parcel {
        id: message.for_recipient("default", "ann"),
        message,
        recipient: recipient(),
        reverse_path: "sender@example.net".to_owned(),
        trace: Bytes::from_static(b"X-Trace: sample\r\n"),
        body: Arc::new(Bytes::from(body)),
        arrived_at: Some(NOW),
        folder: None,
        attempt: 1,
    }
}

fn recipient() -> Recipient {
    Recipient { user: "ann".to_owned(), address: "ann".to_owned() }
}

async fn store(directory: &Path, batch: usize, rounds: usize, known: usize) {
    let store = SqliteStore::open(directory.join("state"), sqlite::Options::default())
        .expect("a state can be made in our directory");
    let account = store.open_account("ann@example.org").await.expect("an account can be made");
    let lease = store.lease(account.id).await.expect("nobody else has it");
    let mailbox = store.open_mailbox(&lease, "INBOX", 7).await.expect("a mailbox can be made").id;
    let reference = |n: usize| {
        let uid = u32::try_from(n + 1).expect("fewer than 2^32");
        MessageRef { mailbox, key: Key::Uid(uid), generation: 0 }
    };
    let begin = |n: usize| Begin {
        message: reference(n),
        fingerprint: Fingerprint { head: n as u64, body: n as u64, size: OCTETS as u32 },
        arrived_at: NOW,
        name: MessageName {
            on_server: n.to_string(),
            message_id: format!("<{n}@example.org>"),
            from: "sender@example.net".to_owned(),
            subject: "sample".to_owned(),
        },
        deliveries: vec![("default".to_owned(), recipient(), Step::Staged(Note(vec![7; 60])))],
    };
    let settle = |n: usize| Settle {
        message: reference(n),
        destination: "default".to_owned(),
        user: "ann".to_owned(),
        settled: Settled::Delivered,
    };
    let (mut begun, mut settled) = (Vec::new(), Vec::new());
    let (mut done, mut round) = (0, 0);
    while done < known || round < rounds {
        // The measured batches first, then large ones, so that the ledger grows quickly.
        let count = if round < rounds { batch } else { 5_000 };
        let rows: Vec<Begin> = (done..done + count).map(begin).collect();
        let ends: Vec<Settle> = (done..done + count).map(settle).collect();
        let began = Instant::now();
        store.begin(&lease, &rows, NOW).await.expect("a batch can begin");
        let between = Instant::now();
        store.settle(&lease, &ends, NOW).await.expect("a batch can be settled");
        if round < rounds {
            begun.push(between - began);
            settled.push(between.elapsed());
        }
        (done, round) = (done + count, round + 1);
    }
    say(&format!("state: {batch} messages begun, one commit"), &mut begun);
    say(&format!("state: {batch} messages settled, one commit"), &mut settled);
    let mut loaded = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        let ledger = store.packed_ledger(mailbox, false).await.expect("the ledger can be read");
        loaded.push(began.elapsed());
        drop(std::hint::black_box(ledger));
    }
    say(&format!("state: a ledger of {done} messages loaded"), &mut loaded);
    drop(lease);
    store.close().await;
}
