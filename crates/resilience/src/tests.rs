//! What an attempt tells its judges, through all layers.

use std::{sync::Arc, time::Duration};

use attache_config::model::{CircuitBreaker, FailureBreaker, Policy, Retry};
use attache_telemetry::Reason;
use attache_upstream::{Error, SentPart};

use tower::Service;

use crate::{
    UpstreamState,
    breaker::BreakerState,
    stack,
    testing::{FakeUpstream, call, get, respond, state, state_of, upstream},
};

fn policy() -> Policy {
    Policy { retry: Retry { attempts: 0, ..Retry::default() }, ..Policy::default() }
}

async fn send(state: &Arc<UpstreamState>, script: FakeUpstream) {
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
            4 => send(&state, FakeUpstream::default().answer(2, || Ok(respond(200)))).await,
            0 | 5 => {
                let reset = || Err(Error::new(Reason::UpstreamReset, SentPart::Request));
                send(&state, FakeUpstream::default().answer(2, reset)).await;
            }
            _ => send(&state, FakeUpstream::default().answer(2, || Ok(respond(500)))).await,
        }
        send(&state, FakeUpstream::default().answer(3, || Ok(respond(200)))).await;
    }
    send(&state, FakeUpstream::default().answer(2, || Ok(respond(503)))).await;
    assert_eq!(ejected(&state), ["10.0.0.1:2"]);
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_short_deadline_is_a_failure_for_no_judge() {
    let failures = FailureBreaker { consecutive: 2, ..FailureBreaker::default() };
    let circuit_breaker = CircuitBreaker {
        failures: Some(failures.clone()),
        endpoint_failures: Some(failures),
        ..CircuitBreaker::default()
    };
    for (timeout, opens) in [("20m", false), ("30S", true)] {
        let state = state_of(attache_config::model::Upstream {
            circuit_breaker: circuit_breaker.clone(),
            ..upstream()
        });
        for _ in 0..10 {
            let hangs = FakeUpstream::default().at(2, |_| std::future::pending());
            let request = http::Request::post("http://orders/").header("grpc-timeout", timeout);
            let asked = call(request.body(attache_http::Body::empty()).unwrap());
            let _ = stack(&policy(), &state, hangs).call(asked).await;
        }
        assert_eq!(state.breaker.as_ref().unwrap().phase() != BreakerState::Closed, opens, "{timeout}");
        assert_eq!(!ejected(&state).is_empty(), opens, "{timeout}");
        let set = state.shared.endpoints.load();
        let failures: u64 = set.endpoints.iter().map(|endpoint| endpoint.passive.failures()).sum();
        assert_eq!(failures > 0, opens, "{timeout}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_before_the_deadline_says_nothing() {
    let state = state();
    for _ in 0..10 {
        let hangs = FakeUpstream::default().at(2, |_| std::future::pending());
        let _ =
            tokio::time::timeout(Duration::from_secs(1), stack(&policy(), &state, hangs).call(get())).await;
    }
    assert!(ejected(&state).is_empty());
}
