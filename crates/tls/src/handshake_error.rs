//! Describes a failed handshake, with advice.

use std::{error::Error as StdError, fmt, io};

use rustls::CertificateError;

use crate::{
    Error, reason,
    words::{self, UntrustedChain},
};

impl Error {
    /// A handshake that attache began.
    pub(crate) fn connecting(
        error: io::Error,
        asked_for_certificate: bool,
        untrusted: Option<UntrustedChain>,
    ) -> Self {
        let (reason, text) = reason::connecting(&error, asked_for_certificate);
        Self::new(reason, ExplainedError { text, untrusted, source: error })
    }

    /// A handshake that a client began.
    pub(crate) fn accepting(error: io::Error, untrusted: Option<UntrustedChain>) -> Self {
        let (reason, text) = reason::accepting(&error);
        Self::new(reason, ExplainedError { text, untrusted, source: error })
    }
}

/// attache's own text if it says more than the library's; otherwise the library's text, followed by advice if it needs
/// an explanation.
#[derive(Debug)]
struct ExplainedError {
    text: Option<&'static str>,
    untrusted: Option<UntrustedChain>,
    source: io::Error,
}

impl fmt::Display for ExplainedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = match self.source.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        };
        if let (true, Some(why)) = (certificate.is_some_and(words::is_about_trust), &self.untrusted) {
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

impl StdError for ExplainedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}
