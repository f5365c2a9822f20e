//! Lets the streams' receive window grow where it limits a transfer.
//!
//! **The rule.** When one reader has taken half a window, a PING is sent with the next data that arrives for it; the PING measures one
//! round trip. If two thirds of a window or more arrived before the answer, the sender had to wait for the window. If the reader has taken
//! all of that within one more round trip, it keeps up, and the window becomes twice the received bytes, up to a limit. If not, the next
//! measurement waits for [`PAUSE`]. A reader that does not keep up never lets the window grow, so a slow client costs no more memory than
//! with windows of a fixed size.
//!
//! The PING is sent before the window is opened by what the reader takes. So its answer arrives before the data that this allows, and the
//! data until then is what was under way. Received bytes are counted, not taken ones: a whole window and the answer after it may arrive in
//! one turn of the connection's task, before the reader's task runs.
//!
//! What arrives in the round trip after a window has grown was sent while the sender did not know of it. That round trip is not measured:
//! the result would look as if the window were large enough.
//!
//! A PING is sent only after data arrived, because gRPC's servers count PINGs without data as abuse (gRFC A8).
//!
//! **Source.** The bandwidth estimate of gRPC ("BDP estimation and dynamic flow control").

use std::time::Duration;

use tokio::time::Instant;

/// The time between two measurements if the window did not limit the transfer. It is short, because a busy machine delays a reader now and
/// then.
const PAUSE: Duration = Duration::from_millis(200);

/// The smallest size that a window shrinks to: the initial size in RFC 9113 section 6.5.2.
const MIN_WINDOW: u32 = 65_535;

/// The receive window of one connection's streams.
#[derive(Debug)]
pub struct Window {
    size: u32,
    most: u32,
    asked: MeasurementStep,
    /// The window has grown since the last measurement.
    grown: bool,
    next: Option<Instant>,
    /// The stream whose reader is measured.
    measured: Option<u32>,
    /// When the PING was sent.
    since: Option<Instant>,
    /// Bytes that were received for that reader since then, and (the field below) bytes that it has not read yet.
    came: u64,
    waiting: u64,
    /// A stream whose reader took more than half a window. It should be measured next.
    candidate: Option<u32>,
    /// A window that was not sent to the peer yet.
    wanted: Option<u32>,
    /// A PING that was not sent yet.
    wants_ping: bool,
}

/// What the measurement waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum MeasurementStep {
    /// Nothing.
    #[default]
    Nothing,
    /// The answer to a PING. In this round trip the sender learns of a larger window, so it is not measured.
    Passing,
    /// The answer to a PING. The bytes of this round trip are counted.
    Measuring,
    /// The reader, until it has read what was received.
    Taking { until: Instant },
}

impl Window {
    /// A window that begins with `initial` and never exceeds `most`, in bytes.
    pub fn new(initial: u32, most: u32) -> Self {
        Self {
            size: initial,
            most: most.max(initial),
            asked: MeasurementStep::Nothing,
            grown: false,
            next: None,
            measured: None,
            since: None,
            came: 0,
            waiting: 0,
            candidate: None,
            wanted: None,
            wants_ping: false,
        }
    }

    /// The window's present size, in bytes.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Notes that so many bytes were received for a stream, while `waiting` others wait for its reader.
    #[inline]
    pub fn came(&mut self, stream: u32, bytes: u32, waiting: usize) {
        let bytes = u64::from(bytes);
        if self.measured == Some(stream) {
            if self.asked == MeasurementStep::Measuring {
                self.came += bytes;
                self.waiting += bytes;
            }
        } else if self.candidate == Some(stream) && self.asked == MeasurementStep::Nothing {
            self.begin(stream, bytes, waiting as u64);
        }
    }

    /// Begins a measurement. It reads the clock only for a stream whose reader took enough.
    fn begin(&mut self, stream: u32, bytes: u64, waiting: u64) {
        let now = Instant::now();
        if self.size >= self.most || self.next.is_some_and(|next| now < next) {
            return;
        }
        self.candidate = None;
        self.wants_ping = true;
        if std::mem::take(&mut self.grown) {
            self.asked = MeasurementStep::Passing;
            return;
        }
        (self.asked, self.measured, self.since) = (MeasurementStep::Measuring, Some(stream), Some(now));
        (self.came, self.waiting) = (bytes, waiting + bytes);
    }

    /// Notes that a stream's reader read so many bytes, `all` in total. Returns true if there is a window to send.
    pub fn took(&mut self, stream: u32, bytes: u32, all: u64) -> bool {
        if self.measured == Some(stream) {
            self.waiting = self.waiting.saturating_sub(u64::from(bytes));
            self.settle();
            return self.wanted.is_some();
        }
        if all >= u64::from(self.size / 2).max(1) {
            self.candidate = Some(stream);
        }
        false
    }

    /// A stream has ended.
    pub fn forget(&mut self, stream: u32) {
        if self.measured == Some(stream) {
            self.measured = None;
            if matches!(self.asked, MeasurementStep::Taking { .. }) {
                self.asked = MeasurementStep::Nothing;
            }
        }
        self.candidate = self.candidate.filter(|candidate| *candidate != stream);
    }

    /// Whether a PING must be sent now. It is returned once.
    pub const fn take_ping(&mut self) -> bool {
        std::mem::replace(&mut self.wants_ping, false)
    }

    /// The PING was answered.
    pub fn answered(&mut self) {
        if self.asked != MeasurementStep::Measuring {
            self.asked = MeasurementStep::Nothing;
            return;
        }
        let now = Instant::now();
        if self.measured.is_none() || self.came < u64::from(self.size) / 3 * 2 {
            self.pause(now);
            return;
        }
        let round_trip = self.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        self.asked = MeasurementStep::Taking { until: now + round_trip };
        self.settle();
    }

    /// Grows the window if the reader has read everything in time.
    fn settle(&mut self) {
        let MeasurementStep::Taking { until } = self.asked else { return };
        if self.waiting > 0 {
            return;
        }
        let now = Instant::now();
        if now > until {
            self.pause(now);
            return;
        }
        (self.asked, self.measured, self.next, self.grown) = (MeasurementStep::Nothing, None, None, true);
        let wanted = u32::try_from(self.came.saturating_mul(2)).unwrap_or(u32::MAX);
        self.resize(wanted.max(self.size.saturating_mul(2)).min(self.most));
    }

    fn pause(&mut self, now: Instant) {
        (self.asked, self.measured, self.next) = (MeasurementStep::Nothing, None, Some(now + PAUSE));
    }

    /// The process is short of memory: the windows become as small as allowed, and never grow again on this connection.
    pub fn shrink(&mut self) {
        self.most = MIN_WINDOW.min(self.size);
        self.resize(self.most);
    }

    const fn resize(&mut self, size: u32) {
        if size != self.size {
            self.size = size;
            self.wanted = Some(size);
        }
    }

    /// The window to send to the peer now. It is returned once.
    pub const fn take_wanted(&mut self) -> Option<u32> {
        self.wanted.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stream whose reader takes everything that arrives.
    struct SlowReader(u32, u64);

    impl SlowReader {
        fn took(&mut self, window: &mut Window, bytes: u32) {
            window.came(self.0, bytes, 0);
            self.takes(window, bytes);
        }

        fn takes(&mut self, window: &mut Window, bytes: u32) -> Option<u32> {
            self.1 += u64::from(bytes);
            let looks = window.took(self.0, bytes, self.1);
            window.take_wanted().inspect(|_| assert!(looks))
        }
    }

    fn answered(window: &mut Window) -> Option<u32> {
        window.answered();
        window.take_wanted()
    }

    #[tokio::test(start_paused = true)]
    async fn it_doubles_up_to_its_limit_while_a_reader_waits_for_the_window() {
        let mut window = Window::new(100_000, 300_000);
        let mut reader = SlowReader(1, 0);
        reader.took(&mut window, 49_999);
        reader.took(&mut window, 1);
        assert!(!window.take_ping(), "half a window was not reached when the data arrived");
        reader.took(&mut window, 1);
        assert!(window.take_ping() && !window.take_ping());
        reader.took(&mut window, 99_999);
        assert_eq!(answered(&mut window), Some(200_000));
        reader.took(&mut window, 1);
        reader.took(&mut window, 1);
        assert!(window.take_ping());
        reader.took(&mut window, 100_000);
        assert_eq!(answered(&mut window), None, "the sender did not know of the larger window");
        reader.took(&mut window, 1);
        assert!(window.take_ping(), "at once");
        reader.took(&mut window, 199_999);
        assert_eq!(answered(&mut window), Some(300_000));
        reader.took(&mut window, 1);
        reader.took(&mut window, 1);
        assert!(!window.take_ping(), "there is nothing to win");
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_does_not_change_for_a_reader_that_takes_less_than_it() {
        let mut window = Window::new(100_000, 300_000);
        let (mut slow, mut other) = (SlowReader(1, 0), SlowReader(3, 0));
        slow.took(&mut window, 60_000);
        slow.took(&mut window, 1);
        assert!(window.take_ping());
        other.took(&mut window, 1_000_000);
        slow.took(&mut window, 60_000);
        assert_eq!(answered(&mut window), None, "only the measured stream counts");
        slow.took(&mut window, 1);
        slow.took(&mut window, 1);
        assert!(!window.take_ping(), "not again at once");
        tokio::time::advance(PAUSE).await;
        slow.took(&mut window, 1);
        assert!(window.take_ping());
        window.forget(3);
        assert_eq!(answered(&mut window), None);
    }

    #[tokio::test(start_paused = true)]
    async fn data_before_the_answer_counts_only_if_it_is_taken_soon() {
        for (late, grows) in [(50, Some(200_000)), (51, None)] {
            let mut window = Window::new(100_000, 300_000);
            let mut reader = SlowReader(1, 0);
            reader.took(&mut window, 60_000);
            // 10,000 bytes wait already.
            window.came(1, 1, 10_000);
            assert!(window.take_ping());
            tokio::time::advance(Duration::from_millis(50)).await;
            // The rest of a window and the answer arrive in one turn.
            window.came(1, 99_999, 10_001);
            assert_eq!(answered(&mut window), None, "nothing is taken yet");
            assert_eq!(reader.takes(&mut window, 109_999), None);
            tokio::time::advance(Duration::from_millis(late)).await;
            assert_eq!(reader.takes(&mut window, 1), grows, "{late} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_measured_stream_ends_the_next_one_is_measured() {
        let mut window = Window::new(100_000, 300_000);
        let (mut one, mut other) = (SlowReader(1, 0), SlowReader(3, 0));
        one.took(&mut window, 60_000);
        window.came(1, 100_000, 0);
        assert!(window.take_ping());
        assert_eq!(answered(&mut window), None);
        window.forget(1);
        other.took(&mut window, 60_000);
        other.took(&mut window, 100_000);
        assert!(window.take_ping());
        assert_eq!(answered(&mut window), Some(200_000));
    }

    #[tokio::test(start_paused = true)]
    async fn it_shrinks_for_good_when_memory_is_short() {
        let mut window = Window::new(100_000, 300_000);
        window.shrink();
        assert_eq!(window.take_wanted(), Some(65_535));
        let mut reader = SlowReader(1, 0);
        reader.took(&mut window, 1 << 20);
        reader.took(&mut window, 1 << 20);
        assert!(!window.take_ping());
        window.shrink();
        assert_eq!(window.take_wanted(), None);
    }
}
