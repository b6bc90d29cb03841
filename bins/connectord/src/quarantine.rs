//! `connectord quarantine`: messages that filters kept back.

mod show;

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connectord_config::Config;
use connectord_config::build::{
    BuildError, Builder, host_name, key_ring, open_state, quarantine_directory, state_directory, teacher,
};
use connectord_delivery::{Delivery, FailureKind};
use connectord_engine::{Clock, Exit, Job};
use connectord_filter::{QuarantineError, Teacher};
use connectord_mail::{Body, DeliveryId, UnixTime};
use connectord_net::Connector;
use connectord_quarantine::{
    DirectoryQuarantine, Entry, Query, Release, ReleaseError, Released, Report, Reporter, Sort, read_message,
};
use connectord_store::{NoTrail, Recorder, StoreError, TrailEntry, TrailName, TrailStep, What};
use connectord_stores::sqlite::SqliteStore;
use connectord_wire::Escaped;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::accounts::{Known, merge};
use crate::cli::{Kind, Quarantine, Which};
use crate::error::Error;
use crate::logging::{Colour, Target};
use crate::{control, process, say, setup};

/// Most messages that one command is about.
const MAX_IDS: usize = 1000;

/// How often it is looked what is due.
const TIDY: Duration = Duration::from_secs(3600);

pub(crate) async fn quarantine(path: Option<PathBuf>, options: Quarantine) -> Result<Exit, Error> {
    let config = setup::read_config(path)?;
    process::become_user(&config.process)?;
    let state = state_directory(&config)?;
    if let Quarantine::Show { which, raw, output } = &options
        && (*raw || output.is_some())
    {
        return give_out(&config, &state, which, output.as_deref());
    }
    let (request, as_json) = match &options {
        Quarantine::List(list) => {
            let kind = list.kind.map(|kind| match kind {
                Kind::Virus => "virus",
                Kind::Spam => "spam",
                Kind::Other => "other",
            });
            let request = json!({
                "verb": "list", "account": list.account, "user": list.user, "text": list.text, "kind": kind,
                "limit": list.limit, "offset": list.offset,
            });
            (request, list.json)
        }
        Quarantine::Show { which, .. } => (json!({"verb": "show", "ids": which.ids}), which.json),
        Quarantine::Release { which, marked, infected, teach } => {
            let request =
                json!({"verb": "release", "ids": which.ids, "marked": marked, "infected": infected, "teach": teach});
            (request, which.json)
        }
        Quarantine::Discard { which, yes } => {
            if !yes {
                ask_whether(&which.ids)?;
            }
            (json!({"verb": "discard", "ids": which.ids}), which.json)
        }
        Quarantine::Report { user, dry_run, json: as_json } => {
            (json!({"verb": "report", "user": user, "dry_run": dry_run}), *as_json)
        }
    };
    let mut request = request;
    request["do"] = "quarantine".into();
    let show = |row: &Value| say::out_as_is(&if as_json { show::json_line(row) } else { show::text(row) });
    match open_state(&state) {
        Ok(store) => {
            // What a person decides is told in the log; on a terminal the answer says the same.
            let settings = setup::log_settings(&config, Colour::Auto);
            let _log = match settings.target {
                Target::Stderr => None,
                _ => Some(setup::start_log(&settings)?),
            };
            let answered = here(&config, &store, &request).await;
            store.close().await;
            let answer = answered?;
            answer.rows.iter().for_each(show);
            Ok(answer.exit)
        }
        Err(BuildError::State(StoreError::Locked { .. })) => control::ask(&state, &request, show).await,
        Err(error) => Err(error.into()),
    }
}

/// Does it without a daemon.
async fn here(config: &Config, store: &SqliteStore, request: &Value) -> Result<Answer, Error> {
    let quarantine = setup::open_quarantine(config, store.path())?;
    let delivers = matches!(request["verb"].as_str(), Some("release" | "report"));
    let jobs = match delivers {
        true => {
            let keys = Arc::new(key_ring(config, store.path(), false));
            let mut builder = Builder::new(Connector::new(), store.instance()).with_keys(keys);
            merge(config, store, &mut builder).await?.jobs
        }
        false => Vec::new(),
    };
    let desk = Desk {
        quarantine: quarantine.as_ref(),
        jobs: &jobs,
        teacher: teacher(config),
        now: Clock::system().now(),
        machine: host_name(),
        // The daemon does not run, and nobody waits for what is queued.
        trail: &NoTrail,
    };
    desk.answer(request).await.map_err(Error::Usage)
}

/// The destination of this name, as some account delivers to it.
pub(crate) fn destination(jobs: &[Job], name: &str) -> Option<Arc<dyn Delivery>> {
    jobs.iter().find(|job| job.destination == name).map(|job| Arc::clone(&job.delivery))
}

/// Removes what is due and tells users, until the daemon stops.
pub(crate) async fn watch_over(
    quarantine: Option<DirectoryQuarantine>,
    mut known: watch::Receiver<Arc<Known>>,
    clock: Clock,
    mut stop: watch::Receiver<bool>,
) {
    let Some(quarantine) = quarantine else { return };
    let work = async {
        loop {
            let now = clock.now();
            if let Err(error) = quarantine.tidy(now).await {
                warn!(%error, "what is due in the quarantine cannot be removed");
            }
            let in_force = Arc::clone(&known.borrow_and_update());
            if in_force.config.quarantine.report && quarantine.report_is_due(now) {
                let reporter = Reporter { machine: host_name(), now, user: None, dry_run: false };
                match quarantine.report(&reporter, |name| destination(&in_force.jobs, name)).await {
                    Ok(reports) => reports.iter().for_each(log_report),
                    Err(error) => warn!(%error, "users cannot be told what is held for them"),
                }
            }
            // Another configuration may want something else.
            tokio::select! {
                () = tokio::time::sleep(TIDY) => {}
                Ok(()) = known.changed() => {}
            }
        }
    };
    // What is cut short here is known the next time.
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// What is said to a request.
pub(crate) struct Answer {
    /// A line each.
    pub(crate) rows: Vec<Value>,
    pub(crate) exit: Exit,
}

/// What requests are answered from.
pub(crate) struct Desk<'a> {
    pub(crate) quarantine: Option<&'a DirectoryQuarantine>,
    pub(crate) jobs: &'a [Job],
    pub(crate) teacher: Option<Arc<dyn Teacher>>,
    pub(crate) now: UnixTime,
    pub(crate) machine: String,
    /// Who takes down what becomes of messages.
    pub(crate) trail: &'a dyn Recorder,
}

impl Desk<'_> {
    /// Does what a request says.
    pub(crate) async fn answer(&self, request: &Value) -> Result<Answer, String> {
        match request["verb"].as_str().unwrap_or_default() {
            "list" => Ok(self.list(request)),
            "report" => self.report(request).await,
            verb @ ("show" | "release" | "discard") => self.each(verb, request).await,
            verb => Err(format!("unknown verb {verb:?}")),
        }
    }

    fn list(&self, request: &Value) -> Answer {
        let text = |name: &str| request[name].as_str().map(str::to_owned);
        let number = |name: &str| request[name].as_u64().and_then(|number| usize::try_from(number).ok());
        let query = Query {
            account: text("account"),
            user: text("user"),
            text: text("text"),
            sort: match request["kind"].as_str() {
                Some("virus") => Some(Sort::Virus),
                Some("spam") => Some(Sort::Spam),
                Some("other") => Some(Sort::Other),
                _ => None,
            },
            offset: number("offset").unwrap_or(0),
            limit: number("limit"),
        };
        let page = self.quarantine.map(|quarantine| quarantine.list(&query)).unwrap_or_default();
        let problems = self.quarantine.map(DirectoryQuarantine::problems).unwrap_or_default();
        let mut rows: Vec<_> = page.entries.iter().map(row).collect();
        rows.extend(problems.iter().map(|problem| json!({"file": problem.name, "problem": problem.why.to_string()})));
        rows.push(json!({"total": page.total, "shown": page.entries.len(), "offset": query.offset}));
        Answer { rows, exit: Exit::Ok }
    }

    async fn report(&self, request: &Value) -> Result<Answer, String> {
        let Some(quarantine) = self.quarantine else { return Ok(Answer { rows: Vec::new(), exit: Exit::Ok }) };
        let reporter = Reporter {
            machine: self.machine.clone(),
            now: self.now,
            user: request["user"].as_str().map(str::to_owned),
            dry_run: request["dry_run"].as_bool().unwrap_or(false),
        };
        let reports = quarantine.report(&reporter, |name| destination(self.jobs, name)).await;
        let reports = reports.map_err(|error| error.to_string())?;
        reports.iter().for_each(log_report);
        let failed = reports.iter().any(|report| matches!(report.outcome, Some(Err(_))));
        let exit = if failed { Exit::TempFail } else { Exit::Ok };
        Ok(Answer { rows: reports.iter().map(report_row).collect(), exit })
    }

    async fn each(&self, verb: &str, request: &Value) -> Result<Answer, String> {
        let ids: Vec<_> = request["ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if ids.len() > MAX_IDS {
            return Err(format!("{} messages at once exceed the limit of {MAX_IDS}", ids.len()));
        }
        let mut answer = Answer { rows: Vec::new(), exit: Exit::Ok };
        let mut seen = Vec::new();
        for name in ids {
            let (row, exit) = match self.find(name) {
                Ok(id) if seen.contains(&id) => continue,
                Ok(id) => {
                    seen.push(id);
                    match verb {
                        "show" => self.show(id).await,
                        "release" => self.release(id, request).await?,
                        _ => self.discard(id).await,
                    }
                }
                Err(error) => (json!({"id": name, "refused": error}), Exit::Usage),
            };
            let mut row = row;
            row["verb"] = verb.into();
            answer.rows.push(row);
            answer.exit = answer.exit.worst(exit);
        }
        Ok(answer)
    }

    /// The message that a name, or the beginning of one, means.
    fn find(&self, name: &str) -> Result<DeliveryId, String> {
        let unknown = || "there is no such message in the quarantine; see `connectord quarantine list`".to_owned();
        let quarantine = self.quarantine.ok_or_else(unknown)?;
        match quarantine.starting_with(name)[..] {
            [] => Err(unknown()),
            [id] if name.len() >= 4 => Ok(id),
            [_] => Err("too few letters to name a message; write at least 4".to_owned()),
            _ => Err("several messages begin with these letters; write more of them".to_owned()),
        }
    }

    /// The quarantine, for a message that was found in it.
    fn place(&self) -> &DirectoryQuarantine {
        self.quarantine.expect("a message was found in it")
    }

    async fn show(&self, id: DeliveryId) -> (Value, Exit) {
        match self.place().details(id).await {
            Ok(details) => (show::details(row(&details.entry), &details), Exit::Ok),
            Err(error) => refused(id, &error),
        }
    }

    async fn release(&self, id: DeliveryId, request: &Value) -> Result<(Value, Exit), String> {
        let flag = |name: &str| request[name].as_bool().unwrap_or(false);
        let Some(entry) = self.place().entry(id) else { return Ok(refused(id, &ReleaseError::NotHeld)) };
        let Some(delivery) = destination(self.jobs, &entry.destination) else {
            let shown = Escaped::text(&entry.destination);
            let error = format!(
                "no account delivers to its destination {shown} any more; it can be had by `connectord quarantine show --output`"
            );
            return Ok((json!({"id": id.to_string(), "refused": error}), Exit::Config));
        };
        let teacher = match (flag("teach"), &self.teacher) {
            (false, _) => None,
            (true, Some(teacher)) => Some(Arc::clone(teacher)),
            (true, None) => return Err("no filter is configured that learns; leave out --teach".to_owned()),
        };
        let release = Release { now: self.now, marked: flag("marked"), infected: flag("infected"), teacher };
        Ok(match self.place().release(id, &*delivery, &release).await {
            Ok(released) => {
                log_release(&entry, &released, &delivery.describe());
                let reached = released.copies.iter().filter_map(|copy| Some((&copy.user, copy.outcome.as_ref().ok()?)));
                self.take_down(id, reached.map(|(user, said)| (What::Released, user.as_str(), said.as_str())));
                (released_row(id, &released), exit_of(&released))
            }
            Err(error) => refused(id, &error),
        })
    }

    /// What happened to a message, to whom, and words about it, for the trail.
    fn take_down<'t>(&self, id: DeliveryId, steps: impl IntoIterator<Item = (What, &'t str, &'t str)>) {
        let step = |(what, who, said): (What, &str, &str)| {
            TrailStep::new(self.now, what, who, Escaped::text(said).to_string())
        };
        let steps: Vec<TrailStep> = steps.into_iter().map(step).collect();
        if !steps.is_empty() {
            self.trail.record(TrailEntry { name: TrailName::Delivery(id), at: self.now, about: None, steps });
        }
    }

    async fn discard(&self, id: DeliveryId) -> (Value, Exit) {
        let entry = self.place().entry(id);
        match self.place().discard(id, self.now).await {
            Ok(true) => {
                self.take_down(id, [(What::Discarded, "", "a person decided")]);
                if let Some(entry) = entry {
                    info!(
                        target: "connectord::mail",
                        account = entry.account, spool_id = %id, size = entry.size_octets, status = "discarded",
                        detail = %Escaped::text(&entry.reason), "a person decided about a message"
                    );
                }
                (json!({"id": id.to_string(), "done": true}), Exit::Ok)
            }
            Ok(false) => refused(id, &ReleaseError::NotHeld),
            Err(error) => refused(id, &error.into()),
        }
    }
}

fn row(entry: &Entry) -> Value {
    let kind = match entry.sort() {
        Sort::Virus => "virus",
        Sort::Spam => "spam",
        Sort::Other => "other",
    };
    json!({
        "id": entry.id.to_string(), "kind": kind, "account": entry.account, "destination": entry.destination,
        "users": entry.recipients.iter().map(|(user, _)| user).collect::<Vec<_>>(), "from": entry.from,
        "subject": entry.subject, "reason": entry.reason, "size": entry.size_octets, "held": entry.held_at.to_string(),
        "releasing": entry.releasing,
    })
}

fn refused(id: DeliveryId, error: &ReleaseError) -> (Value, Exit) {
    let exit = match error {
        ReleaseError::NotHeld | ReleaseError::Infected { .. } => Exit::Usage,
        ReleaseError::Damaged(_) | ReleaseError::NoRecipient => Exit::Data,
        ReleaseError::Quarantine(QuarantineError::Full(_) | QuarantineError::Failed(_)) => Exit::Io,
        _ => Exit::TempFail,
    };
    let hint = match error {
        ReleaseError::Infected { .. } => "; say --infected if it is to be delivered all the same",
        _ => "",
    };
    (json!({"id": id.to_string(), "refused": format!("{error}{hint}")}), exit)
}

fn released_row(id: DeliveryId, released: &Released) -> Value {
    let copies = released.copies.iter().map(|copy| {
        json!({
            "user": copy.user, "delivered": copy.outcome.is_ok(),
            "detail": copy.outcome.as_ref().map_or_else(ToString::to_string, Clone::clone),
            "uncertain_attempts": copy.uncertain,
        })
    });
    let taught = released.taught.as_ref().map(|taught| match taught {
        Ok(()) => json!(true),
        Err(error) => json!(error.to_string()),
    });
    json!({"id": id.to_string(), "done": released.done, "copies": copies.collect::<Vec<_>>(), "taught": taught})
}

fn exit_of(released: &Released) -> Exit {
    let failures = released.copies.iter().filter_map(|copy| copy.outcome.as_ref().err());
    failures.fold(Exit::Ok, |exit, failure| {
        exit.worst(match failure.kind {
            FailureKind::Permanent | FailureKind::NoUser => Exit::Data,
            FailureKind::Misconfigured => Exit::Config,
            _ => Exit::TempFail,
        })
    })
}

fn log_release(entry: &Entry, released: &Released, relay: &str) {
    for copy in &released.copies {
        let (status, detail) = match &copy.outcome {
            Ok(detail) => ("released", detail.clone()),
            Err(failure) => ("deferred", failure.text.clone()),
        };
        info!(
            target: "connectord::mail",
            account = entry.account, spool_id = %entry.id, size = entry.size_octets, to = %Escaped::text(&copy.user), relay,
            status, detail = %Escaped::text(&detail), "a person decided about a message"
        );
    }
}

fn log_report(report: &Report) {
    let to = Escaped::text(&report.user);
    match &report.outcome {
        None => {}
        Some(Ok(detail)) => {
            info!(%to, messages = report.messages, detail = %Escaped::text(detail), "a user was told what is held");
        }
        Some(Err(error)) => warn!(%to, messages = report.messages, %error, "a user cannot be told what is held"),
    }
}

fn report_row(report: &Report) -> Value {
    let sent = report.outcome.as_ref().map(Result::is_ok);
    let detail = report.outcome.as_ref().map(|outcome| outcome.as_ref().map_or_else(ToString::to_string, Clone::clone));
    json!({
        "user": report.user, "destination": report.destination, "messages": report.messages, "sent": sent,
        "detail": detail,
    })
}

/// Asks a person at a terminal; elsewhere there is nobody to ask.
fn ask_whether(ids: &[String]) -> Result<(), Error> {
    let which = ids.iter().map(|id| Escaped::text(id).to_string()).collect::<Vec<_>>().join(", ");
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if stdin.is_terminal() && stderr.is_terminal() {
        // Whoever sees no question answers none.
        let _ = write!(stderr, "{which}: removed for good, and perhaps nobody has it any more? [y/N] ")
            .and_then(|()| stderr.flush());
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map_err(Error::io("no answer can be read"))?;
        if matches!(line.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        return Err(Error::Usage("nothing was discarded".into()));
    }
    Err(Error::Usage(format!("{which}: would be gone for good; say --yes if that is so")))
}

/// Writes one message as it came, where no terminal obeys it. Whoever has the quarantine, its files are only read.
fn give_out(config: &Config, state: &Path, which: &Which, output: Option<&Path>) -> Result<Exit, Error> {
    let [name] = &which.ids[..] else {
        return Err(Error::Usage("one message at a time with --raw and --output".into()));
    };
    let id = DeliveryId::parse(name).ok_or_else(|| {
        Error::Usage(format!("{}: with --raw and --output write all 26 letters", Escaped::text(name)))
    })?;
    if output.is_none() && io::stdout().is_terminal() {
        return Err(Error::Usage("a terminal might obey what is in the message; name a file with --output".into()));
    }
    let body = read_message(&quarantine_directory(config, state), id)
        .map_err(|error| Error::Usage(format!("{id}: {error}")))?;
    match output {
        None => write_out(&*body, &mut io::stdout().lock()).map_err(Error::io("cannot write the message"))?,
        Some(path) => {
            let failed = || Error::io(format!("cannot write {}", path.display()));
            let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let mut file = file.map_err(failed())?;
            write_out(&*body, &mut file).and_then(|()| file.sync_all()).map_err(failed())?;
        }
    }
    Ok(Exit::Ok)
}

/// Line ends that were shortened are as they came again.
pub(crate) fn write_out(body: &dyn Body, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    loop {
        let count = body.read_at(offset, &mut buffer)?;
        if count == 0 {
            return to.flush();
        }
        offset += count as u64;
        if body.line_feeds().is_none() {
            to.write_all(&buffer[..count])?;
            continue;
        }
        for line in buffer[..count].split_inclusive(|octet| *octet == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(line) => to.write_all(line).and_then(|()| to.write_all(b"\r\n"))?,
                None => to.write_all(line)?,
            }
        }
    }
}
