//! How much of the traffic each priority tier and zone gets at the present health.
//!
//! Envoy's rule ("priority levels", "overprovisioning factor", "panic threshold"): a tier counts as whole while 1/1.4
//! (71 %) of its endpoints are usable. Tier by tier, each takes its healthy share of the rest; if all together are less
//! than whole, the shares are scaled up to 100 %. Only then can a tier panic: one with fewer usable endpoints than the
//! threshold uses all of its endpoints, and if no tier has any usable endpoint, traffic is spread over the tiers by
//! their size. With the threshold at 0 nothing unusable is ever used.
//!
//! Within a tier the same rule holds for attache's own zone: it gets everything while 71 % of it is usable, and less
//! below that, in proportion to its health. The rest goes to the other zones in proportion to their weights.

use super::index::WeightedGroup;
use crate::EndpointSet;

/// Envoy's overprovisioning factor.
const OVERPROVISIONING: f64 = 1.4;

/// Shares of the tiers.
#[derive(Debug, Default)]
pub(super) struct TierShares {
    tiers: Vec<TierPlan>,
}

#[derive(Debug, Default)]
struct TierPlan {
    /// Share of its endpoints that are usable.
    health: f64,
    /// Sum of the shares up to and with this tier.
    cumulative: f64,
    panic: bool,
    /// Share of the own zone; `None` where zones don't matter.
    local: Option<f64>,
}

/// A part of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TierPart {
    All,
    Local,
    Remote,
}

impl TierShares {
    /// Looks at the health of every endpoint anew. Allocates only when there are more tiers than ever before.
    pub(super) fn update(&mut self, set: &EndpointSet, panic_threshold: f64) {
        let usable = |group: &WeightedGroup| {
            let usable = |i: &&u32| set.endpoints.get(**i as usize).is_some_and(|e| e.usable());
            group.members.iter().filter(usable).count() as f64
        };
        let health = |group: &WeightedGroup| usable(group) / group.members.len().max(1) as f64;
        let carries = |health: f64| (health * OVERPROVISIONING).min(1.0);
        let tiers = &set.index.tiers;
        self.tiers.clear();
        self.tiers
            .extend(tiers.iter().map(|tier| TierPlan { health: health(&tier.all), ..TierPlan::default() }));

        let available: f64 = self.tiers.iter().map(|plan| carries(plan.health)).sum();
        let (mut left, mut cumulative) = (1.0_f64, 0.0);
        for (tier, plan) in tiers.iter().zip(&mut self.tiers) {
            let part = if available > 0.0 {
                (carries(plan.health) / available.min(1.0)).min(left)
            } else if panic_threshold > 0.0 {
                tier.all.members.len() as f64 / set.endpoints.len().max(1) as f64
            } else {
                0.0
            };
            left -= part;
            cumulative += part;
            plan.cumulative = cumulative;
            plan.panic = available < 1.0 && plan.health < panic_threshold;
            plan.local = match (&tier.local, &tier.remote) {
                (Some(own), Some(others)) if !plan.panic => {
                    let own = carries(health(own));
                    Some(if usable(others) > 0.0 || own == 0.0 { own } else { 1.0 })
                }
                _ => None,
            };
        }
    }

    /// At the last check no endpoint was usable, so health has to be checked again.
    pub(super) fn is_empty(&self) -> bool {
        !self.tiers.iter().any(|tier| tier.cumulative > 0.0)
    }

    /// The tier of a point in 0..1. `None` where nothing may be used.
    pub(super) fn tier(&self, point: f64) -> Option<usize> {
        let last = self.tiers.iter().rposition(|tier| tier.cumulative > 0.0)?;
        Some(self.tiers.iter().position(|tier| point < tier.cumulative).unwrap_or(last))
    }

    pub(super) fn panics(&self, tier: usize) -> bool {
        self.tiers.get(tier).is_some_and(|tier| tier.panic)
    }

    pub(super) fn part(&self, tier: usize, rng: &mut fastrand::Rng) -> TierPart {
        match self.tiers.get(tier).and_then(|tier| tier.local) {
            None => TierPart::All,
            Some(share) if share >= 1.0 || rng.f64() < share => TierPart::Local,
            Some(_) => TierPart::Remote,
        }
    }
}
