//! How a call gets a connection when `max_connections` is reached.
//!
//! The limit is for the whole process, but each worker has its own pool. So an idle connection of one worker must not
//! cause the refusal of a call on another.
//!
//! **Rule.** A call that finds the limit reached closes the longest-idle connection of its own worker, of any endpoint.
//! If there is none, it asks all workers for one, and waits: at most `connect_timeout`, and not beyond its deadline.
//! Each worker with an idle connection closes one, in all as many as calls wait. Until the last waiting call is served,
//! a worker closes each connection that becomes idle, unless one of its own calls waits for it; and after
//! [`MAX_KEPT_IN_A_ROW`] of those it closes one anyway.
//!
//! HTTP/2: a connection with streams can't be closed. A worker that has no other connection opens no stream for
//! [`SHARE`], so that the running ones may end and the connection becomes idle. It does so only once in
//! [`SHARE_INTERVAL`], since streams may be long.
//!
//! This costs a request one atomic load when its connection returns to the pool. A closed connection wakes the call
//! that has waited longest.

use std::{cell::Cell, sync::atomic::Ordering::Relaxed, time::Duration};

use attache_telemetry::Reason;
use tokio::time::{Instant, timeout};

use super::{ConnectionPool, PoolContext};
use crate::{
    Error, SentPart, SharedUpstream,
    limit::{ConnectionPermit, PendingPermit},
};

/// How often a waiting call tries again: it gets no notification of connections that became idle meanwhile.
const REPEAT_INTERVAL: Duration = Duration::from_millis(20);
/// The most idle connections in a row that a worker uses for its own calls, before it closes one for another worker.
const MAX_KEPT_IN_A_ROW: u32 = 16;
/// How long a worker opens no stream, so that an HTTP/2 connection may become idle.
const SHARE: Duration = Duration::from_millis(100);
/// The time from one such pause to the next.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);

/// One worker's part in it.
#[derive(Debug, Default)]
pub(super) struct WorkerShare {
    /// Its own calls that wait.
    waiting: Cell<u32>,
    /// Connections that went to its own waiting calls since it last closed one for another worker.
    kept: Cell<u32>,
    asked_at: Cell<Option<Instant>>,
    /// When it last began to open no streams.
    paused_at: Cell<Option<Instant>>,
}

/// How a connection was closed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// It is closed.
    Now,
    /// Its own task closes it soon.
    Soon,
}

impl PoolContext {
    /// Calls of other workers wait.
    fn others_wait(&self, shared: &SharedUpstream) -> bool {
        let waiting = shared.queue.waiting.get();
        waiting > 0 && waiting > self.own.waiting.get()
    }

    /// Whether a connection that comes back is to be closed, because another worker needs its permit.
    pub(super) fn gives_up(&self, shared: &SharedUpstream) -> bool {
        if !self.others_wait(shared) {
            return false;
        }
        let kept = self.own.kept.get();
        let gives = self.own.waiting.get() == 0 || kept >= MAX_KEPT_IN_A_ROW;
        self.own.kept.set(if gives { 0 } else { kept + 1 });
        gives
    }

    /// Whether no stream is to be opened, so that an HTTP/2 connection may become idle.
    pub(super) fn pauses(&self, shared: &SharedUpstream) -> bool {
        let paused = self.own.paused_at.get().is_some_and(|at| at.elapsed() < SHARE);
        paused && self.others_wait(shared)
    }

    fn pause(&self) {
        let now = Instant::now();
        let due = |at: Instant| now.saturating_duration_since(at) >= SHARE_INTERVAL;
        if self.own.paused_at.get().is_none_or(due) {
            self.own.paused_at.set(Some(now));
        }
    }
}

/// One call that waits; it counts as waiting until it is dropped.
pub(super) struct WaitingCall<'a> {
    pool: &'a ConnectionPool,
    since: Instant,
    asked: Cell<bool>,
}

impl<'a> WaitingCall<'a> {
    pub(super) fn begin(pool: &'a ConnectionPool) -> Self {
        pool.shared.queue.waiting.enter();
        let waiting = &pool.tick.own.waiting;
        waiting.set(waiting.get() + 1);
        Self { pool, since: Instant::now(), asked: Cell::new(false) }
    }

    /// Asks for a connection, and waits until it is worth checking again.
    ///
    /// Errors: `overflow-connections` after `connect_timeout`, `request-timeout` at the deadline.
    pub(super) async fn turn(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let (pool, now) = (self.pool, Instant::now());
        if deadline.is_some_and(|deadline| now >= deadline) {
            let cause = "the deadline came while the request waited for a connection";
            return Err(Error::with_source(Reason::RequestTimeout, SentPart::Nothing, cause));
        }
        if now.duration_since(self.since) >= pool.shared.config.connect_timeout {
            return Err(pool.refused(Reason::OverflowConnections));
        }
        let own = &pool.tick.own;
        let due = own.asked_at.get().is_none_or(|at| now.saturating_duration_since(at) >= REPEAT_INTERVAL);
        if due || !self.asked.replace(true) {
            own.asked_at.set(Some(now));
            pool.shared.queue.ask();
        }
        let woken = async {
            tokio::select! {
                () = pool.shared.queue.freed.notified() => {}
                () = pool.tick.freed.notified() => {}
            }
        };
        let _ = timeout(REPEAT_INTERVAL, woken).await;
        Ok(())
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.pool.shared.queue.waiting.leave();
        let waiting = &self.pool.tick.own.waiting;
        waiting.set(waiting.get() - 1);
    }
}

impl ConnectionPool {
    /// A permit for a connection, if one is free and no call waits for it.
    pub(super) fn permit_at_once(&self) -> Option<ConnectionPermit> {
        if self.shared.queue.waiting.get() > 0 {
            return None;
        }
        ConnectionPermit::take(&self.shared).ok()
    }

    /// A permit for a connection, for a call that waits: a free one, or that of an idle connection of this worker.
    pub(super) fn permit_for(&self, _: &WaitingCall<'_>) -> Option<ConnectionPermit> {
        loop {
            if let Ok(permit) = ConnectionPermit::take(&self.shared) {
                return Some(permit);
            }
            if self.tick.pauses(&self.shared) || self.close_one_idle()? == Eviction::Soon {
                return None;
            }
        }
    }

    /// A permit for a bare connection; waits for it if none is free.
    pub(crate) async fn permit(&self, deadline: Option<Instant>) -> Result<ConnectionPermit, Error> {
        if let Some(permit) = self.permit_at_once() {
            return Ok(permit);
        }
        let _pending = PendingPermit::take(&self.shared).map_err(|reason| self.refused(reason))?;
        let waiting = WaitingCall::begin(self);
        loop {
            if let Some(permit) = self.permit_for(&waiting) {
                return Ok(permit);
            }
            waiting.turn(deadline).await?;
        }
    }

    /// True if no further connection may be made now.
    pub(crate) fn is_full(&self) -> bool {
        self.shared.connections.load(Relaxed) >= self.shared.config.circuit_breaker.max_connections
    }

    /// Closes idle connections for the waiting calls of other workers, as long as one of them needs one.
    pub(super) fn give_up_idle(&self) {
        while self.tick.others_wait(&self.shared) && self.shared.queue.claim() {
            if self.close_one_idle().is_none() {
                self.shared.queue.wanted.fetch_add(1, Relaxed);
                self.tick.pause();
                return;
            }
        }
    }

    /// Closes the longest-idle connection of this worker, to make room for another.
    fn close_one_idle(&self) -> Option<Eviction> {
        let homes = self.homes.borrow();
        let h1 = homes.values().filter_map(|home| {
            let since = home.idle.borrow().front()?.idle_since;
            Some((since, home))
        });
        let h2 = homes.values().filter_map(|home| {
            let since = home.h2.borrow().iter().filter(|h2| h2.is_idle()).map(|h2| h2.busy_at.get()).min()?;
            Some((since, home))
        });
        let (h1, h2) = (h1.min_by_key(|(since, _)| *since), h2.min_by_key(|(since, _)| *since));
        match (h1, h2) {
            (Some((since, _)), Some((older, home))) if older < since => home.close_idle_h2(older),
            (None, Some((since, home))) => home.close_idle_h2(since),
            (Some((_, home)), _) => home.idle.borrow_mut().pop_front().map(|_| Eviction::Now),
            (None, None) => None,
        }
    }
}

impl super::EndpointPool {
    fn close_idle_h2(&self, since: u64) -> Option<Eviction> {
        let mut h2 = self.h2.borrow_mut();
        let at = h2.iter().position(|h2| h2.is_idle() && h2.busy_at.get() == since)?;
        h2.swap_remove(at);
        Some(Eviction::Soon)
    }
}
