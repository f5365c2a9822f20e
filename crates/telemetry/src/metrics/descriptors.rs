//! Every metric that attache has: its name, type, labels and meaning. The exposition and `docs/metrics.md` are made
//! from this list, so neither can say what the other doesn't.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: one prefix, base units (seconds, bytes), `_total`
//! for what only rises. Metrics of the process have the names that every Prometheus client library gives them.

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only rises, until the process restarts.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

macro_rules! descriptors {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(crate) const $id: Descriptor =
            Descriptor { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)+
        /// All of them, in the order of the page.
        pub(crate) const ALL: &[&Descriptor] = &[$(&$id),+];
    };
}

descriptors! {
    REQUESTS = Counter "attache_requests_total" ["listener", "route", "upstream", "protocol", "code", "reason"]
        "Requests (and opaque connections) that ended.";
    IN_FLIGHT = Gauge "attache_requests_in_flight" ["listener", "protocol"]
        "Requests (and opaque connections) that run now.";
    DURATION = Histogram "attache_request_duration_seconds" ["listener", "route", "upstream", "protocol", "code"]
        "From the first byte of a request to the last byte of its response; for opaque connections from open to close.";
    TIME_TO_HEAD = Histogram "attache_request_time_to_head_seconds" ["listener", "route", "upstream", "protocol", "code"]
        "From the first byte of a request to the head of the upstream's response, all attempts included. Only for requests with such a response.";
    UPSTREAM_DURATION = Histogram "attache_request_upstream_duration_seconds" ["listener", "upstream"]
        "How long upstreams took until the head of a response: from a ready connection to the head, all attempts together.";
    ADDED_DURATION = Histogram "attache_request_added_duration_seconds" ["listener", "upstream"]
        "What attache added before the head of a response: routing, waiting for a permit, making a connection, the backoff between attempts.";
    RECEIVED = Counter "attache_received_bytes_total" ["listener", "route", "upstream", "protocol"]
        "Body bytes from clients, counted when the request ends.";
    SENT = Counter "attache_sent_bytes_total" ["listener", "route", "upstream", "protocol"]
        "Body bytes to clients, counted when the request ends.";
    CONNECTIONS_OPENED = Counter "attache_connections_opened_total" ["listener"]
        "Connections accepted from clients.";
    CONNECTIONS_ACTIVE = Gauge "attache_connections_active" ["listener"]
        "Connections from clients that are open now.";
    CONNECTIONS_CLOSED = Counter "attache_connections_closed_total" ["listener", "reason"]
        "Connections from clients that ended; the reason is empty for an orderly end.";
    UPSTREAM_ATTEMPTS = Counter "attache_upstream_attempts_total" ["upstream"]
        "Attempts that were started, first ones included, counted when the request ends.";
    UPSTREAM_RETRIES = Counter "attache_upstream_retries_total" ["upstream", "reason"]
        "Attempts after the first, by the reason why the attempt before failed.";
    UPSTREAM_RETRIES_ACTIVE = Gauge "attache_upstream_retries_active" ["upstream"]
        "Requests that are being retried or hedged: what is used of the retry budget, as of the last second. Only where a route to the upstream retries.";
    UPSTREAM_RETRIES_LIMIT = Gauge "attache_upstream_retries_limit" ["upstream"]
        "How many may be at the present load: `budget` of the requests that run, or `max_retries` where the budget is 0. What `budget_floor` admits beyond it is not counted in. Where routes differ, the most generous budget.";
    UPSTREAM_HEDGES = Counter "attache_upstream_hedges_total" ["upstream", "outcome"]
        "Hedges (second attempts beside one that is slow): won, lost (the other attempt answered first, or all failed), or refused by the retry budget.";
    UPSTREAM_CONNECTIONS_OPENED = Counter "attache_upstream_connections_opened_total" ["upstream"]
        "Connections made to endpoints, TLS handshake included.";
    UPSTREAM_CONNECTIONS_ACTIVE = Gauge "attache_upstream_connections_active" ["upstream"]
        "Connections to endpoints that are open now, idle ones included.";
    UPSTREAM_CONNECTION_FAILURES = Counter "attache_upstream_connection_failures_total" ["upstream", "reason"]
        "Connections to endpoints that could not be made.";
    UPSTREAM_CONNECT = Histogram "attache_upstream_connect_duration_seconds" ["upstream", "step"]
        "How long connections to endpoints took to be made. Step is tcp (also for Unix sockets) or tls (the handshake).";
    UPSTREAM_POOL_REUSED = Counter "attache_upstream_pool_reused_total" ["upstream"]
        "Attempts that went out on a connection that was open already.";
    UPSTREAM_OVERFLOW = Counter "attache_upstream_overflow_total" ["upstream", "reason"]
        "Calls that a limit refused: circuit breaker, retry budget, rate limit.";
    UPSTREAM_EJECTIONS = Counter "attache_upstream_ejections_total" ["upstream", "reason"]
        "Endpoints that were ejected as outliers, by the reason of the failure that did it.";
    UPSTREAM_ENDPOINTS = Gauge "attache_upstream_endpoints" ["upstream", "state"]
        "Endpoints now: healthy, unhealthy (fail their health check), ejected, unreachable (no connection to it can be made) or circuit-open (also while it is half-open). Each counts once.";
    UPSTREAM_CIRCUIT = Gauge "attache_upstream_circuit_state" ["upstream", "state"]
        "1 for the state that the failure breaker of the upstream is in (closed, open, half-open), 0 for the others. Only where it is on.";
    UPSTREAM_TRANSITIONS = Counter "attache_upstream_transitions_total" ["upstream", "what", "to"]
        "Changes of state: circuit (open, half-open, closed) of the upstream; endpoint-circuit (the same), ejection (ejected, back), health (healthy, unhealthy) and connection (unreachable, back) of its endpoints.";
    UPSTREAM_CONCURRENCY_LIMIT = Gauge "attache_upstream_concurrency_limit" ["upstream"]
        "Calls that may run at the same time, if adaptive concurrency or a queue is on; updated every second.";
    UPSTREAM_CONCURRENCY = Gauge "attache_upstream_concurrency" ["upstream"]
        "Calls that run under that limit.";
    UPSTREAM_QUEUE = Gauge "attache_upstream_queue_waiting" ["upstream"]
        "Calls that wait in the upstream's queue.";
    UPSTREAM_MIN_RTT = Gauge "attache_upstream_min_round_trip_time_seconds" ["upstream"]
        "Latency without load as adaptive concurrency measured it last.";
    RATE_LIMIT_SERVICE = Counter "attache_rate_limit_service_total" ["upstream", "outcome"]
        "Answers of rate limit services: ok, over-limit, or error (no answer in time, or an invalid one). The upstream is the service.";
    MIRRORED = Counter "attache_mirrored_requests_total" ["upstream", "outcome"]
        "Copies of requests that ended: ok (with any answer), or the reason of the failure.";
    SUBSET_FALLBACKS = Counter "attache_subset_fallbacks_total" ["upstream", "route"]
        "Attempts that went to any endpoint of the upstream, because none has the labels that the route asks for (`subset` with `fallback: any`). Without the fallback such requests are counted with the reason empty-subset.";
    AUTHORIZATION = Counter "attache_authorization_total" ["listener", "route", "rule", "outcome"]
        "Decisions of access rules (`authorization`): allowed, denied, or would-deny in a dry run. The route is empty for the rules of a listener, and the rule if none decided.";
    AUTHORIZER = Counter "attache_authorizer_total" ["authorizer", "outcome"]
        "Requests to authorizers (`authorizers`): allowed, denied, failed (the request was refused), or failed-open (the request was allowed).";
    CORS = Counter "attache_cors_requests_total" ["listener", "route", "outcome"]
        "Requests with an `Origin` on routes with `cors`: allowed or foreign, and the preflights among them preflight-allowed or preflight-foreign.";
    COMPRESSED = Counter "attache_compressed_responses_total" ["listener", "route", "coding"]
        "Responses that were compressed (`compression`).";
    JWT_KEYS = Counter "attache_jwt_keys_total" ["issuer", "outcome"]
        "Key sets of issuers of tokens (`jwt`) that were read or requested: ok, or failed while the last good one stayed in use.";
    DNS_LOOKUPS = Counter "attache_dns_lookups_total" ["upstream", "outcome"]
        "Look-ups of upstreams' names: ok, or the reason of the failure.";
    ENDPOINT_SLICES = Counter "attache_endpoint_slices_requests_total" ["upstream", "outcome"]
        "Lists and watches of EndpointSlices that Kubernetes' API server was asked for (`kubernetes://`): ok, or the reason of the failure.";
    CONFIG_RELOADS = Counter "attache_config_reloads_total" ["outcome"]
        "Configs that were loaded, the first one included (ok), or refused while the last good one stayed in use (failed).";
    CONFIG_LAST_RELOAD_OK = Gauge "attache_config_last_reload_successful" []
        "1 if the file that was looked at last is the one that is served, 0 if it was refused.";
    CONFIG_LAST_LOADED = Gauge "attache_config_last_reload_success_timestamp_seconds" []
        "When the running config was loaded, in seconds since the Unix epoch.";
    CERTIFICATE_EXPIRY = Gauge "attache_tls_certificate_expiry_timestamp_seconds" ["side", "name"]
        "When the certificate that attache shows there expires, in seconds since the Unix epoch. Side is listener or upstream.";
    CERTIFICATE_RELOADS = Counter "attache_certificate_reloads_total" ["outcome"]
        "Changed certificates, keys, roots and revocation lists: used (ok), or unusable while the last good ones stayed in use (failed).";
    CERTIFICATES_FAILING = Gauge "attache_certificates_failing" []
        "Listeners and upstreams whose TLS files can't be used now, so that older ones stay in use. The log has the error.";
    TLS_HANDSHAKES = Counter "attache_tls_handshakes_total" ["side", "name", "version", "kind", "key_exchange"]
        "TLS handshakes that succeeded, with clients of a listener or endpoints of an upstream (side). Kind is full or resumed; the key exchange is empty where TLS 1.2 resumed. Those that failed are counted by reason in attache_connections_closed_total and attache_upstream_connection_failures_total.";
    TLS_CLIENTS = Counter "attache_tls_clients_total" ["listener", "outcome"]
        "Clients with a completed TLS handshake: allowed or denied by their verified identity, or anonymous (admitted without one).";
    CREDENTIAL_RELOADS = Counter "attache_credential_reloads_total" ["outcome"]
        "Changed files of secrets (`credential`): used (ok), or unusable while the last good secret stayed in use (failed).";
    CREDENTIALS_FAILING = Gauge "attache_credentials_failing" []
        "Secrets whose files can't be used now, so that an older one is sent, or there is none yet. The log has the error.";
    TLS_INSECURE = Gauge "attache_tls_insecure_upstreams" ["upstream"]
        "1 for each upstream whose certificate is not verified (insecure_skip_verify): anyone can read and change its traffic.";
    LOG_DROPPED = Counter "attache_access_log_dropped_total" ["cause"]
        "Access log lines that were lost: queue-full (the destination is too slow) or write-failed (the log has the error).";
    SPANS_EXPORTED = Counter "attache_trace_spans_exported_total" []
        "Spans that the collector accepted.";
    LOG_RECORDS = Counter "attache_otlp_log_records_total" ["outcome"]
        "Log records for a collector: exported, or lost by queue-full, export-failed or rejected.";
    METRIC_EXPORTS = Counter "attache_otlp_metric_exports_total" ["outcome"]
        "Exports of metrics to a collector: ok, rejected (in part), or failed. The values of a failed export are sent with the next one.";
    SPANS_DROPPED = Counter "attache_trace_spans_dropped_total" ["cause"]
        "Spans that were lost: queue-full (more than the export keeps up with), export-failed (the log has the error) or rejected by the collector.";
    PANICS = Counter "attache_panics_total" []
        "Bugs that ended one request and were caught. Please report them with the log's lines.";
    OVERLOAD_PRESSURE = Gauge "attache_overload_pressure" ["resource"]
        "Share in use of the process's limits: memory (of the container's limit), memory-stall (time that all of it waited for memory), file-descriptors (of ulimit -n).";
    OVERLOAD_ACTIVE = Gauge "attache_overload_action_active" ["action"]
        "1 while overload protection does this: disable-keepalive, shed-requests, stop-accepting.";
    THROTTLED = Counter "attache_cpu_throttled_seconds_total" []
        "How long the container's CPU quota stopped threads, all processes of the container together. If it rises, latencies rise too.";
    BUILD_INFO = Gauge "attache_build_info" ["version"]
        "Always 1; the label is the version.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "User and system CPU time, in seconds.";
    PROCESS_RSS = Gauge "process_resident_memory_bytes" []
        "Resident memory, in bytes.";
    PROCESS_FDS = Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "The soft limit of open file descriptors.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Threads of the process.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "When the process started, in seconds since the Unix epoch.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for Descriptor { name, kind, help, .. } in ALL {
            assert!(name.starts_with("attache_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(
                name.ends_with("_seconds"),
                *kind == Kind::Histogram || name.ends_with("time_seconds") || name.contains("timestamp"),
                "{name}"
            );
            assert!(help.ends_with('.'), "{name}");
        }
        let mut names: Vec<_> = ALL.iter().map(|d| d.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
