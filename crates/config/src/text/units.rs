//! Durations, sizes, ratios and weights.

use std::time::Duration;

use super::{Text, Wrong, wrong};

/// Longer ones are typing errors, and could overflow a clock.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// A duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length(pub(crate) Duration);

impl Text for Length {
    const FORMAT: &'static str = "attache-duration";
    const WHAT: &'static str = "a duration";
    const EXAMPLES: &'static [&'static str] = &["250ms", "1m30s"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        duration(text).map(Self)
    }
}

/// A duration that isn't zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Positive(pub(crate) Duration);

impl Text for Positive {
    const FORMAT: &'static str = "attache-positive-duration";
    const WHAT: &'static str = "a duration above zero";
    const EXAMPLES: &'static [&'static str] = &["250ms", "1m30s"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "off" {
            return wrong("this can't be switched off", "a duration such as `10s`");
        }
        match duration(text)? {
            Duration::ZERO => wrong("{} is no time at all", "a duration above zero"),
            duration => Ok(Self(duration)),
        }
    }
}

/// A duration that is long enough to be divided into steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window(pub(crate) Duration);

impl Text for Window {
    const FORMAT: &'static str = "attache-window";
    const WHAT: &'static str = "a duration of at least 10 ms";
    const EXAMPLES: &'static [&'static str] = &["10s"];

    fn parse(text: &str) -> Result<Self, Wrong> {
        const SHORTEST: Duration = Duration::from_millis(10);
        match Positive::parse(text)?.0 {
            duration if duration < SHORTEST => wrong("{} is too short", "at least `10ms`"),
            duration => Ok(Self(duration)),
        }
    }
}

/// A duration, or `off`; zero is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeout(pub(crate) Duration);

impl Text for Timeout {
    const FORMAT: &'static str = "attache-duration-or-off";
    const WHAT: &'static str = "a duration or `off`";
    const EXAMPLES: &'static [&'static str] = &["2s", "off"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text == "off" { Ok(Self(Duration::ZERO)) } else { duration(text).map(Self) }
    }
}

fn duration(text: &str) -> Result<Duration, Wrong> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        let number = text.trim_start_matches(['-', '+']);
        return wrong("{} has no unit", format!("`{number}s` or `{number}ms`?"));
    }
    let bad = || Wrong {
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
        if nanos > LONGEST.as_nanos() as f64 {
            return wrong("{} is too long", "at most `366d`; `off` or `0` where there shall be no bound");
        }
        total += Duration::from_nanos(nanos as u64);
        rest = after;
    }
    if text.is_empty() {
        return Err(bad());
    }
    if total > LONGEST {
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

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

impl Text for Size {
    const FORMAT: &'static str = "attache-size";
    const WHAT: &'static str = "a size";
    const EXAMPLES: &'static [&'static str] = &["64KiB", "1MB"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        size(text, 0, 1 << 30).map(Self)
    }
}

/// Bytes of a message head: below 8 KiB HTTP parsers have no room to read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadSize(pub(crate) usize);

impl Text for HeadSize {
    const FORMAT: &'static str = "attache-head-size";
    const WHAT: &'static str = "a size from 8KiB to 16MiB";
    const EXAMPLES: &'static [&'static str] = &["64KiB"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        size(text, 8 << 10, 16 << 20).map(Self)
    }
}

/// An HTTP/2 window (RFC 9113 section 6.9): at least the 65,535 bytes every connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowSize(pub(crate) u32);

impl Text for WindowSize {
    const FORMAT: &'static str = "attache-window-size";
    const WHAT: &'static str = "a size from 65535 to 2147483647 bytes";
    const EXAMPLES: &'static [&'static str] = &["256KiB"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        size(text, 65_535, (1 << 31) - 1).map(|size| Self(size as u32))
    }
}

fn size(text: &str, low: u64, high: u64) -> Result<usize, Wrong> {
    let bad = || Wrong { what: "{} isn't a size".into(), help: "such as `64KiB`, `1MiB` or `1MB`".into() };
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
            return wrong("{} has half a unit", format!("`{number}{letter}iB` or `{number}{letter}B`?"));
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

/// A share, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio(pub(crate) f64);

impl Text for Ratio {
    const FORMAT: &'static str = "attache-ratio";
    const WHAT: &'static str = "a ratio";
    const EXAMPLES: &'static [&'static str] = &["20%", "0.2"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let bad = || Wrong { what: "{} isn't a ratio".into(), help: "such as `20%` or `0.2`".into() };
        let value = match text.strip_suffix('%') {
            Some(number) => decimal(number).ok_or_else(bad)? / 100.0,
            None => decimal(text).ok_or_else(bad)?,
        };
        if value > 1.0 {
            let help = if text.ends_with('%') { String::new() } else { format!(", or `{text}%`?") };
            return wrong("{} is more than the whole", format!("from `0%` to `100%`{help}"));
        }
        Ok(Self(value))
    }
}

/// The percentage of a ratio.
pub(crate) fn show_ratio(ratio: f64) -> String {
    format!("{}%", (ratio * 1e6).round() / 1e4)
}

/// A weight in a split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Weight {
    Percent(f64),
    Plain(u32),
}

impl Text for Weight {
    const FORMAT: &'static str = "attache-weight";
    const WHAT: &'static str = "a percentage or a weight";
    const EXAMPLES: &'static [&'static str] = &["95%", "3"];
    const NUMBERS: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let bad = "`95%`, or a whole number as a relative weight up to 1000000";
        match text.strip_suffix('%') {
            Some(number) => match decimal(number) {
                Some(percent) if percent <= 100.0 => Ok(Self::Percent(percent)),
                _ => wrong("{} isn't a percentage", "from `0%` to `100%`"),
            },
            None => match text.parse::<u32>() {
                Ok(weight) if weight <= 1_000_000 => Ok(Self::Plain(weight)),
                _ => wrong("{} isn't a weight", bad),
            },
        }
    }
}

/// Requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) requests: u32,
    pub(crate) per: Duration,
}

impl Text for Rate {
    const FORMAT: &'static str = "attache-rate";
    const WHAT: &'static str = "a rate";
    const EXAMPLES: &'static [&'static str] = &["100/s", "5000/m"];

    fn parse(text: &str) -> Result<Self, Wrong> {
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
            Ok(requests @ 1..) => Ok(Self { requests, per: Duration::from_secs(per) }),
            _ => wrong("{} isn't a rate", help),
        }
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
        assert_eq!(Ratio::parse("20%").unwrap(), Ratio(0.2));
        assert_eq!(Ratio::parse("0.2").unwrap(), Ratio(0.2));
        assert!(Ratio::parse("20").unwrap_err().help.contains("20%"));
        for text in ["nan", "inf", "-1%", "101%", "%", ""] {
            assert!(Ratio::parse(text).is_err(), "{text}");
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
