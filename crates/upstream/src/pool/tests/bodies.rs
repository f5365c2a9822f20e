//! HTTP/1.1 bodies, both ways: framing, cuts, back-pressure, trailers.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use attache_http::{Body, BodyError};
use attache_telemetry::Reason;
use http::HeaderMap;
use http_body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, pause, timeout},
};

use crate::{
    connect::EndpointConnection,
    limit::ConnectionPermit,
    pool::{h1::H1Connection, h1_body},
    testing::*,
};

async fn cut_by(answer: &'static str) -> Result<String, BodyError> {
    let server = serve(move |mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        settle().await;
    })
    .await;
    let upstream = to(&server, |_| {});
    let response = upstream.send(get("/")).await.unwrap();
    let result = read(response.into_body()).await;
    settle().await;
    assert_eq!(counts(&upstream), (0, 0));
    result.map(|(text, _)| text)
}

#[tokio::test(flavor = "local")]
async fn a_body_that_is_shorter_than_its_length_is_cut_and_not_ended() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsho",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
    ] {
        let error = cut_by(answer).await.unwrap_err();
        assert_eq!(error.reason, Some(Reason::UpstreamClosedMidBody), "{answer}: {error:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_body_whose_framing_is_broken_is_a_protocol_error() {
    let broken = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\nxyz\r\n";
    let error = cut_by(broken).await.unwrap_err();
    assert_eq!(error.reason, Some(Reason::UpstreamProtocolError), "{error:?}");
}

#[tokio::test(flavor = "local")]
async fn a_body_delimited_by_the_connection_s_end_is_whole_without_tls() {
    assert_eq!(cut_by("HTTP/1.1 200 OK\r\n\r\nall of it").await.unwrap(), "all of it");
    assert_eq!(cut_by("HTTP/1.0 200 OK\r\n\r\nall of it").await.unwrap(), "all of it");
}

#[tokio::test(flavor = "local")]
async fn a_reset_does_not_end_a_body_that_is_delimited_by_the_connections_end() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\npart").await.unwrap();
        settle().await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let response = to(&server, |_| {}).send(get("/")).await.unwrap();
    let error = read(response.into_body()).await.unwrap_err();
    assert_eq!(error.reason, Some(Reason::UpstreamClosedMidBody));
}

/// A TLS server that answers with a body delimited by the connection's end, with or without TLS's close_notify.
async fn over_tls(close_notify: bool) -> Result<String, BodyError> {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let settings = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(settings));
    let server = serve(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let mut tls = acceptor.accept(stream).await.unwrap();
            let mut request = [0; 1024];
            let _ = tls.read(&mut request).await.unwrap();
            tls.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it").await.unwrap();
            tls.flush().await.unwrap();
            if close_notify {
                tls.shutdown().await.unwrap();
            }
        }
    })
    .await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let settings = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(settings))
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();

    let upstream = to(&server, |_| {});
    let shared = upstream.shared();
    let permit = ConnectionPermit::take(shared).unwrap();
    let io = EndpointConnection::from(tls);
    let mut connection = H1Connection::new(io, permit, &shared.config.pool, None, None);
    let request = http::Request::get("/").header("host", "localhost").body(Body::empty()).unwrap().into();
    connection.begin(request);
    let response = connection.answer(None).await;
    let response = response.unwrap_or_else(|failed| panic!("{:?}", failed.error));
    let pool = crate::pool::ConnectionPool::new(Arc::clone(shared));
    let home = pool.home(&shared.endpoints.load().endpoints[0]);
    let response = h1_body::attach(response, connection, home, None);
    read(response.into_body()).await.map(|(text, _)| text)
}

#[tokio::test(flavor = "local")]
async fn over_tls_only_close_notify_ends_a_body_delimited_by_the_connection_s_end() {
    assert_eq!(over_tls(true).await.unwrap(), "all of it");
    let error = over_tls(false).await.unwrap_err();
    assert_eq!(error.reason, Some(Reason::UpstreamClosedMidBody));
}

#[tokio::test(flavor = "local")]
async fn a_body_that_comes_in_pieces_gives_its_connection_back_at_its_end() {
    let server = serve(|mut stream, _| async move {
        while head(&mut stream).await.is_some() {
            for piece in ["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n", "ab", "cd", "ef"] {
                stream.write_all(piece.as_bytes()).await.unwrap();
                settle().await;
            }
        }
    })
    .await;
    let upstream = to(&server, |_| {});
    for _ in 0..2 {
        let response = upstream.send(get("/")).await.unwrap();
        assert_eq!(counts(&upstream), (1, 1), "the call runs until its body has ended");
        assert_eq!(text(response).await, "abcdef");
        assert_eq!(counts(&upstream), (1, 0));
    }
    assert_eq!(server.accepted.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn the_first_bytes_are_passed_on_before_the_rest_exists() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        let first = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\ndata: \r\n";
        stream.write_all(first).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let response = to(&server, |_| {}).send(get("/")).await.unwrap();
    let mut body = response.into_body();
    let first = frame(&mut body).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: ");
}

#[tokio::test(flavor = "local")]
async fn a_body_that_is_dropped_closes_its_connection() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nab").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = to(&server, |_| {});
    drop(upstream.send(get("/")).await.unwrap());
    assert_eq!(counts(&upstream), (0, 0));
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", http::HeaderValue::from_static("42"));
    trailers
}

#[tokio::test(flavor = "local")]
async fn trailers_pass_both_ways() {
    let got = Rc::new(RefCell::new(String::new()));
    let seen = Rc::clone(&got);
    let server = serve(move |mut stream, _| {
        let seen = Rc::clone(&seen);
        async move {
            head(&mut stream).await;
            *seen.borrow_mut() = until(&mut stream, "\r\n\r\n").await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let body = frames(vec![data("hello"), Ok(Frame::trailers(trailers()))]);
    let mut call = post(body);
    call.request.headers_mut().insert("trailer", http::HeaderValue::from_static("x-checksum"));
    let upstream = to(&server, |_| {});
    let response = upstream.send(call).await.unwrap();
    let (text, trailers) = read(response.into_body()).await.unwrap();
    assert_eq!(*got.borrow(), "5\r\nhello\r\n0\r\nx-checksum: 42\r\n\r\n");
    assert_eq!((text.as_str(), &trailers.unwrap()["x-sum"]), ("ok", &"1".parse().unwrap()));
    assert_eq!(counts(&upstream), (1, 0), "and the connection is kept");
}

#[tokio::test(flavor = "local")]
async fn a_failing_grpc_status_in_http1_trailers_counts_against_the_endpoint() {
    for (status, failures) in [("14", 1), ("5", 0)] {
        let server = serve(move |mut stream, _| async move {
            head(&mut stream).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: {status}\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let upstream = to(&server, |_| {});
        read(upstream.send(get("/")).await.unwrap().into_body()).await.unwrap();
        let endpoint = upstream.shared().endpoints.load().endpoints[0].clone();
        assert_eq!(endpoint.passive.failures(), failures, "{status}");
        assert_eq!(counts(&upstream), (1, 0), "the connection is kept");
    }
}

#[tokio::test(flavor = "local")]
async fn a_get_with_a_body_of_unknown_length_is_sent_chunked() {
    let server = serve(|mut stream, _| async move {
        let head = head(&mut stream).await.unwrap();
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        assert_eq!(until(&mut stream, "0\r\n\r\n").await.unwrap(), "5\r\nquery\r\n0\r\n\r\n");
        stream.write_all(OK.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let mut call = post(frames(vec![data("query")]));
    *call.request.method_mut() = http::Method::GET;
    assert_eq!(text(to(&server, |_| {}).send(call).await.unwrap()).await, "ok");
}

#[tokio::test(flavor = "local")]
async fn a_client_that_cuts_its_upload_is_the_cause_and_the_upstream_sees_no_clean_end() {
    let got = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&got);
    let server = serve(move |mut stream, _| {
        let seen = Rc::clone(&seen);
        async move {
            head(&mut stream).await;
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            *seen.borrow_mut() = bytes;
        }
    })
    .await;
    let upstream = to(&server, |_| {});
    let gone = BodyError::new(Reason::ClientClosed);
    let error = upstream.send(post(frames(vec![data("hello"), Err(gone)]))).await.unwrap_err();
    assert_eq!(error.reason, Reason::ClientClosed);
    assert_eq!(counts(&upstream), (0, 0));
    settle().await;
    assert!(!got.borrow().ends_with(b"0\r\n\r\n"), "{:?}", got.borrow());
}

#[tokio::test(flavor = "local")]
async fn an_upload_that_the_upstream_does_not_read_stops_with_little_in_memory() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let given = Rc::new(Cell::new(0));
    let upstream = to(&server, |_| {});
    let sending = upstream.send(post(endless(Rc::clone(&given))));
    assert!(timeout(Duration::from_millis(500), sending).await.is_err());
    // The kernel's buffers on loopback hold some megabytes; the test only checks that the upload stops.
    assert!(given.get() > 0 && given.get() < 16 << 20, "{}", given.get());
}

#[tokio::test(flavor = "local")]
async fn a_response_that_is_not_read_stops_the_upstream() {
    let written = Rc::new(Cell::new(0));
    let count = Rc::clone(&written);
    let server = serve(move |mut stream, _| {
        let count = Rc::clone(&count);
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            loop {
                count.set(count.get() + stream.write(&[b'x'; 16 << 10]).await.unwrap());
            }
        }
    })
    .await;
    let _response = to(&server, |_| {}).send(get("/")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let then = written.get();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(written.get() == then && then < 16 << 20, "{then} {}", written.get());
}

#[tokio::test(flavor = "local")]
async fn an_early_response_does_not_stop_the_upload_even_if_nobody_reads_it() {
    const LENGTH: usize = 4 << 20;
    let got = Rc::new(Cell::new(0));
    let seen = Rc::clone(&got);
    let server = serve(move |stream, _| {
        let seen = Rc::clone(&seen);
        async move {
            let (mut reader, mut writer) = stream.into_split();
            writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            tokio::task::spawn_local(async move {
                loop {
                    writer.write_all(&[b'x'; 16 << 10]).await.unwrap();
                }
            });
            let mut buf = vec![0; 64 << 10];
            loop {
                let n = reader.read(&mut buf).await.unwrap();
                seen.set(seen.get() + n);
            }
        }
    })
    .await;
    let given = Rc::new(Cell::new(0));
    let response = to(&server, |_| {}).send(post(endless(Rc::clone(&given)))).await.unwrap();
    let uploaded = async {
        while got.get() < LENGTH {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), uploaded).await.unwrap();
    drop(response);
    settle().await;
    let then = given.get();
    settle().await;
    assert_eq!(given.get(), then, "dropping the response ends the upload");
}

#[tokio::test(flavor = "local")]
async fn a_response_that_ends_before_the_upload_closes_the_connection() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = to(&server, |_| {});
    let response = upstream.send(post(endless(Rc::default()))).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(text(response).await, "big");
    settle().await;
    assert_eq!(counts(&upstream), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn an_answer_from_a_peer_that_stopped_reading_is_still_delivered() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
        // Closed with unread bytes: the kernel sends a reset after the answer.
        stream.shutdown().await.unwrap();
    })
    .await;
    let upstream = to(&server, |_| {});
    for _ in 0..20 {
        let response = upstream.send(post(endless(Rc::default()))).await.unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(text(response).await, "big");
    }
}

async fn expecting(answer: &'static str) -> (CountingServer, Rc<RefCell<String>>) {
    let got = Rc::new(RefCell::new(String::new()));
    let seen = Rc::clone(&got);
    let server = serve(move |mut stream, _| {
        let seen = Rc::clone(&seen);
        async move {
            let head = head(&mut stream).await.unwrap();
            assert!(head.contains("expect: 100-continue"));
            if let Some(early) = answer.strip_suffix("...") {
                settle().await;
                assert_eq!(
                    stream.try_read(&mut [0]).map_err(|e| e.kind()),
                    Err(std::io::ErrorKind::WouldBlock)
                );
                stream.write_all(early.as_bytes()).await.unwrap();
            }
            *seen.borrow_mut() = until(&mut stream, "body").await.unwrap_or_default();
            let _ = stream.write_all(OK.as_bytes()).await;
        }
    })
    .await;
    (server, got)
}

fn expectant() -> crate::Call {
    let mut call = post(Body::full("body"));
    call.request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    call
}

#[tokio::test(flavor = "local")]
async fn an_expectant_body_waits_for_the_upstream_s_100() {
    let (server, got) = expecting("HTTP/1.1 100 Continue\r\n\r\n...").await;
    let start = Instant::now();
    let response = to(&server, |_| {}).send(expectant()).await.unwrap();
    assert_eq!(text(response).await, "ok");
    assert_eq!(*got.borrow(), "body");
    assert!(start.elapsed() < Duration::from_millis(900), "it was the 100, not the timeout");
}

#[tokio::test(flavor = "local")]
async fn an_expectant_body_is_not_sent_after_a_refusal() {
    let (server, got) = expecting("HTTP/1.1 417 No\r\ncontent-length: 2\r\n\r\nno...").await;
    let upstream = to(&server, |_| {});
    let response = upstream.send(expectant()).await.unwrap();
    assert_eq!(response.status(), 417);
    assert_eq!(text(response).await, "no");
    settle().await;
    assert_eq!(*got.borrow(), "");
    assert_eq!(counts(&upstream), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn an_expectant_body_is_sent_after_a_second_of_silence() {
    let (server, got) = expecting("").await;
    let upstream = to(&server, |_| {});
    pause();
    let start = Instant::now();
    let response = upstream.send(expectant()).await.unwrap();
    assert_eq!(text(response).await, "ok");
    assert_eq!(*got.borrow(), "body");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(flavor = "local")]
async fn a_body_that_ends_before_its_promised_length_is_the_client_s_fault() {
    let server = serve(|mut stream, _| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut call = post(frames(vec![data("short")]));
    call.request.headers_mut().insert("content-length", http::HeaderValue::from_static("10"));
    let error = to(&server, |_| {}).send(call).await.unwrap_err();
    assert_eq!(error.reason, Reason::ClientClosed);
}
