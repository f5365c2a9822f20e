//! The messages of `envoy.service.ratelimit.v3`, as far as they are used, written and read by hand: two dozen fields are less than a
//! code generator and its runtime.
//!
//! Sources: envoy/service/ratelimit/v3/rls.proto, envoy/extensions/common/ratelimit/v3/ratelimit.proto; protobuf.dev, "Encoding"; gRPC over
//! HTTP2, "Length-Prefixed-Message". Unknown fields are skipped, as readers must.

use std::time::Duration;

/// One entry of a descriptor.
pub(super) type Entry = (String, String);

/// `RateLimitRequest` in a gRPC message.
pub(super) fn request(domain: &str, descriptors: &[Vec<Entry>], hits_addend: u32) -> Vec<u8> {
    // Compression flag and length come first.
    let mut out = vec![0; 5];
    bytes(&mut out, 1, domain.as_bytes());
    for entries in descriptors {
        let mut descriptor = Vec::new();
        for (key, value) in entries {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, key.as_bytes());
            bytes(&mut entry, 2, value.as_bytes());
            bytes(&mut descriptor, 1, &entry);
        }
        bytes(&mut out, 2, &descriptor);
    }
    varint(&mut out, 3 << 3);
    varint(&mut out, u64::from(hits_addend));
    let length = u32::try_from(out.len() - 5).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(1..5) {
        place.copy_from_slice(&length);
    }
    out
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// `RateLimitResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// `OVER_LIMIT`; anything else lets the request through.
    pub(super) over_limit: bool,
    pub(super) statuses: Vec<Status>,
    /// For the client.
    pub(super) response_headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// For the upstream.
    pub(super) request_headers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is known of one descriptor's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) over_limit: bool,
    /// Requests for each unit of time; `None` where the descriptor has no limit.
    pub(super) limit: Option<u32>,
    pub(super) remaining: u32,
    /// Until the bucket is full again.
    pub(super) reset: Option<Duration>,
}

/// The one message of a response's body; `None` where it isn't one.
pub(super) fn answer(body: &[u8]) -> Option<Answer> {
    let (head, message) = body.split_at_checked(5)?;
    // Nothing compressed was asked for.
    let (0, length) = (head.first()?, head.get(1..)?) else { return None };
    if u32::from_be_bytes(length.try_into().ok()?) as usize != message.len() {
        return None;
    }
    let mut answer = Answer::default();
    for field in Fields(message) {
        match field? {
            (1, Value::Number(code)) => answer.over_limit = code == OVER_LIMIT,
            (2, Value::Bytes(bytes)) => answer.statuses.push(status(bytes)?),
            (3, Value::Bytes(bytes)) => answer.response_headers.push(header(bytes)?),
            (4, Value::Bytes(bytes)) => answer.request_headers.push(header(bytes)?),
            _ => {}
        }
    }
    Some(answer)
}

const OVER_LIMIT: u64 = 2;

fn status(message: &[u8]) -> Option<Status> {
    let mut status = Status::default();
    for field in Fields(message) {
        match field? {
            (1, Value::Number(code)) => status.over_limit = code == OVER_LIMIT,
            (2, Value::Bytes(bytes)) => status.limit = Some(number(bytes, 1)? as u32),
            (3, Value::Number(remaining)) => status.remaining = remaining as u32,
            (4, Value::Bytes(bytes)) => {
                // A google.protobuf.Duration; negative ones, ten bytes long, are over.
                let seconds = number(bytes, 1)?.cast_signed().max(0).cast_unsigned();
                status.reset = Some(Duration::from_secs(seconds + u64::from(number(bytes, 2)? > 0)));
            }
            _ => {}
        }
    }
    Some(status)
}

/// A number field of a message; 0 where it isn't there.
fn number(message: &[u8], wanted: u64) -> Option<u64> {
    let mut found = 0;
    for field in Fields(message) {
        if let (field, Value::Number(value)) = field?
            && field == wanted
        {
            found = value;
        }
    }
    Some(found)
}

/// `HeaderValue`: its value is text or, in another field, bytes.
fn header(message: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for field in Fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => key = bytes.to_vec(),
            (2 | 3, Value::Bytes(bytes)) if !bytes.is_empty() => value = bytes.to_vec(),
            _ => {}
        }
    }
    Some((key, value))
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message in their order; `None` in an item is a message that is cut or no protobuf.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_the_bytes_that_protoc_makes() {
        let entries = vec![("k".to_owned(), "v".to_owned())];
        let expected = [
            &[0, 0, 0, 0, 15][..],
            &[0x0a, 1, b'd'],
            &[0x12, 8, 0x0a, 6, 0x0a, 1, b'k', 0x12, 1, b'v'],
            &[0x18, 1],
        ]
        .concat();
        assert_eq!(request("d", &[entries], 1), expected);
        assert_eq!(request("", &[], 300)[7..], [0x18, 0xac, 2]);
    }

    #[test]
    fn an_answer_is_read_and_what_is_unknown_in_it_is_skipped() {
        let mut status = vec![0x08, 2, 0x12, 4, 0x08, 10, 0x10, 2, 0x18, 3, 0x22, 4, 0x08, 7, 0x10, 1];
        status.extend([0x2d, 1, 2, 3, 4]);
        let mut message = vec![0x08, 2];
        bytes(&mut message, 2, &status);
        bytes(&mut message, 3, &[0x0a, 1, b'x', 0x12, 1, b'y']);
        bytes(&mut message, 4, &[0x0a, 1, b'a', 0x1a, 1, b'b']);
        bytes(&mut message, 9, b"later versions");
        let mut body = vec![0, 0, 0, 0, message.len() as u8];
        body.extend(&message);
        let found = answer(&body).unwrap();
        let status =
            Status { over_limit: true, limit: Some(10), remaining: 3, reset: Some(Duration::from_secs(8)) };
        assert_eq!(found.statuses, [status]);
        assert!(found.over_limit);
        assert_eq!(found.response_headers, [(b"x".to_vec(), b"y".to_vec())]);
        assert_eq!(found.request_headers, [(b"a".to_vec(), b"b".to_vec())]);
        for cut in 0..body.len() {
            assert_eq!(answer(&body[..cut]), None, "{cut}");
        }
        assert_eq!(answer(&[0; 5]), Some(Answer::default()), "all defaults");
        assert_eq!(answer(&[1, 0, 0, 0, 0]), None, "compressed");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(message in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut body = vec![0, 0, 0, 0, message.len() as u8];
            body.extend(&message);
            let _ = answer(&body);
        }
    }
}
