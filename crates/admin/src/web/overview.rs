//! The first page: is all well, and if not, who must do what.

use askama::Template;
use axum::http::StatusCode;

use super::{Frame, chart::Chart, page, see};
use crate::app::{Answered, Ask};
use crate::backend::{CauseLine, Hour, Overview};
use crate::cause::Value;
use crate::person::Role;

/// Causes of each sort that are listed; the rest is behind a link.
const CAUSES: usize = 8;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    f: Frame,
    o: Overview,
    action: Vec<CauseLine>,
    heals: Vec<CauseLine>,
    chart: Chart,
    hours: u32,
}

pub(super) async fn show(ask: Ask) -> Answered {
    if ask.own_user().is_some() {
        return Ok(see("/accounts"));
    }
    ask.need(Role::Read)?;
    let hours = match ask.query.get("hours") {
        "168" => 168,
        "720" => 720,
        _ => 24,
    };
    let mut o = ask.app.backend.overview(hours).await?;
    let f = Frame::of(&ask, "nav.overview", "overview").await.live("overview".to_owned());
    let (mut action, mut heals): (Vec<_>, Vec<_>) =
        std::mem::take(&mut o.causes).into_iter().partition(|line| line.needs_action);
    action.truncate(CAUSES);
    heals.truncate(CAUSES);
    o.running.truncate(6);
    let chart = Chart::of(&f, &o.hours, hours > 48);
    Ok(page(StatusCode::OK, &OverviewPage { f, o, action, heals, chart, hours }))
}

impl OverviewPage {
    fn delivered(&self) -> u64 {
        self.o.hours.iter().map(|hour: &Hour| hour.delivered + hour.spam).sum()
    }

    fn counts(&self) -> String {
        counts(&self.f, &self.o)
    }
}

/// The figures and what runs, for the stream of events.
pub(super) fn fragments(f: &Frame, o: &Overview) -> Vec<(String, String)> {
    let now = NowPart { f, o };
    let figures = FiguresPart { f, o };
    let parts = [("now", now.render()), ("figures", figures.render())];
    parts.into_iter().filter_map(|(id, html)| Some((id.to_owned(), html.ok()?))).collect()
}

#[derive(Template)]
#[template(path = "part_now.html")]
struct NowPart<'a> {
    f: &'a Frame,
    o: &'a Overview,
}

#[derive(Template)]
#[template(path = "part_figures.html")]
struct FiguresPart<'a> {
    f: &'a Frame,
    o: &'a Overview,
}

impl NowPart<'_> {
    fn counts(&self) -> String {
        counts(self.f, self.o)
    }
}

fn counts(f: &Frame, o: &Overview) -> String {
    let words = [("checking", o.checking), ("queued", o.queued), ("listening", o.listening)];
    f.w.plain("overview.now_counts", &words.map(|(name, n)| (name, Value::Count(n))))
}
