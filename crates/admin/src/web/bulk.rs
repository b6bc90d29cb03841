//! Many accounts at once: checked, stopped, switched; read from CSV and written to it.

use askama::Template;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;

use super::accounts::asked;
use super::{Frame, page, see};
use crate::app::{Answered, Ask, Fault, Form};
use crate::backend::{AccountQuery, Sort, Which};
use crate::cause::Value;
use crate::csv::{self, Line, Outcome};
use crate::person::Role;

pub(super) async fn act(ask: Ask, Form(form): Form) -> Answered {
    let own = ask.own_user();
    let act = form.get("act").to_owned();
    if own.is_none() {
        ask.need(if matches!(act.as_str(), "on" | "off") { Role::Admin } else { Role::Operate })?;
    }
    let which = if form.get("all") == "1" {
        Which::Matching(Box::new(asked(&form, own)))
    } else {
        let ids = form.all("id");
        for id in &ids {
            super::account::seen(&ask, id).await?;
        }
        Which::Ids(ids)
    };
    let (backend, caller) = (&ask.app.backend, &ask.by.caller);
    let count = match act.as_str() {
        "check" => backend.check(caller, which).await?,
        "stop" => backend.stop(caller, which).await?,
        "on" => backend.switch(caller, which, true).await?,
        "off" => backend.switch(caller, which, false).await?,
        _ => return Err(Fault::Request(StatusCode::BAD_REQUEST, "no_action")),
    };
    let done = match act.as_str() {
        "check" => "checked",
        "stop" => "stopped",
        "on" => "on",
        _ => "off",
    };
    Ok(see(&format!("/accounts?done={done}&count={count}")))
}

#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    f: Frame,
    text: String,
    lines: Vec<Line>,
    problem: String,
    add: u64,
    update: u64,
    refused: u64,
    done: bool,
}

impl ImportPage {
    fn done_words(&self) -> String {
        let words = [("add", self.add), ("update", self.update), ("refused", self.refused)];
        self.f.w.plain("import.done", &words.map(|(name, n)| (name, Value::Count(n))))
    }

    fn reason(&self, line: &Line) -> String {
        let Outcome::Refused(field, problem) = &line.outcome else { return String::new() };
        let key = format!("problem.{problem}");
        let problem = if self.f.w.has(&key) { self.f.w.t(&key).to_owned() } else { problem.clone() };
        if field.is_empty() { problem } else { format!("{}: {problem}", self.f.of_word("field", field)) }
    }
}

async fn draw(
    ask: &Ask,
    status: StatusCode,
    text: String,
    read: Result<Vec<Line>, &'static str>,
    done: bool,
) -> Answered {
    let f = Frame::of(ask, "import.title", "accounts").await;
    let (lines, problem) = match read {
        Ok(lines) => (lines, String::new()),
        Err(problem) => (Vec::new(), f.of_word("import", problem)),
    };
    let count = |word: &str| lines.iter().filter(|line| line.outcome.word() == word).count() as u64;
    let (add, update, refused) = (count("add"), count("update"), count("refused"));
    Ok(page(status, &ImportPage { f, text, lines, problem, add, update, refused, done }))
}

pub(super) async fn import(ask: Ask) -> Answered {
    ask.need(Role::Admin)?;
    draw(&ask, StatusCode::OK, String::new(), Ok(Vec::new()), false).await
}

pub(super) async fn import_rows(ask: Ask, Form(form): Form) -> Answered {
    ask.need(Role::Admin)?;
    let text = form.raw("csv").to_owned();
    let dry = !form.has("really");
    match csv::import(&ask, &text, dry, form.has("untested")).await {
        Ok(lines) => draw(&ask, StatusCode::OK, if dry { text } else { String::new() }, Ok(lines), !dry).await,
        Err(problem) => draw(&ask, StatusCode::UNPROCESSABLE_ENTITY, text, Err(problem), false).await,
    }
}

pub(super) async fn export(ask: Ask) -> Answered {
    ask.need(Role::Admin)?;
    let mut text = csv::head();
    let mut query = AccountQuery { sort: Sort::Address, limit: 200, ..AccountQuery::default() };
    loop {
        let (rows, _) = ask.app.backend.accounts(&query).await?;
        for row in rows.items {
            match ask.app.backend.account(&row.id).await {
                Ok(account) => text.push_str(&csv::line(&account.settings)),
                // Deleted meanwhile.
                Err(crate::Refusal::NotFound) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        query.after = rows.next;
        if query.after.is_none() {
            break;
        }
    }
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"accounts.csv\"")),
    ];
    Ok((fields, Body::from(text)).into_response())
}
