//! Which accounts are shown, in which order, and how many of each sort there are.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use connectord_admin::{AccountQuery, Activity, Cause, Counts, Group, Health, Page, Sort};
use connectord_engine as engine;
use connectord_mail::UnixTime;

use super::causes;
use super::roster::Entry;

/// An account with how it is now.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) entry: Arc<Entry>,
    pub(super) health: Health,
    pub(super) cause: Option<Cause>,
    pub(super) activity: Activity,
}

/// What an activity is called on the page.
pub(super) fn activity(activity: engine::Activity) -> Activity {
    match activity {
        engine::Activity::Idle => Activity::Idle,
        engine::Activity::Queued => Activity::Queued,
        engine::Activity::Checking => Activity::Checking,
        engine::Activity::Listening => Activity::Listening,
    }
}

/// Each account as it is now.
pub(super) fn seen(
    entries: Vec<Arc<Entry>>,
    now: UnixTime,
    doing: &HashMap<String, engine::AccountNow>,
) -> impl Iterator<Item = Seen> {
    entries.into_iter().map(move |entry| {
        let (health, cause) = causes::health(&entry, now);
        let activity = doing.get(entry.address()).map_or(Activity::Idle, |doing| activity(doing.activity));
        Seen { entry, health, cause, activity }
    })
}

/// A query, made ready for very many accounts.
pub(super) struct Wanted<'q> {
    query: &'q AccountQuery,
    words: Vec<String>,
    host: Option<String>,
}

impl<'q> Wanted<'q> {
    pub(super) fn of(query: &'q AccountQuery) -> Self {
        let words = query.text.split_whitespace().map(str::to_lowercase).collect();
        Self { query, words, host: query.host.as_ref().map(|host| host.to_lowercase()) }
    }

    /// Whether an account is one of those, its health aside.
    pub(super) fn but_for_health(&self, seen: &Seen) -> bool {
        let (query, settings) = (self.query, &seen.entry.settings);
        (query.ids.is_empty() || query.ids.contains(&seen.entry.id.0.to_string()))
            && query.activity.is_none_or(|activity| activity == seen.activity)
            && query.source.is_none_or(|source| source == seen.entry.source)
            && query.user.as_ref().is_none_or(|user| {
                settings.deliver_to.contains(user) && (!query.alone || settings.deliver_to.len() == 1)
            })
            && self.host.as_ref().is_none_or(|host| settings.host.to_lowercase().contains(host))
            && query
                .cause
                .as_ref()
                .is_none_or(|code| seen.cause.as_ref().is_some_and(|cause| cause.code.word() == code))
            && self.words.iter().all(|word| seen.entry.text.contains(word))
    }

    pub(super) fn is(&self, seen: &Seen) -> bool {
        self.query.health.is_none_or(|health| health == seen.health) && self.but_for_health(seen)
    }
}

/// How many there are of each sort.
pub(super) fn counted<'a>(seen: impl Iterator<Item = &'a Seen>) -> Counts {
    let mut counts = Counts::default();
    for seen in seen {
        counts.add(seen.health, seen.entry.source);
    }
    counts
}

/// In the order that was asked for.
pub(super) fn sort(found: &mut [Seen], query: &AccountQuery) {
    if query.group == Group::User {
        // The worst account of each user decides where the user stands.
        let mut worst: HashMap<String, u8> = HashMap::new();
        for seen in found.iter() {
            let user = first_user(seen).to_owned();
            let rank = rank(seen);
            worst.entry(user).and_modify(|known| *known = rank.min(*known)).or_insert(rank);
        }
        let place = |seen: &Seen| worst.get(first_user(seen)).copied().unwrap_or(u8::MAX);
        found.sort_by(|a, b| {
            (place(a), first_user(a)).cmp(&(place(b), first_user(b))).then_with(|| by(a, b, query.sort))
        });
        return;
    }
    found.sort_by(|a, b| by(a, b, query.sort));
}

fn first_user(seen: &Seen) -> &str {
    seen.entry.settings.deliver_to.first().map_or("", String::as_str)
}

/// What needs a person first; of those that are well, what moves first.
fn rank(seen: &Seen) -> u8 {
    match (seen.health, seen.activity) {
        (Health::Action, _) => 0,
        (Health::Delayed, _) => 1,
        (_, Activity::Checking) => 2,
        (_, Activity::Queued) => 3,
        (Health::New, _) => 4,
        (Health::Ok, _) => 5,
        (Health::Off, _) => 6,
    }
}

fn by(a: &Seen, b: &Seen, sort: Sort) -> Ordering {
    let address = || a.entry.address().cmp(b.entry.address());
    match sort {
        Sort::Worst => rank(a).cmp(&rank(b)).then_with(address),
        Sort::Address => address(),
        Sort::User => first_user(a).cmp(first_user(b)).then_with(address),
        Sort::Host => a.entry.settings.host.cmp(&b.entry.settings.host).then_with(address),
        // Never is the longest.
        Sort::LastOk => a.entry.health.last_ok.cmp(&b.entry.health.last_ok).then_with(address),
    }
}

/// A page of a list that was made for one request: `after` is how many came before.
pub(super) fn paged<T>(items: Vec<T>, after: Option<&str>, limit: usize) -> Page<T> {
    let total = items.len();
    let from: usize = after.and_then(|after| after.parse().ok()).unwrap_or(0);
    let until = from.saturating_add(limit);
    let next = (until < total).then(|| until.to_string());
    let items = items.into_iter().skip(from).take(limit).collect();
    Page { items, next, total: total as u64 }
}
