//! Every check of a request's head before it is routed, in order. The pipe and `attache explain` both call this one list.

use attache_config::model::HttpServer;
use attache_wire::RequestHead;

use crate::{
    Refusal, authority::check_spelling, check::Form, check_request, method::check_method, normalize_uri,
    sanitize::judge_names,
};

/// A head that passed every check.
#[derive(Clone, Copy, Debug)]
pub struct CheckedHead {
    /// The form of its target.
    pub form: Form,
    /// Header fields that the listener's `header_names` removed.
    pub dropped: u64,
}

/// Checks a head by the rules of its listener's `http`, and brings it into one form. `tls` and `body_ended` are those of
/// [`check_request`].
///
/// # Errors
/// The refusal of the first check that it fails.
#[inline]
pub fn check_head(
    request: &mut RequestHead,
    tls: bool,
    body_ended: bool,
    http: &HttpServer,
) -> Result<CheckedHead, Refusal> {
    let form = check_request(request, tls, body_ended)?;
    check_method(request, http)?;
    check_spelling(&request.uri, http.host)?;
    let dropped = judge_names(&mut request.headers, http.header_names)?;
    normalize_uri(&mut request.uri, http.path)?;
    Ok(CheckedHead { form, dropped })
}
