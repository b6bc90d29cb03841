//! UID FETCH: from the server to the delivery, by one connection or several.

use std::pin::Pin;
use std::task::Poll;

use connectord_account::{Key, Ledger};
use connectord_imap::{MailboxName, Selected, Uid};
use connectord_store::MailboxRow;

use super::ImapRun;
use super::further::Further;
use super::listing::Work;
use super::puller::{Puller, Retrieval};
use super::supply::{Supply, Who};
use crate::mailbox::turn;
use crate::trouble::RunError;

impl ImapRun<'_> {
    /// Retrieves what is wanted, new messages first; what the server did not give is put off.
    pub(super) async fn retrieve(
        &mut self,
        name: &MailboxName,
        mailbox: &MailboxRow,
        selected: &Selected,
        ledger: &Ledger,
        work: &Work,
    ) -> Result<(), RunError> {
        if work.wanted.is_empty() {
            return Ok(());
        }
        let place = |uid: Uid| (turn(ledger.get(Key::Uid(uid.number()))), uid);
        let known = work.wanted.uids().filter(|uid| !work.wanted.new_ones().contains(*uid));
        let mut known: Vec<_> = known.map(place).collect();
        known.sort_unstable();
        // What turned out to be another message than the known one has not been tried yet.
        let (tried, again): (Vec<_>, Vec<_>) = known.into_iter().partition(|((tried, _), _)| *tried);
        let uids = |places: Vec<(_, Uid)>| places.into_iter().map(|(_, uid)| uid);
        let new = work.wanted.new_ones().iter().chain(uids(again)).collect();
        let supply = Supply::new(new, uids(tried).collect());
        let further = Further::worth(self.run, supply.left());
        let retrieval = Retrieval {
            run: self.run,
            queue: &self.queue,
            name,
            mailbox,
            work,
            supply: &supply,
            connections: 1 + further,
        };
        let others: Vec<_> = (0..further)
            .map(|_| {
                Further { retrieval: &retrieval, uid_validity: selected.uid_validity, ahead: self.ahead }.retrieve()
            })
            .collect();
        let (run, driver, open) = (self.run, &mut *self.driver, &mut self.open);
        let first = async {
            let mut puller = Puller::new(&retrieval, Who::First);
            loop {
                if let Err(error) = puller.pull(driver, open.as_mut()).await {
                    puller.blame(&error).await;
                    return Err(error);
                }
                if supply.is_done() {
                    return Ok(());
                }
                // Another connection has something yet, and may not come to its end with it.
                run.or_stop(async {
                    supply.changed().await;
                    Ok::<_, RunError>(())
                })
                .await?;
            }
        };
        beside(first, others).await
    }
}

/// Runs all side by side until the first is done, or one of the others fails; those that have nothing to do any more
/// are dropped then.
pub(super) async fn beside<T>(
    first: impl Future<Output = Result<T, RunError>>,
    others: Vec<impl Future<Output = Result<(), RunError>>>,
) -> Result<T, RunError> {
    let mut first = Box::pin(first);
    let mut others: Vec<Pin<Box<_>>> = others.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = first.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let mut at = 0;
        while at < others.len() {
            match others[at].as_mut().poll(cx) {
                Poll::Ready(Ok(())) => drop(others.swap_remove(at)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => at += 1,
            }
        }
        Poll::Pending
    })
    .await
}
