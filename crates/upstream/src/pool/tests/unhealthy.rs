//! `on_unhealthy`: what happens to the connections to an endpoint that turns unhealthy.

use std::{sync::Arc, time::Duration};

use attache_config::model::{self, OnUnhealthy};
use attache_http::Body;
use attache_telemetry::Reason;
use h2::server::Builder;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    task::spawn_local,
    time::pause,
};

use super::{
    h2::h2,
    h2_server::{answer, streams},
};
use crate::{Endpoint, WorkerUpstream, pool::upgraded, testing::*, tunnel::copy_both};

fn close(config: &mut model::Upstream) {
    config.on_unhealthy = OnUnhealthy::Close;
}

fn endpoint_of(upstream: &WorkerUpstream) -> Arc<Endpoint> {
    Arc::clone(&upstream.shared().endpoints.load().endpoints[0])
}

/// The ways to turn unhealthy.
const WAYS: [fn(&Endpoint); 3] = [
    |endpoint| assert!(endpoint.set_healthy(false)),
    |endpoint| assert!(endpoint.set_ejected(true)),
    Endpoint::remove,
];

#[tokio::test(flavor = "local")]
async fn idle_connections_of_both_protocols_are_closed_within_two_seconds() {
    let http1 = answering(OK).await;
    let http2 = streams(Builder::new(), |_, mut respond, _| async move { answer(&mut respond, "ok") }).await;
    pause();
    for turns in WAYS {
        for upstream in [to(&http1, close), h2(&http2, close)] {
            text(upstream.send(get("/")).await.unwrap()).await;
            assert_eq!(counts(&upstream).0, 1);
            turns(&endpoint_of(&upstream));
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(counts(&upstream).0, 0);
        }
    }
}

#[tokio::test(flavor = "local")]
async fn by_default_they_stay_unless_discovery_no_longer_names_the_endpoint() {
    let server = answering(OK).await;
    pause();
    for (turns, kept) in WAYS.into_iter().zip([1, 1, 0]) {
        let upstream = to(&server, |_| {});
        text(upstream.send(get("/")).await.unwrap()).await;
        turns(&endpoint_of(&upstream));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(counts(&upstream).0, kept);
    }
}

#[tokio::test(flavor = "local")]
async fn a_running_call_ends_as_usual_and_then_its_connection_closes() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        stream.write_all(b"later").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = to(&server, close);
    let running = upstream.send(get("/")).await.unwrap();
    pause();
    endpoint_of(&upstream).set_healthy(false);
    assert_eq!(text(running).await, "firstlater");
    settle().await;
    assert_eq!(counts(&upstream), (0, 0));
}

/// How long a tunnel and an opaque connection to the server stay, and how they end.
async fn tunnels(change: fn(&mut model::Upstream), turns: fn(&Endpoint)) -> Vec<Option<Reason>> {
    let server = serve(|mut stream, _| async move {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).await.unwrap_or(0);
        if bytes[..n].starts_with(b"GET") {
            let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            stream.write_all(switched.as_bytes()).await.unwrap();
        }
        while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let upstream = to(&server, change);
    let request = http::Request::get("http://a/").header("connection", "upgrade").header("upgrade", "echo");
    let mut response = upstream.send(call(request.body(Body::empty()).unwrap())).await.unwrap();
    let websocket = upgraded(&mut response).await.unwrap().unwrap();
    let bare = opaque(&upstream).await.unwrap();
    let (_client, near) = duplex(64);
    let (_other, far) = duplex(64);
    let (upgrade, closer) = (websocket.closer(), bare.guard.closer());
    let ends = [
        spawn_local(async move { copy_both(near, websocket, Duration::ZERO, upgrade).await.map(drop) }),
        spawn_local(async move {
            let _guard = bare.guard;
            copy_both(far, bare.io, Duration::ZERO, closer).await.map(drop)
        }),
    ];
    settle().await;
    assert_eq!(counts(&upstream), (2, 2));
    turns(&endpoint_of(&upstream));
    settle().await;
    let mut reasons = Vec::new();
    for end in ends {
        reasons.push(if end.is_finished() {
            end.await.unwrap().err().map(|error| error.reason)
        } else {
            None
        });
    }
    reasons
}

#[tokio::test(flavor = "local")]
async fn tunnels_are_cut_at_once_and_say_why() {
    for turns in WAYS {
        assert_eq!(tunnels(close, turns).await, [Some(Reason::EndpointUnhealthy); 2]);
        assert_eq!(tunnels(|_| {}, turns).await, [None; 2], "they stay by default");
    }
}

#[tokio::test(flavor = "local")]
async fn a_tunnel_to_an_endpoint_that_was_unhealthy_already_stays() {
    let server = serve(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let upstream = to(&server, close);
    endpoint_of(&upstream).set_healthy(false);
    let bare = opaque(&upstream).await.unwrap();
    let mut closer = bare.guard.closer();
    let waited = tokio::time::timeout(Duration::from_millis(50), closer.closed());
    assert!(waited.await.is_err());
    endpoint_of(&upstream).set_healthy(true);
    endpoint_of(&upstream).set_healthy(false);
    closer.closed().await;
}

#[tokio::test(flavor = "local")]
async fn a_client_above_its_limit_is_refused_and_another_is_not() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = to(&server, |config| config.circuit_breaker.max_requests_per_client = Some(2));
    let from = |address: &str| {
        let mut call = get("/");
        let address = Some(address.parse().unwrap());
        call.context_mut().client = std::rc::Rc::new(attache_http::Client { address, ..Default::default() });
        upstream.send(call)
    };
    let running = [from("10.0.0.1:1"), from("10.0.0.1:2")].map(spawn_local);
    settle().await;
    assert_eq!(from("10.0.0.1:3").await.unwrap_err().reason, Reason::OverflowClient);
    let other = spawn_local(from("10.0.0.2:1"));
    settle().await;
    assert_eq!(counts(&upstream).1, 3);
    running.into_iter().chain([other]).for_each(|call| call.abort());
    settle().await;
    let again = spawn_local(from("10.0.0.1:4"));
    settle().await;
    assert_eq!(counts(&upstream).1, 1);
    again.abort();
}
