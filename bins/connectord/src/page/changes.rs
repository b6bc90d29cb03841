//! What people do to accounts.

use std::collections::{HashMap, HashSet};

use connectord_admin::{
    Account, Answer, Caller, Entered, Event, FieldProblem, Refusal, Saving, Secret as Typed, Settings, Source, Which,
};
use connectord_config::saved::settings_from_text;
use connectord_mail::UnixTime;
use connectord_store::{AccountId, SavedAccounts, Values};
use connectord_wire::Secret;

use super::query::{self, Wanted};
use super::roster::Entry;
use super::{Page, settings, unavailable};
use crate::accounts::{self, Doubts, Draft, Edit};

/// How long it is remembered under which key an account was made.
const ONCE: i64 = 86_400;

/// Where that is remembered.
pub(super) const ONCE_PREFIX: &str = "once/";

/// Lines of the record of changes that are looked through for an old version.
const VERSIONS: usize = 200;

pub(super) fn doubts(saving: &Saving) -> Doubts {
    if saving.untested { Doubts::Untested } else { Doubts::Heeded }
}

pub(super) fn password(secret: Option<&Typed>) -> Option<Secret> {
    secret.map(|secret| Secret::from(secret.expose()))
}

impl Page {
    pub(super) async fn create(&self, caller: &Caller, entered: Entered, saving: Saving) -> Answer<String> {
        let address = entered.settings.address.trim().to_lowercase();
        let site = self.accounts.known.borrow().config.filters.policy.clone();
        let kept = settings::kept(&entered.settings, &site).map_err(Refusal::Fields)?;
        if let Some(key) = &saving.idempotency_key
            && let Some(id) = self.made_before(key, &address).await?
        {
            return Ok(id);
        }
        let draft = Draft {
            address: address.clone(),
            settings: kept,
            enabled: entered.settings.enabled,
            password: password(entered.secret.as_ref()),
        };
        let done = self.accounts.add(&caller.name, draft, doubts(&saving)).await;
        let id = match done {
            Ok(done) => done.saved.id,
            Err(refusal) => return Err(self.refused(refusal, &address, None).await),
        };
        self.read_accounts().await;
        self.moved(id);
        Ok(id.0.to_string())
    }

    /// The account that was made under this key within a day. The key is remembered before the account is made, with the address: so it
    /// holds whatever is cut short.
    async fn made_before(&self, key: &str, address: &str) -> Answer<Option<String>> {
        let (store, now) = (&self.accounts.store, self.accounts.site.clock.now());
        let key = format!("{ONCE_PREFIX}{key}");
        let mark = format!("{} {address}", now.0);
        if store.create_value(&key, mark.as_bytes()).await.map_err(unavailable)? {
            return Ok(None);
        }
        let known = store.value(&key).await.map_err(unavailable)?.unwrap_or_default();
        let known = String::from_utf8_lossy(&known).into_owned();
        let (since, before) = known.split_once(' ').unwrap_or_default();
        let since: i64 = since.parse().unwrap_or_default();
        if now.0 - since < ONCE {
            let made = store.saved_accounts().await.map_err(unavailable)?;
            let made = made.into_iter().find(|saved| saved.address == before && saved.created.at.0 >= since);
            if let Some(made) = made {
                return Ok(Some(made.id.0.to_string()));
            }
        }
        store.set_value(&key, mark.as_bytes()).await.map_err(unavailable)?;
        Ok(None)
    }

    /// Forgets keys that are older than a day.
    pub(crate) async fn tidy(&self) {
        let (store, now) = (&self.accounts.store, self.accounts.site.clock.now());
        let old = |value: &[u8]| {
            let text = String::from_utf8_lossy(value);
            let since: i64 = text.split(' ').next().and_then(|since| since.parse().ok()).unwrap_or_default();
            now.0 - since >= ONCE
        };
        let tidied = async {
            for (key, value) in store.values(ONCE_PREFIX, 100_000).await? {
                if old(&value) {
                    store.remove_value(&key).await?;
                }
            }
            Ok::<_, connectord_store::StoreError>(())
        };
        if let Err(error) = tidied.await {
            tracing::warn!(%error, "old keys of requests cannot be forgotten");
        }
        if let Err(error) = connectord_admin::tidy(&*self.keep).await {
            tracing::warn!(%error, "sessions that ended cannot be forgotten");
        }
    }

    pub(super) async fn update(&self, caller: &Caller, id: &str, entered: Entered, saving: Saving) -> Answer<()> {
        let entry = self.entry(id)?;
        let edit = self.edit(&entry, &entered, saving.if_match.as_deref()).await?;
        let address = entry.address();
        let done = self.accounts.edit(&caller.name, address, edit, doubts(&saving)).await;
        let outcome = match done {
            Ok(_) => Ok(()),
            Err(refusal) => Err(self.refused(refusal, address, saving.if_match.as_deref()).await),
        };
        self.read_accounts().await;
        self.moved(entry.id);
        outcome
    }

    /// What is to be changed about an account so that it says what was entered.
    pub(super) async fn edit(&self, entry: &Entry, entered: &Entered, if_match: Option<&str>) -> Answer<Edit> {
        if entry.source == Source::File {
            return Err(Refusal::FromFile);
        }
        if !entered.settings.address.trim().eq_ignore_ascii_case(entry.address()) {
            return Err(Refusal::Fields(vec![FieldProblem::new("address", "fixed")]));
        }
        let version = match if_match {
            None => None,
            Some(text) => match text.parse() {
                Ok(version) if version == entry.version => Some(version),
                _ => {
                    let refusal = accounts::Refusal::Changed { address: entry.address().to_owned(), last: None };
                    return Err(self.refused(refusal, entry.address(), Some(text)).await);
                }
            },
        };
        let after = Settings { address: entry.settings.address.clone(), ..entered.settings.clone() };
        let (set, unset) = settings::difference(&entry.settings, &after).map_err(Refusal::Fields)?;
        let enabled = Some(entered.settings.enabled);
        Ok(Edit { set, unset, enabled, password: password(entered.secret.as_ref()), version })
    }

    pub(super) async fn delete(&self, caller: &Caller, id: &str, if_match: Option<&str>) -> Answer<()> {
        let entry = self.entry(id)?;
        let version = if_match.map(|text| text.parse().unwrap_or(u64::MAX));
        let address = entry.address();
        match self.accounts.delete(&caller.name, address, version).await {
            Ok(()) => {}
            Err(refusal) => return Err(self.refused(refusal, address, if_match).await),
        }
        self.read_accounts().await;
        Ok(())
    }

    pub(super) async fn switch(&self, caller: &Caller, which: Which, on: bool) -> Answer<u64> {
        let chosen = self.chosen(&which);
        if let ([one], Which::Ids(_)) = (&chosen[..], &which)
            && one.source == Source::File
        {
            return Err(Refusal::FromFile);
        }
        let addresses: HashSet<String> = chosen.iter().map(|entry| entry.address().to_owned()).collect();
        let changed = self.accounts.switch_all(&caller.name, &addresses, on).await;
        let changed = match changed {
            Ok(changed) => changed,
            Err(refusal) => return Err(self.refused(refusal, "", None).await),
        };
        self.read_accounts().await;
        chosen.iter().for_each(|entry| self.moved(entry.id));
        Ok(changed)
    }

    pub(super) fn check(&self, caller: &Caller, which: &Which) -> u64 {
        let chosen = self.chosen(which);
        let asked = match &chosen[..] {
            [one] => usize::from(self.accounts.scheduler.check_now(one.address())),
            many => self.accounts.scheduler.check_all(many.iter().map(|entry| entry.address())),
        };
        tracing::info!(accounts = asked, who = caller.name, "a person wants accounts checked");
        chosen.iter().for_each(|entry| self.moved(entry.id));
        asked as u64
    }

    pub(super) fn stop(&self, caller: &Caller, which: &Which) -> u64 {
        let chosen = self.chosen(which);
        let stopped = chosen.iter().filter(|entry| self.accounts.scheduler.stop(entry.address())).count();
        tracing::info!(accounts = stopped, who = caller.name, "a person stopped checks");
        chosen.iter().for_each(|entry| self.moved(entry.id));
        stopped as u64
    }

    /// The accounts that are meant.
    fn chosen(&self, which: &Which) -> Vec<std::sync::Arc<Entry>> {
        match which {
            Which::Ids(ids) => ids.iter().filter_map(|id| self.entry(id).ok()).collect(),
            Which::Matching(query) => {
                let wanted = Wanted::of(query);
                let doing = if query.activity.is_some() { self.accounts.scheduler.snapshot() } else { HashMap::new() };
                let seen = query::seen(self.roster.all(), self.now(), &doing);
                seen.filter(|seen| wanted.is(seen)).map(|seen| seen.entry).collect()
            }
        }
    }

    /// Has those who look told that an account changed.
    pub(super) fn moved(&self, id: AccountId) {
        let _ = self.events.send(Event::Account { id: id.0.to_string() });
        if let Some(entry) = self.roster.get(id) {
            let address = entry.address().to_owned();
            self.witness.note(|seen| {
                seen.moved.insert(address);
            });
        }
    }

    /// A refusal in the words of the page. `version` is the one that an edit began with.
    pub(super) async fn refused(&self, refusal: accounts::Refusal, address: &str, version: Option<&str>) -> Refusal {
        use accounts::Refusal::{Changed, Exists, FromFile, Invalid, NotFound, SameMail, SecretNeeded, Trial};
        let double = |other: &str| match self.roster.of_address(other) {
            Some(entry) => Refusal::Duplicate { id: entry.id.0.to_string(), address: other.to_owned() },
            None => Refusal::Duplicate { id: String::new(), address: other.to_owned() },
        };
        match refusal {
            NotFound { .. } => Refusal::NotFound,
            FromFile { .. } => Refusal::FromFile,
            Exists { address } => double(&address),
            SameMail { other, .. } => double(&other),
            Invalid(problems) => Refusal::Fields(settings::problems(&problems)),
            SecretNeeded { .. } => Refusal::Fields(vec![FieldProblem::new("secret", "again")]),
            Changed { .. } => {
                self.read_accounts().await;
                match self.roster.of_address(address) {
                    Some(entry) => {
                        let base = self.version(&entry, version).await.map(Box::new);
                        let current: Account = self.drawn(&entry).await;
                        Refusal::Changed { base, current: Box::new(current) }
                    }
                    None => Refusal::NotFound,
                }
            }
            Trial(trial) => {
                let settings = self.roster.of_address(address).map(|entry| entry.settings.clone()).unwrap_or_default();
                Refusal::TestFailed(Box::new(super::trial::drawn(&trial, &settings)))
            }
            other => Refusal::Unavailable(other.to_string()),
        }
    }

    /// What an account said at an earlier version, from the record of changes.
    async fn version(&self, entry: &Entry, version: Option<&str>) -> Option<Settings> {
        let version: u64 = version?.parse().ok()?;
        let back = usize::try_from(entry.version.checked_sub(version)?).ok()?;
        let changes = self.accounts.store.changes(Some(entry.address()), None, VERSIONS).await.ok()?;
        let saved = changes
            .into_iter()
            .map(|row| row.change)
            .filter(|change| matches!(change.what.as_str(), "added" | "edited" | "enabled" | "disabled"));
        let text = saved.map(|change| change.after).nth(back)??;
        let kept = settings_from_text(&text).ok()?;
        let enabled = !text.lines().any(|line| line == "# enabled: false");
        let config = &self.accounts.known.borrow().config;
        let nobody = connectord_account::CredentialSource::Password(Secret::from("unknown"));
        let note = kept.get("note").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        let read = connectord_config::saved::account_from(config, entry.address(), &kept, enabled, nobody).ok()?;
        Some(settings::shown(&read.account, &read.policy, &note))
    }

    pub(super) fn now(&self) -> UnixTime {
        self.accounts.site.clock.now()
    }
}
