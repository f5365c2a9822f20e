use super::*;

const PAGE: &str = r#"# HELP attache_requests_total x
# TYPE attache_requests_total counter
attache_requests_total{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="2xx",reason=""} 8
attache_requests_total{listener="outbound",route="s",upstream="orders.shop",protocol="http1",code="2xx",reason=""} 1
attache_requests_total{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="5xx",reason="request-timeout"} 1
attache_requests_total{listener="inbound",route="r",upstream="app",protocol="http1",code="2xx",reason=""} 3
attache_requests_total{listener="outbound",route="t",upstream="db",protocol="tcp",code="",reason=""} 2
attache_request_duration_seconds_bucket{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="2xx",le="0.005"} 4
attache_request_duration_seconds_bucket{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="2xx",le="0.01"} 9
attache_request_duration_seconds_bucket{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="2xx",le="+Inf"} 9
attache_request_duration_seconds_sum{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="2xx"} 0.05
attache_request_duration_seconds_count{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="2xx"} 9
attache_request_time_to_head_seconds_bucket{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="2xx",le="0.0005"} 9
attache_request_time_to_head_seconds_bucket{listener="outbound",route="r",upstream="orders.shop",protocol="http1",code="2xx",le="+Inf"} 9
attache_upstream_endpoints{upstream="orders.shop",state="healthy"} 2
attache_upstream_endpoints{upstream="orders.shop",state="ejected"} 1
attache_connections_active{listener="outbound"} 5
attache_connections_opened_total{listener="outbound"} 7
attache_upstream_connections_active{upstream="a\"b"} 4
process_start_time_seconds 1000
process_resident_memory_bytes 1048576
"#;

#[test]
fn a_cluster_is_an_upstream_with_the_sums_of_its_routes() {
    let page = under_names(PAGE, Names::Envoy);
    for line in [
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"orders.shop\"} 10",
        "envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"orders.shop\",envoy_response_code_class=\"2\"} 9",
        "envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"orders.shop\",envoy_response_code_class=\"5\"} 1",
        "envoy_cluster_upstream_rq_timeout{envoy_cluster_name=\"orders.shop\"} 1",
        "envoy_cluster_membership_total{envoy_cluster_name=\"orders.shop\"} 3",
        "envoy_cluster_membership_healthy{envoy_cluster_name=\"orders.shop\"} 2",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"orders.shop\",le=\"0.5\"} 9",
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"orders.shop\",le=\"+Inf\"} 9",
        "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"outbound\"} 10",
        "envoy_listener_downstream_cx_active{envoy_listener_address=\"outbound\"} 5",
        "envoy_cluster_upstream_cx_active{envoy_cluster_name=\"a\\\"b\"} 4",
        "envoy_server_live 1",
    ] {
        assert!(page.lines().any(|own| own == line), "{line}\n{page}");
    }
}

#[test]
fn the_inbound_listener_reports_as_the_destination() {
    let page = under_names(PAGE, Names::Istio { workload: "web", namespace: "shop" });
    let has = |parts: &[&str]| page.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(
        has(&[
            "istio_requests_total{reporter=\"source\"",
            "source_workload=\"web\"",
            "destination_service_name=\"orders\"",
            "destination_service_namespace=\"shop\"",
            "response_code=\"2xx\"",
            "} 9",
        ]),
        "{page}"
    );
    assert!(
        has(&["istio_requests_total{reporter=\"destination\"", "destination_workload=\"web\"", "} 3"]),
        "{page}"
    );
    assert!(has(&["istio_request_duration_milliseconds_bucket", "le=\"5\"} 4"]), "{page}");
    assert!(has(&["istio_tcp_connections_opened_total", "} 2"]), "{page}");
}

/// The queries of two public dashboards (as facts), on a page now and one a minute later: each has an answer, and the right one.
/// Needs `promtool` of Prometheus in PATH, and is left out without it.
#[test]
fn queries_of_public_dashboards_have_answers() {
    let istio = under_names(PAGE, Names::Istio { workload: "web", namespace: "shop" });
    let envoy = under_names(PAGE, Names::Envoy);
    let queries: &[(&str, f64)] = &[
        // Istio's service and workload dashboards.
        (
            "round(sum(irate(istio_requests_total{reporter=~\"source\",destination_service=~\"orders.shop\"}[5m])), 0.001)",
            0.167,
        ),
        (
            "sum(irate(istio_requests_total{reporter=~\"source\",destination_service=~\"orders.shop\",response_code!~\"5.*\"}[5m])) / sum(irate(istio_requests_total{reporter=~\"source\",destination_service=~\"orders.shop\"}[5m]))",
            0.9,
        ),
        (
            "sum(irate(istio_requests_total{reporter=\"destination\",destination_workload_namespace=~\"shop\",destination_workload=~\"web\"}[5m]))",
            0.05,
        ),
        (
            "histogram_quantile(0.50, sum(irate(istio_request_duration_milliseconds_bucket{reporter=\"source\",destination_service=~\"orders.shop\"}[1m])) by (le))",
            5.5,
        ),
        (
            "count(sum(istio_requests_total) by (destination_service, destination_workload, destination_workload_namespace))",
            2.0,
        ),
        // Envoy's global and clusters dashboards.
        ("sum(envoy_server_live)", 1.0),
        ("sum(envoy_cluster_membership_total) - sum(envoy_cluster_membership_healthy)", 1.0),
        ("sum(envoy_server_memory_allocated)", 1_048_576.0),
        ("sum(rate(envoy_cluster_upstream_rq_total{envoy_cluster_name=~\"orders.shop\"}[1m]))", 1.0 / 6.0),
        (
            "sum(rate(envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\"}[1m])) by (envoy_response_code_class) or vector(0)",
            1.0 / 60.0,
        ),
        ("sum(increase(envoy_http_downstream_cx_total[1m]))", 7.0),
        (
            "histogram_quantile(0.99, sum(rate(envoy_cluster_upstream_rq_time_bucket[1m])) by (le, envoy_cluster_name)) < 1",
            0.495,
        ),
        ("sum(envoy_listener_downstream_cx_active)", 5.0),
    ];
    let mut text = String::from("evaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n");
    for line in istio.lines().chain(envoy.lines()).filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let counts = ["_total", "_xx", "_bucket", "_count", "_sum", "_completed", "_timeout"]
            .iter()
            .any(|end| series.split('{').next().unwrap_or_default().ends_with(end))
            && !series.starts_with("envoy_cluster_membership");
        let values = if counts { format!("0 {value}") } else { format!("{value} {value}") };
        let _ = writeln!(text, "  - {{ series: '{series}', values: '{values}' }}");
    }
    text.push_str("  promql_expr_test:\n");
    for (query, value) in queries {
        let _ = writeln!(
            text,
            "  - expr: 'round(sum({query}), 0.0001)'\n    eval_time: 1m\n    exp_samples: [{{ labels: '{{}}', value: {} }}]",
            (value * 1e4).round() / 1e4
        );
    }
    let path = std::env::temp_dir().join(format!("attache-names-{}.yaml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    match std::process::Command::new("promtool").args(["test", "rules"]).arg(&path).output() {
        Ok(out) => {
            let said =
                String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{said}");
        }
        Err(_) => eprintln!("promtool is not in PATH: the queries are not run"),
    }
    let _ = std::fs::remove_file(&path);
}
