//! What an HTTP/2 client may rely on, and what a hostile one must not achieve.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

mod support;

use std::time::Duration;

use attache_http::{Body, BodyError};
use attache_listener::HttpRequest;
use attache_telemetry::Reason;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

async fn connect(server: &TestServer) -> (SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let io = TokioIo::new(server.connect().await);
    let (send, connection) = hyper::client::conn::http2::handshake(LocalExecutor, io).await.unwrap();
    (send, tokio::task::spawn_local(connection))
}

fn post(path: &str, body: &'static str) -> http::Request<Full<Bytes>> {
    http::Request::post(format!("http://h{path}")).body(Full::from(body)).unwrap()
}

async fn body(answer: http::Response<hyper::body::Incoming>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[test]
fn requests_run_at_the_same_time_and_are_recorded() {
    run(async {
        let server = echo(listener());
        let (mut send, _connection) = connect(&server).await;
        let (a, b) = (send.send_request(post("/a", "1")), send.clone().send_request(post("/b", "22")));
        let (a, b) = tokio::join!(a, b);
        assert_eq!(body(a.unwrap()).await, "POST http://h/a [1]");
        assert_eq!(body(b.unwrap()).await, "POST http://h/b [22]");
        let done = server.finished(2).await;
        assert!(
            done.iter().all(|d| d.protocol == "http2" && d.host == "h" && d.reason.is_none()),
            "{done:?}"
        );
        assert_eq!(done.iter().map(|d| d.received).sum::<u64>(), 3);
    });
}

#[test]
fn a_body_that_breaks_off_resets_only_its_stream() {
    run(async {
        struct FailingBody(bool);
        impl http_body::Body for FailingBody {
            type Data = Bytes;
            type Error = BodyError;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
                std::task::Poll::Ready(Some(if std::mem::replace(&mut self.0, true) {
                    Err(BodyError::new(Reason::UpstreamClosedMidBody))
                } else {
                    Ok(http_body::Frame::data(Bytes::from_static(b"begin")))
                }))
            }
        }
        let http = fun(|request: HttpRequest| async move {
            match request.request.uri().path() {
                "/cut" => http::Response::new(Body::stream(FailingBody(false))),
                "/panic" => panic!("a request that panics"),
                _ => answer(request).await,
            }
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let (mut send, _connection) = connect(&server).await;
        // The reset may arrive before the head that was sent earlier.
        if let Ok(cut) = send.send_request(post("/cut", "")).await {
            assert!(cut.into_body().collect().await.is_err());
        }
        let failed = send.send_request(post("/panic", "")).await.unwrap();
        assert_eq!(failed.status(), 500);
        assert_eq!(body(send.send_request(post("/ok", "")).await.unwrap()).await, "POST http://h/ok []");
        let reasons: Vec<_> = server.finished(3).await.iter().map(|d| d.reason).collect();
        assert!(reasons.contains(&Some(Reason::UpstreamClosedMidBody)));
        assert!(reasons.contains(&Some(Reason::InternalError)));
    });
}

#[test]
fn a_request_that_names_two_hosts_is_refused() {
    run(async {
        let server = echo(listener());
        let (mut send, _connection) = connect(&server).await;
        let mut request = post("/", "");
        request.headers_mut().insert("host", http::HeaderValue::from_static("other"));
        assert_eq!(send.send_request(request).await.unwrap().status(), 400);
        assert_eq!(server.finished(1).await[0].reason, Some(Reason::BadRequest));
        // The default port of the scheme does not make it another host.
        for (host, status) in [("h:80", 200), ("H:80", 200), ("h:81", 400), ("h:443", 400)] {
            let mut request = post("/", "");
            request.headers_mut().insert("host", http::HeaderValue::from_static(host));
            assert_eq!(send.send_request(request).await.unwrap().status(), status, "{host}");
        }
    });
}

#[test]
fn a_drain_sends_goaway_and_finishes_what_runs() {
    run(async {
        let slow = |request: HttpRequest| async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            answer(request).await
        };
        let server = start(listener(), None, fun(slow), fun(echo_bytes));
        let (mut send, connection) = connect(&server).await;
        let running = tokio::task::spawn_local(send.send_request(post("/a", "1")));
        until(|| server.connections.open() == 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        server.trigger.drain();
        assert_eq!(body(running.await.unwrap().unwrap()).await, "POST http://h/a [1]");
        assert!(connection.await.unwrap().is_ok());
        server.task.await.unwrap();
    });
}

#[test]
fn an_idle_connection_is_told_to_end() {
    run(async {
        let mut config = listener();
        config.http.idle_timeout = Duration::from_millis(40);
        let server = echo(config);
        let (_send, connection) = connect(&server).await;
        assert!(connection.await.unwrap().is_ok());
    });
}

#[test]
fn a_stream_that_gets_no_window_is_reset_and_others_continue() {
    run(async {
        let mut config = listener();
        config.http.write_timeout = Duration::from_millis(300);
        let http = fun(|request: HttpRequest| async move {
            let large = request.request.uri().path() == "/large";
            text(200, if large { "x".repeat(1 << 20) } else { "small".to_owned() })
        });
        let server = start(config, None, http, fun(echo_bytes));
        let mut client = server.connect().await;
        // SETTINGS_INITIAL_WINDOW_SIZE is 5: just enough for the small response.
        let begin = [PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 5])].concat();
        client.write_all(&begin).await.unwrap();
        let large = [0x82, 0x86, 0x04, 6, b'/', b'l', b'a', b'r', b'g', b'e', 0x41, 1, b'h'];
        client.write_all(&frame(1, 5, 1, &large)).await.unwrap();
        let reset = frame(3, 0, 1, &[0, 0, 0, 8]);
        let mut all = Vec::new();
        while !all.windows(reset.len()).any(|bytes| bytes == reset) {
            assert!(client.read_buf(&mut all).await.unwrap() > 0, "closed");
        }
        client.write_all(&frame(1, 5, 3, HEADERS)).await.unwrap();
        let small = frame(0, 1, 3, b"small");
        while !all.windows(small.len()).any(|bytes| bytes == small) {
            assert!(client.read_buf(&mut all).await.unwrap() > 0, "closed");
        }
        let done = server.finished(2).await;
        assert_eq!(done[0].reason, Some(Reason::ClientClosed));
        assert!(done[0].detail.as_deref().unwrap().contains("http.write_timeout"), "{done:?}");
        assert_eq!(done[1].reason, None);
    });
}

#[test]
fn early_hints_come_before_the_answer() {
    run(async {
        let http = fun(|request: HttpRequest| async move {
            let mut hints = attache_wire::Fields::new();
            hints.insert("link", http::HeaderValue::from_static("</a.css>; rel=preload"));
            hints.insert("connection", http::HeaderValue::from_static("close"));
            request.on_informational.unwrap().call(http::StatusCode::EARLY_HINTS, hints);
            text(200, "ok")
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let (send, connection) = h2::client::handshake(server.connect().await).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = http::Request::get("http://h/").body(()).unwrap();
        let (mut answer, _) = send.ready().await.unwrap().send_request(request, true).unwrap();
        let hints = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hints.status().as_u16(), hints.headers().len()), (103, 1));
        assert_eq!(answer.await.unwrap().status(), 200);
    });
}

#[test]
fn a_client_that_holds_its_body_back_is_asked_for_it_once_the_body_is_wanted() {
    run(async {
        let server = echo(listener());
        let (send, connection) = h2::client::handshake(server.connect().await).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = http::Request::post("http://h/").header("expect", "100-Continue").body(()).unwrap();
        let (mut answer, mut upload) = send.ready().await.unwrap().send_request(request, false).unwrap();
        let asked = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(asked.status(), 100);
        upload.send_data("held".into(), true).unwrap();
        let mut answer = answer.await.unwrap().into_body();
        assert_eq!(answer.data().await.unwrap().unwrap(), "POST http://h/ [held]");
    });
}

#[test]
fn a_grpc_response_that_breaks_off_ends_with_a_status_and_a_message() {
    run(async {
        let broken = futures(vec![Ok("begin"), Err(Reason::UpstreamClosedMidBody)]);
        let http = fun(move |_: HttpRequest| {
            let body = Body::stream(broken());
            async move {
                http::Response::builder().header("content-type", "application/grpc+proto").body(body).unwrap()
            }
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let (mut send, _connection) = connect(&server).await;
        let answer = send.send_request(post("/", "")).await.unwrap();
        let collected = answer.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "14");
        assert!(
            trailers.get("grpc-message").unwrap().to_str().unwrap().contains("upstream-closed-mid-body"),
            "{trailers:?}"
        );
        assert_eq!(server.finished(1).await[0].reason, Some(Reason::UpstreamClosedMidBody));
    });
}

/// Bodies with these pieces.
fn futures(pieces: Vec<Result<&'static str, Reason>>) -> impl Fn() -> ScriptedBody {
    move || ScriptedBody(pieces.clone().into())
}

struct ScriptedBody(std::collections::VecDeque<Result<&'static str, Reason>>);

impl http_body::Body for ScriptedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        let piece = self.0.pop_front();
        std::task::Poll::Ready(piece.map(|piece| {
            piece
                .map(|text| http_body::Frame::data(Bytes::from_static(text.as_bytes())))
                .map_err(BodyError::new)
        }))
    }
}

#[test]
fn a_body_that_the_client_stops_never_counts_as_complete() {
    run(async {
        let server = echo(listener());
        let mut client = raw(&server).await;
        let sent = [frame(1, 4, 1, HEADERS), frame(0, 0, 1, b"part"), frame(3, 0, 1, &[0, 0, 0, 0])].concat();
        client.write_all(&sent).await.unwrap();
        assert_eq!(server.finished(1).await[0].reason, Some(Reason::ClientClosed));
    });
}

#[test]
fn a_header_block_larger_than_allowed_is_answered_with_431() {
    run(async {
        let mut config = listener();
        config.http.limits.headers_size = 1000;
        let server = echo(config);
        let (mut send, _connection) = connect(&server).await;
        let mut request = post("/", "");
        request.headers_mut().insert("x", "a".repeat(1200).parse().unwrap());
        // The client may know the limit from SETTINGS and refuse to send.
        if let Ok(answer) = send.send_request(request).await {
            assert_eq!(answer.status(), 431);
        }
    });
}

#[test]
fn many_streams_are_sent_in_few_writes_and_none_hangs() {
    run(async {
        let server = echo(listener());
        let (send, _connection) = connect(&server).await;
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let mut send = send.clone();
            all.spawn_local(async move { body(send.send_request(post("/x", "1")).await.unwrap()).await });
        }
        let answers = all.join_all().await;
        assert!(answers.iter().all(|a| a == "POST http://h/x [1]"));
    });
}

#[test]
fn a_large_body_passes_both_ways_through_small_windows() {
    run(async {
        let mut config = listener();
        config.http.limits.h2_stream_window = 65_535;
        let http =
            fun(|request: HttpRequest| async move { http::Response::new(request.request.into_body()) });
        let server = start(config, None, http, fun(echo_bytes));
        let (mut send, _connection) = connect(&server).await;
        let large = Bytes::from(vec![7; 5 << 20]);
        let request = http::Request::post("http://h/").body(Full::from(large.clone())).unwrap();
        let answer = send.send_request(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), large);
        let done = server.finished(1).await;
        assert_eq!((done[0].received, done[0].sent, done[0].reason), (5 << 20, 5 << 20, None));
    });
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    run(async {
        let http = fun(|_: HttpRequest| std::future::pending::<http::Response<Body>>());
        let server = start(listener(), None, http, fun(echo_bytes));
        let mut client = raw(&server).await;
        client.write_all(&frame(1, 5, 1, HEADERS)).await.unwrap();
        let mut space = [0; 100];
        let _ = client.read(&mut space).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(client);
        assert_eq!(server.finished(1).await[0].reason, Some(Reason::ClientClosed));
        until(|| server.connections.open() == 0).await;
    });
}
