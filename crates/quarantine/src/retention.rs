//! What was held for as long as it was to be goes, unless the clock may be wrong.

use std::io::{self, Read};
use std::time::Duration;

use connectord_filter::QuarantineError;
use connectord_mail::{DeliveryId, UnixTime};
use connectord_wire::Escaped;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::directory::{DirectoryQuarantine, Inner, held_name, note_name};
use crate::index::Entry;

/// For how long it is remembered that a message was released or discarded: long enough for a message that was cut short to
/// be asked for again.
const GONE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A clock that went ahead by more than this may be wrong.
const LEAP: Duration = Duration::from_secs(2 * 24 * 3600);

/// Name of the file with the time of the last look at what is due.
pub(crate) const CLOCK: &str = "clock";

impl DirectoryQuarantine {
    /// Removes what has been held for longer than it is to be kept, and returns it.
    ///
    /// A clock that went backwards makes nothing due. One that went ahead by more than two days since the last call, the
    /// last of an earlier process too, is believed at the next call: it may be wrong, or the machine was off.
    ///
    /// # Errors
    /// [`QuarantineError`]: what is not removed yet is due at the next call.
    pub async fn tidy(&self, now: UnixTime) -> Result<Vec<Entry>, QuarantineError> {
        self.0.on_disk("removing what is due", move |inner| inner.tidy(now)).await
    }
}

impl Inner {
    fn tidy(&self, now: UnixTime) -> Result<Vec<Entry>, QuarantineError> {
        let failed = |error: io::Error| self.trouble("removing what is due", &error);
        let before = self.read_clock();
        let clock = serde_json::to_vec(&Clock { seen: now }).expect("a number is always JSON");
        self.dir.replace(CLOCK, &self.part(CLOCK), &clock).map_err(failed)?;
        match before {
            Some(seen) if now < seen => {
                warn!(%now, before = %seen, "the clock went backwards; nothing in the quarantine is due");
                return Ok(Vec::new());
            }
            Some(seen) if now.since(seen) > LEAP => {
                info!(%now, before = %seen, "a long time has passed; what is due in the quarantine goes the next time");
                return Ok(Vec::new());
            }
            Some(_) => {}
            None => return Ok(Vec::new()),
        }
        let (due, forgotten) = self.due(now);
        for entry in &due {
            let Ok(Some(_claim)) = self.claim_here(entry.id) else { continue };
            self.dir.remove(&held_name(entry.id)).map_err(failed)?;
            self.dir.remove(&note_name(entry.id)).map_err(failed)?;
            self.index().remove(entry.id);
            info!(
                target: "connectord::mail",
                account = entry.account, spool_id = %entry.id, size = entry.size_octets, status = "discarded",
                detail = %Escaped::text(&entry.reason), "a message was held for as long as it was to be kept"
            );
        }
        for id in &forgotten {
            self.dir.remove(&note_name(*id)).map_err(failed)?;
            self.index().gone.remove(id);
        }
        if !due.is_empty() || !forgotten.is_empty() {
            self.dir.sync().map_err(failed)?;
        }
        Ok(due)
    }

    fn due(&self, now: UnixTime) -> (Vec<Entry>, Vec<DeliveryId>) {
        let keep_for = self.options().keep_for;
        let index = self.index();
        let is_due =
            |entry: &&Entry| !keep_for.is_zero() && now.since(entry.kept_since(now)) > keep_for && !entry.releasing;
        let due = index.all().filter(is_due).cloned().collect();
        let gone = index.gone.iter().filter(|(id, at)| now.since(**at) > GONE && index.entry(**id).is_none());
        (due, gone.map(|(id, _)| *id).collect())
    }

    /// When what is due was last looked for, in this process or another.
    fn read_clock(&self) -> Option<UnixTime> {
        let mut octets = Vec::new();
        self.dir.open_file(CLOCK).ok()?.take(1000).read_to_end(&mut octets).ok()?;
        serde_json::from_slice::<Clock>(&octets).ok().map(|clock| clock.seen)
    }
}

#[derive(Serialize, Deserialize)]
struct Clock {
    seen: UnixTime,
}
