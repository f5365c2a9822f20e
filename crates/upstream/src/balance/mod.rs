//! Which endpoint gets a request.
//!
//! A pick first chooses a priority tier (by health, with overflow), then a part of this tier (attache's own zone or the
//! others), then an endpoint of this part by the algorithm. The control thread builds once what depends only on the set
//! of endpoints ([`BalanceIndex`]). Each worker builds what depends on health (`TierShares`) after each change of health.
//! A pick draws endpoints at random and checks them, so it costs O(1), or O(log n) with weights. It looks at all endpoints
//! only if several drawn endpoints can't be used.
//!
//! An endpoint that was already tried for the same request is avoided while another usable one exists, in any tier.

pub(crate) mod bias;
pub(crate) mod ewma;
mod index;
mod maglev;
mod plan;
pub(crate) mod policy;
mod ring;
mod robin;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use attache_config::model::{self, Subset};
use attache_telemetry::Reason;
use tokio::time::Instant;

pub use crate::hash::{hash_bytes, request_hash};
pub use index::BalanceIndex;

use self::{
    index::WeightedGroup,
    plan::{TierPart, TierShares},
    policy::{BalancePolicy, ChoiceRule},
    robin::RoundRobins,
};
use crate::{
    Affinity, Endpoint, EndpointSet, SharedUpstream,
    hash::{mix, unit},
};

/// How many endpoints a pick draws before it looks at all of them.
const DRAWS: usize = 8;

/// A worker's balancer of one upstream.
#[derive(Debug)]
pub struct Balancer {
    config: model::Balance,
    policy: BalancePolicy,
    rng: fastrand::Rng,
    /// The index that the plan and the robins belong to.
    index: Arc<BalanceIndex>,
    epoch: u64,
    /// The number of picks until health is checked again, also if the epoch has not changed.
    countdown: usize,
    plan: TierShares,
    robins: RoundRobins,
}

/// The facts that a pick knows about its request and the present state.
struct PickContext<'a> {
    set: &'a EndpointSet,
    tried: &'a [Arc<Endpoint>],
    /// Unusable endpoints count too.
    panic: bool,
    /// Unreachable ones as well.
    last_resort: bool,
    /// `None` where no clock is needed.
    now: Option<Instant>,
    slow_start: std::time::Duration,
    /// Only these endpoints.
    subset: Option<&'a Subset>,
}

impl PickContext<'_> {
    fn endpoint(&self, index: u32) -> Option<&Arc<Endpoint>> {
        self.set.endpoints.get(index as usize)
    }

    fn untried(&self, endpoint: &Arc<Endpoint>) -> bool {
        !self.tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint))
    }

    fn acceptable(&self, index: u32) -> bool {
        self.endpoint(index).is_some_and(|endpoint| {
            let in_use = if self.panic {
                // An endpoint that can't be connected to is not used even if all others are out.
                !endpoint.removed.load(Relaxed) && (self.last_resort || !endpoint.unreachable.load(Relaxed))
            } else {
                endpoint.usable()
            };
            in_use
                && self.untried(endpoint)
                && self.subset.is_none_or(|subset| subset.holds(&endpoint.labels))
        })
    }

    /// The share of its weight that an endpoint has while it starts slowly: 0.1 to 1.
    fn ramp(&self, endpoint: &Endpoint) -> f64 {
        match self.now {
            Some(now) if !self.slow_start.is_zero() => {
                (endpoint.ramp_age(now).as_secs_f64() / self.slow_start.as_secs_f64()).clamp(0.1, 1.0)
            }
            _ => 1.0,
        }
    }
}

impl Balancer {
    /// A balancer whose choices follow from `seed`. Every worker needs its own seed (`fastrand::u64(..)`), so that workers
    /// don't all choose the same endpoint at the same time.
    pub fn new(config: &model::Balance, seed: u64) -> Self {
        Self {
            config: config.clone(),
            policy: BalancePolicy::of(&config.algorithm),
            rng: fastrand::Rng::with_seed(seed),
            index: Arc::default(),
            epoch: 0,
            countdown: 0,
            plan: TierShares::default(),
            robins: RoundRobins::default(),
        }
    }

    /// Chooses an endpoint. `hash` is the result of [`request_hash`]; without one the hashing algorithms choose at
    /// random. The caller begins an [`Attempt`](crate::Attempt) there.
    ///
    /// Errors: the reason of the last look-up, or `no-endpoint`, where there is no endpoint at all;
    /// `no-healthy-endpoint` where none is usable and the panic threshold is off.
    pub fn pick(
        &mut self,
        shared: &SharedUpstream,
        hash: Option<u64>,
        tried: &[Arc<Endpoint>],
    ) -> Result<Arc<Endpoint>, Reason> {
        self.pick_for(shared, hash, tried, None)
    }

    /// The same for a call that asks for certain endpoints.
    ///
    /// Errors: also `empty-subset` where no endpoint has the labels that the call asks for.
    pub fn pick_for(
        &mut self,
        shared: &SharedUpstream,
        hash: Option<u64>,
        tried: &[Arc<Endpoint>],
        affinity: Option<&Affinity>,
    ) -> Result<Arc<Endpoint>, Reason> {
        let set = shared.endpoints.load();
        let subset = Affinity::narrow(affinity, &set.endpoints)?;
        match set.endpoints.as_slice() {
            [] => return Err(set.failure.unwrap_or(Reason::NoEndpoint)),
            // It is the endpoint of the session, or the session's endpoint no longer exists.
            [only] if only.usable() && !affinity.is_some_and(|affinity| affinity.strict) => {
                return Ok(only.clone());
            }
            _ => {}
        }
        if let Some(of_session) =
            affinity.and_then(|affinity| affinity.endpoint(&set.endpoints, subset, tried))
        {
            return of_session;
        }
        let epoch = shared.health_epoch();
        if !Arc::ptr_eq(&self.index, &set.index) {
            self.index = set.index.clone();
            self.robins.clear();
            self.countdown = 0;
        }
        if self.countdown == 0 || self.epoch != epoch || self.plan.is_empty() {
            self.look_at_health(&set, epoch);
        }
        self.countdown -= 1;

        // The clock is read only if the choice depends on it.
        let timed = !self.config.slow_start.is_zero() || self.policy.is_timed();
        let now = timed.then(Instant::now);
        let point = hash.unwrap_or_else(|| self.rng.u64(..));
        // The hash also chooses the tier: a key keeps its endpoint as long as health does not change.
        let Some(tier) = self.plan.tier(unit(mix(point))) else {
            return Err(Reason::NoHealthyEndpoint);
        };
        let panic = self.plan.panics(tier);
        let pick = PickContext {
            set: &set,
            tried,
            panic,
            last_resort: false,
            now,
            slow_start: self.config.slow_start,
            subset,
        };
        let chosen = self.in_tier(&pick, tier, point).or_else(|| self.anywhere(&pick, tier));
        chosen.and_then(|index| pick.endpoint(index)).cloned().ok_or(Reason::NoHealthyEndpoint)
    }

    fn look_at_health(&mut self, set: &EndpointSet, epoch: u64) {
        self.epoch = epoch;
        // Health may have been written without the epoch, so it is checked again after as many picks as there are
        // endpoints.
        self.countdown = set.endpoints.len().max(64);
        self.plan.update(set, self.config.panic_threshold);
    }

    /// Chooses an endpoint of one tier by the algorithm.
    fn in_tier(&mut self, pick: &PickContext<'_>, tier: usize, point: u64) -> Option<u32> {
        // Borrowed from the set: with a clone of the shared `Arc` all workers would write to its count.
        let groups = pick.set.index.tiers.get(tier)?;
        if let Some(table) = &groups.table {
            return table.find(point, |i| pick.acceptable(i));
        }
        let part = self.plan.part(tier, &mut self.rng);
        let group = match part {
            TierPart::All => &groups.all,
            TierPart::Local => groups.local.as_ref()?,
            TierPart::Remote => groups.remote.as_ref()?,
        };
        let found = match self.policy.choice {
            ChoiceRule::InTurn => self.robins.next(tier, part, group, pick, &mut self.rng),
            ChoiceRule::LessOfTwo { cost, .. } => self.less_of_two(pick, group, |pick, endpoint| {
                cost(pick, endpoint) / (f64::from(endpoint.weight()) * pick.ramp(endpoint))
            }),
            ChoiceRule::Random => self.draw(pick, group),
        };
        // The other zones of this tier come before other tiers.
        found.or_else(|| if part == TierPart::All { None } else { self.scan(pick, &groups.all) })
    }

    /// Power of two choices; the first drawn wins a tie, so an idle upstream is shared by weight.
    fn less_of_two(
        &mut self,
        pick: &PickContext<'_>,
        group: &WeightedGroup,
        cost: impl Fn(&PickContext<'_>, &Endpoint) -> f64,
    ) -> Option<u32> {
        let first = self.draw(pick, group)?;
        let second = (0..3).find_map(|_| {
            let drawn = group.draw(&mut self.rng)?;
            (drawn != first && pick.acceptable(drawn)).then_some(drawn)
        });
        // If there are two endpoints, the second choice is the other one, even if it has only a hundredth of the weight.
        let second = second
            .or_else(|| group.members.iter().copied().take(4).find(|&i| i != first && pick.acceptable(i)));
        let Some(second) = second else { return Some(first) };
        let (a, b) = (pick.endpoint(first)?, pick.endpoint(second)?);
        Some(if cost(pick, b) < cost(pick, a) { second } else { first })
    }

    /// At random by weight among the acceptable ones of a group.
    fn draw(&mut self, pick: &PickContext<'_>, group: &WeightedGroup) -> Option<u32> {
        for _ in 0..DRAWS {
            let drawn = group.draw(&mut self.rng)?;
            if pick.acceptable(drawn) {
                let ramp = pick.endpoint(drawn).map_or(1.0, |endpoint| pick.ramp(endpoint));
                if ramp >= 1.0 || self.rng.f64() < ramp {
                    return Some(drawn);
                }
            }
        }
        self.scan(pick, group)
    }

    /// Like `draw`, but it looks at every member: in one pass each replaces the one before with the probability of its weight
    /// (reservoir of one, Efraimidis and Spirakis 2006).
    fn scan(&mut self, pick: &PickContext<'_>, group: &WeightedGroup) -> Option<u32> {
        let mut total = 0.0;
        let mut chosen = None;
        for &member in &group.members {
            let Some(endpoint) = pick.endpoint(member).filter(|_| pick.acceptable(member)) else { continue };
            let weight = f64::from(endpoint.weight()) * pick.ramp(endpoint);
            total += weight;
            if self.rng.f64() * total < weight {
                chosen = Some(member);
            }
        }
        chosen
    }

    /// Used if the chosen tier has no acceptable endpoint: every usable endpoint was tried, or health has just changed.
    fn anywhere(&mut self, pick: &PickContext<'_>, tier: usize) -> Option<u32> {
        let index = &pick.set.index;
        let tiers = || index.tiers.iter().skip(tier).chain(index.tiers.iter().take(tier));
        let strict = |panic, tried| PickContext { tried, panic, ..*pick };
        let panic = pick.panic || self.config.panic_threshold > 0.0;
        tiers()
            .find_map(|t| self.scan(&strict(false, pick.tried), &t.all))
            .or_else(|| tiers().find_map(|t| self.scan(&strict(false, &[]), &t.all)))
            .or_else(|| tiers().filter(|_| panic).find_map(|t| self.scan(&strict(true, pick.tried), &t.all)))
            .or_else(|| tiers().filter(|_| panic).find_map(|t| self.scan(&strict(true, &[]), &t.all)))
            .or_else(|| {
                let all = PickContext { last_resort: true, ..strict(true, pick.tried) };
                tiers().filter(|_| panic).find_map(|t| self.scan(&all, &t.all))
            })
    }
}
