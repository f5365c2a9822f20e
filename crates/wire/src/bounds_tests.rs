//! Tests of each limit: exactly at it, and one above it.

use bytes::{Bytes, BytesMut};

use crate::{
    Fields, HeadLimits, MessageFault,
    body::{BodyDecoder, BodyPiece},
    outbox::{BodyEncoder, Outbox},
    path_and_query,
    request::{self, TargetStrictness},
    response::{self, MethodKind, ResponseFraming},
    server::RequestReader,
    write,
};

const LIMITS: HeadLimits = HeadLimits { line: 200, size: 200, count: 9 };

fn head(fields: &str, size: usize, count: usize) -> Result<bool, MessageFault> {
    let bytes = format!("HTTP/1.1 200 OK\r\n{fields}");
    response::read(&mut BytesMut::from(&*bytes), &HeadLimits { line: 200, size, count }, MethodKind::Other)
        .map(|head| head.is_some())
}

#[test]
fn a_head_may_be_as_large_as_its_limit_and_not_a_byte_larger() {
    // A line that the fast reader takes, and one that only the slow reader takes.
    for line in ["X-Name: value\r\n", "X!Name:\tvalue \r\n"] {
        let whole = format!("{line}\r\n");
        assert_eq!(head(&whole, line.len(), 9), Ok(true), "{line:?}");
        assert!(head(&whole, line.len() - 1, 9).is_err(), "{line:?}");
        let twice = format!("{line}{line}\r\n");
        assert_eq!(head(&twice, 2 * line.len(), 2), Ok(true), "{line:?}");
        assert!(head(&twice, 2 * line.len() - 1, 2).is_err(), "{line:?}");
        assert!(head(&twice, 2 * line.len(), 1).is_err(), "{line:?}");
    }
    // The head is not complete: it is accepted as long as its end may still arrive within the limit.
    let part = "X-Name: value";
    assert_eq!(head(part, part.len() - 2, 9), Ok(false));
    assert!(head(part, part.len() - 3, 9).is_err());
}

fn chunked(extensions: &[usize]) -> Result<(), MessageFault> {
    let chunk = |len: &usize| format!("1;{}\r\na\r\n", "x".repeat(len - 1) + "y");
    let wire: String = extensions.iter().map(chunk).collect();
    let (mut decoder, mut buf) = (BodyDecoder::from(ResponseFraming::Chunked), BytesMut::from(&*wire));
    while let BodyPiece::Data(_) = decoder.decode(&mut buf)? {}
    Ok(())
}

#[test]
fn extensions_of_chunks_are_bounded_for_one_and_for_all() {
    assert_eq!(chunked(&[256]), Ok(()));
    assert!(chunked(&[257]).is_err());
    assert_eq!(chunked(&[256; 32]), Ok(()));
    assert!(chunked(&[&[256; 32][..], &[1]].concat()).is_err());
}

#[test]
fn a_field_of_http2_has_a_name_in_lower_case_and_a_value_without_control_characters() {
    let long = vec![b'a'; 1 << 16];
    for mut fields in [Fields::new(), Fields::with_capacity(8, 4096)] {
        assert!(fields.append_read(None, b"x-a", b"1", false));
        assert!(fields.append_read(None, b"x!a", b"", false));
        let names: [&[u8]; 6] = [b"", b"X-a", b"x a", b"x\r", b":x", &long];
        for name in names {
            assert!(!fields.append_read(None, name, b"1", false), "{name:?}");
        }
        for value in [&b"a\rb"[..], b"a\nb", b"a\0b"] {
            assert!(!fields.append_read(None, b"x-a", value, false), "{value:?}");
        }
        let all: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        assert_eq!(all, [(&b"x-a"[..], &b"1"[..]), (b"x!a", b"")]);
    }
}

#[test]
fn only_a_part_of_the_head_itself_is_shared() {
    let bytes = "HTTP/1.1 200 OK\r\nX-Name: value\r\n\r\n";
    let limits = HeadLimits { line: 200, size: 200, count: 9 };
    let (_, parts) = response::read(&mut BytesMut::from(bytes), &limits, MethodKind::Other).unwrap().unwrap();
    let value = parts.headers.get("x-name").unwrap().as_bytes();
    assert_eq!(parts.headers.shared(value).as_deref(), Some(&b"value"[..]));
    assert_eq!(parts.headers.shared(&value[5..]).as_deref(), Some(&b""[..]));
    let other = Bytes::from_static(b"value");
    assert_eq!(parts.headers.shared(&other), None);
}

#[test]
fn a_query_that_the_uri_has_no_room_for_is_kept_beside_it() {
    assert!(path_and_query(b"").is_none() && path_and_query(b"/a b").is_none());
    let (path, raw) = path_and_query(b"/a?b=c").unwrap();
    assert!(path == "/a?b=c" && raw.is_none());
    let (path, raw) = path_and_query(b"/a?b=<\"c\">").unwrap();
    assert_eq!(path, "/a?b=%3C%22c%22%3E");
    assert_eq!(raw.unwrap().target(&path).as_deref(), Some(&b"/a?b=<\"c\">"[..]));
    // A query that was changed after it was read is written as it is now.
    let (_, raw) = path_and_query(b"/a?<").unwrap();
    assert_eq!(raw.unwrap().target(&"/a?b".parse().unwrap()), None);
}

#[test]
fn behind_a_broken_chunk_nothing_is_read() {
    let mut decoder = BodyDecoder::from(ResponseFraming::Chunked);
    assert!(decoder.decode(&mut BytesMut::from("x\r\n")).is_err());
    assert!(decoder.decode(&mut BytesMut::from("0\r\n\r\n")).is_err());
}

#[test]
fn a_piece_that_is_not_copied_is_written_whole_with_its_framing_in_steps_of_any_size() {
    let data = Bytes::from(vec![b'x'; 5000]);
    let whole = [b"1388\r\n", &data[..], b"\r\n0\r\n\r\n"].concat();
    for step in [1, 2, 6, 4096, 5000, 5001, 5006, 6000] {
        let (mut out, mut encoder) = (Outbox::default(), BodyEncoder::Chunked);
        out.body(&mut encoder, data.clone()).unwrap();
        assert!(!out.has_room());
        out.end(encoder, None).unwrap();
        let mut written = Vec::new();
        while !out.is_empty() {
            let waiting: Vec<u8> = out.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(waiting.len(), out.len());
            let n = step.min(waiting.len());
            written.extend_from_slice(&waiting[..n]);
            out.advance(n);
        }
        assert_eq!(written, whole, "{step}");
        assert!(out.has_room());
    }
}

#[test]
fn whether_another_message_follows_is_said_by_the_version_and_by_connection() {
    for (version, fields, persists) in [
        ("1.1", "", true),
        ("1.1", "Connection: a, Close\r\n", false),
        ("1.1", "Connection: close, keep-alive\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        let bytes = format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
        let head = request::read(&mut BytesMut::from(&*bytes), &LIMITS, TargetStrictness::Strict)
            .unwrap()
            .unwrap()
            .0;
        assert_eq!(head.persists, persists, "{version} {fields}");
        let answer = |framing: &str| {
            let bytes = format!("HTTP/{version} 200 OK\r\n{framing}{fields}\r\n");
            let read = response::read(&mut BytesMut::from(&*bytes), &LIMITS, MethodKind::Other);
            read.unwrap().unwrap().0.persists
        };
        assert_eq!(answer("Content-Length: 1\r\n"), persists, "{version} {fields}");
        assert!(!answer(""), "its body ends with the connection");
    }
}

#[test]
fn only_a_client_of_http_1_1_waits_for_100() {
    for (version, expects) in [("1.1", true), ("1.0", false)] {
        let bytes = format!("PUT / HTTP/{version}\r\nHost: h\r\nExpect: 100-continue\r\n\r\n");
        let head = request::read(&mut BytesMut::from(&*bytes), &LIMITS, TargetStrictness::Strict)
            .unwrap()
            .unwrap()
            .0;
        assert_eq!(head.expects, expects, "{version}");
    }
}

#[test]
fn only_options_may_ask_for_no_path() {
    for (method, path) in [("OPTIONS", "*"), ("GET", "/")] {
        let bytes = format!("{method} http://h HTTP/1.1\r\nHost: h\r\n\r\n");
        let read = request::read(&mut BytesMut::from(&*bytes), &LIMITS, TargetStrictness::Strict);
        assert_eq!(read.unwrap().unwrap().1.uri.path(), path, "{method}");
    }
}

#[test]
fn a_method_may_have_64_bytes_and_a_length_18_digits() {
    let asked = |method: usize, length: usize| {
        let (method, length) = ("M".repeat(method), "0".repeat(length - 1) + "1");
        let bytes = format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        request::read(&mut BytesMut::from(&*bytes), &LIMITS, TargetStrictness::Strict)
            .map(|read| read.is_some())
    };
    assert_eq!(asked(64, 18), Ok(true));
    assert!(asked(65, 18).is_err() && asked(64, 19).is_err());
}

#[test]
fn behind_a_refused_head_nothing_is_read() {
    let good = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    for bad in ["GET / HTTP/1.1\r\n\r\n", "\r\n\r\n"] {
        let mut reader = RequestReader::new(TargetStrictness::Strict);
        let refused = reader.head(&mut BytesMut::from(&*format!("{bad}{good}")), &LIMITS).map(drop);
        assert!(refused.is_err(), "{bad:?}");
        let again = reader.head(&mut BytesMut::from(good), &LIMITS).map(drop);
        assert_eq!(again, refused, "{bad:?}");
    }
}

#[test]
fn what_is_left_of_connection_is_written_before_the_other_fields() {
    let bytes = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let (_, parts) =
        request::read(&mut BytesMut::from(bytes), &LIMITS, TargetStrictness::Strict).unwrap().unwrap();
    let mut out = BytesMut::new();
    write::request(&mut out, &parts.method, b"/a", &parts.headers, BodyEncoder::None);
    assert_eq!(out, "GET /a HTTP/1.1\r\nConnection: upgrade\r\nHost: h\r\nUpgrade: x\r\n\r\n");
}
