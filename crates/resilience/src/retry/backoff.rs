//! How long to wait before another attempt.
//!
//! **Rule.** Full jitter: a uniform choice below `backoff.base` × 2^(n-1) for the n-th retry, at most `backoff.max`
//! (Brooker, "Exponential Backoff And Jitter", 2015; Envoy's `retry_back_off`). Two exceptions:
//! - if nothing of an attempt was sent, its first retry starts at once if there is an endpoint that was not tried: the
//!   wait would protect only the failing endpoint, which gets no further attempt. Envoy waits here too;
//! - the `Retry-After` (RFC 9110 section 10.2.3) of a 429 or 503 is the shortest wait, even if it is longer than
//!   `backoff.max`. If it doesn't end before the deadline, or is longer than [`MAX_RETRY_AFTER`], the caller gets the
//!   response. It is a number of seconds or a date; a date counts from the response's own `Date`, if it has one, since
//!   clocks differ; a past date is no wait. Any other value counts as absent, and of several the first counts.

use std::time::{Duration, SystemTime};

use attache_config::model;
use attache_wire::{
    Fields,
    header::{DATE, RETRY_AFTER},
};
use http::StatusCode;

/// With a longer `Retry-After` than this the caller gets the response.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The wait before the n-th retry, n counted from 1.
pub(super) fn wait(retry: &model::Retry, n: u32) -> Duration {
    longest(retry, n).mul_f64(fastrand::f64())
}

/// The limit of the random wait before the n-th retry.
fn longest(retry: &model::Retry, n: u32) -> Duration {
    let doubled = 1u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
    retry.backoff.base.saturating_mul(doubled).min(retry.backoff.max)
}

/// The wait that a 429 or 503 asks for.
pub(super) fn asked(status: StatusCode, headers: &Fields) -> Option<Duration> {
    if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        return None;
    }
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    // All three forms of RFC 9110 section 5.6.7.
    let until = httpdate::parse_http_date(text).ok()?;
    let date = headers.get(DATE).and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
    Some(until.duration_since(date.unwrap_or_else(SystemTime::now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_doubles_from_25_to_250_milliseconds() {
        let retry = model::Retry::default();
        let bounds: Vec<_> = (1..=6).map(|n| longest(&retry, n).as_millis()).collect();
        assert_eq!(bounds, [25, 50, 100, 200, 250, 250]);
    }

    #[test]
    fn waits_are_spread_over_all_of_the_time_below_the_longest() {
        let retry = model::Retry::default();
        let waits: Vec<_> = (0..200).map(|_| wait(&retry, 1)).collect();
        let (quarter, most) = (longest(&retry, 1) / 4, longest(&retry, 1).mul_f64(0.75));
        assert!(waits.iter().any(|wait| *wait < quarter) && waits.iter().any(|wait| *wait > most));
    }

    #[test]
    fn only_429_and_503_are_read() {
        let with =
            |value: &'static str| Fields::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(value))]);
        let read = |status: u16, value| asked(StatusCode::from_u16(status).unwrap(), &with(value));
        assert_eq!(read(503, "2"), Some(Duration::from_secs(2)));
        assert_eq!(read(429, "0"), Some(Duration::ZERO));
        assert_eq!(read(500, "2"), None);
        assert_eq!(read(503, "-2"), None);
        assert_eq!(read(503, "Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO), "past");
        for no_date in [
            "",
            " ",
            "in a minute",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
        ] {
            assert_eq!(read(503, no_date), None, "{no_date}");
        }
        assert!(read(503, "Tue, 31 Dec 2999 23:59:59 GMT") > Some(MAX_RETRY_AFTER));
        assert_eq!(read(503, "99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn a_date_counts_from_the_responses_own_clock() {
        let mut headers = Fields::new();
        headers.insert(DATE, http::HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        for text in
            ["Sun, 06 Nov 1994 08:49:39 GMT", "Sunday, 06-Nov-94 08:49:39 GMT", "Sun Nov  6 08:49:39 1994"]
        {
            headers.insert(RETRY_AFTER, http::HeaderValue::from_str(text).unwrap());
            assert_eq!(asked(StatusCode::SERVICE_UNAVAILABLE, &headers), Some(Duration::from_secs(2)));
        }
    }

    proptest! {
        #[test]
        fn never_longer_than_the_longest(base in 0..u64::MAX, max in 0..1_000_000u64, n: u32) {
            let retry = model::Retry {
                backoff: model::Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) },
                ..model::Retry::default()
            };
            prop_assert!(wait(&retry, n) <= retry.backoff.max);
        }
    }
}
