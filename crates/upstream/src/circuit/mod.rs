//! A failure breaker's state machine: closed, open, half-open.
//!
//! All workers share one word of it: see [`state`]. `attache_resilience::breaker` says what opens it, and why.

mod state;
mod window;

use std::{fmt, sync::Arc, time::Duration};

use attache_config::model::{FailureBreaker, Name};
use attache_telemetry::metrics;
use tokio::time::Instant;

pub use self::state::Ticket;
use self::{
    state::{AtomicCircuitState, CircuitPhase, CircuitRefusal, CircuitState, PAYLOAD, ProbeOutcome},
    window::CountWindow,
};
use crate::{
    change::LastChange,
    status::StateAge,
    sync::{AtomicU64, Ordering::Relaxed},
};

/// How long callers should wait (`Retry-After`) while the probes run.
const PROBING: Duration = Duration::from_secs(1);

/// A breaker.
#[derive(Debug)]
pub struct Circuit {
    config: FailureBreaker,
    upstream: Name,
    /// Its endpoint; `None` if it is the breaker of the whole upstream.
    endpoint: Option<Name>,
    epoch: Instant,
    state: AtomicCircuitState,
    window: CountWindow,
    /// How often it has opened.
    total: AtomicU64,
    change: LastChange,
}

/// What the breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It lets them through.
    Closed,
    /// It refuses them until this instant.
    Open(Instant),
    /// It lets only its probes through.
    HalfOpen,
}

impl BreakerState {
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
    pub standing: StateAge,
    /// Time until it half-opens, if it is open.
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

/// A call that a breaker let through. If it is dropped before its end is reported, its permit goes to another call.
#[derive(Debug)]
pub struct AdmittedCall {
    circuit: Arc<Circuit>,
    ticket: Option<Ticket>,
}

impl AdmittedCall {
    /// Asks a breaker for a permit. The error is the wait before it is worth asking again.
    pub fn by(circuit: &Arc<Circuit>) -> Result<Self, Duration> {
        let ticket = circuit.admit()?;
        Ok(Self { circuit: Arc::clone(circuit), ticket: Some(ticket) })
    }

    /// Counts how the call ended.
    pub(crate) fn record(self, success: bool, now: Instant) {
        self.end(|circuit, ticket| circuit.record(ticket, success, now));
    }

    /// The same with the caller's own way of counting.
    pub(crate) fn end(mut self, tell: impl FnOnce(&Circuit, &Ticket)) {
        if let Some(ticket) = self.ticket.take() {
            tell(&self.circuit, &ticket);
        }
    }

    /// A probe has succeeded. If it fails later, the failure counts in the state that follows. Does nothing for a call
    /// that is not a probe.
    pub(crate) fn proved(&mut self, tell: impl FnOnce(&Circuit, &Ticket)) {
        if let Some(ticket) = self.ticket.take_if(|ticket| ticket.probe) {
            tell(&self.circuit, &ticket);
            let word = self.circuit.state.load();
            if matches!(word.phase, CircuitPhase::Closed { .. }) {
                self.ticket = Some(Ticket { generation: word.generation, probe: false });
            }
        }
    }
}

impl Drop for AdmittedCall {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.circuit.release(&ticket);
        }
    }
}

impl Circuit {
    /// A closed breaker.
    pub fn new(config: FailureBreaker, upstream: Name, endpoint: Option<Name>, now: Instant) -> Self {
        let window = CountWindow::new(config.window);
        Self {
            config,
            upstream,
            endpoint,
            epoch: now,
            state: AtomicCircuitState::default(),
            window,
            total: AtomicU64::new(0),
            change: LastChange::default(),
        }
    }

    /// Its present phase.
    pub fn phase(&self) -> BreakerState {
        self.shown(self.state.load())
    }

    fn shown(&self, word: CircuitState) -> BreakerState {
        match word.phase {
            CircuitPhase::Closed { .. } => BreakerState::Closed,
            CircuitPhase::Open(until) => BreakerState::Open(self.instant(until)),
            CircuitPhase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Everything that is known about it.
    pub fn status(&self, now: Instant) -> CircuitStatus {
        let word = self.state.load();
        let (remaining, consecutive, probes) = match word.phase {
            CircuitPhase::Closed { row } => (None, row, (0, 0)),
            CircuitPhase::Open(until) => {
                (Some(self.instant(until).saturating_duration_since(now)), 0, (0, 0))
            }
            CircuitPhase::HalfOpen { admitted, succeeded } => (None, 0, (admitted, succeeded)),
        };
        CircuitStatus {
            state: self.shown(word).as_str(),
            standing: self.change.standing(self.epoch, now),
            remaining,
            opened: self.total.load(Relaxed),
            consecutive,
            window: self.window.sum(now.saturating_duration_since(self.epoch)),
            probes,
        }
    }

    /// Lets a call through. The error is the wait before it is worth asking again. A closed breaker reads no clock.
    pub fn admit(&self) -> Result<Ticket, Duration> {
        match self.state.admit(self.probes(), || self.passed(Instant::now())) {
            Ok((ticket, half_opened)) => {
                if half_opened {
                    self.changed("half-open", "its open time is over", Instant::now());
                }
                Ok(ticket)
            }
            Err(CircuitRefusal::OpenUntil(until)) => {
                Err(self.instant(until).saturating_duration_since(Instant::now()))
            }
            Err(CircuitRefusal::Probing) => Err(PROBING),
        }
    }

    /// Counts how a call ended, in the state that it began in.
    pub fn record(&self, ticket: &Ticket, success: bool, now: Instant) {
        self.record_if(ticket, success, now, || true);
    }

    /// The same, but it leaves `closed` only if `may_open` returns true; otherwise the next failure asks again. A
    /// half-open breaker, whose endpoint is out of service already, opens in any case.
    pub(crate) fn record_if(
        &self,
        ticket: &Ticket,
        success: bool,
        now: Instant,
        may_open: impl FnOnce() -> bool,
    ) {
        if ticket.probe {
            self.probed(ticket, success, now);
        } else if let Some(why) = self.counted(ticket, success, now)
            && may_open()
        {
            self.open(ticket, &why, now);
        }
    }

    /// True if it would refuse every call, whatever the time.
    pub(crate) fn blocks(&self) -> bool {
        match self.state.load().phase {
            CircuitPhase::Closed { .. } => false,
            CircuitPhase::Open(_) => true,
            CircuitPhase::HalfOpen { admitted, .. } => admitted >= self.probes(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.phase() == BreakerState::Closed
    }

    /// Half-opens it if its open time has passed; otherwise returns when that time will pass.
    pub(crate) fn half_open(&self, now: Instant) -> Option<Instant> {
        let word = self.state.load();
        let CircuitPhase::Open(until) = word.phase else { return None };
        let until = self.instant(until);
        if now < until {
            return Some(until);
        }
        if self.state.half_open(word) {
            self.changed("half-open", "its open time is over", now);
        }
        None
    }

    /// A probe that proved nothing releases its permit for another call.
    pub fn release(&self, ticket: &Ticket) {
        self.state.release(ticket);
    }

    /// Whether this is a probe of the present half-open state.
    #[cfg(test)]
    fn probes_in(&self, ticket: &Ticket) -> bool {
        ticket.probe && ticket.generation == self.state.load().generation
    }

    /// Counts in the closed state. If the breaker should open now, returns the cause.
    fn counted(&self, ticket: &Ticket, success: bool, now: Instant) -> Option<String> {
        let in_a_row = self.state.count(ticket, success)?;
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
            return Some(format!("{in_a_row} failures in a row"));
        }
        low.map(|(all, failed)| format!("{failed} of {all} calls failed"))
    }

    fn probed(&self, ticket: &Ticket, success: bool, now: Instant) {
        if !success {
            self.open(ticket, "a probe failed", now);
            return;
        }
        let probes = self.probes();
        // The window is cleared before the first call is let through.
        if self.state.succeeded(ticket, probes, || self.window.clear()) == ProbeOutcome::Closed {
            self.changed("closed", format_args!("{probes} of {probes} probes succeeded"), now);
        }
    }

    fn open(&self, ticket: &Ticket, why: &str, now: Instant) {
        let opens = self.state.open(ticket, |opened| {
            let doubled = 1u32.checked_shl(opened).unwrap_or(u32::MAX);
            let time = self.config.open.saturating_mul(doubled).min(self.config.open_max);
            let time = time.mul_f64(1.0 + 0.2 * fastrand::f64());
            millis(now.saturating_duration_since(self.epoch).saturating_add(time))
        });
        if opens {
            self.total.fetch_add(1, Relaxed);
            self.changed("open", why, now);
        }
    }

    fn probes(&self) -> u64 {
        u64::from(self.config.probes.max(1))
    }

    /// Whole milliseconds since the breaker's epoch.
    fn passed(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(PAYLOAD)
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
