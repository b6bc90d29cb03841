//! Delivery to a program: no shell, the whole message on its standard input, sysexits as its answer.
//!
//! The message stands whole in an unnamed file before the program starts, and that file is its standard input: a
//! program never sees the end of a message that was cut. When a run is given up, and when we ourselves are killed, its
//! process group is killed: for that the program runs in the group of a small shell, `/bin/sh`, that watches us.
//!
//! A program cannot be asked afterwards whether a message arrived: notes are empty, and a recall knows nothing.
//!
//! | exit status | outcome |
//! |---|---|
//! | 0 | delivered |
//! | 65, 67, 77 (`EX_DATAERR`, `EX_NOUSER`, `EX_NOPERM`) | [`FailureKind::Permanent`] |
//! | 75 (`EX_TEMPFAIL`), any other, a signal, no end in time | [`FailureKind::Transient`] |
//! | the program is not there or not executable | [`FailureKind::Misconfigured`] |
//!
//! Its environment has `PATH`, `HOME`, `USER`, `LOGNAME`, `SENDER`, `RECIPIENT`, `ACCOUNT` (the recipient's local
//! user), `CONNECTORD_ID` and `CONNECTORD_ATTEMPT`, and nothing else.
//!
//! ```
//! use connectord_deliveries::command::{Command, Options};
//! use connectord_delivery::Delivery;
//!
//! let arguments = vec!["-d".parse()?, "{user}".parse()?];
//! let command = Command::new(Options::new("/usr/lib/dovecot/dovecot-lda", arguments));
//! assert_eq!(command.describe(), "command:/usr/lib/dovecot/dovecot-lda");
//! # Ok::<(), connectord_delivery::TemplateError>(())
//! ```

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient, Template,
};
use connectord_mail::Status;
use connectord_wire::Escaped;
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child;
use tokio::sync::Semaphore;

use crate::local::{self, Buffers};
use crate::maildir::{Disk, RealDisk};
use crate::pool::{DISK_TIMEOUT, SPOOL};
use crate::{DiskPool, trouble};

/// What is kept of each of the program's outputs; the rest is read and forgotten.
const MAX_OUTPUT: usize = 64 * 1024;
/// How long output may still come from a program's children after its end.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// Messages per batch: with the outcome unknown for each that runs at a crash, few.
const MAX_BATCH: usize = 8;

/// Which program gets the mail. [`Options::new`] has the defaults; every field may be changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The program, an absolute path; no shell, no search.
    pub program: PathBuf,
    /// Its arguments, each filled for the recipient.
    pub arguments: Vec<Template>,
    /// Local user it runs as, with that user's own group only; only a process of root can change users. Default
    /// `None`: ours.
    pub run_as: Option<String>,
    /// Longest run; then its process group is killed. Default 5 min.
    pub timeout: Duration,
    /// Programs running at once, at least 1; default 8. More wait.
    pub concurrency: usize,
    /// Whether a `From ` line comes first, as some old programs want; default false.
    pub from_line: bool,
    /// `PATH` of the program; default `/usr/local/bin:/usr/bin:/bin`.
    pub search_path: String,
    /// The threads that write messages down for it; default those of the process, [`DiskPool::shared`].
    pub pool: DiskPool,
}

impl Options {
    /// The defaults, for this program and these arguments.
    pub fn new(program: impl Into<PathBuf>, arguments: Vec<Template>) -> Self {
        Self {
            program: program.into(),
            arguments,
            run_as: None,
            timeout: Duration::from_secs(300),
            concurrency: 8,
            from_line: false,
            search_path: "/usr/local/bin:/usr/bin:/bin".into(),
            pool: DiskPool::shared(),
        }
    }
}

/// A delivery command.
pub struct Command(Arc<Inner>);

struct Inner {
    options: Options,
    running: Semaphore,
}

impl Command {
    /// Makes the destination; starts nothing.
    pub fn new(options: Options) -> Self {
        let running = Semaphore::new(options.concurrency.clamp(1, 1024));
        Self(Arc::new(Inner { options, running }))
    }

    /// Shows whether the program is there and could be started for this recipient; does not start it.
    ///
    /// # Errors
    /// [`FailureKind::Misconfigured`] with what is missing.
    pub async fn probe(&self, recipient: &Recipient) -> Result<String, Failure> {
        self.0.arguments(recipient)?;
        let inner = self.0.clone();
        let place = self.0.options.program.display().to_string();
        let looked = self.0.options.pool.run(&place, DISK_TIMEOUT, move || inner.look()).await;
        looked.unwrap_or_else(|lost| Err(trouble::lost("probing the command", &place, lost)))
    }
}

#[async_trait]
impl Delivery for Command {
    fn describe(&self) -> String {
        format!("command:{}", self.0.options.program.display())
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits { parcels: MAX_BATCH, ..BatchLimits::default() }
    }

    async fn presence(&self, _: &Recipient) -> Result<Presence, Failure> {
        Ok(Presence::Here)
    }

    async fn prepare(&self, batch: Vec<Parcel>) -> Box<dyn Prepared> {
        let mut writing = Vec::new();
        for parcel in batch {
            let from_line = self.0.options.from_line;
            let job = move || (write_down(&parcel, from_line), parcel);
            writing.push(self.0.options.pool.start(SPOOL, DISK_TIMEOUT, job).await);
        }
        let mut runs = Vec::new();
        for written in writing {
            let written = match written {
                Ok(started) => started.end(DISK_TIMEOUT).await,
                Err(lost) => Err(lost),
            };
            runs.push(match written {
                Ok((Ok(message), parcel)) => Ok(Run { parcel, message }),
                Ok((Err(failure), _)) => Err(failure),
                Err(lost) => Err(trouble::lost("writing the message down", SPOOL, lost)),
            });
        }
        let notes = runs.iter().map(|run| run.as_ref().map(|_| None).map_err(Failure::clone)).collect();
        Box::new(CommandBatch { inner: self.0.clone(), notes, runs })
    }

    async fn recall(&self, rows: Vec<RecallRow>) -> Vec<Recalled> {
        rows.iter().map(|_| Recalled::Unknown).collect()
    }
}

/// A message that waits for its program.
struct Run {
    parcel: Parcel,
    message: File,
}

struct CommandBatch {
    inner: Arc<Inner>,
    notes: Vec<Result<Option<Note>, Failure>>,
    runs: Vec<Result<Run, Failure>>,
}

#[async_trait]
impl Prepared for CommandBatch {
    fn notes(&self) -> &[Result<Option<Note>, Failure>] {
        &self.notes
    }

    /// Runs the programs in the batch's order, one after the other: mail for one user arrives in order.
    async fn complete(self: Box<Self>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(self.runs.len());
        for run in self.runs {
            outcomes.push(match run {
                Ok(run) => self.inner.run(run).await,
                Err(failure) => Outcome::Failed(failure),
            });
        }
        outcomes
    }
}

impl Inner {
    fn arguments(&self, recipient: &Recipient) -> Result<Vec<String>, Failure> {
        let arguments: Vec<_> = self.options.arguments.iter().map(|template| template.expand(recipient)).collect();
        if arguments.iter().chain([&recipient.user, &recipient.address]).any(|text| text.contains('\0')) {
            let user = Escaped::text(&recipient.user);
            return Err(Failure::new(FailureKind::Misconfigured, format!("NUL in an argument for user {user}")));
        }
        Ok(arguments)
    }

    fn look(&self) -> Result<String, Failure> {
        let program = self.options.program.display().to_string();
        let wrong = |text: String| Failure::new(FailureKind::Misconfigured, text);
        let metadata = self
            .options
            .program
            .metadata()
            .map_err(|error| wrong(format!("{error} (during looking for the command {program})")))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Err(wrong(format!("{program} is not an executable file")));
        }
        self.user()?;
        Ok(format!("{program} can be started"))
    }

    /// The user that the program runs as, looked up before it is started.
    fn user(&self) -> Result<Option<nix::unistd::User>, Failure> {
        let wrong = |text: String| Failure::new(FailureKind::Misconfigured, text);
        let Some(name) = &self.options.run_as else { return Ok(None) };
        let user = nix::unistd::User::from_name(name)
            .map_err(|error| Failure::new(FailureKind::Transient, format!("{error} (during looking up user {name})")))?
            .ok_or_else(|| wrong(format!("run_as: there is no user {name}")))?;
        let own = nix::unistd::Uid::effective();
        if own.is_root() || own == user.uid {
            return Ok(Some(user));
        }
        Err(wrong(format!(
            "run_as: only root can run a command as {name}\nhint: drop run_as, or start connectord as root"
        )))
    }

    async fn run(&self, run: Run) -> Outcome {
        let _running = self.running.acquire().await.expect("the semaphore is never closed");
        let mut program = match self.prepare_program(run) {
            Ok(program) => program,
            Err(failure) => return Outcome::Failed(failure),
        };
        let name = self.options.program.display();
        let failed = |what: &str, error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => FailureKind::Misconfigured,
                _ => FailureKind::Transient,
            };
            Outcome::Failed(Failure::new(kind, format!("{error} (during starting {what})")))
        };
        let mut group = match Group::start() {
            Ok(group) => group,
            Err(error) => return failed(&format!("{GUARD}, which ends {name} when we are killed"), error),
        };
        let mut child = match program.process_group(group.id()).spawn() {
            Ok(child) => child,
            Err(error) => return failed(&name.to_string(), error),
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let ended = tokio::time::timeout(self.options.timeout, async {
            let output = async { tokio::join!(keep(stdout, &mut out), keep(stderr, &mut err)) };
            tokio::pin!(output);
            tokio::select! {
                status = child.wait() => {
                    // What it started in the background may keep the outputs open for ever.
                    let _ = tokio::time::timeout(OUTPUT_GRACE, output).await;
                    status
                }
                _ = &mut output => child.wait().await,
            }
        })
        .await;
        match ended {
            Ok(Ok(status)) => {
                group.release().await;
                judge(&name.to_string(), status, &out, &err)
            }
            Ok(Err(error)) => {
                drop(group);
                Outcome::Unknown(Failure::new(FailureKind::Transient, format!("{error} (during waiting for {name})")))
            }
            Err(_) => {
                drop(group);
                // The program is dead by now or about to be; it is waited for so that no zombie stays.
                let _ = tokio::time::timeout(OUTPUT_GRACE, child.wait()).await;
                let seconds = self.options.timeout.as_secs();
                let text = format!("{name} did not end within {seconds} s and was killed{}", said(&out, &err));
                Outcome::Failed(Failure::new(FailureKind::Transient, text))
            }
        }
    }

    fn prepare_program(&self, run: Run) -> Result<tokio::process::Command, Failure> {
        let Run { parcel, message } = run;
        let recipient = &parcel.recipient;
        let user = self.user()?;
        let mut program = tokio::process::Command::new(&self.options.program);
        program
            .args(self.arguments(recipient)?)
            .env_clear()
            .env("PATH", &self.options.search_path)
            .env("SENDER", parcel.reverse_path.replace('\0', ""))
            .env("RECIPIENT", &recipient.address)
            .env("ACCOUNT", &recipient.user)
            .env("CONNECTORD_ID", parcel.id.to_string())
            .env("CONNECTORD_ATTEMPT", parcel.attempt.to_string())
            .current_dir("/")
            .stdin(Stdio::from(message))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let name = user.as_ref().map_or(recipient.user.as_str(), |user| user.name.as_str());
        program.env("USER", name).env("LOGNAME", name);
        match &user {
            Some(user) => {
                program.env("HOME", &user.dir);
                if user.uid != nix::unistd::Uid::effective() {
                    // As root this also drops the supplementary groups.
                    program.gid(user.gid.as_raw()).uid(user.uid.as_raw());
                }
            }
            None => {
                program.env("HOME", "/");
            }
        }
        Ok(program)
    }
}

/// A process group for one run, killed when this is dropped and also when we are killed: nothing of a run that we know
/// nothing of any more delivers later.
///
/// Its leader is a shell that waits for the end of a pipe from us. (The other way, a signal at the parent's death, is
/// tied to the thread that started the program, and leaves the program's children.) As long as the leader has not been
/// waited for, nobody else gets the group's number.
struct Group {
    leader: Child,
    /// `None` once released.
    id: Option<Pid>,
}

/// The shell that leads a group.
const GUARD: &str = "/bin/sh";

impl Group {
    fn start() -> io::Result<Self> {
        let leader = tokio::process::Command::new(GUARD)
            .args(["-c", "read -r _; kill -s KILL 0"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()?;
        let id = leader.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { leader, id })
    }

    /// For `setpgid`.
    fn id(&self) -> i32 {
        self.id.map_or(0, |id| id.as_raw_nonzero().get())
    }

    /// Ends the leader alone: what the program left in the background may go on.
    async fn release(&mut self) {
        // The signal comes before the end of the pipe, which would make it kill the others.
        if self.leader.start_kill().is_ok() {
            self.id = None;
            let _ = self.leader.wait().await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.id {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn judge(name: &str, status: ExitStatus, out: &[u8], err: &[u8]) -> Outcome {
    if status.success() {
        return Outcome::Delivered { detail: format!("{name}: exit status 0") };
    }
    let text = format!("{name}: {status}{}", said(out, err));
    let (kind, code) = match status.code() {
        Some(65) => (FailureKind::Permanent, Status { class: 5, subject: 6, detail: 0 }),
        Some(67) => (FailureKind::Permanent, Status { class: 5, subject: 1, detail: 1 }),
        Some(77) => (FailureKind::Permanent, Status { class: 5, subject: 7, detail: 0 }),
        _ => (FailureKind::Transient, Status { class: 4, subject: 3, detail: 0 }),
    };
    Outcome::Failed(Failure::new(kind, text).with_status(Some(code)))
}

/// What the program said, standard error before standard output.
fn said(out: &[u8], err: &[u8]) -> String {
    let text = if err.trim_ascii().is_empty() { out } else { err }.trim_ascii();
    if text.is_empty() { String::new() } else { format!(": \"{}\"", Escaped(text)) }
}

/// Reads to the end and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut block = vec![0; 4096];
    while let Ok(count @ 1..) = from.read(&mut block).await {
        let room = MAX_OUTPUT.saturating_sub(kept.len());
        kept.extend_from_slice(&block[..count.min(room)]);
    }
}

/// The message in a file without a name, at its beginning.
fn write_down(parcel: &Parcel, from_line: bool) -> Result<File, Failure> {
    let during = "a file for the command";
    let fail = |error: io::Error| trouble::failure("writing the message down", during, &error);
    let mut file = unnamed_file().map_err(fail)?;
    if from_line {
        let time = parcel.arrived_at.unwrap_or_else(|| RealDisk.now());
        file.write_all(crate::mbox::from_line(&parcel.reverse_path, time).as_bytes()).map_err(fail)?;
    }
    local::copy(parcel, &mut Buffers::default(), &mut |piece| file.write_all(piece))
        .map_err(|broken| broken.failure(during))?;
    file.rewind().map_err(fail)?;
    Ok(file)
}

fn unnamed_file() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match open(std::env::temp_dir(), flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => Ok(file.into()),
        // No such files there, or no directory at all: then in memory.
        Err(_) => Ok(memfd_create("message", MemfdFlags::CLOEXEC)?.into()),
    }
}
