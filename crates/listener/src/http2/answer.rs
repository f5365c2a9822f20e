//! One request of an HTTP/2 connection: waits for its response, and sends that as the client's windows allow.
//!
//! Rules:
//! - A reset by the client ends the work in every state.
//! - A response that is cut resets the stream, and never ends it cleanly (RFC 9113 section 8.1). A gRPC response ends with a status of its
//!   own instead: the client reads that status, and can't take it for a success.
//! - A client that gives a stream no window for `http.write_timeout` loses the stream. The socket's own timeout does not notice this,
//!   because bytes of other streams are still sent.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use attache_http::{
    BodyError, CONNECTION_SPECIFIC, OnInformational, percent_encode,
    time::{Sleep, sleep},
};
use attache_http2::{ErrorCode, Http2Tunnel, RecvStream, SendStream};
use attache_telemetry::{Exchange, Reason};
use attache_wire::{
    Fields, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, TE},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tokio::{sync::oneshot, time::Instant};

use crate::{exchange::CountedBody, http1::date, registry::OpenConnection, stall::Stalled};

/// How many 1xx responses of one request may wait until its task passes them on.
const MAX_INFORMATIONAL: usize = 16;

/// 1xx responses that must be sent before the final response.
#[derive(Debug, Default)]
pub(super) struct PendingInformational(RefCell<Vec<(StatusCode, Fields)>>);

impl PendingInformational {
    /// The function that receives a request's 1xx responses.
    pub(super) fn sink(self: &Rc<Self>) -> OnInformational {
        let queue = Rc::clone(self);
        // This is called while the response is polled, so by the task that sends them next.
        OnInformational::new(move |status, headers| {
            let mut waiting = queue.0.borrow_mut();
            if status.is_informational() && status.as_u16() > 101 && waiting.len() < MAX_INFORMATIONAL {
                let mut headers = headers.clone();
                strip(&mut headers);
                waiting.push((status, headers));
            }
        })
    }

    /// Asks the client for the body that it holds back, by a 100. As for the sink, the caller is the task that sends the queue next:
    /// before the response's head, that task reads the body.
    pub(super) fn ask_for_body(&self) {
        self.0.borrow_mut().push((StatusCode::CONTINUE, Fields::new()));
    }
}

/// What a CONNECT needs beside its response.
pub(super) struct Connect {
    pub(super) received: RecvStream,
    pub(super) tunnel: oneshot::Sender<Http2Tunnel>,
}

pin_project! {
    /// A response that is being sent to one request.
    pub(super) struct Http2Responder<F> {
        // `None` after the response's body has taken it.
        send: Option<SendStream>,
        #[pin]
        state: Http2ResponderState<F>,
        connect: Option<Connect>,
        informational: Rc<PendingInformational>,
        live: Rc<OpenConnection>,
        // The request's record, as long as its body could still break a rule.
        record: Option<Rc<Exchange>>,
        is_head: bool,
        write_timeout: Duration,
    }
}

pin_project! {
    #[project = StateProjection]
    #[allow(clippy::large_enum_variant, reason = "the whole future is one allocation")]
    enum Http2ResponderState<F> {
        Waiting { #[pin] answer: F },
        Sending { sending: Http2BodySender },
    }
}

impl<F> Http2Responder<F> {
    pub(super) fn new(
        answer: F,
        send: SendStream,
        method: &Method,
        connect: Option<Connect>,
        informational: Rc<PendingInformational>,
        live: Rc<OpenConnection>,
        write_timeout: Duration,
    ) -> Self {
        Self {
            send: Some(send),
            state: Http2ResponderState::Waiting { answer },
            connect,
            informational,
            live,
            record: None,
            is_head: method == Method::HEAD,
            write_timeout,
        }
    }

    /// The request has a body. If that body breaks a rule, the request's record must show it.
    pub(super) fn with_record(self, record: Option<Rc<Exchange>>) -> Self {
        Self { record, ..self }
    }
}

impl<F: Future<Output = Result<Response<CountedBody>, Infallible>>> Future for Http2Responder<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            let answer = match this.state.as_mut().project() {
                StateProjection::Sending { sending } => {
                    ready!(sending.poll(cx, *this.write_timeout));
                    note_fault(this.record.as_deref(), &sending.out);
                    return Poll::Ready(());
                }
                StateProjection::Waiting { answer } => answer,
            };
            let Some(send) = this.send.as_ref() else { return Poll::Ready(()) };
            if send.is_broken() {
                // This also happens before the work has started: a request that is cancelled by then is not forwarded.
                note_fault(this.record.as_deref(), send);
                return Poll::Ready(());
            }
            let polled = answer.poll(cx);
            for (status, headers) in this.informational.0.take() {
                if status == StatusCode::CONTINUE {
                    send.answer(status, &headers, false);
                } else {
                    send.inform(status, &headers);
                }
            }
            let Poll::Ready(Ok(response)) = polled else {
                // The client reset the stream, or the connection ended.
                return send.poll_end(cx).map(|_| ());
            };
            this.live.answered.set(this.live.answered.get() + 1);
            let (mut head, body) = response.into_parts();
            strip(&mut head.headers);
            if !head.headers.contains_key(DATE) {
                head.headers.insert(DATE, date());
            }
            if head.status.is_success()
                && let Some(connect) = this.connect.take()
            {
                // RFC 9110 section 9.3.6: such a response has no length.
                head.headers.remove(CONTENT_LENGTH);
                if send.answer(head.status, &head.headers, false)
                    && let Some(send) = this.send.take()
                {
                    let Connect { received, tunnel } = connect;
                    let _ = tunnel.send(Http2Tunnel::new(send, received));
                }
                return Poll::Ready(());
            }
            let without_body =
                *this.is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            let ends = without_body || body.is_end_stream();
            if !ends
                && !head.headers.contains_key(CONTENT_LENGTH)
                && let Some(length) = body.size_hint().exact()
            {
                head.headers.insert(CONTENT_LENGTH, length);
            }
            let is_grpc = is_grpc(&head.headers);
            if !send.answer(head.status, &head.headers, ends) || ends {
                return Poll::Ready(());
            }
            let Some(out) = this.send.take() else { return Poll::Ready(()) };
            let sending =
                Http2BodySender { out, body, rest: Bytes::new(), ends: false, is_grpc, stall: None };
            this.state.set(Http2ResponderState::Sending { sending });
        }
    }
}

/// If a request's body broke a rule, notes that in its record, so that it doesn't say that the client left.
fn note_fault(record: Option<&Exchange>, out: &SendStream) {
    if let Some(exchange) = record
        && let Some(error) = out.broken().filter(|error| error.is_rule() && error.is_reset())
    {
        exchange.fail(Reason::BadRequest, error.words());
    }
}

fn is_grpc(headers: &Fields) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().starts_with(b"application/grpc")
            && !kind.as_bytes().starts_with(b"application/grpc-web")
    })
}

/// Removes the fields that HTTP/2 doesn't allow (RFC 9113 section 8.2.2).
fn strip(headers: &mut Fields) {
    headers.remove(TE);
    for name in CONNECTION_SPECIFIC {
        headers.remove(name);
    }
}

/// A body that is being sent.
struct Http2BodySender {
    out: SendStream,
    body: CountedBody,
    /// Data that was taken from the body and that the client's windows don't allow yet.
    rest: Bytes,
    /// `rest` is the last data.
    ends: bool,
    is_grpc: bool,
    /// Made once and then reused.
    stall: Option<WindowStallTimer>,
}

/// Measures how long a response waits for the client's window.
struct WindowStallTimer {
    timer: Pin<Box<Sleep>>,
    runs: bool,
    /// When the wait began, the window was missing, and not the socket; the socket has its own timeout.
    lacks_window: bool,
}

impl Http2BodySender {
    fn poll(&mut self, cx: &mut Context<'_>, write_timeout: Duration) -> Poll<()> {
        loop {
            if !self.rest.is_empty() {
                let room = match self.out.poll_capacity(cx, self.rest.len()) {
                    Poll::Ready(Ok(room)) => room,
                    // The client reset the stream, or the connection ended.
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {
                        ready!(self.poll_stalled(cx, write_timeout));
                        return Poll::Ready(());
                    }
                };
                if let Some(stall) = &mut self.stall {
                    stall.runs = false;
                }
                let part = self.rest.split_to(room);
                let last = self.ends && self.rest.is_empty();
                if !self.out.send(part, last) || last {
                    return Poll::Ready(());
                }
                continue;
            }
            if self.out.poll_end(cx).is_ready() {
                return Poll::Ready(());
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let ends = self.body.is_end_stream();
                        if data.is_empty() {
                            if ends {
                                self.out.send(data, true);
                                return Poll::Ready(());
                            }
                            continue;
                        }
                        (self.rest, self.ends) = (data, ends);
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.out.trail(&trailers);
                            return Poll::Ready(());
                        }
                    }
                },
                Some(Err(error)) => {
                    self.break_off(&error);
                    return Poll::Ready(());
                }
                None => {
                    self.out.send(Bytes::new(), true);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Ready when the client gave no window for so long; the stream is then reset.
    fn poll_stalled(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        if limit.is_zero() {
            return Poll::Pending;
        }
        let lacks_window = self.out.lacks_window();
        let stall = self.stall.get_or_insert_with(|| WindowStallTimer {
            timer: Box::pin(sleep(limit)),
            runs: true,
            lacks_window,
        });
        if !std::mem::replace(&mut stall.runs, true) || (lacks_window && !stall.lacks_window) {
            stall.timer.as_mut().reset(Instant::now() + limit);
            stall.lacks_window = lacks_window;
        }
        loop {
            ready!(stall.timer.as_mut().poll(cx));
            if stall.lacks_window && lacks_window {
                break;
            }
            // No event says when a queued stream stops waiting for the socket and begins to wait for the window.
            stall.timer.as_mut().reset(Instant::now() + limit);
            stall.lacks_window = lacks_window;
        }
        self.body.fail(Reason::ClientClosed, || Stalled(limit).to_string());
        self.out.reset(ErrorCode::CANCEL);
        Poll::Ready(())
    }

    fn break_off(&mut self, error: &BodyError) {
        let reason = error.reason.unwrap_or(Reason::UpstreamClosedMidBody);
        if self.is_grpc {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from(u16::from(reason.grpc_status())));
            let words =
                format!("attache: the response broke off: {reason}: {}", crate::exchange::cause(error));
            if let Ok(words) = HeaderValue::from_str(&percent_encode(&words)) {
                trailers.insert("grpc-message", words);
            }
            if self.out.trail(&trailers) {
                return;
            }
        }
        self.out.reset(ErrorCode::INTERNAL_ERROR);
    }
}
