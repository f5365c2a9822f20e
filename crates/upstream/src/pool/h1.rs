//! One HTTP/1.1 connection, without a task of its own.
//!
//! Its holder drives it: first the call, while it waits for the response's head; then the response's body, while it is
//! read ([`super::h1_body`]). So no request passes between tasks. Dropping it, in any state, closes the socket.
//!
//! Before a request is written, the connection is read: if the peer has closed it, or sent bytes, the request is
//! returned unchanged ([`FailedRequest::request`]).

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use attache_config::model;
use attache_http::{
    Body, BodyError, OnInformational,
    time::{Sleep, sleep},
};
use attache_telemetry::Reason;
use attache_wire::{
    HeadLimits, MessageFault, Request, ResponseHead, ValueRef,
    body::BodyDecoder,
    buffers::{self, BulkReads},
    header::UPGRADE,
    outbox::Outbox,
    response::{self, MethodKind, ParsedResponse},
};
use bytes::BytesMut;
use http::{HeaderValue, Method, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite as _},
    time::Instant,
};

use super::{
    first_bytes::begins_with,
    outgoing::{CONTINUE_TIMEOUT, OutgoingBody, WriteProgress, broken_body},
    owner::Owner,
    upgrade,
    upgraded::H1Tunnel,
};
use crate::{Error, SentPart, connect::EndpointConnection, error::reason_or, limit::ConnectionPermit};

/// The advice if a peer ends a plain connection without a byte.
const IF_TLS: &str = "if it expects TLS, write `https://` in its address";

/// The most bytes of an answer's first line.
const STATUS_LINE: usize = 8 << 10;

/// Heads that are read before other tasks get a turn: an upstream may send endless 1xx answers, thousands in each read.
const HEADS: u32 = 64;

/// Pieces of a body that are written before the answer is read: a client that never pauses would use up the task's
/// budget.
const PIECES: u32 = 8;

/// A connection and everything that is known of it.
pub(super) struct H1Connection {
    io: EndpointConnection,
    /// The connection counts as long as it is open, also after an upgrade.
    permit: ConnectionPermit,
    buf: BytesMut,
    out: Outbox,
    /// The request that waits to be written.
    waiting: Option<Request<Body>>,
    asked: MethodKind,
    /// The protocols that the request asks for instead of HTTP.
    upgrades: Option<HeaderValue>,
    pub(super) upload: Option<OutgoingBody>,
    pub(super) decoder: BodyDecoder,
    limits: HeadLimits,
    /// Bytes of the buffer that were already parsed and are not a complete head.
    seen: usize,
    /// True if a byte was read since the request began.
    read: bool,
    wrote: bool,
    /// Why the peer reads no more. It may have answered before it closed (RFC 9112 section 9.5), so reading continues.
    write_error: Option<io::Error>,
    unflushed: bool,
    bulk: BulkReads,
    created: Instant,
    requests: u64,
    keep: bool,
    pub(super) owner: Owner,
    /// The peer's identity, from its certificate.
    pub(super) peer: Option<model::Name>,
    /// The sweep at which it became idle.
    pub(super) idle_since: u64,
}

/// Why a request got no response.
pub(super) struct FailedRequest {
    pub(super) error: Error,
    /// The unchanged request, if no byte of it was written and its body was not read.
    pub(super) request: Option<Request<Body>>,
}

/// Why a connection stops while it is driven.
enum H1Stop {
    /// The request's own body failed, or had another length than it announced.
    Upload(BodyError),
    /// The peer has closed the connection.
    Ended,
    Io(io::Error),
    Fault(MessageFault),
    /// The peer switched to a protocol that the request had not asked for.
    Switched,
    /// The peer of a new connection sent bytes before the request, as servers of other protocols do.
    SpokeFirst,
}

impl H1Connection {
    /// Speaks HTTP/1.1 on a new connection. Nothing is written yet.
    pub(super) fn new(
        io: EndpointConnection,
        permit: ConnectionPermit,
        settings: &model::Pool,
        owner: Owner,
        peer: Option<model::Name>,
    ) -> Box<Self> {
        let (size, count) = (settings.headers_size, settings.headers_count);
        Box::new(Self {
            io,
            permit,
            buf: BytesMut::new(),
            out: Outbox::default(),
            waiting: None,
            asked: MethodKind::Other,
            upgrades: None,
            upload: None,
            decoder: BodyDecoder::none(),
            limits: HeadLimits { line: STATUS_LINE, size, count },
            seen: 0,
            read: false,
            wrote: false,
            write_error: None,
            unflushed: false,
            bulk: BulkReads::default(),
            created: Instant::now(),
            requests: 0,
            keep: true,
            owner,
            peer,
            idle_since: 0,
        })
    }

    /// True if the response was read, the request was written, and another request may follow.
    pub(super) fn is_ready(&self) -> bool {
        self.keep
            && self.decoder.is_done()
            && self.waiting.is_none()
            && self.is_uploaded()
            && self.buf.is_empty()
            && self.write_error.is_none()
    }

    /// True if the request was written.
    pub(super) fn is_uploaded(&self) -> bool {
        self.upload.is_none() && self.out.is_empty()
    }

    /// Whether the pool's limits allow another request on it.
    pub(super) fn may_be_kept(&self, settings: &model::Pool) -> bool {
        self.is_ready()
            && (settings.max_requests == 0 || self.requests < settings.max_requests)
            && (settings.max_age.is_zero() || self.created.elapsed() < settings.max_age)
    }

    /// True if it has carried no request yet.
    pub(super) const fn is_fresh(&self) -> bool {
        self.requests == 0
    }

    /// Becomes idle.
    pub(super) fn rest(&mut self) {
        buffers::put(self.out.buffer());
    }

    /// Whether the peer has closed this idle connection, or sent bytes without a request. It is checked only after a
    /// whole idle tick, because busy connections would keep the sweep running. Then its end wakes the sweep.
    pub(super) fn has_ended(&mut self, cx: &mut Context<'_>, tick: u64) -> bool {
        if self.idle_since == tick {
            return false;
        }
        let ended = self.poll_fill(cx).is_ready();
        // It contains the last answer's head, which is no longer needed.
        buffers::put(&mut self.buf);
        ended
    }

    /// How much of the request the upstream may have seen.
    const fn sent(&self) -> SentPart {
        if self.read {
            SentPart::Response
        } else if self.wrote {
            SentPart::Request
        } else {
            SentPart::Nothing
        }
    }

    /// Reads once; 0 if the peer has ended its side.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.bulk.make_room(&mut self.buf);
        let read = pin!(self.io.read_buf(&mut self.buf)).poll(cx);
        match read {
            Poll::Ready(Ok(n)) => {
                self.read |= n > 0;
                self.bulk.read(n, room);
            }
            Poll::Pending | Poll::Ready(Err(_)) => {}
        }
        read
    }

    /// The buffer, and the decoder that takes the body's pieces from it.
    pub(super) fn body(&mut self) -> (&mut BodyDecoder, &mut BytesMut) {
        (&mut self.decoder, &mut self.buf)
    }

    /// Begins a request. [`Self::answer`] waits for the response, in a future that does not contain the request.
    pub(super) fn begin(&mut self, request: Request<Body>) {
        self.read = false;
        self.wrote = false;
        self.requests += 1;
        self.asked = match *request.method() {
            Method::HEAD => MethodKind::Head,
            Method::CONNECT => MethodKind::Connect,
            _ => MethodKind::Other,
        };
        self.upgrades = request.headers().get(UPGRADE).map(ValueRef::to_header_value);
        self.waiting = Some(request);
    }

    /// Waits for the response's head.
    pub(super) async fn answer(
        &mut self,
        on_informational: Option<&OnInformational>,
    ) -> Result<Box<ResponseHead>, FailedRequest> {
        // Boxed, since it is large and rarely used.
        let mut continue_timer = None;
        std::future::poll_fn(|cx| self.poll_answer(cx, on_informational, &mut continue_timer)).await
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        on_informational: Option<&OnInformational>,
        continue_timer: &mut Option<Pin<Box<Sleep>>>,
    ) -> Poll<Result<Box<ResponseHead>, FailedRequest>> {
        // True while a read waits, so the task that polls this will be woken.
        let mut waits = false;
        if let Some(request) = self.waiting.take() {
            let stop = match self.poll_fill(cx) {
                Poll::Pending => {
                    waits = true;
                    None
                }
                Poll::Ready(Ok(1..)) if self.requests <= 1 && !self.buf.starts_with(b"HTTP/1.") => {
                    Some(H1Stop::SpokeFirst)
                }
                // The connection's end, or bytes without a request.
                Poll::Ready(Ok(_)) => Some(H1Stop::Ended),
                Poll::Ready(Err(error)) => Some(H1Stop::Io(error)),
            };
            if let Some(stop) = stop {
                // These bytes, or this end, came before the request: the connection is dead.
                self.read = false;
                return Poll::Ready(Err(FailedRequest { request: Some(request), ..self.failed(stop) }));
            }
            self.upload = OutgoingBody::begin(request, &mut self.out);
        }
        match ready!(self.poll_head(cx, on_informational, continue_timer, waits)) {
            Ok(parts) => Poll::Ready(Ok(parts)),
            Err(stop) => Poll::Ready(Err(self.failed(stop))),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        on_informational: Option<&OnInformational>,
        continue_timer: &mut Option<Pin<Box<Sleep>>>,
        mut waits: bool,
    ) -> Poll<Result<Box<ResponseHead>, H1Stop>> {
        let mut heads = 0;
        loop {
            if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
                return Poll::Ready(Err(H1Stop::Upload(error)));
            }
            let stopped_reading = |error: &mut io::Error| {
                matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            };
            if let Some(error) = self.write_error.take_if(|error| !stopped_reading(error)) {
                return Poll::Ready(Err(H1Stop::Io(error)));
            }
            let mut opened = false;
            while !self.buf.is_empty() {
                if heads == HEADS {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let (head, parts) = match self.take_head() {
                    Ok(Some(taken)) => taken,
                    Ok(None) => break,
                    Err(fault) => return Poll::Ready(Err(H1Stop::Fault(fault))),
                };
                heads += 1;
                match parts.status {
                    StatusCode::CONTINUE => opened |= self.open_gate(),
                    StatusCode::SWITCHING_PROTOCOLS
                        if !upgrade::is_switch_to(self.upgrades.as_ref(), &parts.headers) =>
                    {
                        return Poll::Ready(Err(H1Stop::Switched));
                    }
                    status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {
                        if let Some(pass_on) = on_informational {
                            pass_on.call(status, parts.headers);
                        }
                    }
                    _ => {
                        self.decoder = head.framing.into();
                        // It is not known how a peer of HTTP/1.0 understands a second request.
                        self.keep &= head.persists && head.http11;
                        if parts.status.is_success() {
                            self.open_gate();
                        }
                        return Poll::Ready(Ok(parts));
                    }
                }
            }
            if opened {
                continue;
            }
            if !std::mem::take(&mut waits) {
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(H1Stop::Ended)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(H1Stop::Io(error))),
                    Poll::Pending => {}
                }
            }
            if !self.upload.as_ref().is_some_and(OutgoingBody::is_gated) {
                return Poll::Pending;
            }
            ready!(continue_timer.get_or_insert_with(|| Box::pin(sleep(CONTINUE_TIMEOUT))).as_mut().poll(cx));
            self.open_gate();
        }
    }

    fn take_head(&mut self) -> Result<Option<(ParsedResponse, Box<ResponseHead>)>, MessageFault> {
        // For a peer that sends byte by byte, the whole head must not be parsed again for each byte.
        let fresh = self.buf.get(self.seen..).unwrap_or_default();
        if self.seen > 0 && !fresh.contains(&b'\n') && self.buf.len() <= self.limits.line {
            return Ok(None);
        }
        self.seen = 0;
        let read = response::read(&mut self.buf, &self.limits, self.asked)?;
        if read.is_none() {
            self.seen = self.buf.len();
        }
        Ok(read)
    }

    /// The upstream asks for the body. True if the body waited for that.
    fn open_gate(&mut self) -> bool {
        self.upload.as_mut().is_some_and(OutgoingBody::open)
    }

    /// Writes as much of the request as the peer accepts. The error is that of the request's own body.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        for _ in 0..PIECES {
            let mut more = false;
            while self.out.has_room()
                && let Some(upload) = &mut self.upload
            {
                match upload.poll(cx, &mut self.out)? {
                    Poll::Pending => break,
                    Poll::Ready(WriteProgress::Piece) => {}
                    Poll::Ready(WriteProgress::Whole) => self.upload = None,
                }
            }
            while !self.out.is_empty() {
                if self.write_error.is_some() {
                    return Poll::Pending;
                }
                let io = Pin::new(&mut self.io);
                let written = match self.out.single() {
                    // send(2) is cheaper than writev(2).
                    Some(bytes) => io.poll_write(cx, bytes),
                    None => io.poll_write_vectored(cx, &self.out.slices()),
                };
                match ready!(written) {
                    Ok(n) => {
                        self.wrote = true;
                        self.unflushed = true;
                        self.out.advance(n);
                        more = true;
                    }
                    // No wake-up for writing is needed: the socket's end wakes the reader.
                    Err(error) => self.write_error = Some(error),
                }
            }
            if self.unflushed {
                match ready!(Pin::new(&mut self.io).poll_flush(cx)) {
                    Ok(()) => self.unflushed = false,
                    // TLS buffers records, so the socket's error comes with the flush.
                    Err(error) => {
                        self.unflushed = false;
                        self.write_error = Some(error);
                    }
                }
            }
            if self.upload.is_none() {
                return Poll::Ready(Ok(()));
            }
            if !more {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// True if the connection has no TLS and the peer has never sent a byte, as a peer does that expects TLS.
    fn never_answered(&self, sent: SentPart) -> bool {
        !self.io.is_tls() && self.requests <= 1 && sent == SentPart::Request && !self.read
    }

    /// Translates a stop into an error with a reason.
    #[cold]
    fn failed(&mut self, stop: H1Stop) -> FailedRequest {
        self.keep = false;
        let sent = self.sent();
        let error = match stop {
            H1Stop::Upload(body) => broken_body(&body, sent),
            H1Stop::Ended => match self.write_error.take() {
                Some(write) => {
                    let reason = reason_or(&write, Reason::UpstreamReset);
                    Error::with_source(reason, sent, format!("the connection ended; writing: {write}"))
                }
                None if self.never_answered(sent) => {
                    let text = format!("the upstream closed the connection without an answer; {IF_TLS}");
                    Error::with_source(Reason::UpstreamReset, sent, text)
                }
                None => Error::with_source(
                    Reason::UpstreamReset,
                    sent,
                    "the upstream closed the connection before its answer was whole",
                ),
            },
            H1Stop::Io(error) => {
                let reason = reason_or(&error, Reason::UpstreamReset);
                match self.write_error.take() {
                    Some(write) if sent < SentPart::Response => {
                        Error::with_source(reason, sent, format!("{error}; writing: {write}"))
                    }
                    _ if error.kind() == io::ErrorKind::ConnectionReset && self.never_answered(sent) => {
                        Error::with_source(reason, sent, format!("{error}; {IF_TLS}"))
                    }
                    _ => Error::with_source(reason, sent, error),
                }
            }
            // A TLS record, an alert above all: RFC 8446 section 5.1.
            H1Stop::Fault(_) if !self.io.is_tls() && matches!(*self.buf, [0x15 | 0x16, 3, ..]) => {
                Error::with_source(
                    Reason::UpstreamProtocolError,
                    sent,
                    "the upstream speaks TLS: write `https://` in its address",
                )
            }
            H1Stop::Fault(fault) if self.requests <= 1 && !self.buf.starts_with(b"HTTP/1.") => {
                let text = format!("{fault} {}", begins_with(&self.buf));
                Error::with_source(Reason::UpstreamProtocolError, sent, text)
            }
            H1Stop::Fault(fault) => Error::with_source(Reason::UpstreamProtocolError, sent, fault),
            H1Stop::SpokeFirst => {
                let text =
                    format!("the upstream spoke before there was a request. {}", begins_with(&self.buf));
                Error::with_source(Reason::UpstreamProtocolError, sent, text)
            }
            H1Stop::Switched => Error::with_source(
                Reason::UpstreamProtocolError,
                sent,
                "101 to a protocol that the request had not asked for",
            ),
        };
        let reused = self.requests > 1 && sent < SentPart::Response;
        FailedRequest { error: error.on_reused_connection(reused), request: None }
    }

    /// The socket after a switch of the protocol, with the bytes that came directly after the answer.
    pub(super) fn into_tunnel(self) -> H1Tunnel {
        H1Tunnel::new(self.io, self.buf.freeze(), self.permit)
    }
}
