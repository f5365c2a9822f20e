//! The state of an upstream's permits that all workers share: how many there are, how many are taken, and how many
//! calls wait.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use attache_config::model;
use attache_telemetry::Reason;
use attache_upstream::take;
use tokio::time::Instant;

use crate::{
    adaptive::{AdaptiveReading, Gradient},
    counters::count,
};

/// The permits of one upstream.
#[derive(Debug)]
pub struct UpstreamPermits {
    /// The upstream, for metrics.
    pub(super) name: model::Name,
    /// `circuit_breaker.max_requests`, if calls wait for it and are not refused at once.
    most: u32,
    pub(super) adaptive: Option<Gradient>,
    pub(super) queue: Option<model::Queue>,
    running: AtomicU32,
    pub(super) waiting: AtomicU32,
    /// Workers with calls that wait.
    pub(super) hungry: AtomicU32,
    refused: AtomicU64,
    shed: AtomicU64,
}

/// The current state of a [`UpstreamPermits`], for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateReading {
    /// The lowest limit of running calls.
    pub limit: u32,
    /// Calls that run.
    pub running: u32,
    /// Calls that wait, over all workers.
    pub waiting: u32,
    /// Calls refused at once since the start.
    pub refused: u64,
    /// Calls that waited and then were refused, since the start.
    pub shed: u64,
    /// The adaptive limit, where there is one.
    pub adaptive: Option<AdaptiveReading>,
}

impl UpstreamPermits {
    /// The gate of an upstream; `None` where neither a queue nor an adaptive limit is configured.
    pub fn new(config: &model::Upstream, now: Instant) -> Option<Self> {
        if config.adaptive_concurrency.is_none() && config.queue.is_none() {
            return None;
        }
        let breaker = &config.circuit_breaker;
        let most = match (&config.queue, config.protocol) {
            // Without a queue the pool refuses further calls, with its own reason.
            (None, _) => u32::MAX,
            // One call for each connection: further calls would wait in the pool, which does not know their urgency.
            (Some(_), model::UpstreamProtocol::Http1) => breaker.max_requests.min(breaker.max_connections),
            (Some(_), _) => breaker.max_requests,
        };
        Some(Self {
            name: config.name.clone(),
            most: most.max(1),
            adaptive: config.adaptive_concurrency.clone().map(|config| Gradient::new(config, now)),
            queue: config.queue.clone(),
            running: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            hungry: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            shed: AtomicU64::new(0),
        })
    }

    /// Whether both configs make the same gate.
    pub(crate) fn is_same(one: &model::Upstream, other: &model::Upstream) -> bool {
        let limits = |config: &model::Upstream| {
            let breaker = &config.circuit_breaker;
            (breaker.max_requests, breaker.max_connections, config.protocol)
        };
        one.adaptive_concurrency == other.adaptive_concurrency
            && one.queue == other.queue
            && limits(one) == limits(other)
    }

    /// Calls at once.
    pub fn limit(&self) -> u32 {
        self.adaptive.as_ref().map_or(self.most, |adaptive| adaptive.limit().min(self.most))
    }

    /// The current state.
    pub fn reading(&self) -> GateReading {
        GateReading {
            limit: self.limit(),
            running: self.running.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            refused: self.refused.load(Relaxed),
            shed: self.shed.load(Relaxed),
            adaptive: self.adaptive.as_ref().map(Gradient::reading),
        }
    }

    pub(super) fn running(&self) -> u32 {
        self.running.load(Relaxed)
    }

    /// Takes a permit, if one is free, and returns the number of running calls. It never takes one too many, even if
    /// many workers ask at once.
    pub(super) fn enter(&self) -> Option<u32> {
        take(&self.running, self.limit())
    }

    pub(super) fn leave(&self) {
        self.running.fetch_sub(1, Relaxed);
    }

    pub(super) fn begun(&self, running: u32, now: Instant) -> u32 {
        self.adaptive.as_ref().map_or(0, |adaptive| adaptive.begun(running, now))
    }

    pub(super) fn sample(&self, phase: u32, rtt: Duration, now: Instant) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.sample(phase, rtt, self.running.load(Relaxed), now);
        }
    }

    /// Counts a refused call, and returns the reason.
    pub(super) fn refuse(&self, waited: bool) -> Reason {
        count(if waited { &self.shed } else { &self.refused });
        let reason = if self.queue.is_some() { Reason::OverflowQueue } else { Reason::OverflowAdaptive };
        attache_telemetry::metrics().overflow(&self.name, reason);
        reason
    }
}
