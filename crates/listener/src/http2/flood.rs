//! Frames that cost attache more than they cost the client.
//!
//! **What a flood is.** Some frames make us work and cost the client next to nothing: PING and SETTINGS want an answer (CVE-2019-9512, -9515),
//! a HEADERS that is reset a moment later starts a request in vain (CVE-2023-44487), a stream error that the client provokes is a
//! reset of ours (CVE-2025-8671), a WINDOW_UPDATE of one byte a frame of one (CVE-2019-9511). Each has a price, in the work of one PING.
//! Well-known clients send all of them every day, beside work that they came for; so that work pays:
//!
//! | frame | price |
//! | --- | --- |
//! | PING, PRIORITY, WINDOW_UPDATE, unknown, DATA without data | 1 |
//! | SETTINGS (each stream is looked at) | 4 |
//! | RST_STREAM (a request that was begun in vain) | 50 |
//! | a reset of ours for an error of the client | 20 |
//! | **earned:** a request that was answered | 200 |
//! | **earned:** DATA that was sent to the client | 1 for each 256 bytes |
//!
//! What is not paid for comes out of a bucket of the connection and one of the client's address ([`account`](super::account)), which fill with
//! time. When one is empty, the connection ends with GOAWAY(ENHANCE_YOUR_CALM) and the reason `http2-flood`. `docs/http2.md` has what
//! that costs whom. The clock is read once for [`PART`] of a burst.

use std::{cell::OnceCell, fmt, io, net::IpAddr, rc::Rc};

use attache_config::model::HttpLimits;
use attache_http2::{Head, kind};
use tokio::time::Instant;

use super::account::{self, Account};
use crate::live::Live;

/// What is spent before it is settled: this part of a burst.
const PART: u64 = 100;

const ANSWERED: u64 = 200;
const BYTES_FOR_ONE: usize = 256;

/// What a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Ping,
    Settings,
    Reset,
    OurReset,
    WindowUpdate,
    EmptyData,
    Other,
}

impl What {
    const ALL: [Self; 7] = [
        Self::Ping,
        Self::Settings,
        Self::Reset,
        Self::OurReset,
        Self::WindowUpdate,
        Self::EmptyData,
        Self::Other,
    ];

    const fn price(self) -> u64 {
        match self {
            Self::Ping | Self::WindowUpdate | Self::EmptyData | Self::Other => 1,
            Self::Settings => 4,
            Self::OurReset => 20,
            Self::Reset => 50,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Ping => "PING frames",
            Self::Settings => "SETTINGS frames",
            Self::Reset => "cancelled requests",
            Self::OurReset => "stream errors",
            Self::WindowUpdate => "WINDOW_UPDATE frames",
            Self::EmptyData => "DATA frames without data",
            Self::Other => "PRIORITY or unknown frames",
        }
    }
}

/// What one connection may spend that nothing paid for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Prices of PINGs a second.
    pub(super) rate: u64,
    /// Prices of PINGs at once.
    pub(super) burst: u64,
    /// How many times that all connections of one address may spend.
    pub(super) per_client: u32,
}

impl From<&HttpLimits> for Bounds {
    fn from(limits: &HttpLimits) -> Self {
        Self {
            rate: limits.h2_flood_rate.into(),
            burst: limits.h2_flood_burst.into(),
            per_client: limits.h2_flood_per_client,
        }
    }
}

/// Why a connection was ended, once it is.
pub(crate) type Verdict = Rc<OnceCell<Flooded>>;

/// The verdict on a flood.
#[derive(Clone, Debug)]
pub(crate) struct Flooded {
    what: What,
    whose: &'static str,
    key: &'static str,
}

impl fmt::Display for Flooded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, whose, key } = self;
        write!(
            f,
            "too many {} on {whose} for the requests that were answered (http.limits.{key})",
            what.words()
        )
    }
}

impl std::error::Error for Flooded {}

/// What one connection spent and earned.
#[derive(Debug)]
pub(crate) struct Flood {
    bounds: Bounds,
    client: Option<IpAddr>,
    live: Rc<Live>,
    verdict: Verdict,
    /// May be spent before it is settled.
    left: u64,
    own: Account,
    /// Bytes of DATA that were sent, and answers, when it was last settled.
    sent: usize,
    answered: u64,
    /// How often each was, since then.
    counts: [u64; What::ALL.len()],
}

impl Flood {
    pub(crate) fn new(bounds: Bounds, client: Option<IpAddr>, live: Rc<Live>, verdict: Verdict) -> Self {
        Self {
            own: Account::full(bounds.burst, Instant::now()),
            left: bounds.burst / PART,
            bounds,
            client,
            live,
            verdict,
            sent: 0,
            answered: 0,
            counts: [0; _],
        }
    }

    /// The connection.
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// A frame of the client.
    pub(crate) fn received(&mut self, head: Head) -> io::Result<()> {
        let what = match head.kind {
            kind::DATA if head.length == 0 && !head.ends_stream() => What::EmptyData,
            // An ACK answers one of ours. HEADERS pay by being answered, CONTINUATION is bounded by the h2 crate, and GOAWAY is the end.
            kind::PING | kind::SETTINGS if head.is_ack() => return Ok(()),
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE | kind::GOAWAY | kind::CONTINUATION => {
                return Ok(());
            }
            kind::PING => What::Ping,
            kind::SETTINGS => What::Settings,
            kind::RST_STREAM => What::Reset,
            kind::WINDOW_UPDATE => What::WindowUpdate,
            _ => What::Other,
        };
        self.charge(what)
    }

    /// A frame of ours, and what follows its head in the same write.
    pub(crate) fn sent(&mut self, head: Head, payload: &[u8]) -> io::Result<()> {
        match (head.kind, payload) {
            (kind::DATA, _) => self.sent = self.sent.saturating_add(head.length),
            // RFC 9113 section 7: those that say that the client broke a rule. NO_ERROR, INTERNAL_ERROR, CANCEL and CONNECT_ERROR are our own affair.
            (kind::RST_STREAM, [0, 0, 0, 1 | 3..=7 | 9 | 11, ..]) => return self.charge(What::OurReset),
            _ => {}
        }
        Ok(())
    }

    fn charge(&mut self, what: What) -> io::Result<()> {
        if let Some(count) = self.counts.get_mut(what as usize) {
            *count += 1;
        }
        match self.left.checked_sub(what.price()) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.settle(what.price()),
        }
    }

    /// Pays for what was spent; an error where nothing is left to pay with.
    fn settle(&mut self, next: u64) -> io::Result<()> {
        let part = (self.bounds.burst / PART).max(next);
        let (now, answered) = (Instant::now(), self.live.answered.get());
        let earned = (answered - self.answered) * ANSWERED + (self.sent / BYTES_FOR_ONE) as u64;
        let unpaid = part.saturating_sub(earned);
        (self.answered, self.sent) = (answered, 0);
        let bounds = self.bounds;
        // What was earned beyond this part pays for what comes, up to a burst.
        self.left = part - next + earned.saturating_sub(part).min(self.bounds.burst);
        let whose = if unpaid == 0 {
            None
        } else if !self.own.spend(unpaid, bounds.rate, bounds.burst, now) {
            Some(("this connection", "h2_flood_burst"))
        } else if !account::spend(self.client, unpaid, &bounds, now) {
            Some(("the connections of this address", "h2_flood_per_client"))
        } else {
            None
        };
        let counts = std::mem::replace(&mut self.counts, [0; _]);
        let Some((whose, key)) = whose else { return Ok(()) };
        let cost = |what: &What| counts.get(*what as usize).copied().unwrap_or(0) * what.price();
        let what = What::ALL.into_iter().max_by_key(cost).unwrap_or(What::Other);
        let flooded = Flooded { what, whose, key };
        let _ = self.verdict.set(flooded.clone());
        Err(io::Error::new(io::ErrorKind::InvalidData, flooded))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // What was spent and not settled counts for the address, so that many short connections are no way round.
        let spent: u64 = What::ALL.iter().zip(self.counts).map(|(what, count)| what.price() * count).sum();
        let answers = self.live.answered.get() - self.answered;
        let unpaid = spent.saturating_sub(answers * ANSWERED + (self.sent / BYTES_FOR_ONE) as u64);
        if unpaid * 10 > self.bounds.burst / PART {
            account::spend(self.client, unpaid, &self.bounds, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUNDS: Bounds = Bounds { rate: 1000, burst: 5000, per_client: 2 };

    fn flood(client: Option<IpAddr>) -> (Flood, Rc<Live>) {
        let live: Rc<Live> = Rc::default();
        (Flood::new(BOUNDS, client, live.clone(), Verdict::default()), live)
    }

    fn frame(kind: u8, length: usize) -> Head {
        Head { length, kind, flags: 0, stream: 1 }
    }

    fn until_the_end(flood: &mut Flood, head: Head) -> (u64, String) {
        for n in 1..1_000_000 {
            if let Err(error) = flood.received(head) {
                return (n, error.to_string());
            }
        }
        panic!("no end");
    }

    #[tokio::test(start_paused = true)]
    async fn pings_at_once_end_the_connection_and_the_words_say_so() {
        let (mut flood, _) = flood(None);
        let (n, words) = until_the_end(&mut flood, frame(kind::PING, 8));
        assert!((5000..=5101).contains(&n), "{n}");
        assert_eq!(
            words,
            "too many PING frames on this connection for the requests that were answered \
             (http.limits.h2_flood_burst)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pings_at_the_rate_never_end_it() {
        let (mut flood, _) = flood(Some("192.0.2.7".parse().unwrap()));
        for _ in 0..100_000 {
            tokio::time::advance(Duration::from_micros(1010)).await;
            flood.received(frame(kind::PING, 8)).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_one_answer_of_four_pays_for_the_others() {
        let (mut flood, live) = flood(None);
        for _ in 0..10_000 {
            live.answered.set(live.answered.get() + 1);
            (0..3).for_each(|_| flood.received(frame(kind::RST_STREAM, 4)).unwrap());
        }
        let (n, words) = until_the_end(&mut flood, frame(kind::RST_STREAM, 4));
        assert!(n <= 310 && words.contains("cancelled requests"), "{n} {words}");
    }

    #[tokio::test(start_paused = true)]
    async fn window_updates_are_paid_for_by_what_was_sent() {
        let (mut flood, _) = flood(None);
        for _ in 0..100_000 {
            flood.sent(frame(kind::DATA, 1024), &[]).unwrap();
            (0..2).for_each(|_| flood.received(frame(kind::WINDOW_UPDATE, 4)).unwrap());
        }
        let (n, _) = until_the_end(&mut flood, frame(kind::WINDOW_UPDATE, 4));
        assert!(n <= 16_000, "{n}");
    }

    #[tokio::test(start_paused = true)]
    async fn resets_of_ours_count_where_the_client_broke_a_rule() {
        let (mut flood, _) = flood(None);
        let reset = frame(kind::RST_STREAM, 4);
        (0..10_000).for_each(|_| flood.sent(reset, &[0, 0, 0, 8]).unwrap());
        assert!((0..300).any(|_| flood.sent(reset, &[0, 0, 0, 1]).is_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_no_way_round() {
        let client = Some("192.0.2.8".parse().unwrap());
        let mut spent = 0;
        for _ in 0..1000 {
            let (mut flood, _) = flood(client);
            // Just below what is settled.
            spent += (0..150).take_while(|_| flood.received(frame(kind::PING, 8)).is_ok()).count();
        }
        assert!(spent < 120_000, "{spent}");
        let (mut flood, _) = flood(client);
        let (n, words) = until_the_end(&mut flood, frame(kind::PING, 8));
        assert!(n <= 101 && words.contains("of this address"), "{n} {words}");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_and_continuations_are_not_counted_here() {
        let (mut flood, _) = flood(None);
        for _ in 0..100_000 {
            flood.received(Head { flags: 1, ..frame(kind::PING, 8) }).unwrap();
            flood.received(Head { flags: 1, ..frame(kind::DATA, 0) }).unwrap();
            flood.received(frame(kind::HEADERS, 10)).unwrap();
            flood.received(frame(kind::DATA, 1)).unwrap();
        }
    }
}
