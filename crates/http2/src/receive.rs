//! Frames that come in (RFC 9113 sections 4 to 6).
//!
//! Rules:
//! - What breaks the connection's rules ends it with GOAWAY; what breaks a stream's rules resets that stream alone (section 5.4).
//! - A frame for a stream that we reset was under way, and is dropped; its block is read for the tables' sake, its data counts for the
//!   connection's window.
//! - PUSH_PROMISE is an error: we never allow it.

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;

use crate::{
    Code, Error, Head,
    error::By,
    frame::{ACK, HEAD, MAX_FRAME, setting},
    head::{Block, Place},
    kind,
    queue::Queue,
    state::{Accepted, Asks, Begun, CONNECTION_WINDOW, State},
    stream::Expects,
};

/// Bytes of a block beyond what its fields may have. Huffman codes can be longer than what they stand for.
const SPARE_BLOCK: usize = 16 << 10;

/// CONTINUATION frames for a block of the smallest size (CVE-2024-27316); larger limits allow more.
const CONTINUATIONS: usize = 8;

/// Pieces of one size that wait for a reader without having been copied. Each holds the buffer that it was read into, which is larger.
const KEPT: usize = 4;

/// 1xx answers that wait for one request's reader.
const MOST_INTERIM: usize = 16;

/// What a frame leads to: the connection's end, or a stream's.
enum Wrong {
    Connection(Error),
    Stream(u32, Code, &'static str),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}

fn protocol(why: &'static str) -> Wrong {
    Error::rule(Code::PROTOCOL_ERROR, why).into()
}

fn frame_size(why: &'static str) -> Wrong {
    Error::rule(Code::FRAME_SIZE_ERROR, why).into()
}

/// What a server speaks whose first bytes are no frame: read as one, each of these would be too long.
fn another_protocol(first: &[u8]) -> Option<&'static str> {
    match first {
        [b'H', b'T', b'T', b'P', b'/', b'1', ..] => Some(
            "the answer is HTTP/1: write `http://` or `https://` in the upstream's address, without `protocol: http2`",
        ),
        // A record of TLS, an alert above all (RFC 8446 section 5.1).
        [0x15 | 0x16, 3, ..] => Some("the answer is TLS: write `https://` in the upstream's address"),
        _ => None,
    }
}

impl State {
    /// Takes whole frames out of what was read. What is left is the begin of one; the answer is how many bytes it will have.
    pub(crate) fn receive(&mut self, bytes: &mut BytesMut) -> usize {
        while self.end.is_none() {
            if self.preface {
                match self.read_preface(bytes) {
                    Some(0) => {}
                    Some(wanted) => return wanted,
                    None => {
                        self.fail(Error::rule(
                            Code::PROTOCOL_ERROR,
                            "it did not begin with the preface of HTTP/2",
                        ));
                        break;
                    }
                }
            }
            let Some(head) = bytes.first_chunk::<HEAD>().map(Head::parse) else { return HEAD };
            if head.length > MAX_FRAME {
                let other = if self.peer.known { None } else { another_protocol(bytes) };
                self.fail(match other {
                    Some(why) => Error::rule(Code::PROTOCOL_ERROR, why),
                    None => {
                        Error::rule(Code::FRAME_SIZE_ERROR, "a frame is larger than SETTINGS_MAX_FRAME_SIZE")
                    }
                });
                break;
            }
            if bytes.len() < HEAD + head.length {
                return HEAD + head.length;
            }
            let received = if head.kind == kind::DATA && Queue::keeps(head.length) {
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
                Err(Wrong::Connection(error)) => self.fail(error),
                Err(Wrong::Stream(id, code, why)) => match self.place(id) {
                    Some(key) => self.reset(key, code, By::Rule, why),
                    None => self.write_reset(id, code),
                },
            }
            if self.pending_resets > self.settings.pending_resets {
                self.fail(Error::rule(
                    Code::ENHANCE_YOUR_CALM,
                    "too many requests were reset at once (http.limits.h2_pending_resets)",
                ));
            }
        }
        bytes.clear();
        HEAD
    }

    /// 0 where it has come; else how many bytes there must be.
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

    fn take(&mut self, head: Head, payload: &[u8], shared: Option<&Bytes>) -> Result<(), Wrong> {
        if let Err(flooded) = self.meter.received(head) {
            return Err(Error::go_away(Code::ENHANCE_YOUR_CALM, By::Rule, flooded.to_string()).into());
        }
        if self.begun.is_some() && head.kind != kind::CONTINUATION {
            return Err(protocol("another frame within a block"));
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
            // Section 4.1: ignored.
            _ => Ok(()),
        }
    }

    /// The client opened it after it was told that no more are taken, or before it read that (section 6.8).
    fn is_beyond(&self, id: u32) -> bool {
        self.is_server && id % 2 == 1 && self.goodbye.is_some_and(|last| id > last)
    }

    /// A frame for a stream that is gone.
    fn late(&mut self, head: Head) -> Result<(), Wrong> {
        self.meter
            .late(head)
            .map_err(|flooded| Error::go_away(Code::ENHANCE_YOUR_CALM, By::Rule, flooded.to_string()).into())
    }

    /// The stream was never opened. Those of an even number are a server's, which never opens one.
    const fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || (if self.is_server { id > self.last } else { id >= self.next })
    }

    // DATA, section 6.1.

    fn data(&mut self, head: Head, payload: &[u8], shared: Option<&Bytes>) -> Result<(), Wrong> {
        let id = head.stream;
        if id == 0 || (self.is_idle(id) && !self.is_beyond(id)) {
            return Err(protocol("DATA for no stream"));
        }
        // The connection's window is given back with the receipt.
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
                Err(Wrong::Stream(id, Code::STREAM_CLOSED, "DATA behind the end"))
            };
        };
        match stream.expects {
            Expects::Head => return Err(Wrong::Stream(id, Code::PROTOCOL_ERROR, "DATA before the head")),
            Expects::Nothing => return Err(Wrong::Stream(id, Code::STREAM_CLOSED, "DATA behind the end")),
            Expects::Data => {}
        }
        stream.receive_window -= i64::from(head.length as u32);
        if stream.receive_window < 0 {
            return Err(Wrong::Stream(
                id,
                Code::FLOW_CONTROL_ERROR,
                "more DATA than the window has room for",
            ));
        }
        if stream.without_body && len > 0 {
            return Err(Wrong::Stream(id, Code::PROTOCOL_ERROR, "a body where there is none"));
        }
        if let Some(left) = &mut stream.left {
            let rest = left.checked_sub(len as u64).filter(|rest| *rest == 0 || !head.ends_stream());
            *left = rest.ok_or(Wrong::Stream(
                id,
                Code::PROTOCOL_ERROR,
                "the body is not as long as `content-length` says",
            ))?;
        }
        let before = (!stream.unread).then(|| stream.received.len());
        // Padding is taken as soon as it has come.
        let padding = (head.length - len) as u32;
        if stream.unread {
            stream.unreleased += len as u32;
        } else if len > 0 {
            match shared {
                // A reader that has fallen behind would hold the whole of what each was read with.
                Some(shared) if Queue::keeps(len) && stream.received.len() < KEPT * len => {
                    stream.received.push(shared.slice(start..start + len));
                }
                _ => stream.received.copy(payload.get(start..start + len).unwrap_or_default()),
            }
        }
        if head.ends_stream() {
            stream.expects = Expects::Nothing;
        }
        if len > 0 || head.ends_stream() {
            stream.wake_reader();
        }
        if let Some(before) = before {
            self.window.came(id, len as u32, before);
        }
        if padding > 0 {
            self.give_back(key, padding);
        }
        self.close_if_done(key);
        Ok(())
    }

    /// Opens a stream's window by what was taken from it, once that is worth a frame.
    pub(crate) fn give_back(&mut self, key: usize, bytes: u32) {
        // A larger one counts once the peer was told of it: until then it can't send so much.
        let size = self.window.size().min(self.granted_window);
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.unreleased += bytes;
        // Not for one that has ended; and not while the window, which was made smaller, is still too large. By quarters, so that a sender
        // that waits for the window has most of it under way at any time, which the window's measurement looks for.
        if stream.expects != Expects::Data || stream.end.is_some() || stream.unreleased < size / 4 {
            return;
        }
        let bytes = std::mem::take(&mut stream.unreleased);
        stream.receive_window += i64::from(bytes);
        let id = stream.id;
        self.write_window_update(id, bytes);
    }

    // HEADERS and CONTINUATION, sections 6.2 and 6.10.

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream == 0 {
            return Err(protocol("HEADERS for no stream"));
        }
        let (start, len) = without_padding(head, payload)?;
        let mut block = payload.get(start..start + len).unwrap_or_default();
        if head.has_priority() {
            let (priority, rest) =
                block.split_at_checked(5).ok_or_else(|| frame_size("HEADERS is too short"))?;
            block = rest;
            if depends_on(priority) == Some(head.stream) {
                // Its block is read all the same.
                self.skip(block, head)?;
                if self.is_server && head.stream % 2 == 1 {
                    self.last = self.last.max(head.stream);
                }
                return Err(Wrong::Stream(
                    head.stream,
                    Code::PROTOCOL_ERROR,
                    "a stream that depends on itself",
                ));
            }
        }
        if head.ends_headers() {
            return self.block(head, block);
        }
        self.begun = Some(Begun { head, block: block.to_vec(), parts: 0 });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        let limit = self.settings.head_size as usize;
        let Some(begun) = self.begun.as_mut().filter(|begun| begun.head.stream == head.stream) else {
            return Err(protocol("CONTINUATION without a block"));
        };
        begun.parts += 1;
        begun.block.extend_from_slice(payload);
        if begun.block.len() > limit.saturating_mul(2).saturating_add(SPARE_BLOCK)
            || begun.parts > CONTINUATIONS + limit / (4 << 10)
        {
            return Err(
                Error::rule(Code::ENHANCE_YOUR_CALM, "a block in too many CONTINUATION frames").into()
            );
        }
        if !head.ends_headers() {
            return Ok(());
        }
        let Some(Begun { head, block, .. }) = self.begun.take() else { return Ok(()) };
        self.block(head, &block)
    }

    fn skip(&mut self, block: &[u8], head: Head) -> Result<(), Wrong> {
        if !head.ends_headers() {
            return Err(protocol("a stream that depends on itself"));
        }
        self.heads.skip(block).map_err(|_| compression())
    }

    fn read(&mut self, block: &[u8], place: Place) -> Result<&mut Block, Wrong> {
        self.heads.read(block, place, self.settings.head_size as usize).map_err(|_| compression())
    }

    fn block(&mut self, head: Head, block: &[u8]) -> Result<(), Wrong> {
        let id = head.stream;
        let Some(key) = self.place(id) else {
            if self.is_server && id % 2 == 1 && id > self.last {
                return self.request(head, block);
            }
            if self.is_idle(id) {
                return Err(protocol("HEADERS for a stream that the peer can't open"));
            }
            self.heads.skip(block).map_err(|_| compression())?;
            return if self.was_reset(id) {
                self.late(head)
            } else if !self.is_server {
                Err(Wrong::Stream(id, Code::STREAM_CLOSED, "HEADERS behind the end"))
            } else if self.was_closed(id) {
                Err(Error::rule(Code::STREAM_CLOSED, "HEADERS behind the end").into())
            } else {
                Err(protocol("HEADERS for a stream below the last one"))
            };
        };
        match self.streams.get(key).map_or(Expects::Nothing, |stream| stream.expects) {
            Expects::Nothing => {
                self.heads.skip(block).map_err(|_| compression())?;
                Err(Wrong::Stream(id, Code::STREAM_CLOSED, "HEADERS behind the end"))
            }
            Expects::Head => self.response(key, head, block),
            Expects::Data => self.trailers(key, head, block),
        }
    }

    fn request(&mut self, head: Head, block: &[u8]) -> Result<(), Wrong> {
        let id = head.stream;
        if self.is_beyond(id) {
            // Section 6.8: it is as if it had never been sent.
            self.heads.skip(block).map_err(|_| compression())?;
            return self.late(head);
        }
        self.last = id;
        let is_full = self.active >= self.settings.streams;
        let block = self.read(block, Place::Request)?;
        if is_full {
            self.write_reset(id, Code::REFUSED_STREAM);
            return Ok(());
        }
        let (too_large, length) = (block.too_large, block.length);
        let malformed = |why| Wrong::Stream(id, Code::PROTOCOL_ERROR, why);
        let request = if too_large && block.malformed.is_none() {
            block.request().unwrap_or_default()
        } else {
            block.request().map_err(malformed)?
        };
        if head.ends_stream() && length.is_some_and(|length| length > 0) {
            return Err(malformed("the body is not as long as `content-length` says"));
        }
        let key = self.add(id, if head.ends_stream() { Expects::Nothing } else { Expects::Data });
        if let Some(stream) = self.streams.get_mut(key) {
            stream.left = length.filter(|_| !head.ends_stream());
            stream.is_pending = true;
        }
        self.accepted.push_back(Accepted { key, head: request, too_large });
        Ok(())
    }

    fn response(&mut self, key: usize, head: Head, block: &[u8]) -> Result<(), Wrong> {
        let id = head.stream;
        let block = self.read(block, Place::Response)?;
        let (too_large, length) = (block.too_large, block.length);
        let malformed = |why| Wrong::Stream(id, Code::PROTOCOL_ERROR, why);
        if too_large {
            return Err(malformed("the answer's head is larger than `pool.headers_size`"));
        }
        let answer = block.response().map_err(malformed)?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if answer.status.is_informational() {
            if head.ends_stream() {
                return Err(malformed("an answer of 1xx that ends its stream"));
            }
            if stream.interim.len() < MOST_INTERIM {
                stream.interim.push_back(answer);
            }
            stream.wake_reader();
            return Ok(());
        }
        // Section 8.1.1. A length says what there would be, or nothing (RFC 9110 section 9.3.6).
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
        stream.expects = if head.ends_stream() { Expects::Nothing } else { Expects::Data };
        stream.head = Some(answer);
        stream.wake_reader();
        self.close_if_done(key);
        Ok(())
    }

    fn trailers(&mut self, key: usize, head: Head, block: &[u8]) -> Result<(), Wrong> {
        let id = head.stream;
        let block = self.read(block, Place::Trailers)?;
        let malformed = |why| Wrong::Stream(id, Code::PROTOCOL_ERROR, why);
        if !head.ends_stream() {
            return Err(malformed("trailers that do not end their stream"));
        }
        if block.too_large {
            return Err(malformed("the trailers are larger than allowed"));
        }
        let trailers = block.trailers().map_err(malformed)?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if stream.left.is_some_and(|left| left > 0) {
            return Err(malformed("the body is not as long as `content-length` says"));
        }
        stream.expects = Expects::Nothing;
        stream.trailers = Some(trailers);
        stream.wake_reader();
        self.close_if_done(key);
        Ok(())
    }

    // RST_STREAM, section 6.4.

    fn rst_stream(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        let Ok(code) = payload.try_into().map(u32::from_be_bytes) else {
            return Err(frame_size("RST_STREAM has not four bytes"));
        };
        if head.stream == 0 || (self.is_idle(head.stream) && !self.is_beyond(head.stream)) {
            return Err(protocol("RST_STREAM for no stream"));
        }
        let Some((key, stream)) = self.stream(head.stream) else { return Ok(()) };
        stream.end = Some(Error::reset(Code(code), By::Peer, ""));
        stream.wake();
        self.close(key);
        Ok(())
    }

    // SETTINGS, section 6.5.

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream != 0 {
            return Err(protocol("SETTINGS for a stream"));
        }
        if head.is_ack() {
            return self.settings_acknowledged(payload);
        }
        let (all, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(frame_size("SETTINGS has not six bytes for each"));
        }
        let mut window = self.peer.window;
        for &[high, low, value @ ..] in all {
            let value = u32::from_be_bytes(value);
            match u16::from_be_bytes([high, low]) {
                setting::INITIAL_WINDOW_SIZE if value > CONNECTION_WINDOW => {
                    return Err(Error::rule(
                        Code::FLOW_CONTROL_ERROR,
                        "SETTINGS_INITIAL_WINDOW_SIZE is above 2^31 - 1",
                    )
                    .into());
                }
                setting::INITIAL_WINDOW_SIZE => window = value,
                name => self.setting(name, value)?,
            }
        }
        self.resize_windows(window)?;
        self.peer.known = true;
        self.frame(Head { length: 0, kind: kind::SETTINGS, flags: ACK, stream: 0 }, &[]);
        Ok(())
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Wrong> {
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.limit(value),
            setting::ENABLE_PUSH if value > 1 || (value == 1 && !self.is_server) => {
                return Err(protocol("SETTINGS_ENABLE_PUSH has a value that it may not have"));
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.streams = value,
            setting::MAX_FRAME_SIZE => {
                if !(MAX_FRAME..1 << 24).contains(&(value as usize)) {
                    return Err(protocol("SETTINGS_MAX_FRAME_SIZE has a value that it may not have"));
                }
                self.peer.frame = value as usize;
            }
            setting::ENABLE_CONNECT_PROTOCOL => {
                if value > 1 || (value == 0 && self.peer.extended_connect) {
                    return Err(protocol(
                        "SETTINGS_ENABLE_CONNECT_PROTOCOL has a value that it may not have",
                    ));
                }
                self.peer.extended_connect = value == 1;
            }
            // SETTINGS_MAX_HEADER_LIST_SIZE is advice, and what is unknown is ignored.
            _ => {}
        }
        Ok(())
    }

    /// The streams' windows follow SETTINGS_INITIAL_WINDOW_SIZE (section 6.9.2): once for a frame, however often it says another one, since
    /// each stream is looked at.
    fn resize_windows(&mut self, window: u32) -> Result<(), Wrong> {
        let change = i64::from(window) - i64::from(self.peer.window);
        if change == 0 {
            return Ok(());
        }
        self.peer.window = window;
        for (_, stream) in &mut self.streams {
            if stream.is_closed() {
                continue;
            }
            stream.send_window += change;
            if stream.send_window > i64::from(CONNECTION_WINDOW) {
                return Err(
                    Error::rule(Code::FLOW_CONTROL_ERROR, "a stream's window is above 2^31 - 1").into()
                );
            }
            if change > 0 && stream.send_window > 0 {
                stream.wake_writer();
            }
        }
        Ok(())
    }

    fn settings_acknowledged(&mut self, payload: &[u8]) -> Result<(), Wrong> {
        if !payload.is_empty() {
            return Err(frame_size("an acknowledgement of SETTINGS with a payload"));
        }
        let Some(size) = self.unacknowledged.pop_front() else {
            return Err(protocol("an acknowledgement of SETTINGS that were not sent"));
        };
        self.grant_window(size);
        self.tell_window();
        Ok(())
    }

    // PING, section 6.7.

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream != 0 {
            return Err(protocol("PING for a stream"));
        }
        if payload.len() != 8 {
            return Err(frame_size("PING has not eight bytes"));
        }
        if !head.is_ack() {
            self.frame(Head { flags: ACK, ..head }, payload);
            return Ok(());
        }
        match payload {
            [b'a', b't', b't', b'a', b'c', b'h', b'e', what] if *what == Asks::Path as u8 => {
                self.window.answered()
            }
            [b'a', b't', b't', b'a', b'c', b'h', b'e', what] if *what == Asks::Goodbye as u8 => {
                if self.goodbye.is_some_and(|last| last > self.last) {
                    self.goodbye = Some(self.last);
                    self.write_go_away(self.last, Code::NO_ERROR, "");
                }
                self.wake();
            }
            _ => {}
        }
        Ok(())
    }

    // GOAWAY, section 6.8.

    fn go_away(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        if head.stream != 0 {
            return Err(protocol("GOAWAY for a stream"));
        }
        let (Some(&last), Some(&code)) =
            (payload.first_chunk(), payload.get(4..).and_then(<[u8]>::first_chunk))
        else {
            return Err(frame_size("GOAWAY has less than eight bytes"));
        };
        let (last, code) = (u32::from_be_bytes(last) & CONNECTION_WINDOW, Code(u32::from_be_bytes(code)));
        let words = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
        let error = Error::go_away(code, By::Peer, words.trim().chars().take(200).collect::<String>());
        let last = self.went_away.map_or(last, |before| before.min(last));
        self.went_away = Some(last);
        // Those that the peer won't work on; another connection may take them.
        let refused: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| !self.is_server && stream.id > last)
            .map(|(key, _)| key)
            .collect();
        for key in refused {
            if let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_closed()) {
                stream.end = Some(error.clone());
                stream.wake();
            }
            self.close(key);
        }
        self.wake();
        Ok(())
    }

    // WINDOW_UPDATE, section 6.9.

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Wrong> {
        let Ok(bytes) = payload.try_into().map(u32::from_be_bytes) else {
            return Err(frame_size("WINDOW_UPDATE has not four bytes"));
        };
        let (id, bytes) = (head.stream, bytes & CONNECTION_WINDOW);
        if id == 0 {
            if bytes == 0 {
                return Err(protocol("WINDOW_UPDATE of nothing"));
            }
            self.send_window += i64::from(bytes);
            if self.send_window > i64::from(CONNECTION_WINDOW) {
                return Err(Error::rule(
                    Code::FLOW_CONTROL_ERROR,
                    "the connection's window is above 2^31 - 1",
                )
                .into());
            }
            self.serve_line();
            return Ok(());
        }
        if self.is_idle(id) && !self.is_beyond(id) {
            return Err(protocol("WINDOW_UPDATE for no stream"));
        }
        let Some((_, stream)) = self.stream(id) else { return Ok(()) };
        if bytes == 0 {
            return Err(Wrong::Stream(id, Code::PROTOCOL_ERROR, "WINDOW_UPDATE of nothing"));
        }
        stream.send_window += i64::from(bytes);
        if stream.send_window > i64::from(CONNECTION_WINDOW) {
            return Err(Wrong::Stream(id, Code::FLOW_CONTROL_ERROR, "a stream's window is above 2^31 - 1"));
        }
        if stream.send_window > 0 {
            stream.wake_writer();
        }
        Ok(())
    }
}

fn compression() -> Wrong {
    Error::rule(Code::COMPRESSION_ERROR, "a block that is none (RFC 7541)").into()
}

/// Where the payload begins that is no padding, and how long it is.
fn without_padding(head: Head, payload: &[u8]) -> Result<(usize, usize), Wrong> {
    if !head.is_padded() {
        return Ok((0, payload.len()));
    }
    let (padding, rest) =
        payload.split_first().ok_or_else(|| frame_size("a padded frame without the padding's length"))?;
    let len =
        rest.len().checked_sub((*padding).into()).ok_or_else(|| protocol("more padding than payload"))?;
    Ok((1, len))
}

/// The stream of a priority (RFC 7540 section 5.3, which RFC 9113 section 5.3.2 has still to be read).
fn depends_on(priority: &[u8]) -> Option<u32> {
    priority.first_chunk().map(|stream| u32::from_be_bytes(*stream) & CONNECTION_WINDOW)
}

fn priority(head: Head, payload: &[u8]) -> Result<(), Wrong> {
    if head.stream == 0 {
        return Err(protocol("PRIORITY for no stream"));
    }
    if payload.len() != 5 {
        return Err(Wrong::Stream(head.stream, Code::FRAME_SIZE_ERROR, "PRIORITY has not five bytes"));
    }
    if depends_on(payload) == Some(head.stream) {
        return Err(Wrong::Stream(head.stream, Code::PROTOCOL_ERROR, "a stream that depends on itself"));
    }
    Ok(())
}
