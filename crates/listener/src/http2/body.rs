//! A request's body from the client. It counts bytes and says why the body broke.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_http::{Body, BodyError, strip_trailers};
use attache_http2::{Error, Incoming, RecvStream};
use attache_telemetry::{Exchange, Reason};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::answer::PendingInformational;

struct Http2RequestBody {
    incoming: Incoming,
    exchange: Rc<Exchange>,
    /// Where the client gets the 100 that it waits for before it sends the body (RFC 9110 section 10.1.1).
    expects: Option<Rc<PendingInformational>>,
}

/// Wraps a stream that has not ended.
pub(super) fn body(
    stream: RecvStream,
    exchange: &Rc<Exchange>,
    expects: Option<Rc<PendingInformational>>,
) -> Body {
    // One allocation per request with a body: the count must stay with the body's reader, whose task may be any.
    Body::stream(Http2RequestBody { incoming: Incoming::new(stream), exchange: exchange.clone(), expects })
}

/// The client left or broke a rule: this is never an error of the upstream. RST_STREAM(NO_ERROR) from a client only stops its body; it does
/// not end the body cleanly.
fn broken(error: Error) -> BodyError {
    let reason = if error.is_rule() && error.is_reset() { Reason::BadRequest } else { Reason::ClientClosed };
    BodyError::with_source(Some(reason), error)
}

impl http_body::Body for Http2RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = this.incoming.poll_frame(cx);
        // The upstream wants the body, and the client has sent nothing of it yet.
        if let Some(expects) = this.expects.take()
            && polled.is_pending()
        {
            expects.ask_for_body();
        }
        let mut polled = ready!(polled);
        if let Some(Ok(frame)) = &mut polled {
            if let Some(data) = frame.data_ref() {
                this.exchange.received.set(this.exchange.received.get() + data.len() as u64);
            } else if let Some(trailers) = frame.trailers_mut() {
                strip_trailers(trailers);
            }
        }
        Poll::Ready(polled.map(|polled| polled.map_err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
