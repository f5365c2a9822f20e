//! Capacity for DATA: the connection's send window and the buffer before the socket, shared by its streams in turn.

use std::task::Waker;

use super::State;

/// A waiting stream gets no more than this at once, so that one stream's body does not block all others.
const SHARE: u32 = 16 << 10;

impl State {
    /// Bytes of DATA that may be added now, beside what is kept for others.
    pub(super) fn available(&self) -> u32 {
        let before_socket = self.settings.send_buffer.saturating_sub(self.out.len());
        let before_socket = u32::try_from(before_socket).unwrap_or(u32::MAX);
        let available = self.send_window.min(before_socket.into()) - i64::from(self.reserved);
        available.max(0) as u32
    }

    /// How many of `wanted` bytes (at least one) a stream may send now. If none, `waker` is woken when some may.
    pub(crate) fn capacity(&mut self, key: usize, wanted: u32, waker: &Waker) -> u32 {
        let available = self.available();
        let is_free = self.line.is_empty();
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
            if !std::mem::replace(&mut stream.in_line, true) {
                self.line.push_back(key);
            }
        }
        // Its window was made smaller since this was kept for it.
        let unusable = std::mem::take(&mut stream.granted);
        if unusable > 0 {
            self.reserved -= unusable;
            self.serve_line();
        }
        0
    }

    /// So many bytes of DATA were queued.
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
    pub(crate) fn serve_line(&mut self) {
        while let Some(key) = self.line.front().copied() {
            let available = self.available();
            if available == 0 {
                return;
            }
            self.line.pop_front();
            let shared = !self.line.is_empty();
            let Some(stream) = self.streams.get_mut(key) else { continue };
            stream.in_line = false;
            // Without a window of its own it is woken by that.
            let own = stream.send_window.clamp(0, u32::MAX.into()) as u32;
            let share = available.min(own).min(stream.wanted);
            stream.granted = if shared { share.min(SHARE) } else { share };
            self.reserved += stream.granted;
            stream.wake_writer();
        }
    }
}
