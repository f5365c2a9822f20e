//! Where a connection goes: by what its hash is taken over, and never past a breaker.

use std::{cell::RefCell, rc::Rc, time::Duration};

use attache_config::model::{Algorithm, FailureBreaker, HashKey, OutlierEjection};
use attache_http::{Body, Client};
use http::{HeaderMap, HeaderName, Request};

use crate::{WorkerUpstream, balance::request_hash, status::EndpointState, testing::*};

/// What the picker was told to hash by, for a connection and for a CONNECT.
async fn hashes(key: HashKey) -> [Option<u64>; 2] {
    let server = serve(|_stream, _| async {}).await;
    let seen = Rc::new(RefCell::new(Vec::new()));
    let told = seen.clone();
    let mut config = config();
    config.balance.algorithm = Algorithm::Maglev(key);
    let upstream = WorkerUpstream::new(
        shared(config, vec![endpoint(server.address, None)]),
        None,
        Box::new(move |shared, hash, _| {
            told.borrow_mut().push(hash);
            Ok(shared.endpoints.load().endpoints[0].clone())
        }),
    );
    let mut context = context();
    context.client =
        Rc::new(Client { address: Some("192.0.2.7:40000".parse().unwrap()), ..Client::default() });
    upstream.connect_tcp(&context).await.unwrap();
    let request = Request::connect("db:5432").header("x-user", "ann").body(Body::empty()).unwrap();
    upstream.connect_for(&context, Some(&request)).await.unwrap();
    let seen = seen.borrow();
    [seen[0], seen[1]]
}

#[tokio::test(flavor = "local")]
async fn an_opaque_connection_goes_by_its_source_and_a_connect_by_its_headers_too() {
    let ip = Some("192.0.2.7".parse().unwrap());
    let source = request_hash(&HashKey::Source, &HeaderMap::new(), "", ip);
    assert!(source.is_some());
    assert_eq!(hashes(HashKey::Source).await, [source; 2]);
    let user = HashKey::Header(HeaderName::from_static("x-user"));
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-user"), "ann".parse().unwrap())]);
    assert_eq!(hashes(user.clone()).await, [None, request_hash(&user, &headers, "", None)]);
    // A path that isn't there is not the empty path: that would be one endpoint for everybody.
    assert_eq!(hashes(HashKey::Path).await[0], None);
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
    // The picker knows nothing of breakers: the one behind it holds back what it picks.
    let upstream = upstream(config, vec![endpoint(bad.address, None), endpoint(good.address, None)]);
    let first = upstream.shared().endpoints.load().endpoints[0].clone();
    for status in [500, 500, 200, 200] {
        assert_eq!(upstream.send(get("/")).await.unwrap().status(), status);
    }
    assert_eq!(first.state(), EndpointState::CircuitOpen);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(upstream.send(get("/")).await.unwrap().status(), 500, "the probe");
    assert_eq!(upstream.send(get("/")).await.unwrap().status(), 200, "it failed");
    assert_eq!(first.circuit.load_full().unwrap().status(tokio::time::Instant::now()).opened, 2);
}
