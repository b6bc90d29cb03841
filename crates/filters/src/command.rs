//! A program of the site's own: no shell, the whole message on its standard input, its exit status as the answer.
//!
//! It is not told to change the message, and its output is not the message: with [`Output::Header`] fields of a header
//! that it writes replace those of the same name. The message stands whole in a file without a name before the program
//! starts. Its process group is killed when its time is over, when the check is given up and when we are killed.
//!
//! | exit status | by default, as getmail's `Filter_external` |
//! |---|---|
//! | 0 | [`Meaning::Clean`] (`exitcodes_keep`) |
//! | 99, 100 | [`Meaning::Reject`] (`exitcodes_drop`); what that leads to is the policy's |
//! | 75 (`EX_TEMPFAIL`) | [`Why::Unavailable`]: it cannot work now |
//! | any other, a signal, no end in time | [`Why::Failed`] or [`Why::TimedOut`]: the message was not checked |
//! | the program is not there or not executable | [`Why::Misconfigured`] |
//!
//! Its environment has `PATH`, `HOME`, `USER`, `LOGNAME`, `LANG`, `SENDER`, `RECIPIENT` (the recipients, with a space
//! between), `ACCOUNT` (the account's address), `CONNECTORD_ID`, and where the client is known `CLIENT_ADDRESS`,
//! `CLIENT_NAME` and `CLIENT_HELO`; nothing else.

mod header;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use connectord_filter::{
    Action, Filter, Finding, Health, Kind, Limits, Message, Probe, Ruling, Unchecked, Verdict, Why,
};
use connectord_mail::head::MAX_HEAD;
use connectord_mail::relay::Client;
use connectord_process::{Ended, Program, RunError, User, UserError, look, said, unnamed_file};
use connectord_wire::Escaped;

use crate::OptionsError;
use crate::gauge::Gauge;
use crate::options::named;
use crate::pieces::Pieces;
use crate::text::chain;
use crate::until::Until;

pub(crate) use header::changes;

/// Which program looks at mail, and what its answers mean. [`Options::new`] has the defaults; every field may be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The program, an absolute path; no shell, no search.
    pub program: PathBuf,
    /// Its arguments, as they are.
    pub arguments: Vec<String>,
    /// Which of the account's switches asks for it; default [`Kind::Antispam`].
    pub kind: Kind,
    /// What its exit statuses mean; those that are not listed mean that it failed. Default 0, 99 and 100 as above.
    pub meanings: BTreeMap<u8, Meaning>,
    /// What is made of its output; default [`Output::Ignored`].
    pub output: Output,
    /// Local user it runs as, with that user's own group only; only a process of root can change users. Default
    /// `None`: ours.
    pub run_as: Option<String>,
    /// Longest run; then its process group is killed. Default 60 s. Never beyond the message's own deadline.
    pub timeout: Duration,
    /// Programs running at once; default 4, at least 1.
    pub at_once: usize,
    /// Largest message it is given, in octets; default any.
    pub max_octets: Option<u64>,
    /// `PATH` of the program; default `/usr/local/bin:/usr/bin:/bin`.
    pub search_path: String,
}

/// What an exit status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing found.
    Clean,
    /// Spam: [`Action::AddHeader`].
    Spam,
    /// To be refused: [`Action::Reject`].
    Reject,
    /// Come back later: [`Action::SoftReject`].
    Later,
    /// Infected; the first line that it writes is the virus' name.
    Virus,
    /// To be thrown away: [`Ruling::Discard`], which is heard only of a filter of [`Kind::Rules`].
    Discard,
}

/// What is made of what the program writes on its standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Nothing, but for the names of viruses and the words of an error.
    #[default]
    Ignored,
    /// It is a header, or a whole message of which the header counts: each field that is not there as it is replaces
    /// those of its name. At most 256 KiB and 100 fields.
    Header,
}

impl Options {
    /// Defaults for this program and these arguments.
    pub fn new(program: impl Into<PathBuf>, arguments: Vec<String>) -> Self {
        let meanings = [(0, Meaning::Clean), (99, Meaning::Reject), (100, Meaning::Reject)];
        Self {
            program: program.into(),
            arguments,
            kind: Kind::Antispam,
            meanings: meanings.into(),
            output: Output::Ignored,
            run_as: None,
            timeout: Duration::from_secs(60),
            at_once: 4,
            max_octets: None,
            search_path: "/usr/local/bin:/usr/bin:/bin".into(),
        }
    }
}

/// A program as a filter.
///
/// ```
/// use connectord_filter::Filter;
/// use connectord_filters::command::{Command, Options};
/// let bogofilter = Command::new("bogofilter".into(), Options::new("/usr/bin/bogofilter", vec!["-e".into()]))?;
/// assert_eq!(bogofilter.describe(), "command:/usr/bin/bogofilter");
/// # Ok::<(), connectord_filters::OptionsError>(())
/// ```
pub struct Command {
    name: String,
    options: Options,
    gauge: Gauge,
}

impl Command {
    /// A filter of this name; starts nothing.
    ///
    /// # Errors
    /// When the name is none, the path is not absolute, or an argument holds a NUL.
    pub fn new(name: String, options: Options) -> Result<Self, OptionsError> {
        let name = named(name)?;
        let program = options.program.display();
        if !options.program.is_absolute() {
            return Err(OptionsError(format!("expected an absolute path as program, got {program}")));
        }
        if options.arguments.iter().any(|argument| argument.contains('\0')) {
            return Err(OptionsError(format!("NUL in an argument of {program}")));
        }
        Ok(Self { name, gauge: Gauge::new(options.at_once), options })
    }

    async fn run(&self, message: &Message, until: Until) -> Result<Finding, Unchecked> {
        let name = self.options.program.display().to_string();
        let user = self.user(until).await?;
        let program = self.program(message, user.as_ref())?;
        let written = write_down(Pieces::new(message.body.clone()));
        let stdin = until.within(&name, "writing the message down for it", written).await??;
        let ended = program.run(stdin, until.left()).await.map_err(trouble)?;
        let output = ended.out.clone();
        let mut finding = self.judge(&name, ended)?;
        if self.options.output == Output::Header {
            finding.headers = changes(message.head(), &output);
        }
        Ok(finding)
    }

    fn program(&self, message: &Message, user: Option<&User>) -> Result<Program, Unchecked> {
        let name = user.map_or("", User::name);
        let mut program = Program::new(&self.options.program)
            .max_output(MAX_HEAD)
            .variable("PATH", &self.options.search_path)
            .home(user)
            .variable("USER", name)
            .variable("LOGNAME", name)
            .variable("LANG", "C.UTF-8")
            .variable("SENDER", message.envelope.reverse_path.as_deref().unwrap_or_default())
            .variable("RECIPIENT", &message.recipients.join(" "))
            .variable("ACCOUNT", &message.account)
            .variable("CONNECTORD_ID", &message.id.to_string());
        if let Client::Known(client) = &message.envelope.client {
            program = program
                .variable("CLIENT_ADDRESS", &client.address.to_string())
                .variable("CLIENT_NAME", client.name.as_deref().unwrap_or_default())
                .variable("CLIENT_HELO", client.helo.as_deref().unwrap_or_default());
        }
        let program = self.options.arguments.iter().fold(program, |program, argument| program.argument(argument));
        Ok(program.user(user.cloned()))
    }

    /// The user it runs as; whoever knows users here may be asked over a network, so this is on a thread.
    async fn user(&self, until: Until) -> Result<Option<User>, Unchecked> {
        let Some(name) = self.options.run_as.clone() else { return Ok(None) };
        let found = tokio::task::spawn_blocking(move || User::find(&name));
        let found = until.within(&self.describe(), "looking up the user it runs as", found).await?;
        let found = found.map_err(|lost| Unchecked::new(Why::Unavailable, chain(&lost)))?;
        found.map(Some).map_err(|error| {
            let why = match error {
                UserError::Unanswered { .. } => Why::Unavailable,
                UserError::Missing { .. } | UserError::Forbidden { .. } => Why::Misconfigured,
            };
            Unchecked::new(why, chain(&error))
        })
    }

    fn judge(&self, name: &str, ended: Ended) -> Result<Finding, Unchecked> {
        let Ended { status, out, err } = ended;
        let meaning = meaning(&self.options.meanings, status);
        let action = |action| Ok(Finding { action, ..Finding::default() });
        match meaning {
            Some(Meaning::Clean) => action(Action::NoAction),
            Some(Meaning::Spam) => action(Action::AddHeader),
            Some(Meaning::Reject) => action(Action::Reject),
            Some(Meaning::Later) => action(Action::SoftReject),
            Some(Meaning::Virus) => {
                let line = out.split(|octet| *octet == b'\n').find(|line| !line.trim_ascii().is_empty());
                let virus = line.map_or_else(|| "unnamed".to_owned(), crate::text::shown);
                Ok(Finding { action: Action::Reject, viruses: vec![virus], ..Finding::default() })
            }
            Some(Meaning::Discard) => {
                let ruling = Some(Ruling::Discard(format!("{}: {status}", Escaped::text(name))));
                Ok(Finding { action: Action::Reject, ruling, ..Finding::default() })
            }
            None => {
                let why = if status.code() == Some(75) { Why::Unavailable } else { Why::Failed };
                Err(Unchecked::new(why, format!("{}: {status}{}", Escaped::text(name), said(&out, &err))))
            }
        }
    }
}

fn meaning(meanings: &BTreeMap<u8, Meaning>, status: ExitStatus) -> Option<Meaning> {
    meanings.get(&u8::try_from(status.code()?).ok()?).copied()
}

fn trouble(error: RunError) -> Unchecked {
    let why = match &error {
        RunError::Start { error, .. }
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
        {
            Why::Misconfigured
        }
        RunError::Start { .. } | RunError::Wait { .. } => Why::Unavailable,
        RunError::TimedOut { .. } => Why::TimedOut,
    };
    Unchecked::new(why, error.to_string())
}

/// The message in a file without a name, at its beginning.
async fn write_down(mut message: Pieces) -> Result<File, Unchecked> {
    let during = "writing the message down for the command";
    let trouble =
        |error: &dyn std::error::Error| Unchecked::new(Why::Unavailable, format!("{during}: {}", chain(error)));
    let on_thread = |file: Option<File>, octets: bytes::Bytes| async move {
        tokio::task::spawn_blocking(move || {
            let mut file = file.map_or_else(unnamed_file, Ok)?;
            file.write_all(&octets)?;
            Ok::<_, io::Error>(file)
        })
        .await
        .map_err(|lost| trouble(&lost))?
        .map_err(|error| trouble(&error))
    };
    let mut file = on_thread(None, bytes::Bytes::new()).await?;
    while let Some(piece) = message.next().await? {
        file = on_thread(Some(file), piece).await?;
    }
    file.rewind().map_err(|error| trouble(&error))?;
    Ok(file)
}

#[async_trait]
impl Filter for Command {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        format!("command:{}", Escaped::text(&self.options.program.display().to_string()))
    }

    fn kind(&self) -> Kind {
        self.options.kind
    }

    fn limits(&self) -> Limits {
        Limits { at_once: self.options.at_once.max(1), max_octets: self.options.max_octets }
    }

    async fn check(&self, message: &Message) -> Verdict {
        let until = Until::new(message.deadline, self.options.timeout);
        self.gauge.check(until, &self.describe(), self.run(message, until)).await
    }

    /// Whether the program is there and could be started; does not start it.
    async fn probe(&self, deadline: Instant) -> Result<Probe, Unchecked> {
        self.ping(deadline).await?;
        Ok(Probe { version: self.describe(), found_test_sample: None })
    }

    async fn ping(&self, deadline: Instant) -> Result<(), Unchecked> {
        let until = Until::new(deadline, self.options.timeout);
        self.user(until).await?;
        let program = self.options.program.clone();
        let looked = tokio::task::spawn_blocking(move || look(&program));
        match until.within(&self.describe(), "looking for the command", looked).await? {
            Ok(looked) => looked.map_err(|text| Unchecked::new(Why::Misconfigured, text)),
            Err(lost) => Err(Unchecked::new(Why::Failed, chain(&lost))),
        }
    }

    fn health(&self) -> Health {
        self.gauge.health()
    }
}
