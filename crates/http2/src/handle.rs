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
    Code, Error,
    error::Initiator,
    state::State,
    stream::{Expects, register},
};

pub(crate) type Shared = Rc<RefCell<State>>;

/// One of a stream's handles. The last one that is dropped resets the stream, if it has not ended.
#[derive(Debug)]
struct Handle {
    state: Shared,
    key: usize,
    id: u32,
}

impl Handle {
    fn again(&self) -> Self {
        if let Some(stream) = self.state.borrow_mut().streams.get_mut(self.key) {
            stream.handles += 1;
        }
        Self { state: Rc::clone(&self.state), key: self.key, id: self.id }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.state.borrow_mut().release(self.key);
    }
}

/// The side of a stream that is sent.
#[derive(Debug)]
pub struct SendStream(Handle);

/// The side of a stream that is received.
#[derive(Debug)]
pub struct RecvStream(Handle);

/// Both sides of the stream with this place, whose one handle is taken over.
pub(crate) fn sides(state: &Shared, key: usize) -> (SendStream, RecvStream) {
    let id = state.borrow().streams.get(key).map_or(0, |stream| stream.id);
    let one = Handle { state: Rc::clone(state), key, id };
    let other = one.again();
    (SendStream(one), RecvStream(other))
}

impl SendStream {
    /// The stream's number.
    pub const fn id(&self) -> u32 {
        self.0.id
    }

    /// Sends the head of an answer, also of one of 1xx. `ends`: nothing follows. False where the stream has ended.
    pub fn answer(&self, status: StatusCode, fields: &Fields, ends: bool) -> bool {
        self.0.state.borrow_mut().answer(self.0.key, status, fields, ends)
    }

    /// The stream was broken off, or its connection has ended.
    pub fn is_broken(&self) -> bool {
        self.0.state.borrow().streams.get(self.0.key).is_none_or(|stream| stream.end.is_some())
    }

    /// How the stream was broken off, or its connection has ended.
    pub fn broken(&self) -> Option<Error> {
        match self.0.state.borrow().streams.get(self.0.key) {
            None => Some(Error::closed()),
            Some(stream) => stream.end.clone(),
        }
    }

    /// Is ready when the stream was broken off, or its connection has ended.
    pub fn poll_end(&self, cx: &Context<'_>) -> Poll<Error> {
        let state = &mut *self.0.state.borrow_mut();
        let Some(stream) = state.streams.get_mut(self.0.key) else { return Poll::Ready(Error::closed()) };
        if let Some(error) = &stream.end {
            return Poll::Ready(error.clone());
        }
        register(&mut stream.writer, cx.waker());
        Poll::Pending
    }

    /// How many of `wanted` bytes (at least one) may be sent now. Pending while none may.
    ///
    /// # Errors
    /// The stream was broken off, or its connection or this side has ended.
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

    /// It is the peer's window that lets nothing be sent now, and not the socket.
    pub fn lacks_window(&self) -> bool {
        let state = self.0.state.borrow();
        state.send_window <= 0 || state.streams.get(self.0.key).is_some_and(|stream| stream.send_window <= 0)
    }

    /// Sends data, no more than [`poll_capacity`](Self::poll_capacity) said. False where the stream has ended.
    pub fn send(&self, data: Bytes, ends: bool) -> bool {
        self.0.state.borrow_mut().data_out(self.0.key, data, ends)
    }

    /// Ends this side with trailers. False where the stream has ended.
    pub fn trail(&self, trailers: &HeaderMap) -> bool {
        self.0.state.borrow_mut().trail(self.0.key, trailers)
    }

    /// Breaks the stream off.
    pub fn reset(&self, code: Code) {
        self.0.state.borrow_mut().reset(self.0.key, code, Initiator::Us, "");
    }
}

impl RecvStream {
    /// The stream's number.
    pub const fn id(&self) -> u32 {
        self.0.id
    }

    /// The next 1xx answer that was not taken yet.
    pub fn interim(&self) -> Option<Box<ResponseHead>> {
        self.0.state.borrow_mut().streams.get_mut(self.0.key)?.interim.pop_front()
    }

    /// The head of the answer.
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

    /// The next data; `None` where no more comes.
    ///
    /// # Errors
    /// As [`poll_head`](Self::poll_head). What came before is given first.
    pub fn poll_data(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let state = &mut *self.0.state.borrow_mut();
        let Some(stream) = state.streams.get_mut(self.0.key) else {
            return Poll::Ready(Some(Err(Error::closed())));
        };
        if !stream.received.is_empty() {
            return Poll::Ready(Some(Ok(stream.received.pop())));
        }
        if stream.expects == Expects::Nothing {
            return Poll::Ready(None);
        }
        if let Some(error) = &stream.end {
            return Poll::Ready(Some(Err(error.clone())));
        }
        register(&mut stream.reader, cx.waker());
        Poll::Pending
    }

    /// The trailers, behind all data.
    pub fn trailers(&self) -> Option<HeaderMap> {
        self.0.state.borrow_mut().streams.get_mut(self.0.key)?.trailers.take()
    }

    /// The reader has processed so many bytes: the peer may send more.
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

    /// Nothing follows what was taken.
    pub fn is_ended(&self) -> bool {
        let state = self.0.state.borrow();
        state.streams.get(self.0.key).is_none_or(|stream| {
            stream.expects == Expects::Nothing && stream.received.is_empty() && stream.trailers.is_none()
        })
    }

    /// Bytes that are still to come by the message's `content-length`.
    pub fn left(&self) -> Option<u64> {
        let state = self.0.state.borrow();
        let stream = state.streams.get(self.0.key)?;
        stream.left.map(|left| left + stream.received.len() as u64)
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if let Some(stream) = self.0.state.borrow_mut().streams.get_mut(self.0.key) {
            // What still comes is dropped as it comes.
            stream.unread = true;
            stream.received.clear();
        }
    }
}
