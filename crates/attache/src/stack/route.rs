//! A route, ready to serve: its own layers, then those of each of its destinations.
//!
//! The table's [`RouteId`](attache_routing::RouteId) selects a [`RouteService`], and a call's
//! [`DestinationId`](attache_config::model::DestinationId) selects one of its destinations. The order is that of [`stack`](super): limits
//! and faults, mirror, credential, the destination's own layers.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use attache_config::model::{self, Action, AuthorizerUse, Destination, HeaderEdits, JwtUse, Mirror, Name};
use attache_http::{Body, remove_underscored};
use attache_resilience::{RouteLayers, RouteState, Stack, front_with};
use attache_routing::mirrors;
use attache_telemetry::Reason;
use attache_tls::CredentialHeader;
use attache_upstream::{Call, CallKind, Error, SentPart, WorkerUpstream};
use attache_web::PERMISSIONS;
use attache_wire::{Fields, Response};
use http::HeaderName;
use pin_project_lite::pin_project;
use tower::Service;

use super::{Upstreams, hosts::PerHost, mirror, session::RouteAffinity};

/// One route that forwards, on one worker.
pub(super) struct RouteService {
    /// It is borrowed for a call, not cloned: every layer holds counters that all workers share. No call is made within a call.
    front: RefCell<RouteLayers<DestinationsService>>,
    /// Which endpoints its calls may use, and which they should prefer.
    pub(super) affinities: RouteAffinity,
    /// Whether it has limits or faults.
    pub(super) is_limited: bool,
    /// Fields that no trailer of a request may have: the route, a credential or a rule uses them, and checks them only in the head.
    pub(super) withheld: Rc<[HeaderName]>,
    /// The same for responses, including 1xx responses.
    pub(super) withheld_back: Rc<[HeaderName]>,
}

/// What the rules of a route use.
#[derive(Clone, Copy)]
pub(super) struct RouteRules<'a> {
    /// The fields that routes and rules match.
    pub(super) asked_for: &'a [Name],
    /// The settings for tokens.
    pub(super) jwt: Option<&'a JwtUse>,
    /// The authorizer.
    pub(super) external: Option<&'a AuthorizerUse>,
}

/// The future of a call.
pub(super) type RouteFuture = <RouteLayers<DestinationsService> as Service<Call>>::Future;

impl RouteService {
    /// `None` for a route that answers by itself. `state` is the part that all workers share.
    pub(super) fn new(
        route: &model::Route,
        state: &Arc<RouteState>,
        upstreams: &Rc<Upstreams>,
        rules: RouteRules<'_>,
    ) -> Option<Self> {
        let RouteRules { asked_for, jwt, external } = rules;
        let Action::Forward(forward) = &route.action else { return None };
        let asked = forward.global_rate_limit.clone();
        let asked = asked.and_then(|limit| upstreams.limiter(*limit, route.name.clone()));
        let destinations = DestinationsService(Rc::new(RouteDestinations {
            mirrors: forward.mirrors.clone(),
            all: forward.to.iter().map(|to| DestinationService::new(to, upstreams)).collect(),
            upstreams: upstreams.clone(),
        }));
        let is_limited = forward.rate_limit.is_some() || asked.is_some() || forward.fault.is_some();
        let credentials = forward.to.iter().filter_map(|to| to.policy.credential.as_ref());
        let withheld = edited(&route.request_headers)
            .chain(credentials.map(|credential| credential.secret.header()))
            .chain(jwt.into_iter().flat_map(|jwt| upstreams.verifier().claim_headers(jwt)).cloned())
            .chain(upstreams.headers_of(external).cloned())
            .chain(asked_for.iter().filter_map(|name| HeaderName::try_from(&**name).ok()));
        let permissions = route.web.cors.is_some().then_some(PERMISSIONS).into_iter().flatten();
        Some(Self {
            front: RefCell::new(front_with(state, asked, destinations)),
            affinities: RouteAffinity::of(forward),
            is_limited,
            withheld: withheld.collect(),
            withheld_back: edited(&route.response_headers).chain(permissions).collect(),
        })
    }

    /// Sends a call to the destination that its context names.
    pub(super) fn call(&self, call: Call) -> RouteFuture {
        self.front.borrow_mut().call(call)
    }
}

/// The fields that the edits remove, or set to a fixed value.
fn edited(edits: &HeaderEdits) -> impl Iterator<Item = HeaderName> {
    edits.remove.iter().chain(edits.set.iter().map(|(name, _)| name)).cloned()
}

/// The destinations of a route, after its limits.
#[derive(Clone)]
pub(super) struct DestinationsService(Rc<RouteDestinations>);

struct RouteDestinations {
    mirrors: Vec<Mirror>,
    /// A call's `DestinationId` is an index of this.
    all: Vec<DestinationService>,
    upstreams: Rc<Upstreams>,
}

/// One destination: its secret, and the layers of its policy.
struct DestinationService {
    destination: Destination,
    credential: Option<CredentialHeader>,
    stack: DestinationStack,
}

/// The layers of a destination.
enum DestinationStack {
    /// For an upstream with endpoints in the config.
    Named(RefCell<Stack<WorkerUpstream>>),
    /// For each host that calls named.
    Asked(PerHost<Stack<WorkerUpstream>>),
}

impl DestinationService {
    fn new(destination: &Destination, upstreams: &Upstreams) -> Self {
        Self {
            credential: upstreams.credential(destination.policy.credential.as_deref()).cloned(),
            stack: upstreams.stack(destination).map_or_else(
                || DestinationStack::Asked(PerHost::default()),
                |stack| DestinationStack::Named(RefCell::new(stack)),
            ),
            destination: destination.clone(),
        }
    }

    /// Adds the secret to a request. If the secret is missing, the request is not sent.
    fn authenticate(&self, headers: &mut Fields) -> Result<(), Error> {
        let Some(wanted) = &self.destination.policy.credential else { return Ok(()) };
        let missing = |why: String| Error::with_source(Reason::NoCredential, SentPart::Nothing, why);
        let credential = self.credential.as_ref().ok_or_else(|| missing("it was not read".to_owned()))?;
        let name = wanted.secret.header();
        remove_underscored(headers, |spelled| spelled == name.as_str());
        credential.apply(headers).map_err(|error| missing(error.to_string()))
    }
}

impl Service<Call> for DestinationsService {
    type Response = Response<Body>;
    type Error = Error;
    type Future = DestinationsFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call) -> DestinationsFuture {
        let RouteDestinations { mirrors: copies, all, upstreams } = &*self.0;
        let id = call.context.destination;
        let Some(to) = all.get(id.0) else {
            return DestinationsFuture::refused(Error::new(Reason::InternalError, SentPart::Nothing));
        };
        // A tunnel has no request that could be copied or authenticated.
        if call.wants == CallKind::Answer {
            for copy in mirrors(copies, fastrand::f64) {
                call.request = mirror::split(call.request, upstreams, copy, &call.context);
            }
            if let Err(error) = to.authenticate(call.request.headers_mut()) {
                return DestinationsFuture::refused(error);
            }
        }
        let hosts = match &to.stack {
            DestinationStack::Named(stack) => {
                return DestinationsFuture::Named { sent: stack.borrow_mut().call(call) };
            }
            DestinationStack::Asked(hosts) => hosts,
        };
        match upstreams.known_host(&to.destination, &call) {
            Ok(Some(host)) => {
                let sent = hosts.with(
                    &host,
                    || upstreams.stack_of_host(&to.destination, &host),
                    |stack| stack.call(call),
                );
                return sent
                    .map_or_else(DestinationsFuture::refused, |sent| DestinationsFuture::Named { sent });
            }
            Ok(None) => {}
            Err(error) => return DestinationsFuture::refused(error),
        }
        let inner = self.0.clone();
        DestinationsFuture::Asked {
            // This happens once for each host, unless the host was dropped since.
            sent: Box::pin(async move {
                let to = inner
                    .all
                    .get(id.0)
                    .ok_or_else(|| Error::new(Reason::InternalError, SentPart::Nothing))?;
                let host = inner.upstreams.host(&to.destination, &call).await?;
                let mut stack = inner.upstreams.stack_of_host(&to.destination, &host)?;
                stack.call(call).await
            }),
        }
    }
}

pin_project! {
    /// The future of [`DestinationsService`].
    #[project = DestinationsProjection]
    pub(super) enum DestinationsFuture {
        /// For an upstream with endpoints in the config, or a host that this worker knows.
        Named { #[pin] sent: <Stack<WorkerUpstream> as Service<Call>>::Future },
        /// For a host that the call names and that must be looked up first.
        Asked { sent: Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>> },
        /// The call is refused. Boxed, because it is rare.
        Refused { error: Option<Box<Error>> },
    }
}

impl DestinationsFuture {
    fn refused(error: Error) -> Self {
        Self::Refused { error: Some(Box::new(error)) }
    }
}

impl Future for DestinationsFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            DestinationsProjection::Named { sent } => sent.poll(cx),
            DestinationsProjection::Asked { sent } => sent.as_mut().poll(cx),
            DestinationsProjection::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(*error)),
                None => Poll::Pending,
            },
        }
    }
}
