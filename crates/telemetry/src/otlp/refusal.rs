//! Interprets a collector's response to an export (OTLP specification, "Failures" and "OTLP/HTTP Throttling").

use std::{fmt, time::Duration};

use attache_rpc::grpc::GrpcStatus;
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use prost::Message;

/// Why an export failed.
#[derive(Debug)]
pub(super) struct ExportFailure {
    pub(super) why: String,
    /// Another attempt may succeed.
    pub(super) again: bool,
    /// How long the collector asks attache to wait.
    pub(super) wait: Option<Duration>,
}

impl ExportFailure {
    /// There was no response; another attempt may succeed.
    pub(super) fn passing(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), again: true, wait: None }
    }

    /// Another attempt would not succeed.
    pub(super) fn lasting(why: String) -> Self {
        Self { why, again: false, wait: None }
    }

    /// An HTTP status other than 200. Four of them allow another attempt, and `Retry-After` says when.
    pub(super) fn http(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body.get(..200).unwrap_or(body)).into_owned();
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Self {
            why: format!("the collector answered {status}: {text}"),
            again: matches!(status.as_u16(), 429 | 502 | 503 | 504),
            wait: seconds.map(Duration::from_secs),
        }
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct StatusDetails {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// How a gRPC call ended. The status is in its trailers, or in its head if it has no body.
pub(super) fn grpc(head: &HeaderMap, trailers: &HeaderMap) -> Result<(), ExportFailure> {
    let Err(status) = GrpcStatus::check(head, trailers) else { return Ok(()) };
    let details = trailers.get("grpc-status-details-bin").or_else(|| head.get("grpc-status-details-bin"));
    let wait = details.and_then(|details| retry_info(details.to_str().ok()?));
    // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS. RESOURCE_EXHAUSTED allows another attempt only if the
    // collector says that it will recover.
    let again = match status.code {
        Some(1 | 4 | 10 | 11 | 14 | 15) => true,
        Some(8) => wait.is_some(),
        _ => false,
    };
    Err(ExportFailure { why: format!("the collector answered with {status}"), again, wait })
}

/// The delay of a `RetryInfo` among the details of a status.
fn retry_info(details: &str) -> Option<Duration> {
    let bytes = STANDARD_NO_PAD.decode(details).or_else(|_| STANDARD.decode(details)).ok()?;
    let status = StatusDetails::decode(&bytes[..]).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).ok()?;
    Some(Duration::new(seconds.min(3600), u32::try_from(delay.nanos).unwrap_or_default().min(999_999_999)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn ended(status: &str, details: Option<&str>) -> ExportFailure {
        let mut all = vec![("grpc-status", status)];
        all.extend(details.map(|details| ("grpc-status-details-bin", details)));
        grpc(&HeaderMap::new(), &headers(&all)).unwrap_err()
    }

    fn details(seconds: i64, nanos: i32) -> String {
        let info = RetryInfo { delay: Some(Delay { seconds, nanos }) };
        let any =
            Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
        STANDARD_NO_PAD.encode(StatusDetails { details: vec![any] }.encode_to_vec())
    }

    #[test]
    fn only_the_codes_of_the_specification_allow_another_attempt() {
        let again: Vec<u32> = (1..=16).filter(|code| ended(&code.to_string(), None).again).collect();
        assert_eq!(again, [1, 4, 10, 11, 14, 15]);
        assert!(grpc(&HeaderMap::new(), &headers(&[("grpc-status", "0")])).is_ok());
        assert!(!grpc(&HeaderMap::new(), &HeaderMap::new()).unwrap_err().again);
        let again = |status: u16| {
            ExportFailure::http(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"").again
        };
        assert_eq!((400..=599).filter(|status| again(*status)).collect::<Vec<_>>(), [429, 502, 503, 504]);
    }

    #[test]
    fn an_exhausted_collector_says_when_it_recovers() {
        let refusal = ended("8", Some(&details(2, 500_000_000)));
        assert!(refusal.again);
        assert_eq!(refusal.wait, Some(Duration::from_millis(2500)));
        assert!(!ended("8", Some("no base64!")).again);
        assert_eq!(ended("14", Some(&details(-1, 0))).wait, None);
        let refusal =
            ExportFailure::http(StatusCode::SERVICE_UNAVAILABLE, &headers(&[("retry-after", "7")]), b"later");
        assert_eq!(refusal.wait, Some(Duration::from_secs(7)));
    }
}
