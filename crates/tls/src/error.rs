//! Why a handshake or a certificate failed.

use std::{error::Error as StdError, fmt, io};

use attache_telemetry::Reason;
use rustls::CertificateError;

use crate::{
    reason,
    words::{self, Untrusted},
};

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

    /// A certificate, key or list of our own that can't be used.
    pub(crate) fn identity(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Reason::TlsNoIdentity, source)
    }

    /// Roots or lists that can't be used, so that nobody would be believed.
    pub(crate) fn trust(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Reason::TlsUntrusted, source)
    }

    /// A handshake that attache began.
    pub(crate) fn connecting(
        error: io::Error,
        asked_for_certificate: bool,
        untrusted: Option<Untrusted>,
    ) -> Self {
        let (reason, text) = reason::connecting(&error, asked_for_certificate);
        Self::new(reason, Explained { text, untrusted, source: error })
    }

    /// A handshake that a client began.
    pub(crate) fn accepting(error: io::Error) -> Self {
        let (reason, text) = reason::accepting(&error);
        Self::new(reason, Explained { text, untrusted: None, source: error })
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

/// Our words where they say more, and otherwise the library's, with ours behind them where they leave the reader alone.
#[derive(Debug)]
struct Explained {
    text: Option<&'static str>,
    untrusted: Option<Untrusted>,
    source: io::Error,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = match self.source.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        };
        if let (Some(CertificateError::UnknownIssuer | CertificateError::Other(_)), Some(why)) =
            (certificate, &self.untrusted)
        {
            return write!(f, "{why}");
        }
        if let Some(CertificateError::Other(other)) = certificate {
            return write!(f, "{}", other.0);
        }
        match certificate.and_then(words::of_certificate) {
            Some(words) => f.write_str(&words)?,
            None => write!(f, "{}", self.source)?,
        }
        self.text.map_or(Ok(()), |text| write!(f, " ({text})"))
    }
}

impl StdError for Explained {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}
