//! Buffers that connections share: one that has nothing to read or to write holds none.
//!
//! A worker's connections take turns, so a few buffers serve thousands of them, and stay warm in the processor's caches.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of one buffer: room for a usual head with a small body, and for a TLS record's content.
pub const SIZE: usize = 16 << 10;
/// Buffers that are kept for the next connection.
const KEPT: usize = 32;

thread_local! {
    static FREE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room.
pub fn take() -> BytesMut {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Returns an empty buffer. A buffer of which another owner still has a part is dropped instead.
pub fn put(buf: &mut BytesMut) {
    if buf.capacity() == 0 {
        return;
    }
    let mut buf = std::mem::take(buf);
    if buf.try_reclaim(SIZE) && buf.capacity() < 2 * SIZE {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(buf);
            }
        });
    }
}

/// Drops all unused buffers: the worker is idle.
pub fn release_all() {
    FREE.with_borrow_mut(|free| *free = Vec::new());
}
