//! Handles the fields that belong to one connection and end there.
//!
//! Rule (RFC 9110 section 7.6.1): `Connection`, every field that it names, and the fields that are known to be for one connection end here,
//! in both directions. attache differs from the RFC in two points:
//! - `Connection` can't remove a field that the next hop relies on. `Connection: authorization` would remove credentials that a check after
//!   attache needs; `Connection: x-forwarded-for` would remove the addresses of earlier hops (CVE-2022-31813, CVE-2024-45410). Envoy
//!   refuses some of these names, and Go removes all named fields. attache keeps such a field, because RFC 9110 forbids naming end-to-end
//!   fields anyway. Fields that a route or attache adds are added after this step, so a client can't remove them by naming them.
//! - `Proxy-Authorization` and `Proxy-Authenticate` are for the next proxy. They end here if attache was used as that proxy (absolute-form,
//!   CONNECT). Otherwise they are passed on to the proxy that they are meant for.
//!
//! An upgrade (section 7.8) that attache carries keeps `Upgrade` and `Connection: upgrade`. attache never carries an upgrade to a protocol
//! with requests of its own, because those requests would avoid routes and rules: `h2c` (withdrawn by RFC 9113 section 3.1) and HTTP of any
//! version, also in TLS (RFC 2817).

use attache_config::model::Upgrades;
use attache_wire::{
    ConnectProtocol, FieldName, Fields, KnownName, KnownSet, RequestHead, ValueRef,
    header::{
        self, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, HOST, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

/// A request that asks to change the connection (or the stream) to another protocol than HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// HTTP/1.1 `Upgrade` with its protocols, for example `websocket`; accepted with 101.
    Http1(HeaderValue),
    /// `CONNECT host:port` in either version; accepted with a 2xx.
    Connect,
    /// HTTP/2 CONNECT with `:protocol` (RFC 8441), for example `websocket`; accepted with a 2xx.
    Extended(ConnectProtocol),
}

/// What happens to a request that asks for an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeDecision {
    /// The upgrade is passed on.
    Yes,
    /// The request is served without it.
    Ignored,
    /// The request is refused.
    No,
}

impl Upgrade {
    /// The upgrade that a request asks for; `None` for plain HTTP. An `Upgrade` is ignored if `Connection` doesn't name it, if the request
    /// is HTTP/1.0 (RFC 9110 section 7.8), or if it offers a protocol that carries requests.
    pub fn of(request: &RequestHead) -> Option<Self> {
        if request.method == Method::CONNECT {
            return Some(match &request.protocol {
                Some(protocol) => Self::Extended(protocol.clone()),
                None => Self::Connect,
            });
        }
        if request.version != Version::HTTP_11 {
            return None;
        }
        let mut protocols = request.headers.get_all(UPGRADE);
        let protocol = protocols.next()?;
        let carried = protocols.next().is_none()
            && lists(&request.headers, CONNECTION, "upgrade")
            && !tokens(protocol.as_bytes()).any(has_requests);
        carried.then(|| Self::Http1(protocol.to_header_value()))
    }

    /// Whether these settings allow it. A CONNECT is allowed or refused by routes, so these settings always allow it.
    pub fn permitted(&self, upgrades: &Upgrades) -> UpgradeDecision {
        let allowed = match self {
            // A value that isn't text names no protocol that could be allowed.
            Self::Http1(protocols) => {
                let all = || tokens(protocols.as_bytes());
                *upgrades == Upgrades::Any || all().next().is_some() && upgrades.allow(all())
            }
            Self::Extended(protocol) => upgrades.allow(std::iter::once(protocol.as_str())),
            Self::Connect => true,
        };
        match (allowed, self) {
            (true, _) => UpgradeDecision::Yes,
            // An extended CONNECT without its protocol would not be a request, so it can't be served without the upgrade.
            (false, Self::Http1(_)) if *upgrades == Upgrades::Ignore => UpgradeDecision::Ignored,
            (false, _) => UpgradeDecision::No,
        }
    }

    /// Whether it becomes a WebSocket, in HTTP/1 (RFC 6455) or HTTP/2 (RFC 8441).
    pub fn is_websocket(&self) -> bool {
        match self {
            Self::Http1(protocols) => {
                tokens(protocols.as_bytes()).any(|token| token.eq_ignore_ascii_case("websocket"))
            }
            Self::Extended(protocol) => protocol.as_str().eq_ignore_ascii_case("websocket"),
            Self::Connect => false,
        }
    }
}

/// Whether a protocol in `Upgrade`, with or without a version, carries requests that routes and rules can't see.
fn has_requests(protocol: &str) -> bool {
    attache_config::has_requests(protocol.split('/').next().unwrap_or_default())
}

/// Removes the hop-by-hop fields from a request. `upgrade` is the result of [`Upgrade::of`], if the upgrade is passed on. `proxied` says
/// that the client used attache as its proxy ([`TargetForm::is_proxied`](crate::TargetForm::is_proxied)).
pub fn strip_request(headers: &mut Fields, upgrade: Option<&Upgrade>, proxied: bool) {
    let trailers = headers.contains_key(TE) && lists(headers, TE, "trailers");
    let switches = matches!(upgrade, Some(Upgrade::Http1(_)));
    strip(headers, switches, trailers);
    // `TE: trailers` says that the sender will read trailers. That is true of every hop that passes trailers on, and gRPC requires it.
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if proxied {
        headers.remove(PROXY_AUTHORIZATION);
    }
    if let Some(Upgrade::Http1(protocol)) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

const REASON: KnownName = header::X_ATTACHE_REASON;
const UPSTREAM_REASON: KnownName = header::X_ATTACHE_UPSTREAM_REASON;

/// Removes the hop-by-hop fields from an upstream's response. If `upgrade` is set, `Upgrade` stays: for a 101 that is passed on, and for a
/// 426, which must name the protocol. The reason of another attache is passed on under the name for an upstream's reason, so that nobody
/// takes it for ours.
pub fn strip_response(headers: &mut Fields, upgrade: bool, proxied: bool) {
    let upgrade = upgrade && headers.contains_key(UPGRADE);
    strip(headers, upgrade, false);
    if headers.contains_key(REASON) {
        headers.remove(UPSTREAM_REASON);
        headers.rename(REASON, UPSTREAM_REASON);
    }
    if proxied {
        headers.remove(PROXY_AUTHENTICATE);
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Keeps only the trailers that may be sent in HTTP/1: those that the head's `Trailer` announces (RFC 9110 section 6.6.2), without fields
/// about framing, routing, content or caching, which must not be trailers (section 6.5.1).
pub fn announced_trailers(trailers: &mut HeaderMap, head: &Fields) {
    const FORBIDDEN: [KnownName; 12] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
    ];
    let others: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            name.known().is_some_and(|name| FORBIDDEN.contains(&name)) || !lists(head, TRAILER, name.as_str())
        })
        .cloned()
        .collect();
    for name in others {
        trailers.remove(name);
    }
}

const KEEP_ALIVE: KnownName = header::KEEP_ALIVE;
const PROXY_CONNECTION: KnownName = header::PROXY_CONNECTION;
const HTTP2_SETTINGS: KnownName = header::HTTP2_SETTINGS;

/// The fields that HTTP/2 doesn't have: those of one connection (RFC 9113 section 8.2.2), except `TE`.
pub const CONNECTION_SPECIFIC: [KnownName; 5] =
    [CONNECTION, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION];

/// The fields that end here even if `Connection` doesn't name them.
const HOP_BY_HOP: [KnownName; 6] =
    [TE, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS];

/// If `switches` is set, `Upgrade` and `Connection` stay, because the caller sets them again; `trailers` does the same for `TE`. They keep
/// their position and their spelling.
fn strip(headers: &mut Fields, switches: bool, trailers: bool) {
    if headers.contains_key(CONNECTION) {
        // `keep-alive` and `close` are not names of fields in the message.
        let usual = |line: ValueRef<'_>| matches!(line.as_bytes(), b"keep-alive" | b"Keep-Alive" | b"close");
        if !switches && headers.get_all(CONNECTION).all(usual) {
            headers.remove(CONNECTION);
        } else {
            strip_named(headers, switches, trailers);
        }
    }
    if headers.contains_any(KnownSet::of(&HOP_BY_HOP)) {
        for name in HOP_BY_HOP {
            if !is_set_anew(name, switches, trailers) {
                headers.remove(name);
            }
        }
    }
}

fn is_set_anew(name: KnownName, switches: bool, trailers: bool) -> bool {
    (name == UPGRADE && switches) || (name == TE && trailers)
}

/// Removes `Connection` and the fields that it names.
fn strip_named(headers: &mut Fields, switches: bool, trailers: bool) {
    // The lines are copied, so that fields can be removed while the names are read. All lines count: an empty first line must not hide the
    // second (golang/go#46313).
    let lines: Vec<HeaderValue> = headers.get_all(CONNECTION).map(ValueRef::to_header_value).collect();
    if !switches {
        headers.remove(CONNECTION);
    }
    for token in lines.iter().flat_map(|line| tokens(line.as_bytes())) {
        let known = KnownName::of(token.as_bytes());
        let kept = known
            .is_some_and(|name| is_set_anew(name, switches, trailers) || (name == CONNECTION && switches));
        if !kept && !survives(token) {
            headers.remove(token);
        }
    }
}

/// Whether a field can't be removed by naming it in `Connection`.
fn survives(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "authorization",
        "b3",
        "baggage",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "location",
        "origin",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "referer",
        "set-cookie",
        "strict-transport-security",
        "trailer",
        "traceparent",
        "tracestate",
        "vary",
        "via",
        "www-authenticate",
        "x-real-ip",
        "x-request-id",
    ];
    let begins =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    NAMES.iter().any(|kept| kept.eq_ignore_ascii_case(name))
        // `x-…`: the path of the request so far, and its trace. `sec-…`: the browser guarantees that no script wrote it. `grpc-…` and `:…`:
        // parts of the protocol.
        || ["x-forwarded-", "x-envoy-", "x-b3-", "sec-", "grpc-", ":"].into_iter().any(begins)
}

/// The elements of a comma-separated list; a value that isn't text has none.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &str> {
    let text = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    let text = if text { std::str::from_utf8(value).unwrap_or_default() } else { "" };
    text.split(',').map(|token| token.trim_matches([' ', '\t'])).filter(|token| !token.is_empty())
}

/// Whether one line of a list header contains this element.
pub(crate) fn lists(headers: &Fields, name: KnownName, element: &str) -> bool {
    headers
        .get_all(name)
        .flat_map(|line| tokens(line.as_bytes()))
        .any(|token| token.eq_ignore_ascii_case(element))
}

/// Gives a request the `Host` that HTTP/1.1 needs, from the URI's authority (RFC 9113 section 8.3.1). The code that writes the request
/// calls this.
pub fn host_from_uri(request: &mut RequestHead) {
    if let Some(authority) = request.uri.authority()
        && !request.headers.contains_key(HOST)
        // A header value may contain every byte of an authority.
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers.insert(HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(version: Version, method: Method, headers: &[(&'static str, &'static str)]) -> RequestHead {
        let mut parts = RequestHead { version, method, ..RequestHead::default() };
        for (name, value) in headers {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        parts
    }

    fn left(headers: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut request = parts(Version::HTTP_11, Method::GET, headers);
        strip_request(&mut request.headers, None, false);
        let mut names: Vec<_> =
            request.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        names.sort();
        names
    }

    #[test]
    fn the_fields_that_connection_names_are_removed() {
        assert_eq!(
            left(&[
                ("connection", ""),
                ("connection", "close, Foo ,bar"),
                ("foo", "1"),
                ("bar", "2"),
                ("baz", "3")
            ]),
            ["baz: 3"]
        );
    }

    #[test]
    fn fields_that_the_next_hop_relies_on_stay_though_connection_names_them() {
        assert_eq!(
            left(&[
                (
                    "connection",
                    "Host, content-length, AUTHORIZATION, X-Forwarded-For, cookie, :path, x, x-tenant"
                ),
                ("x-tenant", "gone, too"),
                ("host", "a"),
                ("content-length", "1"),
                ("authorization", "b"),
                ("x-forwarded-for", "c"),
                ("cookie", "d"),
                ("x", "gone"),
            ]),
            ["authorization: b", "content-length: 1", "cookie: d", "host: a", "x-forwarded-for: c"]
        );
    }

    #[test]
    fn the_known_hop_by_hop_fields_are_removed_without_being_named() {
        assert_eq!(
            left(&[
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "gzip"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
                ("trailer", "x-sum"),
                ("proxy-authorization", "for the next proxy"),
            ]),
            ["proxy-authorization: for the next proxy", "trailer: x-sum"]
        );
    }

    #[test]
    fn fields_that_are_set_again_keep_their_position_and_spelling() {
        let read = |text: &str| {
            let limits = attache_wire::HeadLimits { line: 100, size: 1000, count: 10 };
            let mut buf = bytes::BytesMut::from(text);
            let target = attache_wire::request::TargetStrictness::Strict;
            attache_wire::request::read(&mut buf, &limits, target).unwrap().unwrap().1
        };
        let head = read(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nTE: gzip, trailers\r\nConnection: Upgrade, TE, connection, X\r\nX: 1\r\nY: 2\r\n\r\n",
        );
        let mut headers = head.headers.clone();
        strip_request(&mut headers, Upgrade::of(&head).as_ref(), false);
        let lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{}: {}", name.as_bytes().escape_ascii(), value.to_str().unwrap()))
            .collect();
        assert_eq!(lines, ["Host: a", "Upgrade: WebSocket", "TE: trailers", "Connection: upgrade", "Y: 2"]);
        strip_request(&mut headers, None, false);
        assert_eq!(headers.len(), 3, "{headers:?}");
    }

    #[test]
    fn te_is_cut_down_to_trailers() {
        assert_eq!(left(&[("te", "gzip;q=0.5, Trailers"), ("connection", "te")]), ["te: trailers"]);
    }

    #[test]
    fn credentials_for_attache_as_a_proxy_are_not_passed_on() {
        let mut request = parts(Version::HTTP_11, Method::GET, &[("proxy-authorization", "x")]);
        strip_request(&mut request.headers, None, true);
        assert!(request.headers.is_empty());
    }

    #[test]
    fn an_upgrade_that_is_passed_on_keeps_its_two_headers() {
        let mut request = parts(
            Version::HTTP_11,
            Method::GET,
            &[("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")],
        );
        let upgrade = Upgrade::of(&request);
        assert_eq!(upgrade, Some(Upgrade::Http1(HeaderValue::from_static("websocket"))));
        assert!(upgrade.as_ref().is_some_and(Upgrade::is_websocket));
        strip_request(&mut request.headers, upgrade.as_ref(), false);
        assert_eq!(request.headers.get("upgrade").unwrap(), "websocket");
        assert_eq!(request.headers.get("connection").unwrap(), "upgrade");

        let mut response = request.headers.clone();
        strip_response(&mut response, true, false);
        assert_eq!(response.get("upgrade").unwrap(), "websocket");
        strip_response(&mut response, false, false);
        assert!(response.is_empty());
    }

    #[test]
    fn an_invalid_upgrade_is_not_carried() {
        let websocket = ("upgrade", "websocket");
        let named = ("connection", "upgrade");
        for request in [
            parts(Version::HTTP_10, Method::GET, &[websocket, named]),
            parts(Version::HTTP_2, Method::GET, &[websocket, named]),
            parts(Version::HTTP_11, Method::GET, &[websocket]),
            parts(Version::HTTP_11, Method::GET, &[websocket, websocket, named]),
            parts(Version::HTTP_11, Method::GET, &[("upgrade", "h2c"), named]),
            parts(Version::HTTP_11, Method::GET, &[("upgrade", "websocket, H2C"), named]),
            parts(Version::HTTP_11, Method::GET, &[("upgrade", "h2c/1"), named]),
            parts(Version::HTTP_11, Method::GET, &[("upgrade", "HTTP/2.0"), named]),
            parts(Version::HTTP_11, Method::OPTIONS, &[("upgrade", "TLS/1.0, HTTP/1.1"), named]),
            parts(Version::HTTP_11, Method::GET, &[("upgrade", "tls/1.3"), named]),
            parts(Version::HTTP_11, Method::GET, &[("upgrade", "websocket, H2C"), named]),
        ] {
            assert_eq!(Upgrade::of(&request), None, "{request:?}");
        }
    }

    #[test]
    fn no_list_allows_an_upgrade_that_is_not_text() {
        let only = Upgrades::Only(vec!["websocket".into()]);
        for (protocol, permitted) in [
            (&b"websocket"[..], UpgradeDecision::Yes),
            (b"WebSocket", UpgradeDecision::Yes),
            (b"\xffwebsocket", UpgradeDecision::No),
            (b"websocket\xff", UpgradeDecision::No),
            (b"websocket, \xff", UpgradeDecision::No),
            (b",", UpgradeDecision::No),
            (b"", UpgradeDecision::No),
        ] {
            let upgrade = Upgrade::Http1(HeaderValue::from_bytes(protocol).unwrap());
            assert_eq!(upgrade.permitted(&only), permitted, "{protocol:?}");
            assert_eq!(upgrade.permitted(&Upgrades::Any), UpgradeDecision::Yes);
        }
        assert_eq!(Upgrade::Connect.permitted(&only), UpgradeDecision::Yes);
        let extended = Upgrade::Extended(ConnectProtocol::from_static("websocket"));
        assert_eq!(extended.permitted(&only), UpgradeDecision::Yes);
        assert_eq!(extended.permitted(&Upgrades::Ignore), UpgradeDecision::No);
    }

    #[test]
    fn extended_connect_and_connect_are_distinguished() {
        let mut request = parts(Version::HTTP_2, Method::CONNECT, &[]);
        assert_eq!(Upgrade::of(&request), Some(Upgrade::Connect));
        request.protocol = Some(ConnectProtocol::from_static("websocket"));
        assert!(Upgrade::of(&request).is_some_and(|upgrade| upgrade.is_websocket()));
    }
}
