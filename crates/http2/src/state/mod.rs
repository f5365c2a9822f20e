//! One connection's state, without input or output: bytes that were read go in, bytes that are to be written come out.

#[cfg(any(test, feature = "fuzzing"))]
mod audit;
mod capacity;
mod write;

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    task::Waker,
};

use attache_wire::RequestHead;
use slab::Slab;

use crate::{
    Code, Error, Head, Meter, Window,
    error::Initiator,
    frame::{MAX_FRAME, setting},
    head, hpack, kind,
    queue::Queue,
    stream::{Expects, Stream},
};

/// The connection's receive window: the largest that there is (RFC 9113 section 6.9.1).
///
/// So a stream whose reader is slow delays only itself (section 5.2.2): its bytes wait within its own window, and the
/// connection's window is opened again when they are received.
/// One connection can make us hold at most the streams' windows times the number of streams.
pub const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Where both windows begin (section 6.9.2).
pub(crate) const FIRST_WINDOW: u32 = 65_535;

/// Beyond the room for DATA, bytes of answers to frames that may wait for the socket: above it the peer lets us answer without reading the
/// answers, and no frame is read until it does.
const MOST_ANSWERS: usize = 64 << 10;

/// Streams that have ended, and those that we reset, are remembered for a time: frames that were under way to them are no error.
const CLOSED_REMEMBERED: usize = 32;
const RESETS_REMEMBERED: usize = 1024;

/// How a connection is set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Streams that a client may have open.
    pub streams: u32,
    /// A stream's first receive window, in bytes.
    pub window: u32,
    /// What it may grow to.
    pub window_most: u32,
    /// Bytes of a head's fields, with 32 for each (SETTINGS_MAX_HEADER_LIST_SIZE).
    pub head_size: u32,
    /// Requests that were reset before they were looked at, at one moment.
    pub pending_resets: usize,
    /// Bytes of DATA that may wait for the socket, of all streams together.
    pub send_buffer: usize,
    /// A server tells its clients that they may open WebSockets (SETTINGS_ENABLE_CONNECT_PROTOCOL, RFC 8441).
    pub extended_connect: bool,
}

/// The peer's SETTINGS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) streams: u32,
    pub(crate) window: u32,
    pub(crate) frame: usize,
    pub(crate) extended_connect: bool,
    /// They have come.
    pub(crate) known: bool,
}

/// Hashes a stream's number: a client can choose only odd numbers that grow.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0 ^ u64::from(n)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

/// A request that has come.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) key: usize,
    pub(crate) head: Rc<RequestHead>,
    /// Its fields are larger than allowed.
    pub(crate) too_large: bool,
}

/// A block whose end has not come.
#[derive(Debug)]
pub(crate) struct UnfinishedBlock {
    pub(crate) head: Head,
    pub(crate) block: Vec<u8>,
    pub(crate) parts: usize,
}

/// What a PING of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingPurpose {
    /// To measure the path: see [`Window`].
    Path = 1,
    /// To see whether the peer still answers.
    Life = 2,
    /// To know that the peer has read a GOAWAY (section 6.8).
    Goodbye = 3,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) is_server: bool,
    pub(crate) settings: Settings,
    pub(crate) peer: Peer,
    pub(crate) streams: Slab<Stream>,
    /// Their places by number.
    pub(crate) places: HashMap<u32, usize, BuildHasherDefault<NumberHasher>>,
    /// Streams that the peer opened and that are not closed.
    pub(crate) active: u32,
    /// The highest stream that the peer opened, and that we did.
    pub(crate) last: u32,
    pub(crate) next: u32,
    /// Requests that were not taken yet.
    pub(crate) accepted: VecDeque<Accepted>,
    /// How the connection ended.
    pub(crate) end: Option<Error>,
    pub(crate) meter: Box<dyn Meter>,
    pub(crate) window: Window,
    /// Requests that were reset and still stand in `accepted`.
    pub(crate) pending_resets: usize,

    // What comes in.
    /// The preface is still to come.
    pub(crate) preface: bool,
    pub(crate) heads: head::Reader,
    /// A block whose end has not come.
    pub(crate) begun: Option<UnfinishedBlock>,
    /// Blocks that were read.
    pub(crate) blocks: u64,
    /// Errors of requests that were reset because of their head, not reported yet.
    pub(crate) refused: Vec<&'static str>,
    /// Bytes that came since the connection's window was opened the last time.
    pub(crate) taken: u32,
    /// SETTINGS of ours that the peer has not acknowledged: the streams' windows in them.
    pub(crate) unacknowledged: VecDeque<u32>,
    /// The streams' window that the peer must keep to.
    pub(crate) granted_window: u32,
    closed: VecDeque<u32>,
    resets: VecDeque<u32>,

    // What goes out.
    pub(crate) out: Queue,
    pub(crate) encoder: hpack::Encoder,
    /// Bytes of DATA that the peer takes from all streams together.
    pub(crate) send_window: i64,
    /// Of these, and of the room before the socket, bytes that are kept for streams.
    reserved: u32,
    /// Streams that wait for either.
    line: VecDeque<usize>,
    /// The highest stream whose head was written, and of which the socket may have a byte.
    pub(crate) queued: u32,
    pub(crate) written: u32,
    /// The connection's task.
    pub(crate) task: Option<Waker>,
    /// It was woken since it ran.
    pub(crate) woken: bool,

    // The end.
    /// The last stream of the GOAWAY that we sent.
    pub(crate) goodbye: Option<u32>,
    /// The last stream of the GOAWAY that came.
    pub(crate) went_away: Option<u32>,
}

impl State {
    pub(crate) fn new(is_server: bool, settings: Settings, meter: Box<dyn Meter>) -> Self {
        let mut state = Self {
            is_server,
            settings,
            peer: Peer {
                streams: u32::MAX,
                window: FIRST_WINDOW,
                frame: MAX_FRAME,
                extended_connect: false,
                known: false,
            },
            streams: Slab::new(),
            places: HashMap::default(),
            active: 0,
            last: 0,
            next: 1,
            accepted: VecDeque::new(),
            end: None,
            meter,
            window: Window::new(settings.window, settings.window_most),
            pending_resets: 0,
            preface: is_server,
            heads: head::Reader::default(),
            begun: None,
            blocks: 0,
            refused: Vec::new(),
            taken: 0,
            unacknowledged: VecDeque::new(),
            granted_window: FIRST_WINDOW,
            closed: VecDeque::new(),
            resets: VecDeque::new(),
            out: Queue::default(),
            encoder: hpack::Encoder::default(),
            send_window: FIRST_WINDOW.into(),
            reserved: 0,
            line: VecDeque::new(),
            queued: 0,
            written: 0,
            task: None,
            woken: false,
            goodbye: None,
            went_away: None,
        };
        state.begin();
        state
    }

    /// The preface and the first SETTINGS (RFC 9113 section 3.4).
    fn begin(&mut self) {
        let mut all = vec![
            (setting::INITIAL_WINDOW_SIZE, self.settings.window),
            (setting::MAX_HEADER_LIST_SIZE, self.settings.head_size),
        ];
        if self.is_server {
            all.push((setting::MAX_CONCURRENT_STREAMS, self.settings.streams));
            if self.settings.extended_connect {
                all.push((setting::ENABLE_CONNECT_PROTOCOL, 1));
            }
        } else {
            self.write(crate::PREFACE);
            all.push((setting::ENABLE_PUSH, 0));
        }
        self.write_settings(&all);
        self.tell(self.settings.window);
        self.write_window_update(0, CONNECTION_WINDOW - FIRST_WINDOW);
    }

    /// Asks the connection's task to write what is there, or to see what has changed.
    pub(crate) fn wake(&mut self) {
        if !std::mem::replace(&mut self.woken, true)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }

    /// No more frames are read until some of what waits was written.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() > self.settings.send_buffer + MOST_ANSWERS
    }

    pub(crate) fn place(&self, id: u32) -> Option<usize> {
        self.places.get(&id).copied()
    }

    pub(crate) fn stream(&mut self, id: u32) -> Option<(usize, &mut Stream)> {
        let key = self.place(id)?;
        self.streams.get_mut(key).map(|stream| (key, stream))
    }

    /// Adds a stream with one handle.
    pub(crate) fn add(&mut self, id: u32, expects: Expects) -> usize {
        let mut stream = Stream::new(id, expects, self.granted_window, self.peer.window);
        stream.handles = 1;
        let key = self.streams.insert(stream);
        self.places.insert(id, key);
        self.active += 1;
        key
    }

    /// The next request that has come; its one handle is the caller's.
    pub(crate) fn take_request(&mut self) -> Option<Accepted> {
        let accepted = self.accepted.pop_front()?;
        if let Some(stream) = self.streams.get_mut(accepted.key) {
            stream.is_pending = false;
            if stream.end.is_some() {
                self.pending_resets = self.pending_resets.saturating_sub(1);
            }
        }
        Some(accepted)
    }

    /// A stream has come to its end: it no longer counts.
    pub(crate) fn close(&mut self, key: usize) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let id = stream.id;
        if self.places.remove(&id).is_none() {
            return;
        }
        let granted = std::mem::take(&mut stream.granted);
        let unused = stream.handles == 0;
        if std::mem::take(&mut stream.in_line) {
            self.line.retain(|waits| *waits != key);
        }
        if stream.is_pending && stream.end.is_some() {
            self.pending_resets += 1;
        }
        self.active -= 1;
        self.reserved -= granted;
        self.window.forget(id);
        if self.closed.len() >= CLOSED_REMEMBERED {
            self.closed.pop_front();
        }
        self.closed.push_back(id);
        if unused {
            self.streams.remove(key);
        }
        if granted > 0 {
            self.serve_line();
        }
        if self.goodbye.is_some() && self.active == 0 {
            self.wake();
        }
    }

    /// Closes a stream if both sides have ended it.
    pub(crate) fn close_if_done(&mut self, key: usize) {
        if self.streams.get(key).is_some_and(Stream::is_closed) {
            self.close(key);
        }
    }

    /// Ends a stream with RST_STREAM.
    pub(crate) fn reset(&mut self, key: usize, code: Code, by: Initiator, why: &'static str) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.is_closed() {
            return;
        }
        stream.end = Some(Error::reset(code, by, why));
        if by == Initiator::Rule {
            stream.received.clear();
        }
        stream.wake();
        let id = stream.id;
        self.write_reset(id, code);
        self.close(key);
    }

    /// Whether we reset this stream, so that what comes for it was under way.
    pub(crate) fn was_reset(&self, id: u32) -> bool {
        self.resets.iter().rev().any(|reset| *reset == id)
    }

    /// Whether it was open and has ended not long ago.
    pub(crate) fn was_closed(&self, id: u32) -> bool {
        self.closed.contains(&id)
    }

    /// A handle was dropped. With the last one the stream is removed.
    pub(crate) fn release(&mut self, key: usize) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.handles = stream.handles.saturating_sub(1);
        if stream.handles > 0 {
            return;
        }
        if stream.is_closed() || self.end.is_some() {
            let id = stream.id;
            if self.places.get(&id) == Some(&key) {
                self.close(key);
            } else {
                self.streams.remove(key);
            }
            return;
        }
        // RFC 9113 section 8.1: the answer is whole, and no more of the request is wanted.
        let code = if self.is_server && stream.sent_end { Code::NO_ERROR } else { Code::CANCEL };
        self.reset(key, code, Initiator::Us, "");
    }

    /// The connection ends, and all its streams. If we end it, the peer gets a GOAWAY (section 6.8).
    pub(crate) fn fail(&mut self, error: Error) {
        if self.end.is_some() {
            return;
        }
        if let (Some(code), Some(Initiator::Us | Initiator::Rule)) = (error.code(), error.by()) {
            self.write_go_away(self.goodbye.unwrap_or(u32::MAX).min(self.last), code, error.words());
        }
        self.end = Some(error.clone());
        for (_, stream) in &mut self.streams {
            if !stream.is_closed() {
                stream.end = Some(error.clone());
            }
            (stream.in_line, stream.granted) = (false, 0);
            stream.wake();
        }
        self.places.clear();
        self.active = 0;
        for request in self.accepted.drain(..) {
            self.streams.try_remove(request.key);
        }
        self.pending_resets = 0;
        // Their handles keep the others until they have seen it.
        self.streams.retain(|_, stream| stream.handles > 0);
        self.line.clear();
        self.reserved = 0;
        self.wake();
    }

    /// Says that no more streams are taken, and which were (section 6.8). The first time the number is left open, since requests are
    /// under way.
    pub(crate) fn say_goodbye(&mut self) {
        if self.goodbye.is_none() {
            let open = (1 << 31) - 1;
            self.goodbye = Some(open);
            self.write_go_away(open, Code::NO_ERROR, "");
            self.ask(PingPurpose::Goodbye);
        }
    }

    /// Sends a PING.
    pub(crate) fn ask(&mut self, what: PingPurpose) {
        self.meter.asked();
        self.frame(
            Head { length: 8, kind: kind::PING, flags: 0, stream: 0 },
            &[b'a', b't', b't', b'a', b'c', b'h', b'e', what as u8],
        );
    }

    /// The streams' windows become as small as they may be.
    pub(crate) fn shrink(&mut self) {
        self.window.shrink();
        self.wake();
    }

    /// Starts a measurement of the path if it may limit a reader, and sends the peer a new window.
    pub(crate) fn follow_window(&mut self) {
        if self.window.take_ping() {
            self.ask(PingPurpose::Path);
        }
        self.tell_window();
    }

    /// The streams' window to send to the peer once it has acknowledged the last one.
    pub(crate) fn tell_window(&mut self) {
        if self.unacknowledged.is_empty()
            && let Some(size) = self.window.take_wanted()
        {
            self.write_settings(&[(setting::INITIAL_WINDOW_SIZE, size)]);
            self.tell(size);
        }
    }

    /// A window was sent to the peer. It may use a larger one at once, and must keep to a smaller one after its acknowledgement.
    fn tell(&mut self, size: u32) {
        self.unacknowledged.push_back(size);
        if size > self.granted_window {
            self.grant_window(size);
        }
    }

    /// The window that the peer is held to.
    pub(crate) fn grant_window(&mut self, size: u32) {
        let change = i64::from(size) - i64::from(self.granted_window);
        self.granted_window = size;
        for (_, stream) in &mut self.streams {
            stream.receive_window += change;
        }
    }

    /// Everything was written, and nothing more will be received.
    pub(crate) fn is_done(&self) -> bool {
        self.goodbye.is_some_and(|last| last < (1 << 31) - 1) && self.active == 0 && self.accepted.is_empty()
    }
}
