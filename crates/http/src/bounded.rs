//! Bodies with a size limit.
//!
//! A body whose head gives a length above the limit is refused before anything is read. A body without a length is streamed and is cut at
//! the first byte above the limit: the upstream sees a body that never ends cleanly.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use attache_telemetry::Reason;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::{Body, BodyError, Refusal};

const TOO_LARGE: Refusal = Refusal {
    reason: Reason::BodyTooLarge,
    text: std::borrow::Cow::Borrowed("The request's body is larger than allowed here (`body_size`)."),
};

impl Body {
    /// The same body with a limit of `bytes`. It costs one allocation if the body's length isn't known.
    ///
    /// # Errors
    /// The length of the body is above the limit.
    pub fn at_most(self, bytes: u64) -> Result<Self, Refusal> {
        let hint = self.size_hint();
        if hint.lower() > bytes {
            return Err(TOO_LARGE);
        }
        if self.is_end_stream() || hint.upper().is_some_and(|upper| upper <= bytes) {
            return Ok(self);
        }
        Ok(Self::stream(Bounded { body: self, left: bytes }))
    }
}

struct Bounded {
    body: Body,
    left: u64,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let came = frame.data_ref().map_or(0, Bytes::len) as u64;
            let Some(left) = self.left.checked_sub(came) else {
                return Poll::Ready(Some(Err(BodyError::new(Reason::BodyTooLarge))));
            };
            self.left = left;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    struct TextBody(VecDeque<&'static str>);

    impl http_body::Body for TextBody {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
        }
    }

    /// How many bytes were read, and how the body ended.
    fn read(pieces: &[&'static str], most: u64) -> (usize, Option<Reason>) {
        let mut body = Body::stream(TextBody(pieces.iter().copied().collect())).at_most(most).unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut bytes = 0;
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(error))) => return (bytes, error.reason),
                Poll::Ready(None) => return (bytes, None),
                Poll::Pending => panic!("it waits"),
            }
        }
    }

    #[test]
    fn a_body_without_a_length_is_cut_at_the_first_byte_too_many() {
        assert_eq!(read(&["abc", "de"], 5), (5, None));
        assert_eq!(read(&["abc", "def"], 5), (3, Some(Reason::BodyTooLarge)));
        assert_eq!(read(&["a"], 0), (0, Some(Reason::BodyTooLarge)));
        assert_eq!(read(&[], 0), (0, None));
    }

    #[test]
    fn a_body_with_too_large_a_length_is_refused_before_it_is_read() {
        let whole = || Body::full(Bytes::from_static(b"abcdef"));
        assert_eq!(whole().at_most(5).err().map(|refusal| refusal.reason), Some(Reason::BodyTooLarge));
        assert!(whole().at_most(6).is_ok());
    }
}
