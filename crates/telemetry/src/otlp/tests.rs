use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, SystemTime},
};

use attache_config::model::{self, Collector};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
        metrics::v1::ExportMetricsServiceRequest,
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::{AggregationTemporality, HistogramDataPoint, Metric, metric::Data},
};
use prost::Message;
use tokio::{task::LocalSet, time::Instant};

use super::*;
use crate::{Exchange, Metrics, Reason};
use attache_rpc::Io;

pub(crate) fn collector() -> Collector {
    Collector {
        host: "collector".into(),
        path: "/v1/traces".into(),
        service: "shop".into(),
        resource: vec![("team".into(), "a".into())],
        ..Collector::default()
    }
}

fn exchange(status: u16, reason: Option<Reason>) -> Exchange {
    let exchange = Exchange::new("outbound".into(), "http1", Some("127.0.0.1:4000".parse().unwrap()));
    exchange.method.replace("GET".into());
    exchange.host.replace("orders.internal".into());
    exchange.path.replace("/v1/items".into());
    exchange.route.replace(Some("items".into()));
    exchange.upstream.replace(Some("orders".into()));
    exchange.status.set(status);
    exchange.reason.set(reason);
    exchange
}

fn attribute(of: &[KeyValue], key: &str) -> Option<String> {
    let value = of.iter().find(|pair| pair.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// The requests that a collector received: when, and the body.
type ReceivedExports = Rc<RefCell<Vec<(Instant, Vec<u8>)>>>;

/// A collector that sends these responses, and repeats the last one.
fn answering(answers: Vec<(u16, Option<&'static str>, Vec<u8>)>) -> (Dial, ReceivedExports) {
    let seen = ReceivedExports::default();
    let (kept, answers) = (seen.clone(), Rc::new(RefCell::new(answers)));
    let dial = move || -> DialFuture {
        let (client, server) = tokio::io::duplex(1 << 20);
        let (kept, answers) = (kept.clone(), answers.clone());
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request: http::Request<Incoming>| {
                let (kept, answers) = (kept.clone(), answers.clone());
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
                    kept.borrow_mut().push((Instant::now(), body));
                    let mut answers = answers.borrow_mut();
                    let (status, after, body) =
                        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
                    let mut response = Response::new(Full::new(bytes::Bytes::from(body)));
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    if let Some(after) = after {
                        response.headers_mut().insert("retry-after", after.parse().unwrap());
                    }
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(server), service).await;
        });
        Box::pin(async move { Ok(Box::new(client) as Box<dyn Io>) })
    };
    (Box::new(dial), seen)
}

fn logs_of(body: &[u8]) -> Vec<LogRecord> {
    let request = ExportLogsServiceRequest::decode(body).unwrap();
    request
        .resource_logs
        .into_iter()
        .flat_map(|logs| logs.scope_logs)
        .flat_map(|scope| scope.log_records)
        .collect()
}

fn log_config(queue: usize) -> model::OtlpLogs {
    model::OtlpLogs { collector: collector(), queue }
}

fn counted(metrics: &Metrics, outcome: &str) -> Option<f64> {
    let page = metrics.render();
    let start = format!("attache_otlp_log_records_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

#[tokio::test(start_paused = true)]
async fn a_finished_exchange_is_one_record_with_the_conventions_attributes() {
    let metrics = Metrics::new();
    let (logs, exports) = OtlpLogHandle::new(Some(&log_config(16)), &[], &metrics);
    let (dial, seen) = answering(vec![(200, None, Vec::new())]);
    LocalSet::new()
        .run_until(async move {
            let logger = logs.logger(&metrics.worker());
            logger.write(&exchange(200, None), Duration::from_millis(12));
            logger.write(&exchange(503, Some(Reason::ConnectRefused)), Duration::from_millis(3));
            logs.end();
            exports.unwrap().run(dial).await;
            let records = logs_of(&seen.borrow()[0].1);
            assert_eq!(records.len(), 2);
            let of = |index: usize, key: &str| attribute(&records[index].attributes, key);
            assert_eq!(of(0, "http.request.method").as_deref(), Some("GET"));
            assert_eq!(of(0, "http.response.status_code").as_deref(), Some("200"));
            assert_eq!(of(0, "server.port").as_deref(), Some("80"));
            assert_eq!(of(0, "attache.duration").as_deref(), Some("0.012"));
            assert_eq!(of(0, "error.type"), None);
            assert_eq!(records[0].severity_text, "INFO");
            assert_eq!(of(1, "error.type").as_deref(), Some("connect-refused"));
            assert_eq!(records[1].severity_text, "ERROR");
            assert_eq!(counted(&metrics, "exported"), Some(2.0));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn records_that_do_not_fit_into_the_queue_are_dropped_and_counted() {
    let metrics = Metrics::new();
    let (logs, exports) = OtlpLogHandle::new(Some(&log_config(2)), &[], &metrics);
    let logger = logs.logger(&metrics.worker());
    for _ in 0..5 {
        logger.write(&exchange(200, None), Duration::ZERO);
    }
    assert_eq!(counted(&metrics, "queue-full"), Some(3.0));
    drop(exports);
}

#[tokio::test(start_paused = true)]
async fn an_export_to_an_overloaded_collector_is_repeated_after_the_requested_wait() {
    let metrics = Metrics::new();
    let (logs, exports) = OtlpLogHandle::new(Some(&log_config(16)), &[], &metrics);
    let partial = ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: 1,
            error_message: "no".into(),
        }),
    };
    let (dial, seen) = answering(vec![
        (503, None, Vec::new()),
        (429, Some("4"), Vec::new()),
        (200, None, partial.encode_to_vec()),
    ]);
    LocalSet::new()
        .run_until(async move {
            let logger = logs.logger(&metrics.worker());
            logger.write(&exchange(200, None), Duration::ZERO);
            logger.write(&exchange(200, None), Duration::ZERO);
            logs.end();
            exports.unwrap().run(dial).await;
            let seen = seen.borrow();
            assert_eq!(seen.len(), 3);
            // Half a second, which varies randomly by a half; then the wait that the collector asked for.
            let (first, second) = (seen[1].0 - seen[0].0, seen[2].0 - seen[1].0);
            assert!((Duration::from_millis(250)..=Duration::from_millis(760)).contains(&first), "{first:?}");
            assert!((Duration::from_secs(4)..Duration::from_millis(4100)).contains(&second), "{second:?}");
            assert_eq!(counted(&metrics, "exported"), Some(1.0));
            assert_eq!(counted(&metrics, "rejected"), Some(1.0));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_final_refusal_is_not_repeated_and_all_attempts_end_with_the_timeout() {
    for (status, attempts) in [(400, 1..=1), (503, 4..=9)] {
        let metrics = Metrics::new();
        let (logs, exports) = OtlpLogHandle::new(Some(&log_config(16)), &[], &metrics);
        let (dial, seen) = answering(vec![(status, None, Vec::new())]);
        LocalSet::new()
            .run_until(async move {
                let began = Instant::now();
                logs.logger(&metrics.worker()).write(&exchange(200, None), Duration::ZERO);
                logs.end();
                exports.unwrap().run(dial).await;
                assert!(attempts.contains(&seen.borrow().len()), "{status}: {}", seen.borrow().len());
                assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
                assert_eq!(counted(&metrics, "export-failed"), Some(1.0));
            })
            .await;
    }
}

fn durations(metrics: &[Metric], name: &str) -> Vec<HistogramDataPoint> {
    let metric = metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(metric.unit, "s");
    let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    assert_eq!(histogram.aggregation_temporality, AggregationTemporality::Cumulative as i32);
    histogram.data_points.clone()
}

#[test]
fn durations_have_the_conventions_buckets_and_attributes() {
    let config = attache_config::parse(
        "listeners: { outbound: { bind: 127.0.0.1:0, routes: [{ name: items, match: { path: '/v1/*' }, to: orders }] } }\n\
         upstreams: { orders: https://orders.internal:8443 }\notlp: http://c:4318\n",
        None,
        &|_| None,
    )
    .unwrap();
    let metrics = Metrics::new();
    let worker = metrics.worker();
    worker.request_finished(&exchange(200, None));
    metrics.expect(&config);
    worker.request_finished(&exchange(200, None));
    worker.request_finished(&exchange(404, None));
    worker.request_finished(&exchange(500, None));
    let call = exchange(200, None);
    worker.client_request(&"orders".into(), &call, "2", 200, None, Duration::from_millis(30));
    worker.client_request(
        &"orders".into(),
        &call,
        "",
        0,
        Some(Reason::ConnectRefused),
        Duration::from_millis(1),
    );
    let request: ExportMetricsServiceRequest =
        super::metrics::request(&metrics, &resource(&collector()), SystemTime::now());
    let all = &request.resource_metrics[0].scope_metrics[0].metrics;
    let server = durations(all, "http.server.request.duration");
    let of = |point: &HistogramDataPoint, key: &str| attribute(&point.attributes, key).unwrap_or_default();
    let mut seen: Vec<_> = server
        .iter()
        .map(|point| (of(point, "http.response.status_code"), of(point, "error.type"), point.count))
        .collect();
    seen.sort();
    // Requests before the first use of these counts are not included.
    assert_eq!(
        seen,
        [
            ("200".to_owned(), String::new(), 1),
            ("404".to_owned(), String::new(), 1),
            ("500".to_owned(), "500".to_owned(), 1)
        ]
    );
    let point = &server[0];
    assert_eq!(of(point, "http.route"), "/v1/*");
    assert_eq!(of(point, "url.scheme"), "http");
    assert_eq!(of(point, "network.protocol.version"), "1.1");
    assert_eq!(
        point.explicit_bounds,
        [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
    );
    assert_eq!(point.bucket_counts.len(), 15);
    let client = durations(all, "http.client.request.duration");
    let good = client.iter().find(|point| of(point, "http.response.status_code") == "200").unwrap();
    assert_eq!(
        (of(good, "server.address"), of(good, "server.port")),
        ("orders.internal".into(), "8443".into())
    );
    assert_eq!(of(good, "network.protocol.version"), "2");
    assert!((good.sum.unwrap() - 0.03).abs() < 1e-9);
    assert_eq!(good.bucket_counts[3], 1, "30 ms are above 25 and within 50");
    let bad = client.iter().find(|point| of(point, "http.response.status_code").is_empty()).unwrap();
    assert_eq!(of(bad, "error.type"), "connect-refused");
    // The families of `/metrics` have the same names here.
    let requests = all.iter().find(|metric| metric.name == "attache_requests_total").unwrap();
    let Some(Data::Sum(sum)) = &requests.data else { panic!("{requests:?}") };
    assert!(sum.is_monotonic && sum.data_points.iter().all(|point| point.start_time_unix_nano > 0));
}
