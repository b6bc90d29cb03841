//! What every [`Store`] does: a check for each sentence of the contract.
//!
//! Needs no runtime: the checks only await the store. A check that fails panics, after its name has been printed.
//!
//! ```
//! use std::future::Future;
//! use std::pin::pin;
//! use std::task::{Context, Waker};
//! use connectord_store::{battery::battery, memory::MemoryStore};
//!
//! let all = pin!(battery(async || MemoryStore::new()));
//! assert!(all.poll(&mut Context::from_waker(Waker::noop())).is_ready());
//! ```
#![allow(clippy::unwrap_used, reason = "a check that fails panics")]

mod saved;
mod trail;
mod values;

use connectord_account::{Entry, Key, Ledger, State};
use connectord_delivery::{Note, Recipient};
use connectord_mail::{Fingerprint, UnixTime};

use crate::{
    Absence, AccountId, Begin, DeliveryRow, Health, Hold, Lease, MailboxId, MailboxRow, Mark, MessageName, MessageRef,
    ParkedDelivery, ParkedRow, PutOff, PutOffBy, Quiet, Reason, RunRow, Settle, Settled, Step, Store, StoreError,
};

pub use self::saved::{saved_accounts, saved_accounts_survive};
pub use self::trail::trail;
pub use self::values::{values, values_survive};

const DAY: i64 = 86_400;
/// When the checks happen.
const NOW: UnixTime = UnixTime(20_000 * DAY);

/// Runs each check on a store that `fresh` has made: an empty one.
pub async fn battery<S: Store>(fresh: impl AsyncFn() -> S) {
    macro_rules! run {
        ($($check:ident),* $(,)?) => {$(
            eprintln!("battery: {}", stringify!($check));
            $check(&fresh().await).await;
        )*};
    }
    run![
        an_account_is_found_again_by_its_address,
        accounts_are_listed_by_address,
        a_retired_account_comes_back_with_all_it_knew,
        a_retired_account_is_forgotten_after_90_days,
        an_account_that_is_worked_on_is_not_forgotten,
        a_leased_account_is_busy_until_the_lease_is_dropped,
        fences_rise,
        nothing_changes_under_a_lost_lease,
        nothing_changes_under_the_lease_of_another_account,
        health_comes_back_whole,
        a_mailbox_is_found_again,
        a_mailbox_continues_the_newest_of_its_name,
        a_listing_and_its_marks_are_remembered_together,
        the_end_of_a_check_is_remembered_at_once,
        whatever_changes_a_message_makes_a_quiet_listing_forgotten,
        no_listing_is_quiet_while_a_message_waits,
        what_is_known_is_told_packed_and_by_key,
        a_message_begun_is_pending,
        a_message_is_delivered_when_all_its_recipients_have_it,
        a_message_is_parked_when_nothing_is_left_to_try,
        beginning_again_does_not_undo_a_delivery,
        beginning_again_drops_recipients_that_are_not_named,
        a_message_delivered_to_all_who_are_left_is_delivered,
        a_delivered_message_does_not_begin_again,
        a_message_skipped_meanwhile_does_not_begin_again,
        an_attempt_left_over_may_have_arrived,
        an_uncertain_attempt_may_have_arrived,
        a_certain_failure_does_not_count_as_an_arrival,
        settling_twice_is_settling_once,
        several_failures_of_one_attempt_count_once,
        a_failure_that_does_not_count_is_not_counted,
        a_delivery_that_never_began_is_not_believed,
        a_deferred_message_waits_and_counts,
        deferring_leaves_finished_messages_alone,
        a_message_put_off_waits_and_is_counted_by_its_reason,
        a_parked_message_shows_all_a_person_needs,
        parking_leaves_delivered_messages_alone,
        marks_follow_each_other,
        marking_adds_unknown_messages,
        only_delivered_messages_are_removed,
        a_lost_removal_makes_nothing_delivered,
        a_message_gone_from_the_server_is_in_trouble_no_more,
        adopting_uses_each_row_once,
        adopting_takes_deliveries_along,
        adopting_replaces_no_delivered_message,
        generations_are_messages_of_their_own,
        a_failed_batch_changes_nothing,
        every_field_of_an_entry_comes_back,
        the_ledger_is_of_one_mailbox,
        a_person_retries_a_message,
        a_person_skips_a_message,
        a_message_delivered_anyway_is_so_until_it_is_delivered,
        a_message_that_a_person_deletes_is_discarded_until_it_is_gone,
        a_message_that_is_discarded_is_delivered_no_more,
        who_is_not_known_to_have_it_is_counted_as_one_attempt,
        an_adopted_message_is_so_until_it_is_confirmed_or_another,
        a_delivery_under_its_new_name_confirms_a_message,
        an_adopted_message_stays_adopted_in_every_state,
        a_person_cannot_touch_what_is_not_in_trouble,
        trouble_is_listed_by_account,
        a_hundred_checks_are_kept,
        the_time_before_is_remembered,
        what_was_told_is_remembered_by_subject,
        messages_gone_for_a_year_are_forgotten,
    ];
}

/// Checks of a durable store: `open` opens the same one each time, which is empty at first. What one leaves is there for
/// the next.
pub async fn survives_reopening<S: Store>(open: impl AsyncFn() -> S) {
    let store = open().await;
    let at = At::new(&store).await;
    at.begin(&[("ann", Step::Staged(Note(vec![0, 255]))), ("bob", Step::Delivering { attempt: 3 })]).await;
    store.tick(NOW).await.unwrap();
    store.record_notices(&[("host:a".into(), Some("told".into()))]).await.unwrap();
    let (account, mailbox) = (at.lease.account, at.mailbox.id);
    let before = (at.ledger().await, at.unfinished().await);
    drop(at);
    drop(store);

    let store = open().await;
    assert_eq!(store.tick(later(1)).await.unwrap(), Some(NOW));
    assert_eq!(store.notices().await.unwrap(), [("host:a".to_owned(), "told".to_owned())]);
    assert_eq!((store.ledger(mailbox).await.unwrap(), store.unfinished(account).await.unwrap()), before);
    let at = At::new(&store).await;
    assert_eq!((at.lease.account, at.mailbox.id), (account, mailbox));
    at.settle("ann", Settled::Delivered).await;
    at.settle("bob", Settled::Delivered).await;
    drop(at);
    drop(store);

    let store = open().await;
    let delivered = Entry { state: State::Delivered, delivered_at: NOW, ..before.0[0] };
    assert_eq!(store.ledger(mailbox).await.unwrap(), [delivered]);
    assert_eq!(store.unfinished(account).await.unwrap(), []);
}

/// A store with an account, its lease and a mailbox.
struct At<'a, S> {
    store: &'a S,
    lease: Lease,
    mailbox: MailboxRow,
}

impl<'a, S: Store> At<'a, S> {
    async fn new(store: &'a S) -> Self {
        let account = store.open_account("ann@example.org").await.unwrap();
        let lease = store.lease(account.id).await.unwrap();
        let mailbox = store.open_mailbox(&lease, "INBOX", 7).await.unwrap();
        Self { store, lease, mailbox }
    }

    /// The message most checks are about.
    fn message(&self) -> MessageRef {
        MessageRef { mailbox: self.mailbox.id, key: Key::Uid(5), generation: 0 }
    }

    fn row(&self, deliveries: &[(&str, Step)]) -> Begin {
        let deliveries =
            deliveries.iter().map(|(user, step)| ("local".to_owned(), recipient(user), step.clone())).collect();
        Begin { message: self.message(), fingerprint: PRINT, arrived_at: later(-50), name: name(), deliveries }
    }

    async fn begin(&self, deliveries: &[(&str, Step)]) {
        self.store.begin(&self.lease, &[self.row(deliveries)], NOW).await.unwrap();
    }

    fn settled(&self, user: &str, settled: Settled) -> Settle {
        Settle { message: self.message(), destination: "local".to_owned(), user: user.to_owned(), settled }
    }

    async fn settle(&self, user: &str, settled: Settled) {
        self.store.settle(&self.lease, &[self.settled(user, settled)], NOW).await.unwrap();
    }

    async fn mark(&self, mark: Mark) {
        self.store.mark(&self.lease, self.mailbox.id, &[(Key::Uid(5), 0)], mark).await.unwrap();
    }

    async fn ledger(&self) -> Vec<Entry> {
        self.store.ledger(self.mailbox.id).await.unwrap()
    }

    /// The only message there is.
    async fn entry(&self) -> Entry {
        let ledger = self.ledger().await;
        assert_eq!(ledger.len(), 1);
        ledger[0]
    }

    async fn state(&self) -> State {
        self.entry().await.state
    }

    async fn unfinished(&self) -> Vec<DeliveryRow> {
        self.store.unfinished(self.lease.account).await.unwrap()
    }

    /// User, step and uncertain attempts of the unfinished deliveries.
    async fn steps(&self) -> Vec<(String, Step, u32)> {
        let rows = self.unfinished().await;
        rows.into_iter().map(|row| (row.recipient.user, row.step, row.uncertain_attempts)).collect()
    }

    async fn troubled(&self) -> Vec<ParkedRow> {
        self.store.troubled(None, true).await.unwrap()
    }

    async fn deliver(&self) {
        self.begin(&[("ann", Step::Waiting)]).await;
        self.settle("ann", Settled::Delivered).await;
        assert_eq!(self.state().await, State::Delivered);
    }
}

const PRINT: Fingerprint = Fingerprint { head: 0xFEDC_BA98_7654_3210, body: 0x0123_4567_89AB_CDEF, size: 70_214 };

fn later(seconds: i64) -> UnixTime {
    UnixTime(NOW.0 + seconds)
}

fn recipient(user: &str) -> Recipient {
    Recipient { user: user.to_owned(), address: format!("{user}@local.example") }
}

fn name() -> MessageName {
    MessageName {
        on_server: "5".to_owned(),
        message_id: "<1@example.org>".to_owned(),
        from: "Bob <bob@example.org>".to_owned(),
        subject: "Grüße".to_owned(),
    }
}

fn step(user: &str, step: Step, uncertain: u32) -> (String, Step, u32) {
    (user.to_owned(), step, uncertain)
}

fn deferred(retry_in: i64) -> Settled {
    Settled::Deferred { retry_at: later(retry_in), reason: "451 later".to_owned(), counts: true }
}

fn parked() -> Settled {
    Settled::Parked { reason: "550 no".to_owned() }
}

async fn an_account_is_found_again_by_its_address<S: Store>(store: &S) {
    let ann = store.open_account("Ann@Example.org").await.unwrap();
    assert_eq!((ann.address.as_str(), &ann.health, ann.retired_at), ("ann@example.org", &Health::default(), None));
    assert_eq!(store.open_account("ann@EXAMPLE.org").await.unwrap(), ann);
    assert_ne!(store.open_account("bob@example.org").await.unwrap().id, ann.id);
}

async fn accounts_are_listed_by_address<S: Store>(store: &S) {
    assert_eq!(store.accounts().await.unwrap(), []);
    for address in ["carol@x", "ann@x", "bob@x"] {
        store.open_account(address).await.unwrap();
    }
    store.retire_account("bob@x", NOW).await.unwrap();
    let listed: Vec<_> = store.accounts().await.unwrap().into_iter().map(|row| (row.address, row.retired_at)).collect();
    assert_eq!(listed, [("ann@x".to_owned(), None), ("bob@x".to_owned(), Some(NOW)), ("carol@x".to_owned(), None)]);
}

async fn a_retired_account_comes_back_with_all_it_knew<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let before = at.ledger().await;
    let (account, mailbox) = (at.lease.account, at.mailbox.id);
    drop(at);
    store.retire_account("ANN@example.org", NOW).await.unwrap();
    // The first time counts.
    store.retire_account("ann@example.org", later(DAY)).await.unwrap();
    store.retire_account("nobody@example.org", NOW).await.unwrap();
    assert_eq!(store.accounts().await.unwrap()[0].retired_at, Some(NOW));
    store.tidy(later(89 * DAY)).await.unwrap();
    let again = At::new(store).await;
    assert_eq!((again.lease.account, again.mailbox.id, again.ledger().await), (account, mailbox, before));
    drop(again);
    assert_eq!(store.accounts().await.unwrap()[0].retired_at, None);
    store.tidy(later(1000 * DAY)).await.unwrap();
    assert_eq!(store.accounts().await.unwrap().len(), 1);
}

async fn a_retired_account_is_forgotten_after_90_days<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting)]).await;
    store.record_run(&at.lease, &RunRow::default()).await.unwrap();
    let (account, mailbox) = (at.lease.account, at.mailbox.id);
    drop(at);
    let other = store.open_account("bob@example.org").await.unwrap();
    store.retire_account("ann@example.org", NOW).await.unwrap();
    store.tidy(later(90 * DAY)).await.unwrap();
    assert_eq!(store.accounts().await.unwrap(), [other]);
    assert_eq!(store.ledger(mailbox).await.unwrap(), []);
    assert_eq!(store.unfinished(account).await.unwrap(), []);
    assert_eq!(store.runs(account, 10).await.unwrap(), []);
    assert_eq!(store.mailboxes(account).await.unwrap(), []);
    assert_ne!(store.open_account("ann@example.org").await.unwrap().id, account);
}

async fn an_account_that_is_worked_on_is_not_forgotten<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    store.retire_account("ann@example.org", NOW).await.unwrap();
    store.tidy(later(90 * DAY)).await.unwrap();
    assert_eq!(at.ledger().await.len(), 1);
}

async fn a_leased_account_is_busy_until_the_lease_is_dropped<S: Store>(store: &S) {
    let ann = store.open_account("ann@x").await.unwrap().id;
    let bob = store.open_account("bob@x").await.unwrap().id;
    let lease = store.lease(ann).await.unwrap();
    assert_eq!(store.lease(ann).await.unwrap_err(), StoreError::Busy);
    drop(store.lease(bob).await.unwrap());
    drop(lease);
    drop(store.lease(ann).await.unwrap());
    assert!(matches!(store.lease(AccountId(i64::MAX)).await, Err(StoreError::Failed { .. })));
}

async fn fences_rise<S: Store>(store: &S) {
    let ann = store.open_account("ann@x").await.unwrap().id;
    let first = store.lease(ann).await.unwrap().fence;
    let second = store.lease(ann).await.unwrap().fence;
    assert!(second > first);
}

async fn nothing_changes_under_a_lost_lease<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting)]).await;
    let before = (at.ledger().await, at.unfinished().await, store.accounts().await.unwrap());
    let lost = Lease::new(at.lease.account, at.lease.fence + 1, Box::new(()));
    let (message, keys) = (at.message(), [(Key::Uid(5), 0)]);
    let results = [
        store.begin(&lost, &[at.row(&[("ann", Step::Delivered)])], NOW).await,
        store.settle(&lost, &[at.settled("ann", Settled::Delivered)], NOW).await,
        store.defer(&lost, message, &name(), later(5), "no", NOW).await,
        store.park(&lost, message, &name(), None, 5, "no", NOW).await,
        store.put_off(&lost, &[put_off(message, PutOffBy::Failure, 5)], NOW).await,
        store.mark(&lost, at.mailbox.id, &keys, Mark::Done).await,
        store.adopt(&lost, &[(message, MessageRef { key: Key::Uid(6), ..message }, PRINT)]).await,
        store.record_listing(&lost, &MailboxRow { uid_next: 9, ..at.mailbox.clone() }, &keys, Mark::Done).await,
        store.record_health(&lost, &Health { failures: 9, ..Health::default() }).await,
        store.record_run(&lost, &RunRow::default()).await,
        store.open_mailbox(&lost, "Junk", 1).await.map(|_| ()),
    ];
    for result in results {
        assert_eq!(result, Err(StoreError::LeaseLost));
    }
    assert_eq!((at.ledger().await, at.unfinished().await, store.accounts().await.unwrap()), before);
    assert_eq!(store.mailboxes(at.lease.account).await.unwrap(), std::slice::from_ref(&at.mailbox));
    assert_eq!(store.runs(at.lease.account, 5).await.unwrap(), []);
}

async fn nothing_changes_under_the_lease_of_another_account<S: Store>(store: &S) {
    let at = At::new(store).await;
    let bob = store.open_account("bob@x").await.unwrap().id;
    let bobs = store.lease(bob).await.unwrap();
    let keys = [(Key::Uid(5), 0)];
    let listed = MailboxRow { uid_next: 9, ..at.mailbox.clone() };
    for result in [
        store.begin(&bobs, &[at.row(&[("ann", Step::Waiting)])], NOW).await,
        store.mark(&bobs, at.mailbox.id, &keys, Mark::Skipped).await,
        store.mark(&at.lease, MailboxId(i64::MAX), &keys, Mark::Skipped).await,
        store.record_listing(&bobs, &listed, &[], Mark::Done).await,
    ] {
        assert_eq!(result, Err(StoreError::LeaseLost));
    }
    assert_eq!(at.ledger().await, []);
    assert_eq!(store.mailboxes(at.lease.account).await.unwrap(), std::slice::from_ref(&at.mailbox));
}

async fn health_comes_back_whole<S: Store>(store: &S) {
    let at = At::new(store).await;
    for hold in [Hold::Backoff, Hold::Login, Hold::Throttled, Hold::UserGone, Hold::Destination, Hold::Filter] {
        let health = Health {
            failures: u32::MAX,
            login_refusals: 2,
            last_ok: Some(later(1)),
            last_check: Some(later(2)),
            next_check: Some(later(3)),
            hold: Some(hold),
            error: Some("login refused".to_owned()),
            reason: Some(Reason::new("login_refused").with("host", "imap.x").said("NO = no\nsaid=twice")),
            since: Some(later(5)),
            refused_credential: Some([7; 32]),
            clock_jump: Some(later(4)),
            silences: 3,
            login: Some("5 PLAIN PLAIN a:993".to_owned()),
        };
        store.record_health(&at.lease, &health).await.unwrap();
        assert_eq!(store.accounts().await.unwrap()[0].health, health);
        assert_eq!(store.open_account("ann@example.org").await.unwrap().health, health);
    }
    store.record_health(&at.lease, &Health::default()).await.unwrap();
    assert_eq!(store.accounts().await.unwrap()[0].health, Health::default());
}

async fn a_mailbox_is_found_again<S: Store>(store: &S) {
    let at = At::new(store).await;
    let account = at.lease.account;
    let new = MailboxRow {
        id: at.mailbox.id,
        account,
        name: "INBOX".to_owned(),
        uid_validity: 7,
        uid_next: 0,
        first_listed: None,
        last_listed: None,
        absence: None,
        continues: None,
        keys_recur: false,
        quiet: None,
    };
    assert_eq!(at.mailbox, new);
    assert_eq!(store.open_mailbox(&at.lease, "INBOX", 7).await.unwrap(), new);
    assert_eq!(store.open_mailbox(&at.lease, "inbox", 7).await.unwrap().continues, None);
}

async fn a_mailbox_continues_the_newest_of_its_name<S: Store>(store: &S) {
    let at = At::new(store).await;
    let second = store.open_mailbox(&at.lease, "INBOX", u32::MAX).await.unwrap();
    let other = store.open_mailbox(&at.lease, "Junk", 8).await.unwrap();
    let third = store.open_mailbox(&at.lease, "INBOX", 1).await.unwrap();
    assert_eq!((second.continues, other.continues), (Some(at.mailbox.id), None));
    assert_eq!(third.continues, Some(second.id));
    // An old UIDVALIDITY that comes back is the mailbox it was.
    assert_eq!(store.open_mailbox(&at.lease, "INBOX", 7).await.unwrap(), at.mailbox);
    let listed: Vec<_> = store.mailboxes(at.lease.account).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(listed, [third.id, other.id, second.id, at.mailbox.id]);
}

async fn a_listing_and_its_marks_are_remembered_together<S: Store>(store: &S) {
    let at = At::new(store).await;
    let listed = MailboxRow {
        uid_next: u32::MAX,
        first_listed: Some(NOW),
        last_listed: Some(later(1)),
        absence: Some(Absence { times: 2, since: later(2) }),
        continues: Some(at.mailbox.id),
        keys_recur: true,
        ..at.mailbox.clone()
    };
    let keys = [(Key::Uid(1), 0), (Key::Uid(2), 0)];
    // What identifies it cannot be changed.
    let renamed = MailboxRow { name: "other".to_owned(), uid_validity: 99, account: AccountId(99), ..listed.clone() };
    store.record_listing(&at.lease, &renamed, &keys, Mark::Skipped).await.unwrap();
    assert_eq!(store.mailboxes(at.lease.account).await.unwrap(), std::slice::from_ref(&listed));
    let skipped = |uid| Entry::new(Key::Uid(uid), State::Skipped);
    assert_eq!(at.ledger().await, [skipped(1), skipped(2)]);
    // Not one without the other: a removal of a message that nobody has is refused.
    let result = store.record_listing(&at.lease, &at.mailbox, &keys, Mark::Removing).await;
    assert!(matches!(result, Err(StoreError::Failed { .. })));
    assert_eq!(store.mailboxes(at.lease.account).await.unwrap(), [listed]);
    store.record_listing(&at.lease, &at.mailbox, &[], Mark::Done).await.unwrap();
    assert_eq!(store.mailboxes(at.lease.account).await.unwrap(), std::slice::from_ref(&at.mailbox));
}

/// A listing about which nothing is to be done.
fn quiet() -> Option<Quiet> {
    Some(Quiet { messages: u32::MAX, digest: [0xAB; 16], until: Some(later(9)), rules: u64::MAX })
}

async fn the_end_of_a_check_is_remembered_at_once<S: Store>(store: &S) {
    let at = At::new(store).await;
    let health = Health { last_ok: Some(later(3)), ..Health::default() };
    let run = RunRow { started: NOW, listed: 7, ..RunRow::default() };
    let listed = MailboxRow { last_listed: Some(later(2)), quiet: quiet(), ..at.mailbox.clone() };
    store.record_check(&at.lease, &health, &run, std::slice::from_ref(&listed)).await.unwrap();
    assert_eq!(store.open_account("ann@example.org").await.unwrap().health, health);
    assert_eq!(store.runs(at.lease.account, 5).await.unwrap(), std::slice::from_ref(&run));
    assert_eq!(store.mailboxes(at.lease.account).await.unwrap(), std::slice::from_ref(&listed));
    assert_eq!(store.open_mailbox(&at.lease, "INBOX", 7).await.unwrap(), listed);
    let forever = MailboxRow { quiet: Some(Quiet { until: None, rules: 0, ..quiet().unwrap() }), ..listed };
    store.record_check(&at.lease, &health, &run, std::slice::from_ref(&forever)).await.unwrap();
    assert_eq!(store.mailboxes(at.lease.account).await.unwrap(), std::slice::from_ref(&forever));
    let lost = Lease::new(at.lease.account, at.lease.fence + 1, Box::new(()));
    assert_eq!(store.record_check(&lost, &Health::default(), &run, &[]).await, Err(StoreError::LeaseLost));
    assert_eq!(store.open_account("ann@example.org").await.unwrap().health, health);
}

async fn whatever_changes_a_message_makes_a_quiet_listing_forgotten<S: Store>(store: &S) {
    let at = At::new(store).await;
    let (message, keys) = (at.message(), [(Key::Uid(5), 0)]);
    let listed = MailboxRow { quiet: quiet(), ..at.mailbox.clone() };
    let is_quiet = async || store.mailboxes(at.lease.account).await.unwrap()[0].quiet.is_some();
    let park = async || store.park(&at.lease, message, &name(), None, 5, "no", NOW).await.unwrap();
    let to = MessageRef { key: Key::Uid(6), ..message };
    for step in 0..11 {
        // A parked message waits for a person: a listing with it may be quiet.
        park().await;
        store.record_listing(&at.lease, &listed, &[], Mark::Done).await.unwrap();
        assert!(is_quiet().await, "before step {step}");
        let change = match step {
            0 => store.begin(&at.lease, &[at.row(&[("ann", Step::Waiting)])], NOW).await,
            1 => store.defer(&at.lease, message, &name(), later(5), "no", NOW).await,
            2 => store.park(&at.lease, message, &name(), None, 5, "no", NOW).await,
            3 => store.mark(&at.lease, at.mailbox.id, &[(Key::Uid(9), 0)], Mark::Skipped).await,
            4 => store.record_listing(&at.lease, &at.mailbox, &keys, Mark::Skipped).await,
            5 => store.retry(message).await.map(|_| ()),
            6 => store.deliver(message).await.map(|_| ()),
            7 => store.skip(message).await.map(|_| ()),
            8 => store.delete(message).await.map(|_| ()),
            9 => store.put_off(&at.lease, &[put_off(message, PutOffBy::Postponement, 5)], NOW).await,
            _ => store.adopt(&at.lease, &[(message, to, PRINT)]).await,
        };
        change.unwrap();
        assert!(!is_quiet().await, "after step {step}");
    }
}

async fn no_listing_is_quiet_while_a_message_waits<S: Store>(store: &S) {
    let at = At::new(store).await;
    let listed = MailboxRow { quiet: quiet(), ..at.mailbox.clone() };
    let remembered = async || {
        let health = Health::default();
        store.record_check(&at.lease, &health, &RunRow::default(), std::slice::from_ref(&listed)).await.unwrap();
        store.mailboxes(at.lease.account).await.unwrap()[0].quiet.is_some()
    };
    store.defer(&at.lease, at.message(), &name(), later(5), "no", NOW).await.unwrap();
    assert!(!remembered().await, "one is pending");
    store.park(&at.lease, at.message(), &name(), None, 5, "no", NOW).await.unwrap();
    assert!(remembered().await, "one is parked");
    assert!(store.delete(at.message()).await.unwrap());
    assert!(!remembered().await, "one is discarded");
    at.begin(&[("ann", Step::Delivered)]).await;
    store.skip(at.message()).await.unwrap();
    store.mark(&at.lease, at.mailbox.id, &[(Key::Uid(5), 0)], Mark::Done).await.unwrap();
    assert!(remembered().await, "nothing waits");
    at.begin(&[("ann", Step::Delivered)]).await;
    store.mark(&at.lease, at.mailbox.id, &[(Key::Uid(5), 0)], Mark::Kept { retry_at: later(9) }).await.unwrap();
    assert!(!remembered().await, "a removal is tried again");
}

async fn what_is_known_is_told_packed_and_by_key<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting)]).await;
    store.settle(&at.lease, &[at.settled("ann", Settled::Delivered)], NOW).await.unwrap();
    let marked: Vec<_> =
        (0..9u8).map(|n| (Key::Digest([n; 16]), 0)).chain([(Key::Uid(9), 0), (Key::Uid(3), 2)]).collect();
    store.mark(&at.lease, at.mailbox.id, &marked, Mark::Skipped).await.unwrap();
    for (key, generation) in [(Key::Uid(1), 0), (Key::Uid(4), 0), (Key::Digest([4; 16]), 1), (Key::Digest([99; 16]), 0)]
    {
        let message = MessageRef { key, generation, ..at.message() };
        store.defer(&at.lease, message, &name(), later(5), "no", NOW).await.unwrap();
    }
    let mut all = at.ledger().await;
    all.sort_by_key(|entry| (entry.key, entry.generation));
    let packed = store.packed_ledger(at.mailbox.id, true).await.unwrap();
    assert_eq!(packed.entries().collect::<Vec<_>>(), Ledger::new(all.clone()).entries().collect::<Vec<_>>());
    assert!(packed.len() > 12 && packed.entries().any(|entry| entry.fingerprint == PRINT));
    let bare = store.packed_ledger(at.mailbox.id, false).await.unwrap();
    assert!(bare.len() == packed.len() && bare.entries().all(|entry| entry.fingerprint.head == 0));
    assert_eq!(bare.get(Key::Uid(1)).unwrap().retry_at, later(5));
    let keys = [Key::Digest([4; 16]), Key::Uid(5), Key::Uid(77), Key::Digest([99; 16]), Key::Uid(5)];
    let wanted: Vec<_> = all.iter().filter(|entry| keys.contains(&entry.key)).copied().collect();
    assert_eq!(store.entries(at.mailbox.id, &keys).await.unwrap(), wanted);
    assert_eq!(wanted.len(), 4);
    assert_eq!(store.entries(MailboxId(i64::MAX), &keys).await.unwrap(), []);
}

async fn a_message_begun_is_pending<S: Store>(store: &S) {
    let at = At::new(store).await;
    let staged = Step::Staged(Note(b"tmp/1\0\xFF".to_vec()));
    at.begin(&[("ann", staged.clone()), ("bob", Step::Waiting)]).await;
    assert_eq!(store.staged().await.unwrap(), [Note(b"tmp/1\0\xFF".to_vec())]);
    let wanted = Entry { fingerprint: PRINT, arrived_at: later(-50), ..Entry::new(Key::Uid(5), State::Pending) };
    assert_eq!(at.entry().await, wanted);
    let row = |user: &str, step: Step| DeliveryRow {
        message: at.message(),
        destination: "local".to_owned(),
        recipient: recipient(user),
        step,
        uncertain_attempts: 0,
    };
    assert_eq!(at.unfinished().await, [row("ann", staged), row("bob", Step::Waiting)]);
    // Nothing has failed yet.
    assert_eq!(at.troubled().await, []);
}

async fn a_message_is_delivered_when_all_its_recipients_have_it<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting), ("bob", Step::Waiting), ("carol", Step::Waiting)]).await;
    at.settle("ann", Settled::Delivered).await;
    at.settle("bob", Settled::Delivered).await;
    assert_eq!(at.state().await, State::Pending);
    let (delivered, waiting) = (Step::Delivered, Step::Waiting);
    let steps = [step("ann", delivered.clone(), 0), step("bob", delivered, 0), step("carol", waiting, 0)];
    assert_eq!(at.steps().await, steps);
    store.settle(&at.lease, &[at.settled("carol", Settled::Delivered)], later(9)).await.unwrap();
    let wanted = Entry {
        fingerprint: PRINT,
        arrived_at: later(-50),
        delivered_at: later(9),
        ..Entry::new(Key::Uid(5), State::Delivered)
    };
    assert_eq!(at.entry().await, wanted);
    assert_eq!(at.unfinished().await, []);
}

async fn a_message_is_parked_when_nothing_is_left_to_try<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting), ("bob", Step::Waiting), ("carol", Step::Waiting)]).await;
    at.settle("ann", parked()).await;
    at.settle("bob", deferred(60)).await;
    at.settle("carol", Settled::Delivered).await;
    assert_eq!(at.state().await, State::Pending);
    at.settle("bob", Settled::Delivered).await;
    let entry = at.entry().await;
    assert_eq!((entry.state, entry.delivered_at, entry.retry_at), (State::Parked, UnixTime(0), UnixTime(0)));
    assert_eq!(at.troubled().await[0].state, State::Parked);
    assert_eq!(at.steps().await.len(), 3);
}

async fn beginning_again_does_not_undo_a_delivery<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting), ("bob", Step::Waiting), ("carol", Step::Waiting)]).await;
    at.settle("ann", Settled::Delivered).await;
    at.settle("bob", parked()).await;
    let again = Step::Delivering { attempt: 1 };
    at.begin(&[("ann", again.clone()), ("bob", again.clone()), ("carol", again.clone())]).await;
    let steps = [step("ann", Step::Delivered, 0), step("bob", Step::Parked, 0), step("carol", again, 1)];
    assert_eq!(at.steps().await, steps);
}

async fn beginning_again_drops_recipients_that_are_not_named<S: Store>(store: &S) {
    let at = At::new(store).await;
    let all = ["ann", "bob", "carol", "dora"].map(|user| (user, Step::Waiting));
    at.begin(&all).await;
    at.settle("ann", Settled::Delivered).await;
    at.settle("bob", parked()).await;
    at.begin(&[("dora", Step::Waiting)]).await;
    assert_eq!(at.steps().await, [step("ann", Step::Delivered, 0), step("dora", Step::Waiting, 0)]);
}

async fn a_message_delivered_to_all_who_are_left_is_delivered<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting), ("bob", Step::Waiting)]).await;
    at.settle("ann", Settled::Delivered).await;
    store.begin(&at.lease, &[at.row(&[("ann", Step::Waiting)])], later(5)).await.unwrap();
    let entry = at.entry().await;
    assert_eq!((entry.state, entry.delivered_at), (State::Delivered, later(5)));
    assert_eq!(at.unfinished().await, []);
}

async fn a_delivered_message_does_not_begin_again<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let before = at.ledger().await;
    at.begin(&[("ann", Step::Delivering { attempt: 1 })]).await;
    assert_eq!((at.ledger().await, at.unfinished().await), (before, vec![]));
}

async fn a_message_skipped_meanwhile_does_not_begin_again<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting)]).await;
    assert!(store.skip(at.message()).await.unwrap());
    at.begin(&[("ann", Step::Delivering { attempt: 1 })]).await;
    store.park(&at.lease, at.message(), &name(), None, 1, "no", NOW).await.unwrap();
    store.defer(&at.lease, at.message(), &name(), later(60), "no", NOW).await.unwrap();
    assert_eq!((at.state().await, at.unfinished().await, at.troubled().await), (State::Skipped, vec![], vec![]));
}

async fn an_attempt_left_over_may_have_arrived<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Delivering { attempt: 1 })]).await;
    assert_eq!(at.steps().await, [step("ann", Step::Delivering { attempt: 1 }, 1)]);
    at.begin(&[("ann", Step::Waiting)]).await;
    assert_eq!(at.steps().await, [step("ann", Step::Waiting, 1)]);
    at.begin(&[("ann", Step::Delivering { attempt: 2 })]).await;
    assert_eq!(at.steps().await, [step("ann", Step::Delivering { attempt: 2 }, 2)]);
}

async fn an_uncertain_attempt_may_have_arrived<S: Store>(store: &S) {
    let at = At::new(store).await;
    let uncertain = Settled::Uncertain { retry_at: later(60), reason: "cut off".to_owned() };
    at.begin(&[("ann", Step::Delivering { attempt: 1 }), ("bob", Step::Staged(Note(vec![1])))]).await;
    at.settle("ann", uncertain.clone()).await;
    at.settle("bob", uncertain).await;
    assert_eq!(at.steps().await, [step("ann", Step::Waiting, 1), step("bob", Step::Waiting, 1)]);
    let entry = at.entry().await;
    assert_eq!((entry.state, entry.retry_at, entry.attempts), (State::Pending, later(60), 1));
}

async fn a_certain_failure_does_not_count_as_an_arrival<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Delivering { attempt: 1 })]).await;
    at.settle("ann", deferred(60)).await;
    assert_eq!(at.steps().await, [step("ann", Step::Waiting, 0)]);
    at.begin(&[("ann", Step::Delivering { attempt: 1 })]).await;
    at.settle("ann", Settled::Uncertain { retry_at: later(60), reason: "cut off".to_owned() }).await;
    at.begin(&[("ann", Step::Delivering { attempt: 2 })]).await;
    at.settle("ann", deferred(90)).await;
    assert_eq!(at.steps().await, [step("ann", Step::Waiting, 1)]);
}

async fn settling_twice_is_settling_once<S: Store>(store: &S) {
    let at = At::new(store).await;
    let uncertain = Settled::Uncertain { retry_at: later(60), reason: "cut off".to_owned() };
    for settled in [deferred(60), uncertain, parked(), Settled::Delivered] {
        at.begin(&[("ann", Step::Delivering { attempt: 1 }), ("bob", Step::Waiting)]).await;
        at.settle("ann", settled.clone()).await;
        let before = (at.ledger().await, at.unfinished().await, at.troubled().await);
        at.settle("ann", settled.clone()).await;
        assert_eq!((at.ledger().await, at.unfinished().await, at.troubled().await), before);
        at.store.retry(at.message()).await.unwrap();
    }
    at.settle("bob", Settled::Delivered).await;
    let before = at.ledger().await;
    for settled in [deferred(60), parked(), Settled::Delivered] {
        store.settle(&at.lease, &[at.settled("bob", settled)], later(99)).await.unwrap();
    }
    assert_eq!(at.ledger().await, before);
}

async fn several_failures_of_one_attempt_count_once<S: Store>(store: &S) {
    let at = At::new(store).await;
    for attempts in 1..=3 {
        at.begin(&[("ann", Step::Waiting), ("bob", Step::Waiting)]).await;
        at.settle("ann", deferred(90)).await;
        at.settle("bob", deferred(60)).await;
        let entry = at.entry().await;
        // The later wait counts.
        assert_eq!((entry.attempts, entry.retry_at), (attempts, later(90)));
    }
}

async fn a_failure_that_does_not_count_is_not_counted<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting)]).await;
    let settled = Settled::Deferred { retry_at: later(60), reason: "destination down".to_owned(), counts: false };
    at.settle("ann", settled).await;
    let entry = at.entry().await;
    assert_eq!((entry.state, entry.attempts, entry.retry_at), (State::Pending, 0, later(60)));
    assert_eq!(at.troubled().await[0].reason, "destination down");
}

async fn a_delivery_that_never_began_is_not_believed<S: Store>(store: &S) {
    let at = At::new(store).await;
    let result = store.settle(&at.lease, &[at.settled("ann", Settled::Delivered)], NOW).await;
    assert!(matches!(result, Err(StoreError::Failed { .. })));
    assert_eq!(at.ledger().await, []);
    // Its failure is.
    at.settle("ann", deferred(60)).await;
    assert_eq!(at.state().await, State::Pending);
}

async fn a_deferred_message_waits_and_counts<S: Store>(store: &S) {
    let at = At::new(store).await;
    for attempts in 1..=2 {
        store.defer(&at.lease, at.message(), &name(), later(60), "cut off", later(attempts)).await.unwrap();
        let wanted =
            Entry { retry_at: later(60), attempts: attempts as u16, ..Entry::new(Key::Uid(5), State::Pending) };
        assert_eq!(at.entry().await, wanted);
    }
    assert_eq!(store.troubled(None, false).await.unwrap(), []);
    let wanted = ParkedRow {
        message: at.message(),
        account: "ann@example.org".to_owned(),
        mailbox: "INBOX".to_owned(),
        state: State::Pending,
        name: name(),
        size_octets: 0,
        reason: "cut off".to_owned(),
        since: later(1),
        attempts: 2,
        postponed: 0,
        filter_failures: 0,
        anyway: false,
        deliveries: vec![],
    };
    assert_eq!(at.troubled().await, [wanted]);
}

async fn deferring_leaves_finished_messages_alone<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let before = at.ledger().await;
    store.defer(&at.lease, at.message(), &name(), later(60), "cut off", NOW).await.unwrap();
    assert_eq!(at.ledger().await, before);
}

async fn a_message_put_off_waits_and_is_counted_by_its_reason<S: Store>(store: &S) {
    let at = At::new(store).await;
    let other = MessageRef { key: Key::Uid(6), ..at.message() };
    let (message, postponed) = (at.message(), PutOffBy::Postponement);
    store.put_off(&at.lease, &[put_off(message, postponed, 600), put_off(other, postponed, 900)], NOW).await.unwrap();
    // Before its time, and then in time.
    store.put_off(&at.lease, &[put_off(message, postponed, 700)], later(100)).await.unwrap();
    store.put_off(&at.lease, &[put_off(message, postponed, 1200)], later(600)).await.unwrap();
    store.put_off(&at.lease, &[put_off(message, PutOffBy::Failure, 1500)], later(1200)).await.unwrap();
    let shown = |row: &ParkedRow| (row.message.key, row.postponed, row.filter_failures, row.attempts, row.since);
    let rows = at.troubled().await;
    assert_eq!(rows.iter().map(shown).collect::<Vec<_>>(), [(Key::Uid(5), 2, 1, 0, NOW), (Key::Uid(6), 1, 0, 0, NOW)]);
    assert_eq!((rows[0].state, &rows[0].name, rows[0].reason.as_str()), (State::Pending, &name(), "greylisted"));
    let waits: Vec<_> =
        at.ledger().await.iter().map(|entry| (entry.retry_at, entry.fingerprint, entry.arrived_at)).collect();
    assert_eq!(waits, [(later(1500), PRINT, later(-9)), (later(900), PRINT, later(-9))]);
    assert!(store.retry(message).await.unwrap());
    let rows = at.troubled().await;
    assert_eq!((rows[0].postponed, rows[0].filter_failures), (0, 0), "a person's word");
    at.begin(&[("ann", Step::Waiting)]).await;
    at.settle("ann", Settled::Delivered).await;
    store.put_off(&at.lease, &[put_off(message, postponed, 9)], NOW).await.unwrap();
    assert_eq!(at.ledger().await[0].state, State::Delivered, "what is finished stays so");
}

fn put_off(message: MessageRef, by: PutOffBy, retry_in: i64) -> PutOff {
    PutOff {
        message,
        fingerprint: PRINT,
        arrived_at: later(-9),
        name: name(),
        by,
        retry_at: later(retry_in),
        reason: "greylisted".to_owned(),
    }
}

async fn a_parked_message_shows_all_a_person_needs<S: Store>(store: &S) {
    let at = At::new(store).await;
    let size_octets = 5_000_000_000;
    store.park(&at.lease, at.message(), &name(), Some(PRINT), size_octets, "too large", NOW).await.unwrap();
    assert_eq!(at.entry().await, Entry { fingerprint: PRINT, ..Entry::new(Key::Uid(5), State::Parked) });
    let wanted = ParkedRow {
        message: at.message(),
        account: "ann@example.org".to_owned(),
        mailbox: "INBOX".to_owned(),
        state: State::Parked,
        name: name(),
        size_octets,
        reason: "too large".to_owned(),
        since: NOW,
        attempts: 0,
        postponed: 0,
        filter_failures: 0,
        anyway: false,
        deliveries: vec![],
    };
    assert_eq!(store.troubled(None, false).await.unwrap(), [wanted]);
    // With what is known of each recipient.
    assert!(store.retry(at.message()).await.unwrap());
    at.begin(&[("bob", Step::Delivering { attempt: 1 }), ("ann", Step::Waiting)]).await;
    at.settle("ann", Settled::Delivered).await;
    at.settle("bob", Settled::Doubtful { reason: "who knows".to_owned() }).await;
    let row = store.troubled(None, false).await.unwrap().remove(0);
    let delivery = |user: &str, step, uncertain_attempts| ParkedDelivery {
        destination: "local".to_owned(),
        user: user.to_owned(),
        step,
        uncertain_attempts,
    };
    assert_eq!(row.reason, "who knows");
    assert_eq!(row.deliveries, [delivery("ann", Step::Delivered, 0), delivery("bob", Step::Parked, 1)]);
}

async fn parking_leaves_delivered_messages_alone<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let before = at.ledger().await;
    store.park(&at.lease, at.message(), &name(), None, 1, "no", NOW).await.unwrap();
    assert_eq!((at.ledger().await, at.troubled().await), (before, vec![]));
}

async fn marks_follow_each_other<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let delivered = at.entry().await;
    at.mark(Mark::Removing).await;
    assert_eq!(at.entry().await, Entry { state: State::Removing, ..delivered });
    at.mark(Mark::Kept { retry_at: later(60) }).await;
    assert_eq!(at.entry().await, Entry { retry_at: later(60), ..delivered });
    assert_eq!(at.troubled().await, []);
    at.mark(Mark::Removing).await;
    at.mark(Mark::Done).await;
    assert_eq!(at.entry().await, Entry { state: State::Done, ..delivered });
    at.mark(Mark::Kept { retry_at: UnixTime(0) }).await;
    assert_eq!(at.entry().await, delivered);
}

async fn marking_adds_unknown_messages<S: Store>(store: &S) {
    let at = At::new(store).await;
    let key = |digit| Key::Digest([digit; 16]);
    let mark = async |digit, mark| store.mark(&at.lease, at.mailbox.id, &[(key(digit), 3)], mark).await.unwrap();
    mark(0, Mark::Skipped).await;
    mark(1, Mark::Done).await;
    mark(2, Mark::Removing).await;
    mark(3, Mark::Kept { retry_at: later(1) }).await;
    let entry = |digit, state| Entry { generation: 3, ..Entry::new(key(digit), state) };
    let wanted = [
        entry(0, State::Skipped),
        entry(1, State::Done),
        entry(2, State::Removing),
        Entry { retry_at: later(1), ..entry(3, State::Delivered) },
    ];
    assert_eq!(at.ledger().await, wanted);
}

async fn only_delivered_messages_are_removed<S: Store>(store: &S) {
    let at = At::new(store).await;
    let refused = async || {
        let before = at.ledger().await;
        let result = store.mark(&at.lease, at.mailbox.id, &[(Key::Uid(5), 0)], Mark::Removing).await;
        assert!(matches!(result, Err(StoreError::Failed { .. })));
        assert_eq!(at.ledger().await, before);
    };
    at.begin(&[("ann", Step::Waiting)]).await;
    refused().await;
    at.settle("ann", parked()).await;
    refused().await;
    at.mark(Mark::Skipped).await;
    refused().await;
}

async fn a_lost_removal_makes_nothing_delivered<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting)]).await;
    at.mark(Mark::Kept { retry_at: later(60) }).await;
    assert_eq!((at.state().await, at.steps().await), (State::Pending, vec![step("ann", Step::Waiting, 0)]));
}

async fn a_message_gone_from_the_server_is_in_trouble_no_more<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting)]).await;
    at.settle("ann", parked()).await;
    at.mark(Mark::Done).await;
    assert_eq!((at.state().await, at.troubled().await, at.unfinished().await), (State::Done, vec![], vec![]));
    assert!(!store.retry(at.message()).await.unwrap());
}

async fn adopting_uses_each_row_once<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let old = at.entry().await;
    let new = store.open_mailbox(&at.lease, "INBOX", 8).await.unwrap();
    let to = |uid| MessageRef { mailbox: new.id, key: Key::Uid(uid), generation: 0 };
    let print = Fingerprint { size: 9, ..PRINT };
    store.adopt(&at.lease, &[(at.message(), to(1), print), (at.message(), to(2), print)]).await.unwrap();
    store.adopt(&at.lease, &[(at.message(), to(3), print)]).await.unwrap();
    assert_eq!(at.ledger().await, []);
    assert_eq!(
        store.ledger(new.id).await.unwrap(),
        [Entry { key: Key::Uid(1), fingerprint: print, adopted: true, ..old }]
    );
}

async fn adopting_takes_deliveries_along<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting), ("bob", Step::Delivering { attempt: 2 })]).await;
    at.settle("ann", Settled::Delivered).await;
    at.settle("bob", deferred(60)).await;
    let (entry, unfinished, troubled) = (at.entry().await, at.unfinished().await, at.troubled().await);
    let to = MessageRef { mailbox: at.mailbox.id, key: Key::Digest([9; 16]), generation: 4 };
    store.adopt(&at.lease, &[(at.message(), to, PRINT)]).await.unwrap();
    assert_eq!(at.entry().await, Entry { key: to.key, generation: 4, adopted: true, ..entry });
    let moved: Vec<_> = unfinished.into_iter().map(|row| DeliveryRow { message: to, ..row }).collect();
    assert_eq!(at.unfinished().await, moved);
    let moved: Vec<_> = troubled.into_iter().map(|row| ParkedRow { message: to, ..row }).collect();
    assert_eq!(at.troubled().await, moved);
}

async fn adopting_replaces_no_delivered_message<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let other = MessageRef { key: Key::Uid(6), ..at.message() };
    store.mark(&at.lease, at.mailbox.id, &[(Key::Uid(6), 0)], Mark::Skipped).await.unwrap();
    let before = at.ledger().await;
    store.adopt(&at.lease, &[(other, at.message(), PRINT), (at.message(), at.message(), PRINT)]).await.unwrap();
    assert_eq!(at.ledger().await, before);
}

async fn generations_are_messages_of_their_own<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let next = MessageRef { generation: 1, ..at.message() };
    store.defer(&at.lease, next, &name(), later(60), "cut off", NOW).await.unwrap();
    let states: Vec<_> = at.ledger().await.iter().map(|entry| (entry.generation, entry.state)).collect();
    assert_eq!(states, [(0, State::Delivered), (1, State::Pending)]);
}

async fn a_failed_batch_changes_nothing<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting)]).await;
    let before = (at.ledger().await, at.unfinished().await);
    let unknown =
        Settle { message: MessageRef { key: Key::Uid(6), ..at.message() }, ..at.settled("ann", Settled::Delivered) };
    let result = store.settle(&at.lease, &[at.settled("ann", Settled::Delivered), unknown], NOW).await;
    assert!(result.is_err());
    assert_eq!((at.ledger().await, at.unfinished().await), before);
}

async fn every_field_of_an_entry_comes_back<S: Store>(store: &S) {
    let at = At::new(store).await;
    let digest = Key::Digest(*b"0123456789abcdef");
    for (key, generation) in [(Key::Uid(u32::MAX), 0), (Key::Uid(1), u16::MAX), (digest, 1)] {
        let message = MessageRef { mailbox: at.mailbox.id, key, generation };
        let fingerprint = Fingerprint { size: u32::MAX, ..PRINT };
        let begin = Begin { message, fingerprint, arrived_at: later(5_000), ..at.row(&[("ann", Step::Waiting)]) };
        store.begin(&at.lease, &[begin], NOW).await.unwrap();
        let settle = Settle { message, ..at.settled("ann", deferred(3)) };
        store.settle(&at.lease, &[settle], NOW).await.unwrap();
        let find = async || at.ledger().await.into_iter().find(|entry| entry.key == key).unwrap();
        let pending = Entry {
            key,
            generation,
            state: State::Pending,
            delivered_at: UnixTime(0),
            arrived_at: later(5_000),
            fingerprint,
            retry_at: later(3),
            attempts: 1,
            adopted: false,
            anyway: false,
        };
        assert_eq!(find().await, pending);
        let settle = Settle { message, ..at.settled("ann", Settled::Delivered) };
        store.settle(&at.lease, &[settle], later(7)).await.unwrap();
        let delivered =
            Entry { state: State::Delivered, delivered_at: later(7), retry_at: UnixTime(0), attempts: 0, ..pending };
        assert_eq!(find().await, delivered);
    }
    // By key, UIDs first.
    let keys: Vec<_> = at.ledger().await.iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [Key::Uid(1), Key::Uid(u32::MAX), digest]);
}

async fn the_ledger_is_of_one_mailbox<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let junk = store.open_mailbox(&at.lease, "Junk", 7).await.unwrap();
    assert_eq!(store.ledger(junk.id).await.unwrap(), []);
    assert_eq!(at.ledger().await.len(), 1);
}

async fn a_person_retries_a_message<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting), ("bob", Step::Delivering { attempt: 1 })]).await;
    at.settle("ann", Settled::Delivered).await;
    at.settle("bob", Settled::Uncertain { retry_at: later(60), reason: "cut off".to_owned() }).await;
    at.settle("bob", parked()).await;
    assert_eq!(at.state().await, State::Parked);
    assert!(store.retry(at.message()).await.unwrap());
    let entry = at.entry().await;
    assert_eq!((entry.state, entry.retry_at, entry.attempts), (State::Pending, UnixTime(0), 0));
    assert_eq!(at.steps().await, [step("ann", Step::Delivered, 0), step("bob", Step::Waiting, 1)]);
    // Pending ones too.
    at.settle("bob", deferred(60)).await;
    assert!(store.retry(at.message()).await.unwrap());
    assert_eq!(at.entry().await.retry_at, UnixTime(0));
}

async fn a_person_skips_a_message<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Delivering { attempt: 1 })]).await;
    at.settle("ann", deferred(60)).await;
    assert!(store.skip(at.message()).await.unwrap());
    let entry = at.entry().await;
    assert_eq!((entry.state, entry.retry_at, entry.attempts), (State::Skipped, UnixTime(0), 0));
    assert_eq!((at.unfinished().await, at.troubled().await), (vec![], vec![]));
    // What was under way when the person said so is too late.
    at.settle("ann", Settled::Delivered).await;
    assert_eq!(at.state().await, State::Skipped);
}

async fn a_message_delivered_anyway_is_so_until_it_is_delivered<S: Store>(store: &S) {
    let at = At::new(store).await;
    store.park(&at.lease, at.message(), &name(), None, 1, "mail loop", NOW).await.unwrap();
    assert!(store.deliver(at.message()).await.unwrap());
    let wanted = Entry { anyway: true, ..Entry::new(Key::Uid(5), State::Pending) };
    assert_eq!(at.entry().await, wanted);
    at.begin(&[("ann", Step::Waiting)]).await;
    at.settle("ann", parked()).await;
    assert!(store.retry(at.message()).await.unwrap());
    assert!(at.entry().await.anyway && at.troubled().await[0].anyway);
    at.begin(&[("ann", Step::Waiting)]).await;
    at.settle("ann", Settled::Delivered).await;
    assert_eq!((at.state().await, at.entry().await.anyway), (State::Delivered, false));
    assert!(!store.deliver(at.message()).await.unwrap());
}

async fn a_message_that_a_person_deletes_is_discarded_until_it_is_gone<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Waiting), ("bob", Step::Staged(Note(vec![7])))]).await;
    at.settle("ann", parked()).await;
    assert!(store.delete(at.message()).await.unwrap() && store.delete(at.message()).await.unwrap());
    let entry = at.entry().await;
    assert_eq!((entry.state, entry.retry_at, entry.attempts), (State::Discarding, UnixTime(0), 0));
    assert_eq!(at.steps().await, [step("ann", Step::Parked, 0), step("bob", Step::Parked, 0)]);
    assert_eq!(
        (store.troubled(None, false).await.unwrap().len(), at.troubled().await[0].state),
        (0, State::Discarding)
    );
    // It is asked for, and refused.
    at.mark(Mark::Removing).await;
    at.mark(Mark::Kept { retry_at: later(60) }).await;
    let entry = at.entry().await;
    assert_eq!((entry.state, entry.retry_at, entry.attempts), (State::Discarding, later(60), 1));
    at.mark(Mark::Removing).await;
    at.mark(Mark::Done).await;
    assert_eq!((at.state().await, at.troubled().await, at.unfinished().await), (State::Done, vec![], vec![]));
    assert!(!store.delete(at.message()).await.unwrap());
}

async fn a_message_that_is_discarded_is_delivered_no_more<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Delivering { attempt: 1 })]).await;
    assert!(store.delete(at.message()).await.unwrap());
    let before = at.entry().await;
    at.begin(&[("ann", Step::Waiting)]).await;
    at.settle("ann", Settled::Delivered).await;
    at.settle("ann", deferred(60)).await;
    store.defer(&at.lease, at.message(), &name(), later(60), "cut off", NOW).await.unwrap();
    at.mark(Mark::Skipped).await;
    assert_eq!(at.entry().await, before);
    // Unless a person thinks better of it: or we cannot tell it from another.
    store.park(&at.lease, at.message(), &name(), None, 0, "which one?", NOW).await.unwrap();
    assert_eq!(at.state().await, State::Parked);
    assert!(store.delete(at.message()).await.unwrap() && store.retry(at.message()).await.unwrap());
    assert_eq!((at.state().await, at.steps().await), (State::Pending, vec![step("ann", Step::Waiting, 1)]));
    assert!(store.delete(at.message()).await.unwrap() && store.skip(at.message()).await.unwrap());
    assert_eq!(at.state().await, State::Skipped);
}

async fn who_is_not_known_to_have_it_is_counted_as_one_attempt<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.begin(&[("ann", Step::Delivering { attempt: 1 })]).await;
    at.settle("ann", Settled::Doubtful { reason: "cut off".to_owned() }).await;
    assert_eq!((at.state().await, at.steps().await), (State::Parked, vec![step("ann", Step::Parked, 1)]));
    at.settle("ann", Settled::Doubtful { reason: "cut off".to_owned() }).await;
    assert_eq!(at.steps().await, [step("ann", Step::Parked, 1)]);
    assert!(store.retry(at.message()).await.unwrap());
    assert_eq!(at.steps().await, [step("ann", Step::Waiting, 1)]);
    at.begin(&[("ann", Step::Staged(Note(vec![1])))]).await;
    at.settle("ann", Settled::Doubtful { reason: "cut off".to_owned() }).await;
    assert_eq!(at.steps().await, [step("ann", Step::Parked, 2)]);
}

async fn an_adopted_message_is_so_until_it_is_confirmed_or_another<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let old = at.entry().await;
    let adopt = async |from, to| {
        let name = |uid| MessageRef { key: Key::Uid(uid), ..at.message() };
        store.adopt(&at.lease, &[(name(from), name(to), PRINT)]).await.unwrap();
    };
    adopt(5, 6).await;
    let mark = async |uid, mark| store.mark(&at.lease, at.mailbox.id, &[(Key::Uid(uid), 0)], mark).await;
    mark(6, Mark::Confirmed).await.unwrap();
    assert_eq!(at.entry().await, Entry { key: Key::Uid(6), ..old });
    // What is not adopted is no other message.
    mark(6, Mark::Another).await.unwrap();
    assert_eq!(at.entry().await, Entry { key: Key::Uid(6), ..old });
    adopt(6, 7).await;
    assert!(at.entry().await.adopted);
    mark(7, Mark::Another).await.unwrap();
    assert_eq!(at.entry().await, Entry::new(Key::Uid(7), State::Pending));
    for unknown in [Mark::Confirmed, Mark::Another] {
        assert!(matches!(mark(8, unknown).await, Err(StoreError::Failed { .. })));
    }
    assert_eq!(at.ledger().await.len(), 1);
}

async fn a_delivery_under_its_new_name_confirms_a_message<S: Store>(store: &S) {
    let at = At::new(store).await;
    let other = MessageRef { key: Key::Uid(4), ..at.message() };
    store.begin(&at.lease, &[Begin { message: other, ..at.row(&[("ann", Step::Waiting)]) }], NOW).await.unwrap();
    store.adopt(&at.lease, &[(other, at.message(), PRINT)]).await.unwrap();
    assert!(at.entry().await.adopted);
    at.begin(&[("ann", Step::Waiting)]).await;
    assert!(!at.entry().await.adopted);
}

async fn an_adopted_message_stays_adopted_in_every_state<S: Store>(store: &S) {
    let at = At::new(store).await;
    at.deliver().await;
    let to = MessageRef { key: Key::Uid(6), ..at.message() };
    store.adopt(&at.lease, &[(at.message(), to, PRINT)]).await.unwrap();
    let marks = [
        (Mark::Removing, State::Removing),
        (Mark::Kept { retry_at: later(9) }, State::Delivered),
        (Mark::Kept { retry_at: UnixTime(0) }, State::Delivered),
        (Mark::Done, State::Done),
    ];
    for (mark, state) in marks {
        store.mark(&at.lease, at.mailbox.id, &[(to.key, 0)], mark).await.unwrap();
        let entry = at.entry().await;
        assert_eq!((entry.state, entry.adopted), (state, true));
    }
    // It is tidied away like any other.
    store.tick(later(1)).await.unwrap();
    store.tidy(later(2)).await.unwrap();
    store.tidy(later(400 * DAY)).await.unwrap();
    assert_eq!(at.ledger().await, []);
}

async fn a_person_cannot_touch_what_is_not_in_trouble<S: Store>(store: &S) {
    let at = At::new(store).await;
    assert!(!store.retry(at.message()).await.unwrap());
    assert!(!store.skip(at.message()).await.unwrap());
    assert!(!store.deliver(at.message()).await.unwrap());
    assert!(!store.delete(at.message()).await.unwrap());
    at.deliver().await;
    let before = at.ledger().await;
    assert!(!store.retry(at.message()).await.unwrap());
    assert!(!store.skip(at.message()).await.unwrap());
    assert!(!store.deliver(at.message()).await.unwrap());
    assert!(!store.delete(at.message()).await.unwrap());
    assert_eq!(at.ledger().await, before);
}

async fn trouble_is_listed_by_account<S: Store>(store: &S) {
    let at = At::new(store).await;
    store.park(&at.lease, at.message(), &name(), None, 1, "later", later(2)).await.unwrap();
    let bob = store.open_account("bob@example.org").await.unwrap().id;
    let lease = store.lease(bob).await.unwrap();
    let mailbox = store.open_mailbox(&lease, "", 0).await.unwrap();
    let bobs = MessageRef { mailbox: mailbox.id, key: Key::Digest([1; 16]), generation: 0 };
    store.park(&lease, bobs, &name(), None, 1, "first", later(1)).await.unwrap();
    let listed = async |account| {
        let rows = store.troubled(account, false).await.unwrap();
        rows.into_iter().map(|row| (row.account, row.reason)).collect::<Vec<_>>()
    };
    let anns = ("ann@example.org".to_owned(), "later".to_owned());
    let bobs = ("bob@example.org".to_owned(), "first".to_owned());
    // The oldest first.
    assert_eq!(listed(None).await, [bobs.clone(), anns.clone()]);
    assert_eq!(listed(Some(at.lease.account)).await, [anns]);
    assert_eq!(listed(Some(bob)).await, [bobs]);
}

async fn a_hundred_checks_are_kept<S: Store>(store: &S) {
    let at = At::new(store).await;
    let bob = store.open_account("bob@x").await.unwrap().id;
    let lease = store.lease(bob).await.unwrap();
    let run = |number: i64| RunRow {
        started: later(number),
        duration_ms: 1,
        listed: 2,
        retrieved: 3,
        octets: 4,
        delivered: 5,
        deferred: 6,
        parked: 7,
        removed: 8,
        repeated: 9,
        quarantined: 10,
        discarded: 11,
        unchecked: 12,
        spam: 13,
        error: (number % 2 == 0).then(|| "cut off".to_owned()),
        reason: (number % 2 == 0).then(|| Reason::new("no_answer").with("port", 995)),
    };
    store.record_run(&lease, &run(-1)).await.unwrap();
    for number in 0..105 {
        store.record_run(&at.lease, &run(number)).await.unwrap();
    }
    let wanted: Vec<_> = (5..105).rev().map(run).collect();
    assert_eq!(store.runs(at.lease.account, 1000).await.unwrap(), wanted);
    assert_eq!(store.runs(at.lease.account, 3).await.unwrap(), wanted[..3]);
    assert_eq!(store.runs(bob, usize::MAX).await.unwrap(), [run(-1)]);
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = store.runs_before(at.lease.account, before, 7).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        pages.extend(page.into_iter().map(|(_, run)| run));
    }
    assert_eq!(pages, wanted);
}

async fn the_time_before_is_remembered<S: Store>(store: &S) {
    assert_eq!(store.tick(NOW).await.unwrap(), None);
    assert_eq!(store.tick(later(-5)).await.unwrap(), Some(NOW));
    assert_eq!(store.tick(later(1)).await.unwrap(), Some(later(-5)));
}

async fn what_was_told_is_remembered_by_subject<S: Store>(store: &S) {
    let text = |subject: &str, text: &str| (subject.to_owned(), Some(text.to_owned()));
    assert_eq!(store.notices().await.unwrap(), []);
    store.record_notices(&[text("b", "1"), text("a", "2"), text("c", "3")]).await.unwrap();
    store.record_notices(&[text("b", "4"), ("a".to_owned(), None), ("never".to_owned(), None)]).await.unwrap();
    let known: Vec<_> =
        store.notices().await.unwrap().into_iter().map(|(subject, text)| (subject, Some(text))).collect();
    assert_eq!(known, [text("b", "4"), text("c", "3")]);
}

async fn messages_gone_for_a_year_are_forgotten<S: Store>(store: &S) {
    let at = At::new(store).await;
    let delivered = MessageRef { key: Key::Uid(6), ..at.message() };
    at.deliver().await;
    store.mark(&at.lease, at.mailbox.id, &[(delivered.key, 0)], Mark::Kept { retry_at: UnixTime(0) }).await.unwrap();
    store.tick(later(100 * DAY)).await.unwrap();
    at.mark(Mark::Done).await;
    store.tidy(later((100 + 364) * DAY)).await.unwrap();
    assert_eq!(at.ledger().await.len(), 2);
    // Seen gone again, it has not been gone for a shorter time.
    store.tick(later(300 * DAY)).await.unwrap();
    at.mark(Mark::Done).await;
    store.tidy(later((100 + 367) * DAY)).await.unwrap();
    let left: Vec<_> = at.ledger().await.iter().map(|entry| (entry.key, entry.state)).collect();
    assert_eq!(left, [(Key::Uid(6), State::Delivered)]);
}
