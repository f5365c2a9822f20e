//! Follows the TLS files of every listener and upstream, and tells the metrics of it.
//!
//! A changed file is in use two looks later for connections made from then on, or is refused whole while the last good
//! state serves; see [`attache_tls::Watcher`]. Runs on the control thread, which reads files on blocking threads.

use std::{sync::Arc, time::Duration};

use attache_config::model::{Config, Trust};
use attache_telemetry::{Reason, Side};
use attache_tls::{Certificate, SPIFFE_ENDPOINT, Watcher, Workload};
use tokio::{runtime::LocalRuntime, task::spawn_local, time::interval};

use crate::state::{Error, State};

/// How often the metrics are told; the watcher itself looks as often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long the start waits for the SPIFFE agent's first answer.
const SVID_PATIENCE: Duration = Duration::from_secs(30);

/// The SPIFFE agent with its first SVID, where the config uses it: nothing is served before there is an identity.
pub(crate) fn workload(config: &Config) -> Result<Option<Workload>, Error> {
    let clients = config.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
    let servers = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let uses = clients.into_iter().any(|tls| tls.spiffe || tls.trust == Trust::Spiffe)
        || servers.into_iter().any(|tls| tls.spiffe || tls.client_trust == Some(Trust::Spiffe));
    if !uses {
        return Ok(None);
    }
    let endpoint = std::env::var(SPIFFE_ENDPOINT).map_err(|_| {
        let why = format!(
            "`spiffe` needs {SPIFFE_ENDPOINT}: set it to the agent's socket, `unix:///run/spire/agent.sock`"
        );
        Error::Spiffe(attache_tls::Error::new(Reason::TlsNoIdentity, why))
    })?;
    let workload = Workload::new(&endpoint).map_err(Error::Spiffe)?;
    let runtime = LocalRuntime::new().map_err(Error::Thread)?;
    runtime.block_on(workload.first(SVID_PATIENCE)).map_err(Error::Spiffe)?;
    Ok(Some(workload))
}

/// Begins to follow; ends with the thread. The first expiries are told before it returns.
pub(crate) fn follow(state: &Arc<State>) {
    let watcher = Watcher::default();
    let mut insecure = Vec::new();
    for upstream in &state.upstreams {
        let Some(tls) = &upstream.tls else { continue };
        watcher.follow(tls.connector());
        if tls.connector().is_insecure() {
            insecure.push(upstream.shared().config.name.clone());
        }
    }
    for acceptor in state.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        watcher.follow(acceptor);
    }
    state.metrics.set_insecure_upstreams(insecure);
    tell(state, &watcher);
    spawn_local(watcher.clone().run());
    if let Some(workload) = &state.workload {
        spawn_local(workload.clone().run());
    }
    let state = state.clone();
    spawn_local(async move {
        let mut ticks = interval(TELL_EVERY);
        loop {
            ticks.tick().await;
            tell(&state, &watcher);
        }
    });
}

fn tell(state: &State, watcher: &Watcher) {
    let status = watcher.status();
    state.metrics.set_certificate_reloads(status.reloads, status.reload_failures, status.failing);
    for listener in &state.listeners {
        let own = listener.tls.as_ref().map(attache_tls::Acceptor::certificates).unwrap_or_default();
        expiry(state, Side::Listener, &listener.config.name, &own);
    }
    for upstream in &state.upstreams {
        let own = upstream.tls.as_ref().map(|tls| tls.connector().certificates()).unwrap_or_default();
        expiry(state, Side::Upstream, &upstream.shared().config.name, &own);
    }
}

/// Of several certificates the first to expire is the one to warn of.
fn expiry(state: &State, side: Side, name: &attache_config::model::Name, own: &[Arc<Certificate>]) {
    if let Some(first) = own.iter().map(|certificate| certificate.not_after).min() {
        state.metrics.set_certificate_expiry(side, name, first);
    }
}
