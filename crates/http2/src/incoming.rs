//! The body of a message on its way in.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};

use crate::Reader;

/// A body that is read frame by frame: what was taken opens the peer's window again, so that a reader that stops stops the peer (RFC 9113
/// section 5.2).
#[derive(Debug)]
pub struct Incoming {
    stream: RecvStream,
    reader: Reader,
    /// Bytes that are still to come by the message's `content-length`, which the h2 crate holds the peer to.
    left: Option<u64>,
    data_done: bool,
}

impl Incoming {
    /// The body of a stream that has not ended; `length` is what its `content-length` says.
    pub fn new(stream: RecvStream, reader: Reader, length: Option<u64>) -> Self {
        Self { stream, reader, left: length, data_done: false }
    }

    /// The next data, or the trailers.
    ///
    /// # Errors
    ///
    /// The stream was reset, or its connection has ended.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_done {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // An error here means that the stream has ended, which the next poll says.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.reader.took(data.len());
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_done = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    /// Nothing follows.
    pub fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// All bytes that were announced have come.
    pub fn is_whole(&self) -> bool {
        self.left.is_none_or(|left| left == 0)
    }

    /// What is still to come, where that is known.
    pub fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
