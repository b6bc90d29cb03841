//! DELE and QUIT: committed first, believed when the server has said so.

use std::collections::HashMap;
use std::time::Duration;

use connectord_account::Key;
use connectord_pop3::{Event, MessageNumber};
use connectord_store::{MailboxRow, Mark};
use tracing::{debug, warn};

use super::retrieve::Retrieved;
use super::{Connection, Due, Pop3Run};
use crate::mailbox::{discarded, removes_at_once};
use crate::run::Run;
use crate::trouble::RunError;

/// How long a refused removal waits.
const REFUSED: Duration = Duration::from_secs(3600);

/// How long the server may take to read a QUIT on which nothing depends.
const QUIT_WITHIN: Duration = Duration::from_secs(5);

impl Pop3Run<'_> {
    /// Removes what is due: committed, marked by DELE, and asked for by QUIT. Says how many the server confirmed.
    pub(super) async fn remove(
        &self,
        mut driver: Connection,
        mailbox: &mut MailboxRow,
        due: &[Due],
        retrieved: &Retrieved,
    ) -> Result<u64, RunError> {
        let run = self.run;
        let due = due.iter().chain(&retrieved.due);
        let mut removals: HashMap<MessageNumber, (Key, u16)> =
            due.map(|due| (due.number, (due.key, due.generation))).collect();
        let at_once = removes_at_once(run);
        for message in self.pipeline.take_done() {
            let name = (message.key, message.generation);
            if let Some(number) = retrieved.numbers.get(&name).filter(|_| at_once) {
                removals.insert(*number, name);
            }
        }
        if removals.is_empty() {
            self.leave(driver).await;
            return Ok(0);
        }
        let names: Vec<(Key, u16)> = removals.values().copied().collect();
        run.site.store.mark(run.lease, mailbox.id, &names, Mark::Removing).await?;
        for number in removals.keys() {
            driver.machine().dele(*number);
        }
        let (mut marked, mut refused) = (Vec::new(), Vec::new());
        while marked.len() + refused.len() < removals.len() {
            match run.or_stop(driver.next()).await? {
                Event::Deleted { number, .. } => marked.extend(removals.get(&number).copied()),
                Event::DeleteRefused { number, refusal } => {
                    warn!(account = run.job.address(), %refusal, "a removal was refused; it is tried again later");
                    refused.extend(removals.get(&number).copied());
                }
                _ => {}
            }
        }
        if !refused.is_empty() {
            let retry_at = run.site.clock.now().plus(REFUSED);
            run.site.store.mark(run.lease, mailbox.id, &refused, Mark::Kept { retry_at }).await?;
        }
        let confirmed = self.quit(driver).await;
        if matches!(confirmed, Ok(true)) {
            run.tally.removed(run, marked.len() as u64);
            run.take_down_removed(mailbox, &marked);
            discarded(run, mailbox, &marked);
            return Ok(marked.len() as u64);
        }
        distrust_keys(run, mailbox).await?;
        confirmed.map(|_| 0)
    }

    /// QUIT, as a courtesy: nothing was marked by DELE and everything is settled, so nothing depends on the answer (RFC 1939
    /// §6), and it is not waited for.
    pub(super) async fn leave(&self, mut driver: Connection) {
        driver.machine().quit();
        let said = tokio::time::timeout(QUIT_WITHIN, self.run.or_stop(driver.flush())).await;
        if !matches!(said, Ok(Ok(()))) {
            debug!(account = self.run.job.address(), "the server did not hear QUIT");
        }
        driver.shutdown().await;
    }

    /// QUIT; whether the server said yes.
    pub(super) async fn quit(&self, mut driver: Connection) -> Result<bool, RunError> {
        driver.machine().quit();
        let run = self.run;
        loop {
            match run.or_stop(driver.next()).await? {
                Event::Goodbye { refusal: None } => break,
                Event::Goodbye { refusal: Some(refusal) } => {
                    warn!(account = run.job.address(), %refusal, "QUIT was refused; the next listing tells what is gone");
                    driver.shutdown().await;
                    return Ok(false);
                }
                _ => {}
            }
        }
        driver.shutdown().await;
        Ok(true)
    }
}

/// The answer to a removal was lost or was no: later removals compare headers first.
async fn distrust_keys(run: &Run<'_>, mailbox: &mut MailboxRow) -> Result<(), RunError> {
    mailbox.keys_recur = true;
    Ok(run.site.store.record_listing(run.lease, mailbox, &[], Mark::Done).await?)
}
