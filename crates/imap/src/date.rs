//! INTERNALDATE (RFC 9051 §2.3.3 and §9, `date-time`).

use nom::bytes::complete::take_while_m_n;
use nom::character::complete::{char, one_of};
use nom::combinator::{all_consuming, map_opt, opt};
use nom::{IResult, Parser};

/// When the server received a message: the instant, and the server's own words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InternalDate {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub unix_seconds: i64,
    /// As it was on the wire, without quotes: `17-Jul-1996 02:44:25 -0700`.
    pub raw: String,
}

impl InternalDate {
    /// Reads `dd-Mon-yyyy hh:mm:ss +zzzz`, with a day of one digit or with a space before it; `None` for what is no
    /// date (day 31 of a short month included; Domino's `00-Jan-0000`, 2021), for offsets of 24 hours and more. A leap
    /// second counts as the next.
    ///
    /// ```
    /// let date = connectord_imap::InternalDate::parse(b"17-Jul-1996 02:44:25 -0700").unwrap();
    /// assert_eq!(date.unix_seconds, 837596665);
    /// ```
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let (_, unix_seconds) = all_consuming(date_time).parse(octets).ok()?;
        Some(Self { unix_seconds, raw: String::from_utf8(octets.to_vec()).ok()? })
    }
}

fn date_time(input: &[u8]) -> IResult<&[u8], i64> {
    let day = (opt(char(' ')), digits(1, 2)).map(|(_, day)| day);
    let time = (digits(2, 2), char(':'), digits(2, 2), char(':'), digits(2, 2));
    let zone = (char(' '), one_of("+-"), digits(2, 2), digits(2, 2));
    map_opt(
        (day, char('-'), month, char('-'), digits(4, 4), char(' '), time, zone),
        |(day, _, month, _, year, _, (hour, _, minute, _, second), (_, sign, zone_hours, zone_minutes))| {
            let in_range = (1..=days_in(year, month)).contains(&day)
                && hour < 24
                && minute < 60
                && second <= 60
                && zone_hours < 24
                && zone_minutes < 60;
            let offset = (zone_hours * 60 + zone_minutes) * if sign == '-' { -60 } else { 60 };
            in_range.then(|| days_from_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
        },
    )
    .parse(input)
}

fn digits<'a>(min: usize, max: usize) -> impl Parser<&'a [u8], Output = i64, Error = nom::error::Error<&'a [u8]>> {
    map_opt(take_while_m_n(min, max, |octet: u8| octet.is_ascii_digit()), |digits: &[u8]| {
        crate::parse::number(digits).and_then(|number| i64::try_from(number).ok())
    })
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

fn month(input: &[u8]) -> IResult<&[u8], i64> {
    let name = take_while_m_n(3, 3, |octet: u8| octet.is_ascii_alphabetic());
    map_opt(name, |name: &[u8]| {
        (1..).zip(MONTHS).find(|(_, month)| name.eq_ignore_ascii_case(month.as_bytes())).map(|(number, _)| number)
    })
    .parse(input)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar, by counting years from March.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<i64> {
        InternalDate::parse(text.as_bytes()).map(|date| date.unix_seconds)
    }

    #[test]
    fn dates_are_the_instants_they_name() {
        assert_eq!(seconds(" 1-Jan-1970 00:00:00 +0000"), Some(0));
        assert_eq!(seconds("1-jan-1970 00:00:00 +0100"), Some(-3600));
        assert_eq!(seconds("29-Feb-2000 12:00:00 +0000"), Some(951_825_600));
        assert_eq!(seconds("31-Dec-9999 23:59:60 -2359"), Some(253_402_387_140));
        assert_eq!(seconds("01-Jan-0000 00:00:00 +0000"), Some(-62_167_219_200));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "30-Feb-2000 12:00:00 +0000",
            "1-Foo-2000 00:00:00 +0000",
            "1-Jan-2000 24:00:00 +0000",
            "0-Jan-2000 00:00:00 +0000",
            "1-Jan-2000 00:00:00",
            "1-Jan-2000 00:00:00 +0000 x",
            "1-Jan-20000 0:0:0 +0000",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }
}
