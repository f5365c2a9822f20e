//! Connections kept for reuse, one pool per worker and upstream.
//!
//! Rules:
//! - HTTP/1.1 connections are reused last in, first out: the most recent one is used, and surplus ones reach the idle
//!   timeout.
//! - A connection whose peer has closed it, or sent bytes without a request, is found before a request is written
//!   ([`h1::H1Connection::answer`]), and closed by the sweep if it is not used.
//! - One sweep per pool, while the pool has connections, in place of a timer per connection. It ticks eight times per
//!   idle timeout (at most once a second), and is woken when a peer closes a connection that was idle for a whole tick.
//!   No clock is read when a connection is taken or returned: its idle time is counted in ticks.
//! - Idle connections to an endpoint that discovery no longer names are closed with the next tick; running requests
//!   finish. With `on_unhealthy: close` the same happens to endpoints that turn unhealthy.
//!
//! A pool lives on one worker and must be used inside of its runtime.

pub(crate) mod call;
pub(crate) mod connection_limit;
mod dial;
mod first_bytes;
mod form;
mod h1;
mod h1_body;
mod h2;
mod h2_body;
mod h2_call;
mod outgoing;
mod owner;
pub(crate) mod queue;
#[cfg(test)]
mod tests;
pub mod upgrade;
mod upgraded;
mod waiting;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    pin::pin,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use attache_config::model::OnUnhealthy;
use attache_http::time::sleep_until;
use attache_telemetry::{Reason, WorkerMetrics, metrics};
use tokio::{sync::Notify, task::spawn_local, time::Instant};

pub use upgraded::{UpstreamTunnel, upgraded};

pub(crate) use self::dial::{ConnectionSpec, DialOptions, DialProtocol};
use self::{h1::H1Connection, h2::H2Connection, owner::Owner};
use crate::{Endpoint, Error, IdMap, SentPart, SharedUpstream};

/// The connections to each endpoint, by the endpoint's number.
type EndpointPools = IdMap<Rc<EndpointPool>>;

/// One worker's connections to one upstream.
pub(crate) struct ConnectionPool {
    pub(crate) shared: Arc<SharedUpstream>,
    homes: RefCell<EndpointPools>,
    pub(crate) tick: Rc<PoolContext>,
    pub(crate) metrics: WorkerMetrics,
    this: Weak<ConnectionPool>,
}

/// The part of a pool that its endpoints' pools need.
pub(crate) struct PoolContext {
    now: Cell<u64>,
    #[cfg(test)]
    sweeps: Cell<u64>,
    sweeping: Cell<bool>,
    /// Told when a connection, or a stream of one, becomes free.
    pub(crate) freed: Arc<Notify>,
    /// This worker's part in the wait at `max_connections`.
    own: connection_limit::WorkerShare,
}

#[cfg(test)]
impl PoolContext {
    pub(crate) fn sweeps(&self) -> u64 {
        self.sweeps.get()
    }
}

/// The protocol that ALPN chose on the last connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AlpnResult {
    Http1,
    Http2,
}

/// One endpoint's connections.
pub(crate) struct EndpointPool {
    pub(crate) endpoint: Arc<Endpoint>,
    shared: Arc<SharedUpstream>,
    idle: RefCell<VecDeque<Box<H1Connection>>>,
    h2: RefCell<Vec<Rc<H2Connection>>>,
    /// The connection that is being made for all waiting calls, if it may be HTTP/2.
    pub(crate) dialing: RefCell<Option<Rc<dial::SharedDial>>>,
    pub(crate) spoken: Cell<Option<AlpnResult>>,
    /// The peer's stream limit on the last connection; `None` before it has sent one.
    allowed: Cell<Option<usize>>,
    pool: Weak<ConnectionPool>,
    tick: Rc<PoolContext>,
}

impl ConnectionPool {
    pub(crate) fn new(shared: Arc<SharedUpstream>) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            shared,
            homes: RefCell::default(),
            tick: Rc::new(PoolContext {
                now: Cell::new(0),
                #[cfg(test)]
                sweeps: Cell::new(0),
                sweeping: Cell::new(false),
                freed: Arc::new(Notify::new()),
                own: connection_limit::WorkerShare::default(),
            }),
            metrics: metrics(),
            this: this.clone(),
        })
    }

    /// Counts a call that a limit refuses, and makes the error for it.
    pub(crate) fn refused(&self, reason: Reason) -> Error {
        self.metrics.overflow(&self.shared.config.name, reason);
        Error::new(reason, SentPart::Nothing)
    }

    /// The pool of this endpoint.
    pub(crate) fn home(&self, endpoint: &Arc<Endpoint>) -> Rc<EndpointPool> {
        let mut homes = self.homes.borrow_mut();
        let home = homes.entry(endpoint.id).or_insert_with(|| {
            Rc::new(EndpointPool {
                endpoint: Arc::clone(endpoint),
                shared: Arc::clone(&self.shared),
                idle: RefCell::default(),
                h2: RefCell::default(),
                dialing: RefCell::default(),
                spoken: Cell::new(None),
                allowed: Cell::new(None),
                pool: self.this.clone(),
                tick: Rc::clone(&self.tick),
            })
        });
        Rc::clone(home)
    }

    /// Closes all idle connections: the process is short of memory or descriptors.
    pub(crate) fn close_idle(&self) {
        for home in self.homes.borrow().values() {
            home.idle.borrow_mut().clear();
            home.h2.borrow_mut().retain(|connection| !connection.is_idle());
            home.h2.borrow().iter().for_each(|connection| connection.press());
        }
    }

    fn interval(&self) -> Duration {
        let idle = self.shared.config.pool.idle_timeout;
        (idle / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    fn begin_sweeping(&self) {
        let Some(pool) = self.this.upgrade() else { return };
        self.tick.sweeping.set(true);
        let interval = self.interval();
        let (weak, shared) = (Rc::downgrade(&pool), Arc::clone(&self.shared));
        spawn_local(async move {
            let mut timer = pin!(sleep_until(Instant::now() + interval));
            let mut asked = pin!(shared.queue.asked());
            std::future::poll_fn(|cx| {
                // The pool is dropped with its upstream; the task ends at its next tick.
                let Some(pool) = weak.upgrade() else { return Poll::Ready(()) };
                while asked.as_mut().poll(cx).is_ready() {
                    pool.give_up_idle();
                    asked.set(shared.queue.asked());
                }
                let ticked = timer.as_mut().poll(cx).is_ready();
                if ticked {
                    pool.tick.now.set(pool.tick.now.get() + 1);
                    timer.as_mut().reset(Instant::now() + interval);
                    let _ = timer.as_mut().poll(cx);
                }
                let anything = pool.sweep(cx);
                if ticked && !anything {
                    pool.tick.sweeping.set(false);
                    return Poll::Ready(());
                }
                Poll::Pending
            })
            .await;
        });
    }

    /// Closes connections that are dead, too old, or to an endpoint that discovery no longer names; true if any is left.
    fn sweep(&self, cx: &Context<'_>) -> bool {
        #[cfg(test)]
        self.tick.sweeps.set(self.tick.sweeps.get() + 1);
        let mut anything = false;
        let ticks = self.shared.config.pool.idle_timeout.div_duration_f64(self.interval()).ceil() as u64;
        self.homes.borrow_mut().retain(|_, home| {
            home.sweep(cx, ticks);
            let empty = home.idle.borrow().is_empty() && home.h2.borrow().is_empty();
            anything |= !empty;
            // A call that uses one of its connections keeps its own `Rc` of it.
            !(empty && home.endpoint.removed.load(Relaxed))
        });
        anything
    }
}

impl EndpointPool {
    /// Takes back a connection after its exchange.
    fn park(&self, mut connection: Box<H1Connection>) {
        let settings = &self.shared.config.pool;
        if settings.max_idle > 0
            && connection.may_be_kept(settings)
            && !self.loses_connections()
            && !self.tick.gives_up(&self.shared)
        {
            connection.rest();
            connection.idle_since = self.tick.now.get();
            let mut idle = self.idle.borrow_mut();
            if idle.len() >= settings.max_idle {
                idle.pop_front();
            }
            idle.push_back(connection);
            self.keep_swept();
        }
        self.tick.freed.notify_one();
    }

    /// True if its connections are not kept for further calls.
    fn loses_connections(&self) -> bool {
        self.endpoint.removed.load(Relaxed)
            || (self.shared.config.on_unhealthy == OnUnhealthy::Close && self.endpoint.is_condemned())
    }

    fn keep_swept(&self) {
        if !self.tick.sweeping.get()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.begin_sweeping();
        }
    }

    /// The last idle connection that `owner` may use.
    fn take_h1(&self, owner: Owner) -> Option<Box<H1Connection>> {
        let mut idle = self.idle.borrow_mut();
        if owner.is_none() {
            return idle.pop_back();
        }
        let at = idle.iter().rposition(|connection| connection.owner == owner)?;
        idle.remove(at)
    }

    /// A permit for a stream on an open HTTP/2 connection that `owner` may use; with `since`, only on one made after
    /// that instant.
    fn lease_h2(&self, owner: Owner, since: Option<Instant>) -> Option<(Rc<H2Connection>, h2::StreamPermit)> {
        let settings = &self.shared.config.pool;
        if self.tick.pauses(&self.shared) {
            return None;
        }
        let h2 = self.h2.borrow();
        let fresh = |connection: &H2Connection| since.is_none_or(|since| connection.created >= since);
        let suitable = |connection: &&Rc<H2Connection>| connection.owner == owner && fresh(connection);
        let lease =
            |connection: &Rc<H2Connection>| Some((Rc::clone(connection), connection.lease(settings)?));
        // A connection whose peer has sent its SETTINGS is preferred.
        let mut settled = h2.iter().filter(suitable).filter(|connection| connection.known_limit().is_some());
        settled.find_map(lease).or_else(|| h2.iter().filter(suitable).find_map(lease))
    }

    /// True if the peer allows no stream at all on a connection that `owner` may use.
    fn is_held_back(&self, owner: Owner, since: Option<Instant>) -> bool {
        let settings = &self.shared.config.pool;
        let suitable = |connection: &Rc<H2Connection>| {
            connection.owner == owner && since.is_none_or(|since| connection.created >= since)
        };
        let h2 = self.h2.borrow();
        h2.iter().any(|connection| suitable(connection) && connection.is_held_back(settings))
    }

    fn keep_h2(&self, connection: Rc<H2Connection>) {
        connection.busy_at.set(self.tick.now.get());
        self.h2.borrow_mut().push(connection);
        self.keep_swept();
    }

    fn sweep(&self, cx: &Context<'_>, idle_ticks: u64) {
        let now = self.tick.now.get();
        let settings = &self.shared.config.pool;
        if self.loses_connections() {
            self.idle.borrow_mut().clear();
            self.h2.borrow_mut().clear(); // running streams finish on their own
            return;
        }
        let mut cx = Context::from_waker(cx.waker());
        self.idle.borrow_mut().retain_mut(|connection| {
            now - connection.idle_since < idle_ticks
                && connection.may_be_kept(settings)
                && !connection.has_ended(&mut cx, now)
        });
        self.h2.borrow_mut().retain(|connection| {
            if !connection.is_idle() {
                connection.busy_at.set(now);
            }
            now - connection.busy_at.get() < idle_ticks && connection.is_open(settings)
        });
    }
}
