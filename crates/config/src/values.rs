//! Texts with a form of their own: times, sizes, fractions, hours. All are total, and say what they expected.

use std::time::Duration;

use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case};
use nom::character::complete::{char, digit1, multispace0};
use nom::combinator::{all_consuming, map_res, opt, value};
use nom::multi::fold_many1;
use nom::sequence::{delimited, preceded, separated_pair, terminated};
use nom::{IResult, Parser};

use crate::QuietHours;
use crate::model::Reserve;

/// Reads `7d`, `12h`, `30m`, `90s`, `2w` or several of them, `1h 30m`; at most some 500 billion years.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let part =
        (terminated(number, multispace0), terminated(unit_of_time, multispace0)).map(|(n, unit)| n.checked_mul(unit));
    let sum = fold_many1(part, || Some(0_u64), |sum, part| sum?.checked_add(part?));
    whole(preceded(multispace0, sum), text).flatten().map(Duration::from_secs)
}

fn unit_of_time(input: &str) -> IResult<&str, u64> {
    alt((
        value(1, alt((tag("seconds"), tag("second"), tag("sec"), tag("s")))),
        value(60, alt((tag("minutes"), tag("minute"), tag("min"), tag("m")))),
        value(3600, alt((tag("hours"), tag("hour"), tag("h")))),
        value(86_400, alt((tag("days"), tag("day"), tag("d")))),
        value(7 * 86_400, alt((tag("weeks"), tag("week"), tag("w")))),
    ))
    .parse(input)
}

/// Writes a time the way [`duration`] reads it, in whole seconds.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            parts.push(format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Reads `25 MiB` or `50 MB`: whole numbers with a unit (powers of 1,024 with an `i`) or without (octets).
pub(crate) fn size(text: &str) -> Option<u64> {
    let unit = alt((
        value(1_u64 << 10, tag_no_case("kib")),
        value(1 << 20, tag_no_case("mib")),
        value(1 << 30, tag_no_case("gib")),
        value(1 << 40, tag_no_case("tib")),
        value(1_000, tag_no_case("kb")),
        value(1_000_000, tag_no_case("mb")),
        value(1_000_000_000, tag_no_case("gb")),
        value(1_000_000_000_000, tag_no_case("tb")),
        value(1, alt((tag_no_case("octets"), tag_no_case("bytes"), tag_no_case("b")))),
    ));
    let parser = delimited(multispace0, (number, opt(preceded(multispace0, unit))), multispace0);
    whole(parser, text).and_then(|(n, unit)| n.checked_mul(unit.unwrap_or(1)))
}

/// Reads `10%` as 0.1, in steps of a whole per cent.
pub(crate) fn percent(text: &str) -> Option<u8> {
    whole(delimited(multispace0, terminated(number, (multispace0, char('%'))), multispace0), text)
        .and_then(|n| u8::try_from(n).ok())
        .filter(|n| *n <= 100)
}

/// Reads `1 GiB`, `5%`, or both with a comma between, which is the smaller of the two.
pub(crate) fn reserve(text: &str) -> Option<Reserve> {
    let mut reserve = Reserve { octets: u64::MAX, percent: 100 };
    let parts: Vec<_> = text.splitn(3, ',').collect();
    let (mut sizes, mut percents) = (0, 0);
    for part in parts {
        if let Some(percent) = percent(part) {
            reserve.percent = percent;
            percents += 1;
        } else {
            reserve.octets = size(part)?;
            sizes += 1;
        }
    }
    (sizes < 2 && percents < 2).then_some(reserve)
}

/// Reads `22:00-06:00`.
pub(crate) fn quiet_hours(text: &str) -> Option<QuietHours> {
    let clock = |input| {
        let (input, (hour, minute)) = separated_pair(number, char(':'), number).parse(input)?;
        Ok((input, (hour <= 23 && minute <= 59).then_some((hour, minute))))
    };
    let range = separated_pair(clock, delimited(multispace0, char('-'), multispace0), clock);
    let (from, to) = whole(delimited(multispace0, range, multispace0), text)?;
    let minutes = |(hour, minute): (u64, u64)| u16::try_from(hour * 60 + minute).expect("at most 1439, checked above");
    let (from_minute, to_minute) = (minutes(from?), minutes(to?));
    (from_minute != to_minute).then_some(QuietHours { from_minute, to_minute })
}

fn number(input: &str) -> IResult<&str, u64> {
    map_res(digit1, str::parse).parse(input)
}

fn whole<'a, T>(
    parser: impl Parser<&'a str, Output = T, Error = nom::error::Error<&'a str>>,
    text: &'a str,
) -> Option<T> {
    all_consuming(parser).parse(text).ok().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_with_their_units_and_not_without() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        for (text, expected) in [
            ("90s", 90),
            ("30m", 1800),
            ("12h", 43_200),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            (" 15 min ", 900),
            ("0s", 0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "7", "7x", "-1d", "1.5h", "d", "7d,", "99999999999999999999s", "18446744073709551615w", "1m1"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_know_both_kinds_of_units() {
        for (text, expected) in [
            ("25 MiB", 26_214_400),
            ("50 MB", 50_000_000),
            ("1GiB", 1 << 30),
            ("2 kb", 2000),
            ("1024", 1024),
            ("7 b", 7),
        ] {
            assert_eq!(size(text), Some(expected), "{text}");
        }
        for text in ["", "MiB", "1.5 MB", "-1", "5 M", "99999999999 TiB", "5%"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn a_reserve_is_a_size_a_percentage_or_the_smaller_of_both() {
        assert_eq!(reserve("1 GiB, 5%"), Some(Reserve::default()));
        assert_eq!(reserve("5%"), Some(Reserve { octets: u64::MAX, percent: 5 }));
        assert_eq!(reserve("0"), Some(Reserve { octets: 0, percent: 100 }));
        for text in ["", "5%, 6%", "1, 2", "101%", "1 GiB, 5%, 7"] {
            assert_eq!(reserve(text), None, "{text}");
        }
    }

    #[test]
    fn quiet_hours_go_over_midnight() {
        assert_eq!(quiet_hours("22:00-06:30"), Some(QuietHours { from_minute: 1320, to_minute: 390 }));
        for text in ["", "22-6", "24:00-06:00", "22:60-06:00", "06:00-06:00", "22:00", "22:00-06:00x"] {
            assert_eq!(quiet_hours(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_that_was_written_is_read_again(seconds in 0_u64..u64::MAX / 2) {
            let span = Duration::from_secs(seconds);
            prop_assert_eq!(duration(&show_duration(span)), Some(span));
        }

        #[test]
        fn any_text_is_a_value_or_none(text in "\\PC{0,40}") {
            let _ = (duration(&text), size(&text), percent(&text), reserve(&text), quiet_hours(&text));
        }
    }
}
