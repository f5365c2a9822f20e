//! Thresholds: one probe alone doesn't change an endpoint's health.

/// One endpoint's health as its probes see it.
#[derive(Debug)]
pub(super) struct EndpointHealth {
    healthy: bool,
    first: bool,
    /// Probes in a row that contradict `healthy`.
    against: u32,
    up: u32,
    down: u32,
}

impl EndpointHealth {
    pub(super) fn new(healthy: bool, up: u32, down: u32) -> Self {
        Self { healthy, first: true, against: 0, up: up.max(1), down: down.max(1) }
    }

    /// Counts a probe. Returns the new health if it has changed.
    pub(super) fn note(&mut self, passed: bool) -> Option<bool> {
        let first = std::mem::take(&mut self.first);
        if passed == self.healthy {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let threshold = if passed { self.up } else { self.down };
        if !first && self.against < threshold {
            return None;
        }
        self.against = 0;
        self.healthy = passed;
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_probe_decides_alone_and_later_only_several_in_a_row_do() {
        let mut verdict = EndpointHealth::new(true, 2, 3);
        assert_eq!(verdict.note(false), Some(false));
        let notes = [true, false, true, true, false, false, true, false, false, false];
        let changes: Vec<_> = notes.into_iter().map(|passed| verdict.note(passed)).collect();
        let mut expected = vec![None; 10];
        expected[3] = Some(true);
        expected[9] = Some(false);
        assert_eq!(changes, expected);
    }

    proptest! {
        #[test]
        fn a_change_needs_a_row_of_its_threshold(up in 1..5u32, down in 1..5u32, probes: Vec<bool>) {
            let mut verdict = EndpointHealth::new(true, up, down);
            for i in 0..probes.len() {
                if let Some(healthy) = verdict.note(probes[i]) && i > 0 {
                    let row = if healthy { up } else { down } as usize;
                    prop_assert!(i + 1 >= row && probes[i + 1 - row..=i].iter().all(|p| *p == healthy));
                }
            }
        }
    }
}
