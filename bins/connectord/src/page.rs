//! What the page and the API show and do: the running daemon behind the trait of `connectord-admin`.
//!
//! | what | file |
//! |---|---|
//! | all accounts in memory, and who keeps them up to date | `roster`, `witness`, `watch` |
//! | lists: filters, order, counts | `query`, `overview`, `users` |
//! | adding, editing, checking, testing | `changes`, `trial`, `settings`, `suggest` |
//! | why an account is not well | `causes` |
//! | messages, quarantine, parked | `messages`, `desk` |
//! | the file, the health of parts | `installation`, `parts` |
//! | who did what; people and sessions in the state | `audit`, `keep` |
//! | sockets | `listen` |

mod audit;
mod causes;
mod changes;
mod desk;
mod draw;
mod installation;
mod keep;
mod listen;
mod messages;
mod overview;
mod parts;
mod query;
mod roster;
mod settings;
mod suggest;
mod trial;
mod users;
mod watch;
mod witness;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use connectord_admin::{
    Account, AccountQuery, Answer, At, Audit, Backend, Caller, Counts, Entered, Event, Held, HeldDetail, HeldQuery,
    Installation, Keep, LogLine, LogQuery, Message, MessageQuery, Overview, Parked, ParkedAction, Part, Refusal, Row,
    Run, Saving, Settings, Step, Test, Trail, User, UserQuery, Which,
};
use connectord_quarantine::DirectoryQuarantine;
use connectord_store::{AccountId, StoreError};
use tokio::sync::{broadcast, mpsc};

pub(crate) use self::listen::Doors;
use self::roster::{Entry, Roster};
pub(crate) use self::witness::Witness;
use crate::accounts::Accounts;
use crate::logging::Ring;

/// The daemon, as it is shown.
pub(crate) struct Page {
    accounts: Arc<Accounts>,
    quarantine: Option<DirectoryQuarantine>,
    trail: Option<Arc<dyn connectord_store::Trail>>,
    witness: Arc<Witness>,
    ring: Arc<Ring>,
    keep: Arc<dyn Keep>,
    events: broadcast::Sender<Event>,
    roster: Roster,
    reading: watch::Reading,
    /// Folders that a test of an account found.
    folders: Mutex<HashMap<AccountId, Vec<String>>>,
    /// How the parts of the installation were found last.
    parts: Mutex<Vec<Part>>,
    users: users::Known,
    refused: audit::Refused,
    file: PathBuf,
    since: At,
}

/// What a page is made of.
pub(crate) struct Made {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) quarantine: Option<DirectoryQuarantine>,
    /// What became of each message, where that is written down.
    pub(crate) trail: Option<Arc<dyn connectord_store::Trail>>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) ring: Arc<Ring>,
    /// The configuration file.
    pub(crate) file: PathBuf,
}

impl Page {
    /// With all accounts read.
    pub(crate) async fn open(made: Made) -> Result<Arc<Self>, StoreError> {
        let Made { accounts, quarantine, trail, witness, ring, file } = made;
        let store = Arc::clone(&accounts.store);
        let page = Self {
            keep: Arc::new(keep::StateKeep(store)),
            events: ring.events(),
            since: At(accounts.site.clock.now().0),
            roster: Roster::default(),
            reading: watch::Reading::default(),
            folders: Mutex::default(),
            parts: Mutex::default(),
            users: users::Known::default(),
            refused: audit::Refused::default(),
            accounts,
            quarantine,
            trail,
            witness,
            ring,
            file,
        };
        let known = Arc::clone(&page.accounts.known.borrow());
        page.roster.read(&page.accounts.store, &known).await?;
        Ok(Arc::new(page))
    }

    /// One account, by the name that addresses have for it.
    fn entry(&self, id: &str) -> Answer<Arc<Entry>> {
        let id = id.parse().map_err(|_| Refusal::NotFound)?;
        self.roster.get(AccountId(id)).ok_or(Refusal::NotFound)
    }
}

fn unavailable(error: StoreError) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

#[async_trait]
impl Backend for Page {
    async fn overview(&self, hours: u32) -> Answer<Overview> {
        self.overview(hours).await
    }

    async fn accounts(&self, query: &AccountQuery) -> Answer<(connectord_admin::Page<Row>, Counts)> {
        self.listed(query).await
    }

    async fn account(&self, id: &str) -> Answer<Account> {
        Ok(self.drawn(&self.entry(id)?).await)
    }

    async fn create(&self, caller: &Caller, entered: Entered, saving: Saving) -> Answer<String> {
        self.create(caller, entered, saving).await
    }

    async fn update(&self, caller: &Caller, id: &str, entered: Entered, saving: Saving) -> Answer<()> {
        self.update(caller, id, entered, saving).await
    }

    async fn delete(&self, caller: &Caller, id: &str, if_match: Option<&str>) -> Answer<()> {
        self.delete(caller, id, if_match).await
    }

    async fn switch(&self, caller: &Caller, which: Which, on: bool) -> Answer<u64> {
        self.switch(caller, which, on).await
    }

    async fn check(&self, caller: &Caller, which: Which) -> Answer<u64> {
        Ok(self.check(caller, &which))
    }

    async fn stop(&self, caller: &Caller, which: Which) -> Answer<u64> {
        Ok(self.stop(caller, &which))
    }

    async fn test(&self, _: &Caller, id: Option<&str>, entered: Entered, steps: mpsc::Sender<Step>) -> Answer<Test> {
        self.tried(id, entered, steps).await
    }

    async fn suggest(&self, address: &str) -> Answer<Option<Settings>> {
        Ok(suggest::settings(address))
    }

    async fn runs(&self, id: &str, after: Option<&str>, limit: usize) -> Answer<connectord_admin::Page<Run>> {
        self.runs(id, after, limit).await
    }

    async fn users(&self, query: &UserQuery) -> Answer<connectord_admin::Page<User>> {
        self.users(query).await
    }

    async fn messages(&self, query: &MessageQuery) -> Answer<connectord_admin::Page<Message>> {
        self.messages(query).await
    }

    async fn message(&self, id: &str) -> Answer<(Message, Vec<Trail>)> {
        self.message(id).await
    }

    async fn quarantine(&self, query: &HeldQuery) -> Answer<connectord_admin::Page<Held>> {
        Ok(self.held_list(query))
    }

    async fn held(&self, id: &str) -> Answer<HeldDetail> {
        self.held_detail(id).await
    }

    async fn held_octets(&self, id: &str, limit: usize) -> Answer<bytes::Bytes> {
        self.held_octets(id, limit).await
    }

    async fn release(&self, caller: &Caller, ids: &[String], learn_as_good: bool) -> Answer<u64> {
        self.release(caller, ids, learn_as_good).await
    }

    async fn discard(&self, caller: &Caller, ids: &[String]) -> Answer<u64> {
        self.discard(caller, ids).await
    }

    async fn parked(&self, query: &HeldQuery) -> Answer<connectord_admin::Page<Parked>> {
        self.parked_list(query).await
    }

    async fn settle_parked(&self, caller: &Caller, ids: &[String], action: ParkedAction) -> Answer<u64> {
        self.settle(caller, ids, action).await
    }

    async fn log(&self, query: &LogQuery) -> Answer<Vec<LogLine>> {
        Ok(self.ring.last(query))
    }

    async fn installation(&self) -> Answer<Installation> {
        self.installation().await
    }

    async fn health(&self) -> Answer<Vec<Part>> {
        Ok(self.try_parts().await)
    }

    async fn note(&self, audit: Audit) {
        self.note(audit).await;
    }

    async fn audit(&self, after: Option<&str>, limit: usize) -> Answer<connectord_admin::Page<Audit>> {
        self.audit(after, limit).await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
