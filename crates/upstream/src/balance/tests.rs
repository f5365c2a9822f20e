use std::{collections::HashMap, sync::Arc, time::Duration};

use attache_config::model::{Algorithm, Balance, OutlierEjection, Upstream};
use attache_telemetry::Reason;
use attache_wire::Fields;
use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::{
    Attempt, EndpointSpec,
    test_support::{attempt, context, spec, upstream},
};

fn balance(algorithm: Algorithm) -> Balance {
    Balance { algorithm, ..Balance::default() }
}

fn ring() -> Algorithm {
    Algorithm::RingHash
}

fn maglev() -> Algorithm {
    Algorithm::Maglev
}

fn all_algorithms() -> [Algorithm; 6] {
    let plain = [Algorithm::LeastRequest, Algorithm::PeakEwma, Algorithm::RoundRobin, Algorithm::Random];
    let [a, b, c, d] = plain;
    [a, b, c, d, ring(), maglev()]
}

fn specs(count: u16) -> Vec<EndpointSpec> {
    (1..=count).map(spec).collect()
}

fn endpoint(shared: &SharedUpstream, at: usize) -> Arc<Endpoint> {
    shared.endpoints.load().endpoints[at].clone()
}

/// An upstream that ejects no endpoint.
fn shared(balance: Balance, specs: Vec<EndpointSpec>) -> Arc<SharedUpstream> {
    let never = OutlierEjection { consecutive_5xx: 0, consecutive_local: 0, ..OutlierEjection::default() };
    let shared =
        SharedUpstream::new(Arc::new(Upstream { balance, outlier_ejection: never, ..upstream("test") }));
    shared.replace_endpoints(specs, None);
    Arc::new(shared)
}

/// An attempt that runs on this endpoint.
fn in_flight(shared: &Arc<SharedUpstream>, endpoint: Arc<Endpoint>) -> Attempt {
    attempt(shared, &endpoint, &context())
}

fn answer(request: &mut Attempt, success: bool) {
    let status = if success { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    request.answered(status, &Fields::new());
}

/// Shares of picks by label, with a hash of its own for each pick.
fn shares(shared: &SharedUpstream, picks: u32) -> HashMap<String, f64> {
    let mut balancer = Balancer::new(&shared.config.balance, 7);
    let mut counts: HashMap<String, f64> = HashMap::new();
    for n in 0..picks {
        let chosen = balancer.pick(shared, Some(hash_bytes(&n.to_be_bytes())), &[]).unwrap();
        *counts.entry(chosen.label.to_string()).or_default() += 1.0 / f64::from(picks);
    }
    counts
}

fn share(shares: &HashMap<String, f64>, n: u16) -> f64 {
    shares.get(&spec(n).address.to_string()).copied().unwrap_or(0.0)
}

#[tokio::test]
async fn every_algorithm_shares_an_idle_upstream_by_weight() {
    for algorithm in all_algorithms() {
        let weights = [1_u32, 2, 5];
        let specs = (1..).zip(weights).map(|(n, weight)| EndpointSpec { weight, ..spec(n) }).collect();
        let shared = shared(balance(algorithm.clone()), specs);
        let got = shares(&shared, 40_000);
        for (n, weight) in (1..).zip(weights) {
            let (got, want) = (share(&got, n), f64::from(weight) / 8.0);
            // A ring with 160 points for each endpoint is always a little uneven.
            let bound = if algorithm == ring() { 0.08 } else { 0.02 };
            assert!((got - want).abs() < bound, "{algorithm:?}: {n} got {got}, wanted {want}");
        }
    }
}

#[tokio::test]
async fn round_robin_gives_every_endpoint_its_turn_before_one_gets_a_second() {
    let shared = shared(balance(Algorithm::RoundRobin), specs(5));
    let mut balancer = Balancer::new(&shared.config.balance, 1);
    for _ in 0..3 {
        let mut round: Vec<_> =
            (0..5).map(|_| balancer.pick(&shared, None, &[]).unwrap().label.clone()).collect();
        round.sort();
        round.dedup();
        assert_eq!(round.len(), 5);
    }
}

#[tokio::test]
async fn workers_do_not_march_in_step() {
    let shared = shared(balance(Algorithm::RoundRobin), specs(50));
    let first = |seed| Balancer::new(&shared.config.balance, seed).pick(&shared, None, &[]).unwrap();
    let firsts: std::collections::HashSet<_> = (0..20).map(|seed| first(seed).label.clone()).collect();
    assert!(firsts.len() > 10, "{} different beginnings of 20", firsts.len());
}

#[tokio::test]
async fn least_request_avoids_the_loaded_endpoint() {
    let shared = shared(balance(Algorithm::LeastRequest), specs(2));
    endpoint(&shared, 0).active.store(3, Relaxed);
    assert!(share(&shares(&shared, 1000), 2) > 0.999);
    // Three requests on weight 10 are less than one on weight 1.
    let weighed = vec![EndpointSpec { weight: 10, ..spec(1) }, spec(2)];
    shared.replace_endpoints(weighed, None);
    endpoint(&shared, 1).active.store(1, Relaxed);
    assert!(share(&shares(&shared, 1000), 1) > 0.999);
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_prefers_the_fast_endpoint_and_comes_back_to_the_slow_one_in_time() {
    let shared = shared(balance(Algorithm::PeakEwma), specs(2));
    for (at, latency) in [(0, 10), (1, 500)] {
        let mut request = in_flight(&shared, endpoint(&shared, at));
        tokio::time::advance(Duration::from_millis(latency)).await;
        answer(&mut request, true);
    }
    assert!(share(&shares(&shared, 1000), 1) > 0.999);
    // The fast endpoint gets requests all the time, and the estimate of the slow one fades with tau = 10 s.
    tokio::time::advance(Duration::from_secs(60)).await;
    let mut request = in_flight(&shared, endpoint(&shared, 0));
    tokio::time::advance(Duration::from_millis(10)).await;
    answer(&mut request, true);
    drop(request);
    assert!(share(&shares(&shared, 1000), 2) > 0.999);
}

#[tokio::test(start_paused = true)]
async fn a_fast_failure_does_not_attract_traffic() {
    let shared = shared(balance(Algorithm::PeakEwma), specs(2));
    for (at, latency, success) in [(0, 200, true), (1, 1, false)] {
        let mut request = in_flight(&shared, endpoint(&shared, at));
        tokio::time::advance(Duration::from_millis(latency)).await;
        answer(&mut request, success);
    }
    assert!(share(&shares(&shared, 1000), 1) > 0.999);
}

/// The share of an endpoint that fails within a millisecond, beside two that take 20 ms, at 300 requests a second for a
/// minute. Its failures are reported as failures, or as successes.
async fn share_of_a_fast_failure(algorithm: Algorithm, honest: bool) -> f64 {
    let shared = shared(balance(algorithm), specs(3));
    let failing = endpoint(&shared, 2);
    let mut balancer = Balancer::new(&shared.config.balance, 11);
    let mut running: std::collections::VecDeque<(u32, bool, Attempt)> = std::collections::VecDeque::new();
    let (mut sent, mut failed) = (0, 0);
    for ms in 0..70_000_u32 {
        tokio::time::advance(Duration::from_millis(1)).await;
        running.retain_mut(|(until, success, request)| {
            if *until <= ms {
                answer(request, *success || !honest);
            }
            *until > ms
        });
        if ms * 3 % 10 >= 3 {
            continue;
        }
        let picked = balancer.pick(&shared, None, &[]).unwrap();
        let fails = Arc::ptr_eq(&picked, &failing);
        if ms >= 10_000 {
            sent += 1;
            failed += u32::from(fails);
        }
        running.push_back((ms + if fails { 1 } else { 20 }, !fails, in_flight(&shared, picked)));
    }
    f64::from(failed) / f64::from(sent)
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_attracts_traffic_only_if_failures_do_not_count_as_load() {
    for algorithm in [Algorithm::LeastRequest, Algorithm::PeakEwma] {
        let biased = share_of_a_fast_failure(algorithm.clone(), true).await;
        let naive = share_of_a_fast_failure(algorithm.clone(), false).await;
        println!(
            "{algorithm:?}: {:.1} % of the traffic fails, {:.1} % without the bias",
            biased * 100.0,
            naive * 100.0
        );
        assert!(biased < 0.02, "{algorithm:?}: {biased}");
        assert!(naive > 0.4, "{algorithm:?}: {naive}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_counts_as_a_running_request_that_fades_with_time_and_success() {
    let shared = shared(balance(Algorithm::LeastRequest), specs(2));
    let [bad, good] = [0, 1].map(|at| endpoint(&shared, at));
    let end = |success: bool| answer(&mut in_flight(&shared, bad.clone()), success);
    end(true);
    assert!(bias::load(&bad) == 0.0);
    (0..3).for_each(|_| end(false));
    assert!((bias::load(&bad) - 3.0).abs() < 1e-6);
    good.active.store(2, Relaxed);
    assert!(share(&shares(&shared, 1000), 2) > 0.999, "three failures count more than two requests");
    good.active.store(4, Relaxed);
    assert!(share(&shares(&shared, 1000), 1) > 0.999, "three failures count less than four requests");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!((bias::load(&bad) - 3.0 / std::f64::consts::E).abs() < 1e-6);
    (0..11).for_each(|_| end(true));
    assert!((bias::load(&bad) - 3.0 / std::f64::consts::E * (15.0_f64 / 16.0).powi(11)).abs() < 1e-6);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert!(bias::load(&bad) == 0.0, "a bias below a tenth becomes zero");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_never_measured_gets_one_request_at_a_time() {
    let shared = shared(balance(Algorithm::PeakEwma), specs(2));
    let mut known = in_flight(&shared, endpoint(&shared, 0));
    tokio::time::advance(Duration::from_millis(10)).await;
    answer(&mut known, true);
    assert!(share(&shares(&shared, 100), 2) > 0.999, "an unknown endpoint without requests has no cost");
    let _running = in_flight(&shared, endpoint(&shared, 1));
    assert!(
        share(&shares(&shared, 100), 1) > 0.999,
        "an unknown endpoint with a request has the highest cost"
    );
}

#[tokio::test]
async fn a_request_counts_until_its_guard_is_dropped() {
    let shared = shared(balance(Algorithm::LeastRequest), specs(1));
    let request = in_flight(&shared, endpoint(&shared, 0));
    assert_eq!(endpoint(&shared, 0).active.load(Relaxed), 1);
    drop(request);
    assert_eq!(endpoint(&shared, 0).active.load(Relaxed), 0);
}

#[tokio::test]
async fn maglev_fills_every_slot_by_weight() {
    let specs: Vec<_> = (1..=7).map(|n| EndpointSpec { weight: u32::from(n), ..spec(n) }).collect();
    let shared = shared(balance(Algorithm::Random), specs);
    let set = shared.endpoints.load();
    let members: Vec<u32> = (0..7).collect();
    let maglev = maglev::Maglev::build(&members, &set.endpoints);
    assert_eq!(maglev.slots.len(), maglev::SLOTS);
    for (member, endpoint) in (0..).zip(&set.endpoints) {
        let slots = maglev.slots.iter().filter(|&&slot| slot == member).count() as f64;
        let want = maglev::SLOTS as f64 * f64::from(endpoint.weight()) / 28.0;
        assert!((slots - want).abs() <= 2.0, "{slots} slots, wanted {want}");
    }
}

/// Where 20,000 keys go.
fn homes(shared: &SharedUpstream) -> Vec<Arc<str>> {
    let mut balancer = Balancer::new(&shared.config.balance, 3);
    let key = |n: u32| hash_bytes(&n.to_be_bytes());
    (0..20_000).map(|n| balancer.pick(shared, Some(key(n)), &[]).unwrap().label.clone()).collect()
}

#[tokio::test]
async fn when_an_endpoint_leaves_or_fails_a_consistent_hash_moves_hardly_more_than_its_keys() {
    for (algorithm, disturbed) in [(ring(), 0.0), (maglev(), 0.03)] {
        let shared = shared(balance(algorithm.clone()), specs(10));
        let before = homes(&shared);
        assert_eq!(before, homes(&shared), "the same key, the same endpoint");
        let lost = spec(4).address.to_string();
        let moved = |after: &[Arc<str>]| {
            let others = before.iter().zip(after).filter(|(b, a)| b != a && ***b != *lost);
            others.count() as f64 / before.len() as f64
        };
        endpoint(&shared, 3).set_healthy(false);
        let unhealthy = homes(&shared);
        assert!(
            moved(&unhealthy) < f64::EPSILON,
            "{algorithm:?}: only the keys of the unhealthy endpoint move"
        );
        assert!(!unhealthy.iter().any(|label| **label == *lost));
        shared.replace_endpoints(
            specs(10).into_iter().filter(|s| s.address != spec(4).address).collect(),
            None,
        );
        assert!(moved(&homes(&shared)) <= disturbed, "{algorithm:?}: {}", moved(&homes(&shared)));
    }
}

#[tokio::test]
async fn a_tier_hands_over_the_traffic_that_its_health_does_not_allow() {
    let tiers = |n| EndpointSpec { priority: u8::from(n > 10), ..spec(n) };
    for algorithm in all_algorithms() {
        let shared = shared(balance(algorithm.clone()), (1..=20).map(tiers).collect());
        let first_tier = |shared: &SharedUpstream| {
            let got = shares(shared, 10_000);
            (1..=10).map(|n| share(&got, n)).sum::<f64>()
        };
        for at in 0..2 {
            endpoint(&shared, at).set_healthy(false);
        }
        assert!(
            first_tier(&shared) > 0.9999,
            "{algorithm:?}: a tier with 80 % healthy endpoints gets all traffic"
        );
        for at in 2..5 {
            endpoint(&shared, at).set_ejected(true);
        }
        let got = first_tier(&shared);
        assert!(
            (got - 0.7).abs() < 0.02,
            "{algorithm:?}: a tier with half of its endpoints gets 1.4 x 50 %, got {got}"
        );
        for at in 5..10 {
            endpoint(&shared, at).set_healthy(false);
        }
        assert!(
            first_tier(&shared) < 0.0001,
            "{algorithm:?}: a tier without healthy endpoints gets nothing while another tier is healthy"
        );
        for at in 0..10 {
            endpoint(&shared, at).set_healthy(true);
            endpoint(&shared, at).set_ejected(false);
        }
        assert!(first_tier(&shared) > 0.9999, "{algorithm:?}: a recovered tier gets its traffic at once");
    }
}

#[tokio::test]
async fn below_the_panic_threshold_all_endpoints_are_used() {
    for algorithm in all_algorithms() {
        let shared = shared(balance(algorithm.clone()), specs(10));
        for at in 0..6 {
            endpoint(&shared, at).set_healthy(false);
        }
        let got = shares(&shared, 20_000);
        let unhealthy: f64 = (1..=6).map(|n| share(&got, n)).sum();
        assert!((unhealthy - 0.6).abs() < 0.1, "{algorithm:?}: {unhealthy}");
        endpoint(&shared, 0).set_healthy(true);
        let got = shares(&shared, 2000);
        assert!(
            (2..=6).all(|n| share(&got, n) == 0.0),
            "{algorithm:?}: half of the endpoints is enough: no unhealthy one is used"
        );
    }
}

#[tokio::test]
async fn without_a_panic_threshold_no_healthy_endpoint_is_an_error() {
    for algorithm in all_algorithms() {
        let shared = shared(Balance { panic_threshold: 0.0, ..balance(algorithm) }, specs(3));
        (0..3).for_each(|at| {
            endpoint(&shared, at).set_healthy(false);
        });
        let mut balancer = Balancer::new(&shared.config.balance, 1);
        assert_eq!(balancer.pick(&shared, None, &[]).unwrap_err(), Reason::NoHealthyEndpoint);
        endpoint(&shared, 1).set_healthy(true);
        assert_eq!(balancer.pick(&shared, None, &[]).unwrap().address, spec(2).address);
    }
}

#[tokio::test]
async fn without_endpoints_the_reason_is_that_of_the_look_up() {
    let shared = shared(Balance::default(), Vec::new());
    let mut balancer = Balancer::new(&shared.config.balance, 1);
    assert_eq!(balancer.pick(&shared, None, &[]).unwrap_err(), Reason::NoEndpoint);
    shared.replace_endpoints(Vec::new(), Some(Reason::DnsNxdomain));
    assert_eq!(balancer.pick(&shared, None, &[]).unwrap_err(), Reason::DnsNxdomain);
}

#[tokio::test]
async fn the_own_zone_gets_what_it_can_carry() {
    let zoned = |n: u16| {
        let zone = if n <= 4 { "a" } else { "b" };
        EndpointSpec { zone: Some(zone.into()), ..spec(n) }
    };
    for algorithm in [Algorithm::LeastRequest, Algorithm::PeakEwma, Algorithm::RoundRobin, Algorithm::Random]
    {
        let balance = Balance { zone: Some("a".into()), ..balance(algorithm.clone()) };
        let shared = shared(balance, (1..=12).map(zoned).collect());
        let own = |shared: &SharedUpstream| {
            let got = shares(shared, 10_000);
            (1..=4).map(|n| share(&got, n)).sum::<f64>()
        };
        assert!(own(&shared) > 0.9999, "{algorithm:?}");
        endpoint(&shared, 0).set_healthy(false);
        endpoint(&shared, 1).set_healthy(false);
        let got = own(&shared);
        assert!((got - 0.7).abs() < 0.02, "{algorithm:?}: half of the zone carries 70 %, got {got}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_or_recovered_endpoint_starts_slowly() {
    for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random] {
        let balance = Balance { slow_start: Duration::from_secs(100), ..balance(algorithm.clone()) };
        let shared = shared(balance, specs(3));
        tokio::time::advance(Duration::from_secs(200)).await;
        shared.replace_endpoints(specs(4), None);
        tokio::time::advance(Duration::from_secs(50)).await;
        // Half of a weight of 1, beside three whole ones.
        let got = share(&shares(&shared, 20_000), 4);
        assert!((got - 0.5 / 3.5).abs() < 0.02, "{algorithm:?}: {got}");
        tokio::time::advance(Duration::from_secs(50)).await;
        let got = share(&shares(&shared, 20_000), 4);
        assert!((got - 0.25).abs() < 0.02, "{algorithm:?}: {got}");
        endpoint(&shared, 3).set_ejected(true);
        endpoint(&shared, 3).set_ejected(false);
        let got = share(&shares(&shared, 20_000), 4);
        assert!((got - 0.1 / 3.1).abs() < 0.02, "{algorithm:?}: a tenth at the beginning, got {got}");
    }
}

#[tokio::test]
async fn a_retry_takes_another_endpoint_even_of_another_tier_and_the_same_if_there_is_no_other() {
    for algorithm in all_algorithms() {
        let specs = vec![spec(1), EndpointSpec { priority: 1, ..spec(2) }];
        let shared = shared(balance(algorithm.clone()), specs);
        let mut balancer = Balancer::new(&shared.config.balance, 1);
        let (first, second) = (endpoint(&shared, 0), endpoint(&shared, 1));
        let picked = balancer.pick(&shared, Some(1), std::slice::from_ref(&first)).unwrap();
        assert!(Arc::ptr_eq(&picked, &second), "{algorithm:?}");
        let picked = balancer.pick(&shared, Some(1), &[first, second]);
        assert!(picked.is_ok(), "{algorithm:?}: if all endpoints were tried, one of them is used again");
    }
}

#[tokio::test]
async fn a_thousand_endpoints_with_one_healthy_still_find_it() {
    let balance = Balance { panic_threshold: 0.0, ..balance(Algorithm::LeastRequest) };
    let shared = shared(balance, specs(1000));
    (0..1000).filter(|at| *at != 617).for_each(|at| {
        endpoint(&shared, at).set_healthy(false);
    });
    assert!((share(&shares(&shared, 500), 618) - 1.0).abs() < 1e-9);
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    (0..6_usize).prop_map(|n| all_algorithms()[n].clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Health is written here without a change of the epoch, so the balancer isn't informed.
    #[test]
    fn an_unusable_endpoint_is_never_picked_while_a_usable_one_exists(
        algorithm in algorithms(),
        endpoints in proptest::collection::vec((1_u32..5, 0_u8..3, 0_u8..3, any::<bool>(), any::<bool>()), 1..40),
        zone in proptest::option::of(0_u8..3),
        seed: u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let name = |zone: u8| Some(Arc::from(format!("z{zone}")));
        let specs = (1..).zip(&endpoints).map(|(n, &(weight, priority, zone, ..))| {
            EndpointSpec { weight, priority, zone: name(zone), ..spec(n) }
        });
        let balance = Balance { panic_threshold: 0.0, zone: zone.and_then(name), ..balance(algorithm) };
        let shared = shared(balance, specs.collect());
        let mut balancer = Balancer::new(&shared.config.balance, seed);
        balancer.pick(&shared, None, &[]).unwrap();
        let set = shared.endpoints.load_full();
        for (endpoint, &(_, _, _, healthy, ejected)) in set.endpoints.iter().zip(&endpoints) {
            endpoint.healthy.store(healthy, Relaxed);
            endpoint.ejected.store(ejected, Relaxed);
        }
        let mut tried = Vec::new();
        for _ in 0..60 {
            let hash = balancer.rng.u64(..);
            match balancer.pick(&shared, Some(hash), &tried) {
                Ok(picked) => {
                    prop_assert!(picked.usable());
                    let all_tried = set.endpoints.iter().filter(|e| e.usable()).all(|e| {
                        tried.iter().any(|tried| Arc::ptr_eq(tried, e))
                    });
                    prop_assert!(all_tried || !tried.iter().any(|tried| Arc::ptr_eq(tried, &picked)));
                    if tried.len() < 3 {
                        tried.push(picked);
                    } else {
                        tried.clear();
                    }
                }
                Err(reason) => {
                    prop_assert_eq!(reason, Reason::NoHealthyEndpoint);
                    prop_assert_eq!(set.usable(), 0);
                }
            }
        }
    }
}
