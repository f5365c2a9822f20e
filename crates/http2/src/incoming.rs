//! The body of a message on its way in.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{Error, RecvStream};

/// A body that is read frame by frame: what was taken opens the peer's window again, so that a reader that stops stops the peer (RFC 9113
/// section 5.2).
#[derive(Debug)]
pub struct Incoming(RecvStream);

impl Incoming {
    /// The body of a stream whose head was taken.
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

    /// Nothing follows.
    pub fn is_end_stream(&self) -> bool {
        self.0.is_ended()
    }

    /// All bytes that were announced have come.
    pub fn is_whole(&self) -> bool {
        self.0.left().is_none_or(|left| left == 0)
    }

    /// What is still to come, where that is known.
    pub fn size_hint(&self) -> SizeHint {
        self.0.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
