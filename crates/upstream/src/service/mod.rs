//! One upstream as one worker uses it: from a call to a response, or to a bare connection.
//!
//! A call goes through these steps, and each names its [`Reason`] when it fails: the breaker's counts, an endpoint
//! (from here on it is an [`Attempt`]), a connection to it (idle, shared or new), the request in the connection's
//! protocol, the response in the request's. A call for [a connection](CallKind::Connection) ends with the third step.
//!
//! The protocol (`protocol`):
//! - `http1`, `http2`: this one. `tcp`: no HTTP.
//! - `auto` with TLS: the one that ALPN chooses; upgrades offer only HTTP/1.1, because not every HTTP/2 server accepts
//!   them.
//! - `auto` without TLS: HTTP/1.1, but gRPC needs HTTP/2 and gets it with prior knowledge.
//!
//! A WebSocket handshake is translated into the upstream's form, and its answer back, so the client and the upstream
//! may use different protocols ([`crate::pool::upgrade`]).

mod bare;
mod race;

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use attache_config::model::{self, HashKey, ProxyProtocolOut, UpstreamProtocol};
use attache_http::{Body, Client};
use attache_telemetry::{AttemptTrace, Reason};
use attache_wire::{
    Request, Response,
    header::{CONTENT_TYPE, UPGRADE},
};
use http::Method;
use tokio::{task::spawn_local, time::Instant};

use self::bare::Reconnect;
pub use self::bare::{BareConnection, BareConnectionCharge, connected};

use crate::{
    Balancer, Call, CallContext, CallKind, Endpoint, Error, SentPart, SharedUpstream,
    attempt::{Attempt, OutcomeReceivers},
    balance::request_hash,
    boxed,
    circuit::AdmittedCall,
    connect::{AlpnOffer as Offered, EndpointConnection, Tls},
    limit::{ConnectionPermit, RequestPermit},
    outlier::circuits,
    pool::{ConnectionPool, ConnectionSpec, DialOptions, DialProtocol, upgrade},
};

/// One upstream on one worker. Cheap to clone; must be used inside of the worker's runtime.
#[derive(Clone)]
pub struct WorkerUpstream {
    inner: Rc<ServiceState>,
}

struct ServiceState {
    pool: Rc<ConnectionPool>,
    tls: Option<Tls>,
    balancer: RefCell<Balancer>,
}

impl WorkerUpstream {
    /// `tls` is the result of [`Tls::new`] for this upstream.
    pub fn new(shared: Arc<SharedUpstream>, tls: Option<Tls>) -> Self {
        let balancer = RefCell::new(Balancer::new(&shared.config.balance, fastrand::u64(..)));
        let inner = ServiceState { pool: ConnectionPool::new(shared), tls, balancer };
        Self { inner: Rc::new(inner) }
    }

    /// The upstream as all workers see it.
    pub fn shared(&self) -> &Arc<SharedUpstream> {
        &self.inner.pool.shared
    }

    /// Opens the connections that `pool.preconnect` asks for. Failures are ignored: calls will meet and report them.
    pub fn preconnect(&self) {
        let settings = &self.shared().config;
        if settings.proxy_protocol != ProxyProtocolOut::Off || settings.protocol == UpstreamProtocol::Tcp {
            return;
        }
        for endpoint in &self.shared().endpoints.load().endpoints {
            let inner = Rc::clone(&self.inner);
            let home = inner.pool.home(endpoint);
            spawn_local(async move {
                let client = Client::default();
                let protocol = inner.protocol(None);
                let want = ConnectionSpec {
                    protocol,
                    tls: inner.tls.as_ref(),
                    host: None,
                    client: &client,
                    deadline: None,
                    fresh: None,
                    traced: None,
                };
                while inner.pool.wants_more(&home) {
                    if let Err(error) = inner.pool.preconnect(&home, &want).await {
                        let endpoint = &home.endpoint.label;
                        tracing::debug!(%endpoint, %error, detail = error.detail(), "preconnect failed");
                        return;
                    }
                }
            });
        }
    }

    /// Closes the connections that this worker keeps for reuse.
    pub fn close_idle(&self) {
        self.inner.pool.close_idle();
    }

    /// How often the pool has checked its idle connections.
    #[cfg(test)]
    pub(crate) fn sweeps(&self) -> u64 {
        self.inner.pool.tick.sweeps()
    }

    /// Makes one attempt at a call.
    pub fn send(&self, call: Call) -> impl Future<Output = Result<Response<Body>, Error>> + use<> {
        // Not an async function: its future would keep a second copy of the call.
        Rc::clone(&self.inner).send(call)
    }
}

impl tower::Service<Call> for WorkerUpstream {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>>;

    /// Always ready: the call itself is refused if a limit is reached, so that a full upstream blocks no caller.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let inner = Rc::clone(&self.inner);
        // One allocation per attempt: `Service` needs a future of a named type.
        boxed(move || inner.send(call))
    }
}

/// Counts an attempt on a connection that was already open, also if the attempt is cancelled.
struct ReuseCounter<'a> {
    pool: &'a ConnectionPool,
    counts: bool,
}

impl Drop for ReuseCounter<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.pool.metrics.pool_reused(&self.pool.shared.config.name);
        }
    }
}

/// How many other endpoints are tried instead of those whose breaker refuses the call. After that, the call goes to one whose breaker
/// refuses it.
const MAX_OTHER_PICKS: usize = 4;

/// How a request is sent.
struct RequestPlan {
    protocol: DialProtocol,
    handshake: Option<upgrade::UpgradeHandshake>,
}

impl ServiceState {
    /// The hash of the request by the config's key, if it has one.
    fn hash(&self, context: &CallContext, request: &Request<Body>, wants: CallKind) -> Option<u64> {
        let key = self.pool.shared.config.balance.hash.as_ref()?;
        // A connection has no path.
        if wants == CallKind::Connection && *key == HashKey::Path {
            return None;
        }
        let client = context.client.address.map(|address| address.ip());
        request_hash(key, request.headers(), request.uri().path(), client)
    }

    /// Why no endpoint can be picked, with the message of DNS.
    fn no_endpoint(&self, reason: Reason) -> Error {
        let lookups = &self.pool.shared.lookups;
        match lookups.failure() {
            _ if reason == Reason::NoHealthyEndpoint => lookups.want(),
            Some(detail) => return Error::with_source(reason, SentPart::Nothing, detail.as_str()),
            None => {}
        }
        Error::new(reason, SentPart::Nothing)
    }

    fn pick(
        &self,
        context: &CallContext,
        hash: Option<u64>,
    ) -> Result<(Arc<Endpoint>, Option<AdmittedCall>), Error> {
        let shared = &self.pool.shared;
        let mut balancer = self.balancer.borrow_mut();
        let affinity = context.affinity.as_deref();
        let endpoint = context.tried.with(|tried| balancer.pick_for(shared, hash, tried, affinity));
        let mut endpoint = endpoint.map_err(|reason| self.no_endpoint(reason))?;
        let mut admitted = circuits::admit(shared, &endpoint);
        if admitted.is_err() {
            // Rare: another worker has just taken the last probe, or so many endpoints are out that all are used.
            let mut tried = context.tried.to_vec();
            for _ in 0..MAX_OTHER_PICKS {
                tried.push(endpoint);
                let other = balancer.pick_for(shared, hash, &tried, affinity);
                endpoint = other.map_err(|reason| self.no_endpoint(reason))?;
                admitted = circuits::admit(shared, &endpoint);
                if admitted.is_ok() {
                    break;
                }
            }
        }
        if let Some(affinity) = affinity {
            affinity.note(shared, &endpoint, &context.exchange);
        }
        match admitted {
            Ok(admitted) => Ok((endpoint, admitted)),
            Err(_) if shared.config.balance.panic_threshold > 0.0 => Ok((endpoint, None)),
            Err(_) => Err(self.no_endpoint(Reason::NoHealthyEndpoint)),
        }
    }

    /// Makes one attempt: an endpoint, a connection, the answer.
    async fn send(self: Rc<Self>, call: Call) -> Result<Response<Body>, Error> {
        let Call { request, wants, context, judges, fresh } = call;
        // The request stays in one place until it is sent, so that the future of a waiting call stays small.
        let mut request = Some(request);
        let (hash, begun) = match &mut request {
            Some(request) => {
                let hash = self.hash(&context, request, wants);
                (hash, self.begin(request, wants, &context, hash, judges)?)
            }
            None => return Err(Error::new(Reason::InternalError, SentPart::Nothing)),
        };
        let (endpoint, mut attempt) = begun;
        let sent = match wants {
            CallKind::Answer => {
                self.exchange(&mut request, fresh, &context, hash, &endpoint, &mut attempt).await
            }
            // Boxed, so that the future of a request stays small.
            CallKind::Connection => Box::pin(self.connect(&context, hash, &endpoint, &mut attempt)).await,
        };
        if let (Err(error), Some(attempt)) = (&sent, &mut attempt) {
            attempt.failed(error);
        }
        sent
    }

    /// Begins an attempt: a permit, and an endpoint.
    fn begin(
        &self,
        request: &mut Request<Body>,
        wants: CallKind,
        context: &CallContext,
        hash: Option<u64>,
        judges: OutcomeReceivers,
    ) -> Result<(Arc<Endpoint>, Option<Attempt>), Error> {
        let pool = &self.pool;
        let client = context.client.address.map(|address| address.ip());
        let mut permit = RequestPermit::ahead(&pool.shared, client);
        if !context.ahead {
            permit.count().map_err(|reason| pool.refused(reason))?;
        }
        let (endpoint, admitted) = self.pick(context, hash)?;
        let mut attempt = Attempt::admitted(permit, Arc::clone(&endpoint), admitted, context, judges);
        let traced = wants == CallKind::Answer && context.exchange.trace.borrow().is_some();
        let headers = traced.then(|| request.headers_mut());
        attempt.trace(self.tls.is_some(), headers);
        Ok((endpoint, Some(attempt)))
    }

    /// A bare connection to this endpoint.
    async fn connect(
        self: &Rc<Self>,
        context: &CallContext,
        hash: Option<u64>,
        endpoint: &Arc<Endpoint>,
        attempt: &mut Option<Attempt>,
    ) -> Result<Response<Body>, Error> {
        let span = attempt.as_ref().and_then(Attempt::span);
        let connect = |endpoint: Arc<Endpoint>| {
            let span = span.clone();
            async move { self.bare(context, &endpoint, span.as_deref()).await }
        };
        let (io, permit) = self.race(endpoint, hash, context, attempt, connect).await?;
        *context.exchange.peer.borrow_mut() = self.tls.as_ref().and_then(|tls| tls.peer(&io));
        // The deadline applied only to the first connection.
        let context = CallContext { deadline: None, overdue: None, ..context.clone() };
        let again = Some(Reconnect { inner: Rc::clone(self), context, hash });
        let guard = BareConnectionCharge { charge: attempt.take().and_then(Attempt::opened), permit, again };
        let mut response = Response::new(Body::empty());
        response.head_mut().carried = Some(Box::new(BareConnection { io, guard }));
        Ok(response)
    }

    /// A connection for opaque bytes.
    async fn bare(
        &self,
        context: &CallContext,
        endpoint: &Arc<Endpoint>,
        traced: Option<&AttemptTrace>,
    ) -> Result<(EndpointConnection, ConnectionPermit), Error> {
        let permit = self.pool.permit(context.deadline).await?;
        let (tls, client) = (self.tls.as_ref(), &context.client);
        self.pool
            .dial(endpoint, permit, &DialOptions { tls, offer: Offered::Opaque, host: None, client, traced })
            .await
    }

    /// Sends the request on a connection to this endpoint; if a connection from the pool is dead, on another one.
    async fn exchange(
        self: &Rc<Self>,
        request: &mut Option<Request<Body>>,
        fresh: bool,
        context: &CallContext,
        hash: Option<u64>,
        endpoint: &Arc<Endpoint>,
        attempt: &mut Option<Attempt>,
    ) -> Result<Response<Body>, Error> {
        let Self { pool, tls, .. } = &**self;
        let config = &*pool.shared.config;
        let fresh = fresh.then(Instant::now);
        let Some(whole) = request else { return Err(Error::new(Reason::InternalError, SentPart::Nothing)) };
        let plan = self.plan(whole)?;
        // Only a forward proxy's certificate names come with the request.
        let host = matches!(config.address, model::Address::Authority { .. })
            .then(|| whole.uri().host().map(str::to_owned))
            .flatten();
        let home = pool.home(endpoint);
        loop {
            let span = attempt.as_ref().and_then(Attempt::span);
            let want = ConnectionSpec {
                protocol: plan.protocol,
                tls: tls.as_ref(),
                host: host.as_deref(),
                client: &context.client,
                deadline: context.deadline,
                fresh,
                traced: span.as_deref(),
            };
            let wire = if let Some(wire) = pool.ready(&home, &want) {
                wire
            } else {
                let connect = |endpoint: Arc<Endpoint>| {
                    let home = pool.home(&endpoint);
                    let want = &want;
                    async move { pool.acquire(&home, want).await }
                };
                // Boxed, so that the future of a call that finds a connection stays small.
                Box::pin(self.race(endpoint, hash, context, attempt, connect)).await?
            };
            if let Some(attempt) = attempt.as_mut() {
                attempt.moved_to(wire.endpoint(), None);
            }
            // A counter that stays on this worker.
            *context.exchange.peer.borrow_mut() = wire.peer().cloned();
            if plan.protocol == DialProtocol::Http2
                && (plan.handshake.is_some() || request.as_ref().is_some_and(upgrade::is_http2))
                && !wire.takes_extended_connect(config.handshake_timeout).await
            {
                let why = "the upstream's HTTP/2 does not take extended CONNECT (RFC 8441)";
                return Err(Error::with_source(Reason::ProtocolMismatch, SentPart::Nothing, why));
            }
            let is_fresh = wire.is_fresh();
            context.exchange.handed_to_upstream();
            let mut reuse = ReuseCounter { pool, counts: wire.reused };
            match wire.call(request, attempt, context.on_informational.as_ref()).await {
                Ok(response) => return respond(response, plan.handshake.as_ref()),
                // The connection from the pool was dead and the request is unchanged: the next connection is still the
                // same attempt.
                Err(_) if request.is_some() && !is_fresh => reuse.counts = false,
                Err(error) => return Err(error),
            }
        }
    }

    /// Decides the protocol, and translates a WebSocket handshake into its form.
    fn plan(&self, request: &mut Request<Body>) -> Result<RequestPlan, Error> {
        let upgrades = request.headers().contains_key(UPGRADE);
        let extended = upgrade::is_http2(request);
        if request.method() == Method::CONNECT && !extended {
            // The bytes after it would be requests that no rule has checked. A call for a tunnel asks for a connection
            // instead.
            let why = "a CONNECT is never sent as a request";
            return Err(Error::with_source(Reason::ProtocolMismatch, SentPart::Nothing, why));
        }
        let protocol = match self.pool.shared.config.protocol {
            UpstreamProtocol::Tcp => {
                let why = "the upstream's protocol is tcp, so HTTP can't be routed to it";
                return Err(Error::with_source(Reason::ProtocolMismatch, SentPart::Nothing, why));
            }
            UpstreamProtocol::Auto if upgrades || extended => DialProtocol::Http1,
            _ => self.protocol(Some(request)),
        };
        let handshake = match protocol {
            DialProtocol::Http2 if upgrades => {
                if !upgrade::is_http1(request) {
                    let why = "HTTP/2 carries no upgrade but WebSocket's (RFC 9113 section 8.6)";
                    return Err(Error::with_source(Reason::ProtocolMismatch, SentPart::Nothing, why));
                }
                Some(upgrade::to_http2(request))
            }
            DialProtocol::Http1 if extended => Some(upgrade::to_http1(request)),
            DialProtocol::Http1 | DialProtocol::Http2 | DialProtocol::Alpn => None,
        };
        Ok(RequestPlan { protocol, handshake })
    }

    fn protocol(&self, request: Option<&Request<Body>>) -> DialProtocol {
        match (self.pool.shared.config.protocol, &self.tls) {
            (UpstreamProtocol::Http2, _) => DialProtocol::Http2,
            (UpstreamProtocol::Auto, Some(_)) => DialProtocol::Alpn,
            (UpstreamProtocol::Auto, None) if request.is_some_and(is_grpc) => DialProtocol::Http2,
            _ => DialProtocol::Http1,
        }
    }
}

fn is_grpc(request: &Request<Body>) -> bool {
    let grpc = request.headers().get(CONTENT_TYPE).and_then(|kind| {
        kind.as_bytes()
            .strip_prefix(b"application/grpc")?
            .first()
            .map_or(Some(true), |next| Some(matches!(next, b'+' | b';')))
    });
    grpc == Some(true)
}

fn respond(
    mut response: Response<Body>,
    handshake: Option<&upgrade::UpgradeHandshake>,
) -> Result<Response<Body>, Error> {
    if let Some(handshake) = handshake {
        upgrade::answer(&mut response, handshake)
            .map_err(|why| Error::with_source(Reason::UpstreamProtocolError, SentPart::Response, why))?;
    }
    Ok(response)
}

impl fmt::Debug for WorkerUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerUpstream").field("upstream", &self.shared().config.name).finish()
    }
}

#[cfg(test)]
mod tests;
