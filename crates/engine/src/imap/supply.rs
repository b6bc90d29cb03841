//! What is still to be asked for in one mailbox, shared by all connections that retrieve from it.
//!
//! Each message is asked for by one of them at a time. What a connection had asked for when it was lost comes back.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use connectord_imap::{Uid, UidSet};
use tokio::sync::Notify;

/// Messages asked for at a time that failed before: few, so that one that fails again is not before others.
const RETRY_AT_ONCE: usize = 4;

/// What one command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) uids: UidSet,
    /// It is asked for by itself: a refusal means this message and no other.
    pub(super) alone: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The connection that does everything else too.
    First,
    /// One that only retrieves, and may end at any time.
    Further,
}

pub(super) struct Supply {
    stock: Mutex<Stock>,
    /// Something came back, or everything is done.
    changed: Notify,
}

struct Stock {
    /// By themselves, and at once: a refusal of their command had hidden them.
    singles: VecDeque<Uid>,
    new: VecDeque<Uid>,
    /// Those that failed before, and those that a lost connection was receiving: after all others, and never by a further
    /// connection, so that its end says nothing about a message.
    tried: VecDeque<Uid>,
    /// Orders that were taken and not closed.
    open: usize,
}

impl Supply {
    pub(super) fn new(new: VecDeque<Uid>, tried: VecDeque<Uid>) -> Self {
        let stock = Stock { singles: VecDeque::new(), new, tried, open: 0 };
        Self { stock: Mutex::new(stock), changed: Notify::new() }
    }

    /// New messages nobody has asked for yet.
    pub(super) fn left(&self) -> usize {
        self.stock().new.len()
    }

    /// The next order, of at most `most` messages; it must be closed.
    pub(super) fn take(&self, who: Who, most: usize) -> Option<Order> {
        let mut stock = self.stock();
        let order = if let (Who::First, Some(uid)) = (who, stock.singles.front().copied()) {
            stock.singles.pop_front();
            Order { uids: UidSet::from(uid), alone: true }
        } else if !stock.new.is_empty() {
            let count = stock.new.len().min(most.max(1));
            Order { uids: stock.new.drain(..count).collect(), alone: count == 1 }
        } else if who == Who::First && !stock.tried.is_empty() {
            let count = stock.tried.len().min(RETRY_AT_ONCE);
            Order { uids: stock.tried.drain(..count).collect(), alone: count == 1 }
        } else {
            return None;
        };
        stock.open += 1;
        Some(order)
    }

    /// An order was answered; `hidden` are to be asked for one by one.
    pub(super) fn close(&self, hidden: &BTreeSet<Uid>) {
        let mut stock = self.stock();
        stock.open -= 1;
        stock.singles.extend(hidden);
        drop(stock);
        self.changed.notify_one();
    }

    /// An order was not answered and never will be; `missing` of it did not come, and `coming` was on its way.
    pub(super) fn give_back(&self, missing: &BTreeSet<Uid>, coming: Option<Uid>) {
        let mut stock = self.stock();
        stock.open -= 1;
        for uid in missing.iter().rev() {
            if Some(*uid) == coming { stock.tried.push_back(*uid) } else { stock.new.push_front(*uid) }
        }
        drop(stock);
        self.changed.notify_one();
    }

    /// Whether nothing is left to ask for, and everything was answered.
    pub(super) fn is_done(&self) -> bool {
        let stock = self.stock();
        stock.open == 0 && stock.new.is_empty() && stock.singles.is_empty() && stock.tried.is_empty()
    }

    /// Waits until something changes; for the first connection only.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uids(numbers: &[u32]) -> VecDeque<Uid> {
        numbers.iter().filter_map(|number| Uid::new(*number)).collect()
    }

    fn set(numbers: &[u32]) -> BTreeSet<Uid> {
        uids(numbers).into_iter().collect()
    }

    fn taken(supply: &Supply, who: Who, most: usize) -> Option<(String, bool)> {
        supply.take(who, most).map(|order| (order.uids.to_string(), order.alone))
    }

    #[test]
    fn each_message_is_asked_for_once_and_what_failed_before_comes_last_and_on_the_first_connection() {
        let supply = Supply::new(uids(&[1, 2, 3, 9]), uids(&[5, 4]));
        assert_eq!(taken(&supply, Who::Further, 3), Some(("1:3".into(), false)));
        assert_eq!(taken(&supply, Who::First, 3), Some(("9".into(), true)));
        assert_eq!(taken(&supply, Who::Further, 3), None);
        assert_eq!(taken(&supply, Who::First, 3), Some(("4:5".into(), false)));
        assert_eq!(taken(&supply, Who::First, 3), None);
        (0..3).for_each(|_| supply.close(&BTreeSet::new()));
        assert!(supply.is_done());
    }

    #[test]
    fn what_a_lost_connection_had_comes_back_and_what_it_was_receiving_comes_last() {
        let supply = Supply::new(uids(&[1, 2, 3, 4]), uids(&[]));
        assert_eq!(taken(&supply, Who::Further, 3), Some(("1:3".into(), false)));
        supply.give_back(&set(&[2, 3]), Uid::new(2));
        assert!(!supply.is_done());
        assert_eq!(taken(&supply, Who::Further, 9), Some(("3:4".into(), false)));
        assert_eq!(taken(&supply, Who::Further, 9), None);
        assert_eq!(taken(&supply, Who::First, 9), Some(("2".into(), true)));
    }

    #[test]
    fn what_a_refusal_hid_is_asked_for_by_itself_at_once() {
        let supply = Supply::new(uids(&[1, 2, 3]), uids(&[]));
        assert_eq!(taken(&supply, Who::First, 2), Some(("1:2".into(), false)));
        supply.close(&set(&[1, 2]));
        assert_eq!(taken(&supply, Who::First, 2), Some(("1".into(), true)));
        assert_eq!(taken(&supply, Who::Further, 2), Some(("3".into(), true)));
        assert_eq!(taken(&supply, Who::First, 2), Some(("2".into(), true)));
    }
}
