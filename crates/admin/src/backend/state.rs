//! The installation: overview, users, parts, the audit.

use serde::{Deserialize, Serialize};

use super::account::{Counts, Row, UnknownWord, words};
use crate::at::At;
use crate::cause::Cause;

words! {
    /// How a part of the installation is.
    PartState {
        /// Well.
        Ok = "ok",
        /// Does not answer.
        Down = "down",
        /// Works, but.
        Note = "note",
    }
}

/// A filter, a destination, the state, the disk.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Its name, such as `Rspamd`.
    pub name: String,
    /// How it is.
    pub state: PartState,
    /// How long it took to answer.
    pub latency_ms: Option<u64>,
    /// Where it is and what it said, in few words.
    pub detail: String,
}

/// What one hour, or one day, brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hour {
    /// When it began.
    pub at: At,
    /// Delivered, but for spam.
    pub delivered: u64,
    /// Delivered as spam.
    pub spam: u64,
    /// Quarantined.
    pub quarantined: u64,
    /// Whether the daemon did not run.
    pub down: bool,
}

/// One cause and how many accounts it hits: the unit of the overview.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CauseLine {
    /// The cause.
    #[serde(skip)]
    pub cause: Cause,
    /// The server it is at, or empty.
    pub host: String,
    /// How many accounts.
    pub accounts: u64,
    /// The account, when it is one: id and address.
    pub account: Option<(String, String)>,
    /// Whether a person must act.
    pub needs_action: bool,
    /// Since when.
    pub since: Option<At>,
    /// The next try.
    pub next: Option<At>,
}

/// What the first page shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overview {
    /// Version of the program.
    pub version: String,
    /// Name of the machine.
    pub machine: String,
    /// Since when it runs.
    pub since: At,
    /// Accounts by health.
    pub accounts: Counts,
    /// Accounts being checked.
    pub checking: u64,
    /// Accounts that wait for their turn.
    pub queued: u64,
    /// Accounts that are told by the server.
    pub listening: u64,
    /// Today's messages.
    pub today: Hour,
    /// In quarantine now.
    pub quarantine: u64,
    /// Parked now.
    pub parked: u64,
    /// Worst first, at most 50 of each sort.
    pub causes: Vec<CauseLine>,
    /// Some accounts being checked, at most 6.
    pub running: Vec<Row>,
    /// Hours (days, when more than 48 hours were asked for), oldest first.
    pub hours: Vec<Hour>,
    /// Parts of the installation.
    pub health: Vec<Part>,
    /// Local users.
    pub users: u64,
}

/// A local user.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// Whether the destination knows the user.
    pub here: bool,
    /// The user's accounts by health.
    pub accounts: Counts,
    /// Messages delivered today.
    pub today: Option<u64>,
}

/// Which users.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserQuery {
    /// The name holds this, case aside.
    pub text: String,
    /// Only those with accounts (`true`) or without (`false`).
    pub with_accounts: Option<bool>,
    /// Where the last page ended.
    pub after: Option<String>,
    /// How many at most; 1 to 200.
    pub limit: usize,
}

/// What the configuration file says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Installation {
    /// Path of the file.
    pub file: String,
    /// Its entries, secrets left out.
    pub entries: Vec<ConfigEntry>,
    /// Names of destinations besides the default one.
    pub deliveries: Vec<String>,
    /// Where users are known from, in few words.
    pub users_source: String,
    /// Names of the antispam and antivirus filters; empty when there is none.
    pub antispam: String,
    /// See `antispam`.
    pub antivirus: String,
    /// Days that messages of the trail are kept.
    pub trail_days: u32,
    /// Days that messages stay in quarantine.
    pub quarantine_days: u32,
}

/// One entry of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfigEntry {
    /// Such as `delivery.address`.
    pub key: String,
    /// As written.
    pub value: String,
    /// Line of the file; absent for a default.
    pub line: Option<u32>,
}

/// Who did what, when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// When.
    pub at: At,
    /// Name of the person or token.
    pub who: String,
    /// `account.create`, `account.update`, `sign_in`, `sign_in.refused`, `token.create`, …
    pub what: String,
    /// The thing it was done to.
    pub subject: String,
    /// Old and new values, secrets as `***`.
    pub detail: String,
}
