//! Frames that are received (RFC 9113 sections 4 to 6).
//!
//! Rules:
//! - An error of the connection ends it with GOAWAY; an error of a stream resets only that stream (section 5.4).
//! - A frame for a stream that attache has reset was sent before the peer knew it, and is dropped. A header block is still read for the
//!   compression table, and data still counts for the connection's window.
//! - PUSH_PROMISE is an error, because attache never allows it.

mod control;
mod heads;

use bytes::{Buf as _, Bytes, BytesMut};

use self::control::priority;
use crate::{
    Error, ErrorCode, FrameHeader,
    error::Initiator,
    frame::{HEAD, MAX_FRAME},
    kind,
    queue::ByteQueue,
    state::{CONNECTION_WINDOW, ConnectionState},
    stream::ExpectedFrame,
};

/// How many uncopied pieces of one size may wait for a reader. Each piece keeps the larger buffer that it was read into.
const MAX_UNCOPIED_PIECES: usize = 4;

/// The consequence of a bad frame: the connection ends, or its stream ends.
enum FrameError {
    Connection(Error),
    Stream(u32, ErrorCode, &'static str),
}

impl From<Error> for FrameError {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}

fn protocol(why: &'static str) -> FrameError {
    Error::rule(ErrorCode::PROTOCOL_ERROR, why).into()
}

fn frame_size(why: &'static str) -> FrameError {
    Error::rule(ErrorCode::FRAME_SIZE_ERROR, why).into()
}

/// Recognises the protocol of a server whose first bytes are not a frame. Read as a frame, they would be too long.
fn another_protocol(first: &[u8]) -> Option<&'static str> {
    match first {
        [b'H', b'T', b'T', b'P', b'/', b'1', ..] => Some(
            "the response is HTTP/1, and gRPC, `h2c://` and `protocol: http2` need HTTP/2: for a service of HTTP/1 \
             write `http://` or `https://` in the upstream's address, without `protocol: http2`",
        ),
        // A record of TLS, usually an alert (RFC 8446 section 5.1).
        [0x15 | 0x16, 3, ..] => Some("the response is TLS: write `https://` in the upstream's address"),
        _ => None,
    }
}

impl ConnectionState {
    /// Takes complete frames out of what was read. The rest is the beginning of a frame. Returns how many bytes that frame will have.
    pub(crate) fn receive(&mut self, bytes: &mut BytesMut) -> usize {
        while self.end.is_none() {
            if self.preface {
                match self.read_preface(bytes) {
                    Some(0) => {}
                    Some(wanted) => return wanted,
                    None => {
                        self.fail(Error::rule(
                            ErrorCode::PROTOCOL_ERROR,
                            "the connection does not begin with the preface of HTTP/2",
                        ));
                        break;
                    }
                }
            }
            let Some(head) = bytes.first_chunk::<HEAD>().map(FrameHeader::parse) else {
                // An alert of TLS is shorter than a frame's head.
                if !self.peer.known
                    && let Some(why) = another_protocol(bytes)
                {
                    self.fail(Error::rule(ErrorCode::PROTOCOL_ERROR, why));
                    break;
                }
                return HEAD;
            };
            if head.length > MAX_FRAME {
                let other = if self.peer.known { None } else { another_protocol(bytes) };
                self.fail(match other {
                    Some(why) => Error::rule(ErrorCode::PROTOCOL_ERROR, why),
                    None => Error::rule(
                        ErrorCode::FRAME_SIZE_ERROR,
                        "a frame is larger than SETTINGS_MAX_FRAME_SIZE",
                    ),
                });
                break;
            }
            if bytes.len() < HEAD + head.length {
                return HEAD + head.length;
            }
            let received = if head.kind == kind::DATA && ByteQueue::keeps(head.length) {
                let payload = bytes.split_to(HEAD + head.length).freeze().slice(HEAD..);
                self.take(head, &payload, Some(&payload))
            } else {
                let payload = bytes.get(HEAD..HEAD + head.length).unwrap_or_default();
                let taken = self.take(head, payload, None);
                bytes.advance(HEAD + head.length);
                taken
            };
            match received {
                Ok(()) => {}
                Err(FrameError::Connection(error)) => self.fail(error),
                Err(FrameError::Stream(id, code, why)) => match self.place(id) {
                    Some(key) => self.reset(key, code, Initiator::Rule, why),
                    None => self.write_reset(id, code),
                },
            }
            if self.pending_resets > self.settings.pending_resets {
                self.fail(Error::rule(
                    ErrorCode::ENHANCE_YOUR_CALM,
                    "too many requests were reset at once (http.limits.h2_pending_resets)",
                ));
            }
        }
        bytes.clear();
        HEAD
    }

    /// Returns 0 if the preface has arrived, or else how many bytes are needed.
    fn read_preface(&mut self, bytes: &mut BytesMut) -> Option<usize> {
        let preface = crate::PREFACE;
        let known = bytes.len().min(preface.len());
        if bytes.get(..known) != preface.get(..known) {
            return None;
        }
        if known < preface.len() {
            return Some(preface.len());
        }
        bytes.advance(preface.len());
        self.preface = false;
        Some(0)
    }

    fn take(&mut self, head: FrameHeader, payload: &[u8], shared: Option<&Bytes>) -> Result<(), FrameError> {
        if let Err(flooded) = self.meter.received(head) {
            return Err(
                Error::go_away(ErrorCode::ENHANCE_YOUR_CALM, Initiator::Rule, flooded.to_string()).into()
            );
        }
        if self.begun.is_some() && head.kind != kind::CONTINUATION {
            return Err(protocol("another frame within a header block"));
        }
        if !self.peer.known && head.kind != kind::SETTINGS {
            return Err(protocol("the first frame is not SETTINGS"));
        }
        match head.kind {
            kind::DATA => self.data(head, payload, shared),
            kind::HEADERS => self.headers(head, payload),
            kind::PRIORITY => priority(head, payload),
            kind::RST_STREAM => self.rst_stream(head, payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PUSH_PROMISE => Err(protocol("PUSH_PROMISE was not allowed")),
            kind::PING => self.ping(head, payload),
            kind::GOAWAY => self.go_away(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            // Section 4.1: a frame of an unknown type is ignored.
            _ => Ok(()),
        }
    }

    /// Whether the client opened the stream after attache had sent its last GOAWAY, or before the client read that (section 6.8).
    fn is_beyond(&self, id: u32) -> bool {
        self.is_server && id % 2 == 1 && self.sent_go_away.is_some_and(|last| id > last)
    }

    /// A frame for a closed stream.
    fn late(&mut self, head: FrameHeader) -> Result<(), FrameError> {
        self.meter.late(head).map_err(|flooded| {
            Error::go_away(ErrorCode::ENHANCE_YOUR_CALM, Initiator::Rule, flooded.to_string()).into()
        })
    }

    /// Whether the stream was never opened. Streams with even numbers belong to the server, which never opens one.
    const fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || (if self.is_server { id > self.last } else { id >= self.next })
    }

    // DATA, section 6.1.

    fn data(&mut self, head: FrameHeader, payload: &[u8], shared: Option<&Bytes>) -> Result<(), FrameError> {
        let id = head.stream;
        if id == 0 || (self.is_idle(id) && !self.is_beyond(id)) {
            return Err(protocol("DATA on stream 0"));
        }
        // The connection's window is opened again as soon as data is received.
        self.taken += head.length as u32;
        if self.taken >= CONNECTION_WINDOW / 2 {
            let taken = std::mem::take(&mut self.taken);
            self.write_window_update(0, taken);
        }
        let (start, len) = without_padding(head, payload)?;
        let Some((key, stream)) = self.stream(id) else {
            return if self.is_beyond(id) || self.was_reset(id) {
                self.late(head)
            } else {
                Err(FrameError::Stream(id, ErrorCode::STREAM_CLOSED, "DATA after END_STREAM"))
            };
        };
        match stream.expects {
            ExpectedFrame::Head => {
                return Err(FrameError::Stream(id, ErrorCode::PROTOCOL_ERROR, "DATA before HEADERS"));
            }
            ExpectedFrame::Nothing => {
                return Err(FrameError::Stream(id, ErrorCode::STREAM_CLOSED, "DATA after END_STREAM"));
            }
            ExpectedFrame::Data => {}
        }
        stream.receive_window -= i64::from(head.length as u32);
        if stream.receive_window < 0 {
            return Err(FrameError::Stream(
                id,
                ErrorCode::FLOW_CONTROL_ERROR,
                "more DATA than the window allows",
            ));
        }
        if stream.without_body && len > 0 {
            return Err(FrameError::Stream(
                id,
                ErrorCode::PROTOCOL_ERROR,
                "a body in a message that must not have one",
            ));
        }
        if let Some(left) = &mut stream.left {
            let rest = left.checked_sub(len as u64).filter(|rest| *rest == 0 || !head.ends_stream());
            *left = rest.ok_or(FrameError::Stream(
                id,
                ErrorCode::PROTOCOL_ERROR,
                "the body is not as long as `content-length` says",
            ))?;
        }
        let before = (!stream.unread).then(|| stream.received.len());
        // Padding counts as taken when it arrives.
        let padding = (head.length - len) as u32;
        if stream.unread {
            stream.unreleased += len as u32;
        } else if len > 0 {
            match shared {
                // For a reader that has fallen behind, uncopied pieces would keep all the buffers that they were read into.
                Some(shared)
                    if ByteQueue::keeps(len) && stream.received.len() < MAX_UNCOPIED_PIECES * len =>
                {
                    stream.received.push(shared.slice(start..start + len));
                }
                _ => stream.received.copy(payload.get(start..start + len).unwrap_or_default()),
            }
        }
        if head.ends_stream() {
            stream.expects = ExpectedFrame::Nothing;
        }
        if len > 0 || head.ends_stream() {
            stream.wake_reader();
        }
        if let Some(before) = before {
            self.window.came(id, len as u32, before);
        }
        if padding > 0 {
            self.release_window(key, padding);
        }
        self.close_if_done(key);
        Ok(())
    }

    /// Opens a stream's window by the bytes that were taken, when they are enough for a frame.
    pub(crate) fn release_window(&mut self, key: usize, bytes: u32) {
        // A larger window counts only after it was sent to the peer: until then the peer can't send more.
        let size = self.window.size().min(self.granted_window);
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.unreleased += bytes;
        // Not for a stream that has ended, and not while a window that became smaller is still too large. The window is opened in quarters:
        // a sender that waits for the window then always has most of it under way, and the window's measurement depends on that.
        if stream.expects != ExpectedFrame::Data || stream.end.is_some() || stream.unreleased < size / 4 {
            return;
        }
        let bytes = std::mem::take(&mut stream.unreleased);
        stream.receive_window += i64::from(bytes);
        let id = stream.id;
        self.write_window_update(id, bytes);
    }
}

fn compression() -> FrameError {
    Error::rule(ErrorCode::COMPRESSION_ERROR, "an invalid header block (RFC 7541)").into()
}

/// Where the payload without padding begins, and its length.
fn without_padding(head: FrameHeader, payload: &[u8]) -> Result<(usize, usize), FrameError> {
    if !head.is_padded() {
        return Ok((0, payload.len()));
    }
    let (padding, rest) = payload
        .split_first()
        .ok_or_else(|| frame_size("a padded frame without the length of its padding"))?;
    let len = rest
        .len()
        .checked_sub((*padding).into())
        .ok_or_else(|| protocol("the padding is longer than the payload"))?;
    Ok((1, len))
}

/// The stream that a priority depends on (RFC 7540 section 5.3). RFC 9113 section 5.3.2 says that it must still be read.
fn depends_on(priority: &[u8]) -> Option<u32> {
    priority.first_chunk().map(|stream| u32::from_be_bytes(*stream) & CONNECTION_WINDOW)
}
