//! Active health checks: attache learns of an unhealthy endpoint before a request fails there.
//!
//! **When.** Every `interval`, and up to 10 % later at random, so that many proxies don't probe at the same moment;
//! `unhealthy_interval` while the endpoint is unhealthy. A probe that takes longer than `timeout` failed.
//!
//! **Thresholds.** `unhealthy` failures in a row make an endpoint unhealthy, `healthy` successes in a row healthy. The first
//! probe of an endpoint decides alone. Until then a new endpoint is used: attache starts beside its application,
//! and would otherwise refuse its first calls (Envoy waits for the first probe).
//!
//! **What is asked.** HTTP: `GET path`, 200 to 299 passes. TCP: a connection, and a TLS handshake where there is TLS.
//! gRPC: `grpc.health.v1.Health/Check`, `SERVING` passes (grpc/doc/health-checking.md). Each probe makes its own
//! connection, with the upstream's TLS, PROXY protocol and source address, so that it also shows that new connections
//! work; Envoy reuses one.
//!
//! **Together with ejection**, one rule: an endpoint gets new requests while it is healthy *and* not ejected *and*
//! still named by discovery ([`Endpoint::usable`]). Neither overrides the other. If so many endpoints are out that the
//! usable share falls below `balance.panic_threshold`, the balancer uses all of them: then the checks are more likely
//! wrong than the endpoints. Each change is logged with its cause, and [`Endpoint::checks`] has the counts.
//!
//! **Source.** Envoy's `health_checks`.

mod checks;
mod probe;
mod verdict;

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use attache_config::model::HealthCheck;
use attache_telemetry::metrics;
use attache_tls::CredentialHeader;
pub use checks::CheckResults;
use probe::{HealthCheckFailure, Prober};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use verdict::EndpointHealth;

use crate::{Endpoint, SharedUpstream, connect::Tls};

/// How often the upstream's endpoints are compared with the running checks.
const MEMBERS: Duration = Duration::from_millis(500);

/// Checks an upstream's endpoints for as long as it is polled. One for each upstream, on the control thread; also for
/// upstreams without a check, so that no endpoint stays unhealthy after a reload removed the check (it returns at
/// once).
///
/// `tls` is the result of [`Tls::new`] for this upstream: probes show the same identity as calls, also after a change
/// of its files. `credential` is added to probes by HTTP and gRPC.
pub async fn run(shared: &SharedUpstream, tls: Option<&Tls>, credential: Option<&CredentialHeader>) {
    let Some(config) = &shared.config.health_check else {
        for endpoint in &shared.endpoints.load().endpoints {
            endpoint.set_healthy_because(true, "it is no longer checked");
        }
        return;
    };
    let prober = Arc::new(Prober::new(&shared.config, config, tls, credential));
    let mut tasks = JoinSet::new();
    let mut checked: Vec<(Arc<Endpoint>, AbortHandle)> = Vec::new();
    loop {
        let set = shared.endpoints.load_full();
        checked.retain(|(endpoint, task)| {
            let kept = set.endpoints.iter().any(|other| Arc::ptr_eq(other, endpoint));
            if !kept {
                task.abort();
            }
            kept
        });
        for endpoint in &set.endpoints {
            if checked.iter().any(|(other, _)| Arc::ptr_eq(other, endpoint)) {
                continue;
            }
            let (prober, asked) = (prober.clone(), endpoint.clone());
            let check = EndpointCheck {
                endpoint: endpoint.clone(),
                config: config.clone(),
                upstream: shared.config.name.clone(),
            };
            let task = tasks.spawn(async move {
                check
                    .repeat(|| {
                        let (prober, asked) = (prober.clone(), asked.clone());
                        async move { prober.probe(&asked).await }
                    })
                    .await;
            });
            checked.push((endpoint.clone(), task));
        }
        // Only aborted tasks have finished.
        while tasks.try_join_next().is_some() {}
        sleep(MEMBERS).await;
    }
}

/// The checks of one endpoint.
struct EndpointCheck {
    endpoint: Arc<Endpoint>,
    config: HealthCheck,
    upstream: attache_config::model::Name,
}

impl EndpointCheck {
    async fn repeat<F, T>(self, probe: F)
    where
        F: Fn() -> T,
        T: Future<Output = Result<(), HealthCheckFailure>>,
    {
        let mut verdict = EndpointHealth::new(
            self.endpoint.healthy.load(Relaxed),
            self.config.healthy,
            self.config.unhealthy,
        );
        // A short random wait: when many proxies restart they don't all probe at the same moment, and the first result
        // still comes soon.
        sleep(self.config.interval.mul_f64(0.1 * fastrand::f64())).await;
        loop {
            let limit = self.config.timeout;
            let outcome = match timeout(limit, probe()).await {
                Ok(outcome) => outcome,
                Err(_) => Err(HealthCheckFailure(format!("no answer within {limit:?}"))),
            };
            self.note(&mut verdict, outcome);
            let healthy = self.endpoint.healthy.load(Relaxed);
            let interval = if healthy { self.config.interval } else { self.config.unhealthy_interval };
            sleep(interval.mul_f64(1.0 + 0.1 * fastrand::f64())).await;
        }
    }

    fn note(&self, verdict: &mut EndpointHealth, outcome: Result<(), HealthCheckFailure>) {
        let checks = &self.endpoint.checks;
        let changed = verdict.note(outcome.is_ok());
        match outcome {
            Ok(()) => {
                checks.passed.fetch_add(1, Relaxed);
                checks.failure.store(None);
                if changed == Some(true) && self.endpoint.set_healthy_because(true, "its probes pass") {
                    let label = Some(&*self.endpoint.label);
                    metrics().transition(&self.upstream, label, "health", "healthy", "its probes pass");
                    tracing::info!(upstream = %self.upstream, endpoint = %self.endpoint.label, "endpoint healthy");
                }
            }
            Err(HealthCheckFailure(why)) => {
                checks.failed.fetch_add(1, Relaxed);
                if changed == Some(false) && self.endpoint.set_healthy_because(false, &why) {
                    metrics().transition(
                        &self.upstream,
                        Some(&self.endpoint.label),
                        "health",
                        "unhealthy",
                        &why,
                    );
                    tracing::warn!(upstream = %self.upstream, endpoint = %self.endpoint.label, why, "endpoint unhealthy");
                } else {
                    tracing::debug!(upstream = %self.upstream, endpoint = %self.endpoint.label, why, "probe failed");
                }
                checks.failure.store(Some(Arc::new(why)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
