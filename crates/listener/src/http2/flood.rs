//! Frames that cost attache work and the client nothing.
//!
//! The h2 crate bounds what it would have to remember: CONTINUATIONs of one header block, streams that are reset before they are
//! accepted (CVE-2023-44487), resets of its own, empty DATA. It answers every PING and SETTINGS (CVE-2019-9512, CVE-2019-9515) and starts a
//! request for every HEADERS that is reset a moment later, however many come. So these are counted here.
//!
//! The rule: by a thousand such frames either half as many exchanges have come to a good end, or ten seconds have passed; else the connection
//! is closed. A client's pings, cancelled calls and settings are far below. The clock is read once in a thousand.

use std::{io, rc::Rc, time::Duration};

use tokio::time::Instant;

use crate::{detect::PREFACE, live::Live};

const FRAMES: u64 = 1000;
const WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Flood {
    /// Payload bytes, or the preface's, that are not looked at.
    skip: usize,
    header: [u8; 9],
    filled: usize,
    counted: u64,
    since: Instant,
    completed: u64,
    live: Rc<Live>,
}

impl Flood {
    pub(crate) fn new(live: Rc<Live>) -> Self {
        Self {
            skip: PREFACE.len(),
            header: [0; 9],
            filled: 0,
            counted: 0,
            since: Instant::now(),
            completed: 0,
            live,
        }
    }

    /// The connection.
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// Looks at bytes that the client sent, in any pieces.
    pub(crate) fn look(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = bytes.get(n..).unwrap_or_default();
                continue;
            }
            let room = self.header.get_mut(self.filled..).unwrap_or_default();
            let n = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(n);
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            bytes = later;
            self.filled += n;
            if self.filled == self.header.len() {
                self.filled = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> io::Result<()> {
        let [a, b, c, kind, flags, ..] = self.header;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let free_of_charge = match kind {
            0 => self.skip == 0 && flags & 1 == 0, // DATA without data that isn't the end
            1 | 5 | 7..=9 => false, // HEADERS, PUSH_PROMISE, GOAWAY, WINDOW_UPDATE, CONTINUATION
            4 | 6 => flags & 1 == 0, // SETTINGS and PING; their ACKs are answers to ours
            _ => true,              // PRIORITY, RST_STREAM, unknown
        };
        if !free_of_charge {
            return Ok(());
        }
        self.counted += 1;
        if self.counted < FRAMES {
            return Ok(());
        }
        let (now, completed) = (Instant::now(), self.live.completed.get());
        if now - self.since < WITHIN && completed - self.completed < FRAMES / 2 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a flood of PING, SETTINGS, RST_STREAM, PRIORITY or empty DATA frames",
            ));
        }
        (self.counted, self.since, self.completed) = (0, now, completed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    fn flood() -> Flood {
        let mut flood = Flood::new(Rc::default());
        flood.look(PREFACE).unwrap();
        flood
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_pings_at_once_end_the_connection() {
        let mut flood = flood();
        for _ in 0..FRAMES - 1 {
            flood.look(&PING).unwrap();
        }
        assert!(flood.look(&PING).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn pings_over_hours_do_not() {
        let mut flood = flood();
        for _ in 0..10 * FRAMES {
            tokio::time::advance(Duration::from_millis(11)).await;
            flood.look(&PING).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_found_in_pieces_of_any_size() {
        for size in [1, 2, 5, 9, 16, 17, 18] {
            let mut flood = flood();
            let all = PING.repeat(1000);
            let results: Vec<_> = all.chunks(size).map(|piece| flood.look(piece).is_ok()).collect();
            assert!(results[..results.len() - 20].iter().all(|ok| *ok), "pieces of {size}");
            assert!(results.iter().any(|ok| !*ok), "pieces of {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn resets_are_paid_for_by_finished_exchanges() {
        let live: Rc<Live> = Rc::default();
        let mut flood = Flood::new(live.clone());
        flood.look(PREFACE).unwrap();
        for _ in 0..5 * FRAMES {
            flood.look(&[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8]).unwrap();
            live.completed.set(live.completed.get() + 1);
        }
    }
}
