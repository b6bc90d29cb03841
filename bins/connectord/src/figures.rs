//! Numbers as people read them.

use std::time::Duration;

/// `12,408`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 message`, `2 messages`, `12,408 messages`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Decimal units, three digits: `0 B`, `999 B`, `1.24 kB`, `48.1 MB`, `481 GB`.
pub fn octets(number: u64) -> String {
    scaled(number, 3)
}

/// Decimal units, two digits: `1.8 MB/s`; more would only flicker.
pub fn rate(octets_per_second: u64) -> String {
    format!("{}/s", scaled(octets_per_second, 2))
}

/// Three digits at most, and decimals as long as there are fewer than `digits` of them.
fn scaled(number: u64, digits: u32) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let number = u128::from(number);
    let mut unit = 1000_u128;
    for name in UNITS {
        for (whole, decimals) in [(10, digits - 1), (100, digits.saturating_sub(2)), (1000, 0)] {
            let scale = 10_u128.pow(decimals);
            let rounded = (number * scale * 2 + unit) / (unit * 2);
            if rounded < whole * scale {
                let (before, after) = (rounded / scale, rounded % scale);
                return match decimals {
                    0 => format!("{before} {name}"),
                    _ => format!("{before}.{after:0width$} {name}", width = decimals as usize),
                };
            }
        }
        unit *= 1000;
    }
    unreachable!("2^64 octets are 18.4 EB")
}

/// `84 ms`, `1.2 s`, `42 s`, `3 min`, `5 h`, `6 d`.
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let rounded = |unit: u128| (millis * 2 + unit) / (unit * 2);
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..9950 => format!("{}.{} s", rounded(100) / 10, rounded(100) % 10),
        9950..59_500 => format!("{} s", rounded(1000)),
        59_500..3_570_000 => format!("{} min", rounded(60_000)),
        3_570_000..84_600_000 => format!("{} h", rounded(3_600_000)),
        _ => format!("{} d", rounded(86_400_000)),
    }
}

/// How long something may still take, in steps that do not pretend to know: `about 10 s`, 30 s, 1 min, 2, 5, then
/// fives, then hours.
pub fn about(left: Duration) -> String {
    let seconds = left.as_secs();
    match seconds {
        0..=10 => "about 10 s".into(),
        11..=30 => "about 30 s".into(),
        31..=60 => "about 1 min".into(),
        61..=120 => "about 2 min".into(),
        121..=3300 => format!("about {} min", seconds.div_ceil(300) * 5),
        _ => format!("about {} h", count(seconds.div_ceil(3600))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted() {
        let shown = [0, 7, 999, 1000, 12_408, 1_000_000, u64::MAX].map(count);
        assert_eq!(shown, ["0", "7", "999", "1,000", "12,408", "1,000,000", "18,446,744,073,709,551,615"]);
        assert_eq!(counted(1, "message", "messages"), "1 message");
        assert_eq!(counted(0, "message", "messages"), "0 messages");
    }

    #[test]
    fn octets_have_three_digits_and_decimal_units() {
        let shown =
            [0, 999, 1000, 1240, 9994, 9995, 48_100_000, 99_949, 99_950, 999_499, 999_500, u64::MAX].map(octets);
        assert_eq!(
            shown,
            [
                "0 B", "999 B", "1.00 kB", "1.24 kB", "9.99 kB", "10.0 kB", "48.1 MB", "99.9 kB", "100 kB", "999 kB",
                "1.00 MB", "18.4 EB"
            ]
        );
    }

    #[test]
    fn a_rate_has_two_digits() {
        let shown = [0, 1_840_000, 9_960_000, 48_100_000, 481_000_000].map(rate);
        assert_eq!(shown, ["0 B/s", "1.8 MB/s", "10 MB/s", "48 MB/s", "481 MB/s"]);
    }

    #[test]
    fn a_duration_has_one_unit() {
        let shown = [0, 84, 999, 1000, 1249, 9949, 9950, 59_499, 59_500, 180_000, 3_569_999, 3_570_000, 18_000_000];
        assert_eq!(
            shown.map(|millis| duration(Duration::from_millis(millis))),
            [
                "0 ms", "84 ms", "999 ms", "1.0 s", "1.2 s", "9.9 s", "10 s", "59 s", "1 min", "3 min", "59 min",
                "1 h", "5 h"
            ]
        );
        assert_eq!(duration(Duration::from_secs(6 * 86_400)), "6 d");
        assert!(duration(Duration::MAX).ends_with(" d"));
    }

    #[test]
    fn what_is_left_is_told_in_steps() {
        let shown = [0, 11, 60, 61, 121, 301, 3300, 3301, 7201].map(|seconds| about(Duration::from_secs(seconds)));
        let known = ["10 s", "30 s", "1 min", "2 min", "5 min", "10 min", "55 min", "1 h", "3 h"];
        assert_eq!(shown, known.map(|left| format!("about {left}")));
    }
}
