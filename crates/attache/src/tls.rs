//! Follows the TLS files of every listener and upstream, and updates the metrics.
//!
//! Two checks after a file has changed, it is used for new connections, or it is refused as a whole while the last good state stays in use;
//! see [`attache_tls::FileWatcher`]. This runs on the control thread, which reads files on blocking threads.

use std::{sync::Arc, time::Duration};

use attache_config::model::{Config, Name, Trust};
use attache_telemetry::{CertificateSide, Metrics, Reason};
use attache_tls::{Certificate, SPIFFE_ENDPOINT, Workload};
use tokio::{runtime::LocalRuntime, task::spawn_local};

use crate::{error::Error, process::ProcessState, ticks::tick};

/// The longest interval between two updates of the metrics; a shorter interval of the watchers counts.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How long the start waits for the SPIFFE agent's first response.
const SVID_TIMEOUT: Duration = Duration::from_secs(30);

/// The listeners and upstreams that use the SPIFFE agent: their section of the config, and their name.
pub(crate) fn uses_spiffe(config: &Config) -> Vec<(&'static str, &Name)> {
    let listeners = config.listeners.iter().filter_map(|listener| {
        let tls = listener.tls.as_ref()?;
        (tls.spiffe || tls.client_trust == Some(Trust::Spiffe)).then_some(("listeners", &listener.name))
    });
    let upstreams = config.upstreams.iter().filter_map(|upstream| {
        let tls = upstream.tls.as_ref()?;
        (tls.spiffe || tls.trust == Trust::Spiffe).then_some(("upstreams", &upstream.name))
    });
    listeners.chain(upstreams).collect()
}

/// The SPIFFE agent with its first SVID, if the config uses it: nothing is served before there is an identity. An existing one is kept.
pub(crate) fn workload(config: &Config, before: Option<&Workload>) -> Result<Option<Workload>, Error> {
    if uses_spiffe(config).is_empty() {
        return Ok(None);
    }
    if let Some(before) = before {
        return Ok(Some(before.clone()));
    }
    let endpoint = std::env::var(SPIFFE_ENDPOINT).map_err(|_| {
        let why = format!(
            "`spiffe` needs {SPIFFE_ENDPOINT}: set it to the agent's socket, `unix:///run/spire/agent.sock`"
        );
        Error::Spiffe(attache_tls::Error::new(Reason::TlsNoIdentity, why))
    })?;
    let workload = Workload::new(&endpoint).map_err(Error::Spiffe)?;
    let runtime = LocalRuntime::new().map_err(Error::Thread)?;
    runtime.block_on(workload.first(SVID_TIMEOUT)).map_err(Error::Spiffe)?;
    Ok(Some(workload))
}

/// Starts to follow the files in [`ProcessState::certificates`] and [`ProcessState::secrets`], also those that are added later. It ends with the
/// thread. Before it returns, the metrics have the first expiry times.
pub(crate) fn follow(process: &Arc<ProcessState>) {
    tell(process);
    spawn_local(process.certificates.clone().run(tick));
    spawn_local(process.secrets.clone().run(tick));
    let process = process.clone();
    spawn_local(async move {
        loop {
            tick(REPORT_INTERVAL.min(process.generation().config.watch_interval)).await;
            tell(&process);
        }
    });
}

fn tell(process: &ProcessState) {
    let ProcessState { metrics, certificates, .. } = process;
    let status = certificates.status();
    metrics.set_certificate_reloads(status.reloads, status.reload_failures, status.failing);
    let status = process.secrets.status();
    metrics.set_credential_reloads(status.reloads, status.reload_failures, status.failing);
    let generation = process.generation();
    for watcher in [certificates, &process.secrets] {
        watcher.look_every(generation.config.watch_interval);
    }
    for listener in &generation.listeners {
        let own = listener.tls.as_ref().map(attache_tls::Acceptor::certificates).unwrap_or_default();
        expiry(metrics, CertificateSide::Listener, &listener.config.name, &own);
    }
    let mut insecure = Vec::new();
    for upstream in &generation.upstreams {
        let Some(tls) = &upstream.tls else { continue };
        let name = &upstream.shared().config.name;
        expiry(metrics, CertificateSide::Upstream, name, &tls.connector().certificates());
        if tls.connector().is_insecure() {
            insecure.push(name.clone());
        }
    }
    metrics.set_insecure_upstreams(insecure);
}

/// Of several certificates, the one that expires first counts.
fn expiry(metrics: &Metrics, side: CertificateSide, name: &Name, own: &[Arc<Certificate>]) {
    if let Some(first) = own.iter().map(|certificate| certificate.not_after).min() {
        metrics.set_certificate_expiry(side, name, first);
    }
}
