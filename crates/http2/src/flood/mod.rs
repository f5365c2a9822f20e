//! Frames that cost attache more than they cost the peer.
//!
//! **What a flood is.** Some frames cause work here and cost the sender almost nothing.
//! PING and SETTINGS need an answer (CVE-2019-9512, -9515).
//! A HEADERS that is reset a moment later starts a request for nothing (CVE-2023-44487).
//! A stream error that the client provokes makes us send a reset (CVE-2025-8671).
//! A WINDOW_UPDATE of one byte makes us send a frame of one byte (CVE-2019-9511).
//! Each has a price, in units of the work for one PING.
//! Ordinary peers send all of these frames too, beside their requests and data. So requests and data earn credit:
//!
//! | frame | price |
//! | --- | --- |
//! | PING, an answer to a PING that was not sent, PRIORITY, WINDOW_UPDATE, GOAWAY, unknown, DATA without data | 1 |
//! | DATA with little data (below 256 bytes) | 1 for [`SMALL_FOR_ONE`] |
//! | HEADERS, or little DATA with END_STREAM, for a stream that we reset | 1 |
//! | SETTINGS (each stream is looked at) | 4 |
//! | HEADERS of a server: each call has one or two, and any number of 1xx | 10 |
//! | RST_STREAM (a request that was begun in vain) | 50 |
//! | a reset of ours for an error of the peer | 20 |
//! | **earned:** a request, by its answer or by being sent | 200 |
//! | **earned:** DATA that was sent to the peer | 1 for each 256 bytes |
//!
//! If the costs exceed the credit, the rest is taken from a token bucket of the connection, which fills with time, and is also reported to
//! the connection's [`FloodPayer`].
//! When the bucket is empty, the connection ends with GOAWAY(ENHANCE_YOUR_CALM).
//! `docs/http2.md` has the cost of a flood for both sides.
//! The clock is read once for each [`PART`] of a burst.

use std::fmt;

use tokio::time::Instant;

use crate::{FrameHeader, kind};

/// The handling of a payload below this size costs more than its bytes do.
const SMALL: usize = 256;

/// The most bytes that padding and its length add to a frame (RFC 9113 section 6.1).
const MAX_PADDING: usize = 256;

/// The part of a burst, in units, that may be spent before the bucket is updated.
pub const PART: u64 = 100;

const REQUEST: u64 = 200;
const BYTES_PER_UNIT: usize = 256;

/// So many small DATA frames cost as much as a PING. They are joined when they arrive, so one costs a few dozen instructions while a PING
/// costs several hundred; and a well-behaved peer sends a hundred thousand of them in a second.
const SMALL_FOR_ONE: u8 = 16;

/// What the peer pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PricedEvent {
    Ping,
    Settings,
    Reset,
    OurReset,
    WindowUpdate,
    EmptyData,
    SmallData,
    Headers,
    Late,
    Other,
}

impl PricedEvent {
    const ALL: [Self; 10] = [
        Self::Ping,
        Self::Settings,
        Self::Reset,
        Self::OurReset,
        Self::WindowUpdate,
        Self::EmptyData,
        Self::SmallData,
        Self::Headers,
        Self::Late,
        Self::Other,
    ];

    const fn price(self) -> u64 {
        match self {
            Self::Ping
            | Self::WindowUpdate
            | Self::EmptyData
            | Self::SmallData
            | Self::Late
            | Self::Other => 1,
            Self::Settings => 4,
            Self::Headers => 10,
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
            Self::SmallData => "DATA frames below 256 bytes",
            Self::Headers => "HEADERS frames",
            Self::Late => "frames for streams that were reset",
            Self::Other => "PRIORITY, GOAWAY or unknown frames",
        }
    }
}

/// What one connection may spend in addition to its credit.
#[derive(Clone, Copy, Debug)]
pub struct FloodLimits {
    /// Units per second; one unit is the price of a PING.
    pub rate: u64,
    /// Units at once.
    pub burst: u64,
}

/// A token bucket for prices. It fills with time.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    left: u64,
    since: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub const fn full(bounds: FloodLimits, now: Instant) -> Self {
        Self { left: bounds.burst, since: now }
    }

    /// Adds the tokens for the time since the last call. Returns whether the bucket is full.
    pub fn fill(&mut self, bounds: FloodLimits, now: Instant) -> bool {
        let earned = (now.duration_since(self.since).as_millis() as u64).saturating_mul(bounds.rate) / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(bounds.burst);
            self.since = now;
        }
        self.left >= bounds.burst
    }

    /// Takes this amount; false if the bucket has less.
    pub fn spend(&mut self, amount: u64, bounds: FloodLimits, now: Instant) -> bool {
        self.fill(bounds, now);
        let enough = self.left >= amount;
        self.left = self.left.saturating_sub(amount);
        enough
    }
}

/// The peer that sends the frames.
pub trait FloodPayer: fmt::Debug {
    /// Whether the peer is a server; then the requests are attache's.
    const IS_SERVER: bool;

    /// The config's section with the keys `h2_flood_rate` and `h2_flood_burst`.
    const SECTION: &'static str;

    /// How many requests have earned credit: for a client those that were answered, for a server those that were sent.
    fn requests(&self) -> u64;

    /// Notes that the connection takes this amount from its bucket. The error is the key of a limit that is exceeded by it, and whose limit
    /// that is.
    ///
    /// By default only the connection itself has a limit.
    fn spend(&self, _amount: u64, _now: Instant) -> Result<(), (&'static str, &'static str)> {
        Ok(())
    }
}

/// Counts what a connection's frames cost.
pub trait Meter: fmt::Debug {
    /// Charges for a frame of the peer.
    ///
    /// # Errors
    /// The connection has spent more than it may, and must be ended.
    fn received(&mut self, head: FrameHeader) -> Result<(), FloodLimitExceeded>;

    /// Charges for a reset that attache sends because the peer broke a rule.
    ///
    /// # Errors
    /// As [`received`](Self::received).
    fn charged(&mut self) -> Result<(), FloodLimitExceeded>;

    /// Charges for a frame for a closed stream. Such a frame is read and dropped.
    ///
    /// # Errors
    /// As [`received`](Self::received).
    fn late(&mut self, head: FrameHeader) -> Result<(), FloodLimitExceeded>;

    /// Notes that so many bytes of DATA were sent.
    fn sent(&mut self, bytes: usize);

    /// Notes that a PING was sent.
    fn asked(&mut self);
}

/// The limit that a flood exceeded.
#[derive(Clone, Debug)]
pub struct FloodLimitExceeded {
    what: PricedEvent,
    whose: &'static str,
    work: &'static str,
    section: &'static str,
    key: &'static str,
}

impl fmt::Display for FloodLimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, whose, work, section, key } = self;
        write!(f, "too many {} on {whose} for the requests that were {work} ({section}.{key})", what.words())
    }
}

impl std::error::Error for FloodLimitExceeded {}

/// What one connection has spent and earned.
#[derive(Debug)]
pub struct Flood<P: FloodPayer> {
    bounds: FloodLimits,
    payer: P,
    /// Units that may be spent before the bucket is updated.
    left: u64,
    own: TokenBucket,
    /// The bytes of DATA that had been sent, and (the field below) the requests, at the last update of the bucket.
    sent: usize,
    requests: u64,
    /// PINGs of attache that are not answered yet.
    asked: u32,
    /// Small DATA frames that are not charged yet.
    small: u8,
    /// How often each event has occurred since the last update.
    counts: [u64; PricedEvent::ALL.len()],
}

impl<P: FloodPayer> Flood<P> {
    /// The costs of a new connection.
    pub fn new(bounds: FloodLimits, payer: P) -> Self {
        Self {
            own: TokenBucket::full(bounds, Instant::now()),
            left: bounds.burst / PART,
            bounds,
            payer,
            sent: 0,
            requests: 0,
            asked: 0,
            small: 0,
            counts: [0; _],
        }
    }

    fn charge(&mut self, what: PricedEvent) -> Result<(), FloodLimitExceeded> {
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

    /// Takes what was spent out of the credit and the bucket. An error if that is not enough.
    fn settle(&mut self, next: u64) -> Result<(), FloodLimitExceeded> {
        let part = (self.bounds.burst / PART).max(next);
        let (now, requests) = (Instant::now(), self.payer.requests());
        let earned = (requests - self.requests) * REQUEST + (self.sent / BYTES_PER_UNIT) as u64;
        let unpaid = part.saturating_sub(earned);
        (self.requests, self.sent) = (requests, 0);
        // Unused credit fills the bucket, up to the size of a burst.
        self.left = part - next + earned.saturating_sub(part).min(self.bounds.burst);
        let exceeded = if unpaid == 0 {
            None
        } else if !self.own.spend(unpaid, self.bounds, now) {
            Some(("this connection", "h2_flood_burst"))
        } else {
            self.payer.spend(unpaid, now).err()
        };
        let counts = std::mem::replace(&mut self.counts, [0; _]);
        let Some((whose, key)) = exceeded else { return Ok(()) };
        let cost = |what: &PricedEvent| counts.get(*what as usize).copied().unwrap_or(0) * what.price();
        let what = PricedEvent::ALL.into_iter().max_by_key(cost).unwrap_or(PricedEvent::Other);
        let work = if P::IS_SERVER { "sent" } else { "answered" };
        Err(FloodLimitExceeded { what, whose, work, section: P::SECTION, key })
    }
}

impl<P: FloodPayer> Meter for Flood<P> {
    fn received(&mut self, head: FrameHeader) -> Result<(), FloodLimitExceeded> {
        let what = match head.kind {
            kind::DATA if head.ends_stream() => return Ok(()),
            kind::DATA if head.length == 0 => PricedEvent::EmptyData,
            kind::DATA if head.length < SMALL || (head.is_padded() && head.length < SMALL + MAX_PADDING) => {
                self.small += 1;
                if self.small < SMALL_FOR_ONE {
                    return Ok(());
                }
                self.small = 0;
                PricedEvent::SmallData
            }
            kind::PING if head.is_ack() && self.asked > 0 => {
                self.asked -= 1;
                return Ok(());
            }
            kind::HEADERS if P::IS_SERVER => PricedEvent::Headers,
            // HEADERS of a client are charged when the request is answered; those of trailers are at most one more for each stream. The
            // number of CONTINUATION frames is limited for each block, and an ACK for SETTINGS that were not sent ends the connection.
            kind::SETTINGS if head.is_ack() => return Ok(()),
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION => return Ok(()),
            kind::PING => PricedEvent::Ping,
            kind::SETTINGS => PricedEvent::Settings,
            kind::RST_STREAM => PricedEvent::Reset,
            kind::WINDOW_UPDATE => PricedEvent::WindowUpdate,
            _ => PricedEvent::Other,
        };
        self.charge(what)
    }

    fn charged(&mut self) -> Result<(), FloodLimitExceeded> {
        self.charge(PricedEvent::OurReset)
    }

    fn late(&mut self, head: FrameHeader) -> Result<(), FloodLimitExceeded> {
        match head.kind {
            // They are charged when they are received.
            kind::HEADERS if P::IS_SERVER => Ok(()),
            kind::DATA if !head.ends_stream() || head.length >= SMALL => Ok(()),
            _ => self.charge(PricedEvent::Late),
        }
    }

    fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
    }

    fn asked(&mut self) {
        self.asked = self.asked.saturating_add(1);
    }
}

impl<P: FloodPayer> Drop for Flood<P> {
    fn drop(&mut self) {
        // The payer also counts the units spent since the last update, so that many short connections can't avoid its limit.
        let spent: u64 =
            PricedEvent::ALL.iter().zip(self.counts).map(|(what, count)| what.price() * count).sum();
        let requests = self.payer.requests() - self.requests;
        let unpaid = spent.saturating_sub(requests * REQUEST + (self.sent / BYTES_PER_UNIT) as u64);
        if unpaid * 10 > self.bounds.burst / PART {
            let _ = self.payer.spend(unpaid, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
