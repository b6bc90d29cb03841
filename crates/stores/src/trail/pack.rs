//! The steps of one message as octets: most are a few dozen, and there are very many.
//!
//! Each step: seconds since the one before (zigzag), number of what happened, name, text, and a score and its limit where
//! there are any. Numbers are of seven bits an octet, the lowest first; texts have their length in front.

use connectord_mail::UnixTime;
use connectord_store::{MAX_STEPS, TrailStep, What};

/// Set in the octet of what happened where a score follows, and where a limit does.
const SCORE: u8 = 0x40;
const LIMIT: u8 = 0x80;

pub(super) fn pack(steps: &[TrailStep]) -> Vec<u8> {
    let mut out = Vec::with_capacity(steps.len() * 24);
    let mut before = 0;
    for step in steps {
        signed(&mut out, step.at.0.wrapping_sub(before));
        before = step.at.0;
        let score = if step.milli_score.is_some() { SCORE } else { 0 };
        let limit = if step.milli_limit.is_some() { LIMIT } else { 0 };
        out.push(step.what as u8 | score | limit);
        for text in [&step.who, &step.detail] {
            number(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        for value in [step.milli_score, step.milli_limit].into_iter().flatten() {
            signed(&mut out, value.into());
        }
    }
    out
}

/// Reads what [`pack`] wrote, and as much as can be read of anything else.
pub(super) fn unpack(mut octets: &[u8]) -> Vec<TrailStep> {
    let (mut steps, mut before) = (Vec::new(), 0);
    while steps.len() < MAX_STEPS && !octets.is_empty() {
        let Some(step) = one(&mut octets, before) else { break };
        before = step.at.0;
        steps.push(step);
    }
    steps
}

fn one(octets: &mut &[u8], before: i64) -> Option<TrailStep> {
    let at = UnixTime(before.wrapping_add(read_signed(octets)?));
    let (kind, rest) = octets.split_first()?;
    *octets = rest;
    let what = What::from_number(kind & !(SCORE | LIMIT))?;
    let (who, detail) = (text(octets)?, text(octets)?);
    let mut value = |bit: u8| -> Option<Option<i32>> {
        if kind & bit == 0 { Some(None) } else { Some(Some(i32::try_from(read_signed(octets)?).ok()?)) }
    };
    let (milli_score, milli_limit) = (value(SCORE)?, value(LIMIT)?);
    Some(TrailStep { milli_score, milli_limit, ..TrailStep::new(at, what, who, detail) })
}

fn text(octets: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(read_number(octets)?).ok()?;
    let (text, rest) = octets.split_at_checked(length)?;
    *octets = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn signed(out: &mut Vec<u8>, value: i64) {
    number(out, (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
}

fn read_signed(octets: &mut &[u8]) -> Option<i64> {
    let number = read_number(octets)?;
    Some((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_number(octets: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (octet, rest) = octets.split_first()?;
        *octets = rest;
        value |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step() -> impl Strategy<Value = TrailStep> {
        let what = proptest::sample::select(What::ALL);
        (any::<i64>(), what, ".{0,40}", ".{0,40}", any::<Option<i32>>(), any::<Option<i32>>()).prop_map(
            |(at, what, who, detail, milli_score, milli_limit)| TrailStep {
                milli_score,
                milli_limit,
                ..TrailStep::new(UnixTime(at), what, who, detail)
            },
        )
    }

    proptest! {
        #[test]
        fn steps_come_back_as_they_were(steps in proptest::collection::vec(step(), 0..MAX_STEPS)) {
            prop_assert_eq!(unpack(&pack(&steps)), steps);
        }

        #[test]
        fn whatever_stands_there_is_read_within_bounds(octets in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(unpack(&octets).len() <= MAX_STEPS);
        }

        #[test]
        fn a_part_of_the_octets_is_a_beginning_of_the_steps(
            steps in proptest::collection::vec(step(), 1..8), share in 0.0..1.0f64,
        ) {
            let octets = pack(&steps);
            let part = unpack(&octets[..(octets.len() as f64 * share) as usize]);
            prop_assert_eq!(&part[..], &steps[..part.len()]);
        }
    }
}
