//! Writes the frames of the connection itself.

use bytes::BytesMut;

use super::{ConnectionState, RESETS_REMEMBERED};
use crate::{Error, ErrorCode, FrameHeader, error::Initiator, frame::HEAD, kind};

impl ConnectionState {
    /// Writes bytes that are not a frame.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.out.tail().extend_from_slice(bytes);
        self.out.wrote(bytes.len());
    }

    /// Writes a complete frame and wakes the connection's task.
    pub(crate) fn frame(&mut self, head: FrameHeader, payload: &[u8]) {
        let out = self.out.tail();
        out.reserve(HEAD + payload.len());
        out.extend_from_slice(&head.bytes());
        out.extend_from_slice(payload);
        self.out.wrote(HEAD + payload.len());
        self.wake();
    }

    pub(super) fn write_settings(&mut self, all: &[(u16, u32)]) {
        let mut payload = BytesMut::with_capacity(6 * all.len());
        for (name, value) in all {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.frame(
            FrameHeader { length: payload.len(), kind: kind::SETTINGS, flags: 0, stream: 0 },
            &payload,
        );
    }

    pub(crate) fn write_window_update(&mut self, stream: u32, bytes: u32) {
        self.frame(
            FrameHeader { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream },
            &bytes.to_be_bytes(),
        );
    }

    pub(crate) fn write_go_away(&mut self, last: u32, code: ErrorCode, words: &str) {
        let payload = [&last.to_be_bytes()[..], &code.0.to_be_bytes(), words.as_bytes()].concat();
        self.frame(FrameHeader { length: payload.len(), kind: kind::GOAWAY, flags: 0, stream: 0 }, &payload);
    }

    /// Writes RST_STREAM, also for a stream that no longer exists.
    pub(crate) fn write_reset(&mut self, id: u32, code: ErrorCode) {
        if self.resets.len() >= RESETS_REMEMBERED {
            self.resets.pop_front();
        }
        self.resets.push_back(id);
        self.frame(
            FrameHeader { length: 4, kind: kind::RST_STREAM, flags: 0, stream: id },
            &code.0.to_be_bytes(),
        );
        if code.blames()
            && self.end.is_none()
            && let Err(flooded) = self.meter.charged()
        {
            self.fail(Error::go_away(ErrorCode::ENHANCE_YOUR_CALM, Initiator::Rule, flooded.to_string()));
        }
    }
}
