//! One HTTP/2 connection, shared by the calls of its worker.
//!
//! The call itself, and then its response's body, drive the call's head and body. So a stream costs no task and no
//! channel, and GOAWAY, REFUSED_STREAM, the peer's stream limit and 1xx are known exactly. One task per connection
//! moves the frames.
//!
//! Rules:
//! - As many streams as both sides allow (`pool.h2_streams`, SETTINGS_MAX_CONCURRENT_STREAMS); more calls open more
//!   connections. Before the peer has sent its limit there is one stream, or as many as it allowed on the connection
//!   before.
//! - If a peer's SETTINGS do not arrive within `connect_timeout`, the peer has not accepted the connection: it counts
//!   as a failed connection.
//! - After GOAWAY, or past `max_age`, a connection takes no new stream; its running ones finish.
//! - A peer that sends nothing for `h2_keepalive` while streams are open gets a PING. If it sends nothing for another
//!   [`KEEPALIVE_TIMEOUT`], the connection is closed. While data arrives, PINGs are sent only to measure the path
//!   ([`attache_http2::Window`]).
//! - If a peer's frames cause more work than its calls justify, the connection is closed: see [`attache_http2::Flood`].
//! - A stream that nobody reads blocks only itself: see [`attache_http2::CONNECTION_WINDOW`].

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use attache_config::model;
use attache_http::time::sleep_until;
use attache_http2::{
    ErrorCode, Flood, FloodLimits, FloodPayer, Initiator, RecvStream, SendStream, Settings, StreamOpener,
};
use attache_telemetry::Reason;
use attache_wire::RequestHead;
use tokio::{
    sync::Notify,
    task::spawn_local,
    time::{Instant, timeout},
};

use super::owner::Owner;
use crate::{Error, SentPart, connect::EndpointConnection, error::reason_or, limit::ConnectionPermit};

/// Bytes of requests' bodies that may wait in memory for the socket.
const SEND_BUFFER: usize = 256 << 10;

/// How long a peer may take to answer a PING (gRFC A8).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a peer may take to read the cause of its connection's end.
const LINGER: Duration = Duration::from_millis(500);

/// The part of a connection that each of its streams keeps.
#[derive(Debug, Default)]
pub(super) struct H2ConnectionState {
    streams: AtomicU32,
    closed: AtomicBool,
    /// The peer's SETTINGS have arrived, or never will.
    settled: AtomicBool,
    on_settled: Notify,
    /// Calls that wait for a stream.
    freed: Arc<Notify>,
}

/// The permit of one stream on a connection.
#[derive(Debug)]
pub(super) struct StreamPermit(Arc<H2ConnectionState>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
        self.0.freed.notify_one();
    }
}

/// A server at the other end of attache's connection: each call that it got allows it more frames before they count as
/// a flood.
#[derive(Debug)]
struct FloodAllowance(Rc<Cell<u64>>);

impl FloodPayer for FloodAllowance {
    const IS_SERVER: bool = true;
    const SECTION: &'static str = "pool";

    fn requests(&self) -> u64 {
        self.0.get()
    }
}

/// A connection for calls. After it is dropped, the running calls finish, and then it closes.
pub(super) struct H2Connection {
    caller: StreamOpener,
    line: Arc<H2ConnectionState>,
    pub(super) created: Instant,
    used: Cell<bool>,
    pub(super) tls: bool,
    pub(super) owner: Owner,
    /// The peer's identity, from its certificate.
    pub(super) peer: Option<model::Name>,
    /// The sweep at which it was last seen with a stream.
    pub(super) busy_at: Cell<u64>,
    /// Streams that may be opened before the peer has said its limit.
    before_settings: usize,
    /// Calls that were sent.
    calls: Rc<Cell<u64>>,
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.caller.retire();
    }
}

impl H2Connection {
    /// Speaks HTTP/2 on a new connection, without a wait for the peer's preface.
    pub(super) fn new(
        io: EndpointConnection,
        permit: ConnectionPermit,
        settings: &model::Pool,
        owner: Owner,
        peer: Option<model::Name>,
        freed: Arc<Notify>,
        before_settings: usize,
    ) -> Rc<Self> {
        let tls = io.is_tls();
        let calls = Rc::<Cell<u64>>::default();
        let bounds =
            FloodLimits { rate: settings.h2_flood_rate.into(), burst: settings.h2_flood_burst.into() };
        let flood = Flood::new(bounds, FloodAllowance(Rc::clone(&calls)));
        let http2 = Settings {
            // A server opens no streams.
            streams: 0,
            window: settings.h2_stream_window,
            window_most: settings.h2_stream_window_max,
            head_size: u32::try_from(settings.headers_size).unwrap_or(u32::MAX),
            pending_resets: 0,
            send_buffer: SEND_BUFFER,
            // Only a server announces it.
            extended_connect: false,
        };
        let (connection, caller) = attache_http2::Connection::client(io, http2, Box::new(flood));
        let line = Arc::new(H2ConnectionState { freed, ..H2ConnectionState::default() });
        let task =
            FrameTask { line: Arc::clone(&line), caller: caller.clone(), keepalive: settings.h2_keepalive };
        spawn_local(task.run(connection, permit));
        Rc::new(Self {
            caller,
            line,
            created: Instant::now(),
            used: Cell::new(false),
            tls,
            owner,
            peer,
            busy_at: Cell::new(0),
            before_settings,
            calls,
        })
    }

    /// Whether it may carry another stream at all: it is open, has received no GOAWAY, and is not too old.
    pub(super) fn is_open(&self, settings: &model::Pool) -> bool {
        !self.line.closed.load(Relaxed)
            && !self.caller.goes_away()
            && (settings.max_age.is_zero() || self.created.elapsed() < settings.max_age)
    }

    /// True if no stream is open.
    pub(super) fn is_idle(&self) -> bool {
        self.line.streams.load(Relaxed) == 0
    }

    /// The permit of a stream, if one is free.
    pub(super) fn lease(&self, settings: &model::Pool) -> Option<StreamPermit> {
        let limit = (settings.h2_streams as usize).min(self.allowed());
        ((self.line.streams.load(Relaxed) as usize) < limit && self.is_open(settings))
            .then(|| self.first_lease())
    }

    /// Streams that the peer allows.
    fn allowed(&self) -> usize {
        self.known_limit().unwrap_or(self.before_settings)
    }

    /// The peer's stream limit, once it has sent it.
    pub(super) fn known_limit(&self) -> Option<usize> {
        self.caller.allowed().map(|streams| streams as usize)
    }

    /// True if the peer allows no stream at all now: a call waits, since the peer would allow none on another
    /// connection either.
    pub(super) fn is_held_back(&self, settings: &model::Pool) -> bool {
        self.allowed() == 0 && self.is_open(settings)
    }

    /// Waits until the peer has sent its stream limit, or the connection has ended.
    pub(super) async fn settled(&self) {
        let mut settled = pin!(self.line.on_settled.notified());
        settled.as_mut().enable();
        if !self.line.settled.load(Relaxed) {
            settled.await;
        }
    }

    /// The peer's SETTINGS have not arrived within the time for a connection: closes it.
    pub(super) fn never_settled(&self) {
        self.caller
            .give_up(ErrorCode::SETTINGS_TIMEOUT, "no SETTINGS of HTTP/2 came within `connect_timeout`");
    }

    /// The process is short of memory.
    pub(super) fn press(&self) {
        self.caller.shrink();
    }

    /// The permit of the stream for which the connection was made. If the peer allows no stream, it waits.
    pub(super) fn first_lease(&self) -> StreamPermit {
        self.line.streams.fetch_add(1, Relaxed);
        StreamPermit(Arc::clone(&self.line))
    }

    /// Whether the peer accepts extended CONNECT (RFC 8441 section 3). Waits for its SETTINGS, for at most `limit`.
    pub(super) async fn takes_extended_connect(&self, limit: Duration) -> bool {
        timeout(limit, self.settled()).await.is_ok() && self.caller.takes_extended_connect()
    }

    /// After the connection's end: how much of this stream the peer may have seen.
    pub(super) fn sent(&self, stream: u32) -> SentPart {
        if self.caller.is_unsent(stream) { SentPart::Nothing } else { SentPart::Request }
    }

    /// Opens a stream. Also returns whether the connection had carried other streams before.
    pub(super) fn open(
        &self,
        request: &RequestHead,
        ends: bool,
    ) -> Result<(SendStream, RecvStream, bool), Error> {
        let opened = self.caller.open(request, ends);
        let (send, received) = opened.map_err(|error| explain(error, SentPart::Nothing))?;
        self.calls.set(self.calls.get() + 1);
        Ok((send, received, self.used.replace(true)))
    }
}

/// Translates the error of a stream into one with a reason. `sent` is how much was sent, if the peer did not say it.
pub(super) fn explain(error: attache_http2::Error, sent: SentPart) -> Error {
    let refused = error.code() == Some(ErrorCode::REFUSED_STREAM);
    // The peer's GOAWAY ends only streams above the last one that the peer processes.
    if error.is_remote() && (error.is_go_away() || refused) {
        let sent = if sent == SentPart::Nothing { sent } else { SentPart::Refused };
        return Error::with_source(Reason::UpstreamRefusedStream, sent, error);
    }
    let reason = match error.by() {
        Some(Initiator::Us) if error.code() == Some(ErrorCode::SETTINGS_TIMEOUT) => Reason::ConnectTimeout,
        Some(Initiator::Us | Initiator::Rule) => Reason::UpstreamProtocolError,
        _ => Reason::UpstreamReset,
    };
    let reason = reason_or(&error, reason);
    Error::with_source(reason, sent, error)
}

/// The task that moves the frames of one connection.
struct FrameTask {
    line: Arc<H2ConnectionState>,
    caller: StreamOpener,
    keepalive: Duration,
}

impl FrameTask {
    async fn run(
        self,
        mut connection: attache_http2::Connection<EndpointConnection>,
        permit: ConnectionPermit,
    ) {
        let mut timer = pin!(sleep_until(Instant::now() + self.keepalive));
        let (mut heard, mut allowed) = (0, None);
        let mut asked = false;
        let ended = poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.poll(cx) {
                return Poll::Ready(ended);
            }
            let now = self.caller.allowed();
            if now != allowed {
                allowed = now;
                self.settle();
            }
            while !self.keepalive.is_zero() && timer.as_mut().poll(cx).is_ready() {
                let silent = connection.heard() == heard && self.line.streams.load(Relaxed) > 0;
                heard = connection.heard();
                if silent && asked {
                    return Poll::Ready(Ok(()));
                }
                asked = silent;
                if asked {
                    connection.ask();
                }
                let wait = if asked { self.keepalive.min(KEEPALIVE_TIMEOUT) } else { self.keepalive };
                timer.as_mut().reset(Instant::now() + wait);
            }
            Poll::Pending
        })
        .await;
        self.line.closed.store(true, Relaxed);
        self.settle();
        if let Err(error) = ended
            && error.is_rule()
        {
            tracing::debug!(%error, "an upstream's HTTP/2 connection was ended");
            let _ = timeout(LINGER, connection.linger()).await;
        }
        drop((connection, permit));
    }

    /// The peer has sent its stream limit, or never will.
    fn settle(&self) {
        self.line.settled.store(true, Relaxed);
        self.line.on_settled.notify_waiters();
        self.line.freed.notify_one();
    }
}
