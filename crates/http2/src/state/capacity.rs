//! Capacity for DATA. The streams share the connection's send window and the buffer before the socket, in turn.

use std::task::Waker;

use super::ConnectionState;

/// The most bytes that a waiting stream gets at once, so that one stream's body does not block all others.
const SHARE: u32 = 16 << 10;

impl ConnectionState {
    /// How many bytes of DATA may be added now, in addition to those that are reserved for streams.
    pub(super) fn available(&self) -> u32 {
        let before_socket = self.settings.send_buffer.saturating_sub(self.out.len());
        let before_socket = u32::try_from(before_socket).unwrap_or(u32::MAX);
        let available = self.send_window.min(before_socket.into()) - i64::from(self.reserved);
        available.max(0) as u32
    }

    /// How many of `wanted` bytes (at least one) a stream may send now. If none, `waker` is woken when it may send some.
    pub(crate) fn capacity(&mut self, key: usize, wanted: u32, waker: &Waker) -> u32 {
        let available = self.available();
        let is_free = self.waiting.is_empty();
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.sent_end) else { return 0 };
        let own = stream.send_window.clamp(0, u32::MAX.into()) as u32;
        if stream.granted > 0 && own > 0 {
            return stream.granted.min(own).min(wanted);
        }
        if own > 0 && is_free && available > 0 {
            return available.min(own).min(wanted);
        }
        crate::stream::register(&mut stream.writer, waker);
        if own > 0 {
            stream.wanted = wanted;
            if !std::mem::replace(&mut stream.is_waiting, true) {
                self.waiting.push_back(key);
            }
        }
        // The stream's window has become smaller since this capacity was reserved for it.
        let unusable = std::mem::take(&mut stream.granted);
        if unusable > 0 {
            self.reserved -= unusable;
            self.serve_waiting();
        }
        0
    }

    /// Notes that so many bytes of DATA were queued.
    pub(crate) fn spend(&mut self, key: usize, bytes: u32) {
        self.send_window -= i64::from(bytes);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.send_window -= i64::from(bytes);
            let kept = stream.granted.min(bytes);
            stream.granted -= kept;
            self.reserved -= kept;
        }
    }

    /// Gives capacity to the waiting streams, in their order.
    pub(crate) fn serve_waiting(&mut self) {
        while let Some(key) = self.waiting.front().copied() {
            let available = self.available();
            if available == 0 {
                return;
            }
            self.waiting.pop_front();
            let shared = !self.waiting.is_empty();
            let Some(stream) = self.streams.get_mut(key) else { continue };
            stream.is_waiting = false;
            // A stream without a window of its own gets nothing. It is woken, and is woken again when its window opens.
            let own = stream.send_window.clamp(0, u32::MAX.into()) as u32;
            let share = available.min(own).min(stream.wanted);
            stream.granted = if shared { share.min(SHARE) } else { share };
            self.reserved += stream.granted;
            stream.wake_writer();
        }
    }
}
