//! A request on its way to an HTTP/1 upstream: its head, and its body as the peer takes it.
//!
//! Rule (RFC 9110 section 10.1.1): with `Expect: 100-continue` the body is not read before the upstream says 100, or a final success, or
//! nothing for one second (what curl waits). Not reading it is also what keeps the client from being told to send it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_http::Body;
use attache_telemetry::Reason;
use attache_wire::{
    buffers,
    message::{RawQuery, Spelling},
    outbox::{Encoder, Outbox},
    write,
};
use http::{
    HeaderMap, Method, Request,
    header::{CONTENT_LENGTH, EXPECT, TRAILER},
};
use http_body::Body as _;

/// How long the body waits for a word from the upstream.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A request's body that is being written.
pub(super) struct Upload {
    body: Body,
    encoder: Encoder,
    /// The head, where it announces trailers.
    announced: Option<Box<HeaderMap>>,
    /// The upstream has not asked for the body yet.
    gated: bool,
}

/// What a poll has added to what is to be written.
pub(super) enum Uploaded {
    /// A piece.
    Piece,
    /// The end.
    Whole,
}

impl Upload {
    /// Writes the head; what is left to do is the body, if there is one.
    pub(super) fn begin(request: Request<Body>, out: &mut Outbox) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let ended = body.is_end_stream();
        let encoder = encoder(&parts.headers, &body, ended);
        let buffer = out.head();
        if buffer.capacity() == 0 {
            *buffer = buffers::take();
        }
        let spelling = parts.extensions.get::<Spelling>();
        let raw = parts.extensions.get::<RawQuery>();
        let target = match (&parts.method, parts.uri.authority(), parts.uri.path_and_query()) {
            (&Method::CONNECT, Some(authority), _) => authority.as_str(),
            (_, _, Some(path)) => path.as_str(),
            (_, _, None) => "/",
        };
        let raw = match raw {
            Some(raw) => parts.uri.path_and_query().and_then(|path| raw.target(path)),
            // Of `http://host?query`: the crate shows the `/` that belongs before it, and does not hold it.
            None if target.starts_with('?') => Some(format!("/{target}").into_bytes()),
            None => None,
        };
        let target = raw.as_deref().unwrap_or(target.as_bytes());
        write::request(buffer, &parts.method, target, &parts.headers, spelling, encoder);
        if ended && matches!(encoder, Encoder::None | Encoder::Length(0)) {
            return None;
        }
        let asks =
            parts.headers.get(EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let announced = parts.headers.contains_key(TRAILER).then(|| Box::new(parts.headers));
        Some(Self { body, encoder, announced, gated: asks && !ended })
    }

    /// The upstream has not asked for the body yet.
    pub(super) const fn is_gated(&self) -> bool {
        self.gated
    }

    /// Lets the body go; whether it had to wait for that.
    pub(super) fn open(&mut self) -> bool {
        std::mem::replace(&mut self.gated, false)
    }

    /// Adds what there is of the body. The error is the reason why it failed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<Result<Uploaded, Reason>> {
        if self.gated {
            return Poll::Pending;
        }
        // A body of another length than it promised is its sender's fault.
        let wrong = |_| Reason::ClientClosed;
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Err(error.reason.unwrap_or(Reason::ClientClosed))),
            None => {
                out.end(self.encoder, None).map_err(wrong)?;
                return Poll::Ready(Ok(Uploaded::Whole));
            }
        };
        let trailers = match frame.into_data() {
            Ok(data) => {
                out.body(&mut self.encoder, data).map_err(wrong)?;
                if !self.body.is_end_stream() {
                    return Poll::Ready(Ok(Uploaded::Piece));
                }
                None
            }
            Err(frame) => frame.into_trailers().ok().zip(self.announced.as_deref()),
        };
        let trailers = trailers.and_then(|(mut trailers, head)| {
            attache_http::announced_trailers(&mut trailers, head);
            (!trailers.is_empty()).then_some(trailers)
        });
        out.end(self.encoder, trailers.as_ref()).map_err(wrong)?;
        Poll::Ready(Ok(Uploaded::Whole))
    }
}

/// The length that the head promises is kept to, and a body that differs from it is never ended cleanly. A body of unknown length is
/// sent in chunks, whatever the method.
fn encoder(headers: &HeaderMap, body: &Body, ended: bool) -> Encoder {
    let promised = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if promised.is_none() && ended {
        return Encoder::None;
    }
    promised.or(body.size_hint().exact()).map_or(Encoder::Chunked, Encoder::Length)
}
