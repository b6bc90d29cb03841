//! Very many messages that change at once.

use std::fmt;

/// Very many messages of one mailbox changed at once; a person should hear of it. Its text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The mailbox, escaped; empty for POP3.
    pub mailbox: String,
    /// Messages that were known before.
    pub known: u64,
    /// Known ones that are missing.
    pub missing: u64,
    /// Known ones that were recognised under other names, by their headers.
    pub recognised: u64,
    /// Messages that are taken for new ones.
    pub new: u64,
}

/// What happened to very many messages at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// IMAP: the mailbox has another UIDVALIDITY, so every message another name.
    Renumbered,
    /// POP3: known messages are listed under other unique-ids.
    OtherIds,
    /// More than half of the known messages are missing: nothing is concluded yet.
    Absence,
    /// They have been missing for a day, the third time in a row: they are taken for gone.
    AbsenceBelieved,
}

impl ChangeKind {
    /// The code, as in JSON and in logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Renumbered => "renumbered",
            Self::OtherIds => "other_ids",
            Self::Absence => "absence",
            Self::AbsenceBelieved => "absence_believed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, mailbox, known, missing, recognised, new } = self;
        let of = if mailbox.is_empty() { "the mailbox" } else { mailbox };
        match kind {
            ChangeKind::Renumbered => write!(
                f,
                "the server renumbered {of} (UIDVALIDITY changed): of {known} known messages {recognised} were recognised \
                 by their headers, {new} count as new"
            ),
            ChangeKind::OtherIds => write!(
                f,
                "the server gives known messages of {of} other unique-ids: of {known} known ones {recognised} were \
                 recognised by their headers, {new} count as new"
            ),
            ChangeKind::Absence => write!(
                f,
                "{missing} of {known} known messages are missing from {of}; nothing is concluded until it has been so for \
                 a day"
            ),
            ChangeKind::AbsenceBelieved => {
                write!(
                    f,
                    "{missing} of {known} known messages have been missing from {of} for a day; they count as gone"
                )
            }
        }
    }
}
