//! UIDs, UIDVALIDITY and sets of UIDs. Sequence numbers do not exist in this crate's types: they mean another message
//! after every EXPUNGE.

use std::fmt;
use std::num::NonZeroU32;

/// A message's unique identifier within one mailbox and one [`UidValidity`] (RFC 9051 §2.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub NonZeroU32);

/// The generation of a mailbox's UIDs: when it changes, every UID learnt before is void (RFC 9051 §2.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UidValidity(pub NonZeroU32);

macro_rules! number {
    ($type:ident) => {
        impl $type {
            /// From a number; `None` for 0, which no server may send.
            pub fn new(number: u32) -> Option<Self> {
                NonZeroU32::new(number).map(Self)
            }

            /// The number, 1 to 4,294,967,295.
            pub fn number(self) -> u32 {
                self.0.get()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(Uid);
number!(UidValidity);

/// A set of UIDs, kept as ascending ranges that neither overlap nor touch.
///
/// ```
/// use connectord_imap::{Uid, UidSet};
///
/// let set = UidSet::parse(b"7,1:3,4", 100)?;
/// assert_eq!(set.to_string(), "1:4,7");
/// assert_eq!(set.len(), 5);
/// assert_eq!(set.iter().map(Uid::number).collect::<Vec<_>>(), [1, 2, 3, 4, 7]);
/// # Ok::<(), connectord_imap::UidSetError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UidSet {
    ranges: Vec<(u32, u32)>,
}

/// Why octets are no [`UidSet`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UidSetError {
    /// Neither a number from 1 to 4,294,967,295 nor two of them with a colon between.
    #[error("expected a UID or a range of UIDs at position {at}")]
    Syntax {
        /// Octets from the start.
        at: usize,
    },
    /// More ranges than the caller allowed.
    #[error("a set of more than {limit} ranges")]
    TooLong {
        /// The limit, in ranges.
        limit: usize,
    },
}

impl UidSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The UIDs from `first` to `last`, in whichever order they are given (RFC 9051 §9, `seq-range`).
    pub fn range(first: Uid, last: Uid) -> Self {
        let (low, high) = ordered(first.number(), last.number());
        Self { ranges: vec![(low, high)] }
    }

    /// Reads `1:3,7`; `*` is refused, since it means different messages at different times.
    ///
    /// # Errors
    /// [`UidSetError`] for anything else, and for more than `max_ranges` ranges.
    pub fn parse(octets: &[u8], max_ranges: usize) -> Result<Self, UidSetError> {
        let (mut ranges, mut at) = (Vec::new(), 0);
        for part in octets.split(|octet| *octet == b',') {
            if ranges.len() == max_ranges {
                return Err(UidSetError::TooLong { limit: max_ranges });
            }
            ranges.push(parse_range(part).ok_or(UidSetError::Syntax { at })?);
            at += part.len() + 1;
        }
        Ok(Self::from_ranges(ranges))
    }

    fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut set = Self::new();
        for (low, high) in ranges {
            set.append(low, high);
        }
        set
    }

    /// Adds a range that starts no lower than every range before it.
    fn append(&mut self, low: u32, high: u32) {
        match self.ranges.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => self.ranges.push((low, high)),
        }
    }

    /// Adds one UID; constant time when UIDs come in ascending order.
    pub fn insert(&mut self, uid: Uid) {
        self.insert_range(uid, uid);
    }

    /// Adds the UIDs from `first` to `last`, in whichever order they are given.
    pub fn insert_range(&mut self, first: Uid, last: Uid) {
        let (low, high) = ordered(first.number(), last.number());
        if self.ranges.last().is_none_or(|last| low >= last.0) {
            return self.append(low, high);
        }
        let from = self.ranges.partition_point(|range| range.1 < low.saturating_sub(1));
        let to = self.ranges.partition_point(|range| range.0 <= high.saturating_add(1));
        let merged = self.ranges[from..to].iter().fold((low, high), |a, b| (a.0.min(b.0), a.1.max(b.1)));
        self.ranges.splice(from..to, [merged]);
    }

    /// Takes a UID out; whether it was in.
    pub fn remove(&mut self, uid: Uid) -> bool {
        let number = uid.number();
        let at = self.ranges.partition_point(|range| range.1 < number);
        let Some(range) = self.ranges.get_mut(at).filter(|range| range.0 <= number) else { return false };
        match *range {
            (low, high) if low == high => {
                self.ranges.remove(at);
            }
            (low, _) if low == number => range.0 += 1,
            (_, high) if high == number => range.1 -= 1,
            (low, high) => {
                *range = (low, number - 1);
                self.ranges.insert(at + 1, (number + 1, high));
            }
        }
        true
    }

    /// Whether `uid` is in the set; logarithmic in the number of ranges.
    pub fn contains(&self, uid: Uid) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < uid.number());
        self.ranges.get(at).is_some_and(|range| range.0 <= uid.number())
    }

    /// How many UIDs are in the set.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(low, high)| u64::from(high - low) + 1).sum()
    }

    /// Whether the set has no UID.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The lowest UID.
    pub fn first(&self) -> Option<Uid> {
        self.ranges.first().and_then(|range| Uid::new(range.0))
    }

    /// The highest UID.
    pub fn last(&self) -> Option<Uid> {
        self.ranges.last().and_then(|range| Uid::new(range.1))
    }

    /// The ranges, ascending, both ends included.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (Uid, Uid)> + '_ {
        let uid = |n| Uid::new(n).expect("only numbers from UIDs are in the ranges");
        self.ranges.iter().map(move |(low, high)| (uid(*low), uid(*high)))
    }

    /// Every UID, ascending. A server may have named a range of four thousand million: compare [`UidSet::len`] first.
    pub fn iter(&self) -> impl Iterator<Item = Uid> + '_ {
        self.ranges.iter().flat_map(|(low, high)| (*low..=*high).filter_map(Uid::new))
    }

    /// Drops the UIDs below `uid`.
    pub fn remove_below(&mut self, uid: Uid) {
        self.ranges.retain(|range| range.1 >= uid.number());
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(uid.number());
        }
    }

    /// Splits the set into sets whose text is at most `max_octets` long (at least one range each).
    ///
    /// RFC 7162 §4 asks clients to keep command lines under 8,192 octets; RFC 2683 §3.2.1.5 says 1,000.
    pub fn chunks(&self, max_octets: usize) -> Vec<Self> {
        let (mut chunks, mut chunk, mut octets) = (Vec::new(), Self::new(), 0);
        for (low, high) in &self.ranges {
            let length = range_text(*low, *high).len() + 1;
            if !chunk.is_empty() && octets + length > max_octets {
                chunks.push(std::mem::take(&mut chunk));
                octets = 0;
            }
            chunk.ranges.push((*low, *high));
            octets += length;
        }
        if !chunk.is_empty() {
            chunks.push(chunk);
        }
        chunks
    }
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> Self {
        Self::from_ranges(uids.into_iter().map(|uid| (uid.number(), uid.number())).collect())
    }
}

impl From<Uid> for UidSet {
    fn from(uid: Uid) -> Self {
        Self::range(uid, uid)
    }
}

impl fmt::Display for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (low, high)) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(&range_text(*low, *high))?;
        }
        Ok(())
    }
}

fn range_text(low: u32, high: u32) -> String {
    if low == high { low.to_string() } else { format!("{low}:{high}") }
}

fn ordered(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

/// Reads `7` or `3:1`, lower end first in the answer.
pub(crate) fn parse_range(octets: &[u8]) -> Option<(u32, u32)> {
    let mut ends = octets.splitn(2, |octet| *octet == b':');
    let first = parse_number(ends.next()?)?;
    let last = ends.next().map_or(Some(first), parse_number)?;
    Some(ordered(first, last))
}

fn parse_number(digits: &[u8]) -> Option<u32> {
    crate::parse::number(digits).and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uid(number: u32) -> Uid {
        Uid::new(number).unwrap()
    }

    #[test]
    fn ranges_at_the_end_of_the_number_space_do_not_wrap() {
        let mut set = UidSet::range(uid(u32::MAX), uid(u32::MAX - 1));
        set.insert(uid(u32::MAX));
        set.insert(uid(1));
        assert_eq!(set.to_string(), "1,4294967294:4294967295");
        assert_eq!(UidSet::range(uid(1), uid(u32::MAX)).len(), u64::from(u32::MAX));
    }

    #[test]
    fn what_is_no_set_of_uids_is_refused() {
        for text in ["", "0", "1,", ",1", "1:*", "*", "1:2:3", "-1", "+1", "4294967296", "99999999999999999999", "1 ,2"]
        {
            assert!(UidSet::parse(text.as_bytes(), 10).is_err(), "{text:?}");
        }
        assert_eq!(UidSet::parse(b"1,3,5", 2), Err(UidSetError::TooLong { limit: 2 }));
    }

    proptest! {
        #[test]
        fn a_set_is_what_was_put_in(mut numbers in prop::collection::vec(1u32..60, 0..40)) {
            let mut set = UidSet::new();
            numbers.iter().for_each(|number| set.insert(uid(*number)));
            prop_assert_eq!(&set, &numbers.iter().map(|number| uid(*number)).collect());
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(set.iter().map(Uid::number).collect::<Vec<_>>(), numbers.clone());
            prop_assert_eq!(set.len(), numbers.len() as u64);
            for number in 1..61 { prop_assert_eq!(set.contains(uid(number)), numbers.contains(&number)); }
            if !set.is_empty() { prop_assert_eq!(UidSet::parse(set.to_string().as_bytes(), 99), Ok(set.clone())); }
            for number in (1..61).step_by(7) {
                let mut fewer = set.clone();
                prop_assert_eq!(fewer.remove(uid(number)), set.contains(uid(number)));
                prop_assert_eq!(fewer, set.iter().filter(|left| left.number() != number).collect::<UidSet>());
            }
            let chunks = set.chunks(12);
            prop_assert!(chunks.iter().all(|chunk| chunk.to_string().len() <= 12));
            prop_assert_eq!(chunks.iter().flat_map(UidSet::iter).collect::<UidSet>(), set);
        }
    }
}
