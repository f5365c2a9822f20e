//! Gauges of endpoints, breakers, retry budgets and admission. Their values change without a reload.

use std::{sync::Arc, time::Duration};

use attache_telemetry::{AdmissionCounts, EndpointCounts};
use attache_upstream::status::EndpointState;

use crate::{process::ProcessState, ticks::tick};

/// How often the endpoints' states are counted for the metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps the endpoint gauges up to date: discovery, health checks and ejections all change them.
pub(super) async fn count_endpoints(process: Arc<ProcessState>) {
    loop {
        let generation = process.generation();
        for (upstream, retry) in generation.upstreams.iter().zip(generation.retries()) {
            let mut counts = EndpointCounts::default();
            let shared = upstream.shared();
            for endpoint in &shared.endpoints.load().endpoints {
                *match endpoint.state() {
                    EndpointState::Unhealthy => &mut counts.unhealthy,
                    EndpointState::Ejected => &mut counts.ejected,
                    EndpointState::Unreachable => &mut counts.unreachable,
                    EndpointState::CircuitOpen => &mut counts.circuit_open,
                    EndpointState::Healthy => &mut counts.healthy,
                } += 1;
            }
            process.metrics.set_endpoints(&shared.config.name, counts);
            let circuit = upstream.resilience.breaker.as_ref().map(|circuit| circuit.phase().as_str());
            process.metrics.set_circuit(&shared.config.name, circuit);
            let retry = retry.filter(|retry| retry.attempts > 0);
            let budget = retry.map(|retry| upstream.retry_budget(retry));
            let budget = budget.map(|budget| [budget.used, budget.limit]);
            process.metrics.set_retry_budget(&shared.config.name, budget);
            if let Some(gate) = &upstream.resilience.gate {
                let reading = gate.reading();
                let counts = AdmissionCounts {
                    limit: reading.limit,
                    running: reading.running,
                    waiting: reading.waiting,
                    min_rtt: reading.adaptive.and_then(|adaptive| adaptive.min_rtt),
                };
                process.metrics.set_admission(&shared.config.name, counts);
            }
        }
        tick(COUNT_INTERVAL).await;
    }
}
