//! HTTP/2 frame by frame: floods, malformed messages, and unusual but valid frames that well-known clients send.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint does not see that these are helpers of tests"
)]

mod support;

use std::time::Duration;

use attache_telemetry::Reason;
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Writes the same frames until the server closes.
async fn is_cut_by(server: &TestServer, frames: impl Fn(u32) -> Vec<u8>) -> Option<Reason> {
    let (mut read, mut write) = raw(server).await.into_split();
    let reader = tokio::task::spawn_local(async move {
        let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
    });
    let before = server.done.borrow().len();
    for n in 0..200_000 {
        if write.write_all(&frames(n)).await.is_err() || reader.is_finished() {
            break;
        }
    }
    let _ = reader.await;
    until(|| server.connections.open() == 0).await;
    let done = server.done.borrow();
    done[before..].iter().rev().find(|d| d.method.is_empty()).and_then(|d| d.reason)
}

/// Reads until these bytes have arrived.
async fn wait_for(client: &mut TcpStream, all: &mut Vec<u8>, wanted: &[u8]) {
    while !all.windows(wanted.len()).any(|bytes| bytes == wanted) {
        assert!(client.read_buf(all).await.unwrap() > 0, "closed");
    }
}

/// Limits that a flood reaches soon.
fn strict() -> attache_config::model::Listener {
    let mut config = listener();
    config.http.limits.h2_flood_burst = 5000;
    config.http.limits.h2_flood_per_client = 1000;
    config
}

#[test]
fn floods_end_their_connection_and_no_other() {
    run(async {
        let server = echo(strict());
        let flood = Some(Reason::Http2Flood);
        let ping = frame(6, 0, 0, b"12345678");
        assert_eq!(is_cut_by(&server, |_| ping.clone()).await, flood, "PING");
        let settings = frame(4, 0, 0, &[]);
        assert_eq!(is_cut_by(&server, |_| settings.clone()).await, flood, "SETTINGS");
        let priority = frame(2, 0, 1, &[0, 0, 0, 3, 1]);
        assert_eq!(is_cut_by(&server, |_| priority.clone()).await, flood, "PRIORITY");
        let unknown = frame(99, 0, 0, &[]);
        assert_eq!(is_cut_by(&server, |_| unknown.clone()).await, flood, "unknown");
        let update = frame(8, 0, 0, &[0, 0, 0, 1]);
        assert_eq!(is_cut_by(&server, |_| update.clone()).await, flood, "WINDOW_UPDATE");
        let continuation = |n| match n {
            0 => frame(1, 0, 1, HEADERS),
            _ => frame(9, 0, 1, &[]),
        };
        assert_eq!(is_cut_by(&server, continuation).await, flood, "CONTINUATION");
        let empty = |n| match n {
            0 => frame(1, 4, 1, HEADERS),
            _ => frame(0, 0, 1, &[]),
        };
        assert_eq!(is_cut_by(&server, empty).await, flood, "empty DATA");
        let tiny = |n| match n {
            0 => frame(1, 4, 1, HEADERS),
            _ => frame(0, 0, 1, b"x").repeat(100),
        };
        assert_eq!(is_cut_by(&server, tiny).await, flood, "DATA of one byte");
        let padding = |n| match n {
            0 => frame(1, 4, 1, HEADERS),
            _ => frame(0, 8, 1, &[3, 0, 0, 0]).repeat(100),
        };
        assert_eq!(is_cut_by(&server, padding).await, flood, "DATA of padding");
        let unasked = frame(6, 1, 0, b"12345678");
        assert_eq!(
            is_cut_by(&server, |_| unasked.clone()).await,
            flood,
            "answers to PINGs that were not sent"
        );
        // A stream is open, so that the connection stays open.
        let goaway = |n| match n {
            0 => frame(1, 4, 1, HEADERS),
            _ => frame(7, 0, 0, &[0; 8]),
        };
        assert_eq!(is_cut_by(&server, goaway).await, flood, "GOAWAY");
        let rapid_reset = |n: u32| {
            let stream = 2 * n + 1;
            [frame(1, 5, stream, HEADERS), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        };
        assert_eq!(is_cut_by(&server, rapid_reset).await, flood, "RST_STREAM");
        // attache resets each stream (CVE-2025-8671): a window above the largest allowed.
        let made_to_reset = |n: u32| {
            let stream = 2 * n + 1;
            [frame(1, 4, stream, HEADERS), frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat()
        };
        assert_eq!(is_cut_by(&server, made_to_reset).await, flood, "resets by attache");
        let mut client = raw(&server).await;
        client.write_all(&frame(1, 5, 1, HEADERS)).await.unwrap();
        wait_for(&mut client, &mut Vec::new(), b"GET http://h/ []").await;
    });
}

#[test]
fn a_flood_is_told_why_its_connection_ends() {
    run(async {
        let server = echo(strict());
        let mut client = raw(&server).await;
        client.write_all(&frame(6, 0, 0, b"12345678").repeat(6000)).await.unwrap();
        let mut all = Vec::new();
        let _ = client.read_to_end(&mut all).await;
        let words = "too many PING frames on this connection for the requests that were answered \
                     (http.limits.h2_flood_burst)";
        // GOAWAY: no stream was processed; ENHANCE_YOUR_CALM; and the reason.
        let goodbye = frame(7, 0, 0, &[&[0, 0, 0, 0, 0, 0, 0, 11], words.as_bytes()].concat());
        assert!(
            all.ends_with(&goodbye),
            "{:?}",
            String::from_utf8_lossy(&all[all.len().saturating_sub(200)..])
        );
        assert_eq!(server.finished(1).await[0].detail.as_deref(), Some(words));
    });
}

#[test]
fn habits_of_well_behaved_clients_end_nothing() {
    run(async {
        let server = echo(listener());
        let mut client = raw(&server).await;
        let (mut read, mut write) = client.split();
        // A request whose body is flushed after every byte, with a PING each time, and every third request is cancelled.
        let client = async {
            for n in 0..2000_u32 {
                let stream = 2 * n + 1;
                let mut sent = frame(1, 4, stream, HEADERS);
                sent.extend(frame(0, 0, stream, b"x"));
                sent.extend(frame(0, 0, stream, b""));
                sent.extend(frame(6, 0, 0, b"12345678"));
                sent.extend(if n % 3 == 0 {
                    frame(3, 0, stream, &[0, 0, 0, 8])
                } else {
                    frame(0, 1, stream, b"y")
                });
                write.write_all(&sent).await.unwrap();
                if n % 50 == 49 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        let mut all = Vec::new();
        tokio::select! {
            () = async { client.await; until(|| server.done.borrow().len() >= 2000).await } => {}
            _ = read.read_to_end(&mut all) => panic!("closed"),
        }
        let done = server.done.borrow();
        assert_eq!(done.iter().filter(|d| d.reason.is_none() && d.received == 2).count(), 1333);
    });
}

#[test]
fn padding_of_small_frames_costs_the_client_no_window() {
    run(async {
        let server = echo(listener());
        let mut client = raw(&server).await;
        let (mut read, mut write) = client.split();
        let mut windows = [65_535_i64; 2];
        // Like a client that pads every frame and counts its windows.
        let mut sent = vec![frame(1, 4, 1, HEADERS)];
        let most = 256 << 10;
        windows[1] = most;
        sent.extend((0..4000).map(|n| {
            let padded = [&[255_u8][..], &[b'x'; 1][..n % 2], &[0; 255]].concat();
            frame(0, 8, 1, &padded)
        }));
        sent.push(frame(0, 1, 1, b""));
        let mut all = Vec::new();
        for frame in sent {
            if frame[3] == 0 {
                let taken = i64::from(frame[2]) + (i64::from(frame[1]) << 8);
                while windows.iter().any(|window| *window < taken) {
                    assert!(read.read_buf(&mut all).await.unwrap() > 0, "closed");
                    while all.len() >= 9 && all.len() >= 9 + usize::from(all[2]) {
                        let head: Vec<u8> = all.drain(..9 + usize::from(all[2])).collect();
                        if head[3] == 8 {
                            let given = u32::from_be_bytes(head[9..13].try_into().unwrap());
                            windows[usize::from(head[8])] += i64::from(given);
                        }
                    }
                }
                for window in &mut windows {
                    *window -= taken;
                }
            }
            write.write_all(&frame).await.unwrap();
        }
        assert_eq!(server.finished(1).await[0].received, 2000);
    });
}

#[test]
fn malformed_requests_reset_their_stream() {
    run(async {
        let server = echo(listener());
        let mut client = raw(&server).await;
        let fragment = [0x82, 0x86, 0x04, 4, b'/', b'a', b'#', b'b', 0x41, 1, b'h'];
        let stream = |n, trailers: &[u8]| [frame(1, 4, n, HEADERS), frame(1, 5, n, trailers)].concat();
        let all = [
            frame(1, 5, 1, &fragment),
            // In trailers: a pseudo-field of a request, one of a response, and an unknown one; the last one in two frames.
            stream(3, &[0x84]),
            stream(5, &[0x88]),
            stream(7, b"\x00\x0a:authority\x01h"),
            [frame(1, 4, 9, HEADERS), frame(0, 0, 9, b"x"), frame(1, 1, 9, &[]), frame(9, 4, 9, &[0x84])]
                .concat(),
            // In the head of a request.
            frame(1, 5, 11, &[HEADERS, &[0x88]].concat()),
        ];
        client.write_all(&all.concat()).await.unwrap();
        let mut all = Vec::new();
        for stream in [1, 3, 5, 7, 9, 11] {
            let reset = frame(3, 0, stream, &[0, 0, 0, 1]);
            wait_for(&mut client, &mut all, &reset).await;
        }
    });
}

#[test]
fn a_head_has_its_time_from_the_first_byte_to_the_last() {
    run(async {
        let mut config = listener();
        config.http.header_timeout = Duration::from_millis(80);
        let server = echo(config);
        let parts = [
            ("half a frame's head", frame(1, 5, 1, HEADERS)[..5].to_vec()),
            ("half of HEADERS", frame(1, 5, 1, HEADERS)[..12].to_vec()),
            ("HEADERS without their end", frame(1, 1, 1, &HEADERS[..3])),
            ("half a preface", Vec::new()),
        ];
        for (n, (name, part)) in parts.into_iter().enumerate() {
            let mut client = if part.is_empty() {
                let mut client = server.connect().await;
                client.write_all(&[PREFACE, &frame(4, 0, 0, &[])[..4]].concat()).await.unwrap();
                client
            } else {
                raw(&server).await
            };
            client.write_all(&part).await.unwrap();
            let mut all = Vec::new();
            let _ = client.read_to_end(&mut all).await;
            // GOAWAY: no stream was processed.
            let goodbye = [0, 0, 0, 0, 0, 0, 0, 0].as_slice();
            let words = b"The request's head did not arrive in time.";
            assert!(all.ends_with(&frame(7, 0, 0, &[goodbye, words].concat())), "{name}: {all:x?}");
            assert_eq!(server.finished(n + 1).await[n].reason, Some(Reason::HeaderTimeout), "{name}");
        }
        // Each head has its own time limit; without a head there is none.
        let mut client = raw(&server).await;
        for n in 0..4 {
            let head = frame(1, 4, 1 + 2 * n, HEADERS);
            client.write_all(&head[..8]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            client.write_all(&head[8..]).await.unwrap();
        }
        client.write_all(&frame(0, 1, 1, b"body")[..11]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.write_all(b"dy").await.unwrap();
        wait_for(&mut client, &mut Vec::new(), b"GET http://h/ [body]").await;
    });
}

#[test]
fn a_preface_that_stops_has_no_more_time_than_a_head() {
    run(async {
        let mut config = listener();
        config.http.header_timeout = Duration::from_millis(200);
        config.protocol = attache_config::model::ListenProtocol::Http;
        let server = echo(config);
        for part in ["P", "PRI * HTTP/2", "G"] {
            let begin = std::time::Instant::now();
            let answer = server.ask(part).await;
            assert!(answer.starts_with("HTTP/1.1 408"), "{part}: {answer}");
            assert!(begin.elapsed() < Duration::from_millis(380), "{part}: {:?}", begin.elapsed());
        }
    });
}

#[test]
fn an_error_of_the_client_is_reported_as_such_and_not_as_its_leaving() {
    run(async {
        let server = echo(listener());
        let mut client = raw(&server).await;
        let head = [HEADERS, b"\x40\x01X\x01y"].concat();
        client.write_all(&frame(1, 5, 1, &head)).await.unwrap();
        let done = server.finished(1).await;
        assert_eq!((done[0].reason, &*done[0].method), (Some(Reason::BadRequest), ""));
        assert!(done[0].detail.as_deref().is_some_and(|words| !words.is_empty()));
        // A body that is shorter than its announced length.
        let head = [HEADERS, b"\x0f\x0d\x019"].concat();
        client.write_all(&[frame(1, 4, 3, &head), frame(0, 1, 3, b"body")].concat()).await.unwrap();
        let done = server.finished(2).await;
        let words = "the body is not as long as `content-length` says";
        assert_eq!((done[1].reason, &*done[1].method), (Some(Reason::BadRequest), "GET"));
        assert!(
            done[1].detail.as_deref().is_some_and(|detail| detail.contains(words)),
            "{:?}",
            done[1].detail
        );
    });
}
