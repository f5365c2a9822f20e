//! Buffers that connections share. A connection that has nothing to read or to write holds no buffer.
//!
//! A worker's connections take turns, so a few buffers serve thousands of them, and stay warm in the processor's caches.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of one buffer: room for a usual head with a small body, and for a TLS record's content.
pub const SIZE: usize = 16 << 10;
/// Bytes of a buffer for bulk transfers: a quarter of the system calls, and still not more than the processor's nearest caches hold.
const LARGE: usize = 4 * SIZE;
/// How many unused buffers a worker keeps for the next connections.
const MAX_KEPT: usize = 32;

thread_local! {
    static FREE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Returns an empty buffer with room.
pub fn take() -> BytesMut {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Whether the reads of a connection fill their buffers, as they do for a large body. Such a connection gets larger buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkReads(bool);

impl BulkReads {
    /// Makes room for the next read; returns how much there is.
    pub fn make_room(self, buf: &mut BytesMut) -> usize {
        let room = buf.capacity() - buf.len();
        if self.0 {
            // By now most of what was read before has been written, so this reads into the same memory, which is still in the cache.
            if room < LARGE / 2 && !buf.try_reclaim(LARGE) {
                if buf.is_empty() {
                    // `reserve` would copy the old contents; a new buffer does not.
                    *buf = BytesMut::with_capacity(LARGE);
                } else {
                    buf.reserve(LARGE);
                }
            }
        } else if buf.is_empty() && buf.try_reclaim(SIZE) {
            // The last message was written completely, so the next one is read to the start of the buffer, not to the place after the last
            // one.
        } else if buf.capacity() == 0 {
            *buf = take();
        } else if room < SIZE / 8 {
            buf.reserve(SIZE);
        }
        buf.capacity() - buf.len()
    }

    /// Notes that a read returned `n` bytes into a buffer with room for `room`.
    pub fn read(&mut self, n: usize, room: usize) {
        // With a sender that is slower than the reader, a large buffer is seldom full; the connection still counts as bulk.
        self.0 = n == room || (self.0 && n >= SIZE);
    }
}

/// Returns an empty buffer to the shared ones. If another owner still has a part of the buffer, it is dropped instead.
pub fn put(buf: &mut BytesMut) {
    if buf.capacity() == 0 {
        return;
    }
    let mut buf = std::mem::take(buf);
    if buf.try_reclaim(SIZE) && buf.capacity() < 2 * SIZE {
        FREE.with_borrow_mut(|free| {
            if free.len() < MAX_KEPT {
                free.push(buf);
            }
        });
    }
}

/// Drops all unused buffers; called when the worker is idle.
pub fn release_all() {
    FREE.with_borrow_mut(|free| *free = Vec::new());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as much as there is room for, but at most `most`. Returns that as the body's next piece.
    fn read(bulk: &mut BulkReads, buf: &mut BytesMut, most: usize) -> (usize, bytes::Bytes) {
        let room = bulk.make_room(buf);
        let n = room.min(most);
        buf.resize(buf.len() + n, b'x');
        bulk.read(n, room);
        (room, buf.split().freeze())
    }

    #[test]
    fn a_message_is_read_where_the_last_one_stood() {
        let (mut bulk, mut buf) = (BulkReads::default(), BytesMut::new());
        let (_, first) = read(&mut bulk, &mut buf, 1000);
        let at = first.as_ptr();
        let (room, second) = read(&mut bulk, &mut buf, 1000);
        assert_eq!(
            (room, second.as_ptr()),
            (SIZE - 1000, at.wrapping_add(1000)),
            "the first piece is still there"
        );
        drop((first, second));
        let (room, third) = read(&mut bulk, &mut buf, 1000);
        assert_eq!((room, third.as_ptr()), (SIZE, at));
    }

    #[test]
    fn reads_that_fill_their_buffer_get_a_larger_one_and_then_the_same_again() {
        let (mut bulk, mut buf) = (BulkReads::default(), BytesMut::new());
        assert_eq!(read(&mut bulk, &mut buf, usize::MAX).0, SIZE);
        let (room, first) = read(&mut bulk, &mut buf, usize::MAX);
        assert_eq!(room, LARGE);
        let at = first.as_ptr();
        // The second piece is not written yet, so the next read needs another buffer.
        let (room, second) = read(&mut bulk, &mut buf, usize::MAX);
        assert_eq!((room, second.as_ptr() == at), (LARGE, false));
        let at = second.as_ptr();
        drop((first, second));
        let (room, third) = read(&mut bulk, &mut buf, SIZE);
        assert_eq!((room, third.as_ptr()), (LARGE, at));
        drop(third);
        // One smaller read keeps the bulk mode; a very small one ends it.
        assert_eq!(read(&mut bulk, &mut buf, 10).0, LARGE - SIZE);
        assert_eq!(bulk, BulkReads::default());
    }
}
