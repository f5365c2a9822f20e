//! Dates in headers: RFC 9110 section 5.6.7.
//!
//! All three forms are read, as a recipient must: `Sun, 06 Nov 1994 08:49:37 GMT`, RFC 850's
//! `Sunday, 06-Nov-94 08:49:37 GMT` and asctime's `Sun Nov  6 08:49:37 1994`. The name of the day isn't compared with the date.
//! A year of two digits that seems to be more than 50 years ahead is of the century before.

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAYS_850: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Seconds since the Unix epoch; `now` is the present in them.
pub(super) fn parse(text: &str, now: i64) -> Option<i64> {
    let Some((day, rest)) = text.split_once(", ") else {
        return asctime(text);
    };
    let rest = rest.strip_suffix(" GMT")?;
    let (date, time) = rest.rsplit_once(' ')?;
    let time = time_of_day(time)?;
    if DAYS.contains(&day) {
        let mut parts = date.split(' ');
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        let year = digits(year, 4).filter(|_| parts.next().is_none())?;
        return seconds(year, month, digits(day, 2)?, time);
    }
    let mut parts = date.split('-');
    let (number, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let year = digits(year, 2).filter(|_| parts.next().is_none() && DAYS_850.contains(&day))?;
    let this_year = 1970 + now.div_euclid(31_556_952);
    let year = this_year - this_year.rem_euclid(100) + year;
    let year = if year > this_year + 50 { year - 100 } else { year };
    seconds(year, month, digits(number, 2)?, time)
}

/// `Sun Nov  6 08:49:37 1994`: every field has its place.
fn asctime(text: &str) -> Option<i64> {
    let (day, rest) = text.split_at_checked(4)?;
    let (month, rest) = rest.split_at_checked(4)?;
    let (number, rest) = rest.split_at_checked(3)?;
    let (time, year) = rest.split_once(' ')?;
    let number = number.strip_suffix(' ')?;
    let number = number.strip_prefix(' ').map_or_else(|| digits(number, 2), |one| digits(one, 1))?;
    DAYS.contains(&day.strip_suffix(' ')?).then_some(())?;
    seconds(digits(year, 4)?, month.strip_suffix(' ')?, number, time_of_day(time)?)
}

/// `08:49:37`; the 60 is a leap second's.
fn time_of_day(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let mut next = |most| digits(parts.next()?, 2).filter(|value| *value <= most);
    let (hour, minute, second) = (next(23)?, next(59)?, next(60)?);
    parts.next().is_none().then_some(hour * 3600 + minute * 60 + second)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn seconds(year: i64, month: &str, day: i64, time: i64) -> Option<i64> {
    let (month, _) = (1i64..).zip(MONTHS).find(|(_, name)| *name == month)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1..=last).contains(&day).then(|| days(year, month, day) * 86_400 + time)
}

/// Days from the epoch, by years that begin in March (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the RFC.
    const EXAMPLE: i64 = 784_111_777;
    const IN_2026: i64 = 1_795_000_000;

    #[test]
    fn the_three_forms_of_the_rfc_are_one_moment() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse(text, IN_2026), Some(EXAMPLE), "{text}");
        }
    }

    #[test]
    fn two_digits_are_never_more_than_fifty_years_ahead() {
        let year = |yy: u32| parse(&format!("Monday, 01-Jan-{yy:02} 00:00:00 GMT"), IN_2026);
        let first_of = |year| Some(days(year, 1, 1) * 86_400);
        assert_eq!(year(26), first_of(2026));
        assert_eq!(year(76), first_of(2076));
        assert_eq!(year(77), first_of(1977));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29) + 1, days(2000, 3, 1));
        assert_eq!(days(2100, 2, 28) + 1, days(2100, 3, 1));
        assert_eq!(parse("Mon, 29 Feb 2100 00:00:00 GMT", IN_2026), None);
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "soon",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sonntag, 06-Nov-94 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun, 06 Nov +994 08:49:37 GMT",
        ] {
            assert_eq!(parse(text, IN_2026), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text, IN_2026);
        }
    }
}
