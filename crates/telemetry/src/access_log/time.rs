//! A point in time as RFC 3339 text in UTC, with milliseconds.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Shows `2026-11-21T08:00:00.123Z`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogTimestamp(pub(crate) SystemTime);

impl LogTimestamp {
    /// Its text, made without the formatter, because each line of a log needs one.
    pub(super) fn text(self) -> [u8; 24] {
        // A clock before 1970 or after 9999 is wrong; such a time is shown as the first or the last possible one.
        const LAST: Duration = Duration::from_millis(253_402_300_799_999);
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).min(LAST);
        let (days, second) = (since.as_secs() / 86_400, (since.as_secs() % 86_400) as u32);
        let (year, month, day) = date(days);
        let (hour, minute, second, millis) =
            (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
        let digit = |number: u32| b'0' + (number % 10) as u8;
        let two = |number: u32| [digit(number / 10), digit(number)];
        let year = year as u32;
        let ([y0, y1], [y2, y3], [o0, o1], [d0, d1]) =
            (two(year / 100), two(year), two(month as u32), two(day as u32));
        let ([h0, h1], [m0, m1], [s0, s1]) = (two(hour), two(minute), two(second));
        let (n0, [n1, n2]) = (digit(millis / 100), two(millis));
        [
            y0, y1, y2, y3, b'-', o0, o1, b'-', d0, d1, b'T', h0, h1, b':', m0, m1, b':', s0, s1, b'.', n0,
            n1, n2, b'Z',
        ]
    }
}

impl fmt::Display for LogTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

/// The year, month and day of the proleptic Gregorian calendar, from the days since 1970-01-01. Years are counted from March here, so that
/// the leap day is the last day of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
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
        let show = |millis| LogTimestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)).to_string();
        // Each value was checked with `date -u -d @SECONDS`.
        assert_eq!(show(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(show(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(show(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(show(951_868_800_000), "2000-03-01T00:00:00.000Z");
        assert_eq!(show(1_795_248_000_123), "2026-11-21T08:00:00.123Z");
        assert_eq!(show(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(show(253_402_300_800_000), "9999-12-31T23:59:59.999Z", "the last that RFC 3339 can write");
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
