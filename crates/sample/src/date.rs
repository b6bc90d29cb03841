use std::time::{SystemTime, UNIX_EPOCH};

/// IMAP's date-time in UTC (RFC 9051 §9): `02-Jan-2026 03:04:05 +0000`, the day filled with a space.
pub(crate) fn internal_date(at: SystemTime) -> String {
    let (day, month, year, time) = calendar(at);
    format!("{day:2}-{month}-{year} {time} +0000")
}

/// The date of a header field in UTC (RFC 5322 §3.3): `2 Jan 2026 03:04:05 +0000`.
pub(crate) fn message_date(at: SystemTime) -> String {
    let (day, month, year, time) = calendar(at);
    format!("{day} {month} {year} {time} +0000")
}

/// Day, month, year and time of day.
fn calendar(at: SystemTime) -> (u64, &'static str, u64, String) {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that the leap day is the last of a year of 365.2425 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let name = MONTHS[usize::try_from(month).expect("at most 12") - 1];
    (day, name, year, format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        let date = |seconds| internal_date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(date(0), " 1-Jan-1970 00:00:00 +0000");
        assert_eq!(date(951_782_400), "29-Feb-2000 00:00:00 +0000");
        assert_eq!(date(1_767_323_045), " 2-Jan-2026 03:04:05 +0000");
        assert_eq!(date(4_102_444_799), "31-Dec-2099 23:59:59 +0000");
        assert_eq!(message_date(UNIX_EPOCH + Duration::from_secs(1_767_323_045)), "2 Jan 2026 03:04:05 +0000");
    }
}
