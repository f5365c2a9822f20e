//! Translates gRPC-Web, the form of gRPC that browsers can speak, to gRPC and back.
//!
//! **Rule.** A POST of `application/grpc-web` (binary) or `application/grpc-web-text` (the same in base64, also in several padded pieces)
//! is sent on as `application/grpc` with the same suffix. The response's messages come back unchanged. Its trailers become a last message
//! with the highest bit of its flags set, because no page can read trailers. Every piece from the upstream is forwarded at once. A response
//! that is not gRPC passes unchanged.
//!
//! A body that was cut stays cut: without the message of trailers, no client takes it for complete.
//!
//! **Source.** grpc/doc/PROTOCOL-WEB.md.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use attache_wire::{
    Request, RequestHead, Response, ValueRef,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body as HttpBody, Frame, SizeHint};

const BINARY: &str = "application/grpc-web";
const TEXT: &str = "application/grpc-web-text";
const GRPC: &str = "application/grpc";

/// The flag that marks the message of trailers.
const TRAILERS: u8 = 0x80;

/// How a client speaks gRPC-Web.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrpcWeb {
    /// The request is in base64.
    text: bool,
    /// The response must be in base64.
    text_back: bool,
}

impl GrpcWeb {
    /// `None` for a request that isn't gRPC-Web.
    pub(crate) fn of(head: &RequestHead) -> Option<Self> {
        if head.method != Method::POST {
            return None;
        }
        let (text, _) = form(head.headers.get(CONTENT_TYPE)?)?;
        let accept = head.headers.get(ACCEPT).and_then(form);
        Some(Self { text, text_back: accept.map_or(text, |(text, _)| text) })
    }

    /// Converts the request to gRPC.
    pub(crate) fn request(self, request: &mut Request<Body>) {
        let Some((_, suffix)) = request.headers().get(CONTENT_TYPE).and_then(form) else { return };
        let content_type = format!("{GRPC}{suffix}");
        let headers = request.headers_mut();
        // A valid suffix can be added to a valid value.
        let _ = headers.try_insert(CONTENT_TYPE, content_type.as_bytes());
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.remove(ACCEPT);
        if self.text {
            headers.remove(CONTENT_LENGTH);
            let body = std::mem::take(request.body_mut());
            if !body.is_end_stream() {
                *request.body_mut() = Body::stream(Decoded { body, left: BytesMut::new(), ended: false });
            }
        }
    }

    /// Converts a gRPC response to gRPC-Web.
    pub(crate) fn response(self, response: &mut Response<Body>) {
        let Some(content_type) = response.headers().get(CONTENT_TYPE) else { return };
        let Some(suffix) = content_type.to_str().ok().and_then(grpc_suffix) else { return };
        let content_type = format!("{}{suffix}", if self.text_back { TEXT } else { BINARY });
        let headers = response.headers_mut();
        let _ = headers.try_insert(CONTENT_TYPE, content_type.as_bytes());
        headers.remove("trailer");
        let body = std::mem::take(response.body_mut());
        if !body.is_end_stream() {
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.body_mut() = Body::stream(Encoded { body, text: self.text_back, ended: false });
        }
    }
}

/// Whether a media type of gRPC-Web is the text form, and what follows it: `+proto`, parameters, or nothing.
fn form(value: ValueRef<'_>) -> Option<(bool, String)> {
    let value = value.to_str().ok()?;
    let (head, rest) = value.split_at_checked(BINARY.len())?;
    if !head.eq_ignore_ascii_case(BINARY) {
        return None;
    }
    let text = rest.get(..5).is_some_and(|rest| rest.eq_ignore_ascii_case("-text"));
    let suffix = if text { rest.get(5..)? } else { rest };
    is_suffix(suffix).then(|| (text, suffix.to_owned()))
}

fn grpc_suffix(value: &str) -> Option<String> {
    let (head, suffix) = value.split_at_checked(GRPC.len())?;
    (head.eq_ignore_ascii_case(GRPC) && is_suffix(suffix)).then(|| suffix.to_owned())
}

/// Whether this may follow the type: `+proto`, `; charset=utf-8`, or nothing. Any other character would make it another type.
fn is_suffix(suffix: &str) -> bool {
    suffix.is_empty() || suffix.starts_with(['+', ';', ' ', ','])
}

/// A body that is decoded from base64.
struct Decoded {
    body: Body,
    /// Characters that are not a complete group of four yet.
    left: BytesMut,
    ended: bool,
}

impl Decoded {
    /// Decodes all complete groups. A group within the body may be padded, because pieces are encoded one by one.
    fn decode(&mut self, text: &[u8]) -> Result<Bytes, BodyError> {
        self.left.extend_from_slice(text);
        let whole = self.left.len() / 4 * 4;
        let groups = self.left.split_to(whole);
        let mut out = Vec::with_capacity(whole / 4 * 3);
        let mut rest: &[u8] = &groups;
        while !rest.is_empty() {
            // Up to the first padded group, which ends a piece.
            let end = rest.iter().position(|byte| *byte == b'=').map_or(rest.len(), |at| at / 4 * 4 + 4);
            let (piece, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            STANDARD.decode_vec(piece, &mut out).map_err(|error| bad(error.to_string()))?;
            rest = behind;
        }
        Ok(out.into())
    }
}

fn bad(why: String) -> BodyError {
    BodyError::with_source(Some(Reason::BadRequest), format!("the body is not base64: {why}"))
}

impl HttpBody for Decoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while !this.ended {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
                this.ended = true;
                if !this.left.is_empty() {
                    return Poll::Ready(Some(Err(bad("it ends within a group of four".to_owned()))));
                }
                break;
            };
            // Requests of gRPC have no trailers.
            let Ok(text) = frame?.into_data() else { continue };
            let bytes = this.decode(&text)?;
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.left.is_empty() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// A body whose trailers are sent as its last message.
struct Encoded {
    body: Body,
    text: bool,
    ended: bool,
}

impl Encoded {
    fn piece(&self, bytes: Bytes) -> Bytes {
        if self.text { STANDARD.encode(&bytes).into() } else { bytes }
    }
}

impl HttpBody for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            None => {
                this.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                this.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame,
        };
        let piece = match frame.into_data() {
            Ok(bytes) => this.piece(bytes),
            Err(frame) => {
                this.ended = true;
                this.piece(message_of(&frame.into_trailers().unwrap_or_default()))
            }
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// Writes trailers as a message: lines as in HTTP/1, with names in lower case.
fn message_of(trailers: &HeaderMap) -> Bytes {
    let mut out = vec![TRAILERS, 0, 0, 0, 0];
    for (name, value) in trailers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let length = u32::try_from(out.len() - 5).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(1..5) {
        place.copy_from_slice(&length);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    /// A body with these frames. An error at the end cuts it.
    struct FrameBody(VecDeque<Result<Frame<Bytes>, Reason>>);

    impl HttpBody for FrameBody {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|frame| frame.map_err(BodyError::new)))
        }
    }

    fn body(frames: Vec<Result<Frame<Bytes>, Reason>>) -> Body {
        Body::stream(FrameBody(frames.into()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands beside what fails")]
    fn data(bytes: &[u8]) -> Result<Frame<Bytes>, Reason> {
        Ok(Frame::data(Bytes::copy_from_slice(bytes)))
    }

    async fn pieces(mut body: Body) -> (Vec<Bytes>, bool) {
        let (mut all, mut cut) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => all.extend(frame.into_data().ok()),
                Err(_) => cut = true,
            }
        }
        (all, cut)
    }

    fn asked(content_type: &str, accept: Option<&str>) -> RequestHead {
        let mut builder = http::Request::post("/p.S/M").header("content-type", content_type);
        if let Some(accept) = accept {
            builder = builder.header("accept", accept);
        }
        RequestHead::from(builder.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_requests_of_grpc_web_are_translated() {
        let of = |content_type: &str, accept| GrpcWeb::of(&asked(content_type, accept));
        let text = Some(GrpcWeb { text: true, text_back: true });
        let binary = Some(GrpcWeb { text: false, text_back: false });
        assert_eq!(of("application/grpc-web", None), binary);
        assert_eq!(of("application/grpc-web+proto", Some("*/*")), binary);
        assert_eq!(of("Application/GRPC-Web-Text+proto", None), text);
        assert_eq!(of("application/grpc-web-text", Some("application/grpc-web-text")), text);
        assert_eq!(
            of("application/grpc-web+proto", Some("application/grpc-web-text")),
            Some(GrpcWeb { text: false, text_back: true })
        );
        for other in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-webx",
            "application/grpc-web-texts",
            "text/plain",
            "",
        ] {
            assert_eq!(of(other, None), None, "{other}");
        }
        let mut get = asked("application/grpc-web", None);
        get.method = Method::GET;
        assert_eq!(GrpcWeb::of(&get), None);
    }

    #[tokio::test]
    async fn base64_is_decoded_wherever_it_is_split_and_padded() {
        let text = [STANDARD.encode(b"hello"), STANDARD.encode(b"\0\0"), STANDARD.encode(b"world!")].concat();
        for cut in 0..text.len() {
            let (one, two) = text.as_bytes().split_at(cut);
            let mut request = Request::new(body(vec![data(one), data(two)]));
            let form = GrpcWeb { text: true, text_back: true };
            let _ = request.headers_mut().try_insert(CONTENT_TYPE, b"application/grpc-web-text+proto");
            form.request(&mut request);
            assert_eq!(request.headers().get(CONTENT_TYPE).unwrap(), "application/grpc+proto");
            assert_eq!(request.headers().get(TE).unwrap(), "trailers");
            let (pieces, cut_off) = pieces(request.into_body()).await;
            assert_eq!((pieces.concat(), cut_off), (b"hello\0\0world!".to_vec(), false), "{cut}");
        }
        for wrong in ["abc", "ab=d", "a===", "ab!d", "====", "YWJj\n", "YQ==Y"] {
            let decoded =
                Decoded { body: body(vec![data(wrong.as_bytes())]), left: BytesMut::new(), ended: false };
            assert!(pieces(Body::stream(decoded)).await.1, "{wrong}");
        }
    }

    #[tokio::test]
    async fn trailers_are_the_last_message_and_each_piece_is_forwarded_at_once() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-message", HeaderValue::from_static("no such order"));
        let last = b"\x80\0\0\0\x2dgrpc-status: 5\r\ngrpc-message: no such order\r\n";
        for text in [false, true] {
            let frames =
                vec![data(b"\0\0\0\0\x01a"), data(b"\0\0\0\0\x01b"), Ok(Frame::trailers(trailers.clone()))];
            let mut response = Response::new(body(frames));
            let _ = response.headers_mut().try_insert(CONTENT_TYPE, b"application/grpc+proto");
            GrpcWeb { text: false, text_back: text }.response(&mut response);
            let expected =
                if text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
            assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), expected);
            let (pieces, cut) = pieces(response.into_body()).await;
            let plain = |piece: &Bytes| if text { STANDARD.decode(piece).unwrap() } else { piece.to_vec() };
            let pieces: Vec<_> = pieces.iter().map(plain).collect();
            assert_eq!((pieces.len(), cut), (3, false));
            assert_eq!(pieces[2], last);
        }
    }

    #[tokio::test]
    async fn a_cut_body_stays_cut_and_a_response_that_is_not_grpc_passes() {
        let form = GrpcWeb { text: true, text_back: true };
        let mut response = Response::new(body(vec![data(b"a"), Err(Reason::UpstreamReset)]));
        let _ = response.headers_mut().try_insert(CONTENT_TYPE, b"application/grpc");
        form.response(&mut response);
        assert!(pieces(response.into_body()).await.1);
        for other in ["text/html", "application/grpc-web-text", "application/grpcx"] {
            let mut response = Response::new(body(vec![data(b"<p>")]));
            let _ = response.headers_mut().try_insert(CONTENT_TYPE, other.as_bytes());
            form.response(&mut response);
            assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), other);
            assert_eq!(pieces(response.into_body()).await.0, [&b"<p>"[..]]);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_decoded_or_refused(text: Vec<u8>, cut: usize) {
            let mut decoded = Decoded { body: Body::empty(), left: BytesMut::new(), ended: false };
            let (one, two) = text.split_at(cut % (text.len() + 1));
            let _ = decoded.decode(one).and_then(|_| decoded.decode(two));
        }
    }
}
