//! The store in memory, for tests; and [`Message`], the rules that every back end applies.
//!
//! Nothing here is durable: dropping a [`MemoryStore`] forgets everything.

mod message;
mod saved;
mod trail;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connectord_account::{Entry, Key, State};
use connectord_mail::{Fingerprint, UnixTime};

pub use self::message::{Delivery, Message, Trouble};
pub use self::trail::MemoryTrail;
use crate::{
    AccountId, AccountRow, Begin, DeliveryRow, Health, Lease, MailboxId, MailboxRow, Mark, MessageName, MessageRef,
    ParkedRow, PutOff, RunId, RunRow, Settle, Store, StoreError,
};

/// How long a retired account is remembered.
const RETIRED: Duration = Duration::from_secs(90 * 86_400);

/// Checks remembered of each account.
const RUNS: usize = 100;

/// A [`Store`] that keeps everything in memory. Its futures are ready at the first poll.
///
/// ```
/// use std::future::Future;
/// use std::pin::pin;
/// use std::task::{Context, Poll, Waker};
/// use connectord_store::{Store, memory::MemoryStore};
///
/// let store = MemoryStore::new();
/// let Poll::Ready(account) = pin!(store.open_account("Ann@Example.org")).poll(&mut Context::from_waker(Waker::noop()))
/// else { panic!("not ready") };
/// assert_eq!(account.unwrap().address, "ann@example.org");
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    leases: Arc<Mutex<Leases>>,
}

#[derive(Debug, Default)]
struct Inner {
    accounts: Vec<AccountRow>,
    mailboxes: Vec<MailboxRow>,
    messages: BTreeMap<MessageRef, Message>,
    runs: Vec<(AccountId, RunId, RunRow)>,
    /// What was told, by subject.
    notices: BTreeMap<String, String>,
    saved: saved::Saved,
    values: BTreeMap<String, Vec<u8>>,
    tick: Option<UnixTime>,
    /// The last time anybody said.
    clock: Option<UnixTime>,
    last_id: i64,
}

/// Who works on which account: the fences of the leases that are held.
#[derive(Debug, Default)]
struct Leases {
    held: HashMap<AccountId, u64>,
    last_fence: u64,
}

/// Gives a lease back.
struct Guard {
    account: AccountId,
    leases: Arc<Mutex<Leases>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        locked(&self.leases).held.remove(&self.account);
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known, under the lease.
    fn under(&self, lease: &Lease, now: Option<UnixTime>) -> Result<MutexGuard<'_, Inner>, StoreError> {
        if locked(&self.leases).held.get(&lease.account) != Some(&lease.fence) {
            return Err(StoreError::LeaseLost);
        }
        let mut inner = locked(&self.inner);
        inner.clock = now.or(inner.clock);
        Ok(inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn open_account(&self, address: &str) -> Result<AccountRow, StoreError> {
        let address = address.to_lowercase();
        let mut inner = locked(&self.inner);
        if let Some(known) = inner.accounts.iter_mut().find(|known| known.address == address) {
            known.retired_at = None;
            return Ok(known.clone());
        }
        let id = AccountId(inner.next_id());
        let row = AccountRow { id, address, health: Health::default(), retired_at: None };
        inner.accounts.push(row.clone());
        Ok(row)
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        let mut accounts = locked(&self.inner).accounts.clone();
        accounts.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(accounts)
    }

    async fn retire_account(&self, address: &str, now: UnixTime) -> Result<(), StoreError> {
        let address = address.to_lowercase();
        if let Some(known) = locked(&self.inner).accounts.iter_mut().find(|known| known.address == address) {
            known.retired_at.get_or_insert(now);
        }
        Ok(())
    }

    async fn lease(&self, account: AccountId) -> Result<Lease, StoreError> {
        if !locked(&self.inner).accounts.iter().any(|known| known.id == account) {
            return Err(StoreError::Failed {
                during: "taking a lease",
                text: format!("there is no account {}", account.0),
            });
        }
        let mut leases = locked(&self.leases);
        if leases.held.contains_key(&account) {
            return Err(StoreError::Busy);
        }
        leases.last_fence += 1;
        let fence = leases.last_fence;
        leases.held.insert(account, fence);
        Ok(Lease::new(account, fence, Box::new(Guard { account, leases: Arc::clone(&self.leases) })))
    }

    async fn record_health(&self, lease: &Lease, health: &Health) -> Result<(), StoreError> {
        let mut inner = self.under(lease, None)?;
        if let Some(known) = inner.accounts.iter_mut().find(|known| known.id == lease.account) {
            known.health = health.clone();
        }
        Ok(())
    }

    async fn open_mailbox(&self, lease: &Lease, name: &str, uid_validity: u32) -> Result<MailboxRow, StoreError> {
        let mut inner = self.under(lease, None)?;
        let of_that_name = |row: &&MailboxRow| row.account == lease.account && row.name == name;
        if let Some(known) = inner.mailboxes.iter().filter(of_that_name).find(|row| row.uid_validity == uid_validity) {
            return Ok(known.clone());
        }
        let continues = inner.mailboxes.iter().filter(of_that_name).map(|row| row.id).max();
        let row = MailboxRow {
            id: MailboxId(inner.next_id()),
            account: lease.account,
            name: name.to_owned(),
            uid_validity,
            uid_next: 0,
            first_listed: None,
            last_listed: None,
            absence: None,
            continues,
            keys_recur: false,
            quiet: None,
        };
        inner.mailboxes.push(row.clone());
        Ok(row)
    }

    async fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxRow>, StoreError> {
        Ok(locked(&self.inner).mailboxes.iter().rev().filter(|row| row.account == account).cloned().collect())
    }

    async fn record_listing(
        &self,
        lease: &Lease,
        mailbox: &MailboxRow,
        messages: &[(Key, u16)],
        mark: Mark,
    ) -> Result<(), StoreError> {
        let mut inner = self.under(lease, mailbox.last_listed)?;
        inner.owned(lease, [mailbox.id])?;
        inner.mark(mailbox.id, messages, mark)?;
        let waits = inner.messages.values().any(|message| message.mailbox == mailbox.id && message.waits());
        for known in inner.mailboxes.iter_mut().filter(|known| known.id == mailbox.id) {
            *known = MailboxRow {
                id: known.id,
                account: known.account,
                name: std::mem::take(&mut known.name),
                uid_validity: known.uid_validity,
                quiet: mailbox.quiet.filter(|_| !waits),
                ..mailbox.clone()
            };
        }
        Ok(())
    }

    async fn ledger(&self, mailbox: MailboxId) -> Result<Vec<Entry>, StoreError> {
        let inner = locked(&self.inner);
        let messages = inner.messages.values().filter(|message| message.mailbox == mailbox);
        Ok(messages.map(|message| message.entry).collect())
    }

    async fn unfinished(&self, account: AccountId) -> Result<Vec<DeliveryRow>, StoreError> {
        let inner = locked(&self.inner);
        let messages = inner.messages.values().filter(|message| inner.owner(message.mailbox) == Some(account));
        let mut rows: Vec<DeliveryRow> = messages.flat_map(Message::rows).collect();
        rows.sort_by(|a, b| (a.message, &a.destination, &a.recipient).cmp(&(b.message, &b.destination, &b.recipient)));
        Ok(rows)
    }

    async fn begin(&self, lease: &Lease, messages: &[Begin], now: UnixTime) -> Result<(), StoreError> {
        let mut inner = self.under(lease, Some(now))?;
        inner.owned(lease, messages.iter().map(|begin| begin.message.mailbox))?;
        for begin in messages {
            inner.message(begin.message).begin(begin, now);
        }
        Ok(())
    }

    async fn settle(&self, lease: &Lease, settled: &[Settle], now: UnixTime) -> Result<(), StoreError> {
        let mut inner = self.under(lease, Some(now))?;
        inner.owned(lease, settled.iter().map(|settle| settle.message.mailbox))?;
        let mut changed: BTreeMap<MessageRef, Message> = BTreeMap::new();
        for settle in settled {
            let message = changed.entry(settle.message).or_insert_with(|| {
                let known = inner.messages.get(&settle.message).cloned();
                known.unwrap_or_else(|| Message::new(settle.message, State::Pending))
            });
            message.settle(settle, now)?;
        }
        inner.messages.extend(changed);
        Ok(())
    }

    async fn defer(
        &self,
        lease: &Lease,
        message: MessageRef,
        name: &MessageName,
        retry_at: UnixTime,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let mut inner = self.under(lease, Some(now))?;
        inner.owned(lease, [message.mailbox])?;
        inner.message(message).defer(name, retry_at, reason, now);
        Ok(())
    }

    async fn put_off(&self, lease: &Lease, messages: &[PutOff], now: UnixTime) -> Result<(), StoreError> {
        let mut inner = self.under(lease, Some(now))?;
        inner.owned(lease, messages.iter().map(|put_off| put_off.message.mailbox))?;
        messages.iter().for_each(|put_off| inner.message(put_off.message).put_off(put_off, now));
        Ok(())
    }

    async fn park(
        &self,
        lease: &Lease,
        message: MessageRef,
        name: &MessageName,
        fingerprint: Option<Fingerprint>,
        size_octets: u64,
        reason: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let mut inner = self.under(lease, Some(now))?;
        inner.owned(lease, [message.mailbox])?;
        inner.message(message).park(name, fingerprint, size_octets, reason, now);
        Ok(())
    }

    async fn mark(
        &self,
        lease: &Lease,
        mailbox: MailboxId,
        messages: &[(Key, u16)],
        mark: Mark,
    ) -> Result<(), StoreError> {
        let mut inner = self.under(lease, None)?;
        inner.owned(lease, [mailbox])?;
        inner.mark(mailbox, messages, mark)
    }

    async fn adopt(&self, lease: &Lease, adopted: &[(MessageRef, MessageRef, Fingerprint)]) -> Result<(), StoreError> {
        let mut inner = self.under(lease, None)?;
        inner.owned(lease, adopted.iter().flat_map(|(from, to, _)| [from.mailbox, to.mailbox]))?;
        for (from, to, fingerprint) in adopted {
            if from == to || inner.messages.get(to).is_some_and(|known| !known.may_be_replaced()) {
                continue;
            }
            if let Some(old) = inner.messages.remove(from) {
                inner.messages.insert(*to, old.adopted_as(*to, *fingerprint));
            }
        }
        Ok(())
    }

    async fn troubled(&self, account: Option<AccountId>, pending: bool) -> Result<Vec<ParkedRow>, StoreError> {
        let inner = locked(&self.inner);
        let mut rows = Vec::new();
        for message in inner.messages.values().filter(|message| message.is_troubled(pending)) {
            let mailbox = inner.mailboxes.iter().find(|row| row.id == message.mailbox);
            let owner = mailbox.and_then(|row| inner.accounts.iter().find(|known| known.id == row.account));
            let (Some(mailbox), Some(owner)) = (mailbox, owner) else { continue };
            if account.is_none_or(|account| account == owner.id) {
                rows.push(message.parked_row(&owner.address, &mailbox.name));
            }
        }
        rows.sort_by_key(|row| (row.since, row.message));
        Ok(rows)
    }

    async fn retry(&self, message: MessageRef) -> Result<bool, StoreError> {
        Ok(locked(&self.inner).decide(message, Message::retry))
    }

    async fn deliver(&self, message: MessageRef) -> Result<bool, StoreError> {
        Ok(locked(&self.inner).decide(message, Message::deliver_anyway))
    }

    async fn skip(&self, message: MessageRef) -> Result<bool, StoreError> {
        Ok(locked(&self.inner).decide(message, Message::skip))
    }

    async fn delete(&self, message: MessageRef) -> Result<bool, StoreError> {
        Ok(locked(&self.inner).decide(message, Message::delete))
    }

    async fn record_run(&self, lease: &Lease, run: &RunRow) -> Result<(), StoreError> {
        let mut inner = self.under(lease, None)?;
        let id = RunId(inner.runs.last().map_or(1, |(_, last, _)| last.0 + 1));
        inner.runs.push((lease.account, id, run.clone()));
        let mut kept = inner.runs.iter().filter(|(account, ..)| *account == lease.account).count();
        inner.runs.retain(|(account, ..)| {
            let surplus = *account == lease.account && kept > RUNS;
            kept -= usize::from(surplus);
            !surplus
        });
        Ok(())
    }

    async fn runs_before(
        &self,
        account: AccountId,
        before: Option<RunId>,
        most: usize,
    ) -> Result<Vec<(RunId, RunRow)>, StoreError> {
        let inner = locked(&self.inner);
        let wanted = |(owner, id, _): &&(AccountId, RunId, RunRow)| {
            *owner == account && before.is_none_or(|before| *id < before)
        };
        let runs = inner.runs.iter().rev().filter(wanted).take(most);
        Ok(runs.map(|(_, id, run)| (*id, run.clone())).collect())
    }

    async fn tick(&self, now: UnixTime) -> Result<Option<UnixTime>, StoreError> {
        let mut inner = locked(&self.inner);
        inner.clock = Some(now);
        Ok(inner.tick.replace(now))
    }

    async fn notices(&self) -> Result<Vec<(String, String)>, StoreError> {
        let inner = locked(&self.inner);
        Ok(inner.notices.iter().map(|(subject, text)| (subject.clone(), text.clone())).collect())
    }

    async fn record_notices(&self, changes: &[(String, Option<String>)]) -> Result<(), StoreError> {
        let mut inner = locked(&self.inner);
        for (subject, text) in changes {
            match text {
                Some(text) => inner.notices.insert(subject.clone(), text.clone()),
                None => inner.notices.remove(subject),
            };
        }
        Ok(())
    }

    async fn tidy(&self, now: UnixTime) -> Result<(), StoreError> {
        let held: Vec<AccountId> = locked(&self.leases).held.keys().copied().collect();
        let mut inner = locked(&self.inner);
        inner.accounts.retain(|account| {
            held.contains(&account.id) || account.retired_at.is_none_or(|retired_at| now < retired_at.plus(RETIRED))
        });
        let accounts: Vec<AccountId> = inner.accounts.iter().map(|account| account.id).collect();
        inner.mailboxes.retain(|mailbox| accounts.contains(&mailbox.account));
        inner.runs.retain(|(account, ..)| accounts.contains(account));
        let mailboxes: Vec<MailboxId> = inner.mailboxes.iter().map(|mailbox| mailbox.id).collect();
        inner.messages.retain(|name, message| {
            if message.entry.state == State::Done {
                message.gone_at.get_or_insert(now);
            }
            mailboxes.contains(&name.mailbox) && !message.is_forgettable(now)
        });
        Ok(())
    }
}

impl Inner {
    fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    fn owner(&self, mailbox: MailboxId) -> Option<AccountId> {
        self.mailboxes.iter().find(|row| row.id == mailbox).map(|row| row.account)
    }

    /// A lease is good for its own account's mailboxes, which are about to change.
    fn owned(&mut self, lease: &Lease, mailboxes: impl IntoIterator<Item = MailboxId>) -> Result<(), StoreError> {
        for mailbox in mailboxes {
            if self.owner(mailbox) != Some(lease.account) {
                return Err(StoreError::LeaseLost);
            }
            self.disturb(mailbox);
        }
        Ok(())
    }

    /// What is known of a message of a mailbox changes.
    fn disturb(&mut self, mailbox: MailboxId) {
        self.mailboxes.iter_mut().filter(|row| row.id == mailbox).for_each(|row| row.quiet = None);
    }

    /// A person decides about a message.
    fn decide(&mut self, name: MessageRef, decision: fn(&mut Message) -> bool) -> bool {
        self.disturb(name.mailbox);
        self.messages.get_mut(&name).is_some_and(decision)
    }

    /// All of them or, at an error, none.
    fn mark(&mut self, mailbox: MailboxId, messages: &[(Key, u16)], mark: Mark) -> Result<(), StoreError> {
        let mut marked = Vec::with_capacity(messages.len());
        for (key, generation) in messages {
            let name = MessageRef { mailbox, key: *key, generation: *generation };
            marked.push((name, Message::mark(self.messages.get(&name).cloned(), name, mark, self.clock)?));
        }
        self.messages.extend(marked);
        Ok(())
    }

    fn message(&mut self, name: MessageRef) -> &mut Message {
        self.messages.entry(name).or_insert_with(|| Message::new(name, State::Pending))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::{HourRow, Of, Trail};

    #[test]
    fn the_trail_in_memory_passes_the_battery() {
        let all = pin!(crate::battery::trail(async || MemoryTrail::new(), async |_| {}));
        assert!(all.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn hours_in_which_nothing_ran_are_told_from_empty_ones() {
        let trail = MemoryTrail::new();
        let hour = |number: i64| UnixTime(number * HourRow::SECONDS);
        let down = || {
            let Poll::Ready(hours) =
                pin!(trail.hours(Of::All, hour(0), hour(4))).poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("not ready")
            };
            hours.unwrap().iter().map(|row| row.down).collect::<Vec<_>>()
        };
        assert_eq!(down(), [false; 5]);
        trail.ran(hour(1));
        trail.ran(hour(3));
        assert_eq!(down(), [false, false, true, false, true]);
    }

    #[test]
    fn the_store_in_memory_passes_the_battery() {
        let all = pin!(crate::battery::battery(async || MemoryStore::new()));
        assert!(all.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        let all = pin!(crate::battery::saved_accounts(async || MemoryStore::new()));
        assert!(all.poll(&mut Context::from_waker(Waker::noop())).is_ready());
        let store = MemoryStore::new();
        let all = pin!(crate::battery::values(&store));
        assert!(all.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
