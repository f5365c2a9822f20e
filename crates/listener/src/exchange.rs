//! Reports every exchange once: when it ends, or when it is given up.
//!
//! The rule: the owner of [`ExchangeReporter`] owns the exchange. The reporter moves from the running request into the
//! response's body, and reports when it is dropped. So no path can forget the report, not even a panic. If the exchange was not marked as complete by then, the client left
//! or the drain's deadline cut it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use attache_http::{Body, BodyError, strip_response_trailers};
use attache_telemetry::{Exchange, Reason, metrics};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};

use crate::{
    registry::{ConnectionOrder, OpenConnection},
    request::ListenerSettings,
};

/// Reports an exchange when it is dropped.
pub(crate) struct ExchangeReporter {
    pub(crate) exchange: Rc<Exchange>,
    settings: Rc<ListenerSettings>,
    live: Rc<OpenConnection>,
    complete: bool,
}

impl ExchangeReporter {
    pub(crate) fn new(
        exchange: Rc<Exchange>,
        settings: Rc<ListenerSettings>,
        live: Rc<OpenConnection>,
    ) -> Self {
        live.begin();
        Self { exchange, settings, live, complete: false }
    }

    /// The exchange came to its end. Its reason says how.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }
}

/// Says how far the exchange was when the client left.
fn left(exchange: &Exchange) -> String {
    if exchange.status.get() == 0 {
        let waited = Duration::from_millis(exchange.start.elapsed().as_millis() as u64);
        format!("the client left after {waited:?}, before there was an answer")
    } else {
        "the client left before the answer's end".to_owned()
    }
}

impl Drop for ExchangeReporter {
    fn drop(&mut self) {
        self.live.end();
        if self.exchange.handed_over.get() {
            return;
        }
        if !self.complete && self.exchange.reason.get().is_none() {
            if self.live.order() == ConnectionOrder::Cut {
                self.exchange.fail(Reason::ShuttingDown, "the drain's deadline passed before the end");
            } else {
                let stalled = self.live.stalled();
                let detail = stalled.unwrap_or_else(|| left(&self.exchange));
                self.exchange.fail(Reason::ClientClosed, detail);
            }
        }
        // If the reporter panics while another panic unwinds, the process must not abort.
        let report = AssertUnwindSafe(|| (self.settings.on_finish)(&self.exchange));
        if catch_unwind(report).is_err() {
            metrics().panic_caught();
            tracing::error!(listener = %self.exchange.listener, "the report of an exchange panicked; the exchange is not counted");
        }
    }
}

/// The body of a response on its way to the client. It counts the bytes, and ends the exchange.
pub(crate) struct CountedBody {
    body: Body,
    /// `None` if the exchange continues as a tunnel.
    finish: Option<ExchangeReporter>,
    /// How many bytes the complete body has, if that is known.
    expected: Option<u64>,
}

impl CountedBody {
    /// `head`: the request was a HEAD.
    pub(crate) fn new(body: Body, finish: ExchangeReporter, head: bool, status: StatusCode) -> Self {
        // RFC 9112 section 6.3 rule 1: these responses have no body, whatever their headers say, so none is read.
        let bodiless = head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let expected = if bodiless { Some(0) } else { http_body::Body::size_hint(&body).exact() };
        let mut sent = Self { body, finish: Some(finish), expected };
        sent.count(0);
        sent
    }

    /// The length of the body is not the one in the head.
    #[cold]
    pub(crate) fn has_wrong_length(&self) {
        self.fail(Reason::UpstreamProtocolError, || {
            "the body has another length than its head said".to_owned()
        });
    }

    fn count(&mut self, bytes: usize) {
        let Some(finish) = &mut self.finish else { return };
        let sent = finish.exchange.sent.get() + bytes as u64;
        finish.exchange.sent.set(sent);
        if self.expected.is_some_and(|all| sent >= all) {
            finish.complete();
        }
    }

    fn complete(&mut self) {
        if let Some(finish) = &mut self.finish {
            finish.complete();
        }
    }

    pub(crate) fn fail(&self, reason: Reason, detail: impl FnOnce() -> String) {
        if let Some(finish) = &self.finish
            && finish.exchange.reason.get().is_none()
        {
            finish.exchange.fail(reason, detail());
            if finish.exchange.protocol == "http1" {
                // Without a length, only the end of the connection tells the client that the body is incomplete.
                finish.live.ends_by(reason);
            }
        }
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx)));
        let mut polled = polled.unwrap_or_else(|_| {
            metrics().panic_caught();
            this.fail(Reason::InternalError, || "the response's body panicked".to_owned());
            Poll::Ready(Some(Err(BodyError::new(Reason::InternalError))))
        });
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            strip_response_trailers(trailers);
            if let Some(finish) = &this.finish {
                finish.exchange.ended_by_trailers(trailers);
            }
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.count(data.len());
                    if http_body::Body::is_end_stream(&this.body) {
                        this.complete();
                    }
                } else if frame.is_trailers() {
                    this.complete();
                }
            }
            Poll::Ready(Some(Err(error))) => {
                this.fail(error.reason.unwrap_or(Reason::UpstreamClosedMidBody), || cause(error));
            }
            Poll::Ready(None) => this.complete(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

/// The last cause of an error: it has the words of the system or of the peer.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
