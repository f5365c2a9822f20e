//! Follows the TLS files of every listener and upstream, and tells the metrics of it.
//!
//! A changed file is in use two looks later for connections made from then on, or is refused whole while the last good
//! state serves; see [`attache_tls::Watcher`]. Runs on the control thread, which reads files on blocking threads.

use std::{sync::Arc, time::Duration};

use attache_telemetry::Side;
use attache_tls::{Certificate, Watcher};
use tokio::{task::spawn_local, time::interval};

use crate::proxy::State;

/// How often the metrics are told; the watcher itself looks as often.
const TELL_EVERY: Duration = Duration::from_secs(1);

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
