//! The body of an HTTP/2 response.
//!
//! Rules:
//! - The peer's window opens only when a frame is taken from here: a client that does not read stops the upstream (RFC
//!   9113 section 5.2).
//! - A reset is an error and never a clean end, with one exception: RST_STREAM(NO_ERROR) while the request's body was
//!   not yet sent. By RFC 9113 section 8.1 a server sends this only after a complete response; if the response
//!   announced a length, the body must have reached it.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_http::{Body, BodyError, strip_response_trailers};
use attache_http2::{Error, ErrorCode, Incoming, RecvStream};
use attache_telemetry::Reason;
use attache_wire::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::AbortHandle;

use super::h2::StreamPermit;
use crate::{attempt::Attempt, error::reason_or};

/// How a request's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum H2UploadEnd {
    /// Not yet.
    Running,
    /// Sent whole.
    Whole,
    /// The peer needs no more of it.
    Unwanted,
}

/// Ends a task when its result is no longer needed.
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct H2Body {
    incoming: Incoming,
    uploaded: Rc<Cell<H2UploadEnd>>,
    /// Released at the body's end, before the body is dropped.
    held: Option<(StreamPermit, Option<Attempt>, Option<AbortOnDrop>)>,
}

/// Wraps a response.
pub(super) fn attach(
    response: Response<RecvStream>,
    lease: StreamPermit,
    in_flight: Option<Attempt>,
    uploaded: Rc<Cell<H2UploadEnd>>,
    upload: Option<AbortOnDrop>,
) -> Response<Body> {
    if response.body().is_ended() {
        return response.map(|_| Body::empty());
    }
    response.map(|received| {
        // One allocation for each response with a body.
        Body::stream(H2Body {
            incoming: Incoming::new(received),
            uploaded,
            held: Some((lease, in_flight, upload)),
        })
    })
}

impl H2Body {
    fn end(&mut self, error: Error) -> Option<Result<Frame<Bytes>, BodyError>> {
        let stopped_our_upload = error.is_reset()
            && error.code() == Some(ErrorCode::NO_ERROR)
            && self.uploaded.get() != H2UploadEnd::Whole;
        let attempt = self.held.take().and_then(|(_, attempt, _)| attempt);
        if stopped_our_upload && self.incoming.is_whole() {
            return None;
        }
        let reason =
            if error.is_rule() { Reason::UpstreamProtocolError } else { Reason::UpstreamClosedMidBody };
        let reason = reason_or(&error, reason);
        if let Some(mut attempt) = attempt {
            attempt.cut(reason);
        }
        Some(Err(BodyError::with_source(Some(reason), error)))
    }
}

impl http_body::Body for H2Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut frame = match ready!(this.incoming.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(this.end(error)),
            None => {
                this.held = None;
                return Poll::Ready(None);
            }
        };
        if let Some(trailers) = frame.trailers_mut() {
            let attempt = this.held.take().and_then(|(_, attempt, _)| attempt);
            if let Some(mut attempt) = attempt {
                attempt.trailers(trailers);
            }
            strip_response_trailers(trailers);
        } else if this.incoming.is_end_stream() {
            this.held = None;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
