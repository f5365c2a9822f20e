//! Refresh and merging, under paused time and with scripted answers.

use attache_config::model::Dns;
use proptest::prelude::*;

use super::*;
use crate::discovery::merge::Merge;

/// Runs one name's refresh without jitter until `seconds` have passed.
async fn run(lookup: &Arc<ScriptedLookup>, seconds: u64) -> Arc<SharedUpstream> {
    let sources = vec![source(dns_name("orders"))];
    let shared = shared_of(sources.clone());
    let _discovery = start_sources(shared.clone(), sources, lookup, &Schedule::new(&Dns::default()).exact());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    shared
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_when_its_ttl_ends_between_the_minimum_and_the_maximum() {
    let script =
        ScriptedLookup::new([good(60, &["10.0.0.1"]), good(0, &["10.0.0.1"]), good(86400, &["10.0.0.2"])]);
    let shared = run(&script, 700).await;
    // 60 s, then the floor of 1 s, then the ceiling of 5 min.
    assert_eq!(script.asked_at(), [0, 60, 61, 361, 661]);
    assert_eq!(labels(&shared), ["10.0.0.2:80"]);
}

#[tokio::test(start_paused = true)]
async fn failures_keep_the_last_good_answer_and_back_off_until_it_works_again() {
    let script = ScriptedLookup::new([
        good(10, &["10.0.0.1"]),
        bad(Reason::DnsTimeout),
        bad(Reason::DnsTimeout),
        bad(Reason::DnsNxdomain),
        bad(Reason::DnsNxdomain),
        good(1000, &["10.0.0.2"]),
    ]);
    let sources = vec![source(dns_name("orders"))];
    let shared = shared_of(sources.clone());
    let _discovery = start_sources(shared.clone(), sources, &script, &Schedule::new(&Dns::default()).exact());
    tokio::time::sleep(Duration::from_millis(16_500)).await;
    assert_eq!(script.asked_at(), [0, 10, 11, 13], "1 s, 2 s, 4 s");
    let set = shared.endpoints.load_full();
    assert_eq!((labels(&shared), set.failure), (vec!["10.0.0.1:80".into()], Some(Reason::DnsNxdomain)));
    assert_eq!(set.generation, 1, "a failure begins no generation");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(script.asked_at(), [0, 10, 11, 13, 17, 22]);
    assert_eq!((labels(&shared), shared.endpoints.load().failure), (vec!["10.0.0.2:80".into()], None));
}

#[tokio::test(start_paused = true)]
async fn every_look_up_is_counted_by_its_outcome() {
    let metrics = attache_telemetry::Metrics::new();
    metrics.worker().install();
    let script =
        ScriptedLookup::new([good(1, &["10.0.0.1"]), bad(Reason::DnsTimeout), good(1000, &["10.0.0.1"])]);
    let shared = run(&script, 10).await;
    let page = metrics.render();
    for (outcome, count) in [("ok", 2), ("dns-timeout", 1)] {
        let name = &shared.config.name;
        let sample =
            format!("attache_dns_lookups_total{{upstream=\"{name}\",outcome=\"{outcome}\"}} {count}");
        assert!(page.contains(&sample), "{sample} in {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn back_off_ends_at_the_ceiling_and_starts_anew_after_a_good_answer() {
    let mut schedule = Schedule::new(&Dns::default()).exact();
    let waits: Vec<_> = (0..12).map(|_| schedule.next(&bad(Reason::DnsTimeout)).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5]);
    assert_eq!(schedule.next(&good(30, &["10.0.0.1"])).as_secs(), 30);
    assert_eq!(schedule.next(&bad(Reason::DnsTimeout)).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn ready_waits_for_the_first_look_up_of_every_source_whatever_its_result() {
    let sources = vec![source(dns_name("a")), source(dns_name("b"))];
    let shared = shared_of(sources);
    let script =
        ScriptedLookup::slow(Duration::from_secs(3), [bad(Reason::DnsTimeout), good(60, &["10.0.0.1"])]);
    let discovery = start(shared.clone(), script.clone(), &Dns::default());
    let before = Instant::now();
    discovery.ready().await;
    assert_eq!(before.elapsed(), Duration::from_secs(3));
    assert_eq!(labels(&shared), ["10.0.0.1:80"]);
    assert_eq!(shared.endpoints.load().failure, Some(Reason::DnsTimeout));
}

#[tokio::test(start_paused = true)]
async fn fixed_addresses_are_there_at_once_and_ready() {
    let sources = vec![
        source(EndpointTarget::Ip("10.0.0.9:1".parse().unwrap())),
        source(EndpointTarget::Unix("/run/x".into())),
    ];
    let shared = shared_of(sources);
    let script = ScriptedLookup::new([bad(Reason::DnsTimeout)]);
    let discovery = start(shared.clone(), script.clone(), &Dns::default());
    assert_eq!(labels(&shared), ["10.0.0.9:1", "unix:/run/x"]);
    discovery.ready().await;
    assert!(script.asked_at().is_empty());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_ends_the_refresh_and_leaves_the_endpoints() {
    let script = ScriptedLookup::new([good(1, &["10.0.0.1"])]);
    let shared = run(&script, 10).await;
    let asked = script.asked_at().len();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(script.asked_at().len(), asked);
    assert_eq!(shared.endpoints.load().usable(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_could_not_be_asked_keeps_its_addresses_and_is_asked_again_soon() {
    let gap = |answer: Result<LookupAnswer, LookupError>| {
        let failure = LookupError::new(Reason::DnsTimeout, "no AAAA");
        answer.map(|a| LookupAnswer {
            gaps: vec![LookupGap { name: "orders".into(), v6: Some(true), failure }],
            ..a
        })
    };
    let script = ScriptedLookup::new([good(100, &["10.0.0.1", "[::1]"]), gap(good(100, &["10.0.0.2"]))]);
    let shared = run(&script, 104).await;
    assert_eq!(labels(&shared), ["10.0.0.2:80", "[::1]:80"]);
    assert_eq!(script.asked_at(), [0, 100, 101, 103]);
}

fn merge_of(
    sources: Vec<EndpointSource>,
    answers: Vec<Result<LookupAnswer, LookupError>>,
) -> Arc<SharedUpstream> {
    let shared = shared_of(sources.clone());
    let mut merge = Merge::new(shared.clone(), sources);
    for (at, answer) in answers.into_iter().enumerate() {
        merge.take(at, answer);
    }
    shared
}

#[tokio::test]
async fn an_address_of_two_sources_is_one_endpoint() {
    let weighed = |weight, priority| EndpointSource { weight, priority, ..source(dns_name("orders")) };
    // Same priority: weights add up. Another: the lower number wins.
    let answers = || vec![good(1, &["10.0.0.1", "10.0.0.2"]), good(1, &["10.0.0.2", "10.0.0.3"])];
    let shared = merge_of(vec![weighed(2, 0), weighed(3, 0)], answers());
    assert_eq!(listed(&shared), ["10.0.0.1:80 2/0", "10.0.0.2:80 5/0", "10.0.0.3:80 3/0"]);
    let shared = merge_of(vec![weighed(2, 4), weighed(3, 1)], answers());
    assert_eq!(listed(&shared), ["10.0.0.1:80 2/4", "10.0.0.2:80 3/1", "10.0.0.3:80 3/1"]);
}

#[tokio::test]
async fn srv_priorities_rank_within_their_source_and_weights_multiply() {
    let mut answer = good(1, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]).unwrap();
    for (found, (priority, weight)) in answer.found.iter_mut().zip([(20, 0), (10, 5), (10, 1)]) {
        (found.priority, found.weight) = (priority, weight);
    }
    let srv = EndpointSource { weight: 2, ..source(EndpointTarget::Srv { name: "_x._tcp.orders".into() }) };
    let backup = EndpointSource { priority: 3, ..source(EndpointTarget::Ip("10.0.0.9:80".parse().unwrap())) };
    let shared = merge_of(vec![srv, backup], vec![Ok(answer)]);
    assert_eq!(
        listed(&shared),
        ["10.0.0.1:80 2/1", "10.0.0.2:80 10/0", "10.0.0.3:80 2/0", "10.0.0.9:80 1/2"]
    );
}

#[tokio::test]
async fn endpoints_of_before_a_reload_stay_until_every_source_has_answered() {
    let sources = vec![source(dns_name("a")), source(dns_name("b"))];
    let old = shared_of(sources.clone());
    old.replace_endpoints(vec![crate::test_support::spec(1), crate::test_support::spec(2)], None);
    let new = Arc::new(SharedUpstream::inherit_from(old.config.clone(), &old));
    let mut merge = Merge::new(new.clone(), sources);
    merge.publish();
    merge.take(0, good(1, &["10.0.0.3"]));
    merge.take(1, bad(Reason::DnsTimeout));
    assert_eq!(labels(&new), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    merge.take(1, good(1, &["10.0.0.2"]));
    assert_eq!(labels(&new), ["10.0.0.2:80", "10.0.0.3:80"]);
}

#[tokio::test]
async fn a_failure_is_logged_once_and_so_is_its_end() {
    use crate::discovery::merge::ResultChange;
    let sources = vec![source(dns_name("a"))];
    let mut merge = Merge::new(shared_of(sources.clone()), sources);
    let results = [
        good(1, &["10.0.0.1"]),
        bad(Reason::DnsTimeout),
        bad(Reason::DnsTimeout),
        bad(Reason::DnsNxdomain),
        good(1, &["10.0.0.1"]),
    ];
    let turns: Vec<_> = results.into_iter().map(|result| merge.take(0, result)).collect();
    let expected = [
        ResultChange::Same,
        ResultChange::Failed(Reason::DnsTimeout),
        ResultChange::Same,
        ResultChange::Failed(Reason::DnsNxdomain),
        ResultChange::Recovered,
    ];
    assert_eq!(turns, expected);
}

#[tokio::test(start_paused = true)]
async fn a_longer_retry_interval_and_a_lower_ceiling_hold_for_failures_too() {
    for (retry, max, waits) in [(20, 300, [20, 20]), (1, 3, [1, 2]), (4, 3, [3, 3])] {
        let (retry_interval, max_ttl) = (Duration::from_secs(retry), Duration::from_secs(max));
        let mut schedule = Schedule::new(&Dns { retry_interval, max_ttl, ..Dns::default() }).exact();
        assert_eq!([(); 2].map(|()| schedule.next(&bad(Reason::DnsTimeout)).as_secs()), waits);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_at_once_if_none_of_its_endpoints_can_be_reached() {
    let script = ScriptedLookup::new([good(60, &["10.0.0.1"]), good(60, &["10.0.0.2"])]);
    let shared = run(&script, 30).await;
    assert_eq!(script.asked_at(), [0]);
    let sources = vec![source(dns_name("orders"))];
    let _discovery = start_sources(shared.clone(), sources, &script, &Schedule::new(&Dns::default()).exact());
    tokio::time::sleep(Duration::from_secs(10)).await;
    // However often it is asked for: once per `retry_interval`.
    for _ in 0..30 {
        shared.lookups.want();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(script.asked_at(), [0, 30, 40, 41, 42]);
    assert_eq!(labels(&shared), ["10.0.0.2:80"]);
}

#[tokio::test(start_paused = true)]
async fn while_the_first_look_up_runs_the_reason_says_so() {
    let script = ScriptedLookup::slow(Duration::from_secs(3), [bad(Reason::DnsNxdomain)]);
    let shared = run(&script, 1).await;
    assert_eq!(shared.endpoints.load().failure, Some(Reason::DnsPending));
    let sources = vec![source(dns_name("orders"))];
    let shared = shared_of(sources.clone());
    let _discovery = start_sources(shared.clone(), sources, &script, &Schedule::new(&Dns::default()));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(shared.endpoints.load().failure, Some(Reason::DnsNxdomain));
    assert_eq!(shared.lookups.failure().unwrap().as_str(), "by script");
}

proptest! {
    #[test]
    fn jitter_only_makes_it_earlier_by_a_tenth_at_most_and_never_below_the_floor(ttl in 0_u64..1000) {
        let mut schedule = Schedule::new(&Dns::default());
        let wait = schedule.next(&good(ttl, &["10.0.0.1"])).as_secs_f64();
        let whole = (ttl as f64).clamp(1.0, 300.0);
        prop_assert!(wait <= whole && wait >= (whole * 0.9).max(1.0) - 1e-6, "{wait} of {whole}");
    }
}
