//! The facts about one generation of endpoints that balancing needs, except their health. They are computed once, and all
//! workers share them.

use std::sync::Arc;

use attache_config::model::Balance;

use super::{policy::BalancePolicy, table::ConsistentHash};
use crate::Endpoint;

/// The endpoints of one generation, ordered for picking. Numbers are positions in the set.
#[derive(Debug, Default)]
pub struct BalanceIndex {
    /// Lowest priority number first.
    pub(super) tiers: Vec<Tier>,
}

/// The endpoints of one priority.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) all: WeightedGroup,
    /// The endpoints of attache's own zone, and those of other zones; both `None` unless both exist and no hash
    /// decides.
    pub(super) local: Option<WeightedGroup>,
    pub(super) remote: Option<WeightedGroup>,
    /// For the hashing algorithms, where there are two endpoints or more.
    pub(super) table: Option<ConsistentHash>,
}

/// Some endpoints that are drawn from by weight.
#[derive(Debug, Default)]
pub(super) struct WeightedGroup {
    pub(super) members: Vec<u32>,
    /// Sums of the weights up to and with each member; `None` where all weights are equal.
    cumulative: Option<Vec<u64>>,
}

impl WeightedGroup {
    fn of(members: Vec<u32>, endpoints: &[Arc<Endpoint>]) -> Self {
        let weights =
            || members.iter().filter_map(|&i| endpoints.get(i as usize)).map(|e| u64::from(e.weight()));
        let equal = weights().min() == weights().max();
        let sums = || {
            weights()
                .scan(0, |sum, weight| {
                    *sum += weight;
                    Some(*sum)
                })
                .collect()
        };
        let cumulative = (!equal).then(sums);
        Self { members, cumulative }
    }

    /// One member at random by weight.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Option<u32> {
        let at = match &self.cumulative {
            None if self.members.is_empty() => return None,
            None => rng.usize(..self.members.len()),
            Some(sums) => {
                let point = rng.u64(..(*sums.last()?).max(1));
                sums.partition_point(|&sum| sum <= point)
            }
        };
        self.members.get(at).copied()
    }
}

impl BalanceIndex {
    /// Sorts `endpoints` into tiers and zones and fills the table of a hashing algorithm.
    pub fn build(endpoints: &[Arc<Endpoint>], balance: &Balance) -> Self {
        let mut priorities: Vec<u8> = endpoints.iter().map(|e| e.priority()).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let numbered = || (0..).zip(endpoints);
        let make_table = BalancePolicy::of(&balance.algorithm).table;
        let tiers = priorities.into_iter().map(|priority| {
            let of = |keep: &dyn Fn(&Endpoint) -> bool| -> Vec<u32> {
                numbered().filter(|(_, e)| e.priority() == priority && keep(e)).map(|(i, _)| i).collect()
            };
            let members = of(&|_| true);
            let table = make_table.filter(|_| members.len() > 1).map(|make| make(&members, endpoints));
            let (mut local, mut remote) = (None, None);
            if let (Some(zone), None) = (&balance.zone, &table) {
                let (own, others) =
                    (of(&|e| e.zone.as_ref() == Some(zone)), of(&|e| e.zone.as_ref() != Some(zone)));
                if !own.is_empty() && !others.is_empty() {
                    (local, remote) =
                        (Some(WeightedGroup::of(own, endpoints)), Some(WeightedGroup::of(others, endpoints)));
                }
            }
            Tier { all: WeightedGroup::of(members, endpoints), local, remote, table }
        });
        Self { tiers: tiers.collect() }
    }
}
