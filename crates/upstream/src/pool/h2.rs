//! One HTTP/2 connection, shared by the calls of its worker.
//!
//! The h2 crate is used without hyper in between: a call's head and body are driven by the call itself and then by its
//! response's body, so that a stream costs no task and no channel, and what the peer said (GOAWAY, REFUSED_STREAM, its
//! stream limit, 1xx) is known exactly. One task per connection moves the frames.
//!
//! Rules:
//! - As many streams as both sides allow (`pool.h2_streams`, SETTINGS_MAX_CONCURRENT_STREAMS); more calls open more
//!   connections. Until the peer has said its limit there is one, or as many as it allowed on the connection before.
//! - After GOAWAY, or past `max_age`, a connection takes no new stream; its running ones finish.
//! - A peer that says nothing for `h2_keepalive` while streams are open is asked (PING), and given up if it is silent
//!   for [`KEEPALIVE_TIMEOUT`] more. Where data comes, nothing is asked but to measure the path ([`Window`]).
//! - A peer whose frames cost us more than its calls pay for is given up: see [`attache_http2::Flood`].
//! - A stream that nobody reads holds back itself alone: see [`CONNECTION_WINDOW`].

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
use attache_http2::{CONNECTION_WINDOW, Streams, Window};
use attache_telemetry::Reason;
use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, Connection as Frames, ResponseFuture, SendRequest},
};

use tokio::{
    sync::Notify,
    task::spawn_local,
    time::{Instant, sleep_until, timeout},
};

use super::{
    h1::Owner,
    h2_io::{H2Io, Signals, Socket},
};
use crate::{Error, Sent, connect::Connection, error::reason_or, limit::ConnectionPermit};

/// Streams that may be opened before the peer has said its own limit. RFC 9113 section 6.5.2 recommends limits of at
/// least 100; this value is one that nobody sets, so that it also tells whether the peer's SETTINGS have come.
const BEFORE_SETTINGS: usize = 101;

/// Bytes of one stream's request body that may wait in memory for the socket.
const SEND_BUFFER: usize = 256 << 10;

/// How long a peer may take to answer a PING (gRFC A8).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Calls that were given up are remembered, so that what is under way for them is no error of the peer.
const RESET_REMEMBERED: Duration = Duration::from_secs(30);
const RESETS_REMEMBERED: usize = 1024;

/// What a stream keeps of its connection, wherever it goes.
#[derive(Debug, Default)]
pub(super) struct Line {
    streams: AtomicU32,
    closed: AtomicBool,
    /// The peer's SETTINGS have come, or never will.
    settled: AtomicBool,
    on_settled: Notify,
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
    farewell: Farewell,
    line: Arc<Line>,
    pub(super) created: Instant,
    used: Cell<bool>,
    pub(super) tls: bool,
    pub(super) owner: Owner,
    /// Who is at the other end, by its certificate.
    pub(super) peer: Option<model::Name>,
    /// The sweep at which it was last seen with a stream.
    pub(super) busy_at: Cell<u64>,
    /// Streams that may be opened before the peer has said its limit.
    before_settings: usize,
    streams: Rc<Streams>,
    signals: Rc<Signals>,
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
        before_settings: usize,
    ) -> Result<Rc<Self>, Error> {
        let tls = io.is_tls();
        let (streams, signals) = (Rc::new(Streams::default()), Rc::<Signals>::default());
        let socket = Socket::new(io, permit, settings, Rc::clone(&streams), Rc::clone(&signals));
        let window = Window::new(&streams, settings.h2_stream_window, settings.h2_stream_window_max);
        let io = H2Io::new(Rc::clone(&socket));
        let (sender, frames) = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(BEFORE_SETTINGS)
            .initial_window_size(window.size())
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(settings.headers_size).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            // What these bound for the life of a connection well-behaved peers exceed in a day.
            .max_local_error_reset_streams(None)
            .max_concurrent_reset_streams(RESETS_REMEMBERED)
            .reset_stream_duration(RESET_REMEMBERED)
            // Small frames are gathered by the inlet.
            .data_frame_budget(usize::MAX)
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
            signals: Rc::clone(&signals),
            keepalive: settings.h2_keepalive,
            streams: Rc::clone(&streams),
            window,
            wanted: None,
        };
        spawn_local(task.run(frames));
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            farewell: Farewell(waker),
            line,
            created: Instant::now(),
            used: Cell::new(false),
            tls,
            owner,
            peer,
            busy_at: Cell::new(0),
            before_settings,
            streams,
            signals,
        }))
    }

    /// Whether it may take another stream at all: it is open, was not told to go away, and is not too old.
    pub(super) fn is_open(&self, settings: &model::Pool) -> bool {
        !self.line.closed.load(Relaxed)
            && !self.signals.goes_away.get()
            && (settings.max_age.is_zero() || self.created.elapsed() < settings.max_age)
    }

    /// No stream is open.
    pub(super) fn is_idle(&self) -> bool {
        self.line.streams.load(Relaxed) == 0
    }

    /// A stream's place, if there is one.
    pub(super) fn lease(&self, settings: &model::Pool) -> Option<Lease> {
        let limit = (settings.h2_streams as usize).min(self.allowed());
        ((self.line.streams.load(Relaxed) as usize) < limit && self.is_open(settings))
            .then(|| self.first_lease())
    }

    /// Streams that the peer allows.
    fn allowed(&self) -> usize {
        if self.line.settled.load(Relaxed) {
            self.sender.borrow().current_max_send_streams()
        } else {
            self.before_settings
        }
    }

    /// What the peer said that it allows, once it has.
    pub(super) fn known_limit(&self) -> Option<usize> {
        self.line.settled.load(Relaxed).then(|| self.allowed())
    }

    /// The peer allows no stream at all now: a call waits for it, since it would say the same on another connection.
    pub(super) fn is_held_back(&self, settings: &model::Pool) -> bool {
        self.allowed() == 0 && self.is_open(settings)
    }

    /// Waits until the peer has said what it allows, or the connection has ended.
    pub(super) async fn settled(&self) {
        let mut settled = pin!(self.line.on_settled.notified());
        settled.as_mut().enable();
        if !self.line.settled.load(Relaxed) {
            settled.await;
        }
    }

    /// The process is short of memory.
    pub(super) fn press(&self) {
        self.signals.pressed.set(true);
        if let Some(task) = &*self.farewell.0.borrow() {
            task.wake_by_ref();
        }
    }

    /// The one who reads an answer's DATA.
    pub(super) fn reader(&self, stream: h2::StreamId) -> attache_http2::Reader {
        self.streams.reader(stream.as_u32())
    }

    /// A stream's place on a connection that was made for it: where the peer allows none, it waits.
    pub(super) fn first_lease(&self) -> Lease {
        self.line.streams.fetch_add(1, Relaxed);
        Lease(Arc::clone(&self.line))
    }

    /// The peer takes extended CONNECT (RFC 8441 section 3). Waits for its SETTINGS, for at most `limit`.
    pub(super) async fn takes_extended_connect(&self, limit: Duration) -> bool {
        timeout(limit, self.settled()).await.is_ok()
            && self.sender.borrow().is_extended_connect_protocol_enabled()
    }

    /// How much of a stream the peer may have seen whose connection ended.
    pub(super) fn sent(&self, stream: h2::StreamId) -> Sent {
        if self.signals.is_unsent(stream.as_u32()) { Sent::Nothing } else { Sent::Request }
    }

    /// Opens a stream. Returns also whether the connection had served others before.
    pub(super) fn open(
        &self,
        request: http::Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>, bool), Error> {
        // A sender takes no second stream while its last one waits for the peer's limit; each of its clones does.
        let mut sender = self.sender.borrow().clone();
        let opened = sender.send_request(request, ends);
        let (answer, stream) = opened.map_err(|error| explain(error, Sent::Nothing))?;
        self.signals.calls.set(self.signals.calls.get() + 1);
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
    let ours = error.is_library() || (!error.is_remote() && !error.is_io()) || is_flood(&error);
    let reason = if ours { Reason::UpstreamProtocolError } else { Reason::UpstreamReset };
    let reason = reason_or(&error, reason);
    Error::with_source(reason, sent, error)
}

/// The connection was ended for what came on it: no socket says this. h2 keeps only an error's kind and text.
pub(super) fn is_flood(error: &h2::Error) -> bool {
    error.get_io().is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
}

/// What moves the frames of one connection.
struct Task {
    line: Arc<Line>,
    waker: Rc<RefCell<Option<Waker>>>,
    socket: Rc<Socket>,
    signals: Rc<Signals>,
    keepalive: Duration,
    streams: Rc<Streams>,
    window: Window,
    /// A window that the peer was not told of yet.
    wanted: Option<u32>,
}

impl Task {
    async fn run(mut self, mut frames: Frames<H2Io, Bytes>) {
        let mut pings = frames.ping_pong();
        let mut timer = pin!(sleep_until(Instant::now() + self.keepalive));
        let (mut heard, mut before) = (0, BEFORE_SETTINGS);
        let mut asked = false;
        poll_fn(|cx| {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            if Pin::new(&mut frames).poll(cx).is_ready() {
                self.socket.say_goodbye(cx);
                return Poll::Ready(());
            }
            if let Poll::Ready(Err(_)) = self.socket.flush(cx) {
                return Poll::Ready(());
            }
            let allowed = frames.max_concurrent_send_streams();
            if allowed != before {
                before = allowed;
                self.settle();
            }
            if let Some(pings) = &mut pings {
                self.follow_window(cx, &mut frames, pings);
            }
            while !self.keepalive.is_zero() && timer.as_mut().poll(cx).is_ready() {
                let silent = self.socket.heard() == heard && self.line.streams.load(Relaxed) > 0;
                heard = self.socket.heard();
                if silent && asked {
                    return Poll::Ready(());
                }
                asked = silent && pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
                let wait = if asked { self.keepalive.min(KEEPALIVE_TIMEOUT) } else { self.keepalive };
                timer.as_mut().reset(Instant::now() + wait);
            }
            Poll::Pending
        })
        .await;
        self.line.closed.store(true, Relaxed);
        self.settle();
    }

    /// The peer has said what it allows, or never will.
    fn settle(&self) {
        self.line.settled.store(true, Relaxed);
        self.line.on_settled.notify_waiters();
        self.line.freed.notify_one();
    }

    /// Lets the streams' window grow with fast readers, and shrink when the process is short of memory.
    fn follow_window(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut Frames<H2Io, Bytes>,
        pings: &mut PingPong,
    ) {
        // The answer to a keepalive is seen as something heard; this takes it out of the way for the next question.
        while matches!(pings.poll_pong(cx), Poll::Ready(Ok(_))) {
            self.wanted = self.window.ponged(&self.streams).or(self.wanted);
        }
        if self.signals.pressed.take() {
            self.wanted = self.window.shrink(&self.streams).or(self.wanted);
        }
        if self.window.wants_ping(&self.streams) {
            let _ = pings.send_ping(Ping::opaque());
            let _ = pings.poll_pong(cx);
        }
        if let Some(size) = self.wanted
            // Refused while the peer has not yet acknowledged the last change.
            && frames.set_initial_window_size(size).is_ok()
        {
            self.wanted = None;
            cx.waker().wake_by_ref();
        }
    }
}
