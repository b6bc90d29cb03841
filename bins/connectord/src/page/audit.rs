//! Who did what: the record of changes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use connectord_admin::{Answer, Audit, Page as Listed};
use connectord_mail::UnixTime;
use connectord_store::{ChangeId, Changed, SavedAccounts, Stamp};
use tracing::{info, warn};

use super::causes::at;
use super::{Page, unavailable};

/// Refused sign-ins that are recorded in an hour. The record only grows, and anybody can be refused: further ones are in the log
/// alone.
const REFUSED: u32 = 60;

const HOUR: Duration = Duration::from_secs(3600);

/// How many were refused in this hour.
#[derive(Default)]
pub(super) struct Refused(Mutex<Option<(Instant, u32)>>);

impl Refused {
    /// Whether one more is recorded.
    fn one_more(&self) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *counted {
            Some((since, count)) if since.elapsed() < HOUR => {
                *count = count.saturating_add(1);
                *count <= REFUSED
            }
            none => {
                *none = Some((Instant::now(), 1));
                true
            }
        }
    }
}

impl Page {
    pub(super) async fn note(&self, audit: Audit) {
        let Audit { at, who, what, subject, detail } = audit;
        info!(who, what, subject, detail, "page");
        if what.ends_with(".refused") && !self.refused.one_more() {
            return;
        }
        let line = Changed {
            stamp: Stamp { at: UnixTime(at.0), by: who },
            what,
            about: subject,
            before: None,
            after: Some(detail).filter(|detail| !detail.is_empty()),
        };
        if let Err(error) = self.accounts.store.record_change(&line).await {
            warn!(%error, "what a person did cannot be recorded");
        }
    }

    pub(super) async fn audit(&self, after: Option<&str>, limit: usize) -> Answer<Listed<Audit>> {
        let before = after.and_then(|after| after.parse().ok()).map(ChangeId);
        let mut rows = self.accounts.store.changes(None, before, limit + 1).await.map_err(unavailable)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| row.id.0.to_string());
        let total = rows.len() as u64;
        Ok(Listed { items: rows.into_iter().map(|row| drawn(row.change)).collect(), next, total })
    }
}

fn drawn(change: Changed) -> Audit {
    let Changed { stamp, what, about, before, after } = change;
    let what = match what.as_str() {
        "added" => "account.create",
        "edited" => "account.update",
        "enabled" => "account.enable",
        "disabled" => "account.disable",
        "deleted" => "account.delete",
        other => other,
    };
    let detail = match (before, after) {
        (Some(before), Some(after)) => difference(&before, &after),
        (None, Some(after)) => after.trim_end().replace('\n', "; "),
        (_, None) => String::new(),
    };
    Audit { at: at(stamp.at), who: stamp.by, what: what.to_owned(), subject: about, detail }
}

/// The lines that went, and those that came.
fn difference(before: &str, after: &str) -> String {
    let lacking = |one: &str, other: &str, sign: &str| -> Vec<String> {
        one.lines()
            .filter(|line| !other.lines().any(|known| known == *line))
            .map(|line| format!("{sign}{line}"))
            .collect()
    };
    [lacking(before, after, "− "), lacking(after, before, "+ ")].concat().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_shows_what_was_and_what_is() {
        let before = "host = \"a\"\nport = 1\n# password: set 1 by anna\n";
        let after = "host = \"b\"\nport = 1\n# password: set 2 by bob\n";
        let shown = "− host = \"a\"; − # password: set 1 by anna; + host = \"b\"; + # password: set 2 by bob";
        assert_eq!(difference(before, after), shown);
    }

    #[test]
    fn whoever_is_refused_again_and_again_does_not_fill_the_record() {
        let refused = Refused::default();
        assert_eq!((0..1000).filter(|_| refused.one_more()).count(), 60);
    }
}
