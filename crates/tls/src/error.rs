//! Why a handshake or a certificate failed.

use std::{error::Error as StdError, fmt};

use attache_telemetry::Reason;

/// A TLS failure.
#[derive(Debug)]
pub struct Error {
    /// Why.
    pub reason: Reason,
    source: Box<dyn StdError + Send + Sync>,
}

impl Error {
    /// A failure with its cause.
    pub fn new(reason: Reason, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { reason, source: source.into() }
    }

    /// The cause alone, without the reason's word.
    pub fn cause(&self) -> String {
        self.source.to_string()
    }

    /// An own certificate, key or list that can't be used.
    pub(crate) fn identity(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Reason::TlsNoIdentity, source)
    }

    /// Roots or lists that can't be used, so that no peer would be trusted.
    pub(crate) fn trust(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Reason::TlsUntrusted, source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.source)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}
