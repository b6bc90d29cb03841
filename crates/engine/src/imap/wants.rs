//! Which messages of a mailbox are to be retrieved: a million new ones take no more room than the gaps between them.

use std::collections::HashMap;

use connectord_imap::{Uid, UidSet};

use crate::mailbox::Wanted;

#[derive(Default)]
pub(super) struct Wants {
    /// Of which nothing is known.
    new: UidSet,
    known: HashMap<Uid, Wanted>,
}

impl Wants {
    pub(super) fn insert(&mut self, uid: Uid, wanted: Wanted) {
        if wanted.is_new() {
            self.new.insert(uid);
        } else {
            self.known.insert(uid, wanted);
        }
    }

    pub(super) fn get(&self, uid: Uid) -> Option<Wanted> {
        let new = || self.new.contains(uid).then(|| Wanted::new(0));
        self.known.get(&uid).copied().or_else(new)
    }

    pub(super) fn remove(&mut self, uid: Uid) -> Option<Wanted> {
        let new = self.new.remove(uid).then(|| Wanted::new(0));
        self.known.remove(&uid).or(new)
    }

    pub(super) fn len(&self) -> u64 {
        self.new.len() + self.known.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.known.is_empty()
    }

    /// Those of which nothing is known, ascending.
    pub(super) fn new_ones(&self) -> &UidSet {
        &self.new
    }

    pub(super) fn known_ones(&mut self) -> impl Iterator<Item = (Uid, &mut Wanted)> {
        self.known.iter_mut().map(|(uid, wanted)| (*uid, wanted))
    }

    pub(super) fn uids(&self) -> impl Iterator<Item = Uid> + '_ {
        self.new.iter().chain(self.known.keys().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_found_and_taken_out_whether_it_is_known_or_not() {
        let mut wants = Wants::default();
        let uid = |number| Uid::new(number).unwrap();
        (1..=3).for_each(|number| wants.insert(uid(number), Wanted::new(0)));
        wants.insert(uid(2), Wanted { attempt: 4, known: true, ..Wanted::new(0) });
        wants.insert(uid(7), Wanted { anyway: true, known: true, ..Wanted::new(3) });
        assert_eq!((wants.get(uid(1)).unwrap().attempt, wants.get(uid(7)).unwrap().generation), (1, 3));
        assert_eq!(wants.new_ones().to_string(), "1:3");
        assert!(wants.remove(uid(1)).is_some() && wants.remove(uid(1)).is_none() && wants.get(uid(1)).is_none());
        assert_eq!(wants.remove(uid(7)).unwrap().generation, 3);
        assert_eq!(wants.get(uid(2)).unwrap().attempt, 4);
        assert!(wants.get(uid(9)).is_none() && !wants.is_empty());
    }
}
