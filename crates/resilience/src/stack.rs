//! The order of the layers, from the route to the endpoint.
//!
//! [`front`] comes before a route chooses among its destinations, so that a limit applies to the whole route, whatever
//! the split:
//! 1. [`RateLimitService`] first: a refused request costs nothing in the later layers.
//! 2. [`GlobalLimit`]: the service is asked only about requests that the local limit allows, and refused requests
//!    aren't delayed.
//! 3. [`Faults`]: an injected delay is outside of all deadlines of attache, so it tests those of the caller.
//!
//! [`stack`] comes before one upstream:
//! 1. [`Deadline`] first: everything after it, waits between attempts included, counts against the caller's deadline.
//! 2. [`RetryService`]: each pass through the layers below it is one attempt, on its own endpoint.
//! 3. [`QueueAdmission`]: below the retries, so that each attempt takes its own permit and none is held during a backoff;
//!    above the breaker, so that a waiting call is not yet a probe.
//! 4. [`PassDeadlineOn`]: below the retries and the queue, so that each attempt carries the time that then remains.
//! 5. [`Breaker`]: below the retries, so that each attempt is a sample, many failing retries open it quickly, and a
//!    call that finds it open is not retried.
//! 6. [`PerTry`] last: it limits one attempt, so the breaker counts its failure and the retry sees its error.
//!
//! None of them decides about endpoints: the [`Attempt`](attache_upstream::Attempt) below them reports its outcome to
//! ejection, breakers and the balancer.
//!
//! A call for a bare connection ([`CallKind::Connection`](attache_upstream::CallKind)) passes the same layers in the
//! same order.

use std::{rc::Rc, sync::Arc};

use attache_config::model::Policy;
use attache_http::Body;
use attache_upstream::{Call, Error};
use attache_wire::Response;

use tower::Service;

use crate::{
    RouteState, UpstreamState,
    breaker::Breaker,
    deadline::{Deadline, PassDeadlineOn, PerTry},
    fault::Faults,
    global_limit::{GlobalLimit, GlobalLimiter},
    queue::QueueAdmission,
    rate_limit::RateLimitService,
    retry::RetryService,
};

/// The layers of one destination of one route.
pub type Stack<S> = Deadline<RetryService<QueueAdmission<PassDeadlineOn<Breaker<PerTry<S>>>>>>;

/// Puts a route's policy around an upstream's service. `state` is the state of the upstream, shared by all routes.
pub fn stack<S>(policy: &Policy, state: &Arc<UpstreamState>, inner: S) -> Stack<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error> + Clone,
{
    let attempts = PerTry::new(inner, policy.retry.per_try_timeout, state.clone());
    let header = policy.deadline_header.clone();
    let told = PassDeadlineOn::new(
        Breaker::new(attempts, state.clone()),
        header.clone(),
        policy.retry.per_try_timeout,
    );
    let admitted = QueueAdmission::new(told, state);
    let retry = RetryService::new(admitted, policy.retry.clone(), state.clone());
    Deadline::new(retry, policy.timeouts, state.clone()).with_header(header)
}

/// The layers of one route, before its destinations.
pub type RouteLayers<S> = RateLimitService<GlobalLimit<Faults<S>>>;

/// Puts a route's rate limit and faults before the service that chooses its destination.
pub fn front<S>(route: &Arc<RouteState>, inner: S) -> RouteLayers<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error> + Clone + 'static,
{
    front_with(route, None, inner)
}

/// The same with a global rate limit, whose limiter was made for this worker.
pub fn front_with<S>(route: &Arc<RouteState>, global: Option<Rc<GlobalLimiter>>, inner: S) -> RouteLayers<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error> + Clone + 'static,
{
    let asked = GlobalLimit::new(Faults::new(inner, route.clone()), global);
    RateLimitService::new(asked, route.clone())
}
