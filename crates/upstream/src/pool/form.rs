//! A request in the form that the connection's protocol asks for.
//!
//! HTTP/1.1 (RFC 9112 section 3.2): origin-form, `Host` always, authority-form for CONNECT, never absolute-form. HTTP/2
//! (RFC 9113 section 8.3.1): `:scheme` and `:authority`, no `Host`, nothing of the connection's own. A `Host` header is
//! the result of routing, so it takes precedence over the URI's authority.

use std::borrow::Cow;

use attache_http::{Body, CONNECTION_SPECIFIC};
use attache_wire::{
    Request, RequestHead, ValueRef,
    header::{CONTENT_LENGTH, COOKIE, HOST, TE},
};
use http::{
    Method, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;

/// The form for HTTP/1.1. A request that came by HTTP/1 needs no change; the result of [`target`] is written.
pub(super) fn http1(request: &mut Request<Body>) {
    if !request.headers().contains_key(HOST)
        && let Some(authority) = request.uri().authority().cloned()
    {
        // A request from HTTP/2 has no Host. Every valid authority is a valid header value.
        let host = without_userinfo(authority.as_str()).as_bytes();
        let _ = request.headers_mut().try_insert(HOST, host);
    }
    join_cookies(request);
}

/// The target of an HTTP/1.1 request (RFC 9112 section 3.2), with the query as the client sent it, also if the URI
/// can't hold it.
pub(super) fn target(head: &RequestHead) -> Cow<'_, [u8]> {
    let target = match (&head.method, head.uri.authority(), head.uri.path_and_query()) {
        (&Method::CONNECT, Some(authority), _) => return authority.as_str().as_bytes().into(),
        (_, _, Some(path)) => path,
        (_, _, None) => return b"/".into(),
    };
    if let Some(raw) = head.raw_query.as_ref().and_then(|raw| raw.target(target)) {
        return raw.into();
    }
    if target.as_str().starts_with('?') {
        // For `http://host?query`, the `http` crate shows a `/` before the query, but doesn't store it.
        return [b"/", target.as_str().as_bytes()].concat().into();
    }
    target.as_str().as_bytes().into()
}

/// HTTP/2 clients may split `Cookie` for better compression; in HTTP/1.1 it must be one line again (RFC 9113 section
/// 8.2.3).
fn join_cookies(request: &mut Request<Body>) {
    let headers = request.headers();
    let mut all = headers.get_all(COOKIE);
    let (Some(_), Some(_)) = (all.next(), all.next()) else { return };
    let mut joined = Vec::new();
    for value in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    let _ = request.headers_mut().try_insert(COOKIE, &joined);
}

/// The form for HTTP/2. The error names the part that HTTP/2 can't express.
pub(super) fn http2(request: &mut Request<Body>, tls: bool) -> Result<(), http::Error> {
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    let host = headers.get(HOST).map(ValueRef::to_header_value);
    headers.remove(HOST);
    for name in CONNECTION_SPECIFIC {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
    let plain_connect = request.method() == Method::CONNECT && request.head().protocol.is_none();
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    if let Some(host) = host
        && uri.authority.as_ref().is_none_or(|authority| authority.as_str() != host)
    {
        uri.authority = Some(Authority::try_from(host.as_bytes())?);
    }
    if plain_connect {
        uri.scheme = None;
        uri.path_and_query = None;
    } else {
        uri.scheme.get_or_insert(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(uri)?;
    if let Some(length) = request.body().size_hint().exact().filter(|length| *length > 0)
        && !request.headers().contains_key(CONTENT_LENGTH)
    {
        request.headers_mut().insert(CONTENT_LENGTH, length);
    }
    Ok(())
}

fn without_userinfo(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use http::HeaderValue;

    use super::*;

    fn request(method: Method, uri: &str, headers: &[(&'static str, &'static str)]) -> Request<Body> {
        let mut request: Request<Body> =
            http::Request::builder().method(method).uri(uri).body(Body::empty()).unwrap().into();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn http1_is_origin_form_with_the_host_that_routing_decided_on() {
        let mut with_host = request(Method::GET, "http://a.example:81/x?y", &[("host", "b.example")]);
        http1(&mut with_host);
        assert_eq!(&*target(with_host.head()), b"/x?y");
        assert_eq!(with_host.headers().get(HOST).unwrap(), "b.example");
        let mut without = request(Method::GET, "http://user@a.example:81", &[]);
        http1(&mut without);
        assert_eq!(&*target(without.head()), b"/");
        assert_eq!(without.headers().get(HOST).unwrap(), "a.example:81");
    }

    #[test]
    fn options_star_and_connect_keep_their_own_forms() {
        let mut star = request(Method::OPTIONS, "*", &[("host", "a")]);
        http1(&mut star);
        assert_eq!(&*target(star.head()), b"*");
        let mut connect = request(Method::CONNECT, "a.example:443", &[]);
        http1(&mut connect);
        assert_eq!(&*target(connect.head()), b"a.example:443");
        assert_eq!(connect.headers().get(HOST).unwrap(), "a.example:443");
        http2(&mut connect, true).unwrap();
        assert_eq!(connect.uri().to_string(), "a.example:443");
    }

    #[test]
    fn cookies_that_http2_split_are_one_line_in_http1() {
        let mut split = request(Method::GET, "http://a/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        http1(&mut split);
        assert_eq!(split.headers().get_all(COOKIE).count(), 1);
        assert_eq!(split.headers().get(COOKIE).unwrap(), "a=1; b=2");
    }

    #[test]
    fn http2_has_an_authority_instead_of_host_and_nothing_of_the_connection() {
        let mut h2 = request(
            Method::GET,
            "/x",
            &[("host", "b.example"), ("connection", "x"), ("keep-alive", "1"), ("te", "gzip")],
        );
        http2(&mut h2, true).unwrap();
        assert_eq!(h2.uri().to_string(), "https://b.example/x");
        assert!(h2.headers().is_empty(), "{:?}", h2.headers());
        let mut bad = request(Method::GET, "/", &[("host", "not a host")]);
        assert!(http2(&mut bad, false).is_err());
    }
}
