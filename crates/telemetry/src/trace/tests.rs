use std::time::Duration;

use attache_config::model::Name;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};

use super::*;
use crate::Reason;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(super) fn config(sample: f64, propagation: &[Propagation]) -> model::Tracing {
    model::Tracing {
        collector: crate::otlp::tests::collector(),
        sample,
        propagation: propagation.to_vec(),
        queue: 2,
        interval: Duration::from_millis(1),
    }
}

fn tracer(sample: f64, propagation: &[Propagation]) -> (Tracer, TraceExports, Metrics) {
    let metrics = Metrics::new();
    let (traces, exports) = Traces::new(Some(&config(sample, propagation)), &metrics);
    (traces.tracer(&metrics.worker()).unwrap(), exports.unwrap(), metrics)
}

fn exchange() -> Exchange {
    let exchange = Exchange::new("outbound".into(), "http1", Some("127.0.0.1:4000".parse().unwrap()));
    exchange.method.replace("GET".into());
    exchange.host.replace("orders.internal:8443".into());
    exchange.path.replace("/v1/items".into());
    exchange
}

fn headers(pairs: &[(&'static str, &str)]) -> Fields {
    pairs
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

const W3C: &[Propagation] = &[Propagation::TraceContext];

#[test]
fn without_tracing_there_is_no_tracer() {
    let metrics = Metrics::new();
    let (traces, exports) = Traces::new(None, &metrics);
    assert!(traces.tracer(&metrics.worker()).is_none() && exports.is_none());
}

#[test]
fn the_trace_of_a_request_is_sampled_as_before_whatever_the_ratio() {
    for (sample, flag) in [(0.0, "01"), (1.0, "00")] {
        let (tracer, _exports, _) = tracer(sample, W3C);
        let sent = format!("{}{flag}", &PARENT[..53]);
        let (exchange, mut headers) = (exchange(), headers(&[("traceparent", &sent), ("tracestate", "a=b")]));
        tracer.begin(&exchange, &mut headers, false);
        let passed = headers.get("traceparent").unwrap().to_str().unwrap().to_owned();
        assert_eq!(exchange.trace_id.get().unwrap().to_string(), &PARENT[3..35]);
        assert_eq!(exchange.trace.borrow().is_some(), flag == "01");
        assert_eq!(headers.get("tracestate").unwrap(), "a=b");
        if flag == "00" {
            assert_eq!(passed, sent, "attache adds no span between the two sides");
        } else {
            assert_eq!(passed[..36], sent[..36]);
            assert_ne!(passed[36..52], sent[36..52], "attache's span is the parent of the next ones");
        }
    }
}

#[test]
fn an_invalid_state_is_removed_whether_the_trace_is_sampled_or_not() {
    for flag in ["00", "01", "02"] {
        let (tracer, _exports, _) = tracer(1.0, W3C);
        let sent = format!("{}{flag}", &PARENT[..53]);
        let (exchange, mut headers) =
            (exchange(), headers(&[("traceparent", &sent), ("tracestate", "a =b")]));
        tracer.begin(&exchange, &mut headers, false);
        assert!(headers.contains_key("traceparent") && !headers.contains_key("tracestate"), "{flag}");
    }
}

#[test]
fn a_new_trace_says_whether_it_is_sampled() {
    for (sample, flags) in [(0.0, "02"), (1.0, "03")] {
        let (tracer, _exports, _) = tracer(sample, W3C);
        // The request's context is invalid: it is replaced, and its state is removed.
        let (exchange, mut headers) =
            (exchange(), headers(&[("traceparent", "00-00-00-00"), ("tracestate", "a=b")]));
        tracer.begin(&exchange, &mut headers, false);
        let written = headers.get("traceparent").unwrap().to_str().unwrap();
        assert_eq!(&written[53..], flags);
        assert_eq!(written[3..35], exchange.trace_id.get().unwrap().to_string());
        assert!(!headers.contains_key("tracestate"));
    }
}

#[test]
fn the_ratio_is_a_share_of_the_ids() {
    let (tracer, _exports, _) = tracer(0.25, W3C);
    let sampled = (0..10_000).filter(|_| tracer.new_context(None).sampled).count();
    // Ten standard deviations are 433.
    assert!((2067..=2933).contains(&sampled), "{sampled}");
}

#[test]
fn every_configured_header_is_written_and_the_first_existing_one_is_used() {
    let (tracer, _exports, _) =
        tracer(0.0, &[Propagation::B3, Propagation::B3Multi, Propagation::TraceContext]);
    let (exchange, mut headers) = (exchange(), headers(&[("traceparent", PARENT), ("b3", "1")]));
    tracer.begin(&exchange, &mut headers, false);
    let id = exchange.trace_id.get().unwrap().to_string();
    assert_ne!(id, PARENT[3..35], "b3 alone decided");
    assert!(exchange.trace.borrow().is_some(), "sampled, as the header says");
    assert!(headers.get("b3").unwrap().to_str().unwrap().starts_with(&id));
    assert_eq!(headers.get("x-b3-traceid").unwrap(), id.as_str());
    assert_eq!(headers.get("traceparent").unwrap().to_str().unwrap()[3..35], id);
}

/// The spans of a request with two attempts; the first attempt found no endpoint.
fn spans_of_a_retry() -> (Vec<Span>, [String; 2]) {
    let (tracer, mut exports, _) = tracer(1.0, W3C);
    let (exchange, mut sent) = (exchange(), headers(&[("traceparent", PARENT), ("user-agent", "curl")]));
    tracer.begin(&exchange, &mut sent, true);
    let upstream = Name::from("orders");
    let mut seen = Vec::new();
    for (endpoint, fails) in [("10.0.0.7:80", true), ("10.0.0.8:80", false)] {
        exchange.endpoint.replace(Some(endpoint.into()));
        exchange.attempts.set(exchange.attempts.get() + 1);
        let attempt = AttemptTrace::begin(&exchange, &upstream, false, Some(&mut sent)).unwrap();
        seen.push(sent.get("traceparent").unwrap().to_str().unwrap()[36..52].to_owned());
        let connecting = attempt.connecting(&endpoint.into());
        if fails {
            connecting.ended(None, None, Err(Reason::ConnectRefused));
            attempt.failed(&exchange, Reason::ConnectRefused);
            exchange.trace.borrow().as_ref().unwrap().tried_again(Reason::ConnectRefused);
        } else {
            connecting.ended(Some(Duration::from_micros(1)), Some(Duration::from_micros(2)), Ok(()));
            attempt.responded(&exchange, 200);
        }
    }
    exchange.status.set(200);
    finish_trace(&exchange, exchange.start.elapsed());
    assert!(exchange.trace.borrow().is_none());
    let finished = exports.waiting().try_recv().unwrap();
    assert_eq!(finished.spans(), 5);
    let resource = crate::otlp::resource(&crate::otlp::tests::collector());
    let spans = convert::resource_spans(&resource, &[finished]).scope_spans.remove(0).spans;
    (spans, [seen.remove(0), seen.remove(0)])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[test]
fn every_attempt_has_a_span_of_its_own_below_that_of_the_request() {
    let (spans, seen) = spans_of_a_retry();
    let [server, first, first_connect, second, second_connect] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(hex(&server.trace_id), PARENT[3..35]);
    assert_eq!(hex(&server.parent_span_id), PARENT[36..52]);
    assert_eq!(server.kind, SpanKind::Server as i32);
    for (span, seen) in [(first, &seen[0]), (second, &seen[1])] {
        assert_eq!((span.kind, &span.parent_span_id), (SpanKind::Client as i32, &server.span_id));
        assert_eq!(&hex(&span.span_id), seen, "what the upstream sees as its parent");
    }
    assert_eq!(first_connect.parent_span_id, first.span_id);
    assert_eq!(second_connect.parent_span_id, second.span_id);
    assert_eq!(second_connect.events.len(), 2);
    let error = StatusCode::Error as i32;
    let code = |span: &Span| span.status.as_ref().map(|status| status.code);
    assert_eq!((code(server), code(first), code(first_connect)), (None, Some(error), Some(error)));
    assert_eq!((code(second), code(second_connect)), (None, None));
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    assert_eq!(second.end_time_unix_nano, server.end_time_unix_nano);
}

#[test]
fn attributes_follow_the_conventions() {
    let (spans, _) = spans_of_a_retry();
    let about = |span: &Span| {
        let shown = span.attributes.iter().map(|pair| {
            let value = pair.value.as_ref().unwrap().value.as_ref().unwrap();
            format!("{}={value:?}", pair.key)
        });
        shown.collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(about(&spans[0]), @r#"
    http.request.method=StringValue("GET")
    url.scheme=StringValue("https")
    url.path=StringValue("/v1/items")
    server.address=StringValue("orders.internal")
    server.port=IntValue(8443)
    network.protocol.version=StringValue("1.1")
    client.address=StringValue("127.0.0.1")
    client.port=IntValue(4000)
    network.peer.address=StringValue("127.0.0.1")
    network.peer.port=IntValue(4000)
    user_agent.original=StringValue("curl")
    http.request.body.size=IntValue(0)
    http.response.body.size=IntValue(0)
    http.response.status_code=IntValue(200)
    attache.listener=StringValue("outbound")
    attache.attempts=IntValue(2)
    "#);
    insta::assert_snapshot!(about(&spans[1]), @r#"
    http.request.method=StringValue("GET")
    url.full=StringValue("http://orders.internal:8443/v1/items")
    server.address=StringValue("orders.internal")
    server.port=IntValue(8443)
    network.peer.address=StringValue("10.0.0.7")
    network.peer.port=IntValue(80)
    attache.upstream=StringValue("orders")
    attache.endpoint=StringValue("10.0.0.7:80")
    attache.reason=StringValue("connect-refused")
    error.type=StringValue("connect-refused")
    "#);
    insta::assert_snapshot!(about(&spans[3]), @r#"
    http.request.method=StringValue("GET")
    url.full=StringValue("http://orders.internal:8443/v1/items")
    server.address=StringValue("orders.internal")
    server.port=IntValue(8443)
    network.peer.address=StringValue("10.0.0.8")
    network.peer.port=IntValue(80)
    http.request.resend_count=IntValue(1)
    http.response.status_code=IntValue(200)
    attache.upstream=StringValue("orders")
    attache.endpoint=StringValue("10.0.0.8:80")
    "#);
}

#[test]
fn a_full_queue_costs_spans_which_are_counted() {
    let (tracer, _exports, metrics) = tracer(1.0, W3C);
    for _ in 0..5 {
        let exchange = exchange();
        tracer.begin(&exchange, &mut Fields::new(), false);
        finish_trace(&exchange, Duration::ZERO);
    }
    let page = metrics.render();
    let line = "attache_trace_spans_dropped_total{cause=\"queue-full\"} 3";
    assert!(page.contains(line), "{page}");
}

#[test]
fn an_abandoned_attempt_has_an_end_too() {
    let (tracer, mut exports, _) = tracer(1.0, W3C);
    let exchange = exchange();
    let mut headers = Fields::new();
    tracer.begin(&exchange, &mut headers, false);
    let attempt = AttemptTrace::begin(&exchange, &"orders".into(), false, Some(&mut headers)).unwrap();
    drop(attempt.connecting(&"10.0.0.7:80".into()));
    drop(attempt);
    exchange.fail(Reason::PerTryTimeout, "");
    exchange.status.set(504);
    finish_trace(&exchange, exchange.start.elapsed());
    let finished = exports.waiting().try_recv().unwrap();
    assert_eq!(finished.attempts[0].reason, Some(Reason::PerTryTimeout));
    assert_eq!(finished.attempts[0].connects.len(), 1);
}

#[test]
fn a_hedge_has_a_span_beside_the_slow_attempt() {
    let (tracer, mut exports, _) = tracer(1.0, W3C);
    let exchange = exchange();
    let mut headers = Fields::new();
    tracer.begin(&exchange, &mut headers, false);
    let (upstream, request) = (Name::from("orders"), exchange.trace.borrow().as_ref().unwrap().span_id());
    exchange.endpoint.replace(Some("10.0.0.7:80".into()));
    let slow = AttemptTrace::begin(&exchange, &upstream, false, Some(&mut headers)).unwrap();
    let beside = exchange.beside();
    beside.endpoint.replace(Some("10.0.0.8:80".into()));
    let quick = AttemptTrace::begin(&beside, &upstream, false, Some(&mut headers)).unwrap();
    quick.responded(&beside, 200);
    exchange.take_over(&beside);
    drop(slow);
    drop(quick);
    exchange.status.set(200);
    finish_trace(&exchange, exchange.start.elapsed());
    let finished = exports.waiting().try_recv().unwrap();
    assert_eq!(finished.span, request);
    let endpoints: Vec<_> = finished.attempts.iter().map(|span| span.endpoint.as_deref().unwrap()).collect();
    assert_eq!(endpoints, ["10.0.0.7:80", "10.0.0.8:80"]);
    assert!(finished.attempts[0].end > Some(finished.attempts[1].begin), "they ran side by side");
    assert!(finished.attempts.iter().all(|span| span.reason.is_none()));
}

#[test]
fn a_look_up_that_was_waited_for_is_a_span() {
    let (tracer, mut exports, _) = tracer(1.0, W3C);
    let exchange = exchange();
    tracer.begin(&exchange, &mut Fields::new(), false);
    exchange.looked_up("at.hand", exchange.start + exchange.start.elapsed(), Ok(()));
    std::thread::sleep(Duration::from_millis(1));
    exchange.looked_up("far.away", exchange.start, Err(Reason::DnsTimeout));
    finish_trace(&exchange, exchange.start.elapsed());
    let finished = exports.waiting().try_recv().unwrap();
    let spans =
        convert::resource_spans(&crate::otlp::resource(&crate::otlp::tests::collector()), &[finished])
            .scope_spans
            .remove(0)
            .spans;
    assert_eq!(spans.last().unwrap().name, "look-up");
    let far = spans.iter().find(|span| format!("{span:?}").contains("far.away")).unwrap();
    assert_eq!(far.parent_span_id, spans[0].span_id);
    assert_eq!(far.status.as_ref().unwrap().message, "dns-timeout");
}

#[test]
fn zipkin_gets_the_same_spans() {
    let (tracer, mut exports, _) = tracer(1.0, W3C);
    let exchange = exchange();
    let mut headers = headers(&[("traceparent", PARENT)]);
    tracer.begin(&exchange, &mut headers, false);
    exchange.endpoint.replace(Some("[fd00::7]:80".into()));
    let attempt = AttemptTrace::begin(&exchange, &"orders".into(), false, Some(&mut headers)).unwrap();
    drop(attempt.connecting(&"[fd00::7]:80".into()));
    drop(attempt);
    exchange.fail(Reason::PerTryTimeout, "");
    exchange.status.set(504);
    finish_trace(&exchange, exchange.start.elapsed());
    let finished = exports.waiting().try_recv().unwrap();
    let resource = crate::otlp::resource(&crate::otlp::tests::collector());
    let json = zipkin::encode(&resource, &[finished]);
    let spans: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    let [server, client, connect] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(server["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((&server["parentId"], &server["kind"]), (&"b7ad6b7169203331".into(), &"SERVER".into()));
    assert_eq!(server["localEndpoint"]["serviceName"], "shop");
    assert_eq!(server["remoteEndpoint"], serde_json::json!({ "ipv4": "127.0.0.1", "port": 4000 }));
    assert_eq!((&server["tags"]["team"], &server["tags"]["error"]), (&"a".into(), &"per-try-timeout".into()));
    assert_eq!(server["tags"]["http.response.status_code"], "504", "tags are texts");
    assert!(
        server["timestamp"].as_u64() > Some(1_600_000_000_000_000) && server["duration"].as_u64() >= Some(1)
    );
    assert_eq!((&client["parentId"], &client["kind"]), (&server["id"], &"CLIENT".into()));
    assert_eq!(
        client["remoteEndpoint"],
        serde_json::json!({ "ipv6": "fd00::7", "port": 80, "serviceName": "orders" })
    );
    assert_eq!((&connect["parentId"], connect.get("kind")), (&client["id"], None));
}
