//! What the page and the API need of the rest of the program, as one trait and the values it speaks in.
//!
//! The values are made for showing: texts as they came from outside (templates and answers make them harmless), moments,
//! counts. Nothing here holds a stored secret: one goes in, with [`Entered`], and none comes out.

mod account;
mod message;
mod state;

use async_trait::async_trait;
use tokio::sync::{broadcast, mpsc};

pub(crate) use account::words;
pub use account::{
    Account, AccountQuery, Activity, Check, Counts, Delete, DeleteBy, Entered, Group, Health, OnFilterFailure,
    Oversize, Progress, Protocol, Row, Run, Secret, SecretState, Security, Settings, Sort, Source, Start, Step,
    StepState, Test, Tick, UnknownWord,
};
pub use message::{
    Held, HeldDetail, HeldQuery, LogLine, LogQuery, Message, MessageQuery, MessageState, Parked, ParkedAction, Score,
    Trail, Why,
};
pub use state::{Audit, CauseLine, ConfigEntry, Hour, Installation, Overview, Part, PartState, User, UserQuery};

use crate::person::Caller;

/// A page of a list: at most as many items as were asked for, and where to go on.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Give it back as `after` for what follows; absent at the end.
    pub next: Option<String>,
    /// How many match in all.
    pub total: u64,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None, total: 0 }
    }
}

/// One field that cannot be taken, by its name in [`Settings`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldProblem {
    /// Name of the field, as in the JSON.
    pub field: String,
    /// A key of the catalogue below `problem.`, such as `missing`; or a sentence of the back end's own.
    pub problem: String,
}

impl FieldProblem {
    /// A problem with `field`.
    pub fn new(field: &str, problem: &str) -> Self {
        Self { field: field.to_owned(), problem: problem.to_owned() }
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such thing (any more).
    #[error("not found")]
    NotFound,
    /// Some fields cannot be taken.
    #[error("some fields cannot be taken")]
    Fields(Vec<FieldProblem>),
    /// Host, user name and destination are those of another account, case aside.
    #[error("{address} retrieves this mailbox for the same user already")]
    Duplicate {
        /// Its id.
        id: String,
        /// Its address.
        address: String,
    },
    /// Somebody saved since the version that this edit began with.
    #[error("changed meanwhile")]
    Changed {
        /// The settings this edit began with, while they are still known.
        base: Option<Box<Settings>>,
        /// What is there now.
        current: Box<Account>,
    },
    /// The connection was tested and did not work; nothing was changed.
    #[error("the test of the connection failed; nothing was changed")]
    TestFailed(Box<Test>),
    /// It comes from the configuration file, which is not written by the page.
    #[error("managed by the configuration file")]
    FromFile,
    /// The state of the program cannot be read or written now.
    #[error("the state cannot be used: {0}")]
    Unavailable(String),
}

/// What an action answers.
pub type Answer<T> = Result<T, Refusal>;

/// Which accounts an action is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Which {
    /// These, by id.
    Ids(Vec<String>),
    /// All that match; an empty query means all accounts.
    Matching(Box<AccountQuery>),
}

/// How settings are saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saving {
    /// Given by whoever creates: the same key within a day makes the same account again, and not a second one.
    pub idempotency_key: Option<String>,
    /// The version the edit began with; without it whatever is there is replaced.
    pub if_match: Option<String>,
    /// Save although the connection does not work.
    pub untested: bool,
}

/// Something happened; what is seen is asked for again by whoever shows it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An account's health, activity, progress or settings changed.
    Account {
        /// Its id.
        id: String,
    },
    /// An account is gone.
    Gone {
        /// Its id.
        id: String,
    },
    /// A line was logged.
    Log(Box<LogLine>),
    /// Figures of the overview changed.
    Overview,
}

/// The rest of the program, as the page and the API see it.
///
/// Every method answers within the caller's deadline of 30 s, save [`test`](Self::test), which has 60 s. A method that lists never
/// answers more than `limit` items. `caller` is for the audit; what a caller may do has been decided before. Those who may
/// see only their own accounts come with [`AccountQuery::user`] set, and ids that they name were looked up before.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Counts, causes, what runs, messages over time, health of the parts.
    async fn overview(&self, hours: u32) -> Answer<Overview>;

    /// Accounts that match, and counts by health of all that match but for the state asked for.
    async fn accounts(&self, query: &AccountQuery) -> Answer<(Page<Row>, Counts)>;
    /// One account with its settings.
    async fn account(&self, id: &str) -> Answer<Account>;
    /// Adds an account, having tested it, and checks it at once; answers its id.
    async fn create(&self, caller: &Caller, entered: Entered, saving: Saving) -> Answer<String>;
    /// Replaces settings, having tested them when values of the connection changed.
    async fn update(&self, caller: &Caller, id: &str, entered: Entered, saving: Saving) -> Answer<()>;
    /// Deletes an account; delivered mail stays.
    async fn delete(&self, caller: &Caller, id: &str, if_match: Option<&str>) -> Answer<()>;
    /// Switches accounts on or off; answers how many that changed.
    async fn switch(&self, caller: &Caller, which: Which, on: bool) -> Answer<u64>;
    /// Checks accounts now, spread over time when they are many; answers how many.
    async fn check(&self, caller: &Caller, which: Which) -> Answer<u64>;
    /// Stops checks that run and forgets those that wait; answers how many.
    async fn stop(&self, caller: &Caller, which: Which) -> Answer<u64>;
    /// Tries these settings step by step and tells each step as it changes; `id` is of the account whose stored secret is meant when
    /// none is entered. Ends early when nobody receives any more.
    async fn test(
        &self,
        caller: &Caller,
        id: Option<&str>,
        entered: Entered,
        steps: mpsc::Sender<Step>,
    ) -> Answer<Test>;
    /// The settings that an address suggests: known provider, SRV, autoconfig; within 3 s.
    async fn suggest(&self, address: &str) -> Answer<Option<Settings>>;
    /// Runs of an account, newest first.
    async fn runs(&self, id: &str, after: Option<&str>, limit: usize) -> Answer<Page<Run>>;

    /// Local users.
    async fn users(&self, query: &UserQuery) -> Answer<Page<User>>;

    /// Messages that were seen, newest first.
    async fn messages(&self, query: &MessageQuery) -> Answer<Page<Message>>;
    /// One message and what became of it.
    async fn message(&self, id: &str) -> Answer<(Message, Vec<Trail>)>;

    /// What is in quarantine, newest first.
    async fn quarantine(&self, query: &HeldQuery) -> Answer<Page<Held>>;
    /// One message of it, with head lines and scores.
    async fn held(&self, id: &str) -> Answer<HeldDetail>;
    /// Its octets, at most `limit` of them.
    async fn held_octets(&self, id: &str, limit: usize) -> Answer<bytes::Bytes>;
    /// Delivers them without a new scan; answers how many.
    async fn release(&self, caller: &Caller, ids: &[String], learn_as_good: bool) -> Answer<u64>;
    /// Discards our copies; answers how many.
    async fn discard(&self, caller: &Caller, ids: &[String]) -> Answer<u64>;

    /// What is parked, newest first.
    async fn parked(&self, query: &HeldQuery) -> Answer<Page<Parked>>;
    /// Does something with parked messages; answers how many.
    async fn settle_parked(&self, caller: &Caller, ids: &[String], action: ParkedAction) -> Answer<u64>;

    /// The last lines of the log that match, oldest first.
    async fn log(&self, query: &LogQuery) -> Answer<Vec<LogLine>>;

    /// What the configuration file says and where things are.
    async fn installation(&self) -> Answer<Installation>;
    /// Tries filters, destinations and state now.
    async fn health(&self) -> Answer<Vec<Part>>;

    /// Writes a line of the audit that comes from this crate: sign-ins, people, tokens.
    async fn note(&self, audit: Audit);
    /// The audit, newest first.
    async fn audit(&self, after: Option<&str>, limit: usize) -> Answer<Page<Audit>>;

    /// Events from now on. A receiver that lags loses the oldest; it then shows everything anew.
    fn events(&self) -> broadcast::Receiver<Event>;
}
