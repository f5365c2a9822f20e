//! One connection on its socket: it passes the bytes that it reads to the [state](crate::state), and writes the state's frames.
//!
//! Frames of all streams are written together. A task that sends only wakes the connection's task, and that task runs after all other tasks
//! that were ready.
//!
//! Before a server closes its connection, it may have sent responses, or a GOAWAY that says which calls it did not process. These bytes may
//! still be in the kernel when a write fails. So a failed write doesn't end a connection to a server: the connection is read to its end,
//! which comes soon after such a failure (RFC 9113 section 6.8).

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use attache_wire::{RequestHead, buffers};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::{
    Error, ErrorCode, Meter, RecvStream, SendStream, Settings,
    error::Initiator,
    handle::{SharedConnection, sides},
    kind,
    state::{ConnectionState, PingPurpose},
    stream::register,
};

/// A read of this many bytes is probably one of many.
const BULK: usize = 8 << 10;
const BULK_READ: usize = 64 << 10;

/// The most reads in one poll, so that one peer does not block the worker.
const READS: usize = 16;

/// The most pieces in one write.
const SLICES: usize = 16;

/// How many bytes are read and thrown away after the last GOAWAY. Closing a socket with unread bytes resets it, and the reset can destroy
/// the GOAWAY on its way.
const LINGER: usize = 256 << 10;

/// A connection. It must be polled until it has ended.
#[derive(Debug)]
pub struct Connection<I> {
    state: SharedConnection,
    io: I,
    read: BytesMut,
    bulk: bool,
    /// The peer sends nothing more.
    ended: bool,
    /// The connection was not read, because too many bytes wait for the socket.
    held_back: bool,
    /// The peer has stopped reading. Bytes for it are dropped.
    peer_stopped_reading: bool,
    /// The socket's own buffers (TLS) may hold bytes.
    unflushed: bool,
    /// How many reads returned bytes.
    heard: u64,
}

/// A request that a client sent.
#[derive(Debug)]
pub struct IncomingRequest {
    /// Its head.
    pub head: Rc<RequestHead>,
    /// The stream for its response.
    pub send: SendStream,
    /// Its body.
    pub body: RecvStream,
    /// Its fields are larger than [`Settings::head_size`]. The fields beyond that size are missing.
    pub too_large: bool,
}

/// Opens streams on a connection to a server.
#[derive(Clone, Debug)]
pub struct StreamOpener(SharedConnection);

impl<I: AsyncRead + AsyncWrite + Unpin> Connection<I> {
    /// Serves a client.
    pub fn server(io: I, settings: Settings, meter: Box<dyn Meter>) -> Self {
        Self::new(io, ConnectionState::new(true, settings, meter))
    }

    /// Calls a server. It does not wait for the server's SETTINGS.
    pub fn client(io: I, settings: Settings, meter: Box<dyn Meter>) -> (Self, StreamOpener) {
        let connection = Self::new(io, ConnectionState::new(false, settings, meter));
        let caller = StreamOpener(Rc::clone(&connection.state));
        (connection, caller)
    }

    fn new(io: I, state: ConnectionState) -> Self {
        let state = Rc::new(RefCell::new(state));
        Self {
            state,
            io,
            read: BytesMut::new(),
            bulk: false,
            ended: false,
            held_back: false,
            peer_stopped_reading: false,
            unflushed: false,
            heard: 0,
        }
    }

    /// Moves frames in both directions. It is ready when the connection has ended.
    ///
    /// # Errors
    /// The connection ended with an error.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        {
            let state = &mut *self.state.borrow_mut();
            register(&mut state.task, cx.waker());
            // This poll handles changes that it makes itself; they need no wake-up.
            state.woken = true;
        }
        self.ended = self.ended || self.poll_read(cx);
        self.state.borrow_mut().follow_window();
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            self.state.borrow_mut().fail(error);
        }
        let mut state = self.state.borrow_mut();
        if self.ended && state.end.is_none() {
            if state.active == 0 {
                if state.is_server && !state.out.is_empty() {
                    // The peer may have ended only its own side. As long as the peer reads, frames are written to it.
                    state.woken = false;
                    return Poll::Pending;
                }
                state.end = Some(Error::closed());
                return Poll::Ready(Ok(()));
            }
            state.fail(Error::io(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer closed the connection while streams were open",
            )));
        }
        if let Some(error) = state.end.clone() {
            drop(state);
            let _ = self.poll_write(cx);
            return Poll::Ready(Err(error));
        }
        if state.is_done() && state.out.is_empty() {
            drop(state);
            let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            self.state.borrow_mut().end = Some(Error::closed());
            return Poll::Ready(Ok(()));
        }
        state.woken = false;
        if self.held_back && !state.is_full() {
            // The write freed buffer space. Nothing else would wake this task to read again.
            cx.waker().wake_by_ref();
        }
        if state.active == 0 && state.out.is_empty() {
            // An idle connection holds no buffer.
            state.out.rest();
        }
        Poll::Pending
    }

    /// Returns true if the peer sends nothing more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..READS {
            {
                let state = self.state.borrow();
                self.held_back = state.is_full();
                if self.held_back || state.end.is_some() {
                    return false;
                }
            }
            if self.read.capacity() == 0 {
                self.read = buffers::take();
            }
            let read = pin!(self.io.read_buf(&mut self.read)).poll(cx);
            let n = match read {
                Poll::Pending => {
                    if self.read.is_empty() {
                        buffers::put(&mut self.read);
                    }
                    return false;
                }
                Poll::Ready(Ok(0)) => return true,
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(error)) => {
                    self.state.borrow_mut().fail(Error::io(error));
                    return false;
                }
            };
            self.heard += 1;
            self.bulk = n >= BULK;
            let wanted = self.state.borrow_mut().receive(&mut self.read);
            let wanted = if self.bulk { wanted.max(BULK_READ) } else { wanted };
            if self.read.capacity() < wanted {
                self.read.reserve(wanted - self.read.len());
            }
        }
        cx.waker().wake_by_ref();
        false
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let state = &mut *self.state.borrow_mut();
        if self.peer_stopped_reading {
            state.out.clear();
            state.serve_waiting();
            return Poll::Ready(Ok(()));
        }
        let mut wrote = false;
        let result = loop {
            if state.out.is_empty() {
                break Poll::Ready(Ok(()));
            }
            let io = Pin::new(&mut self.io);
            let written = if let Some(bytes) = state.out.single() {
                io.poll_write(cx, bytes)
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let n = state.out.slices(&mut slices);
                io.poll_write_vectored(cx, slices.get(..n).unwrap_or_default())
            };
            match written {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    (wrote, self.unflushed) = (true, true);
                    state.out.advance(n);
                    state.written = state.queued;
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
            }
        };
        if wrote {
            state.serve_waiting();
        }
        let result = match result {
            Poll::Ready(Ok(())) if self.unflushed => {
                let flushed = Pin::new(&mut self.io).poll_flush(cx);
                self.unflushed = flushed.is_pending();
                flushed
            }
            result => result,
        };
        match ready!(result) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error)
                if !state.is_server
                    && matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.peer_stopped_reading = true;
                state.out.clear();
                // The socket accepts nothing more. Streams that wait for buffer space are served: their data is dropped.
                state.serve_waiting();
                state.received_go_away.get_or_insert(u32::MAX);
                cx.waker().wake_by_ref();
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(Error::io(error))),
        }
    }

    /// The next request that has arrived. Its stream may have been reset since then.
    pub fn accept(&self) -> Option<IncomingRequest> {
        let accepted = self.state.borrow_mut().take_request()?;
        let (send, body) = sides(&self.state, accepted.key);
        Some(IncomingRequest { head: accepted.head, send, body, too_large: accepted.too_large })
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn shared(&self) -> SharedConnection {
        Rc::clone(&self.state)
    }

    /// The error of a request that was reset because of its head, for the log. Each error is returned once.
    pub fn refused(&self) -> Option<&'static str> {
        self.state.borrow_mut().refused.pop()
    }

    /// Whether the peer's preface and SETTINGS have arrived.
    pub fn is_settled(&self) -> bool {
        self.state.borrow().peer.known
    }

    /// If a head, or the beginning of the connection, is incomplete: the number of heads before it.
    pub fn unfinished_head(&self) -> Option<u64> {
        let state = self.state.borrow();
        let is_unfinished = !state.peer.known
            || state.begun.is_some()
            || (!self.read.is_empty()
                && match self.read.get(3) {
                    Some(&kind) => matches!(kind, kind::HEADERS | kind::CONTINUATION),
                    // An incomplete head delays only its own stream.
                    None => state.active == 0,
                });
        is_unfinished.then_some(state.blocks)
    }

    /// Ends the connection with GOAWAY and this debug text; [`linger`](Self::linger) writes what was not written yet.
    pub fn give_up(&self, code: ErrorCode, words: &'static str) {
        self.state.borrow_mut().fail(Error::go_away(code, Initiator::Us, words));
    }

    /// Accepts no new streams. The connection ends when its last stream ends (RFC 9113 section 6.8).
    pub fn say_goodbye(&self) {
        self.state.borrow_mut().say_goodbye();
    }

    /// The process is short of memory, so the streams' windows become small.
    pub fn shrink(&self) {
        self.state.borrow_mut().shrink();
    }

    /// Sends a PING to test whether the peer still answers.
    pub fn ask(&self) {
        self.state.borrow_mut().ask(PingPurpose::Life);
    }

    /// How many reads have returned bytes. If this number changes, the peer is alive.
    pub const fn heard(&self) -> u64 {
        self.heard
    }

    /// Writes the last frames of a connection that ended with an error, and waits until the peer has read them. The caller limits the time.
    pub async fn linger(&mut self) {
        let mut left = LINGER;
        std::future::poll_fn(|cx| {
            if ready!(self.poll_write(cx)).is_err() {
                return Poll::Ready(());
            }
            let _ = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
            let mut space = [0; 4096];
            while left > 0 {
                let mut buf = ReadBuf::new(&mut space);
                match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                    Ok(()) if !buf.filled().is_empty() => left = left.saturating_sub(buf.filled().len()),
                    Ok(()) | Err(_) => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl<I> Drop for Connection<I> {
    fn drop(&mut self) {
        // Wakes the tasks that still wait, because what they wait for won't come.
        let state = &mut *self.state.borrow_mut();
        if state.end.is_none() {
            state.fail(Error::closed());
        }
        buffers::put(&mut self.read);
    }
}

impl StreamOpener {
    /// Opens a stream. `ends`: the request has no body.
    ///
    /// # Errors
    /// The connection has ended, or it [accepts no new streams](Self::goes_away).
    pub fn open(&self, head: &RequestHead, ends: bool) -> Result<(SendStream, RecvStream), Error> {
        let key = self.0.borrow_mut().open(head, ends)?;
        Ok(sides(&self.0, key))
    }

    /// How many streams the server allows at once; `None` before its SETTINGS.
    pub fn allowed(&self) -> Option<u32> {
        let state = self.0.borrow();
        (state.peer.known || state.end.is_some()).then_some(state.peer.streams)
    }

    /// Whether the server accepts no new streams: it sent GOAWAY, it stopped reading, or no stream number is left.
    pub fn goes_away(&self) -> bool {
        let state = self.0.borrow();
        state.takes_none() || state.end.is_some()
    }

    /// Whether the server's SETTINGS allow extended CONNECT (RFC 8441 section 3).
    pub fn takes_extended_connect(&self) -> bool {
        self.0.borrow().peer.extended_connect
    }

    /// Whether no byte of this stream was written to the socket.
    pub fn is_unsent(&self, stream: u32) -> bool {
        stream > self.0.borrow().written
    }

    /// Opens no more streams. The connection ends when its last stream ends.
    pub fn retire(&self) {
        let state = &mut *self.0.borrow_mut();
        if state.end.is_none() && state.sent_go_away.is_none() {
            state.sent_go_away = Some(0);
            state.write_go_away(0, ErrorCode::NO_ERROR, "");
        }
    }

    /// Ends the connection and all its streams with GOAWAY.
    pub fn give_up(&self, code: ErrorCode, words: &'static str) {
        self.0.borrow_mut().fail(Error::go_away(code, Initiator::Us, words));
    }

    /// The process is short of memory, so the streams' windows become small.
    pub fn shrink(&self) {
        self.0.borrow_mut().shrink();
    }
}
