//! When another attempt is made: the conditions of a retry, and what a hedge waits for.

use std::fmt;

use http::StatusCode;

use super::{NotationError, header, show_duration, units, wrong};
use crate::{
    model::{HedgeAfter, RetryOn},
    suggest,
};

/// Codes of gRPC by their number (grpc/doc/statuscodes.md).
pub(super) const GRPC: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid-argument",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

pub(super) fn condition(text: &str) -> Result<RetryOn, NotationError> {
    if let Some(on) = RetryOn::of(text) {
        return Ok(on);
    }
    if let Some(name) = text.strip_prefix("header:") {
        return header::name_in(name).map(RetryOn::Header);
    }
    if let Some(code) = text.strip_prefix("grpc:") {
        let number = GRPC
            .iter()
            .position(|name| *name == code)
            .or_else(|| code.parse::<usize>().ok())
            .filter(|number| (1..GRPC.len()).contains(number));
        let Some(number) = number else {
            let help = match suggest::nearest(code, GRPC) {
                Some(near) => format!("did you mean `grpc:{near}`?"),
                None => "a number from 1 to 16, or a name such as `grpc:unavailable`".into(),
            };
            return wrong(format!("`{code}` isn't a gRPC status that can be retried"), help);
        };
        return Ok(RetryOn::GrpcStatus(number as u16));
    }
    let code = text.parse::<u16>().ok().filter(|code| (400..600).contains(code));
    let Some(status) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
        let words = || RetryOn::WORDS.iter().map(|(word, _)| *word);
        let help = match suggest::nearest(text, words()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "{}, a status from 400 to 599, `header:NAME` or `grpc:STATUS`",
                words().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            ),
        };
        return wrong("{} isn't a condition for a retry", help);
    };
    Ok(RetryOn::Status(status))
}

/// A condition in the notation of the file.
impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => f.write_str(status.as_str()),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::GrpcStatus(code) => match GRPC.get(usize::from(*code)) {
                Some(name) => write!(f, "grpc:{name}"),
                None => write!(f, "grpc:{code}"),
            },
            other => f.write_str(other.word().unwrap_or_default()),
        }
    }
}

pub(super) fn hedge(text: &str) -> Result<Option<HedgeAfter>, NotationError> {
    if text == "off" {
        return Ok(None);
    }
    let Some(percent) = text.strip_prefix('p') else {
        return units::positive(text).map(|time| Some(HedgeAfter::Time(time))).map_err(|wrong| {
            NotationError { help: "a percentile such as `p95`, or a duration such as `50ms`".into(), ..wrong }
        });
    };
    let digits = percent.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match percent.parse::<f64>() {
        Ok(percent) if digits && (50.0..100.0).contains(&percent) => {
            // Thousandths of a percent, so that p99.9 is 0.999.
            Ok(Some(HedgeAfter::Percentile((percent * 1e3).round() / 1e5)))
        }
        _ => wrong("{} isn't a percentile to hedge after", "from `p50` to `p99.9`"),
    }
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A binary share is exact to a thousandth of a percent.
            Self::Percentile(share) => write!(f, "p{}", (share * 1e5).round() / 1e3),
            Self::Time(time) => f.write_str(&show_duration(*time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_words_statuses_headers_and_grpc_codes() {
        let condition = |text: &str| super::condition(text).unwrap();
        assert_eq!(condition("503"), RetryOn::Status(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(condition("grpc:unavailable"), RetryOn::GrpcStatus(14));
        assert_eq!(condition("grpc:14"), RetryOn::GrpcStatus(14));
        assert!(super::condition("conect-failure").unwrap_err().help.contains("connect-failure"));
        for text in ["200", "grpc:0", "grpc:99", "header:", "", "5x"] {
            assert!(super::condition(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_condition_reads_back_as_it_is_shown() {
        for text in RetryOn::WORDS.iter().map(|(word, _)| *word).chain(["503", "header:x-a", "grpc:internal"])
        {
            assert_eq!(condition(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_hedge_comes_after_a_percentile_or_a_time() {
        let after = |text: &str| hedge(text).unwrap();
        assert_eq!(after("p99.9").unwrap().to_string(), "p99.9");
        assert_eq!(after("p95"), Some(HedgeAfter::Percentile(0.95)));
        assert_eq!(after("50ms").unwrap().to_string(), "50ms");
        assert_eq!(after("off"), None);
        for text in ["p100", "p49", "p", "p-95", "p1e1", "95", "0s", ""] {
            assert!(hedge(text).is_err(), "{text}");
        }
    }
}
