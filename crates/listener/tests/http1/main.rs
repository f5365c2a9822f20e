//! What an HTTP/1 client may rely on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

mod interim;
#[path = "../support/mod.rs"]
mod support;

use std::{rc::Rc, time::Duration};

use attache_config::model::{HalfClose, TargetPolicy};
use attache_http::{Body, BodyError};
use attache_listener::HttpRequest;
use attache_telemetry::Reason;
use attache_wire::Fields;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const LAST: &str = "GET /z HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.").skip(1).map(|a| &a[2..5]).collect()
}

#[test]
fn pipelined_requests_are_answered_in_order_and_recorded() {
    run(async {
        let server = echo(listener());
        let answers = server
            .ask(format!("{GET}POST /b?q HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc{LAST}"))
            .await;
        let order: Vec<_> =
            ["GET /a []", "POST /b?q [abc]", "GET /z []"].map(|a| answers.find(a).unwrap()).into();
        assert!(order.is_sorted(), "{answers}");
        let done = server.finished(3).await;
        let second = &done[1];
        assert_eq!((&*second.method, &*second.path, &*second.host), ("POST", "/b", "h"));
        assert_eq!((second.status, second.received, second.sent, second.reason), (200, 3, 15, None));
    });
}

#[test]
fn a_refused_request_is_answered_in_order_and_nothing_after_it_is_served() {
    run(async {
        let server = echo(listener());
        let bad =
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let answers = server.ask(format!("{GET}{bad}{GET}{GET}")).await;
        assert_eq!(statuses(&answers), ["200", "400"], "{answers}");
        assert!(answers.contains("Content-Length together with a Transfer-Encoding"), "{answers}");
        assert!(answers.contains("connection: close"), "{answers}");
        let done = server.finished(2).await;
        assert_eq!((done[1].status, done[1].reason), (400, Some(Reason::BadRequest)));
        assert_eq!((&*done[1].method, &*done[1].path), ("", ""));
    });
}

#[test]
fn each_limit_has_its_own_status() {
    run(async {
        let mut config = listener();
        config.http.header_timeout = Duration::from_millis(50);
        config.http.limits.request_line = 100;
        config.http.limits.headers_size = 1000;
        let server = echo(config);
        let long = server.ask(format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(100))).await;
        assert_eq!(statuses(&long), ["414"]);
        let large = server.ask(format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(1000))).await;
        assert_eq!(statuses(&large), ["431"]);
        let slow = server.ask("GET / HTTP/1.1\r\nHost: h\r\n").await;
        assert_eq!(statuses(&slow), ["408"]);
        let reasons: Vec<_> = server.finished(3).await.iter().map(|d| d.reason.unwrap()).collect();
        assert_eq!(reasons, [Reason::UriTooLong, Reason::HeadersTooLarge, Reason::HeaderTimeout]);
    });
}

#[test]
fn a_client_that_keeps_sending_still_reads_its_refusal() {
    run(async {
        let server = echo(listener());
        let mut client = server.connect().await;
        client.write_all(b"GET / HTTP/1.1\nHost: h\r\n\r\n").await.unwrap();
        client.write_all(&vec![b'x'; 100_000]).await.unwrap();
        assert_eq!(statuses(&read_to_end(&mut client).await), ["400"]);
        // Its bytes are still read: a reset could destroy the answer before the client reads it.
        for _ in 0..3 {
            client.write_all(b"more").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        until(|| server.connections.open() == 0).await;
    });
}

#[test]
fn a_body_with_a_broken_chunk_is_an_error_of_the_client_and_never_a_clean_end() {
    run(async {
        let server = echo(listener());
        let answers = server
            .ask(format!(
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n{GET}"
            ))
            .await;
        assert_eq!(statuses(&answers), ["400"], "{answers}");
        assert!(answers.ends_with("body: bad-request"), "{answers}");
    });
}

#[test]
fn an_http_1_0_connection_persists_only_on_request() {
    run(async {
        let server = echo(listener());
        let answers =
            server.ask("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n").await;
        assert_eq!(statuses(&answers), ["200", "200"], "{answers}");
        assert!(answers.starts_with("HTTP/1.0 200"), "{answers}");
        assert!(answers.contains("connection: keep-alive"), "{answers}");
    });
}

#[test]
fn a_connection_closes_after_its_last_allowed_request() {
    run(async {
        let mut config = listener();
        config.http.limits.requests_per_connection = 2;
        let server = echo(config);
        let answers = server.ask(GET.repeat(3)).await;
        assert_eq!(statuses(&answers), ["200", "200"], "{answers}");
        assert_eq!(answers.matches("connection: close").count(), 1);
    });
}

#[test]
fn an_idle_connection_is_closed() {
    run(async {
        let mut config = listener();
        config.http.idle_timeout = Duration::from_millis(40);
        let server = echo(config);
        let mut client = server.connect().await;
        client.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(statuses(&read_to_end(&mut client).await), ["200"]);
        // Also one that never sent anything.
        let mut config = listener();
        config.protocol = attache_config::model::ListenProtocol::Http;
        config.http.idle_timeout = Duration::from_millis(40);
        let silent = echo(config);
        assert_eq!(read_to_end(&mut silent.connect().await).await, "");
    });
}

#[test]
fn a_panic_ends_its_own_request_with_500_and_nothing_else() {
    run(async {
        let http = fun(|request: HttpRequest| {
            assert_ne!(request.request.uri().path(), "/call", "a panic in call");
            async move {
                assert_ne!(request.request.uri().path(), "/poll", "a panic in poll");
                answer(request).await
            }
        });
        let metrics = installed();
        let server = start(listener(), None, http, fun(echo_bytes));
        let mut other = server.connect().await;
        other.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut other, "GET /a []").await;
        for path in ["/call", "/poll"] {
            let answers = server.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n{GET}")).await;
            assert_eq!(statuses(&answers), ["500"], "{answers}");
            assert!(answers.contains("x-attache-reason: internal-error"), "{answers}");
        }
        other.write_all(LAST.as_bytes()).await.unwrap();
        read_until(&mut other, "GET /z []").await;
        let failed =
            server.finished(4).await.iter().filter(|d| d.reason == Some(Reason::InternalError)).count();
        assert_eq!(failed, 2);
        counted(&metrics, "attache_panics_total 2").await;
        counted(&metrics, r#"attache_connections_closed_total{listener="test",reason="internal-error"} 2"#)
            .await;
        counted(&metrics, r#"attache_connections_closed_total{listener="test",reason=""} 1"#).await;
    });
}

struct BrokenBody(u32);

impl http_body::Body for BrokenBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.0 += 1;
        std::task::Poll::Ready(Some(match self.0 {
            1 => Ok(http_body::Frame::data(Bytes::from_static(b"begin"))),
            2 => Err(BodyError::new(Reason::UpstreamClosedMidBody)),
            _ => panic!("a response body that panics"),
        }))
    }
}

#[test]
fn a_response_that_breaks_off_never_ends_cleanly() {
    run(async {
        for (length, begin) in [(None, 0), (Some("100"), 0), (None, 2)] {
            let http = fun(move |_: HttpRequest| async move {
                let mut answer = Response::new(Body::stream(BrokenBody(begin)));
                if let Some(length) = length {
                    answer.headers_mut().insert("content-length", HeaderValue::from_static(length));
                }
                answer
            });
            let server = start(listener(), None, http, fun(echo_bytes));
            let mut client = server.connect().await;
            client.write_all(GET.as_bytes()).await.unwrap();
            let mut all = Vec::new();
            let _ = client.read_to_end(&mut all).await;
            let all = String::from_utf8_lossy(&all);
            assert!(!all.ends_with("0\r\n\r\n"), "{all}");
            let done = server.finished(1).await;
            let expected = if begin == 0 { Reason::UpstreamClosedMidBody } else { Reason::InternalError };
            assert_eq!(done[0].reason, Some(expected));
        }
    });
}

struct OnDrop<F: Fn()>(Rc<F>);
impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_client_that_leaves_cancels_its_request_and_is_reported() {
    run(async {
        let (dropped, drop_now) = counter();
        let drop_now = Rc::new(drop_now);
        let http = fun(move |_: HttpRequest| {
            let guard = OnDrop(drop_now.clone());
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                text(200, "")
            }
        });
        // A reset always means that the client has left; an end of its sending may only mean that no request follows.
        for (half_close, reset) in
            [(HalfClose::Cut, false), (HalfClose::Cut, true), (HalfClose::Answer, true)]
        {
            let mut config = listener();
            config.http.half_close = half_close;
            let server = start(config, None, http.clone(), fun(echo_bytes));
            let before = dropped.get();
            let mut client = server.connect().await;
            client.write_all(GET.as_bytes()).await.unwrap();
            until(|| server.connections.open() == 1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if reset {
                client.set_zero_linger().unwrap();
            }
            drop(client);
            let done = server.finished(1).await;
            let seen = (done[0].reason, done[0].status, dropped.get() - before);
            assert_eq!(seen, (Some(Reason::ClientClosed), 0, 1));
            until(|| server.connections.open() == 0).await;
        }
    });
}

#[test]
fn a_client_that_closes_its_side_after_its_request_gets_its_answer_and_no_more() {
    run(async {
        let slow = |request: HttpRequest| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer(request).await
        };
        let server = start(listener(), None, fun(slow), fun(echo_bytes));
        for wait in [0, 20] {
            let mut client = server.connect().await;
            client.write_all(format!("{GET}{GET}").as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(wait)).await;
            client.shutdown().await.unwrap();
            assert_eq!(statuses(&read_to_end(&mut client).await), ["200", "200"]);
        }
        let reasons: Vec<_> = server.finished(4).await.iter().map(|d| d.reason).collect();
        assert_eq!(reasons, [None; 4]);
        until(|| server.connections.open() == 0).await;
    });
}

#[test]
fn hints_to_a_client_that_does_not_read_are_bounded() {
    run(async {
        let http = fun(|request: HttpRequest| async move {
            let informational = request.on_informational.clone().unwrap();
            let mut headers = Fields::new();
            headers.insert("link", HeaderValue::try_from("x".repeat(8000)).unwrap());
            for _ in 0..10_000 {
                informational.call(StatusCode::EARLY_HINTS, headers.clone());
            }
            answer(request).await
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let answers = server.ask(LAST).await;
        assert!(answers.len() < 200_000, "{} bytes", answers.len());
        assert_eq!(statuses(&answers).last(), Some(&"200"));
    });
}

#[test]
fn a_forbidden_byte_in_a_target_is_named_with_its_position() {
    run(async {
        let server = echo(listener());
        let ask = async |target: &str| {
            server.ask(format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await
        };
        let query = r#"/api?q=up{job="x"}<>\^|`[]"#;
        assert_eq!(statuses(&ask(query).await), ["200"], "every visible byte passes in a query");
        for (target, at) in [
            ("/a`b", "byte 0x60 (`` ` ``) at position 3"),
            ("/a\\b", "byte 0x5C (`\\`) at position 3"),
            ("/a?b#c", "byte 0x23 (`#`) at position 5"),
            ("/caf\u{e9}", "byte 0xC3 at position 5"),
        ] {
            let answer = ask(target).await;
            assert_eq!(statuses(&answer), ["400"], "{target}");
            assert!(answer.contains(&at.replace("`` ` ``", "```")), "{answer}");
        }
        let mut config = listener();
        config.http.target = TargetPolicy::Lenient;
        let lenient = echo(config);
        let get = "GET /caf\u{e9}?\u{fc} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        assert_eq!(statuses(&lenient.ask(get).await), ["200"]);
        let broken = b"GET /caf\xe9 HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(statuses(&lenient.ask(broken).await), ["400"], "it must be UTF-8");
    });
}

#[test]
fn a_coding_beside_chunked_is_not_implemented_and_a_later_http_1_is_1_1() {
    run(async {
        let server = echo(listener());
        let answer = server
            .ask("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: foo, chunked\r\n\r\n0\r\n\r\n")
            .await;
        assert_eq!(statuses(&answer), ["501"], "{answer}");
        assert_eq!(server.finished(1).await[0].reason, Some(Reason::UnknownCoding));
        let later = server.ask("GET / HTTP/1.2\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        assert!(later.starts_with("HTTP/1.1 200"), "{later}");
    });
}

#[test]
fn the_received_part_of_a_body_is_written_before_the_cut() {
    run(async {
        let http = fun(|_: HttpRequest| async { Response::new(Body::stream(BrokenBody(0))) });
        let server = start(listener(), None, http, fun(echo_bytes));
        let all = server.ask(GET).await;
        assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("5\r\nbegin\r\n"), "{all}");
        // If only the end of the connection shows that a body is complete, it ends with a reset.
        let mut old = server.connect().await;
        old.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        assert!(old.read_to_end(&mut all).await.is_err(), "{all:?}");
    });
}

/// A body that begins, and then neither continues nor ends.
struct Stuck(bool);

impl http_body::Body for Stuck {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        if std::mem::replace(&mut self.0, true) {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"begin")))))
    }
}

#[test]
fn a_body_that_only_the_connection_s_end_completes_is_reset_when_the_connection_is_cut() {
    run(async {
        let http = fun(|_: HttpRequest| async { Response::new(Body::stream(Stuck(false))) });
        let server = start(listener(), None, http, fun(echo_bytes));
        let mut old = server.connect().await;
        old.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        read_until(&mut old, "begin").await;
        server.trigger.drain();
        server.trigger.cut();
        let mut rest = Vec::new();
        assert!(old.read_to_end(&mut rest).await.is_err(), "its end looks like the end of a complete body");
        server.task.await.unwrap();
    });
}

#[test]
fn the_unread_rest_of_a_small_body_does_not_end_the_connection() {
    run(async {
        let http = fun(|request: HttpRequest| async move {
            let path = request.request.uri().path().to_owned();
            text(200, path)
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let post = |length: usize, sent: usize| {
            format!("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(sent))
        };
        let answers = server.ask(format!("{}{LAST}", post(3000, 3000))).await;
        assert_eq!(statuses(&answers), ["200", "200"], "{answers}");
        // A body that the client may never send is not waited for.
        let expects = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
        let answers = server.ask(expects).await;
        assert_eq!(statuses(&answers), ["200"], "{answers}");
        assert!(answers.contains("connection: close"), "{answers}");
    });
}
