//! One stream's state (RFC 9113 section 5.1).

use std::{collections::VecDeque, task::Waker};

use attache_wire::ResponseHead;
use http::HeaderMap;

use crate::{Error, queue::ByteQueue};

/// What may come next from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedFrame {
    /// The head of a response.
    Head,
    /// Data, or trailers.
    Data,
    /// The peer has ended its side.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    /// How many handles refer to the stream. It is kept as long as there is one.
    pub(crate) handles: u32,
    /// The stream is a request that was not handled yet.
    pub(crate) is_pending: bool,
    /// How the stream ended, if not by END_STREAM of both sides.
    pub(crate) end: Option<Error>,

    pub(crate) expects: ExpectedFrame,
    /// The head of a response, until it is taken.
    pub(crate) head: Option<Box<ResponseHead>>,
    /// 1xx responses before the head.
    pub(crate) interim: VecDeque<Box<ResponseHead>>,
    pub(crate) received: ByteQueue,
    pub(crate) trailers: Option<HeaderMap>,
    /// How many bytes the peer may send (RFC 9113 section 6.9). It is below 0 after the window became smaller.
    pub(crate) receive_window: i64,
    /// Bytes that were read, or were padding, and for which no WINDOW_UPDATE has been sent yet.
    pub(crate) unreleased: u32,
    /// How many bytes are still to come according to `content-length`.
    pub(crate) left: Option<u64>,
    /// The response has no body, even if it has a `content-length`.
    pub(crate) asks_head: bool,
    /// A 2xx response opens a tunnel, even if it has a `content-length`.
    pub(crate) asks_tunnel: bool,
    /// The received bytes belong to a tunnel: they have no trailers (RFC 9113 section 8.5).
    pub(crate) is_tunnel: bool,
    /// The message must not have content.
    pub(crate) without_body: bool,
    /// The stream has no reader, so its data is dropped.
    pub(crate) unread: bool,
    /// Bytes that the reader took, see [`Window`](crate::Window).
    pub(crate) taken: u64,
    pub(crate) reader: Option<Waker>,

    /// Our side has ended.
    pub(crate) sent_end: bool,
    /// How many bytes attache may send.
    pub(crate) send_window: i64,
    /// How many bytes of the connection's capacity are reserved for this stream.
    pub(crate) granted: u32,
    /// How many bytes the stream wants to send, while it waits for capacity.
    pub(crate) wanted: u32,
    /// The stream is in the queue for capacity.
    pub(crate) is_waiting: bool,
    pub(crate) writer: Option<Waker>,
}

impl Stream {
    pub(crate) fn new(id: u32, expects: ExpectedFrame, receive_window: u32, send_window: u32) -> Self {
        Self {
            id,
            handles: 0,
            is_pending: false,
            end: None,
            expects,
            head: None,
            interim: VecDeque::new(),
            received: ByteQueue::default(),
            trailers: None,
            receive_window: receive_window.into(),
            unreleased: 0,
            left: None,
            asks_head: false,
            asks_tunnel: false,
            is_tunnel: false,
            without_body: false,
            unread: false,
            taken: 0,
            reader: None,
            sent_end: false,
            send_window: send_window.into(),
            granted: 0,
            wanted: 0,
            is_waiting: false,
            writer: None,
        }
    }

    /// Whether both sides have ended the stream, or one has broken it off.
    pub(crate) fn is_closed(&self) -> bool {
        self.end.is_some() || (self.sent_end && self.expects == ExpectedFrame::Nothing)
    }

    pub(crate) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }
}

/// Stores the waker of a task. It rarely changes, so this is usually only a comparison.
pub(crate) fn register(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) if known.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
    }
}
