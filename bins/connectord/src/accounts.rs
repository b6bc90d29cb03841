//! The accounts, looked at and changed while the daemon runs: those of the file and those that are kept in the state.
//!
//! What is changed is first read as the file would be, then tested, then saved under the version it was read at, and only
//! then taken over by the scheduler. Nothing is held meanwhile: of two who change the same account the second is refused.

mod merge;
mod refusal;
mod request;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use connectord_account::{Account, CredentialSource};
use connectord_config::KeyRing;
use connectord_config::build::Builder;
use connectord_config::saved::{
    FieldProblem, ReadAccount, Settings, account_from, is_same_mail, settings_from_text, settings_of, settings_to_text,
};
use connectord_engine::{Job, Scheduler, SeeStep, Site, Trial, TrialStep, trial, trial_watched};
use connectord_mail::UnixTime;
use connectord_net::Connector;
use connectord_store::{AccountId, Expected, Save, SavedAccount, SavedAccounts, SecretChange, Store, StoreError};
use connectord_stores::sqlite::SqliteStore;
use connectord_wire::Secret;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::info;

pub(crate) use self::merge::{Known, look_after_keys, merge};
pub(crate) use self::refusal::Refusal;
pub(crate) use self::request::answer;
use self::view::View;

/// A wish that what is saved is taken over, and where its outcome goes.
pub(crate) type Refresh = oneshot::Sender<Result<(), String>>;

/// Accounts that are switched at once: their changes share commits.
const SAVED_AT_ONCE: usize = 64;

/// What looks at accounts and changes them.
pub(crate) struct Accounts {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) site: Arc<Site>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) connector: Connector,
    pub(crate) scheduler: Arc<Scheduler>,
    /// What is configured now.
    pub(crate) known: watch::Receiver<Arc<Known>>,
    /// Who takes over what was saved.
    pub(crate) refresh: mpsc::Sender<Refresh>,
}

/// An account to be.
pub(crate) struct Draft {
    pub(crate) address: String,
    pub(crate) settings: Settings,
    pub(crate) enabled: bool,
    pub(crate) password: Option<Secret>,
}

/// What is to be changed about an account.
#[derive(Default)]
pub(crate) struct Edit {
    /// Settings that it has from now on.
    pub(crate) set: Settings,
    /// Settings that it has no more.
    pub(crate) unset: Vec<String>,
    pub(crate) enabled: Option<bool>,
    pub(crate) password: Option<Secret>,
    /// The version that was looked at; `None`: the one that there is now.
    pub(crate) version: Option<u64>,
}

/// Which of what speaks against a change is passed over: a failed test, mail that would come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubts {
    /// None.
    Heeded,
    /// Nothing is tested.
    Untested,
    /// Both.
    PassedOver,
}

/// A change that was made.
pub(crate) struct Done {
    pub(crate) saved: SavedAccount,
    /// What the test found, when there was one.
    pub(crate) trial: Option<Trial>,
    pub(crate) warnings: Vec<FieldProblem>,
}

impl Accounts {
    /// All accounts as they are shown, by address.
    pub(crate) async fn list(&self) -> Result<Vec<Value>, Refusal> {
        let known = self.known();
        let rows = self.store.accounts().await?;
        let saved = self.store.saved_accounts().await?;
        let mut parked: HashMap<String, usize> = HashMap::new();
        for message in self.store.troubled(None, false).await? {
            *parked.entry(message.account).or_default() += 1;
        }
        let rows: HashMap<_, _> = rows.iter().map(|row| (row.address.as_str(), row)).collect();
        let jobs: HashMap<_, _> = known.jobs.iter().map(|job| (job.address(), job)).collect();
        let now = self.site.clock.now();
        let view = |address: &str, account, saved, problems| View {
            row: rows.get(address).copied(),
            account,
            saved,
            problems,
            parked: parked.get(address).copied().unwrap_or_default(),
            now,
        };
        let mut views: Vec<View<'_>> = Vec::new();
        for account in &known.config.accounts {
            views.push(view(&account.address, Some(account), None, &[]));
        }
        for saved in &saved {
            let problems = known.problems.get(&saved.id).map_or(&[][..], Vec::as_slice);
            let job = jobs.get(saved.address.as_str()).filter(|_| problems.is_empty());
            views.push(view(&saved.address, job.map(|job| &*job.account), Some(saved), problems));
        }
        views.sort_by(|a, b| a.address().cmp(b.address()));
        Ok(views.iter().map(View::json).collect())
    }

    /// Everything about one account, but its password.
    pub(crate) async fn show(&self, address: &str) -> Result<Value, Refusal> {
        let address = address.to_lowercase();
        let found = self.list().await?.into_iter().rfind(|item| item["address"] == address.as_str());
        let Some(item) = found else { return Err(self.not_found(address).await) };
        let saved = self.find(&address).await?;
        let Some(saved) = saved.filter(|_| item["source"] != "file") else {
            return Ok(view::details(item, None, &Value::Null, &[]));
        };
        let known = self.known();
        let problems = known.problems.get(&saved.id).map_or(&[][..], Vec::as_slice);
        // What cannot be read is told among the problems.
        let settings = settings_from_text(&saved.settings).unwrap_or_default();
        let settings = serde_json::to_value(settings).unwrap_or_default();
        Ok(view::details(item, Some(&saved), &settings, problems))
    }

    /// Adds an account, which is then checked at once.
    pub(crate) async fn add(&self, who: &str, draft: Draft, doubts: Doubts) -> Result<Done, Refusal> {
        let Draft { address, settings, enabled, password } = draft;
        let (address, known) = (address.trim().to_lowercase(), self.known());
        self.must_be_ours(&known, &address)?;
        if self.find(&address).await?.is_some() {
            return Err(Refusal::Exists { address });
        }
        let credential = password.clone().map_or(CredentialSource::Missing, CredentialSource::Password);
        let read = account_from(&known.config, &address, &settings, enabled, credential).map_err(Refusal::Invalid)?;
        self.must_be_no_double(&known, &read.account, doubts)?;
        let tested = self.tested(&known, &read, None, Scope::Whole, doubts).await?;
        // Only now is anything written.
        let id = self.store.open_account(&address).await?.id;
        let secret = match &password {
            Some(password) => SecretChange::Set(self.keys.seal(id.0, password)?),
            None => SecretChange::Keep,
        };
        let settings = settings_to_text(&settings);
        let (who, now) = (who.to_owned(), self.site.clock.now());
        let save = Save { account: id, expected: Expected::New, settings, enabled, secret, who, now };
        let saved = match self.store.save_account(&save).await {
            Err(StoreError::Exists) => return Err(Refusal::Exists { address }),
            other => other?,
        };
        self.take_over("added", &saved.address, &save.who).await?;
        Ok(Done { saved, trial: tested, warnings: read.warnings })
    }

    /// Changes an account; what it does now is finished as it was.
    pub(crate) async fn edit(&self, who: &str, address: &str, edit: Edit, doubts: Doubts) -> Result<Done, Refusal> {
        let (before, known) = (self.ours(address).await?, self.known());
        let changed = || Refusal::Changed { address: before.address.clone(), last: Some(before.changed.clone()) };
        if edit.version.is_some_and(|version| version != before.version) {
            return Err(changed());
        }
        let enabled = edit.enabled.unwrap_or(before.enabled);
        let ((settings, read), was) = self.edited(&known, &before, &edit)?;
        if edit.password.is_none()
            && let Some(changed) = leads_elsewhere(was.as_ref(), &read.account)
        {
            return Err(Refusal::SecretNeeded { changed });
        }
        let scope = Scope::of(was.as_ref(), &read.account);
        if scope == Scope::Whole || was.as_ref().is_none_or(|was| !is_same_mail(was, &read.account)) {
            self.must_be_no_double(&known, &read.account, doubts)?;
        }
        let tested = match scope {
            Scope::Nothing => None,
            scope => self.tested(&known, &read, Some(before.id), scope, doubts).await?,
        };
        let secret = match &edit.password {
            Some(password) => SecretChange::Set(self.keys.seal(before.id.0, password)?),
            None => SecretChange::Keep,
        };
        let save = Save {
            account: before.id,
            expected: Expected::Version(before.version),
            settings: settings_to_text(&settings),
            enabled,
            secret,
            who: who.to_owned(),
            now: self.site.clock.now(),
        };
        let saved = match self.store.save_account(&save).await {
            Err(StoreError::Changed { last }) => return Err(Refusal::Changed { address: before.address, last }),
            other => other?,
        };
        self.take_over("changed", &saved.address, &save.who).await?;
        Ok(Done { saved, trial: tested, warnings: read.warnings })
    }

    /// Switches an account on or off; nothing is tested.
    pub(crate) async fn switch(&self, who: &str, address: &str, enabled: bool) -> Result<SavedAccount, Refusal> {
        let before = self.ours(address).await?;
        if before.enabled == enabled {
            return Ok(before);
        }
        let save = switched(&before, enabled, who, self.site.clock.now());
        let saved = match self.store.save_account(&save).await {
            Err(StoreError::Changed { last }) => return Err(Refusal::Changed { address: before.address, last }),
            other => other?,
        };
        self.take_over(if enabled { "enabled" } else { "disabled" }, &saved.address, &save.who).await?;
        Ok(saved)
    }

    /// Switches many accounts on or off, and has it taken over once; answers how many that changed. Those of the file and
    /// those that somebody changes at the same time stay as they are.
    pub(crate) async fn switch_all(
        &self,
        who: &str,
        addresses: &HashSet<String>,
        enabled: bool,
    ) -> Result<u64, Refusal> {
        let saved = self.store.saved_accounts().await?;
        let (now, mut saving, mut ended) = (self.site.clock.now(), JoinSet::new(), Vec::new());
        let wanted = saved.into_iter().filter(|saved| saved.enabled != enabled && addresses.contains(&saved.address));
        for before in wanted {
            if saving.len() >= SAVED_AT_ONCE {
                ended.extend(saving.join_next().await);
            }
            let store = Arc::clone(&self.store);
            let save = switched(&before, enabled, who, now);
            saving.spawn(async move { store.save_account(&save).await });
        }
        while let Some(saved) = saving.join_next().await {
            ended.push(saved);
        }
        let (mut changed, mut failed) = (0, None);
        for saved in ended {
            match saved {
                Ok(Ok(_)) => changed += 1,
                // Somebody else changed it meanwhile.
                Ok(Err(StoreError::Changed { .. })) => {}
                Ok(Err(error)) => failed = Some(error),
                // None is cancelled, so it panicked: that is ours, and told as such.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        // What was saved is in force although another could not be.
        if changed > 0 {
            info!(accounts = changed, who, enabled, "saved accounts were switched");
            self.refresh().await?;
        }
        failed.map_or(Ok(changed), |error| Err(error.into()))
    }

    /// Deletes an account. Delivered mail stays, and what was fetched is remembered for 90 days.
    pub(crate) async fn delete(&self, who: &str, address: &str, version: Option<u64>) -> Result<(), Refusal> {
        let before = self.ours(address).await?;
        let version = version.unwrap_or(before.version);
        match self.store.delete_account(before.id, version, who, self.site.clock.now()).await {
            Err(StoreError::Changed { last }) => return Err(Refusal::Changed { address: before.address, last }),
            other => other?,
        }
        self.take_over("deleted", &before.address, who).await
    }

    /// Tests an account as it is.
    pub(crate) async fn test(&self, address: &str) -> Result<Trial, Refusal> {
        let known = self.known();
        let job = known.job(address);
        let Some(job) = job else {
            let before = self.ours(address).await?;
            let problems = known.problems.get(&before.id).cloned();
            return Err(Refusal::Invalid(problems.unwrap_or_default()));
        };
        let id = self.store.open_account(job.address()).await?.id;
        Ok(trial(&self.site, job, Some(id)).await)
    }

    /// Tests an account that is not saved.
    pub(crate) async fn test_draft(&self, draft: Draft, see: SeeStep<'_>) -> Result<Trial, Refusal> {
        let Draft { address, settings, password, .. } = draft;
        let known = self.known();
        let credential = password.map_or(CredentialSource::Missing, CredentialSource::Password);
        let read = account_from(&known.config, &address, &settings, true, credential).map_err(Refusal::Invalid)?;
        Ok(trial_watched(&self.site, &self.job(&known, &read).await?, None, see).await)
    }

    /// Tests what an account would be after an edit that is not saved.
    pub(crate) async fn test_edit(&self, address: &str, edit: Edit, see: SeeStep<'_>) -> Result<Trial, Refusal> {
        let (before, known) = (self.ours(address).await?, self.known());
        let (read, was) = self.edited(&known, &before, &edit)?;
        if edit.password.is_none()
            && let Some(changed) = leads_elsewhere(was.as_ref(), &read.1.account)
        {
            return Err(Refusal::SecretNeeded { changed });
        }
        Ok(trial_watched(&self.site, &self.job(&known, &read.1).await?, Some(before.id), see).await)
    }

    /// What an account would be after an edit: its settings, what they say, and what it says now, if that can be read.
    fn edited(
        &self,
        known: &Known,
        before: &SavedAccount,
        edit: &Edit,
    ) -> Result<((Settings, ReadAccount), Option<Account>), Refusal> {
        let mut settings = settings_from_text(&before.settings).map_err(|problem| Refusal::Invalid(vec![problem]))?;
        edit.unset.iter().for_each(|key| drop(settings.remove(key)));
        settings.extend(edit.set.clone());
        let enabled = edit.enabled.unwrap_or(before.enabled);
        let credential = match &edit.password {
            Some(password) => CredentialSource::Password(password.clone()),
            None => merge::credential(before),
        };
        let read = account_from(&known.config, &before.address, &settings, enabled, credential);
        let was = merge::read(&known.config, before).ok().map(|read| read.account);
        Ok(((settings, read.map_err(Refusal::Invalid)?), was))
    }

    /// Has an account checked now. False when it is not scheduled: it is switched off.
    pub(crate) async fn check_now(&self, address: &str) -> Result<bool, Refusal> {
        if self.known().job(address).is_none() {
            self.ours(address).await?;
        }
        Ok(self.scheduler.check_now(address))
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    async fn find(&self, address: &str) -> Result<Option<SavedAccount>, Refusal> {
        let saved = self.store.saved_accounts().await?;
        Ok(saved.into_iter().find(|saved| saved.address.eq_ignore_ascii_case(address)))
    }

    /// A saved account, which can be changed.
    async fn ours(&self, address: &str) -> Result<SavedAccount, Refusal> {
        if let Some(saved) = self.find(address).await? {
            return Ok(saved);
        }
        self.must_be_ours(&self.known(), address)?;
        Err(self.not_found(address.to_owned()).await)
    }

    fn must_be_ours(&self, known: &Known, address: &str) -> Result<(), Refusal> {
        match known.config.account(address) {
            Some(account) => Err(Refusal::FromFile { address: account.address.clone() }),
            None => Ok(()),
        }
    }

    async fn not_found(&self, address: String) -> Refusal {
        let saved = self.store.saved_accounts().await.unwrap_or_default();
        let known = self.known();
        let all = known.config.accounts.iter().map(|account| account.address.as_str());
        let all: Vec<&str> = all.chain(saved.iter().map(|saved| saved.address.as_str())).collect();
        let nearest = connectord_config::nearest(&address, &all).map(str::to_owned);
        Refusal::NotFound { address, nearest }
    }

    fn must_be_no_double(&self, known: &Known, account: &Account, doubts: Doubts) -> Result<(), Refusal> {
        let other = known.jobs.iter().find(|job| {
            doubts != Doubts::PassedOver && job.address() != account.address && is_same_mail(&job.account, account)
        });
        match other {
            Some(other) => {
                Err(Refusal::SameMail { address: account.address.clone(), other: other.address().to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Tests an account, unless doubts are passed over.
    async fn tested(
        &self,
        known: &Known,
        account: &ReadAccount,
        id: Option<AccountId>,
        scope: Scope,
        doubts: Doubts,
    ) -> Result<Option<Trial>, Refusal> {
        if doubts != Doubts::Heeded {
            return Ok(None);
        }
        let job = self.job(known, account).await?;
        let found = trial(&self.site, &job, id).await;
        match found.failure() {
            // Whether the users are here has nothing to do with what is changed.
            Some((TrialStep::Delivery, _)) if scope == Scope::Connection => Ok(Some(found)),
            Some(_) => Err(Refusal::Trial(Box::new(found))),
            None => Ok(Some(found)),
        }
    }

    /// A job that runs once, with parts of its own.
    async fn job(&self, known: &Known, account: &ReadAccount) -> Result<Job, Refusal> {
        let mut builder = Builder::new(self.connector.clone(), self.store.instance()).with_keys(Arc::clone(&self.keys));
        let mut jobs = builder.jobs_of(&known.config, std::slice::from_ref(account)).await?;
        match jobs.pop() {
            Some(job) => Ok(job?),
            None => Err(Refusal::Request("no account".into())),
        }
    }

    /// Has what was saved taken over, and waits until it is.
    async fn take_over(&self, what: &'static str, account: &str, who: &str) -> Result<(), Refusal> {
        info!(account, who, what, "a saved account was changed");
        self.refresh().await
    }

    /// Has what is saved taken over, and waits until it is.
    async fn refresh(&self) -> Result<(), Refusal> {
        let (done, outcome) = oneshot::channel();
        self.refresh.send(done).await.map_err(|_| Refusal::Ending)?;
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            // It is saved, and taken over when the file can be used again.
            Ok(Err(text)) => Err(Refusal::NotInForce(text)),
            Err(_) => Err(Refusal::Ending),
        }
    }
}

/// An account as it is, but switched on or off.
fn switched(before: &SavedAccount, enabled: bool, who: &str, now: UnixTime) -> Save {
    Save {
        account: before.id,
        expected: Expected::Version(before.version),
        settings: before.settings.clone(),
        enabled,
        secret: SecretChange::Keep,
        who: who.to_owned(),
        now,
    }
}

/// How much of an account a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Nothing that a test could tell anything about.
    Nothing,
    /// The way to the server, the login, or what is retrieved.
    Connection,
    /// Also where mail goes.
    Whole,
}

impl Scope {
    fn of(before: Option<&Account>, after: &Account) -> Self {
        let Some(before) = before else { return Self::Whole };
        let place =
            |account: &Account| (account.deliver_to.clone(), account.delivery.clone(), account.recipient.clone());
        if place(before) != place(after) {
            return Self::Whole;
        }
        let login = |account: &Account| {
            (account.credential.clone(), account.mechanisms.clone(), account.initial_response, account.folders.clone())
        };
        if leads_elsewhere(Some(before), after).is_some() || login(before) != login(after) {
            Self::Connection
        } else {
            Self::Nothing
        }
    }
}

/// What changes about where a password is sent to, and how safely.
fn leads_elsewhere(before: Option<&Account>, after: &Account) -> Option<&'static str> {
    let Some(before) = before else { return Some("what cannot be read") };
    let before_host = (before.endpoint.host(), before.endpoint.port());
    [
        ("the server", before_host.0 != after.endpoint.host()),
        ("the port", before_host.1 != after.endpoint.port()),
        ("the protocol", before.protocol != after.protocol),
        ("what is encrypted", before.security != after.security),
        ("the pinned certificate", before.pins != after.pins),
        ("the way to the server", before.proxy != after.proxy),
        ("the user name", before.username != after.username),
        ("how the password is shown to the server", before.mechanisms != after.mechanisms),
    ]
    .into_iter()
    .find_map(|(what, changed)| changed.then_some(what))
}

/// Settings from JSON; null takes a key away.
fn settings_from_json(value: &Value) -> Result<(Settings, Vec<String>), Refusal> {
    let Some(object) = value.as_object() else { return Ok((Settings::new(), Vec::new())) };
    let (gone, there): (Vec<_>, Vec<_>) = object.iter().partition(|(_, value)| value.is_null());
    let there: serde_json::Map<String, Value> =
        there.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let settings = settings_of(&there).map_err(|problem| Refusal::Invalid(vec![problem]))?;
    Ok((settings, gone.into_iter().map(|(key, _)| key.clone()).collect()))
}
