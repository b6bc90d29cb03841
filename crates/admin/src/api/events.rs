//! What happens, for programs: server-sent events of JSON.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::answer;
use crate::app::{Answered, Ask};
use crate::at::At;
use crate::backend::Event;
use crate::escape;
use crate::person::Role;
use crate::web::seen;

/// A stream on which nothing happens says so this often.
const SILENCE: Duration = Duration::from_secs(15);

/// `account` (with the account as the list has it), `gone`, `log`, `overview`, `reset` (some were lost: ask anew), `bye`.
///
/// What happened while nobody listened is not kept. Whoever comes back, which `Last-Event-ID` says, is told `reset` first.
pub(super) async fn stream(ask: Ask) -> Answered {
    let only = ask.query.some("account");
    if let Some(id) = &only {
        seen(&ask, id).await?;
    }
    let events = ask.app.backend.events();
    let is_back = ask.headers.contains_key("last-event-id");
    let state = (ask, only, events, 0_u64, false);
    let parts = stream::unfold(state, move |(ask, only, mut events, number, over)| async move {
        if over {
            return None;
        }
        if is_back && number == 0 {
            let reset = Bytes::from_static(b"id: 0\nevent: reset\ndata: {}\n\n");
            return Some((Ok::<_, Infallible>(reset), (ask, only, events, 1, false)));
        }
        let mut stopped = ask.app.stopped.clone();
        loop {
            let (name, data) = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => match draw(&ask, only.as_deref(), event).await {
                        Some(drawn) => drawn,
                        None => continue,
                    },
                    Err(RecvError::Lagged(_)) => ("reset", json!({})),
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep(SILENCE) => ("", json!({})),
                () = crate::app::until_stopped(&mut stopped) => return None,
            };
            let alive = match &ask.by.session {
                Some(key) => ask.app.gate.lives(key, At::now()).await,
                None => true,
            };
            let text = match (alive, name) {
                (false, _) => "event: bye\ndata: {}\n\n".to_owned(),
                (true, "") => ": still here\n\n".to_owned(),
                (true, name) => format!("id: {number}\nevent: {name}\ndata: {}\n\n", escape::json(&data.to_string())),
            };
            return Some((Ok(Bytes::from(text)), (ask, only, events, number + 1, !alive)));
        }
    });
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((fields, Body::from_stream(parts)).into_response())
}

async fn draw(ask: &Ask, only: Option<&str>, event: Event) -> Option<(&'static str, serde_json::Value)> {
    let backend = Arc::clone(&ask.app.backend);
    match event {
        Event::Account { id } if only.is_none_or(|only| only == id) => {
            let account = backend.account(&id).await.ok().filter(|account| ask.see(&account.row.deliver_to).is_ok())?;
            Some(("account", answer::row(&account.row, &ask.words, ask.by.caller.role)))
        }
        // Whose it was is no longer known: only those who see all are told.
        Event::Gone { id } if only.map_or_else(|| ask.need(Role::Read).is_ok(), |only| only == id) => {
            Some(("gone", json!({ "id": id })))
        }
        Event::Log(line) if only.is_none() && ask.need(Role::Read).is_ok() => Some(("log", json!(line))),
        Event::Overview if only.is_none() && ask.need(Role::Read).is_ok() => Some(("overview", json!({}))),
        _ => None,
    }
}
