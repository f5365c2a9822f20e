//! Upgrades and CONNECT over HTTP/1.1.

use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{pool::upgraded, testing::*};
use attache_http::Body;

async fn echoing(answer: &'static str) -> Server {
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
    let request = Request::get("http://a/").header("connection", "upgrade").header("upgrade", "echo");
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
async fn hyper_s_own_upgrade_works_too() {
    let server = echoing("HTTP/1.1 101 Switching Protocols\r\n\r\nx").await;
    let request = Request::get("http://a/").header("connection", "upgrade").header("upgrade", "echo");
    let call = call(request.body(Body::empty()).unwrap());
    let mut response = to(&server, |_| {}).send(call).await.unwrap();
    let io = hyper::upgrade::on(&mut response).await.unwrap();
    let mut io = hyper_util::rt::TokioIo::new(io);
    assert_eq!(io.read_u8().await.unwrap(), b'x');
}

#[tokio::test(flavor = "local")]
async fn a_refused_upgrade_is_an_ordinary_response_and_keeps_the_connection() {
    let server = answering(OK).await;
    let upstream = to(&server, |_| {});
    for _ in 0..2 {
        let request = Request::get("http://a/").header("connection", "upgrade").header("upgrade", "echo");
        let mut response = upstream.send(call(request.body(Body::empty()).unwrap())).await.unwrap();
        assert!(upgraded(&mut response).await.is_none());
        assert_eq!(text(response).await, "ok");
    }
    assert_eq!(server.accepted.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn connect_becomes_a_tunnel() {
    let server = echoing("HTTP/1.1 200 Connection established\r\n\r\n").await;
    let upstream = to(&server, |_| {});
    let request = Request::builder().method(Method::CONNECT).uri("target.example:443");
    let mut response = upstream.send(call(request.body(Body::empty()).unwrap())).await.unwrap();
    let mut tunnel = upgraded(&mut response).await.unwrap().unwrap();
    tunnel.write_all(b"hello").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut echoed = String::new();
    tunnel.read_to_string(&mut echoed).await.unwrap();
    assert_eq!(echoed, "hello");
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
        std::future::pending().await
    })
    .await;
    let request = Request::builder().method(Method::CONNECT).uri("http://a/chat");
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let mut response = to(&server, |_| {}).send(call(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut tunnel = upgraded(&mut response).await.unwrap().unwrap();
    assert_eq!(tunnel.read_u8().await.unwrap(), b'h');
}
