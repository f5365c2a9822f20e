//! Makes a connection to the chosen endpoint, or to another endpoint if that one gives none.
//!
//! **Rule.** The chosen endpoint is tried first. Another one joins as soon as a connection has failed, or after the
//! connection attempt delay of RFC 8305 section 5: 250 ms, or less if `connect_timeout` or the rest of the deadline is
//! short (a quarter, a third). The first connection wins. Nothing of the request was sent before, so this is still one
//! attempt: it costs no retry and no budget, and is safe for every method. An endpoint of the same name and the other
//! address family goes first (RFC 8305, "happy eyeballs"), then the balancer's choice. Each endpoint is tried once.
//!
//! **An endpoint that failed** is out at once, if others answer ([`crate::outlier`]); its failure counts. **An endpoint
//! that was only slow** gets one more connection in the background, with the whole `connect_timeout`: this shows
//! whether it is slow or dead.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use attache_config::model::{ProxyProtocolOut, UpstreamProtocol};
use attache_http::{
    Client,
    time::{sleep, sleep_until},
};
use attache_telemetry::Class;
use tokio::{task::spawn_local, time::Instant};

use super::ServiceState;
use crate::{
    Affinity, CallContext, Endpoint, EndpointFailure, Error, Outcome, Overdue, SentPart,
    attempt::Attempt,
    connect::AlpnOffer,
    limit::ConnectionPermit,
    outlier::{self, unreachable},
    pool::{ConnectionSpec, DialOptions},
};

/// RFC 8305 section 5: "Connection Attempt Delay", recommended 250 ms.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Time between an endpoint's failure and the first connection that checks whether it is back.
const FIRST_CHECK: Duration = Duration::from_millis(250);
/// The longest time between two such checks.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(10);

struct RacingAttempt<F> {
    endpoint: Arc<Endpoint>,
    future: Pin<Box<F>>,
}

enum RaceEvent<T> {
    Ended(usize, Result<T, Error>),
    Slow,
}

impl ServiceState {
    /// A connection by `connect`, to this endpoint, or to another one that is faster.
    pub(super) async fn race<T, F>(
        self: &Rc<Self>,
        first: &Arc<Endpoint>,
        hash: Option<u64>,
        context: &CallContext,
        attempt: &mut Option<Attempt>,
        connect: impl Fn(Arc<Endpoint>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let shared = &self.pool.shared;
        let racer = |endpoint: Arc<Endpoint>| RacingAttempt {
            future: Box::pin(connect(Arc::clone(&endpoint))),
            endpoint,
        };
        let mut racers = vec![racer(Arc::clone(first))];
        let delay = self.attempt_delay(context);
        let mut tick = pin!(sleep(delay));
        let mut may_join = true;
        loop {
            let event = poll_fn(|cx| {
                for (at, racer) in racers.iter_mut().enumerate() {
                    if let Poll::Ready(end) = racer.future.as_mut().poll(cx) {
                        return Poll::Ready(RaceEvent::Ended(at, end));
                    }
                }
                if may_join && tick.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(RaceEvent::Slow);
                }
                Poll::Pending
            })
            .await;
            match event {
                RaceEvent::Ended(at, Ok(made)) => {
                    let winner = racers.swap_remove(at).endpoint;
                    unreachable::found(shared, &winner);
                    for slow in racers {
                        self.watch(&slow.endpoint, Duration::ZERO);
                    }
                    if let Some(attempt) = attempt {
                        attempt.moved_to(&winner, None);
                    }
                    return Ok(made);
                }
                RaceEvent::Ended(at, Err(error)) => {
                    let failed = racers.swap_remove(at).endpoint;
                    if !(error.sent == SentPart::Nothing && error.reason.is(Class::NoConnection)) {
                        // attache's own limit, or a deadline: another endpoint doesn't help.
                        if racers.is_empty() {
                            return Err(error);
                        }
                        continue;
                    }
                    if unreachable::lost(shared, &failed, error.reason) {
                        self.watch(&failed, FIRST_CHECK);
                    }
                    let next = self.another(&failed, hash, context, true);
                    let heir = next.as_ref().or_else(|| racers.first().map(|racer| &racer.endpoint));
                    let Some(heir) = heir else {
                        // No endpoint can be reached: their addresses may have changed.
                        shared.lookups.want();
                        // The attempt ends at the endpoint that failed last.
                        if let Some(attempt) = attempt {
                            attempt.moved_to(&failed, None);
                        }
                        return Err(error);
                    };
                    let is_at =
                        |attempt: &Attempt| attempt.endpoint().is_some_and(|at| Arc::ptr_eq(at, &failed));
                    if let Some(attempt) = attempt.as_mut().filter(|attempt| is_at(attempt)) {
                        attempt.moved_to(heir, Some(error.reason));
                    } else {
                        let outcome = Outcome::Failed(EndpointFailure::NoAnswer(error.reason));
                        outlier::report(shared, &failed, outcome, Instant::now());
                    }
                    racers.extend(next.map(racer));
                }
                // A call that waits for a connection's permit isn't slow, and another endpoint would wait as well.
                RaceEvent::Slow if self.pool.is_full() => tick.as_mut().reset(Instant::now() + delay),
                RaceEvent::Slow => {
                    let next =
                        racers.last().and_then(|last| self.another(&last.endpoint, hash, context, false));
                    may_join = next.is_some();
                    racers.extend(next.map(racer));
                    tick.as_mut().reset(Instant::now() + delay);
                }
            }
        }
    }

    /// How long an endpoint may take before another one joins.
    fn attempt_delay(&self, context: &CallContext) -> Duration {
        let late =
            context.overdue.as_ref().and_then(Overdue::earliest).into_iter().chain(context.deadline).min();
        let left = late.map(|late| late.saturating_duration_since(Instant::now()) / 3);
        let quarter = self.pool.shared.config.connect_timeout / 4;
        ATTEMPT_DELAY.min(quarter).min(left.unwrap_or(ATTEMPT_DELAY))
    }

    /// An endpoint that this call hasn't asked yet. `last_resort`: also one that is out, if no other is left.
    pub(super) fn another(
        &self,
        than: &Endpoint,
        hash: Option<u64>,
        context: &CallContext,
        last_resort: bool,
    ) -> Option<Arc<Endpoint>> {
        let shared = &self.pool.shared;
        let affinity = context.affinity.as_deref();
        if affinity.is_some_and(|affinity| affinity.strict && affinity.session.is_some()) {
            // A strict session allows only its own endpoint.
            return None;
        }
        let subset = Affinity::narrow(affinity, &shared.endpoints.load().endpoints).ok()?;
        let untried = |endpoint: &Arc<Endpoint>| {
            !context.tried.contains(endpoint) && subset.is_none_or(|subset| subset.holds(&endpoint.labels))
        };
        let sibling = || self.pool.sibling(than).filter(untried);
        let picked = || {
            let mut balancer = self.balancer.borrow_mut();
            let picked = context.tried.with(|tried| balancer.pick_for(shared, hash, tried, affinity));
            picked.ok().filter(|endpoint| untried(endpoint) && endpoint.usable())
        };
        let out = || {
            let now = Instant::now();
            let set = shared.endpoints.load();
            let asked = |endpoint: &&Arc<Endpoint>| {
                untried(endpoint) && endpoint.may_be_asked() && unreachable::may_knock(endpoint, now)
            };
            last_resort.then(|| set.endpoints.iter().find(asked).cloned()).flatten()
        };
        let endpoint = sibling().or_else(picked).or_else(out)?;
        context.tried.push(&endpoint);
        Some(endpoint)
    }

    /// Connects to the endpoint from time to time until that succeeds: at most one task for each endpoint, over all workers.
    pub(super) fn watch(self: &Rc<Self>, endpoint: &Arc<Endpoint>, first: Duration) {
        if endpoint.watched.swap(true, Relaxed) {
            return;
        }
        let (inner, watched) = (Rc::downgrade(self), WatchedEndpoint(Arc::clone(endpoint)));
        spawn_local(async move {
            let (endpoint, mut wait) = (&watched.0, first);
            loop {
                // The random part keeps many proxies from connecting at the same time.
                sleep_until(Instant::now() + wait.mul_f64(1.0 + 0.2 * fastrand::f64())).await;
                let Some(inner) = inner.upgrade().filter(|_| !endpoint.removed.load(Relaxed)) else { return };
                match inner.look(endpoint).await {
                    Ok(()) => {
                        unreachable::found(&inner.pool.shared, endpoint);
                        return;
                    }
                    // A failure on attache's side: neutral about the endpoint.
                    Err(error) if !error.reason.is(Class::NoConnection) => {}
                    Err(error) => {
                        let out = endpoint.unreachable.load(Relaxed);
                        if !out && !unreachable::lost(&inner.pool.shared, endpoint, error.reason) {
                            return;
                        }
                    }
                }
                wait = (wait * 2).clamp(FIRST_CHECK, MAX_CHECK_INTERVAL);
            }
        });
    }

    /// Makes a connection to the endpoint, and puts it into the pool if it can be used.
    async fn look(&self, endpoint: &Arc<Endpoint>) -> Result<(), Error> {
        let (pool, client) = (&self.pool, Client::default());
        let config = &pool.shared.config;
        if config.proxy_protocol == ProxyProtocolOut::Off && config.protocol != UpstreamProtocol::Tcp {
            let want = ConnectionSpec {
                protocol: self.protocol(None),
                tls: self.tls.as_ref(),
                host: None,
                client: &client,
                deadline: None,
                fresh: None,
                traced: None,
            };
            return pool.preconnect(&pool.home(endpoint), &want).await;
        }
        let permit =
            ConnectionPermit::take(&pool.shared).map_err(|reason| Error::new(reason, SentPart::Nothing))?;
        let how = DialOptions {
            tls: self.tls.as_ref(),
            offer: AlpnOffer::Opaque,
            host: None,
            client: &client,
            traced: None,
        };
        pool.dial(endpoint, permit, &how).await.map(drop)
    }
}

/// An endpoint that is watched. If its watcher ends before the endpoint is back, calls try it again.
struct WatchedEndpoint(Arc<Endpoint>);

impl Drop for WatchedEndpoint {
    fn drop(&mut self) {
        self.0.set_unreachable(false, "its watcher ended");
        self.0.watched.store(false, Relaxed);
    }
}
