//! Values that several rows of the table are read from. They are added up once for each scrape.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use attache_config::model::Name;

use super::{
    AdmissionCounts, MetricsRegistry, OverloadGauges, cell,
    control::{ControlValues, Outcomes, lock},
    exemplars::{self, Exemplars},
    expected::Expected,
    page::{FamilySamples, histograms, numbers},
    process::ProcessReading,
    series::Sums,
};

/// One cell for each value that is written when a request ends.
type RequestCells<const LABELS: usize> = Sums<LABELS, { cell::ALL }>;

/// All values at one point in time.
pub(super) struct Scrape<'r> {
    pub(super) registry: &'r MetricsRegistry,
    pub(super) expected: Expected,
    pub(super) exchanges: RequestCells<6>,
    /// By listener, route, upstream, protocol and class of the status.
    pub(super) by_code: RequestCells<5>,
    /// By listener, route, upstream and protocol.
    pub(super) by_route: RequestCells<4>,
    /// By listener and upstream.
    pub(super) by_pair: RequestCells<2>,
    /// For requests that had an upstream.
    pub(super) by_upstream: RequestCells<1>,
    pub(super) exemplars: BTreeMap<[Name; 5], Exemplars>,
    pub(super) connections: Sums<1, 2>,
    pub(super) upstream_connections: Sums<1, 2>,
    pub(super) overload: OverloadGauges,
    pub(super) process: ProcessReading,
}

impl<'r> Scrape<'r> {
    pub(super) fn of(registry: &'r MetricsRegistry) -> Self {
        let (shared, control) = (&registry.shared, &registry.control);
        let exchanges = shared.exchanges.sums();
        let mut by_upstream = group(&exchanges, |[_, _, upstream, ..]| [upstream]);
        by_upstream.retain(|[upstream], _| !upstream.is_empty());
        Self {
            registry,
            expected: lock(&control.expected).clone(),
            by_code: group(&exchanges, |[listener, route, upstream, protocol, code, _]| {
                [listener, route, upstream, protocol, code]
            }),
            by_route: group(&exchanges, |[listener, route, upstream, protocol, ..]| {
                [listener, route, upstream, protocol]
            }),
            by_pair: group(&exchanges, |[listener, _, upstream, ..]| [listener, upstream]),
            by_upstream,
            exchanges,
            exemplars: shared.exemplars.fold(exemplars::read),
            connections: shared.connections.sums(),
            upstream_connections: shared.upstream_connections.sums(),
            overload: lock(&control.overload).clone(),
            process: ProcessReading::read(),
        }
    }

    pub(super) fn control(&self) -> &'r ControlValues {
        &self.registry.control
    }

    /// When the running config was loaded, in seconds since the Unix epoch. `None` before the first one.
    pub(super) fn loaded(&self) -> Option<f64> {
        Some(self.control().last_loaded.load(Relaxed)).filter(|at| *at != 0).map(|at| at as f64)
    }

    /// How many endpoints of each upstream are in each state.
    pub(super) fn endpoint_states(&self) -> FamilySamples {
        let endpoints = lock(&self.control().endpoints);
        numbers(endpoints.iter().flat_map(|(upstream, counts)| {
            [
                ("circuit-open", counts.circuit_open),
                ("unreachable", counts.unreachable),
                ("ejected", counts.ejected),
                ("healthy", counts.healthy),
                ("unhealthy", counts.unhealthy),
            ]
            .map(|(state, count)| ([Name::clone(upstream), state.into()], count as f64))
        }))
    }

    /// 1 for the state of each upstream's failure breaker, 0 for the others.
    pub(super) fn circuit_states(&self) -> FamilySamples {
        numbers(lock(&self.control().circuits).iter().flat_map(|(upstream, now)| {
            ["closed", "half-open", "open"]
                .map(|state| ([Name::clone(upstream), state.into()], flag(*now == state)))
        }))
    }

    /// When each certificate expires, in seconds since the Unix epoch.
    pub(super) fn expiries(&self) -> FamilySamples {
        numbers(lock(&self.control().expiries).iter().map(|(labels, at)| (&labels[..], *at as f64)))
    }

    /// A value of each upstream with a limit, if it has that value.
    pub(super) fn admission(&self, value: impl Fn(&AdmissionCounts) -> Option<f64>) -> FamilySamples {
        let of = |(upstream, counts): (&Name, _)| Some(([Name::clone(upstream)], value(counts)?));
        numbers(lock(&self.control().admissions).iter().filter_map(of))
    }

    /// For each upstream with a retry budget: how much is used (0), or how much there is (1).
    pub(super) fn retry_budget(&self, at: usize) -> FamilySamples {
        let of = |(upstream, budget): (&Name, &[u32; 2])| ([Name::clone(upstream)], f64::from(budget[at]));
        numbers(lock(&self.control().retry_budgets).iter().map(of))
    }
}

/// The histograms whose cells begin at `first`, without exemplars.
pub(super) fn durations<const LABELS: usize, const CELLS: usize>(
    sums: &Sums<LABELS, CELLS>,
    first: usize,
) -> FamilySamples {
    histograms(sums, first, &BTreeMap::new())
}

/// Adds zeros for series that have not been counted yet.
pub(super) fn with_zeros<const LABELS: usize>(
    mut sums: Sums<LABELS, 1>,
    zeros: Vec<[Name; LABELS]>,
) -> Sums<LABELS, 1> {
    for labels in zeros {
        sums.entry(labels).or_insert([0]);
    }
    sums
}

/// The counts by `outcome`.
pub(super) fn outcomes(of: &Outcomes) -> FamilySamples {
    numbers(of.counts().map(|(word, count)| ([Name::from(word)], count as f64)))
}

/// 1 for yes.
pub(super) fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Adds up the series that differ only in labels that are dropped.
fn group<const FROM: usize, const TO: usize, const CELLS: usize>(
    sums: &Sums<FROM, CELLS>,
    keep: impl Fn(&[Name; FROM]) -> [&Name; TO],
) -> Sums<TO, CELLS> {
    let mut grouped = Sums::new();
    for (labels, cells) in sums {
        let group = grouped.entry(keep(labels).map(Name::clone)).or_insert([0; CELLS]);
        for (sum, cell) in group.iter_mut().zip(cells) {
            *sum = sum.wrapping_add(*cell);
        }
    }
    grouped
}

/// One cell of several.
pub(super) fn only<const LABELS: usize, const CELLS: usize>(
    sums: &Sums<LABELS, CELLS>,
    cell: usize,
) -> Sums<LABELS, 1> {
    sums.iter().map(|(labels, cells)| (labels.clone(), [cells[cell]])).collect()
}
