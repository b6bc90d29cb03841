//! One account: what it does, its runs, its messages; checking, stopping, switching, deleting.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;

use super::{Frame, chart, messages::rows_of, page, see};
use crate::app::{Answered, Ask, Fault, Form};
use crate::backend::{Account, Activity, Backend, Message, MessageQuery, Page, Run, Which};
use crate::escape::{Markup, trusted};
use crate::person::Role;

/// Checks that the first page of an account shows.
const LAST: usize = 5;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    f: Frame,
    a: Account,
    tab: &'static str,
    past: Markup,
    runs: Page<Run>,
    messages: Page<Message>,
}

/// The account of an address, if it is the caller's to see.
pub(crate) async fn seen(ask: &Ask, id: &str) -> Result<Account, Fault> {
    let account = ask.app.backend.account(id).await?;
    ask.see(&account.row.deliver_to)?;
    Ok(account)
}

async fn draw(ask: Ask, id: &str, tab: &'static str) -> Answered {
    let a = seen(&ask, id).await?;
    let after = ask.query.some("after");
    let runs = match tab {
        "runs" => ask.app.backend.runs(id, after.as_deref(), 50).await?,
        "" => ask.app.backend.runs(id, None, LAST).await?,
        _ => Page::default(),
    };
    let messages = if tab == "messages" {
        let query = MessageQuery {
            account: Some(id.to_owned()),
            user: ask.own_user(),
            after,
            limit: 50,
            ..MessageQuery::default()
        };
        ask.app.backend.messages(&query).await?
    } else {
        Page::default()
    };
    let mut f = Frame::of(&ask, "", "accounts").await.live(format!("account:{id}"));
    f.title.clone_from(&a.row.address);
    let past = if tab.is_empty() { trusted(past(&f, &a, &runs)) } else { trusted(String::new()) };
    Ok(page(StatusCode::OK, &AccountPage { f, a, tab, past, runs, messages }))
}

impl AccountPage {
    fn message_rows(&self) -> Markup {
        rows_of(&self.f, &self.messages)
    }
}

#[derive(Template)]
#[template(path = "part_account.html")]
struct LivePart<'a> {
    f: &'a Frame,
    a: &'a Account,
}

#[derive(Template)]
#[template(path = "part_go.html")]
struct GoPart<'a> {
    f: &'a Frame,
    a: &'a Account,
}

#[derive(Template)]
#[template(path = "part_past.html")]
struct PastPart<'a> {
    f: &'a Frame,
    a: &'a Account,
    tab: &'static str,
    strip: Markup,
    days: Markup,
    days_total: u64,
    runs: &'a Page<Run>,
}

/// What the checks that have ended left.
fn past(f: &Frame, a: &Account, runs: &Page<Run>) -> String {
    let well = a.checks.iter().filter(|check| **check == 0).count() as u64;
    let strip = chart::strip(&a.checks, &f.w.n("account.checks_title", well));
    let days_total = a.days.iter().sum();
    let days = chart::days(&a.days, &f.w.n("account.days_title", days_total));
    PastPart { f, a, tab: "", strip, days, days_total, runs }.render().unwrap_or_default()
}

/// What moves on the page of an account; what has ended moves when nothing runs.
pub(super) async fn fragments(f: &Frame, a: &Account, backend: &dyn Backend) -> Vec<(String, String)> {
    let part = |id: &str, html: askama::Result<String>| (id.to_owned(), html.unwrap_or_default());
    let mut parts =
        vec![part("account-live", LivePart { f, a }.render()), part("account-go", GoPart { f, a }.render())];
    if a.row.activity != Activity::Checking
        && let Ok(runs) = backend.runs(&a.row.id, None, LAST).await
    {
        parts.push(("account-past".to_owned(), past(f, a, &runs)));
    }
    parts
}

pub(super) async fn show(Path(id): Path<String>, ask: Ask) -> Answered {
    draw(ask, &id, "").await
}

pub(super) async fn runs(Path(id): Path<String>, ask: Ask) -> Answered {
    draw(ask, &id, "runs").await
}

pub(super) async fn messages(Path(id): Path<String>, ask: Ask) -> Answered {
    draw(ask, &id, "messages").await
}

/// Whether the caller may check this account: operators all of them, others their own.
pub(crate) async fn may_check(ask: &Ask, id: &str) -> Result<Account, Fault> {
    let account = seen(ask, id).await?;
    if ask.own_user().is_none() {
        ask.need(Role::Operate)?;
    }
    Ok(account)
}

/// Whether the caller may edit this account: administrators all of them, others their own.
pub(crate) async fn may_edit(ask: &Ask, id: &str) -> Result<Account, Fault> {
    let account = seen(ask, id).await?;
    if ask.own_user().is_none() {
        ask.need(Role::Admin)?;
    }
    Ok(account)
}

pub(super) async fn check(Path(id): Path<String>, ask: Ask, Form(_): Form) -> Answered {
    may_check(&ask, &id).await?;
    ask.app.backend.check(&ask.by.caller, Which::Ids(vec![id.clone()])).await?;
    Ok(see(&format!("/accounts/{id}")))
}

pub(super) async fn stop(Path(id): Path<String>, ask: Ask, Form(_): Form) -> Answered {
    may_check(&ask, &id).await?;
    ask.app.backend.stop(&ask.by.caller, Which::Ids(vec![id.clone()])).await?;
    Ok(see(&format!("/accounts/{id}")))
}

pub(super) async fn switch(Path(id): Path<String>, ask: Ask, Form(form): Form) -> Answered {
    may_edit(&ask, &id).await?;
    let on = form.get("on") == "1";
    ask.app.backend.switch(&ask.by.caller, Which::Ids(vec![id.clone()]), on).await?;
    Ok(see(&format!("/accounts/{id}?done={}", if on { "on" } else { "off" })))
}

#[derive(Template)]
#[template(path = "delete.html")]
struct DeletePage {
    f: Frame,
    a: Account,
}

pub(super) async fn ask_delete(Path(id): Path<String>, ask: Ask) -> Answered {
    let a = may_edit(&ask, &id).await?;
    let mut f = Frame::of(&ask, "account.delete", "accounts").await;
    f.title = f.w.named("account.delete_title", &a.row.address);
    Ok(page(StatusCode::OK, &DeletePage { f, a }))
}

pub(super) async fn delete(Path(id): Path<String>, ask: Ask, Form(form): Form) -> Answered {
    may_edit(&ask, &id).await?;
    ask.app.backend.delete(&ask.by.caller, &id, form.some("etag").as_deref()).await?;
    Ok(see("/accounts?done=deleted"))
}
