//! Durations, sizes, ratios and weights.

use std::time::Duration;

use super::{NotationError, wrong};

/// Longer ones are typing errors, and could overflow a clock.
const MAX_DURATION: Duration = Duration::from_hours(366 * 24);

pub(super) fn positive(text: &str) -> Result<Duration, NotationError> {
    if text == "off" {
        return wrong("this can't be switched off", "a duration such as `10s`");
    }
    match duration(text)? {
        Duration::ZERO => wrong("{} is zero", "a duration above zero"),
        duration => Ok(duration),
    }
}

pub(super) fn window(text: &str) -> Result<Duration, NotationError> {
    const MIN: Duration = Duration::from_millis(10);
    match positive(text)? {
        duration if duration < MIN => wrong("{} is too short", "at least `10ms`"),
        duration => Ok(duration),
    }
}

pub(super) fn timeout(text: &str) -> Result<Duration, NotationError> {
    if text == "off" { Ok(Duration::ZERO) } else { duration(text) }
}

pub(super) fn duration(text: &str) -> Result<Duration, NotationError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        let number = text.trim_start_matches(['-', '+']);
        return wrong("{} has no unit", format!("`{number}s` or `{number}ms`?"));
    }
    let bad = || NotationError {
        what: "{} isn't a duration".into(),
        help: "such as `250ms`, `2s`, `1m30s` or `2h`".into(),
    };
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            "" => return Err(bad()),
            _ => {
                return wrong(
                    "{} isn't a duration",
                    format!("`{unit}` is none of `us`, `ms`, `s`, `m`, `h`, `d`"),
                );
            }
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        // Whole nanoseconds, so that 0.1s is exactly 100ms.
        let nanos = (number * seconds * 1e9).round();
        if nanos > MAX_DURATION.as_nanos() as f64 {
            return wrong("{} is too long", "at most `366d`; `off` or `0` for no limit");
        }
        total += Duration::from_nanos(nanos as u64);
        rest = after;
    }
    if text.is_empty() {
        return Err(bad());
    }
    if total > MAX_DURATION {
        return wrong("{} is too long", "at most `366d`");
    }
    Ok(total)
}

/// The shortest text of a duration.
pub(crate) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    for (unit, size) in
        [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)]
    {
        if nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    format!("{}us", nanos / 1000)
}

/// A duration that is `off` at zero.
pub(crate) fn show_timeout(duration: Duration) -> String {
    if duration.is_zero() { "off".into() } else { show_duration(duration) }
}

pub(super) fn window_size(text: &str) -> Result<u32, NotationError> {
    size(text, 65_535, (1 << 31) - 1).map(|size| size as u32)
}

pub(super) fn size(text: &str, low: u64, high: u64) -> Result<usize, NotationError> {
    let bad =
        || NotationError { what: "{} isn't a size".into(), help: "such as `64KiB`, `1MiB` or `1MB`".into() };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "k" | "K" | "Ki" | "m" | "M" | "Mi" | "g" | "G" | "Gi" if !number.is_empty() => {
            let letter = unit.get(..1).unwrap_or_default().to_ascii_uppercase();
            return wrong(
                "{} has an incomplete unit",
                format!("`{number}{letter}iB` or `{number}{letter}B`?"),
            );
        }
        _ => return Err(bad()),
    };
    let bytes = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
    if bytes.fract() != 0.0 {
        return wrong("{} isn't a whole number of bytes", "");
    }
    if bytes < low as f64 {
        return wrong("{} is too small", format!("at least `{}`", show_size(low)));
    }
    if bytes > high as f64 {
        return wrong("{} is too large", format!("at most `{}`", show_size(high)));
    }
    Ok(bytes as usize)
}

/// The shortest text of a size.
pub(crate) fn show_size(bytes: u64) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

pub(super) fn ratio(text: &str) -> Result<f64, NotationError> {
    let bad = || NotationError { what: "{} isn't a ratio".into(), help: "such as `20%` or `0.2`".into() };
    let value = match text.strip_suffix('%') {
        Some(number) => decimal(number).ok_or_else(bad)? / 100.0,
        None => decimal(text).ok_or_else(bad)?,
    };
    if value > 1.0 {
        let help = if text.ends_with('%') { String::new() } else { format!(", or `{text}%`?") };
        return wrong("{} is more than 100%", format!("from `0%` to `100%`{help}"));
    }
    Ok(value)
}

/// The percentage of a ratio.
pub(crate) fn show_ratio(ratio: f64) -> String {
    format!("{}%", (ratio * 1e6).round() / 1e4)
}

/// A weight in a split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SplitWeight {
    Percent(f64),
    Plain(u32),
}

pub(super) fn weight(text: &str) -> Result<SplitWeight, NotationError> {
    let bad = "`95%`, or a whole number as a relative weight up to 1000000";
    match text.strip_suffix('%') {
        Some(number) => match decimal(number) {
            Some(percent) if percent <= 100.0 => Ok(SplitWeight::Percent(percent)),
            _ => wrong("{} isn't a percentage", "from `0%` to `100%`"),
        },
        None => match text.parse::<u32>() {
            Ok(weight) if weight <= 1_000_000 => Ok(SplitWeight::Plain(weight)),
            _ => wrong("{} isn't a weight", bad),
        },
    }
}

/// Requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestRate {
    pub(crate) requests: u32,
    pub(crate) per: Duration,
}

pub(super) fn rate(text: &str) -> Result<RequestRate, NotationError> {
    let help = "requests in a second, minute or hour: `100/s`, `5000/m` or `100000/h`";
    let Some((requests, unit)) = text.split_once('/') else {
        return wrong("{} isn't a rate", help);
    };
    let per = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return wrong("{} isn't a rate", help),
    };
    match requests.parse::<u32>() {
        Ok(requests @ 1..) => Ok(RequestRate { requests, per: Duration::from_secs(per) }),
        _ => wrong("{} isn't a rate", help),
    }
}

/// A plain decimal number; `f64` alone would take `inf`, `nan` and `1e9`.
fn decimal(text: &str) -> Option<f64> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        for (text, millis) in
            [("250ms", 250), ("1m30s", 90_000), ("2h", 7_200_000), ("1.5s", 1500), ("0", 0), ("0.1s", 100)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "5s5", "1e9s", "99999d", "5 s", "..s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024_or_1000_by_their_unit() {
        assert_eq!(size("64KiB", 0, u64::MAX).unwrap(), 65536);
        assert_eq!(size("1MB", 0, u64::MAX).unwrap(), 1_000_000);
        assert_eq!(size("100", 0, u64::MAX).unwrap(), 100);
        assert!(size("64K", 0, u64::MAX).unwrap_err().help.contains("64KiB"));
        assert!(size("1KiB", 8 << 10, u64::MAX).is_err());
    }

    #[test]
    fn a_ratio_is_a_percentage_or_a_fraction() {
        assert_eq!(show_ratio(ratio("20%").unwrap()), "20%");
        assert_eq!(show_ratio(ratio("0.2").unwrap()), "20%");
        assert!(ratio("20").unwrap_err().help.contains("20%"));
        for text in ["nan", "inf", "-1%", "101%", "%", ""] {
            assert!(ratio(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back_as_itself(millis in 0u64..1_000_000_000) {
            let length = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(length)).unwrap(), length);
        }

        #[test]
        fn a_shown_size_reads_back_as_itself(bytes in 0u64..1 << 30) {
            prop_assert_eq!(size(&show_size(bytes), 0, u64::MAX).unwrap() as u64, bytes);
        }
    }
}
