//! Checks that every parser after attache reads a request in the same way, and refuses it otherwise.
//!
//! Rule: a message that two parsers could read differently is refused with 400 or rewritten into one form (RFC 9112 sections 3.2, 6.3 and
//! 11.2; RFC 9113 sections 8.2 and 8.3). The readers of both protocols have refused much before: names that aren't tokens, CR, LF and NUL
//! in values, whitespace before the colon, folded lines, differing content lengths in HTTP/1, duplicated or misplaced pseudo-headers. This
//! module checks what they let through:
//! | what | rule |
//! | --- | --- |
//! | `Host` missing (HTTP/1.1), more than once, or not `host[:port]` | 400 (RFC 9112 section 3.2); a CONNECT without it is accepted, because its target names the host |
//! | absolute-form or CONNECT, and another `Host` | the target wins, `Host` is rewritten (section 3.2.2) |
//! | HTTP/2 `:authority` and another `Host` | 400 (RFC 9113 section 8.3.1) |
//! | userinfo, escapes, zone ids in an authority | 400 (RFC 9110 section 4.2.4, and see [`parse_authority`]) |
//! | a target in another form than the method's | 400 (RFC 9112 section 3.2) |
//! | a scheme that isn't `http` or `https` | 400 |
//! | `Transfer-Encoding` that isn't exactly `chunked`, once | 400: only the chunked coding would be removed, not an inner one |
//! | `Transfer-Encoding` with `Content-Length` | 400 (RFC 9112 section 6.1) where it can still be seen |
//! | several `Content-Length`, or one that isn't digits | 400; HTTP/2 `END_STREAM` with a length above 0 is 400 too |
//! | HTTP/2 connection-specific fields; `TE` other than `trailers` | 400 (RFC 9113 section 8.2.2) |
//! | an extended CONNECT (RFC 8441) for a `:protocol` other than `websocket` | 501 (RFC 9220 section 3) |
//! | HTTP/2 values that begin or end with whitespace | 400 (section 8.2.1) |
//! | HTTP/2 cookie crumbs | joined with `; ` (section 8.2.3) |
//!
//! A fragment (`GET /#x`) never gets here: the `http` crate cuts it off, so the route and the upstream both see the target without it.

use attache_telemetry::Reason;
use attache_wire::{
    ConnectProtocol, Fields, RequestHead, ValueRef,
    header::{CONTENT_LENGTH, COOKIE, HOST, KnownSet, TE, TRANSFER_ENCODING},
};
use http::{
    Method, Uri, Version,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::{CONNECTION_SPECIFIC, HostPort, Refusal, authority::default_port, parse_authority};

/// The form of a request's target (RFC 9112 section 3.2), or what corresponds to it in HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    Origin,
    /// `http://host/path`: the client uses attache as its proxy. HTTP/2 has no such form.
    Absolute,
    /// `CONNECT host:port`.
    Authority,
    /// `OPTIONS *`.
    Asterisk,
}

impl TargetForm {
    /// Whether the client uses attache as its proxy.
    pub const fn is_proxied(self) -> bool {
        matches!(self, Self::Absolute | Self::Authority)
    }
}

/// Checks a request as it was read, and brings it into one form. The URI becomes absolute (`scheme://host[:port]/path`; for a CONNECT just
/// `host:port`), and `Host`, if it is kept, names the same host. Only an HTTP/1.0 request without `Host` keeps a URI without authority. The
/// path doesn't change: [`normalize_uri`](crate::normalize_uri) comes next.
///
/// `tls`: the client's connection is encrypted, so an origin-form URI becomes `https`. `body_ended`: the body has ended already
/// (`Body::is_end_stream`).
///
/// # Errors
/// A [`Refusal`] as the module's table says. The connection of an HTTP/1 client is closed after it.
pub fn check_request(request: &mut RequestHead, tls: bool, body_ended: bool) -> Result<TargetForm, Refusal> {
    let h2 = request.version >= Version::HTTP_2;
    if request.headers.contains_any(FRAMING) {
        check_framing(request, h2, body_ended)?;
    }
    if h2 {
        check_http2(&mut request.headers)?;
    }
    check_target(request, h2, tls)
}

/// The fields that frame a body.
const FRAMING: KnownSet = KnownSet::of(&[CONTENT_LENGTH, TRANSFER_ENCODING]);

// Not inlined, because only some requests need it: inlined, its code would slow down all others.
#[inline(never)]
fn check_framing(request: &RequestHead, h2: bool, body_ended: bool) -> Result<(), Refusal> {
    let mut lengths = request.headers.get_all(CONTENT_LENGTH);
    let length = lengths.next();
    if let Some(length) = length {
        if lengths.next().is_some() {
            return Err(Refusal::bad_request("There is more than one Content-Length."));
        }
        let digits = length.as_bytes();
        // A number of 19 digits fits into 64 bits; no body is longer.
        if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::bad_request("Content-Length is not a decimal number."));
        }
        if h2 && body_ended && digits.iter().any(|&digit| digit != b'0') {
            return Err(Refusal::bad_request(
                "Content-Length promises a body, and the stream has ended without one.",
            ));
        }
    }
    let mut codings = request.headers.get_all(TRANSFER_ENCODING);
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::bad_request("Transfer-Encoding is not exactly `chunked`."));
        }
        if length.is_some() {
            return Err(Refusal::bad_request("There are both Transfer-Encoding and Content-Length."));
        }
        if request.version < Version::HTTP_11 {
            return Err(Refusal::bad_request("HTTP/1.0 has no Transfer-Encoding."));
        }
    }
    Ok(())
}

/// The rules of RFC 9113 sections 8.2.1 to 8.2.3.
#[inline(never)]
fn check_http2(headers: &mut Fields) -> Result<(), Refusal> {
    // Testing that none of these fields exists is a test of bits.
    if CONNECTION_SPECIFIC.into_iter().any(|name| headers.contains_key(name)) {
        return Err(Refusal::bad_request("HTTP/2 has no connection-specific header fields."));
    }
    if headers.get_all(TE).any(|te| te != "trailers") {
        return Err(Refusal::bad_request("In HTTP/2 TE can only be `trailers`."));
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if headers.values().any(|value| blank(value.as_bytes().first()) || blank(value.as_bytes().last())) {
        return Err(Refusal::bad_request("A header field's value begins or ends with whitespace."));
    }
    join_cookies(headers);
    Ok(())
}

/// RFC 9113 section 8.2.3: HTTP/1.1 allows only one Cookie line.
fn join_cookies(headers: &mut Fields) {
    let mut crumbs = headers.get_all(COOKIE);
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    // One allocation, only for clients that split their cookies to compress them better with HPACK.
    let mut joined = Vec::new();
    for crumb in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    // Valid values with `; ` between them are a valid value.
    let _ = headers.try_insert(COOKIE, &joined);
}

#[cold]
fn bad_authority() -> Refusal {
    Refusal::bad_request("The request's target does not name a valid `host[:port]`.")
}

#[cold]
fn bad_host() -> Refusal {
    Refusal::bad_request("Host is not a valid `host[:port]`.")
}

#[cold]
fn bad_form() -> Refusal {
    Refusal::bad_request("The request's target does not have the form that its method needs.")
}

const UNKNOWN_PROTOCOL: Refusal = Refusal {
    reason: Reason::UpgradeUnsupported,
    text: std::borrow::Cow::Borrowed("An extended CONNECT can only ask for `websocket`."),
};

fn check_target(request: &mut RequestHead, h2: bool, tls: bool) -> Result<TargetForm, Refusal> {
    let form = form(request)?;
    // `WebSocket` is the same protocol (RFC 9110 section 7.8); after this, all code sees one spelling.
    if let Some(protocol) = &mut request.protocol {
        *protocol = ConnectProtocol::from_static("websocket");
    }
    check_host_lines(request, h2, form)?;
    let scheme = match request.uri.scheme() {
        None => {
            if tls {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            }
        }
        Some(scheme) if *scheme == Scheme::HTTP => Scheme::HTTP,
        Some(scheme) if *scheme == Scheme::HTTPS => Scheme::HTTPS,
        Some(_) => return Err(Refusal::bad_request("The scheme is neither http nor https.")),
    };
    let Some(authority) = request.uri.authority() else {
        return take_host(request, scheme).map(|()| form);
    };
    let target = parse_authority(authority.as_str()).ok_or_else(bad_authority)?;
    if form == TargetForm::Authority && target.port.is_none() {
        return Err(Refusal::bad_request("A CONNECT target needs a port."));
    }
    let Some(host) = request.headers.get(HOST) else { return Ok(form) };
    if host.as_bytes() == authority.as_str().as_bytes() {
        return Ok(form);
    }
    if !h2 {
        request.headers.try_insert(HOST, authority.as_str().as_bytes()).map_err(|_| bad_authority())?;
    } else if same(host_of(host)?, target, scheme.as_str()) {
        // One of the two is enough, and `:authority` is kept.
        request.headers.remove(HOST);
    } else {
        return Err(Refusal::bad_request(":authority and Host name different hosts."));
    }
    Ok(form)
}

fn form(request: &RequestHead) -> Result<TargetForm, Refusal> {
    let uri = &request.uri;
    if request.method == Method::CONNECT {
        return connect_form(request);
    }
    let absolute = uri.scheme().is_some() && request.version < Version::HTTP_2;
    match uri.path_and_query().map(PathAndQuery::as_str) {
        // The request was sent as `OPTIONS http://host` (RFC 9112 section 3.2.4).
        Some("*") if request.method == Method::OPTIONS && absolute => Ok(TargetForm::Absolute),
        Some("*") if request.method == Method::OPTIONS => Ok(TargetForm::Asterisk),
        Some(_) if !uri.path().starts_with('/') => Err(bad_form()),
        Some(_) if absolute => Ok(TargetForm::Absolute),
        Some(_) => Ok(TargetForm::Origin),
        None => Err(bad_form()),
    }
}

#[cold]
fn connect_form(request: &RequestHead) -> Result<TargetForm, Refusal> {
    let uri = &request.uri;
    if let Some(protocol) = &request.protocol {
        // No program on the way understands the requests of another protocol, so no rule could be enforced on them (RFC 9220 section 3).
        if !protocol.as_str().eq_ignore_ascii_case("websocket") {
            return Err(UNKNOWN_PROTOCOL);
        }
        // RFC 8441 section 4: scheme, path and authority must all be present.
        if uri.path().starts_with('/') && uri.authority().is_some() {
            Ok(TargetForm::Origin)
        } else {
            Err(bad_form())
        }
    } else if uri.scheme().is_none() && uri.authority().is_some() && uri.path_and_query().is_none() {
        Ok(TargetForm::Authority)
    } else {
        Err(bad_form())
    }
}

fn check_host_lines(request: &RequestHead, h2: bool, form: TargetForm) -> Result<(), Refusal> {
    let mut lines = request.headers.get_all(HOST);
    match (lines.next(), lines.next()) {
        (Some(_), Some(_)) => Err(Refusal::bad_request("There is more than one Host.")),
        // Host becomes the target's authority and is checked as such.
        (Some(_), None) if request.uri.authority().is_none() => Ok(()),
        (Some(host), None) => host_of(host).map(|_| ()),
        (None, _) if h2 && request.uri.authority().is_none() => {
            Err(Refusal::bad_request("There is neither :authority nor Host."))
        }
        (None, _) if request.version == Version::HTTP_11 && form != TargetForm::Authority => {
            Err(Refusal::bad_request("HTTP/1.1 needs a Host header."))
        }
        (None, _) => Ok(()),
    }
}

fn host_of(value: ValueRef<'_>) -> Result<HostPort<'_>, Refusal> {
    // The parser accepts only ASCII.
    std::str::from_utf8(value.as_bytes()).ok().and_then(parse_authority).ok_or_else(bad_host)
}

/// Whether both are the same host and port, in any spelling.
fn same(a: HostPort<'_>, b: HostPort<'_>, scheme: &str) -> bool {
    let port = |of: HostPort<'_>| of.port.unwrap_or_else(|| default_port(scheme));
    a.host.eq_ignore_ascii_case(b.host) && port(a) == port(b)
}

/// Makes an origin-form URI absolute, with `Host` as its authority.
fn take_host(request: &mut RequestHead, scheme: Scheme) -> Result<(), Refusal> {
    let Some(host) = request.headers.get(HOST) else { return Ok(()) };
    // In HTTP/1, both are parts of one read buffer.
    let authority = match request.headers.shared(host.as_bytes()) {
        Some(shared) => Authority::from_maybe_shared(shared),
        None => Authority::try_from(host.as_bytes()),
    };
    let authority = authority.map_err(|_| bad_host())?;
    parse_authority(authority.as_str()).ok_or_else(bad_host)?;
    let mut parts = std::mem::take(&mut request.uri).into_parts();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    request.uri = Uri::from_parts(parts).map_err(|_| bad_form())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    struct CheckedTarget(RequestHead, bool);

    type Seen = (TargetForm, String, Option<String>);

    fn h1(method: &str, target: &'static str, headers: &[(&'static str, &'static str)]) -> CheckedTarget {
        // Built as the reader of HTTP/1 builds it from a request line.
        let uri = Uri::from_maybe_shared(bytes::Bytes::from_static(target.as_bytes())).expect(target);
        let mut parts = RequestHead { method: method.parse().unwrap(), uri, ..RequestHead::default() };
        for (name, value) in headers {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        CheckedTarget(parts, false)
    }

    /// Built as the reader of HTTP/2 builds it from the pseudo-headers.
    fn h2(
        authority: Option<&'static str>,
        path: &'static str,
        headers: &[(&'static str, &'static str)],
    ) -> CheckedTarget {
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        if let Some(authority) = authority {
            parts.scheme = Some(Scheme::HTTPS);
            parts.authority = Some(Authority::try_from(authority).unwrap());
        }
        let mut request = h1("GET", "/", headers);
        request.0.uri = Uri::from_parts(parts).unwrap();
        request.0.version = Version::HTTP_2;
        request
    }

    impl CheckedTarget {
        fn version(mut self, version: Version) -> Self {
            self.0.version = version;
            self
        }

        fn ended(mut self) -> Self {
            self.1 = true;
            self
        }

        /// Form, URI and Host, or the refusal's text.
        fn go(mut self) -> Result<Seen, String> {
            let form = check_request(&mut self.0, false, self.1).map_err(|refusal| {
                assert_eq!(refusal.reason, attache_telemetry::Reason::BadRequest);
                refusal.text.into_owned()
            })?;
            let host = self.0.headers.get(HOST).map(|host| host.to_str().unwrap().to_owned());
            Ok((form, self.0.uri.to_string(), host))
        }

        fn refused(self) -> bool {
            self.go().is_err()
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with a result")]
    fn ok(form: TargetForm, uri: &str, host: Option<&str>) -> Result<Seen, String> {
        Ok((form, uri.into(), host.map(Into::into)))
    }

    #[test]
    fn an_origin_form_takes_its_authority_from_host() {
        assert_eq!(
            h1("GET", "/v1?x=1", &[("host", "orders:8080")]).go(),
            ok(TargetForm::Origin, "http://orders:8080/v1?x=1", Some("orders:8080"))
        );
        assert_eq!(h1("OPTIONS", "*", &[("host", "a")]).go().unwrap().0, TargetForm::Asterisk);
    }

    #[test]
    fn a_missing_doubled_or_invalid_host_is_refused() {
        assert!(h1("GET", "/", &[]).refused());
        assert!(h1("GET", "http://a/", &[]).refused());
        assert!(h1("GET", "/", &[("host", "a"), ("host", "a")]).refused());
        for host in ["", "a b", "user@a", "a:x", "a/b", "a,b", "a:0", "[::1", "a#b", "a?b", "a%00"] {
            assert!(h1("GET", "/", &[("host", host)]).refused(), "{host}");
            assert!(h1("GET", "http://a/", &[("host", host)]).refused(), "{host}");
        }
    }

    #[test]
    fn http_1_0_may_have_no_host() {
        assert_eq!(h1("GET", "/x", &[]).version(Version::HTTP_10).go(), ok(TargetForm::Origin, "/x", None));
    }

    #[test]
    fn the_host_of_an_absolute_form_replaces_host() {
        assert_eq!(
            h1("GET", "http://real:81/x", &[("host", "claimed")]).go(),
            ok(TargetForm::Absolute, "http://real:81/x", Some("real:81"))
        );
        assert_eq!(
            h1("OPTIONS", "http://real:81/", &[("host", "real:81")]).go(),
            ok(TargetForm::Absolute, "http://real:81/", Some("real:81"))
        );
        assert!(h1("GET", "http://user:pw@real/x", &[("host", "real")]).refused());
        assert!(h1("GET", "ftp://real/x", &[("host", "real")]).refused());
    }

    #[test]
    fn connect_names_host_and_port_and_nothing_else() {
        assert_eq!(
            h1("CONNECT", "real:443", &[("host", "claimed")]).go(),
            ok(TargetForm::Authority, "real:443", Some("real:443"))
        );
        assert_eq!(h1("CONNECT", "[::1]:443", &[]).go(), ok(TargetForm::Authority, "[::1]:443", None));
        for target in ["real", "/real:443", "http://real:443/", "u@real:443", "*", "real:0"] {
            assert!(h1("CONNECT", target, &[("host", "real")]).refused(), "{target}");
        }
        assert!(h1("GET", "real:443", &[("host", "real")]).refused());
        assert!(h1("GET", "*", &[("host", "real")]).refused());
    }

    #[test]
    fn extended_connect_needs_a_path() {
        let mut good = h2(Some("a"), "/chat", &[]);
        good.0.method = Method::CONNECT;
        good.0.protocol = Some(ConnectProtocol::from_static("websocket"));
        assert_eq!(good.go(), ok(TargetForm::Origin, "https://a/chat", None));
        for protocol in ["foo", "h2c", "connect-udp", "websocket, h2c", "http"] {
            let mut other = h2(Some("a"), "/chat", &[]).0;
            other.method = Method::CONNECT;
            other.protocol = Some(ConnectProtocol::from_static(protocol));
            let refusal = check_request(&mut other, false, false).unwrap_err();
            assert_eq!(refusal.reason, Reason::UpgradeUnsupported, "{protocol}");
        }
        let mut capital = h2(Some("a"), "/chat", &[]).0;
        capital.method = Method::CONNECT;
        capital.protocol = Some(ConnectProtocol::from_static("WebSocket"));
        check_request(&mut capital, false, false).unwrap();
        assert_eq!(capital.protocol.unwrap().as_str(), "websocket");
        let mut plain = h2(Some("a"), "/chat", &[]);
        plain.0.method = Method::CONNECT;
        assert!(plain.refused());
    }

    #[test]
    fn in_http_2_authority_and_host_must_agree() {
        assert_eq!(h2(Some("a"), "/", &[]).go(), ok(TargetForm::Origin, "https://a/", None));
        assert_eq!(
            h2(Some("a"), "/", &[("host", "a")]).go(),
            ok(TargetForm::Origin, "https://a/", Some("a"))
        );
        assert_eq!(h2(Some("a"), "/", &[("host", "A:443")]).go(), ok(TargetForm::Origin, "https://a/", None));
        assert_eq!(h2(None, "/", &[("host", "a")]).go(), ok(TargetForm::Origin, "http://a/", Some("a")));
        assert!(h2(Some("a"), "/", &[("host", "b")]).refused());
        assert!(h2(Some("a"), "/", &[("host", "a:80")]).refused());
        assert!(h2(Some("a"), "/", &[("host", "a"), ("host", "a")]).refused());
        assert!(h2(Some("u@a"), "/", &[]).refused());
        assert!(h2(None, "/", &[]).refused());
    }

    #[test]
    fn http_2_fields_that_http_1_would_read_differently_are_refused() {
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
            ("te", "gzip"),
            ("x", " a"),
            ("x", "a\t"),
            ("content-length", "+1"),
            ("content-length", "1, 1"),
            ("content-length", ""),
        ] {
            assert!(h2(Some("a"), "/", &[(name, value)]).refused(), "{name}: {value}");
        }
        assert!(h2(Some("a"), "/", &[("content-length", "1"), ("content-length", "2")]).refused());
        assert!(h2(Some("a"), "/", &[("content-length", "1")]).ended().refused());
        assert!(!h2(Some("a"), "/", &[("content-length", "00")]).ended().refused());
        assert!(!h2(Some("a"), "/", &[("te", "trailers"), ("content-length", "1")]).refused());
    }

    #[test]
    fn ambiguous_framing_that_is_still_visible_is_refused() {
        let host = ("host", "a");
        for coding in ["gzip, chunked", "Chunked,chunked", "identity", "xchunked", "chunked;x=1", ""] {
            assert!(h1("POST", "/", &[host, ("transfer-encoding", coding)]).refused(), "{coding}");
        }
        assert!(!h1("POST", "/", &[host, ("transfer-encoding", "Chunked")]).refused());
        let chunked = ("transfer-encoding", "chunked");
        assert!(h1("POST", "/", &[host, chunked, chunked]).refused());
        assert!(h1("POST", "/", &[host, chunked, ("content-length", "1")]).refused());
        assert!(h1("POST", "/", &[host, chunked]).version(Version::HTTP_10).refused());
        assert!(h1("POST", "/", &[host, ("content-length", "18446744073709551616")]).refused());
    }

    #[test]
    fn cookie_crumbs_become_one_line() {
        let mut request = h2(Some("a"), "/", &[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d")]);
        check_request(&mut request.0, true, true).unwrap();
        assert_eq!(request.0.headers.get_all(COOKIE).collect::<Vec<_>>(), ["a=1; b=2; c=3; d"]);
    }
}
