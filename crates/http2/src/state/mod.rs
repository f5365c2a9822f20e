//! One connection's state, without input or output: bytes that were read go in, bytes to write come out.

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
    Error, ErrorCode, FrameHeader, Meter, Window,
    error::Initiator,
    frame::{MAX_FRAME, setting},
    head, hpack, kind,
    queue::ByteQueue,
    stream::{ExpectedFrame, Stream},
};

/// The connection's receive window: the largest that RFC 9113 section 6.9.1 allows.
///
/// A stream with a slow reader delays only itself (section 5.2.2): its bytes wait within its own window, and the connection's window is
/// opened again when they are received. So one connection can make attache hold at most the streams' windows times the number of streams.
pub const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The initial size of both windows (section 6.9.2).
pub(crate) const FIRST_WINDOW: u32 = 65_535;

/// How many bytes of answers to frames may wait for the socket, in addition to the room for DATA. Above this limit the peer makes attache
/// answer but doesn't read the answers; no more frames are read until it does.
const MAX_WAITING_ANSWER_BYTES: usize = 64 << 10;

/// How many ended streams, and how many streams that attache reset, are remembered: frames for them that were under way are no error.
const CLOSED_REMEMBERED: usize = 32;
const RESETS_REMEMBERED: usize = 1024;

/// The settings of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many streams a client may have open.
    pub streams: u32,
    /// The initial receive window of a stream, in bytes.
    pub window: u32,
    /// The largest window that it may grow to, in bytes.
    pub window_most: u32,
    /// The most bytes of a head's fields, with 32 added for each field (SETTINGS_MAX_HEADER_LIST_SIZE).
    pub head_size: u32,
    /// How many requests may have been reset before attache handled them, at one moment.
    pub pending_resets: usize,
    /// The most bytes of DATA, of all streams together, that may wait for the socket.
    pub send_buffer: usize,
    /// Whether a server tells its clients that they may open WebSockets (SETTINGS_ENABLE_CONNECT_PROTOCOL, RFC 8441).
    pub extended_connect: bool,
}

/// The peer's SETTINGS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSettings {
    pub(crate) streams: u32,
    pub(crate) window: u32,
    pub(crate) frame: usize,
    pub(crate) extended_connect: bool,
    /// They have arrived.
    pub(crate) known: bool,
}

/// Hashes a stream's number. This is safe, because a client can choose only odd numbers that grow.
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

/// A request that has arrived.
#[derive(Debug)]
pub(crate) struct AcceptedRequest {
    pub(crate) key: usize,
    pub(crate) head: Rc<RequestHead>,
    /// Its fields are larger than allowed.
    pub(crate) too_large: bool,
}

/// A header block whose end has not arrived.
#[derive(Debug)]
pub(crate) struct UnfinishedBlock {
    pub(crate) head: FrameHeader,
    pub(crate) block: Vec<u8>,
    pub(crate) parts: usize,
}

/// The purpose of a PING that attache sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PingPurpose {
    /// To measure the round trip, see [`Window`].
    Path = 1,
    /// To test whether the peer still answers.
    Life = 2,
    /// To learn that the peer has read a GOAWAY (section 6.8).
    Goodbye = 3,
}

#[derive(Debug)]
pub(crate) struct ConnectionState {
    pub(crate) is_server: bool,
    pub(crate) settings: Settings,
    pub(crate) peer: PeerSettings,
    pub(crate) streams: Slab<Stream>,
    /// The streams' keys, by number.
    pub(crate) places: HashMap<u32, usize, BuildHasherDefault<NumberHasher>>,
    /// How many streams the peer opened that are not closed.
    pub(crate) active: u32,
    /// The highest stream that the peer opened, and the highest that attache opened.
    pub(crate) last: u32,
    pub(crate) next: u32,
    /// Requests that were not taken yet.
    pub(crate) accepted: VecDeque<AcceptedRequest>,
    /// How the connection ended.
    pub(crate) end: Option<Error>,
    pub(crate) meter: Box<dyn Meter>,
    pub(crate) window: Window,
    /// How many requests in `accepted` were reset.
    pub(crate) pending_resets: usize,

    // What is received.
    /// The preface has not arrived yet.
    pub(crate) preface: bool,
    pub(crate) heads: head::HeadReader,
    /// A header block whose end has not arrived.
    pub(crate) begun: Option<UnfinishedBlock>,
    /// How many header blocks were read.
    pub(crate) blocks: u64,
    /// Errors of requests that were reset because of their head and are not reported yet.
    pub(crate) refused: Vec<&'static str>,
    /// Bytes that arrived since the connection's window was last opened.
    pub(crate) taken: u32,
    /// The SETTINGS of attache that the peer has not acknowledged: the streams' window in each of them.
    pub(crate) unacknowledged: VecDeque<u32>,
    /// The streams' window that the peer must respect.
    pub(crate) granted_window: u32,
    closed: VecDeque<u32>,
    resets: VecDeque<u32>,

    // What is sent.
    pub(crate) out: ByteQueue,
    pub(crate) encoder: hpack::HpackEncoder,
    /// How many bytes of DATA the peer accepts from all streams together.
    pub(crate) send_window: i64,
    /// How many bytes, of that window and of the room before the socket, are reserved for streams.
    reserved: u32,
    /// Streams that wait for capacity.
    waiting: VecDeque<usize>,
    /// The highest stream whose head was written; the socket may already have bytes of it.
    pub(crate) queued: u32,
    pub(crate) written: u32,
    /// The connection's task.
    pub(crate) task: Option<Waker>,
    /// It was woken since its last run.
    pub(crate) woken: bool,

    // The end of the connection.
    /// The last stream in the GOAWAY that attache sent.
    pub(crate) sent_go_away: Option<u32>,
    /// The last stream in the GOAWAY that was received.
    pub(crate) received_go_away: Option<u32>,
}

impl ConnectionState {
    pub(crate) fn new(is_server: bool, settings: Settings, meter: Box<dyn Meter>) -> Self {
        let mut state = Self {
            is_server,
            settings,
            peer: PeerSettings {
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
            heads: head::HeadReader::default(),
            begun: None,
            blocks: 0,
            refused: Vec::new(),
            taken: 0,
            unacknowledged: VecDeque::new(),
            granted_window: FIRST_WINDOW,
            closed: VecDeque::new(),
            resets: VecDeque::new(),
            out: ByteQueue::default(),
            encoder: hpack::HpackEncoder::default(),
            send_window: FIRST_WINDOW.into(),
            reserved: 0,
            waiting: VecDeque::new(),
            queued: 0,
            written: 0,
            task: None,
            woken: false,
            sent_go_away: None,
            received_go_away: None,
        };
        state.begin();
        state
    }

    /// Writes the preface and the first SETTINGS (RFC 9113 section 3.4).
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
        self.announce(self.settings.window);
        self.write_window_update(0, CONNECTION_WINDOW - FIRST_WINDOW);
    }

    /// Wakes the connection's task, to write what is queued or to notice a change.
    pub(crate) fn wake(&mut self) {
        if !std::mem::replace(&mut self.woken, true)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }

    /// Whether no more frames should be read until some of the waiting bytes are written.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() > self.settings.send_buffer + MAX_WAITING_ANSWER_BYTES
    }

    /// Whether a 1xx response may be added to what waits for the socket. Beyond the room for DATA, 1xx responses may use half of the room for
    /// answers to frames, so that they alone don't stop the reading of frames.
    pub(crate) fn has_room_for_interim(&self) -> bool {
        self.out.len() < self.settings.send_buffer + MAX_WAITING_ANSWER_BYTES / 2
    }

    pub(crate) fn place(&self, id: u32) -> Option<usize> {
        self.places.get(&id).copied()
    }

    pub(crate) fn stream(&mut self, id: u32) -> Option<(usize, &mut Stream)> {
        let key = self.place(id)?;
        self.streams.get_mut(key).map(|stream| (key, stream))
    }

    /// Adds a stream with one handle.
    pub(crate) fn add(&mut self, id: u32, expects: ExpectedFrame) -> usize {
        let mut stream = Stream::new(id, expects, self.granted_window, self.peer.window);
        stream.handles = 1;
        let key = self.streams.insert(stream);
        self.places.insert(id, key);
        self.active += 1;
        key
    }

    /// The next request that has arrived. The caller gets its only handle.
    pub(crate) fn take_request(&mut self) -> Option<AcceptedRequest> {
        let accepted = self.accepted.pop_front()?;
        if let Some(stream) = self.streams.get_mut(accepted.key) {
            stream.is_pending = false;
            if stream.end.is_some() {
                self.pending_resets = self.pending_resets.saturating_sub(1);
            }
        }
        Some(accepted)
    }

    /// A stream has ended, so it no longer counts.
    pub(crate) fn close(&mut self, key: usize) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let id = stream.id;
        if self.places.remove(&id).is_none() {
            return;
        }
        let granted = std::mem::take(&mut stream.granted);
        let unused = stream.handles == 0;
        if std::mem::take(&mut stream.is_waiting) {
            self.waiting.retain(|waits| *waits != key);
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
            self.serve_waiting();
        }
        if self.sent_go_away.is_some() && self.active == 0 {
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
    pub(crate) fn reset(&mut self, key: usize, code: ErrorCode, by: Initiator, why: &'static str) {
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

    /// Whether attache reset this stream. Frames for it were under way and are no error.
    pub(crate) fn was_reset(&self, id: u32) -> bool {
        self.resets.iter().rev().any(|reset| *reset == id)
    }

    /// Whether the stream was open and ended a short time ago.
    pub(crate) fn was_closed(&self, id: u32) -> bool {
        self.closed.contains(&id)
    }

    /// A handle was dropped. When the last one is dropped, the stream is removed.
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
        // RFC 9113 section 8.1: the response is complete, and the rest of the request is not needed.
        let code = if self.is_server && stream.sent_end { ErrorCode::NO_ERROR } else { ErrorCode::CANCEL };
        self.reset(key, code, Initiator::Us, "");
    }

    /// Ends the connection and all its streams. If attache ends it, the peer gets a GOAWAY (section 6.8).
    pub(crate) fn fail(&mut self, error: Error) {
        if self.end.is_some() {
            return;
        }
        if let (Some(code), Some(Initiator::Us | Initiator::Rule)) = (error.code(), error.by()) {
            self.write_go_away(self.sent_go_away.unwrap_or(u32::MAX).min(self.last), code, error.words());
        }
        self.end = Some(error.clone());
        for (_, stream) in &mut self.streams {
            if !stream.is_closed() {
                stream.end = Some(error.clone());
            }
            (stream.is_waiting, stream.granted) = (false, 0);
            stream.wake();
        }
        self.places.clear();
        self.active = 0;
        for request in self.accepted.drain(..) {
            self.streams.try_remove(request.key);
        }
        self.pending_resets = 0;
        // The other streams stay until their handles have seen the end.
        self.streams.retain(|_, stream| stream.handles > 0);
        self.waiting.clear();
        self.reserved = 0;
        self.wake();
    }

    /// Tells the peer that no more streams are accepted, and which ones were accepted (section 6.8). The first such GOAWAY names no stream,
    /// because requests may be under way.
    pub(crate) fn say_goodbye(&mut self) {
        if self.sent_go_away.is_none() {
            let open = (1 << 31) - 1;
            self.sent_go_away = Some(open);
            self.write_go_away(open, ErrorCode::NO_ERROR, "");
            self.ask(PingPurpose::Goodbye);
        }
    }

    /// Sends a PING.
    pub(crate) fn ask(&mut self, what: PingPurpose) {
        self.meter.asked();
        self.frame(
            FrameHeader { length: 8, kind: kind::PING, flags: 0, stream: 0 },
            &[b'a', b't', b't', b'a', b'c', b'h', b'e', what as u8],
        );
    }

    /// Makes the streams' windows as small as allowed.
    pub(crate) fn shrink(&mut self) {
        self.window.shrink();
        self.wake();
    }

    /// Starts a measurement of the round trip if the window may limit a reader, and sends the peer a new window.
    pub(crate) fn follow_window(&mut self) {
        if self.window.take_ping() {
            self.ask(PingPurpose::Path);
        }
        self.announce_window();
    }

    /// Sends the peer a new window for the streams, after the peer has acknowledged the last one.
    pub(crate) fn announce_window(&mut self) {
        if self.unacknowledged.is_empty()
            && let Some(size) = self.window.take_wanted()
        {
            self.write_settings(&[(setting::INITIAL_WINDOW_SIZE, size)]);
            self.announce(size);
        }
    }

    /// Notes that a window was sent to the peer. The peer may use a larger one at once, and must respect a smaller one after it has
    /// acknowledged it.
    fn announce(&mut self, size: u32) {
        self.unacknowledged.push_back(size);
        if size > self.granted_window {
            self.grant_window(size);
        }
    }

    /// Sets the window that the peer must respect.
    pub(crate) fn grant_window(&mut self, size: u32) {
        let change = i64::from(size) - i64::from(self.granted_window);
        self.granted_window = size;
        for (_, stream) in &mut self.streams {
            stream.receive_window += change;
        }
    }

    /// Whether everything was written and nothing more will be received.
    pub(crate) fn is_done(&self) -> bool {
        self.sent_go_away.is_some_and(|last| last < (1 << 31) - 1)
            && self.active == 0
            && self.accepted.is_empty()
    }
}
