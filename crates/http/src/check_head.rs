//! Every check of a request's head before routing, in order. The pipe and `attache explain` both call this one function.

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
    /// How many header fields the listener's `header_names` removed.
    pub dropped: u64,
}

/// Checks a head by the rules of its listener's `http` section, and brings it into one form. `tls` and `body_ended` mean the same as in
/// [`check_request`].
///
/// # Errors
/// The refusal of the first check that the head fails.
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
