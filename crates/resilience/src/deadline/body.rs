//! Bodies with a timer: it cuts a response's body; a request's body only reports that bytes passed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    stalled::WatchedBody,
    timer::{Activity, ShownDeadline, Timer},
};
use crate::UpstreamState;

pin_project! {
    /// A response's body that ends with an error when its deadline has passed.
    pub(super) struct TimedBody {
        inner: WatchedBody,
        #[pin]
        timer: Timer,
        limit: Option<ShownDeadline>,
        first: bool,
    }
}

impl TimedBody {
    pub(super) fn new(
        inner: Body,
        timer: Timer,
        limit: Option<ShownDeadline>,
        state: Arc<UpstreamState>,
    ) -> Self {
        let inner = WatchedBody::new(inner, timer.deadline(), state);
        Self { inner, timer, limit, first: true }
    }
}

/// Why it was cut, with the limit's value.
fn error(reason: Reason, timer: &Timer, limit: Option<&ShownDeadline>) -> BodyError {
    let cause = match reason {
        Reason::ClientStalled => "the client read nothing of the answer".to_owned(),
        reason => timer.cause(reason, "the answer was not whole", limit),
    };
    BodyError::with_source(Some(reason), cause)
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        if let Some(reason) = this.inner.is_cut() {
            // A reader that polls again must not see a clean end.
            return Poll::Ready(Some(Err(error(reason, &this.timer, this.limit.as_ref()))));
        }
        let frame = this.inner.poll_frame(cx);
        let passes = match &frame {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(_))) => true,
            Poll::Ready(_) => return frame,
        };
        // The first frame needs no timer. From the second frame on, the deadline also applies to a slow reader.
        if passes && std::mem::take(this.first) {
            return frame;
        }
        match this.timer.as_mut().poll(cx, passes) {
            Poll::Pending => frame,
            Poll::Ready(reason) => {
                this.inner.cut(reason);
                Poll::Ready(Some(Err(error(reason, &this.timer, this.limit.as_ref()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_cut().is_none() && self.inner.with(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.with(Body::size_hint)
    }
}

/// A request's body that notes its frames.
pub(super) struct ActiveBody {
    inner: Body,
    activity: Activity,
}

impl ActiveBody {
    pub(super) fn new(inner: Body, activity: Activity) -> Self {
        Self { inner, activity }
    }
}

impl Drop for ActiveBody {
    fn drop(&mut self) {
        self.activity.over.set(true);
    }
}

impl HttpBody for ActiveBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(frame) = &frame {
            this.activity.active.set(true);
            if !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream() {
                this.activity.over.set(true);
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
