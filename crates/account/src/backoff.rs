use std::time::Duration;

/// Shortest and longest wait between two attempts after failures.
const BASE: Duration = Duration::from_secs(60);
const CAP: Duration = Duration::from_secs(4 * 3600);

/// How long to wait after `failures` failures in a row: full jitter between one minute and a ceiling that doubles from
/// two minutes to four hours. `random` is any number, evenly distributed.
///
/// ```
/// use std::time::Duration;
/// use connectord_account::backoff;
/// assert_eq!(backoff(1, 0), Duration::from_secs(60));
/// assert_eq!(backoff(1, u64::MAX), Duration::from_secs(120));
/// assert_eq!(backoff(50, u64::MAX), Duration::from_secs(4 * 3600));
/// ```
pub fn backoff(failures: u32, random: u64) -> Duration {
    let ceiling = BASE.saturating_mul(1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX)).min(CAP);
    let room = (ceiling - BASE).as_secs();
    // A 128-bit product keeps the distribution even without a division by a power of two.
    let share = (u128::from(room) * u128::from(random) + u128::from(u64::MAX) / 2) / u128::from(u64::MAX);
    BASE + Duration::from_secs(u64::try_from(share).unwrap_or(room))
}

/// How long no login is tried after it was refused `refusals` times in a row: 1 hour, 4 hours, then a day, so that no
/// provider locks the mailbox.
pub fn login_hold(refusals: u32) -> Duration {
    Duration::from_secs(match refusals {
        0 | 1 => 3600,
        2 => 4 * 3600,
        _ => 24 * 3600,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(failures: u32, random: u64) {
            let wait = backoff(failures, random);
            prop_assert!(wait >= BASE && wait <= CAP);
        }
    }
}
