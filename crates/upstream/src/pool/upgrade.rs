//! WebSocket between HTTP/1.1 and HTTP/2: one handshake in two forms.
//!
//! HTTP/1.1 (RFC 6455 section 4) asks with `GET`, `Upgrade: websocket` and a key, and the answer is 101 with the key's
//! proof. HTTP/2 (RFC 8441 section 5) asks with `CONNECT` and `:protocol: websocket`, has no key, and the answer is
//! 200. The other fields (`Sec-WebSocket-Protocol`, `-Extensions`, `-Version`) are the same in both and pass through.
//!
//! A response that refuses (any other status) stays unchanged.

use attache_http::Body;
use attache_wire::{
    ConnectProtocol, Fields, KnownName, Request, Response, ValueRef,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
    },
};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderValue, Method, StatusCode, Version};

const WEBSOCKET: &str = "websocket";

/// The data of a request that is needed to translate its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpgradeHandshake {
    /// The client asked in HTTP/1.1's form, with this key; the response is wanted in that form.
    Http1(HeaderValue),
    /// The client asked in HTTP/2's form; attache made this key.
    Http2(HeaderValue),
}

/// An HTTP/1.1 request for a WebSocket.
pub fn is_http1(request: &Request<Body>) -> bool {
    request.method() == Method::GET
        && lists(request.headers(), UPGRADE, WEBSOCKET)
        && request.headers().contains_key(SEC_WEBSOCKET_KEY)
}

/// An HTTP/2 request for a WebSocket (extended CONNECT), from a client or made here.
pub fn is_http2(request: &Request<Body>) -> bool {
    request.method() == Method::CONNECT
        && request.head().protocol.as_ref().is_some_and(|protocol| protocol.as_str() == WEBSOCKET)
}

/// Turns HTTP/1.1's form into HTTP/2's.
pub fn to_http2(request: &mut Request<Body>) -> UpgradeHandshake {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map_or_else(new_key, ValueRef::to_header_value);
    for name in [SEC_WEBSOCKET_KEY, CONNECTION, UPGRADE, CONTENT_LENGTH, TRANSFER_ENCODING] {
        request.headers_mut().remove(name);
    }
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.body_mut() = Body::empty();
    request.head_mut().protocol = Some(ConnectProtocol::from_static(WEBSOCKET));
    UpgradeHandshake::Http1(key)
}

/// Turns HTTP/2's form into HTTP/1.1's, with a new key.
pub fn to_http1(request: &mut Request<Body>) -> UpgradeHandshake {
    let key = new_key();
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    headers.insert(SEC_WEBSOCKET_KEY, &key);
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    *request.body_mut() = Body::empty();
    request.head_mut().protocol = None;
    UpgradeHandshake::Http2(key)
}

/// Turns the response into the form of the client's request.
///
/// # Errors The mistake of an HTTP/1.1 upstream that may not have understood the request (RFC 6455 section 4.1): it
/// switched without the right proof, or it answered with a success that isn't 101. A client of HTTP/2 would take any
/// success for an open tunnel.
pub fn answer<B>(response: &mut Response<B>, handshake: &UpgradeHandshake) -> Result<(), &'static str> {
    match handshake {
        UpgradeHandshake::Http1(key) if response.status().is_success() => {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.version_mut() = Version::HTTP_11;
            let proof = accept(key);
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
            headers.insert(SEC_WEBSOCKET_ACCEPT, proof);
        }
        UpgradeHandshake::Http2(key) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let headers = response.headers_mut();
            if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|proof| proof != accept(key)) {
                return Err("the upstream switched protocols without a valid Sec-WebSocket-Accept");
            }
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            headers.remove(CONNECTION);
            headers.remove(UPGRADE);
            *response.status_mut() = StatusCode::OK;
            *response.version_mut() = Version::HTTP_2;
        }
        UpgradeHandshake::Http2(_) if response.status().is_success() => {
            return Err("the upstream answered a WebSocket handshake with a success that is not 101");
        }
        UpgradeHandshake::Http1(_) | UpgradeHandshake::Http2(_) => {}
    }
    Ok(())
}

/// Whether a 101 switches to what was `asked` for: a server can't choose a protocol that the client has not offered, and must name the one
/// that it chose (RFC 9110 section 7.8). Names are compared without regard to case, versions as they are.
pub(super) fn is_switch_to(asked: Option<&HeaderValue>, answer: &Fields) -> bool {
    let Some(asked) = asked.and_then(|asked| asked.to_str().ok()) else { return false };
    let mut chosen = answer
        .get_all(UPGRADE)
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .peekable();
    let offered = |protocol: &str| asked.split(',').any(|offer| offer.trim().eq_ignore_ascii_case(protocol));
    chosen.peek().is_some() && chosen.all(offered)
}

/// The proof for a key: base64 of SHA-1 of the key and a fixed text (RFC 6455 section 1.3). SHA-1 protects nothing
/// here; it only shows that the peer speaks WebSocket.
pub fn accept(key: &HeaderValue) -> HeaderValue {
    let mut text = key.as_bytes().to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    encoded(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
}

fn new_key() -> HeaderValue {
    encoded(&fastrand::u128(..).to_be_bytes())
}

/// Whether a list header (RFC 9110 section 5.6.1) names a token.
fn lists(headers: &Fields, name: KnownName, token: &str) -> bool {
    headers
        .get_all(name)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Base64 with padding (RFC 4648 section 4).
fn encoded(bytes: &[u8]) -> HeaderValue {
    // Base64 is ASCII, so this can't fail.
    HeaderValue::try_from(BASE64_STANDARD.encode(bytes)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use super::*;

    fn http1_request() -> Request<Body> {
        http::Request::get("http://a/chat")
            .header("upgrade", "foo, WebSocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "chat")
            .body(Body::empty())
            .unwrap()
            .into()
    }

    #[test]
    fn the_proof_is_that_of_the_rfc_s_example() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_pads_as_the_rfc_s_examples() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(encoded(plain.as_bytes()), text);
        }
    }

    #[test]
    fn an_http1_handshake_becomes_extended_connect_and_its_answer_a_101() {
        let mut request = http1_request();
        assert!(is_http1(&request));
        let handshake = to_http2(&mut request);
        assert!(is_http2(&request));
        assert_eq!(request.headers().len(), 1, "only what was asked for stays: {:?}", request.headers());
        let mut response: Response<()> =
            http::Response::builder().header("sec-websocket-protocol", "chat").body(()).unwrap().into();
        answer(&mut response, &handshake).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers().get("sec-websocket-accept").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers().get("upgrade").unwrap(), "websocket");
        assert_eq!(response.headers().get("sec-websocket-protocol").unwrap(), "chat");
    }

    #[test]
    fn an_http2_handshake_becomes_an_upgrade_and_only_the_right_proof_a_200() {
        let mut request = http1_request();
        to_http2(&mut request);
        let handshake = to_http1(&mut request);
        assert!(is_http1(&request) && !is_http2(&request));
        let right = accept(&request.headers().get("sec-websocket-key").unwrap().to_header_value());
        let respond = |proof: HeaderValue| {
            http::Response::builder()
                .status(101)
                .header("sec-websocket-accept", proof)
                .body(())
                .unwrap()
                .into()
        };
        let mut response = respond(right);
        answer(&mut response, &handshake).unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers().is_empty());
        assert!(answer(&mut respond(HeaderValue::from_static("wrong")), &handshake).is_err());
    }

    #[test]
    fn a_101_switches_to_what_was_asked_for() {
        let answer = |upgrade: &[&'static str]| {
            upgrade.iter().map(|value| (UPGRADE, HeaderValue::from_static(value))).collect::<Fields>()
        };
        let asked = HeaderValue::from_static("foo/2, WebSocket");
        for (chosen, good) in [
            (&["websocket"][..], true),
            (&["FOO/2"], true),
            (&["foo/2, websocket"], true),
            (&["foo"], false),
            (&["h2c"], false),
            (&["websocket, h2c"], false),
            (&["websocket", "h2c"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(is_switch_to(Some(&asked), &answer(chosen)), good, "{chosen:?}");
        }
        assert!(!is_switch_to(None, &answer(&["websocket"])), "nobody asked");
    }

    #[test]
    fn a_success_that_is_not_101_opens_no_tunnel_of_http2() {
        let mut request = http1_request();
        to_http2(&mut request);
        let handshake = to_http1(&mut request);
        for status in [200, 201, 204, 206, 299] {
            let mut response: Response<()> =
                http::Response::builder().status(status).body(()).unwrap().into();
            assert!(answer(&mut response, &handshake).is_err(), "{status}");
        }
        for status in [302, 400, 403, 426, 500] {
            let mut response: Response<()> =
                http::Response::builder().status(status).body(()).unwrap().into();
            answer(&mut response, &handshake).unwrap();
            assert_eq!(response.status(), status);
        }
    }

    #[test]
    fn a_refusal_stays_unchanged() {
        let mut response: Response<()> = http::Response::builder().status(403).body(()).unwrap().into();
        answer(&mut response, &UpgradeHandshake::Http1(HeaderValue::from_static("k"))).unwrap();
        assert_eq!(response.status(), 403);
        assert!(response.headers().is_empty());
    }
}
