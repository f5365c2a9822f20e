//! Frames in a stream of bytes (RFC 9113 section 4.1).

/// Bytes of a frame's head.
pub const HEAD: usize = 9;

/// The first bytes that a client sends (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 section 6).
pub mod kind {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Parameters of SETTINGS (section 6.5.2, RFC 8441 section 3).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// The largest payload that attache accepts, and the smallest limit that a peer may set (section 4.2).
pub(crate) const MAX_FRAME: usize = 16 << 10;

/// The flag END_STREAM of DATA and HEADERS. In SETTINGS and PING the same bit is ACK.
pub(crate) const END_STREAM: u8 = 1;
/// The flag ACK of SETTINGS and PING; the same bit as END_STREAM.
pub(crate) const ACK: u8 = 1;
/// Flags of HEADERS, CONTINUATION and DATA (sections 6.1, 6.2).
pub(crate) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the payload.
    pub length: usize,
    /// One of [`kind`], or an unknown type.
    pub kind: u8,
    /// Flags. Their meaning depends on the type.
    pub flags: u8,
    /// The stream; 0 is the connection.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads a head.
    pub const fn parse(bytes: &[u8; HEAD]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes;
        Self {
            length: u32::from_be_bytes([0, high, middle, low]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    /// Writes a head; the length must be below 2^24.
    pub const fn bytes(self) -> [u8; HEAD] {
        let [_, high, middle, low] = (self.length as u32).to_be_bytes();
        let [first, second, third, last] = self.stream.to_be_bytes();
        [high, middle, low, self.kind, self.flags, first, second, third, last]
    }

    /// Whether a SETTINGS or PING frame acknowledges one of ours.
    pub const fn is_ack(self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// Whether a DATA or HEADERS frame is the last one on its stream.
    pub const fn ends_stream(self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// Whether a HEADERS or CONTINUATION frame ends its block.
    pub(crate) const fn ends_headers(self) -> bool {
        self.flags & END_HEADERS != 0
    }

    /// Whether a HEADERS frame begins with a priority.
    pub(crate) const fn has_priority(self) -> bool {
        self.flags & PRIORITY != 0
    }

    /// Whether a part of the payload of a DATA or HEADERS frame is padding.
    pub const fn is_padded(self) -> bool {
        self.flags & PADDED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_written_as_it_was_read() {
        let head = FrameHeader { length: 0x01_02_03, kind: kind::DATA, flags: 9, stream: 0x7fff_fffe };
        assert_eq!(FrameHeader::parse(&head.bytes()), head);
        assert!(head.ends_stream() && head.is_padded());
    }
}
