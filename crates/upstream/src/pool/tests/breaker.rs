//! The breaker's counts.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use attache_telemetry::Reason;
use tokio::{
    io::AsyncWriteExt,
    sync::Notify,
    task::spawn_local,
    time::{Instant, pause, timeout},
};

use crate::{SentPart, testing::*};

/// A server that answers when it is told to.
async fn held() -> (CountingServer, Rc<Notify>) {
    let go = Rc::new(Notify::new());
    let gone = Rc::clone(&go);
    let server = serve(move |mut stream, _| {
        let go = Rc::clone(&gone);
        async move {
            while head(&mut stream).await.is_some() {
                go.notified().await;
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (server, go)
}

#[tokio::test(flavor = "local")]
async fn a_call_above_max_requests_is_refused_at_once() {
    let (server, go) = held().await;
    let upstream = to(&server, |c| c.circuit_breaker.max_requests = 1);
    let first = spawn_local({
        let upstream = upstream.clone();
        async move { upstream.send(get("/")).await }
    });
    settle().await;
    let error = upstream.send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::OverflowRequests, SentPart::Nothing));
    go.notify_one();
    first.await.unwrap().unwrap();
    go.notify_one();
    upstream.send(get("/")).await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn at_max_connections_a_call_waits_for_one_to_come_free() {
    let (server, go) = held().await;
    let upstream = to(&server, |c| c.circuit_breaker.max_connections = 1);
    let first = spawn_local({
        let upstream = upstream.clone();
        async move { upstream.send(get("/")).await }
    });
    settle().await;
    let second = spawn_local({
        let upstream = upstream.clone();
        async move { upstream.send(get("/")).await }
    });
    settle().await;
    assert_eq!(upstream.shared().pending.load(Relaxed), 1);
    go.notify_one();
    first.await.unwrap().unwrap();
    settle().await;
    go.notify_one();
    second.await.unwrap().unwrap();
    assert_eq!(server.accepted.get(), 1);
    assert_eq!(upstream.shared().pending.load(Relaxed), 0);
}

#[tokio::test(flavor = "local")]
async fn a_call_that_waits_too_long_for_a_connection_overflows() {
    let (server, _go) = held().await;
    let upstream = to(&server, |c| c.circuit_breaker.max_connections = 1);
    let first = upstream.clone();
    spawn_local(async move { first.send(get("/")).await });
    settle().await;
    pause();
    let start = Instant::now();
    let error = upstream.send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::OverflowConnections, SentPart::Nothing));
    assert!(start.elapsed() >= Duration::from_secs(1), "connect_timeout is how long it waits");
}

#[tokio::test(flavor = "local")]
async fn a_call_above_max_pending_is_refused_at_once() {
    let (server, _go) = held().await;
    let upstream = to(&server, |c| {
        c.circuit_breaker.max_connections = 1;
        c.circuit_breaker.max_pending = 1;
    });
    for _ in 0..2 {
        let upstream = upstream.clone();
        spawn_local(async move { upstream.send(get("/")).await });
        settle().await;
    }
    let error = upstream.send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::OverflowPending, SentPart::Nothing));
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_to_another_endpoint_makes_room() {
    let (one, two) = (answering(OK).await, answering(OK).await);
    let mut config = config();
    config.circuit_breaker.max_connections = 1;
    let endpoints = vec![endpoint(one.address, None), endpoint(two.address, None)];
    let upstream = upstream(config, endpoints.clone());
    upstream.send(get("/")).await.unwrap();
    let call = get("/");
    call.context.tried.push(&endpoints[0]);
    upstream.send(call).await.unwrap();
    assert_eq!((one.accepted.get(), two.accepted.get(), counts(&upstream).0), (1, 1, 1));
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_s_load_is_counted_while_its_requests_run() {
    let (server, go) = held().await;
    let upstream = to(&server, |_| {});
    let endpoint = upstream.shared().endpoints.load().endpoints[0].clone();
    let first = upstream.clone();
    let first = spawn_local(async move { first.send(get("/")).await });
    settle().await;
    assert_eq!(endpoint.active.load(Relaxed), 1);
    go.notify_one();
    first.await.unwrap().unwrap();
    assert_eq!(endpoint.active.load(Relaxed), 0);
}

#[tokio::test(flavor = "local")]
async fn a_cancelled_wait_leaves_nothing_behind() {
    let (server, _go) = held().await;
    let upstream = to(&server, |c| c.circuit_breaker.max_connections = 1);
    let first = upstream.clone();
    let first = spawn_local(async move { first.send(get("/")).await });
    settle().await;
    assert!(timeout(Duration::from_millis(50), upstream.send(get("/"))).await.is_err());
    first.abort();
    settle().await;
    assert_eq!((counts(&upstream), upstream.shared().pending.load(Relaxed)), ((0, 0), 0));
}

#[tokio::test(flavor = "local")]
async fn http_can_not_be_routed_to_a_tcp_upstream() {
    let server = answering(OK).await;
    let upstream = to(&server, |c| c.protocol = attache_config::model::UpstreamProtocol::Tcp);
    let error = upstream.send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::ProtocolMismatch, SentPart::Nothing));
    let bare = opaque(&upstream).await.unwrap();
    assert_eq!(counts(&upstream), (1, 1));
    drop(bare);
    assert_eq!(counts(&upstream), (0, 0));
}
