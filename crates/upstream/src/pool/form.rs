//! A request in the form that the connection's protocol asks for.
//!
//! HTTP/1.1 (RFC 9112 section 3.2): origin-form, `Host` always, authority-form for CONNECT, never absolute-form.
//! HTTP/2 (RFC 9113 section 8.3.1): `:scheme` and `:authority`, no `Host`, nothing of the connection's own.
//! A `Host` header is what routing decided on, so it goes before the URI's authority.

use attache_http::{Body, CONNECTION_SPECIFIC};
use http::{
    HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, COOKIE, Entry, HOST, HeaderMap, TE},
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;

/// The form for HTTP/1.1.
pub(super) fn http1(request: &mut Request<Body>) {
    *request.version_mut() = Version::HTTP_11;
    let connect = request.method() == Method::CONNECT;
    let uri = std::mem::take(request.uri_mut()).into_parts();
    if let (Entry::Vacant(host), Some(authority)) = (request.headers_mut().entry(HOST), &uri.authority) {
        // From HTTP/2, which has no Host. What is a valid authority is a valid header value.
        if let Ok(value) = HeaderValue::from_str(without_userinfo(authority.as_str())) {
            host.insert(value);
        }
    }
    *request.uri_mut() = match (connect, uri.authority, uri.path_and_query) {
        (true, Some(authority), _) => Uri::from(authority),
        (_, _, Some(path)) => Uri::from(path),
        (_, _, None) => Uri::from(PathAndQuery::from_static("/")),
    };
    join_cookies(request.headers_mut());
}

/// HTTP/2 clients may split `Cookie` for better compression; before HTTP/1.1 it is one line again (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(COOKIE).iter();
    let (Some(_), Some(_)) = (all.next(), all.next()) else { return };
    let mut joined = Vec::new();
    for value in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}

/// The form for HTTP/2. An error names what can't be said in it.
pub(super) fn http2(request: &mut Request<Body>, tls: bool) -> Result<(), http::Error> {
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    let host = headers.remove(HOST);
    // Seldom there: one look at the names costs less than a hash for each.
    if headers.keys().any(|name| CONNECTION_SPECIFIC.contains(name)) {
        for name in CONNECTION_SPECIFIC {
            headers.remove(name);
        }
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
    let plain_connect =
        request.method() == Method::CONNECT && request.extensions().get::<h2::ext::Protocol>().is_none();
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
    if let Some(length) = request.body().size_hint().exact().filter(|length| *length > 0) {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    Ok(())
}

fn without_userinfo(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use super::*;

    fn request(method: Method, uri: &str, headers: &[(&'static str, &'static str)]) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn http1_is_origin_form_with_the_host_that_routing_decided_on() {
        let mut with_host = request(Method::GET, "http://a.example:81/x?y", &[("host", "b.example")]);
        http1(&mut with_host);
        assert_eq!(with_host.uri().to_string(), "/x?y");
        assert_eq!(with_host.headers()[HOST], "b.example");
        let mut without = request(Method::GET, "http://user@a.example:81", &[]);
        http1(&mut without);
        assert_eq!(without.uri().to_string(), "/");
        assert_eq!(without.headers()[HOST], "a.example:81");
    }

    #[test]
    fn options_star_and_connect_keep_their_own_forms() {
        let mut star = request(Method::OPTIONS, "*", &[("host", "a")]);
        http1(&mut star);
        assert_eq!(star.uri().to_string(), "*");
        let mut connect = request(Method::CONNECT, "a.example:443", &[]);
        http1(&mut connect);
        assert_eq!(connect.uri().to_string(), "a.example:443");
        assert_eq!(connect.headers()[HOST], "a.example:443");
        http2(&mut connect, true).unwrap();
        assert_eq!(connect.uri().to_string(), "a.example:443");
    }

    #[test]
    fn cookies_that_http2_split_are_one_line_in_http1() {
        let mut split = request(Method::GET, "http://a/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        http1(&mut split);
        assert_eq!(split.headers().get_all(COOKIE).iter().count(), 1);
        assert_eq!(split.headers()[COOKIE], "a=1; b=2");
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
