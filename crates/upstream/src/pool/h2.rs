//! One HTTP/2 connection, shared by the calls of its worker.
//!
//! The h2 crate is used without hyper in between: a call's head and body are driven by the call itself and then by its
//! response's body, so that a stream costs no task and no channel, and what the peer said (GOAWAY, REFUSED_STREAM, its
//! stream limit, 1xx) is known exactly. One task per connection moves the frames.
//!
//! Rules:
//! - As many streams as both sides allow (`pool.h2_streams`, SETTINGS_MAX_CONCURRENT_STREAMS); more calls open more
//!   connections.
//! - After GOAWAY, or past `max_age`, a connection takes no new stream; its running ones finish.
//! - A peer that says nothing for `h2_keepalive` while streams are open is asked (PING), and given up if it is silent
//!   for as long again.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use attache_config::model;
use attache_telemetry::Reason;
use bytes::Bytes;
use h2::{
    Ping,
    client::{Builder, Connection as Frames, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::{
    sync::Notify,
    task::spawn_local,
    time::{Instant, sleep_until, timeout},
};

use super::{
    h1::Owner,
    h2_io::{H2Io, Socket},
};
use crate::{Error, Sent, connect::Connection, error::reason_or, limit::ConnectionPermit};

/// Streams that may be opened before the peer has said its own limit. RFC 9113 section 6.5.2 recommends limits of at
/// least 100; this value is one that nobody sets, so that it also tells whether the peer's SETTINGS have come.
const BEFORE_SETTINGS: usize = 101;

/// Bytes of one stream's request body that may wait in memory for the socket.
const SEND_BUFFER: usize = 256 << 10;

/// RFC 9113 section 6.9.1; h2 panics above it.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// What a stream keeps of its connection, wherever it goes.
#[derive(Debug, Default)]
pub(super) struct Line {
    streams: AtomicU32,
    closed: AtomicBool,
    /// Calls that wait for a stream.
    freed: Arc<Notify>,
}

/// One stream's place on a connection.
#[derive(Debug)]
pub(super) struct Lease(Arc<Line>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
        self.0.freed.notify_one();
    }
}

/// Wakes the connection's task, so that it notices that nobody will ask for streams any more.
struct Farewell(Rc<RefCell<Option<Waker>>>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

/// A connection that takes calls. Dropping it lets the running ones finish and then closes.
pub(super) struct H2 {
    sender: RefCell<SendRequest<Bytes>>, // dropped before `farewell` tells the task
    _farewell: Farewell,
    line: Arc<Line>,
    pub(super) created: Instant,
    used: Cell<bool>,
    pub(super) tls: bool,
    pub(super) owner: Owner,
    /// Who is at the other end, by its certificate.
    pub(super) peer: Option<model::Name>,
    /// The sweep at which it was last seen with a stream.
    pub(super) busy_at: Cell<u64>,
}

impl H2 {
    /// Speaks HTTP/2 on a new connection. The peer's own preface is not waited for.
    pub(super) async fn new(
        io: Connection,
        permit: ConnectionPermit,
        settings: &model::Pool,
        owner: Owner,
        peer: Option<model::Name>,
        freed: Arc<Notify>,
    ) -> Result<Rc<Self>, Error> {
        let tls = io.is_tls();
        let socket = Socket::new(io, permit);
        let io = H2Io::new(Rc::clone(&socket));
        let (sender, frames) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(BEFORE_SETTINGS)
            .initial_window_size(settings.h2_stream_window.min(LARGEST_WINDOW))
            .initial_connection_window_size(settings.h2_connection_window.min(LARGEST_WINDOW))
            .max_header_list_size(u32::try_from(settings.headers_size).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(|error| {
                Error::with_source(reason_or(&error, Reason::ConnectFailed), Sent::Nothing, error)
            })?;
        let line = Arc::new(Line { freed, ..Line::default() });
        let waker = Rc::new(RefCell::new(None));
        let task = Task {
            line: Arc::clone(&line),
            waker: Rc::clone(&waker),
            socket,
            keepalive: settings.h2_keepalive,
        };
        spawn_local(task.run(frames));
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            _farewell: Farewell(waker),
            line,
            created: Instant::now(),
            used: Cell::new(false),
            tls,
            owner,
            peer,
            busy_at: Cell::new(0),
        }))
    }

    /// Whether it may take another stream at all: it is open, was not told to go away, and is not too old.
    pub(super) fn is_open(&self, settings: &model::Pool) -> bool {
        let mut quiet = Context::from_waker(Waker::noop());
        !self.line.closed.load(Relaxed)
            && !matches!(self.sender.borrow_mut().poll_ready(&mut quiet), Poll::Ready(Err(_)))
            && (settings.max_age.is_zero() || self.created.elapsed() < settings.max_age)
    }

    /// No stream is open.
    pub(super) fn is_idle(&self) -> bool {
        self.line.streams.load(Relaxed) == 0
    }

    /// A stream's place, if there is one.
    pub(super) fn lease(&self, settings: &model::Pool) -> Option<Lease> {
        let theirs = self.sender.borrow().current_max_send_streams();
        let limit = (settings.h2_streams as usize).min(theirs);
        ((self.line.streams.load(Relaxed) as usize) < limit && self.is_open(settings))
            .then(|| self.first_lease())
    }

    /// A stream's place on a connection that was made for it: where the peer allows none, it waits.
    pub(super) fn first_lease(&self) -> Lease {
        self.line.streams.fetch_add(1, Relaxed);
        Lease(Arc::clone(&self.line))
    }

    /// The peer takes extended CONNECT (RFC 8441 section 3). Waits for its SETTINGS, for at most `limit`.
    pub(super) async fn takes_extended_connect(&self, limit: Duration) -> bool {
        let known = || {
            let sender = self.sender.borrow();
            let enabled = sender.is_extended_connect_protocol_enabled();
            let settings_came = sender.current_max_send_streams() != BEFORE_SETTINGS;
            (enabled || settings_came || self.line.closed.load(Relaxed)).then_some(enabled)
        };
        let wait = async {
            loop {
                if let Some(enabled) = known() {
                    return enabled;
                }
                // Only the first tunnel on a new connection gets here.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(limit, wait).await.unwrap_or(false)
    }

    /// Opens a stream. Returns also whether the connection had served others before.
    pub(super) fn open(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>, bool), Error> {
        let opened = self.sender.borrow_mut().send_request(request, ends);
        let (answer, stream) = opened.map_err(|error| explain(error, Sent::Nothing))?;
        Ok((answer, stream, self.used.replace(true)))
    }
}

/// What went wrong with a stream, in the terms of the proxy. `sent` is how much was sent where the peer did not say.
pub(super) fn explain(error: h2::Error, sent: Sent) -> Error {
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // A stream fails by the peer's GOAWAY only if it is above the last one that the peer works on.
    if error.is_remote() && (error.is_go_away() || (error.is_reset() && refused)) {
        let sent = if sent == Sent::Nothing { sent } else { Sent::Refused };
        return Error::with_source(Reason::UpstreamRefusedStream, sent, error);
    }
    let ours = error.is_library() || (!error.is_remote() && !error.is_io());
    let reason = if ours { Reason::UpstreamProtocolError } else { Reason::UpstreamReset };
    let reason = reason_or(&error, reason);
    Error::with_source(reason, sent, error)
}

/// What moves the frames of one connection.
struct Task {
    line: Arc<Line>,
    waker: Rc<RefCell<Option<Waker>>>,
    socket: Rc<Socket>,
    keepalive: Duration,
}

impl Task {
    async fn run(self, mut frames: Frames<H2Io, Bytes>) {
        let mut pings = frames.ping_pong();
        let mut timer = pin!(sleep_until(Instant::now() + self.keepalive));
        let mut heard = 0;
        let mut asked = false;
        poll_fn(|cx| {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            if Pin::new(&mut frames).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if let Poll::Ready(Err(_)) = self.socket.flush(cx) {
                return Poll::Ready(());
            }
            if let Some(pings) = &mut pings {
                // The answer itself is seen as something heard; this takes it out of the way for the next question.
                while matches!(pings.poll_pong(cx), Poll::Ready(Ok(_))) {}
            }
            while !self.keepalive.is_zero() && timer.as_mut().poll(cx).is_ready() {
                let silent = self.socket.heard() == heard && self.line.streams.load(Relaxed) > 0;
                heard = self.socket.heard();
                if silent && asked {
                    return Poll::Ready(());
                }
                asked = silent && pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
                timer.as_mut().reset(Instant::now() + self.keepalive);
            }
            Poll::Pending
        })
        .await;
        self.line.closed.store(true, Relaxed);
        self.line.freed.notify_one();
    }
}
