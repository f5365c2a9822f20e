//! `grpc.health.v1.Health/Check` by hand: one string out, one enum back.
//!
//! **Source.** grpc/doc/health-checking.md; the frame is that of grpc/doc/PROTOCOL-HTTP2.md (a zero for "not compressed", the
//! length in four bytes, the message), the message that of the Protocol Buffers encoding guide. Two fields don't
//! need a compiler.

use bytes::{BufMut, Bytes, BytesMut};

/// `HealthCheckRequest { service = 1 }` in its frame.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

/// The status of a `HealthCheckResponse { status = 1 }` in its frame; `None` where it isn't one. A field that is absent is 0.
pub(super) fn status(frame: &[u8]) -> Option<u64> {
    let (head, rest) = frame.split_at_checked(5)?;
    let (compressed, length) = head.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let mut message = rest.get(..length)?;
    if *compressed != 0 {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// What a status is called.
pub(super) fn name(status: u64) -> &'static str {
    match status {
        0 => "UNKNOWN",
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "a status that health.proto doesn't have",
    }
}

fn put_varint(message: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        message.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    message.put_u8(value as u8);
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_protoc() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("shop")[..], b"\0\0\0\0\x06\x0a\x04shop");
        let long = "x".repeat(300);
        assert_eq!(&request(&long)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(status(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        assert_eq!(status(&[0, 0, 0, 0, 3, 8, 1]), None, "cut");
    }

    proptest! {
        #[test]
        fn unknown_fields_are_skipped(before in any::<u64>(), text: Vec<u8>) {
            let mut message = BytesMut::new();
            message.put_u8(0x10);
            put_varint(&mut message, before);
            message.put_u8(0x1a);
            put_varint(&mut message, text.len() as u64);
            message.put_slice(&text);
            message.put_slice(&[0x08, 2]);
            let mut frame = BytesMut::new();
            frame.put_u8(0);
            frame.put_u32(message.len() as u32);
            frame.put_slice(&message);
            prop_assert_eq!(status(&frame), Some(2));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = status(&bytes);
        }
    }
}
