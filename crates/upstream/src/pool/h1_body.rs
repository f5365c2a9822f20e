//! The body of an HTTP/1.1 response: it owns its connection, drives it as it is read, and gives it back at its end.
//!
//! Rules:
//! - A body that ends before its framing says so (RFC 9112 section 8) is an error, never an end.
//! - The connection goes back to the pool only after the body's last byte was read *and* the request's last byte was
//!   written. A response that ends while the request is still being uploaded closes the connection (RFC 9112 section
//!   9.3: the rest of the upload could not be told from the next request), as does a body that is dropped before its end.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    Home,
    h1::{Detached, H1, blame_request},
};
use crate::{attempt::Attempt, error::reason_or};

/// See the module's words.
struct H1Body {
    incoming: Incoming,
    connection: Source,
    home: Rc<Home>,
    in_flight: Option<Attempt>,
}

/// Who drives the connection.
enum Source {
    /// This body.
    Held(Box<H1>),
    /// A task.
    Detached(Detached),
    /// Nobody: it has ended, and why, where it was not the upstream's doing.
    Over(Option<Reason>),
}

/// Wraps a response that has just been read from `connection`. Where it is complete already, as small ones are, the
/// connection goes home at once and the body needs no wrapping.
pub(super) fn attach(
    response: Response<Incoming>,
    connection: Box<H1>,
    home: Rc<Home>,
    in_flight: Option<Attempt>,
    uploaded: bool,
) -> Response<Body> {
    if connection.is_ready() {
        home.park(connection);
        return response.map(Body::from);
    }
    if http_body::Body::is_end_stream(response.body()) {
        return response.map(|_| Body::empty());
    }
    let connection = if uploaded { Source::Held(connection) } else { Source::Detached(connection.detach()) };
    // One allocation for each response that did not come in one piece.
    response.map(|incoming| Body::stream(H1Body { incoming, connection, home, in_flight }))
}

impl H1Body {
    /// The body is over: the connection goes home if it can be used again, and closes if it can't.
    fn finish(&mut self) {
        if let Source::Held(connection) = std::mem::replace(&mut self.connection, Source::Over(None))
            && connection.is_ready()
        {
            self.home.park(connection);
        }
        self.in_flight = None;
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let incoming = Pin::new(&mut self.incoming);
        match &self.connection {
            // It is driven right after, or when the next frame is asked for, so neither end need wake this task.
            Source::Held(connection) => connection.muted(|| {
                let mut quiet = Context::from_waker(Waker::noop());
                http_body::Body::poll_frame(incoming, &mut quiet)
            }),
            Source::Detached(_) | Source::Over(_) => http_body::Body::poll_frame(incoming, cx),
        }
    }

    fn cut(&mut self, error: hyper::Error) -> BodyError {
        let blame = match &self.connection {
            Source::Held(_) => None,
            Source::Detached(task) => task.blame.get(),
            Source::Over(blame) => *blame,
        };
        self.connection = Source::Over(blame);
        let reason = blame.unwrap_or_else(|| {
            let malformed = is_malformed(&error);
            let reason =
                if malformed { Reason::UpstreamProtocolError } else { Reason::UpstreamClosedMidBody };
            reason_or(&error, reason)
        });
        if let Some(mut attempt) = self.in_flight.take() {
            attempt.cut(reason);
        }
        BodyError::with_source(Some(reason), error)
    }
}

/// The framing was broken, not cut.
fn is_malformed(error: &hyper::Error) -> bool {
    std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>()).is_some_and(
        |io| matches!(io.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput),
    )
}

impl http_body::Body for H1Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut driven = false;
        loop {
            match this.poll_incoming(cx) {
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(Ok(frame))),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(this.cut(error)))),
                Poll::Ready(None) => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
            let Source::Held(connection) = &mut this.connection else { return Poll::Pending };
            if driven {
                return Poll::Pending;
            }
            // Asking has told hyper that the next piece is wanted; now it may read it.
            if let Poll::Ready(end) = connection.drive(cx) {
                this.connection = Source::Over(end.err().as_ref().and_then(blame_request));
            }
            driven = true;
        }
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.incoming)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.incoming)
    }
}

impl Drop for H1Body {
    fn drop(&mut self) {
        // A reader that knows the length does not ask for the end after the last byte.
        if http_body::Body::is_end_stream(&self.incoming) {
            self.finish();
        }
    }
}
