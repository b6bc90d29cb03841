use std::fmt;

use connectord_config::KeyError;
use connectord_config::build::BuildError;
use connectord_config::saved::FieldProblem;
use connectord_engine::{Cause, Exit, Trial, TrialOutcome};
use connectord_store::{Stamp, StoreError};
use serde_json::{Value, json};

use super::view;

/// Why something was not done about an account. Nothing was changed, but for [`Refusal::NotInForce`].
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no such account; the nearest that there is.
    NotFound { address: String, nearest: Option<String> },
    /// It is the file's.
    FromFile { address: String },
    /// It is there already.
    Exists { address: String },
    /// Another one fetches the same mail to the same users.
    SameMail { address: String, other: String },
    /// What it is to be cannot be.
    Invalid(Vec<FieldProblem>),
    /// Where the password goes to changes, and the password was not given again.
    SecretNeeded { changed: &'static str },
    /// Somebody else has changed it meanwhile.
    Changed { address: String, last: Option<Stamp> },
    /// It does not work.
    Trial(Box<Trial>),
    /// Its password cannot be kept.
    Key(KeyError),
    /// It cannot be built.
    Build(BuildError),
    /// The state cannot be used.
    Store(StoreError),
    /// It is saved, and something else keeps it from being taken over.
    NotInForce(String),
    /// The daemon ends.
    Ending,
    /// The request says nothing that can be done.
    Request(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<BuildError> for Refusal {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { address, nearest: None } => write!(f, "there is no account {address}"),
            Self::NotFound { address, nearest: Some(nearest) } => {
                write!(f, "there is no account {address}; did you mean {nearest}?")
            }
            Self::FromFile { address } => write!(f, "{address} stands in the configuration file: it is changed there"),
            Self::Exists { address } => write!(f, "there is an account {address} already"),
            Self::SameMail { address, other } => write!(
                f,
                "{other} has the same server, user name, destination and users as {address}: mail would come twice"
            ),
            Self::Invalid(problems) => match problems.as_slice() {
                [] => f.write_str("the account cannot be like this"),
                [first, ..] => write!(f, "{first}"),
            },
            Self::SecretNeeded { changed } => write!(
                f,
                "{changed} changes: the password must be given again, so that it goes to nobody whom it was not meant for"
            ),
            Self::Changed { address, last: Some(last) } => {
                write!(f, "{address} was changed meanwhile, by {} at {}", last.by, view::time(last.at))
            }
            Self::Changed { address, last: None } => write!(f, "{address} was deleted meanwhile"),
            Self::Trial(trial) => match trial.failure() {
                Some((step, TrialOutcome::Failed { text, .. })) => write!(f, "the test failed at {step}: {text}"),
                _ => f.write_str("the test failed"),
            },
            Self::Key(error) => write!(f, "{error}"),
            Self::Build(error) => write!(f, "{error}"),
            Self::Store(error) => write!(f, "{error}"),
            Self::NotInForce(text) => write!(f, "it is saved, but not in force: {text}"),
            Self::Ending => f.write_str("the daemon is about to end"),
            Self::Request(text) => f.write_str(text),
        }
    }
}

impl Refusal {
    /// What it is, for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::FromFile { .. } => "from_file",
            Self::Exists { .. } => "exists",
            Self::SameMail { .. } => "same_mail",
            Self::Invalid(_) => "invalid",
            Self::SecretNeeded { .. } => "secret_needed",
            Self::Changed { .. } => "changed",
            Self::Trial(_) => "test_failed",
            Self::Key(_) => "key_unreadable",
            Self::Build(_) => "configuration",
            Self::Store(_) => "state",
            Self::NotInForce(_) => "not_in_force",
            Self::Ending => "ending",
            Self::Request(_) => "request",
        }
    }

    /// What a command ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::NotFound { .. } | Self::FromFile { .. } | Self::Request(_) => Exit::Usage,
            Self::Exists { .. } | Self::SameMail { .. } => Exit::Data,
            Self::Invalid(_) | Self::SecretNeeded { .. } | Self::Build(_) | Self::Key(_) | Self::NotInForce(_) => {
                Exit::Config
            }
            Self::Changed { .. } | Self::Ending => Exit::TempFail,
            Self::Store(_) => Exit::Io,
            Self::Trial(trial) => match trial.failure() {
                Some((_, TrialOutcome::Failed { cause, .. })) => exit_of(*cause),
                _ => Exit::Unavailable,
            },
        }
    }

    /// What a person can do about it.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid(problems) => problems.first().and_then(|problem| problem.hint.clone()),
            Self::SameMail { .. } => Some("with --anyway it is done nevertheless".into()),
            Self::Changed { last: Some(_), .. } => Some("look at it again, then change it again".into()),
            Self::Trial(trial) => {
                let hint = match trial.failure() {
                    Some((_, TrialOutcome::Failed { hint, .. })) => hint.as_deref(),
                    _ => None,
                };
                let saved = "nothing was saved; with --anyway it is saved nevertheless";
                Some(hint.map_or_else(|| saved.to_owned(), |hint| format!("{hint}; {saved}")))
            }
            _ => None,
        }
    }

    /// All of it, for programs.
    pub(crate) fn json(&self) -> Value {
        let problem = |problem: &FieldProblem| json!({"key": problem.key, "sentence": problem.what, "hint": problem.hint, "nearest": problem.nearest});
        let problems: Vec<Value> = match self {
            Self::Invalid(problems) => problems.iter().map(problem).collect(),
            _ => Vec::new(),
        };
        let mut refused = json!({
            "code": self.code(), "sentence": self.to_string(), "hint": self.hint(), "problems": problems,
        });
        if let Self::Trial(trial) = self {
            refused["test"] = view::trial(trial);
        }
        refused
    }
}

/// What a failed test is to a command.
pub(crate) fn exit_of(cause: Cause) -> Exit {
    match cause {
        Cause::LoginRefused => Exit::NoPermission,
        Cause::AddressRefused
        | Cause::Tls
        | Cause::TlsNotOffered
        | Cause::Folder
        | Cause::UserGone
        | Cause::Configuration
        | Cause::NoCredential => Exit::Config,
        Cause::InUse
        | Cause::Throttled
        | Cause::MailboxFull
        | Cause::DestinationDown
        | Cause::DiskFull
        | Cause::Stopped => Exit::TempFail,
        Cause::State => Exit::Io,
        Cause::NameUnknown | Cause::NoAnswer | Cause::Protocol | _ => Exit::Unavailable,
    }
}
