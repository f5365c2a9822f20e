//! Which outcomes are retried: as Envoy's `x-envoy-retry-on`, but decided by the exact error instead of a reset code.
//!
//! [`RetryOn`] says of each condition which errors and which responses meet it.
//!
//! Differences from Envoy: after a response, a request is retried only if its method may be sent twice (`methods`;
//! Envoy retries a POST on 503). A grpc-status is an exception: every gRPC call is a POST, so a route that names the
//! status allows it. A certificate that can't be verified is a connect failure, because another endpoint may have a
//! better one.
//!
//! **Never**: limits, open circuits, missing endpoints and whole-request deadlines; nor responses with which the next
//! proxy reports the same (`x-envoy-overloaded`, `x-envoy-ratelimited`, or an overload reason in `x-attache-reason`):
//! retries at every hop would make an overload worse.

use std::ops::RangeInclusive;

use attache_config::model::RetryOn;
use attache_telemetry::{Class, Reason};
use attache_upstream::{Error, SentPart};
use attache_wire::{Fields, KnownName, header};
use http::{HeaderName, StatusCode};

const GRPC_STATUS: KnownName = header::GRPC_STATUS;

/// Whether the request never reached an application: no connection was made, or the peer says that it did not process
/// the request.
pub(super) fn never_reached(error: &Error) -> bool {
    match error.sent {
        SentPart::Nothing => error.reason.is(Class::NoConnection) || error.reason.is(Class::Unprocessed),
        SentPart::Refused => true,
        SentPart::Request | SentPart::Response => false,
    }
}

/// Whether a failure meets a condition.
type ErrorTest = fn(&Error) -> bool;

/// The conditions of a route, ready to be checked.
#[derive(Debug, Default)]
pub(super) struct RetryConditions {
    errors: Vec<ErrorTest>,
    responses: Vec<ResponseTest>,
}

/// A response that meets a condition.
#[derive(Debug)]
enum ResponseTest {
    Status(RangeInclusive<u16>),
    Header(HeaderName),
    GrpcStatus(u16),
}

/// Which kind of condition a response meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConditionKind {
    /// By its status or a header.
    Http,
    /// By its grpc-status.
    Grpc,
}

impl RetryConditions {
    pub(super) fn new(on: &[RetryOn]) -> Self {
        let mut conditions = Self::default();
        for condition in on {
            let (error, response): (Option<ErrorTest>, _) = match condition {
                RetryOn::ConnectFailure => (Some(is_unconnected), None),
                RetryOn::RefusedStream => (Some(is_refused), None),
                RetryOn::ResetBeforeHeaders => (Some(is_reset), None),
                RetryOn::Reset => (Some(is_any), None),
                RetryOn::ServerError => (Some(is_any), Some(ResponseTest::Status(500..=599))),
                RetryOn::GatewayError => (Some(is_any), Some(ResponseTest::Status(502..=504))),
                RetryOn::Status(status) => {
                    (None, Some(ResponseTest::Status(status.as_u16()..=status.as_u16())))
                }
                RetryOn::Header(name) => (None, Some(ResponseTest::Header(name.clone()))),
                RetryOn::GrpcStatus(status) => (None, Some(ResponseTest::GrpcStatus(*status))),
            };
            conditions.errors.extend(error);
            conditions.responses.extend(response);
        }
        conditions
    }

    /// Whether this failure meets a condition. Whether a retry is safe is checked elsewhere.
    pub(super) fn error(&self, error: &Error) -> bool {
        self.errors.iter().any(|meets| meets(error))
    }

    /// Whether this response meets a condition.
    pub(super) fn response(&self, status: StatusCode, headers: &Fields) -> Option<ConditionKind> {
        let mut met = None;
        for answer in &self.responses {
            match answer {
                ResponseTest::Status(statuses) if statuses.contains(&status.as_u16()) => {
                    met = Some(ConditionKind::Http);
                }
                ResponseTest::Header(name) if headers.contains_key(name) => met = Some(ConditionKind::Http),
                ResponseTest::GrpcStatus(code) if met.is_none() && grpc_status(headers) == Some(*code) => {
                    met = Some(ConditionKind::Grpc);
                }
                _ => {}
            }
        }
        met.filter(|_| !is_overload(headers))
    }
}

/// The peer says that it did not process the request.
fn is_refused(error: &Error) -> bool {
    match error.reason {
        Reason::UpstreamRefusedStream => true,
        Reason::UpstreamReset => error.sent == SentPart::Refused,
        _ => false,
    }
}

/// The connection ended before a byte of the response.
fn is_reset(error: &Error) -> bool {
    error.reason == Reason::UpstreamReset && error.sent != SentPart::Refused
}

/// No connection was made.
fn is_unconnected(error: &Error) -> bool {
    error.sent == SentPart::Nothing && error.reason.is(Class::NoConnection)
}

fn is_any(error: &Error) -> bool {
    is_refused(error) || is_reset(error) || is_unconnected(error) || error.reason == Reason::PerTryTimeout
}

fn grpc_status(headers: &Fields) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

fn is_overload(headers: &Fields) -> bool {
    headers.contains_key("x-envoy-overloaded")
        || headers.contains_key("x-envoy-ratelimited")
        || headers.get("x-attache-reason").is_some_and(|word| {
            let mut overloads = Reason::ALL.iter().filter(|reason| reason.is(Class::Overload));
            overloads.any(|reason| word.as_bytes() == reason.as_str().as_bytes())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(on: RetryOn, reason: Reason, sent: SentPart) -> bool {
        RetryConditions::new(&[on]).error(&Error::new(reason, sent))
    }

    #[test]
    fn the_sent_part_and_the_reason_show_whether_a_request_reached_an_application() {
        let never = |reason, sent| never_reached(&Error::new(reason, sent));
        assert!(
            never(Reason::ConnectRefused, SentPart::Nothing)
                && never(Reason::UpstreamReset, SentPart::Nothing)
        );
        assert!(
            never(Reason::UpstreamRefusedStream, SentPart::Refused)
                && never(Reason::UpstreamReset, SentPart::Refused)
        );
        assert!(!never(Reason::CircuitOpen, SentPart::Nothing), "no other endpoint helps");
        assert!(
            !never(Reason::UpstreamReset, SentPart::Request)
                && !never(Reason::UpstreamReset, SentPart::Response)
        );
    }

    #[test]
    fn each_condition_is_met_by_its_own_errors_alone() {
        assert!(
            meets(RetryOn::RefusedStream, Reason::UpstreamReset, SentPart::Refused),
            "a GOAWAY below the stream"
        );
        assert!(!meets(RetryOn::RefusedStream, Reason::UpstreamReset, SentPart::Request));
        assert!(!meets(RetryOn::ResetBeforeHeaders, Reason::UpstreamReset, SentPart::Refused));
        assert!(meets(RetryOn::Reset, Reason::PerTryTimeout, SentPart::Request));
        assert!(!meets(RetryOn::ConnectFailure, Reason::PerTryTimeout, SentPart::Request));
        assert!(!meets(RetryOn::RefusedStream, Reason::PerTryTimeout, SentPart::Request));
        assert!(meets(RetryOn::ConnectFailure, Reason::ConnectTimeout, SentPart::Nothing));
        assert!(
            !meets(RetryOn::ConnectFailure, Reason::ConnectTimeout, SentPart::Request),
            "something was sent"
        );
        assert!(!meets(RetryOn::Reset, Reason::CircuitOpen, SentPart::Nothing));
        for any in [RetryOn::Reset, RetryOn::ServerError, RetryOn::GatewayError] {
            assert!(meets(any.clone(), Reason::UpstreamRefusedStream, SentPart::Refused));
            assert!(meets(any.clone(), Reason::UpstreamReset, SentPart::Request));
            assert!(meets(any.clone(), Reason::ConnectTimeout, SentPart::Nothing));
            assert!(meets(any, Reason::PerTryTimeout, SentPart::Request));
        }
    }

    fn response(on: &[RetryOn], fields: &[(&'static str, &'static str)]) -> Option<ConditionKind> {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        RetryConditions::new(on).response(StatusCode::SERVICE_UNAVAILABLE, &fields.collect())
    }

    #[test]
    fn a_status_that_meets_a_condition_counts_before_a_grpc_status() {
        let (http, grpc) = (RetryOn::ServerError, RetryOn::GrpcStatus(14));
        let fields = [("grpc-status", "14")];
        for on in [[http.clone(), grpc.clone()], [grpc.clone(), http]] {
            assert_eq!(response(&on, &fields), Some(ConditionKind::Http), "so a POST is not sent again");
        }
        assert_eq!(response(&[grpc], &fields), Some(ConditionKind::Grpc));
    }

    #[test]
    fn the_overload_of_the_next_proxy_meets_no_condition() {
        let on = [RetryOn::ServerError];
        for overload in [
            ("x-envoy-overloaded", "true"),
            ("x-envoy-ratelimited", "true"),
            ("x-attache-reason", "overflow-requests"),
        ] {
            assert_eq!(response(&on, &[overload]), None, "{overload:?}");
        }
        for other in ["connect-refused", "upstream-error", "word"] {
            assert!(response(&on, &[("x-attache-reason", other)]).is_some(), "{other}");
        }
    }
}
