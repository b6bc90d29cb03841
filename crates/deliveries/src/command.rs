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
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use connectord_delivery::{
    BatchLimits, Delivery, Failure, FailureKind, Note, Outcome, Parcel, Prepared, Presence, RecallRow, Recalled,
    Recipient, Template,
};
use connectord_mail::Status;
use connectord_process::{Ended, Program, RunError, User, UserError, look, said, unnamed_file};
use connectord_wire::Escaped;
use tokio::sync::Semaphore;

use crate::local::{self, Buffers};
use crate::maildir::{Disk, RealDisk};
use crate::pool::{DISK_TIMEOUT, SPOOL};
use crate::{DiskPool, trouble};

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
        look(&self.options.program).map_err(|text| Failure::new(FailureKind::Misconfigured, text))?;
        self.user()?;
        Ok(format!("{} can be started", self.options.program.display()))
    }

    /// The user that the program runs as, looked up before it is started.
    fn user(&self) -> Result<Option<User>, Failure> {
        let find = |name: &String| {
            User::find(name).map_err(|error| match error {
                UserError::Unanswered { .. } => Failure::new(FailureKind::Transient, error.to_string()),
                UserError::Missing { .. } => Failure::new(FailureKind::Misconfigured, error.to_string()),
                UserError::Forbidden { .. } => {
                    let text = format!("{error}\nhint: drop run_as, or start connectord as root");
                    Failure::new(FailureKind::Misconfigured, text)
                }
            })
        };
        self.options.run_as.as_ref().map(find).transpose()
    }

    async fn run(&self, run: Run) -> Outcome {
        let _running = self.running.acquire().await.expect("the semaphore is never closed");
        let program = match self.program(&run.parcel) {
            Ok(program) => program,
            Err(failure) => return Outcome::Failed(failure),
        };
        let transient = |error: &RunError| Failure::new(FailureKind::Transient, error.to_string());
        match program.run(run.message, self.options.timeout).await {
            Ok(Ended { status, out, err }) => judge(&self.options.program.display().to_string(), status, &out, &err),
            Err(error @ RunError::Wait { .. }) => Outcome::Unknown(transient(&error)),
            Err(error @ RunError::TimedOut { .. }) => Outcome::Failed(transient(&error)),
            Err(RunError::Start { what, error }) => {
                let kind = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => FailureKind::Misconfigured,
                    _ => FailureKind::Transient,
                };
                Outcome::Failed(Failure::new(kind, RunError::Start { what, error }.to_string()))
            }
        }
    }

    fn program(&self, parcel: &Parcel) -> Result<Program, Failure> {
        let recipient = &parcel.recipient;
        let user = self.user()?;
        let name = user.as_ref().map_or(recipient.user.as_str(), User::name);
        let program = Program::new(&self.options.program)
            .variable("PATH", &self.options.search_path)
            .variable("SENDER", &parcel.reverse_path)
            .variable("RECIPIENT", &recipient.address)
            .variable("ACCOUNT", &recipient.user)
            .variable("CONNECTORD_ID", &parcel.id.to_string())
            .variable("CONNECTORD_ATTEMPT", &parcel.attempt.to_string())
            .variable("USER", name)
            .variable("LOGNAME", name)
            .home(user.as_ref())
            .user(user);
        let arguments = self.arguments(recipient)?;
        Ok(arguments.into_iter().fold(program, |program, argument| program.argument(argument)))
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
