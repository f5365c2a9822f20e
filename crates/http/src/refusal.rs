//! A request that attache does not pass on.

use std::{borrow::Cow, fmt};

use attache_telemetry::Reason;

/// Why a request is answered by attache and goes nowhere. The text is shown to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The word for metrics, logs and the answer's header.
    pub reason: Reason,
    /// Which rule was broken, as a whole sentence. It repeats nothing that the client sent, but for the identity that it proved.
    pub text: Cow<'static, str>,
}

impl Refusal {
    /// A request that is not valid, or that two parsers could read in two ways.
    #[cold]
    #[inline(never)]
    pub const fn bad_request(text: &'static str) -> Self {
        Self { reason: Reason::BadRequest, text: Cow::Borrowed(text) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.text)
    }
}

impl std::error::Error for Refusal {}
