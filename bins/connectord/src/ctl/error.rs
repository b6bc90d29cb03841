//! Why there is no answer, or not the one that was wished for; and what the command then ends with.

use connectord_admin::Code;
use connectord_config::Problems;
use connectord_config::build::BuildError;
use connectord_wire::Escaped;
use serde_json::Value;

pub(crate) const USAGE: u8 = 64;
pub(crate) const DATA: u8 = 65;
pub(crate) const UNAVAILABLE: u8 = 69;
pub(crate) const IO: u8 = 74;
pub(crate) const TEMP_FAIL: u8 = 75;
pub(crate) const NO_PERMISSION: u8 = 77;
pub(crate) const CONFIG: u8 = 78;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Password(#[from] connectord::password::Error),
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("no daemon answers at {place}: {error}")]
    NoDaemon { place: String, error: String },
    #[error("the daemon's answer broke off: {0}")]
    Broken(String),
    /// By the control socket.
    #[error("{}", sentence(.refused))]
    Refused { refused: Value, exit: u8 },
    /// By the API: a problem of RFC 9457.
    #[error("{}", title(.0))]
    Problem(Value),
    #[error("{text}: {source}")]
    Io { text: String, source: std::io::Error },
}

impl Error {
    pub(crate) fn io(text: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let text = text.into();
        |source| Self::Io { text, source }
    }

    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Password(connectord::password::Error::None(_)) => USAGE,
            Self::Password(_) | Self::Io { .. } => IO,
            Self::Config(_) | Self::Build(_) => CONFIG,
            Self::NoDaemon { .. } => UNAVAILABLE,
            Self::Broken(_) => TEMP_FAIL,
            Self::Refused { exit, .. } => *exit,
            Self::Problem(problem) => match kind(problem) {
                "sign_in" | "role" | "local_only" | "foreign_host" | "foreign_origin" | "old_form" => NO_PERMISSION,
                "duplicate" | "fields" => DATA,
                "changed" | "slow" | "too_many" | "last_admin" | "not_first" => TEMP_FAIL,
                "unavailable" => IO,
                "test_failed" => failed_step(problem).map_or(UNAVAILABLE, |step| exit_of(&step["cause"])),
                _ => USAGE,
            },
        }
    }

    /// What to do, on a line of its own.
    pub(crate) fn remedy(&self) -> Option<String> {
        let hint = match self {
            Self::NoDaemon { .. } => {
                return Some("Do: connectord serve, or name its configuration with --config".to_owned());
            }
            Self::Refused { refused, .. } => refused["hint"].as_str()?.to_owned(),
            Self::Problem(problem) => match kind(problem) {
                "sign_in" => "run it as root or as connectord's own user, or name a token with --token-file".to_owned(),
                "role" => format!("it takes the role {}", Escaped::text(problem["needed"].as_str()?)),
                "too_many" => format!("again in {} s", problem["retry_after_s"]),
                "not_found" => "look at what there is, with list".to_owned(),
                _ => return None,
            },
            _ => return None,
        };
        Some(format!("hint: {hint}"))
    }

    /// What the daemon said, for programs.
    pub(crate) fn said(&self) -> Option<&Value> {
        match self {
            Self::Refused { refused: said, .. } | Self::Problem(said) => Some(said),
            _ => None,
        }
    }
}

/// The last part of a problem's type.
fn kind(problem: &Value) -> &str {
    problem["type"].as_str().and_then(|kind| kind.rsplit(':').next()).unwrap_or_default()
}

/// What a check by hand ends with for this cause.
pub(crate) fn exit_of(cause: &Value) -> u8 {
    match cause["code"].as_str().and_then(|code| code.parse::<Code>().ok()) {
        Some(code) => code.row().exit,
        None if cause.is_null() => 0,
        None => UNAVAILABLE,
    }
}

fn failed_step(problem: &Value) -> Option<&Value> {
    problem["test"]["steps"].as_array()?.iter().find(|step| step["state"] == "failed")
}

/// What was refused: each mistake on a line of its own when there are several.
fn sentence(refused: &Value) -> String {
    let problems = refused["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |problem: &Value| problem["sentence"].as_str().unwrap_or_default().to_owned();
    match problems {
        [] | [_] => line(refused),
        several => several.iter().map(line).collect::<Vec<_>>().join("\nconnectorctl: "),
    }
}

/// The title of a problem, and what is known beside it.
fn title(problem: &Value) -> String {
    let text = |value: &Value| Escaped::text(value.as_str().unwrap_or_default()).to_string();
    let mut title = text(&problem["title"]);
    if title.is_empty() {
        title = format!("the daemon answered with status {}", problem["status"]);
    }
    if let Some(detail) = problem["detail"].as_str() {
        title.push_str(&format!(" ({})", Escaped::text(detail)));
    }
    for field in problem["fields"].as_array().into_iter().flatten() {
        title.push_str(&format!("\nconnectorctl: {}: {}", text(&field["field"]), text(&field["sentence"])));
    }
    if let Some(step) = failed_step(problem) {
        title.push_str(&format!("\nconnectorctl: {}: {}", text(&step["name"]), text(&step["result"])));
    }
    title
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(kind: &str) -> Error {
        Error::Problem(
            json!({"type": format!("urn:connectord:problem:{kind}"), "title": "No.\u{1b}[2J", "status": 400}),
        )
    }

    #[test]
    fn what_the_api_refuses_ends_a_command_as_the_control_socket_does() {
        let kinds = ["sign_in", "role", "not_found", "fields", "changed", "unavailable", "from_file", "test_failed"];
        assert_eq!(kinds.map(|kind| problem(kind).exit()), [77, 77, 64, 65, 75, 74, 64, 69]);
        let step = json!({"name": "login", "state": "failed", "result": "no", "cause": {"code": "login_refused"}});
        let failed =
            json!({"type": "urn:connectord:problem:test_failed", "title": "It fails.", "test": {"steps": [step]}});
        let failed = Error::Problem(failed);
        assert_eq!((failed.exit(), failed.to_string().as_str()), (77, "It fails.\nconnectorctl: login: no"));
        assert_eq!(problem("fields").to_string(), "No.\\x1b[2J");
    }
}
