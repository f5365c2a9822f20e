//! Knows where a frame of ours may stand between those of the h2 crate.

use std::io;

use bytes::BytesMut;

use crate::{Frames, HEAD, Head, Inlet, kind};

/// The outbound half of a connection.
#[derive(Debug)]
pub struct Outlet {
    frames: Frames,
}

impl Outlet {
    /// What a server sends.
    pub const fn of_server() -> Self {
        Self { frames: Frames::after(0) }
    }

    /// What a client sends, its preface first.
    pub const fn of_client() -> Self {
        Self { frames: Frames::after(crate::PREFACE.len()) }
    }

    /// These bytes of the h2 crate go on; `each` is told the head of each frame, and what follows it here.
    ///
    /// # Errors
    ///
    /// Those of `each`.
    pub fn look(&mut self, bytes: &[u8], each: impl FnMut(Head, &[u8]) -> io::Result<()>) -> io::Result<()> {
        self.frames.look(bytes, each)
    }

    /// Writes behind what went on so far what the inlet has to say.
    pub fn give_back(&self, inlet: &mut Inlet, out: &mut BytesMut) {
        if inlet.has_updates() && self.frames.at_end_of_frame() {
            inlet.take_updates(out);
        }
    }

    /// Writes a GOAWAY with these words behind what went on so far (RFC 9113 section 6.8), and nothing can be said after it. In the midst of a
    /// frame it can't be said.
    pub fn say_goodbye(&mut self, last_stream: u32, code: u32, words: &str, out: &mut BytesMut) {
        if self.frames.at_end_of_frame() {
            let head = Head { length: 8 + words.len(), kind: kind::GOAWAY, flags: 0, stream: 0 };
            out.reserve(HEAD + head.length);
            out.extend_from_slice(&head.bytes());
            out.extend_from_slice(&last_stream.to_be_bytes());
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(words.as_bytes());
            self.frames = Frames::after(usize::MAX);
        }
    }
}
