//! Envoy's names: a cluster is an upstream; a connection manager and a listener's address are the listener's name.

use super::{EXACT, Families, PageSample, histogram};

pub(super) fn families(samples: &[PageSample<'_>], out: &mut Families) {
    let mut connections = 0.0;
    for sample in samples {
        let cluster = [("envoy_cluster_name", sample.label("upstream"))];
        let manager = [("envoy_http_conn_manager_prefix", sample.label("listener"))];
        let listener = [("envoy_listener_address", sample.label("listener"))];
        let tcp = [("envoy_tcp_prefix", sample.label("listener"))];
        let opaque = sample.label("protocol") == "tcp";
        let known = is_known(&cluster);
        let value = sample.value;
        match sample.name {
            "attache_requests_total" if sample.label("protocol") == "tcp" => {
                out.add("counter", "envoy_tcp_downstream_cx_total", &tcp, value);
            }
            "attache_requests_total" => {
                requests(sample, &cluster, &manager, out);
            }
            EXACT if known && !sample.label("code").is_empty() => {
                let labels = [cluster[0], ("envoy_response_code", sample.label("code"))];
                out.add("counter", "envoy_cluster_upstream_rq", &labels, value);
            }
            "attache_requests_in_flight" => {
                out.add("gauge", "envoy_http_downstream_rq_active", &manager, value);
            }
            "attache_connections_active" => {
                connections += value;
                out.add("gauge", "envoy_http_downstream_cx_active", &manager, value);
                out.add("gauge", "envoy_listener_downstream_cx_active", &listener, value);
            }
            "attache_connections_opened_total" => {
                out.add("counter", "envoy_http_downstream_cx_total", &manager, value);
                out.add("counter", "envoy_listener_downstream_cx_total", &listener, value);
            }
            "attache_connections_closed_total" => {
                out.add("counter", "envoy_http_downstream_cx_destroy", &manager, value);
                out.add("counter", "envoy_listener_downstream_cx_destroy", &listener, value);
            }
            "attache_received_bytes_total" => {
                if opaque {
                    out.add("counter", "envoy_tcp_downstream_cx_rx_bytes_total", &tcp, value);
                } else {
                    out.add("counter", "envoy_http_downstream_cx_rx_bytes_total", &manager, value);
                }
                if known {
                    out.add("counter", "envoy_cluster_upstream_cx_tx_bytes_total", &cluster, value);
                }
            }
            "attache_sent_bytes_total" => {
                if opaque {
                    out.add("counter", "envoy_tcp_downstream_cx_tx_bytes_total", &tcp, value);
                } else {
                    out.add("counter", "envoy_http_downstream_cx_tx_bytes_total", &manager, value);
                }
                if known {
                    out.add("counter", "envoy_cluster_upstream_cx_rx_bytes_total", &cluster, value);
                }
            }
            "attache_upstream_connections_active" => {
                out.add("gauge", "envoy_cluster_upstream_cx_active", &cluster, value);
            }
            "attache_upstream_connections_opened_total" => {
                out.add("counter", "envoy_cluster_upstream_cx_total", &cluster, value);
            }
            "attache_upstream_connection_failures_total" => {
                out.add("counter", "envoy_cluster_upstream_cx_connect_fail", &cluster, value);
                if sample.label("reason").ends_with("timeout") {
                    out.add("counter", "envoy_cluster_upstream_cx_connect_timeout", &cluster, value);
                }
            }
            "attache_upstream_retries_total" => {
                out.add("counter", "envoy_cluster_upstream_rq_retry", &cluster, value);
            }
            "attache_upstream_overflow_total" => {
                let name = match sample.label("reason") {
                    "retry-budget" | "retry-budget-exhausted" => "envoy_cluster_upstream_rq_retry_overflow",
                    _ => "envoy_cluster_upstream_rq_pending_overflow",
                };
                out.add("counter", name, &cluster, value);
            }
            "attache_upstream_ejections_total" => {
                out.add(
                    "counter",
                    "envoy_cluster_outlier_detection_ejections_enforced_total",
                    &cluster,
                    value,
                );
            }
            "attache_upstream_endpoints" => {
                endpoints(sample, &cluster, out);
            }
            "attache_tls_certificate_expiry_timestamp_seconds" if sample.label("side") == "listener" => {
                let name = sample.label("name");
                let labels = [("envoy_listener_address", name), ("envoy_tls_certificate", name)];
                let metric = "envoy_listener_ssl_certificate_expiration_unix_time_seconds";
                out.add("gauge", metric, &labels, value);
            }
            "process_resident_memory_bytes" | "attache_process_resident_memory_bytes" => {
                out.add("gauge", "envoy_server_memory_allocated", &[], value);
                out.add("gauge", "envoy_server_memory_heap_size", &[], value);
            }
            "process_start_time_seconds" | "attache_process_start_time_seconds" => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                let up = now.map_or(0.0, |now| (now.as_secs_f64() - value).max(0.0).floor());
                out.add("gauge", "envoy_server_uptime", &[], up);
            }
            name => {
                durations(name, sample, &cluster, &manager, out);
            }
        }
    }
    out.add("gauge", "envoy_server_live", &[], 1.0);
    out.add("gauge", "envoy_server_state", &[], 0.0);
    out.add("gauge", "envoy_server_total_connections", &[], connections);
}

/// The one label of Envoy's series.
type EnvoyLabel<'a> = [(&'static str, &'a str); 1];

/// The request reached an upstream.
fn is_known(cluster: &EnvoyLabel<'_>) -> bool {
    !cluster[0].1.is_empty()
}

fn requests(sample: &PageSample<'_>, cluster: &EnvoyLabel<'_>, manager: &EnvoyLabel<'_>, out: &mut Families) {
    let value = sample.value;
    let class = sample.label("code").get(..1).unwrap_or_default();
    let reason = sample.label("reason");
    out.add("counter", "envoy_http_downstream_rq_total", manager, value);
    if matches!(class, "1" | "2" | "3" | "4" | "5") {
        let class = ("envoy_response_code_class", class);
        out.add("counter", "envoy_http_downstream_rq_xx", &[manager[0], class], value);
        if is_known(cluster) {
            out.add("counter", "envoy_cluster_upstream_rq_xx", &[cluster[0], class], value);
            out.add("counter", "envoy_cluster_upstream_rq_completed", cluster, value);
        }
    }
    if is_known(cluster) {
        out.add("counter", "envoy_cluster_upstream_rq_total", cluster, value);
        if reason.ends_with("timeout") {
            out.add("counter", "envoy_cluster_upstream_rq_timeout", cluster, value);
        }
        if matches!(reason, "no-endpoint" | "no-healthy-endpoint") {
            out.add("counter", "envoy_cluster_upstream_cx_none_healthy", cluster, value);
        }
    }
    if reason == "no-route" {
        out.add("counter", "envoy_http_no_route", manager, value);
    }
}

fn endpoints(sample: &PageSample<'_>, cluster: &EnvoyLabel<'_>, out: &mut Families) {
    let value = sample.value;
    out.add("gauge", "envoy_cluster_membership_total", cluster, value);
    let healthy = if sample.label("state") == "healthy" { value } else { 0.0 };
    out.add("gauge", "envoy_cluster_membership_healthy", cluster, healthy);
    let ejected = if sample.label("state") == "ejected" { value } else { 0.0 };
    out.add("gauge", "envoy_cluster_outlier_detection_ejections_active", cluster, ejected);
    // attache has no such state: an endpoint is used for calls, or it isn't.
    out.add("gauge", "envoy_cluster_membership_degraded", cluster, 0.0);
    out.add("gauge", "envoy_cluster_membership_excluded", cluster, 0.0);
}

fn durations(
    name: &str,
    sample: &PageSample<'_>,
    cluster: &EnvoyLabel<'_>,
    manager: &EnvoyLabel<'_>,
    out: &mut Families,
) {
    if let Some(suffix) =
        histogram(name, "attache_request_time_to_head_seconds").filter(|_| is_known(cluster))
    {
        out.milliseconds("envoy_cluster_upstream_rq_time", sample, suffix, cluster);
    } else if let Some(suffix) = histogram(name, "attache_request_duration_seconds") {
        out.milliseconds("envoy_http_downstream_rq_time", sample, suffix, manager);
    } else if let Some(suffix) = histogram(name, "attache_upstream_connect_duration_seconds")
        && sample.label("step") == "tcp"
    {
        out.milliseconds("envoy_cluster_upstream_cx_connect_ms", sample, suffix, cluster);
    }
}
