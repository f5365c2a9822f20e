//! What the config says about routes and upstreams, for attributes that the series themselves don't have.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use attache_config::model::{Address, Config, EndpointTarget, KubernetesPort, Name, Upstream};

use super::Metrics;

/// The routes and upstreams of the running config.
#[derive(Debug, Default)]
pub(crate) struct ConfiguredParts {
    /// The path that a route matches, by listener and route.
    routes: HashMap<[Name; 2], String>,
    /// Address and port of an upstream.
    upstreams: HashMap<Name, (String, u16)>,
}

impl Metrics {
    pub(crate) fn known(&self) -> Arc<ConfiguredParts> {
        Arc::clone(&self.0.control.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ConfiguredParts {
    pub(super) fn of(config: &Config) -> Self {
        let routes = config.listeners.iter().flat_map(|listener| {
            listener.routes.iter().filter_map(|route| {
                let path = route.matcher.path.as_ref()?.to_string();
                Some(([Name::clone(&listener.name), Name::clone(&route.name)], path))
            })
        });
        let upstreams =
            config.upstreams.iter().map(|upstream| (Name::clone(&upstream.name), address(upstream)));
        Self { routes: routes.collect(), upstreams: upstreams.collect() }
    }

    /// `http.route`: the pattern of the path, or the route's name if it has no pattern.
    pub(crate) fn route<'k>(&'k self, listener: &Name, route: &'k Name) -> &'k str {
        self.routes.get(&[Name::clone(listener), Name::clone(route)]).map_or(route, String::as_str)
    }

    /// `server.address` and `server.port`.
    pub(crate) fn server<'k>(&'k self, upstream: &'k Name) -> (&'k str, Option<u16>) {
        match self.upstreams.get(upstream) {
            Some((address, port)) => (address, Some(*port)),
            None => (upstream, None),
        }
    }
}

/// Of several endpoints, the address of the first. For upstreams whose hosts come from requests, the upstream's name, because the number of
/// such hosts has no limit.
fn address(upstream: &Upstream) -> (String, u16) {
    let default = if upstream.tls.is_some() { 443 } else { 80 };
    let Address::Endpoints(sources) = &upstream.address else { return (upstream.name.to_string(), default) };
    match sources.first().map(|source| &source.target) {
        Some(EndpointTarget::Dns { host, port }) => (host.trim_end_matches('.').to_owned(), *port),
        Some(EndpointTarget::Srv { name }) => (name.to_string(), default),
        Some(EndpointTarget::Kubernetes(service)) => {
            let port = match &service.port {
                KubernetesPort::Number(port) => *port,
                KubernetesPort::Name(_) => default,
            };
            (format!("{}.{}", service.name, service.namespace), port)
        }
        Some(EndpointTarget::Ip(address)) => (address.ip().to_string(), address.port()),
        Some(EndpointTarget::Unix(path)) => (path.display().to_string(), default),
        None => (upstream.name.to_string(), default),
    }
}
