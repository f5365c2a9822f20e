//! `grpc-timeout`: the caller's deadline, as requests carry it.
//!
//! **Rule.** `TimeoutValue TimeoutUnit`: 1 to 8 ASCII digits and one of `H M S m u n` (grpc/doc/PROTOCOL-HTTP2.md, "Requests"). Anything
//! else counts as absent, as in Envoy. attache passes on the remaining time, rounded down, in the finest unit that can hold it in 8 digits.

use std::time::Duration;

use attache_wire::{Fields, KnownName, header};
use http::HeaderValue;

const GRPC_TIMEOUT: KnownName = header::GRPC_TIMEOUT;
const UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];
const MAX_VALUE: u128 = 99_999_999;

/// How long the caller waits, if the header says so.
pub fn timeout(headers: &Fields) -> Option<Duration> {
    parse(headers.get(GRPC_TIMEOUT)?.as_bytes())
}

/// Sets the header to the remaining time.
pub fn set(headers: &mut Fields, remaining: Duration) {
    headers.insert(GRPC_TIMEOUT, format(remaining));
}

fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, nanos) = UNITS.iter().find(|(name, _)| name == unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // 99999999 H is more nanoseconds than a u64 can hold.
    let nanos = u128::from(value) * u128::from(*nanos);
    Some(Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32))
}

fn format(remaining: Duration) -> HeaderValue {
    let nanos = remaining.as_nanos();
    let (value, unit) = UNITS
        .iter()
        .map(|(unit, size)| (nanos / u128::from(*size), *unit))
        .find(|(value, _)| *value <= MAX_VALUE)
        .unwrap_or((MAX_VALUE, b'H'));
    HeaderValue::try_from(format!("{value}{}", char::from(unit))).unwrap_or(HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_and_digits_are_those_of_the_specification() {
        let cases: [(&str, Option<Duration>); 15] = [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("100000000n", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            (" 5S", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_time_that_is_passed_on_is_never_longer_and_little_shorter(nanos in 0..u64::MAX) {
            let remaining = Duration::from_nanos(nanos);
            let passed = parse(format(remaining).as_bytes()).unwrap();
            prop_assert!(passed <= remaining);
            prop_assert!(remaining.as_secs_f64() - passed.as_secs_f64() <= remaining.as_secs_f64() * 1e-5);
        }

        #[test]
        fn no_bytes_cause_a_panic(value: Vec<u8>) {
            let _ = parse(&value);
        }
    }
}
