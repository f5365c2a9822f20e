//! Every try's end is told to ejection: which endpoint answered, failed, or said nothing.
//!
//! It stands below the per-try deadline, so that each try is judged once: by its end here, or by the deadline that cut it.
//! A healthy upstream pays one load of a flag for it: a success matters only to an endpoint that failed before.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use attache_http::Body;
use attache_telemetry::Exchange;
use attache_upstream::{Call, Error, outlier::Outcome};
use http::Response;
use pin_project_lite::pin_project;
use tower::Service;

use crate::UpstreamState;

/// Reports the end of each try.
#[derive(Clone, Debug)]
pub struct Judge<S> {
    inner: S,
    state: Arc<UpstreamState>,
}

impl<S> Judge<S> {
    /// Watches the tries of an upstream's service.
    pub fn new(inner: S, state: Arc<UpstreamState>) -> Self {
        Self { inner, state }
    }
}

impl<S> Service<Call> for Judge<S>
where
    S: Service<Call, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = JudgeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let exchange = call.context.exchange.clone();
        JudgeFuture { inner: self.inner.call(call), exchange, state: self.state.clone() }
    }
}

pin_project! {
    /// The future of [`Judge`].
    pub struct JudgeFuture<F> {
        #[pin]
        inner: F,
        exchange: Rc<Exchange>,
        state: Arc<UpstreamState>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Error>>> Future for JudgeFuture<F> {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let end = ready!(this.inner.poll(cx));
        if let Some(outcome) = Outcome::of(&end) {
            this.state.judge(this.exchange, outcome);
        }
        Poll::Ready(end)
    }
}

#[cfg(test)]
mod tests {
    use attache_config::model::{Policy, Retry};
    use attache_telemetry::Reason;
    use attache_upstream::Sent;

    use super::*;
    use crate::{
        stack,
        testing::{Script, get, respond, state},
    };

    fn policy() -> Policy {
        Policy { retry: Retry { attempts: 0, ..Retry::default() }, ..Policy::default() }
    }

    async fn send(state: &Arc<UpstreamState>, script: Script) {
        let _ = stack(&policy(), state, script).call(get()).await;
    }

    fn ejected(state: &UpstreamState) -> Vec<String> {
        let set = state.shared.endpoints.load();
        set.endpoints.iter().filter(|e| !e.usable()).map(|e| e.label.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn five_failures_in_a_row_eject_the_endpoint_that_made_them() {
        let state = state();
        for n in 0..9 {
            assert!(ejected(&state).is_empty());
            match n {
                4 => send(&state, Script::default().answer(2, || Ok(respond(200)))).await,
                0 | 5 => {
                    let refused = || Err(Error::new(Reason::ConnectRefused, Sent::Nothing));
                    send(&state, Script::default().answer(2, refused)).await;
                }
                _ => send(&state, Script::default().answer(2, || Ok(respond(500)))).await,
            }
            send(&state, Script::default().answer(3, || Ok(respond(200)))).await;
        }
        send(&state, Script::default().answer(2, || Ok(respond(503)))).await;
        assert_eq!(ejected(&state), ["10.0.0.1:2"]);
    }
}
