//! What small DATA frames wait in, and what their readers tell.
//!
//! The h2 crate keeps each DATA frame that nobody has read yet as an entry of a few hundred bytes, whatever its payload. A stream window
//! of 256 KiB in frames of one byte would be some 80 MiB. So while a stream's reader has [`FEW`] small frames before it, further ones
//! wait here as plain bytes, and go on as one frame when the reader has caught up, when [`FULL`] bytes are there, or when
//! anything else comes for the stream. What a stream can make us hold is then about its window.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    task::{Context, Waker},
};

/// Small frames that a slow reader may have before it. Each may hold a whole read's buffer, so they are few.
const FEW: u32 = 8;

/// Bytes that go on in any case: with one more small frame they still fit the smallest SETTINGS_MAX_FRAME_SIZE.
pub(crate) const FULL: usize = (16 << 10) - SMALL - MOST_PADDING;

/// A payload below this costs more to keep as a frame than its bytes are.
pub(crate) const SMALL: usize = 256;

/// What padding adds to a frame, with its length, at most (RFC 9113 section 6.1).
pub(crate) const MOST_PADDING: usize = 256;

/// Hashes a stream's number: a client can choose only odd numbers that grow.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

pub(crate) type ByNumber = BuildHasherDefault<NumberHasher>;

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

#[derive(Debug, Default)]
struct Stream {
    /// Somebody reads it, and says so.
    has_reader: bool,
    /// Small frames that went on and were not read.
    unread: u32,
    held: Vec<u8>,
}

type Map = HashMap<u32, Stream, ByNumber>;

/// The streams of one connection whose bytes somebody reads.
#[derive(Default)]
pub struct Streams {
    all: RefCell<Map>,
    /// Streams whose held bytes may go on.
    due: RefCell<Vec<u32>>,
    /// How many streams hold bytes.
    holding: Cell<usize>,
    /// The connection's task.
    task: RefCell<Option<Waker>>,
    /// The stream whose reader is measured, if one is: see [`Window`](crate::Window).
    pub(crate) measured: Cell<Option<u32>>,
    /// Bytes that the measured stream's reader took.
    pub(crate) taken: Cell<u64>,
    /// A stream whose reader took more than half a window, and should be measured.
    pub(crate) candidate: Cell<Option<u32>>,
    /// Half of the streams' window.
    pub(crate) half_window: Cell<u64>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("holding", &self.holding.get()).finish_non_exhaustive()
    }
}

impl Streams {
    /// The one who reads a stream's DATA. Dropping it says that nobody does any more.
    pub fn reader(self: &Rc<Self>, stream: u32) -> Reader {
        self.all.borrow_mut().entry(stream).or_default().has_reader = true;
        Reader { streams: Rc::clone(self), stream, taken: Cell::new(0) }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.all.borrow().is_empty()
    }

    /// Notes the connection's task. A task's waker doesn't change, so this is a comparison.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        match &*task {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *task = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Some bytes of this stream wait here.
    pub(crate) fn holds(&self, stream: u32) -> bool {
        self.holding.get() > 0 && self.all.borrow().get(&stream).is_some_and(|stream| !stream.held.is_empty())
    }

    /// Some held bytes may go on.
    pub(crate) fn is_due(&self) -> bool {
        self.holding.get() > 0 && !self.due.borrow().is_empty()
    }

    pub(crate) fn take_due(&self) -> Vec<u32> {
        self.due.take()
    }

    /// Keeps bytes; says how many the stream has waiting now.
    pub(crate) fn hold(&self, stream: u32, bytes: &[u8]) -> usize {
        let mut all = self.all.borrow_mut();
        if bytes.is_empty() {
            // No entry for a stream that nobody reads: nothing would take it out.
            return all.get(&stream).map_or(0, |stream| stream.held.len());
        }
        let stream = all.entry(stream).or_default();
        if stream.held.is_empty() {
            self.holding.set(self.holding.get() + 1);
        }
        stream.held.extend_from_slice(bytes);
        stream.held.len()
    }

    /// The stream's held bytes, which go on as one frame now.
    pub(crate) fn release(&self, stream: u32) -> Vec<u8> {
        let mut all = self.all.borrow_mut();
        let Some(found) = all.get_mut(&stream) else { return Vec::new() };
        let held = std::mem::take(&mut found.held);
        if !held.is_empty() {
            self.holding.set(self.holding.get().saturating_sub(1));
            found.unread += 1;
        }
        if !found.has_reader {
            all.remove(&stream);
        }
        held
    }

    /// Somebody reads the stream's DATA, so its head has come.
    pub(crate) fn has_reader(&self, stream: u32) -> bool {
        self.all.borrow().get(&stream).is_some_and(|stream| stream.has_reader)
    }

    /// The stream's reader has enough before it.
    pub(crate) fn is_slow(&self, stream: u32) -> bool {
        self.all.borrow().get(&stream).is_some_and(|stream| stream.has_reader && stream.unread >= FEW)
    }
}

/// The one who reads a stream's DATA.
pub struct Reader {
    streams: Rc<Streams>,
    stream: u32,
    taken: Cell<u64>,
}

impl Reader {
    /// A frame's payload was taken.
    pub fn took(&self, bytes: usize) {
        let streams = &*self.streams;
        let bytes = bytes as u64;
        let taken = self.taken.get() + bytes;
        self.taken.set(taken);
        if streams.measured.get() == Some(self.stream) {
            streams.taken.set(streams.taken.get() + bytes);
        } else if taken >= streams.half_window.get() && streams.candidate.get().is_none() {
            streams.candidate.set(Some(self.stream));
            streams.wake();
        }
        if bytes >= SMALL as u64 && streams.holding.get() == 0 {
            return;
        }
        let mut all = streams.all.borrow_mut();
        let Some(found) = all.get_mut(&self.stream) else { return };
        found.unread = found.unread.saturating_sub(1);
        if found.unread < FEW / 2 && !found.held.is_empty() {
            drop(all);
            self.due();
        }
    }

    fn due(&self) {
        self.streams.due.borrow_mut().push(self.stream);
        self.streams.wake();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let streams = &*self.streams;
        if streams.measured.get() == Some(self.stream) {
            streams.measured.set(None);
        }
        if streams.candidate.get() == Some(self.stream) {
            streams.candidate.set(None);
        }
        let mut all = streams.all.borrow_mut();
        let Some(found) = all.get_mut(&self.stream) else { return };
        if found.held.is_empty() {
            all.remove(&self.stream);
            return;
        }
        // The h2 crate must see these bytes all the same: the peer's count of the connection's window has them.
        found.has_reader = false;
        drop(all);
        self.due();
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("stream", &self.stream).finish_non_exhaustive()
    }
}
