//! Frames in a stream of bytes (RFC 9113 section 4.1).

use std::io;

/// Bytes of a frame's head.
pub const HEAD: usize = 9;

/// What a client sends first (RFC 9113 section 3.4).
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

/// END_STREAM of DATA and HEADERS; of SETTINGS and PING the same bit is ACK.
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub length: usize,
    /// One of [`kind`], or something unknown.
    pub kind: u8,
    /// Flags, by kind.
    pub flags: u8,
    /// The stream; 0 is the connection.
    pub stream: u32,
}

impl Head {
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

    /// SETTINGS and PING: it answers one of ours.
    pub const fn is_ack(self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// DATA and HEADERS: nothing follows on this stream.
    pub const fn ends_stream(self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// DATA: a part of the payload is padding.
    pub const fn is_padded(self) -> bool {
        self.flags & PADDED != 0
    }
}

/// Finds the heads of frames in bytes that come in pieces of any size.
#[derive(Debug)]
pub struct Frames {
    /// Bytes that are not looked at: of a payload, or of the preface.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

impl Frames {
    /// Begins with so many bytes that are no frame.
    pub const fn after(skip: usize) -> Self {
        Self { skip, head: [0; HEAD], filled: 0 }
    }

    /// The bytes so far ended with the end of a frame.
    pub const fn at_end_of_frame(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }

    /// Looks at the next bytes; says the head of each frame that begins in them, and what follows it there.
    pub fn look(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Head, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = bytes.get(n..).unwrap_or_default();
                continue;
            }
            let room = self.head.get_mut(self.filled..).unwrap_or_default();
            let n = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(n);
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            bytes = later;
            self.filled += n;
            if self.filled == HEAD {
                self.filled = 0;
                let head = Head::parse(&self.head);
                self.skip = head.length;
                each(head, bytes)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end on what it did not expect")]

    use super::*;

    #[test]
    fn a_head_is_written_as_it_was_read() {
        let head = Head { length: 0x01_02_03, kind: kind::DATA, flags: 9, stream: 0x7fff_fffe };
        assert_eq!(Head::parse(&head.bytes()), head);
        assert!(head.ends_stream() && head.is_padded());
    }

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        let ping =
            [Head { length: 8, kind: kind::PING, flags: 0, stream: 0 }.bytes().as_slice(), &[7; 8]].concat();
        for size in [1, 2, 5, 9, 16, 17, 18, 300] {
            let mut frames = Frames::after(PREFACE.len());
            let mut found = 0;
            let all = [PREFACE, &ping.repeat(20)].concat();
            for piece in all.chunks(size) {
                frames
                    .look(piece, |head, _| {
                        assert_eq!((head.kind, head.length), (kind::PING, 8));
                        found += 1;
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!((found, frames.at_end_of_frame()), (20, true), "pieces of {size}");
        }
    }
}
