//! The log, as it is written.

use askama::Template;
use axum::http::StatusCode;

use super::{Frame, page};
use crate::app::{Answered, Ask};
use crate::backend::{LogLine, LogQuery};
use crate::fields::Fields;
use crate::person::Role;

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage {
    f: Frame,
    query: Fields,
    lines: Vec<LogLine>,
}

impl LogPage {
    fn line(&self, line: &LogLine) -> crate::escape::Markup {
        crate::escape::trusted(line_of(&self.f, line))
    }
}

#[derive(Template)]
#[template(path = "part_line.html")]
struct LinePart<'a> {
    f: &'a Frame,
    line: &'a LogLine,
}

fn line_of(f: &Frame, line: &LogLine) -> String {
    LinePart { f, line }.render().unwrap_or_default()
}

/// One line as HTML, for the stream of events.
pub(super) fn line(f: &Frame, line: &LogLine) -> String {
    line_of(f, line)
}

/// Which lines an address asks for.
pub(crate) fn asked(fields: &Fields) -> LogQuery {
    LogQuery {
        level: Some(fields.get("level").to_owned())
            .filter(|level| !level.is_empty())
            .unwrap_or_else(|| "info".to_owned()),
        account: fields.get("account").to_owned(),
        text: fields.get("q").to_owned(),
        limit: fields.get("limit").parse().unwrap_or(200).clamp(1, 1000),
    }
}

pub(super) async fn show(ask: Ask) -> Answered {
    ask.need(Role::Read)?;
    let lines = ask.app.backend.log(&asked(&ask.query)).await?;
    let query = ask.query.with("view", "log");
    let live = query.trim_start_matches('?').replace("view=log", "");
    let f = Frame::of(&ask, "nav.log", "log").await.live(format!("log&{}", live.trim_matches('&')));
    Ok(page(StatusCode::OK, &LogPage { f, query: ask.query, lines }))
}
