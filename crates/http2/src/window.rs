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
    /// The stream whose reader is measured, and bytes that it took.
    measured: Option<u32>,
    taken: u64,
    /// A stream whose reader took more than half a window, and should be measured.
    candidate: Option<u32>,
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
    pub fn new(initial: u32, most: u32) -> Self {
        Self {
            size: initial,
            most: most.max(initial),
            asked: Asked::Nothing,
            grown: false,
            next: None,
            measured: None,
            taken: 0,
            candidate: None,
        }
    }

    /// The window now.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// A stream's reader took so many bytes, and `all` in its life. True where [`wants_ping`](Self::wants_ping) is to be asked.
    pub fn took(&mut self, stream: u32, bytes: u32, all: u64) -> bool {
        if self.measured == Some(stream) {
            self.taken += u64::from(bytes);
            return false;
        }
        all >= u64::from(self.size / 2).max(1) && self.candidate.replace(stream).is_none()
    }

    /// A stream has ended.
    pub fn forget(&mut self, stream: u32) {
        self.measured = self.measured.filter(|measured| *measured != stream);
        self.candidate = self.candidate.filter(|candidate| *candidate != stream);
    }

    /// Whether a PING is to be sent now. Reads no clock unless a reader has taken enough.
    pub fn wants_ping(&mut self) -> bool {
        if self.asked != Asked::Nothing || self.size >= self.most {
            return false;
        }
        let Some(stream) = self.candidate else { return false };
        if self.next.is_some_and(|next| Instant::now() < next) {
            return false;
        }
        self.candidate = None;
        if std::mem::take(&mut self.grown) {
            self.asked = Asked::Passing;
            return true;
        }
        self.measured = Some(stream);
        self.taken = 0;
        self.asked = Asked::Measuring;
        true
    }

    /// The PING was answered; the new window where it is to grow.
    pub fn ponged(&mut self) -> Option<u32> {
        if std::mem::take(&mut self.asked) != Asked::Measuring {
            return None;
        }
        self.measured = None;
        if self.taken < u64::from(self.size) / 3 * 2 {
            self.next = Some(Instant::now() + PAUSE);
            return None;
        }
        self.next = None;
        self.grown = true;
        let wanted = u32::try_from(self.taken.saturating_mul(2)).unwrap_or(u32::MAX);
        self.resize(wanted.max(self.size.saturating_mul(2)).min(self.most))
    }

    /// The process is short of memory: windows become as small as they may be, and don't grow any more on this connection.
    pub fn shrink(&mut self) -> Option<u32> {
        self.most = LEAST.min(self.size);
        self.resize(self.most)
    }

    const fn resize(&mut self, size: u32) -> Option<u32> {
        if size == self.size {
            return None;
        }
        self.size = size;
        Some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stream's reader.
    struct Reader(u32, u64);

    impl Reader {
        fn took(&mut self, window: &mut Window, bytes: u32) {
            self.1 += u64::from(bytes);
            window.took(self.0, bytes, self.1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_doubles_while_a_reader_waits_for_the_window_and_not_beyond_its_bound() {
        let mut window = Window::new(100_000, 300_000);
        let mut reader = Reader(1, 0);
        reader.took(&mut window, 49_999);
        assert!(!window.wants_ping(), "half a window is not reached");
        reader.took(&mut window, 1);
        assert!(window.wants_ping() && !window.wants_ping());
        reader.took(&mut window, 100_000);
        assert_eq!(window.ponged(), Some(200_000));
        reader.took(&mut window, 1);
        assert!(window.wants_ping());
        reader.took(&mut window, 100_000);
        assert_eq!(window.ponged(), None, "the sender did not know of the larger window");
        reader.took(&mut window, 1);
        assert!(window.wants_ping(), "at once");
        reader.took(&mut window, 200_000);
        assert_eq!(window.ponged(), Some(300_000));
        reader.took(&mut window, 1);
        assert!(!window.wants_ping(), "there is nothing to win");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_less_than_the_window_lets_it_stay() {
        let mut window = Window::new(100_000, 300_000);
        let (mut slow, mut other) = (Reader(1, 0), Reader(3, 0));
        slow.took(&mut window, 60_000);
        assert!(window.wants_ping());
        other.took(&mut window, 1_000_000);
        slow.took(&mut window, 60_000);
        assert_eq!(window.ponged(), None, "only the measured one counts");
        assert!(!window.wants_ping(), "not again at once");
        tokio::time::advance(PAUSE).await;
        assert!(window.wants_ping());
        window.forget(3);
        assert_eq!(window.ponged(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn under_pressure_it_shrinks_for_good() {
        let mut window = Window::new(100_000, 300_000);
        assert_eq!(window.shrink(), Some(65_535));
        Reader(1, 0).took(&mut window, 1 << 20);
        assert!(!window.wants_ping());
        assert_eq!(window.shrink(), None);
    }
}
