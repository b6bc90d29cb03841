//! All that can be said of one message without showing it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use connectord_filter::attachment::{self, Attachment, Limits, decode_words};
use connectord_filter::{Answer, Held};
use connectord_mail::{Body, DeliveryId, Head};

use crate::directory::{DirectoryQuarantine, read_head};
use crate::file::HeldBody;
use crate::index::Entry;
use crate::note::Step;
use crate::record::cut;
use crate::release::ReleaseError;

/// Most header fields that are shown.
const MAX_FIELDS: usize = 200;

/// Longest value of a field that is shown, in octets.
const MAX_VALUE: usize = 1000;

/// Longest time that looking for attachments takes; what was found by then is nothing.
const INSPECTION: Duration = Duration::from_secs(20);

/// All that is known of one message. Texts come from strangers: they are escaped where they are shown.
#[derive(Clone, Debug)]
pub struct Details {
    /// As in a list.
    pub entry: Entry,
    /// The mailbox it came from; empty for POP3.
    pub mailbox: String,
    /// The recovered reverse-path.
    pub reverse_path: Option<String>,
    /// Why it is held, whole.
    pub reason: String,
    /// The viruses found.
    pub viruses: Vec<String>,
    /// What each filter said.
    pub answers: Vec<Answer>,
    /// Its header fields, unfolded and decoded; at most 200, each value at most 1,000 octets.
    pub fields: Vec<(String, String)>,
    /// What is attached; nothing when that could not be told.
    pub attachments: Vec<Attachment>,
    /// Why what is attached could not be told, or not all of it.
    pub attachments_trouble: Option<String>,
    /// For each recipient, what is known of releases: `waiting`, `begun`, `delivered`.
    pub release: Vec<(String, &'static str)>,
}

impl DirectoryQuarantine {
    /// All that is known of a message; its file is compared with its digest.
    ///
    /// # Errors
    /// [`ReleaseError::NotHeld`], [`ReleaseError::Damaged`] or the disk's.
    pub async fn details(&self, id: DeliveryId) -> Result<Details, ReleaseError> {
        let entry = self.entry(id).ok_or(ReleaseError::NotHeld)?;
        let read = self.0.on_disk("reading a message", move |inner| {
            let read = inner.open_whole(id).and_then(|(file, opened)| {
                let body: Arc<dyn Body> = Arc::new(HeldBody::new(file, &opened));
                let head = read_head(&*body).map_err(|error| crate::Unreadable::Io(error.to_string()))?;
                let held = opened.header.held(body).ok_or(crate::Unreadable::Header)?;
                Ok((held, head, inner.read_note(id).ok().flatten()))
            });
            Ok(read.map(|(held, head, note)| {
                let release = note.map(|note| note.rows).unwrap_or_default().into_iter().map(|row| {
                    let step = match row.step {
                        Step::Waiting => "waiting",
                        Step::Begun(_) => "begun",
                        Step::Delivered => "delivered",
                    };
                    (row.user, step)
                });
                details(entry, held, &head, release.collect())
            }))
        });
        Ok(read.await??)
    }
}

fn details(entry: Entry, held: Held, head: &[u8], release: Vec<(String, &'static str)>) -> Details {
    let value = |octets: &[u8]| cut(&decode_words(&String::from_utf8_lossy(octets)), MAX_VALUE);
    let field = |field: connectord_mail::head::Field<'_>| {
        (String::from_utf8_lossy(field.name).into_owned(), value(&field.unfolded()))
    };
    let deadline = Instant::now() + INSPECTION;
    let inspected = attachment::inspect(&*held.body, Limits::default(), &mut || Instant::now() < deadline);
    let (attachments, attachments_trouble) = match inspected {
        Ok(found) if found.complete => (found.attachments, None),
        Ok(found) => (found.attachments, Some("there is more than was looked at".to_owned())),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    Details {
        entry,
        mailbox: held.mailbox,
        reverse_path: held.reverse_path,
        reason: held.reason,
        viruses: held.viruses,
        answers: held.answers,
        fields: Head::of(head).fields().take(MAX_FIELDS).map(field).collect(),
        attachments,
        attachments_trouble,
        release,
    }
}
