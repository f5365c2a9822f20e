//! The balancing policies: one row for each algorithm of the config. A row says what its policy needs from picks,
//! attempts and the set of endpoints; no other code compares algorithms.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use attache_config::model::Algorithm;
use tokio::time::Instant;

use super::{PickContext, bias, ewma, maglev::Maglev, ring::HashRing, table::ConsistentHash};
use crate::Endpoint;

/// How an algorithm balances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BalancePolicy {
    /// How an endpoint of a group is chosen.
    pub(super) choice: ChoiceRule,
    /// Makes the table that a request's hash is looked up in, for two endpoints or more.
    pub(super) table: Option<MakeTable>,
    /// Learns how long an attempt took, and whether it succeeded. Attempts read the clock only for this.
    pub(crate) latency: Option<fn(&Endpoint, Duration, bool, Instant)>,
    /// Learns whether an attempt succeeded.
    pub(crate) outcome: Option<fn(&Endpoint, bool)>,
}

pub(super) type MakeTable = fn(&[u32], &[Arc<Endpoint>]) -> ConsistentHash;

/// How an endpoint of a group is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) enum ChoiceRule {
    /// At random, by weight.
    Random,
    /// One after the other, by weight.
    InTurn,
    /// Of two chosen at random, the one with the lower cost for its weight.
    LessOfTwo {
        /// What one more request would cost.
        cost: fn(&PickContext<'_>, &Endpoint) -> f64,
        /// The cost depends on the time of the pick.
        timed: bool,
    },
}

/// Without a table: at random, by weight.
const RANDOM: BalancePolicy =
    BalancePolicy { choice: ChoiceRule::Random, table: None, latency: None, outcome: None };

impl BalancePolicy {
    /// The row of an algorithm.
    pub(crate) const fn of(algorithm: &Algorithm) -> Self {
        match algorithm {
            Algorithm::LeastRequest => Self {
                choice: ChoiceRule::LessOfTwo { cost: requests, timed: false },
                outcome: Some(bias::ended),
                ..RANDOM
            },
            Algorithm::PeakEwma => Self {
                choice: ChoiceRule::LessOfTwo { cost: latency, timed: true },
                latency: Some(ewma::observe),
                ..RANDOM
            },
            Algorithm::RoundRobin => Self { choice: ChoiceRule::InTurn, ..RANDOM },
            Algorithm::Random => RANDOM,
            // One endpoint alone in its tier has no table.
            Algorithm::RingHash => Self {
                table: Some(|members, all| ConsistentHash::Ring(HashRing::build(members, all))),
                ..RANDOM
            },
            Algorithm::Maglev => Self {
                table: Some(|members, all| ConsistentHash::Maglev(Maglev::build(members, all))),
                ..RANDOM
            },
        }
    }

    /// Picks read the clock.
    pub(super) const fn is_timed(&self) -> bool {
        matches!(self.choice, ChoiceRule::LessOfTwo { timed: true, .. })
    }
}

/// Running requests, and recent failures.
fn requests(_: &PickContext<'_>, endpoint: &Endpoint) -> f64 {
    f64::from(endpoint.active.load(Relaxed)) + bias::load(endpoint)
}

/// Latency times running requests.
fn latency(pick: &PickContext<'_>, endpoint: &Endpoint) -> f64 {
    ewma::cost(endpoint, pick.now.unwrap_or_else(Instant::now))
}
