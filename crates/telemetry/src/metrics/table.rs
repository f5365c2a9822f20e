//! Every metric that attache has, each in one row: its kind, name and meaning, and where its values come from.
//!
//! A row that *counts* is a counter of its own. From its function come the method of [`WorkerMetrics`] that counts one
//! more (or `add`s an amount), its labels (the names of the parameters), its storage, and its place on the page. `from
//! zero` names series that stand as 0 before they count; without it a series begins with its first count
//! (see [`expected`](super::expected)).
//! A row that *reads* has its value from elsewhere: a cell that is written together with others, or a state.
//! `docs/metrics.md` is made from the rows, so it can't say what the page doesn't.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: one prefix, base units (seconds, bytes) at the end,
//! `_total` for what only rises. Metrics of the process have the names that every Prometheus client library gives them.

use std::sync::atomic::Ordering::Relaxed;

use attache_config::model::Name;

use super::{
    CertificateSide, HedgeEnd, IdentityCheckResult, MetricDescriptor, MetricKind, WorkerMetrics, cell,
    control::lock,
    expected::{OF_CONNECTIONS, OF_DNS, OF_OVERFLOW, OF_RETRIES, OF_TLS, words},
    page::{FamilySamples, counts, histograms, levels, number, numbers},
    scrape::{Scrape, durations, flag, only, outcomes, with_zeros},
    series::{Label, families},
};
use crate::Reason;

/// A metric, and how to read its series now.
pub(crate) struct MetricRow {
    pub(crate) what: MetricDescriptor,
    pub(super) read: fn(&Scrape<'_>) -> FamilySamples,
}

/// The number of names.
macro_rules! how_many {
    ($($name:ident)*) => {{
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        NAMES.len()
    }};
}

macro_rules! one_or {
    () => {
        1
    };
    ($amount:ident) => {
        $amount
    };
}

macro_rules! metrics {
    ($(
        $kind:ident $name:literal $help:literal
        $(read [$($label:ident),*] |$now:ident| $read:block)?
        $(count $vis:vis fn $method:ident($($by:ident: $type:ty),*) $(add $amount:ident)?
            $(from zero |$of:ident| $zeros:expr)?)?;
    )+) => {
        families! { pub(super) Families, Tables {
            $($($method: how_many!($($by)*), 1;)?)+
        } }

        impl WorkerMetrics {
            $($(
                #[doc = $help]
                $vis fn $method(&self, $($by: $type,)* $($amount: u64)?) {
                    self.0.counters.$method.add([$(Label::from($by)),*], 0, one_or!($($amount)?));
                }
            )?)+

            /// Counts once in each row that counts.
            #[cfg(test)]
            pub(super) fn count_all(&self) {
                $($(self.0.counters.$method.add([$(Label::Word(stringify!($by))),*], 0, 1);)?)+
            }
        }

        /// All rows, in the order of the page.
        pub(crate) const ROWS: &[MetricRow] = &[$(MetricRow {
            what: MetricDescriptor {
                name: $name,
                kind: MetricKind::$kind,
                labels: &[$($(stringify!($label),)*)? $($(stringify!($by),)*)?],
                help: $help,
            },
            $(read: |$now| $read,)?
            $(read: |now| {
                let zeros = zeros!(now $($of $zeros)?);
                counts(&with_zeros(now.registry.counters.$method.sums(), zeros), 0)
            },)?
        },)+];
    };
}

macro_rules! zeros {
    ($now:ident) => {
        Vec::new()
    };
    ($now:ident $of:ident $zeros:expr) => {{
        let $of = &$now.expected;
        $zeros
    }};
}

metrics! {
    Counter "attache_requests_total"
        "Requests (and opaque connections) that ended."
        read [listener, route, upstream, protocol, code, reason] |now| { counts(&with_zeros(only(&now.exchanges, cell::COUNT), now.expected.requests()), 0) };
    Gauge "attache_requests_in_flight"
        "Requests (and opaque connections) that run now."
        read [listener, protocol] |now| { levels(&now.registry.shared.in_flight.sums(), 0) };
    Counter "attache_requests_abandoned_total"
        "Requests whose client ended its side after more than half a second without an answer. They continue, and are counted again when they end."
        read [listener, upstream] |now| { counts(&now.by_pair, cell::LEFT) };
    Histogram "attache_request_duration_seconds"
        "From the first byte of a request to the last byte of its response; for opaque connections from open to close."
        read [listener, route, upstream, protocol, code] |now| { histograms(&now.by_code, cell::TOTAL, &now.exemplars) };
    Histogram "attache_request_time_to_head_seconds"
        "From the first byte of a request to the head of the upstream's response, all attempts included. Only for requests with such a response."
        read [listener, route, upstream, protocol, code] |now| { durations(&now.by_code, cell::HEAD) };
    Histogram "attache_request_upstream_duration_seconds"
        "How long upstreams took until the head of a response: from a ready connection to the head, all attempts together."
        read [listener, upstream] |now| { durations(&now.by_pair, cell::UPSTREAM) };
    Histogram "attache_request_added_duration_seconds"
        "What attache added before the head of a response: routing, waiting for a permit, making a connection, the backoff between attempts."
        read [listener, upstream] |now| { durations(&now.by_pair, cell::ADDED) };
    Counter "attache_received_bytes_total"
        "Body bytes from clients, counted when the request ends."
        read [listener, route, upstream, protocol] |now| { counts(&now.by_route, cell::RECEIVED) };
    Counter "attache_sent_bytes_total"
        "Body bytes to clients, counted when the request ends."
        read [listener, route, upstream, protocol] |now| { counts(&now.by_route, cell::SENT) };
    Counter "attache_connections_opened_total"
        "Connections accepted from clients."
        read [listener] |now| { counts(&now.connections, cell::OPENED) };
    Gauge "attache_connections_active"
        "Connections from clients that are open now."
        read [listener] |now| { levels(&now.connections, cell::ACTIVE) };
    Counter "attache_connections_closed_total"
        "Connections from clients that ended; the reason is empty for an orderly end."
        count pub(super) fn connections_closed(listener: &Name, reason: Option<Reason>)
        from zero |of| of.listener_reasons();
    Counter "attache_upstream_attempts_total"
        "Attempts that were started, first ones included, counted when the request ends."
        read [upstream] |now| { counts(&now.by_upstream, cell::ATTEMPTS) };
    Counter "attache_upstream_retries_total"
        "Attempts after the first, by the reason why the attempt before failed."
        count pub fn retry(upstream: &Name, reason: Reason)
        from zero |of| of.upstream_reasons(OF_RETRIES, &[]);
    Gauge "attache_upstream_retries_active"
        "Requests that are being retried or hedged now: the used part of the retry budget, updated every second. Only for upstreams with a route that retries."
        read [upstream] |now| { now.retry_budget(0) };
    Gauge "attache_upstream_retries_limit"
        "How many retries and hedges the budget allows at the present load: `budget` of the running requests, or `max_retries` if the budget is 0. It does not include what `budget_floor` allows. If routes have different budgets, the largest one."
        read [upstream] |now| { now.retry_budget(1) };
    Counter "attache_upstream_hedges_total"
        "Hedges (second attempts while the first one is slow): won, lost (the other attempt answered first, or all failed), or refused by the retry budget."
        count pub fn hedge(upstream: &Name, outcome: HedgeEnd);
    Counter "attache_upstream_connections_opened_total"
        "Connections made to endpoints, TLS handshake included."
        read [upstream] |now| { counts(&now.upstream_connections, cell::OPENED) };
    Gauge "attache_upstream_connections_active"
        "Connections to endpoints that are open now, idle ones included."
        read [upstream] |now| { levels(&now.upstream_connections, cell::ACTIVE) };
    Counter "attache_upstream_connection_failures_total"
        "Connections to endpoints that could not be made."
        count pub(super) fn upstream_connection_failed(upstream: &Name, reason: Reason)
        from zero |of| of.upstream_reasons(OF_CONNECTIONS, OF_TLS);
    Histogram "attache_upstream_connect_duration_seconds"
        "How long it took to open connections to endpoints. Step is tcp (also for Unix sockets) or tls (the handshake)."
        read [upstream, step] |now| { durations(&now.registry.shared.connects.sums(), 0) };
    Counter "attache_upstream_pool_reused_total"
        "Attempts that were sent on a connection that was already open."
        count pub fn pool_reused(upstream: &Name);
    Counter "attache_upstream_overflow_total"
        "Calls that a limit refused: circuit breaker, retry budget, rate limit."
        count pub fn overflow(upstream: &Name, reason: Reason)
        from zero |of| of.upstream_reasons(OF_OVERFLOW, &[]);
    Counter "attache_upstream_ejections_total"
        "Ejections of endpoints, by the reason of the failure that caused them."
        count pub fn ejected(upstream: &Name, reason: Reason)
        from zero |of| of.upstream_reasons(OF_RETRIES, &[]);
    Gauge "attache_upstream_endpoints"
        "Endpoints now: healthy, unhealthy (fail their health check), ejected, unreachable (no connection to it can be made) or circuit-open (also while it is half-open). Each counts once."
        read [upstream, state] |now| { now.endpoint_states() };
    Gauge "attache_upstream_circuit_state"
        "1 for the state that the failure breaker of the upstream is in (closed, open, half-open), 0 for the others. Only for upstreams with this breaker."
        read [upstream, state] |now| { now.circuit_states() };
    Counter "attache_upstream_transitions_total"
        "Changes of state: circuit (open, half-open, closed) of the upstream; endpoint-circuit (the same), ejection (ejected, back), health (healthy, unhealthy) and connection (unreachable, back) of its endpoints."
        count pub(super) fn transitions(upstream: &Name, what: &'static str, to: &'static str)
        from zero |of| of.transitions();
    Gauge "attache_upstream_concurrency_limit"
        "Calls that may run at the same time, if adaptive concurrency or a queue is on; updated every second."
        read [upstream] |now| { now.admission(|counts| Some(f64::from(counts.limit))) };
    Gauge "attache_upstream_concurrency"
        "Calls that run under that limit."
        read [upstream] |now| { now.admission(|counts| Some(f64::from(counts.running))) };
    Gauge "attache_upstream_queue_waiting"
        "Calls that wait in the upstream's queue."
        read [upstream] |now| { now.admission(|counts| Some(f64::from(counts.waiting))) };
    Gauge "attache_upstream_min_round_trip_time_seconds"
        "Latency without load as adaptive concurrency measured it last."
        read [upstream] |now| { now.admission(|counts| Some(counts.min_rtt?.as_secs_f64())) };
    Counter "attache_rate_limit_service_total"
        "Answers of rate limit services: ok, over-limit, or error (no answer in time, or an invalid one). The upstream is the service."
        count pub fn rate_limit_service(upstream: &Name, outcome: &'static str);
    Counter "attache_mirrored_requests_total"
        "Copies of requests that ended: ok (with any answer), or the reason of the failure."
        count pub fn mirrored(upstream: &Name, outcome: Result<(), Reason>);
    Counter "attache_subset_fallbacks_total"
        "Attempts that went to any endpoint of the upstream, because none has the labels that the route asks for (`subset` with `fallback: any`). Without the fallback such requests are counted with the reason empty-subset."
        count pub fn subset_fallback(upstream: &Name, route: Option<&Name>);
    Counter "attache_authorization_total"
        "Decisions of access rules (`authorization`): allowed, denied, or would-deny in a dry run. The route is empty for the rules of a listener, and the rule if none decided."
        count pub fn authorized(listener: &Name, route: Option<&Name>, rule: Option<&Name>, outcome: &'static str);
    Counter "attache_authorizer_total"
        "Requests to authorizers (`authorizers`): allowed, denied, failed (the request was refused), or failed-open (the request was allowed)."
        count pub fn authorizer(authorizer: &Name, outcome: &'static str);
    Counter "attache_cors_requests_total"
        "Requests with an `Origin` on routes with `cors`: allowed or foreign, and the preflights among them preflight-allowed or preflight-foreign."
        count pub fn cors(listener: &Name, route: &Name, outcome: &'static str);
    Counter "attache_dropped_headers_total"
        "Header fields of requests that were removed because of their names (`http.header_names`)."
        count pub fn dropped_headers(listener: &Name) add count;
    Counter "attache_compressed_responses_total"
        "Responses that were compressed (`compression`)."
        count pub fn compressed(listener: &Name, route: &Name, coding: &'static str);
    Counter "attache_jwt_keys_total"
        "Key sets of issuers of tokens (`jwt`) that were read or requested: ok, or failed while the last good one stayed in use."
        count pub fn jwt_keys(issuer: &Name, outcome: &'static str);
    Counter "attache_dns_lookups_total"
        "Look-ups of upstreams' names: ok, or the reason of the failure."
        count pub fn dns_lookup(upstream: &Name, outcome: Result<(), Reason>)
        from zero |of| of.upstreams(OF_DNS);
    Counter "attache_endpoint_slices_requests_total"
        "Lists and watches of EndpointSlices that Kubernetes' API server was asked for (`kubernetes://`): ok, or the reason of the failure."
        count pub fn endpoint_slices(upstream: &Name, outcome: Result<(), Reason>);
    Counter "attache_config_reloads_total"
        "Configs that were loaded, the first one included (ok), or refused while the last good one stayed in use (failed)."
        read [outcome] |now| { outcomes(&now.control().config_reloads) };
    Gauge "attache_config_last_reload_successful"
        "1 if the config that was read last is in use, 0 if it was refused."
        read [] |now| { number(Some(flag(now.loaded().is_some() && !now.control().last_reload_failed.load(Relaxed)))) };
    Gauge "attache_config_last_reload_success_timestamp_seconds"
        "When the running config was loaded, in seconds since the Unix epoch."
        read [] |now| { number(now.loaded()) };
    Gauge "attache_tls_certificate_expiry_timestamp_seconds"
        "When the certificate that attache presents there expires, in seconds since the Unix epoch. Side is listener or upstream."
        read [side, name] |now| { now.expiries() };
    Counter "attache_certificate_reloads_total"
        "Changed certificates, keys, roots and revocation lists: used (ok), or unusable while the last good ones stayed in use (failed)."
        read [outcome] |now| { outcomes(&now.control().certificate_reloads) };
    Gauge "attache_certificates_failing"
        "Listeners and upstreams whose TLS files can't be used now, so that older ones stay in use. The log has the error."
        read [] |now| { number(Some(now.control().certificates_failing.load(Relaxed) as f64)) };
    Counter "attache_tls_handshakes_total"
        "TLS handshakes that succeeded, with clients of a listener or endpoints of an upstream (side). Kind is full or resumed; the key exchange is empty where TLS 1.2 resumed. Those that failed are counted by reason in attache_connections_closed_total and attache_upstream_connection_failures_total."
        count pub fn tls_handshake(side: CertificateSide, name: &Name, version: &'static str, kind: &'static str, key_exchange: &'static str);
    Counter "attache_tls_clients_total"
        "Clients with a completed TLS handshake: allowed or denied by their verified identity, or anonymous (admitted without one)."
        count pub fn tls_client(listener: &Name, outcome: IdentityCheckResult);
    Counter "attache_credential_reloads_total"
        "Changed files of secrets (`credential`): used (ok), or unusable while the last good secret stayed in use (failed)."
        read [outcome] |now| { outcomes(&now.control().credential_reloads) };
    Gauge "attache_credentials_failing"
        "Secrets whose files can't be used now, so that an older one is sent, or there is none yet. The log has the error."
        read [] |now| { number(Some(now.control().credentials_failing.load(Relaxed) as f64)) };
    Gauge "attache_tls_insecure_upstreams"
        "1 for each upstream whose certificate is not verified (insecure_skip_verify): anyone can read and change its traffic."
        read [upstream] |now| { numbers(lock(&now.control().insecure).iter().map(|upstream| ([Name::clone(upstream)], 1.0))) };
    Counter "attache_access_log_dropped_total"
        "Access log lines that were lost: queue-full (the destination is too slow) or write-failed (the log has the error)."
        count pub(crate) fn access_log_dropped(cause: &'static str) add lines
        from zero |_config| words(&["queue-full", "write-failed"]);
    Counter "attache_trace_spans_exported_total"
        "Spans that the collector accepted."
        count pub(crate) fn spans_exported() add spans
        from zero |_config| vec![[]];
    Counter "attache_otlp_log_records_total"
        "Log records for a collector: exported, or lost by queue-full, export-failed or rejected."
        count pub(crate) fn log_records(outcome: &'static str) add records;
    Counter "attache_otlp_metric_exports_total"
        "Exports of metrics to a collector: ok, rejected (in part), or failed. The values of a failed export are sent with the next one."
        count pub(crate) fn metric_export(outcome: &'static str);
    Counter "attache_trace_spans_dropped_total"
        "Spans that were lost: queue-full (the export is slower than the traffic), export-failed (the log has the error) or rejected by the collector."
        count pub(crate) fn spans_dropped(cause: &'static str) add spans
        from zero |_config| words(&["export-failed", "queue-full", "rejected"]);
    Counter "attache_panics_total"
        "Bugs that ended one request and were caught. Please report them with the log's lines."
        count pub fn panic_caught()
        from zero |_config| vec![[]];
    Gauge "attache_overload_pressure"
        "Share in use of the process's limits: memory (of the container's limit), memory-stall (share of time in which all its processes waited for memory), file-descriptors (of ulimit -n)."
        read [resource] |now| { numbers(now.overload.pressure.iter().map(|(resource, share)| ([Name::from(*resource)], *share))) };
    Gauge "attache_overload_action_active"
        "1 while overload protection does this: disable-keepalive, shed-requests, stop-accepting."
        read [action] |now| { numbers(now.overload.actions.iter().map(|(action, on)| ([Name::from(*action)], flag(*on)))) };
    Counter "attache_cpu_throttled_seconds_total"
        "How long the container's CPU quota stopped threads, all processes of the container together. If it rises, latencies rise too."
        read [] |now| { number(now.process.throttled_seconds) };
    Gauge "attache_build_info"
        "Always 1; the label is the version."
        read [version] |_now| { numbers([([Name::from(env!("CARGO_PKG_VERSION"))], 1.0)]) };
    Counter "process_cpu_seconds_total"
        "User and system CPU time, in seconds."
        read [] |now| { number(now.process.cpu_seconds) };
    Gauge "process_resident_memory_bytes"
        "Resident memory, in bytes."
        read [] |now| { number(now.process.resident_bytes) };
    Gauge "process_open_fds"
        "Open file descriptors."
        read [] |now| { number(now.process.open_fds) };
    Gauge "process_max_fds"
        "The soft limit of open file descriptors."
        read [] |now| { number(now.process.max_fds) };
    Gauge "process_threads"
        "Threads of the process."
        read [] |now| { number(now.process.threads) };
    Gauge "process_start_time_seconds"
        "When the process started, in seconds since the Unix epoch."
        read [] |now| { number(now.process.start_seconds) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for MetricDescriptor { name, kind, help, .. } in ROWS.iter().map(|row| &row.what) {
            assert!(name.starts_with("attache_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert_eq!(
                name.ends_with("_seconds"),
                *kind == MetricKind::Histogram
                    || name.ends_with("time_seconds")
                    || name.contains("timestamp"),
                "{name}"
            );
            assert!(help.ends_with('.'), "{name}");
        }
        let mut names: Vec<_> = ROWS.iter().map(|row| row.what.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
