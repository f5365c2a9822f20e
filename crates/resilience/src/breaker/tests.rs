use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use attache_config::model::{CircuitBreaker, FailureBreaker, Policy, Retry, RetryOn};
use tokio::time::sleep;

use super::*;
use crate::{
    stack,
    testing::{FakeUpstream, get, respond, state_of, upstream},
};

const SECOND: Duration = Duration::from_secs(1);

fn breaking(config: FailureBreaker) -> Arc<UpstreamState> {
    let circuit_breaker = CircuitBreaker { failures: Some(config), ..CircuitBreaker::default() };
    state_of(attache_config::model::Upstream { circuit_breaker, ..upstream() })
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_answers_without_the_upstream_and_is_not_retried() {
    let metrics = attache_telemetry::Metrics::new();
    metrics.worker().install();
    let state = breaking(FailureBreaker { consecutive: 2, ..FailureBreaker::default() });
    let retry = Retry { attempts: 5, on: vec![RetryOn::ServerError], ..Retry::default() };
    let policy = Policy { retry, ..Policy::default() };
    // The retry counts as well: after two attempts the third finds the breaker open.
    let script = FakeUpstream::default().answer(1, || Ok(respond(503))).answer(2, || Ok(respond(503)));
    let error = stack(&policy, &state, script.clone()).call(get()).await.unwrap_err();
    assert_eq!((error.reason, error.sent, script.attempts()), (Reason::CircuitOpen, SentPart::Nothing, 2));
    assert!(error.retry_after.is_some_and(|wait| wait > Duration::ZERO));
    assert_eq!(state.counters.circuit_open.load(Relaxed), 1);
    let sample = "attache_upstream_overflow_total{upstream=\"orders\",reason=\"circuit-open\"} 1";
    assert!(metrics.render().contains(sample));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_by_the_deadline_is_a_failure_and_one_that_is_given_up_is_not() {
    for (given_up_after, opens) in [(20, true), (10, false)] {
        let state = breaking(FailureBreaker { consecutive: 1, ..FailureBreaker::default() });
        let script = FakeUpstream::default().then(|_| std::future::pending());
        let mut service = stack(&Policy::default(), &state, script);
        tokio::select! {
            _ = service.call(get()) => {}
            () = sleep(given_up_after * SECOND) => {}
        }
        let phase = state.breaker.as_ref().unwrap().phase();
        assert_eq!(phase != BreakerState::Closed, opens);
    }
}
