//! The request's body on its way to an HTTP/1 upstream, held back while `Expect: 100-continue` waits for its answer.
//!
//! Rule (RFC 9110 section 10.1.1): the body is not read before the upstream says 100, or a final success, or nothing
//! for one second (what curl waits). Not reading it is also what keeps the client from being told to send it. 1xx
//! responses are told to whoever drives the connection.

use std::{
    cell::Cell,
    mem,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use attache_http::{Body, BodyError};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header::EXPECT};
use http_body::{Frame, SizeHint};

/// How long the body waits for a word from the upstream.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Shut until the upstream wants the body. Whoever opens it polls the connection again, so no waker is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Rc<Cell<bool>>);

impl Gate {
    pub(super) fn open(&self) {
        self.0.set(true);
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.get()
    }

    /// A gate, if this request asks for one.
    fn of(request: &Request<Body>) -> Option<Self> {
        let expect = request.headers().get(EXPECT)?;
        let asks = expect.as_bytes().eq_ignore_ascii_case(b"100-continue");
        (asks && !http_body::Body::is_end_stream(request.body())).then(Self::default)
    }
}

/// A request's body behind its gate, if it has one.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Body,
    pub(super) gate: Option<Gate>,
    /// Set when hyper lets go of the body: all of it has been taken over, or nobody wants it. Allocated only for
    /// requests with a body.
    pub(super) done: Option<Rc<Cell<bool>>>,
}

impl Outgoing {
    pub(super) fn new(request: Request<Body>) -> Request<Self> {
        let gate = Gate::of(&request);
        request.map(|body| {
            let done = (!http_body::Body::is_end_stream(&body)).then(Rc::default);
            Self { body, gate, done }
        })
    }

    pub(super) fn into_body(mut self) -> Body {
        mem::take(&mut self.body)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(done) = &self.done {
            done.set(true);
        }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.gate.as_ref().is_some_and(|gate| !gate.is_open()) {
            return Poll::Pending;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// 1xx responses that hyper has parsed and nobody has seen yet. hyper's callback must be `Send + Sync` although it runs
/// inside of the connection's poll on this very thread, so what it hears is laid down here and collected after the poll.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<(StatusCode, HeaderMap)>>>);

impl Heard {
    /// Makes hyper lay the 1xx responses to this request down here.
    pub(super) fn listen(&self, request: &mut Request<Outgoing>) {
        let heard = self.clone();
        hyper::ext::on_informational(request, move |response| {
            let mut heard = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push((response.status(), response.headers().clone()));
        });
    }

    /// What came since the last time, in order.
    pub(super) fn collect(&self) -> Vec<(StatusCode, HeaderMap)> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
