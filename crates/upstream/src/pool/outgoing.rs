//! A request that is sent to an HTTP/1 upstream: its head, and its body as fast as the peer accepts it.
//!
//! Rule (RFC 9110 section 10.1.1): with `Expect: 100-continue` the body is not read before the upstream answers 100 or
//! a final success, or for one second (as long as curl waits). As long as it is not read, the client isn't told to send
//! it.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use attache_wire::{
    Fields, Request, RequestHead, ValueRef, buffers,
    header::{CONTENT_LENGTH, EXPECT, TRAILER},
    outbox::{BodyEncoder, Outbox},
    write,
};
use http_body::Body as _;

use super::form;
use crate::{Error, SentPart};

/// How long the body waits for an answer of the upstream.
pub(super) const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request's body that is being written.
pub(super) struct OutgoingBody {
    body: Body,
    encoder: BodyEncoder,
    /// The head, where it announces trailers.
    announced: Option<Rc<RequestHead>>,
    /// The upstream has not asked for the body yet.
    gated: bool,
}

/// What a poll has added to the bytes to write.
pub(super) enum WriteProgress {
    /// A piece.
    Piece,
    /// The end.
    Whole,
}

impl OutgoingBody {
    /// Writes the head, and returns the body that is left to write, if there is one.
    pub(super) fn begin(request: Request<Body>, out: &mut Outbox) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let ended = body.is_end_stream();
        let encoder = encoder(&parts.headers, &body, ended);
        let buffer = out.head();
        if buffer.capacity() == 0 {
            *buffer = buffers::take();
        }
        let target = form::target(&parts);
        write::request(buffer, &parts.method, &target, &parts.headers, encoder);
        if ended && matches!(encoder, BodyEncoder::None | BodyEncoder::Length(0)) {
            return None;
        }
        let asks =
            parts.headers.get(EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let announced = parts.headers.contains_key(TRAILER).then_some(parts);
        Some(Self { body, encoder, announced, gated: asks && !ended })
    }

    /// True if the upstream has not asked for the body yet.
    pub(super) const fn is_gated(&self) -> bool {
        self.gated
    }

    /// Allows the body to be sent. True if it waited for that.
    pub(super) fn open(&mut self) -> bool {
        std::mem::replace(&mut self.gated, false)
    }

    /// Adds the next piece of the body.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outbox,
    ) -> Poll<Result<WriteProgress, BodyError>> {
        if self.gated {
            return Poll::Pending;
        }
        // If a body has another length than it announced, its sender is at fault.
        let wrong = |_| {
            BodyError::with_source(Some(Reason::ClientClosed), "it has another length than its head said")
        };
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => {
                out.end(self.encoder, None).map_err(wrong)?;
                return Poll::Ready(Ok(WriteProgress::Whole));
            }
        };
        let trailers = match frame.into_data() {
            Ok(data) => {
                out.body(&mut self.encoder, data).map_err(wrong)?;
                if !self.body.is_end_stream() {
                    return Poll::Ready(Ok(WriteProgress::Piece));
                }
                None
            }
            Err(frame) => frame.into_trailers().ok().zip(self.announced.as_ref()),
        };
        let trailers = trailers.and_then(|(mut trailers, head)| {
            attache_http::announced_trailers(&mut trailers, &head.headers);
            (!trailers.is_empty()).then_some(trailers)
        });
        out.end(self.encoder, trailers.as_ref()).map_err(wrong)?;
        Poll::Ready(Ok(WriteProgress::Whole))
    }
}

/// The error of a call whose request's body failed. It names the rule that the client broke, if it broke one.
#[cold]
pub(super) fn broken_body(body: &BodyError, sent: SentPart) -> Error {
    const BROKEN: &str = "the request's body ended before its end";
    let reason = body.reason.unwrap_or(Reason::ClientClosed);
    match std::error::Error::source(body) {
        Some(cause) => Error::with_source(reason, sent, format!("{BROKEN}: {cause}")),
        None => Error::with_source(reason, sent, BROKEN),
    }
}

/// The body must have the length that the head announces; a body that differs from it is never ended cleanly. A body of
/// unknown length is sent in chunks, for every method.
fn encoder(headers: &Fields, body: &Body, ended: bool) -> BodyEncoder {
    let promised = headers.get(CONTENT_LENGTH).and_then(ValueRef::to_number);
    if promised.is_none() && ended {
        return BodyEncoder::None;
    }
    promised.or(body.size_hint().exact()).map_or(BodyEncoder::Chunked, BodyEncoder::Length)
}
