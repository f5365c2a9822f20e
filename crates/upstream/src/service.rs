//! One upstream as one worker uses it: from a call to a response, or to a bare connection.
//!
//! A call goes through these steps, and each names its [`Reason`] when it fails: the breaker's counts, an endpoint, a
//! connection to it (kept, shared or new), the request in the connection's protocol, the response in the request's.
//!
//! What is spoken (`protocol`):
//! - `http1`, `http2`: that. `tcp`: no HTTP.
//! - `auto` with TLS: what ALPN gives; upgrades ask for HTTP/1.1 alone, as not every HTTP/2 server takes them.
//! - `auto` without TLS: HTTP/1.1, but gRPC needs HTTP/2 and gets it with prior knowledge.
//!
//! A WebSocket handshake is turned into the upstream's form and its answer back, so the client's protocol and the
//! upstream's need not be the same ([`crate::pool::upgrade`]).

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use attache_config::model::{self, Algorithm, HashKey, ProxyProtocolOut, UpstreamProtocol};
use attache_http::{Body, Client};
use attache_telemetry::{Attempt, Reason};
use http::{
    HeaderMap, Request, Response,
    header::{CONTENT_TYPE, UPGRADE},
};
use tokio::{task::spawn_local, time::Instant};

use crate::{
    Call, CallContext, Endpoint, Error, FreshConnection, Sent, Shared,
    balance::request_hash,
    boxed,
    connect::{Connection, Offer, Tls},
    limit::{ConnectionPermit, InFlight},
    outlier::{
        Outcome,
        circuits::{self, Admitted},
    },
    pool::{How, Pool, Protocol, Want, upgrade},
};

/// Chooses the endpoint of a call, from the shared state, the hash of what the config hashes over, and the endpoints
/// that were tried already.
pub type Picker = Box<dyn FnMut(&Shared, Option<u64>, &[Arc<Endpoint>]) -> Result<Arc<Endpoint>, Reason>>;

/// One upstream on one worker. Cheap to clone; must be used inside of the worker's runtime.
#[derive(Clone)]
pub struct WorkerUpstream {
    inner: Rc<Inner>,
}

struct Inner {
    pool: Rc<Pool>,
    tls: Option<Tls>,
    picker: RefCell<Picker>,
}

/// What a bare connection holds of the breaker's counts until it is dropped.
#[derive(Debug)]
pub struct Guard {
    _in_flight: InFlight,
    _permit: ConnectionPermit,
}

impl WorkerUpstream {
    /// `tls` is what [`Tls::new`] read for this upstream.
    pub fn new(shared: Arc<Shared>, tls: Option<Tls>, picker: Picker) -> Self {
        let inner = Inner { pool: Pool::new(shared), tls, picker: RefCell::new(picker) };
        Self { inner: Rc::new(inner) }
    }

    /// The upstream as all workers see it.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.inner.pool.shared
    }

    /// A connection of its own, for opaque bytes. It is charged until the guard is dropped. Of what a consistent hash may be
    /// taken over, an opaque connection has its `source` alone.
    pub async fn connect_tcp(&self, context: &CallContext) -> Result<(Connection, Guard), Error> {
        self.connect_for(context, None).await
    }

    /// The same for a request (CONNECT), which has headers, too.
    pub async fn connect_for(
        &self,
        context: &CallContext,
        request: Option<&Request<Body>>,
    ) -> Result<(Connection, Guard), Error> {
        let Inner { pool, tls, .. } = &*self.inner;
        let refused = |reason| pool.refused(reason);
        let mut in_flight = InFlight::take(&pool.shared).map_err(refused)?;
        let (endpoint, admitted) = self.inner.pick(context, self.inner.hash(context, request))?;
        in_flight.placed(&endpoint, admitted, None);
        let permit = match ConnectionPermit::take(&pool.shared) {
            Err(_) if pool.close_one_idle() => ConnectionPermit::take(&pool.shared),
            taken => taken,
        };
        let permit = permit.map_err(refused)?;
        let attempt = Attempt::begin(&context.exchange, &pool.shared.config.name, tls.is_some(), None);
        let how = How {
            tls: tls.as_ref(),
            offer: Offer::Opaque,
            host: None,
            client: &context.client,
            traced: attempt.as_ref(),
        };
        let dialed = pool.dial(&endpoint, permit, &how).await;
        let (endpoint, io, permit) = dialed.inspect_err(|error| {
            in_flight.ended(Outcome::of_error(error));
            if let Some(attempt) = &attempt {
                attempt.failed(&context.exchange, error.reason);
            }
        })?;
        went_to(context, &endpoint);
        if let Some(attempt) = attempt {
            attempt.responded(&context.exchange, 0);
        }
        *context.exchange.peer.borrow_mut() = tls.as_ref().and_then(|tls| tls.peer(&io));
        in_flight.moved_to(&endpoint);
        // Of opaque bytes nothing else tells how quick it is.
        in_flight.responded(true);
        Ok((io, Guard { _in_flight: in_flight, _permit: permit }))
    }

    /// Opens the connections that `pool.preconnect` asks for. Failures are left to the calls that meet them.
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
                let want = Want {
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

    /// How often the pool has looked at its idle connections.
    #[cfg(test)]
    pub(crate) fn sweeps(&self) -> u64 {
        self.inner.pool.tick.sweeps()
    }

    /// Sends a call.
    pub async fn send(&self, call: Call) -> Result<Response<Body>, Error> {
        self.inner.send(call).await
    }
}

impl tower::Service<Call> for WorkerUpstream {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>>;

    /// Always ready: what has no room is refused by the call, so that a full upstream holds nobody up.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let inner = Rc::clone(&self.inner);
        // One allocation per try: `Service` wants a future with a name.
        boxed(move || async move { inner.send(call).await })
    }
}

fn nothing(reason: Reason) -> Error {
    Error::new(reason, Sent::Nothing)
}

/// Counts a try that went out on a connection which was open already, also where the try is given up half-way.
struct Reuse<'a> {
    pool: &'a Pool,
    counts: bool,
}

impl Drop for Reuse<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.pool.metrics.pool_reused(&self.pool.shared.config.name);
        }
    }
}

/// Endpoints that are picked instead of those whose breaker holds the call back, before it goes to one all the same.
const ASKED_AGAIN: usize = 4;

/// How a request goes out.
struct Plan {
    protocol: Protocol,
    handshake: Option<upgrade::Handshake>,
}

impl Inner {
    /// What the config's consistent hash is taken over, where it has one.
    fn hash(&self, context: &CallContext, request: Option<&Request<Body>>) -> Option<u64> {
        let (Algorithm::RingHash(key) | Algorithm::Maglev(key)) = &self.pool.shared.config.balance.algorithm
        else {
            return None;
        };
        let client = context.client.address.map(|address| address.ip());
        match (request, key) {
            (Some(request), _) => request_hash(key, request.headers(), request.uri().path(), client),
            (None, HashKey::Source) => request_hash(key, &HeaderMap::new(), "", client),
            (None, _) => None,
        }
    }

    fn pick(
        &self,
        context: &CallContext,
        hash: Option<u64>,
    ) -> Result<(Arc<Endpoint>, Option<Admitted>), Error> {
        let shared = &self.pool.shared;
        let mut picker = self.picker.borrow_mut();
        let mut endpoint = picker(shared, hash, &context.tried).map_err(nothing)?;
        let mut admitted = circuits::admit(shared, &endpoint);
        if admitted.is_err() {
            // Rare: another worker took its last probe just now, or so many are out that all are used.
            let mut tried = context.tried.clone();
            for _ in 0..ASKED_AGAIN {
                tried.push(endpoint);
                endpoint = picker(shared, hash, &tried).map_err(nothing)?;
                admitted = circuits::admit(shared, &endpoint);
                if admitted.is_ok() {
                    break;
                }
            }
        }
        drop(picker);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(_) if shared.config.balance.panic_threshold > 0.0 => None,
            Err(_) => return Err(nothing(Reason::NoHealthyEndpoint)),
        };
        let exchange = &context.exchange;
        exchange.tries.set(exchange.tries.get() + 1);
        *exchange.endpoint.borrow_mut() = Some(Arc::clone(&endpoint.label));
        Ok((endpoint, admitted))
    }

    async fn send(&self, call: Call) -> Result<Response<Body>, Error> {
        let Call { mut request, context } = call;
        let Self { pool, tls, .. } = self;
        let config = &*pool.shared.config;
        let mut in_flight = InFlight::take(&pool.shared).map_err(|reason| pool.refused(reason))?;
        let hash = self.hash(&context, Some(&request));
        let (endpoint, admitted) = self.pick(&context, hash)?;
        in_flight.placed(&endpoint, admitted, context.blame_after);
        let fresh = request.extensions_mut().remove::<FreshConnection>().map(|_| Instant::now());
        let plan = self.plan(&mut request)?;
        // Only a forward proxy's certificate names come with the request.
        let host = matches!(config.address, model::Address::Authority { .. })
            .then(|| request.uri().host().map(str::to_owned))
            .flatten();
        let attempt =
            Attempt::begin(&context.exchange, &config.name, tls.is_some(), Some(request.headers_mut()));
        let want = Want {
            protocol: plan.protocol,
            tls: tls.as_ref(),
            host: host.as_deref(),
            client: &context.client,
            deadline: context.deadline,
            fresh,
            traced: attempt.as_ref(),
        };
        let mut in_flight = Some(in_flight);
        let sent = self.exchange(request, &context, &endpoint, &plan, &want, &mut in_flight).await;
        if let (Err(error), Some(in_flight)) = (&sent, &mut in_flight) {
            in_flight.ended(Outcome::of_error(error));
        }
        if let Some(attempt) = &attempt {
            match &sent {
                Ok(response) => attempt.responded(&context.exchange, response.status().as_u16()),
                Err(error) => attempt.failed(&context.exchange, error.reason),
            }
        }
        respond(sent?, plan.handshake.as_ref())
    }

    /// Sends the request on a connection to this endpoint, and on another one where a kept one turns out to be dead.
    async fn exchange(
        &self,
        mut request: Box<Request<Body>>,
        context: &CallContext,
        endpoint: &Arc<Endpoint>,
        plan: &Plan,
        want: &Want<'_>,
        in_flight: &mut Option<InFlight>,
    ) -> Result<Response<Body>, Error> {
        let pool = &self.pool;
        let config = &*pool.shared.config;
        let home = pool.home(endpoint);
        loop {
            let wire = match pool.ready(&home, want) {
                Some(wire) => wire,
                // Boxed, so that the future of a call that finds a connection stays small.
                None => Box::pin(pool.acquire(&home, want)).await?,
            };
            // A counter that stays on this worker.
            *context.exchange.peer.borrow_mut() = wire.peer().cloned();
            if !Arc::ptr_eq(wire.endpoint(), endpoint) {
                went_to(context, wire.endpoint());
                if let Some(in_flight) = in_flight.as_mut() {
                    in_flight.moved_to(wire.endpoint());
                }
            }
            if plan.protocol == Protocol::Http2
                && (plan.handshake.is_some() || upgrade::is_http2(&request))
                && !wire.takes_extended_connect(config.handshake_timeout).await
            {
                let why = "the upstream's HTTP/2 does not take extended CONNECT (RFC 8441)";
                return Err(Error::with_source(Reason::ProtocolMismatch, Sent::Nothing, why));
            }
            let fresh = wire.is_fresh();
            context.exchange.handed_to_upstream();
            let mut reuse = Reuse { pool, counts: wire.reused };
            match wire.call(request, in_flight, context.on_informational.as_ref()).await {
                Ok(response) => return Ok(response),
                Err(lost) => match lost.request {
                    // The kept connection was dead and the request is untouched: this is not another try yet.
                    Some(back) if !fresh => {
                        reuse.counts = false;
                        request = back;
                    }
                    _ => return Err(lost.error),
                },
            }
        }
    }

    /// Decides what is spoken, and turns a WebSocket handshake into its form.
    fn plan(&self, request: &mut Request<Body>) -> Result<Plan, Error> {
        let upgrades = request.headers().contains_key(UPGRADE);
        let extended = upgrade::is_http2(request);
        let protocol = match self.pool.shared.config.protocol {
            UpstreamProtocol::Tcp => {
                let why = "the upstream's protocol is tcp, so HTTP can't be routed to it";
                return Err(Error::with_source(Reason::ProtocolMismatch, Sent::Nothing, why));
            }
            UpstreamProtocol::Auto if upgrades || extended => Protocol::Http1,
            _ => self.protocol(Some(request)),
        };
        let handshake = match protocol {
            Protocol::Http2 if upgrades => {
                if !upgrade::is_http1(request) {
                    let why = "HTTP/2 carries no upgrade but WebSocket's (RFC 9113 section 8.6)";
                    return Err(Error::with_source(Reason::ProtocolMismatch, Sent::Nothing, why));
                }
                Some(upgrade::to_http2(request))
            }
            Protocol::Http2 if extended => {
                upgrade::keep_protocol(request);
                None
            }
            Protocol::Http1 if extended => Some(upgrade::to_http1(request)),
            Protocol::Http1 | Protocol::Http2 | Protocol::Alpn => None,
        };
        Ok(Plan { protocol, handshake })
    }

    fn protocol(&self, request: Option<&Request<Body>>) -> Protocol {
        match (self.pool.shared.config.protocol, &self.tls) {
            (UpstreamProtocol::Http2, _) => Protocol::Http2,
            (UpstreamProtocol::Auto, Some(_)) => Protocol::Alpn,
            (UpstreamProtocol::Auto, None) if request.is_some_and(is_grpc) => Protocol::Http2,
            _ => Protocol::Http1,
        }
    }
}

/// A race may have ended at another endpoint than the picked one.
fn went_to(context: &CallContext, endpoint: &Endpoint) {
    let mut label = context.exchange.endpoint.borrow_mut();
    if label.as_ref().is_none_or(|label| !Arc::ptr_eq(label, &endpoint.label)) {
        *label = Some(Arc::clone(&endpoint.label));
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
    handshake: Option<&upgrade::Handshake>,
) -> Result<Response<Body>, Error> {
    if let Some(handshake) = handshake {
        upgrade::answer(&mut response, handshake)
            .map_err(|why| Error::with_source(Reason::UpstreamProtocolError, Sent::Response, why))?;
    }
    Ok(response)
}

impl fmt::Debug for WorkerUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerUpstream").field("upstream", &self.shared().config.name).finish()
    }
}
