//! What the page asks of a large installation's state, and what the trail costs.
//!
//!     cargo run --release -p connectord-stores --example page -- [DIRECTORY [TRAIL [LEDGER [ACCOUNTS]]]]
//!
//! Makes the state in the directory unless it is there (a million messages in the trail, five million rows of the ledger, 5,000
//! accounts), says what that took, and then asks for what lists and charts need, while messages go on being recorded.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connectord_account::Key;
use connectord_mail::{DeliveryId, Identity, UnixTime};
use connectord_store::{
    About, Health, Of, Reason, Recorder, RunRow, Store, TallyBy, Trail, TrailEntry, TrailKey, TrailName, TrailPage,
    TrailQuery, TrailState, TrailStep, What,
};
use connectord_stores::sqlite::{self, SqliteStore};
use connectord_stores::trail::{FILE, Options, SqliteTrail};

const WORDS: [&str; 24] = [
    "invoice",
    "meeting",
    "order",
    "your",
    "the",
    "Rechnung",
    "delivery",
    "report",
    "weekly",
    "news",
    "offer",
    "for",
    "Angebot",
    "fattura",
    "confirmation",
    "payment",
    "reminder",
    "update",
    "project",
    "team",
    "schedule",
    "März",
    "holiday",
    "server",
];

/// Numbers without an end, the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise: u64| arguments.get(at).map_or(otherwise, |text| text.parse().unwrap());
    let (messages, rows, accounts) = (number(1, 1_000_000), number(2, 5_000_000), number(3, 5_000));
    let temporary = tempfile::tempdir().unwrap();
    let directory = arguments.first().map_or_else(|| temporary.path().join("state"), |path| path.into());
    let is_new = !directory.join("state.db").exists();
    let store = SqliteStore::open(&directory, sqlite::Options::default()).unwrap();
    if is_new {
        make_accounts(&store, &directory, accounts, rows).await;
    }
    let trail = SqliteTrail::open(&directory, Options::default()).unwrap();
    if is_new {
        fill(&trail, &directory, messages, accounts).await;
    }
    let trail = Arc::new(trail);
    let is_over = Arc::new(AtomicBool::new(false));
    // A run in progress: 200 messages a second.
    let running = {
        let (trail, is_over) = (Arc::clone(&trail), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut chance = Chance(99);
            for number in 0u64.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                for part in 0..20 {
                    journey(&mut chance, messages * 2 + number * 20 + part, now(), accounts)
                        .into_iter()
                        .for_each(|entry| trail.record(entry));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    ask(&store, &trail).await;
    is_over.store(true, Ordering::Relaxed);
    running.await.unwrap();
    store.close().await;
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Processor time of this process so far.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 =
        stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn address(number: u64) -> String {
    format!("user{number}@host{}.example", number % 40)
}

async fn make_accounts(store: &SqliteStore, directory: &Path, accounts: u64, rows: u64) {
    let began = Instant::now();
    for number in 0..accounts {
        let account = store.open_account(&address(number)).await.unwrap();
        let lease = store.lease(account.id).await.unwrap();
        store.open_mailbox(&lease, "INBOX", 1).await.unwrap();
        let fails = number % 12 == 0;
        let reason = fails.then(|| Reason::new("login_refused").with("host", format!("host{}.example", number % 40)));
        let health = Health {
            last_ok: Some(UnixTime(now() - 60)),
            last_check: Some(UnixTime(now())),
            reason: reason.clone(),
            ..Health::default()
        };
        store.record_check(&lease, &health, &RunRow { reason, ..RunRow::default() }, &[]).await.unwrap();
    }
    let mut database = rusqlite::Connection::open(directory.join("state.db")).unwrap();
    let transaction = database.transaction().unwrap();
    {
        let sql = "INSERT INTO ledger VALUES (?1, ?2, 0, 0, ?3, zeroblob(25))";
        let mut insert = transaction.prepare(sql).unwrap();
        let each = rows / accounts.max(1);
        for mailbox in 1..=accounts as i64 {
            for key in 1..=each as i64 {
                insert.execute([mailbox, key, 1_790_000_000 + key]).unwrap();
            }
        }
    }
    transaction.commit().unwrap();
    println!("{accounts} accounts, {rows} ledger rows: made in {:.1?}", began.elapsed());
}

/// What is recorded of one message on its way.
fn journey(chance: &mut Chance, number: u64, at: i64, accounts: u64) -> Vec<TrailEntry> {
    let account: Arc<str> = address(chance.below(accounts)).into();
    let key = Key::Uid(u32::try_from(number).unwrap());
    let identity = Identity { account: &account, mailbox: "INBOX", uid_validity: 1, key: &key.octets(), generation: 0 };
    let delivery = DeliveryId::new(identity);
    let subject: Vec<&str> = (0..5).map(|_| WORDS[chance.below(WORDS.len() as u64) as usize]).collect();
    let sender = chance.below(20_000);
    let user = account.split('@').next().unwrap().to_owned();
    let about = About {
        delivery,
        on_server: number.to_string(),
        subject: format!("{} {}", subject.join(" "), chance.below(100_000)),
        from: format!("Sender Nr {sender} <sender{sender}@shop{}.test>", sender % 500),
        message_id: format!("<{:08x}.{:08x}@shop{}.test>", chance.below(1 << 31), number, sender % 500),
        users: Arc::new([user.clone()]),
        octets: 2_000 + chance.below(50_000),
        seen_at: UnixTime(at),
    };
    let name = TrailName::Key(TrailKey { account, mailbox: "INBOX".into(), uid_validity: 1, key, generation: 0 });
    let entry = |about: Option<About>, steps: Vec<TrailStep>| TrailEntry {
        name: name.clone(),
        at: UnixTime(at),
        about: about.map(Box::new),
        steps,
    };
    let step = |what, who: &str, detail: &str| TrailStep::new(UnixTime(at), what, who, detail);
    let scored =
        TrailStep { milli_score: Some(1_200), milli_limit: Some(6_000), ..step(What::Filter, "rspamd", "no action") };
    let became = match chance.below(1000) {
        0 => step(What::Parked, "", "550 5.1.1 no such user here"),
        1..=5 => step(What::Quarantined, "", "virus found: Eicar-Test-Signature"),
        _ => step(What::Delivered, &user, "250 2.0.0 <user@host> 8sXkAbCdEfGh Saved"),
    };
    vec![
        entry(Some(about), vec![step(What::Seen, "", ""), step(What::Retrieved, "", "")]),
        entry(None, vec![scored, step(What::Filter, "clamav", "no action")]),
        entry(None, vec![became]),
        entry(None, vec![step(What::Removed, "", "")]),
    ]
}

async fn fill(trail: &SqliteTrail, directory: &Path, messages: u64, accounts: u64) {
    let (began, before) = (Instant::now(), processor());
    let mut chance = Chance(7);
    let from = now() - 60 * 86_400;
    for number in 0..messages {
        let at = from + (number as f64 / messages as f64 * 60.0 * 86_400.0) as i64;
        journey(&mut chance, number, at, accounts).into_iter().for_each(|entry| trail.record(entry));
        if number % 1_000 == 0 {
            trail.flush().await;
        }
    }
    trail.flush().await;
    let (took, worked) = (began.elapsed(), processor().saturating_sub(before));
    let size = std::fs::metadata(directory.join(FILE)).unwrap().len();
    assert_eq!(trail.dropped(), 0);
    println!(
        "{messages} messages in the trail, {} of them a second, {:.1} µs of processor and {} octets of disk for each",
        (messages as f64 / took.as_secs_f64()) as u64,
        worked.as_secs_f64() * 1e6 / messages as f64,
        size / messages.max(1)
    );
    // What the one who records pays: a queue with room, and a writer that sleeps.
    let entries: Vec<TrailEntry> =
        (0..1_000).flat_map(|number| journey(&mut chance, messages + number, now(), accounts)).collect();
    let (count, began) = (entries.len(), Instant::now());
    entries.into_iter().for_each(|entry| trail.record(entry));
    println!(
        "recording: {:.2} µs an entry for the one who records",
        began.elapsed().as_secs_f64() * 1e6 / count as f64
    );
    trail.flush().await;
}

async fn timed<T>(what: &str, mut ask: impl AsyncFnMut() -> T) -> T {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..7 {
        let began = Instant::now();
        last = Some(ask().await);
        times.push(began.elapsed());
    }
    let first = times[0];
    times.sort();
    println!("{what:46} median {:>9.2?}  first {first:>9.2?}  worst {:>9.2?}", times[3], times[6]);
    last.unwrap()
}

async fn ask(store: &SqliteStore, trail: &SqliteTrail) {
    let all = || TrailQuery { limit: 50, ..TrailQuery::default() };
    let text = |text: &str| TrailQuery { text: text.to_owned(), ..all() };
    let (third, day) = (address(3), UnixTime(now() - 86_400));
    let deep = {
        let page = trail.messages(&TrailQuery { limit: 1000, ..all() }).await.unwrap();
        page.next
    };
    let queries = [
        ("newest page", all()),
        ("page after the thousandth", TrailQuery { before: deep, ..all() }),
        ("state: delivered", TrailQuery { state: Some(TrailState::Delivered), ..all() }),
        ("state: quarantined", TrailQuery { state: Some(TrailState::Quarantined), ..all() }),
        ("state: spam (none)", TrailQuery { state: Some(TrailState::Spam), ..all() }),
        ("maybe twice (none)", TrailQuery { maybe_twice: true, ..all() }),
        ("removed", TrailQuery { removed: true, ..all() }),
        ("one account", TrailQuery { account: Some(third.clone()), ..all() }),
        ("one user", TrailQuery { user: Some("user3".to_owned()), ..all() }),
        ("since yesterday", TrailQuery { since: Some(day), ..all() }),
        ("text: invoice (common)", text("invoice")),
        ("text: sender12345@ (some 50)", text("sender12345@")),
        ("text: subject of two words and a number", text("invoice 1234")),
        ("text: a message-id", text("<0000000a.0007a120@shop12.test>")),
        ("text: none such, of common letters", text("newsteaminvoicereport")),
        ("text: none such, of rare letters", text("qqqzzz")),
        ("text: two letters, common", text("ma")),
        ("text: two letters, none such", text("q~")),
        ("text in quarantine", TrailQuery { state: Some(TrailState::Quarantined), ..text("invoice") }),
        ("text of one account", TrailQuery { account: Some(third), ..text("invoice") }),
        ("text since yesterday", TrailQuery { since: Some(day), ..text("sender12345@") }),
    ];
    for (what, query) in queries {
        let page: TrailPage = timed(what, async || trail.messages(&query).await.unwrap()).await;
        println!("{:46} {} rows, total {}", "", page.rows.len(), page.total);
    }
    let (from, until) = (UnixTime(now() - 30 * 86_400), UnixTime(now()));
    timed("hours of 30 days", async || trail.hours(Of::All, from, until).await.unwrap()).await;
    let account = address(3);
    timed("hours of 14 days, one account", async || {
        trail.hours(Of::Account(&account), UnixTime(now() - 14 * 86_400), until).await.unwrap()
    })
    .await;
    timed("today by account", async || trail.delivered(TallyBy::Account, day).await.unwrap()).await;
    timed("today by user", async || trail.delivered(TallyBy::User, day).await.unwrap()).await;
    let rows = timed("all accounts with their health", async || store.accounts().await.unwrap()).await;
    timed("parked of all accounts", async || store.troubled(None, false).await.unwrap()).await;
    let account = rows[3].id;
    timed("checks of an account", async || store.runs_before(account, None, 50).await.unwrap()).await;
}
