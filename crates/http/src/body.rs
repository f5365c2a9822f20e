//! One body type from the listener to the upstream and back: bodies are streamed, never collected.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use attache_telemetry::Reason;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BodyStream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>;

/// A message body. It stays on the worker that made it, so it needs no lock.
#[derive(Default)]
pub struct Body(BodyKind);

#[derive(Default)]
enum BodyKind {
    #[default]
    Empty,
    Full(Bytes),
    Stream(BodyStream),
}

impl Body {
    /// A body without content.
    pub const fn empty() -> Self {
        Self(BodyKind::Empty)
    }

    /// A body whose bytes are all here.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { BodyKind::Empty } else { BodyKind::Full(bytes) })
    }

    /// Whether all of its bytes are here.
    pub const fn is_whole(&self) -> bool {
        matches!(self.0, BodyKind::Empty | BodyKind::Full(_))
    }

    /// Any other body; costs one allocation.
    pub fn stream(body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self(BodyKind::Stream(Box::pin(body)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            BodyKind::Empty => Poll::Ready(None),
            kind @ BodyKind::Full(_) => match std::mem::take(kind) {
                BodyKind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                _ => Poll::Ready(None),
            },
            BodyKind::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Empty => true,
            BodyKind::Full(_) => false,
            BodyKind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Empty => SizeHint::with_exact(0),
            BodyKind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodyKind::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            BodyKind::Empty => "Body(empty)",
            BodyKind::Full(_) => "Body(full)",
            BodyKind::Stream(_) => "Body(stream)",
        })
    }
}

/// A body that was cut off. Code that forwards it must also cut the other side, and must never end that side cleanly.
#[derive(Debug)]
pub struct BodyError {
    /// Why it was cut, if that is known. `None` from a connection to a peer: the reader knows which side that peer is.
    pub reason: Option<Reason>,
    source: Option<BoxError>,
}

impl BodyError {
    /// An error that attache itself causes.
    pub fn new(reason: Reason) -> Self {
        Self { reason: Some(reason), source: None }
    }

    /// An error with its cause.
    pub fn with_source(reason: Option<Reason>, source: impl Into<BoxError>) -> Self {
        Self { reason, source: Some(source.into()) }
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self { reason: None, source: Some(Box::new(error)) }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "the body was cut: {reason}"),
            None => f.write_str("the body was cut"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
