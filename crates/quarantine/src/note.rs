//! What is remembered beside a message: how far its release has come, or that it is gone.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use connectord_delivery::{Note as DeliveryNote, Recipient};
use connectord_mail::UnixTime;
use serde::{Deserialize, Serialize};

/// Largest note that is read, in octets.
const MAX_NOTE: u64 = 16 * 1024 * 1024;

/// The note of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Since when the message is released to everybody or discarded: what is still there of it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone_at: Option<UnixTime>,
    /// How far its release has come, for whom.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rows: Vec<Row>,
}

/// One recipient of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) user: String,
    pub(crate) address: String,
    pub(crate) step: Step,
    /// Earlier attempts that may have arrived.
    #[serde(default)]
    pub(crate) uncertain: u32,
}

/// How far it has come for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Not begun, or certainly without effect.
    Waiting,
    /// The destination noted this in the first step, in base64; or, without a note, an attempt begins.
    Begun(Option<String>),
    /// The destination has it.
    Delivered,
}

impl Note {
    /// Rows for those who have none: a message that was kept again may be for more people.
    pub(crate) fn cover<'a>(&mut self, recipients: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (user, address) in recipients {
            if !self.rows.iter().any(|row| row.user == user) {
                self.rows.push(Row::new(user, address));
            }
        }
    }
}

impl Row {
    pub(crate) fn new(user: &str, address: &str) -> Self {
        Self { user: user.to_owned(), address: address.to_owned(), step: Step::Waiting, uncertain: 0 }
    }

    pub(crate) fn recipient(&self) -> Recipient {
        Recipient { user: self.user.clone(), address: self.address.clone() }
    }
}

impl Step {
    pub(crate) fn begun(note: Option<&DeliveryNote>) -> Self {
        Self::Begun(note.map(|note| STANDARD.encode(&note.0)))
    }

    /// What the destination noted.
    pub(crate) fn note(&self) -> Option<DeliveryNote> {
        let Self::Begun(Some(note)) = self else { return None };
        STANDARD.decode(note).ok().map(DeliveryNote)
    }

    pub(crate) fn is_begun(&self) -> bool {
        matches!(self, Self::Begun(_))
    }
}

impl Note {
    pub(crate) fn gone(at: UnixTime) -> Self {
        Self { gone_at: Some(at), rows: Vec::new() }
    }

    /// Somebody is between the two steps.
    pub(crate) fn is_open(&self) -> bool {
        self.gone_at.is_none() && self.rows.iter().any(|row| row.step.is_begun())
    }

    /// Everybody has it.
    pub(crate) fn is_done(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.step == Step::Delivered)
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists are always JSON")
    }

    /// Reads a note, or says what is wrong with it.
    pub(crate) fn read(file: impl Read) -> Result<Self, String> {
        let mut octets = Vec::new();
        file.take(MAX_NOTE + 1).read_to_end(&mut octets).map_err(|error| error.to_string())?;
        if octets.len() as u64 > MAX_NOTE {
            return Err(format!("it has more than {MAX_NOTE} octets"));
        }
        serde_json::from_slice(&octets).map_err(|error| error.to_string())
    }
}
