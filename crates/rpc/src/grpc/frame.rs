//! gRPC's length-prefixed messages: one flag byte for compression, four bytes of length, the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// How many bytes precede each message.
const HEAD: usize = 5;

/// An encoded message with its prefix. `compressed` says that it was compressed with the coding that `grpc-encoding` names.
pub fn frame(message: &[u8], compressed: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + message.len());
    out.put_u8(u8::from(compressed));
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// Why bytes are not valid messages of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// A compressed message, which was not requested.
    Compressed,
    /// A message longer than this many bytes.
    TooLong(usize),
    /// The bytes aren't exactly one message.
    NotOne,
    /// The message isn't of the expected type.
    Malformed,
}

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Compressed => f.write_str("a compressed message, which was not requested"),
            Self::TooLong(longest) => write!(f, "a message of more than {longest} bytes"),
            Self::NotOne => f.write_str("the answer is not one message"),
            Self::Malformed => f.write_str("the answer is not the expected message"),
        }
    }
}

impl std::error::Error for BadFrame {}

/// Takes messages out of the bytes of a body, as the bytes arrive.
#[derive(Debug)]
pub struct MessageDecoder {
    gathered: BytesMut,
    longest: usize,
}

impl MessageDecoder {
    /// For messages of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { gathered: BytesMut::new(), longest }
    }

    /// Adds bytes of the body. Take all messages out with [`Self::next`] before adding more: then at most one message and these bytes are
    /// held.
    pub fn push(&mut self, data: &[u8]) {
        self.gathered.extend_from_slice(data);
    }

    /// The next complete message, if there is one.
    ///
    /// # Errors
    /// The message is compressed, or too long. Nothing after it can be read.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and more may come after its end")]
    pub fn next(&mut self) -> Result<Option<Bytes>, BadFrame> {
        let Some((head, _)) = self.gathered.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [compressed, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 {
            return Err(BadFrame::Compressed);
        }
        if length > self.longest {
            return Err(BadFrame::TooLong(self.longest));
        }
        if self.gathered.len() < HEAD + length {
            return Ok(None);
        }
        self.gathered.advance(HEAD);
        Ok(Some(self.gathered.split_to(length).freeze()))
    }

    /// The only message in the complete body of a unary response.
    ///
    /// # Errors
    /// There isn't exactly one message, or it is compressed or of another type.
    pub fn only<M: Message + Default>(body: &[u8]) -> Result<M, BadFrame> {
        let mut frames = Self::new(body.len());
        frames.push(body);
        let message = frames.next().map_err(|bad| match bad {
            // The limit is longer than all bytes, so the message is incomplete.
            BadFrame::TooLong(_) => BadFrame::NotOne,
            bad => bad,
        })?;
        match message {
            Some(message) if frames.gathered.is_empty() => {
                M::decode(message).map_err(|_| BadFrame::Malformed)
            }
            _ => Err(BadFrame::NotOne),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct MetadataPair {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    #[test]
    fn a_message_is_framed_as_grpc_says() {
        let pair = MetadataPair { key: "k".into(), value: b"v".to_vec() };
        let framed = frame(&pair.encode_to_vec(), false);
        assert_eq!(framed, [&[0, 0, 0, 0, 6][..], &[0x0a, 1, b'k', 0x12, 1, b'v']].concat());
        assert_eq!(MessageDecoder::only(&framed), Ok(pair));
        for cut in 0..framed.len() {
            assert_eq!(MessageDecoder::only::<MetadataPair>(&framed[..cut]), Err(BadFrame::NotOne), "{cut}");
        }
        assert_eq!(
            MessageDecoder::only::<MetadataPair>(&[&framed[..], &[0]].concat()),
            Err(BadFrame::NotOne),
            "more"
        );
        assert_eq!(MessageDecoder::only(&[0; 5]), Ok(MetadataPair::default()), "all defaults");
        assert_eq!(MessageDecoder::only::<MetadataPair>(&[1, 0, 0, 0, 0]), Err(BadFrame::Compressed));
        assert_eq!(MessageDecoder::only::<MetadataPair>(&[0, 0, 0, 0, 1, 0x0a]), Err(BadFrame::Malformed));
        let later = [&[0, 0, 0, 0, 9][..], &[0x0a, 1, b'k', 0x4a, 4, 1, 2, 3, 4]].concat();
        assert_eq!(
            MessageDecoder::only::<MetadataPair>(&later).unwrap().key,
            "k",
            "fields of later versions are skipped"
        );
        assert_eq!(frame(b"ab", true), &[1, 0, 0, 0, 2, b'a', b'b'][..]);
    }

    #[test]
    fn messages_are_returned_when_complete_and_none_is_too_long() {
        let mut frames = MessageDecoder::new(3);
        let bytes = [frame(b"abc", false), frame(b"", false), frame(b"d", false)].concat();
        let mut found = Vec::new();
        for byte in bytes {
            frames.push(&[byte]);
            while let Some(message) = frames.next().unwrap() {
                found.push(message);
            }
        }
        assert_eq!(found, [&b"abc"[..], b"", b"d"]);
        // Its length alone refuses the message: none of its bytes are collected.
        frames.push(&[0, 0, 0, 0, 4]);
        assert_eq!(frames.next(), Err(BadFrame::TooLong(3)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(message in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = MessageDecoder::only::<MetadataPair>(&frame(&message, false));
            let _ = MessageDecoder::only::<MetadataPair>(&message);
        }
    }
}
