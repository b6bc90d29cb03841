use std::sync::Arc;
use std::time::Duration;

use connectord_mail::UnixTime;

const DAY_MINUTES: u16 = 1440;

/// A part of the day in which nothing is checked regularly.
#[derive(Clone)]
pub(super) struct Quiet {
    pub(super) from_minute: u16,
    pub(super) to_minute: u16,
    pub(super) minute_of_day: Arc<dyn Fn(UnixTime) -> u16 + Send + Sync>,
}

impl Quiet {
    /// How long it is quiet yet; zero when it is not.
    pub(super) fn left(&self, now: UnixTime) -> Duration {
        let minute = (self.minute_of_day)(now) % DAY_MINUTES;
        let since_begin = (minute + DAY_MINUTES - self.from_minute % DAY_MINUTES) % DAY_MINUTES;
        let length = (self.to_minute % DAY_MINUTES + DAY_MINUTES - self.from_minute % DAY_MINUTES) % DAY_MINUTES;
        Duration::from_secs(60 * u64::from(length.saturating_sub(since_begin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(from_minute: u16, to_minute: u16, minute: u16) -> u64 {
        let quiet = Quiet { from_minute, to_minute, minute_of_day: Arc::new(move |_| minute) };
        quiet.left(UnixTime(0)).as_secs() / 60
    }

    #[test]
    fn quiet_hours_may_go_over_midnight() {
        assert_eq!([1319, 1320, 1439, 0, 359, 360].map(|minute| left(1320, 360, minute)), [0, 480, 361, 360, 1, 0]);
        assert_eq!([59, 60, 119, 120].map(|minute| left(60, 120, minute)), [0, 60, 1, 0]);
    }
}
