//! HTTP/1.1 connections without a call: how long they are kept, and how many.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, advance, pause, timeout},
};

use crate::testing::*;

#[tokio::test(flavor = "local")]
async fn max_requests_and_max_age_bound_a_connection() {
    let server = answering(OK).await;
    let upstream = to(&server, |c| c.pool.max_requests = 2);
    for _ in 0..4 {
        assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    }
    assert_eq!(server.accepted.get(), 2);

    let server = answering(OK).await;
    let upstream = to(&server, |c| c.pool.max_age = Duration::from_secs(10));
    upstream.send(get("/")).await.unwrap();
    upstream.send(get("/")).await.unwrap();
    assert_eq!(server.accepted.get(), 1);
    pause();
    advance(Duration::from_secs(10)).await;
    upstream.send(get("/")).await.unwrap(); // at worst still uses the old one, which is then too old to be kept
    upstream.send(get("/")).await.unwrap();
    assert_eq!(server.accepted.get(), 2);
}

#[tokio::test(flavor = "local")]
async fn an_unused_connection_is_closed_after_the_idle_timeout_and_not_before() {
    let server = answering(OK).await;
    let upstream = to(&server, |c| c.pool.idle_timeout = Duration::from_secs(8));
    upstream.send(get("/")).await.unwrap();
    pause();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(counts(&upstream).0, 1);
    while counts(&upstream).0 > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = start.elapsed();
    assert!(after >= Duration::from_secs(7) && after <= Duration::from_secs(10), "{after:?}");
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_that_the_peer_closes_is_closed_here_too() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
    })
    .await;
    let upstream = to(&server, |_| {});
    upstream.send(get("/")).await.unwrap();
    assert_eq!(counts(&upstream).0, 1);
    let closed = async {
        while counts(&upstream).0 > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), closed).await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn busy_connections_do_not_keep_the_sweep_running() {
    let (one, other) = (answering(OK).await, answering(OK).await);
    let endpoints = vec![endpoint(one.address, None), endpoint(other.address, None)];
    let upstream = upstream(config(), endpoints.clone());
    // To the two endpoints in turn.
    let send = async |n: usize| {
        let call = get("/");
        if n % 2 == 1 {
            call.context.tried.push(&endpoints[0]);
        }
        upstream.send(call).await.unwrap()
    };
    let mut response = send(0).await;
    pause();
    advance(Duration::from_secs(1)).await;
    settle().await;
    let before = upstream.sweeps();
    for n in 1..20 {
        // Its connection is idle before its answer is read, and the read wakes the task that drove the connection last.
        let next = send(n).await;
        text(std::mem::replace(&mut response, next)).await;
        settle().await;
    }
    assert!(upstream.sweeps() <= before + 2, "{} sweeps", upstream.sweeps() - before);
}

#[tokio::test(flavor = "local")]
async fn a_removed_endpoint_loses_its_idle_connections_and_keeps_its_running_requests() {
    let server = serve(|mut stream, number| async move {
        head(&mut stream).await;
        if number == 1 {
            stream.write_all(OK.as_bytes()).await.unwrap();
            return std::future::pending::<()>().await;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        stream.write_all(b"later").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = to(&server, |_| {});
    let endpoint = upstream.shared().endpoints.load().endpoints[0].clone();
    let first = upstream.send(get("/"));
    let second = upstream.send(get("/"));
    let (first, second) = tokio::join!(first, second);
    let running = [first.unwrap(), second.unwrap()]
        .into_iter()
        .find(|r| r.headers().get("content-length").unwrap() == "10")
        .unwrap();
    assert_eq!(counts(&upstream), (2, 1));
    endpoint.removed.store(true, Relaxed);
    pause();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(counts(&upstream), (1, 1), "the idle one is closed, the running one is not");
    assert_eq!(text(running).await, "firstlater");
    settle().await;
    assert_eq!(counts(&upstream), (0, 0), "and it is not kept when it is done");
}

#[tokio::test(flavor = "local")]
async fn at_most_max_idle_connections_are_kept() {
    let server = answering(OK).await;
    let upstream = to(&server, |c| c.pool.max_idle = 2);
    let four = tokio::join!(
        upstream.send(get("/")),
        upstream.send(get("/")),
        upstream.send(get("/")),
        upstream.send(get("/"))
    );
    for response in [four.0, four.1, four.2, four.3] {
        text(response.unwrap()).await;
    }
    assert_eq!((server.accepted.get(), counts(&upstream)), (4, (2, 0)));
}

#[tokio::test(flavor = "local")]
async fn preconnect_opens_connections_that_calls_then_use() {
    let server = answering(OK).await;
    let upstream = to(&server, |c| c.pool.preconnect = 2);
    upstream.preconnect();
    settle().await;
    assert_eq!((server.accepted.get(), counts(&upstream).0), (2, 2));
    upstream.send(get("/")).await.unwrap();
    assert_eq!(server.accepted.get(), 2);
}
