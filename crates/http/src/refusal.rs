//! Why attache refuses a request.

use std::{borrow::Cow, fmt};

use attache_telemetry::Reason;

/// Why attache answers a request itself instead of passing it on. The client sees the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason in metrics, logs and the answer's header.
    pub reason: Reason,
    /// Which rule was broken, as a whole sentence. It repeats nothing that the client sent, except the identity that the client proved.
    pub text: Cow<'static, str>,
}

impl Refusal {
    /// Refuses a request that is invalid, or that two parsers could read differently.
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
