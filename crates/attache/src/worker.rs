//! One worker: a thread, its runtime, and every listener on it.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Barrier},
    time::Duration,
};

use attache_config::model::Bind;
use attache_listener::{Settings, Socket};
use attache_telemetry::{Exchange, metrics};
use attache_upstream::discovery::OnDemandHosts;
use tokio::{
    runtime::LocalRuntime,
    task::{JoinSet, spawn_local},
    time::interval,
};

use crate::{
    stack::{Http, OnFinish, Site, Tcp, Tunnels, Upstreams},
    state::State,
};

/// Longer than a connection may take to be made by default, so that one attempt has ended before the next begins.
const PRECONNECT_EVERY: Duration = Duration::from_secs(5);

/// Serves until the drain has ended every connection. `sockets` are by listener.
///
/// All workers pass `begin` together, when each has its runtime: connections that one accepts can't take the file descriptors
/// that another needs to start.
pub(crate) fn run(
    state: &Arc<State>,
    sockets: Vec<Vec<Socket>>,
    hosts: Vec<Option<OnDemandHosts>>,
    begin: &Barrier,
) {
    let runtime = LocalRuntime::new();
    begin.wait();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker has no runtime; its share of the connections is not served");
            return;
        }
    };
    state.metrics.worker().install();
    runtime.block_on(serve(state, sockets, hosts));
}

async fn serve(state: &Arc<State>, sockets: Vec<Vec<Socket>>, hosts: Vec<Option<OnDemandHosts>>) {
    let upstreams = Upstreams::new(state.clone(), hosts, own_addresses(state, &sockets));
    if upstreams.configs().any(|upstream| upstream.pool.preconnect > 0) {
        spawn_local(keep_preconnected(upstreams.clone()));
    }
    let counters = metrics();
    let logger = state.access_log.logger(&counters);
    let on_finish: OnFinish = Rc::new(move |exchange: &Exchange| {
        let total = counters.request_finished(exchange);
        logger.write(exchange, total);
    });
    let tunnels = Tunnels::new(state.drain.subscribe());

    let mut listeners = JoinSet::new();
    for (parts, sockets) in state.listeners.iter().zip(sockets) {
        let site = Site::new(
            parts.config.clone(),
            parts.routes.clone(),
            upstreams.clone(),
            tunnels.clone(),
            on_finish.clone(),
        );
        let site = Rc::new(site);
        let settings = Rc::new(Settings {
            listener: parts.config.clone(),
            tls: parts.tls.clone(),
            connections: parts.connections.clone(),
            on_finish: on_finish.clone(),
        });
        let (http, tcp) = (Http(site.clone()), Tcp(site));
        listeners.spawn_local(attache_listener::serve(settings, sockets, http, tcp, state.drain.subscribe()));
    }
    while let Some(ended) = listeners.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a listener of this worker ended early");
        }
    }
    tunnels.ended().await;
}

/// Endpoints come and go, and connections made ahead are used up: what is missing is made again.
async fn keep_preconnected(upstreams: Rc<Upstreams>) {
    let mut ticks = interval(PRECONNECT_EVERY);
    loop {
        ticks.tick().await;
        upstreams.preconnect();
    }
}

fn own_addresses(state: &State, sockets: &[Vec<Socket>]) -> Vec<SocketAddr> {
    let configured =
        state.listeners.iter().flat_map(|parts| &parts.config.bind).filter_map(|bind| match bind {
            Bind::Tcp(address) => Some(*address),
            Bind::Unix { .. } => None,
        });
    // A port that was 0 is known only now.
    configured.chain(sockets.iter().flatten().filter_map(Socket::local_addr)).collect()
}
