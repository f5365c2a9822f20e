//! A request's body on its way from the client: counts, follows flow control, and says why it broke.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_http::{Body, BodyError, strip_trailers};
use attache_http2::{Reader, Streams};
use attache_telemetry::{Exchange, Reason};
use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Frame, SizeHint};

struct Received {
    stream: RecvStream,
    reader: Reader,
    exchange: Rc<Exchange>,
    /// Bytes that are still to come by the request's `content-length`, which the h2 crate holds the client to.
    left: Option<u64>,
    data_done: bool,
}

/// Wraps a stream; one that has ended already costs nothing.
pub(super) fn body(
    stream: RecvStream,
    headers: &HeaderMap,
    streams: &Rc<Streams>,
    exchange: &Rc<Exchange>,
) -> Body {
    if stream.is_end_stream() {
        return Body::empty();
    }
    let length = headers.get(CONTENT_LENGTH);
    let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let reader = streams.reader(stream.stream_id().as_u32());
    // One allocation per request with a body: counting must stay with whoever reads it, on whatever task.
    Body::stream(Received { stream, reader, exchange: exchange.clone(), left, data_done: false })
}

/// A client that left or broke a rule: never the upstream's fault. RST_STREAM(NO_ERROR) says that it wants the rest not sent, which
/// nobody may take for an end.
fn broken(error: h2::Error) -> BodyError {
    BodyError::with_source(Some(Reason::ClientClosed), error)
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if !this.data_done {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // An error here means that the stream has ended, which the next poll says.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    this.reader.took(data.len());
                    if let Some(left) = &mut this.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    this.exchange.received.set(this.exchange.received.get() + data.len() as u64);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(error)))),
                None => this.data_done = true,
            }
        }
        match ready!(this.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|mut trailers| {
                strip_trailers(&mut trailers);
                Ok(Frame::trailers(trailers))
            })),
            Err(error) => Poll::Ready(Some(Err(broken(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
