//! Handles of a stream.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll},
};

use attache_wire::{Fields, ResponseHead};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::{
    Error, ErrorCode,
    error::Initiator,
    state::ConnectionState,
    stream::{ExpectedFrame, register},
};

pub(crate) type SharedConnection = Rc<RefCell<ConnectionState>>;

/// A handle of a stream. When the last handle is dropped, the stream is reset if it has not ended.
#[derive(Debug)]
struct StreamHandle {
    state: SharedConnection,
    key: usize,
    id: u32,
}

impl StreamHandle {
    fn again(&self) -> Self {
        if let Some(stream) = self.state.borrow_mut().streams.get_mut(self.key) {
            stream.handles += 1;
        }
        Self { state: Rc::clone(&self.state), key: self.key, id: self.id }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.state.borrow_mut().release(self.key);
    }
}

/// The sending side of a stream.
#[derive(Debug)]
pub struct SendStream(StreamHandle);

/// The receiving side of a stream.
#[derive(Debug)]
pub struct RecvStream(StreamHandle);

/// Both sides of the stream with this key. They take over its only handle.
pub(crate) fn sides(state: &SharedConnection, key: usize) -> (SendStream, RecvStream) {
    let id = state.borrow().streams.get(key).map_or(0, |stream| stream.id);
    let one = StreamHandle { state: Rc::clone(state), key, id };
    let other = one.again();
    (SendStream(one), RecvStream(other))
}

impl SendStream {
    /// The stream's number.
    pub const fn id(&self) -> u32 {
        self.0.id
    }

    /// Sends the head of a response, or a 1xx response. `ends`: the stream ends with it. Returns false if the stream has ended.
    pub fn answer(&self, status: StatusCode, fields: &Fields, ends: bool) -> bool {
        self.0.state.borrow_mut().answer(self.0.key, status, fields, ends)
    }

    /// Sends the head of a 1xx response, or drops it if the client doesn't read and too much already waits for the socket. No client depends
    /// on a 1xx response (RFC 9110 section 15.2).
    pub fn inform(&self, status: StatusCode, fields: &Fields) {
        let state = &mut *self.0.state.borrow_mut();
        if state.has_room_for_interim() {
            state.answer(self.0.key, status, fields, false);
        }
    }

    /// Whether the stream was broken off, or its connection has ended.
    pub fn is_broken(&self) -> bool {
        self.0.state.borrow().streams.get(self.0.key).is_none_or(|stream| stream.end.is_some())
    }

    /// Why the stream was broken off, or why its connection has ended.
    pub fn broken(&self) -> Option<Error> {
        match self.0.state.borrow().streams.get(self.0.key) {
            None => Some(Error::closed()),
            Some(stream) => stream.end.clone(),
        }
    }

    /// Ready when the stream was broken off, or when its connection has ended.
    pub fn poll_end(&self, cx: &Context<'_>) -> Poll<Error> {
        let state = &mut *self.0.state.borrow_mut();
        let Some(stream) = state.streams.get_mut(self.0.key) else { return Poll::Ready(Error::closed()) };
        if let Some(error) = &stream.end {
            return Poll::Ready(error.clone());
        }
        register(&mut stream.writer, cx.waker());
        Poll::Pending
    }

    /// How many of `wanted` bytes (at least one) may be sent now. Pending as long as none may be sent.
    ///
    /// # Errors
    /// The stream was broken off, its connection has ended, or its sending side has ended.
    pub fn poll_capacity(&self, cx: &Context<'_>, wanted: usize) -> Poll<Result<usize, Error>> {
        let state = &mut *self.0.state.borrow_mut();
        let Some(stream) = state.streams.get(self.0.key) else { return Poll::Ready(Err(Error::closed())) };
        if let Some(error) = &stream.end {
            return Poll::Ready(Err(error.clone()));
        }
        if stream.sent_end {
            return Poll::Ready(Err(Error::closed()));
        }
        let wanted = wanted.clamp(1, 1 << 30) as u32;
        match state.capacity(self.0.key, wanted, cx.waker()) {
            0 => Poll::Pending,
            bytes => Poll::Ready(Ok(bytes as usize)),
        }
    }

    /// Whether the peer's window is what stops the sender now, and not the socket.
    pub fn lacks_window(&self) -> bool {
        let state = self.0.state.borrow();
        state.send_window <= 0 || state.streams.get(self.0.key).is_some_and(|stream| stream.send_window <= 0)
    }

    /// Sends data, at most as much as [`poll_capacity`](Self::poll_capacity) allowed. Returns false if the stream has ended.
    pub fn send(&self, data: Bytes, ends: bool) -> bool {
        self.0.state.borrow_mut().data_out(self.0.key, data, ends)
    }

    /// Ends this side with trailers. Returns false if the stream has ended.
    pub fn trail(&self, trailers: &HeaderMap) -> bool {
        self.0.state.borrow_mut().trail(self.0.key, trailers)
    }

    /// Breaks the stream off.
    pub fn reset(&self, code: ErrorCode) {
        self.0.state.borrow_mut().reset(self.0.key, code, Initiator::Us, "");
    }
}

impl RecvStream {
    /// The stream's number.
    pub const fn id(&self) -> u32 {
        self.0.id
    }

    /// The next 1xx response that was not taken yet.
    pub fn interim(&self) -> Option<Box<ResponseHead>> {
        self.0.state.borrow_mut().streams.get_mut(self.0.key)?.interim.pop_front()
    }

    /// The head of the response.
    ///
    /// # Errors
    /// The stream was broken off, or its connection has ended.
    pub fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Box<ResponseHead>, Error>> {
        let state = &mut *self.0.state.borrow_mut();
        let Some(stream) = state.streams.get_mut(self.0.key) else {
            return Poll::Ready(Err(Error::closed()));
        };
        if let Some(head) = stream.head.take() {
            return Poll::Ready(Ok(head));
        }
        if let Some(error) = &stream.end {
            return Poll::Ready(Err(error.clone()));
        }
        register(&mut stream.reader, cx.waker());
        Poll::Pending
    }

    /// The next data; `None` if there is no more.
    ///
    /// # Errors
    /// As for [`poll_head`](Self::poll_head). Data that arrived before the error is returned first.
    pub fn poll_data(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let state = &mut *self.0.state.borrow_mut();
        let Some(stream) = state.streams.get_mut(self.0.key) else {
            return Poll::Ready(Some(Err(Error::closed())));
        };
        if !stream.received.is_empty() {
            return Poll::Ready(Some(Ok(stream.received.pop())));
        }
        if stream.expects == ExpectedFrame::Nothing {
            return Poll::Ready(None);
        }
        if let Some(error) = &stream.end {
            return Poll::Ready(Some(Err(error.clone())));
        }
        register(&mut stream.reader, cx.waker());
        Poll::Pending
    }

    /// The trailers, after all data has been taken.
    pub fn trailers(&self) -> Option<HeaderMap> {
        self.0.state.borrow_mut().streams.get_mut(self.0.key)?.trailers.take()
    }

    /// The reader has processed so many bytes, so the peer may send more.
    pub fn took(&self, bytes: usize) {
        let state = &mut *self.0.state.borrow_mut();
        let bytes = bytes as u32;
        let Some(stream) = state.streams.get_mut(self.0.key) else { return };
        stream.taken += u64::from(bytes);
        let all = stream.taken;
        state.release_window(self.0.key, bytes);
        if state.window.took(self.0.id, bytes, all) {
            state.wake();
        }
    }

    /// Whether no more data follows.
    pub fn is_ended(&self) -> bool {
        let state = self.0.state.borrow();
        state.streams.get(self.0.key).is_none_or(|stream| {
            stream.expects == ExpectedFrame::Nothing
                && stream.received.is_empty()
                && stream.trailers.is_none()
        })
    }

    /// How many bytes are still to come according to the message's `content-length`.
    pub fn left(&self) -> Option<u64> {
        let state = self.0.state.borrow();
        let stream = state.streams.get(self.0.key)?;
        stream.left.map(|left| left + stream.received.len() as u64)
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if let Some(stream) = self.0.state.borrow_mut().streams.get_mut(self.0.key) {
            // Data that still arrives is dropped.
            stream.unread = true;
            stream.received.clear();
        }
    }
}
