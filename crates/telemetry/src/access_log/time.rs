//! A moment as RFC 3339 text in UTC, with milliseconds.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Shows `2026-11-21T08:00:00.123Z`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamp(pub(crate) SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A clock before 1970 is broken; its lines say 1970.
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let millis = since.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970-01-01. Counted in years that begin
/// in March, so that the leap day is the last of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days / 146_097, days % 146_097); // 400 years
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (era * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_shown_as_rfc_3339_says() {
        let show = |millis| Timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)).to_string();
        // Each checked with `date -u -d @SECONDS`.
        assert_eq!(show(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(show(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(show(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(show(951_868_800_000), "2000-03-01T00:00:00.000Z");
        assert_eq!(show(1_795_248_000_123), "2026-11-21T08:00:00.123Z");
        assert_eq!(show(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = (1969, 12, 31);
        for day in 0..200_000 {
            let (y, m, d) = date(day);
            let next =
                y == last.0 && (m == last.1 && d == last.2 + 1 || m == last.1 + 1 && d == 1 && last.2 >= 28);
            assert!(next || (y, m, d) == (last.0 + 1, 1, 1) && (last.1, last.2) == (12, 31), "{y}-{m}-{d}");
            last = (y, m, d);
        }
    }
}
