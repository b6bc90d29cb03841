use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use connectord_mail::UnixTime;

use super::locked;
use crate::{
    Counted, HourRow, Of, Recorder, StoreError, TallyBy, Trail, TrailEntry, TrailId, TrailKey, TrailName, TrailPage,
    TrailQuery, TrailRow, TrailStep, What,
};

/// A [`Trail`] in memory, for tests: nothing is ever dropped or forgotten.
#[derive(Debug, Default)]
pub struct MemoryTrail(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    messages: Vec<(TrailKey, TrailRow, Vec<TrailStep>)>,
    tallies: BTreeMap<(Whose, String, UnixTime), HourRow>,
    /// Hours in which we ran.
    ran: BTreeSet<UnixTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    All,
    Account,
    User,
}

impl MemoryTrail {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The daemon runs at this moment.
    pub fn ran(&self, now: UnixTime) {
        locked(&self.0).ran.insert(HourRow::of(now));
    }
}

impl Recorder for MemoryTrail {
    fn record(&self, entry: TrailEntry) {
        let mut inner = locked(&self.0);
        let known = inner.messages.iter().position(|(key, row, steps)| match &entry.name {
            TrailName::Key(name) => key == name,
            TrailName::Delivery(id) => {
                row.about.delivery == *id && steps.iter().any(|step| step.what == What::Quarantined)
            }
        });
        let at = match (known, &entry.name) {
            (Some(at), _) => at,
            (None, TrailName::Key(key)) => {
                let id = TrailId(inner.messages.len() as i64 + 1);
                let Some(row) = TrailRow::begin(id, &entry) else { return };
                inner.messages.push((key.clone(), row, Vec::new()));
                inner.messages.len() - 1
            }
            (None, TrailName::Delivery(_)) => return,
        };
        let (_, row, steps) = &mut inner.messages[at];
        let counted = row.take(&entry, steps);
        let (account, octets) = (row.account.clone(), row.about.octets);
        inner.count(&entry, counted, account, octets);
    }
}

impl Inner {
    fn count(&mut self, entry: &TrailEntry, counted: Counted, account: String, octets: u64) {
        let hour = HourRow::of(entry.at);
        let mut add = |whose, name: String, counted: Counted, octets| {
            let row = self.tallies.entry((whose, name, hour)).or_default();
            row.delivered += counted.delivered;
            row.spam += counted.spam;
            row.quarantined += counted.quarantined;
            row.octets += octets;
        };
        if counted != Counted::default() {
            let octets = if counted.delivered + counted.spam > 0 { octets } else { 0 };
            add(Whose::All, String::new(), counted, octets);
            add(Whose::Account, account, counted, octets);
        }
        for user in entry.users_reached() {
            add(Whose::User, user.to_owned(), Counted { delivered: 1, ..Counted::default() }, octets);
        }
    }
}

#[async_trait]
impl Trail for MemoryTrail {
    async fn messages(&self, query: &TrailQuery) -> Result<TrailPage, StoreError> {
        let inner = locked(&self.0);
        let folded = query.folded();
        let wanted: Vec<&TrailRow> =
            inner.messages.iter().rev().map(|(_, row, _)| row).filter(|row| query.wants(row, &folded)).collect();
        let here = |row: &&&TrailRow| query.before.is_none_or(|before| row.id < before);
        let limit = query.limit.clamp(1, TrailQuery::MOST);
        let mut rows: Vec<TrailRow> =
            wanted.iter().filter(here).take(limit + 1).map(|row| TrailRow::clone(row)).collect();
        let is_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| is_more).map(|row| row.id);
        Ok(TrailPage { rows, next, total: (wanted.len() as u64).min(TrailPage::COUNTED) })
    }

    async fn message(&self, id: TrailId) -> Result<Option<(TrailRow, Vec<TrailStep>)>, StoreError> {
        let inner = locked(&self.0);
        let found = inner.messages.iter().find(|(_, row, _)| row.id == id);
        Ok(found.map(|(_, row, steps)| (row.clone(), steps.clone())))
    }

    async fn hours(&self, of: Of<'_>, from: UnixTime, until: UnixTime) -> Result<Vec<HourRow>, StoreError> {
        let inner = locked(&self.0);
        let (whose, name) = match of {
            Of::All => (Whose::All, String::new()),
            Of::Account(address) => (Whose::Account, address.to_lowercase()),
            Of::User(user) => (Whose::User, user.to_owned()),
        };
        let mut hours = HourRow::empty(from, until);
        for hour in &mut hours {
            if let Some(row) = inner.tallies.get(&(whose, name.clone(), hour.at)) {
                *hour = HourRow { at: hour.at, ..row.clone() };
            }
            hour.down = inner.ran.first().is_some_and(|first| hour.at > *first) && !inner.ran.contains(&hour.at);
        }
        Ok(hours)
    }

    async fn delivered(&self, by: TallyBy, since: UnixTime) -> Result<Vec<(String, u64)>, StoreError> {
        let inner = locked(&self.0);
        let wanted = match by {
            TallyBy::Account => Whose::Account,
            TallyBy::User => Whose::User,
        };
        let since = HourRow::of(since);
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for ((whose, name, hour), row) in &inner.tallies {
            let delivered = row.delivered + row.spam;
            if *whose == wanted && *hour >= since && delivered > 0 {
                *sums.entry(name.clone()).or_default() += delivered;
            }
        }
        Ok(sums.into_iter().collect())
    }
}
