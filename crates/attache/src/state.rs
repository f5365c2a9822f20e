//! What all threads of a proxy share, and why there may be none of it.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use attache_admin::Readiness;
use attache_config::model::{self, Address, Config, Name};
use attache_listener::{BindError, Connections, DrainTrigger, Socket};
use attache_resilience::{RouteState, UpstreamState};
use attache_telemetry::{AccessLog, AccessLogError, Metrics};
use attache_upstream::{Shared, connect::Tls};

/// What all threads share.
pub(crate) struct State {
    pub(crate) config: Config,
    /// One for each of `config.upstreams`, in its order.
    pub(crate) upstreams: Vec<UpstreamParts>,
    /// One for each of `config.listeners`, in its order.
    pub(crate) listeners: Vec<ListenerParts>,
    pub(crate) metrics: Metrics,
    pub(crate) access_log: AccessLog,
    /// The SPIFFE agent, where the config uses it.
    pub(crate) workload: Option<attache_tls::Workload>,
    pub(crate) readiness: Readiness,
    pub(crate) drain: DrainTrigger,
}

/// What all threads share of one upstream.
#[derive(Clone)]
pub(crate) struct UpstreamParts {
    pub(crate) resilience: Arc<UpstreamState>,
    pub(crate) tls: Option<Tls>,
    /// Of hosts that requests name: made once for all workers, and kept as long as one of them uses it. The lock is taken when
    /// a host is new to a worker.
    pub(crate) hosts: Arc<Mutex<HashMap<usize, Weak<UpstreamState>>>>,
}

impl UpstreamParts {
    /// The resilience state of a host that requests named; true if it was made just now.
    pub(crate) fn host_state(&self, shared: &Arc<Shared>) -> (Arc<UpstreamState>, bool) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::as_ptr(shared) as usize;
        if let Some(state) = hosts.get(&key).and_then(Weak::upgrade) {
            return (state, false);
        }
        hosts.retain(|_, state| state.strong_count() > 0);
        let state = UpstreamState::new(shared.clone());
        hosts.insert(key, Arc::downgrade(&state));
        (state, true)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.resilience.shared
    }

    /// Its endpoints are named by requests, not by the config.
    pub(crate) fn on_demand(&self) -> bool {
        matches!(self.shared().config.address, Address::Authority { .. } | Address::OriginalDestination)
    }
}

/// What all threads share of one listener.
pub(crate) struct ListenerParts {
    pub(crate) config: Arc<model::Listener>,
    pub(crate) tls: Option<attache_tls::Acceptor>,
    pub(crate) connections: Arc<Connections>,
    /// One for each of its routes, in the order of the file.
    pub(crate) routes: Arc<[Arc<RouteState>]>,
}

/// Sockets by worker, then by listener.
pub(crate) type Sockets = Vec<Vec<Vec<Socket>>>;

/// Why it did not start.
#[derive(Debug)]
pub(crate) enum Error {
    /// A listener's address.
    Bind { listener: Name, source: BindError },
    /// The address of probes and metrics.
    Probes { address: SocketAddr, source: io::Error },
    /// Certificates, keys or trust.
    Tls { what: &'static str, name: Name, source: attache_tls::Error },
    /// The SPIFFE Workload API.
    Spiffe(attache_tls::Error),
    /// The access log's file.
    AccessLog(AccessLogError),
    /// The resolver's settings.
    Dns(io::Error),
    /// No thread, or no runtime for it.
    Thread(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listener, source } => write!(f, "listener `{listener}`: {source}"),
            Self::Probes { address, source } => write!(
                f,
                "probes and metrics can't listen on {address}: {source}; set `metrics:` to another address, or to `off`"
            ),
            Self::Spiffe(source) => source.fmt(f),
            Self::Tls { what, name, source } => write!(f, "{what} `{name}`: {source}"),
            Self::AccessLog(source) => source.fmt(f),
            Self::Dns(source) => write!(f, "DNS settings: {source}"),
            Self::Thread(source) => write!(f, "a thread can't be started: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { source, .. } => source.source(),
            Self::Spiffe(source) | Self::Tls { source, .. } => std::error::Error::source(source),
            Self::AccessLog(source) => source.source(),
            Self::Probes { source, .. } | Self::Dns(source) | Self::Thread(source) => source.source(),
        }
    }
}
