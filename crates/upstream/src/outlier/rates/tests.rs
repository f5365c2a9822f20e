use std::{sync::Arc, time::Duration};

use attache_config::model;
use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::{
    EndpointFailure, Outcome, outlier,
    test_support::{attempt, context, spec, upstream},
};

const FAILED: Outcome = Outcome::Failed(EndpointFailure::Answer(StatusCode::INTERNAL_SERVER_ERROR));

fn shared(endpoints: u16, ejection: OutlierEjection) -> Arc<SharedUpstream> {
    // Rows of failures belong to another rule.
    let ejection = OutlierEjection { consecutive_5xx: 0, consecutive_local: 0, ..ejection };
    let shared =
        SharedUpstream::new(Arc::new(model::Upstream { outlier_ejection: ejection, ..upstream("orders") }));
    shared.replace_endpoints((1..=endpoints).map(spec).collect(), None);
    Arc::new(shared)
}

/// One interval with a number of requests and of failures for each endpoint. Returns the endpoints that are out after
/// it.
fn interval(shared: &Arc<SharedUpstream>, requests: &[(u32, u32)]) -> Vec<usize> {
    let set = shared.endpoints.load_full();
    let now = Instant::now();
    for (endpoint, (begun, failed)) in set.endpoints.iter().zip(requests) {
        for n in 0..*begun {
            attempt(shared, endpoint, &context()).end(if n < *failed { FAILED } else { Outcome::Success });
        }
    }
    judge(shared, now);
    let ejected = set.endpoints.iter().enumerate().filter(|(_, endpoint)| !endpoint.usable());
    ejected.map(|(index, _)| index).collect()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_far_below_the_others_is_ejected() {
    let shared = shared(5, OutlierEjection::default());
    judge(&shared, Instant::now());
    let good = (100, 0);
    // One of five can be at most two deviations away, so only a factor of 1.9 finds it.
    assert_eq!(interval(&shared, &[good, good, (100, 10), good, good]), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_comparison_needs_five_endpoints_with_a_hundred_requests_each() {
    let few = shared(4, OutlierEjection::default());
    judge(&few, Instant::now());
    assert!(interval(&few, &[(100, 100), (100, 0), (100, 0), (100, 0)]).is_empty());
    let five = shared(5, OutlierEjection::default());
    judge(&five, Instant::now());
    let good = (100, 0);
    assert!(interval(&five, &[good, good, (99, 99), good, good]).is_empty());
    assert!(interval(&five, &[good, good, (99, 99), good, good]).is_empty(), "each interval stands alone");
    assert_eq!(interval(&five, &[good, good, (100, 100), good, good]), [2]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_fail_alike_stay() {
    let shared = shared(6, OutlierEjection::default());
    judge(&shared, Instant::now());
    assert!(interval(&shared, &[(200, 120); 6]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_percentage_is_judged_whatever_the_others_do() {
    let percentage = Some(FailurePercentage { minimum_hosts: 2, ..FailurePercentage::default() });
    let config = OutlierEjection {
        success_rate: None,
        failure_percentage: percentage,
        max_percent: 0.5,
        ..OutlierEjection::default()
    };
    let shared = shared(4, config);
    judge(&shared, Instant::now());
    assert_eq!(interval(&shared, &[(100, 85), (100, 84), (49, 49), (50, 43)]), [0, 3]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_where_no_rule_could_apply() {
    let few = shared(4, OutlierEjection::default());
    judge(&few, Instant::now());
    let set = few.endpoints.load_full();
    drop(attempt(&few, &set.endpoints[0], &context()));
    assert_eq!(set.endpoints[0].passive.rates.begun.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn rates_are_judged_at_each_interval_by_the_task_that_ends_ejections() {
    let shared = shared(5, OutlierEjection::default());
    let watched = shared.clone();
    let task = tokio::spawn(async move { outlier::run(&watched).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let set = shared.endpoints.load_full();
    for endpoint in &set.endpoints {
        for _ in 0..100 {
            drop(attempt(&shared, endpoint, &context()));
        }
    }
    for _ in 0..50 {
        outlier::report(&shared, &set.endpoints[4], FAILED, Instant::now());
    }
    tokio::time::sleep(Duration::from_millis(8_990)).await;
    assert!(set.endpoints[4].usable());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!set.endpoints[4].usable());
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(set.endpoints[4].usable(), "and back after the time of a first ejection");
    task.abort();
}

proptest! {
    #[test]
    fn rates_never_eject_more_than_the_share_nor_the_last(
        intervals in prop::collection::vec(prop::collection::vec((0..300u32, 0..300u32), 12), 1..6),
        endpoints in 1..12usize,
        percent in 0.0..=1.0f64,
    ) {
        let config = OutlierEjection {
            max_percent: percent,
            success_rate: Some(SuccessRate { minimum_hosts: 0, request_volume: 0, stdev_factor: 500 }),
            failure_percentage: Some(FailurePercentage { minimum_hosts: 0, request_volume: 0, threshold: 0.1 }),
            ..OutlierEjection::default()
        };
        let shared = shared(endpoints.try_into().unwrap(), config);
        judge(&shared, Instant::now());
        for requests in intervals {
            let out = interval(&shared, &requests[..endpoints]);
            prop_assert!(out.len() < endpoints, "the last one went");
            prop_assert!(out.len() <= outlier::allowed(endpoints, percent));
        }
    }
}
