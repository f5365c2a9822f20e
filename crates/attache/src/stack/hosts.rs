//! The upstreams of one worker: those that the config names, and those that requests name.

use std::{
    cell::RefCell,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use attache_authorization::{external::ExternalAuthorizer, jwt::TokenVerifier};
use attache_config::model::{
    self, Address, AuthorizerUse, Destination, GlobalRateLimit, Name, Policy, Retry, Timeouts, UpstreamId,
};
use attache_http::{Body, default_port, parse_authority};
use attache_resilience::{Stack, UpstreamState, global_limit::GlobalLimiter, own_calls, stack};
use attache_rpc as rpc;
use attache_telemetry::Reason;
use attache_tls::CredentialHeader;
use attache_upstream::{
    Call, CallKind, Error, IdMap, SentPart, SharedUpstream, WorkerUpstream,
    discovery::{LookupError, OnDemandHosts},
    outlier,
};
use attache_wire::Request;
use http::{HeaderName, Method, uri::Scheme};
use tokio::{
    task::spawn_local,
    time::{Instant, sleep},
};

use super::OwnAddresses;
use crate::{
    credentials::Credentials,
    generation::{Generation, UpstreamParts},
};

/// How many hosts of forward proxies and original destinations a worker keeps ready. If there are more, those that the control thread has
/// dropped are removed, and if that is not enough, all of them.
const READY_HOSTS: usize = 4096;

/// All upstreams of one generation, for one worker.
pub(crate) struct Upstreams {
    /// One for each upstream of the config, in its order.
    all: Vec<UpstreamHandle>,
    /// The secrets that are added to requests.
    credentials: Credentials,
    /// Verifies tokens.
    verifier: Rc<TokenVerifier>,
    /// The authorizers, one for each in the config; `None` for one that can't be asked.
    authorizers: Vec<Option<Rc<ExternalAuthorizer>>>,
    /// The addresses that this process itself listens on.
    own: OwnAddresses,
}

/// One upstream. It is cheap to clone. Generations that share it share its connections.
#[derive(Clone)]
struct UpstreamHandle {
    parts: UpstreamParts,
    named: WorkerUpstream,
    /// If requests name the host: this worker's cache of hosts.
    hosts: Option<Rc<OnDemandHosts>>,
    ready: HostUpstreams,
}

/// The upstreams of hosts that requests named.
type HostUpstreams = Rc<PerHost<(Arc<UpstreamState>, WorkerUpstream)>>;

/// What a worker keeps for each host that requests named.
pub(super) struct PerHost<T>(RefCell<IdMap<(Arc<SharedUpstream>, T)>>);

impl<T> Default for PerHost<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> PerHost<T> {
    /// Uses the stack of a host. If there is none, it is made first.
    pub(super) fn with<R, E>(
        &self,
        host: &Arc<SharedUpstream>,
        make: impl FnOnce() -> Result<T, E>,
        work: impl FnOnce(&mut T) -> R,
    ) -> Result<R, E> {
        if let Some((_, known)) = self.0.borrow_mut().get_mut(&host.id) {
            return Ok(work(known));
        }
        let mut new = make()?;
        let result = work(&mut new);
        let mut all = self.0.borrow_mut();
        if all.len() >= READY_HOSTS {
            // A host that the control thread dropped has no endpoints any more.
            all.retain(|_, (host, _)| !host.endpoints.load().endpoints.is_empty());
        }
        if all.len() >= READY_HOSTS {
            all.clear();
        }
        all.insert(host.id, (host.clone(), new));
        Ok(result)
    }
}

impl UpstreamHandle {
    fn new(parts: &UpstreamParts) -> Self {
        Self {
            named: worker_upstream(&parts.resilience, parts),
            hosts: parts.on_demand.as_ref().map(|hosts| Rc::new(hosts.hosts())),
            ready: HostUpstreams::default(),
            parts: parts.clone(),
        }
    }

    /// Whether it is the same upstream, not only one with the same name.
    fn is(&self, parts: &UpstreamParts) -> bool {
        let hosts = |parts: &UpstreamParts| parts.on_demand.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&self.parts.resilience, &parts.resilience) && hosts(&self.parts) == hosts(parts)
    }

    fn ready(&self, host: &Arc<SharedUpstream>) -> (Arc<UpstreamState>, WorkerUpstream) {
        let make = || {
            let (state, new) = self.parts.host_state(host);
            if new {
                spawn_local(end_ejections(Arc::downgrade(host)));
            }
            let upstream = worker_upstream(&state, &self.parts);
            Ok::<_, Infallible>((state, upstream))
        };
        let Ok(ready) = self.ready.with(host, make, |ready| ready.clone());
        ready
    }

    /// The target of a call.
    fn named_by<'a>(&self, call: &'a Call) -> Result<CallTarget<'a>, Error> {
        let parts = &self.parts;
        if parts.shared().config.address == Address::OriginalDestination {
            let why = "the connection was not redirected here, so it has no original destination";
            let address = call.context.client.original_destination();
            return address
                .map(CallTarget::Address)
                .ok_or_else(|| Error::with_source(Reason::NoEndpoint, SentPart::Nothing, why));
        }
        if parts.tls.is_none() && asks_for_tls(&call.request) {
            let why = "the URL is https and the upstream has no `tls`: nothing is sent in plaintext; use CONNECT, or give the upstream `tls`";
            return Err(Error::with_source(Reason::ProtocolMismatch, SentPart::Nothing, why));
        }
        let (host, port) = named_host(call).ok_or_else(|| {
            Error::with_source(Reason::NoEndpoint, SentPart::Nothing, "the request names no host")
        })?;
        Ok(CallTarget::Host(host, port))
    }
}

impl Upstreams {
    pub(crate) fn none() -> Rc<Self> {
        let verifier = Rc::new(TokenVerifier::new(&[]));
        Rc::new(Self {
            all: Vec::new(),
            credentials: Credentials::default(),
            verifier,
            authorizers: Vec::new(),
            own: OwnAddresses::default(),
        })
    }

    /// The upstreams of a generation. Those that it took over from the previous generation keep their connections.
    pub(crate) fn new(generation: &Generation, before: &Self, own: OwnAddresses) -> Rc<Self> {
        let one = |parts| {
            before.all.iter().find(|one| one.is(parts)).cloned().unwrap_or_else(|| UpstreamHandle::new(parts))
        };
        let all = generation.upstreams.iter().map(one).collect();
        let verifier = Rc::new(TokenVerifier::new(&generation.issuers));
        let credentials = generation.credentials.clone();
        let mut upstreams = Self { all, credentials, verifier, authorizers: Vec::new(), own };
        let authorizers = generation.config.authorizers.iter().map(|config| {
            // An answer that comes too late is worth nothing, and neither is a second attempt.
            let service =
                upstreams.service(config.service, config.timeout, Retry { attempts: 0, ..Retry::default() });
            Some(Rc::new(ExternalAuthorizer::new(config.clone(), service?)))
        });
        upstreams.authorizers = authorizers.collect();
        Rc::new(upstreams)
    }

    pub(crate) fn configs(&self) -> impl Iterator<Item = &model::Upstream> {
        self.all.iter().map(|one| &*one.parts.shared().config)
    }

    pub(crate) fn config(&self, id: UpstreamId) -> Option<&model::Upstream> {
        self.all.get(id.0).map(|one| &*one.parts.shared().config)
    }

    /// An upstream of the config; `None` if requests name its hosts.
    pub(crate) fn named(&self, id: UpstreamId) -> Option<(&Arc<UpstreamState>, &WorkerUpstream)> {
        let one = self.all.get(id.0).filter(|one| !one.parts.is_on_demand())?;
        Some((&one.parts.resilience, &one.named))
    }

    /// Closes the connections that are kept for reuse.
    pub(crate) fn close_idle(&self) {
        for one in &self.all {
            one.named.close_idle();
            one.ready.0.borrow().values().for_each(|(_, (_, upstream))| upstream.close_idle());
        }
    }

    /// A secret that is added to requests.
    pub(crate) fn credential(&self, wanted: Option<&model::Credential>) -> Option<&CredentialHeader> {
        self.credentials.get(wanted?)
    }

    /// Opens the connections that the config wants before there is traffic.
    pub(crate) fn preconnect(&self) {
        for one in &self.all {
            if one.parts.shared().config.pool.preconnect > 0 {
                one.named.preconnect();
            }
        }
    }

    /// The layers of a destination whose upstream has its endpoints in the config.
    pub(crate) fn stack(&self, destination: &Destination) -> Option<Stack<WorkerUpstream>> {
        let (state, upstream) = self.named(destination.upstream)?;
        Some(stack(&destination.policy, state, upstream.clone()))
    }

    /// Verifies tokens.
    pub(crate) const fn verifier(&self) -> &Rc<TokenVerifier> {
        &self.verifier
    }

    /// An authorizer, by its index in the config.
    pub(crate) fn authorizer(&self, index: usize) -> Option<&Rc<ExternalAuthorizer>> {
        self.authorizers.get(index)?.as_ref()
    }

    /// Headers that an authorizer may set, and that a client must not set.
    pub(crate) fn headers_of(&self, used: Option<&AuthorizerUse>) -> impl Iterator<Item = &HeaderName> {
        let external = match used {
            Some(AuthorizerUse::Ask { authorizer, .. }) => self.authorizer(*authorizer),
            Some(AuthorizerUse::Off) | None => None,
        };
        external.into_iter().flat_map(|external| &external.config().upstream_headers)
    }

    /// An upstream that attache itself calls; `None` if requests name its hosts.
    pub(crate) fn service(
        &self,
        id: UpstreamId,
        timeout: Duration,
        retry: Retry,
    ) -> Option<rpc::UpstreamService> {
        let (state, upstream) = self.named(id)?;
        let config = &state.shared.config;
        let timeouts = Timeouts { request: timeout, whole: true, idle: Duration::ZERO };
        let policy = Policy { timeouts, retry, deadline_header: None, credential: None };
        let service = stack(&policy, state, upstream.clone());
        Some(own_calls(config.name.clone(), config.own_host(), service))
    }

    /// The client for the service of a global rate limit; `None` if requests name the host, which is never the case for such a service.
    pub(crate) fn limiter(&self, limit: GlobalRateLimit, route: Name) -> Option<Rc<GlobalLimiter>> {
        // An answer that comes too late is worth nothing, and neither is a second attempt.
        let retry = Retry { attempts: 0, ..Retry::default() };
        let service = self.service(limit.service, limit.timeout, retry)?;
        Some(GlobalLimiter::new(limit, route, service))
    }

    /// The host that a call names, if this worker knows it: then there is nothing to wait for.
    pub(super) fn known_host(
        &self,
        destination: &Destination,
        call: &Call,
    ) -> Result<Option<Arc<SharedUpstream>>, Error> {
        let (one, hosts) = self.asked(destination)?;
        let found = match one.named_by(call)? {
            CallTarget::Address(address) => hosts.known_address(address),
            CallTarget::Host(host, port) => {
                let found = hosts.known(host, port);
                if found.is_some() {
                    call.context.exchange.looked_up(host, std::time::Instant::now(), Ok(()));
                }
                found
            }
        };
        if let Some(host) = &found {
            self.own.refuse(host, call.context.client.local)?;
        }
        Ok(found)
    }

    /// The host that a call names. It is looked up if this worker doesn't know it.
    pub(super) async fn host(
        &self,
        destination: &Destination,
        call: &Call,
    ) -> Result<Arc<SharedUpstream>, Error> {
        let (one, hosts) = self.asked(destination)?;
        let request_timeout = destination.policy.timeouts.request;
        let deadline = (!request_timeout.is_zero()).then(|| Instant::now() + request_timeout);
        let found = match one.named_by(call)? {
            CallTarget::Address(address) => hosts.get_address(address, deadline).await,
            CallTarget::Host(host, port) => {
                let begun = std::time::Instant::now();
                let found = hosts.get(host, port, deadline).await;
                let outcome = found.as_ref().map(|_| ()).map_err(|failure| failure.reason);
                call.context.exchange.looked_up(host, begun, outcome);
                found
            }
        };
        let host = found.map_err(|LookupError { reason, detail }| {
            if detail.is_empty() {
                Error::new(reason, SentPart::Nothing)
            } else {
                Error::with_source(reason, SentPart::Nothing, detail)
            }
        })?;
        self.own.refuse(&host, call.context.client.local)?;
        Ok(host)
    }

    /// The layers of a destination for a host that requests name.
    pub(super) fn stack_of_host(
        &self,
        destination: &Destination,
        host: &Arc<SharedUpstream>,
    ) -> Result<Stack<WorkerUpstream>, Error> {
        let (one, _) = self.asked(destination)?;
        let (state, upstream) = one.ready(host);
        Ok(stack(&destination.policy, &state, upstream))
    }

    /// The upstream of a destination whose hosts requests name, with this worker's hosts.
    fn asked(&self, destination: &Destination) -> Result<(&UpstreamHandle, &OnDemandHosts), Error> {
        let asked = self.all.get(destination.upstream.0).and_then(|one| Some((one, &**one.hosts.as_ref()?)));
        asked.ok_or_else(|| Error::new(Reason::InternalError, SentPart::Nothing))
    }
}

/// The part of a call that names its target.
enum CallTarget<'a> {
    Address(SocketAddr),
    Host(&'a str, u16),
}

/// Ends the ejections of a host's endpoints on time. For upstreams with endpoints in the config, the control thread does this.
async fn end_ejections(shared: Weak<SharedUpstream>) {
    while let Some(shared) = shared.upgrade() {
        outlier::recover(&shared, Instant::now());
        drop(shared);
        sleep(Duration::from_secs(1)).await;
    }
}

/// Whether it is `GET https://…`: the client leaves the encryption to its proxy. (The target of a CONNECT has no scheme.)
fn asks_for_tls(request: &Request<Body>) -> bool {
    request.method() != Method::CONNECT && request.uri().scheme() == Some(&Scheme::HTTPS)
}

/// The host that a request names. For opaque TLS it is the server name, with the port of the original connection.
fn named_host(call: &Call) -> Option<(&str, u16)> {
    let request = &call.request;
    let Some(authority) = request.uri().authority() else {
        let client = &call.context.client;
        let sni = client.sni.as_deref().filter(|_| call.wants == CallKind::Connection)?;
        let port = client.original_destination().map_or(443, |address| address.port());
        return Some((sni, port));
    };
    let authority = parse_authority(authority.as_str())?;
    let scheme = request.uri().scheme_str().unwrap_or("http");
    let host = authority.host.trim_start_matches('[').trim_end_matches(']');
    Some((host, authority.port.unwrap_or_else(|| default_port(scheme))))
}

fn worker_upstream(state: &Arc<UpstreamState>, parts: &UpstreamParts) -> WorkerUpstream {
    WorkerUpstream::new(state.shared.clone(), parts.tls.clone())
}
