//! Weighted round-robin: earliest deadline first.
//!
//! Every endpoint has a deadline; the earliest is used and its deadline moves on by 1/weight. That spreads an
//! endpoint's turns evenly (smooth) at O(log n) a pick. Each worker begins with its own random deadlines, so that
//! workers don't all choose the same endpoint.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::{PickContext, index::WeightedGroup, plan::TierPart};

/// The rounds of one worker, made as they are needed.
#[derive(Debug, Default)]
pub(super) struct RoundRobins {
    rounds: Vec<(usize, TierPart, BinaryHeap<ScheduledMember>)>,
}

#[derive(Debug, PartialEq)]
struct ScheduledMember {
    deadline: f64,
    member: u32,
}

impl Eq for ScheduledMember {}

impl PartialOrd for ScheduledMember {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ScheduledMember {
    /// The earliest is the greatest: `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.member.cmp(&self.member))
    }
}

impl RoundRobins {
    pub(super) fn clear(&mut self) {
        self.rounds.clear();
    }

    pub(super) fn next(
        &mut self,
        tier: usize,
        part: TierPart,
        group: &WeightedGroup,
        pick: &PickContext<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<u32> {
        let step =
            |member: u32| pick.endpoint(member).map_or(1.0, |e| 1.0 / (f64::from(e.weight()) * pick.ramp(e)));
        let at = self.rounds.iter().position(|(t, p, _)| (*t, *p) == (tier, part)).unwrap_or_else(|| {
            let first = |&member: &u32| ScheduledMember { deadline: rng.f64() * step(member), member };
            self.rounds.push((tier, part, group.members.iter().map(first).collect()));
            self.rounds.len() - 1
        });
        let (_, _, round) = self.rounds.get_mut(at)?;
        for _ in 0..round.len() {
            let mut turn = round.peek_mut()?;
            let member = turn.member;
            // A skipped endpoint loses its turn: it must not get many turns at once when it is back.
            turn.deadline += step(member);
            drop(turn);
            if pick.acceptable(member) {
                return Some(member);
            }
        }
        None
    }
}
