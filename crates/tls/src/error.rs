//! Why a handshake or a certificate failed.

use std::{error::Error as StdError, fmt, io};

use attache_telemetry::Reason;

use crate::reason;

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

    /// A certificate, key or list of our own that can't be used.
    pub(crate) fn identity(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Reason::TlsNoIdentity, source)
    }

    /// Roots or lists that can't be used, so that nobody would be believed.
    pub(crate) fn trust(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Reason::TlsUntrusted, source)
    }

    /// A handshake that attache began.
    pub(crate) fn connecting(error: io::Error, asked_for_certificate: bool) -> Self {
        let (reason, text) = reason::connecting(&error, asked_for_certificate);
        Self::new(reason, Explained { text, source: error })
    }

    /// A handshake that a client began.
    pub(crate) fn accepting(error: io::Error) -> Self {
        let (reason, text) = reason::accepting(&error);
        Self::new(reason, Explained { text, source: error })
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

/// The library's words, and ours behind them where they leave the reader alone.
#[derive(Debug)]
struct Explained {
    text: Option<&'static str>,
    source: io::Error,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        match self.text {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl StdError for Explained {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}
