//! Callers don't notice endpoints that can't be connected to.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use attache_config::model::Algorithm;
use attache_http::Body;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::{Endpoint, WorkerUpstream, status::EndpointState, testing::*};

/// An address where nobody listens.
async fn refusing() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A listener whose queue is full: it drops the first packet of every handshake.
async fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(io)) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        filling.push(io);
    }
    (listener, filling)
}

fn failures(endpoints: &[std::sync::Arc<Endpoint>]) -> u64 {
    endpoints.iter().map(|endpoint| endpoint.passive.failures()).sum()
}

#[tokio::test(flavor = "local")]
async fn nine_of_ten_endpoints_that_refuse_fail_no_call_and_cost_ten_connections_in_all() {
    let server = answering(OK).await;
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastRequest, Algorithm::Random] {
        let mut endpoints = vec![endpoint(server.address, None)];
        for _ in 0..9 {
            endpoints.push(endpoint(refusing().await, None));
        }
        let mut config = config();
        config.balance.algorithm = algorithm;
        let upstream = WorkerUpstream::new(shared(config, endpoints.clone()), None);
        for n in 0..500 {
            let call = if n % 2 == 0 { get("/") } else { post(Body::full("order")) };
            let exchange = call.context.exchange.clone();
            assert_eq!(upstream.send(call).await.unwrap().status(), 200, "{n}");
            assert_eq!(exchange.attempts.get(), 1);
            let bare = opaque(&upstream).await.unwrap();
            drop(bare);
        }
        // Each was tried at most once: `random` may not have picked all of them.
        assert!(failures(&endpoints) <= 9, "{}", failures(&endpoints));
        let out = endpoints.iter().filter(|endpoint| endpoint.state() == EndpointState::Unreachable).count();
        assert_eq!(out as u64, failures(&endpoints));
        assert_eq!(endpoints[0].state(), EndpointState::Healthy);
    }
}

#[tokio::test(flavor = "local")]
async fn a_black_holed_endpoint_costs_a_caller_one_connection_delay_and_is_out_after_its_timeout() {
    let (hole, _full) = black_hole().await;
    let server = answering(OK).await;
    let endpoints = vec![endpoint(hole.local_addr().unwrap(), None), endpoint(server.address, None)];
    let upstream = upstream(config(), endpoints.clone());
    let start = Instant::now();
    assert_eq!(upstream.send(post(Body::full("x"))).await.unwrap().status(), 200);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(250) && took < Duration::from_millis(800), "{took:?}");
    // Only a connection with the whole connect_timeout shows that it is dead, not slow.
    assert_eq!(endpoints[0].state(), EndpointState::Healthy);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(endpoints[0].state(), EndpointState::Unreachable);
    let start = Instant::now();
    upstream.send(get("/")).await.unwrap();
    opaque(&upstream).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_listens_again_is_found_by_a_connection_of_attache_itself() {
    let address = refusing().await;
    let other = answering(OK).await;
    let endpoints = vec![endpoint(address, None), endpoint(other.address, None)];
    let upstream = upstream(config(), endpoints.clone());
    upstream.send(get("/")).await.unwrap();
    assert_eq!(endpoints[0].state(), EndpointState::Unreachable);
    assert!(endpoints[0].watched.load(Relaxed));
    let server = serve_on(TcpListener::bind(address).await.unwrap(), |mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            tokio::io::AsyncWriteExt::write_all(&mut stream, OK.as_bytes()).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!((endpoints[0].state(), server.accepted.get()), (EndpointState::Healthy, 1));
    assert!(!endpoints[0].watched.load(Relaxed));
    // The first call goes out on that very connection.
    upstream.send(get("/")).await.unwrap();
    assert_eq!(server.accepted.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn if_no_endpoint_can_be_reached_each_call_says_so_and_endpoints_are_seldom_tried() {
    let mut endpoints = Vec::new();
    for _ in 0..5 {
        endpoints.push(endpoint(refusing().await, None));
    }
    let upstream = upstream(config(), endpoints.clone());
    let start = Instant::now();
    for _ in 0..200 {
        let error = upstream.send(get("/")).await.unwrap_err();
        assert_eq!(error.reason, attache_telemetry::Reason::ConnectRefused);
    }
    // Every call tries the one that is left; the others are tried ten times a second.
    let windows = start.elapsed().as_millis() as u64 / 100 + 1;
    assert!(failures(&endpoints) <= 200 + 4 * (windows + 1), "{} in {windows}", failures(&endpoints));
    // As soon as one is back, a call finds it.
    let back = serve_on(TcpListener::bind(label(&endpoints[0])).await.unwrap(), |mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            tokio::io::AsyncWriteExt::write_all(&mut stream, OK.as_bytes()).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(110)).await;
    assert_eq!(upstream.send(get("/")).await.unwrap().status(), 200);
    assert!(back.accepted.get() >= 1);
}

fn label(endpoint: &Endpoint) -> std::net::SocketAddr {
    endpoint.label.parse().unwrap()
}
