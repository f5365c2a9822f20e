//! Lets the streams' receive window grow where it is what holds a transfer up.
//!
//! **The rule.** When one reader has taken half a window, a PING measures one round trip. If that reader took two thirds of a window or more
//! by the time the answer comes, the sender had to wait for the window, and it becomes twice what was taken, up to a bound. If not, the
//! next measurement waits for [`PAUSE`]. A reader that does not keep up never lets it grow, and so a slow client costs no more memory
//! than with windows that stay.
//!
//! What comes in the round trip after a window has grown was sent while the sender did not know of it. That round trip is let pass: it
//! would be taken for a sender that has enough room.
//!
//! PINGs go only with data that comes in, which gRPC's servers expect (gRFC A8 counts those without data).
//!
//! **Source.** The bandwidth estimate of gRPC ("BDP estimation and dynamic flow control").

use std::time::Duration;

use tokio::time::Instant;

use crate::Streams;

/// Between two measurements where the window did not hold the transfer up.
const PAUSE: Duration = Duration::from_secs(1);

/// The smallest that a window shrinks to: what RFC 9113 section 6.5.2 begins with.
const LEAST: u32 = 65_535;

/// The receive window of one connection's streams.
#[derive(Debug)]
pub struct Window {
    size: u32,
    most: u32,
    asked: Asked,
    /// The window has grown since the last measurement.
    grown: bool,
    next: Option<Instant>,
}

/// What the PING that is under way is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    /// None is under way.
    #[default]
    Nothing,
    /// To let the round trip pass in which the sender hears of a larger window.
    Passing,
    /// To see what the reader takes in a round trip.
    Measuring,
}

impl Window {
    /// Begins with `initial` and never exceeds `most`.
    pub fn new(streams: &Streams, initial: u32, most: u32) -> Self {
        streams.half_window.set(u64::from(initial / 2).max(1));
        Self { size: initial, most: most.max(initial), asked: Asked::Nothing, grown: false, next: None }
    }

    /// The window now.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Whether a PING is to be sent now. Reads no clock unless a reader has taken enough.
    pub fn wants_ping(&mut self, streams: &Streams) -> bool {
        if self.asked != Asked::Nothing || self.size >= self.most {
            return false;
        }
        let Some(stream) = streams.candidate.get() else { return false };
        if self.next.is_some_and(|next| Instant::now() < next) {
            return false;
        }
        streams.candidate.set(None);
        if std::mem::take(&mut self.grown) {
            self.asked = Asked::Passing;
            return true;
        }
        streams.measured.set(Some(stream));
        streams.taken.set(0);
        self.asked = Asked::Measuring;
        true
    }

    /// The PING was answered; the new window where it is to grow.
    pub fn ponged(&mut self, streams: &Streams) -> Option<u32> {
        if std::mem::take(&mut self.asked) != Asked::Measuring {
            return None;
        }
        streams.measured.set(None);
        let taken = streams.taken.get();
        if taken < u64::from(self.size) / 3 * 2 {
            self.next = Some(Instant::now() + PAUSE);
            return None;
        }
        self.next = None;
        self.grown = true;
        let wanted = u32::try_from(taken.saturating_mul(2)).unwrap_or(u32::MAX);
        self.resize(streams, wanted.max(self.size.saturating_mul(2)).min(self.most))
    }

    /// The process is short of memory: windows become as small as they may be, and don't grow any more on this connection.
    pub fn shrink(&mut self, streams: &Streams) -> Option<u32> {
        self.most = LEAST.min(self.size);
        self.resize(streams, self.most)
    }

    fn resize(&mut self, streams: &Streams, size: u32) -> Option<u32> {
        if size == self.size {
            return None;
        }
        self.size = size;
        streams.half_window.set(u64::from(size / 2).max(1));
        Some(size)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_doubles_while_a_reader_waits_for_the_window_and_not_beyond_its_bound() {
        let streams = Rc::new(Streams::default());
        let mut window = Window::new(&streams, 100_000, 300_000);
        let reader = streams.reader(1);
        reader.took(49_999);
        assert!(!window.wants_ping(&streams), "half a window is not reached");
        reader.took(1);
        assert!(window.wants_ping(&streams) && !window.wants_ping(&streams));
        reader.took(100_000);
        assert_eq!(window.ponged(&streams), Some(200_000));
        reader.took(1);
        assert!(window.wants_ping(&streams));
        reader.took(100_000);
        assert_eq!(window.ponged(&streams), None, "the sender did not know of the larger window");
        reader.took(1);
        assert!(window.wants_ping(&streams), "at once");
        reader.took(200_000);
        assert_eq!(window.ponged(&streams), Some(300_000));
        reader.took(1);
        assert!(!window.wants_ping(&streams), "there is nothing to win");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_less_than_the_window_lets_it_stay() {
        let streams = Rc::new(Streams::default());
        let mut window = Window::new(&streams, 100_000, 300_000);
        let (slow, other) = (streams.reader(1), streams.reader(3));
        slow.took(60_000);
        assert!(window.wants_ping(&streams));
        other.took(1_000_000);
        slow.took(60_000);
        assert_eq!(window.ponged(&streams), None, "only the measured one counts");
        assert!(!window.wants_ping(&streams), "not again at once");
        tokio::time::advance(PAUSE).await;
        assert!(window.wants_ping(&streams));
        drop(other);
        assert_eq!(window.ponged(&streams), None);
    }

    #[tokio::test(start_paused = true)]
    async fn under_pressure_it_shrinks_for_good() {
        let streams = Rc::new(Streams::default());
        let mut window = Window::new(&streams, 100_000, 300_000);
        assert_eq!(window.shrink(&streams), Some(65_535));
        let reader = streams.reader(1);
        reader.took(1 << 20);
        assert!(!window.wants_ping(&streams));
        assert_eq!(window.shrink(&streams), None);
    }
}
