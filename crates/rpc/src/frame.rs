//! gRPC's length-prefixed messages: one flag byte for compression, four bytes of length, the message.

use prost::Message;

/// Bytes in front of each message.
const HEAD: usize = 5;

/// A message with its prefix.
pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut out = Vec::with_capacity(HEAD + length);
    out.push(0);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // A Vec takes everything.
    let _ = message.encode(&mut out);
    out
}

/// The one message of a unary response's body; `None` if there isn't exactly one, or if it is compressed, which was not
/// requested.
pub(crate) fn unframe<M: Message + Default>(body: &[u8]) -> Option<M> {
    let (head, message) = body.split_at_checked(HEAD)?;
    let (0, length) = (head.first()?, head.get(1..)?) else { return None };
    if u32::from_be_bytes(length.try_into().ok()?) as usize != message.len() {
        return None;
    }
    M::decode(message).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Pair {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    #[test]
    fn a_message_is_framed_as_grpc_says() {
        let pair = Pair { key: "k".into(), value: b"v".to_vec() };
        let framed = frame(&pair);
        assert_eq!(framed, [&[0, 0, 0, 0, 6][..], &[0x0a, 1, b'k', 0x12, 1, b'v']].concat());
        assert_eq!(unframe(&framed), Some(pair));
        for cut in 0..framed.len() {
            assert_eq!(unframe::<Pair>(&framed[..cut]), None, "{cut}");
        }
        assert_eq!(unframe(&[0; 5]), Some(Pair::default()), "all defaults");
        assert_eq!(unframe::<Pair>(&[1, 0, 0, 0, 0]), None, "compressed");
        let later = [&[0, 0, 0, 0, 9][..], &[0x0a, 1, b'k', 0x4a, 4, 1, 2, 3, 4]].concat();
        assert_eq!(unframe::<Pair>(&later).unwrap().key, "k", "fields of later versions are skipped");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(message in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut body = vec![0, 0, 0, 0, message.len() as u8];
            body.extend(&message);
            let _ = unframe::<Pair>(&body);
            let _ = unframe::<Pair>(&message);
        }
    }
}
