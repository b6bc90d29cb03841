//! After the deliveries: \Seen, EXPUNGE and MOVE. Committed first, then asked for.

use std::time::Duration;

use connectord_account::{Key, Removal};
use connectord_imap::{Event, Flag, MailboxName, Refusal, Role, Uid, UidSearch, UidSet};
use connectord_mail::UnixTime;
use connectord_store::{MailboxRow, Mark};
use tracing::warn;

use super::{ImapRun, flags, reference};
use crate::mailbox::{discarded, removes_at_once};
use crate::trouble::RunError;

/// How long a refused removal waits.
const REFUSED: Duration = Duration::from_secs(3600);

/// Longer than anybody waits: kept by policy.
const FOR_GOOD: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What became of a removal.
enum Removed {
    /// The server did it.
    Done,
    /// The messages have \Deleted; somebody else's EXPUNGE takes them away.
    Marked,
    /// The server does not want to.
    Refused(Refusal),
}

impl ImapRun<'_> {
    /// Marks seen what is to be marked, and removes what is due.
    pub(super) async fn finish_delivered(&mut self, mailbox: &MailboxRow, mut due: Vec<Uid>) -> Result<(), RunError> {
        let run = self.run;
        let account = &run.job.account;
        let done: Vec<Uid> = self
            .pipeline
            .take_done()
            .into_iter()
            .filter_map(|message| match message.key {
                Key::Uid(uid) if message.mailbox == mailbox.id => Uid::new(uid),
                _ => None,
            })
            .collect();
        if account.mark_seen && !done.is_empty() {
            let uids: UidSet = done.iter().copied().collect();
            let command = self.driver.machine().uid_store_add_flags(&uids, &flags(Flag::Seen));
            if let Err(refusal) = self.finish(command, |_| {}).await? {
                warn!(account = run.job.address(), %refusal, "messages cannot be marked seen");
            }
        }
        if removes_at_once(run) {
            due.extend(done);
        }
        due.sort_unstable();
        due.dedup();
        let (discards, due): (Vec<Uid>, Vec<Uid>) =
            due.into_iter().partition(|uid| run.discard(reference(mailbox, *uid, 0)).is_some());
        let most = account.removals_per_session.max(1) as usize;
        for batch in due.chunks(most) {
            self.remove(mailbox, batch, &account.removal).await?;
        }
        if !discards.is_empty() {
            let removal = self.for_discards().await?;
            for batch in discards.chunks(most) {
                self.remove(mailbox, batch, &removal).await?;
            }
        }
        Ok(())
    }

    /// How messages go that a person wants gone: as all others do, but away from where mail is retrieved from, and not
    /// marked only.
    async fn for_discards(&mut self) -> Result<Removal, RunError> {
        let removal = &self.run.job.account.removal;
        let target = match removal {
            Removal::MarkSeen | Removal::Expunge => return Ok(Removal::Expunge),
            Removal::MoveTo(folder) => self.named(folder)?,
            Removal::Trash => self.trash().await?,
        };
        Ok(if self.retrieved_from.contains(&target) { Removal::Expunge } else { removal.clone() })
    }

    /// Removes one batch: committed first, then asked for.
    async fn remove(&mut self, mailbox: &MailboxRow, uids: &[Uid], removal: &Removal) -> Result<(), RunError> {
        let run = self.run;
        let names: Vec<(Key, u16)> = uids.iter().map(|uid| (Key::Uid(uid.number()), 0)).collect();
        let set: UidSet = uids.iter().copied().collect();
        run.site.store.mark(run.lease, mailbox.id, &names, Mark::Removing).await?;
        let removed = match removal {
            Removal::MarkSeen => match self.store(&set, Flag::Seen).await? {
                Ok(()) => {
                    // They stay, and are remembered as long as they do.
                    let retry_at: UnixTime = run.now.plus(FOR_GOOD);
                    run.site.store.mark(run.lease, mailbox.id, &names, Mark::Kept { retry_at }).await?;
                    return Ok(());
                }
                Err(refusal) => Removed::Refused(refusal),
            },
            Removal::Expunge => self.expunge(&set).await?,
            Removal::MoveTo(folder) => {
                let target = self.named(folder)?;
                self.move_to(&set, &target).await?
            }
            Removal::Trash => {
                let target = self.trash().await?;
                self.move_to(&set, &target).await?
            }
        };
        match removed {
            Removed::Done => {
                run.tally.removed(run, uids.len() as u64);
                run.take_down_removed(mailbox, &names);
                discarded(run, mailbox, &names);
                return Ok(());
            }
            Removed::Marked => {}
            Removed::Refused(refusal) => {
                warn!(account = run.job.address(), %refusal, "removals were refused; they are tried again later");
            }
        }
        let retry_at = run.site.clock.now().plus(REFUSED);
        Ok(run.site.store.mark(run.lease, mailbox.id, &names, Mark::Kept { retry_at }).await?)
    }

    async fn store(&mut self, uids: &UidSet, flag: Flag) -> Result<Result<(), Refusal>, RunError> {
        let command = self.driver.machine().uid_store_add_flags(uids, &flags(flag));
        Ok(self.finish(command, |_| {}).await?.map(|_| ()))
    }

    /// \Deleted and UID EXPUNGE. Without UIDPLUS a plain EXPUNGE would destroy what other clients have marked, so it is
    /// sent only when everything that is marked is ours.
    async fn expunge(&mut self, uids: &UidSet) -> Result<Removed, RunError> {
        if let Err(refusal) = self.store(uids, Flag::Deleted).await? {
            return Ok(Removed::Refused(refusal));
        }
        let expunge = if self.driver.machine().offers("UIDPLUS") {
            self.driver.machine().uid_expunge(uids)
        } else {
            let marked = match self.marked().await? {
                Ok(marked) => marked,
                Err(refusal) => return Ok(Removed::Refused(refusal)),
            };
            let foreign = marked.iter().filter(|uid| !uids.contains(*uid)).count();
            if foreign > 0 {
                warn!(
                    account = self.run.job.address(),
                    foreign,
                    "messages are marked deleted but not expunged: the server has no UIDPLUS, and other clients have marked messages too"
                );
                return Ok(Removed::Marked);
            }
            self.driver.machine().expunge()
        };
        Ok(match self.finish(expunge, |_| {}).await? {
            Ok(_) => Removed::Done,
            Err(refusal) => Removed::Refused(refusal),
        })
    }

    /// The messages that have \Deleted.
    async fn marked(&mut self) -> Result<Result<UidSet, Refusal>, RunError> {
        let search = UidSearch { with: flags(Flag::Deleted), ..UidSearch::all() };
        let command = self.driver.machine().uid_search(search);
        let mut marked = UidSet::new();
        let searched = self
            .finish(command, |event| {
                if let Event::Found(found) = event {
                    found.ranges().for_each(|(first, last)| marked.insert_range(first, last));
                }
            })
            .await?;
        Ok(searched.map(|_| marked))
    }

    /// MOVE, or COPY and the removal of the originals where the server has no MOVE.
    async fn move_to(&mut self, uids: &UidSet, target: &MailboxName) -> Result<Removed, RunError> {
        if self.driver.machine().offers("MOVE") {
            let command = self.driver.machine().uid_move(uids, target);
            return Ok(match self.finish(command, |_| {}).await? {
                Ok(_) => Removed::Done,
                Err(refusal) => Removed::Refused(refusal),
            });
        }
        // What has \Deleted already was copied by an attempt that did not come to its end.
        let marked = match self.marked().await? {
            Ok(marked) => marked,
            Err(refusal) => return Ok(Removed::Refused(refusal)),
        };
        let rest: UidSet = uids.iter().filter(|uid| !marked.contains(*uid)).collect();
        if !rest.is_empty() {
            let command = self.driver.machine().uid_copy(&rest, target);
            if let Err(refusal) = self.finish(command, |_| {}).await? {
                return Ok(Removed::Refused(refusal));
            }
        }
        self.expunge(uids).await
    }

    /// The mailbox with the role \Trash.
    pub(super) async fn trash(&mut self) -> Result<MailboxName, RunError> {
        let command = self.driver.machine().list_special_use("", "*");
        let mut trash = None;
        let listed = self
            .finish(command, |event| {
                if let Event::Listed(listed) = event
                    && listed.roles().any(|role| role == Role::Trash)
                {
                    trash.get_or_insert(listed.name);
                }
            })
            .await?;
        listed.map_err(|refusal| self.refused("\\Trash", refusal.to_string(), false))?;
        let missing = "no mailbox has the role \\Trash; use delete_by = \"move:FOLDER\"";
        trash.ok_or_else(|| self.refused("\\Trash", missing.into(), false))
    }
}
