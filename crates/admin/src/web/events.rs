//! What moves: one stream of events a tab, of fragments that pages draw alike.
//!
//! A stream asks the back end again at most four times a second, sends what differs from what it sent, and drives itself: no task
//! outlives the tab. It does not prolong the session and ends with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::Instant;

use super::{Frame, account, accounts, overview};
use crate::app::{Answered, Ask};
use crate::at::At;
use crate::backend::{AccountQuery, Event, LogLine, LogQuery};
use crate::person::Role;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// A stream on which nothing moves says so this often; a proxy may close one that is silent.
const SILENCE: Duration = Duration::from_secs(15);
/// Rows that one stream watches at most.
const ROWS: usize = 100;

enum View {
    Overview,
    Accounts(Vec<String>),
    Account(String),
    Log(LogQuery),
}

struct Live {
    ask: Ask,
    frame: Frame,
    view: View,
    events: Receiver<Event>,
    /// What was sent, by the fragment's id.
    sent: HashMap<String, String>,
    number: u64,
    looked: Option<Instant>,
    over: bool,
}

pub(super) async fn stream(ask: Ask) -> Answered {
    let view = ask.query.get("view").to_owned();
    let view = match view.split_once(':') {
        Some(("account", id)) => {
            account::seen(&ask, id).await?;
            View::Account(id.to_owned())
        }
        _ if view == "accounts" => {
            let ids: Vec<_> =
                ask.query.get("ids").split(',').filter(|id| !id.is_empty()).take(ROWS).map(str::to_owned).collect();
            View::Accounts(ids)
        }
        _ if view == "log" => {
            ask.need(Role::Read)?;
            View::Log(super::log::asked(&ask.query))
        }
        _ => {
            ask.need(Role::Read)?;
            View::Overview
        }
    };
    let events = ask.app.backend.events();
    let frame = Frame::of(&ask, "", "").await;
    let live = Live { ask, frame, view, events, sent: HashMap::new(), number: 0, looked: None, over: false };
    let parts = stream::unfold(live, |mut live| async move {
        let text = live.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), live))
    });
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // nginx would gather a stream before it passes it on.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((fields, Body::from_stream(parts)).into_response())
}

impl Live {
    /// What is sent next; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        if self.looked.is_none() {
            // What changed between the page and this stream.
            return Some(self.look().await);
        }
        let mut stopped = self.ask.app.stopped.clone();
        let silence = Instant::now() + SILENCE;
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = tokio::time::sleep_until(silence) => {
                    return Some(if self.session_lives().await { ": still here\n\n".to_owned() } else { self.bye() });
                }
                () = crate::app::until_stopped(&mut stopped) => return None,
            };
            match event {
                Ok(Event::Log(line)) => {
                    if let Some(text) = self.line(&line) {
                        return Some(text);
                    }
                }
                Ok(event) if self.concerns(&event) => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return None,
            }
        }
        // Gathers what comes within the pause, so that a thousand messages a second are four looks.
        let due = self.looked.map_or_else(Instant::now, |looked| looked + PAUSE);
        tokio::time::sleep_until(due).await;
        if !self.session_lives().await {
            return Some(self.bye());
        }
        Some(self.look().await)
    }

    async fn session_lives(&self) -> bool {
        match &self.ask.by.session {
            Some(key) => self.ask.app.gate.lives(key, At::now()).await,
            None => true,
        }
    }

    fn bye(&mut self) -> String {
        self.over = true;
        "event: bye\ndata: {}\n\n".to_owned()
    }

    fn concerns(&self, event: &Event) -> bool {
        match (&self.view, event) {
            (View::Overview, Event::Overview | Event::Account { .. }) => true,
            (View::Accounts(ids), Event::Account { id } | Event::Gone { id }) => ids.contains(id),
            (View::Account(own), Event::Account { id } | Event::Gone { id }) => own == id,
            _ => false,
        }
    }

    fn line(&mut self, line: &LogLine) -> Option<String> {
        let View::Log(query) = &self.view else { return None };
        if !query.wants(line) {
            return None;
        }
        let html = super::log::line(&self.frame, line);
        Some(self.event("line", &serde_json::json!({ "id": "log", "html": html })))
    }

    fn event(&mut self, name: &str, data: &serde_json::Value) -> String {
        self.number += 1;
        format!("id: {}\nevent: {name}\ndata: {data}\n\n", self.number)
    }

    /// Asks again and sends what differs.
    async fn look(&mut self) -> String {
        self.looked = Some(Instant::now());
        self.frame.w.now = At::now();
        let backend = Arc::clone(&self.ask.app.backend);
        let mut fragments = Vec::new();
        match &self.view {
            View::Log(_) => {}
            View::Overview => {
                if let Ok(overview) = backend.overview(24).await {
                    fragments = overview::fragments(&self.frame, &overview);
                }
            }
            View::Account(id) => match backend.account(id).await {
                Ok(account) if self.ask.see(&account.row.deliver_to).is_ok() => {
                    fragments = account::fragments(&self.frame, &account, backend.as_ref()).await;
                }
                _ => {
                    self.over = true;
                    return "event: gone\ndata: {}\n\n".to_owned();
                }
            },
            View::Accounts(ids) => {
                let query = AccountQuery {
                    user: self.ask.own_user(),
                    alone: self.ask.own_user().is_some(),
                    ids: ids.clone(),
                    limit: ROWS,
                    ..AccountQuery::default()
                };
                if let Ok((rows, _)) = backend.accounts(&query).await {
                    fragments = rows.items.iter().flat_map(|row| accounts::fragments(&self.frame, row)).collect();
                }
            }
        }
        let mut text = String::new();
        for (id, html) in fragments {
            if self.sent.get(&id) != Some(&html) {
                // The first look is what the page shows already, as a rule; sending it again costs a few kilobytes once.
                text.push_str(&self.event("cell", &serde_json::json!({ "id": id, "html": html })));
                self.sent.insert(id, html);
            }
        }
        if text.is_empty() { ": nothing moved\n\n".to_owned() } else { text }
    }
}
