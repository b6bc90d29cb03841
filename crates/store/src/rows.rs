use std::any::Any;
use std::fmt;

use connectord_account::{Key, State};
use connectord_delivery::{Note, Recipient};
use connectord_mail::{Fingerprint, UnixTime};
use serde::{Deserialize, Serialize};

use crate::Reason;

/// An account in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(pub i64);

/// A mailbox under one UIDVALIDITY; POP3 has one per account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MailboxId(pub i64);

/// The right to change an account's state, held while it is worked on; dropping it gives it back.
pub struct Lease {
    /// Whose state.
    pub account: AccountId,
    /// Rises with every lease of the account.
    pub fence: u64,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Lease {
    /// For back ends: a lease whose guard is dropped with it.
    pub fn new(account: AccountId, fence: u64, guard: Box<dyn Any + Send + Sync>) -> Self {
        Self { account, fence, _guard: guard }
    }
}

impl RunRow {
    /// Whether nothing went wrong and nothing happened.
    pub fn is_uneventful(&self) -> bool {
        let Self { retrieved, delivered, deferred, parked, removed, repeated, quarantined, discarded, error, .. } =
            self;
        let counts = [retrieved, delivered, deferred, parked, removed, repeated, quarantined, discarded];
        error.is_none() && counts.iter().all(|count| **count == 0)
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("account", &self.account).field("fence", &self.fence).finish_non_exhaustive()
    }
}

/// An account and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Its number in the store.
    pub id: AccountId,
    /// Its address, in lower case.
    pub address: String,
    /// How it is doing.
    pub health: Health,
    /// Since when it is configured no more; its ledger is kept for 90 days.
    pub retired_at: Option<UnixTime>,
}

/// How an account is doing, across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Failed checks in a row.
    pub failures: u32,
    /// Refused logins in a row.
    pub login_refusals: u32,
    /// Checks in a row that were cut because the server was silent or too slow: each doubles how long the next one waits.
    pub silences: u32,
    /// What logins taught about the server, in the engine's words, for the next process; holds no credential. At most 1 KiB.
    #[serde(default)]
    pub login: Option<String>,
    /// End of the last check that went well.
    pub last_ok: Option<UnixTime>,
    /// End of the last check.
    pub last_check: Option<UnixTime>,
    /// Not checked before then, except by hand.
    pub next_check: Option<UnixTime>,
    /// Why not.
    pub hold: Option<Hold>,
    /// The last error, in words.
    pub error: Option<String>,
    /// The last error, as values.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// Since when checks fail for that reason.
    #[serde(default)]
    pub since: Option<UnixTime>,
    /// Digest of the credential that was refused last; another one is tried at once.
    pub refused_credential: Option<[u8; 32]>,
    /// The clock was found more than a day ahead of the last check: removals wait until a later check confirms it.
    pub clock_jump: Option<UnixTime>,
}

/// Why an account is not checked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Something failed that time mends.
    Backoff,
    /// The server refused the login.
    Login,
    /// The server asked for a pause.
    Throttled,
    /// The local user does not exist.
    UserGone,
    /// The destination cannot take mail.
    Destination,
    /// A filter cannot look at mail, or the quarantine cannot be asked.
    Filter,
}

/// A mailbox and how far it has been listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxRow {
    /// Its number in the store.
    pub id: MailboxId,
    /// Whose it is.
    pub account: AccountId,
    /// Its name; empty for POP3.
    pub name: String,
    /// Its UIDVALIDITY; 0 for POP3.
    pub uid_validity: u32,
    /// UIDs below this have all been looked at; 0 when none have.
    pub uid_next: u32,
    /// When the first complete listing was committed; `None` before that.
    pub first_listed: Option<UnixTime>,
    /// When the last complete listing was committed.
    pub last_listed: Option<UnixTime>,
    /// A mass absence that is not believed yet.
    pub absence: Option<Absence>,
    /// Messages that an identity change has left to be matched by fingerprint: this mailbox continues another one.
    pub continues: Option<MailboxId>,
    /// Whether the answer to a removal was ever lost, or a unique-id ever came back.
    pub keys_recur: bool,
    /// The last complete listing, if nothing was to be done about it. Forgotten by whatever changes what is known of a
    /// message of the mailbox, and not remembered while one waits for anything but a person.
    pub quiet: Option<Quiet>,
}

/// A complete POP3 listing about which nothing was to be done: every message in it was known, and every known message that
/// is not gone was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// Messages in it.
    pub messages: u32,
    /// Digest of its message numbers and unique-ids, in their order.
    pub digest: [u8; 16],
    /// From then on something may be due; `None`: never.
    pub until: Option<UnixTime>,
    /// Names the rules by which that was found.
    pub rules: u64,
}

/// A mass absence: how often in a row it was seen, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// Complete listings in a row that showed it.
    pub times: u32,
    /// The first of them.
    pub since: UnixTime,
}

/// Names one message in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageRef {
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// Its name there.
    pub key: Key,
    /// Counts up when a unique-id came back for a different message.
    pub generation: u16,
}

/// What people recognise a message by; kept only while it is pending or parked. Each at most 255 octets, escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageName {
    /// The unique-id or UID as the server writes it.
    pub on_server: String,
    /// The Message-ID field.
    pub message_id: String,
    /// The From field.
    pub from: String,
    /// The Subject field.
    pub subject: String,
}

/// A message whose delivery begins: all recipients that do not have it yet, in one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Which message.
    pub message: MessageRef,
    /// Recognises it under another identity.
    pub fingerprint: Fingerprint,
    /// When it arrived at the provider; 0 when unknown.
    pub arrived_at: UnixTime,
    /// What people recognise it by.
    pub name: MessageName,
    /// Per recipient, how far its delivery has come.
    pub deliveries: Vec<(String, Recipient, Step)>,
}

/// Why a message is put off before any delivery of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOffBy {
    /// A filter wants to see it again later.
    Postponement,
    /// A filter failed at it.
    Failure,
}

/// A message that filters put off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// Which message.
    pub message: MessageRef,
    /// Recognises it under another identity.
    pub fingerprint: Fingerprint,
    /// When it arrived at the provider; 0 when unknown.
    pub arrived_at: UnixTime,
    /// What people recognise it by.
    pub name: MessageName,
    /// What is counted.
    pub by: PutOffBy,
    /// Not before.
    pub retry_at: UnixTime,
    /// Why.
    pub reason: String,
}

/// How far the delivery of one message to one recipient has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Not begun, or begun and certainly without effect.
    Waiting,
    /// Made ready where it can be asked for again.
    Staged(Note),
    /// An attempt at a destination that cannot be asked has begun.
    Delivering {
        /// 1 for the first.
        attempt: u32,
    },
    /// The destination has it.
    Delivered,
    /// Refused for good.
    Parked,
}

/// The delivery of one message to one recipient, while the message is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Which message.
    pub message: MessageRef,
    /// Name of the destination.
    pub destination: String,
    /// Who gets it.
    pub recipient: Recipient,
    /// How far it has come.
    pub step: Step,
    /// Attempts that may have arrived: what the next one counts on from.
    pub uncertain_attempts: u32,
}

/// What became of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Which message.
    pub message: MessageRef,
    /// Name of the destination.
    pub destination: String,
    /// The local user.
    pub user: String,
    /// What became of it.
    pub settled: Settled,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The destination has it.
    Delivered,
    /// The destination does not have it: try again then.
    Deferred {
        /// Not before.
        retry_at: UnixTime,
        /// Why.
        reason: String,
        /// Whether it counts towards the number of attempts after which a message is parked.
        counts: bool,
    },
    /// The destination may have it: try again then, marked as a further attempt.
    Uncertain {
        /// Not before.
        retry_at: UnixTime,
        /// Why.
        reason: String,
    },
    /// Refused for good, or tried too often.
    Parked {
        /// Why.
        reason: String,
    },
    /// The destination may have it, and it is not to be tried again until a person says so.
    Doubtful {
        /// Why.
        reason: String,
    },
}

/// What happened to messages beyond their delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Their removal is about to be asked for: committed before the request leaves.
    Removing,
    /// Their removal was refused, or not asked for after all: they are delivered, try again then.
    Kept {
        /// Not before.
        retry_at: UnixTime,
    },
    /// They are gone from the server.
    Done,
    /// They are left alone for good.
    Skipped,
    /// Their whole content agrees with their fingerprint: they are no longer adopted ([`Entry::adopted`]).
    ///
    /// [`Entry::adopted`]: connectord_account::Entry::adopted
    Confirmed,
    /// Adopted ones whose content turned out to be another: new messages, pending, of which nothing is known.
    Another,
}

/// A message in trouble, with all that a person needs to decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedRow {
    /// Which message.
    pub message: MessageRef,
    /// The account's address.
    pub account: String,
    /// The mailbox's name; empty for POP3.
    pub mailbox: String,
    /// [`State::Parked`]; [`State::Pending`] or [`State::Discarding`] when those were asked for too.
    pub state: State,
    /// What people recognise it by.
    pub name: MessageName,
    /// Octets, as far as known.
    pub size_octets: u64,
    /// Why.
    pub reason: String,
    /// Since when it is in trouble.
    pub since: UnixTime,
    /// Failed attempts.
    pub attempts: u16,
    /// How often filters put it off.
    #[serde(default)]
    pub postponed: u16,
    /// How often a filter failed at it.
    #[serde(default)]
    pub filter_failures: u16,
    /// A person wants it delivered whatever speaks against it.
    pub anyway: bool,
    /// How far it has come for each recipient it was begun for, by destination and user.
    pub deliveries: Vec<ParkedDelivery>,
}

/// How far a message in trouble has come for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedDelivery {
    /// Name of the destination.
    pub destination: String,
    /// The local user.
    pub user: String,
    /// How far it has come.
    pub step: Step,
    /// Attempts that may have arrived.
    pub uncertain_attempts: u32,
}

/// Names a check; rises with each one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub i64);

/// One check of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRow {
    /// When it began.
    pub started: UnixTime,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Messages listed.
    pub listed: u64,
    /// Messages retrieved.
    pub retrieved: u64,
    /// Octets retrieved.
    pub octets: u64,
    /// Deliveries that succeeded.
    pub delivered: u64,
    /// Deliveries that wait for another attempt.
    pub deferred: u64,
    /// Messages parked.
    pub parked: u64,
    /// Remote copies removed and confirmed.
    pub removed: u64,
    /// Deliveries made again though an earlier attempt may have arrived: possible duplicates.
    pub repeated: u64,
    /// Messages kept back in the quarantine.
    #[serde(default)]
    pub quarantined: u64,
    /// Messages discarded because the configuration says so.
    #[serde(default)]
    pub discarded: u64,
    /// Messages that are delivered though a filter did not look at them.
    #[serde(default)]
    pub unchecked: u64,
    /// Messages found to be spam, whatever became of them.
    #[serde(default)]
    pub spam: u64,
    /// What ended it, when it did not end well.
    pub error: Option<String>,
    /// The same, as values.
    #[serde(default)]
    pub reason: Option<Reason>,
}
