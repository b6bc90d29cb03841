use std::io;

use connectord_delivery::Note;
use connectord_mail::{DeliveryId, UnixTime};
use serde::{Deserialize, Serialize};

use super::disk::DiskDir;
use super::shelf::Where;
use super::write::{self, Digest256};

/// Notes are at most this long ([`Note`]).
const MAX_NOTE: usize = 1024;

/// What is remembered of a file in `tmp/`, or of one that was found delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(rename = "m")]
    pub(super) at: Where,
    /// Name in `new/`.
    #[serde(rename = "n")]
    pub(super) target: String,
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub(super) staged: Option<StagedRow>,
}

/// What is remembered of a file in `tmp/`; without it the message was there before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StagedRow {
    #[serde(rename = "i")]
    pub(super) instance: String,
    /// Which batch of which process; see [`Batch`].
    #[serde(rename = "b")]
    pub(super) batch: String,
    #[serde(rename = "s")]
    pub(super) size_octets: u64,
    /// SHA-256 of the file, in hexadecimal; with `rest_from`, of its octets before that and the SHA-256 of the rest.
    #[serde(rename = "h")]
    pub(super) digest: String,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) rest_from: Option<u64>,
    #[serde(rename = "o")]
    pub(super) boot: String,
    /// Device and inode of `tmp/`.
    #[serde(rename = "t")]
    pub(super) tmp: (u64, u64),
    #[serde(rename = "w")]
    pub(super) written_at: UnixTime,
}

impl StagedRow {
    /// Whether a file is the one that was staged.
    pub(super) fn is(&self, dir: &dyn DiskDir, name: &str) -> io::Result<bool> {
        let digest = Digest256 { hex: self.digest.clone(), rest_from: self.rest_from };
        write::is(dir, name, self.size_octets, &digest)
    }
}

impl Row {
    /// The note; `None` when it would be too long because the path is.
    pub(super) fn to_note(&self) -> Option<Note> {
        let text = serde_json::to_vec(self).expect("strings and numbers are always JSON");
        (text.len() <= MAX_NOTE).then_some(Note(text))
    }

    /// Reads a note; `None` for anything we did not write.
    pub(super) fn parse(note: &Note) -> Option<Self> {
        let row: Self = serde_json::from_slice(&note.0).ok()?;
        let plain = |name: &str| !name.is_empty() && !name.contains('/') && name != "." && name != "..";
        let names = plain(&row.target)
            && row.at.folder.as_deref().is_none_or(plain)
            && row.staged.as_ref().is_none_or(|staged| plain(&staged.instance) && plain(&staged.batch));
        (names && row.id().is_some()).then_some(row)
    }

    pub(super) fn id(&self) -> Option<DeliveryId> {
        super::names::id_of(self.target.as_bytes())
    }
}

/// One batch of one process; its number never comes again, so that its marker speaks for no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) instance: String,
    pub(super) number: String,
}

impl Batch {
    /// The name in `tmp/` of a message.
    pub(super) fn file(&self, id: DeliveryId) -> String {
        format!("{id}.{}.{}", self.instance, self.number)
    }

    /// The name in `tmp/` of the marker.
    pub(super) fn marker(&self) -> String {
        format!("batch.{}.{}", self.instance, self.number)
    }
}

/// Whether a batch of this number is of the process with this nonce.
pub(super) fn is_of_process(number: &str, nonce: &str) -> bool {
    number.split_once('-').is_some_and(|(process, _)| process == nonce)
}

/// What a name in `tmp/` is, if it carries this installation's mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover<'a> {
    Marker { batch: &'a str },
    File { id: DeliveryId, batch: &'a str },
}

impl<'a> Leftover<'a> {
    pub(super) fn of(name: &'a [u8], instance: &str) -> Option<Self> {
        let mut parts = std::str::from_utf8(name).ok()?.split('.');
        let (what, mark, batch, end) = (parts.next()?, parts.next()?, parts.next()?, parts.next());
        if mark != instance || end.is_some() {
            return None;
        }
        match what {
            "batch" | "probe" => Some(Self::Marker { batch }),
            id => Some(Self::File { id: DeliveryId::parse(id)?, batch }),
        }
    }
}

#[cfg(test)]
mod tests {
    use connectord_mail::Identity;

    use super::*;

    #[test]
    fn a_note_reads_back_and_nothing_else_does() {
        let id = DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: b"", generation: 0 });
        let row = Row {
            at: Where { mailbox: "/var/vmail/ann/Maildir".into(), folder: Some(".Junk".into()) },
            target: format!("1.{id}.host,S=1,W=1"),
            staged: Some(StagedRow {
                instance: "i".repeat(40),
                batch: "b".repeat(24),
                size_octets: u64::MAX,
                digest: "f".repeat(64),
                rest_from: Some(u64::MAX),
                boot: "0".repeat(36),
                tmp: (u64::MAX, u64::MAX),
                written_at: UnixTime(1_795_000_000),
            }),
        };
        let note = row.to_note().unwrap();
        assert_eq!(Row::parse(&note), Some(row.clone()));
        assert_eq!(Row { at: Where { mailbox: "/".repeat(1000), folder: None }, ..row.clone() }.to_note(), None);
        for bad in ["../x", "", "1.x.y", &format!("1.{id}.a/b")] {
            assert_eq!(Row::parse(&Row { target: bad.into(), ..row.clone() }.to_note().unwrap()), None, "{bad}");
        }
        assert_eq!(Row::parse(&Note(b"{".to_vec())), None);
    }

    #[test]
    fn only_our_own_names_are_leftovers() {
        let id = DeliveryId::new(Identity { account: "a", mailbox: "", uid_validity: 0, key: b"", generation: 0 });
        let batch = Batch { instance: "abc".into(), number: "7".into() };
        let (file, marker) = (batch.file(id), batch.marker());
        assert_eq!(Leftover::of(file.as_bytes(), "abc"), Some(Leftover::File { id, batch: "7" }));
        assert_eq!(Leftover::of(marker.as_bytes(), "abc"), Some(Leftover::Marker { batch: "7" }));
        assert_eq!(Leftover::of(file.as_bytes(), "abd"), None);
        assert_eq!(Leftover::of(b"1795000000.M1P2.host", "M1P2"), None);
    }
}
