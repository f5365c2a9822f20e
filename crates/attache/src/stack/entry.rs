//! The steps before a call is sent: check, route, authorise, prepare.

use std::rc::Rc;

use attache_config::model::{Destination, DestinationId, Traffic, Upstream};
use attache_http::{
    Body, CheckedHead, Client, TargetForm, UpgradeDecision, add_forwarded, check_head, may_have_trailers,
    remove_underscored, request_id, set_client_certificate, strip_request, take_hop,
};
use attache_listener::{IdleHold, OnUpgrade};
use attache_routing::{CompiledRoute, MatchedRoute, NamedHost, RequestFacts, RouteAction, TemplateContext};
use attache_telemetry::{Exchange, Reason, SharedText};
use attache_upstream::{Call, CallContext};
use attache_web::{Origin, RequestKind, ResponsePlan};
use attache_wire::{Fields, Request, RequestHead, Response, header::EXPECT};
use http::{Method, Version};

use super::{
    ListenerStack,
    ask::Ask,
    authorise::TokenRequirement,
    authorizer_answer::AuthorizerAnswer,
    exit::{CallFailure, RequestShape, ResponseContext},
    route::RouteService,
};

/// The result of the steps that need no waiting.
pub(super) enum EntryProgress<'a> {
    /// Its route answers by itself.
    Answer(Response<Body>),
    /// It goes to an upstream.
    Call { route: &'a RouteService, call: Call, back: ResponseContext },
}

/// The result of the checks.
pub(super) enum EntryResult<'a> {
    /// The request was for attache itself.
    Answer(Response<Body>),
    /// It was checked, it has a route, and the rules allow it.
    Passed(CheckedRequest<'a>),
}

/// A request that was checked, with the results.
pub(super) struct CheckedRequest<'a> {
    pub(super) form: TargetForm,
    pub(super) ask: Ask,
    matched: Option<MatchedRoute<'a>>,
    named: NamedHost,
    pub(super) token: Option<TokenRequirement<'a>>,
}

impl<'a> CheckedRequest<'a> {
    /// The route, if there is one.
    pub(super) fn route(&self) -> Option<&'a CompiledRoute> {
        self.matched.as_ref().map(|matched| matched.route)
    }
}

/// The destination of an ask.
pub(super) struct ChosenDestination<'a> {
    pub(super) route: &'a RouteService,
    pub(super) id: DestinationId,
    pub(super) destination: &'a Destination,
    pub(super) upstream: &'a Upstream,
}

impl ListenerStack {
    /// All steps before a request is sent.
    pub(super) fn begin(
        &self,
        mut request: Request<Body>,
        context: Rc<CallContext>,
        upgrade: Option<OnUpgrade>,
        hold: Option<IdleHold>,
        web: &mut Option<Box<ResponsePlan>>,
    ) -> Result<EntryProgress<'_>, CallFailure> {
        match self.admit(&mut request, &context, web)? {
            EntryResult::Answer(response) => Ok(EntryProgress::Answer(response)),
            EntryResult::Passed(passed) => {
                if let Some(web) = web {
                    web.translate(&mut request);
                }
                self.depart(request, context, upgrade, hold, passed, None)
            }
        }
    }

    /// The steps check, route and rules.
    #[inline]
    pub(super) fn admit(
        &self,
        request: &mut Request<Body>,
        context: &CallContext,
        web: &mut Option<Box<ResponsePlan>>,
    ) -> Result<EntryResult<'_>, CallFailure> {
        let client = &*context.client;
        let http = &self.listener.http;

        // check
        let ended = http_body::Body::is_end_stream(request.body());
        let parts = request.head_mut();
        let CheckedHead { form, dropped } = check_head(parts, client.tls, ended, http)?;
        if dropped > 0 {
            self.metrics.dropped_headers(&self.listener.name, dropped);
        }
        request_id(&mut parts.headers, http.request_id, http.trust_request_id);
        self.observer.traced(&context.exchange, &mut parts.headers, client.tls);
        note(&context.exchange, parts);
        if self.metrics.tapped() {
            context.exchange.see_request(&parts.headers);
        }

        if let Some(response) = take_hop(parts) {
            return Ok(EntryResult::Answer(response));
        }

        // route
        let mut ask = Ask::of(parts);
        let facts = RequestFacts::of(parts, client);
        let named = facts.named(parts);
        let matched = self.table.find_http(&facts);
        let found = matched.as_ref().map(|matched| matched.route);
        *context.exchange.route.borrow_mut() = found.map(|route| route.name.clone());

        // upgrades
        let permitted = match (found, &ask) {
            (Some(route), Ask::Upgrade(upgrade)) => upgrade.permitted(route.upgrades()),
            _ => UpgradeDecision::Yes,
        };
        match (permitted, found) {
            (UpgradeDecision::Ignored, _) => ask = Ask::Http,
            (UpgradeDecision::No, Some(route)) => return Err(no_upgrade(route)),
            _ => {}
        }

        // browsers
        if let Some(route) = found
            && let Some(for_browsers) = self.web.get(route.id.0).and_then(Option::as_ref)
        {
            match for_browsers.arrive(parts) {
                RequestKind::Preflight(response, origin) => {
                    self.count_cors(route, origin, true);
                    return Ok(EntryResult::Answer(response));
                }
                RequestKind::Request(back) => {
                    if let Some(origin) = back.as_ref().and_then(ResponsePlan::origin) {
                        self.count_cors(route, origin, false);
                    }
                    *web = back.map(Box::new);
                }
            }
        }

        // authorise
        let token = self.authorise(parts, client, found, &context.exchange)?;
        Ok(EntryResult::Passed(CheckedRequest { form, ask, matched, named, token }))
    }

    /// Prepares an allowed request, with the changes of an authorizer.
    #[inline]
    pub(super) fn depart<'a>(
        &'a self,
        mut request: Request<Body>,
        mut context: Rc<CallContext>,
        upgrade: Option<OnUpgrade>,
        hold: Option<IdleHold>,
        passed: CheckedRequest<'a>,
        asked: Option<&AuthorizerAnswer<'_>>,
    ) -> Result<EntryProgress<'a>, CallFailure> {
        let client = context.client.clone();
        let client = &*client;
        let CheckedRequest { form, ask, matched, named, token } = passed;
        let parts = request.head_mut();
        let matched = matched.ok_or_else(|| self.no_route(parts))?;
        let route = matched.route;
        let mut ctx = TemplateContext { client, captures: &matched.captures, upstream: "", host: None };
        if let RouteAction::Direct = route.step() {
            let response = route.respond(parts, &ctx).ok_or(Reason::InternalError)?;
            if parts.method == Method::CONNECT && response.status().is_success() {
                return Err(no_tunnel_here());
            }
            return Ok(EntryProgress::Answer(response));
        }

        // prepare
        let shape = RequestShape { form, ask, version: parts.version };
        self.leave(parts, &shape, client);
        if let Some(token) = token {
            token.pass_on(self.upstreams.verifier(), parts);
        }
        if let Some(asked) = asked {
            asked.apply(parts)?;
        }
        // This must not come earlier: a claim or an authorizer may name the upstream, and by now the client's own header of that name has
        // been removed.
        let chosen = self.choose(&shape.ask, route, &parts.headers, &context.exchange)?;
        ctx.upstream = &chosen.upstream.name;
        let upstream_host = self.upstream_hosts.get(chosen.destination.upstream.0);
        let facts = RequestFacts::again(parts, client, named);
        ctx.host = upstream_host.and_then(|to| route.host(&facts, to));
        let (affinity, session) =
            chosen.route.affinities.of_request(&parts.headers, parts.uri.path(), client.tls);
        let edits = route.prepare_request(parts, &ctx)?;
        let RouteService { withheld, withheld_back, .. } = chosen.route;
        if route.body_size() > 0 && shape.ask == Ask::Http {
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = body.at_most(route.body_size() as u64)?;
        }
        if may_have_trailers(shape.version, request.headers()) {
            let body = std::mem::take(request.body_mut());
            let withheld = asked.map_or_else(|| Rc::clone(withheld), |asked| asked.withheld(withheld));
            *request.body_mut() = body.without_trailers(&withheld, self.listener.http.header_names);
        }
        let changed = Rc::make_mut(&mut context);
        if !withheld_back.is_empty() {
            let pass_on = changed.on_informational.take();
            changed.on_informational = pass_on.map(|pass_on| pass_on.without(withheld_back.clone()));
        }
        let tunnels = matches!(shape.ask, Ask::Upgrade(_) | Ask::Connect);
        let switched = upgrade.filter(|_| tunnels).map(|client| {
            let tunnel = self.tunnel(chosen.destination, changed.exchange.clone(), hold);
            Box::new((client, tunnel))
        });
        changed.destination = chosen.id;
        changed.affinity = affinity;
        let call = shape.ask.call(request, context);
        Ok(EntryProgress::Call {
            route: chosen.route,
            call,
            back: ResponseContext { shape, edits, withheld: withheld_back.clone(), switched, session },
        })
    }

    fn count_cors(&self, route: &CompiledRoute, origin: Origin, preflight: bool) {
        let outcome = match (origin, preflight) {
            (Origin::None, _) => return,
            (Origin::Allowed, true) => "preflight-allowed",
            (Origin::Foreign, true) => "preflight-foreign",
            (Origin::Allowed, false) => "allowed",
            (Origin::Foreign, false) => "foreign",
        };
        self.metrics.cors(&self.listener.name, &route.name, outcome);
    }

    /// The failure if no route matches. It names the request's Host, and the Hosts that have routes.
    #[cold]
    fn no_route(&self, parts: &RequestHead) -> CallFailure {
        CallFailure { detail: self.table.no_route(parts), ..CallFailure::from(Reason::NoRoute) }
    }

    /// A destination of a route that accepts such an ask, and the layers for it.
    pub(super) fn choose<'a>(
        &'a self,
        ask: &Ask,
        route: &'a CompiledRoute,
        headers: &Fields,
        exchange: &Exchange,
    ) -> Result<ChosenDestination<'a>, CallFailure> {
        *exchange.route.borrow_mut() = Some(route.name.clone());
        let (id, destination) = route.choose_for(headers, fastrand::u32(..)).map_err(|why| match why {
            Some(detail) => CallFailure { detail, ..CallFailure::from(Reason::NoUpstream) },
            None => Reason::NoRoute.into(),
        })?;
        let upstream = self.upstreams.config(destination.upstream).ok_or(Reason::InternalError)?;
        *exchange.upstream.borrow_mut() = Some(upstream.name.clone());
        match ask {
            // Rules can't see inside a tunnel, so there is one only if the config allows it.
            Ask::Connect if !route.takes_connect() => return Err(no_tunnel(&upstream.name)),
            Ask::Http | Ask::Upgrade(_) if route.traffic() == Traffic::Opaque => return Err(no_http()),
            // The route table knows which routes accept opaque bytes.
            Ask::Http | Ask::Upgrade(_) | Ask::Connect | Ask::Opaque => {}
        }
        let service = self.routes.get(route.id.0).and_then(Option::as_ref).ok_or(Reason::InternalError)?;
        Ok(ChosenDestination { route: service, id, destination, upstream })
    }

    /// Removes and adds the fields of this hop before a request is sent. This comes before the route's own changes: it removes headers that
    /// a client names in `Connection` or spells differently, and must never remove those that the route or attache adds.
    pub(super) fn leave(&self, parts: &mut RequestHead, shape: &RequestShape, client: &Client) {
        strip_request(&mut parts.headers, shape.ask.upgrade(), shape.form.is_proxied());
        if shape.version == Version::HTTP_10 {
            // An HTTP/1.0 client doesn't wait for status 100, and its `Expect` is ignored (RFC 9110 section 10.1.1). With `Expect`, the
            // call to the upstream would delay the body for a second.
            parts.headers.remove(EXPECT);
        }
        remove_underscored(&mut parts.headers, |name| {
            self.matched_fields.iter().any(|field| **field == *name)
        });
        let scheme = if client.tls { "https" } else { "http" };
        let host = parts.uri.authority().map_or("", |host| host.as_str());
        add_forwarded(&mut parts.headers, &self.listener.http.forwarded, client, scheme, host);
        set_client_certificate(&mut parts.headers, client, self.listener.http.forward_client_cert_details);
        if let Some(via) = &self.via {
            via.add(&mut parts.headers, shape.version);
        }
    }
}

fn no_tunnel(upstream: &str) -> CallFailure {
    let detail = format!(
        "the config allows no tunnel to `{upstream}`: its rules are about HTTP, which a tunnel hides; a route with `methods: CONNECT` allows one"
    );
    CallFailure { detail, ..CallFailure::from(Reason::ConnectDenied) }
}

/// A success would tell the client that its tunnel is open, also the client of an extended CONNECT.
#[cold]
fn no_tunnel_here() -> CallFailure {
    let detail = "the route answers by itself (`respond`), so it opens no tunnel".to_owned();
    CallFailure { detail, ..CallFailure::from(Reason::ConnectDenied) }
}

#[cold]
fn no_upgrade(route: &CompiledRoute) -> CallFailure {
    let detail = format!("`upgrades` allows these protocols here: {}", route.upgrades());
    CallFailure { detail, ..CallFailure::from(Reason::UpgradeDenied) }
}

fn no_http() -> CallFailure {
    let detail = "the upstream's protocol is tcp, so HTTP can't be routed to it".to_owned();
    CallFailure { detail, ..CallFailure::from(Reason::ProtocolMismatch) }
}

/// Notes in the record what the request itself says.
fn note(exchange: &Exchange, parts: &RequestHead) {
    if let Some(id) = parts.headers.get(attache_http::REQUEST_ID) {
        // The checks have kept only a harmless id.
        let shared = parts.headers.shared(id.as_bytes());
        exchange.request_id.replace(shared.map_or_else(|| SharedText::of(id.as_bytes()), SharedText::shared));
    }
    // The path that was matched, if it isn't the path that was sent.
    let mut path = exchange.path.borrow_mut();
    if path.as_bytes() != parts.uri.path().as_bytes() {
        *path = SharedText::from(parts.uri.path());
    }
}
