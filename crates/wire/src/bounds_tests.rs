//! Tests of each limit: exactly at it, and one above it.

use bytes::{Bytes, BytesMut};

use crate::{
    Fault, Fields, Limits,
    body::{Decoder, Piece},
    path_and_query,
    response::{self, Framing, MethodKind},
};

fn head(fields: &str, size: usize, count: usize) -> Result<bool, Fault> {
    let bytes = format!("HTTP/1.1 200 OK\r\n{fields}");
    response::read(&mut BytesMut::from(&*bytes), &Limits { line: 200, size, count }, MethodKind::Other)
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

fn chunked(extensions: &[usize]) -> Result<(), Fault> {
    let chunk = |len: &usize| format!("1;{}\r\na\r\n", "x".repeat(len - 1) + "y");
    let wire: String = extensions.iter().map(chunk).collect();
    let (mut decoder, mut buf) = (Decoder::from(Framing::Chunked), BytesMut::from(&*wire));
    while let Piece::Data(_) = decoder.decode(&mut buf)? {}
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
    let limits = Limits { line: 200, size: 200, count: 9 };
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
