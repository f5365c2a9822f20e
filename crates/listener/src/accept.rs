//! The accept loop of one listener on one worker, from its first connection to the end of its last.
//!
//! The rule: a new connection costs one accept and one task, and the limit is never exceeded. When the process or the system has no files
//! or memory left, accepting waits instead of trying again and again; the kernel keeps the queue.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    convert::Infallible,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use attache_http::{Body, Client};
use attache_telemetry::{Exchange, Reason, WorkerMetrics, metrics};
use pin_project_lite::pin_project;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep},
};
use tower::Service;

use crate::{
    Drain, DrainPhase, HttpRequest, ListenerSettings, OpaqueConnection, OpaqueOutcome, WorkerSocket,
    connection,
    connection::TcpService,
    handover::{ConnectionCount, ConnectionOwner, DetachedSocket},
    listening::{AcceptedSocket, LocalSocket},
    registry::{AGE_LOOKS, ConnectionOrder, IDLE_SWEEPS, OpenConnection, Registry},
    request::AcceptingCount,
    respond::HttpService,
    stream::ClientStream,
};

/// How long accepting waits after the system had no file or memory left.
const BACK_OFF: Duration = Duration::from_millis(100);
/// The time between "tell clients with the next answer" and "close idle connections". Requests that were under way arrive in it.
const END_NOTICE: Duration = Duration::from_millis(100);
/// An HTTP/1 connection without a request for one to two of these periods returns its buffers.
const REST: Duration = Duration::from_secs(1);

/// Serves one listener on the calling worker until `drain` has ended all its connections.
///
/// `settings` may be replaced while it serves, as a reload does. Later connections get the new settings. Open connections stay if nothing
/// changed that concerns them. Otherwise they are told to end: they may finish what runs, for at most the new [`ListenerSettings::drain_timeout`].
///
/// `http` answers requests, and `tcp` carries opaque connections to their end. Both must always be ready: `poll_ready` is not called, so
/// back-pressure belongs into the future. This must run inside a `LocalRuntime` or `LocalSet`. Dropping the future stops the accepting;
/// connections continue.
pub fn serve<H, T>(
    mut settings: watch::Receiver<Rc<ListenerSettings>>,
    sockets: Vec<WorkerSocket>,
    http: H,
    tcp: T,
    drain: Drain,
) -> impl Future<Output = ()>
where
    H: Service<HttpRequest, Response = attache_wire::Response<Body>, Error = Infallible, Future: Unpin>
        + Clone
        + 'static,
    T: Service<OpaqueConnection, Response: Into<OpaqueOutcome>, Error = Infallible> + Clone + 'static,
{
    let first = settings.borrow_and_update().clone();
    // This must not wait for the first poll: the check for further connections must count this worker from the start.
    let accepting = Cell::new(Some(first.connections.accepts()));
    let worker = AcceptingWorker {
        settings: first,
        http,
        tcp,
        registry: Rc::default(),
        metrics: metrics(),
        accepting,
    };
    serve_until(Rc::new(RefCell::new(Rc::new(worker))), settings, sockets, drain)
}

async fn serve_until<H, T>(
    current: CurrentWorker<H, T>,
    mut settings: watch::Receiver<Rc<ListenerSettings>>,
    sockets: Vec<WorkerSocket>,
    mut drain: Drain,
) where
    H: HttpService,
    T: TcpService,
{
    let mut accepting = JoinSet::new();
    for socket in sockets {
        accepting.spawn_local(accept_all(current.clone(), socket, drain.clone()));
    }
    let mut retiring = JoinSet::new();
    let mut sweep = sweeps(&current.borrow().settings);
    let mut pressed = current.borrow().settings.overload.pressed();
    let mut aging = ages(&current.borrow().settings);
    let mut rest = interval(REST);
    rest.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let registry = current.borrow().registry.clone();
        tokio::select! {
            _ = drain.reached(DrainPhase::Drain) => break,
            Ok(()) = pressed.changed() => current.borrow().registry.relieve(),
            _ = sweep.tick() => {
                let worker = current.borrow().clone();
                if !worker.settings.listener.http.idle_timeout.is_zero() {
                    worker.registry.sweep();
                }
            }
            () = registry.look(&mut rest) => {
                registry.rest();
                if registry.freed_memory() {
                    attache_wire::buffers::release_all();
                    (current.borrow().settings.release_memory)();
                }
            }
            _ = aging.tick() => {
                let worker = current.borrow().clone();
                if !worker.settings.listener.http.max_connection_age.is_zero() {
                    worker.registry.age();
                }
            }
            // The sender was dropped: no further settings will come.
            Ok(()) = settings.changed() => {
                let new = settings.borrow_and_update().clone();
                let old = current.borrow().clone();
                let registry = if old.settings.holds_for_open(&new) {
                    old.registry.clone()
                } else {
                    let (registry, drain, drain_timeout) = (old.registry.clone(), drain.clone(), new.drain_timeout);
                    retiring.spawn_local(async move {
                        end(&registry, drain, Some(drain_timeout)).await;
                    });
                    Rc::default()
                };
                sweep = sweeps(&new);
                if old.settings.listener.http.max_connection_age != new.listener.http.max_connection_age {
                    aging = ages(&new);
                }
                *current.borrow_mut() = Rc::new(old.with(new, registry));
            }
            Some(_) = retiring.join_next() => {}
        }
    }
    let registry = current.borrow().registry.clone();
    registry.give_all(ConnectionOrder::EndWithAnswer);
    // The sockets close here, after the connections in their queues were taken.
    while accepting.join_next().await.is_some() {}
    current.borrow().accepting.take();
    end(&registry, drain, None).await;
    while retiring.join_next().await.is_some() {}
}

/// Ends the connections of a registry: it tells them to end, lets them finish, and cuts the rest at `drain_timeout` or when the drain says
/// so.
async fn end(registry: &Registry, mut drain: Drain, drain_timeout: Option<Duration>) {
    registry.give_all(ConnectionOrder::EndWithAnswer);
    let cut = async {
        let deadline = async {
            match drain_timeout {
                Some(drain_timeout) => sleep(drain_timeout).await,
                None => std::future::pending().await,
            }
        };
        let mut deadline = pin!(deadline);
        tokio::select! {
            _ = drain.reached(DrainPhase::Cut) => {}
            () = &mut deadline => {}
            () = sleep(END_NOTICE) => {
                registry.give_all(ConnectionOrder::Finish);
                tokio::select! {
                    _ = drain.reached(DrainPhase::Cut) => {}
                    () = &mut deadline => {}
                }
            }
        }
        registry.give_all(ConnectionOrder::Cut);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = registry.emptied() => {}
        () = cut => {}
    }
}

/// How often idle connections are searched.
fn sweeps(settings: &ListenerSettings) -> Interval {
    let idle = settings.listener.http.idle_timeout;
    // Zero disables the timeout.
    let period = if idle.is_zero() { Duration::MAX } else { idle / u32::from(IDLE_SWEEPS) };
    let mut sweep = interval(period.clamp(Duration::from_millis(1), Duration::from_hours(1)));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sweep
}

/// How often old connections are searched.
fn ages(settings: &ListenerSettings) -> Interval {
    let oldest = settings.listener.http.max_connection_age;
    let period = if oldest.is_zero() { Duration::MAX } else { oldest / u32::from(AGE_LOOKS) };
    // More than a year counts as never.
    let period = period.clamp(Duration::from_millis(1), Duration::from_hours(24 * 365));
    let mut aging = interval_at(Instant::now() + period, period);
    aging.set_missed_tick_behavior(MissedTickBehavior::Delay);
    aging
}

struct AcceptingWorker<H, T> {
    settings: Rc<ListenerSettings>,
    http: H,
    tcp: T,
    registry: Rc<Registry>,
    metrics: WorkerMetrics,
    /// It exists until the last queued connection is open.
    accepting: Cell<Option<AcceptingCount>>,
}

/// The worker that opens new connections, with the current settings.
type CurrentWorker<H, T> = Rc<RefCell<Rc<AcceptingWorker<H, T>>>>;

impl<H: Clone, T: Clone> AcceptingWorker<H, T> {
    fn with(&self, settings: Rc<ListenerSettings>, registry: Rc<Registry>) -> Self {
        let (http, tcp, metrics) = (self.http.clone(), self.tcp.clone(), self.metrics.clone());
        let accepting = Cell::new(Some(settings.connections.accepts()));
        Self { settings, http, tcp, registry, metrics, accepting }
    }
}

/// Counts one connection, in whatever way it ends.
struct CountedConnection {
    metrics: WorkerMetrics,
    settings: Rc<ListenerSettings>,
    live: Rc<OpenConnection>,
}

impl CountedConnection {
    fn new(metrics: &WorkerMetrics, settings: &Rc<ListenerSettings>, live: &Rc<OpenConnection>) -> Self {
        metrics.connection_opened(&settings.listener.name);
        Self { metrics: metrics.clone(), settings: settings.clone(), live: live.clone() }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        if self.live.order() == ConnectionOrder::Cut {
            self.live.ends_by(Reason::ShuttingDown);
        }
        self.metrics.connection_closed(&self.settings.listener.name, self.live.ended_by.get());
    }
}

async fn accept_all<H, T>(current: CurrentWorker<H, T>, socket: WorkerSocket, mut drain: Drain)
where
    H: HttpService,
    T: TcpService,
{
    let name = current.borrow().settings.listener.name.clone();
    let WorkerSocket { kind, mut seat } = socket;
    let listening = match LocalSocket::new(kind) {
        Ok(listening) => listening,
        Err(error) => {
            tracing::error!(listener = %name, %error, "can't listen on a socket; this worker accepts no connections from it");
            return;
        }
    };
    let mut draining = pin!(drain.reached(DrainPhase::Drain));
    let mut failing = false;
    loop {
        // A listener without a connection always accepts one. None of its own connections could release a permit, so waiting would never
        // end.
        let worker = current.borrow().clone();
        if worker.settings.overload.stops_accepting() && !worker.registry.is_empty() {
            tokio::select! {
                (accepted, load) = std::future::poll_fn(|cx| seat.poll_handed(cx)) => worker.adopt(accepted, load, &listening),
                () = sleep(BACK_OFF) => {}
                _ = &mut draining => break,
            }
            continue;
        }
        drop(worker);
        let next = std::future::poll_fn(|cx| {
            // This comes first because the queue is bounded: the kernel's queue can't delay it for long.
            if let Poll::Ready((accepted, load)) = seat.poll_handed(cx) {
                return Poll::Ready(AcceptStep::Handed(accepted, load));
            }
            // The queue comes before the drain: connections that the kernel has accepted are served, even after the drain has started.
            match listening.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(AcceptStep::Accepted(accepted)),
                Poll::Pending => draining.as_mut().poll(cx).map(|_| AcceptStep::Drain),
            }
        });
        let next = next.await;
        let worker = current.borrow().clone();
        match next {
            AcceptStep::Drain => break,
            AcceptStep::Handed(accepted, load) => worker.adopt(accepted, load, &listening),
            AcceptStep::Accepted(Ok(fresh)) => {
                failing = false;
                worker.settings.overload.accepted();
                match seat.place() {
                    ConnectionOwner::Here(load) => {
                        let transparent = worker.settings.listener.transparent;
                        let (stream, client) = listening.client(fresh, transparent);
                        worker.open(stream, client, load);
                    }
                    ConnectionOwner::There(offer) => match fresh.release() {
                        Ok(accepted) => offer.take(accepted),
                        Err(error) => {
                            tracing::warn!(listener = %name, %error, "a connection was lost on its way to another worker");
                        }
                    },
                }
            }
            // The client left while its connection was in the queue.
            AcceptStep::Accepted(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            AcceptStep::Accepted(Err(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(listener = %name, %error, "accepting a connection failed and is retried; is the limit of open files (ulimit -n) too low?");
                }
                tokio::select! {
                    () = sleep(BACK_OFF) => {}
                    _ = &mut draining => break,
                }
            }
        }
    }
    let worker = current.borrow().clone();
    // From here on, the other workers keep the connections that they accept.
    for (accepted, load) in seat.close().await {
        worker.adopt(accepted, load, &listening);
    }
    match listening.rest(worker.settings.listener.transparent) {
        Ok(rest) => rest.into_iter().for_each(|(stream, client)| worker.open(stream, client, seat.here())),
        Err(error) => tracing::warn!(listener = %name, %error, "connections that were still queued are lost"),
    }
}

/// What happens next at one socket.
enum AcceptStep {
    Handed(DetachedSocket, ConnectionCount),
    Accepted(io::Result<AcceptedSocket>),
    Drain,
}

impl<H: HttpService, T: TcpService> AcceptingWorker<H, T> {
    /// Opens a connection that another worker accepted.
    fn adopt(&self, accepted: DetachedSocket, load: ConnectionCount, listening: &LocalSocket) {
        let listener = &self.settings.listener;
        match AcceptedSocket::adopt(accepted) {
            Ok(fresh) => {
                let (stream, client) = listening.client(fresh, listener.transparent);
                self.open(stream, client, load);
            }
            Err(error) => {
                tracing::warn!(listener = %listener.name, %error, "a connection that another worker accepted can't be served");
            }
        }
    }

    fn open(&self, stream: ClientStream, client: Client, load: ConnectionCount) {
        let settings = &self.settings;
        let listener = &settings.listener;
        let Some(place) = settings.connections.enter(listener.max_connections, load) else {
            tracing::debug!(listener = %listener.name, max = listener.max_connections, "a connection over max_connections was closed");
            self.metrics.connection_opened(&listener.name);
            self.metrics.connection_closed(&listener.name, Some(Reason::Overloaded));
            self.report(client.address, Reason::Overloaded, "max_connections is reached");
            return;
        };
        let entry = self.registry.enter();
        entry.live.sweepable.set(true);
        let counted = CountedConnection::new(&self.metrics, settings, &entry.live);
        let address = client.address;
        let connection = connection::ServedConnection::new(
            stream,
            client,
            settings.clone(),
            entry,
            place,
            self.http.clone(),
            self.tcp.clone(),
        );
        tokio::task::spawn_local(CatchPanic { connection, counted, address });
    }

    fn report(&self, address: Option<SocketAddr>, reason: Reason, detail: &str) {
        let exchange = Exchange::new(self.settings.listener.name.clone(), "tcp", address);
        exchange.fail(reason, detail);
        (self.settings.on_finish)(&exchange);
    }
}

pin_project! {
    /// The task of one connection. A panic in it is counted, and ends only this connection.
    ///
    /// This is not an `async` block: such a block would hold the connection twice, and memory per idle connection counts.
    struct CatchPanic<F> {
        #[pin]
        connection: F,
        counted: CountedConnection,
        address: Option<SocketAddr>,
    }
}

impl<F: Future<Output = ()>> Future for CatchPanic<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        catch_unwind(AssertUnwindSafe(|| this.connection.poll(cx))).unwrap_or_else(|panic| {
            let what = panic_text(&*panic);
            let CountedConnection { metrics, settings, live } = this.counted;
            metrics.panic_caught();
            live.ends_by(Reason::InternalError);
            let listener = &settings.listener.name;
            tracing::error!(%listener, what, "a connection's task panicked; other connections continue");
            let exchange = Exchange::new(listener.clone(), "tcp", *this.address);
            exchange.fail(Reason::InternalError, format!("the connection's task panicked: {what}"));
            (settings.on_finish)(&exchange);
            Poll::Ready(())
        })
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "a panic value that is not text",
    }
}
