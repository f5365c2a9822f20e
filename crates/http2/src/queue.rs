//! Queues of bytes: from a stream to its reader, and from a connection to its socket.

use std::{collections::VecDeque, io::IoSlice};

use attache_wire::buffers;
use bytes::{Buf as _, Bytes, BytesMut};

/// Pieces of this size or more are not copied: copying them costs more than an entry of their own.
const LARGE: usize = 4 << 10;

/// Small pieces are joined, and large pieces are not copied. So the memory for waiting bytes is about their number, for pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    /// The piece before all others.
    first: Bytes,
    parts: VecDeque<Bytes>,
    /// Bytes after all others.
    tail: BytesMut,
    len: usize,
}

impl ByteQueue {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes by copying them.
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            // If these bytes are the only ones, they need no room to grow.
            self.first = Bytes::copy_from_slice(bytes);
        } else {
            self.tail.extend_from_slice(bytes);
        }
        self.len += bytes.len();
    }

    /// Adds bytes. They are copied only if they are few.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() < LARGE && !self.is_empty() {
            self.copy(&bytes);
            return;
        }
        self.len += bytes.len();
        if self.first.is_empty() && self.parts.is_empty() && self.tail.is_empty() {
            self.first = bytes;
            return;
        }
        if !self.tail.is_empty() {
            self.parts.push_back(self.tail.split().freeze());
        }
        self.parts.push_back(bytes);
    }

    /// Whether [`push`](Self::push) would keep so many bytes without a copy.
    pub(crate) const fn keeps(len: usize) -> bool {
        len >= LARGE
    }

    /// The buffer for bytes after all others. [`wrote`](Self::wrote) must be told how many were written.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        if self.tail.capacity() == 0 {
            self.tail = buffers::take();
        }
        &mut self.tail
    }

    /// The queue is empty. Releases its memory for other connections.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            buffers::put(&mut self.tail);
        }
    }

    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.len += bytes;
    }

    /// Takes the next piece; an empty one if there is none.
    pub(crate) fn pop(&mut self) -> Bytes {
        let next = if !self.first.is_empty() {
            std::mem::take(&mut self.first)
        } else if let Some(part) = self.parts.pop_front() {
            part
        } else {
            // All of it: a reader that has caught up doesn't need the rest of its room.
            std::mem::take(&mut self.tail).freeze()
        };
        self.len -= next.len();
        next
    }

    /// How many pieces were not copied.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Drops all bytes.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The first pieces.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let pieces = std::iter::once(&self.first).chain(&self.parts).map(|part| &part[..]);
        let pieces = pieces.chain(std::iter::once(&self.tail[..])).filter(|piece| !piece.is_empty());
        let mut n = 0;
        for (slot, piece) in into.iter_mut().zip(pieces) {
            *slot = IoSlice::new(piece);
            n += 1;
        }
        n
    }

    /// The only piece, if there is exactly one.
    pub(crate) fn single(&self) -> Option<&[u8]> {
        (self.first.is_empty() && self.parts.is_empty()).then_some(&self.tail[..])
    }

    /// Drops `n` bytes at the front.
    pub(crate) fn advance(&mut self, mut n: usize) {
        self.len = self.len.saturating_sub(n);
        let now = n.min(self.first.len());
        self.first.advance(now);
        n -= now;
        while n > 0
            && let Some(part) = self.parts.front_mut()
        {
            let now = n.min(part.len());
            part.advance(now);
            n -= now;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
        let now = n.min(self.tail.len());
        self.tail.advance(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(pieces in proptest::collection::vec((0_usize..9000, any::<bool>()), 0..30), takes in proptest::collection::vec(0_usize..9000, 0..30)) {
            let (mut queue, mut model) = (ByteQueue::default(), Vec::new());
            for (n, (len, copied)) in pieces.into_iter().enumerate() {
                let bytes = vec![n as u8; len];
                model.extend_from_slice(&bytes);
                if copied { queue.copy(&bytes) } else { queue.push(bytes.into()) }
            }
            for take in takes {
                prop_assert_eq!(queue.len(), model.len());
                let mut slices = [IoSlice::new(&[]); 64];
                let n = queue.slices(&mut slices);
                let all: Vec<u8> = slices[..n].iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert_eq!(&all, &model);
                let take = take.min(queue.len());
                queue.advance(take);
                model.drain(..take);
                let next = queue.pop();
                prop_assert_eq!(&next[..], &model[..next.len()]);
                model.drain(..next.len());
            }
        }
    }
}
