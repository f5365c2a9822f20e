//! Where endpoints come from: static addresses, DNS names, SRV names, Services of Kubernetes, and hosts that requests name.
//!
//! Everything here runs on the control thread. [`start`] keeps one upstream's [`SharedUpstream`] fresh; [`OnDemand`] does it
//! for hosts when requests name them. A worker never looks up a name itself.
//!
//! - `resolver` turns a name into addresses as libc would: hosts file, search domains, families, SRV.
//! - `refresh` decides when: by the TTL within limits, with a backoff after failures, and at once if nothing can be
//!   reached. It uses [`Lookup`], not DNS.
//! - `kubernetes` follows the EndpointSlices of a Service: the API server reports their changes.
//! - `merge` makes one set of several sources.

mod deny;
mod hosts;
mod kubernetes;
mod lookup;
mod merge;
mod on_demand;
mod refresh;
mod resolv_conf;
mod resolver;
mod routes;
mod runtime;
mod servers;
mod service;
mod status;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use attache_config::model::{self, Address, EndpointSource, EndpointTarget};
use tokio::{sync::watch, task::JoinSet};

pub use deny::denied;
pub use lookup::{DiscoveredAddress, Lookup, LookupAnswer, LookupError, LookupGap};

pub use on_demand::{OnDemand, OnDemandHosts};
pub use refresh::Schedule;
pub use resolver::Resolver;
pub use status::{LookupStatus, Lookups};

use self::merge::Merge;
use crate::SharedUpstream;

/// Keeps one upstream's endpoints fresh until it is dropped. The endpoints then stay as they are.
#[derive(Debug)]
pub struct Discovery {
    // Aborted on drop.
    _tasks: JoinSet<()>,
    /// Sources that were not tried yet.
    untried: watch::Receiver<usize>,
}

impl Discovery {
    /// Waits until every source was tried once, with any result.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let mut untried = self.untried.clone();
        async move {
            // An error means that the tasks have ended: no further result will come.
            let _ = untried.wait_for(|&untried| untried == 0).await;
        }
    }
}

/// Begins to keep `shared` fresh. Must be called within a tokio runtime (the control thread's), and only once for each
/// `SharedUpstream`; before another `SharedUpstream` inherits from it, its discovery must be dropped.
///
/// Addresses and sockets that need no look-up are endpoints when this returns. An upstream that takes its endpoints
/// from the request ([`Address::Authority`], [`Address::OriginalDestination`]) has nothing to look up here: see
/// [`OnDemand`].
#[expect(
    clippy::needless_pass_by_value,
    reason = "the tasks keep it: callers hand over a clone, as to OnDemand"
)]
pub fn start(shared: Arc<SharedUpstream>, lookup: Arc<impl Lookup>, dns: &model::Dns) -> Discovery {
    let sources = match &shared.config.address {
        Address::Endpoints(sources) => sources.clone(),
        Address::Authority { .. } | Address::OriginalDestination => Vec::new(),
    };
    start_sources(shared, sources, &lookup, &Schedule::new(dns))
}

fn start_sources(
    shared: Arc<SharedUpstream>,
    sources: Vec<EndpointSource>,
    lookup: &Arc<impl Lookup>,
    schedule: &Schedule,
) -> Discovery {
    let looked_up: Vec<usize> =
        (0..).zip(&sources).filter(|(_, s)| merge::is_looked_up(s)).map(|(i, _)| i).collect();
    let merge = Arc::new(Mutex::new(Merge::new(shared, sources)));
    refresh::lock(&merge).publish();
    let (sender, untried) = watch::channel(looked_up.len());
    let mut tasks = JoinSet::new();
    for source in looked_up {
        let (merge, untried) = (merge.clone(), sender.clone());
        let target = refresh::lock(&merge).target(source);
        if let Some(EndpointTarget::Kubernetes(service)) = target {
            tasks.spawn(kubernetes::KubernetesTask::new(merge, source, service, untried).run());
        } else {
            let task = refresh::RefreshTask { merge, source, untried };
            tasks.spawn(task.run(lookup.clone(), schedule.clone()));
        }
    }
    Discovery { _tasks: tasks, untried }
}
