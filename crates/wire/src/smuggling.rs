//! Requests that two parsers read differently. The corpus has the known forms (CL.TE, TE.CL, TE.TE, CL.0, bare LF, folded and disguised
//! headers, chunk extensions). Each is tried at every split point, and hyper is the second parser.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{FaultKind, HeadLimits, body::BodyPiece, request::TargetStrictness, server::RequestReader};

const LIMITS: HeadLimits = HeadLimits { line: 200, size: 400, count: 10 };

#[derive(Clone, Copy, Debug, PartialEq)]
enum ExpectedResult {
    /// This many complete messages are accepted.
    Pass(u64),
    /// This many heads are accepted, and the next one is refused.
    Refused(u64, FaultKind),
    /// This many heads are accepted, and the body of the last one is cut.
    Broken(u64),
}
use ExpectedResult::{Broken, Pass, Refused};

const BAD: FaultKind = FaultKind::Invalid;

/// A request that was read: its method and target, and its body, or `CUT` if the body was invalid.
type ParsedMessage = (String, Vec<u8>);

/// Reads the bytes, given in these pieces.
fn frame(pieces: &[&[u8]]) -> (ExpectedResult, Vec<ParsedMessage>) {
    let (mut reader, mut buf) = (RequestReader::new(TargetStrictness::Strict), BytesMut::new());
    let (mut heads, mut messages) = (0, Vec::<ParsedMessage>::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            if reader.at_start() {
                match reader.head(&mut buf, &LIMITS) {
                    Ok(Some((_, parts))) => {
                        messages.push((format!("{} {}", parts.method, parts.uri), Vec::new()));
                        heads += 1;
                    }
                    Ok(None) => break,
                    Err(fault) => return (Refused(heads, fault.kind), messages),
                }
            } else if reader.is_switching() {
                break;
            }
            match reader.piece(&mut buf) {
                Ok(BodyPiece::Data(data)) => messages.last_mut().unwrap().1.extend_from_slice(&data),
                Ok(BodyPiece::Trailers(_) | BodyPiece::End) => {}
                Ok(BodyPiece::More) => break,
                Err(_) => {
                    messages.last_mut().unwrap().1 = b"CUT".to_vec();
                    return (Broken(heads), messages);
                }
            }
        }
    }
    if !reader.at_start() && !reader.is_switching() {
        messages.last_mut().unwrap().1 = b"CUT".to_vec();
    }
    (Pass(heads), messages)
}

fn corpus() -> Vec<(&'static str, Vec<u8>, ExpectedResult)> {
    let get = "GET /ok HTTP/1.1\r\nHost: h\r\n\r\n";
    let post = |headers: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}{get}");
    let one = |headers: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let text: Vec<(&'static str, String, ExpectedResult)> = vec![
        // These must be accepted.
        ("two requests", format!("{get}{get}"), Pass(2)),
        ("an empty line between", format!("{get}\r\n{get}"), Pass(2)),
        ("a length", post("Content-Length: 3\r\n", "abc"), Pass(2)),
        ("a length of zero", post("Content-Length: 0\r\n", ""), Pass(2)),
        ("a request in a body", post(&format!("Content-Length: {}\r\n", get.len()), get), Pass(2)),
        ("chunks", chunked("3\r\nabc\r\n0a;x=\"y\"\r\n0123456789\r\n0\r\n\r\n"), Pass(2)),
        ("trailers", chunked("0\r\nX-Sum: 1\r\n\r\n"), Pass(2)),
        ("HTTP/1.0 without a host", "GET / HTTP/1.0\r\n\r\n".into(), Pass(1)),
        ("obs-text in a value", one("X: caf\u{e9}\r\n"), Pass(1)),
        ("absolute form", "GET http://h/x?y HTTP/1.1\r\nHost: h\r\n\r\n".into(), Pass(1)),
        ("asterisk form", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".into(), Pass(1)),
        ("authority form", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n".into(), Pass(1)),
        ("what follows CONNECT is held", format!("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n{get}"), Pass(1)),
        ("what follows an upgrade is held", one("Upgrade: websocket\r\n") + get, Pass(1)),
        // Content-Length beside Transfer-Encoding.
        ("CL.TE", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"), Refused(0, BAD)),
        (
            "TE.CL",
            post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "1\r\nZ\r\n0\r\n\r\n"),
            Refused(0, BAD),
        ),
        (
            "CL.0 beside TE",
            post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n"),
            Refused(0, BAD),
        ),
        // Transfer-Encoding in disguise.
        (
            "TE.TE twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused(0, BAD),
        ),
        (
            "TE.TE identity",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
            Refused(0, BAD),
        ),
        (
            "TE x, chunked",
            post("Transfer-Encoding: x, chunked\r\n", "0\r\n\r\n"),
            Refused(0, FaultKind::UnknownCoding),
        ),
        (
            "TE gzip, chunked",
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            Refused(0, FaultKind::UnknownCoding),
        ),
        (
            "TE chunked, identity",
            post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
            Refused(0, BAD),
        ),
        ("TE xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        ("TE quoted", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        ("TE with a parameter", post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        ("TE with a vertical tab", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        ("TE behind NBSP", post("Transfer-Encoding: \u{a0}chunked\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        ("TE before a tab", post("Transfer-Encoding: chunked\t\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        ("TE behind a tab", post("Transfer-Encoding:\tchunked\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        ("length before a tab", post("Content-Length: 1\t\r\n", "Z"), Refused(0, BAD)),
        ("a host behind a tab", "GET / HTTP/1.1\r\nHost:\th\r\n\r\n".into(), Refused(0, BAD)),
        ("TE empty", post("Transfer-Encoding:\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        (
            "TE with a space before the colon",
            post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
            Refused(0, BAD),
        ),
        (
            "TE with a tab before the colon",
            post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"),
            Refused(0, BAD),
        ),
        ("TE folded", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), Refused(0, BAD)),
        ("TE after a folded line", post("X: x\r\n\tTransfer-Encoding: chunked\r\n", ""), Refused(0, BAD)),
        ("TE after a leading space", post(" Transfer-Encoding: chunked\r\n", ""), Refused(0, BAD)),
        ("TE after a bare LF", post("X: x\nTransfer-Encoding: chunked\r\n", ""), Refused(0, BAD)),
        ("TE after a bare CR", post("X: x\rTransfer-Encoding: chunked\r\n", ""), Refused(0, BAD)),
        ("TE with NUL", post("Transfer-Encoding: chunked\0\r\n", ""), Refused(0, BAD)),
        (
            "TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            Refused(0, BAD),
        ),
        // Content-Length in disguise.
        ("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"), Refused(0, BAD)),
        ("one length twice", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), Refused(0, BAD)),
        ("a list of lengths", post("Content-Length: 5, 5\r\n", "abcde"), Refused(0, BAD)),
        ("+5", post("Content-Length: +5\r\n", "abcde"), Refused(0, BAD)),
        ("-1", post("Content-Length: -1\r\n", ""), Refused(0, BAD)),
        ("0x5", post("Content-Length: 0x5\r\n", "abcde"), Refused(0, BAD)),
        ("5 5", post("Content-Length: 5 5\r\n", "abcde"), Refused(0, BAD)),
        ("an empty length", post("Content-Length:\r\n", ""), Refused(0, BAD)),
        ("a length of 2^64 + 1", post("Content-Length: 18446744073709551617\r\n", "a"), Refused(0, BAD)),
        ("a length with a space before the colon", post("Content-Length : 3\r\n", "abc"), Refused(0, BAD)),
        (
            "CONNECT with a body",
            "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".into(),
            Refused(0, BAD),
        ),
        // Lines.
        ("bare LF after the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("bare LF at the head's end", "GET / HTTP/1.1\r\nHost: h\r\n\n".into(), Refused(0, BAD)),
        ("bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("two empty lines before", format!("\r\n\r\n{get}"), Refused(0, BAD)),
        ("a bare LF before", format!("\n{get}"), Refused(0, BAD)),
        ("a header without a colon", one("nothing\r\n"), Refused(0, BAD)),
        ("a header without a name", one(": x\r\n"), Refused(0, BAD)),
        ("a DEL in a value", one("X: \x7f\r\n"), Refused(0, BAD)),
        ("a bracket in a name", one("X[0]: x\r\n"), Refused(0, BAD)),
        ("a non-ASCII name", one("X\u{e9}: x\r\n"), Refused(0, BAD)),
        // The request line.
        ("a long method", format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "A".repeat(65)), Refused(0, BAD)),
        ("no version", "GET /\r\n\r\n".into(), Refused(0, BAD)),
        ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("http/1.1", "GET / http/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("HTTP/1.10", "GET / HTTP/1.10\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("a tab for a space", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("a raw byte in the target", "GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("no slash", "GET x HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("user info", "GET http://a@h/ HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("CONNECT to a path", "CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("asterisk for GET", "GET * HTTP/1.1\r\nHost: h\r\n\r\n".into(), Refused(0, BAD)),
        ("TLS", "\x16\x03\x01\x02\0\x01".into(), Refused(0, BAD)),
        // Host.
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), Refused(0, BAD)),
        ("two hosts", one("Host: i\r\n"), Refused(0, BAD)),
        ("a list of hosts", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), Refused(0, BAD)),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), Refused(0, BAD)),
        ("a host with user info", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".into(), Refused(0, BAD)),
        // Limits.
        (
            "a long line",
            format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(200)),
            Refused(0, FaultKind::LineTooLong),
        ),
        (
            "a long line without an end",
            format!("GET /{}", "a".repeat(200)),
            Refused(0, FaultKind::LineTooLong),
        ),
        (
            "a long line that ends in LF",
            format!("GET /{}\n", "a".repeat(200)),
            Refused(0, FaultKind::LineTooLong),
        ),
        (
            "a large header that ends in LF",
            one(&format!("X: {}\n", "a".repeat(400))),
            Refused(0, FaultKind::FieldsTooLarge),
        ),
        (
            "a large header",
            one(&format!("X: {}\r\n", "a".repeat(400))),
            Refused(0, FaultKind::FieldsTooLarge),
        ),
        (
            "a header without an end",
            format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(600)),
            Refused(0, FaultKind::FieldsTooLarge),
        ),
        ("many headers", one(&"X: x\r\n".repeat(10)), Refused(0, FaultKind::FieldsTooLarge)),
        // Chunks.
        ("a chunk extension with LF", chunked("1;\nx\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk line that ends in LF", chunked("1\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk line with a bare CR", chunked("1\rZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk longer than its size", chunked("1\r\nZZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk that ends in LF", chunked("1\r\nZ\n0\r\n\r\n"), Broken(1)),
        ("a chunk size of 0x1", chunked("0x1\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk size of +1", chunked("+1\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk size behind a space", chunked(" 1\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk size before a space", chunked("1 \r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk size that overflows", chunked("10000000000000001\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("an empty chunk size", chunked("\r\n"), Broken(1)),
        ("a chunk extension without a name", chunked("1;\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk extension with a blank", chunked("1;x = y\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk extension without a value", chunked("1;x=\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a chunk extension with an open quote", chunked("1;x=\"y\r\nZ\r\n0\r\n\r\n"), Broken(1)),
        ("a long chunk extension", chunked(&format!("1;{}\r\nZ\r\n0\r\n\r\n", "a".repeat(300))), Broken(1)),
        ("a trailer with LF", chunked("0\r\nX: y\n\r\n"), Broken(1)),
        ("a trailer with a length", chunked("0\r\nContent-Length: 3\r\n\r\n"), Broken(1)),
        ("a trailer with an encoding", chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), Broken(1)),
        ("a trailer with a host", chunked("0\r\nHost: i\r\n\r\n"), Broken(1)),
        // A bad request after a good one.
        ("a bad one behind a good one", format!("{get}GET / HTTP/1.1\n"), Refused(1, BAD)),
        ("a smuggled one behind a length", post("Content-Length: 3\r\n", "abcGPOST"), Pass(2)),
    ];
    text.into_iter().map(|(name, bytes, expect)| (name, bytes.into_bytes(), expect)).collect()
}

#[test]
fn every_known_smuggling_form_is_refused_at_every_split() {
    for (name, bytes, expect) in corpus() {
        assert_eq!(frame(&[&bytes]).0, expect, "{name}");
        for at in 0..=bytes.len() {
            let (left, right) = bytes.split_at(at);
            assert_eq!(frame(&[left, right]).0, expect, "{name}, split at {at}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(frame(&single).0, expect, "{name}, byte by byte");
    }
}

type ReadMessages = Rc<RefCell<Vec<ParsedMessage>>>;

/// What hyper reads in the bytes: the method and target of every request, and its body if that is complete.
async fn hyper_reads(bytes: &[u8]) -> Vec<ParsedMessage> {
    let seen: ReadMessages = Rc::default();
    let (mut client, server) = UnixStream::pair().unwrap();
    let note = seen.clone();
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let note = note.clone();
        async move {
            let line = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            note.borrow_mut().push((line, body.map_or_else(|_| b"CUT".to_vec(), |body| body.to_vec())));
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.header_read_timeout(None).half_close(true);
    let serving = async {
        let _ = builder.serve_connection(TokioIo::new(server), service).await;
    };
    let sent = async {
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
    };
    tokio::join!(serving, sent);
    seen.take()
}

fn local<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// hyper must read what this crate accepts in the same way: as many messages, with the same bodies. hyper may accept what this crate
/// refuses.
async fn hyper_agrees(bytes: &[u8], piece: usize) {
    let pieces: Vec<_> = bytes.chunks(piece).collect();
    let (_, mut messages) = frame(&pieces);
    let mut others = hyper_reads(bytes).await;
    others.truncate(messages.len());
    // An invalid body is the last thing that this crate reads; it doesn't matter how much of it hyper accepted.
    if messages.last().is_some_and(|(_, body)| body == b"CUT") {
        messages.last_mut().unwrap().1.clear();
        others.last_mut().unwrap().1.clear();
    }
    assert_eq!(others, messages, "{:?}", bytes.escape_ascii().to_string());
}

#[test]
fn hyper_reads_the_corpus_the_same_way() {
    local(async {
        for (_, bytes, _) in corpus() {
            // hyper closes the connection after a CONNECT or an upgrade that isn't answered with 101.
            if !bytes.starts_with(b"CONNECT") {
                hyper_agrees(&bytes, bytes.len()).await;
                hyper_agrees(&bytes, 1).await;
            }
        }
    });
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        Just(b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        body.clone().prop_map(|body| {
            let head = format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.into_bytes(), body].concat()
        }),
        proptest::collection::vec(body, 0..4).prop_map(|chunks| {
            let mut all = b"POST /c HTTP/1.1\r\ntransfer-encoding: Chunked\r\nHost: h\r\n\r\n".to_vec();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                all.extend(format!("{:X}\r\n", chunk.len()).bytes());
                all.extend(chunk);
                all.extend(b"\r\n");
            }
            all.extend(b"0\r\nX-T: t\r\n\r\n");
            all
        }),
    ]
}

const TRICKS: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"0",
    b"\r\n",
    b"\r\n\r\n",
    b";",
    b"\xff",
    b"#",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 3\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn hyper_reads_what_passes_the_same_way(
        messages in proptest::collection::vec(message(), 1..4),
        tricks in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(TRICKS), any::<bool>()), 0..3),
        piece in 1_usize..60,
    ) {
        let mut bytes = messages.concat();
        for (at, trick, replace) in tricks {
            let at = at.index(bytes.len());
            let end = if replace { (at + 1).min(bytes.len()) } else { at };
            bytes.splice(at..end, trick.iter().copied());
        }
        // After HTTP/1.0 without keep-alive hyper reads nothing more, and after an upgrade or a CONNECT it waits.
        let ends = [&b"HTTP/1.0"[..], b"Upgrade", b"CONNECT"];
        if !ends.iter().any(|end| memchr::memmem::find(&bytes, end).is_some()) {
            local(hyper_agrees(&bytes, piece));
        }
    }

    #[test]
    fn the_reader_never_panics_and_the_split_does_not_matter(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n :;0123abGETHTTP/.".to_vec())], 0..300),
        good in 0_usize..3,
        piece in 1_usize..40,
    ) {
        let starts: [&[u8]; 3] = [
            b"", b"GET / HTTP/1.1\r\nHost: h\r\n", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        ];
        let all = [starts[good], &bytes].concat();
        let pieces: Vec<_> = all.chunks(piece).collect();
        prop_assert_eq!(frame(&[&all]), frame(&pieces));
    }
}
