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
attache_received_bytes_total{listener="outbound",route="r",upstream="orders.shop",protocol="http1"} 100
attache_sent_bytes_total{listener="outbound",route="r",upstream="orders.shop",protocol="http1"} 200
attache_received_bytes_total{listener="outbound",route="t",upstream="db",protocol="tcp"} 100
attache_sent_bytes_total{listener="outbound",route="t",upstream="db",protocol="tcp"} 200
attache_tls_certificate_expiry_timestamp_seconds{side="listener",name="inbound"} 2000000000
attache_upstream_connections_opened_total{upstream="orders.shop"} 2
attache_connections_opened_total{listener="outbound"} 7
attache_upstream_connections_active{upstream="a\"b"} 4
process_start_time_seconds 1000
process_resident_memory_bytes 1048576
"#;

/// The same requests by their single status.
const EXACT_PAGE: &str = r#"exact_requests{listener="outbound",upstream="orders.shop",protocol="http",code="200",reason=""} 7
exact_requests{listener="outbound",upstream="orders.shop",protocol="http",code="204",reason=""} 2
exact_requests{listener="outbound",upstream="orders.shop",protocol="http",code="504",reason="request-timeout"} 1
exact_requests{listener="inbound",upstream="app",protocol="http",code="200",reason=""} 3
exact_request_bytes_bucket{listener="outbound",upstream="orders.shop",protocol="http",code="200",reason="",le="100"} 7
exact_request_bytes_bucket{listener="outbound",upstream="orders.shop",protocol="http",code="200",reason="",le="+Inf"} 7
exact_response_bytes_bucket{listener="outbound",upstream="orders.shop",protocol="http",code="200",reason="",le="1000"} 7
exact_response_bytes_bucket{listener="outbound",upstream="orders.shop",protocol="http",code="200",reason="",le="+Inf"} 7
"#;

const ISTIO: NamingScheme<'static> = NamingScheme::Istio { workload: "web", namespace: "shop", proofs: &[] };

#[test]
fn the_security_of_a_connection_is_what_the_destination_knows() {
    let policies = |proof: IdentityProof, scheme: &str| {
        let exact = EXACT_PAGE.replace("reason=\"\"", &format!("reason=\"\",scheme=\"{scheme}\""));
        let proofs = [("inbound".to_owned(), proof), ("outbound".to_owned(), proof)];
        let page = under_names(
            PAGE,
            &exact,
            NamingScheme::Istio { workload: "web", namespace: "shop", proofs: &proofs },
        );
        let of = |reporter: &str| {
            let line = page.lines().find(|line| {
                line.starts_with("istio_requests_total{")
                    && line.contains(&format!("reporter=\"{reporter}\""))
            });
            let policy = line.and_then(|line| line.split("connection_security_policy=\"").nth(1));
            policy.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
        };
        (of("source"), of("destination"))
    };
    let unknown = || "unknown".to_owned();
    assert_eq!(policies(IdentityProof::Everybody, "https"), (unknown(), "mutual_tls".to_owned()));
    assert_eq!(policies(IdentityProof::Nobody, "https"), (unknown(), "none".to_owned()));
    assert_eq!(policies(IdentityProof::WithTls, "https"), (unknown(), "mutual_tls".to_owned()));
    assert_eq!(policies(IdentityProof::WithTls, "http"), (unknown(), "none".to_owned()));
}

#[test]
fn a_cluster_is_an_upstream_with_the_sums_of_its_routes() {
    let page = under_names(PAGE, EXACT_PAGE, NamingScheme::Envoy);
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
        "envoy_cluster_upstream_rq{envoy_cluster_name=\"orders.shop\",envoy_response_code=\"204\"} 2",
        "envoy_server_live 1",
    ] {
        assert!(page.lines().any(|own| own == line), "{line}\n{page}");
    }
}

#[test]
fn the_inbound_listener_reports_as_the_destination() {
    let page = under_names(PAGE, EXACT_PAGE, ISTIO);
    let has = |parts: &[&str]| page.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(
        has(&[
            "istio_requests_total{reporter=\"source\"",
            "source_workload=\"web\"",
            "destination_service_name=\"orders\"",
            "destination_service_namespace=\"shop\"",
            "response_code=\"200\"",
            "} 7",
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

/// The metrics that the dashboards of Istio (service, workload, mesh: 190 queries of manifests/addons/dashboards) and of Envoy Gateway
/// (clusters, proxy global: 70 queries of charts/gateway-addons-helm/dashboards) use, each with every label that a query selects or groups
/// by. Labels that a scrape adds (namespace, pod) are left out.
const ASKED: &[(&str, &[&str])] = &[
    ("envoy_cluster_membership_degraded", &["envoy_cluster_name"]),
    ("envoy_cluster_membership_excluded", &["envoy_cluster_name"]),
    ("envoy_cluster_membership_healthy", &["envoy_cluster_name"]),
    ("envoy_cluster_membership_total", &["envoy_cluster_name"]),
    ("envoy_cluster_outlier_detection_ejections_active", &["envoy_cluster_name"]),
    ("envoy_cluster_upstream_cx_active", &["envoy_cluster_name"]),
    ("envoy_cluster_upstream_cx_rx_bytes_total", &["envoy_cluster_name"]),
    ("envoy_cluster_upstream_cx_total", &[]),
    ("envoy_cluster_upstream_cx_tx_bytes_total", &["envoy_cluster_name"]),
    ("envoy_cluster_upstream_rq_time_bucket", &["envoy_cluster_name", "le"]),
    ("envoy_cluster_upstream_rq_total", &["envoy_cluster_name"]),
    ("envoy_cluster_upstream_rq_xx", &["envoy_cluster_name", "envoy_response_code_class"]),
    ("envoy_http_downstream_cx_rx_bytes_total", &["envoy_http_conn_manager_prefix"]),
    ("envoy_http_downstream_cx_total", &[]),
    ("envoy_http_downstream_cx_tx_bytes_total", &["envoy_http_conn_manager_prefix"]),
    ("envoy_http_downstream_rq_time_bucket", &["le"]),
    ("envoy_http_downstream_rq_total", &[]),
    ("envoy_listener_downstream_cx_active", &[]),
    ("envoy_listener_ssl_certificate_expiration_unix_time_seconds", &["envoy_tls_certificate"]),
    ("envoy_server_live", &[]),
    ("envoy_server_memory_allocated", &[]),
    ("envoy_server_memory_heap_size", &[]),
    ("envoy_server_uptime", &[]),
    ("envoy_tcp_downstream_cx_rx_bytes_total", &[]),
    ("envoy_tcp_downstream_cx_total", &[]),
    ("envoy_tcp_downstream_cx_tx_bytes_total", &[]),
    ("istio_build", &["component", "tag"]),
    ("istio_request_bytes_bucket", OF_ISTIO),
    ("istio_request_duration_milliseconds_bucket", OF_ISTIO),
    (
        "istio_requests_total",
        &["response_code", "destination_cluster", "source_cluster", "destination_principal"],
    ),
    ("istio_requests_total", OF_ISTIO),
    ("istio_response_bytes_bucket", OF_ISTIO),
    ("istio_tcp_received_bytes_total", OF_ISTIO),
    ("istio_tcp_sent_bytes_total", OF_ISTIO),
    ("istio_tcp_sent_bytes_total", &["destination_cluster", "source_cluster"]),
];

const OF_ISTIO: &[&str] = &[
    "connection_security_policy",
    "destination_service",
    "destination_workload",
    "destination_workload_namespace",
    "reporter",
    "source_workload",
    "source_workload_namespace",
];

/// `istio_request_duration_seconds_bucket` is missing: these dashboards use it only if there are no milliseconds.
#[test]
fn every_metric_and_label_that_public_dashboards_ask_for_is_there() {
    let istio = under_names(PAGE, EXACT_PAGE, ISTIO);
    let envoy = under_names(PAGE, EXACT_PAGE, NamingScheme::Envoy);
    let samples: Vec<PageSample<'_>> = istio.lines().chain(envoy.lines()).filter_map(sample).collect();
    for (metric, labels) in ASKED {
        let mut series = samples.iter().filter(|sample| sample.name == *metric).peekable();
        assert!(series.peek().is_some(), "there is no {metric}");
        for sample in series {
            for label in *labels {
                assert!(sample.labels.iter().any(|(name, _)| name == label), "{metric} has no {label}");
            }
        }
    }
}

/// Runs queries of the same dashboards on a page now and one a minute later: each query must have the right result. It needs Prometheus'
/// `promtool` in PATH, and is skipped without it.
#[test]
fn queries_of_public_dashboards_have_answers() {
    let istio = under_names(PAGE, EXACT_PAGE, ISTIO);
    let envoy = under_names(PAGE, EXACT_PAGE, NamingScheme::Envoy);
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
        // The status of each call, and the sizes of bodies.
        (
            "sum(irate(istio_requests_total{reporter=\"source\",response_code=\"204\"}[5m])) by (source_workload, response_code)",
            2.0 / 60.0,
        ),
        (
            "sum(rate(istio_requests_total{reporter=~\"source|waypoint\",response_code=~\"5..\"}[5m])) or vector(0)",
            1.0 / 300.0,
        ),
        (
            "histogram_quantile(0.50, sum(irate(istio_request_bytes_bucket{reporter=\"source\", connection_security_policy!=\"mutual_tls\"}[1m])) by (destination_service, le))",
            50.0,
        ),
        ("sum(irate(istio_tcp_sent_bytes_total{reporter=\"source\"}[5m]))", 200.0 / 60.0),
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
        ("avg(envoy_cluster_membership_healthy) / avg(envoy_cluster_membership_total)", 2.0 / 3.0),
        ("histogram_quantile(0.9, sum by(le) (rate(envoy_http_downstream_rq_time_bucket[5m])))", 9.1),
        ("sum(rate(envoy_tcp_downstream_cx_rx_bytes_total[5m]))", 100.0 / 300.0),
        (
            "min by (envoy_tls_certificate) ((envoy_listener_ssl_certificate_expiration_unix_time_seconds - time()) / 86400)",
            23148.1475,
        ),
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
