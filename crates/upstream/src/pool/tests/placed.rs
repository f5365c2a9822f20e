//! Which endpoint a connection goes to: by the hash of its key, and never against a breaker.

use std::{collections::HashSet, rc::Rc, time::Duration};

use attache_config::model::{Algorithm, FailureBreaker, HashKey, OutlierEjection};
use attache_http::{Body, Client};
use http::HeaderName;

use crate::{Call, WorkerUpstream, outlier, status::EndpointState, testing::*};

/// Where 20 opaque connections of one client go, and 20 CONNECTs of one user: how many endpoints each.
async fn spread(key: HashKey) -> [usize; 2] {
    let mut endpoints = Vec::new();
    for _ in 0..8 {
        endpoints.push(endpoint(serve(|_stream, _| async {}).await.address, None));
    }
    let mut config = config();
    config.balance.algorithm = Algorithm::Maglev;
    config.balance.hash = Some(key);
    let upstream = WorkerUpstream::new(shared(config, endpoints), None);
    let mut seen = [HashSet::new(), HashSet::new()];
    for _ in 0..20 {
        for (kind, seen) in seen.iter_mut().enumerate() {
            let mut context = context();
            context.client =
                Rc::new(Client { address: Some("192.0.2.7:40000".parse().unwrap()), ..Client::default() });
            let exchange = context.exchange.clone();
            let request =
                http::Request::connect("db:5432").header("x-user", "ann").body(Body::empty()).unwrap().into();
            let call = if kind == 0 { Call::opaque(context) } else { Call::connection(request, context) };
            bare(&upstream, call).await.unwrap();
            seen.insert(exchange.endpoint.borrow().clone());
        }
    }
    seen.map(|seen| seen.len())
}

#[tokio::test(flavor = "local")]
async fn an_opaque_connection_is_placed_by_its_source_and_a_connect_also_by_its_headers() {
    assert_eq!(spread(HashKey::Source).await, [1, 1]);
    let [opaque, connect] = spread(HashKey::Header(HeaderName::from_static("x-user"))).await;
    assert!(opaque > 1 && connect == 1, "{opaque} {connect}");
    // A missing path is not an empty path: otherwise all connections would go to one endpoint.
    let [opaque, connect] = spread(HashKey::Path).await;
    assert!(opaque > 1 && connect > 1, "{opaque} {connect}");
}

#[tokio::test(flavor = "local")]
async fn calls_pass_by_an_endpoint_whose_breaker_is_open_and_probe_it_later() {
    const BAD: &str = "HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\nno";
    let (bad, good) = (answering(BAD).await, answering(OK).await);
    let mut config = config();
    let breaker = FailureBreaker {
        consecutive: 2,
        probes: 1,
        open: Duration::from_millis(20),
        ..FailureBreaker::default()
    };
    config.circuit_breaker.endpoint_failures = Some(breaker);
    config.outlier_ejection = OutlierEjection { consecutive_5xx: 0, ..OutlierEjection::default() };
    let upstream = upstream(config, vec![endpoint(bad.address, None), endpoint(good.address, None)]);
    let first = upstream.shared().endpoints.load().endpoints[0].clone();
    for status in [500, 500, 200, 200] {
        assert_eq!(upstream.send(get("/")).await.unwrap().status(), status);
    }
    assert_eq!(first.state(), EndpointState::CircuitOpen);
    tokio::time::sleep(Duration::from_millis(30)).await;
    // What the control thread does.
    outlier::recover(upstream.shared(), tokio::time::Instant::now());
    assert_eq!(upstream.send(get("/")).await.unwrap().status(), 500, "the probe");
    assert_eq!(upstream.send(get("/")).await.unwrap().status(), 200, "it failed");
    assert_eq!(first.circuit.load_full().unwrap().status(tokio::time::Instant::now()).opened, 2);
}
