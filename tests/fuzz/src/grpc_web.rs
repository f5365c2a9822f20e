//! gRPC-Web: the size of pieces makes no difference, invalid base64 cuts the call, and the response can be read again,
//! with its trailers.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use attache_http::{Body, BodyError};
use attache_web::{RequestKind, ResponsePlan, WebSettings};
use attache_wire::{Fields, Request, RequestHead, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body::{Body as _, Frame};

thread_local! {
    static WEB: OnceCell<WebSettings> = const { OnceCell::new() };
}

/// A body that consists of these pieces.
struct FrameList(VecDeque<Frame<Bytes>>);

impl http_body::Body for FrameList {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

fn body(bytes: &[u8], size: usize, trailers: Option<HeaderMap>) -> Body {
    let pieces = bytes.chunks(size.max(1)).map(|piece| Frame::data(Bytes::copy_from_slice(piece)));
    Body::stream(FrameList(pieces.chain(trailers.map(Frame::trailers)).collect()))
}

/// All of a body that never waits; `None` if it was cut.
fn whole(mut body: Body) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => all.extend_from_slice(frame.data_ref()?),
            Poll::Ready(Some(Err(_))) => return None,
            Poll::Ready(None) => return Some(all),
            Poll::Pending => panic!("it waits"),
        }
    }
}

fn asked(content_type: &'static str) -> (RequestHead, ResponsePlan) {
    let mut headers = Fields::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let head = RequestHead { method: Method::POST, headers, ..RequestHead::default() };
    let arrived = WEB.with(|web| {
        web.get_or_init(|| WebSettings::new(&super::cors::config("grpc_web: true")).unwrap()).arrive(&head)
    });
    let RequestKind::Request(Some(back)) = arrived else { panic!("no gRPC-Web") };
    (head, back)
}

fn translated(bytes: &[u8], size: usize) -> Option<Vec<u8>> {
    let (head, back) = asked("application/grpc-web-text+proto");
    let mut request = Request::new(body(bytes, size, None));
    *request.head_mut() = head;
    back.translate(&mut request);
    assert_eq!(request.headers().get(header::CONTENT_TYPE).unwrap().as_bytes(), b"application/grpc+proto");
    whole(std::mem::take(request.body_mut()))
}

fn answered(content_type: &'static str, bytes: &[u8], size: usize, trailers: HeaderMap) -> Vec<u8> {
    let (_, back) = asked(content_type);
    let mut response = Response::new(body(bytes, size, Some(trailers)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let (mut response, _) = back.finish(response);
    whole(std::mem::take(response.body_mut())).expect("nothing was cut")
}

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let at_once = translated(bytes, bytes.len());
    assert_eq!(translated(bytes, usize::from(size)), at_once, "{}", bytes.escape_ascii());
    // Every base64 decoder reads a text without padding in the middle.
    if let Ok(decoded) = STANDARD.decode(bytes) {
        assert_eq!(at_once, Some(decoded));
    } else if !bytes.contains(&b'=') {
        assert_eq!(at_once, None, "{}", bytes.escape_ascii());
    }

    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let (name, value) = bytes.split_at(bytes.len() / 4);
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        trailers.append(name, value);
    }
    let expected: Vec<u8> = trailers
        .iter()
        .flat_map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat())
        .collect();
    let binary = answered("application/grpc-web", bytes, usize::from(size), trailers.clone());
    let (messages, rest) = binary.split_at(bytes.len());
    assert_eq!(messages, bytes);
    let (head, lines) = rest.split_at(5);
    assert_eq!((head[0], u32::from_be_bytes(head[1..].try_into().unwrap()) as usize), (0x80, lines.len()));
    assert_eq!(lines, expected);
    assert!(lines.ends_with(b"\r\n") && !lines.windows(4).any(|part| part == b"\r\n\r\n"));
    // As text the result is the same, in padded pieces, and the output is valid input again.
    let text = answered("application/grpc-web-text", bytes, usize::from(size), trailers);
    assert_eq!(translated(&text, 7), Some(binary));
}
