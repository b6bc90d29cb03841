//! Signing in and out, the one-time link, one's own password and looks.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;

use super::{Frame, is_ours, page, see};
use crate::app::{Answered, App, Ask, Fault, Form, OpenForm, Rail, sender, words};
use crate::at::At;
use crate::backend::Audit;
use crate::fields::Fields;
use crate::gate::{Invitation, SignInError, valid_name};
use crate::person::Via;
use crate::server::Peer;
use crate::words::Words;

/// Shortest password.
const SHORTEST: usize = 12;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    f: Frame,
    next: String,
    name: String,
    problem: String,
    /// Nobody can sign in yet: how to make the first link.
    first: bool,
}

fn bare(app: &App, headers: &HeaderMap, title: &str, address: &str) -> Frame {
    let words = words(app, headers);
    let title = words.t(title).to_owned();
    Frame::new(words, headers, None, Rail::default(), title, "", address)
}

fn with_cookie(app: &App, id: &str, mut response: Response) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(&app.gate.set_cookie(id)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

async fn note(app: &App, who: &str, what: &str, detail: &str) {
    let audit = Audit {
        at: At::now(),
        who: who.to_owned(),
        what: what.to_owned(),
        subject: String::new(),
        detail: detail.to_owned(),
    };
    app.backend.note(audit).await;
}

pub(super) async fn show(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answered {
    let query = Fields::read(uri.query().unwrap_or("").as_bytes());
    let f = bare(&app, &headers, "sign_in", "/sign-in");
    let first = app.gate.is_new().await?;
    let form = SignInPage { f, next: query.get("next").to_owned(), name: String::new(), problem: String::new(), first };
    Ok(page(StatusCode::OK, &form))
}

pub(super) async fn enter(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    OpenForm(form): OpenForm,
) -> Answered {
    let (name, next) = (form.get("name").to_lowercase(), form.get("next").to_owned());
    let from = sender(&app, &headers, &peer);
    // A name that no person can have is compared like any other, but not kept in the audit.
    let known = if valid_name(&name) { name.as_str() } else { "?" };
    let refused = match app.gate.sign_in(known, form.raw("password").to_owned(), &from, At::now()).await {
        Ok(id) => {
            note(&app, &name, "sign_in", &from).await;
            let next = if is_ours(&next) { next.as_str() } else { "/" };
            return Ok(with_cookie(&app, &id, see(next)));
        }
        Err(refused) => refused,
    };
    note(&app, known, "sign_in.refused", &from).await;
    let (status, problem) = match refused {
        SignInError::Wrong => (StatusCode::UNAUTHORIZED, "problem.sign_in"),
        SignInError::TooMany(wait) => return Err(Fault::TooMany(wait.as_secs() + 1)),
        SignInError::Keep(error) => return Err(error.into()),
        SignInError::System(why) => return Err(crate::Refusal::Unavailable(why).into()),
    };
    let f = bare(&app, &headers, "sign_in", "/sign-in");
    let problem = f.t(problem).to_owned();
    Ok(page(status, &SignInPage { f, next, name, problem, first: false }))
}

pub(super) async fn leave(ask: Ask, Form(_): Form) -> Answered {
    if let Some(key) = &ask.by.session {
        ask.app.gate.keep.delete(key).await?;
    }
    Ok(with_cookie(&ask.app, "", see("/sign-in")))
}

#[derive(Template)]
#[template(path = "once_more.html")]
struct OnceMorePage {
    f: Frame,
    address: String,
}

/// The same address again, now from our own site: the cookie does not come along with a link of another one.
pub(super) fn once_more(headers: &HeaderMap, words: Words, address: &str) -> Response {
    let title = words.t("sign_in").to_owned();
    let f = Frame::new(words, headers, None, Rail::default(), title, "", address);
    page(StatusCode::OK, &OnceMorePage { f, address: address.to_owned() })
}

#[derive(Template)]
#[template(path = "start.html")]
struct StartPage {
    f: Frame,
    invitation: Option<Invitation>,
    name: String,
    problem: String,
}

/// Shows what the link is for. It is used up by the form and not by opening it: mail programs open links to look at them.
pub(super) async fn start(State(app): State<Arc<App>>, Path(token): Path<String>, headers: HeaderMap) -> Answered {
    let invitation = app.gate.invitation(&token, At::now()).await?;
    let f = bare(&app, &headers, "start.title", "/start");
    let status = if invitation.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let name = invitation.as_ref().and_then(|invitation| invitation.name.clone()).unwrap_or_default();
    Ok(page(status, &StartPage { f, invitation, name, problem: String::new() }))
}

fn password_problem(password: &str) -> Option<&'static str> {
    match password.chars().count() {
        0..SHORTEST => Some("problem.short"),
        _ if password.len() > 512 => Some("problem.too_long"),
        _ => None,
    }
}

pub(super) async fn accept(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Path(token): Path<String>,
    headers: HeaderMap,
    OpenForm(form): OpenForm,
) -> Answered {
    let now = At::now();
    let f = bare(&app, &headers, "start.title", "/start");
    let Some(invitation) = app.gate.invitation(&token, now).await? else {
        let problem = String::new();
        return Ok(page(StatusCode::NOT_FOUND, &StartPage { f, invitation: None, name: String::new(), problem }));
    };
    let name = invitation.name.clone().unwrap_or_else(|| form.get("name").to_lowercase());
    let password = form.raw("password").to_owned();
    let taken = invitation.name.is_none() && app.gate.person(&name).await?.is_some();
    let problem = match password_problem(&password) {
        _ if !valid_name(&name) => Some("problem.no_name"),
        _ if taken => Some("problem.taken"),
        problem => problem,
    };
    if let Some(problem) = problem {
        let problem = f.t(problem).to_owned();
        let form = StartPage { f, invitation: Some(invitation), name, problem };
        return Ok(page(StatusCode::UNPROCESSABLE_ENTITY, &form));
    }
    match app.gate.accept(&token, &invitation, &name, password, now).await {
        Ok(Some(id)) => {
            note(&app, &name, "person.create", &sender(&app, &headers, &peer)).await;
            let first = if app.backend.overview(24).await.is_ok_and(|overview| overview.accounts.total == 0) {
                "/accounts/new"
            } else {
                "/"
            };
            Ok(with_cookie(&app, &id, see(first)))
        }
        Ok(None) => Ok(page(StatusCode::NOT_FOUND, &StartPage { f, invitation: None, name, problem: String::new() })),
        Err(error) => Err(crate::Refusal::Unavailable(error.to_string()).into()),
    }
}

#[derive(Template)]
#[template(path = "me.html")]
struct MePage {
    f: Frame,
    session: bool,
    ends: Option<At>,
    problem: String,
}

async fn draw_me(ask: &Ask, status: StatusCode, problem: &str) -> Answered {
    let f = Frame::of(ask, "nav.me", "me").await;
    let problem = if problem.is_empty() { String::new() } else { f.t(problem).to_owned() };
    let session = ask.by.caller.via == Via::Session;
    Ok(page(status, &MePage { f, session, ends: ask.by.ends, problem }))
}

pub(super) async fn me(ask: Ask) -> Answered {
    draw_me(&ask, StatusCode::OK, "").await
}

pub(super) async fn new_password(ask: Ask, Extension(peer): Extension<Peer>, Form(form): Form) -> Answered {
    if ask.by.caller.via != Via::Session {
        return Err(Fault::NOT_FOUND);
    }
    let name = ask.by.caller.name.clone();
    let password = form.raw("password").to_owned();
    if let Some(problem) = password_problem(&password) {
        return draw_me(&ask, StatusCode::UNPROCESSABLE_ENTITY, problem).await;
    }
    // Whoever finds a screen unlocked cannot lock its owner out.
    let from = sender(&ask.app, &ask.headers, &peer);
    match ask.app.gate.sign_in(&name, form.raw("before").to_owned(), &from, At::now()).await {
        Ok(_) => {}
        Err(SignInError::TooMany(wait)) => return Err(Fault::TooMany(wait.as_secs() + 1)),
        Err(_) => return draw_me(&ask, StatusCode::UNPROCESSABLE_ENTITY, "problem.before").await,
    }
    match ask.app.gate.set_password(&name, password, At::now()).await {
        Ok(Some(id)) => {
            note(&ask.app, &name, "password.change", &from).await;
            Ok(with_cookie(&ask.app, &id, see("/me?done=password")))
        }
        Ok(None) => Err(Fault::NOT_FOUND),
        Err(error) => Err(crate::Refusal::Unavailable(error.to_string()).into()),
    }
}

/// Theme, rows, times and language: cookies of plain words, and nothing else.
pub(super) async fn looks(_: Ask, Form(form): Form) -> Answered {
    const CHOICES: [(&str, &[&str]); 4] = [
        ("theme", &["dark", "light", "system"]),
        ("rows", &["compact", "roomy"]),
        ("times", &["exact", "short"]),
        ("language", &["en", "it", "de", "fr", "es"]),
    ];
    let next = form.get("next");
    let mut response = see(if is_ours(next) { next } else { "/" });
    for (name, words) in CHOICES {
        if let Some(word) = words.iter().find(|word| **word == form.get(name)) {
            let cookie = format!("{name}={word}; Path=/; SameSite=Strict; Max-Age=31536000");
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
        }
    }
    Ok(response)
}
