//! A request's body. It reads the client's socket itself, whenever more is needed.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use attache_http::{Body, BodyError, strip_trailers};
use attache_telemetry::{Exchange, Reason};
use attache_wire::body::BodyPiece;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{client::refusal, context::ConnectionContext};

pub(super) struct Http1RequestBody {
    connection: Rc<ConnectionContext>,
    exchange: Rc<Exchange>,
    /// The request that the body belongs to. After that request has ended, the client's bytes no longer belong to this body.
    request: u64,
    done: bool,
}

impl Http1RequestBody {
    /// The body of the request whose head was just read. An empty body costs nothing.
    pub(super) fn body(connection: &Rc<ConnectionContext>, exchange: &Rc<Exchange>) -> Body {
        let mut this = connection.client.borrow_mut();
        if this.reader.body().is_done() {
            return Body::empty();
        }
        this.body_held = true;
        let request = this.request;
        drop(this);
        // One allocation per request with a body: the count must stay with the body's reader, whose task may be any.
        Body::stream(Self {
            connection: connection.clone(),
            exchange: exchange.clone(),
            request,
            done: false,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut client = self.connection.client.borrow_mut();
        let client = &mut *client;
        if self.done || client.request != self.request {
            return Poll::Ready(None);
        }
        let closed =
            || BodyError::with_source(Some(Reason::ClientClosed), "the client left before the body's end");
        loop {
            let frame = match client.reader.piece(&mut client.buf) {
                Ok(BodyPiece::Data(data)) => {
                    self.exchange.received.set(self.exchange.received.get() + data.len() as u64);
                    Some(Ok(Frame::data(data)))
                }
                Ok(BodyPiece::Trailers(mut trailers)) => {
                    strip_trailers(&mut trailers);
                    Some(Ok(Frame::trailers(trailers)))
                }
                Ok(BodyPiece::End) => None,
                // The client left, or its framing is invalid: this is never an error of the upstream.
                Err(fault) => {
                    let refusal = refusal(fault);
                    client.broken = Some(Box::new(refusal));
                    Some(Err(BodyError::with_source(Some(refusal.reason), refusal)))
                }
                Ok(BodyPiece::More) => {
                    if client.expects {
                        client.expects = false;
                        client.wanted = true;
                        client.wake_task(Some(cx));
                    }
                    match client.poll_fill(cx) {
                        Poll::Ready(Ok(1..)) => continue,
                        Poll::Ready(Ok(0)) => Some(Err(closed())),
                        Poll::Ready(Err(error)) => {
                            Some(Err(BodyError::with_source(Some(Reason::ClientClosed), error)))
                        }
                        Poll::Pending => {
                            if !client.body_task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                                client.body_task = Some(cx.waker().clone());
                            }
                            return Poll::Pending;
                        }
                    }
                }
            };
            let failed = matches!(frame, Some(Err(_)));
            if failed || client.reader.body().is_done() {
                self.done = true;
                client.body_held = false;
                client.wake_task(Some(cx));
            }
            if failed {
                client.reader.abandon();
            }
            return Poll::Ready(frame);
        }
    }
}

impl http_body::Body for Http1RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        if self.done {
            return SizeHint::with_exact(0);
        }
        match self.connection.client.borrow().reader.body().remaining() {
            Some(n) => SizeHint::with_exact(n),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Http1RequestBody {
    fn drop(&mut self) {
        // This is never dropped while the client is borrowed: no code of the service runs then.
        if let Ok(mut client) = self.connection.client.try_borrow_mut()
            && client.request == self.request
            && !self.done
        {
            client.body_held = false;
            client.wake_task(None);
        }
    }
}
