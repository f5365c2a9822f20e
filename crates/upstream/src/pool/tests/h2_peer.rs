//! HTTP/2: the peer's stream limit, and peers that send it late.

use std::{cell::Cell, rc::Rc, time::Duration};

use attache_config::model;
use bytes::Bytes;
use h2::server::Builder;
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::spawn_local,
    time::timeout,
};

use super::{
    h2::h2,
    h2_server::{answer, streams},
};
use crate::testing::*;

/// A server of raw frames: allows `streams` at first and `later` after a moment, answers each request after a while, and counts PINGs.
async fn raw(streams: u32, later: Option<u32>, pings: Rc<Cell<u32>>, peak: Rc<Cell<u32>>) -> CountingServer {
    fn settings(streams: u32) -> Vec<u8> {
        [b"\0\0\x06\x04\0\0\0\0\0\0\x03".as_slice(), &streams.to_be_bytes()].concat()
    }
    serve(move |stream, _| {
        let (pings, peak) = (Rc::clone(&pings), Rc::clone(&peak));
        async move {
            let (mut read, write) = stream.into_split();
            let write = Rc::new(tokio::sync::Mutex::new(write));
            // Later than the first request, if the call doesn't wait for the SETTINGS.
            tokio::time::sleep(Duration::from_millis(20)).await;
            write.lock().await.write_all(&settings(streams)).await.unwrap();
            if let Some(later) = later {
                let write = Rc::clone(&write);
                spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    let _ = write.lock().await.write_all(&settings(later)).await;
                });
            }
            let open = Rc::new(Cell::new(0));
            let mut preface = [0; attache_http2::PREFACE.len()];
            let _ = read.read_exact(&mut preface).await;
            let mut bytes = Vec::new();
            while let Ok(1..) = read.read_buf(&mut bytes).await {
                while let Some(head) = bytes.first_chunk().map(attache_http2::FrameHeader::parse) {
                    let whole = attache_http2::HEAD + head.length;
                    if bytes.len() < whole {
                        break;
                    }
                    bytes.drain(..whole);
                    match head.kind {
                        attache_http2::kind::PING => pings.set(pings.get() + 1),
                        attache_http2::kind::SETTINGS if !head.is_ack() => {
                            write.lock().await.write_all(b"\0\0\0\x04\x01\0\0\0\0").await.unwrap();
                        }
                        attache_http2::kind::HEADERS => {
                            open.set(open.get() + 1);
                            peak.set(peak.get().max(open.get()));
                            let (write, open) = (Rc::clone(&write), Rc::clone(&open));
                            spawn_local(async move {
                                tokio::time::sleep(Duration::from_millis(10)).await;
                                open.set(open.get() - 1);
                                let head = attache_http2::FrameHeader { length: 1, flags: 5, ..head };
                                let answer = [head.bytes().as_slice(), &[0x88]].concat();
                                let _ = write.lock().await.write_all(&answer).await;
                            });
                        }
                        _ => {}
                    }
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "local")]
async fn cold_calls_wait_for_what_the_peer_allows_and_none_is_sent_beyond() {
    for (allowed, most) in [(1, 30), (2, 30), (3, 30), (8, 4), (100, 1)] {
        let peak = Rc::new(Cell::new(0));
        let server = raw(allowed, None, Rc::default(), Rc::clone(&peak)).await;
        let upstream = h2(&server, |_| {});
        for _ in 0..2 {
            let calls: Vec<_> = (0..30)
                .map(|_| {
                    let upstream = upstream.clone();
                    spawn_local(async move { upstream.send(get("/")).await.map(|answer| answer.status()) })
                })
                .collect();
            for call in calls {
                assert_eq!(call.await.unwrap().unwrap(), 200, "{allowed} allowed");
            }
        }
        assert!(peak.get() <= allowed, "{} of {allowed}", peak.get());
        assert!(server.accepted.get() <= most, "{} connections for {allowed}", server.accepted.get());
    }
}

#[tokio::test(flavor = "local")]
async fn a_peer_that_allows_no_stream_for_a_moment_is_waited_for() {
    let peak = Rc::new(Cell::new(0));
    let server = raw(0, Some(100), Rc::default(), Rc::clone(&peak)).await;
    let upstream = h2(&server, |_| {});
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let upstream = upstream.clone();
            spawn_local(async move { upstream.send(get("/")).await.map(|answer| answer.status()) })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), 200);
    }
    assert_eq!(server.accepted.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn bodies_that_nobody_reads_block_only_themselves() {
    let server = streams(Builder::new(), |request, mut respond, _| async move {
        if request.uri().path() == "/small" {
            answer(&mut respond, "small");
            return;
        }
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        while body.send_data(Bytes::from(vec![0; 1 << 20]), false).is_ok() {
            body.reserve_capacity(1);
            if std::future::poll_fn(|cx| body.poll_capacity(cx)).await.is_none() {
                return;
            }
        }
    })
    .await;
    let upstream = h2(&server, |_| {});
    let mut unread = Vec::new();
    for _ in 0..20 {
        unread.push(upstream.send(get("/large")).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let small =
        timeout(Duration::from_secs(5), async { text(upstream.send(get("/small")).await.unwrap()).await });
    assert_eq!(small.await.unwrap(), "small");
    assert_eq!(server.accepted.get(), 1, "on the same connection");
}

#[tokio::test(flavor = "local")]
async fn answers_with_empty_frames_and_calls_that_are_given_up_never_end_the_connection() {
    let server = streams(Builder::new(), |_, mut respond, _| async move {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        for _ in 0..2 {
            let _ = body.send_data(Bytes::new(), false);
            let _ = body.send_data(Bytes::from_static(b"x"), false);
        }
        // A streaming call: waits until the client gives it up.
        let _ = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
    })
    .await;
    let upstream = h2(&server, |_| {});
    let quiet = upstream.send(get("/")).await.unwrap();
    for _ in 0..1500 {
        let mut given_up = upstream.send(get("/")).await.unwrap().into_body();
        let frame =
            std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut given_up), cx));
        assert!(frame.await.unwrap().is_ok());
    }
    assert_eq!(server.accepted.get(), 1);
    drop(quiet);
}

#[tokio::test(flavor = "local")]
async fn a_quiet_stream_is_asked_once_in_five_minutes_by_default() {
    let pings = Rc::new(Cell::new(0));
    let server = raw(100, None, Rc::clone(&pings), Rc::default()).await;
    let upstream = h2(&server, |_| {});
    assert_eq!(model::Pool::default().h2_keepalive, Duration::from_secs(300));
    assert_eq!(upstream.send(get("/")).await.unwrap().status(), 200);
    assert_eq!(pings.get(), 0);
}
