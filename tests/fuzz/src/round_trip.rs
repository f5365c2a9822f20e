//! Parse, edit, write, parse with httparse: the same message.

use attache_wire::{
    Fields, HeadLimits,
    outbox::BodyEncoder,
    request::{self, TargetStrictness},
    write,
};
use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

const LIMITS: HeadLimits = HeadLimits { line: 8000, size: 16000, count: 60 };

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let mut buf = BytesMut::from(data);
    let Ok(Some((_, parts))) = request::read(&mut buf, &LIMITS, TargetStrictness::Strict) else { return };
    let Some(path) = parts.uri.path_and_query().cloned() else { return };
    let mut fields = parts.headers.clone();
    fields.insert("x-added", HeaderValue::from_static("1"));
    fields.remove("x-removed");
    let raw = parts.raw_query.as_ref().and_then(|raw| raw.target(&path));
    let target = raw.as_deref().unwrap_or(path.as_str().as_bytes());
    let mut out = BytesMut::new();
    write::request(&mut out, &parts.method, target, &fields, BodyEncoder::Length(3));

    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut headers);
    match other.parse(&out) {
        Ok(httparse::Status::Complete(len)) => assert_eq!(len, out.len()),
        other => panic!("{other:?}: {:?}", out.escape_ascii().to_string()),
    }
    assert_eq!(other.method, Some(parts.method.as_str()));
    assert_eq!(other.path.map(str::as_bytes), Some(target));
    let mut read = HeaderMap::new();
    for header in other.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).unwrap();
        read.append(name, HeaderValue::from_bytes(header.value).unwrap());
    }
    let mut expected = fields;
    expected.remove("transfer-encoding");
    expected.insert("content-length", HeaderValue::from_static("3"));
    assert_eq!(Fields::from(&read), expected);
    assert_eq!(read, expected.to_map());
}
