//! One HTTP/1.1 connection, without a task of its own.
//!
//! hyper gives a connection as two ends: a sender of requests, and a future that moves bytes. Here one struct owns both,
//! and whoever holds it drives it: the call while it waits for the response's head, then the response's body while it
//! is read ([`super::h1_body`]), then nobody while it is idle in the pool. So a request costs no hop between tasks.
//! Dropping it, in any state, closes the socket.

use std::{
    cell::Cell,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use attache_config::model;
use attache_http::{BodyError, OnInformational};
use attache_telemetry::Reason;
use http::{Method, Request, Response, StatusCode, Version, header::UPGRADE};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    h2_body::AbortOnDrop,
    meter::{Meter, Metered},
    outgoing::{Gate, Heard, Outgoing, PATIENCE},
    waker::OwnWaker,
};
use crate::{Error, Sent, connect::Connection, error::reason_or, limit::ConnectionPermit};

type Io = TokioIo<Metered>;

/// What moves the bytes. The usual variant is the large one, and lives in the connection's box.
#[expect(
    clippy::large_enum_variant,
    reason = "boxing the usual variant would cost a second indirection per poll"
)]
enum Driver {
    /// The usual.
    Plain(http1::Connection<Io, Outgoing>),
    /// The same, ready to hand its socket over after 101 or CONNECT (hyper's type has no name, hence the box).
    Upgradable(Pin<Box<dyn Future<Output = hyper::Result<()>>>>),
    /// Ended.
    Gone,
}

impl Driver {
    /// Moves bytes. At its end it lets go of the socket, and with it of the other ends of hyper's channels, which learn
    /// that nothing more comes.
    fn poll(&mut self, waker: &Waker) -> Poll<hyper::Result<()>> {
        let mut cx = Context::from_waker(waker);
        let result = match self {
            Self::Plain(connection) => Pin::new(connection).poll(&mut cx),
            Self::Upgradable(connection) => connection.as_mut().poll(&mut cx),
            Self::Gone => return Poll::Ready(Ok(())),
        };
        if result.is_ready() {
            *self = Self::Gone;
        }
        result
    }
}

/// Whose connection it is where a PROXY header has told the upstream: the client's address and its destination.
pub(super) type Owner = Option<(Option<SocketAddr>, Option<SocketAddr>)>;

/// A connection and everything that is known of it.
pub(super) struct H1 {
    sender: http1::SendRequest<Outgoing>,
    driver: Driver,
    waker: OwnWaker,
    meter: Arc<Meter>,
    heard: Heard,
    created: Instant,
    requests: u64,
    keep: bool,
    pub(super) owner: Owner,
    /// Who is at the other end, by its certificate.
    pub(super) peer: Option<model::Name>,
    /// The sweep at which it became idle.
    pub(super) idle_since: u64,
    /// It is idle, and wakes the sweep when its peer closes it.
    watched: bool,
}

/// hyper's answer to a request.
type Answered = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>;

/// A request that brought no response.
pub(super) struct Failed {
    pub(super) error: Error,
    /// The request as it was, where not a byte of it had been written and its body had not been touched.
    pub(super) request: Option<Request<Outgoing>>,
}

impl H1 {
    /// Speaks HTTP/1.1 on a new connection. Nothing is written yet.
    pub(super) async fn new(
        io: Connection,
        permit: ConnectionPermit,
        settings: &model::Pool,
        owner: Owner,
        peer: Option<model::Name>,
    ) -> Result<Box<Self>, Error> {
        let meter = Arc::new(Meter::default());
        let io = TokioIo::new(Metered::new(io, Arc::clone(&meter), permit));
        let mut builder = http1::Builder::new();
        // hyper's own bound is 400 KiB for each connection; a head must fit, and bulk gains nothing above 128 KiB.
        builder.max_buf_size(settings.headers_size.max(128 << 10)).max_header_size(settings.headers_size);
        if settings.headers_count != model::Pool::default().headers_count {
            // hyper's own bound of 100 parses on the stack; any other one allocates for each response.
            builder.max_headers(settings.headers_count);
        }
        let (sender, driver) = builder.handshake(io).await.map_err(|error| {
            Error::with_source(reason_or(&error, Reason::ConnectFailed), Sent::Nothing, error)
        })?;
        Ok(Box::new(Self {
            sender,
            driver: Driver::Plain(driver),
            waker: OwnWaker::new(),
            meter,
            heard: Heard::default(),
            created: Instant::now(),
            requests: 0,
            keep: true,
            owner,
            peer,
            idle_since: 0,
            watched: false,
        }))
    }

    /// Moves bytes. Ready means that the connection has ended.
    pub(super) fn drive(&mut self, cx: &Context<'_>) -> Poll<hyper::Result<()>> {
        self.driver.poll(self.waker.point_at(cx))
    }

    /// The response has been read, the request has been written, and another one may follow.
    pub(super) fn is_ready(&self) -> bool {
        self.keep && self.sender.is_ready() && !matches!(self.driver, Driver::Gone)
    }

    /// Another request may go this way by the pool's bounds.
    pub(super) fn may_be_kept(&self, settings: &model::Pool) -> bool {
        self.is_ready()
            && (settings.max_requests == 0 || self.requests < settings.max_requests)
            && (settings.max_age.is_zero() || self.created.elapsed() < settings.max_age)
    }

    /// It has carried no request yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.requests == 0
    }

    /// Becomes idle: wakes nobody until it is driven again.
    pub(super) fn rest(&mut self) {
        self.watched = false;
        self.waker.point_nowhere();
    }

    /// An idle connection's peer has closed it. Found once it was idle for a whole tick, from where on it wakes the sweep. Not
    /// sooner: a response of one piece may still be read, each read wakes, and busy connections would keep the sweep running.
    pub(super) fn has_ended(&mut self, cx: &Context<'_>, tick: u64) -> bool {
        let woken = self.waker.was_woken();
        if self.idle_since == tick || (self.watched && !woken) {
            return false;
        }
        self.watched = true;
        self.drive(cx).is_ready()
    }

    /// Touches the response's channel without waking the task that does so.
    pub(super) fn muted<T>(&self, touch: impl FnOnce() -> T) -> T {
        self.waker.muted(touch)
    }

    /// Begins a request: what comes back is to be waited for with [`Self::answer`]. Two steps, so that the request itself does not stay
    /// in the future of whoever waits.
    ///
    /// hyper reads before it writes: where the peer has closed an idle connection, or sent something nobody asked for,
    /// it finds that first, writes nothing, and the request comes back untouched in [`Failed::request`].
    pub(super) fn begin(
        &mut self,
        mut request: Request<Outgoing>,
        listens: bool,
    ) -> impl Future<Output = Answered> + use<> {
        self.meter.restart();
        self.requests += 1;
        // Of what came with the request nothing concerns the next hop, and some of it (the client's own upgrade) would
        // be kept alive by it.
        request.extensions_mut().clear();
        if listens || request.body().gate.is_some() {
            self.heard.listen(&mut request); // one small allocation: 1xx can come with any response
        }
        if request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE) {
            self.make_upgradable();
        }
        let sender = &mut self.sender;
        self.waker.muted(|| sender.try_send_request(request))
    }

    /// Waits for the response's head. `gate` is that of the request's body.
    pub(super) async fn answer(
        &mut self,
        mut answer: Pin<&mut impl Future<Output = Answered>>,
        gate: Option<Gate>,
        on_informational: Option<&OnInformational>,
    ) -> Result<Response<Incoming>, Failed> {
        let reused = self.requests > 1;
        // Boxed, since it is seldom there and large.
        let mut patience = gate.as_ref().map(|_| Box::pin(sleep(PATIENCE)));
        let listens = on_informational.is_some() || gate.is_some();
        // Split borrows: `answer` holds nothing of the sender.
        let (driver, waker, heard) = (&mut self.driver, &self.waker, &self.heard);
        let mut ended = None;
        let answer = std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(end) = driver.poll(waker.point_at(cx)) {
                    ended = ended.take().or(end.err());
                }
                let mut go_on = false;
                if listens {
                    for (status, headers) in heard.collect() {
                        if status == StatusCode::CONTINUE {
                            if let Some(gate) = gate.as_ref().filter(|gate| !gate.is_open()) {
                                gate.open();
                                go_on = true;
                            }
                        } else if let Some(pass_on) = on_informational {
                            pass_on.call(status, &headers);
                        }
                    }
                }
                // The connection was just polled, so its other end needs no waker of its own.
                let mut quiet = Context::from_waker(Waker::noop());
                if let Poll::Ready(answer) = answer.as_mut().poll(&mut quiet) {
                    return Poll::Ready(answer);
                }
                if let Some(gate) = gate.as_ref().filter(|gate| !gate.is_open())
                    && let Some(patience) = &mut patience
                    && patience.as_mut().poll(cx).is_ready()
                {
                    gate.open();
                    go_on = true;
                }
                if !go_on {
                    return Poll::Pending;
                }
            }
        })
        .await;
        match answer {
            Ok(response) => {
                if let Some(gate) = &gate
                    && response.status().is_success()
                {
                    gate.open();
                }
                // After an HTTP/1.0 response hyper would speak 1.0 itself, where a body of unknown length can't be sent.
                self.keep &= response.version() != Version::HTTP_10;
                Ok(response)
            }
            Err(mut error) => {
                let request = error.take_message();
                let error = if request.is_some() {
                    // hyper says only that it was cancelled; the connection's own end knows why.
                    let reason = ended
                        .as_ref()
                        .map_or(Reason::UpstreamReset, |end| reason_or(end, Reason::UpstreamReset));
                    Error::with_source(reason, Sent::Nothing, error.into_error())
                } else {
                    self.explain(error.into_error(), ended)
                };
                let reused = reused && error.sent < Sent::Response;
                Err(Failed { error: error.on_reused_connection(reused), request })
            }
        }
    }

    /// What went wrong, in the terms of the proxy.
    fn explain(&self, error: hyper::Error, ended: Option<hyper::Error>) -> Error {
        let sent = self.meter.sent();
        if let Some(reason) = blame_request(&error) {
            return Error::with_source(reason, sent, error);
        }
        let reason = if error.is_parse() { Reason::UpstreamProtocolError } else { Reason::UpstreamReset };
        let reason = ended.as_ref().map_or(reason, |end| reason_or(end, reason));
        let reason = reason_or(&error, reason);
        match (self.meter.write_error(), ended) {
            (Some(write), _) if sent < Sent::Response => {
                Error::with_source(reason, sent, format!("{error}; writing: {write}"))
            }
            (_, Some(end)) if error.is_user() => Error::with_source(reason, sent, end),
            _ => Error::with_source(reason, sent, error),
        }
    }

    /// Leaves the driving to a task, for a response that has come before the request's body was through: whoever reads
    /// the response must not be able to stop the upload by not reading. The connection is not used again.
    pub(super) fn detach(mut self: Box<Self>) -> Detached {
        let blame = Rc::new(Cell::new(None));
        let told = Rc::clone(&blame);
        let task = spawn_local(async move {
            if let Err(error) = std::future::poll_fn(|cx| self.drive(cx)).await {
                told.set(blame_request(&error));
            }
        });
        Detached { blame, _task: AbortOnDrop(task.abort_handle()) }
    }

    fn make_upgradable(&mut self) {
        self.driver = match std::mem::replace(&mut self.driver, Driver::Gone) {
            Driver::Plain(driver) => Driver::Upgradable(Box::pin(driver.with_upgrades())),
            already => already,
        };
    }
}

/// A connection that a task drives; dropping this closes it.
pub(super) struct Detached {
    /// Why it ended, where it was not the upstream's doing.
    pub(super) blame: Rc<Cell<Option<Reason>>>,
    _task: AbortOnDrop,
}

/// The reason, where it was the request's own body that failed or ended before its promised length.
pub(super) fn blame_request(error: &hyper::Error) -> Option<Reason> {
    if error.is_body_write_aborted() {
        return Some(Reason::ClientClosed);
    }
    let cause = std::error::Error::source(error)?.downcast_ref::<BodyError>()?;
    Some(cause.reason.unwrap_or(Reason::ClientClosed))
}
