//! What the metrics and `peak-ewma` learn of calls.

use std::{rc::Rc, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use attache_config::model::{Algorithm, Balance};
use attache_telemetry::{Metrics, Reason};
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::Notify, task::spawn_local, time::Instant};

use crate::{Balancer, EndpointAddress, EndpointSpec, WorkerUpstream, test_support, testing::*};

/// Metrics that this test's thread counts into.
fn installed() -> Metrics {
    let metrics = Metrics::new();
    metrics.worker().install();
    metrics
}

/// The samples of upstreams, without the name of the one upstream.
fn samples(metrics: &Metrics) -> Vec<String> {
    let page = metrics.render();
    let of_upstreams = page.lines().filter_map(|line| line.strip_prefix("attache_upstream_"));
    // These tests don't check durations.
    of_upstreams
        .filter(|line| !line.starts_with("connect_duration"))
        .map(|line| line.replace("upstream=\"test\"", "").replace("{}", "").replace("{,", "{"))
        .collect()
}

#[tokio::test(flavor = "local")]
async fn a_connection_is_counted_when_it_opens_when_it_is_reused_and_when_it_closes() {
    let metrics = installed();
    let server = answering(OK).await;
    let upstream = to(&server, |_| {});
    for _ in 0..3 {
        text(upstream.send(get("/")).await.unwrap()).await;
    }
    let open = ["connections_opened_total 1", "connections_active 1", "pool_reused_total 2"];
    assert_eq!(samples(&metrics), open);
    drop(upstream);
    settle().await;
    assert_eq!(
        samples(&metrics),
        ["connections_opened_total 1", "connections_active 0", "pool_reused_total 2"]
    );
}

#[tokio::test(flavor = "local")]
async fn a_kept_connection_that_was_dead_is_not_counted_as_reused() {
    let metrics = installed();
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let upstream = to(&server, |_| {});
    text(upstream.send(get("/")).await.unwrap()).await;
    settle().await;
    text(upstream.send(get("/")).await.unwrap()).await;
    assert_eq!(server.accepted.get(), 2);
    assert!(!samples(&metrics).iter().any(|line| line.starts_with("pool_reused")));
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_can_not_be_made_is_counted_with_its_reason_and_against_its_endpoint() {
    let metrics = installed();
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = config();
    config.balance.algorithm = Algorithm::PeakEwma;
    let endpoint = endpoint(address, None);
    let upstream = upstream(config, vec![endpoint.clone()]);
    assert_eq!(upstream.send(get("/")).await.unwrap_err().reason, Reason::ConnectRefused);
    assert_eq!(samples(&metrics), ["connection_failures_total{reason=\"connect-refused\"} 1"]);
    assert!(f64::from_bits(endpoint.ewma.load(Relaxed)) >= 1e9, "a fast failure must not attract traffic");
    let bare = opaque(&upstream).await;
    assert_eq!(bare.unwrap_err().reason, Reason::ConnectRefused);
    assert_eq!(samples(&metrics), ["connection_failures_total{reason=\"connect-refused\"} 2"]);
}

#[tokio::test(flavor = "local")]
async fn a_bare_connection_is_open_until_its_guard_is_dropped() {
    let metrics = installed();
    let server = answering(OK).await;
    let bare = opaque(&to(&server, |_| {})).await.unwrap();
    assert_eq!(samples(&metrics), ["connections_opened_total 1", "connections_active 1"]);
    drop(bare);
    assert_eq!(samples(&metrics), ["connections_opened_total 1", "connections_active 0"]);
}

#[tokio::test(flavor = "local")]
async fn calls_that_a_limit_refuses_are_counted() {
    let metrics = installed();
    let server = answering(OK).await;
    let upstream = to(&server, |c| c.circuit_breaker.max_requests = 0);
    upstream.send(get("/")).await.unwrap_err();
    opaque(&upstream).await.unwrap_err();
    assert_eq!(samples(&metrics), ["overflow_total{reason=\"overflow-requests\"} 2"]);
    let metrics = installed();
    let upstream = to(&server, |c| c.circuit_breaker.max_pending = 0);
    upstream.send(get("/")).await.unwrap_err();
    assert_eq!(samples(&metrics), ["overflow_total{reason=\"overflow-pending\"} 1"]);
}

#[tokio::test(flavor = "local")]
async fn peak_ewma_prefers_the_endpoint_that_answers_sooner() {
    let go = Rc::new(Notify::new());
    let mut specs = Vec::new();
    for _ in 0..2 {
        let go = go.clone();
        let server = serve(move |mut stream, _| {
            let go = go.clone();
            async move {
                while head(&mut stream).await.is_some() {
                    go.notified().await;
                    stream.write_all(OK.as_bytes()).await.unwrap();
                }
            }
        });
        specs.push(EndpointSpec::new(EndpointAddress::Tcp(server.await.address)));
    }
    let balance = Balance { algorithm: Algorithm::PeakEwma, ..Balance::default() };
    let shared = test_support::shared(balance.clone(), specs);
    let upstream = WorkerUpstream::new(Arc::clone(&shared), None);

    let send = |call: crate::Call| {
        let upstream = upstream.clone();
        spawn_local(async move {
            let exchange = call.context.exchange.clone();
            text(upstream.send(call).await.unwrap()).await;
            exchange.endpoint.take().unwrap()
        })
    };
    let start = Instant::now();
    go.notify_one();
    let quick = send(get("/")).await.unwrap();
    let took = start.elapsed();
    // An endpoint that was never measured is tried next; this one takes longer than the first.
    let slow = send(get("/"));
    tokio::time::sleep(took * 2 + Duration::from_millis(10)).await;
    go.notify_one();
    assert_ne!(slow.await.unwrap(), quick);

    let mut balancer = Balancer::new(&balance, 8);
    for _ in 0..100 {
        assert_eq!(balancer.pick(&shared, None, &[]).unwrap().label, quick);
    }
    go.notify_one();
    assert_eq!(send(get("/")).await.unwrap(), quick);
}
