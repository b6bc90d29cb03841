//! Accounts as they are shown: to programs as JSON, without any secret.

use connectord_account::Account;
use connectord_config::saved::FieldProblem;
use connectord_engine::{Trial, TrialOutcome};
use connectord_mail::UnixTime;
use connectord_store::{AccountRow, Health, Hold, SavedAccount, Stamp};
use jiff::Timestamp;
use serde_json::{Value, json};

/// How long an account that was well once may be ill before a person is asked.
const PATIENCE_SECONDS: i64 = 86_400;

/// One account.
pub(crate) struct View<'a> {
    /// How it is doing; `None` before its first check.
    pub(crate) row: Option<&'a AccountRow>,
    /// What it says; `None` when it cannot be read.
    pub(crate) account: Option<&'a Account>,
    /// As it is kept; `None` when it is the file's.
    pub(crate) saved: Option<&'a SavedAccount>,
    /// Why it cannot be run.
    pub(crate) problems: &'a [FieldProblem],
    /// Messages in trouble.
    pub(crate) parked: usize,
    pub(crate) now: UnixTime,
}

impl View<'_> {
    /// Its address.
    pub(crate) fn address(&self) -> &str {
        let saved = self.saved.map(|saved| saved.address.as_str());
        saved.or_else(|| self.account.map(|account| account.address.as_str())).unwrap_or_default()
    }

    /// What a list says about it.
    pub(crate) fn json(&self) -> Value {
        let health = self.row.map(|row| &row.health);
        let enabled = self.saved.map_or_else(|| self.account.is_some_and(|it| it.enabled), |saved| saved.enabled);
        let cause = self.cause(health);
        json!({
            "id": self.saved.map(|saved| saved.id).or_else(|| self.row.map(|row| row.id)).map(|id| id.0),
            "address": self.address(),
            "deliver_to": self.account.map(|account| &account.deliver_to),
            "host": self.account.map(|account| account.endpoint.host()),
            "port": self.account.map(|account| account.endpoint.port()),
            "protocol": self.account.map(|account| account.protocol),
            "security": self.account.map(|account| account.security.to_string()),
            "enabled": enabled,
            "health": self.health(enabled, health),
            "cause": cause,
            "last_ok": health.and_then(|health| health.last_ok).map(time),
            "last_check": health.and_then(|health| health.last_check).map(time),
            "next": health.and_then(|health| health.next_check).map(time),
            "parked": self.parked,
            "source": if self.saved.is_some() { "page" } else { "file" },
            "etag": self.saved.map(|saved| saved.version.to_string()),
        })
    }

    fn health(&self, enabled: bool, health: Option<&Health>) -> &'static str {
        if !enabled {
            return "off";
        }
        if !self.problems.is_empty() {
            return "action";
        }
        let Some(health) = health.filter(|health| health.last_check.is_some()) else { return "new" };
        match health.hold {
            Some(Hold::Login | Hold::UserGone) => "action",
            None if health.failures == 0 && health.error.is_none() => "ok",
            _ => match health.last_ok {
                Some(last) if self.now.0 - last.0 < PATIENCE_SECONDS => "delayed",
                _ => "action",
            },
        }
    }

    fn cause(&self, health: Option<&Health>) -> Option<Value> {
        if let Some(problem) = self.problems.first() {
            return Some(json!({"code": "configuration", "sentence": problem.what, "remedy": problem.hint}));
        }
        let health = health.filter(|health| health.failures > 0 || health.hold.is_some())?;
        let code = match health.hold {
            Some(Hold::Login) => "login_refused",
            Some(Hold::UserGone) => "user_gone",
            Some(Hold::Throttled) => "throttled",
            Some(Hold::Destination) => "destination_down",
            Some(Hold::Filter) => "filter_down",
            Some(Hold::Backoff) | None => "no_answer",
        };
        let tries = health.failures.max(health.login_refusals);
        Some(
            json!({"code": code, "sentence": health.error, "remedy": null, "since": health.last_ok.map(time), "tries": tries}),
        )
    }
}

/// Everything about a saved account but its secret.
pub(crate) fn details(
    mut item: Value,
    saved: Option<&SavedAccount>,
    settings: &Value,
    problems: &[FieldProblem],
) -> Value {
    item["settings"] = settings.clone();
    item["problems"] = problems
        .iter()
        .map(|problem| json!({"key": problem.key, "sentence": problem.what, "hint": problem.hint}))
        .collect();
    if let Some(saved) = saved {
        let secret = saved.secret.as_ref();
        item["secret"] = json!({"set": secret.is_some(), "at": secret.map(|secret| time(secret.set.at)),
            "by": secret.map(|secret| &secret.set.by)});
        item["created"] = stamp(&saved.created);
        item["changed"] = stamp(&saved.changed);
    }
    item
}

pub(crate) fn stamp(stamp: &Stamp) -> Value {
    json!({"at": time(stamp.at), "by": stamp.by})
}

/// RFC 3339, in UTC.
pub(crate) fn time(at: UnixTime) -> String {
    Timestamp::from_second(at.0).unwrap_or_default().to_string()
}

/// What a test has found.
pub(crate) fn trial(trial: &Trial) -> Value {
    let steps: Vec<Value> = trial
        .steps
        .iter()
        .map(|(step, outcome, took)| {
            let (state, result, cause) = match outcome {
                TrialOutcome::Ok(result) => ("ok", Some(result.clone()), None),
                TrialOutcome::Note(result) => ("note", Some(result.clone()), None),
                TrialOutcome::Failed { cause, text, hint, .. } => {
                    let cause = json!({"code": cause.code(), "sentence": text, "remedy": hint});
                    ("failed", Some(text.clone()), Some(cause))
                }
                TrialOutcome::NotReached => ("not_reached", None, None),
            };
            let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            json!({"name": step.name(), "state": state, "result": result, "ms": took, "cause": cause})
        })
        .collect();
    json!({"ok": trial.failure().is_none(), "steps": steps})
}
