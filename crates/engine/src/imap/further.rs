//! Further connections of one account, which only retrieve: a long line carries more with several.
//!
//! They open the mailbox read-only, and take part as long as that works. One that is refused, that breaks, or that sees
//! another mailbox is no error: the first connection goes on, and for a while no more are opened than were let in.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connectord_imap::UidValidity;
use tokio::time::Instant;
use tracing::info;

use super::ahead::{Ahead, Spare};
use super::line::{Access, Connection, open};
use super::puller::{Puller, Retrieval};
use super::supply::Who;
use super::{dial, log_out};
use crate::run::Run;
use crate::trouble::RunError;

/// A further connection is worth its login from so many new messages for each on.
const MESSAGES_EACH: usize = 100;

/// For so long after a server refused or dropped a further connection none is opened.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// Most accounts remembered to have been refused.
const MAX_REFUSED: usize = 10_000;

/// Servers that say how many connections of one account they allow at once, by the end of their host's name, and how
/// many of those we use where nothing is configured: other clients of the user need theirs.
///
/// | server | allows | where that is written |
/// |---|---|---|
/// | Gmail | 15 | support.google.com/mail/answer/7126229 |
const ALLOWANCES: [(&str, usize); 2] = [("imap.gmail.com", 4), ("imap.googlemail.com", 4)];

/// Accounts whose further connections were refused or dropped, and until when none is opened.
static REFUSED: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// One further connection.
pub(super) struct Further<'a> {
    pub(super) retrieval: &'a Retrieval<'a>,
    pub(super) uid_validity: UidValidity,
    pub(super) ahead: &'a Ahead<'a>,
}

impl Further<'_> {
    /// How many are worth opening for so many new messages.
    pub(super) fn worth(run: &Run<'_>, new: usize) -> usize {
        let account = &run.job.account;
        let host = account.endpoint.host();
        let usual =
            || ALLOWANCES.iter().find(|(name, _)| host.eq_ignore_ascii_case(name)).map_or(1, |(_, usual)| *usual);
        let allowed = account.connections.map_or_else(usual, usize::from);
        let worth = allowed.min(new / MESSAGES_EACH).saturating_sub(1);
        if worth > 0 && is_refused(run.job.address()) { 0 } else { worth }
    }

    /// Retrieves beside the others, as long as that works.
    ///
    /// # Errors
    /// What ends the check whichever connection meets it: a stop, our own disk, a renumbered mailbox.
    pub(super) async fn retrieve(self) -> Result<(), RunError> {
        let run = self.retrieval.run;
        let Spare { place: _place, driver } = match self.ahead.take().await {
            Some(spare) => spare,
            None => {
                let Some(place) = run.another_place() else { return Ok(()) };
                match dial(run).await {
                    Ok(driver) => Spare { place, driver },
                    Err(error) => return Self::lost(run, error),
                }
            }
        };
        let mut driver = match self.open(driver).await {
            Ok(Some(driver)) => driver,
            Ok(None) => return Ok(()),
            Err(error) => return Self::lost(run, error),
        };
        let mut puller = Puller::new(self.retrieval, Who::Further);
        match puller.pull(&mut driver, None).await {
            Ok(()) => {
                log_out(run, driver).await;
                Ok(())
            }
            Err(error) => {
                puller.give_back();
                Self::lost(run, error)
            }
        }
    }

    /// The same mailbox once more; `None` when it is not the same.
    async fn open(&self, mut driver: Connection) -> Result<Option<Connection>, RunError> {
        let Retrieval { run, name, .. } = *self.retrieval;
        let (selected, _) = open(run, &mut driver, name, Access::Read, None).await?;
        if selected.uid_validity == self.uid_validity {
            return Ok(Some(driver));
        }
        // Two servers behind one name that do not agree, or it was renumbered meanwhile: the first connection will hear.
        remember(run, "the mailbox has another UIDVALIDITY there".into());
        log_out(run, driver).await;
        Ok(None)
    }

    /// It ended before its work did; whether that ends the check too.
    pub(super) fn lost(run: &Run<'_>, error: RunError) -> Result<(), RunError> {
        match error {
            RunError::Imap(_)
            | RunError::Login { .. }
            | RunError::NoMechanism { .. }
            | RunError::Sasl { .. }
            | RunError::Credential(_)
            | RunError::Throttled { .. }
            | RunError::Mailbox { .. } => {
                remember(run, error.to_string());
                Ok(())
            }
            _ => Err(error),
        }
    }
}

fn remember(run: &Run<'_>, reason: String) {
    let address = run.job.address();
    info!(account = address, reason, "a further connection is not to be had; the first one goes on");
    let mut refused = refused();
    let now = Instant::now();
    refused.retain(|_, until| *until > now);
    if refused.len() < MAX_REFUSED {
        refused.insert(address.to_owned(), now + REFUSED_FOR);
    }
}

fn is_refused(address: &str) -> bool {
    refused().get(address).is_some_and(|until| *until > Instant::now())
}

fn refused() -> MutexGuard<'static, HashMap<String, Instant>> {
    REFUSED.lock().unwrap_or_else(PoisonError::into_inner)
}
