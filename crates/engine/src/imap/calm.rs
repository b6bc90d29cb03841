//! Mailboxes about which nothing is to be done: while UIDNEXT stays, what is known of their messages need not be read.

use connectord_account::{Decision, Key, Ledger, Planner, State};
use connectord_imap::Selected;
use connectord_mail::UnixTime;
use connectord_store::{MailboxRow, Quiet};

use super::ImapRun;
use super::listing::Work;
use crate::mailbox::removes_at_once;
use crate::quiet::quiet;
use crate::trouble::RunError;

/// Most new messages of which it is looked up what became of them; after more, the next check reads what is known.
pub(super) const MANY_NEW: u64 = 1000;

impl ImapRun<'_> {
    /// Whether nothing is to be done as long as UIDNEXT stays what it is; asked when all that was new has been dealt with.
    /// `before` is what was known of that when the check began, if what is known of the messages was not read then.
    pub(super) async fn calm(
        &mut self,
        mailbox: &MailboxRow,
        selected: &Selected,
        planner: &Planner,
        work: &Work,
        before: Option<Quiet>,
    ) -> Result<Option<Quiet>, RunError> {
        let run = self.run;
        let news = work.wanted.new_ones();
        let odd = work.busy || !work.covers_all || mailbox.first_listed.is_none() || mailbox.absence.is_some();
        if odd || news.len() > MANY_NEW || removes_at_once(run) && !work.wanted.is_empty() {
            return Ok(None);
        }
        // Known above the mark: what came while the mailbox was listed. The next check has to know it.
        let mark = Key::Uid(mailbox.uid_next);
        if news.last().is_some_and(|uid| Key::Uid(uid.number()) >= mark)
            || planner.ledger().entries().any(|entry| entry.key >= mark)
        {
            return Ok(None);
        }
        // Those that are gone stay gone: a UID is not used again.
        let known = planner.ledger().entries().filter(|entry| entry.state != State::Done);
        let mut until = known.filter_map(|entry| planner.due_at(&entry)).min();
        until = until.into_iter().chain(before.and_then(|before| before.until)).min();
        if !news.is_empty() {
            // What came of those that were new.
            let keys: Vec<Key> = news.iter().map(|uid| Key::Uid(uid.number())).collect();
            let entries = Ledger::new(run.site.store.entries(mailbox.id, &keys).await?);
            if entries.len() < keys.len() || entries.entries().any(|entry| planner.decide(&entry) != Decision::Leave) {
                return Ok(None);
            }
            until = until.into_iter().chain(entries.entries().filter_map(|entry| planner.due_at(&entry))).min();
        }
        let waits = until.is_some_and(|until| until == UnixTime(i64::MIN));
        Ok((!waits).then(|| quiet(selected.exists, [0; 16], until, &run.rules(), run.now)))
    }
}
