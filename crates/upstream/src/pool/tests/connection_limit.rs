//! `max_connections` over several workers. Each has a pool of its own; here they run on one thread.

use std::{sync::Arc, time::Duration};

use attache_config::model::UpstreamProtocol;
use attache_telemetry::Reason;
use h2::server::Builder;
use tokio::{
    io::AsyncWriteExt,
    task::spawn_local,
    time::{Instant, sleep},
};

use super::h2_server::{answer, streams};
use crate::{WorkerUpstream, testing::*};

/// This many workers of one upstream, which has this one server.
fn workers<const N: usize>(
    server: &CountingServer,
    config: attache_config::model::Upstream,
) -> [WorkerUpstream; N] {
    let shared = shared(config, vec![endpoint(server.address, None)]);
    [(); N].map(|()| WorkerUpstream::new(Arc::clone(&shared), None))
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_of_another_worker_is_closed_for_a_call_that_waits() {
    let server = answering(OK).await;
    let mut config = config();
    config.circuit_breaker.max_connections = 2;
    let workers: [_; 4] = workers(&server, config);
    for turn in 0..40 {
        let worker = &workers[turn % 4];
        assert_eq!(text(worker.send(get("/")).await.unwrap()).await, "ok", "{turn}");
        assert!(counts(worker).0 <= 2);
    }
}

#[tokio::test(flavor = "local")]
async fn an_idle_http2_connection_of_another_worker_is_closed_too() {
    let server = streams(Builder::new(), |_, mut respond, _| async move { answer(&mut respond, "ok") }).await;
    let mut config = config();
    config.protocol = UpstreamProtocol::Http2;
    config.circuit_breaker.max_connections = 1;
    let workers: [_; 3] = workers(&server, config);
    for turn in 0..9 {
        let worker = &workers[turn % 3];
        assert_eq!(text(worker.send(get("/")).await.unwrap()).await, "ok", "{turn}");
        assert_eq!(counts(worker).0, 1);
    }
}

#[tokio::test(flavor = "local")]
async fn a_busy_http2_connection_ends_its_streams_for_another_worker_s_call() {
    let server = streams(Builder::new(), |_, mut respond, _| async move {
        sleep(Duration::from_millis(10)).await;
        answer(&mut respond, "ok");
    })
    .await;
    let mut config = config();
    config.protocol = UpstreamProtocol::Http2;
    config.circuit_breaker.max_connections = 1;
    let [one, two] = workers(&server, config);
    // Calls of the first worker overlap, so that its connection is never idle.
    let callers = [0, 3, 6].map(|after| {
        let one = one.clone();
        spawn_local(async move {
            sleep(Duration::from_millis(after)).await;
            for _ in 0..60 {
                one.send(get("/")).await.unwrap();
            }
        })
    });
    settle().await;
    for _ in 0..3 {
        two.send(get("/")).await.unwrap();
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "local")]
async fn a_tunnel_waits_for_a_connection_that_another_call_releases() {
    let server = answering(OK).await;
    let mut config = config();
    config.circuit_breaker.max_connections = 1;
    let [one, two] = workers(&server, config);
    assert_eq!(text(one.send(get("/")).await.unwrap()).await, "ok");
    let bare = opaque(&two).await.unwrap();
    // No connection is idle now, and none becomes idle before the tunnel's end.
    let begun = Instant::now();
    assert_eq!(one.send(get("/")).await.unwrap_err().reason, Reason::OverflowConnections);
    assert!(begun.elapsed() >= Duration::from_secs(1), "`connect_timeout` is how long it waits");
    drop(bare);
    assert_eq!(text(one.send(get("/")).await.unwrap()).await, "ok");
}

#[tokio::test(flavor = "local")]
async fn workers_under_load_share_what_is_allowed() {
    let server = serve(|mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            sleep(Duration::from_millis(2)).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut config = config();
    config.circuit_breaker.max_connections = 2;
    let workers: [_; 3] = workers(&server, config);
    let mut callers = Vec::new();
    for caller in 0..12 {
        let worker = workers[caller % 3].clone();
        callers.push(spawn_local(async move {
            for _ in 0..30 {
                assert_eq!(text(worker.send(get("/")).await.unwrap()).await, "ok");
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let made = server.accepted.get();
    assert!(made < 120, "{made} connections for 360 calls: most are kept for the worker's own calls");
}
