//! Heads of responses: nothing panics, a part of a head has no other result than the whole, and httparse reads the same
//! head.

use attache_wire::{
    HeadLimits,
    response::{self, MethodKind},
};
use bytes::BytesMut;

const LIMITS: HeadLimits = HeadLimits { line: 8000, size: 16000, count: 64 };

/// Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let mut part = BytesMut::from(&bytes[..usize::from(*cut).min(bytes.len())]);
    let early = response::read(&mut part, &LIMITS, MethodKind::Other).map(|read| read.map(|(head, _)| head));
    let mut whole = BytesMut::from(bytes);
    let read = response::read(&mut whole, &LIMITS, MethodKind::Other);
    if early != Ok(None) {
        assert_eq!(early.is_err(), read.is_err());
    }
    let Ok(Some((head, parts))) = read else { return };
    assert!(parts.headers.get_all("content-length").count() <= 1);
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Response::new(&mut headers);
    match other.parse(&bytes[..head.len]) {
        Ok(httparse::Status::Complete(len)) => {
            assert_eq!(len, head.len);
            assert_eq!(other.code, Some(head.status));
        }
        Err(httparse::Error::Version | httparse::Error::Status) => {}
        other => panic!("{other:?}"),
    }
}
