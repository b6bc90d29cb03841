//! What became of messages.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;

use super::{Frame, page};
use crate::app::{Answered, Ask};
use crate::at::At;
use crate::backend::{Message, MessageQuery, MessageState, Page, Trail};
use crate::escape::{Markup, trusted};
use crate::fields::Fields;

#[derive(Template)]
#[template(path = "messages.html")]
struct MessagesPage {
    f: Frame,
    query: Fields,
    state: Option<MessageState>,
    messages: Page<Message>,
    kept: u64,
}

#[derive(Template)]
#[template(path = "part_messages.html")]
struct RowsPart<'a> {
    f: &'a Frame,
    messages: &'a Page<Message>,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage {
    f: Frame,
    m: Message,
    trail: Vec<Trail>,
}

/// Messages as a table.
pub(super) fn rows_of(f: &Frame, messages: &Page<Message>) -> Markup {
    trusted(RowsPart { f, messages }.render().unwrap_or_default())
}

impl MessagesPage {
    fn states(&self) -> [MessageState; 7] {
        use MessageState::{Delivered, MaybeTwice, Parked, Quarantined, Removed, Spam, Waiting};
        [Delivered, Spam, Quarantined, Parked, Waiting, Removed, MaybeTwice]
    }

    fn is_state(&self, state: &MessageState) -> bool {
        self.state == Some(*state)
    }

    fn rows(&self) -> Markup {
        rows_of(&self.f, &self.messages)
    }
}

/// Which messages an address asks for.
pub(crate) fn asked(fields: &Fields, own: Option<String>, now: At) -> MessageQuery {
    let since = match fields.get("since") {
        "1d" => Some(At(now.0 - 86_400)),
        "7d" => Some(At(now.0 - 7 * 86_400)),
        "30d" => Some(At(now.0 - 30 * 86_400)),
        _ => None,
    };
    MessageQuery {
        text: fields.get("q").to_owned(),
        state: fields.get("state").parse().ok(),
        account: fields.some("account"),
        user: own.or_else(|| fields.some("user")),
        since,
        after: fields.some("after"),
        limit: fields.get("limit").parse().unwrap_or(50).clamp(1, 200),
    }
}

pub(super) async fn show(ask: Ask) -> Answered {
    let query = asked(&ask.query, ask.own_user(), ask.words.now);
    let mut messages = ask.app.backend.messages(&query).await?;
    messages.items.retain(|message| ask.see(&message.deliver_to).is_ok());
    let kept = u64::from(ask.app.backend.installation().await?.trail_days);
    let f = Frame::of(&ask, "nav.messages", "messages").await;
    Ok(page(StatusCode::OK, &MessagesPage { f, state: query.state, query: ask.query, messages, kept }))
}

pub(super) async fn one(Path(id): Path<String>, ask: Ask) -> Answered {
    let (m, trail) = ask.app.backend.message(&id).await?;
    ask.see(&m.deliver_to)?;
    let mut f = Frame::of(&ask, "messages.one", "messages").await;
    if !m.subject.is_empty() {
        f.title.clone_from(&m.subject);
    }
    Ok(page(StatusCode::OK, &MessagePage { f, m, trail }))
}
