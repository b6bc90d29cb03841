//! The installation: what the file says, how its parts are, people, tokens, the audit.

use askama::Template;
use axum::http::StatusCode;

use super::{Frame, page, see};
use crate::app::{Answered, Ask, Fault, Form};
use crate::at::At;
use crate::backend::{Audit, Installation, Page, Part};
use crate::gate::{TokenRecord, valid_name};
use crate::person::{Person, Role, Via};

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    f: Frame,
    i: Installation,
    parts: Vec<Part>,
}

pub(super) async fn show(ask: Ask) -> Answered {
    ask.need(Role::Read)?;
    let (i, parts) = tokio::join!(ask.app.backend.installation(), ask.app.backend.health());
    let f = Frame::of(&ask, "nav.settings", "settings").await;
    Ok(page(StatusCode::OK, &SettingsPage { f, i: i?, parts: parts? }))
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    f: Frame,
    people: Vec<(String, Person)>,
    /// A link that was just made.
    link: String,
    expires: At,
    problem: String,
    own: bool,
}

async fn draw_people(ask: &Ask, status: StatusCode, link: String, expires: At, problem: &str) -> Answered {
    let people = ask.app.gate.people().await?;
    let f = Frame::of(ask, "settings.people", "settings").await;
    let problem = if problem.is_empty() { String::new() } else { f.of_word("problem", problem) };
    Ok(page(status, &PeoplePage { f, people, link, expires, problem, own: ask.app.options.own_accounts }))
}

pub(super) async fn people(ask: Ask) -> Answered {
    ask.need(Role::Admin)?;
    draw_people(&ask, StatusCode::OK, String::new(), At(0), "").await
}

/// Invites, or removes, a person.
pub(super) async fn invite(ask: Ask, Form(form): Form) -> Answered {
    ask.need(Role::Admin)?;
    if form.get("act") == "remove" {
        let name = form.get("name").to_lowercase();
        if !ask.app.gate.remove_person(&name).await? {
            return draw_people(&ask, StatusCode::CONFLICT, String::new(), At(0), "last_admin").await;
        }
        note(&ask, "person.remove", &name, "").await;
        return Ok(see("/settings/people?done=person_removed"));
    }
    match make_link(&ask, form.get("name"), form.get("role"), form.some("user")).await {
        Ok((link, expires)) => draw_people(&ask, StatusCode::OK, link, expires, "").await,
        Err(Problem::Field(problem)) => {
            draw_people(&ask, StatusCode::UNPROCESSABLE_ENTITY, String::new(), At(0), problem).await
        }
        Err(Problem::Fault(fault)) => Err(fault),
    }
}

/// Why somebody was not invited, or a token not made.
pub(crate) enum Problem {
    /// A key below `problem.`.
    Field(&'static str),
    Fault(Fault),
}

impl<E: Into<Fault>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// A role with its local user, as asked for.
fn role_of(ask: &Ask, role: &str, user: Option<String>) -> Result<(Role, Option<String>), Problem> {
    let role: Role = role.parse().map_err(|_| Problem::Field("no_choice"))?;
    match (role, user) {
        (Role::Own, _) if !ask.app.options.own_accounts => Err(Problem::Field("own_off")),
        (Role::Own, None) => Err(Problem::Field("own_user")),
        (Role::Own, user) => Ok((role, user)),
        (role, _) => Ok((role, None)),
    }
}

/// A one-time link for somebody to choose a password with.
pub(crate) async fn make_link(
    ask: &Ask,
    name: &str,
    role: &str,
    user: Option<String>,
) -> Result<(String, At), Problem> {
    if !valid_name(name) {
        return Err(Problem::Field("no_name"));
    }
    let (role, user) = role_of(ask, role, user)?;
    let link = ask.app.gate.invite(Some(name.to_lowercase()), role, user, At::now()).await?;
    note(ask, "person.invite", name, role.word()).await;
    Ok((format!("{}{}", ask.app.options.base(), link.path), link.expires))
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    f: Frame,
    tokens: Vec<(String, TokenRecord)>,
    /// A token that was just made, to be seen this once.
    token: String,
    problem: String,
}

async fn draw_tokens(ask: &Ask, status: StatusCode, token: String, problem: &str) -> Answered {
    let tokens = ask.app.gate.tokens().await?;
    let f = Frame::of(ask, "settings.tokens", "settings").await;
    let problem = if problem.is_empty() { String::new() } else { f.of_word("problem", problem) };
    Ok(page(status, &TokensPage { f, tokens, token, problem }))
}

pub(super) async fn tokens(ask: Ask) -> Answered {
    ask.need(Role::Admin)?;
    draw_tokens(&ask, StatusCode::OK, String::new(), "").await
}

pub(super) async fn new_token(ask: Ask, Form(form): Form) -> Answered {
    ask.need(Role::Admin)?;
    if form.get("act") == "remove" {
        let digest = form.get("token").to_owned();
        ask.app.gate.remove_token(&digest).await?;
        note(&ask, "token.remove", &digest[..digest.len().min(8)], "").await;
        return Ok(see("/settings/tokens?done=token_removed"));
    }
    match make_token(&ask, form.get("name"), form.get("role"), form.some("user")).await {
        Ok(token) => draw_tokens(&ask, StatusCode::OK, token, "").await,
        Err(Problem::Field(problem)) => {
            draw_tokens(&ask, StatusCode::UNPROCESSABLE_ENTITY, String::new(), problem).await
        }
        Err(Problem::Fault(fault)) => Err(fault),
    }
}

/// An API token.
pub(crate) async fn make_token(ask: &Ask, name: &str, role: &str, user: Option<String>) -> Result<String, Problem> {
    if !valid_name(name) {
        return Err(Problem::Field("no_name"));
    }
    let (role, user) = role_of(ask, role, user)?;
    let record = TokenRecord { name: name.to_owned(), role, user, created: At::now(), by: ask.by.caller.name.clone() };
    let token = ask.app.gate.new_token(record).await.map_err(|e| crate::Refusal::Unavailable(e.to_string()))?;
    note(ask, "token.create", name, role.word()).await;
    Ok(token)
}

/// A line of the audit.
pub(crate) async fn note(ask: &Ask, what: &str, subject: &str, detail: &str) {
    let via = match ask.by.caller.via {
        Via::Session => "",
        Via::Token => "token ",
        Via::Socket => "socket ",
    };
    let audit = Audit {
        at: At::now(),
        who: format!("{via}{}", ask.by.caller.name),
        what: what.to_owned(),
        subject: subject.to_owned(),
        detail: detail.to_owned(),
    };
    ask.app.backend.note(audit).await;
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    f: Frame,
    audit: Page<Audit>,
}

pub(super) async fn audit(ask: Ask) -> Answered {
    ask.need(Role::Admin)?;
    let audit = ask.app.backend.audit(ask.query.some("after").as_deref(), 100).await?;
    let f = Frame::of(&ask, "settings.audit", "settings").await;
    Ok(page(StatusCode::OK, &AuditPage { f, audit }))
}
