//! A failure breaker's state machine: closed, open, half-open.
//!
//! Phase, generation and what belongs to the phase change together by one compare-and-swap on one word, so there is no
//! moment in which two workers see half of a transition: who wins the swap has made the transition, who loses looks again.
//! What trips it and why is the rule of `attache_resilience::breaker`.

mod window;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use attache_config::model::{FailureBreaker, Name};
use attache_telemetry::metrics;
use tokio::time::Instant;

use self::window::Window;
use crate::{change::LastChange, status::Standing};

/// What a caller is told to wait while the probes are out.
const PROBING: Duration = Duration::from_secs(1);

/// A breaker.
#[derive(Debug)]
pub struct Circuit {
    config: FailureBreaker,
    upstream: Name,
    /// Whose it is; `None` where it is the whole upstream's.
    endpoint: Option<Name>,
    epoch: Instant,
    state: AtomicU64,
    consecutive: AtomicU32,
    window: Window,
    /// Open times in a row, which double the next.
    opened: AtomicU32,
    /// All times that it opened.
    total: AtomicU64,
    change: LastChange,
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

impl Phase {
    /// `closed`, `open`, `half-open`: the label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// A breaker at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitStatus {
    /// `closed`, `open` or `half-open`.
    pub state: &'static str,
    /// Since when, and why.
    pub standing: Standing,
    /// Until it half-opens, where it is open.
    pub remaining: Option<Duration>,
    /// How often it opened since the start.
    pub opened: u64,
    /// Failures in a row.
    pub consecutive: u32,
    /// Calls in the window, and how many of them failed.
    pub window: (u64, u64),
    /// Of the probes of a half-open breaker: let through, and succeeded.
    pub probes: (u64, u64),
}

/// Proof of having been let through.
#[derive(Debug)]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

/// A call that a breaker let through. Dropped before its end was told, it leaves its place to another.
#[derive(Debug)]
pub struct Admitted {
    circuit: Arc<Circuit>,
    ticket: Option<Ticket>,
}

impl Admitted {
    /// Asks a breaker; where it lets nothing through, it says when it is worth asking again.
    pub fn by(circuit: &Arc<Circuit>) -> Result<Self, Duration> {
        let ticket = circuit.admit()?;
        Ok(Self { circuit: Arc::clone(circuit), ticket: Some(ticket) })
    }

    /// Counts how the call ended.
    pub(crate) fn record(self, success: bool, now: Instant) {
        self.end(|circuit, ticket| circuit.record(ticket, success, now));
    }

    /// The same in the teller's own way.
    pub(crate) fn end(mut self, tell: impl FnOnce(&Circuit, &Ticket)) {
        if let Some(ticket) = self.ticket.take() {
            tell(&self.circuit, &ticket);
        }
    }

    /// A probe has succeeded; should it fail after all, that counts in the state that it brought about. Does nothing for a call
    /// that is no probe.
    pub(crate) fn proved(&mut self, tell: impl FnOnce(&Circuit, &Ticket)) {
        if let Some(ticket) = self.ticket.take_if(|ticket| ticket.probe) {
            tell(&self.circuit, &ticket);
            let word = Word::unpack(self.circuit.state.load(Relaxed));
            if matches!(word.phase, Inner::Closed) {
                self.ticket = Some(Ticket { generation: word.generation, probe: false });
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.circuit.release(&ticket);
        }
    }
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
    /// A closed one.
    pub fn new(config: FailureBreaker, upstream: Name, endpoint: Option<Name>, now: Instant) -> Self {
        let window = Window::new(config.window);
        Self {
            config,
            upstream,
            endpoint,
            epoch: now,
            state: AtomicU64::new(0),
            consecutive: AtomicU32::new(0),
            window,
            opened: AtomicU32::new(0),
            total: AtomicU64::new(0),
            change: LastChange::default(),
        }
    }

    /// What it does now.
    pub fn phase(&self) -> Phase {
        match Word::unpack(self.state.load(Relaxed)).phase {
            Inner::Closed => Phase::Closed,
            Inner::Open(until) => Phase::Open(self.instant(until)),
            Inner::HalfOpen { .. } => Phase::HalfOpen,
        }
    }

    /// Everything that is known of it.
    pub fn status(&self, now: Instant) -> CircuitStatus {
        let word = Word::unpack(self.state.load(Relaxed));
        let (remaining, probes) = match word.phase {
            Inner::Closed => (None, (0, 0)),
            Inner::Open(until) => (Some(self.instant(until).saturating_duration_since(now)), (0, 0)),
            Inner::HalfOpen { admitted, succeeded } => (None, (admitted, succeeded)),
        };
        CircuitStatus {
            state: self.phase().as_str(),
            standing: self.change.standing(self.epoch, now),
            remaining,
            opened: self.total.load(Relaxed),
            consecutive: self.consecutive.load(Relaxed),
            window: self.window.sum(now.saturating_duration_since(self.epoch)),
            probes,
        }
    }

    /// Lets a call through, or says when it is worth asking again. A closed breaker reads no clock.
    pub fn admit(&self) -> Result<Ticket, Duration> {
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
                    self.changed("half-open", "its open time is over", Instant::now());
                }
                return Ok(Ticket { generation: next.generation, probe: true });
            }
        }
    }

    /// Counts how a call ended, in the state that it began in.
    pub fn record(&self, ticket: &Ticket, success: bool, now: Instant) {
        self.record_if(ticket, success, now, || true);
    }

    /// The same, but it leaves `closed` only where `may_open`; where it may not, the next failure asks again. What is
    /// half-open, and so out of service already, opens in any case.
    pub(crate) fn record_if(
        &self,
        ticket: &Ticket,
        success: bool,
        now: Instant,
        may_open: impl FnOnce() -> bool,
    ) {
        if ticket.probe {
            self.probed(ticket, success, now);
        } else if let Some((word, why)) = self.counted(ticket, success, now)
            && may_open()
        {
            self.open(word, &why, now);
        }
    }

    /// No call would be let through, whatever the clock says.
    pub(crate) fn blocks(&self) -> bool {
        match Word::unpack(self.state.load(Relaxed)).phase {
            Inner::Closed => false,
            Inner::Open(_) => true,
            Inner::HalfOpen { admitted, .. } => admitted >= u64::from(self.config.probes.max(1)),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase() == Phase::Closed
    }

    /// Half-opens it where its open time is over; where not, says when it will be.
    pub(crate) fn half_open(&self, now: Instant) -> Option<Instant> {
        let word = Word::unpack(self.state.load(Relaxed));
        let Inner::Open(until) = word.phase else { return None };
        let until = self.instant(until);
        if now < until {
            return Some(until);
        }
        if self.swap(word, word.next(Inner::HalfOpen { admitted: 0, succeeded: 0 })) {
            self.changed("half-open", "its open time is over", now);
        }
        None
    }

    /// A probe that proved nothing leaves its place to another call.
    pub fn release(&self, ticket: &Ticket) {
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
    fn probes_in(&self, ticket: &Ticket) -> bool {
        ticket.probe && ticket.generation == Word::unpack(self.state.load(Relaxed)).generation
    }

    /// Counts in the closed state; gives the state that should open, and why.
    fn counted(&self, ticket: &Ticket, success: bool, now: Instant) -> Option<(Word, String)> {
        let word = Word::unpack(self.state.load(Relaxed));
        if word.generation != ticket.generation {
            return None;
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
        let mut low = None;
        if rate > 0.0 {
            let since = now.saturating_duration_since(self.epoch);
            self.window.add(since, success);
            if !success {
                let (all, failed) = self.window.sum(since);
                let is_low = all >= u64::from(self.config.min_samples.max(1))
                    && ((all - failed) as f64) < rate * all as f64;
                low = is_low.then_some((all, failed));
            }
        }
        if self.config.consecutive > 0 && in_a_row >= self.config.consecutive {
            return Some((word, format!("{in_a_row} failures in a row")));
        }
        low.map(|(all, failed)| (word, format!("{failed} of {all} calls failed")))
    }

    fn probed(&self, ticket: &Ticket, success: bool, now: Instant) {
        loop {
            let word = Word::unpack(self.state.load(Relaxed));
            let Inner::HalfOpen { admitted, succeeded } = word.phase else { return };
            if word.generation != ticket.generation {
                return;
            }
            if !success {
                if self.open(word, "a probe failed", now) {
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
                    self.changed("closed", format_args!("{succeeded} of {succeeded} probes succeeded"), now);
                }
                return;
            }
        }
    }

    fn open(&self, word: Word, why: &str, now: Instant) -> bool {
        let opened = self.opened.load(Relaxed);
        let doubled = 1u32.checked_shl(opened).unwrap_or(u32::MAX);
        let time = self.config.open.saturating_mul(doubled).min(self.config.open_max);
        let time = time.mul_f64(1.0 + 0.2 * fastrand::f64());
        let until = millis(now.saturating_duration_since(self.epoch).saturating_add(time));
        if !self.swap(word, word.next(Inner::Open(until))) {
            return false;
        }
        self.opened.store(opened.saturating_add(1), Relaxed);
        self.total.fetch_add(1, Relaxed);
        self.changed("open", why, now);
        true
    }

    fn swap(&self, from: Word, to: Word) -> bool {
        self.state.compare_exchange(from.pack(), to.pack(), Relaxed, Relaxed).is_ok()
    }

    fn changed(&self, to: &'static str, why: impl fmt::Display, now: Instant) {
        let why = why.to_string();
        if let Some(endpoint) = &self.endpoint {
            metrics().transition(&self.upstream, Some(endpoint), "endpoint-circuit", to, &why);
            tracing::warn!(upstream = %self.upstream, %endpoint, state = to, why, "endpoint circuit");
        } else {
            metrics().transition(&self.upstream, None, "circuit", to, &why);
            tracing::warn!(upstream = %self.upstream, state = to, why, "circuit");
        }
        self.change.note(now, why);
    }

    fn instant(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }
}

/// Rounded up, so that nothing happens early.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(PAYLOAD).min(PAYLOAD)
}

#[cfg(test)]
mod tests;
