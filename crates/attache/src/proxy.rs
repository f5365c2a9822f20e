//! One running proxy: its sockets, its control thread and its workers, from start to the last request.
//!
//! Order of the start: bind everything (a port in use is an error before anything runs), begin discovery, wait a bounded time for its
//! first answers, then let the workers accept. Connections that come meanwhile wait in the kernel's queue, so the first
//! request finds endpoints.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use attache_admin::{AdminState, Readiness};
use attache_config::model::{self, Config, Name};
use attache_listener::{BindError, Connections, DrainTrigger, Socket};
use attache_telemetry::{AccessLog, AccessLogError, Metrics};
use attache_upstream::Shared;
use tokio::{runtime::LocalRuntime, sync::watch, task::spawn_local};

use crate::{control, cpus, worker};

/// How long the first look-ups may delay the start; the others go on behind it.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(5);

/// What all threads share.
pub(crate) struct State {
    pub(crate) config: Config,
    /// One for each of `config.upstreams`, in its order.
    pub(crate) upstreams: Vec<Arc<control::Upstream>>,
    /// One for each of `config.listeners`, in its order.
    pub(crate) listeners: Vec<ListenerState>,
    pub(crate) metrics: Metrics,
    pub(crate) access_log: AccessLog,
    pub(crate) readiness: Readiness,
    pub(crate) drain: DrainTrigger,
}

/// What all workers share of one listener.
pub(crate) struct ListenerState {
    pub(crate) config: Arc<model::Listener>,
    pub(crate) tls: Option<attache_tls::Acceptor>,
    pub(crate) connections: Arc<Connections>,
}
