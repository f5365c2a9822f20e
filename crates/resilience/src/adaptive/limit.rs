//! The limit, and the measurement during which it is the lowest.
//!
//! **One word** holds the phase (odd while minRTT is measured) and how many samples the measurement has. So a sample
//! counts only in the phase in which its call began, and exactly one call completes a measurement. The worker that
//! begins a measurement first saves the old limit, and then lets samples count: so the last sample always finds the
//! limit that it must restore.

use crate::sync::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// The limit of one upstream.
#[derive(Debug)]
pub(super) struct AdaptiveLimit {
    now: AtomicU32,
    /// The limit to restore after a measurement.
    kept: AtomicU32,
    /// 32 bits of phase, 32 of samples.
    measurement: AtomicU64,
}

/// Stands in place of the samples while a measurement is prepared.
const NOT_YET: u64 = u32::MAX as u64;

impl AdaptiveLimit {
    pub(super) fn new(limit: u32, measures: bool) -> Self {
        Self {
            now: AtomicU32::new(limit),
            kept: AtomicU32::new(limit),
            measurement: AtomicU64::new(u64::from(measures) << 32),
        }
    }

    pub(super) fn get(&self) -> u32 {
        self.now.load(Relaxed)
    }

    /// The present phase. A call remembers the phase in which it began.
    pub(super) fn phase(&self) -> u32 {
        (self.measurement.load(Acquire) >> 32) as u32
    }

    /// Sets the limit, unless it has changed meanwhile.
    pub(super) fn change(&self, from: u32, to: u32) -> bool {
        self.now.compare_exchange(from, to, AcqRel, Relaxed).is_ok()
    }

    /// Begins a measurement, if `phase` is not a measurement and is still the present one. `prepare` runs before any
    /// sample counts.
    pub(super) fn begin(&self, phase: u32, lowest: u32, prepare: impl FnOnce()) {
        let Ok(word) = self.measurement.fetch_update(AcqRel, Acquire, |word| {
            let is_it = (word >> 32) as u32 == phase && !measuring(phase);
            is_it.then(|| u64::from(phase.wrapping_add(1)) << 32 | NOT_YET)
        }) else {
            return;
        };
        prepare();
        self.kept.store(self.now.swap(lowest, AcqRel), Relaxed);
        // Release: the last sample, which counts after this, finds the saved limit.
        self.measurement.store(u64::from(((word >> 32) as u32).wrapping_add(1)) << 32, Release);
    }

    /// Counts a sample of the measurement `phase`; true if it was the last of `wanted`.
    pub(super) fn counts(&self, phase: u32, wanted: u32) -> bool {
        let one_more = |word: u64| {
            let (is, samples) = ((word >> 32) as u32, word & NOT_YET);
            (is == phase && measuring(phase) && samples < u64::from(wanted)).then(|| word + 1)
        };
        let counted = self.measurement.fetch_update(AcqRel, Acquire, one_more);
        counted.is_ok_and(|word| (word & NOT_YET) + 1 == u64::from(wanted))
    }

    /// Ends the measurement and restores the limit. Only the call with the last sample may call this.
    pub(super) fn end(&self, phase: u32) {
        self.now.store(self.kept.load(Relaxed), Relaxed);
        self.measurement.store(u64::from(phase.wrapping_add(1)) << 32, Release);
    }
}

/// Whether minRTT is measured in this phase.
pub(super) const fn measuring(phase: u32) -> bool {
    phase & 1 == 1
}
