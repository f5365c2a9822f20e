//! Upgrades, CONNECT, and WebSocket between the two protocols.

use attache_http::Body;
use attache_telemetry::Reason;
use bytes::Bytes;
use h2::server::Builder;
use http::{Method, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    h2::h2,
    h2_server::{answer, streams},
};
use crate::{SentPart, pool::upgraded, testing::*};

async fn echoing(answer: &'static str) -> CountingServer {
    serve(move |mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await
}

#[tokio::test(flavor = "local")]
async fn a_101_becomes_a_tunnel_with_what_came_right_behind_it() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst ";
    let server = echoing(answer).await;
    let upstream = to(&server, |_| {});
    let request = http::Request::get("http://a/").header("connection", "upgrade").header("upgrade", "echo");
    let mut response = upstream.send(call(request.body(Body::empty()).unwrap())).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut tunnel = upgraded(&mut response).await.unwrap().unwrap();
    drop(response);
    tunnel.write_all(b"second").await.unwrap();
    let mut echoed = [0; 12];
    tunnel.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"first second");
    assert_eq!(counts(&upstream), (1, 1), "a tunnel is a running call on an open connection");
    drop(tunnel);
    assert_eq!(counts(&upstream), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_refused_upgrade_is_an_ordinary_response_and_keeps_the_connection() {
    let server = answering(OK).await;
    let upstream = to(&server, |_| {});
    for _ in 0..2 {
        let request =
            http::Request::get("http://a/").header("connection", "upgrade").header("upgrade", "echo");
        let mut response = upstream.send(call(request.body(Body::empty()).unwrap())).await.unwrap();
        assert!(upgraded(&mut response).await.is_none());
        assert_eq!(text(response).await, "ok");
    }
    assert_eq!(server.accepted.get(), 1);
}

/// A CONNECT asks for a connection, not for an answer: if it were sent as a request, it would open a tunnel without a
/// check of the rules.
#[tokio::test(flavor = "local")]
async fn a_connect_is_never_sent_as_a_request() {
    let server = echoing("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let upstream = to(&server, |_| {});
    let request = http::Request::builder().method(Method::CONNECT).uri("target.example:443");
    let error = upstream.send(call(request.body(Body::empty()).unwrap())).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::ProtocolMismatch, SentPart::Nothing));
    assert_eq!(server.accepted.get(), 0);
}

#[tokio::test(flavor = "local")]
async fn an_http2_client_s_websocket_reaches_an_http1_upstream() {
    let server = serve(|mut stream, _| async move {
        let head = head(&mut stream).await.unwrap();
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        let key = head.split("sec-websocket-key: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let proof = crate::pool::upgrade::accept(&key.parse().unwrap());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\nhi",
            proof.to_str().unwrap()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let request = http::Request::builder().method(Method::CONNECT).uri("http://a/chat");
    let mut request = attache_wire::Request::from(request.body(Body::empty()).unwrap());
    request.head_mut().protocol = Some(attache_wire::ConnectProtocol::from_static("websocket"));
    let mut response = to(&server, |_| {}).send(call(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut tunnel = upgraded(&mut response).await.unwrap().unwrap();
    assert_eq!(tunnel.read_u8().await.unwrap(), b'h');
}

fn websocket() -> crate::Call {
    let request = http::Request::get("http://a/chat")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13");
    call(request.body(Body::empty()).unwrap())
}

#[tokio::test(flavor = "local")]
async fn an_http1_client_s_websocket_reaches_an_http2_upstream() {
    let mut settings = Builder::new();
    settings.enable_connect_protocol();
    let server = streams(settings, |request, mut respond, _| async move {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
        assert_eq!(request.uri().path(), "/chat");
        assert!(request.headers().get("sec-websocket-key").is_none());
        assert_eq!(request.headers().get("sec-websocket-version").unwrap(), "13");
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        let mut received = request.into_body();
        while let Some(Ok(data)) = received.data().await {
            received.flow_control().release_capacity(data.len()).unwrap();
            stream.send_data(data, false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
    })
    .await;
    let upstream = h2(&server, |_| {});
    let mut response = upstream.send(websocket()).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers().get("sec-websocket-accept").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let tunnel = upgraded(&mut response).await.unwrap().unwrap();
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    let sent = vec![b'x'; 300_000];
    let (echoed, ()) = tokio::join!(
        async {
            let mut echoed = Vec::new();
            reader.read_to_end(&mut echoed).await.unwrap();
            echoed
        },
        async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        }
    );
    assert!(echoed == sent);
    assert_eq!(counts(&upstream), (1, 1));
    drop((reader, writer));
    settle().await;
    assert_eq!(counts(&upstream), (1, 0));
}

#[tokio::test(flavor = "local")]
async fn a_websocket_to_an_http2_upstream_without_extended_connect_is_a_mismatch() {
    let server = streams(Builder::new(), |_, mut respond, _| async move { answer(&mut respond, "ok") }).await;
    let error = h2(&server, |_| {}).send(websocket()).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::ProtocolMismatch, SentPart::Nothing));
}

#[tokio::test(flavor = "local")]
async fn a_bare_connection_that_ends_unused_is_made_anew_to_another_endpoint() {
    let first = serve(|stream, _| async move {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let second = echoing("").await;
    let endpoints = vec![endpoint(first.address, None), endpoint(second.address, None)];
    let upstream = upstream(config(), endpoints.clone());
    let mut bare = opaque(&upstream).await.unwrap();
    assert!(bare.io.read(&mut [0]).await.is_err());
    let mut io = bare.guard.elsewhere().await.unwrap();
    io.write_all(b"GET / HTTP/1.1\r\n\r\necho").await.unwrap();
    let mut echoed = [0; 4];
    io.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"echo");
    let running = |n: usize| endpoints[n].active.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((running(0), running(1), counts(&upstream)), (0, 1, (1, 1)));
    assert!(bare.guard.elsewhere().await.is_none(), "each endpoint once");
    assert_eq!(running(1), 1);
    drop((io, bare));
    assert_eq!(counts(&upstream), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_bare_connection_whose_server_has_spoken_is_never_made_anew() {
    let server = echoing("").await;
    let endpoints = vec![endpoint(server.address, None), endpoint(server.address, Some("other"))];
    let upstream = upstream(config(), endpoints);
    let mut bare = opaque(&upstream).await.unwrap();
    bare.count().unwrap();
    assert!(bare.guard.elsewhere().await.is_none());
}
