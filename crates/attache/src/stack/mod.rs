//! The whole chain of layers, in the order in which a request passes them. Only here are the parts assembled.
//!
//! An [`Ask`] is a request, an upgrade, a CONNECT or opaque bytes. All of them pass the same steps in the same order. A step that does not
//! apply to one of them decides that in its own code; no ask can avoid a step.
//!
//! 1. **listener** passes on requests that have only one meaning, or the refusal of others. By then the client's identity has been
//!    verified. Under overload the least urgent requests end here, because nothing was done for them yet.
//! 2. **check** ([`entry`]): one meaning for Host, target and headers; one form of the path. This comes before routing, so that the route
//!    and the upstream read the same request.
//! 3. **route** ([`entry`]): the most specific route that matches. It may answer by itself. A tunnel is made only if the config allows it,
//!    and opaque bytes are sent only to routes that accept them.
//! 4. **browsers** ([`attache_web`]): a preflight is answered. It carries no credentials, so it is answered before
//!    authentication.
//! 5. **authorise** ([`authorise`], [`external`](self::external)): the token, the rules of the listener and of the route, then an
//!    authorizer if the config names one. This comes before every step that costs or changes something.
//! 6. **prepare** ([`entry`]): the fields of this hop (hop-by-hop headers are removed, `Via` and forwarding headers are added), then the
//!    route's rewrites, so that a client can't remove what a route adds.
//! 7. **route's layers** ([`route`], [`attache_resilience::front_with`]): limits and faults, for everything on this route.
//! 8. **mirror, credential** ([`route`]): a copy of the request, if the route wants one; then a secret, which the copy must not have. This
//!    comes after the limits: a refused request is not copied.
//! 9. **destination's layers** ([`attache_resilience::stack`]): deadline, retries, queue, breaker, per-try deadline.
//! 10. **upstream**: an endpoint and a connection; the result is a response, or the connection itself.
//! 11. **finish** ([`exit`]): the way back: hop-by-hop headers, `Via`, the route's header changes; a tunnel, if there is one.
//!
//! Every failure in these steps is one [`Reason`]. [`ListenerStack::answer`] turns it into a response.

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

use attache_authorization::jwt::TokenVerifier;
use attache_config::model::{self, Name};
use attache_http::{AcceptedTraffic, AnswerContext, Body, Client, Via};
use attache_listener::{HttpRequest, OverloadState};
use attache_resilience::{RouteState, queue::urgency};
use attache_routing::{RouteTable, UpstreamHost};
use attache_telemetry::{Reason, WorkerMetrics, metrics};
use attache_upstream::{CallContext, boxed};
use attache_web::WebSettings;
use attache_wire::Response;
use http::HeaderName;
use tower::Service;

use self::{
    allowed::AllowedCounters,
    entry::EntryProgress,
    exit::AnswerNeeds,
    route::RouteService,
    serving::{ServedAnswer, ServedRequest, served},
};
pub(crate) use self::{hosts::Upstreams, own_addresses::OwnAddresses, tcp::TcpStack, tunnel::Tunnels};
use crate::observe::{Observer, OnFinish};

/// One listener on one worker, ready to serve.
pub(crate) struct ListenerStack {
    listener: Arc<model::Listener>,
    table: RouteTable,
    allowed: AllowedCounters,
    /// The layers of each route of the table; `None` for a route that answers by itself.
    routes: Vec<Option<RouteService>>,
    upstreams: Rc<Upstreams>,
    /// The Host that is sent to each upstream.
    upstream_hosts: Vec<UpstreamHost>,
    /// The settings for browsers of each route of the table.
    web: Vec<Option<WebSettings>>,
    /// The listener or one of its routes has an authorizer.
    asks: bool,
    /// Fields that routes and access rules match: they pass only in this spelling, and never as trailers.
    matched_fields: Vec<Name>,
    via: Option<Via>,
    tunnels: Tunnels,
    metrics: WorkerMetrics,
    observer: Observer,
    on_finish: OnFinish,
    overload: Arc<OverloadState>,
    /// The header that gives the urgency of a request.
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
            let rules = route::RouteRules { asked_for: &matched_fields, jwt: jwt.as_ref(), external };
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
            web: listener.routes.iter().map(|route| WebSettings::new(&route.web)).collect(),
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

    /// Enables the shedding of requests by overload protection.
    pub(crate) fn under(mut self, overload: Arc<OverloadState>, config: Option<&model::Overload>) -> Self {
        self.overload = overload;
        self.priority_header = config.map(|config| config.priority_header.clone());
        self
    }

    /// What a connection may carry.
    pub(crate) fn takes(&self, client: &Client) -> AcceptedTraffic {
        self.table.takes(client)
    }

    /// Whether some routes pass TLS through without terminating it.
    pub(crate) fn passes_tls(&self) -> bool {
        self.table.passes_tls()
    }

    /// Handles a request at once as far as that needs no waiting. The returned future does the rest.
    fn serve(self: Rc<Self>, incoming: HttpRequest) -> ServedAnswer {
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
                let sending = AnswerNeeds { asker, exchange, back, web };
                // One allocation per request: the type of the whole chain's future can't be named.
                return boxed(|| ServedRequest::new(route.call(call), self.clone(), sending));
            }
            Ok(EntryProgress::Answer(response)) => response,
            Err(failure) => self.answer(failure, asker, &exchange),
        };
        served(self.send_off(response, web, &exchange))
    }
}

/// The authorizer that these rules ask, if there is one.
fn external(rules: Option<&Arc<model::Authorization>>) -> Option<&model::AuthorizerUse> {
    rules?.external.as_ref()
}

/// The names of the fields that a route or access rule matches, that name an upstream, or that carry a token.
fn matched_fields(listener: &model::Listener, verifier: &TokenVerifier) -> Vec<Name> {
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

/// The name of the field in which requests of a route name their upstream.
fn naming(route: &model::Route) -> Option<Name> {
    let model::Action::Forward(forward) = &route.action else { return None };
    forward.upstream_header.as_ref().map(|by| by.header.as_str().into())
}

/// Where the requests of a listener find their stack. A reload replaces it.
#[derive(Clone)]
pub(crate) struct StackCell(Rc<RefCell<Rc<ListenerStack>>>);

impl StackCell {
    pub(crate) fn new(site: Rc<ListenerStack>) -> Self {
        Self(Rc::new(RefCell::new(site)))
    }

    /// Replaces the stack from the next request on. Running requests finish with the stack that they began with.
    pub(crate) fn put(&self, site: Rc<ListenerStack>) {
        *self.0.borrow_mut() = site;
    }

    fn site(&self) -> Rc<ListenerStack> {
        self.0.borrow().clone()
    }
}

/// The [`ListenerStack`] in the form that the listener needs.
#[derive(Clone)]
pub(crate) struct HttpStack(pub(crate) StackCell);

impl Service<HttpRequest> for HttpStack {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ServedAnswer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        self.0.site().serve(request)
    }
}
