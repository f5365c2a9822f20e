//! Timeouts, retries, limits and credentials: short forms, defaults, and what a route takes from its upstream.

use attache_config::model::{GenericKey, RequestHeaders};

use super::*;

#[test]
fn a_route_takes_over_from_the_upstream_key_by_key() {
    let config = config(
        r"
listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - { match: { path: /a }, to: orders, timeout: 1s }
      - { match: { path: /b }, to: orders, retry: 5 }
      - { match: { path: /c }, to: orders, retry: off, idle_timeout: off }
      - { match: { path: /d }, to: calm, retry: { on: [503] } }
    to: orders
upstreams:
  orders: { address: http://orders.internal, timeout: 9s, retry: { attempts: 4, per_try_timeout: 300ms, on: 5xx } }
  calm: { address: http://calm.internal, retry: off }
",
    );
    let policies: Vec<&Policy> =
        config.listeners[0].routes.iter().map(|route| &*forward(route).to[0].policy).collect();
    let seconds = std::time::Duration::from_secs;
    assert_eq!(policies[0].timeouts.request, seconds(1));
    assert_eq!(policies[0].retry.attempts, 4);
    assert_eq!(policies[1].timeouts.request, seconds(9));
    assert_eq!((policies[1].retry.attempts, &policies[1].retry.on), (5, &vec![RetryOn::ServerError]));
    assert_eq!(policies[2].retry.attempts, 0);
    assert!(policies[2].timeouts.idle.is_zero());
    assert_eq!(policies[3].retry.attempts, Retry::default().attempts);
    assert_eq!(policies[4].retry.per_try_timeout, std::time::Duration::from_millis(300));
}

#[test]
fn limits_and_faults_have_short_and_full_forms() {
    let config = config(
        r"
listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - { match: { path: /a }, to: x, rate_limit: 6000/m, fault: { header: x-fault, delay: { time: 1s } } }
      - match: { path: /b }
        to: x
        rate_limit: { requests: 5, burst: 9, by: identity }
        fault: { header: { x-fault: please }, abort: { share: 10% } }
upstreams:
  x: { address: http://x, circuit_breaker: { failures: {} }, health_check: { tcp: true, interval: 9s } }
",
    );
    let routes = &config.listeners[0].routes;
    let limit = forward(&routes[0]).rate_limit.clone().unwrap();
    assert_eq!(
        (limit.requests, limit.per.as_secs(), limit.burst, limit.by),
        (6000, 60, 6000, LimitKey::Route)
    );
    let limit = forward(&routes[1]).rate_limit.clone().unwrap();
    assert_eq!((limit.requests, limit.per.as_secs(), limit.burst, limit.by), (5, 1, 9, LimitKey::Identity));
    let fault = forward(&routes[0]).fault.clone().unwrap();
    assert_eq!(fault.header, Some(("x-fault".parse().unwrap(), None)));
    assert_eq!(fault.delay.map(|delay| (delay.time.as_secs(), delay.share)), Some((1, 1.0)));
    let fault = forward(&routes[1]).fault.clone().unwrap();
    assert_eq!(fault.header, Some(("x-fault".parse().unwrap(), Some("please".into()))));
    assert_eq!(fault.abort.map(|abort| (abort.status.as_u16(), abort.share)), Some((503, 0.1)));
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.circuit_breaker.failures, Some(FailureBreaker::default()));
    assert_eq!(upstream.health_check.as_ref().unwrap().unhealthy_interval.as_secs(), 9);
}

#[test]
fn hedges_breakers_and_bytes_have_short_and_full_forms() {
    let config = config(
        r#"
listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - { match: { path: /a }, to: x }
      - { match: { path: /b }, to: x, retry: { hedge: off } }
      - { match: { path: /c }, to: x, retry: { hedge: { after: 20ms, max: 2, floor: 1ms, min_samples: 7 } } }
      - { to: x, fault: { response_rate: { limit: 10KiB, share: 5% } } }
upstreams:
  x:
    address: tcp://x:6379
    health_check: { tcp: { send: "PING\r\n", expect: ["+PONG", "hex:0d0a"] } }
  y:
    address: http://x
    retry: { hedge: p99.9 }
    circuit_breaker: { endpoint_failures: { consecutive: 4 } }
"#
        .replace("to: x", "to: y")
        .as_str(),
    );
    let hedge = |n: usize| forward(&config.listeners[0].routes[n]).to[0].policy.retry.hedge.clone();
    assert_eq!(hedge(0), Some(Hedge::new(HedgeAfter::Percentile(0.999))));
    assert_eq!(hedge(1), None);
    let full = hedge(2).unwrap();
    assert_eq!(full.after, HedgeAfter::Time(std::time::Duration::from_millis(20)));
    assert_eq!((full.max, full.floor.as_millis(), full.min_samples), (2, 1, 7));
    let rate = forward(&config.listeners[0].routes[3]).fault.as_ref().unwrap().response_rate.unwrap();
    assert_eq!((rate.limit, rate.share), (10 << 10, 0.05));
    let probe = &config.upstreams[0].health_check.as_ref().unwrap().probe;
    let expect = vec![(*b"+PONG").into(), (*b"\r\n").into()];
    assert_eq!(*probe, HealthCheckKind::Tcp { send: (*b"PING\r\n").into(), expect });
    let breaker = config.upstreams[1].circuit_breaker.endpoint_failures.clone().unwrap();
    assert_eq!(breaker, FailureBreaker { consecutive: 4, ..FailureBreaker::default() });
}

#[test]
fn ejection_by_rates_is_on_by_success_rate_and_off_by_percentage() {
    let ejection = |text: &str| {
        let text = format!(
            "listeners: {{ outbound: {{ bind: '127.0.0.1:15001' }} }}\nupstreams: {{ x: {{ address: http://x, outlier_ejection: {text} }} }}"
        );
        config(&text).upstreams[0].outlier_ejection.clone()
    };
    let default = ejection("{}");
    assert_eq!((default.success_rate.is_some(), default.failure_percentage.is_some()), (true, false));
    let set = ejection(
        "{ interval: 1s, success_rate: { stdev_factor: 2500 }, failure_percentage: { threshold: 50%, minimum_hosts: 2 } }",
    );
    let rate = set.success_rate.unwrap();
    assert_eq!((set.interval.as_secs(), rate.stdev_factor, rate.minimum_hosts), (1, 2500, 5));
    let percentage = set.failure_percentage.unwrap();
    assert_eq!((percentage.threshold, percentage.minimum_hosts, percentage.request_volume), (0.5, 2, 50));
    for off in ["off", "{ success_rate: off, failure_percentage: off }"] {
        let off = ejection(off);
        assert_eq!((off.success_rate, off.failure_percentage), (None, None));
    }
}

#[test]
fn a_deadline_header_is_the_routes_or_the_upstreams() {
    let config = config(
        r"
listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - { match: { path: /a }, to: x, deadline_header: x-left }
      - { to: x }
upstreams: { x: { address: http://x, deadline_header: X-Request-Deadline } }
",
    );
    let header = |n: usize| forward(&config.listeners[0].routes[n]).to[0].policy.deadline_header.clone();
    assert_eq!(header(0), Some("x-left".parse().unwrap()));
    assert_eq!(header(1), Some("x-request-deadline".parse().unwrap()));
}

#[test]
fn what_protects_from_load_has_its_defaults_and_each_key_its_effect() {
    let config = config(
        r"
overload: { memory_limit: 256MiB, stop_accepting: 97%, priority_header: x-urgency }
listeners:
  outbound:
    bind: 127.0.0.1:15001
    routes:
      - to: x
        global_rate_limit:
          service: limits
          domain: shop
          failure_mode: deny
          descriptors:
            - actions: [ { request_headers: { header_name: X-User } }, { generic_key: { descriptor_value: slow } } ]
            - actions: { remote_address: true }
upstreams:
  x:
    address: http://x
    adaptive_concurrency: { max_concurrency_limit: 50, min_rtt: { buffer: 50%, fixed_value: 4ms } }
    queue: { target: 20ms, interval: 300ms }
  plain: { address: http://y, adaptive_concurrency: off, queue: {} }
  limits: h2c://limits:8081
",
    );
    let overload = config.overload.as_ref().unwrap();
    let expected = Overload {
        memory_limit: Some(256 << 20),
        stop_accepting: 0.97,
        priority_header: "x-urgency".parse().unwrap(),
        ..Overload::default()
    };
    assert_eq!(*overload, expected);
    let x = &config.upstreams[0];
    let adaptive = x.adaptive_concurrency.as_ref().unwrap();
    let min_rtt =
        MinRtt { buffer: 0.5, fixed_value: Some(std::time::Duration::from_millis(4)), ..MinRtt::default() };
    assert_eq!((adaptive.max_concurrency_limit, &adaptive.min_rtt), (50, &min_rtt));
    let queue = x.queue.as_ref().unwrap();
    assert_eq!(
        (queue.target, queue.interval),
        (std::time::Duration::from_millis(20), std::time::Duration::from_millis(300))
    );
    let plain = &config.upstreams[1];
    assert_eq!((&plain.adaptive_concurrency, &plain.queue), (&None, &Some(Queue::default())));
    let limit = forward(&config.listeners[0].routes[0]).global_rate_limit.as_deref().unwrap();
    assert_eq!(
        (limit.service.0, &*limit.domain, limit.timeout),
        (2, "shop", std::time::Duration::from_millis(20))
    );
    assert_eq!((limit.failure_mode, limit.hits_addend), (FailureMode::Deny, 1));
    let header = DescriptorAction::RequestHeader(RequestHeaders {
        header_name: "x-user".parse().unwrap(),
        descriptor_key: Some("x-user".into()),
        skip_if_absent: false,
    });
    let generic = DescriptorAction::GenericKey(GenericKey {
        descriptor_key: "generic_key".into(),
        descriptor_value: "slow".into(),
    });
    let expected = [vec![header, generic], vec![DescriptorAction::RemoteAddress]];
    assert_eq!(limit.descriptors, expected);
    let off = attache_config::parse("overload: off\nupstreams: { x: 'http://x' }", None, &|_| None).unwrap();
    assert_eq!(off.overload, None);
}

#[test]
fn a_credential_is_the_routes_or_the_upstreams() {
    let config = config(
        r"
listeners:
  a:
    bind: ':1'
    routes:
      - { match: { path: /upstreams }, to: x }
      - { match: { path: /own }, to: x, credential: { basic: { user: u, password_file: /p }, existing: keep } }
      - { match: { path: /none, identity: ['spiffe://d/*', 'subject:CN=a'] }, to: x, credential: off }
    tls: { certificate: /c, key: /k, client_ca: /ca }
upstreams:
  x: { address: https://x, credential: { bearer: { file: /t }, may_come_late: true } }
",
    );
    let policies: Vec<_> = config.listeners[0]
        .routes
        .iter()
        .map(|route| forward(route).to[0].policy.credential.clone())
        .collect();
    assert_eq!(policies[0], config.upstreams[0].credential);
    assert!(policies[0].as_ref().unwrap().may_come_late);
    let own = policies[1].as_ref().unwrap();
    assert_eq!(own.secret, Secret::Basic(BasicSecret { user: "u".into(), password_file: "/p".into() }));
    assert_eq!(own.existing, ExistingHeader::Keep);
    assert_eq!(policies[2], None);
    let identities = &config.listeners[0].routes[2].matcher.identities;
    assert_eq!(identities, &[SanPattern::Uri("spiffe://d/*".into()), SanPattern::Subject("CN=a".into())]);
}
