//! The state of a failure breaker: one word, and every change of it one compare-and-swap.
//!
//! Phase, generation, failures in a row, the end of the open time, the permits of probes and the number of openings in
//! a row change together, so no thread ever sees half of a transition. The thread whose swap succeeds has made the
//! transition; any other thread reads the word again. A transition begins a generation. A call remembers the generation
//! in which it was admitted, and counts in no other.
//!
//! **Memory order.** Loads acquire and swaps release. So a call that a state admits sees everything that was written before that state
//! began, the cleared window in particular.
//!
//! This file uses no clock, no log, no metrics and no other crate, so that `tests/loom` can run it with every
//! interleaving of its threads.

use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};

/// The state, shared by all workers. It begins closed.
#[derive(Debug, Default)]
pub(super) struct AtomicCircuitState(AtomicU64);

/// A state at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CircuitState {
    /// Rises with every transition.
    pub(super) generation: u64,
    /// Open times in a row without a success in between, at most 63.
    pub(super) opened: u32,
    pub(super) phase: CircuitPhase,
}

/// The phase, and the data that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CircuitPhase {
    Closed {
        /// Failures in a row.
        row: u32,
    },
    /// Open until this many milliseconds after the breaker's epoch.
    Open(u64),
    HalfOpen {
        admitted: u64,
        succeeded: u64,
    },
}

/// Proof that a call was let through.
#[derive(Debug)]
pub struct Ticket {
    pub(super) generation: u64,
    pub(super) probe: bool,
}

/// Why no call is let through.
#[derive(Clone, Copy, Debug)]
pub(super) enum CircuitRefusal {
    /// It is open until this many milliseconds after the epoch.
    OpenUntil(u64),
    /// All probes are running.
    Probing,
}

/// The effect of a probe's success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeOutcome {
    /// None: the half-open state of this probe is over.
    Late,
    /// It was counted; other probes must succeed as well.
    Counted,
    /// It was the last one that had to succeed.
    Closed,
}

/// The word has 2 bits of phase, 14 of generation, 6 of open times in a row, and 42 for the data of the phase.
const GENERATIONS: u64 = 1 << 14;
const OPENED: u64 = (1 << 6) - 1;
/// The largest data of a phase; as milliseconds this is 139 years.
pub(super) const PAYLOAD: u64 = (1 << 42) - 1;
const COUNT: u64 = (1 << 21) - 1;

impl CircuitState {
    fn pack(self) -> u64 {
        let (phase, payload) = match self.phase {
            CircuitPhase::Closed { row } => (0, u64::from(row)),
            CircuitPhase::Open(until) => (1, until.min(PAYLOAD)),
            CircuitPhase::HalfOpen { admitted, succeeded } => {
                (2, admitted.min(COUNT) << 21 | succeeded.min(COUNT))
            }
        };
        phase << 62 | self.generation << 48 | u64::from(self.opened).min(OPENED) << 42 | payload
    }

    fn unpack(word: u64) -> Self {
        let payload = word & PAYLOAD;
        let phase = match word >> 62 {
            0 => CircuitPhase::Closed { row: payload as u32 },
            1 => CircuitPhase::Open(payload),
            _ => CircuitPhase::HalfOpen { admitted: payload >> 21, succeeded: payload & COUNT },
        };
        let opened = (word >> 42 & OPENED) as u32;
        Self { generation: word >> 48 & (GENERATIONS - 1), opened, phase }
    }

    /// The word that begins the next generation.
    fn begins(self, phase: CircuitPhase) -> Self {
        Self { generation: (self.generation + 1) % GENERATIONS, phase, ..self }
    }
}

impl AtomicCircuitState {
    pub(super) fn load(&self) -> CircuitState {
        CircuitState::unpack(self.0.load(Acquire))
    }

    fn swap(&self, from: CircuitState, to: CircuitState) -> bool {
        self.0.compare_exchange(from.pack(), to.pack(), AcqRel, Acquire).is_ok()
    }

    /// Lets a call through; true if that ended the open time. `now`, in milliseconds since the epoch, is asked for only where it matters.
    pub(super) fn admit(&self, probes: u64, now: impl Fn() -> u64) -> Result<(Ticket, bool), CircuitRefusal> {
        loop {
            let word = self.load();
            let next = match word.phase {
                CircuitPhase::Closed { .. } => {
                    return Ok((Ticket { generation: word.generation, probe: false }, false));
                }
                CircuitPhase::Open(until) if now() < until => return Err(CircuitRefusal::OpenUntil(until)),
                CircuitPhase::Open(_) => word.begins(CircuitPhase::HalfOpen { admitted: 1, succeeded: 0 }),
                CircuitPhase::HalfOpen { admitted, .. } if admitted >= probes => {
                    return Err(CircuitRefusal::Probing);
                }
                CircuitPhase::HalfOpen { admitted, succeeded } => CircuitState {
                    phase: CircuitPhase::HalfOpen { admitted: admitted + 1, succeeded },
                    ..word
                },
            };
            if self.swap(word, next) {
                let ticket = Ticket { generation: next.generation, probe: true };
                return Ok((ticket, word.generation != next.generation));
            }
        }
    }

    /// Half-opens it with all permits free; true if this call did it.
    pub(super) fn half_open(&self, word: CircuitState) -> bool {
        self.swap(word, word.begins(CircuitPhase::HalfOpen { admitted: 0, succeeded: 0 }))
    }

    /// A probe that proved nothing releases its permit for another call.
    pub(super) fn release(&self, ticket: &Ticket) {
        if !ticket.probe {
            return;
        }
        loop {
            let word = self.load();
            let CircuitPhase::HalfOpen { admitted, succeeded } = word.phase else { return };
            let phase = CircuitPhase::HalfOpen { admitted: admitted.saturating_sub(1), succeeded };
            if word.generation != ticket.generation || self.swap(word, CircuitState { phase, ..word }) {
                return;
            }
        }
    }

    /// Counts the end of a call that a closed state let through. Returns the failures in a row, this one included;
    /// `None` if that state is over.
    pub(super) fn count(&self, ticket: &Ticket, success: bool) -> Option<u32> {
        loop {
            let word = self.load();
            let CircuitPhase::Closed { row } = word.phase else { return None };
            if word.generation != ticket.generation {
                return None;
            }
            let row_now = if success { 0 } else { row.saturating_add(1) };
            // Most calls succeed after another success: they write nothing that workers share.
            if row == row_now
                || self.swap(word, CircuitState { phase: CircuitPhase::Closed { row: row_now }, ..word })
            {
                return Some(row_now);
            }
        }
    }

    /// A probe has succeeded. `before_closing` runs before the closed state can let any call through. Only the last
    /// probe runs it; no other call can be admitted then, so no other thread changes the state meanwhile.
    pub(super) fn succeeded(&self, ticket: &Ticket, probes: u64, before_closing: impl Fn()) -> ProbeOutcome {
        loop {
            let word = self.load();
            let CircuitPhase::HalfOpen { admitted, succeeded } = word.phase else {
                return ProbeOutcome::Late;
            };
            if word.generation != ticket.generation {
                return ProbeOutcome::Late;
            }
            let succeeded = succeeded + 1;
            let closes = succeeded >= probes;
            let next = if closes {
                before_closing();
                CircuitState { opened: 0, ..word.begins(CircuitPhase::Closed { row: 0 }) }
            } else {
                CircuitState { phase: CircuitPhase::HalfOpen { admitted, succeeded }, ..word }
            };
            if self.swap(word, next) {
                return if closes { ProbeOutcome::Closed } else { ProbeOutcome::Counted };
            }
        }
    }

    /// Opens it, if the state that let this call through still lasts; true if this call did it. `until` gets the number
    /// of open times in a row before this one, and returns milliseconds since the epoch.
    pub(super) fn open(&self, ticket: &Ticket, until: impl Fn(u32) -> u64) -> bool {
        loop {
            let word = self.load();
            if word.generation != ticket.generation || matches!(word.phase, CircuitPhase::Open(_)) {
                return false;
            }
            let opened = word.opened.saturating_add(1);
            let next = CircuitState { opened, ..word.begins(CircuitPhase::Open(until(word.opened))) };
            if self.swap(word, next) {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_word_holds_what_was_put_into_it(
            generation in 0..GENERATIONS, opened in 0..=OPENED as u32, kind in 0..3_u8, one: u64, other: u64,
        ) {
            let phase = match kind {
                0 => CircuitPhase::Closed { row: one as u32 },
                1 => CircuitPhase::Open(one & PAYLOAD),
                _ => CircuitPhase::HalfOpen { admitted: one & COUNT, succeeded: other & COUNT },
            };
            let word = CircuitState { generation, opened, phase };
            prop_assert_eq!(CircuitState::unpack(word.pack()), word);
            let next = word.begins(CircuitPhase::Closed { row: 0 });
            prop_assert!(next.generation != generation && next.generation < GENERATIONS);
        }
    }

    #[test]
    fn a_value_that_is_too_large_for_the_word_becomes_the_largest_that_fits() {
        let word = CircuitState { generation: 1, opened: 99, phase: CircuitPhase::Open(u64::MAX) };
        assert_eq!(
            CircuitState::unpack(word.pack()),
            CircuitState { generation: 1, opened: OPENED as u32, phase: CircuitPhase::Open(PAYLOAD) }
        );
    }
}
