//! Global rate limits: before a request continues, attache asks a service that counts for all proxies.
//!
//! **Rule.** The route's descriptors, filled with the request's values, go to
//! `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit` of an upstream of the config. attache answers
//! `OVER_LIMIT` with 429, `rate-limited`, `x-envoy-ratelimited`, `RateLimit-*` (like local limits) and `Retry-After`,
//! from the bucket that is over its limit for the longest time. Headers from the service are added: to this answer, or
//! to the request and its response. When the service doesn't answer within `timeout`, `failure_mode` decides.
//!
//! A descriptor with a missing value is left out. If no descriptor is left, the service isn't asked.
//!
//! **Source.** Envoy's `ratelimit` filter and its rate limit actions, with their names. Differences: one `timeout`, no
//! retries, as there; the service's headers replace those of the same name, so a client can't send them ahead;
//! `failure_mode` is a word instead of `failure_mode_deny`.
//!
//! The service is called like any other upstream: its pool, TLS, limits, breaker and ejection are those of its config.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod messages;
#[cfg(test)]
mod tests;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use attache_config::model::{DescriptorAction, FailureMode, GlobalRateLimit, Name};
use attache_http::{Body, is_framing};
use attache_rpc::UpstreamService;
use attache_telemetry::{Reason, metrics};
use attache_upstream::{Call, Error, SentPart};
use attache_wire::{Fields, Response};
use http::{HeaderName, HeaderValue};
use pin_project_lite::pin_project;

/// An answer may be no longer than this: a few statuses and headers.
const MAX_ANSWER_BYTES: usize = 64 << 10;

type BoxFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>>;

/// Asks the service for one route on one worker.
#[derive(Debug)]
pub struct GlobalLimiter {
    config: GlobalRateLimit,
    route: Name,
    service: UpstreamService,
}

impl GlobalLimiter {
    /// `service` is the upstream that counts.
    pub fn new(config: GlobalRateLimit, route: Name, service: UpstreamService) -> Rc<Self> {
        Rc::new(Self { config, route, service })
    }

    /// The question about a request; `None` if there is nothing to count.
    fn question(&self, call: &Call) -> Option<messages::RateLimitRequest> {
        let filled = self.config.descriptors.iter().filter_map(|actions| self.descriptor(actions, call));
        let descriptors: Vec<_> = filled.collect();
        (!descriptors.is_empty()).then(|| messages::RateLimitRequest {
            domain: self.config.domain.to_string(),
            descriptors,
            hits_addend: self.config.hits_addend,
        })
    }

    fn descriptor(&self, actions: &[DescriptorAction], call: &Call) -> Option<messages::RateLimitDescriptor> {
        let mut entries = Vec::with_capacity(actions.len());
        let Call { request, context, .. } = call;
        for action in actions {
            let (key, value): (&str, String) = match action {
                DescriptorAction::RemoteAddress => {
                    ("remote_address", context.client.address?.ip().to_canonical().to_string())
                }
                DescriptorAction::DestinationCluster => {
                    ("destination_cluster", context.exchange.upstream.borrow().as_deref()?.to_owned())
                }
                DescriptorAction::ClientIdentity => {
                    ("client_identity", context.client.identities().first()?.as_ref().to_owned())
                }
                DescriptorAction::Route => ("route", self.route.as_ref().to_owned()),
                DescriptorAction::Path => ("path", context.exchange.path.borrow().to_string()),
                DescriptorAction::Method => ("method", request.method().to_string()),
                DescriptorAction::GenericKey(generic) => {
                    (&generic.descriptor_key, generic.descriptor_value.as_ref().to_owned())
                }
                DescriptorAction::RequestHeader(header) => match request.headers().get(&header.header_name) {
                    Some(value) => (header.key(), String::from_utf8_lossy(value.as_bytes()).into_owned()),
                    None if header.skip_if_absent => continue,
                    None => return None,
                },
            };
            // The service accepts no empty values.
            if value.is_empty() {
                return None;
            }
            entries.push(messages::DescriptorEntry { key: key.to_owned(), value });
        }
        (!entries.is_empty()).then_some(messages::RateLimitDescriptor { entries })
    }

    /// Asks the service. The error says why there is no answer.
    async fn ask(
        &self,
        question: messages::RateLimitRequest,
        listener: Name,
    ) -> Result<messages::LimitAnswer, String> {
        const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
        let answer =
            self.service.unary(METHOD, &question, &listener, self.config.timeout, MAX_ANSWER_BYTES).await;
        let answer =
            answer.map(|response: messages::RateLimitResponse| messages::LimitAnswer::from(response));
        let outcome = match &answer {
            Ok(answer) if answer.over_limit => "over-limit",
            Ok(_) => "ok",
            Err(_) => "error",
        };
        metrics().rate_limit_service(self.service.name(), outcome);
        answer
    }
}

/// Asks before a request continues.
#[derive(Clone, Debug)]
pub struct GlobalLimit<S> {
    inner: S,
    limiter: Option<Rc<GlobalLimiter>>,
}

impl<S> GlobalLimit<S> {
    /// Wraps a service with the check; with `None` there is no check.
    pub fn new(inner: S, limiter: Option<Rc<GlobalLimiter>>) -> Self {
        Self { inner, limiter }
    }
}

impl<S> tower::Service<Call> for GlobalLimit<S>
where
    S: tower::Service<Call, Response = Response<Body>, Error = Error> + Clone + 'static,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = GlobalLimitFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let asked = self.limiter.as_ref().and_then(|limiter| Some((limiter, limiter.question(&call)?)));
        match asked {
            None => GlobalLimitFuture { step: GlobalLimitStep::Through { future: self.inner.call(call) } },
            Some((limiter, question)) => {
                // One allocation, only for requests that need a question to another machine.
                let future = Box::pin(limited(limiter.clone(), question, self.inner.clone(), call));
                GlobalLimitFuture { step: GlobalLimitStep::Asked { future } }
            }
        }
    }
}

async fn limited<S>(
    limiter: Rc<GlobalLimiter>,
    question: messages::RateLimitRequest,
    mut service: S,
    mut call: Call,
) -> Result<Response<Body>, Error>
where
    S: tower::Service<Call, Response = Response<Body>, Error = Error>,
{
    let answer = match limiter.ask(question, call.context.exchange.listener.clone()).await {
        Ok(answer) => answer,
        Err(why) => {
            tracing::debug!(service = %limiter.service.name(), why, "the rate limit service gave no answer");
            if limiter.config.failure_mode == FailureMode::Deny {
                let why = format!("rate limit service {}: {why}", limiter.service.name());
                return Err(Error::with_source(Reason::RateLimitServiceError, SentPart::Nothing, why));
            }
            messages::LimitAnswer::default()
        }
    };
    if answer.over_limit {
        return Err(over_limit(&answer));
    }
    add(call.request.headers_mut(), &answer.request_headers);
    poll_fn(|cx| service.poll_ready(cx)).await?;
    let mut response = service.call(call).await?;
    add(response.headers_mut(), &answer.response_headers);
    Ok(response)
}

fn over_limit(answer: &messages::LimitAnswer) -> Error {
    let mut error = Error::new(Reason::RateLimited, SentPart::Nothing);
    let mut headers = Fields::new();
    headers.insert("x-envoy-ratelimited", HeaderValue::from_static("true"));
    // The descriptor that is over its limit for the longest time: only after that all have room.
    let over = answer.statuses.iter().filter(|status| status.over_limit);
    if let Some(status) = over.max_by_key(|status| status.reset) {
        if let Some(limit) = status.limit {
            headers.insert("ratelimit-limit", limit);
        }
        headers.insert("ratelimit-remaining", status.remaining);
        if let Some(reset) = status.reset {
            headers.insert("ratelimit-reset", reset.as_secs());
            error.retry_after = Some(reset.max(Duration::from_secs(1)));
        }
    }
    add(&mut headers, &answer.response_headers);
    error.headers = Some(Box::new(headers));
    error
}

/// Adds headers from the service, except those that say where a message ends (RFC 9112 section 11.2).
fn add(headers: &mut Fields, added: &[(Vec<u8>, Vec<u8>)]) {
    for (name, value) in added {
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
            continue;
        };
        if !is_framing(name.as_str()) {
            headers.insert(name, value);
        }
    }
}

pin_project! {
    /// The future of [`GlobalLimit`].
    pub struct GlobalLimitFuture<F> {
        #[pin]
        step: GlobalLimitStep<F>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum GlobalLimitStep<F> {
        Through { #[pin] future: F },
        // The request to the service, and the call that continues after it.
        Asked { future: BoxFuture },
    }
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for GlobalLimitFuture<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().step.project() {
            StepProjection::Through { future } => future.poll(cx),
            StepProjection::Asked { future } => future.as_mut().poll(cx),
        }
    }
}
