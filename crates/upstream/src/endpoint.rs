//! Endpoints: one address each, with everything that all workers together know about it.
//!
//! Its identity is the address together with the name that it was found by: connections in the pool for one TLS name
//! are never used for another. Everything else (weight, priority, health, load) is an atomic that changes in place, so
//! a counter survives every refresh in between.

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use attache_config::model::Name;
use tokio::{sync::watch, time::Instant};

use crate::{Id, change::LastChange, circuit::Circuit, flag::Flag, hash::session_of};

/// Where an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// IP and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(Arc<Path>),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The data of one endpoint from discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where it is reached.
    pub address: EndpointAddress,
    /// The name it was found by, without the final dot; `None` for fixed addresses.
    pub host: Option<Name>,
    /// Relative weight; 0 counts as 1.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u8,
    /// Its zone.
    pub zone: Option<Name>,
    /// Its labels in the config.
    pub labels: Arc<[(Name, Name)]>,
}

impl EndpointSpec {
    /// A fixed address of weight 1, priority 0, no zone.
    pub fn new(address: EndpointAddress) -> Self {
        Self { address, host: None, weight: 1, priority: 0, zone: None, labels: Arc::default() }
    }
}

/// One endpoint. It lives as long as discovery names its address; its counters survive every refresh in between.
#[derive(Debug)]
pub struct Endpoint {
    /// The key of data about the endpoint that is kept elsewhere.
    pub id: Id,
    /// Where it is reached.
    pub address: EndpointAddress,
    /// The address as text, made once for labels and logs.
    pub label: Name,
    /// The DNS name it was found by: SNI and verified name where the config sets none.
    pub host: Option<Name>,
    /// Its zone.
    pub zone: Option<Name>,
    /// Its labels in the config.
    pub labels: Arc<[(Name, Name)]>,
    /// Its hash in a session's cookie.
    pub(crate) session: u64,
    /// When it was added, for slow start.
    pub added: Instant,
    /// Requests running on it, over all workers.
    pub active: AtomicU32,
    /// Active health: false while its checks fail. Written by [`Endpoint::set_healthy`].
    pub healthy: AtomicBool,
    /// Passive health: true while it is ejected. Written by [`Endpoint::set_ejected`].
    pub ejected: AtomicBool,
    /// Discovery no longer names it: its idle connections close, its running requests finish.
    pub removed: AtomicBool,
    /// Latency as peak EWMA with decay, for `peak-ewma` (bits of an f64 of nanoseconds, and the instant; owned by `balance`).
    pub ewma: AtomicU64,
    /// When `ewma` was last moved: nanoseconds since `added`.
    pub ewma_at: AtomicU64,
    /// Failures as load, for `least-request` (bits of an f64, and nanoseconds since `added`; owned by `balance`).
    pub(crate) bias: AtomicU64,
    pub(crate) bias_at: AtomicU64,
    /// The results of its requests (owned by `outlier`).
    pub passive: crate::outlier::Passive,
    /// The results of its health checks (owned by `health`).
    pub checks: crate::health::CheckResults,
    weight: AtomicU32,
    priority: AtomicU8,
    /// Where slow start begins: nanoseconds since `added`.
    ramp_from: AtomicU64,
    /// Its failure breaker, if the config has one.
    pub(crate) circuit: ArcSwapOption<Circuit>,
    /// Up if its breaker isn't closed: only then calls ask the breaker. If the flag lags behind the breaker, admission
    /// corrects it.
    pub(crate) tripped: Flag,
    pub(crate) health_change: LastChange,
    pub(crate) ejection_change: LastChange,
    /// No connection to it can be made (owned by `outlier::unreachable`).
    pub(crate) unreachable: AtomicBool,
    pub(crate) reach_change: LastChange,
    /// A worker tries to connect to it from time to time, to learn whether it is back.
    pub(crate) watched: AtomicBool,
    /// The earliest time at which a call may try it although it is out: nanoseconds since `added`.
    pub(crate) knock_at: AtomicU64,
    /// Rises each time it turns unhealthy, is ejected or is removed: see [`UnhealthyNotice`](crate::limit::UnhealthyNotice).
    turned: watch::Sender<u32>,
    /// Shared by the endpoints of one upstream; rises with every change of health.
    health_epoch: Arc<AtomicU64>,
}

impl Endpoint {
    /// A healthy endpoint without load, added now. One that belongs to an upstream is made by
    /// [`SharedUpstream::replace_endpoints`](crate::SharedUpstream::replace_endpoints).
    pub fn new(spec: EndpointSpec) -> Self {
        Self::with_epoch(spec, Arc::default())
    }

    pub(crate) fn with_epoch(spec: EndpointSpec, health_epoch: Arc<AtomicU64>) -> Self {
        Self {
            id: Id::next(),
            session: session_of(&spec.address.to_string()),
            label: spec.address.to_string().into(),
            address: spec.address,
            host: spec.host,
            zone: spec.zone,
            labels: spec.labels,
            added: Instant::now(),
            active: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            ejected: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            ewma: AtomicU64::new(0),
            ewma_at: AtomicU64::new(0),
            bias: AtomicU64::new(0),
            bias_at: AtomicU64::new(0),
            passive: crate::outlier::Passive::default(),
            weight: AtomicU32::new(spec.weight.max(1)),
            priority: AtomicU8::new(spec.priority),
            ramp_from: AtomicU64::new(0),
            circuit: ArcSwapOption::empty(),
            tripped: Flag::default(),
            health_change: LastChange::default(),
            ejection_change: LastChange::default(),
            unreachable: AtomicBool::new(false),
            reach_change: LastChange::default(),
            watched: AtomicBool::new(false),
            knock_at: AtomicU64::new(0),
            turned: watch::Sender::new(0),
            health_epoch,
            checks: crate::health::CheckResults::default(),
        }
    }

    /// Relative weight, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// 0 is used first.
    pub fn priority(&self) -> u8 {
        self.priority.load(Relaxed)
    }

    /// True if it is healthy, not ejected, reachable, not held back by its breaker and not removed: new requests may go
    /// there.
    pub fn usable(&self) -> bool {
        self.healthy.load(Relaxed)
            && !self.ejected.load(Relaxed)
            && !self.unreachable.load(Relaxed)
            && !self.removed.load(Relaxed)
            && (!self.tripped.is_up() || !self.is_blocked())
    }

    /// Whether it is out only because connections failed, for a cause that `kind` accepts: then new requests may go
    /// there again at once.
    pub(crate) fn usable_but_for(&self, kind: impl FnOnce(&str) -> bool) -> bool {
        let why = self.reach_change.standing(self.added, Instant::now()).why;
        self.unreachable.load(Relaxed) && !self.is_condemned() && why.is_some_and(|why| kind(&why))
    }

    /// True if it fails its health checks, is ejected, or discovery no longer names it.
    pub(crate) fn is_condemned(&self) -> bool {
        !self.healthy.load(Relaxed) || self.ejected.load(Relaxed) || self.removed.load(Relaxed)
    }

    /// Discovery no longer names it.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Relaxed);
        self.turns();
    }

    /// Informs every [`UnhealthyNotice`](crate::limit::UnhealthyNotice) that the endpoint turns unhealthy.
    fn turns(&self) {
        self.turned.send_modify(|times| *times = times.wrapping_add(1));
    }

    /// Learns when the endpoint turns unhealthy after this call.
    pub(crate) fn when_it_turns(&self) -> watch::Receiver<u32> {
        self.turned.subscribe()
    }

    /// Whether a call that has failed at every usable endpoint may ask it: it passes its health checks, and its breaker
    /// allows it.
    pub(crate) fn may_be_asked(&self) -> bool {
        self.healthy.load(Relaxed)
            && !self.removed.load(Relaxed)
            && (!self.tripped.is_up() || !self.is_blocked())
    }

    fn is_blocked(&self) -> bool {
        self.circuit.load().as_ref().is_some_and(|circuit| circuit.blocks())
    }

    /// True if it is usable, and its breaker is not probing it. The rules about the last endpoints count only such
    /// endpoints.
    pub(crate) fn in_service(&self) -> bool {
        self.usable() && !self.tripped.is_up()
    }

    /// Gives it a failure breaker, closed, or takes it away.
    pub(crate) fn set_circuit(&self, circuit: Option<Circuit>) {
        self.circuit.store(circuit.map(Arc::new));
        self.circuit_changed();
    }

    /// The state of its breaker may have changed.
    pub(crate) fn circuit_changed(&self) {
        let is_tripped = || self.circuit.load().as_ref().is_some_and(|circuit| !circuit.is_closed());
        let (was, tripped) = self.tripped.follow(is_tripped);
        if tripped || was {
            self.health_changed(was && !tripped);
        }
    }

    /// Sets the result of active health checks, without a cause. True if it has changed.
    pub fn set_healthy(&self, healthy: bool) -> bool {
        self.set_healthy_because(healthy, "")
    }

    /// Sets the result of active health checks, with its cause. Recovery begins slow start again. True if it has
    /// changed.
    pub fn set_healthy_because(&self, healthy: bool, why: &str) -> bool {
        let changed = self.healthy.swap(healthy, Relaxed) != healthy;
        if changed {
            self.health_change.note(Instant::now(), why);
            self.health_changed(healthy);
            if !healthy {
                self.turns();
            }
        }
        changed
    }

    /// Sets the result of passive health checks, without a cause. True if it has changed.
    pub fn set_ejected(&self, ejected: bool) -> bool {
        self.set_ejected_because(ejected, "")
    }

    /// Sets the result of passive health checks, with its cause. The end of an ejection begins slow start again. True
    /// if it has changed.
    pub fn set_ejected_because(&self, ejected: bool, why: &str) -> bool {
        let changed = self.ejected.swap(ejected, Relaxed) != ejected;
        if changed {
            self.ejection_change.note(Instant::now(), why);
            self.health_changed(!ejected);
            if ejected {
                self.turns();
            }
        }
        changed
    }

    /// Sets whether connections to it can be made, with the cause. True if it has changed.
    pub(crate) fn set_unreachable(&self, unreachable: bool, why: &str) -> bool {
        let changed = self.unreachable.swap(unreachable, Relaxed) != unreachable;
        if changed {
            self.reach_change.note(Instant::now(), why);
            // Without slow start: it was away only for a moment, or is new at its address.
            self.health_changed(false);
        }
        changed
    }

    fn health_changed(&self, recovered: bool) {
        if recovered {
            self.ramp_from.store(self.since_added(Instant::now()), Relaxed);
        }
        // Release: a worker that sees the new epoch also sees the health that was written before it.
        self.health_epoch.fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    /// Nanoseconds since the endpoint was added; 0 before that.
    pub(crate) fn since_added(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.added).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Time since it was added or last recovered.
    pub(crate) fn ramp_age(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.since_added(now).saturating_sub(self.ramp_from.load(Relaxed)))
    }

    pub(crate) fn is(&self, spec: &EndpointSpec) -> bool {
        self.address == spec.address
            && self.host == spec.host
            && self.zone == spec.zone
            && self.labels == spec.labels
    }

    /// Takes weight and priority from `spec`. True if they have changed.
    pub(crate) fn update(&self, spec: &EndpointSpec) -> bool {
        let weight = spec.weight.max(1);
        let weighed = self.weight.swap(weight, Relaxed) != weight;
        let ranked = self.priority.swap(spec.priority, Relaxed) != spec.priority;
        weighed || ranked
    }
}
