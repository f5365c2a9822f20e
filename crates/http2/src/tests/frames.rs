//! Raw frames against the server, with the reaction that RFC 9113 requires for each.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{HEAD, PREFACE, kind};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader { length: payload.len(), kind, flags, stream }.bytes()[..], payload].concat()
}

/// `GET http://h/x`, and a request that is never answered.
const GET: &[u8] = b"\x82\x86\x04\x02/x\x41\x01h";
const NEVER: &[u8] = b"\x82\x86\x04\x06/never\x41\x01h";

/// The server's frames after the preface and these frames: all except SETTINGS, WINDOW_UPDATE and PING.
async fn said(frames: &[Vec<u8>]) -> Vec<(u8, u32, Vec<u8>)> {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let server = spawn_local(serve(theirs, SETTINGS));
    let begin = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat();
    ours.write_all(&begin).await.unwrap();
    // The frames are sent in pieces of three bytes, so that the result can't depend on where a read ends.
    for piece in frames.concat().chunks(3) {
        if ours.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    ours.shutdown().await.unwrap();
    let mut all = Vec::new();
    ours.read_to_end(&mut all).await.unwrap();
    drop(server);
    let (mut rest, mut said) = (&all[..], Vec::new());
    while let Some(head) = rest.first_chunk::<HEAD>().map(FrameHeader::parse) {
        let payload = rest[HEAD..HEAD + head.length].to_vec();
        rest = &rest[HEAD + head.length..];
        if ![kind::SETTINGS, kind::WINDOW_UPDATE, kind::PING].contains(&head.kind) {
            said.push((head.kind, head.stream, payload));
        }
    }
    said
}

/// The code of the GOAWAY or RST_STREAM at the end.
fn end(said: &[(u8, u32, Vec<u8>)]) -> Option<(u8, u32, ErrorCode)> {
    let (kind, stream, payload) = said.last()?;
    let at = if *kind == kind::GOAWAY { 4 } else { 0 };
    let code = ErrorCode(u32::from_be_bytes(payload[at..at + 4].try_into().unwrap()));
    [kind::GOAWAY, kind::RST_STREAM].contains(kind).then_some((*kind, *stream, code))
}

#[test]
fn frames_that_break_a_rule_end_the_connection_or_their_stream() {
    use ErrorCode as C;
    let headers = |stream, block: &[u8]| frame(kind::HEADERS, 5, stream, block);
    let open = |stream| frame(kind::HEADERS, 4, stream, NEVER);
    let (goaway, reset) = (kind::GOAWAY, kind::RST_STREAM);
    let block = |pairs: &[(&str, &str)]| {
        let mut all = Vec::new();
        for (name, value) in pairs {
            all.extend([0, name.len() as u8]);
            all.extend(name.as_bytes());
            all.push(value.len() as u8);
            all.extend(value.as_bytes());
        }
        all
    };
    let base = [(":method", "GET"), (":scheme", "http"), (":path", "/never"), (":authority", "h")];
    let with = |more: &[(&str, &str)]| headers(1, &block(&[&base[..], more].concat()));
    let cases = [
        ("DATA on an idle stream", vec![frame(kind::DATA, 0, 1, b"x")], (goaway, 0, C::PROTOCOL_ERROR)),
        ("DATA on stream 0", vec![frame(kind::DATA, 0, 0, b"x")], (goaway, 0, C::PROTOCOL_ERROR)),
        (
            "DATA after END_STREAM",
            vec![headers(1, NEVER), frame(kind::DATA, 0, 1, b"x")],
            (reset, 1, C::STREAM_CLOSED),
        ),
        (
            "HEADERS after END_STREAM",
            vec![headers(1, NEVER), headers(1, NEVER)],
            (reset, 1, C::STREAM_CLOSED),
        ),
        ("HEADERS on an even stream", vec![headers(2, GET)], (goaway, 0, C::PROTOCOL_ERROR)),
        (
            "HEADERS on a lower stream",
            vec![headers(5, NEVER), headers(3, GET)],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "RST_STREAM on an idle stream",
            vec![frame(kind::RST_STREAM, 0, 1, &[0; 4])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "RST_STREAM of three bytes",
            vec![open(1), frame(kind::RST_STREAM, 0, 1, &[0; 3])],
            (goaway, 0, C::FRAME_SIZE_ERROR),
        ),
        (
            "WINDOW_UPDATE on an idle stream",
            vec![frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "WINDOW_UPDATE of 0",
            vec![open(1), frame(kind::WINDOW_UPDATE, 0, 1, &[0; 4])],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        (
            "WINDOW_UPDATE of 0 for the connection",
            vec![frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "a window above 2^31",
            vec![open(1), frame(kind::WINDOW_UPDATE, 0, 1, &[127, 255, 255, 255])],
            (reset, 1, C::FLOW_CONTROL_ERROR),
        ),
        (
            "a window overflow of the connection",
            vec![frame(kind::WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255])],
            (goaway, 0, C::FLOW_CONTROL_ERROR),
        ),
        ("PING of seven bytes", vec![frame(kind::PING, 0, 0, &[0; 7])], (goaway, 0, C::FRAME_SIZE_ERROR)),
        ("PING for a stream", vec![frame(kind::PING, 0, 1, &[0; 8])], (goaway, 0, C::PROTOCOL_ERROR)),
        ("SETTINGS for a stream", vec![frame(kind::SETTINGS, 0, 1, &[])], (goaway, 0, C::PROTOCOL_ERROR)),
        (
            "SETTINGS of five bytes",
            vec![frame(kind::SETTINGS, 0, 0, &[0; 5])],
            (goaway, 0, C::FRAME_SIZE_ERROR),
        ),
        (
            "ENABLE_PUSH of 2",
            vec![frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "a small MAX_FRAME_SIZE",
            vec![frame(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 2])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "a large INITIAL_WINDOW_SIZE",
            vec![frame(kind::SETTINGS, 0, 0, &[0, 4, 128, 0, 0, 0])],
            (goaway, 0, C::FLOW_CONTROL_ERROR),
        ),
        (
            "an ACK of SETTINGS that were not sent",
            vec![frame(kind::SETTINGS, 1, 0, &[]), frame(kind::SETTINGS, 1, 0, &[])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "PUSH_PROMISE",
            vec![open(1), frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "CONTINUATION without a block",
            vec![frame(kind::CONTINUATION, 4, 1, GET)],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "another frame within a block",
            vec![frame(kind::HEADERS, 0, 1, GET), frame(kind::PING, 0, 0, &[0; 8])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "CONTINUATION of another stream",
            vec![frame(kind::HEADERS, 0, 1, GET), frame(kind::CONTINUATION, 4, 3, &[])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "CONTINUATION without end",
            [vec![frame(kind::HEADERS, 0, 1, GET)], vec![frame(kind::CONTINUATION, 0, 1, &[]); 100]].concat(),
            (goaway, 0, C::ENHANCE_YOUR_CALM),
        ),
        ("an invalid block", vec![headers(1, &[0x80])], (goaway, 0, C::COMPRESSION_ERROR)),
        (
            "more padding than payload",
            vec![open(1), frame(kind::DATA, 8, 1, &[5, 0])],
            (goaway, 0, C::PROTOCOL_ERROR),
        ),
        (
            "PRIORITY of four bytes",
            vec![open(1), frame(kind::PRIORITY, 0, 1, &[0; 4])],
            (reset, 1, C::FRAME_SIZE_ERROR),
        ),
        (
            "a stream that depends on itself",
            vec![frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 3, 1])],
            (reset, 3, C::PROTOCOL_ERROR),
        ),
        (
            "HEADERS that depend on themselves",
            vec![frame(kind::HEADERS, 0x25, 1, &[&[0, 0, 0, 1, 1], GET].concat())],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        ("GOAWAY of four bytes", vec![frame(kind::GOAWAY, 0, 0, &[0; 4])], (goaway, 0, C::FRAME_SIZE_ERROR)),
        (
            "trailers without END_STREAM",
            vec![open(1), frame(kind::HEADERS, 4, 1, &block(&[("a", "b")]))],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        (
            "pseudo-fields in trailers",
            vec![open(1), frame(kind::HEADERS, 5, 1, &[0x82])],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        ("a name in upper case", vec![with(&[("X", "y")])], (reset, 1, C::PROTOCOL_ERROR)),
        ("a name with a space", vec![with(&[("x y", "z")])], (reset, 1, C::PROTOCOL_ERROR)),
        ("an empty name", vec![with(&[("", "z")])], (reset, 1, C::PROTOCOL_ERROR)),
        ("a value with LF", vec![with(&[("x", "a\nb")])], (reset, 1, C::PROTOCOL_ERROR)),
        ("connection", vec![with(&[("connection", "close")])], (reset, 1, C::PROTOCOL_ERROR)),
        ("te: gzip", vec![with(&[("te", "gzip")])], (reset, 1, C::PROTOCOL_ERROR)),
        ("an unknown pseudo-field", vec![with(&[(":x", "y")])], (reset, 1, C::PROTOCOL_ERROR)),
        ("a pseudo-field of answers", vec![with(&[(":status", "200")])], (reset, 1, C::PROTOCOL_ERROR)),
        ("a pseudo-field twice", vec![with(&[(":method", "GET")])], (reset, 1, C::PROTOCOL_ERROR)),
        (
            "a pseudo-field after other fields",
            vec![headers(1, &block(&[base[0], base[1], base[3], ("a", "b"), base[2]]))],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        ("no :path", vec![headers(1, &block(&[base[0], base[1], base[3]]))], (reset, 1, C::PROTOCOL_ERROR)),
        (
            "an empty :path",
            vec![headers(1, &block(&[base[0], base[1], (":path", ""), base[3]]))],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        (
            "a fragment",
            vec![headers(1, &block(&[base[0], base[1], (":path", "/#x"), base[3]]))],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        (
            "CONNECT with :path",
            vec![headers(1, &block(&[(":method", "CONNECT"), base[2], base[3]]))],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        (
            "trailers of a tunnel",
            vec![
                frame(kind::HEADERS, 4, 1, &block(&[(":method", "CONNECT"), (":authority", "h:1")])),
                frame(kind::HEADERS, 5, 1, &block(&[("x", "y")])),
            ],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        ("a length without a body", vec![with(&[("content-length", "1")])], (reset, 1, C::PROTOCOL_ERROR)),
        (
            "two lengths",
            vec![
                with(&[("content-length", "0"), ("content-length", "00")]),
                headers(
                    3,
                    &block(&[&base[..], &[("content-length", "1"), ("content-length", "2")]].concat()),
                ),
            ],
            (reset, 3, C::PROTOCOL_ERROR),
        ),
        (
            "a body longer than its length",
            vec![
                frame(kind::HEADERS, 4, 1, &block(&[&base[..], &[("content-length", "1")]].concat())),
                frame(kind::DATA, 0, 1, b"xx"),
            ],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
        (
            "a body shorter than its length",
            vec![
                frame(kind::HEADERS, 4, 1, &block(&[&base[..], &[("content-length", "3")]].concat())),
                frame(kind::DATA, 1, 1, b"xx"),
            ],
            (reset, 1, C::PROTOCOL_ERROR),
        ),
    ];
    run(async move {
        for (name, frames, wanted) in cases {
            assert_eq!(end(&said(&frames).await), Some(wanted), "{name}");
        }
    });
}

#[test]
fn unusual_but_valid_frames_are_served() {
    let cases = [
        ("unknown frames", vec![frame(99, 255, 7, b"what"), frame(kind::HEADERS, 5, 1, GET)]),
        (
            "PRIORITY on idle streams",
            vec![frame(kind::PRIORITY, 0, 9, &[0, 0, 0, 3, 1]), frame(kind::HEADERS, 5, 11, GET)],
        ),
        (
            "CONTINUATION",
            vec![
                frame(kind::HEADERS, 1, 1, &GET[..3]),
                frame(kind::CONTINUATION, 0, 1, &GET[3..5]),
                frame(kind::CONTINUATION, 4, 1, &GET[5..]),
            ],
        ),
        (
            "padding everywhere",
            vec![
                frame(kind::HEADERS, 0x2c, 1, &[&[2, 0, 0, 0, 0, 1], GET, &[0; 2]].concat()),
                frame(kind::DATA, 9, 1, &[3, b'x', 0, 0, 0]),
            ],
        ),
        (
            "empty DATA",
            [
                vec![frame(kind::HEADERS, 4, 1, GET)],
                vec![frame(kind::DATA, 0, 1, b""); 500],
                vec![frame(kind::DATA, 1, 1, b"")],
            ]
            .concat(),
        ),
        (
            "frames for a stream that was refused",
            vec![
                frame(kind::HEADERS, 4, 1, &[GET, &[0x40, 1, b'X', 1, b'y']].concat()),
                frame(kind::DATA, 0, 1, b"x"),
                frame(kind::HEADERS, 5, 1, &[0x40, 1, b'a', 1, b'b']),
                frame(kind::HEADERS, 5, 3, &[GET, &[0xbf]].concat()),
            ],
        ),
    ];
    run(async move {
        for (name, frames) in cases {
            let said = said(&frames).await;
            let answered = said
                .iter()
                .any(|(kind, _, payload)| *kind == kind::HEADERS && payload.first() == Some(&0x88));
            assert!(answered && said.iter().all(|(kind, ..)| *kind != kind::GOAWAY), "{name}: {said:?}");
        }
    });
}

#[test]
fn a_connection_without_the_preface_gets_an_error() {
    run(async {
        let (mut ours, theirs) = socket();
        let server = spawn_local(serve(theirs, SETTINGS));
        ours.write_all(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await.unwrap();
        assert!(server.await.unwrap().is_err_and(|error| error.code() == Some(ErrorCode::PROTOCOL_ERROR)));
    });
}

#[test]
fn padding_opens_the_window_again_and_the_window_is_enforced() {
    run(async {
        // 300 frames with one byte and 255 of padding are more than a window of 65,535.
        let padded = frame(kind::DATA, 8, 1, &[&[254, b'x'][..], &[0; 254]].concat());
        let frames =
            [vec![frame(kind::HEADERS, 4, 1, GET)], vec![padded; 300], vec![frame(kind::DATA, 1, 1, b"")]]
                .concat();
        let said = said(&frames).await;
        let data: usize =
            said.iter().filter(|(kind, ..)| *kind == kind::DATA).map(|(_, _, payload)| payload.len()).sum();
        assert_eq!(data, 300, "{:?}", end(&said));
        let frames =
            [vec![frame(kind::HEADERS, 4, 1, NEVER)], vec![frame(kind::DATA, 0, 1, &[0; 16_000]); 5]]
                .concat();
        assert_eq!(
            end(&super::frames::said(&frames).await),
            Some((kind::RST_STREAM, 1, ErrorCode::FLOW_CONTROL_ERROR))
        );
    });
}
