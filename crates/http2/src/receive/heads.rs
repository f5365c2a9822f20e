//! Frames that carry a head or trailers: HEADERS and CONTINUATION (RFC 9113 sections 6.2 and 6.10).

use http::{Method, StatusCode};

use super::{FrameError, compression, depends_on, frame_size, protocol, without_padding};
use crate::{
    Error, ErrorCode, FrameHeader,
    head::{Block, MessagePart},
    state::{AcceptedRequest, ConnectionState, UnfinishedBlock},
    stream::ExpectedFrame,
};

/// How many more bytes a block may have than its fields. Huffman codes can be longer than the bytes that they encode.
const SPARE_BLOCK: usize = 16 << 10;

/// The most CONTINUATION frames for a block of the smallest limit (CVE-2024-27316); larger limits allow more.
const CONTINUATIONS: usize = 8;

/// The most 1xx responses that may wait for the reader of one request.
const MAX_INFORMATIONAL: usize = 16;

impl ConnectionState {
    pub(super) fn headers(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        if head.stream == 0 {
            return Err(protocol("HEADERS on stream 0"));
        }
        let (start, len) = without_padding(head, payload)?;
        let mut block = payload.get(start..start + len).unwrap_or_default();
        if head.has_priority() {
            let (priority, rest) =
                block.split_at_checked(5).ok_or_else(|| frame_size("HEADERS is too short"))?;
            block = rest;
            if depends_on(priority) == Some(head.stream) {
                // The block must still be read, for the compression table.
                self.skip(block, head)?;
                if self.is_server && head.stream % 2 == 1 {
                    self.last = self.last.max(head.stream);
                }
                return Err(FrameError::Stream(
                    head.stream,
                    ErrorCode::PROTOCOL_ERROR,
                    "a stream that depends on itself",
                ));
            }
        }
        if head.ends_headers() {
            return self.block(head, block);
        }
        self.begun = Some(UnfinishedBlock { head, block: block.to_vec(), parts: 0 });
        Ok(())
    }

    pub(super) fn continuation(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        let limit = self.settings.head_size as usize;
        let Some(begun) = self.begun.as_mut().filter(|begun| begun.head.stream == head.stream) else {
            return Err(protocol("CONTINUATION without a header block before it"));
        };
        begun.parts += 1;
        begun.block.extend_from_slice(payload);
        if begun.block.len() > limit.saturating_mul(2).saturating_add(SPARE_BLOCK)
            || begun.parts > CONTINUATIONS + limit / (4 << 10)
        {
            return Err(Error::rule(
                ErrorCode::ENHANCE_YOUR_CALM,
                "a header block in too many CONTINUATION frames",
            )
            .into());
        }
        if !head.ends_headers() {
            return Ok(());
        }
        let Some(UnfinishedBlock { head, block, .. }) = self.begun.take() else { return Ok(()) };
        self.block(head, &block)
    }

    fn skip(&mut self, block: &[u8], head: FrameHeader) -> Result<(), FrameError> {
        if !head.ends_headers() {
            return Err(protocol("a stream that depends on itself"));
        }
        self.heads.skip(block).map_err(|_| compression())
    }

    fn read(&mut self, block: &[u8], place: MessagePart) -> Result<&mut Block, FrameError> {
        self.heads.read(block, place, self.settings.head_size as usize).map_err(|_| compression())
    }

    fn block(&mut self, head: FrameHeader, block: &[u8]) -> Result<(), FrameError> {
        let id = head.stream;
        self.blocks += 1;
        let Some(key) = self.place(id) else {
            if self.is_server && id % 2 == 1 && id > self.last {
                let taken = self.request(head, block);
                if let Err(FrameError::Stream(_, _, why)) = &taken {
                    self.refused.push(why);
                }
                return taken;
            }
            if self.is_idle(id) {
                return Err(protocol("HEADERS for a stream that the peer can't open"));
            }
            self.heads.skip(block).map_err(|_| compression())?;
            return if self.was_reset(id) {
                self.late(head)
            } else if !self.is_server {
                Err(FrameError::Stream(id, ErrorCode::STREAM_CLOSED, "HEADERS after END_STREAM"))
            } else if self.was_closed(id) {
                Err(Error::rule(ErrorCode::STREAM_CLOSED, "HEADERS after END_STREAM").into())
            } else {
                Err(protocol("HEADERS for a stream number below the last one"))
            };
        };
        match self.streams.get(key).map_or(ExpectedFrame::Nothing, |stream| stream.expects) {
            ExpectedFrame::Nothing => {
                self.heads.skip(block).map_err(|_| compression())?;
                Err(FrameError::Stream(id, ErrorCode::STREAM_CLOSED, "HEADERS after END_STREAM"))
            }
            ExpectedFrame::Head => self.response(key, head, block),
            ExpectedFrame::Data => self.trailers(key, head, block),
        }
    }

    fn request(&mut self, head: FrameHeader, block: &[u8]) -> Result<(), FrameError> {
        let id = head.stream;
        if self.is_beyond(id) {
            // Section 6.8: such a stream is treated as if it had never been sent.
            self.heads.skip(block).map_err(|_| compression())?;
            return self.late(head);
        }
        self.last = id;
        let is_full = self.active >= self.settings.streams;
        let block = self.read(block, MessagePart::Request)?;
        if is_full {
            self.write_reset(id, ErrorCode::REFUSED_STREAM);
            return Ok(());
        }
        let (too_large, length) = (block.too_large, block.length);
        let malformed = |why| FrameError::Stream(id, ErrorCode::PROTOCOL_ERROR, why);
        let request = if too_large && block.malformed.is_none() {
            block.request().unwrap_or_default()
        } else {
            block.request().map_err(malformed)?
        };
        if head.ends_stream() && length.is_some_and(|length| length > 0) {
            return Err(malformed("the body is not as long as `content-length` says"));
        }
        let key = self.add(id, if head.ends_stream() { ExpectedFrame::Nothing } else { ExpectedFrame::Data });
        if let Some(stream) = self.streams.get_mut(key) {
            stream.left = length.filter(|_| !head.ends_stream());
            stream.is_pending = true;
            stream.is_tunnel = request.method == Method::CONNECT;
        }
        self.accepted.push_back(AcceptedRequest { key, head: request, too_large });
        Ok(())
    }

    fn response(&mut self, key: usize, head: FrameHeader, block: &[u8]) -> Result<(), FrameError> {
        let id = head.stream;
        let block = self.read(block, MessagePart::Response)?;
        let (too_large, length) = (block.too_large, block.length);
        let malformed = |why| FrameError::Stream(id, ErrorCode::PROTOCOL_ERROR, why);
        if too_large {
            return Err(malformed("the response's head is larger than `pool.headers_size`"));
        }
        let answer = block.response().map_err(malformed)?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if answer.status.is_informational() {
            if head.ends_stream() {
                return Err(malformed("a 1xx response that ends its stream"));
            }
            if stream.interim.len() < MAX_INFORMATIONAL {
                stream.interim.push_back(answer);
            }
            stream.wake_reader();
            return Ok(());
        }
        // Section 8.1.1. Such a length is what a GET would return, or has no meaning (RFC 9110 section 9.3.6).
        let opens_tunnel = stream.asks_tunnel && answer.status.is_success();
        let without_body = !opens_tunnel
            && (stream.asks_head
                || matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED));
        let length = length.filter(|_| !without_body && !opens_tunnel);
        if head.ends_stream() && length.is_some_and(|length| length > 0) {
            return Err(malformed("the body is not as long as `content-length` says"));
        }
        stream.left = length;
        stream.without_body = without_body;
        stream.is_tunnel = opens_tunnel;
        stream.expects = if head.ends_stream() { ExpectedFrame::Nothing } else { ExpectedFrame::Data };
        stream.head = Some(answer);
        stream.wake_reader();
        self.close_if_done(key);
        Ok(())
    }

    fn trailers(&mut self, key: usize, head: FrameHeader, block: &[u8]) -> Result<(), FrameError> {
        let id = head.stream;
        let block = self.read(block, MessagePart::Trailers)?;
        let malformed = |why| FrameError::Stream(id, ErrorCode::PROTOCOL_ERROR, why);
        if !head.ends_stream() {
            return Err(malformed("trailers that do not end their stream"));
        }
        if block.too_large {
            return Err(malformed("the trailers are larger than allowed"));
        }
        let trailers = block.trailers().map_err(malformed)?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if stream.is_tunnel {
            return Err(malformed("trailers in a tunnel"));
        }
        if stream.left.is_some_and(|left| left > 0) {
            return Err(malformed("the body is not as long as `content-length` says"));
        }
        stream.expects = ExpectedFrame::Nothing;
        stream.trailers = Some(trailers);
        stream.wake_reader();
        self.close_if_done(key);
        Ok(())
    }
}
