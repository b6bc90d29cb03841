use std::time::Duration;

use connectord_account::{Entry, State};
use connectord_delivery::Recipient;
use connectord_mail::{Fingerprint, UnixTime};

use crate::{
    Begin, DeliveryRow, Mark, MessageName, MessageRef, ParkedDelivery, ParkedRow, PutOff, PutOffBy, Settle, Settled,
    Step, StoreError,
};

/// How long a message that is gone from the server is remembered.
const REMEMBERED: Duration = Duration::from_secs(365 * 86_400);

/// All that is known about one message, and how it changes: the rules of [`crate::Store`] as functions from value to
/// value. A back end loads one, applies a change, and saves it; so all back ends decide alike.
///
/// ```
/// use connectord_account::{Key, State};
/// use connectord_delivery::Recipient;
/// use connectord_mail::{Fingerprint, UnixTime};
/// use connectord_store::memory::Message;
/// use connectord_store::{Begin, MailboxId, MessageName, MessageRef, Settle, Settled, Step};
///
/// let name = MessageRef { mailbox: MailboxId(1), key: Key::Uid(7), generation: 0 };
/// let ann = Recipient { user: "ann".into(), address: "ann".into() };
/// let mut message = Message::new(name, State::Pending);
/// let begin = Begin {
///     message: name,
///     fingerprint: Fingerprint::default(),
///     arrived_at: UnixTime(0),
///     name: MessageName::default(),
///     deliveries: vec![("local".into(), ann, Step::Waiting)],
/// };
/// message.begin(&begin, UnixTime(10));
/// assert_eq!(message.entry.state, State::Pending);
/// let settle =
///     Settle { message: name, destination: "local".into(), user: "ann".into(), settled: Settled::Delivered };
/// message.settle(&settle, UnixTime(11)).unwrap();
/// assert_eq!((message.entry.state, message.entry.delivered_at), (State::Delivered, UnixTime(11)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which one.
    pub mailbox: crate::MailboxId,
    /// What the planner knows of it.
    pub entry: Entry,
    /// Since when it is gone from the server; `None` when it is not, or when no time was known.
    pub gone_at: Option<UnixTime>,
    /// What people need to know while it is pending or parked; empty otherwise.
    pub trouble: Trouble,
    /// Its deliveries while it is pending or parked; empty otherwise.
    pub deliveries: Vec<Delivery>,
}

/// What people need to know about a message that is pending or parked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// What they recognise it by.
    pub name: MessageName,
    /// The last failure, in words.
    pub reason: String,
    /// When the first failure was; `None` when there was none.
    pub since: Option<UnixTime>,
    /// Octets as announced; 0 when only the fingerprint knows.
    pub size_octets: u64,
    /// How often filters put it off.
    pub postponed: u16,
    /// How often a filter failed at it.
    pub filter_failures: u16,
}

/// One delivery of a message that is pending or parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Name of the destination.
    pub destination: String,
    /// Who gets it.
    pub recipient: Recipient,
    /// How far it has come.
    pub step: Step,
    /// Attempts that may have arrived, the one under way aside.
    pub uncertain: u32,
}

impl Delivery {
    /// Attempts that may have arrived, the one under way included.
    pub fn uncertain_attempts(&self) -> u32 {
        match self.step {
            Step::Delivering { attempt } => self.uncertain.max(attempt),
            _ => self.uncertain,
        }
    }
}

impl Message {
    /// A message of which nothing else is known.
    pub fn new(message: MessageRef, state: State) -> Self {
        Self {
            mailbox: message.mailbox,
            entry: Entry { generation: message.generation, ..Entry::new(message.key, state) },
            gone_at: None,
            trouble: Trouble::default(),
            deliveries: Vec::new(),
        }
    }

    /// What names it.
    pub fn name(&self) -> MessageRef {
        MessageRef { mailbox: self.mailbox, key: self.entry.key, generation: self.entry.generation }
    }

    /// See [`crate::Store::begin`]. A message that is finished stays so: a person may have skipped it meanwhile.
    pub fn begin(&mut self, begin: &Begin, now: UnixTime) {
        if !self.is_unfinished() {
            return;
        }
        self.entry.state = State::Pending;
        // An attempt is under way: should it be cut short, the next may follow at once.
        self.entry.retry_at = UnixTime(0);
        self.entry.fingerprint = begin.fingerprint;
        // What is delivered now is what is there under this name.
        self.entry.adopted = false;
        if begin.arrived_at != UnixTime(0) {
            self.entry.arrived_at = begin.arrived_at;
        }
        self.trouble.name = begin.name.clone();
        self.deliveries.retain(|known| {
            let named = |(destination, recipient, _): &(String, Recipient, Step)| {
                *destination == known.destination && recipient.user == known.recipient.user
            };
            known.step == Step::Delivered || begin.deliveries.iter().any(named)
        });
        for (destination, recipient, step) in &begin.deliveries {
            match self.find(destination, &recipient.user) {
                Some(known) => {
                    if !matches!(known.step, Step::Delivered | Step::Parked) && known.step != *step {
                        known.uncertain = known.uncertain_attempts();
                        known.step = step.clone();
                        known.recipient = recipient.clone();
                    }
                }
                None => self.deliveries.push(Delivery {
                    destination: destination.clone(),
                    recipient: recipient.clone(),
                    step: step.clone(),
                    uncertain: 0,
                }),
            }
        }
        self.derive(now);
    }

    /// See [`crate::Store::settle`]. Changes nothing for a message that is finished, or a delivery that has been settled
    /// so already.
    ///
    /// # Errors
    /// [`StoreError::Failed`] for a delivery that never began and is said to have succeeded: the deliveries of the other
    /// recipients are unknown then, so the message cannot be called delivered.
    pub fn settle(&mut self, settle: &Settle, now: UnixTime) -> Result<(), StoreError> {
        if !self.is_unfinished() {
            return Ok(());
        }
        let waits = self.entry.retry_at > now;
        let last_reason = self.trouble.reason.clone();
        let known = match self.find(&settle.destination, &settle.user) {
            Some(known) => known,
            None if settle.settled == Settled::Delivered => {
                return Err(StoreError::Failed {
                    during: "settling deliveries",
                    text: format!("the delivery of {:?} to {:?} never began", self.entry.key, settle.user),
                });
            }
            None => {
                self.deliveries.push(Delivery {
                    destination: settle.destination.clone(),
                    recipient: Recipient { user: settle.user.clone(), address: settle.user.clone() },
                    step: Step::Waiting,
                    uncertain: 0,
                });
                self.deliveries.last_mut().expect("pushed above")
            }
        };
        match (&known.step, &settle.settled) {
            (_, Settled::Delivered) => known.step = Step::Delivered,
            (Step::Delivered | Step::Parked, _) => return Ok(()),
            (_, Settled::Deferred { retry_at, reason, counts }) => {
                known.step = Step::Waiting;
                self.failed(*retry_at, reason, *counts, now);
            }
            (before, Settled::Uncertain { retry_at, reason }) => {
                // Said twice it is one attempt, not two.
                let repeated = *before == Step::Waiting && known.uncertain > 0 && waits && last_reason == *reason;
                if !repeated {
                    known.uncertain = match before {
                        Step::Delivering { attempt } => known.uncertain.max(*attempt),
                        _ => known.uncertain.saturating_add(1),
                    };
                    known.step = Step::Waiting;
                }
                self.failed(*retry_at, reason, true, now);
            }
            (_, Settled::Parked { reason } | Settled::Doubtful { reason }) => {
                if matches!(settle.settled, Settled::Doubtful { .. }) {
                    known.uncertain = match known.step {
                        Step::Delivering { attempt } => known.uncertain.max(attempt),
                        _ => known.uncertain.saturating_add(1),
                    };
                }
                known.step = Step::Parked;
                self.trouble.reason.clone_from(reason);
                self.trouble.since.get_or_insert(now);
            }
        }
        self.derive(now);
        Ok(())
    }

    /// See [`crate::Store::defer`]. Only a message that is pending changes.
    pub fn defer(&mut self, name: &MessageName, retry_at: UnixTime, reason: &str, now: UnixTime) {
        if self.entry.state != State::Pending {
            return;
        }
        self.recognise(name);
        self.entry.attempts = self.entry.attempts.saturating_add(1);
        self.entry.retry_at = retry_at;
        reason.clone_into(&mut self.trouble.reason);
        self.trouble.since.get_or_insert(now);
    }

    /// See [`crate::Store::put_off`]. Only a message that is pending changes.
    pub fn put_off(&mut self, put_off: &PutOff, now: UnixTime) {
        if self.entry.state != State::Pending {
            return;
        }
        self.recognise(&put_off.name);
        self.entry.fingerprint = put_off.fingerprint;
        self.entry.adopted = false;
        if put_off.arrived_at != UnixTime(0) {
            self.entry.arrived_at = put_off.arrived_at;
        }
        // Who asks by hand before its time has not waited.
        if self.entry.retry_at <= now {
            let count = match put_off.by {
                PutOffBy::Postponement => &mut self.trouble.postponed,
                PutOffBy::Failure => &mut self.trouble.filter_failures,
            };
            *count = count.saturating_add(1);
            self.entry.retry_at = put_off.retry_at;
        }
        put_off.reason.clone_into(&mut self.trouble.reason);
        self.trouble.since.get_or_insert(now);
    }

    /// See [`crate::Store::park`]. A message that is finished stays so.
    pub fn park(
        &mut self,
        name: &MessageName,
        fingerprint: Option<Fingerprint>,
        size_octets: u64,
        reason: &str,
        now: UnixTime,
    ) {
        if !self.is_unfinished() && self.entry.state != State::Discarding {
            return;
        }
        self.recognise(name);
        if let Some(fingerprint) = fingerprint {
            self.entry.fingerprint = fingerprint;
            self.entry.adopted = false;
        }
        self.entry.state = State::Parked;
        self.entry.retry_at = UnixTime(0);
        if size_octets != 0 {
            self.trouble.size_octets = size_octets;
        }
        reason.clone_into(&mut self.trouble.reason);
        self.trouble.since.get_or_insert(now);
        self.park_deliveries();
    }

    fn park_deliveries(&mut self) {
        for delivery in &mut self.deliveries {
            if delivery.step != Step::Delivered {
                delivery.uncertain = delivery.uncertain_attempts();
                delivery.step = Step::Parked;
            }
        }
    }

    /// See [`crate::Store::mark`]. `now` is the last time the store was told, `None` when it never was.
    ///
    /// # Errors
    /// [`StoreError::Failed`] for the removal of a message that is not delivered, and for what only a known one can be.
    pub fn mark(
        known: Option<Self>,
        message: MessageRef,
        mark: Mark,
        now: Option<UnixTime>,
    ) -> Result<Self, StoreError> {
        if known.is_none() && matches!(mark, Mark::Confirmed | Mark::Another) {
            return Err(StoreError::Failed {
                during: "marking messages",
                text: format!("{:?} is unknown", message.key),
            });
        }
        let unknown = known.is_none();
        let mut marked = known.unwrap_or_else(|| Self::new(message, State::Delivered));
        let discards = marked.entry.state == State::Discarding;
        match mark {
            // A person's word is committed already; that it was asked for counts as an attempt.
            Mark::Removing if discards => marked.entry.attempts = marked.entry.attempts.saturating_add(1),
            Mark::Removing if !marked.was_delivered() => {
                return Err(StoreError::Failed {
                    during: "marking a removal",
                    text: format!("{:?} is {:?}, not delivered", message.key, marked.entry.state),
                });
            }
            Mark::Removing => {
                marked.finish(State::Removing);
            }
            // Nobody has a message that is pending or parked: a lost request must not make it delivered.
            Mark::Kept { retry_at } if marked.was_delivered() => {
                marked.finish(State::Delivered);
                marked.entry.retry_at = retry_at;
            }
            Mark::Kept { retry_at } if discards => marked.entry.retry_at = retry_at,
            Mark::Kept { .. } => {}
            Mark::Done => {
                let since = marked.gone_at.or(now);
                marked.finish(State::Done);
                marked.gone_at = since;
            }
            Mark::Skipped if unknown || marked.is_unfinished() => marked.finish(State::Skipped),
            Mark::Skipped => {}
            Mark::Confirmed => marked.entry.adopted = false,
            Mark::Another if marked.entry.adopted => marked = Self::new(message, State::Pending),
            Mark::Another => {}
        }
        Ok(marked)
    }

    /// See [`crate::Store::adopt`]: the same message under another name.
    #[must_use]
    pub fn adopted_as(mut self, to: MessageRef, fingerprint: Fingerprint) -> Self {
        self.mailbox = to.mailbox;
        self.entry = Entry { key: to.key, generation: to.generation, fingerprint, adopted: true, ..self.entry };
        self
    }

    /// Whether [`crate::Store::adopt`] may put another message's history in this one's place: nobody has it yet.
    pub fn may_be_replaced(&self) -> bool {
        !self.was_delivered()
    }

    /// See [`crate::Store::retry`].
    pub fn retry(&mut self) -> bool {
        if !self.is_open() {
            return false;
        }
        self.entry = Entry { state: State::Pending, retry_at: UnixTime(0), attempts: 0, ..self.entry };
        (self.trouble.postponed, self.trouble.filter_failures) = (0, 0);
        for delivery in &mut self.deliveries {
            if delivery.step == Step::Parked {
                delivery.step = Step::Waiting;
            }
        }
        true
    }

    /// See [`crate::Store::deliver`].
    pub fn deliver_anyway(&mut self) -> bool {
        let open = self.retry();
        self.entry.anyway |= open;
        open
    }

    /// See [`crate::Store::skip`].
    pub fn skip(&mut self) -> bool {
        let open = self.is_open();
        if open {
            self.finish(State::Skipped);
        }
        open
    }

    /// See [`crate::Store::delete`]. What is known of its deliveries is kept as long as a person may look at it; none of
    /// them goes on.
    pub fn delete(&mut self) -> bool {
        let open = self.is_open();
        if open && self.entry.state != State::Discarding {
            self.entry =
                Entry { state: State::Discarding, retry_at: UnixTime(0), attempts: 0, anyway: false, ..self.entry };
            self.park_deliveries();
        }
        open
    }

    /// Its deliveries as [`crate::Store::unfinished`] shows them.
    pub fn rows(&self) -> impl Iterator<Item = DeliveryRow> {
        self.deliveries.iter().map(|delivery| DeliveryRow {
            message: self.name(),
            destination: delivery.destination.clone(),
            recipient: delivery.recipient.clone(),
            step: delivery.step.clone(),
            uncertain_attempts: delivery.uncertain_attempts(),
        })
    }

    /// Whether it waits for anything but a person: with it no listing is quiet.
    pub fn waits(&self) -> bool {
        matches!(self.entry.state, State::Pending | State::Discarding)
            || !matches!(self.entry.state, State::Parked) && self.entry.retry_at != UnixTime(0)
    }

    /// Whether [`crate::Store::troubled`] shows it: parked, or with `pending` failed at least once.
    pub fn is_troubled(&self, pending: bool) -> bool {
        match self.entry.state {
            State::Parked => true,
            State::Pending => pending && self.trouble.since.is_some(),
            State::Discarding => pending,
            _ => false,
        }
    }

    /// It as [`crate::Store::troubled`] shows it.
    pub fn parked_row(&self, account: &str, mailbox: &str) -> ParkedRow {
        ParkedRow {
            message: self.name(),
            account: account.to_owned(),
            mailbox: mailbox.to_owned(),
            state: self.entry.state,
            name: self.trouble.name.clone(),
            size_octets: match self.trouble.size_octets {
                0 => self.entry.fingerprint.size.into(),
                announced => announced,
            },
            reason: self.trouble.reason.clone(),
            since: self.trouble.since.unwrap_or_default(),
            attempts: self.entry.attempts,
            postponed: self.trouble.postponed,
            filter_failures: self.trouble.filter_failures,
            anyway: self.entry.anyway,
            deliveries: self.parked_deliveries(),
        }
    }

    fn parked_deliveries(&self) -> Vec<ParkedDelivery> {
        let delivery = |delivery: &Delivery| ParkedDelivery {
            destination: delivery.destination.clone(),
            user: delivery.recipient.user.clone(),
            step: delivery.step.clone(),
            uncertain_attempts: delivery.uncertain_attempts(),
        };
        let mut deliveries: Vec<_> = self.deliveries.iter().map(delivery).collect();
        deliveries.sort_by(|a, b| (&a.destination, &a.user).cmp(&(&b.destination, &b.user)));
        deliveries
    }

    /// Whether it has lost its purpose: gone from the server for 365 days.
    pub fn is_forgettable(&self, now: UnixTime) -> bool {
        self.entry.state == State::Done && self.gone_at.is_some_and(|gone_at| now >= gone_at.plus(REMEMBERED))
    }

    fn find(&mut self, destination: &str, user: &str) -> Option<&mut Delivery> {
        self.deliveries.iter_mut().find(|known| known.destination == destination && known.recipient.user == user)
    }

    fn is_unfinished(&self) -> bool {
        matches!(self.entry.state, State::Pending | State::Parked)
    }

    /// Whether a person may still decide about it.
    fn is_open(&self) -> bool {
        self.is_unfinished() || self.entry.state == State::Discarding
    }

    fn was_delivered(&self) -> bool {
        matches!(self.entry.state, State::Delivered | State::Removing | State::Done)
    }

    /// The later of the deliveries' waits counts. Several deliveries that fail in one attempt are one failed attempt:
    /// once the message waits, the attempt has been counted.
    fn failed(&mut self, retry_at: UnixTime, reason: &str, counts: bool, now: UnixTime) {
        if counts && self.entry.retry_at <= now {
            self.entry.attempts = self.entry.attempts.saturating_add(1);
        }
        self.entry.retry_at = self.entry.retry_at.max(retry_at);
        reason.clone_into(&mut self.trouble.reason);
        self.trouble.since.get_or_insert(now);
    }

    /// The message's state follows from those of its deliveries.
    fn derive(&mut self, now: UnixTime) {
        let any = |wanted: fn(&Step) -> bool| self.deliveries.iter().any(|delivery| wanted(&delivery.step));
        let left = self.deliveries.is_empty() || any(|step| !matches!(step, Step::Delivered | Step::Parked));
        if left {
            self.entry.state = State::Pending;
        } else if any(|step| *step == Step::Parked) {
            self.entry.state = State::Parked;
            self.entry.retry_at = UnixTime(0);
        } else {
            self.finish(State::Delivered);
            self.entry.delivered_at = now;
        }
    }

    /// What only matters before the end is forgotten.
    fn finish(&mut self, state: State) {
        self.entry = Entry { state, retry_at: UnixTime(0), attempts: 0, anyway: false, ..self.entry };
        self.gone_at = None;
        self.trouble = Trouble::default();
        self.deliveries = Vec::new();
    }

    fn recognise(&mut self, name: &MessageName) {
        let known = &mut self.trouble.name;
        for (known, new) in [
            (&mut known.on_server, &name.on_server),
            (&mut known.message_id, &name.message_id),
            (&mut known.from, &name.from),
            (&mut known.subject, &name.subject),
        ] {
            if !new.is_empty() {
                known.clone_from(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use connectord_account::Key;
    use connectord_delivery::Note;
    use proptest::prelude::*;

    use super::*;
    use crate::MailboxId;

    #[derive(Clone, Debug)]
    enum Act {
        Begin(Vec<(usize, Step)>),
        Settle(usize, Settled),
        Defer(i64),
        PutOff(i64, PutOffBy),
        Park,
        Mark(Mark),
        Retry,
        Deliver,
        Skip,
        Delete,
    }

    const USERS: [&str; 3] = ["ann", "bob", "carol"];
    const NAME: MessageRef = MessageRef { mailbox: MailboxId(1), key: Key::Uid(1), generation: 0 };

    fn act() -> impl Strategy<Value = Act> {
        let step = prop_oneof![
            Just(Step::Waiting),
            Just(Step::Staged(Note(vec![1]))),
            (1..4u32).prop_map(|attempt| Step::Delivering { attempt }),
        ];
        let settled = prop_oneof![
            3 => Just(Settled::Delivered),
            1 => (0..9i64, any::<bool>()).prop_map(|(at, counts)| Settled::Deferred {
                retry_at: UnixTime(at),
                reason: "later".to_owned(),
                counts,
            }),
            1 => (0..9i64).prop_map(|at| Settled::Uncertain { retry_at: UnixTime(at), reason: "cut off".to_owned() }),
            1 => Just(Settled::Parked { reason: "no".to_owned() }),
            1 => Just(Settled::Doubtful { reason: "who knows".to_owned() }),
        ];
        let mark = prop_oneof![
            Just(Mark::Removing),
            Just(Mark::Kept { retry_at: UnixTime(5) }),
            Just(Mark::Done),
            Just(Mark::Skipped),
            Just(Mark::Confirmed),
            Just(Mark::Another),
        ];
        prop_oneof![
            4 => prop::collection::vec((0..3usize, step), 1..4).prop_map(Act::Begin),
            8 => (0..3usize, settled).prop_map(|(user, settled)| Act::Settle(user, settled)),
            1 => (0..9i64).prop_map(Act::Defer),
            1 => (0..9i64).prop_map(|at| Act::PutOff(at, PutOffBy::Postponement)),
            1 => (0..9i64).prop_map(|at| Act::PutOff(at, PutOffBy::Failure)),
            1 => Just(Act::Park),
            1 => mark.prop_map(Act::Mark),
            1 => Just(Act::Retry),
            1 => Just(Act::Deliver),
            1 => Just(Act::Skip),
            1 => Just(Act::Delete),
        ]
    }

    fn put_off(by: PutOffBy, at: i64) -> PutOff {
        PutOff {
            message: NAME,
            fingerprint: Fingerprint::default(),
            arrived_at: UnixTime(0),
            name: MessageName::default(),
            by,
            retry_at: UnixTime(at),
            reason: "greylisted".to_owned(),
        }
    }

    #[test]
    fn a_message_that_is_looked_at_before_its_time_is_not_put_off_once_more() {
        let mut message = Message::new(NAME, State::Pending);
        message.put_off(&put_off(PutOffBy::Postponement, 600), UnixTime(10));
        message.put_off(&put_off(PutOffBy::Postponement, 700), UnixTime(100));
        assert_eq!((message.trouble.postponed, message.entry.retry_at), (1, UnixTime(600)));
        message.put_off(&put_off(PutOffBy::Postponement, 1200), UnixTime(600));
        message.put_off(&put_off(PutOffBy::Failure, 1800), UnixTime(1200));
        assert_eq!((message.trouble.postponed, message.trouble.filter_failures, message.entry.attempts), (2, 1, 0));
        assert!(message.retry());
        assert_eq!((message.trouble.postponed, message.trouble.filter_failures), (0, 0), "a person's word");
    }

    proptest! {
        #[test]
        fn whatever_happens_delivered_means_that_all_have_it(acts in prop::collection::vec(act(), 0..40)) {
            let mut message = Message::new(NAME, State::Pending);
            let (mut named, mut have) = (BTreeSet::new(), BTreeSet::new());
            for (now, act) in acts.into_iter().enumerate() {
                let before = message.clone();
                let now = UnixTime(now as i64 + 1);
                match act {
                    Act::Begin(deliveries) => {
                        let recipient = |user: usize| Recipient { user: USERS[user].into(), address: USERS[user].into() };
                        let row = |(user, step)| ("local".to_owned(), recipient(user), step);
                        if before.is_unfinished() {
                            named = deliveries.iter().map(|(user, _)| USERS[*user].to_owned()).collect();
                        }
                        let deliveries = deliveries.into_iter().map(row).collect();
                        let (fingerprint, arrived_at) = (Fingerprint::default(), UnixTime(0));
                        let name = MessageName::default();
                        message.begin(&Begin { message: NAME, fingerprint, arrived_at, name, deliveries }, now);
                    }
                    Act::Settle(user, settled) => {
                        let user = USERS[user].to_owned();
                        let delivered = settled == Settled::Delivered;
                        let settle = Settle { message: NAME, destination: "local".into(), user: user.clone(), settled };
                        let result = message.settle(&settle, now);
                        if result.is_ok() && before.is_unfinished() {
                            named.insert(user.clone());
                            if delivered {
                                have.insert(user);
                            }
                        }
                        if result.is_err() {
                            prop_assert_eq!(&message, &before);
                        }
                        // Twice is once.
                        let once = message.clone();
                        if message.settle(&settle, now).is_ok() && message.entry.retry_at > now {
                            prop_assert_eq!(&message, &once);
                        }
                    }
                    Act::Defer(at) => message.defer(&MessageName::default(), UnixTime(at), "cut off", now),
                    Act::PutOff(at, by) => message.put_off(&put_off(by, at), now),
                    Act::Park => message.park(&MessageName::default(), None, 1, "no", now),
                    Act::Mark(mark) => {
                        if let Ok(marked) = Message::mark(Some(message.clone()), NAME, mark, Some(now)) {
                            message = marked;
                        }
                    }
                    Act::Retry => prop_assert_eq!(message.retry(), before.is_open()),
                    Act::Deliver => prop_assert_eq!(message.deliver_anyway(), before.is_open()),
                    Act::Skip => prop_assert_eq!(message.skip(), before.is_open()),
                    Act::Delete => prop_assert_eq!(message.delete(), before.is_open()),
                }
                // Once finished, never retrieved again; and never delivered before everybody has it.
                let gone = message.entry.state == State::Done;
                if !before.is_open() {
                    prop_assert!(!message.is_open());
                } else if message.was_delivered() && !gone {
                    prop_assert!(named.is_subset(&have), "{named:?} {have:?}");
                    prop_assert_eq!(message.entry.delivered_at, now);
                }
                for delivery in &message.deliveries {
                    prop_assert_eq!(delivery.step == Step::Delivered, have.contains(&delivery.recipient.user));
                }
                if !message.is_open() {
                    prop_assert_eq!((&message.trouble, message.deliveries.len()), (&Trouble::default(), 0));
                    prop_assert!(!message.entry.anyway);
                }
            }
        }
    }
}
