//! The list of accounts: searched, filtered, sorted, grouped, a page at a time.

use askama::Template;
use axum::http::StatusCode;

use super::{Frame, page};
use crate::app::{Answered, Ask};
use crate::backend::{AccountQuery, Counts, Group, Health, Page, Row, Sort, Source};
use crate::fields::Fields;

/// Rows of a page.
const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "accounts.html")]
struct AccountsPage {
    f: Frame,
    query: Fields,
    asked: AccountQuery,
    groups: Vec<(String, Vec<Row>)>,
    rows: usize,
    page: Page<Row>,
    counts: Counts,
    /// The search as a sentence, for an empty result.
    search: String,
    filtered: bool,
}

impl AccountsPage {
    fn states(&self) -> [Health; 5] {
        [Health::Action, Health::Delayed, Health::Ok, Health::New, Health::Off]
    }

    fn is_health(&self, health: &Health) -> bool {
        self.asked.health == Some(*health)
    }

    fn sorts(&self) -> &'static [Sort] {
        Sort::ALL
    }
}

/// Reads a query of the list, from an address or a form; words such as `host:gmail` in the search are filters too.
pub(crate) fn asked(fields: &Fields, own: Option<String>) -> AccountQuery {
    let mut query = AccountQuery {
        health: fields.get("state").parse().ok(),
        activity: fields.get("activity").parse().ok(),
        user: fields.some("user"),
        host: fields.some("host"),
        cause: fields.some("cause"),
        source: fields.get("source").parse().ok(),
        sort: fields.get("sort").parse().unwrap_or(Sort::Worst),
        group: fields.get("group").parse().unwrap_or(Group::None),
        after: fields.some("after"),
        limit: fields.get("limit").parse().unwrap_or(ROWS).clamp(1, 200),
        ..AccountQuery::default()
    };
    let mut words = Vec::new();
    for word in fields.get("q").split_whitespace().take(20) {
        match word.split_once(':') {
            Some(("state", value)) if value.parse::<Health>().is_ok() => query.health = value.parse().ok(),
            Some(("host", value)) => query.host = Some(value.to_owned()),
            Some(("user" | "for", value)) => query.user = Some(value.to_owned()),
            Some(("cause", value)) => query.cause = Some(value.to_owned()),
            Some(("source", value)) if value.parse::<Source>().is_ok() => query.source = value.parse().ok(),
            _ => words.push(word),
        }
    }
    query.text = words.join(" ");
    // Last, so that no word of the search changes it.
    if own.is_some() {
        query.user = own;
        query.alone = true;
    }
    query
}

pub(super) async fn show(ask: Ask) -> Answered {
    let mut query = asked(&ask.query, ask.own_user());
    query.limit = query.limit.min(100);
    let (mut page_, counts) = ask.app.backend.accounts(&query).await?;
    page_.items.retain(|row| ask.see(&row.deliver_to).is_ok());
    let ids: Vec<&str> = page_.items.iter().map(|row| row.id.as_str()).collect();
    let live = format!("accounts&ids={}", ids.join(","));
    let f = Frame::of(&ask, "nav.accounts", "accounts").await.live(live);
    let mut groups: Vec<(String, Vec<Row>)> = Vec::new();
    for row in &page_.items {
        let name = if query.group == Group::User {
            row.deliver_to.first().cloned().unwrap_or_default()
        } else {
            String::new()
        };
        match groups.last_mut().filter(|(last, _)| *last == name) {
            Some((_, rows)) => rows.push(row.clone()),
            None => groups.push((name, vec![row.clone()])),
        }
    }
    let parts = ["q", "state", "user", "host", "cause", "source", "activity"].iter();
    let search: Vec<String> = parts
        .filter_map(|name| {
            ask.query.some(name).map(|value| if *name == "q" { value } else { format!("{name}:{value}") })
        })
        .collect();
    let filtered = !search.is_empty();
    let template = AccountsPage {
        f,
        query: ask.query,
        asked: query,
        groups,
        rows: page_.items.len(),
        page: page_,
        counts,
        search: search.join(" "),
        filtered,
    };
    Ok(page(StatusCode::OK, &template))
}

/// The cells of these rows that move, for the stream of events.
pub(super) fn fragments(f: &Frame, row: &Row) -> Vec<(String, String)> {
    let under = match (&row.progress, &row.cause) {
        (Some(progress), _) => f.progress(progress).0,
        (None, Some(cause)) => f.cause_of_row(cause, &row.id).0,
        (None, None) => String::new(),
    };
    let cell = |name: &str, html: String| (format!("{name}-{}", row.id), html);
    vec![
        cell("state", f.state(row).0),
        cell("next", f.w.when_or(&row.next, "none").0),
        cell("today", f.w.count(&row.today)),
        cell("under", format!("<td></td><td colspan=\"7\">{under}</td>")),
    ]
}
