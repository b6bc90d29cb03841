//! Accounts by the API.

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::mpsc;

use super::answer::{self, json_of};
use crate::app::{Answered, Ask, Fault, Json};
use crate::backend::{Account, Entered, FieldProblem, Refusal, Saving, Which};
use crate::csv::{self, Outcome};
use crate::entered::{of_json, secret_problem};
use crate::fields::Fields;
use crate::web::{accounts::asked, bind, may_add, may_check, may_edit, seen};

fn limit(ask: &Ask) -> usize {
    ask.query.get("limit").parse().unwrap_or(50).clamp(1, 200)
}

fn count(count: u64) -> Answered {
    Ok(json_of(StatusCode::OK, &json!({ "count": count })))
}

fn drawn(ask: &Ask, status: StatusCode, account: &Account) -> Response {
    let mut response = json_of(status, &answer::account(account, &ask.words, ask.by.caller.role));
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", account.row.etag)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

pub(super) async fn list(ask: Ask) -> Answered {
    let (mut page, counts) = ask.app.backend.accounts(&asked(&ask.query, ask.own_user())).await?;
    page.items.retain(|row| ask.see(&row.deliver_to).is_ok());
    let mut value = answer::page(&page, |row| answer::row(row, &ask.words, ask.by.caller.role));
    value["counts"] = json!(counts);
    Ok(json_of(StatusCode::OK, &value))
}

pub(super) async fn one(Path(id): Path<String>, ask: Ask) -> Answered {
    let account = seen(&ask, &id).await?;
    Ok(drawn(&ask, StatusCode::OK, &account))
}

/// Settings of a body, bound to the caller's own user where that is all they may.
fn entered(ask: &Ask, value: serde_json::Value) -> Result<Entered, Fault> {
    let mut value = value;
    if let (Some(user), Some(fields)) = (ask.own_user(), value.as_object_mut()) {
        fields.insert("deliver_to".to_owned(), json!([user]));
    }
    let mut entered = of_json(value).map_err(Refusal::Fields)?;
    bind(ask, &mut entered.settings);
    Ok(entered)
}

fn refuse(problem: Option<FieldProblem>) -> Result<(), Fault> {
    problem.map_or(Ok(()), |problem| Err(Refusal::Fields(vec![problem]).into()))
}

pub(super) async fn create(ask: Ask, Json(value): Json) -> Answered {
    may_add(&ask)?;
    let entered = entered(&ask, value)?;
    refuse(secret_problem(&entered, None))?;
    let key = ask.headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let saving = Saving {
        idempotency_key: key.map(|key| own_key(&ask, key)),
        if_match: None,
        untested: ask.query.get("untested") == "true",
    };
    let id = ask.app.backend.create(&ask.by.caller, entered, saving).await?;
    let account = ask.app.backend.account(&id).await?;
    let mut response = drawn(&ask, StatusCode::CREATED, &account);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/accounts/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// A key as the back end has it: nobody gets at what another made with the same one.
pub(crate) fn own_key(ask: &Ask, key: &str) -> String {
    format!("{} {}", ask.by.caller.name, key.chars().take(200).collect::<String>())
}

/// The version of `If-Match`; `*` is any.
fn if_match(ask: &Ask) -> Option<Option<String>> {
    let field = ask.headers.get(header::IF_MATCH)?.to_str().ok()?.trim();
    if field == "*" { Some(None) } else { Some(Some(field.trim_start_matches("W/").trim_matches('"').to_owned())) }
}

pub(super) async fn replace(Path(id): Path<String>, ask: Ask, Json(value): Json) -> Answered {
    let before = may_edit(&ask, &id).await?;
    // Without it the last one to save would win, and nobody would know.
    let if_match = if_match(&ask).ok_or(Fault::Request(StatusCode::PRECONDITION_REQUIRED, "if_match"))?;
    let entered = entered(&ask, value)?;
    refuse(secret_problem(&entered, Some(&(before.settings, before.secret.set))))?;
    let saving = Saving { idempotency_key: None, if_match, untested: ask.query.get("untested") == "true" };
    ask.app.backend.update(&ask.by.caller, &id, entered, saving).await?;
    let account = ask.app.backend.account(&id).await?;
    Ok(drawn(&ask, StatusCode::OK, &account))
}

pub(super) async fn remove(Path(id): Path<String>, ask: Ask) -> Answered {
    may_edit(&ask, &id).await?;
    let etag = if_match(&ask).flatten();
    ask.app.backend.delete(&ask.by.caller, &id, etag.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn check(Path(id): Path<String>, ask: Ask) -> Answered {
    may_check(&ask, &id).await?;
    count(ask.app.backend.check(&ask.by.caller, Which::Ids(vec![id])).await?)
}

pub(super) async fn stop(Path(id): Path<String>, ask: Ask) -> Answered {
    may_check(&ask, &id).await?;
    count(ask.app.backend.stop(&ask.by.caller, Which::Ids(vec![id])).await?)
}

pub(super) async fn enable(Path(id): Path<String>, ask: Ask) -> Answered {
    may_edit(&ask, &id).await?;
    count(ask.app.backend.switch(&ask.by.caller, Which::Ids(vec![id]), true).await?)
}

pub(super) async fn disable(Path(id): Path<String>, ask: Ask) -> Answered {
    may_edit(&ask, &id).await?;
    count(ask.app.backend.switch(&ask.by.caller, Which::Ids(vec![id]), false).await?)
}

pub(super) async fn runs(Path(id): Path<String>, ask: Ask) -> Answered {
    seen(&ask, &id).await?;
    let page = ask.app.backend.runs(&id, ask.query.some("after").as_deref(), limit(&ask)).await?;
    Ok(json_of(StatusCode::OK, &answer::page(&page, |run| answer::run(run, &ask.words, ask.by.caller.role))))
}

/// `{"ids": [...]}`, or `{"filter": {"state": "delayed"}}` with the names of the list's query; `{"filter": {}}` is all.
fn which(value: &serde_json::Value) -> Result<Which, Fault> {
    if let Some(ids) = value.get("ids") {
        return super::others::ids(ids).map(Which::Ids);
    }
    let Some(filter) = value.get("filter").and_then(serde_json::Value::as_object) else {
        return Err(Refusal::Fields(vec![FieldProblem::new("ids", "missing")]).into());
    };
    let mut fields = Fields::default();
    for (name, value) in filter {
        let known = ["q", "state", "activity", "user", "host", "cause", "source"].contains(&name.as_str());
        match value.as_str() {
            // A filter that is not understood would mean all accounts.
            Some(text) if known => fields.0.push((name.clone(), text.to_owned())),
            _ => return Err(Refusal::Fields(vec![FieldProblem::new(name, "no_field")]).into()),
        }
    }
    let query = asked(&fields, None);
    let understood = (fields.get("state").is_empty() || query.health.is_some())
        && (fields.get("activity").is_empty() || query.activity.is_some())
        && (fields.get("source").is_empty() || query.source.is_some());
    if understood {
        Ok(Which::Matching(Box::new(query)))
    } else {
        Err(Refusal::Fields(vec![FieldProblem::new("filter", "no_choice")]).into())
    }
}

pub(super) async fn check_many(ask: Ask, Json(value): Json) -> Answered {
    count(ask.app.backend.check(&ask.by.caller, which(&value)?).await?)
}

pub(super) async fn stop_many(ask: Ask, Json(value): Json) -> Answered {
    count(ask.app.backend.stop(&ask.by.caller, which(&value)?).await?)
}

/// `{"id": …, "settings": {…}}`; with an id the stored secret may be meant.
pub(super) async fn test(ask: Ask, Json(mut value): Json) -> Answered {
    let id = value.get("id").and_then(serde_json::Value::as_str).map(str::to_owned);
    let before = match &id {
        Some(id) => Some(may_edit(&ask, id).await?),
        None => {
            may_add(&ask)?;
            None
        }
    };
    let settings = value.get_mut("settings").map(serde_json::Value::take).unwrap_or_default();
    let entered = entered(&ask, settings)?;
    let before = before.map(|account| (account.settings, account.secret.set));
    refuse(secret_problem(&entered, before.as_ref()))?;
    ask.app.gate.may_test(&ask.by.caller.name).map_err(|wait| Fault::TooMany(wait.as_secs() + 1))?;
    let (sender, mut steps) = mpsc::channel(16);
    let trying = ask.app.backend.test(&ask.by.caller, id.as_deref(), entered, sender);
    let (test, ()) = tokio::join!(trying, async { while steps.recv().await.is_some() {} });
    Ok(json_of(StatusCode::OK, &answer::test(&test?, &ask.words, ask.by.caller.role)))
}

pub(super) async fn suggest(ask: Ask) -> Answered {
    may_add(&ask)?;
    match ask.app.backend.suggest(ask.query.get("address")).await? {
        Some(settings) => Ok(json_of(StatusCode::OK, &settings)),
        None => Err(Fault::NOT_FOUND),
    }
}

/// `{"csv": "…", "dry_run": true, "untested": false}`; a dry run unless told otherwise.
pub(super) async fn import(ask: Ask, Json(value): Json) -> Answered {
    let text = value.get("csv").and_then(serde_json::Value::as_str).unwrap_or("");
    let flag = |name: &str, default: bool| value.get(name).and_then(serde_json::Value::as_bool).unwrap_or(default);
    let lines = csv::import(&ask, text, flag("dry_run", true), flag("untested", false)).await;
    let lines =
        lines.map_err(|problem| Refusal::Fields(vec![FieldProblem::new("csv", &ask.words.of("import", problem))]))?;
    let line = |line: &csv::Line| {
        let mut value = json!({ "line": line.number, "address": line.address, "outcome": line.outcome.word() });
        if let Outcome::Refused(field, problem) = &line.outcome {
            value["field"] = field.as_str().into();
            value["problem"] = problem.as_str().into();
        }
        value
    };
    Ok(json_of(StatusCode::OK, &json!({ "lines": lines.iter().map(line).collect::<Vec<_>>() })))
}
