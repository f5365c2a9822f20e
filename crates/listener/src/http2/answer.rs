//! One request of an HTTP/2 connection: its answer is waited for, and sent as the client's windows allow.
//!
//! Rules:
//! - The client's reset ends the work in every state.
//! - A response that is cut resets the stream, and never ends it (RFC 9113 section 8.1). A gRPC answer ends with a
//!   status of its own instead, since that is what its client reads, and it can't be taken for a good end.
//! - A client that gives the stream no window for `http.write_timeout` loses the stream. The socket's own timeout does not see it, since
//!   other streams' bytes go.

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
use attache_http2::{Code, RecvStream, SendStream, Tunnel};
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

/// 1xx responses that may wait for the socket for one request.
const MOST_INFORMATIONAL: usize = 16;

/// 1xx responses that are to be sent before the answer.
#[derive(Debug, Default)]
pub(super) struct Informational(RefCell<Vec<(StatusCode, Fields)>>);

impl Informational {
    /// Where a request's 1xx responses go.
    pub(super) fn sink(self: &Rc<Self>) -> OnInformational {
        let queue = Rc::clone(self);
        // Called while the answer is polled, so by the task that sends them next.
        OnInformational::new(move |status, headers| {
            let mut waiting = queue.0.borrow_mut();
            if status.is_informational() && status.as_u16() > 101 && waiting.len() < MOST_INFORMATIONAL {
                let mut headers = headers.clone();
                strip(&mut headers);
                waiting.push((status, headers));
            }
        })
    }
}

/// What a CONNECT needs beside its answer.
pub(super) struct Connect {
    pub(super) received: RecvStream,
    pub(super) tunnel: oneshot::Sender<Tunnel>,
}

pin_project! {
    /// One request's answer on its way.
    pub(super) struct Answer<F> {
        // `None` once the answer's body has it.
        send: Option<SendStream>,
        #[pin]
        state: State<F>,
        connect: Option<Connect>,
        informational: Rc<Informational>,
        sent_informational: usize,
        live: Rc<OpenConnection>,
        // The request's, where its body could still break a rule.
        record: Option<Rc<Exchange>>,
        is_head: bool,
        write_timeout: Duration,
    }
}

pin_project! {
    #[project = StateProjection]
    #[allow(clippy::large_enum_variant, reason = "the whole future is one allocation")]
    enum State<F> {
        Waiting { #[pin] answer: F },
        Sending { sending: Sending },
    }
}

impl<F> Answer<F> {
    pub(super) fn new(
        answer: F,
        send: SendStream,
        method: &Method,
        connect: Option<Connect>,
        informational: Rc<Informational>,
        live: Rc<OpenConnection>,
        write_timeout: Duration,
    ) -> Self {
        Self {
            send: Some(send),
            state: State::Waiting { answer },
            connect,
            informational,
            sent_informational: 0,
            live,
            record: None,
            is_head: method == Method::HEAD,
            write_timeout,
        }
    }

    /// The request has a body, which may still break a rule: its record must show that.
    pub(super) fn with_record(self, record: Option<Rc<Exchange>>) -> Self {
        Self { record, ..self }
    }
}

impl<F: Future<Output = Result<Response<CountedBody>, Infallible>>> Future for Answer<F> {
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
                // Also before it was started: a request that was cancelled by then is not forwarded.
                note_fault(this.record.as_deref(), send);
                return Poll::Ready(());
            }
            let polled = answer.poll(cx);
            for (status, headers) in this.informational.0.take() {
                *this.sent_informational += 1;
                if *this.sent_informational <= MOST_INFORMATIONAL {
                    send.answer(status, &headers, false);
                }
            }
            let Poll::Ready(Ok(response)) = polled else {
                // The client's reset, or the connection's end.
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
                // RFC 9110 section 9.3.6.
                head.headers.remove(CONTENT_LENGTH);
                if send.answer(head.status, &head.headers, false)
                    && let Some(send) = this.send.take()
                {
                    let Connect { received, tunnel } = connect;
                    let _ = tunnel.send(Tunnel::new(send, received));
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
            let sending = Sending { out, body, rest: Bytes::new(), ends: false, is_grpc, stall: None };
            this.state.set(State::Sending { sending });
        }
    }
}

/// Tells a request's record whose body broke a rule that it did not just leave.
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

/// What HTTP/2 has no place for (RFC 9113 section 8.2.2).
fn strip(headers: &mut Fields) {
    headers.remove(TE);
    for name in CONNECTION_SPECIFIC {
        headers.remove(name);
    }
}

/// The body on its way.
struct Sending {
    out: SendStream,
    body: CountedBody,
    /// Taken from the body and not yet covered by the client's windows.
    rest: Bytes,
    /// `rest` is the last of it.
    ends: bool,
    is_grpc: bool,
    /// Made once, and used again.
    stall: Option<Stall>,
}

/// Follows how long an answer waits for the client's window.
struct Stall {
    timer: Pin<Box<Sleep>>,
    runs: bool,
    /// It is the window that was missing when it began, and not the socket, which has a timeout of its own.
    lacks_window: bool,
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>, write_timeout: Duration) -> Poll<()> {
        loop {
            if !self.rest.is_empty() {
                let room = match self.out.poll_capacity(cx, self.rest.len()) {
                    Poll::Ready(Ok(room)) => room,
                    // The client's reset, or the connection's end.
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

    /// Is ready when the client gave no window for so long, and the stream is reset.
    fn poll_stalled(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        if limit.is_zero() {
            return Poll::Pending;
        }
        let lacks_window = self.out.lacks_window();
        let stall = self.stall.get_or_insert_with(|| Stall {
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
            // There is no event when a queued stream stops waiting for the socket and begins to wait for the window.
            stall.timer.as_mut().reset(Instant::now() + limit);
            stall.lacks_window = lacks_window;
        }
        self.body.fail(Reason::ClientClosed, || Stalled(limit).to_string());
        self.out.reset(Code::CANCEL);
        Poll::Ready(())
    }

    fn break_off(&mut self, error: &BodyError) {
        let reason = error.reason.unwrap_or(Reason::UpstreamClosedMidBody);
        if self.is_grpc {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from(u16::from(reason.grpc_status())));
            let words = format!("attache: the answer broke off: {reason}: {}", crate::exchange::cause(error));
            if let Ok(words) = HeaderValue::from_str(&percent_encode(&words)) {
                trailers.insert("grpc-message", words);
            }
            if self.out.trail(&trailers) {
                return;
            }
        }
        self.out.reset(Code::INTERNAL_ERROR);
    }
}
