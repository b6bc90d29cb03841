use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01 00:00:00 UTC.
///
/// ```
/// use connectord_mail::UnixTime;
/// let time = UnixTime::parse_rfc5322(b"Sun, 22 Nov 2026 20:31:00 +0100 (CET)").unwrap();
/// assert_eq!(time.to_string(), "Sun, 22 Nov 2026 19:31:00 +0000");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub i64);

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

impl UnixTime {
    /// This time plus a span; stays at the ends of the range instead of wrapping.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_secs()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; zero when it is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Makes a time of a calendar date in UTC; `None` when there is no such date.
    pub fn from_civil(year: i64, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<Self> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let valid = (1900..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=*length.get(month as usize - 1)?).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        if !valid {
            return None;
        }
        // Days since the epoch, by eras of 400 years that start in March, so that the leap day comes last.
        let year = if month <= 2 { year - 1 } else { year };
        let (era, month) = (year.div_euclid(400), (i64::from(month) + 9) % 12);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
        let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
        Some(Self(days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)))
    }

    /// Reads a date as in a Date or Received field (RFC 5322 §3.3), old two-digit years and zone names included.
    pub fn parse_rfc5322(text: &[u8]) -> Option<Self> {
        let text = text.get(..text.len().min(128))?;
        let text = std::str::from_utf8(text).ok()?;
        let text = text.split_once(',').map_or(text, |(_, rest)| rest);
        let mut words = text.split_ascii_whitespace();
        let day = words.next()?.parse().ok()?;
        let month = words.next()?;
        let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month))? as u32 + 1;
        let year: i64 = words.next()?.parse().ok()?;
        // RFC 5322 §4.3
        let year = match year {
            0..=49 => year + 2000,
            50..=999 => year + 1900,
            _ => year,
        };
        let mut clock = words.next()?.split(':').map(|part| part.parse::<u32>().ok());
        let (hour, minute) = (clock.next()??, clock.next()??);
        let second = clock.next().unwrap_or(Some(0))?;
        let local = Self::from_civil(year, month, day, hour, minute, second)?;
        Some(Self(local.0 - zone_seconds(words.next().unwrap_or("+0000"))))
    }

    fn civil(self) -> (i64, usize, i64, i64, i64, i64, usize) {
        let (days, seconds) = (self.0.div_euclid(86_400), self.0.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let weekday = days.rem_euclid(7) as usize;
        (year, month as usize, day, seconds / 3600, seconds / 60 % 60, seconds % 60, weekday)
    }
}

/// As in a header field, in UTC (RFC 5322 §3.3).
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years that no date field can hold would not read back; clamped, as they come from broken clocks only.
        let clamped = Self(self.0.clamp(-2_208_988_800, 253_402_300_799));
        let (year, month, day, hour, minute, second, weekday) = clamped.civil();
        let (name, month) = (DAYS[weekday], MONTHS[month - 1]);
        write!(f, "{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} +0000")
    }
}

fn zone_seconds(zone: &str) -> i64 {
    let named = match zone.to_ascii_uppercase().as_str() {
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        _ => 0,
    };
    if named != 0 {
        return named * 3600;
    }
    let (sign, digits) = match zone.as_bytes() {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        _ => return 0,
    };
    match digits {
        [a, b, c, d] if digits.iter().all(u8::is_ascii_digit) => {
            let digit = |o: &u8| i64::from(o - b'0');
            sign * ((digit(a) * 10 + digit(b)) * 3600 + (digit(c) * 10 + digit(d)) * 60)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_as_people_write_them_are_read() {
        let read = |text: &str| UnixTime::parse_rfc5322(text.as_bytes()).map(|t| t.0);
        assert_eq!(read("Thu, 1 Jan 1970 00:00:00 +0000"), Some(0));
        assert_eq!(read("29 Feb 2024 12:00 EST"), Some(1_709_226_000));
        assert_eq!(read("21 Nov 97 09:55:06 -0600"), Some(880_127_706));
        assert_eq!(read("30 Feb 2024 12:00:00 +0000"), None);
        assert_eq!(read("Mon, 1 Foo 2024 12:00:00 +0000"), None);
        assert_eq!(read(""), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in -2_208_988_800i64..253_402_300_799) {
            prop_assert_eq!(UnixTime::parse_rfc5322(UnixTime(seconds).to_string().as_bytes()), Some(UnixTime(seconds)));
        }
    }
}
