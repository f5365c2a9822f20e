//! Traces, received by OpenTelemetry's own messages and service, and seen by the upstreams of the requests.

use std::{fs, net::SocketAddr};

use attache_tests::{Attache, TestProcess, curl, eventually, free_port, local, nginx, script_server, text};
use serde_json::Value;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// nginx that logs every `traceparent` and answers with `status`.
fn upstream(address: SocketAddr, status: u16) -> TestProcess {
    nginx(
        &format!(
            "log_format seen '$http_traceparent $http_b3 $http_x_b3_spanid';\n\
             server {{ listen {address}; access_log $DIR/seen seen; location / {{ return {status} \"$http_traceparent|$http_tracestate|$http_b3\"; }} }}"
        ),
        address,
    )
}

fn seen(upstream: &TestProcess) -> Vec<String> {
    let lines = fs::read_to_string(upstream.dir().join("seen")).unwrap_or_default();
    lines.lines().map(str::to_owned).collect()
}

fn spans(receiver: &TestProcess) -> Vec<Value> {
    receiver.output().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(spans: &'a [Value], kind: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["kind"] == kind).collect()
}

fn config(upstream: SocketAddr, tracing: &str) -> String {
    format!(
        "listeners: {{ outbound: {{ bind: '127.0.0.1:$PORT', routes: [{{ name: all, to: orders, retry: {{ attempts: 2, on: [503], backoff: {{ base: 1ms }} }} }}] }} }}\n\
         upstreams: {{ orders: 'http://{upstream}' }}\n{tracing}\n"
    )
}

#[test]
fn a_retried_request_is_one_trace_with_a_span_for_each_attempt() {
    for protocol in ["http", "grpc"] {
        let (server, collector) = (local(free_port()), local(free_port()));
        let upstream = upstream(server, 503);
        let receiver = script_server("otlp_receiver.py", collector, &[protocol]);
        let name = if protocol == "grpc" { "grpc" } else { "http/protobuf" };
        let attache = Attache::start(&config(
            server,
            &format!(
                "tracing: {{ otlp: 'http://{collector}', protocol: {name}, sample: 0%, service: shop, resource: {{ team: a }}, headers: {{ x-key: secret }}, interval: 10ms }}"
            ),
        ));
        // The ratio is 0: the trace is sampled because its parent is.
        let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
        let answer =
            text(&curl(["-H", &parent, "-H", "tracestate: a=b", &attache.url("/v1/items?secret=1")]));
        // The request, three attempts, at least one connection; all of them are in one export.
        eventually("all spans", || spans(&receiver).len() >= 5);
        let spans = spans(&receiver);
        assert!(spans.iter().all(|span| span["trace"] == TRACE && span["state"] == "a=b"), "{spans:#?}");
        assert!(!receiver.output().contains("secret=1"), "queries carry secrets");
        let [request] = of_kind(&spans, "SPAN_KIND_SERVER")[..] else { panic!("{spans:#?}") };
        assert_eq!(request["parent"], PARENT);
        assert_eq!(request["name"], "GET");
        assert_eq!(request["error"], true);
        assert_eq!(request["attributes"]["http.response.status_code"], 503);
        assert_eq!(request["attributes"]["url.path"], "/v1/items");
        assert_eq!(request["attributes"]["attache.route"], "all");
        assert_eq!(request["attributes"]["attache.attempts"], 3);
        assert_eq!(request["resource"]["service.name"], "shop");
        assert_eq!(request["resource"]["team"], "a");
        assert_eq!(request["headers"]["x-key"], "secret");
        let mut attempts = of_kind(&spans, "SPAN_KIND_CLIENT");
        attempts.sort_by_key(|span| span["start"].as_u64());
        assert_eq!(attempts.len(), 3);
        // Each attempt has its own span below the request's, and the upstream saw that span as its parent.
        let seen = seen(&upstream);
        for (index, (span, seen)) in attempts.iter().zip(&seen).enumerate() {
            assert_eq!(span["parent"], request["id"]);
            assert!(
                seen.starts_with(&format!("00-{TRACE}-{}-01", span["id"].as_str().unwrap())),
                "{seen} {span:#?}"
            );
            assert_eq!(
                span["attributes"]["http.request.resend_count"].as_u64(),
                (index > 0).then_some(index as u64)
            );
            assert_eq!(span["attributes"]["attache.endpoint"], server.to_string());
            assert_eq!(span["error"], true);
        }
        assert!(
            answer.starts_with(&format!("00-{TRACE}-{}-01|a=b|", attempts[2]["id"].as_str().unwrap())),
            "{answer}"
        );
        let connects = of_kind(&spans, "SPAN_KIND_INTERNAL");
        assert!(!connects.is_empty());
        for connect in connects {
            assert_eq!(connect["name"], "connect");
            assert!(attempts.iter().any(|span| span["id"] == connect["parent"]), "{connect:#?}");
            assert_eq!(connect["events"][0], "connected");
        }
        eventually("it is counted", || attache.metric("attache_trace_spans_exported_total", &[]) >= 5.0);
        // The trace is beside the bucket of the request.
        let page = text(&curl([
            "-H",
            "Accept: application/openmetrics-text;version=1.0.0",
            &format!("http://{}/metrics", local(attache.metrics)),
        ]));
        assert!(page.contains(&format!("# {{trace_id=\"{TRACE}\"}}")), "{page}");
    }
}

#[test]
fn a_connection_that_is_refused_is_an_error_with_its_reason() {
    let (server, collector) = (local(free_port()), local(free_port()));
    let receiver = script_server("otlp_receiver.py", collector, &["http"]);
    let attache = Attache::start(&config(
        server,
        &format!("tracing: {{ otlp: 'http://{collector}', sample: 100%, interval: 10ms }}"),
    ));
    let _ = text(&curl([&attache.url("/")]));
    eventually("the spans", || spans(&receiver).len() >= 3);
    let spans = spans(&receiver);
    for kind in ["SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_INTERNAL"] {
        for span in of_kind(&spans, kind) {
            assert_eq!(span["attributes"]["attache.reason"], "connect-refused", "{span:#?}");
            assert_eq!(span["attributes"]["error.type"], "connect-refused");
            assert_eq!(span["error"], true);
        }
    }
    let [request] = of_kind(&spans, "SPAN_KIND_SERVER")[..] else { panic!("{spans:#?}") };
    assert_eq!(request["parent"], "", "it began here");
    assert!(request["message"].as_str().unwrap().starts_with("connect-refused: "), "{request:#?}");
}

#[test]
fn an_unreachable_collector_costs_spans_and_never_a_request() {
    let (server, collector) = (local(free_port()), local(free_port()));
    let _upstream = upstream(server, 200);
    let attache = Attache::start(&config(
        server,
        &format!(
            "tracing: {{ otlp: 'http://{collector}', sample: 100%, interval: 1ms, timeout: 3s, queue: 4 }}"
        ),
    ));
    for _ in 0..50 {
        let out = curl(["--fail", &attache.url("/")]);
        assert!(out.status.success());
    }
    // While one export is retried.
    eventually("spans that do not fit are counted", || {
        let _ = curl([&attache.url("/")]);
        attache.metric("attache_trace_spans_dropped_total", &["queue-full"]) > 0.0
    });
    eventually("spans that can't be exported are counted", || {
        attache.metric("attache_trace_spans_dropped_total", &["export-failed"]) > 0.0
    });
    // A collector that starts later gets the later spans; its first response asks for another attempt.
    let receiver = script_server("otlp_receiver.py", collector, &["http", "503"]);
    eventually("spans arrive", || {
        let _ = curl([&attache.url("/")]);
        !spans(&receiver).is_empty()
    });
}

#[test]
fn the_last_traces_are_sent_before_the_end() {
    let (server, collector) = (local(free_port()), local(free_port()));
    let _upstream = upstream(server, 200);
    let receiver = script_server("otlp_receiver.py", collector, &["http"]);
    let mut attache = Attache::start(&config(
        server,
        &format!("tracing: {{ otlp: 'http://{collector}', sample: 100%, interval: 1h }}"),
    ));
    let _ = text(&curl([&attache.url("/")]));
    attache.process.signal("TERM");
    assert_eq!(attache.process.wait(), Some(0));
    assert_eq!(of_kind(&spans(&receiver), "SPAN_KIND_SERVER").len(), 1);
}

#[test]
fn without_tracing_a_trace_is_passed_on_and_none_is_begun() {
    let server = local(free_port());
    let _upstream = upstream(server, 200);
    let attache = Attache::start(&config(
        server,
        "access_log: { to: stdout, format: { template: 'id=%{trace_id} span=%{span_id}' } }",
    ));
    let sent = format!("00-{TRACE}-{PARENT}-01");
    let pass = |parent: &str| {
        text(&curl([
            "-H",
            &format!("traceparent: {parent}"),
            "-H",
            "tracestate: a=b",
            "-H",
            "b3: 1",
            &attache.url("/"),
        ]))
    };
    assert_eq!(pass(&sent), format!("{sent}|a=b|1"));
    assert_eq!(pass(&sent.to_uppercase()), "||1", "a malformed context is removed completely");
    assert_eq!(text(&curl([&attache.url("/")])), "||");
    eventually("the log has the trace's id", || {
        let log = attache.process.output();
        log.contains(&format!("id={TRACE} span=-\n")) && log.contains("id=- span=-\n")
    });
}

#[test]
fn b3_is_read_and_written_where_it_is_configured() {
    let (server, collector) = (local(free_port()), local(free_port()));
    let upstream = upstream(server, 200);
    let receiver = script_server("otlp_receiver.py", collector, &["http"]);
    let attache = Attache::start(&config(
        server,
        &format!(
            "tracing: {{ otlp: 'http://{collector}', sample: 0%, interval: 10ms, propagation: [b3, b3multi] }}"
        ),
    ));
    let _ = text(&curl(["-H", &format!("b3: {TRACE}-{PARENT}-1"), &attache.url("/")]));
    eventually("the spans", || spans(&receiver).len() >= 2);
    let spans = spans(&receiver);
    let [request] = of_kind(&spans, "SPAN_KIND_SERVER")[..] else { panic!("{spans:#?}") };
    assert_eq!((&request["trace"], &request["parent"]), (&TRACE.into(), &PARENT.into()));
    let [try_] = of_kind(&spans, "SPAN_KIND_CLIENT")[..] else { panic!("{spans:#?}") };
    let id = try_["id"].as_str().unwrap();
    assert_eq!(seen(&upstream), [format!("- {TRACE}-{id}-1 {id}")]);
    // No sender asked to sample this one, and all later services are told so.
    let answer = text(&curl([&attache.url("/")]));
    assert!(answer.ends_with("-0"), "{answer}");
}

#[test]
fn a_reload_begins_and_ends_tracing_and_changes_the_log() {
    let (server, collector) = (local(free_port()), local(free_port()));
    let _upstream = upstream(server, 200);
    let receiver = script_server("otlp_receiver.py", collector, &["http"]);
    let attache = Attache::start(&config(server, ""));
    let file = attache.process.dir().join("attache.yaml");
    let before = fs::read_to_string(&file).unwrap();
    let with = format!(
        "{before}tracing: {{ otlp: 'http://{collector}', sample: 100%, interval: 10ms }}\naccess_log: {{ to: stdout, format: {{ template: 'trace %{{trace_id}}' }} }}\n"
    );
    fs::write(&file, with).unwrap();
    attache.process.signal("HUP");
    eventually("the new config is served", || {
        let _ = curl([&attache.url("/")]);
        !spans(&receiver).is_empty()
    });
    let known = spans(&receiver)[0]["trace"].as_str().unwrap().to_owned();
    eventually("the log has the same trace", || {
        attache.process.output().contains(&format!("trace {known}\n"))
    });
    fs::write(&file, before).unwrap();
    attache.process.signal("HUP");
    eventually("no trace is begun any more", || text(&curl([&attache.url("/")])) == "||");
}

#[test]
fn zipkin_gets_json_and_the_context_is_passed_on_as_b3() {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::{Arc, Mutex},
        thread,
    };

    let (server, port) = (local(free_port()), free_port());
    let upstream = upstream(server, 200);
    let posted = Arc::new(Mutex::new(Vec::<String>::new()));
    let (listener, seen_by) = (TcpListener::bind(local(port)).unwrap(), posted.clone());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut text = Vec::new();
            let mut piece = [0; 65536];
            while let Ok(count @ 1..) = stream.read(&mut piece) {
                text.extend_from_slice(&piece[..count]);
                let whole = String::from_utf8_lossy(&text).into_owned();
                let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
                let length = head.to_lowercase();
                let length = length
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|rest| rest.lines().next()?.parse().ok());
                if length == Some(body.len()) {
                    seen_by.lock().unwrap().push(whole);
                    text.clear();
                    let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
                }
            }
        }
    });
    let attache = Attache::start(&config(
        server,
        &format!(
            "tracing: {{ zipkin: 'http://127.0.0.1:{port}', sample: 100%, service: shop, propagation: [b3multi, b3], interval: 10ms }}"
        ),
    ));
    let b3 = [
        "-H",
        "X-B3-TraceId: 0af7651916cd43dd8448eb211c80319c",
        "-H",
        "X-B3-SpanId: b7ad6b7169203331",
        "-H",
        "X-B3-Sampled: 1",
    ];
    let url = attache.url("/v1/items?secret=1");
    curl(b3.into_iter().chain([url.as_str()]).collect::<Vec<_>>());
    eventually("the spans", || !posted.lock().unwrap().is_empty());
    let sent = posted.lock().unwrap().join("\n");
    assert!(sent.starts_with("POST /api/v2/spans HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("content-type: application/json") && !sent.contains("secret=1"), "{sent}");
    let spans: Vec<Value> = serde_json::from_str(sent.split_once("\r\n\r\n").unwrap().1).unwrap();
    let of = |kind: &str| spans.iter().find(|span| span["kind"] == kind).unwrap();
    assert!(spans.iter().all(|span| span["traceId"] == TRACE), "{spans:#?}");
    assert_eq!(of("SERVER")["parentId"], PARENT);
    assert_eq!(of("CLIENT")["parentId"], of("SERVER")["id"]);
    assert_eq!(of("CLIENT")["remoteEndpoint"]["serviceName"], "orders");
    // The upstream sees the attempt as its parent, in both forms.
    let id = of("CLIENT")["id"].as_str().unwrap().to_owned();
    let line = seen(&upstream).join("\n");
    assert!(line.contains(&format!("{TRACE}-{id}-1 {id}")), "{line}");
    eventually("they are counted", || attache.metric("attache_trace_spans_exported_total", &[]) >= 3.0);
}
