//! Frames that are sent for streams.

use attache_wire::{Fields, RequestHead};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::{
    Error, FrameHeader,
    frame::{END_HEADERS, END_STREAM, HEAD},
    head, kind,
    state::ConnectionState,
    stream::{ExpectedFrame, Stream},
};

/// A larger payload is split even if the peer would accept it, so that frames of other streams can go between the parts.
const MAX_SENT_FRAME: usize = 64 << 10;

impl ConnectionState {
    /// Opens a stream with a request. Returns the stream's key.
    ///
    /// # Errors
    /// The connection has ended, or it accepts no new streams.
    pub(crate) fn open(&mut self, request: &RequestHead, ends: bool) -> Result<usize, Error> {
        if let Some(error) = &self.end {
            return Err(error.clone());
        }
        if self.takes_none() {
            return Err(Error::closed());
        }
        let id = self.next;
        self.next += 2;
        let key = self.add(id, ExpectedFrame::Head);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.asks_head = request.method == http::Method::HEAD;
            stream.asks_tunnel = request.method == http::Method::CONNECT;
            stream.sent_end = ends;
        }
        self.write_block(id, ends, |state| {
            head::write_request(&mut state.encoder, request, state.out.tail());
        });
        self.queued = id;
        Ok(key)
    }

    /// Sends a response's head, or a 1xx response before it. Returns false if the stream has ended.
    pub(crate) fn answer(&mut self, key: usize, status: StatusCode, fields: &Fields, ends: bool) -> bool {
        let Some(id) = self.sendable(key) else { return false };
        self.write_block(id, ends, |state| {
            head::write_response(&mut state.encoder, status, fields, state.out.tail());
        });
        self.ended(key, ends);
        true
    }

    /// Sends trailers, which end our side. Returns false if the stream has ended.
    pub(crate) fn trail(&mut self, key: usize, trailers: &HeaderMap) -> bool {
        let Some(id) = self.sendable(key) else { return false };
        self.write_block(id, true, |state| {
            head::write_trailers(&mut state.encoder, trailers, state.out.tail());
        });
        self.ended(key, true);
        true
    }

    /// Sends data, at most as much as [`capacity`](Self::capacity) allowed. Returns false if the stream has ended.
    pub(crate) fn data_out(&mut self, key: usize, mut data: Bytes, ends: bool) -> bool {
        let Some(id) = self.sendable(key) else { return false };
        self.spend(key, data.len() as u32);
        self.meter.sent(data.len());
        let most = self.peer.frame.min(MAX_SENT_FRAME);
        loop {
            let part = data.split_to(data.len().min(most));
            let last = data.is_empty();
            let flags = if last && ends { END_STREAM } else { 0 };
            let head = FrameHeader { length: part.len(), kind: kind::DATA, flags, stream: id };
            self.write(&head.bytes());
            if crate::queue::ByteQueue::keeps(part.len()) {
                self.out.push(part);
            } else {
                self.write(&part);
            }
            if last {
                break;
            }
        }
        self.wake();
        self.ended(key, ends);
        true
    }

    /// Whether the peer accepts no new streams, or no stream number is left.
    pub(crate) const fn takes_none(&self) -> bool {
        self.received_go_away.is_some() || self.next > (1 << 31) - 1
    }

    /// The stream's number, as long as our side of it is open.
    fn sendable(&self, key: usize) -> Option<u32> {
        let stream = self.streams.get(key)?;
        (!stream.sent_end && stream.end.is_none()).then_some(stream.id)
    }

    fn ended(&mut self, key: usize, ends: bool) {
        if ends {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.sent_end = true;
            }
            if self.streams.get(key).is_some_and(Stream::is_closed) {
                self.close(key);
            }
        }
    }

    /// Writes HEADERS, and CONTINUATION if the block is larger than the peer accepts in one frame.
    fn write_block(&mut self, stream: u32, ends: bool, write: impl FnOnce(&mut Self)) {
        let start = self.out.tail().len();
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        let mut head = FrameHeader { length: 0, kind: kind::HEADERS, flags, stream };
        self.out.tail().extend_from_slice(&head.bytes());
        write(self);
        let most = self.peer.frame;
        let out = self.out.tail();
        head.length = out.len() - start - HEAD;
        if head.length > most {
            let block = out.split_off(start + HEAD);
            out.truncate(start);
            let parts = block.len().div_ceil(most);
            for (n, part) in block.chunks(most).enumerate() {
                let end = if n + 1 == parts { END_HEADERS } else { 0 };
                let head = match n {
                    0 => FrameHeader { length: part.len(), flags: flags & END_STREAM | end, ..head },
                    _ => FrameHeader { length: part.len(), kind: kind::CONTINUATION, flags: end, stream },
                };
                out.extend_from_slice(&head.bytes());
                out.extend_from_slice(part);
            }
        } else if let Some(begin) = out.get_mut(start..start + HEAD) {
            begin.copy_from_slice(&head.bytes());
        }
        let written = out.len() - start;
        self.out.wrote(written);
        self.wake();
    }
}
