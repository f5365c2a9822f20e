//! Why a call to an upstream failed, and how much of it the upstream may have seen.

use std::fmt;

use attache_telemetry::Reason;

/// Why a call got no response.
#[derive(Debug)]
pub struct Error {
    /// Why.
    pub reason: Reason,
    /// How much the upstream may have seen, which decides whether a retry is safe.
    pub sent: SentPart,
    /// The connection had carried a request before: the peer may have closed it by its idle timeout while this request
    /// was on its way.
    pub reused: bool,
    /// When it is worth trying again, where attache knows: the answer's `Retry-After`.
    pub retry_after: Option<std::time::Duration>,
    /// The status of the answer that attache makes from the error, if it isn't the reason's status. gRPC clients get 200 in any case.
    pub status: Option<http::StatusCode>,
    /// More headers of the answer that attache makes from the error.
    pub headers: Option<Box<attache_wire::Fields>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// How much of a request an upstream may have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SentPart {
    /// No byte reached a peer (no connection, or one that was dead before the first write).
    Nothing,
    /// The peer said that it did not process the request (REFUSED_STREAM, or a stream above the last one of GOAWAY).
    Refused,
    /// The request was sent, whole or in part, and no byte of a response came back.
    Request,
    /// A part of the response arrived.
    Response,
}

impl Error {
    /// An error of attache's own making.
    #[cold]
    pub fn new(reason: Reason, sent: SentPart) -> Self {
        Self { reason, sent, reused: false, retry_after: None, status: None, headers: None, source: None }
    }

    /// An error with its cause.
    #[cold]
    pub fn with_source(
        reason: Reason,
        sent: SentPart,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { source: Some(source.into()), ..Self::new(reason, sent) }
    }

    /// The same error, of a connection that had carried an earlier request.
    pub fn on_reused_connection(mut self, reused: bool) -> Self {
        self.reused = reused;
        self
    }

    /// True if the kernel closed the connection because the peer acknowledged nothing.
    pub fn is_silence(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = self.source.as_ref().map(|s| &**s as _);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::TimedOut
            {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// The chain of causes on one line, for the log; each appears once, and a failure of TLS prints its own causes.
    pub fn detail(&self) -> String {
        let mut text = String::new();
        let mut next: Option<&(dyn std::error::Error + 'static)> = self.source.as_ref().map(|s| &**s as _);
        while let Some(error) = next {
            let tls = error.downcast_ref::<attache_tls::Error>();
            let cause = tls.map_or_else(|| error.to_string(), attache_tls::Error::cause);
            if !text.contains(&cause) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&cause);
            }
            next = if tls.is_some() { None } else { error.source() };
        }
        text
    }
}

/// The reason of TLS if TLS caused the connection's end, else `otherwise`. In TLS 1.3 a peer refuses attache's
/// certificate only after attache's handshake is done, so the refusal looks like a failed read (RFC 8446 section
/// 4.4.2.4).
pub(crate) fn reason_or(error: &(dyn std::error::Error + 'static), otherwise: Reason) -> Reason {
    attache_tls::reason_of(error).unwrap_or(otherwise)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
