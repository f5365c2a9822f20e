//! One generation: everything that was made from one reading of the config. All threads share it.
//!
//! A generation is never changed: a reload makes the next one, and that takes over what the new config left unchanged (an upstream's
//! endpoints, connections and breaker; a route's rate limit; a listener's sockets). The old one lives until its last request has ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use attache_authorization::jwt::Issuer;
use attache_config::model::{self, Action, Address, Bind, Config, Retry};
use attache_listener::Connections;
use attache_resilience::{RetryBudget, RouteState, UpstreamState};
use attache_telemetry::AccessLogHandle;
use attache_tls::Workload;
use attache_upstream::{Id, SharedUpstream, connect::Tls, discovery::OnDemand};

use crate::{credentials::Credentials, exports::OtlpExports};

/// Everything that was made from one reading of the config. The default serves nothing.
pub(crate) struct Generation {
    /// 1 for the config of the start; each reload adds one.
    pub(crate) number: u64,
    pub(crate) config: Config,
    /// One for each of `config.upstreams`, in its order.
    pub(crate) upstreams: Vec<UpstreamParts>,
    /// One for each of `config.listeners`, in its order.
    pub(crate) listeners: Vec<ListenerParts>,
    pub(crate) access_log: AccessLogHandle,
    /// The exports to collectors.
    pub(crate) exported: OtlpExports,
    /// The secrets that are added to requests.
    pub(crate) credentials: Credentials,
    /// One for each of `config.jwt`, in its order.
    pub(crate) issuers: Vec<Arc<Issuer>>,
    /// The SPIFFE agent, if the config uses it.
    pub(crate) workload: Option<Workload>,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            number: 0,
            config: Config::default(),
            upstreams: Vec::new(),
            listeners: Vec::new(),
            access_log: AccessLogHandle::off(),
            exported: OtlpExports::default(),
            credentials: Credentials::default(),
            issuers: Vec::new(),
            workload: None,
        }
    }
}

impl Generation {
    /// All upstreams by their names.
    pub(crate) fn by_name(&self) -> HashMap<&str, &UpstreamParts> {
        self.upstreams.iter().map(|parts| (&*parts.shared().config.name, parts)).collect()
    }

    /// For each upstream, the retry policy of the routes that lead to it; if they differ, the most generous one. `None` if no route leads
    /// to it.
    pub(crate) fn retries(&self) -> Vec<Option<&Retry>> {
        let mut retries: Vec<Option<&Retry>> = vec![None; self.upstreams.len()];
        let routes = self.config.listeners.iter().flat_map(|listener| &listener.routes);
        let forwards = routes.filter_map(|route| match &route.action {
            Action::Forward(forward) => Some(forward),
            Action::Redirect(_) | Action::Respond(_) => None,
        });
        for to in forwards.flat_map(|forward| &forward.to) {
            if let Some(retry) = retries.get_mut(to.upstream.0)
                && retry.is_none_or(|known| to.policy.retry.budget.total_cmp(&known.budget).is_ge())
            {
                *retry = Some(&to.policy.retry);
            }
        }
        retries
    }

    pub(crate) fn listener(&self, name: &str) -> Option<&ListenerParts> {
        self.listeners.iter().find(|parts| &*parts.config.name == name)
    }
}

/// The part of one upstream that all threads share.
#[derive(Clone)]
pub(crate) struct UpstreamParts {
    pub(crate) resilience: Arc<UpstreamState>,
    pub(crate) tls: Option<Tls>,
    /// Finds the hosts that requests name; `None` if the config names the endpoints.
    pub(crate) on_demand: Option<Arc<OnDemand>>,
    /// The state of hosts that requests name. It is made once for all workers, and kept as long as one of them uses it. The lock is taken
    /// when a host is new to a worker.
    pub(crate) hosts: Arc<Mutex<HashMap<Id, Weak<UpstreamState>>>>,
}

impl UpstreamParts {
    /// How much of its retry budget is used; if requests name its hosts, by all of them together.
    pub(crate) fn retry_budget(&self, retry: &Retry) -> RetryBudget {
        if !self.is_on_demand() {
            return self.resilience.retry_budget(retry);
        }
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let budgets = hosts.values().filter_map(Weak::upgrade).map(|state| state.retry_budget(retry));
        budgets.fold(RetryBudget::default(), |all, one| RetryBudget {
            used: all.used.saturating_add(one.used),
            limit: all.limit.saturating_add(one.limit),
        })
    }

    /// The resilience state of a host that a request named, and whether it was made just now.
    pub(crate) fn host_state(&self, shared: &Arc<SharedUpstream>) -> (Arc<UpstreamState>, bool) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = hosts.get(&shared.id).and_then(Weak::upgrade) {
            return (state, false);
        }
        hosts.retain(|_, state| state.strong_count() > 0);
        let state = UpstreamState::new(shared.clone());
        hosts.insert(shared.id, Arc::downgrade(&state));
        (state, true)
    }

    pub(crate) fn shared(&self) -> &Arc<SharedUpstream> {
        &self.resilience.shared
    }

    /// Whether requests name its endpoints, and not the config.
    pub(crate) fn is_on_demand(&self) -> bool {
        is_on_demand(&self.shared().config)
    }
}

/// Whether requests name the endpoints.
pub(crate) fn is_on_demand(upstream: &model::Upstream) -> bool {
    matches!(upstream.address, Address::Authority { .. } | Address::OriginalDestination)
}

/// The part of one listener that all threads share.
#[derive(Clone)]
pub(crate) struct ListenerParts {
    pub(crate) config: Arc<model::Listener>,
    pub(crate) tls: Option<attache_tls::Acceptor>,
    pub(crate) connections: Arc<Connections>,
    /// One for each of its routes, in the order of the file.
    pub(crate) routes: Arc<[Arc<RouteState>]>,
}

impl ListenerParts {
    /// Whether programs other than the app can reach it: it listens on more than loopback and Unix sockets.
    pub(crate) fn is_inbound(&self) -> bool {
        self.config.bind.iter().any(|bind| match bind {
            Bind::Tcp(address) => !address.ip().is_loopback(),
            Bind::Unix { .. } => false,
        })
    }
}
