//! Messages: the trail, the quarantine, what is parked, the log.

use serde::{Deserialize, Serialize};

use super::account::{UnknownWord, words};
use crate::at::At;

words! {
    /// What became of a message.
    MessageState {
        /// There, not yet retrieved.
        Waiting = "waiting",
        /// Retrieved.
        Retrieved = "retrieved",
        /// Looked at by filters.
        Filtered = "filtered",
        /// Here, not yet delivered.
        Held = "held",
        /// Delivered.
        Delivered = "delivered",
        /// Delivered as spam.
        Spam = "spam",
        /// In quarantine.
        Quarantined = "quarantined",
        /// Parked.
        Parked = "parked",
        /// Our copy was discarded.
        Discarded = "discarded",
        /// Left there for good.
        Skipped = "skipped",
        /// Removed there.
        Removed = "removed",
        /// May have come twice.
        MaybeTwice = "maybe_twice",
    }
}

/// One message of the trail.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Names it in addresses.
    pub id: String,
    /// When it was last touched.
    pub at: At,
    /// What became of it.
    pub state: MessageState,
    /// Its subject; empty when it has none.
    pub subject: String,
    /// Its sender.
    pub from: String,
    /// Local users.
    pub deliver_to: Vec<String>,
    /// The account's id.
    pub account: String,
    /// The account's address.
    pub address: String,
    /// Its Message-ID.
    pub message_id: String,
    /// Its size.
    pub octets: u64,
    /// The antispam filter's score, and its limit, in thousandths.
    pub score: Option<Score>,
}

/// A score and its limit, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Score {
    /// The score.
    pub milli: i64,
    /// From here on it is spam.
    pub limit_milli: i64,
}

/// One thing that happened to a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trail {
    /// When.
    pub at: At,
    /// What, as a key of the catalogue below `trail.`: `seen`, `retrieved`, `relay`, `filter`, `delivered`, `removed`, `parked`, `quarantined`,
    /// `released`, `discarded`.
    pub what: &'static str,
    /// Words of others: the host that handed it over, a filter's verdict, the destination's answer.
    pub detail: String,
}

/// Which messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessageQuery {
    /// Occurs in sender, recipient, subject or Message-ID, case aside.
    pub text: String,
    /// Only in this state.
    pub state: Option<MessageState>,
    /// Only of this account.
    pub account: Option<String>,
    /// Only for this local user.
    pub user: Option<String>,
    /// Only since then.
    pub since: Option<At>,
    /// Where the last page ended.
    pub after: Option<String>,
    /// How many at most; 1 to 200.
    pub limit: usize,
}

words! {
    /// Why a message is in quarantine.
    Why {
        /// A virus, by name.
        Virus = "virus",
        /// Spam, by score.
        Spam = "spam",
        /// An attachment that is not let in, by name.
        Attachment = "attachment",
        /// A rule, by name.
        Rule = "rule",
    }
}

/// One message in quarantine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// Names it.
    pub id: String,
    /// Since when.
    pub held_at: At,
    /// Local users.
    pub deliver_to: Vec<String>,
    /// Address of the account.
    pub address: String,
    /// Why.
    pub why: Why,
    /// Name of the virus, attachment or rule.
    pub name: String,
    /// Score and limit.
    pub score: Option<Score>,
    /// Its sender.
    pub from: String,
    /// Its subject.
    pub subject: String,
    /// Its size.
    pub octets: u64,
    /// When our copy is discarded.
    pub expires: At,
}

/// One message in quarantine with what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldDetail {
    /// The line of the list.
    #[serde(flatten)]
    pub held: Held,
    /// Fields of its head, at most 30, each at most 500 characters.
    pub head: Vec<(String, String)>,
    /// What gave the score: name and thousandths, heaviest first, at most 8.
    pub symbols: Vec<(String, i64)>,
    /// How many gave the score in all.
    pub symbols_total: u64,
    /// The host that handed it over.
    pub handed_over_by: String,
    /// Whether the provider still has it.
    pub there: bool,
}

/// Which messages of quarantine or parked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeldQuery {
    /// Occurs in sender, recipient or subject, case aside.
    pub text: String,
    /// Only for this reason (quarantine).
    pub why: Option<Why>,
    /// Only for this local user.
    pub user: Option<String>,
    /// Where the last page ended.
    pub after: Option<String>,
    /// How many at most; 1 to 200.
    pub limit: usize,
}

/// One parked message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parked {
    /// Names it.
    pub id: String,
    /// Since when.
    pub at: At,
    /// Id of the account.
    pub account: String,
    /// Address of the account.
    pub address: String,
    /// Local users.
    pub deliver_to: Vec<String>,
    /// Its sender, when known.
    pub from: String,
    /// Its subject, when known.
    pub subject: String,
    /// Its size.
    pub octets: u64,
    /// Why, in words; may hold words of the server or destination.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
}

words! {
    /// What is done with a parked message.
    ParkedAction {
        /// Tried again.
        Retry = "retry",
        /// Retrieved even though it is too large.
        Anyway = "anyway",
        /// Left there for good.
        Skip = "skip",
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogLine {
    /// When.
    pub at: At,
    /// `error`, `warn`, `info` or `debug`.
    pub level: &'static str,
    /// Address of the account; empty when it is of none.
    pub account: String,
    /// The line, with its fields.
    pub text: String,
}

/// Which lines of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogQuery {
    /// Of this level or worse; empty for all.
    pub level: String,
    /// Of this account.
    pub account: String,
    /// Holds this, case aside.
    pub text: String,
    /// How many at most; 1 to 1000.
    pub limit: usize,
}

impl LogQuery {
    /// Whether a line is one of them.
    pub fn wants(&self, line: &LogLine) -> bool {
        const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];
        let rank = |level: &str| LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len());
        let holds = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        rank(line.level) <= rank(&self.level)
            && (self.account.is_empty() || line.account.eq_ignore_ascii_case(&self.account))
            && (self.text.is_empty() || holds(&line.text, &self.text))
    }
}
