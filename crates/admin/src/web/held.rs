//! Quarantine and parked messages.

use askama::Template;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;

use super::{Frame, page, see};
use crate::app::{Answered, Ask, Fault, Form};
use crate::backend::{Held, HeldDetail, HeldQuery, Page, Parked, ParkedAction, Why};
use crate::fields::Fields;
use crate::person::Role;

/// Largest message that is handed out, in octets.
const LARGEST: usize = 64 << 20;

#[derive(Template)]
#[template(path = "quarantine.html")]
struct QuarantinePage {
    f: Frame,
    query: Fields,
    why: Option<Why>,
    held: Page<Held>,
    kept: u64,
}

impl QuarantinePage {
    fn is_why(&self, why: &Why) -> bool {
        self.why == Some(*why)
    }

    fn whys(&self) -> &'static [Why] {
        Why::ALL
    }
}

/// Which held messages an address asks for.
pub(crate) fn asked(fields: &Fields, own: Option<String>) -> HeldQuery {
    HeldQuery {
        text: fields.get("q").to_owned(),
        why: fields.get("why").parse().ok(),
        user: own.or_else(|| fields.some("user")),
        after: fields.some("after"),
        limit: fields.get("limit").parse().unwrap_or(50).clamp(1, 200),
    }
}

pub(super) async fn quarantine(ask: Ask) -> Answered {
    let query = asked(&ask.query, ask.own_user());
    let mut held = ask.app.backend.quarantine(&query).await?;
    held.items.retain(|held| ask.see(&held.deliver_to).is_ok());
    let kept = u64::from(ask.app.backend.installation().await?.quarantine_days);
    let f = Frame::of(&ask, "nav.quarantine", "quarantine").await;
    Ok(page(StatusCode::OK, &QuarantinePage { f, why: query.why, query: ask.query, held, kept }))
}

#[derive(Template)]
#[template(path = "held.html")]
struct HeldPage {
    f: Frame,
    d: HeldDetail,
}

pub(super) async fn one(Path(id): Path<String>, ask: Ask) -> Answered {
    let d = ask.app.backend.held(&id).await?;
    ask.see(&d.held.deliver_to)?;
    let mut f = Frame::of(&ask, "messages.no_subject", "quarantine").await;
    if !d.held.subject.is_empty() {
        f.title.clone_from(&d.held.subject);
    }
    Ok(page(StatusCode::OK, &HeldPage { f, d }))
}

/// A message as a file to keep: never shown here, and nothing of it names the file.
pub(crate) async fn download(Path(id): Path<String>, ask: Ask) -> Answered {
    ask.need(Role::Operate)?;
    let octets = ask.app.backend.held_octets(&id, LARGEST).await?;
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"message.eml\"")),
    ];
    Ok((fields, Body::from(octets)).into_response())
}

pub(super) async fn act_on_quarantine(ask: Ask, Form(form): Form) -> Answered {
    ask.need(Role::Operate)?;
    let ids = form.all("id");
    let (backend, caller) = (&ask.app.backend, &ask.by.caller);
    let (done, count) = match form.get("act") {
        "release" => ("released", backend.release(caller, &ids, false).await?),
        "release_good" => ("released", backend.release(caller, &ids, true).await?),
        // A copy that is discarded is gone: the second form says so and is sent with "sure".
        "discard" if form.has("sure") => ("discarded", backend.discard(caller, &ids).await?),
        "discard" => return sure(&ask, ids).await,
        _ => return Err(Fault::Request(StatusCode::BAD_REQUEST, "no_action")),
    };
    Ok(see(&format!("/quarantine?done={done}&count={count}")))
}

#[derive(Template)]
#[template(path = "discard.html")]
struct DiscardPage {
    f: Frame,
    ids: Vec<String>,
}

async fn sure(ask: &Ask, ids: Vec<String>) -> Answered {
    let f = Frame::of(ask, "quarantine.discard_title", "quarantine").await;
    Ok(page(StatusCode::OK, &DiscardPage { f, ids }))
}

#[derive(Template)]
#[template(path = "parked.html")]
struct ParkedPage {
    f: Frame,
    query: Fields,
    parked: Page<Parked>,
}

pub(super) async fn parked(ask: Ask) -> Answered {
    ask.need(Role::Read)?;
    let query = asked(&ask.query, None);
    let parked = ask.app.backend.parked(&query).await?;
    let f = Frame::of(&ask, "nav.parked", "parked").await;
    Ok(page(StatusCode::OK, &ParkedPage { f, query: ask.query, parked }))
}

pub(super) async fn act_on_parked(ask: Ask, Form(form): Form) -> Answered {
    ask.need(Role::Operate)?;
    let action: ParkedAction =
        form.get("act").parse().map_err(|_| Fault::Request(StatusCode::BAD_REQUEST, "no_action"))?;
    let count = ask.app.backend.settle_parked(&ask.by.caller, &form.all("id"), action).await?;
    Ok(see(&format!("/parked?done=parked_{}&count={count}", action.word())))
}
