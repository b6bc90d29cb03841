//! Answers: JSON with sentences, and problems (RFC 9457).

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::Fault;
use crate::backend::{Account, Page, Refusal, Row, Run, Test};
use crate::cause::Cause;
use crate::escape;
use crate::gate::SignedIn;
use crate::person::Role;
use crate::words::Words;

/// Any value as JSON that is harmless wherever it ends up.
pub(crate) fn json_of(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => written(status, "application/json", &text),
        Err(error) => {
            tracing::error!(%error, "an answer of the API");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn written(status: StatusCode, kind: &'static str, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(kind))], Body::from(escape::json(text))).into_response()
}

/// A cause with its sentence; what the server said is for administrators.
pub(super) fn cause(cause: Option<&Cause>, words: &Words, role: Role) -> Value {
    let Some(cause) = cause else { return Value::Null };
    let mut value = json!({
        "code": cause.code,
        "sentence": words.cause_plain(cause),
        "since": cause.since,
        "next": cause.next,
        "tries": cause.tries,
    });
    if let (Role::Admin, Some(said)) = (role, cause.said()) {
        value["said"] = said.into();
    }
    value
}

fn with_cause(value: &impl Serialize, of: Option<&Cause>, words: &Words, role: Role) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    value["cause"] = cause(of, words, role);
    value
}

pub(super) fn row(row: &Row, words: &Words, role: Role) -> Value {
    let mut value = with_cause(row, row.cause.as_ref(), words, role);
    if let Some(progress) = &row.progress {
        value["progress"]["steps"] =
            progress.steps.iter().map(|step| with_cause(step, step.cause.as_ref(), words, role)).collect();
    }
    value
}

pub(super) fn account(account: &Account, words: &Words, role: Role) -> Value {
    let mut value = serde_json::to_value(account).unwrap_or(Value::Null);
    if let (Value::Object(value), Value::Object(row)) = (&mut value, row(&account.row, words, role)) {
        value.extend(row);
    }
    value
}

pub(super) fn run(run: &Run, words: &Words, role: Role) -> Value {
    with_cause(run, run.cause.as_ref(), words, role)
}

pub(super) fn test(test: &Test, words: &Words, role: Role) -> Value {
    let mut value = serde_json::to_value(test).unwrap_or(Value::Null);
    value["steps"] = test.steps.iter().map(|step| with_cause(step, step.cause.as_ref(), words, role)).collect();
    value
}

/// A page whose items are drawn one by one.
pub(super) fn page<T>(page: &Page<T>, item: impl Fn(&T) -> Value) -> Value {
    json!({ "items": page.items.iter().map(item).collect::<Vec<_>>(), "next": page.next, "total": page.total })
}

/// A fault as `application/problem+json`.
pub(crate) fn problem(fault: &Fault, words: &Words, by: Option<&SignedIn>) -> Response {
    let kind = fault.kind();
    let mut value = json!({
        "type": format!("urn:connectord:problem:{kind}"),
        "title": words.of("fault", kind),
        "status": fault.status().as_u16(),
    });
    let role = by.map_or(Role::Own, |by| by.caller.role);
    match fault {
        Fault::Role(role) => value["needed"] = role.word().into(),
        Fault::TooMany(seconds) => value["retry_after_s"] = (*seconds).into(),
        Fault::Refusal(refusal) => match refusal.as_ref() {
            Refusal::Fields(fields) => {
                let sentence = |problem: &str| {
                    let key = format!("problem.{problem}");
                    if words.has(&key) { words.t(&key).to_owned() } else { problem.to_owned() }
                };
                value["fields"] = fields
                    .iter()
                    .map(|field| json!({ "field": field.field, "problem": field.problem, "sentence": sentence(&field.problem) }))
                    .collect();
            }
            Refusal::Duplicate { id, address } if role != Role::Own => {
                value["account"] = id.as_str().into();
                value["address"] = address.as_str().into();
            }
            Refusal::Changed { current, .. } => value["current"] = account(current, words, role),
            Refusal::TestFailed(failed) => value["test"] = test(failed, words, role),
            Refusal::Unavailable(why) if role != Role::Own => value["detail"] = why.as_str().into(),
            _ => {}
        },
        _ => {}
    }
    let mut response = written(fault.status(), "application/problem+json", &value.to_string());
    if let Fault::TooMany(seconds) = fault {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    if matches!(fault, Fault::SignIn) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
