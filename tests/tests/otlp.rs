//! Metrics and logs by OTLP, received by OpenTelemetry's own messages and services.

use std::net::SocketAddr;

use attache_tests::{Attache, TestProcess, curl, eventually, free_port, local, nginx, script_server, text};
use serde_json::Value;

fn upstream(address: SocketAddr) -> TestProcess {
    nginx(
        &format!(
            "server {{ listen {address}; location / {{ return 200 ok; }} location /missing {{ return 404; }} location /broken {{ return 500; }} }}"
        ),
        address,
    )
}

fn config(upstream: SocketAddr, otlp: &str) -> String {
    format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', routes: [{{ name: all, match: {{ path: '/*' }}, to: orders, retry: off }}] }} }}\n\
         upstreams: {{ orders: 'http://{upstream}' }}\n{otlp}\n"
    )
}

fn told(receiver: &TestProcess, signal: &str) -> Vec<Value> {
    let lines = receiver.output();
    let all = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|line| line["signal"] == signal).collect()
}

/// The last values of a metric that were sent: one for each series.
fn points(receiver: &TestProcess, name: &str) -> Vec<Value> {
    let metrics = told(receiver, "metric");
    let last = metrics.iter().rev().find(|metric| metric["name"] == name);
    last.map(|metric| metric["points"].as_array().unwrap().clone()).unwrap_or_default()
}

fn ended(receiver: &TestProcess) -> Vec<Value> {
    told(receiver, "log")
        .into_iter()
        .filter(|log| log["attributes"]["attache.attempts"].is_number())
        .collect()
}

#[test]
fn metrics_and_logs_reach_a_collector_by_both_protocols() {
    for protocol in ["http", "grpc"] {
        for compression in ["none", "gzip"] {
            let (server, collector) = (local(free_port()), local(free_port()));
            let _upstream = upstream(server);
            let receiver = script_server("otlp_receiver.py", collector, &[protocol]);
            let name = if protocol == "grpc" { "grpc" } else { "http/protobuf" };
            let attache = Attache::start(&config(
                server,
                &format!(
                    "otlp: {{ to: 'http://{collector}', protocol: {name}, compression: {compression}, service: shop, resource: {{ team: a }}, \
                     headers: {{ x-key: secret }}, interval: 200ms }}"
                ),
            ));
            for path in ["/", "/missing", "/broken?secret=1"] {
                curl([&attache.url(path)]);
            }
            eventually("all records", || ended(&receiver).len() == 3);
            let records = ended(&receiver);
            let broken = records.iter().find(|one| one["attributes"]["url.path"] == "/broken").unwrap();
            assert_eq!(broken["severity"], "ERROR");
            assert_eq!(broken["attributes"]["error.type"], "500");
            assert_eq!(broken["attributes"]["http.request.method"], "GET");
            assert_eq!(broken["attributes"]["attache.upstream"], "orders");
            assert_eq!(broken["resource"]["service.name"], "shop");
            assert_eq!(broken["resource"]["team"], "a");
            assert_eq!(broken["headers"]["x-key"], "secret");
            let missing = records.iter().find(|one| one["attributes"]["url.path"] == "/missing").unwrap();
            assert_eq!(missing["severity"], "INFO", "an error of the client is not an error of the service");
            assert!(!receiver.output().contains("secret=1"), "queries carry secrets");

            eventually("all durations", || points(&receiver, "http.client.request.duration").len() == 3);
            let server_side = points(&receiver, "http.server.request.duration");
            let of = |points: &[Value], status: u64| {
                let status = Value::from(status);
                let found =
                    points.iter().find(|one| one["attributes"]["http.response.status_code"] == status);
                found.unwrap_or_else(|| panic!("{points:#?}")).clone()
            };
            let good = of(&server_side, 200);
            assert_eq!(good["count"], 1);
            assert_eq!(good["attributes"]["http.request.method"], "GET");
            assert_eq!(good["attributes"]["url.scheme"], "http");
            assert_eq!(good["attributes"]["network.protocol.version"], "1.1");
            assert_eq!(good["attributes"]["http.route"], "/*");
            assert_eq!(good["attributes"]["error.type"], Value::Null);
            assert_eq!(good["bounds"][0], 0.005);
            assert_eq!(good["bounds"].as_array().unwrap().len(), 14);
            assert_eq!(good["buckets"].as_array().unwrap().len(), 15);
            assert_eq!(of(&server_side, 404)["attributes"]["error.type"], Value::Null);
            assert_eq!(of(&server_side, 500)["attributes"]["error.type"], "500");
            let client_side = points(&receiver, "http.client.request.duration");
            let bad = of(&client_side, 404);
            assert_eq!(bad["attributes"]["error.type"], "404", "for a client it is an error");
            assert_eq!(bad["attributes"]["server.address"], "127.0.0.1");
            assert_eq!(bad["attributes"]["server.port"], server.port());
            let metrics = told(&receiver, "metric");
            let requests = metrics.iter().find(|one| one["name"] == "attache_requests_total").unwrap();
            assert_eq!(
                (&requests["kind"], &requests["temporality"], &requests["monotonic"]),
                (&"sum".into(), &2.into(), &true.into())
            );
            eventually("it is counted", || {
                attache.metric("attache_otlp_log_records_total", &["outcome=\"exported\""]) >= 3.0
                    && attache.metric("attache_otlp_metric_exports_total", &["outcome=\"ok\""]) >= 1.0
            });
            // Only collectors get them.
            assert!(
                !text(&curl([&format!("http://{}/metrics", local(attache.metrics))])).contains("http_server")
            );
        }
    }
}

#[test]
fn a_record_names_its_trace_and_the_program_s_own_log_is_sent_too() {
    let (server, collector) = (local(free_port()), local(free_port()));
    let _upstream = upstream(server);
    let receiver = script_server("otlp_receiver.py", collector, &["http"]);
    let attache = Attache::start(&config(
        server,
        &format!(
            "otlp: {{ to: 'http://{collector}', signals: logs }}\ntracing: {{ otlp: 'http://{collector}', sample: 100% }}\naccess_log: {{ to: 'off', filter: {{ errors: true }} }}"
        ),
    ));
    curl([&attache.url("/")]);
    curl([
        "-H",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        &attache.url("/broken"),
    ]);
    eventually("the record", || !ended(&receiver).is_empty());
    let records = ended(&receiver);
    assert_eq!(records.len(), 1, "the access log's filter holds: {records:#?}");
    assert_eq!(records[0]["trace"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(records[0]["span"].as_str().unwrap().len(), 16);
    let own = |log: &Value| {
        log["attributes"]["attache.module"].as_str().is_some_and(|module| module.starts_with("attache"))
    };
    eventually("the program's own log", || told(&receiver, "log").iter().any(own));
    assert!(told(&receiver, "metric").is_empty(), "they were not configured");
}

#[test]
fn an_unreachable_collector_costs_records_but_no_requests_and_no_metrics() {
    let (server, collector) = (local(free_port()), local(free_port()));
    let _upstream = upstream(server);
    let attache = Attache::start(&config(
        server,
        &format!("otlp: {{ to: 'http://{collector}', interval: 300ms, timeout: 200ms, queue: 1 }}"),
    ));
    for _ in 0..20 {
        assert_eq!(text(&curl([&attache.url("/")])), "ok");
    }
    eventually("records are lost, and that is counted", || {
        let lost = |outcome: &str| {
            attache.metric("attache_otlp_log_records_total", &[&format!("outcome=\"{outcome}\"")])
        };
        lost("queue-full") + lost("export-failed") > 0.0
            && attache.metric("attache_otlp_metric_exports_total", &["outcome=\"failed\""]) > 0.0
    });
    let receiver = script_server("otlp_receiver.py", collector, &["http", "503", "reject"]);
    eventually("the metrics still have all requests", || {
        points(&receiver, "http.server.request.duration").iter().any(|point| point["count"] == 20)
    });
    curl([&attache.url("/")]);
    eventually("rejected records are counted", || {
        attache.metric("attache_otlp_log_records_total", &["outcome=\"rejected\""]) > 0.0
    });
}

#[test]
fn waiting_records_are_sent_before_the_program_ends() {
    let (server, collector) = (local(free_port()), local(free_port()));
    let _upstream = upstream(server);
    let receiver = script_server("otlp_receiver.py", collector, &["http"]);
    let mut attache =
        Attache::start(&config(server, &format!("otlp: {{ to: 'http://{collector}', interval: 1h }}")));
    curl([&attache.url("/")]);
    attache.process.signal("TERM");
    assert_eq!(attache.process.wait(), Some(0));
    eventually("the record and the metrics", || {
        !ended(&receiver).is_empty() && points(&receiver, "http.server.request.duration").len() == 1
    });
}
