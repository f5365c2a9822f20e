//! Compresses responses for clients that can decode them.
//!
//! **Rule.** Of the codings in the config, the one that the client prefers is used (RFC 9110 section 12.5.3); if the client prefers several
//! equally, the first of them in the config. Only complete responses of the listed types are compressed, from a size on. Never compressed
//! are responses that are encoded already, that say `no-transform`, that are only a part (206, 304, HEAD), or that are gRPC. A strong ETag
//! becomes weak, because the bytes change and the content doesn't. A response that depends on `Accept-Encoding` says so in `Vary`,
//! compressed or not.
//!
//! When the upstream pauses, everything that it has sent so far is flushed: compression doesn't delay a stream.
//!
//! **Limit.** At most `max_responses` responses are compressed at the same time, over all workers; further ones are sent uncompressed.
//! Windows are small: a coder needs less than 1 MiB.

mod coder;
mod negotiate;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use attache_config::model::{self, Coding};
use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use attache_wire::{
    Fields, RequestHead, Response, ValueRef,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use self::{
    coder::Coder,
    negotiate::{ChosenCoding, choose},
};

/// How many bytes are compressed at once, before other tasks have their turn.
const PIECE: usize = 32 << 10;

/// Fields about the uncompressed bytes, which the client doesn't get (RFC 9530, RFC 9110 section 14.3).
const OF_OTHER_BYTES: [&str; 5] = ["accept-ranges", "content-md5", "content-digest", "repr-digest", "digest"];

/// How many responses are being compressed in the whole process.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// What is needed to compress one response.
#[derive(Debug)]
pub(crate) struct Compress {
    config: Arc<model::Compression>,
    chosen: ChosenCoding,
    head: bool,
    /// The client has a response with a weak tag: perhaps a compressed one.
    has_weak: bool,
}

impl Compress {
    pub(crate) fn of(config: &Arc<model::Compression>, request: &RequestHead) -> Self {
        let fixed = is_fixed(&request.headers);
        let chosen = choose(&config.codings, request.headers.get_all(header::ACCEPT_ENCODING));
        let chosen = if fixed { ChosenCoding::default() } else { chosen };
        let known = request.headers.get_all(header::IF_NONE_MATCH);
        let has_weak = known.into_iter().any(|tags| tags.as_bytes().windows(2).any(|pair| pair == b"W/"));
        Self { config: Arc::clone(config), chosen, head: request.method == Method::HEAD, has_weak }
    }

    /// Compresses a response. Returns the coding, if it did.
    pub(crate) fn response(self, response: &mut Response<Body>) -> Option<Coding> {
        let status = response.status();
        let length = response.headers().get(CONTENT_LENGTH).and_then(ValueRef::to_number);
        let headers = response.headers_mut();
        if status == StatusCode::NOT_MODIFIED && self.has_weak {
            // This response renews the one that the client has. Its weak tag must not become a strong one (RFC 9111 section 3.2).
            weaken(headers);
            vary(headers);
            return None;
        }
        if !has_content(status) || !may_change(headers) || !self.is_of_the_types(headers) {
            return None;
        }
        vary(headers);
        let ChosenCoding { coding: Some(coding), identity_is_refused } = self.chosen else { return None };
        let small = length.is_some_and(|length| length < self.config.min_size as u64);
        if self.head || (small && !identity_is_refused) || response.body().is_end_stream() {
            return None;
        }
        let permit = CompressionPermit::take(self.config.max_responses)?;
        let coder = Coder::new(coding)?;
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        headers.remove(CONTENT_LENGTH);
        for name in OF_OTHER_BYTES {
            headers.remove(name);
        }
        weaken(headers);
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = Body::stream(Compressed {
            body,
            coder: Some(coder),
            input: Bytes::new(),
            unflushed: false,
            trailers: None,
            _permit: permit,
        });
        Some(coding)
    }

    fn is_of_the_types(&self, headers: &Fields) -> bool {
        let Some(found) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let found = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        !found.starts_with("application/grpc")
            && self.config.types.iter().any(|wanted| wanted.matches(&found))
    }
}

/// Whether a response with this status has the whole content, and not a part of it or another protocol.
fn has_content(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
        )
}

/// Whether a response may be encoded: it isn't encoded yet, and no header forbids it.
fn may_change(headers: &Fields) -> bool {
    let encoded =
        headers.get_all(CONTENT_ENCODING).any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    !encoded && !is_fixed(headers) && !headers.contains_key(header::CONTENT_RANGE)
}

/// Whether the content must not be changed: RFC 9111 section 5.2.1.6 (for a request) and 5.2.2.6 (for a response).
fn is_fixed(headers: &Fields) -> bool {
    headers.get_all(CACHE_CONTROL).any(|line| {
        let directives = line.as_bytes().split(|byte| *byte == b',');
        directives.into_iter().any(|it| it.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
    })
}

fn vary(headers: &mut Fields) {
    let there = headers.get_all(header::VARY).any(|line| {
        let names = line.as_bytes().split(|byte| *byte == b',');
        names.into_iter().any(|it| {
            matches!(it.trim_ascii(), b"*") || it.trim_ascii().eq_ignore_ascii_case(b"accept-encoding")
        })
    });
    if !there {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Makes an ETag weak. RFC 9110 section 8.8.1: a strong validator changes when the bytes change.
fn weaken(headers: &mut Fields) {
    let Some(tag) = headers.get(header::ETAG) else { return };
    if tag.as_bytes().starts_with(b"\"") {
        let weak = [b"W/", tag.as_bytes()].concat();
        let _ = headers.try_insert(header::ETAG, &weak);
    }
}

/// The trailers after compressed bytes. Fields about the uncompressed bytes are removed, as in the head.
fn of_compressed(mut trailers: HeaderMap) -> HeaderMap {
    for name in OF_OTHER_BYTES {
        trailers.remove(name);
    }
    // An ETag may also be a trailer (RFC 9110 section 8.8.3); there it would not match the tag of the head.
    trailers.remove(header::ETAG);
    trailers
}

/// A permit for one of the responses that may be compressed at once.
#[derive(Debug)]
struct CompressionPermit;

impl CompressionPermit {
    fn take(max: usize) -> Option<Self> {
        let taken = ACTIVE.fetch_update(Relaxed, Relaxed, |active| (active < max).then_some(active + 1));
        taken.ok().map(|_| Self)
    }
}

impl Drop for CompressionPermit {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Relaxed);
    }
}

/// A body that is compressed while it is received.
struct Compressed {
    body: Body,
    /// `None` after the end.
    coder: Option<Coder>,
    /// Data that arrived and isn't compressed yet.
    input: Bytes,
    /// The coder may hold data back.
    unflushed: bool,
    trailers: Option<HeaderMap>,
    _permit: CompressionPermit,
}

impl HttpBody for Compressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let failed = |error: std::io::Error| BodyError::with_source(Some(Reason::InternalError), error);
        loop {
            let Some(coder) = &mut this.coder else {
                return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            };
            if !this.input.is_empty() {
                let piece = this.input.split_to(this.input.len().min(PIECE));
                coder.write(&piece).map_err(failed)?;
                this.unflushed = true;
                let out = coder.take();
                if !out.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                }
                continue;
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.input = data;
                        continue;
                    }
                    Err(frame) => this.trailers = frame.into_trailers().ok().map(of_compressed),
                },
                Poll::Ready(Some(Err(error))) => {
                    // The body is cut, not ended: no last block tells the reader that it is complete.
                    this.coder = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {}
                Poll::Pending if this.unflushed => {
                    coder.flush().map_err(failed)?;
                    this.unflushed = false;
                    let out = coder.take();
                    if out.is_empty() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                }
                Poll::Pending => return Poll::Pending,
            }
            if let Some(coder) = this.coder.take() {
                let out = coder.finish().map_err(failed)?;
                if !out.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.coder.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, io::Read as _};

    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    /// A body of several pieces, with a pause after each.
    struct PausingBody {
        left: VecDeque<Result<Bytes, Reason>>,
        paused: bool,
    }

    impl HttpBody for PausingBody {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            self.paused = !self.paused;
            if self.paused {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(self.left.pop_front().map(|piece| piece.map(Frame::data).map_err(BodyError::new)))
        }
    }

    fn config(max_responses: usize) -> Arc<model::Compression> {
        Arc::new(model::Compression { max_responses, min_size: 0, ..model::Compression::default() })
    }

    fn response(pieces: Vec<Result<Bytes, Reason>>, fields: &[(&str, &str)]) -> Response<Body> {
        let mut response = Response::new(Body::stream(PausingBody { left: pieces.into(), paused: false }));
        response.headers_mut().insert("content-type", HeaderValue::from_static("text/html; charset=utf-8"));
        for (name, value) in fields {
            response.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        response
    }

    fn request(accept: &str) -> RequestHead {
        let built = http::Request::get("/").header("accept-encoding", accept).body(()).unwrap();
        RequestHead::from(built.into_parts().0)
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out)?,
            Coding::Zstd => zstd::stream::read::Decoder::new(bytes)?.read_to_end(&mut out)?,
            Coding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out)?,
        };
        Ok(out)
    }

    async fn sent(mut response: Response<Body>) -> (Vec<u8>, bool) {
        let (mut all, mut cut) = (Vec::new(), false);
        while let Some(frame) = response.body_mut().frame().await {
            match frame {
                Ok(frame) => all.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => cut = true,
            }
        }
        (all, cut)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_compressed_body_decodes_to_the_original(pieces in prop::collection::vec(prop::collection::vec(0u8..9, 0..90_000), 0..5)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for coding in [Coding::Gzip, Coding::Zstd, Coding::Br] {
                let frames = pieces.iter().cloned().map(|piece| Ok(Bytes::from(piece))).collect();
                let mut response = response(frames, &[]);
                let compress = Compress::of(&config(usize::MAX), &request(coding.as_str()));
                prop_assert_eq!(compress.response(&mut response), Some(coding));
                let (bytes, cut) = runtime.block_on(sent(response));
                prop_assert!(!cut);
                prop_assert_eq!(decoded(coding, &bytes).unwrap(), pieces.concat());
            }
        }
    }

    #[tokio::test]
    async fn no_trailer_is_about_bytes_that_the_client_does_not_get() {
        let mut trailers = HeaderMap::new();
        for name in OF_OTHER_BYTES.iter().chain(&["etag", "server-timing"]) {
            trailers.insert(*name, HeaderValue::from_static("x"));
        }
        let content = http_body_util::Full::new(Bytes::from_static(b"some text"))
            .map_err(|never| match never {})
            .with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = Response::new(Body::stream(content));
        response.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
        assert!(Compress::of(&config(9), &request("gzip")).response(&mut response).is_some());
        let collected = std::mem::take(response.body_mut()).collect().await.unwrap();
        let left = collected.trailers().unwrap();
        assert_eq!(left.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["server-timing"]);
    }

    #[tokio::test]
    async fn a_cut_body_has_no_valid_end() {
        for coding in [Coding::Gzip, Coding::Zstd, Coding::Br] {
            let pieces = vec![Ok(Bytes::from(vec![b'a'; 5000])), Err(Reason::UpstreamReset)];
            let mut response = response(pieces, &[]);
            Compress::of(&config(usize::MAX), &request(coding.as_str())).response(&mut response);
            let (bytes, cut) = sent(response).await;
            assert!(cut && decoded(coding, &bytes).is_err(), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn no_more_than_the_limit_are_compressed_at_once() {
        let one = |max| {
            let mut response = response(vec![Ok(Bytes::from_static(b"text"))], &[]);
            let coding = Compress::of(&config(max), &request("gzip")).response(&mut response);
            (response, coding)
        };
        // Other tests compress at the same time as this one.
        let (_held, coding) = one(usize::MAX);
        assert!(coding.is_some());
        let (response, coding) = one(0);
        assert_eq!((coding, response.headers().contains_key("content-encoding")), (None, false));
    }

    #[test]
    fn an_encoded_or_no_transform_response_is_not_changed() {
        for (name, value) in [
            ("content-encoding", "br"),
            ("content-encoding", "x-mine"),
            ("cache-control", "private, NO-TRANSFORM"),
            ("content-range", "bytes 0-1/2"),
            ("content-type", "image/png"),
            ("content-type", "application/grpc-web+proto"),
        ] {
            let mut response = response(Vec::new(), &[(name, value)]);
            assert_eq!(
                Compress::of(&config(usize::MAX), &request("gzip")).response(&mut response),
                None,
                "{name}: {value}"
            );
        }
        for status in [204, 205, 206, 304] {
            let mut response = response(vec![Ok(Bytes::from_static(b"text"))], &[]);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let coding = Compress::of(&config(usize::MAX), &request("gzip")).response(&mut response);
            assert_eq!((coding, response.headers().contains_key("vary")), (None, false), "{status}");
        }
        // gRPC has its own compression, whatever the list of types says.
        let types = vec![model::MediaTypes::of("application/*")];
        let every = Arc::new(model::Compression { types, min_size: 0, ..model::Compression::default() });
        for (kind, expected) in [
            ("application/grpc+proto", None),
            ("application/grpc", None),
            ("application/json", Some(Coding::Gzip)),
        ] {
            let mut response = response(vec![Ok(Bytes::from_static(b"text"))], &[("content-type", kind)]);
            assert_eq!(Compress::of(&every, &request("gzip")).response(&mut response), expected, "{kind}");
        }
        let mut fixed = request("gzip");
        fixed.headers.append("cache-control", HeaderValue::from_static("max-age=0, no-transform"));
        let mut response = response(vec![Ok(Bytes::from_static(b"text"))], &[]);
        assert_eq!(Compress::of(&config(usize::MAX), &fixed).response(&mut response), None);
    }

    #[test]
    fn a_response_that_renews_a_compressed_one_has_its_tag() {
        for (asked, expected) in [("W/\"a\"", "W/\"a\""), ("\"b\", W/\"a\"", "W/\"a\""), ("\"a\"", "\"a\"")] {
            let mut request = request("gzip");
            request.headers.append("if-none-match", HeaderValue::from_static(asked));
            let mut response = response(Vec::new(), &[("etag", "\"a\"")]);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            assert_eq!(Compress::of(&config(usize::MAX), &request).response(&mut response), None);
            let headers = response.headers();
            assert_eq!(headers.get("etag").unwrap(), expected, "{asked}");
            assert_eq!(headers.contains_key("vary"), expected.starts_with('W'), "{asked}");
        }
    }

    #[test]
    fn a_response_that_depends_on_the_client_has_vary_and_a_changed_one_a_weak_tag() {
        for (tag, accept, expected) in
            [("\"a\"", "gzip", "W/\"a\""), ("W/\"a\"", "gzip", "W/\"a\""), ("\"a\"", "identity", "\"a\"")]
        {
            let fields = [("etag", tag), ("accept-ranges", "bytes"), ("vary", "Origin")];
            let mut response = response(vec![Ok(Bytes::from_static(b"text"))], &fields);
            let coding = Compress::of(&config(usize::MAX), &request(accept)).response(&mut response);
            let headers = response.headers();
            assert_eq!(headers.get("etag").unwrap(), expected, "{accept}");
            assert_eq!(headers.contains_key("accept-ranges"), coding.is_none(), "{accept}");
            let vary: Vec<_> = headers.get_all("vary").collect();
            assert_eq!(vary, ["Origin", "Accept-Encoding"], "{accept}");
        }
    }
}
