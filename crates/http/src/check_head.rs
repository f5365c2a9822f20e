//! Every check of a request's head before routing, in order. The pipe and `attache explain` both call this one function.

use attache_config::model::{HttpServer, TargetPolicy};
use attache_telemetry::Reason;
use attache_wire::{
    RequestHead,
    request::{TargetStrictness, check_path},
};
use http::Version;

use crate::{
    Refusal, authority::check_spelling, check::TargetForm, check_request, method::check_method,
    normalize_uri, sanitize::judge_names,
};

/// A head that passed every check.
#[derive(Clone, Copy, Debug)]
pub struct CheckedHead {
    /// The form of its target.
    pub form: TargetForm,
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
    if request.version >= Version::HTTP_2 {
        check_path_of_http2(request, http.target)?;
    }
    let form = check_request(request, tls, body_ended)?;
    check_method(request, http)?;
    check_spelling(&request.uri, http.host)?;
    let dropped = judge_names(&mut request.headers, http.header_names)?;
    normalize_uri(&mut request.uri, http.path)?;
    Ok(CheckedHead { form, dropped })
}

/// Checks the bytes of `:path`. The reader of HTTP/1 has already checked those of a target.
// Not inlined, because HTTP/1 requests don't need it.
#[inline(never)]
fn check_path_of_http2(request: &RequestHead, policy: TargetPolicy) -> Result<(), Refusal> {
    let refused = |fault: attache_wire::MessageFault| Refusal {
        reason: Reason::BadRequest,
        text: fault.to_string().into(),
    };
    check_path(request, target_rule(policy)).map_err(refused)
}

/// The rule for the bytes of a target, as `http.target` chooses it.
pub fn target_rule(policy: TargetPolicy) -> TargetStrictness {
    match policy {
        TargetPolicy::Strict => TargetStrictness::Strict,
        TargetPolicy::Lenient => TargetStrictness::Lenient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(path: &[u8], target: TargetPolicy) -> Result<(), String> {
        // HTTP/2 resets the stream of a request whose `:path` is not a path.
        let (path, raw_query) = attache_wire::path_and_query(path).ok_or("not a path")?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(http::uri::Authority::from_static("h"));
        parts.path_and_query = Some(path);
        let uri = http::Uri::from_parts(parts).unwrap();
        let mut head = RequestHead { uri, version: Version::HTTP_2, raw_query, ..RequestHead::default() };
        let http = HttpServer { target, ..HttpServer::default() };
        check_head(&mut head, false, true, &http).map(drop).map_err(|refusal| refusal.text.into_owned())
    }

    #[test]
    fn a_path_of_http2_may_hold_the_bytes_that_a_target_of_http1_may() {
        for good in ["/", "/a?", "/f?q=\"<x>\\^|{}`", "/{a}|^", "/%C3%A9"] {
            assert_eq!(checked(good.as_bytes(), TargetPolicy::Strict), Ok(()), "{good}");
        }
        for (bad, at) in [
            ("/f\"x", "0x22 (`\"`) at position 3"),
            ("/\\", "0x5C (`\\`) at position 2"),
            ("/`", "not a path"),
            ("/\u{e9}", "0xC3 at position 2"),
            ("/?\"\u{e9}", "0xC3 at position 4"),
        ] {
            let refused = checked(bad.as_bytes(), TargetPolicy::Strict).unwrap_err();
            assert!(refused.contains(at), "{bad}: {refused}");
        }
        assert_eq!(checked("/\u{e9}?\"\u{e9}".as_bytes(), TargetPolicy::Lenient), Ok(()));
        assert!(checked(b"/\xff", TargetPolicy::Lenient).is_err());
        assert!(checked(b"/\"", TargetPolicy::Lenient).is_err());
    }
}
