//! How an attempt ended, and who caused that end.

use std::fmt;

use attache_telemetry::{Class, Reason, grpc_as_http, grpc_code};
use attache_wire::{Fields, ValueRef, header::GRPC_STATUS};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::{Error, SentPart};

/// How an attempt at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered, and nothing shows a failure.
    Success,
    /// The endpoint failed.
    Failed(EndpointFailure),
    /// No answer came in the time that the config gives to the route (`request-timeout`) or to one attempt
    /// (`per-try-timeout`).
    Overdue(Reason),
    /// The caller left, or its own deadline was shorter than the route's: no failure of the endpoint.
    CallerGaveUp,
    /// Neutral about the endpoint: a limit of attache's own, a refused stream, a lost close race.
    Inconclusive,
}

/// How an endpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointFailure {
    /// It answered with a failure: this status, or the status that corresponds to a grpc-status.
    Answer(StatusCode),
    /// attache got no answer from it, or not all of it: no connection, reset, cut, not HTTP.
    NoAnswer(Reason),
}

impl Outcome {
    /// Whether the endpoint succeeded; `None` if the outcome is neutral.
    pub const fn is_success(self) -> Option<bool> {
        match self {
            Self::Success => Some(true),
            Self::Failed(_) | Self::Overdue(_) => Some(false),
            Self::CallerGaveUp | Self::Inconclusive => None,
        }
    }

    /// The word for a failure; `None` for everything else.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Failed(EndpointFailure::Answer(_)) => Some(Reason::UpstreamError),
            Self::Failed(EndpointFailure::NoAnswer(reason)) | Self::Overdue(reason) => Some(reason),
            Self::Success | Self::CallerGaveUp | Self::Inconclusive => None,
        }
    }

    /// The outcome by a response's head. A `grpc-status` in it (a response without a body) counts as the corresponding
    /// HTTP status.
    pub fn of_response(status: StatusCode, headers: &Fields) -> Self {
        // RFC 9110 section 15: a status of 600 or more is a 5xx to its recipient.
        if status.as_u16() >= 500 {
            return Self::Failed(EndpointFailure::Answer(status));
        }
        Self::of_grpc(headers.get(GRPC_STATUS).map(ValueRef::as_bytes))
    }

    /// The outcome by a response's trailers: a failing `grpc-status` counts as the corresponding HTTP status
    /// (grpc/doc/http-grpc-status-mapping.md read backwards, as Envoy does).
    pub fn of_trailers(trailers: &HeaderMap) -> Self {
        Self::of_grpc(trailers.get(GRPC_STATUS.as_str()).map(HeaderValue::as_bytes))
    }

    fn of_grpc(status: Option<&[u8]>) -> Self {
        let status = status.and_then(grpc_code).map_or(200, grpc_as_http);
        match StatusCode::from_u16(status) {
            Ok(status) if status.is_server_error() => Self::Failed(EndpointFailure::Answer(status)),
            _ => Self::Success,
        }
    }

    /// The outcome of an error. These are not failures of the endpoint: attache's own limits and deadlines, a refused
    /// stream (the peer restarts or sheds load in an orderly way), a lost close race.
    pub fn of_error(error: &Error) -> Self {
        let failed = match error.reason {
            // On a reused connection, the end may be a lost close race. If the peer is silent, it is not.
            Reason::UpstreamReset => error.sent != SentPart::Refused && (!error.reused || error.is_silence()),
            reason => reason.is(Class::EndpointFailed) || reason.is(Class::NoConnection),
        };
        if failed { Self::Failed(EndpointFailure::NoAnswer(error.reason)) } else { Self::Inconclusive }
    }

    /// The outcome of a body that was cut. If the client's own body or attache caused it, the endpoint didn't fail.
    pub(crate) fn of_cut(reason: Reason) -> Self {
        if reason.is(Class::EndpointFailed) {
            Self::Failed(EndpointFailure::NoAnswer(reason))
        } else {
            Self::Inconclusive
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::Failed(EndpointFailure::Answer(status)) => write!(f, "{}", status.as_u16()),
            Self::Failed(EndpointFailure::NoAnswer(reason)) | Self::Overdue(reason) => reason.fmt(f),
            Self::CallerGaveUp => f.write_str("the caller gave up"),
            Self::Inconclusive => f.write_str("inconclusive"),
        }
    }
}
