//! An interface for `tests/fuzz`: the reader of the Workload API's messages.

use crate::spiffe::Svid;

/// Reads an `X509SVIDResponse`; the trust domain of its SVID.
///
/// # Errors
/// What is wrong with it.
pub fn svid(message: &[u8]) -> Result<String, String> {
    Svid::read(message).map(|svid| svid.domain)
}
