#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use attache_config::model::Name;

use super::{table::ROWS, *};
use crate::{Exchange, Reason};

fn exchange(upstream: Option<&str>) -> Exchange {
    let exchange = Exchange::new("outbound".into(), "http1", None);
    *exchange.upstream.borrow_mut() = upstream.map(Into::into);
    exchange
}

/// The samples of a page, by their names with labels.
fn samples(page: &str) -> BTreeMap<&str, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(key, value)| (key, value.parse().unwrap()))
        .collect()
}

fn exercise_all(metrics: &Metrics) {
    let worker = metrics.worker();
    let name = Name::from("orders");
    let done = exchange(Some("orders"));
    done.handed_to_upstream();
    done.time_to_head.set(Some(Duration::from_millis(3)));
    worker.request_started(&done);
    worker.request_finished(&done);
    worker.connection_opened(&name);
    worker.upstream_connection(&name, Ok(()));
    worker.upstream_connect_times(&name, Some(Duration::from_millis(1)), None);
    worker.count_all();
    worker.pool_reused(&name);
    worker.upstream_connection_closed(&name);
    metrics.set_endpoints(
        &name,
        EndpointCounts { healthy: 2, unhealthy: 1, ejected: 0, circuit_open: 0, unreachable: 0 },
    );
    metrics.set_circuit(&name, Some("closed"));
    let min_rtt = Some(Duration::from_millis(5));
    metrics.set_admission(&name, AdmissionCounts { limit: 9, running: 2, waiting: 1, min_rtt });
    metrics.set_retry_budget(&name, Some([1, 4]));
    metrics.set_overload(OverloadGauges {
        pressure: vec![("memory", 0.5)],
        actions: vec![("disable-keepalive", false)],
    });
    metrics.config_loaded(true);
    metrics.set_certificate_reloads(2, 1, 1);
    metrics.set_insecure_upstreams(vec![name.clone()]);
    metrics.set_certificate_expiry(
        CertificateSide::Listener,
        &name,
        SystemTime::UNIX_EPOCH + Duration::from_secs(7),
    );
}

#[test]
fn the_page_has_every_described_metric_and_no_other() {
    let metrics = Metrics::new();
    exercise_all(&metrics);
    let page = metrics.render();
    let shown: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .map(|line| line.split_once(' ').unwrap().0.to_owned())
        .collect();
    let mut described: BTreeSet<_> = ROWS.iter().map(|row| row.what.name.to_owned()).collect();
    let families: BTreeSet<_> = shown.iter().cloned().collect();
    assert_eq!(shown.len(), families.len(), "a family occurs twice");
    // Not every machine has a CPU quota.
    let throttled = "attache_cpu_throttled_seconds_total";
    if !families.contains(throttled) {
        described.remove(throttled);
    }
    assert_eq!(families, described);
}

#[test]
fn every_sample_has_exactly_the_described_labels() {
    let metrics = Metrics::new();
    exercise_all(&metrics);
    let page = metrics.render();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let descriptor = &ROWS.iter().find(|row| row.what.name == base).unwrap().what;
        let labels: Vec<_> = line
            .split_once('{')
            .map(|(_, rest)| rest.rsplit_once('}').unwrap().0)
            .unwrap_or_default()
            .split(',')
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .filter(|label| *label != "le")
            .collect();
        assert_eq!(labels, descriptor.labels, "{line}");
    }
}

#[test]
fn a_request_counts_once_everywhere() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    let one = exchange(Some("orders"));
    one.status.set(503);
    one.reason.set(Some(Reason::ConnectRefused));
    one.attempts.set(3);
    one.received.set(10);
    one.sent.set(20);
    worker.request_started(&one);
    let page = metrics.render();
    assert_eq!(samples(&page)[r#"attache_requests_in_flight{listener="outbound",protocol="http1"}"#], 1.0);
    let total = worker.request_finished(&one);

    let page = metrics.render();
    let samples = samples(&page);
    let route = r#"listener="outbound",route="",upstream="orders",protocol="http1""#;
    assert_eq!(samples[r#"attache_requests_in_flight{listener="outbound",protocol="http1"}"#], 0.0);
    assert_eq!(
        samples[&*format!(r#"attache_requests_total{{{route},code="5xx",reason="connect-refused"}}"#)],
        1.0
    );
    assert_eq!(samples[&*format!("attache_received_bytes_total{{{route}}}")], 10.0);
    assert_eq!(samples[&*format!("attache_sent_bytes_total{{{route}}}")], 20.0);
    assert_eq!(samples[r#"attache_upstream_attempts_total{upstream="orders"}"#], 3.0);
    assert_eq!(samples[&*format!(r#"attache_request_duration_seconds_count{{{route},code="5xx"}}"#)], 1.0);
    let sum = samples[&*format!(r#"attache_request_duration_seconds_sum{{{route},code="5xx"}}"#)];
    assert!((sum - total.as_secs_f64()).abs() < 2e-6, "{sum} {total:?}");
    assert!(!page.contains("time_to_head"), "there was no response head");
}

#[test]
fn a_status_beyond_the_classes_counts_as_a_server_error() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    for status in [599, 600, 999] {
        let one = exchange(Some("orders"));
        one.status.set(status);
        worker.request_started(&one);
        worker.request_finished(&one);
    }
    let labels = r#"listener="outbound",route="",upstream="orders",protocol="http1",code="5xx",reason="""#;
    assert_eq!(samples(&metrics.render())[&*format!("attache_requests_total{{{labels}}}")], 3.0);
}

#[test]
fn a_grpc_call_counts_by_the_http_status_of_its_outcome() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    for (status, code) in [("0", "2xx"), ("5", "4xx"), ("14", "5xx")] {
        let one = exchange(Some("orders"));
        one.status.set(200);
        one.ended_by_trailers(&http::HeaderMap::from_iter([
            ("grpc-status".parse().unwrap(), status.parse().unwrap()),
            ("grpc-message".parse().unwrap(), "no more".parse().unwrap()),
        ]));
        worker.request_started(&one);
        worker.request_finished(&one);
        let page = metrics.render();
        let labels = format!(
            r#"listener="outbound",route="",upstream="orders",protocol="http1",code="{code}",reason="""#
        );
        assert_eq!(samples(&page)[&*format!("attache_requests_total{{{labels}}}")], 1.0, "{status}");
        let detail = one.detail.borrow().clone();
        assert_eq!(detail.as_deref(), (code == "5xx").then_some("grpc-status 14 from the upstream: no more"));
    }
}

#[test]
fn buckets_are_cumulative_and_end_with_the_count() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    for millis in [0, 1, 1, 40, 90_000] {
        let one = exchange(Some("orders"));
        one.status.set(200);
        one.time_to_head.set(Some(Duration::from_millis(millis)));
        worker.request_started(&one);
        worker.request_finished(&one);
    }
    let page = metrics.render();
    let buckets: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with("attache_request_time_to_head_seconds"))
        .map(|line| {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let bound = key.split_once("le=\"").map_or("", |(_, rest)| rest.trim_end_matches("\"}"));
            let name = key.split('{').next().unwrap().rsplit('_').next().unwrap();
            format!("{name} {bound} {value}")
        })
        .collect();
    insta::assert_snapshot!(buckets.join("\n"), @r"
    bucket 0.0005 1
    bucket 0.001 3
    bucket 0.0025 3
    bucket 0.005 3
    bucket 0.01 3
    bucket 0.025 3
    bucket 0.05 4
    bucket 0.1 4
    bucket 0.25 4
    bucket 0.5 4
    bucket 1 4
    bucket 2.5 4
    bucket 5 4
    bucket 10 4
    bucket 30 4
    bucket 60 4
    bucket +Inf 5
    sum  90.042
    count  5
    ");
}

#[test]
fn connections_and_gauges_fall_again() {
    let metrics = Metrics::new();
    let (one, other) = (metrics.worker(), metrics.worker());
    let (listener, upstream) = (Name::from("outbound"), Name::from("orders"));
    one.connection_opened(&listener);
    other.connection_opened(&listener);
    one.connection_closed(&listener, None);
    one.upstream_connection(&upstream, Ok(()));
    one.upstream_connection_closed(&upstream);
    let page = metrics.render();
    let samples = samples(&page);
    assert_eq!(samples[r#"attache_connections_opened_total{listener="outbound"}"#], 2.0);
    assert_eq!(samples[r#"attache_connections_active{listener="outbound"}"#], 1.0);
    assert_eq!(samples[r#"attache_connections_closed_total{listener="outbound",reason=""}"#], 1.0);
    assert_eq!(samples[r#"attache_upstream_connections_active{upstream="orders"}"#], 0.0);
}

#[test]
fn a_refused_config_shows_until_a_good_one_is_loaded() {
    let metrics = Metrics::new();
    let successful = |metrics: &Metrics| samples(&metrics.render())["attache_config_last_reload_successful"];
    assert_eq!(successful(&metrics), 0.0);
    metrics.config_loaded(true);
    assert_eq!(successful(&metrics), 1.0);
    metrics.config_loaded(false);
    assert_eq!(successful(&metrics), 0.0);
    assert_eq!(samples(&metrics.render())[r#"attache_config_reloads_total{outcome="failed"}"#], 1.0);
    metrics.config_loaded(true);
    assert_eq!(successful(&metrics), 1.0);
}

#[test]
fn endpoints_of_a_removed_upstream_are_forgotten() {
    let metrics = Metrics::new();
    metrics.set_endpoints(&"old".into(), EndpointCounts { healthy: 1, ..Default::default() });
    metrics.set_endpoints(&"new".into(), EndpointCounts { healthy: 1, ..Default::default() });
    metrics.retain_upstreams(|upstream| &**upstream == "new");
    let page = metrics.render();
    assert!(!page.contains("upstream=\"old\""));
    assert_eq!(samples(&page)[r#"attache_upstream_endpoints{upstream="new",state="healthy"}"#], 1.0);
}

#[test]
fn a_certificate_shows_its_expiry_until_it_is_gone() {
    let metrics = Metrics::new();
    let name = Name::from("inbound");
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    metrics.set_certificate_expiry(CertificateSide::Listener, &name, at(5));
    metrics.set_certificate_expiry(CertificateSide::Upstream, &name, at(6));
    metrics.set_certificate_expiry(CertificateSide::Listener, &name, at(7));
    let page = metrics.render();
    let expiry = "attache_tls_certificate_expiry_timestamp_seconds";
    assert_eq!(samples(&page)[&*format!("{expiry}{{side=\"listener\",name=\"inbound\"}}")], 7.0);
    metrics.retain_certificates(|side, _| side == CertificateSide::Listener);
    assert!(!metrics.render().contains("side=\"upstream\""));
    assert!(metrics.render().contains("side=\"listener\""));
}

#[test]
fn a_name_with_quotes_can_not_forge_a_label() {
    let metrics = Metrics::new();
    metrics.worker().pool_reused(&"a\"} 1\nforged 2".into());
    let page = metrics.render();
    assert!(page.contains(r#"attache_upstream_pool_reused_total{upstream="a\"} 1\nforged 2"} 1"#), "{page}");
}

#[test]
fn the_counters_of_a_thread_are_those_it_installed() {
    super::metrics().panic_caught();
    let metrics = Metrics::new();
    metrics.worker().install();
    super::metrics().panic_caught();
    let other = std::thread::spawn(|| super::metrics().panic_caught());
    other.join().unwrap();
    assert_eq!(samples(&metrics.render())["attache_panics_total"], 1.0);
}

#[test]
fn a_breaker_is_in_one_state_and_its_changes_are_counted() {
    let (metrics, name) = (Metrics::new(), Name::from("orders"));
    metrics.set_circuit(&name, Some("half-open"));
    metrics.worker().transition(&name, None, "circuit", "half-open", "");
    let page = metrics.render();
    for (state, value) in [("closed", 0), ("half-open", 1), ("open", 0)] {
        let sample =
            format!("attache_upstream_circuit_state{{upstream=\"orders\",state=\"{state}\"}} {value}\n");
        assert!(page.contains(&sample), "{sample} in {page}");
    }
    let sample =
        "attache_upstream_transitions_total{upstream=\"orders\",what=\"circuit\",to=\"half-open\"} 1\n";
    assert!(page.contains(sample), "{page}");
    metrics.retain_upstreams(|_| false);
    assert!(!metrics.render().contains("circuit_state{"));
}

#[test]
fn time_is_split_into_the_upstream_s_and_attache_s() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    let done = exchange(Some("orders"));
    done.handed_to_upstream();
    done.tried_again(Reason::UpstreamReset);
    done.handed_to_upstream();
    done.time_to_head.set(Some(done.start.elapsed() + Duration::from_secs(3)));
    worker.request_finished(&done);
    let page = metrics.render();
    let of = |name: &str| {
        let name = format!("{name}_sum{{listener=\"outbound\",upstream=\"orders\"}}");
        *samples(&page).get(name.as_str()).unwrap()
    };
    let (upstream, added) =
        (of("attache_request_upstream_duration_seconds"), of("attache_request_added_duration_seconds"));
    assert!(upstream >= 3.0 && added < 3.0, "{upstream} {added}");
    let head = done.time_to_head.get().unwrap().as_secs_f64();
    assert!((upstream + added - head).abs() < 1e-5, "{upstream} + {added} = {head}");
}

#[test]
fn openmetrics_has_units_and_names_counters_by_its_own_rule() {
    let metrics = Metrics::new();
    exercise_all(&metrics);
    let page = metrics.render_openmetrics();
    for line in [
        "# TYPE attache_requests counter",
        "# TYPE attache_received_bytes counter\n# UNIT attache_received_bytes bytes",
        "# UNIT attache_request_duration_seconds seconds",
        "attache_upstream_connect_duration_seconds_bucket{upstream=\"orders\",step=\"tcp\",le=\"1.0\"} 1",
        "attache_upstream_pool_reused_total{upstream=\"orders\"} 1",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    assert!(!page.contains(" # {"), "an exemplar of a request that was not sampled");
}

#[test]
fn the_bucket_of_a_sampled_request_has_its_trace() {
    let metrics = Metrics::new();
    let config = crate::trace::sampled_config();
    let (all, _exports) = crate::Traces::new(Some(&config), &metrics);
    let worker = metrics.worker();
    let tracer = all.tracer(&worker).unwrap();
    let done = exchange(Some("orders"));
    tracer.begin(&done, &mut attache_wire::Fields::new(), false);
    worker.request_finished(&done);
    worker.request_finished(&exchange(Some("orders")));
    let page = metrics.render_openmetrics();
    let with_exemplar: Vec<_> = page.lines().filter(|line| line.contains(" # {")).collect();
    let [line] = with_exemplar[..] else { panic!("{page}") };
    let id = done.trace_id.get().unwrap();
    assert!(line.starts_with("attache_request_duration_seconds_bucket{"), "{line}");
    assert!(line.contains(&format!(" # {{trace_id=\"{id}\"}} 0.")), "{line}");
}

#[test]
fn the_values_of_two_exemplars_are_never_mixed() {
    use super::{
        exemplars,
        series::{Label, SeriesFamily, WorkerSeries},
    };
    let family = std::sync::Arc::new(SeriesFamily::<1, { exemplars::CELLS }>::default());
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = {
        let (family, done) = (family.clone(), done.clone());
        std::thread::spawn(move || {
            let table = WorkerSeries::new(&family);
            for n in 1..200_000 {
                let id = crate::TraceId::of_halves([n, n]);
                table.with([Label::Word("a")], |series| {
                    exemplars::write(series, id, Duration::from_micros(n % 400));
                });
            }
            done.store(true, Relaxed);
        })
    };
    while !done.load(Relaxed) {
        for exemplars in family.fold(exemplars::read).into_values() {
            let exemplars: exemplars::Exemplars = exemplars;
            if let Some(exemplar) = exemplars[0] {
                let [high, low] = exemplar.trace.halves();
                assert_eq!(high, low);
                assert_eq!(high % 400, exemplar.micros);
            }
        }
    }
    writer.join().unwrap();
}
