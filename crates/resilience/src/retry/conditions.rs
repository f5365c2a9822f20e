//! Which outcomes are retried: Envoy's `x-envoy-retry-on`, decided by the known error instead of by a reset code.
//!
//! | condition | errors | responses |
//! | --- | --- | --- |
//! | `connect-failure` | no connection, or no TLS | |
//! | `refused-stream` | REFUSED_STREAM, a GOAWAY below the stream | |
//! | `reset-before-headers` | ended before a byte of the response | |
//! | `reset` | all of the above, and the per-try deadline | |
//! | `5xx` | those of `reset` | 500 to 599 |
//! | `gateway-error` | those of `reset` | 502, 503, 504 |
//! | a status | | that status |
//! | a header | | any with that header |
//! | a grpc-status | | that `grpc-status` in a response without a body |
//!
//! Differences from Envoy: a response is tried again only for methods that may be sent twice (`methods`; Envoy
//! retries a POST on 503), except by a grpc-status: every gRPC call is a POST, so naming the status is the route's word.
//! Certificates that don't verify are connect failures only in so far as another endpoint may have a better one.
//!
//! **Never**: limits, open circuits, missing endpoints and whole-request deadlines; nor responses that say the
//! same of the next proxy (`x-envoy-overloaded`, `x-envoy-ratelimited`, or an overload word in `x-attache-reason`): an
//! overload is not retried into the ground at every hop.

use attache_config::model::RetryOn;
use attache_telemetry::{Class, Reason};
use attache_upstream::{Error, Sent};
use attache_wire::{Fields, Known, header};
use http::{HeaderName, StatusCode};

const GRPC_STATUS: Known = header::GRPC_STATUS;

/// Whether the request never reached an application: no connection came about, or the peer says that it did no work on it.
pub(super) fn never_reached(error: &Error) -> bool {
    match error.sent {
        Sent::Nothing => error.reason.is(Class::NoConnection) || error.reason.is(Class::Unprocessed),
        Sent::Refused => true,
        Sent::Request | Sent::Response => false,
    }
}

#[derive(Debug, Default)]
pub(super) struct Conditions {
    connect_failure: bool,
    refused_stream: bool,
    reset_before_headers: bool,
    reset: bool,
    server_error: bool,
    gateway_error: bool,
    statuses: Vec<StatusCode>,
    headers: Vec<HeaderName>,
    grpc: Vec<u16>,
}

/// Why a response is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// By its status or a header.
    Http,
    /// By its grpc-status.
    Grpc,
}

impl Conditions {
    pub(super) fn new(on: &[RetryOn]) -> Self {
        let mut conditions = Self::default();
        for condition in on {
            match condition {
                RetryOn::ConnectFailure => conditions.connect_failure = true,
                RetryOn::RefusedStream => conditions.refused_stream = true,
                RetryOn::ResetBeforeHeaders => conditions.reset_before_headers = true,
                RetryOn::Reset => conditions.reset = true,
                RetryOn::ServerError => conditions.server_error = true,
                RetryOn::GatewayError => conditions.gateway_error = true,
                RetryOn::Status(status) => conditions.statuses.push(*status),
                RetryOn::Header(name) => conditions.headers.push(name.clone()),
                RetryOn::GrpcStatus(status) => conditions.grpc.push(*status),
            }
        }
        conditions
    }

    /// Whether this failure meets a condition. Whether it is safe is another question.
    pub(super) fn error(&self, error: &Error) -> bool {
        let any = self.reset || self.server_error || self.gateway_error;
        match error.reason {
            Reason::UpstreamRefusedStream => any || self.refused_stream,
            Reason::UpstreamReset if error.sent == Sent::Refused => any || self.refused_stream,
            Reason::UpstreamReset => any || self.reset_before_headers,
            Reason::PerTryTimeout => any,
            reason => {
                error.sent == Sent::Nothing && reason.is(Class::NoConnection) && (any || self.connect_failure)
            }
        }
    }

    /// Whether this response meets a condition.
    pub(super) fn response(&self, status: StatusCode, headers: &Fields) -> Option<Met> {
        let http = (self.server_error && status.is_server_error())
            || (self.gateway_error && matches!(status.as_u16(), 502..=504))
            || self.statuses.contains(&status)
            || self.headers.iter().any(|name| headers.contains_key(name));
        if http {
            return (!is_overload(headers)).then_some(Met::Http);
        }
        if self.grpc.is_empty() {
            return None;
        }
        let grpc = headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()?;
        (self.grpc.contains(&grpc) && !is_overload(headers)).then_some(Met::Grpc)
    }
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

    fn meets(on: RetryOn, reason: Reason, sent: Sent) -> bool {
        Conditions::new(&[on]).error(&Error::new(reason, sent))
    }

    #[test]
    fn what_never_reached_an_application_is_told_by_what_was_sent_and_why_it_failed() {
        let never = |reason, sent| never_reached(&Error::new(reason, sent));
        assert!(never(Reason::ConnectRefused, Sent::Nothing) && never(Reason::UpstreamReset, Sent::Nothing));
        assert!(
            never(Reason::UpstreamRefusedStream, Sent::Refused)
                && never(Reason::UpstreamReset, Sent::Refused)
        );
        assert!(!never(Reason::CircuitOpen, Sent::Nothing), "no other endpoint helps");
        assert!(
            !never(Reason::UpstreamReset, Sent::Request) && !never(Reason::UpstreamReset, Sent::Response)
        );
    }

    #[test]
    fn each_condition_is_met_by_its_own_errors_alone() {
        assert!(
            meets(RetryOn::RefusedStream, Reason::UpstreamReset, Sent::Refused),
            "a GOAWAY below the stream"
        );
        assert!(!meets(RetryOn::RefusedStream, Reason::UpstreamReset, Sent::Request));
        assert!(!meets(RetryOn::ResetBeforeHeaders, Reason::UpstreamReset, Sent::Refused));
        assert!(meets(RetryOn::Reset, Reason::PerTryTimeout, Sent::Request));
        assert!(!meets(RetryOn::ConnectFailure, Reason::PerTryTimeout, Sent::Request));
        assert!(!meets(RetryOn::RefusedStream, Reason::PerTryTimeout, Sent::Request));
        assert!(meets(RetryOn::ConnectFailure, Reason::ConnectTimeout, Sent::Nothing));
        assert!(!meets(RetryOn::ConnectFailure, Reason::ConnectTimeout, Sent::Request), "something was sent");
        assert!(!meets(RetryOn::Reset, Reason::CircuitOpen, Sent::Nothing));
    }
}
