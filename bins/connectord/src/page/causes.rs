//! Why an account is not well, in the words of the page.

use connectord_admin::{At, Cause, Code, Health, Mends, Value};
use connectord_mail::UnixTime;
use connectord_store::{self as store, Hold, Reason};

use super::roster::Entry;

/// How long an account that was well once may be ill before a person is asked.
const PATIENCE_SECONDS: i64 = 86_400;

/// The page's moment.
pub(super) fn at(time: UnixTime) -> At {
    At(time.0)
}

/// How an account is, and why.
pub(super) fn health(entry: &Entry, now: UnixTime) -> (Health, Option<Cause>) {
    if !entry.settings.enabled {
        return (Health::Off, None);
    }
    if let Some(problem) = &entry.problem {
        let mut cause = Cause::new(Code::SettingsWrong);
        cause.said = Some(problem.clone());
        return (Health::Action, Some(cause));
    }
    let health = &entry.health;
    if health.last_check.is_none() {
        return (Health::New, None);
    }
    let Some(cause) = failing(entry) else {
        let remark = (entry.parked > 0).then(|| Cause::new(Code::Parked).with("messages", entry.parked));
        return (Health::Ok, remark);
    };
    let since = health.since.or(health.last_ok);
    let lasts = since.is_none_or(|since| now.0 - since.0 >= PATIENCE_SECONDS);
    let needs = cause.code.row().mends == Mends::Person || (lasts && health.failures > 1);
    (if needs { Health::Action } else { Health::Delayed }, Some(cause))
}

fn failing(entry: &Entry) -> Option<Cause> {
    let health = &entry.health;
    if health.failures == 0 && health.hold.is_none() && health.error.is_none() {
        return None;
    }
    let mut cause = match &health.reason {
        Some(reason) => of_reason(reason, entry),
        None => with_words(Cause::new(of_hold(health.hold)), &Words::of(entry)),
    };
    cause.since = health.since.or(health.last_ok).map(at);
    cause.next = health.next_check.map(at);
    cause.tries = health.failures.max(health.login_refusals);
    if cause.said.is_none() {
        cause.said.clone_from(&health.error);
    }
    Some(cause)
}

/// A check that did not end well.
pub(super) fn of_run(run: &store::RunRow, entry: &Entry) -> Option<Cause> {
    let error = run.error.as_ref().filter(|_| run.reason.as_ref().is_none_or(|reason| reason.code != "stopped"))?;
    let mut cause = match &run.reason {
        Some(reason) => of_reason(reason, entry),
        None => with_words(Cause::new(Code::NoAnswer), &Words::of(entry)),
    };
    cause.said.get_or_insert_with(|| error.clone());
    Some(cause)
}

fn of_hold(hold: Option<Hold>) -> Code {
    match hold {
        Some(Hold::Login) => Code::LoginRefused,
        Some(Hold::UserGone) => Code::UserGone,
        Some(Hold::Throttled) => Code::Throttled,
        Some(Hold::Destination) => Code::DestinationDown,
        Some(Hold::Filter) => Code::FilterDown,
        Some(Hold::Backoff) | None => Code::NoAnswer,
    }
}

fn of_reason(reason: &Reason, entry: &Entry) -> Cause {
    let code = code(&reason.code).unwrap_or_else(|| of_hold(entry.health.hold));
    let mut cause = Cause::new(code);
    for word in code.row().words {
        if let Some(text) = reason.words.get(*word) {
            let count = text.parse().ok().filter(|_| matches!(*word, "messages" | "known"));
            cause.words.insert(word, count.map_or_else(|| Value::Text(text.clone()), Value::Count));
        }
    }
    cause.said.clone_from(&reason.said);
    with_words(cause, &Words::of(entry))
}

/// The page's code for one of the engine's, which knows some that need no sentence of their own.
pub(super) fn code(word: &str) -> Option<Code> {
    match word {
        "no_credential" => Some(Code::LoginRefused),
        "quarantine_down" => Some(Code::FilterDown),
        "configuration" | "state" => Some(Code::SettingsWrong),
        word => word.parse().ok(),
    }
}

/// What sentences about an account speak of.
pub(super) struct Words {
    host: String,
    port: u16,
    user: String,
    folder: String,
    part: String,
}

impl Words {
    fn of(entry: &Entry) -> Self {
        Self::of_settings(&entry.settings)
    }

    pub(super) fn of_settings(settings: &connectord_admin::Settings) -> Self {
        let first = |list: &[String]| list.first().cloned().unwrap_or_default();
        let part = if settings.delivery.is_empty() { "default" } else { &settings.delivery };
        Self {
            host: settings.host.clone(),
            port: settings.effective_port(),
            user: first(&settings.deliver_to),
            folder: first(&settings.folders),
            part: part.to_owned(),
        }
    }
}

/// With what its sentence speaks of, where that is not known yet.
pub(super) fn with_words(mut cause: Cause, words: &Words) -> Cause {
    for word in cause.code.row().words {
        let text = match *word {
            "host" => words.host.clone(),
            "port" => words.port.to_string(),
            "user" => words.user.clone(),
            "folder" => words.folder.clone(),
            "part" => words.part.clone(),
            "messages" | "known" => {
                cause.words.entry(word).or_insert(Value::Count(0));
                continue;
            }
            _ => String::new(),
        };
        cause.words.entry(word).or_insert(Value::Text(text));
    }
    cause
}
