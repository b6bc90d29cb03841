//! The control socket beside the state: how a command reaches the daemon that holds it. One JSON object a line.
//!
//! Only the user the daemon runs as, and root, are heard: the socket has mode 0600, and the peer's credentials are asked.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connectord_config::Config;
use connectord_config::build::teacher;
use connectord_engine::{Change, Exit, Job, Mode, Observer, Progress, Report, Scheduler, Site};
use connectord_quarantine::DirectoryQuarantine;
use connectord_stores::sqlite::SqliteStore;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tracing::warn;

use crate::accounts::Accounts;
use crate::cli::Fetch;
use crate::error::Error;
use crate::fetch::{chosen, run_all};
use crate::{accounts, parked, quarantine, relays, say, state};

/// Longest request, in octets.
const MAX_REQUEST: u64 = 1024 * 1024;

/// Commands served at once.
const MAX_CLIENTS: usize = 32;

fn socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// Passes progress on to whoever watches.
pub(crate) struct Feed(broadcast::Sender<(String, Value)>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::channel(1024).0)
    }
}

impl Observer for Feed {
    fn progress(&self, account: &str, progress: Progress<'_>) {
        if self.0.receiver_count() == 0 {
            return;
        }
        let event = match progress {
            Progress::Connecting { server } => json!({"connecting": server}),
            Progress::LoggedIn { tls } => json!({"logged_in": tls}),
            Progress::Listed { messages, new, removals, .. } => {
                json!({"listed": messages, "new": new, "removals": removals})
            }
            Progress::Retrieved => json!({"retrieved": 1}),
            Progress::Delivered => json!({"delivered": 1}),
            Progress::Parked => json!({"parked": 1}),
            Progress::Quarantined => json!({"quarantined": 1}),
            Progress::Discarded => json!({"discarded": 1}),
            Progress::Removed(count) => json!({"removed": count}),
            _ => return,
        };
        // Whoever is too slow misses some.
        let _ = self.0.send((account.to_owned(), event));
    }
}

/// What the daemon answers from.
pub(crate) struct Control {
    pub(crate) site: Arc<Site>,
    /// The site's store, as what it is.
    pub(crate) state: Arc<SqliteStore>,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) jobs: watch::Receiver<Vec<Job>>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) config: Config,
    /// What accounts can be changed by; `None` in a demonstration.
    pub(crate) accounts: Option<Arc<Accounts>>,
    /// Where messages are kept back; `None` where there is no such place.
    pub(crate) quarantine: Option<DirectoryQuarantine>,
}

impl Control {
    /// Binds the socket and returns what serves it until the daemon stops.
    pub(crate) fn listen(self, state: &Path) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
        let path = socket(state);
        // The state is locked by us, so a socket that is there belongs to nobody any more.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("cannot replace {}", path.display()))(error));
            }
            _ => {}
        }
        // The process' umask makes it 0600.
        let listener = UnixListener::bind(&path).map_err(Error::io(format!("cannot listen on {}", path.display())))?;
        Ok(Arc::new(self).serve(listener, path))
    }

    async fn serve(self: Arc<Self>, listener: UnixListener, path: PathBuf) {
        let mut stop = self.stop.clone();
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept(), if clients.len() < MAX_CLIENTS => accepted,
                Some(_) = clients.join_next() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let control = Arc::clone(&self);
                    clients.spawn(async move { control.client(stream).await });
                }
                Err(error) => {
                    warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        // A running check hears of the stop itself.
        let last = async { while clients.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(10), last).await.is_err() {
            warn!("a command on the control socket did not end in time");
        }
        // A socket that stays is replaced at the next start.
        let _ = std::fs::remove_file(path);
    }

    async fn client(&self, stream: UnixStream) {
        let uid = stream.peer_cred().map(|peer| peer.uid());
        let ours = rustix::process::geteuid().as_raw();
        if !matches!(uid, Ok(uid) if uid == 0 || uid == ours) {
            warn!(uid = uid.ok(), "a stranger was turned away from the control socket");
            return;
        }
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut read = BufReader::new(read.take(MAX_REQUEST));
        let request = tokio::time::timeout(Duration::from_secs(10), read.read_line(&mut line)).await;
        if !matches!(request, Ok(Ok(1..))) {
            return;
        }
        let answer = match serde_json::from_str::<Value>(&line) {
            Ok(request) => self.answer(&request, &who(uid.unwrap_or_default()), &mut write).await,
            Err(error) => Err(format!("the request is no JSON: {error}")),
        };
        let last = match answer {
            Ok(exit) => json!({"exit": exit.code()}),
            Err(error) => json!({"error": error, "exit": Exit::Usage.code()}),
        };
        // Whoever asked may have gone away.
        let _ = say(&mut write, &last).await;
    }

    /// The configuration as it was read last.
    fn config_in_force(&self) -> Config {
        self.accounts.as_ref().map_or_else(|| self.config.clone(), |accounts| accounts.known.borrow().config.clone())
    }

    async fn answer(&self, request: &Value, who: &str, write: &mut OwnedWriteHalf) -> Result<Exit, String> {
        match request["do"].as_str().unwrap_or_default() {
            "fetch" => self.fetch(request, write).await,
            "parked" => {
                let answer =
                    parked::answer(&*self.site.store, &*self.site.trail, self.site.clock.now(), request).await?;
                // What somebody waits for happens soon.
                for account in &answer.check {
                    self.scheduler.check_now(account);
                }
                for row in &answer.rows {
                    say(write, row).await.map_err(|error| error.to_string())?;
                }
                Ok(answer.exit)
            }
            "quarantine" => {
                let jobs = self.jobs.borrow().clone();
                let desk = quarantine::Desk {
                    quarantine: self.quarantine.as_ref(),
                    jobs: &jobs,
                    teacher: teacher(&self.config_in_force()),
                    now: self.site.clock.now(),
                    machine: self.site.hostname.clone(),
                    trail: &*self.site.trail,
                };
                let answer = desk.answer(request).await?;
                for row in &answer.rows {
                    say(write, row).await.map_err(|error| error.to_string())?;
                }
                Ok(answer.exit)
            }
            "relays" => {
                let jobs = self.jobs.borrow().clone();
                let answer = relays::answer(&self.site.connector, &jobs, request).await?;
                say(write, &answer.row).await.map_err(|error| error.to_string())?;
                Ok(answer.exit)
            }
            "backup" => {
                let to = request["to"].as_str().ok_or("where to?")?;
                match state::backup(&self.state, Path::new(to)).await {
                    Ok(()) => Ok(Exit::Ok),
                    Err(error) => {
                        say(write, &json!({"failed": error.to_string()})).await.map_err(|error| error.to_string())?;
                        Ok(Exit::Io)
                    }
                }
            }
            "account" => {
                let accounts = self.accounts.as_ref().ok_or("accounts cannot be changed here")?;
                let (lines, exit) = accounts::answer(accounts, who, request).await;
                for line in &lines {
                    say(write, line).await.map_err(|error| error.to_string())?;
                }
                Ok(exit)
            }
            other => Err(format!("unknown request {other:?}")),
        }
    }

    async fn fetch(&self, request: &Value, write: &mut OwnedWriteHalf) -> Result<Exit, String> {
        let named: Vec<String> =
            request["accounts"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let jobs = chosen(&self.jobs.borrow(), &named)?;
        let wanted: HashSet<String> = jobs.iter().map(|job| job.address().to_owned()).collect();
        let mode = Mode { by_hand: true, dry_run: request["dry_run"].as_bool().unwrap_or(false) };
        let mut feed = self.feed.0.subscribe();
        let (ended, mut end) = mpsc::channel(1);
        let running = async {
            let reports = run_all(Arc::clone(&self.site), jobs, &self.config_in_force(), mode).await;
            // The receiver lives as long as this function.
            let _ = ended.send(reports).await;
        };
        tokio::pin!(running);
        let mut done = false;
        loop {
            tokio::select! {
                () = &mut running, if !done => done = true,
                Ok((account, event)) = feed.recv() => {
                    if wanted.contains(&account) {
                        let line = json!({"account": account, "progress": event});
                        say(write, &line).await.map_err(|error| error.to_string())?;
                    }
                }
                Some(reports) = end.recv() => {
                    let mut exit = Exit::Ok;
                    for (address, report) in reports {
                        let line = json!({"report": report_json(&address, &report)});
                        say(write, &line).await.map_err(|error| error.to_string())?;
                        exit = exit.worst(report.exit());
                    }
                    return Ok(exit);
                }
            }
        }
    }
}

/// Who asks, by the name that this machine has for them.
fn who(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

async fn say(write: &mut OwnedWriteHalf, line: &Value) -> std::io::Result<()> {
    let mut text = line.to_string();
    text.push('\n');
    let write = write.write_all(text.as_bytes());
    tokio::time::timeout(Duration::from_secs(30), write).await.map_err(std::io::Error::from)?
}

/// A report as JSON.
pub(crate) fn report_json(address: &str, report: &Report) -> Value {
    json!({
        "account": address,
        "listed": report.listed, "new": report.new, "due": report.due,
        "retrieved": report.retrieved, "octets": report.octets,
        "delivered": report.delivered, "deferred": report.deferred, "parked": report.parked,
        "removed": report.removed, "repeated": report.repeated, "quarantined": report.quarantined,
        "discarded": report.discarded, "unchecked": report.unchecked, "spam": report.spam,
        "changes": report.changes.iter().map(change_json).collect::<Vec<_>>(),
        "duration_ms": u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
        "error": report.error.as_ref().map(|error| connectord_engine::chain(error)),
        "cause": report.error.as_ref().map(|error| error.trouble().cause.code()),
        "hint": report.error.as_ref().and_then(connectord_engine::RunError::hint),
        "exit": report.exit().code(),
    })
}

fn change_json(change: &Change) -> Value {
    json!({
        "kind": change.kind.code(), "mailbox": change.mailbox, "known": change.known, "missing": change.missing,
        "recognised": change.recognised, "new": change.new, "text": change.to_string(),
    })
}

/// The request to check accounts.
pub(crate) fn fetch_request(accounts: &[String], dry_run: bool) -> Value {
    json!({"do": "fetch", "accounts": accounts, "dry_run": dry_run})
}

/// Asks the daemon that holds the state to check accounts, and shows what it says.
pub(crate) async fn fetch(state: &Path, accounts: &[String], options: &Fetch) -> Result<Exit, Error> {
    let request = fetch_request(accounts, options.dry_run);
    ask(state, &request, |line| {
        if let Some(report) = line.get("report") {
            if options.json {
                say::out(report);
            } else if !options.quiet {
                say::out(sentence(report));
            }
        }
    })
    .await
}

fn sentence(report: &Value) -> String {
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    let account = report["account"].as_str().unwrap_or_default();
    match report["error"].as_str() {
        Some(error) => format!("! {account}: {error}"),
        None => format!(
            "ok {account}: {} listed, {} new, {} delivered, {} removed",
            number("listed"),
            number("new"),
            number("delivered"),
            number("removed")
        ),
    }
}

/// Sends one request, shows each line of the answer to `see`, and returns what the daemon says to exit with.
pub(crate) async fn ask(state: &Path, request: &Value, mut see: impl FnMut(&Value)) -> Result<Exit, Error> {
    let path = socket(state);
    let mut stream = UnixStream::connect(&path).await.map_err(|error| no_answer(state, &path, error))?;
    let broke = || Error::io("the connection to the daemon broke");
    stream.write_all(format!("{request}\n").as_bytes()).await.map_err(broke())?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.map_err(broke())? {
        let line: Value = serde_json::from_str(&line)
            .map_err(|error| Error::Unavailable(format!("the daemon's answer is no JSON: {error}")))?;
        if let Some(error) = line["error"].as_str() {
            return Err(Error::Usage(error.to_owned()));
        }
        if let Some(code) = line["exit"].as_u64() {
            return Ok(exit_of(code));
        }
        see(&line);
    }
    Err(Error::Unavailable("the daemon ended without an answer".into()))
}

fn no_answer(state: &Path, socket: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let state = state.display();
    match error.kind() {
        // What holds the state is no daemon, or one that has just started or is about to end.
        NotFound | ConnectionRefused => {
            Error::Unavailable(format!("the state in {state} is in use by another command; try again later"))
        }
        _ => Error::io(format!("the state in {state} is in use, and {} cannot be reached", socket.display()))(error),
    }
}

fn exit_of(code: u64) -> Exit {
    let all = [
        Exit::Ok,
        Exit::Usage,
        Exit::Data,
        Exit::Unavailable,
        Exit::Io,
        Exit::TempFail,
        Exit::NoPermission,
        Exit::Config,
    ];
    all.into_iter().find(|exit| u64::from(exit.code()) == code).unwrap_or(Exit::Io)
}
