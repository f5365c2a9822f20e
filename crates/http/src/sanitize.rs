//! Removes what a message must not bring along: fields that only this hop may write, in any spelling, and trailers that an application
//! could take for header fields.
//!
//! CGI, WSGI and similar interfaces give applications one variable for `X-Name` and `X_Name`; some also take `X.Name` and `X+Name` for it
//! (lighttpd). So a field that is removed or set here is also removed if another character stands for a hyphen. Some applications merge
//! trailers into the headers (RFC 9110 section 6.5.1). So a trailer never carries framing, routing, credentials or the client's identity.

use attache_config::model::{HeaderNames, OddNames};
use attache_wire::Fields;
use http::{HeaderMap, HeaderName};

use crate::Refusal;

/// Prefixes of names that tell the upstream about the client or the path of the request; only proxies write such fields.
const FORWARDING: [&str; 4] = ["x-forwarded-", "x-envoy-", "x-attache-", "x-b3-"];

/// Names of fields that end at this hop, or that only this hop may write: forwarding, identity, framing.
const OURS: [&str; 16] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
];

/// Names, in addition to [`OURS`], that no trailer may have: an application would read them as fields of the head.
const NEVER_TRAILERS: [&str; 16] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "max-forwards",
    "proxy-authenticate",
    "range",
    "set-cookie",
    "www-authenticate",
    // Some frameworks take the method or the path from these, but rules check them only in the head.
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// Whether a field says how a message is sent, where it ends (RFC 9112 section 11.2) or where it goes. No service that attache calls may
/// set such a field.
pub fn is_framing(name: &str) -> bool {
    name == "host" || attache_config::is_framing(name)
}

/// Whether this hop removes or writes the field.
pub(crate) fn is_ours(name: &str) -> bool {
    OURS.contains(&name) || FORWARDING.iter().any(|begin| name.starts_with(begin))
}

/// Removes every field whose name has an underscore, or another character instead of a hyphen, and is a spelling of another name: one of
/// this hop's, or one for which `also` returns true. The reader has noted whether there is such a name; if not, this does nothing.
pub fn remove_underscored(headers: &mut Fields, also: impl Fn(&str) -> bool) {
    if !headers.may_be_underscored() {
        return;
    }
    headers.retain(|name, _| {
        let name = name.lower();
        hyphened(&name).is_none_or(|hyphened| !is_ours(&hyphened) && !also(&hyphened))
    });
}

/// Removes the fields whose names `names` does not allow, or refuses the request, as `names` says. Returns how many were removed.
///
/// # Errors
/// The request has a name that is not allowed.
pub(crate) fn judge_names(headers: &mut Fields, names: HeaderNames) -> Result<u64, Refusal> {
    if names.keeps_all() || !headers.may_be_underscored() {
        return Ok(0);
    }
    let (mut dropped, mut refused) = (0, false);
    headers.retain(|name, _| match names.of(name.as_bytes()) {
        OddNames::Keep => true,
        OddNames::Drop => {
            dropped += 1;
            false
        }
        OddNames::Reject => {
            refused = true;
            true
        }
    });
    if refused { Err(ODD_NAME) } else { Ok(dropped) }
}

const ODD_NAME: Refusal = Refusal::bad_request(
    "A header's name has a character that this listener does not allow (`header_names`).",
);

/// Removes such names from trailers, because it is too late to refuse the request.
pub(crate) fn remove_odd_names(trailers: &mut HeaderMap, names: HeaderNames) {
    let odd = |name: &HeaderName| names.of(name.as_str().as_bytes()) != OddNames::Keep;
    if trailers.keys().any(odd) {
        let found: Vec<HeaderName> = trailers.keys().filter(|name| odd(name)).cloned().collect();
        for name in found {
            trailers.remove(name);
        }
    }
}

/// A name with hyphens instead of all characters that are neither letters nor digits; `None` if it has that form already.
fn hyphened(name: &str) -> Option<String> {
    let other = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    name.contains(other).then(|| name.replace(other, "-"))
}

/// Removes these fields, also in other spellings: `_`, or another character that is neither a letter nor a digit, instead of `-`, or the
/// other way round.
pub fn remove_fields(headers: &mut Fields, fields: &[HeaderName]) {
    if !fields.is_empty() {
        headers.retain(|name, _| !is_spelled(&name.lower(), fields));
    }
}

/// Like [`remove_fields`], for trailers.
pub(crate) fn remove_from_trailers(trailers: &mut HeaderMap, fields: &[HeaderName]) {
    remove_spelled(trailers, |name| is_spelled(name, fields));
}

/// Whether two names are the same for a program that can't tell `-` from `_` or from another character that is neither a letter nor a
/// digit. Case is ignored.
pub fn is_spelling_of(name: &[u8], other: &str) -> bool {
    let same = |(a, b): (&u8, u8)| {
        a.eq_ignore_ascii_case(&b) || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric())
    };
    name.len() == other.len() && name.iter().zip(other.bytes()).all(same)
}

/// Whether one of these fields has this name, in any such spelling.
fn is_spelled(name: &str, fields: &[HeaderName]) -> bool {
    fields.iter().any(|field| is_spelling_of(name.as_bytes(), field.as_str()))
}

/// Removes the fields for whose name `refused` returns true, as it is written or with hyphens for underscores.
fn remove_spelled(headers: &mut HeaderMap, refused: impl Fn(&str) -> bool) {
    let refused = |name: &HeaderName| {
        let name = name.as_str();
        refused(name) || hyphened(name).is_some_and(|name| refused(&name))
    };
    if !headers.keys().any(&refused) {
        return;
    }
    let found: Vec<HeaderName> = headers.keys().filter(|name| refused(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Removes the fields that are not allowed in a request's trailers.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    remove_spelled(trailers, |name| is_ours(name) || NEVER_TRAILERS.contains(&name));
}

/// Removes the fields that are not allowed in a response's trailers: framing, content, cookies, and fields that only attache may write.
/// Other fields about the path of the message (`x-request-id`, `via`) stay: gRPC servers send them in trailers, and the client does not
/// trust them.
pub fn strip_response_trailers(trailers: &mut HeaderMap) {
    const UPSTREAMS_OWN: [&str; 4] = ["forwarded", "via", "x-real-ip", "x-request-id"];
    remove_spelled(trailers, |name| {
        NEVER_TRAILERS.contains(&name)
            || name.starts_with("x-attache-")
            || (OURS.contains(&name) && !UPSTREAMS_OWN.contains(&name))
    });
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x"))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn an_underscore_instead_of_a_hyphen_hides_no_field_of_this_hop() {
        let mut headers = Fields::from(map(&[
            "x_forwarded_client_cert",
            "x-forwarded_for",
            "x_real_ip",
            "x_request_id",
            "transfer_encoding",
            "content_length",
            "x_tenant",
            "x.forwarded.client.cert",
            "x+tenant",
            "x_own",
            "x.own",
            "x-forwarded-for",
        ]));
        remove_underscored(&mut headers, |name| name == "x-tenant");
        assert_eq!(names(&headers.to_map()), ["x-forwarded-for", "x.own", "x_own"]);
    }

    #[test]
    fn a_trailer_has_no_field_that_is_for_the_head_only() {
        let mut trailers = map(&[
            "x-forwarded-client-cert",
            "x_forwarded_client_cert",
            "forwarded",
            "connection",
            "transfer-encoding",
            "content-length",
            "host",
            "authorization",
            "set-cookie",
            "x-http-method-override",
            "x_original_url",
            "x.real.ip",
            "grpc-status",
            "x-checksum",
            "server-timing",
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status", "server-timing", "x-checksum"]);
    }

    #[test]
    fn a_response_s_trailers_keep_the_upstream_s_fields_about_the_path() {
        let mut trailers = map(&[
            "grpc-status",
            "x-request-id",
            "via",
            "x-b3-traceid",
            "set-cookie",
            "set_cookie",
            "content-length",
            "transfer-encoding",
            "x-attache-reason",
        ]);
        strip_response_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status", "via", "x-b3-traceid", "x-request-id"]);
    }

    #[test]
    fn odd_names_are_removed_or_refused() {
        let head = |names: &[&'static str]| {
            let mut fields = Fields::default();
            for name in names {
                fields.append(*name, HeaderValue::from_static("1"));
            }
            fields
        };
        let policy = |underscores, others| HeaderNames { underscores, others };
        let all = ["x-user", "x_user", "x.user"];
        let judged = |policy| {
            let mut fields = head(&all);
            let dropped = judge_names(&mut fields, policy);
            let left: Vec<String> = fields.keys().map(|name| name.lower().into_owned()).collect();
            (dropped, left.join(" "))
        };
        let (keep, drop, reject) = (OddNames::Keep, OddNames::Drop, OddNames::Reject);
        assert_eq!(judged(policy(keep, keep)), (Ok(0), "x-user x_user x.user".to_owned()));
        assert_eq!(judged(policy(drop, keep)), (Ok(1), "x-user x.user".to_owned()));
        assert_eq!(judged(policy(drop, drop)), (Ok(2), "x-user".to_owned()));
        assert!(judged(policy(reject, keep)).0.is_err() && judged(policy(drop, reject)).0.is_err());
        assert_eq!(judge_names(&mut head(&["x-user"]), policy(reject, reject)), Ok(0));
        let mut trailers = map(&["x-sum", "x_user", "x.user"]);
        remove_odd_names(&mut trailers, policy(reject, drop));
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
    }
}
