//! Tests of response heads, and of messages that are read and written again.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Version};
use proptest::prelude::*;

use crate::{
    Fields, HeadLimits, MessageFault, RequestHead, ResponseHead,
    body::{BodyDecoder, BodyPiece},
    outbox::{BodyEncoder, Outbox},
    request::{self, TargetStrictness},
    response::{self, MethodKind, ResponseFraming},
    write,
};

const LIMITS: HeadLimits = HeadLimits { line: 200, size: 4000, count: 30 };

fn read_response(
    bytes: &str,
    asked: MethodKind,
) -> Result<Option<(response::ParsedResponse, Box<ResponseHead>)>, MessageFault> {
    response::read(&mut BytesMut::from(bytes), &LIMITS, asked)
}

fn framing(fields: &str) -> Result<ResponseFraming, MessageFault> {
    read_response(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), MethodKind::Other)
        .map(|head| head.unwrap().0.framing)
}

#[test]
fn the_body_of_a_response_has_only_one_end() {
    assert_eq!(framing("Content-Length: 5\r\n"), Ok(ResponseFraming::Length(5)));
    assert_eq!(framing("Content-Length: 5, 5\r\n"), Ok(ResponseFraming::Length(5)));
    assert_eq!(framing("Content-Length: 5\r\nContent-Length: 5\r\n"), Ok(ResponseFraming::Length(5)));
    assert_eq!(framing("Content-Length: 0\r\n"), Ok(ResponseFraming::None));
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(ResponseFraming::Chunked));
    assert_eq!(framing("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Ok(ResponseFraming::Chunked));
    assert_eq!(framing(""), Ok(ResponseFraming::UntilEnd));
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5,\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "X: a\rb\r\n",
        "X: a\n",
        "X : a\r\n",
        " X: a\r\n",
        "X: \0\r\n",
        "X\r\n",
    ] {
        assert!(framing(fields).is_err(), "{fields:?}");
    }
    assert!(
        read_response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", MethodKind::Other).is_err()
    );
}

#[test]
fn a_length_that_is_passed_on_is_one_number_or_none() {
    let lengths = |fields: &str| {
        let (head, parts) =
            read_response(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), MethodKind::Other).unwrap().unwrap();
        let all: Vec<_> =
            parts.headers.get_all("content-length").map(|v| v.to_str().unwrap().to_owned()).collect();
        (all.join("|"), head.persists)
    };
    assert_eq!(lengths("Content-Length: 5, 5\r\n"), ("5".into(), true));
    assert_eq!(lengths("Content-Length: 5\r\nContent-Length: 5\r\n"), ("5".into(), true));
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(lengths(both), (String::new(), false), "nothing is read after it");
}

#[test]
fn some_responses_have_no_body_whatever_their_head_says() {
    let none = |line: &str, asked| {
        let bytes = format!("{line}\r\nContent-Length: 5\r\n\r\n");
        read_response(&bytes, asked).unwrap().unwrap().0.framing == ResponseFraming::None
    };
    assert!(none("HTTP/1.1 200 OK", MethodKind::Head));
    assert!(none("HTTP/1.1 200 OK", MethodKind::Connect));
    assert!(!none("HTTP/1.1 407 No", MethodKind::Connect));
    for status in [100, 103, 204, 304] {
        assert!(none(&format!("HTTP/1.1 {status} X"), MethodKind::Other));
    }
}

#[test]
fn a_status_line_is_read_strictly_and_its_phrase_is_kept() {
    for (line, version) in [
        ("HTTP/1.1 200 OK", Version::HTTP_11),
        ("HTTP/1.0 200 OK", Version::HTTP_10),
        ("HTTP/1.2 200 OK", Version::HTTP_11),
        ("HTTP/1.1 200", Version::HTTP_11),
        ("HTTP/1.1 200 ", Version::HTTP_11),
        ("HTTP/1.1 200 Very well", Version::HTTP_11),
    ] {
        let (_, parts) = read_response(&format!("{line}\r\n\r\n"), MethodKind::Other).unwrap().unwrap();
        assert_eq!((parts.status.as_u16(), parts.version), (200, version), "{line}");
        let mut out = BytesMut::new();
        let status = (parts.status, parts.reason.as_deref());
        let persists = write::ConnectionPersistence::Persists;
        write::response(&mut out, true, status, &parts.headers, BodyEncoder::None, persists);
        let phrase = line.get(13..).unwrap_or_default();
        assert_eq!(out, format!("HTTP/1.1 200 {phrase}\r\n\r\n"));
    }
    for line in [
        "HTTP/2.0 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 2000 OK",
        "SSH-2.0-x",
        "HTTP/1.1 099 X",
        "HTTP/1.x 200 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 20x OK",
        "HTTP/1.1 x00 OK",
    ] {
        assert!(read_response(&format!("{line}\r\n\r\n"), MethodKind::Other).is_err(), "{line}");
    }
    assert!(read_response("SSH", MethodKind::Other).is_err(), "refused before the end of the line");
    assert!(read_response("HTT", MethodKind::Other).unwrap().is_none());
}

fn asked(bytes: &str) -> RequestHead {
    Rc::unwrap_or_clone(
        request::read(&mut BytesMut::from(bytes), &LIMITS, TargetStrictness::Strict).unwrap().unwrap().1,
    )
}

fn written(parts: &RequestHead, encoder: BodyEncoder) -> String {
    let mut out = BytesMut::new();
    let path = parts.uri.path_and_query().unwrap();
    let raw = parts.raw_query.as_ref().and_then(|raw| raw.target(path));
    let target = raw.as_deref().unwrap_or(path.as_str().as_bytes());
    write::request(&mut out, &parts.method, target, &parts.headers, encoder);
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn names_are_written_as_they_were_spelt_and_new_ones_in_lower_case() {
    let text = "GET /a HTTP/1.1\r\nHost: h\r\nX-FOO: 1\r\nx-bar: 2\r\nx-Foo: 3\r\nETag: 4\r\n\r\n";
    let mut parts = asked(text);
    assert_eq!(written(&parts, BodyEncoder::None), text, "names and order are unchanged");
    parts.headers.remove("x-bar");
    parts.headers.insert("x-new", HeaderValue::from_static("5"));
    parts.headers.insert("etag", HeaderValue::from_static("6"));
    let out = written(&parts, BodyEncoder::None);
    for line in ["Host: h\r\n", "X-FOO: 1\r\n", "x-Foo: 3\r\n", "ETag: 6\r\n", "x-new: 5\r\n"] {
        assert!(out.contains(line), "{out}");
    }
}

#[test]
fn a_query_that_a_uri_can_not_hold_is_written_as_it_was_read() {
    let target = r#"/api?q=up{job="x"}<>\^|`"#;
    let mut parts = asked(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_eq!(parts.uri.query(), Some(r"q=up{job=%22x%22}%3C%3E\^|`"));
    assert!(written(&parts, BodyEncoder::None).starts_with(&format!("GET {target} HTTP/1.1\r\n")));
    parts.uri = "/other?q=up{job=%22x%22}%3C%3E\\^|`".parse().unwrap();
    assert!(
        written(&parts, BodyEncoder::None).starts_with(&format!("GET {} ", target.replace("api", "other")))
    );
    parts.uri = "/api?q=1".parse().unwrap();
    assert!(written(&parts, BodyEncoder::None).starts_with("GET /api?q=1 "), "a rewrite of the query wins");
}

#[test]
fn options_of_a_host_without_a_path_is_written_as_options_asterisk() {
    for (target, written) in
        [("http://h", "*"), ("http://h:81", "*"), ("http://h/", "/"), ("http://h?a", "/?a"), ("*", "*")]
    {
        let parts = asked(&format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(parts.uri.path_and_query().unwrap().to_string(), written, "{target}");
    }
}

#[test]
fn only_the_encoder_decides_the_framing_fields() {
    let parts = asked("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
    assert!(written(&parts, BodyEncoder::Length(7)).ends_with("Content-Length: 7\r\n\r\n"));
    let chunked = written(&parts, BodyEncoder::Chunked);
    assert!(chunked.ends_with("transfer-encoding: chunked\r\n\r\n") && !chunked.contains("ength"));
}

#[test]
fn a_length_is_written_in_one_form_and_once() {
    for (lines, encoder, lengths) in [
        ("Content-Length: 5\r\n", BodyEncoder::Length(5), vec!["Content-Length: 5"]),
        ("Content-Length: 005\r\n", BodyEncoder::Length(5), vec!["Content-Length: 5"]),
        ("Content-Length: 0\r\n", BodyEncoder::Length(0), vec!["Content-Length: 0"]),
        ("Content-Length:   5  \r\n", BodyEncoder::Length(5), vec!["Content-Length: 5"]),
        ("Content-Length: 5\r\n", BodyEncoder::None, vec!["Content-Length: 5"]),
        ("X: 1\r\n", BodyEncoder::Length(5), vec!["content-length: 5"]),
    ] {
        let out = written(&asked(&format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}X-Y: 2\r\n\r\n")), encoder);
        let found: Vec<_> = out.lines().filter(|line| line.to_ascii_lowercase().contains("length")).collect();
        assert_eq!(found, lengths, "{lines}");
    }
    let mut twice = asked("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
    twice.headers.append("content-length", HeaderValue::from_static("6"));
    assert_eq!(written(&twice, BodyEncoder::Length(7)).matches("ength").count(), 1);
}

#[test]
fn whitespace_around_a_value_is_written_in_one_form() {
    let text = "GET / HTTP/1.1\r\nHost:h\r\nA:   1\r\nB: 2 \t\r\nC:\t3\r\nD: 4\r\nE:\r\n\r\n";
    let plain = "GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: \r\n\r\n";
    assert_eq!(written(&asked(text), BodyEncoder::None), plain);
}

#[test]
fn a_body_with_a_wrong_length_is_never_ended_cleanly() {
    let mut out = Outbox::default();
    let mut encoder = BodyEncoder::Length(3);
    assert!(out.body(&mut encoder, Bytes::from_static(b"ab")).is_ok());
    assert!(out.end(encoder, None).is_err());
    assert!(out.body(&mut encoder, Bytes::from_static(b"cd")).is_err());
    assert!(out.body(&mut BodyEncoder::None, Bytes::from_static(b"x")).is_err());
}

/// Writes everything, `step` bytes at a time.
fn drain(out: &mut Outbox, step: usize, to: &mut Vec<u8>) {
    while !out.is_empty() {
        let all: Vec<u8> = out.slices().iter().flat_map(|slice| slice.iter().copied()).collect();
        let n = step.min(all.len());
        to.extend_from_slice(&all[..n]);
        out.advance(n);
    }
}

proptest! {
    #[test]
    fn what_is_written_in_chunks_is_read_back_at_any_split(
        pieces in proptest::collection::vec((1_usize..9000, any::<u8>()), 0..5),
        step in 1_usize..6000,
        piece in 1_usize..6000,
        with_trailers in any::<bool>(),
    ) {
        let (mut out, mut encoder, mut wire) = (Outbox::default(), BodyEncoder::Chunked, Vec::new());
        for (len, byte) in &pieces {
            out.body(&mut encoder, vec![*byte; *len].into()).unwrap();
            if !out.has_room() {
                drain(&mut out, step, &mut wire);
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        out.end(encoder, with_trailers.then_some(&trailers)).unwrap();
        drain(&mut out, step, &mut wire);

        let (mut decoder, mut buf) = (BodyDecoder::from(ResponseFraming::Chunked), BytesMut::new());
        let (mut body, mut read) = (Vec::new(), None);
        for part in wire.chunks(piece) {
            buf.extend_from_slice(part);
            loop {
                match decoder.decode(&mut buf).unwrap() {
                    BodyPiece::Data(data) => body.extend_from_slice(&data),
                    BodyPiece::Trailers(trailers) => read = Some(trailers),
                    BodyPiece::More | BodyPiece::End => break,
                }
            }
        }
        let expected: Vec<u8> = pieces.iter().flat_map(|(len, byte)| vec![*byte; *len]).collect();
        prop_assert!(decoder.is_done() && buf.is_empty());
        prop_assert_eq!(body, expected);
        prop_assert_eq!(read, with_trailers.then_some(trailers));
    }

    /// Parse, edit, write, and parse with another parser: the message is the same.
    #[test]
    fn hyper_s_parser_reads_what_is_written_as_the_same_message(
        names in proptest::collection::vec("[A-Za-z][A-Za-z0-9-]{0,12}", 0..12),
        values in proptest::collection::vec("[ -~]{0,20}", 12),
        path in "/[a-z%{}\"0-9]{0,10}".prop_filter("a path", |path| !path.contains(['%', '"'])),
    ) {
        let named = |name: &&String| !["host", "connection", "content-length", "transfer-encoding", "expect", "upgrade", "te"]
            .contains(&name.to_ascii_lowercase().as_str());
        let names: Vec<_> = names.iter().filter(named).collect();
        let lines: Vec<_> = names.iter().zip(&values).map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let lines = lines.concat();
        let mut parts = asked(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n"));
        parts.headers.insert("x-attache-test", HeaderValue::from_static("1"));
        let out = written(&parts, BodyEncoder::Length(3));
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut other = httparse::Request::new(&mut headers);
        prop_assert!(other.parse(out.as_bytes()).unwrap().is_complete(), "{}", out);
        prop_assert_eq!(other.method, Some(Method::GET.as_str()));
        prop_assert_eq!(other.path, Some(path.as_str()));
        let mut read = HeaderMap::new();
        for header in other.headers.iter() {
            read.append(
                http::HeaderName::from_bytes(header.name.as_bytes()).unwrap(),
                http::HeaderValue::from_bytes(header.value).unwrap(),
            );
        }
        prop_assert_eq!(read.remove("content-length").unwrap(), "3");
        prop_assert_eq!(&Fields::from(&read), &parts.headers);
        prop_assert_eq!(read, parts.headers.to_map());
    }

    #[test]
    fn responses_never_panic_and_the_split_does_not_matter(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n :;0123abHTP/.".to_vec())], 0..200),
        good in 0_usize..3,
        cut in any::<prop::sample::Index>(),
    ) {
        let starts: [&[u8]; 3] = [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"];
        let all = [starts[good], &bytes].concat();
        let mut whole = BytesMut::from(&all[..]);
        let first = response::read(&mut whole, &LIMITS, MethodKind::Other).map(|r| r.map(|(h, _)| h));
        let cut = cut.index(all.len() + 1);
        let mut part = BytesMut::from(&all[..cut]);
        let early = response::read(&mut part, &LIMITS, MethodKind::Other).map(|r| r.map(|(h, _)| h));
        match early {
            Ok(None) => {}
            // If a part of the bytes decides the result, the whole has the same result.
            decided => prop_assert_eq!(decided.is_err(), first.is_err()),
        }
    }
}
