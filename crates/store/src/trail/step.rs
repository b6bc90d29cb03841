use std::fmt;
use std::sync::Arc;

use connectord_account::Key;
use connectord_mail::{DeliveryId, UnixTime};

/// Steps remembered of one message; of more, the first half and the newest are.
pub const MAX_STEPS: usize = 64;

/// Longest name of a filter, user or host in a step, in octets.
const MAX_WHO: usize = 255;

/// Longest text of a step, in octets.
const MAX_DETAIL: usize = 500;

/// Longest text by which a message is recognised, in octets.
const MAX_NAME: usize = 255;

/// Most recipients that are named of a message.
const MAX_USERS: usize = 32;

/// Names one message of the trail, also after the state was lost: by its account, its mailbox and its name there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrailKey {
    /// Address of the account, in lower case.
    pub account: Arc<str>,
    /// Its mailbox; empty for POP3.
    pub mailbox: Arc<str>,
    /// The mailbox's UIDVALIDITY; 0 for POP3.
    pub uid_validity: u32,
    /// Its name there.
    pub key: Key,
    /// Counts up when a unique-id came back for a different message.
    pub generation: u16,
}

/// By what an entry names its message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TrailName {
    /// By its name at the provider.
    Key(TrailKey),
    /// By its identity here ([`About::delivery`]): only what was [`What::Quarantined`] before is known by it.
    Delivery(DeliveryId),
}

/// What people recognise a message by. Texts are decoded and harmless to a terminal; longer ones are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its identity at the destination, in the quarantine and in the log.
    pub delivery: DeliveryId,
    /// Its UID or unique-id, as the server writes it.
    pub on_server: String,
    /// Its subject.
    pub subject: String,
    /// Its From field.
    pub from: String,
    /// Its Message-ID.
    pub message_id: String,
    /// The local users it is for.
    pub users: Arc<[String]>,
    /// Its size.
    pub octets: u64,
    /// When the listing that showed it was made.
    pub seen_at: UnixTime,
}

impl About {
    /// With bounded texts.
    pub(crate) fn bounded(mut self) -> Self {
        for text in [&mut self.on_server, &mut self.subject, &mut self.from, &mut self.message_id] {
            cut(text, MAX_NAME);
        }
        if self.users.len() > MAX_USERS {
            self.users = self.users[..MAX_USERS].into();
        }
        self
    }
}

/// What happened to one message at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailEntry {
    /// Which message.
    pub name: TrailName,
    /// When.
    pub at: UnixTime,
    /// What it is recognised by, where that is known: with the first entry, and again with each retrieval, when its users and
    /// its size are taken from it. Of a message that is not known yet, an entry without it is not taken down.
    pub about: Option<Box<About>>,
    /// What happened, in order; their times are [`TrailEntry::at`].
    pub steps: Vec<TrailStep>,
}

impl TrailEntry {
    /// The users who got the message by this: delivered, or released from the quarantine.
    pub fn users_reached(&self) -> impl Iterator<Item = &str> {
        let reached = |step: &&TrailStep| matches!(step.what, What::Delivered | What::Released);
        self.steps.iter().filter(reached).map(|step| step.who.as_str())
    }
}

/// One thing that happened to a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrailStep {
    /// When.
    pub at: UnixTime,
    /// What.
    pub what: What,
    /// The user, filter or host it is about; empty for none.
    pub who: String,
    /// Words of others: a verdict, the destination's answer, a reason; escaped.
    pub detail: String,
    /// A filter's score, in thousandths.
    pub milli_score: Option<i32>,
    /// From which score on it is spam, in thousandths.
    pub milli_limit: Option<i32>,
}

impl TrailStep {
    /// A step; longer texts are cut.
    pub fn new(at: UnixTime, what: What, who: impl Into<String>, detail: impl Into<String>) -> Self {
        let step = Self { at, what, who: who.into(), detail: detail.into(), milli_score: None, milli_limit: None };
        step.bounded()
    }

    /// With bounded texts.
    pub(crate) fn bounded(mut self) -> Self {
        cut(&mut self.who, MAX_WHO);
        cut(&mut self.detail, MAX_DETAIL);
        self
    }
}

/// Cuts a text so that no character is split.
fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

macro_rules! whats {
    ($($(#[$doc:meta])* $name:ident $number:literal $word:literal,)+) => {
        /// What can happen to a message.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum What { $($(#[$doc])* $name = $number,)+ }

        impl What {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for programs.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// For back ends: the one with this number, which never changes.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

whats! {
    /// A listing showed it.
    #[default]
    Seen 0 "seen",
    /// It was retrieved whole. An attempt begins: what was before is over.
    Retrieved 1 "retrieved",
    /// A host handed it over to the provider: `who`; `detail` says how that is known.
    Relay 2 "relay",
    /// A filter looked at it: `who`, with its verdict in words.
    Filter 3 "filter",
    /// Together they took it for spam, for this reason.
    Spam 4 "spam",
    /// The destination has it for the user `who`; its answer.
    Delivered 5 "delivered",
    /// It is put off, for the user `who` or for all.
    Deferred 6 "deferred",
    /// It waits for a person.
    Parked 7 "parked",
    /// It is kept back in the quarantine.
    Quarantined 8 "quarantined",
    /// A notice was delivered in its place to the user `who`.
    Notice 9 "notice",
    /// It was discarded, by the configuration's word or a person's (`who`).
    Discarded 10 "discarded",
    /// It is left at the provider for good.
    Skipped 11 "skipped",
    /// It was released from the quarantine to the user `who`; the destination's answer.
    Released 12 "released",
    /// It was removed at the provider.
    Removed 13 "removed",
    /// It was delivered again to the user `who` though an earlier attempt may have arrived.
    Repeated 14 "repeated",
    /// A person (`who`) wants it tried again.
    Retried 15 "retried",
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
