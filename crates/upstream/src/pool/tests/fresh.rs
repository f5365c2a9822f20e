//! Attempts that must not take a connection from the pool.

use h2::server::Builder;

use super::{
    h2::h2,
    h2_server::{answer, streams},
};
use crate::{Call, testing::*};

fn fresh() -> Call {
    let mut call = get("/");
    call.fresh = true;
    call
}

#[tokio::test(flavor = "local")]
async fn an_attempt_that_needs_a_fresh_connection_takes_none_from_the_pool() {
    let server = answering(OK).await;
    let upstream = to(&server, |_| {});
    for (call, accepted) in [(get("/"), 1), (fresh(), 2), (get("/"), 2)] {
        assert_eq!(text(upstream.send(call).await.unwrap()).await, "ok");
        assert_eq!(server.accepted.get(), accepted);
    }
    assert_eq!(counts(&upstream), (2, 0), "both are kept");
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_makes_room_for_a_fresh_one_at_max_connections() {
    let server = answering(OK).await;
    let upstream = to(&server, |c| c.circuit_breaker.max_connections = 1);
    for (call, accepted) in [(get("/"), 1), (fresh(), 2)] {
        assert_eq!(text(upstream.send(call).await.unwrap()).await, "ok");
        assert_eq!((server.accepted.get(), counts(&upstream)), (accepted, (1, 0)));
    }
}

#[tokio::test(flavor = "local")]
async fn fresh_attempts_over_http2_share_the_one_connection_that_is_made_for_them() {
    let server = streams(Builder::new(), |_, mut respond, _| async move { answer(&mut respond, "ok") }).await;
    let upstream = h2(&server, |_| {});
    upstream.send(get("/")).await.unwrap();
    assert_eq!(server.accepted.get(), 1);
    let (a, b, c) = tokio::join!(upstream.send(fresh()), upstream.send(fresh()), upstream.send(fresh()));
    for response in [a, b, c] {
        assert_eq!(text(response.unwrap()).await, "ok");
    }
    assert_eq!(server.accepted.get(), 2);
}
