//! What the end of a request says about the endpoint it went to.

use std::fmt;

use attache_telemetry::Reason;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::{Error, Sent};

/// As a constant: a name given as text is parsed at every look.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// How a request to an endpoint ended, as far as the endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Success,
    /// It answered that it failed: this status, or the status that a grpc-status stands for.
    ServerError(StatusCode),
    /// attache got no answer from it: no connection, reset, timed out, not HTTP.
    Local(Reason),
}

impl Outcome {
    /// What the end of a try says; `None` where the endpoint isn't to blame or to praise.
    pub fn of<B>(end: &Result<http::Response<B>, Error>) -> Option<Self> {
        match end {
            Ok(response) => Some(Self::of_response(response.status(), response.headers())),
            Err(error) => Self::of_error(error),
        }
    }

    /// The word for a failure; `None` for a success.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Success => None,
            Self::ServerError(_) => Some(Reason::UpstreamError),
            Self::Local(reason) => Some(reason),
        }
    }

    /// What a response's head says. A `grpc-status` in it (a response without a body) counts as the HTTP status it stands for
    /// (grpc/doc/http-grpc-status-mapping.md read backwards, as Envoy does).
    pub fn of_response(status: StatusCode, headers: &HeaderMap) -> Self {
        if status.is_server_error() {
            return Self::ServerError(status);
        }
        let grpc = headers.get(GRPC_STATUS).map(http::HeaderValue::as_bytes);
        match grpc {
            Some(b"2" | b"13" | b"15") => Self::ServerError(StatusCode::INTERNAL_SERVER_ERROR),
            Some(b"12") => Self::ServerError(StatusCode::NOT_IMPLEMENTED),
            Some(b"14") => Self::ServerError(StatusCode::SERVICE_UNAVAILABLE),
            Some(b"4") => Self::ServerError(StatusCode::GATEWAY_TIMEOUT),
            _ => Self::Success,
        }
    }

    /// What an error says; `None` where it isn't the endpoint's: attache's own limits and deadlines of others, a refused
    /// stream (the peer restarts or sheds load in an orderly way), a lost close race.
    pub fn of_error(error: &Error) -> Option<Self> {
        let local = match error.reason {
            Reason::UpstreamReset => error.sent != Sent::Refused && !error.reused,
            Reason::RequestTimeout
            | Reason::PerTryTimeout
            | Reason::UpstreamClosedMidBody
            | Reason::UpstreamProtocolError => true,
            reason => reason.is_no_connection(),
        };
        local.then_some(Self::Local(error.reason))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::ServerError(status) => write!(f, "{}", status.as_u16()),
            Self::Local(reason) => reason.fmt(f),
        }
    }
}
