//! Users, messages, quarantine, parked and the log by the API.

use axum::extract::Path;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::answer::json_of;
use crate::app::{Answered, Ask, Fault, Json};
use crate::backend::{FieldProblem, Refusal, UserQuery};
use crate::web::{held as web_held, log as web_log, messages as web_messages};

/// At most a thousand names.
pub(super) fn ids(value: &Value) -> Result<Vec<String>, Fault> {
    let wrong = || Fault::from(Refusal::Fields(vec![FieldProblem::new("ids", "no_choice")]));
    let ids = value.as_array().filter(|ids| ids.len() <= 1000).ok_or_else(wrong)?;
    ids.iter().map(|id| id.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
}

fn ids_of(value: &Value) -> Result<Vec<String>, Fault> {
    ids(value.get("ids").unwrap_or(&Value::Null))
}

pub(super) async fn users(ask: Ask) -> Answered {
    let with_accounts = match ask.query.get("with") {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let limit = ask.query.get("limit").parse().unwrap_or(50).clamp(1, 200);
    let query = UserQuery { text: ask.query.get("q").to_owned(), with_accounts, after: ask.query.some("after"), limit };
    Ok(json_of(StatusCode::OK, &ask.app.backend.users(&query).await?))
}

pub(super) async fn messages(ask: Ask) -> Answered {
    let query = web_messages::asked(&ask.query, ask.own_user(), ask.words.now);
    let mut page = ask.app.backend.messages(&query).await?;
    page.items.retain(|message| ask.see(&message.deliver_to).is_ok());
    Ok(json_of(StatusCode::OK, &page))
}

pub(super) async fn message(Path(id): Path<String>, ask: Ask) -> Answered {
    let (message, trail) = ask.app.backend.message(&id).await?;
    ask.see(&message.deliver_to)?;
    Ok(json_of(StatusCode::OK, &json!({ "message": message, "trail": trail })))
}

pub(super) async fn quarantine(ask: Ask) -> Answered {
    let mut page = ask.app.backend.quarantine(&web_held::asked(&ask.query, ask.own_user())).await?;
    page.items.retain(|held| ask.see(&held.deliver_to).is_ok());
    Ok(json_of(StatusCode::OK, &page))
}

pub(super) async fn held(Path(id): Path<String>, ask: Ask) -> Answered {
    let held = ask.app.backend.held(&id).await?;
    ask.see(&held.held.deliver_to)?;
    Ok(json_of(StatusCode::OK, &held))
}

fn count(count: u64) -> Answered {
    Ok(json_of(StatusCode::OK, &json!({ "count": count })))
}

pub(super) async fn release(ask: Ask, Json(value): Json) -> Answered {
    let learn = value.get("learn_as_good").and_then(Value::as_bool).unwrap_or(false);
    count(ask.app.backend.release(&ask.by.caller, &ids_of(&value)?, learn).await?)
}

pub(super) async fn discard(ask: Ask, Json(value): Json) -> Answered {
    count(ask.app.backend.discard(&ask.by.caller, &ids_of(&value)?).await?)
}

pub(super) async fn parked(ask: Ask) -> Answered {
    Ok(json_of(StatusCode::OK, &ask.app.backend.parked(&web_held::asked(&ask.query, None)).await?))
}

pub(super) async fn settle(Path(action): Path<String>, ask: Ask, Json(value): Json) -> Answered {
    let action = action.parse().map_err(|_| Fault::NOT_FOUND)?;
    count(ask.app.backend.settle_parked(&ask.by.caller, &ids_of(&value)?, action).await?)
}

pub(super) async fn log(ask: Ask) -> Answered {
    let lines = ask.app.backend.log(&web_log::asked(&ask.query)).await?;
    Ok(json_of(StatusCode::OK, &json!({ "items": lines })))
}
