//! The body of a message that is received.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{Error, RecvStream};

/// A body that is read frame by frame. When the reader takes data, the peer's window opens again; so a reader that stops also stops the
/// peer (RFC 9113 section 5.2).
#[derive(Debug)]
pub struct Incoming(RecvStream);

impl Incoming {
    /// The body of a stream whose head has been taken.
    pub const fn new(stream: RecvStream) -> Self {
        Self(stream)
    }

    /// The next data, or the trailers.
    ///
    /// # Errors
    ///
    /// The stream was reset, or its connection has ended.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(match ready!(self.0.poll_data(cx)) {
            Some(Ok(data)) => {
                self.0.took(data.len());
                Some(Ok(Frame::data(data)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => self.0.trailers().map(|trailers| Ok(Frame::trailers(trailers))),
        })
    }

    /// Whether nothing follows.
    pub fn is_end_stream(&self) -> bool {
        self.0.is_ended()
    }

    /// Whether all announced bytes have arrived.
    pub fn is_whole(&self) -> bool {
        self.0.left().is_none_or(|left| left == 0)
    }

    /// How much is still to come, if that is known.
    pub fn size_hint(&self) -> SizeHint {
        self.0.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
