//! All accounts as they are shown, in memory: read when something changed, and not at each request.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use connectord_admin::{At, SecretState, Settings, Source};
use connectord_config::saved::{self, settings_from_text};
use connectord_engine::Job;
use connectord_store::{self as store, AccountId, SavedAccount, SavedAccounts, Stamp, Store, StoreError};
use connectord_stores::sqlite::SqliteStore;
use tokio::task::JoinSet;

use super::causes::at;
use super::settings;
use crate::accounts::Known;

/// Accounts that are made known to the state at once.
const OPENED_AT_ONCE: usize = 256;

/// One account.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its number in the state, which names it in addresses.
    pub(super) id: AccountId,
    pub(super) settings: Settings,
    pub(super) source: Source,
    /// Its version, for those who edit it; 0 for one of the file.
    pub(super) version: u64,
    pub(super) secret: SecretState,
    pub(super) edited: Option<(At, String)>,
    /// Why it cannot be run.
    pub(super) problem: Option<String>,
    pub(super) health: store::Health,
    pub(super) parked: u64,
    /// What is looked for by words, in lower case.
    pub(super) text: String,
}

impl Entry {
    pub(super) fn address(&self) -> &str {
        &self.settings.address
    }
}

/// The list. Each entry is replaced as a whole, so that whoever reads it holds nobody up.
#[derive(Default)]
pub(super) struct Roster {
    entries: RwLock<Entries>,
    /// Counts up with each piece of news about accounts.
    news: AtomicU64,
}

#[derive(Default)]
struct Entries {
    by_id: BTreeMap<AccountId, Arc<Entry>>,
    by_address: HashMap<String, AccountId>,
}

impl Roster {
    /// All of them, as they are now.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).by_id.values().cloned().collect()
    }

    /// One of them.
    pub(super) fn get(&self, id: AccountId) -> Option<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned()
    }

    /// One of them, by its address, case aside.
    pub(super) fn of_address(&self, address: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let id = entries.by_address.get(&address.to_lowercase())?;
        entries.by_id.get(id).cloned()
    }

    /// Reads everything anew, one at a time; answers which are there no more.
    pub(super) async fn read(&self, store: &Arc<SqliteStore>, known: &Known) -> Result<Vec<AccountId>, StoreError> {
        for _ in 0..3 {
            let before = self.news.load(Ordering::Acquire);
            let (entries, gone) = self.made(store, known).await?;
            let mut current = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            // What came meanwhile may be newer than what was read; the last reading is taken whatever comes.
            if self.news.load(Ordering::Acquire) == before {
                *current = entries;
                return Ok(gone);
            }
        }
        let (entries, gone) = self.made(store, known).await?;
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
        Ok(gone)
    }

    async fn made(&self, store: &Arc<SqliteStore>, known: &Known) -> Result<(Entries, Vec<AccountId>), StoreError> {
        let mut rows: HashMap<String, store::AccountRow> =
            store.accounts().await?.into_iter().map(|row| (row.address.clone(), row)).collect();
        let saved = store.saved_accounts().await?;
        open_those_of_the_file(store, known, &mut rows).await?;
        let parked = parked(store).await?;
        let before = self.all();
        let before: HashMap<AccountId, &Arc<Entry>> = before.iter().map(|entry| (entry.id, entry)).collect();
        let jobs: HashMap<&str, &Job> = known.jobs.iter().map(|job| (job.address(), job)).collect();

        let mut entries = Entries::default();
        let mut add = |entry: Entry| {
            entries.by_address.insert(entry.address().to_lowercase(), entry.id);
            entries.by_id.insert(entry.id, Arc::new(entry));
        };
        for account in &known.config.accounts {
            let (Some(row), Some(job)) = (rows.get(&account.address), jobs.get(account.address.as_str())) else {
                continue;
            };
            let settings = settings::shown(&job.account, &job.policy, "");
            add(entry(row, settings, None, None, &parked));
        }
        for saved in &saved {
            let Some(row) = rows.get(&saved.address).filter(|_| known.config.account(&saved.address).is_none()) else {
                continue;
            };
            let problem = known.problems.get(&saved.id).and_then(|problems| problems.first()).map(ToString::to_string);
            let unchanged = before.get(&saved.id).filter(|entry| entry.version == saved.version && problem.is_none());
            let settings = match (unchanged, jobs.get(saved.address.as_str()).filter(|_| problem.is_none())) {
                (Some(entry), _) if entry.problem.is_none() => entry.settings.clone(),
                (_, Some(job)) => settings::shown(&job.account, &job.policy, &note_of(saved)),
                (_, None) => {
                    let kept = settings_from_text(&saved.settings).unwrap_or_default();
                    settings::guessed(&saved.address, &kept, saved.enabled)
                }
            };
            add(entry(row, settings, Some(saved), problem, &parked));
        }
        let gone = before.keys().filter(|id| !entries.by_id.contains_key(id)).copied().collect();
        Ok((entries, gone))
    }

    /// Takes over how accounts are doing.
    pub(super) fn set_health(&self, rows: impl IntoIterator<Item = store::AccountRow>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        self.news.fetch_add(1, Ordering::AcqRel);
        for row in rows {
            if let Some(entry) = entries.by_id.get_mut(&row.id).filter(|entry| entry.health != row.health) {
                *entry = Arc::new(Entry { health: row.health, ..Entry::clone(entry) });
            }
        }
    }

    /// Takes over how many messages are parked of each account; answers whose number changed.
    pub(super) fn set_parked(&self, parked: &HashMap<String, u64>) -> Vec<AccountId> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        self.news.fetch_add(1, Ordering::AcqRel);
        let mut changed = Vec::new();
        for entry in entries.by_id.values_mut() {
            let count = parked.get(entry.address()).copied().unwrap_or_default();
            if entry.parked != count {
                *entry = Arc::new(Entry { parked: count, ..Entry::clone(entry) });
                changed.push(entry.id);
            }
        }
        changed
    }
}

/// How many messages are parked of each account.
pub(super) async fn parked(store: &SqliteStore) -> Result<HashMap<String, u64>, StoreError> {
    let mut parked: HashMap<String, u64> = HashMap::new();
    for message in store.troubled(None, false).await? {
        *parked.entry(message.account).or_default() += 1;
    }
    Ok(parked)
}

/// The state numbers an account at its first check; one of the file that was never checked gets its number now.
async fn open_those_of_the_file(
    store: &Arc<SqliteStore>,
    known: &Known,
    rows: &mut HashMap<String, store::AccountRow>,
) -> Result<(), StoreError> {
    let mut opening = JoinSet::new();
    for account in
        known.config.accounts.iter().filter(|account| !rows.contains_key(&account.address)).cloned().collect::<Vec<_>>()
    {
        if opening.len() >= OPENED_AT_ONCE
            && let Some(Ok(opened)) = opening.join_next().await
        {
            let row: store::AccountRow = opened?;
            rows.insert(row.address.clone(), row);
        }
        let store = Arc::clone(store);
        opening.spawn(async move { store.open_account(&account.address).await });
    }
    while let Some(Ok(opened)) = opening.join_next().await {
        let row: store::AccountRow = opened?;
        rows.insert(row.address.clone(), row);
    }
    Ok(())
}

fn note_of(saved: &SavedAccount) -> String {
    let kept: saved::Settings = settings_from_text(&saved.settings).unwrap_or_default();
    kept.get("note").and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

fn entry(
    row: &store::AccountRow,
    settings: Settings,
    saved: Option<&SavedAccount>,
    problem: Option<String>,
    parked: &HashMap<String, u64>,
) -> Entry {
    let stamp = |stamp: &Stamp| (at(stamp.at), stamp.by.clone());
    let secret = saved.and_then(|saved| saved.secret.as_ref()).map(|secret| stamp(&secret.set));
    let secret = match (saved, secret) {
        (Some(_), Some((at, by))) => SecretState { set: true, at: Some(at), by },
        (Some(_), None) => SecretState::default(),
        (None, _) => SecretState { set: true, ..SecretState::default() },
    };
    let text =
        format!("{}\n{}\n{}\n{}", settings.address, settings.host, settings.note, settings.deliver_to.join("\n"));
    Entry {
        id: row.id,
        source: if saved.is_some() { Source::Page } else { Source::File },
        version: saved.map_or(0, |saved| saved.version),
        secret,
        edited: saved.map(|saved| stamp(&saved.changed)),
        problem,
        health: row.health.clone(),
        parked: parked.get(&row.address).copied().unwrap_or_default(),
        text: text.to_lowercase(),
        settings,
    }
}
