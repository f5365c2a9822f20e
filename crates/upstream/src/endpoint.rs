//! Endpoints: one address each, with what all workers together know of it.

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
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
}
