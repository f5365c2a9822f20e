//! A request body that can be sent again, while it is small.
//!
//! **Rule.** The body is passed on as it comes. At the same time its frames are kept until they have more than
//! `retry.buffer` bytes together (counted as Envoy's `retry_shadow_buffer_limit`); then all are dropped and the request
//! can't be retried. Another attempt gets the kept frames, then the rest of the stream. So a request is retried only if
//! no byte that was read from the client is missing, and two attempts never read the client's stream at once. Once its
//! end was read and all of it is kept, any number of attempts may read the kept frames (hedges). Once the caller gets a
//! response the recording ends, so that a long upload beside an early answer keeps nothing.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// The recording of one request's body.
#[derive(Debug)]
pub(super) struct Recording(Rc<RefCell<RecordedBody>>);

#[derive(Debug)]
struct RecordedBody {
    source: Body,
    frames: Vec<RecordedFrame>,
    bytes: usize,
    limit: usize,
    recording: bool,
    /// A part that was read is no longer kept.
    lost: bool,
    /// The source failed: no other attempt can get the rest.
    failed: bool,
    ended: bool,
    /// Only the newest attempt may read; reads by the connection of an older one fail.
    reader: u32,
}

#[derive(Clone, Debug)]
enum RecordedFrame {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl From<RecordedFrame> for Frame<Bytes> {
    fn from(kept: RecordedFrame) -> Self {
        match kept {
            RecordedFrame::Data(bytes) => Frame::data(bytes),
            RecordedFrame::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

impl Recording {
    pub(super) fn new(source: Body, limit: usize) -> Self {
        // A body that announces a larger size can't be kept to its end, so no byte of it is kept.
        let recording = limit > 0 && source.size_hint().lower() <= limit as u64;
        let recorded = RecordedBody {
            source,
            frames: Vec::new(),
            bytes: 0,
            limit,
            recording,
            lost: false,
            failed: false,
            ended: false,
            reader: 0,
        };
        Self(Rc::new(RefCell::new(recorded)))
    }

    /// The body for the next attempt; those of earlier attempts get no more.
    pub(super) fn body(&self) -> Body {
        let mut recorded = self.0.borrow_mut();
        recorded.reader += 1;
        Body::stream(RecordedBodyReader { recorded: self.0.clone(), id: recorded.reader, next: 0 })
    }

    /// Whether the next attempt would get every byte that was read.
    pub(super) fn whole(&self) -> bool {
        let recorded = self.0.borrow();
        !recorded.lost && !recorded.failed
    }

    /// True if its end was read and all of it is kept: attempts may read it at the same time.
    pub(super) fn complete(&self) -> bool {
        self.0.borrow().complete()
    }

    /// No other attempt will follow: the kept bytes are dropped when the running attempt has read them.
    pub(super) fn stop(&self) {
        self.0.borrow_mut().recording = false;
    }
}

struct RecordedBodyReader {
    recorded: Rc<RefCell<RecordedBody>>,
    id: u32,
    /// The frame of the recording that this attempt reads next.
    next: usize,
}

impl HttpBody for RecordedBodyReader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let recorded = &mut *this.recorded.borrow_mut();
        if recorded.reader != this.id && !recorded.complete() {
            return Poll::Ready(Some(Err(BodyError::new(Reason::UpstreamReset))));
        }
        if let Some(kept) = recorded.frames.get(this.next) {
            let kept = kept.clone();
            this.next += 1;
            recorded.let_go(this.next);
            return Poll::Ready(Some(Ok(kept.into())));
        }
        if recorded.ended {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut recorded.source).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                recorded.record(frame);
                this.next = recorded.frames.len();
            }
            Poll::Ready(Some(Err(_))) => recorded.failed = true,
            Poll::Ready(None) => recorded.ended = true,
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        let recorded = self.recorded.borrow();
        (recorded.reader == self.id || recorded.complete())
            && self.next >= recorded.frames.len()
            && (recorded.ended || (!recorded.failed && recorded.source.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        let recorded = self.recorded.borrow();
        let kept: usize = recorded.frames.iter().skip(self.next).map(RecordedFrame::data).sum();
        let rest = recorded.source.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept as u64));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept as u64));
        }
        hint
    }
}

impl RecordedBody {
    fn complete(&self) -> bool {
        !self.lost && !self.failed && (self.ended || self.source.is_end_stream())
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(bytes), _) => RecordedFrame::Data(bytes.clone()),
            (_, Some(trailers)) => RecordedFrame::Trailers(trailers.clone()),
            _ => return,
        };
        self.bytes = self.bytes.saturating_add(kept.len());
        if self.recording && self.bytes <= self.limit {
            self.frames.push(kept);
        } else {
            self.recording = false;
            self.lost = true;
            self.frames = Vec::new();
        }
    }

    /// Drops the recording when it is complete and its reader has read all of it.
    fn let_go(&mut self, read: usize) {
        if !self.recording && read >= self.frames.len() {
            self.lost = true;
            self.frames = Vec::new();
        }
    }
}

impl RecordedFrame {
    /// Bytes of the body proper.
    fn data(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Trailers(_) => 0,
        }
    }

    /// Bytes that are held.
    fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Trailers(trailers) => {
                trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
            }
        }
    }
}

#[cfg(test)]
mod tests;
