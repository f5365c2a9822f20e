//! The whole chain, as a request travels. This is the one place where the parts are put together.
//!
//! 1. **listener** hands over a request that can be read in one way, or the verdict on one that can't.
//!    Under overload the least urgent end here: nothing was done for them yet.
//! 2. **check**: one meaning for Host, target and headers; one form of the path. Before routing, so that
//!    the route and the upstream read the same request.
//! 3. **route**: the most specific one. It may answer by itself.
//! 4. **prepare**: what belongs to this hop (hop-by-hop headers out, `Via`, forwarding headers in), then the route's rewrites, so that
//!    no client can take away what a route adds.
//! 5. **mirror**: a copy, if the route wants one. After preparing, so that both upstreams see the same.
//! 6. **credential**: a secret that the application doesn't have. After the mirror, which shall not have it.
//! 7. **resilience**: deadline, retries, breaker, per-try deadline ([`attache_resilience::stack`]).
//! 8. **upstream**: an endpoint, a connection, the answer.
//! 9. **finish**: the way back: hop-by-hop headers, `Via`, the route's header changes; a tunnel if the protocol was switched.
//!
//! Whatever fails on the way is one [`Reason`], and [`Site::answer`] is where it becomes a response.

mod hosts;
mod mirror;
mod own;
mod serving;
mod tcp;
mod tunnel;

use std::{
    cell::RefCell,
    collections::HashMap,
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use attache_config::model::{self, Action, Destination, Policy, UpstreamId};
use attache_http::{
    AnswerStyle, Asker, Body, Client, Form, Refusal, Takes, Upgrade, Via, add_forwarded, answer,
    check_request, normalize_uri, remove_underscored, request_id, set_client_certificate, strip_request,
    strip_response, take_hop,
};
use attache_listener::{Hold, HttpRequest, OnUpgrade, Overload};
use attache_resilience::{Front, RouteState, Stack, front_with, global_limit::GlobalLimiter, queue::urgency};
use attache_routing::{Ctx, ReadyEdits, RequestFacts, RouteTable, Step, UpstreamHost};
use attache_telemetry::{Exchange, Reason, WorkerMetrics, metrics};
use attache_tls::Credential;
use attache_upstream::{Call, CallContext, Error, Sent, WorkerUpstream, boxed};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, request, response};
use tower::Service;

pub(crate) use self::{hosts::Upstreams, own::Own, tcp::Tcp, tunnel::Tunnels};
use self::{
    serving::{Back, Sending, Served, Serving, Waiting, served},
    tunnel::Tunnel,
};
use crate::observe::Observer;

/// One listener on one worker, ready to serve.
pub(crate) struct Site {
    listener: Arc<model::Listener>,
    table: RouteTable,
    upstreams: Rc<Upstreams>,
    /// The layers of every destination, by its policy: each destination of the config has a policy of its own.
    stacks: HashMap<Key, RefCell<Front<Stack<WorkerUpstream>>>>,
    /// What the workers share of a route whose hosts requests name, by the destination's policy.
    on_demand: HashMap<Key, (Arc<RouteState>, Option<Rc<GlobalLimiter>>)>,
    /// The secrets of destinations that have one, by the destination's policy.
    credentials: HashMap<Key, Credential>,
    /// The Host that each upstream is sent.
    upstream_hosts: Vec<UpstreamHost>,
    via: Option<Via>,
    tunnels: Tunnels,
    metrics: WorkerMetrics,
    observer: Observer,
    on_finish: OnFinish,
    overload: Arc<Overload>,
    /// Where a request says how urgent it is.
    priority_header: Option<HeaderName>,
}

/// One destination of one route: the parser gives each a policy of its own.
type Key = (UpstreamId, *const Policy);

fn key(destination: &Destination) -> Key {
    (destination.upstream, Arc::as_ptr(&destination.policy))
}

/// Told of every exchange that ended.
pub(crate) type OnFinish = Rc<dyn Fn(&Exchange)>;

/// Why there is no response from an upstream.
struct Failure {
    reason: Reason,
    detail: String,
    retry_after: Option<std::time::Duration>,
    headers: Option<Box<HeaderMap>>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.reason, detail: refusal.text.into_owned(), retry_after: None, headers: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let detail = error.detail();
        Self { reason: error.reason, detail, retry_after: error.retry_after, headers: error.headers }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: String::new(), retry_after: None, headers: None }
    }
}

impl Site {
    pub(crate) fn new(
        listener: Arc<model::Listener>,
        routes: Arc<[Arc<RouteState>]>,
        upstreams: Rc<Upstreams>,
        tunnels: Tunnels,
        observer: Observer,
        on_finish: OnFinish,
    ) -> Self {
        let (mut stacks, mut on_demand, mut credentials) = (HashMap::new(), HashMap::new(), HashMap::new());
        let global = |route: &model::Route, forward: &model::Forward| {
            forward.global_rate_limit.clone().and_then(|limit| upstreams.limiter(*limit, route.name.clone()))
        };
        for (route, state) in listener.routes.iter().zip(&*routes) {
            let Action::Forward(forward) = &route.action else { continue };
            let global = global(route, forward);
            for destination in &forward.to {
                if let Some(credential) = upstreams.credential(destination.policy.credential.as_deref()) {
                    credentials.insert(key(destination), credential.clone());
                }
                if let Some(stack) = upstreams.stack(destination) {
                    let front = front_with(state, global.clone(), stack);
                    stacks.insert(key(destination), RefCell::new(front));
                } else {
                    on_demand.insert(key(destination), (state.clone(), global.clone()));
                }
            }
        }
        Self {
            table: RouteTable::new(&listener),
            stacks,
            on_demand,
            credentials,
            upstream_hosts: upstreams.configs().map(UpstreamHost::of).collect(),
            via: listener.http.via.as_deref().and_then(Via::new),
            listener,
            upstreams,
            tunnels,
            metrics: metrics(),
            observer,
            on_finish,
            overload: Arc::default(),
            priority_header: None,
        }
    }

    /// What a connection may carry.
    pub(crate) fn takes(&self, client: &Client) -> Takes {
        self.table.takes(client)
    }

    /// Some routes pass TLS through that the listener terminates elsewhere.
    pub(crate) fn passes_tls(&self) -> bool {
        self.table.passes_tls()
    }

    /// Requests are shed as overload protection says.
    pub(crate) fn under(mut self, overload: Arc<Overload>, config: Option<&model::Overload>) -> Self {
        self.overload = overload;
        self.priority_header = config.map(|config| config.priority_header.clone());
        self
    }

    /// Sends a request on at once, as far as that goes without waiting; what is left is its answer's way back.
    fn serve(self: Rc<Self>, incoming: HttpRequest) -> Served {
        let HttpRequest { request, client, exchange, on_informational, refused, hold } = incoming;
        self.metrics.request_started(&exchange);
        if let Some(refusal) = refused {
            return served(self.answer(refusal.into(), Asker::unknown(), &exchange));
        }
        let (parts, body) = request.into_parts();
        let asker = Asker::of(&parts);
        self.observer.request(&exchange, &parts.headers);
        let urgency = || self.priority_header.as_ref().map_or(0, |name| urgency(&parts.headers, name));
        let context = CallContext { on_informational, ..CallContext::new(client, exchange.clone()) };
        let begun = if self.overload.refuses(urgency) {
            Err(Reason::Overloaded.into())
        } else {
            self.begin(parts, body, &context, hold)
        };
        let response = match begun {
            Ok(Begun::Call { destination, request, back }) => {
                let sending = Sending { asker, exchange, back: Some(back) };
                if let Some(stack) = self.stacks.get(&key(destination)) {
                    // Borrowed, not cloned: every layer holds counters that all workers share. No call is made within a call.
                    let sent = stack.borrow_mut().call(Call::new(request, context));
                    // One allocation per request: the future of the whole chain has no name, and is too large to be moved about.
                    return boxed(|| Serving::new(sent, self, sending));
                }
                let (site, destination) = (self.clone(), destination.clone());
                let sent: Waiting =
                    Box::pin(async move { site.call_on_demand(&destination, request, &context).await });
                return boxed(|| Serving::new(sent, self, sending));
            }
            Ok(Begun::Connect { destination, request, client, hold }) => {
                let (site, destination) = (self.clone(), destination.clone());
                let sent: Waiting =
                    Box::pin(async move { site.connect(&destination, request, context, client, hold).await });
                return boxed(|| Serving::new(sent, self, Sending { asker, exchange, back: None }));
            }
            Ok(Begun::Answer(response)) => response,
            Err(failure) => self.answer(failure, asker, &exchange),
        };
        self.observer.response(&exchange, response.headers());
        served(response)
    }

    /// What an upstream answered, or why it did not, on its way to the client.
    fn answered(&self, sent: Result<Response<Body>, Error>, sending: Sending) -> Response<Body> {
        let Sending { asker, exchange, back } = sending;
        let response = match (sent, back) {
            (Ok(response), Some(back)) => {
                exchange.time_to_head.set(Some(exchange.start.elapsed()));
                if self.metrics.tapped() {
                    exchange.see_response(response.headers());
                }
                self.finish(response, back)
            }
            (Ok(response), None) => response,
            (Err(error), _) => self.answer(error.into(), asker, &exchange),
        };
        self.observer.response(&exchange, response.headers());
        response
    }

    fn answer(&self, failure: Failure, asker: Asker, exchange: &Exchange) -> Response<Body> {
        exchange.fail(failure.reason, failure.detail);
        let style =
            AnswerStyle { details: self.listener.http.reason_header, retry_after: failure.retry_after };
        let mut response = answer(failure.reason, asker, style, exchange);
        if let Some(headers) = failure.headers {
            response.headers_mut().extend(*headers);
        }
        response
    }

    /// Everything before the request leaves: check, route, prepare, mirror, credential.
    fn begin(
        &self,
        mut parts: request::Parts,
        body: Body,
        context: &CallContext,
        hold: Option<Hold>,
    ) -> Result<Begun<'_>, Failure> {
        let client = &*context.client;
        let http = &self.listener.http;

        // check
        let ended = http_body::Body::is_end_stream(&body);
        let form = check_request(&mut parts, client.tls, ended)?;
        normalize_uri(&mut parts.uri, http.path)?;
        request_id(&mut parts.headers, http.request_id, http.trust_request_id);
        self.observer.traced(&context.exchange, &mut parts.headers, client.tls);
        note(&context.exchange, &parts);
        if self.metrics.tapped() {
            context.exchange.see_request(&parts.headers);
        }

        if let Some(response) = take_hop(&mut parts) {
            return Ok(Begun::Answer(response));
        }

        // route
        let facts = RequestFacts::of(&parts, client);
        let matched = self.table.find_http(&facts).ok_or_else(|| self.no_route(&parts))?;
        let route = matched.route;
        *context.exchange.route.borrow_mut() = Some(route.name.clone());
        let mut ctx = Ctx { client, captures: &matched.captures, upstream: "", host: None };
        let Step::Forward(_) = route.step() else {
            let response = route.respond(&parts, &ctx).ok_or(Reason::InternalError)?;
            return Ok(Begun::Answer(response));
        };
        let destination = route.choose(fastrand::u32(..)).ok_or(Reason::NoRoute)?;
        let upstream = self.upstreams.config(destination.upstream).ok_or(Reason::InternalError)?;
        *context.exchange.upstream.borrow_mut() = Some(upstream.name.clone());

        // A tunnel shows nothing that a rule could judge: there is one only where the config asks for it.
        if parts.method == Method::CONNECT && form.is_proxied() && !route.takes_connect() {
            return Err(no_tunnel(&upstream.name));
        }

        // prepare
        ctx.upstream = &upstream.name;
        ctx.host = self.upstream_hosts.get(destination.upstream.0).and_then(|to| route.host(&facts, to));
        let came = Came { form, upgrade: Upgrade::of(&parts), version: parts.version };
        self.leave(&mut parts, &came, client);
        let edits = route.prepare_request(&mut parts, &ctx)?;
        let mut request = Box::new(Request::from_parts(parts, body));
        let switched = came.upgrade.is_some().then(|| attache_listener::upgrade(&mut *request));

        // mirror
        for mirror in route.mirrors(fastrand::f64) {
            request = Box::new(mirror::split(*request, &self.upstreams, mirror, context));
        }

        // credential
        if destination.policy.credential.is_some() {
            self.credential(destination, request.headers_mut())?;
        }

        // resilience and upstream
        if came.upgrade == Some(Upgrade::Connect)
            && let Some(client) = switched
        {
            return Ok(Begun::Connect { destination, request, client, hold });
        }
        let tunnel = || self.tunnel(destination, context.exchange.clone(), hold);
        let switched = switched.map(|client| Box::new((client, tunnel())));
        Ok(Begun::Call { destination, request, back: Back { came, edits, switched } })
    }

    /// Names the Host that no route is for, and those that there are.
    #[cold]
    fn no_route(&self, parts: &request::Parts) -> Failure {
        Failure { detail: self.table.no_route(parts), ..Failure::from(Reason::NoRoute) }
    }

    /// `CONNECT host:port`: a tunnel of bytes (RFC 9110 section 9.3.6).
    async fn connect(
        &self,
        destination: &Destination,
        request: Box<Request<Body>>,
        context: CallContext,
        client: OnUpgrade,
        hold: Option<Hold>,
    ) -> Result<Response<Body>, Error> {
        let exchange = context.exchange.clone();
        let upstream = self.upstreams.connect(destination, Some(request), context).await?;
        exchange.time_to_head.set(Some(exchange.start.elapsed()));
        let tunnel = self.tunnel(destination, exchange, hold);
        self.tunnels.connected(client, upstream, tunnel);
        Ok(Response::new(Body::empty()))
    }

    /// Gives a request its secret, or refuses to send it without.
    fn credential(&self, destination: &Destination, headers: &mut HeaderMap) -> Result<(), Failure> {
        let missing = |detail| Failure { detail, ..Failure::from(Reason::NoCredential) };
        match self.credentials.get(&key(destination)) {
            Some(credential) => {
                let given = destination.policy.credential.as_deref().map(|given| given.secret.header());
                remove_underscored(headers, |name| {
                    given.as_ref().is_some_and(|given| given.as_str() == name)
                });
                credential.apply(headers).map_err(|error| missing(error.to_string()))
            }
            None => Err(missing(String::new())),
        }
    }

    /// What this hop takes off and puts on before a request leaves. Before the route's own changes: what a client nominates or spells
    /// in another way is taken off, and never what the route or attache adds.
    fn leave(&self, parts: &mut request::Parts, came: &Came, client: &Client) {
        strip_request(&mut parts.headers, came.upgrade.as_ref(), came.form.is_proxied());
        remove_underscored(&mut parts.headers, |_| false);
        let scheme = if client.tls { "https" } else { "http" };
        let host = parts.uri.authority().map_or("", |host| host.as_str());
        add_forwarded(&mut parts.headers, &self.listener.http.forwarded, client, scheme, host);
        set_client_certificate(&mut parts.headers, client, self.listener.http.client_cert);
        if let Some(via) = &self.via {
            via.add(&mut parts.headers, came.version);
        }
    }

    /// A call to a host that the request names.
    async fn call_on_demand(
        &self,
        destination: &Destination,
        request: Box<Request<Body>>,
        context: &CallContext,
    ) -> Result<Response<Body>, Error> {
        let stack = self.upstreams.on_demand_stack(destination, &request, context).await?;
        let call = Call::new(request, context.clone());
        match self.on_demand.get(&key(destination)) {
            Some((state, global)) => front_with(state, global.clone(), stack).call(call).await,
            None => Err(Error::new(Reason::InternalError, Sent::Nothing)),
        }
    }

    /// The way back of a response.
    fn finish(&self, response: Response<Body>, back: Back) -> Response<Body> {
        let Back { came, edits, switched } = back;
        let switching = match (&came.upgrade, response.status()) {
            (Some(Upgrade::Http1(_)), status) => status == StatusCode::SWITCHING_PROTOCOLS,
            (Some(Upgrade::Extended(_)), status) => status.is_success(),
            _ => false,
        };
        let (mut parts, mut body) = response.into_parts();
        if switching && let Some((client, tunnel)) = switched.map(|switched| *switched) {
            // The upstream's side waits in the extensions; the head goes on to the client without them.
            let mut upstream = Response::new(std::mem::take(&mut body));
            std::mem::swap(upstream.extensions_mut(), &mut parts.extensions);
            self.tunnels.upgraded(client, upstream, tunnel);
        }
        self.arrive(&mut parts, switching, came.form.is_proxied(), edits);
        Response::from_parts(parts, body)
    }

    fn tunnel(&self, destination: &Destination, exchange: Rc<Exchange>, hold: Option<Hold>) -> Tunnel {
        let idle = destination.policy.timeouts.idle;
        Tunnel { idle, exchange, hold, on_finish: self.on_finish.clone() }
    }

    fn arrive(&self, parts: &mut response::Parts, switching: bool, proxied: bool, edits: ReadyEdits) {
        let upstream_version = parts.version;
        // RFC 9110 section 15.5.22: a 426 says to what.
        let upgrade = switching || parts.status == StatusCode::UPGRADE_REQUIRED;
        strip_response(&mut parts.headers, upgrade, proxied);
        if let Some(via) = &self.via {
            via.add(&mut parts.headers, upstream_version);
        }
        edits.apply(&mut parts.headers);
        // What the upstream spoke is its own affair; the client is answered in its own version.
        parts.version = http::Version::HTTP_11;
    }
}

fn no_tunnel(upstream: &str) -> Failure {
    let detail = format!(
        "no tunnel to `{upstream}` was asked for: its rules are about HTTP, which a tunnel hides; a route with `methods: CONNECT` asks for one"
    );
    Failure { detail, ..Failure::from(Reason::ConnectDenied) }
}

/// How far a request came without waiting.
enum Begun<'a> {
    /// Its route answers by itself.
    Answer(Response<Body>),
    /// It goes to an upstream.
    Call { destination: &'a Destination, request: Box<Request<Body>>, back: Back },
    /// It is a CONNECT, and becomes a connection to one.
    Connect {
        destination: &'a Destination,
        request: Box<Request<Body>>,
        client: OnUpgrade,
        hold: Option<Hold>,
    },
}

/// What must be remembered of a request for the way back.
struct Came {
    form: Form,
    upgrade: Option<Upgrade>,
    version: http::Version,
}

/// Where a listener's requests find the site that serves them; a reload puts the next one there.
#[derive(Clone)]
pub(crate) struct Slot(Rc<RefCell<Rc<Site>>>);

impl Slot {
    pub(crate) fn new(site: Rc<Site>) -> Self {
        Self(Rc::new(RefCell::new(site)))
    }

    /// From the next request on; those that run finish with the site that they began with.
    pub(crate) fn put(&self, site: Rc<Site>) {
        *self.0.borrow_mut() = site;
    }

    fn site(&self) -> Rc<Site> {
        self.0.borrow().clone()
    }
}

/// [`Site`] as the listener wants it.
#[derive(Clone)]
pub(crate) struct Http(pub(crate) Slot);

impl Service<HttpRequest> for Http {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Served;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        self.0.site().serve(request)
    }
}

/// What the request itself tells the record.
fn note(exchange: &Exchange, parts: &request::Parts) {
    if let Some(id) = parts.headers.get(attache_http::REQUEST_ID).and_then(|id| id.to_str().ok()) {
        id.clone_into(&mut exchange.request_id.borrow_mut());
    }
    // The path that was matched, where it isn't the one that was sent.
    let mut path = exchange.path.borrow_mut();
    if *path != parts.uri.path() {
        parts.uri.path().clone_into(&mut path);
    }
}
