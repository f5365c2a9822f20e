//! Makes everything from a checked config that a generation needs and that can fail: it reads certificates, binds sockets and opens the
//! access log's file. It doesn't touch anything that serves; a config that fails here changes nothing.
//!
//! Unchanged parts of the previous generation are taken over: a listener's sockets, its TLS with the sessions that clients may resume, a
//! route's rate limit.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use attache_authorization::jwt::Issuer;
use attache_config::model::{self, Action, Config, ListenProtocol};
use attache_resilience::RouteState;
use attache_telemetry::AccessLogHandle;
use attache_tls::{Acceptor, Workload};
use attache_upstream::connect::Tls;

use crate::{
    credentials::Credentials,
    error::Error,
    exports::OtlpExports,
    generation::{Generation, ListenerParts, UpstreamParts},
    inherited::InheritedSockets,
    issuers,
    observe::{self, RunningCollector},
    process::ProcessState,
    proxy::sockets::{BoundSockets, bind_keys},
    tls,
};

/// All parts of a generation that can fail.
pub(crate) struct PreparedGeneration {
    pub(crate) config: Config,
    /// One for each of `config.upstreams`, in its order.
    pub(crate) upstreams: Vec<UpstreamSource>,
    /// One for each of `config.listeners`, in its order.
    pub(crate) listeners: Vec<ListenerParts>,
    pub(crate) access_log: AccessLogHandle,
    /// The exports to collectors.
    pub(crate) exported: OtlpExports,
    /// The exports that must be started: those that the previous generation doesn't have.
    pub(crate) collectors: Vec<RunningCollector>,
    pub(crate) credentials: Credentials,
    pub(crate) issuers: Vec<Arc<Issuer>>,
    pub(crate) workload: Option<Workload>,
    /// The sockets of new binds.
    pub(crate) sockets: Vec<BoundSockets>,
}

/// How the next generation gets an upstream.
pub(crate) enum UpstreamSource {
    /// It is unchanged in the config.
    Kept(UpstreamParts),
    /// It is new or changed.
    New { config: Arc<model::Upstream>, tls: Option<Tls> },
}

/// Reads and binds what `config` names and `before` doesn't have. Sockets that were handed over are used first. It blocks on files, and on
/// the SPIFFE agent's first response.
pub(crate) fn prepare(
    config: Config,
    before: &Generation,
    process: &ProcessState,
    handed: &mut InheritedSockets,
) -> Result<PreparedGeneration, Error> {
    let workload = tls::workload(&config, before.workload.as_ref())?;
    let credentials = Credentials::read(&config, &before.credentials, &process.secrets)?;
    let issuers = issuers::prepare(&config, &before.config, &before.issuers)?;
    let known = before.by_name();
    let upstreams = config.upstreams.iter().map(|upstream| {
        let old = known.get(&*upstream.name).copied().filter(|old| *old.shared().config == *upstream);
        if let Some(old) = old {
            return Ok(UpstreamSource::Kept(old.clone()));
        }
        let tls = Tls::with_workload(upstream, workload.as_ref()).map_err(|source| Error::Tls {
            what: "upstream",
            name: upstream.name.clone(),
            source,
        })?;
        if let Some(tls) = &tls {
            process.certificates.follow(tls.connector());
        }
        Ok(UpstreamSource::New { config: Arc::new(upstream.clone()), tls })
    });
    let upstreams = upstreams.collect::<Result<_, Error>>()?;
    let listeners = config.listeners.iter().map(|listener| {
        let old = before.listener(&listener.name);
        Ok(ListenerParts {
            config: Arc::new(listener.clone()),
            tls: acceptor(listener, old, workload.as_ref(), process)?,
            connections: old.map(|old| old.connections.clone()).unwrap_or_default(),
            routes: route_states(listener, old),
        })
    });
    let listeners = listeners.collect::<Result<_, Error>>()?;
    let access_log = if before.number > 0 && config.access_log == before.config.access_log {
        before.access_log.clone()
    } else {
        AccessLogHandle::start(&config.access_log, &process.metrics).map_err(Error::AccessLog)?
    };
    let (exported, collectors) = observe::exported(&config, before, workload.as_ref(), process)?;
    let sockets = bind(&config, before, process, handed)?;
    Ok(PreparedGeneration {
        config,
        upstreams,
        listeners,
        access_log,
        exported,
        collectors,
        credentials,
        issuers,
        workload,
        sockets,
    })
}

fn acceptor(
    listener: &model::Listener,
    old: Option<&ListenerParts>,
    workload: Option<&Workload>,
    process: &ProcessState,
) -> Result<Option<Acceptor>, Error> {
    let Some(tls) = &listener.tls else { return Ok(None) };
    let same =
        |old: &&ListenerParts| old.config.tls == listener.tls && old.config.protocol == listener.protocol;
    if let Some(old) = old.filter(same) {
        return Ok(old.tls.clone());
    }
    let acceptor = Acceptor::with_workload(tls, alpn(listener.protocol), workload)
        .map_err(|source| Error::Tls { what: "listener", name: listener.name.clone(), source })?;
    process.certificates.follow(&acceptor);
    Ok(Some(acceptor))
}

/// The protocols that TLS clients are offered. For opaque bytes the clients and the upstream decide.
const fn alpn(protocol: ListenProtocol) -> &'static [&'static [u8]] {
    match protocol {
        ListenProtocol::Auto | ListenProtocol::Http => &[b"h2", b"http/1.1"],
        ListenProtocol::Http1 => &[b"http/1.1"],
        ListenProtocol::Http2 => &[b"h2"],
        ListenProtocol::Tcp | ListenProtocol::Tls => &[],
    }
}

/// A route whose limits and faults are unchanged keeps its counts.
fn route_states(listener: &model::Listener, old: Option<&ListenerParts>) -> Arc<[Arc<RouteState>]> {
    let known = old.into_iter().flat_map(|old| old.config.routes.iter().zip(old.routes.iter()));
    // If one entry has several paths, its routes all have the same name; then the state of the first one is used.
    let mut states: HashMap<&str, (&model::Route, &Arc<RouteState>)> = HashMap::new();
    for (route, state) in known {
        states.entry(&*route.name).or_insert((route, state));
    }
    let state = |route: &model::Route| {
        let Action::Forward(forward) = &route.action else { return Arc::default() };
        let same = states.get(&*route.name).and_then(|(known, state)| {
            let Action::Forward(known) = &known.action else { return None };
            let same = known.rate_limit == forward.rate_limit && known.fault == forward.fault;
            same.then(|| Arc::clone(state))
        });
        same.unwrap_or_else(|| RouteState::new(forward))
    };
    listener.routes.iter().map(state).collect()
}

fn bind(
    config: &Config,
    before: &Generation,
    process: &ProcessState,
    handed: &mut InheritedSockets,
) -> Result<Vec<BoundSockets>, Error> {
    let known: HashSet<_> = before.config.listeners.iter().flat_map(bind_keys).collect();
    let mut bound: Vec<BoundSockets> = Vec::new();
    for listener in &config.listeners {
        let fail = |source| Error::Bind { listener: listener.name.clone(), source };
        for (place, bind) in
            bind_keys(listener).zip(&listener.bind).filter(|(place, _)| !known.contains(place))
        {
            let given = handed.take_for(&place, &listener.name);
            let sockets = if given.is_empty() {
                attache_listener::bind(bind, &process.workers)
            } else {
                attache_listener::adopt(bind, given, handed.is_ours(), &process.workers)
            };
            bound.push((place, sockets.map_err(fail)?));
        }
    }
    Ok(bound)
}
