//! The pages of the admin API about a generation: its config together with its present state.
//!
//! Everything is read from atomics and snapshots. Times are in seconds before or after now.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{PoisonError, Weak, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use attache_config::model::Retry;
use attache_resilience::{UpstreamState, queue::UpstreamPermits};
use attache_telemetry::Reason;
use attache_tls::Certificate;
use attache_upstream::{Endpoint, SharedUpstream, circuit::CircuitStatus, discovery::LookupStatus};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    generation::{Generation, UpstreamParts},
    process::ProcessState,
    reloads::{ReloadReport, Reloads},
};

pub(super) fn upstreams(generation: &Generation) -> Value {
    generation
        .upstreams
        .iter()
        .zip(generation.retries())
        .map(|(parts, retry)| upstream(parts, retry))
        .collect()
}

fn upstream(parts: &UpstreamParts, retry: Option<&Retry>) -> Value {
    let shared = parts.shared();
    let mut value = json!({
        "name": &*shared.config.name,
        "kind": if parts.is_on_demand() { "on-demand" } else { "configured" },
        "protocol": shared.config.protocol,
        "tls": parts.tls.is_some(),
        "insecure": parts.tls.as_ref().is_some_and(|tls| tls.connector().is_insecure()),
    });
    let now = Instant::now();
    let Some(object) = value.as_object_mut() else { return value };
    if parts.is_on_demand() {
        let hosts = parts.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts = hosts.values().filter_map(Weak::upgrade);
        let hosts: Vec<_> = hosts.map(|state| of_state(&state, retry, now)).collect();
        object.insert("hosts".into(), hosts.into());
    } else if let Value::Object(state) = of_state(&parts.resilience, retry, now) {
        object.extend(state);
    }
    value
}

fn of_state(state: &UpstreamState, retry: Option<&Retry>, now: Instant) -> Value {
    let shared: &SharedUpstream = &state.shared;
    let set = shared.endpoints.load();
    let limits = &shared.config.circuit_breaker;
    let used = |used: u32, limit: u32| json!({ "used": used, "limit": limit });
    let (connections, active) = (shared.connections.load(Relaxed), shared.active_requests.load(Relaxed));
    let counters = &state.counters;
    json!({
        "usable": set.usable(),
        "no_endpoint_because": set.failure.map(Reason::as_str),
        "endpoints": set.endpoints.iter().map(|endpoint| of_endpoint(endpoint, now)).collect::<Vec<_>>(),
        "limits": {
            "requests": used(active, limits.max_requests),
            "connections": used(connections, limits.max_connections),
            "pending": used(shared.pending.load(Relaxed), limits.max_pending),
        },
        "pool": {
            "connections": connections,
            // With HTTP/1 this is the number of connections that are kept for reuse. With HTTP/2 one connection carries many requests, so
            // there may be more.
            "idle_at_least": connections.saturating_sub(active),
        },
        "retries": {
            "running": shared.retries.load(Relaxed),
            "budget": retry.map(|retry| retry.budget),
            "allowed_now": retry.map(|retry| state.retry_budget(retry).limit),
            "floor_per_second": retry.map(|retry| retry.budget_floor),
            "begun": counters.retries.load(Relaxed),
            "succeeded": counters.retries_succeeded.load(Relaxed),
            "refused_by_budget": counters.budget_exhausted.load(Relaxed),
        },
        "breaker": breaker(state.breaker.as_ref().map(|circuit| circuit.status(now)).as_ref(), counters.circuit_open.load(Relaxed)),
        "admission": state.gate.as_deref().map(admission),
        "timeouts": {
            "request": counters.request_timeouts.load(Relaxed),
            "per_try": counters.per_try_timeouts.load(Relaxed),
            "idle": counters.idle_timeouts.load(Relaxed),
        },
        "dns": shared.lookups.all().iter().map(|status| lookup(status, now)).collect::<Vec<_>>(),
    })
}

/// An adaptive limit and a queue.
fn admission(gate: &UpstreamPermits) -> Value {
    let now = gate.reading();
    let ms = |time: Duration| time.as_micros() as f64 / 1000.0;
    json!({
        "limit": now.limit,
        "running": now.running,
        "waiting": now.waiting,
        "refused": now.refused,
        "shed": now.shed,
        "adaptive": now.adaptive.map(|adaptive| json!({
            "limit": adaptive.limit,
            "measuring": adaptive.measuring,
            "min_rtt_ms": adaptive.min_rtt.map(ms),
            "sample_rtt_ms": adaptive.sample_rtt.map(ms),
        })),
    })
}

fn breaker(circuit: Option<&CircuitStatus>, refused: u64) -> Value {
    let Some(circuit) = circuit else { return json!({ "state": "off" }) };
    json!({
        "state": circuit.state,
        "for_seconds": seconds(circuit.standing.age),
        "because": circuit.standing.why.as_deref(),
        "half_opens_in_seconds": circuit.remaining.map(seconds),
        "opened": circuit.opened,
        "failures_in_a_row": circuit.consecutive,
        "window": { "calls": circuit.window.0, "failed": circuit.window.1 },
        "refused": refused,
    })
}

fn of_endpoint(endpoint: &Endpoint, now: Instant) -> Value {
    let status = endpoint.status(now);
    let passive = &endpoint.passive;
    json!({
        "address": &*status.address,
        "host": status.host.as_deref(),
        "zone": status.zone.as_deref(),
        "weight": status.weight,
        "priority": status.priority,
        "state": status.state.as_str(),
        "state_for_seconds": seconds(status.standing.age),
        "state_because": status.standing.why.as_deref(),
        "active_requests": status.active_requests,
        "latency_ms": status.latency.map(|latency| latency.as_micros() as f64 / 1000.0),
        "age_seconds": status.age.as_secs(),
        "ejection": {
            "ejected": status.ejection.ejected,
            "back_in_seconds": status.ejection.remaining.map(seconds),
            "ejections": status.ejection.ejections,
            "failures_in_a_row": status.ejection.consecutive_5xx,
            "local_failures_in_a_row": status.ejection.consecutive_local,
        },
        "breaker": breaker(status.circuit.as_ref(), 0),
        "failures": passive.failures(),
        "last_failure": passive.last_failure().map(|(reason, at)| json!({
            "reason": reason.as_str(),
            "ago_seconds": status.age.saturating_sub(at).as_secs(),
        })),
        "health_check": {
            "healthy": status.health.healthy,
            "passed": status.health.passed,
            "failed": status.health.failed,
            "last_error": status.health.last_failure.as_deref(),
        },
    })
}

fn lookup(status: &LookupStatus, now: Instant) -> Value {
    json!({
        "name": status.name,
        "addresses": status.answers,
        "asked_ago_seconds": seconds(now.saturating_duration_since(status.at)),
        "answered_ago_seconds": status.answered.map(|at| seconds(now.saturating_duration_since(at))),
        "next_in_seconds": seconds(status.next.saturating_duration_since(now)),
        "failure": status.failure.as_ref().map(|(reason, detail)| json!({
            "reason": reason.as_str(),
            "detail": detail,
            "what_to_do": reason.what_to_do(),
        })),
    })
}

/// Rounds to tenths of a second, which is fine enough for people.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

pub(super) fn listeners(generation: &Generation, draining: bool) -> Value {
    let listener = |parts: &crate::generation::ListenerParts| {
        let config = &parts.config;
        json!({
            "name": &*config.name,
            "bind": config.bind.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "protocol": config.protocol,
            "tls": parts.tls.is_some(),
            "transparent": config.transparent,
            "routes": config.routes.len(),
            "connections": { "open": parts.connections.open(), "limit": config.max_connections },
            "draining": draining,
        })
    };
    generation.listeners.iter().map(listener).collect()
}

/// The routes of the effective config, by listener.
pub(super) fn routes(generation: &Generation) -> Value {
    let mut config = generation.config.effective();
    let listeners = generation.config.listeners.iter().map(|listener| {
        json!({
            "listener": &*listener.name,
            "routes": config["listeners"][&*listener.name]["routes"].take(),
        })
    });
    listeners.collect()
}

pub(super) fn certificates(generation: &Generation, watch: attache_tls::WatchStatus) -> Value {
    let now = SystemTime::now();
    let mut all = Vec::new();
    for listener in &generation.listeners {
        let own = listener.tls.as_ref().map(attache_tls::Acceptor::certificates).unwrap_or_default();
        all.extend(own.iter().map(|own| certificate("listener", &listener.config.name, own, now)));
    }
    for upstream in &generation.upstreams {
        let own = upstream.tls.as_ref().map(|tls| tls.connector().certificates()).unwrap_or_default();
        let name = &upstream.shared().config.name;
        all.extend(own.iter().map(|own| certificate("upstream", name, own, now)));
    }
    json!({
        "certificates": all,
        "reloads": watch.reloads,
        "failed_reloads": watch.reload_failures,
        "serving_an_older_state": watch.failing,
    })
}

fn certificate(side: &str, name: &str, certificate: &Certificate, now: SystemTime) -> Value {
    let unix = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let names = certificate.uris.iter().chain(&certificate.dns).map(ToString::to_string);
    let names: Vec<_> = names.chain(certificate.ips.iter().map(ToString::to_string)).collect();
    let hash = certificate.sha256.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    });
    json!({
        "side": side,
        "name": name,
        "subject": certificate.subject,
        "names": names,
        "spiffe_id": certificate.uris.iter().find(|uri| uri.starts_with("spiffe://")).map(ToString::to_string),
        "issuer": certificate.issuer,
        "file": certificate.file.as_ref().map(|file| file.display().to_string()),
        "not_before_unix": unix(certificate.not_before),
        "not_after_unix": unix(certificate.not_after),
        "expires_in_seconds": certificate.remaining(now).as_secs(),
        "sha256": hash,
    })
}

/// What works with an older state or loses something, and why. As long as this lasts, it is shown before the good news.
pub(super) fn degraded(process: &ProcessState) -> Vec<String> {
    let generation = process.generation();
    let mut all: Vec<_> = process.refusals().into_iter().collect();
    let followed = [("certificate files", &process.certificates), ("the file of a secret", &process.secrets)];
    for (what, watcher) in followed {
        // Several upstreams may use the same file.
        for why in watcher.failing().into_iter().collect::<BTreeSet<_>>() {
            all.push(format!("{what} can't be used, and the last good state stays in use: {why}"));
        }
    }
    for issuer in &generation.issuers {
        if let Some(why) = issuer.keys.failure() {
            let serves = crate::issuers::what_serves(issuer);
            all.push(format!("`jwt` {}: its keys can't be loaded ({why}): {serves}", issuer.config.name));
        }
    }
    if let Some(why) = generation.access_log.failure() {
        all.push(format!(
            "the access log can't be written ({why}): its lines are lost until this works again"
        ));
    }
    all
}

/// The newest first.
pub(super) fn reloads(reloads: &Reloads) -> Value {
    let one = |reload: &crate::reloads::TriedReload| {
        let (report, error) = match &reload.result {
            Ok(report) => (Some(report), None),
            Err(why) => (None, Some(why.as_str())),
        };
        json!({
            "time": attache_telemetry::rfc3339(reload.at),
            "took_ms": reload.took.as_micros() as f64 / 1000.0,
            "trigger": reload.trigger.as_str(),
            "ok": reload.result.is_ok(),
            "generation": report.map(|report| report.generation),
            "changes": report.map(|report| &report.changes),
            "needs_restart": report.map(|report| &report.needs_restart),
            "diff": report.map(|report| &report.diff),
            "orphaned": report.map(|report| &report.orphaned),
            "error": error,
        })
    };
    reloads.list().iter().rev().map(one).collect()
}

/// What a reload did, one line for each change.
pub(super) fn report(report: &ReloadReport) -> String {
    let mut out = if report.changes.is_empty() {
        "the config has not changed\n".to_owned()
    } else {
        format!("generation {} serves\n", report.generation)
    };
    for line in report.changes.iter().chain(&report.needs_restart) {
        let _ = writeln!(out, "- {line}");
    }
    for line in &report.orphaned {
        let _ = writeln!(out, "- warning: {line}");
    }
    out
}
