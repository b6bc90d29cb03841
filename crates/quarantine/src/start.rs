//! What is read when the directory is opened.

use std::collections::HashMap;
use std::io;
use std::sync::PoisonError;

use connectord_mail::DeliveryId;
use connectord_wire::Escaped;
use tracing::{info, warn};

use crate::dir;
use crate::directory::{HELD, Inner, NOTE, Problem, note_name};
use crate::file::Unreadable;
use crate::index::Entry;
use crate::note::Note;
use crate::{report, retention};

/// Most files that are told of one by one.
const MAX_PROBLEMS: usize = 1000;

impl Inner {
    /// Reads the names and headers that are there. The index is whole when it returns.
    pub(crate) fn read_all(&self) -> io::Result<()> {
        let leftovers = self.dir.leftovers()?;
        for name in &leftovers {
            self.dir.remove_new(name)?;
        }
        if !leftovers.is_empty() {
            info!(path = %self.path.display(), files = leftovers.len(), "what was being written when connectord ended was removed");
        }
        // Also what was renamed and not made durable before a crash.
        self.dir.sync()?;
        let mut names = self.dir.names()?;
        names.sort();
        let mut notes = HashMap::new();
        for name in names.iter().filter_map(|name| name.strip_suffix(NOTE)) {
            let Some(id) = DeliveryId::parse(name) else { continue };
            let note = self.dir.open_file(&note_name(id)).map_err(|error| error.to_string()).and_then(Note::read);
            notes.insert(id, note);
        }
        for name in &names {
            match name.as_str() {
                dir::LOCK | dir::TMP | retention::CLOCK | report::FILE => {}
                _ if name.strip_suffix(NOTE).and_then(DeliveryId::parse).is_some() => {}
                _ => self.read_one(name, &notes),
            }
        }
        for (id, note) in notes {
            self.settle_note(id, note);
        }
        let told = self.highest_told();
        let mut index = self.index();
        index.next_serial = index.next_serial.max(told.saturating_add(1));
        Ok(())
    }

    fn read_one(&self, name: &str, notes: &HashMap<DeliveryId, Result<Note, String>>) {
        let id = name.strip_suffix(HELD).and_then(DeliveryId::parse);
        let read = match id {
            Some(id) => self.open_message(id).map(|(_, opened)| (id, opened)),
            None => Err(Unreadable::Foreign),
        };
        match read {
            Ok((id, opened)) => {
                let mut entry = Entry::new(id, &opened.header, opened.size_octets);
                entry.releasing = matches!(notes.get(&id), Some(Ok(note)) if !note.rows.is_empty());
                self.index().insert(entry, opened.file_octets(), false);
            }
            Err(why) => self.report_problem(name, why),
        }
    }

    /// What a note says at the start: a removal that was cut short is finished, and what has no message is remembered.
    fn settle_note(&self, id: DeliveryId, note: Result<Note, String>) {
        match note {
            Ok(Note { gone_at: Some(at), .. }) => {
                let had_file = self.index().remove(id).is_some();
                if had_file && let Err(error) = self.remove_file(id) {
                    warn!(spool_id = %id, %error, "a message that was released or discarded cannot be removed yet");
                }
                self.index().gone.insert(id, at);
            }
            Ok(_) => {}
            Err(error) => {
                warn!(spool_id = %id, error = %Escaped::text(&error), "how far the release of a message has come cannot be read; it \
                    may have arrived");
            }
        }
    }

    pub(crate) fn report_problem(&self, name: &str, why: Unreadable) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.iter().any(|known| known.name == name) {
            return;
        }
        warn!(path = %self.path.display(), file = %Escaped::text(name), %why, "a file in the quarantine cannot be used; it is left \
            alone");
        if problems.len() < MAX_PROBLEMS {
            problems.push(Problem { name: name.to_owned(), why });
        }
    }
}
