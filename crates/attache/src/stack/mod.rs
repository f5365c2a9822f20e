//! The whole chain of layers, in the order in which a request passes them. This is the one place where the parts are
//! assembled.
//!
//! An [`Ask`] is a request, an upgrade, a CONNECT or opaque bytes. All of them meet the same steps in the same order; a step that has
//! nothing to say to one of them says so in its own code, and there is no way round it.
//!
//! 1. **listener** hands over what can be read in one way, or the verdict on what can't. Who the client is has been proven by then.
//!    Under overload the least urgent end here: nothing was done for them yet.
//! 2. **check** ([`entry`]): one meaning for Host, target and headers; one form of the path. Before routing, so that the route and the
//!    upstream read the same request.
//! 3. **route** ([`entry`]): the most specific one. It may answer by itself. A tunnel is made only where the config asks for one, and
//!    opaque bytes go only where they are meant to.
//! 4. **browsers** ([`attache_web`]): a preflight is answered. It carries no credentials, so it is answered before
//!    authentication.
//! 5. **authorise** ([`authorise`], [`external`](self::external)): the token, the rules of the listener and of the
//!    route, then another service if the config names one. Before every step that costs or changes something.
//! 6. **prepare** ([`entry`]): what belongs to this hop (hop-by-hop headers out, `Via`, forwarding headers in), then the route's
//!    rewrites, so that no client can take away what a route adds.
//! 7. **route's layers** ([`route`], [`attache_resilience::front_with`]): limits and faults, for everything that takes the route.
//! 8. **mirror, credential** ([`route`]): a copy of a request, if the route wants one; then a secret, which the copy
//!    shall not have. Behind the limits: a refused request is not copied.
//! 9. **destination's layers** ([`attache_resilience::stack`]): deadline, retries, queue, breaker, per-try deadline.
//! 10. **upstream**: an endpoint, a connection; the answer, or the connection itself.
//! 11. **finish** ([`exit`]): the way back: hop-by-hop headers, `Via`, the route's header changes; a tunnel if there is one now.
//!
//! Whatever fails on the way is one [`Reason`], and [`ListenerStack::answer`] is where it becomes a response.

mod allowed;
mod ask;
mod authorise;
mod authorizer_answer;
mod entry;
mod exit;
mod external;
mod hosts;
mod mirror;
mod own_addresses;
mod route;
mod serving;
mod session;
mod tcp;
mod tunnel;

use std::{
    cell::RefCell,
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use attache_authorization::jwt::Verifier;
use attache_config::model::{self, Name};
use attache_http::{AcceptedTraffic, AnswerContext, Body, Client, Via};
use attache_listener::{HttpRequest, Overload};
use attache_resilience::{RouteState, queue::urgency};
use attache_routing::{RouteTable, UpstreamHost};
use attache_telemetry::{Reason, WorkerMetrics, metrics};
use attache_upstream::{CallContext, boxed};
use attache_web::Web;
use attache_wire::Response;
use http::HeaderName;
use tower::Service;

use self::{
    allowed::AllowedCounters,
    entry::EntryProgress,
    exit::Sending,
    route::RouteService,
    serving::{Served, Serving, served},
};
pub(crate) use self::{hosts::Upstreams, own_addresses::OwnAddresses, tcp::Tcp, tunnel::Tunnels};
use crate::observe::{Observer, OnFinish};

/// One listener on one worker, ready to serve.
pub(crate) struct ListenerStack {
    listener: Arc<model::Listener>,
    table: RouteTable,
    allowed: AllowedCounters,
    /// The layers of each route of the table; `None` where it answers by itself.
    routes: Vec<Option<RouteService>>,
    upstreams: Rc<Upstreams>,
    /// The Host that each upstream is sent.
    upstream_hosts: Vec<UpstreamHost>,
    /// What each route of the table does for browsers.
    web: Vec<Option<Web>>,
    /// The listener or one of its routes asks an authorizer.
    asks: bool,
    /// Fields that routes and access rules ask for: no other spelling of them passes, and none in trailers.
    matched_fields: Vec<Name>,
    via: Option<Via>,
    tunnels: Tunnels,
    metrics: WorkerMetrics,
    observer: Observer,
    on_finish: OnFinish,
    overload: Arc<Overload>,
    /// Where a request says how urgent it is.
    priority_header: Option<HeaderName>,
}

impl ListenerStack {
    pub(crate) fn new(
        listener: Arc<model::Listener>,
        states: &[Arc<RouteState>],
        upstreams: Rc<Upstreams>,
        tunnels: Tunnels,
        observer: Observer,
        on_finish: OnFinish,
    ) -> Self {
        let matched_fields = matched_fields(&listener, upstreams.verifier());
        let routes = listener.routes.iter().zip(states);
        let jwt =
            |rules: &Option<Arc<model::Authorization>>| rules.as_deref().and_then(|rules| rules.jwt.clone());
        let of_listener = jwt(&listener.authorization);
        let routes = routes.map(|(route, state)| {
            let jwt = jwt(&route.authorization).or_else(|| of_listener.clone());
            let of_route = external(route.authorization.as_ref());
            let external = of_route.or_else(|| external(listener.authorization.as_ref()));
            let rules = route::Rules { asked_for: &matched_fields, jwt: jwt.as_ref(), external };
            RouteService::new(route, state, &upstreams, rules)
        });
        let rules = listener.routes.iter().map(|route| &route.authorization).chain([&listener.authorization]);
        let asks = rules
            .map(|rules| external(rules.as_ref()))
            .any(|used| matches!(used, Some(model::AuthorizerUse::Ask { .. })));
        let table = RouteTable::new(&listener);
        Self {
            allowed: AllowedCounters::new(&table),
            table,
            routes: routes.collect(),
            upstream_hosts: upstreams.configs().map(UpstreamHost::of).collect(),
            web: listener.routes.iter().map(|route| Web::new(&route.web)).collect(),
            asks,
            matched_fields,
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

    /// Requests are shed as overload protection says.
    pub(crate) fn under(mut self, overload: Arc<Overload>, config: Option<&model::Overload>) -> Self {
        self.overload = overload;
        self.priority_header = config.map(|config| config.priority_header.clone());
        self
    }

    /// What a connection may carry.
    pub(crate) fn takes(&self, client: &Client) -> AcceptedTraffic {
        self.table.takes(client)
    }

    /// Some routes pass TLS through that the listener terminates elsewhere.
    pub(crate) fn passes_tls(&self) -> bool {
        self.table.passes_tls()
    }

    /// Starts a request at once, as far as that works without waiting; the returned future does the rest.
    fn serve(self: Rc<Self>, incoming: HttpRequest) -> Served {
        let HttpRequest { request, client, exchange, on_informational, refused, upgrade, hold } = incoming;
        self.metrics.request_started(&exchange);
        if let Some(refusal) = refused {
            return served(self.answer(refusal.into(), AnswerContext::unknown(), &exchange));
        }
        let asker = AnswerContext::of(request.head());
        self.observer.request(&exchange, request.headers());
        let urgency = || self.priority_header.as_ref().map_or(0, |name| urgency(request.headers(), name));
        let context = Rc::new(CallContext { on_informational, ..CallContext::new(client, exchange.clone()) });
        let mut web = None;
        let begun = if self.overload.refuses(urgency) {
            Err(Reason::Overloaded.into())
        } else if self.asks {
            return boxed(|| self.serve_asked(request, context, upgrade, hold, asker));
        } else {
            self.begin(request, context, upgrade, hold, &mut web)
        };
        let response = match begun {
            Ok(EntryProgress::Call { route, call, back }) => {
                let sending = Sending { asker, exchange, back, web };
                // One allocation per request: the future of the whole chain has no name.
                return boxed(|| Serving::new(route.call(call), self.clone(), sending));
            }
            Ok(EntryProgress::Answer(response)) => response,
            Err(failure) => self.answer(failure, asker, &exchange),
        };
        served(self.send_off(response, web, &exchange))
    }
}

/// The authorizer that some rules ask.
fn external(rules: Option<&Arc<model::Authorization>>) -> Option<&model::AuthorizerUse> {
    rules?.external.as_ref()
}

/// The names of the fields that some route or access rule asks for, that name an upstream, or that bring a token.
fn matched_fields(listener: &model::Listener, verifier: &Verifier) -> Vec<Name> {
    let of_routes = listener.routes.iter().flat_map(|route| &route.matcher.headers);
    let rules = listener.routes.iter().map(|route| &route.authorization).chain([&listener.authorization]);
    let mut names: Vec<Name> = of_routes
        .map(|field| field.name.clone())
        .chain(listener.routes.iter().filter_map(naming))
        .chain(
            rules.clone().flatten().flat_map(|rules| rules.header_names()).map(|name| name.as_str().into()),
        )
        .chain(
            rules
                .flatten()
                .filter_map(|rules| rules.jwt.as_ref())
                .flat_map(|jwt| verifier.token_headers(jwt))
                .map(|name| name.as_str().into()),
        )
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The name of the field by which requests of a route name their upstream.
fn naming(route: &model::Route) -> Option<Name> {
    let model::Action::Forward(forward) = &route.action else { return None };
    forward.upstream_header.as_ref().map(|by| by.header.as_str().into())
}

/// Where a listener's requests find the site that serves them; a reload puts the next one there.
#[derive(Clone)]
pub(crate) struct Slot(Rc<RefCell<Rc<ListenerStack>>>);

impl Slot {
    pub(crate) fn new(site: Rc<ListenerStack>) -> Self {
        Self(Rc::new(RefCell::new(site)))
    }

    /// From the next request on; those that run finish with the site that they began with.
    pub(crate) fn put(&self, site: Rc<ListenerStack>) {
        *self.0.borrow_mut() = site;
    }

    fn site(&self) -> Rc<ListenerStack> {
        self.0.borrow().clone()
    }
}

/// [`ListenerStack`] as the listener wants it.
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
