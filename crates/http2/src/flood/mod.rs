//! Frames that cost attache more than they cost the peer.
//!
//! **What a flood is.** Some frames cause work here and cost the sender almost nothing.
//! PING and SETTINGS need an answer (CVE-2019-9512, -9515).
//! A HEADERS that is reset a moment later starts a request for nothing (CVE-2023-44487).
//! A stream error that the client provokes makes us send a reset (CVE-2025-8671).
//! A WINDOW_UPDATE of one byte makes us send a frame of one byte (CVE-2019-9511).
//! Each has a price, in units of the work for one PING.
//! Ordinary peers send all of these frames beside their requests and data. So requests and data earn credit:
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
//! What exceeds the credit is taken from a token bucket of the connection, which fills with time, and is reported to the
//! connection's [`Payer`].
//! When the bucket is empty, the connection ends with GOAWAY(ENHANCE_YOUR_CALM).
//! `docs/http2.md` has the cost of a flood for both sides.
//! The clock is read once for [`PART`] of a burst.

use std::fmt;

use tokio::time::Instant;

use crate::{Head, kind};

/// A payload below this costs more to handle than its bytes are.
const SMALL: usize = 256;

/// What padding adds to a frame, with its length, at most (RFC 9113 section 6.1).
const MOST_PADDING: usize = 256;

/// The part of a burst that may be spent before the bucket is updated.
pub const PART: u64 = 100;

const REQUEST: u64 = 200;
const BYTES_FOR_ONE: usize = 256;

/// Small DATA frames for the price of a PING. They are joined as they come, which makes one a few dozen instructions
/// where a PING is several hundred; and a good peer sends a hundred thousand of them in a second.
const SMALL_FOR_ONE: u8 = 16;

/// What a price is for.
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

/// What one connection may spend beyond its credit.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Units (the price of a PING) per second.
    pub rate: u64,
    /// Units at once.
    pub burst: u64,
}

/// A bucket of prices that fills with time.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    left: u64,
    since: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub const fn full(bounds: Bounds, now: Instant) -> Self {
        Self { left: bounds.burst, since: now }
    }

    /// Adds what the time since the last call is worth; says whether the bucket is full.
    pub fn fill(&mut self, bounds: Bounds, now: Instant) -> bool {
        let earned = (now.duration_since(self.since).as_millis() as u64).saturating_mul(bounds.rate) / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(bounds.burst);
            self.since = now;
        }
        self.left >= bounds.burst
    }

    /// Takes what was spent; false where there is less.
    pub fn spend(&mut self, amount: u64, bounds: Bounds, now: Instant) -> bool {
        self.fill(bounds, now);
        let enough = self.left >= amount;
        self.left = self.left.saturating_sub(amount);
        enough
    }
}

/// Whose frames these are.
pub trait Payer: fmt::Debug {
    /// The frames are a server's: the requests are ours.
    const IS_SERVER: bool;

    /// The config's section with the keys `h2_flood_rate` and `h2_flood_burst`.
    const SECTION: &'static str;

    /// Requests so far that pay: of a client those that were answered, to a server those that were sent.
    fn requests(&self) -> u64;

    /// The connection spends this much of its own; the key of a bound that is exceeded with it, if there is one, and whose.
    ///
    /// By default a connection has no limit beside its own.
    fn spend(&self, _amount: u64, _now: Instant) -> Result<(), (&'static str, &'static str)> {
        Ok(())
    }
}

/// Follows what a connection's frames cost.
pub trait Meter: fmt::Debug {
    /// A frame of the peer.
    ///
    /// # Errors
    /// The connection has spent more than it may, and is to be ended.
    fn received(&mut self, head: Head) -> Result<(), Flooded>;

    /// A reset of ours says that the peer broke a rule.
    ///
    /// # Errors
    /// As [`received`](Self::received).
    fn charged(&mut self) -> Result<(), Flooded>;

    /// A frame for a closed stream: read and dropped.
    ///
    /// # Errors
    /// As [`received`](Self::received).
    fn late(&mut self, head: Head) -> Result<(), Flooded>;

    /// Bytes of DATA were sent.
    fn sent(&mut self, bytes: usize);

    /// A PING was sent.
    fn asked(&mut self);
}

/// The limit that a flood exceeded.
#[derive(Clone, Debug)]
pub struct Flooded {
    what: PricedEvent,
    whose: &'static str,
    work: &'static str,
    section: &'static str,
    key: &'static str,
}

impl fmt::Display for Flooded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, whose, work, section, key } = self;
        write!(f, "too many {} on {whose} for the requests that were {work} ({section}.{key})", what.words())
    }
}

impl std::error::Error for Flooded {}

/// What one connection spent and earned.
#[derive(Debug)]
pub struct Flood<P: Payer> {
    bounds: Bounds,
    payer: P,
    /// Units that may be spent before the bucket is updated.
    left: u64,
    own: TokenBucket,
    /// Bytes of DATA that were sent, and requests, at the last update of the bucket.
    sent: usize,
    requests: u64,
    /// PINGs of ours that were not answered yet.
    asked: u32,
    /// Small DATA frames that were not charged yet.
    small: u8,
    /// How often each was, since then.
    counts: [u64; PricedEvent::ALL.len()],
}

impl<P: Payer> Flood<P> {
    /// A new connection.
    pub fn new(bounds: Bounds, payer: P) -> Self {
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

    fn charge(&mut self, what: PricedEvent) -> Result<(), Flooded> {
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

    /// Takes what was spent from the credit and the bucket; an error if both are used up.
    fn settle(&mut self, next: u64) -> Result<(), Flooded> {
        let part = (self.bounds.burst / PART).max(next);
        let (now, requests) = (Instant::now(), self.payer.requests());
        let earned = (requests - self.requests) * REQUEST + (self.sent / BYTES_FOR_ONE) as u64;
        let unpaid = part.saturating_sub(earned);
        (self.requests, self.sent) = (requests, 0);
        // Credit that was not needed fills the bucket, up to a burst.
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
        Err(Flooded { what, whose, work, section: P::SECTION, key })
    }
}

impl<P: Payer> Meter for Flood<P> {
    fn received(&mut self, head: Head) -> Result<(), Flooded> {
        let what = match head.kind {
            kind::DATA if head.ends_stream() => return Ok(()),
            kind::DATA if head.length == 0 => PricedEvent::EmptyData,
            kind::DATA if head.length < SMALL || (head.is_padded() && head.length < SMALL + MOST_PADDING) => {
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
            // HEADERS of a client pay by being answered, and those of its trailers are one more for a stream.
            // CONTINUATION is bounded for each block, and an ACK of SETTINGS that were not sent ends the connection.
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

    fn charged(&mut self) -> Result<(), Flooded> {
        self.charge(PricedEvent::OurReset)
    }

    fn late(&mut self, head: Head) -> Result<(), Flooded> {
        match head.kind {
            // What was received has charged it.
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

impl<P: Payer> Drop for Flood<P> {
    fn drop(&mut self) {
        // Units that were spent since the last update count for the payer: many short connections don't avoid its limit.
        let spent: u64 =
            PricedEvent::ALL.iter().zip(self.counts).map(|(what, count)| what.price() * count).sum();
        let requests = self.payer.requests() - self.requests;
        let unpaid = spent.saturating_sub(requests * REQUEST + (self.sent / BYTES_FOR_ONE) as u64);
        if unpaid * 10 > self.bounds.burst / PART {
            let _ = self.payer.spend(unpaid, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
