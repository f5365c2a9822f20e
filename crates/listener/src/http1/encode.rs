//! Decides how a response is written: where its body ends for this client, and whether the connection persists.

use std::{cell::RefCell, time::SystemTime};

use attache_http::Body;
use attache_wire::{
    Fields, Response, ValueRef,
    header::{CONNECTION, CONTENT_LENGTH, DATE},
    outbox::BodyEncoder,
    write::{self, ConnectionPersistence},
};
use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, StatusCode};

/// The properties of a request that its response depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestTraits {
    /// HEAD: the response has no body, whatever its head says.
    pub(super) head: bool,
    /// CONNECT: a success opens a tunnel.
    pub(super) connect: bool,
    pub(super) http11: bool,
    pub(super) takes_trailers: bool,
    /// The client allows another request.
    pub(super) persists: bool,
    /// The next bytes may be another protocol.
    pub(super) may_switch: bool,
}

/// How a response is written.
#[derive(Debug)]
pub(super) struct OutgoingFraming {
    pub(super) encoder: BodyEncoder,
    /// The connection ends with this response.
    pub(super) closes: bool,
}

/// Writes the head of a response.
pub(super) fn head(
    out: &mut BytesMut,
    answer: &mut Response<Body>,
    asked: RequestTraits,
    tunnel: bool,
    may_persist: bool,
) -> OutgoingFraming {
    let encoder = if tunnel { BodyEncoder::None } else { encoder(answer, asked) };
    let closes = encoder == BodyEncoder::UntilEnd || !may_persist || says_close(answer.headers());
    let connection = match (tunnel, closes) {
        (true, _) => ConnectionPersistence::AsItIs,
        (false, true) => ConnectionPersistence::Closes,
        (false, false) if asked.http11 => ConnectionPersistence::Persists,
        (false, false) => ConnectionPersistence::KeepAlive,
    };
    let status = answer.status();
    if status == StatusCode::NO_CONTENT || status.is_informational() {
        // RFC 9110 section 8.6: this response must not have a length.
        answer.headers_mut().remove(CONTENT_LENGTH);
    }
    if !status.is_informational() && !answer.headers().contains_key(DATE) {
        answer.headers_mut().insert(DATE, date());
    }
    let line = (status, answer.head().reason.as_deref());
    write::response(out, asked.http11, line, answer.headers(), encoder, connection);
    OutgoingFraming { encoder, closes }
}

fn encoder(answer: &mut Response<Body>, asked: RequestTraits) -> BodyEncoder {
    let exact = http_body::Body::size_hint(answer.body()).exact();
    let promised = answer.headers().get(CONTENT_LENGTH).and_then(ValueRef::to_number);
    if asked.head || matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        if let (None, Some(length @ 1..)) = (promised, exact) {
            answer.headers_mut().insert(CONTENT_LENGTH, length);
        }
        return BodyEncoder::None;
    }
    match promised.or(exact) {
        Some(length) => BodyEncoder::Length(length),
        None if asked.http11 => BodyEncoder::Chunked,
        None => BodyEncoder::UntilEnd,
    }
}

fn says_close(headers: &Fields) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// The trailers that may be sent: those that the response has announced, if the client accepts trailers (RFC 9110 section 6.5.1), without
/// fields about the message's framing, routing or content.
pub(super) fn trailers(mut trailers: HeaderMap, announced: &Fields) -> Option<HeaderMap> {
    attache_http::announced_trailers(&mut trailers, announced);
    (!trailers.is_empty()).then_some(trailers)
}

thread_local! {
    static NOW: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// The `Date` of a response that has none (RFC 9110 section 6.6.1). It is made once a second.
pub(crate) fn date() -> HeaderValue {
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    NOW.with_borrow_mut(|(at, value)| {
        if *at != seconds {
            *at = seconds;
            if let Ok(fresh) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
                *value = fresh;
            }
        }
        value.clone()
    })
}
