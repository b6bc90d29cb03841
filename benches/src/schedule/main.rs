//! Very many scheduled accounts, in virtual time: what the scheduler costs for each account and check, in memory and in
//! CPU, and how evenly its work is spread. A series of numbers of accounts shows how the cost grows.
//!
//!     cargo run --release -p connectord-benches --example schedule [-- --smoke]
//!
//! Checks are whole and real, by POP3 over pipes within the process, to servers that take their time and have no mail.

mod store;

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connectord_account::{Account, Check, Protocol};
use connectord_delivery::{BatchLimits, Delivery, Parcel, Prepared, Presence, RecallRow, Recalled, Recipient};
use connectord_engine::{
    Ambiguous, Board, Clock, Filters, Job, Limits, Logins, Mode, Observer, Progress, Scheduler, Site, Spool, Users,
};
use connectord_filter::Policy;
use connectord_mail::{Relays, UnixTime};
use connectord_net::{Connector, Route};
use connectord_sasl::{Credential, StaticCredentials};
use connectord_wire::{Endpoint, Security};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a server takes for each answer.
const ANSWER: Duration = Duration::from_millis(20);

const INTERVAL: Duration = Duration::from_secs(300);

/// Accounts at one host.
const AT_ONE_HOST: usize = 10;

/// A server that refuses all passwords has this port, and all accounts.
const REFUSING: u16 = 1;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["one", accounts, refusing] => {
            let accounts = accounts.parse().expect("a number of accounts");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
            runtime.expect("a runtime starts").block_on(one(accounts, refusing == "refusing"));
            return;
        }
        ["--smoke"] => return series(&[10, 100]),
        _ => {}
    }
    series(&[1000, 10_000, 100_000]);
}

/// Each in a process of its own, so that memory is its own.
fn series(numbers: &[usize]) {
    println!(
        "{:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "accounts",
        "KiB each",
        "of these",
        "first us",
        "later us",
        "check us",
        "reload us",
        "busiest s",
        "mean",
        "late s"
    );
    for refusing in ["well", "refusing"] {
        for accounts in numbers {
            let program = std::env::current_exe().expect("a program knows where it is");
            let ended = Command::new(program).args(["one", &accounts.to_string(), refusing]).status();
            assert!(ended.is_ok_and(|ended| ended.success()), "{accounts} accounts");
        }
    }
    println!(
        "KiB each: of which the list of jobs; first, later: CPU of one check in the first round and in the later ones;"
    );
    println!(
        "check: one without the scheduler; reload: CPU for each account when one of all changes; busiest s: checks in"
    );
    println!(
        "the busiest second of the last round, beside the mean; late: the longest wait for a place, in virtual time;"
    );
    println!("the second series: one host that has all accounts and refuses them all");
}

/// When checks ended, in seconds since the start.
struct Seconds {
    start: Instant,
    ended: AtomicU64,
    in_second: Mutex<Vec<u32>>,
    /// By the number of the account: when it was checked last, and the longest time between two of its checks.
    gaps: Mutex<Vec<(Duration, Duration)>>,
}

impl Observer for Seconds {
    fn progress(&self, account: &str, progress: Progress<'_>) {
        if let Progress::Finished(_) = progress {
            let number = account.trim_start_matches("user").split('@').next().and_then(|number| number.parse().ok());
            let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((last, longest)) = number.and_then(|number: usize| gaps.get_mut(number)) {
                let now = self.start.elapsed();
                *longest = if last.is_zero() { Duration::ZERO } else { (*longest).max(now - *last) };
                *last = now;
            }
            drop(gaps);
            self.ended.fetch_add(1, Ordering::SeqCst);
            let second = self.start.elapsed().as_secs() as usize;
            let mut in_second = self.in_second.lock().unwrap_or_else(PoisonError::into_inner);
            if in_second.len() <= second {
                in_second.resize(second + 1, 0);
            }
            in_second[second] += 1;
        }
    }
}

async fn one(accounts: usize, refusing: bool) {
    let seconds = Arc::new(Seconds {
        start: Instant::now(),
        ended: AtomicU64::new(0),
        in_second: Mutex::default(),
        gaps: Mutex::new(vec![Default::default(); accounts]),
    });
    let directory = tempfile::tempdir().expect("a directory");
    let site = site(&seconds, directory.path());
    let alone = check_alone(&site, refusing).await;

    let empty = memory();
    let jobs: Vec<Job> = (0..accounts).map(|number| job(number, refusing)).collect();
    let listed = memory();
    // Capacity is not what is measured here: twice what is needed for a round in one interval.
    let needed = (accounts as f64 / INTERVAL.as_secs_f64() * 8.0 * ANSWER.as_secs_f64() * 2.0).ceil() as usize;
    let per_host = if refusing { 10_000 } else { 4 };
    let limits = Limits { concurrency: needed.max(20), per_host, ..Limits::default() };
    let (sender, watched) = watch::channel(jobs.clone());
    let (switch, stop) = watch::channel(false);
    let scheduler = Arc::new(Scheduler::new(Arc::clone(&site), limits));
    let (before, count) = (cpu(), seconds.ended.load(Ordering::SeqCst));
    let running = tokio::spawn({
        let scheduler = Arc::clone(&scheduler);
        async move { scheduler.run(watched, stop).await }
    });
    let ended = |since: u64| seconds.ended.load(Ordering::SeqCst) - since;
    while ended(count) < accounts as u64 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let first = (cpu() - before).as_secs_f64() * 1e6 / accounts as f64;
    // All of them sleep at some time, and few are checked.
    let resting = memory();
    let (before, count) = (cpu(), seconds.ended.load(Ordering::SeqCst));
    // From the second round on: before it accounts wait longer, so that they are spread.
    if !refusing {
        tokio::time::sleep(INTERVAL * 3).await;
        let mut gaps = seconds.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter_mut().for_each(|gap| *gap = Default::default());
    }
    tokio::time::sleep(if refusing { Duration::from_secs(86_400) } else { INTERVAL * 4 }).await;
    let checks = ended(count);
    let later = (cpu() - before).as_secs_f64() * 1e6 / checks.max(1) as f64;
    let last = {
        let in_second = seconds.in_second.lock().unwrap_or_else(PoisonError::into_inner);
        in_second[in_second.len().saturating_sub(INTERVAL.as_secs() as usize)..].to_vec()
    };
    let busiest = last.iter().max().copied().unwrap_or_default();
    let mean = last.iter().sum::<u32>() as f64 / last.len().max(1) as f64;
    // Whoever waits for no place is checked after the interval, its jitter and what a check takes.
    let longest = {
        let gaps = seconds.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter().map(|(_, longest)| *longest).max().unwrap_or_default()
    };
    let late = if refusing {
        0.0
    } else {
        (longest.as_secs_f64() - (INTERVAL.mul_f64(1.1) + ANSWER * 8).as_secs_f64()).max(0.0)
    };

    let mut changed = jobs;
    let mut other = (*changed[0].account).clone();
    other.mark_seen = !other.mark_seen;
    changed[0].account = Arc::new(other);
    let before = cpu();
    sender.send_replace(changed);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let reload = (cpu() - before).as_secs_f64() * 1e6 / accounts as f64;
    let each = |kib: u64| kib as f64 / accounts as f64;
    println!(
        "{accounts:>8} {:>9.2} {:>9.2} {first:>9.0} {later:>9.0} {alone:>9.0} {reload:>9.2} {busiest:>9} {mean:>8.1} {late:>8.2}",
        each(resting.saturating_sub(empty)),
        each(listed.saturating_sub(empty))
    );
    switch.send_replace(true);
    running.await.expect("the scheduler ends in order");
}

/// CPU of one check without the scheduler, in microseconds.
async fn check_alone(site: &Site, refusing: bool) -> f64 {
    let (_switch, stop) = watch::channel(false);
    let job = job(usize::MAX, refusing);
    let count = 5000;
    let before = cpu();
    for _ in 0..count {
        Box::pin(connectord_engine::run(site, &job, Mode { by_hand: true, dry_run: false }, stop.clone())).await;
    }
    (cpu() - before).as_secs_f64() * 1e6 / f64::from(count)
}

fn site(seconds: &Arc<Seconds>, directory: &std::path::Path) -> Arc<Site> {
    let start = Instant::now();
    Arc::new(Site {
        store: Arc::new(store::Accounts::default()),
        connector: Connector::with_dialer(|endpoint| Ok(server(endpoint.port() == REFUSING))),
        spool: Spool::new(directory.to_owned(), 1 << 20),
        hostname: "mx.example.org".into(),
        clock: Clock::from_fn(move || UnixTime(1_800_000_000 + start.elapsed().as_secs() as i64)),
        logins: Logins::default(),
        users: Arc::new(Everybody),
        observer: Arc::clone(seconds) as Arc<dyn Observer>,
        filters: Filters::none(),
        board: Board::default(),
        trail: Arc::new(connectord_store::NoTrail),
    })
}

fn job(number: usize, refusing: bool) -> Job {
    let host = if refusing { "pop.example.net".to_owned() } else { format!("pop{}.example.net", number / AT_ONE_HOST) };
    let port = if refusing { REFUSING } else { 110 };
    let endpoint: Endpoint = format!("{host}:{port}").parse().expect("an endpoint");
    let name = format!("user{number}@example.org");
    let mut account = Account::new(&name, Protocol::Pop3, endpoint.clone(), &name);
    account.security = Security::None;
    account.check = Check::Every(INTERVAL);
    Job {
        account: Arc::new(account),
        credentials: Arc::new(StaticCredentials::new(Credential::password(&name, "secret"))),
        route: Route::new(endpoint, Security::None),
        destination: "default".into(),
        delivery: nowhere(),
        recipients: vec![Recipient { user: name.clone(), address: name }],
        ambiguous: Ambiguous::Redeliver,
        policy: Policy::default(),
        relays: Relays::default(),
    }
}

/// One destination for all: a reload compares which it is.
fn nowhere() -> Arc<dyn Delivery> {
    static NOWHERE: std::sync::OnceLock<Arc<dyn Delivery>> = std::sync::OnceLock::new();
    Arc::clone(NOWHERE.get_or_init(|| Arc::new(Nowhere)))
}

/// The near end of a connection to a POP3 server without mail.
fn server(refuses: bool) -> DuplexStream {
    let (near, far) = tokio::io::duplex(512);
    tokio::spawn(serve(far, refuses));
    near
}

async fn serve(stream: DuplexStream, refuses: bool) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::with_capacity(256, read).lines();
    tokio::time::sleep(ANSWER).await;
    write.write_all(b"+OK ready\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        tokio::time::sleep(ANSWER).await;
        let answer = match line.get(..4) {
            Some("CAPA") => "+OK\r\nUSER\r\nUIDL\r\nPIPELINING\r\n.\r\n",
            Some("PASS") if refuses => "-ERR [AUTH] no\r\n",
            Some("STAT") => "+OK 0 0\r\n",
            Some("UIDL" | "LIST") => "+OK\r\n.\r\n",
            _ => "+OK\r\n",
        };
        write.write_all(answer.as_bytes()).await?;
        if line.starts_with("QUIT") {
            break;
        }
    }
    Ok(())
}

struct Everybody;

#[async_trait]
impl Users for Everybody {
    async fn presence(&self, _: &str) -> Result<Option<Presence>, connectord_delivery::Failure> {
        Ok(Some(Presence::Here))
    }
}

/// A destination that nothing comes to.
struct Nowhere;

#[async_trait]
impl Delivery for Nowhere {
    fn describe(&self) -> String {
        "nowhere".into()
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits::default()
    }

    async fn presence(&self, _: &Recipient) -> Result<Presence, connectord_delivery::Failure> {
        Ok(Presence::Here)
    }

    async fn prepare(&self, _: Vec<Parcel>) -> Box<dyn Prepared> {
        unreachable!("the servers have no mail")
    }

    async fn recall(&self, _: Vec<RecallRow>) -> Vec<Recalled> {
        Vec::new()
    }
}

/// What this process has resident, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process knows itself");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("it is a number")
}

/// User and system time so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a process knows itself");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse().ok()).unwrap_or(0u64);
    // In hundredths of a second on every Linux: USER_HZ.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
