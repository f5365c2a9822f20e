//! HTTP/2 servers frame by frame: floods, malformed answers, and traffic that is neither.

use attache_telemetry::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::h2::h2;
use crate::testing::*;

/// `:status: 200` of the static table, `:status: 103` as a literal.
const OK: &[u8] = &[0x88];
const EARLY: &[u8] = b"\x08\x03103";

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Answers each connection's first call with these bytes, the same ones again `times`; then reads to the end.
async fn says(begin: Vec<u8>, again: Vec<u8>, times: usize) -> CountingServer {
    serve(move |mut stream: TcpStream, _| {
        let (begin, again) = (begin.clone(), again.clone());
        async move {
            let mut read = Vec::new();
            stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
            while !read
                .windows(6)
                .any(|bytes| bytes[0] == 1 && bytes[1] & 4 != 0 && bytes[2..] == [0, 0, 0, 1])
            {
                stream.read_buf(&mut read).await.unwrap();
            }
            let (mut reader, mut writer) = stream.split();
            let write = async {
                writer.write_all(&begin).await?;
                for _ in 0..times {
                    writer.write_all(&again).await?;
                }
                std::future::pending::<std::io::Result<()>>().await
            };
            let read = tokio::io::copy(&mut reader, &mut read);
            tokio::select! { _ = write => {}, _ = read => {} }
        }
    })
    .await
}

/// How a call ends: its body, or the reason and the last cause.
async fn outcome(server: &CountingServer) -> Result<String, (Reason, String)> {
    let cause = |error: &dyn std::error::Error| {
        let mut last = error;
        while let Some(source) = last.source() {
            last = source;
        }
        last.to_string()
    };
    let upstream = h2(server, |config| config.pool.h2_flood_burst = 5000);
    match upstream.send(get("/")).await {
        Ok(response) => match read(response.into_body()).await {
            Ok((text, _)) => Ok(text),
            Err(error) => Err((error.reason.unwrap(), cause(&error))),
        },
        Err(error) => Err((error.reason, cause(&error))),
    }
}

#[tokio::test(flavor = "local")]
async fn a_server_that_floods_loses_its_connection() {
    let head = frame(1, 4, 1, OK);
    for (name, begin, again, words) in [
        ("PING", vec![], frame(6, 0, 0, b"12345678"), "PING frames"),
        ("SETTINGS", vec![], frame(4, 0, 0, &[]), "SETTINGS frames"),
        ("PING ACK", vec![], frame(6, 1, 0, b"12345678"), "PING frames"),
        ("unknown", vec![], frame(99, 0, 0, &[]), "PRIORITY, GOAWAY or unknown"),
        ("WINDOW_UPDATE", vec![], frame(8, 0, 0, &[0, 0, 0, 1]), "WINDOW_UPDATE frames"),
        ("103", vec![], frame(1, 4, 1, EARLY), "HEADERS frames"),
        ("empty DATA", head.clone(), frame(0, 0, 1, b""), "DATA frames without data"),
        ("DATA of one byte", head.clone(), frame(0, 0, 1, b"x"), "DATA frames below 256 bytes"),
        ("padding", head.clone(), frame(0, 8, 1, &[2, 0, 0]), "DATA frames below 256 bytes"),
    ] {
        let server = says(begin, again.repeat(100), 5000).await;
        let (reason, detail) = outcome(&server).await.unwrap_err();
        assert_eq!(reason, Reason::UpstreamProtocolError, "{name}: {detail}");
        assert!(detail.contains(words) && detail.contains("pool.h2_flood_burst"), "{name}: {detail}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_malformed_answer_is_an_error_whenever_it_comes() {
    let head = frame(1, 4, 1, OK);
    let data = frame(0, 0, 1, b"text");
    for (name, answer) in [
        (":path in the head", frame(1, 5, 1, &[0x88, 0x84])),
        (
            ":path in 103",
            [frame(1, 4, 1, &[EARLY, &[0x84]].concat()), head.clone(), frame(0, 1, 1, b"")].concat(),
        ),
        (":status in trailers", [head.clone(), data.clone(), frame(1, 5, 1, OK)].concat()),
        (":status right behind the head", [head.clone(), frame(1, 5, 1, OK)].concat()),
        (":path in trailers", [head.clone(), data.clone(), frame(1, 5, 1, &[0x84])].concat()),
        ("two frames", [head.clone(), frame(1, 1, 1, b""), frame(9, 4, 1, OK)].concat()),
    ] {
        let server = says(answer, vec![], 0).await;
        let (reason, detail) = outcome(&server).await.unwrap_err();
        assert_eq!(reason, Reason::UpstreamProtocolError, "{name}: {detail}");
    }
    let good = [frame(1, 4, 1, EARLY), frame(1, 4, 1, EARLY), head, data, frame(1, 5, 1, b"\x00\x01a\x01b")];
    assert_eq!(outcome(&says(good.concat(), vec![], 0).await).await.unwrap(), "text");
}

#[tokio::test(flavor = "local")]
async fn small_frames_may_be_padded_and_empty_ones_may_be_many() {
    let padded = frame(0, 8, 1, &[&[255_u8, b'x'][..], &[0; 255]].concat());
    let padding = frame(0, 8, 1, &[0]);
    // Without credit for padding this would be more than the window of 256 KiB; this server itself ignores windows.
    let many =
        [padded.repeat(3000), padding.repeat(500), frame(0, 0, 1, b"").repeat(500), frame(0, 1, 1, b"")];
    let server = says(frame(1, 4, 1, OK), many.concat(), 1).await;
    assert_eq!(outcome(&server).await.unwrap().len(), 3000);
}
