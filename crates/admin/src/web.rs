//! The page: server-rendered, and whole without a script.

mod account;
pub(crate) mod accounts;
mod assets;
mod bulk;
mod chart;
mod events;
mod form;
mod frame;
pub(crate) mod held;
pub(crate) mod log;
pub(crate) mod messages;
mod overview;
mod parts;
mod settings;
mod sign_in;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::app::{App, Fault};
use crate::backend::Refusal;
use crate::gate::SignedIn;
use crate::words::Words;

pub(crate) use account::{may_check, may_edit, seen};
pub(crate) use form::{bind, may_add};
pub(crate) use frame::Frame;
pub(crate) use held::download;
pub(crate) use settings::{Problem, make_link, make_token, note};

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/accounts", get(accounts::show).post(form::create))
        .route("/accounts/new", get(form::new))
        .route("/accounts/test", post(form::test))
        .route("/accounts/bulk", post(bulk::act))
        .route("/accounts/import", get(bulk::import).post(bulk::import_rows))
        .route("/accounts/export.csv", get(bulk::export))
        .route("/accounts/{id}", get(account::show))
        .route("/accounts/{id}/settings", get(form::edit).post(form::save))
        .route("/accounts/{id}/runs", get(account::runs))
        .route("/accounts/{id}/messages", get(account::messages))
        .route("/accounts/{id}/delete", get(account::ask_delete).post(account::delete))
        .route("/accounts/{id}/check", post(account::check))
        .route("/accounts/{id}/stop", post(account::stop))
        .route("/accounts/{id}/switch", post(account::switch))
        .route("/users", get(users::show))
        .route("/messages", get(messages::show))
        .route("/messages/{id}", get(messages::one))
        .route("/quarantine", get(held::quarantine).post(held::act_on_quarantine))
        .route("/quarantine/{id}", get(held::one))
        .route("/quarantine/{id}/message.eml", get(download))
        .route("/parked", get(held::parked).post(held::act_on_parked))
        .route("/log", get(log::show))
        .route("/settings", get(settings::show))
        .route("/settings/people", get(settings::people).post(settings::invite))
        .route("/settings/tokens", get(settings::tokens).post(settings::new_token))
        .route("/settings/audit", get(settings::audit))
        .route("/me", get(sign_in::me))
        .route("/me/password", post(sign_in::new_password))
        .route("/looks", post(sign_in::looks))
        .route("/sign-in", get(sign_in::show).post(sign_in::enter))
        .route("/sign-out", post(sign_in::leave))
        .route("/start/{token}", get(sign_in::start).post(sign_in::accept))
        .route("/events", get(events::stream))
        .route("/assets/{file}", get(assets::serve))
}

/// A template as an answer.
pub(crate) fn page(status: StatusCode, template: &impl askama::Template) -> Response {
    match template.render() {
        Ok(html) => {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            (status, [kind], Body::from(html)).into_response()
        }
        // Templates write to memory and call nothing that fails.
        Err(error) => {
            tracing::error!(%error, "template");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Leads on with GET, so that a reload repeats nothing.
pub(crate) fn see(address: &str) -> Response {
    let address = HeaderValue::from_str(address).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, address)]).into_response()
}

/// Whether an address is one of ours to lead on to: a path, not `//host` and not a scheme.
pub(crate) fn is_ours(address: &str) -> bool {
    address.starts_with('/') && !address.starts_with("//") && !address.contains(['\\', '\r', '\n', '\t'])
}

#[derive(askama::Template)]
#[template(path = "fault.html")]
struct FaultPage {
    f: Frame,
    sentence: String,
    detail: String,
    retry: bool,
}

/// A fault as a page; whoever is not signed in is led to sign in, and back.
pub(crate) async fn fault_page(
    app: &App,
    fault: &Fault,
    words: Words,
    by: Option<SignedIn>,
    method: &Method,
    headers: &HeaderMap,
    address: &str,
) -> Response {
    if matches!(fault, Fault::SignIn) {
        // A link in a mail arrives without the cookie, which is strict: this page asks again from our own site.
        let from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
        if from_elsewhere && method == Method::GET && is_ours(address) {
            return sign_in::once_more(headers, words, address);
        }
        let next = if method == Method::GET && address != "/" { address } else { "" };
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        return see(&if next.is_empty() { "/sign-in".to_owned() } else { format!("/sign-in?{query}") });
    }
    let title = words.of(
        "fault_title",
        match fault.status().as_u16() {
            404 => "404",
            403 => "403",
            503 => "503",
            _ => "other",
        },
    );
    let detail = match fault {
        Fault::Role(role) => words.of("role", role.word()),
        Fault::TooMany(seconds) => words.about(seconds),
        Fault::Refusal(refusal) => match refusal.as_ref() {
            Refusal::Unavailable(why) => why.clone(),
            _ => String::new(),
        },
        _ => String::new(),
    };
    let sentence = words.of("fault", fault.kind());
    let rail = if by.is_some() { app.rail().await } else { crate::app::Rail::default() };
    let f = Frame::new(words, headers, by, rail, title, "", address);
    let retry = matches!(fault.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
    page(fault.status(), &FaultPage { f, sentence, detail, retry })
}
