//! Further connections that are opened beside the first one, before it is known how much there is: a mailbox that has
//! never been checked brings all it has.
//!
//! They log in only after the first one has: a wrong password is refused once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tracing::debug;

use super::further::Further;
use super::line::Connection;
use super::{enter, log_out, reach};
use crate::run::Run;
use crate::schedule::Another;
use crate::trouble::RunError;

/// The connections of one check that were opened ahead.
pub(super) struct Ahead<'a> {
    run: &'a Run<'a>,
    logged_in: watch::Sender<bool>,
    spares: Mutex<Spares>,
    /// One came, or will not come.
    changed: Notify,
}

#[derive(Default)]
struct Spares {
    coming: usize,
    ready: Vec<Spare>,
    closed: bool,
}

/// A connection that is logged in, with its place at the host.
pub(super) struct Spare {
    pub(super) place: Another,
    pub(super) driver: Connection,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(run: &'a Run<'a>) -> Self {
        Self { run, logged_in: watch::Sender::new(false), spares: Mutex::default(), changed: Notify::new() }
    }

    /// As many as may be used, where no check has ever gone well; each opens one connection.
    pub(super) fn open(&self) -> Vec<impl Future<Output = Result<(), RunError>> + '_> {
        let is_first = self.run.account.health.last_ok.is_none() && !self.run.mode.dry_run;
        let wanted = if is_first { Further::worth(self.run, usize::MAX) } else { 0 };
        self.spares().coming = wanted;
        (0..wanted).map(|_| self.one()).collect()
    }

    /// The first connection is logged in: so may the others.
    pub(super) fn may_log_in(&self) {
        self.logged_in.send_replace(true);
    }

    /// One of them, when it is logged in; `None` when no more are coming.
    pub(super) async fn take(&self) -> Option<Spare> {
        loop {
            let changed = self.changed.notified();
            {
                let mut spares = self.spares();
                if let Some(spare) = spares.ready.pop() {
                    return Some(spare);
                }
                if spares.coming == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Closes those that nobody took.
    pub(super) async fn close(&self) {
        let left = {
            let mut spares = self.spares();
            spares.closed = true;
            std::mem::take(&mut spares.ready)
        };
        for Spare { driver, .. } in left {
            log_out(self.run, driver).await;
        }
    }

    async fn one(&self) -> Result<(), RunError> {
        let spare = self.connect().await;
        let late = self.has_come(spare)?;
        self.changed.notify_waiters();
        if let Some(Spare { driver, .. }) = late {
            log_out(self.run, driver).await;
        }
        Ok(())
    }

    /// Gives it back when nobody wants it any more.
    fn has_come(&self, spare: Result<Option<Spare>, RunError>) -> Result<Option<Spare>, RunError> {
        let mut spares = self.spares();
        spares.coming -= 1;
        let spare = spare?;
        if spares.closed {
            return Ok(spare);
        }
        spares.ready.extend(spare);
        Ok(None)
    }

    async fn connect(&self) -> Result<Option<Spare>, RunError> {
        let Some(place) = self.run.another_place() else { return Ok(None) };
        let mut driver = match reach(self.run).await {
            Ok(driver) => driver,
            Err(RunError::Stopped) => return Err(RunError::Stopped),
            Err(error) => {
                // The first one will say so too, if it is more than a limit.
                debug!(account = self.run.job.address(), %error, "a further connection was not opened ahead");
                return Ok(None);
            }
        };
        if self.logged_in.subscribe().wait_for(|logged_in| *logged_in).await.is_err() {
            return Ok(None);
        }
        match enter(self.run, &mut driver).await {
            Ok(()) => Ok(Some(Spare { place, driver })),
            Err(error) => Further::lost(self.run, error).map(|()| None),
        }
    }

    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
