//! The installation, people and tokens by the API; metrics and health for machines.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answer::{self, json_of};
use crate::app::{Answered, App, Ask, Fault, Json};
use crate::backend::{FieldProblem, Overview, PartState, Refusal};
use crate::person::Via;
use crate::web::{Problem, make_link, make_token, note};

pub(super) async fn me(ask: Ask) -> Answered {
    let caller = &ask.by.caller;
    Ok(json_of(
        StatusCode::OK,
        &json!({ "name": caller.name, "role": caller.role, "user": caller.user, "ends": ask.by.ends }),
    ))
}

pub(super) async fn overview(ask: Ask) -> Answered {
    let hours = ask.query.get("hours").parse().unwrap_or(24).clamp(1, 24 * 90);
    let overview = ask.app.backend.overview(hours).await?;
    let role = ask.by.caller.role;
    let mut value = serde_json::to_value(&overview).unwrap_or_default();
    value["running"] = overview.running.iter().map(|row| answer::row(row, &ask.words, role)).collect();
    let cause = |line: &crate::backend::CauseLine| {
        let mut value = serde_json::to_value(line).unwrap_or_default();
        value["cause"] = answer::cause(Some(&line.cause), &ask.words, role);
        value
    };
    value["causes"] = overview.causes.iter().map(cause).collect();
    Ok(json_of(StatusCode::OK, &value))
}

pub(super) async fn installation(ask: Ask) -> Answered {
    Ok(json_of(StatusCode::OK, &ask.app.backend.installation().await?))
}

pub(super) async fn health(ask: Ask) -> Answered {
    Ok(json_of(StatusCode::OK, &json!({ "items": ask.app.backend.health().await? })))
}

pub(super) async fn people(ask: Ask) -> Answered {
    let people = ask.app.gate.people().await?;
    let person = |(name, person): &(String, crate::person::Person)| json!({ "name": name, "role": person.role, "user": person.user, "created": person.created });
    Ok(json_of(StatusCode::OK, &json!({ "items": people.iter().map(person).collect::<Vec<_>>() })))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("")
}

fn user(value: &Value) -> Option<String> {
    Some(text(value, "user").to_owned()).filter(|user| !user.is_empty())
}

fn fault(problem: Problem) -> Fault {
    match problem {
        Problem::Field(problem) => Refusal::Fields(vec![FieldProblem::new("", problem)]).into(),
        Problem::Fault(fault) => fault,
    }
}

pub(super) async fn invite(ask: Ask, Json(value): Json) -> Answered {
    let link = make_link(&ask, text(&value, "name"), text(&value, "role"), user(&value)).await;
    let (link, expires) = link.map_err(fault)?;
    Ok(json_of(StatusCode::CREATED, &json!({ "link": link, "expires": expires })))
}

/// For the one at the machine, whose user id the system vouches for: whoever can sign in, or has a token, needs no first link.
pub(super) async fn first_start(ask: Ask) -> Answered {
    if ask.by.caller.via != Via::Socket {
        return Err(Fault::Request(StatusCode::FORBIDDEN, "local_only"));
    }
    let link = crate::first_start(ask.app.gate.keep.as_ref()).await?;
    let link = link.ok_or(Fault::Request(StatusCode::CONFLICT, "not_first"))?;
    note(&ask, "person.first_link", "", "").await;
    let whole = format!("{}{}", ask.app.options.base(), link.path);
    Ok(json_of(StatusCode::CREATED, &json!({ "link": whole, "expires": link.expires })))
}

pub(super) async fn remove_person(Path(name): Path<String>, ask: Ask) -> Answered {
    let name = name.to_lowercase();
    if ask.app.gate.person(&name).await?.is_none() {
        return Err(Fault::NOT_FOUND);
    }
    if !ask.app.gate.remove_person(&name).await? {
        return Err(Fault::Request(StatusCode::CONFLICT, "last_admin"));
    }
    note(&ask, "person.remove", &name, "").await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn tokens(ask: Ask) -> Answered {
    let tokens = ask.app.gate.tokens().await?;
    let token = |(digest, token): &(String, crate::gate::TokenRecord)| json!({ "id": digest, "name": token.name, "role": token.role, "user": token.user, "created": token.created, "by": token.by });
    Ok(json_of(StatusCode::OK, &json!({ "items": tokens.iter().map(token).collect::<Vec<_>>() })))
}

pub(super) async fn new_token(ask: Ask, Json(value): Json) -> Answered {
    let token = make_token(&ask, text(&value, "name"), text(&value, "role"), user(&value)).await.map_err(fault)?;
    Ok(json_of(StatusCode::CREATED, &json!({ "token": token })))
}

pub(super) async fn remove_token(Path(digest): Path<String>, ask: Ask) -> Answered {
    if !ask.app.gate.remove_token(&digest).await? {
        return Err(Fault::NOT_FOUND);
    }
    note(&ask, "token.remove", &digest.chars().take(8).collect::<String>(), "").await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn audit(ask: Ask) -> Answered {
    let limit = ask.query.get("limit").parse().unwrap_or(100).clamp(1, 200);
    Ok(json_of(StatusCode::OK, &ask.app.backend.audit(ask.query.some("after").as_deref(), limit).await?))
}

/// The process answers.
pub(super) async fn alive() -> Response {
    plain(StatusCode::OK, "ok\n".to_owned())
}

/// The state can be read, and no part of the installation is down. Says nothing more: nobody is signed in.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.backend.overview(1).await {
        Ok(overview) if overview.health.iter().all(|part| part.state != PartState::Down) => {
            plain(StatusCode::OK, "ready\n".to_owned())
        }
        _ => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
    }
}

fn plain(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))], text).into_response()
}

pub(super) async fn metrics(ask: Ask) -> Answered {
    let overview = ask.app.backend.overview(24).await?;
    let overdue = overdue(ask.app.backend.as_ref(), ask.words.now).await?;
    let text = exposition(&overview, overdue);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response())
}

/// For how many seconds the most overdue check waits, among the accounts that are longest without a good one: a page of those that are well,
/// and one of those that are delayed. What waits for a person has no next check.
async fn overdue(backend: &dyn crate::backend::Backend, now: crate::at::At) -> Result<u64, Refusal> {
    use crate::backend::{AccountQuery, Activity, Health, Sort};
    let mut most = 0;
    for health in [Health::Ok, Health::Delayed] {
        let query = AccountQuery {
            health: Some(health),
            activity: Some(Activity::Idle),
            sort: Sort::LastOk,
            limit: 200,
            ..AccountQuery::default()
        };
        let (page, _) = backend.accounts(&query).await?;
        most = page.items.iter().filter_map(|row| Some(now.since(row.next?))).fold(most, u64::max);
    }
    Ok(most)
}

/// Figures as Prometheus reads them. Labels are our own words and parts of the installation: no account, host, user or sender, of
/// which there is no end.
fn exposition(o: &Overview, overdue: u64) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP connectord_{name} {help}\n# TYPE connectord_{name} gauge");
        for (labels, value) in values {
            let _ = writeln!(text, "connectord_{name}{labels} {value}");
        }
    };
    let label = |name: &str, value: &str| {
        let value: String =
            value.chars().filter(|c| c.is_ascii_alphanumeric() || " ._-/:".contains(*c)).take(64).collect();
        format!("{{{name}=\"{value}\"}}")
    };
    let health: Vec<_> = crate::backend::Health::ALL
        .iter()
        .map(|health| (label("health", health.word()), o.accounts.of(health)))
        .collect();
    gauge("accounts", "Accounts by health.", &health);
    let activity = [("checking", o.checking), ("queued", o.queued), ("listening", o.listening)];
    gauge("activity", "Accounts by what they do.", &activity.map(|(word, n)| (label("activity", word), n)));
    let today = [("delivered", o.today.delivered), ("spam", o.today.spam), ("quarantined", o.today.quarantined)];
    gauge("messages_today", "Messages since midnight.", &today.map(|(word, n)| (label("state", word), n)));
    gauge("quarantine_messages", "Messages in quarantine.", &[(String::new(), o.quarantine)]);
    gauge("parked_messages", "Parked messages.", &[(String::new(), o.parked)]);
    let causes: Vec<_> = crate::cause::Code::ALL
        .iter()
        .map(|code| {
            (
                label("cause", code.word()),
                o.causes.iter().filter(|line| line.cause.code == *code).map(|line| line.accounts).sum(),
            )
        })
        .collect();
    gauge("cause_accounts", "Accounts by why they are not well.", &causes);
    let parts: Vec<_> = o
        .health
        .iter()
        .take(50)
        .map(|part| (label("part", &part.name), u64::from(part.state != PartState::Down)))
        .collect();
    gauge("part_up", "Whether a part of the installation answers.", &parts);
    gauge("check_overdue_seconds", "How long the most overdue check waits.", &[(String::new(), overdue)]);
    gauge("start_time_seconds", "When the daemon began.", &[(String::new(), u64::try_from(o.since.0).unwrap_or(0))]);
    text
}
