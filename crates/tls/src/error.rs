//! Why a handshake or a certificate failed.

use std::{fmt, io};

use attache_telemetry::Reason;

/// A TLS failure.
#[derive(Debug)]
pub struct Error {
    /// Why.
    pub reason: Reason,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// A failure with its cause.
    pub fn new(reason: Reason, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { reason, source: source.into() }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self { reason: Reason::TlsHandshakeFailed, source: Box::new(error) }
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self { reason: Reason::TlsHandshakeFailed, source: Box::new(error) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.source)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}
