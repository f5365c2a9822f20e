//! The breaker's state machine, in one word.
//!
//! Phase, generation and what belongs to the phase change together by one compare-and-swap, so there is no
//! moment in which two workers see half of a transition: who wins the swap has made the transition, who loses looks again.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use attache_config::model::{FailureBreaker, Name};
use tokio::time::Instant;

use super::window::Window;

/// What a caller is told to wait while the probes are out.
const PROBING: Duration = Duration::from_secs(1);

/// One upstream's breaker.
#[derive(Debug)]
pub struct Circuit {
    config: FailureBreaker,
    name: Name,
    epoch: Instant,
    state: AtomicU64,
    consecutive: AtomicU32,
    window: Window,
    /// Open times in a row, which double the next.
    opened: AtomicU32,
    since: AtomicU64,
}

/// What the breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Lets them through.
    Closed,
    /// Answers them itself until this instant.
    Open(Instant),
    /// Lets its probes through.
    HalfOpen,
}

/// Proof of having been let through.
#[derive(Debug)]
pub(super) struct Ticket {
    generation: u64,
    probe: bool,
}

/// 2 bits of phase, 14 of generation, 48 of what the phase needs.
#[derive(Clone, Copy)]
struct Word {
    generation: u64,
    phase: Inner,
}

#[derive(Clone, Copy)]
enum Inner {
    Closed,
    /// Milliseconds since the epoch.
    Open(u64),
    HalfOpen {
        admitted: u64,
        succeeded: u64,
    },
}

const GENERATIONS: u64 = 1 << 14;
const PAYLOAD: u64 = (1 << 48) - 1;
const COUNT: u64 = (1 << 24) - 1;

impl Word {
    fn pack(self) -> u64 {
        let (phase, payload) = match self.phase {
            Inner::Closed => (0, 0),
            Inner::Open(until) => (1, until.min(PAYLOAD)),
            Inner::HalfOpen { admitted, succeeded } => (2, admitted << 24 | succeeded),
        };
        phase << 62 | self.generation << 48 | payload
    }

    fn unpack(word: u64) -> Self {
        let payload = word & PAYLOAD;
        let phase = match word >> 62 {
            0 => Inner::Closed,
            1 => Inner::Open(payload),
            _ => Inner::HalfOpen { admitted: payload >> 24, succeeded: payload & COUNT },
        };
        Self { generation: word >> 48 & (GENERATIONS - 1), phase }
    }

    fn next(self, phase: Inner) -> Self {
        Self { generation: (self.generation + 1) % GENERATIONS, phase }
    }
}

impl Circuit {
    pub(crate) fn new(config: FailureBreaker, name: Name, now: Instant) -> Self {
        let window = Window::new(config.window);
        Self {
            config,
            name,
            epoch: now,
            state: AtomicU64::new(0),
            consecutive: AtomicU32::new(0),
            window,
            opened: AtomicU32::new(0),
            since: AtomicU64::new(0),
        }
    }

    /// What it does now, and since when.
    pub fn phase(&self) -> (Phase, Instant) {
        let phase = match Word::unpack(self.state.load(Relaxed)).phase {
            Inner::Closed => Phase::Closed,
            Inner::Open(until) => Phase::Open(self.instant(until)),
            Inner::HalfOpen { .. } => Phase::HalfOpen,
        };
        (phase, self.instant(self.since.load(Relaxed)))
    }

    /// Lets a call through, or says when it is worth asking again. A closed breaker reads no clock.
    pub(super) fn admit(&self) -> Result<Ticket, Duration> {
        let probes = u64::from(self.config.probes.max(1));
        loop {
            let word = Word::unpack(self.state.load(Relaxed));
            let next = match word.phase {
                Inner::Closed => return Ok(Ticket { generation: word.generation, probe: false }),
                Inner::Open(until) => {
                    let now = Instant::now();
                    if now < self.instant(until) {
                        return Err(self.instant(until).saturating_duration_since(now));
                    }
                    word.next(Inner::HalfOpen { admitted: 1, succeeded: 0 })
                }
                Inner::HalfOpen { admitted, .. } if admitted >= probes => return Err(PROBING),
                Inner::HalfOpen { admitted, succeeded } => {
                    Word { phase: Inner::HalfOpen { admitted: admitted + 1, succeeded }, ..word }
                }
            };
            if self.swap(word, next) {
                if word.generation != next.generation {
                    self.changed("half-open", Instant::now());
                }
                return Ok(Ticket { generation: next.generation, probe: true });
            }
        }
    }

    /// Counts how a call ended, in the state that it began in.
    pub(super) fn record(&self, ticket: &Ticket, success: bool, now: Instant) {
        if ticket.probe { self.probed(ticket, success, now) } else { self.counted(ticket, success, now) }
    }

    /// A probe that proved nothing leaves its place to another call.
    pub(super) fn give_back(&self, ticket: &Ticket) {
        if !ticket.probe {
            return;
        }
        loop {
            let word = Word::unpack(self.state.load(Relaxed));
            let Inner::HalfOpen { admitted, succeeded } = word.phase else { return };
            let phase = Inner::HalfOpen { admitted: admitted.saturating_sub(1), succeeded };
            if word.generation != ticket.generation || self.swap(word, Word { phase, ..word }) {
                return;
            }
        }
    }

    /// Whether this is a probe of the present half-open state.
    #[cfg(test)]
    pub(super) fn probes_in(&self, ticket: &Ticket) -> bool {
        ticket.probe && ticket.generation == Word::unpack(self.state.load(Relaxed)).generation
    }

    fn counted(&self, ticket: &Ticket, success: bool, now: Instant) {
        let word = Word::unpack(self.state.load(Relaxed));
        if word.generation != ticket.generation {
            return;
        }
        let in_a_row = if success {
            if self.consecutive.load(Relaxed) != 0 {
                self.consecutive.store(0, Relaxed);
            }
            0
        } else {
            self.consecutive.fetch_add(1, Relaxed).saturating_add(1)
        };
        let rate = self.config.success_rate;
        let mut low = false;
        if rate > 0.0 {
            let since = now.saturating_duration_since(self.epoch);
            self.window.add(since, success);
            if !success {
                let (all, failed) = self.window.sum(since);
                low = all >= u64::from(self.config.min_samples.max(1))
                    && ((all - failed) as f64) < rate * all as f64;
            }
        }
        if low || (self.config.consecutive > 0 && in_a_row >= self.config.consecutive) {
            self.open(word, now);
        }
    }

    fn probed(&self, ticket: &Ticket, success: bool, now: Instant) {
        loop {
            let word = Word::unpack(self.state.load(Relaxed));
            let Inner::HalfOpen { admitted, succeeded } = word.phase else { return };
            if word.generation != ticket.generation {
                return;
            }
            if !success {
                if self.open(word, now) {
                    return;
                }
                continue;
            }
            let succeeded = succeeded + 1;
            let closes = succeeded >= u64::from(self.config.probes.max(1));
            let next = if closes {
                // Before the swap: the first call that is let through counts from nothing.
                self.consecutive.store(0, Relaxed);
                self.window.clear();
                word.next(Inner::Closed)
            } else {
                Word { phase: Inner::HalfOpen { admitted, succeeded }, ..word }
            };
            if self.swap(word, next) {
                if closes {
                    self.opened.store(0, Relaxed);
                    self.changed("closed", now);
                }
                return;
            }
        }
    }

    fn open(&self, word: Word, now: Instant) -> bool {
        let opened = self.opened.load(Relaxed);
        let doubled = 1u32.checked_shl(opened).unwrap_or(u32::MAX);
        let time = self.config.open.saturating_mul(doubled).min(self.config.open_max);
        let time = time.mul_f64(1.0 + 0.2 * fastrand::f64());
        let until = millis(now.saturating_duration_since(self.epoch).saturating_add(time));
        if !self.swap(word, word.next(Inner::Open(until))) {
            return false;
        }
        self.opened.store(opened.saturating_add(1), Relaxed);
        self.changed("open", now);
        true
    }

    fn swap(&self, from: Word, to: Word) -> bool {
        self.state.compare_exchange(from.pack(), to.pack(), Relaxed, Relaxed).is_ok()
    }

    fn changed(&self, state: &str, now: Instant) {
        self.since.store(millis(now.saturating_duration_since(self.epoch)), Relaxed);
        tracing::warn!(upstream = %self.name, state, "circuit");
    }

    fn instant(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }
}

/// Rounded up, so that nothing happens early.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(PAYLOAD).min(PAYLOAD)
}
