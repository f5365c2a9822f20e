//! The body of an HTTP/1.1 response: it owns its connection, polls it while it is read, and returns it to the pool at
//! its end.
//!
//! Rules:
//! - A body that ends before the end of its framing (RFC 9112 section 8) is an error, never a clean end.
//! - The connection goes back to the pool only after the body's last byte was read *and* the request's last byte was
//!   written. A response that ends while the request is still being uploaded closes the connection (RFC 9112 section
//!   9.3: the rest of the upload would look like the next request). A body that is dropped before its end closes it,
//!   too.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use attache_http::{Body, BodyError, strip_response_trailers};
use attache_telemetry::Reason;
use attache_wire::{Response, ResponseHead, body::BodyPiece};
use bytes::Bytes;

use http_body::{Frame, SizeHint};
use tokio::task::spawn_local;

use super::{EndpointPool, h1::H1Connection, h2_body::AbortOnDrop, outgoing::broken_body};
use crate::{SentPart, attempt::Attempt, error::reason_or};

/// See the module.
struct H1Body {
    connection: BodyDriver,
    home: Rc<EndpointPool>,
    in_flight: Option<Attempt>,
}

/// What drives the connection.
enum BodyDriver {
    /// This body.
    Held(Box<H1Connection>),
    /// This body reads it, and a task writes to it.
    Shared(Rc<UploadingConnection>, #[expect(dead_code, reason = "ends the task with the body")] AbortOnDrop),
    /// Nothing reads it: it has ended.
    Over,
}

/// A connection whose request is still being written: a client that doesn't read the response must not stop the upload.
struct UploadingConnection {
    connection: RefCell<Box<H1Connection>>,
    /// Why the upload failed.
    failed: Cell<Option<BodyError>>,
    reader: RefCell<Option<Waker>>,
}

/// Wraps a response that has just been read from `connection`. If it is already complete, as small ones are, the
/// connection returns to the pool at once and the body needs no wrapper.
pub(super) fn attach(
    parts: Box<ResponseHead>,
    mut connection: Box<H1Connection>,
    home: Rc<EndpointPool>,
    in_flight: Option<Attempt>,
) -> Response<Body> {
    let uploaded = connection.is_uploaded();
    if uploaded {
        let (decoder, buf) = connection.body();
        let whole = match decoder.remaining() {
            Some(0) => Some(Body::empty()),
            Some(n) if n <= buf.len() as u64 => match decoder.decode(buf) {
                Ok(BodyPiece::Data(data)) => Some(Body::full(data)),
                _ => None,
            },
            _ => None,
        };
        if let Some(body) = whole {
            if connection.is_ready() {
                home.park(connection);
            }
            return Response::from_parts(parts, body);
        }
    } else if connection.decoder.is_done() {
        return Response::from_parts(parts, Body::empty());
    }
    let connection = if uploaded { BodyDriver::Held(connection) } else { share(connection) };
    // One allocation for each response that did not arrive in one piece.
    Response::from_parts(parts, Body::stream(H1Body { connection, home, in_flight }))
}

/// Lets a task write. The connection is not reused afterwards.
fn share(connection: Box<H1Connection>) -> BodyDriver {
    let shared = Rc::new(UploadingConnection {
        connection: RefCell::new(connection),
        failed: Cell::new(None),
        reader: RefCell::default(),
    });
    let writer = Rc::clone(&shared);
    let task = spawn_local(async move {
        let uploaded = std::future::poll_fn(|cx| writer.connection.borrow_mut().poll_upload(cx)).await;
        if let Err(error) = uploaded {
            writer.failed.set(Some(error));
            if let Some(reader) = writer.reader.take() {
                reader.wake();
            }
        }
    });
    BodyDriver::Shared(shared, AbortOnDrop(task.abort_handle()))
}

impl H1Body {
    /// The body has ended: the connection returns to the pool if it can be used again, and closes otherwise.
    fn finish(&mut self) {
        if let BodyDriver::Held(connection) = std::mem::replace(&mut self.connection, BodyDriver::Over)
            && connection.is_ready()
        {
            self.home.park(connection);
        }
        self.in_flight = None;
    }

    fn cut(&mut self, error: BodyError) -> BodyError {
        self.connection = BodyDriver::Over;
        if let Some(mut attempt) = self.in_flight.take() {
            attempt.cut(error.reason.unwrap_or(Reason::UpstreamClosedMidBody));
        }
        error
    }
}

/// The next frame of a connection's body.
fn poll_connection(
    connection: &mut H1Connection,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    loop {
        let (decoder, buf) = connection.body();
        match decoder.decode(buf) {
            Ok(BodyPiece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(BodyPiece::Trailers(mut trailers)) => {
                strip_response_trailers(&mut trailers);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            Ok(BodyPiece::End) => return Poll::Ready(None),
            Ok(BodyPiece::More) => {}
            Err(fault) => {
                let error = BodyError::with_source(Some(Reason::UpstreamProtocolError), fault);
                return Poll::Ready(Some(Err(error)));
            }
        }
        match connection.poll_fill(cx) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0)) => {
                return Poll::Ready(if connection.decoder.end() {
                    None
                } else {
                    Some(Err(BodyError::with_source(
                        Some(Reason::UpstreamClosedMidBody),
                        "the upstream closed the connection before its answer was whole",
                    )))
                });
            }
            Poll::Ready(Err(error)) => {
                let reason = reason_or(&error, Reason::UpstreamClosedMidBody);
                return Poll::Ready(Some(Err(BodyError::with_source(Some(reason), error))));
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

impl http_body::Body for H1Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.connection {
            BodyDriver::Held(connection) => poll_connection(connection, cx),
            BodyDriver::Shared(shared, _) => {
                let frame = poll_connection(&mut shared.connection.borrow_mut(), cx);
                let stopped = matches!(frame, Poll::Pending | Poll::Ready(Some(Err(_))));
                if stopped && let Some(body) = shared.failed.take() {
                    let error = broken_body(&body, SentPart::Response);
                    Poll::Ready(Some(Err(BodyError::with_source(Some(error.reason), error.detail()))))
                } else {
                    if frame.is_pending() {
                        *shared.reader.borrow_mut() = Some(cx.waker().clone());
                    }
                    frame
                }
            }
            BodyDriver::Over => return Poll::Ready(None),
        };
        match frame {
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(this.cut(error)))),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(mut attempt) = this.in_flight.take()
                {
                    attempt.trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.connection {
            BodyDriver::Held(connection) => connection.decoder.is_done(),
            BodyDriver::Shared(shared, _) => shared.connection.borrow().decoder.is_done(),
            BodyDriver::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = match &self.connection {
            BodyDriver::Held(connection) => connection.decoder.remaining(),
            BodyDriver::Shared(shared, _) => shared.connection.borrow().decoder.remaining(),
            BodyDriver::Over => Some(0),
        };
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for H1Body {
    fn drop(&mut self) {
        // A reader that knows the length doesn't poll for the end after the last byte.
        if http_body::Body::is_end_stream(self) {
            self.finish();
        }
    }
}
