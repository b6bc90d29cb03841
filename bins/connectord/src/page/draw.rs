//! An account as it is shown: its line, its page, its runs.

use std::sync::PoisonError;

use connectord_admin::{
    Account, AccountQuery, Answer, At, Counts, MessageState, Page as Listed, Progress, Row, Run, Step, StepState, Tick,
};
use connectord_engine::{AccountNow, CheckNow};
use connectord_mail::UnixTime;
use connectord_store::{AccountId, HourRow, Of, RunId, RunRow, Store};

use super::causes::at;
use super::query::{self, Seen, Wanted, paged};
use super::roster::Entry;
use super::{Page, causes, unavailable};

/// Checks that an account's page shows as a strip.
const CHECKS: usize = 48;

/// Days that an account's page shows.
const DAYS: usize = 14;

impl Page {
    pub(super) async fn listed(&self, query: &AccountQuery) -> Answer<(Listed<Row>, Counts)> {
        let doing = self.accounts.scheduler.snapshot();
        let now = self.now();
        let wanted = Wanted::of(query);
        let all: Vec<Seen> =
            query::seen(self.roster.all(), now, &doing).filter(|seen| wanted.but_for_health(seen)).collect();
        let counts = query::counted(all.iter());
        let mut found: Vec<Seen> = all.into_iter().filter(|seen| wanted.is(seen)).collect();
        query::sort(&mut found, query);
        let page = paged(found, query.after.as_deref(), query.limit);
        let today = self.today_by_account().await;
        let draw = |seen: Seen| {
            let doing = doing.get(seen.entry.address());
            let delivered = today.as_ref().map(|today| today.get(seen.entry.address()).copied().unwrap_or_default());
            row(&seen, doing, delivered)
        };
        let items = page.items.into_iter().map(draw).collect();
        Ok((Listed { items, next: page.next, total: page.total }, counts))
    }

    /// One account with everything.
    pub(super) async fn drawn(&self, entry: &std::sync::Arc<Entry>) -> Account {
        let now = self.now();
        let doing = self.accounts.scheduler.state_of(entry.address());
        let (health, cause) = causes::health(entry, now);
        let activity = doing.as_ref().map_or(connectord_admin::Activity::Idle, |doing| query::activity(doing.activity));
        let seen = Seen { entry: entry.clone(), health, cause, activity };
        let today = self.today_by_account().await;
        let today = today.as_ref().map(|today| today.get(entry.address()).copied().unwrap_or_default());
        let runs = self.accounts.store.runs(entry.id, CHECKS).await.unwrap_or_default();
        let (days, days_octets) = self.days(entry.address(), now).await;
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner).get(&entry.id).cloned();
        Account {
            row: row(&seen, doing.as_ref(), today),
            settings: entry.settings.clone(),
            secret: entry.secret.clone(),
            edited_at: entry.edited.as_ref().map(|(at, _)| *at),
            edited_by: entry.edited.as_ref().map(|(_, by)| by.clone()).unwrap_or_default(),
            place: self.place(entry).await,
            checks: runs.iter().rev().map(|run| mark(run, entry)).collect(),
            days,
            days_octets,
            folders_there: folders.unwrap_or_default(),
        }
    }

    /// Messages of the last days, oldest first, and their octets.
    async fn days(&self, address: &str, now: UnixTime) -> (Vec<u64>, u64) {
        let Some(trail) = &self.trail else { return (Vec::new(), 0) };
        let from = UnixTime(now.0 - (DAYS as i64) * 86_400 + HourRow::SECONDS);
        let hours = trail.hours(Of::Account(address), from, now).await.unwrap_or_default();
        let days = hours.chunks(24).map(|day| day.iter().map(|hour| hour.delivered + hour.spam).sum()).collect();
        (days, hours.iter().map(|hour| hour.octets).sum())
    }

    pub(super) fn remember_folders(&self, id: AccountId, folders: &[String]) {
        if !folders.is_empty() {
            self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(id, folders.to_vec());
        }
    }

    pub(super) async fn runs(&self, id: &str, after: Option<&str>, limit: usize) -> Answer<Listed<Run>> {
        let entry = self.entry(id)?;
        let before = after.and_then(|after| after.parse().ok()).map(RunId);
        let runs = self.accounts.store.runs_before(entry.id, before, limit + 1).await.map_err(unavailable)?;
        let total = runs.len() as u64;
        let next =
            (runs.len() > limit).then(|| runs.get(limit.saturating_sub(1)).map(|(id, _)| id.0.to_string())).flatten();
        let items = runs.iter().take(limit).map(|(id, run)| drawn_run(*id, run, &entry)).collect();
        Ok(Listed { items, next, total })
    }
}

/// How a check went, in one mark: 0 well, 1 delayed, 2 failed.
fn mark(run: &RunRow, entry: &Entry) -> u8 {
    match causes::of_run(run, entry) {
        None => 0,
        Some(cause) if cause.code.row().mends == connectord_admin::Mends::Person => 2,
        Some(_) => 1,
    }
}

fn drawn_run(id: RunId, run: &RunRow, entry: &Entry) -> Run {
    Run {
        number: u64::try_from(id.0).unwrap_or_default(),
        at: at(run.started),
        duration_ms: run.duration_ms,
        listed: run.listed,
        retrieved: run.retrieved,
        delivered: run.delivered,
        removed: run.removed,
        octets: run.octets,
        cause: causes::of_run(run, entry),
    }
}

pub(super) fn row(seen: &Seen, doing: Option<&AccountNow>, today: Option<u64>) -> Row {
    let (entry, settings) = (&seen.entry, &seen.entry.settings);
    let next = doing.and_then(|doing| doing.next_check).filter(|_| settings.enabled).map(at);
    Row {
        id: entry.id.0.to_string(),
        address: settings.address.clone(),
        deliver_to: settings.deliver_to.clone(),
        protocol: settings.protocol,
        host: settings.host.clone(),
        port: settings.effective_port(),
        security: settings.security,
        health: seen.health,
        activity: seen.activity,
        cause: seen.cause.clone().map(|cause| connectord_admin::Cause { next: next.or(cause.next), ..cause }),
        last_ok: entry.health.last_ok.map(at),
        next,
        today,
        parked: entry.parked,
        source: entry.source,
        progress: doing.and_then(|doing| doing.check.as_ref()).map(progress),
        etag: entry.version.to_string(),
    }
}

/// How far a check is.
fn progress(check: &CheckNow) -> Progress {
    let step = |name, state, result: String, ms| Step { name, state, result, ms, cause: None };
    let mut steps = Vec::new();
    if let Some(server) = &check.server {
        let state = if check.logged_in_ms.is_some() { StepState::Ok } else { StepState::Runs };
        let tls = check.tls.as_ref().map(|tls| format!(", {}", tls.replace("TLSv", "TLS "))).unwrap_or_default();
        steps.push(step("connection", state, format!("{server}{tls}"), None));
    }
    if let Some(ms) = check.logged_in_ms {
        steps.push(step("login", StepState::Ok, String::new(), Some(ms)));
        let state = if check.listed.is_some() { StepState::Ok } else { StepState::Runs };
        let result = check.listed.map(|listed| format!("{listed} / {}", check.new)).unwrap_or_default();
        steps.push(step("listed", state, result, None));
    }
    if check.listed.is_some() && check.new > 0 {
        let state = if check.retrieved >= check.new { StepState::Ok } else { StepState::Runs };
        steps.push(step("retrieving", state, String::new(), None));
    }
    let left = check.new.saturating_sub(check.retrieved);
    let average = check.octets.checked_div(check.retrieved);
    let eta_s = match (check.octets_per_second, average) {
        (Some(rate @ 1..), Some(average)) if left > 0 => Some(left.saturating_mul(average) / rate),
        _ => None,
    };
    let tick = |state, count| Tick { state, count };
    let spam = check.spam;
    Progress {
        steps,
        done: check.retrieved,
        total: check.listed.map(|_| check.new),
        octets: check.octets,
        rate_octets_s: check.octets_per_second,
        eta_s,
        tally: vec![
            tick(MessageState::Filtered, check.filtered),
            tick(MessageState::Delivered, check.delivered),
            tick(MessageState::Spam, spam),
            tick(MessageState::Quarantined, check.quarantined),
            tick(MessageState::Parked, check.parked),
            tick(MessageState::Removed, check.removed),
        ],
    }
}

/// Since midnight here.
pub(super) fn midnight(now: UnixTime) -> UnixTime {
    let here = jiff::Timestamp::from_second(now.0).unwrap_or_default().to_zoned(jiff::tz::TimeZone::system());
    here.start_of_day().map_or(now, |start| UnixTime(start.timestamp().as_second()))
}

pub(super) fn moment(at: At) -> UnixTime {
    UnixTime(at.0)
}
