//! Tests of a connection before and around its requests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

#[path = "../support/mod.rs"]
mod support;
mod tls;

use std::time::Duration;

use attache_config::model::{
    Bind, HttpServer, Identity, ListenProtocol, Listener, ProxyProtocolIn, TlsMode, TlsServer,
};
use attache_http::AcceptedTraffic;
use attache_listener::{HttpRequest, OpaqueConnection, OpaqueOutcome};
use attache_telemetry::Reason;
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::Instant,
};

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const LAST: &str = "GET /z HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

fn of(protocol: ListenProtocol) -> Listener {
    Listener { protocol, ..listener() }
}

#[test]
fn auto_distinguishes_http_tls_and_opaque_bytes_and_loses_no_byte() {
    run(async {
        let server = echo(listener());
        assert!(server.ask(LAST).await.contains("GET /z []"));
        let mut client = server.connect().await;
        client.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut client).await, "*1\r\n$4\r\nPING\r\n");
        let protocols: Vec<_> = server.finished(2).await.iter().map(|d| d.protocol).collect();
        assert_eq!(protocols, ["http1", "tcp"]);
    });
}

#[test]
fn a_first_line_in_single_bytes_is_still_http() {
    run(async {
        let server = echo(listener());
        let mut client = server.connect().await;
        client.set_nodelay(true).unwrap();
        for byte in LAST.bytes() {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(read_to_end(&mut client).await.contains("GET /z []"));
    });
}

#[test]
fn a_server_that_sends_first_is_connected_after_the_timeout_or_at_once_if_configured() {
    run(async {
        let greet = |mut opaque: OpaqueConnection| async move {
            opaque.io.write_all(b"220 hello\r\n").await.unwrap();
        };
        let begin = Instant::now();
        let server = start(listener(), None, fun(answer), fun(greet));
        assert_eq!(read_to_end(&mut server.connect().await).await, "220 hello\r\n");
        assert!(begin.elapsed() >= Duration::from_millis(200));
        let server = start(of(ListenProtocol::Tcp), None, fun(answer), fun(greet));
        assert_eq!(read_to_end(&mut server.connect().await).await, "220 hello\r\n");
        // A request with a pause stays a request, and so does a late one.
        for pieces in [["GET", &LAST[3..]], ["", LAST]] {
            let wait = |mut opaque: OpaqueConnection| async move {
                opaque.io.client_speaks().await;
                OpaqueOutcome::Silent(Box::new(opaque.io))
            };
            let server = start(listener(), None, fun(answer), fun(wait));
            let mut client = server.connect().await;
            for piece in pieces {
                tokio::time::sleep(Duration::from_millis(300)).await;
                client.write_all(piece.as_bytes()).await.unwrap();
            }
            assert!(read_to_end(&mut client).await.contains("GET /z []"), "{pieces:?}");
            assert_eq!(server.finished(1).await.len(), 1, "the wait is not an exchange");
        }
    });
}

#[test]
fn the_http_protocols_refuse_what_is_not_http() {
    run(async {
        for protocol in [ListenProtocol::Http, ListenProtocol::Http1] {
            let server = echo(of(protocol));
            assert!(server.ask("\x16\x03\x01").await.starts_with("HTTP/1.1 400"));
            assert!(server.ask(LAST).await.contains("GET /z []"));
        }
        let server = echo(of(ListenProtocol::Tls));
        assert_eq!(server.ask("GET / HTTP/1.1\r\n").await, "");
        assert_eq!(server.finished(1).await[0].reason, Some(Reason::PlaintextDenied));
    });
}

#[test]
fn the_proxy_protocol_names_the_client_and_its_header_is_required() {
    run(async {
        let with = |proxy_protocol| Listener { proxy_protocol, ..listener() };
        let header = "PROXY TCP4 192.0.2.7 192.0.2.8 1000 80\r\n";
        for rule in [ProxyProtocolIn::Require, ProxyProtocolIn::Optional] {
            let server = echo(with(rule));
            assert!(server.ask(format!("{header}{LAST}")).await.contains("GET /z []"));
            assert_eq!(server.finished(1).await[0].client, "192.0.2.7:1000".parse().ok());
        }
        let required = echo(with(ProxyProtocolIn::Require));
        assert_eq!(required.ask(LAST).await, "");
        assert_eq!(required.finished(1).await[0].reason, Some(Reason::BadRequest));
        assert_eq!(required.ask("PROXY TCP9\r\n").await, "");
        let optional = echo(with(ProxyProtocolIn::Optional));
        assert!(optional.ask(LAST).await.contains("GET /z []"));
        let off = echo(with(ProxyProtocolIn::Off));
        let mut client = off.connect().await;
        client.write_all(header.as_bytes()).await.unwrap();
        assert_eq!(read_until(&mut client, "\r\n").await, header, "the application's own bytes");
    });
}

#[test]
fn more_connections_than_allowed_are_closed_at_once_and_counted() {
    run(async {
        let metrics = installed();
        let server = echo(Listener { max_connections: 2, ..listener() });
        let mut kept = server.connect().await;
        let second = server.connect().await;
        until(|| server.connections.open() == 2).await;
        let mut third = server.connect().await;
        assert!(matches!(third.read(&mut [0]).await, Ok(0) | Err(_)));
        assert_eq!(server.finished(1).await[0].reason, Some(Reason::Overloaded));
        drop(second);
        until(|| server.connections.open() == 1).await;
        assert!(server.ask(LAST).await.contains("GET /z []"));
        kept.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut kept, "GET /a []").await;
        counted(&metrics, r#"attache_connections_opened_total{listener="test"} 4"#).await;
        counted(&metrics, r#"attache_connections_active{listener="test"} 1"#).await;
        counted(&metrics, r#"attache_connections_closed_total{listener="test",reason=""} 2"#).await;
        counted(&metrics, r#"attache_connections_closed_total{listener="test",reason="overloaded"} 1"#).await;
    });
}

#[test]
fn a_unix_socket_serves_like_any_other() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let server =
            echo(Listener { bind: vec![Bind::Unix { path: path.clone(), mode: 0o600 }], ..listener() });
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(LAST.as_bytes()).await.unwrap();
        read_until(&mut client, "GET /z []").await;
        assert_eq!(server.finished(1).await[0].client, None);
        server.trigger.drain();
        server.task.await.unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn a_panic_in_the_carrier_of_opaque_bytes_ends_one_connection() {
    run(async {
        let metrics = installed();
        let server = start(
            listener(),
            None,
            fun(answer),
            fun(|opaque: OpaqueConnection| async move { assert!(opaque.silent, "opaque") }),
        );
        let mut client = server.connect().await;
        client.write_all(b"*1\r\n").await.unwrap();
        let _ = client.read(&mut [0]).await;
        assert!(server.ask(LAST).await.contains("GET /z []"));
        let done = server.finished(2).await;
        assert!(done.iter().any(|d| d.reason == Some(Reason::InternalError)), "{done:?}");
        counted(&metrics, r"attache_panics_total 1").await;
        counted(&metrics, r#"attache_connections_closed_total{listener="test",reason="internal-error"} 1"#)
            .await;
        until(|| server.connections.open() == 0).await;
    });
}

#[test]
fn a_connection_that_waits_to_be_accepted_is_served_at_the_end() {
    run(async {
        let server = echo(listener());
        // The worker does not run between these.
        let mut client = std::net::TcpStream::connect(server.address).unwrap();
        std::io::Write::write_all(&mut client, GET.as_bytes()).unwrap();
        server.trigger.drain();
        assert!(server.connections.open() == 0 && !server.connections.have_ended());
        client.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from_std(client).unwrap();
        assert!(read_to_end(&mut client).await.contains("GET /a []"));
        until(|| server.connections.have_ended()).await;
    });
}

#[test]
fn a_drain_answers_running_requests_closes_idle_connections_and_keeps_opaque_ones_until_the_cut() {
    run(async {
        let slow = |request: HttpRequest| async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            answer(request).await
        };
        let metrics = installed();
        let server = start(listener(), None, fun(slow), fun(echo_bytes));
        let mut running = server.connect().await;
        running.write_all(GET.repeat(2).as_bytes()).await.unwrap();
        let mut idle = server.connect().await;
        idle.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut idle, "GET /a []").await;
        let mut opaque = server.connect().await;
        opaque.write_all(b"*1\r\n").await.unwrap();
        read_until(&mut opaque, "*1\r\n").await;
        let mut fresh = server.connect().await;
        until(|| server.connections.open() == 4).await;

        server.trigger.drain();
        assert_eq!(read_to_end(&mut idle).await, "");
        assert_eq!(read_to_end(&mut fresh).await, "");
        let answers = read_to_end(&mut running).await;
        assert!(answers.ends_with("GET /a []") && answers.contains("connection: close"), "{answers}");
        assert!(TcpStream::connect(server.address).await.is_err());
        opaque.write_all(b"still").await.unwrap();
        read_until(&mut opaque, "still").await;
        assert!(!server.task.is_finished());

        server.trigger.cut();
        assert!(matches!(opaque.read(&mut [0; 9]).await, Ok(0) | Err(_)));
        server.task.await.unwrap();
        let last = server.done.borrow().last().cloned().unwrap();
        assert_eq!((last.protocol, last.reason), ("tcp", Some(Reason::ShuttingDown)));
        counted(&metrics, r#"attache_connections_closed_total{listener="test",reason=""} 3"#).await;
        counted(&metrics, r#"attache_connections_closed_total{listener="test",reason="shutting-down"} 1"#)
            .await;
    });
}

#[test]
fn a_request_that_was_in_the_kernel_s_queue_when_the_drain_began_is_answered() {
    run(async {
        let server = echo(listener());
        // The worker has not run since: both are still in the kernel only.
        let mut client = std::net::TcpStream::connect(server.address).unwrap();
        std::io::Write::write_all(&mut client, GET.as_bytes()).unwrap();
        server.trigger.drain();
        client.set_nonblocking(true).unwrap();
        let answer = read_to_end(&mut TcpStream::from_std(client).unwrap()).await;
        assert!(answer.contains("connection: close") && answer.ends_with("GET /a []"), "{answer}");
        server.task.await.unwrap();
    });
}

#[test]
fn a_tunnel_is_cut_at_the_deadline() {
    run(async {
        let http = fun(|mut request: HttpRequest| async move {
            let upgrade = request.upgrade.take().unwrap();
            tokio::task::spawn_local(async move {
                let mut io = upgrade.await.unwrap();
                let _ = io.write_all(b"open").await;
                let _ = io.read(&mut [0; 9]).await;
            });
            text(200, "")
        });
        let server = start(listener(), None, http, fun(echo_bytes));
        let mut client = server.connect().await;
        client.write_all(b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        read_until(&mut client, "open").await;
        server.trigger.drain();
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(!server.task.is_finished());
        server.trigger.cut();
        assert!(matches!(client.read(&mut [0; 9]).await, Ok(0) | Err(_)));
        server.task.await.unwrap();
        assert_eq!(server.done.borrow()[0].reason, Some(Reason::ShuttingDown));
    });
}

/// A body that never ends, as fast as it is read.
struct EndlessBody;

impl http_body::Body for EndlessBody {
    type Data = bytes::Bytes;
    type Error = attache_http::BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let chunk = bytes::Bytes::from_static(&[b'x'; 16_384]);
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(chunk))))
    }
}

/// The report about a client that requests much and reads nothing.
async fn stalled(request: &[u8]) -> ReportedExchange {
    let http = HttpServer { write_timeout: Duration::from_millis(300), ..HttpServer::default() };
    let endless = |_: HttpRequest| async { http::Response::new(attache_http::Body::stream(EndlessBody)) };
    let server = start(Listener { http, ..listener() }, None, fun(endless), fun(echo_bytes));
    let mut client = server.connect().await;
    client.write_all(request).await.unwrap();
    let done = server.finished(1).await;
    until(|| server.connections.open() == 0).await;
    done[0].clone()
}

#[test]
fn a_client_that_stops_reading_is_cut() {
    run(async {
        let done = stalled(GET.as_bytes()).await;
        assert_eq!((done.reason, done.protocol), (Some(Reason::ClientClosed), "http1"));
        assert!(done.detail.as_ref().unwrap().contains("write_timeout"), "{done:?}");
    });
}

#[test]
fn a_client_that_stops_reading_http2_is_cut() {
    run(async {
        // The windows are 2 GiB, so that only the socket holds the response back.
        let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        request.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff");
        request.extend(b"\0\0\x04\x08\0\0\0\0\0\x7f\xfe\0\0");
        request.extend(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01h");
        let done = stalled(&request).await;
        assert_eq!((done.reason, done.protocol), (Some(Reason::ClientClosed), "http2"));
        assert!(done.detail.as_ref().unwrap().contains("write_timeout"), "{done:?}");
    });
}
