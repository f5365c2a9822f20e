//! HTTP/2: sharing, limits, refusals, cuts, flow control, tunnels.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use attache_config::model::{self, UpstreamProtocol};
use attache_http::{Body, BodyError, OnInformational};
use attache_telemetry::Reason;
use bytes::Bytes;
use h2::server::Builder;
use http::{HeaderMap, Response};
use http_body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::spawn_local,
    time::{Instant, pause, timeout},
};

use super::h2_server::{answer, body, connections, streams};
use crate::{SentPart, WorkerUpstream, testing::*};

pub(super) fn h2(server: &CountingServer, change: impl FnOnce(&mut model::Upstream)) -> WorkerUpstream {
    to(server, |config| {
        config.protocol = UpstreamProtocol::Http2;
        change(config);
    })
}

#[tokio::test(flavor = "local")]
async fn a_burst_of_calls_shares_one_connection() {
    let server = streams(Builder::new(), |request, mut respond, _| async move {
        assert_eq!(request.uri().to_string(), "http://service.example:80/a?b");
        assert!(request.headers().get("host").is_none());
        answer(&mut respond, "ok");
    })
    .await;
    let upstream = h2(&server, |_| {});
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let upstream = upstream.clone();
            spawn_local(async move { text(upstream.send(get("/a?b")).await.unwrap()).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "ok");
    }
    assert_eq!((server.accepted.get(), counts(&upstream)), (1, (1, 0)));
}

#[tokio::test(flavor = "local")]
async fn grpc_goes_over_http2_without_being_told_and_trailers_pass_both_ways() {
    let server = streams(Builder::new(), |request, mut respond, _| async move {
        let (bytes, trailers) = body(request).await;
        assert_eq!(
            (bytes.as_slice(), &trailers.unwrap()["x-a"]),
            (b"question".as_slice(), &"1".parse().unwrap())
        );
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"answer"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        stream.send_trailers(trailers).unwrap();
    })
    .await;
    let upstream = to(&server, |_| {});
    let mut trailers = HeaderMap::new();
    trailers.insert("x-a", http::HeaderValue::from_static("1"));
    let mut call = post(frames(vec![data("question"), Ok(Frame::trailers(trailers))]));
    call.request
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/grpc+proto"));
    let (text, trailers) = read(upstream.send(call).await.unwrap().into_body()).await.unwrap();
    assert_eq!((text.as_str(), &trailers.unwrap()["grpc-status"]), ("answer", &"0".parse().unwrap()));
    assert_eq!(counts(&upstream), (1, 0));
}

#[tokio::test(flavor = "local")]
async fn above_the_peer_s_stream_limit_another_connection_is_opened() {
    let mut settings = Builder::new();
    settings.max_concurrent_streams(2);
    let go = Rc::new(Notify::new());
    let held = Rc::clone(&go);
    let server = streams(settings, move |_, mut respond, _| {
        let held = Rc::clone(&held);
        async move {
            held.notified().await;
            answer(&mut respond, "ok");
        }
    })
    .await;
    let upstream = h2(&server, |_| {});
    let mut calls = Vec::new();
    for _ in 0..5 {
        let upstream = upstream.clone();
        calls.push(spawn_local(async move { text(upstream.send(get("/")).await.unwrap()).await }));
        settle().await; // the peer's settings arrive meanwhile
    }
    assert_eq!((server.accepted.get(), counts(&upstream)), (3, (3, 5)));
    for call in calls {
        go.notify_one();
        settle().await;
        drop(call);
    }
}

#[tokio::test(flavor = "local")]
async fn our_own_stream_limit_counts_too() {
    let server = streams(Builder::new(), |_, respond, _| async move {
        std::future::pending::<()>().await;
        drop(respond);
    })
    .await;
    let upstream = h2(&server, |c| c.pool.h2_streams = 1);
    for _ in 0..3 {
        let upstream = upstream.clone();
        spawn_local(async move { upstream.send(get("/")).await });
        settle().await;
    }
    assert_eq!(server.accepted.get(), 3);
}

#[tokio::test(flavor = "local")]
async fn after_goaway_running_streams_finish_and_new_ones_go_elsewhere() {
    let go = Rc::new(Notify::new());
    let held = Rc::clone(&go);
    let server = connections(Builder::new(), move |mut connection, number| {
        let held = Rc::clone(&held);
        async move {
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if number == 1 {
                    connection.graceful_shutdown();
                    let held = Rc::clone(&held);
                    spawn_local(async move {
                        held.notified().await;
                        answer(&mut respond, "first");
                    });
                } else {
                    answer(&mut respond, "second");
                }
            }
        }
    })
    .await;
    let upstream = h2(&server, |_| {});
    let first = upstream.clone();
    let first = spawn_local(async move { text(first.send(get("/")).await.unwrap()).await });
    settle().await;
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "second");
    go.notify_one();
    assert_eq!(first.await.unwrap(), "first");
    settle().await;
    assert_eq!((server.accepted.get(), counts(&upstream)), (2, (1, 0)), "the first one is closed");
}

#[tokio::test(flavor = "local")]
async fn a_refused_stream_was_not_worked_on() {
    let server = streams(Builder::new(), |_, mut respond, _| async move {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    })
    .await;
    let error = h2(&server, |_| {}).send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::UpstreamRefusedStream, SentPart::Refused));
}

#[tokio::test(flavor = "local")]
async fn a_stream_above_goaway_s_last_was_not_worked_on() {
    let server = serve(|mut stream, _| async move {
        // After prefaces and SETTINGS comes a GOAWAY with last stream 0.
        let mut bytes = [0; 1024];
        let _ = stream.read(&mut bytes).await;
        settle().await;
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream.write_all(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let error = h2(&server, |_| {}).send(get("/")).await.unwrap_err();
    assert_eq!(
        (error.reason, error.sent),
        (Reason::UpstreamRefusedStream, SentPart::Refused),
        "{}",
        error.detail()
    );
}

#[tokio::test(flavor = "local")]
async fn a_reset_before_the_response_may_have_been_worked_on() {
    let server = streams(Builder::new(), |_, mut respond, _| async move {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let error = h2(&server, |_| {}).send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, SentPart::Request));
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_ends_before_the_response_says_whether_it_was_a_kept_one() {
    let server = connections(Builder::new(), |mut connection, _| async move {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        answer(&mut respond, "ok");
        let _second = connection.accept().await;
    })
    .await;
    let upstream = h2(&server, |_| {});
    assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    let error = upstream.send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent, error.reused), (Reason::UpstreamReset, SentPart::Request, true));
    settle().await;
    assert_eq!(counts(&upstream), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_peer_that_does_not_speak_http2_is_a_protocol_error() {
    let server = serve(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let error = h2(&server, |_| {}).send(get("/")).await.unwrap_err();
    assert_eq!(error.reason, Reason::UpstreamProtocolError, "{}", error.detail());
}

async fn cut_by(reason: h2::Reason, request: Body) -> Result<String, BodyError> {
    let server = streams(Builder::new(), move |_request, mut respond, _| async move {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"part"), false).unwrap();
        settle().await;
        stream.send_reset(reason);
    })
    .await;
    let response = h2(&server, |_| {}).send(post(request)).await.unwrap();
    read(response.into_body()).await.map(|(text, _)| text)
}

#[tokio::test(flavor = "local")]
async fn a_reset_body_is_cut_and_not_ended() {
    for reason in [h2::Reason::INTERNAL_ERROR, h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
        let error = cut_by(reason, Body::empty()).await.unwrap_err();
        assert_eq!(error.reason, Some(Reason::UpstreamClosedMidBody), "{reason:?}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_complete_response_that_stops_our_upload_is_whole() {
    assert_eq!(cut_by(h2::Reason::NO_ERROR, endless(Rc::default())).await.unwrap(), "part");
    let error = cut_by(h2::Reason::INTERNAL_ERROR, endless(Rc::default())).await.unwrap_err();
    assert_eq!(error.reason, Some(Reason::UpstreamClosedMidBody));
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_ends_mid_body_cuts_the_body() {
    let server = connections(Builder::new(), |mut connection, _| async move {
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"part"), false).unwrap();
        let _ = timeout(Duration::from_millis(50), connection.accept()).await;
    })
    .await;
    let response = h2(&server, |_| {}).send(get("/")).await.unwrap();
    let error = read(response.into_body()).await.unwrap_err();
    assert_eq!(error.reason, Some(Reason::UpstreamClosedMidBody));
}

#[tokio::test(flavor = "local")]
async fn a_response_that_is_not_read_stops_the_upstream_at_the_window() {
    let sent = Rc::new(Cell::new(0));
    let count = Rc::clone(&sent);
    let server = streams(Builder::new(), move |_, mut respond, _| {
        let count = Rc::clone(&count);
        async move {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            loop {
                stream.reserve_capacity(1024);
                let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                let Some(Ok(n)) = capacity else { return };
                count.set(count.get() + n);
                stream.send_data(Bytes::from(vec![0; n]), false).unwrap();
            }
        }
    })
    .await;
    let upstream = h2(&server, |c| c.pool.h2_stream_window = 100_000);
    let mut body = upstream.send(get("/")).await.unwrap().into_body();
    settle().await;
    assert_eq!(sent.get(), 100_000);
    let mut taken = 0;
    while taken < 60_000 {
        taken += frame(&mut body).await.unwrap().unwrap().into_data().unwrap().len();
    }
    settle().await;
    assert!(sent.get() > 100_000 && sent.get() <= 100_000 + taken, "{} {taken}", sent.get());
}

#[tokio::test(flavor = "local")]
async fn an_upload_that_the_upstream_does_not_read_stops_at_the_window() {
    let server = streams(Builder::new(), |request, respond, _| async move {
        std::future::pending::<()>().await;
        drop((request, respond));
    })
    .await;
    let given = Rc::new(Cell::new(0));
    let upstream = h2(&server, |_| {});
    let sending = upstream.send(post(endless(Rc::clone(&given))));
    assert!(timeout(Duration::from_millis(300), sending).await.is_err());
    assert!(given.get() > 0 && given.get() <= 128 << 10, "{}", given.get());
    settle().await;
    assert_eq!(counts(&upstream), (1, 0));
}

#[tokio::test(flavor = "local")]
async fn an_early_response_does_not_stop_the_upload_even_if_nobody_reads_it() {
    let got = Rc::new(Cell::new(0));
    let seen = Rc::clone(&got);
    let server = streams(Builder::new(), move |request, mut respond, _| {
        let seen = Rc::clone(&seen);
        async move {
            let _held = respond.send_response(Response::new(()), false).unwrap();
            let mut stream = request.into_body();
            while let Some(Ok(data)) = stream.data().await {
                stream.flow_control().release_capacity(data.len()).unwrap();
                seen.set(seen.get() + data.len());
            }
        }
    })
    .await;
    let response = h2(&server, |_| {}).send(post(endless(Rc::default()))).await.unwrap();
    let uploaded = async {
        while got.get() < 4 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), uploaded).await.unwrap();
    drop(response);
    settle().await;
    let then = got.get();
    settle().await;
    assert_eq!(got.get(), then, "dropping the response ends the upload");
}

#[tokio::test(flavor = "local")]
async fn a_dropped_call_resets_its_stream_and_keeps_the_connection() {
    let resets = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&resets);
    let server = streams(Builder::new(), move |_, mut respond, _| {
        let seen = Rc::clone(&seen);
        async move {
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            seen.borrow_mut().push(reset.unwrap());
        }
    })
    .await;
    let upstream = h2(&server, |_| {});
    assert!(timeout(Duration::from_millis(50), upstream.send(get("/"))).await.is_err());
    settle().await;
    assert_eq!((&*resets.borrow(), counts(&upstream)), (&vec![h2::Reason::CANCEL], (1, 0)));
}

#[tokio::test(flavor = "local")]
async fn early_hints_pass_over_http2() {
    let server = streams(Builder::new(), |_, mut respond, _| async move {
        let hint = http::Response::builder().status(103).header("link", "a").body(()).unwrap();
        respond.send_informational(hint).unwrap();
        settle().await;
        answer(&mut respond, "ok");
    })
    .await;
    let heard = Rc::new(RefCell::new(Vec::new()));
    let to_hear = Rc::clone(&heard);
    let mut call = get("/");
    call.context_mut().on_informational =
        Some(OnInformational::new(move |status, headers: &attache_wire::Fields| {
            to_hear.borrow_mut().push((status.as_u16(), headers.get("link").unwrap().to_header_value()));
        }));
    let response = h2(&server, |_| {}).send(call).await.unwrap();
    assert_eq!(heard.borrow().len(), 1);
    assert_eq!(text(response).await, "ok");
}

#[tokio::test(flavor = "local")]
async fn idle_old_and_orphaned_connections_close() {
    let server = streams(Builder::new(), |_, mut respond, _| async move { answer(&mut respond, "ok") }).await;

    let upstream = h2(&server, |c| c.pool.idle_timeout = Duration::from_secs(8));
    text(upstream.send(get("/")).await.unwrap()).await;
    let aged = h2(&server, |c| c.pool.max_age = Duration::from_secs(5));
    text(aged.send(get("/")).await.unwrap()).await;
    let orphaned = h2(&server, |_| {});
    text(orphaned.send(get("/")).await.unwrap()).await;
    assert_eq!((counts(&upstream).0, counts(&aged).0, counts(&orphaned).0), (1, 1, 1));

    let endpoint = orphaned.shared().endpoints.load().endpoints[0].clone();
    endpoint.removed.store(true, Relaxed);
    pause();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((counts(&upstream).0, counts(&aged).0, counts(&orphaned).0), (1, 1, 0));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((counts(&upstream).0, counts(&aged).0), (1, 0));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(counts(&upstream).0, 0);
}

#[tokio::test(flavor = "local")]
async fn a_silent_peer_gets_a_ping_and_then_its_connection_is_closed() {
    let server = serve(|mut stream, _| async move {
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await; // reads, answers nothing
    })
    .await;
    let upstream = h2(&server, |c| c.pool.h2_keepalive = Duration::from_secs(10));
    let call = upstream.clone();
    let call = spawn_local(async move { call.send(get("/")).await });
    settle().await;
    pause();
    let start = Instant::now();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::UpstreamReset, SentPart::Request));
    let after = start.elapsed();
    // Two intervals until the silence is noticed, and one for the answer to the PING, since an interval is shorter than
    // 20 s.
    assert!(after >= Duration::from_secs(15) && after <= Duration::from_secs(31), "{after:?}");
}

#[tokio::test(flavor = "local")]
async fn a_peer_that_never_sends_settings_has_not_accepted_the_connection() {
    let server = serve(|mut stream, number| async move {
        if number == 1 {
            let _ = stream.read_to_end(&mut Vec::new()).await; // says nothing
            return;
        }
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            answer(&mut respond, "ok");
        }
    })
    .await;
    let upstream = h2(&server, |c| c.connect_timeout = Duration::from_millis(200));
    let start = std::time::Instant::now();
    let error = upstream.send(get("/")).await.unwrap_err();
    assert_eq!((error.reason, error.sent), (Reason::ConnectTimeout, SentPart::Request));
    assert!(
        error.detail().contains("no SETTINGS of HTTP/2 came within `connect_timeout`"),
        "{}",
        error.detail()
    );
    assert!(start.elapsed() >= Duration::from_millis(200));
    for _ in 0..3 {
        assert_eq!(text(upstream.send(get("/")).await.unwrap()).await, "ok");
    }
    assert_eq!((server.accepted.get(), counts(&upstream)), (2, (1, 0)));
}

#[tokio::test(flavor = "local")]
async fn a_failed_connection_fails_all_calls_that_waited_for_it_at_once() {
    let server = serve(|_, _| async {}).await;
    let mut dead = config();
    dead.protocol = UpstreamProtocol::Http2;
    let mut address = server.address;
    address.set_port(1);
    let upstream = upstream(dead, vec![endpoint(address, None)]);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let upstream = upstream.clone();
            spawn_local(async move { upstream.send(get("/")).await })
        })
        .collect();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::ConnectRefused, SentPart::Nothing));
    }
    assert_eq!(counts(&upstream), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_waiting_call_continues_the_dialing_of_a_cancelled_attempt() {
    let server = streams(Builder::new(), |_, mut respond, _| async move { answer(&mut respond, "ok") }).await;
    let upstream = h2(&server, |_| {});
    let mut first = Box::pin(upstream.send(get("/")));
    // The first one begins to connect and is dropped while it does.
    std::future::poll_fn(|cx| {
        assert!(first.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    let second = upstream.clone();
    let second = spawn_local(async move { text(second.send(get("/")).await.unwrap()).await });
    tokio::task::yield_now().await;
    drop(first);
    assert_eq!(timeout(Duration::from_secs(20), second).await.unwrap().unwrap(), "ok");
}
