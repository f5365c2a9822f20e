//! Endpoints: one address each, with what all workers together know of it.

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use attache_config::model::{self, Name};
use attache_telemetry::Reason;

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

/// One endpoint. It lives as long as discovery names its address; its counters survive every refresh in between.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is reached.
    pub address: EndpointAddress,
    /// The address as text, made once for labels and logs.
    pub label: Name,
    /// The DNS name it was found by: SNI and verified name where the config sets none.
    pub host: Option<Name>,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u8,
    /// Its zone.
    pub zone: Option<Name>,
    /// When it was added, for slow start.
    pub added: tokio::time::Instant,
    /// Requests running on it, over all workers.
    pub active: AtomicU32,
    /// Active health: false while its checks fail.
    pub healthy: AtomicBool,
    /// Passive health: true while it is ejected.
    pub ejected: AtomicBool,
    /// Discovery no longer names it: its idle connections close, its running requests finish.
    pub removed: AtomicBool,
    /// Latency as peak EWMA with decay, for `peak-ewma` (bits of an f64 of nanoseconds, and the instant; owned by `balance`).
    pub ewma: AtomicU64,
    /// When `ewma` was last moved: nanoseconds since `added`.
    pub ewma_at: AtomicU64,
    /// What its requests said of it (owned by `outlier`).
    pub passive: crate::outlier::Passive,
    /// What its health checks said (owned by `health`).
    pub checks: crate::health::Checks,
}

/// What discovery says of one endpoint.
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
}

impl EndpointSpec {
    /// A fixed address of weight 1, priority 0, no zone.
    pub fn new(address: EndpointAddress) -> Self {
        Self { address, host: None, weight: 1, priority: 0, zone: None }
    }
}

impl Endpoint {
    /// A healthy endpoint without load, added now.
    pub fn new(spec: EndpointSpec) -> Self {
        Self {
            label: spec.address.to_string().into(),
            address: spec.address,
            host: spec.host,
            weight: spec.weight.max(1),
            priority: spec.priority,
            zone: spec.zone,
            added: tokio::time::Instant::now(),
            active: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            ejected: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            ewma: AtomicU64::new(0),
            ewma_at: AtomicU64::new(0),
            passive: crate::outlier::Passive::default(),
            checks: crate::health::Checks::default(),
        }
    }

    /// Healthy, not ejected and not removed: new requests may go there.
    pub fn usable(&self) -> bool {
        self.healthy.load(Relaxed) && !self.ejected.load(Relaxed) && !self.removed.load(Relaxed)
    }

    /// Sets what active health checks say. True if that was a change.
    pub fn set_healthy(&self, healthy: bool) -> bool {
        self.healthy.swap(healthy, Relaxed) != healthy
    }

    /// Sets what passive health says. True if that was a change.
    pub fn set_ejected(&self, ejected: bool) -> bool {
        self.ejected.swap(ejected, Relaxed) != ejected
    }
}

/// The endpoints of one upstream at one moment.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// All of them, in a stable order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Rises with every change, so that workers know when to rebuild tables and sweep pools.
    pub generation: u64,
    /// Why there is none, or why the last refresh failed while these still serve.
    pub failure: Option<Reason>,
}

/// One upstream as all workers see it.
#[derive(Debug)]
pub struct Shared {
    /// Its part of the config.
    pub config: Arc<model::Upstream>,
    /// Its endpoints.
    pub endpoints: ArcSwap<EndpointSet>,
    /// Requests running, over all workers (`circuit_breaker.max_requests`).
    pub active_requests: AtomicU32,
    /// Connections open, over all workers.
    pub connections: AtomicU32,
    /// Requests waiting for a connection, over all workers.
    pub pending: AtomicU32,
    /// Retries running, over all workers.
    pub retries: AtomicU32,
    /// What the ejections of its endpoints need together (owned by `outlier`).
    pub ejections: crate::outlier::Ejections,
}

impl Shared {
    /// An upstream without endpoints.
    pub fn new(config: Arc<model::Upstream>) -> Self {
        Self {
            config,
            endpoints: ArcSwap::default(),
            active_requests: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            retries: AtomicU32::new(0),
            ejections: crate::outlier::Ejections::default(),
        }
    }

    /// Makes `specs` the endpoints, `failure` the state of the last look-up. True if a generation began.
    pub fn replace_endpoints(&self, specs: Vec<EndpointSpec>, failure: Option<Reason>) -> bool {
        let generation = self.endpoints.load().generation + 1;
        let endpoints = specs.into_iter().map(|spec| Arc::new(Endpoint::new(spec))).collect();
        self.endpoints.store(Arc::new(EndpointSet { endpoints, generation, failure }));
        true
    }
}
