//! What the first page shows.

use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;

use connectord_admin::{Activity, Answer, CauseLine, Health, Hour, Overview, Value};
use connectord_mail::UnixTime;
use connectord_store::{HourRow, Of, TallyBy};

use super::causes::at;
use super::draw::{midnight, row};
use super::query::{self, Seen};
use super::{Page, unavailable};

/// Causes of each sort that are shown.
const CAUSES: usize = 50;

/// Running checks that are shown.
const RUNNING: usize = 6;

impl Page {
    pub(super) async fn overview(&self, hours: u32) -> Answer<Overview> {
        let (now, doing) = (self.now(), self.accounts.scheduler.snapshot());
        let all: Vec<Seen> = query::seen(self.roster.all(), now, &doing).collect();
        let of = |activity| all.iter().filter(|seen| seen.activity == activity).count() as u64;
        let running = all.iter().filter(|seen| seen.activity == Activity::Checking).take(RUNNING);
        let health = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let parked = all.iter().map(|seen| seen.entry.parked).sum();
        Ok(Overview {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: self.accounts.site.hostname.clone(),
            since: self.since,
            accounts: query::counted(all.iter()),
            checking: of(Activity::Checking),
            queued: of(Activity::Queued),
            listening: of(Activity::Listening),
            today: self.today(now).await?,
            quarantine: self.quarantine.as_ref().map_or(0, |quarantine| quarantine.size().0 as u64),
            parked,
            causes: lines(&all),
            running: running.map(|seen| row(seen, doing.get(seen.entry.address()), None)).collect(),
            hours: self.hours(now, hours).await?,
            health,
            users: self.user_names().await.len() as u64,
        })
    }

    /// What came since midnight.
    async fn today(&self, now: UnixTime) -> Answer<Hour> {
        let start = midnight(now);
        let hours = self.counted(start, now).await?;
        Ok(sum(start, hours.iter()))
    }

    /// What came by the hour; by the day when more than two days are asked for.
    async fn hours(&self, now: UnixTime, hours: u32) -> Answer<Vec<Hour>> {
        let first = HourRow::of(UnixTime(now.0 - i64::from(hours.saturating_sub(1)) * HourRow::SECONDS));
        let counted = self.counted(first, now).await?;
        let by = if hours > 48 { 24 } else { 1 };
        Ok(counted.chunks(by).map(|part| sum(part[0].at, part.iter())).collect())
    }

    async fn counted(&self, from: UnixTime, until: UnixTime) -> Answer<Vec<HourRow>> {
        match &self.trail {
            Some(trail) => trail.hours(Of::All, from, until).await.map_err(unavailable),
            None => Ok(HourRow::empty(from, until)),
        }
    }

    /// How many messages came for each account since midnight; `None` when nobody counts.
    pub(super) async fn today_by_account(&self) -> Option<HashMap<String, u64>> {
        self.delivered(TallyBy::Account).await
    }

    /// The same for each local user.
    pub(super) async fn today_by_user(&self) -> Option<HashMap<String, u64>> {
        self.delivered(TallyBy::User).await
    }

    async fn delivered(&self, by: TallyBy) -> Option<HashMap<String, u64>> {
        let trail = self.trail.as_ref()?;
        let delivered = trail.delivered(by, midnight(self.now())).await.ok()?;
        Some(delivered.into_iter().collect())
    }
}

fn sum<'a>(from: UnixTime, hours: impl Iterator<Item = &'a HourRow>) -> Hour {
    let mut sum = Hour { at: at(from), down: true, ..Hour::default() };
    for hour in hours {
        sum.delivered += hour.delivered;
        sum.spam += hour.spam;
        sum.quarantined += hour.quarantined;
        sum.down &= hour.down;
    }
    sum
}

/// Each cause with how many accounts it hits at one server: what needs a person first, then what hits most.
fn lines(all: &[Seen]) -> Vec<CauseLine> {
    let mut lines: BTreeMap<(bool, &str, String), CauseLine> = BTreeMap::new();
    for seen in all {
        let Some(cause) = &seen.cause else { continue };
        if !matches!(seen.health, Health::Action | Health::Delayed) {
            continue;
        }
        let needs_action = seen.health == Health::Action;
        let host = match cause.words.get("host") {
            Some(Value::Text(host)) => host.clone(),
            _ => String::new(),
        };
        let line = lines.entry((needs_action, cause.code.word(), host.clone())).or_insert_with(|| CauseLine {
            cause: cause.clone(),
            host,
            accounts: 0,
            account: Some((seen.entry.id.0.to_string(), seen.entry.address().to_owned())),
            needs_action,
            since: cause.since,
            next: cause.next,
        });
        line.accounts += 1;
        line.since = line.since.min(cause.since).or(line.since);
        line.next = line.next.min(cause.next).or(line.next);
        if line.accounts > 1 {
            line.account = None;
        }
    }
    let mut sorted: Vec<CauseLine> = lines.into_values().collect();
    sorted.sort_by_key(|line| (!line.needs_action, std::cmp::Reverse(line.accounts)));
    let mut shown = [0; 2];
    sorted.retain(|line| {
        let shown = &mut shown[usize::from(line.needs_action)];
        *shown += 1;
        *shown <= CAUSES
    });
    sorted
}
