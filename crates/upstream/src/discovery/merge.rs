//! One set of endpoints from several sources.
//!
//! - The same address from several sources is one endpoint. The lowest priority number wins; among sources of that priority
//!   weights add up, and name and zone are those of the first source in the file.
//! - Weight is the source's times the SRV record's (0 counts as 1, RFC 2782). Every address of an SRV target has the
//!   target's weight.
//! - SRV priorities rank within their source: with any of them in play, priorities are the ranks of the pairs
//!   (source, SRV rank); otherwise those of the file.
//! - A source that fails keeps its last good answer. While any source has never answered, endpoints that were there before
//!   (from the config before a reload) stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use attache_config::model::{EndpointSource, EndpointTarget, Name};
use attache_telemetry::Reason;

use super::lookup::{DiscoveredAddress, LookupAnswer, LookupError};
use crate::{Endpoint, EndpointAddress, EndpointSpec, SharedUpstream};

/// The sources of one upstream, and their last results.
#[derive(Debug)]
pub(super) struct Merge {
    shared: Arc<SharedUpstream>,
    sources: Vec<SourceState>,
}

#[derive(Debug)]
struct SourceState {
    source: EndpointSource,
    /// The last good answer.
    found: Vec<DiscoveredAddress>,
    answered: bool,
    failure: Option<LookupError>,
}

/// What a result changed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResultChange {
    /// As before.
    Same,
    /// It failed now, or failed for another reason than before.
    Failed(Reason),
    /// It works again.
    Recovered,
}

pub(super) fn is_looked_up(source: &EndpointSource) -> bool {
    matches!(
        source.target,
        EndpointTarget::Dns { .. } | EndpointTarget::Srv { .. } | EndpointTarget::Kubernetes(_)
    )
}

impl Merge {
    pub(super) fn new(shared: Arc<SharedUpstream>, sources: Vec<EndpointSource>) -> Self {
        let state = |source: EndpointSource| SourceState {
            answered: !is_looked_up(&source),
            source,
            found: Vec::new(),
            failure: None,
        };
        Self { sources: sources.into_iter().map(state).collect(), shared }
    }

    pub(super) fn shared(&self) -> &Arc<SharedUpstream> {
        &self.shared
    }

    pub(super) fn target(&self, source: usize) -> Option<EndpointTarget> {
        self.sources.get(source).map(|state| state.source.target.clone())
    }

    /// Takes the result of one look-up, and publishes the endpoints that follow from it.
    pub(super) fn take(&mut self, source: usize, result: Result<LookupAnswer, LookupError>) -> ResultChange {
        let Some(state) = self.sources.get_mut(source) else { return ResultChange::Same };
        let failure = match result {
            Ok(mut answer) => {
                let in_gap = |old: &&DiscoveredAddress| {
                    let covers = |v6: Option<bool>| v6.is_none_or(|v6| v6 == old.address.is_ipv6());
                    answer.gaps.iter().any(|gap| gap.name == old.name && covers(gap.v6))
                };
                let kept: Vec<_> = state.found.iter().filter(in_gap).cloned().collect();
                answer.found.extend(kept);
                state.found = answer.found;
                state.answered = true;
                None
            }
            Err(failure) => Some(failure),
        };
        let turn = match (&state.failure, &failure) {
            (None, None) => ResultChange::Same,
            (Some(old), Some(new)) if old.reason == new.reason => ResultChange::Same,
            (_, Some(new)) => ResultChange::Failed(new.reason),
            (Some(_), None) => ResultChange::Recovered,
        };
        state.failure = failure;
        self.publish();
        turn
    }

    pub(super) fn publish(&self) {
        let mut failure = self.sources.iter().find_map(|state| state.failure.as_ref()).map(|f| f.reason);
        let mut specs = self.specs();
        let unanswered = self.sources.iter().find(|state| !state.answered);
        if let Some(state) = unanswered.filter(|_| specs.is_empty()) {
            // If no other source has failed, the first look-up is still running.
            failure = failure.or(Some(match state.source.target {
                EndpointTarget::Kubernetes(_) => Reason::DiscoveryPending,
                _ => Reason::DnsPending,
            }));
        }
        if unanswered.is_some() {
            let named: BTreeSet<_> = specs.iter().map(|spec| spec.address.clone()).collect();
            let before = self.shared.endpoints.load();
            specs.extend(before.endpoints.iter().filter(|e| !named.contains(&e.address)).map(|e| spec_of(e)));
        }
        self.shared.replace_endpoints(specs, failure);
    }

    fn specs(&self) -> Vec<EndpointSpec> {
        let mut merged: BTreeMap<EndpointAddress, RankedSpec> = BTreeMap::new();
        for ranked in self.sources.iter().flat_map(SourceState::ranked) {
            match merged.get_mut(&ranked.spec.address) {
                None => {
                    merged.insert(ranked.spec.address.clone(), ranked);
                }
                Some(first) if ranked.rank < first.rank => {
                    // Name and zone stay the first source's, so that the endpoint stays the same one.
                    (first.rank, first.spec.weight) = (ranked.rank, ranked.spec.weight);
                }
                Some(first) if ranked.rank == first.rank => {
                    first.spec.weight = first.spec.weight.saturating_add(ranked.spec.weight);
                }
                Some(_) => {}
            }
        }
        let ranks: BTreeSet<(u8, usize)> = merged.values().map(|ranked| ranked.rank).collect();
        let by_file = ranks.iter().all(|&(_, srv)| srv == 0);
        let priority = |rank: (u8, usize)| {
            if by_file {
                return rank.0;
            }
            let position = ranks.iter().position(|&other| other == rank).unwrap_or(usize::MAX);
            u8::try_from(position).unwrap_or(u8::MAX)
        };
        merged
            .into_values()
            .map(|ranked| EndpointSpec { priority: priority(ranked.rank), ..ranked.spec })
            .collect()
    }
}

/// A spec whose priority is not settled yet: (the source's, the SRV rank within it).
#[derive(Debug)]
struct RankedSpec {
    spec: EndpointSpec,
    rank: (u8, usize),
}

impl SourceState {
    fn ranked(&self) -> Vec<RankedSpec> {
        let source = &self.source;
        let ranked = |address, host, weight: u32, srv: usize| RankedSpec {
            spec: EndpointSpec {
                address,
                host,
                weight,
                priority: 0,
                zone: source.zone.clone(),
                labels: source.labels.as_slice().into(),
            },
            rank: (source.priority, srv),
        };
        // The zone of the config takes precedence over that of an EndpointSlice.
        let zoned = |mut ranked: RankedSpec, zone: &Option<Name>| {
            ranked.spec.zone = ranked.spec.zone.or_else(|| zone.clone());
            ranked
        };
        match &source.target {
            EndpointTarget::Ip(address) => {
                vec![ranked(EndpointAddress::Tcp(*address), None, source.weight, 0)]
            }
            EndpointTarget::Unix(path) => {
                vec![ranked(EndpointAddress::Unix(path.as_path().into()), None, source.weight, 0)]
            }
            EndpointTarget::Dns { .. } | EndpointTarget::Srv { .. } | EndpointTarget::Kubernetes(_) => {
                let priorities: BTreeSet<u16> = self.found.iter().map(|found| found.priority).collect();
                let srv = |priority| priorities.iter().take_while(|&&p| p < priority).count();
                let weight =
                    |found: &DiscoveredAddress| source.weight.max(1).saturating_mul(found.weight.max(1));
                let of = |found: &DiscoveredAddress| {
                    let address = EndpointAddress::Tcp(found.address);
                    let host = Some(found.host.clone());
                    zoned(ranked(address, host, weight(found), srv(found.priority)), &found.zone)
                };
                self.found.iter().map(of).collect()
            }
        }
    }
}

fn spec_of(endpoint: &Endpoint) -> EndpointSpec {
    EndpointSpec {
        address: endpoint.address.clone(),
        host: endpoint.host.clone(),
        weight: endpoint.weight(),
        priority: endpoint.priority(),
        zone: endpoint.zone.clone(),
        labels: endpoint.labels.clone(),
    }
}
